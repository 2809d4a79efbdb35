//! Registries that lie or attack, between the binary and what it asks: the right image or a clear error in bounded time
//! and memory, never a wrong blob in the store, and never a credential at another origin. Names begin with the attack.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::registry_faults::{is_large, no_wrong_blob, pull, sized, whole};
use crate::support::fake::{OCI_INDEX, OCI_LAYER, OCI_MANIFEST, digest};
use crate::support::{Env, Fake, FakeLayer, Fault, Proxy, Seen};

#[test]
fn security_r7_no_registry_makes_us_wait_for_ever() {
    for (status, after) in
        [(429, "1000000000"), (503, "99999999999999999999"), (503, "Fri, 31 Dec 2199 23:59:59 GMT")]
    {
        let proxy = Fake::small().serve_with(move |_| Fault::reply(status, &[("Retry-After", after)], ""));
        let start = Instant::now();
        let output = pull(&Env::new(), &proxy.image("x")).code(1);
        assert!(start.elapsed() < Duration::from_secs(5));
        output.stderr_has("too long to wait");
        assert!(proxy.log().len() <= 3, "{:?}", proxy.log());
    }
    // 503 and 401 for ever.
    let proxy = Fake::small().serve_with(|_| Fault::reply(503, &[], ""));
    pull(&Env::new(), &proxy.image("x")).code(1).stderr_has("HTTP 503");
    assert!(proxy.log().len() <= 10);
    let proxy = Fake::small().serve_with(|_| Fault::reply(401, &[("WWW-Authenticate", "Basic realm=x")], ""));
    let env = Env::new();
    env.run(["pull", "-q", "--creds", "a:b", &proxy.image("x")]).code(1).stderr_has("refused to pull");
    assert!(proxy.log().len() <= 6, "{:?}", proxy.log());
}

#[test]
fn security_m1_m2_wrong_bytes_and_lengths_never_become_a_blob() {
    type Pick = fn(&Seen) -> bool;
    fn layer_digest() -> &'static str {
        static DIGEST: std::sync::LazyLock<String> =
            std::sync::LazyLock::new(|| digest(&FakeLayer::gzip(&[("hello", b"hello\n")]).blob));
        &DIGEST
    }
    let manifest: Pick = |seen| seen.is_manifest() && seen.method == "GET";
    let config: Pick = |seen| seen.is_blob() && !seen.target.ends_with(layer_digest());
    let layer: Pick = |seen| seen.is_blob() && seen.target.ends_with(layer_digest());
    for (which, pick) in [("manifest", manifest), ("config", config), ("layer", layer)] {
        for fault in [Fault::Flip(40), Fault::Length(-10), Fault::Length(10), Fault::Endless] {
            let spoil = fault.clone();
            let proxy =
                Fake::small().serve_with(move |seen| if pick(seen) { spoil.clone() } else { Fault::Pass });
            let env = Env::new();
            let start = Instant::now();
            let output =
                env.run(["pull", "-q", "--retry-delay", "1ms", "--retry", "1", &proxy.image("x")]).code(1);
            assert!(start.elapsed() < Duration::from_secs(9), "{which} {fault:?}: {output}");
            no_wrong_blob(&env);
        }
    }
}

#[test]
fn security_m2_sizes_that_cannot_be_are_refused_before_a_byte() {
    for (size, word) in [
        (json!(9_223_372_036_854_775_807_u64), "not enough space"),
        (json!(1_u64 << 60), "not enough space"),
        (json!(-1), "manifest"),
        (json!("10"), "manifest"),
        (json!(1.5), "manifest"),
    ] {
        let mut fake = Fake::default();
        fake.image_with("latest", &[FakeLayer::gzip(&[("a", b"b")])], |manifest, _| {
            manifest["layers"][0]["size"] = size.clone();
        });
        let registry = fake.serve();
        let env = Env::new();
        pull(&env, &registry.image("x")).code(1).stderr_has(word);
        assert!(registry.count(Seen::is_blob) <= 1, "{size}: {:?}", registry.log());
        no_wrong_blob(&env);
    }
}

