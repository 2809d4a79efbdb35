//! Progress of a build on stderr, in BuildKit's words: plain lines, a live view, or one JSON document a line.

mod json;
mod live;
mod plain;

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::sanitise;
use crate::ops::build::{BuildEvent, BuildProgress as Progress, Stream};

/// How many of the last lines of output are kept for the report of a failure.
const TAIL: usize = 20;
/// How often the live view is drawn at most.
const TICK: Duration = Duration::from_millis(100);

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One line an event, for logs.
    Plain,
    /// Redrawn in place.
    Live {
        /// Whether colours are welcome.
        colour: bool,
    },
    /// Nothing.
    Quiet,
    /// BuildKit's `SolveStatus` documents.
    RawJson,
}

/// Draws what happens.
#[derive(Debug)]
pub struct BuildDisplay {
    shared: Arc<Mutex<State>>,
    ticker: Option<std::thread::JoinHandle<()>>,
}

/// Everything there is to draw.
#[derive(Debug)]
struct State {
    mode: Mode,
    began: Instant,
    finished: bool,
    works: Vec<Work>,
    lints: Vec<String>,
    /// Plain: the work whose lines were printed last and is not over.
    open: Option<usize>,
    /// Live: lines drawn, to be drawn over.
    drawn: usize,
    dirty: bool,
}

/// One piece of work.
#[derive(Debug, Default)]
struct Work {
    name: String,
    began: Option<Instant>,
    took: Option<Duration>,
    status: Status,
    parts: Vec<Part>,
    partial: [String; 2],
    /// The last whole lines, with their time.
    lines: VecDeque<String>,
}

#[derive(Debug, Default, Clone, PartialEq)]
enum Status {
    #[default]
    Waiting,
    Running,
    Cached,
    Done,
    Failed(String),
    Cancelled,
}

#[derive(Debug, Clone)]
struct Part {
    name: String,
    current: u64,
    total: u64,
    done: bool,
}

impl BuildDisplay {
    /// Begin to draw.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        let state = State {
            mode,
            began: Instant::now(),
            finished: false,
            works: Vec::new(),
            lints: Vec::new(),
            open: None,
            drawn: 0,
            dirty: false,
        };
        let shared = Arc::new(Mutex::new(state));
        let ticker = matches!(mode, Mode::Live { .. }).then(|| live::ticker(Arc::clone(&shared)));
        Self { shared, ticker: ticker.and_then(Result::ok) }
    }

    /// Says a line above what is drawn.
    pub fn notice(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let shared = Arc::clone(&self.shared);
        move |text| {
            let mut state = lock(&shared);
            if state.drawn > 0 {
                stderr(&format!("\x1b[{}A\r\x1b[J", state.drawn));
                state.drawn = 0;
            }
            stderr(&format!("{}\n", sanitise::line(text)));
            state.dirty = true;
        }
    }

    /// Draw the end. With a failure, the last lines of the work that failed come back as BuildKit frames them.
    #[must_use]
    pub fn finish(mut self) -> Option<String> {
        let tail = {
            let mut state = lock(&self.shared);
            state.finished = true;
            match state.mode {
                Mode::Live { .. } => live::draw(&mut state),
                Mode::Plain => plain::end(&mut state),
                Mode::Quiet | Mode::RawJson => {}
            }
            if matches!(state.mode, Mode::Live { .. } | Mode::Plain) {
                state.print_lints();
            }
            state.failure_tail()
        };
        if let Some(ticker) = self.ticker.take() {
            // It ends at its next tick; a panic there has been reported.
            let _ = ticker.join();
        }
        tail
    }
}

impl Drop for BuildDisplay {
    fn drop(&mut self) {
        lock(&self.shared).finished = true;
    }
}

