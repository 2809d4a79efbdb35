//! `stop`, `kill`, `wait`, `rm`, `prune`, `rename`.

use std::time::Duration;

use clap::Args;

use super::which::{Which, is_up};
use super::{each, readable, writable};
use crate::cmd::{CmdError, CmdResult};
use crate::context::Context;
use crate::ops;
use crate::ops::container::{Error, values};
use crate::ops::rm::PruneFilter;
use crate::ops::wait::Condition;
use crate::ui::{Ui, words};

/// How a container is made to end.
#[derive(Debug, Args)]
struct Ending {
    /// Seconds to wait before killing; -1 waits without end
    #[arg(short, long, visible_alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    timeout: Option<i64>,
    /// The signal to send
    #[arg(short, long)]
    signal: Option<String>,
}

/// Arguments of `stop`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct StopArgs {
    /// A container that is not there is no error
    #[arg(short, long)]
    ignore: bool,
    #[command(flatten)]
    ending: Ending,
    #[command(flatten)]
    which: Which,
}

/// `strate stop`
pub(in crate::cmd) fn stop(cx: &mut Context, ui: &mut Ui, args: StopArgs) -> CmdResult {
    let store = readable(cx)?;
    let names = args.which.names(cx, &store, is_up)?;
    Ok(each(ui, &names, |ui, name| {
        match ops::stop::stop(&store, name, args.ending.timeout, args.ending.signal.as_deref()) {
            Err(Error::Storage(ops::store::Error::NoSuchContainer(_))) if args.ignore => {}
            done => {
                done?;
                ui.line(name);
            }
        }
        Ok(())
    }))
}

/// Arguments of `restart`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct RestartArgs {
    /// With --all: only those that run
    #[arg(long)]
    running: bool,
    #[command(flatten)]
    ending: Ending,
    #[command(flatten)]
    which: Which,
}

impl RestartArgs {
    /// The user namespace to enter.
    pub(in crate::cmd) fn entry(&self, cx: &Context) -> crate::ops::enter::Entry {
        self.which.entry(cx)
    }
}

/// `strate restart`
pub(in crate::cmd) fn restart(cx: &mut Context, ui: &mut Ui, args: RestartArgs) -> CmdResult {
    let fits = |state: &str| !args.running || is_up(state);
    let names = args.which.names(cx, &readable(cx)?, fits)?;
    Ok(each(ui, &names, |ui, name| {
        ops::restart::restart(cx, writable(cx)?, name, args.ending.timeout, args.ending.signal.as_deref())?;
        ui.line(name);
        Ok(())
    }))
}

/// Arguments of `pause` and `unpause`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct PauseArgs {
    #[command(flatten)]
    which: Which,
}

/// `strate pause`
pub(in crate::cmd) fn pause(cx: &mut Context, ui: &mut Ui, args: PauseArgs) -> CmdResult {
    let store = readable(cx)?;
    let names = args.which.names(cx, &store, |state| state == "running")?;
    Ok(each(ui, &names, |ui, name| {
        ops::pause::pause(&store, name)?;
        ui.line(name);
        Ok(())
    }))
}

/// `strate unpause`
pub(in crate::cmd) fn unpause(cx: &mut Context, ui: &mut Ui, args: PauseArgs) -> CmdResult {
    let store = readable(cx)?;
    let names = args.which.names(cx, &store, |state| state == "paused")?;
    Ok(each(ui, &names, |ui, name| {
        ops::pause::unpause(&store, name)?;
        ui.line(name);
        Ok(())
    }))
}

/// Arguments of `kill`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct KillArgs {
    /// The signal to send
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    #[command(flatten)]
    which: Which,
}

