//! Verbs that move images and file systems into files and out of them.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::progress::ProgressArgs;
use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::oci::{Platform, Reference};
use crate::ops::enter::Entry;
use crate::ops::{export as export_op, import as import_op, load as load_op, save as save_op};
use crate::ui::Ui;
use crate::ui::progress::{Direction, Progress};

/// Arguments of `save`.
#[derive(Debug, Args)]
pub(super) struct SaveArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Write to this file instead of standard output. Layers are compressed already, so the archive itself is not,
    /// whatever the file is called
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
    /// The form
    #[arg(long, value_name = "FORMAT", default_value = "docker-archive")]
    format: SaveFormat,
    /// Of an image for several platforms only these: OS[/ARCH[/VARIANT]]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Show no progress
    #[arg(long, short = 'q')]
    quiet: bool,
    #[command(flatten)]
    progress: ProgressArgs,
    /// Accepted for podman's sake: several images always go into one archive
    #[arg(long, short = 'm', hide = true)]
    multi_image_archive: bool,
    /// Accepted for podman's sake: layers are written as they are, compressed or not
    #[arg(long, hide = true)]
    uncompressed: bool,
    /// Known, to be refused by name
    #[arg(long, hide = true)]
    compress: bool,
}

/// `save --format`
#[derive(Debug, Clone, Copy, ValueEnum)]
enum SaveFormat {
    /// What `docker load` reads
    DockerArchive,
    /// An OCI image layout as a tar
    OciArchive,
    /// An OCI image layout as a directory
    OciDir,
    /// Manifest and blobs as files of a directory, as skopeo's `dir:`
    DockerDir,
}

impl From<SaveFormat> for save_op::Format {
    fn from(format: SaveFormat) -> Self {
        match format {
            SaveFormat::DockerArchive => Self::DockerArchive,
            SaveFormat::OciArchive => Self::OciArchive,
            SaveFormat::OciDir => Self::OciDir,
            SaveFormat::DockerDir => Self::Dir,
        }
    }
}

/// `strate save`
pub(super) fn save(cx: &mut Context, ui: &mut Ui, args: SaveArgs) -> CmdResult {
    let _ = (args.multi_image_archive, args.uncompressed);
    if args.compress {
        return Err(CmdError::usage(
            "--compress is not supported: layers are written as they lie in the store",
        )
        .with_hint("`strate save IMAGE | gzip > FILE` compresses the whole archive"));
    }
    let output = output(cx, ui, args.output)?;
    let display = args.progress.display(cx, ui, args.quiet)?;
    let request = save_op::Request {
        images: args.images,
        format: args.format.into(),
        target: output.map_or(save_op::Target::Stdout, save_op::Target::Path),
        platforms: args.platform,
    };
    let progress = Progress::new(Direction::Save, display);
    let result = save_op::save(cx, &request, &progress);
    progress.finish();
    result?;
    Ok(0)
}

/// Where an archive goes: a file, or nowhere else than to a standard output that is no terminal.
fn output(cx: &Context, ui: &Ui, path: Option<PathBuf>) -> Result<Option<PathBuf>, CmdError> {
    match path {
        Some(path) if path.as_os_str() != "-" => Ok(Some(cx.cwd.join(path))),
        _ if ui.stdout_is_terminal() => Err(CmdError::usage("refusing to write an archive to a terminal")
            .with_hint("name a file with --output, or redirect the output")),
        _ => Ok(None),
    }
}

/// Arguments of `load`.
#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// Read this archive or directory instead of standard input
    #[arg(long, short = 'i', value_name = "PATH")]
    input: Option<PathBuf>,
    /// Of an image for several platforms only these: OS[/ARCH[/VARIANT]]
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Show no progress
    #[arg(long, short = 'q')]
    quiet: bool,
    #[command(flatten)]
    progress: ProgressArgs,
}

/// `strate load`
pub(super) fn load(cx: &mut Context, ui: &mut Ui, args: LoadArgs) -> CmdResult {
    let request = load_op::Request { input: input(cx, args.input)?, platforms: args.platform };
    let display = args.progress.display(cx, ui, args.quiet)?;
    let progress = Progress::new(Direction::Load, display);
    let mut loaded = Vec::new();
    let result = load_op::load(cx, &request, &progress, &mut |image| loaded.push(image));
    progress.finish();
    // What was loaded before a failure is here, and is said.
    for image in loaded {
        tell(ui, &image);
    }
    result?;
    Ok(0)
}

