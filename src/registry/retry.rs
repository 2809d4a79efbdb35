//! Another try for failures that may pass: growing pauses with jitter, and no longer than a registry asks for.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use super::{Error, Settings, limits};

/// Do something, again after failures that may pass.
pub(super) fn with_retries<T>(
    settings: &Settings,
    mut operation: impl FnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let mut tries = 0;
    loop {
        let error = match operation() {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Some(pause) = pause(settings, tries, &error) else { return Err(error) };
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

/// The seconds of a Retry-After header; a date is taken as a minute.
pub(super) fn retry_after(header: Option<&str>) -> Option<Duration> {
    let header = header?.trim();
    Some(Duration::from_secs(header.parse().unwrap_or(60)))
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
        let lasting = Error::NoAuthFile;
        assert_eq!(pause(&settings, 0, &lasting), None);
    }
}
