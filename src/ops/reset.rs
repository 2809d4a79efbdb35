//! `system reset`: the store and everything in it goes.

use super::{rm, store};
use crate::context::Context;
pub use crate::storage::Error;
use crate::storage::{ResetPlan, Store, plan_reset, reset as remove};

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
    let containers = store.containers().unwrap_or_default();
    let runs = |dir: &crate::storage::ContainerDir| dir.state().is_ok_and(|state| state.is_running());
    Ok(Some(Loss {
        plan,
        images: store.images().map_or(0, |images| images.len()),
        running: containers.iter().filter(|dir| runs(dir)).map(|dir| dir.record.name.clone()).collect(),
        containers: containers.len(),
        volumes: store.volumes().map_or(0, |volumes| volumes.len()),
    }))
}

/// Remove it. Containers that run are killed first.
///
/// # Errors
/// When the directory may not be removed, a container cannot be stopped, or others work on the store without end.
pub fn reset(cx: &Context) -> Result<(), super::container::Error> {
    if let Ok(store) = Store::open_writable(&cx.root, cx.abilities()) {
        for dir in store.containers().unwrap_or_default() {
            rm::remove(&store, &dir, true, false)?;
        }
    }
    Ok(remove(&cx.root, cx.home.as_deref())?)
}
