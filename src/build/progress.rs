//! What happens during a build, told to whoever draws it.

use std::time::Duration;

/// Which stream a line of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of work with a name: a step, loading a file, exporting. Numbered by the builder, from 0.
pub type Vertex = usize;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Work begins.
    Started {
        /// Which.
        vertex: Vertex,
        /// Its name, such as `[2/3] RUN make`.
        name: String,
        /// Whether it counts as a step of the Dockerfile.
        step: bool,
    },
    /// The work's result was there already.
    Cached {
        /// Which.
        vertex: Vertex,
    },
    /// A part of the work, such as a layer being pulled, and how far it is.
    Part {
        /// Of which.
        vertex: Vertex,
        /// The part's name.
        part: String,
        /// Bytes so far.
        current: u64,
        /// Bytes in all; 0 when that is not known.
        total: u64,
        /// Whether it is done.
        done: bool,
    },
    /// The program of a step wrote something.
    Output {
        /// Of which.
        vertex: Vertex,
        /// Where.
        stream: Stream,
        /// What, not necessarily whole lines.
        data: Vec<u8>,
        /// Since the step began.
        after: Duration,
    },
    /// Something the user should know about the work.
    Note {
        /// Which.
        vertex: Vertex,
        /// What.
        text: String,
    },
    /// The work ended well.
    Done {
        /// Which.
        vertex: Vertex,
        /// How long it took.
        took: Duration,
    },
    /// The work failed.
    Failed {
        /// Which.
        vertex: Vertex,
        /// Why, in one line.
        why: String,
    },
    /// The work was given up because other work failed or the user asked for it.
    Cancelled {
        /// Which.
        vertex: Vertex,
    },
    /// A remark about the Dockerfile.
    Lint {
        /// Rule and message, such as `LegacyKeyValueFormat: "ENV key=value" should be used … (line 2)`.
        text: String,
    },
}

/// Takes events. Called from the threads that do the work.
pub trait Progress: Send + Sync {
    /// Take one event.
    fn event(&self, event: Event);
}

/// Drops everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: Event) {}
}
