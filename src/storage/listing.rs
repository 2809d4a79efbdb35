//! `index.json` as a reader needs it: the file that `index.rs` edits, with its strings borrowed from the bytes that were
//! read. With a thousand images this is what listings and completion cost.

mod listed;
mod scan;

pub use listed::ListedImage;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;

use serde::de::{Deserialize, Deserializer, Error as _, Visitor};

use super::index::{CONFIG, CREATED, KIND, MANIFEST, ORIGINS, REF_NAME, SIZE};
use super::{Error, layout::Layout};
use crate::image::INDEX_DIGEST_ANNOTATION;
use crate::oci::{Parts, Reference};
use crate::sys::{SysError, regular};

/// A string of the file: borrowed, unless it is written with escapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

/// The annotations that mean something to the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Notes<'a>([Option<Text<'a>>; KEYS.len()]);

const KEYS: [&str; 8] = [REF_NAME, CONFIG, CREATED, SIZE, KIND, MANIFEST, ORIGINS, INDEX_DIGEST_ANNOTATION];

impl<'a> Notes<'a> {
    /// What an annotation says.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let at = KEYS.iter().position(|known| *known == key)?;
        self.0[at].as_ref().map(|text| &*text.0)
    }

    /// Of annotations that were found out.
    pub(super) fn of(all: &'a BTreeMap<String, String>) -> Self {
        Self(KEYS.map(|key| all.get(key).map(|text| Text(Cow::Borrowed(text.as_str())))))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Notes<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Known;
        impl<'de> Visitor<'de> for Known {
            type Value = Notes<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut notes = Notes::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    let value = map.next_value::<Text<'de>>()?;
                    if let Some(at) = KEYS.iter().position(|known| *known == key.0) {
                        notes.0[at] = Some(value);
                    }
                }
                Ok(notes)
            }
        }
        deserializer.deserialize_map(Known)
    }
}

/// One descriptor of the file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    media_type: Text<'a>,
    #[serde(borrow)]
    digest: Text<'a>,
    pub size: u64,
    #[serde(borrow, default)]
    pub annotations: Notes<'a>,
}

impl<'a> Line<'a> {
    /// A line that is not in the file.
    pub(super) fn new(media_type: &'a str, digest: &'a str, size: u64, annotations: Notes<'a>) -> Self {
        let text = |text| Text(Cow::Borrowed(text));
        Self { media_type: text(media_type), digest: text(digest), size, annotations }
    }

    pub(super) fn media_type(&self) -> &str {
        &self.media_type.0
    }

    pub(super) fn digest(&self) -> &str {
        &self.digest.0
    }

    /// The name, checked and not copied; `None` when there is none, or one that is no reference.
    pub(super) fn name_parts(&self) -> Option<Parts<'_>> {
        Parts::parse(self.annotations.get(REF_NAME)?).ok()
    }

    /// The name; `None` when there is none, or one that is no reference.
    pub(super) fn name(&self) -> Option<Reference> {
        Reference::parse(self.annotations.get(REF_NAME)?).ok()
    }
}

/// What was made of the lines of a file.
pub(super) struct Gathered<T> {
    /// Of those that are wanted, in their order.
    pub found: Vec<T>,
    /// How many lines there are.
    pub lines: usize,
}

/// Look at each line of the file, of which only what `take` makes of it stays in memory. It may be asked for the first
/// lines once more.
///
/// # Errors
/// When the file cannot be read.
pub(super) fn gather<T>(
    layout: &Layout,
    mut take: impl FnMut(&Line<'_>) -> Option<T>,
) -> Result<Gathered<T>, Error> {
    let mut gathered = Gathered { found: Vec::new(), lines: 0 };
    if let Ok(file) = regular::open(&layout.index())
        && scan::lines(file, super::index::LONGEST, |line| {
            gathered.found.extend(take(line));
            gathered.lines += 1;
        })
    {
        return Ok(gathered);
    }
    let bytes = Lines::read(layout)?;
    let lines = Lines::parse(layout, &bytes)?.manifests;
    Ok(Gathered { found: lines.iter().filter_map(take).collect(), lines: lines.len() })
}

/// All descriptors of the file.
#[derive(Debug, serde::Deserialize)]
pub(super) struct Lines<'a> {
    #[serde(borrow, deserialize_with = "null_is_empty")]
    pub manifests: Vec<Line<'a>>,
}

/// As `index.rs` has it: a file without the list is damaged, and tools written in Go say `null` for an empty one.
fn null_is_empty<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Vec<Line<'a>>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl<'a> Lines<'a> {
    /// The file's bytes; none when there is no store.
    pub(super) fn read(layout: &Layout) -> Result<Vec<u8>, Error> {
        let path = layout.index();
        match regular::read(&path, super::index::LONGEST) {
            Ok(bytes) => Ok(bytes),
            // As `index.rs` has it: a store without its list has lost it.
            Err(error) if error.kind() == ErrorKind::NotFound && layout.format().exists() => {
                Err(Error::Damaged { path, what: "it is not there".into() })
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Ok(br#"{"manifests":[]}"#.to_vec())
            }
            Err(error) => Err(SysError::path("read", &path, error).into()),
        }
    }

    /// What they say.
    pub(super) fn parse(layout: &Layout, bytes: &'a [u8]) -> Result<Self, Error> {
        let text = std::str::from_utf8(bytes).map_err(|error| serde_json::Error::custom(error.to_string()));
        let object = text.and_then(|text| match text.trim_start().starts_with('{') {
            true => Ok(text),
            false => Err(serde_json::Error::custom("an index is an object")),
        });
        object.and_then(serde_json::from_str).map_err(|source| Error::Json { path: layout.index(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_borrowed_unless_they_have_escapes() {
        let layout = Layout::new(std::path::Path::new("/none"));
        let text = r#"{"schemaVersion":2,"manifests":[{"mediaType":"m","digest":"d","size":3,"platform":{"os":"x"},
            "annotations":{"other":"x","org.opencontainers.image.ref.name":"a\u002fb:c","io.strate.size":"7"}}]}"#;
        let lines = Lines::parse(&layout, text.as_bytes()).unwrap();
        let line = &lines.manifests[0];
        assert_eq!((line.media_type(), line.digest(), line.size), ("m", "d", 3));
        assert_eq!(line.annotations.get(SIZE), Some("7"));
        assert_eq!(line.annotations.get(CONFIG), None);
        assert_eq!(line.name().unwrap().to_string(), "docker.io/a/b:c");
        assert!(matches!(line.digest.0, Cow::Borrowed(_)));
        for bad in ["", "[]", "{}", "{\"manifests\":[{}]}", "{\"manifests\":3}"] {
            assert!(matches!(Lines::parse(&layout, bad.as_bytes()), Err(Error::Json { .. })), "{bad}");
        }
    }
}
