//! Registries and networks that fail, between the binary and what it asks: the right image or a clear error in bounded
//! time, never a wrong blob in the store. Names begin with what they are about.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::fake::{self, digest, noise};
use crate::support::{Env, Fake, FakeLayer, Fault, Output, Proxy, Seen, eventually, need, shared_registry};

/// The real registry behind a rule.
pub(crate) fn real(rule: impl Fn(&Seen) -> Fault + Send + Sync + 'static) -> Proxy {
    Proxy::start(&shared_registry().host(), rule)
}

/// A pull that does not wait between tries.
pub(crate) fn pull(env: &Env, name: &str) -> Output {
    env.run(["pull", "-q", "--retry-delay", "1ms", name])
}

/// Everything in the store is what its name says, and nothing has a name.
#[track_caller]
pub(crate) fn no_wrong_blob(env: &Env) {
    let blobs = std::fs::read_dir(env.store().join("blobs/sha256")).into_iter().flatten().flatten();
    for blob in blobs {
        let name = blob.file_name().into_string().unwrap();
        assert_eq!(digest(&std::fs::read(blob.path()).unwrap()), format!("sha256:{name}"));
    }
    env.run(["images", "-q"]).success().prints("");
}

/// The image is here, whole: its only layer is unpacked and its blobs are right.
#[track_caller]
pub(crate) fn whole(env: &Env, name: &str) {
    let config = env.run(["inspect", "-f", "{{.Id}}", name]).success();
    let blobs = std::fs::read_dir(env.store().join("blobs/sha256")).unwrap().flatten();
    for blob in blobs {
        let name = blob.file_name().into_string().unwrap();
        assert_eq!(digest(&std::fs::read(blob.path()).unwrap()), format!("sha256:{name}"), "{config}");
    }
}

/// An image of one layer of so many random bytes.
pub(crate) fn sized(seed: u64, length: usize) -> Fake {
    let mut fake = Fake::default();
    let tar = fake::tar(&[("data", &noise(seed, length))]);
    fake.image("latest", &[FakeLayer { kind: "application/x-tar".into(), blob: tar.clone(), tar }]);
    fake
}

pub(crate) fn is_large(seen: &Seen) -> bool {
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
