//! How a transfer is shown: docker's words, one redrawn line a layer on a terminal, a line for each change elsewhere.

mod bar;
mod heart;
mod json;
mod words;

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressDrawTarget};

use self::bar::Bar;
use self::heart::{BEAT, Heart};
use self::json::{Line, Status};
pub use self::words::Direction;
use super::term::{self, Stream};
use super::{sanitise, words as sizes};
use crate::image::{Event, Reporter};
use crate::oci::Digest;

/// A transfer that is over before has no need of a sign of life.
const SHORT: Duration = Duration::from_secs(2);
/// In JSON, a layer that moves is mentioned at most this often.
const JSON_EVERY: Duration = Duration::from_millis(250);

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Display {
    /// Lines that are redrawn.
    Live,
    /// A line for each change.
    Plain,
    /// An object for each change.
    Json,
    /// Notes only.
    Quiet,
}

impl Display {
    /// What fits: live on a terminal that can redraw (`terminal`: whether stderr is one), unless quiet was asked for.
    #[must_use]
    pub fn choose<'a>(quiet: bool, terminal: bool, var: impl Fn(&str) -> Option<&'a str>) -> Self {
        match () {
            () if quiet => Self::Quiet,
            () if terminal && var("TERM") != Some("dumb") && var("CI").is_none() => Self::Live,
            () => Self::Plain,
        }
    }

    /// Whether words for people belong beside it.
    #[must_use]
    pub fn is_for_people(self) -> bool {
        matches!(self, Self::Live | Self::Plain)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Known,
    Waiting,
    Moving,
    Moved,
    Unpacking,
    Finished,
}

impl Step {
    fn status(self) -> Status {
        match self {
            Self::Known => Status::Pending,
            Self::Waiting => Status::Waiting,
            Self::Moving => Status::Transferring,
            Self::Moved => Status::Transferred,
            Self::Unpacking => Status::Unpacking,
            Self::Finished => Status::Done,
        }
    }
}

#[derive(Debug)]
struct Layer {
    size: u64,
    step: Step,
    /// Bytes that have moved, those of an earlier try included.
    bytes: u64,
    /// When JSON last mentioned it.
    told: Option<Instant>,
    bar: Option<Bar>,
}

#[derive(Debug, Default)]
struct State {
    order: Vec<Digest>,
    layers: HashMap<Digest, Layer>,
    /// Whether anything has been shown: an image that is all here shows nothing.
    shown: bool,
    /// Whether there are more layers than lines of the terminal.
    tall: bool,
    /// Bytes that this process moved, in all, and at the last sign of life.
    moved: (u64, u64),
}

/// Shows the events of one transfer on stderr.
#[derive(Debug)]
pub struct Progress {
    inner: Arc<Inner>,
    heart: Mutex<Option<Heart>>,
}

#[derive(Debug)]
struct Inner {
    direction: Direction,
    display: Display,
    bars: MultiProgress,
    state: Mutex<State>,
    begun: Instant,
}

impl Progress {
    /// A display that shows nothing yet.
    #[must_use]
    pub fn new(direction: Direction, display: Display) -> Self {
        let target = match display {
            Display::Live => ProgressDrawTarget::stderr_with_hz(12),
            Display::Plain | Display::Json | Display::Quiet => ProgressDrawTarget::hidden(),
        };
        let inner = Inner {
            direction,
            display,
            bars: MultiProgress::with_draw_target(target),
            state: Mutex::new(State::default()),
            begun: Instant::now(),
        };
        Self { inner: Arc::new(inner), heart: Mutex::default() }
    }

    /// End the display; what it shows stays.
    pub fn finish(&self) {
        drop(self.heart.lock().unwrap_or_else(PoisonError::into_inner).take());
        let inner = &self.inner;
        let state = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &state.order {
            if let Some(bar) = state.layers.get(digest).and_then(|layer| layer.bar.as_ref()) {
                bar.shown().abandon();
            }
        }
        if inner.display == Display::Live && state.shown && !state.order.is_empty() {
            // The cursor stands behind the last bar.
            let _ = writeln!(std::io::stderr());
        }
    }

