//! Faults and attacks, from scripted servers.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::server::{Reply, Request, Server, registry_reply, unknown};
use super::*;

/// Counts calls, for scripts that change their mind.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicUsize>);

impl Counter {
    fn next(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

fn is_layer(request: &Request, image: &TestImage) -> bool {
    image.layers.iter().any(|l| request.target.ends_with(Digest::sha256(l).as_str()))
}

fn name(server: &Server) -> String {
    format!("{}/team/app", server.host)
}

#[test]
fn a_pull_asks_once_for_each_thing() {
    let image = TestImage::new(1, &[10, 300_000]);
    let served = image.clone();
    let server = Server::start(move |request| registry_reply(&served, request));
    let (bucket, events) = (Bucket::default(), Events::default());
    pull(&settings(), &name(&server), &bucket, &events).unwrap();
    assert!(bucket.holds(&image));
    let log = server.log();
    assert_eq!(log.len(), 5, "{log:?}");
    assert_eq!(log[0], "HEAD /v2/team/app/manifests/latest");
    assert!(server.requests().iter().all(|r| r.header("authorization").is_none()));
}

#[test]
fn a_cut_stream_goes_on_where_it_broke() {
    let image = TestImage::new(2, &[100_000]);
    let (served, cuts) = (image.clone(), Counter::default());
    let server = Server::start(move |request| {
        let mut reply = registry_reply(&served, request);
        if is_layer(request, &served) && cuts.next() < 2 {
            reply.cut = Some(30_000);
        }
        reply
    });
    let (bucket, events) = (Bucket::default(), Events::default());
    pull(&settings(), &name(&server), &bucket, &events).unwrap();
    assert!(bucket.holds(&image));
    let ranges: Vec<String> =
        server.requests().iter().filter_map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, ["bytes=30000-", "bytes=60000-"]);
    assert_eq!(events.count(|e| matches!(e, Event::Retry { .. })), 2);
}

#[test]
fn a_whole_answer_or_a_wrong_part_for_a_range_starts_over() {
    for wrong_part in [false, true] {
        let image = TestImage::new(3, &[100_000]);
        let (served, cuts) = (image.clone(), Counter::default());
        let server = Server::start(move |request| {
            let mut plain = request.clone();
            plain.headers.retain(|(key, _)| key != "range");
            let mut reply = registry_reply(&served, &plain);
            if !is_layer(request, &served) {
                return reply;
            }
            if cuts.next() == 0 {
                reply.cut = Some(30_000);
            } else if wrong_part && request.header("range").is_some() {
                reply.status = 206;
                reply = reply.header("content-range", "bytes 5-99999/100000");
            }
            reply
        });
        let bucket = Bucket::default();
        let result = pull(&settings(), &name(&server), &bucket, &Events::default());
        result.unwrap();
        assert!(bucket.holds(&image), "{wrong_part}");
    }
}

#[test]
fn a_digest_in_a_header_is_none_that_was_asked_for() {
    let (good, evil) = (TestImage::new(5, &[1000]), TestImage::new(6, &[1000]));
    let mut hasher = format!("sha512:{}", "0".repeat(128)).parse::<Digest>().unwrap().hasher();
    hasher.update(&good.manifest.bytes);
    let pinned = hasher.finish();
    for (lies, serves_evil) in [(true, true), (true, false), (false, false)] {
        let (served, other, pin) = (good.clone(), evil.clone(), pinned.to_string());
        let server = Server::start(move |request| {
            let reply = |image: &TestImage, digest: &str| {
                Reply::new(200)
                    .header("content-type", media_type::OCI_MANIFEST)
                    .header("docker-content-digest", digest)
                    .body(image.manifest.bytes.clone())
            };
            let of_pin = request.target.ends_with(&pin);
            let is_evil = request.target.ends_with(other.manifest.digest.as_str());
            match (request.method.as_str(), of_pin) {
                ("HEAD", true) if lies => reply(&other, other.manifest.digest.as_str()),
                (_, true) if serves_evil => reply(&other, &pin),
                (_, true) => reply(&served, &pin),
                _ if is_evil => registry_reply(&other, request),
                _ if other.blob(request.target.rsplit('/').next().unwrap()).is_some() => {
                    registry_reply(&other, request)
                }
                _ => registry_reply(&served, request),
            }
        });
        let bucket = Bucket::default();
        let pulled = pull(&settings(), &format!("{}@{pinned}", name(&server)), &bucket, &Events::default());
        if serves_evil {
            let error = registry_error(pulled.unwrap_err());
            assert!(
                matches!(&error, Error::Corrupt { expected, .. } if *expected == pinned.to_string()),
                "{error}"
            );
        } else {
            pulled.unwrap();
        }
        assert_eq!(bucket.holds(&good), !serves_evil, "{lies}");
    }
}

#[test]
fn wrong_bytes_never_get_a_name() {
    let image = TestImage::new(4, &[1000]);
    for lie in ["layer", "config", "manifest", "digest header", "longer"] {
        let served = image.clone();
        let server = Server::start(move |request| {
            let mut reply = registry_reply(&served, request);
            let is_manifest = request.target.contains("/manifests/");
            match lie {
                "layer" if is_layer(request, &served) => reply.body[17] ^= 1,
                "config" if !is_manifest && !is_layer(request, &served) => reply.body[17] ^= 1,
                "manifest" if is_manifest => reply.body.push(b' '),
                "digest header" if is_manifest => {
                    reply.headers[1].1 = Digest::sha256("another").to_string();
                }
                "longer" if is_layer(request, &served) => reply.body.push(0),
                _ => {}
            }
            reply
        });
        let bucket = Bucket::default();
        let error = pull(&settings(), &name(&server), &bucket, &Events::default()).unwrap_err();
        assert!(bucket.named.lock().unwrap().is_none(), "{lie}: {error}");
    }
}

#[test]
fn failures_that_pass_are_waited_for_and_those_that_last_are_named() {
    let image = TestImage::new(5, &[10]);
    let (served, calls) = (image.clone(), Counter::default());
    let server = Server::start(move |request| match calls.next() {
        0 | 1 => Reply::new(503),
        2 => Reply::new(429).header("retry-after", "0"),
        _ => registry_reply(&served, request),
    });
    let bucket = Bucket::default();
    pull(&settings(), &name(&server), &bucket, &Events::default()).unwrap();
    assert!(bucket.holds(&image));

    let limited = Server::start(|_| Reply::new(429).header("retry-after", "1000000000"));
    let error = pull(&settings(), &name(&limited), &Bucket::default(), &Events::default()).unwrap_err();
    let error = registry_error(error);
    assert!(matches!(&error, Error::RateLimited { retry_after: Some(_), .. }), "{error}");
    assert!(error.hints().iter().any(|hint| hint.contains("strate login")));

    let broken = Server::start(|_| Reply::new(502).body("<html>bad</html>"));
    let error = pull(&settings(), &name(&broken), &Bucket::default(), &Events::default()).unwrap_err();
    assert!(matches!(registry_error(error), Error::Server { .. }));
    // HEAD and its repetitions go first; then GET asks for the error's text.
    assert!(broken.log().len() <= 8, "{:?}", broken.log());
}

#[test]
fn unknown_names_say_which() {
    let server = Server::start(|request| {
        if request.target.contains("/team/app/") {
            unknown("MANIFEST_UNKNOWN")
        } else {
            unknown("NAME_UNKNOWN")
        }
    });
    let error = pull(&settings(), &name(&server), &Bucket::default(), &Events::default()).unwrap_err();
    let error = registry_error(error);
    assert!(error.to_string().contains("team/app:latest"), "{error}");
    assert!(error.to_string().contains("MANIFEST_UNKNOWN"));
    let other = format!("{}/other", server.host);
    let error = pull(&settings(), &other, &Bucket::default(), &Events::default()).unwrap_err();
    assert!(matches!(registry_error(error), Error::UnknownRepository { .. }));
    let down = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let error = pull(&settings(), &format!("{down}/x"), &Bucket::default(), &Events::default()).unwrap_err();
    assert!(matches!(registry_error(error), Error::Unreachable { .. }));
}

#[test]
fn hostile_error_bodies_are_cut_and_made_safe() {
    let server = Server::start(|_| {
        let noise = "\u{1b}]52;c;evil\u{7}".repeat(1_000_000);
        Reply::new(400).body(serde_json::json!({"errors": [{"code": noise, "message": noise}]}).to_string())
    });
    let error = pull(&settings(), &name(&server), &Bucket::default(), &Events::default()).unwrap_err();
    let text = registry_error(error).to_string();
    assert!(text.len() < 2000 && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn credentials_stay_with_their_registry_through_redirects() {
    let image = TestImage::new(6, &[1000]);
    let served = image.clone();
    let storage = Server::start(move |request| registry_reply(&served, request));
    let (served, elsewhere) = (image.clone(), storage.host.clone());
    let server = Server::start(move |request| {
        if request.header("authorization") != Some("Basic Ym9iOmh1bnRlcjI=") {
            return Reply::new(401).header("www-authenticate", "Basic realm=\"r\"");
        }
        if request.target.contains("/blobs/") {
            return Reply::new(307).header("location", format!("http://{elsewhere}{}", request.target));
        }
        registry_reply(&served, request)
    });
    let with_login = Settings { creds: Some(Login::password("bob", "hunter2")), ..settings() };
    let bucket = Bucket::default();
    pull(&with_login, &name(&server), &bucket, &Events::default()).unwrap();
    assert!(bucket.holds(&image));
    assert_eq!(storage.requests().len(), 2);
    assert!(storage.requests().iter().all(|r| r.header("authorization").is_none()));

    let error = pull(&settings(), &name(&server), &Bucket::default(), &Events::default()).unwrap_err();
    let error = registry_error(error);
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert!(error.hints()[0].contains(&format!("strate login {}", server.host)));
}

#[test]
fn redirects_to_strange_places_or_without_end_are_refused() {
    let image = TestImage::new(7, &[1000]);
    for location in ["file:///etc/passwd", "gopher://x/", "http://user:pass@127.0.0.1/", "again"] {
        let served = image.clone();
        let server = Server::start(move |request| {
            if !request.target.contains("/blobs/") {
                return registry_reply(&served, request);
            }
            let location = if location == "again" { request.target.as_str() } else { location };
            Reply::new(302).header("location", location)
        });
        let error = pull(&settings(), &name(&server), &Bucket::default(), &Events::default()).unwrap_err();
        assert!(matches!(registry_error(error), Error::Redirect { .. }), "{location}");
        assert!(server.log().len() < 12);
    }
}

#[test]
fn tokens_are_fetched_kept_and_renewed() {
    let image = TestImage::new(8, &[1000, 2000]);
    let (served, issued) = (image.clone(), Counter::default());
    let tokens = Server::start(move |_| {
        let token = format!("token{}", issued.next());
        Reply::new(200).body(format!(r#"{{"token":"{token}","expires_in":300}}"#))
    });
    let realm = tokens.host.clone();
    let blobs = Counter::default();
    let good = Arc::new(Mutex::new("Bearer token0".to_owned()));
    let server = Server::start(move |request| {
        let mut good = good.lock().unwrap();
        if is_layer(request, &served) && blobs.next() == 0 {
            *good = "Bearer token1".into(); // the first token is withdrawn in the middle
        }
        if request.header("authorization") != Some(good.as_str()) {
            let challenge = format!(
                r#"Bearer realm="http://{realm}/token",service="r",scope="repository:team/app:pull,push,delete""#
            );
            return Reply::new(401).header("www-authenticate", challenge);
        }
        registry_reply(&served, request)
    });
    let with_login = Settings { creds: Some(Login::password("bob", "hunter2")), ..settings() };
    let bucket = Bucket::default();
    pull(&with_login, &name(&server), &bucket, &Events::default()).unwrap();
    assert!(bucket.holds(&image));
    let asked = tokens.requests();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert!(asked[0].target.contains("service=r") && asked[0].target.contains("account=bob"));
    assert!(asked[0].target.contains("scope=repository%3ateam%2fapp%3apull"), "{}", asked[0].target);
    assert!(!asked[0].target.contains("push"), "no more rights than needed");
    assert_eq!(asked[0].header("authorization"), Some("Basic Ym9iOmh1bnRlcjI="));
}

#[test]
fn identity_tokens_are_exchanged_by_post() {
    let image = TestImage::new(9, &[10]);
    let tokens = Server::start(|_| Reply::new(200).body(r#"{"access_token":"t"}"#));
    let (served, realm) = (image.clone(), tokens.host.clone());
    let server = Server::start(move |request| match request.header("authorization") {
        Some("Bearer t") => registry_reply(&served, request),
        _ => {
            Reply::new(401).header("www-authenticate", format!("Bearer realm=\"http://{realm}/t\",service=r"))
        }
    });
    let login = Login::Identity(Secret::new("refresh me"));
    let bucket = Bucket::default();
    pull(&Settings { creds: Some(login), ..settings() }, &name(&server), &bucket, &Events::default())
        .unwrap();
    let body = String::from_utf8(tokens.requests()[0].body.clone()).unwrap();
    assert!(
        body.contains("grant_type=refresh_token") && body.contains("refresh_token=refresh%20me"),
        "{body}"
    );
}

#[test]
fn an_identity_token_does_not_follow_a_redirect_to_another_host() {
    let image = TestImage::new(10, &[10]);
    let elsewhere = Server::start(|_| Reply::new(200).body(r#"{"access_token":"t"}"#));
    let target = format!("http://{}/t", elsewhere.host);
    let tokens = Server::start(move |_| Reply::new(307).header("location", target.clone()));
    let (served, realm) = (image.clone(), tokens.host.clone());
    let server = Server::start(move |request| match request.header("authorization") {
        Some("Bearer t") => registry_reply(&served, request),
        _ => Reply::new(401).header("www-authenticate", format!("Bearer realm=\"http://{realm}/t\"")),
    });
    let login = Login::Identity(Secret::new("refresh me"));
    let settings = Settings { creds: Some(login), ..settings() };
    let error = pull(&settings, &name(&server), &Bucket::default(), &Events::default()).unwrap_err();
    assert!(matches!(registry_error(error), Error::Redirect { .. }));
    assert!(elsewhere.requests().is_empty());
}

#[test]
fn a_mirror_comes_first_gets_no_credentials_and_may_fail() {
    let image = TestImage::new(10, &[1000]);
    let (served, broken) = (image.clone(), Counter::default());
    let mirror = Server::start(move |request| match broken.next() {
        0 => registry_reply(&served, request),
        _ => Reply::new(401).header("www-authenticate", "Basic realm=m"),
    });
    let served = image.clone();
    let origin = Server::start(move |request| registry_reply(&served, request));
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("registries.conf");
    let text = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}/proxy\"\n",
        origin.host, mirror.host
    );
    std::fs::write(&conf, text).unwrap();
    let auth = dir.path().join("auth.json");
    std::fs::write(&auth, format!(r#"{{"auths":{{"{}":{{"auth":"Ym9iOmh1bnRlcjI="}}}}}}"#, origin.host))
        .unwrap();
    let mut with_mirror = Settings { authfile: Some(auth), ..settings() };
    with_mirror.env.insert("CONTAINERS_REGISTRIES_CONF".into(), conf.to_str().unwrap().into());
    let (bucket, events) = (Bucket::default(), Events::default());
    pull(&with_mirror, &name(&origin), &bucket, &events).unwrap();
    assert!(bucket.holds(&image));
    assert!(mirror.log()[0].starts_with("HEAD /v2/proxy/team/app/manifests/"));
    assert!(mirror.requests().iter().all(|r| r.header("authorization").is_none()));
    assert_eq!(events.count(|e| matches!(e, Event::Note(_))), 1);
}

/// A registry that takes uploads; `refuse` may answer first.
fn accepting(
    stored: Arc<Mutex<Vec<u8>>>,
    refuse: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
) -> Server {
    Server::start(move |request| {
        if let Some(reply) = refuse(request) {
            return reply;
        }
        let path = request.target.split('?').next().unwrap_or_default();
        match request.method.as_str() {
            "HEAD" => Reply::new(404),
            "POST" => Reply::new(202).header("location", "/v2/team/app/blobs/uploads/1?state=a"),
            "PATCH" => {
                stored.lock().unwrap().extend(&request.body);
                Reply::new(202).header("location", "/v2/team/app/blobs/uploads/1?state=b")
            }
            _ if path.contains("/blobs/") => Reply::new(201),
            _ => Reply::new(201).header("docker-content-digest", Digest::sha256(&request.body).to_string()),
        }
    })
}

#[test]
fn a_layer_that_is_too_large_in_one_piece_is_sent_in_chunks() {
    let image = TestImage::new(11, &[2_000_000]);
    let stored: Arc<Mutex<Vec<u8>>> = Arc::default();
    let server = accepting(stored.clone(), |request| (request.body.len() > 1 << 20).then(|| Reply::new(413)));
    push(&settings(), &name(&server), &image, &Events::default()).unwrap();
    assert_eq!(*stored.lock().unwrap(), image.layers[0]);
    let log = server.log();
    assert!(log.iter().any(|line| line.starts_with("PATCH /v2/team/app/blobs/uploads/1?state=a")), "{log:?}");
    let end = "PUT /v2/team/app/blobs/uploads/1?state=b&digest=sha256%3a";
    assert!(log.iter().any(|line| line.starts_with(end)), "{log:?}");
    assert_eq!(log.last().unwrap(), "PUT /v2/team/app/manifests/latest");
}

#[test]
fn an_upload_that_breaks_is_sent_again_and_the_manifest_comes_last() {
    let image = TestImage::new(12, &[50_000]);
    let puts = Counter::default();
    let server = accepting(Arc::default(), move |request| {
        (request.method == "PUT" && request.target.contains("/blobs/") && puts.next() == 0)
            .then(|| Reply::new(500))
    });
    push(&settings(), &name(&server), &image, &Events::default()).unwrap();
    let log = server.log();
    assert!(log.last().unwrap().starts_with("PUT /v2/team/app/manifests/latest"), "{log:?}");
    assert_eq!(log.iter().filter(|line| line.contains("/manifests/")).count(), 1);
}

#[test]
fn an_upload_is_not_led_astray() {
    for location in ["file:///tmp/x", "http://user:pw@127.0.0.1:1/", ""] {
        let image = TestImage::new(13, &[10]);
        let server = accepting(Arc::default(), move |request| {
            (request.method == "POST").then(|| Reply::new(202).header("location", location))
        });
        let result = push(&settings(), &name(&server), &image, &Events::default());
        if !location.is_empty() {
            assert!(matches!(registry_error(result.unwrap_err()), Error::Protocol { .. }), "{location}");
        }
    }
}

#[test]
fn a_server_of_plain_http_is_refused_unless_allowed() {
    let image = TestImage::new(14, &[10]);
    let server = Server::start(move |request| registry_reply(&image, request));
    let strict = Settings { tls_verify: Some(true), ..settings() };
    let error = pull(&strict, &name(&server), &Bucket::default(), &Events::default()).unwrap_err();
    let error = registry_error(error);
    assert!(matches!(error, Error::PlainHttp { .. }), "{error}");
    assert!(error.hints()[0].contains("--tls-verify=false"));
}

/// A registry with one large layer, whose answers to reads of it a rule may spoil: it gets the request's number among
/// those with a range.
fn large(
    seed: u8,
    spoil: impl Fn(&Request, usize, &mut Reply) + Send + Sync + 'static,
) -> (TestImage, Server) {
    let image = TestImage::new(seed, &[1_500_000, 10]);
    let (served, ranges) = (image.clone(), Counter::default());
    let server = Server::start(move |request| {
        let mut reply = registry_reply(&served, request);
        if request.header("range").is_some() {
            spoil(request, ranges.next(), &mut reply);
            if reply.status == 200 {
                return registry_reply(&served, &Request { headers: Vec::new(), ..request.clone() });
            }
        }
        reply
    });
    (image, server)
}

#[test]
fn a_large_blob_comes_in_parts() {
    let (image, server) = large(20, |_, _, _| ());
    let (bucket, events) = (Bucket::default(), Events::default());
    pull(&settings(), &name(&server), &bucket, &events).unwrap();
    assert!(bucket.holds(&image));
    let ranges: Vec<String> =
        server.requests().iter().filter_map(|r| r.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges.len(), 1_500_000_usize.div_ceil(128 << 10), "{ranges:?}");
    assert!(ranges.contains(&"bytes=0-131071".to_owned()));
    assert_eq!(events.count(|e| matches!(e, Event::Retry { .. })), 0);
}

#[test]
fn parts_that_break_off_go_on_where_they_broke() {
    let (image, server) = large(21, |_, n, reply| {
        if n % 2 == 1 {
            reply.cut = Some(50_000);
        }
    });
    let (bucket, events) = (Bucket::default(), Events::default());
    pull(&settings(), &name(&server), &bucket, &events).unwrap();
    assert!(bucket.holds(&image));
}

#[test]
fn trouble_with_parts_makes_it_one_stream() {
    type Spoil = fn(&Request, usize, &mut Reply);
    let whole: Spoil = |_, n, reply| {
        if n >= 3 {
            reply.status = 200;
        }
    };
    let other_part: Spoil = |_, n, reply| {
        if n >= 3 {
            reply.headers[0].1 = "bytes 0-131071/1500000".into();
        }
    };
    let other_tag: Spoil =
        |_, n, reply| reply.headers.push(("etag", if n < 3 { "a" } else { "b" }.to_owned()));
    let other_length: Spoil = |_, n, reply| {
        if n == 4 {
            reply.headers[0].1 = reply.headers[0].1.replace("/1500000", "/1500001");
        }
    };
    let refused: Spoil = |_, n, reply| {
        if n >= 2 {
            *reply = Reply::new(416);
        }
    };
    for (i, spoil) in [whole, other_part, other_tag, other_length, refused].into_iter().enumerate() {
        let (image, server) = large(30 + i as u8, spoil);
        let bucket = Bucket::default();
        pull(&settings(), &name(&server), &bucket, &Events::default()).unwrap();
        assert!(bucket.holds(&image), "{i}");
        assert!(server.log().len() < 30, "{:?}", server.log());
    }
    // A wrong byte in a part: the whole is asked for once, and is right.
    let (image, server) = large(40, |_, n, reply| {
        if n == 5 {
            reply.body[100] ^= 1;
        }
    });
    let bucket = Bucket::default();
    pull(&settings(), &name(&server), &bucket, &Events::default()).unwrap();
    assert!(bucket.holds(&image));
}
