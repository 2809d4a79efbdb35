//! `run`, `create`, `start`, `exec`.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::flags::{ContainerFlags, Starts};
use super::which::{Chosen, is_up};
use super::{each, failed, readable, show, writable};
use crate::cmd::{CmdError, CmdResult, registry};
use crate::context::Context;
use crate::image::BoxError;
use crate::oci::{Platform, Reference};
use crate::ops;
use crate::ops::attach::Wanted;
use crate::ops::container::attend::keys::DetachKeys;
use crate::ops::container::{Error, values};
use crate::ops::create::{Created, Request};
use crate::ops::enter::Entry;
use crate::ops::pull::{PullPolicy, PullRequest};
use crate::ops::remote::{self, RemoteOptions};
use crate::ops::start::{Foreground, Outcome};
use crate::ops::store::Store;
use crate::ui::Ui;

/// Arguments of `run`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, override_usage = "strate run [OPTIONS] IMAGE [COMMAND] [ARG]...")]
pub(in crate::cmd) struct RunArgs {
    /// Run in the background and print the container's id
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    detach: bool,
    /// Pass signals on to the program
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = true, action = ArgAction::Set, hide_possible_values = true)]
    sig_proxy: bool,
    /// The keys that leave the container running: ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    #[command(flatten)]
    flags: ContainerFlags,
}

impl RunArgs {
    /// The user namespace to enter.
    pub(in crate::cmd) fn entry(&self, cx: &Context) -> Entry {
        self.flags.entry(cx)
    }
}

/// Arguments of `create`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, override_usage = "strate create [OPTIONS] IMAGE [COMMAND] [ARG]...")]
pub(in crate::cmd) struct CreateArgs {
    #[command(flatten)]
    flags: ContainerFlags,
}

impl CreateArgs {
    /// The user namespace to enter.
    pub(in crate::cmd) fn entry(&self, cx: &Context) -> Entry {
        self.flags.entry(cx)
    }
}

/// What creating needs from the command line: pulls with their progress, remarks.
struct Helper<'a> {
    ui: &'a mut Ui,
    cx: &'a Context,
    quiet: bool,
    /// How a pull failed, with its hints.
    failure: Option<CmdError>,
}

impl ops::create::Helper for Helper<'_> {
    fn pull(&mut self, image: &str, platform: Option<&Platform>, policy: PullPolicy) -> Result<(), BoxError> {
        let request = PullRequest {
            all_platforms: false,
            reference: Reference::parse(image)?,
            platform: platform.cloned(),
            policy,
            remote: RemoteOptions::default(),
        };
        match registry::pull_for(self.cx, self.ui, &request, self.quiet) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.failure = Some(error);
                Err(Box::new(Error::ImageNotHere(image.into())))
            }
        }
    }

    fn note(&mut self, text: &str) {
        if !self.quiet {
            self.ui.note(text);
        }
    }
}

/// Make a container, with what went wrong in docker's codes.
fn make(
    cx: &Context,
    ui: &mut Ui,
    store: &Store,
    mut request: Request,
    quiet: bool,
) -> Result<Created, CmdError> {
    // An id or a wrong name is for the lookup to judge.
    if store.find_image(&request.image).is_err() && Reference::parse(&request.image).is_ok() {
        let named =
            remote::name(cx, &request.image).map_err(|error| CmdError::from(error).with_exit_code(125))?;
        if !quiet {
            registry::explain(ui, &request.image, &named);
        }
        if named.alias.is_some() {
            request.image = named.reference.to_string();
        }
    }
    let mut helper = Helper { ui, cx, quiet, failure: None };
    let created = ops::create::create(store, request, &mut helper);
    created.map_err(|error| match helper.failure {
        Some(failure) => failure.with_exit_code(125),
        None => failed(error),
    })
}

