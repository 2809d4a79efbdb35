//! The processes of a running container, as the host sees them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::runtime::cgroup::Usage;
use crate::sys::{SysError, SysResult};

/// Clock ticks in a second: the kernel reports all times to user space in these.
const TICKS: u64 = 100;

/// The ids of all processes of the pid namespace of `first`, in the order of their numbers.
///
/// # Errors
/// When `first` is gone or its namespaces may not be seen.
pub fn ids(first: i32) -> SysResult<Vec<i32>> {
    let ours = namespace(first)
        .map_err(|error| SysError::new("look at", format!("the namespaces of process {first}"), error))?;
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut all: Vec<i32> = pids.filter(|pid| namespace(*pid).is_ok_and(|link| link == ours)).collect();
    all.sort_unstable();
    Ok(all)
}

/// The pid namespace of a process, by name.
///
/// # Errors
/// When it is gone or its namespaces may not be seen.
pub fn namespace(pid: i32) -> std::io::Result<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid"))
}

/// What is known of a process (`man 5 proc_pid_stat`, `proc_pid_status`).
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// Its id on the host, and that of its parent.
    pub pid: i32,
    /// See `pid`.
    pub parent: i32,
    /// Its id in the container, and that of its parent there; 0 when that is outside.
    pub inner: i32,
    /// One letter.
    pub state: char,
    /// The host's number of its user.
    pub uid: u32,
    /// The host's number of its group.
    pub gid: u32,
    /// The controlling terminal's device number.
    pub terminal: u64,
    /// Seconds of processor time.
    pub time: u64,
    /// Seconds since it started.
    pub age: u64,
    /// Its nice value.
    pub nice: i64,
    /// Kibibytes of address space and of memory.
    pub virtual_size: u64,
    /// See `virtual_size`.
    pub resident: u64,
    /// Its short name.
    pub name: String,
    /// Its command line; the name in brackets when it has none.
    pub command: String,
}

/// Look at a process; `None` when it is gone.
#[must_use]
pub fn look(pid: i32) -> Option<Process> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let meta = fs::metadata(format!("/proc/{pid}")).ok()?;
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let line =
        |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap_or("");
    let size =
        |key: &str| line(key).split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0);
    let owner = |key: &str, other: u32| {
        line(key).split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(other)
    };
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).trim_end_matches('\0').replace('\0', " ");
    let uptime = crate::sys::boot::uptime();
    Some(Process {
        pid,
        parent: fields.get(1)?.parse().ok()?,
        inner: line("NSpid").split_whitespace().last().and_then(|text| text.parse().ok()).unwrap_or(pid),
        state: fields.first()?.chars().next()?,
        uid: owner("Uid", meta.uid()),
        gid: owner("Gid", meta.gid()),
        terminal: number(7),
        time: (number(14) + number(15)) / TICKS,
        age: uptime.saturating_sub(number(22) / TICKS),
        nice: fields.get(16).and_then(|text| text.parse().ok()).unwrap_or(0),
        virtual_size: size("VmSize"),
        resident: size("VmRSS"),
        command: if words.is_empty() { format!("[{name}]") } else { words },
        name,
    })
}

/// What all processes of the pid namespace of `first` use together, as far as it may be seen. What those used that have
/// ended is not in it.
#[must_use]
pub fn usage(first: i32) -> Usage {
    let (mut cpu, mut memory, mut threads, mut read, mut written) = (0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
    for pid in ids(first).unwrap_or_default() {
        let text = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let number = |text: &str, key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok())
        };
        let stat = text("stat");
        let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
        let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        cpu += ticks * (1_000_000_000 / TICKS);
        let (status, io) = (text("status"), text("io"));
        // What processes share is counted once, where the kernel tells.
        let kibibytes = number(&text("smaps_rollup"), "Pss").or_else(|| number(&status, "VmRSS"));
        memory += kibibytes.unwrap_or(0) * 1024;
        threads += number(&status, "Threads").unwrap_or(0);
        read += number(&io, "read_bytes").unwrap_or(0);
        written += number(&io, "write_bytes").unwrap_or(0);
    }
    Usage {
        cpu: Some(cpu),
        memory: Some(memory),
        memory_limit: None,
        pids: Some(threads),
        io: Some((read, written)),
    }
}

impl Process {
    /// `pts/0`, or `?` without one.
    #[must_use]
    pub fn terminal_name(&self) -> String {
        let (major, minor) = (rustix::fs::major(self.terminal), rustix::fs::minor(self.terminal));
        match major {
            0 => "?".into(),
            4 => format!("tty{minor}"),
            136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
            _ => format!("{major}:{minor}"),
        }
    }

    /// Percent of one processor over its life.
    #[must_use]
    pub fn share(&self) -> u64 {
        (self.time * 100).checked_div(self.age).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_one_of_our_own() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(ids(own).unwrap().contains(&own));
        let process = look(own).unwrap();
        assert_eq!((process.pid, process.uid), (own, rustix::process::getuid().as_raw()));
        assert!(!process.command.is_empty() && process.resident > 0, "{process:?}");
        assert!(look(i32::MAX).is_none());
    }
}
