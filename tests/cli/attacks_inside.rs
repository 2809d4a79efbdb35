//! Attacks by a program in a container on what is around it: `doc/security.md` says which number means what.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Command;
use std::time::Duration;

use crate::support::{Env, Hostile, Output, compiled, eventually, must, need, strate};

fn env_with(image: Hostile) -> Env {
    let env = Env::new();
    image.load(&env, "evil");
    env
}

fn run(env: &Env, args: &[&str]) -> Output {
    env.run(["run", "--rm", "--network", "none"].iter().chain(args))
}

fn sh(env: &Env, script: &str) -> Output {
    run(env, &["evil", "sh", "-c", script])
}

/// A container that goes on.
fn detached(env: &Env, flags: &[&str], script: &str) {
    let args = ["run", "-d", "--name", "c", "--network", "none"];
    env.run(args.iter().chain(flags).chain(&["evil", "sh", "-c", script])).success();
}

#[test]
fn c1_no_descriptor_of_ours_is_inside_or_a_working_directory() {
    need!("busybox");
    let env = env_with(Hostile::new());
    let canary = env.write("canary/secret", "host\n");
    let line = format!(
        "exec 7<{0} 8<{1} 99<{0}; exec {2} \"$@\"",
        canary.parent().unwrap().display(),
        canary.display(),
        strate().display()
    );
    let leaky = |args: &[&str]| Output::of(env.program("bash").args(["-c", &line, "bash"]).args(args));
    let list = ["evil", "ls", "/proc/self/fd"];
    let first = ["run", "--rm", "--network", "none"];
    leaky(&[&first[..], &list].concat()).success().prints("0\n1\n2\n3"); // 3 is that of ls itself
    detached(&env, &[], "sleep 100");
    leaky(&["exec", "c", "ls", "/proc/self/fd"]).success().prints("0\n1\n2\n3");
    for n in (3..24).chain([99, 1023]) {
        for dir in [format!("/proc/self/fd/{n}"), format!("/proc/self/fd/{n}/../../..")] {
            let output = leaky(&["exec", "-w", &dir, "c", "cat", "secret"]);
            assert!(output.code != 0 && !output.stdout.contains("host"), "{output}");
        }
    }
    for n in [3, 7, 8, 99] {
        let dir = format!("/proc/self/fd/{n}");
        leaky(&["run", "--rm", "--network", "none", "-w", &dir, "evil", "pwd"]).code(125).prints("");
    }
    env.run(["rm", "-f", "c"]).success();
}

#[test]
fn c2_our_binary_is_neither_opened_nor_overwritten() {
    need!("busybox", "sha256sum");
    let env =
        env_with(Hostile::new().file("again", 0o755, "#!/proc/self/exe\n").link("us", "/proc/self/exe"));
    let sum = || must(Command::new("sha256sum").arg(strate()));
    let before = sum();
    for program in ["/again", "/us", "/proc/self/exe"] {
        let output = run(&env, &["evil", program, "version"]);
        assert!(output.code != 0 && output.stdout.is_empty(), "{output}");
    }
    // It looks at every process that appears, and keeps what it can of one that is not its own.
    let script = "while :; do for p in /proc/[0-9]*; do
                    exe=$(readlink $p/exe) || continue
                    case $exe in */busybox|'') ;; *) echo $exe >> /got; (exec 9>>$p/exe && echo x >&9) ;; esac
                  done; done 2>/dev/null";
    detached(&env, &[], script);
    for _ in 0..30 {
        env.run(["exec", "c", "true"]).success();
    }
    env.run(["exec", "c", "test", "-e", "/got"]).code(1);
    assert_eq!(sum(), before);
    env.run(["rm", "-f", "c"]).success();
}

