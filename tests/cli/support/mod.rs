//! What tests stand on: an environment of their own, registries, images and file trees.

#![allow(dead_code, reason = "not every test needs everything")]

mod checker;
mod env;
pub mod fake;
mod files;
mod hostile;
mod image;
mod proxy;
mod pty;
mod registry;
mod tree;

pub use checker::check_store;
pub use env::{Env, Output, eventually};
pub use fake::{Fake, FakeLayer};
pub use files::{Answer, Files};
pub use hostile::{Hostile, compiled};
pub use image::{busybox_image, debian_image};
pub use proxy::{Fault, Proxy, Seen};
pub use pty::Pty;
pub use registry::{CertificateFault, Registry, Tls, debian, shared_registry};
pub use tree::Tree;

use std::io::Write;
use std::path::{Path, PathBuf};

/// Say what a test needs; it is skipped, visibly, where that is missing.
///
/// `need!("skopeo", "docker-registry")` names programs. `need!(root)` and `need!(user)` ask for that kind of user.
macro_rules! need {
    (root) => {
        if !$crate::support::is_root() {
            return $crate::support::not_for("an ordinary user");
        }
    };
    (user) => {
        if $crate::support::is_root() {
            return $crate::support::not_for("root");
        }
    };
    ($($program:literal),+ $(,)?) => {
        for program in [$($program),+] {
            if $crate::support::program(program).is_none() {
                return $crate::support::skip(&format!("{program} is not installed"));
            }
        }
    };
}
pub(crate) use need;

/// Say that a test cannot run here. In CI that is a failure: its machine should have everything.
pub fn skip(why: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    // Written past the test runner's capture, so that it is seen when the test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {why}");
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "skipped in CI: {why}");
}

/// Say that a test is about the other kind of user, whose turn comes or came.
pub fn not_for(user: &str) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    let _ = writeln!(std::io::stderr(), "NOT HERE: {test}: it is not for {user}");
}

/// Where a program lies on `PATH` (and in the system directories, which an ordinary user's `PATH` may leave out).
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"])
        .map(|dir| Path::new(dir).join(name))
        .find(|candidate| candidate.is_file())
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The program under test.
pub fn strate() -> PathBuf {
    std::env::var_os("STRATE_BIN").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_strate")), PathBuf::from)
}

/// Where big things are made; not `/tmp`, which may be memory.
pub fn scratch() -> PathBuf {
    std::env::var_os("STRATE_TEST_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from)
}

/// Run a helper program to its end and fail the test when it fails.
pub fn must(command: &mut std::process::Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed with {}:\n{stderr}", output.status);
    output.stdout
}

/// An environment with the small image in it, and the image's name.
pub fn with_busybox() -> (Env, String) {
    let env = Env::new();
    let image = shared_registry().image("busybox:latest");
    env.run(["pull", "-q", &image]).success();
    (env, image)
}
