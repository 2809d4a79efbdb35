//! Flags of `podman build` and `buildah build` that change what is made, beyond what docker has.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::values;
use crate::cmd::CmdError;
use crate::oci::{Platform, Reference};
use crate::ops::build::{Dns, Layers, NewCompression, Times};

/// See the module.
#[derive(Debug, Default, Args)]
pub(super) struct Changes {
    /// Add the image to this local index, which is made when it is not there
    #[arg(long, value_name = "NAME")]
    manifest: Option<String>,
    /// Another base than the first FROM names
    #[arg(long, value_name = "IMAGE")]
    pub from: Option<String>,
    /// Set a variable of the image (name=value), or pass on one of the environment (name)
    #[arg(long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Take a variable out of the image
    #[arg(long = "unsetenv", value_name = "NAME")]
    pub unset_env: Vec<String>,
    /// Take a label of the base out of the image
    #[arg(long = "unsetlabel", value_name = "KEY")]
    pub unset_labels: Vec<String>,
    /// Operating system of the image
    #[arg(long, value_name = "OS", conflicts_with = "platform")]
    os: Option<String>,
    /// Architecture of the image
    #[arg(long, value_name = "ARCH", conflicts_with = "platform")]
    arch: Option<String>,
    /// Variant of the architecture
    #[arg(long, value_name = "VARIANT", conflicts_with = "platform")]
    variant: Option<String>,
    /// The image's time, in seconds since 1970; no time in it is later (as --build-arg SOURCE_DATE_EPOCH)
    #[arg(long, value_name = "SECONDS", conflicts_with = "timestamp")]
    source_date_epoch: Option<i64>,
    /// Give files in new layers no later time than --source-date-epoch
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    rewrite_timestamp: Option<bool>,
    /// The time of the image and of every file in its new layers, in seconds since 1970
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<i64>,
    /// Compression of the layers: gzip, zstd or uncompressed
    #[arg(long, value_name = "FORMAT")]
    compression_format: Option<String>,
    /// Level of --compression-format: 0 to 9 for gzip, 0 to 22 for zstd
    #[arg(long, value_name = "LEVEL", requires = "compression_format")]
    compression_level: Option<u32>,
    /// A name server for RUN, in the place of the host's
    #[arg(long = "dns", value_name = "ADDRESS")]
    dns: Vec<String>,
    /// An option for resolv.conf in RUN
    #[arg(long = "dns-option", value_name = "OPTION")]
    dns_options: Vec<String>,
    /// A search domain for RUN, in the place of the host's; `.` is none
    #[arg(long = "dns-search", value_name = "DOMAIN")]
    dns_searches: Vec<String>,
    /// Pass the environment's proxies on to RUN
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub http_proxy: Option<bool>,
    /// Write the image's id to a file, without `sha256:`
    #[arg(long, value_name = "FILE")]
    pub iidfile_raw: Option<PathBuf>,
}

impl Changes {
    /// `--manifest`
    pub(super) fn manifest(&self) -> Result<Option<Reference>, CmdError> {
        let Some(name) = &self.manifest else { return Ok(None) };
        let parsed = Reference::parse(name)
            .map_err(|error| CmdError::new(error).while_doing(format!("invalid name `{name}`")))?;
        if parsed.digest().is_some() {
            return Err(CmdError::usage(format!(
                "`{name}` names a digest: an index gets it from what is in it"
            )));
        }
        Ok(Some(parsed))
    }

