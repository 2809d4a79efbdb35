//! The tail that a build step and `commit` share: changes become a layer.
//!
//! One pass: the tree is written as a tar, which is hashed (diff id), compressed, hashed again (digest) and written.

use std::cell::RefCell;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::facts::LayerFact;
use super::lock::{LockMode, LockName};
use super::snapshots::Marker;
use super::unpack::open_dir;
use super::{BlobWriter, Error, Method, Mounted, Stack, Store};
use crate::image::NewLayer;
use crate::layer::{self, Applied, DiffOptions, DiffStats, HashingWriter, Owner, OwnerTable, gzip_writer};
use crate::oci::{DiffId, Digest, chain_ids, media_type};
use crate::sys::{SysError, tree, xattr};

/// Threads that compress.
const THREADS: usize = 2;

/// How changes become a layer.
#[derive(Clone, Copy)]
pub struct CommitOptions<'a> {
    /// Paths (relative) to leave out: mount stubs.
    pub skip: &'a dyn Fn(&Path) -> bool,
    /// Whether the changes directory may be taken over as the new layer's snapshot (a build step's scratch), or must
    /// stay as it is (a container's).
    pub take: bool,
}

impl std::fmt::Debug for CommitOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CommitOptions {{ take: {} }}", self.take)
    }
}

/// What the writer of a layer asked about on its way, kept for the snapshot.
#[derive(Default)]
struct Seen {
    skipped: RefCell<Vec<PathBuf>>,
    owners: RefCell<OwnerTable>,
}

impl Store {
    /// Write the changes of `mounted` over `stack` as a layer: tar, diff id, gzip blob, and (when taken over) snapshot.
    ///
    /// # Errors
    /// When the tree cannot be read or the layer not be written.
    pub fn commit_layer(
        &self,
        stack: &Stack,
        mounted: Mounted,
        options: &CommitOptions<'_>,
    ) -> Result<NewLayer, Error> {
        let upper = mounted
            .upper
            .clone()
            .ok_or_else(|| Error::Inconsistent("a tree that was mounted read-only has no changes".into()))?;
        let seen = Seen::default();
        let (written, stats) = self.write_layer(stack, &mounted, &upper, options, &seen)?;
        let (blob, diff_id) = written;
        let descriptor = blob.publish(self, media_type::OCI_LAYER_GZIP)?;
        if let Ok(digest) = crate::oci::digest_of(&descriptor) {
            self.remember_layer(&digest, &LayerFact { diff_id: diff_id.clone(), size: stats.bytes });
        }
        if options.take && mounted.method == Method::Overlay {
            drop(mounted.root);
            self.take_upper(stack, &upper, &diff_id, stats, seen)?;
        }
        Ok(NewLayer { descriptor, diff_id })
    }

    fn write_layer(
        &self,
        stack: &Stack,
        mounted: &Mounted,
        upper: &Path,
        options: &CommitOptions<'_>,
        seen: &Seen,
    ) -> Result<((BlobWriter, DiffId), DiffStats), Error> {
        let failed = |source| Error::Layer { digest: top_of(stack), source };
        let owner = |path: &Path| {
            let owner = stack.owner(path)?;
            seen.owners.borrow_mut().insert(path.to_owned(), owner);
            Some(owner)
        };
        let skip = |path: &Path| {
            let skip = (options.skip)(path);
            if skip {
                seen.skipped.borrow_mut().push(path.to_owned());
            }
            skip
        };
        let below = |path: &Path| stack.find(path).is_some();
        let how = DiffOptions { owner: &owner, skip: &skip, below: &below };
        let mut out = HashingWriter::new(gzip_writer(self.blob_writer()?, THREADS));
        let new = open_dir(upper)?;
        let stats = match mounted.method {
            Method::Overlay => layer::write_upper(new.as_fd(), &mut out, &how),
            Method::Copy => {
                let old = self.mount_read_only(stack)?;
                layer::write_changes(old.root.as_fd(), new.as_fd(), &mut out, &how)
            }
        };
        let stats = stats.map_err(failed)?;
        let (gzip, diff_id, _) = out.finish();
        let blob = gzip.finish().map_err(|source| failed(layer::Error::Io { operation: "write", source }))?;
        Ok(((blob, DiffId(diff_id)), stats))
    }

