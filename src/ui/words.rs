//! Ages and sizes in docker's words.

use jiff::Timestamp;

/// How long ago `time` (RFC 3339) was, as docker says it: `2 hours ago`; `N/A` when it cannot be read.
#[must_use]
pub fn ago(time: &str, now: Timestamp) -> String {
    time.parse().map_or_else(|_| "N/A".into(), |then| ago_since(then, now))
}

/// How long ago a time was.
#[must_use]
pub fn ago_since(then: Timestamp, now: Timestamp) -> String {
    duration(whole_seconds(then, now)) + " ago"
}

fn whole_seconds(then: Timestamp, now: Timestamp) -> u64 {
    u64::try_from(now.as_second().saturating_sub(then.as_second())).unwrap_or(0)
}

/// Whole seconds from `time` (RFC 3339) to `now`; a time in the future counts as now.
#[must_use]
pub fn seconds_since(time: &str, now: Timestamp) -> Option<u64> {
    Some(whole_seconds(time.parse().ok()?, now))
}

/// A duration of whole seconds, as docker rounds it (go-units `HumanDuration`).
#[must_use]
pub fn duration(seconds: u64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", seconds / 3600 / 24 / 365),
    }
}

/// A time as docker lists it: `2026-01-02 15:04:05 +0100 CET`, in the local zone; as given when it cannot be read.
#[must_use]
pub fn local_time(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => {
            then.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
        }
        Err(_) => time.into(),
    }
}

/// A size in decimal units with three significant digits, as docker lists it: `7.34MB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    scaled(bytes, 1000.0, 3, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// How much of how much was moved, as docker shows it: `25.95MB/64.93MB`.
#[must_use]
pub fn moved(bytes: u64, total: u64) -> String {
    let size = |bytes| scaled(bytes, 1000.0, 4, &["B", "kB", "MB", "GB", "TB", "PB", "EB"]);
    format!("{}/{}", size(bytes), size(total))
}

/// A size in binary units with four significant digits, as docker shows memory: `7.655GiB`.
#[must_use]
pub fn memory(bytes: u64) -> String {
    scaled(bytes, 1024.0, 4, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

fn scaled(bytes: u64, base: f64, digits: usize, units: &[&str]) -> String {
    #[allow(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    let mut text = significant(value, digits);
    // 999.9 kB rounds to 1000 kB, which reads better as 1 MB.
    if text == "1000" && base < 1024.0 && unit + 1 < units.len() {
        text = "1".into();
        unit += 1;
    }
    format!("{text}{}", units[unit])
}

/// `%.{digits}g` of a number that is at least 1 or 0: significant digits, trailing zeros dropped.
fn significant(value: f64, digits: usize) -> String {
    let whole = if value < 10.0 {
        1
    } else if value < 100.0 {
        2
    } else if value < 1000.0 {
        3
    } else {
        4
    };
    let text = format!("{value:.*}", digits.saturating_sub(whole));
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_worded_as_docker_words_it() {
        assert_eq!(moved(25_950_000, 64_930_000), "25.95MB/64.93MB");
        assert_eq!(moved(0, 999), "0B/999B");
        assert_eq!(moved(1_000, 1_234_567), "1kB/1.235MB");
    }

    #[test]
    fn durations_are_worded_as_docker_words_them() {
        const HOUR: u64 = 3600;
        const DAY: u64 = 24 * HOUR;
        for (seconds, words) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (HOUR - 1, "59 minutes"),
            (HOUR, "About an hour"),
            (HOUR + 1799, "About an hour"),
            (HOUR + 1800, "2 hours"),
            (47 * HOUR, "47 hours"),
            (48 * HOUR, "2 days"),
            (13 * DAY, "13 days"),
            (14 * DAY, "2 weeks"),
            (59 * DAY, "8 weeks"),
            (60 * DAY, "2 months"),
            (729 * DAY, "24 months"),
            (730 * DAY, "2 years"),
        ] {
            assert_eq!(duration(seconds), words, "{seconds}");
        }
    }

    #[test]
    fn ages_survive_odd_times() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        assert_eq!(ago("2026-01-02T10:00:00.5Z", now), "2 hours ago");
        assert_eq!(ago("2027-01-02T10:00:00Z", now), "Less than a second ago");
        assert_eq!(ago("0001-01-01T00:00:00Z", now), "2026 years ago");
        assert_eq!(ago("yesterday", now), "N/A");
        assert_eq!(local_time("yesterday"), "yesterday");
    }

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1536, "1.54kB"),
            (7_340_000, "7.34MB"),
            (78_100_000, "78.1MB"),
            (130_000_000, "130MB"),
            (999_900, "1MB"),
            (1_234_567_890, "1.23GB"),
            (u64::MAX, "18.4EB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(memory(8_220_000_000), "7.655GiB");
        assert_eq!(memory(1023), "1023B");
    }
}
