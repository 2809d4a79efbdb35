//! Whether containers can have a network of their own.

use super::{Check, fixes};
use crate::context::Context;
use crate::ops::container::{Error, network};

pub(super) fn helper(cx: &Context) -> Check {
    let name = "network";
    let meaning = "containers have the host's network, and `run -p` is refused";
    match network::available(cx) {
        Ok(helper) => Check::ok(name, format!("{helper}: containers have a network of their own")),
        Err(Error::NoTun(source)) => {
            let found = format!("/dev/net/tun cannot be opened: {source}");
            let sudo = fixes::sudo(cx.uid);
            let fix = match source.kind() {
                std::io::ErrorKind::NotFound => format!("{sudo}modprobe tun"),
                _ => format!("{sudo}chmod 666 /dev/net/tun"),
            };
            Check::warn(name, found, meaning).fix(fix)
        }
        Err(error) => Check::warn(name, error.to_string(), meaning).fix(fixes::install_passt(cx.uid)),
    }
}
