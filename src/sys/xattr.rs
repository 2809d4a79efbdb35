//! Extended attributes of open files (xattr(7)). A file system without them answers as one that has none.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::{SysError, SysResult};

/// The value of an attribute, if it is set.
///
/// # Errors
/// When it cannot be read.
pub fn get(fd: impl AsFd, name: &str) -> SysResult<Option<Vec<u8>>> {
    let fd = fd.as_fd();
    // Every value we look for is short; a longer one costs a second call.
    let mut value = vec![0_u8; 256];
    loop {
        match rustix::fs::fgetxattr(fd, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(Errno::RANGE) => value.resize(64 * 1024 + 1, 0),
            Err(errno) => return Err(SysError::new("read attribute", name, errno)),
        }
    }
}

/// Set an attribute, whether it was set or not.
///
/// # Errors
/// As setxattr(2).
pub fn set(fd: impl AsFd, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    rustix::fs::fsetxattr(fd, OsStr::from_bytes(name), value, XattrFlags::empty())
}

/// Remove an attribute; one that is not set is no error.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(fd: impl AsFd, name: &str) -> SysResult<()> {
    match rustix::fs::fremovexattr(fd, name) {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(SysError::new("remove attribute", name, errno)),
    }
}

/// The names of all attributes.
///
/// # Errors
/// When they cannot be listed.
pub fn list(fd: impl AsFd) -> SysResult<Vec<Vec<u8>>> {
    let fd = fd.as_fd();
    let mut names = vec![0_u8; 1024];
    loop {
        match rustix::fs::flistxattr(fd, &mut names[..]) {
            Ok(length) => {
                let all = names[..length].split(|byte| *byte == 0);
                return Ok(all.filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect());
            }
            Err(Errno::RANGE) if names.len() < 64 * 1024 => names.resize(64 * 1024, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(SysError::new("list attributes of", "an open file", errno)),
        }
    }
}
