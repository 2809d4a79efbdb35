//! Digests: `algorithm:hex` over exact bytes (OCI image-spec, descriptor.md "Digests").

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// A validated digest: `sha256:` and 64, or `sha512:` and 128, lower-case hex digits.
///
/// File names are built from this type only, so nothing else may pass the parser.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    text: Box<str>,
}

/// Why a text is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No colon, or the part before it is not a known algorithm.
    #[error("`{0}` is not a digest: expected sha256:<64 hex digits> or sha512:<128 hex digits>")]
    Malformed(String),
    /// The algorithm is known by name but not supported.
    #[error("digest algorithm `{0}` is not supported: only sha256 and sha512 are")]
    Algorithm(String),
}

impl Digest {
    /// The sha256 digest of `bytes`.
    #[must_use]
    pub fn sha256(bytes: impl AsRef<[u8]>) -> Self {
        let mut hasher = Hasher::sha256();
        hasher.update(bytes.as_ref());
        hasher.finish()
    }

    /// Whether a text is a digest.
    ///
    /// # Errors
    /// Why it is none.
    pub fn check(text: &str) -> Result<(), DigestError> {
        let malformed = || DigestError::Malformed(text.chars().take(200).collect());
        let (hex, want) = match (text.strip_prefix("sha256:"), text.strip_prefix("sha512:")) {
            (Some(hex), _) => (hex, 64),
            (_, Some(hex)) => (hex, 128),
            _ => match text.split_once(':').map(|(algorithm, _)| algorithm) {
                Some(known @ ("md5" | "sha1" | "sha384" | "blake3")) => {
                    return Err(DigestError::Algorithm(known.into()));
                }
                _ => return Err(malformed()),
            },
        };
        // All of them are looked at, many at a time: nearly every one is good.
        let is_digit = |b: u8| b.is_ascii_digit() | (b'a'..=b'f').contains(&b);
        if hex.len() != want || !hex.bytes().fold(true, |good, b| good & is_digit(b)) {
            return Err(malformed());
        }
        Ok(())
    }

    /// The algorithm: `sha256` or `sha512`.
    #[must_use]
    pub fn algorithm(&self) -> &str {
        self.text.split_once(':').map_or("", |(algorithm, _)| algorithm)
    }

    /// The hex digits after the colon.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.text.split_once(':').map_or("", |(_, hex)| hex)
    }

    /// The whole text, `algorithm:hex`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first twelve hex digits, as listings show them.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// A hasher of this digest's algorithm, to verify bytes against it.
    #[must_use]
    pub fn hasher(&self) -> Hasher {
        if self.algorithm() == "sha512" { Hasher::sha512() } else { Hasher::sha256() }
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::check(text)?;
        Ok(Self { text: text.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// An incremental hash that ends in a [`Digest`].
#[derive(Clone)]
pub struct Hasher(Algorithm);

#[derive(Clone)]
enum Algorithm {
    Sha256(sha2::Sha256),
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    /// A sha256 hasher.
    #[must_use]
    pub fn sha256() -> Self {
        Self(Algorithm::Sha256(sha2::Sha256::new()))
    }

    /// A sha512 hasher.
    #[must_use]
    pub fn sha512() -> Self {
        Self(Algorithm::Sha512(Box::new(sha2::Sha512::new())))
    }

    /// Take in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Algorithm::Sha256(hasher) => hasher.update(bytes),
            Algorithm::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The digest of everything taken in.
    #[must_use]
    pub fn finish(self) -> Digest {
        let (name, bytes) = match self.0 {
            Algorithm::Sha256(hasher) => ("sha256:", hasher.finalize().to_vec()),
            Algorithm::Sha512(hasher) => ("sha512:", hasher.finalize().to_vec()),
        };
        let mut text = String::with_capacity(name.len() + 2 * bytes.len());
        text.push_str(name);
        for byte in bytes {
            text.push(char::from_digit(u32::from(byte >> 4), 16).unwrap_or('0'));
            text.push(char::from_digit(u32::from(byte & 15), 16).unwrap_or('0'));
        }
        Digest { text: text.into() }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hasher")
    }
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $crate::oci::Digest);

        impl $name {
            /// The digest itself.
            #[must_use]
            pub fn digest(&self) -> &$crate::oci::Digest {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Display::fmt(&self.0, f)
            }
        }
    };
}
pub(crate) use id_type;

id_type! {
    /// The digest of a layer's uncompressed tar.
    DiffId
}
id_type! {
    /// The digest of an image's config: the image id.
    ImageId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_case_hex_of_the_right_length_is_a_digest() {
        let good = format!("sha256:{}", "a".repeat(64));
        assert_eq!(good.parse::<Digest>().map(|d| d.to_string()), Ok(good.clone()));
        for bad in [
            "sha256:../../etc/passwd".to_owned(),
            format!("sha256:{}", "A".repeat(64)),
            format!("sha256:{}", "a".repeat(63)),
            format!("sha256:{}/", "a".repeat(63)),
            format!("sha256/x:{}", "a".repeat(64)),
            "a".repeat(64),
            String::new(),
        ] {
            assert!(matches!(bad.parse::<Digest>(), Err(DigestError::Malformed(_))), "{bad}");
        }
        assert!(matches!("md5:00".parse::<Digest>(), Err(DigestError::Algorithm(_))));
    }

    #[test]
    fn hashing_gives_the_published_vectors() {
        assert_eq!(
            Digest::sha256(b"abc").hex(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let mut hasher = Hasher::sha512();
        hasher.update(b"abc");
        assert!(hasher.finish().hex().starts_with("ddaf35a193617abacc417349ae204131"));
    }
}
