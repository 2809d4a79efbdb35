//! Removing names and collecting what is unreachable from names, containers and fresh build records.

use super::{Error, Store};

/// What removing did, in docker's order: names first, then content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(String),
    /// An image or layer is gone: `sha256:…`.
    Deleted(String),
}

/// What a collection freed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// What went, in order.
    pub removed: Vec<Removed>,
    /// Bytes freed on disk.
    pub bytes: u64,
}

/// Which images `image prune` takes.
#[derive(Debug, Clone, Default)]
pub struct PruneImages {
    /// Named images that no container uses too, not only untagged ones.
    pub all: bool,
    /// Only images created before this time (Unix seconds).
    pub until: Option<i64>,
    /// Only images with all of these labels (`key` or `key=value`).
    pub labels: Vec<String>,
}

impl Store {
    /// Remove an image by the name or id that the user typed, as `docker rmi` does.
    ///
    /// # Errors
    /// When it is unknown, used by a container, or has several names and `force` is not set.
    pub fn remove_image(&self, text: &str, force: bool) -> Result<Vec<Removed>, Error> {
        let _ = (text, force);
        todo!()
    }

    /// Remove unused images and collect the garbage.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn prune_images(&self, what: &PruneImages) -> Result<Collected, Error> {
        let _ = what;
        todo!()
    }
}
