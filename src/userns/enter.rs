//! Going up the ladder.
//!
//! The full rung, step by step: two children are forked while we still are outside; we unshare; each child becomes
//! newuidmap or newgidmap, both at once, as one program's start is most of the cost; we wait and become uid 0. Root without
//! the capability to mount (in many containers) needs neither: its children write the maps themselves.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::retry_on_intr;
use rustix::pipe::{PipeFlags, pipe_with};

use super::subid::{self, Kind};
use super::{Entered, Error, IdMap, IdRange, Request, Rung, refusal};
use crate::sys::fork::{Forked, NeverReturn, exit_now, fork, wait_pid};
use crate::sys::{SysError, SysResult, exec, ns};

/// A ladder that has been looked at but not climbed, and the state in which a failed attempt left us.
struct Climb<'a> {
    request: &'a Request,
    uid: u32,
    gid: u32,
    refused: Vec<(Rung, String)>,
    /// We made a user namespace, which cannot be left again.
    unshared: bool,
    /// newuidmap worked but newgidmap did not.
    uids_written: bool,
}

pub(super) fn climb(request: &Request) -> Result<Entered, Error> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let mut climb = Climb { request, uid, gid, refused: Vec::new(), unshared: false, uids_written: false };
    for rung in [Rung::Root, Rung::Full, Rung::Single] {
        if request.pinned.or(request.keep.map(|_| Rung::Full)).is_some_and(|pinned| pinned != rung) {
            continue;
        }
        let taken = match rung {
            Rung::Root => climb.root(),
            Rung::Full => climb.full(),
            _ => climb.single(),
        };
        match taken {
            Ok(()) => return climb.arrived(rung),
            Err(why) => climb.refused.push((rung, why)),
        }
    }
    match (request.pinned.or(request.keep.map(|_| Rung::Full)), climb.refused.pop()) {
        (Some(rung), Some((_, why))) => Err(Error::Refused { rung, why }),
        (_, last) => {
            climb.refused.extend(last);
            climb.arrived(Rung::None)
        }
    }
}

pub(super) fn join(pid: i32) -> Result<Entered, Error> {
    let uid = rustix::process::geteuid().as_raw();
    let gid = rustix::process::getegid().as_raw();
    let failed = |why: String| Error::Join { pid, why };
    let raw = rustix::process::Pid::from_raw(pid).ok_or_else(|| failed("there is no such process".into()))?;
    let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty())
        .map_err(|error| failed(error.to_string()))?;
    ns::join(pidfd.as_fd(), libc::CLONE_NEWUSER).map_err(|error| failed(describe(&error)))?;
    ns::unshare(libc::CLONE_NEWNS).map_err(|error| failed(describe(&error)))?;
    let map = read_maps();
    let own = inside(&map, uid, gid);
    settle(own).map_err(failed)?;
    let mapped_ids = mapped_ids(&map);
    let rung = if mapped_ids > 1 { Rung::Full } else { Rung::Single };
    Ok(Entered { rung, refused: Vec::new(), map, mapped_ids, own })
}

/// Where we are already, if we have the powers of root there and many ids; nothing is entered.
pub(super) fn present() -> Option<Entered> {
    let map = read_maps();
    let mapped_ids = mapped_ids(&map);
    let powers = rustix::process::geteuid().is_root() && has_sys_admin() && mapped_ids > 1;
    powers.then(|| Entered { rung: Rung::Root, refused: Vec::new(), map, mapped_ids, own: (0, 0) })
}

