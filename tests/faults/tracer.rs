//! Runs a program under `ptrace(2)`, counts its calls that change something, over all threads and child processes, and
//! at a given one kills it or makes the call fail.
//!
//! Every system call stops, without a seccomp filter: a filter needs "no new privileges", which would take newuidmap's
//! away. For the same reason processes that become newuidmap or newgidmap are let go just before. Memory and files of
//! the traced are read through `/proc`.

#![allow(unsafe_code, reason = "ptrace is nothing but unsafe calls")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::calls::{Call, classify, runs_privileged};

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Nothing: the calls are only counted.
    Count,
    /// Everything in the process group is killed before the call has any effect.
    Kill,
    /// The same, just after this call: other threads may have calls under way.
    KillAfter,
    /// Only the process that was started is killed, as `kill -9 PID` does; its children are on their own.
    KillOne,
    /// This signal is sent to the process group, and the call goes on.
    Signal(i32),
    /// The call fails with this errno and has no effect.
    Fail(i32),
    /// It and all that follow do.
    FailAll(i32),
    /// A write that writes only half of what it should.
    Short,
}

/// At which call something happens.
pub struct Plan<'a> {
    /// The number of the call among those that `which` lets count, from one.
    pub at: usize,
    /// What happens then.
    pub act: Act,
    /// Which calls count.
    pub which: &'a (dyn Fn(&Call) -> bool + Sync),
}

/// What came of a run.
#[derive(Debug)]
pub struct Traced {
    /// The exit code, 128 and the signal when one ended it.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// How many calls counted.
    pub calls: usize,
    /// The call at which something happened.
    pub hit: Option<Call>,
    /// Processes that were still there two seconds after the kill, or after the end.
    pub strays: Vec<String>,
    /// It did not end by itself in the time it had.
    pub hung: bool,
}

impl std::fmt::Display for Traced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {}\nstdout: {}\nstderr: {}", self.code, self.stdout.trim(), self.stderr.trim())
    }
}

/// No run takes longer, or it hangs.
const LIMIT: Duration = Duration::from_secs(60);
/// So long may what was killed take to be gone.
const DYING: Duration = Duration::from_secs(3);

/// Run a command to its end under a plan.
pub fn run(command: Command, plan: &Plan<'_>) -> Traced {
    // The kernel ties the traced to the thread that started them; a thread of its own has no other children to wait for.
    std::thread::scope(|scope| scope.spawn(|| Tracer::start(command, plan).finish()).join().unwrap())
}

struct Tracer<'a> {
    child: std::process::Child,
    main: i32,
    plan: &'a Plan<'a>,
    /// Children of other programs that were born before they stopped for the first time.
    foreign_unseen: BTreeSet<i32>,
    threads: BTreeMap<i32, Thread>,
    calls: usize,
    hit: Option<Call>,
    killed: Option<Instant>,
    status: Option<i32>,
    strays: BTreeSet<String>,
    hung: bool,
}

#[derive(Default, Clone, Copy)]
struct Thread {
    /// What the call under way returns instead of its own result.
    answer: Option<i64>,
    /// The call under way is the one after which to kill.
    last: bool,
    /// It has become another program.
    foreign: bool,
}

fn ptrace(request: libc::c_uint, tid: i32, address: usize, data: usize) -> libc::c_long {
    // SAFETY: requests with pointers get those of live structures of the right size; a thread that is gone is an error.
    unsafe { libc::ptrace(request, tid, address, data) }
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: plain system call.
    unsafe { libc::kill(pid, signal) };
}

impl<'a> Tracer<'a> {
    fn start(mut command: Command, plan: &'a Plan<'a>) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // SAFETY: between fork and exec the child only makes this system call.
        unsafe {
            command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let main = i32::try_from(child.id()).unwrap();
        Self {
            child,
            main,
            plan,
            foreign_unseen: BTreeSet::new(),
            threads: BTreeMap::new(),
            calls: 0,
            hit: None,
            killed: None,
            status: None,
            strays: BTreeSet::new(),
            hung: false,
        }
    }

