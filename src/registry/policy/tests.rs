use super::*;
use crate::oci::Digest;

fn policy(text: &str) -> Result<Policy, Error> {
    Policy::parse(Path::new("/policy.json"), text)
}

const ACCEPT: &str = r#"[{"type": "insecureAcceptAnything"}]"#;
const REJECT: &str = r#"[{"type": "reject"}]"#;

#[test]
fn the_most_specific_scope_wins() {
    let scoped = |scopes: &[&str]| {
        let list: Vec<String> = scopes.iter().map(|scope| format!("\"{scope}\": {ACCEPT}")).collect();
        format!("{{\"default\": {REJECT}, \"transports\": {{\"docker\": {{{}}}}}}}", list.join(", "))
    };
    let digest = Digest::sha256("x");
    for (scopes, image, found) in [
        (&["r.example"][..], "r.example/a/b", "docker `r.example`"),
        (&["r.example", "r.example/a"], "r.example/a/b", "docker `r.example/a`"),
        (&["r.example/a", "r.example/a/b:1"], "r.example/a/b:1", "docker `r.example/a/b:1`"),
        (&["r.example/a"], "r.example/ab", "default"),
        (&["r.example"], "r.example:5000/a", "default"),
        (&["*.example"], "r.example:5000/a", "docker `*.example`"),
        (&["*.example", "*.r.example"], "x.r.example/a", "docker `*.r.example`"),
        (&["*.r.example"], "r.example/a", "default"),
        (&["docker.io/library/busybox"], "busybox", "docker `docker.io/library/busybox`"),
        (&["R.Example/a"], "r.EXAMPLE/a/b", "docker `r.example/a`"),
        (&["*.Example"], "R.example/a", "docker `*.example`"),
        (&[""], "busybox", "all of docker"),
        (&["r.example/a"], &format!("r.example/a@{digest}"), "docker `r.example/a`"),
    ] {
        let policy = policy(&scoped(scopes)).unwrap();
        assert_eq!(policy.for_registry(&Reference::parse(image).unwrap()).scope, found, "{image}");
    }
    let text = format!(
        "{{\"default\": {REJECT}, \"transports\": {{\"oci\": {{\"/a/b\": {ACCEPT}, \"/a/b/c:t\": {REJECT}}}}}}}"
    );
    let policy = policy(&text).unwrap();
    for (path, name, found) in
        [("/a/b/c", None, "oci `/a/b`"), ("/a/b/c", Some("t"), "oci `/a/b/c:t`"), ("/a/bb", None, "default")]
    {
        assert_eq!(policy.for_path("oci", Path::new(path), name).scope, found);
    }
}

#[test]
fn a_file_that_is_not_strictly_right_is_refused_whole() {
    for text in [
        "{}",
        "{\"default\": []}",
        "{\"default\": [{\"type\": \"insecureAcceptAnything\", \"x\": 1}]}",
        "{\"default\": [{\"type\": \"unheardOf\"}]}",
        "{\"default\": [{\"type\": \"reject\"}], \"extra\": 1}",
        "{\"default\": [{\"type\": \"reject\"}], \"default\": [{\"type\": \"reject\"}]}",
        "{\"default\": [{\"type\": \"reject\"}], \"transports\": {\"docker\": {\"a\": [{\"type\": \"reject\"}], \"a\": [{\"type\": \"reject\"}]}}}",
        "{\"default\": [{\"type\": \"reject\"}], \"transports\": {\"dir\": {\"/\": [{\"type\": \"reject\"}]}}}",
        "{\"default\": [{\"type\": \"reject\"}], \"transports\": {\"dir\": {\"/a/../b\": [{\"type\": \"reject\"}]}}}",
        "{\"default\": [{\"type\": \"sigstoreSigned\", \"keyPath\": \"/k\", \"unknown\": 1}]}",
        "{\"default\": [{\"type\": \"signedBy\", \"keyType\": \"GPGKeys\", \"keyPath\": \"/k\", \"signedIdentity\": {\"type\": \"matchAny\"}}]}",
    ] {
        assert!(matches!(policy(text), Err(Error::Config { .. })), "{text}");
    }
}

