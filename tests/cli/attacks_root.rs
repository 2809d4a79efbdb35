//! Attacks by what lies in an image or a volume on whoever starts a container of it: `doc/security.md` says which number
//! means what.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;

use crate::support::{Env, Hostile, Output, is_root, need};

fn run(env: &Env, args: &[&str]) -> Output {
    env.run(["run", "--rm", "--network", "none"].iter().chain(args))
}

/// A directory of the host with a secret, and what it holds.
struct Canary(PathBuf);

impl Canary {
    fn new(env: &Env) -> Self {
        let file = env.write("canary/secret", "host\n");
        std::fs::create_dir(env.work().join("canary/dir")).unwrap();
        Self(file.parent().unwrap().to_owned())
    }

    #[track_caller]
    fn is_untouched(&self) {
        use std::os::unix::fs::MetadataExt;
        let mut names: Vec<_> =
            std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["dir", "secret"]);
        assert_eq!(std::fs::read_dir(self.0.join("dir")).unwrap().count(), 0);
        assert_eq!(std::fs::read_to_string(self.0.join("secret")).unwrap(), "host\n");
        let own = rustix::process::getuid().as_raw();
        for path in ["", "dir", "secret"] {
            let meta = std::fs::metadata(self.0.join(path)).unwrap();
            assert_eq!((meta.uid(), meta.mode() & 0o7000), (own, 0), "{path}");
        }
    }
}

#[test]
fn c3_links_in_place_of_the_usual_directories_lead_nowhere() {
    need!("busybox", "setsid");
    let env = Env::new();
    let canary = Canary::new(&env);
    let up = format!("../../../../../../../../..{}/dir", canary.0.display());
    for (nth, target) in
        [canary.0.join("dir"), PathBuf::from(up), "/proc/self/root".into(), "/".into()].iter().enumerate()
    {
        let name = format!("evil{nth}");
        let links = ["dev", "proc", "sys", "etc", "tmp", "run", "var", "data"];
        links.iter().fold(Hostile::new(), |image, path| image.link(path, target)).load(&env, &name);
        // Whether it starts is not the point, but that it wrote nowhere else, and shows nothing of the host.
        for flags in [&[][..], &["-v", "vol:/data/x", "-w", "/tmp/made", "--tmpfs", "/var/x", "-u", "1"]] {
            let said = run(
                &env,
                &[flags, &[&name, "sh", "-c", "cat /dev/secret /data/secret; echo x > /etc/x"]].concat(),
            );
            assert!(!said.stdout.contains("host"), "{said}");
        }
        canary.is_untouched();
        let mut pty = env.pty(["run", "-it", "--rm", "--network", "none", &name, "true"]);
        pty.wait();
        canary.is_untouched();
    }
    // Within a directory of its own, and of the masks.
    Hostile::new()
        .dir("dev/")
        .link("dev/null", canary.0.join("secret"))
        .link("dev/pts", &canary.0)
        .link("dev/console", canary.0.join("console"))
        .link("dev/shm", canary.0.join("dir"))
        .dir("sys/")
        .link("sys/firmware", canary.0.join("dir"))
        .load(&env, "nodes");
    run(&env, &["nodes", "sh", "-c", "echo x > /dev/null; cat /dev/null; echo y > /dev/shm/y"])
        .success()
        .prints("");
    let mut pty = env.pty([
        "run",
        "-it",
        "--rm",
        "--network",
        "none",
        "nodes",
        "sh",
        "-c",
        "echo x > /dev/console; readlink /dev/pts",
    ]);
    pty.wait();
    assert!(!pty.text().contains("canary"), "{}", pty.text());
    canary.is_untouched();
}

/// How often containers are started while somebody swaps what they mount on. More of them by `STRATE_ATTACK_LOOPS=10000`.
fn loops() -> usize {
    std::env::var("STRATE_ATTACK_LOOPS").ok().and_then(|text| text.parse().ok()).unwrap_or(40)
}

