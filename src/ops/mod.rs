//! Floor 5: one file per verb, its story told once from top to bottom.

pub mod complete;
pub mod doctor;
pub mod enter;
pub mod host;
pub mod info;
pub mod version;
