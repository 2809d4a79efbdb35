//! Mirrors that are configured elsewhere than in registries.conf: `--registry-mirror`, `STRATE_REGISTRY_MIRROR`, and the
//! `registry-mirrors` and `insecure-registries` of dockerd's daemon.json, for machines that have them already.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::Error;
use super::conf::Registries;
use super::error::sanitise;
use super::origin::{Origin, Scheme};
use super::places::{is_same_registry, lower_host};
use super::proxy::in_network;
use super::settings::{Settings, read_file};
use crate::oci::DEFAULT_REGISTRY;

/// The variable that names mirrors, which `--registry-mirror` sets for one command.
pub(super) const VARIABLE: &str = "STRATE_REGISTRY_MIRROR";

/// A mirror of everything below a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExtraMirror {
    /// What it mirrors: a registry, or a part of one.
    pub prefix: String,
    /// Where: `HOST[:PORT][/PATH]`.
    pub location: String,
    /// It is reached by plain http.
    pub insecure: bool,
}

/// The mirrors of `STRATE_REGISTRY_MIRROR`: a list with commas of `[PREFIX=]URL`; without a prefix they mirror docker.io.
///
/// # Errors
/// [`Error::Setting`].
pub(super) fn from_settings(settings: &Settings) -> Result<Vec<ExtraMirror>, Error> {
    let list = settings.var(VARIABLE).unwrap_or_default();
    list.split(',').map(str::trim).filter(|text| !text.is_empty()).map(parse).collect()
}

fn parse(text: &str) -> Result<ExtraMirror, Error> {
    let wrong = |what| Error::Setting { name: "--registry-mirror", value: shown(text), what };
    let (prefix, url) = match text.split_once('=') {
        Some((prefix, url)) => (prefix.trim_end_matches('/'), url),
        None => (DEFAULT_REGISTRY, text),
    };
    let (insecure, location) = match url.split_once("://") {
        None => (false, url),
        Some(("https", rest)) => (false, rest),
        Some(("http", rest)) => (true, rest),
        Some(_) => return Err(wrong("it is neither http nor https")),
    };
    let location = location.trim_end_matches('/');
    if location.contains('@') {
        return Err(wrong("it holds a user name: log in to the mirror instead (`strate login`)"));
    }
    if prefix.is_empty()
        || Origin::of_url(&format!("https://{location}")).is_none()
        || location.contains(['?', '#'])
    {
        return Err(wrong("it is not [PREFIX=][http[s]://]HOST[:PORT][/PATH]"));
    }
    Ok(ExtraMirror { prefix: lower_host(prefix), location: lower_host(location), insecure })
}

/// What was typed, without what stands before an `@`.
fn shown(text: &str) -> String {
    sanitise(text.rsplit_once('@').map_or(text, |(_, rest)| rest), 200)
}

/// dockerd's configuration, as far as it is about registries.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Daemon {
    registry_mirrors: Vec<String>,
    insecure_registries: Vec<String>,
}

/// Read dockerd's daemon.json: the user's (rootless docker), else the system's. It belongs to another program, so what
/// is wrong with it is noted and does not stop anything.
pub(super) fn read_docker(settings: &Settings, registries: &mut Registries) {
    let user = settings.config_home().map(|directory| directory.join("docker/daemon.json"));
    for path in [user, Some(PathBuf::from("/etc/docker/daemon.json"))].into_iter().flatten() {
        let text = match read_file(&path) {
            Ok(Some(text)) if !text.trim().is_empty() => text,
            Ok(_) => continue,
            Err(_) => return, // it may be for root alone
        };
        let skipped =
            || format!("`{}` is passed over: it cannot be read as dockerd's configuration", path.display());
        let Ok(daemon) = serde_json::from_str::<Daemon>(&text) else {
            registries.notes.push(skipped());
            return;
        };
        for mirror in daemon.registry_mirrors {
            match parse(&mirror) {
                Ok(mirror) => registries.last.push(mirror),
                Err(_) => registries.notes.push(format!(
                    "`{}` names a mirror that is none: {}",
                    path.display(),
                    shown(&mirror)
                )),
            }
        }
        registries.insecure = daemon.insecure_registries;
        return;
    }
}

/// Whether dockerd's list of insecure registries names one: `HOST[:PORT]`, or a network in CIDR form for addresses.
pub(super) fn names(list: &[String], registry: &str) -> bool {
    let address = Origin::of_registry(Scheme::Https, registry).address();
    list.iter().any(|entry| match entry.split_once('/') {
        Some((network, length)) => match (network.parse::<IpAddr>(), length.parse(), address) {
            (Ok(network), Ok(length), Some(address)) => in_network(address, network, length),
            _ => false,
        },
        None => is_same_registry(entry, registry),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_read_from_one_variable() {
        let settings = |value: &str| {
            let mut settings = Settings::default();
            settings.env.insert(VARIABLE.into(), value.into());
            settings
        };
        let list =
            from_settings(&settings("https://m.example/, http://10.0.0.1:5000 ,quay.io=m.example/quay"));
        let list: Vec<String> = list
            .unwrap()
            .iter()
            .map(|m| format!("{} {}{}", m.prefix, m.location, if m.insecure { "!" } else { "" }))
            .collect();
        assert_eq!(list, ["docker.io m.example", "docker.io 10.0.0.1:5000!", "quay.io m.example/quay"]);
        for bad in ["ftp://x", "https://", "=x", "https://user:hunter2@x", "a b", "https://x/?y"] {
            let error = from_settings(&settings(bad)).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn dockers_insecure_registries_are_hosts_and_networks() {
        let list = ["lab:5000".to_owned(), "10.0.0.0/8".to_owned()];
        for (registry, insecure) in [
            ("lab:5000", true),
            ("lab", false),
            ("10.1.2.3:80", true),
            ("11.1.2.3", false),
            ("LAB:5000", true),
        ] {
            assert_eq!(names(&list, registry), insecure, "{registry}");
        }
    }
}
