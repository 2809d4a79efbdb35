//! `stop` and `kill`: signals to running containers.

use std::time::Duration;

use super::container::{Error, RestartPolicy, target::Target};
use super::create::spec_of;
use super::pause;
use crate::runtime::signal;
use crate::storage::{ContainerDir, StopMark, Store};

/// Seconds between the stop signal and the kill, when neither flag nor image says otherwise.
const PATIENCE: i64 = 10;

/// Seconds that a killed program may take to be gone.
const KILL_PATIENCE: u64 = 10;

/// Stop a container: its stop signal, some patience, then a kill. One that does not run is no error, one that was about to
/// be started again is not.
///
/// # Errors
/// When it is unknown, the signal is, or it survives even the kill.
pub fn stop(store: &Store, text: &str, timeout: Option<i64>, by: Option<&str>) -> Result<(), Error> {
    let dir = store.find_container(text)?;
    end(&dir, timeout, by, StopMark::Stop)
}

/// The same for a container that was found already, with the reason.
///
/// # Errors
/// As [`stop`].
pub(super) fn end(
    dir: &ContainerDir,
    timeout: Option<i64>,
    by: Option<&str>,
    why: StopMark,
) -> Result<(), Error> {
    let spec = spec_of(dir)?;
    let by = by.or(spec.config.stop_signal.as_deref()).unwrap_or("SIGTERM");
    let number = signal::number(by)?;
    let Some(target) = marked(dir, why)? else { return Ok(()) };
    let patience = timeout.or(spec.config.stop_timeout).unwrap_or(PATIENCE);
    ignore_gone(target.signal(number))?;
    pause::release(dir)?;
    // A negative patience is endless.
    let patience = u64::try_from(patience).ok().map(Duration::from_secs);
    dir.tell("kill", &[("signal", number.to_string())]);
    if target.wait(patience)? {
        settled(dir)?;
    } else {
        kill_and_wait(dir, &target)?;
    }
    dir.tell("stop", &[]);
    Ok(())
}

/// Mark that a container shall end; its program, if it runs. One between two runs has ended when this returns.
fn marked(dir: &ContainerDir, why: StopMark) -> Result<Option<Target>, Error> {
    match dir.state() {
        Ok(state) if state.is_running() => {}
        // One that is removed at its end was there a moment ago.
        Ok(_) | Err(crate::storage::Error::NoSuchContainer(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    dir.mark_stop(why)?;
    match Target::of(dir) {
        Err(Error::Storage(crate::storage::Error::NoSuchContainer(_))) => Ok(None),
        Ok(target) => Ok(Some(target)),
        Err(Error::NotRunning(_)) if dir.state().is_ok_and(|state| state.is_running()) => {
            settled(dir)?;
            Ok(None)
        }
        Err(Error::NotRunning(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Kill a running container and wait until it is over.
///
/// # Errors
/// [`Error::Unkillable`]
pub fn kill_and_wait(dir: &ContainerDir, target: &Target) -> Result<(), Error> {
    dir.mark_stop(dir.stop_mark().unwrap_or(StopMark::Stop))?;
    ignore_gone(target.signal(libc::SIGKILL))?;
    pause::release(dir)?;
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
    // As in docker: a signal that stops, or any where nothing says which one does, ends the restarts too.
    let spec = spec_of(&dir)?;
    let stops = |signal: &str| signal::number(signal).is_ok_and(|stops| stops == number);
    let ends = number == libc::SIGKILL || spec.config.stop_signal.as_deref().is_none_or(stops);
    if ends && spec.host.restart != RestartPolicy::No {
        dir.mark_stop(StopMark::Stop)?;
    }
    target.signal(number).map_err(|error| match error {
        Error::Runtime(crate::runtime::Error::NotRunning) => Error::NotRunning(dir.record.name.clone()),
        other => other,
    })?;
    dir.tell("kill", &[("signal", number.to_string())]);
    if number == libc::SIGKILL {
        pause::release(&dir)?;
        return settled(&dir);
    }
    Ok(())
}
