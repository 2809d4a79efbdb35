//! What names and containers need: a walk from `index.json` and the containers to every blob and snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use super::Fault;
use crate::image::{INDEX_DIGEST_ANNOTATION, is_container_image};
use crate::oci::{
    Descriptor, DiffId, Digest, ImageConfig, Manifest, Parsed, RawManifest, Reference, chain_ids, digest_of,
};
use crate::storage::index::{CONFIG, CREATED, Entry, IndexFile, MANIFEST, REF_NAME};
use crate::storage::{Store, cache};

/// A blob that something needs.
#[derive(Debug, Default)]
pub(super) struct Need {
    /// Its size in bytes, as the descriptors say.
    pub size: Option<u64>,
    /// Images and containers, as messages call them.
    pub by: BTreeSet<String>,
    /// Where they came from, by repository.
    pub names: BTreeMap<String, Reference>,
    /// Whether it is a manifest or an index.
    pub is_document: bool,
}

/// A layer in its place: all of its stack up to it.
#[derive(Debug, Clone)]
pub(super) struct LayerOf {
    /// The stack, lowest first.
    pub stack: Arc<Vec<(Descriptor, DiffId)>>,
    /// Which of it.
    pub at: usize,
}

/// Everything that is needed.
#[derive(Debug, Default)]
pub(super) struct Needs {
    /// Blobs that have to be here.
    pub blobs: BTreeMap<Digest, Need>,
    /// Layers, by both keys that their snapshot may go by.
    pub snapshots: BTreeMap<Digest, LayerOf>,
    /// What images say of their layers' blobs: the digests of their tars.
    pub diff_ids: BTreeMap<Digest, BTreeSet<Digest>>,
    /// What records of builds keep: not collected, and not missed when it is gone.
    pub kept: BTreeSet<Digest>,
    /// What makes no sense on the way.
    pub faults: Vec<Fault>,
    /// Entries of `index.json`.
    pub images: usize,
    /// Where what is being walked came from.
    from: Option<Reference>,
    documents: BTreeMap<Digest, Option<Arc<Parsed>>>,
}

impl Needs {
    /// Walk from what `index.json` and the containers say.
    pub(super) fn of(store: &Store, index: Option<&IndexFile>) -> Self {
        let mut needs = index.map_or_else(Self::default, |index| Self::of_entries(store, index));
        for container in store.readable_containers() {
            let record = &container.record;
            let label = format!("container {}", record.name);
            needs.from = Reference::parse(&record.image_name).ok();
            needs.manifest(store, &record.manifest, None, &label, 0);
            for (layer, _) in &record.layers {
                needs.part(layer, &label);
            }
            needs.stack(record.layers.clone());
        }
        needs.kept = cache::kept_by_all_records(store);
        needs
    }

    /// Walk from what a list of names says.
    pub(super) fn of_entries(store: &Store, index: &IndexFile) -> Self {
        let mut needs = Self::default();
        for entry in index.manifests.iter() {
            needs.images += 1;
            needs.entry(store, entry);
        }
        for name in duplicates(index) {
            needs.faults.push(Fault::Entry { label: name, what: "is listed more than once".into() });
        }
        needs
    }

    fn entry(&mut self, store: &Store, entry: &Entry) {
        let label = label_of(entry);
        let Some(digest) = entry.digest() else {
            let what = "points to something that is no digest".to_owned();
            self.faults.push(Fault::Entry { label, what });
            return;
        };
        if let Err(what) = entry.check_sum() {
            self.faults.push(Fault::Entry { label: label.clone(), what });
        }
        self.from = entry.name();
        self.manifest(store, &digest, Some(entry.size()), &label, 0);
        if let Some(text) = entry.annotations.get(INDEX_DIGEST_ANNOTATION) {
            match text.parse() {
                Ok(index) => self.need(&index, None, &label, true),
                Err(_) => self.faults.push(Fault::Entry {
                    label: label.clone(),
                    what: "names an index by something that is no digest".into(),
                }),
            }
        }
        if let Some(what) = self.disagreement(store, entry, &digest, &label) {
            self.faults.push(Fault::Entry { label, what });
        }
    }

    /// What the notes of an entry say that its blobs do not. What other tools left out is no fault.
    fn disagreement(&mut self, store: &Store, entry: &Entry, digest: &Digest, label: &str) -> Option<String> {
        let document = self.document(store, digest, label)?;
        let is_index = matches!(*document, Parsed::Index(_));
        if is_index != entry.is_index() {
            return Some(format!("says of {digest} that it is {}", entry.media_type()));
        }
        let manifest = match &*document {
            Parsed::Manifest(_) => digest.clone(),
            Parsed::Index(index) => {
                let text = entry.annotations.get(MANIFEST)?;
                let named = |d: &Descriptor| digest_of(d).is_ok_and(|digest| digest.as_str() == text);
                if !index.manifests().iter().any(named) {
                    return Some(format!("runs {text}, which its index does not name"));
                }
                text.parse().ok()?
            }
        };
        let Parsed::Manifest(manifest) = &*self.document(store, &manifest, label)? else { return None };
        let noted = entry.annotations.get(CONFIG)?;
        let config = digest_of(manifest.config()).ok()?;
        if noted != config.as_str() {
            return Some(format!("says that its config is {noted}, and its manifest {config}"));
        }
        let config: ImageConfig = serde_json::from_slice(&store.read_blob(&config).ok()?).ok()?;
        (entry.annotations.get(CREATED) != config.created.as_ref())
            .then(|| "says another time of its making than its config".to_owned())
    }

