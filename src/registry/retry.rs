//! Another try for failures that may pass: growing pauses with jitter, and no longer than a registry asks for.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Error, Settings, limits};

/// Pauses from here on are told.
const LONG_PAUSE: Duration = Duration::from_secs(2);

/// Do something, again after failures that may pass.
pub(super) fn with_retries<T>(
    settings: &Settings,
    operation: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    with_retries_told(settings, &|_| (), operation)
}

/// The same, with long waits told.
pub(super) fn with_retries_told<T>(
    settings: &Settings,
    say: &dyn Fn(String),
    mut operation: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut tries = 0;
    loop {
        let error = match operation() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Some(pause) = pause(settings, tries, &error) else { return Err(error) };
        if settings.deadline.is_some_and(|deadline| Instant::now() + pause >= deadline) {
            return Err(error);
        }
        if pause >= LONG_PAUSE {
            say(format!("trying again in {} s, as {error}", pause.as_secs()));
        }
        std::thread::sleep(pause);
        tries += 1;
    }
}

/// How long to wait before try number `tries` + 2; `None` to give up.
fn pause(settings: &Settings, tries: u32, error: &Error) -> Option<Duration> {
    if !error.is_temporary() || tries >= settings.retries() {
        return None;
    }
    if let Some(wanted) = error.retry_after() {
        return (wanted <= limits::LONGEST_RETRY_AFTER).then_some(wanted);
    }
    if let Some(delay) = settings.retry_delay {
        return Some(delay.min(limits::LONGEST_RETRY_AFTER));
    }
    let grown = (limits::FIRST_PAUSE * 2_u32.pow(tries.min(10))).min(limits::LONGEST_PAUSE);
    // Between half of it and all of it, so that clients that failed together do not come back together.
    let jitter = (RandomState::new().hash_one(tries) % 512) as u32;
    Some(grown / 2 + grown * jitter / 1024)
}

/// The time that a Retry-After header gives (RFC 9110 section 10.2.3): seconds, or a date.
pub(super) fn retry_after(header: Option<&str>) -> Option<Duration> {
    let header = header?.trim();
    if header.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are for ever.
        return (!header.is_empty()).then(|| Duration::from_secs(header.parse().unwrap_or(u64::MAX)));
    }
    // Which day of the week a server takes it for does not matter.
    let parser = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let date = parser.parse_timestamp(header).ok()?;
    Some(Duration::try_from(date.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Answer;

    fn limited(retry_after: Option<u64>) -> Error {
        Error::RateLimited {
            registry: "r".into(),
            retry_after: retry_after.map(Duration::from_secs),
            tried: String::new(),
            answer: Box::new(Answer::default()),
        }
    }

    #[test]
    fn pauses_grow_and_what_the_registry_asks_for_is_kept_within_reason() {
        let settings = Settings::default();
        assert_eq!(pause(&settings, 0, &limited(Some(7))), Some(Duration::from_secs(7)));
        assert_eq!(pause(&settings, 0, &limited(Some(1_000_000_000))), None);
        let first = pause(&settings, 0, &limited(None)).unwrap();
        assert!(first >= limits::FIRST_PAUSE / 2 && first <= limits::FIRST_PAUSE, "{first:?}");
        assert!(pause(&settings, 2, &limited(None)).unwrap() > limits::FIRST_PAUSE);
        assert_eq!(pause(&settings, 3, &limited(None)), None);
        let broken = Error::Server {
            registry: "r".into(),
            retry_after: Some(Duration::from_secs(3)),
            request: "GET /".into(),
            answer: Box::new(Answer { status: 503, ..Answer::default() }),
        };
        assert_eq!(pause(&settings, 0, &broken), Some(Duration::from_secs(3)));
        let lasting = Error::NoAuthFile;
        assert_eq!(pause(&settings, 0, &lasting), None);
    }
    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let soon = Timestamp::now() + Duration::from_secs(20);
        let date = soon.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let time = retry_after(Some(&date)).unwrap();
        assert!((18..=20).contains(&time.as_secs()), "{date}: {time:?}");
        assert_eq!(retry_after(Some("Sun, 06 Nov 1994 08:49:37 GMT")), Some(Duration::ZERO));
        assert_eq!(retry_after(Some(" 7 ")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(Some("99999999999999999999999")), Some(Duration::from_secs(u64::MAX)));
        for bad in ["", "soon", "-1", "1.5"] {
            assert_eq!(retry_after(Some(bad)), None, "{bad}");
        }
    }
}
