//! Starting write-back early, so that the sync at the end of a long file is short (`man 2 sync_file_range`).
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

/// Ask the kernel to start writing `length` bytes from `offset` on to disk. Only a hint: nothing is promised, failures
/// do not matter, and durability still needs a sync.
pub fn start_writeback(file: impl AsFd, offset: u64, length: u64) {
    let (Ok(offset), Ok(length)) = (i64::try_from(offset), i64::try_from(length)) else { return };
    // SAFETY: the call takes a descriptor, which `file` keeps open, and numbers; it touches no memory of ours.
    unsafe {
        libc::sync_file_range(file.as_fd().as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE);
    }
}
