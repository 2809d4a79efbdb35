//! The lines of a terminal: `ID: Downloading [====>     ]  12.3MB/45.6MB  7.8MB/s`, as wide as there is room.

use std::fmt::Write;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

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

/// A bar of a layer that has not moved.
pub(super) fn new(id: &str, size: u64, words: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(size).with_style(words_only()).with_prefix(id.to_owned());
    bar.set_message(words);
    bar
}

/// From now on words alone.
pub(super) fn say(bar: &ProgressBar, words: &str) {
    bar.set_style(words_only());
    bar.set_message(words.to_owned());
}

/// From now on words and how far it is.
pub(super) fn begin(bar: &ProgressBar, words: &'static str, at: u64) {
    bar.set_position(at);
    // What lay here before did not move now: it is no part of the rate.
    bar.reset_eta();
    bar.set_style(with_bar());
    bar.set_message(words);
}

fn words_only() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn with_bar() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg:11} {drawn}{moved}{rate}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .with_key("drawn", |state: &ProgressState, text: &mut dyn Write| {
            let _ = text.write_str(&drawn(state.fraction(), columns()));
        })
        .with_key("moved", |state: &ProgressState, text: &mut dyn Write| {
            let _ = text.write_str(&words::moved(state.pos(), state.len().unwrap_or(0)));
        })
        .with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
            let _ = text.write_str(&rate(state.per_sec()));
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

/// `  7.8MB/s`; nothing before there is a rate.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn rate(per_second: f64) -> String {
    if per_second < 1.0 { String::new() } else { format!("  {}/s", words::size(per_second as u64)) }
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
                rate(1.234e8)
            );
            assert!(line.len() < columns, "{columns}: {line}");
        }
    }

    #[test]
    fn a_rate_is_said_when_there_is_one() {
        assert_eq!(rate(0.0), "");
        assert_eq!(rate(7_800_000.0), "  7.8MB/s");
    }
}
