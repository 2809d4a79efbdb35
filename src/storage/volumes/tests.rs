//! Volumes are whole or not there, filled once, and gone only when nobody uses them.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, symlink};

use super::*;
use crate::storage::{Abilities, ContainerRecord, NewName, VolumeUse};
use crate::sys::tree;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let abilities = Abilities { mapped_ids: u32::MAX, lock_timeout: None, unpack: false };
    let store = Store::open_writable(&dir.path().join("store"), abilities).unwrap();
    (dir, store)
}

fn record(name: &str) -> VolumeRecord {
    VolumeRecord {
        name: name.into(),
        driver: LOCAL.into(),
        created: "2026-01-01T00:00:00Z".into(),
        ..Default::default()
    }
}

fn make_volume(store: &Store, name: &str) -> Volume {
    store.create_volume(record(name), true).unwrap().0
}

/// A container that uses these volumes.
fn user(store: &Store, name: &str, volumes: &[&str]) -> PathBuf {
    let digest = crate::oci::Digest::sha256(name);
    let uses = volumes.iter().map(|name| VolumeUse { name: (*name).into(), own: false });
    let record = ContainerRecord {
        id: digest.hex().to_owned(),
        name: String::new(),
        created: String::new(),
        image_name: String::new(),
        image: crate::oci::ImageId(digest.clone()),
        manifest: digest,
        layers: Vec::new(),
        volumes: Some(uses.collect()),
        stores: Vec::new(),
        spec: serde_json::value::RawValue::NULL.to_owned(),
    };
    store.create_container(record, NewName::Given(name), false).unwrap().0.path
}

fn left_in(dir: PathBuf) -> BTreeSet<String> {
    let names =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    names.collect()
}

#[test]
fn a_volume_is_made_once_and_whole() {
    let (_dir, store) = store();
    let mut full = record("data");
    full.labels.insert("k".into(), "v".into());
    let (volume, made) = store.create_volume(full.clone(), true).unwrap();
    assert!(made);
    assert_eq!(fs::metadata(volume.data()).unwrap().mode() & 0o7777, 0o755);
    fs::write(volume.data().join("f"), "x").unwrap();
    let (again, made) = store.create_volume(record("data"), true).unwrap();
    assert!(!made && again.record == full);
    assert_eq!(left_in(store.layout().volume("data")), ["_data", "volume.json"].map(str::to_owned).into());
    assert_eq!(store.find_volume("data").unwrap().record, full);
    store.remove_volume("data", false).unwrap();
    assert!(matches!(store.remove_volume("data", false), Err(Error::NoSuchVolume(_))));
    assert!(store.volumes().unwrap().is_empty());
    assert!(left_in(store.layout().tmp()).iter().all(|name| !name.starts_with("removed")));
}

#[test]
fn many_makers_make_one() {
    let (_dir, store) = store();
    let made = std::thread::scope(|scope| {
        let makers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| store.create_volume(record("v"), false).unwrap().1)).collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).filter(|made| *made).count()
    });
    assert_eq!(made, 1);
}

#[test]
fn names_lead_nowhere_else() {
    let (dir, store) = store();
    fs::create_dir(dir.path().join("canary")).unwrap();
    for name in ["", ".", "..", "../../canary", "a/b", "/etc", "-x", "x\n"] {
        assert!(store.create_volume(record(name), true).is_err(), "{name}");
        assert!(matches!(store.find_volume(name), Err(Error::NoSuchVolume(_))), "{name}");
        assert!(store.remove_volume(name, false).is_err(), "{name}");
        take_unused(store.layout(), &[name.to_owned()], true, &mut crate::storage::collect::Trash::default())
            .unwrap();
    }
    make_volume(&store, "data");
    let file = store.layout().volume("data").join(RECORD);
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("data", "../../canary")).unwrap();
    assert!(store.volumes().unwrap().is_empty());
    assert!(matches!(store.find_volume("data"), Err(Error::DamagedVolume { .. })));
    store.remove_volume("data", false).unwrap();
    assert!(dir.path().join("canary").exists());
}