    /// A manifest and what it names, or an index and those of its images that are here.
    fn manifest(&mut self, store: &Store, digest: &Digest, size: Option<u64>, label: &str, depth: u32) {
        self.need(digest, size, label, true);
        match self.document(store, digest, label).as_deref() {
            Some(Parsed::Index(index)) if depth < 2 => {
                for child in index.manifests() {
                    if let Ok(digest) = digest_of(child)
                        && store.layout().blob(&digest).exists()
                    {
                        self.manifest(store, &digest, Some(child.size()), label, depth + 1);
                    }
                }
            }
            Some(Parsed::Manifest(manifest)) => self.image(store, digest, manifest, label),
            _ => {}
        }
    }

    fn image(&mut self, store: &Store, digest: &Digest, manifest: &Manifest, label: &str) {
        for part in manifest.layers().iter().chain([manifest.config()]) {
            self.part(part, label);
        }
        if !is_container_image(manifest) {
            return;
        }
        let Ok(config) = digest_of(manifest.config()) else { return };
        let Ok(bytes) = store.read_blob(&config) else { return };
        match serde_json::from_slice::<ImageConfig>(&bytes) {
            Ok(config) if config.rootfs.diff_ids.len() == manifest.layers().len() => {
                let diff_ids = config.rootfs.diff_ids.into_iter();
                self.stack(manifest.layers().iter().cloned().zip(diff_ids).collect());
            }
            Ok(_) => self.senseless(digest, "and its config list different numbers of layers", label),
            Err(_) => self.senseless(&config, "is no image config", label),
        }
    }

    fn part(&mut self, part: &Descriptor, label: &str) {
        if let Ok(digest) = digest_of(part) {
            self.need(&digest, Some(part.size()), label, false);
        }
    }

    fn need(&mut self, digest: &Digest, size: Option<u64>, label: &str, is_document: bool) {
        let need = self.blobs.entry(digest.clone()).or_default();
        need.size = need.size.or(size);
        need.by.insert(label.to_owned());
        need.is_document |= is_document;
        if let Some(from) = &self.from {
            let place = format!("{}/{}", from.registry(), from.repository());
            need.names.entry(place).or_insert_with(|| from.with_digest(digest.clone()));
        }
    }

    fn stack(&mut self, stack: Vec<(Descriptor, DiffId)>) {
        let diff_ids: Vec<DiffId> = stack.iter().map(|(_, diff_id)| diff_id.clone()).collect();
        for (layer, diff_id) in &stack {
            if let Ok(digest) = digest_of(layer) {
                self.diff_ids.entry(digest).or_default().insert(diff_id.0.clone());
            }
        }
        let stack = Arc::new(stack);
        for (at, (diff_id, chain_id)) in diff_ids.iter().zip(chain_ids(&diff_ids)).enumerate() {
            for key in [&diff_id.0, &chain_id.0] {
                let layer = || LayerOf { stack: Arc::clone(&stack), at };
                self.snapshots.entry(key.clone()).or_insert_with(layer);
            }
        }
    }

    /// A manifest or index; `None` when it is not here, or wrong, which is found elsewhere.
    fn document(&mut self, store: &Store, digest: &Digest, label: &str) -> Option<Arc<Parsed>> {
        if let Some(known) = self.documents.get(digest) {
            return known.clone();
        }
        let bytes = store.read_blob(digest).ok();
        let parsed =
            bytes.and_then(|bytes| match RawManifest::new(bytes, None).and_then(|raw| raw.parse()) {
                Ok(parsed) => Some(Arc::new(parsed)),
                Err(error) => {
                    self.senseless(digest, &format!("is no manifest: {error}"), label);
                    None
                }
            });
        self.documents.insert(digest.clone(), parsed.clone());
        parsed
    }

    fn senseless(&mut self, digest: &Digest, what: &str, label: &str) {
        let known = |fault: &Fault| matches!(fault, Fault::Document { digest: known, .. } if known == digest);
        if !self.faults.iter().any(known) {
            let (digest, what) = (digest.clone(), what.to_owned());
            self.faults.push(Fault::Document { digest, what, needed_by: vec![label.to_owned()] });
        }
    }
}

pub(super) fn label_of(entry: &Entry) -> String {
    let name = entry.name().map(|name| name.familiar());
    name.or_else(|| entry.annotations.get(REF_NAME).cloned())
        .unwrap_or_else(|| entry.digest_text().to_owned())
}

/// Names that several entries have.
fn duplicates(index: &IndexFile) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let names = index.manifests.iter().filter_map(|entry| entry.annotations.get(REF_NAME));
    names.filter(|name| !seen.insert(*name)).cloned().collect()
}

/// The regular files of a directory; none when it is not there.
pub(super) fn files_of(dir: &std::path::Path) -> Vec<fs::DirEntry> {
    fs::read_dir(dir).map(|entries| entries.flatten().collect()).unwrap_or_default()
}
