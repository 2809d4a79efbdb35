//! Floor 5: one file per verb, its story told once from top to bottom.

pub mod enter;
