//! Pushes to registries that break off, lie, refuse and limit (security.md R3, reliability.md 48 to 50).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::server::{Reply, Request, Server, unknown};
use super::*;

/// A registry's uploads, as the specification has them.
#[derive(Default)]
struct Shelf {
    blobs: Mutex<HashMap<String, Vec<u8>>>,
    sessions: Mutex<HashMap<String, Vec<u8>>>,
    manifests: Mutex<Vec<(String, Vec<u8>)>>,
    begun: AtomicUsize,
}

impl Shelf {
    fn answer(&self, request: &Request) -> Reply {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let last = path.rsplit('/').next().unwrap_or_default();
        let session = || Reply::new(202).header("location", format!("/v2/team/app/blobs/uploads/{last}"));
        match request.method.as_str() {
            "HEAD" if self.blobs.lock().unwrap().contains_key(last) => Reply::new(200),
            "HEAD" => Reply::new(404),
            "POST" => {
                let id = self.begun.fetch_add(1, Ordering::SeqCst).to_string();
                self.sessions.lock().unwrap().insert(id.clone(), Vec::new());
                Reply::new(202).header("location", format!("/v2/team/app/blobs/uploads/{id}"))
            }
            "DELETE" => {
                self.sessions.lock().unwrap().remove(last);
                Reply::new(204)
            }
            "PATCH" => {
                let mut sessions = self.sessions.lock().unwrap();
                let Some(bytes) = sessions.get_mut(last) else { return unknown("BLOB_UPLOAD_UNKNOWN") };
                let start = request.header("content-range").and_then(|r| r.split('-').next()?.parse().ok());
                if start.is_some_and(|start: usize| start != bytes.len()) {
                    return Reply::new(416);
                }
                bytes.extend(&request.body);
                session().header("range", format!("0-{}", bytes.len() - 1))
            }
            "GET" if path.contains("/uploads/") => match self.sessions.lock().unwrap().get(last) {
                Some(bytes) => {
                    let mut reply = session().header("range", format!("0-{}", bytes.len().max(1) - 1));
                    reply.status = 204;
                    reply
                }
                None => unknown("BLOB_UPLOAD_UNKNOWN"),
            },
            "PUT" if path.contains("/manifests/") => {
                self.manifests.lock().unwrap().push((last.to_owned(), request.body.clone()));
                Reply::new(201)
            }
            "GET" => match self.manifests.lock().unwrap().iter().rev().find(|(name, _)| name == last) {
                Some((_, bytes)) => {
                    Reply::new(200).header("content-type", media_type::OCI_INDEX).body(bytes.clone())
                }
                None => unknown("MANIFEST_UNKNOWN"),
            },
            _ => {
                let digest = query.split_once("digest=").unwrap().1.replace("%3a", ":");
                let mut bytes = self.sessions.lock().unwrap().remove(last).unwrap_or_default();
                bytes.extend(&request.body);
                if Digest::sha256(&bytes).as_str() != digest {
                    return Reply::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
                }
                self.blobs.lock().unwrap().insert(digest, bytes);
                Reply::new(201)
            }
        }
    }

    fn holds(&self, image: &TestImage) -> bool {
        let blobs = self.blobs.lock().unwrap();
        let has = |bytes: &Vec<u8>| blobs.get(Digest::sha256(bytes).as_str()) == Some(bytes);
        image.layers.iter().all(has)
            && has(&image.config)
            && self.manifests.lock().unwrap().last().is_some_and(|(_, bytes)| *bytes == image.manifest.bytes)
    }
}

fn name(server: &Server) -> String {
    format!("{}/team/app", server.host)
}

/// Bytes of layers that were sent.
fn sent(server: &Server) -> usize {
    server.requests().iter().filter(|r| r.method == "PATCH").map(|r| r.body.len()).sum()
}

