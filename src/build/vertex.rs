//! Pieces of work with numbers, names and times, told to the progress display.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::error::Error;
use super::progress::{Event, Progress, Stream, Vertex};
use crate::image::{self, Reporter};
use crate::oci::Digest;

/// Numbers pieces of work, of one build or of one for each platform.
pub struct Board<'a> {
    progress: &'a dyn Progress,
    next: Cell<Vertex>,
    remarks: RefCell<BTreeSet<String>>,
}

impl std::fmt::Debug for Board<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").field("next", &self.next).finish_non_exhaustive()
    }
}

/// A piece of work that has begun.
pub struct Work<'a> {
    progress: &'a dyn Progress,
    vertex: Vertex,
    began: Instant,
}

impl std::fmt::Debug for Work<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("vertex", &self.vertex).finish_non_exhaustive()
    }
}

impl<'a> Board<'a> {
    /// Nothing yet.
    #[must_use]
    pub fn new(progress: &'a dyn Progress) -> Self {
        Self { progress, next: Cell::new(0), remarks: RefCell::default() }
    }

    /// Begin a piece of work; `step` when it is one of the Dockerfile's.
    pub fn begin(&self, name: String, step: bool) -> Work<'a> {
        let vertex = self.next.replace(self.next.get() + 1);
        self.progress.event(Event::Started { vertex, name, step });
        Work { progress: self.progress, vertex, began: Instant::now() }
    }

    /// A remark about the Dockerfile, made once.
    pub(super) fn lint(&self, text: String) {
        if self.remarks.borrow_mut().insert(text.clone()) {
            self.progress.event(Event::Lint { text });
        }
    }
}

impl Work<'_> {
    /// The result was there already.
    pub(super) fn cached(&self) {
        self.progress.event(Event::Cached { vertex: self.vertex });
    }

    /// The end, good or bad.
    pub(super) fn end<T>(&self, result: &Result<T, Error>) {
        match result {
            Err(Error::Interrupted) => self.progress.event(Event::Cancelled { vertex: self.vertex }),
            other => self.ended(other),
        }
    }

    /// The end of work that is none of a step's.
    pub fn ended<T, E: std::error::Error>(&self, result: &Result<T, E>) {
        let vertex = self.vertex;
        self.progress.event(match result {
            Ok(_) => Event::Done { vertex, took: self.began.elapsed() },
            Err(error) => Event::Failed { vertex, why: chain(error) },
        });
    }

    /// Shows the layers of a pull as parts of this work.
    #[must_use]
    pub fn parts(&self) -> Parts<'_> {
        Parts { progress: self.progress, vertex: self.vertex, totals: Mutex::default() }
    }

    /// So many bytes of a part of it have come, of so many; 0 when that is not known.
    pub fn moved(&self, part: &str, current: u64, total: u64) {
        let done = total != 0 && current >= total;
        self.progress.event(Event::Part { vertex: self.vertex, part: part.to_owned(), current, total, done });
    }

    /// Something about it that the user should know.
    pub fn note(&self, text: String) {
        self.progress.event(Event::Note { vertex: self.vertex, text });
    }

    /// The program wrote something.
    pub(super) fn output(&self, stream: Stream, data: &[u8]) {
        let after: Duration = self.began.elapsed();
        self.progress.event(Event::Output { vertex: self.vertex, stream, data: data.to_vec(), after });
    }
}

/// See [`Work::parts`].
pub struct Parts<'a> {
    progress: &'a dyn Progress,
    vertex: Vertex,
    totals: Mutex<HashMap<Digest, u64>>,
}

impl std::fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parts").field("vertex", &self.vertex).finish_non_exhaustive()
    }
}

impl Reporter for Parts<'_> {
    fn event(&self, event: image::Event) {
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        let (digest, bytes, done) = match event {
            image::Event::Layers(layers) => {
                totals.extend(layers);
                return;
            }
            image::Event::Moved { digest, bytes } => (digest, Some(bytes), false),
            image::Event::Done(digest) | image::Event::Exists(digest) => (digest, None, true),
            image::Event::Note(text) => {
                self.progress.event(Event::Note { vertex: self.vertex, text });
                return;
            }
            image::Event::Retry { digest, why } => {
                let text = format!("{}: trying again: {why}", digest.short());
                self.progress.event(Event::Note { vertex: self.vertex, text });
                return;
            }
            _ => return,
        };
        let total = totals.get(&digest).copied().unwrap_or(0);
        let current = bytes.unwrap_or(total);
        self.progress.event(Event::Part {
            vertex: self.vertex,
            part: digest.to_string(),
            current,
            total,
            done,
        });
    }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let this = cause.to_string();
        if !text.ends_with(&this) {
            text.push_str(": ");
            text.push_str(&this);
        }
        next = cause.source();
    }
    text
}
