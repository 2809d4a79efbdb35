use std::os::unix::fs::MetadataExt;

use super::*;
use crate::layer::testing::*;

/// Whether an archive is taken, and the names it leaves.
fn outcome(entries: &[(Entry, Vec<u8>)]) -> (Sandbox, Option<Vec<String>>) {
    let sandbox = Sandbox::new();
    let result = sandbox.apply(&archive(entries), &own_options());
    let names = result.ok().map(|_| names(&sandbox.root()));
    (sandbox, names)
}

#[test]
fn hostile_names_stay_inside() {
    for (entries, expected) in [
        (vec![file("../../canary", "x")], None),
        (vec![file("a/../../canary", "x")], None),
        (vec![file("/abs/canary", "x")], Some(vec!["abs", "abs/canary"])),
        (vec![symlink("d", "/canarydir"), file("d/x", "x")], Some(vec!["canarydir", "canarydir/x", "d"])),
        (vec![symlink("d", "../canarydir"), file("d/x", "x")], Some(vec!["canarydir", "canarydir/x", "d"])),
        (vec![symlink("d", ".."), file("d/x", "x")], Some(vec!["d", "x"])),
        (vec![symlink("d", "d"), file("d/x", "x")], None),
        (vec![symlink("d", "../canary"), dir("d"), file("d/x", "x")], Some(vec!["d", "d/x"])),
        (vec![symlink("c", "../canary"), file("c", "x")], Some(vec!["c"])),
        (vec![dir("d"), file("d/x", "x"), symlink("d", ".."), file("d", "y")], Some(vec!["d"])),
        (vec![file("a", "x"), file("a/b", "y")], None),
        (vec![file("a", "x"), file("a", "y"), dir("a"), file("a/b", "y")], Some(vec!["a", "a/b"])),
        (vec![symlink(".", "/canarydir")], None),
        (vec![file("./", "x")], None),
        (vec![symlink("l", "")], None),
        (vec![file("x/", "x")], Some(vec!["x"])),
    ] {
        let shown: Vec<_> =
            entries.iter().map(|(e, _)| String::from_utf8_lossy(&e.path).into_owned()).collect();
        let (_sandbox, names) = outcome(&entries);
        let expected = expected.map(|names| names.into_iter().map(str::to_owned).collect());
        assert_eq!(names, expected, "{shown:?}");
    }
}

#[test]
fn hard_links_never_leave_the_layer() {
    for (entries, foreign, linked) in [
        (vec![link("l", "/etc/passwd")], vec![("l", "etc/passwd")], false),
        (vec![link("l", "canary")], vec![("l", "canary")], false),
        (vec![file("f", "x"), link("l", "./f")], vec![], true),
        (vec![file("f", "x"), link("l", "/f")], vec![], true),
        (vec![link("l", "f"), file("f", "x")], vec![], true),
        (vec![link("l", "m"), link("m", "f"), file("f", "x")], vec![], true),
        (vec![link("l", "l")], vec![("l", "l")], false),
        (vec![file("l", "x"), link("l", "l"), link("f", "l")], vec![], true),
        (vec![symlink("s", "../canary"), link("l", "s"), link("f", "l")], vec![], true),
        (vec![symlink("d", "../canarydir"), link("l", "d/x")], vec![("l", "d/x")], false),
        (vec![dir("d"), file("d/f", "x"), symlink("s", "d"), link("l", "s/f")], vec![], true),
    ] {
        let sandbox = Sandbox::new();
        let applied = sandbox.apply(&archive(&entries), &own_options()).unwrap();
        let expected: Vec<_> = foreign.iter().map(|(a, b)| (PathBuf::from(a), PathBuf::from(b))).collect();
        assert_eq!(applied.foreign_links, expected, "{entries:?}");
        assert_eq!(applied.stands_alone(), foreign.is_empty());
        if linked {
            assert!(sandbox.root().join("l").symlink_metadata().unwrap().nlink() > 1, "{entries:?}");
        }
    }
    for target in ["../x", "", ".", "d"] {
        let sandbox = Sandbox::new();
        assert!(sandbox.apply(&archive(&[dir("d"), link("l", target)]), &own_options()).is_err(), "{target}");
    }
}

#[test]
fn the_mode_of_a_hard_link_is_the_mode_of_its_file() {
    let sandbox = Sandbox::new();
    let (mut second, data) = link("l", "f");
    second.mode = 0o4711;
    sandbox.apply(&archive(&[file("f", "x"), (second, data)]), &own_options()).unwrap();
    assert_eq!(sandbox.root().join("f").metadata().unwrap().mode() & 0o7777, 0o4711);
}

