//! `wait`: until a container ends, or stands as wanted.

use std::time::Duration;

use super::container::{Error, health};
use crate::storage::{Error as StorageError, Status, Store};

/// How often a container is looked at that nothing tells us about.
const LOOK: Duration = Duration::from_millis(50);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It does not run.
    Stopped,
    /// It runs.
    Running,
    /// It is paused.
    Paused,
    /// It was made.
    Created,
    /// It is gone.
    Removed,
    /// Its check says that it is well.
    Healthy,
    /// Its check says that it is not.
    Unhealthy,
}

impl Condition {
    /// Read one of docker's or podman's words.
    ///
    /// # Errors
    /// [`Error::BadValue`]
    pub fn parse(text: &str) -> Result<Self, Error> {
        Ok(match text {
            "stopped" | "exited" | "not-running" | "next-exit" | "dead" => Self::Stopped,
            "running" => Self::Running,
            "paused" => Self::Paused,
            "created" | "configured" | "initialized" => Self::Created,
            "removed" | "removing" => Self::Removed,
            "healthy" => Self::Healthy,
            "unhealthy" => Self::Unhealthy,
            _ => {
                let why =
                    "there are running, stopped, exited, paused, created, removed, healthy and unhealthy";
                return Err(super::container::values::bad("--condition", text, why));
            }
        })
    }
}

/// Wait until a container does not run; its exit code, 0 for one that was never started.
///
/// # Errors
/// When it is unknown.
pub fn wait(store: &Store, text: &str) -> Result<i32, Error> {
    let dir = store.find_container(text)?;
    Ok(dir.wait_for_end()?.unwrap_or(0))
}

/// Wait until a container stands as one of `conditions` says; its exit code, -1 while it runs.
///
/// # Errors
/// When it is unknown, or is gone without having stood so.
pub fn wait_for(
    store: &Store,
    text: &str,
    conditions: &[Condition],
    pause: Option<Duration>,
) -> Result<i32, Error> {
    if conditions == [Condition::Stopped] {
        return wait(store, text);
    }
    let dir = store.find_container(text)?;
    loop {
        let state = match dir.state() {
            Ok(state) => state,
            Err(StorageError::NoSuchContainer(_)) if conditions.contains(&Condition::Removed) => {
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        };
        let is = |wanted: &str| {
            state.is_running() && health::read(&dir).is_some_and(|health| health.status == wanted)
        };
        let fits = conditions.iter().any(|condition| match condition {
            Condition::Stopped => matches!(state.status, Status::Exited | Status::Dead),
            Condition::Running => state.status == Status::Running,
            Condition::Paused => state.status == Status::Paused,
            Condition::Created => state.status == Status::Created,
            Condition::Removed => false,
            Condition::Healthy => is("healthy"),
            Condition::Unhealthy => is("unhealthy"),
        });
        if fits {
            return Ok(if state.is_running() { -1 } else { state.exit_code.unwrap_or(0) });
        }
        std::thread::sleep(pause.unwrap_or(LOOK));
    }
}
