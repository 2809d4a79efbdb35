//! Where a program's three streams lead: to the command's own, to a terminal, to a log.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags};

use super::Error;
use super::log::{LogWriter, Stream};
use crate::context::Context;
use crate::runtime::{ExitStatus, Process, Relay, Stdio};
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
}

/// Our side of a program's streams.
#[derive(Debug, Default)]
pub struct Streams {
    /// Where its input goes in.
    input: Option<OwnedFd>,
    /// Where its output comes out.
    output: Option<OwnedFd>,
    /// Where its errors come out.
    errors: Option<OwnedFd>,
    /// Whether we show the output and read our own standard input.
    attached: bool,
    interactive: bool,
}

/// The streams of a program in the foreground.
///
/// # Errors
/// When a pipe cannot be made.
pub fn attached(cx: &Context, wanted: &Wanted) -> Result<(Stdio, Streams), Error> {
    let mut ours = Streams { attached: true, interactive: wanted.interactive, ..Streams::default() };
    if wanted.tty {
        return Ok((terminal(cx), ours));
    }
    let stdin = match wanted.interactive {
        false => null()?,
        true if is_plain(rustix::stdio::stdin()) => duplicate(rustix::stdio::stdin())?,
        true => {
            let (read, write) = pipe()?;
            ours.input = Some(write);
            read
        }
    };
    let mut output = |own: BorrowedFd<'_>, slot: &mut Option<OwnedFd>| -> Result<OwnedFd, Error> {
        if !wanted.output_seen && is_plain(own) {
            return duplicate(own);
        }
        let (read, write) = pipe()?;
        *slot = Some(read);
        Ok(write)
    };
    let stdout = output(rustix::stdio::stdout(), &mut ours.output)?;
    let stderr = output(rustix::stdio::stderr(), &mut ours.errors)?;
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
        ours.input = Some(write);
        read
    } else {
        null()?
    };
    if !wanted.output_seen {
        return Ok((Stdio::Descriptors { stdin, stdout: null()?, stderr: null()? }, ours));
    }
    let (output, stdout) = pipe()?;
    let (errors, stderr) = pipe()?;
    (ours.output, ours.errors) = (Some(output), Some(errors));
    Ok((Stdio::Descriptors { stdin, stdout, stderr }, ours))
}

/// A terminal of the size of ours.
fn terminal(cx: &Context) -> Stdio {
    let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    let size = own
        .iter()
        .zip(cx.terminals)
        .filter(|(_, terminal)| *terminal)
        .find_map(|(fd, _)| rustix::termios::tcgetwinsize(fd).ok())
        .filter(|size| size.ws_row > 0 && size.ws_col > 0);
    let (rows, columns) = size.map_or((24, 80), |size| (size.ws_row, size.ws_col));
    Stdio::Terminal { rows, columns }
}

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
