//! The one translation from domain errors to what a user reads: kind, cause chain and hints.

use crate::context::ContextError;
use crate::image::BoxError;

/// An error on its way to the terminal.
#[derive(Debug)]
pub struct CmdError {
    exit_code: u8,
    message: String,
    source: Option<BoxError>,
    hints: Vec<String>,
}

impl CmdError {
    /// An error that ends the command with code 1.
    pub fn new(source: impl Into<BoxError>) -> Self {
        let source = source.into();
        Self { exit_code: 1, message: source.to_string(), source: Some(source), hints: Vec::new() }
    }

    /// With another exit code.
    #[must_use]
    pub fn with_exit_code(mut self, code: u8) -> Self {
        self.exit_code = code;
        self
    }

    /// With a hint: a command that helps.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        self.exit_code
    }

    /// What failed.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Why, outermost cause first.
    #[must_use]
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = self.source.as_deref().and_then(std::error::Error::source);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }

    /// Commands that help.
    #[must_use]
    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}

impl From<ContextError> for CmdError {
    fn from(error: ContextError) -> Self {
        Self::new(error)
    }
}
