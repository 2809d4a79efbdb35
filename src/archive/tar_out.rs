//! An archive that is a tar: blobs one after the other. Nothing in it depends on the time or the user.

use std::io::{self, Read, Write};
use std::path::Path;

use super::{Error, OutFile};

/// Bytes moved at once.
const CHUNK: usize = 512 << 10;

/// A tar being written.
#[derive(Debug)]
pub(super) struct TarOut {
    out: OutFile,
    buffer: Vec<u8>,
    broken: bool,
}

impl TarOut {
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        Ok(Self { out: OutFile::create(path)?, buffer: Vec::new(), broken: false })
    }

    pub(super) fn dir(&mut self, path: &str) -> Result<(), Error> {
        let header = header(&format!("{path}/"), tar::EntryType::Directory, 0o755, 0);
        self.out.write_all(&header).map_err(|source| self.failed(source))
    }

    pub(super) fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let size = bytes.len() as u64;
        self.file(path, size, &mut &*bytes, &mut |_| ()).map_err(|error| match error {
            Stopped::Read(source) | Stopped::Write(source) => self.failed(source),
            Stopped::CutOff => Error::CutOff,
        })
    }

    /// A file of exactly `size` bytes; `data` must end there by itself, or in an error. Bytes so far are told to
    /// `moved`. When it fails, what was written of it is taken back where that is possible.
    pub(super) fn file(
        &mut self,
        path: &str,
        size: u64,
        data: &mut dyn Read,
        moved: &mut dyn FnMut(u64),
    ) -> Result<(), Stopped> {
        if self.broken {
            return Err(Stopped::CutOff);
        }
        let start = self.out.at();
        let result = self.whole_file(path, size, data, moved);
        if result.is_err() {
            self.broken = self.out.take_back(start).is_err();
        }
        result
    }

    fn whole_file(
        &mut self,
        path: &str,
        size: u64,
        data: &mut dyn Read,
        moved: &mut dyn FnMut(u64),
    ) -> Result<(), Stopped> {
        self.out.write_all(&header(path, tar::EntryType::Regular, 0o644, size)).map_err(Stopped::Write)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize(CHUNK, 0);
        let mut written = 0;
        loop {
            let length = match data.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stopped::Read(error)),
            };
            self.out.write_all(&buffer[..length]).map_err(Stopped::Write)?;
            written += length as u64;
            moved(written);
        }
        self.buffer = buffer;
        if written != size {
            return Err(Stopped::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        let padding = [0_u8; 512];
        let length = (size.wrapping_neg() % 512) as usize;
        self.out.write_all(&padding[..length]).map_err(Stopped::Write)
    }

    /// End the archive: on disk, then under its name.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        if self.broken {
            return Err(Error::CutOff);
        }
        self.out.write_all(&[0; 1024]).map_err(|source| self.failed(source))?;
        self.out.finish()
    }

    pub(super) fn failed(&self, source: io::Error) -> Error {
        self.out.failed(source)
    }
}

/// Why a file of a tar was not written.
#[derive(Debug)]
pub(super) enum Stopped {
    /// What should go into it could not be read, or was wrong.
    Read(io::Error),
    /// The tar could not be written.
    Write(io::Error),
    /// An earlier file was left half written.
    CutOff,
}

/// Paths here are short and plain: they fit the oldest header.
fn header(path: &str, kind: tar::EntryType, mode: u32, size: u64) -> [u8; 512] {
    let mut header = tar::Header::new_gnu();
    let field = &mut header.as_old_mut().name;
    let length = path.len().min(field.len());
    field[..length].copy_from_slice(&path.as_bytes()[..length]);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    *header.as_bytes()
}
