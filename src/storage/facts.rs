//! What is known of a layer's blob: the diff id that was computed from its bytes, and how large it is unpacked.
//!
//! A config may claim any diff id for any blob. The pair is believed only once this store has computed it, so that an
//! image cannot pass off one layer's files under another layer's blob. The files are a cache: one that is lost, cut or
//! from nowhere is computed again.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use super::{Error, Store};
use crate::layer::{self, HashingReader, VerifiedReader, decompressor};
use crate::oci::{Descriptor, DiffId, Digest, digest_of};
use crate::sys::atomic::Durability;
use crate::sys::boot::boot_id;

/// What was computed from a layer's blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LayerFact {
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// Bytes of its files, or of its tar where it was never unpacked.
    pub size: u64,
}

/// A fact as it was written down.
struct Known {
    fact: LayerFact,
    /// The modification time that the blob's file had.
    time: Option<String>,
    /// The boot in which the blob was read and found right.
    boot: String,
}

impl Store {
    /// What is known of a blob, without computing anything.
    pub(super) fn layer_fact(&self, blob: &Digest) -> Option<LayerFact> {
        self.read_fact(blob).map(|known| known.fact)
    }

    /// What is known of a blob, and when that was found.
    fn read_fact(&self, blob: &Digest) -> Option<Known> {
        let own = fs::read_to_string(self.layout.layer_fact(blob)).ok();
        let text = own.or_else(|| self.fact_elsewhere(blob))?;
        let mut words = text.strip_suffix('\n')?.split(' ');
        let (diff_id, size) = (DiffId(words.next()?.parse().ok()?), words.next()?.parse().ok()?);
        let (time, boot) = (words.next().map(str::to_owned), words.next().unwrap_or_default().to_owned());
        words.next().is_none().then_some(Known { fact: LayerFact { diff_id, size }, time, boot })
    }

    /// The modification time of a blob's file, as facts note it.
    fn blob_time(&self, blob: &Digest) -> Option<String> {
        let own = fs::metadata(self.layout.blob(blob));
        let meta = own.or_else(|error| self.blob_elsewhere(blob).map_or(Err(error), fs::metadata)).ok()?;
        Some(format!("{}.{:09}", meta.mtime(), meta.mtime_nsec()))
    }

    /// Remember what was computed from a blob. A failure is none: it will be computed again.
    pub(super) fn remember_layer(&self, blob: &Digest, fact: &LayerFact) {
        let seen = self.blob_time(blob).map(|time| format!(" {time} {}", boot_id())).unwrap_or_default();
        let text = format!("{} {}{seen}\n", fact.diff_id, fact.size);
        let _ = self.replace_file(&self.layout.layer_fact(blob), text.as_bytes(), Durability::Fast);
    }

    /// What is known of a blob, for who would fetch it anew if it were damaged: one that nobody has read since the
    /// machine started is read now. A disk that lied, or a power cut, is noticed by the next pull this way.
    ///
    /// # Errors
    /// As [`Store::known_layer`].
    pub(super) fn verified_layer(&self, descriptor: &Descriptor) -> Result<LayerFact, Error> {
        let digest = digest_of(descriptor).map_err(crate::oci::ManifestError::from)?;
        if let Some(known) = self.read_fact(&digest)
            && known.boot != boot_id()
            && known.time == self.blob_time(&digest)
        {
            let mut blob = VerifiedReader::new(self.open_blob(&digest)?, digest.clone(), descriptor.size());
            io::copy(&mut blob, &mut io::sink())
                .map_err(|error| self.corrupt(&digest, layer_error(error)))?;
            self.remember_layer(&digest, &known.fact);
            return Ok(known.fact);
        }
        self.known_layer(descriptor)
    }

    /// What is known of a blob that is here, computed from its bytes when nothing is.
    ///
    /// # Errors
    /// When the blob cannot be read or is corrupt.
    pub(super) fn known_layer(&self, descriptor: &Descriptor) -> Result<LayerFact, Error> {
        let digest = digest_of(descriptor).map_err(crate::oci::ManifestError::from)?;
        // A file that was written to since is not believed: whoever did that, its bytes may be others.
        if let Some(known) = self.read_fact(&digest)
            && known.time.is_none_or(|time| self.blob_time(&digest) == Some(time))
        {
            return Ok(known.fact);
        }
        let blob = VerifiedReader::new(self.open_blob(&digest)?, digest.clone(), descriptor.size());
        let (diff_id, size) =
            diff_id_of(Box::new(blob)).map_err(|error| self.corrupt(&digest, layer_error(error)))?;
        let fact = LayerFact { diff_id, size };
        if self.abilities.is_some() {
            self.remember_layer(&digest, &fact);
        }
        Ok(fact)
    }
}

/// Decompress to the end; the digest and length of what came out.
pub(super) fn diff_id_of(blob: Box<dyn Read + Send + '_>) -> io::Result<(DiffId, u64)> {
    let (_, tar) = decompressor(blob)?;
    let mut tar = HashingReader::new(tar);
    let mut buffer = vec![0_u8; 128 << 10];
    while tar.read(&mut buffer)? != 0 {}
    let (digest, bytes) = tar.finish();
    Ok((DiffId(digest), bytes))
}

/// The layer error that a [`VerifiedReader`] carried through an `io::Error`, or the I/O error itself.
pub(super) fn layer_error(error: io::Error) -> layer::Error {
    match error.downcast::<layer::Error>() {
        Ok(error) => error,
        Err(source) => layer::Error::Io { operation: "read", source },
    }
}
