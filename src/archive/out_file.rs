//! Where an archive's bytes go: a file that appears whole, or a stream.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::Error;
use crate::sys::fds;
use crate::sys::unnamed::UnnamedFile;
use crate::sys::writeback;

/// Write-back is started whenever this many bytes have been written.
const WRITEBACK_STEP: u64 = 8 << 20;

/// A place for an archive.
#[derive(Debug)]
pub struct OutFile {
    out: Out,
    /// What messages call it.
    path: PathBuf,
    at: u64,
    started: u64,
}

#[derive(Debug)]
enum Out {
    /// Appears under its name when it is whole.
    Regular { file: UnnamedFile, target: PathBuf },
    /// A pipe, a terminal, a device: what is out is out.
    Stream(File),
}

impl OutFile {
    /// Write to a file, or where `path` is a pipe or device right into it. `-` is standard output.
    ///
    /// # Errors
    /// When the place cannot be written.
    pub fn create(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Write { path: path.to_owned(), source };
        if path.as_os_str() == "-" {
            let path = Path::new("standard output");
            let stdout =
                fds::own_stdout().map_err(|source| Error::Write { path: path.to_owned(), source })?;
            return Ok(Self::new(Out::Stream(stdout), path));
        }
        if is_given(path) || fs::metadata(path).is_ok_and(|meta| !meta.is_file() && !meta.is_dir()) {
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
        Self { out, path: path.to_owned(), at: 0, started: 0 }
    }

    /// Bytes written so far.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Take back what was written from `start` on.
    pub(super) fn take_back(&mut self, start: u64) -> io::Result<()> {
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

    /// On disk, then under its name. Dropped without this, a regular file leaves nothing.
    ///
    /// # Errors
    /// When it cannot be written; what had the name is untouched then.
    pub fn finish(self) -> Result<(), Error> {
        let path = self.path;
        match self.out {
            Out::Stream(mut out) => out.flush().map_err(|source| Error::Write { path, source }),
            Out::Regular { file, target } => Ok(file.publish_durably(&target)?),
        }
    }

    /// What a failed write is called; one that came through [`Write`] has its path already.
    pub(super) fn failed(&self, source: io::Error) -> Error {
        source.downcast().unwrap_or_else(|source| Error::Write { path: self.path.clone(), source })
    }
}

/// Whether a path stands for a file that is open already. It may be a regular file, which must be written and not
/// replaced. Other files of `/dev` are files: `/dev/shm/x.tar`.
fn is_given(path: &Path) -> bool {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    match parts.as_slice() {
        ["/", "dev", name] => matches!(*name, "stdin" | "stdout" | "stderr"),
        ["/", "dev", "fd", _] | ["/", "proc", .., "fd", _] => true,
        _ => false,
    }
}

/// Errors carry an [`Error`] with the path: whoever writes through others hears from them what failed, not where.
impl Write for OutFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.put(data).map_err(|source| io::Error::new(source.kind(), self.failed(source)))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl OutFile {
    fn put(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = match &mut self.out {
            Out::Stream(out) => out.write(data)?,
            Out::Regular { file, .. } => {
                let mut out = file.file();
                let length = out.write(data)?;
                let end = self.at + length as u64;
                if end - self.started >= WRITEBACK_STEP {
                    writeback::start_writeback(out, self.started, end - self.started);
                    self.started = end;
                }
                length
            }
        };
        self.at += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_open_already_is_written_in_place() {
        for (path, given) in [
            ("/dev/stdout", true),
            ("/dev/fd/3", true),
            ("/proc/self/fd/1", true),
            ("/proc/7/task/7/fd/1", true),
            ("/dev/shm/x.tar", false),
            ("/dev/mqueue/fd", false),
            ("dev/stdout", false),
        ] {
            assert_eq!(is_given(Path::new(path)), given, "{path}");
        }
    }
}
