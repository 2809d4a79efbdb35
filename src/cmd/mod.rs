//! Floor 6: the command line. Each verb: arguments → request → one call into `ops` → what to print.
//!
//! A group of verbs is one file. A verb there is an arguments struct and a function
//! `fn verb(cx: &mut Context, ui: &mut Ui, args: VerbArgs) -> CmdResult`; the tables in `verbs.rs` name them all and
//! say what each needs. A function returns its exit code, or any error by `?`: [`CmdError`] takes them all.

mod archive;
mod build;
mod build_call;
mod check;
mod complete;
mod container;
mod copy;
mod disk;
mod error;
mod image;
mod imagetools;
mod import_store;
mod man;
mod manifest;
mod progress;
mod prune;
mod registry;
mod remote;
mod reset;
mod sides;
mod sync;
mod system;
mod verbs;
mod volume;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, Parser, ValueEnum};

use crate::context::{Context, GlobalOptions};
use crate::ops::enter;
use crate::ui::{self, Ui};
use verbs::{Needs, Verb};

pub use error::CmdError;

/// What a verb function returns: the exit code of success, or an error that knows its own.
pub type CmdResult = Result<u8, CmdError>;

/// Pull, build, run, commit and push OCI images without a daemon and without root
#[derive(Debug, Parser)]
#[command(
    name = "strate",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    disable_version_flag = true,
    arg_required_else_help = true,
    max_term_width = 110,
    after_help = "`strate VERB --help` says more about a verb. `strate doctor` checks this host."
)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

/// Options that every verb takes, before or after its name.
#[derive(Debug, clap::Args)]
struct GlobalArgs {
    /// Where images and containers are kept
    #[arg(long, value_name = "DIR", global = true, help_heading = "Global options")]
    root: Option<PathBuf>,
    /// Read images of this store too, without copying them; may be given several times
    #[arg(long, value_name = "DIR", global = true, help_heading = "Global options", hide_short_help = true)]
    imagestore: Vec<PathBuf>,
    /// Print what happens, step by step
    #[arg(long, short = 'D', global = true, help_heading = "Global options")]
    debug: bool,
    /// Take just this rung of the user namespace ladder
    #[arg(long, value_name = "RUNG", global = true, help_heading = "Global options", hide_short_help = true)]
    userns_mode: Option<UsernsMode>,
    /// Make root file systems just this way
    #[arg(
        long,
        value_name = "METHOD",
        global = true,
        help_heading = "Global options",
        hide_short_help = true
    )]
    layering: Option<Layering>,
    /// How what is done is made to outlive a power cut
    #[arg(long, value_name = "MODE", global = true, help_heading = "Global options", hide_short_help = true)]
    sync: Option<Sync>,
    /// Fail when a process that holds a lock does nothing for so many seconds; `none` waits for ever [default: 60]
    #[arg(
        long,
        value_name = "SECONDS",
        value_parser = lock_timeout,
        global = true,
        help_heading = "Global options",
        hide_short_help = true
    )]
    lock_timeout: Option<String>,
    /// Mirrors to ask first, of docker.io or of another registry: [REGISTRY=]URL
    #[arg(
        long,
        value_name = "URL",
        global = true,
        value_delimiter = ',',
        help_heading = "Global options",
        hide_short_help = true
    )]
    registry_mirror: Vec<String>,
    /// Registry settings from this file alone, instead of registries.conf
    #[arg(long, value_name = "FILE", global = true, help_heading = "Global options", hide_short_help = true)]
    registries_conf: Option<PathBuf>,
    /// Which images are let in, instead of policy.json
    #[arg(long, value_name = "FILE", global = true, help_heading = "Global options", hide_short_help = true)]
    signature_policy: Option<PathBuf>,
    /// Let every image in, whatever policy.json says
    #[arg(
        long,
        global = true,
        conflicts_with = "signature_policy",
        help_heading = "Global options",
        hide_short_help = true
    )]
    insecure_policy: bool,
    /// Directory of docker's config.json, for credentials
    #[arg(long, value_name = "DIR", help_heading = "Global options", hide_short_help = true)]
    config: Option<PathBuf>,
    /// Accepted for docker's sake: there is no daemon
    #[arg(long, short = 'H', value_name = "HOST", hide = true)]
    host: Option<String>,
    /// Accepted for docker's sake: there is one context
    #[arg(long, short = 'c', value_name = "NAME", hide = true)]
    context: Option<String>,
    /// `debug` is the same as --debug
    #[arg(long, short = 'l', value_name = "LEVEL", hide = true)]
    log_level: Option<String>,
    /// Print the version
    #[arg(long, short = 'v', action = ArgAction::Version)]
    version: Option<bool>,
}

