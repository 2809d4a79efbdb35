//! The kernel's freezer (cgroups v2, `cgroup.freeze`; cgroups v1, the freezer controller): it holds processes still without
//! their noticing, and nothing that dies lets them go.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::{processes, target};
use crate::sys::{SysError, SysResult};

/// Where cgroups are mounted.
const ROOT: &str = "/sys/fs/cgroup";

/// How long the processes may take to stand still.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long an empty cgroup is waited for, which costs nothing when it stays.
const RELEASE_PATIENCE: Duration = Duration::from_secs(1);

/// Our cgroups begin so.
const PREFIX: &str = "strate-";

/// The cgroup of one container's processes.
#[derive(Debug)]
pub struct Freezer {
    path: PathBuf,
    /// It is the container's own cgroup, in which its processes are and stay.
    own: bool,
}

impl Freezer {
    /// The freezer of the container `id`: its own cgroup, `own`, else one that is made where this process may.
    ///
    /// # Errors
    /// Why none of the hierarchies can be used.
    pub fn new(id: &str, own: Option<&Path>) -> SysResult<Self> {
        if let Some(path) = own {
            return Ok(Self { path: path.to_owned(), own: true });
        }
        let name = format!("{PREFIX}{id}");
        let mut refused = None;
        for parent in cgroups_of("self") {
            let path = parent.join(&name);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    refused = Some(SysError::path("make a cgroup in", &parent, error));
                    continue;
                }
            }
            let freezer = Self { path, own: false };
            if freezer.file().is_some() {
                return Ok(freezer);
            }
            let _ = fs::remove_dir(&freezer.path);
        }
        let none = || io::Error::other("neither cgroup v2 nor the freezer of v1 is there");
        Err(refused.unwrap_or_else(|| SysError::path("find a freezer in", ROOT, none())))
    }

    /// The one that was written down, where `own` is the container's own cgroup.
    ///
    /// # Errors
    /// When the path is none of ours.
    pub fn at(path: &str, own: Option<&Path>) -> SysResult<Self> {
        let path = PathBuf::from(path);
        if own == Some(path.as_path()) {
            return Ok(Self { path, own: true });
        }
        let ours =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
        let plain = !path.components().any(|part| part == std::path::Component::ParentDir);
        if ours && plain && path.starts_with(ROOT) {
            Ok(Self { path, own: false })
        } else {
            Err(SysError::path("use", path, io::Error::from(io::ErrorKind::InvalidInput)))
        }
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file that freezes, and the words for it: still, moving.
    fn file(&self) -> Option<(PathBuf, [&'static str; 2])> {
        let all = [("cgroup.freeze", ["1", "0"]), ("freezer.state", ["FROZEN", "THAWED"])];
        all.into_iter().map(|(name, words)| (self.path.join(name), words)).find(|(path, _)| path.exists())
    }

    fn set(&self, still: bool) -> SysResult<()> {
        let gone = || SysError::path("use", &self.path, io::Error::from(io::ErrorKind::NotFound));
        let (path, words) = self.file().ok_or_else(gone)?;
        fs::write(&path, words[usize::from(!still)]).map_err(|error| SysError::path("write", &path, error))
    }

    /// Hold every process of the pid namespace of `first` still.
    ///
    /// # Errors
    /// When one cannot be moved, or they do not come to a stand.
    pub fn freeze(&self, first: i32) -> SysResult<()> {
        let start = Instant::now();
        // Frozen first: what is moved in stands still at once and makes no children that would have to be found.
        self.set(true)?;
        let mut held = BTreeSet::new();
        loop {
            let all: BTreeSet<i32> = processes::ids(first)?.into_iter().collect();
            let fresh: Vec<i32> = all.difference(&held).copied().collect();
            for pid in &fresh {
                self.take(*pid, first)?;
            }
            held.extend(fresh.iter().copied());
            if fresh.is_empty() && self.is_still() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let error = io::Error::from(io::ErrorKind::TimedOut);
                return Err(SysError::path("wait for the processes in", &self.path, error));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Move one process of the pid namespace of `first` in. The kernel takes a number, which another process of the host
    /// may have got since it was looked at: that one goes back.
    fn take(&self, pid: i32, first: i32) -> SysResult<()> {
        // While it lives, the number is its own.
        let Ok(process) = target::open(pid) else { return Ok(()) };
        if is_stranger(pid, first) {
            return Ok(());
        }
        match fs::write(self.path.join("cgroup.procs"), pid.to_string()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => return Ok(()),
            Err(error) => return Err(SysError::path("move processes to", &self.path, error)),
        }
        if has_ended(&process) && is_stranger(pid, first) {
            self.give_back(pid);
        }
        Ok(())
    }

    /// A process that was moved in by mistake has just begun: it belongs where its parent is.
    fn give_back(&self, pid: i32) {
        let parent = processes::look(pid).map(|process| process.parent.to_string());
        let mut homes = parent.map(|parent| cgroups_of(&parent)).unwrap_or_default();
        homes.extend(self.path.parent().map(Path::to_owned));
        homes.retain(|home| *home != self.path);
        for home in homes {
            if fs::write(home.join("cgroup.procs"), pid.to_string()).is_ok() {
                return;
            }
        }
    }

    fn is_still(&self) -> bool {
        let read = |name: &str| fs::read_to_string(self.path.join(name)).unwrap_or_default();
        read("cgroup.events").lines().any(|line| line == "frozen 1")
            || read("freezer.state").trim() == "FROZEN"
    }

    /// Let them go on.
    pub fn thaw(&self) {
        let _ = self.release();
    }

    /// Let them go on and give the cgroup back, if it is still there.
    ///
    /// # Errors
    /// When they cannot be let go.
    pub fn release(&self) -> SysResult<()> {
        if !self.path.exists() {
            return Ok(());
        }
        self.set(false)?;
        if self.own {
            return Ok(());
        }
        // They go back to where whoever reads this is allowed to put them: the cgroup above.
        let start = Instant::now();
        while let Ok(pids) = fs::read_to_string(self.path.join("cgroup.procs")) {
            if pids.is_empty() && fs::remove_dir(&self.path).is_ok() || start.elapsed() > RELEASE_PATIENCE {
                break;
            }
            let Some(above) = self.path.parent() else { break };
            for pid in pids.lines() {
                let _ = fs::write(above.join("cgroup.procs"), pid);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Whether a process is known to be of another pid namespace than `first`.
fn is_stranger(pid: i32, first: i32) -> bool {
    let namespaces = (processes::namespace(pid), processes::namespace(first));
    matches!(namespaces, (Ok(its), Ok(ours)) if its != ours)
}

fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
    let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    // What cannot be told may be so.
    rustix::event::poll(&mut fds, Some(&at_once)).map_or(true, |ready| ready > 0)
}

/// Where a process (an id, or `self`) is that may be frozen: in v2, or in the freezer of v1.
fn cgroups_of(process: &str) -> Vec<PathBuf> {
    let own = fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
    let mut all = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            all.extend([ROOT.to_owned(), format!("{ROOT}/unified")].map(|root| Path::new(&root).join(path)));
        } else if controllers.split(',').any(|name| name == "freezer") {
            all.push(Path::new(ROOT).join("freezer").join(path));
        }
    }
    all.retain(|path| path.join("cgroup.procs").exists());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_process_is_seen_by_its_descriptor() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let (own, pid) = (std::process::id().try_into().unwrap(), child.id().try_into().unwrap());
        let process = target::open(pid).unwrap();
        assert!(!has_ended(&process) && !is_stranger(pid, own));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(has_ended(&process));
        // What cannot be looked at any more is not moved anywhere.
        assert!(!is_stranger(pid, own));
    }
}
