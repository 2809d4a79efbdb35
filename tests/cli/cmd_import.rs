//! `export` and `import`

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

use crate::cmd_save::{env_with_image, pipe};
use crate::support::{Env, Tree, need, program};

/// A container with changes of every kind, and what `export` makes of it.
fn exported(env: &Env) -> Tree {
    let script = "echo new > /new && rm /data/one && chmod 700 /home/user && ln -s new /link && \
                  mkdir -p /deep/er && chown 1000:100 /deep && mkfifo /pipe && echo in > /volume/inside";
    env.run(["run", "--name", "c", "-v", "/volume", "app:1", "sh", "-c", script]).success();
    env.run(["export", "-o", "c.tar", "c"]).success().prints("");
    Tree::of_tar(&std::fs::read(env.work().join("c.tar")).unwrap())
}

#[test]
fn an_exported_container_is_its_image_with_its_changes() {
    need!("skopeo", "busybox");
    let env = env_with_image();
    let tree = exported(&env);
    let entry = |path: &str| tree.0.get(path).unwrap_or_else(|| panic!("no {path} in {:?}", tree.0.keys()));
    assert_eq!((entry("new").kind, entry("new").mode), ('-', 0o644));
    assert_eq!((entry("tmp").kind, entry("tmp").mode), ('d', 0o1777));
    assert_eq!((entry("home/user").mode, entry("home/user").uid), (0o700, 1000));
    assert_eq!((entry("deep").uid, entry("deep").gid), (1000, 100));
    assert_eq!((entry("data/same").kind, entry("data/same").uid), ('-', 1000));
    assert_eq!((entry("link").kind, entry("bin/sh").kind, entry("pipe").kind), ('l', 'l', 'p'));
    let mut names = Vec::new();
    for entry in tar::Archive::new(File::open(env.work().join("c.tar")).unwrap()).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().display().to_string());
    }
    for path in [
        "data/one",
        "volume/",
        "volume/inside",
        "etc/resolv.conf",
        "etc/hostname",
        "dev/null",
        "data/.wh.one",
    ] {
        assert!(!names.iter().any(|name| name == path), "{path} is not of the container's file system");
    }
    // The same comes to standard output, and in any order of events.
    let out = env.command(["export", "c"]).output().unwrap();
    assert!(out.status.success());
    assert!(out.stdout == std::fs::read(env.work().join("c.tar")).unwrap());
    env.run(["export", "-o", "none.tar", "no-such"]).code(1).stderr_has("strate ps -a");
    let mut pty = env.pty(["export", "c"]);
    pty.expect("refusing to write an archive to a terminal");
}

#[test]
fn a_running_container_is_exported_as_it_is() {
    need!("skopeo", "busybox");
    let env = env_with_image();
    env.run(["run", "-d", "--name", "c", "app:1", "sh", "-c", "echo now > /now; sleep 60"]).success();
    crate::support::eventually("the file", std::time::Duration::from_secs(10), || {
        let done = env.run(["exec", "c", "cat", "/now"]);
        (done.code == 0 && done.text() == "now").then_some(())
    });
    env.run(["export", "-o", "c.tar", "c"]).success();
    let tree = Tree::of_tar(&std::fs::read(env.work().join("c.tar")).unwrap());
    assert!(tree.0.contains_key("now") && tree.0.contains_key("bin/busybox"));
    env.run(["exec", "c", "sh", "-c", "echo still > /still && cat /still"]).success().prints("still");
    env.run(["rm", "-f", "c"]).success();
}

