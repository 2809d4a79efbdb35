//! Control groups (`man 7 cgroups`): what of them may be used here, and the one of a container.
//!
//! With version 1 there is a tree for each controller, and a cgroup of a container is a directory in each of those that are
//! wanted, below our own. With version 2 there is one tree, in which a cgroup with processes cannot hand controllers to
//! those below it: there the container's lies below the nearest cgroup above us that can and that we may write. Hosts with
//! both are served by both.

mod hierarchy;
mod limits;
mod usage;

pub use hierarchy::Hierarchy;
pub use limits::{Device, Limits};
pub use usage::{Usage, usage};

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use rustix::fs::Access;
use serde::{Deserialize, Serialize};

use crate::sys::{SysError, SysResult};
use hierarchy::controllers_in;
use limits::Setting;

/// Our cgroups begin so.
const PREFIX: &str = "strate-";

/// What tells how a container does, whether it is limited or not.
const ACCOUNTING: [&str; 6] = ["cpu", "cpuacct", "memory", "pids", "blkio", "io"];

/// How often a directory that is still in use is tried again, and the pause between.
const PATIENCE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// One directory of a container's cgroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dir {
    /// Where.
    pub path: PathBuf,
    /// 1 or 2.
    pub version: u8,
    /// What can be limited and measured in it.
    pub controllers: Vec<String>,
}

/// The cgroup of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    /// Its directories.
    pub dirs: Vec<Dir>,
    /// Directories above it that were made for it, lowest first.
    #[serde(default)]
    pub above: Vec<PathBuf>,
}

/// A flag whose limit is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missed {
    /// The flag.
    pub flag: &'static str,
    /// Why.
    pub why: String,
}

/// Where a container's cgroup would be made. Nothing is there yet, but for what had to be tried.
#[derive(Debug, Clone)]
pub struct Place {
    version: u8,
    base: PathBuf,
    dir: PathBuf,
}

/// The name of the cgroup of the container `id`.
#[must_use]
pub fn name(id: &str) -> String {
    format!("{PREFIX}{id}")
}

impl Cgroup {
    /// Where the cgroup of the container `id` would lie: below `parent` (from the top when it begins with a slash, else
    /// below our own cgroup), or where it serves best for `limits`. `version` 2 places are found by trying, so
    /// directories may have been made there; [`Cgroup::remove`] takes what [`Cgroup::planned`] names.
    #[must_use]
    pub fn places(id: &str, parent: &str, limits: &Limits) -> Vec<Place> {
        let wanted = limits.controllers();
        let mut all = Vec::new();
        for hierarchy in hierarchy::all() {
            if !hierarchy.serves(&wanted) {
                continue;
            }
            let base = match parent {
                "" if hierarchy.version == 2 => match best_base(&hierarchy, id, &wanted) {
                    Some(base) => base,
                    None => continue,
                },
                "" => hierarchy.own.clone(),
                parent => hierarchy.below(parent),
            };
            all.push(Place { version: hierarchy.version, dir: base.join(name(id)), base });
        }
        all
    }

    /// What will be there of `places`: to be written down before it is made.
    #[must_use]
    pub fn planned(places: &[Place]) -> Self {
        let dir =
            |place: &Place| Dir { path: place.dir.clone(), version: place.version, controllers: Vec::new() };
        let mut above = Vec::new();
        for place in places {
            let missing = place.base.ancestors().take_while(|path| !path.exists());
            above.extend(missing.map(Path::to_owned));
        }
        Self { dirs: places.iter().map(dir).collect(), above }
    }

    /// Make the directories. Those that cannot be made, or that processes may not be moved to, are left out; the first
    /// reason comes with it.
    #[must_use]
    pub fn make(self) -> (Self, Option<SysError>) {
        let mut refused = None;
        let mut made = Self { dirs: Vec::new(), above: self.above };
        for mut dir in self.dirs {
            match make_dir(&dir) {
                Ok(()) => {
                    dir.controllers = controllers_in(&dir.path, dir.version);
                    made.dirs.push(dir);
                }
                Err(error) => {
                    let _ = fs::remove_dir(&dir.path);
                    refused = refused.or(Some(error));
                }
            }
        }
        (made, refused)
    }

    /// The directory that has a controller.
    fn with(&self, controller: &str) -> Option<&Dir> {
        self.dirs.iter().find(|dir| dir.controllers.iter().any(|have| have == controller))
    }

