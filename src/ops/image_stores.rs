//! Additional image stores: which ones a command reads beside its own, from `--imagestore`, the environment and the
//! `additionalimagestores` of `storage.conf` (containers-storage.conf(5)), as far as they are in our format.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::context::Context;
use crate::storage::is_containers_storage;

/// Where `storage.conf` lies on a system.
const SYSTEM: [&str; 2] = ["/etc/containers/storage.conf", "/usr/share/containers/storage.conf"];

/// What of `storage.conf` we read.
#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    storage: Storage,
}

/// `[storage]`
#[derive(Debug, Default, Deserialize)]
pub(super) struct Storage {
    /// Where root's images lie.
    pub(super) graphroot: Option<PathBuf>,
    /// Where an ordinary user's images lie.
    pub(super) rootless_storage_path: Option<String>,
    #[serde(default)]
    options: Options,
}

/// `[storage.options]`
#[derive(Debug, Default, Deserialize)]
struct Options {
    #[serde(default)]
    additionalimagestores: Vec<PathBuf>,
}

/// The stores to read beside the own one, the most wanted first. One in the format of podman is among them as long as it
/// holds images: whoever opens the stores says that it is not used. An empty one is nobody's loss.
#[must_use]
pub fn additional(cx: &Context) -> Vec<PathBuf> {
    let named = cx.var("STRATE_IMAGESTORE").unwrap_or_default();
    let named = named.split(':').filter(|path| !path.is_empty()).map(|path| cx.cwd.join(path));
    let configured = of_conf(cx).into_iter().filter(|path| !is_foreign(path) || has_images(path));
    named.chain(configured).collect()
}

/// The stores of `storage.conf` that are not in our format.
#[must_use]
pub fn foreign(cx: &Context) -> Vec<PathBuf> {
    of_conf(cx).into_iter().filter(|path| is_foreign(path)).collect()
}

fn is_foreign(path: &Path) -> bool {
    is_containers_storage(path) && !path.join("strate.json").exists()
}

/// Whether a store of podman lists any images, under whichever driver.
fn has_images(path: &Path) -> bool {
    super::import_store::DRIVERS.iter().any(|driver| {
        let list = std::fs::read(path.join(format!("{driver}-images/images.json")));
        list.is_ok_and(|text| !matches!(text.trim_ascii(), b"" | b"[]" | b"null"))
    })
}

fn of_conf(cx: &Context) -> Vec<PathBuf> {
    let all = read(cx).options.additionalimagestores;
    all.into_iter().filter(|path| path.is_absolute()).collect()
}

/// The `[storage]` of the file in force; empty without one, or when it cannot be read, which is said.
pub(super) fn read(cx: &Context) -> Storage {
    for path in files(cx) {
        let unusable = |why: String| {
            cx.notice.say(&format!("warning: `{}` is ignored: {why}", path.display()));
            Storage::default()
        };
        return match std::fs::read_to_string(&path) {
            Ok(text) => match toml::from_str::<File>(&text) {
                Ok(file) => file.storage,
                Err(error) => unusable(error.message().to_owned()),
            },
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => unusable(error.to_string()),
        };
    }
    Storage::default()
}

/// The first of these that exists counts. `CONTAINERS_STORAGE_CONF` names the only one; a user's own stands for the
/// system's.
fn files(cx: &Context) -> Vec<PathBuf> {
    if let Some(path) = cx.var("CONTAINERS_STORAGE_CONF") {
        return vec![cx.cwd.join(path)];
    }
    let config = cx.var("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let config = config.or_else(|| cx.home.as_ref().map(|home| home.join(".config")));
    let own = config.filter(|_| cx.uid != 0).map(|config| config.join("containers/storage.conf"));
    own.into_iter().chain(SYSTEM.map(PathBuf::from)).collect()
}
