//! Volumes on disk: `volumes/<name>/` with `volume.json` and `_data`, the directory that containers see.
//!
//! A volume appears whole: it is made in private, synced and renamed to its name. It goes by being renamed away, under
//! the volumes lock and after a look at every container's record; its files are unlinked after the lock is released.
//! Whoever makes a container holds that lock shared from the moment it looks for the volume until its record, which
//! names the volume, is there.

mod backing;
mod copy;
mod fill;
mod import;
mod remove;
#[cfg(test)]
mod tests;
mod usage;

pub use backing::{Backing, BadOption};
pub use fill::ImageContent;
pub use import::Import;
pub(super) use remove::take_unused;
pub use usage::VolumeUsage;

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, RenameFlags, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::containers::is_name;
use super::layout::Layout;
use super::lock::{LockMode, LockName, Locked, Patience, lock_dir};
use super::{Error, Store};
use crate::sys::SysError;
use crate::sys::atomic::{Durability, replace_file, sync_dir};

/// What never changes of a volume: `volume.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeRecord {
    /// Its name; 64 hex digits for an anonymous one.
    pub name: String,
    /// Always `local`.
    pub driver: String,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    /// Made without a name: `volume prune` takes it when no container uses it.
    pub anonymous: bool,
    /// Labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Options of the driver, as given.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// The only driver.
pub const LOCAL: &str = "local";

/// A directory that outlives containers.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Its record.
    pub record: VolumeRecord,
    /// `volumes/<name>/`
    dir: PathBuf,
}

const RECORD: &str = "volume.json";
const DATA: &str = "_data";
/// Of a volume's data, as docker makes it.
const DATA_MODE: u32 = 0o755;

impl Volume {
    fn read(layout: &Layout, name: &str) -> Result<Option<Self>, Error> {
        if !is_name(name) {
            return Ok(None);
        }
        let dir = layout.volume(name);
        let path = dir.join(RECORD);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                // Without a record it is half removed, or of an older format, or somebody else's directory.
                return if layout.volume_data(name).exists() {
                    Err(damaged(name, path, "it is missing"))
                } else {
                    Ok(None)
                };
            }
            Err(error) => return Err(SysError::path("read", path, error).into()),
        };
        let record: VolumeRecord = serde_json::from_slice(&bytes).map_err(|source| Error::DamagedVolume {
            name: name.into(),
            source: Box::new(Error::Json { path: path.clone(), source }),
        })?;
        if record.name != name {
            return Err(damaged(name, path, &format!("it says that it is `{}`", record.name.escape_debug())));
        }
        Ok(Some(Self { record, dir }))
    }

    /// Where its files lie; what a container sees may lie elsewhere: see [`Volume::backing`].
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join(DATA)
    }

    /// What a container sees, by the volume's options.
    ///
    /// # Errors
    /// [`BadOption`] when somebody edited them.
    pub fn backing(&self) -> Result<Backing, Error> {
        let backing = Backing::parse(&self.record.options)
            .map_err(|source| Error::VolumeOption { name: self.record.name.clone(), source })?;
        Ok(match backing {
            Backing::Data { owner, .. } => Backing::Data { path: self.data(), owner },
            other => other,
        })
    }

    /// The volume's own lock, on its directory: held while files are brought into it.
    fn lock(&self, store: &Store) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&self.dir, flags, Mode::empty())
            .map_err(|error| SysError::path("open", &self.dir, error))?;
        let patience = Patience { limit: store.lock_limit(), say: &|text| store.notice.say(text) };
        let what = format!("volume {}", self.record.name);
        let locked = lock_dir(dir, self.dir.clone(), &what, &patience)?;
        locked.ok_or_else(|| Error::NoSuchVolume(self.record.name.clone()))
    }
}

fn damaged(name: &str, path: PathBuf, what: &str) -> Error {
    Error::DamagedVolume { name: name.into(), source: Box::new(Error::Damaged { path, what: what.into() }) }
}

/// Whether a volume may have this name: docker's rule.
#[must_use]
pub fn is_volume_name(name: &str) -> bool {
    name.len() > 1 && is_name(name)
}

impl Store {
    /// Keep volumes from being removed while this is held: until a container that uses them has its record.
    ///
    /// # Errors
    /// When the lock file cannot be made.
    pub fn hold_volumes(&self) -> Result<Locked, Error> {
        self.lock(&LockName::Volumes, LockMode::Shared)
    }

