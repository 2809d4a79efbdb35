//! Questions on a terminal.

use std::io::{self, BufRead, Read, Write};

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

/// The byte that Ctrl-C sends.
const INTERRUPT: u8 = 3;

/// Ask for a line. `None` at the end of input.
///
/// # Errors
/// When stdin cannot be read.
pub fn line(question: &str) -> io::Result<Option<String>> {
    ask(question)?;
    let mut text = String::new();
    let n = io::stdin().lock().read_line(&mut text)?;
    Ok((n > 0).then(|| text.trim_end_matches(['\n', '\r']).to_owned()))
}

/// Docker's question before something is removed.
///
/// # Errors
/// When stdin cannot be read, or nobody answers: who runs a command unattended has to know that nothing was removed.
pub fn agreed() -> io::Result<bool> {
    let Some(answer) = line("Are you sure you want to continue? [y/N] ")? else {
        ask("\n")?;
        return Err(io::Error::other("nobody answers, so nothing is removed: --force does not ask"));
    };
    Ok(matches!(answer.trim(), "y" | "Y" | "yes" | "Yes" | "YES"))
}

/// Ask for a secret without showing it. `None` when Ctrl-C or the end of input came instead.
///
/// # Errors
/// When stdin is no terminal or cannot be read.
pub fn secret(question: &str) -> io::Result<Option<String>> {
    ask(question)?;
    let before = termios::tcgetattr(io::stdin())?;
    let mut quiet = before.clone();
    quiet.local_modes.remove(LocalModes::ECHO);
    // Ctrl-C would leave a silent terminal behind: here it ends the line instead, and is looked for in it.
    quiet.local_modes.remove(LocalModes::ISIG);
    quiet.special_codes[SpecialCodeIndex::VEOL] = INTERRUPT;
    termios::tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
    let restore = Restore(before);
    let result = read_line();
    drop(restore);
    ask("\n")?;
    let bytes = result?;
    if bytes.is_empty() || bytes.contains(&INTERRUPT) {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).map_err(|_| io::Error::other("the answer is not valid UTF-8"))?;
    Ok(Some(text.trim_end_matches(['\n', '\r']).to_owned()))
}

/// Read up to the end of the line or a Ctrl-C, whichever comes first: the terminal hands over what came before either.
fn read_line() -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let n = io::stdin().lock().read(&mut chunk)?;
        bytes.extend_from_slice(&chunk[..n]);
        if n == 0 || bytes.ends_with(b"\n") || bytes.contains(&INTERRUPT) {
            return Ok(bytes);
        }
    }
}

fn ask(question: &str) -> io::Result<()> {
    let mut err = io::stderr();
    err.write_all(question.as_bytes())?;
    err.flush()
}

/// Puts the terminal back as it was.
struct Restore(Termios);

impl Drop for Restore {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}
