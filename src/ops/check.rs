//! `system check`: whether all that the store holds is as it should be, and `--repair`, which makes it so.
//!
//! Repairing goes from what says what the store is to what can be made again: directories and format, the list of names,
//! blobs (from unpacked layers, else from where they came), unpacked layers, caches. Then all that was wrong is looked
//! at again, so that what is told is what is.

use std::collections::BTreeSet;

use super::remote::RemoteOptions;
use crate::context::Context;
use crate::image::{BoxError, Event, Reporter, Source};
use crate::oci::{Digest, Reference, descriptor};
use crate::registry::{self, Action, Client};
use crate::storage::{CheckOptions, Error, LostBlob, Notice, Store};

pub use crate::storage::{CheckReport, Fault, Progress};

/// How to check.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// Leave out what takes long: the content of large blobs and of unpacked layers.
    pub quick: bool,
    /// Mend what can be mended.
    pub repair: bool,
    /// Give up names whose images are beyond repair.
    pub force: bool,
    /// How to reach registries.
    pub remote: RemoteOptions,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Checked {
    /// What was found; after a repair, with those faults only that are left.
    pub report: CheckReport,
    /// What was done, in order.
    pub done: Vec<String>,
}

/// Look at everything. A store that is not there yet is sound.
///
/// # Errors
/// When the store cannot be looked at: its format is newer, or nobody says where it lies. With `repair` also when it
/// cannot be written.
pub fn check(
    cx: &Context,
    request: &Request,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Checked, Error> {
    let options = CheckOptions { quick: request.quick, progress };
    let how = super::store::opening(cx);
    if !request.repair {
        let store = Store::open_to_check(&cx.root, cx.abilities(), how)?;
        let report = store.map(|store| store.check(&options)).unwrap_or_default();
        return Ok(Checked { report, done: Vec::new() });
    }
    let Some((store, mut done)) = Store::open_to_repair(&cx.root, cx.abilities(), how, request.force)? else {
        return Ok(Checked::default());
    };
    done.extend(store.mend_names(request.force)?);
    // A record that cannot be read stands in the way of this and is told below.
    let _ = store.sweep_containers();
    let mut report = store.check(&options);
    fetch_blobs(cx, &store, request, &report.faults, &Notes(&cx.notice), &mut done)?;
    done.extend(store.mend_names(request.force)?);
    done.extend(store.mend_caches(&report.faults, request.force)?);
    let mut left = store.check_again(report.faults.clone(), &options);
    if request.force && left.iter().any(is_loss) {
        let dropped = store.drop_lost_names(&left)?;
        done.extend(dropped.iter().map(|name| format!("`{name}` was given up")));
        left = store.check_again(left, &options);
    }
    // What came back may lead to more that lacks, and counts.
    let now = store.check(&CheckOptions { quick: true, progress: &|_| () });
    report.counts = now.counts;
    left.extend(
        now.faults
            .into_iter()
            .filter(|fault| {
                !left.iter().any(|known| known.kind() == fault.kind() && known.subject() == fault.subject())
            })
            .collect::<Vec<_>>(),
    );
    report.faults = left;
    Ok(Checked { report, done })
}

/// Whether a fault is the loss of something that is nowhere else.
fn is_loss(fault: &Fault) -> bool {
    matches!(fault, Fault::Blob { .. } | Fault::Document { .. } | Fault::Entry { .. })
}

/// Bring every blob back that is needed. A manifest that is back says what else is needed, so this goes round until
/// nothing new comes. A wrong blob that cannot be had leaves its place, so that a later pull does not take it for a good
/// one; it is kept aside unless it is to be given up.
fn fetch_blobs(
    cx: &Context,
    store: &Store,
    request: &Request,
    faults: &[Fault],
    report: &dyn Reporter,
    done: &mut Vec<String>,
) -> Result<(), Error> {
    let mut tried: BTreeSet<Digest> = BTreeSet::new();
    let mut registries = Registries { cx, store, request, report, out_of_reach: BTreeSet::new() };
    loop {
        let mut lost = store.lost_blobs(faults);
        lost.retain(|blob| !tried.contains(&blob.digest));
        if lost.is_empty() {
            break;
        }
        for blob in lost {
            tried.insert(blob.digest.clone());
            if store.remake_layer(&blob)? {
                done.push(format!("blob {} was made again from its unpacked files", blob.digest.short()));
            } else if let Some(from) = registries.fetch(&blob) {
                done.push(format!("blob {} was fetched again from {from}", blob.digest.short()));
            }
        }
    }
    for fault in faults {
        if let Fault::Blob { digest, here: true, what, needed_by } = fault
            && store.is_wrong(digest)
        {
            done.extend(put_aside(store, digest, what, needed_by, request.force)?);
        }
    }
    Ok(())
}

/// Take a wrong blob out of its place: to where it is kept, or with `force` for good. What was done comes back.
fn put_aside(
    store: &Store,
    digest: &Digest,
    what: &str,
    needed_by: &[String],
    force: bool,
) -> Result<Option<String>, Error> {
    let short = digest.short();
    if force {
        let dropped = store.drop_wrong_blob(digest)?;
        return Ok(dropped.then(|| format!("blob {short} was removed, as its bytes were wrong")));
    }
    let Some(path) = store.keep_wrong_blob(digest, what)? else { return Ok(None) };
    let again = match needed_by {
        [] => "nothing needs it".to_owned(),
        [only] => format!("pull, load or build {only} again"),
        [first, rest @ ..] => format!("pull, load or build {first} and {} more again", rest.len()),
    };
    let path = path.display();
    Ok(Some(format!("blob {short} has wrong bytes and cannot be had now: it is kept in `{path}`; {again}")))
}

/// Where blobs may be had.
struct Registries<'a> {
    cx: &'a Context,
    store: &'a Store,
    request: &'a Request,
    report: &'a dyn Reporter,
    /// Those that did not answer are not asked again.
    out_of_reach: BTreeSet<String>,
}

