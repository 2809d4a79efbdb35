//! Every blob: its size and its digest.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::references::{Needs, files_of};
use super::{Check, Fault, Progress, in_parallel};
use crate::oci::Digest;
use crate::storage::Error;
use crate::storage::blobs::SMALL;
use crate::sys::SysError;

/// A file under `blobs/`.
pub(super) struct Found {
    pub digest: Digest,
    pub path: PathBuf,
    pub bytes: u64,
}

impl Check<'_> {
    /// The blobs that are here; names that are none are told.
    pub(super) fn found_blobs(&mut self) -> Vec<Found> {
        let mut found = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            for entry in files_of(&self.store.layout().blob_dir(algorithm)) {
                let name = entry.file_name();
                let digest = name.to_str().and_then(|hex| format!("{algorithm}:{hex}").parse().ok());
                match digest {
                    Some(digest) => {
                        let bytes = entry.metadata().map_or(0, |meta| meta.len());
                        found.push(Found { digest, path: entry.path(), bytes });
                    }
                    None => self.stray(&entry.path()),
                }
            }
        }
        found.sort_by(|a, b| a.digest.cmp(&b.digest));
        found
    }

    /// Every blob that is here, and every one that should be.
    pub(super) fn blobs(&mut self, needs: &Needs) {
        let found = self.found_blobs();
        let total = found.iter().map(|blob| blob.bytes).sum();
        self.report.counts.blobs = found.len();
        self.report.counts.blob_bytes = total;
        for blob in found.iter().filter(|blob| !needs.blobs.contains_key(&blob.digest)) {
            if !needs.kept.contains(&blob.digest) {
                self.report.collectable.add(blob.bytes);
            }
        }
        let quick = self.options.quick;
        let wanted: Vec<(&Found, Option<u64>)> = found
            .iter()
            .map(|blob| (blob, needs.blobs.get(&blob.digest).and_then(|need| need.size)))
            .collect();
        let done = std::sync::atomic::AtomicU64::new(0);
        let progress = |bytes: u64| {
            let done = done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) + bytes;
            (self.options.progress)(Progress::Blobs { done, total });
        };
        let wrong = in_parallel(&wanted, |(blob, size)| {
            let verdict = verify(&blob.path, &blob.digest, *size, quick, &progress);
            verdict.err().map(|what| (blob.digest.clone(), what))
        });
        for (digest, what) in wrong.into_iter().flatten() {
            self.blob_fault(needs, &digest, what, true);
        }
        for digest in needs.blobs.keys() {
            let here = found.binary_search_by(|blob| blob.digest.cmp(digest)).is_ok();
            if !here && self.store.blob_elsewhere(digest).is_none() {
                self.blob_fault(needs, digest, self.absence(digest), false);
            }
        }
    }

    /// Look at one blob again.
    pub(super) fn blob_again(&mut self, needs: &Needs, digest: &Digest) {
        let path = self.store.layout().blob(digest);
        let need = needs.blobs.get(digest);
        if fs::symlink_metadata(&path).is_err() {
            if need.is_some() && self.store.blob_elsewhere(digest).is_none() {
                self.blob_fault(needs, digest, self.absence(digest), false);
            }
        } else if let Err(what) =
            verify(&path, digest, need.and_then(|need| need.size), self.options.quick, &|_| ())
        {
            self.blob_fault(needs, digest, what, true);
        }
    }

    /// What is said of a blob that is not here: it may have lain in an additional store.
    fn absence(&self, digest: &Digest) -> String {
        match self.store.say_where(Error::MissingBlob(digest.clone())) {
            Error::BlobElsewhere { stores, .. } => {
                format!("is not here: it lay in the additional store `{}`", stores.join("`, `"))
            }
            _ => "is not here".to_owned(),
        }
    }

    fn blob_fault(&mut self, needs: &Needs, digest: &Digest, what: String, here: bool) {
        let need = needs.blobs.get(digest);
        let needed_by = need.map(|need| need.by.iter().cloned().collect()).unwrap_or_default();
        self.report.faults.push(Fault::Blob { digest: digest.clone(), what, here, needed_by });
    }
}

/// What is wrong with a blob. Quickly means to believe the size of a large one.
pub(super) fn verify(
    path: &Path,
    digest: &Digest,
    size: Option<u64>,
    quick: bool,
    progress: &dyn Fn(u64),
) -> Result<(), String> {
    let meta = fs::symlink_metadata(path).map_err(|error| format!("cannot be looked at: {error}"))?;
    if !meta.is_file() {
        return Err("is no regular file".to_owned());
    }
    if let Some(size) = size.filter(|size| *size != meta.len()) {
        return Err(format!("has {} bytes instead of {size}", meta.len()));
    }
    if quick && meta.len() > SMALL {
        progress(meta.len());
        return Ok(());
    }
    let found = hash(path, digest, progress).map_err(|error| error.source.to_string());
    match found.map_err(|why| format!("cannot be read: {why}"))? {
        found if found == *digest => Ok(()),
        found => Err(format!("has other bytes: they are {found}")),
    }
}

fn hash(path: &Path, digest: &Digest, progress: &dyn Fn(u64)) -> Result<Digest, SysError> {
    let failed = |error| SysError::path("read", path, error);
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = digest.hasher();
    let mut buffer = vec![0_u8; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                progress(n as u64);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
}
