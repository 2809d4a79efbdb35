//! Floor 4: text → instructions with spans → stage graph → steps. BuildKit's frontend is the reference for the language.

pub mod ast;
pub mod expand;
mod flags;
pub mod go;
mod heredoc;
mod instruction;
mod lines;
mod lint;
pub mod mount;
pub mod parse;
mod shell_pattern;
pub mod suggest;
mod words;

pub use parse::{parse, parse_triggers};
