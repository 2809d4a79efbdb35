//! The tail that a build step and `commit` share: changes become a layer.

use std::path::Path;

use super::{Error, Mounted, Stack, Store};
use crate::image::NewLayer;

/// How changes become a layer.
#[derive(Clone, Copy)]
pub struct CommitOptions<'a> {
    /// Paths (relative) to leave out: mount stubs.
    pub skip: &'a dyn Fn(&Path) -> bool,
    /// Whether the changes directory may be taken over as the new layer's snapshot (a build step's scratch), or must
    /// stay as it is (a container's).
    pub take: bool,
}

impl std::fmt::Debug for CommitOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CommitOptions {{ take: {} }}", self.take)
    }
}

impl Store {
    /// Write the changes of `mounted` over `stack` as a layer: tar, diff id, gzip blob, and (when taken over) snapshot.
    ///
    /// # Errors
    /// When the tree cannot be read or the layer not be written.
    pub fn commit_layer(
        &self,
        stack: &Stack,
        mounted: Mounted,
        options: &CommitOptions<'_>,
    ) -> Result<NewLayer, Error> {
        let _ = (stack, mounted, options);
        todo!()
    }
}
