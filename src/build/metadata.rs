//! Instructions that only change the image's config, as pure functions on it, and the config a stage starts from.

use super::ast::{ArgPair, Command, HealthcheckInstruction, Instruction};
use super::expand::ExpandError;
use super::history;
use super::pattern::clean;
use super::ports::{self, PortError};
use super::scope::{DEFAULT_PATH, Scope};
use crate::oci::{Healthcheck, ImageConfig, Platform};

/// The history entry of an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryText {
    /// `created_by`
    pub created_by: String,
    /// Whether the instruction makes no layer.
    pub empty_layer: bool,
}

/// Why an instruction cannot be applied, in BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// A word cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// EXPOSE of something that is no port.
    #[error(transparent)]
    Port(#[from] PortError),
    /// STOPSIGNAL of something that is no signal.
    #[error("invalid signal: {0}")]
    Signal(String),
    /// VOLUME of nothing.
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
}

/// The config of `FROM scratch`.
#[must_use]
pub fn scratch_config(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig::empty(platform);
    config.config.env.push(format!("PATH={DEFAULT_PATH}"));
    config.config.working_dir = "/".into();
    config
}

/// The config of a stage based on an image, and the image's ONBUILD triggers, which leave the config.
///
/// Keys that are not modelled are dropped, and a missing PATH is added, as BuildKit does.
#[must_use]
pub fn inherit(mut base: ImageConfig) -> (ImageConfig, Vec<String>) {
    base.created = None;
    base.extra.clear();
    base.config.extra.clear();
    if base.config.env_value("PATH").is_none() {
        base.config.env.push(format!("PATH={DEFAULT_PATH}"));
    }
    let triggers = std::mem::take(&mut base.config.on_build);
    (base, triggers)
}

/// Where `requested` leads from the working directory `current`: absolute paths as written, others joined.
#[must_use]
pub fn join_workdir(current: &str, requested: &str) -> String {
    if requested.starts_with('/') { requested.to_owned() } else { clean(&format!("/{current}/{requested}")) }
}

/// The argument vector of a command: text is wrapped in the SHELL in force.
#[must_use]
pub fn argv(command: &Command, config: &ImageConfig) -> Vec<String> {
    match command {
        Command::Exec(argv) => argv.clone(),
        Command::Shell(text) => in_shell(text, config),
    }
}

/// `text` as the last argument of the SHELL in force.
#[must_use]
pub fn in_shell(text: &str, config: &ImageConfig) -> Vec<String> {
    let mut argv = match &config.config.shell {
        Some(shell) if !shell.is_empty() => shell.clone(),
        _ => vec!["/bin/sh".into(), "-c".into()],
    };
    argv.push(text.to_owned());
    argv
}

/// Apply `instruction` to the config and the scope. `None` when it leaves no history entry of this kind: ONBUILD, and
/// RUN, COPY and ADD, which are not metadata. For WORKDIR the directory is still to be made unless the layer is empty.
///
/// # Errors
/// When a word cannot be expanded or a value breaks the instruction's rules.
pub fn apply(
    config: &mut ImageConfig,
    instruction: &Instruction,
    scope: &mut Scope,
) -> Result<Option<HistoryText>, MetadataError> {
    let created_by = match instruction {
        Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) => return Ok(None),
        Instruction::Env(pairs) => env(config, pairs, scope)?,
        Instruction::Label(pairs) => label(config, pairs, scope)?,
        Instruction::Arg(pairs) => arg(pairs, scope)?,
        Instruction::Workdir(path) => return Ok(Some(workdir(config, path, scope)?)),
        Instruction::User(user) => {
            config.config.user = scope.expand(user)?;
            format!("USER {}", config.config.user)
        }
        Instruction::Expose(specs) => expose(config, specs, scope)?,
        Instruction::Volume(paths) => volume(config, paths, scope)?,
        Instruction::Cmd(command) => {
            let argv = argv(command, config);
            let text = history::quoted("CMD", &argv);
            config.config.cmd = Some(argv);
            config.config.args_escaped = true;
            scope.cmd_set = true;
            text
        }
        Instruction::Entrypoint(command) => entrypoint(config, command, scope),
        Instruction::Shell(argv) => {
            config.config.shell = Some(argv.clone());
            history::listed("SHELL", argv)
        }
        Instruction::StopSignal(signal) => {
            let signal = scope.expand(signal)?;
            if !is_signal(&signal) {
                return Err(MetadataError::Signal(signal));
            }
            let text = format!("STOPSIGNAL {signal}");
            config.config.stop_signal = Some(signal);
            text
        }
        Instruction::Healthcheck(check) => {
            let check = healthcheck(check);
            let text = history::healthcheck(&check);
            config.config.healthcheck = Some(check);
            text
        }
        Instruction::OnBuild(trigger) => {
            config.config.on_build.push(trigger.clone());
            return Ok(None);
        }
        Instruction::Maintainer(name) => {
            config.author = Some(name.clone());
            format!("MAINTAINER {name}")
        }
    };
    Ok(Some(HistoryText { created_by, empty_layer: true }))
}

