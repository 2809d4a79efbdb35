//! A blob's stream: its length is checked, its failures say who failed, and one that only trickles counts as broken.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use super::{Error, Settings, limits};
use crate::oci::Digest;

/// Who serves a stream, and until when it may last.
#[derive(Debug, Clone)]
pub(super) struct Watch {
    pub registry: String,
    pub deadline: Option<Instant>,
    pub stall: Duration,
}

impl Watch {
    pub fn new(registry: &str, settings: &Settings) -> Self {
        Self { registry: registry.to_owned(), deadline: settings.deadline, stall: settings.stall() }
    }

    /// A failure of the transport in the middle of a body.
    pub fn broken(&self, source: io::Error) -> Error {
        let registry = self.registry.clone();
        if self.is_over() {
            return Error::Deadline { registry };
        }
        match source.kind() {
            io::ErrorKind::TimedOut => Error::Stalled { registry, after: self.stall },
            _ => Error::Broken { registry, source },
        }
    }

    pub fn is_over(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}

/// An error of ours as one of a stream: what will not pass by itself has its own kind.
pub(super) fn stream_error(error: Error) -> io::Error {
    let kind = match &error {
        Error::Truncated { .. } => io::ErrorKind::UnexpectedEof,
        // The next try asks in another way.
        Error::NoParts { .. } => io::ErrorKind::Other,
        error if error.is_temporary() => io::ErrorKind::Other,
        _ => io::ErrorKind::InvalidData,
    };
    io::Error::new(kind, error)
}

/// Whether bytes come fast enough: what counts is the time spent waiting for them, not that of who uses them.
#[derive(Debug, Default)]
struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Take note of a read; whether it goes on too slowly.
    fn is_too_slow(&mut self, waited: Duration, bytes: usize) -> bool {
        self.waited += waited;
        self.bytes += bytes as u64;
        if self.waited < limits::PACE_WINDOW {
            return false;
        }
        let slow = self.bytes < limits::PACE_BYTES;
        *self = Self::default();
        slow
    }
}

/// The bytes of a blob from one request, from `at` up to `end`.
pub(super) struct BlobReader {
    inner: Box<dyn Read + Send>,
    watch: Watch,
    digest: Digest,
    at: u64,
    end: u64,
    pace: Pace,
}

impl BlobReader {
    pub fn new(inner: Box<dyn Read + Send>, watch: Watch, digest: &Digest, at: u64, end: u64) -> Self {
        Self { inner, watch, digest: digest.clone(), at, end, pace: Pace::default() }
    }

    fn truncated(&self) -> Error {
        Error::Truncated {
            registry: self.watch.registry.clone(),
            digest: self.digest.clone(),
            got: self.at,
            size: self.end,
        }
    }

    fn next(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let start = Instant::now();
        let n = match self.inner.read(buffer) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(self.truncated()),
            Err(error) => return Err(self.watch.broken(error)),
        };
        if n == 0 && self.at < self.end {
            return Err(self.truncated());
        }
        self.at += n as u64;
        if self.at > self.end {
            return Err(Error::Corrupt {
                registry: self.watch.registry.clone(),
                what: self.digest.to_string(),
                expected: format!("{} bytes", self.end),
                found: "more".into(),
            });
        }
        if n > 0 && self.pace.is_too_slow(start.elapsed(), n) {
            return Err(Error::TooSlow { registry: self.watch.registry.clone() });
        }
        if self.watch.is_over() {
            return Err(Error::Deadline { registry: self.watch.registry.clone() });
        }
        Ok(n)
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.next(buffer).map_err(stream_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_spent_waiting_makes_a_stream_slow() {
        let mut pace = Pace::default();
        assert!(!pace.is_too_slow(limits::PACE_WINDOW / 2, 100));
        assert!(pace.is_too_slow(limits::PACE_WINDOW / 2, 100));
        // A new window begins.
        assert!(!pace.is_too_slow(limits::PACE_WINDOW / 2, 0));
        assert!(!pace.is_too_slow(limits::PACE_WINDOW, 1 << 20));
    }
}
