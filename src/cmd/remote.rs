//! Verbs that look at images where they are: `inspect docker://…`, `list-tags`, `referrers`, `search`, `digest` and
//! `delete`. None of them opens the store.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::copy::{OverrideArgs, location};
use super::sides::RegistryArgs;
use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::image::{Event, Location, Reporter};
use crate::oci::{Descriptor, Platform, RawManifest, Reference};
use crate::ops::{
    delete as delete_op, referrers as referrers_op, remote_inspect, search as search_op, tags as tags_op,
};
use crate::ui::format::{Column, Listing, Template};
use crate::ui::{Ui, words};

/// Characters of a description that are shown.
const DESCRIPTION_WIDTH: usize = 45;
/// The largest manifest that `manifest-digest` reads, in bytes.
const MAX_MANIFEST_BYTES: u64 = 4 << 20;

/// What is said while documents are read.
struct Notes;

impl Reporter for Notes {
    fn event(&self, event: Event) {
        if let Event::Note(text) = event {
            Ui::new().note(text);
        }
    }
}

/// Options of `inspect` that are about images elsewhere.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct RemoteInspectArgs {
    /// Of an image elsewhere: print its manifest or index as it is
    #[arg(long)]
    raw: bool,
    /// Of an image elsewhere: print its config; with --raw, as it is
    #[arg(long)]
    config: bool,
    /// Of an image in a registry: list the tags of its repository too
    #[arg(long, conflicts_with = "no_tags")]
    tags: bool,
    /// Accepted for skopeo's sake: tags are not listed unless --tags or a template asks for them
    #[arg(long, short = 'n', hide = true)]
    no_tags: bool,
    #[command(flatten)]
    overrides: OverrideArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl RemoteInspectArgs {
    /// Whether images elsewhere are meant: by their names, or by an option that only makes sense for them.
    pub(super) fn is_meant(&self, names: &[String]) -> bool {
        let given = self.raw || self.config || self.tags || self.no_tags;
        given || names.iter().any(|name| Location::is_meant(name))
    }
}

/// `strate inspect docker://…`: a document for each place.
pub(super) fn inspect_places(
    cx: &Context,
    ui: &mut Ui,
    names: &[String],
    format: Option<&str>,
    platform: Option<&Platform>,
    args: &RemoteInspectArgs,
) -> CmdResult {
    if args.raw && format.is_some() {
        return Err(CmdError::usage("--raw prints bytes as they are: it cannot be combined with --format"));
    }
    let template = format.filter(|text| *text != "json").map(Template::parse).transpose()?;
    let wants_tags = args.tags || format.is_some_and(|text| text.contains("RepoTags")) && !args.no_tags;
    for name in names {
        // A name without a transport is docker's, and of the store.
        let place = match Location::is_meant(name) {
            true => location(cx, name)?,
            false => Location::Store(name.clone()),
        };
        let request = remote_inspect::Request {
            place,
            platform: args.overrides.platform(cx, platform)?,
            tags: wants_tags,
            remote: args.registry.options()?,
        };
        print_place(cx, ui, &request, format, template.as_ref(), args).map_err(|error| {
            match Location::is_meant(name) {
                true => error,
                false => error.with_hint(format!("of an image in a registry, write docker://{name}")),
            }
        })?;
    }
    Ok(0)
}

fn print_place(
    cx: &Context,
    ui: &mut Ui,
    request: &remote_inspect::Request,
    format: Option<&str>,
    template: Option<&Template>,
    args: &RemoteInspectArgs,
) -> Result<(), CmdError> {
    if args.raw {
        let bytes = match args.config {
            true => remote_inspect::config(cx, request, &Notes)?,
            false => remote_inspect::raw(cx, request, &Notes)?,
        };
        ui.bytes(&bytes);
        return Ok(());
    }
    let mut value = match args.config {
        true => config_value(&remote_inspect::config(cx, request, &Notes)?, template.is_some())?,
        false => remote_inspect::inspect(cx, request, &Notes)?,
    };
    if args.no_tags && !args.config {
        insert_empty_tags(&mut value);
    }
    match template {
        Some(template) => ui.line(template.render(&value)?),
        None if format.is_some() => ui.line(value),
        None => ui.text(&indented(&value)?),
    }
    Ok(())
}

