//! Verbs that look at registries: `inspect docker://…`, `list-tags`, `referrers`, `search`, `digest`, `delete`

use serde_json::{Value, json};

use crate::cmd_copy::two_platforms;
use crate::support::fake::{OCI_INDEX, OCI_MANIFEST, digest};
use crate::support::{Env, Fault, Proxy, Registry, busybox_image, must, need, shared_registry};

#[test]
fn inspect_says_what_skopeo_says() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    let place = format!("docker://{}", shared_registry().image("busybox:latest"));
    let ours = env.run(["inspect", "--tags", &place]).success().json();
    let theirs = shared_registry().inspect("busybox:latest", &[]);
    for (key, value) in theirs.as_object().unwrap() {
        assert_eq!(&ours[key], value, "{key}");
    }
    let skopeo = |more: &[&str]| {
        let mut command = env.program("skopeo");
        must(command.args(["inspect", "--tls-verify=false"]).args(more).arg(&place))
    };
    let raw = env.command(["inspect", "--raw", &place]).output().unwrap().stdout;
    assert_eq!(raw, skopeo(&["--raw"]), "byte for byte");
    let config = env.command(["inspect", "--raw", "--config", &place]).output().unwrap().stdout;
    assert_eq!(config, skopeo(&["--raw", "--config"]));
    env.run(["inspect", "--format", "{{.Name}} {{.Digest}} {{index .RepoTags 0}}", &place]).success().prints(
        &format!("{} {} latest", shared_registry().image("busybox"), theirs["Digest"].as_str().unwrap()),
    );
    env.run(["inspect", "--config", "--format", "{{index .Config.Cmd 0}}", &place]).success().prints("sh");
    env.run(["inspect", "--raw", &place, "latest"]).code(1).stderr_has("docker://latest");
    let file = env.write("manifest.json", &raw);
    let expected = theirs["Digest"].as_str().unwrap();
    env.run(["manifest-digest", file.to_str().unwrap()]).success().prints(expected);
    assert!(!env.store().exists(), "no store was made");
}

#[test]
fn an_index_is_shown_with_its_platforms_and_one_image() {
    let (env, source) = (Env::new(), two_platforms().serve());
    let place = format!("docker://{}", source.image("x:both"));
    let shown = env.run(["inspect", &place]).success().json();
    assert_eq!(shown["MediaType"], OCI_INDEX);
    assert_eq!(shown["Manifests"].as_array().unwrap().len(), 2, "{shown}");
    assert!(shown.get("RepoTags").is_none(), "tags are listed when asked for");
    assert_eq!(env.run(["inspect", "-n", &place]).success().json()["RepoTags"], json!([]));
    let own = env.run(["digest", &format!("docker://{}", source.image("x:own"))]).text().to_owned();
    assert_eq!(shown["ManifestDigest"], own.as_str());
    // A platform that is not there is an error; without one anything will do.
    env.run(["inspect", "--platform", "linux/riscv64", &place]).code(1).stderr_has("s390x");
    let other = format!("docker://{}", source.image("x:other"));
    assert_ne!(env.run(["inspect", &other]).success().json()["Architecture"], shown["Architecture"]);
    // In files and directories too.
    env.run(["copy", "-q", "--all", &place, "oci:layout:both"]).success();
    let in_layout = env.run(["inspect", "oci:./layout:both"]).success().json();
    assert_eq!((&in_layout["Digest"], &in_layout["Layers"]), (&shown["Digest"], &shown["Layers"]));
}

#[test]
fn tags_are_listed_and_deleted_by_what_they_stand_for() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, registry) = (Env::new(), Registry::start());
    let image = registry.put(&busybox_image(), "a/b:1");
    env.run([
        "copy",
        "-q",
        "--additional-tag",
        "3",
        &format!("docker://{image}"),
        &format!("docker://{}", registry.image("a/b:2")),
    ])
    .success();
    let listed = env.run(["list-tags", &format!("docker://{}", registry.image("a/b"))]).success().json();
    let theirs: Value = serde_json::from_slice(&must(env.program("skopeo").args([
        "list-tags",
        "--tls-verify=false",
        &format!("docker://{}", registry.image("a/b")),
    ])))
    .unwrap();
    assert_eq!(listed, theirs);
    env.run(["search", &format!("{}/b", registry.host())]).success().stdout_has(&registry.image("a/b"));
    env.run(["search", "--list-tags", &registry.image("a/b")]).success().stdout_has("2");
    let target = format!("docker://{}", registry.image("a/b:2"));
    env.run(["delete", "--tag-only", &target]).code(1).stderr_has("does not allow to delete tags");
    env.run(["delete", &registry.image("a/b:2")]).code(1).stderr_has("docker://");
    env.run(["delete", &target]).success().stdout_has("Deleted: ");
    env.run(["delete", &target]).code(1).stderr_has("not known");
    env.run(["list-tags", &registry.image("nothing/here")]).code(1);
}

