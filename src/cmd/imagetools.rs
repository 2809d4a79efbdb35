//! `buildx imagetools`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::manifest::{RegistryArgs, indented};
use super::progress::ProgressArgs;
use super::{CmdError, CmdResult};
use crate::context::Context;
use crate::image::Member;
use crate::oci::{Platform, Reference, media_type};
use crate::ops::imagetools::{self as op, Inspected, Part};
use crate::ui::Ui;
use crate::ui::format::Template;
use crate::ui::progress::{Direction, Progress};

/// Arguments of `imagetools`.
#[derive(Debug, Args)]
pub(super) struct ImagetoolsArgs {
    #[command(subcommand)]
    verb: Imagetools,
    /// Accepted for docker's sake: there are no builders
    #[arg(long, hide = true, global = true, value_name = "NAME")]
    builder: Option<String>,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one value, made once")]
enum Imagetools {
    /// Make an image of images that are in registries
    Create(CreateArgs),
    /// Show what a name in a registry stands for
    Inspect(InspectArgs),
}

/// `strate buildx imagetools`
pub(super) fn imagetools(cx: &mut Context, ui: &mut Ui, args: ImagetoolsArgs) -> CmdResult {
    let _ = args.builder;
    match args.verb {
        Imagetools::Create(args) => create(cx, ui, args),
        Imagetools::Inspect(args) => inspect(cx, ui, &args),
    }
}

/// Arguments of `imagetools create`.
#[derive(Debug, Args)]
struct CreateArgs {
    /// What it is made of: names, digests or descriptors (JSON)
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// Its name
    #[arg(long, short, value_name = "NAME")]
    tag: Vec<String>,
    /// File with one more source
    #[arg(long, short, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// Add to what the first name stands for
    #[arg(long)]
    append: bool,
    /// Show the document instead of sending it
    #[arg(long)]
    dry_run: bool,
    /// Annotation: [index:|manifest-descriptor[PLATFORM]:]KEY=VALUE
    #[arg(long, value_name = "[TYPE:]KEY=VALUE")]
    annotation: Vec<String>,
    /// Only images for these platforms
    #[arg(long, short, value_name = "PLATFORM", value_delimiter = ',')]
    platform: Vec<Platform>,
    /// Make an index of a single image too; `false` copies it as it is
    #[arg(
        long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true",
        default_missing_value = "true", hide_default_value = true
    )]
    prefer_index: Option<bool>,
    /// Write digest and descriptor to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

fn create(cx: &mut Context, ui: &mut Ui, args: CreateArgs) -> CmdResult {
    let mut parts = Vec::new();
    for path in &args.file {
        let path = cx.cwd.join(path);
        let text = std::fs::read_to_string(&path)
            .map_err(|error| CmdError::new(error).while_doing(format!("cannot read `{}`", path.display())))?;
        parts.push(text.parse::<Part>()?);
    }
    for source in &args.sources {
        parts.push(source.parse::<Part>()?);
    }
    let (annotations, on_descriptors) = annotations(&args.annotation)?;
    let request = op::CreateRequest {
        parts,
        tags: args.tag.iter().map(|tag| Reference::parse(tag)).collect::<Result<_, _>>()?,
        append: args.append,
        dry_run: args.dry_run,
        prefer_index: args.prefer_index.unwrap_or(true),
        platforms: args.platform,
        annotations,
        on_descriptors,
        remote: args.registry.options()?,
    };
    let progress = Progress::new(Direction::Push, args.progress.display(cx, ui, false)?);
    let mut sent = Vec::new();
    let result = op::create(cx, &request, &progress, &mut |tag| sent.push(tag.clone()));
    progress.finish();
    for tag in &sent {
        ui.note(format_args!("pushed {tag}"));
    }
    let raw = result?;
    if let Some(path) = &args.metadata_file {
        let path = cx.cwd.join(path);
        let text = indented(&op::metadata(&raw, &request.tags))? + "\n";
        std::fs::write(&path, text).map_err(|error| {
            CmdError::new(error).while_doing(format!("cannot write `{}`", path.display()))
        })?;
    }
    if args.dry_run {
        ui.line(String::from_utf8_lossy(&raw.bytes));
    }
    Ok(0)
}

