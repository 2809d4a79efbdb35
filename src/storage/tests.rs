//! The store as its users see it. Layers are made with the `tar` and `flate2` crates, which share no code with ours.

use std::fs;
use std::io::{Read, Write};

use super::lock::{LockMode, LockName};
use super::*;
use crate::image::{Edit, LayerPlace, LayerPlan, LayerState, NewLayer, Silent, Sink, Source};
use crate::oci::{
    Descriptor, DiffId, Digest, History, ImageConfig, Platform, Reference, chain_ids, descriptor, media_type,
};

/// An empty store in a temporary directory.
pub(super) fn scratch() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    (dir, store)
}

pub(super) fn open(dir: &tempfile::TempDir) -> Store {
    Store::open_writable(&dir.path().join("store"), abilities()).unwrap()
}

fn abilities() -> Abilities {
    let root = rustix::process::geteuid().is_root();
    Abilities { mapped_ids: if root { u32::MAX } else { 1 }, unpack: true, lock_timeout: None }
}

/// A layer: gzip blob, its plan, and nothing below.
pub(super) struct TestLayer {
    pub blob: Vec<u8>,
    pub plan: LayerPlan,
}

impl TestLayer {
    pub(super) fn pair(&self) -> (Descriptor, DiffId) {
        (self.plan.descriptor.clone(), self.diff_id())
    }

    fn place(&mut self) -> &mut LayerPlace {
        self.plan.place.as_mut().unwrap()
    }

    pub(super) fn diff_id(&self) -> DiffId {
        self.plan.place.as_ref().unwrap().diff_id.clone()
    }

    fn digest(&self) -> Digest {
        crate::oci::digest_of(&self.plan.descriptor).unwrap()
    }
}

/// Entries: a path ending in `/` is a directory, `a -> b` a hard link, the rest files with the given content.
pub(super) fn layer(entries: &[(&str, &str)]) -> TestLayer {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_mtime(1_600_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        if let Some((link, target)) = path.split_once(" -> ") {
            header.set_entry_type(tar::EntryType::Link);
            tar.append_link(&mut header, link, target).unwrap();
        } else if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            tar.append_data(&mut header, path, std::io::empty()).unwrap();
        } else {
            header.set_size(content.len() as u64);
            tar.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
    }
    let tar = tar.into_inner().unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let blob = gzip.finish().unwrap();
    let diff_id = DiffId(Digest::sha256(&tar));
    let descriptor = descriptor(media_type::OCI_LAYER_GZIP, &Digest::sha256(&blob), blob.len() as u64);
    let chain_id = chain_ids(std::slice::from_ref(&diff_id)).remove(0);
    TestLayer {
        blob,
        plan: LayerPlan { descriptor, place: Some(LayerPlace { diff_id, chain_id, below: Vec::new() }) },
    }
}

pub(super) fn put(store: &Store, layer: &TestLayer) {
    let _claim = store.claim_layer(&layer.plan, &Silent).unwrap();
    if store.layer_state(&layer.plan).unwrap() == LayerState::Complete {
        return;
    }
    store.put_layer(&layer.plan, 0, &mut layer.blob.as_slice(), &Silent).unwrap();
}

