//! Containers, volumes and caches.

use std::fs;
use std::path::Path;

use super::references::{Needs, files_of};
use super::{Check, Fault, snapshots::chain_text};
use crate::storage::{cache, containers, layout, staging};
use crate::sys::boot;

impl Check<'_> {
    /// Every container: its record and its state.
    pub(super) fn containers(&mut self) {
        let ids = self.store.container_ids().unwrap_or_default();
        for id in ids {
            match self.store.read_container(&id) {
                Ok(None) if containers::is_half_made(&self.store.layout().container(&id)) => {
                    self.report.leftovers += 1;
                }
                Ok(None) => {} // removed just now
                Ok(Some(container)) => {
                    self.report.counts.containers += 1;
                    match container.state() {
                        Ok(state) if state.damaged => {
                            self.container(&id, "has a record of its state that makes no sense".to_owned());
                        }
                        Ok(_) => {}
                        Err(error) => {
                            self.container(&id, format!("does not say its state: {}", chain_text(&error)));
                        }
                    }
                }
                Err(error) => self.container(&id, chain_text(&error)),
            }
        }
    }

    fn container(&mut self, id: &str, what: String) {
        self.report.faults.push(Fault::Container { id: id.to_owned(), what });
    }

    /// Every volume: its record and its directory.
    pub(super) fn volumes(&mut self) {
        for entry in files_of(&self.store.layout().volumes()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                self.stray(&entry.path());
                continue;
            }
            if self.is_old && !entry.path().join("volume.json").exists() {
                self.report.counts.volumes += 1; // as they were before they had records
                continue;
            }
            let data = entry.path().join("_data");
            if !entry.path().join("volume.json").exists() && !data.exists() {
                self.report.leftovers += 1;
                continue;
            }
            self.report.counts.volumes += 1;
            let record = fs::read(entry.path().join("volume.json"));
            let value = record.map(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes));
            let what = match value {
                Ok(Ok(value)) if value["name"].as_str() == Some(&name) => {
                    if data.is_dir() {
                        continue;
                    }
                    "has lost its data".to_owned()
                }
                Ok(Ok(_)) => "has the record of another volume".to_owned(),
                Ok(Err(error)) => format!("has a record that makes no sense: {error}"),
                Err(error) => format!("has no record: {error}"),
            };
            self.report.faults.push(Fault::Volume { name, what });
        }
    }

    /// What is computed again when it is lost: build records, what is known of layers, where blobs came from.
    pub(super) fn caches(&mut self, needs: &Needs) {
        let layout = self.store.layout().clone();
        for entry in files_of(&layout.records()) {
            self.report.counts.records += 1;
            if !cache::is_record(&entry.path()) && is_damaged_here(&entry.path()) {
                let what = "is no build record".to_owned();
                self.report.faults.push(Fault::Cache { path: entry.path(), what });
            }
        }
        for entry in files_of(&layout.layer_facts()) {
            let digest = entry.file_name().to_str().and_then(layout::parse_file_name);
            let fact = digest.as_ref().and_then(|digest| self.store.layer_fact(digest));
            let said = digest.and_then(|digest| needs.diff_ids.get(&digest));
            let what = match (fact, said) {
                (None, _) => "does not say what is known of a layer",
                (Some(fact), Some(said)) if !said.contains(&fact.diff_id.0) => {
                    "says something else than the images"
                }
                _ => continue,
            };
            if is_damaged_here(&entry.path()) {
                self.report.faults.push(Fault::Cache { path: entry.path(), what: what.to_owned() });
            }
        }
    }

    /// What dead processes left, and downloads that were cut short: no faults, but good to know.
    pub(super) fn leftovers(&mut self) {
        for entry in files_of(&self.store.layout().tmp()) {
            if !staging::is_alive(&entry.path()) {
                self.report.leftovers += 1;
            }
        }
        for entry in files_of(&self.store.layout().partials()) {
            match entry.file_name().to_str().and_then(layout::parse_file_name) {
                Some(_) => self.report.partial.add(entry.metadata().map_or(0, |meta| meta.len())),
                None => self.stray(&entry.path()),
            }
        }
    }
}

impl Check<'_> {
    /// What repairs have kept: no fault either.
    pub(super) fn kept(&mut self) {
        let Ok(kept) = self.store.kept() else { return };
        if !kept.paths.is_empty() {
            self.report.remark(&format!(
                "repairs have kept what they could not mend, in `{}` and `index.json.damaged` ({}): \
                 `strate system prune --damaged` removes it",
                self.store.layout().damaged().display(),
                match kept.paths.len() {
                    1 => "1 thing".to_owned(),
                    n => format!("{n} things"),
                }
            ));
        }
    }
}

/// Whether what makes no sense is damage. Caches are not synced: one that was written in an earlier boot may be what a
/// power cut left of it, and is not taken for anything.
fn is_damaged_here(path: &Path) -> bool {
    path.exists() && !is_of_earlier_boot(path)
}

/// Whether a file or directory was last changed before the machine started.
pub(super) fn is_of_earlier_boot(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| boot::is_older(&meta))
}
