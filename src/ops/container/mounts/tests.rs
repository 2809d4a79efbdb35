//! How mounts are said.

use super::*;

fn flag(spec: &str) -> Result<Mount, Error> {
    volume_flag(spec, Path::new("/cwd"))
}

#[test]
fn volumes_as_docker_writes_them() {
    let mount = flag("/a b:/c/../d:ro,z,rslave").unwrap();
    assert_eq!(mount.kind, MountKind::Bind { source: "/a b".into() });
    assert_eq!((mount.target.as_str(), mount.read_only, mount.propagation.as_str()), ("/d", true, "rslave"));
    assert_eq!(flag("./x:/d").unwrap().kind, MountKind::Bind { source: "/cwd/./x".into() });
    let named = MountKind::Volume {
        name: "data".into(),
        anonymous: false,
        no_copy: true,
        subpath: None,
        labels: [].into(),
        options: [].into(),
    };
    assert_eq!(flag("data:/d:nocopy").unwrap().kind, named);
    let anonymous = MountKind::Volume {
        name: String::new(),
        anonymous: true,
        no_copy: false,
        subpath: None,
        labels: [].into(),
        options: [].into(),
    };
    assert_eq!(flag("/d").unwrap().kind, anonymous);
    for bad in ["", "a", "x:y", "/a:/", "/a:/b:odd", "a/b:/c", "a:b:c:d", ":/c", "a:/c", "/a:/.."] {
        assert!(flag(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_missing_source_is_made_for_v_and_refused_for_mount() {
    let scratch = tempfile::tempdir().unwrap();
    let source = scratch.path().join("a/b");
    let missing = mount_flag(&format!("type=bind,src={},dst=/x", source.display()), Path::new("/"));
    assert!(matches!(missing.unwrap().ensure_source(), Err(Error::BindSource { .. })));
    assert!(!source.exists());
    flag(&format!("{}:/x", source.display())).unwrap().ensure_source().unwrap();
    assert!(source.is_dir());
}

#[test]
fn mounts_as_docker_writes_them() {
    let parse = |spec| mount_flag(spec, Path::new("/cwd"));
    let mount = parse("type=bind,\"src=/a,b\",dst=/c,readonly").unwrap();
    assert_eq!(mount.kind, MountKind::Bind { source: "/a,b".into() });
    assert!(mount.read_only);
    let mount = parse("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=0700").unwrap();
    let options = "noexec,nosuid,nodev,size=1048576,mode=0700".into();
    assert_eq!(mount.kind, MountKind::Tmpfs { options });
    assert!(matches!(parse("target=/v").unwrap().kind, MountKind::Volume { anonymous: true, .. }));
    for bad in [
        "type=bind,dst=/x",
        "type=odd,dst=/x",
        "dst=x",
        "dst=/x,odd=1",
        "type=tmpfs,src=a,dst=/x",
        "dst=/x,ro=2",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn tmpfs_defaults_give_way() {
    let mount = tmpfs_flag("/run:exec,size=64m").unwrap();
    assert_eq!(mount.kind, MountKind::Tmpfs { options: "nosuid,nodev,size=64m".into() });
}

#[test]
fn devices_are_shown_as_they_are() {
    for (spec, target) in
        [("/dev/fuse", "/dev/fuse"), ("/dev/fuse:rw", "/dev/fuse"), ("/dev/a:/dev/b:rwm", "/dev/b")]
    {
        assert_eq!(device_flag(spec).unwrap().target, target);
    }
    for bad in ["fuse", "/dev/a:b", "/dev/a:/dev/b:x", ""] {
        assert!(device_flag(bad).is_err(), "{bad}");
    }
}

#[test]
fn outer_mounts_come_first_and_only_once() {
    let mut mounts = vec![flag("/x:/a/b").unwrap(), flag("/y:/a").unwrap()];
    arrange(&mut mounts).unwrap();
    assert_eq!(mounts[0].target, "/a");
    mounts.push(flag("/z:/a/").unwrap());
    assert!(arrange(&mut mounts).is_err());
}
