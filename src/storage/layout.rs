//! Every path of the store.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Error;
use crate::oci::Digest;
use crate::sys::SysError;

/// What `mkfs` makes at the top of a disk: none of ours, and no reason to refuse one.
pub(super) const LOST_AND_FOUND: &str = "lost+found";

const DAMAGED_INDEX: &str = "index.json.damaged";

/// Knows every path of the store; nothing else joins path strings.
#[derive(Debug, Clone)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// The store at `root` (absolute).
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The top.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `oci-layout`: says that this is an OCI image layout.
    #[must_use]
    pub fn oci_layout(&self) -> PathBuf {
        self.root.join("oci-layout")
    }

    /// `strate.json`: format version and feature flags.
    #[must_use]
    pub fn format(&self) -> PathBuf {
        self.root.join("strate.json")
    }

    /// `strate.json.bak`: the same once more, for the repair of one that is lost.
    #[must_use]
    pub fn format_copy(&self) -> PathBuf {
        self.root.join("strate.json.bak")
    }

    /// Where the next `strate.json` is written. Whoever does so holds the `names` lock of a store that is not made yet,
    /// or the store lock exclusively.
    #[must_use]
    pub fn format_temp(&self) -> PathBuf {
        self.tmp().join("format")
    }

    /// `probe.json`: what the store's file system can do.
    #[must_use]
    pub fn probe(&self) -> PathBuf {
        self.root.join("probe.json")
    }

    /// `index.json`: the names.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.root.join("index.json")
    }

    /// `index.json.bak`: the list of names before its last change.
    #[must_use]
    pub fn previous_index(&self) -> PathBuf {
        self.root.join("index.json.bak")
    }

    /// `index.json.damaged`, `index.json.damaged.1`, …: lists of names as repairs found them.
    #[must_use]
    pub fn damaged_index(&self, number: u32) -> PathBuf {
        match number {
            0 => self.root.join(DAMAGED_INDEX),
            _ => self.root.join(format!("{DAMAGED_INDEX}.{number}")),
        }
    }

    /// Those of them that are there.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn damaged_indexes(&self) -> Result<Vec<PathBuf>, Error> {
        if !self.root.exists() {
            return Ok(Vec::new());
        }
        let mut found = self.entries(&self.root)?;
        found.retain(|path| path.file_name().is_some_and(is_damaged_index));
        Ok(found)
    }

    /// `damaged/`: what was found wrong and cannot be had anew.
    #[must_use]
    pub fn damaged(&self) -> PathBuf {
        self.root.join("damaged")
    }

    /// `blobs/`
    #[must_use]
    pub fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    /// `blobs/<algorithm>/`
    #[must_use]
    pub fn blob_dir(&self, algorithm: &str) -> PathBuf {
        self.blobs().join(algorithm)
    }

    /// `blobs/<algorithm>/<hex>`
    #[must_use]
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.blob_dir(digest.algorithm()).join(digest.hex())
    }

    /// `partial/`: downloads that were cut short.
    #[must_use]
    pub fn partials(&self) -> PathBuf {
        self.root.join("partial")
    }

    /// `partial/<algorithm>-<hex>`
    #[must_use]
    pub fn partial(&self, digest: &Digest) -> PathBuf {
        self.partials().join(file_name(digest))
    }

    /// `snapshots/`
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// `snapshots/<key>/`
    #[must_use]
    pub fn snapshot(&self, key: &Digest) -> PathBuf {
        self.snapshots().join(file_name(key))
    }

    /// `snapshots/<key>.<map>/`: for those whose ids are not those of the first, or the same as [`Layout::snapshot`].
    #[must_use]
    pub fn snapshot_under(&self, key: &Digest, map: Option<&str>) -> PathBuf {
        match map {
            Some(map) => self.snapshots().join(format!("{}.{map}", file_name(key))),
            None => self.snapshot(key),
        }
    }

    /// `containers/`
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }

    /// `containers/<id>/`
    #[must_use]
    pub fn container(&self, id: &str) -> PathBuf {
        self.containers().join(id)
    }

    /// `containers/auto-remove/`: one file for each container that removes itself when its program ends.
    #[must_use]
    pub fn auto_removes(&self) -> PathBuf {
        self.containers().join("auto-remove")
    }

    /// `containers/cgroups/`: one file for each container whose program has a cgroup.
    #[must_use]
    pub fn cgroups(&self) -> PathBuf {
        self.containers().join("cgroups")
    }

    /// `containers/events`: what happened lately.
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.containers().join("events")
    }

    /// `containers/events.1`: what happened before that.
    #[must_use]
    pub fn older_events(&self) -> PathBuf {
        self.containers().join("events.1")
    }

    /// `volumes/`
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }

    /// `volumes/<name>/`
    #[must_use]
    pub fn volume(&self, name: &str) -> PathBuf {
        self.volumes().join(name)
    }

    /// `volumes/<name>/_data/`
    #[must_use]
    pub fn volume_data(&self, name: &str) -> PathBuf {
        self.volume(name).join("_data")
    }

    /// `cache/`
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    /// `cache/records/`: what builds remember.
    #[must_use]
    pub fn records(&self) -> PathBuf {
        self.cache().join("records")
    }

    /// `cache/records/<hash of the key>`
    #[must_use]
    pub fn record(&self, key: &str) -> PathBuf {
        self.records().join(Digest::sha256(key).hex())
    }

    /// `cache/layers/`: what is known of each layer blob.
    #[must_use]
    pub fn layer_facts(&self) -> PathBuf {
        self.cache().join("layers")
    }

    /// `cache/layers/<algorithm>-<hex>`
    #[must_use]
    pub fn layer_fact(&self, blob: &Digest) -> PathBuf {
        self.layer_facts().join(file_name(blob))
    }

    /// `cache/places/`: where blobs came from and went to.
    #[must_use]
    pub fn places(&self) -> PathBuf {
        self.cache().join("places")
    }

    /// `cache/places/<algorithm>-<hex>`
    #[must_use]
    pub fn place(&self, blob: &Digest) -> PathBuf {
        self.places().join(file_name(blob))
    }

    /// `cache/mounts/`: what steps of builds keep between builds.
    #[must_use]
    pub fn cache_mounts(&self) -> PathBuf {
        self.cache().join("mounts")
    }

    /// `cache/mounts/<name>/`
    #[must_use]
    pub fn cache_mount(&self, name: &str) -> PathBuf {
        self.cache_mounts().join(name)
    }

    /// `cache/mounts/<name>.json`: what the cache is.
    #[must_use]
    pub fn cache_mount_facts(&self, name: &str) -> PathBuf {
        self.cache_mounts().join(format!("{name}.json"))
    }

    /// `cache/budget`: when the size of the build cache was looked at last.
    #[must_use]
    pub fn budget(&self) -> PathBuf {
        self.cache().join("budget")
    }

    /// `locks/`
    #[must_use]
    pub fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// `locks/<name>`
    #[must_use]
    pub fn lock(&self, name: &str) -> PathBuf {
        self.locks().join(name)
    }

    /// Every directory that a store has from the start.
    #[must_use]
    pub fn directories(&self) -> Vec<PathBuf> {
        let content = [self.blob_dir("sha256"), self.partials(), self.snapshots(), self.containers()];
        let rest = [self.volumes(), self.records(), self.layer_facts(), self.locks(), self.tmp()];
        let above = [self.root.clone(), self.blobs(), self.cache()];
        above.into_iter().chain(content).chain(rest).collect()
    }

    /// Whether a name at the top of the store is one of those above.
    #[must_use]
    pub fn is_ours(&self, name: &OsStr) -> bool {
        if is_damaged_index(name) {
            return true;
        }
        let names = [self.index(), self.previous_index(), self.damaged()];
        let files = [self.oci_layout(), self.format(), self.format_copy(), self.probe()];
        files
            .iter()
            .chain(&names)
            .chain(&self.directories())
            .any(|path| path.strip_prefix(&self.root).ok().and_then(|path| path.iter().next()) == Some(name))
    }

    /// `tmp/`
    #[must_use]
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// What lies in one of the directories above; nothing when it is not there. Who removes what lies somewhere asks
    /// here: a link in the place of the directory would lead them out of the store.
    ///
    /// # Errors
    /// When it cannot be read, or is no directory.
    pub fn entries(&self, dir: &Path) -> Result<Vec<PathBuf>, Error> {
        let failed = |error| SysError::path("read", dir, error);
        for path in dir.ancestors().take_while(|path| *path != self.root) {
            match fs::symlink_metadata(path) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => {
                    let what = "it is a link or a file in the place of a directory".into();
                    return Err(Error::Damaged { path: path.to_owned(), what });
                }
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(failed(error).into()),
            }
        }
        let entries = fs::read_dir(dir).map_err(failed)?;
        entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
    }
}