#[test]
fn c6_masks_and_read_only_paths_are_there_and_stay() {
    need!("busybox");
    let env = env_with(Hostile::new().dir("tmp/"));
    let script = "for f in kcore keys timer_list latency_stats sched_debug interrupts; do
                    [ ! -e /proc/$f ] || [ $(head -c 1 /proc/$f 2>/dev/null | wc -c) = 0 ] || echo $f is readable
                  done
                  for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap; do
                    [ -z \"$(ls $d 2>/dev/null)\" ] || echo $d is listed
                  done
                  for f in /proc/sysrq-trigger /proc/sys/kernel/printk /proc/sys/kernel/core_pattern /proc/irq/default_smp_affinity; do
                    (echo x > $f) 2>/dev/null && echo $f is written
                  done
                  for d in /proc/kcore /proc/keys /proc/sys /proc /sys /sys/firmware /dev/null /etc/hosts /; do
                    umount $d 2>/dev/null && echo $d is unmounted
                    umount -l $d 2>/dev/null && echo $d is unmounted
                    mount -o remount,rw,bind $d 2>/dev/null && echo $d is mounted again
                    mount -o bind /tmp $d 2>/dev/null && echo $d is covered
                  done
                  mount -t proc proc /tmp 2>/dev/null && echo another proc
                  echo done";
    sh(&env, script).success().prints("done");
    detached(&env, &[], "sleep 100");
    env.run(["exec", "c", "sh", "-c", script]).success().prints("done");
    env.run(["rm", "-f", "c"]).success();
}

#[test]
fn c7_capabilities_and_groups_are_those_that_were_asked_for() {
    need!("busybox");
    let env = env_with(
        Hostile::new()
            .dir("etc/")
            .file("etc/passwd", 0o644, "root:x:0:0::/:/bin/sh\nbob:x:1000:1000::/:/bin/sh\n")
            .file("etc/group", 0o644, "root:x:0:\nbob:x:1000:\naudio:x:29:bob\nvideo:x:44:\n"),
    );
    let status = "grep -E '^(Cap|NoNewPrivs|Groups)' /proc/self/status | tr -d '\\t'; id -G";
    let caps = |held: &str, bounding: &str| {
        format!(
            "CapInh:0000000000000000\nCapPrm:{held}\nCapEff:{held}\nCapBnd:{bounding}\nCapAmb:0000000000000000\n"
        )
    };
    const DEFAULT: &str = "00000000a80425fb";
    const NONE: &str = "0000000000000000";
    sh(&env, status).success().stdout_has(&caps(DEFAULT, DEFAULT)).stdout_has("NoNewPrivs:0");
    let bob =
        run(&env, &["-u", "bob", "evil", "sh", "-c", status]).success().stdout_has(&caps(NONE, DEFAULT));
    let full = env.run(["info", "-f", "{{json .}}"]).success().stdout.contains("\"single\"");
    if !full {
        bob.stdout_has("\n1000 29\n");
        run(&env, &["-u", "bob", "--group-add", "video", "evil", "id", "-G"]).success().prints("1000 29 44");
        // None of ours are kept.
        sh(&env, "id -G").success().prints("0");
    }
    run(&env, &["--cap-drop", "ALL", "--cap-add", "CHOWN", "evil", "sh", "-c", status])
        .success()
        .stdout_has(&caps("0000000000000001", "0000000000000001"));
    run(&env, &["--security-opt", "no-new-privileges", "evil", "sh", "-c", status])
        .success()
        .stdout_has("NoNewPrivs:1");
    detached(&env, &[], "sleep 100");
    env.run(["exec", "c", "sh", "-c", status]).success().stdout_has(&caps(DEFAULT, DEFAULT));
    env.run(["exec", "-u", "1", "c", "sh", "-c", &format!("{status}; id -u")])
        .success()
        .stdout_has(&caps(NONE, DEFAULT))
        .stdout_has("\n1\n");
    env.run(["rm", "-f", "c"]).success();
}

/// One line a call: its name and the errno, 0 when it was let through.
const PROBE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <stddef.h>
#define TRY(name, ...) do { errno = 0; long r = syscall(__VA_ARGS__); printf("%s %d\n", name, r < 0 ? errno : 0); } while (0)
int main(int argc, char **argv) {
    if (argc > 2) { /* connect to an abstract socket */
        struct sockaddr_un to = { .sun_family = AF_UNIX };
        size_t n = strlen(argv[2]);
        memcpy(to.sun_path + 1, argv[2], n);
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        int r = connect(s, (void *)&to, offsetof(struct sockaddr_un, sun_path) + 1 + n);
        printf("%d\n", r < 0 ? errno : 0);
        return 0;
    }
    if (argc > 1) { printf("%ld\n", syscall(SYS_keyctl, 0, -3, 0)); return 0; }
    TRY("keyctl", SYS_keyctl, 0, -3, 0);
    TRY("add_key", SYS_add_key, "user", "x", "y", 1, -2);
    TRY("bpf", SYS_bpf, 0, 0, 0);
    TRY("perf_event_open", SYS_perf_event_open, 0, 0, -1, -1, 0);
    TRY("userfaultfd", SYS_userfaultfd, 0);
    TRY("kexec_load", SYS_kexec_load, 0, 0, 0, 0);
    TRY("mount", SYS_mount, "none", "/", "tmpfs", 0, 0);
    TRY("fsopen", 430, "tmpfs", 0);
    TRY("open_tree", 428, -100, "/", 1);
    TRY("move_mount", 429, -1, "", -100, "/", 4);
    TRY("pivot_root", SYS_pivot_root, "/", "/");
    TRY("unshare", SYS_unshare, 0x10000000);
    TRY("setns", SYS_setns, -1, 0);
    TRY("init_module", SYS_init_module, 0, 0, "");
    TRY("io_uring_setup", 425, 1, 0);
    TRY("clone3", 435, 0, 0);
    TRY("ptrace", SYS_ptrace, 16, 1, 0, 0);
#ifdef __x86_64__
    errno = 0;
    { long r = syscall(0x40000000 | SYS_add_key, "user", "x", "y", 1, -2); printf("x32 %d\n", r < 0 ? errno : 0); }
    { long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(286), "b"(0), "c"(0), "d"(0), "S"(0), "D"(0) : "memory"); printf("i386 %ld\n", -r); }
#endif
    return 0;
}
"#;

