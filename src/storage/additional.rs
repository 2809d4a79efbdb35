//! Additional stores: stores of others whose images are used where they lie. They are only ever read: nothing in them is
//! locked, written or collected, and what a collection of ours marks there is not ours to remove.
//!
//! Blobs are found there by their digest and verified as any. An unpacked layer is used as it lies when it belongs to
//! the same user, whose ids mean the same in it; for everybody else it is unpacked from the blob into the own store.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::format::{self, Found};
use super::index::{IndexFile, REF_NAME, SIZE, STORES};
use super::listing::{Line, Lines, Notes};
use super::lock::Notice;
use super::snapshots::Marker;
use super::{ContainerDir, ContainerRecord, Error, Image, ImageRecord, Store, layout::Layout};
use crate::image::INDEX_DIGEST_ANNOTATION;
use crate::oci::{Descriptor, DiffId, Digest, Parsed, RawManifest, Reference, digest_of};
use crate::sys::regular;

/// A store beside our own.
#[derive(Debug)]
pub(super) struct Additional {
    layout: Layout,
    /// Its unpacked layers have our owners.
    ours: bool,
}

impl Additional {
    /// Where everything lies whose owners are ours.
    fn of_ours(&self) -> Option<&Layout> {
        self.ours.then_some(&self.layout)
    }
}

/// Open what can be used; of the rest it is said why, and the others work all the same.
pub(super) fn open_all(own: &Layout, paths: &[PathBuf], notice: &Notice) -> Vec<Additional> {
    let own = own.root().canonicalize().unwrap_or_else(|_| own.root().to_owned());
    let mut opened: Vec<(PathBuf, Additional)> = Vec::new();
    for path in paths {
        let skip = |why: &str| {
            notice.say(&format!("the additional image store `{}` is not used: {why}", path.display()));
        };
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error) => {
                skip(&error.to_string());
                continue;
            }
        };
        if real == own || opened.iter().any(|(known, _)| *known == real) {
            continue;
        }
        match open(&real) {
            Ok(store) => opened.push((real, store)),
            Err(why) => skip(&why),
        }
    }
    opened.into_iter().map(|(_, store)| store).collect()
}

fn open(root: &Path) -> Result<Additional, String> {
    let layout = Layout::new(root);
    match format::check(&layout, false) {
        Ok(Found::Current(_) | Found::Older(_)) => {}
        Ok(Found::Nothing) if is_containers_storage(root) => {
            return Err(format!(
                "it is in the format of podman and buildah; `strate import-store containers-storage --from {}` copies \
                 its images",
                root.display()
            ));
        }
        Ok(Found::Nothing) => return Err("it is no store of strate".to_owned()),
        Err(error) => {
            let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
            return Err(format!("{error}{}", source.unwrap_or_default()));
        }
    }
    // What cannot be listed is said here, once, and not by every command that looks for a name.
    IndexFile::read(&layout).map_err(|error| error.to_string())?;
    let owner = fs::metadata(root).map(|meta| meta.uid()).map_err(|error| error.to_string())?;
    Ok(Additional { layout, ours: owner == rustix::process::geteuid().as_raw() })
}

/// Whether a directory is a store of containers/storage: `<driver>-images/` or its lock file.
#[must_use]
pub fn is_containers_storage(root: &Path) -> bool {
    ["overlay-images", "vfs-images", "btrfs-images", "zfs-images", "storage.lock"]
        .iter()
        .any(|name| root.join(name).exists())
}

