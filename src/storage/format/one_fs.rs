//! The parts of a store lie on one file system, in one mount: everything is made in `tmp/` and renamed to its place.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use rustix::io::Errno;

use crate::storage::{Error, layout::Layout};
use crate::sys::SysError;

/// Where a directory lies: its device, and its mount where the kernel tells it (Linux 5.8).
#[derive(Debug, PartialEq, Eq)]
struct Place {
    device: (u32, u32),
    mount: Option<u64>,
}

/// Refuse a store one of whose directories is a link, or something mounted: nothing could be renamed into it, and what
/// is removed would have to be followed there. The store's own path may lead through links.
///
/// # Errors
/// [`Error::Split`], and when a directory cannot be looked at.
pub fn refuse_split(layout: &Layout) -> Result<(), Error> {
    let root = layout.root();
    let Some((home, _)) = place(root, AtFlags::empty())? else { return Ok(()) };
    for dir in parts(layout) {
        let Some((found, kind)) = place(&dir, AtFlags::SYMLINK_NOFOLLOW)? else { continue };
        let what = match kind {
            FileType::Symlink => "a link",
            FileType::Directory if found.device != home.device => "on another file system",
            FileType::Directory if found.mount != home.mount => "a mount of its own",
            FileType::Directory => continue,
            _ => "no directory",
        };
        return Err(Error::Split { path: dir, root: root.to_owned(), what });
    }
    Ok(())
}

/// Everything that is renamed from or to.
fn parts(layout: &Layout) -> [PathBuf; 11] {
    [
        layout.tmp(),
        layout.blobs(),
        layout.blob_dir("sha256"),
        layout.partials(),
        layout.snapshots(),
        layout.containers(),
        layout.volumes(),
        layout.cache(),
        layout.records(),
        layout.layer_facts(),
        layout.locks(),
    ]
}

fn place(path: &Path, flags: AtFlags) -> Result<Option<(Place, FileType)>, Error> {
    match statx(CWD, path, flags, StatxFlags::TYPE | StatxFlags::MNT_ID) {
        Ok(found) => {
            let mount = (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id);
            let place = Place { device: (found.stx_dev_major, found.stx_dev_minor), mount };
            Ok(Some((place, FileType::from_raw_mode(found.stx_mode.into()))))
        }
        // Without statx(2) (some sandboxes) there is nothing to compare; a rename says what is wrong then.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NOSYS) => Ok(None),
        Err(error) => Err(SysError::path("look at", path, error).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_part_that_is_a_link_is_refused_and_a_link_to_the_store_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        let layout = Layout::new(&link);
        for dir in parts(&Layout::new(&real)) {
            fs::create_dir_all(dir).unwrap();
        }
        std::os::unix::fs::symlink(&real, &link).unwrap();
        refuse_split(&layout).unwrap();
        fs::remove_dir(layout.tmp()).unwrap();
        refuse_split(&layout).unwrap(); // what is missing is somebody else's complaint
        std::os::unix::fs::symlink("/var/tmp", layout.tmp()).unwrap();
        let error = refuse_split(&layout).unwrap_err();
        assert!(
            matches!(&error, Error::Split { path, what: "a link", .. } if *path == layout.tmp()),
            "{error}"
        );
    }
}
