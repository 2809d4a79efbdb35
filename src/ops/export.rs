//! `export`: a container's file system becomes one flat tar.

use std::collections::BTreeSet;
use std::io::BufWriter;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::commit::is_stub;
use super::store;
use crate::archive::{self, OutFile};
use crate::context::Context;
use crate::image::{BoxError, Reporter};
use crate::layer::{DiffOptions, write_upper};
use crate::storage::{self, ContainerDir, Snapshot, Stack, Store};

/// What to export where.
#[derive(Debug)]
pub struct Request {
    /// The container as typed.
    pub container: String,
    /// The file, or `-` for standard output, which is no terminal.
    pub output: PathBuf,
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system could not be read or the tar not be written.
    #[error("cannot export container {id}")]
    Export {
        /// The container.
        id: String,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// The archive could not be begun or ended.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] storage::Error),
}

/// Write what a container sees of its image and its own changes, without what is mounted there: volumes and the files
/// that every container is given. It may run meanwhile.
///
/// # Errors
/// See [`Error`]. A file appears under its name only when it is whole.
pub fn export(
    cx: &Context,
    request: &Request,
    report: &dyn Reporter,
    notice: impl Fn(&str) + Send + Sync + 'static,
) -> Result<(), Error> {
    let mut store = store::write(cx, notice)?;
    let dir = store.find_container(&request.container)?;
    store.read_stores_of(&dir.record);
    let out = OutFile::create(&request.output)?;
    let failed = |source: BoxError| Error::Export { id: dir.short_id().into(), source };
    let out = write(&store, &dir, out, report).map_err(failed)?;
    Ok(out.finish()?)
}

fn write(
    store: &Store,
    dir: &ContainerDir,
    out: OutFile,
    report: &dyn Reporter,
) -> Result<OutFile, BoxError> {
    let stubs: BTreeSet<PathBuf> =
        dir.state()?.stubs.iter().map(|path| PathBuf::from(path.trim_start_matches('/'))).collect();
    let (upper, copied) = (dir.path.join("upper"), dir.path.join("rootfs"));
    let stack = store.stack_of(&dir.record.layers, report)?;
    let mut out = BufWriter::with_capacity(1 << 20, out);
    let mut tar = |stack: &Stack, root: std::os::fd::BorrowedFd<'_>, changes: &Path| {
        let options = DiffOptions {
            owner: &|path| stack.owner(path),
            skip: &|path| is_stub(changes, path, &stubs),
            below: &|_| false,
        };
        write_upper(root, &mut out, &options)
    };
    if copied.is_dir() {
        // A tree that was copied once is all there is.
        let root = std::fs::File::open(&copied)?;
        tar(&stack, root.as_fd(), &copied)?;
    } else {
        let stack = with_changes(stack, &upper);
        let mounted = store.mount_read_only(&stack)?;
        tar(&stack, mounted.root.as_fd(), &upper)?;
    }
    Ok(out.into_inner().map_err(std::io::IntoInnerError::into_error)?)
}

/// The container's changes as one more layer: only looked at, they may go on changing.
pub(super) fn with_changes(mut stack: Stack, upper: &Path) -> Stack {
    if upper.is_dir() {
        stack.layers.push(Snapshot { fs: upper.to_owned(), owners: Arc::default(), size: 0 });
    }
    stack
}
