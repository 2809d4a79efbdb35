//! `restart`: a container is stopped and started again.

use super::start::{self, Outcome};
use super::stop;
use crate::context::Context;
use crate::ops::container::Error;
use crate::storage::{StopMark, Store};

/// Stop a container, if it runs, and start it in the background. One with auto-remove stays over it.
///
/// # Errors
/// As [`stop::stop`] and [`start::again`].
pub fn restart(
    cx: &Context,
    store: Store,
    text: &str,
    timeout: Option<i64>,
    by: Option<&str>,
) -> Result<Outcome, Error> {
    let dir = store.find_container(text)?;
    stop::end(&dir, timeout, by, StopMark::Restart)?;
    let outcome = start::again(cx, store, &dir.record.id, None)?;
    dir.tell("restart", &[]);
    Ok(outcome)
}
