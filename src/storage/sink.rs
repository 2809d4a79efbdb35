//! The store as a place that images come from and go to.
//!
//! A layer passes through two threads. The first reads the stream, hashes it, writes the blob's file and hands the
//! bytes on through a short queue; the second decompresses, hashes the tar and unpacks it. Nothing is renamed to its
//! place before both digests were found right. A layer whose tar does not stand on its own is published at once when
//! the layers below are there, else left to the first command that needs its files.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::blobs::{SteadyFile, sync_content};
use super::facts::{LayerFact, diff_id_of, layer_error};
use super::lock::{LockMode, LockName};
use super::unpack::Unpacked;
use super::{Error, Store};
use crate::image::{BoxError, Claim, Event, LayerPlace, LayerPlan, LayerState, Reporter, Sink, Source};
use crate::layer;
use crate::oci::{Descriptor, Digest, Hasher, Parsed, RawManifest, Reference, chain_ids, digest_of};
use crate::sys::SysError;

/// Bytes handed on at once.
const CHUNK: usize = 256 << 10;
/// Chunks that may wait between the threads: with the ones in hand about 1.5 MiB a layer.
const QUEUE: usize = 4;

impl Source for Store {
    fn resolve(&self, reference: &Reference) -> Result<Descriptor, BoxError> {
        Ok(self.find_image(&reference.to_string())?.target)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<RawManifest, BoxError> {
        let bytes = self.read_blob(&digest_of(descriptor)?)?;
        Ok(RawManifest::new(bytes, Some(descriptor.media_type().as_ref()))?)
    }

    fn admit(&self, _: Option<&Reference>, _: &[&RawManifest]) -> Result<(), BoxError> {
        Ok(()) // what is in the store was let in before
    }

    fn raw_blob(
        &self,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<(u64, Box<dyn Read + Send>), BoxError> {
        let digest = digest_of(descriptor)?;
        let file = self.open_blob(&digest).map_err(|error| self.say_where(error))?;
        let blob = layer::VerifiedReader::new(file, digest.clone(), descriptor.size());
        let mut blob = OwnBlob { blob, digest, left: descriptor.size() };
        // What the other side has already counts for the digest all the same.
        let skipped = io::copy(&mut (&mut blob).take(offset), &mut io::sink())?;
        Ok((skipped, Box::new(blob)))
    }

    fn has(&self, descriptor: &Descriptor) -> Result<bool, BoxError> {
        Ok(Store::has_blob(self, &digest_of(descriptor)?, descriptor.size())?)
    }
}

/// A blob on its way out: wrong bytes end its stream in an error that says whose they are, before anybody is told that
/// all of them came.
struct OwnBlob {
    blob: layer::VerifiedReader<fs::File>,
    digest: Digest,
    left: u64,
}

impl OwnBlob {
    /// The last bytes are only handed on with all of them: who knows how many come does not wait for the end.
    fn read_on(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.blob.read(buffer)?;
        self.left = self.left.saturating_sub(n as u64);
        if self.left == 0 {
            // Nothing follows; the look is what verifies.
            let _end = self.blob.read(&mut [0])?;
        }
        Ok(n)
    }
}

impl Read for OwnBlob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_on(buffer).map_err(|error| match layer_error(error) {
            source @ (layer::Error::Digest { .. } | layer::Error::Size { .. }) => io::Error::new(
                ErrorKind::InvalidData,
                Error::CorruptBlob { digest: self.digest.clone(), source },
            ),
            layer::Error::Io { source, .. } => source,
            other => io::Error::new(ErrorKind::InvalidData, other),
        })
    }
}

impl Sink for Store {
    fn takes_up(&self) -> bool {
        true // the partial blob stays
    }

    fn layer_state(&self, layer: &LayerPlan) -> Result<LayerState, BoxError> {
        let digest = digest_of(&layer.descriptor)?;
        self.pin_layer(layer, &digest)?;
        if self.layer_is_here(layer, &digest)? {
            return Ok(LayerState::Complete);
        }
        let partial = fs::metadata(self.layout.partial(&digest)).map_or(0, |meta| meta.len());
        // A whole one that was not published failed its check or was cut off just before it.
        let partial = if partial < layer.descriptor.size() { partial } else { 0 };
        Ok(LayerState::Missing { partial })
    }

    fn expect_layers(&self, layers: &[&LayerPlan], report: &dyn Reporter) -> Result<(), BoxError> {
        let (mut blobs, mut trees) = (0_u64, 0_u64);
        for layer in layers {
            let LayerState::Missing { partial } = self.layer_state(layer)? else { continue };
            blobs = blobs.saturating_add(layer.descriptor.size() - partial);
            if layer.place.is_some() && self.abilities.is_some_and(|a| a.unpack) {
                trees = trees.saturating_add(layer.descriptor.size());
            }
        }
        Ok(self.refuse_without_space(blobs, trees, report)?)
    }

