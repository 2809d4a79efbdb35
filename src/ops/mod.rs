//! Floor 5: one file per verb, its story told once from top to bottom.

pub mod commit;
pub mod container;
pub mod create;
pub mod enter;
pub mod exec;
pub mod inspect_container;
pub mod logs;
pub mod ps;
pub mod rm;
pub mod start;
pub mod stop;
pub mod wait;
pub mod when;