/// Publish an image of these layers under a name.
pub(super) fn image(store: &Store, name: Option<&str>, layers: &[&TestLayer], comment: &str) -> Image {
    for layer in layers {
        put(store, layer);
    }
    let edit = Edit {
        config: ImageConfig::empty(&Platform::host()),
        base_layers: Vec::new(),
        new_layers: layers
            .iter()
            .map(|l| NewLayer { descriptor: l.plan.descriptor.clone(), diff_id: l.diff_id() })
            .collect(),
        history: vec![History {
            created: Some("2024-05-06T07:08:09Z".into()),
            comment: Some(comment.into()),
            ..History::default()
        }],
        docker_types: false,
        annotations: std::collections::BTreeMap::new(),
    };
    let names: Vec<Reference> = name.into_iter().map(|name| Reference::parse(name).unwrap()).collect();
    store.publish_image(edit, &names).unwrap()
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .map(|entries| entries.flatten().map(|e| e.file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.retain(|name| name != "CACHEDIR.TAG");
    names.sort();
    names
}

#[test]
fn a_store_that_is_not_there_is_empty_and_stays_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("none");
    let store = Store::open(&root).unwrap();
    assert_eq!(store.images().unwrap(), []);
    assert!(matches!(store.find_image("alpine"), Err(Error::NoSuchImage(_))));
    assert!(matches!(store.put_bytes("x", b"y"), Err(Error::ReadOnly { .. })));
    assert!(!root.exists());
}

#[test]
fn blobs_are_verified_when_written_and_when_read() {
    let (dir, store) = scratch();
    let descriptor = store.put_bytes("text/plain", b"hello").unwrap();
    let digest = Digest::sha256("hello");
    assert_eq!(store.read_blob(&digest).unwrap(), b"hello");
    assert!(store.has_blob(&digest, 5).unwrap() && !store.has_blob(&digest, 4).unwrap());
    fs::write(store.layout().blob(&digest), "hellO").unwrap();
    assert!(matches!(store.read_blob(&digest), Err(Error::CorruptBlob { .. })));
    assert_eq!(store.put_bytes("text/plain", b"hello").unwrap(), descriptor);
    assert_eq!(store.read_blob(&digest).unwrap(), b"hello");
    let wrong = Sink::put_blob(&store, &descriptor, b"other");
    assert!(wrong.is_err());
    drop(store.blob_writer().unwrap());
    drop(store);
    assert_eq!(files(&dir.path().join("store/tmp")), [""; 0]);
    assert_eq!(files(&dir.path().join("store/blobs/sha256")), [digest.hex()]);
}

#[test]
fn only_a_blob_that_is_still_wrong_is_moved_away() {
    let (_dir, store) = scratch();
    store.put_bytes("text/plain", b"hello").unwrap();
    let digest = Digest::sha256("hello");
    let path = store.layout().blob(&digest);
    // As if a peer had put the right bytes there while the wrong ones were still read.
    assert_eq!(store.keep_wrong_blob(&digest, "was read long ago").unwrap(), None);
    assert!(!store.drop_wrong_blob(&digest).unwrap());
    assert_eq!(store.read_blob(&digest).unwrap(), b"hello");
    fs::write(&path, "hellO").unwrap();
    let fetching = store.lock(&LockName::Blob(&digest), LockMode::Exclusive).unwrap();
    assert_eq!(store.keep_wrong_blob(&digest, "somebody fetches it").unwrap(), None);
    assert!(path.exists());
    drop(fetching);
    let kept = store.keep_wrong_blob(&digest, "is wrong").unwrap().unwrap();
    assert_eq!(fs::read(kept).unwrap(), b"hellO");
    assert!(!path.exists() && store.keep_wrong_blob(&digest, "is gone").unwrap().is_none());
}

#[test]
fn a_layer_arrives_verified_and_unpacked() {
    let (_dir, store) = scratch();
    let layer = layer(&[("etc/", ""), ("etc/hosts", "localhost"), ("etc/link -> etc/hosts", "")]);
    assert_eq!(store.layer_state(&layer.plan).unwrap(), LayerState::Missing { partial: 0 });
    put(&store, &layer);
    assert_eq!(store.layer_state(&layer.plan).unwrap(), LayerState::Complete);
    assert_eq!(files(&store.layout().snapshots()), [layout::file_name(&layer.diff_id().0)]);
    assert_eq!(files(&store.layout().partials()), [""; 0]);
    let stack = store.stack_of(&[layer.pair()], &Silent).unwrap();
    assert_eq!(fs::read_to_string(stack.layers[0].fs.join("etc/hosts")).unwrap(), "localhost");
    assert_eq!(stack.layers[0].size, 9);
}

#[test]
fn wrong_bytes_leave_nothing() {
    let (_dir, store) = scratch();
    let good = layer(&[("a", "content")]);
    let other = layer(&[("b", "other")]);
    let mut flipped = good.blob.clone();
    let last = flipped.len() - 1;
    flipped[last] ^= 1;
    let mut longer = good.blob.clone();
    longer.push(0);
    let short = &good.blob[..good.blob.len() - 1];
    for bytes in [&flipped[..], &longer, short, b"", &other.blob] {
        assert!(store.put_layer(&good.plan, 0, &mut &bytes[..], &Silent).is_err());
    }
    // The right blob under a diff id that is not its own.
    let mut lying = good.plan.clone();
    lying.place.as_mut().unwrap().diff_id = other.diff_id();
    assert!(store.put_layer(&lying, 0, &mut good.blob.as_slice(), &Silent).is_err());
    for dir in [store.layout().blob_dir("sha256"), store.layout().snapshots(), store.layout().partials()] {
        assert_eq!(files(&dir), [""; 0], "{}", dir.display());
    }
    put(&store, &good);
    assert!(store.layer_state(&lying).is_err());
}

/// Breaks off with an error after some bytes, as a connection does.
struct Breaks<'a>(&'a [u8]);

