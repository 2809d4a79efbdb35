//! The socket of an SSH agent for one step: its own, with the owner and mode that the mount asks for, and behind it the
//! user's agent. A step may list keys and sign with them; it can neither add, remove nor lock them, as with BuildKit.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

/// Longest message of the protocol, in bytes; OpenSSH's limit.
const MESSAGE_MAX: u32 = 256 << 10;
/// How many programs of a step may talk to the agent at once; more are turned away.
const CONNECTIONS_MAX: usize = 64;
/// `SSH_AGENTC_REQUEST_IDENTITIES` and `SSH_AGENTC_SIGN_REQUEST` (RFC 9987, section 6.1).
const ALLOWED: [u8; 2] = [11, 13];
/// `SSH_AGENT_FAILURE`, as a whole message.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// A socket in a directory, served until this is dropped.
#[derive(Debug)]
pub(super) struct Forward {
    /// The socket.
    pub path: PathBuf,
    /// Closed to end the thread.
    _stop: OwnedFd,
}

impl Forward {
    /// Listen in `dir`, which is private, and pass on what comes to the socket `agent`.
    ///
    /// # Errors
    /// When the socket cannot be made or be given to its owner.
    pub fn start(dir: &Path, agent: &Path, mode: u32, owner: (u32, u32)) -> io::Result<Self> {
        let path = dir.join("agent");
        // A socket's address is short; a store's path need not be.
        let held = fs::File::open(dir)?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/agent", held.as_raw_fd()))?;
        std::os::unix::fs::chown(&path, Some(owner.0), Some(owner.1))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        listener.set_nonblocking(true)?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC)?;
        let agent = agent.to_owned();
        std::thread::Builder::new()
            .name("ssh agent".into())
            .spawn(move || serve(&listener, &stopped, &agent))?;
        Ok(Self { path, _stop: stop })
    }
}

fn serve(listener: &UnixListener, stopped: &OwnedFd, agent: &Path) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(_) => return,
        }
        if !fds[1].revents().is_empty() {
            return;
        }
        // Whoever is turned away, or gives up meanwhile, sees a closed connection: that is all there is to say.
        let Ok((client, _)) = listener.accept() else { continue };
        if open.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            continue;
        }
        open.fetch_add(1, Ordering::Relaxed);
        let (counted, agent) = (Arc::clone(&open), agent.to_owned());
        let talk = move || {
            let _ = relay(client, &agent);
            counted.fetch_sub(1, Ordering::Relaxed);
        };
        if std::thread::Builder::new().name("ssh client".into()).spawn(talk).is_err() {
            open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Answer one program until it goes.
fn relay(mut client: UnixStream, agent: &Path) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let mut agent = UnixStream::connect(agent)?;
    loop {
        let request = message(&mut client)?;
        if request.get(4).is_some_and(|kind| ALLOWED.contains(kind)) {
            agent.write_all(&request)?;
            client.write_all(&message(&mut agent)?)?;
        } else {
            client.write_all(&FAILURE)?;
        }
    }
}

/// One message with its length before it.
fn message(from: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let size = u32::from_be_bytes(length);
    if size == 0 || size > MESSAGE_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut whole = length.to_vec();
    from.take(size.into()).read_to_end(&mut whole)?;
    if whole.len() as u64 != u64::from(size) + 4 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_and_used_and_never_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (agent, private) = (dir.path().join("real"), dir.path().join("private"));
        fs::create_dir(&private).unwrap();
        let real = UnixListener::bind(&agent).unwrap();
        let serving = std::thread::spawn(move || {
            let (mut stream, _) = real.accept().unwrap();
            let mut seen = Vec::new();
            while let Ok(request) = message(&mut stream) {
                seen.push(request[4]);
                stream.write_all(&[0, 0, 0, 2, 12, request[4]]).unwrap();
            }
            seen
        });
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let forward = Forward::start(&private, &agent, 0o640, own).unwrap();
        assert_eq!(fs::metadata(&forward.path).unwrap().permissions().mode() & 0o7777, 0o640);
        let mut client = UnixStream::connect(&forward.path).unwrap();
        for (kind, answer) in
            [(11, vec![12, 11]), (19, vec![5]), (17, vec![5]), (27, vec![5]), (13, vec![12, 13])]
        {
            client.write_all(&[0, 0, 0, 1, kind]).unwrap();
            assert_eq!(message(&mut client).unwrap()[4..], answer, "{kind}");
        }
        client.write_all(&[0xff; 4]).unwrap();
        assert!(message(&mut client).is_err(), "a message of 4 GB ends the connection");
        assert_eq!(serving.join().unwrap(), [11, 13]);
        let path = forward.path.clone();
        drop(forward);
        let refused = || UnixStream::connect(&path).is_err();
        for _ in 0..100 {
            if refused() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the socket outlives the step");
    }
}
