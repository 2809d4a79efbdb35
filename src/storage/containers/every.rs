//! Every container that has a directory, whatever its record says: for who must not overlook one.

use std::fs;

use super::{ContainerDir, Store, is_id};
use crate::storage::{Error, layout::Layout};

impl ContainerDir {
    /// All of them, in no order. Where a link lies in the place of the directory there are none of this store.
    pub(in crate::storage) fn every(layout: &Layout) -> Result<Vec<Self>, Error> {
        let paths = match layout.entries(&layout.containers()) {
            Err(Error::Damaged { .. }) => Vec::new(),
            other => other?,
        };
        let mut all = Vec::new();
        for path in paths {
            let id = path.file_name().and_then(|name| name.to_str()).filter(|id| is_id(id));
            let is_dir = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
            let Some(id) = id.filter(|_| is_dir) else { continue };
            all.push(match Self::read(layout, id) {
                Ok(Some(found)) => found,
                _ => Self::of_damaged(layout, id),
            });
        }
        Ok(all)
    }

    /// Whether its record cannot be read.
    pub(in crate::storage) fn is_damaged(&self) -> bool {
        !matches!(Self::read(&self.layout, &self.record.id), Ok(Some(_)))
    }

    /// Whether a program of it runs, or somebody holds its lock for one; also where no record tells.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.state().is_ok_and(|state| state.is_running()) || matches!(self.try_lock(), Ok(None))
    }
}

impl Store {
    /// Every container that has a directory, also those whose record is damaged or gone.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn every_container(&self) -> Result<Vec<ContainerDir>, Error> {
        ContainerDir::every(self.layout())
    }
}
