//! Ranges of versions, as `images-by-semver` has them (the grammar of Masterminds/semver): `>= 1.2, < 2 || 3.x`.

use std::cmp::Ordering;

/// A version: numbers, and what follows a dash.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    numbers: [u64; 3],
    pre: Vec<String>,
}

/// A range: alternatives, each of comparisons that must all hold.
#[derive(Debug, Clone)]
pub(super) struct Constraint(Vec<Vec<Comparison>>);

/// From a version on, and up to below another.
#[derive(Debug, Clone)]
struct Comparison {
    not: bool,
    from: Option<(Version, bool)>,
    to: Option<(Version, bool)>,
    /// Whether the text names a version before a release: only then such versions fit.
    pre: bool,
}

impl Constraint {
    /// Parse a range.
    pub fn parse(text: &str) -> Option<Self> {
        let alternatives = text.split("||").map(all_of).collect::<Option<Vec<_>>>()?;
        Some(Self(alternatives))
    }

    /// Whether a tag is a version in the range. A leading `v` and missing numbers are allowed.
    pub fn fits(&self, tag: &str) -> bool {
        let Some((version, _)) = Version::parse(tag) else { return false };
        self.0.iter().any(|all| all.iter().all(|one| one.holds(&version)))
    }
}

/// `>= 1.2, < 2`, `1.2 - 1.4`
fn all_of(text: &str) -> Option<Vec<Comparison>> {
    if let Some((low, high)) = text.split_once(" - ") {
        return Some(vec![comparison(">=", low.trim())?, comparison("<=", high.trim())?]);
    }
    let mut found = Vec::new();
    let mut operator = String::new();
    for word in text.split([',', ' ']).filter(|word| !word.is_empty()) {
        let start = word.find(|c| !"=!<>~^".contains(c)).unwrap_or(word.len());
        operator.push_str(&word[..start]);
        // `>= 1.2`: the version is the next word.
        if start < word.len() {
            found.push(comparison(&operator, &word[start..])?);
            operator.clear();
        }
    }
    (operator.is_empty() && !found.is_empty()).then_some(found)
}

fn comparison(operator: &str, text: &str) -> Option<Comparison> {
    let (low, given) = if matches!(text, "*" | "x" | "X") {
        (Version { numbers: [0; 3], pre: Vec::new() }, 0)
    } else {
        Version::parse(text)?
    };
    let from = Some((low.clone(), true));
    let above = |level: usize| low.above(level).map(|version| (version, false));
    // What was not given stands for anything.
    let end = if given == 3 { Some((low.clone(), true)) } else { given.checked_sub(1).and_then(above) };
    let (from, to) = match operator {
        "" | "=" | "==" | "!=" => (from, end),
        ">=" | "=>" => (from, None),
        ">" if given == 3 => (Some((low.clone(), false)), None),
        ">" => (end.map(|(version, _)| (version, true)), None),
        "<" => (None, Some((low.clone(), false))),
        "<=" | "=<" => (None, end),
        "~" | "~>" => (from, given.min(2).checked_sub(1).and_then(above)),
        "^" => {
            let first = low.numbers.iter().take(given.max(1)).position(|number| *number != 0);
            (from, above(first.unwrap_or(given.saturating_sub(1))))
        }
        _ => return None,
    };
    Some(Comparison { not: operator == "!=", from, to, pre: !low.pre.is_empty() })
}

impl Comparison {
    fn holds(&self, version: &Version) -> bool {
        if !version.pre.is_empty() && !self.pre {
            return false;
        }
        let above = self.from.as_ref().is_none_or(|(from, with)| match version.order(from) {
            Ordering::Equal => *with,
            order => order == Ordering::Greater,
        });
        let below = self.to.as_ref().is_none_or(|(to, with)| match version.order(to) {
            Ordering::Equal => *with,
            order => order == Ordering::Less,
        });
        (above && below) != self.not
    }
}

