//! `mount_setattr(2)`, which rustix lacks.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{SysError, SysResult};

/// The kernel's `struct mount_attr`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct MountAttr {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE`, `MS_UNBINDABLE`, or 0.
    pub propagation: u64,
    /// For id-mapped mounts.
    pub userns_fd: u64,
}

/// `MOUNT_ATTR_RDONLY`
pub const READ_ONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`
pub const NO_SUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`
pub const NO_DEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`
pub const NO_EXEC: u64 = 0x8;

/// Change the mount behind a descriptor, with those below it when `recursive`.
///
/// # Errors
/// What `mount_setattr(2)` answers (Linux 5.12); the subject is left to the caller.
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attr: MountAttr) -> SysResult<()> {
    const AT_RECURSIVE: libc::c_int = 0x8000;
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    let path = c"";
    // SAFETY: the path and the attributes are valid during the call, and the size is theirs.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<MountAttr>(),
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(SysError::new("change", "a mount", io::Error::last_os_error())),
    }
}
