//! Containers on disk: `containers/<id>/` with `config.json`, `state.json`, `upper`, `work` and `log`, and
//! `containers/by-name/<name>`, a link to the id.
//!
//! A container is there once its `config.json` is, which comes first: a directory with nothing is half made, and
//! [`Store::sweep_containers`] clears it. One that holds other files has lost its record, and is damaged. The links are an index that makes a name unique and quick to find; the record's
//! own name is what counts, so a stale link is harmless. Every link is made under the names lock.
//!
//! The lock of a container is on its directory itself, and so goes with it: whoever watches over its program holds it
//! exclusively ([`RunLock`]), and waiting for the program's end is waiting for the lock.

mod cgroups;
mod damaged;
mod ended;
mod every;
mod marks;
mod run_lock;
mod state;
mod uses;

pub use marks::StopMark;
pub use run_lock::RunLock;
pub use state::{ContainerState, Status};
pub use uses::VolumeUse;
pub(super) use uses::{Users, volume_users, volume_users_but};

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::collect::Trash;
use super::layout::Layout;
use super::lock::{self, LockMode, LockName, Patience};
use super::{Error, Store};
use crate::oci::{Descriptor, DiffId, Digest, ImageId};
use crate::sys::atomic::{Durability, create_dirs, replace_file, sync_dir};
use crate::sys::{SysError, regular, tree};

/// What never changes of a container, but its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// 64 hex digits.
    pub id: String,
    /// The name.
    pub name: String,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    /// The image as the user named it.
    pub image_name: String,
    /// The image's id.
    pub image: ImageId,
    /// The image's manifest.
    pub manifest: Digest,
    /// The image's layers, lowest first: the collector keeps them even when the image's name is gone.
    pub layers: Vec<(Descriptor, DiffId)>,
    /// The volumes that it mounts. Absent in records of older binaries: ask [`ContainerRecord::volume_uses`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Vec<VolumeUse>>,
    /// Additional stores that hold parts of the image which were not here when it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stores: Vec<PathBuf>,
    /// How to run it: `ops`' own document, opaque to the store, as text until somebody wants it.
    pub spec: Box<RawValue>,
}

/// A container's directory.
#[derive(Debug)]
pub struct ContainerDir {
    /// The record.
    pub record: ContainerRecord,
    /// The directory.
    pub path: PathBuf,
    pub(super) layout: Layout,
}

const RECORD: &str = "config.json";

impl ContainerDir {
    fn read(layout: &Layout, id: &str) -> Result<Option<Self>, Error> {
        let path = layout.container(id);
        let file = path.join(RECORD);
        let damaged = |source| {
            let id = id.get(..12).unwrap_or(id).to_owned();
            Error::DamagedContainer { id, source: Box::new(source) }
        };
        let bytes = match read_record(&path)? {
            Found::Record(bytes) => bytes,
            Found::Nothing => return Ok(None),
            // With a program's files it was a container once, which may run, and uses nobody knows what.
            Found::Lost => {
                return Err(damaged(Error::Damaged { path: file, what: "it is missing".to_owned() }));
            }
        };
        if bytes.is_empty() {
            return Err(damaged(Error::Damaged { path: file, what: "it is empty".to_owned() }));
        }
        let record: ContainerRecord = serde_json::from_slice(&bytes)
            .map_err(|source| damaged(Error::Json { path: file.clone(), source }))?;
        // Paths are built from both.
        if record.id != id || !is_name(&record.name) {
            let (id, name) = (record.id.escape_debug(), record.name.escape_debug());
            let what = format!("it says that it is `{id}` with the name `{name}`");
            return Err(damaged(Error::Damaged { path: file, what }));
        }
        Ok(Some(Self { record, path, layout: layout.clone() }))
    }

    /// Read the record once more: others may have changed it.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`] when it was removed meanwhile, or when it cannot be read.
    pub fn read_anew(&mut self) -> Result<(), Error> {
        let gone = || Error::NoSuchContainer(self.record.name.clone());
        self.record = Self::read(&self.layout, &self.record.id)?.ok_or_else(gone)?.record;
        Ok(())
    }

    /// The log file.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The first twelve digits of the id.
    #[must_use]
    pub fn short_id(&self) -> &str {
        self.record.id.get(..12).unwrap_or(&self.record.id)
    }

