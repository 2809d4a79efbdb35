//! Flags of instructions: `--name`, `--name=value`.

use super::suggest;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing, `true` or `false`.
    Bool,
    /// One value.
    Text,
    /// One value, and it may be repeated.
    Many,
}

/// The flags an instruction knows.
pub(super) type Known = [(&'static str, Kind)];

/// The flags that were given.
#[derive(Debug, Default)]
pub(super) struct Flags(Vec<(&'static str, String)>);

impl Flags {
    /// Read `words` against `known`.
    ///
    /// # Errors
    /// BuildKit's text for the first flag that is wrong.
    pub(super) fn parse(words: &[String], known: &Known) -> Result<Self, String> {
        let mut flags = Self::default();
        for word in words {
            let body = word.strip_prefix("--").unwrap_or(word);
            let (name, value) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (body, None),
            };
            let Some((known_name, kind)) = known.iter().find(|(known, _)| *known == name) else {
                let names = known.iter().map(|(name, _)| *name);
                return Err(suggest::with_suggestion(format!("unknown flag: --{name}"), name, names));
            };
            if *kind != Kind::Many && flags.text(known_name).is_some() {
                return Err(format!("duplicate flag specified: --{name}"));
            }
            flags.0.push((known_name, checked(name, value, *kind)?));
        }
        Ok(flags)
    }

    /// The value of a text flag.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone())
    }

    /// The value of a bool flag.
    pub(super) fn bool(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }

    /// All values of a repeatable flag.
    pub(super) fn many(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(known, _)| *known == name).map(|(_, value)| value.clone()).collect()
    }
}

fn checked(name: &str, value: Option<&str>, kind: Kind) -> Result<String, String> {
    let missing = || format!("missing a value on flag: --{name}");
    if kind != Kind::Bool {
        return value.map(str::to_owned).ok_or_else(missing);
    }
    match value.map(str::to_lowercase).as_deref() {
        None | Some("true") => Ok("true".into()),
        Some("false") => Ok("false".into()),
        Some("") => Err(missing()),
        Some(_) => {
            Err(format!("expecting boolean value for flag --{name}, not: {}", value.unwrap_or_default()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &Known = &[("chown", Kind::Text), ("link", Kind::Bool), ("exclude", Kind::Many)];

    fn parse(words: &[&str]) -> Result<Flags, String> {
        Flags::parse(&words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>(), KNOWN)
    }

    #[test]
    fn flags_are_typed() {
        let flags = parse(&["--chown=a=b", "--link", "--exclude=x", "--exclude=y"]).unwrap();
        assert_eq!(flags.text("chown").as_deref(), Some("a=b"));
        assert_eq!(flags.bool("link"), Some(true));
        assert_eq!(flags.many("exclude"), ["x", "y"]);
        assert_eq!(parse(&["--link=FALSE"]).unwrap().bool("link"), Some(false));
        assert_eq!(parse(&[]).unwrap().bool("link"), None);
    }

    #[test]
    fn mistakes() {
        for (words, text) in [
            (&["--chonw=1"][..], "unknown flag: --chonw (did you mean chown?)"),
            (&["--sparkle"], "unknown flag: --sparkle"),
            (&["--chown"], "missing a value on flag: --chown"),
            (&["--link="], "missing a value on flag: --link"),
            (&["--link=perhaps"], "expecting boolean value for flag --link, not: perhaps"),
            (&["--chown=1", "--chown=2"], "duplicate flag specified: --chown"),
        ] {
            assert_eq!(parse(words).unwrap_err(), text);
        }
    }
}
