//! `oci-layout` and `strate.json`: the format version and feature flags of a store.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::lock::{LockMode, LockName, Patience, lock};
use super::{Error, layout::Layout};
use crate::sys::SysError;
use crate::sys::atomic::{Durability, replace_file};

/// The format that this binary writes.
const FORMAT: u32 = 1;

/// Features that this binary knows, whatever class a store lists them in. None yet: the list grows when the format does.
const FEATURES: &[&str] = &[];

/// What marks a directory as one that backups may leave out (<https://bford.info/cachedir/>).
const CACHEDIR_TAG: &str =
    "Signature: 8a477f597d28d172789f06886806bc55\n# This directory can be rebuilt by strate.\n";

/// `strate.json`
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct FormatFile {
    format: u32,
    /// May be ignored.
    #[serde(default)]
    compatible: Vec<String>,
    /// Who does not know one must not write.
    #[serde(default)]
    read_only_compatible: Vec<String>,
    /// Who does not know one must not even read.
    #[serde(default)]
    incompatible: Vec<String>,
}

/// Check that the store can be read (or written) by this binary. `false` when there is no store yet.
pub(super) fn check(layout: &Layout, write: bool) -> Result<bool, Error> {
    let path = layout.format();
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(false);
        }
        Err(error) => return Err(SysError::path("read", &path, error).into()),
    };
    let found: FormatFile = serde_json::from_slice(&bytes).map_err(|source| Error::Json { path, source })?;
    let root = layout.root().to_owned();
    if found.format > FORMAT {
        return Err(Error::Format { path: root, found: found.format, known: FORMAT });
    }
    let unknown = |list: &[String]| list.iter().find(|f| !FEATURES.contains(&f.as_str())).cloned();
    let read_only = if write { unknown(&found.read_only_compatible) } else { None };
    match unknown(&found.incompatible).or(read_only) {
        Some(feature) => Err(Error::Feature { path: root, feature, write }),
        None => Ok(true),
    }
}

/// Make the store if it is not there.
pub(super) fn create(layout: &Layout) -> Result<(), Error> {
    let root = layout.root();
    if root.is_dir() {
        refuse_foreign(root)?;
    }
    let read_only = |path: &Path, error| match SysError::path("create", path, error) {
        source if source.source.kind() == ErrorKind::StorageFull => Error::Sys(source),
        source => Error::ReadOnly { path: root.to_owned(), source },
    };
    let mut private = DirBuilder::new();
    private.mode(0o700).recursive(true);
    for dir in [root.to_owned(), layout.locks()] {
        private.create(&dir).map_err(|error| read_only(&dir, error))?;
    }
    check_owner(root)?;
    let _lock = lock(layout, &LockName::Names, LockMode::Exclusive, &Patience::usual())?;
    if check(layout, true)? {
        return Ok(()); // somebody was faster
    }
    let (sha256, tmp) = (layout.blob_dir("sha256"), layout.tmp());
    let dirs = [sha256, layout.partials(), layout.snapshots(), layout.containers(), layout.volumes()];
    for dir in dirs.into_iter().chain([layout.cache(), layout.records(), layout.layer_facts(), tmp]) {
        private.create(&dir).map_err(|error| read_only(&dir, error))?;
    }
    write_files(layout)
}

/// The format file comes last: it says that everything else is there.
fn write_files(layout: &Layout) -> Result<(), Error> {
    let put = |path: &Path, bytes: &[u8]| {
        let temp = layout.tmp().join("create");
        replace_file(path, &temp, bytes, Durability::Durable).map_err(Error::from)
    };
    put(&layout.snapshots().join("CACHEDIR.TAG"), CACHEDIR_TAG.as_bytes())?;
    put(&layout.cache().join("CACHEDIR.TAG"), CACHEDIR_TAG.as_bytes())?;
    put(&layout.oci_layout(), super::check::OCI_LAYOUT)?;
    if !layout.index().exists() {
        put(&layout.index(), super::index::IndexFile::default().to_bytes()?.as_slice())?;
    }
    let path = layout.format();
    let format = FormatFile { format: FORMAT, ..FormatFile::default() };
    let bytes =
        serde_json::to_vec_pretty(&format).map_err(|source| Error::Json { path: path.clone(), source })?;
    put(&path, &bytes)
}

/// A mistyped `--root` must not turn a home directory into a store. An OCI layout may be adopted.
fn refuse_foreign(root: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(root).map_err(|error| SysError::path("read", root, error))?;
    let ours = ["oci-layout", "locks", "strate.json"];
    let mut empty = true;
    for entry in entries {
        let entry = entry.map_err(|error| SysError::path("read", root, error))?;
        if ours.iter().any(|name| entry.file_name() == *name) {
            return Ok(());
        }
        empty = false;
    }
    if empty { Ok(()) } else { Err(Error::NotAStore(root.to_owned())) }
}

/// Only its owner may write a store: files of others in it (`sudo` with the user's HOME) would lock the owner out.
pub(super) fn check_owner(root: &Path) -> Result<(), Error> {
    let meta = fs::metadata(root).map_err(|error| SysError::path("stat", root, error))?;
    if meta.uid() == rustix::process::geteuid().as_raw() {
        Ok(())
    } else {
        Err(Error::NotYours { path: root.to_owned(), owner: meta.uid() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_formats_are_refused_as_their_class_says() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        assert!(!check(&layout, true).unwrap());
        create(&layout).unwrap();
        assert!(check(&layout, true).unwrap());
        let table = [
            (r#"{"format":1,"compatible":["x"]}"#, true, true),
            (r#"{"format":1,"read-only-compatible":["x"]}"#, true, false),
            (r#"{"format":1,"incompatible":["x"]}"#, false, false),
            (r#"{"format":2}"#, false, false),
            ("", false, false),
        ];
        for (text, read, write) in table {
            fs::write(layout.format(), text).unwrap();
            assert_eq!(check(&layout, false).is_ok(), read, "{text}");
            assert_eq!(check(&layout, true).is_ok(), write, "{text}");
        }
    }

    #[test]
    fn a_directory_with_other_things_is_not_made_a_store() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "x").unwrap();
        assert!(matches!(create(&Layout::new(dir.path())), Err(Error::NotAStore(_))));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
