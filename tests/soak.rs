//! The soak: several workers use one store at once in every way there is, at random but by a seed. No command may fail,
//! but where a peer took away what it needs; at the end the store is sound, and after a prune it is empty.
//!
//! `SOAK_SECONDS` (10), `SOAK_WORKERS` (6), `SOAK_SEED` (drawn and printed), and `SOAK_KILL`: how many of a hundred
//! commands are killed at a random moment (0 in one test, 15 in the other). `make soak` runs it for longer.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "tests read the environment of their runner")]

#[allow(unused_imports, unused_macros, reason = "the tests of the verbs need more of it")]
#[path = "cli/support/mod.rs"]
mod support;

#[path = "soak/model.rs"]
mod model;
#[path = "soak/random.rs"]
mod random;
#[path = "soak/run.rs"]
mod run;
#[path = "soak/verdict.rs"]
mod verdict;
#[path = "soak/worker.rs"]
mod worker;
#[path = "soak/world.rs"]
mod world;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use support::need;
use world::World;

/// One at a time: they are to keep the machine busy, not each other waiting.
static ALONE: Mutex<()> = Mutex::new(());

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn soak(kill_percent: u64) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let drawn =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    let seed = setting("SOAK_SEED", drawn % 1_000_000);
    let (seconds, workers) = (setting("SOAK_SECONDS", 10), setting("SOAK_WORKERS", 6));
    // To standard error: a run that hangs has said what it was.
    eprintln!(
        "soak: SOAK_SEED={seed} SOAK_SECONDS={seconds} SOAK_WORKERS={workers} SOAK_KILL={kill_percent}"
    );
    let world = World::new(kill_percent);
    let end = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        for number in 0..workers {
            let world = &world;
            let worker = move || worker::Worker::new(world, number, seed).work(end);
            std::thread::Builder::new().name(format!("worker-{number}")).spawn_scoped(scope, worker).unwrap();
        }
    });
    verdict::give(&world, seed);
}

#[test]
fn workers_on_one_store_never_disturb_each_other() {
    need!("docker-registry", "skopeo", "busybox");
    soak(setting("SOAK_KILL", 0));
}

#[test]
fn commands_that_are_killed_disturb_nobody() {
    need!("docker-registry", "skopeo", "busybox");
    soak(setting("SOAK_KILL", 15));
}
