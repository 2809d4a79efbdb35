//! strate: pull, build, run, commit and push OCI images without a daemon and without root.
//!
//! The crate is a stack of floors. A module imports from the floors below it and never from
//! its own floor or above; `tests/layering.rs` reads the `use crate::` lines and fails on
//! anything else. `ARCHITECTURE.md` draws the map and tells how each verb flows through it.
//!
//! | floor | modules |
//! |---|---|
//! | 0 | [`sys`] (kernel calls; the only unsafe code), [`oci`] (values, no I/O) |
//! | 1 | [`layer`] (tar stream and tree), [`image`] (sources, sinks, edits), [`userns`] (who we are) |
//! | 2 | [`registry`], [`archive`], [`storage`]: places where images live |
//! | 3 | [`runtime`] (a root and a plan become an exit status) |
//! | 4 | [`build`] (a Dockerfile becomes steps) |
//! | 5 | [`ops`] (one file a verb), [`context`] |
//! | 6 | [`ui`] (terminal), [`cmd`] (command line) |
#![deny(unsafe_code)]
#![warn(missing_docs, unused_must_use, missing_debug_implementations)]
#![warn(clippy::undocumented_unsafe_blocks)]

pub mod archive;
pub mod build;
pub mod cmd;
pub mod context;
pub mod image;
pub mod layer;
pub mod oci;
pub mod ops;
pub mod registry;
pub mod runtime;
pub mod storage;
pub mod sys;
pub mod ui;
pub mod userns;
