//! Cutting one logical line: keyword, flags, and the argument grammars of the instructions.

/// White space between arguments: what Go's `[\t\v\f\r ]` matches.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// A logical line in its three parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parts {
    /// As written.
    pub(super) keyword: String,
    /// Words that start with `--`, unquoted.
    pub(super) flags: Vec<String>,
    /// Everything after the flags, trimmed.
    pub(super) rest: String,
}

/// Split `line` into keyword, flags and rest.
pub(super) fn split(line: &str, escape: char) -> Parts {
    let line = line.trim();
    let Some((keyword, rest)) = line.split_once(is_blank) else {
        return Parts { keyword: line.to_owned(), flags: Vec::new(), rest: String::new() };
    };
    let (flags, rest) = take_flags(rest, escape);
    Parts { keyword: keyword.to_owned(), flags, rest: rest.trim().to_owned() }
}

/// Leading words that start with `--`. Quotes group and vanish; a bare `--` ends the flags.
fn take_flags(line: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (word, end) = flag_word(rest, escape);
        rest = &rest[end..];
        if word == "--" {
            return (flags, rest);
        }
        flags.push(word);
    }
}

/// The first word of `text` without its quotes, and where it ends.
fn flag_word(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => return (word, at),
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (_, c) if c == escape => word.extend(chars.next().map(|(_, escaped)| escaped)),
            (_, c) => word.push(c),
        }
    }
    (word, text.len())
}

/// Words of ARG, ENV and LABEL: quotes group, and stay for the expansion.
pub(super) fn quoted_words(rest: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        if c == escape && quote != Some('\'') {
            // At the very end the escape is dropped.
            if let Some(escaped) = chars.next() {
                word.push(c);
                word.push(escaped);
            }
            continue;
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Arguments separated by white space; quotes mean nothing.
pub(super) fn plain_words(rest: &str) -> Vec<String> {
    rest.split(is_blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// What `[…` turns out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Json {
    /// Not a JSON array: the shell form.
    No,
    /// An array of strings: the exec form.
    Strings(Vec<String>),
    /// An array that holds something else, which is an error.
    Mixed,
}

/// Read `rest` as a JSON array.
pub(super) fn json(rest: &str) -> Json {
    if !rest.starts_with('[') {
        return Json::No;
    }
    let Ok(items) = serde_json::from_str::<Vec<serde_json::Value>>(rest) else { return Json::No };
    let strings = items.into_iter().map(|item| match item {
        serde_json::Value::String(text) => Some(text),
        _ => None,
    });
    strings.collect::<Option<Vec<String>>>().map_or(Json::Mixed, Json::Strings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_first_and_lose_their_quotes() {
        for (line, keyword, flags, rest) in [
            ("  RUN  ls -l ", "RUN", &[][..], "ls -l"),
            ("RUN", "RUN", &[], ""),
            ("COPY --from=a  --chown=\"b c\" x /y", "COPY", &["--from=a", "--chown=b c"], "x /y"),
            ("RUN -- --mount=x", "RUN", &[], "--mount=x"),
            ("RUN --a=\\ b c", "RUN", &["--a= b"], "c"),
            ("COPY a --from=b /c", "COPY", &[], "a --from=b /c"),
            ("CMD\t--foo", "CMD", &["--foo"], ""),
        ] {
            let parts = split(line, '\\');
            assert_eq!((parts.keyword.as_str(), parts.rest.as_str()), (keyword, rest), "{line}");
            assert_eq!(parts.flags, flags, "{line}");
        }
    }

    #[test]
    fn quotes_group_words() {
        assert_eq!(
            quoted_words("a=1 'b c'=\"d e\" f=\\ g h\\", '\\'),
            ["a=1", "'b c'=\"d e\"", "f=\\ g", "h"]
        );
        assert_eq!(quoted_words("a=\"x\\\" y\" b='\\' c", '\\'), ["a=\"x\\\" y\"", "b='\\'", "c"]);
        assert_eq!(quoted_words("a=\"open b", '\\'), ["a=\"open b"]);
    }

    #[test]
    fn json_arrays() {
        assert_eq!(json(r#"["a", "\u00e9\/"]"#), Json::Strings(vec!["a".into(), "é/".into()]));
        assert_eq!(json("[]"), Json::Strings(vec![]));
        for text in ["['a']", r#"["a"]x"#, r#"["a\w"]"#, "[", "a", "[a]"] {
            assert_eq!(json(text), Json::No, "{text}");
        }
        assert_eq!(json(r#"["a", ["b"]]"#), Json::Mixed);
        assert_eq!(json("[1]"), Json::Mixed);
    }
}
