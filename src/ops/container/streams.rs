//! Where a program's three streams lead: to the command's own, to a terminal, to a log.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::Error;
use super::log::{LogWriter, Stream};
use crate::context::Context;
use crate::runtime::relay::{End, Pipes, Relay, Signals};
use crate::runtime::{ExitStatus, Process, Stdio, relay};
use crate::sys::SysError;

/// What the program shall have.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// A terminal.
    pub tty: bool,
    /// Standard input.
    pub interactive: bool,
    /// Whether its output passes through us, for a log.
    pub output_seen: bool,
    /// Whether its standard output and its standard error are shown.
    pub shown: [bool; 2],
}

/// Our side of a program's streams.
#[derive(Debug, Default)]
pub struct Streams {
    pipes: Pipes,
    /// The other end of an input that nobody writes to.
    held: Option<OwnedFd>,
    /// Whether we show standard output and standard error.
    shown: [bool; 2],
    /// Whether our standard input is the program's.
    interactive: bool,
    /// Whether our standard input is a terminal, to be switched to raw mode for a terminal of the program's.
    raw: bool,
}

impl Streams {
    /// Carry everything until the program ends; `proxy` passes our signals on.
    ///
    /// # Errors
    /// When the program cannot be watched.
    pub fn relay(self, process: &Process, proxy: bool, log: &mut LogWriter) -> Result<ExitStatus, Error> {
        let Self { pipes, held, shown, interactive, raw } = self;
        let stdin = || rustix::stdio::stdin();
        let relay = Relay {
            pipes,
            input: interactive.then(stdin),
            user_terminal: (interactive && raw).then(stdin),
            signals: if proxy { Signals::Forward } else { Signals::Return },
        };
        let end = relay.run(process, &mut |stream, bytes| {
            let (own, name) = match stream {
                relay::Stream::Stdout => (rustix::stdio::stdout(), Stream::Out),
                relay::Stream::Stderr => (rustix::stdio::stderr(), Stream::Err),
            };
            log.write(name, bytes);
            if shown[name as usize] { write_all(own, bytes) } else { Ok(()) }
        })?;
        drop(held);
        match end {
            End::Exited(status) => Ok(status),
            // Nobody would watch over the program any more.
            End::Interrupted(signal) => {
                process.kill(libc::SIGKILL)?;
                process.wait()?;
                Ok(ExitStatus::Signal(signal))
            }
        }
    }
}

/// Write everything, also to a descriptor that somebody made non-blocking.
///
/// # Errors
/// When it cannot be written.
pub fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::OUT)];
                let _ = rustix::event::poll(&mut fds, None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The streams of a program in the foreground.
///
/// # Errors
/// When a pipe cannot be made.
pub fn attached(cx: &Context, wanted: &Wanted) -> Result<(Stdio, Streams), Error> {
    let mut ours = Streams { shown: wanted.shown, ..Streams::default() };
    if wanted.tty {
        (ours.interactive, ours.raw) = (wanted.interactive, cx.terminals[0]);
        let (rows, columns) = terminal_size(cx);
        return Ok((Stdio::Terminal { rows, columns }, ours));
    }
    let stdin = match wanted.interactive {
        false => null()?,
        true if is_plain(rustix::stdio::stdin()) => duplicate(rustix::stdio::stdin())?,
        true => {
            let (read, write) = pipe()?;
            (ours.pipes.stdin, ours.interactive) = (Some(write), true);
            read
        }
    };
    let output = |own: BorrowedFd<'_>, shown: bool, slot: &mut Option<OwnedFd>| -> Result<OwnedFd, Error> {
        match (wanted.output_seen, shown) {
            (false, false) => return null(),
            (false, true) if is_plain(own) => return duplicate(own),
            _ => {}
        }
        let (read, write) = pipe()?;
        *slot = Some(read);
        Ok(write)
    };
    let stdout = output(rustix::stdio::stdout(), wanted.shown[0], &mut ours.pipes.stdout)?;
    let stderr = output(rustix::stdio::stderr(), wanted.shown[1], &mut ours.pipes.stderr)?;
    Ok((Stdio::Descriptors { stdin, stdout, stderr }, ours))
}

/// The streams of a program in the background.
///
/// # Errors
/// When a pipe cannot be made.
pub fn detached(wanted: &Wanted) -> Result<(Stdio, Streams), Error> {
    let mut ours = Streams::default();
    if wanted.tty {
        return Ok((Stdio::Terminal { rows: 24, columns: 80 }, ours));
    }
    let stdin = if wanted.interactive {
        // Open, and nobody writes: a program that waits for input waits, instead of seeing its end.
        let (read, write) = pipe()?;
        ours.held = Some(write);
        read
    } else {
        null()?
    };
    if !wanted.output_seen {
        return Ok((Stdio::Descriptors { stdin, stdout: null()?, stderr: null()? }, ours));
    }
    let (output, stdout) = pipe()?;
    let (errors, stderr) = pipe()?;
    (ours.pipes.stdout, ours.pipes.stderr) = (Some(output), Some(errors));
    Ok((Stdio::Descriptors { stdin, stdout, stderr }, ours))
}

/// The streams of a program that a monitor attends, `size` rows and columns of its terminal: our ends, for the program of
/// which the monitor serves them.
///
/// # Errors
/// When a pipe cannot be made.
pub fn attended(tty: bool, stdin: bool, size: (u16, u16)) -> Result<(Stdio, Pipes), Error> {
    if tty {
        return Ok((Stdio::Terminal { rows: size.0, columns: size.1 }, Pipes::default()));
    }
    let (pipes, stdio) = Pipes::new(stdin)?;
    Ok((stdio, pipes))
}

/// Streams for a program of which one descriptor reads all output.
///
/// # Errors
/// When a pipe cannot be made.
pub fn one_output() -> Result<(Stdio, OwnedFd), Error> {
    let (read, write) = pipe()?;
    Ok((Stdio::Descriptors { stdin: null()?, stdout: duplicate(write.as_fd())?, stderr: write }, read))
}

/// The size of our terminal: rows and columns.
#[must_use]
pub fn terminal_size(cx: &Context) -> (u16, u16) {
    let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let size = own
        .iter()
        .zip(cx.terminals)
        .filter(|(_, terminal)| *terminal)
        .find_map(|(fd, _)| rustix::termios::tcgetwinsize(fd).ok())
        .filter(|size| size.ws_row > 0 && size.ws_col > 0);
    size.map_or(NO_TERMINAL, |size| (size.ws_row, size.ws_col))
}

/// The size of a terminal that nobody looks at.
pub const NO_TERMINAL: (u16, u16) = (24, 80);

/// Whether a stream can be handed to the program as it is: a pipe, a socket or `/dev/null`. A file could be opened anew
/// through `/proc/self/fd` with other rights, and a terminal would give the program power over ours.
fn is_plain(fd: BorrowedFd<'_>) -> bool {
    let Ok(stat) = rustix::fs::fstat(fd) else { return false };
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Fifo | FileType::Socket => true,
        FileType::CharacterDevice => stat.st_rdev == rustix::fs::makedev(1, 3),
        _ => false,
    }
}

fn null() -> Result<OwnedFd, Error> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/dev/null", flags, Mode::empty())
        .map_err(|error| SysError::path("open", "/dev/null", error))?)
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    Ok(fd.try_clone_to_owned().map_err(|error| SysError::new("copy", "a descriptor", error))?)
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    Ok(rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| SysError::new("make", "a pipe", error))?)
}
