//! Opening the store as a verb needs it.

use crate::context::Context;
use crate::storage::{Method, Notice, Opening};
use crate::sys::atomic::set_sync_mode;

/// What verbs hold and show of it.
pub use crate::storage::{ContainerState, Error, Status, Store};

/// Open the store for a verb that only looks.
///
/// # Errors
/// As [`Store::open`].
pub fn read(cx: &Context) -> Result<Store, Error> {
    Store::open_as(&cx.root, opening(cx))
}

/// [`read`], with remarks told through `notice`: what is damaged and left out.
///
/// # Errors
/// As [`Store::open`].
pub fn read_aloud(cx: &Context, notice: impl Fn(&str) + Send + Sync + 'static) -> Result<Store, Error> {
    Ok(read(cx)?.with_notice(Notice::new(notice)))
}

/// Open the store for a verb that reads images for long, and keeps them meanwhile ([`Store::hold`]).
///
/// # Errors
/// As [`Store::open_holding`].
pub fn hold(cx: &Context) -> Result<Store, Error> {
    Store::open_holding(&cx.root, cx.abilities(), opening(cx))
}

/// Open the store for a verb that changes it. Waits for locks and fallbacks are told through `notice`.
///
/// # Errors
/// As [`Store::open_writable_as`].
pub fn write(cx: &Context, notice: impl Fn(&str) + Send + Sync + 'static) -> Result<Store, Error> {
    let how = Opening { notice: Notice::new(notice), ..opening(cx) };
    Store::open_writable_as(&cx.root, cx.abilities(), how)
}

/// [`write`] for a verb that has no better place for notices than the terminal.
///
/// # Errors
/// As [`Store::open_writable_as`].
pub fn write_plainly(cx: &Context) -> Result<Store, Error> {
    Store::open_writable_as(&cx.root, cx.abilities(), opening(cx))
}

/// What the context says about the store.
#[must_use]
pub fn opening(cx: &Context) -> Opening {
    let unsafe_allowed = cx.var("STRATE_UNSAFE_STORE").is_some_and(|value| value == "1");
    let additional = super::image_stores::additional(cx);
    Opening { notice: cx.notice.clone(), layering: layering(cx), additional, unsafe_allowed }
}

/// Sync as `STRATE_SYNC` or `--sync` says. A value that names no mode comes back, and the safe one stays.
#[must_use]
pub fn choose_sync_mode(cx: &Context) -> Option<&str> {
    let text = cx.var("STRATE_SYNC")?;
    match text.parse() {
        Ok(mode) => {
            set_sync_mode(mode);
            None
        }
        Err(()) => Some(text),
    }
}

/// `STRATE_LAYERING` or `--layering`; a value that names no method was refused on the command line, and from the
/// environment means "find out".
#[must_use]
pub fn layering(cx: &Context) -> Option<Method> {
    cx.var("STRATE_LAYERING").and_then(|text| text.parse().ok())
}
