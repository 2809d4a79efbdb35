//! Attacks on those who look at containers and images from outside: `doc/security.md` says which number means what.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Env, Hostile, must, need};

/// A tool that tells that it was run.
fn trap(env: &Env, dir: &str, names: &[&str]) -> String {
    let script = format!("#!/bin/sh\ntouch {}\nexit 0\n", env.work().join("pwned").display());
    for name in names {
        let path = env.write(&format!("{dir}/{name}"), &script);
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    env.work().join(dir).display().to_string()
}

#[test]
fn c14_a_planted_link_is_no_log_and_output_without_end_is_bounded() {
    need!("busybox");
    let env = Env::new();
    Hostile::new().load(&env, "evil");
    let canary = env.write("canary", "host\n");
    let script = "echo written; echo more >&2";
    let id = env.run(["create", "--name", "c", "--network", "none", "evil", "sh", "-c", script]).success();
    let log = env.store().join("containers").join(id.text()).join("log");
    let _ = std::fs::remove_file(&log);
    symlink(&canary, &log).unwrap();
    env.run(["start", "-a", "c"]);
    assert_eq!(std::fs::read_to_string(&canary).unwrap(), "host\n");
    let said = env.run(["logs", "c"]);
    assert!(!said.stdout.contains("host"), "{said}");
    // One line of 20 MB, without an end.
    let script = "head -c 20000000 /dev/zero | tr '\\0' x";
    env.run(["run", "-d", "--name", "big", "--network", "none", "evil", "sh", "-c", script]).success();
    env.run(["wait", "big"]).success().prints("0");
    assert_eq!(env.run(["logs", "big"]).success().stdout.len(), 20_000_000);
    env.run(["rm", "-f", "big", "c"]).success();
}

#[test]
fn c15_no_program_of_the_container_is_run_for_our_own_purposes() {
    need!("busybox");
    let env = Env::new();
    let evil = "#!/bin/busybox sh\n/bin/busybox touch /pwned\n";
    let tools = ["tar", "nsenter", "xz", "gzip", "unpigz", "zstd", "chown", "newuidmap", "getent", "top"];
    let image = tools.iter().fold(Hostile::new().dir("etc/").dir("usr/").dir("usr/bin/"), |image, name| {
        image.file(&format!("usr/bin/{name}"), 0o755, evil)
    });
    // The C library's plug-ins, were one to look up names in here with it.
    let image = image
        .file("etc/nsswitch.conf", 0o644, "passwd: evil\ngroup: evil\n")
        .dir("lib/")
        .file("lib/libnss_evil.so.2", 0o755, evil)
        .file("etc/ld.so.preload", 0o644, "/lib/libnss_evil.so.2\n");
    image.config("Env", json!(["PATH=/usr/bin:/bin"])).load(&env, "evil");
    let sleep = ["evil", "/bin/busybox", "sleep", "100"];
    env.run(["run", "-d", "--name", "c", "--network", "none"].iter().chain(&sleep)).success();
    env.write("file", "one");
    must(Command::new("tar").args(["-czf", "in.tgz", "file"]).current_dir(env.work()));
    env.run(["exec", "c", "/bin/busybox", "mkdir", "-p", "/tmp"]).success();
    env.run(["exec", "c", "/bin/busybox", "rm", "-f", "/bin/sh", "/bin/cat", "/bin/ls"]).success();
    env.run(["cp", "file", "c:/tmp/file"]).success();
    env.run(["cp", "c:/tmp/file", "out"]).success();
    let input = std::fs::File::open(env.work().join("in.tgz")).unwrap();
    assert!(env.command(["cp", "-", "c:/tmp"]).stdin(input).status().unwrap().success());
    env.run(["top", "c"]).success().stdout_has("sleep");
    env.run(["diff", "c"]).success();
    env.run(["export", "-o", "export.tar", "c"]).success();
    env.run(["commit", "-q", "c", "kept"]).success();
    env.run(["logs", "c"]).success();
    env.run(["inspect", "c"]).success();
    env.run(["exec", "c", "/bin/busybox", "test", "-e", "/pwned"]).code(1);
    env.run(["rm", "-f", "c"]).success();
}

#[test]
fn c17_names_of_containers_are_names() {
    need!("busybox");
    let env = Env::new();
    Hostile::new().load(&env, "evil");
    let long = "x".repeat(4096);
    for name in ["../x", "a/b", "-v", ".hidden", "a\u{202e}b", "a b", "a\nb", "é", "", "x\u{1b}[31m", &long]
    {
        let flag = format!("--name={name}");
        env.run(["create", &flag, "--network", "none", "evil", "true"]).code(125);
        env.run(["run", "--rm", &flag, "--network", "none", "evil", "true"]).code(125);
    }
    env.run(["create", "--name", "good", "--network", "none", "evil", "true"]).success();
    for name in ["../x", "a/b", &long] {
        assert_ne!(env.run(["rename", "good", name]).code, 0);
    }
    for word in ["../../../etc", "..", ".", "*"] {
        assert_ne!(
            env.run(["rm", "-f", "--", word]).code | env.run(["inspect", "--", word]).code,
            0,
            "{word}"
        );
    }
    env.run(["ps", "-a", "--format", "{{.Names}}"]).success().prints("good");
}

#[test]
fn p1_the_hosts_files_keep_mode_and_owner_and_a_pipe_holds_nobody_up() {
    need!("busybox");
    let env = Env::new();
    Hostile::new().dir("d/").pipe("pipe").file("d/suid", 0o6777, "x").load(&env, "evil");
    env.run(["create", "--name", "c", "--network", "none", "evil", "true"]).success();
    let dir = env.work().join("here");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o711)).unwrap();
    env.run(["cp", "c:/d/.", "here"]).success();
    let mode = |path: &std::path::Path| path.symlink_metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&dir), 0o711, "the directory that was there");
    assert_eq!(mode(&dir.join("suid")), 0o777, "no set-id bit is lent our name");
    let start = Instant::now();
    env.run(["cp", "c:/pipe", "out"]);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        env.work().join("fifo"),
        rustix::fs::FileType::Fifo,
        0o644.into(),
        0,
    )
    .unwrap();
    env.run(["cp", "fifo", "c:/fifo"]);
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // A hole of a terabyte costs nothing.
    std::fs::File::create(env.work().join("hole")).unwrap().set_len(1 << 40).unwrap();
    let mut child = env.command(["cp", "hole", "c:/hole"]).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let _ = child.kill();
    let _ = child.wait();
    env.run(["rm", "c"]).success();
}

