//! The mount list, walked by one loop. Everything is mounted by descriptor, so no path is looked up twice.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::dev::{self, Pts};
use super::rootfs::{Kind, Rootfs, Step, failure};
use super::{BindOptions, MountOp, Plan, StepFailure};
use crate::sys::mount_attr::{MountAttr, NO_DEV, NO_EXEC, NO_SUID, READ_ONLY, mount_setattr};

/// `PROC_SUPER_MAGIC` (`man 2 statfs`).
const PROC_MAGIC: i64 = 0x9fa0;
/// `CGROUP2_SUPER_MAGIC`
const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// The inode of the top directory of every procfs.
const PROC_ROOT_INODE: u64 = 1;

/// Small files of the container's own and the empty directory for masks: one tmpfs that has no name in the container.
#[derive(Debug)]
pub(super) struct Scratch {
    tmpfs: OwnedFd,
    files: usize,
    /// The first copy of the empty directory, made to find out whether it can be.
    spare: Option<OwnedFd>,
    attached: bool,
}

impl Scratch {
    /// Mount it, detached where the kernel can copy parts of detached trees (Linux 6.15); else over `/`, where the
    /// container's root will cover it.
    pub(super) fn new() -> Result<Self, StepFailure> {
        let subject = "a tmpfs for generated files";
        let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let tmpfs = new_mount("tmpfs", &[("mode", Some("0700"))], attrs).step("mount", subject)?;
        rustix::fs::mkdirat(&tmpfs, "empty", Mode::from_raw_mode(0o555))
            .step("make", "an empty directory")?;
        match clone_tree(tmpfs.as_fd(), "empty", false) {
            Ok(spare) => Ok(Self { tmpfs, files: 0, spare: Some(spare), attached: false }),
            Err(Errno::INVAL) => {
                attach_over_root(tmpfs.as_fd()).step("attach", subject)?;
                Ok(Self { tmpfs, files: 0, spare: None, attached: true })
            }
            Err(error) => Err(error).step("copy", subject),
        }
    }

    /// Whether it lies over the old root.
    pub(super) fn attached(&self) -> bool {
        self.attached
    }

    /// A file with this content, ready to be attached.
    fn file(&mut self, content: &[u8], mode: u32) -> Result<OwnedFd, Errno> {
        let name = self.files.to_string();
        self.files += 1;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.tmpfs, &name, flags, Mode::from_raw_mode(0o600))?;
        let mut rest = content;
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest))?;
            rest = rest.get(written..).unwrap_or_default();
        }
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
        clone_tree(self.tmpfs.as_fd(), &name, false)
    }

    fn empty_directory(&mut self) -> Result<OwnedFd, Errno> {
        if let Some(spare) = self.spare.take() {
            return Ok(spare);
        }
        clone_tree(self.tmpfs.as_fd(), "empty", false)
    }
}

/// Copies of the host's root for the binds of it, in their order: once the container's root lies over it, a copy would
/// take that along.
#[derive(Debug)]
pub(super) struct HostRoots(VecDeque<OwnedFd>);

impl HostRoots {
    /// Copy it as often as it is bound.
    pub(super) fn copy(plan: &Plan) -> Result<Self, StepFailure> {
        let wanted = plan.mounts.iter().filter_map(|op| match op {
            MountOp::Bind { source, recursive, options, .. } if is_host_root(source, options) => {
                Some(*recursive)
            }
            _ => None,
        });
        let copies = wanted.map(|recursive| open_source(Path::new("/"), recursive));
        copies.collect::<Result<_, _>>().map(Self).step("bind", "`/`")
    }
}

fn is_host_root(source: &Path, options: &BindOptions) -> bool {
    options.beneath.is_none() && source.canonicalize().is_ok_and(|source| source == Path::new("/"))
}

