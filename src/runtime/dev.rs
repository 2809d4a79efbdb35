//! `/dev`: a tmpfs with the usual nodes, bound from the host and checked to be what they are called.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, FileType, Mode, OFlags, major, minor};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};

use super::mounts::{attach, clone_tree, new_mount};
use super::rootfs::{Kind, Rootfs, Step};
use super::{Plan, StepFailure};
use crate::sys::tty;

/// Name, major and minor number (Linux, `admin-guide/devices.txt`).
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// The terminals' file system of the container and its `/dev`, when one was mounted.
#[derive(Debug, Default)]
pub(super) struct Pts {
    mounts: Option<(OwnedFd, OwnedFd)>,
}

/// A detached copy of a host device node, verified (an image, or a planted file, cannot stand in for it).
pub(super) fn host_node(name: &str) -> Result<OwnedFd, Errno> {
    let (_, wanted_major, wanted_minor) = NODES.iter().find(|node| node.0 == name).ok_or(Errno::NODEV)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    let node = open_tree(CWD, format!("/dev/{name}"), flags)?;
    let stat = rustix::fs::fstat(&node)?;
    let right = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && major(stat.st_rdev) == *wanted_major
        && minor(stat.st_rdev) == *wanted_minor;
    if right { Ok(node) } else { Err(Errno::NODEV) }
}

pub(super) fn mount_dev(
    root: &Rootfs<'_>,
    target: &str,
    shm_size: u64,
    plan: &Plan,
) -> Result<Pts, StepFailure> {
    let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let settings = [("mode", Some("755")), ("size", Some("65536k"))];
    let mut attrs = nosuid | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    if !plan.devices {
        // The usual nodes are mounts of their own.
        attrs |= MountAttrFlags::MOUNT_ATTR_NODEV;
    }
    let dev = new_mount("tmpfs", &settings, attrs).step("mount", "/dev")?;
    let place = root.ensure(target, Kind::Directory, None).step("prepare", format!("`{target}`"))?;
    attach(dev.as_fd(), place.as_fd()).step("mount on", format!("`{target}`"))?;
    for (name, ..) in NODES {
        bind_node(&dev, name).step("provide", format!("/dev/{name}"))?;
    }
    for (to, name) in LINKS {
        rustix::fs::symlinkat(to, &dev, name).step("link", format!("/dev/{name}"))?;
    }
    let quiet = nosuid | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let size = shm_size.to_string();
    let mut shm = vec![("mode", Some("1777"))];
    if shm_size > 0 {
        shm.push(("size", Some(&size)));
    }
    let shm = new_mount("tmpfs", &shm, quiet | MountAttrFlags::MOUNT_ATTR_NODEV);
    attach_in(&dev, "shm", shm.step("mount", "/dev/shm")?.as_fd()).step("mount", "/dev/shm")?;
    mount_mqueue(&dev, plan.namespaces.ipc);
    let pts = mount_pts(quiet).step("mount", "/dev/pts")?;
    attach_in(&dev, "pts", pts.as_fd()).step("mount", "/dev/pts")?;
    Ok(Pts { mounts: Some((dev, pts)) })
}

/// Message queues go with the IPC namespace; without one of our own the kernel refuses, and nobody misses them.
fn mount_mqueue(dev: &OwnedFd, own_ipc: bool) {
    let attrs = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    if let (true, Ok(mqueue)) = (own_ipc, new_mount("mqueue", &[], attrs)) {
        let _ = attach_in(dev, "mqueue", mqueue.as_fd());
    }
}

/// Terminals belong to group 5 (tty), where that group is mapped.
fn mount_pts(attrs: MountAttrFlags) -> Result<OwnedFd, Errno> {
    let settings =
        [("newinstance", None), ("ptmxmode", Some("0666")), ("mode", Some("0620")), ("gid", Some("5"))];
    match new_mount("devpts", &settings, attrs) {
        Err(Errno::INVAL) => new_mount("devpts", &settings[..3], attrs),
        other => other,
    }
}

fn attach_in(dev: &OwnedFd, name: &str, tree: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    attach(tree, rustix::fs::openat(dev, name, flags, Mode::empty())?.as_fd())
}

fn bind_node(dev: &OwnedFd, name: &str) -> Result<(), Errno> {
    attach(host_node(name)?.as_fd(), empty_file(dev, name)?.as_fd())
}

fn empty_file(dev: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    rustix::fs::openat(dev, name, flags, Mode::from_raw_mode(0o666))
}

/// A terminal: both sides, of that size.
#[derive(Debug)]
pub(super) struct Terminal {
    pub(super) master: OwnedFd,
    pub(super) slave: OwnedFd,
}

impl Pts {
    /// Open a terminal, give it its size, and bind it to `/dev/console`.
    pub(super) fn open(&self, rows: u16, columns: u16, owner: u32) -> Result<Terminal, StepFailure> {
        let (dev, pts) = self.mounts.as_ref().ok_or(Errno::NODEV).step("open", "a terminal without /dev")?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master = rustix::fs::openat(pts, "ptmx", flags, Mode::empty()).step("open", "/dev/pts/ptmx")?;
        let terminal = open_slave(master, rows, columns, owner)?;
        let number = rustix::fs::fstat(&terminal.slave).map(|stat| minor(stat.st_rdev));
        let node = number.and_then(|number| clone_tree(pts.as_fd(), &number.to_string(), false));
        let console = empty_file(dev, "console").and_then(|file| attach(node?.as_fd(), file.as_fd()));
        console.step("provide", "/dev/console")?;
        Ok(terminal)
    }
}

/// The other side of a master, opened through the master itself so that no path is involved.
pub(super) fn open_slave(
    master: OwnedFd,
    rows: u16,
    columns: u16,
    owner: u32,
) -> Result<Terminal, StepFailure> {
    use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
    tty::unlock(master.as_fd()).step("unlock", "the terminal")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let slave = ioctl_tiocgptpeer(&master, flags).step("open", "the terminal")?;
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&slave, size).step("size", "the terminal")?;
    if owner != 0 {
        rustix::fs::fchown(&slave, Some(rustix::fs::Uid::from_raw(owner)), None)
            .step("own", "the terminal")?;
    }
    Ok(Terminal { master, slave })
}
