//! How a transfer is shown: docker's words, one redrawn line a layer on a terminal, a line for each change elsewhere.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{sanitise, words};
use crate::image::{Event, Reporter};
use crate::oci::Digest;

/// Without a terminal, a layer that is still moving is mentioned this often.
const REMIND: Duration = Duration::from_secs(30);

/// Which way the layers go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Into the store.
    Pull,
    /// To a registry.
    Push,
}

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Display {
    /// Lines that are redrawn.
    Live,
    /// A line for each change.
    Plain,
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

#[derive(Debug)]
struct Layer {
    size: u64,
    step: Step,
    told: Instant,
    bar: Option<ProgressBar>,
}

#[derive(Debug, Default)]
struct State {
    order: Vec<Digest>,
    layers: HashMap<Digest, Layer>,
    /// Whether anything has been shown: an image that is all here shows nothing.
    shown: bool,
}

/// Shows the events of one transfer on stderr.
#[derive(Debug)]
pub struct Progress {
    direction: Direction,
    display: Display,
    bars: MultiProgress,
    state: Mutex<State>,
}

impl Progress {
    /// A display that shows nothing yet.
    #[must_use]
    pub fn new(direction: Direction, display: Display) -> Self {
        let target = match display {
            Display::Live => ProgressDrawTarget::stderr_with_hz(12),
            Display::Plain | Display::Quiet => ProgressDrawTarget::hidden(),
        };
        Self {
            direction,
            display,
            bars: MultiProgress::with_draw_target(target),
            state: Mutex::new(State::default()),
        }
    }

    /// End the display; what it shows stays.
    pub fn finish(&self) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for digest in &state.order {
            if let Some(bar) = state.layers.get(digest).and_then(|layer| layer.bar.as_ref()) {
                bar.abandon();
            }
        }
        if self.display == Display::Live && state.shown && !state.order.is_empty() {
            // The cursor stands behind the last bar.
            let _ = writeln!(std::io::stderr());
        }
    }

    fn note(&self, text: &str) {
        let text = sanitise::text(text);
        self.bars.suspend(|| {
            let _ = writeln!(std::io::stderr(), "{text}");
        });
    }

    /// Take in the list of layers. Those of a pull show with the first thing that happens to one of them.
    fn add(&self, state: &mut State, layers: Vec<(Digest, u64)>) {
        for (digest, size) in layers {
            let layer = Layer { size, step: Step::Known, told: Instant::now(), bar: None };
            if state.layers.insert(digest.clone(), layer).is_none() {
                state.order.push(digest);
            }
        }
        if self.direction == Direction::Push {
            self.reveal(state);
        }
    }

    /// Show the layers so far: from now on every change shows.
    fn reveal(&self, state: &mut State) {
        if std::mem::replace(&mut state.shown, true) || self.display == Display::Quiet {
            return;
        }
        for digest in &state.order {
            let Some(layer) = state.layers.get_mut(digest) else { continue };
            let words = match layer.step {
                Step::Finished => self.exists_words(),
                Step::Waiting => "Waiting",
                _ => self.first_words(),
            };
            if self.display == Display::Live {
                let bar = self.bars.add(ProgressBar::new(layer.size));
                bar.set_prefix(digest.short().to_owned());
                bar.set_style(plain_style());
                bar.set_message(words);
                layer.bar = Some(bar);
            } else {
                say(digest, words);
            }
        }
    }

    fn first_words(&self) -> &'static str {
        if self.direction == Direction::Pull { "Pulling fs layer" } else { "Preparing" }
    }

    fn exists_words(&self) -> &'static str {
        if self.direction == Direction::Pull { "Already exists" } else { "Layer already exists" }
    }

    fn moving_words(&self) -> &'static str {
        if self.direction == Direction::Pull { "Downloading" } else { "Pushing" }
    }

    fn finished_words(&self) -> &'static str {
        if self.direction == Direction::Pull { "Pull complete" } else { "Pushed" }
    }

    /// Move a layer on to a step, and show it when that is a change.
    fn step(&self, state: &mut State, digest: &Digest, step: Step, words: &str) {
        if step != Step::Waiting {
            self.reveal(state);
        }
        let shown = state.shown;
        let Some(layer) = state.layers.get_mut(digest) else { return };
        if layer.step >= step {
            return;
        }
        layer.step = step;
        layer.told = Instant::now();
        if !shown {
            return;
        }
        match (self.display, &layer.bar) {
            (Display::Live, Some(bar)) => {
                bar.set_style(plain_style());
                bar.set_message(words.to_owned());
            }
            (Display::Plain, _) => say(digest, words),
            _ => {}
        }
    }

    /// The layer is there without having moved: said at once when lines are shown, else when they begin to be.
    fn exists(&self, state: &mut State, digest: &Digest) {
        if state.shown {
            self.step(state, digest, Step::Finished, self.exists_words());
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
        match (self.display, &layer.bar) {
            (Display::Live, Some(bar)) => {
                if new {
                    bar.set_style(bar_style());
                    bar.set_message(words);
                }
                bar.set_position(bytes.min(layer.size));
            }
            // Docker says `Downloading` on a terminal only; here it comes when it takes long.
            (Display::Plain, _) if layer.told.elapsed() >= REMIND => {
                layer.told = Instant::now();
                let progress = format!("{words} {}", words::moved(bytes, layer.size));
                say(digest, &progress);
            }
            _ => {}
        }
    }
}

impl Reporter for Progress {
    fn event(&self, event: Event) {
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *guard;
        match event {
            Event::Layers(layers) => self.add(state, layers),
            Event::Exists(digest) => self.exists(state, &digest),
            Event::Waiting(digest) => self.step(state, &digest, Step::Waiting, "Waiting"),
            Event::Moved { digest, bytes } => {
                self.advance(state, &digest, Step::Moving, self.moving_words(), bytes);
            }
            Event::Moved100(digest) => {
                if self.direction == Direction::Pull {
                    self.step(state, &digest, Step::Moved, "Download complete");
                }
            }
            Event::Unpacked { digest, bytes } => {
                // Unpacking goes along with the transfer; it shows once the transfer is over.
                if state.layers.get(&digest).is_some_and(|layer| layer.step >= Step::Moved) {
                    self.advance(state, &digest, Step::Unpacking, "Extracting", bytes);
                }
            }
            Event::Done(digest) => self.step(state, &digest, Step::Finished, self.finished_words()),
            Event::Mounted { digest, from } => {
                self.step(state, &digest, Step::Finished, &format!("Mounted from {from}"));
            }
            Event::Retry { digest, why } => {
                if let Some(layer) = state.layers.get_mut(&digest) {
                    layer.step = Step::Known;
                }
                drop(guard);
                self.note(&format!("{}: Retrying, as {why}", digest.short()));
            }
            Event::Note(text) => {
                drop(guard);
                self.note(&format!("notice: {text}"));
            }
        }
    }
}

fn say(digest: &Digest, words: &str) {
    let _ = writeln!(std::io::stderr(), "{}: {}", digest.short(), sanitise::text(words));
}

fn plain_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn bar_style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg:11} [{bar:50}]  {moved}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("moved", |state: &ProgressState, text: &mut dyn std::fmt::Write| {
            let _ = text.write_str(&words::moved(state.pos(), state.len().unwrap_or(0)));
        })
        .progress_chars("=> ")
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
        let state = progress.state.into_inner().unwrap();
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
}
