use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::storage::Abilities;

static NEXT: AtomicU32 = AtomicU32::new(0);

fn record(name: &str) -> ContainerRecord {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    ContainerRecord {
        id: format!("{number:08x}{}", "ab".repeat(28)),
        name: name.into(),
        created: format!("2026-01-01T00:00:{:02}Z", number % 60),
        image_name: "busybox".into(),
        image: ImageId(Digest::sha256("image")),
        manifest: Digest::sha256("manifest"),
        layers: Vec::new(),
        volumes: None,
        stores: Vec::new(),
        spec: serde_json::value::to_raw_value(&serde_json::json!({"k": 1})).unwrap(),
    }
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let abilities = Abilities { mapped_ids: 1, unpack: false, lock_timeout: None };
    let store = Store::open_writable(&dir.path().join("store"), abilities).unwrap();
    (dir, store)
}

fn create(store: &Store, name: &str) -> Result<(ContainerDir, RunLock), Error> {
    store.create_container(record(""), NewName::Given(name), false)
}

#[test]
fn a_name_is_unique_and_wins_over_a_prefix() {
    let (_dir, store) = store();
    let (first, _lock) = create(&store, "web").unwrap();
    assert!(matches!(create(&store, "web"), Err(Error::NameInUse { id, .. }) if id == first.short_id()));
    assert_eq!(store.containers().unwrap().len(), 1, "the failed one left nothing");
    let (second, _lock2) = create(&store, &first.record.id[..8]).unwrap();
    for (text, id) in [
        ("web", &first.record.id),
        ("/web", &first.record.id),
        (&first.record.id[..8], &second.record.id),
        (&first.record.id[..12], &first.record.id),
        (&first.record.id, &first.record.id),
    ] {
        assert_eq!(&store.find_container(text).unwrap().record.id, id, "{text}");
    }
    assert!(
        matches!(store.find_container("0"), Err(Error::AmbiguousContainer { fits, .. }) if fits.len() == 2)
    );
    for missing in ["", "/", "..", "by-name", "x/y", "ffff"] {
        assert!(matches!(store.find_container(missing), Err(Error::NoSuchContainer(_))), "{missing}");
    }
}

#[test]
fn proposed_names_go_on_until_one_is_free() {
    let (_dir, store) = store();
    let propose = |attempt: u32| format!("n{attempt}");
    for expected in ["n0", "n1", "n2"] {
        let (dir, _lock) = store.create_container(record(""), NewName::Proposed(propose), false).unwrap();
        assert_eq!(dir.record.name, expected);
    }
}

#[test]
fn renaming_and_removing_free_the_name() {
    let (_dir, store) = store();
    let (mut first, lock) = create(&store, "a").unwrap();
    let (_second, _lock2) = create(&store, "b").unwrap();
    assert!(store.rename_container(&mut first, "b").is_err());
    store.rename_container(&mut first, "c").unwrap();
    assert!(store.find_container("a").is_err());
    assert_eq!(store.find_container("c").unwrap().record.id, first.record.id);
    first.remove(lock).unwrap();
    assert!(store.find_container("c").is_err());
    assert!(!first.path.exists());
    assert!(matches!(first.state(), Err(Error::NoSuchContainer(_))));
    create(&store, "c").unwrap();
}

#[test]
fn leftovers_are_skipped_and_swept() {
    let (_dir, store) = store();
    let half = store.layout().container(&"c".repeat(64));
    fs::create_dir(&half).unwrap();
    let (kept, _lock) = create(&store, "a").unwrap();
    let by_name = store.layout().containers().join("by-name");
    std::os::unix::fs::symlink("d".repeat(64), by_name.join("stale")).unwrap();
    assert_eq!(store.containers().unwrap().len(), 1);
    store.sweep_containers().unwrap();
    assert!(!half.exists() && kept.path.exists());
    assert!(fs::symlink_metadata(by_name.join("stale")).is_err());
    // A stale link is no obstacle without a sweep either.
    std::os::unix::fs::symlink("d".repeat(64), by_name.join("again")).unwrap();
    create(&store, "again").unwrap();
}

#[test]
fn the_lock_says_who_watches_and_waiting_gives_the_code() {
    let (_dir, store) = store();
    let (dir, lock) = create(&store, "a").unwrap();
    assert!(dir.try_lock().unwrap().is_none());
    let pid = i32::try_from(std::process::id()).unwrap();
    let state = ContainerState::running(pid, "2026-01-01T00:00:00Z".into());
    lock.write_state(&state).unwrap();
    assert_eq!(dir.state().unwrap().status, Status::Running);
    let waiter = store.find_container("a").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.wait_for_end().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!waiting.is_finished());
        lock.write_state(&state.exited(7, "2026-01-01T00:00:01Z".into())).unwrap();
        dir.remove(lock).unwrap();
        assert_eq!(waiting.join().unwrap(), Some(7), "though it removed itself");
    });
    assert!(matches!(dir.try_lock(), Err(Error::NoSuchContainer(_))));
}

