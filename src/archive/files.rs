//! The files of an archive, wherever they lie: by path, from any byte on.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::Error;

/// An open file: its size in bytes and what is in it, from the byte asked for.
pub(super) type Opened = (u64, Box<dyn Read + Send>);

/// The files of an archive. Paths are relative, without `.` and `..`.
pub(super) trait Files: Send + Sync {
    /// Open a file; `None` when there is none of that name.
    fn open(&self, path: &str, offset: u64) -> Result<Option<Opened>, Error>;

    /// Whether a file is known to be there, without waiting for one that may still come.
    fn seen(&self, path: &str) -> bool;

    /// Wait until all of the archive has been read, where it is read as it comes.
    fn finish(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Nobody will read any more.
    fn abandon(&self) {}
}

/// A small file whole; `None` when there is none of that name.
pub(super) fn read_small(
    files: &dyn Files,
    archive: &Path,
    path: &str,
    limit: u64,
) -> Result<Option<Vec<u8>>, Error> {
    let Some((size, stream)) = files.open(path, 0)? else { return Ok(None) };
    if size > limit {
        let what = format!("`{path}` is {size} bytes long: at most {limit} are read");
        return Err(Error::Limit { path: archive.to_owned(), what });
    }
    let mut bytes = Vec::new();
    stream
        .take(size)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Read { path: archive.join(path), source })?;
    if bytes.len() as u64 == size {
        Ok(Some(bytes))
    } else {
        Err(Error::Read { path: archive.join(path), source: ErrorKind::UnexpectedEof.into() })
    }
}

/// A relative path without `.`, `..`, empty components and a leading slash; `None` where that leads out of the archive
/// or to its top.
pub(super) fn normal(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty() && !path.contains('\0')).then(|| parts.join("/"))
}

/// A directory. The paths that it is asked for are made of digests and fixed names.
#[derive(Debug)]
pub(super) struct DirFiles {
    pub(super) root: PathBuf,
}

impl Files for DirFiles {
    fn seen(&self, path: &str) -> bool {
        self.root.join(path).is_file()
    }

    fn open(&self, path: &str, offset: u64) -> Result<Option<Opened>, Error> {
        let full = self.root.join(path);
        let failed = |source| Error::Read { path: full.clone(), source };
        // Layouts made of links to a shared place are usual; a pipe or device in the place of a file would only block.
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
        let flags = i32::try_from(flags).unwrap_or_default();
        let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(&full) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let meta = file.metadata().map_err(failed)?;
        if !meta.is_file() {
            let (path, file) = (self.root.clone(), path.to_owned());
            return Err(Error::Unusable { path, file, what: "is not a regular file".into() });
        }
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        Ok(Some((meta.len(), Box::new(file))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        for (path, expected) in [
            ("a", Some("a")),
            ("./a//b/", Some("a/b")),
            ("/a", Some("a")),
            ("a/../b", Some("b")),
            ("a/b/../../../c", None),
            ("..", None),
            (".", None),
            ("", None),
            ("a\0b", None),
        ] {
            assert_eq!(normal(path).as_deref(), expected, "{path:?}");
        }
    }
}