/// `--userns-mode`
#[derive(Debug, Clone, Copy, ValueEnum)]
enum UsernsMode {
    /// Root's own rights
    Root,
    /// A namespace with the user's subordinate ids
    Full,
    /// A namespace with one id
    Single,
    /// No isolation: everything but RUN and run
    None,
}

impl UsernsMode {
    fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Full => "full",
            Self::Single => "single",
            Self::None => "none",
        }
    }
}

/// `--layering`
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Layering {
    /// The kernel's overlay file system
    Overlay,
    /// A full copy
    Copy,
}

impl Layering {
    fn name(self) -> &'static str {
        match self {
            Self::Overlay => "overlay",
            Self::Copy => "copy",
        }
    }
}

/// `--sync`
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sync {
    /// Each file is on disk before anything points to it
    Fsync,
    /// The whole file system at once, before a name is moved
    Syncfs,
    /// Not at all: for stores that are thrown away
    None,
}

impl Sync {
    fn name(self) -> &'static str {
        match self {
            Self::Fsync => "fsync",
            Self::Syncfs => "syncfs",
            Self::None => "none",
        }
    }
}

/// Seconds, or `none`.
fn lock_timeout(text: &str) -> Result<String, String> {
    let good = text == "none" || text.parse::<u32>().is_ok();
    good.then(|| text.to_owned()).ok_or_else(|| "give a number of seconds, or `none`".to_owned())
}

/// Run a command line, program name included.
#[must_use]
pub fn main(args: Vec<OsString>) -> ExitCode {
    ui::crash::install(env!("CARGO_PKG_VERSION"));
    let mut ui = Ui::new();
    if complete::answer(&mut ui, &args) {
        return end(&mut ui, Ok(0), 1);
    }
    let usage_code = if ends_with_125(&args) { 125 } else { 2 };
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        // Help and the version are a result like any other.
        Err(error) if error.exit_code() == 0 => {
            ui.printed_by(|| error.print());
            return end(&mut ui, Ok(0), 1);
        }
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(usage_code);
        }
    };
    let failure_code = cli.verb.failure_code();
    let result = run(cli, &mut ui);
    end(&mut ui, result, failure_code)
}

/// Say what failed, a result that could not be printed too, and turn it into the exit code.
fn end(ui: &mut Ui, result: CmdResult, failure_code: u8) -> ExitCode {
    let printed = ui.check_stdout().map(|()| 0).map_err(CmdError::from);
    let mut code = 0;
    for result in [result, printed] {
        let own = result.unwrap_or_else(|error| {
            let error = error.or_exit_code(failure_code);
            if let Some(report) = error.report() {
                ui.error(&report);
            }
            error.exit_code()
        });
        code = if code == 0 { own } else { code };
    }
    ExitCode::from(code)
}

/// The command line as clap sees it, for completion and the manual.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

