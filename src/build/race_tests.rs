//! D3: trees that change while they are copied. Somebody swaps a directory or a file with a link that leads out, over and
//! over; what lies outside is neither read nor touched.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::*;
use crate::build::tree::Owners;

/// For how long each race is run.
const TIME: Duration = Duration::from_millis(700);
const SECRET: &str = "what lies outside";

/// What came of many copies.
#[derive(Debug, Default)]
struct Outcome {
    copied: usize,
    failed: usize,
    leaked: Vec<String>,
}

/// Swap `a` with `b` in a thread, as often as can be, while `work` is done over and over. How often it was swapped.
fn race(a: &Path, b: &Path, mut work: impl FnMut()) -> usize {
    let (over, swaps) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
                std::thread::yield_now();
            }
        });
        let began = Instant::now();
        while began.elapsed() < TIME {
            work();
        }
        over.store(true, Ordering::Relaxed);
    });
    swaps.into_inner()
}

/// Every file below that holds the secret.
fn leaks(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(leaks(&entry.path()));
        } else if kind.is_file() && fs::read_to_string(entry.path()).is_ok_and(|text| text.contains(SECRET)) {
            found.push(entry.path().display().to_string());
        }
    }
    found
}

/// Copy `source` of a tree into a fresh root, again and again.
fn copies(root: &Path, source: &str, swapped: (&Path, &Path)) -> (Outcome, usize) {
    let mut outcome = Outcome::default();
    let swaps = race(swapped.0, swapped.1, || {
        let tree = Tree::new(fs::File::open(root).unwrap().into(), Owners::Root, None);
        let dest = tempfile::tempdir().unwrap();
        let to = fs::File::open(dest.path()).unwrap();
        let mut copier = Copier::new(Placer::new(to.as_fd()), Rules::default());
        match copier.copy(&tree, Path::new(source), "/to/") {
            Ok(()) => outcome.copied += 1,
            Err(_) => outcome.failed += 1,
        }
        outcome.leaked.extend(leaks(dest.path()));
    });
    (outcome, swaps)
}

#[test]
fn d3_a_directory_that_becomes_a_link_while_it_is_copied_leads_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (context, outside) = (dir.path().join("context"), dir.path().join("outside"));
    fs::create_dir_all(context.join("sub/deep")).unwrap();
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::write(context.join("sub/deep/file"), "ours").unwrap();
    fs::write(outside.join("deep/file"), SECRET).unwrap();
    let link = context.join("link");
    symlink(&outside, &link).unwrap();
    for source in ["/sub/deep/file", "/sub/deep", "/sub", "/"] {
        let (outcome, swaps) = copies(&context, source, (&context.join("sub"), &link));
        assert_eq!(outcome.leaked, [""; 0], "{source}");
        assert!(swaps > 20 && outcome.copied + outcome.failed > 20, "{source}: {swaps} swaps, {outcome:?}");
    }
    assert_eq!(fs::read_to_string(outside.join("deep/file")).unwrap(), SECRET);
}

#[test]
fn d3_a_file_that_becomes_a_link_while_it_is_copied_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let context = dir.path().join("context");
    fs::create_dir_all(&context).unwrap();
    fs::write(dir.path().join("secret"), SECRET).unwrap();
    fs::write(context.join("file"), "ours").unwrap();
    let link = dir.path().join("link");
    symlink("../secret", &link).unwrap();
    for source in ["/file", "/"] {
        let (outcome, swaps) = copies(&context, source, (&context.join("file"), &link));
        assert_eq!(outcome.leaked, [""; 0], "{source}");
        assert!(swaps > 20 && outcome.copied > 0, "{source}: {swaps} swaps, {outcome:?}");
    }
}

#[test]
fn d3_a_destination_that_becomes_a_link_while_it_is_written_leads_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (source, root) = (dir.path().join("source"), dir.path().join("root"));
    let outside = dir.path().join("outside");
    for path in [&source.join("d"), &root.join("app/d"), &outside] {
        fs::create_dir_all(path).unwrap();
    }
    fs::write(source.join("d/file"), "new").unwrap();
    fs::write(outside.join("canary"), SECRET).unwrap();
    let link = root.join("link");
    symlink(&outside, &link).unwrap();
    let tree = Tree::new(fs::File::open(&source).unwrap().into(), Owners::Root, None);
    let to = fs::File::open(&root).unwrap();
    let mut done = 0;
    let swaps = race(&root.join("app"), &link, || {
        let mut copier = Copier::new(Placer::new(to.as_fd()), Rules::default());
        let _ = copier.copy(&tree, Path::new("/"), "/app/");
        done += 1;
        let there: Vec<_> =
            fs::read_dir(&outside).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(there, ["canary"]);
    });
    assert!(swaps > 20 && done > 20, "{swaps} swaps, {done} copies");
    assert_eq!(fs::read_to_string(outside.join("canary")).unwrap(), SECRET);
}
