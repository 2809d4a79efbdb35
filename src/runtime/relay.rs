//! The parent's side of a running program: one loop that carries input, output, signals and the terminal's size until
//! the program ends. A foreground run, an attach, an exec, a build step and a detached monitor are all this loop.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::{Error, ExitStatus, Process, Stdio};
use crate::sys::SysError;
use crate::sys::signals::SignalReader;

/// Bytes carried at once; also the most input that waits for a program which does not read.
pub const CHUNK: usize = 64 * 1024;

/// The most that a pipe can hold without privileges (`man 7 pipe`).
pub const MOST_LEFT: usize = 1 << 20;

/// As docker: who interrupts three times means it.
pub const PATIENCE: usize = 3;

/// Where bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What happens to signals that reach us while the program runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Signals {
    /// They are passed to the program; the third interrupt or termination kills it.
    #[default]
    Forward,
    /// The loop ends with [`End::Interrupted`].
    Return,
    /// Not looked at. Needed when other threads run, which would receive them instead.
    Ignore,
}

/// How the loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The program ended, and all it wrote was carried.
    Exited(ExitStatus),
    /// This signal came; the program still runs.
    Interrupted(i32),
}

/// Our ends of a program's pipes.
#[derive(Debug, Default)]
pub struct Pipes {
    /// To its standard input.
    pub stdin: Option<OwnedFd>,
    /// From its standard output.
    pub stdout: Option<OwnedFd>,
    /// From its standard error.
    pub stderr: Option<OwnedFd>,
}

impl Pipes {
    /// Pipes for output and, when wanted, input (else the program reads an end of file), with the program's ends.
    ///
    /// # Errors
    /// When no pipe can be made.
    pub fn new(with_input: bool) -> Result<(Self, Stdio), Error> {
        use rustix::pipe::{PipeFlags, pipe_with};
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| SysError::new("make", "a pipe", error));
        let (stdout, their_stdout) = pipe()?;
        let (stderr, their_stderr) = pipe()?;
        let (their_stdin, stdin) = if with_input {
            let (theirs, ours) = pipe()?;
            (theirs, Some(ours))
        } else {
            let null =
                std::fs::File::open("/dev/null").map_err(|e| SysError::path("open", "/dev/null", e))?;
            (null.into(), None)
        };
        let stdio = Stdio::Descriptors { stdin: their_stdin, stdout: their_stdout, stderr: their_stderr };
        Ok((Self { stdin, stdout: Some(stdout), stderr: Some(stderr) }, stdio))
    }
}

/// A terminal in raw mode; what it was before comes back when this is dropped.
#[derive(Debug)]
pub struct RawTerminal<'a> {
    fd: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> RawTerminal<'a> {
    /// Switch to raw mode.
    ///
    /// # Errors
    /// When it is no terminal.
    pub fn new(fd: BorrowedFd<'a>) -> Result<Self, Error> {
        let failed = |error| SysError::new("set", "the terminal to raw mode", error);
        let terminal = Self { fd, before: tcgetattr(fd).map_err(failed)? };
        terminal.set().map_err(failed)?;
        Ok(terminal)
    }

    /// Switch to raw mode again: a shell may have changed it while we were stopped.
    pub fn renew(&self) {
        let _ = self.set();
    }

    fn set(&self) -> Result<(), Errno> {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(self.fd, OptionalActions::Now, &raw)
    }
}

impl Drop for RawTerminal<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.fd, OptionalActions::Now, &self.before);
    }
}

/// What takes the program's output.
pub type OnOutput<'a> = dyn FnMut(Stream, &[u8]) -> io::Result<()> + 'a;

/// What to carry. Streams that the program has directly (it may own ours) need no carrying.
#[derive(Debug, Default)]
pub struct Relay<'a> {
    /// Our ends of its pipes; ignored for a program with a terminal.
    pub pipes: Pipes,
    /// Where its input comes from: our standard input, or nothing.
    pub input: Option<BorrowedFd<'a>>,
    /// The terminal of whoever called us: put into raw mode, and its size followed. Only with a terminal of its own.
    pub user_terminal: Option<BorrowedFd<'a>>,
    /// What happens to signals.
    pub signals: Signals,
}

