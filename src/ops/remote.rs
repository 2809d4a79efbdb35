//! What verbs that talk to a registry have in common.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::archive::Gate;
use crate::context::Context;
use crate::image::{BoxError, Copied, CopyError, Event, Location, Reporter};
use crate::oci::{Digest, Reference, digest_of};
use crate::registry::{self, Login, Secret, Settings};
use crate::storage::{Place, Store};

pub use crate::registry::{NameError as Error, Named};

/// The registry options of a verb.
#[derive(Debug, Clone, Default)]
pub struct RemoteOptions {
    /// `--creds`: user name and password.
    pub creds: Option<(String, String)>,
    /// `--registry-token`: a bearer token, sent as it is.
    pub registry_token: Option<String>,
    /// `--no-creds`: no login, even if one is kept.
    pub anonymous: bool,
    /// `--authfile`.
    pub authfile: Option<PathBuf>,
    /// `--tls-verify`.
    pub tls_verify: Option<bool>,
    /// `--cert-dir`.
    pub cert_dir: Option<PathBuf>,
    /// `--retry`.
    pub retries: Option<u32>,
    /// `--retry-delay`.
    pub retry_delay: Option<Duration>,
    /// `--timeout`: how long everything together may take.
    pub timeout: Option<Duration>,
    /// `--stall-timeout`: how long a connection may be silent.
    pub stall_timeout: Option<Duration>,
}

impl RemoteOptions {
    /// The settings of a registry client, from the context and these options.
    #[must_use]
    pub fn settings(&self, cx: &Context) -> Settings {
        let absolute = |path: &PathBuf| cx.cwd.join(path);
        let token = self.registry_token.as_ref().map(|token| Login::Bearer(Secret::new(token)));
        let password = || self.creds.as_ref().map(|(user, password)| Login::password(user, password));
        Settings {
            env: cx.env.clone(),
            home: cx.home.clone(),
            uid: Some(cx.uid),
            creds: token.or_else(password),
            anonymous: self.anonymous,
            authfile: self.authfile.as_ref().map(absolute),
            tls_verify: self.tls_verify,
            cert_dir: self.cert_dir.as_ref().map(absolute),
            retries: self.retries,
            retry_delay: self.retry_delay,
            deadline: self.timeout.and_then(|time| Instant::now().checked_add(time)),
            stall: self.stall_timeout,
        }
    }
}

/// What a name that a user typed means at registries: `alpine` is `docker.io/library/alpine:latest`, or what an alias
/// of registries.conf says.
///
/// # Errors
/// When it is no reference, or the configuration cannot be used.
pub fn name(cx: &Context, typed: &str) -> Result<Named, Error> {
    registry::resolve_name(&RemoteOptions::default().settings(cx), typed)
}

/// As [`name`], with what the user should know of it told to `report`.
///
/// # Errors
/// As [`name`].
pub fn told_name(cx: &Context, typed: &str, report: &dyn Reporter) -> Result<Reference, Error> {
    let named = name(cx, typed)?;
    if let Some(path) = &named.alias {
        let said = format!("Resolved \"{typed}\" as an alias ({}): {}", path.display(), named.reference);
        report.event(Event::Note(said));
    }
    if let Some(note) = named.note {
        report.event(Event::Note(note));
    }
    Ok(named.reference)
}

/// What a name means to a verb that takes an image from here, and from a registry where it is not here: an image that
/// is here under just this name comes before an alias.
///
/// # Errors
/// As [`name`].
pub fn image_name(cx: &Context, store: &Store, typed: &str) -> Result<Named, Error> {
    let plain = Reference::parse(typed)?;
    if store.find_image(&plain.to_string()).is_ok() {
        return Ok(Named { reference: plain, alias: None, note: None });
    }
    name(cx, typed)
}

/// Asks the user's policy whether images of a file or directory may come in.
pub(super) fn gate(cx: &Context, location: &Location) -> Gate {
    let (settings, location) = (RemoteOptions::default().settings(cx), location.clone());
    Box::new(move |_, _| Ok(registry::admit_location(&settings, &location)?))
}

/// The part of a copy's error that says something new: a verb's own error names the image already.
pub(super) fn inner(error: CopyError) -> BoxError {
    match error {
        CopyError::Source { source, .. } | CopyError::Sink { source, .. } | CopyError::Room { source } => {
            source
        }
        other => other.into(),
    }
}

/// Remember that a repository has what was copied from or to it: later pushes to that registry mount it.
pub(super) fn remember(store: &Store, reference: &Reference, copied: &Copied) {
    let documents = [&copied.resolved, &copied.target].map(digest_of);
    let documents = documents.iter().flatten();
    store.note_places(copied.moved.iter().chain(&copied.reused).chain(documents), &Place::of(reference));
}

/// Repositories of a reference's registry that are known to hold a blob.
pub(super) fn mount_sources<'a>(
    store: &'a Store,
    reference: &Reference,
) -> impl Fn(&Digest) -> Vec<String> + Send + Sync + use<'a> {
    let registry = reference.registry().to_owned();
    move |digest| {
        let places = store.places(digest).into_iter();
        places.filter(|place| place.registry == registry).map(|place| place.repository).collect()
    }
}
