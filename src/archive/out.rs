//! Where an archive's files go: into a tar stream or a directory.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use super::Error;

/// Takes the files of an archive, in order.
pub(super) trait Out {
    /// Whether a blob is there already.
    fn has(&self, path: &str, size: u64) -> bool;

    /// A directory.
    fn dir(&mut self, path: &str) -> Result<(), Error>;

    /// A file of exactly `size` bytes.
    fn file(&mut self, path: &str, size: u64, data: &mut dyn Read) -> Result<(), Error>;

    /// What a file held before, where the place had one.
    fn before(&self, path: &str) -> Result<Option<Vec<u8>>, Error>;
}

/// A tar stream. Nothing in it depends on the time or the user.
pub(super) struct TarOut<'a> {
    tar: tar::Builder<&'a mut dyn Write>,
}

impl<'a> TarOut<'a> {
    pub(super) fn new(out: &'a mut dyn Write) -> Self {
        Self { tar: tar::Builder::new(out) }
    }

    pub(super) fn finish(mut self) -> Result<(), Error> {
        self.tar.finish().map_err(|source| failed("the end", source))
    }

    fn append(
        &mut self,
        path: &str,
        kind: tar::EntryType,
        mode: u32,
        size: u64,
        data: &mut dyn Read,
    ) -> Result<(), Error> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        self.tar.append_data(&mut header, path, data).map_err(|source| failed(path, source))
    }
}

impl Out for TarOut<'_> {
    fn has(&self, _path: &str, _size: u64) -> bool {
        false
    }

    fn dir(&mut self, path: &str) -> Result<(), Error> {
        self.append(&format!("{path}/"), tar::EntryType::Directory, 0o755, 0, &mut std::io::empty())
    }

    fn file(&mut self, path: &str, size: u64, data: &mut dyn Read) -> Result<(), Error> {
        self.append(path, tar::EntryType::Regular, 0o644, size, data)
    }

    fn before(&self, _path: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(None)
    }
}

/// A directory. Every file is written beside its place and renamed, so a cut leaves no wrong blob at a right name.
pub(super) struct DirOut {
    root: PathBuf,
}

impl DirOut {
    pub(super) fn new(root: &Path) -> Result<Self, Error> {
        fs::create_dir_all(root).map_err(|source| failed(root, source))?;
        Ok(Self { root: root.to_owned() })
    }

    #[allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "the same shape as TarOut's")]
    pub(super) fn finish(self) -> Result<(), Error> {
        Ok(())
    }
}

impl Out for DirOut {
    fn has(&self, path: &str, size: u64) -> bool {
        fs::metadata(self.root.join(path)).is_ok_and(|meta| meta.is_file() && meta.len() == size)
    }

    fn dir(&mut self, path: &str) -> Result<(), Error> {
        fs::create_dir_all(self.root.join(path)).map_err(|source| failed(path, source))
    }

    fn file(&mut self, path: &str, _size: u64, data: &mut dyn Read) -> Result<(), Error> {
        let target = self.root.join(path);
        let temp = self.root.join(".strate-save");
        let mut write = || -> std::io::Result<()> {
            let mut file = File::create(&temp)?;
            std::io::copy(data, &mut file)?;
            file.sync_data()?;
            fs::rename(&temp, &target)
        };
        write().map_err(|source| {
            let _ = fs::remove_file(&temp);
            failed(path, source)
        })
    }

    fn before(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        match fs::read(self.root.join(path)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed(path, source)),
        }
    }
}

fn failed(path: impl AsRef<Path>, source: std::io::Error) -> Error {
    Error::Write { path: path.as_ref().to_owned(), source }
}
