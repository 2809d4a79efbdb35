//! The list of images that `sync --src yaml` reads: registries, their repositories and which tags of them.
//!
//! YAML is read as events by saphyr-parser (two crates, kept), into strings: a tag `1.10` is text and no number, as it
//! is for every other reader of these files. Anchors and aliases are refused, since nobody needs them here and a few
//! lines of them can stand for gigabytes.

use std::collections::BTreeMap;
use std::path::PathBuf;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::versions::Constraint;

/// The largest list that is read, in bytes.
pub(super) const MAX_BYTES: u64 = 4 << 20;
/// How deep mappings and lists may be nested; the format needs four.
const MAX_DEPTH: usize = 16;

/// One registry of the list.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    /// Host and port.
    pub registry: String,
    /// Repositories, with what is wanted of each.
    pub repositories: Vec<(String, Wanted)>,
    /// User name and password.
    pub credentials: Option<(String, String)>,
    /// `tls-verify`
    pub tls_verify: Option<bool>,
    /// `cert-dir`
    pub cert_dir: Option<PathBuf>,
}

/// Which images of a repository are wanted.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// These tags and digests; all tags when there are none.
    Listed(Vec<String>),
    /// Tags that match.
    Matching(Box<regex::Regex>),
    /// Tags that are versions in a range.
    Versions(Constraint),
}

/// Why a list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// It is no YAML.
    #[error("it is not valid YAML")]
    Yaml(#[source] saphyr_parser::ScanError),
    /// It uses a part of YAML that is not read.
    #[error("{what} in line {line}: that part of YAML is not read here")]
    Unsupported {
        /// Which part.
        what: &'static str,
        /// Where.
        line: usize,
    },
    /// It does not have the expected shape.
    #[error("`{at}`: expected {expected}")]
    Shape {
        /// Which key.
        at: String,
        /// What should be there.
        expected: &'static str,
    },
    /// A key that means nothing.
    #[error(
        "`{registry}` has the unknown key `{key}`: there are images, images-by-tag-regex, images-by-semver, credentials, tls-verify and cert-dir"
    )]
    UnknownKey {
        /// The registry.
        registry: String,
        /// The key.
        key: String,
    },
    /// A pattern that cannot be read.
    #[error("`{pattern}` of `{repository}` is not a regular expression")]
    Pattern {
        /// The repository.
        repository: String,
        /// The pattern.
        pattern: String,
        /// Why.
        #[source]
        source: Box<regex::Error>,
    },
    /// A range of versions that cannot be read.
    #[error("`{text}` of `{repository}` is not a range of versions")]
    Versions {
        /// The repository.
        repository: String,
        /// The text.
        text: String,
    },
}

/// Read a list.
///
/// # Errors
/// See [`ListError`].
pub(super) fn parse(text: &str) -> Result<Vec<Entry>, ListError> {
    let Node::Map(registries) = read(text)? else {
        return Err(shape("", "a mapping of registries"));
    };
    registries.into_iter().map(|(registry, node)| entry(registry, node)).collect()
}

fn shape(at: impl Into<String>, expected: &'static str) -> ListError {
    ListError::Shape { at: at.into(), expected }
}

fn entry(registry: String, node: Node) -> Result<Entry, ListError> {
    let map = node.map(&registry, "a mapping with `images` and the like")?;
    let mut entry = Entry { registry, ..Entry::default() };
    for (key, node) in map {
        let at = format!("{}.{key}", entry.registry);
        match key.as_str() {
            "images" => {
                for (repository, tags) in node.map(&at, "a mapping of repositories")? {
                    let tags = tags.list(&format!("{at}.{repository}"))?;
                    entry.repositories.push((repository, Wanted::Listed(tags)));
                }
            }
            "images-by-tag-regex" => {
                for (repository, pattern) in node.map(&at, "a mapping of repositories")? {
                    let pattern = pattern.text(&format!("{at}.{repository}"), "a regular expression")?;
                    let compiled = regex::RegexBuilder::new(&pattern).size_limit(1 << 20).build();
                    let regex = compiled.map_err(|source| ListError::Pattern {
                        repository: repository.clone(),
                        pattern,
                        source: Box::new(source),
                    })?;
                    entry.repositories.push((repository, Wanted::Matching(Box::new(regex))));
                }
            }
            "images-by-semver" => {
                for (repository, text) in node.map(&at, "a mapping of repositories")? {
                    let text = text.text(&format!("{at}.{repository}"), "a range of versions")?;
                    let Some(range) = Constraint::parse(&text) else {
                        return Err(ListError::Versions { repository, text });
                    };
                    entry.repositories.push((repository, Wanted::Versions(range)));
                }
            }
            "credentials" => entry.credentials = credentials(node, &at)?,
            "tls-verify" => {
                let text = node.text(&at, "true or false")?;
                entry.tls_verify = Some(text.parse().map_err(|_| shape(&at, "true or false"))?);
            }
            "cert-dir" => entry.cert_dir = Some(node.text(&at, "a directory")?.into()),
            _ => return Err(ListError::UnknownKey { registry: entry.registry, key }),
        }
    }
    Ok(entry)
}

