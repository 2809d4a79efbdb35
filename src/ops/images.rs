//! `images`: which images there are, from one read of the store's index.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{store, when};
use crate::context::Context;
use crate::oci::Reference;
use crate::storage::{self, ImageRecord, Store};

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Only this repository, or name, or pattern of either.
    pub reference: Option<String>,
    /// Filters, `key=value`.
    pub filters: Vec<String>,
}

/// One line of the listing.
pub use crate::storage::ListedImage as Row;

/// Why images could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not `key=value`.
    #[error("invalid filter `{0}`: expected key=value")]
    Malformed(String),
    /// No such key.
    #[error(
        "invalid filter `{0}`: there are before, dangling, digest, id, label, reference, since and until"
    )]
    UnknownKey(String),
    /// A value that makes no sense for its key.
    #[error("invalid value `{value}` for the filter `{key}`")]
    BadValue {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// List images, newest first.
///
/// # Errors
/// When a filter makes no sense or the store cannot be read.
pub fn images(cx: &Context, request: &Request) -> Result<Vec<Row>, Error> {
    let store = store::read(cx)?;
    let wanted = request.reference.as_deref();
    if wanted.is_none() && request.filters.is_empty() {
        return Ok(store.listed_images()?);
    }
    let filters = Filters::parse(&request.filters, &store)?;
    let mut records = store.images()?;
    records.retain(|record| {
        wanted.is_none_or(|text| matches_reference(record, text)) && filters.pick(record, &store)
    });
    Ok(records.iter().map(Row::of).collect())
}

/// Parsed filters: the values of one key are alternatives (labels: all must fit), different keys must all fit.
#[derive(Debug, Default)]
pub(super) struct Filters {
    dangling: Option<bool>,
    references: Vec<String>,
    ids: Vec<String>,
    digests: Vec<String>,
    labels: Vec<String>,
    not_labels: Vec<String>,
    /// Only images created after this.
    since: Option<Timestamp>,
    /// Only images created before this.
    before: Option<Timestamp>,
}

impl Filters {
    pub(super) fn parse(texts: &[String], store: &Store) -> Result<Self, Error> {
        let mut filters = Self::default();
        for text in texts {
            let (key, value) = text.split_once('=').ok_or_else(|| Error::Malformed(text.clone()))?;
            let bad = || Error::BadValue { key: key.into(), value: value.into() };
            match key {
                "dangling" => filters.dangling = Some(flag(value).ok_or_else(bad)?),
                "reference" => filters.references.push(value.into()),
                "id" => filters.ids.push(value.strip_prefix("sha256:").unwrap_or(value).into()),
                "digest" => filters.digests.push(value.into()),
                "label" => filters.labels.push(value.into()),
                "label!" => filters.not_labels.push(value.into()),
                "since" | "after" => filters.since = created(store, value)?.max(filters.since),
                "before" => {
                    let time = created(store, value)?;
                    filters.before = [time, filters.before].into_iter().flatten().min();
                }
                "until" => {
                    let time = when::parse(value, Timestamp::now()).ok_or_else(bad)?;
                    filters.before = Some(filters.before.map_or(time, |before| before.min(time)));
                }
                _ => return Err(Error::UnknownKey(key.into())),
            }
        }
        Ok(filters)
    }

    pub(super) fn pick(&self, record: &ImageRecord, store: &Store) -> bool {
        let created = time_of(record);
        let any = |list: &[String], fits: &dyn Fn(&String) -> bool| list.is_empty() || list.iter().any(fits);
        self.dangling.is_none_or(|dangling| dangling == record.name.is_none())
            && any(&self.references, &|text| matches_reference(record, text))
            && any(&self.ids, &|text| record.id.digest().hex().starts_with(text.as_str()))
            && any(&self.digests, &|text| record.digest.as_str().contains(text.as_str()))
            && self.since.is_none_or(|since| created.is_some_and(|created| created > since))
            && self.before.is_none_or(|before| created.is_some_and(|created| created < before))
            && self.fits_labels(record, store)
    }

    fn fits_labels(&self, record: &ImageRecord, store: &Store) -> bool {
        if self.labels.is_empty() && self.not_labels.is_empty() {
            return true;
        }
        let Ok(image) = store.image(&record.manifest) else { return false };
        let labels = &image.config.config.labels;
        self.labels.iter().all(|text| has_label(labels, text))
            && !self.not_labels.iter().any(|text| has_label(labels, text))
    }
}

/// Whether labels hold `key` or `key=value`.
fn has_label(labels: &BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|found| found == value),
        None => labels.contains_key(wanted),
    }
}

/// Go's `strconv.ParseBool`, which docker reads flags in filters with.
pub(super) fn flag(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn created(store: &Store, text: &str) -> Result<Option<Timestamp>, Error> {
    Ok(time_of(&store.find_image(text)?))
}

fn time_of(record: &ImageRecord) -> Option<Timestamp> {
    record.created.as_deref()?.parse().ok()
}

/// Whether a name fits what a user typed to narrow the list: a repository, a name with tag, or a pattern of either.
fn matches_reference(record: &ImageRecord, text: &str) -> bool {
    let Some(name) = &record.name else { return false };
    let (repository, whole) = (name.familiar_name(), name.familiar());
    if glob(text, &repository) || glob(text, &whole) || glob(text, &name.to_string()) {
        return true;
    }
    // Typed in full, or by another spelling of docker's registry: the tag counts only when it was typed.
    let Ok(typed) = Reference::parse(text) else { return false };
    let same = (typed.registry(), typed.repository()) == (name.registry(), name.repository());
    let bare = text.rsplit('/').next().is_some_and(|last| !last.contains([':', '@']));
    same && (bare || typed.tag() == name.tag() || typed.digest() == Some(&record.digest))
}

/// Match as Go's `path.Match`: `*` and `?` stay within a `/` component, `[…]` is a class, `\` takes a character as it
/// is. A broken pattern fits nothing.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    glob_at(&pattern, &text)
}

fn glob_at(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', rest @ ..] => {
            let end = text.iter().position(|c| *c == '/').unwrap_or(text.len());
            (0..=end).any(|taken| glob_at(rest, &text[taken..]))
        }
        ['?', rest @ ..] => matches!(text, [c, after @ ..] if *c != '/' && glob_at(rest, after)),
        ['[', rest @ ..] => {
            let (Some(end), [c, after @ ..]) = (rest.iter().skip(1).position(|c| *c == ']'), text) else {
                return false;
            };
            let (class, rest) = (&rest[..=end], &rest[end + 2..]);
            let (negated, class) = match class {
                ['^', class @ ..] => (true, class),
                class => (false, class),
            };
            in_class(class, *c) != negated && *c != '/' && glob_at(rest, after)
        }
        ['\\', p, rest @ ..] | [p, rest @ ..] => {
            matches!(text, [c, after @ ..] if c == p && glob_at(rest, after))
        }
    }
}

fn in_class(class: &[char], c: char) -> bool {
    match class {
        [low, '-', high, rest @ ..] => (*low..=*high).contains(&c) || in_class(rest, c),
        [one, rest @ ..] => *one == c || in_class(rest, c),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_gos_do() {
        for (pattern, text, fits) in [
            ("busy*", "busybox", true),
            ("busy*:*libc", "busybox:uclibc", true),
            ("*", "a/b", false),
            ("a/*", "a/b", true),
            ("b?sybox", "busybox", true),
            ("[a-c]usybox", "busybox", true),
            ("[^a-c]usybox", "busybox", false),
            ("b[usy", "busy", false),
            ("", "", true),
            ("a\\*", "a*", true),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }
}
