//! Short names: what a name without a registry stands for.
//!
//! It means docker.io, as with docker, unless an alias of registries.conf says another name. Nothing is ever asked, and
//! search registries are never tried one after the other: whoever owns the name at the first of them would decide what
//! runs here. Where they are configured without docker.io, the user is told.

use std::path::PathBuf;

use super::conf::Registries;
use super::{Error, Settings};
use crate::oci::{DEFAULT_REGISTRY, Reference, ReferenceError};

/// What a name means here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The full reference.
    pub reference: Reference,
    /// The file whose alias says so.
    pub alias: Option<PathBuf>,
    /// What the user should know.
    pub note: Option<String>,
}

/// Why a name means nothing.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// It is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] Error),
}

/// What a name that a user typed means: `alpine` is `docker.io/library/alpine:latest`, or what an alias says.
///
/// # Errors
/// See [`NameError`].
pub fn resolve_name(settings: &Settings, typed: &str) -> Result<Named, NameError> {
    let reference = Reference::parse(typed)?;
    let plain = Named { reference, alias: None, note: None };
    let Some(short) = short_name(typed) else { return Ok(plain) };
    let registries = Registries::load(settings)?;
    if let Some((value, path)) = registries.aliases.get(short) {
        let wrong = |why: &str| Error::Config {
            path: path.clone(),
            what: "an alias is not the full name of a repository",
            source: Some(format!("`{short}` = `{}`: {why}", super::error::sanitise(value, 200)).into()),
        };
        if short_name(value).is_some() {
            return Err(wrong("it does not say a registry").into());
        }
        let target = Reference::parse(value).map_err(|error| wrong(&error.to_string()))?;
        let says_tag = value.contains('@') || value.rsplit('/').next().is_some_and(|last| last.contains(':'));
        if says_tag {
            return Err(wrong("it says a tag or digest").into());
        }
        let name = format!("{}/{}{}", target.registry(), target.repository(), &typed[short.len()..]);
        return Ok(Named { reference: Reference::parse(&name)?, alias: Some(path.clone()), note: None });
    }
    let note = registries.search.as_ref().and_then(|(list, path)| {
        let first = list.first().filter(|_| !list.iter().any(|registry| registry == DEFAULT_REGISTRY))?;
        Some(format!(
            "`{short}` means {}: search registries (`{}`) are not tried; write `{}/{short}` to mean that one",
            plain.reference,
            path.display(),
            super::error::sanitise(first, 100),
        ))
    });
    Ok(Named { note, ..plain })
}

/// The name without tag and digest, when it does not say a registry.
fn short_name(typed: &str) -> Option<&str> {
    let name = typed.split('@').next().unwrap_or(typed);
    let name = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => name,
    };
    let first = name.split('/').next().unwrap_or(name);
    // A reference whose first component would be a registry keeps it as its registry.
    let qualified = name.contains('/')
        && (first.contains(['.', ':', '['])
            || first == "localhost"
            || first.bytes().any(|b| b.is_ascii_uppercase()));
    (!qualified).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(conf: &str, typed: &str) -> Result<Named, NameError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        std::fs::write(&path, conf).unwrap();
        let mut settings = Settings::default();
        settings.env.insert("CONTAINERS_REGISTRIES_CONF".into(), path.to_str().unwrap().into());
        resolve_name(&settings, typed)
    }

    #[test]
    fn aliases_stand_for_full_names_and_keep_tag_and_digest() {
        let conf = "[aliases]\nfedora = \"r.example/fedora\"\n\"team/app\" = \"q.example:5000/x/app\"\nbad = \"x\"\ntagged = \"r.example/a:1\"";
        let digest = crate::oci::Digest::sha256("x");
        for (typed, name) in [
            ("fedora", "r.example/fedora:latest".to_owned()),
            ("fedora:39", "r.example/fedora:39".to_owned()),
            ("team/app:1", "q.example:5000/x/app:1".to_owned()),
            (&format!("fedora@{digest}"), format!("r.example/fedora@{digest}")),
            ("docker.io/fedora", "docker.io/library/fedora:latest".to_owned()),
            ("localhost/fedora", "localhost/fedora:latest".to_owned()),
            ("alpine", "docker.io/library/alpine:latest".to_owned()),
        ] {
            let found = named(conf, typed).unwrap();
            assert_eq!(found.reference.to_string(), name);
            assert_eq!(
                found.alias.is_some(),
                !name.starts_with("docker.io") && !name.starts_with("localhost")
            );
        }
        for bad in ["bad", "tagged"] {
            assert!(matches!(named(conf, bad), Err(NameError::Config(_))), "{bad}");
        }
    }

    #[test]
    fn search_registries_are_named_and_not_tried() {
        let conf = "unqualified-search-registries = [\"corp.example\"]";
        let found = named(conf, "app").unwrap();
        assert_eq!(found.reference.registry(), "docker.io");
        assert!(found.note.unwrap().contains("corp.example/app"));
        assert!(named(conf, "corp.example/app").unwrap().note.is_none());
        let with_hub = "unqualified-search-registries = [\"corp.example\", \"docker.io\"]";
        assert!(named(with_hub, "app").unwrap().note.is_none());
    }
}
