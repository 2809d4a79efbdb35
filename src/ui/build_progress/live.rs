//! The live view: a list of what was done and is being done, drawn over itself ten times a second at most.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::{Mode, State, Status, TICK, Work, lock, stderr};
use crate::ui::{term, words};

/// How many of the last lines of output are shown below running work.
const WINDOW: usize = 6;

/// Start the thread that draws.
pub(super) fn ticker(state: Arc<Mutex<State>>) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("progress".into()).spawn(move || {
        loop {
            {
                let mut state = lock(&state);
                if state.finished {
                    return;
                }
                let running = state.works.iter().any(|work| work.status == Status::Running);
                if state.dirty || running {
                    draw(&mut state);
                }
            }
            std::thread::park_timeout(TICK);
        }
    })
}

/// Draw over what was drawn before.
pub(super) fn draw(state: &mut State) {
    let (rows, columns) = term::size(term::Stream::Stderr).unwrap_or((24, 80));
    let Mode::Live { colour } = state.mode else { return };
    let mut lines = view(state, usize::from(columns), colour);
    // What does not fit cannot be drawn over: while it runs only the last lines are shown.
    let fits = usize::from(rows).saturating_sub(2).max(4);
    if !state.finished && lines.len() > fits {
        let cut = lines.len() - fits;
        lines.drain(1..=cut);
    }
    let mut text = String::new();
    if state.drawn > 0 {
        text.push_str(&format!("\x1b[{}A", state.drawn));
    }
    for line in &lines {
        text.push_str("\r\x1b[2K");
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("\x1b[J");
    state.drawn = if state.finished { 0 } else { lines.len() };
    state.dirty = false;
    stderr(&text);
}

fn view(state: &State, width: usize, colour: bool) -> Vec<String> {
    let over = |work: &&Work| !matches!(work.status, Status::Waiting | Status::Running);
    let (done, all) = (state.works.iter().filter(over).count(), state.works.len());
    let finished = if state.finished { " FINISHED" } else { "" };
    let seconds = state.began.elapsed().as_secs_f64();
    let mut lines = vec![cut(&format!("[+] Building {seconds:.1}s ({done}/{all}){finished}"), width)];
    for work in state.works.iter().filter(|work| work.status != Status::Waiting) {
        let (mark, hue) = match work.status {
            Status::Cached => ("CACHED ", 34),
            Status::Failed(_) => ("ERROR ", 31),
            Status::Cancelled => ("CANCELED ", 33),
            Status::Done => ("", 34),
            _ => ("", 0),
        };
        let line = padded(&format!(" => {mark}{}", work.name), &format!("{:.1}s", work.seconds()), width);
        lines.push(if colour && hue != 0 { format!("\x1b[{hue}m{line}\x1b[0m") } else { line });
        if work.status == Status::Running {
            for part in work.parts.iter().filter(|part| !part.done) {
                let of =
                    if part.total > 0 { format!(" / {}", words::size(part.total)) } else { String::new() };
                let line = format!(" => => {} {}{of}", part.name, words::size(part.current));
                lines.push(cut(&line, width));
            }
            let skip = work.lines.len().saturating_sub(WINDOW);
            for line in work.lines.iter().skip(skip) {
                let text = line.split_once(' ').map_or(line.as_str(), |(_, text)| text);
                lines.push(cut(&format!(" => => # {text}"), width));
            }
        }
    }
    lines
}

/// Text at the left, time at the right edge.
fn padded(left: &str, right: &str, width: usize) -> String {
    let room = width.saturating_sub(right.len() + 2);
    let left = cut(left, room);
    let gap = room.saturating_sub(left.chars().count()) + 1;
    format!("{left}{}{right}", " ".repeat(gap))
}

/// At most so many characters: a line that wraps could not be drawn over.
fn cut(text: &str, width: usize) -> String {
    let room = width.saturating_sub(1);
    let text = text.replace('\t', " ");
    if text.chars().count() <= room { text } else { text.chars().take(room).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_never_wrap() {
        assert_eq!(cut("abcdef", 4), "abc");
        assert_eq!(padded("ab", "1.0s", 12), "ab     1.0s");
        assert_eq!(padded("a very long name", "1.0s", 12).chars().count(), 11);
    }
}
