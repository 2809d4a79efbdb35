//! What a collection would remove, for those who ask before they do it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use super::{Graph, Marked, PARTIAL_DAYS, roots};
use crate::oci::Digest;
use crate::storage::cache::Records;
use crate::storage::index::{Entry, IndexFile};
use crate::storage::staging::{is_alive, pins};
use crate::storage::{Error, Store};
use crate::sys::tree;

/// What a collection would remove.
#[derive(Debug, Default)]
pub(in crate::storage) struct Forecast {
    /// Bytes on disk under each digest that would go: a blob, a snapshot, or both.
    pub gone: BTreeMap<Digest, u64>,
    /// Bytes on disk of what dead processes and old downloads left.
    pub leftovers: u64,
}

impl Store {
    /// What would go if the entries that are `doomed` were removed.
    pub(in crate::storage) fn forecast(&self, doomed: &dyn Fn(&Entry) -> bool) -> Result<Forecast, Error> {
        let mut index = IndexFile::read(&self.layout)?;
        let mut graph = Graph::read(&self.layout, &roots(&index));
        index.take(doomed);
        let mut marked = pins(&self.layout, self.own_staging().as_deref())?;
        for root in roots(&index) {
            graph.reach(&self.layout, &root, &mut marked);
        }
        for container in self.all_containers()? {
            super::reach_container(&self.layout, &container, &mut graph, &mut marked);
        }
        marked.extend(Records::read(&self.layout)?.iter().flat_map(|record| record.keeps().clone()));
        let mut forecast = Forecast { leftovers: self.leftovers()?, ..Forecast::default() };
        let keeps_snapshots = self.has_damaged_container()?;
        let goes = |content: &super::contents::Content| {
            !(marked.contains(&content.digest) || keeps_snapshots && content.is_snapshot)
        };
        for content in self.contents()?.into_iter().filter(goes) {
            *forecast.gone.entry(content.digest.clone()).or_default() += content.on_disk();
        }
        Ok(forecast)
    }

    /// What each of these documents leads to.
    pub(in crate::storage) fn reach_of(&self, targets: &BTreeSet<Digest>) -> BTreeMap<Digest, Marked> {
        let mut graph = Graph::read(&self.layout, targets);
        let reach = |target: &Digest| {
            let mut marked = Marked::new();
            graph.reach(&self.layout, target, &mut marked);
            (target.clone(), marked)
        };
        targets.iter().map(reach).collect()
    }

    /// Bytes on disk of what a collection sweeps beside contents.
    fn leftovers(&self) -> Result<u64, Error> {
        let dead = self.layout.entries(&self.layout.tmp())?.into_iter().filter(|path| !is_alive(path));
        let mut bytes: u64 = dead.map(|path| tree::on_disk(&path)).sum();
        for path in self.layout.entries(&self.layout.partials())? {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let age = meta.modified().ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
            if age.as_secs() >= PARTIAL_DAYS * 86_400 {
                bytes += tree::blocks(&meta);
            }
        }
        Ok(bytes)
    }
}
