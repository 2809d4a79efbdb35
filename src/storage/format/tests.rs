use std::fs;

use super::*;
use crate::storage::lock::Notice;

fn current(found: Result<Found, Error>) -> bool {
    matches!(found, Ok(Found::Current(_)))
}

#[test]
fn newer_formats_are_refused_as_their_class_says() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    assert!(matches!(check(&layout, true), Ok(Found::Nothing)));
    create(&layout, &Notice::default(), false).unwrap();
    assert!(current(check(&layout, true)));
    let table = [
        (r#"{"format":2,"compatible":["x"]}"#, true, true),
        (r#"{"format":2,"compatible":["shared"],"incompatible":["shared"]}"#, true, true),
        (r#"{"format":2,"read-only-compatible":["x"]}"#, true, false),
        (r#"{"format":2,"incompatible":["x"]}"#, false, false),
        (r#"{"format":3}"#, false, false),
        ("", false, false),
    ];
    for (text, read, write) in table {
        fs::write(layout.format(), text).unwrap();
        assert_eq!(current(check(&layout, false)), read, "{text}");
        assert_eq!(current(check(&layout, true)), write, "{text}");
    }
}

#[test]
fn a_refusal_says_which_version_would_do_and_nothing_that_is_no_version() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    for (needs, said) in [("1.4.0", "1.4.0"), ("\u{1b}[31m", "a newer")] {
        let text = serde_json::json!({"format": 7, "needs": needs}).to_string();
        fs::write(layout.format(), text).unwrap();
        let error = check(&layout, false).unwrap_err().to_string();
        assert!(error.contains("format 7") && error.contains(said) && !error.contains('\u{1b}'), "{error}");
    }
}

#[test]
fn a_directory_with_other_things_is_not_made_a_store() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let made = create(&Layout::new(dir.path()), &Notice::default(), false);
    assert!(matches!(made, Err(Error::NotAStore(_))));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

fn made_of(parts: &[(&str, &str)]) -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in parts {
        let path = dir.path().join(name);
        if name.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    let layout = Layout::new(dir.path());
    (dir, layout)
}

#[test]
fn one_name_of_ours_does_not_make_a_directory_a_store() {
    let oci = ("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    let list = ("index.json", r#"{"schemaVersion":2,"manifests":[]}"#);
    let foreign: [&[(&str, &str)]; 8] = [
        &[("locks/", ""), ("tmp/thesis", "x")],
        &[("locks/", ""), ("cache/thesis", "x")],
        &[("tmp/", "")],
        &[("locks/", ""), list],
        &[("index.json", "{\"name\":\"web\"}"), ("blobs/", "")],
        &[oci, list, ("README", "x")],
        &[oci, list, ("tmp/thesis", "x")],
        &[("oci-layout", "{}"), list, ("blobs/", "")],
    ];
    for parts in foreign {
        let (_dir, layout) = made_of(parts);
        let made = create(&layout, &Notice::default(), false);
        assert!(matches!(made, Err(Error::NotAStore(_))), "{parts:?}: {made:?}");
        for (name, text) in parts.iter().filter(|(name, _)| !name.ends_with('/')) {
            assert_eq!(fs::read_to_string(layout.root().join(name)).unwrap(), *text);
        }
    }
    let adopted: [&[(&str, &str)]; 5] = [
        &[("lost+found/", "")],
        &[("locks/names", "")],
        &[("locks/", ""), ("blobs/sha256/", ""), ("snapshots/", "")],
        &[oci, list, ("blobs/sha256/00", "x")],
        &[("locks/", ""), ("snapshots/", ""), ("containers/", ""), ("tmp/probe", "x"), ("probe.json", "{}")],
    ];
    for parts in adopted {
        let (_dir, layout) = made_of(parts);
        create(&layout, &Notice::default(), false).unwrap();
        assert!(current(check(&layout, true)), "{parts:?}");
    }
}

#[test]
fn a_lost_format_comes_back_from_its_copy_and_is_made_up_only_when_told_to() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    create(&layout, &Notice::default(), false).unwrap();
    let mut shared = FormatFile::current();
    shared.set_shared(true);
    shared.write(&layout).unwrap();
    let restore = |insist| restore(&layout, insist, &Patience::usual());
    assert!(!restore(true).unwrap());
    for lost in [Some(""), None] {
        match lost {
            Some(text) => fs::write(layout.format(), text).unwrap(),
            None => fs::remove_file(layout.format()).unwrap(),
        }
        assert!(restore(false).unwrap());
        assert!(matches!(check(&layout, true), Ok(Found::Current(file)) if file.is_shared()));
    }
    // One that this binary must not write stays so, however much it is told to.
    fs::write(layout.format(), "").unwrap();
    fs::write(layout.format_copy(), r#"{"format":2,"incompatible":["x"]}"#).unwrap();
    assert!(matches!(restore(true), Err(Error::Feature { .. })));
    fs::write(layout.format_copy(), "{").unwrap();
    assert!(matches!(restore(false), Err(Error::FormatLost(_))));
    assert_eq!(fs::read(layout.format()).unwrap(), b"");
    assert!(restore(true).unwrap());
    assert!(matches!(check(&layout, true), Ok(Found::Older(file)) if !file.is_shared()));
}
