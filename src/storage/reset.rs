//! Giving up a whole store.
//!
//! This is the one operation that removes a directory by a path that the user configured, so it looks closely first:
//! the directory must say by its own marker that it is a store, belong to the user, and hold nothing but what a store has.
//! The marker goes last, so that a reset which was cut short can be taken up.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::layout::{LOST_AND_FOUND, Layout};
use super::lock::{self, LockMode, LockName};
use super::{ContainerDir, Error, check_known, format};
use crate::sys::{SysError, mounts, tree};

/// How long others may take to end before a reset gives up waiting.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a reset would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResetPlan {
    /// The store.
    pub root: PathBuf,
    /// Bytes on disk, as far as they can be seen.
    pub bytes: u64,
}

/// Look whether the directory at `root` may be removed. `None` when nothing is there.
///
/// # Errors
/// [`Error::NoReset`] when it may not: it is no store of the user's, it is or holds `home`, it holds other things, or
/// something is mounted below it.
pub fn plan_reset(root: &Path, home: Option<&Path>) -> Result<Option<ResetPlan>, Error> {
    let is_there = may_go(root, home)?;
    Ok(is_there.then(|| ResetPlan { root: root.to_owned(), bytes: tree::on_disk(root) }))
}

/// Whether something is at `root`; an error when it may not be removed.
fn may_go(root: &Path, home: Option<&Path>) -> Result<bool, Error> {
    check_known(root)?;
    let layout = Layout::new(root);
    if fs::symlink_metadata(root).is_err() {
        return Ok(false);
    }
    let refuse = |why: String| Error::NoReset { path: root.to_owned(), why };
    let real = fs::canonicalize(root).map_err(|error| SysError::path("look at", root, error))?;
    let home = home.and_then(|home| fs::canonicalize(home).ok());
    if real.parent().is_none() || home.is_some_and(|home| home.starts_with(&real)) {
        return Err(refuse("a home directory lies there".to_owned()));
    }
    if let format::Found::Nothing = format::check(&layout, true)? {
        return Err(refuse("it does not say that it is a store: strate.json is not there".to_owned()));
    }
    format::check_owner(root)?;
    let foreign = foreign_entries(&layout)?;
    if !foreign.is_empty() {
        let names =
            foreign.iter().take(5).map(|name| format!("`{}`", name.escape_debug())).collect::<Vec<_>>();
        let more = if foreign.len() > 5 { " and more" } else { "" };
        return Err(refuse(format!("it holds things that are not of a store: {}{more}", names.join(", "))));
    }
    if let Some(point) = mounts::below(&real)?.first() {
        return Err(refuse(format!("something is mounted at `{}`", point.display())));
    }
    Ok(true)
}

/// Remove the store at `root`: everything in it, and the directory itself where nothing is mounted on it. Waits a while
/// for others that write to end.
///
/// # Errors
/// As [`plan_reset`], also when a container runs; [`Error::Busy`] when others do not end; when something cannot be removed.
pub fn reset(root: &Path, home: Option<&Path>) -> Result<(), Error> {
    if !may_go(root, home)? {
        return Ok(());
    }
    let layout = Layout::new(root);
    let _alone = match layout.locks().is_dir() {
        true => Some(wait_alone(&layout, PATIENCE)?),
        false => None, // a reset that was cut short has removed them
    };
    // Others have come and gone meanwhile. From here on no container starts.
    if !may_go(root, home)? {
        return Ok(());
    }
    refuse_running(&layout)?;
    let marker = layout.format();
    // Locks after all that they protect, and last what says that this is a store.
    let last = [layout.locks(), marker];
    for entry in fs::read_dir(root).map_err(|error| SysError::path("read", root, error))? {
        let entry = entry.map_err(|error| SysError::path("read", root, error))?;
        // What somebody puts there just now is theirs.
        if layout.is_ours(&entry.file_name()) && !last.contains(&entry.path()) {
            tree::remove_path(&entry.path())?;
        }
    }
    for path in &last {
        tree::remove_path(path)?;
    }
    match fs::remove_dir(root) {
        Ok(()) => Ok(()),
        // A mount point or a link stays, and so does a directory with what is none of ours.
        Err(_) if root.is_dir() => Ok(()),
        Err(error) => Err(SysError::path("remove", root, error).into()),
    }
}

