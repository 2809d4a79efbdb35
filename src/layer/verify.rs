//! Hashes around streams.

use std::io::{self, Read, Write};

use super::Error;
use crate::oci::{Digest, Hasher};

/// Hashes and counts what is read through it.
#[derive(Debug)]
pub struct HashingReader<R> {
    inner: R,
    hasher: Hasher,
    bytes: u64,
}

impl<R: Read> HashingReader<R> {
    /// Hash with sha256.
    pub fn new(inner: R) -> Self {
        Self::with(inner, Hasher::sha256())
    }

    /// Hash on from a given state.
    pub fn with(inner: R, hasher: Hasher) -> Self {
        Self { inner, hasher, bytes: 0 }
    }

    /// Bytes read so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of all that was read, and its length in bytes.
    pub fn finish(self) -> (Digest, u64) {
        (self.hasher.finish(), self.bytes)
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}

/// Hashes and counts what is written through it.
#[derive(Debug)]
pub struct HashingWriter<W> {
    inner: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> HashingWriter<W> {
    /// Hash with sha256.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::sha256(), bytes: 0 }
    }

    /// The writer below, the digest of all that was written, and its length in bytes.
    pub fn finish(self) -> (W, Digest, u64) {
        (self.inner, self.hasher.finish(), self.bytes)
    }
}

impl<W: Write> Write for HashingWriter<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(data)?;
        self.hasher.update(&data[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Reads exactly the promised bytes and ends in an error when they are not those the digest names. Never reads past
/// the promised size but to see that nothing follows.
#[derive(Debug)]
pub struct VerifiedReader<R> {
    inner: HashingReader<R>,
    expected: Digest,
    size: u64,
    checked: bool,
}

impl<R: Read> VerifiedReader<R> {
    /// Verify against a digest and a size in bytes.
    pub fn new(inner: R, expected: Digest, size: u64) -> Self {
        let hasher = expected.hasher();
        Self { inner: HashingReader::with(inner, hasher), expected, size, checked: false }
    }

    fn check_end(&mut self) -> Result<(), Error> {
        self.checked = true;
        let found = self.inner.bytes;
        if found != self.size {
            return Err(Error::Size { expected: self.size, found });
        }
        let digest = self.inner.hasher.clone().finish();
        if digest == self.expected {
            Ok(())
        } else {
            Err(Error::Digest { expected: self.expected.clone(), found: digest })
        }
    }
}

impl<R: Read> Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let left = self.size - self.inner.bytes.min(self.size);
        if left == 0 && !self.checked {
            let mut one = [0_u8; 1];
            if self.inner.inner.read(&mut one)? != 0 {
                self.checked = true;
                let error = Error::Size { expected: self.size, found: self.size + 1 };
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let n = if want == 0 { 0 } else { self.inner.read(&mut buffer[..want])? };
        if n == 0 && !self.checked {
            self.check_end().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data: &[u8], expected: &Digest, size: u64) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        VerifiedReader::new(data, expected.clone(), size).read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn right_bytes_pass_and_everything_else_fails() {
        let digest = Digest::sha256("hello");
        assert_eq!(read(b"hello", &digest, 5).unwrap(), b"hello");
        for (data, size) in [(&b"hellO"[..], 5), (b"hell", 5), (b"hello!", 5), (b"hello", 4), (b"", 0)] {
            assert_eq!(read(data, &digest, size).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
