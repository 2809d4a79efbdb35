//! Floor 0: the kernel, through thin safe wrappers. The only unsafe code of the crate lives here.
//!
//! What `rustix` offers safely is called directly where it is needed; a wrapper stands here when the call
//! needs unsafe code, or when several floors share a small policy around it.

pub mod atomic;
pub mod boot;
pub mod detach;
mod error;
pub mod exec;
pub mod fds;
pub mod flock;
pub mod fork;
pub mod memory;
pub mod mount_attr;
pub mod mounts;
pub mod ns;
pub mod regular;
pub mod rootdir;
pub mod signals;
pub mod title;
pub mod tree;
pub mod tty;
pub mod unnamed;
pub mod writeback;
pub mod xattr;

pub use error::{SysError, SysResult};
pub use rootdir::RootDir;
