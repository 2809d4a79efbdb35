//! Why a rung could not be taken.

use super::Rung;
use crate::sys::SysError;

/// Why a rung could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rung that was asked for does not work here.
    #[error("user namespace mode `{rung}` does not work here: {why}")]
    Refused {
        /// The rung.
        rung: Rung,
        /// Why.
        why: String,
    },
    /// The namespace of a running process could not be entered.
    #[error("cannot enter the user namespace of process {pid}: {why}")]
    Join {
        /// The process.
        pid: i32,
        /// Why.
        why: String,
    },
    /// A system call failed half way.
    #[error(transparent)]
    Sys(#[from] SysError),
}
