//! What the child tells its parent between fork and exec: messages over a close-on-exec socket pair.
//!
//! End of file after [`Message::Executing`] means that the program runs. Each message is one packet: a letter and its
//! fields, separated by zero bytes.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::{Error, StepFailure};
use crate::sys::{SysError, SysResult};

/// Longest packet; longer subjects are cut.
const LONGEST: usize = 8192;

/// One message of the child.
#[derive(Debug)]
pub(super) enum Message {
    /// The process id of the container's first process, told by the one that made it.
    Pid(i32),
    /// The master side of the terminal.
    Terminal(OwnedFd),
    /// A file or directory was made in the root to mount on.
    Stub(String),
    /// The next step is the exec.
    Executing,
    /// The end.
    Failed(Error),
}

/// Both ends, before the fork.
pub(super) fn pair() -> SysResult<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|error| SysError::new("make", "a socket pair", error))
}

/// The child's end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Teller<'a>(pub(super) BorrowedFd<'a>);

impl Teller<'_> {
    pub(super) fn pid(self, pid: i32) {
        self.send(b'P', &[&pid.to_string()], None);
    }

    pub(super) fn terminal(self, master: BorrowedFd<'_>) {
        self.send(b'T', &[], Some(master));
    }

    pub(super) fn stub(self, path: &str) {
        self.send(b'S', &[path], None);
    }

    pub(super) fn executing(self) {
        self.send(b'E', &[], None);
    }

    pub(super) fn failed(self, error: &Error) {
        match error {
            Error::Setup(failure) => self.failure(b'F', failure, &[]),
            Error::NotExecutable { program, source } => self.failure(b'X', source, &[program]),
            Error::NotFound { program, path: Some(path) } => self.send(b'N', &[program, path], None),
            Error::NotFound { program, path: None } => self.send(b'N', &[program], None),
            Error::Sys(error) => {
                let errno = error.errno().unwrap_or(libc::EIO);
                let failure =
                    StepFailure { step: error.operation.to_owned(), subject: error.subject.clone(), errno };
                self.failure(b'F', &failure, &[]);
            }
            other => {
                let failure = StepFailure {
                    step: "prepare".to_owned(),
                    subject: other.to_string(),
                    errno: libc::EINVAL,
                };
                self.failure(b'F', &failure, &[]);
            }
        }
    }

    fn failure(self, letter: u8, failure: &StepFailure, more: &[&str]) {
        let errno = failure.errno.to_string();
        let mut fields = vec![errno.as_str(), &failure.step, &failure.subject];
        fields.extend(more);
        self.send(letter, &fields, None);
    }

    /// Whether the parent's end is still open. In a fresh pid namespace `getppid` cannot tell.
    pub(super) fn parent_lives(self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::from_borrowed_fd(self.0, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        !matches!(poll(&mut fds, Some(&now)), Ok(1..)) || !fds[0].revents().contains(PollFlags::HUP)
    }

    /// Nothing can be done about a parent that is gone, so errors are not looked at.
    fn send(self, letter: u8, fields: &[&str], fd: Option<BorrowedFd<'_>>) {
        let mut packet = vec![letter];
        packet.extend_from_slice(fields.join("\0").as_bytes());
        packet.truncate(LONGEST);
        let fds = fd.map(|fd| [fd]);
        let _ = retry_on_intr(|| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if let Some(fds) = &fds {
                control.push(SendAncillaryMessage::ScmRights(fds));
            }
            sendmsg(self.0, &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL)
        });
    }
}

/// The next message; `None` when every copy of the child's end is closed.
pub(super) fn receive(socket: &OwnedFd) -> Option<Message> {
    let mut packet = vec![0u8; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let into = &mut [IoSliceMut::new(&mut packet)];
        match recvmsg(socket.as_fd(), into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => break got.bytes,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    };
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let text = String::from_utf8_lossy(packet.get(1..got)?).into_owned();
    decode(packet[0], &text, fd)
}

fn decode(letter: u8, text: &str, fd: Option<OwnedFd>) -> Option<Message> {
    let mut fields = text.split('\0').map(str::to_owned);
    let mut failure = || {
        let errno = fields.next()?.parse().ok()?;
        Some(StepFailure { step: fields.next()?, subject: fields.next()?, errno })
    };
    Some(match letter {
        b'P' => Message::Pid(text.parse().ok()?),
        b'T' => Message::Terminal(fd?),
        b'S' => Message::Stub(text.to_owned()),
        b'E' => Message::Executing,
        b'F' => Message::Failed(Error::Setup(failure()?)),
        b'X' => {
            let source = failure()?;
            Message::Failed(Error::NotExecutable { program: fields.next()?, source })
        }
        b'N' => Message::Failed(Error::NotFound { program: fields.next()?, path: fields.next() }),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_travel() {
        let (here, there) = pair().unwrap();
        let teller = Teller(there.as_fd());
        assert!(teller.parent_lives());
        let failure = StepFailure { step: "mount".into(), subject: "`/x`".into(), errno: 2 };
        teller.pid(42);
        teller.stub("/etc/resolv.conf");
        teller.terminal(there.as_fd());
        teller.failed(&Error::Setup(failure.clone()));
        teller.failed(&Error::NotExecutable { program: "/bin/x".into(), source: failure.clone() });
        teller.failed(&Error::NotFound { program: "x".into(), path: None });
        teller.executing();
        assert!(matches!(receive(&here), Some(Message::Pid(42))));
        assert!(matches!(receive(&here), Some(Message::Stub(path)) if path == "/etc/resolv.conf"));
        assert!(matches!(receive(&here), Some(Message::Terminal(_))));
        assert!(matches!(receive(&here), Some(Message::Failed(Error::Setup(f))) if f == failure));
        assert!(matches!(
            receive(&here),
            Some(Message::Failed(Error::NotExecutable { program, source })) if program == "/bin/x" && source == failure
        ));
        assert!(matches!(receive(&here), Some(Message::Failed(Error::NotFound { path: None, .. }))));
        assert!(matches!(receive(&here), Some(Message::Executing)));
        drop(here);
        assert!(!teller.parent_lives());
    }
}
