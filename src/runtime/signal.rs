//! Signals by name (`man 7 signal`).

use super::Error;

/// Name and number on Linux, without `SIG`; real-time signals are computed.
const SIGNALS: [(&str, i32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
    ("IOT", 6),
    ("CLD", 17),
    ("POLL", 29),
];

const RT_MIN: i32 = 34;
const RT_MAX: i32 = 64;

/// The number of `SIGTERM`, `TERM`, `term`, `15`, `SIGRTMIN+3` or `RTMAX-1`.
///
/// # Errors
/// [`Error::Unknown`].
pub fn number(given: &str) -> Result<i32, Error> {
    let unknown = || Error::Unknown { kind: "signal", value: given.to_owned() };
    if let Ok(number) = given.parse::<i32>() {
        return if (1..=RT_MAX).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = given.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = SIGNALS.iter().find(|(name, _)| *name == bare) {
        return Ok(*number);
    }
    real_time(bare).filter(|number| (RT_MIN..=RT_MAX).contains(number)).ok_or_else(unknown)
}

fn real_time(bare: &str) -> Option<i32> {
    if let Some(rest) = bare.strip_prefix("RTMIN") {
        return if rest.is_empty() {
            Some(RT_MIN)
        } else {
            RT_MIN.checked_add(rest.strip_prefix('+')?.parse().ok()?)
        };
    }
    let rest = bare.strip_prefix("RTMAX")?;
    if rest.is_empty() { Some(RT_MAX) } else { RT_MAX.checked_sub(rest.strip_prefix('-')?.parse().ok()?) }
}

/// `SIGTERM` for 15.
#[must_use]
pub fn name(number: i32) -> String {
    if let Some((name, _)) = SIGNALS.iter().find(|(_, known)| *known == number) {
        return format!("SIG{name}");
    }
    match number {
        RT_MIN => "SIGRTMIN".to_owned(),
        RT_MAX => "SIGRTMAX".to_owned(),
        35..RT_MAX => format!("SIGRTMIN+{}", number - RT_MIN),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        for (given, expected) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("SIGRTMIN", 34),
            ("RTMIN+3", 37),
            ("SIGRTMAX-1", 63),
            ("sigiot", 6),
        ] {
            assert_eq!(number(given).unwrap(), expected, "{given}");
        }
        for bad in ["0", "65", "-1", "SIGFOO", "", "RTMIN+99", "RTMIN-1", "RTMAX+1", "SIG"] {
            assert!(number(bad).is_err(), "{bad}");
        }
        for given in 1..=64 {
            if !(32..34).contains(&given) {
                assert_eq!(number(&name(given)).unwrap(), given);
            }
        }
    }
}