#[test]
fn p2_what_is_compressed_is_unpacked_by_ourselves() {
    need!("busybox", "tar", "gzip", "xz");
    let tools = ["xz", "gzip", "unxz", "gunzip", "pigz", "unpigz", "bzip2", "zstd", "tar"];
    let plain = Env::new();
    let path = trap(&plain, "evil", &tools);
    let env = plain.with("PATH", format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin"));
    Hostile::new().load(&env, "evil");
    env.run(["create", "--name", "c", "--network", "none", "evil", "cat", "/file"]).success();
    for (flag, name) in [("-cJf", "a.xz"), ("-czf", "a.gz")] {
        env.write("file", name);
        must(Command::new("tar").args([flag, name, "file"]).current_dir(env.work()));
        let input = std::fs::File::open(env.work().join(name)).unwrap();
        assert!(env.command(["cp", "-", "c:/"]).stdin(input).status().unwrap().success(), "{name}");
        env.run(["start", "-a", "c"]).success().prints(name);
        assert_eq!(env.run(["import", "-q", name]).code, env.run(["import", name]).code);
    }
    assert!(!env.work().join("pwned").exists(), "a program was started");
    env.run(["rm", "c"]).success();
}

#[test]
fn p4_an_output_file_is_no_link_that_somebody_left_and_no_half_one_stays() {
    need!("busybox");
    let env = Env::new();
    Hostile::new().load(&env, "evil");
    env.run(["create", "--name", "c", "--network", "none", "evil", "true"]).success();
    let sticky = env.work().join("tmp");
    std::fs::create_dir(&sticky).unwrap();
    std::fs::set_permissions(&sticky, std::fs::Permissions::from_mode(0o1777)).unwrap();
    let canary = env.write("canary", "host\n");
    for args in [["save", "-o", "tmp/out", "evil"], ["export", "-o", "tmp/out", "c"]] {
        symlink(&canary, sticky.join("out")).unwrap();
        env.run(args);
        assert_eq!(std::fs::read_to_string(&canary).unwrap(), "host\n", "{args:?}");
        let _ = std::fs::remove_file(sticky.join("out"));
    }
    for args in
        [["save", "-o", "tmp/half", "no-such-image"], ["export", "-o", "tmp/half", "no-such-container"]]
    {
        assert_ne!(env.run(args).code, 0);
        assert_eq!(std::fs::read_dir(&sticky).unwrap().count(), 0, "{args:?}");
    }
}

#[test]
fn p5_hostile_words_do_nothing_to_a_terminal() {
    need!("busybox", "setsid");
    let env = Env::new();
    let hostile = "\u{1b}]52;c;ZXZpbA==\u{7}\u{1b}[2J\u{202e}\r";
    Hostile::new()
        .file(&format!("{}name", "\u{1b}[31m"), 0o644, "x")
        .config("Labels", json!({ "evil": hostile, "template": "{{.Id}}" }))
        .config("Cmd", json!(["sh", "-c", format!(": {hostile}")]))
        .config("Env", json!([format!("A={hostile}"), "PATH=/bin"]))
        .load(&env, "evil");
    env.run(["create", "--name", "c", "--network", "none", "evil"]).success();
    for args in [
        &["images"][..],
        &["images", "--format", "{{.Repository}}"],
        &["history", "--no-trunc", "evil"],
        &["ps", "-a", "--no-trunc"],
        &["ps", "-a", "--format", "{{.Command}} {{.Labels}}"],
        &["inspect", "evil"],
        &["inspect", "-f", "{{.Config.Labels}} {{index .Config.Labels \"evil\"}} {{.Config.Env}}", "evil"],
        &["inspect", "-f", "{{index .Config.Labels \"evil\"}}", "c"],
        &["run", "--rm", "--network", "none", "--user", hostile, "evil"],
        &["run", "--rm", "--network", "none", "evil", hostile],
        &["pull", hostile],
        &["create", "--name", hostile, "evil"],
        &["inspect", hostile],
    ] {
        let mut pty = env.pty(args);
        pty.wait();
        std::thread::sleep(Duration::from_millis(50));
        let text = pty.text();
        assert!(
            !text.contains("\u{1b}]52") && !text.contains("\u{1b}[2J") && !text.contains('\u{202e}'),
            "{args:?}: {text:?}"
        );
    }
    // As data they are whole, and as JSON escaped.
    let json = env.run(["inspect", "evil"]).success();
    assert!(!json.stdout.contains('\u{1b}'), "{json}");
    assert_eq!(json.json()[0]["Config"]["Labels"]["evil"], hostile);
    env.run(["inspect", "-f", "{{index .Config.Labels \"template\"}}", "evil"]).success().prints("{{.Id}}");
    for call in ["{{readFile \"/etc/passwd\"}}", "{{exec \"id\"}}", "{{env \"HOME\"}}", "{{include \"x\"}}"] {
        assert_ne!(env.run(["inspect", "-f", call, "evil"]).code, 0, "{call}");
    }
    env.run(["rm", "c"]).success();
}

#[test]
fn p6_a_hostile_root_is_mounted_beneath_itself() {
    need!("busybox");
    let env = Env::new();
    let canary = env.write("canary/secret", "host\n");
    let dir = canary.parent().unwrap().to_owned();
    Hostile::new()
        .link("etc", &dir)
        .link("lead", "/proc/self/root")
        .link("up", "../../../..")
        .load(&env, "evil");
    env.run(["create", "--name", "c", "--network", "none", "evil", "true"]).success();
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let script = "dir=$(\"$0\" mount c) || exit 1; ls $dir/bin/busybox && readlink $dir/etc; \"$0\" umount c";
    let said = env.run(["unshare", "sh", "-c", script, &crate::support::strate().display().to_string()]);
    said.success().stdout_has("/bin/busybox").stdout_has(&dir.display().to_string());
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count(), before);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(&canary).unwrap(), "host\n");
    env.run(["rm", "c"]).success();
}