/// Annotations of the index, and those of the descriptors in it.
type Annotations = (BTreeMap<String, String>, Vec<(Option<Platform>, String, String)>);

/// `[TYPE[,TYPE]:]KEY=VALUE`, where a type is `index` or `manifest-descriptor[PLATFORM]`.
fn annotations(texts: &[String]) -> Result<Annotations, CmdError> {
    let (mut of_index, mut on_descriptors) = (BTreeMap::new(), Vec::new());
    for text in texts {
        let bad = || CmdError::usage(format!("`{text}` is no annotation: expected [TYPE:]KEY=VALUE"));
        let (name, value) = text.split_once('=').ok_or_else(bad)?;
        let (kinds, key) = name.rsplit_once(':').unwrap_or(("index", name));
        if key.is_empty() {
            return Err(bad());
        }
        for kind in kinds.split(',') {
            let (kind, platform) = match kind.split_once('[') {
                Some((kind, rest)) => {
                    let platform = rest.strip_suffix(']').ok_or_else(bad)?;
                    (kind, Some(platform.parse::<Platform>()?))
                }
                None => (kind, None),
            };
            match kind {
                "index" if platform.is_none() => {
                    of_index.insert(key.to_owned(), value.to_owned());
                }
                "manifest-descriptor" => on_descriptors.push((platform, key.to_owned(), value.to_owned())),
                _ => {
                    return Err(CmdError::usage(format!(
                        "annotations of type `{kind}` are not possible here: there are index and manifest-descriptor[PLATFORM]"
                    )));
                }
            }
        }
    }
    Ok((of_index, on_descriptors))
}