    fn claim_layer(&self, layer: &LayerPlan, report: &dyn Reporter) -> Result<Option<Claim>, BoxError> {
        let digest = digest_of(&layer.descriptor)?;
        let say = |text: &str| report.event(Event::Note(text.to_owned()));
        let lock = self.lock_saying(&LockName::Blob(&digest), LockMode::Exclusive, &say)?;
        Ok(Some(Box::new(lock)))
    }

    fn put_layer(
        &self,
        layer: &LayerPlan,
        offset: u64,
        data: &mut dyn Read,
        report: &dyn Reporter,
    ) -> Result<(), BoxError> {
        let digest = digest_of(&layer.descriptor)?;
        self.pin_layer(layer, &digest)?;
        Transfer::open(self, layer, digest, offset)?.run(data, report)?;
        Ok(())
    }

    fn has_blob(&self, descriptor: &Descriptor) -> Result<bool, BoxError> {
        let digest = digest_of(descriptor)?;
        self.pin([&digest])?;
        let Ok(bytes) = self.read_blob(&digest) else { return Ok(false) };
        if bytes.len() as u64 != descriptor.size() {
            return Ok(false);
        }
        // One that lies in an additional store is copied: what is listed here can be read without that.
        self.put_verified(&digest, &bytes)?;
        Ok(true)
    }

    fn put_blob(&self, descriptor: &Descriptor, data: &[u8]) -> Result<(), BoxError> {
        let digest = digest_of(descriptor)?;
        super::blobs::verify_small(&digest, data)
            .map_err(|source| Error::Layer { digest: digest.clone(), source })?;
        self.put_verified(&digest, data)?;
        Ok(())
    }

    fn put_manifest(&self, manifest: &RawManifest) -> Result<(), BoxError> {
        if let Parsed::Manifest(parsed) = manifest.parse()? {
            for part in parsed.layers().iter().chain([parsed.config()]) {
                let digest = digest_of(part)?;
                if !Store::has_blob(self, &digest, part.size())? {
                    return Err(Error::MissingBlob(digest).into());
                }
            }
        }
        self.put_verified(&manifest.digest, &manifest.bytes)?;
        Ok(())
    }

    fn set_name(&self, name: &Reference, target: &Descriptor) -> Result<(), BoxError> {
        Ok(self.move_name(name, target)?)
    }

    fn small_blob(&self, descriptor: &Descriptor) -> Result<Option<Vec<u8>>, BoxError> {
        let digest = digest_of(descriptor)?;
        self.pin([&digest])?;
        Ok(self.read_blob(&digest).ok())
    }
}

impl Store {
    fn pin_layer(&self, layer: &LayerPlan, digest: &Digest) -> Result<(), Error> {
        match &layer.place {
            Some(place) => self.pin([digest, &place.diff_id.0, &place.chain_id.0]),
            None => self.pin([digest]),
        }
    }

    /// Whether a layer's blob is here and is known to be the tar that the plan says.
    fn layer_is_here(&self, layer: &LayerPlan, digest: &Digest) -> Result<bool, Error> {
        if !Store::has_blob(self, digest, layer.descriptor.size())? {
            return Ok(false);
        }
        let Some(place) = &layer.place else { return Ok(true) };
        let Ok(mut fact) = self.verified_layer(&layer.descriptor) else {
            return Ok(false); // damaged: fetched again
        };
        if fact.diff_id != place.diff_id {
            // Either the image claims what is not so, or what was noted is damaged: the bytes decide.
            let _ = fs::remove_file(self.layout.layer_fact(digest));
            let Ok(computed) = self.known_layer(&layer.descriptor) else { return Ok(false) };
            fact = computed;
        }
        if fact.diff_id == place.diff_id {
            return Ok(true);
        }
        let source = layer::Error::Digest { expected: place.diff_id.0.clone(), found: fact.diff_id.0 };
        Err(Error::Layer { digest: digest.clone(), source })
    }

    pub(super) fn put_verified(&self, digest: &Digest, bytes: &[u8]) -> Result<(), Error> {
        self.pin([digest])?;
        if self.has_own(digest) {
            return Ok(());
        }
        let path = self.stage_path("blob")?;
        let mut file = crate::sys::atomic::create(&path)?;
        file.write_all(bytes).map_err(|error| SysError::path("write", &path, error))?;
        self.publish_blob(&file, &path, digest)
    }

