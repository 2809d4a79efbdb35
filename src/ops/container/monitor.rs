//! A process that stays behind when the command returns: the monitor of a detached container, or of a detached exec.
//!
//! Forked twice and in a session of its own, it survives the shell; its standard streams are `/dev/null`, and it keeps
//! no descriptor of the command's but those named. Until the program runs, the command waits for its word.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::image::BoxError;
use crate::sys::fork::{self, Forked};
use crate::sys::{SysError, fds};

/// What a monitor tells the command that made it.
#[derive(Debug, Serialize, Deserialize)]
struct Word {
    /// Nothing: the program runs.
    failure: Option<Failure>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Failure {
    exit_code: u8,
    /// Outermost first.
    messages: Vec<String>,
}

/// A cause that came over the pipe as words.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Told {
    message: String,
    #[source]
    source: Option<BoxError>,
}

/// The monitor's end of the pipe.
#[derive(Debug)]
pub struct Report(File);

impl Report {
    /// The program runs: the command may return.
    pub fn started(self) {
        self.send(&Word { failure: None });
    }

    /// The program could not be started.
    pub fn failed(self, error: &Error) {
        let mut messages = vec![error.to_string()];
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            let text = cause.to_string();
            if messages.last() != Some(&text) {
                messages.push(text);
            }
            next = cause.source();
        }
        self.send(&Word { failure: Some(Failure { exit_code: error.exit_code(), messages }) });
    }

    fn send(mut self, word: &Word) {
        // When the command is gone nobody needs to know.
        if let Ok(bytes) = serde_json::to_vec(word) {
            let _ = self.0.write_all(&bytes);
        }
    }
}

/// Leave a process behind that does `life`, and wait until it reports. `keep` are the descriptors that `life` uses.
///
/// # Errors
/// What the monitor reported, or [`Error::MonitorGone`] with `name`.
pub fn leave_behind(name: &str, keep: &[RawFd], life: impl FnOnce(Report)) -> Result<(), Error> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| SysError::new("make", "a pipe", error))?;
    match fork::fork()? {
        Forked::Parent(pid) => {
            drop(write);
            fork::wait_pid(pid)?;
            listen(name, read)
        }
        Forked::Child => {
            let _end = fork::NeverReturn;
            // A session of its own: no terminal can reach it, and it can get none.
            let _ = rustix::process::setsid();
            match fork::fork() {
                Ok(Forked::Child) => settle(write, keep, life),
                _ => fork::exit_now(0),
            }
        }
    }
}

fn settle(write: OwnedFd, keep: &[RawFd], life: impl FnOnce(Report)) -> ! {
    let mut keep = keep.to_vec();
    keep.push(write.as_raw_fd());
    // The working directory would keep a file system busy.
    let ready = fds::silence()
        .and_then(|()| fds::close_all_but(&keep))
        .and_then(|()| rustix::process::chdir("/").map_err(|error| SysError::path("enter", "/", error)));
    let report = Report(write.into());
    match ready {
        Ok(()) => life(report),
        Err(error) => report.failed(&error.into()),
    }
    fork::exit_now(0)
}

fn listen(name: &str, read: OwnedFd) -> Result<(), Error> {
    let mut bytes = Vec::new();
    let gone = || Error::MonitorGone(name.into());
    File::from(read).read_to_end(&mut bytes).map_err(|_| gone())?;
    let word: Word = serde_json::from_slice(&bytes).map_err(|_| gone())?;
    let Some(failure) = word.failure else { return Ok(()) };
    let mut messages = failure.messages.into_iter();
    let message = messages.next().unwrap_or_default();
    let causes: Vec<String> = messages.collect();
    let source = causes
        .into_iter()
        .rev()
        .fold(None, |source: Option<BoxError>, message| Some(Box::new(Told { message, source })));
    Err(Error::Monitor { message, source, exit_code: failure.exit_code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_arrives_with_its_causes_and_code() {
        let error = leave_behind("x", &[], |report| {
            report.failed(&Error::Commit { id: "a".into(), source: "why".into() });
        })
        .unwrap_err();
        assert_eq!(error.to_string(), "cannot commit container a");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "why");
        assert_eq!(error.exit_code(), 125);
    }

    #[test]
    fn silence_is_noticed_and_a_start_too() {
        assert!(matches!(leave_behind("x", &[], drop), Err(Error::MonitorGone(_))));
        leave_behind("x", &[], Report::started).unwrap();
    }

    #[test]
    fn what_stays_behind_keeps_only_what_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, leaked) =
            (File::create(dir.path().join("kept")).unwrap(), File::create(dir.path().join("l")).unwrap());
        let out = dir.path().join("out");
        leave_behind("x", &[kept.as_raw_fd()], |report| {
            let links = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
            let names: Vec<String> = links
                .filter_map(|entry| std::fs::read_link(entry.path()).ok())
                .map(|path| path.display().to_string())
                .collect();
            let _ = std::fs::write(&out, names.join("\n"));
            report.started();
        })
        .unwrap();
        drop(leaked);
        let names = std::fs::read_to_string(&out).unwrap();
        assert!(names.contains("/kept") && !names.contains("/l\n"), "{names}");
        assert_eq!(names.matches("/dev/null").count(), 3);
    }
}
