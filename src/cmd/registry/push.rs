//! `push`

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{RemoteArgs, RetryArgs};
use crate::cmd::copy::{digest_lines, write_digest};
use crate::cmd::progress::ProgressArgs;
use crate::cmd::{CmdError, CmdResult};
use crate::context::Context;
use crate::image::{Conversion, Location};
use crate::oci::{Platform, Reference};
use crate::ops::push::{self, Compression, Done, Format, PushRequest, Pushed, Recompression, Which};
use crate::ui::Ui;
use crate::ui::progress::{Direction, Progress};

/// Arguments of `push`.
#[derive(Debug, Args)]
#[command(after_help = crate::cmd::copy::PLACES)]
pub(in crate::cmd) struct PushArgs {
    /// The image that is here: its name or id; with --all-tags a repository
    #[arg(value_name = "NAME")]
    name: String,
    /// Where it goes, when that is not its name: other names, or places
    #[arg(value_name = "DESTINATION", conflicts_with = "all_tags")]
    destinations: Vec<String>,
    /// Every tag of the repository that is here
    #[arg(long, short)]
    all_tags: bool,
    /// Print the name only
    #[arg(long, short)]
    quiet: bool,
    /// One image of an image with several platforms: OS[/ARCH[/VARIANT]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Write the digest of what was pushed to a file; of several tags, a line each with the name
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    retry: RetryArgs,
    #[command(flatten)]
    other: OtherArgs,
}

/// In which form an image is written.
#[derive(Debug, Clone, Default, Args)]
pub(in crate::cmd) struct FormArgs {
    /// Kind of manifest; without it, as it is
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<FormatArg>,
    /// Compression of layers; without it, as they are. Those that are compressed so stay as they are
    #[arg(long, aliases = ["compression", "dest-compress-format"], value_name = "KIND")]
    compression_format: Option<CompressionArg>,
    /// Level of the compression: 1 to 12 for gzip, 1 to 22 for zstd
    #[arg(long, alias = "dest-compress-level", value_name = "LEVEL")]
    compression_level: Option<i32>,
    /// Compress every layer anew when a level is given; `false`: only those that are not compressed
    #[arg(
        long, alias = "dest-force-compress-format", value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true"
    )]
    force_compression: Option<bool>,
    /// Compress layers that are not compressed
    #[arg(long, hide = true, alias = "dest-compress")]
    compress: bool,
}

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// OCI image-spec
    Oci,
    /// Docker's schema 2
    #[value(alias = "docker")]
    V2s2,
    /// Docker's schema 1: refused
    #[value(hide = true)]
    V2s1,
}

/// `--compression-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CompressionArg {
    /// Read by everything
    Gzip,
    /// Smaller and faster; read by what is newer than 2021
    Zstd,
    /// Partial pulls: refused
    #[value(name = "zstd:chunked", hide = true)]
    ZstdChunked,
}

/// Options of the peers' `push` that need nothing done, and those that are refused.
#[derive(Debug, Clone, Default, Args)]
struct OtherArgs {
    /// Accepted for docker's sake
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
    /// Nothing to do: signatures are not kept with an image
    #[arg(long, hide = true)]
    remove_signatures: bool,
    #[arg(long, value_name = "KEY", hide = true)]
    sign_by: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    sign_by_sigstore: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    sign_by_sigstore_private_key: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    sign_passphrase_file: Option<String>,
    #[arg(long, value_name = "KEY", hide = true)]
    encryption_key: Vec<String>,
    #[arg(long, value_name = "LAYER", hide = true)]
    encrypt_layer: Vec<String>,
}

impl FormArgs {
    pub(in crate::cmd) fn conversion(&self) -> Result<Conversion, CmdError> {
        let format = match self.format {
            None => None,
            Some(FormatArg::Oci) => Some(Format::Oci),
            Some(FormatArg::V2s2) => Some(Format::Docker),
            Some(FormatArg::V2s1) => {
                return Err(CmdError::usage(
                    "--format v2s1: docker's schema 1 carries no digests and is not written; v2s2 is read wherever it is",
                ));
            }
        };
        Ok(Conversion { format, layers: self.layers()? })
    }

    fn layers(&self) -> Result<Option<Recompression>, CmdError> {
        let to = match self.compression_format {
            Some(CompressionArg::ZstdChunked) => {
                return Err(CmdError::usage(
                    "--compression-format zstd:chunked is not supported: zstd without the index of chunks is",
                ));
            }
            Some(CompressionArg::Zstd) => Compression::Zstd,
            Some(CompressionArg::Gzip) => Compression::Gzip,
            None if self.compress
                || self.compression_level.is_some()
                || self.force_compression == Some(true) =>
            {
                Compression::Gzip
            }
            None => return Ok(None),
        };
        let levels = push::levels(to);
        if let (Some(level), Some(levels)) = (self.compression_level, &levels)
            && !levels.contains(&level)
        {
            return Err(CmdError::usage(format!(
                "--compression-level {level} is not between {} and {}",
                levels.start(),
                levels.end()
            )));
        }
        let which = match (self.force_compression, self.compression_format, self.compression_level) {
            (Some(true), _, Some(_)) | (Some(true), None, _) => Which::All,
            (Some(false), ..) | (None, None, _) => Which::Plain,
            _ => Which::Other,
        };
        Ok(Some(Recompression { to, level: self.compression_level, which }))
    }
}

