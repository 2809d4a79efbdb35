//! Opening the store as a verb needs it.

use crate::context::Context;
use crate::storage::{Error, Method, Notice};

/// What verbs hold and show of it.
pub use crate::storage::{ContainerState, Status, Store};

/// Open the store for a verb that only looks.
///
/// # Errors
/// As [`Store::open`].
pub fn read(cx: &Context) -> Result<Store, Error> {
    Ok(Store::open(&cx.root)?.with_layering(layering(cx)))
}

/// Open the store for a verb that changes it. Waits for locks and fallbacks are told through `notice`.
///
/// # Errors
/// As [`Store::open_writable`].
pub fn write(cx: &Context, notice: impl Fn(&str) + Send + Sync + 'static) -> Result<Store, Error> {
    let store = Store::open_writable_with(&cx.root, cx.abilities(), Notice::new(notice))?;
    Ok(store.with_layering(layering(cx)))
}

/// `STRATE_LAYERING` or `--layering`; a value that names no method was refused on the command line, and from the
/// environment means "find out".
#[must_use]
pub fn layering(cx: &Context) -> Option<Method> {
    cx.var("STRATE_LAYERING").and_then(|text| text.parse().ok())
}
