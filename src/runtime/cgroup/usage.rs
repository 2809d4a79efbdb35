//! What a container uses, as its cgroup counts it.

use std::fs;
use std::path::Path;

use super::{Cgroup, Dir};

/// What is counted; nothing where no controller counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds of processor time.
    pub cpu: Option<u64>,
    /// Bytes, without files that could be dropped from memory.
    pub memory: Option<u64>,
    /// Bytes that it may use.
    pub memory_limit: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes read from and written to block devices.
    pub io: Option<(u64, u64)>,
}

/// Read the counters.
#[must_use]
pub fn usage(cgroup: &Cgroup) -> Usage {
    let number = |dir: Option<&Dir>, file: &str| single(&dir?.path.join(file));
    let mut usage = Usage::default();
    if let Some(dir) = cgroup.with("cpuacct") {
        usage.cpu = number(Some(dir), "cpuacct.usage");
    } else if let Some(dir) = cgroup.dirs.iter().find(|dir| dir.version == 2) {
        // Counted for every cgroup of version 2, with the controller or without.
        usage.cpu = keyed(&dir.path.join("cpu.stat"), "usage_usec").map(|micros| micros * 1000);
    }
    if let Some(dir) = cgroup.with("memory") {
        let [now, limit, idle] = match dir.version {
            1 => ["memory.usage_in_bytes", "memory.limit_in_bytes", "total_inactive_file"],
            _ => ["memory.current", "memory.max", "inactive_file"],
        };
        let idle = keyed(&dir.path.join("memory.stat"), idle).unwrap_or(0);
        usage.memory = number(Some(dir), now).map(|now| now.saturating_sub(idle));
        usage.memory_limit = number(Some(dir), limit);
    }
    usage.pids = number(cgroup.with("pids"), "pids.current");
    usage.io = match (cgroup.with("blkio"), cgroup.with("io")) {
        (Some(dir), _) => fs::read_to_string(dir.path.join("blkio.throttle.io_service_bytes_recursive"))
            .ok()
            .map(|text| io_v1(&text)),
        (None, Some(dir)) => fs::read_to_string(dir.path.join("io.stat")).ok().map(|text| io_v2(&text)),
        (None, None) => None,
    };
    usage
}

fn single(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number behind a key that begins a line.
pub(super) fn keyed(path: &Path, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// `8:0 Read 4096`
fn io_v1(text: &str) -> (u64, u64) {
    let sum = |word: &str| {
        let of = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            (fields.next() == Some(word)).then(|| fields.next()?.parse::<u64>().ok()).flatten()
        };
        text.lines().filter_map(of).sum()
    };
    (sum("Read"), sum("Write"))
}

/// `8:0 rbytes=4096 wbytes=0 …`
fn io_v2(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let words = text.split_whitespace();
        words.filter_map(|word| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok()).sum()
    };
    (sum("rbytes"), sum("wbytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_all_devices_are_added() {
        assert_eq!(io_v1("8:0 Read 10\n8:0 Write 20\n8:0 Total 30\n8:16 Read 1\nTotal 31\n"), (11, 20));
        assert_eq!(io_v2("8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n"), (11, 22));
        assert_eq!(io_v1(""), (0, 0));
    }
}
