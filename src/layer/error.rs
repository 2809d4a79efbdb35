//! What can be wrong with a layer.

use std::path::PathBuf;

use crate::oci::Digest;
use crate::sys::SysError;

/// What can be wrong with a layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are not those the digest names.
    #[error("content is corrupt: expected {expected}, found {found}")]
    Digest {
        /// What was promised.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// More or fewer bytes than promised.
    #[error("content is corrupt: expected {expected} bytes, found {found}")]
    Size {
        /// What was promised.
        expected: u64,
        /// What came; for too many bytes, one more than promised.
        found: u64,
    },
    /// Not a tar, or one that contradicts itself.
    #[error("layer is not a valid tar archive at byte {offset}: {what}")]
    Tar {
        /// Where in the uncompressed stream.
        offset: u64,
        /// Which rule is broken.
        what: String,
    },
    /// A hard link to a file that neither the layer nor those below it have.
    #[error("hard link `{}` leads to `{}`, which is not a file of any layer", name.display(), target.display())]
    LinkTarget {
        /// The link, relative to the root.
        name: PathBuf,
        /// What it should be another name of.
        target: PathBuf,
    },
    /// A limit was passed.
    #[error("layer passes a limit: {0}")]
    Limit(String),
    /// A tree could not be read or written.
    #[error(transparent)]
    Sys(#[from] SysError),
    /// The stream could not be read or written.
    #[error("cannot {operation} the layer stream")]
    Io {
        /// `read` or `write`.
        operation: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
