//! Kills and errors at every system call that changes something: what `doc/storage.md` promises must hold after each.
//!
//! The tracer stops the real binary, its threads and its children at their calls. Between two calls that change the
//! disk nothing changes, so all instants of a command are tried. Sweeps of many calls take a stride, with another start
//! each time; `make faults` leaves nothing out. A failure says the line that repeats it.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "tests read the environment of their runner")]

#[allow(unused_imports, unused_macros, reason = "the tests of the verbs need more of it")]
#[path = "cli/support/mod.rs"]
mod support;

#[path = "faults/calls.rs"]
mod calls;
#[path = "faults/more.rs"]
mod more;
#[path = "faults/store.rs"]
mod store;
#[path = "faults/sweep.rs"]
mod sweep;
#[path = "faults/tracer.rs"]
mod tracer;
#[path = "faults/workloads.rs"]
mod workloads;

use std::io::Write;

use calls::Kind;
use support::need;
use tracer::Act;

/// Write past the test runner's capture: counts are worth seeing.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Calls that fail when the disk is full.
const SPACE: &[Kind] = &[Kind::Write, Kind::Create, Kind::Name, Kind::Size, Kind::Sync];
/// Calls that fail when the disk is broken.
const DISK: &[Kind] =
    &[Kind::Write, Kind::Create, Kind::Name, Kind::Remove, Kind::Meta, Kind::Size, Kind::Sync];

/// Tests that stand on the small image.
macro_rules! tests {
    ($($name:ident => $what:expr),+ $(,)?) => {
        $(#[test]
        fn $name() {
            need!("docker-registry", "skopeo", "busybox");
            $what;
        })+
    };
}

/// A test that kills a workload at its calls, and tests that let them fail.
macro_rules! sweeps {
    ($($name:ident),+ $(,)?) => {
        $(mod $name {
            use super::*;

            tests! {
                killed => sweep::kill(&workloads::$name(), Act::Kill, 24),
                no_space => sweep::fail(&workloads::$name(), Act::Fail(libc::ENOSPC), SPACE, 12),
                broken_disk => sweep::fail(&workloads::$name(), Act::Fail(libc::EIO), DISK, 12),
                without_descriptors => sweep::fail(&workloads::$name(), Act::Fail(libc::EMFILE), OPENS, 4),
                interrupted => sweep::fail(&workloads::$name(), Act::Fail(libc::EINTR), WAITS, 4),
                writes_little => sweep::fail(&workloads::$name(), Act::Short, &[Kind::Write], 4),
            }
        })+
    };
}

sweeps!(
    tag,
    pull,
    first_pull,
    load,
    save,
    save_over,
    commit,
    build,
    build_files,
    rmi,
    image_prune,
    system_prune,
    push,
    create,
    rm,
    volume_create,
    volume_rm,
);

/// Descriptors run out, once, at each place that opens something.
const OPENS: &[Kind] = &[Kind::Open, Kind::Create];

/// What a signal may interrupt.
const WAITS: &[Kind] = &[Kind::Write, Kind::Lock, Kind::Wait];

/// Limits of a file's size between those of all that a small image has.
const SIZES: &[usize] = &[1, 200, 450, 700, 1000, 2000, 6000, 20_000];

tests! {
    pull_killed_just_after => sweep::kill(&workloads::pull(), Act::KillAfter, 8),
    pull_killed_alone => sweep::kill(&workloads::pull(), Act::KillOne, 8),
    build_killed_alone => sweep::kill(&workloads::build(), Act::KillOne, 8),
    pull_full_disk => sweep::fail(&workloads::pull(), Act::FailAll(libc::ENOSPC), SPACE, 8),
    build_full_disk => sweep::fail(&workloads::build(), Act::FailAll(libc::ENOSPC), SPACE, 8),
    pull_over_quota => sweep::fail(&workloads::first_pull(), Act::Fail(libc::EDQUOT), SPACE, 6),
    pull_without_processes => sweep::fail(&workloads::pull(), Act::Fail(libc::EAGAIN), &[Kind::Spawn], 5),
    build_without_processes => sweep::fail(&workloads::build(), Act::Fail(libc::EAGAIN), &[Kind::Spawn], 5),
    recovery_of_a_pull => more::killed_again(&workloads::pull(), 6),
    recovery_of_a_removal => more::killed_again(&workloads::rmi(), 5),
    recovery_of_a_build => more::killed_again(&workloads::build(), 5),
    recovery_of_a_build_of_files => more::killed_again(&workloads::build_files(), 5),
    recovery_of_a_system_prune => more::killed_again(&workloads::system_prune(), 5),
    tag_of_too_big_files => sweep::limit(&workloads::tag(), SIZES),
    pull_of_too_big_files => sweep::limit(&workloads::pull(), SIZES),
    first_pull_of_too_big_files => sweep::limit(&workloads::first_pull(), SIZES),
    load_of_too_big_files => sweep::limit(&workloads::load(), SIZES),
    save_of_too_big_files => sweep::limit(&workloads::save(), SIZES),
    save_over_of_too_big_files => sweep::limit(&workloads::save_over(), SIZES),
    commit_of_too_big_files => sweep::limit(&workloads::commit(), SIZES),
    build_of_too_big_files => sweep::limit(&workloads::build(), SIZES),
    build_of_files_that_are_too_big => sweep::limit(&workloads::build_files(), SIZES),
    rmi_with_too_big_files => sweep::limit(&workloads::rmi(), SIZES),
    image_prune_with_too_big_files => sweep::limit(&workloads::image_prune(), SIZES),
    system_prune_with_too_big_files => sweep::limit(&workloads::system_prune(), SIZES),
    create_with_too_big_files => sweep::limit(&workloads::create(), SIZES),
    volume_create_with_too_big_files => sweep::limit(&workloads::volume_create(), SIZES),
    one_of_two_pulls_killed => more::one_of_two_killed(20),
    pull_asked_to_end => more::asked_to_end(&workloads::pull(), 3),
    build_asked_to_end => more::asked_to_end(&workloads::build(), 3),
}
