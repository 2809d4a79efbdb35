//! Where an image is looked for: mirrors, the registry itself or what its name is rewritten to.

use super::conf::{Entry, Registries, Serves};
use super::mirrors::ExtraMirror;
use super::origin::{Origin, Scheme};
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

impl Registries {
    /// Whether plain http and unverified certificates are allowed for a registry (`HOST[:PORT]`).
    pub fn is_insecure(&self, registry: &str) -> bool {
        let best = self.entries.iter().filter_map(|d| Some((matched(&d.entry.prefix, registry)?, &d.entry)));
        best.max_by_key(|(length, _)| *length).is_some_and(|(_, entry)| entry.insecure)
            || super::mirrors::names(&self.insecure, registry)
    }

    /// Where to look for an image, in order: mirrors, then the registry itself or the location that its name is
    /// rewritten to. What is written goes to the registry that the name says (containers-registries.conf(5)).
    ///
    /// # Errors
    /// [`Error::Blocked`], [`Error::Config`] when a rewritten name is none.
    pub fn places(&self, reference: &Reference, action: Action) -> Result<Vec<Place>, Error> {
        let name = format!("{}/{}", reference.registry(), reference.repository());
        let found = self.find(reference, &name);
        let mut places: Vec<Place> = Vec::new();
        let mut add = |place: Place| {
            if !places.iter().any(|p| (&p.registry, &p.repository) == (&place.registry, &place.repository)) {
                places.push(place);
            }
        };
        if let Some((_, described)) = found
            && described.entry.blocked
        {
            let prefix = described.entry.prefix.clone();
            return Err(Error::Blocked { prefix, path: described.path.clone() });
        }
        if action != Action::Pull {
            let insecure = found.is_some_and(|(_, d)| d.entry.insecure);
            add(self.place(&name, insecure));
            return Ok(places);
        }
        extra(&self.first, &name).for_each(|(name, insecure)| add(self.place(&name, insecure)));
        let Some((length, described)) = found else {
            extra(&self.last, &name).for_each(|(name, insecure)| add(self.place(&name, insecure)));
            add(self.place(&name, false));
            return Ok(places);
        };
        let entry = &described.entry;
        let rest = &name[length.min(name.len())..];
        let broken = || Error::Config {
            path: described.path.clone(),
            what: "it rewrites a name to something that is none",
            source: Some(format!("`{}` for `{name}`", super::error::sanitise(&entry.location, 200)).into()),
        };
        for mirror in entry.mirror.iter().filter(|mirror| serves(entry, mirror.pull_from_mirror, reference)) {
            let place = self.place(&format!("{}{rest}", untagged(&mirror.location)), mirror.insecure);
            add(checked(place).ok_or_else(broken)?);
        }
        if entry.mirror.is_empty() {
            extra(&self.last, &name).for_each(|(name, insecure)| add(self.place(&name, insecure)));
        }
        let own = if entry.location.is_empty() {
            name.clone()
        } else {
            format!("{}{rest}", untagged(&entry.location))
        };
        add(checked(self.place(&own, entry.insecure)).ok_or_else(broken)?);
        Ok(places)
    }

    /// The entry with the longest prefix that fits, and how much of the name that prefix covers.
    fn find(&self, reference: &Reference, name: &str) -> Option<(usize, &super::conf::Described)> {
        let mut forms = vec![name.to_owned()];
        forms.extend(reference.tag().map(|tag| format!("{name}:{tag}")));
        forms.extend(reference.digest().map(|digest| format!("{name}@{digest}")));
        let covers = |prefix: &str| {
            if forms[1..].iter().any(|form| form == prefix) {
                Some(prefix.len())
            } else {
                matched(prefix, name)
            }
        };
        self.entries
            .iter()
            .filter_map(|described| Some((covers(&described.entry.prefix)?, described)))
            .max_by_key(|(length, described)| (*length, !described.entry.prefix.starts_with('*')))
    }

    fn place(&self, name: &str, insecure: bool) -> Place {
        let (registry, repository) = name.split_once('/').unwrap_or((name, ""));
        Place {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            insecure: insecure || self.is_insecure(registry),
        }
    }
}

/// Whether a mirror is asked for an image named so.
fn serves(entry: &Entry, serves: Serves, reference: &Reference) -> bool {
    let by_digest = reference.digest().is_some();
    match serves {
        Serves::DigestOnly => by_digest,
        Serves::TagOnly => !by_digest,
        Serves::All => true,
        Serves::Unset => by_digest || !entry.mirror_by_digest_only,
    }
}

/// The names that mirrors give an image.
fn extra<'a>(mirrors: &'a [ExtraMirror], name: &'a str) -> impl Iterator<Item = (String, bool)> + 'a {
    mirrors.iter().filter_map(move |mirror| {
        let length = matched(&mirror.prefix, name)?;
        Some((format!("{}{}", mirror.location, &name[length..]), mirror.insecure))
    })
}

/// A location that says a tag or digest, for a prefix that does: the tag stays what it is.
fn untagged(location: &str) -> &str {
    let location = location.split('@').next().unwrap_or(location);
    match location.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') && name.contains('/') => name,
        _ => location,
    }
}

/// A place that has a repository.
fn checked(place: Place) -> Option<Place> {
    let name = format!("{}/{}", place.registry, place.repository);
    let parsed = Reference::parse(&name).ok()?;
    // `docker.io/alpine` means `docker.io/library/alpine` in a location too.
    let repository =
        if parsed.registry() == place.registry { parsed.repository().to_owned() } else { return None };
    Some(Place { repository, ..place })
}

/// How many bytes of `name` a prefix covers, when it does: whole components, or `*.domain` for a host below it.
pub(super) fn matched(prefix: &str, name: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix("*.") {
        let host = name.split('/').next()?;
        // A pattern with a port is for that port, one without for any.
        let bare = if domain.contains(':') { host } else { host.split(':').next()? };
        return bare.strip_suffix(domain)?.ends_with('.').then_some(bare.len());
    }
    let rest = name.strip_prefix(prefix)?;
    (!prefix.is_empty() && (rest.is_empty() || rest.starts_with('/'))).then_some(prefix.len())
}

/// A name, prefix or scope with its host in lower case, as references have it. Tags keep their case.
pub(super) fn lower_host(name: &str) -> String {
    match name.split_once('/') {
        Some((host, rest)) => format!("{}/{rest}", host.to_ascii_lowercase()),
        None => name.to_ascii_lowercase(),
    }
}

/// Whether two registry names are one, so that docker's lists find theirs.
pub(super) fn is_same_registry(a: &str, b: &str) -> bool {
    a == b || Origin::of_registry(Scheme::Https, a) == Origin::of_registry(Scheme::Https, b)
}
