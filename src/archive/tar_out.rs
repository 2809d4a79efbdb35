//! An archive that is a tar: blobs one after the other. Nothing in it depends on the time or the user.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::Error;
use crate::sys::unnamed::UnnamedFile;
use crate::sys::writeback;

/// Bytes moved at once.
const CHUNK: usize = 512 << 10;
/// Write-back is started whenever this many bytes have been written.
const WRITEBACK_STEP: u64 = 8 << 20;

/// A tar being written.
#[derive(Debug)]
pub(super) struct TarOut {
    out: Out,
    /// What messages call it.
    path: PathBuf,
    at: u64,
    started: u64,
    buffer: Vec<u8>,
    broken: bool,
}

#[derive(Debug)]
enum Out {
    /// Appears under its name when it is whole.
    Regular { file: UnnamedFile, target: PathBuf },
    /// A pipe, a terminal, a device: what is out is out.
    Stream(File),
}

impl TarOut {
    /// Write to a file, or where `path` is a pipe or device right into it. `-` is standard output.
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Write { path: path.to_owned(), source };
        if path.as_os_str() == "-" {
            let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(failed)?;
            return Ok(Self::new(Out::Stream(stdout.into()), Path::new("standard output")));
        }
        // `/dev/stdout` may lead to a regular file, which must be written and not replaced.
        let given = path.starts_with("/dev") || path.starts_with("/proc");
        if given || fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
            let file = File::options().write(true).open(path).map_err(failed)?;
            return Ok(Self::new(Out::Stream(file), path));
        }
        if path.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let file = UnnamedFile::create_in(dir)?;
        Ok(Self::new(Out::Regular { file, target: path.to_owned() }, path))
    }

    fn new(out: Out, path: &Path) -> Self {
        Self { out, path: path.to_owned(), at: 0, started: 0, buffer: Vec::new(), broken: false }
    }

    pub(super) fn dir(&mut self, path: &str) -> Result<(), Error> {
        let header = header(&format!("{path}/"), tar::EntryType::Directory, 0o755, 0);
        self.write(&header).map_err(|source| self.failed(source))
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
        let start = self.at;
        let result = self.whole_file(path, size, data, moved);
        if result.is_err() {
            self.broken = self.take_back(start).is_err();
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
        self.write(&header(path, tar::EntryType::Regular, 0o644, size)).map_err(Stopped::Write)?;
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
            self.write(&buffer[..length]).map_err(Stopped::Write)?;
            written += length as u64;
            moved(written);
        }
        self.buffer = buffer;
        if written != size {
            return Err(Stopped::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        let padding = [0_u8; 512];
        let length = (size.wrapping_neg() % 512) as usize;
        self.write(&padding[..length]).map_err(Stopped::Write)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.out {
            Out::Stream(out) => out.write_all(bytes)?,
            Out::Regular { file, .. } => {
                let mut out = file.file();
                out.write_all(bytes)?;
                let end = self.at + bytes.len() as u64;
                if end - self.started >= WRITEBACK_STEP {
                    writeback::start_writeback(out, self.started, end - self.started);
                    self.started = end;
                }
            }
        }
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn take_back(&mut self, start: u64) -> io::Result<()> {
        let Out::Regular { file, .. } = &self.out else {
            return if self.at == start { Ok(()) } else { Err(io::ErrorKind::NotSeekable.into()) };
        };
        let mut out = file.file();
        out.set_len(start)?;
        out.seek(SeekFrom::Start(start))?;
        self.at = start;
        self.started = self.started.min(start);
        Ok(())
    }

    /// End the archive: on disk, then under its name.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        if self.broken {
            return Err(Error::CutOff);
        }
        self.write(&[0; 1024]).map_err(|source| self.failed(source))?;
        let path = self.path;
        match self.out {
            Out::Stream(mut out) => out.flush().map_err(|source| Error::Write { path, source }),
            Out::Regular { file, target } => {
                file.file().sync_data().map_err(|source| Error::Write { path, source })?;
                Ok(file.publish(&target)?)
            }
        }
    }

    pub(super) fn failed(&self, source: io::Error) -> Error {
        Error::Write { path: self.path.clone(), source }
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