#[test]
fn c8_the_filter_holds_for_every_way_to_call() {
    need!("busybox");
    let env = Env::new();
    let Some(probe) = compiled(&env, "probe", PROBE) else {
        return crate::support::skip("cc is not installed");
    };
    Hostile::new().file("probe", 0o755, std::fs::read(probe).unwrap()).load(&env, "evil");
    for flags in [&[][..], &["-u", "1"], &["--security-opt", "no-new-privileges"]] {
        let said = run(&env, &[flags, &["evil", "/probe"]].concat()).success();
        let errno = |name: &str| -> i32 {
            let line = said.stdout.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("no {name} in {said}")).parse().unwrap()
        };
        for name in [
            "keyctl",
            "add_key",
            "bpf",
            "perf_event_open",
            "userfaultfd",
            "kexec_load",
            "mount",
            "fsopen",
            "open_tree",
            "move_mount",
            "pivot_root",
            "unshare",
            "setns",
            "init_module",
            "io_uring_setup",
        ] {
            assert_eq!(errno(name), libc::EPERM, "{name}: {said}");
        }
        assert_eq!(errno("clone3"), libc::ENOSYS, "{said}");
        if cfg!(target_arch = "x86_64") {
            // 286 is add_key for i386. A kernel without these ways answers ENOSYS (or the signal of a fault).
            for name in ["x32", "i386"] {
                assert!([libc::EPERM, libc::ENOSYS].contains(&errno(name)), "{name}: {said}");
            }
        }
    }
    sh(&env, "grep Seccomp: /proc/self/status").success().stdout_has("2");
    // Terminals: what is typed into one of ours by ioctl must not reach the shell that started it.
    detached(&env, &[], "sleep 100");
    env.run(["exec", "c", "/probe"]).success().stdout_has("keyctl 1\n").stdout_has("mount 1\n");
    env.run(["rm", "-f", "c"]).success();
}

#[test]
fn c9_the_session_keyring_is_a_new_one() {
    need!("busybox");
    let env = Env::new();
    let Some(probe) = compiled(&env, "probe", PROBE) else {
        return crate::support::skip("cc is not installed");
    };
    Hostile::new().file("probe", 0o755, std::fs::read(&probe).unwrap()).load(&env, "evil");
    let host = Output::of(env.program(&probe).arg("key")).success();
    let open = ["--security-opt", "seccomp=unconfined", "evil", "/probe", "key"];
    let inside = run(&env, &open).success();
    let again = run(&env, &open).success();
    let id = |output: &Output| -> i64 { output.text().parse().unwrap() };
    assert!(id(&inside) > 0, "{inside}");
    assert!(id(&inside) != id(&host) && id(&inside) != id(&again), "{host} {inside} {again}");
}

