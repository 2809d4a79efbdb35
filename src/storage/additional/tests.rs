use std::sync::{Arc, Mutex};

use super::*;

fn notices(paths: &[PathBuf]) -> (usize, Vec<String>) {
    let said = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&said);
    let notice = Notice::new(move |text| to.lock().unwrap().push(text.to_owned()));
    let opened = open_all(&Layout::new(Path::new("/nonexistent")), paths, &notice).len();
    let said = said.lock().unwrap().clone();
    (opened, said)
}

#[test]
fn what_cannot_be_used_is_said_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["good", "newer", "unlisted"] {
        let abilities = super::super::Abilities { mapped_ids: 1, unpack: false, lock_timeout: None };
        Store::open_writable(&path(name), abilities).unwrap();
    }
    fs::write(path("newer/strate.json"), r#"{"format":99}"#).unwrap();
    fs::write(path("unlisted/index.json"), "{").unwrap();
    fs::create_dir_all(path("theirs/overlay-images")).unwrap();
    fs::create_dir(path("empty")).unwrap();
    let (opened, said) = notices(&[path("good"), path("good"), dir.path().join("./good")]);
    assert_eq!((opened, said), (1, vec![]));
    for (name, part) in [
        ("newer", "format 99"),
        ("unlisted", "index.json"),
        ("theirs", "import-store containers-storage --from"),
        ("empty", "no store of strate"),
        ("gone", "No such file"),
    ] {
        let (opened, said) = notices(&[path(name), path("good")]);
        assert_eq!((opened, said.len()), (1, 1), "{name}: {said:?}");
        assert!(said[0].contains(part) && said[0].contains(name), "{said:?}");
    }
}
