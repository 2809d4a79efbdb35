//! Large blobs by several Range requests at once.
//!
//! One connection seldom fills a link: storage behind registries limits each, and far ones need time to get fast. So a
//! large blob is asked for in chunks, a few at a time, which are handed on in order from a small window in memory: what
//! is written is always the beginning of the blob, and a pull that is killed goes on from there.
//!
//! The first part shows whether the server can do this, and whether it is worth it: one that comes as fast as a machine
//! can unpack it needs no help, and the blob goes on as one stream. Any later sign of trouble (a whole answer, another part than
//! was asked for, another `ETag`) ends it for this blob, which then goes on as one stream.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};
use std::sync::atomic::{AtomicIsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ureq::http::Method;

use super::blob::{BlobReader, Watch, stream_error};
use super::endpoint::{About, ApiRequest, Endpoint};
use super::http::Response;
use super::retry::with_retries;
use super::{Error, Settings, limits};
use crate::oci::Digest;

/// What the parallel reads of a client share.
#[derive(Debug)]
pub(super) struct Parallel {
    /// Chunks that may still be taken into memory, all blobs together. Below zero where a blob could not wait.
    left: AtomicIsize,
    /// Chunks that were used, to be filled again.
    spare: Mutex<Vec<Vec<u8>>>,
    /// Blobs that are read as one stream, as their server does not do parts well.
    whole: Mutex<HashSet<Digest>>,
}

impl Default for Parallel {
    fn default() -> Self {
        Self {
            left: AtomicIsize::new(limits::RANGE_WINDOW),
            spare: Mutex::default(),
            whole: Mutex::default(),
        }
    }
}

impl Parallel {
    /// Whether so many bytes of a blob are worth it.
    pub fn suits(&self, digest: &Digest, bytes: u64) -> bool {
        bytes >= limits::RANGE_FROM && !self.lock().contains(digest)
    }

    /// Read the blob as one stream from now on. Whether that is new comes back.
    pub fn give_up(&self, digest: &Digest) -> bool {
        self.lock().insert(digest.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.whole.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Take a chunk's room if there is any.
    fn take(&self) -> bool {
        let one_less = |left: isize| (left > 0).then(|| left - 1);
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    /// Take a chunk's room for a blob that must get on.
    fn take_anyway(&self) {
        self.left.fetch_sub(1, Ordering::Relaxed);
    }

    /// Give a chunk's room back, and its memory.
    fn give_back(&self, chunk: Vec<u8>) {
        self.left.fetch_add(1, Ordering::Relaxed);
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
    }

    fn chunk(&self) -> Vec<u8> {
        let mut chunk = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        chunk.clear();
        chunk
    }
}

/// The part of a blob that a request is for: its first byte, and the one after its last.
pub(super) type Part = (u64, u64);

/// The first part of a blob from `offset` on.
pub(super) fn first_part(offset: u64, size: u64) -> Part {
    (offset, (offset + limits::RANGE_CHUNK).min(size))
}

/// The value of a Range header (RFC 9110 section 14.1.2).
pub(super) fn range_header((start, end): Part) -> String {
    format!("bytes={start}-{}", end - 1)
}

/// Whether a 206 answer is the part that was asked for: `end` is `None` where everything from `start` on was.
pub(super) fn is_part(response: &Response, start: u64, end: Option<u64>, size: u64) -> bool {
    let parse = || {
        let range = response.header("content-range")?;
        let (span, total) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        let last: u64 = last.trim().parse().ok()?;
        Some((first.trim().parse::<u64>().ok()?, last.checked_add(1)?, total.trim().parse::<u64>().ok()))
    };
    parse().is_some_and(|(first, after, total)| {
        first == start && after == end.unwrap_or(size) && total.is_none_or(|total| total == size)
    })
}

/// The first part of a blob, read to find out how fast the blob comes.
pub(super) struct FirstPart {
    part: Part,
    etag: Option<String>,
    bytes: Vec<u8>,
    /// Why it is not whole.
    failure: Option<Error>,
    is_fast: bool,
}

impl FirstPart {
    /// Read it from the answer to the request for it.
    pub fn read(response: Response, part: Part, watch: Watch, digest: &Digest) -> Self {
        let etag = response.header("etag").map(str::to_owned);
        let length = part.1 - part.0;
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        let start = Instant::now();
        let registry = watch.registry.clone();
        let reader = BlobReader::new(response.reader(), watch, digest, part.0, part.1);
        let failure = reader.take(length).read_to_end(&mut bytes).err().map(|error| {
            error.downcast::<Error>().unwrap_or_else(|source| Error::Broken { registry, source })
        });
        let is_fast = start.elapsed() < limits::RANGE_FAST;
        Self { part, etag, bytes, failure, is_fast }
    }

    /// Whether one stream is as good as several.
    pub fn suffices(&self) -> bool {
        self.is_fast || self.failure.is_some()
    }

    /// Its bytes, and then what `rest` gives from the offset behind them on.
    pub fn then(self, rest: impl FnOnce(u64) -> Result<Box<dyn Read + Send>, Error>) -> Box<dyn Read + Send> {
        let behind = match self.failure {
            Some(error) => Err(error),
            None => rest(self.part.1),
        };
        let behind: Box<dyn Read + Send> = match behind {
            Ok(stream) => stream,
            Err(error) => Box::new(Fails(Some(error))),
        };
        Box::new(io::Cursor::new(self.bytes).chain(behind))
    }
}

/// A stream that has failed already.
struct Fails(Option<Error>);

impl Read for Fails {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.take().map_or_else(|| io::Error::other("the stream has failed"), stream_error))
    }
}

/// What the threads of one blob share.
struct Shared {
    endpoint: Arc<Endpoint>,
    settings: Settings,
    parallel: Arc<Parallel>,
    digest: Digest,
    size: u64,
    etag: Option<String>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Where the next chunk begins that nobody has in hand.
    next: u64,
    /// Where the reader waits.
    wanted: u64,
    ready: BTreeMap<u64, Vec<u8>>,
    failure: Option<Error>,
    stopped: bool,
}

/// The bytes of a blob, in order.
pub(super) struct RangeReader {
    shared: Arc<Shared>,
    chunk: Vec<u8>,
    at: usize,
    position: u64,
    threads: Vec<JoinHandle<()>>,
}

impl RangeReader {
    /// Read a blob on from the first part, which is in memory already.
    pub fn start(
        endpoint: Arc<Endpoint>,
        settings: &Settings,
        parallel: Arc<Parallel>,
        digest: &Digest,
        size: u64,
        first: FirstPart,
    ) -> Self {
        let FirstPart { part, etag, bytes, .. } = first;
        let mut state = State { next: part.1, wanted: part.0, ..State::default() };
        state.ready.insert(part.0, bytes);
        let shared = Arc::new(Shared {
            endpoint,
            settings: settings.clone(),
            parallel,
            digest: digest.clone(),
            size,
            etag,
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        shared.parallel.take_anyway();
        let mut threads = Vec::new();
        for _ in 0..limits::RANGE_REQUESTS {
            let mine = Arc::clone(&shared);
            let work = move || mine.work();
            match std::thread::Builder::new().name("range".into()).spawn(work) {
                Ok(thread) => threads.push(thread),
                Err(source) if threads.is_empty() => {
                    let registry = shared.endpoint.registry.clone();
                    shared.lock().failure = Some(Error::Broken { registry, source });
                }
                Err(_) => break, // fewer will do
            }
        }
        Self { shared, chunk: Vec::new(), at: 0, position: part.0, threads }
    }

    /// The next chunk, waiting for it.
    fn next_chunk(&mut self) -> io::Result<()> {
        let shared = &self.shared;
        let mut state = shared.lock();
        if self.chunk.capacity() > 0 {
            shared.parallel.give_back(std::mem::take(&mut self.chunk));
        }
        state.wanted = self.position;
        shared.changed.notify_all();
        loop {
            if let Some(chunk) = state.ready.remove(&self.position) {
                if !chunk.is_empty() {
                    (self.chunk, self.at) = (chunk, 0);
                    return Ok(());
                }
                shared.parallel.give_back(chunk);
            }
            if let Some(error) = state.failure.take() {
                state.stopped = true;
                shared.changed.notify_all();
                return Err(stream_error(error));
            }
            if state.stopped {
                return Err(io::Error::other("the reading of this blob has ended"));
            }
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || (self.at == self.chunk.len() && self.position == self.shared.size) {
            return Ok(0);
        }
        if self.at == self.chunk.len() {
            self.next_chunk()?;
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        self.position += n as u64;
        Ok(n)
    }
}

impl Drop for RangeReader {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopped = true;
        let ready = std::mem::take(&mut state.ready);
        drop(state);
        let held = Some(std::mem::take(&mut self.chunk)).filter(|chunk| chunk.capacity() > 0);
        ready.into_values().chain(held).for_each(|chunk| self.shared.parallel.give_back(chunk));
        self.shared.changed.notify_all();
        if self.position == self.shared.size {
            // They have nothing left to do. Otherwise one may wait for a silent server: it ends by itself.
            self.threads.drain(..).for_each(|thread| drop(thread.join()));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One thread: chunk after chunk, until there is none left or something failed.
    fn work(&self) {
        while let Some(part) = self.claim() {
            let mut chunk = self.parallel.chunk();
            let result = self.fetch(part, &mut chunk);
            let mut state = self.lock();
            if state.stopped {
                drop(state);
                self.parallel.give_back(chunk);
                return;
            }
            // Also what came before a failure: the next try then begins behind it.
            state.ready.insert(part.0, chunk);
            let failed = result.is_err();
            if let Err(error) = result {
                state.next = self.size;
                state.failure.get_or_insert(error);
            }
            drop(state);
            self.changed.notify_all();
            if failed {
                return;
            }
        }
    }

    /// The next part that nobody has in hand, once there is room for it.
    fn claim(&self) -> Option<Part> {
        let mut state = self.lock();
        loop {
            if state.stopped || state.next >= self.size {
                return None;
            }
            // The chunk that the reader waits for needs no room: the blob must get on.
            if self.parallel.take() {
                break;
            }
            if state.next == state.wanted {
                self.parallel.take_anyway();
                break;
            }
            // Other blobs give room back without telling.
            let pause = Duration::from_millis(10);
            state = self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0;
        }
        let part = first_part(state.next, self.size);
        state.next = part.1;
        Some(part)
    }

    /// One part into memory; what broke off goes on where it broke.
    fn fetch(&self, part: Part, chunk: &mut Vec<u8>) -> Result<(), Error> {
        let length = usize::try_from(part.1 - part.0).unwrap_or(usize::MAX);
        chunk.reserve_exact(length);
        with_retries(&self.settings, || {
            let at = part.0 + chunk.len() as u64;
            let response = self.ask((at, part.1))?;
            let watch = Watch::new(&self.endpoint.registry, &self.settings);
            let reader = BlobReader::new(response.reader(), watch, &self.digest, at, part.1);
            match reader.take(length as u64 - chunk.len() as u64).read_to_end(chunk) {
                Ok(_) if chunk.len() == length => Ok(()),
                Ok(_) => Err(self.trouble()),
                Err(error) => match error.downcast::<Error>() {
                    Ok(error) => Err(error),
                    Err(source) => Err(Error::Broken { registry: self.endpoint.registry.clone(), source }),
                },
            }
        })
    }

    fn ask(&self, part: Part) -> Result<Response, Error> {
        if self.lock().stopped {
            return Err(self.trouble());
        }
        let path = self.endpoint.path(&format!("blobs/{}", self.digest));
        let mut request = ApiRequest::new(Method::GET, path.as_str()).header("range", range_header(part));
        request.streaming = true;
        let response = self.endpoint.send(request)?;
        match response.status {
            206 => {
                let etag = response.header("etag");
                let same = etag.is_none() || self.etag.is_none() || etag == self.etag.as_deref();
                if same && is_part(&response, part.0, Some(part.1), self.size) {
                    return Ok(response);
                }
                self.parallel.give_up(&self.digest);
                Err(self.trouble())
            }
            200 | 416 => {
                self.parallel.give_up(&self.digest);
                Err(self.trouble())
            }
            _ => Err(self.endpoint.error(response, &Method::GET, &path, About::Blob(&self.digest))),
        }
    }

    /// Not temporary for this thread, which would ask the same again, but the blob goes on as one stream.
    fn trouble(&self) -> Error {
        Error::NoParts { registry: self.endpoint.registry.clone() }
    }
}