    /// Bytes on disk of all that is the container's own, as far as it can be seen: what its removal frees.
    #[must_use]
    pub fn size(&self) -> u64 {
        tree::on_disk(&self.path)
    }

    /// Where a volume of the store has its data.
    #[must_use]
    pub fn volume_data(&self, name: &str) -> PathBuf {
        self.layout.volume_data(name)
    }

    fn write_record(&self, durability: Durability) -> Result<(), Error> {
        let path = self.path.join(RECORD);
        let bytes =
            serde_json::to_vec(&self.record).map_err(|source| Error::Json { path: path.clone(), source })?;
        Ok(replace_file(&path, &self.path.join(".config.json"), &bytes, durability)?)
    }
}

/// What is found where a container's record should be.
enum Found {
    Record(Vec<u8>),
    /// No container, or one that is half made.
    Nothing,
    /// A container's files without the record.
    Lost,
}

/// The bytes of a container's record.
fn read_record(dir: &Path) -> Result<Found, Error> {
    let file = dir.join(RECORD);
    let is_absent =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    for _ in 0..2 {
        match regular::read_small(&file) {
            Ok(bytes) => return Ok(Found::Record(bytes)),
            Err(error) if !is_absent(&error) => return Err(SysError::path("read", file, error).into()),
            Err(_) if is_half_made(dir) => return Ok(Found::Nothing),
            // Its maker may have come further between the two looks: then it is there now.
            Err(_) => {}
        }
    }
    Ok(if dir.is_dir() { Found::Lost } else { Found::Nothing })
}

/// The ids of all containers that have a directory.
fn ids(layout: &Layout) -> Result<Vec<String>, Error> {
    let dir = layout.containers();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SysError::path("read", dir, error).into()),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| SysError::path("read", &dir, error))?;
        ids.extend(entry.file_name().into_string().ok().filter(|name| is_id(name)));
    }
    Ok(ids)
}

/// 64 hex digits.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a container or volume may have this name: one plain file name, which cannot be taken for one of ours.
pub(super) fn is_name(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    first && text.len() < 256 && text.bytes().all(good)
}

/// Whether a container's directory was left by a maker that died: its record comes first, so nothing else is in it. One
/// that holds a program's files has lost its record, which is another matter.
pub(super) fn is_half_made(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| {
        entries.all(|entry| entry.is_ok_and(|entry| entry.file_name() == ".config.json"))
    })
}

/// How the name of a new container is found.
#[derive(Debug, Clone, Copy)]
pub enum NewName<'a> {
    /// This one.
    Given(&'a str),
    /// Whatever this gives for attempt 0, 1, …, the first that is free.
    Proposed(fn(u32) -> String),
}