/// `--no-tags`, said out loud, gives the empty list that skopeo gives.
fn insert_empty_tags(value: &mut Value) {
    let Value::Object(all) = value else { return };
    let old = std::mem::take(all);
    for (key, value) in old {
        let after = key == "Digest";
        all.insert(key, value);
        if after {
            all.insert("RepoTags".into(), json!([]));
        }
    }
}

/// A config as JSON. Templates written for skopeo name its fields as the Go type does.
fn config_value(bytes: &[u8], for_template: bool) -> Result<Value, CmdError> {
    let mut value: Value = serde_json::from_slice(bytes)
        .map_err(|error| CmdError::new(error).while_doing("the config is not valid JSON"))?;
    if for_template && let Value::Object(all) = &mut value {
        for (json, go) in [
            ("architecture", "Architecture"),
            ("author", "Author"),
            ("config", "Config"),
            ("created", "Created"),
            ("history", "History"),
            ("os", "OS"),
            ("rootfs", "RootFS"),
            ("variant", "Variant"),
        ] {
            if let Some(found) = all.get(json).cloned() {
                all.insert(go.into(), found);
            }
        }
    }
    Ok(value)
}

/// JSON as skopeo indents it: by four spaces.
fn indented(value: &Value) -> Result<String, serde_json::Error> {
    let mut bytes = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut bytes, indent))?;
    bytes.push(b'\n');
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Arguments of `list-tags`.
#[derive(Debug, Args)]
pub(super) struct ListTagsArgs {
    /// The repository: [docker://]REPOSITORY; or docker-archive:FILE, oci:DIR, oci-archive:FILE
    #[arg(value_name = "REPOSITORY")]
    repository: String,
    /// Print by a Go template, or `json`
    #[arg(long, short = 'f', value_name = "TEMPLATE")]
    format: Option<String>,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// `strate list-tags`
pub(super) fn list_tags(cx: &mut Context, ui: &mut Ui, args: ListTagsArgs) -> CmdResult {
    let place = place_or_name(cx, &args.repository)?;
    let found = tags_op::tags(cx, &place, &args.registry.options()?, &Notes)?;
    let mut value = json!({});
    if let Some(repository) = &found.repository {
        value["Repository"] = repository.as_str().into();
    }
    value["Tags"] = json!(found.tags);
    match args.format.as_deref() {
        None => ui.text(&indented(&value)?),
        Some("json") => ui.line(value),
        Some(text) => ui.line(Template::parse(text)?.render(&value)?),
    }
    Ok(0)
}

/// A location, or the name of an image in a registry.
fn place_or_name(cx: &Context, text: &str) -> Result<Location, CmdError> {
    if Location::is_meant(text) {
        return location(cx, text);
    }
    Ok(Location::Registry(Reference::parse(text)?))
}

/// The name of an image in a registry, with or without `docker://`.
fn name_in_registry(text: &str) -> Result<Reference, CmdError> {
    Ok(Reference::parse(text.strip_prefix("docker://").unwrap_or(text))?)
}

/// Arguments of `digest`.
#[derive(Debug, Args)]
pub(super) struct DigestArgs {
    /// The image: a name in a registry, or a place (oci:DIR, store:NAME …)
    #[arg(value_name = "NAME")]
    name: String,
    /// Of the image for this platform, and not of the index: OS[/ARCH[/VARIANT]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// With the name before it
    #[arg(long)]
    full_ref: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// `strate digest`
pub(super) fn digest(cx: &mut Context, ui: &mut Ui, args: DigestArgs) -> CmdResult {
    let place = place_or_name(cx, &args.name)?;
    let request = remote_inspect::Request {
        place: place.clone(),
        platform: args.platform.as_deref().map(str::parse).transpose()?,
        tags: false,
        remote: args.registry.options()?,
    };
    let digest = remote_inspect::digest(cx, &request, &Notes)?;
    match place {
        Location::Registry(name) if args.full_ref => ui.line(name.with_digest(digest)),
        _ => ui.line(digest),
    }
    Ok(0)
}

/// Arguments of `manifest-digest`.
#[derive(Debug, Args)]
pub(super) struct ManifestDigestArgs {
    /// A file with a manifest or index; `-` for standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// `strate manifest-digest`
pub(super) fn manifest_digest(cx: &mut Context, ui: &mut Ui, args: ManifestDigestArgs) -> CmdResult {
    let path = cx.cwd.join(&args.file);
    let mut bytes = Vec::new();
    let read = if args.file.as_os_str() == "-" {
        std::io::stdin().lock().take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(&path).and_then(|file| file.take(MAX_MANIFEST_BYTES + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| CmdError::new(error).while_doing(format!("cannot read `{}`", args.file.display())))?;
    ui.line(RawManifest::new(bytes, None)?.digest);
    Ok(0)
}

/// Arguments of `delete`.
#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// The image in its registry: docker://NAME
    #[arg(value_name = "docker://NAME")]
    name: String,
    /// Remove the tag alone, where the registry can: what it stands for stays
    #[arg(long)]
    tag_only: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// `strate delete`
pub(super) fn delete(cx: &mut Context, ui: &mut Ui, args: DeleteArgs) -> CmdResult {
    let reference = match location(cx, &args.name)? {
        Location::Registry(reference) => reference,
        Location::Store(name) => {
            return Err(CmdError::usage("`delete` removes images from registries")
                .with_hint(format!("strate rmi {name}")));
        }
        other => {
            return Err(CmdError::usage(format!(
                "`delete` removes images from registries: `{other}` is a file or directory to remove as such"
            )));
        }
    };
    let request = delete_op::Request { reference, tag_only: args.tag_only, remote: args.registry.options()? };
    let digest = delete_op::delete(cx, &request, &Notes)?;
    if args.tag_only {
        ui.line(format_args!("Untagged: {}", request.reference));
    } else {
        ui.line(format_args!("Deleted: {}", request.reference.with_digest(digest)));
    }
    Ok(0)
}

/// Arguments of `referrers`.
#[derive(Debug, Args)]
pub(super) struct ReferrersArgs {
    /// The image, in its registry
    #[arg(value_name = "NAME")]
    name: String,
    /// Only artifacts of this type
    #[arg(long, value_name = "TYPE")]
    artifact_type: Option<String>,
    /// Of the image for this platform, and not of the index: OS[/ARCH[/VARIANT]]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Print by a Go template: `table TEMPLATE`, `TEMPLATE`; or `json`: one document
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Print only digests
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// `strate referrers`
pub(super) fn referrers(cx: &mut Context, ui: &mut Ui, args: ReferrersArgs) -> CmdResult {
    let columns = [
        Column::new("Digest", "DIGEST"),
        Column::new("ArtifactType", "ARTIFACT TYPE"),
        Column::new("MediaType", "MEDIA TYPE"),
        Column::new("Size", "SIZE"),
        Column::new("Created", "CREATED"),
    ];
    let json = args.format.as_deref() == Some("json");
    let format = args.format.as_deref().filter(|_| !json);
    let listing = Listing::parse(format, &columns, &["Digest", "ArtifactType", "Size", "Created"])?;
    let request = referrers_op::Request {
        reference: name_in_registry(&args.name)?,
        platform: args.platform.as_deref().map(str::parse).transpose()?,
        artifact_type: args.artifact_type,
        remote: args.registry.options()?,
    };
    let found = referrers_op::referrers(cx, &request, &Notes)?;
    if json {
        let document = json!({
            "repository": found.repository,
            "subject": found.subject.to_string(),
            "manifests": found.manifests,
        });
        ui.text(&indented(&document)?);
    } else if args.quiet && format.is_none() {
        found.manifests.iter().for_each(|one| ui.line(one.digest()));
    } else {
        let rows: Vec<Value> = found.manifests.iter().map(referrer_row).collect();
        ui.text(&listing.render(&rows)?);
    }
    Ok(0)
}

fn referrer_row(descriptor: &Descriptor) -> Value {
    let annotation = |key: &str| descriptor.annotations().as_ref().and_then(|all| all.get(key).cloned());
    json!({
        "Digest": descriptor.digest().to_string(),
        "ArtifactType": referrers_op::artifact_type_of(descriptor).unwrap_or_default(),
        "MediaType": descriptor.media_type().to_string(),
        "Size": words::size(descriptor.size()),
        "Created": annotation("org.opencontainers.image.created").unwrap_or_default(),
        "Annotations": descriptor.annotations(),
    })
}

/// Arguments of `search`.
#[derive(Debug, Args)]
pub(super) struct SearchArgs {
    /// What to look for: [REGISTRY/]TERM
    #[arg(value_name = "TERM")]
    term: String,
    /// The most hits to show
    #[arg(long, value_name = "N", default_value_t = 25)]
    limit: usize,
    /// Only what fits: stars=N, is-official=BOOL
    #[arg(long, short = 'f', value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// Show descriptions in full
    #[arg(long)]
    no_trunc: bool,
    /// List the tags of the repository TERM
    #[arg(long)]
    list_tags: bool,
    /// Print by a Go template: `table TEMPLATE`, `TEMPLATE` or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Accepted for podman's sake: the columns are docker's anyway
    #[arg(long, hide = true)]
    compatible: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

/// `strate search`
pub(super) fn search(cx: &mut Context, ui: &mut Ui, args: SearchArgs) -> CmdResult {
    let _ = args.compatible;
    if args.list_tags {
        return search_tags(cx, ui, &args);
    }
    let columns = [
        Column::new("Name", "NAME"),
        Column::new("Description", "DESCRIPTION"),
        Column::new("StarCount", "STARS"),
        Column::new("IsOfficial", "OFFICIAL"),
    ];
    let listing = Listing::parse(
        args.format.as_deref(),
        &columns,
        &["Name", "Description", "StarCount", "IsOfficial"],
    )?;
    let (stars, official) = filters(&args.filter)?;
    let request = search_op::Request {
        term: args.term,
        limit: args.limit.clamp(1, 1000),
        stars,
        official,
        remote: args.registry.options()?,
    };
    let found = search_op::search(cx, &request, &Notes)?;
    let rows: Vec<Value> =
        found.hits.iter().map(|hit| search_row(&found.registry, hit, args.no_trunc)).collect();
    ui.text(&listing.render(&rows)?);
    Ok(0)
}

fn search_row(registry: &str, hit: &search_op::SearchHit, no_trunc: bool) -> Value {
    let name = match registry {
        crate::oci::DEFAULT_REGISTRY => hit.name.clone(),
        registry => format!("{registry}/{}", hit.name),
    };
    let description = hit.description.replace(['\n', '\r', '\t'], " ");
    let description = match no_trunc || description.chars().count() <= DESCRIPTION_WIDTH {
        true => description,
        false => description.chars().take(DESCRIPTION_WIDTH - 1).chain(['…']).collect(),
    };
    json!({
        "Name": name,
        "Description": description,
        "StarCount": hit.stars.to_string(),
        "IsOfficial": if hit.official { "[OK]" } else { "" },
        "IsAutomated": "",
    })
}

/// `--filter` as the fewest stars, and whether official.
fn filters(texts: &[String]) -> Result<(u64, Option<bool>), CmdError> {
    let (mut stars, mut official) = (0, None);
    for text in texts {
        let bad =
            || CmdError::usage(format!("invalid filter `{text}`: there are stars=N and is-official=BOOL"));
        match text.split_once('=').ok_or_else(bad)? {
            ("stars", value) => stars = value.parse().map_err(|_| bad())?,
            ("is-official", value) => official = Some(value.parse().map_err(|_| bad())?),
            ("is-automated", "false") => {}
            _ => return Err(bad()),
        }
    }
    Ok((stars, official))
}

/// `search --list-tags`, as podman prints it.
fn search_tags(cx: &Context, ui: &mut Ui, args: &SearchArgs) -> CmdResult {
    let columns = [Column::new("Name", "NAME"), Column::new("Tag", "TAG")];
    let json = args.format.as_deref() == Some("json");
    let format = args.format.as_deref().filter(|_| !json);
    let listing = Listing::parse(format, &columns, &["Name", "Tag"])?;
    let place = Location::Registry(name_in_registry(&args.term)?);
    let mut found = tags_op::tags(cx, &place, &args.registry.options()?, &Notes)?;
    found.tags.truncate(args.limit.max(1));
    let name = found.repository.unwrap_or_default();
    if json {
        ui.text(&indented(&json!([{ "Name": name, "Tags": found.tags }]))?);
        return Ok(0);
    }
    let rows: Vec<Value> = found.tags.iter().map(|tag| json!({ "Name": name, "Tag": tag })).collect();
    ui.text(&listing.render(&rows)?);
    Ok(0)
}
