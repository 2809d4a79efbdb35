//! What a build is asked to do, and what it needs from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::ast::Dockerfile;
use super::remote::{ContextDir, NamedContext};
use crate::image::{BoxError, Reporter};
use crate::oci::{Platform, Reference};
use crate::runtime::Network;
use crate::storage::Image;

/// What a build is asked to do. Nothing in it is read from the environment later on.
#[derive(Debug, Clone)]
pub struct Request {
    /// The parsed Dockerfile.
    pub dockerfile: Dockerfile,
    /// The context's directory; none for a Dockerfile that came alone.
    pub context: Option<ContextDir>,
    /// The time that the context has, in seconds since 1970: that of its commit.
    pub context_time: Option<i64>,
    /// The ignore file's bytes, when there is one.
    pub ignore: Option<Vec<u8>>,
    /// `--build-context`, by normalised name.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`, those without a value resolved.
    pub build_args: BTreeMap<String, String>,
    /// `--label`, in order.
    pub labels: Vec<(String, String)>,
    /// `--env`: variables that the image gets last, in order.
    pub env: Vec<(String, String)>,
    /// `--unsetenv`: variables that the image does not keep.
    pub unset_env: Vec<String>,
    /// `--unsetlabel`: labels that it does not keep.
    pub unset_labels: Vec<String>,
    /// `--no-cache`.
    pub no_cache: bool,
    /// `--no-cache-filter`: stages for which it holds.
    pub no_cache_stages: Vec<String>,
    /// Whether files of the invoking user show as root's in a step (they do in a user namespace), so that a context can
    /// be bound as it lies.
    pub owns_context: bool,
    /// `--network`.
    pub network: Network,
    /// What the image is for.
    pub platform: Platform,
    /// Whether the same is built for other platforms too.
    pub several_platforms: bool,
    /// Whether the platform was asked for, and is not just this machine's.
    pub platform_given: bool,
    /// `--secret`: content by id.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// `--ssh`: sockets of agents by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// `--add-host`: name and address.
    pub add_hosts: Vec<(String, String)>,
    /// Bytes of `/dev/shm`.
    pub shm_size: u64,
    /// `--ulimit`: `RLIMIT_*` name, soft, hard.
    pub rlimits: Vec<(String, u64, u64)>,
    /// The host's `resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// Whether programs can be isolated here: a rung of the ladder was taken.
    pub isolated: bool,
}

/// Where base images come from; the build knows no registries.
pub trait Bases {
    /// What the name of a base image means.
    ///
    /// # Errors
    /// When it is no name, or what it means cannot be told.
    fn reference(&self, name: &str) -> Result<Reference, BoxError> {
        Ok(Reference::parse(name)?)
    }

    /// An image that is here then: the local one, or pulled when it lacks or must be asked for anew.
    ///
    /// # Errors
    /// When there is none, or it cannot be had.
    fn image(
        &self,
        reference: &Reference,
        platform: &Platform,
        report: &dyn Reporter,
    ) -> Result<Image, BoxError>;
}
