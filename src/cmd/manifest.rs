//! `manifest`: indexes of images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::progress::ProgressArgs;
use super::registry::{RemoteArgs, RetryArgs};
use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::image::Change;
use crate::oci::{Platform, RawManifest, media_type};
use crate::ops::manifest::{self as op, Detail, Out, Pick};
use crate::ops::remote::RemoteOptions;
use crate::ops::remove_image::Removed;
use crate::ui::Ui;
use crate::ui::progress::{Direction, Progress};

/// Options about registries that have docker's `--insecure` too.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RegistryArgs {
    /// Accept any certificate, and plain http
    #[arg(long, conflicts_with = "tls_verify")]
    insecure: bool,
    #[command(flatten)]
    remote: RemoteArgs,
    #[command(flatten)]
    retry: RetryArgs,
}

impl RegistryArgs {
    pub(super) fn options(&self) -> Result<RemoteOptions, CmdError> {
        let mut options = self.remote.options(&self.retry)?;
        if self.insecure {
            options.tls_verify = Some(false);
        }
        Ok(options)
    }
}

/// What an index says of an image.
#[derive(Debug, Clone, Default, Args)]
struct ChangeArgs {
    /// Operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Architecture
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Version of the operating system that it needs
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Features of the operating system that it needs
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    os_features: Vec<String>,
    /// Features of the processor that it needs
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    features: Vec<String>,
    /// Annotation; an empty value takes one away
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
}

impl ChangeArgs {
    fn change(&self) -> Result<Change, CmdError> {
        Ok(Change {
            os: self.os.clone(),
            architecture: self.arch.clone(),
            variant: self.variant.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            features: self.features.clone(),
            annotations: annotations(&self.annotation)?,
        })
    }

    /// The platform that is meant, where an image of an index is to be chosen.
    fn platform(&self) -> Option<Platform> {
        if self.os.is_none() && self.arch.is_none() {
            return None;
        }
        let host = Platform::host();
        let os = self.os.as_deref().unwrap_or(&host.os);
        let architecture = self.arch.as_deref().unwrap_or(&host.architecture);
        Some(Platform::new(os, architecture, self.variant.as_deref()))
    }
}

/// `KEY=VALUE`, several.
pub(super) fn annotations(texts: &[String]) -> Result<BTreeMap<String, String>, CmdError> {
    let split = |text: &String| {
        let bad = || CmdError::usage(format!("`{text}` is no annotation: expected KEY=VALUE"));
        let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(bad)?;
        Ok((key.to_owned(), value.to_owned()))
    };
    texts.iter().map(split).collect()
}

