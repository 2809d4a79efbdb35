//! Snapshots: one unpacked layer each, disposable, rebuilt from blobs when missing or damaged.

use std::path::PathBuf;

use super::{Error, Image, Store};
use crate::image::Reporter;
use crate::layer::OwnerTable;
use crate::oci::{Descriptor, DiffId};

/// One unpacked layer.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The directory with the layer's entries.
    pub fs: PathBuf,
    /// What the disk cannot hold; empty with the full id map and an image within it.
    pub owners: std::sync::Arc<OwnerTable>,
    /// Bytes of file content.
    pub size: u64,
}

/// The unpacked layers of an image, lowest first; a collector leaves them alone while this lives.
#[derive(Debug, Clone, Default)]
pub struct Stack {
    /// Lowest first.
    pub layers: Vec<Snapshot>,
    /// Their diff ids.
    pub diff_ids: Vec<DiffId>,
}

impl Store {
    /// The unpacked layers of an image. What lacks is unpacked from its blob, once even when several processes ask.
    ///
    /// # Errors
    /// When a blob is missing or corrupt, or unpacking is not possible here.
    pub fn stack(&self, image: &Image, report: &dyn Reporter) -> Result<Stack, Error> {
        let _ = (image, report);
        todo!()
    }

    /// The unpacked layers of a list of layers that need not belong to a named image (build steps).
    ///
    /// # Errors
    /// As [`Store::stack`].
    pub fn stack_of(&self, layers: &[(Descriptor, DiffId)], report: &dyn Reporter) -> Result<Stack, Error> {
        let _ = (layers, report);
        todo!()
    }
}