    /// Fail before the transfer when the disk cannot hold what is to come: the bytes of the blobs, and their trees,
    /// which are never smaller. Trees are usually more than twice as large: where that much lacks it is said.
    fn refuse_without_space(&self, blobs: u64, trees: u64, report: &dyn Reporter) -> Result<(), Error> {
        let needed = blobs.saturating_add(trees);
        if needed == 0 {
            return Ok(());
        }
        let root = self.layout.root();
        let stat =
            rustix::fs::statvfs(root).map_err(|error| SysError::path("ask the space of", root, error))?;
        let available = stat.f_bavail.saturating_mul(stat.f_frsize);
        if available < needed {
            return Err(Error::Space { path: root.to_owned(), needed, available });
        }
        let likely = blobs.saturating_add(trees.saturating_mul(5) / 2);
        if available < likely {
            report.event(Event::Note(format!(
                "space may run out: about {} MB are needed below `{}`, {} MB are free",
                likely / 1_000_000,
                root.display(),
                available / 1_000_000
            )));
        }
        Ok(())
    }
}

/// One layer on its way in. The blob's lock is held.
struct Transfer<'a> {
    store: &'a Store,
    plan: &'a LayerPlan,
    digest: Digest,
    path: PathBuf,
    out: SteadyFile,
    hasher: Hasher,
}

/// What the second thread found.
enum Consumed {
    Unpacked(Unpacked),
    Hashed(LayerFact),
    /// No layer: a blob of an artifact.
    Kept,
}

impl<'a> Transfer<'a> {
    /// Open the partial file and cut it to where the stream goes on.
    fn open(store: &'a Store, plan: &'a LayerPlan, digest: Digest, offset: u64) -> Result<Self, Error> {
        let path = store.layout.partial(&digest);
        let failed = |error| SysError::path("open", &path, error);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o644);
        let mut file = options.open(&path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?.len();
        if found < offset {
            let what = format!("the stream goes on at byte {offset}, but only {found} bytes are here");
            return Err(Error::Damaged { path, what });
        }
        file.set_len(offset).and_then(|()| file.rewind()).map_err(failed)?;
        let hasher = digest.hasher();
        Ok(Self { store, plan, digest, out: SteadyFile::new(file, offset), path, hasher })
    }

    fn run(mut self, data: &mut dyn Read, report: &dyn Reporter) -> Result<(), Error> {
        let (sender, receiver) = sync_channel(QUEUE);
        let (store, digest) = (self.store, self.digest.clone());
        let is_layer = self.plan.place.is_some();
        let mut broke = false;
        let result = std::thread::scope(|scope| {
            let source = Chunks { receiver, chunk: Vec::new(), at: 0, taken: 0, digest, report };
            let worker = std::thread::Builder::new()
                .name("unpack".into())
                .spawn_scoped(scope, move || consume(store, source, is_layer))
                .map_err(|error| SysError::new("start", "a thread", error))?;
            let fed = self.feed(data, sender, report);
            let consumed = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            broke = matches!(&fed, Err(Error::Layer { source: layer::Error::Io { .. }, .. }));
            // Wrong bytes explain a broken stream better than what the unpacker made of them.
            fed?;
            consumed.map_err(|source| Error::Layer { digest: self.digest.clone(), source })
        });
        match result.and_then(|consumed| self.publish(consumed)) {
            Err(error) if !broke => {
                // Only what a broken stream brought helps the next try; on a full disk the rest is in the way.
                let _ = fs::remove_file(&self.path);
                Err(error)
            }
            other => other,
        }
    }

    /// The first thread: hash, write, hand on; then check and sync.
    fn feed(
        &mut self,
        data: &mut dyn Read,
        sender: SyncSender<Vec<u8>>,
        report: &dyn Reporter,
    ) -> Result<(), Error> {
        self.feed_prefix(&sender)?;
        let size = self.plan.descriptor.size();
        loop {
            let (chunk, ended) = read_chunk(data);
            if chunk.is_empty() && matches!(ended, Ok(true)) {
                break;
            }
            if self.out.bytes() + chunk.len() as u64 > size {
                return Err(self.failed(layer::Error::Size { expected: size, found: size + 1 }));
            }
            self.hasher.update(&chunk);
            self.out.write_all(&chunk).map_err(|error| SysError::path("write", &self.path, error))?;
            // A dead unpacker is no reason to stop: the bytes may be wrong, and then that is the error to report.
            let _ = sender.send(chunk);
            ended.map_err(|source| self.failed(layer_error(source)))?;
            report.event(Event::Moved { digest: self.digest.clone(), bytes: self.out.bytes() });
        }
        drop(sender);
        let found = self.out.bytes();
        if found != size {
            return Err(self.failed(layer::Error::Size { expected: size, found }));
        }
        let found = self.hasher.clone().finish();
        if found != self.digest {
            let expected = self.digest.clone();
            return Err(self.failed(layer::Error::Digest { expected, found }));
        }
        report.event(Event::Moved100(self.digest.clone()));
        // Here already, so that the disk works while the other thread still unpacks.
        sync_content(self.out.file(), &self.path)
    }

