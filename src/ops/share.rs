//! `system share`: other users may read the images of the store.

use crate::context::Context;
use crate::storage::{Error, Store};

/// Open the store to other users (`shared`), or close it again. It is made when it is not there.
///
/// # Errors
/// As [`Store::share`].
pub fn share(cx: &Context, shared: bool) -> Result<(), Error> {
    Store::share(&cx.root, cx.abilities(), super::store::opening(cx), shared)
}
