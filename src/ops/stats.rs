//! `stats`: what containers use.

use std::fs;
use std::time::Instant;

use super::container::{Error, cgroup, processes};
use super::host;
use crate::runtime::cgroup::{self as counters, Usage};
use crate::storage::{ContainerDir, Store};

/// What one container has used until now.
#[derive(Debug, Clone)]
pub struct Sample {
    /// As the user named it, else the short id.
    pub asked: String,
    /// 64 hex digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether its program runs.
    pub runs: bool,
    /// No cgroup counts it: these are sums over its processes.
    pub summed: bool,
    /// The counters.
    pub usage: Usage,
    /// Bytes received and sent.
    pub network: (u64, u64),
    /// When this was.
    at: Instant,
}

/// The containers that are named, else all that run, or with `all` every one.
///
/// # Errors
/// When one that is named is unknown, or the store cannot be read.
pub fn sample(store: &Store, names: &[String], all: bool) -> Result<Vec<Sample>, Error> {
    if names.is_empty() {
        let dirs = store.containers()?;
        let samples = dirs.iter().map(|dir| of(dir, dir.short_id()));
        return Ok(samples.filter(|sample| all || sample.runs).collect());
    }
    names.iter().map(|name| Ok(of(&store.find_container(name)?, name))).collect()
}

fn of(dir: &ContainerDir, asked: &str) -> Sample {
    let pid = dir.state().ok().filter(|state| state.is_running()).and_then(|state| state.pid);
    let mut usage = Usage::default();
    let mut summed = false;
    if let Some(pid) = pid {
        usage = cgroup::of(dir).map(|record| counters::usage(&record.cgroup)).unwrap_or_default();
        if usage.cpu.is_none() || usage.memory.is_none() || usage.pids.is_none() {
            summed = true;
            usage = or(usage, processes::usage(pid));
        }
    }
    Sample {
        asked: asked.to_owned(),
        id: dir.record.id.clone(),
        name: dir.record.name.clone(),
        runs: pid.is_some(),
        summed,
        usage,
        network: pid.map(network).unwrap_or_default(),
        at: Instant::now(),
    }
}

fn or(one: Usage, other: Usage) -> Usage {
    Usage {
        cpu: one.cpu.or(other.cpu),
        memory: one.memory.or(other.memory),
        memory_limit: one.memory_limit,
        pids: one.pids.or(other.pids),
        io: one.io.or(other.io),
    }
}

/// The bytes that went through a network of its own; through the host's nobody knows whose they are.
fn network(pid: i32) -> (u64, u64) {
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/net")).ok();
    if namespace(&pid.to_string()) == namespace("self") {
        return (0, 0);
    }
    interfaces(&fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

/// `man 5 proc_pid_net`: eight counters of what came, then eight of what went.
fn interfaces(text: &str) -> (u64, u64) {
    let mut all = (0_u64, 0_u64);
    for line in text.lines() {
        let Some((name, counters)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let number =
            |at: usize| counters.split_whitespace().nth(at).and_then(|text| text.parse::<u64>().ok());
        all.0 = all.0.saturating_add(number(0).unwrap_or(0));
        all.1 = all.1.saturating_add(number(8).unwrap_or(0));
    }
    all
}

impl Sample {
    /// Percent of one processor, since an earlier look at the same container.
    #[must_use]
    pub fn cpu_percent(&self, before: Option<&Self>) -> f64 {
        let Some(before) = before else { return 0.0 };
        let used = self.usage.cpu.unwrap_or(0).saturating_sub(before.usage.cpu.unwrap_or(0));
        let passed = self.at.saturating_duration_since(before.at).as_nanos();
        #[allow(clippy::cast_precision_loss, reason = "a percentage")]
        let percent = if passed == 0 { 0.0 } else { used as f64 * 100.0 / passed as f64 };
        percent
    }

    /// Bytes that it may use: its limit, or all that the machine has; nothing when it does not run.
    #[must_use]
    pub fn memory_limit(&self) -> u64 {
        let machine = if self.runs { host::memory() } else { 0 };
        self.usage.memory_limit.map_or(machine, |limit| limit.min(machine))
    }

    /// Percent of that.
    #[must_use]
    pub fn memory_percent(&self) -> f64 {
        let limit = self.memory_limit();
        #[allow(clippy::cast_precision_loss, reason = "a percentage")]
        let percent =
            if limit == 0 { 0.0 } else { self.usage.memory.unwrap_or(0) as f64 * 100.0 / limit as f64 };
        percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_interfaces_but_the_loopback_are_added() {
        let text = "Inter-|   Receive\n face |bytes packets\n    lo: 5 1 0 0 0 0 0 0 5 1 0\n  tap0: 10 1 0 0 0 0 0 0 20 1 0\n\
                    eth1:1 1 0 0 0 0 0 0 2 1 0\n";
        assert_eq!(interfaces(text), (11, 22));
        assert_eq!(interfaces(""), (0, 0));
    }
}
