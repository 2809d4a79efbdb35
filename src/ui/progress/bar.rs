//! The lines of a terminal: `ID: Downloading [====>     ]  12.3MB/45.6MB  7.8MB/s`, as wide as there is room.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::ui::term::{self, Stream};
use crate::ui::words;

/// The bar at its longest, as docker draws it.
const LONGEST: usize = 50;
/// A bar that is shorter says nothing.
const SHORTEST: usize = 10;
/// What stands beside the bar: id, words, brackets, sizes and rate at their longest.
const BESIDE: usize = 12 + 2 + 11 + 1 + 3 + 17 + 2 + 9 + 1;
/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;

/// A rate is of the last so many seconds.
const WINDOW: usize = 5;

/// The line of one layer.
#[derive(Debug)]
pub(super) struct Bar {
    bar: ProgressBar,
    rate: Arc<Mutex<Rate>>,
}

impl Bar {
    /// A line of a layer that has not moved; it shows once it is part of something that shows.
    pub(super) fn new(id: &str, size: u64, words: &'static str) -> Self {
        // Not drawn by itself, which would leave a line behind.
        let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden())
            .with_style(words_only())
            .with_prefix(id.to_owned())
            .with_message(words);
        Self { bar, rate: Arc::default() }
    }

    /// What is drawn.
    pub(super) fn shown(&self) -> &ProgressBar {
        &self.bar
    }

    /// From now on words alone.
    pub(super) fn say(&self, words: &str) {
        self.bar.set_style(words_only());
        self.bar.set_message(words.to_owned());
    }

    /// From now on words and how far it is. What lay here before did not move now: it is no part of the rate.
    pub(super) fn begin(&self, words: &'static str, at: u64) {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        *rate = Rate::default();
        rate.note(at, Instant::now());
        drop(rate);
        self.bar.set_position(at);
        self.bar.set_style(with_bar(self.rate.clone()));
        self.bar.set_message(words);
    }

    /// How far it is.
    pub(super) fn advance(&self, at: u64) {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner).note(at, Instant::now());
        self.bar.set_position(at);
    }
}

/// Bytes per second, of the last seconds: what a socket swallows at once at the beginning is forgotten soon.
#[derive(Debug, Default)]
struct Rate {
    /// When how many bytes had moved, a second apart.
    samples: VecDeque<(Instant, u64)>,
    latest: u64,
}

impl Rate {
    fn note(&mut self, at: u64, now: Instant) {
        self.latest = at;
        let due =
            self.samples.back().is_none_or(|(then, _)| now.duration_since(*then) >= Duration::from_secs(1));
        if due {
            self.samples.push_back((now, at));
            if self.samples.len() > WINDOW {
                self.samples.pop_front();
            }
        }
    }

    /// Nothing before there is a second to speak of.
    fn at(&self, now: Instant) -> Option<u64> {
        let (begin, bytes) = self.samples.front()?;
        let elapsed = now.duration_since(*begin);
        let moved = u128::from(self.latest.saturating_sub(*bytes));
        (elapsed >= Duration::from_secs(1))
            .then(|| u64::try_from(moved * 1000 / elapsed.as_millis().max(1)).unwrap_or(u64::MAX))
    }
}

fn words_only() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn with_bar(rate: Arc<Mutex<Rate>>) -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg:11} {drawn}{moved}{rate}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("drawn", |state: &ProgressState, text: &mut dyn Write| {
            let _ = text.write_str(&drawn(state.fraction(), columns()));
        })
        .with_key("moved", |state: &ProgressState, text: &mut dyn Write| {
            let _ = text.write_str(&words::moved(state.pos(), state.len().unwrap_or(0)));
        })
        .with_key("rate", move |_: &ProgressState, text: &mut dyn Write| {
            let rate = rate.lock().unwrap_or_else(PoisonError::into_inner).at(Instant::now());
            let _ = text.write_str(&per_second(rate));
        })
}

fn columns() -> usize {
    term::size(Stream::Stderr).map_or(COLUMNS, |(_, columns)| usize::from(columns))
}

/// `[====>     ]  `, or nothing where there is no room for it.
fn drawn(fraction: f32, columns: usize) -> String {
    let length = columns.saturating_sub(BESIDE).min(LONGEST);
    if length < SHORTEST {
        return String::new();
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
    let full = ((fraction.clamp(0.0, 1.0) * length as f32) as usize).min(length);
    let head = if full > 0 && full < length { ">" } else { "" };
    format!("[{}{head}{}]  ", "=".repeat(full - head.len()), " ".repeat(length - full))
}

/// `  7.8MB/s`; nothing while there is no rate.
fn per_second(rate: Option<u64>) -> String {
    rate.map_or_else(String::new, |rate| format!("  {}/s", words::size(rate)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fits_any_terminal() {
        assert_eq!(drawn(0.5, 200), format!("[{}>{}]  ", "=".repeat(24), " ".repeat(25)));
        assert_eq!(drawn(0.0, 200), format!("[{}]  ", " ".repeat(50)));
        assert_eq!(drawn(1.0, 200), format!("[{}]  ", "=".repeat(50)));
        assert_eq!(drawn(0.5, 40), "");
        for columns in 70..120 {
            let bar = drawn(0.37, columns);
            let line = format!(
                "0123456789ab: Downloading {bar}{}{}",
                words::moved(123_456_789, 987_654_321),
                per_second(Some(123_400_000))
            );
            assert!(line.len() < columns, "{columns}: {line}");
        }
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let begin = Instant::now();
        let after = |millis| begin + Duration::from_millis(millis);
        let mut rate = Rate::default();
        rate.note(50, begin);
        rate.note(1_000_000, after(100));
        assert_eq!(rate.at(after(500)), None);
        assert_eq!(per_second(None), "");
        for second in 1..=20 {
            rate.note(1_000_000 + second * 1000, after(second * 1000));
        }
        assert_eq!(rate.at(after(20_000)), Some(1000), "the burst at the beginning is forgotten");
        assert_eq!(rate.at(after(24_000)), Some(500), "nothing moves any more");
        assert_eq!(per_second(Some(7_800_000)), "  7.8MB/s");
    }
}
