//! Verbs that remove what nothing uses: `image prune`, `builder prune`, `system prune`.

use std::error::Error;
use std::fmt::Write;

use clap::Args;
use serde_json::{Value, json};

use super::image::notice;
use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::ops::prune::{self as op, CacheItem, PrunePlan, SystemPruned, parse_size};
use crate::ops::remove_image::Removed;
use crate::ui::format::Template;
use crate::ui::{Ui, prompt, words};

/// So many things are listed one by one in a question.
const LISTED: usize = 20;

/// What every prune takes.
#[derive(Debug, Args)]
struct Common {
    /// Do not ask
    #[arg(long, short = 'f')]
    force: bool,
    /// Show what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Print by a Go template, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Arguments of `image prune`.
#[derive(Debug, Args)]
pub(super) struct ImageArgs {
    /// Also images that have a name, if no container uses them
    #[arg(long, short = 'a')]
    all: bool,
    /// Only images that fit: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE], reference=PATTERN, or others of `images`
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// `strate image prune`
pub(super) fn images(cx: &mut Context, ui: &mut Ui, args: ImageArgs) -> CmdResult {
    let what = op::Images { all: args.all, filters: args.filter };
    let format = template(args.common.format.as_deref())?;
    if args.common.dry_run {
        let plan = op::plan_images(cx, &what)?;
        let value = json!({"ImagesDeleted": planned_images(&plan), "SpaceReclaimed": plan.bytes()});
        return print(ui, format.as_ref(), &value, || {
            section("Would delete Images:", &image_plan_lines(&plan)) + &reclaimable(plan.bytes())
        });
    }
    if !args.common.force {
        let plan = op::plan_images(cx, &what)?;
        let which = match what.all {
            true => "all images without at least one container associated to them",
            false => "all dangling images",
        };
        ask(ui, &format!("WARNING! This will remove {which}."), &image_plan_lines(&plan), plan.bytes());
        if !prompt::agreed()? {
            return Ok(0);
        }
    }
    let done = op::prune_images(cx, &what, notice)?;
    say_stuck(ui, &done.stuck);
    let value = json!({"ImagesDeleted": deleted_images(&done.removed), "SpaceReclaimed": done.bytes});
    print(ui, format.as_ref(), &value, || {
        section("Deleted Images:", &deleted_lines(&done.removed)) + &reclaimed(done.bytes)
    })
}

/// Arguments of `builder prune`.
#[derive(Debug, Args)]
pub(super) struct CacheArgs {
    /// Everything, also what images keep anyway and what the builder remembers of its own work
    #[arg(long, short = 'a')]
    all: bool,
    /// Only what fits: until=TIME (unused since), id=ID, type=TYPE, description=TEXT, shared, private, mutable, inuse
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Keep so much of it, what was used last first: 10GB
    #[arg(long, visible_alias = "keep-storage", value_name = "SIZE", value_parser = size_value)]
    reserved_space: Option<u64>,
    /// Keep no more than so much of it
    #[arg(long, value_name = "SIZE", value_parser = size_value)]
    max_used_space: Option<u64>,
    /// Remove until so much is free on the disk
    #[arg(long, value_name = "SIZE", value_parser = size_value)]
    min_free_space: Option<u64>,
    /// Say more of each part
    #[arg(long)]
    verbose: bool,
    /// Accepted for docker's sake: there is one builder
    #[arg(long, value_name = "NAME", hide = true)]
    builder: Option<String>,
    #[command(flatten)]
    common: Common,
}

fn size_value(text: &str) -> Result<u64, String> {
    parse_size(text).ok_or_else(|| "expected a size such as 512MB or 10GB".to_owned())
}

/// `strate builder prune`
pub(super) fn cache(cx: &mut Context, ui: &mut Ui, args: CacheArgs) -> CmdResult {
    let limits = op::Limits {
        reserved: args.reserved_space.unwrap_or(0),
        max_used: args.max_used_space.unwrap_or(0),
        min_free: args.min_free_space.unwrap_or(0),
    };
    let mut what = op::Cache::new(args.all, limits);
    for filter in &args.filter {
        what.add_filter(filter)?;
    }
    let format = template(args.common.format.as_deref())?;
    let lines = |items: &[CacheItem]| match args.verbose {
        true => items.iter().map(super::disk::verbose_item).collect(),
        false => items.iter().map(|item| item.id.clone()).collect::<Vec<_>>(),
    };
    if args.common.dry_run {
        let items = op::plan_cache(cx, &what)?;
        let bytes = own(&items);
        let value = json!({"CachesDeleted": ids(&items), "SpaceReclaimed": bytes});
        return print(ui, format.as_ref(), &value, || {
            let lines = if args.verbose { lines(&items) } else { cache_lines(&items) };
            section("Would delete build cache objects:", &lines) + &reclaimable(bytes)
        });
    }
    if !args.common.force {
        let items = op::plan_cache(cx, &what)?;
        let which = if what.all { "all build cache" } else { "all dangling build cache" };
        ask(ui, &format!("WARNING! This will remove {which}."), &cache_lines(&items), own(&items));
        if !prompt::agreed()? {
            return Ok(0);
        }
    }
    let (items, swept) = op::prune_cache(cx, &what, notice)?;
    say_stuck(ui, &swept.stuck);
    let value = json!({"CachesDeleted": ids(&items), "SpaceReclaimed": swept.bytes});
    print(ui, format.as_ref(), &value, || {
        section("Deleted build cache objects:", &lines(&items)) + &reclaimed(swept.bytes)
    })
}

/// Arguments of `system prune`.
#[derive(Debug, Args)]
pub(super) struct SystemArgs {
    /// All unused images and all build cache, not only dangling images and what nothing keeps
    #[arg(long, short = 'a')]
    all: bool,
    /// Also anonymous volumes that no container uses
    #[arg(long)]
    volumes: bool,
    /// Also what repairs of the store have kept since they could not mend it
    #[arg(long)]
    damaged: bool,
    /// Accepted for podman's sake: builds leave no containers
    #[arg(long, hide = true)]
    build: bool,
    /// Only what fits: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    common: Common,
}

/// `strate system prune`
pub(super) fn system(cx: &mut Context, ui: &mut Ui, args: SystemArgs) -> CmdResult {
    if args.volumes && args.filter.iter().any(|filter| filter.starts_with("until=")) {
        return Err(CmdError::usage(
            "the filter `until` cannot be used with --volumes: volumes have no such time",
        ));
    }
    let what = op::System {
        containers: true,
        all: args.all,
        volumes: args.volumes,
        damaged: args.damaged,
        filters: args.filter,
    };
    prune_system(cx, ui, &what, &args.common)
}

/// Arguments of `prune`.
#[derive(Debug, Args)]
pub(super) struct BuildahArgs {
    /// All images that no container uses
    #[arg(long, short = 'a')]
    all: bool,
    #[command(flatten)]
    common: Common,
}

/// `strate prune`, as buildah has it: images and build cache.
pub(super) fn buildah(cx: &mut Context, ui: &mut Ui, args: BuildahArgs) -> CmdResult {
    let what = op::System { all: args.all, ..op::System::default() };
    prune_system(cx, ui, &what, &args.common)
}

fn prune_system(cx: &Context, ui: &mut Ui, what: &op::System, common: &Common) -> CmdResult {
    let format = template(common.format.as_deref())?;
    if common.dry_run {
        let plan = op::plan_system(cx, what, notice)?;
        let bytes = plan.planned_bytes();
        let value = system_value(&plan, planned_images(&plan.plan), bytes);
        return print(ui, format.as_ref(), &value, || {
            section("Would delete Containers:", &plan.containers.removed)
                + &section("Would delete Volumes:", &volume_lines(&plan))
                + &section("Would delete Images:", &image_plan_lines(&plan.plan))
                + &section("Would delete build cache objects:", &cache_lines(&plan.cache))
                + &section("Would delete damaged things:", &damaged_lines(&plan))
                + &reclaimable(bytes)
        });
    }
    if !common.force {
        let plan = op::plan_system(cx, what, notice)?;
        ask(ui, "WARNING! This will remove:", &system_words(what, &plan), plan.planned_bytes());
        if !prompt::agreed()? {
            return Ok(0);
        }
    }
    let done = op::prune_system(cx, what, notice)?;
    say_stuck(ui, &done.images.stuck);
    say_stuck(ui, &done.cache_swept.stuck);
    let value = system_value(&done, deleted_images(&done.images.removed), done.bytes());
    print(ui, format.as_ref(), &value, || {
        let volumes: Vec<String> = done.volumes.iter().map(|(name, _)| name.clone()).collect();
        section("Deleted Containers:", &done.containers.removed)
            + &section("Deleted Volumes:", &volumes)
            + &section("Deleted Images:", &deleted_lines(&done.images.removed))
            + &section("Deleted build cache objects:", &ids(&done.cache))
            + &section("Deleted damaged things:", &damaged_lines(&done))
            + &reclaimed(done.bytes())
    })
}

/// What a `system prune` takes, in a line for each kind.
fn system_words(what: &op::System, plan: &SystemPruned) -> Vec<String> {
    let line = |text: &str, count: usize, bytes: u64| format!("- {text} ({count}, {})", words::size(bytes));
    let mut lines = Vec::new();
    if what.containers {
        lines.push(line("all stopped containers", plan.containers.removed.len(), plan.containers.bytes));
    }
    if what.volumes {
        let bytes = plan.volumes.iter().map(|(_, bytes)| bytes).sum();
        let text = "all anonymous volumes not used by at least one container";
        lines.push(line(text, plan.volumes.len(), bytes));
    }
    let images = match what.all {
        true => "all images without at least one container associated to them",
        false => "all dangling images",
    };
    lines.push(line(images, plan.plan.images.len(), plan.plan.bytes()));
    let cache = if what.all { "all build cache" } else { "unused build cache" };
    lines.push(line(cache, plan.cache.len(), own(&plan.cache)));
    if what.damaged {
        lines.push(line("what repairs have kept", plan.damaged.paths.len(), plan.damaged.bytes));
    }
    lines.extend(what.filters.iter().map(|filter| format!("filtered with {filter}")));
    lines
}

fn system_value(pruned: &SystemPruned, images: Vec<Value>, bytes: u64) -> Value {
    json!({
        "ContainersDeleted": pruned.containers.removed,
        "VolumesDeleted": pruned.volumes.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        "ImagesDeleted": images,
        "CachesDeleted": ids(&pruned.cache),
        "DamagedDeleted": pruned.damaged.paths,
        "SpaceReclaimed": bytes,
    })
}

fn volume_lines(plan: &SystemPruned) -> Vec<String> {
    plan.volumes.iter().map(|(name, bytes)| format!("{name} ({})", words::size(*bytes))).collect()
}

fn damaged_lines(pruned: &SystemPruned) -> Vec<String> {
    pruned.damaged.paths.iter().map(|path| path.display().to_string()).collect()
}

fn image_plan_lines(plan: &PrunePlan) -> Vec<String> {
    let mut lines = Vec::new();
    for image in &plan.images {
        lines.extend(image.names.iter().map(|name| format!("untagged: {}", name.familiar())));
        lines.push(format!("deleted: {} ({})", image.digest, words::size(image.bytes)));
    }
    if plan.leftovers > 0 {
        lines.push(format!("leftovers that nothing needs ({})", words::size(plan.leftovers)));
    }
    lines
}

fn planned_images(plan: &PrunePlan) -> Vec<Value> {
    let mut all = Vec::new();
    for image in &plan.images {
        all.extend(image.names.iter().map(|name| json!({"Untagged": name.familiar()})));
        all.push(json!({"Deleted": image.digest, "Size": image.bytes}));
    }
    all
}

fn deleted_lines(removed: &[Removed]) -> Vec<String> {
    let line = |one: &Removed| match one {
        Removed::Untagged(name) => format!("untagged: {name}"),
        Removed::Deleted(id) => format!("deleted: {id}"),
    };
    removed.iter().map(line).collect()
}

fn deleted_images(removed: &[Removed]) -> Vec<Value> {
    let value = |one: &Removed| match one {
        Removed::Untagged(name) => json!({"Untagged": name}),
        Removed::Deleted(id) => json!({"Deleted": id}),
    };
    removed.iter().map(value).collect()
}

fn cache_lines(items: &[CacheItem]) -> Vec<String> {
    let line = |item: &CacheItem| {
        format!("{:.12} ({}) {}", item.id, words::size(item.own), item.about).trim_end().to_owned()
    };
    items.iter().map(line).collect()
}

fn ids(items: &[CacheItem]) -> Vec<String> {
    items.iter().map(|item| item.id.clone()).collect()
}

fn own(items: &[CacheItem]) -> u64 {
    items.iter().map(|item| item.own).sum()
}

/// A heading and its lines, and an empty one; nothing where there is nothing to list.
fn section(heading: &str, lines: &[String]) -> String {
    let mut text = String::new();
    if !lines.is_empty() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{heading}\n{}\n", lines.join("\n"));
    }
    text
}

fn reclaimed(bytes: u64) -> String {
    format!("Total reclaimed space: {}\n", words::size(bytes))
}

fn reclaimable(bytes: u64) -> String {
    format!("Total reclaimable space: {}\n", words::size(bytes))
}

/// Say what a question is about: what will go, and how much that is.
fn ask(ui: &mut Ui, headline: &str, lines: &[String], bytes: u64) {
    let mut text = headline.to_owned();
    for line in lines.iter().take(LISTED) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {line}");
    }
    if lines.len() > LISTED {
        let _ = write!(text, "\n  and {} more", lines.len() - LISTED);
    }
    let _ = write!(text, "\nAbout {} will be free.", words::size(bytes));
    ui.note(text);
}

/// What is out of the way but still takes room.
fn say_stuck<E: Error>(ui: &mut Ui, stuck: &[E]) {
    for error in stuck {
        let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
        ui.warn(format_args!("{error}{cause}"));
    }
}

fn template(format: Option<&str>) -> Result<Option<Template>, CmdError> {
    Ok(format.map(Template::parse).transpose()?)
}

fn print(ui: &mut Ui, format: Option<&Template>, value: &Value, text: impl FnOnce() -> String) -> CmdResult {
    match format {
        Some(template) => ui.line(template.render(value)?),
        None => ui.text(&text()),
    }
    Ok(0)
}
