use super::*;
use crate::oci::Reference;
use crate::registry::Action;
use crate::registry::places::Place;

fn registries(text: &str) -> (tempfile::TempDir, Result<Registries, Error>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registries.conf");
    std::fs::write(&path, text).unwrap();
    let mut settings = Settings::default();
    settings.env.insert("CONTAINERS_REGISTRIES_CONF".into(), path.to_str().unwrap().into());
    (dir, Registries::load(&settings))
}

fn names(registries: &Registries, reference: &str, action: Action) -> Vec<String> {
    let reference = Reference::parse(reference).unwrap();
    let show = |p: &Place| format!("{}/{}{}", p.registry, p.repository, if p.insecure { "!" } else { "" });
    registries.places(&reference, action).unwrap().iter().map(show).collect()
}

const CONF: &str = r#"
    unqualified-search-registries = ["quay.io"]
    [[registry]]
    prefix = "docker.io"
    location = "docker.io"
    [[registry.mirror]]
    location = "mirror.example/hub"
    [[registry.mirror]]
    location = "10.0.0.1:5000"
    insecure = true
    pull-from-mirror = "digest-only"
    [[registry]]
    prefix = "docker.io/blocked"
    blocked = true
    [[registry]]
    prefix = "*.internal.example"
    insecure = true
    [[registry]]
    location = "lab:5000"
    insecure = true
"#;

#[test]
fn mirrors_come_first_for_pulls_only() {
    let (_dir, registries) = registries(CONF);
    let registries = registries.unwrap();
    let all = ["mirror.example/hub/library/alpine", "docker.io/library/alpine"];
    assert_eq!(names(&registries, "alpine", Action::Pull), all);
    assert_eq!(names(&registries, "alpine", Action::Push), all[1..]);
    let pinned = format!("alpine@{}", crate::oci::Digest::sha256("x"));
    assert_eq!(names(&registries, &pinned, Action::Pull).len(), 3);
    assert_eq!(names(&registries, "a.internal.example:5000/x", Action::Pull), ["a.internal.example:5000/x!"]);
    assert_eq!(names(&registries, "lab:5000/x", Action::Push), ["lab:5000/x!"]);
    assert_eq!(names(&registries, "lab:5001/x", Action::Push), ["lab:5001/x"]);
}

#[test]
fn blocked_and_broken_say_which_file() {
    let (_dir, found) = registries(CONF);
    let (_upper, upper) = registries(&CONF.replace("docker.io/blocked", "Docker.IO/blocked"));
    let shouted = Reference::parse("DOCKER.io/blocked/x").unwrap();
    assert!(matches!(upper.unwrap().places(&shouted, Action::Pull), Err(Error::Blocked { .. })));
    let blocked = Reference::parse("docker.io/blocked/x").unwrap();
    assert!(matches!(found.unwrap().places(&blocked, Action::Pull), Err(Error::Blocked { .. })));
    let (_dir, broken) = registries("registry = 5");
    assert!(matches!(broken, Err(Error::Config { .. })));
}

#[test]
fn names_are_rewritten_for_pulls_only() {
    let conf = r#"
        [[registry]]
        prefix = "example.com/foo"
        location = "internal.example/bar/"
        [[registry]]
        prefix = "*.cluster.example"
        location = "gate.example"
        [[registry]]
        prefix = "a.example/x:1"
        location = "b.example/y:1"
        [[registry]]
        prefix = "hub.example"
        location = "docker.io"
    "#;
    let (_dir, registries) = registries(conf);
    let registries = registries.unwrap();
    for (name, pulled) in [
        ("example.com/foo/img", "internal.example/bar/img"),
        ("example.com/foo", "internal.example/bar"),
        ("example.com/food/img", "example.com/food/img"),
        ("n1.cluster.example/img", "gate.example/img"),
        ("n1.cluster.example:5000/img", "gate.example:5000/img"),
        ("cluster.example/img", "cluster.example/img"),
        ("a.example/x:1", "b.example/y"),
        ("a.example/x:2", "a.example/x"),
        ("hub.example/alpine", "docker.io/library/alpine"),
    ] {
        assert_eq!(names(&registries, name, Action::Pull), [pulled], "{name}");
        let own = name.trim_end_matches(":1").trim_end_matches(":2");
        assert_eq!(names(&registries, name, Action::Push), [own], "{name}");
    }
}

#[test]
fn pull_from_mirror_says_which_images_a_mirror_is_asked_for() {
    let conf = |by_digest: bool| {
        format!(
            "[[registry]]\nlocation = \"r.example\"\nmirror-by-digest-only = {by_digest}\n\
             [[registry.mirror]]\nlocation = \"any.example\"\n{}",
            if by_digest {
                ""
            } else {
                "[[registry.mirror]]\nlocation = \"tag.example\"\npull-from-mirror = \"tag-only\"\n\
                 [[registry.mirror]]\nlocation = \"digest.example\"\npull-from-mirror = \"digest-only\"\n"
            }
        )
    };
    let pinned = format!("r.example/a@{}", crate::oci::Digest::sha256("x"));
    let (_dir, found) = registries(&conf(false));
    let found = found.unwrap();
    let own = "r.example/a";
    assert_eq!(names(&found, "r.example/a", Action::Pull), ["any.example/a", "tag.example/a", own]);
    assert_eq!(names(&found, &pinned, Action::Pull), ["any.example/a", "digest.example/a", own]);
    let (_dir, found) = registries(&conf(true));
    let found = found.unwrap();
    assert_eq!(names(&found, "r.example/a", Action::Pull), [own]);
    assert_eq!(names(&found, &pinned, Action::Pull), ["any.example/a", own]);
}

