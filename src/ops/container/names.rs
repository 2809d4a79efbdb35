//! Names of containers: what is allowed, and random ones.

use super::Error;

/// The longest name that still fits a file name with what the store adds to it.
const LONGEST: usize = 200;

const ADJECTIVES: [&str; 64] = [
    "agile", "amber", "ample", "azure", "balmy", "bold", "brave", "breezy", "bright", "brisk", "calm",
    "candid", "cheery", "clever", "cosy", "crisp", "curious", "dapper", "daring", "deft", "eager", "early",
    "earnest", "fair", "fleet", "fond", "frank", "fresh", "gentle", "glad", "golden", "hardy", "hearty",
    "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry", "mild",
    "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "proud", "quick", "quiet", "ready",
    "serene", "silver", "sleek", "steady", "sunny", "swift", "tidy", "vivid", "witty",
];

const NOUNS: [&str; 64] = [
    "acorn", "alder", "aspen", "badger", "beacon", "birch", "bison", "brook", "canyon", "cedar", "cliff",
    "clover", "comet", "condor", "coral", "crane", "creek", "delta", "dune", "eagle", "falcon", "fern",
    "finch", "fjord", "forest", "fox", "geyser", "glacier", "grove", "harbour", "hawk", "hazel", "heron",
    "island", "ivy", "jay", "lagoon", "lark", "linden", "lynx", "maple", "marten", "meadow", "moose", "moss",
    "oak", "orchard", "osprey", "otter", "owl", "panda", "pebble", "pine", "plover", "prairie", "puffin",
    "quarry", "raven", "reef", "river", "robin", "sparrow", "tundra", "willow",
];

/// A random name, `adjective_noun`; from the second attempt on with a number behind it.
#[must_use]
pub fn random(random: [u8; 4], attempt: u32) -> String {
    let adjective = ADJECTIVES[usize::from(random[0]) % ADJECTIVES.len()];
    let noun = NOUNS[usize::from(random[1]) % NOUNS.len()];
    match attempt {
        0 => format!("{adjective}_{noun}"),
        _ => format!("{adjective}_{noun}{}", u16::from_le_bytes([random[2], random[3]])),
    }
}

/// Check a name that the user gave; a leading `/` is dropped, as docker does.
///
/// # Errors
/// [`Error::BadName`]
pub fn check(name: &str) -> Result<&str, Error> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    let first = bare.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && bare.len() <= LONGEST && bare.bytes().all(good) {
        Ok(bare)
    } else {
        Err(Error::BadName(name.chars().take(LONGEST).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_lists_hold_good_and_different_words() {
        for list in [&ADJECTIVES, &NOUNS] {
            assert_eq!(list.iter().collect::<BTreeSet<_>>().len(), list.len());
            assert!(list.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase())));
        }
        for attempt in 0..2 {
            assert!(check(&random([0, 255, 7, 9], attempt)).is_ok());
        }
    }

    #[test]
    fn names_that_could_be_paths_flags_or_tricks_are_refused() {
        for good in ["web", "/web", "a", "0.x_y-z"] {
            assert!(check(good).is_ok(), "{good}");
        }
        let long = "a".repeat(4096);
        for bad in ["", "/", "../x", "-v", "a/b", ".", "a b", "a\u{202e}b", "a\n", long.as_str()] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
