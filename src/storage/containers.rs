//! Containers on disk: `containers/<id>/` with `config.json`, `state.json`, `upper`, `work` and `log`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Error, Store};
use crate::oci::{Descriptor, DiffId, Digest, ImageId};

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
    /// How to run it: `ops`' own document, opaque to the store.
    pub spec: serde_json::Value,
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never started.
    Created,
    /// Its program runs.
    Running,
    /// Its program runs and is frozen.
    Paused,
    /// Its program has ended.
    Exited,
    /// Its program ran in an earlier boot or lost its monitor.
    Dead,
}

/// What changes of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerState {
    /// As last written; ask [`ContainerDir::state`], which looks whether a running one still is.
    pub status: Status,
    /// Host process id of the program, while it runs.
    pub pid: Option<i32>,
    /// The program's start time in clock ticks since boot (`/proc/PID/stat` field 22), against reused process ids.
    pub pid_start: Option<u64>,
    /// The boot it was started in.
    pub boot_id: Option<String>,
    /// How it ended.
    pub exit_code: Option<i32>,
    /// RFC 3339.
    pub started_at: Option<String>,
    /// RFC 3339.
    pub finished_at: Option<String>,
    /// Why it could not be started.
    pub error: Option<String>,
}

/// A container's directory.
#[derive(Debug)]
pub struct ContainerDir {
    /// The record.
    pub record: ContainerRecord,
    /// The directory.
    pub path: PathBuf,
}

impl ContainerDir {
    /// The state now: what was written, corrected by a look at the process and the boot id.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn state(&self) -> Result<ContainerState, Error> {
        todo!()
    }
}

impl Store {
    /// All containers, newest first. One that is half made or half removed is left out.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn containers(&self) -> Result<Vec<ContainerDir>, Error> {
        todo!()
    }

    /// Find a container as a user names it: a name wins over an id prefix; a leading `/` is ignored.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`] or [`Error::AmbiguousContainer`].
    pub fn find_container(&self, text: &str) -> Result<ContainerDir, Error> {
        let _ = text;
        todo!()
    }
}
