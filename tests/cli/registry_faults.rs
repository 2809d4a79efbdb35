//! Registries that fail, lie or attack, between the binary and a real registry: the right image or a clear error in
//! bounded time, never a wrong blob and never a credential sent elsewhere. Names begin
//! with what they are about.

use crate::support::{Env, Fault, Proxy, busybox_image, need, shared_registry};

/// A proxy before the shared registry.
fn proxy(rule: impl Fn(&crate::support::Seen) -> Fault + Send + Sync + 'static) -> Proxy {
    shared_registry();
    let _ = busybox_image();
    Proxy::start(&shared_registry().host(), rule)
}

#[test]
fn a_stream_that_is_cut_goes_on() {
    need!("docker-registry", "skopeo", "busybox");
    let proxy = proxy(|seen| if seen.is_blob() { Fault::Cut(600_000) } else { Fault::Pass });
    let env = Env::new();
    env.run(["pull", "-q", "--retry-delay", "1ms", &proxy.image("busybox")]).success();
    assert!(proxy.count(|seen| seen.header("range").is_some()) == 1, "{:?}", proxy.log());
}