/// Do something that may move images, with its progress on stderr.
fn with_progress<T>(
    cx: &Context,
    ui: &mut Ui,
    (direction, quiet, args): (Direction, bool, ProgressArgs),
    run: impl FnOnce(&Out<'_>) -> Result<T, op::Error>,
) -> Result<T, CmdError> {
    let progress = Progress::new(direction, args.display(cx, ui, quiet)?);
    let result = run(&Out { report: &progress, notice });
    progress.finish();
    Ok(result?)
}

fn notice(text: &str) {
    Ui::new().note(text);
}

/// Arguments of `manifest create`.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The name of the index
    #[arg(value_name = "INDEX")]
    index: String,
    /// Images to begin with: names or ids that are here, else names in a registry
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Add to an index that is there
    #[arg(long, short, overrides_with = "amend")]
    amend: bool,
    /// Of an image that is an index itself, add every platform
    #[arg(long)]
    all: bool,
    /// Annotation of the index
    #[arg(long, value_name = "KEY=VALUE")]
    annotation: Vec<String>,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// `strate manifest create`
pub(super) fn create(cx: &mut Context, ui: &mut Ui, args: CreateArgs) -> CmdResult {
    let request = op::CreateRequest {
        name: args.index,
        images: args.images,
        amend: args.amend,
        pick: Pick { all: args.all, platform: None },
        annotations: annotations(&args.annotation)?,
        remote: args.registry.options()?,
    };
    let made =
        with_progress(cx, ui, (Direction::Pull, false, args.progress), |out| op::create(cx, &request, out))?;
    ui.line(format_args!("Created manifest list {}", made.name));
    Ok(0)
}

/// Arguments of `manifest add`.
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    index: String,
    /// Images: names or ids that are here, else names in a registry
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Of an image that is an index itself, add every platform
    #[arg(long, conflicts_with_all = ["os", "arch", "variant", "os_version", "os_features", "features"])]
    all: bool,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    artifact: ArtifactArgs,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// Files that become an artifact.
#[derive(Debug, Clone, Default, Args)]
struct ArtifactArgs {
    /// The words after the index are files, which become one artifact
    #[arg(long, conflicts_with = "all")]
    artifact: bool,
    /// What the artifact is for: a media type
    #[arg(long, value_name = "TYPE", requires = "artifact")]
    artifact_type: Option<String>,
    /// File with its config; else it is empty
    #[arg(long, value_name = "FILE", requires = "artifact")]
    artifact_config: Option<PathBuf>,
    /// Media type of the config
    #[arg(long, value_name = "TYPE", requires = "artifact")]
    artifact_config_type: Option<String>,
    /// Media type of the files
    #[arg(long, value_name = "TYPE", requires = "artifact")]
    artifact_layer_type: Option<String>,
    /// Leave out the names of the files
    #[arg(long, requires = "artifact")]
    artifact_exclude_titles: bool,
    /// What the artifact refers to: an image by name or digest
    #[arg(long, value_name = "IMAGE", requires = "artifact")]
    artifact_subject: Option<String>,
}

/// `strate manifest add`
pub(super) fn add(cx: &mut Context, ui: &mut Ui, args: AddArgs) -> CmdResult {
    if args.artifact.artifact {
        return add_artifact(cx, ui, args);
    }
    let request = op::AddRequest {
        index: args.index,
        images: args.images,
        pick: Pick { all: args.all, platform: args.change.platform() },
        change: args.change.change()?,
        remote: args.registry.options()?,
    };
    let changed =
        with_progress(cx, ui, (Direction::Pull, false, args.progress), |out| op::add(cx, &request, out))?;
    ui.line(changed.digest);
    Ok(0)
}

fn add_artifact(cx: &Context, ui: &mut Ui, args: AddArgs) -> CmdResult {
    let request = op::ArtifactRequest {
        index: args.index,
        files: args.images.into_iter().map(PathBuf::from).collect(),
        kind: args.artifact.artifact_type,
        config: args.artifact.artifact_config,
        config_type: args.artifact.artifact_config_type,
        layer_type: args.artifact.artifact_layer_type,
        without_titles: args.artifact.artifact_exclude_titles,
        subject: args.artifact.artifact_subject,
        change: args.change.change()?,
        remote: args.registry.options()?,
    };
    let changed = with_progress(cx, ui, (Direction::Pull, false, args.progress), |out| {
        op::add_artifact(cx, &request, out)
    })?;
    ui.line(changed.digest);
    Ok(0)
}

/// Arguments of `manifest annotate`.
#[derive(Debug, Args)]
pub(super) struct AnnotateArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    index: String,
    /// An image of it, by name or digest
    #[arg(value_name = "IMAGE", required_unless_present_any = ["of_index", "subject"])]
    image: Option<String>,
    /// Annotate the index itself
    #[arg(
        long = "index", id = "of_index",
        conflicts_with_all = ["image", "os", "arch", "variant", "os_version", "os_features", "features"]
    )]
    of_index: bool,
    /// What the index refers to: an image by name or digest
    #[arg(long, value_name = "IMAGE")]
    subject: Option<String>,
    #[command(flatten)]
    change: ChangeArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// `strate manifest annotate`
pub(super) fn annotate(cx: &mut Context, ui: &mut Ui, args: AnnotateArgs) -> CmdResult {
    let _ = args.of_index;
    let request = op::AnnotateRequest {
        index: args.index,
        image: args.image,
        change: args.change.change()?,
        subject: args.subject,
        remote: args.registry.options()?,
    };
    let quietly = (Direction::Pull, false, ProgressArgs::default());
    with_progress(cx, ui, quietly, |out| op::annotate(cx, &request, out))?;
    Ok(0)
}

/// Arguments of `manifest inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// An index that is here, or the name of anything in a registry
    #[arg(value_name = "NAME")]
    name: String,
    /// An image of it, by name or digest
    #[arg(value_name = "IMAGE")]
    image: Option<String>,
    /// With the manifests of the images and what names them
    #[arg(long, short, conflicts_with = "image")]
    verbose: bool,
    /// Byte for byte, without a line end
    #[arg(long, conflicts_with = "verbose")]
    raw: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// `strate manifest inspect`
