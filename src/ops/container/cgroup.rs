//! The cgroup of a container: made before its program starts, written down before it is made, and gone after its end,
//! whoever sees that.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ContainerSpec, Error, HostOptions, RestartPolicy, processes};
use crate::runtime::Plan;
use crate::runtime::cgroup::{Cgroup, Limits, Missed};
use crate::storage::{ContainerDir, Store};

/// What is written down of a container's cgroup while its program runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Record {
    /// The cgroup.
    pub cgroup: Cgroup,
    /// Flags whose limits are not in force.
    #[serde(default)]
    pub without_effect: BTreeSet<String>,
}

/// Make the cgroup that a container's program is to start in, where it is to have one, with its limits, and tell the plan. A
/// program in the foreground has one only where something is limited: it would be made for nobody to look at.
///
/// # Errors
/// [`Error::StrictLimits`], or when the record cannot be written.
pub fn set_up(store: &Store, dir: &ContainerDir, spec: &ContainerSpec, plan: &mut Plan) -> Result<(), Error> {
    clear(dir);
    let host = &spec.host;
    let (limits, parent) = (&host.limits, host.cgroup_parent.as_str());
    let wanted = !limits.is_empty() || !parent.is_empty();
    let watched = spec.detached || host.restart != RestartPolicy::No;
    let mut record = Record::default();
    let mut missed = Vec::new();
    if wanted || watched {
        let planned = Cgroup::planned(&Cgroup::places(&dir.record.id, parent, limits));
        write(dir, &Record { cgroup: planned.clone(), ..Record::default() })?;
        let (made, refused) = planned.make();
        missed = made.apply(limits);
        if !parent.is_empty() && made.dirs.is_empty() {
            missed.push(Missed { flag: "--cgroup-parent", why: "no cgroup may be made there".into() });
        }
        if let Some(refused) = refused {
            let why = format!(" ({})", crate::ops::chain_text(&refused));
            missed
                .iter_mut()
                .filter(|missed| missed.why.ends_with("here"))
                .for_each(|missed| missed.why += &why);
        }
        plan.cgroup = made.doors();
        record.cgroup = made;
    }
    plan.oom_score_adj = oom_score(host);
    if plan.oom_score_adj != host.oom_score_adj {
        missed.push(Missed { flag: "--oom-score-adj", why: "only root may lower it".into() });
    }
    if let Some(words) = told(&missed) {
        if host.strict_limits {
            let _ = record.cgroup.remove();
            dir.forget_cgroup();
            return Err(Error::StrictLimits(words));
        }
        store.remark(&words);
    }
    record.without_effect = missed.iter().map(|missed| missed.flag.to_owned()).collect();
    if record.cgroup.dirs.is_empty() && missed.is_empty() {
        dir.forget_cgroup();
        return Ok(());
    }
    write(dir, &record)
}

/// Change the limits of a running container, whose first process is `pid`. One that has no cgroup gets one.
///
/// # Errors
/// [`Error::NotLimited`]: what cannot be had is never recorded.
pub fn change(dir: &ContainerDir, parent: &str, pid: i32, limits: &Limits) -> Result<(), Error> {
    let mut record = match of(dir) {
        Some(record) if !record.cgroup.dirs.is_empty() => record,
        _ => late(dir, parent, pid, limits)?,
    };
    let missed = record.cgroup.apply(limits);
    if let Some(words) = told(&missed) {
        return Err(Error::NotLimited { name: dir.record.name.clone(), words });
    }
    let flags = limits.flags();
    record.without_effect.retain(|flag| !flags.contains(flag.as_str()));
    if record.cgroup.dirs.is_empty() { Ok(()) } else { write(dir, &record) }
}

/// A cgroup for a program that runs without one: all its processes go there.
fn late(dir: &ContainerDir, parent: &str, pid: i32, limits: &Limits) -> Result<Record, Error> {
    let planned = Cgroup::planned(&Cgroup::places(&dir.record.id, parent, limits));
    write(dir, &Record { cgroup: planned.clone(), ..Record::default() })?;
    let (cgroup, _) = planned.make();
    let moved = cgroup.dirs.iter().try_for_each(|place| cgroup.take_in(place, &|| processes::ids(pid)));
    if let Err(error) = moved {
        // Those that were moved stay there, and the record with them.
        let words = crate::ops::chain_text(&error);
        return Err(Error::NotLimited { name: dir.record.name.clone(), words });
    }
    let record = Record { cgroup, ..Record::default() };
    match record.cgroup.dirs.is_empty() {
        true => dir.forget_cgroup(),
        false => write(dir, &record)?,
    }
    Ok(record)
}

