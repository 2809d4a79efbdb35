//! The files that a container gets from its maker: `/etc/hosts` and `/etc/resolv.conf`.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::network::{self, NetworkMode};
use super::spec::HostOptions;
use super::{ContainerSpec, Error};
use crate::runtime::network::NAME_SERVER;

/// The host's resolver configuration, with what the user wants different. Name servers that only the host itself can
/// reach (systemd-resolved, dnsmasq) are replaced, in a network of the container's own, by one that the helper answers
/// for with what the host's says.
pub(super) fn resolv_conf(host: &HostOptions, outer: &str) -> String {
    let private = host.network.is_private();
    let mut text = String::new();
    let mut forwarded = false;
    for line in outer.lines() {
        let mut words = line.split_whitespace();
        let keyword = words.next().unwrap_or_default();
        let replaced = match keyword {
            "nameserver" => !host.dns.is_empty(),
            "search" | "domain" => !host.dns_search.is_empty(),
            "options" => !host.dns_options.is_empty(),
            _ => false,
        };
        if replaced {
            continue;
        }
        if private && keyword == "nameserver" {
            match reach(words.next().unwrap_or_default()) {
                Reach::Anywhere => {
                    let _ = writeln!(text, "{line}");
                }
                Reach::Host if !forwarded => {
                    forwarded = true;
                    let _ = writeln!(text, "nameserver {NAME_SERVER}");
                }
                Reach::Host | Reach::Nowhere => {}
            }
            continue;
        }
        let _ = writeln!(text, "{line}");
    }
    // `--dns-search .` means none.
    let search: Vec<&str> =
        host.dns_search.iter().map(String::as_str).filter(|domain| *domain != ".").collect();
    if !search.is_empty() {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    for server in &host.dns {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !host.dns_options.is_empty() {
        let _ = writeln!(text, "options {}", host.dns_options.join(" "));
    }
    // Without any, the C library asks the loopback address, where a private network has nobody.
    let has_server = text.lines().any(|line| line.split_whitespace().next() == Some("nameserver"));
    if private && !has_server {
        let _ = writeln!(text, "nameserver {NAME_SERVER}");
    }
    text
}

/// From where a name server can be asked.
enum Reach {
    Anywhere,
    Host,
    Nowhere,
}

fn reach(server: &str) -> Reach {
    // An address of a link, with the host's name for that link.
    if server.contains('%') {
        return Reach::Nowhere;
    }
    match server.parse::<IpAddr>() {
        Ok(ip) if ip.is_loopback() || ip.is_unspecified() => Reach::Host,
        Ok(_) => Reach::Anywhere,
        Err(_) => Reach::Nowhere,
    }
}

const LOCAL_NAMES: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// With the host's network the host's names hold, and the container's own name stands for the loopback address, so
/// that looking it up does not go out to a name server; else its name stands for its own address.
///
/// # Errors
/// When `host-gateway` is asked for and the host has no address that others can reach.
pub(super) fn hosts(spec: &ContainerSpec, outer: &str, hostname: &str) -> Result<String, Error> {
    let host = &spec.host;
    let own = host.network.is_private();
    let mut text = match host.network {
        NetworkMode::Default | NetworkMode::Host if !outer.trim().is_empty() => {
            outer.trim_end().to_owned() + "\n"
        }
        _ => LOCAL_NAMES.to_owned(),
    };
    for (name, address) in &host.extra_hosts {
        let address = match address.as_str() {
            "host-gateway" => network::host_gateway(&host.network)?.to_string(),
            address => address.to_owned(),
        };
        let _ = writeln!(text, "{address}\t{name}");
    }
    if own && let Ok(address) = network::host_gateway(&host.network) {
        // Names that docker's and podman's users know the host by.
        for name in ["host.docker.internal", "host.containers.internal"] {
            if !names(&text).any(|have| have == name) {
                let _ = writeln!(text, "{address}\t{name}");
            }
        }
    }
    if !names(&text).any(|have| have == hostname) {
        let address = network::address(spec).map_or_else(|| "127.0.1.1".to_owned(), |ip| ip.to_string());
        let full = match host.domainname.as_str() {
            "" => String::new(),
            domain => format!("{hostname}.{domain} "),
        };
        let _ = writeln!(text, "{address}\t{full}{hostname}");
    }
    Ok(text)
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace().skip(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOLV: &str = "# c\nnameserver 10.0.0.1\nsearch a.example\noptions ndots:1\n";
    const HOSTS: &str = "127.0.0.1 localhost\n10.0.0.2 box\n";

    fn hosts_of(spec: &ContainerSpec, name: &str) -> String {
        hosts(spec, HOSTS, name).unwrap()
    }

    #[test]
    fn resolver_and_hosts_follow_the_flags() {
        let mut spec = ContainerSpec::default();
        assert_eq!(resolv_conf(&spec.host, RESOLV), RESOLV);
        spec.host.dns = vec!["1.1.1.1".into()];
        spec.host.dns_search = vec![".".into()];
        assert_eq!(resolv_conf(&spec.host, RESOLV), "# c\noptions ndots:1\nnameserver 1.1.1.1\n");
        spec.host.extra_hosts = vec![("db".into(), "1.2.3.4".into()), ("me".into(), "host-gateway".into())];
        let text = hosts_of(&spec, "it");
        assert!(text.contains("box\n1.2.3.4\tdb\n127.0.0.1\tme\n127.0.1.1\tit\n"), "{text}");
        assert!(!hosts_of(&spec, "box").contains("127.0.1.1"));
        spec.host.network = NetworkMode::None;
        assert!(!hosts_of(&spec, "it").contains("10.0.0.2"));
    }

    #[test]
    fn a_private_network_reaches_no_resolver_on_the_loopback_address() {
        let mut spec = ContainerSpec::default();
        spec.host.network = NetworkMode::Private;
        let text = resolv_conf(
            &spec.host,
            "nameserver 127.0.0.53\nnameserver ::1\nnameserver fe80::1%eth0\nnameserver fd00::53\nsearch a b\n",
        );
        assert_eq!(text, "nameserver 10.0.2.3\nnameserver fd00::53\nsearch a b\n");
        assert_eq!(resolv_conf(&spec.host, "search a\n"), "search a\nnameserver 10.0.2.3\n");
        assert_eq!(resolv_conf(&spec.host, RESOLV), RESOLV);
        spec.host.dns = vec!["9.9.9.9".into()];
        assert_eq!(resolv_conf(&spec.host, "nameserver 127.0.0.53\n"), "nameserver 9.9.9.9\n");
    }

    #[test]
    fn a_private_network_has_names_of_its_own() {
        let mut spec = ContainerSpec::default();
        spec.host.network = NetworkMode::Private;
        spec.host.domainname = "example.org".into();
        spec.host.extra_hosts = vec![("host.docker.internal".into(), "9.9.9.9".into())];
        let text = hosts_of(&spec, "it");
        assert!(text.contains("10.0.2.100\tit.example.org it\n") && !text.contains("box"), "{text}");
        assert_eq!(text.matches("host.docker.internal").count(), 1);
    }
}
