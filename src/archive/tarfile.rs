//! A tar as a set of files: an index of offsets, never unpacked to disk.
//!
//! A plain tar in a regular file is indexed by its headers alone, seeking over the content. Anything else (a pipe, a
//! compressed file) is read once by a thread of its own, decompressed, indexed, and kept in a file without a name;
//! who asks for a file waits until it has come by, and who reads it follows close behind. So an archive that begins
//! with its tables, as ours do, is loaded while it streams in.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::decompress::decompressed;
use super::files::{Files, Opened, normal};
use super::{Error, MAX_TABLE, TABLES};
use crate::layer;
use crate::layer::tar::{self, Kind};

/// The most files of an archive. The images of a whole fleet are some thousands.
const MAX_FILES: usize = 100_000;
/// The longest path that is taken into the index, in bytes: image archives name files by digests.
const MAX_PATH: usize = 512;
/// Content up to this size is read over, larger content is skipped by a seek.
const SEEK_FROM: u64 = 256 << 10;
/// Links that lead to links.
const MAX_LINKS: u32 = 8;
/// Bytes after the end of an archive that are still read, so that who writes them is not killed by a closed pipe.
const MAX_TRAILER: u64 = 16 << 20;
/// Unpacked bytes from which on the compression ratio is limited.
const RATIO_FROM: u64 = 4 << 30;
/// The highest compression ratio of a whole archive. gzip cannot do more; honest ones are far below.
const MAX_RATIO: u64 = 1000;

/// A tar, indexed or being indexed.
#[derive(Debug)]
pub(super) struct Tar {
    path: PathBuf,
    /// The tar itself, or the unnamed copy.
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<String, Entry>,
    /// Bytes of the file that may be read.
    filled: u64,
    ended: bool,
    failure: Option<Arc<Error>>,
    abandoned: bool,
}

#[derive(Debug, Clone)]
enum Entry {
    File {
        offset: u64,
        size: u64,
    },
    /// A link, to a path of the archive.
    Link(String),
    Unusable(&'static str),
}

impl Tar {
    /// Index a plain tar in a regular file.
    pub(super) fn index(path: &Path, file: File) -> Result<Arc<Self>, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let length = file.metadata().map_err(failed)?.len();
        let tar = Arc::new(Self::new(path, file));
        let mut input = &tar.file;
        let mut start = 0;
        'again: loop {
            input.seek(SeekFrom::Start(start)).map_err(failed)?;
            let mut reader = tar::Reader::new(&mut input);
            loop {
                let next = reader.next_entry().map_err(|error| tar.tar_error(error, start))?;
                let Some(entry) = next else { break 'again };
                let offset = start + reader.offset();
                let stored = entry.stored_size();
                if stored > length.saturating_sub(offset) {
                    let what = "unexpected end of archive".to_owned();
                    return Err(Error::Tar { path: path.to_owned(), offset, what });
                }
                tar.see(entry, offset)?;
                if stored > SEEK_FROM {
                    start = offset + stored.next_multiple_of(512);
                    continue 'again;
                }
            }
        }
        tar.end(None);
        tar.filled_to(u64::MAX);
        Ok(tar)
    }

    /// Take in a stream, compressed or not, as it comes. `scratch` is the directory for what has to be kept.
    pub(super) fn spool(
        path: &Path,
        input: Box<dyn Read + Send>,
        scratch: &Path,
    ) -> Result<Arc<Self>, Error> {
        let keep = |source| Error::Spool { path: path.to_owned(), scratch: scratch.to_owned(), source };
        let file = tempfile::tempfile_in(scratch).map_err(keep)?;
        let tar = Arc::new(Self::new(path, file));
        let (taker, scratch) = (Arc::clone(&tar), scratch.to_owned());
        std::thread::Builder::new()
            .name("archive".into())
            .spawn(move || {
                let guard = EndGuard(&taker);
                let result = taker.take(input, &scratch);
                guard.0.end(result.err());
            })
            .map_err(keep)?;
        Ok(tar)
    }

    /// Blocks of 512 bytes that the file takes.
    #[cfg(test)]
    pub(super) fn kept_blocks(&self) -> u64 {
        self.file.metadata().map_or(u64::MAX, |metadata| std::os::unix::fs::MetadataExt::blocks(&metadata))
    }

