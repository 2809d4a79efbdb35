//! The layers of a copy: several at once, each resumed where its stream broke.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::copy::CopyError;
use super::{BoxError, Event, LayerPlan, LayerState, Reporter, Sink, Source, StreamFailure};
use crate::layer;
use crate::oci::media_type::is_foreign_layer;
use crate::oci::{Digest, digest_of};

/// Bytes by which a try must get further than all before it to count: a connection that is cut again and again still
/// brings the layer over, in at most so many pieces.
const PROGRESS: u64 = 16 << 10;
/// The pause before the first repetition; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The pause after a try that got further.
const SHORT_PAUSE: Duration = Duration::from_millis(20);

/// What became of the layers.
#[derive(Debug, Default)]
pub(super) struct CopiedLayers {
    /// Those that moved, in the image's order.
    pub moved: Vec<Digest>,
    /// Those that were there.
    pub reused: Vec<Digest>,
}

/// Copy the layers that the sink lacks, `jobs` at a time. The first failure stops the others.
pub(super) fn copy_layers(
    from: &dyn Source,
    to: &dyn Sink,
    plans: &[LayerPlan],
    jobs: usize,
    report: &dyn Reporter,
) -> Result<CopiedLayers, CopyError> {
    let queue = distinct(plans)?;
    report.event(Event::Layers(queue.iter().map(|(d, p)| (d.clone(), p.descriptor.size())).collect()));
    let all: Vec<&LayerPlan> = queue.iter().map(|(_, plan)| *plan).collect();
    to.expect_layers(&all, report).map_err(|source| CopyError::Room { source })?;
    let jobs = jobs.clamp(1, 16).min(queue.len().max(1));
    for (digest, _) in queue.iter().skip(jobs) {
        report.event(Event::Waiting(digest.clone()));
    }
    let work = Work {
        from,
        to,
        report,
        queue: &queue,
        next: AtomicUsize::new(0),
        stop: AtomicBool::new(false),
        done: Mutex::new(vec![None; queue.len()]),
        failure: Mutex::new(None),
    };
    std::thread::scope(|scope| {
        for n in 1..jobs {
            // This thread works too: with no further thread to be had the copy is slower, not broken.
            let _ = std::thread::Builder::new().name(format!("layer-{n}")).spawn_scoped(scope, || work.run());
        }
        work.run();
    });
    work.finish()
}

/// Each blob once: an image may use the same layer several times.
fn distinct(plans: &[LayerPlan]) -> Result<Vec<(Digest, &LayerPlan)>, CopyError> {
    let mut seen = HashSet::new();
    let mut queue = Vec::with_capacity(plans.len());
    for plan in plans {
        let digest = digest_of(&plan.descriptor).map_err(|error| CopyError::Layer {
            digest: plan.descriptor.digest().to_string(),
            source: error.into(),
        })?;
        if seen.insert(digest.clone()) {
            queue.push((digest, plan));
        }
    }
    Ok(queue)
}

/// What the threads share.
struct Work<'a> {
    from: &'a dyn Source,
    to: &'a dyn Sink,
    report: &'a dyn Reporter,
    queue: &'a [(Digest, &'a LayerPlan)],
    next: AtomicUsize,
    stop: AtomicBool,
    /// `true` for a layer that moved, `false` for one that was there.
    done: Mutex<Vec<Option<bool>>>,
    failure: Mutex<Option<CopyError>>,
}

