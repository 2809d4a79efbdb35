//! Floor 1: a layer's tar stream and the tree it changes.
//!
//! On disk a layer is a *snapshot*: its own entries only, deletions as overlay whiteouts (character device 0:0, or an
//! empty file with the attribute `user.overlay.whiteout` where devices cannot be made) and `user.overlay.opaque=y`.
//! Owners, modes and devices that the present id map cannot put on disk are kept in an [`OwnerTable`] beside it.

mod apply;
mod complete;
mod compress;
mod diff;
mod error;
mod names;
mod owners;
pub mod tar;
#[cfg(test)]
mod testing;
mod verify;
mod whiteout;

pub use apply::{Applied, ApplyOptions, apply, apply_plain};
pub use complete::{Lower, complete};
pub use compress::{Compression, GzipWriter, LayerWriter, decompressor, gzip_writer, levels};
pub use diff::{DiffOptions, DiffStats, write_changes, write_name, write_tree, write_upper};
pub use error::Error;
pub use owners::{Owner, OwnerTable};
pub use verify::{HashingReader, HashingWriter, VerifiedReader};
pub use whiteout::{Marked, hides_all_below, is_whiteout, marked};