#[test]
fn who_uses_a_volume_keeps_it() {
    let (_dir, store) = store();
    let mut size = 0;
    for name in ["one", "two", "three"] {
        let volume = make_volume(&store, name);
        fs::write(volume.data().join("f"), [0; 100]).unwrap();
        size = tree::on_disk(volume.data().parent().unwrap());
    }
    user(&store, "a", &["one"]);
    let b = user(&store, "b", &["one", "two"]);
    let refused = store.remove_volume("one", false).unwrap_err();
    let Error::VolumeInUse { mut containers, .. } = refused else { panic!("{refused}") };
    containers.sort();
    assert_eq!(containers, ["a", "b"]);
    let usage = store.volumes_usage().unwrap();
    let shown: Vec<_> = usage.iter().map(|u| (u.name.as_str(), u.links, u.bytes)).collect();
    assert_eq!(shown, [("one", 2, size), ("three", 0, size), ("two", 1, size)]);
    let would = store.prune_volumes(&|_| true, true, &BTreeSet::new()).unwrap();
    assert_eq!((would.len(), would[0].name.as_str(), would[0].bytes), (1, "three", size));

    // What a damaged container uses is not known.
    let intact = fs::read(b.join("config.json")).unwrap();
    fs::write(b.join("config.json"), &intact[..intact.len() - 2]).unwrap();
    assert!(matches!(store.remove_volume("two", false), Err(Error::VolumeInUse { .. })));
    assert!(store.prune_volumes(&|_| true, false, &BTreeSet::new()).unwrap().is_empty());
    fs::write(b.join("config.json"), intact).unwrap();

    assert_eq!(
        store.prune_volumes(&|volume| volume.record.name != "three", false, &BTreeSet::new()).unwrap(),
        []
    );
    let pruned = store.prune_volumes(&|_| true, false, &BTreeSet::new()).unwrap();
    assert_eq!((pruned.len(), pruned[0].bytes), (1, size));
    assert_eq!(store.volume_names().unwrap(), ["one", "two"]);
}

#[test]
fn a_holder_and_a_remover_exclude_each_other() {
    let (_dir, store) = store();
    make_volume(&store, "v");
    let held = store.hold_volumes().unwrap();
    std::thread::scope(|scope| {
        let remover = scope.spawn(|| store.remove_volume("v", false));
        std::thread::sleep(std::time::Duration::from_millis(30));
        user(&store, "a", &["v"]);
        drop(held);
        assert!(matches!(remover.join().unwrap(), Err(Error::VolumeInUse { .. })));
    });
}

/// An image with something at `/data`.
fn image(dir: &Path) -> OwnedFd {
    let top = dir.join("image");
    fs::create_dir_all(top.join("data/sub")).unwrap();
    fs::create_dir_all(top.join("empty")).unwrap();
    fs::write(top.join("data/f"), "text").unwrap();
    fs::set_permissions(top.join("data/f"), PermissionsExt::from_mode(0o4751)).unwrap();
    fs::hard_link(top.join("data/f"), top.join("data/sub/g")).unwrap();
    symlink("/etc/passwd", top.join("data/link")).unwrap();
    fs::write(top.join("data").join(OsStr::from_bytes(b"odd\xff")), "").unwrap();
    fs::set_permissions(top.join("data/sub"), PermissionsExt::from_mode(0o500)).unwrap();
    fs::set_permissions(top.join("data"), PermissionsExt::from_mode(0o1770)).unwrap();
    fs::set_permissions(top.join("empty"), PermissionsExt::from_mode(0o711)).unwrap();
    symlink("/data", top.join("alias")).unwrap();
    symlink("../../../..", top.join("out")).unwrap();
    rustix::fs::open(&top, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap()
}

fn fill(store: &Store, volume: &Volume, root: &OwnedFd, target: &str) {
    let content = ImageContent { root: root.as_fd(), target };
    volume.prepare(store, Some(content), true).unwrap();
}

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

#[test]
fn the_images_content_arrives_whole_and_only_in_an_empty_volume() {
    let (dir, store) = store();
    let root = image(dir.path());
    let volume = make_volume(&store, "v");
    let data = volume.data();
    let inode = fs::metadata(&data).unwrap().ino();
    for nothing in ["/nothing", "/data/f"] {
        fill(&store, &volume, &root, nothing);
    }
    fill(&store, &volume, &root, "/empty");
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o7777, 0o711, "even an empty one gives its mode");
    fill(&store, &volume, &root, "/alias");
    let meta = fs::metadata(data.join("f")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.nlink()), (0o4751, 2));
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o7777, 0o1770);
    assert_eq!(fs::metadata(data.join("sub")).unwrap().mode() & 0o7777, 0o500);
    assert_eq!(fs::read_link(data.join("link")).unwrap(), Path::new("/etc/passwd"));
    assert!(data.join(OsStr::from_bytes(b"odd\xff")).exists());
    assert_eq!(fs::metadata(&data).unwrap().ino(), inode, "others may have it mounted");
    fs::write(data.join("f"), "mine").unwrap();
    fill(&store, &volume, &root, "/data");
    assert_eq!(fs::read_to_string(data.join("f")).unwrap(), "mine");
    assert_eq!(left_in(store.layout().volume("v")), ["_data", "volume.json"].map(str::to_owned).into());
}

#[test]
fn a_link_of_the_image_leads_to_nothing_outside_of_it() {
    let (dir, store) = store();
    let root = image(dir.path());
    fs::write(dir.path().join("canary"), "").unwrap();
    let volume = make_volume(&store, "v");
    fill(&store, &volume, &root, "/out");
    assert!(volume.data().join("data/f").exists() && !volume.data().join("canary").exists());
}

