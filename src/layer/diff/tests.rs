use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::layer::testing::*;
use crate::layer::{Applied, OwnerTable};
use crate::sys::xattr;

/// What the disk shows as an ordinary user's own is the root's of the image.
fn owner(applied: &OwnerTable, disk: &Path, path: &Path) -> Option<Owner> {
    let mode = disk.join(path).symlink_metadata().unwrap().mode();
    applied.get(path).or((!is_root()).then_some(Owner { uid: 0, gid: 0, mode, rdev: 0 }))
}

fn upper_tar(root: &Path, owners: &OwnerTable) -> Vec<u8> {
    let mut out = Vec::new();
    let options = DiffOptions {
        owner: &|path| owner(owners, root, path),
        skip: &|path| path == "skip",
        below: &|path| !path.ends_with("never"),
    };
    let stats = write_upper(File::open(root).unwrap().as_fd(), &mut out, &options).unwrap();
    assert!(stats.entries < 1000);
    out
}

fn changes_tar(old: &Path, new: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    let none = OwnerTable::default();
    let options = DiffOptions {
        owner: &|path| owner(&none, new, path),
        skip: &|path| path == "skip",
        below: &|_| false,
    };
    write_changes(File::open(old).unwrap().as_fd(), File::open(new).unwrap().as_fd(), &mut out, &options)
        .unwrap();
    out
}

fn listing(tar: &[u8]) -> Vec<String> {
    let mut input = tar;
    let mut reader = crate::layer::tar::Reader::new(&mut input);
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        names.push(String::from_utf8(entry.path).unwrap());
    }
    names
}

fn unpacked(tar: &[u8]) -> (Sandbox, Applied) {
    let sandbox = Sandbox::new();
    let applied = sandbox.apply(tar, &own_options()).unwrap();
    (sandbox, applied)
}

#[test]
fn a_layer_comes_back_byte_by_byte() {
    let mut owned = file("d/owned", "x");
    (owned.0.uid, owned.0.gid, owned.0.mode) = (1234, 4_000_000, 0o4755);
    owned.0.mtime = crate::layer::tar::Time { seconds: -7, nanos: 5 };
    let mut device = dir("dev");
    device.0.path = b"dev/null".to_vec();
    (device.0.kind, device.0.device) = (crate::layer::tar::Kind::CharDevice, (1, 3));
    let big = "x".repeat(700_001);
    let entries = [
        dir("d"),
        file("d/.wh..wh..opq", ""),
        file("d/big", &big),
        link("d/hard", "d/big"),
        owned,
        symlink("d/sym", "../\u{fc}"),
        dir("dev"),
        device,
        file(".wh.gone", ""),
        dir(&"n".repeat(120)),
        file(&format!("{}/{}", "n".repeat(120), "m".repeat(200)), "deep"),
    ];
    let mut entries = entries.to_vec();
    for (entry, _) in &mut entries {
        if entry.path.windows(4).any(|part| part == b".wh.") {
            entry.mode = 0;
        }
        if entry.kind == crate::layer::tar::Kind::Symlink {
            entry.mode = 0o777;
        }
    }
    let tar = archive(&entries);
    let (sandbox, applied) = unpacked(&tar);
    let again = upper_tar(&sandbox.root(), &applied.owners);
    assert_eq!(listing(&again), listing(&tar));
    assert!(again == tar, "same names, other bytes");
    let table = OwnerTable::from_bytes(&applied.owners.to_bytes()).unwrap();
    assert!(upper_tar(&sandbox.root(), &table) == tar);
    // GNU tar finds nothing wrong with it.
    let path = sandbox.top.path().join("layer.tar");
    std::fs::write(&path, &tar).unwrap();
    let listed =
        String::from_utf8(gnu_tar(sandbox.top.path(), &["-tf", "layer.tar", "--quoting-style=literal"]))
            .unwrap();
    assert_eq!(listed.lines().collect::<Vec<_>>(), listing(&tar));
}

