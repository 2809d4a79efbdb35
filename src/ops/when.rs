//! Times as users type them in filters: `until=24h`, `--since 2026-01-02T15:04:05`.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// A time: Unix seconds with an optional fraction, RFC 3339, a local date with an optional time of day, or a duration
/// in Go's notation (`1h30m`) counted back from `now`.
#[must_use]
pub fn parse(text: &str, now: Timestamp) -> Option<Timestamp> {
    let text = text.trim();
    if let Some(time) = unix_seconds(text) {
        return Some(time);
    }
    if let Some(duration) = go_duration(text) {
        return now.checked_sub(duration).ok();
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    // Dates need their dashes: jiff alone would read `20260102` as one as well.
    let local = text.get(4..5) == Some("-");
    let time: DateTime = local.then(|| text.parse().ok())??;
    time.to_zoned(TimeZone::system()).ok().map(|zoned| zoned.timestamp())
}

fn unix_seconds(text: &str) -> Option<Timestamp> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let good = fraction.len() <= 9 && fraction.bytes().all(|b| b.is_ascii_digit());
    let nanoseconds: i32 = if good { format!("{fraction:0<9}").parse().ok()? } else { return None };
    Timestamp::new(seconds, nanoseconds).ok()
}

/// A duration in Go's notation: one or more numbers, each with a unit (`ns`, `us`, `ms`, `s`, `m`, `h`).
#[must_use]
pub fn go_duration(text: &str) -> Option<SignedDuration> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0_f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit_end] {
                "ns" => 1e-9,
                "us" | "µs" | "μs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    SignedDuration::try_from_secs_f64(if negative { -seconds } else { seconds }).ok()
}

/// Now, as records keep it: RFC 3339 with nanoseconds, UTC.
#[must_use]
pub fn now() -> String {
    format!("{:.9}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_all_of_dockers_forms() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("1767355200", Some("2026-01-02T12:00:00Z")),
            ("1767355200.5", Some("2026-01-02T12:00:00.5Z")),
            ("2h", Some("2026-01-02T10:00:00Z")),
            ("1h30m", Some("2026-01-02T10:30:00Z")),
            ("1.5h", Some("2026-01-02T10:30:00Z")),
            ("-10s", Some("2026-01-02T12:00:10Z")),
            ("2026-01-02T11:00:00+01:00", Some("2026-01-02T10:00:00Z")),
            ("yesterday", None),
            ("", None),
            ("h", None),
            ("5x", None),
        ] {
            assert_eq!(parse(text, now), expected.map(|t| t.parse().unwrap()), "{text}");
        }
        for local in ["2026-01-02", "2026-01-02T15:04", "2026-01-02T15:04:05"] {
            assert!(parse(local, now).is_some(), "{local}");
        }
    }

    #[test]
    fn now_has_nanoseconds_and_reads_back() {
        let text = now();
        assert_eq!(text.len(), "2026-01-02T12:00:00.123456789Z".len());
        assert!(text.parse::<Timestamp>().is_ok());
    }
}
