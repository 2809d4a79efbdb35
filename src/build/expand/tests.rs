use proptest::prelude::*;

use super::*;

fn env() -> Vec<(String, String)> {
    [
        ("PWD", "/home"),
        ("SHELL", "bash"),
        ("NULL", ""),
        ("KOREAN", "한국어"),
        ("XY", "xxyy"),
        ("STARS", "xx**"),
        ("GLOB", "/foo*/*/*.txt"),
        ("N", r"\*/"),
        ("TWO", "one two"),
        ("FILE", "a.tar.gz"),
        ("PATHY", "/usr/lib/x.so"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .to_vec()
}

fn word(text: &str) -> Result<String, ExpandError> {
    Lex::new('\\').process_word(text, &env())
}

#[test]
fn words_that_expand() {
    for (text, expected) in [
        ("hello", "hello"),
        ("he'll'o", "hello"),
        (r"abc\tdef", "abctdef"),
        (r#""abc\tdef""#, r"abc\tdef"),
        (r#""he\$PWD""#, "he$PWD"),
        (r"'he\$PWD'", r"he\$PWD"),
        (r"he\\$PWD", r"he\/home"),
        ("he$1x", "hex"),
        ("$999aaa", "aaa"),
        ("he${XXX:-$PWD}xx", "he/homexx"),
        (r"${XXX:-\${PWD}z}xx", "${PWDz}xx"),
        ("${aaa}}", "}"),
        ("${aaa:-bbb {foo}", "bbb {foo"),
        (r"hello\", "hello"),
        (r"hello\\", r"hello\"),
        ("${XY##*x}", "yy"),
        ("${XY#*x}", "xyy"),
        (r"${STARS%%\**}", "xx"),
        ("${GLOB/$N/.}", "/foo.*/*.txt"),
        ("${GLOB//$N/.}", "/foo..*.txt"),
        ("${NULL?}", ""),
        ("${NULL-w}", ""),
        ("${NULL:-w}", "w"),
        ("${PWD+w}", "w"),
        ("${NULL:+w}", ""),
        ("${NULL+w}", "w"),
        ("${XXX+w}", ""),
        ("${PWD:?m}", "/home"),
        ("$", "$"),
        ("a$", "a$"),
        ("$/x", "$/x"),
        ("$.", "$."),
        ("$%", "$%"),
        ("$@|$*|$#|$?|$-|$$|$!|$0", "|||||||"),
        ("$KOREAN!", "한국어!"),
        ("${PWD}é", "/homeé"),
        ("$PWDé", ""),
        ("a$'b'", "a$b"),
        (r#""a\"b""#, "a\"b"),
        (r#""a'b$PWD'""#, "a'b/home'"),
        ("${XXX:-'$PWD'}", "$PWD"),
        ("${XXX:-\"$PWD\"}", "/home"),
        ("${XXX:-${YYY:-${PWD}}}", "/home"),
        ("${FILE%.*}", "a.tar"),
        ("${FILE%%.*}", "a"),
        ("${FILE#*.}", "tar.gz"),
        ("${PATHY##*/}", "x.so"),
        ("${PATHY%/*}", "/usr/lib"),
        ("${FILE/./-}", "a-tar.gz"),
        ("${FILE//./}", "atargz"),
        (r"${PATHY//\//_}", "_usr_lib_x.so"),
        ("${XXX%x}", ""),
        ("${XXX/a/b}", ""),
        ("a b  c", "a b  c"),
    ] {
        assert_eq!(word(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn words_that_do_not() {
    for (text, reason) in [
        ("${", "syntax error: missing '}'"),
        ("${PWD", "syntax error: missing '}'"),
        ("${PWD:-x", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${:x}", "syntax error: bad substitution"),
        ("${{PWD}}", "syntax error: bad substitution"),
        ("${PWD^^}", "unsupported modifier (^) in substitution"),
        ("${PWD=x}", "unsupported modifier (=) in substitution"),
        ("${PWD:=x}", "unsupported modifier (:=) in substitution"),
        ("${PWD:#x}", "unsupported modifier (:#) in substitution"),
        ("${PWD/x}", "syntax error: missing '/' in ${}"),
        ("${PWD/x/y", "syntax error: missing '}'"),
        ("${XXX?}", "XXX: is not allowed to be unset"),
        ("${XXX:?}", "XXX: is not allowed to be unset"),
        ("${NULL:?}", "NULL: is not allowed to be empty"),
        ("${XXX:?why $PWD}", "XXX: why /home"),
        ("'abc", "unexpected end of statement while looking for matching single-quote"),
        ("\"abc", "unexpected end of statement while looking for matching double-quote"),
        (r"${PWD#\a}", r"invalid pattern (\a) in substitution: invalid escape '\a'"),
    ] {
        let error = word(text).expect_err(text);
        assert_eq!(error.reason.to_string(), reason, "{text}");
    }
    assert_eq!(
        word("\"abc").unwrap_err().to_string(),
        r#"failed to process "\"abc": unexpected end of statement while looking for matching double-quote"#
    );
    assert_eq!(word(&"${a:-".repeat(1000)).unwrap_err().reason, Reason::TooDeep);
}

#[test]
fn splitting() {
    let words = |text: &str| Lex::new('\\').process_words(text, &env()).unwrap();
    assert_eq!(words("a  $TWO c"), ["a", "one", "two", "c"]);
    assert_eq!(words("\"$TWO\""), ["one two"]);
    assert_eq!(words("x${TWO}y"), ["xone", "twoy"]);
    assert_eq!(words(r"a\ b c"), ["a b", "c"]);
    assert_eq!(words("'' x"), ["", "x"]);
    assert_eq!(words("$XXX"), Vec::<String>::new());
}

#[test]
fn the_escape_character_follows_the_directive() {
    let lex = Lex::new('`');
    assert_eq!(lex.process_word("a`$PWD\\b", &env()).unwrap(), "a$PWD\\b");
    assert_eq!(lex.process_word("\"`\"\"", &env()).unwrap(), "\"");
}

#[test]
fn names_are_recorded() {
    let expanded = Lex::new('\\').expand("$PWD ${A:-x} $B ${C%y}", &env()).unwrap();
    assert_eq!(expanded.used.iter().collect::<Vec<_>>(), ["A", "B", "C", "PWD"]);
    assert_eq!(expanded.unset.iter().collect::<Vec<_>>(), ["B", "C"]);
}

#[test]
fn unset_names_can_be_kept() {
    let lex = Lex { keep_unset: true, ..Lex::new('\\') };
    for text in ["$A", "${A}", "${A:-w}", "${A%w}", "${A/x/y}"] {
        assert_eq!(lex.process_word(text, &()).unwrap(), text);
    }
}

#[test]
fn heredoc_bodies_keep_quotes() {
    let body = "\"$PWD\" '$PWD' \\$PWD \\\\ \\x \\\nend\n";
    let expanded = Lex::heredoc_body().process_word(body, &env()).unwrap();
    assert_eq!(expanded, "\"/home\" '/home' $PWD \\ x \nend\n");
}

proptest! {
    #[test]
    fn no_word_panics(text in "[a-z${}:?+%#/'\"\\\\* \n`=é]{0,60}") {
        for escape in ['\\', '`'] {
            let _ = Lex::new(escape).expand(&text, &env());
        }
        let _ = Lex::heredoc_body().expand(&text, &env());
        let _ = Lex { raw_quotes: true, raw_escapes: true, keep_unset: true, ..Lex::new('\\') }.expand(&text, &());
    }

    #[test]
    fn plain_words_stay_as_they_are(text in "[a-zA-Z0-9_./:=-]{0,40}") {
        prop_assert_eq!(word(&text).unwrap(), text);
    }
}
