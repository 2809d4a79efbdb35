//! What was found wrong and cannot be had anew is kept: wrong bytes may be the only ones there are.
//!
//! `damaged/` holds blobs and unpacked layers under their digests, each with a note that says when it was put there and
//! why; `index.json.damaged` and those with a number are lists of names as a repair found them. Nothing in the store uses
//! any of it. A blob leaves `damaged/` when its right bytes come; the rest stays until its owner says so.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use crate::oci::Digest;
use crate::storage::collect::Trash;
use crate::storage::lock::{LockMode, LockName, Locked};
use crate::storage::{Error, Store, layout};
use crate::sys::atomic::{Durability, replace_file, sync_dir};
use crate::sys::{SysError, tree};

/// So many things of one name are kept at most.
const MOST: u32 = 1000;

/// What repairs have kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// Blobs, unpacked layers and lists of names, by their paths.
    pub paths: Vec<PathBuf>,
    /// Bytes on disk, with their notes and the directory.
    pub bytes: u64,
}

impl Store {
    /// Move a wrong blob to `damaged/`, with a note that says why. Where it lies then comes back; `None` when it is not
    /// there any more, is right by now, or somebody is just fetching it.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn keep_wrong_blob(&self, digest: &Digest, why: &str) -> Result<Option<PathBuf>, Error> {
        let Some(_fetching) = self.hold_wrong_blob(digest)? else { return Ok(None) };
        let kept = self.keep(&self.layout.blob(digest), &layout::file_name(digest), why)?;
        // What was computed from its bytes goes with them.
        let _ = fs::remove_file(self.layout.layer_fact(digest));
        Ok(kept)
    }

    /// The lock of a blob whose own copy is wrong, so that it may be taken from its place. Much time may have passed since
    /// its bytes were read, and a peer may have put the right ones there: they are looked at again, as what lies there
    /// counts and not what was read. Nobody waits here, since a layer's lock may be held, which comes after a blob's: who
    /// has the lock puts right bytes there.
    pub(super) fn hold_wrong_blob(&self, digest: &Digest) -> Result<Option<Locked>, Error> {
        let Some(lock) = self.try_lock(&LockName::Blob(digest), LockMode::Exclusive)? else {
            return Ok(None);
        };
        let path = self.layout.blob(digest);
        // What is built or loaded is published without the lock.
        let file = || path.symlink_metadata().ok().map(|meta| (meta.dev(), meta.ino()));
        let before = file();
        let wrong = before.is_some() && self.is_wrong(digest);
        Ok((wrong && before == file()).then_some(lock))
    }

    /// Move an unpacked layer to `damaged/`.
    pub(super) fn keep_snapshot(&self, path: &Path, why: &str) -> Result<Option<PathBuf>, Error> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        self.keep(path, &format!("snapshot-{name}"), why)
    }

    fn keep(&self, from: &Path, name: &str, why: &str) -> Result<Option<PathBuf>, Error> {
        let failed = |error: std::io::Error| SysError::path("move to `damaged`", from, error);
        let dir = self.layout.damaged();
        let mut attempt = 0;
        while attempt < MOST {
            let to = dir.join(numbered(name, attempt));
            match rustix::fs::renameat_with(CWD, from, CWD, &to, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    self.note(&to, from, why);
                    sync_dir(&dir)?;
                    return Ok(Some(to));
                }
                Err(Errno::EXIST | Errno::NOTEMPTY) => attempt += 1,
                Err(Errno::NOENT) if from.symlink_metadata().is_err() => return Ok(None),
                Err(Errno::NOENT) => match fs::DirBuilder::new().mode(0o700).create(&dir) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                        return Err(SysError::path("create", &dir, error).into());
                    }
                    _ => sync_dir(self.layout.root())?,
                },
                Err(errno) => return Err(failed(errno.into()).into()),
            }
        }
        Err(failed(ErrorKind::AlreadyExists.into()).into())
    }

    /// The note beside what was kept. Where it cannot be written, that is kept all the same.
    fn note(&self, kept: &Path, from: &Path, why: &str) {
        let note = serde_json::json!({
            "was": from.strip_prefix(self.layout.root()).unwrap_or(from),
            "why": why,
            "when": jiff::Timestamp::now().to_string(),
        });
        if let Ok(temp) = self.stage_path("note") {
            let _ = replace_file(&note_of(kept), &temp, note.to_string().as_bytes(), Durability::Fast);
        }
    }

    /// The right bytes of a blob are here: those that were kept are of no use any more.
    pub(in crate::storage) fn forget_kept(&self, digest: &Digest) {
        let dir = self.layout.damaged();
        let name = layout::file_name(digest);
        for attempt in 0..MOST {
            let path = dir.join(numbered(&name, attempt));
            // One without the other is what a kill left.
            let gone = [path.clone(), note_of(&path)].map(|path| match path.symlink_metadata() {
                Ok(_) => tree::remove_path(&path).is_ok(),
                Err(_) => false,
            });
            if gone == [false, false] {
                return;
            }
        }
    }

    /// Keep the list of names as it is before it is put together anew. Where it lies then comes back; `None` when there
    /// is none.
    pub(super) fn keep_index(&self) -> Result<Option<PathBuf>, Error> {
        let index = self.layout.index();
        let Ok(meta) = index.symlink_metadata() else { return Ok(None) };
        for attempt in 0..MOST {
            let to = self.layout.damaged_index(attempt);
            // What is no file has no place there: a list could not be put over it.
            let kept = match meta.is_file() {
                true => fs::hard_link(&index, &to),
                false => rustix::fs::renameat_with(CWD, &index, CWD, &to, RenameFlags::NOREPLACE)
                    .map_err(Into::into),
            };
            match kept {
                Ok(()) => return Ok(Some(to)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(SysError::path("keep a copy of", &index, error).into()),
            }
        }
        Err(SysError::path("keep a copy of", &index, std::io::Error::from(ErrorKind::AlreadyExists)).into())
    }

    /// What repairs have kept.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn kept(&self) -> Result<Kept, Error> {
        let dir = self.layout.damaged();
        let mut kept = Kept::default();
        if dir.symlink_metadata().is_ok() {
            kept.bytes += tree::on_disk(&dir);
            let all = self.layout.entries(&dir)?;
            let is_note = |path: &PathBuf| {
                path.extension().is_some_and(|end| end == "json") && all.contains(&path.with_extension(""))
            };
            kept.paths.extend(all.iter().filter(|path| !is_note(path)).cloned());
        }
        for path in self.layout.damaged_indexes()? {
            kept.bytes += tree::on_disk(&path);
            kept.paths.push(path);
        }
        kept.paths.sort();
        Ok(kept)
    }

    /// Give up what repairs have kept. The bytes on disk that are free now are returned.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn drop_kept(&self) -> Result<u64, Error> {
        self.writable()?;
        let mut trash = Trash::default();
        let alone = self.lock(&LockName::Collect, LockMode::Exclusive)?;
        let dir = self.layout.damaged();
        for path in self.layout.damaged_indexes()?.into_iter().chain([dir]) {
            if path.symlink_metadata().is_ok() {
                trash.take(&self.layout, &path)?;
            }
        }
        sync_dir(self.layout.root())?;
        drop(alone);
        Ok(trash.empty().bytes)
    }
}

fn numbered(name: &str, attempt: u32) -> String {
    if attempt == 0 { name.to_owned() } else { format!("{name}.{attempt}") }
}

fn note_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}