/// The waiter's file outlives a start, and the shorter code of the second run replaces the first's.
#[test]
fn who_waits_gets_the_code_of_the_last_run() {
    let (_dir, store) = store();
    let (dir, lock) = create(&store, "a").unwrap();
    let pid = i32::try_from(std::process::id()).unwrap();
    let state = ContainerState::running(pid, "2026-01-01T00:00:00Z".into());
    lock.write_state(&state).unwrap();
    let waiter = store.find_container("a").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| waiter.wait_for_end().unwrap());
        let exit = dir.path.join("exit");
        while !exit.exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // So that it has seen that the program runs.
        std::thread::sleep(std::time::Duration::from_millis(100));
        lock.tell_waiters(143);
        assert_eq!(fs::read_to_string(&exit).unwrap(), "143\n");
        lock.clear_marks().unwrap();
        assert_eq!(fs::read_to_string(&exit).unwrap(), "", "a new run has no code yet");
        lock.tell_waiters(143);
        lock.tell_waiters(1);
        assert_eq!(fs::read_to_string(&exit).unwrap(), "1\n");
        dir.remove(lock).unwrap();
        assert_eq!(waiting.join().unwrap(), Some(1));
    });
}

#[test]
fn records_that_somebody_edited_name_no_path() {
    let (dir, store) = store();
    let canary = dir.path().join("canary");
    fs::create_dir(&canary).unwrap();
    let (made, lock) = create(&store, "a").unwrap();
    drop(lock);
    let file = made.path.join(RECORD);
    let good = fs::read_to_string(&file).unwrap();
    let id = made.record.id.as_str();
    let other = "f".repeat(64);
    for (from, to) in [
        (id, "../../../canary"),
        (id, other.as_str()),
        ("\"name\":\"a\"", "\"name\":\"../../../canary\""),
        ("\"name\":\"a\"", "\"name\":\"\""),
        ("\"name\":\"a\"", "\"name\":[]"),
        ("\"layers\"", "\"lay"),
    ] {
        let bad = good.replace(from, to);
        assert_ne!(bad, good);
        fs::write(&file, bad).unwrap();
        let error = store.find_container(&id[..8]).unwrap_err();
        assert!(matches!(error, Error::DamagedContainer { .. }), "{to}: {error}");
        assert!(store.containers().unwrap().is_empty());
        assert_eq!(store.damaged_containers().unwrap(), [id]);
    }
    assert!(canary.exists());
}

/// A store that keeps what it says.
fn listened(store: Store) -> (Store, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    let said = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let into = std::sync::Arc::clone(&said);
    let notice = crate::storage::Notice::new(move |text| into.lock().unwrap().push(text.to_owned()));
    (store.with_notice(notice), said)
}

#[test]
fn one_damaged_record_is_left_out_said_once_and_can_be_removed() {
    let (_dir, store) = store();
    let (store, said) = listened(store);
    let (bad, lock) = create(&store, "bad").unwrap();
    drop(lock);
    drop(create(&store, "good").unwrap());
    fs::write(bad.path.join(RECORD), "{\"id\": 1").unwrap();
    for _ in 0..3 {
        let names: Vec<String> = store.containers().unwrap().into_iter().map(|dir| dir.record.name).collect();
        assert_eq!(names, ["good"]);
    }
    let told = said.lock().unwrap().clone();
    assert!(told.len() == 1 && told[0].contains(&format!("strate rm -f {:.12}", bad.record.id)), "{told:?}");
    store.sweep_containers().unwrap();
    assert!(store.find_container("bad").is_err(), "its name is still taken");
    let found = store.find_container_to_remove("bad").unwrap();
    assert_eq!((found.record.id.as_str(), found.record.name.as_str()), (bad.record.id.as_str(), "bad"));
    let by_id = store.find_container_to_remove(&bad.record.id[..12]).unwrap();
    assert_eq!(by_id.path, bad.path);
    let lock = found.try_lock().unwrap().unwrap();
    store.remove_container(&found, lock, true).unwrap();
    assert!(matches!(store.find_container_to_remove("bad"), Err(Error::NoSuchContainer(_))));
    drop(create(&store, "bad").unwrap());
}

