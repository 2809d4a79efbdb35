//! Floor 4: text → instructions with spans → stage graph → steps. BuildKit's frontend is the reference for the language.

mod add;
mod agent;
pub mod ast;
mod beneath;
pub mod check;
mod checksum;
mod chmod;
mod chown;
mod copy;
mod copy_step;
mod error;
pub mod excerpt;
mod execute;
pub mod expand;
mod export;
mod flags;
pub mod frontend;
pub mod git_ref;
pub mod go;
pub mod graph;
mod heredoc;
pub mod history;
pub mod ignore;
mod instruction;
mod interrupt;
mod lines;
mod lint;
mod listing;
pub mod metadata;
pub mod mount;
mod named;
pub mod outline;
pub mod parse;
pub mod pattern;
mod ports;
pub mod progress;
mod put;
mod record;
mod rehearsal;
mod remarks;
mod remote;
mod request;
mod rewrite;
mod run;
mod run_mounts;
pub mod scope;
mod select;
mod shell_pattern;
mod sources;
mod stat_cache;
mod state;
mod stubs;
pub mod suggest;
mod tree;
mod vertex;
mod words;

pub use add::{looks_like_archive, unpack_context};
pub use copy::CopyError;
pub use error::{Error, Failure};
pub use execute::{Made, Workshop, build, check, outline};
pub use export::{ExportError, LocalExport, export_local, export_tar};
pub use interrupt::Interrupt;
pub use listing::{ContextEntry, context_entries};
pub use parse::{parse, parse_triggers};
pub use rehearsal::Configs;
pub use remote::{Checkout, Commit, ContextDir, Download, NamedContext, Remote};
pub use request::{Bases, Request};
pub use rewrite::{NewCompression, RewriteError, Rewriting, Times, rewrite, set_times};
pub use sources::Layers;
pub use vertex::{Board, Parts, Work};

/// The largest file that [`read_inside`] reads, in bytes: an ignore file or a Dockerfile of this size is a mistake.
const SMALL: u64 = 16 << 20;

/// Read a small file of a directory that may come from anywhere: its links are followed inside the directory only.
/// `None` when it is not there.
///
/// # Errors
/// When it is no regular file, is larger than 16 MiB, or cannot be read.
pub fn read_inside(directory: &std::path::Path, name: &std::path::Path) -> std::io::Result<Option<Vec<u8>>> {
    use std::io::Read as _;
    use std::os::fd::AsFd as _;

    use rustix::fs::{FileType, Mode, OFlags};
    let root = std::fs::File::open(directory)?;
    let found = beneath::resolve(root.as_fd(), name, true)?;
    let Some(stat) = found.stat else { return Ok(None) };
    if beneath::kind(&stat) != FileType::RegularFile {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    let file = beneath::open(root.as_fd(), &found.path, OFlags::RDONLY | OFlags::NONBLOCK, Mode::empty())?;
    let mut bytes = Vec::new();
    std::fs::File::from(file).take(SMALL + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SMALL {
        return Err(std::io::Error::other("it is larger than 16 MiB"));
    }
    Ok(Some(bytes))
}