/// Expand all pairs first: values see the environment from before the instruction.
fn expanded(pairs: &[(String, String)], scope: &mut Scope) -> Result<Vec<(String, String)>, ExpandError> {
    pairs.iter().map(|(key, value)| Ok((scope.expand(key)?, scope.expand(value)?))).collect()
}

fn env(
    config: &mut ImageConfig,
    pairs: &[(String, String)],
    scope: &mut Scope,
) -> Result<String, MetadataError> {
    let pairs = expanded(pairs, scope)?;
    for (key, value) in &pairs {
        scope.set_env(key, value);
        config.config.set_env(key, value);
    }
    Ok(history::pairs("ENV", &pairs))
}

fn label(
    config: &mut ImageConfig,
    pairs: &[(String, String)],
    scope: &mut Scope,
) -> Result<String, MetadataError> {
    let pairs = expanded(pairs, scope)?;
    config.config.labels.extend(pairs.iter().cloned());
    Ok(history::pairs("LABEL", &pairs))
}

fn arg(pairs: &[ArgPair], scope: &mut Scope) -> Result<String, MetadataError> {
    let mut text = String::from("ARG");
    for pair in pairs {
        let value = scope.declare_arg(pair)?;
        text.push(' ');
        text.push_str(&pair.name);
        if let Some(value) = value {
            text.push('=');
            text.push_str(&value);
        }
    }
    Ok(text)
}

fn workdir(config: &mut ImageConfig, path: &str, scope: &mut Scope) -> Result<HistoryText, MetadataError> {
    let path = join_workdir(&config.config.working_dir, &scope.expand(path)?);
    config.config.working_dir.clone_from(&path);
    Ok(HistoryText { created_by: format!("WORKDIR {path}"), empty_layer: path == "/" })
}

fn expose(config: &mut ImageConfig, specs: &[String], scope: &mut Scope) -> Result<String, MetadataError> {
    let mut ports: Vec<String> = Vec::new();
    for spec in specs {
        for spec in scope.expand_words(spec)? {
            ports.extend(ports::parse(&spec)?);
        }
    }
    config.config.exposed_ports.extend(ports.iter().map(|port| (port.clone(), Default::default())));
    Ok(history::listed("EXPOSE", &ports))
}

fn volume(config: &mut ImageConfig, paths: &[String], scope: &mut Scope) -> Result<String, MetadataError> {
    let paths = paths.iter().map(|path| scope.expand(path)).collect::<Result<Vec<String>, _>>()?;
    if paths.iter().any(String::is_empty) {
        return Err(MetadataError::EmptyVolume);
    }
    config.config.volumes.extend(paths.iter().map(|path| (path.clone(), Default::default())));
    Ok(history::listed("VOLUME", &paths))
}

/// A CMD of the base does not fit a new ENTRYPOINT and goes; one of this stage stays.
fn entrypoint(config: &mut ImageConfig, command: &Command, scope: &Scope) -> String {
    let argv = argv(command, config);
    let text = history::quoted("ENTRYPOINT", &argv);
    config.config.entrypoint = Some(argv).filter(|argv| !argv.is_empty());
    if !scope.cmd_set {
        config.config.cmd = None;
    }
    text
}

fn healthcheck(check: &HealthcheckInstruction) -> Healthcheck {
    match check {
        HealthcheckInstruction::None => Healthcheck { test: vec!["NONE".into()], ..Healthcheck::default() },
        HealthcheckInstruction::Cmd { command, interval, timeout, start_period, start_interval, retries } => {
            let test = match command {
                Command::Exec(argv) => {
                    std::iter::once("CMD").chain(argv.iter().map(String::as_str)).collect()
                }
                Command::Shell(text) => vec!["CMD-SHELL", text],
            };
            Healthcheck {
                test: test.into_iter().map(str::to_owned).collect(),
                interval: *interval,
                timeout: *timeout,
                start_period: *start_period,
                start_interval: *start_interval,
                retries: *retries,
            }
        }
    }
}

const SIGNALS: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE",
    "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU",
    "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// A number other than 0, or a name with or without `SIG`, in any case.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |rest: &str, last: u32| {
        rest.parse::<u32>().is_ok_and(|n| (1..=last).contains(&n) && n.to_string() == rest)
    };
    SIGNALS.contains(&name)
        || name.strip_prefix("RTMIN+").is_some_and(|rest| offset(rest, 15))
        || name.strip_prefix("RTMAX-").is_some_and(|rest| offset(rest, 14))
}

#[cfg(test)]
mod tests;
