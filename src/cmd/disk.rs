//! Verbs that show what takes room: `system df`, `builder du`.

use std::fmt::Write;

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::CmdResult;
use super::container::{command_words, status};
use crate::context::Context;
use crate::ops::df::{self as op, DiskUsage};
use crate::ops::prune::{self, CacheItem};
use crate::ui::format::{Column, Listing, Template};
use crate::ui::table::Table;
use crate::ui::{Ui, words};

/// Arguments of `system df`.
#[derive(Debug, Args)]
pub(super) struct DfArgs {
    /// List every image, container, volume and part of the build cache
    #[arg(long, short = 'v')]
    verbose: bool,
    /// Print by a Go template: `table TEMPLATE`, `TEMPLATE` or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// `strate system df`
pub(super) fn df(cx: &mut Context, ui: &mut Ui, args: DfArgs) -> CmdResult {
    let columns = [
        Column::new("Type", "TYPE"),
        Column::new("TotalCount", "TOTAL"),
        Column::new("Active", "ACTIVE"),
        Column::new("Size", "SIZE"),
        Column::new("Reclaimable", "RECLAIMABLE"),
    ];
    let shown = ["Type", "TotalCount", "Active", "Size", "Reclaimable"];
    if !args.verbose {
        let listing = Listing::parse(args.format.as_deref(), &columns, &shown)?;
        let disk = op::df(cx)?;
        let rows: Vec<Value> = totals(&disk).iter().map(Total::value).collect();
        ui.text(&listing.render(&rows)?);
        return Ok(0);
    }
    let template = args.format.as_deref().map(Template::parse).transpose()?;
    let disk = op::df(cx)?;
    match template {
        Some(template) => ui.line(template.render(&everything(&disk))?),
        None => ui.text(&everything_text(&disk)),
    }
    Ok(0)
}

/// A line of the overview.
struct Total {
    what: &'static str,
    count: usize,
    active: usize,
    size: u64,
    reclaimable: u64,
}

impl Total {
    fn value(&self) -> Value {
        let share = match self.size {
            0 => String::new(),
            size => format!(" ({}%)", self.reclaimable.min(size) * 100 / size),
        };
        json!({
            "Type": self.what,
            "TotalCount": self.count.to_string(),
            "Active": self.active.to_string(),
            "Size": words::size(self.size),
            "Reclaimable": format!("{}{share}", words::size(self.reclaimable)),
            "Total": self.count,
            "RawSize": self.size,
            "RawReclaimable": self.reclaimable,
        })
    }
}

fn totals(disk: &DiskUsage) -> [Total; 5] {
    let usage = &disk.usage;
    let distinct = |used: bool| {
        let wanted = usage.images.iter().filter(|image| !used || image.containers > 0);
        wanted.map(|image| &image.record.id).collect::<std::collections::BTreeSet<_>>().len()
    };
    let running = usage.containers.iter().filter(|container| container.state.is_running());
    let idle = usage.containers.iter().filter(|container| !container.state.is_running());
    let linked = |name: &String| disk.links.contains_key(name);
    let own = |items: &mut dyn Iterator<Item = &CacheItem>| items.map(|item| item.own).sum();
    [
        Total {
            what: "Images",
            count: distinct(false),
            active: distinct(true),
            size: usage.images_size,
            reclaimable: usage.images_evictable,
        },
        Total {
            what: "Containers",
            count: usage.containers.len(),
            active: running.count(),
            size: usage.containers.iter().map(|container| container.size).sum(),
            reclaimable: idle.map(|container| container.size).sum(),
        },
        Total {
            what: "Local Volumes",
            count: usage.volumes.len(),
            active: usage.volumes.iter().filter(|(name, _)| linked(name)).count(),
            size: usage.volumes.iter().map(|(_, size)| size).sum(),
            reclaimable: usage.volumes.iter().filter(|(name, _)| !linked(name)).map(|(_, size)| size).sum(),
        },
        Total {
            what: "Build Cache",
            count: usage.cache.len(),
            active: usage.cache.iter().filter(|item| item.in_use).count(),
            size: own(&mut usage.cache.iter()),
            reclaimable: own(&mut usage.cache.iter().filter(|item| !item.in_use)),
        },
        Total {
            what: "Other",
            count: usage.other.iter().map(|other| other.count).sum(),
            active: usage.other.iter().map(|other| other.active).sum(),
            size: usage.other.iter().map(|other| other.size).sum(),
            reclaimable: usage.other.iter().map(|other| other.evictable).sum(),
        },
    ]
}

fn image_rows(disk: &DiskUsage, now: Timestamp) -> Vec<Value> {
    let none = || "<none>".to_owned();
    let row = |image: &op::ImageUsage| {
        let record = &image.record;
        let tag = record.name.as_ref().and_then(|name| name.tag().map(str::to_owned));
        json!({
            "Repository": record.name.as_ref().map_or_else(none, |name| name.familiar_name()),
            "Tag": tag.unwrap_or_else(none),
            "ID": record.id.digest().short(),
            "CreatedSince": record.created.as_deref().map_or_else(|| "N/A".to_owned(), |t| words::ago(t, now)),
            "Size": words::size(image.size),
            "SharedSize": words::size(image.shared),
            "UniqueSize": words::size(image.size - image.shared),
            "Containers": image.containers.to_string(),
        })
    };
    disk.usage.images.iter().map(row).collect()
}

fn container_rows(disk: &DiskUsage, now: Timestamp) -> Vec<Value> {
    let row = |(container, (args, volumes)): (&op::ContainerUsage, &(Vec<String>, usize))| {
        let record = &container.dir.record;
        let command: String = command_words(args).chars().take(20).collect();
        json!({
            "ID": container.dir.short_id(),
            "Image": record.image_name,
            "Command": format!("\"{command}\""),
            "LocalVolumes": volumes.to_string(),
            "Size": words::size(container.size),
            "RunningFor": words::ago(&record.created, now),
            "Status": status(&container.state, None, now),
            "Names": record.name,
        })
    };
    disk.usage.containers.iter().zip(&disk.programs).map(row).collect()
}

fn cache_rows(disk: &DiskUsage, now: Timestamp) -> Vec<Value> {
    let row = |item: &CacheItem| {
        json!({
            "ID": item.id.get(..12),
            "CacheType": item.kind.name(),
            "Description": item.about,
            "Size": words::size(item.own),
            "CreatedSince": item.made.map_or_else(|| "N/A".to_owned(), |made| ago(made, now)),
            "LastUsedSince": ago(item.used, now),
            "InUse": item.in_use.to_string(),
            "Shared": item.shared.to_string(),
        })
    };
    disk.usage.cache.iter().map(row).collect()
}

fn volume_rows(disk: &DiskUsage) -> Vec<Value> {
    let links = |name: &String| disk.links.get(name).copied().unwrap_or(0);
    let row = |(name, size): &(String, u64)| json!({"Name": name, "Links": links(name).to_string(), "Size": words::size(*size)});
    disk.usage.volumes.iter().map(row).collect()
}

fn other_rows(disk: &DiskUsage) -> Vec<Value> {
    let row = |other: &op::OtherUsage| {
        json!({
            "Type": other.what,
            "TotalCount": other.count.to_string(),
            "Active": other.active.to_string(),
            "Size": words::size(other.size),
            "Reclaimable": words::size(other.evictable),
        })
    };
    disk.usage.other.iter().map(row).collect()
}

fn everything(disk: &DiskUsage) -> Value {
    let now = Timestamp::now();
    json!({
        "Images": image_rows(disk, now),
        "Containers": container_rows(disk, now),
        "Volumes": volume_rows(disk),
        "BuildCache": cache_rows(disk, now),
        "Other": other_rows(disk),
    })
}

fn everything_text(disk: &DiskUsage) -> String {
    let now = Timestamp::now();
    let cache: u64 = disk.usage.cache.iter().map(|item| item.own).sum();
    let mut text = String::from("Images space usage:\n\n");
    text += &table(
        &image_rows(disk, now),
        &[
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("ID", "IMAGE ID"),
            ("CreatedSince", "CREATED"),
            ("Size", "SIZE"),
            ("SharedSize", "SHARED SIZE"),
            ("UniqueSize", "UNIQUE SIZE"),
            ("Containers", "CONTAINERS"),
        ],
    );
    text += "\nContainers space usage:\n\n";
    text += &table(
        &container_rows(disk, now),
        &[
            ("ID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Command", "COMMAND"),
            ("LocalVolumes", "LOCAL VOLUMES"),
            ("Size", "SIZE"),
            ("RunningFor", "CREATED"),
            ("Status", "STATUS"),
            ("Names", "NAMES"),
        ],
    );
    text += "\nLocal Volumes space usage:\n\n";
    text += &table(&volume_rows(disk), &[("Name", "VOLUME NAME"), ("Links", "LINKS"), ("Size", "SIZE")]);
    // Writing to a string cannot fail.
    let _ = write!(text, "\nBuild cache usage: {}\n\n", words::size(cache));
    text += &table(
        &cache_rows(disk, now),
        &[
            ("ID", "CACHE ID"),
            ("CacheType", "CACHE TYPE"),
            ("Size", "SIZE"),
            ("CreatedSince", "CREATED"),
            ("LastUsedSince", "LAST USED"),
            ("InUse", "IN USE"),
            ("Shared", "SHARED"),
        ],
    );
    text += "\nOther space usage:\n\n";
    text += &table(
        &other_rows(disk),
        &[("Type", "TYPE"), ("TotalCount", "TOTAL"), ("Size", "SIZE"), ("Reclaimable", "RECLAIMABLE")],
    );
    text
}

fn table(rows: &[Value], columns: &[(&str, &str)]) -> String {
    let headers: Vec<&str> = columns.iter().map(|(_, header)| *header).collect();
    let mut table = Table::new(&headers);
    for row in rows {
        table.row(columns.iter().map(|(field, _)| row[*field].as_str().unwrap_or_default()));
    }
    table.render()
}

/// Arguments of `builder du`.
#[derive(Debug, Args)]
pub(super) struct DuArgs {
    /// Only what fits: until=TIME (unused since), id=ID, type=TYPE, description=TEXT, shared, private, mutable, inuse
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Say more of each part
    #[arg(long)]
    verbose: bool,
    /// Print by a Go template: `table TEMPLATE`, `TEMPLATE` or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Accepted for docker's sake: there is one builder
    #[arg(long, value_name = "NAME", hide = true)]
    builder: Option<String>,
}

/// `strate builder du`
pub(super) fn du(cx: &mut Context, ui: &mut Ui, args: DuArgs) -> CmdResult {
    let columns = [
        Column::new("ID", "ID"),
        Column::new("Reclaimable", "RECLAIMABLE"),
        Column::new("Size", "SIZE"),
        Column::new("LastUsedAt", "LAST ACCESSED"),
        Column::new("Type", "TYPE"),
        Column::new("Shared", "SHARED"),
        Column::new("Description", "DESCRIPTION"),
    ];
    let listing =
        Listing::parse(args.format.as_deref(), &columns, &["ID", "Reclaimable", "Size", "LastUsedAt"])?;
    let mut what = prune::Cache::default();
    for filter in &args.filter {
        what.add_filter(filter)?;
    }
    let items = prune::cache(cx, &what)?;
    if args.verbose && args.format.is_none() {
        ui.text(&items.iter().map(|item| verbose_item(item) + "\n\n").collect::<String>());
    } else {
        let now = Timestamp::now();
        let rows: Vec<Value> = items.iter().rev().map(|item| item_row(item, now)).collect();
        ui.text(&listing.render(&rows)?);
    }
    if args.format.is_none() && args.filter.is_empty() {
        ui.text(&summary(&items));
    }
    Ok(0)
}

fn item_row(item: &CacheItem, now: Timestamp) -> Value {
    let mark = |yes: bool| if yes { "*" } else { "" };
    json!({
        "ID": format!("{}{}", item.id, mark(item.is_mutable())),
        "Type": item.kind.name(),
        "Description": item.about,
        "Mutable": item.is_mutable(),
        "Reclaimable": (!item.in_use).to_string(),
        "Shared": item.shared.to_string(),
        "Size": format!("{}{}", words::size(item.size), mark(item.shared)),
        "LastUsedAt": ago(item.used, now),
    })
}

/// What BuildKit says of a part of its cache.
pub(super) fn verbose_item(item: &CacheItem) -> String {
    let now = Timestamp::now();
    let made = item.made.and_then(|made| Timestamp::from_second(made).ok());
    let mut lines = vec![("ID", item.id.clone())];
    lines.extend(made.map(|made| ("Created at", made.to_string())));
    lines.push(("Mutable", item.is_mutable().to_string()));
    lines.push(("Reclaimable", (!item.in_use).to_string()));
    lines.push(("Shared", item.shared.to_string()));
    lines.push(("Size", words::size(item.size)));
    if !item.about.is_empty() {
        lines.push(("Description", item.about.replace(['\n', '\t'], " ")));
    }
    lines.push(("Last used", ago(item.used, now)));
    lines.push(("Type", item.kind.name().to_owned()));
    let line = |(name, value): (&str, String)| format!("{:<16}{value}", format!("{name}:"));
    lines.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

fn summary(items: &[CacheItem]) -> String {
    let total: u64 = items.iter().map(|item| item.own).sum();
    let free: u64 = items.iter().filter(|item| !item.in_use).map(|item| item.own).sum();
    let shared: u64 = items.iter().filter(|item| item.shared).map(|item| item.size - item.own).sum();
    let mut text = String::new();
    let mut line = |name: &str, bytes: u64| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<16}{}", format!("{name}:"), words::size(bytes));
    };
    if shared > 0 {
        line("Shared", shared);
        line("Private", total);
    }
    line("Reclaimable", free);
    line("Total", total);
    text
}

/// How long ago that was, in Unix seconds.
fn ago(seconds: i64, now: Timestamp) -> String {
    let past = u64::try_from(now.as_second().saturating_sub(seconds)).unwrap_or(0);
    format!("{} ago", words::duration(past))
}
