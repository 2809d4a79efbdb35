//! What happens during a transfer, told to whoever draws it.

use crate::oci::Digest;

/// One thing that happened. Layers are named by the digest of their blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The layers that a transfer will look at, in order, with their sizes in bytes.
    Layers(Vec<(Digest, u64)>),
    /// The layer is already there.
    Exists(Digest),
    /// The layer waits for its turn.
    Waiting(Digest),
    /// So many bytes of the layer have moved, in all.
    Moved {
        /// The layer.
        digest: Digest,
        /// Bytes so far.
        bytes: u64,
    },
    /// All bytes moved and verified; what remains is to unpack them.
    Moved100(Digest),
    /// So many bytes of the layer's blob have been unpacked, in all.
    Unpacked {
        /// The layer.
        digest: Digest,
        /// Bytes of the blob so far.
        bytes: u64,
    },
    /// The layer is there, complete.
    Done(Digest),
    /// A push made the registry reuse the layer of another repository.
    Mounted {
        /// The layer.
        digest: Digest,
        /// The other repository.
        from: String,
    },
    /// Another try after a failure that may pass.
    Retry {
        /// The layer.
        digest: Digest,
        /// Why the last try ended.
        why: String,
    },
    /// Something the user should know, once.
    Note(String),
}

/// Takes events. Must be quick: it is called from the threads that move bytes.
pub trait Reporter: Send + Sync {
    /// Take one event.
    fn event(&self, event: Event);
}

/// A reporter that drops everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Reporter for Silent {
    fn event(&self, _event: Event) {}
}
