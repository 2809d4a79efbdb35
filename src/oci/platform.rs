//! Platforms: `os/arch[/variant]`, normalised as containerd does it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image runs on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// Operating system, in Go's words.
    pub os: String,
    /// CPU architecture, in Go's words.
    pub architecture: String,
    /// CPU variant, when it matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform: expected os/arch[/variant], such as linux/amd64 or linux/arm64")]
pub struct PlatformError(String);

impl Platform {
    /// A platform, normalised (`aarch64` becomes `arm64`, `arm` alone `arm/v7`).
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            "" => "linux".to_owned(),
            other => other.to_owned(),
        };
        let (architecture, implied) = match architecture.to_ascii_lowercase().as_str() {
            "x86_64" | "x86-64" | "amd64" => ("amd64".to_owned(), None),
            "aarch64" | "arm64" => ("arm64".to_owned(), None),
            "i386" | "i686" | "386" => ("386".to_owned(), None),
            "armhf" => ("arm".to_owned(), Some("v7")),
            "armel" => ("arm".to_owned(), Some("v6")),
            "arm" => ("arm".to_owned(), Some("v7")),
            "powerpc64le" => ("ppc64le".to_owned(), None),
            other => (other.to_owned(), None),
        };
        let variant = variant.filter(|v| !v.is_empty()).or(implied).map(|v| {
            let v = v.to_ascii_lowercase();
            if v.starts_with(|c: char| c.is_ascii_digit()) { format!("v{v}") } else { v }
        });
        let variant = variant
            .filter(|v| !matches!((architecture.as_str(), v.as_str()), ("arm64", "v8") | ("amd64", "v1")));
        Self { os, architecture, variant }
    }

    /// The platform of this machine.
    #[must_use]
    pub fn host() -> Self {
        Self::new(std::env::consts::OS, std::env::consts::ARCH, None)
    }

    /// How well an image for `self` serves a request for `wanted`: 0 is exact, larger is worse, `None` is not at all.
    #[must_use]
    pub fn fit(&self, wanted: &Self) -> Option<u32> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        let level = |platform: &Self| -> Option<u32> {
            let base = match platform.architecture.as_str() {
                "amd64" => "v1",
                "arm64" => "v8",
                _ => "",
            };
            let variant = platform.variant.as_deref().unwrap_or(base);
            variant.strip_prefix('v').and_then(|n| n.split('.').next()).and_then(|n| n.parse().ok())
        };
        match (level(self), level(wanted)) {
            (Some(have), Some(want)) if have <= want => Some(want - have),
            _ if self.variant == wanted.variant => Some(0),
            _ => None,
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let good = |part: &&str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.()".contains(&b))
        };
        if !parts.iter().all(good) {
            return Err(PlatformError(text.into()));
        }
        match parts[..] {
            ["local"] => Ok(Self::host()),
            [os] if is_os(os) => Ok(Self::new(os, &Self::host().architecture, None)),
            // A single word that is neither is a slip of the keyboard; with both parts it may be a new machine.
            [architecture] if is_architecture(architecture) => Ok(Self::new("linux", architecture, None)),
            [os, architecture] => Ok(Self::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Self::new(os, architecture, Some(variant))),
            _ => Err(PlatformError(text.into())),
        }
    }
}

/// The operating systems that Go knows (`GOOS`), which may stand alone.
fn is_os(word: &str) -> bool {
    const KNOWN: &[&str] = &[
        "aix",
        "android",
        "darwin",
        "dragonfly",
        "freebsd",
        "illumos",
        "ios",
        "js",
        "linux",
        "macos",
        "netbsd",
        "openbsd",
        "plan9",
        "solaris",
        "wasip1",
        "windows",
    ];
    KNOWN.contains(&word.to_ascii_lowercase().as_str())
}

/// The architectures that Go knows (`GOARCH`) with their other names, which may stand alone.
fn is_architecture(word: &str) -> bool {
    const KNOWN: &[&str] = &[
        "386",
        "aarch64",
        "amd64",
        "arm",
        "arm64",
        "armel",
        "armhf",
        "i386",
        "i686",
        "loong64",
        "mips",
        "mips64",
        "mips64le",
        "mipsle",
        "powerpc64le",
        "ppc64",
        "ppc64le",
        "riscv64",
        "s390x",
        "wasm",
        "x86-64",
        "x86_64",
    ];
    KNOWN.contains(&word.to_ascii_lowercase().as_str())
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl From<&oci_spec::image::Platform> for Platform {
    fn from(platform: &oci_spec::image::Platform) -> Self {
        let variant = platform.variant().as_ref().map(ToString::to_string);
        Self::new(&platform.os().to_string(), &platform.architecture().to_string(), variant.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised() {
        for (text, normal) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/arm/6", "linux/arm/v6"),
        ] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), normal);
        }
        assert!("linux//x".parse::<Platform>().is_err());
        assert!("a/b/c/d".parse::<Platform>().is_err());
        assert!("bogus".parse::<Platform>().is_err());
        assert_eq!("windows".parse::<Platform>().unwrap().os, "windows");
        assert_eq!("linux/brandnew".parse::<Platform>().unwrap().architecture, "brandnew");
    }

    #[test]
    fn an_older_variant_serves_a_newer_machine_and_not_the_other_way_round() {
        let arm = |v: &str| Platform::new("linux", "arm", Some(v));
        assert_eq!(arm("v6").fit(&arm("v7")), Some(1));
        assert_eq!(arm("v7").fit(&arm("v6")), None);
        assert_eq!(
            Platform::new("linux", "amd64", Some("v3")).fit(&Platform::new("linux", "amd64", None)),
            None
        );
    }
}