impl Store {
    /// All containers, newest first. One that is half made is left out; one that is damaged too, which is said.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn containers(&self) -> Result<Vec<ContainerDir>, Error> {
        let mut all = Vec::new();
        for id in ids(self.layout())? {
            match ContainerDir::read(self.layout(), &id) {
                Ok(found) => all.extend(found),
                Err(error) if error.is_shortage() => return Err(error),
                Err(error) => {
                    let id = id.get(..12).unwrap_or(&id);
                    self.say_left_out("container", id, &format!("strate rm -f {id}"), &error);
                }
            }
        }
        all.sort_by(|a, b| (&b.record.created, &b.record.id).cmp(&(&a.record.created, &a.record.id)));
        Ok(all)
    }

    pub(super) fn container_ids(&self) -> Result<Vec<String>, Error> {
        ids(self.layout())
    }

    /// A container by its whole id; `None` when it is half made or gone.
    pub(super) fn read_container(&self, id: &str) -> Result<Option<ContainerDir>, Error> {
        ContainerDir::read(self.layout(), id)
    }

    /// Find a container as a user names it: a name wins over an id prefix; a leading `/` is ignored.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`], [`Error::AmbiguousContainer`] or [`Error::DamagedContainer`].
    pub fn find_container(&self, text: &str) -> Result<ContainerDir, Error> {
        let wanted = text.strip_prefix('/').unwrap_or(text);
        if let Some(found) = self.container_by_name(wanted)? {
            return Ok(found);
        }
        if is_id(wanted)
            && let Some(found) = ContainerDir::read(self.layout(), wanted)?
        {
            return Ok(found);
        }
        let prefix = |id: &String| !wanted.is_empty() && id.starts_with(wanted);
        let mut fits: Vec<String> = ids(self.layout())?.into_iter().filter(prefix).collect();
        fits.sort();
        match fits.as_slice() {
            [only] => ContainerDir::read(self.layout(), only)?,
            [] => None,
            _ => {
                let fits = fits.iter().filter_map(|id| id.get(..12)).map(str::to_owned).collect();
                return Err(Error::AmbiguousContainer { prefix: text.into(), fits });
            }
        }
        .ok_or_else(|| Error::NoSuchContainer(text.into()))
    }

    fn name_link(&self, name: &str) -> PathBuf {
        self.layout().containers().join("by-name").join(name)
    }

    fn container_by_name(&self, name: &str) -> Result<Option<ContainerDir>, Error> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Ok(None);
        }
        let Ok(id) = fs::read_link(self.name_link(name)) else { return Ok(None) };
        let Some(id) = id.to_str().filter(|id| is_id(id)) else { return Ok(None) };
        Ok(ContainerDir::read(self.layout(), id)?.filter(|found| found.record.name == name))
    }

    /// Keep a new container and give it its name. It comes back locked, so that nobody starts or removes it before its
    /// maker lets go. With `durable` it outlives a power cut from here on.
    ///
    /// # Errors
    /// [`Error::NameInUse`], or when the store cannot be written.
    pub fn create_container(
        &self,
        record: ContainerRecord,
        name: NewName<'_>,
        durable: bool,
    ) -> Result<(ContainerDir, RunLock), Error> {
        self.writable()?;
        let path = self.layout().container(&record.id);
        let lock = self.make_locked(&path)?;
        let mut dir = ContainerDir { record, path, layout: self.layout().clone() };
        match self.publish_container(&mut dir, name, durable) {
            Ok(()) => Ok((dir, lock)),
            Err(error) => {
                let _ = tree::remove_path(&dir.path);
                Err(error)
            }
        }
    }

    /// Make a container's directory, locked before anybody can see it: one without a record that nobody holds is swept.
    fn make_locked(&self, path: &Path) -> Result<RunLock, Error> {
        let staged = self.stage_dir("container")?;
        let lock = RunLock::new(&staged)?;
        fs::rename(&staged, path).map_err(|error| SysError::path("create", path, error))?;
        Ok(lock)
    }

    fn publish_container(
        &self,
        dir: &mut ContainerDir,
        name: NewName<'_>,
        durable: bool,
    ) -> Result<(), Error> {
        let names = self.lock(&LockName::Names, LockMode::Exclusive)?;
        self.take_name(&mut dir.record, name)?;
        let durability = if durable { Durability::Durable } else { Durability::Fast };
        if let Err(error) = dir.write_record(durability) {
            let _ = fs::remove_file(self.name_link(&dir.record.name));
            return Err(error);
        }
        drop(names);
        if durable {
            self.sync_container_names()?;
        }
        Ok(())
    }

    /// Containers and the links with their names stay after a power cut.
    fn sync_container_names(&self) -> Result<(), Error> {
        let dir = self.layout().containers();
        sync_dir(&dir.join("by-name"))?;
        Ok(sync_dir(&dir)?)
    }

    /// Under the names lock: settle on a name and make its link.
    fn take_name(&self, record: &mut ContainerRecord, name: NewName<'_>) -> Result<(), Error> {
        match name {
            NewName::Given(name) => {
                record.name = name.into();
                match self.link_name(name, &record.id)? {
                    None => Ok(()),
                    Some(id) => Err(Error::NameInUse { name: name.into(), id }),
                }
            }
            NewName::Proposed(propose) => {
                for attempt in 0.. {
                    record.name = propose(attempt);
                    if self.link_name(&record.name, &record.id)?.is_none() {
                        break;
                    }
                }
                Ok(())
            }
        }
    }

    /// Make the link of a name; when a container has it already, its short id comes back.
    fn link_name(&self, name: &str, id: &str) -> Result<Option<String>, Error> {
        let link = self.name_link(name);
        for attempt in 0..4 {
            match std::os::unix::fs::symlink(id, &link) {
                Ok(()) => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound && attempt == 0 => {
                    let dir = self.layout().containers().join("by-name");
                    create_dirs(&dir, 0o700)?;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    if let Some(taken) = self.container_by_name(name)? {
                        return Ok(Some(taken.short_id().into()));
                    }
                    // Its container is gone: nobody else touches links while we hold the names lock.
                    let _ = fs::remove_file(&link);
                }
                Err(error) => return Err(SysError::path("create", link, error).into()),
            }
        }
        Err(SysError::path("create", link, io::Error::from(io::ErrorKind::AlreadyExists)).into())
    }

    /// Clear what makers that died left behind, and links whose container is gone.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn sweep_containers(&self) -> Result<(), Error> {
        for id in ids(self.layout())? {
            let path = self.layout().container(&id);
            // A maker holds the directory from before it is here; the record comes under that lock.
            if is_half_made(&path)
                && let Ok(_lock) = RunLock::new(&path)
                && is_half_made(&path)
            {
                let _ = tree::remove_path(&path);
            }
        }
        let _names = self.lock(&LockName::Names, LockMode::Exclusive)?;
        let links = fs::read_dir(self.layout().containers().join("by-name")).into_iter().flatten().flatten();
        for link in links {
            let name = link.file_name();
            // The name of a damaged container is still its own.
            if let Some(name) = name.to_str()
                && matches!(self.container_by_name(name), Ok(None))
            {
                let _ = fs::remove_file(link.path());
            }
        }
        Ok(())
    }

    /// Change how a container is run: `change` gets the document as it is now, under a lock, and gives the next one.
    ///
    /// # Errors
    /// What `change` gives; [`Error::NoSuchContainer`], or when the store cannot be written.
    pub fn change_container_spec<E: From<Error>>(
        &self,
        dir: &mut ContainerDir,
        change: impl FnOnce(&RawValue) -> Result<Box<RawValue>, E>,
    ) -> Result<(), E> {
        let _names = self.lock(&LockName::Names, LockMode::Exclusive)?;
        dir.read_anew()?;
        dir.record.spec = change(&dir.record.spec)?;
        Ok(dir.write_record(Durability::Durable)?)
    }

    /// Give a container another name.
    ///
    /// # Errors
    /// [`Error::NameInUse`], or when the store cannot be written.
    pub fn rename_container(&self, dir: &mut ContainerDir, name: &str) -> Result<(), Error> {
        let _names = self.lock(&LockName::Names, LockMode::Exclusive)?;
        dir.read_anew()?;
        if let Some(id) = self.link_name(name, &dir.record.id)? {
            return Err(Error::NameInUse { name: name.into(), id });
        }
        let old = std::mem::replace(&mut dir.record.name, name.into());
        if let Err(error) = dir.write_record(Durability::Durable) {
            dir.record.name = old;
            let _ = fs::remove_file(self.name_link(name));
            return Err(error);
        }
        let _ = fs::remove_file(self.name_link(&old));
        self.sync_container_names()
    }
}

