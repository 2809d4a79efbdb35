//! The layers of a copy: several at once, each resumed where its stream broke.

use std::collections::HashSet;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::copy::CopyError;
use super::{BoxError, Event, LayerPlan, LayerState, Reporter, Sink, Source};
use crate::oci::{Digest, digest_of};

/// How often a layer is tried without getting further.
const TRIES: u32 = 5;
/// How often a layer is tried at all: a source that cannot start in the middle may never get to the end.
const TRIES_IN_ALL: u32 = 20;
/// Bytes of a try that count as getting further.
const PROGRESS: u64 = 1 << 20;
/// The pause before the first repetition; it doubles from one to the next.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

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
        let (mut tries, mut in_all) = (0, 0);
        loop {
            let partial = match self.to.layer_state(plan)? {
                LayerState::Complete => {
                    let event = if in_all == 0 { Event::Exists } else { Event::Done };
                    self.report.event(event(digest.clone()));
                    return Ok(in_all > 0);
                }
                LayerState::Missing { partial } => partial,
            };
            let (offset, stream) = self.from.raw_blob(&plan.descriptor, partial)?;
            let mut watched = Watched { inner: stream, stop: &self.stop, bytes: 0, failure: None };
            let result = self.to.put_layer(plan, offset, &mut watched, self.report);
            let (bytes, failure) = (watched.bytes, watched.failure);
            let Err(error) = result else {
                self.report.event(Event::Done(digest.clone()));
                return Ok(true);
            };
            tries = if bytes >= PROGRESS { 1 } else { tries + 1 };
            in_all += 1;
            let again = match &failure {
                Some(failure) => failure.kind() != io::ErrorKind::InvalidData,
                // What lay here from an earlier try may have been the wrong part: once more from the start.
                None => self.to.may_pass(&error) || (offset > 0 && in_all == 1),
            };
            let error = failure.map_or(error, unwrap);
            if !again || tries >= TRIES || in_all >= TRIES_IN_ALL || self.stop.load(Ordering::Relaxed) {
                return Err(error);
            }
            self.report.event(Event::Retry { digest: digest.clone(), why: error.to_string() });
            std::thread::sleep(FIRST_PAUSE * 2_u32.pow(tries.min(6) - 1));
        }
    }
}

/// The source's own error, where the stream wraps one.
fn unwrap(error: io::Error) -> BoxError {
    if error.get_ref().is_none() {
        return error.into();
    }
    let kind = error.kind();
    error.into_inner().unwrap_or_else(|| io::Error::from(kind).into())
}

/// A source's stream that remembers whether it was the one that failed, and ends when another layer has failed.
struct Watched<'a> {
    inner: Box<dyn Read + Send>,
    stop: &'a AtomicBool,
    bytes: u64,
    failure: Option<io::Error>,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("stopped, as another layer failed"));
        }
        match self.inner.read(buffer) {
            Ok(n) => {
                self.bytes += n as u64;
                Ok(n)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let told = io::Error::new(error.kind(), "the source's stream broke");
                self.failure = Some(error);
                Err(told)
            }
        }
    }
}
