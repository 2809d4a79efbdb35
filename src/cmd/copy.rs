//! `copy`: an image from one place to another.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::progress::ProgressArgs;
use super::registry::FormArgs;
use super::sides::SidesArgs;
use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::image::{Conversion, Location, Platforms};
use crate::oci::{Digest, Platform};
use crate::ops::copy::{self as copy_op, How, Request};
use crate::ops::{enter, pull::JOBS};
use crate::ui::Ui;
use crate::ui::progress::{Direction, Progress};

/// Arguments of `copy`.
#[derive(Debug, Args)]
#[command(after_help = PLACES)]
pub(super) struct CopyArgs {
    /// The image
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where it goes
    #[arg(value_name = "DESTINATION", required = true)]
    destinations: Vec<String>,
    /// With all its platforms
    #[arg(long, short, conflicts_with_all = ["multi_arch", "platform"])]
    all: bool,
    /// What to take of an image with several platforms
    #[arg(long, value_name = "WHICH")]
    multi_arch: Option<MultiArch>,
    /// Only this platform: OS[/ARCH[/VARIANT]]; several keep the index and copy just these
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',', conflicts_with = "multi_arch")]
    platform: Vec<Platform>,
    #[command(flatten)]
    overrides: OverrideArgs,
    /// Further tags at the destination
    #[arg(long, value_name = "TAG", value_delimiter = ',')]
    additional_tag: Vec<String>,
    /// Fail rather than change a digest
    #[arg(long)]
    preserve_digests: bool,
    /// Write the digest of what was copied to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Print the digest only
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

/// What `--help` of verbs with locations says.
pub(super) const PLACES: &str = "\
Places:
  docker://NAME               an image in a registry
  oci:DIR[:NAME]              an OCI layout
  oci-archive:FILE[:NAME]     an OCI layout in a tar
  docker-archive:FILE[:NAME]  what `docker save` writes
  dir:DIR                     manifest and blobs as plain files
  store:NAME                  the images that `strate images` lists";

/// `--multi-arch`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum MultiArch {
    /// The image for this machine
    System,
    /// The index and every image in it
    All,
    /// The index alone; its images must be there
    IndexOnly,
}

/// What to take of an index, by skopeo's options.
pub(super) fn which(all: bool, multi_arch: Option<MultiArch>) -> Option<Platforms> {
    match multi_arch {
        Some(MultiArch::IndexOnly) => Some(Platforms::IndexOnly),
        Some(MultiArch::All) => Some(Platforms::All),
        _ => all.then_some(Platforms::All),
    }
}

/// skopeo's way to say a platform.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct OverrideArgs {
    /// Operating system of the image to choose
    #[arg(long, value_name = "OS", hide_short_help = true, alias = "os")]
    override_os: Option<String>,
    /// Architecture of the image to choose
    #[arg(long, value_name = "ARCH", hide_short_help = true, alias = "arch")]
    override_arch: Option<String>,
    /// Variant of the image to choose
    #[arg(long, value_name = "VARIANT", hide_short_help = true, alias = "variant")]
    override_variant: Option<String>,
}

impl OverrideArgs {
    /// The platform that these and `--platform` say; `None` when they say nothing.
    pub(super) fn platform(
        &self,
        cx: &Context,
        typed: Option<&Platform>,
    ) -> Result<Option<Platform>, CmdError> {
        let said = match typed {
            Some(typed) => Some(typed.clone()),
            None => super::registry::platform(cx, None)?,
        };
        let Self { override_os, override_arch, override_variant } = self;
        if override_os.is_none() && override_arch.is_none() && override_variant.is_none() {
            return Ok(said);
        }
        let base = said.unwrap_or_else(Platform::host);
        let variant = override_variant.as_deref().or(match override_arch {
            Some(_) => None,
            None => base.variant.as_deref(),
        });
        let os = override_os.as_deref().unwrap_or(&base.os);
        let architecture = override_arch.as_deref().unwrap_or(&base.architecture);
        Ok(Some(Platform::new(os, architecture, variant)))
    }
}

