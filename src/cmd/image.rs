//! Verbs of the image group.

use std::sync::Arc;

use clap::{ArgAction, Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::remote::{RemoteInspectArgs, inspect_places};
use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::oci::Platform;
use crate::ops::inspect::{Inspected, Kind, Look};
use crate::ops::{history as history_op, images as images_op, inspect as inspect_op};
use crate::ops::{remove_image, tag as tag_op};
use crate::ui::format::{Column, Listing, Template};
use crate::ui::{Ui, words};

/// Characters of `CREATED BY` that are shown.
const CREATED_BY_WIDTH: usize = 45;

/// Arguments of `images`.
#[derive(Debug, Args)]
pub(super) struct ImagesArgs {
    /// Only this repository, name, or pattern
    #[arg(value_name = "REPOSITORY[:TAG]")]
    reference: Option<String>,
    /// Accepted for docker's sake: every image is listed anyway, and steps of builds make none
    #[arg(long, short = 'a')]
    all: bool,
    /// Print only ids
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Show ids in full
    #[arg(long)]
    no_trunc: bool,
    /// Only images that fit: before, dangling, digest, id, label, reference, since, until
    #[arg(long, short = 'f', value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Print by a Go template: `table TEMPLATE`, `TEMPLATE` or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Sort by this
    #[arg(long, value_name = "FIELD", default_value = "created")]
    sort: SortBy,
    /// Without the headings
    #[arg(long, short = 'n')]
    noheading: bool,
}

/// `images --sort`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SortBy {
    /// Newest first
    Created,
    /// By id
    Id,
    /// By repository
    Repository,
    /// Smallest first
    Size,
    /// By tag
    Tag,
}

const IMAGE_COLUMNS: [Column; 8] = [
    Column::new("Repository", "REPOSITORY"),
    Column::new("Tag", "TAG"),
    Column::new("Digest", "DIGEST"),
    Column::new("ID", "IMAGE ID"),
    Column::new("CreatedSince", "CREATED"),
    Column::new("CreatedAt", "CREATED AT"),
    Column::new("Size", "SIZE"),
    Column::new("ReadOnly", "R/O"),
];

/// `strate images`
pub(super) fn images(cx: &mut Context, ui: &mut Ui, args: ImagesArgs) -> CmdResult {
    let _ = args.all;
    let shown: &[&'static str] = match args.digests {
        true => &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"],
        false => &["Repository", "Tag", "ID", "CreatedSince", "Size"],
    };
    // A format that is none is told before anything is read.
    Listing::parse(args.format.as_deref(), &IMAGE_COLUMNS, shown)?;
    let request = images_op::Request { reference: args.reference, filters: args.filter };
    let mut rows = images_op::images(cx, &request)?;
    let mut shown = shown.to_vec();
    // As podman does: the column is there when it says something.
    shown.extend(rows.iter().any(|row| row.read_only).then_some("ReadOnly"));
    let listing = Listing::parse(args.format.as_deref(), &IMAGE_COLUMNS, &shown)?;
    sort(&mut rows, args.sort);
    if args.quiet && args.format.is_none() {
        let ids = rows.iter().flat_map(|row| [shown_id(row, args.no_trunc), "\n"]);
        ui.text(&ids.collect::<String>());
        return Ok(0);
    }
    let now = Timestamp::now();
    let text = match listing.default_columns() {
        // The usual case pays for what is shown alone: there may be thousands.
        Some(_) => {
            listing.table(&rows, |row, field, cell| write_image_cell(row, field, args.no_trunc, now, cell))
        }
        None => {
            let values: Vec<Value> = rows.iter().map(|row| image_row(row, args.no_trunc, now)).collect();
            listing.render(&values)?
        }
    };
    print_rows(ui, &text, args.noheading && args.format.is_none());
    Ok(0)
}

fn print_rows(ui: &mut Ui, text: &str, without_heading: bool) {
    let body = if without_heading { text.split_once('\n').map_or("", |(_, body)| body) } else { text };
    ui.text(body);
}