fn credentials(node: Node, at: &str) -> Result<Option<(String, String)>, ListError> {
    let mut map: BTreeMap<String, Node> =
        node.map(at, "a mapping with `username` and `password`")?.into_iter().collect();
    let mut take = |key: &str| match map.remove(key) {
        None => Ok(String::new()),
        Some(node) => node.text(&format!("{at}.{key}"), "text"),
    };
    let (user, password) = (take("username")?, take("password")?);
    Ok(Some((user, password)).filter(|(user, _)| !user.is_empty()))
}

/// A value, its scalars as text.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Null,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(String, Node)>),
}

impl Node {
    fn map(self, at: &str, expected: &'static str) -> Result<Vec<(String, Node)>, ListError> {
        match self {
            Self::Map(map) => Ok(map),
            Self::Null => Ok(Vec::new()),
            _ => Err(shape(at, expected)),
        }
    }

    fn text(self, at: &str, expected: &'static str) -> Result<String, ListError> {
        if let Self::Text(text) = self { Ok(text) } else { Err(shape(at, expected)) }
    }

    fn list(self, at: &str) -> Result<Vec<String>, ListError> {
        match self {
            Self::Null => Ok(Vec::new()),
            Self::List(list) => list.into_iter().map(|node| node.text(at, "a list of tags")).collect(),
            _ => Err(shape(at, "a list of tags")),
        }
    }
}

/// What is being built: finished at the end of its list or mapping.
enum Open {
    List(Vec<Node>),
    Map(Vec<(String, Node)>, Option<String>),
}

/// Read one document.
fn read(text: &str) -> Result<Node, ListError> {
    let mut open: Vec<Open> = Vec::new();
    let mut root = Node::Null;
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(ListError::Yaml)?;
        let unsupported = |what| Err(ListError::Unsupported { what, line: span.start.line() });
        let done = match event {
            Event::DocumentStart(_) => {
                documents += 1;
                if documents > 1 {
                    return unsupported("a second document");
                }
                continue;
            }
            Event::Alias(_) => return unsupported("an alias"),
            Event::Scalar(_, _, anchor, _)
            | Event::SequenceStart(anchor, _)
            | Event::MappingStart(anchor, _)
                if anchor > 0 =>
            {
                return unsupported("an anchor");
            }
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= MAX_DEPTH => {
                return unsupported("deep nesting");
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingStart(..) => {
                open.push(Open::Map(Vec::new(), None));
                continue;
            }
            Event::Scalar(text, style, _, _) => {
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                if null { Node::Null } else { Node::Text(text.into_owned()) }
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some(Open::List(list)) => Node::List(list),
                Some(Open::Map(map, _)) => Node::Map(map),
                None => continue,
            },
            _ => continue,
        };
        match open.last_mut() {
            None => root = done,
            Some(Open::List(list)) => list.push(done),
            Some(Open::Map(map, key @ None)) => match done {
                Node::Text(text) if map.iter().any(|(known, _)| *known == text) => {
                    return unsupported("a key that is there twice");
                }
                Node::Text(text) => *key = Some(text),
                _ => return unsupported("a key that is not text"),
            },
            Some(Open::Map(map, key)) => map.push((key.take().unwrap_or_default(), done)),
        }
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_says_what_is_wanted_of_each_repository() {
        let entries = parse(
            "registry.example.com:\n  images:\n    busybox: []\n    redis:\n      - \"1.0\"\n      - 2.10\n    empty:\n  \
             images-by-tag-regex:\n    nginx: ^1\\.13\\.[12]$\n  images-by-semver:\n    alpine: \">= 3.12.0\"\n  \
             credentials:\n    username: john\n    password: this is a secret\n  tls-verify: false\n  cert-dir: /certs\n\
             quay.io: {images: {coreos/etcd: [latest]}}\n",
        )
        .unwrap();
        let first = &entries[0];
        assert_eq!(first.credentials, Some(("john".into(), "this is a secret".into())));
        assert_eq!((first.tls_verify, first.cert_dir.as_deref()), (Some(false), Some("/certs".as_ref())));
        let names: Vec<&str> = first.repositories.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["busybox", "redis", "empty", "nginx", "alpine"]);
        assert!(matches!(&first.repositories[1].1, Wanted::Listed(tags) if *tags == ["1.0", "2.10"]));
        assert!(matches!(&first.repositories[2].1, Wanted::Listed(tags) if tags.is_empty()));
        assert!(matches!(&first.repositories[3].1, Wanted::Matching(regex) if regex.is_match("1.13.2")));
        assert_eq!(entries[1].registry, "quay.io");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("- a", "expected a mapping of registries"),
            ("a: {images: [b]}", "`a.images`: expected a mapping"),
            ("a: {imgaes: {b: []}}", "unknown key `imgaes`"),
            ("a: {images-by-tag-regex: {b: '('}}", "not a regular expression"),
            ("a: {images-by-semver: {b: newest}}", "not a range of versions"),
            ("a: {tls-verify: maybe}", "expected true or false"),
            ("a: &x {images: {}}\nb: *x", "an anchor in line 1"),
            ("a: {images: {}}\na: {images: {}}", "a key that is there twice"),
            ("a: {}\n---\nb: {}", "a second document"),
            ("a: [", "not valid YAML"),
            (&"[".repeat(20), "deep nesting"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
