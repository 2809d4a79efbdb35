//! Where an image goes to.

use std::io::Read;

use super::{BoxError, Reporter};
use crate::oci::{ChainId, Descriptor, DiffId, RawManifest, Reference};

/// One layer of an image being copied, with everything a sink may want to know about it.
#[derive(Debug, Clone)]
pub struct LayerPlan {
    /// The compressed blob.
    pub descriptor: Descriptor,
    /// What it is in its image's file system; `None` for a blob of an artifact, which is kept as it is.
    pub place: Option<LayerPlace>,
}

/// A layer's place in its image's file system.
#[derive(Debug, Clone)]
pub struct LayerPlace {
    /// The digest of the uncompressed tar, from the config.
    pub diff_id: DiffId,
    /// This layer on top of all below it.
    pub chain_id: ChainId,
    /// The layers below, lowest first.
    pub below: Vec<DiffId>,
}

/// What a sink already has of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerState {
    /// Everything: nothing to transfer.
    Complete,
    /// The blob lacks; `partial` bytes of it lie here from an earlier try.
    Missing {
        /// Bytes at the start of the blob that need not be sent again.
        partial: u64,
    },
}

/// A layer in hand, until it is dropped.
pub type Claim = Box<dyn std::any::Any + Send>;

/// A place that images can be written to: a registry, the store, an archive.
///
/// All methods may be called from several threads at once. `Ok` means "it is there now", not "this call put it there".
pub trait Sink: Send + Sync {
    /// What is already here of a layer.
    ///
    /// # Errors
    /// When the place cannot be asked.
    fn layer_state(&self, layer: &LayerPlan) -> Result<LayerState, BoxError>;

    /// Learn which layers a copy is about to bring, before the first of them moves: the place to see that they fit.
    ///
    /// # Errors
    /// When they cannot be taken in.
    fn expect_layers(&self, layers: &[&LayerPlan], report: &dyn Reporter) -> Result<(), BoxError> {
        let _ = (layers, report);
        Ok(())
    }

    /// Take a layer in hand before its source is asked for it: while the claim lives no other process brings the same
    /// blob here. Waits for one that does; [`Sink::layer_state`] then says what it left to do. `None`: the place has
    /// nothing of the kind.
    ///
    /// # Errors
    /// When the claim cannot be made.
    fn claim_layer(&self, layer: &LayerPlan, report: &dyn Reporter) -> Result<Option<Claim>, BoxError> {
        let _ = (layer, report);
        Ok(None)
    }

    /// Take in a layer from byte `offset` on (0, or what `layer_state` called partial). Verifies digest, size and diff
    /// id before anything becomes visible. Reports [`super::Event`]s under the layer's digest. The caller holds the
    /// layer's claim.
    ///
    /// # Errors
    /// When the bytes are not what the plan says, or cannot be kept.
    fn put_layer(
        &self,
        layer: &LayerPlan,
        offset: u64,
        data: &mut dyn Read,
        report: &dyn Reporter,
    ) -> Result<(), BoxError>;

    /// Whether a small blob (a config) is here.
    ///
    /// # Errors
    /// When the place cannot be asked.
    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, BoxError>;

    /// Take in a small blob (a config), verified against its descriptor.
    ///
    /// # Errors
    /// When the bytes are not what the descriptor says, or cannot be kept.
    fn put_blob(&self, descriptor: &Descriptor, data: &[u8]) -> Result<(), BoxError>;

    /// Take in a manifest or index, byte for byte. Everything it names must be here already.
    ///
    /// # Errors
    /// When it cannot be kept.
    fn put_manifest(&self, manifest: &RawManifest) -> Result<(), BoxError>;

    /// Move a name to a manifest or index that is here: the commit point, durable when it returns.
    ///
    /// # Errors
    /// When the name cannot be moved; the old state is then intact.
    fn set_name(&self, name: &Reference, target: &Descriptor) -> Result<(), BoxError>;

    /// The bytes of a manifest or config that is here already, so that it need not be fetched again; `None` when it is
    /// not here or cannot be read back. The caller verifies them.
    ///
    /// # Errors
    /// When the place cannot be read.
    fn small_blob(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, BoxError> {
        let _ = descriptor;
        Ok(None)
    }

    /// Whether a layer whose stream broke is taken up where it broke by the next [`Sink::put_layer`], at no cost. Where it
    /// is not, the stream is opened again while the sink waits for it.
    fn takes_up(&self) -> bool {
        false
    }

    /// Whether an error of this sink may pass, so that another try of the same layer makes sense.
    fn may_pass(&self, error: &BoxError) -> bool {
        let _ = error;
        false
    }
}
