//! `system check --repair`: what can be made again from what is here. What has to be fetched, `ops` fetches.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use super::files::widest;
use super::references::Needs;
use super::{Check, CheckOptions, CheckReport, Fault};
use crate::layer::{self, DiffOptions, HashingWriter, gzip_writer};
use crate::oci::{Descriptor, DiffId, Digest, Reference, chain_ids, digest_of};
use crate::storage::format::Found;
use crate::storage::index::{IndexFile, REF_NAME};
use crate::storage::lock::Patience;
use crate::storage::unpack::open_dir;
use crate::storage::{Abilities, Error, Opening, Place, Stack, Store, check_known, format, layout::Layout};
use crate::sys::atomic::{Durability, replace_file};
use crate::sys::{SysError, tree};

/// Threads that compress, as for layers that are made.
const THREADS: usize = 2;

/// A blob that is needed, and missing or wrong.
#[derive(Debug, Clone)]
pub struct LostBlob {
    /// The blob.
    pub digest: Digest,
    /// Its size in bytes; unknown of an index that only a note names.
    pub size: Option<u64>,
    /// Whether it is a manifest or an index.
    pub is_document: bool,
    /// Repositories that may have it, the likeliest first.
    pub places: Vec<Reference>,
}

impl Store {
    /// Open a damaged store to repair it: directories and the files that say what it is are made anew where they lack.
    /// Where nothing says which format it has, that is made up only with `insist`. What was done is returned beside it. `None` when there is no store at all.
    ///
    /// # Errors
    /// When it belongs to another user, cannot be written, or has a newer format; [`Error::NotAStore`] when nothing but a
    /// name or two says that it is one.
    pub fn open_to_repair(
        root: &Path,
        abilities: Abilities,
        how: Opening,
        insist: bool,
    ) -> Result<Option<(Self, Vec<String>)>, Error> {
        check_known(root)?;
        let layout = Layout::new(root);
        let marked = layout.format().symlink_metadata().is_ok();
        let senseless = match format::check(&layout, true) {
            Ok(Found::Nothing) if !layout.index().exists() && !layout.blobs().exists() => return Ok(None),
            Ok(found) => matches!(found, Found::Nothing),
            Err(Error::Json { .. }) => true,
            Err(error) => return Err(error),
        };
        // A damaged `strate.json` says that this is a store; without one more is asked, as a repair writes and sweeps.
        let is_store = format::looks_like_store(&layout) && (marked || format::holds_only_ours(&layout)?);
        if senseless && !is_store {
            return Err(Error::NotAStore(root.to_owned()));
        }
        format::check_owner(root)?;
        crate::storage::refuse_read_only(root)?;
        let mut done = mend_directories(&layout)?;
        let temp = layout.tmp().join("mend");
        if senseless {
            let patience = Patience { limit: abilities.lock_timeout, say: &|text| how.notice.say(text) };
            if format::restore(&layout, insist, &patience)? {
                done.push("`strate.json` was written anew".to_owned());
            }
        }
        let bytes = fs::read(layout.oci_layout()).unwrap_or_default();
        if serde_json::from_slice::<serde_json::Value>(&bytes)
            .map_or(true, |value| value["imageLayoutVersion"] != "1.0.0")
        {
            replace_file(&layout.oci_layout(), &temp, super::OCI_LAYOUT, Durability::Durable)?;
            done.push("`oci-layout` was written anew".to_owned());
        }
        Ok(Some((Self::open_writable_as(root, abilities, how)?, done)))
    }

    /// The blobs that names and containers need and that are missing, or wrong as `faults` say. What a manifest that is
    /// lost would need is known once it is back.
    #[must_use]
    pub fn lost_blobs(&self, faults: &[Fault]) -> Vec<LostBlob> {
        let index = IndexFile::read(&self.layout).ok();
        let needs = Needs::of(self, index.as_ref());
        let wrong = |digest: &Digest| {
            faults.iter().any(|fault| matches!(fault, Fault::Blob { digest: bad, .. } if bad == digest))
        };
        let mut lost = Vec::new();
        for (digest, need) in &needs.blobs {
            let path = self.layout.blob(digest);
            let is_right = fs::symlink_metadata(&path)
                .is_ok_and(|meta| meta.is_file() && need.size.is_none_or(|size| size == meta.len()));
            let is_elsewhere = || path.symlink_metadata().is_err() && self.blob_elsewhere(digest).is_some();
            if !wrong(digest) && (is_right || is_elsewhere()) {
                continue;
            }
            let known = self.places(digest);
            let mut places: Vec<Reference> =
                known.iter().filter_map(|place: &Place| place.manifest(digest)).collect();
            places.extend(need.names.values().cloned());
            lost.push(LostBlob {
                digest: digest.clone(),
                size: need.size,
                is_document: need.is_document,
                places,
            });
        }
        lost
    }

