//! registries.conf, version 2 (containers-registries.conf(5), containers-registries.conf.d(5)): which files are read,
//! in which order, and what they say. Where an image is looked for is `places.rs`, short names are `aliases.rs`.
//!
//! Keys that are not known are passed over, as newer versions of the format add some.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Error;
use super::mirrors::{self, ExtraMirror};
use super::settings::{Settings, read_file};

/// A registry's entry with the file that it stands in.
#[derive(Debug)]
pub(super) struct Described {
    pub path: PathBuf,
    pub entry: Entry,
}

/// All that is configured about registries.
#[derive(Debug, Default)]
pub(super) struct Registries {
    pub(super) entries: Vec<Described>,
    /// Short names: what they stand for, and which file says so.
    pub(super) aliases: BTreeMap<String, (String, PathBuf)>,
    /// `unqualified-search-registries`, and which file says so.
    pub(super) search: Option<(Vec<String>, PathBuf)>,
    /// `credential-helpers`, and which file says so.
    pub(super) helpers: Option<(Vec<String>, PathBuf)>,
    /// `--registry-mirror` and `STRATE_REGISTRY_MIRROR`: they come first.
    pub(super) first: Vec<ExtraMirror>,
    /// dockerd's `registry-mirrors`: they serve where nothing else is configured.
    pub(super) last: Vec<ExtraMirror>,
    /// dockerd's `insecure-registries`.
    pub(super) insecure: Vec<String>,
    /// What the user should know.
    pub notes: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    unqualified_search_registries: Option<Vec<String>>,
    credential_helpers: Option<Vec<String>>,
    /// `enforcing`, `permissive` or `disabled`. All the same here, as nothing is ever asked; read to find typing errors.
    short_name_mode: Option<String>,
    /// The table of version 1.
    registries: Option<toml::Value>,
}

/// `[[registry]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Entry {
    #[serde(default)]
    pub prefix: String,
    #[serde(default)]
    pub location: String,
    #[serde(default)]
    pub insecure: bool,
    #[serde(default)]
    pub blocked: bool,
    #[serde(default)]
    pub mirror_by_digest_only: bool,
    #[serde(default)]
    pub mirror: Vec<Mirror>,
}

/// `[[registry.mirror]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Mirror {
    #[serde(default)]
    pub location: String,
    #[serde(default)]
    pub insecure: bool,
    #[serde(default)]
    pub pull_from_mirror: Serves,
}

/// `pull-from-mirror`: which images a mirror is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Serves {
    /// Not said.
    #[default]
    #[serde(rename = "")]
    Unset,
    All,
    DigestOnly,
    TagOnly,
}

impl Registries {
    /// Read the configuration: the file that `CONTAINERS_REGISTRIES_CONF` names and no other; else the user's file
    /// with the user's drop-ins, or where there is no such file the system's file with the drop-ins of both.
    ///
    /// # Errors
    /// [`Error::Config`] when a file is there but cannot be read or used, [`Error::Setting`] for `--registry-mirror`.
    pub fn load(settings: &Settings) -> Result<Self, Error> {
        let mut registries = Self { first: mirrors::from_settings(settings)?, ..Self::default() };
        let named =
            settings.var("CONTAINERS_REGISTRIES_CONF").or_else(|| settings.var("REGISTRIES_CONFIG_PATH"));
        if let Some(path) = named {
            let path = Path::new(path);
            if !registries.read(path)? {
                return Err(Error::Config {
                    path: path.to_owned(),
                    what: "there is no such file",
                    source: None,
                });
            }
            return Ok(registries);
        }
        let system = PathBuf::from("/etc/containers");
        let user = settings.config_home().map(|directory| directory.join("containers"));
        let has_own = match &user {
            Some(user) => registries.read(&user.join("registries.conf"))?,
            None => false,
        };
        if !has_own {
            registries.read(&system.join("registries.conf"))?;
        }
        for directory in [Some(system).filter(|_| !has_own), user].into_iter().flatten() {
            for path in drop_ins(&directory.join("registries.conf.d")) {
                registries.read(&path)?;
            }
        }
        if let Some(cache) = short_name_cache(settings)
            // Whoever is root in a namespace only has no business in the cache of the machine's root.
            && !std::fs::metadata(&cache).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
        {
            registries.read(&cache)?;
        }
        mirrors::read_docker(settings, &mut registries);
        Ok(registries)
    }