#[test]
fn security_m3_giants_are_refused_in_bounded_memory_and_time() {
    let config =
        json!({"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(b"{}"), "size": 2});
    let layer = json!({"mediaType": OCI_LAYER, "digest": digest(b"x"), "size": 1});
    let text = |layers: usize| {
        let layers = vec![layer.to_string(); layers].join(",");
        format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_MANIFEST}","config":{config},"layers":[{layers}]}}"#)
    };
    let deep = format!(r#"{{"schemaVersion":2,"layers":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let entry = json!({"mediaType": OCI_MANIFEST, "digest": digest(b"x"), "size": 1}).to_string();
    let entries = vec![entry; 20_000].join(",");
    let index = format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{entries}]}}"#);
    let twice = text(1).replacen(r#""schemaVersion":2,"#, r#""schemaVersion":2,"schemaVersion":1,"#, 1);
    for (what, kind, body) in [
        ("30 MB", OCI_MANIFEST, vec![b' '; 30_000_000]),
        ("many layers", OCI_MANIFEST, text(20_000).into_bytes()),
        ("deep", OCI_MANIFEST, deep.into_bytes()),
        ("many entries", OCI_INDEX, index.into_bytes()),
        ("duplicate keys", OCI_MANIFEST, twice.into_bytes()),
        ("byte order mark", OCI_MANIFEST, format!("\u{feff}{}", text(1)).into_bytes()),
        ("trailing data", OCI_MANIFEST, format!("{}x", text(1)).into_bytes()),
    ] {
        let mut fake = Fake::default();
        fake.blob("application/vnd.oci.image.config.v1+json", "{}");
        fake.raw_manifest("latest", kind, body);
        let registry = fake.serve();
        let env = Env::new();
        let start = Instant::now();
        let output = pull(&env, &registry.image("x")).code(1);
        assert!(start.elapsed() < Duration::from_secs(8), "{what}: {output}");
        assert!(output.stderr.len() < 3000, "{what}: {output}");
        no_wrong_blob(&env);
    }
}

#[test]
fn security_m4_contradictions_are_refused() {
    let mut both = Fake::default();
    both.image_with("latest", &[FakeLayer::gzip(&[("a", b"b")])], |manifest, _| {
        manifest["manifests"] = json!([]);
    });
    let mut sent = Fake::small();
    let (_, bytes) = ("", json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).to_string());
    sent.raw_manifest("latest", OCI_MANIFEST, bytes.into_bytes());
    for fake in [both, sent] {
        let env = Env::new();
        pull(&env, &fake.serve().image("x")).code(1);
        no_wrong_blob(&env);
    }
    // No type anywhere: the shape decides.
    let mut plain = Fake::default();
    plain.image_with("latest", &[FakeLayer::gzip(&[("a", b"b")])], |manifest, _| {
        manifest.as_object_mut().unwrap().remove("mediaType");
    });
    let proxy = plain.serve_with(|seen| match seen.is_manifest() {
        true => Fault::Header("content-type", "application/json".into()),
        false => Fault::Pass,
    });
    pull(&Env::new(), &proxy.image("x")).success();
}

#[test]
fn security_m5_indexes_in_circles_and_without_platforms() {
    let mut nested = Fake::small();
    let inner = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []});
    let mut child = nested.manifest("inner", OCI_INDEX, &inner);
    child["platform"] = json!({"os": "linux", "architecture": "amd64"});
    nested.manifest(
        "latest",
        OCI_INDEX,
        &json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}),
    );
    let registry = nested.serve();
    for flag in ["--platform=linux/amd64", "--all-platforms"] {
        let env = Env::new();
        env.run(["pull", flag, &registry.image("x")]).code(1).stderr_has("index");
        no_wrong_blob(&env);
    }
    let mut none = Fake::default();
    let unknown = json!({"os": "unknown", "architecture": "unknown"});
    let entry = json!({"mediaType": OCI_MANIFEST, "digest": digest(b"x"), "size": 1, "platform": unknown});
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry.clone(), entry]});
    none.manifest("latest", OCI_INDEX, &index);
    pull(&Env::new(), &none.serve().image("x")).code(1).stderr_has("no image for platform");
}

