//! `ps`, `logs`, `container inspect`.

use std::borrow::Cow;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::{readable, show};
use crate::cmd::{CmdError, CmdResult};
use crate::context::Context;
use crate::ops;
use crate::ops::container::Error;
use crate::ops::container::mounts::{Mount, MountKind};
use crate::ops::ps::{Row, network_name, state_word};
use crate::ops::store::{ContainerState, Status};
use crate::ui::format::{Column, Listing, Template};
use crate::ui::{Ui, words};

/// Arguments of `ps`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct PsArgs {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Only the last so many, running or not
    #[arg(short = 'n', long, value_name = "NUMBER", allow_hyphen_values = true)]
    last: Option<i64>,
    /// Only the last one, running or not
    #[arg(short, long)]
    latest: bool,
    /// Do not shorten
    #[arg(long)]
    no_trunc: bool,
    /// Show sizes
    #[arg(short, long)]
    size: bool,
    /// Order by: command, created, id, image, names, runningfor, size, status
    #[arg(long, value_name = "COLUMN", value_parser = ["command", "created", "id", "image", "names", "runningfor", "size", "status"])]
    sort: Option<String>,
    /// Leave the titles out
    #[arg(long)]
    noheading: bool,
    /// Only some: id, name, label, exited, status, ancestor, before, since, volume, network, publish, expose, health
    #[arg(short, long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print with a template, as `table TEMPLATE` or as `json`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

const COLUMNS: [Column; 16] = [
    Column::new("ID", "CONTAINER ID"),
    Column::new("Image", "IMAGE"),
    Column::new("Command", "COMMAND"),
    Column::new("RunningFor", "CREATED"),
    Column::new("Status", "STATUS"),
    Column::new("Ports", "PORTS"),
    Column::new("Names", "NAMES"),
    Column::new("Size", "SIZE"),
    Column::new("CreatedAt", "CREATED AT"),
    Column::new("State", "STATE"),
    Column::new("Labels", "LABELS"),
    Column::new("Mounts", "MOUNTS"),
    Column::new("Networks", "NETWORKS"),
    Column::new("LocalVolumes", "LOCAL VOLUMES"),
    Column::new("Platform", "PLATFORM"),
    Column::new("HealthStatus", "HEALTH STATUS"),
];

const SHOWN: [&str; 8] = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names", "Size"];

/// `strate ps`
pub(in crate::cmd) fn ps(cx: &mut Context, ui: &mut Ui, args: PsArgs) -> CmdResult {
    let mut request = ops::ps::Request { all: args.all, ..Default::default() };
    for filter in &args.filter {
        request.filters.add(filter)?;
    }
    request.last = match args.last.filter(|last| *last > 0) {
        Some(last) => usize::try_from(last).ok(),
        None => args.latest.then_some(1),
    };
    let mut rows = ops::ps::ps(&readable(cx)?, &request)?;
    if let Some(column) = &args.sort {
        sort(&mut rows, column);
    }
    if args.quiet && args.format.is_none() {
        for row in &rows {
            ui.line(if args.no_trunc { &row.dir.record.id } else { row.dir.short_id() });
        }
        return Ok(0);
    }
    let shown = if args.size { &SHOWN[..] } else { &SHOWN[..SHOWN.len() - 1] };
    let listing = Listing::parse(args.format.as_deref(), &COLUMNS, shown)?;
    let wants_size = args.size || args.format.as_ref().is_some_and(|format| format.contains(".Size"));
    let wanted = Wanted { now: Timestamp::now(), whole: args.no_trunc, size: wants_size };
    let text = match listing.default_columns() {
        // The usual case pays for what is shown alone: there may be thousands.
        Some(_) => listing.table(&rows, |row, field, text| text.push_str(&cell(row, field, &wanted))),
        None => listing.render(&rows.iter().map(|row| row_value(row, &wanted)).collect::<Vec<_>>())?,
    };
    let titled = args.format.as_deref().is_none_or(|format| format.starts_with("table"));
    ui.text(if args.noheading && titled {
        text.split_once('\n').map_or("", |(_, rest)| rest)
    } else {
        &text
    });
    Ok(0)
}