impl Progress for BuildDisplay {
    fn event(&self, event: BuildEvent) {
        let mut state = lock(&self.shared);
        if state.mode == Mode::RawJson {
            json::print(&mut state, &event);
        }
        let lines = state.take(&event);
        match state.mode {
            Mode::Plain => plain::print(&mut state, &event, &lines),
            Mode::Live { .. } => state.dirty = true,
            Mode::Quiet | Mode::RawJson => {}
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Drawing must go on after a panic elsewhere: the state is only ever a bit stale.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn stderr(text: &str) {
    // Nothing can be said about a stderr that is gone.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

impl State {
    fn work(&mut self, index: usize) -> &mut Work {
        if self.works.len() <= index {
            self.works.resize_with(index + 1, Work::default);
        }
        &mut self.works[index]
    }

    /// Take an event in; whole lines of output that it completed come back.
    fn take(&mut self, event: &BuildEvent) -> Vec<String> {
        match event {
            BuildEvent::Started { vertex, name, .. } => {
                let name = sanitise::line(name).into_owned();
                let work = self.work(*vertex);
                (work.name, work.began, work.status) = (name, Some(Instant::now()), Status::Running);
            }
            BuildEvent::Cached { vertex } => self.work(*vertex).end(Status::Cached, Duration::ZERO),
            BuildEvent::Done { vertex, took } => return self.work(*vertex).end_lines(Status::Done, *took),
            BuildEvent::Failed { vertex, why } => {
                let work = self.work(*vertex);
                let took = work.began.map_or(Duration::ZERO, |began| began.elapsed());
                return work.end_lines(Status::Failed(why.clone()), took);
            }
            BuildEvent::Cancelled { vertex } => {
                let work = self.work(*vertex);
                let took = work.began.map_or(Duration::ZERO, |began| began.elapsed());
                return work.end_lines(Status::Cancelled, took);
            }
            BuildEvent::Part { vertex, part, current, total, done } => {
                let part = Part { name: part.clone(), current: *current, total: *total, done: *done };
                self.work(*vertex).set_part(part);
            }
            BuildEvent::Output { vertex, stream, data, after } => {
                return self.work(*vertex).output(*stream, data, *after);
            }
            BuildEvent::Note { vertex, text } => {
                let line = sanitise::line(text).into_owned();
                self.work(*vertex).keep(line.clone());
                return vec![line];
            }
            BuildEvent::Lint { text } => self.lints.push(sanitise::text(text).into_owned()),
        }
        Vec::new()
    }

    fn print_lints(&self) {
        if self.lints.is_empty() {
            return;
        }
        let plural = if self.lints.len() == 1 { "warning" } else { "warnings" };
        let mut text = format!("\n {} {plural} found:\n", self.lints.len());
        for lint in &self.lints {
            text.push_str(&format!(" - {lint}\n"));
        }
        stderr(&text);
    }

    fn failure_tail(&self) -> Option<String> {
        let failed = self.works.iter().find(|work| matches!(work.status, Status::Failed(_)))?;
        if failed.lines.is_empty() {
            return None;
        }
        let mut text = format!("------\n > {}:\n", failed.name);
        for line in &failed.lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("------\n");
        Some(text)
    }
}

impl Work {
    fn end(&mut self, status: Status, took: Duration) {
        self.status = status;
        self.took = Some(took);
    }

    /// End, and give what was left of an unfinished line.
    fn end_lines(&mut self, status: Status, took: Duration) -> Vec<String> {
        self.end(status, took);
        let rests = std::mem::take(&mut self.partial);
        let mut lines = Vec::new();
        for rest in rests.into_iter().filter(|rest| !rest.is_empty()) {
            let line = format!("{:.3} {}", took.as_secs_f64(), shown(&rest));
            self.keep(line.clone());
            lines.push(line);
        }
        lines
    }

    fn output(&mut self, stream: Stream, data: &[u8], after: Duration) -> Vec<String> {
        let slot = usize::from(stream == Stream::Stderr);
        self.partial[slot].push_str(&String::from_utf8_lossy(data));
        let mut lines = Vec::new();
        while let Some(end) = self.partial[slot].find('\n') {
            let rest = self.partial[slot].split_off(end + 1);
            let line = std::mem::replace(&mut self.partial[slot], rest);
            let line = format!("{:.3} {}", after.as_secs_f64(), shown(line.trim_end_matches(['\n', '\r'])));
            self.keep(line.clone());
            lines.push(line);
        }
        lines
    }

    fn keep(&mut self, line: String) {
        if self.lines.len() == TAIL {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    fn set_part(&mut self, part: Part) {
        match self.parts.iter_mut().find(|known| known.name == part.name) {
            Some(known) => *known = part,
            None => self.parts.push(part),
        }
    }

    fn seconds(&self) -> f64 {
        self.took.or_else(|| self.began.map(|began| began.elapsed())).unwrap_or_default().as_secs_f64()
    }
}

/// A line as a terminal would show it in the end: what a carriage return wrote over is gone, colours are dropped.
fn shown(line: &str) -> String {
    let line = line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or("");
    let mut plain = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(start) = rest.find("\x1b[") {
        plain.push_str(&rest[..start]);
        let sequence = &rest[start + 2..];
        let end = sequence.find(|c: char| ('@'..='~').contains(&c)).map_or(sequence.len(), |end| end + 1);
        rest = &sequence[end..];
    }
    plain.push_str(rest);
    sanitise::text(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_and_cleaned() {
        let mut work = Work::default();
        let after = Duration::from_millis(1500);
        assert!(work.output(Stream::Stdout, b"ab", after).is_empty());
        assert_eq!(work.output(Stream::Stdout, b"c\nd\n", after), ["1.500 abc", "1.500 d"]);
        assert_eq!(work.output(Stream::Stderr, b"10%\r20%\r\n", after), ["1.500 20%"]);
        assert_eq!(work.output(Stream::Stdout, b"\x1b[31mred\x1b[0m\x07\n", after), ["1.500 red\\x07"]);
        assert!(work.output(Stream::Stdout, b"rest", after).is_empty());
        assert_eq!(work.end_lines(Status::Done, after), ["1.500 rest"]);
    }

    #[test]
    fn the_tail_of_a_failure_is_framed() {
        let display = BuildDisplay::new(Mode::Quiet);
        display.event(BuildEvent::Started { vertex: 0, name: "[1/1] RUN x".into(), step: true });
        let data = b"one\ntwo\n".to_vec();
        let after = Duration::from_secs(1);
        display.event(BuildEvent::Output { vertex: 0, stream: Stream::Stdout, data, after });
        display.event(BuildEvent::Failed { vertex: 0, why: "exit code: 1".into() });
        let tail = display.finish().unwrap();
        assert_eq!(tail, "------\n > [1/1] RUN x:\n1.000 one\n1.000 two\n------\n");
    }
}