/// Walk the list. The terminals' file system, if one was mounted, comes back.
pub(super) fn mount_all(
    plan: &Plan,
    root: &Rootfs<'_>,
    scratch: &mut Option<Scratch>,
    host: &mut HostRoots,
) -> Result<Pts, StepFailure> {
    let mut pts = Pts::default();
    for op in &plan.mounts {
        match op {
            MountOp::Bind { source, target, read_only, recursive, propagation, options } => {
                let mut attrs = bind_attrs(*read_only, propagation).ok_or_else(|| {
                    failure("use", format!("the propagation `{propagation}`"), libc::EINVAL)
                })?;
                attrs.set |= if options.no_exec { NO_EXEC } else { 0 };
                attrs.set |= if options.no_suid { NO_SUID } else { 0 };
                let below = options.beneath.as_deref();
                let subject = format!(
                    "`{}`",
                    below.map_or(source.clone(), |path| source.join(path.trim_start_matches('/'))).display()
                );
                let tree = match is_host_root(source, options).then(|| host.0.pop_front()).flatten() {
                    Some(copy) => copy,
                    None => open_source_beneath(source, below, *recursive).step("bind", &subject)?,
                };
                if !plan.devices && !shows_devices(source) && kind_of(&tree) == Ok(Kind::Directory) {
                    attrs.set |= NO_DEV;
                }
                mount_setattr(tree.as_fd(), *recursive, attrs).step("bind", &subject)?;
                attach_at(root, &tree, target)?;
            }
            MountOp::File { content, target, mode, read_only } => {
                let scratch = scratch.as_mut().ok_or_else(|| failure("make", target, libc::EINVAL))?;
                let file = scratch.file(content, *mode).step("make", format!("the file for `{target}`"))?;
                let set = NO_SUID | NO_DEV | if *read_only { READ_ONLY } else { 0 };
                mount_setattr(file.as_fd(), false, MountAttr { set, ..MountAttr::default() })
                    .step("make", format!("the file for `{target}`"))?;
                attach_at(root, &file, target)?;
            }
            MountOp::Proc { target } => mount_proc(root, target)?,
            MountOp::Sys { target } => mount_sys(root, target)?,
            MountOp::Dev { target, shm_size } => {
                pts = dev::mount_dev(root, target, *shm_size, plan)?;
            }
            MountOp::Tmpfs { target, options } => {
                let tmpfs = tmpfs_of(options).step("mount", format!("a tmpfs ({options}) on `{target}`"))?;
                attach_at(root, &tmpfs, target)?;
            }
        }
    }
    Ok(pts)
}

/// Resolve the target (made when missing, as a file for a file) and mount on it.
fn attach_at(root: &Rootfs<'_>, tree: &OwnedFd, target: &str) -> Result<(), StepFailure> {
    let kind = kind_of(tree).step("look at", format!("what is mounted on `{target}`"))?;
    let place = target_of(root, target, kind)?;
    refuse_over_proc(tree, &place)?;
    attach(tree.as_fd(), place.as_fd()).step("mount on", format!("`{target}`"))
}

fn target_of(root: &Rootfs<'_>, target: &str, kind: Kind) -> Result<OwnedFd, StepFailure> {
    let subject = format!("`{target}` in the container");
    let place = root.ensure(target, kind, None).step("prepare", &subject)?;
    if kind_of(&place).step("look at", &subject)? != kind {
        let errno = if kind == Kind::Directory { libc::ENOTDIR } else { libc::EISDIR };
        return Err(failure("mount on", &subject, errno));
    }
    Ok(place)
}

/// A volume over `/proc` or inside it could forge what programs, and we, write to `/proc/self`. Over its top another proc
/// may lie: the host's, which somebody bound.
fn refuse_over_proc(tree: &OwnedFd, place: &OwnedFd) -> Result<(), StepFailure> {
    let is_proc = |fd: &OwnedFd| rustix::fs::fstatfs(fd).is_ok_and(|fs| fs.f_type == PROC_MAGIC);
    let at_its_top = || rustix::fs::fstat(place).is_ok_and(|stat| stat.st_ino == PROC_ROOT_INODE);
    if is_proc(place) && !(at_its_top() && is_proc(tree)) {
        return Err(failure("mount over", "/proc", libc::EPERM));
    }
    Ok(())
}

fn kind_of(fd: &OwnedFd) -> Result<Kind, Errno> {
    let stat = rustix::fs::fstat(fd)?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    Ok(if directory { Kind::Directory } else { Kind::File })
}

fn open_source(source: &std::path::Path, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, source, flags)
}

