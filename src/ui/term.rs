//! What the terminal can do.

use std::io::{stderr, stdin, stdout};

/// One of the three standard streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard input.
    Stdin,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Rows and columns of the terminal behind a stream; nothing when it is none or does not know.
#[must_use]
pub fn size(stream: Stream) -> Option<(u16, u16)> {
    let size = match stream {
        Stream::Stdin => rustix::termios::tcgetwinsize(stdin()),
        Stream::Stdout => rustix::termios::tcgetwinsize(stdout()),
        Stream::Stderr => rustix::termios::tcgetwinsize(stderr()),
    };
    size.ok().map(|size| (size.ws_row, size.ws_col)).filter(|&(rows, columns)| rows > 0 && columns > 0)
}

/// Whether colours and cursor movement are welcome on a terminal, by the environment: `NO_COLOR`, `TERM=dumb`.
#[must_use]
pub fn wants_colour<'a>(var: impl Fn(&str) -> Option<&'a str>) -> bool {
    var("NO_COLOR").is_none() && var("TERM") != Some("dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_environment() {
        assert!(wants_colour(|_| None));
        assert!(!wants_colour(|name| (name == "NO_COLOR").then_some("1")));
        assert!(!wants_colour(|name| (name == "TERM").then_some("dumb")));
        assert!(wants_colour(|name| (name == "TERM").then_some("xterm")));
    }
}
