//! The build verb.

mod changes;
mod output;
mod peers;
mod values;

use std::path::{Path, PathBuf};

use clap::Args;

use self::changes::Changes;
use self::peers::PeerFlags;
use self::values::{
    add_host, build_arg, context, docker_types, named_context, network, pair, secret, size, ssh, ulimit,
};
use super::build_call::Call;
use super::registry::{RemoteArgs, RetryArgs};
use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::image::Silent;
use crate::oci::Reference;
use crate::ops::build::{self as op, BuildRequest, BuiltImage, Error};
use crate::ui::Ui;
use crate::ui::build_progress::{BuildDisplay, Mode};
use crate::ui::term;

/// Bytes of `/dev/shm` that docker gives.
const SHM_SIZE: u64 = 64 << 20;

/// Arguments of `build`.
#[derive(Debug, Args)]
pub(super) struct BuildArgs {
    /// The context: a directory, a git repository (URL#ref:directory), the URL of a tar or a Dockerfile, or `-` for a tar
    /// or a Dockerfile on standard input
    #[arg(value_name = "PATH", default_value = ".")]
    context: String,
    /// Name the image (name[:tag]); repeatable
    #[arg(short = 't', long = "tag", value_name = "NAME")]
    tags: Vec<String>,
    /// The Dockerfile: a path, a URL, or `-` for standard input; several are read one after the other
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<String>,
    /// Build this stage
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Set an ARG (name=value), or pass on a variable of the environment (name)
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,
    /// Read ARGs from a file, one name=value a line
    #[arg(long = "build-arg-file", value_name = "FILE")]
    build_arg_files: Vec<PathBuf>,
    /// A further context by name: a directory, docker-image://NAME, oci-layout://DIR, a git repository or a URL
    #[arg(long = "build-context", value_name = "NAME=CONTEXT")]
    build_contexts: Vec<String>,
    /// Label the image (key=value)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    labels: Vec<String>,
    /// Do every step anew
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    no_cache: Option<bool>,
    /// Do the steps of these stages anew
    #[arg(long = "no-cache-filter", value_name = "STAGE", value_delimiter = ',')]
    no_cache_stages: Vec<String>,
    /// When to ask registries for base images: always, missing or never
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "always", value_name = "POLICY")]
    pull: Option<String>,
    /// Network of RUN: default, host or none
    #[arg(long, visible_alias = "net", value_name = "MODE")]
    network: Option<String>,
    /// Print only the image's id, on standard output
    #[arg(short = 'q', long)]
    quiet: bool,
    /// How to show progress: auto, plain, tty, quiet or rawjson
    #[arg(long, value_name = "KIND", env = "BUILDKIT_PROGRESS")]
    progress: Option<String>,
    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// What the image is for (os/arch[/variant]); several make an index
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<String>,
    /// Where the result goes: a directory, `-` for a tar on standard output, or
    /// type=local|tar|oci|docker|image|registry|cacheonly with dest= and other options; repeatable
    #[arg(short = 'o', long = "output", value_name = "OUTPUT")]
    outputs: Vec<String>,
    /// Push the image: the same as --output type=registry
    #[arg(long)]
    push: bool,
    /// Keep the image in the store, also when --output says otherwise
    #[arg(long)]
    load: bool,
    /// Annotate the image ([manifest:|index:]key=value)
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// Media types of the image: oci or docker
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// A secret for RUN --mount=type=secret (id=ID[,src=FILE|,env=NAME])
    #[arg(long = "secret", value_name = "SPEC")]
    secrets: Vec<String>,
    /// An agent for RUN --mount=type=ssh (default|ID[=SOCKET|KEY[,KEY]])
    #[arg(long, value_name = "SPEC")]
    ssh: Vec<String>,
    /// A host name for RUN (name:address)
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    add_hosts: Vec<String>,
    /// Size of /dev/shm in RUN
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// A resource limit of RUN (name=soft[:hard])
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    ulimits: Vec<String>,
    /// Another ignore file than .dockerignore
    #[arg(long, value_name = "FILE")]
    ignorefile: Option<PathBuf>,
    /// List what of the context the build may use, with sizes in bytes, and build nothing
    #[arg(long)]
    print_context: bool,
    /// Look the Dockerfile over and build nothing
    #[arg(long)]
    check: bool,
    /// What to do: build, check, outline (what a target takes) or targets; each with ,format=json
    #[arg(long, alias = "print", value_name = "METHOD", conflicts_with = "check")]
    call: Option<String>,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    registry: RemoteArgs,
    #[command(flatten)]
    retry: RetryArgs,
    #[command(flatten)]
    peers: PeerFlags,
}