/// The source, or what lies in it: whoever may write there steers the links on the way, so none leads out.
fn open_source_beneath(
    source: &std::path::Path,
    below: Option<&str>,
    recursive: bool,
) -> Result<OwnedFd, Errno> {
    let Some(below) = below else { return open_source(source, recursive) };
    let top = rustix::fs::open(source, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let place = super::rootfs::open_in(top.as_fd(), below, OFlags::PATH)?;
    clone_tree(place.as_fd(), "", recursive)
}

fn bind_attrs(read_only: bool, propagation: &str) -> Option<MountAttr> {
    let propagation = match propagation {
        "" | "rprivate" | "private" => libc::MS_PRIVATE,
        "rslave" | "slave" => libc::MS_SLAVE,
        "rshared" | "shared" => libc::MS_SHARED,
        _ => return None,
    };
    Some(MountAttr { set: if read_only { READ_ONLY } else { 0 }, propagation, ..MountAttr::default() })
}

/// Whether somebody who binds this wants the host's devices: `/dev`, what is in it, or all that is.
fn shows_devices(source: &std::path::Path) -> bool {
    let dev = std::path::Path::new("/dev");
    source.starts_with(dev) || dev.starts_with(source)
}

/// Device files that lie in the root, of the image or made by the container, do nothing. Root's own container may make
/// any, as no device cgroup stands behind it: with them it could reach the host's disks.
pub(super) fn without_devices(root: BorrowedFd<'_>) -> Result<(), StepFailure> {
    let attr = MountAttr { set: NO_DEV, ..MountAttr::default() };
    mount_setattr(root, false, attr).step("forbid", "device files in the root")
}

/// A fresh proc shows only the container's processes. The kernel refuses it in a user namespace when the proc around us
/// is partly covered (a container in a container); the outer one is then better than none.
fn mount_proc(root: &Rootfs<'_>, target: &str) -> Result<(), StepFailure> {
    let subject = "proc";
    let proc = match new_mount("proc", &[], proc_attrs()) {
        Err(Errno::PERM) => {
            open_source(std::path::Path::new("/proc"), true).step("bind", "the outer /proc")?
        }
        other => other.step("mount", subject)?,
    };
    attach_at(root, &proc, target)?;
    root.anchor(target, proc);
    Ok(())
}

fn proc_attrs() -> MountAttrFlags {
    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC
}

/// `sysfs`, read-only. It belongs to a network namespace: with the host's network and a user namespace only the outer
/// one can be bound, which then brings the cgroup tree with it.
fn mount_sys(root: &Rootfs<'_>, target: &str) -> Result<(), StepFailure> {
    let attrs = proc_attrs() | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let read_only = MountAttr {
        set: READ_ONLY | NO_SUID | NO_DEV | NO_EXEC,
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    match new_mount("sysfs", &[], attrs) {
        Ok(sys) => {
            attach_at(root, &sys, target)?;
            mount_cgroup(&sys, read_only);
            root.anchor(target, sys);
        }
        Err(Errno::PERM) => {
            let sys = open_source(std::path::Path::new("/sys"), true).step("bind", "the outer /sys")?;
            mount_setattr(sys.as_fd(), true, read_only).step("bind", "the outer /sys")?;
            attach_at(root, &sys, target)?;
            root.anchor(target, sys);
        }
        Err(error) => return Err(error).step("mount", "sysfs"),
    }
    Ok(())
}

/// The cgroup tree, read-only: the container's own part with version 2 and a cgroup namespace, else the outer one. A
/// convenience for programs that read their limits, so nothing fails without it.
fn mount_cgroup(sys: &OwnedFd, read_only: MountAttr) {
    let path = "/sys/fs/cgroup";
    let Ok(outer) = rustix::fs::statfs(path) else { return };
    let attrs = proc_attrs() | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let fresh =
        if outer.f_type == CGROUP2_MAGIC { new_mount("cgroup2", &[], attrs) } else { Err(Errno::NODEV) };
    let tree = fresh.or_else(|_| {
        let tree = open_source(std::path::Path::new(path), true)?;
        mount_setattr(tree.as_fd(), true, read_only).map_err(|_| Errno::PERM)?;
        Ok::<_, Errno>(tree)
    });
    let place = super::rootfs::open_in(sys.as_fd(), "/fs/cgroup", OFlags::PATH);
    if let (Ok(tree), Ok(place)) = (tree, place) {
        let _ = attach(tree.as_fd(), place.as_fd());
    }
}

/// A tmpfs by the words of `mount -o`. Flags go to the mount, the rest to the file system. Safe unless told otherwise,
/// as docker's `--tmpfs`.
pub(super) fn tmpfs_of(options: &str) -> Result<OwnedFd, Errno> {
    let mut attrs = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mut settings: Vec<(&str, Option<&str>)> = Vec::new();
    for option in options.split(',').map(str::trim).filter(|option| !option.is_empty()) {
        match option {
            "ro" => attrs |= MountAttrFlags::MOUNT_ATTR_RDONLY,
            "rw" => attrs -= MountAttrFlags::MOUNT_ATTR_RDONLY,
            "exec" => attrs -= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "noexec" => attrs |= MountAttrFlags::MOUNT_ATTR_NOEXEC,
            "suid" => attrs -= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "nosuid" => attrs |= MountAttrFlags::MOUNT_ATTR_NOSUID,
            "dev" => attrs -= MountAttrFlags::MOUNT_ATTR_NODEV,
            "nodev" => attrs |= MountAttrFlags::MOUNT_ATTR_NODEV,
            "noatime" => attrs |= MountAttrFlags::MOUNT_ATTR_NOATIME,
            "nodiratime" => attrs |= MountAttrFlags::MOUNT_ATTR_NODIRATIME,
            "async" | "atime" | "relatime" | "defaults" => {}
            other => match other.split_once('=') {
                Some((key, value)) => settings.push((key, Some(value))),
                None => settings.push((other, None)),
            },
        }
    }
    if !settings.iter().any(|(key, _)| *key == "mode") {
        settings.push(("mode", Some("1777")));
    }
    new_mount("tmpfs", &settings, attrs)
}

/// A new file system, mounted but not attached.
pub(super) fn new_mount(
    kind: &str,
    settings: &[(&str, Option<&str>)],
    attrs: MountAttrFlags,
) -> Result<OwnedFd, Errno> {
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    // Shown as the device by mount and df.
    fsconfig_set_string(fs.as_fd(), "source", kind)?;
    for (key, value) in settings {
        match value {
            Some(value) => fsconfig_set_string(fs.as_fd(), *key, *value)?,
            None => fsconfig_set_flag(fs.as_fd(), *key)?,
        }
    }
    fsconfig_create(fs.as_fd())?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attrs)
}

/// A detached copy of the mount at `path` (itself when empty) beneath a descriptor.
pub(super) fn clone_tree(at: BorrowedFd<'_>, path: &str, recursive: bool) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(at, path, flags)
}

/// Attach a detached mount at an open place.
pub(super) fn attach(tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", place, "", flags)
}

/// Attach a detached mount on top of whatever is mounted over `/`.
pub(super) fn attach_over_root(tree: BorrowedFd<'_>) -> Result<(), Errno> {
    move_mount(tree, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Hide paths: files under the host's null device, directories under an empty one. What is not there needs no mask.
pub(super) fn mask(
    paths: &[String],
    root: &Rootfs<'_>,
    mut scratch: Option<&mut Scratch>,
) -> Result<(), StepFailure> {
    let read_only = MountAttr { set: READ_ONLY | NO_SUID | NO_DEV | NO_EXEC, ..MountAttr::default() };
    for path in paths {
        let subject = format!("`{path}`");
        let Some((place, kind)) = existing(root, path)? else { continue };
        let cover = match (kind, scratch.as_deref_mut()) {
            (Kind::Directory, Some(scratch)) => {
                let empty = scratch.empty_directory().step("mask", &subject)?;
                mount_setattr(empty.as_fd(), false, read_only).step("mask", &subject)?;
                empty
            }
            _ => dev::host_node("null").step("mask", &subject)?,
        };
        attach(cover.as_fd(), place.as_fd()).step("mask", &subject)?;
    }
    Ok(())
}

/// Make paths read-only, with the mounts below them.
pub(super) fn read_only(paths: &[String], root: &Rootfs<'_>) -> Result<(), StepFailure> {
    for path in paths {
        let subject = format!("`{path}` read-only");
        let Some((place, _)) = existing(root, path)? else { continue };
        let tree = clone_tree(place.as_fd(), "", true).step("make", &subject)?;
        let attr = MountAttr { set: READ_ONLY, ..MountAttr::default() };
        mount_setattr(tree.as_fd(), true, attr).step("make", &subject)?;
        attach(tree.as_fd(), place.as_fd()).step("make", &subject)?;
    }
    Ok(())
}

fn existing(root: &Rootfs<'_>, path: &str) -> Result<Option<(OwnedFd, Kind)>, StepFailure> {
    match root.open(path) {
        Ok(place) => {
            let kind = kind_of(&place).step("look at", format!("`{path}`"))?;
            Ok(Some((place, kind)))
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error).step("look at", format!("`{path}`")),
    }
}
