//! Terminals: what rustix does not offer.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::{SysError, SysResult};

/// Allow the other side of a new master to be opened.
///
/// # Errors
/// What the `TIOCSPTLCK` answers.
pub fn unlock(master: BorrowedFd<'_>) -> SysResult<()> {
    let locked: libc::c_int = 0;
    // SAFETY: the argument is an int, as this ioctl wants.
    match unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) } {
        0 => Ok(()),
        _ => Err(SysError::new("unlock", "a terminal", io::Error::last_os_error())),
    }
}

/// Make `terminal` the controlling terminal of this session, of which the caller is the leader.
///
/// # Errors
/// What `TIOCSCTTY` answers.
pub fn make_controlling(terminal: BorrowedFd<'_>) -> SysResult<()> {
    // SAFETY: the argument is an int by value.
    match unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) } {
        0 => Ok(()),
        _ => Err(SysError::new("take", "the controlling terminal", io::Error::last_os_error())),
    }
}
