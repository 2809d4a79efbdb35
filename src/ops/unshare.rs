//! `unshare`: a program of the host in the user namespace of the containers, where their files belong to whom they say.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::context::Context;
use crate::userns::Rung;

/// Why nothing was run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no user namespace to be had.
    #[error("this process gets no user namespace")]
    NoNamespace,
    /// The program cannot be run.
    #[error("cannot run `{program}`")]
    Run {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// As a shell ends: 127 for a program that is not there, 126 for one that cannot be run, 125 for ourselves.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoNamespace => 125,
            Self::Run { source, .. } if source.kind() == std::io::ErrorKind::NotFound => 127,
            Self::Run { .. } => 126,
        }
    }
}

/// Become a program, the user's shell where none is named, in the namespace that was entered before. Comes back only when
/// that fails.
#[must_use]
pub fn unshare(cx: &Context, command: &[OsString]) -> Error {
    if cx.entered.as_ref().is_none_or(|entered| entered.rung == Rung::None) {
        return Error::NoNamespace;
    }
    let shell = OsString::from(cx.var("SHELL").unwrap_or("/bin/sh"));
    let (program, words) = command.split_first().unwrap_or((&shell, &[]));
    // What scripts made for podman look at.
    let error = Command::new(program)
        .args(words)
        .env("STRATE_ROOT", &cx.root)
        .env("_CONTAINERS_USERNS_CONFIGURED", "done")
        .exec();
    Error::Run { program: program.to_string_lossy().into_owned(), source: error }
}
