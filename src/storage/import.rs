//! A file system's tar becomes a layer.

use std::io::{self, Read, Write};

use super::facts::{LayerFact, layer_error};
use super::{BlobWriter, Error, Store};
use crate::image::NewLayer;
use crate::layer::tar::{Kind, Reader};
use crate::layer::{self, GzipWriter, HashingReader, gzip_writer};
use crate::oci::{DiffId, digest_of, media_type};

/// Threads that compress.
const THREADS: usize = 2;

impl Store {
    /// Keep an uncompressed tar as a layer. Its bytes stay as they are, and are compressed as those of every layer that
    /// is made here: so the same tar gives the same layer, however it was compressed on its way.
    ///
    /// # Errors
    /// When it cannot be read, is no tar, or cannot be kept.
    pub fn import_layer(&self, tar: Box<dyn Read + Send + '_>) -> Result<NewLayer, Error> {
        let out = gzip_writer(self.blob_writer()?, THREADS);
        let mut tee = Tee { input: HashingReader::new(tar), out, failure: None };
        let size = match content_size(&mut tee) {
            Ok(size) => size,
            Err(error) => {
                let error = tee.failure.take().map_or(error, write_error);
                return Err(Error::Import(error));
            }
        };
        let diff_id = DiffId(tee.input.finish().0);
        let blob = tee.out.finish().map_err(|source| Error::Import(write_error(source)))?;
        let descriptor = blob.publish(self, media_type::OCI_LAYER_GZIP)?;
        if let Ok(digest) = digest_of(&descriptor) {
            self.remember_layer(&digest, &LayerFact { diff_id: diff_id.clone(), size });
        }
        Ok(NewLayer { descriptor, diff_id })
    }
}

/// Read a tar to its very end. The bytes of its files come back.
fn content_size(tar: &mut dyn Read) -> Result<u64, layer::Error> {
    let mut reader = Reader::new(tar);
    let mut size = 0_u64;
    while let Some(entry) = reader.next_entry()? {
        if entry.kind == Kind::File {
            size = size.saturating_add(entry.size);
        }
    }
    reader.drain()?;
    Ok(size)
}

fn write_error(source: io::Error) -> layer::Error {
    match layer_error(source) {
        layer::Error::Io { source, .. } => layer::Error::Io { operation: "write", source },
        other => other,
    }
}

/// Compresses what is read through it.
struct Tee<'a> {
    input: HashingReader<Box<dyn Read + Send + 'a>>,
    out: GzipWriter<BlobWriter>,
    failure: Option<io::Error>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        if let Err(error) = self.out.write_all(&buffer[..length]) {
            self.failure = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        Ok(length)
    }
}
