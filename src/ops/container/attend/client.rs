//! The client's side: our terminal or streams stand for the program's, until it ends or the user leaves.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::tcgetwinsize;

use super::keys::DetachKeys;
use super::wire::{Answer, CREDIT, MOST, Moved, Request, receive, send};
use crate::ops::container::Error;
use crate::ops::container::log::Stream;
use crate::ops::container::streams::write_all;
use crate::runtime::relay::{PATIENCE, RawTerminal, forwarded};
use crate::sys::SysError;
use crate::sys::signals::SignalReader;

/// A connection to a monitor, and what is wanted of it.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub socket: OwnedFd,
    /// The program has a terminal.
    pub tty: bool,
    /// Our standard input is the program's.
    pub input: bool,
    /// Our standard input is a terminal.
    pub own_terminal: bool,
    /// Signals that reach us go to the program; else one ends the session.
    pub proxy: bool,
    /// The keys that end the session.
    pub keys: DetachKeys,
    /// Stay when our output is gone: nobody else would see to the program.
    pub stays: bool,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// The program ended with this code.
    Ended(i32),
    /// The user left with the keys.
    Detached,
    /// This signal came.
    Signal(i32),
    /// Our output cannot be written any more.
    OutputGone,
    /// The monitor ended the connection, and may have said why.
    Dismissed(Option<String>),
}

struct Running<'a> {
    session: Session,
    signals: SignalReader,
    raw: Option<RawTerminal<'a>>,
    /// Whether there may be more input.
    open: bool,
    credit: usize,
    waiting: VecDeque<Vec<u8>>,
    interrupts: usize,
    shown: bool,
}

impl Session {
    /// Which output a guest wants; the owner said so before.
    #[must_use]
    pub fn show(self, shows: [bool; 2]) -> Self {
        send(&self.socket, &Request::Show(shows).encode());
        self
    }

    /// Go on until one side ends it. The terminal is as before afterwards.
    ///
    /// # Errors
    /// When the terminal or signals cannot be used.
    pub fn run(self) -> Result<Left, Error> {
        let mut watched = if self.proxy {
            forwarded()
        } else {
            vec![libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGWINCH]
        };
        watched.push(libc::SIGCONT);
        let signals = SignalReader::new(&watched)?;
        let raw = self.tty && self.input && self.own_terminal;
        let raw = raw.then(|| RawTerminal::new(rustix::stdio::stdin())).transpose()?;
        let open = self.input;
        let mut running = Running {
            session: self,
            signals,
            raw,
            open,
            credit: CREDIT,
            waiting: VecDeque::new(),
            interrupts: 0,
            shown: true,
        };
        running.redraw();
        running.run()
    }
}

impl Running<'_> {
    fn run(&mut self) -> Result<Left, Error> {
        let mut buffer = vec![0; MOST + 1];
        loop {
            let (socket, input, signal) = self.wait()?;
            if signal && let Some(left) = self.take_signals() {
                return Ok(left);
            }
            if socket && let Some(left) = self.listen(&mut buffer) {
                return Ok(left);
            }
            if input && let Some(left) = self.type_on(&mut buffer) {
                return Ok(left);
            }
            self.flush();
        }
    }

    /// Wait; whether the monitor, our input, a signal is ready.
    fn wait(&self) -> Result<(bool, bool, bool), Error> {
        let more = if self.waiting.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        let mut fds = vec![
            PollFd::new(&self.session.socket, PollFlags::IN | more),
            PollFd::from_borrowed_fd(self.signals.fd(), PollFlags::IN),
        ];
        if self.open && self.credit > 0 && self.waiting.is_empty() {
            fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(SysError::new("wait for", "the container", error).into()),
        }
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok((ready(0), ready(2), ready(1)))
    }

    fn say(&mut self, request: &Request<'_>) {
        self.waiting.push_back(request.encode());
        self.flush();
    }

    /// Whoever is gone is noticed when its words are read.
    fn flush(&mut self) {
        while let Some(packet) = self.waiting.front() {
            if send(&self.session.socket, packet) == Moved::Later {
                return;
            }
            self.waiting.pop_front();
        }
    }

    fn listen(&mut self, buffer: &mut [u8]) -> Option<Left> {
        loop {
            let got = match receive(&self.session.socket, buffer) {
                Moved::Later => return None,
                Moved::Gone => return Some(Left::Dismissed(None)),
                Moved::Whole(got) => got,
            };
            match Answer::decode(&buffer[..got]) {
                Some(Answer::Output(stream, bytes)) => {
                    let own = match stream {
                        Stream::Out => rustix::stdio::stdout(),
                        Stream::Err => rustix::stdio::stderr(),
                    };
                    if self.shown && write_all(own, bytes).is_err() {
                        self.shown = false;
                        if !self.session.stays {
                            return Some(Left::OutputGone);
                        }
                        self.say(&Request::Show([false; 2]));
                    }
                }
                Some(Answer::Taken(count)) => self.credit += count,
                Some(Answer::Ended(code)) => return Some(Left::Ended(code)),
                Some(Answer::Bye(why)) => return Some(Left::Dismissed(Some(why.to_owned()))),
                None => {}
            }
        }
    }

    fn type_on(&mut self, buffer: &mut [u8]) -> Option<Left> {
        let most = self.credit.min(MOST);
        match rustix::io::read(rustix::stdio::stdin(), &mut buffer[..most]) {
            Ok(0) => self.end_input(),
            Ok(got) => {
                let mut typed = Vec::with_capacity(got);
                let leaves = match self.session.tty {
                    true => self.session.keys.take(&buffer[..got], &mut typed),
                    false => {
                        typed.extend_from_slice(&buffer[..got]);
                        false
                    }
                };
                if !typed.is_empty() {
                    self.credit = self.credit.saturating_sub(typed.len());
                    self.say(&Request::Input(&typed));
                }
                if leaves {
                    self.say(&Request::Detach);
                    return Some(Left::Detached);
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // A terminal that is gone.
            Err(_) => self.end_input(),
        }
        None
    }

    fn end_input(&mut self) {
        self.open = false;
        self.say(&Request::InputEnd);
    }

    fn take_signals(&mut self) -> Option<Left> {
        while let Some(signal) = self.signals.next() {
            match signal {
                libc::SIGWINCH => self.tell_size(0),
                libc::SIGCONT => {
                    if let Some(raw) = &self.raw {
                        raw.renew();
                    }
                    self.redraw();
                }
                _ if !self.session.proxy => return Some(Left::Signal(signal)),
                _ => {
                    self.interrupts += usize::from([libc::SIGINT, libc::SIGTERM].contains(&signal));
                    let signal = if self.interrupts >= PATIENCE { libc::SIGKILL } else { signal };
                    self.say(&Request::Signal(signal));
                }
            }
        }
        None
    }

    /// A program draws its screen anew when the size changes, so it changes for a moment.
    fn redraw(&mut self) {
        if !self.session.stays {
            self.tell_size(1);
        }
        self.tell_size(0);
    }

    fn tell_size(&mut self, more: u16) {
        if !self.session.tty {
            return;
        }
        let own: [BorrowedFd<'_>; 3] =
            [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
        // A terminal that does not know its size would take away the one that was set at the start.
        let size = own.into_iter().find_map(|fd| tcgetwinsize(fd).ok());
        if let Some(size) = size.filter(|size| size.ws_row > 0 && size.ws_col > 0) {
            self.say(&Request::Size(size.ws_row.saturating_add(more), size.ws_col));
        }
    }
}
