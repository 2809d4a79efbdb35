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
        spec: serde_json::json!({"k": 1}),
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

#[test]
fn volumes_are_made_once() {
    let (_dir, store) = store();
    let volume = store.volume("data", false, "2026-01-01T00:00:00Z").unwrap();
    assert!(volume.new && volume.data.is_dir());
    fs::write(volume.data.join("f"), "x").unwrap();
    assert!(!store.volume("data", false, "later").unwrap().new);
    assert_eq!(store.volumes().unwrap().len(), 1);
    store.remove_volume("data").unwrap();
    store.remove_volume("data").unwrap();
    assert!(store.volumes().unwrap().is_empty());
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
        for result in [store.find_container(&id[..8]), store.containers().map(|mut all| all.remove(0))] {
            let error = result.unwrap_err();
            assert!(matches!(error, Error::Damaged { .. } | Error::Json { .. }), "{to}: {error}");
        }
    }
    let volume = store.volume("data", false, "now").unwrap();
    let file = volume.data.with_file_name("volume.json");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("data", "../../canary")).unwrap();
    assert!(matches!(store.volumes(), Err(Error::Damaged { .. })));
    for name in ["", ".", "..", "../../canary", "a/b", "/etc"] {
        assert!(store.volume(name, true, "now").is_err(), "{name}");
        assert!(store.remove_volume(name).is_err(), "{name}");
        assert!(made.remove_volumes([name]).is_err(), "{name}");
    }
    assert!(canary.exists());
}
