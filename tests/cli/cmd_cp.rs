//! `cp`, `diff`, `unshare`

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Env, is_root, must, need, with_busybox};

/// A container that runs, and one that was never started.
fn two(env: &Env, image: &str, flags: &[&str]) {
    let script = "while :; do sleep 1; done";
    let rest = [image, "sh", "-c", script];
    env.run(["run", "-d", "--name", "runs", "--network", "none"].iter().chain(flags).chain(&rest)).success();
    env.run(["create", "--name", "stands", "--network", "none"].iter().chain(flags).chain(&rest)).success();
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn files_go_both_ways_by_dockers_rules() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    two(&env, &image, &[]);
    let work = env.work();
    env.write("file", "one");
    env.write("tree/inner/deep", "two");
    std::fs::set_permissions(work.join("file"), std::fs::Permissions::from_mode(0o751)).unwrap();
    for name in ["runs", "stands"] {
        let cp = |from: &str, to: &str| {
            env.run(["cp", &from.replace("C:", &format!("{name}:")), &to.replace("C:", &format!("{name}:"))])
        };
        let out = |path: &str| {
            let output =
                Command::new("tar").args(["-xOf", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
            let mut tar = output.unwrap();
            let status = env
                .command(["cp", &format!("{name}:{path}"), "-"])
                .stdout(tar.stdin.take().unwrap())
                .status();
            assert!(status.unwrap().success(), "{path}");
            String::from_utf8(tar.wait_with_output().unwrap().stdout).unwrap()
        };
        cp("file", "C:/tmp").success().prints("");
        cp("file", "C:/tmp/other").success();
        cp("file", "C:/tmp/other").success();
        cp("tree", "C:/tmp").success();
        cp("tree", "C:/made").success();
        cp("tree/.", "C:/tmp/tree/inner").success();
        for path in ["/tmp/file", "/tmp/other"] {
            assert_eq!(out(path), "one", "{name}:{path}");
        }
        for path in ["/tmp/tree/inner/deep", "/made/inner/deep", "/tmp/tree/inner/inner/deep"] {
            assert_eq!(out(path), "two", "{name}:{path}");
        }
        for (from, to, word) in [
            ("file", "C:/none/", "no such directory"),
            ("file", "C:/none/x", "no such directory"),
            ("file", "C:/tmp/file/", "not a directory"),
            ("tree", "C:/tmp/file", "directory over the file"),
            ("missing", "C:/tmp", "no such file"),
            ("file/", "C:/tmp", "not a directory"),
            ("C:/missing", ".", "no such file"),
            ("C:/tmp/file", "nowhere/x", "no such directory"),
            ("C:/tmp/file", "nowhere/", "no such directory"),
            ("C:/tmp", "file", "directory over the file"),
        ] {
            cp(from, to).code(1).stderr_has(word);
        }
        let back = format!("back-{name}");
        std::fs::create_dir(work.join(&back)).unwrap();
        cp("C:/tmp/file", &back).success();
        cp("C:/tmp/file", &format!("{back}/renamed")).success();
        cp("C:/tmp/tree", &back).success();
        cp("C:/tmp/tree/.", &format!("{back}/contents")).success();
        cp("C:bin/busybox", &back).success();
        let back = work.join(back);
        assert_eq!((read(back.join("file")), read(back.join("renamed"))), ("one".into(), "one".into()));
        assert_eq!(read(back.join("tree/inner/deep")), "two");
        assert_eq!(read(back.join("contents/inner/inner/deep")), "two");
        let meta = std::fs::metadata(back.join("file")).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (0o751, rustix::process::getuid().as_raw()));
        assert_eq!(meta.mtime(), std::fs::metadata(work.join("file")).unwrap().mtime());
        // In the container they are root's.
        env.run(["start", name]).success();
        env.run(["exec", name, "stat", "-c", "%u:%g %a", "/tmp/file"]).success().prints("0:0 751");
    }
    env.run(["cp", "runs:/tmp/file", "stands:/tmp"]).code(1).stderr_has("between containers");
    env.run(["cp", "file", "other"]).code(1).stderr_has("CONTAINER:PATH");
    env.run(["cp", "file", "nobody:/tmp"]).code(1).stderr_has("nobody");
    env.run(["rm", "-f", "runs", "stands"]).success();
}

#[test]
fn a_tar_goes_in_by_stdin_and_links_are_links() {
    need!("docker-registry", "skopeo", "busybox", "tar", "gzip");
    let (env, image) = with_busybox();
    two(&env, &image, &[]);
    let work = env.work();
    env.write("in/a", "text");
    std::fs::hard_link(work.join("in/a"), work.join("in/b")).unwrap();
    symlink("a", work.join("in/link")).unwrap();
    must(Command::new("tar").args(["-czf", "in.tgz", "-C", "in", "."]).current_dir(&work));
    let send = |to: &str| {
        let input = std::fs::File::open(work.join("in.tgz")).unwrap();
        let output = env.command(["cp", "-", to]).stdin(input).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(send("runs:/data"), (Some(0), String::new()));
    let (code, words) = send("runs:/none");
    assert!(code == Some(1) && words.contains("no such directory"), "{words}");
    env.run(["exec", "runs", "sh", "-c", "cat /data/link; stat -c %h /data/a"]).success().prints("text2");
    env.run(["cp", "runs:/data/link", "as-link"]).success();
    assert_eq!(std::fs::read_link(work.join("as-link")).unwrap(), Path::new("a"));
    env.run(["cp", "-L", "runs:/data/link", "as-file"]).success();
    assert_eq!(read(work.join("as-file")), "text");
    env.run(["cp", "-L", "in/link", "runs:/tmp/from-link"]).success();
    env.run(["exec", "runs", "cat", "/tmp/from-link"]).success().prints("text");
    env.run_with_input(["cp", "-", "runs:/data"], "this is no tar, whatever it says").code(1);
    env.run(["rm", "-f", "runs", "stands"]).success();
}

#[test]
fn mounts_are_seen_while_it_runs_and_refused_when_not() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    env.write("host/here", "bound");
    let bind = format!("{}:/bound", env.work().join("host").display());
    two(&env, &image, &["-v", &bind, "-v", "data:/vol", "--tmpfs", "/mem"]);
    env.write("file", "one");
    for target in ["/bound/new", "/vol/new", "/mem/new"] {
        env.run(["cp", "file", &format!("runs:{target}")]).success();
        env.run(["exec", "runs", "cat", target]).success().prints("one");
        env.run(["cp", "file", &format!("stands:{target}")]).code(1).stderr_has("start it first");
    }
    assert_eq!(read(env.work().join("host/new")), "one");
    env.run(["cp", "runs:/bound/here", "got"]).success();
    assert_eq!(read(env.work().join("got")), "bound");
    // What is mounted over a file is written, as it cannot be replaced.
    env.write("hosts", "1.2.3.4 other\n");
    env.run(["cp", "hosts", "runs:/etc/hosts"]).success();
    env.run(["exec", "runs", "cat", "/etc/hosts"]).success().prints("1.2.3.4 other");
    env.run(["rm", "-f", "runs", "stands"]).success();
}

#[test]
fn no_link_of_a_container_leads_out_of_it() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    two(&env, &image, &[]);
    let work = env.work();
    let canary = env.write("canary/file", "host");
    env.write("file", "one");
    let host = work.join("canary").display().to_string();
    let script = format!(
        "ln -s {host} /evil; ln -s ../../../../../../..{host} /up; ln -s {host}/file /leaf; mkdir -p /d; ln -s /d /inside"
    );
    env.run(["exec", "runs", "sh", "-c", &script]).success();
    for path in ["/evil/file", "/up/file", "/evil/x", "/proc/self/root/nothing", "/../../../nothing"] {
        env.run(["cp", &format!("runs:{path}"), "out"]).code(1);
    }
    env.run(["cp", "file", "runs:/evil/file"]).code(1);
    env.run(["cp", "-L", "runs:/leaf", "out"]).code(1);
    env.run(["cp", "file", "runs:/inside"]).success();
    env.run(["exec", "runs", "cat", "/d/file"]).success().prints("one");
    env.run(["cp", "runs:/..", "whole"]).success();
    assert!(work.join("whole/bin/busybox").is_file() && !work.join("whole/etc/shadow").exists());
    assert_eq!(read(canary), "host");
    assert!(!work.join("canary/x").exists() && !work.join("out").exists());
    env.run(["rm", "-f", "runs", "stands"]).success();
}

