//! The files of what was built, as a directory or a tar.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use super::copy::{Copier, CopyError, Export, Rules};
use super::error::Error;
use super::execute::{Made, Workshop};
use super::put::Placer;
use super::sources::{Origin, Sources};
use super::tree::{Filter, Tree};
use crate::layer::{self, tar};
use crate::storage;

/// Bytes that end a tar.
const TAR_END: usize = 1024;

/// Why files were not handed out.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The files of the image cannot be had.
    #[error("cannot read what was built")]
    Tree(#[source] Box<Error>),
    /// A file could not be written to the directory.
    #[error("cannot write what was built")]
    Copy(#[source] CopyError),
    /// The tar could not be written.
    #[error("cannot write what was built")]
    Tar(#[source] layer::Error),
    /// The stream could not be written.
    #[error("cannot write what was built")]
    Io(#[source] io::Error),
    /// The layers cannot be mounted.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// How files go to a directory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalExport {
    /// What was in the directory before and is not part of the result goes away.
    pub delete: bool,
}

/// Write the files of the result into the directory `dest`. They belong to who builds, as the ids of an image mean
/// nothing there. What is in the way of an entry is replaced; links are never followed. Devices are left out, as only
/// root could make them.
///
/// # Errors
/// When a file cannot be read or written; what was written before stays.
pub fn export_local(
    shop: &Workshop<'_>,
    made: &Made,
    dest: impl AsFd,
    how: LocalExport,
) -> Result<(), ExportError> {
    let mut sources = Sources::new(shop.store, shop.report);
    let origin = sources.layers("the result", made.layers());
    let tree = tree_of(&sources, &origin)?;
    if how.delete {
        remove_others(tree, dest.as_fd()).map_err(ExportError::Copy)?;
    }
    let export = Some(Export { epoch: made.epoch });
    let filters: &[&dyn Filter] = &[];
    let rules = Rules { owner: Some((0, 0)), mode: None, filters, export };
    let mut copier = Copier::new(Placer::new(dest.as_fd()), rules);
    copier.copy(tree, Path::new("/"), "/").map_err(ExportError::Copy)
}

fn tree_of<'o>(sources: &Sources<'_>, origin: &'o Origin) -> Result<&'o Tree, ExportError> {
    sources.tree(origin).map_err(|error| ExportError::Tree(Box::new(error)))
}

/// Remove what the result does not have, directories with all that is in them.
fn remove_others(tree: &Tree, dest: std::os::fd::BorrowedFd<'_>) -> Result<(), CopyError> {
    let mut open = vec![std::path::PathBuf::new()];
    while let Some(path) = open.pop() {
        let dir = super::beneath::open(
            dest,
            &path,
            rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::NOFOLLOW,
            rustix::fs::Mode::empty(),
        )
        .map_err(super::copy::failed("open", &path))?;
        let names = crate::sys::tree::sorted_names(&dir)
            .map_err(|error| super::copy::failed("read", &path)(error.source))?;
        for entry in names {
            let below = path.join(&entry.name);
            let kept = tree.resolve(&below, false).map_err(super::copy::failed("look at", &below))?.stat;
            let is_dir =
                |stat: &rustix::fs::Stat| super::beneath::kind(stat) == rustix::fs::FileType::Directory;
            let here = super::beneath::stat(dest, &below).map_err(super::copy::failed("look at", &below))?;
            match (kept, here) {
                (Some(kept), Some(here)) if is_dir(&kept) && is_dir(&here) => open.push(below),
                (None, Some(_)) => Placer::new(dest).clear_all(dir.as_fd(), &below)?,
                _ => {}
            }
        }
    }
    Ok(())
}

/// Write the files of several results as one tar: owners and devices are those of the image. `prefix` gives the
/// directory for each.
///
/// # Errors
/// When a file cannot be read or the stream not be written.
pub fn export_tar(
    shop: &Workshop<'_>,
    results: &[(Made, String)],
    out: &mut dyn Write,
) -> Result<(), ExportError> {
    let mut out = Endless { out, held: Vec::new() };
    for (made, prefix) in results {
        let stack = shop.store.stack_of(&made.layers(), shop.report)?;
        let empty;
        let mounted;
        let root = if stack.layers.is_empty() {
            empty = shop.store.scratch_dir()?;
            std::fs::File::open(empty.path()).map_err(ExportError::Io)?.into()
        } else {
            mounted = shop.store.mount_read_only(&stack)?;
            mounted.root
        };
        out.held.clear();
        if !prefix.is_empty() {
            let mut dir = tar::Entry::new(format!("{prefix}/"), tar::Kind::Directory);
            dir.mode = 0o755;
            dir.mtime.seconds = made.epoch.unwrap_or(0);
            tar::Writer::new(&mut out).append(&dir, &mut io::empty()).map_err(ExportError::Tar)?;
        }
        let edit = |entry: &mut tar::Entry| {
            if let Some(seconds) = made.epoch {
                entry.mtime = tar::Time { seconds, nanos: 0 };
            }
            if !prefix.is_empty() {
                let below = |path: &[u8]| [prefix.as_bytes(), b"/", path].concat();
                entry.path = below(&entry.path);
                if entry.kind == tar::Kind::HardLink {
                    entry.link = below(&entry.link);
                }
            }
        };
        let owner = |path: &Path| stack.owner(path);
        layer::write_tree(root.as_fd(), &mut out, &owner, &edit).map_err(ExportError::Tar)?;
    }
    out.out.write_all(&[0; TAR_END]).map_err(ExportError::Io)
}

/// Holds back the last bytes, which are the end of an archive that another one follows.
struct Endless<'w> {
    out: &'w mut dyn Write,
    held: Vec<u8>,
}

impl Write for Endless<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let over = (self.held.len() + data.len()).saturating_sub(TAR_END);
        let from_held = over.min(self.held.len());
        self.out.write_all(&self.held[..from_held])?;
        self.held.drain(..from_held);
        let (now, later) = data.split_at(over - from_held);
        self.out.write_all(now)?;
        self.held.extend_from_slice(later);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_held_back() {
        for sizes in [&[10_usize, 1014, 1024][..], &[3000, 1024], &[1, 1, 1022, 1], &[5000]] {
            let mut out = Vec::new();
            let mut endless = Endless { out: &mut out, held: Vec::new() };
            let mut all = Vec::new();
            for (at, size) in sizes.iter().enumerate() {
                let data = vec![at as u8; *size];
                endless.write_all(&data).unwrap();
                all.extend(data);
            }
            assert_eq!(endless.held.len(), TAR_END.min(all.len()));
            all.truncate(all.len() - endless.held.len());
            assert!(out == all, "{sizes:?}");
        }
    }
}
