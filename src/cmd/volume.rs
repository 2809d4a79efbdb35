//! Verbs of `volume`.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::ops::container::values;
use crate::ops::inspect::{Kind, Look};
use crate::ops::store::Store;
use crate::ops::volume::{self, Error, Filters, PruneFilter, Request, Row};
use crate::ops::{self};
use crate::ui::format::{Column, Listing};
use crate::ui::{Ui, words};

fn writable(cx: &Context) -> Result<Store, Error> {
    Ok(ops::store::write(cx, |text| Ui::new().note(text))?)
}

fn readable(cx: &Context) -> Result<Store, Error> {
    Ok(ops::store::read_aloud(cx, |text| Ui::new().warn(text))?)
}

/// Arguments of `volume create`.
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The driver: local
    #[arg(short, long, default_value = "local", hide_default_value = true)]
    driver: String,
    /// Set a label
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Options: o=uid=ID,gid=ID; or type=none, o=bind[,ro] and device=PATH; or type=tmpfs and o=size=BYTES,…
    #[arg(short, long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Whose it is: an id of the container
    #[arg(long, value_name = "ID")]
    uid: Option<u32>,
    /// Which group's it is: an id of the container
    #[arg(long, value_name = "ID")]
    gid: Option<u32>,
    /// Leave one that is there as it is, whatever its options
    #[arg(long)]
    ignore: bool,
    /// The name; without one it is an anonymous volume, which `volume prune` takes
    name: Option<String>,
}

/// `strate volume create`
pub(super) fn create(cx: &mut Context, ui: &mut Ui, args: CreateArgs) -> CmdResult {
    let mut request =
        Request { name: args.name, driver: args.driver, ignore: args.ignore, ..Request::default() };
    for text in &args.label {
        request.labels.extend([values::label(text)?]);
    }
    for text in &args.opt {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| CmdError::usage(format!("invalid option `{text}`: expected KEY=VALUE")))?;
        request.options.insert(key.into(), value.into());
    }
    for (key, id) in [("uid", args.uid), ("gid", args.gid)] {
        if let Some(id) = id {
            let words = request.options.entry("o".into()).or_default();
            *words = format!("{words}{}{key}={id}", if words.is_empty() { "" } else { "," });
        }
    }
    let name = volume::create(&writable(cx)?, request)?;
    ui.line(name);
    Ok(0)
}

