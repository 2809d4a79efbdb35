//! The monitor's side of one run of a program: output to the log and to whoever is attached, input from them, until the
//! program ends.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::{Winsize, tcsetwinsize};

use super::hub::{Hub, Wish};
use crate::ops::container::Error;
use crate::ops::container::log::{LogWriter, Stream};
use crate::runtime::relay::{MOST_LEFT, Pipes};
use crate::runtime::{ExitStatus, Process};
use crate::sys::SysError;
use crate::sys::signals::SignalReader;

/// Bytes carried at once.
const CHUNK: usize = 32 * 1024;

/// Something that happens beside, now and then: the health checks.
pub trait Chore {
    /// How long until it has something to do.
    fn pause(&self) -> Option<Duration>;
    /// What it waits for besides.
    fn fds<'a>(&'a self, fds: &mut Vec<BorrowedFd<'a>>);
    /// Do what is due.
    fn act(&mut self);
}

/// What serves a program.
pub struct Serving<'a> {
    /// Who is attached.
    pub hub: &'a mut Hub,
    /// Where output is kept.
    pub log: &'a mut LogWriter,
    /// The program's input ends with that of the first who gives it some.
    pub stdin_once: bool,
    /// The program loses its terminal when the owner is gone without a word.
    pub ends_with_owner: bool,
    /// What happens beside.
    pub chore: Option<&'a mut dyn Chore>,
}

impl std::fmt::Debug for Serving<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").field("hub", &self.hub).finish_non_exhaustive()
    }
}

/// The program's ends.
struct Ends {
    sink: Option<OwnedFd>,
    sources: [Option<(Stream, OwnedFd)>; 2],
    input: VecDeque<(u64, Vec<u8>)>,
    input_ended: bool,
}