    fn finish(mut self) -> Traced {
        // A program that says more than a pipe holds must not wait for us.
        let (stdout, stderr) = (self.child.stdout.take().unwrap(), self.child.stderr.take().unwrap());
        let (stdout, stderr) = (read_all(stdout), read_all(stderr));
        self.follow();
        Traced {
            code: self.status.unwrap_or(-1),
            stdout: stdout.recv_timeout(DYING).unwrap_or_default(),
            stderr: stderr.recv_timeout(DYING).unwrap_or_default(),
            calls: self.calls,
            hit: self.hit,
            strays: self.strays.into_iter().collect(),
            hung: self.hung,
        }
    }

    /// Wait for stops until nobody is left.
    fn follow(&mut self) {
        let watchdog = Watchdog::start(self.main);
        loop {
            let mut status = 0;
            let blocking = if self.killed.is_some() || self.status.is_some() { libc::WNOHANG } else { 0 };
            let flags = libc::__WALL | libc::__WNOTHREAD | blocking;
            // SAFETY: the status pointer is valid during the call.
            match unsafe { libc::waitpid(-1, &raw mut status, flags) } {
                0 => self.wait_for_the_dying(),
                -1 if std::io::Error::last_os_error().raw_os_error() == Some(libc::EINTR) => {}
                -1 => break,
                tid => self.stopped(tid, status),
            }
        }
        self.hung = watchdog.stop();
    }

    fn wait_for_the_dying(&mut self) {
        std::thread::sleep(Duration::from_micros(300));
        let since = *self.killed.get_or_insert_with(Instant::now);
        if since.elapsed() > DYING {
            for tid in self.threads.keys() {
                let line = std::fs::read(format!("/proc/{tid}/cmdline")).unwrap_or_default();
                let state = std::fs::read_to_string(format!("/proc/{tid}/wchan")).unwrap_or_default();
                self.strays
                    .insert(format!("{tid} {} ({state})", String::from_utf8_lossy(&line).replace('\0', " ")));
                kill(*tid, libc::SIGKILL);
            }
        }
    }