    fn new(path: &Path, file: File) -> Self {
        Self { path: path.to_owned(), file, state: Mutex::default(), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn filled_to(&self, bytes: u64) {
        self.state().filled = bytes;
        self.changed.notify_all();
    }

    fn end(&self, failure: Option<Error>) {
        let mut state = self.state();
        if !state.ended {
            state.ended = true;
            state.failure = failure.map(Arc::new);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The thread: read, decompress, keep, index.
    fn take(&self, input: Box<dyn Read + Send>, scratch: &Path) -> Result<(), Error> {
        let failed = |source| Error::Read { path: self.path.clone(), source };
        let packed = Arc::new(AtomicU64::new(0));
        let counted = Counted { inner: input, bytes: Arc::clone(&packed) };
        let (compressed, inner) = decompressed(Box::new(counted)).map_err(failed)?;
        let packed = compressed.then_some(packed);
        let mut keeper = Keeper { tar: self, inner, at: 0, packed, failure: None, scratch };
        let scanned = self.scan(&mut keeper);
        if let Some(failure) = keeper.failure.take() {
            return Err(failure);
        }
        scanned?;
        let mut rest = keeper.inner.take(MAX_TRAILER);
        io::copy(&mut rest, &mut io::sink()).map(drop).map_err(failed)
    }

    fn scan(&self, input: &mut dyn Read) -> Result<(), Error> {
        let mut reader = tar::Reader::new(input);
        while let Some(entry) = reader.next_entry().map_err(|error| self.tar_error(error, 0))? {
            self.see(entry, reader.offset())?;
        }
        Ok(())
    }

    /// Note an entry whose content begins at `offset`.
    fn see(&self, entry: tar::Entry, offset: u64) -> Result<(), Error> {
        let Ok(text) = String::from_utf8(entry.path) else { return Ok(()) };
        let Some(name) = normal(&text).filter(|name| name.len() <= MAX_PATH) else { return Ok(()) };
        let found = match entry.kind {
            Kind::File if entry.sparse.is_some() => Entry::Unusable("is stored as a sparse file"),
            Kind::File => Entry::File { offset, size: entry.size },
            Kind::HardLink => link(normal(&String::from_utf8_lossy(&entry.link))),
            Kind::Symlink => {
                let beside = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                let to = String::from_utf8_lossy(&entry.link);
                link(if to.starts_with('/') { None } else { normal(&format!("{beside}/{to}")) })
            }
            _ => return Ok(()),
        };
        // Said at once: a table of any length would otherwise be kept before it is refused.
        if let Entry::File { size, .. } = found
            && size > MAX_TABLE
            && TABLES.contains(&name.as_str())
        {
            let what = format!("`{name}` is {size} bytes long: at most {MAX_TABLE} are read");
            return Err(Error::Limit { path: self.path.clone(), what });
        }
        let mut state = self.state();
        if state.entries.len() >= MAX_FILES {
            let tables = TABLES.iter().any(|table| state.entries.contains_key(*table));
            let path = self.path.clone();
            return Err(match tables {
                true => Error::Limit { path, what: format!("it holds more than {MAX_FILES} files") },
                false => Error::NotAnArchive { path, what: super::NO_TABLES.into() },
            });
        }
        match state.entries.get_mut(&name) {
            None => {
                state.entries.insert(name, found);
            }
            Some(_) if TABLES.contains(&name.as_str()) => {
                let (path, what) = (self.path.clone(), "is there twice, so what it holds is ambiguous");
                return Err(Error::Unusable { path, file: name, what: what.into() });
            }
            // A blob is known by its digest: any one of them that has it is right, and the first is as good as another.
            Some(_) if name.starts_with("blobs/") => {}
            Some(entry) => *entry = Entry::Unusable("is there twice"),
        }
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Wait until a file has come by, or the end has.
    fn entry(&self, name: &str) -> Result<Option<Entry>, Error> {
        let mut state = self.state();
        loop {
            if let Some(entry) = state.entries.get(name) {
                return Ok(Some(entry.clone()));
            }
            if let Some(failure) = &state.failure {
                return Err(Error::Shared(Arc::clone(failure)));
            }
            if state.ended {
                return Ok(None);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn find(&self, name: &str) -> Result<Option<(u64, u64)>, Error> {
        let unusable = |what: &str| {
            let (path, file) = (self.path.clone(), name.to_owned());
            Err(Error::Unusable { path, file, what: what.into() })
        };
        let mut at = name.to_owned();
        for _ in 0..=MAX_LINKS {
            match self.entry(&at)? {
                None => return Ok(None),
                Some(Entry::File { offset, size }) => return Ok(Some((offset, size))),
                Some(Entry::Link(to)) => at = to,
                Some(Entry::Unusable(what)) => return unusable(what),
            }
        }
        unusable("is a link that leads to no file")
    }

    /// Wait until bytes after `at` may be read; how far comes back.
    fn filled(&self, at: u64) -> io::Result<u64> {
        let mut state = self.state();
        while state.filled <= at {
            if let Some(failure) = &state.failure {
                return Err(io::Error::new(io::ErrorKind::InvalidData, Error::Shared(Arc::clone(failure))));
            }
            if state.ended {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(state.filled)
    }

    fn tar_error(&self, error: layer::Error, start: u64) -> Error {
        let path = self.path.clone();
        match error {
            layer::Error::Tar { offset, what } if start + offset <= 512 => {
                // The very first header: more likely not a tar at all than a damaged one.
                Error::NotAnArchive { path, what: format!("it is no tar ({what})") }
            }
            layer::Error::Tar { offset, what } => Error::Tar { path, offset: start + offset, what },
            layer::Error::Io { source, .. } => Error::Read { path, source },
            layer::Error::Limit(what) => Error::Limit { path, what },
            other => Error::Read { path, source: io::Error::other(other) },
        }
    }
}

fn link(to: Option<String>) -> Entry {
    to.map_or(Entry::Unusable("is a link that leads out of the archive"), Entry::Link)
}

/// Files of a shared tar.
#[derive(Debug)]
pub(super) struct TarFiles(pub(super) Arc<Tar>);

impl Files for TarFiles {
    fn open(&self, path: &str, offset: u64) -> Result<Option<Opened>, Error> {
        let Some((start, size)) = self.0.find(path)? else { return Ok(None) };
        let at = start + offset.min(size);
        Ok(Some((size, Box::new(Part { tar: Arc::clone(&self.0), at, end: start + size }))))
    }

    fn seen(&self, path: &str) -> bool {
        self.0.state().entries.contains_key(path)
    }

    fn finish(&self) -> Result<(), Error> {
        let mut state = self.0.state();
        while !state.ended {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.as_ref().map_or(Ok(()), |failure| Err(Error::Shared(Arc::clone(failure))))
    }

    fn abandon(&self) {
        self.0.state().abandoned = true;
    }
}

/// Bytes of a tar, as far as they are there.
struct Part {
    tar: Arc<Tar>,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.end - self.at;
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let filled = self.tar.filled(self.at)?;
        let want = usize::try_from(left.min(filled - self.at)).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.tar.file.read_at(&mut buffer[..want], self.at)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += length as u64;
        Ok(length)
    }
}

/// Whatever becomes of the thread, nobody waits for ever.
struct EndGuard<'a>(&'a Tar);

impl Drop for EndGuard<'_> {
    fn drop(&mut self) {
        let source = io::Error::other("the reading thread ended early");
        self.0.end(Some(Error::Read { path: self.0.path.clone(), source }));
    }
}

struct Counted {
    inner: Box<dyn Read + Send>,
    bytes: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.bytes.fetch_add(length as u64, Ordering::Relaxed);
        Ok(length)
    }
}

/// Keeps what is read through it.
struct Keeper<'a> {
    tar: &'a Tar,
    inner: Box<dyn Read + Send>,
    at: u64,
    /// Bytes of the compressed stream so far.
    packed: Option<Arc<AtomicU64>>,
    /// An error that is not the stream's own.
    failure: Option<Error>,
    scratch: &'a Path,
}

impl Keeper<'_> {
    fn keep(&mut self, data: &[u8]) -> Result<(), Error> {
        let (path, scratch) = (self.tar.path.clone(), self.scratch.to_owned());
        let end = self.at + data.len() as u64;
        if let Some(packed) = &self.packed
            && end > RATIO_FROM
            && end / packed.load(Ordering::Relaxed).max(1) > MAX_RATIO
        {
            let what = format!("it unpacks to more than {MAX_RATIO} times its size");
            return Err(Error::Limit { path, what });
        }
        // Zeros become a hole: a bomb of them costs time, but no disk.
        let kept = match data.iter().all(|byte| *byte == 0) {
            true => self.tar.file.set_len(end),
            false => self.tar.file.write_all_at(data, self.at),
        };
        kept.map_err(|source| Error::Spool { path, scratch, source })?;
        self.at = end;
        self.tar.filled_to(end);
        Ok(())
    }
}

impl Read for Keeper<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.tar.state().abandoned {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let length = self.inner.read(buffer)?;
        if let Err(error) = self.keep(&buffer[..length]) {
            self.failure = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        Ok(length)
    }
}