    /// Take in one file; what it says wins over what was said before. Whether it was there comes back.
    fn read(&mut self, path: &Path) -> Result<bool, Error> {
        let Some(text) = read_file(path)? else { return Ok(false) };
        let broken = |what, source: Option<crate::image::BoxError>| Error::Config {
            path: path.to_owned(),
            what,
            source,
        };
        let file: File = toml::from_str(&text)
            .map_err(|error| broken("it is not a valid registries.conf", Some(Box::new(error))))?;
        if file.registries.is_some() {
            return Err(broken(
                "it is in version 1 of the format, which is no longer read: write `[[registry]]` tables instead of `[registries.…]` (containers-registries.conf(5))",
                None,
            ));
        }
        if let Some(mode) = &file.short_name_mode
            && !matches!(mode.as_str(), "" | "enforcing" | "permissive" | "disabled")
        {
            return Err(broken("`short-name-mode` is none of enforcing, permissive and disabled", None));
        }
        for mut entry in file.registry {
            entry.normalise().map_err(|what| broken(what, None))?;
            self.entries.retain(|other| other.entry.prefix != entry.prefix);
            self.entries.push(Described { path: path.to_owned(), entry });
        }
        for (name, value) in file.aliases {
            if value.is_empty() {
                self.aliases.remove(&name);
            } else {
                self.aliases.insert(name, (value, path.to_owned()));
            }
        }
        if let Some(list) = file.unqualified_search_registries {
            self.search = Some((list, path.to_owned()));
        }
        if let Some(list) = file.credential_helpers {
            self.helpers = Some((list, path.to_owned()));
        }
        Ok(true)
    }
}

impl Entry {
    /// Fill in what is left out, and say what contradicts itself.
    fn normalise(&mut self) -> Result<(), &'static str> {
        let clean = |text: &mut String| {
            text.truncate(text.trim_end_matches('/').len());
            *text = super::places::lower_host(text);
            !text.contains("://")
        };
        if !clean(&mut self.prefix) || !clean(&mut self.location) {
            return Err(
                "a `prefix` or `location` is an address: write HOST[:PORT][/PATH] without `https://`",
            );
        }
        if self.prefix.is_empty() {
            if self.location.is_empty() {
                return Err("a `[[registry]]` has neither `prefix` nor `location`");
            }
            self.prefix.clone_from(&self.location);
        }
        for mirror in &mut self.mirror {
            if !clean(&mut mirror.location) {
                return Err(
                    "the `location` of a mirror is an address: write HOST[:PORT][/PATH] without `https://`",
                );
            }
            if mirror.location.is_empty() {
                return Err("a `[[registry.mirror]]` has no `location`");
            }
            if self.mirror_by_digest_only && mirror.pull_from_mirror != Serves::Unset {
                return Err("`mirror-by-digest-only` and `pull-from-mirror` cannot stand together");
            }
        }
        Ok(())
    }
}

/// Where podman keeps the short names that someone once chose at its prompt.
fn short_name_cache(settings: &Settings) -> Option<PathBuf> {
    let directory = match settings.uid {
        Some(0) => PathBuf::from("/var/cache"),
        _ => {
            let set = settings.var("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
            set.or_else(|| Some(settings.home.as_ref()?.join(".cache")))?
        }
    };
    Some(directory.join("containers/short-name-aliases.conf"))
}

fn drop_ins(directory: &Path) -> Vec<PathBuf> {
    let Ok(list) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = list
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "conf"))
        .collect();
    paths.sort();
    paths
}

#[cfg(test)]
#[path = "conf/tests.rs"]
mod tests;
