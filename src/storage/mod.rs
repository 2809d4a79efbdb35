//! Floor 2: images on local disk. The layout is in `doc/storage.md`; paths are made in `layout.rs` and locks are taken
//! in `lock.rs`, nowhere else.
//!
//! The store is an OCI image layout with a cache of unpacked layers beside it. Every write is private first, then
//! synced, then renamed to its name, then named by `index.json`: a kill at any instant leaves the old state or the new.

mod additional;
mod blobs;
mod cache;
mod check;
mod collect;
mod commit;
mod containers;
mod error;
mod events;
mod facts;
mod format;
mod hold;
mod images;
mod import;
mod index;
mod indexes;
mod layering;
mod layout;
mod listing;
mod lock;
mod materialise;
mod places;
mod remove;
mod reset;
mod share;
mod sink;
mod snapshots;
mod staging;
mod unpack;
mod usage;
mod volumes;

pub use additional::is_containers_storage;
pub use blobs::BlobWriter;
pub use cache::{Budget, CacheItem, CacheKind, Limits, parse_size};
pub use check::{Amount, CheckOptions, CheckReport, Counts, Fault, Kept, LostBlob, Progress};
pub use collect::{Swept, Unlink};
pub use commit::CommitOptions;
pub use containers::{
    ContainerDir, ContainerRecord, ContainerState, NewName, RunLock, Status, StopMark, VolumeUse,
};
pub use error::Error;
pub use events::{Event, Events};
pub use format::Probe;
pub use images::{Image, ImageRecord};
pub use indexes::{Kind, NewIndex};
pub use layering::{Method, Mounted};
pub use layout::Layout;
pub use listing::ListedImage;
pub use lock::{LockMode, LockName, Locked, Notice};
pub use places::Place;
pub use remove::{Collected, DoomedImage, Pick, PrunePlan, Removed};
pub use reset::{ResetPlan, plan_reset, reset};
pub use snapshots::{Snapshot, Stack};
pub use usage::{ContainerUsage, ImageUsage, OtherUsage, Usage};
pub use volumes::{
    Backing, BadOption, ImageContent, Import, LOCAL, Volume, VolumeRecord, VolumeUsage, is_volume_name,
};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::sys::SysError;
use crate::sys::atomic::{self, SyncMode};
use format::Found;
use lock::Patience;

/// What the digests of blobs are made with: each has a directory below `blobs/`.
const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];

/// What the process that opens the store can do with it.
#[derive(Debug, Clone, Copy)]
pub struct Abilities {
    /// Ids below this number can be given to files (the size of the id map; `u32::MAX` when root outside a namespace).
    pub mapped_ids: u32,
    /// Whether layers are unpacked when they arrive. False outside any namespace without root: blobs are kept, and the
    /// first command that needs the files unpacks them.
    pub unpack: bool,
    /// How long the holder of a lock that it waits for may do nothing; `None`: for ever.
    pub lock_timeout: Option<Duration>,
}

impl Abilities {
    /// The default of [`Abilities::lock_timeout`].
    pub const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
}

/// What is said about a store when it is opened.
#[derive(Debug, Clone, Default)]
pub struct Opening {
    /// Where waits, upgrades and repairs are announced.
    pub notice: Notice,
    /// Use this layering method, whatever a probe would find.
    pub layering: Option<Method>,
    /// Stores of others, whose images are used where they lie.
    pub additional: Vec<PathBuf>,
    /// Take a file system on which locks cannot be relied on: the user knows that nobody else works on the store.
    pub unsafe_allowed: bool,
}