    /// An overlay's upper directory is a snapshot: the kernel has put every changed directory's parents and every
    /// linked file into it, so it stands on its own. What the layer leaves out leaves the directory too.
    fn take_upper(
        &self,
        stack: &Stack,
        upper: &Path,
        diff_id: &DiffId,
        stats: DiffStats,
        seen: Seen,
    ) -> Result<(), Error> {
        let mut diff_ids = stack.diff_ids.clone();
        diff_ids.push(diff_id.clone());
        let Some(chain_id) = chain_ids(&diff_ids).pop() else { return Ok(()) };
        self.pin([&diff_id.0, &chain_id.0])?;
        let _lock = self.lock(&LockName::Layer(&diff_id.0), LockMode::Exclusive)?;
        if self.find_snapshot(diff_id, &chain_id)?.is_some() {
            return Ok(());
        }
        // Deepest first, so that directories are empty when their turn comes.
        let mut skipped = seen.skipped.into_inner();
        skipped.sort_by(|a, b| b.cmp(a));
        for path in skipped {
            tree::remove_path(&upper.join(path))?;
        }
        let top = fs::metadata(upper).map_err(|error| SysError::path("look at", upper, error))?;
        let dir = self.stage_dir("layer")?;
        fs::rename(upper, dir.join("fs")).map_err(|error| SysError::path("rename", upper, error))?;
        let applied = Applied {
            highest_id: Some(stats.highest_id.max(top.uid()).max(top.gid())),
            entries: stats.entries,
            bytes: stats.bytes,
            disk: stats.disk,
            owners: seen.owners.into_inner(),
            ..Applied::default()
        };
        let marker = Marker::new(diff_id, &applied, self.writable()?.mapped_ids, self.ids());
        self.publish_tree(&dir, &diff_id.0, &marker, &applied.owners).map(drop)
    }
}

fn top_of(stack: &Stack) -> Digest {
    stack.diff_ids.last().map_or_else(|| Digest::sha256(""), |diff_id| diff_id.0.clone())
}

impl Stack {
    /// The true owner of a path, where the disk does not tell it.
    #[must_use]
    pub fn owner(&self, path: &Path) -> Option<Owner> {
        if let Some(owner) = self.changes.get(path) {
            return Some(owner);
        }
        if self.layers.iter().all(|layer| layer.owners.is_empty()) {
            return None;
        }
        self.layers[self.find(path)?].owners.get(path)
    }

    /// The topmost layer that shows `path` (relative), by its place in the stack; `None` when no layer has it or it was
    /// deleted again.
    #[must_use]
    pub fn find(&self, path: &Path) -> Option<usize> {
        for (i, layer) in self.layers.iter().enumerate().rev() {
            match look(&layer.fs, path) {
                Look::Here => return Some(i),
                Look::Hidden => return None,
                Look::Below => {}
            }
        }
        None
    }
}

/// What one layer says about a path.
enum Look {
    Here,
    /// Deleted, or under something that hides what lies below.
    Hidden,
    /// Nothing: ask the layer below.
    Below,
}

fn look(fs_root: &Path, path: &Path) -> Look {
    let mut at = fs_root.to_owned();
    let mut hidden = is_opaque(&at);
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        at.push(component);
        let Ok(meta) = fs::symlink_metadata(&at) else {
            return if hidden { Look::Hidden } else { Look::Below };
        };
        if is_whiteout(&at, &meta) {
            return Look::Hidden;
        }
        if components.peek().is_none() {
            return Look::Here;
        }
        if !meta.is_dir() {
            return Look::Hidden;
        }
        hidden |= is_opaque(&at);
    }
    Look::Here
}

fn is_whiteout(path: &Path, meta: &fs::Metadata) -> bool {
    (meta.file_type().is_char_device() && meta.rdev() == 0)
        || (meta.is_file() && meta.len() == 0 && attribute(path, "user.overlay.whiteout").is_some())
}

fn is_opaque(dir: &Path) -> bool {
    attribute(dir, "user.overlay.opaque").is_some_and(|value| value == b"y")
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let file = fs::File::open(path).ok()?;
    xattr::get(&file, name).ok()?
}
