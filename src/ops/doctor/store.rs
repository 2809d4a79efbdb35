//! The store: writable, on a fit file system, with space.

use super::Check;
use crate::context::Context;
use crate::storage::{Method, Store};
use crate::userns::Rung;

/// Less space than this is soon none.
const LITTLE_SPACE: u64 = 2 << 30;
/// `statfs` types (`linux/magic.h`).
const NFS: u64 = 0x6969;
const TMPFS: u64 = 0x0102_1994;
const OVERLAY: u64 = 0x794c_7630;

pub(super) fn checks(cx: &Context) -> Vec<Check> {
    let shown = cx.root.display().to_string();
    let store = match Store::open_writable(&cx.root, cx.abilities()) {
        Ok(store) => store,
        Err(error) => {
            let mut why = error.to_string();
            if let Some(source) = std::error::Error::source(&error) {
                why = format!("{why}: {source}");
            }
            return vec![
                Check::fail("store", why, "no image can be kept")
                    .fix("export STRATE_ROOT=<a directory of your own>"),
            ];
        }
    };
    let mut checks = vec![Check::ok("store", shown), space(cx), file_system(cx)];
    checks.push(layering(cx, &store));
    checks
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

fn file_system(cx: &Context) -> Check {
    let name = "file system";
    let kind = rustix::fs::statfs(&cx.root).map(|stat| u64::try_from(stat.f_type).unwrap_or(0)).unwrap_or(0);
    match kind {
        NFS => Check::warn(
            name,
            "NFS",
            "a server may refuse the owners of files, and locks between machines are slow",
        )
        .fix("export STRATE_ROOT=<a directory on a local disk>"),
        TMPFS => Check::warn(name, "tmpfs", "images are gone after a restart, and take memory"),
        OVERLAY => Check::warn(
            name,
            "overlay",
            "an overlay cannot lie on another: root file systems are copied, or put the store on a volume",
        )
        .fix("export STRATE_ROOT=<a mounted volume>"),
        _ => Check::ok(name, common_name(kind).map_or_else(|| format!("type {kind:#x}"), str::to_owned)),
    }
}

/// The name of a file system by its magic number (`man 2 statfs`), for those that stores usually lie on.
fn common_name(kind: u64) -> Option<&'static str> {
    Some(match kind {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0xf2f5_2010 => "f2fs",
        0xca45_1a4e => "bcachefs",
        0x2fc1_2fc1 => "zfs",
        _ => return None,
    })
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
