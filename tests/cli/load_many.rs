//! An archive of many images is taken in together.

use std::fmt::Write;

use crate::support::fake::{digest, tar};
use crate::support::{Env, Output, need};

/// An archive as `docker save` writes it, of images that share a layer.
fn archive(env: &Env, images: usize) -> String {
    let layer = tar(&[("file", b"content")]);
    let config = |image: usize| {
        let diff_id = digest(&layer);
        format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Labels":{{"n":"{image}"}}}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
        )
    };
    let names: Vec<String> = (0..images).map(|image| format!("{image}.json")).collect();
    let configs: Vec<String> = (0..images).map(config).collect();
    let mut manifest = String::new();
    for (image, name) in names.iter().enumerate() {
        let comma = if image == 0 { "[" } else { "," };
        write!(
            manifest,
            r#"{comma}{{"Config":"{name}","RepoTags":["many:{image}"],"Layers":["layer.tar"]}}"#
        )
        .unwrap();
    }
    manifest.push(']');
    let mut files: Vec<(&str, &[u8])> = vec![("layer.tar", &layer), ("manifest.json", manifest.as_bytes())];
    files.extend(names.iter().zip(&configs).map(|(name, config)| (name.as_str(), config.as_bytes())));
    env.write("many.tar", tar(&files)).display().to_string()
}

#[test]
fn names_of_many_images_are_written_together() {
    need!("strace");
    let env = Env::new();
    let archive = archive(&env, 150);
    let trace = env.work().join("trace");
    let mut command = env.program("strace");
    command.args(["-f", "-qq", "-e", "trace=rename,renameat,renameat2", "-o"]).arg(&trace);
    let output = Output::of(command.arg(crate::support::strate()).args(["load", "-i", &archive]));
    if output.stderr.contains("PTRACE_TRACEME") {
        return crate::support::skip("nothing may be traced here");
    }
    let output = output.success();
    assert_eq!(output.stdout.matches("Loaded image: many:").count(), 150);
    let trace = std::fs::read_to_string(trace).unwrap();
    let lists = trace.lines().filter(|line| line.trim_end().contains("/index.json\"")).count();
    assert!((1..=40).contains(&lists), "the list of names is written {lists} times");
    assert_eq!(env.run(["images", "-q"]).success().text().lines().count(), 150);
    env.run(["system", "check"]).success();
    // Once more: nothing moves.
    env.run(["load", "-q", "-i", &archive]).success();
    assert_eq!(env.run(["images", "-aq"]).success().text().lines().count(), 150);
}

#[test]
fn what_came_before_a_bad_image_has_its_name() {
    let env = Env::new();
    env.run(["load", "-i", &archive(&env, 5)]).success();
    let names: Vec<String> = (0..5).map(|image| format!("many:{image}")).collect();
    let save = ["save", "--format", "oci-dir", "-o", "layout"].map(str::to_owned);
    env.run(save.iter().chain(&names)).success();
    let id = env.run(["image", "inspect", "-f", "{{.Id}}", "many:3"]).success();
    let blob = env.work().join("layout/blobs/sha256").join(id.text().trim_start_matches("sha256:"));
    std::fs::write(&blob, "{}").unwrap();
    let load = ["--root", "another", "load", "-i", "layout"];
    let output = env.run(load).code(1).stderr_has(&blob.file_name().unwrap().to_string_lossy()[..12]);
    for name in &names[..3] {
        assert!(output.stdout.contains(name), "{output}");
    }
    assert_eq!(env.run(["--root", "another", "images", "-q"]).success().text().lines().count(), 3);
    env.run(["--root", "another", "system", "check"]).success();
}

#[test]
fn a_bad_config_in_an_archive_of_many_is_told_before_any_is_taken() {
    let env = Env::new();
    let archive = archive(&env, 5);
    let mut bytes = std::fs::read(&archive).unwrap();
    let at = bytes.windows(9).position(|window| window == br#"{"n":"3"}"#).unwrap();
    bytes[at] = b'!';
    std::fs::write(&archive, bytes).unwrap();
    env.run(["load", "-i", &archive]).code(1).prints("").stderr_has("3.json");
    env.run(["images", "-aq"]).success().prints("");
}