#[test]
fn what_contradicts_itself_is_refused_and_what_is_new_is_passed_over() {
    for (conf, word) in [
        ("[registries.search]\nregistries = ['a.example']", "version 1"),
        ("[[registry]]\nlocation = \"https://a.example\"", "https://"),
        ("[[registry]]\ninsecure = true", "neither"),
        ("[[registry]]\nlocation = \"a.example\"\n[[registry.mirror]]\ninsecure = true", "location"),
        ("short-name-mode = \"strict\"", "short-name-mode"),
        (
            "[[registry]]\nlocation = \"a.example\"\n[[registry.mirror]]\nlocation = \"b.example\"\n\
             pull-from-mirror = \"sometimes\"",
            "not a valid",
        ),
        (
            "[[registry]]\nlocation = \"a.example\"\nmirror-by-digest-only = true\n[[registry.mirror]]\n\
             location = \"b.example\"\npull-from-mirror = \"all\"",
            "together",
        ),
    ] {
        let (_dir, found) = registries(conf);
        let error = found.unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("registries.conf"), "{error}");
    }
    let (_dir, found) =
        registries("some-new-key = 1\n[[registry]]\nlocation = \"a.example\"\nnew = [1]\n[new]\nx = 1");
    assert_eq!(found.unwrap().entries.len(), 1);
}

fn settings_in(home: &Path) -> Settings {
    Settings { home: Some(home.to_owned()), uid: Some(1), ..Settings::default() }
}

#[test]
fn drop_ins_come_after_the_users_file_and_the_cache_of_short_names_last() {
    let dir = tempfile::tempdir().unwrap();
    let containers = dir.path().join(".config/containers");
    std::fs::create_dir_all(containers.join("registries.conf.d")).unwrap();
    let write = |path: &str, text: &str| std::fs::write(dir.path().join(path), text).unwrap();
    write(
        ".config/containers/registries.conf",
        "unqualified-search-registries = ['a.example']\n[aliases]\none = 'a.example/one'\ntwo = 'a.example/two'\n\
         three = 'a.example/three'\n[[registry]]\nlocation = 'r.example'",
    );
    write(".config/containers/registries.conf.d/20.conf", "[aliases]\ntwo = ''\nthree = 'b.example/three'");
    write(
        ".config/containers/registries.conf.d/10.conf",
        "credential-helpers = ['x']\n[aliases]\ntwo = 'c.example/two'\nthree = 'c.example/three'\n[[registry]]\n\
         location = 'r.example'\nblocked = true",
    );
    write(".config/containers/registries.conf.d/30.txt", "broken");
    std::fs::create_dir_all(dir.path().join(".cache/containers")).unwrap();
    write(".cache/containers/short-name-aliases.conf", "[aliases]\none = 'd.example/one'");
    let found = Registries::load(&settings_in(dir.path())).unwrap();
    let alias = |name: &str| found.aliases.get(name).map(|(value, _)| value.as_str());
    assert_eq!(alias("one"), Some("d.example/one"));
    assert_eq!((alias("two"), alias("three")), (None, Some("b.example/three")));
    assert_eq!(found.search.as_ref().unwrap().0, ["a.example"]);
    assert_eq!(found.helpers.as_ref().unwrap().0, ["x"]);
    let own: Vec<_> = found.entries.iter().filter(|d| d.entry.prefix == "r.example").collect();
    assert!(own.len() == 1 && own[0].entry.blocked);
}

#[test]
fn mirrors_of_the_command_come_first_and_those_of_dockerd_serve_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join(".config/docker")).unwrap();
    std::fs::create_dir_all(dir.path().join(".config/containers")).unwrap();
    let daemon =
        r#"{"registry-mirrors": ["https://d.example"], "insecure-registries": ["lab:5000"], "x": 1}"#;
    std::fs::write(dir.path().join(".config/docker/daemon.json"), daemon).unwrap();
    let conf = dir.path().join(".config/containers/registries.conf");
    std::fs::write(&conf, "").unwrap();
    let mut settings = settings_in(dir.path());
    let load = |settings: &Settings| Registries::load(settings).unwrap();
    let own = "docker.io/library/alpine";
    assert_eq!(names(&load(&settings), "alpine", Action::Pull), ["d.example/library/alpine", own]);
    assert_eq!(names(&load(&settings), "lab:5000/x", Action::Push), ["lab:5000/x!"]);
    settings.env.insert("STRATE_REGISTRY_MIRROR".into(), "http://m.example,quay.io=m.example/q".into());
    let all = ["m.example/library/alpine!", "d.example/library/alpine", own];
    assert_eq!(names(&load(&settings), "alpine", Action::Pull), all);
    assert_eq!(names(&load(&settings), "alpine", Action::Push), [own]);
    assert_eq!(names(&load(&settings), "quay.io/a/b", Action::Pull), ["m.example/q/a/b", "quay.io/a/b"]);
    let text = "[[registry]]\nlocation = 'docker.io'\n[[registry.mirror]]\nlocation = 'c.example'";
    std::fs::write(&conf, text).unwrap();
    let all = ["m.example/library/alpine!", "c.example/library/alpine", own];
    assert_eq!(names(&load(&settings), "alpine", Action::Pull), all);
    std::fs::write(dir.path().join(".config/docker/daemon.json"), "{broken").unwrap();
    assert_eq!(load(&settings).notes.len(), 1);
}