impl Relay<'_> {
    /// Carry until the program ends. Output goes to `on_output`; when that fails, the stream is closed and the program
    /// meets a broken pipe, as it would without us.
    ///
    /// # Errors
    /// When the program is not a child of ours, or signals cannot be watched.
    pub fn run(self, process: &Process, on_output: &mut OnOutput<'_>) -> Result<End, Error> {
        let watched = self.watched();
        let signals = if watched.is_empty() { None } else { Some(SignalReader::new(&watched)?) };
        let _raw = match (self.user_terminal, &process.terminal) {
            (Some(terminal), Some(_)) => Some(RawTerminal::new(terminal)?),
            _ => None,
        };
        Running::new(self, process, signals)?.run(on_output)
    }

    fn watched(&self) -> Vec<i32> {
        match self.signals {
            Signals::Ignore => Vec::new(),
            Signals::Forward => forwarded(),
            Signals::Return => vec![libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGWINCH],
        }
    }
}

/// Signals that concern the program. Not those that stop or continue us, nor those of our own faults.
#[must_use]
pub fn forwarded() -> Vec<i32> {
    let skipped = [
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGCONT,
        libc::SIGCHLD,
        libc::SIGPIPE,
        libc::SIGURG,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGTRAP,
        libc::SIGABRT,
        32,
        33,
    ];
    (1..=64).filter(|signal| !skipped.contains(signal)).collect()
}

/// The loop's state.
struct Running<'a> {
    process: &'a Process,
    input: Option<BorrowedFd<'a>>,
    user_terminal: Option<BorrowedFd<'a>>,
    mode: Signals,
    signals: Option<SignalReader>,
    interrupts: usize,
    /// Where input goes to, and what of it waits.
    sink: Option<OwnedFd>,
    waiting: Vec<u8>,
    sources: [Option<(Stream, OwnedFd)>; 2],
}

/// Who is ready, in the order of the poll list.
#[derive(Clone, Copy)]
enum Who {
    Process,
    Signal,
    Input,
    Sink,
    Source(usize),
}

