//! Paths inside the container's root. Every lookup is `openat2` with `RESOLVE_IN_ROOT`: a symlink of the image, however
//! made, ends inside the root, and magic links (`/proc/self/fd/N`) are refused.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use super::StepFailure;
use super::channel::Teller;

/// Links followed while a missing path is made; as many as the kernel follows.
const MOST_LINKS: usize = 40;

/// What to make when a path is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// Give a failed call its step and subject.
pub(super) trait Step<T> {
    fn step(self, step: &str, subject: impl AsRef<str>) -> Result<T, StepFailure>;
}

impl<T> Step<T> for Result<T, Errno> {
    fn step(self, step: &str, subject: impl AsRef<str>) -> Result<T, StepFailure> {
        self.map_err(|errno| failure(step, subject, errno.raw_os_error()))
    }
}

impl<T> Step<T> for crate::sys::SysResult<T> {
    fn step(self, step: &str, subject: impl AsRef<str>) -> Result<T, StepFailure> {
        self.map_err(|error| failure(step, subject, error.errno().unwrap_or(libc::EIO)))
    }
}

pub(super) fn failure(step: &str, subject: impl AsRef<str>, errno: i32) -> StepFailure {
    StepFailure { step: step.to_owned(), subject: subject.as_ref().to_owned(), errno }
}

/// The root tree, and what of it is known by descriptor.
#[derive(Debug)]
pub(super) struct Rootfs<'a> {
    fd: BorrowedFd<'a>,
    teller: Option<Teller<'a>>,
    /// Mounts of ours by path: `/proc/...` is looked up in the proc that we mounted, whatever the image or a neighbour
    /// with a shared volume makes of the path meanwhile.
    anchors: RefCell<Vec<(String, OwnedFd)>>,
}

impl<'a> Rootfs<'a> {
    pub(super) fn new(fd: BorrowedFd<'a>, teller: Option<Teller<'a>>) -> Self {
        Self { fd, teller, anchors: RefCell::new(Vec::new()) }
    }

    pub(super) fn anchor(&self, path: &str, mount: OwnedFd) {
        self.anchors.borrow_mut().push((path.trim_end_matches('/').to_owned(), mount));
    }

    /// A descriptor (`O_PATH`) of an existing path.
    pub(super) fn open(&self, path: &str) -> Result<OwnedFd, Errno> {
        for (prefix, mount) in self.anchors.borrow().iter() {
            if let Some(rest) = path.strip_prefix(prefix.as_str()).filter(|rest| rest.starts_with('/')) {
                return open_in(mount.as_fd(), rest, OFlags::PATH);
            }
        }
        open_in(self.fd, path, OFlags::PATH)
    }

    /// A descriptor of a path, made (with the directories above it) when missing. `owner` is for what is made.
    pub(super) fn ensure(&self, path: &str, kind: Kind, owner: Option<(u32, u32)>) -> Result<OwnedFd, Errno> {
        self.ensure_linked(path, kind, owner, 0)
    }

    fn ensure_linked(
        &self,
        path: &str,
        kind: Kind,
        owner: Option<(u32, u32)>,
        links: usize,
    ) -> Result<OwnedFd, Errno> {
        match open_in(self.fd, path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            known => return known,
        }
        if links > MOST_LINKS {
            return Err(Errno::LOOP);
        }
        let (parent_path, name) = split(path).ok_or(Errno::NOENT)?;
        let parent = self.ensure_linked(parent_path, Kind::Directory, owner, links + 1)?;
        match make(parent.as_fd(), name, kind) {
            Ok(()) => {
                self.made(parent.as_fd(), parent_path, name, owner)?;
                open_in(self.fd, path, OFlags::PATH)
            }
            // A link that leads nowhere yet: make what it points to.
            Err(Errno::EXIST) => match rustix::fs::readlinkat(&parent, name, Vec::new()) {
                Ok(target) => {
                    let target = target.into_string().map_err(|_| Errno::INVAL)?;
                    let joined =
                        if target.starts_with('/') { target } else { format!("{parent_path}/{target}") };
                    self.ensure_linked(&joined, kind, owner, links + 1)
                }
                Err(Errno::INVAL) => open_in(self.fd, path, OFlags::PATH),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    fn made(
        &self,
        parent: BorrowedFd<'_>,
        parent_path: &str,
        name: &str,
        owner: Option<(u32, u32)>,
    ) -> Result<(), Errno> {
        use rustix::fs::{AtFlags, Gid, Uid, chownat};
        if let Some((uid, gid)) = owner {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        if let Some(teller) = self.teller {
            let parent = real_path(parent).unwrap_or_else(|| parent_path.to_owned());
            teller.stub(&format!("{}/{name}", parent.trim_end_matches('/')));
        }
        Ok(())
    }
}

/// The path of a directory without links, as the host's `/proc` tells it (the root is mounted over `/` by then).
fn real_path(fd: BorrowedFd<'_>) -> Option<String> {
    use std::os::fd::AsRawFd;
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::readlink(link, Vec::new()).ok()?.into_string().ok().filter(|path| path.starts_with('/'))
}

fn make(parent: BorrowedFd<'_>, name: &str, kind: Kind) -> Result<(), Errno> {
    match kind {
        Kind::Directory => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        Kind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}

/// Open beneath `root` as if it were `/`.
pub(super) fn open_in(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { "/" } else { path };
    loop {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename somewhere raced with a `..` of ours (`man 2 openat2`).
            Err(Errno::AGAIN) => {}
            other => return other,
        }
    }
}

/// The directory above and the last name; none for `/` and for names that are no name.
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "." => split(parent),
        "" | ".." => None,
        name => Some((parent, name)),
    }
}