fn tell(ui: &mut Ui, image: &load_op::Loaded) {
    for (name, id) in &image.moved {
        ui.note(format_args!("notice: `{name}` was image {id} before"));
    }
    for label in image.unused.iter().take(10) {
        ui.note(format_args!("notice: the archive calls {} `{label}`, which is no full name", image.id));
    }
    for name in &image.names {
        ui.line(format_args!("Loaded image: {name}"));
    }
    if image.names.is_empty() {
        ui.line(format_args!("Loaded image ID: {}", image.id));
    }
}

/// Where an archive comes from.
fn input(cx: &Context, path: Option<PathBuf>) -> Result<PathBuf, CmdError> {
    match path {
        Some(path) if path.as_os_str() != "-" => Ok(cx.cwd.join(path)),
        _ if std::io::stdin().is_terminal() => {
            Err(CmdError::usage("refusing to read an archive from a terminal")
                .with_hint("name a file with --input, or redirect the input"))
        }
        _ => Ok(Path::new("-").to_owned()),
    }
}

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// The container: its name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Write to this file instead of standard output
    #[arg(long, short = 'o', value_name = "FILE")]
    output: Option<PathBuf>,
}

impl ExportArgs {
    /// The user namespace to enter.
    pub(super) fn entry(&self, cx: &Context) -> Entry {
        Entry::files_of(cx, &self.container)
    }
}

/// `strate export`
pub(super) fn export(cx: &mut Context, ui: &mut Ui, args: ExportArgs) -> CmdResult {
    let output = output(cx, ui, args.output)?.unwrap_or_else(|| "-".into());
    let request = export_op::Request { container: args.container, output };
    export_op::export(cx, &request, &crate::image::Silent, super::image::notice)?;
    Ok(0)
}

/// Arguments of `import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// A tar of a file system, compressed or not: a file, `-` for standard input, or an http(s) address
    #[arg(value_name = "FILE|URL|-")]
    source: String,
    /// The new image's name
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Change its config by a Dockerfile instruction, such as `CMD ["sh"]`
    #[arg(long, short = 'c', value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Say why, in the image's history
    #[arg(long, short = 'm', value_name = "TEXT")]
    message: Option<String>,
    /// What it is for: OS[/ARCH[/VARIANT]]
    #[arg(long, value_name = "PLATFORM", conflicts_with_all = ["os", "arch", "variant"])]
    platform: Option<Platform>,
    /// Its operating system
    #[arg(long, value_name = "OS")]
    os: Option<String>,
    /// Its architecture
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Its variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    variant: Option<String>,
    /// Accepted for podman's sake: only the id is printed anyway
    #[arg(long, short = 'q', hide = true)]
    quiet: bool,
}

/// `strate import`
pub(super) fn import(cx: &mut Context, ui: &mut Ui, args: ImportArgs) -> CmdResult {
    let _ = args.quiet;
    if args.source == "-" && std::io::stdin().is_terminal() {
        return Err(CmdError::usage("refusing to read an archive from a terminal")
            .with_hint("name a file, or redirect the input"));
    }
    let host = Platform::host();
    let platform = args.platform.unwrap_or_else(|| {
        let architecture = args.arch.as_deref().unwrap_or(&host.architecture);
        let variant =
            args.variant.as_deref().or(if args.arch.is_none() { host.variant.as_deref() } else { None });
        Platform::new(args.os.as_deref().unwrap_or(&host.os), architecture, variant)
    });
    let name = args.name.as_deref().map(Reference::parse).transpose()?;
    if let Some(name) = name.as_ref().filter(|name| name.tag().is_none()) {
        return Err(CmdError::usage(format!(
            "`{}` has no tag: a digest is not for you to choose",
            name.familiar()
        )));
    }
    let request = import_op::Request {
        source: args.source,
        name,
        changes: args.change,
        message: args.message,
        platform,
    };
    ui.line(import_op::import(cx, &request)?);
    Ok(0)
}
