//! A process that goes on with a piece of work after the command that asked for it has ended.

use std::os::fd::RawFd;

use super::fork::{self, Forked};
use super::{SysResult, fds, signals, title};

/// The lowest priority there is (`man 2 setpriority`): nobody waits for this work.
const NICE: i32 = 19;

/// Leave `work` to a process of its own: another session, no terminal, low priority, no descriptors but `keep`, which
/// other processes see as `name`. When this returns, none of this process's other descriptors is open in it, so that
/// locks held here end with their owners. Nobody learns how the work ended.
///
/// # Errors
/// When no process can be made.
pub fn leave_behind(name: &str, keep: &[RawFd], work: impl FnOnce()) -> SysResult<()> {
    match fork::fork()? {
        Forked::Parent(pid) => fork::wait_pid(pid).map(drop),
        Forked::Child => {
            let _end = fork::NeverReturn;
            // A session of its own: no terminal can reach it, and it can get none.
            let _ = rustix::process::setsid();
            if fds::silence().and_then(|()| fds::close_all_but(keep)).is_err() {
                fork::exit_now(1);
            }
            signals::reset_all();
            if let Ok(Forked::Child) = fork::fork() {
                // The working directory would keep a file system busy.
                let _ = rustix::process::chdir("/");
                let _ = rustix::process::setpriority_process(None, NICE);
                title::replace(name);
                work();
            }
            fork::exit_now(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn the_work_goes_on_and_holds_only_what_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, other) = (dir.path().join("kept"), dir.path().join("other"));
        let lock = |path| {
            let file = std::fs::File::create(path).unwrap();
            assert!(crate::sys::flock::try_lock(&file, true).unwrap());
            file
        };
        let free = |path| crate::sys::flock::try_lock(std::fs::File::open(path).unwrap(), true).unwrap();
        let (ours, theirs) = (lock(&other), lock(&kept));
        let done = dir.path().join("done");
        let start = Instant::now();
        leave_behind("test", &[std::os::fd::AsRawFd::as_raw_fd(&theirs)], || {
            std::thread::sleep(Duration::from_millis(400));
            let _ = std::fs::write(&done, "");
        })
        .unwrap();
        drop((ours, theirs));
        assert!(start.elapsed() < Duration::from_millis(390));
        assert!(free(&other), "what it was not given is free at once");
        assert!(!free(&kept), "what it was given is held");
        while !done.exists() || !free(&kept) {
            assert!(start.elapsed() < Duration::from_secs(20), "the work was not done");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