#[test]
fn c4_a_mount_target_that_is_swapped_leads_nowhere() {
    need!("busybox");
    let env = Env::new();
    Hostile::new().load(&env, "evil");
    let canary = Canary::new(&env);
    let shared = env.work().join("shared");
    for dir in ["shared/a/b", "inner"] {
        std::fs::create_dir_all(env.work().join(dir)).unwrap();
    }
    env.write("inner/mark", "inner\n");
    symlink(&canary.0, shared.join("link")).unwrap();
    let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let swapper = {
        let (stop, swaps, shared) = (Arc::clone(&stop), Arc::clone(&swaps), shared.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = renameat_with(CWD, shared.join("a"), CWD, shared.join("link"), RenameFlags::EXCHANGE);
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let volumes =
        [format!("{}:/vol", shared.display()), format!("{}:/vol/a/dir", env.work().join("inner").display())];
    let script = "cat /vol/a/secret /vol/a/dir/secret /canary/secret; cat /vol/a/dir/mark; echo x > /vol/a/dir/written";
    let mut started = 0;
    for _ in 0..loops() {
        let said = run(
            &env,
            &["-v", &volumes[0], "-v", &volumes[1], "--tmpfs", "/vol/a/b", "evil", "sh", "-c", script],
        );
        assert!(!said.stdout.contains("host"), "{said}");
        started += usize::from(said.stdout.contains("inner"));
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    canary.is_untouched();
    assert!(swaps.load(Ordering::Relaxed) > loops(), "nothing was swapped");
    assert!(started > 0, "no container came up between the swaps");
}

#[test]
fn c5_nothing_is_mounted_over_or_into_proc_and_read_only_goes_all_the_way_down() {
    need!("busybox", "unshare");
    let env = Env::new();
    Hostile::new().dir("real/").link("lead", "/proc").link("target", "/real").load(&env, "evil");
    env.write("fake/self/attr/current", "fake\n");
    env.write("fake/mark", "fake\n");
    let fake = env.work().join("fake").display().to_string();
    for target in [
        "/proc",
        "/proc/self",
        "/proc/self/attr",
        "/proc/1/attr/current",
        "/lead",
        "/lead/self/attr",
        "/proc/sys",
    ] {
        run(&env, &["-v", &format!("{fake}:{target}"), "evil", "cat", "/proc/mark"]).code(125).prints("");
        run(&env, &["--tmpfs", target, "evil", "true"]).code(125);
    }
    run(&env, &["-v", &format!("{fake}:/target"), "evil", "cat", "/real/mark"]).success().prints("fake");
    // A mount below the source.
    let script = format!("mount -t tmpfs none {fake}/self && touch {fake}/self/x && exec \"$@\"",);
    let nested = |option: &str| {
        let mut unshare = env.program("unshare");
        unshare.arg(if is_root() { "-m" } else { "-Urm" }).args(["sh", "-c", &script, "sh"]);
        unshare.arg(crate::support::strate()).args(["run", "--rm", "--network", "none"]);
        unshare.args(["-v", &format!("{fake}:/mnt:{option}"), "evil"]);
        Output::of(unshare.args(["sh", "-c", "ls /mnt/self; touch /mnt/self/y; touch /mnt/y; echo $?"]))
    };
    nested("rw").stdout_has("x\n0");
    nested("ro").stdout_has("x\n1").stderr_has("/mnt/self/y: Read-only").stderr_has("/mnt/y: Read-only");
}

#[test]
fn c12_files_of_the_host_are_not_what_the_container_writes() {
    need!("busybox");
    let env = Env::new();
    Hostile::new().load(&env, "evil");
    let files = ["/etc/resolv.conf", "/etc/hosts", "/etc/hostname"];
    let read = || files.map(|path| std::fs::read(path).unwrap_or_default());
    let before = read();
    let script = "for f in resolv.conf hosts hostname; do echo evil > /etc/$f; chmod 777 /etc/$f; done; cat /etc/hosts";
    for network in ["none", "host"] {
        env.run(["run", "--rm", "--network", network, "evil", "sh", "-c", script]).success().prints("evil");
        env.run(["run", "--rm", "--network", network, "evil", "cat", "/etc/hosts"])
            .success()
            .stdout_lacks("evil");
    }
    assert_eq!(read(), before);
}

/// Who a program runs as, by what the image's files say; 125 for what makes no sense.
#[test]
fn m9_users_and_groups_by_hostile_files() {
    need!("busybox");
    let env = Env::new();
    let passwd = "root:x:0:0::/:/bin/sh\n1:x:0:0::/:/bin/sh\n5000:x:0:0::/:/bin/sh\nbig:x:4294967296:0::/:\nminus:x:-1:0::/:\nlast:x:7:7::/:/bin/sh";
    Hostile::new().dir("etc/").file("etc/passwd", 0o644, passwd).load(&env, "evil");
    for user in [
        "4294967296",
        "4294967295",
        "2147483648",
        "-1",
        "root\n",
        "big",
        "minus",
        "nobody",
        "0:-1",
        "0:4294967296",
        "99999999999999999999",
    ] {
        run(&env, &[&format!("--user={user}"), "evil", "id", "-u"]).code(125).prints("");
    }
    run(&env, &["-u", "1", "evil", "id", "-u"]).success().prints("1");
    run(&env, &["-u", "5000:1", "evil", "id", "-u"]).success().prints("5000");
    run(&env, &["-u", "last", "evil", "id", "-u"]).success().prints("7");
    env.run(["run", "-d", "--name", "c", "--network", "none", "evil", "sleep", "100"]).success();
    env.run(["exec", "-u", "1", "c", "id", "-u"]).success().prints("1");
    for user in ["4294967296", "-1", "big", "root\n"] {
        let output = env.run(["exec", &format!("--user={user}"), "c", "id", "-u"]);
        assert!(output.code != 0 && output.stdout.is_empty(), "{output}");
    }
    env.run(["rm", "-f", "c"]).success();
    for (config, code) in [("4294967296", 125), ("-1", 125), ("root\n", 125), ("1", 0), ("last", 0)] {
        let image =
            Hostile::new().dir("etc/").file("etc/passwd", 0o644, passwd).config("User", json!(config));
        image.load(&env, "configured");
        let said = run(&env, &["configured", "id", "-u"]).code(code);
        assert!(said.text() != "0", "{said}");
    }
}

#[test]
fn m9_passwd_and_group_are_no_files_or_without_end() {
    need!("busybox");
    let env = Env::new();
    let canary = env.write("passwd", "spy:x:0:0:spy:/spy:/bin/sh\n");
    let within = |image: Hostile, name: &str, user: &str| {
        image.load(&env, name);
        let start = Instant::now();
        let said = run(&env, &["-u", user, name, "id", "-u"]);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        said
    };
    for file in ["etc/passwd", "etc/group"] {
        let user = if file == "etc/group" { "1:spy" } else { "spy" };
        within(Hostile::new().dir("etc/").link(file, &canary), "link", user).code(125);
        within(Hostile::new().dir("etc/").pipe(file), "pipe", user).code(125).stderr_has("regular file");
        within(Hostile::new().dir("etc/").dir(&format!("{file}/")), "dir", user).code(125);
        let long = vec![b'x'; 11 << 20];
        within(Hostile::new().dir("etc/").file(file, 0o644, &long), "long", user)
            .code(125)
            .stderr_has("larger");
        within(Hostile::new().dir("etc/").file(file, 0o644, &long), "numbers", "3:4").success().prints("3");
    }
}

#[test]
fn m10_working_directories_lead_nowhere() {
    need!("busybox");
    let env = Env::new();
    let canary = Canary::new(&env);
    let long = format!("/{}", "x/".repeat(2500));
    for dir in [
        "/proc/self/fd/7",
        "/proc/self/cwd/..",
        "/proc/self/root",
        "/proc/1/cwd",
        "/proc/thread-self/root/x",
        &long,
        "/bin/sh",
        "a\0b",
    ] {
        let image = Hostile::new().config("WorkingDir", json!(dir));
        image.load(&env, "evil");
        let said = run(&env, &["evil", "cat", "secret"]);
        assert!(said.code != 0 && said.stdout.is_empty(), "{dir}: {said}");
    }
    let up = format!("../../../../../../../..{}", canary.0.display());
    for target in [canary.0.display().to_string(), up] {
        Hostile::new().link("lead", target).config("WorkingDir", json!("/lead/dir/made")).load(&env, "evil");
        run(&env, &["evil", "sh", "-c", "cat ../secret ../../secret; echo x > here"]).prints("");
        canary.is_untouched();
    }
    for (dir, expected) in [("relative/dir", "/relative/dir"), ("/a/../../../b", "/b"), ("", "/")] {
        Hostile::new().config("WorkingDir", json!(dir)).load(&env, "plain");
        run(&env, &["plain", "pwd"]).success().prints(expected);
    }
}

#[test]
fn m11_entrypoints_that_are_no_programs() {
    need!("busybox");
    let env = Env::new();
    let image = Hostile::new()
        .dir("dir/")
        .pipe("pipe")
        .file("loop", 0o755, "#!/loop\n")
        .file("a", 0o755, "#!/b\n")
        .file("b", 0o755, "#!/a\n")
        .link("round", "round")
        .file("empty", 0o755, "")
        .file("text", 0o644, "text")
        .file("noise", 0o755, [0u8, 1, 2, 3, 255])
        .file("gone", 0o755, "#!/no/such/interpreter\n");
    image.load(&env, "evil");
    for (program, codes) in [
        ("/missing", &[127][..]),
        ("missing", &[127]),
        ("/dir", &[126]),
        ("/pipe", &[126]),
        ("/loop", &[126]),
        ("/a", &[126]),
        ("/round", &[126, 127]),
        ("/text", &[126]),
        ("/noise", &[126]),
        ("/gone", &[126, 127]),
        ("/", &[126]),
    ] {
        let start = Instant::now();
        let said = run(&env, &["--entrypoint", program, "evil", "x"]);
        assert!(codes.contains(&said.code), "{program}: {said}");
        assert!(said.stdout.is_empty() && said.stderr.contains(program), "{said}");
        assert!(start.elapsed() < Duration::from_secs(10), "{program}");
    }
    env.run(["ps", "-aq"]).success().prints("");
}
