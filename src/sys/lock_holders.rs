//! Who holds a lock on a file, from `/proc/locks` (proc(5)): for messages, never for decisions.

use std::os::fd::AsFd;

/// The processes that hold a flock on an open file, this one aside. None where the kernel does not tell: holders in
/// other pid namespaces, no `/proc`.
#[must_use]
pub fn holders(file: impl AsFd) -> Vec<u32> {
    let Ok(stat) = rustix::fs::fstat(file) else { return Vec::new() };
    let text = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let mut pids = parse(&text, stat.st_ino);
    pids.retain(|pid| *pid != std::process::id());
    pids
}

/// Lines are `1: FLOCK  ADVISORY  READ 1234 fd:01:5678 0 EOF`; one with `->` waits. Only the inode is compared: the
/// device there is the disk's, and `stat` has another one on btrfs and overlay.
fn parse(text: &str, inode: u64) -> Vec<u32> {
    let holder = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, _, pid, file, ..] = fields[..] else { return None };
        let held: u64 = file.rsplit(':').next()?.parse().ok()?;
        (held == inode).then(|| pid.parse().ok()).flatten().filter(|pid| *pid != 0)
    };
    let mut pids: Vec<u32> = text.lines().filter_map(holder).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::flock;

    #[test]
    fn holders_are_read_and_those_who_wait_are_not() {
        let text = "1: FLOCK  ADVISORY  READ 1234 fd:01:5678 0 EOF\n1: -> FLOCK  ADVISORY  WRITE 9 fd:01:5678 0 EOF\n\
                    2: POSIX  ADVISORY  WRITE 77 fd:01:5678 0 EOF\n3: FLOCK  ADVISORY  WRITE 0 00:2a:5678 0 EOF\n\
                    4: FLOCK ADVISORY READ 12 fd:01:5678 0 EOF\n5: FLOCK ADVISORY READ 13 fd:01:99 0 EOF\nnonsense\n";
        assert_eq!(parse(text, 5678), [12, 1234]);
    }

    #[test]
    fn a_lock_of_this_process_is_not_told() {
        let file = tempfile::tempfile().unwrap();
        flock::lock(&file, true).unwrap();
        assert_eq!(holders(&file), Vec::<u32>::new());
    }
}
