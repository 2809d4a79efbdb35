//! Mounting stacks. Needs the right to mount: an ordinary user's test runs itself again in a user namespace.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tests::{TestLayer, layer, open, put, scratch};
use super::*;
use crate::image::Silent;

/// Run `test` as root, or again in a user namespace of one id.
fn may_mount(name: &str, test: fn()) {
    if rustix::process::geteuid().is_root() {
        return test();
    }
    let exe = std::env::current_exe().unwrap();
    let name = format!("storage::mount_tests::{name}");
    let ran =
        Command::new("unshare").args(["-Urm"]).arg(exe).args(["--exact", &name, "--nocapture"]).output();
    match ran {
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare failed") => {
            println!("SKIPPED: this host gives no user namespaces");
        }
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => println!("SKIPPED: cannot run unshare: {error}"),
    }
}

fn at(mounted: &Mounted) -> PathBuf {
    format!("/proc/self/fd/{}", mounted.root.as_raw_fd()).into()
}

/// Everything that matters of a tree, by path.
fn walk(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            let full = root.join(&path);
            let meta = fs::symlink_metadata(&full).unwrap();
            let (content, nlink) = if meta.is_dir() {
                todo.push(path.clone());
                (String::new(), 0)
            } else if meta.is_symlink() {
                (format!("-> {}", fs::read_link(&full).unwrap().display()), meta.nlink())
            } else {
                (fs::read_to_string(&full).unwrap(), meta.nlink())
            };
            let times = if meta.is_dir() { 0 } else { meta.mtime() };
            let line = format!("{:o} {}:{} {nlink} {times} {content}", meta.mode(), meta.uid(), meta.gid());
            found.insert(path, line);
        }
    }
    found
}

/// The same without the numbers of links: a layer cannot link to a file of another one.
fn walk_content(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = walk(root);
    for line in found.values_mut() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        *line = format!("{} {} {}", words[0], words[1], words[3]);
    }
    found
}

fn two_layers() -> [TestLayer; 2] {
    [
        layer(&[
            ("etc/", ""),
            ("etc/passwd", "root"),
            ("etc/gone", "x"),
            ("hidden/", ""),
            ("hidden/a", "a"),
            ("hidden/b/", ""),
            ("hidden/b/c", "c"),
            ("swap", "a file"),
            ("lib/", ""),
            ("lib/so", "code"),
            ("lib/so.1 -> lib/so", ""),
        ]),
        layer(&[
            ("etc/", ""),
            ("etc/.wh.gone", ""),
            ("etc/new", "new"),
            ("hidden/", ""),
            ("hidden/.wh..wh..opq", ""),
            ("hidden/only", "this"),
            ("swap/", ""),
            ("swap/now", "a directory"),
        ]),
    ]
}

fn stacked(store: &Store) -> Stack {
    stacked_of(store, &two_layers())
}

fn stacked_of(store: &Store, layers: &[TestLayer]) -> Stack {
    layers.iter().for_each(|layer| put(store, layer));
    let pairs: Vec<_> = layers.iter().map(TestLayer::pair).collect();
    store.stack_of(&pairs, &Silent).unwrap()
}

fn both_ways() -> [(Method, Store, tempfile::TempDir); 2] {
    [Method::Overlay, Method::Copy].map(|method| {
        let (dir, store) = scratch();
        drop(store);
        (method, open(&dir).with_layering(Some(method)), dir)
    })
}

#[test]
fn overlay_and_copy_show_the_same_tree() {
    may_mount("overlay_and_copy_show_the_same_tree", || {
        let trees = both_ways().map(|(method, store, _dir)| {
            let stack = stacked(&store);
            let mounted = store.mount_read_only(&stack).unwrap();
            assert_eq!(mounted.method, method);
            walk(&at(&mounted))
        });
        assert_eq!(trees[0], trees[1]);
        let paths: Vec<_> = trees[0].keys().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(
            paths,
            [
                "etc",
                "etc/new",
                "etc/passwd",
                "hidden",
                "hidden/only",
                "lib",
                "lib/so",
                "lib/so.1",
                "swap",
                "swap/now"
            ]
        );
        assert!(trees[0][Path::new("lib/so.1")].contains(" 2 1600000000 code"));
    });
}

#[test]
fn stacks_of_no_layer_and_of_one_can_be_mounted_and_mounted_again() {
    may_mount("stacks_of_no_layer_and_of_one_can_be_mounted_and_mounted_again", || {
        for (method, store, dir) in both_ways() {
            let base = layer(&[("a", "1")]);
            put(&store, &base);
            let one = store.stack_of(&[base.pair()], &Silent).unwrap();
            for (i, stack) in [Stack::default(), one].iter().enumerate() {
                assert_eq!(walk(&at(&store.mount_read_only(stack).unwrap())).len(), i);
                let place = dir.path().join(format!("store/containers/{i}"));
                fs::create_dir(&place).unwrap();
                for run in 0..2 {
                    let mounted = store.mount_writable(stack, &place, true).unwrap();
                    assert_eq!((mounted.method, walk(&at(&mounted)).len()), (method, i + run));
                    fs::write(at(&mounted).join("new"), "x").unwrap();
                }
            }
        }
    });
}

