//! `save`: images become an archive or a directory.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::store;
pub use crate::archive::Format;
use crate::archive::{self, Member};
use crate::context::Context;
use crate::oci::Reference;
use crate::storage;

/// Where the archive goes.
#[derive(Debug)]
pub enum Target {
    /// Standard output, which is no terminal.
    Stdout,
    /// A file, or for the directory formats a directory.
    Path(PathBuf),
}

/// What to save.
#[derive(Debug)]
pub struct Request {
    /// Names and ids.
    pub images: Vec<String>,
    /// In which form.
    pub format: Format,
    /// Where to.
    pub target: Target,
}

/// Why nothing was saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A directory cannot go to a stream.
    #[error("a directory needs a place: say where with --output")]
    NeedsPath,
    /// The archive could not be written.
    #[error("cannot write `{path}`")]
    Write {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An image could not be written.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// Write images to an archive. A file appears under its name only when it is whole.
///
/// # Errors
/// When an image is unknown or cannot be read, or the archive cannot be written.
pub fn save(cx: &Context, request: &Request) -> Result<(), Error> {
    let store = store::read(cx)?;
    let mut members: Vec<Member> = Vec::new();
    let mut seen = BTreeSet::new();
    for text in &request.images {
        let record = store.find_image(text)?;
        // Named by id, an image has no name in the archive either.
        let typed = Reference::parse(text).is_ok_and(|name| record.name.as_ref() == Some(&name));
        let name = record.name.filter(|name| typed && name.tag().is_some());
        if let Some(name) = &name
            && !seen.insert(name.to_string())
        {
            continue;
        }
        match members.iter_mut().find(|m| m.target == record.target) {
            Some(member) => member.names.extend(name),
            None => members.push(Member { names: name.into_iter().collect(), target: record.target }),
        }
    }
    match &request.target {
        Target::Path(path) if request.format == Format::OciDir => {
            Ok(archive::write_dir(&store, &members, path)?)
        }
        Target::Stdout if request.format == Format::OciDir => Err(Error::NeedsPath),
        Target::Stdout => to_stdout(&store, &members, request.format),
        Target::Path(path) => to_file(&store, &members, request.format, path),
    }
}

fn to_stdout(store: &storage::Store, members: &[Member], format: Format) -> Result<(), Error> {
    let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout().lock());
    archive::write(store, members, format, &mut out)?;
    out.flush().map_err(|source| Error::Write { path: "standard output".into(), source })
}

fn to_file(store: &storage::Store, members: &[Member], format: Format, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    // A pipe or device is written as it is; a file is replaced whole.
    let special = fs::metadata(path).is_ok_and(|meta| !meta.is_file());
    if special {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(path).map_err(failed)?);
        archive::write(store, members, format, &mut out)?;
        return out.flush().map_err(failed);
    }
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let temp = tempfile::Builder::new().prefix(".strate-save-").tempfile_in(dir).map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 20, temp);
    archive::write(store, members, format, &mut out)?;
    let temp = out.into_inner().map_err(|error| failed(error.into_error()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    temp.as_file().set_permissions(mode).map_err(failed)?;
    temp.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
