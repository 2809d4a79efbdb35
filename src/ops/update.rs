//! `update`: other limits and another restart policy for a container, whether it runs or not.

use super::container::{ContainerSpec, Error, RestartPolicy, cgroup, limits, target::Target};
use super::create::spec_of;
use crate::runtime::cgroup::Limits;
use crate::storage::Store;

/// What changes.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// What is set counts; the rest stays.
    pub limits: Limits,
    /// Another restart policy.
    pub restart: Option<RestartPolicy>,
}

/// Change a container. What cannot be put in force for one that runs is not recorded either. Gives a remark where a change
/// waits for the next start.
///
/// # Errors
/// When it is unknown, a value does not fit the others, or a limit cannot be had.
pub fn update(store: &Store, text: &str, request: &Request) -> Result<Option<String>, Error> {
    store.writable()?;
    let mut dir = store.find_container(text)?;
    let mut spec = spec_of(&dir)?;
    apply(&mut spec, request)?;
    let state = dir.state()?;
    if !request.limits.is_empty()
        && let Ok(target) = Target::of(&dir)
    {
        cgroup::change(&dir, &spec.host.cgroup_parent, target.pid(), &in_force(&spec.host.limits, request))?;
    }
    let id = dir.short_id().to_owned();
    store.change_container_spec(&mut dir, |old| {
        // Read anew: somebody else may have changed something else meanwhile.
        let failed = |source| Error::Spec { id: id.clone(), source };
        let mut spec: ContainerSpec = serde_json::from_str(old.get()).map_err(failed)?;
        apply(&mut spec, request)?;
        serde_json::value::to_raw_value(&spec).map_err(failed)
    })?;
    dir.tell("update", &[]);
    let waits = request.restart.is_some() && state.is_running() && state.watcher.is_none();
    let name = &dir.record.name;
    Ok(waits.then(|| format!("container {name} has the new restart policy from its next start on")))
}

fn apply(spec: &mut ContainerSpec, request: &Request) -> Result<(), Error> {
    spec.host.limits.update(&request.limits);
    limits::check(&spec.host.limits)?;
    if let Some(restart) = request.restart {
        if spec.host.auto_remove && restart != RestartPolicy::No {
            return Err(Error::Conflict("--restart", "--rm"));
        }
        spec.host.restart = restart;
    }
    Ok(())
}

/// What is to be written: what was asked for, and what shares a file with it.
fn in_force(all: &Limits, request: &Request) -> Limits {
    let mut some = request.limits.clone();
    if some.memory.is_some() || some.memory_swap.is_some() {
        (some.memory, some.memory_swap) = (all.memory, all.memory_swap);
    }
    if some.cpu_period.is_some() || some.cpu_quota.is_some() {
        (some.cpu_period, some.cpu_quota) = (all.cpu_period, all.cpu_quota);
    }
    some
}
