//! Which proxy a connection takes: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, either case, read as Go's
//! programs read them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Error;
use super::origin::{Origin, Scheme};
use crate::image::BoxError;

/// The proxy for an origin, if one is set for it.
///
/// # Errors
/// [`Error::Proxy`] when the setting cannot be parsed.
pub(super) fn choose(env: &BTreeMap<String, String>, origin: &Origin) -> Result<Option<ureq::Proxy>, Error> {
    let Some((variable, value)) = setting(env, origin) else { return Ok(None) };
    match ureq::Proxy::new(value) {
        Ok(proxy) => Ok(Some(proxy)),
        Err(source) => Err(Error::Proxy { variable, source: source.into() }),
    }
}

/// The setting that applies to an origin.
fn setting<'a>(env: &'a BTreeMap<String, String>, origin: &Origin) -> Option<(String, &'a str)> {
    let own = match origin.scheme {
        Scheme::Https => "HTTPS_PROXY",
        Scheme::Http => "HTTP_PROXY",
    };
    // A web server hands a request's `Proxy:` header to its programs under this name.
    let forged =
        |(variable, _): &(String, &str)| variable == "HTTP_PROXY" && env.contains_key("REQUEST_METHOD");
    let found = get(env, own).filter(|found| !forged(found)).or_else(|| get(env, "ALL_PROXY"))?;
    let exceptions = get(env, "NO_PROXY").map_or("", |(_, value)| value);
    (!origin.is_loopback() && !is_exception(exceptions, origin)).then_some(found)
}

/// A connection could not be made through a proxy.
#[derive(Debug, thiserror::Error)]
#[error("the way there is the proxy `{proxy}`, set in {variable}")]
struct ThroughProxy {
    proxy: String,
    variable: String,
    #[source]
    source: BoxError,
}

/// An error of connecting, with the proxy that the connection takes. Its user name and password are not shown.
pub(super) fn blame(env: &BTreeMap<String, String>, origin: &Origin, source: BoxError) -> BoxError {
    let Some((variable, value)) = setting(env, origin) else { return source };
    let value = value.split_once("://").map_or(value, |(_, rest)| rest);
    let host = value.rsplit_once('@').map_or(value, |(_, host)| host);
    let proxy = super::error::sanitise(host.trim_end_matches('/'), 200);
    Box::new(ThroughProxy { proxy, variable, source })
}

fn get<'a>(env: &'a BTreeMap<String, String>, name: &str) -> Option<(String, &'a str)> {
    [name.to_owned(), name.to_ascii_lowercase()].into_iter().find_map(|name| {
        let value = env.get(&name)?.trim();
        (!value.is_empty()).then_some((name, value))
    })
}

/// Whether `NO_PROXY` names the origin: `*`, a host with all hosts below it, `.suffix`, an address, a network in CIDR
/// form; each with an optional port.
fn is_exception(list: &str, origin: &Origin) -> bool {
    list.split(',').map(str::trim).filter(|entry| !entry.is_empty()).any(|entry| matches(entry, origin))
}

fn matches(entry: &str, origin: &Origin) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((network, length)) = entry.split_once('/') {
        return match (network.parse(), length.parse(), origin.address()) {
            (Ok(network), Ok(length), Some(address)) => in_network(address, network, length),
            _ => false,
        };
    }
    let (host, port) = split_port(entry);
    if port.is_some_and(|port| port != origin.port) {
        return false;
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    if let Ok(address) = bare.parse::<IpAddr>() {
        return origin.address() == Some(address);
    }
    let suffix = bare.trim_start_matches('*').trim_start_matches('.');
    let below = origin.host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.'));
    below || (origin.host == suffix && !bare.starts_with(['.', '*']))
}

fn split_port(entry: &str) -> (&str, Option<u16>) {
    match entry.rsplit_once(':') {
        // More than one colon without brackets is an IPv6 address.
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => match port.parse() {
            Ok(port) => (host, Some(port)),
            Err(_) => (entry, None),
        },
        _ => (entry, None),
    }
}

/// Whether an address lies in a network.
pub(super) fn in_network(address: IpAddr, network: IpAddr, length: u32) -> bool {
    let (address, network, width) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(n)) => (u128::from(u32::from(a)), u128::from(u32::from(n)), 32),
        (IpAddr::V6(a), IpAddr::V6(n)) => (u128::from(a), u128::from(n), 128),
        _ => return false,
    };
    if length > width {
        return false;
    }
    let shift = width - length;
    shift == 128 || (address >> shift) == (network >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_knows_hosts_suffixes_addresses_and_networks() {
        for (list, url, excepted) in [
            ("*", "https://a.example", true),
            ("example", "https://a.example", true),
            ("a.example", "https://a.example", true),
            ("a.example", "https://b.a.example", true),
            ("a.example", "https://ba.example", false),
            (".a.example", "https://a.example", false),
            (".a.example", "https://b.a.example", true),
            ("*.a.example", "https://b.a.example", true),
            ("a.example:5000", "https://a.example", false),
            ("a.example:5000", "https://a.example:5000", true),
            ("10.0.0.0/8", "https://10.1.2.3", true),
            ("10.0.0.0/8", "https://11.1.2.3", false),
            ("10.1.2.3", "http://10.1.2.3:5000", true),
            ("fd00::/8", "http://[fd00::1]:5000", true),
            ("x, , b.example ", "https://b.example", true),
            ("", "https://b.example", false),
        ] {
            let origin = Origin::of_url(url).unwrap();
            assert_eq!(is_exception(list, &origin), excepted, "{list} {url}");
        }
    }

    #[test]
    fn loopback_is_never_proxied_and_bad_settings_keep_their_secrets() {
        let env = |value: &str| BTreeMap::from([("https_proxy".to_owned(), value.to_owned())]);
        let far = Origin::of_url("https://a.example").unwrap();
        let near = Origin::of_url("https://127.0.0.1:5000").unwrap();
        assert!(choose(&env("http://proxy:3128"), &far).unwrap().is_some());
        assert!(choose(&env("http://proxy:3128"), &near).unwrap().is_none());
        let error = choose(&env("ftp://user:hunter2@proxy"), &far).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        let error = blame(&env("http://user:hunter2@proxy:3128/"), &far, "refused".into());
        assert_eq!(error.to_string(), "the way there is the proxy `proxy:3128`, set in https_proxy");
        let mut env = BTreeMap::from([("HTTP_PROXY".to_owned(), "http://proxy".to_owned())]);
        let plain = Origin::of_url("http://a.example").unwrap();
        assert!(choose(&env, &plain).unwrap().is_some());
        env.insert("REQUEST_METHOD".into(), "GET".into());
        assert!(choose(&env, &plain).unwrap().is_none());
    }
}