impl Store {
    /// The path of a blob in an additional store.
    pub(super) fn blob_elsewhere(&self, digest: &Digest) -> Option<PathBuf> {
        let paths = self.additional.iter().map(|store| store.layout.blob(digest));
        paths.into_iter().find(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_file()))
    }

    /// Whether a blob is here, or in an additional store.
    pub(super) fn holds(&self, digest: &Digest) -> bool {
        self.layout.blob(digest).is_file() || self.blob_elsewhere(digest).is_some()
    }

    /// Whether a small blob is in the own store, whole.
    pub(super) fn has_own(&self, digest: &Digest) -> bool {
        let mut bytes = Vec::new();
        File::open(self.layout.blob(digest))
            .is_ok_and(|file| file.take(super::blobs::SMALL + 1).read_to_end(&mut bytes).is_ok())
            && super::blobs::verify_small(digest, &bytes).is_ok()
    }

    /// The images of the additional stores whose names are not taken by `own`, or by a store that was named before.
    pub(super) fn images_elsewhere(&self, own: &[ImageRecord]) -> Vec<ImageRecord> {
        let mut found: Vec<ImageRecord> = Vec::new();
        if self.additional.is_empty() {
            return found;
        }
        let mut names: HashSet<Reference> = own.iter().filter_map(|known| known.name.clone()).collect();
        let mut targets: HashSet<String> =
            own.iter().map(|known| known.target.digest().to_string()).collect();
        for store in &self.additional {
            // One that cannot be read any more was there when we began: somebody is taking it away.
            let Ok(bytes) = Lines::read(&store.layout) else { continue };
            let Ok(lines) = Lines::parse(&store.layout, &bytes) else { continue };
            for line in &lines.manifests {
                let Some(mut record) = self.record_elsewhere(store, line) else { continue };
                let target = record.target.digest().to_string();
                let is_new = match &record.name {
                    Some(name) => names.insert(name.clone()),
                    None => !targets.contains(&target),
                };
                if is_new {
                    targets.insert(target);
                    record.store = Some(store.layout.root().to_owned());
                    found.push(record);
                }
            }
        }
        found
    }

    /// Copy the documents of an image or index that lies in an additional store: manifests and configs. Its layers stay
    /// where they are.
    pub(super) fn bring_documents(&self, target: &Descriptor) -> Result<(), Error> {
        let digest = digest_of(target).map_err(crate::oci::ManifestError::from)?;
        let bytes = self.read_blob(&digest)?;
        match RawManifest::new(bytes.clone(), None)?.parse()? {
            Parsed::Index(index) => {
                for child in index.manifests().iter().filter(|child| self.has_manifest(child)) {
                    self.bring_documents(child)?;
                }
            }
            Parsed::Manifest(manifest) => {
                let config = digest_of(manifest.config()).map_err(crate::oci::ManifestError::from)?;
                self.put_verified(&config, &self.read_blob(&config)?)?;
            }
        }
        self.put_verified(&digest, &bytes)
    }

    /// The additional stores that hold layers of an image which are not here, as an annotation has them; `None` when it
    /// needs none of them.
    pub(super) fn stores_needed(&self, layers: &[Descriptor]) -> Option<String> {
        let digests: Vec<Digest> = layers.iter().filter_map(|layer| digest_of(layer).ok()).collect();
        let stores = self.stores_with(&digests);
        (!stores.is_empty()).then(|| serde_json::json!(stores).to_string())
    }

    /// The additional stores that hold parts of an image which are not here.
    #[must_use]
    pub fn stores_of(&self, image: &Image) -> Vec<PathBuf> {
        let layers = image.manifest.layers().iter().filter_map(|layer| digest_of(layer).ok());
        let parts: Vec<Digest> = layers.chain([image.raw.digest.clone(), image.id.0.clone()]).collect();
        self.stores_with(&parts)
    }

    /// Whether a store lies there whose images can be read.
    #[must_use]
    pub fn is_readable(root: &Path) -> bool {
        open(root).is_ok()
    }

    fn stores_with(&self, digests: &[Digest]) -> Vec<PathBuf> {
        let mut stores: Vec<PathBuf> = Vec::new();
        for digest in digests.iter().filter(|digest| !self.layout.blob(digest).is_file()) {
            let holder = self.additional.iter().find(|store| store.layout.blob(digest).is_file());
            let root = holder.map(|store| store.layout.root().to_owned());
            stores.extend(root.filter(|root| !stores.contains(root)));
        }
        stores
    }

    /// Read the additional stores too that a container's image was taken from, named this time or not. Those that cannot
    /// be used are told.
    pub fn read_stores_of(&mut self, container: &ContainerRecord) {
        let known = |path: &PathBuf| self.additional.iter().any(|store| store.layout.root() == path);
        let new: Vec<PathBuf> = container.stores.iter().filter(|path| !known(path)).cloned().collect();
        let opened = open_all(&self.layout, &new, &self.notice);
        self.additional.extend(opened);
    }

    /// A blob that is missing may have lain in an additional store that is gone, or is not named this time.
    pub(super) fn say_where(&self, error: Error) -> Error {
        let Error::MissingBlob(digest) = error else { return error };
        match self.stores_in_names(&digest).or_else(|| self.stores_in_containers(&digest)) {
            Some(stores) => Error::BlobElsewhere { digest, stores },
            None => Error::MissingBlob(digest),
        }
    }

    /// Where the layers of the image with this layer lay, as the list of names says.
    fn stores_in_names(&self, digest: &Digest) -> Option<Vec<String>> {
        let index = IndexFile::read(&self.layout).ok()?;
        index.manifests.iter().find_map(|entry| {
            let stores = serde_json::from_str(entry.annotations.get(STORES)?).unwrap_or_default();
            let chosen = entry.digest_annotation(super::index::MANIFEST).or_else(|| entry.digest())?;
            let image = self.image(&chosen).ok()?;
            let names = |layer: &Descriptor| digest_of(layer).is_ok_and(|layer| layer == *digest);
            image.manifest.layers().iter().any(names).then_some(stores)
        })
    }

    /// The same, as the containers say.
    fn stores_in_containers(&self, digest: &Digest) -> Option<Vec<String>> {
        let containers = ContainerDir::every(&self.layout).ok()?;
        let record = containers.into_iter().map(|container| container.record).find(|record| {
            let parts = record.layers.iter().filter_map(|(layer, _)| digest_of(layer).ok());
            !record.stores.is_empty()
                && parts.chain([record.manifest.clone(), record.image.0.clone()]).any(|part| part == *digest)
        })?;
        Some(record.stores.iter().map(|store| store.display().to_string()).collect())
    }

    /// What was read is not what `digest` says: in the own store, or in the additional one that it was read from.
    pub(super) fn corrupt(&self, digest: &Digest, source: crate::layer::Error) -> Error {
        let digest = digest.clone();
        let holds = |store: &&Additional| store.layout.blob(&digest).is_file();
        match self.additional.iter().find(holds) {
            Some(store) if !self.layout.blob(&digest).is_file() => {
                Error::CorruptElsewhere { store: store.layout.root().to_owned(), digest, source }
            }
            _ => Error::CorruptBlob { digest, source },
        }
    }

    /// The marker of a snapshot in an additional store, with the directory it lies in.
    pub(super) fn markers_elsewhere(&self, key: &Digest) -> impl Iterator<Item = (PathBuf, Marker)> {
        let ours = self.additional.iter().filter_map(Additional::of_ours);
        let dirs = ours.flat_map(|layout| self.places_of(layout, key));
        dirs.filter_map(|dir| Marker::read(&dir).ok().flatten().map(|marker| (dir, marker)))
    }

    /// What an additional store of this user knows of a layer's blob. What others say is not believed.
    pub(super) fn fact_elsewhere(&self, blob: &Digest) -> Option<String> {
        let ours = self.additional.iter().filter(|store| store.ours);
        ours.map(|store| store.layout.layer_fact(blob)).find_map(|path| fs::read_to_string(path).ok())
    }

    /// An image that was not pulled has no layer whose diff id was verified. Where its blob lies in somebody else's store
    /// its bytes say which of our unpacked layers it is: the config alone must not get at one.
    pub(super) fn verify_pair(&self, layer: &Descriptor, diff_id: &DiffId) -> Result<(), Error> {
        let digest = digest_of(layer).map_err(crate::oci::ManifestError::from)?;
        if self.additional.iter().all(|store| store.ours)
            || self.layout.blob(&digest).is_file()
            || self.blob_elsewhere(&digest).is_none()
        {
            return Ok(());
        }
        let found = self.known_layer(layer)?.diff_id;
        if found == *diff_id {
            return Ok(());
        }
        let source = crate::layer::Error::Digest { expected: diff_id.0.clone(), found: found.0 };
        Err(Error::Layer { digest, source })
    }

    /// What a listing says of an entry of somebody else's list: what the blobs say, as anything can stand in its notes.
    /// Its digests are those of what it leads to; a name with another digest is none.
    fn record_elsewhere(&self, store: &Additional, line: &Line<'_>) -> Option<ImageRecord> {
        if store.ours {
            return self.record(line);
        }
        let digest: Digest = line.digest().parse().ok()?;
        let target = crate::oci::descriptor(line.media_type(), &digest, line.size);
        let mut notes = self.describe_target(&target).ok()?;
        let said = |key: &str| line.annotations.get(key).map(|text| (key.to_owned(), text.to_owned()));
        notes.extend([REF_NAME, SIZE].into_iter().filter_map(said));
        let index =
            line.annotations.get(INDEX_DIGEST_ANNOTATION).filter(|text| self.is_member(text, &digest));
        notes.extend(index.map(|text| (INDEX_DIGEST_ANNOTATION.to_owned(), text.to_owned())));
        let record =
            self.record(&Line::new(line.media_type(), line.digest(), line.size, Notes::of(&notes)))?;
        let pinned = record.name.as_ref().and_then(|name| name.digest());
        pinned.is_none_or(|pinned| *pinned == record.digest || *pinned == digest).then_some(record)
    }

    /// Whether an index that is here, or in an additional store, names a manifest.
    fn is_member(&self, index: &str, manifest: &Digest) -> bool {
        let parsed = index.parse().ok().and_then(|index| self.read_blob(&index).ok());
        let parsed = parsed.and_then(|bytes| RawManifest::new(bytes, None).and_then(|raw| raw.parse()).ok());
        let Some(Parsed::Index(index)) = parsed else { return false };
        index.manifests().iter().any(|member| digest_of(member).is_ok_and(|digest| digest == *manifest))
    }

    /// Open a blob of the own store, else of an additional one.
    pub(super) fn open_anywhere(&self, digest: &Digest) -> std::io::Result<File> {
        match File::open(self.layout.blob(digest)) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                self.blob_elsewhere(digest).map_or(Err(error), |path| regular::open(&path))
            }
            other => other,
        }
    }
}

#[cfg(test)]
mod tests;