/// Options of `skopeo copy` and `skopeo sync` that need nothing done, and those that are refused.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct SkopeoArgs {
    /// Nothing to do: signatures beside an image are never copied
    #[arg(long, hide = true)]
    remove_signatures: bool,
    /// Nothing to do: digests are always known first
    #[arg(long, hide = true)]
    dest_precompute_digests: bool,
    /// Nothing to do: layers are never compressed unasked
    #[arg(long, hide = true)]
    dest_oci_accept_uncompressed_layers: bool,
    #[arg(long, value_name = "KEY", hide = true)]
    sign_by: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    sign_by_sigstore: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    sign_by_sigstore_private_key: Option<String>,
    #[arg(long, value_name = "NAME", hide = true)]
    sign_identity: Option<String>,
    #[arg(long, value_name = "FILE", hide = true)]
    sign_passphrase_file: Option<String>,
    #[arg(long, value_name = "KEY", hide = true)]
    encryption_key: Vec<String>,
    #[arg(long, value_name = "N", hide = true)]
    encrypt_layer: Vec<String>,
    #[arg(long, value_name = "KEY", hide = true)]
    decryption_key: Vec<String>,
    #[arg(long, value_name = "HOST", hide = true)]
    src_daemon_host: Option<String>,
    #[arg(long, value_name = "HOST", hide = true)]
    dest_daemon_host: Option<String>,
    #[arg(long, hide = true)]
    dest_decompress: bool,
    #[arg(long, value_name = "DIR", hide = true)]
    src_shared_blob_dir: Option<String>,
    #[arg(long, value_name = "DIR", hide = true)]
    dest_shared_blob_dir: Option<String>,
}

impl SkopeoArgs {
    /// Refuse what would change the result and is not done here.
    pub(super) fn check(&self) -> Result<(), CmdError> {
        let refusals: [(bool, &str); 10] = [
            (self.dest_decompress, "--dest-decompress is not supported: layers stay compressed"),
            (
                self.sign_by.is_some(),
                "--sign-by: strate does not sign; `skopeo standalone-sign` and cosign do",
            ),
            (
                self.sign_by_sigstore.is_some() || self.sign_by_sigstore_private_key.is_some(),
                "--sign-by-sigstore: strate does not sign; cosign does",
            ),
            (
                self.sign_identity.is_some() || self.sign_passphrase_file.is_some(),
                "--sign-identity and --sign-passphrase-file: strate does not sign",
            ),
            (
                !self.encryption_key.is_empty() || !self.encrypt_layer.is_empty(),
                "--encryption-key: strate does not encrypt layers",
            ),
            (!self.decryption_key.is_empty(), "--decryption-key: strate does not decrypt layers"),
            (self.src_daemon_host.is_some(), "--src-daemon-host: there is no daemon"),
            (self.dest_daemon_host.is_some(), "--dest-daemon-host: there is no daemon"),
            (self.src_shared_blob_dir.is_some(), "--src-shared-blob-dir is not supported"),
            (self.dest_shared_blob_dir.is_some(), "--dest-shared-blob-dir is not supported"),
        ];
        match refusals.iter().find(|(given, _)| *given) {
            Some((_, why)) => Err(CmdError::usage(*why)),
            None => Ok(()),
        }
    }
}

