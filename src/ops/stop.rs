//! `stop` and `kill`: signals to running containers.

use std::time::Duration;

use super::container::{Error, target::Target};
use super::create::spec_of;
use crate::runtime::signal;
use crate::storage::{ContainerDir, Store};

/// Seconds between the stop signal and the kill, when neither flag nor image says otherwise.
const PATIENCE: i64 = 10;

/// Seconds that a killed program may take to be gone.
const KILL_PATIENCE: u64 = 10;

/// Stop a container: its stop signal, some patience, then a kill. One that does not run is no error.
///
/// # Errors
/// When it is unknown, the signal is, or it survives even the kill.
pub fn stop(store: &Store, text: &str, timeout: Option<i64>, by: Option<&str>) -> Result<(), Error> {
    let dir = store.find_container(text)?;
    let target = match Target::of(&dir) {
        Ok(target) => target,
        Err(Error::NotRunning(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let spec = spec_of(&dir)?;
    let by = by.or(spec.config.stop_signal.as_deref()).unwrap_or("SIGTERM");
    let patience = timeout.or(spec.config.stop_timeout).unwrap_or(PATIENCE);
    ignore_gone(target.signal(signal::number(by)?))?;
    // A negative patience is endless.
    let patience = u64::try_from(patience).ok().map(Duration::from_secs);
    if target.wait(patience)? {
        return settled(&dir);
    }
    kill_and_wait(&dir, &target)
}

/// Kill a running container and wait until it is over.
///
/// # Errors
/// [`Error::Unkillable`]
pub fn kill_and_wait(dir: &ContainerDir, target: &Target) -> Result<(), Error> {
    ignore_gone(target.signal(libc::SIGKILL))?;
    if !target.wait(Some(Duration::from_secs(KILL_PATIENCE)))? {
        return Err(Error::Unkillable(dir.record.name.clone(), KILL_PATIENCE));
    }
    settled(dir)
}

/// Wait until whoever watches over the program has written how it ended.
fn settled(dir: &ContainerDir) -> Result<(), Error> {
    match dir.wait_for_end() {
        Ok(_) | Err(crate::storage::Error::NoSuchContainer(_)) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn ignore_gone(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::Runtime(crate::runtime::Error::NotRunning)) => Ok(()),
        other => other,
    }
}

/// Send a signal to a running container.
///
/// # Errors
/// When it is unknown or does not run, or the signal is unknown.
pub fn kill(store: &Store, text: &str, by: &str) -> Result<(), Error> {
    let number = signal::number(by)?;
    let dir = store.find_container(text)?;
    let target = Target::of(&dir)?;
    target.signal(number).map_err(|error| match error {
        Error::Runtime(crate::runtime::Error::NotRunning) => Error::NotRunning(dir.record.name.clone()),
        other => other,
    })?;
    if number == libc::SIGKILL { settled(&dir) } else { Ok(()) }
}