impl Read for Breaks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::ConnectionReset.into()),
            n => Ok(n),
        }
    }
}

#[test]
fn a_broken_download_goes_on_where_it_broke() {
    let (_dir, store) = scratch();
    let noise: String = (0..200_000_u32)
        .map(|i| char::from(b'a' + (i.wrapping_mul(2_654_435_761) >> 24) as u8 % 26))
        .collect();
    let layer = layer(&[("noise", &noise)]);
    let half = layer.blob.len() / 2;
    assert!(store.put_layer(&layer.plan, 0, &mut Breaks(&layer.blob[..half]), &Silent).is_err());
    assert_eq!(store.layer_state(&layer.plan).unwrap(), LayerState::Missing { partial: half as u64 });
    store.put_layer(&layer.plan, half as u64, &mut &layer.blob[half..], &Silent).unwrap();
    assert_eq!(store.layer_state(&layer.plan).unwrap(), LayerState::Complete);
    let stack = store.stack_of(&[layer.pair()], &Silent).unwrap();
    assert_eq!(fs::read_to_string(stack.layers[0].fs.join("noise")).unwrap(), noise);
}

#[test]
fn one_of_many_fetches_a_layer_and_all_get_it() {
    let (dir, store) = scratch();
    let layer = layer(&[("a", "content")]);
    let stores: Vec<Store> = (0..6).map(|_| open(&dir)).collect();
    std::thread::scope(|scope| {
        for store in &stores {
            scope.spawn(|| put(store, &layer));
        }
    });
    assert_eq!(files(&store.layout().snapshots()).len(), 1);
    assert_eq!(store.layer_state(&layer.plan).unwrap(), LayerState::Complete);
    drop(stores);
}

#[test]
fn names_move_and_old_images_stay_reachable() {
    let (dir, store) = scratch();
    let base = layer(&[("a", "1")]);
    let first = image(&store, Some("app:1"), &[&base], "first");
    let found = store.find_image("app:1").unwrap();
    assert_eq!((&found.id, found.size), (&first.id, 1));
    assert_eq!(found.created.as_deref(), Some("2024-05-06T07:08:09Z"));
    let second = image(&store, Some("app:1"), &[&base], "second");
    store
        .tag(&store.find_image("app:1").unwrap(), &Reference::parse("reg.example:5000/x/y").unwrap())
        .unwrap();
    let reader = Store::open(&dir.path().join("store")).unwrap();
    let images = reader.images().unwrap();
    let names: Vec<_> = images.iter().map(|r| r.name.as_ref().map(Reference::familiar)).collect();
    assert_eq!(names.len(), 3);
    assert!(names.contains(&None) && names.contains(&Some("reg.example:5000/x/y:latest".into())));
    assert_eq!(reader.find_image("app:1").unwrap().id, second.id);
    for text in [first.id.to_string(), first.id.digest().short().to_owned(), first.raw.digest.to_string()] {
        assert_eq!(reader.find_image(&text).unwrap().id, first.id, "{text}");
    }
    let by_digest = format!("app@{}", second.raw.digest);
    assert_eq!(reader.find_image(&by_digest).unwrap().id, second.id);
    assert!(matches!(reader.find_image("sha256:"), Err(Error::NoSuchImage(_))));
    let again = reader.image(&second.raw.digest).unwrap();
    assert_eq!(again.config.history[0].comment.as_deref(), Some("second"));
}

