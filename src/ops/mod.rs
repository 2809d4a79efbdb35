//! Floor 5: one file per verb, its story told once from top to bottom.

pub mod attach;
pub mod build;
pub mod check;
pub mod commit;
pub mod complete;
pub mod container;
pub mod copy;
pub mod cp;
pub mod create;
pub mod delete;
pub mod df;
pub mod diff;
pub mod doctor;
pub mod enter;
pub mod events;
pub mod exec;
pub mod export;
pub mod healthcheck;
pub mod history;
pub mod host;
pub mod image_stores;
pub mod images;
pub mod imagetools;
pub mod import;
pub mod import_store;
pub mod info;
pub mod inspect;
pub mod inspect_container;
pub mod inspect_image;
pub mod load;
pub mod login;
pub mod logout;
pub mod logs;
pub mod manifest;
pub mod mount;
pub mod pause;
pub mod port;
pub mod prune;
pub mod ps;
pub mod pull;
pub mod pull_file;
pub mod push;
pub mod referrers;
pub mod remote;
pub mod remote_inspect;
pub mod remove_image;
pub mod reset;
pub mod restart;
pub mod rm;
pub mod save;
pub mod search;
pub mod share;
pub mod start;
pub mod stats;
pub mod stop;
pub mod store;
pub mod sync;
pub mod tag;
pub mod tags;
pub mod top;
pub mod transport;
pub mod unshare;
pub mod update;
pub mod version;
pub mod volume;
pub mod wait;
pub mod when;

/// Limits of containers, as flags give them.
pub use crate::runtime::cgroup as limits;
/// Names of signals and capabilities, as flags give them.
pub use crate::runtime::{Error as RuntimeError, capability, network::mac_address, signal};

/// An error with all its causes on one line.
#[must_use]
pub fn chain_text(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}