/// `strate kill`
pub(in crate::cmd) fn kill(cx: &mut Context, ui: &mut Ui, args: KillArgs) -> CmdResult {
    let store = readable(cx)?;
    let names = args.which.names(cx, &store, is_up)?;
    Ok(each(ui, &names, |ui, name| {
        ops::stop::kill(&store, name, &args.signal)?;
        ui.line(name);
        Ok(())
    }))
}

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct WaitArgs {
    /// What to wait for: stopped, running, paused, created, removed, healthy, unhealthy
    #[arg(long, value_name = "STATE")]
    condition: Vec<String>,
    /// How long to pause between two looks (50ms)
    #[arg(short, long, value_name = "DURATION")]
    interval: Option<String>,
    /// A container that is not there is no error
    #[arg(long)]
    ignore: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `strate wait`
pub(in crate::cmd) fn wait(cx: &mut Context, ui: &mut Ui, args: WaitArgs) -> CmdResult {
    let mut conditions: Vec<Condition> =
        args.condition.iter().map(|text| Condition::parse(text)).collect::<Result<_, _>>()?;
    if conditions.is_empty() {
        conditions.push(Condition::Stopped);
    }
    let pause = args.interval.as_deref().map(|text| {
        // Podman takes milliseconds without a unit.
        let unit = if text.bytes().all(|byte| byte.is_ascii_digit()) { "ms" } else { "" };
        let found = ops::when::go_duration(&format!("{text}{unit}"));
        let found = found.and_then(|pause| Duration::try_from(pause).ok());
        found.ok_or_else(|| values::bad("--interval", text, "it is a number with a unit: ms, s, m, h"))
    });
    let pause = pause.transpose()?;
    let store = readable(cx)?;
    Ok(each(ui, &args.containers, |ui, name| {
        match ops::wait::wait_for(&store, name, &conditions, pause) {
            Err(Error::Storage(ops::store::Error::NoSuchContainer(_))) if args.ignore => ui.line(-1),
            code => ui.line(code?),
        }
        Ok(())
    }))
}

/// Arguments of `rm`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct RmArgs {
    /// A container that is not there is no error
    #[arg(short, long)]
    ignore: bool,
    /// With --force: seconds to wait for the end before killing
    #[arg(short, long, value_name = "SECONDS", allow_hyphen_values = true, requires = "force")]
    time: Option<i64>,
    /// Kill it first when it runs; one that is not there is no error
    #[arg(short, long)]
    force: bool,
    /// Remove its anonymous volumes too
    #[arg(short, long)]
    volumes: bool,
    #[command(flatten)]
    which: Which,
}

/// `strate rm`
pub(in crate::cmd) fn rm(cx: &mut Context, ui: &mut Ui, args: RmArgs) -> CmdResult {
    let store = writable(cx)?;
    // Of all, those that run are passed over without --force, as nobody named them.
    let fits = |state: &str| args.force || !is_up(state);
    let names = args.which.names(cx, &store, fits)?;
    Ok(each(ui, &names, |ui, name| {
        if let (Some(timeout), true) = (args.time, args.force) {
            match ops::stop::stop(&store, name, Some(timeout), None) {
                Err(Error::Storage(ops::store::Error::NoSuchContainer(_))) => {}
                stopped => stopped?,
            }
        }
        match ops::rm::rm(&store, name, args.force, args.volumes) {
            Err(Error::Storage(ops::store::Error::NoSuchContainer(_))) if args.ignore => {}
            Ok(false) => {}
            removed => {
                removed?;
                ui.line(name);
            }
        }
        Ok(())
    }))
}

/// Arguments of `container prune`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Only some: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
}

/// `strate container prune`
pub(in crate::cmd) fn prune(cx: &mut Context, ui: &mut Ui, args: PruneArgs) -> CmdResult {
    let mut filter = PruneFilter::default();
    for text in &args.filter {
        filter.add(text)?;
    }
    if !args.force && !args.dry_run {
        ui.note("WARNING! This will remove all stopped containers.");
        if !crate::ui::prompt::agreed()? {
            return Ok(0);
        }
    }
    let pruned = ops::rm::prune(&writable(cx)?, &filter, args.dry_run)?;
    if !pruned.removed.is_empty() {
        ui.line(if args.dry_run { "Would delete Containers:" } else { "Deleted Containers:" });
        for id in &pruned.removed {
            ui.line(id);
        }
        ui.line("");
    }
    let total = if args.dry_run { "Total reclaimable space" } else { "Total reclaimed space" };
    ui.line(format_args!("{total}: {}", words::size(pruned.bytes)));
    Ok(0)
}

/// Arguments of `rename`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct RenameArgs {
    /// The container's name or id
    container: String,
    /// Its new name
    name: String,
}

/// `strate rename`
pub(in crate::cmd) fn rename(cx: &mut Context, _ui: &mut Ui, args: RenameArgs) -> CmdResult {
    ops::rm::rename(&writable(cx)?, &args.container, &args.name)?;
    Ok(0)
}

/// Arguments of `container exists`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct ExistsArgs {
    /// The container's name or id
    container: String,
}

/// `strate container exists`
pub(in crate::cmd) fn exists(cx: &mut Context, _ui: &mut Ui, args: ExistsArgs) -> CmdResult {
    match readable(cx).and_then(|store| Ok(store.find_container(&args.container)?)) {
        Ok(_) => Ok(0),
        Err(Error::Storage(ops::store::Error::NoSuchContainer(_))) => Ok(1),
        Err(error) => Err(CmdError::new(error).with_exit_code(125)),
    }
}