impl Ends {
    fn new(process: &Process, pipes: Pipes) -> Result<Self, SysError> {
        let failed = |error: Errno| SysError::new("prepare", "the program's streams", error);
        let (sink, sources) = match &process.terminal {
            Some(master) => {
                let copy = || rustix::io::fcntl_dupfd_cloexec(master, 3).map_err(failed);
                (Some(copy()?), [Some((Stream::Out, copy()?)), None])
            }
            None => {
                let Pipes { stdin, stdout, stderr } = pipes;
                (stdin, [stdout.map(|fd| (Stream::Out, fd)), stderr.map(|fd| (Stream::Err, fd))])
            }
        };
        for fd in sink.iter().chain(sources.iter().flatten().map(|(_, fd)| fd)) {
            let flags = rustix::fs::fcntl_getfl(fd).map_err(failed)?;
            rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK).map_err(failed)?;
        }
        Ok(Self { sink, sources, input: VecDeque::new(), input_ended: false })
    }

    /// Write what waits, and say who got rid of how much.
    fn write_input(&mut self, hub: &mut Hub) {
        while let Some((number, bytes)) = self.input.front_mut() {
            let written = match &self.sink {
                Some(sink) => rustix::io::write(sink, bytes),
                // Nobody reads it any more.
                None => Ok(bytes.len()),
            };
            match written {
                Ok(written) => {
                    hub.taken(*number, written);
                    bytes.drain(..written);
                    if bytes.is_empty() {
                        self.input.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.sink = None,
            }
        }
        if self.input_ended {
            self.sink = None;
        }
    }
}

impl Serving<'_> {
    /// Serve until the program ends and all it wrote is on its way.
    ///
    /// # Errors
    /// When the program is not a child of ours, or nothing can be watched.
    pub fn run(mut self, process: &mut Process, pipes: Pipes) -> Result<ExitStatus, Error> {
        let mut ends = Ends::new(process, pipes)?;
        // What a user sends to the monitor is meant for what it watches over.
        let signals = SignalReader::new(&[libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM])?;
        let mut buffer = vec![0; CHUNK];
        loop {
            let ready = self.wait(process, &ends, &signals)?;
            while let Some(signal) = signals.next() {
                let _ = process.kill(signal);
            }
            for index in 0..2 {
                if ready.sources && !self.hub.is_owner_behind() {
                    self.carry(&mut ends, index, &mut buffer);
                }
            }
            if ready.hub {
                for wish in self.hub.serve() {
                    self.grant(wish, process, &mut ends);
                }
            }
            ends.write_input(self.hub);
            if let Some(chore) = &mut self.chore {
                chore.act();
            }
            if ready.ended {
                for index in 0..2 {
                    let mut rest = MOST_LEFT;
                    while let Some(got) = self.carry(&mut ends, index, &mut buffer).filter(|_| rest > 0) {
                        rest = rest.saturating_sub(got);
                    }
                }
                // Whoever typed what nobody read may type on, to the next run.
                for (number, bytes) in ends.input.drain(..) {
                    self.hub.taken(number, bytes.len());
                }
                return Ok(process.wait()?);
            }
        }
    }

    fn wait(&self, process: &Process, ends: &Ends, signals: &SignalReader) -> Result<Ready, Error> {
        let mut fds = vec![
            PollFd::new(&process.pidfd, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN),
        ];
        let sources_at = fds.len();
        if !self.hub.is_owner_behind() {
            fds.extend(ends.sources.iter().flatten().map(|(_, fd)| PollFd::new(fd, PollFlags::IN)));
        }
        let hub_at = fds.len();
        self.hub.poll_fds(&mut fds);
        let others_at = fds.len();
        if let (Some(sink), false) = (&ends.sink, ends.input.is_empty()) {
            fds.push(PollFd::new(sink, PollFlags::OUT));
        }
        let mut chores = Vec::new();
        if let Some(chore) = &self.chore {
            chore.fds(&mut chores);
        }
        fds.extend(chores.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
        let pause = self.chore.as_ref().and_then(|chore| chore.pause());
        match poll(&mut fds, pause.and_then(|pause| Timespec::try_from(pause).ok()).as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(SysError::new("wait for", "the program", error).into()),
        }
        let any = |from: usize, to: usize| fds[from..to].iter().any(|fd| !fd.revents().is_empty());
        Ok(Ready { ended: any(0, 1), sources: any(sources_at, hub_at), hub: any(hub_at, others_at) })
    }

    /// Carry one chunk of output: its size, when there may be more just now.
    fn carry(&mut self, ends: &mut Ends, index: usize, buffer: &mut [u8]) -> Option<usize> {
        let slot = &mut ends.sources[index];
        let (stream, fd) = slot.as_ref()?;
        match rustix::io::read(fd, &mut *buffer) {
            Ok(got @ 1..) => {
                self.log.write(*stream, &buffer[..got]);
                self.hub.show(*stream, &buffer[..got]);
                Some(got)
            }
            Err(Errno::INTR) => Some(0),
            Err(Errno::AGAIN) => None,
            // The end of a pipe, or (EIO) of a terminal.
            Ok(0) | Err(_) => {
                *slot = None;
                None
            }
        }
    }

    fn grant(&mut self, wish: Wish, process: &mut Process, ends: &mut Ends) {
        match wish {
            Wish::Input(number, bytes) => ends.input.push_back((number, bytes)),
            // A terminal has no such end: its user types one.
            Wish::InputEnd => ends.input_ended |= process.terminal.is_none() && self.stdin_once,
            Wish::Size(rows, columns) => {
                let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
                if let (Some(master), true) = (&process.terminal, rows > 0 && columns > 0) {
                    let _ = tcsetwinsize(master.as_fd(), size);
                }
            }
            Wish::Signal(signal) => {
                let _ = process.kill(signal);
            }
            Wish::OwnerLost if self.ends_with_owner => {
                let _ = process.kill(libc::SIGHUP);
                process.terminal = None;
                ends.sink = None;
                ends.sources = [None, None];
            }
            Wish::OwnerLost => ends.input_ended |= process.terminal.is_none() && self.stdin_once,
        }
    }
}

/// What is ready.
#[derive(Debug, Clone, Copy, Default)]
struct Ready {
    ended: bool,
    sources: bool,
    hub: bool,
}