fn is_damaged_index(name: &OsStr) -> bool {
    let rest = name.to_str().and_then(|name| name.strip_prefix(DAMAGED_INDEX));
    rest.is_some_and(|rest| match rest.strip_prefix('.') {
        Some(number) => !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()),
        None => rest.is_empty(),
    })
}

/// A digest as one file name.
#[must_use]
pub fn file_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm(), digest.hex())
}

/// The digest that a file name stands for.
#[must_use]
pub fn parse_file_name(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    format!("{algorithm}:{hex}").parse().ok()
}

/// The key that a snapshot's name stands for, and its id map where that is in the name.
#[must_use]
pub fn parse_snapshot_name(name: &str) -> Option<(Digest, Option<&str>)> {
    let Some((key, map)) = name.split_once('.') else { return Some((parse_file_name(name)?, None)) };
    super::snapshots::is_tag(map).then_some((parse_file_name(key)?, Some(map)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_a_store_are_ours() {
        let layout = Layout::new(Path::new("/s"));
        for name in ["index.json", "index.json.damaged", "index.json.damaged.17", "damaged", "tmp", "blobs"] {
            assert!(layout.is_ours(OsStr::new(name)), "{name}");
        }
        for name in ["index.json.damaged.", "index.json.damaged.x", "index.json.damaged2", "damaged.txt", "x"]
        {
            assert!(!layout.is_ours(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn file_names_of_digests_go_both_ways() {
        let digest = Digest::sha256("x");
        assert_eq!(parse_file_name(&file_name(&digest)), Some(digest));
        for bad in ["", "CACHEDIR.TAG", "sha256-../x", "sha256"] {
            assert_eq!(parse_file_name(bad), None);
            assert_eq!(parse_snapshot_name(bad), None);
        }
    }

    #[test]
    fn names_of_snapshots_go_both_ways() {
        let (layout, key) = (Layout::new(Path::new("/s")), Digest::sha256("x"));
        for map in [None, Some("0123abcd")] {
            let path = layout.snapshot_under(&key, map);
            let name = path.file_name().and_then(|name| name.to_str()).unwrap();
            assert_eq!(parse_snapshot_name(name), Some((key.clone(), map)));
        }
        let name = file_name(&key);
        for bad in
            [format!("{name}."), format!("{name}.x"), format!("{name}.0123ABCD"), format!("{name}.0123abcd.")]
        {
            assert_eq!(parse_snapshot_name(&bad), None, "{bad}");
        }
    }
}