impl Climb<'_> {
    /// Root, or uid 0 of a namespace that somebody else mapped many ids into.
    fn root(&mut self) -> Result<(), String> {
        if self.uid != 0 {
            return Err(format!("we are not root but user {}", self.uid));
        }
        if !has_sys_admin() {
            return Err("we are root without the capability CAP_SYS_ADMIN".to_owned());
        }
        let map = read_maps();
        if mapped_ids(&map) <= 1 {
            return Err("we are root of a user namespace with a single id".to_owned());
        }
        unshare_mounts()
    }

    fn full(&mut self) -> Result<(), String> {
        let (map, helpers) = match self.own_map() {
            Some(map) => (map, [None, None]),
            None => (self.full_map()?, [Some(self.helper(Kind::Users)?), Some(self.helper(Kind::Groups)?)]),
        };
        let mut jobs = Vec::new();
        for (helper, (kind, map)) in helpers.iter().zip([(Kind::Users, &map.uids), (Kind::Groups, &map.gids)])
        {
            jobs.push(MapJob::prepare(helper.as_deref(), kind, map).map_err(|error| describe(&error))?);
        }
        self.unshare()?;
        for job in &jobs {
            job.go();
        }
        let mut failed = None;
        for job in jobs {
            match job.finish() {
                Ok(Kind::Users) => self.uids_written = true,
                Ok(Kind::Groups) => {}
                Err(why) => failed = failed.or(Some(why)),
            }
        }
        if let Some(why) = failed {
            return Err(refusal::powerless(&why));
        }
        settle(self.request.keep.unwrap_or_default())
    }

    /// What root may map by itself: every id it has.
    fn own_map(&self) -> Option<IdMap> {
        if self.request.keep.is_some() {
            return None;
        }
        use rustix::thread::{CapabilitySet, capabilities};
        let needed = CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SETFCAP;
        let may = self.uid == 0 && capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
        let identity =
            |ranges: Vec<IdRange>| ranges.into_iter().map(|r| IdRange { outside: r.inside, ..r }).collect();
        let map = read_maps();
        (may && mapped_ids(&map) > 1).then(|| IdMap { uids: identity(map.uids), gids: identity(map.gids) })
    }

    fn full_map(&self) -> Result<IdMap, String> {
        let name = self.request.user.clone().or_else(|| subid::user_name(self.uid));
        if self.uid == 0 && self.request.keep.is_some() {
            return Err("root cannot be kept: it is root in its containers already".to_owned());
        }
        let keep = self.request.keep.unwrap_or_default();
        let half = |kind: Kind, own: u32, at: u32| {
            let ranges = subid::ranges(kind, self.uid, name.as_deref(), &self.request.path);
            let map = subid::map_of(own, at, &ranges);
            if map.len() > 1 {
                return Ok(map);
            }
            let who = name.clone().unwrap_or_else(|| self.uid.to_string());
            Err(format!("{} has no entry for user `{who}`", kind.file()))
        };
        Ok(IdMap { uids: half(Kind::Users, self.uid, keep.0)?, gids: half(Kind::Groups, self.gid, keep.1)? })
    }

    fn helper(&self, kind: Kind) -> Result<PathBuf, String> {
        let name = kind.helper();
        subid::find_program(name, &self.request.path)
            .ok_or_else(|| format!("`{name}` is not installed (package uidmap or shadow-utils)"))
    }

    /// One id: ours is 0, and groups cannot be changed.
    fn single(&mut self) -> Result<(), String> {
        let already = self.uid == 0 && !self.unshared && has_sys_admin() && mapped_ids(&read_maps()) == 1;
        if already {
            return unshare_mounts();
        }
        if !self.unshared {
            self.unshare()?;
        }
        let write = |file: &str, text: String| {
            std::fs::write(Path::new("/proc/self").join(file), text)
                .map_err(|error| refusal::powerless(&format!("writing /proc/self/{file}: {error}")))
        };
        write("setgroups", "deny".to_owned())?;
        if !self.uids_written {
            write("uid_map", format!("0 {} 1", self.uid))?;
        }
        write("gid_map", format!("0 {} 1", self.gid))?;
        become_root()
    }

    fn unshare(&mut self) -> Result<(), String> {
        ns::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
            .map_err(|error| refusal::unshare(error.errno()))?;
        self.unshared = true;
        Ok(())
    }

    fn arrived(&mut self, rung: Rung) -> Result<Entered, Error> {
        let map = read_maps();
        let mapped_ids = if rung == Rung::None { 1 } else { mapped_ids(&map) };
        let own = self.request.keep.unwrap_or_default();
        Ok(Entered { rung, refused: std::mem::take(&mut self.refused), map, mapped_ids, own })
    }
}