fn sort(rows: &mut [images_op::Row], by: SortBy) {
    use images_op::Row;
    match by {
        SortBy::Created => {} // they come so
        SortBy::Id => rows.sort_by(|a, b| a.id().cmp(b.id())),
        SortBy::Repository => {
            let key = |row: &Row| (row.repository().map(str::to_owned), row.tag().map(str::to_owned));
            rows.sort_by_cached_key(key);
        }
        SortBy::Size => rows.sort_by_key(|row| row.size),
        SortBy::Tag => {
            let key = |row: &Row| (row.tag().map(str::to_owned), row.repository().map(str::to_owned));
            rows.sort_by_cached_key(key);
        }
    }
}

fn image_row(row: &images_op::Row, no_trunc: bool, now: Timestamp) -> Value {
    const FIELDS: [&str; 11] = [
        "Containers",
        "CreatedAt",
        "CreatedSince",
        "Digest",
        "ID",
        "Repository",
        "SharedSize",
        "Size",
        "Tag",
        "UniqueSize",
        "VirtualSize",
    ];
    let fields =
        FIELDS.iter().map(|field| ((*field).to_owned(), image_cell(row, field, no_trunc, now).into()));
    let mut fields: serde_json::Map<String, Value> = fields.collect();
    fields.insert("IsManifestList".into(), row.is_index.into());
    fields.insert("ReadOnly".into(), row.read_only.into());
    fields.sort_keys();
    Value::Object(fields)
}

/// One field of an image as docker shows it.
fn image_cell(row: &images_op::Row, field: &str, no_trunc: bool, now: Timestamp) -> String {
    let mut cell = String::new();
    write_image_cell(row, field, no_trunc, now, &mut cell);
    cell
}

/// The same, at the end of a text.
fn write_image_cell(row: &images_op::Row, field: &str, no_trunc: bool, now: Timestamp, cell: &mut String) {
    let owned;
    cell.push_str(match field {
        "CreatedAt" => {
            owned = row.created_text().map_or_else(|| "N/A".to_owned(), words::local_time);
            &owned
        }
        "CreatedSince" => {
            owned = row.created().map_or_else(|| "N/A".to_owned(), |time| words::ago_since(time, now));
            &owned
        }
        "Digest" => row.digest(),
        "ID" => shown_id(row, no_trunc),
        "ReadOnly" if row.read_only => "true",
        "ReadOnly" => "false",
        "Repository" => row.repository().unwrap_or("<none>"),
        "Size" | "VirtualSize" => {
            owned = words::size(row.size);
            &owned
        }
        "Tag" => row.tag().unwrap_or("<none>"),
        _ => "N/A",
    });
}

fn shown_id(row: &images_op::Row, no_trunc: bool) -> &str {
    if no_trunc { row.id() } else { row.short_id() }
}

fn id(id: &crate::oci::ImageId, no_trunc: bool) -> String {
    if no_trunc { id.to_string() } else { id.digest().short().to_owned() }
}

/// Arguments of `history`.
#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Which image of an index: OS[/ARCH[/VARIANT]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Print sizes and ages for people
    #[arg(
        long, short = 'H', value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_value = "true", default_missing_value = "true", action = ArgAction::Set
    )]
    human: bool,
    /// Show everything in full
    #[arg(long)]
    no_trunc: bool,
    /// Print only ids
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Print by a Go template: `table TEMPLATE`, `TEMPLATE` or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// `strate history`
pub(super) fn history(cx: &mut Context, ui: &mut Ui, args: HistoryArgs) -> CmdResult {
    let columns = [
        Column::new("ID", "IMAGE"),
        Column::new("CreatedSince", "CREATED"),
        Column::new("CreatedAt", "CREATED AT"),
        Column::new("CreatedBy", "CREATED BY"),
        Column::new("Size", "SIZE"),
        Column::new("Comment", "COMMENT"),
    ];
    let created = if args.human { "CreatedSince" } else { "CreatedAt" };
    let listing =
        Listing::parse(args.format.as_deref(), &columns, &["ID", created, "CreatedBy", "Size", "Comment"])?;
    let steps = history_op::history(cx, &args.image, args.platform.as_ref())?;
    let now = Timestamp::now();
    let rows: Vec<Value> = steps.iter().map(|step| history_row(step, &args, now)).collect();
    if args.quiet && args.format.is_none() {
        let ids = rows.iter().map(|row| format!("{}\n", row["ID"].as_str().unwrap_or_default()));
        ui.text(&ids.collect::<String>());
    } else {
        ui.text(&listing.render(&rows)?);
    }
    Ok(0)
}

