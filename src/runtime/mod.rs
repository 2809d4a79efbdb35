//! Floor 3: a root tree and a plan become an exit status.
//!
//! [`Plan`] is data: `spawn` walks it in a child between fork and exec. What fails there comes back over a
//! close-on-exec pipe as a [`StepFailure`]. The runtime knows neither images nor the store: it gets the descriptor of
//! a detached mount.

pub mod capability;
pub mod cgroup;
mod channel;
mod child;
mod dev;
mod error;
mod init;
mod mounts;
pub mod network;
mod plan;
mod privileges;
mod process;
mod program;
pub mod relay;
mod rootfs;
mod seccomp;
pub mod signal;
pub mod user;

pub use error::{Error, StepFailure};
pub use plan::{
    BindOptions, Capabilities, MountOp, Namespaces, Network, Plan, Seccomp, default_capabilities,
    default_masked_paths, default_mounts, default_read_only_paths,
};
pub use process::{ExecRequest, ExitStatus, Process, Stdio, become_root, become_root_of, exec, spawn};

#[cfg(test)]
mod tests;