fn unshare_mounts() -> Result<(), String> {
    ns::unshare(libc::CLONE_NEWNS).map_err(|error| describe(&error))?;
    slave_mounts()
}

/// Mounts of the host keep arriving here, ours never travel back.
fn slave_mounts() -> Result<(), String> {
    use rustix::mount::{MountPropagationFlags as Flags, mount_change};
    mount_change("/", Flags::DOWNSTREAM | Flags::REC)
        .map_err(|error| refusal::powerless(&format!("making the mounts our own: {error}")))
}

/// The last steps of both rungs with a namespace of our own.
fn become_root() -> Result<(), String> {
    use rustix::process::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let failed = |what: &str, error: rustix::io::Errno| refusal::powerless(&format!("{what}: {error}"));
    // One thread is all there is, so the per-thread calls suffice. The single rung forbids setgroups; the groups that
    // stay are the user's own, and only take rights away inside.
    let _ = set_thread_groups(&[]);
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).map_err(|e| failed("becoming group 0", e))?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).map_err(|e| failed("becoming user 0", e))?;
    slave_mounts()
}

/// Whom the user of the parent namespace is in a map: root where the map does not say.
fn inside(map: &IdMap, uid: u32, gid: u32) -> (u32, u32) {
    let find = |ranges: &[IdRange], id: u32| {
        ranges.iter().find_map(|range| {
            let at = id.checked_sub(range.outside).filter(|at| *at < range.count)?;
            range.inside.checked_add(at)
        })
    };
    (find(&map.uids, uid).unwrap_or(0), find(&map.gids, gid).unwrap_or(0))
}

/// Become root of the namespace, or stay the user that we are: with every power of root's, which programs that we start
/// are to have too.
fn settle(own: (u32, u32)) -> Result<(), String> {
    if own == (0, 0) {
        return become_root();
    }
    let failed = |what: &str, error: &dyn std::fmt::Display| refusal::powerless(&format!("{what}: {error}"));
    let _ = rustix::thread::set_thread_groups(&[]);
    let mut sets =
        rustix::thread::capabilities(None).map_err(|error| failed("reading our capabilities", &error))?;
    sets.inheritable = sets.permitted;
    rustix::thread::set_capabilities(None, sets)
        .map_err(|error| failed("keeping our capabilities", &error))?;
    for capability in caps::all() {
        // Those that the kernel does not know cannot be had.
        let _ = caps::raise(None, caps::CapSet::Ambient, capability);
    }
    slave_mounts()
}

fn has_sys_admin() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}

/// An error with its cause, in one line: the refusals are for people.
fn describe(error: &SysError) -> String {
    format!("{error}: {}", error.source)
}

/// One half of the map: a child outside that waits for the word to go.
struct MapJob {
    kind: Kind,
    program: Option<PathBuf>,
    pid: i32,
    go: OwnedFd,
    said: OwnedFd,
}

impl MapJob {
    fn prepare(program: Option<&Path>, kind: Kind, map: &[IdRange]) -> SysResult<Self> {
        let failed = |error| SysError::new("make", "a pipe", std::io::Error::from(error));
        let (wait, go) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let (said, tell) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        let own = rustix::process::getpid().as_raw_nonzero().get();
        let pid = match fork()? {
            Forked::Parent(pid) => pid,
            Forked::Child => {
                let _guard = NeverReturn;
                drop(go);
                // Without the word (the parent failed to unshare) there is nothing to do.
                if retry_on_intr(|| rustix::io::read(&wait, &mut [0u8; 1])) != Ok(1) {
                    exit_now(0);
                }
                match program {
                    Some(program) => run_helper(&tell, &arguments(program, own, map)),
                    None => write_map(&tell, kind, own, map),
                }
            }
        };
        Ok(Self { kind, program: program.map(Path::to_owned), pid, go, said })
    }

