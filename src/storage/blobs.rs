//! Blobs: bytes by digest, under `blobs/<algorithm>/<hex>`.
//!
//! A blob is written privately, synced, and renamed to its digest. The directory is synced once for all blobs, before
//! a name is moved to something that needs them.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Error, Store};
use crate::layer;
use crate::oci::{Descriptor, Digest, Hasher, descriptor};
use crate::sys::atomic::{self, SyncMode};
use crate::sys::{SysError, writeback};

/// Manifests and configs may not be larger, in bytes.
pub(super) const SMALL: u64 = 4 << 20;

/// Write-back is started whenever this many bytes have been written.
const WRITEBACK_STEP: u64 = 8 << 20;

/// A blob being written: private until [`BlobWriter::publish`], gone when dropped before.
#[derive(Debug)]
pub struct BlobWriter {
    out: SteadyFile,
    path: PathBuf,
    hasher: Hasher,
    published: bool,
}

/// A file whose data is on its way to the disk while it is still written.
#[derive(Debug)]
pub(super) struct SteadyFile {
    file: File,
    bytes: u64,
    started: u64,
}

impl SteadyFile {
    /// Go on after `bytes` bytes of `file`, whose position is there.
    pub(super) fn new(file: File, bytes: u64) -> Self {
        Self { file, bytes, started: bytes }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

impl Write for SteadyFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.file.write(data)?;
        self.bytes += n as u64;
        if self.bytes - self.started >= WRITEBACK_STEP {
            writeback::start_writeback(&self.file, self.started, self.bytes - self.started);
            self.started = self.bytes;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Store {
    /// Whether a blob of that digest and size is here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        let path = self.layout.blob(digest);
        let fits = |meta: fs::Metadata| meta.is_file() && meta.size() == size;
        match fs::symlink_metadata(&path) {
            Ok(meta) => Ok(fits(meta)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(self.blob_elsewhere(digest).is_some_and(|path| fs::metadata(path).is_ok_and(fits)))
            }
            Err(error) => Err(SysError::path("stat", &path, error).into()),
        }
    }

    /// Open a blob for reading. Its bytes are verified by whoever parses or unpacks them.
    ///
    /// # Errors
    /// [`Error::MissingBlob`] when it is not here.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.layout.blob(digest);
        self.open_anywhere(digest).map_err(|error| match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Error::MissingBlob(digest.clone()),
            _ => SysError::path("open", &path, error).into(),
        })
    }

    /// The bytes of a small blob (manifest, config: at most 4 MiB), verified.
    ///
    /// # Errors
    /// When it is missing or corrupt.
    pub fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.open_blob(digest)?
            .take(SMALL + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| SysError::path("read", self.layout.blob(digest), error))?;
        verify_small(digest, &bytes).map_err(|source| self.corrupt(digest, source))?;
        Ok(bytes)
    }

    /// Keep small bytes as a blob, durably.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn put_bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
        let digest = Digest::sha256(bytes);
        self.pin([&digest])?;
        if self.has_own(&digest) {
            return Ok(descriptor(media_type, &digest, bytes.len() as u64));
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(|error| SysError::path("write", &writer.path, error))?;
        writer.publish(self, media_type)
    }

    /// Start writing a blob.
    ///
    /// # Errors
    /// When the staging file cannot be made.
    pub fn blob_writer(&self) -> Result<BlobWriter, Error> {
        let path = self.stage_path("blob")?;
        let out = SteadyFile::new(atomic::create(&path)?, 0);
        Ok(BlobWriter { out, path, hasher: Hasher::sha256(), published: false })
    }

    /// Sync a file whose bytes were verified and rename it to its digest. One that is there already is replaced: it may
    /// be damaged, and these bytes are known to be right.
    pub(super) fn publish_blob(&self, file: &File, path: &Path, digest: &Digest) -> Result<(), Error> {
        sync_content(file, path)?;
        self.publish_synced(path, digest)
    }

    /// The same for a file that was synced after its last byte was written.
    pub(super) fn publish_synced(&self, path: &Path, digest: &Digest) -> Result<(), Error> {
        self.pin([digest])?;
        let target = self.layout.blob(digest);
        let mut renamed = fs::rename(path, &target);
        if matches!(&renamed, Err(error) if error.kind() == ErrorKind::NotFound) {
            atomic::create_dirs(
                &self.layout.blob_dir(digest.algorithm()),
                if self.shared { 0o755 } else { 0o700 },
            )?;
            renamed = fs::rename(path, &target);
        }
        renamed.map_err(|error| SysError::path("rename to", &target, error))?;
        self.forget_kept(digest);
        Ok(())
    }
}

/// Make a blob's bytes durable before it gets its name; where the file system is synced as a whole, that comes later.
pub(super) fn sync_content(file: &File, path: &Path) -> Result<(), Error> {
    match atomic::sync_mode() {
        SyncMode::Fsync => Ok(atomic::sync_file(file, path)?),
        SyncMode::Syncfs | SyncMode::None => Ok(()),
    }
}

/// Check small bytes against a digest.
pub(super) fn verify_small(digest: &Digest, bytes: &[u8]) -> Result<(), layer::Error> {
    if bytes.len() as u64 > SMALL {
        return Err(layer::Error::Limit(format!("a document is longer than {SMALL} bytes")));
    }
    let mut hasher = digest.hasher();
    hasher.update(bytes);
    let found = hasher.finish();
    if found == *digest { Ok(()) } else { Err(layer::Error::Digest { expected: digest.clone(), found }) }
}

impl Write for BlobWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.out.write(data)?;
        self.hasher.update(&data[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl BlobWriter {
    /// The digest of what was written so far.
    pub(super) fn digest(&self) -> Digest {
        self.hasher.clone().finish()
    }

    /// Sync and rename to its digest. The descriptor that names it comes back.
    ///
    /// # Errors
    /// When a step fails; nothing is left then.
    pub fn publish(mut self, store: &Store, media_type: &str) -> Result<Descriptor, Error> {
        let digest = self.hasher.clone().finish();
        store.publish_blob(self.out.file(), &self.path, &digest)?;
        self.published = true;
        Ok(descriptor(media_type, &digest, self.out.bytes()))
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.path);
        }
    }
}