    /// Put limits in force, as far as they can be.
    #[must_use]
    pub fn apply(&self, limits: &Limits) -> Vec<Missed> {
        let mut missed: Vec<Missed> = Vec::new();
        let mut miss = |flag: &'static str, why: String| {
            if !missed.iter().any(|have| have.flag == flag) {
                missed.push(Missed { flag, why });
            }
        };
        let mut again = Vec::new();
        for setting in limits.settings() {
            match self.set(&setting) {
                Ok(()) => {}
                // What is above another limit waits until that one was changed too.
                Err(error) if error.source.raw_os_error() == Some(libc::EINVAL) => again.push(setting),
                Err(error) => setting.tell(&error, &mut miss),
            }
        }
        for setting in again {
            if let Err(error) = self.set(&setting) {
                setting.tell(&error, &mut miss);
            }
        }
        missed
    }

    fn set(&self, setting: &Setting) -> SysResult<()> {
        let lacks = |what: String| SysError::new("limit", setting.flag, io::Error::other(what));
        let [one, two] = [1, 2].map(|version| setting.controller(version));
        let (dir, writes) = if let Some(dir) = self.with(one).filter(|dir| dir.version == 1) {
            (dir, &setting.v1)
        } else if let Some(dir) = self.with(two).filter(|dir| dir.version == 2) {
            (dir, &setting.v2)
        } else {
            return Err(lacks("cgroups may not be used here".to_owned()));
        };
        if writes.is_empty() {
            return Err(lacks(format!("version {} of cgroups does not have it", dir.version)));
        }
        let mut result = Ok(());
        // Kernels name the same thing differently: the first file that is there counts.
        for write in writes {
            let path = dir.path.join(write.file);
            let written = open_to_write(&path)
                .and_then(|mut file| io::Write::write_all(&mut file, write.value.as_bytes()));
            match written {
                // Newer kernels take the value and forget it.
                Ok(()) if setting.flag == "--kernel-memory" && !is_limited(&path) => {
                    result = Err(lacks("the kernel does not limit it any more".into()));
                }
                Ok(()) => return Ok(()),
                Err(error) => result = Err(SysError::path("write", path, error)),
            }
        }
        result
    }

    /// The files that take a process in.
    #[must_use]
    pub fn doors(&self) -> Vec<PathBuf> {
        self.dirs.iter().map(|dir| dir.path.join("cgroup.procs")).collect()
    }

    /// Move processes to one of its directories, until a look at who there is finds nobody new.
    ///
    /// # Errors
    /// When one cannot be moved, or they make new ones without end.
    pub fn take_in(&self, place: &Dir, all: &dyn Fn() -> SysResult<Vec<i32>>) -> SysResult<()> {
        let door = place.path.join("cgroup.procs");
        let mut moved = BTreeSet::new();
        for _ in 0..PATIENCE {
            let fresh: Vec<i32> = all()?.into_iter().filter(|pid| !moved.contains(pid)).collect();
            if fresh.is_empty() {
                return Ok(());
            }
            for pid in fresh {
                match fs::write(&door, pid.to_string()) {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                        return Err(SysError::path("move processes to", &place.path, error));
                    }
                    _ => moved.insert(pid),
                };
            }
        }
        Err(SysError::path("move processes to", &place.path, io::Error::from(io::ErrorKind::TimedOut)))
    }

    /// The directory that can hold its processes still.
    #[must_use]
    pub fn freezer(&self) -> Option<&Path> {
        let freezes =
            |dir: &&Dir| ["cgroup.freeze", "freezer.state"].iter().any(|name| dir.path.join(name).exists());
        self.dirs.iter().find(freezes).map(|dir| dir.path.as_path())
    }

    /// How many of its processes the kernel has killed for want of memory.
    #[must_use]
    pub fn oom_kills(&self) -> u64 {
        let Some(dir) = self.with("memory") else { return 0 };
        let file = if dir.version == 1 { "memory.oom_control" } else { "memory.events" };
        usage::keyed(&dir.path.join(file), "oom_kill").unwrap_or(0)
    }

    /// Whether all of it is gone, after its directories were removed as far as they are empty. Processes that are just
    /// ending are waited for a little.
    #[must_use]
    pub fn remove(&self) -> bool {
        let mut gone = true;
        for dir in self.dirs.iter().filter(|dir| is_ours(&dir.path)) {
            gone &= remove_dir(&dir.path);
        }
        for dir in &self.above {
            // Others may use it meanwhile: then it is theirs.
            let _ = fs::remove_dir(dir);
        }
        gone
    }
}

/// A record is only as good as whoever wrote it: nothing but a cgroup of ours is touched.
fn is_ours(path: &Path) -> bool {
    let named = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(PREFIX));
    named && !path.components().any(|part| part == Component::ParentDir) && path.is_absolute()
}

