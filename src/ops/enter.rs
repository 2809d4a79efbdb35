//! Take a rung of the ladder of user namespaces, once, before any thread exists.

use crate::context::Context;
use crate::userns::{self, Rung};

/// Why no rung was taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `--userns-mode` or `STRATE_USERNS_MODE` names no rung.
    #[error("unknown user namespace mode `{0}`: it is root, full, single or none")]
    UnknownRung(String),
    /// The rung that was asked for does not work here.
    #[error("cannot enter a user namespace")]
    Enter(#[source] userns::Error),
}

/// Take the first rung that works, or the pinned one, and note it in the context.
///
/// # Errors
/// See [`Error`]; without a pinned rung only when a system call fails half way.
pub fn enter(cx: &mut Context) -> Result<(), Error> {
    if cx.entered.is_none() {
        let entered = userns::enter(&request(cx)?).map_err(Error::Enter)?;
        cx.entered = Some(entered);
    }
    Ok(())
}

/// What is asked of the ladder, from the context.
///
/// # Errors
/// [`Error::UnknownRung`].
pub fn request(cx: &Context) -> Result<userns::Request, Error> {
    let pinned = match cx.var("STRATE_USERNS_MODE") {
        None | Some("auto") => None,
        Some("root") => Some(Rung::Root),
        Some("full") => Some(Rung::Full),
        Some("single") => Some(Rung::Single),
        Some("none") => Some(Rung::None),
        Some(other) => return Err(Error::UnknownRung(other.to_owned())),
    };
    Ok(userns::Request { user: None, pinned, path: cx.path() })
}

/// What the user should know about the rung that was taken: one line, or nothing on the full ones.
#[must_use]
pub fn notice(cx: &Context) -> Option<String> {
    let entered = cx.entered.as_ref()?;
    let pinned = cx.var("STRATE_USERNS_MODE").is_some_and(|mode| mode != "auto");
    if entered.rung != Rung::Single || pinned {
        return None;
    }
    let why = entered.refused.iter().rfind(|(rung, _)| *rung == Rung::Full).map(|(_, why)| why.as_str());
    Some(format!(
        "notice: only one user id can be used here{}: files that should belong to others belong to you, and chown \
         fails in containers; `strate doctor` shows the fix",
        why.map(|why| format!(" ({why})")).unwrap_or_default()
    ))
}
