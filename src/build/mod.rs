//! Floor 4: text → instructions with spans → stage graph → steps. BuildKit's frontend is the reference for the language.

mod add;
pub mod ast;
mod beneath;
mod checksum;
mod chmod;
mod chown;
mod copy;
pub mod expand;
mod error;
mod flags;
pub mod go;
mod heredoc;
mod instruction;
mod interrupt;
mod lines;
mod lint;
pub mod mount;
pub mod parse;
pub mod progress;
mod put;
mod shell_pattern;
mod stat_cache;
mod stubs;
pub mod suggest;
mod tree;
mod words;

pub use error::{Error, Failure};
pub use interrupt::Interrupt;
pub use parse::{parse, parse_triggers};
