//! What each rung would answer, tried for real in a child.

use std::io::Read;

use rustix::pipe::{PipeFlags, pipe_with};

use super::{Request, Rung, enter};
use crate::sys::fork::{Forked, NeverReturn, exit_now, fork, wait_pid};

pub(super) fn probe(request: &Request) -> Vec<(Rung, Result<String, String>)> {
    let mut answers: Vec<_> = [Rung::Root, Rung::Full, Rung::Single]
        .into_iter()
        .map(|rung| (rung, try_rung(request, rung)))
        .collect();
    answers.push((Rung::None, Ok("everything but RUN and run".to_owned())));
    answers
}

/// Take the rung in a child and let it tell: one byte for the outcome, then the words.
fn try_rung(request: &Request, rung: Rung) -> Result<String, String> {
    let (read, write) =
        pipe_with(PipeFlags::CLOEXEC).map_err(|error| format!("cannot make a pipe: {error}"))?;
    let pid = match fork().map_err(|error| format!("{error}: {}", error.source))? {
        Forked::Parent(pid) => pid,
        Forked::Child => {
            let _guard = NeverReturn;
            drop(read);
            let request = Request { pinned: Some(rung), ..request.clone() };
            let answer = match enter::climb(&request) {
                Ok(entered) if entered.mapped_ids == u32::MAX => "+every id".to_owned(),
                Ok(entered) if entered.mapped_ids == 1 => "+one id".to_owned(),
                Ok(entered) => format!("+{} ids", entered.mapped_ids),
                Err(super::Error::Refused { why, .. }) => format!("-{why}"),
                Err(error) => format!("-{error}"),
            };
            let _ = rustix::io::retry_on_intr(|| rustix::io::write(&write, answer.as_bytes()));
            exit_now(0)
        }
    };
    drop(write);
    let mut answer = String::new();
    let _ = std::fs::File::from(read).take(4096).read_to_string(&mut answer);
    let _ = wait_pid(pid);
    match answer.split_at_checked(1) {
        Some(("+", words)) => Ok(words.to_owned()),
        Some(("-", words)) => Err(words.to_owned()),
        _ => Err("the trial ended without an answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As root the first rung works, as an ordinary user it must not; the last works everywhere.
    #[test]
    fn answers_fit_who_we_are() {
        let path = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Into::into).to_vec();
        let answers = probe(&Request { user: None, pinned: None, keep: None, path });
        assert_eq!(answers.len(), 4);
        let root = rustix::process::geteuid().is_root();
        assert!(root || answers[0].1.is_err(), "{answers:?}");
        assert!(answers[3].1.is_ok());
        let pinned = Request { user: None, pinned: Some(Rung::None), keep: None, path: Vec::new() };
        assert_eq!(enter::climb(&pinned).map(|e| e.rung).ok(), Some(Rung::None));
    }

    /// A file made by another id of the map must be seen with that id again: chown works all over the full map.
    #[test]
    fn full_rung_changes_owners() {
        let path: Vec<_> = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(Into::into).to_vec();
        let request = Request { user: None, pinned: None, keep: None, path };
        let dir = std::env::temp_dir().join(format!("strate-userns-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let Forked::Parent(pid) = fork().unwrap() else {
            let _guard = NeverReturn;
            let before = std::time::Instant::now();
            let entered = enter::climb(&request).unwrap();
            let took = before.elapsed();
            let file = dir.join("owned");
            std::fs::write(&file, "x").unwrap();
            let code = match entered.rung {
                Rung::Root | Rung::Full => {
                    std::os::unix::fs::chown(&file, Some(1000), Some(1000)).unwrap();
                    let _ = std::fs::remove_file(&file);
                    10
                }
                Rung::Single => {
                    i32::from(std::os::unix::fs::chown(&file, Some(1000), Some(1000)).is_err()) * 11
                }
                Rung::None => 12,
            };
            let _ = std::fs::write(
                dir.join("took"),
                format!("{:?} {took:?} {:?}", entered.rung, entered.refused),
            );
            exit_now(code)
        };
        let code = wait_pid(pid).unwrap() >> 8;
        println!("{}", std::fs::read_to_string(dir.join("took")).unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
        assert!([10, 11, 12].contains(&code), "{code}");
    }

    /// The cause of a refusal names what is missing.
    #[test]
    fn refusals_name_the_cause() {
        if rustix::process::geteuid().is_root() {
            println!("skipped: for an ordinary user");
            return;
        }
        let request =
            |user: &str| Request { user: Some(user.to_owned()), pinned: None, keep: None, path: Vec::new() };
        let full = |user: &str| probe(&request(user)).swap_remove(1).1.unwrap_err();
        assert_eq!(full("nosuchuser"), "/etc/subuid has no entry for user `nosuchuser`");
        let Some(name) = super::super::subid::user_name(rustix::process::getuid().as_raw()) else { return };
        let why = full(&name);
        assert!(why.starts_with("`newuidmap` is not installed") || why.starts_with("/etc/subuid"), "{why}");
    }
}
