//! Where a build's files come from: URLs, repositories, archives, contexts of every kind.

use std::io::Write;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::{Answer, Env, Files, busybox_image, must, need};

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Build with further arguments and look at the files.
fn files_of(env: &Env, args: &[&str]) -> PathBuf {
    let out = env.work().join("out");
    if out.exists() {
        std::fs::remove_dir_all(&out).unwrap();
    }
    let args = ["build", "--progress", "plain", "-o", "out"].iter().chain(args);
    env.run(args).success();
    out
}

/// Run the binary with bytes on its standard input.
fn with_input(env: &Env, args: &[&str], input: &[u8]) -> (i32, String) {
    let mut command = env.command(args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    let _ = writer.join().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn urls_are_added_with_their_name_mode_and_time_and_asked_for_again_only_in_short() {
    let (env, server) = (Env::new(), Files::start());
    let headers =
        vec![("ETag", "\"one\"".to_owned()), ("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT".to_owned())];
    let url = server.answer("a/file.txt", Answer::File(b"first".to_vec(), headers));
    env.write("Dockerfile", format!("FROM scratch\nADD {url}?v=1 /d/\nADD --chmod=755 {url} /renamed\n"));
    let out = files_of(&env, &["."]);
    let meta = std::fs::metadata(out.join("d/file.txt")).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o600, 1_700_000_000));
    assert_eq!(std::fs::metadata(out.join("renamed")).unwrap().mode() & 0o7777, 0o755);
    server.requests();
    let second = env.run(["build", "--progress", "plain", "."]).success();
    assert_eq!(second.cached_steps(), 2, "{second}");
    assert!(server.requests().iter().all(|request| request.contains("if-none-match: \"one\"")));
    server.put("a/file.txt", "second");
    let out = files_of(&env, &["."]);
    assert_eq!(read(&out.join("renamed")), "second");
}

#[test]
fn urls_that_cannot_be_trusted_end_the_build() {
    let (env, server) = (Env::new(), Files::start());
    server.answer("to-file", Answer::Redirect("file:///etc/passwd".into()));
    server.put("x", "x");
    let sum = "0000000000000000000000000000000000000000000000000000000000000000";
    for (line, said) in [
        (format!("ADD {} /x", server.url("absent")), "invalid response status 404"),
        (format!("ADD {} /x", server.url("to-file")), "redirect"),
        (format!("ADD --checksum=sha256:{sum} {} /x", server.url("x")), "digest mismatch"),
        (format!("COPY {} /x", server.url("x")), "source can't be a URL for COPY"),
        ("ADD https://h/r.git#--upload-pack=id /x".to_owned(), "invalid git ref"),
        ("ADD ssh://-oProxyCommand=id/x /x".to_owned(), "invalid git repository"),
        ("ADD file:///r.git /x".to_owned(), "invalid protocol"),
    ] {
        env.write("Dockerfile", format!("FROM scratch\n{line}\n"));
        env.run(["build", "."]).code(1).stderr_has(said);
    }
}

#[test]
fn credentials_go_to_their_host_alone() {
    let (env, server, other) = (Env::new(), Files::start(), Files::start());
    env.write("token", "hunter2");
    let target = other.put("x", "x");
    let url = server.answer("x", Answer::Redirect(target));
    env.write("Dockerfile", format!("FROM scratch\nADD {url} /x\n"));
    env.run(["build", "--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,src=token", "-t", "x", "."]).success();
    assert!(server.requests()[0].contains("authorization: bearer hunter2"));
    assert!(!other.requests()[0].contains("authorization"));
    assert!(!env.run(["history", "--no-trunc", "x"]).success().stdout.contains("hunter2"));
}

/// A tar of two files, made by tar itself.
fn tar_of(env: &Env, flag: &str) -> Vec<u8> {
    env.write("packed/Dockerfile", "FROM scratch\nCOPY a d /x/\n");
    env.write("packed/a", "a");
    env.write("packed/d/b", "b");
    env.write("packed/.dockerignore", "a\n");
    let owner = ["--owner=12", "--group=34", "-C", "packed", "-cf", "-", flag, "."];
    must(env.program("tar").args(owner.iter().filter(|arg| !arg.is_empty())))
}

