//! Floor 4: text → instructions with spans → stage graph → steps. BuildKit's frontend is the reference for the language.

pub mod ast;
