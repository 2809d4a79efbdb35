//! Floor 5: one file per verb, its story told once from top to bottom.

pub mod enter;
pub mod login;
pub mod logout;
pub mod pull;
pub mod push;
pub mod remote;
