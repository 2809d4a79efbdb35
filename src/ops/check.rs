//! `system check`: whether all that the store holds is as it should be.

use crate::context::Context;
use crate::storage::{CheckOptions, Error, Store};

pub use crate::storage::{CheckReport, Fault, Progress};

/// How to check.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// Leave out what takes long: the content of large blobs and of unpacked layers.
    pub quick: bool,
}

/// Look at everything. A store that is not there yet is sound.
///
/// # Errors
/// When the store cannot be looked at: its format is newer, or nobody says where it lies.
pub fn check(
    cx: &Context,
    request: &Request,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<CheckReport, Error> {
    let Some(store) = Store::open_to_check(&cx.root, cx.abilities(), super::store::opening(cx))? else {
        return Ok(CheckReport::default());
    };
    Ok(store.check(&CheckOptions { quick: request.quick, progress }))
}
