use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::*;
use crate::storage::format::create::create;

/// A store of format 1 with a volume of each kind.
fn old_store() -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    create(&layout, &Notice::default(), false).unwrap();
    fs::write(layout.format(), r#"{"format":1,"compatible":["later"],"note":"kept"}"#).unwrap();
    let put = |name: &str, text: &str| {
        let path = layout.volumes().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("plain/file", "plain");
    put("plain/_data/inner", "not ours");
    put("half/_data/file", "half");
    put("half/fill/more", "half");
    put("whole/_data/file", "whole");
    put("whole/volume.json", r#"{"name":"whole","created":"2026-01-01T00:00:00Z","anonymous":false,"x":1}"#);
    put("damaged/volume.json", "{");
    put("damaged/_data/file", "damaged");
    fs::create_dir(layout.volumes().join("empty")).unwrap();
    (dir, layout)
}

/// Every file of the volumes, records as their keys and names.
fn files(layout: &Layout) -> BTreeMap<PathBuf, String> {
    fn walk(dir: &Path, top: &Path, all: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), top, all);
            } else {
                let mut text = fs::read_to_string(entry.path()).unwrap();
                if let Ok(record) = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(&text) {
                    text = record.keys().cloned().collect::<Vec<_>>().join(" ")
                        + " "
                        + &record["name"].to_string();
                }
                all.insert(entry.path().strip_prefix(top).unwrap().to_owned(), text);
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(&layout.volumes(), &layout.volumes(), &mut all);
    all
}

const UPGRADED: [(&str, &str); 11] = [
    ("damaged/_data/file", "damaged"),
    ("damaged/volume.json", "{"),
    ("empty/volume.json", "anonymous created driver labels name options \"empty\""),
    ("half/_data/file", "half"),
    ("half/fill/more", "half"),
    ("half/volume.json", "anonymous created driver labels name options \"half\""),
    ("plain/_data/_data/inner", "not ours"),
    ("plain/_data/file", "plain"),
    ("plain/volume.json", "anonymous created driver labels name options \"plain\""),
    ("whole/_data/file", "whole"),
    ("whole/volume.json", "anonymous created driver labels name options x \"whole\""),
];

fn expected() -> BTreeMap<PathBuf, String> {
    UPGRADED.map(|(path, text)| (PathBuf::from(path), text.to_owned())).into()
}

#[test]
fn volumes_get_records_and_what_is_unknown_is_kept() {
    let (_dir, layout) = old_store();
    upgrade(&layout, &Notice::default(), None).unwrap();
    assert_eq!(files(&layout), expected());
    assert!(layout.volume("empty").join("_data").is_dir());
    let file: serde_json::Value = serde_json::from_slice(&fs::read(layout.format()).unwrap()).unwrap();
    assert_eq!(
        (&file["format"], &file["note"], &file["compatible"][0]),
        (&2.into(), &"kept".into(), &"later".into())
    );
    // A second one finds nothing to do, and no step is undone by being done again.
    upgrade(&layout, &Notice::default(), None).unwrap();
    volumes::get_records(&layout, &Notice::default()).unwrap();
    assert_eq!(files(&layout), expected());
}

#[test]
fn an_upgrade_that_was_cut_short_anywhere_is_finished() {
    type Cut = fn(&Layout);
    let states: [Cut; 5] = [
        |layout| fs::create_dir(layout.volume(".upgrade-plain")).unwrap(),
        |layout| {
            fs::create_dir(layout.volume(".upgrade-plain")).unwrap();
            fs::write(layout.tmp().join("volume"), "{\"na").unwrap();
        },
        |layout| {
            fs::create_dir(layout.volume(".upgrade-plain")).unwrap();
            fs::write(layout.volume(".upgrade-plain").join("volume.json"), "{}").unwrap();
        },
        |layout| {
            let aside = layout.volume(".upgrade-plain");
            fs::create_dir(&aside).unwrap();
            let record = r#"{"name":"plain","driver":"local","created":"","anonymous":false,"labels":{},"options":{}}"#;
            fs::write(aside.join("volume.json"), record).unwrap();
            fs::rename(layout.volume("plain"), aside.join("_data")).unwrap();
        },
        |layout| {
            // Everything but the last word.
            super::volumes::get_records(layout, &Notice::default()).unwrap();
        },
    ];
    for (i, cut) in states.into_iter().enumerate() {
        let (_dir, layout) = old_store();
        cut(&layout);
        assert!(matches!(check(&layout, true).unwrap(), Found::Older(_)), "state {i}");
        upgrade(&layout, &Notice::default(), None).unwrap();
        assert_eq!(files(&layout), expected(), "state {i}");
        assert!(matches!(check(&layout, true).unwrap(), Found::Current(_)), "state {i}");
    }
}

#[test]
fn a_volume_that_an_older_binary_made_meanwhile_is_kept_beside_the_old_one() {
    let (_dir, layout) = old_store();
    let aside = layout.volume(".upgrade-plain");
    fs::create_dir(&aside).unwrap();
    fs::rename(layout.volume("plain"), aside.join("_data")).unwrap();
    fs::create_dir_all(layout.volume("plain/_data")).unwrap();
    fs::write(layout.volume("plain/_data/new"), "new").unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&said);
    upgrade(&layout, &Notice::new(move |text| to.lock().unwrap().push(text.to_owned())), None).unwrap();
    assert_eq!(fs::read_to_string(layout.volume("plain/_data/new")).unwrap(), "new");
    assert_eq!(fs::read_to_string(layout.volume("plain.1/_data/file")).unwrap(), "plain");
    assert!(said.lock().unwrap()[0].contains("`plain.1`"), "{said:?}");
}

#[test]
fn an_upgrade_waits_for_whoever_has_the_store_open_and_gives_up() {
    let (_dir, layout) = old_store();
    let open = lock(&layout, &LockName::Store, LockMode::Shared, &Patience::usual()).unwrap();
    let busy = upgrade(&layout, &Notice::default(), Some(Duration::ZERO));
    assert!(matches!(busy, Err(Error::Busy { .. })), "{busy:?}");
    assert!(matches!(check(&layout, true).unwrap(), Found::Older(_)));
    drop(open);
    upgrade(&layout, &Notice::default(), Some(Duration::ZERO)).unwrap();
}