#[test]
fn r48_an_upload_that_is_cut_goes_on_where_it_broke() {
    let image = TestImage::new(30, &[3_000_000]);
    let shelf = Arc::new(Shelf::default());
    let (kept, cuts) = (shelf.clone(), AtomicUsize::new(0));
    let server = Server::start_cutting(
        move |request| kept.answer(request),
        move |request| {
            (request.method == "PATCH" && cuts.fetch_add(1, Ordering::SeqCst) < 2).then_some(1_300_000)
        },
    );
    let events = Events::default();
    push(&settings(), &name(&server), &image, &events).unwrap();
    assert!(shelf.holds(&image));
    assert_eq!(sent(&server), 3_000_000, "no byte goes twice: {:?}", server.log());
    assert_eq!(events.count(|e| matches!(e, Event::Retry { .. })), 2);
    let most = events.0.lock().unwrap().iter().fold(0, |most, event| match event {
        Event::Moved { bytes, .. } => most.max(*bytes),
        _ => most,
    });
    assert_eq!(most, 3_000_000);
}

#[test]
fn r48_a_registry_that_forgets_the_upload_gets_it_anew() {
    let image = TestImage::new(31, &[2_000_000]);
    let shelf = Arc::new(Shelf::default());
    let (kept, cuts) = (shelf.clone(), AtomicUsize::new(0));
    let server = Server::start_cutting(
        move |request| match request.method.as_str() {
            "GET" => unknown("BLOB_UPLOAD_UNKNOWN"),
            _ => kept.answer(request),
        },
        move |request| {
            (request.method == "PATCH" && cuts.fetch_add(1, Ordering::SeqCst) == 0).then_some(1_000_000)
        },
    );
    push(&settings(), &name(&server), &image, &Events::default()).unwrap();
    assert!(shelf.holds(&image));
    assert_eq!(sent(&server), 3_000_000);
}

#[test]
fn r49_a_registry_that_lies_about_what_it_has_gets_the_blob_whole() {
    let image = TestImage::new(32, &[2_000_000]);
    let shelf = Arc::new(Shelf::default());
    let (kept, cuts) = (shelf.clone(), AtomicUsize::new(0));
    let server = Server::start_cutting(
        move |request| match request.method.as_str() {
            "GET" if request.target.contains("/uploads/") => {
                let mut reply = kept.answer(request);
                reply.headers.retain(|(name, _)| *name != "range");
                reply.header("range", "0-1499999")
            }
            _ => kept.answer(request),
        },
        move |request| {
            (request.method == "PATCH" && cuts.fetch_add(1, Ordering::SeqCst) == 0).then_some(1_000_000)
        },
    );
    push(&settings(), &name(&server), &image, &Events::default()).unwrap();
    assert!(shelf.holds(&image));
}

#[test]
fn r3_a_patch_whose_range_is_not_what_was_sent_is_a_broken_protocol() {
    for range in ["0-5", "0-99999999"] {
        let image = TestImage::new(33, &[2_000_000]);
        let shelf = Shelf::default();
        let server = Server::start(move |request| {
            let mut reply = shelf.answer(request);
            if request.method == "PATCH" {
                reply.headers.retain(|(name, _)| *name != "range");
                reply = reply.header("range", range);
            }
            reply
        });
        let error = push(&settings(), &name(&server), &image, &Events::default()).unwrap_err();
        let error = registry_error(error);
        assert!(matches!(error, Error::Protocol { .. }), "{error}");
        assert!(server.log().iter().all(|line| !line.contains("/manifests/")), "{:?}", server.log());
    }
}

#[test]
fn r3_credentials_do_not_follow_an_upload_to_another_host() {
    let image = TestImage::new(34, &[10, 2_000_000]);
    let other = Server::start(|request| match request.method.as_str() {
        "PATCH" => Reply::new(202).header("location", "/up/2"),
        _ => Reply::new(201),
    });
    let (shelf, target) = (Shelf::default(), other.host.clone());
    let server = Server::start(move |request| {
        if request.header("authorization").is_none() {
            return Reply::new(401).header("www-authenticate", "Basic realm=\"r\"");
        }
        match request.method.as_str() {
            "POST" => {
                Reply::new(202).header("location", format!("http://{target}/up/{}", request.target.len()))
            }
            _ => shelf.answer(request),
        }
    });
    let settings = Settings { creds: Some(Login::password("bob", "hunter2")), ..settings() };
    push(&settings, &name(&server), &image, &Events::default()).unwrap();
    assert!(!other.requests().is_empty());
    assert!(other.requests().iter().all(|r| r.header("authorization").is_none()));
}