/// Arguments of `volume ls`.
#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Only names
    #[arg(short, long)]
    quiet: bool,
    /// Only some: dangling=BOOL, driver=NAME, label=KEY[=VALUE], name=PATTERN, until=TIME
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template, as `table TEMPLATE` or as `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// No heading
    #[arg(short, long)]
    noheading: bool,
}

const COLUMNS: [Column; 10] = [
    Column::new("Driver", "DRIVER"),
    Column::new("Name", "VOLUME NAME"),
    Column::new("Scope", "SCOPE"),
    Column::new("Mountpoint", "MOUNTPOINT"),
    Column::new("Labels", "LABELS"),
    Column::new("Links", "LINKS"),
    Column::new("Size", "SIZE"),
    Column::new("CreatedAt", "CREATED AT"),
    Column::new("Options", "OPTIONS"),
    Column::new("Status", "STATUS"),
];

/// `strate volume ls`
pub(super) fn ls(cx: &mut Context, ui: &mut Ui, args: LsArgs) -> CmdResult {
    let mut filters = Filters::default();
    for text in &args.filter {
        filters.add(text)?;
    }
    let listing = Listing::parse(args.format.as_deref(), &COLUMNS, &["Driver", "Name"])?;
    let asks = |word: &str| args.format.as_ref().is_some_and(|format| format.contains(word));
    let rows = volume::list(&readable(cx)?, &filters, asks("Links") || asks("json"))?;
    if args.quiet && args.format.is_none() {
        rows.iter().for_each(|row| ui.line(&row.record.name));
        return Ok(0);
    }
    let rows: Vec<Value> = rows.iter().map(row_value).collect();
    let text = listing.render(&rows)?;
    let table = args.format.as_ref().is_none_or(|format| format.trim_start().starts_with("table"));
    match args.noheading && table {
        true => ui.text(text.split_once('\n').map_or("", |(_, rest)| rest)),
        false => ui.text(&text),
    }
    Ok(0)
}

/// One row in docker's fields, all of them texts.
fn row_value(row: &Row) -> Value {
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    };
    json!({
        "Availability": "N/A",
        "CreatedAt": words::local_time(&row.record.created),
        "Driver": "local",
        "Group": "N/A",
        "Labels": pairs(&row.record.labels),
        "Links": row.links.to_string(),
        "Mountpoint": row.mountpoint,
        "Name": row.record.name,
        "Options": pairs(&row.record.options),
        "Scope": "local",
        "Size": "N/A",
        "Status": "N/A",
    })
}

/// Arguments of `volume inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Print by a Go template, or `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// All volumes
    #[arg(short, long)]
    all: bool,
    /// Names
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// `strate volume inspect`
pub(super) fn inspect(cx: &mut Context, ui: &mut Ui, args: InspectArgs) -> CmdResult {
    let names = match args.all {
        true => readable(cx)?.volumes().map_err(Error::from)?.into_iter().map(|v| v.record.name).collect(),
        false => args.volumes,
    };
    super::image::print_inspected(cx, ui, &names, args.format.as_deref(), Kind::Volume, &Look::default())
}

/// Arguments of `volume rm`.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// One that is not there is no error, and a container whose record is damaged does not keep it
    #[arg(short, long)]
    force: bool,
    /// All volumes that no container uses
    #[arg(short, long)]
    all: bool,
    /// Names
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "VOLUME")]
    volumes: Vec<String>,
}

/// `strate volume rm`: 2 when one is in use, as podman has it, else 1 when one could not be removed.
pub(super) fn rm(cx: &mut Context, ui: &mut Ui, args: RmArgs) -> CmdResult {
    let store = writable(cx)?;
    store.sweep_ended();
    let names = if args.all { store.volume_names().map_err(Error::from)? } else { args.volumes };
    let mut code = 0;
    for name in &names {
        match volume::remove(&store, name, args.force) {
            Ok(()) => ui.line(name),
            Err(error) => {
                code = code.max(error.exit_code());
                if let Some(report) = CmdError::from(error).report() {
                    ui.error(&report);
                }
            }
        }
    }
    Ok(code)
}

/// Arguments of `volume prune`.
#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Named volumes too, not only anonymous ones
    #[arg(short, long)]
    all: bool,
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

/// `strate volume prune`
pub(super) fn prune(cx: &mut Context, ui: &mut Ui, args: PruneArgs) -> CmdResult {
    let mut filter = PruneFilter::default();
    for text in &args.filter {
        filter.add(text)?;
    }
    filter.all |= args.all;
    if !args.force && !args.dry_run {
        let which = if filter.all { "all" } else { "anonymous" };
        ui.note(format_args!(
            "WARNING! This will remove {which} local volumes not used by at least one container."
        ));
        if !crate::ui::prompt::agreed()? {
            return Ok(0);
        }
    }
    let pruned = volume::prune(&writable(cx)?, &filter, args.dry_run, &BTreeSet::new())?;
    if !pruned.is_empty() {
        ui.line(if args.dry_run { "Would delete Volumes:" } else { "Deleted Volumes:" });
        for volume in &pruned {
            match args.dry_run {
                true => ui.line(format_args!("{} ({})", volume.name, words::size(volume.bytes))),
                false => ui.line(&volume.name),
            }
        }
        ui.line("");
    }
    let bytes: u64 = pruned.iter().map(|volume| volume.bytes).sum();
    let total = if args.dry_run { "Total reclaimable space" } else { "Total reclaimed space" };
    ui.line(format_args!("{total}: {}", words::size(bytes)));
    Ok(0)
}

/// Arguments of `volume exists`.
#[derive(Debug, Args)]
pub(super) struct ExistsArgs {
    /// The name
    #[arg(value_name = "VOLUME")]
    volume: String,
}

/// `strate volume exists`
pub(super) fn exists(cx: &mut Context, _ui: &mut Ui, args: ExistsArgs) -> CmdResult {
    let names = readable(cx)?.volume_names().map_err(Error::from)?;
    Ok(u8::from(!names.contains(&args.volume)))
}

/// Arguments of `volume export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The name
    #[arg(value_name = "VOLUME")]
    volume: String,
}

/// `strate volume export`
pub(super) fn export(cx: &mut Context, ui: &mut Ui, args: ExportArgs) -> CmdResult {
    let output = match args.output {
        Some(path) if path.as_os_str() != "-" => cx.cwd.join(path),
        _ if ui.stdout_is_terminal() => {
            return Err(CmdError::usage("refusing to write an archive to a terminal")
                .with_hint("name a file with --output, or redirect the output"));
        }
        _ => PathBuf::from("-"),
    };
    volume::export(&readable(cx)?, &args.volume, &output)?;
    Ok(0)
}

/// Arguments of `volume import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// The name of a volume that is there
    #[arg(value_name = "VOLUME")]
    volume: String,
    /// A tar, compressed or not; without one, or with `-`, standard input
    #[arg(value_name = "FILE")]
    source: Option<PathBuf>,
}

/// `strate volume import`
pub(super) fn import(cx: &mut Context, ui: &mut Ui, args: ImportArgs) -> CmdResult {
    let source = match args.source {
        Some(path) if path.as_os_str() != "-" => cx.cwd.join(path),
        _ if std::io::stdin().is_terminal() => {
            return Err(CmdError::usage("refusing to read an archive from a terminal")
                .with_hint("name a file, or redirect the input"));
        }
        _ => Path::new("-").to_owned(),
    };
    let imported = volume::import(&writable(cx)?, &args.volume, &source)?;
    if imported.unmapped > 0 {
        ui.warn(format_args!(
            "{} files belong to users that this user namespace does not have; they are root's now",
            imported.unmapped
        ));
    }
    Ok(0)
}
