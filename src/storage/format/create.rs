//! Making a store.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{FormatFile, Found, Probe, check, one_fs};
use crate::storage::lock::{LockMode, LockName, Notice, Patience, lock};
use crate::storage::{Error, index::IndexFile, layout::Layout};
use crate::sys::SysError;
use crate::sys::atomic::{Durability, create_dirs, create_dirs_as, replace_file, sync_dir};

/// What marks a directory as one that backups may leave out (<https://bford.info/cachedir/>).
const CACHEDIR_TAG: &str =
    "Signature: 8a477f597d28d172789f06886806bc55\n# This directory can be rebuilt by strate.\n";

/// Make the store if it is not there. `unsafe_allowed`: even where locks cannot be relied on.
pub(in crate::storage) fn create(
    layout: &Layout,
    notice: &Notice,
    unsafe_allowed: bool,
) -> Result<(), Error> {
    let root = layout.root();
    let existed = root.is_dir();
    if existed {
        refuse_foreign(layout)?;
    }
    let read_only = |source: SysError| match source.source.kind() {
        ErrorKind::StorageFull => Error::Sys(source),
        _ => Error::ReadOnly { path: root.to_owned(), source },
    };
    let create = |dir: &Path| create_dirs(dir, 0o700).map_err(read_only);
    create(root)?;
    create(&layout.locks())?;
    check_owner(root)?;
    let fit = Probe::take(layout, &layout.locks())
        .and_then(|probe| probe.refuse(root, unsafe_allowed).map(|()| probe));
    let probe = match fit {
        Ok(probe) => probe,
        Err(error) => {
            // Of a store that is refused nothing stays behind; what was there before does.
            let _ = fs::remove_dir(layout.locks())
                .and_then(|()| if existed { Ok(()) } else { fs::remove_dir(root) });
            return Err(error);
        }
    };
    let _lock = lock(layout, &LockName::Names, LockMode::Exclusive, &Patience::usual())?;
    if !matches!(check(layout, true)?, Found::Nothing) {
        return Ok(()); // somebody was faster
    }
    let (sha256, tmp) = (layout.blob_dir("sha256"), layout.tmp());
    let dirs = [sha256, layout.partials(), layout.snapshots(), layout.containers(), layout.volumes()];
    for dir in dirs.into_iter().chain([layout.cache(), layout.records(), layout.layer_facts(), tmp]) {
        create_dirs_as(&dir, 0o700, Durability::Fast).map_err(read_only)?;
    }
    // All at once; also what a making that was cut short left.
    for dir in [&layout.blobs(), &layout.cache(), root] {
        sync_dir(dir).map_err(read_only)?;
    }
    one_fs::refuse_split(layout)?;
    probe.write(layout, &layout.tmp().join("probe"))?;
    write_files(layout)?;
    if let Some(word) = probe.word(root) {
        notice.say(&word);
    }
    Ok(())
}

/// The format file comes last: it says that everything else is there.
fn write_files(layout: &Layout) -> Result<(), Error> {
    let put = |path: &Path, bytes: &[u8]| {
        let temp = layout.tmp().join("create");
        replace_file(path, &temp, bytes, Durability::Durable).map_err(Error::from)
    };
    put(&layout.snapshots().join("CACHEDIR.TAG"), CACHEDIR_TAG.as_bytes())?;
    put(&layout.cache().join("CACHEDIR.TAG"), CACHEDIR_TAG.as_bytes())?;
    put(&layout.oci_layout(), crate::storage::check::OCI_LAYOUT)?;
    if !layout.index().exists() {
        put(&layout.index(), IndexFile::default().to_bytes()?.as_slice())?;
    }
    // A store that has lost its own and is taken up again stays what it was.
    super::saved(layout)?.unwrap_or_else(FormatFile::current).write(layout)
}

/// A mistyped `--root` must not turn a home directory into a store. What a making that was cut short left is taken up, and
/// an OCI layout may be adopted.
fn refuse_foreign(layout: &Layout) -> Result<(), Error> {
    if holds_only_ours(layout)? && (looks_like_store(layout) || is_new(layout)) {
        Ok(())
    } else {
        Err(Error::NotAStore(layout.root().to_owned()))
    }
}

/// Whether every name at the top is one that a store has.
pub(in crate::storage) fn holds_only_ours(layout: &Layout) -> Result<bool, Error> {
    let root = layout.root();
    let entries = fs::read_dir(root).map_err(|error| SysError::path("read", root, error))?;
    for entry in entries {
        let name = entry.map_err(|error| SysError::path("read", root, error))?.file_name();
        // What `mkfs` leaves at the top of a disk of its own.
        if !layout.is_ours(&name) && name != "lost+found" {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a directory whose `strate.json` says nothing is a store that lost it, or an OCI layout: staging is swept and
/// lists are written where it is. Others have directories called `tmp` or `blobs` and files called `index.json` too.
pub(in crate::storage) fn looks_like_store(layout: &Layout) -> bool {
    let is_layout = fs::read(layout.oci_layout()).is_ok_and(|bytes| {
        serde_json::from_slice::<serde_json::Value>(&bytes)
            .is_ok_and(|value| value["imageLayoutVersion"].is_string())
    });
    let (snapshots, containers) = (is_dir(&layout.snapshots()), is_dir(&layout.containers()));
    match is_layout {
        true => snapshots || containers || has_no_files(layout, &[layout.blobs(), layout.locks()]),
        false => snapshots && containers && is_dir(&layout.locks()),
    }
}

/// Whether nothing is there, or what a making that was cut short left before it came to `oci-layout`.
fn is_new(layout: &Layout) -> bool {
    let is_empty = !layout.index().exists() && has_no_files(layout, &[layout.locks()]);
    is_empty && (is_dir(&layout.locks()) || !layout.directories()[1..].iter().any(|dir| is_dir(dir)))
}

/// Whether the directories of a store hold no files, but for those in `aside`.
fn has_no_files(layout: &Layout, aside: &[PathBuf]) -> bool {
    let dirs = [layout.blobs(), layout.partials(), layout.snapshots(), layout.containers()];
    let rest = [layout.volumes(), layout.cache(), layout.locks(), layout.tmp(), layout.damaged()];
    let mut dirs = dirs.into_iter().chain(rest).filter(|dir| !aside.contains(dir));
    dirs.all(|dir| !crate::storage::check::files_below(&dir))
}

fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

/// Only its owner may write a store: files of others in it (`sudo` with the user's HOME) would lock the owner out.
pub(in crate::storage) fn check_owner(root: &Path) -> Result<(), Error> {
    let meta = fs::metadata(root).map_err(|error| SysError::path("stat", root, error))?;
    if meta.uid() == rustix::process::geteuid().as_raw() {
        Ok(())
    } else {
        Err(Error::NotYours { path: root.to_owned(), owner: meta.uid() })
    }
}
