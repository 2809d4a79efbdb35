//! `system reset`: the store and everything in it goes.

use super::{rm, store};
use crate::context::Context;
pub use crate::storage::Error;
use crate::storage::{ResetPlan, plan_reset, reset as remove};

/// What would be lost.
#[derive(Debug, Clone, Default)]
pub struct Loss {
    /// Where, and how much.
    pub plan: ResetPlan,
    /// Images, as the list of names has them.
    pub images: usize,
    /// Containers.
    pub containers: usize,
    /// Names of those that run.
    pub running: Vec<String>,
    /// Volumes.
    pub volumes: usize,
}

/// Look what a reset would remove. `None` when there is no store. What cannot be read is not counted, and goes all the same.
///
/// # Errors
/// When the directory may not be removed.
pub fn look(cx: &Context) -> Result<Option<Loss>, Error> {
    let Some(plan) = plan_reset(&cx.root, cx.home.as_deref())? else { return Ok(None) };
    let store = store::read(cx)?;
    let containers = store.every_container()?;
    Ok(Some(Loss {
        plan,
        images: store.images().map_or(0, |images| images.len()),
        running: containers.iter().filter(|dir| dir.is_in_use()).map(|dir| dir.record.name.clone()).collect(),
        containers: containers.len(),
        volumes: store.volumes().map_or(0, |volumes| volumes.len()),
    }))
}

/// Remove it. With `force` containers that run are killed first, and without it one that runs keeps the store: it may have
/// been started since somebody looked.
///
/// # Errors
/// When the directory may not be removed, a container runs or cannot be stopped, or others work on the store without end.
pub fn reset(cx: &Context, force: bool) -> Result<(), super::container::Error> {
    if plan_reset(&cx.root, cx.home.as_deref())?.is_none() {
        return Ok(());
    }
    // For reading: a store that cannot be opened for more has containers that run all the same.
    for dir in store::read(cx)?.every_container()? {
        drop(rm::stopped(&dir, force)?);
    }
    Ok(remove(&cx.root, cx.home.as_deref())?)
}