fn history_row(step: &history_op::Step, args: &HistoryArgs, now: Timestamp) -> Value {
    let created = step.created.as_deref();
    let by = step.created_by.replace(['\t', '\n'], " ");
    let by = match args.no_trunc || by.chars().count() <= CREATED_BY_WIDTH {
        true => by,
        false => by.chars().take(CREATED_BY_WIDTH - 1).chain(['…']).collect(),
    };
    json!({
        "ID": step.id.as_ref().map_or_else(|| "<missing>".to_owned(), |one| id(one, args.no_trunc)),
        "CreatedSince": created.map_or_else(|| "N/A".to_owned(), |time| words::ago(time, now)),
        "CreatedAt": created.unwrap_or("N/A"),
        "CreatedBy": by,
        "Size": if args.human { words::size(step.size) } else { step.size.to_string() },
        "Comment": step.comment,
    })
}

/// Arguments of `inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// Names or ids; or places: docker://NAME, oci:, oci-archive:, docker-archive: or dir: and a path, store:NAME
    #[arg(value_name = "NAME|ID", required = true)]
    names: Vec<String>,
    /// Print by a Go template, or `json`
    #[arg(long, short = 'f', value_name = "TEMPLATE")]
    format: Option<String>,
    /// Look only for this kind
    #[arg(long = "type", value_name = "KIND")]
    kind: Option<InspectKind>,
    /// Add the sizes of containers
    #[arg(long, short = 's')]
    size: bool,
    /// Which image of an index: OS[/ARCH[/VARIANT]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    remote: RemoteInspectArgs,
}

/// `inspect --type`
#[derive(Debug, Clone, Copy, ValueEnum)]
enum InspectKind {
    /// Containers
    Container,
    /// Images
    Image,
    /// Volumes
    Volume,
    /// All of them: containers first, then images, then volumes
    All,
}

/// `strate inspect`
pub(super) fn inspect(cx: &mut Context, ui: &mut Ui, args: InspectArgs) -> CmdResult {
    let kind = match args.kind {
        Some(InspectKind::Container) => Kind::Container,
        Some(InspectKind::Image) => Kind::Image,
        Some(InspectKind::Volume) => Kind::Volume,
        None | Some(InspectKind::All) => Kind::Any,
    };
    let InspectArgs { names, format, platform, remote, .. } = &args;
    if matches!(kind, Kind::Any | Kind::Image) && remote.is_meant(names) {
        return inspect_places(cx, ui, names, format.as_deref(), platform.as_ref(), remote);
    }
    let look = Look { size: args.size, platform: args.platform };
    print_inspected(cx, ui, &args.names, args.format.as_deref(), kind, &look)
}

/// Arguments of `image inspect`.
#[derive(Debug, Args)]
pub(super) struct ImageInspectArgs {
    /// Names or ids of images
    #[arg(value_name = "IMAGE", required = true)]
    names: Vec<String>,
    /// Print by a Go template, or `json`
    #[arg(long, short = 'f', value_name = "TEMPLATE")]
    format: Option<String>,
    /// Which image of an index: OS[/ARCH[/VARIANT]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    #[command(flatten)]
    remote: RemoteInspectArgs,
}

