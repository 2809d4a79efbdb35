//! From a plan to a process, and to its end.

use std::os::fd::{BorrowedFd, OwnedFd};

use super::{Error, Plan};

/// The program's three streams.
#[derive(Debug)]
pub enum Stdio {
    /// These descriptors, as they are.
    Descriptors {
        /// Standard input.
        stdin: OwnedFd,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A new terminal of that size (rows, columns), set before exec; its master side comes back in [`Process`].
    Terminal {
        /// Rows.
        rows: u16,
        /// Columns.
        columns: u16,
    },
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// The exit code a shell would show: the code, or 128 and the signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A running program.
#[derive(Debug)]
pub struct Process {
    /// Its process id in our pid namespace.
    pub pid: i32,
    /// A descriptor of it, for polling and signals.
    pub pidfd: OwnedFd,
    /// The master side of its terminal.
    pub terminal: Option<OwnedFd>,
}

impl Process {
    /// Wait for the end.
    ///
    /// # Errors
    /// When it is not a child of this process.
    pub fn wait(&self) -> Result<ExitStatus, Error> {
        todo!()
    }

    /// Send a signal.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when it has ended.
    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        let _ = signal;
        todo!()
    }
}

/// Start the plan in `root` (a detached mount) and return once the program was executed. The new process (pid 1 of its
/// pid namespace) is a child of the caller. Safe to call while other threads run.
///
/// # Errors
/// See [`Error`]; nothing is left running then.
pub fn spawn(root: BorrowedFd<'_>, plan: &Plan, stdio: Stdio) -> Result<Process, Error> {
    let _ = (root, plan, stdio);
    todo!()
}

/// A further program in a running container.
#[derive(Debug, Clone, Default)]
pub struct ExecRequest {
    /// As in [`Plan`]: args, env, cwd, ids, capabilities, seccomp and terminal count; the rest is the container's.
    pub plan: Plan,
    /// The container's pid 1.
    pub pid: i32,
}

/// Start a program in the namespaces of a running container. It is a child of the caller.
///
/// # Errors
/// [`Error::NotRunning`] when the container has ended; else as [`spawn`].
pub fn exec(request: &ExecRequest, stdio: Stdio) -> Result<Process, Error> {
    let _ = (request, stdio);
    todo!()
}