#[test]
fn an_overlays_changes_survive_a_switch_to_copying() {
    may_mount("an_overlays_changes_survive_a_switch_to_copying", || {
        let (dir, store) = scratch();
        let stack = stacked(&store);
        let place = store.scratch_dir().unwrap();
        let mounted = store.mount_writable(&stack, place.path(), false).unwrap();
        fs::remove_file(at(&mounted).join("etc/passwd")).unwrap();
        fs::write(at(&mounted).join("lib/so"), "changed").unwrap();
        let before: Vec<_> = walk(&at(&mounted)).into_keys().collect();
        drop(mounted);
        let copying = open(&dir).with_layering(Some(Method::Copy));
        let mounted = copying.mount_writable(&stack, place.path(), false).unwrap();
        assert_eq!(walk(&at(&mounted)).into_keys().collect::<Vec<_>>(), before);
        assert_eq!(fs::read_to_string(at(&mounted).join("lib/so")).unwrap(), "changed");
    });
}

/// What a program might do.
fn change(root: &Path) {
    fs::write(root.join("etc/passwd"), "root\nuser").unwrap();
    fs::remove_file(root.join("etc/new")).unwrap();
    fs::remove_dir_all(root.join("hidden")).unwrap();
    fs::create_dir(root.join("hidden")).unwrap();
    fs::write(root.join("hidden/again"), "again").unwrap();
    symlink("../etc/passwd", root.join("lib/link")).unwrap();
    fs::hard_link(root.join("lib/so"), root.join("lib/so.2")).unwrap();
    fs::set_permissions(root.join("swap"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(root.join("stub"), "").unwrap();
}

#[test]
fn committed_changes_give_the_tree_they_were_made_in() {
    may_mount("committed_changes_give_the_tree_they_were_made_in", || {
        for take in [true, false] {
            for (method, store, _dir) in both_ways() {
                let stack = stacked(&store);
                let place = store.scratch_dir().unwrap();
                let mounted = store.mount_writable(&stack, place.path(), take).unwrap();
                change(&at(&mounted));
                let mut before = walk_content(&at(&mounted));
                before.remove(Path::new("stub"));
                let upper = mounted.upper.clone().unwrap();
                let options = CommitOptions { skip: &|path| path == Path::new("stub"), take };
                let new = store.commit_layer(&stack, mounted, &options).unwrap();
                let taken = take && method == Method::Overlay;
                assert_eq!(upper.exists(), !taken);
                let snapshot = store.layout().snapshot(&new.diff_id.0);
                assert_eq!(snapshot.exists(), taken);
                let mut layers: Vec<_> = two_layers().iter().map(TestLayer::pair).collect();
                layers.push((new.descriptor.clone(), new.diff_id.clone()));
                let shown = || {
                    let stack = store.stack_of(&layers, &Silent).unwrap();
                    walk_content(&at(&store.mount_read_only(&stack).unwrap()))
                };
                assert_eq!(shown(), before, "as it was taken ({method:?}, take {take})");
                if snapshot.exists() {
                    fs::remove_dir_all(&snapshot).unwrap();
                }
                assert_eq!(shown(), before, "unpacked from the blob ({method:?}, take {take})");
            }
        }
    });
}

#[test]
fn no_changes_give_a_valid_empty_layer() {
    may_mount("no_changes_give_a_valid_empty_layer", || {
        let (_dir, store) = scratch();
        let stack = stacked(&store);
        let place = store.scratch_dir().unwrap();
        let mounted = store.mount_writable(&stack, place.path(), true).unwrap();
        let new =
            store.commit_layer(&stack, mounted, &CommitOptions { skip: &|_| false, take: true }).unwrap();
        assert_eq!(new.diff_id.0, crate::oci::Digest::sha256([0_u8; 1024]));
        let whole = store.stack_of(&[(new.descriptor, new.diff_id)], &Silent).unwrap();
        assert_eq!(walk(&whole.layers[0].fs).len(), 0);
    });
}

#[test]
fn the_string_interface_of_older_kernels_gives_the_same_mount() {
    may_mount("the_string_interface_of_older_kernels_gives_the_same_mount", || {
        let (_dir, store) = scratch();
        let stack = stacked(&store);
        let lowers = layering::lowers_of(&stack).unwrap();
        let by_string = store.overlay_by_string(&lowers, None).unwrap();
        let usual = store.mount_read_only(&stack).unwrap();
        let path = PathBuf::from(format!("/proc/self/fd/{}", by_string.as_raw_fd()));
        assert_eq!(walk(&path), walk(&at(&usual)));
    });
}

#[test]
fn a_layer_that_hides_all_hides_all_below_it_however_it_is_shown() {
    may_mount("a_layer_that_hides_all_hides_all_below_it_however_it_is_shown", || {
        for (method, store, _dir) in both_ways() {
            let [bottom, over] = two_layers();
            let hides = layer(&[(".wh..wh..opq", ""), ("fresh/", ""), ("fresh/f", "f")]);
            let stack = stacked_of(&store, &[bottom, over, hides, layer(&[("last", "l")])]);
            let names = |at: &Path| walk(at).into_keys().map(|p| p.display().to_string()).collect::<Vec<_>>();
            let expected = ["fresh", "fresh/f", "last"];
            assert_eq!(names(&at(&store.mount_read_only(&stack).unwrap())), expected, "{method:?}");
            let place = store.scratch_dir().unwrap();
            let mounted = store.mount_writable(&stack, place.path(), true).unwrap();
            assert_eq!(names(&at(&mounted)), expected, "{method:?}, to be written");
            assert_eq!(stack.find(Path::new("etc/passwd")), None);
            assert_eq!(stack.find(Path::new("fresh/f")), Some(2));
        }
    });
}
