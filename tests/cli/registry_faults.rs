//! Registries that fail, lie or attack, between the binary and what it asks: the right image or a clear error in bounded
//! time, never a wrong blob in the store, and never a credential at another origin. Names begin with what they are
//! about.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::fake::{self, OCI_INDEX, OCI_LAYER, OCI_MANIFEST, digest, noise};
use crate::support::{Env, Fake, FakeLayer, Fault, Output, Proxy, Seen, eventually, need, shared_registry};

/// The real registry behind a rule.
fn real(rule: impl Fn(&Seen) -> Fault + Send + Sync + 'static) -> Proxy {
    Proxy::start(&shared_registry().host(), rule)
}

/// A pull that does not wait between tries.
fn pull(env: &Env, name: &str) -> Output {
    env.run(["pull", "-q", "--retry-delay", "1ms", name])
}

/// Everything in the store is what its name says, and nothing has a name.
#[track_caller]
fn no_wrong_blob(env: &Env) {
    let blobs = std::fs::read_dir(env.store().join("blobs/sha256")).into_iter().flatten().flatten();
    for blob in blobs {
        let name = blob.file_name().into_string().unwrap();
        assert_eq!(digest(&std::fs::read(blob.path()).unwrap()), format!("sha256:{name}"));
    }
    env.run(["images", "-q"]).success().prints("");
}

/// The image is here, whole: its only layer is unpacked and its blobs are right.
#[track_caller]
fn whole(env: &Env, name: &str) {
    let config = env.run(["inspect", "-f", "{{.Id}}", name]).success();
    let blobs = std::fs::read_dir(env.store().join("blobs/sha256")).unwrap().flatten();
    for blob in blobs {
        let name = blob.file_name().into_string().unwrap();
        assert_eq!(digest(&std::fs::read(blob.path()).unwrap()), format!("sha256:{name}"), "{config}");
    }
}

/// An image of one layer of so many random bytes.
fn sized(seed: u64, length: usize) -> Fake {
    let mut fake = Fake::default();
    let tar = fake::tar(&[("data", &noise(seed, length))]);
    fake.image("latest", &[FakeLayer { kind: "application/x-tar".into(), blob: tar.clone(), tar }]);
    fake
}

fn is_large(seen: &Seen) -> bool {
    seen.is_blob() && seen.nth > 2
}

#[test]
fn reliability_48_a_stream_that_is_cut_every_64_kib_goes_on() {
    need!("docker-registry", "skopeo", "busybox");
    let proxy = real(|seen| if seen.is_blob() { Fault::Cut(64 << 10) } else { Fault::Pass });
    let env = Env::new();
    pull(&env, &proxy.image("busybox")).success();
    whole(&env, &proxy.image("busybox"));
    // Each byte once: what came before a cut was kept.
    let bytes: u64 = proxy.seen().iter().filter(|seen| seen.is_blob()).map(|seen| seen.got).sum();
    let size = env.run(["image", "inspect", "-f", "{{.Size}}", &proxy.image("busybox")]).success();
    assert!(bytes < 3_000_000, "{bytes} of {size}");
    assert!(proxy.count(|seen| seen.header("range").is_some()) > 10, "{:?}", proxy.log());
}

#[test]
fn reliability_48_silence_in_the_middle_is_left_and_goes_on() {
    let silent = AtomicUsize::new(0);
    let proxy = sized(1, 1 << 20).serve_with(move |seen| {
        match seen.is_blob() && silent.fetch_add(1, Ordering::SeqCst) == 1 {
            true => Fault::Hang(300_000),
            false => Fault::Pass,
        }
    });
    let env = Env::new();
    env.run(["pull", "-q", "--stall-timeout", "300ms", &proxy.image("x")]).success();
    whole(&env, &proxy.image("x"));
    // And one that is always silent ends, by the time that was given.
    let proxy =
        sized(1, 1 << 20).serve_with(|seen| if seen.is_blob() { Fault::Hang(10) } else { Fault::Pass });
    let start = Instant::now();
    let output = Env::new()
        .run(["pull", "-q", "--stall-timeout", "100ms", "--timeout", "1s", &proxy.image("x")])
        .code(1);
    assert!(start.elapsed() < Duration::from_secs(8), "{output}");
}

