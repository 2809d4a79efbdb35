//! Heredocs: which words open one, and under which delimiter.

use super::expand::Lex;

/// The head of a heredoc, as in `3<<-EOF`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opener {
    /// The delimiter without quotes.
    pub(super) name: String,
    /// Whether no part of the delimiter is quoted.
    pub(super) expand: bool,
    /// `<<-`
    pub(super) chomp: bool,
    /// The file descriptor before `<<`.
    pub(super) fd: Option<u32>,
    /// Whether blanks stand between `<<` and the delimiter. Shell arithmetic (`1 << 2`) looks the same.
    pub(super) detached: bool,
}

/// What `word` opens when it opens a heredoc and is nothing else.
pub(super) fn opener(word: &str) -> Option<Opener> {
    let marker = word.find(|c: char| !c.is_ascii_digit())?;
    let (digits, rest) = word.split_at(marker);
    let rest = rest.strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let delimiter = rest.trim_start();
    if delimiter.is_empty() || delimiter.contains('<') {
        return None;
    }
    let words = |raw| {
        let lex = Lex { keep_unset: true, raw_quotes: raw, raw_escapes: raw, ..Lex::new('\\') };
        lex.process_words(delimiter, &()).ok()
    };
    let mut plain = words(false)?;
    let expand = words(true)?.first() == plain.first();
    let name = plain.pop().filter(|_| plain.is_empty())?;
    Some(Opener { name, expand, chomp, fd: digits.parse().ok(), detached: false })
}

/// The heredocs a logical line opens, in order. The escape is `\` whatever the directive says.
pub(super) fn openers(line: &str) -> Vec<Opener> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let lex = Lex { keep_unset: true, raw_quotes: true, raw_escapes: true, ..Lex::new('\\') };
    // A line that cannot be cut into words, say for a lone apostrophe, has no heredocs.
    let words = lex.process_words(line, &()).unwrap_or_default();
    let mut openers = Vec::new();
    let mut words = words.iter().peekable();
    while let Some(word) = words.next() {
        // `<< EOF`: the marker and its delimiter may stand apart.
        let marker = word.trim_start_matches(|c: char| c.is_ascii_digit());
        let detached = matches!(marker, "<<" | "<<-");
        let joined = if detached { words.peek().map(|next| format!("{word}{next}")) } else { None };
        if let Some(opener) = opener(joined.as_deref().unwrap_or(word)) {
            if joined.is_some() {
                words.next();
            }
            openers.push(Opener { detached, ..opener });
        }
    }
    openers
}

/// `body` with the leading tabs of each line removed, as `<<-` asks for.
pub(super) fn chomp(body: &str) -> String {
    body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_open_heredocs() {
        for (word, name, expand, chomp, fd) in [
            ("<<EOF", "EOF", true, false, None),
            ("<<-EOF", "EOF", true, true, None),
            ("3<<EOF", "EOF", true, false, Some(3)),
            ("<<'EOF'", "EOF", false, false, None),
            ("<<\"EOF\"", "EOF", false, false, None),
            ("<<E'O'F", "EOF", false, false, None),
            ("<<'one two'", "one two", false, false, None),
            ("<<\\EOF", "EOF", false, false, None),
            ("<<$EOF", "$EOF", true, false, None),
        ] {
            let expected = Opener { name: name.into(), expand, chomp, fd, detached: false };
            assert_eq!(opener(word), Some(expected), "{word}");
        }
        for word in ["<<<EOF", "<<", "<<-", "<EOF", "a<<EOF", "\"<<EOF\"", "<<\"E", "EOF", "3", "", "<<A<<B"]
        {
            assert_eq!(opener(word), None, "{word}");
        }
    }

    #[test]
    fn lines_that_open_heredocs() {
        let names = |line| openers(line).into_iter().map(|opener| opener.name).collect::<Vec<_>>();
        assert_eq!(names("RUN cat <<A && cat <<-'B C' > /x"), ["A", "B C"]);
        assert_eq!(names("RUN cat << EOF > /x && cat <<- 'B C'"), ["EOF", "B C"]);
        assert_eq!(names("RUN x <<"), Vec::<String>::new());
        assert_eq!(names("RUN echo 'a <<A'"), Vec::<String>::new());
        assert_eq!(names("RUN echo it's <<A"), Vec::<String>::new());
        assert_eq!(names("RUN echo $(( 1 <<2 ))"), ["2"]);
        assert_eq!(names("RUN echo a <<< b"), Vec::<String>::new());
    }

    #[test]
    fn only_tabs_are_chomped() {
        assert_eq!(chomp("\t\ta\n  \tb\nc\n"), "a\n  \tb\nc\n");
    }
}
