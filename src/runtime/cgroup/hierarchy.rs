//! The trees of cgroups that are mounted here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::ACCOUNTING;
use crate::sys::mounts::{self, Mounted};

/// One tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// 1 or 2.
    pub version: u8,
    /// What it controls; of version 2 what its topmost cgroup has.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub top: PathBuf,
    /// The directory of the cgroup that we are in.
    pub own: PathBuf,
}

/// All trees in which our own cgroup can be reached.
pub fn all() -> Vec<Hierarchy> {
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounted = mounts::all().unwrap_or_default();
    let mut found = of(&own, &mounted);
    for hierarchy in found.iter_mut().filter(|hierarchy| hierarchy.version == 2) {
        hierarchy.controllers = controllers_in(&hierarchy.top, 2);
    }
    found
}

/// From the lines of `/proc/self/cgroup` (`number:controllers:path`) and the mounts.
fn of(own: &str, mounted: &[Mounted]) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    for line in own.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(names), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (version, kind) = if names.is_empty() { (2, "cgroup2") } else { (1, "cgroup") };
        let names: Vec<String> =
            names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        if names.iter().any(|name| name.starts_with("name=")) {
            continue;
        }
        let fits =
            |mount: &&Mounted| mount.kind == kind && names.iter().all(|name| mount.options.contains(name));
        // The last one lies on top of the others.
        for mount in mounted.iter().rev().filter(fits) {
            // A path that leads out of our cgroup namespace cannot be reached.
            let Ok(below) = Path::new(path).strip_prefix(&mount.root) else { continue };
            if below.components().any(|part| part == Component::ParentDir) {
                continue;
            }
            let top = mount.point.clone();
            let own = if below.as_os_str().is_empty() { top.clone() } else { top.join(below) };
            found.push(Hierarchy { version, controllers: names, top, own });
            break;
        }
    }
    found
}

/// The controllers of a cgroup: with version 1 those whose files are there.
pub fn controllers_in(dir: &Path, version: u8) -> Vec<String> {
    if version == 2 {
        let text = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
        return text.split_whitespace().map(str::to_owned).collect();
    }
    const SIGNS: [(&str, &str); 7] = [
        ("cpu", "cpu.shares"),
        ("cpuacct", "cpuacct.usage"),
        ("cpuset", "cpuset.cpus"),
        ("memory", "memory.limit_in_bytes"),
        ("pids", "pids.current"),
        ("blkio", "blkio.reset_stats"),
        ("freezer", "freezer.state"),
    ];
    let there = |sign: &&(&str, &str)| dir.join(sign.1).exists();
    SIGNS.iter().filter(there).map(|(name, _)| (*name).to_owned()).collect()
}

impl Hierarchy {
    /// Whether a container that wants these has a use for it: what limits it, what tells how it does, what freezes it.
    pub(super) fn serves(&self, wanted: &BTreeSet<&'static str>) -> bool {
        let useful = |name: &String| {
            let name = name.as_str();
            wanted.contains(name) || ACCOUNTING.contains(&name) || name == "freezer"
        };
        self.controllers.iter().any(useful)
    }

    /// The directory that `--cgroup-parent` names.
    pub(super) fn below(&self, parent: &str) -> PathBuf {
        let from = if parent.starts_with('/') { &self.top } else { &self.own };
        let parts = Path::new(parent).components().filter(|part| matches!(part, Component::Normal(_)));
        parts.fold(from.clone(), |path, part| path.join(part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, root: &str, point: &str, options: &[&str]) -> Mounted {
        Mounted {
            root: root.into(),
            point: point.into(),
            kind: kind.into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        }
    }

    #[test]
    fn our_own_cgroup_is_found_in_every_tree() {
        let own = "9:name=systemd:/\n8:cpu,cpuacct:/a\n4:memory:/docker/x\n3:pids:/../y\n0::/user.slice\n";
        let mounted = [
            mount("cgroup", "/", "/c/cpu,cpuacct", &["rw", "cpu", "cpuacct"]),
            mount("cgroup", "/docker/x", "/c/memory", &["rw", "memory"]),
            mount("cgroup", "/", "/c/pids", &["rw", "pids"]),
            mount("cgroup2", "/", "/c/unified", &["rw"]),
        ];
        let found = of(own, &mounted);
        let own: Vec<(u8, &str)> = found.iter().map(|h| (h.version, h.own.to_str().unwrap())).collect();
        assert_eq!(own, [(1, "/c/cpu,cpuacct/a"), (1, "/c/memory"), (2, "/c/unified/user.slice")]);
        assert_eq!(found[0].below("/x/../y"), Path::new("/c/cpu,cpuacct/x/y"));
        assert_eq!(found[0].below("x"), Path::new("/c/cpu,cpuacct/a/x"));
    }
}