fn remove_dir(path: &Path) -> bool {
    for attempt in 0..PATIENCE {
        match fs::remove_dir(path) {
            Ok(()) => return true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                if attempt == PATIENCE / 2 {
                    end_all(path);
                }
            }
            Err(_) => return false,
        }
        std::thread::sleep(PAUSE);
    }
    false
}

/// End what is left in a cgroup whose program has ended.
fn end_all(path: &Path) {
    if fs::write(path.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    // With version 1 what is frozen does not even die.
    if let Ok(mut state) = open_to_write(&path.join("freezer.state")) {
        let _ = io::Write::write_all(&mut state, b"THAWED");
    }
    for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default().lines() {
        let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw);
        if let Some(pid) = pid {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Whether a file of version 1 says less than its largest number, which is no limit.
fn is_limited(path: &Path) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.trim().parse::<u64>().is_ok_and(|bytes| bytes < 1 << 62)
}

fn open_to_write(path: &Path) -> io::Result<fs::File> {
    fs::OpenOptions::new().write(true).open(path)
}

fn make_dir(dir: &Dir) -> SysResult<()> {
    let failed = |error| SysError::path("make", &dir.path, error);
    if let Some(base) = dir.path.parent() {
        make_above(base, dir.version).map_err(failed)?;
    }
    match fs::create_dir(&dir.path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    if dir.version == 1 {
        fill_cpuset(&dir.path);
    }
    let door = dir.path.join("cgroup.procs");
    rustix::fs::access(&door, Access::WRITE_OK).map_err(|error| SysError::path("use", door, error))
}

/// Make the directories down to `base`, each with the controllers of those above it.
fn make_above(base: &Path, version: u8) -> io::Result<()> {
    let missing: Vec<&Path> = base.ancestors().take_while(|path| !path.exists()).collect();
    for path in missing.into_iter().rev() {
        fs::create_dir(path)?;
        match version {
            1 => fill_cpuset(path),
            _ => path.parent().into_iter().for_each(|above| hand_down(above, &BTreeSet::new())),
        }
    }
    if version == 2 {
        hand_down(base, &BTreeSet::new());
    }
    Ok(())
}

/// A new cpuset of version 1 is empty, and takes no process until it has what the one above it has.
fn fill_cpuset(dir: &Path) {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let empty = fs::read_to_string(dir.join(name)).is_ok_and(|text| text.trim().is_empty());
        if let (true, Some(above)) = (empty, dir.parent()) {
            let text = fs::read_to_string(above.join(name)).unwrap_or_default();
            let _ = fs::write(dir.join(name), text.trim());
        }
    }
}

/// Let the cgroups below `dir` (version 2) have the controllers in `wanted` and those for accounting. Each on its own: one
/// that is refused does not keep the others away.
fn hand_down(dir: &Path, wanted: &BTreeSet<&str>) {
    let handed = fs::read_to_string(dir.join("cgroup.subtree_control")).unwrap_or_default();
    for name in controllers_in(dir, 2) {
        let useful = wanted.contains(name.as_str()) || ACCOUNTING.contains(&name.as_str());
        if useful && !handed.split_whitespace().any(|have| have == name) {
            let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{name}"));
        }
    }
}

/// Where in a tree of version 2 a cgroup of ours has most of what is wanted: the nearest of those.
fn best_base(hierarchy: &Hierarchy, id: &str, wanted: &BTreeSet<&'static str>) -> Option<PathBuf> {
    let mut best: Option<((usize, usize), PathBuf)> = None;
    let available = controllers_in(&hierarchy.top, 2);
    let count = |have: &[String], of: &dyn Fn(&str) -> bool| have.iter().filter(|name| of(name)).count();
    let score = |have: &[String]| {
        (count(have, &|name| wanted.contains(name)), count(have, &|name| ACCOUNTING.contains(&name)))
    };
    let most = score(&available);
    for base in hierarchy.own.ancestors().take_while(|path| path.starts_with(&hierarchy.top)) {
        // Who moves a process must be allowed to write to what is above both places.
        let dir = base.join(name(id));
        let allowed = rustix::fs::access(base.join("cgroup.procs"), Access::WRITE_OK).is_ok();
        if !allowed || fs::create_dir(&dir).is_err() {
            continue;
        }
        hand_down(base, wanted);
        let found = score(&controllers_in(&dir, 2));
        let _ = fs::remove_dir(&dir);
        if best.as_ref().is_none_or(|(have, _)| found > *have) {
            best = Some((found, base.to_owned()));
        }
        if found == most {
            break;
        }
    }
    best.map(|(_, base)| base)
}

#[cfg(test)]
mod tests;
