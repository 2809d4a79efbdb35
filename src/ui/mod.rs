//! Floor 6: the terminal. stdout is data; everything else goes to stderr. A broken pipe is a quiet end.

pub mod build_progress;
pub mod crash;
pub mod error;
pub mod format;
pub mod progress;
pub mod prompt;
pub mod sanitise;
pub mod table;
pub mod term;
pub mod words;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;

use crate::context;

pub use error::ErrorReport;

/// The result of a command is lost: standard output cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
pub struct StdoutError(#[source] io::Error);

/// The two streams of a command.
#[derive(Debug)]
pub struct Ui {
    /// Why stdout takes nothing more.
    stdout_failure: Option<io::Error>,
    stdout_is_terminal: bool,
    stderr_is_terminal: bool,
}

impl Default for Ui {
    fn default() -> Self {
        Self::new()
    }
}

impl Ui {
    /// The process's own streams.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stdout_failure: None,
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Print data: one line on stdout. What could steer a terminal is shown escaped when stdout is one.
    pub fn line(&mut self, text: impl std::fmt::Display) {
        self.text(&format!("{text}\n"));
    }

    /// Print data that brings its own line ends.
    pub fn text(&mut self, text: &str) {
        let text = if self.stdout_is_terminal { sanitise::text(text) } else { Cow::Borrowed(text) };
        self.bytes(text.as_bytes());
    }

    /// Print data as it is, whatever it is.
    pub fn bytes(&mut self, bytes: &[u8]) {
        if self.stdout_failure.is_none() {
            self.stdout_failure = write_stdout(bytes).err();
        }
    }

    /// Let somebody else print to stdout.
    pub fn printed_by(&mut self, print: impl FnOnce() -> io::Result<()>) {
        if self.stdout_failure.is_none() {
            self.stdout_failure = is_open().and_then(|()| print()).and_then(|()| io::stdout().flush()).err();
        }
    }

    /// Whether stdout takes nothing more; a verb that prints without end stops then.
    #[must_use]
    pub fn stdout_gone(&self) -> bool {
        self.stdout_failure.is_some()
    }

    /// Whether all that was printed is out, as far as anybody wants it: a reader that is gone wants no more.
    ///
    /// # Errors
    /// [`StdoutError`], once.
    pub fn check_stdout(&mut self) -> Result<(), StdoutError> {
        match self.stdout_failure.take() {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(StdoutError(error)),
            _ => Ok(()),
        }
    }

    /// Whether stdout is a terminal.
    #[must_use]
    pub fn stdout_is_terminal(&self) -> bool {
        self.stdout_is_terminal
    }

    /// Whether stderr is a terminal.
    #[must_use]
    pub fn stderr_is_terminal(&self) -> bool {
        self.stderr_is_terminal
    }

    /// Say something about the command: one line on stderr.
    pub fn note(&mut self, text: impl std::fmt::Display) {
        let mut text = format!("{text}\n");
        if self.stderr_is_terminal
            && let Cow::Owned(clean) = sanitise::text(&text)
        {
            text = clean;
        }
        // Nothing can be said about a stderr that is gone.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// Warn: one line on stderr.
    pub fn warn(&mut self, text: impl std::fmt::Display) {
        self.note(format_args!("warning: {text}"));
    }

    /// Print an error with its causes and hints.
    pub fn error(&mut self, error: &ErrorReport) {
        self.note(error);
    }
}

/// Draw one line on the terminal that stderr is, over the one drawn before; an empty text takes it away.
pub fn over(text: &str) {
    let end = if text.is_empty() { "" } else { "\r" };
    // Nothing can be said about a stderr that is gone.
    let _ = std::io::stderr().write_all(format!("\r\x1b[K{text}{end}").as_bytes());
}

/// Write to stdout, past the standard library's buffer: that takes an unusable stdout for a good one.
fn write_stdout(mut bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut stdout = io::stdout().lock();
    stdout.flush()?;
    is_open()?;
    while !bytes.is_empty() {
        match rustix::io::write(stdout.as_fd(), bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(length) => bytes = &bytes[length..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn is_open() -> io::Result<()> {
    if context::stdout_was_closed() { Err(rustix::io::Errno::BADF.into()) } else { Ok(()) }
}
