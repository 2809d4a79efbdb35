//! `pause` and `unpause`: a container's processes stand still.

use std::path::{Path, PathBuf};

use super::container::{Error, cgroup, freezer, target::Target};
use crate::storage::{ContainerDir, Status, Store};

/// Hold a container's processes still until somebody lets them go.
///
/// # Errors
/// When it is unknown, does not run or is paused already, or the host has no freezer that may be used.
pub fn pause(store: &Store, text: &str) -> Result<(), Error> {
    let dir = store.find_container(text)?;
    if dir.state()?.status == Status::Paused {
        return Err(Error::Paused(dir.record.name.clone()));
    }
    let target = Target::of(&dir)?;
    let failed = |source| Error::Freeze { id: dir.short_id().into(), source };
    let own = own_freezer(&dir);
    let freezer = freezer::Freezer::new(&dir.record.id, own.as_deref()).map_err(failed)?;
    // Before anything stands still: whoever dies here leaves the way back.
    dir.mark_paused(&freezer.path().display().to_string())?;
    freezer.freeze(target.pid()).map_err(|source| {
        freezer.thaw();
        dir.forget_paused();
        failed(source)
    })?;
    dir.tell("pause", &[]);
    Ok(())
}

/// The freezer of the cgroup that the container's processes are in.
fn own_freezer(dir: &ContainerDir) -> Option<PathBuf> {
    cgroup::of(dir)?.cgroup.freezer().map(Path::to_owned)
}

/// Let a paused container go on.
///
/// # Errors
/// When it is unknown or not paused.
pub fn unpause(store: &Store, text: &str) -> Result<(), Error> {
    let dir = store.find_container(text)?;
    if dir.state()?.status != Status::Paused {
        return Err(Error::NotPaused(dir.record.name.clone()));
    }
    release(&dir)
}

/// Let a container go on that may be paused: a signal for it would wait for ever.
///
/// # Errors
/// When its freezer cannot be opened.
pub fn release(dir: &ContainerDir) -> Result<(), Error> {
    let Some(path) = dir.paused_by() else { return Ok(()) };
    let failed = |source| Error::Freeze { id: dir.short_id().into(), source };
    let own = own_freezer(dir);
    freezer::Freezer::at(&path, own.as_deref()).map_err(failed)?.release().map_err(failed)?;
    dir.forget_paused();
    dir.tell("unpause", &[]);
    Ok(())
}