/// `strate run`
pub(in crate::cmd) fn run(cx: &mut Context, ui: &mut Ui, args: RunArgs) -> CmdResult {
    let quiet = args.flags.quiet;
    let starts = if args.detach { Starts::Background } else { Starts::Foreground };
    let keys = detach_keys(cx, args.detach_keys.as_deref()).map_err(failed)?;
    let request = args.flags.request(cx, ui, starts).map_err(failed)?;
    let [stdin, ..] = request.overrides.attach.unwrap_or([true; 3]);
    let foreground = !args.detach && stdin && request.overrides.interactive;
    if foreground && request.overrides.tty && !cx.terminals[0] {
        return Err(failed(Error::NotATerminal));
    }
    let store = writable(cx).map_err(failed)?;
    let created = make(cx, ui, &store, request, quiet)?;
    let (id, name) = (created.dir.record.id.clone(), created.dir.record.name.clone());
    let how = Foreground { stdin: true, sig_proxy: args.sig_proxy, keys };
    match ops::start::first(cx, store, created, how).map_err(failed)? {
        Outcome::Ended(code) => Ok(code),
        Outcome::Left => Ok(left(ui, &name)),
        // A new container did not run before.
        Outcome::Detached | Outcome::RanBefore => {
            ui.line(id);
            Ok(0)
        }
    }
}

/// The keys that a flag, the environment or docker's own configuration names.
pub(super) fn detach_keys(cx: &Context, flag: Option<&str>) -> Result<DetachKeys, Error> {
    match flag.or(cx.var("STRATE_DETACH_KEYS")) {
        Some(text) => DetachKeys::parse(text),
        None => ops::attach::configured_keys(cx),
    }
}

/// The user left a program in the foreground.
fn left(ui: &mut Ui, name: &str) -> u8 {
    ui.note(format_args!("left container {name} running: `strate attach {name}` comes back to it"));
    0
}

/// `strate create`
pub(in crate::cmd) fn create(cx: &mut Context, ui: &mut Ui, args: CreateArgs) -> CmdResult {
    let quiet = args.flags.quiet;
    let request = args.flags.request(cx, ui, Starts::Later).map_err(failed)?;
    let store = writable(cx).map_err(failed)?;
    let created = make(cx, ui, &store, request, quiet)?;
    ui.line(&created.dir.record.id);
    Ok(0)
}

/// Arguments of `start`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct StartArgs {
    /// Show the output, pass signals on, and end with the container's exit code
    #[arg(short, long)]
    attach: bool,
    /// Attach standard input too
    #[arg(short, long)]
    interactive: bool,
    /// Pass signals on to the program
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = true, action = ArgAction::Set, hide_possible_values = true)]
    sig_proxy: bool,
    /// The keys that leave the program running: ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// All containers that do not run
    #[arg(long, conflicts_with_all = ["attach", "interactive", "containers"])]
    all: bool,
    #[command(flatten)]
    chosen: Chosen,
}

impl StartArgs {
    /// The user namespace to enter.
    pub(in crate::cmd) fn entry(&self, cx: &Context) -> Entry {
        self.chosen.entry(cx)
    }
}

/// `strate start`
pub(in crate::cmd) fn start(cx: &mut Context, ui: &mut Ui, args: StartArgs) -> CmdResult {
    let attach = args.attach || args.interactive;
    let names = readable(cx)
        .and_then(|store| args.chosen.names(cx, &store, args.all, |state| !is_up(state)))
        .map_err(|error| if attach { failed(error) } else { error.into() })?;
    if !attach {
        return Ok(each(ui, &names, |ui, name| {
            ops::start::again(cx, writable(cx)?, name, None)?;
            ui.line(name);
            Ok(())
        }));
    }
    let [name] = names.as_slice() else { return Err(failed(Error::AttachSeveral)) };
    let keys = detach_keys(cx, args.detach_keys.as_deref()).map_err(failed)?;
    let store = writable(cx).map_err(failed)?;
    if args.interactive {
        ops::attach::check_terminal(cx, &store, name).map_err(failed)?;
    }
    let how = Foreground { stdin: args.interactive, sig_proxy: args.sig_proxy, keys: keys.clone() };
    match ops::start::again(cx, store, name, Some(how)).map_err(failed)? {
        Outcome::Ended(code) => Ok(code),
        Outcome::Left => Ok(left(ui, name)),
        Outcome::Detached => Ok(0),
        Outcome::RanBefore => {
            ui.note(format_args!("{name} runs already: its output from here on is shown"));
            join(cx, ui, name, Wanted { stdin: args.interactive, sig_proxy: args.sig_proxy, keys })
        }
    }
}

