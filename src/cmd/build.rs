//! The build verb.

mod output;

use std::path::{Path, PathBuf};

use clap::Args;

use super::build_call::Call;
use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::image::Silent;
use crate::oci::{Platform, Reference};
use crate::ops::build::{
    self as op, BuildRequest, BuiltImage, ContextSource, Error, Network, SecretSource, SshSource,
};
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
    #[arg(long, value_name = "METHOD", conflicts_with = "check")]
    call: Option<String>,
    #[command(flatten)]
    accepted: Accepted,
    #[command(flatten)]
    refused: Refused,
}

/// Flags that change nothing here.
#[derive(Debug, Args)]
#[command(next_help_heading = "Accepted for docker's sake")]
struct Accepted {
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    force_rm: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    layers: Option<bool>,
    #[arg(long, hide = true)]
    builder: Option<String>,
    #[arg(long, hide = true)]
    allow: Vec<String>,
    #[arg(long, hide = true)]
    isolation: Option<String>,
    #[arg(long, hide = true)]
    jobs: Option<u32>,
    #[arg(long, hide = true)]
    compress: bool,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
}

/// Flags that only cost speed or limits when they have no effect (said once), and flags that would change the result.
#[derive(Debug, Args)]
struct Refused {
    #[arg(long, hide = true)]
    cache_from: Vec<String>,
    #[arg(long, hide = true)]
    cache_to: Vec<String>,
    #[arg(short = 'm', long, hide = true)]
    memory: Option<String>,
    #[arg(long, hide = true)]
    memory_swap: Option<String>,
    #[arg(long, hide = true)]
    cpu_shares: Option<String>,
    #[arg(long, hide = true)]
    cpu_period: Option<String>,
    #[arg(long, hide = true)]
    cpu_quota: Option<String>,
    #[arg(long, hide = true)]
    cpuset_cpus: Option<String>,
    #[arg(long, hide = true)]
    cpuset_mems: Option<String>,
    #[arg(long, hide = true)]
    cgroup_parent: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    provenance: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    sbom: Option<String>,
    #[arg(long, hide = true)]
    attest: Vec<String>,
    #[arg(long, hide = true)]
    squash: bool,
    #[arg(long, hide = true)]
    squash_all: bool,
    #[arg(short = 'v', long, hide = true)]
    volume: Vec<String>,
    #[arg(long, hide = true)]
    device: Vec<String>,
    #[arg(long, hide = true)]
    cap_add: Vec<String>,
    #[arg(long, hide = true)]
    cap_drop: Vec<String>,
    #[arg(long, hide = true)]
    security_opt: Vec<String>,
    #[arg(long, hide = true)]
    manifest: Option<String>,
    #[arg(long, hide = true)]
    from: Option<String>,
    #[arg(long, hide = true)]
    timestamp: Option<String>,
    #[arg(long, hide = true)]
    rewrite_timestamp: bool,
}

impl Refused {
    /// The flags that were given and have no effect.
    fn without_effect(&self) -> Vec<&'static str> {
        let off = |value: &Option<String>| value.as_ref().is_none_or(|value| value == "false");
        let given = [
            ("--cache-from", !self.cache_from.is_empty()),
            ("--cache-to", !self.cache_to.is_empty()),
            ("--memory", self.memory.is_some()),
            ("--memory-swap", self.memory_swap.is_some()),
            ("--cpu-shares", self.cpu_shares.is_some()),
            ("--cpu-period", self.cpu_period.is_some()),
            ("--cpu-quota", self.cpu_quota.is_some()),
            ("--cpuset-cpus", self.cpuset_cpus.is_some()),
            ("--cpuset-mems", self.cpuset_mems.is_some()),
            ("--cgroup-parent", self.cgroup_parent.is_some()),
            ("--provenance", !off(&self.provenance)),
            ("--sbom", !off(&self.sbom)),
        ];
        given.into_iter().filter_map(|(flag, given)| given.then_some(flag)).collect()
    }

    /// The first flag that was given and that the result would lack.
    fn first_unsupported(&self) -> Option<&'static str> {
        let given = [
            ("--attest", !self.attest.is_empty()),
            ("--squash", self.squash),
            ("--squash-all", self.squash_all),
            ("--volume", !self.volume.is_empty()),
            ("--device", !self.device.is_empty()),
            ("--cap-add", !self.cap_add.is_empty()),
            ("--cap-drop", !self.cap_drop.is_empty()),
            ("--security-opt", !self.security_opt.is_empty()),
            ("--manifest", self.manifest.is_some()),
            ("--from", self.from.is_some()),
            ("--timestamp", self.timestamp.is_some()),
            ("--rewrite-timestamp", self.rewrite_timestamp),
        ];
        given.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }
}

