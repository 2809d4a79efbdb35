use super::*;

/// An empty store in a temporary directory.
pub(super) fn scratch() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let abilities = Abilities { mapped_ids: if is_root() { u32::MAX } else { 1 }, unpack: true };
    let store = Store::open_writable(&dir.path().join("store"), abilities).unwrap();
    (dir, store)
}

pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
