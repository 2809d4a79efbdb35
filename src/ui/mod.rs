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
use std::io::{IsTerminal, Write};

pub use error::ErrorReport;

/// The two streams of a command.
#[derive(Debug)]
pub struct Ui {
    stdout_gone: bool,
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
            stdout_gone: false,
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
        if !self.stdout_gone {
            let mut out = std::io::stdout().lock();
            self.stdout_gone = out.write_all(bytes).and_then(|()| out.flush()).is_err();
        }
    }

    /// Whether nobody reads stdout any more; a verb that prints without end stops then.
    #[must_use]
    pub fn stdout_gone(&self) -> bool {
        self.stdout_gone
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
