//! Images as files of a directory. Every file is written without a name first, so a cut leaves no wrong blob at a right
//! name, and nothing that lies there already can steer a write.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::files::{DirFiles, read_small};
use super::{Error, Format, MAX_TABLE};
use crate::layer::VerifiedReader;
use crate::oci::Digest;
use crate::sys::unnamed::UnnamedFile;
use crate::sys::{atomic, flock};

/// The content of skopeo's `version`.
const DIR_VERSION: &str = "Directory Transport Version: 1.1\n";
/// Bytes moved at once.
const CHUNK: usize = 512 << 10;

/// A directory being written.
#[derive(Debug)]
pub(super) struct DirOut {
    root: PathBuf,
    format: Format,
}

impl DirOut {
    /// Make the directory, or go on in one that holds images already.
    pub(super) fn create(root: &Path, format: Format) -> Result<Self, Error> {
        let failed = |source| Error::Write { path: root.to_owned(), source };
        let out = Self { root: root.to_owned(), format };
        let mut entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                atomic::create_dirs(root, 0o777).map_err(|error| failed(error.source))?;
                return Ok(out);
            }
            Err(error) => return Err(failed(error)),
        };
        let (mark, what) = match format {
            Format::Dir => ("version", "an image written by `dir:`"),
            _ => ("oci-layout", "an OCI layout"),
        };
        if entries.next().is_some() && !root.join(mark).is_file() {
            return Err(Error::NotOurs { path: root.to_owned(), what });
        }
        Ok(out)
    }

    /// Where a blob lies.
    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        match self.format {
            Format::Dir => self.root.join(digest.hex()),
            _ => self.root.join("blobs").join(digest.algorithm()).join(digest.hex()),
        }
    }

    /// Where the manifests of a `dir:` lie until one of them becomes its `manifest.json`.
    fn manifest_path(&self, digest: &Digest) -> PathBuf {
        match self.format {
            Format::Dir => self.root.join(format!("{}.manifest.json", digest.hex())),
            _ => self.blob_path(digest),
        }
    }

    /// Whether a blob is there, whole and right: what lies in a directory may come from anywhere.
    pub(super) fn has(&self, digest: &Digest, size: u64) -> bool {
        let Ok(file) = File::open(self.blob_path(digest)) else { return false };
        if !file.metadata().is_ok_and(|meta| meta.is_file() && meta.len() == size) {
            return false;
        }
        let mut verified = VerifiedReader::new(file, digest.clone(), size);
        let mut buffer = vec![0_u8; CHUNK];
        loop {
            match verified.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    pub(super) fn blob(
        &self,
        digest: &Digest,
        data: &mut dyn Read,
        moved: &mut dyn FnMut(u64),
    ) -> Result<(), std::io::Error> {
        self.write(&self.blob_path(digest), data, moved)
    }

    pub(super) fn manifest(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        self.small(&self.manifest_path(digest), bytes)
    }

    fn small(&self, path: &Path, mut bytes: &[u8]) -> Result<(), Error> {
        let failed = |source| Error::Write { path: path.to_owned(), source };
        self.write(path, &mut bytes, &mut |_| ()).map_err(failed)
    }

    /// A link that was planted where a directory of blobs belongs would lead elsewhere.
    fn refuse_links(&self, dir: &Path) -> Result<(), std::io::Error> {
        for dir in dir.ancestors().take_while(|dir| *dir != self.root && dir.starts_with(&self.root)) {
            if fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_symlink()) {
                let what = format!("`{}` is a link, which would lead out of the layout", dir.display());
                return Err(std::io::Error::other(what));
            }
        }
        Ok(())
    }

    fn write(
        &self,
        path: &Path,
        data: &mut dyn Read,
        moved: &mut dyn FnMut(u64),
    ) -> Result<(), std::io::Error> {
        let dir = path.parent().unwrap_or(&self.root);
        self.refuse_links(dir)?;
        atomic::create_dirs(dir, 0o777).map_err(|error| error.source)?;
        let file = UnnamedFile::create_in(dir).map_err(std::io::Error::other)?;
        let mut out = file.file();
        let mut buffer = vec![0_u8; CHUNK];
        let mut written = 0;
        loop {
            let length = match data.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            std::io::Write::write_all(&mut out, &buffer[..length])?;
            written += length as u64;
            moved(written);
        }
        atomic::sync_file(out, path).map_err(std::io::Error::other)?;
        file.publish(path).map_err(std::io::Error::other)
    }

    /// Name what is there now: `index.json` of a layout, edited under a lock so that nobody's entries are lost.
    pub(super) fn finish_layout(
        self,
        algorithms: &BTreeSet<String>,
        edit: impl FnOnce(Option<Vec<u8>>) -> Result<Vec<u8>, Error>,
    ) -> Result<(), Error> {
        let failed = |source| Error::Write { path: self.root.clone(), source };
        for algorithm in algorithms {
            atomic::sync_dir(&self.root.join("blobs").join(algorithm))?;
        }
        let root = File::open(&self.root).map_err(failed)?;
        flock::lock(&root, true)?;
        if !self.root.join("oci-layout").is_file() {
            self.small(&self.root.join("oci-layout"), super::contents::LAYOUT.as_bytes())?;
        }
        let files = DirFiles { root: self.root.clone() };
        let before = read_small(&files, &self.root, "index.json", MAX_TABLE)?;
        self.small(&self.root.join("index.json"), &edit(before)?)?;
        Ok(atomic::sync_dir(&self.root)?)
    }

    /// Name what is there now: the manifest of a `dir:`. What an earlier image left goes away.
    pub(super) fn finish_dir(self, target: &Digest, kept: &BTreeSet<Digest>) -> Result<(), Error> {
        let failed = |source| Error::Write { path: self.root.clone(), source };
        self.small(&self.root.join("version"), DIR_VERSION.as_bytes())?;
        atomic::sync_dir(&self.root)?;
        let manifest = self.root.join("manifest.json");
        fs::rename(self.manifest_path(target), &manifest).map_err(failed)?;
        atomic::sync_dir(&self.root)?;
        for entry in fs::read_dir(&self.root).map_err(failed)?.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let hex = name.strip_suffix(".manifest.json").unwrap_or(name);
            let blob = matches!(hex.len(), 64 | 128) && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
            let stale = blob && !kept.iter().any(|digest| digest.hex() == hex);
            if stale || name.starts_with("signature-") {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }
}
