//! The store: writable, on a fit file system, with space.

use super::Check;
use crate::context::Context;
use crate::storage::{Error, Method, Store};
use crate::userns::Rung;

/// Less space than this is soon none.
const LITTLE_SPACE: u64 = 2 << 30;
pub(super) fn checks(cx: &Context) -> Vec<Check> {
    let shown = cx.root.display().to_string();
    let store = match crate::ops::store::write_plainly(cx) {
        Ok(store) => store,
        Err(error) => {
            let check = Check::fail("store", text_of(&error), "no image can be kept");
            return vec![match error {
                Error::Json { .. } | Error::Damaged { .. } => check.fix("strate system check --repair"),
                _ => check.fix("export STRATE_ROOT=<a directory of your own>"),
            }];
        }
    };
    let mut checks = vec![Check::ok("store", shown), space(cx), file_system(&store)];
    checks.push(layering(cx, &store));
    checks.extend(foreign_stores(cx));
    if let Err(error) = store.images() {
        let check = Check::fail("list of images", text_of(&error), "no image can be found");
        checks.push(check.fix("strate system check --repair"));
    }
    checks
}

/// An error and its cause, in a line.
fn text_of(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn space(cx: &Context) -> Check {
    let name = "space";
    let free = match rustix::fs::statvfs(&cx.root) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            return Check::warn(name, format!("unknown: {error}"), "the store's file system does not tell");
        }
    };
    let found = format!("{}.{} GB free", free / 1_000_000_000, free % 1_000_000_000 / 100_000_000);
    if free >= LITTLE_SPACE {
        return Check::ok(name, found);
    }
    Check::warn(name, found, "pulls and builds will soon fail")
        .fix("strate image prune -a")
        .fix("export STRATE_ROOT=<a directory on a larger disk>")
}

/// What the probe found when the store was made, or came to this file system or kernel.
fn file_system(store: &Store) -> Check {
    let name = "file system";
    let Some(probe) = store.probe() else {
        return Check::warn(name, "unknown", "the store could not write down what its file system can do");
    };
    let lacks = probe.lacks();
    let found = match lacks.is_empty() {
        true => probe.file_system.clone(),
        false => format!("{}, without {}", probe.file_system, lacks.join(", ")),
    };
    match probe.meaning() {
        Some(meaning) => {
            Check::warn(name, found, meaning).fix("export STRATE_ROOT=<a directory on a local disk>")
        }
        None if probe.file_system == "tmpfs" => {
            Check::warn(name, found, "images are gone after a restart, and take memory")
        }
        None if lacks.is_empty() => Check::ok(name, found),
        None => Check::warn(name, found, "what lacks is done in a slower way"),
    }
}

/// What `storage.conf` names for podman, and we cannot read.
fn foreign_stores(cx: &Context) -> Vec<Check> {
    let check = |path: std::path::PathBuf| {
        let found = format!("{} is in the format of podman and buildah", path.display());
        Check::warn("additional store", found, "its images are not seen")
            .fix(format!("strate import-store containers-storage --from {}", path.display()))
    };
    super::super::image_stores::foreign(cx).into_iter().map(check).collect()
}

fn layering(cx: &Context, store: &Store) -> Check {
    let name = "layering";
    if cx.entered.as_ref().is_none_or(|entered| entered.rung == Rung::None) {
        return Check::warn(name, "not tried", "it needs the user namespace above");
    }
    match store.probe_layering() {
        Ok(Method::Overlay) => Check::ok(name, "overlay"),
        Ok(Method::Copy) => Check::warn(
            name,
            "copy: the kernel's overlay does not work here",
            "starting a container copies its image: slower, and more space",
        )
        .fix("export STRATE_ROOT=<a directory on ext4, xfs or btrfs>"),
        Err(error) => Check::fail(name, error.to_string(), "`run` and RUN are not possible"),
    }
}