#[test]
fn readers_never_see_a_half_written_index() {
    let (dir, store) = scratch();
    let base = layer(&[("a", "1")]);
    image(&store, Some("app"), &[&base], "x");
    let record = store.find_image("app").unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for i in 0..60 {
                store.tag(&record, &Reference::parse(&format!("app:{i}")).unwrap()).unwrap();
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let reader = Store::open(&dir.path().join("store")).unwrap();
        let mut most = 0;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            let now = reader.images().unwrap().len();
            assert!(now >= most);
            most = now;
        }
        writer.join().unwrap();
    });
    assert_eq!(store.images().unwrap().len(), 61);
}

#[test]
fn removing_takes_what_nothing_else_needs() {
    let (_dir, store) = scratch();
    let (base, top) = (layer(&[("a", "1")]), layer(&[("b", "2")]));
    let one = image(&store, Some("one"), &[&base], "1");
    let two = image(&store, Some("two"), &[&base, &top], "2");
    store.tag(&store.find_image("two").unwrap(), &Reference::parse("also").unwrap()).unwrap();
    assert!(matches!(store.remove_image(two.id.digest().short(), false), Err(Error::SeveralNames { .. })));
    assert_eq!(store.remove_image("also", false).unwrap(), [Removed::Untagged("also:latest".into())]);
    let removed = store.remove_image("two", false).unwrap();
    let chain = chain_ids(&two.config.rootfs.diff_ids);
    assert_eq!(
        removed,
        [
            Removed::Untagged("two:latest".into()),
            Removed::Deleted(two.id.to_string()),
            Removed::Deleted(chain[1].to_string()),
        ]
    );
    assert_eq!(store.layer_state(&base.plan).unwrap(), LayerState::Complete);
    assert_eq!(store.layer_state(&top.plan).unwrap(), LayerState::Missing { partial: 0 });
    assert_eq!(files(&store.layout().snapshots()).len(), 1);
    assert!(store.image(&one.raw.digest).is_ok());
    store.remove_image(&one.id.to_string(), false).unwrap();
    assert_eq!(files(&store.layout().blob_dir("sha256")), [""; 0]);
    assert_eq!(files(&store.layout().snapshots()), [""; 0]);
    assert!(matches!(store.remove_image("one", false), Err(Error::NoSuchImage(_))));
}

#[test]
fn a_collector_leaves_what_others_have_pinned_and_records_keep() {
    let (dir, store) = scratch();
    let (pinned, kept, loose) = (layer(&[("a", "1")]), layer(&[("b", "2")]), layer(&[("c", "3")]));
    for layer in [&kept, &loose] {
        put(&store, layer);
    }
    store.cache_put("step 1", b"record", &[kept.digest(), kept.diff_id().0], "").unwrap();
    let other = open(&dir);
    put(&other, &pinned);
    drop(store);
    let store = open(&dir);
    let before = crate::sys::tree::on_disk(&store.root());
    let swept = store.collect(Unlink::Now).unwrap();
    assert_eq!(swept.gone, [loose.digest(), loose.diff_id().0].into());
    let after = crate::sys::tree::on_disk(&store.root());
    // What was computed from the blob went too, and lock files may have come.
    let freed = before - after;
    assert!(freed.abs_diff(swept.bytes) <= 3 * 4096, "{freed} freed, {} said", swept.bytes);
    assert_eq!(store.cache_get("step 1").unwrap().as_deref(), Some(&b"record"[..]));
    assert_eq!(store.cache_get("step 2").unwrap(), None);
    drop(other);
    assert_eq!(store.collect(Unlink::Now).unwrap().gone.len(), 2);
    drop(store);
    let store = open(&dir);
    let (records, swept) = store.prune_cache(&Limits::default(), &|_| true, Unlink::Now).unwrap();
    assert_eq!((records.len(), swept.gone.len()), (1, 2));
}