impl ContainerDir {
    /// Remove the container, whose lock proves that its program does not run: it is gone at once, and its files
    /// shortly after, by a process that stays behind where that takes long.
    ///
    /// # Errors
    /// When the directory cannot be moved. What cannot be deleted after that is left to the collector.
    pub fn remove(&self, run: RunLock) -> Result<(), Error> {
        let mut trash = Trash::default();
        self.take_away(run, false, &mut trash)?;
        trash.discard();
        Ok(())
    }

    /// The same, and it stays away after a power cut: for a container that was made to outlive one.
    ///
    /// # Errors
    /// As [`ContainerDir::remove`], or when the disk fails.
    pub fn remove_durably(&self, run: RunLock) -> Result<(), Error> {
        let mut trash = Trash::default();
        self.take_away(run, true, &mut trash)?;
        trash.discard();
        Ok(())
    }

    /// Move the container to the trash, and free its name.
    pub(super) fn take_away(&self, run: RunLock, durable: bool, trash: &mut Trash) -> Result<(), Error> {
        trash.take_anyhow(&self.layout, &self.path)?;
        if durable {
            // Before its files go: a container that comes back without them would be worse than either.
            sync_dir(&self.layout.containers())?;
        }
        ended::forget(&self.layout, &self.record.id);
        self.tell("destroy", &[]);
        // The link last: a container must never be there without its name. One that leads nowhere is harmless.
        let names = lock::lock(&self.layout, &LockName::Names, LockMode::Exclusive, &Patience::usual());
        let link = self.layout.containers().join("by-name").join(&self.record.name);
        let is_ours = fs::read_link(&link).is_ok_and(|id| id.as_os_str() == self.record.id.as_str());
        if names.is_ok() && is_ours {
            let _ = fs::remove_file(&link);
        }
        drop(run);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