#[test]
fn what_was_cut_short_is_begun_again_or_completed() {
    let (dir, store) = store();
    let root = image(dir.path());
    let volume = make_volume(&store, "v");
    let top = store.layout().volume("v");
    // Killed while it copied: nothing was decided.
    fs::create_dir(top.join("fill.new")).unwrap();
    fs::write(top.join("fill.new/half"), "").unwrap();
    fill(&store, &volume, &root, "/data");
    assert!(volume.data().join("f").exists() && !volume.data().join("half").exists());
    // Killed while it moved: what is missing comes, whoever is next, and what is there stays.
    fs::create_dir(top.join("fill")).unwrap();
    fs::write(top.join("fill/late"), "late").unwrap();
    fs::write(top.join("fill/f"), "image").unwrap();
    fs::write(volume.data().join("f"), "mine").unwrap();
    volume.prepare(&store, None, true).unwrap();
    assert_eq!(fs::read_to_string(volume.data().join("late")).unwrap(), "late");
    assert_eq!(fs::read_to_string(volume.data().join("f")).unwrap(), "mine");
    assert_eq!(left_in(top), ["_data", "volume.json"].map(str::to_owned).into());
}

#[test]
fn two_at_once_fill_once() {
    let (dir, store) = store();
    let root = image(dir.path());
    for i in 0..300 {
        fs::write(dir.path().join(format!("image/data/{i}")), "x").unwrap();
    }
    let volume = make_volume(&store, "v");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                fill(&store, &volume, &root, "/data");
                assert_eq!(left_in(volume.data()).len(), 304, "whoever comes second waits");
            });
        }
    });
}