/// Attach to a container that runs.
fn join(cx: &Context, ui: &mut Ui, name: &str, wanted: Wanted) -> CmdResult {
    let store = readable(cx).map_err(failed)?;
    let outcome = ops::attach::attach(cx, &store, name, wanted, &mut |stream, bytes| show(ui, stream, bytes));
    match outcome.map_err(failed)? {
        Outcome::Ended(code) => Ok(code),
        _ => Ok(left(ui, name)),
    }
}

/// Arguments of `attach`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct AttachArgs {
    /// Do not attach standard input
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals on to a program without a terminal
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = true, action = ArgAction::Set, hide_possible_values = true)]
    sig_proxy: bool,
    /// The keys that leave the program running: ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// The container's name or id
    container: String,
}

/// `strate attach`
pub(in crate::cmd) fn attach(cx: &mut Context, ui: &mut Ui, args: AttachArgs) -> CmdResult {
    let keys = detach_keys(cx, args.detach_keys.as_deref())?;
    let wanted = Wanted { stdin: !args.no_stdin, sig_proxy: args.sig_proxy, keys };
    join(cx, ui, &args.container, wanted).map_err(|error| error.with_exit_code(1))
}

/// Arguments of `exec`.
#[derive(Debug, Args)]
#[command(override_usage = "strate exec [OPTIONS] CONTAINER COMMAND [ARG]...")]
pub(in crate::cmd) struct ExecArgs {
    /// Keep standard input open
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    interactive: bool,
    /// Give the program a terminal
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    tty: bool,
    /// Run in the background
    #[arg(short, long)]
    detach: bool,
    /// Set an environment variable; without a value the host's is taken
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Who runs the program: names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Where the program starts
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Lift every restriction that the user namespace allows to lift
    #[arg(long)]
    privileged: bool,
    /// The keys that leave the program running: ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// The container, the command and its arguments
    #[arg(required = true, trailing_var_arg = true, num_args = 2.., value_names = ["CONTAINER", "COMMAND"])]
    words: Vec<String>,
}

/// `strate exec`
pub(in crate::cmd) fn exec(cx: &mut Context, ui: &mut Ui, args: ExecArgs) -> CmdResult {
    if args.interactive && args.tty && !args.detach && !cx.terminals[0] {
        return Err(failed(Error::NotATerminal));
    }
    let mut env = Vec::new();
    for file in &args.env_file {
        let path = cx.cwd.join(file);
        let text = std::fs::read_to_string(&path)
            .map_err(|source| failed(Error::File { flag: "--env-file", path, source }))?;
        env.extend(values::env_file(&text, &cx.env).map_err(failed)?);
    }
    for text in &args.env {
        env.push(values::env(text, &cx.env).map_err(failed)?);
    }
    let mut words = args.words.into_iter();
    let request = ops::exec::Request {
        container: words.next().unwrap_or_default(),
        command: words.collect(),
        env,
        user: args.user,
        working_dir: args.workdir,
        tty: args.tty,
        interactive: args.interactive,
        privileged: args.privileged,
        detach: args.detach,
        keys: detach_keys(cx, args.detach_keys.as_deref()).map_err(failed)?,
    };
    let store = readable(cx).map_err(failed)?;
    match ops::exec::exec(cx, &store, &request).map_err(failed)? {
        Outcome::Ended(code) => Ok(code),
        Outcome::Left => {
            ui.note(format_args!("left the program running in container {}", request.container));
            Ok(0)
        }
        Outcome::Detached | Outcome::RanBefore => Ok(0),
    }
}
