//! Floor 5: one file per verb, its story told once from top to bottom.

pub mod attach;
pub mod build;
pub mod commit;
pub mod complete;
pub mod container;
pub mod copy;
pub mod create;
pub mod delete;
pub mod doctor;
pub mod enter;
pub mod exec;
pub mod history;
pub mod host;
pub mod images;
pub mod info;
pub mod inspect;
pub mod inspect_container;
pub mod inspect_image;
pub mod login;
pub mod logout;
pub mod logs;
pub mod manifest;
pub mod prune;
pub mod ps;
pub mod pull;
pub mod push;
pub mod referrers;
pub mod remote;
pub mod remote_inspect;
pub mod remove_image;
pub mod rm;
pub mod save;
pub mod search;
pub mod start;
pub mod stop;
pub mod store;
pub mod sync;
pub mod tag;
pub mod tags;
pub mod transport;
pub mod version;
pub mod wait;
pub mod when;

/// Names of signals and capabilities, as flags give them.
pub use crate::runtime::{capability, signal};