fn run(cli: Cli, ui: &mut Ui) -> CmdResult {
    let GlobalArgs {
        root,
        debug,
        userns_mode,
        layering,
        sync,
        lock_timeout,
        config,
        host,
        context,
        log_level,
        ..
    } = cli.global;
    let debug = debug || matches!(log_level.as_deref(), Some("debug" | "trace"));
    let mut cx = Context::gather(&GlobalOptions { root, debug })?;
    cx.tell_to(|text| Ui::new().note(text));
    if let Some(config) = config {
        cx.env.insert("DOCKER_CONFIG".to_owned(), config.to_string_lossy().into_owned());
    }
    let mirrors = cli.global.registry_mirror.join(",");
    set(&mut cx, "STRATE_REGISTRY_MIRROR", Some(mirrors.as_str()).filter(|list| !list.is_empty()));
    let absolute = |path: &PathBuf| cx.cwd.join(path).to_string_lossy().into_owned();
    let registries_conf = cli.global.registries_conf.as_ref().map(absolute);
    let policy = cli.global.signature_policy.as_ref().map(absolute);
    let stores: Vec<String> = cli.global.imagestore.iter().map(absolute).collect();
    set(&mut cx, "STRATE_IMAGESTORE", Some(stores.join(":").as_str()).filter(|list| !list.is_empty()));
    set(&mut cx, "CONTAINERS_REGISTRIES_CONF", registries_conf.as_deref());
    set(&mut cx, "STRATE_SIGNATURE_POLICY", policy.as_deref());
    set(&mut cx, "STRATE_INSECURE_POLICY", cli.global.insecure_policy.then_some("1"));
    set(&mut cx, "STRATE_USERNS_MODE", userns_mode.map(UsernsMode::name));
    set(&mut cx, "STRATE_LAYERING", layering.map(Layering::name));
    set(&mut cx, "STRATE_SYNC", sync.map(Sync::name));
    if let Some(unknown) = crate::ops::store::choose_sync_mode(&cx) {
        let unknown = unknown.escape_debug();
        ui.warn(format!("STRATE_SYNC is `{unknown}` and not one of fsync, syncfs and none: fsync it is"));
    }
    set(&mut cx, "STRATE_LOCK_TIMEOUT", lock_timeout.as_deref());
    if host.is_some() || cx.var("DOCKER_HOST").is_some() {
        ui.warn(
            "DOCKER_HOST and --host are ignored: strate has no daemon and works on this machine's own store",
        );
    }
    if context.is_some_and(|name| name != "default") {
        ui.warn("--context is ignored: strate has no daemon and so one context");
    }
    let needs = cli.verb.needs();
    if needs != Needs::Nothing {
        let entry = cli.verb.entry(&cx);
        entry.enter(&mut cx)?;
    }
    if let Some(notice) = enter::notice(&cx).filter(|_| needs == Needs::UserNamespace) {
        ui.note(notice);
    }
    cli.verb.run(&mut cx, ui)
}

/// An option wins over the environment variable of the same meaning.
fn set(cx: &mut Context, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        cx.env.insert(name.to_owned(), value.to_owned());
    }
}

/// Whether wrong usage of this command line ends with docker's 125 and not with 2: `run`, `create` and `exec`, whose
/// lower codes are the program's.
fn ends_with_125(args: &[OsString]) -> bool {
    const TAKES_VALUE: [&str; 15] = [
        "--root",
        "--imagestore",
        "--lock-timeout",
        "--userns-mode",
        "--layering",
        "--sync",
        "--registry-mirror",
        "--registries-conf",
        "--signature-policy",
        "--config",
        "--host",
        "-H",
        "--context",
        "-c",
        "--log-level",
    ];
    let mut words = args.iter().skip(1).map(OsString::as_os_str);
    let mut verb = || {
        while let Some(word) = words.next() {
            if TAKES_VALUE.iter().any(|option| word == OsStr::new(option)) {
                words.next();
            } else if !word.as_encoded_bytes().starts_with(b"-") {
                return word.to_str();
            }
        }
        None
    };
    match verb() {
        Some("container") => matches!(verb(), Some("run" | "create" | "exec")),
        first => matches!(first, Some("run" | "create" | "exec")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn wrong_usage_of_run_is_125() {
        for (line, expected) in [
            ("strate run --nonsense", true),
            ("strate --root /x run --nonsense", true),
            ("strate --root=/x -D container exec", true),
            ("strate container ls run", false),
            ("strate --root run images", false),
            ("strate", false),
        ] {
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(ends_with_125(&args), expected, "{line}");
        }
    }
}
