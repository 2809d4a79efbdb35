//! Real containers from a busybox tree, as whoever runs the tests: root, or an ordinary user on the ladder.

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::*;
use crate::sys::fork::{Forked, exit_now, fork, wait_pid};
use crate::userns::{self, Rung};

/// A tree with a static busybox under all its names, removed at the end.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Option<Self> {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].iter().find(|path| Path::new(path).exists())?;
        let dir = std::env::temp_dir().join(format!("strate-runtime-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        for sub in ["bin", "etc", "tmp", "root"] {
            std::fs::create_dir_all(dir.join(sub)).unwrap();
        }
        std::fs::copy(busybox, dir.join("bin/busybox")).unwrap();
        for name in [
            "sh", "ls", "cat", "id", "true", "false", "sleep", "mount", "stty", "kill", "ps", "mkdir",
            "touch",
        ] {
            symlink("busybox", dir.join("bin").join(name)).unwrap();
        }
        for name in [
            "grep", "pwd", "hostname", "tty", "chown", "env", "readlink", "ulimit", "stat", "head", "ip",
            "test",
        ] {
            symlink("busybox", dir.join("bin").join(name)).unwrap();
        }
        Some(Self(dir))
    }

    /// A detached mount of it.
    fn mount(&self) -> OwnedFd {
        open_tree(CWD, &self.0, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC).unwrap()
    }

    /// Run the plan to its end: status and what it wrote.
    fn run(&self, plan: &Plan) -> Result<(ExitStatus, String), Error> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let stdio =
            Stdio::Descriptors { stdin: null.into(), stdout: write.try_clone().unwrap(), stderr: write };
        let process = spawn(self.mount().as_fd(), plan, stdio)?;
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        Ok((process.wait()?, text))
    }

    fn sh(&self, script: &str) -> (ExitStatus, String) {
        self.run(&plan(&["/bin/sh", "-c", script])).unwrap()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn plan(args: &[&str]) -> Plan {
    Plan {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec!["PATH=/bin".into(), "HOME=/root".into()],
        cwd: "/".into(),
        groups: vec![0],
        hostname: "box".into(),
        mounts: default_mounts(1 << 20),
        masked_paths: default_masked_paths(),
        read_only_paths: default_read_only_paths(),
        capabilities: default_capabilities(),
        ..Plan::default()
    }
}

/// Run the body in a process of its own (one thread, so that it can climb the ladder) and expect it not to panic.
fn inside(body: impl FnOnce(&Tree, Rung)) {
    let Forked::Parent(pid) = fork().unwrap() else {
        let path = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from).to_vec();
        // What the test runner captures in here would be lost with the process.
        std::panic::set_hook(Box::new(|panic| {
            let _ = rustix::io::write(rustix::stdio::stderr(), format!("{panic}\n").as_bytes());
        }));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let entered =
                userns::enter(&userns::Request { user: None, pinned: None, keep: None, path }).unwrap();
            match (entered.rung, Tree::new()) {
                (Rung::None, _) => println!("skipped: no namespaces here: {:?}", entered.refused),
                (_, None) => println!("skipped: no static busybox (package busybox-static)"),
                (rung, Some(tree)) => body(&tree, rung),
            }
        }));
        exit_now(i32::from(outcome.is_err()))
    };
    assert_eq!(wait_pid(pid).unwrap(), 0, "the child's words are above");
}

