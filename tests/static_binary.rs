//! The binary itself: linked statically, small, quick to start, and free of glibc's name service.
//!
//! A static glibc program that asks the name service (`getaddrinfo`, `getpwnam`, …) loads the host's shared libraries
//! into itself, and crashes where they do not fit. So no such function may be linked in at all: the archive members
//! that hold them are only pulled into the link when something refers to them.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "tests read the environment of their runner")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Most bytes of the stripped release binary.
const SIZE_LIMIT: u64 = 20 * 1024 * 1024;

/// Entries to glibc's name service. (`fork` alone brings in its tables, `__nss_database_fork_*`, but no way to ask it.)
const NAME_SERVICE: [&str; 22] = [
    "getaddrinfo",
    "getnameinfo",
    "gethostbyname",
    "gethostbyname_r",
    "gethostbyname2_r",
    "gethostbyaddr_r",
    "getservbyname_r",
    "getservbyport_r",
    "getpwnam",
    "getpwnam_r",
    "getpwuid",
    "getpwuid_r",
    "getpwent_r",
    "getgrnam",
    "getgrnam_r",
    "getgrgid",
    "getgrgid_r",
    "getgrouplist",
    "initgroups",
    "__nss_lookup_function",
    "__nss_lookup",
    "__nss_next2",
];

fn strate() -> PathBuf {
    std::env::var_os("STRATE_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_strate")), PathBuf::from)
}

fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "skipped in CI: {why}");
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn it_is_linked_statically() {
    let text = output(Command::new("ldd").arg(strate())).expect("ldd comes with the C library");
    let is_static = text.contains("statically linked") || text.contains("not a dynamic executable");
    assert!(is_static, "ldd says: {text}");
}

#[test]
fn no_name_service_is_linked_in() {
    // The binary of the tests has its symbols; the release build of the same code is stripped of them.
    let Some(symbols) = output(Command::new("nm").args(["--defined-only"]).arg(env!("CARGO_BIN_EXE_strate")))
    else {
        return skip("nm (binutils) is not installed");
    };
    let defined: Vec<&str> = symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert!(defined.len() > 1000, "the binary has no symbols to look at");
    let found: Vec<&&str> = NAME_SERVICE.iter().filter(|name| defined.contains(name)).collect();
    assert!(found.is_empty(), "the binary contains {found:?}: {}", callers(&found));
}

/// Who calls them, as far as a disassembly shows, to make the failure useful.
fn callers(names: &[&&str]) -> String {
    let Some(text) =
        output(Command::new("objdump").args(["-d", "--no-show-raw-insn"]).arg(env!("CARGO_BIN_EXE_strate")))
    else {
        return "objdump (binutils) would tell who calls them".into();
    };
    let mut function = "";
    let mut found = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(name) = line.strip_suffix(">:").and_then(|line| line.split_once('<')) {
            function = name.1;
        } else if line.contains("call") && names.iter().any(|name| line.ends_with(&format!("<{name}>"))) {
            found.insert(format!("{function} calls {}", line.rsplit_once('<').map_or("", |part| part.1)));
        }
    }
    found.into_iter().collect::<Vec<_>>().join("; ")
}

#[test]
fn a_hostile_name_service_configuration_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("nsswitch.conf");
    let line = "files systemd nosuchmodule [NOTFOUND=continue] compat\n";
    let databases = ["passwd", "group", "hosts", "services", "networks", "initgroups", "subid"];
    std::fs::write(&config, databases.map(|name| format!("{name}: {line}")).concat()).unwrap();
    if !Path::new("/etc/nsswitch.conf").exists() {
        return skip("this machine has no /etc/nsswitch.conf to hide");
    }
    let script = "mount --bind \"$1\" /etc/nsswitch.conf && shift && exec \"$@\"";
    let run = |args: &[&str]| {
        Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c", script, "sh"])
            .arg(&config)
            .arg(strate())
            .args(["--root", &dir.path().join("store").display().to_string()])
            .args(args)
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    if !run(&["version"]).status.success() {
        return skip("no mount namespace can be made here");
    }
    for args in [
        &["info"] as &[&str],
        &["images"],
        &["ps"],
        // A name that only the name service or DNS could answer: it must fail, and not by a signal.
        &["pull", "--retry", "0", "no-such-host.invalid/x:1"],
        &["login", "-u", "a", "-p", "b", "no-such-host.invalid"],
    ] {
        let output = run(args);
        assert!(output.status.code().is_some(), "{args:?} ended with {}", output.status);
    }
}

#[test]
fn the_release_binary_is_small_and_starts_fast() {
    let own = Path::new(env!("CARGO_BIN_EXE_strate"));
    let release = own.parent().and_then(Path::parent).unwrap().join("release/strate");
    let Ok(meta) = release.metadata() else {
        // Not a skip: `make test` tests the development build, and `make build` makes this one.
        return;
    };
    assert!(
        meta.len() <= SIZE_LIMIT,
        "{} is {} bytes, of at most {SIZE_LIMIT}",
        release.display(),
        meta.len()
    );
}