#[test]
fn what_somebody_else_put_into_a_directory_of_the_host_decides_nothing() {
    let (dir, store) = store();
    let root = image(dir.path());
    let host = dir.path().join("host");
    fs::create_dir(&host).unwrap();
    let planted = host.join(".strate-fill");
    fs::create_dir(&planted).unwrap();
    fs::set_permissions(&planted, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    fs::write(planted.join("evil"), "").unwrap();
    let mode = fs::metadata(&host).unwrap().mode();
    let mut bound = record("b");
    bound.options =
        [("type", "none"), ("o", "bind"), ("device", host.to_str().unwrap())].map(own_pair).into();
    let volume = store.create_volume(bound, true).unwrap().0;
    fill(&store, &volume, &root, "/data");
    volume.prepare(&store, None, true).unwrap();
    assert_eq!(left_in(host.clone()), [".strate-fill".to_owned()].into());
    assert_eq!(fs::metadata(&host).unwrap().mode(), mode);
    // The note of one that is gone goes, whatever number the next one gets.
    let note = store.layout().volume("b").join("filling");
    let meta = fs::metadata(&planted).unwrap();
    fs::write(&note, format!("{} {}\n", meta.dev(), meta.ino())).unwrap();
    fs::create_dir(host.join(".strate-fill.new")).unwrap();
    volume.prepare(&store, None, true).unwrap();
    assert!(!note.exists() && planted.join("evil").exists());
    // Our own, of which the store knows, is completed.
    fs::write(&note, super::fill::identity(rustix::fs::CWD, &planted).unwrap()).unwrap();
    volume.prepare(&store, None, true).unwrap();
    assert_eq!(left_in(host), ["evil".to_owned()].into());
    assert_eq!(left_in(store.layout().volume("b")), ["_data", "volume.json"].map(str::to_owned).into());
}

#[test]
fn what_is_made_in_a_directory_of_others_is_ours_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (mine, taken) = (dir.path().join("mine"), dir.path().join("taken"));
    let list = |path: &std::path::Path, name: &str| {
        let mut value = [0; 256];
        let dir = fs::File::open(path).unwrap();
        rustix::fs::fgetxattr(dir, name, &mut value).is_ok()
    };
    // An access list that gives user 12345 everything in what is made below.
    let mut acl = 2_u32.to_le_bytes().to_vec();
    let all: [(u16, u16, u32); 5] =
        [(1, 7, u32::MAX), (2, 7, 12345), (4, 7, u32::MAX), (16, 7, u32::MAX), (32, 7, u32::MAX)];
    for (tag, mode, id) in all {
        acl.extend(tag.to_le_bytes());
        acl.extend(mode.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    let top = fs::File::open(dir.path()).unwrap();
    let given = rustix::fs::fsetxattr(top, "system.posix_acl_default", &acl, rustix::fs::XattrFlags::empty());
    drop(super::fill::make_private(&mine).unwrap());
    let made = fs::metadata(&mine).unwrap();
    assert_eq!(made.mode() & 0o777, 0o700);
    assert!(!list(&mine, "system.posix_acl_default") && !list(&mine, "system.posix_acl_access"), "{given:?}");
    // Something in its place is not taken.
    std::os::unix::fs::symlink(dir.path(), &taken).unwrap();
    assert!(super::fill::make_private(&taken).is_err());
    assert!(super::fill::make_private(&mine).is_err());
}

fn own_pair((key, value): (&str, &str)) -> (String, String) {
    (key.into(), value.into())
}

#[test]
fn a_directory_of_the_host_is_filled_in_its_place() {
    let (dir, store) = store();
    let root = image(dir.path());
    let host = dir.path().join("host");
    fs::create_dir(&host).unwrap();
    let mut bound = record("b");
    for (key, value) in [("type", "none"), ("o", "bind"), ("device", host.to_str().unwrap())] {
        bound.options.insert(key.into(), value.into());
    }
    let (volume, _) = store.create_volume(bound, true).unwrap();
    fill(&store, &volume, &root, "/data");
    assert!(host.join("f").exists() && left_in(volume.data()).is_empty());
    assert!(left_in(host).iter().all(|name| !name.starts_with(".strate")));
}

#[test]
fn trees_of_any_depth_are_copied() {
    let (dir, store) = store();
    let root = image(dir.path());
    let mut at = rustix::fs::openat(&root, "data", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..1500 {
        rustix::fs::mkdirat(&at, "deep", Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "deep", OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    rustix::fs::ftruncate(rustix::fs::openat(&at, "f", flags, Mode::RUSR).unwrap(), 96).unwrap();
    let volume = make_volume(&store, "v");
    fill(&store, &volume, &root, "/data");
    assert_eq!(crate::sys::tree::apparent(&volume.data()), 100);
    store.remove_volume("v", false).unwrap();
    crate::sys::tree::remove_path(&dir.path().join("image")).unwrap();
}

fn archive(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(if kind.is_dir() { 0o750 } else { 0o640 });
        // As it stands: the crate would refuse what an attacker writes.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        if kind.is_file() {
            header.set_size(content.len() as u64);
        } else {
            header.set_size(0);
            header.as_gnu_mut().unwrap().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_cksum();
        builder.append(&header, if kind.is_file() { content.as_bytes() } else { b"" }).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn an_archive_is_merged_into_a_volume() {
    use tar::EntryType as T;
    let (_dir, store) = store();
    let volume = make_volume(&store, "v");
    let data = volume.data();
    fs::create_dir_all(data.join("dir/kept")).unwrap();
    fs::write(data.join("file"), "old").unwrap();
    fs::create_dir(data.join("was-dir")).unwrap();
    let bytes = archive(&[
        ("dir", T::Directory, ""),
        ("dir/new", T::Regular, "new"),
        ("file", T::Regular, "newer"),
        ("was-dir", T::Regular, ""),
        (".wh.file", T::Regular, "no whiteout"),
    ]);
    assert_eq!(store.import_volume(&volume, &mut bytes.as_slice()).unwrap().entries, 5);
    assert!(data.join("dir/kept").is_dir() && data.join("was-dir").is_file());
    assert_eq!(fs::read_to_string(data.join("dir/new")).unwrap(), "new");
    assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "newer");
    assert_eq!(fs::read_to_string(data.join(".wh.file")).unwrap(), "no whiteout");
    assert_eq!(fs::metadata(data.join("dir")).unwrap().mode() & 0o777, 0o750);
    assert_eq!(fs::metadata(&data).unwrap().mode() & 0o777, 0o755, "the archive says nothing of it");
}

#[test]
fn a_hostile_or_broken_archive_changes_nothing() {
    use tar::EntryType as T;
    let (dir, store) = store();
    let canary = dir.path().join("canary");
    fs::create_dir(&canary).unwrap();
    let target = canary.to_str().unwrap();
    let volume = make_volume(&store, "v");
    symlink(&canary, volume.data().join("planted")).unwrap();
    let through_a_link = archive(&[("l", T::Symlink, target), ("l/x", T::Regular, "x")]);
    let through_a_planted_one = archive(&[("planted", T::Directory, ""), ("planted/x", T::Regular, "x")]);
    let upwards = archive(&[("../../../../canary/x", T::Regular, "x")]);
    let foreign_link = archive(&[("l", T::Link, "planted/x")]);
    let mut cut = archive(&[("a", T::Regular, "x"), ("b", T::Regular, "y")]);
    cut.truncate(1100);
    for bytes in [&upwards, &foreign_link, &cut] {
        assert!(store.import_volume(&volume, &mut bytes.as_slice()).is_err());
        assert_eq!(left_in(volume.data()), ["planted".to_owned()].into());
    }
    for bytes in [&through_a_link, &through_a_planted_one] {
        let _ = store.import_volume(&volume, &mut bytes.as_slice());
    }
    assert!(left_in(canary).is_empty());
}