#[test]
fn r50_a_login_that_ends_in_the_middle_of_an_upload_is_renewed() {
    let image = TestImage::new(35, &[2_000_000]);
    let shelf = Arc::new(Shelf::default());
    let (issued, kept) = (AtomicUsize::new(0), shelf.clone());
    let tokens = Server::start(move |_| {
        let n = issued.fetch_add(1, Ordering::SeqCst);
        Reply::new(200).body(format!(r#"{{"token":"t{n}","expires_in":3600}}"#))
    });
    let (realm, ended) = (tokens.host.clone(), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        let challenge =
            || Reply::new(401).header("www-authenticate", format!("Bearer realm=\"http://{realm}/t\""));
        let Some(token) = request.header("authorization") else { return challenge() };
        // The first token ends with the first layer bytes.
        if ended.load(Ordering::SeqCst) > 0 && token == "Bearer t0" {
            return challenge();
        }
        if request.method == "PATCH" && ended.fetch_add(1, Ordering::SeqCst) == 0 {
            return challenge();
        }
        kept.answer(request)
    });
    push(&settings(), &name(&server), &image, &Events::default()).unwrap();
    assert!(shelf.holds(&image));
    assert_eq!(tokens.requests().len(), 2);
}

#[test]
fn r50_retry_after_is_kept_within_reason() {
    let image = TestImage::new(36, &[2_000_000]);
    for (wanted, works) in [("1", true), ("1000000", false)] {
        let shelf = Arc::new(Shelf::default());
        let (kept, calls) = (shelf.clone(), AtomicUsize::new(0));
        let server = Server::start(move |request| {
            if request.method == "PATCH" && calls.fetch_add(1, Ordering::SeqCst) == 0 {
                return Reply::new(429).header("retry-after", wanted);
            }
            kept.answer(request)
        });
        let start = Instant::now();
        let result = push(&settings(), &name(&server), &image, &Events::default());
        assert!(start.elapsed() < Duration::from_secs(20));
        if works {
            result.unwrap();
            assert!(shelf.holds(&image) && start.elapsed() >= Duration::from_secs(1));
        } else {
            let error = registry_error(result.unwrap_err());
            assert!(matches!(error, Error::RateLimited { .. }), "{error}");
            assert_eq!(server.requests().iter().filter(|r| r.method == "PATCH").count(), 1);
        }
    }
}

#[test]
fn a_mount_that_is_refused_becomes_an_upload_and_another_repository_is_asked() {
    let image = TestImage::new(37, &[2_000_000]);
    for refusal in [404, 403, 401, 405, 500, 202] {
        let shelf = Arc::new(Shelf::default());
        let kept = shelf.clone();
        let server = Server::start(move |request| {
            if request.target.contains("mount=") && refusal != 202 {
                return Reply::new(refusal);
            }
            kept.answer(request)
        });
        let reference = Reference::parse(&name(&server)).unwrap();
        let settings = Settings { retries: Some(0), ..settings() };
        let client = Client::new(&settings, &reference, Action::Push, &crate::image::Silent)
            .unwrap()
            .with_mounts(|_| vec!["gone/one".into(), "gone/two".into()]);
        copy(&image, &client, &selection(&reference), &Events::default()).unwrap();
        assert!(shelf.holds(&image), "{refusal}");
        assert!(shelf.sessions.lock().unwrap().is_empty(), "{refusal}: what was begun is ended");
        let asked = server.log().iter().filter(|line| line.contains("&from=gone%2f")).count();
        assert_eq!(asked, 2, "{refusal}: {:?}", server.log());
    }
}

#[test]
fn the_second_repository_that_has_a_layer_spares_the_upload() {
    let image = TestImage::new(38, &[2_000_000]);
    let shelf = Arc::new(Shelf::default());
    let kept = shelf.clone();
    let server = Server::start(move |request| match request.target.contains("from=has%2fit") {
        true => Reply::new(201),
        false => kept.answer(request),
    });
    let reference = Reference::parse(&name(&server)).unwrap();
    let client = Client::new(&settings(), &reference, Action::Push, &crate::image::Silent)
        .unwrap()
        .with_mounts(|_| vec!["team/app".into(), "gone/one".into(), "has/it".into()]);
    let events = Events::default();
    copy(&image, &client, &selection(&reference), &events).unwrap();
    assert_eq!(sent(&server), 0);
    assert_eq!(events.count(|e| matches!(e, Event::Mounted { from, .. } if from == "has/it")), 1);
    assert!(shelf.sessions.lock().unwrap().is_empty(), "the upload that was begun is given up");
}

#[test]
fn pieces_are_as_large_as_the_registry_wants() {
    let image = TestImage::new(39, &[5_000_000]);
    let shelf = Arc::new(Shelf::default());
    let kept = shelf.clone();
    let server = Server::start(move |request| {
        if request.body.len() > 2_500_000 {
            return Reply::new(413);
        }
        kept.answer(request).header("oci-chunk-min-length", "2000000")
    });
    push(&settings(), &name(&server), &image, &Events::default()).unwrap();
    assert!(shelf.holds(&image));
    let pieces: Vec<usize> =
        server.requests().iter().filter(|r| r.method == "PATCH").map(|r| r.body.len()).collect();
    assert_eq!(pieces[pieces.len() - 3..], [2_000_000, 2_000_000, 1_000_000]);
    let none = Server::start(|request| match request.method.as_str() {
        "HEAD" => Reply::new(404),
        "POST" => Reply::new(202).header("location", "/up"),
        _ => Reply::new(413),
    });
    let error = registry_error(push(&settings(), &name(&none), &image, &Events::default()).unwrap_err());
    assert!(matches!(error, Error::Refused { .. }), "{error}");
}

#[test]
fn r9_a_registry_that_names_another_digest_for_a_manifest_is_not_believed() {
    let image = TestImage::new(40, &[10]);
    let shelf = Shelf::default();
    let server = Server::start(move |request| {
        let reply = shelf.answer(request);
        match request.target.contains("/manifests/") {
            true => reply.header("docker-content-digest", Digest::sha256("another").to_string()),
            false => reply,
        }
    });
    let error = registry_error(push(&settings(), &name(&server), &image, &Events::default()).unwrap_err());
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn a_referrer_is_listed_under_a_tag_where_the_registry_keeps_no_list() {
    for knows in [false, true] {
        let mut image = TestImage::new(41, &[10]);
        let mut document: serde_json::Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
        let subject = Digest::sha256("subject");
        document["subject"] =
            serde_json::json!({"mediaType": media_type::OCI_MANIFEST, "digest": subject.as_str(), "size": 7});
        image.manifest = RawManifest::new(serde_json::to_vec(&document).unwrap(), None).unwrap();
        let shelf = Arc::new(Shelf::default());
        let (kept, told) = (shelf.clone(), subject.to_string());
        let server = Server::start(move |request| {
            let reply = kept.answer(request);
            if knows { reply.header("oci-subject", told.clone()) } else { reply }
        });
        // The second push finds its entry there.
        for _ in 0..2 {
            push(&settings(), &name(&server), &image, &Events::default()).unwrap();
        }
        let tag = format!("sha256-{}", subject.hex());
        let manifests = shelf.manifests.lock().unwrap();
        let lists: Vec<_> = manifests.iter().filter(|(name, _)| *name == tag).collect();
        assert_eq!(lists.len(), usize::from(!knows), "{:?}", server.log());
        if let Some((_, list)) = lists.first() {
            let list: serde_json::Value = serde_json::from_slice(list).unwrap();
            assert_eq!(list["manifests"][0]["digest"], image.manifest.digest.as_str());
            assert_eq!(list["manifests"][0]["artifactType"], media_type::OCI_CONFIG);
        }
    }
}

fn selection(reference: &Reference) -> Selection {
    Selection {
        from: What::Name(reference.clone()),
        to: Some(reference.clone()),
        platforms: Platforms::All,
        jobs: 3,
    }
}
