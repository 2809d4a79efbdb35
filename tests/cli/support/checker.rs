//! The independent checker of stores, `tests/check_store.py`.

use std::process::Command;

use super::{Env, Output, is_root};

/// What the checker found in a store.
#[derive(Debug)]
pub struct Checked {
    /// One text a defect.
    pub defects: Vec<String>,
    /// One text a leftover: what nothing needs.
    pub garbage: Vec<String>,
    /// How many of what it looked at.
    pub counts: serde_json::Value,
}

/// Check a store with Python, as who owns all of its files. `--quick` leaves out the comparison of snapshots with layers.
pub fn check_store(store: &std::path::Path, options: &[&str]) -> Checked {
    // Embedded, as the ordinary user runs away from the sources.
    let script = include_str!("../../check_store.py");
    let mut command = Command::new(if is_root() { "python3" } else { "unshare" });
    if !is_root() {
        command.args(["--user", "--map-root-user", "--map-auto", "python3"]);
    }
    let output = Output::of(command.args(["-c", script, "--json"]).args(options).arg(store));
    assert!(output.code < 2 && output.stdout.starts_with('{'), "the checker broke: {output}");
    let found = output.json();
    let texts = |list: &str, keys: &[&str]| -> Vec<String> {
        let words = |line: &serde_json::Value| {
            keys.iter().filter_map(|key| line[key].as_str()).collect::<Vec<_>>().join(": ")
        };
        found[list].as_array().unwrap().iter().map(words).collect()
    };
    let defects = texts("defects", &["kind", "subject", "what"]);
    assert_eq!(output.code == 0, defects.is_empty(), "{output}");
    Checked { defects, garbage: texts("garbage", &["kind", "subject"]), counts: found["counts"].clone() }
}

impl Checked {
    /// There must be nothing wrong.
    #[track_caller]
    pub fn sound(self) -> Self {
        assert!(self.defects.is_empty(), "the store has defects: {self:#?}");
        self
    }

    /// There must be a defect with this text.
    #[track_caller]
    pub fn has_defect(self, part: &str) -> Self {
        assert!(self.defects.iter().any(|one| one.contains(part)), "no defect says {part:?}: {self:#?}");
        self
    }
}

impl Env {
    /// Check the store with the independent checker.
    pub fn check_store(&self) -> Checked {
        check_store(&self.store(), &[])
    }
}
