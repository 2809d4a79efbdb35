//! Advisory locks on whole files (`man 2 flock`): they belong to the open file and go with its last descriptor, so a
//! dead process holds none, and closing another descriptor of the same file loses nothing (as fcntl locks would).

use std::os::fd::AsFd;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::{SysError, SysResult};

/// Try to lock at once; `false` when somebody else's lock is in the way.
///
/// # Errors
/// When the file system has no locks.
pub fn try_lock(file: impl AsFd, exclusive: bool) -> SysResult<bool> {
    let how = if exclusive {
        FlockOperation::NonBlockingLockExclusive
    } else {
        FlockOperation::NonBlockingLockShared
    };
    loop {
        match rustix::fs::flock(file.as_fd(), how) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(error) => return Err(SysError::new("lock", "a file of the store", error)),
        }
    }
}

/// Wait for the lock.
///
/// # Errors
/// When the file system has no locks.
pub fn lock(file: impl AsFd, exclusive: bool) -> SysResult<()> {
    let how = if exclusive { FlockOperation::LockExclusive } else { FlockOperation::LockShared };
    loop {
        match rustix::fs::flock(file.as_fd(), how) {
            Ok(()) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(SysError::new("lock", "a file of the store", error)),
        }
    }
}
