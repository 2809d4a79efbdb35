//! The files and directories that make a directory a store, and what else lies there.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::references::files_of;
use super::{Check, Fault};
use crate::storage::Error;
use crate::storage::format::{self, Found};
use crate::storage::index::IndexFile;
use crate::storage::layout::{LOST_AND_FOUND, Layout};

/// What `oci-layout` holds (image-spec `image-layout.md`).
pub(in crate::storage) const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";

impl Check<'_> {
    /// `strate.json` and `oci-layout`.
    pub(super) fn format(&mut self) {
        let layout = self.store.layout();
        let fault = |path: PathBuf, what: &str| Fault::File { path, what: what.to_owned() };
        match format::check(layout, false) {
            Ok(Found::Current(_)) => {}
            Ok(Found::Older(file)) => {
                self.is_old = true;
                self.report.remark(&format!(
                    "the store is of format {}: the next command that writes brings it to format {}",
                    file.format,
                    format::FORMAT
                ));
            }
            Ok(Found::Nothing) => self.report.faults.push(fault(layout.format(), "is not there")),
            Err(_) => self.report.faults.push(fault(layout.format(), "does not say the store's format")),
        }
        let path = layout.oci_layout();
        let version = |bytes: &[u8]| {
            let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
            value["imageLayoutVersion"].as_str().map(str::to_owned)
        };
        match fs::read(&path) {
            Ok(bytes) if version(&bytes).as_deref() == Some("1.0.0") => {}
            Ok(_) => self.report.faults.push(fault(path, "does not say that this is an OCI image layout")),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.report.faults.push(fault(path, "is not there"));
            }
            Err(error) => self.report.faults.push(fault(path, &format!("cannot be read: {error}"))),
        }
    }

    /// `index.json`; `None` when it cannot be used.
    pub(super) fn index(&mut self) -> Option<IndexFile> {
        let path = self.store.layout().index();
        let what = match IndexFile::read(self.store.layout()) {
            Ok(index) => match index.check() {
                Ok(()) => return Some(index),
                Err(what) => {
                    self.report.faults.push(Fault::File { path, what });
                    return Some(index);
                }
            },
            Err(Error::Json { source, .. }) => format!("is no list of images: {source}"),
            Err(Error::Damaged { what, .. }) => what.trim_start_matches("it ").to_owned(),
            Err(error) => super::snapshots::chain_text(&error),
        };
        self.report.faults.push(Fault::File { path, what });
        None
    }

    /// Every directory is there, ours and closed to others.
    pub(super) fn directories(&mut self) {
        let layout = self.store.layout();
        let uid = rustix::process::geteuid().as_raw();
        for dir in layout.directories() {
            match fs::symlink_metadata(&dir) {
                Ok(meta) if meta.is_dir() => {
                    if meta.uid() != uid {
                        let what = format!("belongs to user {}", meta.uid());
                        self.report.faults.push(Fault::File { path: dir, what });
                    } else if meta.mode() & 0o077 & !widest(layout, &dir) != 0 {
                        self.report.faults.push(Fault::Open { path: dir, mode: meta.mode() & 0o7777 });
                    }
                }
                _ => self.report.faults.push(Fault::Directory(dir)),
            }
        }
    }

    /// What lies at the top and under `locks/` that is none of ours.
    pub(super) fn strays(&mut self) {
        let layout = self.store.layout().clone();
        for entry in files_of(layout.root()) {
            if !layout.is_ours(&entry.file_name()) && entry.file_name() != LOST_AND_FOUND {
                self.stray(&entry.path());
            }
        }
        for entry in files_of(&layout.locks()) {
            if !entry.file_type().is_ok_and(|kind| kind.is_file()) {
                self.stray(&entry.path());
            }
        }
    }

    pub(super) fn stray(&mut self, path: &Path) {
        self.report.remark(&format!("`{}` is none of the store's files", path.display()));
    }
}

/// The widest mode that a directory may have: what others read in a shared store, and what only its owner may enter.
/// What was opened stays open when the top is closed again.
pub(super) fn widest(layout: &Layout, dir: &Path) -> u32 {
    let read = [layout.root().to_owned(), layout.blobs(), layout.blob_dir("sha256"), layout.layer_facts()];
    match dir {
        _ if read.iter().any(|path| path == dir) => 0o755,
        _ if dir == layout.cache() => 0o711,
        _ => 0o700,
    }
}