#[test]
fn pruning_follows_its_filters() {
    let (_dir, store) = scratch();
    let base = layer(&[("a", "1")]);
    image(&store, Some("kept"), &[&base], "1");
    image(&store, Some("moved"), &[&base], "2");
    image(&store, Some("moved"), &[&base], "3");
    assert_eq!(store.prune_images(false, &|_, _| false).unwrap().removed, []);
    let kept = |record: &ImageRecord, _: &Store| record.label() != "kept:latest";
    assert_eq!(store.plan_prune(true, &kept, &std::collections::BTreeSet::new()).unwrap().images.len(), 2);
    let dangling = store.prune_images(false, &|_, _| true).unwrap();
    assert_eq!(dangling.removed.len(), 1);
    assert_eq!(store.images().unwrap().len(), 2);
    let plan = store.plan_prune(true, &|_, _| true, &std::collections::BTreeSet::new()).unwrap();
    let before = crate::sys::tree::on_disk(&store.root());
    let all = store.prune_images(true, &|_, _| true).unwrap();
    assert!(all.bytes > base.blob.len() as u64);
    assert!(plan.bytes().abs_diff(all.bytes) <= 2 * 4096, "{} announced, {} freed", plan.bytes(), all.bytes);
    let after = crate::sys::tree::on_disk(&store.root());
    assert!((before - after).abs_diff(all.bytes) <= 3 * 4096, "{} freed, {} said", before - after, all.bytes);
    assert_eq!(files(&store.layout().blob_dir("sha256")), [""; 0]);
}

#[test]
fn the_collect_lock_is_held_for_renames_only() {
    let (dir, store) = scratch();
    for i in 0..60 {
        let content: Vec<(String, String)> = (0..40).map(|f| (format!("{i}-{f}"), format!("{i}"))).collect();
        let entries: Vec<(&str, &str)> = content.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        image(&store, Some(&format!("i{i}")), &[&layer(&entries)], "x");
    }
    drop(store);
    let store = open(&dir);
    let done = std::sync::atomic::AtomicBool::new(false);
    let longest = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let (mut longest, mut busy) = (std::time::Duration::ZERO, None);
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                match store.try_lock(&LockName::Collect, LockMode::Shared).unwrap() {
                    Some(_) => busy = None,
                    None => {
                        let since = *busy.get_or_insert_with(std::time::Instant::now);
                        longest = longest.max(since.elapsed());
                    }
                }
                std::thread::yield_now();
            }
            longest
        });
        let before = crate::sys::tree::on_disk(&store.root());
        let pruned = store.prune_images(true, &|_, _| true).unwrap();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        let freed = before - crate::sys::tree::on_disk(&store.root());
        assert!(
            freed.abs_diff(pruned.bytes) < freed / 20 + 64 * 1024,
            "{freed} freed, {} said",
            pruned.bytes
        );
        watcher.join().unwrap()
    });
    assert!(files(&store.layout().blob_dir("sha256")).is_empty());
    // A tenth of a second on a machine that does nothing else.
    assert!(longest < std::time::Duration::from_millis(500), "{longest:?}");
}