impl<'a> Running<'a> {
    fn new(relay: Relay<'a>, process: &'a Process, signals: Option<SignalReader>) -> Result<Self, Error> {
        let failed = |error: Errno| SysError::new("prepare", "the program's streams", error);
        let (sink, sources) = match &process.terminal {
            Some(master) => {
                let copy = || rustix::io::fcntl_dupfd_cloexec(master, 3).map_err(failed);
                (Some(copy()?), [Some((Stream::Stdout, copy()?)), None])
            }
            None => {
                let Pipes { stdin, stdout, stderr } = relay.pipes;
                (stdin, [stdout.map(|fd| (Stream::Stdout, fd)), stderr.map(|fd| (Stream::Stderr, fd))])
            }
        };
        let sink = sink.filter(|_| relay.input.is_some());
        // These descriptions are ours alone, so the flag disturbs nobody; the caller's own input stays as it is.
        for fd in sink.iter().chain(sources.iter().flatten().map(|(_, fd)| fd)) {
            let flags = rustix::fs::fcntl_getfl(fd).map_err(failed)?;
            rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK).map_err(failed)?;
        }
        let user_terminal = relay.user_terminal.filter(|_| process.terminal.is_some());
        let running = Self {
            process,
            input: relay.input,
            user_terminal,
            mode: relay.signals,
            signals,
            interrupts: 0,
            sink,
            waiting: Vec::new(),
            sources,
        };
        running.follow_size();
        Ok(running)
    }

    fn run(mut self, on_output: &mut OnOutput<'_>) -> Result<End, Error> {
        let mut buffer = vec![0u8; CHUNK];
        loop {
            let mut ended = false;
            for who in self.wait()? {
                match who {
                    Who::Process => ended = true,
                    Who::Signal => {
                        if let Some(signal) = self.take_signals() {
                            return Ok(End::Interrupted(signal));
                        }
                    }
                    Who::Input => self.read_input(&mut buffer),
                    Who::Sink => self.write_input(),
                    Who::Source(index) => {
                        self.carry(index, &mut buffer, on_output);
                    }
                }
            }
            if ended {
                // With a container's pid 1 all in its namespace has ended, so what is in the pipes now is all there is. What
                // another program (an exec) left running may write on for ever; more than a pipe holds is not its own.
                for index in 0..self.sources.len() {
                    let mut rest = MOST_LEFT;
                    while let Some(got) = self.carry(index, &mut buffer, on_output).filter(|_| rest > 0) {
                        rest = rest.saturating_sub(got);
                    }
                }
                return self.process.wait().map(End::Exited);
            }
        }
    }

    /// Wait until something can be done.
    fn wait(&self) -> Result<Vec<Who>, Error> {
        let mut fds = vec![PollFd::new(&self.process.pidfd, PollFlags::IN)];
        let mut who = vec![Who::Process];
        if let Some(signals) = &self.signals {
            fds.push(PollFd::from_borrowed_fd(signals.fd(), PollFlags::IN));
            who.push(Who::Signal);
        }
        if let (Some(input), true) = (self.input, self.waiting.is_empty() && self.sink.is_some()) {
            fds.push(PollFd::from_borrowed_fd(input, PollFlags::IN));
            who.push(Who::Input);
        }
        if let (Some(sink), false) = (&self.sink, self.waiting.is_empty()) {
            fds.push(PollFd::new(sink, PollFlags::OUT));
            who.push(Who::Sink);
        }
        for (index, source) in self.sources.iter().enumerate() {
            if let Some((_, fd)) = source {
                fds.push(PollFd::new(fd, PollFlags::IN));
                who.push(Who::Source(index));
            }
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(SysError::new("wait for", "the program", error).into()),
        }
        Ok(fds.iter().zip(who).filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, who)| who).collect())
    }

    /// The signal that ends the loop, if one did.
    fn take_signals(&mut self) -> Option<i32> {
        while let Some(signal) = self.signals.as_ref().and_then(SignalReader::next) {
            if signal == libc::SIGWINCH {
                self.follow_size();
                continue;
            }
            if self.mode == Signals::Return {
                return Some(signal);
            }
            self.interrupts += usize::from([libc::SIGINT, libc::SIGTERM].contains(&signal));
            let signal = if self.interrupts >= PATIENCE { libc::SIGKILL } else { signal };
            let _ = self.process.kill(signal);
        }
        None
    }

    fn follow_size(&self) {
        if let (Some(user), Some(master)) = (self.user_terminal, &self.process.terminal)
            && let Ok(size) = tcgetwinsize(user)
            // A terminal that does not know its size would take away the one that was set at the start.
            && size.ws_row > 0
            && size.ws_col > 0
        {
            let _ = tcsetwinsize(master, size);
        }
    }

    fn read_input(&mut self, buffer: &mut [u8]) {
        let Some(input) = self.input else { return };
        match rustix::io::read(input, &mut *buffer) {
            Ok(0) => self.end_input(),
            Ok(got) => {
                self.waiting.extend_from_slice(buffer.get(..got).unwrap_or_default());
                self.write_input();
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(_) => self.end_input(),
        }
    }

    /// An end of input closes a pipe. A terminal has no such end: its user types one.
    fn end_input(&mut self) {
        self.input = None;
        if self.waiting.is_empty() {
            self.sink = None;
        }
    }

    fn write_input(&mut self) {
        let Some(sink) = &self.sink else { return };
        match rustix::io::write(sink, &self.waiting) {
            Ok(written) => {
                self.waiting.drain(..written);
                if self.waiting.is_empty() && self.input.is_none() {
                    self.sink = None;
                }
            }
            Err(Errno::INTR | Errno::AGAIN) => {}
            // It does not read any more.
            Err(_) => {
                self.waiting.clear();
                self.sink = None;
            }
        }
    }

    /// Carry one chunk of output: its size, when there may be more just now.
    fn carry(&mut self, index: usize, buffer: &mut [u8], on_output: &mut OnOutput<'_>) -> Option<usize> {
        let slot = self.sources.get_mut(index)?;
        let (stream, fd) = slot.as_ref()?;
        match rustix::io::read(fd, &mut *buffer) {
            Ok(got @ 1..) => {
                let written = on_output(*stream, buffer.get(..got).unwrap_or_default());
                if written.is_err() {
                    *slot = None;
                }
                written.is_ok().then_some(got)
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
}

/// Our standard streams as the program's own, for a run whose output nobody else wants.
///
/// # Errors
/// When one of them is closed.
pub fn own_streams(with_input: bool) -> Result<Stdio, Error> {
    let failed = |error: io::Error| SysError::new("duplicate", "a standard stream", error);
    let stdin = if with_input {
        io::stdin().as_fd().try_clone_to_owned().map_err(failed)?
    } else {
        std::fs::File::open("/dev/null").map_err(|e| SysError::path("open", "/dev/null", e))?.into()
    };
    let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
    let stderr = io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
    Ok(Stdio::Descriptors { stdin, stdout, stderr })
}