/// `strate build`
pub(super) fn build(cx: &mut Context, ui: &mut Ui, args: BuildArgs) -> CmdResult {
    args.peers.judge(ui)?;
    let request = request(&args)?;
    if ui.stdout_is_terminal() && request.outputs.iter().any(op::Output::takes_stdout) {
        return Err(CmdError::usage("refusing to write the result to a terminal")
            .with_hint("name a file with dest=, or redirect the output"));
    }
    let call = match (args.check, args.call.as_deref()) {
        (true, _) => Some(Call::CHECK),
        (false, Some(call)) => Call::parse(call)?,
        (false, None) => None,
    };
    if let Some(call) = call {
        return call.answer(cx, ui, &request);
    }
    if args.print_context {
        return print_context(cx, ui, &request);
    }
    let mode = mode(cx, ui, &args)?;
    let display = BuildDisplay::new(mode);
    let result = op::build(cx, &request, &display, &Silent, display.notice());
    let tail = display.finish();
    match result {
        Ok(built) => done(ui, &args, &request, built.as_ref()),
        Err(Error::Interrupted) => {
            ui.note("ERROR: the build was interrupted");
            Err(CmdError::silent(130))
        }
        Err(error) => Err(failed(ui, error, tail.as_deref())),
    }
}

/// Print a failure in BuildKit's form: the last output, the lines of the Dockerfile, the reason.
pub(super) fn failed(ui: &mut Ui, error: Error, tail: Option<&str>) -> CmdError {
    let Error::Failed { failure, excerpts } = error else { return CmdError::new(error) };
    for text in tail.into_iter().chain(excerpts.iter().map(String::as_str)) {
        ui.note(text.trim_end_matches('\n'));
    }
    ui.note(format_args!("ERROR: {}", failure.text()));
    CmdError::silent(1)
}

/// `--print-context`
fn print_context(cx: &Context, ui: &mut Ui, request: &BuildRequest) -> CmdResult {
    let entries = op::context_entries(cx, request).map_err(|error| failed(ui, error, None))?;
    for entry in &entries {
        let slash = if entry.is_dir { "/" } else { "" };
        ui.line(format_args!("{:>12}  {}{slash}", entry.size, entry.path.display()));
    }
    let files = entries.iter().filter(|entry| !entry.is_dir).count();
    let bytes = entries.iter().map(|entry| entry.size).sum();
    ui.note(format_args!("{files} files, {}", crate::ui::words::size(bytes)));
    Ok(0)
}

fn done(ui: &mut Ui, args: &BuildArgs, request: &BuildRequest, built: Option<&BuiltImage>) -> CmdResult {
    match (&args.iidfile, built) {
        (Some(path), Some(built)) => write_file(path, built.id.to_string().as_bytes())?,
        (Some(path), None) => ui.warn(format_args!("no image was made: `{}` is not written", path.display())),
        (None, _) => {}
    }
    if let (Some(path), Some(built)) = (&args.changes.iidfile_raw, built) {
        write_file(path, built.id.digest().hex().as_bytes())?;
    }
    if let Some(path) = &args.metadata_file {
        write_file(path, metadata(built).as_bytes())?;
    }
    if let Some(built) = built
        && args.quiet
        && !request.outputs.iter().any(op::Output::takes_stdout)
    {
        ui.line(&built.id);
    }
    Ok(0)
}

fn write_file(path: &Path, content: &[u8]) -> Result<(), CmdError> {
    std::fs::write(path, content)
        .map_err(|error| CmdError::new(error).while_doing(format!("cannot write `{}`", path.display())))
}

fn metadata(built: Option<&BuiltImage>) -> String {
    let Some(built) = built else { return "{}\n".to_owned() };
    let (size, media_type) = &built.descriptor;
    let names: Vec<String> = built.names.iter().map(ToString::to_string).collect();
    let mut document = serde_json::json!({
        "containerimage.descriptor": {
            "mediaType": media_type, "digest": built.digest.to_string(), "size": size,
        },
        "containerimage.digest": built.digest.to_string(),
    });
    if *built.id.digest() != built.digest {
        document["containerimage.config.digest"] = built.id.to_string().into();
    }
    if !names.is_empty() {
        document["image.name"] = names.join(",").into();
    }
    format!("{document:#}\n")
}

