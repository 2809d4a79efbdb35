//! Cache mounts: directories that steps of builds keep things in between builds (`RUN --mount=type=cache`).
//!
//! `cache/mounts/<name>/` belongs to the steps; `<name>.json` beside it says what it is, and by its modification time when
//! it was of use last. A build pins the caches that it uses, so that no collector takes them from under it.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::note_use;
use crate::oci::Digest;
use crate::storage::layout::Layout;
use crate::storage::lock::{Patience, lock_dir};
use crate::storage::{Error, Store};
use crate::sys::{SysError, atomic};

/// `<name>.json`
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Facts {
    /// The cache's id, as the Dockerfile says it.
    #[serde(default)]
    pub about: String,
    /// When it was made, in Unix seconds.
    #[serde(default)]
    pub made: i64,
}

/// A cache mount.
#[derive(Debug)]
pub(super) struct CacheMount {
    pub name: String,
    pub path: PathBuf,
    pub facts: Facts,
    pub used: SystemTime,
}

impl Store {
    /// Where the cache mount `name` lies, which the caller makes when it is not there. From here on no collector takes
    /// it while this store is open. `about` is its id, for people.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn cache_mount(&self, name: &str, about: &str) -> Result<PathBuf, Error> {
        self.pin([&pin(name)])?;
        let dir = self.layout.cache_mounts();
        DirBuilder::new()
            .mode(0o700)
            .recursive(true)
            .create(&dir)
            .map_err(|error| SysError::path("create", &dir, error))?;
        let path = self.layout.cache_mount_facts(name);
        if path.exists() {
            note_use(&path);
        } else {
            let made = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let facts = Facts { about: about.to_owned(), made: i64::try_from(made.as_secs()).unwrap_or(0) };
            let bytes =
                serde_json::to_vec(&facts).map_err(|source| Error::Json { path: path.clone(), source })?;
            self.replace_file(&path, &bytes, atomic::Durability::Fast)?;
        }
        Ok(self.layout.cache_mount(name))
    }

    /// Lock the cache mount whose directory is open and lies at `path`, for one step alone. However long the step of
    /// another build takes: its process sleeps meanwhile, which says nothing. `about` is its id, for people.
    ///
    /// # Errors
    /// When it was taken away, or the file system has no locks.
    pub fn lock_cache_mount(&self, dir: OwnedFd, path: &Path, about: &str) -> Result<OwnedFd, Error> {
        let patience = Patience { limit: None, say: &|text| self.notice.say(text) };
        let what = format!("the cache `{about}`");
        lock_dir(dir, path.to_owned(), &what, &patience)?
            .ok_or_else(|| SysError::path("lock", path, io::Error::from(ErrorKind::NotFound)).into())
    }
}

/// What stands for a cache mount among the pins of a process.
pub(super) fn pin(name: &str) -> Digest {
    Digest::sha256(format!("cache mount {name}"))
}

/// The cache mounts there are.
pub(super) fn all(layout: &Layout) -> Result<Vec<CacheMount>, Error> {
    let mut mounts = Vec::new();
    for path in layout.entries(&layout.cache_mounts())? {
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|_| meta.is_dir()) else {
            continue;
        };
        let facts_path = layout.cache_mount_facts(name);
        let facts = match fs::read(&facts_path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::NotFound => Facts::default(),
            Err(error) => return Err(SysError::path("read", facts_path, error).into()),
        };
        // Those of earlier versions have nothing beside them.
        let used = fs::metadata(&facts_path).unwrap_or(meta).modified().unwrap_or(SystemTime::UNIX_EPOCH);
        mounts.push(CacheMount { name: name.to_owned(), path: path.clone(), facts, used });
    }
    Ok(mounts)
}
