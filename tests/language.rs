//! The Dockerfile language: tables of small builds and what must come of them, one file a chapter of the language.
//! `language/cases/README` describes their form. Every row is a build by the binary, and its image is read from the
//! store as any other tool would read it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "tests read the environment of their runner")]

#[allow(unused_imports, unused_macros, reason = "the tests of the verbs need more of it")]
#[path = "cli/support/mod.rs"]
mod support;

#[path = "language/case.rs"]
mod case;
#[path = "language/image.rs"]
mod image;
#[path = "language/suite.rs"]
mod suite;
#[path = "language/tree.rs"]
mod tree;

macro_rules! chapters {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            suite::run(stringify!($name), include_str!(concat!("language/cases/", stringify!($name), ".case")));
        })+

        #[test]
        fn the_suite_is_as_large_as_it_should_be() {
            let chapters = [$(include_str!(concat!("language/cases/", stringify!($name), ".case"))),+];
            let rows: usize = chapters.iter().map(|text| case::parse(text).len()).sum();
            assert!(rows >= 400, "{rows} cases");
        }
    };
}

chapters!(
    parser, words, expansion, scope, stages, metadata, copying, patterns, ignoring, running, history,
    triggers, mistakes, checks, heredocs,
);
