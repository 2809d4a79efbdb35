//! Floor 5: one file per verb, its story told once from top to bottom.

pub mod build;
pub mod complete;
pub mod doctor;
pub mod enter;
pub mod history;
pub mod host;
pub mod images;
pub mod info;
pub mod inspect;
pub mod inspect_image;
pub mod login;
pub mod logout;
pub mod prune;
pub mod pull;
pub mod push;
pub mod remote;
pub mod remove_image;
pub mod save;
pub mod store;
pub mod tag;
pub mod version;
pub mod when;