#[test]
fn archives_are_unpacked_by_content_whatever_compressed_them() {
    need!("tar", "xz", "bzip2", "zstd", "gzip");
    let env = Env::new();
    for flag in ["", "-z", "-j", "-J", "--zstd"] {
        env.write("thing", tar_of(&env, flag));
        env.write("Dockerfile", "FROM scratch\nADD thing /x\nADD --unpack=false thing /packed\n");
        let out = files_of(&env, &["."]);
        assert_eq!((read(&out.join("x/a")), read(&out.join("x/d/b"))), ("a".into(), "b".into()), "{flag}");
        assert!(out.join("packed").is_file());
        // As a context it is not filtered, and its owners count.
        let (code, said) =
            with_input(&env, &["build", "-o", "type=tar,dest=out.tar", "-"], &tar_of(&env, flag));
        assert_eq!(code, 0, "{said}");
        let list = must(env.program("tar").args(["--numeric-owner", "-tvf", "out.tar"]));
        let list = String::from_utf8(list).unwrap();
        assert!(list.contains("12/34") && list.contains("x/b") && list.contains("x/a"), "{list}");
    }
    assert_no_leftovers(&env);
}

/// What was unpacked or fetched for a build is gone.
fn assert_no_leftovers(env: &Env) {
    let tmp = env.store().join("tmp");
    let find =
        Command::new("find").arg(&tmp).args(["-name", "Dockerfile", "-o", "-name", "checkout"]).output();
    assert_eq!(String::from_utf8_lossy(&find.unwrap().stdout), "");
}

/// Entries of a tar, each with its content or link.
fn hostile(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, data) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        let is_link = matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link);
        if is_link {
            header.set_link_name_literal(data).unwrap();
        }
        header.set_size(if is_link { 0 } else { data.len() as u64 });
        header.set_cksum();
        builder.append(&header, if is_link { &[][..] } else { data.as_bytes() }).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn a_hostile_archive_stays_inside_of_its_context() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let env = Env::new();
    let canary = env.write("canary/file", "untouched");
    let outside = canary.parent().unwrap().display().to_string();
    for entries in [
        vec![("../../../../canary/new", Regular, "x"), ("/canary/abs", Regular, "x")],
        vec![("l", Symlink, outside.as_str()), ("l/new", Regular, "x"), ("l/file", Regular, "x")],
        vec![("l", Symlink, ".."), ("l/l2/new", Regular, "x")],
        vec![("l", Symlink, outside.as_str()), ("l", Directory, "")],
        vec![("h", Link, canary.to_str().unwrap()), ("h", Regular, "x")],
        vec![("Dockerfile", Symlink, "/etc/passwd")],
        vec![(".wh.Dockerfile", Regular, ""), (".wh..wh..opq", Regular, "")],
    ] {
        let mut all = vec![("Dockerfile", Regular, "FROM scratch\nCOPY . /\n")];
        all.extend(entries.clone());
        let (code, said) = with_input(&env, &["build", "-o", "out", "-"], &hostile(&all));
        assert!(!said.contains("panic") && (0..=1).contains(&code), "{entries:?}: {said}");
        assert!(!said.contains("root:"), "{said}");
        let here: Vec<_> = std::fs::read_dir(canary.parent().unwrap()).unwrap().collect();
        assert_eq!((here.len(), read(&canary).as_str()), (1, "untouched"), "{entries:?}");
    }
    for cut in [0, 100, 515] {
        let mut tar = hostile(&[("Dockerfile", Regular, "FROM scratch\n"), ("x", Regular, "x")]);
        tar.truncate(cut);
        let (code, said) = with_input(&env, &["build", "-o", "out", "-"], &tar);
        assert!(code == 1 && !said.contains("panic"), "{cut}: {said}");
    }
    assert_no_leftovers(&env);
}

