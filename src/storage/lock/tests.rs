use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;

fn store() -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    std::fs::create_dir(layout.locks()).unwrap();
    (dir, layout)
}

fn patience(limit: Option<Duration>) -> Patience<'static> {
    Patience { limit, say: &|_| () }
}

#[test]
fn a_wait_of_more_than_a_second_is_announced_with_the_holder() {
    let (_dir, layout) = store();
    let first = lock(&layout, &LockName::Names, LockMode::Exclusive, &patience(None)).unwrap();
    assert!(try_lock(&layout, &LockName::Names, LockMode::Shared).unwrap().is_none());
    let said = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let say = |text: &str| said.lock().unwrap().push(text.to_owned());
            let patience = Patience { limit: None, say: &say };
            lock(&layout, &LockName::Names, LockMode::Shared, &patience).unwrap();
        });
        std::thread::sleep(Duration::from_millis(1300));
        drop(first);
    });
    let said = said.into_inner().unwrap();
    let expected = format!("waiting for the list of images, held by process {} (", std::process::id());
    assert!(said.len() == 1 && said[0].starts_with(&expected), "{said:?}");
    let shared = try_lock(&layout, &LockName::Names, LockMode::Shared).unwrap();
    assert!(shared.is_some());
    assert!(try_lock(&layout, &LockName::Names, LockMode::Shared).unwrap().is_some());
    assert!(try_lock(&layout, &LockName::Names, LockMode::Exclusive).unwrap().is_none());
}

#[test]
fn a_lock_file_that_is_deleted_or_replaced_is_noticed() {
    let (_dir, layout) = store();
    let path = layout.lock("names");
    let first = lock(&layout, &LockName::Names, LockMode::Exclusive, &patience(None)).unwrap();
    first.verify().unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(first.verify(), Err(Error::LockLost(lost)) if lost == path));
    let second = lock(&layout, &LockName::Names, LockMode::Exclusive, &patience(None)).unwrap();
    second.verify().unwrap();
    assert!(first.verify().is_err(), "another file lies there");
    // Who waited on the old file does not get the lock by it.
    std::fs::remove_dir_all(layout.locks()).unwrap();
    std::thread::scope(|scope| {
        let third = lock(&layout, &LockName::Names, LockMode::Exclusive, &patience(None)).unwrap();
        let waiting =
            scope.spawn(|| lock(&layout, &LockName::Names, LockMode::Exclusive, &patience(None)).unwrap());
        std::thread::sleep(Duration::from_millis(30));
        std::fs::remove_file(&path).unwrap();
        drop(third);
        waiting.join().unwrap().verify().unwrap();
    });
}

#[test]
fn who_wants_to_be_alone_is_not_kept_out_by_those_who_come_and_go() {
    let (_dir, layout) = store();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    let _held = lock(&layout, &LockName::Collect, LockMode::Shared, &patience(None)).unwrap();
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        }
        std::thread::sleep(Duration::from_millis(50));
        let start = Instant::now();
        lock(&layout, &LockName::Collect, LockMode::Exclusive, &patience(None)).unwrap();
        let took = start.elapsed();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(took < Duration::from_secs(2), "{took:?}");
    });
}

#[test]
fn only_a_holder_that_does_nothing_is_given_up() {
    let (_dir, layout) = store();
    let digest = Digest::sha256("x");
    let held = lock(&layout, &LockName::Blob(&digest), LockMode::Exclusive, &patience(None)).unwrap();
    let at_once = patience(Some(Duration::ZERO));
    match lock(&layout, &LockName::Blob(&digest), LockMode::Exclusive, &at_once) {
        Err(Error::Busy { what, holder, idle: 0 }) => {
            assert!(what.starts_with("the download of"), "{what}");
            assert!(holder.contains(&std::process::id().to_string()), "{holder}");
        }
        other => panic!("{other:?}"),
    }
    // This process works while it waits for itself: the limit is over, and it waits on.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let patience = patience(Some(Duration::from_millis(1500)));
            lock(&layout, &LockName::Blob(&digest), LockMode::Exclusive, &patience).map(drop)
        });
        std::thread::sleep(Duration::from_millis(2600));
        drop(held);
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn the_lock_of_a_directory_is_given_up_when_its_holder_does_nothing_or_it_is_replaced() {
    let (_dir, layout) = store();
    let path = layout.locks();
    let open = || OwnedFd::from(File::open(&path).unwrap());
    let take = |limit| lock_dir(open(), path.clone(), &"volume v", &patience(Some(limit)));
    // Held by a process that sleeps: one that took the lock itself, since this one works all the time.
    let sleep = ["-c", "exec 9<\"$1\"; flock 9; echo held; exec sleep 600", "sh"];
    let mut child = std::process::Command::new("sh");
    let mut child = child.args(sleep).arg(&path).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut held = [0; 5];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut held).unwrap();
    let busy = take(Duration::from_millis(300));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(matches!(&busy, Err(Error::Busy { what, .. }) if what == "volume v"), "{busy:?}");
    let old = open();
    assert!(take(Duration::ZERO).unwrap().is_some());
    std::fs::rename(&path, path.with_file_name("aside")).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(lock_dir(old, path.clone(), &"volume v", &patience(None)).unwrap().is_none());
}