/// An open store.
///
/// Opened for reading it takes no lock and creates nothing. Opened for writing it holds the store lock shared until it
/// is dropped, so that nobody sweeps lock files or upgrades the format meanwhile; a collector works beside it and
/// leaves alone what it pinned.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    abilities: Option<Abilities>,
    notice: Notice,
    forced_method: Option<Method>,
    /// Stores of others that are read beside this one.
    additional: Vec<additional::Additional>,
    /// Whether other users may read what is published.
    shared: bool,
    staging: Mutex<Option<Arc<staging::Staging>>>,
    /// Asked for once, when the first snapshot is looked for.
    ids: OnceLock<snapshots::IdMap>,
    _lock: Option<Locked>,
}

impl Store {
    /// Open for reading. A store that does not exist yet is an empty one.
    ///
    /// # Errors
    /// When the store exists but cannot be read, or its format is newer than this binary.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Self::open_as(root, Opening::default())
    }

    /// [`Store::open`] with more to say about it.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_as(root: &Path, how: Opening) -> Result<Self, Error> {
        check_known(root)?;
        let layout = Layout::new(root);
        let found = format::check(&layout, false)?;
        Ok(Self::new(layout, how, &found, None))
    }

    /// Open for writing, creating the store when it is not there.
    ///
    /// # Errors
    /// As [`Store::open_writable_as`].
    pub fn open_writable(root: &Path, abilities: Abilities) -> Result<Self, Error> {
        Self::open_writable_as(root, abilities, Opening::default())
    }

    /// Open for writing, creating the store when it is not there and upgrading one of an older format.
    ///
    /// # Errors
    /// When it cannot be created or written, belongs to another user, or its format is newer than this binary.
    pub fn open_writable_as(root: &Path, abilities: Abilities, how: Opening) -> Result<Self, Error> {
        check_known(root)?;
        let layout = Layout::new(root);
        let mut lock = None;
        loop {
            let found = format::check(&layout, true)?;
            if let Found::Nothing = found {
                format::create(&layout, &how.notice, how.unsafe_allowed)?;
                continue;
            }
            format::check_owner(root)?;
            refuse_read_only(root)?;
            format::refuse_split(&layout)?;
            match (&found, &lock) {
                (Found::Older(_), _) => {
                    lock = None;
                    format::upgrade(&layout, &how.notice, abilities.lock_timeout)?;
                }
                (_, None) => {
                    // What was read before the lock was had may be of yesterday: it is read again under it.
                    let patience =
                        Patience { limit: abilities.lock_timeout, say: &|text| how.notice.say(text) };
                    lock = Some(lock::lock(&layout, &LockName::Store, LockMode::Shared, &patience)?);
                }
                (_, Some(_)) => {
                    let unsafe_allowed = how.unsafe_allowed;
                    let mut store = Self::new(layout, how, &found, Some(abilities));
                    store._lock = lock;
                    store.probe_again(unsafe_allowed)?;
                    return Ok(store);
                }
            }
        }
    }

    fn new(layout: Layout, how: Opening, found: &Found, abilities: Option<Abilities>) -> Self {
        let shared = matches!(found, Found::Current(file) | Found::Older(file) if file.is_shared());
        if shared && abilities.is_some() {
            // What this process publishes is for others to read, whatever its user's umask says of other files.
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        }
        let additional = additional::open_all(&layout, &how.additional, &how.notice);
        Self {
            layout,
            abilities,
            additional,
            notice: how.notice,
            forced_method: how.layering,
            shared,
            staging: Mutex::default(),
            ids: OnceLock::new(),
            _lock: None,
        }
    }

    /// Announce waits and repairs through `notice`.
    #[must_use]
    pub fn with_notice(mut self, notice: Notice) -> Self {
        self.notice = notice;
        self
    }

    /// Use this layering method, whatever a probe would find.
    #[must_use]
    pub fn with_layering(mut self, method: Option<Method>) -> Self {
        self.forced_method = method;
        self
    }

    /// Where the store lies.
    pub fn root(&self) -> PathBuf {
        self.layout.root().to_owned()
    }

    /// Every path of the store.
    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What this process can do with the store.
    ///
    /// # Errors
    /// When it was opened for reading only.
    pub(crate) fn writable(&self) -> Result<Abilities, Error> {
        self.abilities.ok_or_else(|| {
            let source = SysError::path("write", self.layout.root(), io::ErrorKind::PermissionDenied);
            Error::ReadOnly { path: self.root(), source }
        })
    }

    /// Take a lock; a wait of more than a second is announced.
    ///
    /// # Errors
    /// [`Error::Busy`], or when the lock file cannot be made.
    pub(crate) fn lock(&self, name: &LockName<'_>, mode: LockMode) -> Result<Locked, Error> {
        self.lock_saying(name, mode, &|text| self.notice.say(text))
    }

    /// The same, announced elsewhere.
    ///
    /// # Errors
    /// As [`Store::lock`].
    fn lock_saying(&self, name: &LockName<'_>, mode: LockMode, say: &dyn Fn(&str)) -> Result<Locked, Error> {
        lock::lock(&self.layout, name, mode, &Patience { limit: self.lock_limit(), say })
    }

    /// How long the holder of a lock may do nothing.
    fn lock_limit(&self) -> Option<Duration> {
        self.abilities.map_or(Some(Abilities::LOCK_TIMEOUT), |abilities| abilities.lock_timeout)
    }

    /// Take a lock if nobody is in the way.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub(crate) fn try_lock(&self, name: &LockName<'_>, mode: LockMode) -> Result<Option<Locked>, Error> {
        lock::try_lock(&self.layout, name, mode)
    }

    /// Tell the user something, once.
    pub fn remark(&self, text: &str) {
        self.notice.say(text);
    }

    /// Say that something damaged is left out of a listing, and what helps.
    fn say_left_out(&self, what: &str, name: &str, removal: &str, error: &Error) {
        let why = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
        self.notice.say(&format!(
            "{what} {name} is left out, as its record is damaged ({why}): `{removal}` removes it"
        ));
    }

    /// Replace a file of the store whole; other processes see the old or the new one.
    ///
    /// # Errors
    /// When it cannot be written; the old one is intact then.
    pub(crate) fn replace_file(
        &self,
        target: &Path,
        bytes: &[u8],
        durability: atomic::Durability,
    ) -> Result<(), Error> {
        let temp = self.stage_path("file")?;
        atomic::replace_file(target, &temp, bytes, durability).map_err(Error::from)
    }

    /// Make the names of blobs durable before anything points to them. Those that another process has published count
    /// too: it may have been killed before it came to this.
    fn sync_published(&self) -> Result<(), Error> {
        if atomic::sync_mode() == SyncMode::Syncfs {
            return Ok(atomic::sync_file_system(self.layout.root())?);
        }
        for algorithm in ALGORITHMS {
            match atomic::sync_dir(&self.layout.blob_dir(algorithm)) {
                Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(())
    }
}

/// A context that knows no place for the store has an empty path in it.
fn check_known(root: &Path) -> Result<(), Error> {
    if root.as_os_str().is_empty() { Err(Error::NoRoot) } else { Ok(()) }
}

/// In a store that others may read, what is published is readable whatever the umask says.
fn readable_if(shared: bool, path: &Path) -> Result<(), Error> {
    if shared {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        std::fs::set_permissions(path, mode)
            .map_err(|error| SysError::path("change the mode of", path, error))?;
    }
    Ok(())
}

/// A command that writes fails before it does any work when the file system is mounted read-only.
fn refuse_read_only(root: &Path) -> Result<(), Error> {
    let mode = rustix::fs::Access::WRITE_OK;
    rustix::fs::accessat(rustix::fs::CWD, root, mode, rustix::fs::AtFlags::EACCESS).map_err(|error| {
        Error::ReadOnly { path: root.to_owned(), source: SysError::path("write", root, error) }
    })
}

#[cfg(test)]
mod index_tests;
#[cfg(test)]
mod mount_tests;
#[cfg(test)]
mod tests;
