//! Floor 6: the terminal. stdout is data; everything else goes to stderr. A broken pipe is a quiet end.

pub mod words;

use std::io::Write;

use crate::cmd::CmdError;

/// The two streams of a command.
#[derive(Debug)]
pub struct Ui {
    stdout_gone: bool,
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
        Self { stdout_gone: false }
    }

    /// Print data: one line on stdout.
    pub fn line(&mut self, text: impl std::fmt::Display) {
        if !self.stdout_gone {
            let mut out = std::io::stdout().lock();
            self.stdout_gone = writeln!(out, "{text}").and_then(|()| out.flush()).is_err();
        }
    }

    /// Say something about the command: one line on stderr.
    pub fn note(&mut self, text: impl std::fmt::Display) {
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    /// Warn: one line on stderr.
    pub fn warn(&mut self, text: impl std::fmt::Display) {
        self.note(format_args!("warning: {text}"));
    }

    /// Print an error with its causes and hints.
    pub fn error(&mut self, error: &CmdError) {
        self.note(format_args!("error: {}", error.message()));
        for cause in error.causes() {
            self.note(format_args!("  caused by: {cause}"));
        }
        for hint in error.hints() {
            self.note(format_args!("hint: {hint}"));
        }
    }
}