/// A repository with two commits, a tag, a branch and a link out of it; served as plain files.
fn repository(env: &Env, server: &Files) -> String {
    let git = |args: &[&str]| {
        let mut command = env.program("git");
        let fixed =
            ["user.name=a", "user.email=a@example.com", "init.defaultBranch=main", "commit.gpgsign=false"];
        for option in fixed {
            command.args(["-c", option]);
        }
        command.env("GIT_COMMITTER_DATE", "1600000000 +0000").env("GIT_AUTHOR_DATE", "1600000000 +0000");
        must(command.arg("-C").arg(env.work().join("repo")).args(args))
    };
    env.write("repo/Dockerfile", "FROM scratch\nCOPY . /got\n");
    env.write("repo/.dockerignore", "file\n");
    env.write("repo/file", "one");
    env.write("repo/sub/Dockerfile", "FROM scratch\nCOPY in /in\n");
    env.write("repo/sub/in", "in");
    symlink("/etc", env.work().join("repo/away")).unwrap();
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-qm", "one"]);
    git(&["tag", "-a", "v1", "-m", "v1"]);
    env.write("repo/file", "two");
    git(&["commit", "-qam", "two"]);
    let bare = env.work().join("bare.git");
    git(&["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
    must(env.program("git").arg("-C").arg(&bare).arg("update-server-info"));
    server.put_dir("bare.git", &bare)
}

#[test]
fn repositories_are_added_by_ref_and_directory() {
    need!("git");
    let (env, server) = (Env::new(), Files::start());
    let url = repository(&env, &server);
    let with_user = url.replace("http://", "http://me:hunter2@");
    env.write(
        "Dockerfile",
        format!(
            "FROM scratch\nADD {url} /main\nADD {url}#v1 /tag\nADD {url}?tag=v1&subdir=sub /sub\n\
             ADD --keep-git-dir=true {with_user} /kept\n"
        ),
    );
    let out = files_of(&env, &["."]);
    assert_eq!(
        (read(&out.join("main/file")), read(&out.join("tag/file")), read(&out.join("sub/in"))),
        ("two".into(), "one".into(), "in".into())
    );
    assert!(!out.join("main/.git").exists() && out.join("kept/.git/HEAD").exists());
    let leak = Command::new("grep").args(["-r", "hunter2"]).arg(&out).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&leak.stdout), "");
    env.run(["build", "-q", "-t", "x", "."]).success();
    assert!(!env.run(["history", "--no-trunc", "x"]).success().stdout.contains("hunter2"));
    for (source, said) in [
        (format!("{url}#nope"), "does not contain ref"),
        (format!("{url}#main:away"), "has no directory"),
        (format!("{url}#main:away/ssl"), "has no directory"),
        (format!("{url}#main:../.."), ""),
        (format!("--checksum=0123456789 {url}"), "expected checksum to match"),
    ] {
        env.write("Dockerfile", format!("FROM scratch\nADD {source} /x\n"));
        let code = i32::from(!said.is_empty());
        env.run(["build", "."]).code(code).stderr_has(said);
    }
    assert_no_leftovers(&env);
}

#[test]
fn contexts_come_from_repositories_and_urls() {
    need!("git", "tar", "gzip");
    let (env, server) = (Env::new(), Files::start());
    let url = repository(&env, &server);
    let out = files_of(&env, &[&url]);
    assert_eq!(read(&out.join("got/file")), "two"); // ignore files of a repository do not count
    let out = files_of(&env, &[&format!("{url}#v1:sub")]);
    assert_eq!(read(&out.join("in")), "in");
    let args = ["--build-arg", "SOURCE_DATE_EPOCH=context", "-o", "type=oci,dest=x.tar", &url];
    env.run(["build"].iter().chain(&args)).success();
    let packed = server.put("c.anything", tar_of(&env, "-z"));
    let out = files_of(&env, &[&packed]);
    assert_eq!(read(&out.join("x/b")), "b");
    let alone = server.put("Dockerfile", "FROM scratch\nCOPY <<E /alone\nx\nE\n");
    let out = files_of(&env, &[&alone]);
    assert_eq!(read(&out.join("alone")), "x\n");
    env.write("ctx/a", "a");
    let remote = server.put("other.df", "FROM scratch\nCOPY a /a\n");
    let out = files_of(&env, &["-f", &remote, "ctx"]);
    assert_eq!(read(&out.join("a")), "a");
    env.run(["build", &server.url("absent")]).code(1).stderr_has("invalid response status 404");
    assert_no_leftovers(&env);
}