#[test]
fn an_export_imported_runs_again() {
    need!("skopeo", "busybox");
    let env = env_with_image();
    let before = exported(&env);
    let changes = ["-c", "CMD [\"cat\", \"/new\"]", "--change", "ENV A=b\nLABEL x=y", "-m", "from a test"];
    let mut args = vec!["import"];
    args.extend(changes);
    args.extend(["--platform", "linux/arm64/v8", "c.tar", "made:1"]);
    let id = env.run(&args).success().text().to_owned();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    let shown = env.run(["image", "inspect", "made:1"]).success().json()[0].clone();
    assert_eq!(shown["Id"], id.as_str());
    assert_eq!((&shown["Os"], &shown["Architecture"]), (&"linux".into(), &"arm64".into()));
    assert_eq!(shown["Config"]["Cmd"], serde_json::json!(["cat", "/new"]));
    assert_eq!(shown["Config"]["Labels"]["x"], "y");
    env.run(["history", "--format", "{{.Comment}}", "made:1"]).success().prints("from a test");
    // For this machine's platform it runs.
    let all =
        pipe((&env, &["export", "c"]), (&env, &["import", "-c", "CMD [\"cat\", \"/new\"]", "-", "here:1"]));
    all.success();
    env.run(["run", "--rm", "here:1"]).success().prints("new");
    env.run(["run", "--name", "d", "here:1"]).success();
    env.run(["export", "-o", "d.tar", "d"]).success();
    let after = Tree::of_tar(&std::fs::read(env.work().join("d.tar")).unwrap());
    let differences = before.differences(&after);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn small_tar(env: &Env) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(5);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", &b"hello"[..]).unwrap();
    let bytes = tar.into_inner().unwrap();
    env.write("x.tar", &bytes);
    bytes
}

#[test]
fn the_same_tar_gives_the_same_layer_however_it_comes() {
    let env = Env::new();
    let bytes = small_tar(&env);
    let layer = |id: &str| {
        env.run(["image", "inspect", "--format", "{{json .RootFS.Layers}}", id]).success().text().to_owned()
    };
    let id = env.run(["import", "x.tar"]).success().text().to_owned();
    let expected = layer(&id);
    env.run(["images", "-q", "--no-trunc"]).success().prints(&id);
    for tool in ["gzip", "xz", "zstd", "bzip2"] {
        if program(tool).is_none() {
            continue;
        }
        let packed = File::create(env.work().join(tool)).unwrap();
        let input = File::open(env.work().join("x.tar")).unwrap();
        assert!(Command::new(tool).arg("-c").stdin(input).stdout(packed).status().unwrap().success());
        let id = env.run(["import", tool, "packed:1"]).success().text().to_owned();
        assert_eq!(layer(&id), expected, "{tool}");
    }
    // And from an address.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x.tar", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        for body in [Some(&bytes[..]), Some(&bytes[..600]), None] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap();
            assert!(!String::from_utf8_lossy(&request[..length]).to_lowercase().contains("authorization"));
            let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
            let head =
                format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", bytes.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body.unwrap_or(&bytes)).unwrap();
        }
    });
    let id = env.run(["import", &url, "from/url:1"]).success().text().to_owned();
    assert_eq!(layer(&id), expected);
    env.run(["import", &url, "cut:1"]).code(1);
    env.run(["import", &url, "missing:1"]).code(1).stderr_has("404");
    server.join().unwrap();
    env.run(["images", "--format", "{{.Repository}}"]).success().stdout_has("from/url");
    env.run(["image", "inspect", "cut:1"]).code(1);
}

#[test]
fn what_cannot_be_imported_is_refused() {
    let env = Env::new();
    small_tar(&env);
    env.write("text", "no tar at all\n".repeat(200));
    env.run(["import", "text", "x:1"]).code(1).stderr_has("not a valid tar");
    env.run_with_input(["import", "-", "x:1"], "").code(1).stderr_has("`standard input`: it is empty");
    env.run(["import", "missing.tar"]).code(1).stderr_has("missing.tar");
    env.run(["import", "-c", "RUN true", "x.tar"]).code(1).stderr_has("RUN");
    env.run(["import", "x.tar", "UPPER:1"]).code(1).stderr_has("UPPER");
    env.run(["import", "x.tar", &format!("x@sha256:{}", "0".repeat(64))]).code(1);
    env.run(["images", "-aq"]).success().prints("");
    let mut pty = env.pty(["import", "-"]);
    pty.expect("refusing to read an archive from a terminal");
}