#[test]
fn deletions_concern_the_layers_below() {
    let sandbox = Sandbox::new();
    let entries = [
        file(".wh.gone", ""),
        dir("d"),
        file("d/.wh.gone", "content is skipped"),
        // The entry wins, in both orders; a directory then hides what is below it.
        file(".wh.a", ""),
        file("a", "x"),
        file("b", "x"),
        file(".wh.b", ""),
        dir("c"),
        file("c/x", ""),
        file(".wh.c", ""),
        file("c/.wh.inside", ""),
        // Opaque after its entries.
        dir("o"),
        file("o/x", ""),
        file("o/.wh.y", ""),
        file("o/.wh..wh..opq", ""),
        file("o/deep/.wh.z", ""),
        file(".wh..wh.aufs", ""),
        file("new/.wh.n", ""),
        symlink("s", "d"),
        file("s/.wh.through", ""),
        file("a/.wh.below-a-file", ""),
    ];
    let applied = sandbox.apply(&archive(&entries), &own_options()).unwrap();
    let root = sandbox.root();
    let expected =
        ["a", "b", "c", "c/x", "d", "d/gone", "d/through", "gone", "new", "new/n", "o", "o/x", "s"];
    assert_eq!(names(&root), expected);
    for path in ["gone", "d/gone", "d/through", "new/n"] {
        assert!(is_whiteout(&root.join(path)), "{path}");
    }
    for (path, mark) in [("c", Some("y")), ("o", Some("y")), ("d", None), ("new", None)] {
        assert_eq!(overlay_mark(&root.join(path)).as_deref(), mark, "{path}");
    }
    assert_eq!(applied.implied, [Path::new("new")]);
    assert!(!applied.opaque_root);
    let applied = Sandbox::new().apply(&archive(&[file(".wh..wh..opq", "")]), &own_options()).unwrap();
    assert!(applied.opaque_root && applied.stands_alone());
}

#[test]
fn where_devices_are_forbidden_whiteouts_are_files() {
    let sandbox = Sandbox::new();
    std::fs::create_dir(sandbox.root().join("d")).unwrap();
    let fd = OwnedFd::from(std::fs::File::open(sandbox.root().join("d")).unwrap());
    let parent = Rc::new(Parent { asked: "d".into(), path: "d".into(), fd });
    let make = || finish::attribute_whiteout(&parent, "x".as_ref(), Path::new("d/x")).unwrap();
    assert!(make());
    assert!(!make());
    assert_eq!(overlay_mark(&sandbox.root().join("d")).as_deref(), Some("x"));
    let file = std::fs::File::open(sandbox.root().join("d/x")).unwrap();
    assert_eq!(xattr::get(&file, "user.overlay.whiteout").unwrap().as_deref(), Some(&b"y"[..]));
}

#[test]
fn modes_times_and_owners_are_as_told() {
    let sandbox = Sandbox::new();
    let time = Time { seconds: 1_000_000_000, nanos: 123_456_789 };
    let with = |(entry, data): (Entry, Vec<u8>), mode: u32| (Entry { mode, mtime: time, ..entry }, data);
    let entries = [
        with(dir("."), 0o750),
        with(dir("locked"), 0o555),
        with(file("locked/f", "x"), 0o400),
        with(dir("sticky"), 0o1777),
        with(file("suid", "x"), 0o4755),
        with(symlink("locked/s", "nowhere"), 0o777),
        with((entry("fifo", Kind::Fifo), vec![]), 0o666),
        with(file("open", "x"), 0o666),
    ];
    let applied = sandbox.apply(&archive(&entries), &own_options()).unwrap();
    assert!(applied.owners.is_empty() && applied.stands_alone());
    for (entry, _) in &entries {
        let path = sandbox.root().join(std::str::from_utf8(&entry.path).unwrap());
        let meta = path.symlink_metadata().unwrap();
        assert_eq!(meta.mode() & 0o7777, entry.mode, "{}", path.display());
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000_000, 123_456_789), "{}", path.display());
    }
    std::fs::set_permissions(
        sandbox.root().join("locked"),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
}