#[test]
fn dockerfiles_come_from_anywhere_and_several_add_up() {
    let env = Env::new();
    env.write("ctx/a", "a");
    env.write("outside.df", "FROM scratch AS one\nCOPY a /one\n");
    env.write("second.df", "FROM scratch\nCOPY --from=one /one /two");
    let out = files_of(&env, &["-f", "outside.df", "ctx"]);
    assert!(out.join("one").exists());
    let out = files_of(&env, &["-f", "outside.df", "-f", "second.df", "ctx"]);
    assert!(out.join("two").exists());
    let (code, said) =
        with_input(&env, &["build", "-o", "out", "-f", "-", "ctx"], b"FROM scratch\nCOPY a /in\n");
    assert!(code == 0 && env.work().join("out/in").exists(), "{said}");
    let (code, said) = with_input(&env, &["build", "-f", "-", "-"], b"FROM scratch\n");
    assert!(code == 1 && said.contains("ambiguous"), "{said}");
    let (code, said) = with_input(&env, &["build", "-f", "x", "-"], b"FROM scratch\n");
    assert!(code == 1 && said.contains("ambiguous"), "{said}");
}

#[test]
fn contexts_by_name_are_images_layouts_repositories_and_files() {
    need!("git", "skopeo", "busybox");
    let (env, server) = (Env::new(), Files::start());
    let url = repository(&env, &server);
    let file = server.put("some.txt", "text");
    let layout = busybox_image();
    env.write("other/f", "f");
    env.write(
        "Dockerfile",
        "FROM box AS base\nFROM scratch\nCOPY --from=box /bin/busybox /bb\nCOPY --from=dir f /f\n\
         COPY --from=repo file /file\nCOPY --from=web context /web\nCOPY --from=nothing . /none\nCOPY --from=base /bin/sh /sh\n",
    );
    let contexts = [
        format!("box=oci-layout://{layout}"),
        "dir=other".into(),
        format!("repo={url}#v1"),
        format!("web={file}"),
        "nothing=docker-image://scratch".into(),
        format!("dir::plan9/amd64={file}"),
    ];
    let mut args = Vec::new();
    for context in &contexts {
        args.extend(["--build-context", context.as_str()]);
    }
    args.push(".");
    let out = files_of(&env, &args);
    assert!(out.join("bb").exists() && out.join("sh").symlink_metadata().is_ok());
    let all = ["f", "file", "web"].map(|name| read(&out.join(name)));
    assert_eq!(all, ["f", "one", "text"]);
    for bad in ["a", "=x", "a=target:b", "a=what://x", "a=https://h/r.git#-x"] {
        env.run(["build", "--build-context", bad, "."]).code(1).stderr_has("invalid context");
    }
    assert_no_leftovers(&env);
}

#[test]
fn the_context_is_listed_as_the_build_sees_it() {
    let env = Env::new();
    env.write("Dockerfile", "FROM scratch\nCOPY . /\n");
    env.write("src/main.rs", "12345");
    env.write("target/debug/big", "big");
    env.write("docs/README.md", "read");
    env.write("docs/x", "x");
    env.write(".dockerignore", "target\ndocs\n!docs/README.md\n");
    // A directory that is left out is not even opened.
    let closed = env.work().join("target/debug");
    let mode = |mode| std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(mode));
    mode(0o000).unwrap();
    let listed = env.run(["build", "--print-context", "."]).success();
    mode(0o755).unwrap();
    let listed: Vec<_> =
        listed.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>()).collect();
    let paths: Vec<_> = listed.iter().map(|line| line[1]).collect();
    assert_eq!(paths, [".dockerignore", "Dockerfile", "docs/README.md", "src/", "src/main.rs"]);
    assert_eq!(listed[4][0], "5");
    env.write("other.ignore", "*\n!src\n");
    let other = env.run(["build", "--print-context", "--ignorefile", "other.ignore", "."]).success();
    assert!(other.stdout.contains("src/main.rs") && !other.stdout.contains("Dockerfile"));
}

