//! Host names without glibc.
//!
//! glibc's resolver loads plugins into the process, which crashes a static binary. Names are looked up here instead:
//! literal addresses and `localhost` at once, then `/etc/hosts`, then DNS by the system's configuration (hickory, on
//! a runtime that lives for one lookup), and on hosts whose nsswitch.conf names further services with `getent`, a
//! program of the host that may load them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolveHosts};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::{limits, process};
use crate::image::BoxError;

/// How long an answer is used again.
const KEEP: Duration = Duration::from_secs(60);
/// How many addresses of a host are tried; ureq's own number.
const ADDRESSES: usize = 16;

/// A host has no address.
#[derive(Debug, thiserror::Error)]
#[error("cannot find the address of host `{host}`")]
pub(super) struct LookupError {
    pub host: String,
    #[source]
    pub source: Option<BoxError>,
}

/// Resolves host names for all connections of a process.
#[derive(Debug, Default)]
pub(super) struct SystemResolver {
    known: Mutex<HashMap<String, (Instant, Vec<IpAddr>)>>,
}

impl Resolver for SystemResolver {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("https") => 443,
            Some("http") => 80,
            _ => 1080, // SOCKS
        });
        let addresses = self.lookup(host).map_err(|error| ureq::Error::Other(Box::new(error)))?;
        let mut resolved = self.empty();
        for address in addresses.into_iter().take(ADDRESSES) {
            resolved.push(SocketAddr::new(address, port));
        }
        Ok(resolved)
    }
}

impl SystemResolver {
    fn lookup(&self, host: &str) -> Result<Vec<IpAddr>, LookupError> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        if super::origin::is_loopback_host(&host) {
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        if let Some(addresses) = self.remembered(&host) {
            return Ok(addresses);
        }
        let addresses = system_lookup(&host)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(host, (Instant::now(), addresses.clone()));
        Ok(addresses)
    }

    fn remembered(&self, host: &str) -> Option<Vec<IpAddr>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(host).filter(|(when, _)| when.elapsed() < KEEP).map(|(_, addresses)| addresses.clone())
    }
}

fn system_lookup(host: &str) -> Result<Vec<IpAddr>, LookupError> {
    let in_file = hosts_file(&std::fs::read_to_string("/etc/hosts").unwrap_or_default(), host);
    if !in_file.is_empty() {
        return Ok(in_file);
    }
    let error = match dns(host) {
        Ok(addresses) if !addresses.is_empty() => return Ok(addresses),
        Ok(_) => None,
        Err(error) => Some(error),
    };
    let services = std::fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    if names_more_than_dns(&services) {
        let addresses = getent(host);
        if !addresses.is_empty() {
            return Ok(addresses);
        }
    }
    Err(LookupError { host: super::error::sanitise(host, 255), source: error })
}

/// The addresses that a hosts file gives a name (hosts(5)), IPv4 first.
fn hosts_file(text: &str, host: &str) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
        })
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.dedup();
    addresses
}

fn dns(host: &str) -> Result<Vec<IpAddr>, BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut builder = TokioResolver::builder_tokio()?;
        let options = builder.options_mut();
        // IPv4 first: where IPv6 is advertised but dead, a connection would hang before the next address is tried.
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Never;
        options.attempts = options.attempts.clamp(1, 3);
        options.timeout = options.timeout.min(limits::RESOLVE_TIMEOUT / 3);
        let resolver = builder.build()?;
        match resolver.lookup_ip(host).await {
            Ok(found) => Ok(found.iter().collect()),
            // The library's words name its own types.
            Err(error) if error.is_no_records_found() => {
                Err("the name servers know no address for it".into())
            }
            Err(error) => Err(error.into()),
        }
    })
}

/// Whether the `hosts` line of nsswitch.conf(5) names a service that is not covered here.
fn names_more_than_dns(text: &str) -> bool {
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("hosts:"));
    let Some(line) = line else { return false };
    let mut in_action = false;
    line.split('#').next().unwrap_or("").split_whitespace().any(|word| {
        let action = in_action || word.starts_with('[');
        in_action = action && !word.ends_with(']');
        !action && !matches!(word, "files" | "dns" | "myhostname")
    })
}

fn getent(host: &str) -> Vec<IpAddr> {
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) || host.starts_with('-') {
        return Vec::new();
    }
    let mut command = Command::new("getent");
    command.args(["ahosts", host]);
    let Ok(output) = process::run(command, b"", limits::RESOLVE_TIMEOUT, limits::ERROR_BYTES) else {
        return Vec::new();
    };
    let mut addresses: Vec<IpAddr> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literal_addresses_and_localhost_need_no_lookup() {
        let resolver = SystemResolver::default();
        for (host, first) in [
            ("127.0.0.1", "127.0.0.1"),
            ("[::1]", "::1"),
            ("LocalHost", "127.0.0.1"),
            ("a.localhost", "127.0.0.1"),
        ] {
            assert_eq!(resolver.lookup(host).unwrap()[0].to_string(), first);
        }
    }

    #[test]
    fn the_hosts_file_is_read_as_documented() {
        let text = "# all\n127.0.0.1 localhost\n::2 reg.test # six\n10.0.0.1\tother REG.test\nbad reg.test\n";
        let found: Vec<String> = hosts_file(text, "reg.test").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.1", "::2"]);
        assert!(hosts_file(text, "reg").is_empty());
    }

    #[test]
    fn only_services_beyond_files_and_dns_ask_for_getent() {
        for (text, more) in [
            ("hosts: files dns", false),
            ("passwd: files systemd\nhosts: files [!UNAVAIL=return] dns myhostname", false),
            ("hosts: files mdns4_minimal [NOTFOUND=return] dns", true),
            ("hosts: files resolve [ !UNAVAIL=return ] dns", true),
            ("", false),
        ] {
            assert_eq!(names_more_than_dns(text), more, "{text}");
        }
    }

    #[test]
    fn a_name_that_does_not_exist_names_the_host() {
        let error = SystemResolver::default().lookup("no-such-host.invalid").unwrap_err();
        assert!(error.to_string().contains("no-such-host.invalid"));
    }
}