#[test]
fn what_the_disk_cannot_hold_is_remembered() {
    let owned = |(entry, data): (Entry, Vec<u8>), uid, gid, mode| (Entry { uid, gid, mode, ..entry }, data);
    let device = |path, kind, device| (Entry { device, ..entry(path, kind) }, vec![]);
    let entries = [
        owned(file("root", "x"), 0, 0, 0o4755),
        owned(file("user", "x"), 1000, 100, 0o6755),
        owned(file("gid", "x"), 0, 70_000, 0o6755),
        owned(dir("d"), 70_000, 0, 0o755),
        owned(link("other", "user"), 1000, 100, 0o6755),
        device("whiteout", Kind::CharDevice, (0, 0)),
        owned(file("again", "x"), 1000, 100, 0o755),
        owned(file("again", "x"), 0, 0, 0o755),
        owned(dir("gone"), 1000, 100, 0o755),
        owned(file("gone/x", ""), 1000, 100, 0o755),
        owned(file("gone", ""), 0, 0, 0o755),
    ];
    let sandbox = Sandbox::new();
    let applied = sandbox.apply(&archive(&entries), &SINGLE).unwrap();
    let known: Vec<_> =
        applied.owners.iter().map(|(path, o)| (path.to_str().unwrap(), o.uid, o.gid, o.mode)).collect();
    assert_eq!(
        known,
        [
            ("d", 70_000, 0, libc::S_IFDIR | 0o755),
            ("gid", 0, 70_000, libc::S_IFREG | 0o6755),
            ("other", 1000, 100, libc::S_IFREG | 0o6755),
            ("user", 1000, 100, libc::S_IFREG | 0o6755),
            ("whiteout", 0, 0, libc::S_IFCHR | 0o644),
        ]
    );
    let mode = |path: &str| sandbox.root().join(path).metadata().unwrap().mode() & 0o7777;
    // Rights of an owner that is not there must not become those of another.
    assert_eq!([mode("root"), mode("user"), mode("gid")], [0o4755, 0o755, 0o4755]);
    assert!(!is_whiteout(&sandbox.root().join("whiteout")));
    for uid in [65_536_u32, 1 << 31, u32::MAX - 1] {
        let sandbox = Sandbox::new();
        let options = ApplyOptions { mapped_ids: 65_536, ..ALL };
        let applied = sandbox.apply(&archive(&[owned(file("f", "x"), uid, 0, 0o4755)]), &options).unwrap();
        assert_eq!(applied.owners.get(Path::new("f")).unwrap().uid, uid);
        assert_eq!(sandbox.root().join("f").metadata().unwrap().mode() & 0o7777, 0o755);
    }
}

#[test]
fn only_harmless_attributes_come_in() {
    let sandbox = Sandbox::new();
    let names = [
        "user.ok",
        "user.overlay.redirect",
        "user.overlay.opaque",
        "user.overlay.whiteout",
        "trusted.overlay.opaque",
        "security.selinux",
        "system.posix_acl_access",
        "user.containers.override_stat",
        "trusted.x",
    ];
    let xattrs: BTreeMap<Vec<u8>, Vec<u8>> =
        names.iter().map(|name| (name.as_bytes().to_vec(), b"y\n\0y".to_vec())).collect();
    let entries = [file("f", "x"), dir("d")]
        .map(|(e, data)| (Entry { xattrs: xattrs.clone(), mode: e.mode & 0o555, ..e }, data));
    sandbox.apply(&archive(&entries), &own_options()).unwrap();
    for path in ["f", "d"] {
        let file = std::fs::File::open(sandbox.root().join(path)).unwrap();
        assert_eq!(xattr::list(&file).unwrap(), [b"user.ok".to_vec()], "{path}");
        assert_eq!(xattr::get(&file, "user.ok").unwrap().unwrap(), b"y\n\0y");
    }
}

#[test]
fn limits_hold() {
    let tar = archive(&[file("a", "12345"), file("b", "12345")]);
    for (options, fits) in [
        (ApplyOptions { max_entries: 1, ..SINGLE }, false),
        (ApplyOptions { max_entries: 2, ..SINGLE }, true),
        (ApplyOptions { max_bytes: 9, ..SINGLE }, false),
        (ApplyOptions { max_bytes: 10, ..SINGLE }, true),
    ] {
        let result = Sandbox::new().apply(&tar, &options);
        assert_eq!(result.is_ok(), fits);
        assert!(fits || matches!(result, Err(Error::Limit(_))));
    }
}