#[test]
fn a_state_that_cannot_be_read_is_that_of_a_dead_container() {
    let (_dir, store) = store();
    let (made, lock) = create(&store, "a").unwrap();
    lock.write_state(&ContainerState::running(1, "2026-01-01T00:00:00Z".into())).unwrap();
    drop(lock);
    fs::write(made.path.join("state.json"), "{\"status\":\"runn").unwrap();
    let state = made.state().unwrap();
    assert_eq!((state.status, state.exit_code), (Status::Dead, Some(255)));
    assert!(state.error.unwrap().contains("damaged"));
}

#[test]
fn who_should_have_removed_itself_is_swept_unless_it_runs() {
    let (_dir, store) = store();
    let volume = |name: &str| crate::storage::VolumeRecord { name: name.into(), ..Default::default() };
    let own = |name: &str| VolumeUse { name: name.into(), own: true };
    for name in ["its", "shared"] {
        store.create_volume(volume(name), true).unwrap();
    }
    let with = |volumes| ContainerRecord { volumes: Some(volumes), ..record("") };
    let create = |record, name| store.create_container(record, NewName::Given(name), false).unwrap();
    let (running, _held) = create(record(""), "running");
    running.mark_auto_remove(&_held).unwrap();
    let (ended, lock) = create(with(vec![own("its"), own("shared")]), "ended");
    ended.mark_auto_remove(&lock).unwrap();
    drop(lock);
    let (kept, _) = create(with(vec![VolumeUse { own: false, ..own("shared") }]), "kept");
    store.sweep_ended();
    assert!(running.path.exists() && kept.path.exists() && !ended.path.exists());
    assert!(matches!(store.find_volume("its"), Err(Error::NoSuchVolume(_))));
    store.find_volume("shared").unwrap();
    assert!(running.removes_itself() && !ended.removes_itself() && !kept.removes_itself());
    // A mark without a container is cleared.
    ended.mark_auto_remove(&_held).unwrap();
    store.sweep_ended();
    assert!(!ended.removes_itself());
}

#[test]
fn a_record_that_is_emptied_or_gone_is_damage_and_nobody_takes_it_for_nothing() {
    for emptied in [true, false] {
        let (_dir, store) = store();
        let (made, lock) = create(&store, "a").unwrap();
        drop(lock);
        fs::create_dir(made.path.join("upper")).unwrap();
        if emptied {
            fs::write(made.path.join(RECORD), "").unwrap();
        } else {
            fs::remove_file(made.path.join(RECORD)).unwrap();
        }
        assert!(matches!(store.find_container("a"), Err(Error::DamagedContainer { .. })), "{emptied}");
        assert_eq!(store.damaged_containers().unwrap(), [made.record.id.as_str()]);
        assert!(store.has_damaged_container().unwrap());
        store.sweep_containers().unwrap();
        assert!(made.path.exists(), "{emptied}: swept away");
        let found = store.find_container_to_remove("a").unwrap();
        let lock = found.try_lock().unwrap().unwrap();
        store.remove_container(&found, lock, true).unwrap();
        assert!(!made.path.exists() && !store.has_damaged_container().unwrap());
        drop(create(&store, "a").unwrap());
    }
}

#[test]
fn one_that_is_being_made_is_not_damaged() {
    let (_dir, store) = store();
    std::thread::scope(|scope| {
        let maker = scope.spawn(|| {
            for i in 0..300 {
                let path = store.layout().container(&format!("{i:064x}"));
                fs::create_dir(&path).unwrap();
                fs::write(path.join(".config.json"), "{}").unwrap();
                fs::rename(path.join(".config.json"), path.join(RECORD)).unwrap();
                fs::create_dir(path.join("upper")).unwrap();
                let gone = store.layout().tmp().join("gone");
                fs::rename(&path, &gone).unwrap();
                fs::remove_dir_all(gone).unwrap();
            }
        });
        while !maker.is_finished() {
            for id in store.container_ids().unwrap() {
                // `{}` is no record: that much may be said of it, but not that it is missing.
                if let Err(Error::DamagedContainer { source, .. }) = store.read_container(&id) {
                    assert!(!matches!(*source, Error::Damaged { .. }), "{source}");
                }
            }
        }
    });
}

#[test]
fn a_container_that_is_being_made_is_not_swept() {
    let (_dir, store) = store();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                store.sweep_containers().unwrap();
            }
        });
        for n in 0..50 {
            let made = create(&store, &format!("c{n}"));
            done.fetch_or(made.is_err() || n == 49, std::sync::atomic::Ordering::Relaxed);
            made.unwrap();
        }
    });
}