#[test]
fn a_swapped_directory_leads_nowhere() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let canary = env.write("canary/file", "host");
    let host = env.work().join("canary").display().to_string();
    let script = format!(
        "mkdir -p /real /spare; echo inner > /real/file; ln -s {host} /bad; cd /; while :; do mv /real /spare/r; mv /bad /real; \
         mv /real /bad; mv /spare/r /real; done"
    );
    env.run(["run", "-d", "--name", "runs", "--network", "none", &image, "sh", "-c", &script]).success();
    env.write("file", "one");
    let start = Instant::now();
    let mut done = 0;
    while start.elapsed() < Duration::from_secs(2) {
        env.run(["cp", "file", "runs:/real/file"]);
        let out = env.run(["cp", "runs:/real/file", "got"]);
        if out.code == 0 {
            assert_ne!(read(env.work().join("got")), "host");
            done += 1;
        }
    }
    assert_eq!(read(canary), "host");
    assert!(done > 0);
    env.run(["rm", "-f", "runs"]).success();
}

#[test]
fn owners_are_kept_with_a_where_that_can_be() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    two(&env, &image, &[]);
    env.run(["exec", "runs", "sh", "-c", "echo x > /f; chown 7:8 /f; chmod 4755 /f"]).success();
    let tar = env.command(["cp", "-a", "runs:/f", "-"]).output().unwrap().stdout;
    let mut archive = tar::Archive::new(tar.as_slice());
    let entry = archive.entries().unwrap().next().unwrap().unwrap();
    assert_eq!((entry.header().uid().unwrap(), entry.header().gid().unwrap()), (7, 8));
    let mut child = env.command(["cp", "-", "runs:/tmp"]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &tar).unwrap();
    assert!(child.wait().unwrap().success());
    env.run(["exec", "runs", "stat", "-c", "%u:%g %a", "/tmp/f"]).success().prints("7:8 4755");
    // Whoever copies does not lend their own name to a set-id bit.
    env.run(["cp", "runs:/f", "plain"]).success();
    assert_eq!(std::fs::metadata(env.work().join("plain")).unwrap().mode() & 0o7777, 0o755);
    let kept = env.run(["cp", "-a", "runs:/f", "kept"]).success();
    let meta = std::fs::metadata(env.work().join("kept")).unwrap();
    if is_root() {
        assert_eq!((meta.uid(), meta.gid()), (7, 8));
    } else {
        kept.stderr_has("belong to you");
    }
    env.run(["rm", "-f", "runs", "stands"]).success();
}

