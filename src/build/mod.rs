//! Floor 4: text → instructions with spans → stage graph → steps. BuildKit's frontend is the reference for the language.

pub mod ast;
mod add;
mod beneath;
mod checksum;
mod chmod;
mod chown;
mod copy;
mod progress;
mod put;
mod stat_cache;
mod tree;