#[test]
fn exit_codes() {
    inside(|tree, _| {
        assert_eq!(tree.sh("exit 7").0, ExitStatus::Code(7));
        assert_eq!(tree.sh("kill -TERM $$; sleep 1").0.code(), 0, "pid 1 ignores what it does not handle");
        assert_eq!(tree.sh("sh -c 'kill -KILL $$'; exit $?").0.code(), 137);
        assert_eq!(tree.run(&plan(&["true"])).unwrap().0, ExitStatus::Code(0));
        let not_found = tree.run(&plan(&["nope"])).unwrap_err();
        assert_eq!(not_found.exit_code(), 127);
        assert_eq!(
            not_found.to_string(),
            "`nope`: executable file not found in the container (PATH is /bin)"
        );
        assert_eq!(tree.run(&plan(&["/nope"])).unwrap_err().exit_code(), 127);
        assert_eq!(tree.run(&plan(&["/etc"])).unwrap_err().exit_code(), 126);
        std::fs::write(tree.0.join("plain"), "x").unwrap();
        assert_eq!(tree.run(&plan(&["/plain"])).unwrap_err().exit_code(), 126);
        std::fs::write(tree.0.join("bad"), "#!/no/interpreter\n").unwrap();
        std::fs::set_permissions(tree.0.join("bad"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let error = tree.run(&plan(&["/bad"])).unwrap_err();
        assert!(matches!(&error, Error::NotExecutable { source, .. } if source.step.contains("interpreter")));
    });
}

/// Root's container has `CAP_MKNOD` and no device cgroup behind it.
#[test]
fn device_files_reach_nothing() {
    inside(|tree, _| {
        let volume = tree.0.with_extension("volume");
        std::fs::create_dir_all(&volume).unwrap();
        let mut plan = plan(&[
            "/bin/sh",
            "-c",
            "for dir in / /dev /dev/shm /vol; do
               busybox mknod $dir/node c 1 3 2>/dev/null && echo x > $dir/node && echo wrote to $dir
               busybox rm -f $dir/node
             done 2>/dev/null; echo x > /dev/null && echo fine",
        ]);
        plan.mounts.push(MountOp::Bind {
            source: volume.clone(),
            target: "/vol".into(),
            read_only: false,
            recursive: true,
            propagation: String::new(),
            options: BindOptions::default(),
        });
        let said = tree.run(&plan).unwrap().1;
        std::fs::remove_dir_all(&volume).unwrap();
        assert_eq!(said, "fine\n");
    });
}

#[test]
fn what_a_program_sees() {
    inside(|tree, _| {
        assert_eq!(tree.sh("ls /proc/self/fd").1, "0\n1\n2\n3\n", "3 is that of ls itself");
        assert_eq!(tree.sh("hostname; echo $$; pwd; id -u").1, "box\n1\n/\n0\n");
        let status = tree.run(&plan(&["cat", "/proc/self/status"])).unwrap().1;
        for line in ["CapBnd:\t00000000a80425fb", "CapInh:\t0000000000000000", "CapAmb:\t0000000000000000"] {
            assert!(status.contains(line), "{line} in {status}");
        }
        assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t0"), "{status}");
        assert!(status.contains("SigIgn:\t0000000000000000"), "{status}");
        assert!(status.contains("SigBlk:\t0000000000000000"), "{status}");
        let dev = tree.sh("ls /dev").1.replace('\n', " ");
        assert_eq!(dev, "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ");
        assert_eq!(
            tree.sh("echo x > /dev/null; head -c 3 /dev/zero | cat -v; stat -c %a /dev/shm").1,
            "^@^@^@1777\n"
        );
        let mounts = tree.sh("cat /proc/self/mounts").1;
        assert!(!mounts.contains("/work") && mounts.contains("proc /proc"), "{mounts}");
        assert_eq!(tree.sh("echo /proc/[0-9]*").1, "/proc/1\n");
    });
}

#[test]
fn what_a_program_must_not_do() {
    inside(|tree, _| {
        for (script, why) in [
            ("echo 1 > /proc/sys/kernel/printk", "read-only path"),
            ("echo h > /proc/sysrq-trigger", "read-only path"),
            ("touch /sys/x", "read-only /sys"),
            ("mount -t tmpfs none /tmp", "mount"),
            ("umount /proc/kcore", "umount"),
            ("ls /sys/firmware | grep .", "masked directory"),
            ("head -c 1 /proc/kcore | grep .", "masked file"),
            ("busybox mount -o remount,rw /proc/sys", "remount"),
            ("busybox unshare -U true", "user namespace"),
        ] {
            let (status, text) = tree.sh(script);
            assert_ne!(status.code(), 0, "{why}: {text}");
        }
        assert_eq!(tree.sh("cat /proc/keys /proc/timer_list | head -n 1").1, "");
    });
}

#[test]
fn read_only_root_and_tmpfs() {
    inside(|tree, _| {
        let mut plan =
            plan(&["sh", "-c", "touch /x && exit 1; touch /scratch/x /dev/shm/y && mount | grep scratch"]);
        plan.read_only_root = true;
        plan.mounts.push(MountOp::Tmpfs { target: "/scratch".into(), options: "size=64k,mode=700".into() });
        let (status, text) = tree.run(&plan).unwrap();
        assert_eq!(status.code(), 0, "{text}");
        assert!(text.contains("size=64k,mode=700") && text.contains("noexec"), "{text}");
        plan.mounts.push(MountOp::Tmpfs { target: "/bad".into(), options: "nonsense=1".into() });
        let error = tree.run(&plan).unwrap_err();
        assert_eq!(error.exit_code(), 125);
    });
}

#[test]
fn binds_and_files() {
    inside(|tree, _| {
        let host = tree.0.with_extension("host");
        std::fs::create_dir_all(host.join("sub")).unwrap();
        std::fs::write(host.join("file"), "host\n").unwrap();
        let mut plan = plan(&[
            "sh",
            "-c",
            "cat /data/file /etc/resolv.conf /new/deep/one; touch /data/no; touch /ro.txt; echo more >> /new/deep/one",
        ]);
        let bind = |source: &Path, target: &str, read_only| MountOp::Bind {
            source: source.to_owned(),
            target: target.into(),
            read_only,
            recursive: true,
            propagation: "rprivate".into(),
            options: BindOptions::default(),
        };
        // As many images have it: a link to a place that only exists on a running host.
        symlink("../run/stub/resolv.conf", tree.0.join("etc/resolv.conf")).unwrap();
        plan.mounts.extend([
            bind(&host, "/data", true),
            bind(&host.join("file"), "/new/deep/one", false),
            MountOp::File {
                content: b"nameserver 192.0.2.1\n".to_vec(),
                target: "/etc/resolv.conf".into(),
                mode: 0o644,
                read_only: true,
            },
        ]);
        let (status, text) = tree.run(&plan).unwrap();
        assert_eq!(status.code(), 0, "{text}");
        assert!(text.starts_with("host\nnameserver 192.0.2.1\nhost\n"), "{text}");
        assert!(text.contains("/data/no: Read-only file system"), "{text}");
        assert_eq!(std::fs::read_to_string(host.join("file")).unwrap(), "host\nmore\n");
        let stub = std::fs::metadata(tree.0.join("run/stub/resolv.conf")).unwrap();
        assert_eq!(stub.len(), 0);
        plan.mounts.push(bind(Path::new("/no/such/thing"), "/x", false));
        let text = format!("{:?}", tree.run(&plan).unwrap_err());
        assert!(text.contains("/no/such/thing"), "{text}");
        std::fs::remove_dir_all(&host).unwrap();
    });
}

/// What was made in the root to mount on is told, by its path without links.
#[test]
fn stubs_are_told() {
    inside(|tree, _| {
        std::fs::create_dir_all(tree.0.join("run")).unwrap();
        std::fs::create_dir_all(tree.0.join("var")).unwrap();
        symlink("/run", tree.0.join("var/run")).unwrap();
        let mut plan = plan(&["true"]);
        plan.mounts.push(MountOp::Tmpfs { target: "/var/run/a/b".into(), options: String::new() });
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let stdio = Stdio::Descriptors { stdin: null(), stdout: null(), stderr: null() };
        let process = spawn(tree.mount().as_fd(), &plan, stdio).unwrap();
        assert_eq!(process.stubs, ["/proc", "/dev", "/sys", "/run/a", "/run/a/b"]);
        assert_eq!(process.wait().unwrap(), ExitStatus::Code(0));
        assert!(matches!(process.kill(15), Err(Error::NotRunning)));
    });
}

/// An image whose standard directories are links to host directories: all stays inside the root.
#[test]
fn hostile_links_stay_inside() {
    inside(|tree, _| {
        let canary = tree.0.with_extension("canary");
        std::fs::create_dir_all(&canary).unwrap();
        let text = canary.to_str().unwrap();
        for name in ["proc", "sys", "dev", "data"] {
            symlink(text, tree.0.join(name)).unwrap();
        }
        std::fs::remove_dir_all(tree.0.join("etc")).unwrap();
        symlink(text, tree.0.join("etc")).unwrap();
        symlink("../../../../../../../etc/passwd", tree.0.join("up")).unwrap();
        let mut plan = plan(&["/bin/true"]);
        plan.cwd = "/etc/made/here".into();
        for target in ["/data/x", "/etc/resolv.conf", "/up"] {
            plan.mounts.push(MountOp::File {
                content: b"evil".to_vec(),
                target: target.into(),
                mode: 0o600,
                read_only: false,
            });
        }
        let before = std::fs::read("/etc/passwd").unwrap();
        // Whether it starts is not the point: where it wrote is.
        let _ = tree.run(&plan);
        assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
        assert_eq!(std::fs::read("/etc/passwd").unwrap(), before);
        std::fs::remove_dir_all(&canary).unwrap();
    });
}

#[test]
fn hostile_programs_and_directories() {
    inside(|tree, _| {
        symlink("/proc/self/exe", tree.0.join("us")).unwrap();
        std::fs::write(tree.0.join("script"), "#!/proc/self/exe\n").unwrap();
        std::fs::set_permissions(tree.0.join("script"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        for program in ["/us", "/script", "/proc/self/exe"] {
            assert!(tree.run(&plan(&[program])).is_err(), "{program}");
        }
        for cwd in ["/proc/self/fd/3", "/proc/self/cwd", "/proc/1/root", "relative", "/bin/sh"] {
            let mut plan = plan(&["/bin/pwd"]);
            plan.cwd = cwd.into();
            assert_eq!(tree.run(&plan).unwrap_err().exit_code(), 125, "{cwd}");
        }
        let mut inside_proc = plan(&["true"]);
        inside_proc.mounts.push(MountOp::Tmpfs { target: "/proc/self/attr".into(), options: String::new() });
        assert!(tree.run(&inside_proc).is_err());
        let mut up = plan(&["/bin/pwd"]);
        up.cwd = "/../../tmp/../tmp/a".into();
        assert_eq!(tree.run(&up).unwrap().1, "/tmp/a\n");
    });
}

#[test]
fn other_users() {
    inside(|tree, rung| {
        let mut plan = plan(&[
            "sh",
            "-c",
            "id -u; id -g; id -G; grep -E 'Cap(Eff|Prm)' /proc/self/status; pwd; stat -c %u .",
        ]);
        (plan.uid, plan.gid, plan.groups) = (1000, 50, vec![50, 4]);
        plan.cwd = "/home/made".into();
        if rung == Rung::Single {
            assert_eq!(tree.run(&plan).unwrap_err().exit_code(), 125);
            return;
        }
        let (status, text) = tree.run(&plan).unwrap();
        assert_eq!(status.code(), 0, "{text}");
        let none = "0000000000000000";
        assert_eq!(text, format!("1000\n50\n50 4\nCapPrm:\t{none}\nCapEff:\t{none}\n/home/made\n1000\n"));
        plan.no_new_privileges = true;
        plan.args = ["grep", "-E", "NoNew|Seccomp:", "/proc/self/status"].map(str::to_owned).to_vec();
        assert_eq!(tree.run(&plan).unwrap().1, "NoNewPrivs:\t1\nSeccomp:\t2\n");
    });
}

#[test]
fn namespaces_and_limits() {
    inside(|tree, _| {
        let mut plan = plan(&["sh", "-c", "ip -o addr; ulimit -n"]);
        plan.namespaces.network = Network::None;
        plan.rlimits = vec![("nofile".into(), 64, 128)];
        let (_, text) = tree.run(&plan).unwrap();
        assert!(text.contains("127.0.0.1") && text.ends_with("64\n"), "{text}");
        assert_eq!(text.lines().filter(|line| line.contains("inet ")).count(), 1, "{text}");
        plan.rlimits = vec![("nonsense".into(), 1, 1)];
        assert_eq!(tree.run(&plan).unwrap_err().exit_code(), 125);
    });
}

#[test]
fn init_reaps_and_passes_signals_on() {
    inside(|tree, _| {
        // A zombie still has its number: the loop ends when the orphan is reaped.
        let orphan = "(sleep 0.1 &); i=0; set -- /proc/[0-9]*; \
                      while [ $# -gt 2 ] && [ $i -lt 200 ]; do sleep 0.02; i=$((i + 1)); set -- /proc/[0-9]*; done; \
                      echo $*; echo $$; exit 9";
        let mut plan = plan(&["sh", "-c", orphan]);
        plan.init = true;
        let (status, text) = tree.run(&plan).unwrap();
        // The reaper and the shell: the orphan is gone.
        assert_eq!((status, text.as_str()), (ExitStatus::Code(9), "/proc/1 /proc/2\n2\n"));
        // Our own binary must not be reachable through the reaper.
        plan.args[2] =
            "head -c 4 /proc/1/exe 2>/dev/null | grep -c ELF; cat /proc/1/maps 2>/dev/null | grep -c ."
                .into();
        assert_eq!(tree.run(&plan).unwrap().1, "0\n0\n");
        plan.args[2] = "cat /proc/1/cmdline | head -c 11".into();
        assert_eq!(tree.run(&plan).unwrap().1, "strate-init");
        plan.args[2] = "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done".into();
        let (read, write) = rustix::pipe::pipe().unwrap();
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let stdio = Stdio::Descriptors { stdin: null(), stdout: write, stderr: null() };
        let process = spawn(tree.mount().as_fd(), &plan, stdio).unwrap();
        let mut reader = std::fs::File::from(read);
        let mut ready = [0u8; 6];
        reader.read_exact(&mut ready).unwrap();
        process.kill(libc::SIGTERM).unwrap();
        assert_eq!(process.wait().unwrap(), ExitStatus::Code(3));
        plan.args = vec!["nope".into()];
        assert_eq!(tree.run(&plan).unwrap_err().exit_code(), 127);
    });
}

/// The way around a second thread: the program is a child of ours all the same.
#[test]
fn with_several_threads() {
    inside(|tree, _| {
        std::thread::scope(|scope| {
            let (stop, wait) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || wait.recv());
            assert!(!crate::sys::fork::single_threaded());
            assert_eq!(tree.sh("echo $$; exit 4"), (ExitStatus::Code(4), "1\n".to_owned()));
            assert_eq!(tree.run(&plan(&["nope"])).unwrap_err().exit_code(), 127);
            drop(stop);
        });
    });
}

fn read_terminal(process: &Process) -> String {
    let mut text = Vec::new();
    let mut buffer = [0u8; 512];
    // EIO is the end of a terminal.
    while let Ok(got @ 1..) = rustix::io::read(process.terminal.as_ref().unwrap(), &mut buffer) {
        text.extend_from_slice(&buffer[..got]);
    }
    String::from_utf8(text).unwrap().replace("\r\n", "\n")
}

#[test]
fn terminals() {
    inside(|tree, rung| {
        let mut plan =
            plan(&["sh", "-c", "stty size; tty; test -c /dev/console && echo console; stat -c %u $(tty)"]);
        let stdio = || Stdio::Terminal { rows: 33, columns: 77 };
        let process = spawn(tree.mount().as_fd(), &plan, stdio()).unwrap();
        assert_eq!(read_terminal(&process), "33 77\n/dev/pts/0\nconsole\n0\n");
        assert_eq!(process.wait().unwrap(), ExitStatus::Code(0));
        if rung != Rung::Single {
            (plan.uid, plan.gid, plan.groups) = (1000, 1000, vec![1000]);
            let process = spawn(tree.mount().as_fd(), &plan, stdio()).unwrap();
            assert_eq!(read_terminal(&process), "33 77\n/dev/pts/0\nconsole\n1000\n");
        }
    });
}

/// A further program, from outside of the container's user namespace where there is one.
#[test]
fn exec_joins() {
    let pid_file = std::env::temp_dir().join(format!("strate-exec-{}", std::process::id()));
    let _ = std::fs::remove_file(&pid_file);
    let Forked::Parent(container) = fork().unwrap() else {
        inside(|tree, _| {
            let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
            let stdio = Stdio::Descriptors { stdin: null(), stdout: null(), stderr: null() };
            let mut plan = plan(&["sleep", "5"]);
            plan.die_with_parent = true;
            let process = spawn(tree.mount().as_fd(), &plan, stdio).unwrap();
            std::fs::write(pid_file.with_extension("new"), process.pid.to_string()).unwrap();
            std::fs::rename(pid_file.with_extension("new"), &pid_file).unwrap();
            let _ = process.wait();
        });
        exit_now(0);
    };
    let mut pid = None;
    for _ in 0..200 {
        pid = std::fs::read_to_string(&pid_file).ok().and_then(|text| text.parse().ok());
        if pid.is_some() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let Some(pid) = pid else {
        println!("skipped: no container could be started, see the other tests");
        wait_pid(container).unwrap();
        return;
    };
    let mut request =
        ExecRequest { plan: plan(&["sh", "-c", "hostname; id -u; ps | grep -c '[s]leep 5'; exit 6"]), pid };
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
    let stdio = Stdio::Descriptors { stdin: null(), stdout: write, stderr: null() };
    let process = exec(&request, stdio).unwrap();
    let mut text = String::new();
    std::fs::File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(text, "box\n0\n1\n");
    assert_eq!(process.wait().unwrap(), ExitStatus::Code(6));
    request.plan.args = vec!["sh".into(), "-c".into(), "stty size; ls /proc/self/fd".into()];
    let process = exec(&request, Stdio::Terminal { rows: 5, columns: 6 }).unwrap();
    assert_eq!(read_terminal(&process), "5 6\n0\n1\n2\n3\n");
    process.wait().unwrap();
    request.plan.args = vec!["nope".into()];
    assert_eq!(exec(&request, Stdio::Terminal { rows: 5, columns: 6 }).unwrap_err().exit_code(), 127);
    crate::sys::fork::kill_child(pid, libc::SIGKILL);
    wait_pid(container).unwrap();
    assert!(matches!(exec(&request, Stdio::Terminal { rows: 5, columns: 6 }), Err(Error::NotRunning)));
    let _ = std::fs::remove_file(&pid_file);
}

#[test]
fn relay_carries_streams() {
    use super::relay::{End, Pipes, Relay, Stream};
    inside(|tree, _| {
        let (pipes, stdio) = Pipes::new(true).unwrap();
        let script = "cat; echo err >&2; head -c 300000 /dev/zero; exit 5";
        let process = spawn(tree.mount().as_fd(), &plan(&["sh", "-c", script]), stdio).unwrap();
        let (input, feed) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&feed, b"hello\n").unwrap();
        drop(feed);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let relay = Relay { pipes, input: Some(input.as_fd()), ..Relay::default() };
        let end = relay
            .run(&process, &mut |stream, bytes| {
                if stream == Stream::Stdout { &mut out } else { &mut err }.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        assert_eq!(end, End::Exited(ExitStatus::Code(5)));
        assert!(out.starts_with(b"hello\n\0"));
        assert_eq!((out.len(), err.as_slice()), (300_006, b"err\n".as_slice()));
        // Nobody takes the output: the program meets a broken pipe.
        let (pipes, stdio) = Pipes::new(false).unwrap();
        let process =
            spawn(tree.mount().as_fd(), &plan(&["sh", "-c", "cat /dev/zero; exit 1"]), stdio).unwrap();
        let relay = Relay { pipes, ..Relay::default() };
        let end = relay.run(&process, &mut |_, _| Err(std::io::ErrorKind::BrokenPipe.into())).unwrap();
        assert_eq!(end, End::Exited(ExitStatus::Code(1)));
    });
}

#[test]
fn relay_passes_signals_on() {
    use super::relay::{End, Pipes, Relay, Signals};
    inside(|tree, _| {
        let ours = rustix::process::getpid().as_raw_nonzero().get();
        let script = "trap 'exit 8' USR1; echo ready; while :; do sleep 0.02; done";
        let (pipes, stdio) = Pipes::new(false).unwrap();
        let process = spawn(tree.mount().as_fd(), &plan(&["sh", "-c", script]), stdio).unwrap();
        let relay = Relay { pipes, ..Relay::default() };
        let signal_us = |signal| {
            move |_, _: &[u8]| {
                crate::sys::fork::kill_child(ours, signal);
                Ok(())
            }
        };
        assert_eq!(
            relay.run(&process, &mut signal_us(libc::SIGUSR1)).unwrap(),
            End::Exited(ExitStatus::Code(8))
        );
        let (pipes, stdio) = Pipes::new(false).unwrap();
        let process = spawn(tree.mount().as_fd(), &plan(&["sh", "-c", script]), stdio).unwrap();
        let relay = Relay { pipes, signals: Signals::Return, ..Relay::default() };
        assert_eq!(
            relay.run(&process, &mut signal_us(libc::SIGINT)).unwrap(),
            End::Interrupted(libc::SIGINT)
        );
        process.kill(libc::SIGKILL).unwrap();
        assert_eq!(process.wait().unwrap(), ExitStatus::Signal(9));
    });
}

/// Our own terminal in raw mode, its size followed, and all back as it was at the end.
#[test]
fn relay_with_a_terminal() {
    use super::relay::{End, Relay};
    inside(|tree, _| {
        let open = |flags| rustix::pty::openpt(flags).unwrap();
        let user = open(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY);
        crate::sys::tty::unlock(user.as_fd()).unwrap();
        let slave = rustix::pty::ioctl_tiocgptpeer(&user, rustix::pty::OpenptFlags::RDWR).unwrap();
        let size = rustix::termios::Winsize { ws_row: 11, ws_col: 22, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size).unwrap();
        let before = format!("{:?}", rustix::termios::tcgetattr(&slave).unwrap());
        let script = "read line; echo got $line; stty size";
        let stdio = Stdio::Terminal { rows: 1, columns: 1 };
        let process = spawn(tree.mount().as_fd(), &plan(&["sh", "-c", script]), stdio).unwrap();
        rustix::io::write(&user, b"word\r").unwrap();
        let mut text = Vec::new();
        let relay =
            Relay { input: Some(slave.as_fd()), user_terminal: Some(slave.as_fd()), ..Relay::default() };
        let end = relay
            .run(&process, &mut |_, bytes| {
                text.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        assert_eq!(end, End::Exited(ExitStatus::Code(0)));
        assert_eq!(String::from_utf8_lossy(&text), "word\r\ngot word\r\n11 22\r\n");
        assert_eq!(format!("{:?}", rustix::termios::tcgetattr(&slave).unwrap()), before);
    });
}

/// Not a test but a measurement: `cargo test --lib cost -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_a_start() {
    inside(|tree, rung| {
        let measure = |what: &str, plan: &Plan| {
            let mut times: Vec<_> = (0..200)
                .map(|_| {
                    let null = || {
                        OwnedFd::from(
                            std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap(),
                        )
                    };
                    let root = tree.mount();
                    let before = std::time::Instant::now();
                    let stdio = Stdio::Descriptors { stdin: null(), stdout: null(), stderr: null() };
                    let process = spawn(root.as_fd(), plan, stdio).unwrap();
                    let spawned = before.elapsed();
                    process.wait().unwrap();
                    (before.elapsed(), spawned)
                })
                .collect();
            times.sort_unstable();
            println!("{rung} {what}: min {:?} median {:?}", times[0], times[times.len() / 2]);
        };
        let full = plan(&["/bin/true"]);
        measure("all", &full);
        measure("no seccomp", &Plan { seccomp: Seccomp::Unconfined, ..full.clone() });
        measure("no masks", &Plan { masked_paths: vec![], read_only_paths: vec![], ..full.clone() });
        measure(
            "no mounts",
            &Plan { mounts: vec![], masked_paths: vec![], read_only_paths: vec![], ..full.clone() },
        );
        let none = Namespaces { ipc: false, uts: false, cgroup: false, network: Network::Host };
        measure("fewer namespaces", &Plan { namespaces: none, ..full.clone() });
        let network = Namespaces { network: Network::None, ..Namespaces::default() };
        measure("own network", &Plan { namespaces: network, ..full.clone() });
    });
}