impl Work<'_> {
    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((digest, plan)) = self.queue.get(i) else { return };
            match self.layer(digest, plan) {
                Ok(moved) => {
                    self.done.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(moved);
                }
                Err(source) => {
                    self.stop.store(true, Ordering::Relaxed);
                    let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    failure.get_or_insert_with(|| CopyError::Layer { digest: digest.to_string(), source });
                    return;
                }
            }
        }
    }

    fn finish(self) -> Result<CopiedLayers, CopyError> {
        if let Some(error) = self.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let mut copied = CopiedLayers::default();
        let done = self.done.into_inner().unwrap_or_else(PoisonError::into_inner);
        for ((digest, _), moved) in self.queue.iter().zip(done) {
            let list = if moved == Some(true) { &mut copied.moved } else { &mut copied.reused };
            list.push(digest.clone());
        }
        Ok(copied)
    }

    /// Bring one layer over, resuming after failures that may pass. Whether anything moved comes back.
    fn layer(&self, digest: &Digest, plan: &LayerPlan) -> Result<bool, BoxError> {
        let state = self.to.layer_state(plan)?;
        if state == LayerState::Complete {
            self.report.event(Event::Exists(digest.clone()));
            return Ok(false);
        }
        let claim = self.to.claim_layer(plan, self.report)?;
        // Without a claim nobody was waited for, and what was said holds: a registry is asked once.
        let mut known = Some(state).filter(|_| claim.is_none());
        let mut tries = Tries::default();
        loop {
            let partial = match known.take().map_or_else(|| self.to.layer_state(plan), Ok)? {
                LayerState::Complete => {
                    self.report.event(Event::Done(digest.clone()));
                    return Ok(tries.in_all > 0);
                }
                LayerState::Missing { partial } => partial,
            };
            // A registry may take the layer over from a neighbour: the source is asked when the first byte is wanted.
            let (offset, stream) = match partial {
                0 if !self.to.takes_up() => (0, None),
                _ => self.open(plan, partial).map(|(offset, stream)| (offset, Some(stream)))?,
            };
            let mut watched = Watched::new(self, digest, plan, offset, stream);
            let result = self.to.put_layer(plan, offset, &mut watched, self.report);
            let (bytes, failure, hopeless) = (watched.bytes, watched.failure, watched.hopeless);
            let never_opened = watched.inner.is_none() && failure.is_some();
            let Err(error) = result else {
                self.report.event(Event::Done(digest.clone()));
                return Ok(true);
            };
            tries.ended(offset, bytes);
            if hopeless {
                tries.in_vain = u32::MAX;
            }
            let again = self.again(plan, &mut tries, offset, failure.as_ref(), &error);
            let error = failure.map_or(error, unwrap);
            if never_opened || !again || self.stop.load(Ordering::Relaxed) {
                return Err(error);
            }
            self.report.event(Event::Retry { digest: digest.clone(), why: error.to_string() });
            self.pause(self.from.patience().pause.unwrap_or_else(|| tries.pause()));
        }
    }

    fn open(&self, plan: &LayerPlan, partial: u64) -> Result<(u64, Box<dyn Read + Send>), BoxError> {
        self.from.raw_blob(&plan.descriptor, partial).map_err(|source| {
            if is_foreign_layer(plan.descriptor.media_type().as_ref()) {
                return Foreign { source }.into();
            }
            source
        })
    }

    /// Whether another try of a layer makes sense.
    fn again(
        &self,
        plan: &LayerPlan,
        tries: &mut Tries,
        offset: u64,
        failure: Option<&io::Error>,
        error: &BoxError,
    ) -> bool {
        let wrong = match failure {
            Some(failure) => failure.kind() == io::ErrorKind::InvalidData,
            None => is_wrong_bytes(error),
        };
        if (wrong || failure.is_some()) && !self.stop.load(Ordering::Relaxed) {
            let how = if wrong { StreamFailure::Wrong } else { StreamFailure::Broken };
            if self.from.blob_failed(&plan.descriptor, how) {
                *tries = Tries { in_all: tries.in_all, ..Tries::default() };
                return true;
            }
        }
        let may_pass = match failure {
            Some(_) => !wrong,
            // What lay here from an earlier try may have been the wrong part: once more from the start.
            None => self.to.may_pass(error) || (offset > 0 && tries.in_all == 1),
        };
        may_pass && tries.in_vain < self.from.patience().tries
    }

    /// Wait, but not when another layer has failed meanwhile.
    fn pause(&self, length: Duration) {
        let end = Instant::now() + length;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(left) = end.checked_duration_since(Instant::now()) else { return };
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }
}

/// A layer that its registry need not have.
#[derive(Debug, thiserror::Error)]
#[error(
    "it is a foreign layer: the place it is asked from does not serve it, and its `urls` are never followed"
)]
struct Foreign {
    #[source]
    source: BoxError,
}

/// The tries of one layer.
#[derive(Debug, Default)]
struct Tries {
    in_all: u32,
    /// Since one got further.
    in_vain: u32,
    /// How far the layer has come.
    reached: u64,
}

impl Tries {
    /// A try from byte `offset` on ended after so many bytes.
    fn ended(&mut self, offset: u64, bytes: u64) {
        self.in_all += 1;
        self.in_vain += 1;
        // Who starts from the beginning each time may come a little further for ever.
        let goes_on = offset > 0 || self.in_all == 1;
        if goes_on && offset + bytes >= self.reached + PROGRESS {
            self.in_vain = 0;
        }
        self.reached = self.reached.max(offset + bytes);
    }