    /// Make a layer's blob again from its unpacked files, byte for byte: that works for layers that were made here, and
    /// for some others. Whether it did is returned.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn remake_layer(&self, lost: &LostBlob) -> Result<bool, Error> {
        let index = IndexFile::read(&self.layout).ok();
        let needs = Needs::of(self, index.as_ref());
        let of = |(descriptor, _): &(Descriptor, DiffId)| {
            digest_of(descriptor).ok().as_ref() == Some(&lost.digest)
        };
        let found = needs.snapshots.values().find(|layer| of(&layer.stack[layer.at]));
        let Some(layer) = found else { return Ok(false) };
        let diff_ids: Vec<DiffId> = layer.stack[..=layer.at].iter().map(|(_, id)| id.clone()).collect();
        let mut layers = Vec::new();
        for (diff_id, chain_id) in diff_ids.iter().zip(chain_ids(&diff_ids)) {
            match self.find_snapshot(diff_id, &chain_id)? {
                Some(snapshot) => layers.push(snapshot),
                None => return Ok(false),
            }
        }
        let Some(own) = layers.pop() else { return Ok(false) };
        let below = Stack { layers, diff_ids: diff_ids[..layer.at].to_vec(), ..Stack::default() };
        let how = DiffOptions {
            owner: &|path| own.owners.get(path),
            skip: &|_| false,
            below: &|path| below.find(path).is_some(),
        };
        let mut out = HashingWriter::new(gzip_writer(self.blob_writer()?, THREADS));
        let fs = open_dir(&own.fs)?;
        if layer::write_upper(std::os::fd::AsFd::as_fd(&fs), &mut out, &how).is_err() {
            return Ok(false);
        }
        let (gzip, found, _) = out.finish();
        let Ok(blob) = gzip.finish() else { return Ok(false) };
        if Some(&found) != diff_ids.last().map(|diff_id| &diff_id.0) || blob.digest() != lost.digest {
            return Ok(false);
        }
        blob.publish(self, crate::oci::media_type::OCI_LAYER_GZIP)?;
        self.sync_published()?;
        Ok(true)
    }

    /// Whether a blob that is here has other bytes than its digest says.
    #[must_use]
    pub fn is_wrong(&self, digest: &Digest) -> bool {
        let own = self.layout.blob(digest);
        let elsewhere = || self.blob_elsewhere(digest).unwrap_or_else(|| own.clone());
        let path = if own.symlink_metadata().is_ok() { own.clone() } else { elsewhere() };
        path.symlink_metadata().is_ok() && super::blobs::verify(&path, digest, None, false, &|_| ()).is_err()
    }

    /// Remove a wrong blob for good. Whether that was done comes back: one that is right by now stays, and so does one
    /// that somebody is just fetching.
    ///
    /// # Errors
    /// When it cannot be moved.
    pub fn drop_wrong_blob(&self, digest: &Digest) -> Result<bool, Error> {
        let Some(_fetching) = self.hold_wrong_blob(digest)? else { return Ok(false) };
        self.move_away(&self.layout.blob(digest))?;
        let _ = fs::remove_file(self.layout.layer_fact(digest));
        Ok(true)
    }

    /// Give up the names whose images are beyond repair. The names are returned.
    ///
    /// # Errors
    /// When the list of names cannot be written.
    pub fn drop_lost_names(&self, faults: &[Fault]) -> Result<Vec<String>, Error> {
        let labels: std::collections::BTreeSet<String> = faults
            .iter()
            .flat_map(|fault| match fault {
                Fault::Blob { needed_by, .. } | Fault::Document { needed_by, .. } => needed_by.clone(),
                Fault::Entry { label, .. } => vec![label.clone()],
                _ => Vec::new(),
            })
            .collect();
        let taken = self.edit_index(|index| {
            Ok(index.take(|entry| labels.contains(&super::references::label_of(entry))))
        })?;
        let name = |entry: &crate::storage::index::Entry| {
            entry.annotations.get(REF_NAME).cloned().unwrap_or_else(|| entry.digest_text().to_owned())
        };
        Ok(taken.iter().map(name).collect())
    }

    /// Which of some faults are still there.
    #[must_use]
    pub fn check_again(&self, faults: Vec<Fault>, options: &CheckOptions<'_>) -> Vec<Fault> {
        let mut check = Check {
            store: self,
            options,
            report: CheckReport { faults, ..CheckReport::default() },
            is_old: false,
        };
        check.confirm();
        check.report.faults
    }

    pub(super) fn move_away(&self, path: &Path) -> Result<(), Error> {
        let trash = self.stage_path("damaged")?;
        match fs::rename(path, &trash) {
            Ok(()) => {
                // What cannot be removed now goes with the staging directory, or with a later sweep.
                let _ = tree::remove_path(&trash);
                Ok(())
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(SysError::path("move away", path, error).into()),
        }
    }
}

/// Make the directories that lack, and close those that are open to others and should not be.
fn mend_directories(layout: &Layout) -> Result<Vec<String>, Error> {
    let mut done = Vec::new();
    for dir in layout.directories() {
        match fs::symlink_metadata(&dir) {
            Ok(meta) if meta.is_dir() => {
                let mode = meta.permissions().mode();
                let widest = widest(layout, &dir);
                if mode & 0o077 & !widest != 0 {
                    let closed = fs::Permissions::from_mode(mode & (0o7000 | widest));
                    fs::set_permissions(&dir, closed)
                        .map_err(|error| SysError::path("change the mode of", &dir, error))?;
                    done.push(format!("`{}` was closed to others", dir.display()));
                }
            }
            // A file or link in its place is somebody's: the error says so.
            _ => {
                DirBuilder::new()
                    .mode(0o700)
                    .create(&dir)
                    .map_err(|error| SysError::path("create", &dir, error))?;
                done.push(format!("`{}` was made", dir.display()));
            }
        }
    }
    Ok(done)
}
