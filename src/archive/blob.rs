//! Bytes checked against their digest.

use std::io::Read;

use crate::layer::{Error, VerifiedReader};
use crate::oci::Digest;

/// Reads small blobs whole.
pub(super) struct VerifiedSmall {
    /// The most bytes.
    pub(super) limit: u64,
}

impl VerifiedSmall {
    pub(super) fn read(&self, stream: impl Read, digest: &Digest, size: u64) -> Result<Vec<u8>, Error> {
        if size > self.limit {
            return Err(Error::Limit(format!("a document of {size} bytes, at most {} are read", self.limit)));
        }
        let mut bytes = Vec::new();
        match VerifiedReader::new(stream, digest.clone(), size).read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(layer_error(error)),
        }
    }
}

/// The error that a [`VerifiedReader`] carried through an `io::Error`, or the I/O error itself.
pub(super) fn layer_error(error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(source) => Error::Io { operation: "read", source },
    }
}
