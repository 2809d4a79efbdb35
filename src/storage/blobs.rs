//! Blobs: bytes by digest, under `blobs/<algorithm>/<hex>`.

use std::fs::File;
use std::io::{self, Write};

use super::{Error, Store};
use crate::oci::{Descriptor, Digest, Hasher};

/// A blob being written: private until [`BlobWriter::publish`].
#[derive(Debug)]
pub struct BlobWriter {
    file: File,
    hasher: Hasher,
    bytes: u64,
}

impl Store {
    /// Whether a blob of that digest and size is here.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        let _ = (digest, size);
        todo!()
    }

    /// Open a blob for reading. Its bytes are verified by whoever parses or unpacks them.
    ///
    /// # Errors
    /// [`Error::MissingBlob`] when it is not here.
    pub fn open_blob(&self, digest: &Digest) -> Result<File, Error> {
        let _ = digest;
        todo!()
    }

    /// The bytes of a small blob (manifest, config: at most 4 MiB), verified.
    ///
    /// # Errors
    /// When it is missing or corrupt.
    pub fn read_blob(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let _ = digest;
        todo!()
    }

    /// Keep small bytes as a blob, durably.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn put_bytes(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, Error> {
        let _ = (media_type, bytes);
        todo!()
    }

    /// Start writing a blob.
    ///
    /// # Errors
    /// When the staging file cannot be made.
    pub fn blob_writer(&self) -> Result<BlobWriter, Error> {
        todo!()
    }
}

impl Write for BlobWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.file.write(data)?;
        self.hasher.update(&data[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobWriter {
    /// Sync, rename to its digest, sync the directory. The descriptor that names it comes back.
    ///
    /// # Errors
    /// When a step fails; nothing is left then.
    pub fn publish(self, store: &Store, media_type: &str) -> Result<Descriptor, Error> {
        let _ = (store, media_type);
        todo!()
    }
}
