//! `oci-layout` and `strate.json`: the format version and feature flags of a store, how one is made (`create.rs`) and
//! brought up to date (`upgrade.rs`), and what its file system can do (`probe.rs`, `one_fs.rs`).

mod create;
mod one_fs;
mod probe;
mod upgrade;

use std::io::ErrorKind;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::lock::{LockMode, LockName, Patience, lock};
use super::{Error, layout::Layout};
use crate::sys::atomic::{Durability, replace_file};
use crate::sys::{SysError, regular};

pub(super) use create::{check_owner, create, holds_only_ours, looks_like_store};
pub(super) use one_fs::refuse_split;
pub use probe::Probe;
pub(super) use probe::sweep as sweep_probes;
pub(super) use upgrade::upgrade;

/// The format that this binary writes.
pub(super) const FORMAT: u32 = 2;

/// `strate.json` is not longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// The oldest version of strate that reads [`FORMAT`].
const READ_BY: &str = "0.1.0";

/// A store that others may read: what is published in it is readable for everybody.
pub(super) const SHARED: &str = "shared";

/// Features that this binary knows, whatever class a store lists them in.
const FEATURES: &[&str] = &[SHARED];

/// `strate.json`
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct FormatFile {
    pub(super) format: u32,
    /// The oldest version of strate that can work with this store: what a binary that cannot says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    needs: Option<String>,
    /// May be ignored.
    #[serde(default)]
    compatible: Vec<String>,
    /// Who does not know one must not write.
    #[serde(default)]
    read_only_compatible: Vec<String>,
    /// Who does not know one must not even read.
    #[serde(default)]
    incompatible: Vec<String>,
    /// What a newer binary has put here is kept.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// What lies at the store's place, as far as this binary can use it.
#[derive(Debug)]
pub(super) enum Found {
    /// No store (yet).
    Nothing,
    /// One of an older format.
    Older(FormatFile),
    /// One of ours.
    Current(FormatFile),
}

impl FormatFile {
    /// As this binary makes it.
    pub(super) fn current() -> Self {
        Self { format: FORMAT, needs: Some(READ_BY.to_owned()), ..Self::default() }
    }

    /// Whether others may read the store.
    pub(super) fn is_shared(&self) -> bool {
        self.compatible.iter().any(|feature| feature == SHARED)
    }

    /// Note or take back that others may read it.
    pub(super) fn set_shared(&mut self, shared: bool) {
        self.compatible.retain(|feature| feature != SHARED);
        if shared {
            self.compatible.push(SHARED.to_owned());
        }
    }

    /// Replace the file of the store, durably. Its staging name is the caller's, who holds a lock that others of its
    /// kind respect.
    pub(super) fn write(&self, layout: &Layout) -> Result<(), Error> {
        let path = layout.format();
        let bytes =
            serde_json::to_vec_pretty(self).map_err(|source| Error::Json { path: path.clone(), source })?;
        // The copy first: the steps that lead to what it says are done, so it is true even when the other is not written.
        for path in [layout.format_copy(), path] {
            replace_file(&path, &layout.format_temp(), &bytes, Durability::Durable)?;
            super::readable_if(self.is_shared(), &path)?;
        }
        Ok(())
    }
}

/// Read the format file and check that the store can be read (or written) by this binary.
pub(super) fn check(layout: &Layout, write: bool) -> Result<Found, Error> {
    let path = layout.format();
    let bytes = match regular::read(&path, LONGEST) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Found::Nothing);
        }
        Err(error) => return Err(SysError::path("read", &path, error).into()),
    };
    let found = serde_json::from_slice(&bytes).map_err(|source| Error::Json { path, source })?;
    judge(layout, found, write)
}

/// Whether this binary can read (or write) a store that says so of itself.
fn judge(layout: &Layout, found: FormatFile, write: bool) -> Result<Found, Error> {
    let root = layout.root().to_owned();
    let needs = found.needs.clone().filter(|version| is_version(version));
    if found.format > FORMAT {
        return Err(Error::Format { path: root, found: found.format, known: FORMAT, needs });
    }
    let unknown = |list: &[String]| list.iter().find(|f| !FEATURES.contains(&f.as_str())).cloned();
    if let Some(feature) = unknown(&found.incompatible) {
        return Err(Error::Feature { path: root, feature, write: false, needs });
    }
    match unknown(&found.read_only_compatible).filter(|_| write) {
        Some(feature) => Err(Error::Feature { path: root, feature, write, needs }),
        None if found.format < FORMAT => Ok(Found::Older(found)),
        None => Ok(Found::Current(found)),
    }
}

/// Write the format file anew where it is lost: as its copy says. Only `insist` makes one up where there is no copy; it is
/// of the oldest format then, as every step to the next leaves alone what it finds done. Others are kept out meanwhile.
/// Whether something was written is returned.
///
/// # Errors
/// [`Error::FormatLost`]; when the copy says that this binary must not write the store; [`Error::Busy`].
pub(super) fn restore(layout: &Layout, insist: bool, patience: &Patience<'_>) -> Result<bool, Error> {
    let _alone = lock(layout, &LockName::Store, LockMode::Exclusive, patience)?;
    let is_lost = match check(layout, true) {
        Ok(found) => matches!(found, Found::Nothing),
        Err(Error::Json { .. }) => true,
        Err(error) => return Err(error),
    };
    if !is_lost {
        return Ok(false); // somebody was faster
    }
    let file = match saved(layout)? {
        Some(file) => file,
        None if insist => made_up(layout),
        None => return Err(Error::FormatLost(layout.format())),
    };
    file.write(layout)?;
    Ok(true)
}

/// What the copy says, when it can be read and this binary may write such a store.
fn saved(layout: &Layout) -> Result<Option<FormatFile>, Error> {
    let path = layout.format_copy();
    let Ok(bytes) = regular::read(&path, LONGEST) else { return Ok(None) };
    let Ok(file) = serde_json::from_slice::<FormatFile>(&bytes) else { return Ok(None) };
    judge(layout, file.clone(), true)?;
    Ok(Some(file))
}

/// Of the oldest format, and shared when others can enter the store and its blobs.
fn made_up(layout: &Layout) -> FormatFile {
    use std::os::unix::fs::PermissionsExt;
    let is_open = |dir: &std::path::Path| {
        std::fs::symlink_metadata(dir).is_ok_and(|meta| meta.permissions().mode() & 0o005 == 0o005)
    };
    let mut file = FormatFile { format: 1, ..FormatFile::default() };
    file.set_shared(is_open(layout.root()) && is_open(&layout.blobs()) && is_open(&layout.layer_facts()));
    file
}

/// What is shown to a user from a file that anybody may have written.
fn is_version(text: &str) -> bool {
    text.len() < 32 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b))
}

#[cfg(test)]
mod tests;
