//! `rm`, `container prune` and `rename`.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::container::{Error, cgroup, names, target::Target};
use super::create::spec_of;
use super::{stop, when};
use crate::storage::{ContainerDir, RunLock, StopMark, Store};

/// How long a container that is just being started or ended by somebody else is waited for.
const BUSY: Duration = Duration::from_secs(10);

/// Remove a container by the name that the user typed.
///
/// # Errors
/// When it is unknown (with `force` that is no error), or runs and `force` is not set.
pub fn rm(store: &Store, text: &str, force: bool, volumes: bool) -> Result<bool, Error> {
    let found = if force { store.find_container_to_remove(text) } else { store.find_container(text) };
    match found {
        Ok(dir) => remove(store, &dir, force, volumes).map(|()| true),
        Err(crate::storage::Error::NoSuchContainer(_)) if force => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Remove a container; `volumes` takes its anonymous volumes along, as `--rm` always does.
///
/// # Errors
/// [`Error::RemoveRunning`], or when the store cannot be written.
pub fn remove(store: &Store, dir: &ContainerDir, force: bool, volumes: bool) -> Result<(), Error> {
    let Some(lock) = stopped(dir, force)? else { return Ok(()) };
    // One that ended while it was paused has left its cgroup; where that cannot be removed it is empty and harmless.
    let _ = super::pause::release(dir);
    cgroup::clear(dir);
    // One that should have removed itself takes its own volumes along.
    let volumes = volumes || dir.removes_itself();
    Ok(store.remove_container(dir, lock, volumes)?)
}

/// The lock of a container that does not run (any more); `None` when it removed itself meanwhile.
pub(super) fn stopped(dir: &ContainerDir, force: bool) -> Result<Option<RunLock>, Error> {
    let start = Instant::now();
    loop {
        match dir.try_lock() {
            Ok(Some(lock)) => return Ok(Some(lock)),
            Ok(None) => {}
            Err(crate::storage::Error::NoSuchContainer(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        match Target::of(dir) {
            Ok(target) if force => stop::kill_and_wait(dir, &target)?,
            Ok(_) => return Err(Error::RemoveRunning(dir.record.name.clone())),
            // Between two runs whoever watches over it is told not to start it again.
            Err(Error::NotRunning(_)) => match dir.state() {
                Ok(state) if state.is_running() && force => dir.mark_stop(StopMark::Stop)?,
                Ok(state) if state.is_running() => {
                    return Err(Error::RemoveRunning(dir.record.name.clone()));
                }
                _ => {}
            },
            Err(Error::Storage(crate::storage::Error::NoSuchContainer(_))) => return Ok(None),
            Err(error) => return Err(error),
        }
        if start.elapsed() > BUSY {
            return Err(Error::RemoveRunning(dir.record.name.clone()));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Which containers `container prune` takes, beyond that they do not run.
#[derive(Debug, Clone, Default)]
pub struct PruneFilter {
    until: Option<Timestamp>,
    labels: Vec<String>,
    without: Vec<String>,
}

impl PruneFilter {
    /// Take one `--filter`.
    ///
    /// # Errors
    /// [`Error::Filter`]
    pub fn add(&mut self, text: &str) -> Result<(), Error> {
        let unknown = || Error::Filter(text.into(), "there are until=, label= and label!=".into());
        let (key, value) = text.split_once('=').ok_or_else(unknown)?;
        match key {
            "until" => {
                let time = when::parse(value, Timestamp::now());
                self.until = Some(time.ok_or_else(|| Error::Filter(text.into(), "it is no time".into()))?);
            }
            "label" => self.labels.push(value.into()),
            "label!" => self.without.push(value.into()),
            _ => return Err(unknown()),
        }
        Ok(())
    }

    fn takes(&self, dir: &ContainerDir) -> bool {
        let created = dir.record.created.parse::<Timestamp>();
        let old = self.until.is_none_or(|until| created.is_ok_and(|created| created < until));
        let labels = spec_of(dir).map(|spec| spec.config.labels).unwrap_or_default();
        let has = |wanted: &String| match wanted.split_once('=') {
            Some((key, value)) => labels.get(key).is_some_and(|have| have == value),
            None => labels.contains_key(wanted),
        };
        old && self.labels.iter().all(has) && !self.without.iter().any(has)
    }
}

/// What `container prune` did.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    /// Ids.
    pub removed: Vec<String>,
    /// Bytes on disk of all that was the containers' own.
    pub bytes: u64,
}

/// Remove the containers that do not run; with `dry_run` only say which.
///
/// # Errors
/// When the store cannot be read or written.
pub fn prune(store: &Store, filter: &PruneFilter, dry_run: bool) -> Result<Pruned, Error> {
    let mut pruned = Pruned::default();
    for dir in store.containers()? {
        if !filter.takes(&dir) {
            continue;
        }
        // Whoever holds the lock works with the container: it is in use.
        let lock = match dir.try_lock() {
            Ok(Some(lock)) => lock,
            Ok(None) | Err(crate::storage::Error::NoSuchContainer(_)) => continue,
            Err(error) => return Err(error.into()),
        };
        pruned.bytes += match dry_run {
            true => dir.size(),
            false => store.remove_container_now(&dir, lock, dir.removes_itself())?,
        };
        pruned.removed.push(dir.record.id.clone());
    }
    if !dry_run {
        store.sweep_ended();
        cgroup::sweep(store);
        store.sweep_containers()?;
    }
    Ok(pruned)
}

/// Give a container another name.
///
/// # Errors
/// When it is unknown, or the name is bad or taken.
pub fn rename(store: &Store, text: &str, name: &str) -> Result<(), Error> {
    let name = names::check(name)?;
    let mut dir = store.find_container(text)?;
    let old = format!("/{}", dir.record.name);
    store.rename_container(&mut dir, name)?;
    dir.tell("rename", &[("oldName", old)]);
    Ok(())
}