impl OtherArgs {
    fn check(&self) -> Result<(), CmdError> {
        let refused = [
            ("--sign-by", self.sign_by.is_some()),
            ("--sign-by-sigstore", self.sign_by_sigstore.is_some()),
            ("--sign-by-sigstore-private-key", self.sign_by_sigstore_private_key.is_some()),
            ("--sign-passphrase-file", self.sign_passphrase_file.is_some()),
            ("--encryption-key", !self.encryption_key.is_empty()),
            ("--encrypt-layer", !self.encrypt_layer.is_empty()),
        ];
        match refused.iter().find(|(_, given)| *given) {
            Some((flag, _)) if flag.starts_with("--sign") => Err(CmdError::usage(format!(
                "{flag} is not supported: push first, then sign the digest with cosign"
            ))),
            Some((flag, _)) => {
                Err(CmdError::usage(format!("{flag} is not supported: layers are not encrypted")))
            }
            None => Ok(()),
        }
    }
}

/// `strate push`
pub(in crate::cmd) fn push(cx: &mut Context, ui: &mut Ui, args: PushArgs) -> CmdResult {
    args.other.check()?;
    let request = PushRequest {
        image: args.name.clone(),
        destinations: args.destinations.iter().map(|text| place(text)).collect::<Result<_, _>>()?,
        all_tags: args.all_tags,
        platform: args.platform.as_deref().map(str::parse::<Platform>).transpose()?,
        conversion: args.form.conversion()?,
        remote: args.remote.options(&args.retry)?,
    };
    let display = args.progress.display(cx, ui, args.quiet)?;
    let jobs = push::plan(cx, &request)?;
    let (mut done, mut announced, mut pushed) = (Done::default(), String::new(), Vec::new());
    for job in &jobs {
        let place = base(&job.to);
        if !args.quiet && display.is_for_people() && announced != place {
            ui.note(format_args!("The push refers to repository [{place}]"));
            announced = place;
        }
        let progress = Progress::new(Direction::Push, display);
        let result = push::push(cx, &request, job, &mut done, &progress);
        progress.finish();
        let result = result?;
        say(ui, &result, args.quiet);
        pushed.push(result);
    }
    match &args.digestfile {
        Some(path) => write_digests(cx, path, &pushed),
        None => Ok(0),
    }
}

fn write_digests(cx: &Context, path: &std::path::Path, pushed: &[Pushed]) -> CmdResult {
    let place = |place: &Location| match place {
        Location::Registry(name) => name.to_string(),
        other => other.to_string(),
    };
    let all: Vec<_> = pushed.iter().map(|pushed| (&pushed.digest, place(&pushed.place))).collect();
    write_digest(cx, path, &digest_lines(&all))?;
    Ok(0)
}

/// A name, or a place with its transport.
fn place(text: &str) -> Result<Location, CmdError> {
    if Location::is_meant(text) {
        return Ok(Location::parse(text)?);
    }
    Ok(Location::Registry(Reference::parse(text)?))
}

/// What the push refers to, as docker says it.
fn base(place: &Location) -> String {
    match place {
        Location::Registry(name) => format!("{}/{}", name.registry(), name.repository()),
        other => other.to_string(),
    }
}

fn say(ui: &mut Ui, pushed: &Pushed, quiet: bool) {
    let (name, tag) = match &pushed.place {
        Location::Registry(name) => (name.to_string(), name.tag().unwrap_or_default().to_owned()),
        other => (other.to_string(), other.to_string()),
    };
    if quiet {
        ui.line(name);
    } else {
        ui.line(format_args!("{tag}: digest: {} size: {}", pushed.digest, pushed.size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(
        format: Option<CompressionArg>,
        level: Option<i32>,
        force: Option<bool>,
    ) -> Option<(Compression, Which)> {
        let args = FormArgs {
            compression_format: format,
            compression_level: level,
            force_compression: force,
            ..FormArgs::default()
        };
        args.layers().unwrap().map(|layers| (layers.to, layers.which))
    }

    #[test]
    fn nothing_is_compressed_again_unless_that_is_what_was_asked_for() {
        use CompressionArg::{Gzip, Zstd};
        for (format, level, force, expected) in [
            (None, None, None, None),
            (None, None, Some(false), None),
            (Some(Zstd), None, None, Some((Compression::Zstd, Which::Other))),
            (Some(Zstd), Some(3), None, Some((Compression::Zstd, Which::Other))),
            (Some(Gzip), None, Some(true), Some((Compression::Gzip, Which::Other))),
            (Some(Gzip), Some(9), Some(true), Some((Compression::Gzip, Which::All))),
            (Some(Zstd), None, Some(false), Some((Compression::Zstd, Which::Plain))),
            (None, Some(9), None, Some((Compression::Gzip, Which::Plain))),
            (None, None, Some(true), Some((Compression::Gzip, Which::All))),
        ] {
            assert_eq!(layers(format, level, force), expected, "{format:?} {level:?} {force:?}");
        }
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name() {
        for args in [
            FormArgs { format: Some(FormatArg::V2s1), ..FormArgs::default() },
            FormArgs { compression_format: Some(CompressionArg::ZstdChunked), ..FormArgs::default() },
            FormArgs { compression_level: Some(13), ..FormArgs::default() },
            FormArgs {
                compression_format: Some(CompressionArg::Zstd),
                compression_level: Some(23),
                ..FormArgs::default()
            },
        ] {
            assert!(args.conversion().is_err(), "{args:?}");
        }
        assert!(OtherArgs { sign_by: Some("k".into()), ..OtherArgs::default() }.check().is_err());
        assert!(OtherArgs { remove_signatures: true, ..OtherArgs::default() }.check().is_ok());
    }
}
