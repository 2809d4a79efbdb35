//! What a build takes from elsewhere: files by their address, git repositories, images in layouts. The build knows no
//! network: who starts it fetches.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::git_ref::GitRef;
use crate::image::{BoxError, Reporter};
use crate::layer::OwnerTable;
use crate::oci::{Digest, Platform};
use crate::storage::Image;

/// A file that was fetched: a blob of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Download {
    /// Its content.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// When it was changed last, in seconds since 1970, as far as the server says.
    pub modified: Option<i64>,
}

/// What a git source stands for at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// The commit, in hexadecimal digits.
    pub id: String,
    /// The full name of the ref that led to it.
    pub refname: Option<String>,
}

/// Files of a commit in a directory, which goes away with this.
#[derive(Debug)]
pub struct Checkout {
    /// Where the files are.
    pub path: PathBuf,
    /// The time of the commit, in seconds since 1970.
    pub time: i64,
    /// What holds the directory.
    pub held: Arc<tempfile::TempDir>,
}

/// A directory that stands for a context.
#[derive(Debug, Clone)]
pub struct ContextDir {
    /// The directory.
    pub path: PathBuf,
    /// Owners that the disk could not hold, for files that were unpacked; without it everything is root's.
    pub owners: Option<Arc<OwnerTable>>,
    /// What holds a directory that was made for this build; `None` for one of the user.
    pub held: Option<Arc<tempfile::TempDir>>,
}

impl ContextDir {
    /// A directory of the user.
    #[must_use]
    pub fn of_user(path: &Path) -> Self {
        Self { path: path.to_owned(), owners: None, held: None }
    }
}

/// A context that was given by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory, with an ignore file of its own.
    Directory(PathBuf),
    /// `docker-image://NAME`: an image, or `scratch`.
    Image(String),
    /// `oci-layout://PATH[:TAG][@DIGEST]`: an image in a layout.
    Layout(String),
    /// A git repository.
    Git(GitRef),
    /// A file by its address, called `context`.
    File(String),
}

/// Fetches.
pub trait Remote {
    /// The file at an address. `moved` is told the bytes so far and those that there are, 0 when that is not known.
    ///
    /// # Errors
    /// When it cannot be had.
    fn download(&self, url: &str, moved: &dyn Fn(u64, u64)) -> Result<Download, BoxError>;

    /// What a git source stands for.
    ///
    /// # Errors
    /// When the repository cannot be reached or has no such ref.
    fn commit(&self, git: &GitRef) -> Result<Commit, BoxError>;

    /// The files of a commit; `.git` with them when `keep_git_dir` asks for it and the whole repository is meant.
    ///
    /// # Errors
    /// When they cannot be had.
    fn checkout(&self, git: &GitRef, commit: &Commit) -> Result<Checkout, BoxError>;

    /// An image of an OCI layout, taken into the store.
    ///
    /// # Errors
    /// When there is none, or it cannot be taken in.
    fn layout(&self, place: &str, platform: &Platform, report: &dyn Reporter) -> Result<Image, BoxError>;
}