/// A referrer's descriptor.
fn referrer(kind: &str, n: u8) -> Value {
    json!({"mediaType": OCI_MANIFEST, "digest": digest(&[n]), "size": 7, "artifactType": kind})
}

fn index(manifests: &[Value]) -> String {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string()
}

#[test]
fn referrers_come_from_the_api_page_by_page() {
    let subject = digest(b"subject");
    let server = Proxy::start("", move |seen| match seen.target.as_str() {
        target if target.ends_with("page=2") => {
            Fault::reply(200, &[("Content-Type", OCI_INDEX)], index(&[referrer("application/sbom", 2)]))
        }
        target if target.contains("/referrers/") => {
            let link =
                format!("<{}{}page=2>; rel=\"next\"", target, if target.contains('?') { "&" } else { "?" });
            let headers = [("Content-Type", OCI_INDEX), ("Link", link.as_str())];
            Fault::reply(200, &headers, index(&[referrer("application/signature", 1)]))
        }
        _ => Fault::reply(404, &[], ""),
    });
    let env = Env::new();
    let name = format!("{}@{subject}", server.image("a/b"));
    let all = env.run(["referrers", "--format", "json", &name]).success().json();
    assert_eq!(all["manifests"].as_array().unwrap().len(), 2, "{all}");
    assert_eq!(all["subject"], subject.as_str());
    // A registry that ignores the filter is filtered.
    env.run(["referrers", "-q", "--artifact-type", "application/sbom", &name])
        .success()
        .prints(&digest(&[2]));
    env.run(["referrers", &name]).success().stdout_has("application/signature");
}

#[test]
fn referrers_come_from_the_tag_where_there_is_no_api() {
    let subject = digest(b"subject");
    let tag = subject.replace(':', "-");
    let server = Proxy::start("", move |seen| match seen.target.ends_with(&tag) {
        true => Fault::reply(200, &[("Content-Type", OCI_INDEX)], index(&[referrer("application/sbom", 2)])),
        false => Fault::reply(404, &[], "404 page not found"),
    });
    let env = Env::new();
    let name = format!("{}@{subject}", server.image("a/b"));
    env.run(["referrers", "-q", &name]).success().prints(&digest(&[2])).stderr_has("no referrers API");
    let other = format!("{}@{}", server.image("a/b"), digest(b"other"));
    env.run(["referrers", "-q", &other]).success().prints("");
}

#[test]
fn r4_pages_at_another_host_and_pages_without_end() {
    let env = Env::new();
    let elsewhere = Proxy::start("", |_| Fault::reply(200, &[], r#"{"tags":["stolen"]}"#));
    let link = format!("<http://{}/v2/a/tags/list>; rel=\"next\"", elsewhere.host());
    let leading = Proxy::start("", move |_| Fault::reply(200, &[("Link", &link)], r#"{"tags":["a"]}"#));
    env.run(["list-tags", &leading.image("a")]).code(1).stderr_has("another host");
    assert_eq!(elsewhere.seen().len(), 0, "nobody asked there");
    let looping = Proxy::start("", |seen| {
        Fault::reply(200, &[("Link", &format!("<{}>; rel=next", seen.target))], r#"{"tags":["a"]}"#)
    });
    env.run(["list-tags", &looping.image("a")]).code(1).stderr_has("its own pages");
    let empty = Proxy::start("", |seen| {
        let link = format!("</v2/a/tags/list?last={}>; rel=next", seen.nth);
        Fault::reply(200, &[("Link", &link)], r#"{"tags":[]}"#)
    });
    env.run(["list-tags", &empty.image("a")]).success().stdout_has("\"Tags\": []");
}

#[test]
fn a_registry_is_searched_by_what_it_has() {
    let env = Env::new();
    let with_search = Proxy::start("", |seen| match seen.target.starts_with("/v1/search?q=red") {
        true => Fault::reply(
            200,
            &[],
            r#"{"results":[{"name":"redis","description":"a\u001bstore","star_count":9,"is_official":true},{"name":"x/red","star_count":1}]}"#,
        ),
        false => Fault::reply(404, &[], ""),
    });
    let term = format!("{}/red", with_search.host());
    let found = env.run(["search", "--filter", "stars=5", "--format", "json", &term]).success();
    assert_eq!(found.json()["StarCount"], "9", "{found}");
    env.run(["search", "--limit", "0", &term]).success();
    env.run(["search", "--filter", "size=1", &term]).code(1).stderr_has("is-official");
    let with_none = Proxy::start("", |_| Fault::reply(404, &[], "nothing"));
    env.run(["search", &format!("{}/red", with_none.host())]).code(1).stderr_has("cannot be searched");
}
