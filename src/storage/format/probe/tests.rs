use super::*;

fn good() -> Probe {
    Probe {
        version: 1,
        file_system: "ext4".into(),
        id: 1,
        kernel: "6.1".into(),
        locks: Locks::Exclusive,
        local_locks: false,
        rename_over: true,
        unnamed_files: true,
        hard_links: true,
        user_xattrs: true,
        entry_types: true,
    }
}

#[test]
fn what_a_disk_can_do_is_found_and_kept() {
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let layout = Layout::new(dir.path());
    let probe = Probe::take(&layout, dir.path()).unwrap();
    assert!(probe.locks == Locks::Exclusive && probe.rename_over && probe.hard_links, "{probe:?}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "the probe leaves nothing");
    probe.write(&layout, &dir.path().join("temp")).unwrap();
    assert_eq!(Probe::read(&layout), Some(probe.clone()));
    assert!(probe.is_of_here(dir.path()) && !Probe { kernel: "5.0".into(), ..probe }.is_of_here(dir.path()));
    fs::write(layout.probe(), "{").unwrap();
    assert_eq!(Probe::read(&layout), None);
}

#[test]
fn what_a_killed_probe_left_is_swept_and_that_of_a_living_one_is_not() {
    let root = tempfile::tempdir_in("/var/tmp").unwrap();
    let layout = Layout::new(root.path());
    fs::create_dir(layout.locks()).unwrap();
    let (living, _held) = scratch(&layout.locks()).unwrap();
    let dead = layout.locks().join("probe-dead");
    fs::create_dir(&dead).unwrap();
    fs::write(dead.join("old"), [1; 5000]).unwrap();
    std::os::unix::fs::symlink(root.path(), layout.locks().join("probe-link")).unwrap();
    assert!(sweep(&layout).unwrap() >= 4096);
    assert!(living.path().exists() && !dead.exists() && root.path().exists());
    assert_eq!(sweep(&layout).unwrap(), 0);
}

#[test]
fn without_locks_no_store_is_made_unless_the_user_insists() {
    let root = Path::new("/x");
    good().refuse(root, false).unwrap();
    let bad = [
        Probe { locks: Locks::Ineffective, ..good() },
        Probe { local_locks: true, file_system: "nfs".into(), ..good() },
    ];
    for probe in bad {
        let error = probe.refuse(root, false).unwrap_err();
        assert!(matches!(error, Error::Unfit { negotiable: true, .. }), "{error}");
        probe.refuse(root, true).unwrap();
    }
    for probe in [Probe { rename_over: false, ..good() }, Probe { locks: Locks::None, ..good() }] {
        let error = probe.refuse(root, true).unwrap_err();
        assert!(matches!(error, Error::Unfit { negotiable: false, .. }), "{error}");
    }
}

#[test]
fn a_word_is_said_of_what_is_no_local_disk() {
    assert_eq!(good().word(Path::new("/x")), None);
    let word = Probe { file_system: "nfs4".into(), ..good() }.word(Path::new("/x")).unwrap();
    assert!(word.contains("`/x`") && word.contains("nfs4") && word.contains("--root"), "{word}");
    let poor = Probe { user_xattrs: false, local_locks: true, ..good() };
    assert_eq!(poor.lacks(), ["locks that reach other machines", "user extended attributes"]);
}