    fn stopped(&mut self, tid: i32, status: i32) {
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            if tid == self.main {
                let exited = libc::WIFEXITED(status);
                self.status =
                    Some(if exited { libc::WEXITSTATUS(status) } else { 128 + libc::WTERMSIG(status) });
            }
            self.threads.remove(&tid);
            return;
        }
        let signal = libc::WSTOPSIG(status);
        let event = status >> 16;
        let is_new = !self.threads.contains_key(&tid);
        if is_new {
            let foreign = self.foreign_unseen.remove(&tid);
            self.threads.insert(tid, Thread { foreign, ..Thread::default() });
        }
        if is_new && (tid == self.main || signal == libc::SIGSTOP) {
            if tid == self.main {
                self.set_options(tid);
            }
            return self.go_on(tid, 0);
        }
        if signal == libc::SIGTRAP | 0x80 {
            return self.at_call(tid);
        }
        if signal == libc::SIGTRAP && event != 0 {
            if event == libc::PTRACE_EVENT_EXEC {
                self.threads.insert(tid, Thread { foreign: true, ..Thread::default() });
            }
            if [libc::PTRACE_EVENT_FORK, libc::PTRACE_EVENT_VFORK, libc::PTRACE_EVENT_CLONE].contains(&event)
            {
                self.is_born(tid);
            }
            return self.go_on(tid, 0);
        }
        self.go_on(tid, signal);
    }

    fn set_options(&self, tid: i32) {
        let options = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEEXEC
            | libc::PTRACE_O_EXITKILL;
        ptrace(libc::PTRACE_SETOPTIONS, tid, 0, usize::try_from(options).unwrap());
    }

    /// A child is of the program that its parent is.
    fn is_born(&mut self, parent: i32) {
        let mut child = 0_u64;
        ptrace(libc::PTRACE_GETEVENTMSG, parent, 0, &raw mut child as usize);
        let foreign = self.threads[&parent].foreign;
        let Ok(child) = i32::try_from(child) else { return };
        match self.threads.get_mut(&child) {
            Some(thread) => thread.foreign |= foreign,
            None if foreign => {
                self.foreign_unseen.insert(child);
            }
            None => {}
        }
    }

    fn go_on(&self, tid: i32, signal: i32) {
        ptrace(libc::PTRACE_SYSCALL, tid, 0, usize::try_from(signal).unwrap());
    }

    fn at_call(&mut self, tid: i32) {
        // SAFETY: the structure is plain numbers.
        let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
        let size = size_of::<libc::ptrace_syscall_info>();
        if ptrace(libc::PTRACE_GET_SYSCALL_INFO, tid, size, &raw mut info as usize) < 0 {
            return self.go_on(tid, 0);
        }
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            // SAFETY: `op` says which member of the union is filled.
            let entry = unsafe { info.u.entry };
            if !self.at_entry(tid, entry.nr, &entry.args) {
                return;
            }
        } else {
            self.at_exit(tid);
        }
        self.go_on(tid, 0);
    }

    /// False when the thread is not traced any more.
    fn at_entry(&mut self, tid: i32, number: u64, args: &[u64; 6]) -> bool {
        if runs_privileged(tid, number, args) {
            ptrace(libc::PTRACE_DETACH, tid, 0, 0);
            self.threads.remove(&tid);
            return false;
        }
        if self.killed.is_some() {
            return true;
        }
        let foreign = self.threads[&tid].foreign;
        let Some(call) = classify(tid, number, args, foreign) else { return true };
        if !(self.plan.which)(&call) {
            return true;
        }
        self.calls += 1;
        let (at, goes_on) = (self.plan.at, matches!(self.plan.act, Act::FailAll(_)));
        if self.calls == at {
            self.hit = Some(call);
        }
        if self.calls == at || (goes_on && self.hit.is_some()) {
            self.strike(tid, number);
        }
        true
    }

    fn strike(&mut self, tid: i32, number: u64) {
        match self.plan.act {
            Act::Count => {}
            Act::Kill | Act::KillOne => self.kill(),
            Act::KillAfter => self.threads.get_mut(&tid).unwrap().last = true,
            Act::Signal(signal) => kill(-self.main, signal),
            Act::Fail(errno) | Act::FailAll(errno) => {
                self.change_registers(tid, |registers| registers.orig_rax = u64::MAX);
                self.threads.get_mut(&tid).unwrap().answer = Some(-i64::from(errno));
            }
            Act::Short => self.change_registers(tid, |registers| {
                // Where the length is in the call's arguments; of `writev` the number of pieces.
                let length = match libc::c_long::try_from(number) {
                    Ok(libc::SYS_sendfile) => &mut registers.r10,
                    Ok(libc::SYS_copy_file_range | libc::SYS_splice) => &mut registers.r8,
                    _ => &mut registers.rdx,
                };
                *length = length.div_ceil(2);
            }),
        }
    }

    fn at_exit(&mut self, tid: i32) {
        let thread = self.threads.get_mut(&tid).unwrap();
        let (answer, last) = (thread.answer.take(), std::mem::take(&mut thread.last));
        if let Some(answer) = answer {
            self.change_registers(tid, |registers| registers.rax = answer.cast_unsigned());
        }
        if last {
            self.kill();
        }
    }

    fn change_registers(&self, tid: i32, change: impl FnOnce(&mut libc::user_regs_struct)) {
        // SAFETY: the structure is plain numbers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let data = &raw mut registers as usize;
        if ptrace(libc::PTRACE_GETREGS, tid, 0, data) == 0 {
            change(&mut registers);
            ptrace(libc::PTRACE_SETREGS, tid, 0, &raw mut registers as usize);
        }
    }

    fn kill(&mut self) {
        self.killed = Some(Instant::now());
        let one = self.plan.act == Act::KillOne;
        kill(if one { self.main } else { -self.main }, libc::SIGKILL);
    }
}

fn read_all(mut from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

/// Kills what hangs.
struct Watchdog {
    done: mpsc::Sender<()>,
    thread: std::thread::JoinHandle<bool>,
}

impl Watchdog {
    fn start(group: i32) -> Self {
        let (done, over) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let hung = over.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout);
            if hung {
                kill(-group, libc::SIGKILL);
            }
            hung
        });
        Self { done, thread }
    }

    fn stop(self) -> bool {
        let _ = self.done.send(());
        self.thread.join().unwrap()
    }
}
