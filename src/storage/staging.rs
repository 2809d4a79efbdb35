//! `tmp/`: one directory a process, named after the boot and locked by its owner, so that a sweeper can tell the
//! living from the dead.
//!
//! Its `lease` file is the lock and holds the digests that the process relies on ("pins"). A collector reads the
//! leases of the living and keeps what they name; who pins does so under the shared collect lock *before* it looks
//! whether the content is there. So either the collector sees the pin, or the process sees that the content is gone.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::collect::Trash;
use super::layout::Layout;
use super::lock::{LockMode, LockName, Locked, try_lock};
use super::{Error, Store};
use crate::oci::Digest;
use crate::sys::{SysError, boot, flock, tree};

/// The name of the lock file in a staging directory.
pub(super) const LEASE: &str = "lease";

/// The staging directory of this process, removed when dropped.
#[derive(Debug)]
pub(super) struct Staging {
    path: PathBuf,
    lease: File,
    pinned: Mutex<BTreeSet<Digest>>,
    owner: u32,
    next: AtomicU64,
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A forked child that drops its copy must not take the parent's directory away.
        if std::process::id() == self.owner {
            let _ = tree::remove_path(&self.path);
        }
    }
}

impl Staging {
    fn create(tmp: &Path) -> Result<Self, Error> {
        let (path, lease) = claim_dir(tmp)?;
        Ok(Self { path, lease, pinned: Mutex::default(), owner: std::process::id(), next: AtomicU64::new(0) })
    }

    /// A path in the directory that nothing has yet.
    pub(super) fn fresh(&self, what: &str) -> PathBuf {
        self.path.join(format!("{what}-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }
}

/// Make a directory in `tmp/` that this process holds by the lock on its lease. Call it under the collect lock, shared
/// or not: a sweeper holds that exclusively, and takes a directory without a lease for a dead one.
pub(super) fn claim_dir(tmp: &Path) -> Result<(PathBuf, File), Error> {
    let boot = boot::boot_id().get(..8).unwrap_or("unknown");
    for attempt in 0..u32::MAX {
        let path = tmp.join(format!("{boot}-{}-{attempt}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {
                let lease = claim(&path).inspect_err(|_| drop(fs::remove_dir(&path)))?;
                return Ok((path, lease));
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(SysError::path("create", &path, error).into()),
        }
    }
    Err(Error::Damaged { path: tmp.to_owned(), what: "it is full of staging directories".into() })
}

fn claim(dir: &Path) -> Result<File, Error> {
    let path = dir.join(LEASE);
    let lease = OpenOptions::new()
        .read(true)
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| SysError::path("create", &path, error))?;
    flock::lock(&lease, true)?;
    Ok(lease)
}

impl Store {
    /// This process's staging directory, made on first use. What dead processes left is cleared on the way.
    pub(super) fn staging(&self) -> Result<Arc<Staging>, Error> {
        self.writable()?;
        let mut slot = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(staging) = &*slot {
            return Ok(Arc::clone(staging));
        }
        let collect = self.lock(&LockName::Collect, LockMode::Shared)?;
        let staging = Arc::new(Staging::create(&self.layout.tmp())?);
        drop(collect);
        *slot = Some(Arc::clone(&staging));
        drop(slot);
        if self.others(&staging)?.next().is_some()
            && let Some(alone) = try_lock(&self.layout, &LockName::Collect, LockMode::Exclusive)?
        {
            let mut trash = Trash::default();
            self.sweep_staging(&staging, &alone, &mut trash)?;
            drop(alone);
            trash.discard();
        }
        Ok(staging)
    }

    /// Where this process stages, when it does already.
    pub(super) fn own_staging(&self) -> Option<PathBuf> {
        let slot = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        slot.as_ref().map(|staging| staging.path.clone())
    }

    /// A fresh path for something that will be renamed to its place.
    pub(super) fn stage_path(&self, what: &str) -> Result<PathBuf, Error> {
        Ok(self.staging()?.fresh(what))
    }

    /// A fresh directory in the staging directory.
    pub(super) fn stage_dir(&self, what: &str) -> Result<PathBuf, Error> {
        let path = self.stage_path(what)?;
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| SysError::path("create", &path, error))?;
        Ok(path)
    }

    fn others(&self, own: &Staging) -> Result<impl Iterator<Item = PathBuf> + use<>, Error> {
        let entries = self.layout.entries(&self.layout.tmp())?;
        let own = own.path.clone();
        Ok(entries.into_iter().filter(move |path| *path != own))
    }

    /// Take over the staging directories of dead processes.
    pub(super) fn sweep_staging(
        &self,
        own: &Staging,
        _alone: &Locked,
        trash: &mut Trash,
    ) -> Result<(), Error> {
        for path in self.others(own)?.filter(|path| !is_alive(path)) {
            trash.adopt(&path);
        }
        Ok(())
    }

    /// Keep a collector from taking what `digests` name (blobs by their digest, snapshots by their key) while this
    /// store is open. Call it *before* looking whether they are there.
    ///
    /// # Errors
    /// When the lease cannot be written.
    pub(super) fn pin<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<(), Error> {
        let staging = self.staging()?;
        let mut pinned = staging.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = String::new();
        for digest in digests {
            if pinned.insert(digest.clone()) {
                lines.push_str(digest.as_str());
                lines.push('\n');
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        let _collect = self.lock(&LockName::Collect, LockMode::Shared)?;
        (&staging.lease)
            .write_all(lines.as_bytes())
            .map_err(|error| SysError::path("write", staging.path.join(LEASE), error).into())
    }

    /// What the living have pinned, this process aside. Needs the collect lock, exclusively.
    pub(super) fn pins_of_others(&self, _alone: &Locked) -> Result<BTreeSet<Digest>, Error> {
        pins(&self.layout, Some(&self.staging()?.path))
    }
}

/// What the living have pinned but the owner of the directory `own`: certain under the collect lock, else a glance.
pub(super) fn pins(layout: &Layout, own: Option<&Path>) -> Result<BTreeSet<Digest>, Error> {
    let mut pins = BTreeSet::new();
    let dirs = layout.entries(&layout.tmp())?;
    for path in dirs.into_iter().filter(|path| Some(path.as_path()) != own && is_alive(path)) {
        let text = match fs::read_to_string(path.join(LEASE)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => continue, // ended just now
            Err(error) => return Err(SysError::path("read", path.join(LEASE), error).into()),
        };
        pins.extend(text.lines().filter_map(|line| line.parse().ok()));
    }
    Ok(pins)
}

/// Whether somebody holds a staging directory: its owner, or who empties it. A lock of an earlier boot is gone with it.
pub(super) fn is_alive(path: &Path) -> bool {
    match File::open(path.join(LEASE)) {
        Ok(lease) => !flock::try_lock(&lease, false).unwrap_or(false),
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}
