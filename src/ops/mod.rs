//! Floor 5: one file per verb, its story told once from top to bottom.

pub mod commit;
pub mod complete;
pub mod container;
pub mod create;
pub mod doctor;
pub mod enter;
pub mod exec;
pub mod host;
pub mod info;
pub mod inspect_container;
pub mod logs;
pub mod ps;
pub mod rm;
pub mod start;
pub mod stop;
pub mod version;
pub mod wait;
pub mod when;