impl Registries<'_> {
    /// Fetch a blob from the first repository that has it. The repository comes back.
    fn fetch(&mut self, blob: &LostBlob) -> Option<String> {
        let mut tried: BTreeSet<String> = BTreeSet::new();
        for place in &blob.places {
            let name = format!("{}/{}", place.registry(), place.repository());
            if self.out_of_reach.contains(place.registry()) || !tried.insert(name.clone()) {
                continue;
            }
            let Err(error) = self.fetch_from(blob, place) else { return Some(name) };
            if error.downcast_ref().is_some_and(registry::Error::is_out_of_reach) {
                self.out_of_reach.insert(place.registry().to_owned());
            }
            self.report.event(Event::Note(format!(
                "blob {} cannot be had from {name}: {}",
                blob.digest.short(),
                chain(error.as_ref())
            )));
        }
        None
    }

    fn fetch_from(&self, blob: &LostBlob, place: &Reference) -> Result<(), BoxError> {
        let settings = self.request.remote.settings(self.cx);
        let client = Client::new(&settings, place, Action::Pull, self.report)?;
        if blob.is_document {
            let found = client.resolve(&place.with_digest(blob.digest.clone()))?;
            let raw = client.manifest(&found)?;
            let size = raw.bytes.len() as u64;
            return Ok(self.store.replace_blob(&blob.digest, size, &mut raw.bytes.as_slice())?);
        }
        let size = blob.size.unwrap_or(0);
        let (_, mut data) =
            client.raw_blob(&descriptor("application/octet-stream", &blob.digest, size), 0)?;
        Ok(self.store.replace_blob(&blob.digest, size, &mut data)?)
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Hands notes on, and nothing else.
struct Notes<'a>(&'a Notice);

impl Reporter for Notes<'_> {
    fn event(&self, event: Event) {
        if let Event::Note(text) = event {
            self.0.say(&text);
        }
    }
}
