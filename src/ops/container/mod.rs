//! What the verbs of containers share: what a container is, how it becomes a plan, who watches over it.

mod error;
pub mod log;
pub mod mounts;
pub mod names;
pub mod pattern;
pub mod plan;
pub mod spec;
pub mod target;
pub mod values;

pub use error::Error;
pub use spec::{ContainerSpec, HostOptions, NetworkMode, Overrides};