#[test]
fn a_deadline_ends_what_flows() {
    let proxy = sized(2, 4 << 20).serve_with(|seen| match is_large(seen) {
        true => Fault::Slow(10_000, Duration::from_millis(50)),
        false => Fault::Pass,
    });
    let env = Env::new();
    let start = Instant::now();
    env.run(["pull", "-q", "--timeout", "1s", &proxy.image("x")]).code(1).stderr_has("--timeout");
    assert!(start.elapsed() < Duration::from_secs(5));
    no_wrong_blob(&env);
}

#[test]
fn reliability_49_other_answers_to_a_resume_start_over_and_are_never_spliced() {
    for wrong in [
        Fault::NoRange,
        Fault::Header("content-range", "bytes 5-99/100".into()),
        Fault::Header("content-range", "junk".into()),
        Fault::reply(416, &[], ""),
    ] {
        let cuts = AtomicUsize::new(0);
        let answer = wrong.clone();
        let proxy = sized(3, 1 << 20).serve_with(move |seen| {
            if seen.header("range").is_some() {
                return answer.clone();
            }
            match seen.is_blob() && cuts.fetch_add(1, Ordering::SeqCst) == 1 {
                true => Fault::Cut(500_000),
                false => Fault::Pass,
            }
        });
        let env = Env::new();
        pull(&env, &proxy.image("x")).success();
        whole(&env, &proxy.image("x"));
        assert_eq!(proxy.count(|seen| seen.header("range").is_some()), 1, "{wrong:?}");
    }
}