    /// In a log, what takes long gets a sign of life.
    fn keep_alive(&self) {
        if self.inner.display != Display::Plain || self.inner.begun.elapsed() < SHORT {
            return;
        }
        let mut heart = self.heart.lock().unwrap_or_else(PoisonError::into_inner);
        if heart.is_none() {
            let inner = self.inner.clone();
            *heart = Heart::start(BEAT, move || inner.beat());
        }
    }
}

impl Inner {
    fn note(&self, text: &str) {
        let text = sanitise::text(text);
        self.bars.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{text}");
        });
    }

    /// `Downloading: 12MB/34MB, 5.6MB/s, 3 of 7 layers complete`
    fn beat(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let rate = (state.moved.0 - state.moved.1) / BEAT.as_secs();
        state.moved.1 = state.moved.0;
        let finished = state.layers.values().filter(|layer| layer.step == Step::Finished).count();
        let total = state.layers.values().map(|layer| layer.size).sum();
        let bytes = state.layers.values().map(Layer::done).sum();
        let line = format!(
            "{}: {}, {}/s, {finished} of {} layers complete",
            self.direction.moving(),
            sizes::moved(bytes, total),
            sizes::size(rate),
            state.layers.len()
        );
        let _ = writeln!(std::io::stderr(), "{line}");
    }

    /// Take in the list of layers. Those of a pull show with the first thing that happens to one of them.
    fn add(&self, state: &mut State, layers: Vec<(Digest, u64)>) {
        let begin = state.order.len();
        for (digest, size) in layers {
            let layer = Layer { size, step: Step::Known, bytes: 0, told: None, bar: None };
            if !state.layers.contains_key(&digest) {
                state.layers.insert(digest.clone(), layer);
                state.order.push(digest);
            }
        }
        if state.shown {
            self.show(state, begin); // those of a further image of an index
        } else if self.direction.shows_at_once() {
            self.reveal(state);
        }
    }

    /// Show the layers so far: from now on every change shows.
    fn reveal(&self, state: &mut State) {
        if !std::mem::replace(&mut state.shown, true) {
            self.show(state, 0);
        }
    }

    /// Show the layers from a place in the list on as they are now.
    fn show(&self, state: &mut State, begin: usize) {
        let rows = term::size(Stream::Stderr).map_or(usize::MAX, |(rows, _)| usize::from(rows));
        state.tall = state.order.len() >= rows;
        for digest in &state.order[begin..] {
            let Some(layer) = state.layers.get_mut(digest) else { continue };
            let (words, status) = match layer.step {
                Step::Finished => (self.direction.exists(), Status::Exists),
                Step::Waiting => ("Waiting", Status::Waiting),
                _ => (self.direction.first(), Status::Pending),
            };
            if self.display == Display::Live {
                let bar = Bar::new(digest.short(), layer.size, words);
                self.bars.add(bar.shown().clone());
                bar.shown().tick();
                layer.bar = Some(bar);
            } else {
                self.say(digest, layer.size, words, status, None);
            }
        }
    }

    /// One line, or one object.
    fn say(&self, digest: &Digest, size: u64, words: &str, status: Status, message: Option<&str>) {
        match self.display {
            Display::Plain => {
                let _ = writeln!(std::io::stderr(), "{}: {}", digest.short(), sanitise::text(words));
            }
            Display::Json => {
                let line = Line::new(self.direction.verb(), status);
                Line { id: Some(digest.as_str()), total: Some(size), message, ..line }.say();
            }
            Display::Live | Display::Quiet => {}
        }
    }

    /// Move a layer on to a step, and show it when that is a change.
    fn step(&self, state: &mut State, digest: &Digest, step: Step, told: &Told<'_>) {
        if step != Step::Waiting {
            self.reveal(state);
        }
        let shown = state.shown;
        let Some(layer) = state.layers.get_mut(digest) else { return };
        if layer.step >= step {
            return;
        }
        layer.step = step;
        if !shown {
            return;
        }
        match &layer.bar {
            // What does not fit on the terminal is not drawn: a layer that is through makes room for the next.
            Some(bar) if step == Step::Finished && state.tall => {
                self.bars.remove(bar.shown());
                layer.bar = None;
                self.note(&format!("{}: {}", digest.short(), told.words));
            }
            Some(bar) => bar.say(told.words),
            None => self.say(digest, layer.size, told.words, told.status, told.message),
        }
    }

    /// The layer is there without having moved: said at once when lines are shown, else when they begin to be.
    fn exists(&self, state: &mut State, digest: &Digest) {
        if state.shown {
            let told = Told { words: self.direction.exists(), status: Status::Exists, message: None };
            self.step(state, digest, Step::Finished, &told);
        } else if let Some(layer) = state.layers.get_mut(digest) {
            layer.step = Step::Finished;
        }
    }

    /// Show how far a layer is.
    fn advance(&self, state: &mut State, digest: &Digest, step: Step, words: &'static str, bytes: u64) {
        self.reveal(state);
        let Some(layer) = state.layers.get_mut(digest) else { return };
        if layer.step > step {
            return;
        }
        let new = layer.step < step;
        layer.step = step;
        if step == Step::Moving {
            // What lay here from an earlier try did not move now.
            let step = if new { 0 } else { bytes.saturating_sub(layer.bytes) };
            layer.bytes = bytes;
            state.moved.0 += step;
        }
        match (self.display, &layer.bar) {
            (Display::Live, Some(bar)) => {
                let bytes = bytes.min(layer.size);
                if new { bar.begin(words, bytes) } else { bar.advance(bytes) }
            }
            (Display::Json, _) if layer.told.is_none_or(|told| new || told.elapsed() >= JSON_EVERY) => {
                layer.told = Some(Instant::now());
                let line = Line::new(self.direction.verb(), step.status());
                Line { id: Some(digest.as_str()), current: Some(bytes), total: Some(layer.size), ..line }
                    .say();
            }
            _ => {}
        }
    }

    fn retry(&self, mut state: std::sync::MutexGuard<'_, State>, digest: &Digest, why: &str) {
        let size = state.layers.get_mut(digest).map_or(0, |layer| {
            layer.step = Step::Known;
            layer.size
        });
        drop(state);
        if self.display == Display::Json {
            self.say(digest, size, "", Status::Retrying, Some(why));
        } else {
            self.note(&format!("{}: Retrying, as {why}", digest.short()));
        }
    }

    fn notice(&self, text: &str) {
        if self.display == Display::Json {
            let line = Line::new(self.direction.verb(), Status::Notice);
            Line { message: Some(text), ..line }.say();
        } else {
            self.note(&format!("notice: {text}"));
        }
    }
}

