//! `sync`: whole repositories, directories or lists of images.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::copy::{MultiArch, OverrideArgs, SkopeoArgs, conversion, which, write_digest};
use super::progress::ProgressArgs;
use super::registry::FormArgs;
use super::sides::SidesArgs;
use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::image::Platforms;
use crate::oci::{Platform, Reference};
use crate::ops::pull::JOBS;
use crate::ops::sync::{self as sync_op, From, Outcome, Request, Step, To};
use crate::ui::Ui;
use crate::ui::progress::{Direction, Progress};

const EXAMPLES: &str = "\
Examples:
  strate sync --src docker --dest dir registry.example/busybox /media/usb
  strate sync --src dir --dest docker /media/usb mirror.example/copies
  strate sync --src yaml --dest docker --all images.yaml mirror.example

With --dest dir each image is a directory `NAME:TAG`; with --dest oci all go into one OCI layout.
The YAML list is skopeo's: for each registry `images` (repositories, each with tags, or all), `images-by-tag-regex`,
`images-by-semver`, `credentials`, `tls-verify` and `cert-dir`.";

/// Arguments of `sync`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct SyncArgs {
    /// A repository, a directory, or a list in YAML
    #[arg(value_name = "SOURCE")]
    source: String,
    /// A registry with, if wanted, a path; or a directory
    #[arg(value_name = "DESTINATION")]
    destination: String,
    /// What the source is
    #[arg(long, short, value_name = "KIND")]
    src: SourceKind,
    /// What the destination is
    #[arg(long, short, value_name = "KIND")]
    dest: DestinationKind,
    /// With all platforms
    #[arg(long, short, conflicts_with_all = ["multi_arch", "platform"])]
    all: bool,
    /// What to take of images with several platforms
    #[arg(long, value_name = "WHICH")]
    multi_arch: Option<MultiArch>,
    /// Only this platform: OS[/ARCH[/VARIANT]]
    #[arg(long, value_name = "PLATFORM", conflicts_with = "multi_arch")]
    platform: Option<Platform>,
    #[command(flatten)]
    overrides: OverrideArgs,
    /// Keep the whole name of the source below the destination
    #[arg(long)]
    scoped: bool,
    /// Goes behind each tag at the destination
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        allow_hyphen_values = true
    )]
    append_suffix: String,
    /// Say what would be copied
    #[arg(long)]
    dry_run: bool,
    /// Go on after an image that fails; the command fails at its end
    #[arg(long)]
    keep_going: bool,
    /// Fail rather than change a digest
    #[arg(long)]
    preserve_digests: bool,
    /// Write digest and place of each image to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Say nothing while it works
    #[arg(long, short)]
    quiet: bool,
    /// How many layers move at once
    #[arg(long, value_name = "N", default_value_t = JOBS, hide_default_value = true)]
    image_parallel_copies: usize,
    #[command(flatten)]
    form: FormArgs,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    sides: SidesArgs,
    #[command(flatten)]
    skopeo: SkopeoArgs,
}

/// `--src`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SourceKind {
    /// A repository in a registry
    Docker,
    /// Images in directories
    Dir,
    /// A list of images
    Yaml,
}

/// `--dest`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DestinationKind {
    /// A registry
    Docker,
    /// A directory for each image
    Dir,
    /// One OCI layout
    Oci,
}

/// `strate sync`
pub(super) fn sync(cx: &mut Context, ui: &mut Ui, args: SyncArgs) -> CmdResult {
    args.skopeo.check()?;
    let (source, destination) = args.sides.options()?;
    let request = Request {
        from: from(cx, args.src, &args.source)?,
        to: to(cx, args.dest, &args.destination)?,
        platforms: match which(args.all, args.multi_arch) {
            Some(which) => which,
            None => {
                let platform = args.overrides.platform(cx, args.platform.as_ref())?;
                Platforms::Best(platform.unwrap_or_else(Platform::host))
            }
        },
        scoped: args.scoped,
        append_suffix: args.append_suffix,
        dry_run: args.dry_run,
        keep_going: args.keep_going,
        jobs: args.image_parallel_copies.max(1),
        conversion: conversion(&args.form, args.preserve_digests)?,
        source,
        destination,
    };
    let display = args.progress.display(cx, ui, args.quiet)?;
    let progress = Progress::new(Direction::Copy, display);
    let mut tally = Tally::default();
    let result = sync_op::sync(cx, &request, &progress, &mut |step| tally.take(ui, step));
    progress.finish();
    if let Some(path) = &args.digestfile {
        write_digest(cx, path, &tally.digests)?;
    }
    result?;
    if !args.quiet {
        ui.note(tally.summary(request.dry_run));
    }
    if tally.failed > 0 { Err(CmdError::silent(1)) } else { Ok(0) }
}

fn from(cx: &Context, kind: SourceKind, text: &str) -> Result<From, CmdError> {
    Ok(match kind {
        SourceKind::Docker => {
            let text = text.strip_prefix("docker://").unwrap_or(text);
            let reference = Reference::parse(text)?;
            let tagged = text.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
            From::Registry { reference, single: tagged }
        }
        SourceKind::Dir => From::Dir(cx.cwd.join(text.strip_prefix("dir:").unwrap_or(text))),
        SourceKind::Yaml => From::List(cx.cwd.join(text)),
    })
}

fn to(cx: &Context, kind: DestinationKind, text: &str) -> Result<To, CmdError> {
    Ok(match kind {
        DestinationKind::Docker => {
            let text = text.strip_prefix("docker://").unwrap_or(text).trim_end_matches('/');
            if text.is_empty() {
                return Err(CmdError::usage("the destination names no registry"));
            }
            To::Registry(text.to_owned())
        }
        DestinationKind::Dir => To::Dir(cx.cwd.join(text.strip_prefix("dir:").unwrap_or(text))),
        DestinationKind::Oci => To::OciDir(cx.cwd.join(text.strip_prefix("oci:").unwrap_or(text))),
    })
}

/// What became of the images, and the lines about it.
#[derive(Debug, Default)]
struct Tally {
    copied: usize,
    unchanged: usize,
    failed: usize,
    digests: String,
}

impl Tally {
    fn take(&mut self, ui: &mut Ui, step: Step) {
        let Step { number, of, from, to, outcome } = step;
        let (word, digest) = match outcome {
            Ok(Outcome::Copied(digest)) => ("copied", digest),
            Ok(Outcome::WouldCopy(digest)) => ("would copy", digest),
            Ok(Outcome::Unchanged(digest)) => ("unchanged", digest),
            Err(error) => {
                self.failed += 1;
                let error = CmdError::new(error).while_doing(format!("[{number}/{of}] {from} to {to}"));
                if let Some(report) = error.report() {
                    ui.error(&report);
                }
                return;
            }
        };
        if word == "unchanged" {
            self.unchanged += 1;
        } else {
            self.copied += 1;
        }
        self.digests.push_str(&format!("{digest} {to}\n"));
        ui.line(format_args!("{word} {to} {digest}"));
    }

    fn summary(&self, dry_run: bool) -> String {
        let word = if dry_run { "would be copied" } else { "copied" };
        let failed = if self.failed > 0 { format!(", {} failed", self.failed) } else { String::new() };
        let images = if self.copied == 1 { "image" } else { "images" };
        format!("{} {images} {word}, {} unchanged{failed}", self.copied, self.unchanged)
    }
}
