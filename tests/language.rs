//! The Dockerfile language: tables of small builds and what must come of them, one file a chapter of the language.
//! `language/cases/README` describes their form. Every row is a build by the binary, and its image is read from the
//! store as any other tool would read it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]
#![allow(clippy::disallowed_methods, reason = "tests read the environment of their runner")]

#[allow(unused_imports, unused_macros, reason = "the tests of the verbs need more of it")]
#[path = "cli/support/mod.rs"]
mod support;

#[path = "language/buildah.rs"]
mod buildah;
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

        const CHAPTERS: &[(&str, &str)] =
            &[$((stringify!($name), include_str!(concat!("language/cases/", stringify!($name), ".case")))),+];

        #[test]
        fn the_suite_is_as_large_as_it_should_be() {
            let rows: usize = CHAPTERS.iter().map(|(_, text)| case::parse(text).len()).sum();
            assert!(rows >= 400, "{rows} cases");
        }
    };
}

chapters!(
    parser, words, expansion, scope, stages, metadata, copying, patterns, ignoring, running, history,
    triggers, mistakes, checks, heredocs, hostile,
);

#[test]
fn buildah_makes_the_same_of_some_cases() {
    buildah::run(CHAPTERS, Some(std::time::Duration::from_secs(12)));
}

/// `make conformance-buildah`
#[test]
#[ignore = "takes minutes"]
fn buildah_makes_the_same_of_every_case_that_it_can_do() {
    buildah::run(CHAPTERS, None);
}
