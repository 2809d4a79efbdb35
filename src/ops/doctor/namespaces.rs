//! Kernel, user namespaces and ids.

use super::{Check, fixes};
use crate::context::Context;
use crate::ops::host;
use crate::userns::Rung;

/// First kernel with overlay in user namespaces; `mount_setattr` came one release later.
const KERNEL: (u32, u32) = (5, 12);
/// How many ids images use as a rule.
const IDS: u32 = 65_536;

pub(super) fn kernel() -> Check {
    let found = host::kernel();
    if host::kernel_version() >= KERNEL {
        return Check::ok("kernel", found);
    }
    Check::fail(
        "kernel",
        found,
        format!("`run` and RUN need Linux {}.{} or newer; everything else works", KERNEL.0, KERNEL.1),
    )
}

pub(super) fn rung(cx: &Context) -> Check {
    let name = "user namespaces";
    let Some(entered) = &cx.entered else {
        return Check::fail(name, "not tried", "this is a bug");
    };
    let why = |rung: Rung| {
        entered.refused.iter().find(|(refused, _)| *refused == rung).map_or("", |(_, why)| why.as_str())
    };
    let path = cx.path();
    if cx.var("STRATE_USERNS_MODE").is_some_and(|mode| mode != "auto") {
        return Check::ok(name, format!("{}, as asked for", entered.rung));
    }
    match entered.rung {
        Rung::Root => Check::ok(name, "root: no user namespace needed"),
        Rung::Full => Check::ok(name, "full: files keep their true owners"),
        Rung::Single => Check::warn(
            name,
            format!("single: one user id only ({})", why(Rung::Full)),
            "files that should belong to others belong to you, and chown fails in containers, which many package \
             installations need",
        )
        .fixes(fixes::for_refusal(why(Rung::Full), cx.uid, &path)),
        Rung::None => Check::fail(
            name,
            format!("none: {}", if why(Rung::Single).is_empty() { why(Rung::Root) } else { why(Rung::Single) }),
            "`run` and RUN are not possible; pull, push, inspect and builds of COPY alone work",
        )
        .fixes(fixes::for_refusal(why(Rung::Single), cx.uid, &path)),
    }
}

/// Enough ids? Only a question where there are several.
pub(super) fn ids(cx: &Context) -> Option<Check> {
    let entered = cx.entered.as_ref().filter(|entered| entered.rung == Rung::Full)?;
    let name = "subordinate ids";
    let count = entered.mapped_ids;
    Some(if count >= IDS {
        Check::ok(name, format!("{count} ids"))
    } else {
        Check::warn(
            name,
            format!("{count} ids"),
            format!("images whose files belong to ids from {count} on need more"),
        )
        .fix(fixes::add_subordinate_ids(cx.uid))
    })
}
