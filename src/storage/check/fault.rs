//! What a check can find.

use std::fmt;
use std::path::PathBuf;

use crate::oci::Digest;

/// One thing in the store that is not as `doc/storage.md` says. [`fmt::Display`] says it in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A directory of the store is not there, or no directory.
    Directory(PathBuf),
    /// Others than the owner can write.
    Open {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that says what the store is, or its list of names, cannot be used.
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// An entry of the list of names makes no sense.
    Entry {
        /// Its name, or its digest as it stands there.
        label: String,
        /// What is wrong.
        what: String,
    },
    /// A blob that is needed and not here, or one that is not what its name says.
    Blob {
        /// The blob.
        digest: Digest,
        /// What is wrong.
        what: String,
        /// Whether there is a file at all.
        here: bool,
        /// Images and containers that need it.
        needed_by: Vec<String>,
    },
    /// A manifest or config whose bytes are right and which makes no sense: it was made so.
    Document {
        /// The blob.
        digest: Digest,
        /// What is wrong.
        what: String,
        /// Images and containers that need it.
        needed_by: Vec<String>,
    },
    /// An unpacked layer is not what its blob says.
    Snapshot {
        /// Its key: a diff id or a chain id.
        key: Digest,
        /// Its id map, where its name has one.
        map: Option<String>,
        /// What is wrong.
        what: String,
    },
    /// A container's record.
    Container {
        /// Its id.
        id: String,
        /// What is wrong.
        what: String,
    },
    /// A volume's record or data.
    Volume {
        /// Its name.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// Something that is computed again when it is not there.
    Cache {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

impl Fault {
    /// What it concerns, in one word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Directory(_) | Self::Open { .. } => "directory",
            Self::File { .. } => "file",
            Self::Entry { .. } => "name",
            Self::Blob { .. } => "blob",
            Self::Document { .. } => "document",
            Self::Snapshot { .. } => "snapshot",
            Self::Container { .. } => "container",
            Self::Volume { .. } => "volume",
            Self::Cache { .. } => "cache",
        }
    }

    /// Which one: a path, a digest, an id or a name.
    #[must_use]
    pub fn subject(&self) -> String {
        match self {
            Self::Directory(path)
            | Self::Open { path, .. }
            | Self::File { path, .. }
            | Self::Cache { path, .. } => path.display().to_string(),
            Self::Entry { label, .. } => label.clone(),
            Self::Blob { digest, .. } | Self::Document { digest, .. } => digest.to_string(),
            Self::Snapshot { key, map: None, .. } => key.to_string(),
            Self::Snapshot { key, map: Some(map), .. } => format!("{key}.{map}"),
            Self::Container { id, .. } => id.clone(),
            Self::Volume { name, .. } => name.clone(),
        }
    }

    /// What is wrong with it.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Directory(_) => "is not there".to_owned(),
            Self::Open { mode, .. } => format!("is open to others (mode {mode:04o})"),
            Self::File { what, .. }
            | Self::Entry { what, .. }
            | Self::Blob { what, .. }
            | Self::Document { what, .. }
            | Self::Snapshot { what, .. }
            | Self::Container { what, .. }
            | Self::Volume { what, .. }
            | Self::Cache { what, .. } => what.clone(),
        }
    }

    /// The images and containers that cannot be used for it.
    #[must_use]
    pub fn needed_by(&self) -> &[String] {
        match self {
            Self::Blob { needed_by, .. } | Self::Document { needed_by, .. } => needed_by,
            _ => &[],
        }
    }

    /// Whether two findings are about the same thing, whatever is wrong with it.
    pub(super) fn is_about_same(&self, other: &Self) -> bool {
        self.kind() == other.kind() && self.subject() == other.subject()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`: {}", self.kind(), self.subject(), self.what())?;
        match self.needed_by() {
            [] => Ok(()),
            [only] => write!(f, " (needed by {only})"),
            [first, rest @ ..] => write!(f, " (needed by {first} and {} more)", rest.len()),
        }
    }
}
