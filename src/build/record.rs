//! Build records: what a step gave, under a key made of everything that it depends on.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::image::NewLayer;
use crate::oci::{Descriptor, DiffId};

/// What a step gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Record {
    /// The layer's blob.
    pub descriptor: Descriptor,
    /// The digest of its tar.
    pub diff_id: DiffId,
    /// When it was made, RFC 3339.
    pub created: String,
}

impl Record {
    /// The layer.
    pub(super) fn layer(&self) -> NewLayer {
        NewLayer { descriptor: self.descriptor.clone(), diff_id: self.diff_id.clone() }
    }
}

/// Builds a key from named parts. Parts and their lengths are hashed, so that no two lists of parts run together.
#[derive(Debug, Clone)]
pub(super) struct Key(Sha256);

impl Key {
    /// A key of that kind; the number changes when the meaning of a step does.
    pub(super) fn new(kind: &str) -> Self {
        let mut key = Self(Sha256::new());
        key.text("strate build record 1").text(kind);
        key
    }

    /// Add a text.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// Add bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        super::checksum::put(&mut self.0, bytes);
        self
    }

    /// Add a list of texts.
    pub(super) fn list<S: AsRef<str>>(&mut self, texts: impl IntoIterator<Item = S>) -> &mut Self {
        let texts: Vec<S> = texts.into_iter().collect();
        self.text(&texts.len().to_string());
        for text in texts {
            self.text(text.as_ref());
        }
        self
    }

    /// Add something that may be absent, which is not the same as empty.
    pub(super) fn option(&mut self, text: Option<&str>) -> &mut Self {
        self.list(text)
    }

    /// The key's name.
    pub(super) fn finish(&self, prefix: &str) -> String {
        use std::fmt::Write as _;
        let mut name = format!("{prefix}-");
        for byte in self.0.clone().finalize() {
            // Writing to a string cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_together() {
        let name = |build: &dyn Fn(&mut Key)| {
            let mut key = Key::new("x");
            build(&mut key);
            key.finish("step")
        };
        let all = [
            name(&|key| _ = key.text("ab").text("c")),
            name(&|key| _ = key.text("a").text("bc")),
            name(&|key| _ = key.list(["a", "bc"])),
            name(&|key| _ = key.list(["abc"])),
            name(&|key| _ = key.option(None)),
            name(&|key| _ = key.option(Some(""))),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(all[0].starts_with("step-") && all[0].len() == 5 + 64);
    }
}
