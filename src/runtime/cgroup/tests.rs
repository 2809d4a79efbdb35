use super::*;

/// Directories that look like a tree of version 1.
fn tree() -> (tempfile::TempDir, Cgroup) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("strate-x");
    fs::create_dir(&path).unwrap();
    for file in ["memory.limit_in_bytes", "cgroup.procs", "memory.swappiness"] {
        fs::write(path.join(file), "").unwrap();
    }
    fs::write(path.join("memory.oom_control"), "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n").unwrap();
    let controllers = controllers_in(&path, 1);
    let cgroup = Cgroup { dirs: vec![Dir { path, version: 1, controllers }], above: Vec::new() };
    (temp, cgroup)
}

#[test]
fn what_cannot_be_limited_is_named() {
    let (_temp, cgroup) = tree();
    let limits = Limits {
        memory: Some(1 << 30),
        memory_swappiness: Some(7),
        pids: Some(3),
        kernel_memory: Some(5),
        nano_cpus: Some(1),
        ..Limits::default()
    };
    let missed: Vec<&str> = cgroup.apply(&limits).iter().map(|missed| missed.flag).collect();
    // Swap was not asked for, so its want is not told.
    assert_eq!(missed, ["--kernel-memory", "--cpus", "--pids-limit"]);
    let read = |file: &str| fs::read_to_string(cgroup.dirs[0].path.join(file)).unwrap();
    assert_eq!(
        (read("memory.limit_in_bytes").as_str(), read("memory.swappiness").as_str()),
        ("1073741824", "7")
    );
    assert_eq!(cgroup.oom_kills(), 2);
}

#[test]
fn only_what_is_ours_is_removed() {
    for (path, ours) in [
        ("/sys/fs/cgroup/strate-1", true),
        ("/sys/fs/cgroup/strate-1/..", false),
        ("/sys/fs/cgroup/../strate-1", false),
        ("strate-1", false),
        ("/sys/fs/cgroup/system.slice", false),
    ] {
        assert_eq!(is_ours(Path::new(path)), ours, "{path}");
    }
    assert!(
        Cgroup {
            dirs: vec![Dir { path: "/nowhere/strate-1".into(), version: 2, controllers: vec![] }],
            above: vec![]
        }
        .remove()
    );
}

#[test]
fn a_real_one_is_made_and_removed_where_that_is_allowed() {
    let limits = Limits { pids: Some(7), ..Limits::default() };
    let id = format!("test-{}", std::process::id());
    let places = Cgroup::places(&id, "", &limits);
    let (cgroup, refused) = Cgroup::planned(&places).make();
    if cgroup.with("pids").is_none() {
        // An ordinary user without delegation, or no cgroups at all.
        assert!(refused.is_some() || cgroup.dirs.is_empty(), "{cgroup:?}");
        assert!(cgroup.remove());
        return;
    }
    assert_eq!(cgroup.apply(&limits), []);
    let dir = cgroup.with("pids").unwrap().path.clone();
    assert_eq!(fs::read_to_string(dir.join("pids.max")).unwrap(), "7\n");
    assert!(cgroup.remove() && !dir.exists());
}