#[test]
fn submodules_come_along_over_a_network_alone() {
    need!("git");
    let (env, server) = (Env::new(), Files::start());
    let git = |dir: &str, args: &[&str]| {
        let mut command = env.program("git");
        for option in ["user.name=a", "user.email=a@example.com", "protocol.file.allow=always"] {
            command.args(["-c", option]);
        }
        must(command.arg("-C").arg(env.work().join(dir)).args(args))
    };
    let publish = |name: &str| {
        git(name, &["add", "-A"]);
        git(name, &["commit", "-qm", name]);
        let bare = env.work().join(format!("{name}.git"));
        let _ = std::fs::remove_dir_all(&bare);
        git(name, &["clone", "-q", "--bare", ".", bare.to_str().unwrap()]);
        git(&format!("{name}.git"), &["update-server-info"]);
        server.put_dir(&format!("{name}.git"), &bare)
    };
    env.write("inner/deep", "deep");
    git("inner", &["init", "-q", "-b", "main"]);
    let inner = publish("inner");
    env.write("outer/Dockerfile", "FROM scratch\nCOPY . /\n");
    git("outer", &["init", "-q", "-b", "main"]);
    let local = env.work().join("inner.git").display().to_string();
    git("outer", &["submodule", "--quiet", "add", &local, "sub"]);
    let modules = |url: &str| {
        env.write("outer/.gitmodules", format!("[submodule \"sub\"]\n\tpath = sub\n\turl = {url}\n"));
        publish("outer")
    };
    // By its address, and by one relative to the repository's own.
    for url in [inner.as_str(), "../inner.git"] {
        let outer = modules(url);
        let out = files_of(&env, &[&outer]);
        assert_eq!(read(&out.join("sub/deep")), "deep");
        assert!(!out.join("sub/.git").exists());
        env.write(
            "Dockerfile",
            format!("FROM scratch\nADD {outer}?submodules=false /off\nADD {outer} /on\n"),
        );
        let out = files_of(&env, &["."]);
        assert!(!out.join("off/sub/deep").exists() && out.join("on/sub/deep").exists());
    }
    // A repository does not name files of this machine, nor programs.
    for url in [local.as_str(), &format!("file://{local}"), "ext::sh -c id", "--upload-pack=id"] {
        let outer = modules(url);
        env.run(["build", &outer]).code(1).stderr_has("git submodule failed");
    }
    assert_no_leftovers(&env);
}

#[test]
fn fetching_is_seen_before_the_first_step() {
    need!("git", "tar", "gzip");
    let (env, server) = (Env::new(), Files::start());
    let url = repository(&env, &server);
    let packed = server.put("c.tar.gz", tar_of(&env, "-z"));
    let dockerfile = server.put("remote.df", "FROM scratch\nCOPY a /a\n");
    env.write("ctx/a", "a");
    for (args, title) in [
        (vec![url.as_str()], "[internal] load git source http://"),
        (vec![packed.as_str()], "[internal] load remote build context http://"),
        (vec!["-f", &dockerfile, "ctx"], "[internal] load remote Dockerfile http://"),
    ] {
        let args = [&["build", "--progress", "plain"][..], &args].concat();
        let said = env.run(&args).success().stderr;
        let (began, step) = (said.find(title), said.find("COPY"));
        assert!(began.is_some() && began < step && said.contains("#1 DONE"), "{said}");
    }
    let absent = server.url("absent.tar");
    env.run(["build", "--progress", "plain", &absent]).code(1).stderr_has("#1 ERROR").stderr_has("404");
}
