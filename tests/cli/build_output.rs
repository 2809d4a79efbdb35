//! `build --output` and its relatives: directories, tars, archives, registries.

use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::{Env, must, need, shared_registry};

/// A result with files of every kind, made without a base.
fn small() -> Env {
    let env = Env::new();
    env.write("d/sub/file", "file");
    env.write("d/tool", "tool");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o750);
    std::fs::set_permissions(env.work().join("d/tool"), mode).unwrap();
    symlink("sub/file", env.work().join("d/link")).unwrap();
    env.write("Dockerfile", "FROM scratch\nCOPY --chown=7:8 d /d\nLABEL a=b\n");
    env
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn files_go_to_a_directory_as_the_users_and_replace_what_is_in_their_way() {
    let env = small();
    let out = env.work().join("out");
    let elsewhere = env.write("elsewhere/canary", "untouched");
    std::fs::create_dir_all(out.join("d/link/in/the/way")).unwrap();
    symlink(&elsewhere, out.join("d/tool")).unwrap();
    symlink(elsewhere.parent().unwrap(), out.join("d/sub")).unwrap();
    env.write("out/other", "stays");
    env.run(["build", "-o", "out", "."]).success().prints("");
    assert_eq!((read(&out.join("d/link")), read(&out.join("d/tool"))), ("file".into(), "tool".into()));
    assert_eq!((read(&elsewhere), read(&out.join("other"))), ("untouched".into(), "stays".into()));
    assert!(!elsewhere.with_file_name("file").exists());
    let tool = std::fs::metadata(out.join("d/tool")).unwrap();
    let us = std::fs::metadata(env.work()).unwrap();
    assert_eq!((tool.uid(), tool.mode() & 0o7777), (us.uid(), 0o750));
    env.run(["images", "-aq"]).success().prints(""); // no image was asked for

    env.run(["build", "-o", "type=local,dest=out,mode=delete", "."]).success();
    assert!(!out.join("other").exists() && out.join("d/link").exists());
    env.run(["build", "-o", "type=local,dest=.,mode=delete", "."]).code(1).stderr_has("refusing to remove");
    assert!(elsewhere.exists());
}

#[test]
fn a_tar_goes_to_standard_output_or_a_file_with_the_owners_of_the_image() {
    let env = small();
    let output = env.run(["build", "-q", "-o", "-", "."]).success();
    assert!(output.stdout.contains("ustar") && !output.stdout.contains("sha256:"));
    env.run(["build", "-o", "type=tar,dest=out.tar", "--build-arg", "SOURCE_DATE_EPOCH=1000", "."]).success();
    let list = must(Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(env.work().join("out.tar")));
    let list = String::from_utf8(list).unwrap();
    for part in ["7/8", "d/link -> sub/file", "1970-01-01"] {
        assert!(list.contains(part), "{part} in {list}");
    }
    env.run(["build", "-o", "-", "-o", "type=oci", "."]).code(1).stderr_has("only one");
    env.run(["build", "-o", "type=tar,dest=no/such/dir/x.tar", "."]).code(1).stderr_has("no/such/dir");
}

#[test]
fn archives_have_the_compression_that_was_asked_for_and_others_read_them() {
    need!("skopeo");
    let env = small();
    let inspect = |place: &str, raw: &str| {
        let bytes = must(env.program("skopeo").args(["inspect", raw, place]));
        serde_json::from_slice::<serde_json::Value>(&bytes).unwrap()
    };
    for (compression, kind) in [
        ("zstd", "application/vnd.oci.image.layer.v1.tar+zstd"),
        ("uncompressed", "application/vnd.oci.image.layer.v1.tar"),
        ("gzip,compression-level=9", "application/vnd.oci.image.layer.v1.tar+gzip"),
    ] {
        let output = format!("type=oci,dest=out.tar,compression={compression}");
        env.run(["build", "-t", "a:b", "-o", &output, "."]).success();
        let manifest = inspect("oci-archive:out.tar", "--raw");
        assert_eq!(manifest["layers"][0]["mediaType"], kind);
        must(env.program("skopeo").args(["copy", "oci-archive:out.tar", "dir:copied"]));
    }
    env.run(["build", "-o", "type=docker,dest=d.tar,name=x/y:z", "."]).success();
    assert_eq!(inspect("docker-archive:d.tar", "--config")["config"]["Labels"]["a"], "b");
    env.run(["build", "-o", "type=oci,tar=false,dest=layout", "--annotation", "k=v", "."]).success();
    assert_eq!(inspect("oci:layout", "--raw")["annotations"]["k"], "v");
    env.run(["images", "-aq"]).success().prints("");
}

#[test]
fn times_are_rewritten_and_the_same_build_gives_the_same_bytes() {
    let env = small();
    let build = |dest: &str| {
        let output = format!("type=oci,dest={dest},rewrite-timestamp=true");
        let output = ["-o", &output, "--build-arg", "SOURCE_DATE_EPOCH=1000000000"];
        env.run(["build", "--no-cache", "-q"].into_iter().chain(output).chain(["."])).success().stdout
    };
    let first = build("1.tar");
    std::fs::File::open(env.work().join("d/tool"))
        .unwrap()
        .set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(100))
        .unwrap();
    assert_eq!(first, build("2.tar"));
    assert!(
        std::fs::read(env.work().join("1.tar")).unwrap() == std::fs::read(env.work().join("2.tar")).unwrap()
    );
}

#[test]
fn several_platforms_make_an_index_that_is_pushed_whole() {
    need!("docker-registry", "skopeo");
    let env = Env::new();
    let name = format!("{}/made:both", shared_registry().host());
    env.write("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /for-$TARGETARCH\n");
    let both = ["--platform", "linux/amd64,linux/arm64"];
    let build = ["build", "-t", &name, "--push", "--metadata-file", "meta", "--iidfile", "id"];
    env.run(build.into_iter().chain(both).chain(["."])).success();
    let index = shared_registry().inspect("made:both", &["--raw"]);
    let architectures: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["platform"]["architecture"].clone())
        .collect();
    assert_eq!(architectures, ["amd64", "arm64"]);
    let meta: serde_json::Value = serde_json::from_str(&read(&env.work().join("meta"))).unwrap();
    assert_eq!(
        (meta["image.name"].as_str(), meta["containerimage.digest"].as_str()),
        (Some(name.as_str()), Some(read(&env.work().join("id")).as_str()))
    );
    env.run(["build", "-o", "files"].into_iter().chain(both).chain(["."])).success();
    assert!(env.work().join("files/linux_arm64/for-arm64").exists());
    env.run(["build", "-o", "type=docker,dest=x.tar"].into_iter().chain(both).chain(["."]))
        .code(1)
        .stderr_has("manifest lists");
    env.run(["build", "--push", "."]).code(1).stderr_has("a tag is needed");
}

#[test]
fn docker_media_types_are_had_by_format_or_by_output() {
    need!("docker-registry", "skopeo");
    let env = small();
    let host = shared_registry().host();
    let output = format!("type=registry,name={host}/made:docker,oci-mediatypes=false");
    env.run(["build", "-o", &output, "."]).success();
    let manifest = shared_registry().inspect("made:docker", &["--raw"]);
    assert_eq!(manifest["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    env.run(["build", "--format", "docker", "-t", "x", "."]).success();
    env.run(["inspect", "-f", "{{.Config.Labels.a}}", "x"]).success().prints("b");
}
