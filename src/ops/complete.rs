//! Names for completion: no lock, no network, nothing made, and no complaint when the store is not there.

use super::store;
use crate::context::Context;
use crate::storage::Status;

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
pub fn image_names(cx: &Context) -> Vec<String> {
    let names = store::read(cx).and_then(|store| store.image_names()).unwrap_or_default();
    names.into_iter().map(|(name, _)| name).collect()
}

/// The names of all indexes.
#[must_use]
pub fn index_names(cx: &Context) -> Vec<String> {
    let names = store::read(cx).and_then(|store| store.image_names()).unwrap_or_default();
    names.into_iter().filter(|(_, is_index)| *is_index).map(|(name, _)| name).collect()
}

/// The names of all volumes.
#[must_use]
pub fn volume_names(cx: &Context) -> Vec<String> {
    store::read(cx).and_then(|store| store.volume_names()).unwrap_or_default()
}

/// The names of containers, with what they were made from.
#[must_use]
pub fn container_names(cx: &Context, which: Which) -> Vec<(String, String)> {
    let containers = store::read(cx).and_then(|store| store.containers()).unwrap_or_default();
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