    /// Make a volume; `false` beside it when one of the name was there, which is left as it is. With `durable` it
    /// outlives a power cut from here on.
    ///
    /// # Errors
    /// When the store cannot be written, or what is there is damaged.
    pub fn create_volume(&self, record: VolumeRecord, durable: bool) -> Result<(Volume, bool), Error> {
        self.writable()?;
        if !is_name(&record.name) {
            return Err(Error::BadVolumeName(record.name));
        }
        if let Some(volume) = Volume::read(self.layout(), &record.name)? {
            return Ok((volume, false));
        }
        let staged = self.stage_dir("volume")?;
        let durability = if durable { Durability::Durable } else { Durability::Fast };
        let made =
            make(&staged, &record, durability).and_then(|()| self.publish_volume(&staged, &record.name));
        if !matches!(made, Ok(true)) {
            let _ = crate::sys::tree::remove_path(&staged);
        }
        if made? {
            if durable {
                sync_dir(&self.layout().volumes())?;
            }
            let dir = self.layout().volume(&record.name);
            self.tell("volume", "create", &record.name, &[("driver", "local")]);
            return Ok((Volume { record, dir }, true));
        }
        Ok((self.find_volume(&record.name)?, false))
    }

    /// Rename it to its name; `false` when somebody else was faster.
    fn publish_volume(&self, staged: &Path, name: &str) -> Result<bool, Error> {
        let dir = self.layout().volume(name);
        for attempt in 0..2 {
            match rustix::fs::renameat_with(CWD, staged, CWD, &dir, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(true),
                // An empty directory is what a restored backup or a hand may leave.
                Err(Errno::EXIST) if attempt == 0 && fs::remove_dir(&dir).is_ok() => {}
                Err(Errno::EXIST) => return Ok(false),
                Err(error) => return Err(SysError::path("create", dir, error).into()),
            }
        }
        Ok(false)
    }

    /// The volume of that name.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`] or [`Error::DamagedVolume`].
    pub fn find_volume(&self, name: &str) -> Result<Volume, Error> {
        Volume::read(self.layout(), name)?.ok_or_else(|| Error::NoSuchVolume(name.into()))
    }

    /// Every volume, by name. What is damaged is left out, and said.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn volumes(&self) -> Result<Vec<Volume>, Error> {
        let mut volumes = Vec::new();
        for name in self.volume_names()? {
            match Volume::read(self.layout(), &name) {
                Ok(volume) => volumes.extend(volume),
                Err(error) if error.is_shortage() => return Err(error),
                Err(error) => self.say_left_out("volume", &name, &format!("strate volume rm {name}"), &error),
            }
        }
        Ok(volumes)
    }

    /// The names of all volumes, damaged ones too, sorted.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn volume_names(&self) -> Result<Vec<String>, Error> {
        let dir = self.layout().volumes();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(SysError::path("read", dir, error).into()),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| SysError::path("read", &dir, error))?;
            names.extend(entry.file_name().into_string().ok().filter(|name| is_name(name)));
        }
        names.sort();
        Ok(names)
    }
}

/// The record and the empty data directory.
fn make(dir: &Path, record: &VolumeRecord, durability: Durability) -> Result<(), Error> {
    let data = dir.join(DATA);
    let failed = |error| SysError::path("create", &data, error);
    DirBuilder::new().mode(0o700).create(&data).map_err(failed)?;
    // Whatever the umask says.
    fs::set_permissions(&data, fs::Permissions::from_mode(DATA_MODE)).map_err(failed)?;
    if let Ok(Backing::Data { owner: Some((uid, gid)), .. }) = Backing::parse(&record.options) {
        give(&data, uid, gid)?;
    }
    let path = dir.join(RECORD);
    let bytes = serde_json::to_vec(record).map_err(|source| Error::Json { path: path.clone(), source })?;
    Ok(replace_file(&path, &dir.join(".volume.json"), &bytes, durability)?)
}

fn give(data: &Path, uid: u32, gid: u32) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let given = rustix::fs::open(data, flags, Mode::empty())
        .and_then(|dir| rustix::fs::fchown(dir.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))));
    given.map_err(|error| SysError::new("give", format!("the volume to {uid}:{gid}"), error).into())
}