#[test]
fn links_in_the_place_of_the_stores_directories_are_not_followed() {
    let (dir, store) = scratch();
    let base = layer(&[("a", "1")]);
    image(&store, Some("x"), &[&base], "1");
    drop(store);
    let home = dir.path().join("home");
    fs::create_dir_all(home.join("fs")).unwrap();
    fs::write(home.join("fs/thesis"), "precious").unwrap();
    let root = dir.path().join("store");
    // Beside what is ours: the link goes, what it leads to stays.
    let snapshot = Layout::new(&root).snapshot(&Digest::sha256("planted"));
    std::os::unix::fs::symlink(&home, &snapshot).unwrap();
    std::os::unix::fs::symlink(&home, root.join("tmp/0000-1-0")).unwrap();
    let store = open(&dir);
    store.prune_images(true, &|_, _| true).unwrap();
    assert!(fs::symlink_metadata(&snapshot).is_err());
    assert!(fs::symlink_metadata(root.join("tmp/0000-1-0")).is_err());
    assert_eq!(files(&home), ["fs"]);
    drop(store);
    // In place of a directory: nothing is removed at all.
    for name in ["tmp", "snapshots", "blobs", "partial"] {
        fs::rename(root.join(name), root.join("aside")).unwrap();
        std::os::unix::fs::symlink(&home, root.join(name)).unwrap();
        let refused = Store::open_writable(&root, abilities()).and_then(|store| store.collect(Unlink::Now));
        assert!(refused.is_err(), "{name}: {refused:?}");
        assert!(home.join("fs/thesis").exists(), "{name}");
        fs::remove_file(root.join(name)).unwrap();
        fs::rename(root.join("aside"), root.join(name)).unwrap();
    }
}

#[test]
fn the_build_cache_keeps_to_its_limits_least_used_first() {
    let (_dir, store) = scratch();
    let layers: Vec<TestLayer> = (0..4).map(|i| layer(&[(&format!("f{i}"), &"x".repeat(9000))])).collect();
    for (i, layer) in layers.iter().enumerate() {
        put(&store, layer);
        store.cache_put(&format!("step-{i}"), b"r", &[layer.digest(), layer.diff_id().0], "RUN x").unwrap();
        let used = std::time::SystemTime::now() - std::time::Duration::from_secs(3600 * (10 - i as u64));
        let record = fs::File::open(store.layout().record(&format!("step-{i}"))).unwrap();
        record.set_modified(used).unwrap();
    }
    let items = || store.build_cache().unwrap();
    assert_eq!(items().len(), 4);
    assert!(items().iter().all(|item| item.own > 9000 && item.kind == CacheKind::Step), "{:?}", items());
    let one = items()[0].own;
    let (root, limits) = (store.root(), Limits { max_used: 2 * one + one / 2, ..Limits::default() });
    drop(store);
    let store = Store::open_writable(&root, abilities()).unwrap();
    let planned = store.doomed_cache(&limits, &|_| true, None).unwrap();
    let (gone, swept) = store.prune_cache(&limits, &|_| true, Unlink::Now).unwrap();
    assert_eq!((planned.len(), gone.len(), swept.gone.len()), (2, 2, 4));
    assert!(swept.bytes >= 2 * 9000);
    assert_eq!(store.cache_get("step-0").unwrap(), None);
    assert!(store.cache_get("step-3").unwrap().is_some());
    assert_eq!(store.layer_state(&layers[3].plan).unwrap(), LayerState::Complete);
    assert_eq!(store.layer_state(&layers[0].plan).unwrap(), LayerState::Missing { partial: 0 });
    // A second look finds nothing to do.
    assert_eq!(store.prune_cache(&limits, &|_| true, Unlink::Now).unwrap().0.len(), 0);
}

#[test]
fn usage_counts_everything_once() {
    let (_dir, store) = scratch();
    let (base, top, loose) = (layer(&[("a", &"1".repeat(5000))]), layer(&[("b", "2")]), layer(&[("c", "3")]));
    image(&store, Some("one"), &[&base], "1");
    image(&store, Some("two"), &[&base, &top], "2");
    put(&store, &loose);
    let root = store.root();
    drop(store);
    let store = Store::open(&root).unwrap();
    let usage = store.usage().unwrap();
    let shared: Vec<u64> = usage.images.iter().map(|image| image.shared).collect();
    assert_eq!(shared[0], shared[1]);
    let unique: u64 = usage.images.iter().map(|image| image.size - image.shared).sum();
    assert_eq!(usage.images_size, unique + shared[0]);
    assert_eq!(usage.images_evictable, usage.images_size);
    let loose = usage.other.iter().find(|other| other.what == "Unreferenced content").unwrap();
    assert_eq!((loose.count, loose.size), (2, loose.evictable));
    let rest: u64 = usage.other.iter().map(|other| other.size).sum();
    let all = crate::sys::tree::on_disk(&root);
    // Directories themselves are a few blocks that belong to nobody.
    let counted = usage.images_size + rest;
    assert!(counted.abs_diff(all) <= 20 * 4096, "{counted} of {all}");
}