/// `strate copy`
pub(super) fn copy(cx: &mut Context, ui: &mut Ui, args: CopyArgs) -> CmdResult {
    args.skopeo.check()?;
    let (source, destination) = args.sides.options()?;
    let request = Request {
        from: location(cx, &args.source)?,
        to: args.destinations.iter().map(|text| location(cx, text)).collect::<Result<_, _>>()?,
        source,
        how: How {
            platforms: platforms(cx, &args)?,
            additional_tags: args.additional_tag.clone(),
            jobs: args.image_parallel_copies.max(1),
            conversion: conversion(&args.form, args.preserve_digests)?,
            destination,
        },
    };
    // Only the store unpacks what it gets.
    if request.to.iter().any(|place| matches!(place, Location::Store(_))) {
        enter::enter(cx)?;
    }
    let display = args.progress.display(cx, ui, args.quiet)?;
    let progress = Progress::new(Direction::Copy, display);
    let mut done = Vec::new();
    let result = copy_op::copy(cx, &request, &progress, &mut |copied| done.push(copied));
    progress.finish();
    for copied in &done {
        if !args.quiet && display.is_for_people() {
            let moved = layers(copied.moved);
            let layers = match copied.reused {
                0 => format!("{moved} moved"),
                1 => format!("{moved} moved, 1 was there"),
                reused => format!("{moved} moved, {reused} were there"),
            };
            ui.note(format_args!("Copied {} to {}: {layers}", args.source, copied.place));
        }
        // What goes to standard output must not be mixed with anything.
        if args
            .destinations
            .iter()
            .any(|place| place.split_once(':').is_some_and(|(_, rest)| is_stream(rest)))
        {
            ui.note(&copied.digest);
        } else {
            ui.line(&copied.digest);
        }
    }
    result?;
    if let Some(path) = &args.digestfile {
        let all: Vec<_> = done.iter().map(|copied| (&copied.digest, copied.place.to_string())).collect();
        write_digest(cx, path, &digest_lines(&all))?;
    }
    Ok(0)
}

fn layers(number: usize) -> String {
    if number == 1 { "1 layer".to_owned() } else { format!("{number} layers") }
}

/// What `--digestfile` holds: the digest alone where one thing was written, else a line for each place.
pub(super) fn digest_lines(written: &[(&Digest, String)]) -> String {
    match written {
        [(digest, _)] => digest.to_string(),
        several => several.iter().map(|(digest, place)| format!("{digest} {place}\n")).collect(),
    }
}

/// The form that is wanted, unless digests are to stay as they are.
pub(super) fn conversion(form: &FormArgs, preserve_digests: bool) -> Result<Conversion, CmdError> {
    let conversion = form.conversion()?;
    if preserve_digests && conversion != Conversion::default() {
        return Err(CmdError::usage(
            "--preserve-digests: another form or compression would change the digest",
        ));
    }
    Ok(conversion)
}

/// Whether the rest of a location is standard input or output.
fn is_stream(rest: &str) -> bool {
    rest == "-" || rest.starts_with("-:")
}

/// `--digestfile`
pub(super) fn write_digest(cx: &Context, path: &std::path::Path, text: &str) -> Result<(), CmdError> {
    let path = cx.cwd.join(path);
    std::fs::write(&path, text)
        .map_err(|error| CmdError::new(error).while_doing(format!("cannot write `{}`", path.display())))
}

/// A location, its path seen from the working directory.
pub(super) fn location(cx: &Context, text: &str) -> Result<Location, CmdError> {
    let absolute = |path: PathBuf| if path.as_os_str() == "-" { path } else { cx.cwd.join(path) };
    Ok(match Location::parse(text)? {
        Location::OciDir { path, name } => Location::OciDir { path: absolute(path), name },
        Location::OciArchive { path, name } => Location::OciArchive { path: absolute(path), name },
        Location::DockerArchive { path, name } => Location::DockerArchive { path: absolute(path), name },
        Location::Dir(path) => Location::Dir(absolute(path)),
        other => other,
    })
}

fn platforms(cx: &Context, args: &CopyArgs) -> Result<Platforms, CmdError> {
    if let Some(which) = which(args.all, args.multi_arch) {
        return Ok(which);
    }
    if args.platform.len() > 1 {
        return Ok(Platforms::Only(args.platform.clone()));
    }
    Ok(Platforms::Best(args.overrides.platform(cx, args.platform.first())?.unwrap_or_else(Platform::host)))
}
