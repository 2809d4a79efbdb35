//! Containers whose record cannot be read: they can only be removed.

use std::fs;
use std::path::PathBuf;

use super::{ContainerDir, ContainerRecord, Store, ids, is_id};
use crate::oci::{Digest, ImageId};
use crate::storage::Error;
use crate::storage::layout::Layout;

impl ContainerDir {
    /// A directory whose record says nothing: good for its lock, its state and its removal.
    pub(super) fn of_damaged(layout: &Layout, id: &str) -> Self {
        let unknown = Digest::sha256("");
        let links = fs::read_dir(layout.containers().join("by-name")).into_iter().flatten().flatten();
        let leads_here = |path: &PathBuf| fs::read_link(path).is_ok_and(|to| to.as_os_str() == id);
        let link = links.map(|link| link.path()).find(leads_here);
        let name = link.and_then(|link| Some(link.file_name()?.to_str()?.to_owned()));
        let record = ContainerRecord {
            id: id.to_owned(),
            name: name.unwrap_or_else(|| id.get(..12).unwrap_or(id).to_owned()),
            created: String::new(),
            image_name: String::new(),
            image: ImageId(unknown.clone()),
            manifest: unknown,
            layers: Vec::new(),
            volumes: Some(Vec::new()),
            stores: Vec::new(),
            spec: serde_json::value::RawValue::NULL.to_owned(),
        };
        Self { record, path: layout.container(id), layout: layout.clone() }
    }
}

impl Store {
    /// The ids of the containers whose record cannot be read.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn damaged_containers(&self) -> Result<Vec<String>, Error> {
        let mut ids = ids(self.layout())?;
        ids.retain(|id| ContainerDir::read(self.layout(), id).is_err());
        Ok(ids)
    }

    /// Whether the record of a container cannot be read: nobody knows what that one needs, while its program may run.
    pub(in crate::storage) fn has_damaged_container(&self) -> Result<bool, Error> {
        Ok(ids(self.layout())?.iter().any(|id| ContainerDir::read(self.layout(), id).is_err()))
    }

    /// Find a container to be removed, as [`Store::find_container`] does, also when its record is damaged: what comes
    /// back then knows its id, and its name when a link tells.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`] or [`Error::AmbiguousContainer`].
    pub fn find_container_to_remove(&self, text: &str) -> Result<ContainerDir, Error> {
        let error = match self.find_container(text) {
            Err(error @ Error::DamagedContainer { .. }) => error,
            other => return other,
        };
        let wanted = text.strip_prefix('/').unwrap_or(text);
        let damaged = self.damaged_containers()?;
        let by_name = fs::read_link(self.name_link(wanted)).ok();
        let by_name = by_name.and_then(|id| id.to_str().filter(|id| is_id(id)).map(str::to_owned));
        let id = by_name.or_else(|| damaged.into_iter().find(|id| id.starts_with(wanted)));
        id.map(|id| ContainerDir::of_damaged(self.layout(), &id)).ok_or(error)
    }
}
