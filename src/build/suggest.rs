//! "Did you mean": the nearest known word within an edit distance of two.

/// The candidate nearest to `word`, when one is fewer than three edits away and none is equal.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        if candidate == word {
            return None;
        }
        let distance = distance(word, candidate);
        if distance < best.map_or(3, |(so_far, _)| so_far) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// `message`, followed by the nearest candidate when there is one.
#[must_use]
pub fn with_suggestion<'a>(
    message: String,
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> String {
    match nearest(word, candidates) {
        Some(candidate) => format!("{message} (did you mean {candidate}?)"),
        None => message,
    }
}

/// As [`nearest`], blind to case; the answer is written in the case of `word`.
#[must_use]
pub fn nearest_any_case(word: &str, candidates: &[&str]) -> Option<String> {
    let upper = word.to_uppercase();
    let candidate = nearest(&upper, candidates.iter().copied())?;
    let lower = word.chars().all(|c| !c.is_uppercase());
    Some(if lower { candidate.to_lowercase() } else { candidate.to_owned() })
}

/// The Levenshtein distance. Words that differ in length by three or more are not worth the table.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 2 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["ADD", "COPY", "ENTRYPOINT", "FROM", "VOLUME"];
        for (word, found) in [
            ("COPPY", Some("COPY")),
            ("VOLUMES", Some("VOLUME")),
            ("FNTRYPOINT", Some("ENTRYPOINT")),
            ("FOO", Some("FROM")),
            ("SPARKLE", None),
            ("COPY", None),
        ] {
            assert_eq!(nearest(word, known), found, "{word}");
        }
        assert_eq!(nearest_any_case("entrypiont", &known).as_deref(), Some("entrypoint"));
        assert_eq!(nearest_any_case("Fron", &known).as_deref(), Some("FROM"));
    }

    #[test]
    fn distances() {
        for (a, b, d) in
            [("", "", 0), ("a", "", 1), ("abc", "acb", 2), ("kitten", "mitten", 1), ("é", "e", 1)]
        {
            assert_eq!(distance(a, b), d);
        }
    }
}
