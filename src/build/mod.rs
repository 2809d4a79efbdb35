//! Floor 4: text → instructions with spans → stage graph → steps. BuildKit's frontend is the reference for the language.

pub mod ast;
pub mod excerpt;
pub mod expand;
mod flags;
pub mod go;
pub mod graph;
mod heredoc;
pub mod history;
pub mod ignore;
mod instruction;
mod lines;
mod lint;
pub mod metadata;
pub mod mount;
pub mod parse;
pub mod pattern;
pub mod ports;
pub mod scope;
mod shell_pattern;
pub mod suggest;
mod words;

pub use parse::{parse, parse_triggers};