fn mode(cx: &Context, ui: &Ui, args: &BuildArgs) -> Result<Mode, CmdError> {
    let colour = term::wants_colour(|name| cx.var(name));
    let live = ui.stderr_is_terminal() && cx.var("TERM") != Some("dumb");
    let kind = if args.quiet { "quiet" } else { args.progress.as_deref().unwrap_or("auto") };
    Ok(match kind {
        "auto" | "" if live => Mode::Live { colour },
        "auto" | "" | "plain" => Mode::Plain,
        "tty" if ui.stderr_is_terminal() => Mode::Live { colour },
        "tty" => return Err(CmdError::usage("--progress tty: standard error is not a terminal")),
        "quiet" | "none" => Mode::Quiet,
        "rawjson" => Mode::RawJson,
        other => {
            return Err(CmdError::usage(format!(
                "unknown progress `{other}`: it is auto, plain, tty, quiet or rawjson"
            )));
        }
    })
}

fn request(args: &BuildArgs) -> Result<BuildRequest, CmdError> {
    let parse_name = |name: &String| {
        Reference::parse(name)
            .map_err(|error| CmdError::new(error).while_doing(format!("invalid tag `{name}`")))
    };
    let mut build_args = Vec::new();
    for file in &args.build_arg_files {
        let text = std::fs::read_to_string(file)
            .map_err(|error| CmdError::new(error).while_doing(format!("cannot read `{}`", file.display())))?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        build_args.extend(lines.map(build_arg).collect::<Result<Vec<_>, _>>()?);
    }
    for text in &args.build_args {
        build_args.push(build_arg(text)?);
    }
    let pull = args.pull.as_deref().unwrap_or("missing");
    if !["always", "true", "newer", "missing", "ifnotpresent", "false", "never"].contains(&pull) {
        return Err(CmdError::usage(format!("unknown pull policy `{pull}`: it is always, missing or never")));
    }
    build_args.extend(args.changes.epoch());
    let mut outputs = output::Outputs::parse(&args.outputs, args.push, args.load, &args.annotations)?;
    outputs.layers(&args.changes.layers()?);
    let manifest = args.changes.manifest()?;
    if manifest.is_some() && !outputs.to_store() {
        return Err(CmdError::usage("--manifest needs the image in the store, and --output says otherwise")
            .with_hint("add --load"));
    }
    Ok(BuildRequest {
        context: context(&args.context)?,
        files: args.files.clone(),
        ignore_file: args.ignorefile.clone(),
        names: args.tags.iter().map(parse_name).collect::<Result<_, _>>()?,
        target: args.target.clone().filter(|target| !target.is_empty()),
        build_args,
        named_contexts: args
            .build_contexts
            .iter()
            .map(|text| named_context(text))
            .collect::<Result<_, _>>()?,
        labels: args.labels.iter().map(|text| pair(text)).collect(),
        no_cache: args.no_cache == Some(true),
        no_cache_stages: args.no_cache_stages.clone(),
        pull: matches!(pull, "always" | "true" | "newer"),
        offline: pull == "never",
        network: network(args.network.as_deref())?,
        platforms: args.changes.platforms(&args.platform)?,
        outputs: outputs.outputs,
        annotations: outputs.annotations,
        index_annotations: outputs.index_annotations,
        docker_types: docker_types(args.format.as_deref())?,
        secrets: args.secrets.iter().map(|text| secret(text)).collect::<Result<_, _>>()?,
        ssh: args.ssh.iter().map(|text| ssh(text)).collect::<Result<_, _>>()?,
        add_hosts: args.add_hosts.iter().map(|text| add_host(text)).collect::<Result<_, _>>()?,
        shm_size: match args.shm_size.as_deref() {
            None => SHM_SIZE,
            Some(text) => {
                size(text).ok_or_else(|| CmdError::usage(format!("invalid size `{text}`: use 64m or 1g")))?
            }
        },
        rlimits: args.ulimits.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?,
        manifest,
        first_base: args.changes.from.clone(),
        env: args.changes.env(),
        unset_env: args.changes.unset_env.clone(),
        unset_labels: args.changes.unset_labels.clone(),
        dns: args.changes.dns()?,
        proxies: args.changes.http_proxy == Some(true),
        remote: args.registry.options(&args.retry)?,
    })
}