/// `strate build`
pub(super) fn build(cx: &mut Context, ui: &mut Ui, args: BuildArgs) -> CmdResult {
    if let Some(flag) = args.refused.first_unsupported() {
        return Err(CmdError::usage(format!(
            "{flag} is not supported yet, and without it the result would differ"
        )));
    }
    for flag in args.refused.without_effect() {
        ui.warn(format_args!("{flag} has no effect"));
    }
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
    let outputs = output::Outputs::parse(&args.outputs, args.push, args.load, &args.annotations)?;
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
        platforms: platforms(&args.platform)?,
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
    })
}

fn context(text: &str) -> Result<ContextSource, CmdError> {
    ContextSource::parse(text)
        .map_err(|error| CmdError::new(error).while_doing(format!("invalid context `{text}`")))
}

fn build_arg(text: &str) -> Result<(String, Option<String>), CmdError> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    if name.is_empty() {
        return Err(CmdError::usage(format!("invalid build argument `{text}`: it has no name")));
    }
    Ok((name.to_owned(), value))
}

fn named_context(text: &str) -> Result<(String, op::NamedContext), CmdError> {
    let wrong = |what: String| CmdError::usage(format!("invalid context `{text}`: {what}"));
    let (name, value) = text.split_once('=').ok_or_else(|| wrong("it is name=context".into()))?;
    if name.is_empty() {
        return Err(wrong("it has no name".into()));
    }
    let context = op::named_context(value).map_err(|error| wrong(error.to_string()))?;
    Ok((name.to_owned(), context))
}

fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (key.to_owned(), value.to_owned())
}

fn network(text: Option<&str>) -> Result<Network, CmdError> {
    match text {
        None | Some("default" | "host" | "") => Ok(Network::Host),
        Some("none") => Ok(Network::None),
        Some(other) => Err(CmdError::usage(format!(
            "network mode `{other}` is not supported: it is default, host or none"
        ))),
    }
}

fn platforms(texts: &[String]) -> Result<Vec<Platform>, CmdError> {
    let mut all: Vec<Platform> = Vec::new();
    for text in texts.iter().map(|text| text.trim()).filter(|text| !text.is_empty()) {
        let platform = match text {
            "local" => Platform::host(),
            text => text.parse().map_err(CmdError::new)?,
        };
        if !all.contains(&platform) {
            all.push(platform);
        }
    }
    Ok(all)
}

fn docker_types(format: Option<&str>) -> Result<bool, CmdError> {
    match format {
        None | Some("oci") => Ok(false),
        Some("docker") => Ok(true),
        Some(other) => Err(CmdError::usage(format!("unknown format `{other}`: it is oci or docker"))),
    }
}

fn secret(text: &str) -> Result<SecretSource, CmdError> {
    let wrong = |what: &str| CmdError::usage(format!("invalid secret `{text}`: {what}"));
    let (mut id, mut file, mut env, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| wrong("its fields are key=value"))?;
        match key.to_ascii_lowercase().as_str() {
            "id" => id = Some(value.to_owned()),
            "src" | "source" => file = Some(value.to_owned()),
            "env" => env = Some(value.to_owned()),
            "type" if matches!(value, "file" | "env") => kind = Some(value.to_owned()),
            "type" => return Err(wrong("its type is file or env")),
            _ => return Err(wrong("it has an unknown field")),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| wrong("it has no id"))?;
    match kind.as_deref() {
        Some("env") => env = env.or(file.take()).or(Some(id.clone())),
        Some(_) => file = file.or(Some(id.clone())),
        None => {}
    }
    Ok(SecretSource { id, file: file.map(PathBuf::from), env })
}

