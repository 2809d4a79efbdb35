//! What can go wrong in a build, in BuildKit's words where it has some.

use std::path::PathBuf;

use super::ast::{ParseError, Span};
use super::copy::CopyError;
use super::go;
use crate::image::BoxError;
use crate::{runtime, storage};

/// What can go wrong in a build.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Mistakes in the Dockerfile.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Parse(Vec<ParseError>),
    /// A rule of the language is broken, which shows only when words are expanded or stages resolved.
    #[error("{0}")]
    Rule(String),
    /// An input of a step cannot be had.
    #[error("failed to compute cache key: failed to calculate checksum of ref {place}")]
    Input {
        /// Where it was looked for: `context` or a stage or image.
        place: String,
        /// Why.
        #[source]
        source: CopyError,
    },
    /// An input of a step cannot be read.
    #[error("cannot read from {place}")]
    Read {
        /// Where: `context` or a stage or image.
        place: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be copied into the step's tree.
    #[error("failed to copy files")]
    Copy(#[source] CopyError),
    /// The program of RUN failed.
    #[error("process {} did not complete successfully: exit code: {code}", go::quote(command))]
    Process {
        /// Its words, joined by spaces.
        command: String,
        /// Its exit code, or 128 and the signal that ended it.
        code: i32,
    },
    /// The program of RUN could not be started.
    #[error("process {} did not complete successfully: cannot start it", go::quote(command))]
    Start {
        /// Its words, joined by spaces.
        command: String,
        /// Why.
        #[source]
        source: runtime::Error,
    },
    /// The user of the stage is not known in its tree.
    #[error("unable to find user")]
    User {
        /// Why.
        #[source]
        source: runtime::Error,
    },
    /// A RUN needs a user namespace or root.
    #[error("RUN needs a user namespace, which this host does not give")]
    NoIsolation,
    /// A base image cannot be had.
    #[error("{reference}")]
    Base {
        /// Its name.
        reference: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A file or repository from elsewhere cannot be had.
    #[error("failed to load {place}")]
    Remote {
        /// Its address.
        place: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The Dockerfile asks for something that is not built here.
    #[error("{0}")]
    Unsupported(String),
    /// A secret that a step requires was not given.
    #[error("secret {id}: not found{}", given(known))]
    NoSecret {
        /// Its id.
        id: String,
        /// The ids that were given.
        known: Vec<String>,
    },
    /// A directory of the build cache cannot be used.
    #[error("cannot use `{path}`")]
    Cache {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store failed.
    #[error("cannot keep the result of the step")]
    Store(#[from] storage::Error),
    /// The user gave up.
    #[error("the build was interrupted")]
    Interrupted,
}

/// An error and the instruction it belongs to.
#[derive(Debug, thiserror::Error)]
#[error("failed to solve")]
pub struct Failure {
    /// What went wrong.
    #[source]
    pub error: Box<Error>,
    /// Where in the Dockerfile; several for several mistakes.
    pub spans: Vec<Span>,
}

impl Failure {
    /// The whole story on one line, as BuildKit tells it.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.to_string();
        let mut next: Option<&dyn std::error::Error> = Some(&*self.error);
        let mut last = String::new();
        while let Some(error) = next {
            let this = error.to_string();
            // A transparent wrapper repeats its cause, and some libraries' errors end with it.
            if !last.ends_with(&this) {
                text.push_str(": ");
                text.push_str(&this);
            }
            (last, next) = (this, error.source());
        }
        text
    }

    /// At an instruction.
    pub fn at(span: Span) -> impl Fn(Error) -> Self {
        move |error| Self { error: Box::new(error), spans: vec![span] }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let spans = match &error {
            Error::Parse(errors) => errors.iter().map(|error| error.span).collect(),
            _ => Vec::new(),
        };
        Self { error: Box::new(error), spans }
    }
}

fn given(known: &[String]) -> String {
    if known.is_empty() { String::new() } else { format!(" (given: {})", known.join(", ")) }
}
