//! Who holds a lock: what the kernel says about it (`man 5 proc_locks`, `man 5 proc_pid_stat`).

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};

/// Global options of ours that have a value, and so hide the verb behind two words.
const TAKES_VALUE: [&str; 7] = [
    "--root",
    "--imagestore",
    "--userns-mode",
    "--layering",
    "--config",
    "--lock-timeout",
    "--registries-conf",
];

/// The processes that hold a lock, each with what it has done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holders(Vec<(u32, u64)>);

impl Holders {
    /// Those that hold a lock on the file and can be seen from here: not those in another pid namespace.
    pub(super) fn of(file: &File) -> Self {
        let mut pids = from_kernel(file);
        if pids.is_empty() {
            pids.extend(from_file(file).filter(|pid| fs::metadata(format!("/proc/{pid}")).is_ok()));
        }
        pids.sort_unstable();
        pids.dedup();
        Self(pids.into_iter().map(|pid| (pid, turns(pid))).collect())
    }
}

impl fmt::Display for Holders {
    /// `, held by process 7 (strate pull)`; nothing when nobody is seen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((pid, _)) = self.0.first() else { return Ok(()) };
        write!(f, ", held by process {pid}")?;
        if let Some(command) = command_of(*pid) {
            write!(f, " ({command})")?;
        }
        if is_stopped(*pid) {
            f.write_str(", which is stopped")?;
        }
        match self.0.len() {
            1 => Ok(()),
            many => write!(f, " and {} more", many - 1),
        }
    }
}

/// The holders of flock locks on a file. The device is compared where the kernel and `stat` agree on it: on btrfs and
/// overlayfs they do not.
fn from_kernel(file: &File) -> Vec<u32> {
    let (Ok(meta), Ok(text)) = (file.metadata(), fs::read_to_string("/proc/locks")) else {
        return Vec::new();
    };
    let device = (rustix::fs::major(meta.dev()), rustix::fs::minor(meta.dev()));
    let (mut same, mut like) = (Vec::new(), Vec::new());
    for line in text.lines() {
        // 3: FLOCK  ADVISORY  WRITE 4242 08:01:131074 0 EOF; who waits has `->` before the kind
        let mut words = line.split_whitespace().skip(1);
        if words.next() != Some("FLOCK") {
            continue;
        }
        let Some(pid) = words.nth(2).and_then(|pid| pid.parse().ok()) else { continue };
        let mut place = words.next().unwrap_or_default().split(':');
        let mut hex = || place.next().and_then(|part| u32::from_str_radix(part, 16).ok());
        let found = (hex(), hex());
        if place.next().and_then(|inode| inode.parse().ok()) == Some(meta.ino()) {
            like.push(pid);
            if found == (Some(device.0), Some(device.1)) {
                same.push(pid);
            }
        }
    }
    if same.is_empty() { like } else { same }
}

/// Who wrote itself into the file last.
fn from_file(file: &File) -> Option<u32> {
    let mut bytes = [0; 32];
    let n = file.read_at(&mut bytes, 0).ok()?;
    std::str::from_utf8(&bytes[..n]).ok()?.trim().parse().ok()
}

/// How often a process has been given the processor or let go of it, over all its threads: a process that is stopped
/// or dead to the world gets no further.
fn turns(pid: u32) -> u64 {
    let mut turns = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let switches = status.lines().filter_map(|line| line.split_once("_ctxt_switches:"));
        turns += switches.filter_map(|(_, count)| count.trim().parse::<u64>().ok()).sum::<u64>();
    }
    turns
}

/// Program and, of our own, the verb. The rest of a command line may hold secrets.
fn command_of(pid: u32) -> Option<String> {
    let mut line = Vec::new();
    File::open(format!("/proc/{pid}/cmdline")).ok()?.take(4096).read_to_end(&mut line).ok()?;
    let line = String::from_utf8_lossy(&line).into_owned();
    let mut words = line.split('\0');
    let program = words.next()?.rsplit('/').next().filter(|name| !name.is_empty())?;
    let mut found = vec![program];
    while let Some(word) = words.next().filter(|_| program.starts_with("strate")) {
        if TAKES_VALUE.contains(&word) {
            words.next();
        } else if !word.starts_with('-') {
            found.push(word);
            if !["image", "container", "volume", "system", "builder", "manifest"].contains(&word)
                || found.len() > 2
            {
                break;
            }
        }
    }
    let plain = |word: &&str| !word.is_empty() && word.len() < 40 && !word.contains(char::is_control);
    Some(found.into_iter().filter(plain).collect::<Vec<_>>().join(" "))
}

/// Stopped by a signal, or by a debugger.
fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| matches!(rest.trim_start().chars().next(), Some('T' | 't')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::flock;

    #[test]
    fn holders_are_seen_whether_they_share_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let [a, b, c] = [(); 3].map(|()| {
            fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).unwrap()
        });
        assert_eq!(Holders::of(&a).to_string(), "");
        assert!(flock::try_lock(&a, false).unwrap() && flock::try_lock(&b, false).unwrap());
        let (me, seen) = (std::process::id(), Holders::of(&c));
        assert_eq!(seen.0.iter().map(|(pid, _)| *pid).collect::<Vec<_>>(), [me]);
        assert!(seen.to_string().starts_with(&format!(", held by process {me} (")), "{seen}");
        std::thread::sleep(std::time::Duration::from_millis(5));
        assert_ne!(Holders::of(&c), seen, "a process that does something is seen to");
    }

    #[test]
    fn of_a_command_line_only_program_and_verb_are_told() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        // It may not have got to its own command line yet.
        let start = std::time::Instant::now();
        let mut command = command_of(child.id());
        while command.is_none() && start.elapsed().as_secs() < 10 {
            std::thread::sleep(std::time::Duration::from_millis(5));
            command = command_of(child.id());
        }
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&child),
            rustix::process::Signal::STOP,
        )
        .unwrap();
        // It may be counted once more on its way out, which on a busy machine takes a while.
        let start = std::time::Instant::now();
        let mut still = false;
        while !still && start.elapsed().as_secs() < 10 {
            let (stopped, turns_then) = (is_stopped(child.id()), turns(child.id()));
            std::thread::sleep(std::time::Duration::from_millis(20));
            still = stopped && turns(child.id()) == turns_then;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(still);
        assert!(command.is_some());
    }
}
