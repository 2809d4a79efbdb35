//! Holding a container's processes still while its files are read.
//!
//! A guard process does it: it is forked before the caller enters a user namespace, and so keeps the caller's power
//! over the container's processes, which belong to another namespace of the same user. And it lets them go again when
//! its pipe closes, however the caller ends.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::sys::fork::{self, Forked};
use crate::sys::{SysError, SysResult};

/// How long the processes may take to stand still.
const PATIENCE: Duration = Duration::from_secs(2);

/// A process that can hold a container still.
#[derive(Debug)]
pub struct Guard {
    pid: i32,
    orders: Option<fs::File>,
    answers: fs::File,
}

impl Guard {
    /// Start the guard of the container whose first process is `pid`.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn start(pid: i32) -> SysResult<Self> {
        let (order_end, orders) = pipe()?;
        let (answers, answer_end) = pipe()?;
        match fork::fork()? {
            Forked::Child => {
                let _end = fork::NeverReturn;
                drop((orders, answers));
                // A Ctrl-C at the terminal is for the caller; the guard ends when the caller does.
                let _ = rustix::process::setsid();
                serve(pid, &mut fs::File::from(order_end), &mut fs::File::from(answer_end));
                fork::exit_now(0)
            }
            Forked::Parent(child) => {
                drop((order_end, answer_end));
                Ok(Self { pid: child, orders: Some(orders.into()), answers: answers.into() })
            }
        }
    }

    /// Hold the container still from here on until this is dropped.
    ///
    /// # Errors
    /// When a process cannot be stopped; none is left stopped then.
    pub fn freeze(&mut self) -> SysResult<()> {
        let failed = |error| SysError::new("ask", "the process that pauses the container", error);
        if let Some(orders) = &mut self.orders {
            orders.write_all(b"f").map_err(failed)?;
        }
        let mut answer = [0; 4];
        self.answers.read_exact(&mut answer).map_err(failed)?;
        match i32::from_ne_bytes(answer) {
            0 => Ok(()),
            errno => {
                let error = std::io::Error::from_raw_os_error(errno);
                Err(SysError::new("stop", "the container's processes", error))
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.orders = None;
        let _ = fork::wait_pid(self.pid);
    }
}

fn pipe() -> SysResult<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| SysError::new("make", "a pipe", error))
}

/// The guard's life: wait for the order, hold everything still, wait for the end of the pipe, let go.
fn serve(pid: i32, orders: &mut fs::File, answers: &mut fs::File) {
    let mut byte = [0];
    if !matches!(orders.read(&mut byte), Ok(1)) {
        return;
    }
    let mut held = Held::default();
    let answer = held.hold(pid).map_or_else(|errno| errno, |()| 0);
    if answer == 0 && answers.write_all(&answer.to_ne_bytes()).is_ok() {
        let _ = orders.read(&mut byte);
    } else {
        let _ = answers.write_all(&answer.to_ne_bytes());
    }
    // Dropping lets go.
}

/// The processes that are held, in the order they were found.
#[derive(Default)]
struct Held(Vec<i32>);

impl Drop for Held {
    fn drop(&mut self) {
        // Children first: a shell that looks after them finds them running again.
        for pid in self.0.iter().rev() {
            let _ = signal(*pid, Signal::CONT);
        }
    }
}

impl Held {
    /// Stop every process of the container's pid namespace, until a look finds none that moves. The errno on failure.
    fn hold(&mut self, first: i32) -> Result<(), i32> {
        let start = Instant::now();
        let mut quiet = 0;
        // A process that was running during one look can have made others: two quiet looks in a row are stillness.
        while quiet < 2 {
            let moving = moving(first)?;
            quiet = if moving.is_empty() { quiet + 1 } else { 0 };
            for pid in moving {
                match signal(pid, Signal::STOP) {
                    Ok(()) if !self.0.contains(&pid) => self.0.push(pid),
                    Ok(()) | Err(libc::ESRCH) => {}
                    Err(errno) => return Err(errno),
                }
            }
            if start.elapsed() > PATIENCE {
                return Err(libc::ETIMEDOUT);
            }
            if quiet == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }
}

fn signal(pid: i32, signal: Signal) -> Result<(), i32> {
    let pid = Pid::from_raw(pid).ok_or(libc::ESRCH)?;
    rustix::process::kill_process(pid, signal).map_err(rustix::io::Errno::raw_os_error)
}

/// The processes of the namespace of `first` that are neither stopped nor dead, oldest first.
fn moving(first: i32) -> Result<BTreeSet<i32>, i32> {
    let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid"));
    let ours = namespace(first).map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))?;
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if namespace(pid).is_ok_and(|link| link == ours) && is_moving(&entry.path()) {
            found.insert(pid);
        }
    }
    Ok(found)
}

/// From the third field of `/proc/PID/stat`: stopped (T, t) and dead (Z, X) processes do not move. Uninterruptible
/// ones (D) stop as soon as they can, before they touch another file.
fn is_moving(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !"TtZXx".contains(state))
}
