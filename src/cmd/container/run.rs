//! `run`, `create`, `start`, `exec`.

use std::path::PathBuf;

use clap::{ArgAction, Args};

use super::flags::ContainerFlags;
use super::{each, failed, readable, show, writable};
use crate::cmd::{CmdError, CmdResult, registry};
use crate::context::Context;
use crate::image::BoxError;
use crate::oci::{Platform, Reference};
use crate::ops;
use crate::ops::container::{Error, values};
use crate::ops::create::{Created, Request};
use crate::ops::pull::{PullPolicy, PullRequest};
use crate::ops::remote::{self, RemoteOptions};
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
    #[command(flatten)]
    flags: ContainerFlags,
}

impl RunArgs {
    /// The container whose network the new one is to have.
    pub(in crate::cmd) fn network_of(&self) -> Option<String> {
        self.flags.network_of().map(str::to_owned)
    }
}

/// Arguments of `create`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true, override_usage = "strate create [OPTIONS] IMAGE [COMMAND] [ARG]...")]
pub(in crate::cmd) struct CreateArgs {
    #[command(flatten)]
    flags: ContainerFlags,
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
    let (interactive, tty, quiet) = (args.flags.interactive, args.flags.tty, args.flags.quiet);
    if interactive && tty && !args.detach && !cx.terminals[0] {
        return Err(failed(Error::NotATerminal));
    }
    let request = args.flags.request(cx, ui, args.detach).map_err(failed)?;
    let store = writable(cx).map_err(failed)?;
    let created = make(cx, ui, &store, request, quiet)?;
    let id = created.dir.record.id.clone();
    let outcome = ops::start::first(cx, store, created, args.sig_proxy).map_err(failed)?;
    match outcome {
        ops::start::Outcome::Ended(code) => Ok(code),
        // A new container did not run before.
        ops::start::Outcome::Detached | ops::start::Outcome::RanBefore => {
            ui.line(id);
            Ok(0)
        }
    }
}

/// `strate create`
pub(in crate::cmd) fn create(cx: &mut Context, ui: &mut Ui, args: CreateArgs) -> CmdResult {
    let quiet = args.flags.quiet;
    let request = args.flags.request(cx, ui, true).map_err(failed)?;
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
    /// Accepted for docker's sake
    #[arg(long, hide = true)]
    detach_keys: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl StartArgs {
    /// The container whose network one of them has.
    pub(in crate::cmd) fn network_of(&self, cx: &Context) -> Option<String> {
        let store = ops::store::read(cx).ok()?;
        self.containers.iter().find_map(|name| ops::container::network::joined_by(&store, name))
    }
}

/// `strate start`
pub(in crate::cmd) fn start(cx: &mut Context, ui: &mut Ui, args: StartArgs) -> CmdResult {
    let attach = args.attach || args.interactive;
    if !attach {
        return Ok(each(ui, &args.containers, |ui, name| {
            ops::start::again(cx, writable(cx)?, name, false, false)?;
            ui.line(name);
            Ok(())
        }));
    }
    let [name] = args.containers.as_slice() else { return Err(failed(Error::AttachSeveral)) };
    let store = writable(cx).map_err(failed)?;
    match ops::start::again(cx, store, name, true, args.interactive).map_err(failed)? {
        ops::start::Outcome::Ended(code) => Ok(code),
        ops::start::Outcome::Detached => Ok(0),
        ops::start::Outcome::RanBefore => {
            ui.note(format_args!("{name} runs already: its output from here on is shown"));
            if args.interactive {
                ui.note("Standard input is not attached: it belongs to whoever started the container");
            }
            let store = readable(cx).map_err(failed)?;
            ops::attach::attach(&store, name, &mut |stream, bytes| show(ui, stream, bytes)).map_err(failed)
        }
    }
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
    /// Accepted for docker's sake
    #[arg(long, hide = true)]
    detach_keys: Option<String>,
    /// The container, the command and its arguments
    #[arg(required = true, trailing_var_arg = true, num_args = 2.., value_names = ["CONTAINER", "COMMAND"])]
    words: Vec<String>,
}

/// `strate exec`
pub(in crate::cmd) fn exec(cx: &mut Context, _ui: &mut Ui, args: ExecArgs) -> CmdResult {
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
    };
    let store = readable(cx).map_err(failed)?;
    ops::exec::exec(cx, &store, &request).map_err(failed)
}