    /// `--env`
    pub(super) fn env(&self) -> Vec<(String, Option<String>)> {
        let parsed = self.env.iter().map(|text| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text.clone(), None),
        });
        parsed.filter(|(name, _)| !name.is_empty()).collect()
    }

    /// `--platform`, or what `--os`, `--arch` and `--variant` come to.
    pub(super) fn platforms(&self, given: &[String]) -> Result<Vec<Platform>, CmdError> {
        if (&self.os, &self.arch, &self.variant) == (&None, &None, &None) {
            return values::platforms(given);
        }
        let host = Platform::host();
        let or = |given: &Option<String>, own: &str| given.clone().unwrap_or_else(|| own.to_owned());
        let mut text = format!("{}/{}", or(&self.os, &host.os), or(&self.arch, &host.architecture));
        if let Some(variant) = &self.variant {
            text = format!("{text}/{variant}");
        }
        Ok(vec![text.parse().map_err(CmdError::new)?])
    }

    /// `--timestamp` and `--source-date-epoch` as the argument that they are.
    pub(super) fn epoch(&self) -> Option<(String, Option<String>)> {
        let seconds = self.timestamp.or(self.source_date_epoch)?;
        Some(("SOURCE_DATE_EPOCH".to_owned(), Some(seconds.to_string())))
    }

    /// How layers are to be made.
    pub(super) fn layers(&self) -> Result<Layers, CmdError> {
        let level = self.compression_level;
        let compression = match self.compression_format.as_deref() {
            None => None,
            Some("gzip") => Some(NewCompression::Gzip(limited(level, 9)?)),
            Some("zstd") => {
                Some(NewCompression::Zstd(limited(level, 22)?.and_then(|level| i32::try_from(level).ok())))
            }
            Some("uncompressed" | "none") => Some(NewCompression::None),
            Some(other) => {
                return Err(CmdError::usage(format!(
                    "compression `{other}` is not supported: it is gzip, zstd or uncompressed"
                )));
            }
        };
        let times = match (self.timestamp, self.rewrite_timestamp) {
            (Some(_), _) => Times::Same,
            (None, Some(true)) => Times::Clamped,
            _ => Times::Kept,
        };
        Ok(Layers { compression, times, ..Layers::default() })
    }

    /// What `/etc/resolv.conf` of RUN says in the place of the host's.
    pub(super) fn dns(&self) -> Result<Dns, CmdError> {
        let address = |text: &String| {
            text.parse::<IpAddr>()
                .map_err(|_| CmdError::usage(format!("`{text}` is no address of a name server")))
        };
        let words = |all: &[String]| match all.iter().find(|text| text.contains(char::is_whitespace)) {
            Some(text) => Err(CmdError::usage(format!("`{text}` cannot stand in resolv.conf"))),
            None => Ok(all.to_vec()),
        };
        Ok(Dns {
            servers: self.dns.iter().map(address).collect::<Result<_, _>>()?,
            options: words(&self.dns_options)?,
            searches: words(&self.dns_searches)?,
        })
    }
}

fn limited(level: Option<u32>, most: u32) -> Result<Option<u32>, CmdError> {
    match level {
        Some(level) if level > most => {
            Err(CmdError::usage(format!("--compression-level is a number from 0 to {most}")))
        }
        level => Ok(level),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_a_platform_are_put_together() {
        let host = Platform::host();
        let of = |arch: Option<&str>, variant: Option<&str>| Changes {
            arch: arch.map(str::to_owned),
            variant: variant.map(str::to_owned),
            ..Changes::default()
        };
        let text = |changes: &Changes| changes.platforms(&[]).unwrap()[0].to_string();
        assert_eq!(text(&of(Some("arm"), Some("v6"))), format!("{}/arm/v6", host.os));
        assert_eq!(text(&of(Some("riscv64"), None)), format!("{}/riscv64", host.os));
        assert_eq!(of(None, None).platforms(&[]).unwrap(), []);
    }

    #[test]
    fn values_that_mean_nothing_are_refused() {
        let dns = |server: &str| Changes { dns: vec![server.into()], ..Changes::default() }.dns();
        assert!(dns("10.0.0.1").is_ok() && dns("example.com").is_err() && dns("none").is_err());
        let search = Changes { dns_searches: vec!["a\nnameserver 1.1.1.1".into()], ..Changes::default() };
        assert!(search.dns().is_err());
        let level = |format: &str, level| Changes {
            compression_format: Some(format.into()),
            compression_level: Some(level),
            ..Changes::default()
        };
        assert!(level("gzip", 9).layers().is_ok() && level("gzip", 10).layers().is_err());
        assert!(level("estargz", 1).layers().is_err());
    }
}
