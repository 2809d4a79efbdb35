//! The socket between a monitor and its clients: packets, so that each side reads whole messages.

use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with, socketpair};

use crate::sys::{SysError, SysResult};

/// How many clients may wait to be taken.
const BACKLOG: i32 = 16;

fn new() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
}

/// Both ends of a connection, for a monitor that is made with its first client.
///
/// # Errors
/// When there are no descriptors left.
pub fn pair() -> SysResult<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|error| SysError::new("make", "a socket pair", error))
}

/// Listen at a path where nothing is. The directory above is the user's alone, and so is the socket.
///
/// # Errors
/// Where the file system has no sockets.
pub fn listen(path: &Path) -> SysResult<OwnedFd> {
    let failed = |error: Errno| SysError::path("listen at", path, error);
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let socket = new().map_err(failed)?;
    rustix::net::bind(&socket, &address).map_err(failed)?;
    rustix::net::listen(&socket, BACKLOG).map_err(failed)?;
    rustix::io::ioctl_fionbio(&socket, true).map_err(failed)?;
    Ok(socket)
}

/// Reach the monitor that listens there; `None` when there is none.
///
/// # Errors
/// When something else stands in the way.
pub fn connect(path: &Path) -> SysResult<Option<OwnedFd>> {
    let failed = |error: Errno| SysError::path("connect to", path, error);
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    let socket = new().map_err(failed)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}