pub(super) fn inspect(cx: &mut Context, ui: &mut Ui, args: InspectArgs) -> CmdResult {
    let remote = args.registry.options()?;
    let quietly = (Direction::Pull, false, ProgressArgs::default());
    if args.verbose {
        let (details, is_index) =
            with_progress(cx, ui, quietly, |out| op::documents(cx, &args.name, &remote, out.report))?;
        let mut values = details.iter().map(detail).collect::<Result<Vec<Value>, _>>()?;
        let value = match values.pop() {
            Some(only) if !is_index => only,
            last => values.into_iter().chain(last).collect(),
        };
        ui.line(indented(&value)?);
        return Ok(0);
    }
    let raw = with_progress(cx, ui, quietly, |out| {
        op::inspect(cx, &args.name, args.image.as_deref(), &remote, out.report)
    })?;
    if args.raw {
        ui.text(&text(&raw));
    } else if text(&raw).trim_end().contains('\n') {
        ui.line(text(&raw).trim_end());
    } else {
        ui.line(indented(&serde_json::from_slice::<Value>(&raw.bytes)?)?);
    }
    Ok(0)
}

fn text(raw: &RawManifest) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(&raw.bytes)
}

/// What docker shows of an image with `--verbose`.
fn detail(detail: &Detail) -> Result<Value, CmdError> {
    let manifest: Value = serde_json::from_slice(&detail.raw.bytes)?;
    let mut descriptor = json!({
        "mediaType": detail.member.media_type,
        "digest": detail.member.digest,
        "size": detail.member.size,
    });
    if let Some(platform) = &detail.member.platform {
        descriptor["platform"] = serde_json::to_value(platform)?;
    }
    if !detail.member.annotations.is_empty() {
        descriptor["annotations"] = serde_json::to_value(&detail.member.annotations)?;
    }
    let mut all = json!({
        "Ref": detail.name.as_ref().map(ToString::to_string),
        "Descriptor": descriptor,
        "Raw": base64::engine::general_purpose::STANDARD.encode(&detail.raw.bytes),
    });
    let key = match detail.raw.media_type.as_str() {
        media_type::DOCKER_MANIFEST => "SchemaV2Manifest",
        _ => "OCIManifest",
    };
    all[key] = manifest;
    Ok(all)
}