    fn go(&self) {
        // Failure means that the child is gone, which `finish` will see.
        let _ = retry_on_intr(|| rustix::io::write(&self.go, b"g"));
    }

    fn finish(self) -> Result<Kind, String> {
        drop(self.go);
        let mut said = String::new();
        let _ = std::fs::File::from(self.said).take(4096).read_to_string(&mut said);
        match wait_pid(self.pid) {
            Ok(0) => Ok(self.kind),
            _ => Err(self.program.map_or(said.clone(), |program| refusal::helper(&program, &said))),
        }
    }
}

fn arguments(program: &Path, own: i32, map: &[IdRange]) -> Vec<std::ffi::CString> {
    let mut args = vec![program.as_os_str().as_encoded_bytes().to_vec(), own.to_string().into_bytes()];
    for range in map {
        args.extend([range.inside, range.outside, range.count].map(|n| n.to_string().into_bytes()));
    }
    args.into_iter().filter_map(|arg| std::ffi::CString::new(arg).ok()).collect()
}

/// In the child: become the program.
fn run_helper(tell: &OwnedFd, args: &[std::ffi::CString]) -> ! {
    if let Ok(null) = rustix::fs::openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()) {
        let _ = exec::place_descriptor(null.as_fd(), 0);
        let _ = exec::place_descriptor(null.as_fd(), 1);
    }
    let _ = exec::place_descriptor(tell.as_fd(), 2);
    if let Some(program) = args.first() {
        let _ = exec::execve(program, args, &[]);
    }
    exit_now(127)
}

/// In the child: write the map of the parent, in one write as the kernel wants it.
fn write_map(tell: &OwnedFd, kind: Kind, own: i32, map: &[IdRange]) -> ! {
    let lines = map.iter().map(|r| format!("{} {} {}\n", r.inside, r.outside, r.count));
    let path = format!("/proc/{own}/{}", kind.map_file());
    match std::fs::write(&path, lines.collect::<String>()) {
        Ok(()) => exit_now(0),
        Err(error) => {
            let text = format!("writing {path}: {error}");
            let _ = retry_on_intr(|| rustix::io::write(tell, text.as_bytes()));
            exit_now(1)
        }
    }
}

/// The maps of the namespace we are in.
pub(super) fn read_maps() -> IdMap {
    let half = |file: &str| parse_map(&subid::read_small(Path::new(file)).unwrap_or_default());
    IdMap { uids: half("/proc/self/uid_map"), gids: half("/proc/self/gid_map") }
}

fn parse_map(text: &str) -> Vec<IdRange> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().map(str::parse);
            let mut next = || fields.next()?.ok();
            Some(IdRange { inside: next()?, outside: next()?, count: next()? })
        })
        .collect()
}

/// How far the ids from 0 on are mapped without a gap, for users and groups alike.
pub(super) fn mapped_ids(map: &IdMap) -> u32 {
    let half = |ranges: &[IdRange]| {
        let mut sorted: Vec<_> = ranges.iter().map(|r| (r.inside, r.count)).collect();
        sorted.sort_unstable();
        sorted.iter().fold(
            0u32,
            |end, &(inside, count)| {
                if inside <= end { end.max(inside.saturating_add(count)) } else { end }
            },
        )
    };
    half(&map.uids).min(half(&map.gids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn map_files() {
        let map = parse_map("         0       1001          1\n         1     100000      65536\n");
        assert_eq!(map.len(), 2);
        let ids = IdMap { uids: map.clone(), gids: map };
        assert_eq!(mapped_ids(&ids), 65537);
        let all = parse_map("         0          0 4294967295\n");
        assert_eq!(mapped_ids(&IdMap { uids: all.clone(), gids: all.clone() }), u32::MAX);
        let gap = parse_map("0 5 10\n20 100 10\n");
        assert_eq!(mapped_ids(&IdMap { uids: gap, gids: all }), 10);
        assert_eq!(mapped_ids(&IdMap::default()), 0);
    }
}
