//! What the documents of images name: read once, outside of any lock, since no document changes under its digest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;

use crate::oci::{DiffId, Digest, chain_ids};
use crate::storage::blobs::SMALL;
use crate::storage::layout::Layout;

/// Digests of blobs and keys of snapshots.
pub(in crate::storage) type Marked = BTreeSet<Digest>;

/// Fewer documents than this are read by one thread.
const FEW: usize = 64;

/// What documents name, as far as they were read.
#[derive(Debug, Default)]
pub(in crate::storage) struct Graph {
    known: BTreeMap<Digest, Node>,
}

/// What one document names.
#[derive(Debug)]
enum Node {
    /// Manifests.
    Index(Vec<Digest>),
    /// Config, layers, and both keys that each layer's snapshot may go by.
    Image(Vec<Digest>),
    /// Every digest that a damaged document still has in it, whatever it stands for there.
    Damaged(Vec<Digest>),
}

impl Node {
    /// The documents that are read with it.
    fn leads_to(&self) -> &[Digest] {
        match self {
            Self::Index(members) | Self::Damaged(members) => members,
            Self::Image(_) => &[],
        }
    }
}

/// The parts of a manifest or index that lead further. Everything else may be as it likes.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    config: Option<Pointer>,
    #[serde(default)]
    layers: Vec<Pointer>,
    #[serde(default)]
    manifests: Vec<Pointer>,
}

#[derive(Deserialize)]
struct Pointer {
    digest: Digest,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<DiffId>,
}