/// `strate image inspect`
pub(super) fn image_inspect(cx: &mut Context, ui: &mut Ui, args: ImageInspectArgs) -> CmdResult {
    let ImageInspectArgs { names, format, platform, remote } = &args;
    if remote.is_meant(names) {
        return inspect_places(cx, ui, names, format.as_deref(), platform.as_ref(), remote);
    }
    let look = Look { size: false, platform: args.platform };
    print_inspected(cx, ui, &args.names, args.format.as_deref(), Kind::Image, &look)
}

/// What was found goes to stdout, what was not to stderr: a list that is `[]` at least without a template.
pub(super) fn print_inspected(
    cx: &Context,
    ui: &mut Ui,
    names: &[String],
    format: Option<&str>,
    kind: Kind,
    look: &Look,
) -> CmdResult {
    // A template that cannot be parsed is wrong usage: docker's code for it is 64.
    let template = format.map(Template::parse).transpose();
    let template = template.map_err(|error| CmdError::from(error).with_exit_code(64))?;
    let Inspected { found, failures } = inspect_op::inspect(cx, names, kind, look)?;
    match template {
        Some(template) => {
            for value in &found {
                ui.line(template.render(value)?);
            }
        }
        None => ui.text(&pretty(&found)?),
    }
    for error in &failures {
        ui.note(format_args!("error: {}", chain(error.as_ref())));
    }
    if failures.is_empty() { Ok(0) } else { Err(CmdError::silent(1)) }
}

/// An error and its causes on one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

/// JSON as docker indents it: by four spaces.
fn pretty(values: &[Value]) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut bytes, indent);
    serde::Serialize::serialize(values, &mut writer)?;
    bytes.push(b'\n');
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Arguments of `tag`.
#[derive(Debug, Args)]
pub(super) struct TagArgs {
    /// The image
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    /// Its further names
    #[arg(value_name = "TARGET_IMAGE[:TAG]", required = true)]
    targets: Vec<String>,
}

/// `strate tag`
pub(super) fn tag(cx: &mut Context, _ui: &mut Ui, args: TagArgs) -> CmdResult {
    tag_op::tag(cx, &args.source, &args.targets, notice)?;
    Ok(0)
}

/// What the store says while it works: waits for locks, fallbacks.
pub(super) fn notice(text: &str) {
    Ui::new().note(text);
}

/// Arguments of `rmi`.
#[derive(Debug, Args)]
pub(super) struct RmiArgs {
    /// Names or ids
    #[arg(value_name = "IMAGE", required_unless_present = "all")]
    images: Vec<String>,
    /// Remove every image
    #[arg(long, short = 'a', conflicts_with = "images")]
    all: bool,
    /// Untag even if a stopped container uses it or it has several names
    #[arg(long, short = 'f')]
    force: bool,
    /// An image that is not there is no error
    #[arg(long, short = 'i')]
    ignore: bool,
    /// Accepted for docker's sake: there are no untagged parents
    #[arg(long, hide = true)]
    no_prune: bool,
}

/// `strate rmi`
pub(super) fn rmi(cx: &mut Context, ui: &mut Ui, args: RmiArgs) -> CmdResult {
    let _ = args.no_prune;
    let request =
        remove_image::Request { images: args.images, all: args.all, force: args.force, ignore: args.ignore };
    let mut code = 0;
    for outcome in remove_image::remove_images(cx, &request, Arc::new(notice))? {
        for removed in outcome.removed {
            ui.line(match removed {
                remove_image::Removed::Untagged(name) => format!("Untagged: {name}"),
                remove_image::Removed::Deleted(id) => format!("Deleted: {id}"),
            });
        }
        if let Some(failure) = outcome.failure {
            let (absent, in_use) = (failure.absent, failure.in_use);
            if let Some(report) = CmdError::from(failure.error).report() {
                ui.error(&report);
            }
            code = match (absent, in_use) {
                (true, _) if request.force => code,
                (_, true) => 2,
                _ => code.max(1),
            };
        }
    }
    if code == 0 { Ok(0) } else { Err(CmdError::silent(code)) }
}