impl Layer {
    /// Bytes that need not move any more.
    fn done(&self) -> u64 {
        if self.step == Step::Finished { self.size } else { self.bytes.min(self.size) }
    }
}

/// How a step is told: in words, and in JSON.
struct Told<'a> {
    words: &'a str,
    status: Status,
    message: Option<&'a str>,
}

impl<'a> Told<'a> {
    fn new(words: &'a str, step: Step) -> Self {
        Self { words, status: step.status(), message: None }
    }
}

impl Reporter for Progress {
    fn event(&self, event: Event) {
        let inner = &*self.inner;
        let mut guard = inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        match event {
            Event::Layers(layers) => inner.add(state, layers),
            Event::Exists(digest) => inner.exists(state, &digest),
            Event::Waiting(digest) => {
                inner.step(state, &digest, Step::Waiting, &Told::new("Waiting", Step::Waiting));
            }
            Event::Moved { digest, bytes } => {
                inner.advance(state, &digest, Step::Moving, inner.direction.moving(), bytes);
                drop(guard);
                self.keep_alive();
            }
            Event::Moved100(digest) => {
                if let Some(words) = inner.direction.moved() {
                    inner.step(state, &digest, Step::Moved, &Told::new(words, Step::Moved));
                }
            }
            Event::Unpacked { digest, bytes } => {
                // Unpacking goes along with the transfer; it shows once the transfer is over.
                if state.layers.get(&digest).is_some_and(|layer| layer.step >= Step::Moved) {
                    inner.advance(state, &digest, Step::Unpacking, "Extracting", bytes);
                }
            }
            Event::Done(digest) => {
                let told = Told::new(inner.direction.finished(), Step::Finished);
                inner.step(state, &digest, Step::Finished, &told);
            }
            Event::Mounted { digest, from } => {
                let words = format!("Mounted from {from}");
                let told = Told { words: &words, status: Status::Mounted, message: Some(&from) };
                inner.step(state, &digest, Step::Finished, &told);
            }
            Event::Retry { digest, why } => inner.retry(guard, &digest, &why),
            Event::Note(text) => {
                drop(guard);
                inner.notice(&text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(events: Vec<Event>) -> (bool, Vec<Step>) {
        let progress = Progress::new(Direction::Pull, Display::Quiet);
        for event in events {
            progress.event(event);
        }
        progress.finish();
        let state = progress.inner.state.lock().unwrap();
        (state.shown, state.order.iter().map(|digest| state.layers[digest].step).collect())
    }

    #[test]
    fn an_image_that_is_all_here_shows_nothing() {
        let (a, b) = (Digest::sha256("a"), Digest::sha256("b"));
        let layers = Event::Layers(vec![(a.clone(), 1), (b.clone(), 2)]);
        let (shown, steps) =
            words_of(vec![layers.clone(), Event::Exists(a.clone()), Event::Exists(b.clone())]);
        assert!(!shown && steps == [Step::Finished; 2]);
        let moved = Event::Moved { digest: b.clone(), bytes: 1 };
        let (shown, steps) = words_of(vec![layers, Event::Exists(a), moved, Event::Done(b)]);
        assert!(shown && steps == [Step::Finished; 2]);
    }

    #[test]
    fn late_events_do_not_turn_a_layer_back() {
        let a = Digest::sha256("a");
        let (_, steps) = words_of(vec![
            Event::Layers(vec![(a.clone(), 10)]),
            Event::Unpacked { digest: a.clone(), bytes: 3 },
            Event::Moved { digest: a.clone(), bytes: 10 },
            Event::Moved100(a.clone()),
            Event::Moved { digest: a.clone(), bytes: 10 },
            Event::Unpacked { digest: a.clone(), bytes: 10 },
        ]);
        assert_eq!(steps, [Step::Unpacking]);
    }

    #[test]
    fn what_an_earlier_try_moved_is_no_part_of_the_rate() {
        let a = Digest::sha256("a");
        let progress = Progress::new(Direction::Push, Display::Quiet);
        progress.event(Event::Layers(vec![(a.clone(), 100)]));
        for bytes in [60, 70, 90] {
            progress.event(Event::Moved { digest: a.clone(), bytes });
        }
        let state = progress.inner.state.lock().unwrap();
        assert_eq!((state.moved.0, state.layers[&a].done()), (30, 90));
    }

    #[test]
    fn the_display_follows_the_terminal_and_the_environment() {
        let none = |_: &str| None;
        assert_eq!(Display::choose(true, true, none), Display::Quiet);
        assert_eq!(Display::choose(false, true, none), Display::Live);
        assert_eq!(Display::choose(false, false, none), Display::Plain);
        for (name, value) in [("TERM", "dumb"), ("CI", "true")] {
            let var = |asked: &str| (asked == name).then_some(value);
            assert_eq!(Display::choose(false, true, var), Display::Plain);
        }
    }
}