#[test]
fn a_signature_is_for_a_name() {
    let identity = |text: &str| serde_json::from_str::<Identity>(text).unwrap();
    let by_default = identity(r#"{"type": "matchRepoDigestOrExact"}"#);
    let exact = identity(r#"{"type": "matchExact"}"#);
    let repository = identity(r#"{"type": "matchRepository"}"#);
    let remap = identity(
        r#"{"type": "remapIdentity", "prefix": "mirror.example/v", "signedPrefix": "vendor.example"}"#,
    );
    let reference = identity(r#"{"type": "exactReference", "dockerReference": "v.example/a:1"}"#);
    let other = identity(r#"{"type": "exactRepository", "dockerRepository": "v.example/a"}"#);
    let pinned = format!("r.example/a@{}", Digest::sha256("x"));
    for (identity, image, signed, good) in [
        (&by_default, "r.example/a:1", "r.example/a:1", true),
        (&by_default, "r.example/a:1", "r.example/a:2", false),
        (&by_default, "r.example/a:1", "r.example/a", false),
        (&by_default, "r.example/a", "r.example/a", false),
        (&by_default, &pinned, "r.example/a:7", true),
        (&by_default, &pinned, "r.example/b:7", false),
        (&by_default, "busybox", "busybox:latest", true),
        (&exact, "r.example/a:1", "r.example/a:1", true),
        (&exact, &pinned, "r.example/a:1", false),
        (&repository, "r.example/a:1", "r.example/a", true),
        (&repository, "r.example/a:1", "r.example/a:9", true),
        (&repository, "r.example/a:1", "r.example/ab", false),
        (&remap, "mirror.example/v/x/a:1", "vendor.example/x/a:1", true),
        (&remap, "mirror.example/v/x/a:1", "mirror.example/v/x/a:1", false),
        (&remap, "r.example/a:1", "r.example/a:1", true),
        (&reference, "r.example/z:9", "v.example/a:1", true),
        (&reference, "r.example/z:9", "v.example/a:2", false),
        (&other, "r.example/z:9", "v.example/a:2", true),
        (&other, "r.example/z:9", "v.example/b", false),
        (&repository, "r.example/a:1", "NOT A NAME", false),
    ] {
        let image = Reference::parse(image).unwrap();
        assert_eq!(identity.accepts(&image, signed), good, "{identity:?} {image} {signed}");
    }
}

#[test]
fn files_and_directories_are_let_in_by_their_path() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.json");
    let real = std::fs::canonicalize(dir.path()).unwrap();
    let text = format!(
        "{{\"default\": {ACCEPT}, \"transports\": {{\"oci\": {{\"\": {REJECT}, \"{0}/good\": {ACCEPT}}}, \
         \"docker-archive\": {{\"\": [{{\"type\": \"sigstoreSigned\", \"keyPath\": \"/k\"}}]}}}}}}",
        real.display()
    );
    std::fs::write(&path, text).unwrap();
    let mut settings = Settings::default();
    settings.env.insert(VARIABLE.into(), path.display().to_string());
    std::fs::create_dir(dir.path().join("good")).unwrap();
    std::os::unix::fs::symlink(dir.path().join("good"), dir.path().join("link")).unwrap();
    for (location, good) in [
        (format!("oci:{}/good", dir.path().display()), true),
        (format!("oci:{}/link:tag", dir.path().display()), true),
        (format!("oci:{}/bad", dir.path().display()), false),
        ("docker-archive:/x.tar".into(), false),
        ("oci-archive:/x.tar".into(), true),
        ("dir:/x".into(), true),
        ("docker://r.example/a".into(), true),
    ] {
        let parsed = Location::parse(&location).unwrap();
        assert_eq!(admit_location(&settings, &parsed).is_ok(), good, "{location}");
    }
}