/// JSON by tabs, as docker's own.
pub(super) fn indented(value: &Value) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut bytes, indent))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `manifest push --format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatArg {
    /// OCI index
    Oci,
    /// Docker manifest list
    #[value(alias = "docker")]
    V2s2,
}

/// Arguments of `manifest push`.
#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    index: String,
    /// Its name at the registry, when it is another; or another place
    #[arg(value_name = "DESTINATION")]
    destination: Option<String>,
    /// Remove the index here afterwards
    #[arg(long, short, visible_alias = "rm")]
    purge: bool,
    /// With the images; `false`: the index alone
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", hide_default_value = true
    )]
    all: Option<bool>,
    /// Type of the list; the images in it stay as they are
    #[arg(long, short, value_name = "FORMAT")]
    format: Option<FormatArg>,
    /// Write the digest of what was pushed to a file
    #[arg(long, value_name = "FILE")]
    digestfile: Option<PathBuf>,
    /// Print the digest only
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    registry: RegistryArgs,
    #[command(flatten)]
    podman: PodmanArgs,
}

/// Options of podman's `manifest push` that need nothing done, and those that are refused.
#[derive(Debug, Clone, Default, Args)]
struct PodmanArgs {
    /// Nothing to do: signatures beside an image are never copied
    #[arg(long, hide = true)]
    remove_signatures: bool,
    /// Refused by name
    #[arg(long, hide = true, value_name = "KEY")]
    sign_by: Option<String>,
    /// Refused by name
    #[arg(long, hide = true, value_name = "FORMAT")]
    add_compression: Vec<String>,
    /// Refused by name
    #[arg(long, hide = true, value_name = "FORMAT")]
    compression_format: Option<String>,
    /// Refused by name
    #[arg(long, hide = true, value_name = "LEVEL")]
    compression_level: Option<u32>,
    /// Refused by name
    #[arg(long, hide = true)]
    force_compression: bool,
}

impl PodmanArgs {
    fn check(&self) -> Result<(), CmdError> {
        let _ = self.remove_signatures;
        let refused = [
            ("--sign-by", self.sign_by.is_some()),
            ("--add-compression", !self.add_compression.is_empty()),
            ("--compression-format", self.compression_format.is_some()),
            ("--compression-level", self.compression_level.is_some()),
            ("--force-compression", self.force_compression),
        ];
        match refused.iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(CmdError::usage(format!(
                "{name} is not supported: the images of an index are pushed as they are"
            ))),
            None => Ok(()),
        }
    }
}

/// `strate manifest push`
pub(super) fn push(cx: &mut Context, ui: &mut Ui, args: PushArgs) -> CmdResult {
    args.podman.check()?;
    let request = op::PushRequest {
        index: args.index,
        destination: args.destination,
        all: args.all.unwrap_or(true),
        format: args.format.map(|format| match format {
            FormatArg::Oci => op::Format::Oci,
            FormatArg::V2s2 => op::Format::Docker,
        }),
        purge: args.purge,
        remote: args.registry.options()?,
    };
    let pushed = with_progress(cx, ui, (Direction::Push, args.quiet, args.progress), |out| {
        op::push(cx, &request, out)
    })?;
    if let Some(path) = &args.digestfile {
        write_digest(&cx.cwd.join(path), pushed.digest.as_str())?;
    }
    if !args.quiet {
        ui.note(format_args!("Pushed ref {} with digest: {}", pushed.place, pushed.digest));
    }
    ui.line(pushed.digest);
    Ok(0)
}

fn write_digest(path: &Path, digest: &str) -> Result<(), CmdError> {
    std::fs::write(path, digest)
        .map_err(|error| CmdError::new(error).while_doing(format!("cannot write `{}`", path.display())))
}

/// Arguments of `manifest remove`.
#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    index: String,
    /// An image of it, by digest or name
    #[arg(value_name = "DIGEST", required = true)]
    images: Vec<String>,
}

/// `strate manifest remove`
pub(super) fn remove(cx: &mut Context, ui: &mut Ui, args: RemoveArgs) -> CmdResult {
    let quietly = (Direction::Pull, false, ProgressArgs::default());
    let mut last = None;
    for image in &args.images {
        let (changed, _) = with_progress(cx, ui, quietly, |out| op::remove(cx, &args.index, image, out))?;
        last = Some(changed.digest);
    }
    if let Some(digest) = last {
        ui.line(digest);
    }
    Ok(0)
}

/// Arguments of `manifest rm`.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// Indexes
    #[arg(value_name = "INDEX", required = true)]
    indexes: Vec<String>,
    /// An index that is not there is no error
    #[arg(long, short)]
    ignore: bool,
}

/// `strate manifest rm`
pub(super) fn rm(cx: &mut Context, ui: &mut Ui, args: RmArgs) -> CmdResult {
    let mut failed = false;
    for index in &args.indexes {
        let progress = Progress::new(Direction::Pull, ProgressArgs::default().display(cx, ui, false)?);
        let removed = op::delete(cx, index, &Out { report: &progress, notice });
        progress.finish();
        match removed {
            Ok(removed) => {
                for one in removed {
                    ui.line(match one {
                        Removed::Untagged(name) => format!("Untagged: {name}"),
                        Removed::Deleted(id) => format!("Deleted: {id}"),
                    });
                }
            }
            Err(op::Error::NoSuchIndex(_)) if args.ignore => {}
            Err(error) => {
                failed = true;
                if let Some(report) = CmdError::from(error).report() {
                    ui.error(&report);
                }
            }
        }
    }
    if failed { Err(CmdError::silent(1)) } else { Ok(0) }
}

/// Arguments of `manifest exists`.
#[derive(Debug, Args)]
pub(super) struct ExistsArgs {
    /// The index
    #[arg(value_name = "INDEX")]
    index: String,
}

/// `strate manifest exists`
pub(super) fn exists(cx: &mut Context, _ui: &mut Ui, args: ExistsArgs) -> CmdResult {
    Ok(u8::from(!op::exists(cx, &args.index)?))
}