/// Under the store lock: who has started a container holds the container's own for as long as it runs.
fn refuse_running(layout: &Layout) -> Result<(), Error> {
    match ContainerDir::every(layout)?.iter().find(|dir| dir.is_in_use()) {
        None => Ok(()),
        Some(dir) => {
            let why = format!("container `{}` runs", dir.record.name);
            Err(Error::NoReset { path: layout.root().to_owned(), why })
        }
    }
}

fn wait_alone(layout: &Layout, patience: Duration) -> Result<lock::Locked, Error> {
    let start = Instant::now();
    loop {
        if let Some(alone) = lock::try_lock(layout, &LockName::Store, LockMode::Exclusive)? {
            return Ok(alone);
        }
        if start.elapsed() > patience {
            return Err(Error::Busy {
                what: LockName::Store.to_string(),
                holder: String::new(),
                idle: patience.as_secs(),
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Names at the top that no store has.
fn foreign_entries(layout: &Layout) -> Result<Vec<String>, Error> {
    let root = layout.root();
    let entries = fs::read_dir(root).map_err(|error| SysError::path("read", root, error))?;
    let mut foreign = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| SysError::path("read", root, error))?.file_name();
        if !layout.is_ours(&name) && name != LOST_AND_FOUND {
            foreign.push(name.to_string_lossy().into_owned());
        }
    }
    foreign.sort();
    Ok(foreign)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::storage::{Abilities, Store};

    fn store(root: &Path) {
        Store::open_writable(root, Abilities { mapped_ids: u32::MAX, unpack: false, lock_timeout: None })
            .unwrap();
    }

    fn refusal(root: &Path, home: Option<&Path>) -> String {
        match reset(root, home) {
            Err(Error::NoReset { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_store_with_its_marker_and_nothing_else_goes() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        reset(&root, None).unwrap();
        std::fs::create_dir(&root).unwrap();
        assert!(refusal(&root, None).contains("strate.json"));
        std::fs::remove_dir(&root).unwrap();
        store(&root);
        assert!(refusal(&root, Some(&root)).contains("home"));
        assert!(refusal(&root, Some(&root.join("locks"))).contains("home"));
        std::fs::write(root.join("thesis.tex"), "x").unwrap();
        assert!(refusal(&root, None).contains("`thesis.tex`"));
        std::fs::remove_file(root.join("thesis.tex")).unwrap();
        reset(&root, Some(Path::new("/nonexistent"))).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn links_are_not_followed_and_a_reset_that_was_cut_short_is_taken_up() {
        let dir = tempfile::tempdir().unwrap();
        let (root, precious) = (dir.path().join("store"), dir.path().join("precious"));
        std::fs::create_dir(&precious).unwrap();
        std::fs::write(precious.join("canary"), "").unwrap();
        store(&root);
        for name in ["snapshots", "tmp", "locks", "blobs"] {
            std::fs::rename(root.join(name), dir.path().join(name)).unwrap();
            symlink(&precious, root.join(name)).unwrap();
        }
        std::fs::remove_file(root.join("locks")).unwrap();
        reset(&root, None).unwrap();
        assert!(!root.exists() && precious.join("canary").exists());
        store(&root);
        std::fs::remove_dir_all(root.join("locks")).unwrap();
        std::fs::remove_file(root.join("index.json")).unwrap();
        reset(&root, None).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn a_container_that_runs_keeps_the_store_even_when_its_record_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        store(&root);
        let container = Layout::new(&root).container(&"ab".repeat(32));
        std::fs::create_dir_all(container.join("upper")).unwrap();
        let program = std::fs::File::open(&container).unwrap();
        crate::sys::flock::lock(&program, true).unwrap();
        for record in [None, Some(""), Some("{")] {
            if let Some(text) = record {
                std::fs::write(container.join("config.json"), text).unwrap();
            }
            assert!(refusal(&root, None).contains("`abababababab` runs"), "{record:?}");
            assert!(container.join("upper").exists() && root.join("blobs").exists());
        }
        drop(program);
        reset(&root, None).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn what_mkfs_made_at_the_top_of_a_disk_stays() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("lost+found")).unwrap();
        store(dir.path());
        reset(dir.path(), None).unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["lost+found"]);
        store(dir.path());
    }

    #[test]
    fn who_works_on_the_store_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        store(dir.path());
        let layout = Layout::new(dir.path());
        let _other = lock::try_lock(&layout, &LockName::Store, LockMode::Shared).unwrap().unwrap();
        assert!(matches!(wait_alone(&layout, Duration::from_millis(50)), Err(Error::Busy { .. })));
    }
}