#[test]
fn security_m6_digests_that_are_none_never_become_a_path() {
    let hex = "a".repeat(64);
    for bad in [
        "sha256:../../../../etc/passwd".to_owned(),
        format!("sha256:{}", "A".repeat(64)),
        format!("sha256:{}", &hex[1..]),
        format!("md5:{}", &hex[..32]),
        format!("sha256/x:{hex}"),
        format!("sha256:{hex}/../x"),
        String::new(),
    ] {
        let mut fake = Fake::default();
        fake.image_with("latest", &[FakeLayer::gzip(&[("a", b"b")])], |manifest, _| {
            manifest["layers"][0]["digest"] = json!(bad);
        });
        let registry = fake.serve();
        let env = Env::new();
        pull(&env, &registry.image("x")).code(1);
        assert!(registry.log().iter().all(|line| !line.contains("..")), "{:?}", registry.log());
        no_wrong_blob(&env);
    }
}

#[test]
fn security_m7_names_that_are_none_are_refused_before_a_request() {
    let long = format!("x:{}", "a".repeat(300));
    for bad in
        ["a/../b", "a:..", "..:tag", &long, "host:99999/x", "-flag", "Upper/x", "x@sha256:abc", "a//b", ""]
    {
        let env = Env::new();
        let output = env.run(["pull", "--", bad]);
        assert!([1, 2].contains(&output.code), "{bad}: {output}");
        assert!(!output.stderr.contains("cannot reach"), "{bad}: {output}");
    }
}

#[test]
fn security_m8_a_config_that_lies_about_its_layers() {
    type Edit = fn(&mut serde_json::Value);
    let more: Edit = |config| config["rootfs"]["diff_ids"] = json!([digest(b"a"), digest(b"b")]);
    let other: Edit = |config| config["rootfs"]["diff_ids"] = json!([digest(b"a")]);
    let none: Edit = |config| config["rootfs"] = json!({"type": "layers"});
    for edit in [more, other, none] {
        let mut fake = Fake::default();
        fake.image_with("latest", &[FakeLayer::gzip(&[("a", b"b")])], |_, config| edit(config));
        let env = Env::new();
        pull(&env, &fake.serve().image("x")).code(1);
        no_wrong_blob(&env);
    }
    // A config larger than any is refused by its size.
    let mut fake = Fake::default();
    fake.image_with("latest", &[FakeLayer::gzip(&[("a", b"b")])], |_, config| {
        config["config"]["Env"] = json!(["A=".to_owned() + &"x".repeat(5 << 20)]);
    });
    pull(&Env::new(), &fake.serve().image("x")).code(1).stderr_has("larger than 4 MiB");
}

#[test]
fn security_r1_credentials_stay_through_redirects_and_odd_ones_are_refused() {
    let elsewhere = Fake::small().serve();
    let host = elsewhere.host();
    let proxy = Fake::small().serve_with(move |seen| match seen.header("authorization") {
        None => Fault::reply(401, &[("WWW-Authenticate", "Basic realm=x")], ""),
        Some(_) if seen.is_blob() => {
            Fault::reply(307, &[("Location", &format!("http://{host}{}", seen.target))], "")
        }
        Some(_) => Fault::Pass,
    });
    let env = Env::new();
    env.run(["pull", "-q", "--creds", "bob:hunter2", &proxy.image("x")]).success();
    assert_eq!(elsewhere.seen().len(), 2);
    assert!(elsewhere.seen().iter().all(|seen| seen.header("authorization").is_none()));
    for to in [
        "file:///etc/passwd",
        "unix:/run/x.sock",
        "gopher://127.0.0.1/",
        "http://u:p@127.0.0.1/x",
        "\u{1}",
        "",
    ] {
        let proxy = Fake::small().serve_with(move |seen| match seen.is_blob() {
            true => Fault::reply(302, &[("Location", to)], ""),
            false => Fault::Pass,
        });
        let env = Env::new();
        pull(&env, &proxy.image("x")).code(1).stderr_lacks("\u{1}");
        no_wrong_blob(&env);
    }
    let proxy = Fake::small().serve_with(|seen| match seen.is_blob() {
        true => Fault::reply(302, &[("Location", &format!("{}?again", seen.target))], ""),
        false => Fault::Pass,
    });
    pull(&Env::new(), &proxy.image("x")).code(1).stderr_has("too many redirects");
}

