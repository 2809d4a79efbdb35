//! `version`: docker's document. There is no server; its part answers with the same version, since scripts ask it.

use serde::Serialize;

use super::host;

/// What `version` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    /// This program.
    pub client: Part,
    /// The same, for scripts that ask the server.
    pub server: Part,
}

/// One of the two parts.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Part {
    /// The version.
    pub version: String,
    /// The commit it was built from, where the build knew.
    pub git_commit: String,
    /// `linux`
    pub os: &'static str,
    /// The architecture in Go's words.
    pub arch: &'static str,
    /// The kernel's release.
    pub kernel_version: String,
}

/// Read it.
#[must_use]
pub fn version() -> Version {
    let part = Part {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        git_commit: option_env!("STRATE_GIT_COMMIT").unwrap_or_default().to_owned(),
        os: "linux",
        arch: go_arch(),
        kernel_version: host::kernel(),
    };
    Version { client: part.clone(), server: part }
}

/// This machine's architecture in Go's words, which image platforms use.
#[must_use]
pub fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
