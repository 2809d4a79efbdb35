//! What the verbs of containers share: what a container is, how it becomes a plan, who watches over it.

pub mod agent;
pub mod attend;
pub mod cgroup;
pub mod changes;
pub mod copying;
mod error;
mod etc;
pub mod freeze;
pub mod freezer;
pub mod health;
pub mod limits;
pub mod log;
pub mod monitor;
pub mod mounts;
pub mod names;
pub mod network;
pub mod pattern;
pub mod plan;
pub mod processes;
pub mod spec;
pub mod streams;
pub mod target;
pub mod values;
pub mod volumes;

pub use error::Error;
pub use network::{NetworkMode, Wishes};
pub use spec::{ContainerSpec, HostOptions, ImageVolumes, Overrides, RestartPolicy, UserNamespace};