/// One line that names all flags without effect, and why.
fn told(missed: &[Missed]) -> Option<String> {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for Missed { flag, why } in missed {
        match reasons.iter_mut().find(|(have, _)| have == why) {
            Some((_, flags)) => flags.push(flag),
            None => reasons.push((why, vec![flag])),
        }
    }
    let part = |(why, flags): (&str, Vec<&str>)| {
        let verb = if flags.len() == 1 { "has" } else { "have" };
        format!("{} {verb} no effect: {why}", flags.join(", "))
    };
    let words = reasons.into_iter().map(part).collect::<Vec<_>>().join("; ");
    let hint = "; a user's own controllers: `systemd-run --user --scope -p Delegate=yes strate …`";
    let delegated = words.contains("may not be used here")
        && Path::new("/run/systemd/system").exists()
        && !rustix::process::getuid().is_root();
    (!words.is_empty()).then(|| format!("{words}{}", if delegated { hint } else { "" }))
}

/// What a container's programs get of `--oom-score-adj`.
#[must_use]
pub fn oom_score(host: &HostOptions) -> Option<i32> {
    host.oom_score_adj.filter(|score| may_set_oom_score(*score))
}

/// Whether a process of ours may have this value: everybody may raise it, only the host's root lower it
/// (`man 5 proc_pid_oom_score_adj`).
fn may_set_oom_score(score: i32) -> bool {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/self/{file}")).unwrap_or_default();
    let own: i32 = read("oom_score_adj").trim().parse().unwrap_or(0);
    // `CAP_SYS_RESOURCE` counts in the first user namespace alone.
    let whole: Vec<String> = read("uid_map").split_whitespace().map(str::to_owned).collect();
    let status = read("status");
    let caps = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let caps = caps.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0);
    score >= own || (whole == ["0", "0", "4294967295"] && caps >> 24 & 1 == 1)
}

fn write(dir: &ContainerDir, record: &Record) -> Result<(), Error> {
    let text =
        serde_json::to_string(record).map_err(|source| Error::Spec { id: dir.short_id().into(), source })?;
    Ok(dir.mark_cgroup(&text)?)
}

fn parse(text: &str) -> Option<Record> {
    serde_json::from_str(text).ok()
}

/// The cgroup of a container whose program runs.
#[must_use]
pub fn of(dir: &ContainerDir) -> Option<Record> {
    parse(&dir.cgroup_mark()?)
}

/// The files by which a further program of the container joins it.
#[must_use]
pub fn doors(dir: &ContainerDir) -> Vec<PathBuf> {
    of(dir).map(|record| record.cgroup.doors()).unwrap_or_default()
}

/// The program has ended: whether the kernel has killed of it for want of memory. The cgroup is gone after this, if nothing
/// is left in it.
pub fn end(dir: &ContainerDir) -> bool {
    let Some(record) = of(dir) else { return false };
    let killed = record.cgroup.oom_kills() > 0;
    if record.cgroup.remove() {
        dir.forget_cgroup();
    }
    killed
}

/// Take away what a program left that could not be started, or whose end nobody saw.
pub fn clear(dir: &ContainerDir) {
    let _ = end(dir);
}

/// Take away the cgroups of programs whose watchers were killed.
pub fn sweep(store: &Store) {
    store.sweep_cgroups(&|text| parse(text).is_none_or(|record| record.cgroup.remove()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_names_all_flags() {
        let missed = |flag, why: &str| Missed { flag, why: why.into() };
        assert_eq!(told(&[]), None);
        let words =
            told(&[missed("--memory", "a"), missed("--pids-limit", "b"), missed("--cpus", "a")]).unwrap();
        assert_eq!(words, "--memory, --cpus have no effect: a; --pids-limit has no effect: b");
    }
}