#[test]
fn security_r2_token_servers_that_attack() {
    for (realm, answer) in [
        ("http://192.0.2.1/token", None),
        ("gopher://x/", None),
        ("http://169.254.169.254/token", None),
        ("HOST", Some(vec![b'x'; 3 << 20])),
        ("HOST", Some(b"not json".to_vec())),
        ("HOST", Some(br#"{"token":"a\r\nX-Evil: 1"}"#.to_vec())),
        ("HOST", Some(br#"{"token":""}"#.to_vec())),
    ] {
        let body = answer.clone().unwrap_or_default();
        let tokens = Proxy::start("", move |_| Fault::reply(200, &[], body.clone()));
        let realm = match realm {
            "HOST" => format!("http://{}/t", tokens.host()),
            other => other.to_owned(),
        };
        let challenge = format!("Bearer realm=\"{realm}\",service=\"r\"");
        let proxy =
            Fake::small().serve_with(move |_| Fault::reply(401, &[("WWW-Authenticate", &challenge)], ""));
        let env = Env::new();
        let start = Instant::now();
        let output =
            env.run(["pull", "-q", "--retry", "0", "--creds", "bob:hunter2", &proxy.image("x")]).code(1);
        assert!(start.elapsed() < Duration::from_secs(8), "{realm}: {output}");
        assert!(proxy.seen().iter().all(|seen| seen.header("x-evil").is_none()));
        output.stderr_lacks("hunter2");
    }
}

#[test]
fn security_r5_bodies_and_headers_without_end() {
    let endless_head =
        b"HTTP/1.1 200 OK\r\n".iter().copied().chain(b"X-A: b\r\n".repeat(200_000)).collect::<Vec<u8>>();
    let continues = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100_000);
    for raw in [
        endless_head,
        continues,
        b"\0\0\0garbage".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n".to_vec(),
    ] {
        let proxy = Fake::small().serve_with(move |_| Fault::Raw(raw.clone()));
        let env = Env::new();
        let start = Instant::now();
        let args = ["pull", "-q", "--retry", "0", "--stall-timeout", "1s", &proxy.image("x")];
        let output = env.run(args).code(1);
        assert!(start.elapsed() < Duration::from_secs(9), "{output}");
        assert!(output.stderr.len() < 3000, "{output}");
    }
    // Compression on top of a layer is not ours to undo: the bytes are then wrong.
    let proxy = Fake::small().serve_with(|seen| match is_large(seen) {
        true => Fault::Header("content-encoding", "gzip".into()),
        false => Fault::Pass,
    });
    let env = Env::new();
    if pull(&env, &proxy.image("x")).code == 0 {
        whole(&env, &proxy.image("x"));
    } else {
        no_wrong_blob(&env);
    }
}

#[test]
fn security_r6_parts_that_do_not_fit_make_it_one_stream() {
    type Spoil = fn(usize) -> Fault;
    let ignored: Spoil = |_| Fault::NoRange;
    let flipped: Spoil = |n| if n == 2 { Fault::Flip(1000) } else { Fault::Pass };
    // Parts are worth it where they come slowly.
    let slow = || Fault::Slow(1 << 20, Duration::from_millis(10));
    let none: Spoil = |_| Fault::Pass;
    let fake = sized(5, 34_000_000);
    for (i, spoil) in [none, ignored, flipped].into_iter().enumerate() {
        let parts = AtomicUsize::new(0);
        let proxy = fake.clone().serve_with(move |seen| match seen.header("range") {
            Some(range) if !range.ends_with('-') => match parts.fetch_add(1, Ordering::SeqCst) {
                0 if i != 1 => slow(),
                n => spoil(n),
            },
            _ => Fault::Pass,
        });
        let env = Env::new();
        pull(&env, &proxy.image("x")).success();
        whole(&env, &proxy.image("x"));
        let ranges = proxy.count(|seen| seen.header("range").is_some());
        match i {
            0 => assert_eq!(ranges, 9, "{:?}", proxy.log()),
            1 => assert_eq!(ranges, 1, "{:?}", proxy.log()),
            _ => assert!(ranges > 1),
        }
    }
}

#[test]
fn security_r9_headers_that_differ_from_the_body() {
    let other = digest(b"other");
    let proxy = Fake::small().serve_with(move |seen| match seen.is_manifest() {
        true => Fault::Header("docker-content-digest", other.clone()),
        false => Fault::Pass,
    });
    let env = Env::new();
    pull(&env, &proxy.image("x")).code(1);
    no_wrong_blob(&env);
    // By digest the header does not matter, only the bytes.
    let mut fake = Fake::small();
    let wanted =
        fake.image("other", &[FakeLayer::gzip(&[("o", b"o")])])["digest"].as_str().unwrap().to_owned();
    let swapped = fake.serve_with(|seen| match seen.is_manifest() && seen.method == "GET" {
        true => Fault::reply(200, &[("Content-Type", OCI_MANIFEST)], r#"{"schemaVersion":2,"layers":[]}"#),
        false => Fault::Pass,
    });
    let env = Env::new();
    pull(&env, &swapped.image(&format!("x@{wanted}"))).code(1).stderr_has("wrong bytes");
    no_wrong_blob(&env);
}

/// A registries.conf with a mirror for a registry.
fn mirrored(env: Env, origin: &Proxy, mirror: &Proxy) -> Env {
    let conf = env.write(
        "registries.conf",
        format!(
            "[[registry]]\nlocation = \"{}\"\ninsecure = true\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
            origin.host(),
            mirror.host()
        ),
    );
    env.with("CONTAINERS_REGISTRIES_CONF", conf)
}

#[test]
fn security_r10_a_mirror_that_lies_or_breaks_is_left_and_sees_no_credentials() {
    type Spoil = fn(&Seen) -> Fault;
    let wrong: Spoil = |seen| if is_large(seen) { Fault::Flip(100) } else { Fault::Pass };
    let config: Spoil = |seen| if seen.is_blob() { Fault::Flip(10) } else { Fault::Pass };
    let cut: Spoil = |seen| if is_large(seen) { Fault::Cut(1000) } else { Fault::Pass };
    let gone: Spoil = |seen| if seen.is_blob() { Fault::reply(404, &[], "") } else { Fault::Pass };
    let down: Spoil = |_| Fault::reply(503, &[], "");
    let manifest: Spoil =
        |seen| if seen.is_manifest() && seen.method == "GET" { Fault::Flip(20) } else { Fault::Pass };
    for (i, spoil) in [wrong, config, cut, gone, down, manifest].into_iter().enumerate() {
        let fake = sized(6, 200_000);
        let mirror = fake.clone().serve_with(spoil);
        let origin = fake.serve_with(|seen| match seen.header("authorization") {
            None => Fault::reply(401, &[("WWW-Authenticate", "Basic realm=x")], ""),
            Some(_) => Fault::Pass,
        });
        let env = Env::new();
        let auth = json!({"auths": {origin.host(): {"auth": "Ym9iOmh1bnRlcjI="}}});
        let auth = env.write("auth.json", auth.to_string());
        let env = mirrored(env, &origin, &mirror).with("REGISTRY_AUTH_FILE", auth);
        let output = env.run(["pull", "--retry-delay", "1ms", &origin.image("x")]).success();
        whole(&env, &origin.image("x"));
        output.stderr_has("going on with");
        assert!(mirror.seen().iter().all(|seen| seen.header("authorization").is_none()), "{i}");
        assert!(origin.count(|seen| seen.header("authorization").is_some()) > 0, "{i}");
    }
}

#[test]
fn security_r12_error_bodies_cannot_steer_a_terminal() {
    let noise = "\u{1b}]52;c;evil\u{7}\u{1b}[2J\u{202e}".repeat(500_000);
    for body in [json!({"errors": [{"code": noise, "message": noise}]}).to_string(), noise.clone()] {
        let proxy = Fake::small().serve_with(move |_| Fault::reply(400, &[], body.clone()));
        let output = pull(&Env::new(), &proxy.image("x")).code(1);
        assert!(!output.stderr.contains('\u{1b}') && !output.stderr.contains('\u{202e}'), "{output}");
        assert!(output.stderr.len() < 3000, "{output}");
    }
}