    /// What lies here from an earlier try goes through the hash and the unpacker again.
    fn feed_prefix(&mut self, sender: &SyncSender<Vec<u8>>) -> Result<(), Error> {
        let mut prefix = self.out.file().take(self.out.bytes());
        loop {
            let (chunk, ended) = read_chunk(&mut prefix);
            let ended = ended.map_err(|error| SysError::path("read", &self.path, error))?;
            self.hasher.update(&chunk);
            let _ = sender.send(chunk);
            if ended {
                return Ok(());
            }
        }
    }

    fn failed(&self, source: layer::Error) -> Error {
        Error::Layer { digest: self.digest.clone(), source }
    }

    /// Both digests are right: blob, what is known of it, snapshot.
    fn publish(&self, consumed: Consumed) -> Result<(), Error> {
        let (fact, unpacked) = match consumed {
            Consumed::Unpacked(unpacked) => (Some(unpacked.fact()), Some(unpacked)),
            Consumed::Hashed(fact) => (Some(fact), None),
            Consumed::Kept => (None, None),
        };
        if let (Some(place), Some(fact)) = (&self.plan.place, &fact)
            && fact.diff_id != place.diff_id
        {
            let (expected, found) = (place.diff_id.0.clone(), fact.diff_id.0.clone());
            return Err(self.failed(layer::Error::Digest { expected, found }));
        }
        self.store.publish_synced(&self.path, &self.digest)?;
        if let Some(fact) = &fact {
            self.store.remember_layer(&self.digest, fact);
        }
        match (unpacked, &self.plan.place) {
            (Some(unpacked), Some(place)) => self.publish_snapshot(unpacked, place),
            _ => Ok(()),
        }
    }

    fn publish_snapshot(&self, mut unpacked: Unpacked, place: &LayerPlace) -> Result<(), Error> {
        let store = self.store;
        let _lock = store.lock(&LockName::Layer(&place.diff_id.0), LockMode::Exclusive)?;
        if store.find_snapshot(&place.diff_id, &place.chain_id)?.is_some() {
            return Ok(());
        }
        if unpacked.applied.stands_alone() {
            return store.publish_snapshot(&unpacked, &place.diff_id.0).map(drop);
        }
        let below = chain_ids(&place.below);
        let below = place.below.iter().zip(&below).map(|(diff, chain)| store.find_snapshot(diff, chain));
        let Some(below) = below.collect::<Result<Option<Vec<_>>, Error>>()? else { return Ok(()) };
        store.complete(&mut unpacked, &below)?;
        store.publish_snapshot(&unpacked, &place.chain_id.0).map(drop)
    }
}

/// The second thread: decompress, hash, unpack where that is possible.
fn consume(store: &Store, mut source: Chunks<'_>, is_layer: bool) -> Result<Consumed, layer::Error> {
    if !is_layer {
        return io::copy(&mut source, &mut io::sink()).map(|_| Consumed::Kept).map_err(layer_error);
    }
    if store.abilities.is_some_and(|a| a.unpack) {
        return store.unpack(Box::new(source)).map(Consumed::Unpacked);
    }
    let (diff_id, size) = diff_id_of(Box::new(source)).map_err(layer_error)?;
    Ok(Consumed::Hashed(LayerFact { diff_id, size }))
}

/// Read until the chunk is full, the stream ends (`true`) or breaks: what came before that is kept.
fn read_chunk(data: &mut dyn Read) -> (Vec<u8>, io::Result<bool>) {
    let mut chunk = vec![0_u8; CHUNK];
    let mut filled = 0;
    let mut ended = Ok(false);
    while filled < CHUNK && matches!(ended, Ok(false)) {
        match data.read(&mut chunk[filled..]) {
            Ok(0) => ended = Ok(true),
            Ok(n) => filled += n,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => ended = Err(error),
        }
    }
    chunk.truncate(filled);
    (chunk, ended)
}

/// The reading end of the queue.
struct Chunks<'a> {
    receiver: Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    at: usize,
    taken: u64,
    digest: Digest,
    report: &'a dyn Reporter,
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.chunk.len() {
            // The sender is gone at the end, and also when it failed; it reports why.
            let Ok(chunk) = self.receiver.recv() else { return Ok(0) };
            self.taken += chunk.len() as u64;
            self.report.event(Event::Unpacked { digest: self.digest.clone(), bytes: self.taken });
            (self.chunk, self.at) = (chunk, 0);
        }
        let n = buffer.len().min(self.chunk.len() - self.at);
        buffer[..n].copy_from_slice(&self.chunk[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