#[test]
fn overlay_marks_become_whiteouts() {
    let (sandbox, _) = unpacked(&archive(&[
        dir("a"),
        file("a/.wh.x", ""),
        file("a/.wh.never", ""),
        dir("never"),
        file("never/.wh..wh..opq", ""),
        dir("o"),
        file("o/.wh..wh..opq", ""),
        file("o/f", ""),
        file("skip", ""),
    ]));
    let root = sandbox.root();
    // A whiteout in the form of a file counts only where the directory says that there are such.
    for dir in ["a", "o"] {
        let file = File::create(root.join(dir).join("file-whiteout")).unwrap();
        xattr::set(&file, b"user.overlay.whiteout", b"y").unwrap();
    }
    xattr::set(File::open(root.join("a")).unwrap(), b"user.overlay.opaque", b"x").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let tar = upper_tar(&root, &OwnerTable::default());
    let expected =
        ["a/", "a/.wh.file-whiteout", "a/.wh.x", "never/", "o/", "o/.wh..wh..opq", "o/f", "o/file-whiteout"];
    assert_eq!(listing(&tar), expected);
}

#[test]
fn changes_are_found_and_nothing_else() {
    let entries = [
        dir("same"),
        file("same/f", "x"),
        dir("deep"),
        dir("deep/er"),
        file("deep/er/changed", "old"),
        file("gone", "x"),
        dir("gone-dir"),
        file("gone-dir/f", "x"),
        file("chmod", "x"),
        file("becomes-dir", "x"),
        dir("becomes-file"),
        file("becomes-file/f", "x"),
        symlink("link", "one"),
        file("skip", "x"),
    ];
    let (old, _) = unpacked(&archive(&entries));
    let (new, _) = unpacked(&archive(&entries));
    assert!(listing(&changes_tar(&old.root(), &new.root())).is_empty());
    let at = |path: &str| new.root().join(path);
    // In place: the time of the directory does not change.
    std::fs::write(at("deep/er/changed"), "new").unwrap();
    std::fs::set_permissions(at("chmod"), PermissionsExt::from_mode(0o600)).unwrap();
    for path in ["gone", "becomes-dir", "link", "skip"] {
        std::fs::remove_file(at(path)).unwrap();
    }
    for path in ["gone-dir", "becomes-file"] {
        std::fs::remove_dir_all(at(path)).unwrap();
    }
    std::fs::create_dir(at("becomes-dir")).unwrap();
    std::fs::write(at("becomes-dir/x"), "x").unwrap();
    std::fs::write(at("becomes-file"), "x").unwrap();
    std::fs::hard_link(at("becomes-file"), at("hard")).unwrap();
    std::os::unix::fs::symlink("two", at("link")).unwrap();
    let tar = changes_tar(&old.root(), &new.root());
    let expected = [
        "becomes-dir/",
        "becomes-dir/x",
        "becomes-file",
        "chmod",
        "deep/",
        "deep/er/",
        "deep/er/changed",
        ".wh.gone",
        ".wh.gone-dir",
        "hard",
        "link",
    ];
    assert_eq!(listing(&tar), expected);
    let (_, applied) = unpacked(&tar);
    assert!(applied.stands_alone());
}

#[test]
fn depth_costs_no_descriptors() {
    let sandbox = Sandbox::new();
    let path = format!("{}f", "d/".repeat(1500));
    sandbox.apply(&archive(&[file(&path, "deep")]), &own_options()).unwrap();
    let tar = upper_tar_any(&sandbox.root());
    assert_eq!(listing(&tar).last().unwrap(), &path);
    let empty = Sandbox::new();
    assert_eq!(listing(&changes_tar(&empty.root(), &sandbox.root())).len(), 1501);
    let fd = File::open(sandbox.root()).unwrap();
    tree::remove_all(&fd, std::ffi::OsStr::new("d")).unwrap();
}

fn upper_tar_any(root: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    let options = DiffOptions { owner: &|_| None, skip: &|_| false, below: &|_| true };
    write_upper(File::open(root).unwrap().as_fd(), &mut out, &options).unwrap();
    out
}