    fn pause(&self) -> Duration {
        let full = match self.in_vain {
            0 => SHORT_PAUSE,
            n => FIRST_PAUSE * 2_u32.pow(n.min(6) - 1),
        };
        // Between half of it and all of it: layers that failed together do not come back together.
        let jitter = (RandomState::new().hash_one(self.in_all) % 512) as u32;
        full / 2 + full * jitter / 1024
    }
}

/// Whether a sink found that the bytes are not what the digest names.
fn is_wrong_bytes(error: &BoxError) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
    while let Some(error) = next {
        if let Some(layer::Error::Digest { .. } | layer::Error::Size { .. }) = error.downcast_ref() {
            return true;
        }
        next = error.source();
    }
    false
}

/// The source's own error, where the stream wraps one.
pub(super) fn unwrap(error: io::Error) -> BoxError {
    if error.get_ref().is_none() {
        return error.into();
    }
    let kind = error.kind();
    error.into_inner().unwrap_or_else(|| io::Error::from(kind).into())
}

/// A source's stream that remembers whether it was the one that failed, and ends when another layer has failed.
///
/// For a sink that would have to begin again it goes on where it broke, as far as the source can start in the middle:
/// a registry that is written to need not be sent everything again because another one hung up.
struct Watched<'a> {
    work: &'a Work<'a>,
    digest: &'a Digest,
    plan: &'a LayerPlan,
    /// `None` until the first byte is wanted.
    inner: Option<Box<dyn Read + Send>>,
    /// The offset of the sink's first byte.
    start: u64,
    bytes: u64,
    /// The offset that `inner` began at.
    opened: u64,
    tries: Tries,
    /// It broke so often that there is no sense in beginning again.
    hopeless: bool,
    failure: Option<io::Error>,
}

impl<'a> Watched<'a> {
    fn new(
        work: &'a Work<'a>,
        digest: &'a Digest,
        plan: &'a LayerPlan,
        start: u64,
        inner: Option<Box<dyn Read + Send>>,
    ) -> Self {
        let tries = Tries::default();
        Self {
            work,
            digest,
            plan,
            inner,
            start,
            bytes: 0,
            opened: start,
            tries,
            hopeless: false,
            failure: None,
        }
    }

    fn is_stopped(&self) -> bool {
        self.work.stop.load(Ordering::Relaxed)
    }

    /// Open the stream again where it broke. False when that is not to be, or does not work.
    fn mend(&mut self, why: &io::Error) -> bool {
        if self.work.to.takes_up() || why.kind() == io::ErrorKind::InvalidData || self.is_stopped() {
            return false;
        }
        let (from, descriptor) = (self.work.from, &self.plan.descriptor);
        let at = self.start + self.bytes;
        self.tries.ended(self.opened, at - self.opened);
        if from.blob_failed(descriptor, StreamFailure::Broken) {
            self.tries = Tries::default();
        } else if self.tries.in_vain >= from.patience().tries {
            self.hopeless = true;
            return false;
        }
        let why = why.get_ref().map_or_else(|| why.to_string(), ToString::to_string);
        self.work.report.event(Event::Retry { digest: self.digest.clone(), why });
        self.work.pause(from.patience().pause.unwrap_or_else(|| self.tries.pause()));
        match self.work.open(self.plan, at) {
            Ok((opened, stream)) if opened == at => {
                (self.inner, self.opened) = (Some(stream), at);
                true
            }
            // A source that starts from the beginning has nothing to go on with.
            _ => false,
        }
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.is_stopped() {
                return Err(io::Error::other("stopped, as another layer failed"));
            }
            let inner = match &mut self.inner {
                Some(inner) => inner,
                None => match self.work.open(self.plan, self.start) {
                    Ok((_, stream)) => self.inner.insert(stream),
                    Err(error) => {
                        self.failure = Some(io::Error::other(error));
                        return Err(io::Error::other("the source's stream was not opened"));
                    }
                },
            };
            match inner.read(buffer) {
                Ok(n) => {
                    self.bytes += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
                Err(error) if self.mend(&error) => {}
                Err(error) => {
                    let told = io::Error::new(error.kind(), "the source's stream broke");
                    self.failure = Some(error);
                    return Err(told);
                }
            }
        }
    }
}
