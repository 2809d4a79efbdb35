//! What can go wrong with an archive.

use std::path::PathBuf;
use std::sync::Arc;

use crate::image::BoxError;
use crate::layer;
use crate::oci::{DigestError, ManifestError};
use crate::sys::SysError;

/// What can go wrong with an archive.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image could not be read from where it lives.
    #[error("cannot read {what} of the image")]
    Source {
        /// Which part.
        what: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A manifest is unusable.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A digest is unusable.
    #[error("a descriptor names an unusable digest")]
    Digest(#[from] DigestError),
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The archive could not be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The archive.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The archive could not be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The archive, or which file in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An unpacked copy of a compressed archive, or of one that came through a pipe, could not be kept.
    #[error("cannot keep the content of `{}` in `{}`", path.display(), scratch.display())]
    Spool {
        /// The archive.
        path: PathBuf,
        /// The directory for it.
        scratch: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not a tar, or one that contradicts itself.
    #[error("`{}` is not a valid tar archive at byte {offset}: {what}", path.display())]
    Tar {
        /// The archive.
        path: PathBuf,
        /// Where in the uncompressed stream.
        offset: u64,
        /// Which rule is broken.
        what: String,
    },
    /// It holds something, but no images.
    #[error("`{}` is not an image archive: {what}", path.display())]
    NotAnArchive {
        /// The archive.
        path: PathBuf,
        /// What it is, or what it lacks.
        what: String,
    },
    /// A directory that should take images holds something else.
    #[error("`{}` is not empty and not {what}", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// What it would have to be.
        what: &'static str,
    },
    /// The archive of a docker before 1.10.
    #[error("`{}` was written by a docker older than 1.10: its images have no configs", .0.display())]
    TooOld(PathBuf),
    /// A table of contents could not be written as JSON or read back.
    #[error("`{}` does not hold the expected JSON", path.display())]
    Json {
        /// Which file.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// A file that its tables name lacks.
    #[error("`{}` lacks `{file}`", path.display())]
    Missing {
        /// The archive.
        path: PathBuf,
        /// The file in it.
        file: String,
    },
    /// A file of it cannot be taken as it is.
    #[error("`{file}` of `{}` {what}", path.display())]
    Unusable {
        /// The archive.
        path: PathBuf,
        /// The file in it.
        file: String,
        /// Why.
        what: String,
    },
    /// A file of it is not what its tables or digests say.
    #[error("`{file}` of `{}` is corrupt", path.display())]
    Corrupt {
        /// The archive.
        path: PathBuf,
        /// The file in it.
        file: String,
        /// What differs.
        #[source]
        source: layer::Error,
    },
    /// A limit was passed.
    #[error("`{}` passes a limit: {what}", path.display())]
    Limit {
        /// The archive.
        path: PathBuf,
        /// Which.
        what: String,
    },
    /// The image that was asked for is not in it.
    #[error("`{}` has no image `{wanted}`: {}", path.display(), offer(.offered))]
    NoSuchImage {
        /// The archive.
        path: PathBuf,
        /// What was asked for.
        wanted: String,
        /// What there is.
        offered: Vec<String>,
    },
    /// It holds several images and none was chosen.
    #[error("`{}` holds several images, so one has to be named: {}", path.display(), offer(.offered))]
    SeveralImages {
        /// The archive.
        path: PathBuf,
        /// What there is.
        offered: Vec<String>,
    },
    /// The form holds one image only.
    #[error("a directory of this form holds one image, not several")]
    OneImageOnly,
    /// A stream broke in the middle of a file, and what was written cannot be taken back.
    #[error("the archive was cut off in the middle of a blob")]
    CutOff,
    /// The reading thread failed; every reader is told.
    #[error(transparent)]
    Shared(#[from] Arc<Error>),
}

fn offer(offered: &[String]) -> String {
    const SHOWN: usize = 20;
    if offered.is_empty() {
        return "it has none".into();
    }
    let shown = offered[..offered.len().min(SHOWN)].join(", ");
    match offered.len().saturating_sub(SHOWN) {
        0 => format!("there are {shown}"),
        more => format!("there are {shown} and {more} more"),
    }
}
