//! `import`: the tar of a file system becomes an image of one layer.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::container::changes;
use super::remote::RemoteOptions;
use super::{container, when};
use crate::archive::decompressed;
use crate::context::Context;
use crate::image::Edit;
use crate::oci::{History, ImageConfig, ImageId, Platform, Reference};
use crate::{registry, storage};

/// What to import, and as what.
#[derive(Debug)]
pub struct Request {
    /// A file, `-` for standard input, or an http address.
    pub source: String,
    /// The new image's name.
    pub name: Option<Reference>,
    /// Instructions that change its config.
    pub changes: Vec<String>,
    /// Why.
    pub message: Option<String>,
    /// What it is for.
    pub platform: Platform,
}

/// Why nothing was imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not even the end of a tar: a pipe whose other end failed.
    #[error("cannot import `{0}`: it is empty")]
    Empty(String),
    /// The source cannot be fetched.
    #[error("cannot fetch `{url}`")]
    Fetch {
        /// The address.
        url: String,
        /// Why.
        #[source]
        source: registry::Error,
    },
    /// An instruction makes no sense here.
    #[error(transparent)]
    Change(#[from] container::Error),
    /// The layer or image could not be made.
    #[error("cannot import `{what}`")]
    Import {
        /// The source.
        what: String,
        /// Why.
        #[source]
        source: storage::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// Make an image of a file system.
///
/// # Errors
/// See [`Error`]; a name then stands for what it stood for.
pub fn import(cx: &Context, request: &Request) -> Result<ImageId, Error> {
    // A bad instruction is told before anything is read.
    let mut config = ImageConfig::empty(&request.platform);
    for change in &request.changes {
        changes::apply(&mut config.config, change)?;
    }
    let store = super::store::write_plainly(cx)?;
    let input = not_empty(open(cx, &request.source)?, shown(&request.source))?;
    let failed = |source| Error::Import { what: shown(&request.source).to_owned(), source };
    let (_, tar) =
        decompressed(input).map_err(|source| Error::Read { path: shown(&request.source).into(), source })?;
    let layer = store.import_layer(tar).map_err(failed)?;
    let from = || format!("Imported from {}", request.source);
    let history = History {
        created: Some(when::now()),
        comment: Some(request.message.clone().unwrap_or_else(from)),
        ..History::default()
    };
    let edit = Edit {
        config,
        base_layers: Vec::new(),
        new_layers: vec![layer],
        history: vec![history],
        docker_types: false,
        annotations: std::collections::BTreeMap::new(),
    };
    let names: Vec<Reference> = request.name.iter().cloned().collect();
    let image = store.publish_image(edit, &names).map_err(failed)?;
    store.settle()?;
    Ok(image.id)
}

fn shown(source: &str) -> &str {
    if source == "-" { "standard input" } else { source }
}

fn not_empty(mut input: Box<dyn Read + Send>, shown: &str) -> Result<Box<dyn Read + Send>, Error> {
    let mut first = Vec::with_capacity(1);
    let read = input.by_ref().take(1).read_to_end(&mut first);
    match read.map_err(|source| Error::Read { path: shown.into(), source })? {
        0 => Err(Error::Empty(shown.to_owned())),
        _ => Ok(Box::new(std::io::Cursor::new(first).chain(input))),
    }
}

fn open(cx: &Context, source: &str) -> Result<Box<dyn Read + Send>, Error> {
    if source == "-" {
        return Ok(Box::new(std::io::stdin()));
    }
    if source.starts_with("http://") || source.starts_with("https://") {
        let settings = RemoteOptions::default().settings(cx);
        return registry::fetch(&settings, source)
            .map_err(|error| Error::Fetch { url: source.to_owned(), source: error });
    }
    let path = cx.cwd.join(Path::new(source));
    let file = File::open(&path).map_err(|error| Error::Read { path, source: error })?;
    Ok(Box::new(file))
}