#[test]
fn reliability_50_limits_and_faults_that_pass_are_waited_out() {
    for busy in [
        Fault::reply(429, &[("Retry-After", "1")], "slow down"),
        Fault::reply(503, &[("Retry-After", "1")], ""),
        Fault::reply(503, &[("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT")], ""),
        Fault::reply(500, &[], "<html>oops</html>"),
        Fault::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
    ] {
        let times = AtomicUsize::new(0);
        let answer = busy.clone();
        let proxy = Fake::small().serve_with(move |seen| {
            match seen.is_blob() && times.fetch_add(1, Ordering::SeqCst) < 1 {
                true => answer.clone(),
                false => Fault::Pass,
            }
        });
        let env = Env::new();
        let start = Instant::now();
        pull(&env, &proxy.image("x")).success();
        let waits =
            matches!(&busy, Fault::Reply { headers, .. } if headers.iter().any(|(_, value)| value == "1"));
        assert!(!waits || start.elapsed() >= Duration::from_secs(1), "{busy:?}");
    }
}

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
fn reliability_50_a_token_that_ends_in_the_middle_of_a_blob_is_renewed() {
    let issued = std::sync::Arc::new(AtomicUsize::new(0));
    let counter = issued.clone();
    let tokens = Proxy::start("", move |_| {
        let n = counter.fetch_add(1, Ordering::SeqCst);
        Fault::reply(200, &[], format!(r#"{{"token":"t{n}","expires_in":300}}"#))
    });
    let realm = format!("Bearer realm=\"http://{}/token\",service=\"r\"", tokens.host());
    let good = AtomicUsize::new(0);
    let blobs = AtomicUsize::new(0);
    let proxy = sized(4, 1 << 20).serve_with(move |seen| {
        if seen.header("authorization") != Some(&format!("Bearer t{}", good.load(Ordering::SeqCst))) {
            return Fault::reply(401, &[("WWW-Authenticate", &realm)], "");
        }
        match seen.is_blob() && blobs.fetch_add(1, Ordering::SeqCst) == 1 {
            true => {
                good.fetch_add(1, Ordering::SeqCst);
                Fault::Cut(400_000)
            }
            false => Fault::Pass,
        }
    });
    let env = Env::new();
    pull(&env, &proxy.image("x")).success();
    whole(&env, &proxy.image("x"));
    assert_eq!(issued.load(Ordering::SeqCst), 2);
    assert_eq!(proxy.count(|seen| seen.header("range").is_some_and(|range| range == "bytes=400000-")), 2);
}

#[test]
fn reliability_52_a_tag_that_moves_meanwhile_gives_one_image_or_the_other() {
    let mut fake = Fake::small();
    let other = fake.image("other", &[FakeLayer::gzip(&[("other", b"x")])]);
    let other = other["digest"].as_str().unwrap().to_owned();
    let registry = fake.serve();
    // HEAD says one digest, and by the tag another comes: what HEAD said is asked for by digest.
    let target = other.clone();
    let proxy = Proxy::start(&registry.host(), move |seen| match seen.method == "HEAD" {
        true => Fault::Header("docker-content-digest", target.clone()),
        false => Fault::Pass,
    });
    let env = Env::new();
    let output = pull(&env, &proxy.image("x"));
    if output.code == 0 {
        whole(&env, &proxy.image("x"));
    } else {
        no_wrong_blob(&env);
    }
}

#[test]
fn reliability_52_what_is_promised_and_not_there_is_named() {
    let proxy = Fake::small().serve_with(|seen| match seen.is_blob() && seen.nth > 2 {
        true => Fault::reply(404, &[], r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"gone"}]}"#),
        false => Fault::Pass,
    });
    let env = Env::new();
    pull(&env, &proxy.image("x")).code(1).stderr_has("is not in").stderr_has("BLOB_UNKNOWN");
    no_wrong_blob(&env);
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

#[test]
fn a_killed_pull_goes_on_where_it_was() {
    let slow =
        sized(7, 12_000_000).serve_with(|seen| match is_large(seen) && seen.header("range").is_none() {
            true => Fault::Slow(200_000, Duration::from_millis(20)),
            false => Fault::Pass,
        });
    let env = Env::new();
    let mut running = env.spawn(["pull", "-q", &slow.image("x")]);
    eventually("some of the layer", Duration::from_secs(20), || {
        walk_largest(&env.store()).filter(|bytes| *bytes > 3_000_000)
    });
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    env.run(["images", "-q"]).success().prints("");
    pull(&env, &slow.image("x")).success();
    whole(&env, &slow.image("x"));
    let resumed = slow.seen().iter().find_map(|seen| seen.header("range").map(str::to_owned)).unwrap();
    let from: u64 = resumed.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    assert!(from >= 3_000_000, "{resumed}");
}

/// The largest file of a store that is no finished blob.
fn walk_largest(store: &std::path::Path) -> Option<u64> {
    let mut largest = None;
    let mut dirs = vec![store.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() && entry.file_name() != "snapshots" {
                dirs.push(entry.path());
            } else if meta.is_file() {
                largest = largest.max(Some(meta.len()));
            }
        }
    }
    largest
}

#[test]
fn processes_that_pull_the_same_share_each_download() {
    let mut fake = Fake::default();
    let layers: Vec<FakeLayer> = (0..3)
        .map(|n| {
            let tar = fake::tar(&[(&format!("data{n}"), &noise(n, 500_000))]);
            FakeLayer { kind: "application/x-tar".into(), blob: tar.clone(), tar }
        })
        .collect();
    fake.image("latest", &layers);
    let blobs: Vec<String> = layers.iter().map(|layer| digest(&layer.blob)).collect();
    let proxy = fake.serve_with(|seen| match seen.is_blob() {
        true => Fault::Slow(50_000, Duration::from_millis(10)),
        false => Fault::Pass,
    });
    let env = Env::new();
    let running: Vec<_> = (0..8).map(|_| env.spawn(["pull", "-q", &proxy.image("x")])).collect();
    running.into_iter().for_each(|one| drop(one.finish().success()));
    for blob in blobs {
        assert_eq!(
            proxy.count(|seen| seen.is_blob() && seen.target.ends_with(&blob)),
            1,
            "{:?}",
            proxy.log()
        );
    }
    whole(&env, &proxy.image("x"));
}
