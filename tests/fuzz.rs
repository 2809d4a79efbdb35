//! Hostile text and archives, for a bounded time: nothing panics, nothing hangs, nothing grows beyond what it was given.
//!
//! `make fuzz` runs this for `FUZZ_SECONDS` a target (60); the ordinary tests for one second each. A failure prints its
//! input, to be kept as a test beside the code that it broke.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "tests read the environment of their runner")]

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use strate::build::expand::Lex;
use strate::build::ignore::IgnoreFile;
use strate::build::{mount, parse, parse_triggers};
use strate::layer::{ApplyOptions, apply};

/// No single input of a few kilobytes may take longer, on a busy machine.
const SLOW: Duration = Duration::from_secs(5);

/// Feed inputs to a target until the time is over.
fn fuzz<T: std::fmt::Debug>(strategy: impl Strategy<Value = T>, target: impl Fn(&T)) {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut inputs = 0_u64;
    while Instant::now() < end {
        let input = strategy.new_tree(&mut runner).unwrap().current();
        let start = Instant::now();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| target(&input)));
        assert!(outcome.is_ok(), "panicked on {input:?}");
        assert!(start.elapsed() < SLOW, "took {:?} for {input:?}", start.elapsed());
        inputs += 1;
    }
    println!("{inputs} inputs");
    assert!(inputs > 0);
}

/// Words of the language and what confuses its readers.
fn dockerfile() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "FROM ",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "LABEL ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "CMD ",
        "ARG ",
        "VOLUME ",
        "EXPOSE ",
        "SHELL ",
        "USER ",
        "WORKDIR ",
        "STOPSIGNAL ",
        "scratch",
        " AS ",
        "\n",
        "\n",
        "\\\n",
        "\r\n",
        " ",
        "\t",
        "<<EOF",
        "<<-'E'",
        "EOF\n",
        "E\n",
        "[\"a\",",
        "\"b\"]",
        "[",
        "]",
        "\"",
        "'",
        "--mount=type=",
        "bind,",
        "cache,target=/x",
        "--from=",
        "--chmod=u=rw",
        "=",
        "a",
        "$",
        "${",
        "}",
        ":-",
        "##",
        "%",
        "/",
        "# escape=`\n",
        "# check=skip=",
        "# syntax=x\n",
        "`",
        "\\",
        "é",
        "\u{feff}",
        "\0",
        "0",
        "65535-",
        "/tcp",
        "NONE",
        "CMD",
    ]);
    prop::collection::vec(token, 0..80).prop_map(|tokens| tokens.concat())
}

#[test]
fn parser() {
    fuzz(dockerfile(), |text| {
        for text in [text.clone(), format!("FROM scratch\n{text}")] {
            match parse(text.as_bytes(), "Dockerfile") {
                Ok(file) => {
                    assert!(!file.stages.is_empty());
                    let lines = text.split('\n').count();
                    let spans =
                        file.stages.iter().flat_map(|stage| &stage.instructions).map(|line| line.span);
                    for span in spans {
                        assert!(span.first >= 1 && span.first <= span.last && span.last <= lines, "{span:?}");
                    }
                }
                Err(errors) => assert!(!errors.is_empty()),
            }
        }
        let _ = parse_triggers(std::slice::from_ref(text), '\\', Default::default());
        let _ = mount::parse(text, |word| Ok(word.to_owned()));
    });
}

#[test]
fn parser_of_bytes() {
    fuzz(prop::collection::vec(any::<u8>(), 0..4096), |bytes| {
        let _ = parse(bytes, "Dockerfile");
    });
}

#[test]
fn expander() {
    let token = prop::sample::select(vec![
        "$", "${", "}", "a", "long", "none", ":", "-", "+", "?", "#", "##", "%", "%%", "/", "//", "*", "?",
        "\\", "`", "'", "\"", " ", "x", "é", "@", "0", "12", "{", "=", "[", "]", "\n",
    ]);
    let text = prop::collection::vec(token, 0..60).prop_map(|tokens| tokens.concat());
    let values: BTreeMap<String, String> = [("a", "value"), ("long", &"ab".repeat(500)), ("x", "")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    fuzz(text, |text| {
        for escape in ['\\', '`'] {
            if let Ok(expanded) = Lex::new(escape).expand(text, &values) {
                // One name of four letters gives a thousand; replacing may give more, but never without bound.
                assert!(expanded.text.len() <= (text.len() + 1) * 1_100 * 1_100, "{}", expanded.text.len());
            }
        }
        let _ = Lex::heredoc_body().expand(text, &values);
    });
}

#[test]
fn ignore_matcher() {
    let piece = prop::sample::select(vec![
        "*", "**", "?", "a", "b", "ab", "/", "/", "[", "]", "^", "-", "!", "\\", ".", "..", "#", " ", "\n",
    ]);
    let lines = prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat());
    let paths = prop::collection::vec("[ab]{1,3}(/[ab]{1,3}){0,4}", 1..6);
    fuzz((lines, paths), |(lines, paths)| {
        let Ok(matcher) = IgnoreFile::parse(lines.as_bytes()) else { return };
        for path in paths {
            let hidden = matcher.excluded(path);
            // A directory that is never entered hides everything below it.
            if let Some((directory, _)) = path.rsplit_once('/')
                && matcher.excluded(directory)
                && matcher.may_prune(directory)
            {
                assert!(hidden, "{path} shows below {directory}, which is not walked");
            }
        }
    });
}

#[test]
fn tar_reader() {
    let entry = ("[a-c./]{0,12}", prop::collection::vec(any::<u8>(), 0..700), 0..8_u8, "[a-c./]{0,12}");
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..16);
    let options = ApplyOptions { mapped_ids: 0, max_entries: 1_000, max_bytes: 1 << 20 };
    fuzz((prop::collection::vec(entry, 0..6), flips), |(entries, flips)| {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, content, kind, target) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::new(b"01256xgL"[usize::from(*kind)]));
            header.set_mode(0o4777);
            header.set_size(content.len() as u64);
            let _ = header.set_link_name(target);
            let _ = header.set_path(path);
            header.set_cksum();
            builder.append(&header, content.as_slice()).unwrap();
        }
        let mut bytes = builder.into_inner().unwrap();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        let top = tempfile::tempdir().unwrap();
        std::fs::create_dir(top.path().join("root")).unwrap();
        let root = std::fs::File::open(top.path().join("root")).unwrap();
        let _ = apply(&mut bytes.as_slice(), root.as_fd(), &options);
        let beside: Vec<_> =
            std::fs::read_dir(top.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(beside, ["root"], "something came to lie outside");
    });
}