#[test]
fn what_a_dead_process_left_in_tmp_is_swept() {
    let (dir, store) = scratch();
    drop(store);
    let tmp = dir.path().join("store/tmp");
    let boot = &crate::sys::boot::boot_id()[..8];
    for name in ["otherboot-1-0".to_owned(), format!("{boot}-1-0")] {
        fs::create_dir_all(tmp.join(&name).join("layer-0/fs")).unwrap();
        fs::write(tmp.join(&name).join("lease"), "").unwrap();
    }
    let alive = open(&dir);
    alive.put_bytes("x", b"y").unwrap();
    let store = open(&dir);
    store.put_bytes("x", b"z").unwrap();
    assert_eq!(files(&tmp).len(), 2);
}

#[test]
fn snapshots_of_an_earlier_boot_are_made_again_unless_they_were_synced() {
    let (_dir, store) = scratch();
    let layer = layer(&[("a", "content")]);
    put(&store, &layer);
    let dir = store.layout().snapshot(&layer.diff_id().0);
    let marker = fs::read_to_string(dir.join("meta.json")).unwrap();
    for (synced, rebuilt) in [(true, false), (false, true)] {
        let earlier = marker
            .replace(crate::sys::boot::boot_id(), "00000000-0000-0000-0000-000000000000")
            .replace("\"synced\":false", &format!("\"synced\":{synced}"));
        fs::write(dir.join("meta.json"), earlier).unwrap();
        fs::write(dir.join("fs/a"), "").unwrap();
        let stack = store.stack_of(&[layer.pair()], &Silent).unwrap();
        let content = fs::read_to_string(stack.layers[0].fs.join("a")).unwrap();
        assert_eq!(content == "content", rebuilt);
    }
    fs::remove_dir_all(&dir).unwrap();
    store.stack_of(&[layer.pair()], &Silent).unwrap();
    assert!(dir.join("fs/a").exists());
    let blob = store.layout().blob(&layer.digest());
    let mut bytes = fs::read(&blob).unwrap();
    bytes[20] ^= 1;
    fs::write(&blob, bytes).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    assert!(store.stack_of(&[layer.pair()], &Silent).is_err());
}

#[test]
fn layers_that_lean_on_others_are_completed_from_them() {
    let (_dir, store) = scratch();
    let base = layer(&[("usr/", ""), ("usr/bin/", ""), ("usr/bin/tool", "tool")]);
    let mut top = layer(&[("usr/bin/new", "new"), ("usr/bin/link -> usr/bin/tool", "")]);
    top.place().below = vec![base.diff_id()];
    top.place().chain_id = chain_ids(&[base.diff_id(), top.diff_id()]).remove(1);
    put(&store, &top);
    assert_eq!(files(&store.layout().snapshots()), [""; 0]);
    put(&store, &base);
    let stack = store.stack_of(&[base.pair(), top.pair()], &Silent).unwrap();
    assert!(stack.layers[1].fs.starts_with(store.layout().snapshot(&top.place().chain_id.0)));
    assert_eq!(fs::read_to_string(stack.layers[1].fs.join("usr/bin/link")).unwrap(), "tool");
    let mut sink = Vec::new();
    let (offset, mut blob) = store.raw_blob(&top.plan.descriptor, 3).unwrap();
    blob.read_to_end(&mut sink).unwrap();
    assert_eq!((offset, sink.len()), (3, top.blob.len() - 3));
}