fn ssh(text: &str) -> Result<SshSource, CmdError> {
    let wrong = |what: &str| CmdError::usage(format!("invalid ssh agent `{text}`: {what}"));
    let (id, paths) = text.split_once('=').map_or((text, None), |(id, paths)| (id, Some(paths)));
    if id.is_empty() {
        return Err(wrong("it is id[=socket|key[,key]]"));
    }
    let paths: Vec<PathBuf> =
        paths.into_iter().flat_map(|paths| paths.split(',')).map(PathBuf::from).collect();
    if paths.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(wrong("a path is empty"));
    }
    Ok(SshSource { id: id.to_owned(), paths })
}

fn add_host(text: &str) -> Result<(String, String), CmdError> {
    let at = text.find(['=', ':']);
    let (name, address) = at
        .map(|at| (&text[..at], &text[at + 1..]))
        .filter(|(name, address)| !name.is_empty() && !address.is_empty())
        .ok_or_else(|| CmdError::usage(format!("invalid host `{text}`: it is name:address")))?;
    let address = address.trim_start_matches('[').trim_end_matches(']');
    let address = if address == "host-gateway" { "127.0.0.1" } else { address };
    if address.parse::<std::net::IpAddr>().is_err() {
        return Err(CmdError::usage(format!("invalid host `{text}`: `{address}` is no address")));
    }
    Ok((name.to_owned(), address.to_owned()))
}

/// A size with a binary suffix.
fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, shift) = match lower.strip_suffix(['k', 'm', 'g', 't']) {
        Some(digits) => (digits, 10 * (1 + "kmgt".find(&lower[digits.len()..]).unwrap_or(0))),
        None => (lower, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn ulimit(text: &str) -> Result<(String, u64, u64), CmdError> {
    let wrong = || CmdError::usage(format!("invalid limit `{text}`: it is name=soft[:hard]"));
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let number = |text: &str| if text == "-1" { Some(u64::MAX) } else { text.parse().ok() };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (number(soft).ok_or_else(wrong)?, number(hard).ok_or_else(wrong)?);
    if soft > hard {
        return Err(CmdError::usage(format!("invalid limit `{text}`: soft is above hard")));
    }
    Ok((format!("RLIMIT_{}", name.to_ascii_uppercase()), soft, hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets() {
        let source = |file: Option<&str>, env: Option<&str>| SecretSource {
            id: "a".into(),
            file: file.map(PathBuf::from),
            env: env.map(str::to_owned),
        };
        for (text, expected) in [
            ("id=a,src=/f", source(Some("/f"), None)),
            ("id=a,env=E", source(None, Some("E"))),
            ("id=a", source(None, None)),
            ("type=file,id=a,source=x", source(Some("x"), None)),
            ("type=env,id=a", source(None, Some("a"))),
        ] {
            assert_eq!(secret(text).unwrap(), expected, "{text}");
        }
        for bad in ["a", "src=x", "id=", "id=a,x=y", "id=a,type=z"] {
            assert!(secret(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn agents() {
        let source = |id: &str, paths: &[&str]| SshSource {
            id: id.into(),
            paths: paths.iter().map(PathBuf::from).collect(),
        };
        assert_eq!(ssh("default").unwrap(), source("default", &[]));
        assert_eq!(ssh("a=/k,l").unwrap(), source("a", &["/k", "l"]));
        for bad in ["", "=/s", "a=", "a=/s,"] {
            assert!(ssh(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn small_values() {
        assert_eq!(
            (size("64m"), size("1g"), size("7"), size("x")),
            (Some(64 << 20), Some(1 << 30), Some(7), None)
        );
        assert_eq!(ulimit("nofile=1:2").unwrap(), ("RLIMIT_NOFILE".into(), 1, 2));
        assert!(ulimit("nofile=2:1").is_err() && ulimit("nofile").is_err());
        assert_eq!(add_host("h:10.0.0.1").unwrap(), ("h".into(), "10.0.0.1".into()));
        assert_eq!(add_host("h=[::1]").unwrap(), ("h".into(), "::1".into()));
        assert!(add_host("h").is_err() && add_host("h:x").is_err());
        assert!(build_arg("=x").is_err());
        assert!(context("https://x/y.git#-x").is_err() && named_context("a=target:b").is_err());
    }
}
