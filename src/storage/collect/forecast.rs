//! What a collection would remove, for those who ask before they do it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Graph, Marked, roots};
use crate::oci::Digest;
use crate::storage::cache::Records;
use crate::storage::index::{Entry, IndexFile};
use crate::storage::staging::{is_alive, pins};
use crate::storage::{ContainerDir, Error, Store};
use crate::sys::tree;

/// What a collection would remove.
#[derive(Debug, Default)]
pub(in crate::storage) struct Forecast {
    /// Bytes on disk under each digest that would go: a blob, a snapshot, or both.
    pub gone: BTreeMap<Digest, u64>,
    /// Bytes on disk of what dead processes and old downloads left.
    pub leftovers: u64,
    /// What images, containers and processes would go on to need.
    pub held: Marked,
}

impl Store {
    /// What would go if the entries that are `doomed` were removed, and the containers with the ids `without`.
    pub(in crate::storage) fn forecast(
        &self,
        doomed: &dyn Fn(&Entry) -> bool,
        without: &BTreeSet<String>,
    ) -> Result<Forecast, Error> {
        let mut index = IndexFile::read(&self.layout)?;
        let mut graph = Graph::read(&self.layout, &roots(&index));
        index.take(doomed);
        let mut marked = pins(&self.layout, self.own_staging().as_deref())?;
        for root in roots(&index) {
            graph.reach(&self.layout, &root, &mut marked);
        }
        let stays = |container: &ContainerDir| !without.contains(&container.record.id);
        for container in self.all_containers()?.into_iter().filter(stays) {
            super::reach_container(&self.layout, &container, &mut graph, &mut marked);
        }
        let held = marked.clone();
        marked.extend(Records::read(&self.layout)?.iter().flat_map(|record| record.keeps().clone()));
        let mut forecast = Forecast { leftovers: self.leftovers()?, held, ..Forecast::default() };
        let keeps_snapshots = self.has_damaged_container()?;
        let goes = |content: &super::contents::Content| {
            !(marked.contains(&content.digest) || keeps_snapshots && content.is_snapshot)
        };
        for content in self.contents()?.into_iter().filter(goes) {
            *forecast.gone.entry(content.digest.clone()).or_default() += content.on_disk(&self.layout);
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
        bytes += self.old_partials()?.iter().map(|path| tree::on_disk(path)).sum::<u64>();
        Ok(bytes)
    }
}
