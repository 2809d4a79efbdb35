//! registries.conf, version 2 (containers-registries.conf(5)): mirrors, insecure and blocked registries.
//!
//! Names without a registry always mean docker.io, as with docker; search lists and aliases are not read.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::settings::{Settings, read_file};
use super::{Action, Error};
use crate::oci::Reference;

/// One place to look for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Host and port.
    pub registry: String,
    /// The repository there.
    pub repository: String,
    /// Plain http and unverified certificates are allowed.
    pub insecure: bool,
}

/// The registries that have settings.
#[derive(Debug, Default)]
pub(super) struct Registries {
    entries: Vec<(PathBuf, Entry)>,
}

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: Option<String>,
}

impl Registries {
    /// Read the configuration: the file that `CONTAINERS_REGISTRIES_CONF` names and no other; else the user's file
    /// instead of the system's, and the drop-in files of both.
    ///
    /// # Errors
    /// [`Error::Config`] when a file is there but cannot be read or parsed.
    pub fn load(settings: &Settings) -> Result<Self, Error> {
        let mut registries = Self::default();
        if let Some(path) =
            settings.var("CONTAINERS_REGISTRIES_CONF").or_else(|| settings.var("REGISTRIES_CONFIG_PATH"))
        {
            registries.read(Path::new(path))?;
            return Ok(registries);
        }
        let system = PathBuf::from("/etc/containers");
        let user = settings.config_home().map(|d| d.join("containers"));
        let read_user = match &user {
            Some(user) => registries.read(&user.join("registries.conf"))?,
            None => false,
        };
        if !read_user {
            registries.read(&system.join("registries.conf"))?;
        }
        for directory in [Some(system), user].into_iter().flatten() {
            for path in drop_ins(&directory.join("registries.conf.d")) {
                registries.read(&path)?;
            }
        }
        Ok(registries)
    }

    /// Whether plain http and unverified certificates are allowed for a registry.
    pub fn is_insecure(&self, registry: &str) -> bool {
        let best =
            self.entries.iter().filter_map(|(_, entry)| Some((matched(&entry.prefix, registry)?, entry)));
        best.max_by_key(|(length, _)| *length).is_some_and(|(_, entry)| entry.insecure)
    }

    fn read(&mut self, path: &Path) -> Result<bool, Error> {
        let Some(text) = read_file(path)? else { return Ok(false) };
        let file: File = toml::from_str(&text).map_err(|error| Error::Config {
            path: path.to_owned(),
            what: "it is not a valid registries.conf",
            source: Some(Box::new(error)),
        })?;
        for mut entry in file.registry {
            if entry.prefix.is_empty() {
                entry.prefix.clone_from(&entry.location);
            }
            self.entries.retain(|(_, other)| other.prefix != entry.prefix);
            self.entries.push((path.to_owned(), entry));
        }
        Ok(true)
    }

    /// Where to look for an image, in order: mirrors (for pulls), then the registry itself.
    ///
    /// # Errors
    /// [`Error::Blocked`].
    pub fn places(&self, reference: &Reference, action: Action) -> Result<Vec<Place>, Error> {
        let name = format!("{}/{}", reference.registry(), reference.repository());
        let best = self
            .entries
            .iter()
            .filter_map(|(path, entry)| Some((matched(&entry.prefix, &name)?, path, entry)))
            .max_by_key(|(length, _, _)| *length);
        let Some((length, path, entry)) = best else {
            return Ok(vec![place(&name, false)]);
        };
        if entry.blocked {
            return Err(Error::Blocked { prefix: entry.prefix.clone(), path: path.clone() });
        }
        let rest = &name[length..];
        let mut places = Vec::new();
        if action == Action::Pull {
            let by_digest = reference.digest().is_some();
            let serves = |mirror: &&Mirror| match mirror.pull_from_mirror.as_deref() {
                Some("digest-only") => by_digest,
                Some("tag-only") => !by_digest,
                _ => by_digest || !entry.mirror_by_digest_only,
            };
            places.extend(
                entry
                    .mirror
                    .iter()
                    .filter(serves)
                    .map(|m| place(&format!("{}{rest}", m.location), m.insecure)),
            );
        }
        let own = if entry.location.is_empty() { name } else { format!("{}{rest}", entry.location) };
        places.push(place(&own, entry.insecure));
        Ok(places)
    }
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

/// How many bytes of `name` a prefix covers, when it does: whole components, or `*.domain` for a host below it.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix("*.") {
        let host = name.split('/').next()?;
        let below = host.split(':').next()?.strip_suffix(domain)?.ends_with('.');
        return below.then_some(host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    (!prefix.is_empty() && (rest.is_empty() || rest.starts_with('/'))).then_some(prefix.len())
}

fn place(name: &str, insecure: bool) -> Place {
    let (registry, repository) = name.split_once('/').unwrap_or((name, ""));
    Place { registry: registry.to_owned(), repository: repository.to_owned(), insecure }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(text: &str) -> (tempfile::TempDir, Result<Registries, Error>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        std::fs::write(&path, text).unwrap();
        let mut settings = Settings::default();
        settings.env.insert("CONTAINERS_REGISTRIES_CONF".into(), path.to_str().unwrap().into());
        (dir, Registries::load(&settings))
    }

    fn names(registries: &Registries, reference: &str, action: Action) -> Vec<String> {
        let reference = Reference::parse(reference).unwrap();
        let show =
            |p: &Place| format!("{}/{}{}", p.registry, p.repository, if p.insecure { "!" } else { "" });
        registries.places(&reference, action).unwrap().iter().map(show).collect()
    }

    const CONF: &str = r#"
        unqualified-search-registries = ["quay.io"]
        [[registry]]
        prefix = "docker.io"
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.example/hub"
        [[registry.mirror]]
        location = "10.0.0.1:5000"
        insecure = true
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "docker.io/blocked"
        blocked = true
        [[registry]]
        prefix = "*.internal.example"
        insecure = true
        [[registry]]
        location = "lab:5000"
        insecure = true
    "#;

    #[test]
    fn mirrors_come_first_for_pulls_only() {
        let (_dir, registries) = registries(CONF);
        let registries = registries.unwrap();
        let all = ["mirror.example/hub/library/alpine", "docker.io/library/alpine"];
        assert_eq!(names(&registries, "alpine", Action::Pull), all);
        assert_eq!(names(&registries, "alpine", Action::Push), all[1..]);
        let pinned = format!("alpine@{}", crate::oci::Digest::sha256("x"));
        assert_eq!(names(&registries, &pinned, Action::Pull).len(), 3);
        assert_eq!(
            names(&registries, "a.internal.example:5000/x", Action::Pull),
            ["a.internal.example:5000/x!"]
        );
        assert_eq!(names(&registries, "lab:5000/x", Action::Push), ["lab:5000/x!"]);
        assert_eq!(names(&registries, "lab:5001/x", Action::Push), ["lab:5001/x"]);
    }

    #[test]
    fn blocked_and_broken_say_which_file() {
        let (_dir, found) = registries(CONF);
        let blocked = Reference::parse("docker.io/blocked/x").unwrap();
        assert!(matches!(found.unwrap().places(&blocked, Action::Pull), Err(Error::Blocked { .. })));
        let (_dir, broken) = registries("registry = 5");
        assert!(matches!(broken, Err(Error::Config { .. })));
    }
}
