//! Volumes: `volumes/<name>/_data` and a small `volume.json` beside it.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::layout::Layout;
use crate::storage::{Error, LockMode, LockName, Store};
use crate::sys::atomic::Durability;
use crate::sys::{SysError, tree};

/// A directory that outlives containers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Volume {
    /// Its name; 64 hex digits for an anonymous one.
    pub name: String,
    /// RFC 3339.
    pub created: String,
    /// Made for one container, removed with it.
    pub anonymous: bool,
    /// Its directory.
    #[serde(skip)]
    pub data: PathBuf,
    /// Whether nothing was ever put into it by us: a first use fills it from the image.
    #[serde(skip)]
    pub new: bool,
}

const RECORD: &str = "volume.json";

impl Volume {
    fn read(layout: &Layout, name: &str) -> Result<Option<Self>, Error> {
        check_name(layout, name)?;
        let dir = layout.volume(name);
        let path = dir.join(RECORD);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SysError::path("read", path, error).into()),
        };
        let volume: Self =
            serde_json::from_slice(&bytes).map_err(|source| Error::Json { path: path.clone(), source })?;
        if volume.name != name {
            let what = format!("it is in the place of `{name}` and says `{}`", volume.name.escape_debug());
            return Err(Error::Damaged { path, what });
        }
        Ok(Some(Self { data: dir.join("_data"), ..volume }))
    }
}

impl Store {
    /// The volume of that name, made when it is not there.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn volume(&self, name: &str, anonymous: bool, now: &str) -> Result<Volume, Error> {
        if let Some(volume) = Volume::read(self.layout(), name)? {
            let new = is_empty(&volume.data)?;
            return Ok(Volume { new, ..volume });
        }
        let _names = self.lock(&LockName::Names, LockMode::Exclusive)?;
        let dir = self.layout().volume(name);
        let data = dir.join("_data");
        fs::create_dir_all(&data).map_err(|error| SysError::path("create", &data, error))?;
        let volume = Volume { name: name.into(), created: now.into(), anonymous, data, new: true };
        let path = dir.join(RECORD);
        let bytes =
            serde_json::to_vec(&volume).map_err(|source| Error::Json { path: path.clone(), source })?;
        self.replace_file(&path, &bytes, Durability::Fast)?;
        Ok(volume)
    }

    /// Every volume.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn volumes(&self) -> Result<Vec<Volume>, Error> {
        let dir = self.layout().volumes();
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(SysError::path("read", dir, error).into()),
        };
        let mut volumes = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|error| SysError::path("read", &dir, error))?;
            if let Some(name) = entry.file_name().to_str().filter(|name| super::is_name(name)) {
                volumes.extend(Volume::read(self.layout(), name)?);
            }
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Remove a volume and what is in it. One that is not there is no error.
    ///
    /// # Errors
    /// When it cannot be moved away.
    pub fn remove_volume(&self, name: &str) -> Result<(), Error> {
        remove(self.layout(), name)
    }
}

/// Without a store that is open for writing: a monitor removes the volumes of its own container only.
pub(super) fn remove(layout: &Layout, name: &str) -> Result<(), Error> {
    check_name(layout, name)?;
    let dir = layout.volume(name);
    let trash = layout.tmp().join(format!("removed-volume-{name}"));
    match fs::rename(&dir, &trash) {
        Ok(()) => {
            let _ = tree::remove_path(&trash);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(SysError::path("remove", dir, error).into()),
    }
}

/// Names come from the command line, where they are checked, and from the store's own records, which anybody may have
/// edited: no path is built from one that is more than a file name.
fn check_name(layout: &Layout, name: &str) -> Result<(), Error> {
    if super::is_name(name) {
        return Ok(());
    }
    Err(Error::Damaged {
        path: layout.volumes(),
        what: format!("`{}` is not a volume's name", name.escape_debug()),
    })
}

fn is_empty(dir: &PathBuf) -> Result<bool, Error> {
    let mut entries = fs::read_dir(dir).map_err(|error| SysError::path("read", dir, error))?;
    Ok(entries.next().is_none())
}
