//! How overlayfs, mounted with `userxattr`, tells deletions on disk (kernel documentation, overlayfs.rst, "Whiteouts
//! and opaque directories").

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, Stat};

use crate::sys::{SysResult, xattr};

/// Attribute of a directory.
pub(super) const OPAQUE: &str = "user.overlay.opaque";
/// Attribute of an empty file that stands for a whiteout.
pub(super) const WHITEOUT: &str = "user.overlay.whiteout";
/// Value: the directory hides all below; the file is a whiteout.
pub(super) const YES: &[u8] = b"y";
/// Value of [`OPAQUE`]: the directory has files that stand for whiteouts.
pub(super) const HAS_WHITEOUTS: &[u8] = b"x";

/// What a directory says of the layers below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// Nothing.
    No,
    /// All they have in it is hidden.
    Opaque,
    /// Some of its empty files stand for whiteouts.
    HasWhiteouts,
}

/// What an open directory (not `O_PATH`) says of the layers below it.
///
/// # Errors
/// When its attributes cannot be read.
pub fn marked(dir: impl AsFd) -> SysResult<Marked> {
    Ok(match xattr::get(dir, OPAQUE)?.as_deref() {
        Some(YES) => Marked::Opaque,
        Some(HAS_WHITEOUTS) => Marked::HasWhiteouts,
        _ => Marked::No,
    })
}

/// Whether an unpacked layer hides everything of the layers below it (`.wh..wh..opq` in its root).
///
/// # Errors
/// When its root (not `O_PATH`) cannot be read.
pub fn hides_all_below(root: impl AsFd) -> SysResult<bool> {
    Ok(marked(root)? == Marked::Opaque)
}

/// Whether a name with this status, in a directory with this mark, is a whiteout.
///
/// # Errors
/// When it cannot be opened for its attributes.
pub fn is_whiteout(dir: impl AsFd, name: &std::ffi::OsStr, stat: &Stat, mark: Marked) -> SysResult<bool> {
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFCHR => Ok(stat.st_rdev == 0),
        libc::S_IFREG if mark == Marked::HasWhiteouts && stat.st_size == 0 => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd: OwnedFd = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(errno) => return Err(crate::sys::SysError::path("open", name, errno)),
            };
            Ok(xattr::get(&fd, WHITEOUT)?.is_some())
        }
        _ => Ok(false),
    }
}
