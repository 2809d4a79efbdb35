//! Names for completion: no lock, no network, nothing made, and no complaint when the store is not there.

use std::path::Path;

use crate::storage::{Status, Store};

/// Which containers a verb is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All of them.
    All,
    /// Those that run.
    Running,
    /// Those that could be started.
    Stopped,
}

/// The names of all images, as docker shows them.
#[must_use]
pub fn image_names(root: &Path) -> Vec<String> {
    let images = Store::open(root).and_then(|store| store.images()).unwrap_or_default();
    images.iter().filter_map(|image| image.name.as_ref()).map(crate::oci::Reference::familiar).collect()
}

/// The names of all indexes.
#[must_use]
pub fn index_names(root: &Path) -> Vec<String> {
    let images = Store::open(root).and_then(|store| store.images()).unwrap_or_default();
    let indexes = images.iter().filter(|image| image.is_index());
    indexes.filter_map(|image| image.name.as_ref()).map(crate::oci::Reference::familiar).collect()
}

/// The names of all volumes.
#[must_use]
pub fn volume_names(root: &Path) -> Vec<String> {
    Store::open(root).and_then(|store| store.volume_names()).unwrap_or_default()
}

/// The names of containers, with what they were made from.
#[must_use]
pub fn container_names(root: &Path, which: Which) -> Vec<(String, String)> {
    let containers = Store::open(root).and_then(|store| store.containers()).unwrap_or_default();
    containers
        .into_iter()
        .filter(|container| {
            which == Which::All
                || container.state().is_ok_and(|state| {
                    let runs = matches!(state.status, Status::Running | Status::Paused);
                    runs == (which == Which::Running)
                })
        })
        .map(|container| (container.record.name, container.record.image_name))
        .collect()
}