/// Put rows in podman's order of a column.
fn sort(rows: &mut [Row], column: &str) {
    match column {
        "command" => rows.sort_by_key(|row| command_words(&row.spec.args())),
        "id" => rows.sort_by(|a, b| a.dir.record.id.cmp(&b.dir.record.id)),
        "image" => rows.sort_by(|a, b| a.dir.record.image_name.cmp(&b.dir.record.image_name)),
        "names" => rows.sort_by(|a, b| a.dir.record.name.cmp(&b.dir.record.name)),
        "size" => rows.sort_by_cached_key(|row| row.dir.size()),
        "status" => rows.sort_by_key(|row| state_word(&row.state)),
        "runningfor" => rows.sort_by(|a, b| b.state.started_at.cmp(&a.state.started_at)),
        _ => rows.sort_by(|a, b| a.dir.record.created.cmp(&b.dir.record.created)),
    }
}

/// A command line as docker lists it: arguments with blanks between single quotes.
pub(in crate::cmd) fn command_words<T: AsRef<str>>(args: &[T]) -> String {
    let words = args.iter().map(AsRef::as_ref).enumerate().map(|(index, word)| {
        match index > 0 && word.contains(' ') {
            true => format!("'{word}'"),
            false => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// How fields are to be shown.
struct Wanted {
    now: Timestamp,
    /// Nothing is shortened.
    whole: bool,
    /// Sizes are measured.
    size: bool,
}

/// One row in docker's fields, all of them texts.
fn row_value(row: &Row, wanted: &Wanted) -> Value {
    const FIELDS: [&str; 16] = [
        "ID",
        "Image",
        "Command",
        "CreatedAt",
        "RunningFor",
        "Status",
        "State",
        "Ports",
        "Names",
        "Labels",
        "Mounts",
        "Networks",
        "LocalVolumes",
        "Platform",
        "HealthStatus",
        "Size",
    ];
    let fields =
        FIELDS.iter().map(|field| ((*field).to_owned(), cell(row, field, wanted).into_owned().into()));
    Value::Object(fields.collect())
}

/// One field of a container as docker shows it.
fn cell<'a>(row: &'a Row, field: &str, wanted: &Wanted) -> Cow<'a, str> {
    let record = &row.dir.record;
    let config = &row.spec.config;
    match field {
        "ID" if wanted.whole => record.id.as_str().into(),
        "ID" => row.dir.short_id().into(),
        "Image" => record.image_name.as_str().into(),
        "Command" => {
            serde_json::Value::from(shortened(command_words(&row.spec.args()), 20, wanted)).to_string().into()
        }
        "CreatedAt" => words::local_time(&record.created).into(),
        "RunningFor" => words::ago(&record.created, wanted.now).into(),
        "Status" => status(&row.state, row.health.as_deref(), wanted.now).into(),
        "State" => state_word(&row.state).into(),
        "Ports" => super::port::shown(row).into(),
        "Names" => record.name.as_str().into(),
        "Labels" => {
            let labels = config.labels.iter().map(|(key, value)| format!("{key}={value}"));
            labels.collect::<Vec<_>>().join(",").into()
        }
        "Mounts" => {
            let names = row.spec.mounts.iter().filter_map(mount_name);
            names.map(|name| shortened(name, 15, wanted)).collect::<Vec<_>>().join(",").into()
        }
        "Networks" => network_name(&row.spec).into(),
        "LocalVolumes" => {
            let is_volume = |mount: &&Mount| matches!(mount.kind, MountKind::Volume { .. });
            row.spec.mounts.iter().filter(is_volume).count().to_string().into()
        }
        "Platform" => "linux".into(),
        "HealthStatus" => row.health.as_deref().unwrap_or_default().into(),
        "Size" if wanted.size => words::size(row.dir.size()).into(),
        "Size" => "0B".into(),
        _ => "".into(),
    }
}

fn shortened(text: String, length: usize, wanted: &Wanted) -> String {
    match wanted.whole || text.chars().count() <= length {
        true => text,
        false => text.chars().take(length - 1).chain(['…']).collect(),
    }
}

fn mount_name(mount: &Mount) -> Option<String> {
    match &mount.kind {
        MountKind::Bind { source } => Some(source.display().to_string()),
        MountKind::Volume { name, .. } => Some(name.clone()),
        MountKind::Tmpfs { .. } => None,
    }
}

/// `Up 3 minutes`, `Exited (0) 2 hours ago`, `Created`.
pub(in crate::cmd) fn status(state: &ContainerState, health: Option<&str>, now: Timestamp) -> String {
    let up = || {
        let seconds = state.started_at.as_deref().and_then(|time| words::seconds_since(time, now));
        words::duration(seconds.unwrap_or(0))
    };
    match state.status {
        Status::Created => "Created".into(),
        Status::Running => match health {
            Some("starting") => format!("Up {} (health: starting)", up()),
            Some(health) => format!("Up {} ({health})", up()),
            None => format!("Up {}", up()),
        },
        Status::Paused => format!("Up {} (Paused)", up()),
        Status::Restarting => {
            let ended = state.finished_at.as_deref().unwrap_or_default();
            format!("Restarting ({}) {}", state.exit_code.unwrap_or(0), words::ago(ended, now))
        }
        Status::Exited | Status::Dead => {
            let code = state.exit_code.unwrap_or(0);
            let ended = state.finished_at.as_deref().or(state.started_at.as_deref());
            match ended {
                Some(time) => format!("Exited ({code}) {}", words::ago(time, now)),
                None => format!("Exited ({code})"),
            }
        }
    }
}

/// Arguments of `logs`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(short = 'n', long, value_name = "LINES", default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Show when each line was written
    #[arg(short, long)]
    timestamps: bool,
    /// Nothing before this time (2026-01-02T15:04:05Z, or 10m for ten minutes ago)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Nothing after this time
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Accepted for docker's sake: there are no details
    #[arg(long, hide = true)]
    details: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `strate logs`
pub(in crate::cmd) fn logs(cx: &mut Context, ui: &mut Ui, args: LogsArgs) -> CmdResult {
    let now = Timestamp::now();
    let time = |flag: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => ops::when::parse(text, now).map(Some).ok_or_else(|| Error::BadValue {
            flag: flag.into(),
            value: text.clone(),
            why: "it is no time".into(),
        }),
    };
    let request = ops::logs::Request {
        follow: args.follow,
        // As in docker, what is no number means everything.
        tail: args.tail.parse().ok(),
        timestamps: args.timestamps,
        since: time("--since", &args.since)?,
        until: time("--until", &args.until)?,
    };
    let store = readable(cx)?;
    for name in &args.containers {
        ops::logs::logs(&store, name, &request, &mut |stream, bytes| show(ui, stream, bytes))?;
    }
    Ok(0)
}

/// Arguments of `container inspect`.
#[derive(Debug, Args)]
pub(in crate::cmd) struct InspectArgs {
    /// Print with a template, or as `json` on one line
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show sizes
    #[arg(short, long)]
    size: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `strate container inspect`
pub(in crate::cmd) fn inspect(cx: &mut Context, ui: &mut Ui, args: InspectArgs) -> CmdResult {
    let store = readable(cx)?;
    let template = match args.format.as_deref() {
        None | Some("" | "json") => None,
        Some(text) => Some(Template::parse(text).map_err(|error| CmdError::from(error).with_exit_code(64))?),
    };
    let mut found = Vec::new();
    let code = super::each(ui, &args.containers, |_, name| {
        found.push(ops::inspect_container::inspect_container(&store, name, args.size)?);
        Ok(())
    });
    match (template, args.format.as_deref()) {
        (Some(template), _) => {
            for value in &found {
                ui.line(template.render(value)?);
            }
        }
        (None, Some("json")) => found.iter().for_each(|value| ui.line(value)),
        (None, _) => ui.line(pretty(&Value::Array(found))?),
    }
    Ok(code)
}

/// Four spaces, as docker indents.
fn pretty(value: &Value) -> Result<String, serde_json::Error> {
    let mut text = Vec::new();
    let format = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, format);
    serde::Serialize::serialize(value, &mut serializer)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_listed_as_docker_lists_them() {
        assert_eq!(command_words(&["sh", "-c", "echo a"]), "sh -c 'echo a'");
        assert_eq!(command_words(&["a b", "c"]), "a b c");
        assert_eq!(command_words::<&str>(&[]), "");
    }
}
