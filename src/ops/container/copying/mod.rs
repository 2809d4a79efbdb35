//! Copying files into and out of containers: where they go, by docker's rules, and how they get there.
//!
//! Between the two sides runs a tar, in which what is copied is called `.`: the side that reads knows its files, the side
//! that writes decides where they belong.

mod place;
mod settle;
mod unpack;

pub use place::{Source, Wanted, find};
pub use unpack::{Owners, Unpacked, unpack};

use crate::layer;
use crate::sys::SysError;

/// Why files cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source is not there.
    #[error("`{0}`: no such file or directory")]
    NoSource(String),
    /// The directory where it should go is not there.
    #[error("`{0}`: no such directory")]
    NoDirectory(String),
    /// A file stands where a directory should.
    #[error("`{0}`: not a directory")]
    NotADirectory(String),
    /// A directory cannot take the place of a file.
    #[error("cannot copy a directory over the file `{0}`")]
    DirectoryOverFile(String),
    /// Nor a file that of a directory.
    #[error("cannot overwrite the directory `{0}` with something that is none")]
    FileOverDirectory(String),
    /// A name of an archive that leads elsewhere.
    #[error("the archive's name `{0}` leads out of the directory")]
    BadName(String),
    /// Somebody put something else where a file was being made.
    #[error("`{0}`: somebody else replaced it while it was being made")]
    Replaced(String),
    /// The archive.
    #[error(transparent)]
    Archive(#[from] layer::Error),
    /// A system call.
    #[error(transparent)]
    Sys(#[from] SysError),
}