/// Trees made here, packed by GNU tar in its formats, unpacked by us.
#[test]
fn gnu_tar_archives_unpack_to_the_same_tree() {
    let source = tempfile::tempdir().unwrap();
    let at = |path: &str| source.path().join(path);
    let long = format!("{}/{}", "d".repeat(80), "f".repeat(80));
    std::fs::create_dir_all(at(&long)).unwrap();
    std::fs::create_dir_all(at("sub/dir")).unwrap();
    std::fs::write(at("sub/file"), vec![7_u8; 700_000]).unwrap();
    std::fs::write(at("empty"), "").unwrap();
    std::fs::write(at("\u{fc}nicode\n"), "x").unwrap();
    std::fs::write(at(&format!("{long}/file")), "deep").unwrap();
    std::fs::hard_link(at("sub/file"), at("sub/dir/hard")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at("abs")).unwrap();
    std::os::unix::fs::symlink(&long, at("long-link")).unwrap();
    let holes = std::fs::File::create(at("holes")).unwrap();
    holes.set_len(40_000_000).unwrap();
    for piece in 0..40 {
        std::os::unix::fs::FileExt::write_at(&holes, b"data", piece * 1_000_000).unwrap();
    }
    if is_root() {
        std::os::unix::fs::lchown(at("abs"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::chown(at("sub/dir"), Some(3_000_000), Some(4_000_000)).unwrap();
    }
    xattr::set(std::fs::File::open(at("sub/dir")).unwrap(), b"user.test", b"a\n12 b=c\n").unwrap();
    for format in ["gnu", "pax", "ustar", "pax0.0", "pax0.1", "posix-sparse"] {
        let format_flag = format!("--format={}", if format.starts_with('p') { "pax" } else { format });
        let mut arguments = vec!["-c", "--numeric-owner", "--sort=name", &format_flag];
        match format {
            "ustar" => arguments.extend(["--exclude=long-link", "--exclude=sub/dir"]),
            "gnu" => arguments.push("-S"),
            "pax0.0" => arguments.extend(["--xattrs", "-S", "--sparse-version=0.0"]),
            "pax0.1" => arguments.extend(["--xattrs", "-S", "--sparse-version=0.1"]),
            "posix-sparse" => arguments.extend(["--xattrs", "-S", "--sparse-version=1.0"]),
            _ => arguments.push("--xattrs"),
        }
        arguments.push(".");
        let tar = gnu_tar(source.path(), &arguments);
        let sandbox = Sandbox::new();
        let applied = sandbox.apply(&tar, &own_options()).unwrap();
        assert!(applied.stands_alone(), "{format}");
        let (mut ours, mut theirs) = (tree(&sandbox.root()), tree(source.path()));
        if matches!(format, "gnu" | "ustar") {
            // These formats know no fractions, no attributes and (ustar) no large owners.
            for all in [&mut ours, &mut theirs] {
                for text in all.values_mut() {
                    let words = text.split(' ').filter(|word| !word.starts_with("user."));
                    let seconds =
                        |word| if str::starts_with(word, "t") { word.split('.').next() } else { Some(word) };
                    *text = words.filter_map(seconds).collect::<Vec<_>>().join(" ");
                }
                all.retain(|path, _| {
                    format != "ustar" || !(path.starts_with("long-link") || path.starts_with("sub"))
                });
            }
        }
        assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{format}");
        for (path, text) in &theirs {
            assert_eq!(&ours[path], text, "{format}: {}", path.display());
        }
    }
}

/// A stream that does something when a part of it was read.
struct Between<'a, F: FnMut()> {
    first: &'a [u8],
    rest: &'a [u8],
    act: Option<F>,
}

impl<F: FnMut()> std::io::Read for Between<'_, F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !self.first.is_empty() {
            return self.first.read(buffer);
        }
        if let Some(mut act) = self.act.take() {
            act();
        }
        self.rest.read(buffer)
    }
}

/// ext4 keeps 65,000 names of a file, others fewer or any number.
#[test]
fn a_link_too_many_becomes_a_copy() {
    let sandbox = Sandbox::new();
    let (root, aside) = (sandbox.root(), tempfile::tempdir_in(sandbox.root().parent().unwrap()).unwrap());
    let mut entry = file("f", "content");
    entry.0.mode = 0o644;
    let links = [link("a", "f"), link("b", "f")];
    let tar = archive(&[vec![entry], links.to_vec()].concat());
    let act = || {
        let fits = |n: &u32| std::fs::hard_link(root.join("f"), aside.path().join(n.to_string())).is_err();
        // Not more than on the file systems that have a limit worth trying.
        let _ = (0..65_100).find(fits);
    };
    let mut stream = Between { first: &tar[..1024], rest: &tar[1024..], act: Some(act) };
    let applied =
        apply(&mut stream, std::os::fd::AsFd::as_fd(&std::fs::File::open(&root).unwrap()), &own_options())
            .unwrap();
    assert!(applied.foreign_links.is_empty());
    for name in ["f", "a", "b"] {
        let meta = std::fs::metadata(root.join(name)).unwrap();
        assert_eq!(
            (std::fs::read(root.join(name)).unwrap(), meta.mode() & 0o777),
            (b"content".to_vec(), 0o644)
        );
    }
}