impl Version {
    /// A version, and how many of its numbers were given.
    fn parse(text: &str) -> Option<(Self, usize)> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = text.split('+').next().unwrap_or(text);
        let (numbers, pre) = match text.split_once('-') {
            Some((numbers, pre)) => (numbers, pre.split('.').map(str::to_owned).collect()),
            None => (text, Vec::new()),
        };
        if pre.iter().any(String::is_empty) {
            return None;
        }
        let (mut found, mut given) = ([0; 3], 0);
        for part in numbers.split('.') {
            if matches!(part, "x" | "X" | "*") {
                break;
            }
            if given == 3 || part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            found[given] = part.parse().ok()?;
            given += 1;
        }
        (given > 0).then_some((Self { numbers: found, pre }, given))
    }

    /// The first version beyond those that agree with this one in the numbers up to `level`.
    fn above(&self, level: usize) -> Option<Self> {
        let mut numbers = self.numbers;
        numbers[level] = numbers[level].checked_add(1)?;
        numbers[level + 1..].fill(0);
        Some(Self { numbers, pre: Vec::new() })
    }

    /// Semantic Versioning 2.0.0, item 11.
    fn order(&self, other: &Self) -> Ordering {
        let pre = || match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => self
                .pre
                .iter()
                .zip(&other.pre)
                .map(|(a, b)| order_of_parts(a, b))
                .find(|order| *order != Ordering::Equal)
                .unwrap_or_else(|| self.pre.len().cmp(&other.pre.len())),
        };
        self.numbers.cmp(&other.numbers).then_with(pre)
    }
}

fn order_of_parts(a: &str, b: &str) -> Ordering {
    match (a.parse::<u64>(), b.parse::<u64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        (Ok(_), Err(_)) => Ordering::Less,
        (Err(_), Ok(_)) => Ordering::Greater,
        (Err(_), Err(_)) => a.cmp(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_what_they_say() {
        for (range, inside, outside) in [
            (">= 3.12.0", "3.12 v3.12.0 3.13.1 4", "3.11.9 latest 3.12.0-rc1 3.12.0.1"),
            (">=1.2, <2", "1.2.0 1.9.9", "1.1.9 2.0.0"),
            (">=1.2 <2 || 3.x", "1.3 3.0.0 3.9", "2.5 4.0"),
            ("1.2", "1.2.0 1.2.7", "1.3.0"),
            ("=1.2.3", "1.2.3 v1.2.3+build", "1.2.4"),
            ("!=1.2.3", "1.2.4 1.2.2", "1.2.3"),
            ("~1.2.3", "1.2.3 1.2.9", "1.3.0 1.2.2"),
            ("~1", "1.0.0 1.9.0", "2.0.0"),
            ("^1.2.3", "1.2.3 1.9.0", "2.0.0 1.2.2"),
            ("^0.2.3", "0.2.3 0.2.9", "0.3.0"),
            ("^0.0.3", "0.0.3", "0.0.4"),
            ("^0.0", "0.0.9", "0.1.0"),
            ("1.2 - 1.4", "1.2.0 1.4.9", "1.5.0 1.1.0"),
            (">1.2", "1.3.0", "1.2.9"),
            ("<=1.2", "1.2.9 0.1", "1.3.0"),
            ("*", "0.0.1 9.9.9", "edge 1.0.0-rc.1"),
            (">=1.0.0-rc.1", "1.0.0-rc.2 1.0.0-rc.10 1.0.0", "1.0.0-beta"),
        ] {
            let constraint = Constraint::parse(range).unwrap();
            for tag in inside.split(' ') {
                assert!(constraint.fits(tag), "{tag} should be in {range}");
            }
            for tag in outside.split(' ') {
                assert!(!constraint.fits(tag), "{tag} should not be in {range}");
            }
        }
        for bad in ["", ">=", "newest", ">= 1.2 <", "1.2.3.4", "&1", "18446744073709551616"] {
            assert!(Constraint::parse(bad).is_none(), "{bad}");
        }
    }
}
