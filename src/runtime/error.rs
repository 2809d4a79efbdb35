//! What can go wrong between a plan and a running program.

use crate::sys::SysError;

/// A step that failed in the child, as it came over the pipe.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot {step} {subject}: {}", std::io::Error::from_raw_os_error(*errno))]
pub struct StepFailure {
    /// What was tried: `mount`, `pivot the root to`, `execute`.
    pub step: String,
    /// On what.
    pub subject: String,
    /// The kernel's answer.
    pub errno: i32,
}

/// What can go wrong between a plan and a running program.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Setting up the container failed: exit code 125.
    #[error("cannot start the container")]
    Setup(#[source] StepFailure),
    /// The program exists but cannot be executed: exit code 126.
    #[error("{source}")]
    NotExecutable {
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: StepFailure,
    },
    /// The program does not exist: exit code 127.
    #[error("`{program}`: executable file not found in the container{}", hint_path(.path))]
    NotFound {
        /// The program.
        program: String,
        /// The container's `PATH`, when it was searched.
        path: Option<String>,
    },
    /// A user or group name that the image does not know.
    #[error("unknown {kind} `{name}`: the image's /etc/{file} has no such entry")]
    UnknownUser {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
        /// `passwd` or `group`.
        file: &'static str,
    },
    /// A file of the image cannot be used.
    #[error("the image's `{path}` cannot be used: {what}")]
    ImageFile {
        /// The path in the image.
        path: String,
        /// What is wrong.
        what: String,
    },
    /// A name that stands for no capability, signal or profile.
    #[error("unknown {kind} `{value}`")]
    Unknown {
        /// `capability`, `signal`, `network mode`.
        kind: &'static str,
        /// What was given.
        value: String,
    },
    /// The network.
    #[error(transparent)]
    Network(#[from] super::network::Error),
    /// The container's process is gone.
    #[error("the container is not running")]
    NotRunning,
    /// A system call failed on our side.
    #[error(transparent)]
    Sys(#[from] SysError),
}

impl From<StepFailure> for Error {
    fn from(failure: StepFailure) -> Self {
        Self::Setup(failure)
    }
}

impl Error {
    /// A port of the host that could not be had, and why.
    #[must_use]
    pub fn port(&self) -> Option<(u16, &std::io::Error)> {
        match self {
            Self::Network(super::network::Error::Port { port, source, .. }) => Some((*port, source)),
            _ => None,
        }
    }

    /// The exit code that docker gives this: 127 for a program that is not there, 126 for one that cannot be executed, 125
    /// for everything that is our failure.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotFound { .. } => 127,
            Self::NotExecutable { source, .. } if source.errno == libc::ENOENT => 127,
            Self::NotExecutable { .. } => 126,
            _ => 125,
        }
    }
}

fn hint_path(path: &Option<String>) -> String {
    path.as_ref().map_or_else(String::new, |path| format!(" (PATH is {path})"))
}
