//! `manifest add --artifact`: files become an artifact (image-spec, manifest, "Guidelines for Artifact Usage") that an
//! index names.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Changed, Error, Finder, Found, Out, edit, find, name_of, take_in};
use crate::context::Context;
use crate::image::{Change, Member, Sink};
use crate::oci::{RawManifest, media_type};
use crate::ops::remote::RemoteOptions;
use crate::storage::Store;

/// What a file is taken for without a word about it.
const ANY_FILE: &str = "application/octet-stream";
/// The type of a config that says nothing: `{}`.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The type of an artifact of which nobody said what it is.
const UNKNOWN: &str = "application/vnd.unknown.artifact.v1";
/// The name of a file (image-spec `annotations.md`).
const TITLE: &str = "org.opencontainers.image.title";

/// `manifest add --artifact`
#[derive(Debug, Clone, Default)]
pub struct ArtifactRequest {
    /// The index.
    pub index: String,
    /// The files.
    pub files: Vec<PathBuf>,
    /// What the artifact is for.
    pub kind: Option<String>,
    /// A file for its config; else an empty one.
    pub config: Option<PathBuf>,
    /// The type of the config.
    pub config_type: Option<String>,
    /// The type of the files.
    pub layer_type: Option<String>,
    /// Leave out the names of the files.
    pub without_titles: bool,
    /// What it refers to: an image by name or digest.
    pub subject: Option<String>,
    /// What the index says of it.
    pub change: Change,
    /// Registry options.
    pub remote: RemoteOptions,
}

/// Make an artifact of files and add it to an index.
///
/// # Errors
/// When a file cannot be read, and as [`super::add`].
pub fn add_artifact(cx: &Context, request: &ArtifactRequest, out: &Out<'_>) -> Result<Changed, Error> {
    let store = super::writable(cx, out)?;
    let name = name_of(&find(&store, &request.index)?)?;
    let finder = Finder { cx, store: &store, remote: &request.remote, report: out.report };
    let subject = request.subject.as_ref().map(|subject| finder.document(subject)).transpose()?;
    let raw = make(cx, &store, request, subject.as_ref())?;
    let mut member = Member::new(&raw, None);
    member.artifact_type = Some(request.kind.clone().unwrap_or_else(|| UNKNOWN.to_owned()));
    member.change(&request.change);
    let found = Found { members: vec![member], ..Found::default() };
    edit(&store, &name, false, |draft, origins| take_in(draft, origins, &found, &name, out.report))
}

/// Keep the files, and the manifest that names them.
fn make(
    cx: &Context,
    store: &Store,
    request: &ArtifactRequest,
    subject: Option<&RawManifest>,
) -> Result<RawManifest, Error> {
    let config = match &request.config {
        Some(path) => {
            let kind = request.config_type.as_deref().unwrap_or(media_type::OCI_CONFIG);
            keep(store, &cx.cwd.join(path), kind)?
        }
        None => {
            let kind = request.config_type.as_deref().unwrap_or(EMPTY);
            json!(store.put_bytes(kind, b"{}")?)
        }
    };
    let mut layers = Vec::new();
    for path in &request.files {
        let kind = request.layer_type.as_deref().unwrap_or(ANY_FILE);
        let mut layer = keep(store, &cx.cwd.join(path), kind)?;
        if let (false, Some(title)) = (request.without_titles, path.file_name()) {
            layer["annotations"] = json!({ TITLE: title.to_string_lossy() });
        }
        layers.push(layer);
    }
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "artifactType": request.kind.as_deref().unwrap_or(UNKNOWN),
        "config": config,
        "layers": layers,
    });
    if let Some(subject) = subject {
        manifest["subject"] = json!(subject.descriptor());
    }
    let failed = |source: crate::image::BoxError| Error::Draft {
        index: request.index.clone(),
        source: crate::image::DraftError::Write(source),
    };
    let bytes = serde_json::to_vec_pretty(&manifest).map_err(|error| failed(error.into()))?;
    let raw = RawManifest::new(bytes, None).map_err(|error| failed(error.into()))?;
    Sink::put_manifest(store, &raw).map_err(failed)?;
    Ok(raw)
}

/// Keep a file as a blob; its descriptor comes back.
fn keep(store: &Store, path: &Path, kind: &str) -> Result<Value, Error> {
    let failed = |source: io::Error| Error::File { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file")));
    }
    let mut blob = store.blob_writer()?;
    io::copy(&mut file, &mut blob).map_err(failed)?;
    Ok(json!(blob.publish(store, kind)?))
}
