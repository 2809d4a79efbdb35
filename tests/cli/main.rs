//! Tests of the built binary, as a user types it: one file a verb or a story. They run as root and as an ordinary user
//! (`make test` does both), against real registries on loopback.
//!
//! A test says what it needs with `need!`; where that is missing it prints `SKIPPED: …` and passes, but with `CI=true`
//! in the environment it fails.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "tests read the environment of their runner")]

mod stopped;
mod support;

mod additional_stores;
mod attacks_inside;
mod attacks_outside;
mod attacks_root;
mod bad_input;
mod build_flags;
mod build_output;
mod build_races;
mod build_sources;
mod build_ssh;
mod build_store_races;
mod clock;
mod cmd_attach;
mod cmd_build;
mod cmd_copy;
mod cmd_cp;
mod cmd_events;
mod cmd_format;
mod cmd_imagetools;
mod cmd_import;
mod cmd_inspect_remote;
mod cmd_limits;
mod cmd_load;
mod cmd_login;
mod cmd_manifest;
mod cmd_prune;
mod cmd_pull;
mod cmd_push;
mod cmd_reset;
mod cmd_restart;
mod cmd_rmi;
mod cmd_run;
mod cmd_save;
mod cmd_sync;
mod cmd_usage;
mod cmd_version;
mod cmd_volume;
mod damage;
mod damage_kept;
mod descriptors;
mod docker_alias;
mod figures;
mod hostile_store;
mod id_maps;
mod import_store;
mod independent;
mod interop;
mod limits;
mod load_many;
mod lost_output;
mod network;
mod parallel;
mod policy;
mod registries_conf;
mod registry_attacks;
mod registry_faults;
mod removal;
mod userns;
mod walk_debian;

/// Every file of this directory is part of a test binary: a forgotten one would silently test nothing.
#[test]
fn no_test_file_is_forgotten() {
    let main = include_str!("main.rs");
    let Ok(entries) = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli")) else {
        return; // run away from the sources, as the ordinary user does
    };
    for entry in entries {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") else { continue };
        assert!(main.contains(&format!("\nmod {module};")), "tests/cli/{name} is not part of the tests");
    }
}