#[test]
fn c10_nothing_of_the_host_is_reached_and_no_namespace_made() {
    need!("busybox");
    let env = Env::new();
    let Some(probe) = compiled(&env, "probe", PROBE) else {
        return crate::support::skip("cc is not installed");
    };
    Hostile::new().file("probe", 0o755, std::fs::read(&probe).unwrap()).load(&env, "evil");
    let name = format!("strate-canary-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let refused = libc::ECONNREFUSED.to_string();
    Output::of(env.program(&probe).args(["to", &name])).success().prints("0");
    run(&env, &["evil", "/probe", "to", &name]).success().prints(&refused);
    env.run(["run", "--rm", "--network", "host", "evil", "/probe", "to", &name]).success().prints("0");
    let mut victim = Command::new("sleep").arg("100").spawn().unwrap();
    let script = format!("kill -9 {0}; ls /proc/{0}; kill -9 -1; echo /proc/[0-9]*", victim.id());
    let said = sh(&env, &script);
    assert!(!said.stdout.contains(&format!("/proc/{}", victim.id())), "{said}");
    assert!(victim.try_wait().unwrap().is_none(), "the host's process was killed");
    victim.kill().unwrap();
    victim.wait().unwrap();
    for flags in ["-U", "-m", "-p", "-n", "-i"] {
        assert_ne!(run(&env, &["evil", "unshare", flags, "true"]).code, 0, "{flags}");
        assert_ne!(run(&env, &["-u", "1", "evil", "unshare", flags, "true"]).code, 0, "{flags}");
    }
}

#[test]
fn c11_cgroups_cannot_be_written_and_nobody_outlives_the_container() {
    need!("busybox");
    let env = env_with(Hostile::new());
    let script = "n=0
                  for f in $(ls -d /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/release_agent /sys/fs/cgroup/*/release_agent \
                                   /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/*/notify_on_release 2>/dev/null); do
                    (echo 1 > $f) 2>/dev/null && echo $f is written
                  done
                  mkdir /sys/fs/cgroup/x 2>/dev/null && echo made one
                  for d in /sys/fs/cgroup/*/; do mkdir ${d}x 2>/dev/null && echo made one in $d; done
                  echo done";
    sh(&env, script).success().prints("done");
    let mark = format!("98{}", std::process::id());
    let left = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let words = format!("sleep\0{mark}\0");
        let mut found = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        found.any(|line| line == words.as_bytes())
    };
    let daemons = format!("(setsid sleep {mark} &) ; (sleep {mark} >/dev/null 2>&1 &) ; sleep 0.2; echo up");
    sh(&env, &daemons).success().prints("up");
    eventually("the end of the daemons", Duration::from_secs(5), || (!left()).then_some(()));
    run(&env, &["--init", "evil", "sh", "-c", &daemons]).success().prints("up");
    eventually("the end of the daemons", Duration::from_secs(5), || (!left()).then_some(()));
    env.run(["ps", "-aq"]).success().prints("");
}

#[test]
fn c16_the_environments_of_the_host_the_image_and_the_helpers_are_apart() {
    need!("busybox");
    let env =
        Env::new().with("LD_PRELOAD", "/no/such.so").with("AWS_SECRET", "canary").with("SSH_AUTH_SOCK", "/x");
    let tool = format!("#!/bin/sh\ntouch {}\n", env.work().join("pwned").display());
    for name in ["newuidmap", "newgidmap", "pasta", "slirp4netns", "tar", "sh"] {
        let path = env.write(&format!("evil/{name}"), &tool);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let evil = env.work().join("evil").display().to_string();
    let image = Hostile::new()
        .dir("etc/")
        .file("etc/passwd", 0o644, "root:x:0:0::/home\u{7}:/bin/sh\nbob:x:1:1::relative:/bin/sh\n")
        .config(
            "Env",
            serde_json::json!([
                format!("PATH={evil}:/bin"),
                "LD_PRELOAD=/image.so",
                "LD_LIBRARY_PATH=/image"
            ]),
        );
    image.load(&env, "evil");
    let said = run(&env, &["evil", "/bin/env"]).success();
    for wrong in ["canary", "SSH_AUTH_SOCK", "/no/such.so", "\u{7}"] {
        assert!(!said.stdout.contains(wrong), "{wrong:?} in {said}");
    }
    said.stdout_has("LD_PRELOAD=/image.so").stdout_has("HOME=/\n");
    run(&env, &["-u", "bob", "evil", "/bin/env"]).success().stdout_has("HOME=/\n");
    run(&env, &["-e", "A=one\nB=two", "evil", "/bin/sh", "-c", "echo \"$B\""]).success().prints("");
    detached(&env, &[], "/bin/sleep 100");
    env.run(["exec", "c", "/bin/env"]).success().stdout_lacks("canary").stdout_lacks("/no/such.so");
    assert!(!env.work().join("pwned").exists(), "a helper was found by the image's PATH");
    env.run(["rm", "-f", "c"]).success();
}