#[test]
fn diff_shows_what_a_container_changed() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    let script = "echo x > /new; mkdir /dir; touch /dir/in; echo y >> /etc/passwd; rm -r /data; rm /etc/group; \
                  rm -r /home; mkdir -p /home/other";
    env.run(["run", "--name", "web", "--network", "none", &image, "sh", "-c", script]).success();
    let expected = "A /dir\nA /dir/in\nC /etc\nD /etc/group\nC /etc/passwd\nC /home\nA /home/other\nD /home/user\nA /new";
    let found = env.run(["diff", "web"]).success();
    let found: Vec<&str> = found.text().lines().filter(|line| !line.contains("/data")).collect();
    assert_eq!(found.join("\n"), expected);
    env.run(["diff", "web"]).success().stdout_has("D /data\n");
    let value = env.run(["diff", "--format", "json", "web"]).success().json();
    assert_eq!(value["added"], serde_json::json!(["/dir", "/dir/in", "/home/other", "/new"]));
    env.run(["create", "--name", "fresh", "--network", "none", &image, "true"]).success();
    env.run(["container", "diff", "fresh"]).success().prints("");
    env.run(["diff", "nobody"]).code(1).stderr_has("nobody");
}

#[test]
fn unshare_runs_a_program_where_containers_files_have_their_owners() {
    need!("docker-registry", "skopeo", "busybox");
    let env = Env::new();
    env.run(["unshare", "id", "-u"]).success().prints("0");
    env.run(["unshare", "sh", "-c", "exit 7"]).code(7);
    env.run(["unshare", "no-such-program"]).code(127).stderr_has("no-such-program");
    env.run(["unshare", "/etc/passwd"]).code(126);
}

#[test]
fn a_stopped_container_is_mounted_inside_unshare() {
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    env.run(["run", "--name", "web", "--network", "none", &image, "sh", "-c", "echo x > /made"]).success();
    let strate = crate::support::strate().display().to_string();
    // A program that stays there shows what starting it meanwhile comes to.
    let script = format!(
        "set -e; path=$({strate} mount web); cat $path/made; echo y > $path/from-outside; {strate} mount; \
         {strate} start web 2>&1 || true; {strate} umount web; {strate} umount web; test ! -e $path"
    );
    let output = env.run(["unshare", "sh", "-c", &script]).success();
    let lines: Vec<&str> = output.text().lines().collect();
    assert_eq!(lines[0], "x");
    assert!(
        lines[1].ends_with("/merged")
            && lines[2].contains("unmount it first")
            && lines.last() == Some(&"web")
    );
    assert!(output.stderr.contains("not mounted"), "{output}");
    env.run(["cp", "web:/from-outside", "got"]).success();
    assert_eq!(read(env.work().join("got")), "y\n");
    if !is_root() {
        env.run(["mount", "web"]).code(1).stderr_has("strate unshare");
    }
    env.run(["start", "web"]).success();
}

#[test]
fn what_another_shell_has_mounted_is_mounted_and_changed_by_nobody_else() {
    use std::io::{BufRead, BufReader};
    need!("docker-registry", "skopeo", "busybox");
    let (env, image) = with_busybox();
    env.run(["create", "--name", "web", &image, "true"]).success();
    env.write("file", "one");
    let strate = crate::support::strate().display().to_string();
    let script = format!("{strate} mount web; read word");
    let mut command = env.command(["unshare", "sh", "-c", &script]);
    let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut point = String::new();
    BufReader::new(shell.stdout.take().unwrap()).read_line(&mut point).unwrap();
    assert!(point.trim_end().ends_with("/merged"), "{point}");
    let second = env.run(["unshare", strate.as_str(), "mount", "web"]);
    let copy = env.run(["cp", "file", "web:/file"]);
    drop(shell.stdin.take());
    shell.wait().unwrap();
    second.code(1).stderr_has("unmount it first");
    copy.code(1).stderr_has("unmount it first");
    // It ended without unmounting.
    env.run(["cp", "file", "web:/file"]).success();
}
