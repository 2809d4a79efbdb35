//! `cp`, `diff`, `mount`, `umount`, `unshare`.

use std::ffi::OsString;

use clap::{ArgAction, Args};
use serde_json::{Value, json};

use super::{readable, writable};
use crate::cmd::{CmdError, CmdResult};
use crate::context::Context;
use crate::ops;
use crate::ops::cp::Side;
use crate::ops::enter::Entry;
use crate::ui::{Ui, sanitise, words};

/// Arguments of `cp`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct CpArgs {
    /// Keep owners and groups
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    archive: bool,
    /// Copy what a link leads to, not the link
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Say nothing of what was copied
    #[arg(short, long)]
    quiet: bool,
    /// Accepted for podman's sake
    #[arg(long, hide = true)]
    overwrite: bool,
    /// CONTAINER:PATH, a path of the host, or - for a tar on standard input
    #[arg(value_name = "SOURCE_PATH")]
    from: String,
    /// The same; - writes a tar to standard output
    #[arg(value_name = "TARGET_PATH")]
    to: String,
}

/// `strate cp`
pub(in crate::cmd) fn cp(cx: &mut Context, ui: &mut Ui, args: CpArgs) -> CmdResult {
    let request = ops::cp::Request {
        from: Side::parse(&args.from),
        to: Side::parse(&args.to),
        archive: args.archive,
        follow: args.follow_link,
    };
    if request.to == Side::Stream && ui.stdout_is_terminal() {
        return Err(CmdError::usage("a tar is not written to a terminal: redirect the output"));
    }
    let copied = ops::cp::cp(cx, &readable(cx)?, &request)?;
    if copied.disowned > 0 {
        ui.warn(format_args!("{} files belong to you: their owners are not to be had here", copied.disowned));
    }
    if copied.skipped > 0 {
        ui.warn(format_args!("{} devices were left out: they cannot be made here", copied.skipped));
    }
    if !args.quiet && ui.stderr_is_terminal() && request.to != Side::Stream {
        let target = sanitise::line(&args.to).into_owned();
        ui.note(format_args!("Successfully copied {} to {target}", words::size(copied.bytes)));
    }
    Ok(0)
}

/// Arguments of `diff`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct DiffArgs {
    /// Print as `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// The container's name or id
    container: String,
}

impl DiffArgs {
    /// The user namespace to enter.
    pub(in crate::cmd) fn entry(&self, cx: &Context) -> Entry {
        Entry::files_of(cx, &self.container)
    }
}

/// `strate diff`
pub(in crate::cmd) fn diff(cx: &mut Context, ui: &mut Ui, args: DiffArgs) -> CmdResult {
    let json = match args.format.as_deref() {
        None | Some("") => false,
        Some("json") => true,
        Some(other) => return Err(CmdError::usage(format!("unknown format `{other}`: there is json"))),
    };
    let changes = ops::diff::diff(&mut writable(cx)?, &args.container)?;
    let mut lists =
        [("added", 'A'), ("changed", 'C'), ("deleted", 'D')].map(|(name, letter)| (name, letter, Vec::new()));
    for (path, change) in &changes {
        let path = path.to_string_lossy();
        if !json {
            ui.line(format_args!("{} {}", change.letter(), sanitise::line(&path)));
        }
        for (_, letter, paths) in &mut lists {
            if *letter == change.letter() {
                paths.push(path.to_string());
            }
        }
    }
    if json {
        let filled = lists.into_iter().filter(|(_, _, paths)| !paths.is_empty());
        let all: serde_json::Map<String, serde_json::Value> =
            filled.map(|(name, _, paths)| (name.to_owned(), paths.into())).collect();
        ui.line(serde_json::Value::from(all));
    }
    Ok(0)
}

/// Arguments of `mount`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct MountArgs {
    /// All containers that do not run
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Print as `json`
    #[arg(long, value_name = "FORMAT", value_parser = ["json"])]
    format: Option<String>,
    /// Names or ids; without one, what is mounted is listed
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `strate mount`
pub(in crate::cmd) fn mount(cx: &mut Context, ui: &mut Ui, args: MountArgs) -> CmdResult {
    if args.containers.is_empty() && !args.all {
        let found = ops::mount::mounted(&readable(cx)?)?;
        let rows = found.iter().map(|(dir, path)| (dir.short_id(), dir.record.name.as_str(), path));
        if args.format.is_some() {
            let value = |(id, name, path)| json!({ "id": id, "Names": [name], "mountpoint": path });
            ui.line(Value::Array(rows.map(value).collect()));
        } else {
            rows.for_each(|(id, _, path)| ui.line(format_args!("{id} {}", path.display())));
        }
        return Ok(0);
    }
    ops::mount::stay(cx)?;
    let mut store = writable(cx)?;
    let names = match args.all {
        true => stopped(&store)?,
        false => args.containers.clone(),
    };
    Ok(super::each(ui, &names, |ui, name| {
        let path = ops::mount::mount(&mut store, name)?;
        ui.line(path.display());
        Ok(())
    }))
}

fn stopped(store: &ops::store::Store) -> Result<Vec<String>, CmdError> {
    let rows = ops::ps::ps(store, &ops::ps::Request { all: true, ..Default::default() })?;
    let rows = rows.into_iter().filter(|row| !row.state.is_running());
    Ok(rows.map(|row| row.dir.record.name).collect())
}

/// Arguments of `umount`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct UmountArgs {
    /// All that are mounted here
    #[arg(short, long, conflicts_with = "containers")]
    all: bool,
    /// Also while somebody uses it
    #[arg(short, long)]
    force: bool,
    /// Names or ids
    #[arg(value_name = "CONTAINER", required_unless_present = "all")]
    containers: Vec<String>,
}

/// `strate umount`
pub(in crate::cmd) fn umount(cx: &mut Context, ui: &mut Ui, args: UmountArgs) -> CmdResult {
    ops::mount::stay(cx)?;
    let store = readable(cx)?;
    let names = match args.all {
        true => ops::mount::mounted(&store)?.into_iter().map(|(dir, _)| dir.record.name).collect(),
        false => args.containers.clone(),
    };
    Ok(super::each(ui, &names, |ui, name| {
        if ops::mount::umount(&store, name, args.force)? {
            ui.line(name);
        } else {
            ui.note(format_args!("container {name} is not mounted here"));
        }
        Ok(())
    }))
}

/// Arguments of `unshare`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct UnshareArgs {
    /// The program and its arguments; else a shell
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// `strate unshare`
pub(in crate::cmd) fn unshare(cx: &mut Context, _ui: &mut Ui, args: UnshareArgs) -> CmdResult {
    let error = ops::unshare::unshare(cx, &args.command);
    let code = error.exit_code();
    Err(CmdError::new(error).with_exit_code(code))
}