impl Graph {
    /// Read the documents that `roots` lead to.
    pub(in crate::storage) fn read(layout: &Layout, roots: &BTreeSet<Digest>) -> Self {
        let roots: Vec<&Digest> = roots.iter().collect();
        let (next, known) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
        let work = || {
            let mut own = BTreeMap::new();
            while let Some(root) = roots.get(next.fetch_add(1, Ordering::Relaxed)) {
                load(layout, root, &mut own, 0);
            }
            known.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
        };
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(4);
        std::thread::scope(|scope| {
            for _ in 1..if roots.len() < FEW { 1 } else { threads } {
                // Without another thread the work is done on this one.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        Self { known: known.into_inner().unwrap_or_else(PoisonError::into_inner) }
    }

    /// Add a manifest or an index and all that it names to `marked`. What was not read yet is read now; what cannot be
    /// read has nothing to add: an image without its manifest is gone already.
    pub(in crate::storage) fn reach(&mut self, layout: &Layout, digest: &Digest, marked: &mut Marked) {
        marked.insert(digest.clone());
        load(layout, digest, &mut self.known, 0);
        match self.known.get(digest) {
            Some(Node::Image(parts)) => marked.extend(parts.iter().cloned()),
            // An index names images that need not be here: those have nothing that could be kept.
            Some(Node::Index(members)) => self.mark_known(members, marked),
            // It may have been an index or a manifest: what each of its digests leads to is kept too.
            Some(Node::Damaged(names)) => {
                marked.extend(names.iter().cloned());
                self.mark_known(names, marked);
            }
            None => {}
        }
    }

    fn mark_known(&self, members: &[Digest], marked: &mut Marked) {
        for member in members {
            if let Some(Node::Image(parts) | Node::Damaged(parts)) = self.known.get(member) {
                marked.insert(member.clone());
                marked.extend(parts.iter().cloned());
            }
        }
    }
}

/// Read a document, and of an index the images that are here.
fn load(layout: &Layout, digest: &Digest, known: &mut BTreeMap<Digest, Node>, depth: u32) {
    if known.contains_key(digest) {
        if let Some(node) = known.get(digest).filter(|_| depth == 0) {
            // Members may have come since.
            for member in node.leads_to().to_vec() {
                load(layout, &member, known, depth + 1);
            }
        }
        return;
    }
    let Some(bytes) = read(layout, digest) else { return };
    let node = node_of(layout, digest, &bytes);
    if depth == 0 {
        for member in node.leads_to() {
            load(layout, member, known, depth + 1);
        }
    }
    known.insert(digest.clone(), node);
}

fn node_of(layout: &Layout, digest: &Digest, bytes: &[u8]) -> Node {
    let document = serde_json::from_slice::<Document>(bytes).ok().filter(|_| is_sound(digest, bytes));
    let Some(document) = document else {
        // What it names is kept, so that a repair has to fetch the document only.
        return Node::Damaged(digests_in(bytes));
    };
    let digests = |list: Vec<Pointer>| list.into_iter().map(|pointer| pointer.digest);
    if !document.manifests.is_empty() {
        return Node::Index(digests(document.manifests).collect());
    }
    let mut parts: Vec<Digest> = digests(document.layers).collect();
    if let Some(config) = document.config {
        if let Some(bytes) = read(layout, &config.digest)
            && let Ok(config) = serde_json::from_slice::<Config>(&bytes)
        {
            parts.extend(snapshot_keys(&config.rootfs.diff_ids));
        }
        parts.push(config.digest);
    }
    Node::Image(parts)
}

/// Both keys that each layer's snapshot may go by.
pub(in crate::storage) fn snapshot_keys(diff_ids: &[DiffId]) -> impl Iterator<Item = Digest> {
    let chain = chain_ids(diff_ids).into_iter().map(|chain_id| chain_id.0);
    diff_ids.iter().map(|diff_id| diff_id.0.clone()).chain(chain)
}

fn read(layout: &Layout, digest: &Digest) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(layout.blob(digest)).ok()?.take(SMALL).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Whether the bytes are those of the digest: one flipped bit may leave a document that names less than it did.
fn is_sound(digest: &Digest, bytes: &[u8]) -> bool {
    let mut hasher = digest.hasher();
    hasher.update(bytes);
    hasher.finish() == *digest
}

/// Everything in a text that is a digest.
pub(super) fn digests_in(bytes: &[u8]) -> Vec<Digest> {
    let text = String::from_utf8_lossy(bytes);
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':');
    words.filter_map(|word| word.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_manifest_still_keeps_what_it_names() {
        let (a, b) = (Digest::sha256("a"), Digest::sha256("b"));
        let text = format!("{{\"config\":{{\"digest\":\"{a}\"}},\"layers\":[{{\"digest\":\"{b}\",]\0\0");
        assert_eq!(digests_in(text.as_bytes()), [a, b]);
        assert_eq!(digests_in(b"sha256:abc \xff\xfe sha256:"), []);
    }

    #[test]
    fn a_damaged_index_keeps_the_layers_of_its_images() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        std::fs::create_dir_all(layout.blob_dir("sha256")).unwrap();
        let put = |text: &str| {
            let digest = Digest::sha256(text);
            std::fs::write(layout.blob(&digest), text).unwrap();
            digest
        };
        let layer = Digest::sha256("layer");
        let config = put("{\"rootfs\":{\"diff_ids\":[]}}");
        let manifest = put(&format!(
            "{{\"config\":{{\"digest\":\"{config}\"}},\"layers\":[{{\"digest\":\"{layer}\"}}]}}"
        ));
        let index = put(&format!("{{\"manifests\":[{{\"digest\":\"{manifest}\"}}]}}"));
        let whole = std::fs::read_to_string(layout.blob(&index)).unwrap();
        // Whole, cut, and still a document that names nothing.
        for text in [whole.clone(), whole.replace("]}", "]"), whole.replace("manifests", "manifestz")] {
            std::fs::write(layout.blob(&index), text).unwrap();
            let mut graph = Graph::read(&layout, &[index.clone()].into());
            let mut marked = Marked::new();
            graph.reach(&layout, &index, &mut marked);
            assert!(
                [&index, &manifest, &config, &layer].iter().all(|one| marked.contains(one)),
                "{marked:?}"
            );
        }
    }
}