/// Arguments of `imagetools inspect`.
#[derive(Debug, Args)]
struct InspectArgs {
    /// A name in a registry
    #[arg(value_name = "NAME")]
    name: String,
    /// Print by a Go template: of .Name, .Manifest and .Image
    #[arg(long, value_name = "TEMPLATE", conflicts_with = "raw")]
    format: Option<String>,
    /// Byte for byte, without a line end
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

fn inspect(cx: &mut Context, ui: &mut Ui, args: &InspectArgs) -> CmdResult {
    let name = args.name.strip_prefix("docker://").unwrap_or(&args.name);
    let format = args.format.as_deref().map(by_json_names);
    if let Some(lacking) = format
        .as_ref()
        .and_then(|text| ["SBOM", "Provenance"].into_iter().find(|field| text.contains(&format!(".{field}"))))
    {
        return Err(CmdError::usage(format!("--format: .{lacking} is not supported")));
    }
    let template = format.as_deref().map(Template::parse).transpose()?;
    // The configs cost a request each.
    let configs = format.as_ref().is_some_and(|text| text.contains(".Image") || !text.contains(".Manifest"));
    let progress = Progress::new(Direction::Pull, ProgressArgs::default().display(cx, ui, false)?);
    let result = op::inspect(cx, name, configs, &args.registry.options()?, &progress);
    progress.finish();
    let found = result?;
    match template {
        _ if args.raw => ui.text(&String::from_utf8_lossy(&found.raw.bytes)),
        Some(template) => ui.line(template.render(&document(&found)?)?),
        None => ui.text(&text(&found)),
    }
    Ok(0)
}

/// What a template sees, as buildx has it.
fn document(found: &Inspected) -> Result<Value, CmdError> {
    let raw = &found.raw;
    let mut manifest = json!({ "mediaType": raw.media_type, "digest": raw.digest, "size": raw.bytes.len() });
    if media_type::is_index(&raw.media_type) {
        let own: Value = serde_json::from_slice(&raw.bytes)?;
        manifest["schemaVersion"] = own["schemaVersion"].clone();
        manifest["manifests"] = own["manifests"].clone();
        if own["annotations"].is_object() {
            manifest["annotations"] = own["annotations"].clone();
        }
    }
    let image = match found.configs.as_slice() {
        [] => Value::Null,
        [(_, only)] => only.clone(),
        several => Value::Object(several.iter().cloned().collect()),
    };
    Ok(json!({ "Name": found.name.to_string(), "Manifest": manifest, "Image": image }))
}

/// The names of Go's fields that differ from those of the JSON.
const FIELDS: [(&str, &str); 15] = [
    ("Annotations", "annotations"),
    ("Architecture", "architecture"),
    ("Author", "author"),
    ("Config", "config"),
    ("Created", "created"),
    ("Digest", "digest"),
    ("History", "history"),
    ("Manifests", "manifests"),
    ("MediaType", "mediaType"),
    ("OS", "os"),
    ("Platform", "platform"),
    ("RootFS", "rootfs"),
    ("SchemaVersion", "schemaVersion"),
    ("Size", "size"),
    ("Variant", "variant"),
];

/// A template of buildx names Go's fields; our values have those of the JSON.
fn by_json_names(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find('.') {
        let (before, after) = rest.split_at(at + 1);
        out.push_str(before);
        let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
        let (word, tail) = after.split_at(end);
        let inside = out.rfind("{{").is_some_and(|open| !out[open..].contains("}}"));
        let renamed = FIELDS.iter().find(|(go, _)| inside && *go == word);
        out.push_str(renamed.map_or(word, |(_, json)| json));
        rest = tail;
    }
    out + rest
}

/// What people see.
fn text(found: &Inspected) -> String {
    let mut out = format!(
        "Name:      {}\nMediaType: {}\nDigest:    {}\n",
        found.name, found.raw.media_type, found.raw.digest
    );
    if media_type::is_index(&found.raw.media_type) {
        out.push_str("\nManifests:\n");
        let blocks: Vec<String> = found.members.iter().map(|member| block(&found.name, member)).collect();
        out.push_str(&blocks.join("\n"));
    }
    out
}

fn block(name: &Reference, member: &Member) -> String {
    let name = name.at_digest(member.digest.clone());
    let mut lines = vec![("Name:", name.to_string()), ("MediaType:", member.media_type.clone())];
    if let Some(platform) = &member.platform {
        lines.push(("Platform:", Platform::from(platform).to_string()));
        if let Some(version) = &platform.os_version {
            lines.push(("OSVersion:", version.clone()));
        }
        if !platform.os_features.is_empty() {
            lines.push(("OSFeatures:", platform.os_features.join(", ")));
        }
    }
    let width = lines.iter().map(|(key, _)| key.len()).max().unwrap_or(0);
    let mut out: String = lines.iter().map(|(key, value)| format!("  {key:width$} {value}\n")).collect();
    if !member.annotations.is_empty() {
        out.push_str("  Annotations:\n");
        let width = member.annotations.keys().map(String::len).max().unwrap_or(0) + 1;
        for (key, value) in &member.annotations {
            let key = format!("{key}:");
            out.push_str(&format!("    {key:width$} {value}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gos_fields_become_those_of_the_json() {
        for (typed, meant) in [
            ("{{.Manifest.Digest}}", "{{.Manifest.digest}}"),
            ("{{json .Manifest}} .Digest", "{{json .Manifest}} .Digest"),
            (
                "{{range .Manifest.Manifests}}{{.Platform.OS}}.{{end}}",
                "{{range .Manifest.manifests}}{{.platform.os}}.{{end}}",
            ),
            ("{{.Image.Config.Env}}", "{{.Image.config.Env}}"),
            ("", ""),
        ] {
            assert_eq!(by_json_names(typed), meant);
        }
    }

    #[test]
    fn annotations_have_types() {
        let texts =
            ["a=1", "index:b=2", "manifest-descriptor[linux/arm64]:c=3", "index,manifest-descriptor:d=4"];
        let texts = texts.map(str::to_owned);
        let (index, descriptors) = annotations(&texts).unwrap();
        assert_eq!(index.keys().collect::<Vec<_>>(), ["a", "b", "d"]);
        assert_eq!(descriptors.len(), 2);
        assert!(descriptors[0].0.is_some() && descriptors[1].0.is_none());
        for bad in ["x", "manifest:a=1", "=1", "index[linux]:a=1", "manifest-descriptor[linux:a=1"] {
            assert!(annotations(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
