//! Letting other users read the images of a store, so that it can be an additional one of theirs.
//!
//! They see names, manifests, configs and compressed layers. Unpacked layers, containers and volumes stay closed: files
//! of images have owners and modes of their own, and a set-user-id program of an image is none of this host's.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::format::{self, Found};
use super::lock::{LockMode, LockName, Patience, lock};
use super::{Abilities, Error, Opening, Store, layout::Layout};
use crate::sys::SysError;

impl Store {
    /// Open a store to other users, or close it again. It is made when it is not there. What is unpacked is synced, so
    /// that it serves its owner's other stores after a restart too.
    ///
    /// # Errors
    /// When the store cannot be written, or others use it.
    pub fn share(root: &Path, abilities: Abilities, how: Opening, shared: bool) -> Result<(), Error> {
        let store = Self::open_writable_as(root, abilities, how.clone())?;
        store.settle_all()?;
        let layout = store.layout().clone();
        drop(store);
        let patience = Patience { limit: abilities.lock_timeout, say: &|text| how.notice.say(text) };
        let _alone = lock(&layout, &LockName::Store, LockMode::Exclusive, &patience)?;
        let Found::Current(mut file) = format::check(&layout, true)? else {
            return Err(Error::NotAStore(root.to_owned()));
        };
        file.set_shared(shared);
        if shared {
            // What is published from now on is readable, and then what is there.
            file.write(&layout)?;
            open_to_others(&layout)
        } else {
            set_mode(layout.root(), 0o700)?;
            file.write(&layout)
        }
    }
}

/// Everything that other users read, and the way there.
fn open_to_others(layout: &Layout) -> Result<(), Error> {
    set_mode(&layout.cache(), 0o711)?;
    for dir in entries(&layout.blobs())?.into_iter().chain([layout.layer_facts()]) {
        for file in entries(&dir)? {
            set_mode(&file, 0o644)?;
        }
        set_mode(&dir, 0o755)?;
    }
    for file in [layout.oci_layout(), layout.index(), layout.format(), layout.probe()] {
        set_mode(&file, 0o644)?;
    }
    set_mode(&layout.blobs(), 0o755)?;
    set_mode(layout.root(), 0o755)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error| SysError::path("read", dir, error);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error).into()),
    };
    // A link would lead somewhere else, and its target's mode is not ours to change.
    let real = entries.filter(|entry| {
        entry.as_ref().is_ok_and(|entry| entry.file_type().is_ok_and(|kind| !kind.is_symlink()))
    });
    real.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}

fn set_mode(path: &Path, mode: u32) -> Result<(), Error> {
    match fs::set_permissions(path, Permissions::from_mode(mode)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(SysError::path("change the mode of", path, error).into())
        }
        _ => Ok(()),
    }
}
