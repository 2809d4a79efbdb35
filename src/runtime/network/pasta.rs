//! What pasta is told (`man 1 pasta`).

use std::net::IpAddr;

use super::{ADDRESS, Error, GATEWAY, Helper, NAME_SERVER, PREFIX, Wanted};
use crate::oci::{Protocol, Published};

/// Options by which pasta would not do its part of the bargain: to go to the background when all is set up, in the
/// namespace that it is given.
const OURS: [&str; 15] = [
    "-f",
    "--foreground",
    "-d",
    "--debug",
    "--trace",
    "-e",
    "--stderr",
    "--netns",
    "--userns",
    "--netns-only",
    "-h",
    "--help",
    "--version",
    "-P",
    "--pid",
];

/// The command line but for the namespace.
///
/// # Errors
/// [`Error::Cannot`] when two ports cannot be told apart, or an option is ours to give.
pub(super) fn arguments(wanted: &Wanted<'_>) -> Result<Vec<String>, Error> {
    let cannot = |what: String| Error::Cannot { helper: Helper::Pasta, what };
    let given = |names: &[&str]| wanted.options.iter().any(|option| names.contains(&name_of(option)));
    if let Some(option) = wanted.options.iter().find(|option| OURS.contains(&name_of(option))) {
        return Err(cannot(format!("be given `{option}` by --network: strate decides that")));
    }
    let mut args: Vec<String> =
        ["pasta", "--quiet", "--config-net", "--no-netns-quit"].map(str::to_owned).to_vec();
    let mut add = |words: &[&str]| args.extend(words.iter().map(|word| (*word).to_owned()));
    if !given(&["--map-gw"]) {
        add(&["--no-map-gw"]);
    }
    if !given(&["-a", "--address"]) {
        let address = wanted.address.unwrap_or(ADDRESS).to_string();
        add(&["-a", &address]);
        if !given(&["-n", "--netmask"]) {
            add(&["-n", &PREFIX.to_string()]);
        }
        if !given(&["-g", "--gateway"]) {
            add(&["-g", &gateway(wanted)]);
        }
        if let Some(address) = wanted.address6 {
            add(&["-a", &address.to_string()]);
        }
    }
    if !given(&["-I", "--ns-ifname"]) {
        add(&["-I", "eth0"]);
    }
    if !given(&["--dns-forward"]) {
        add(&["--dns-forward", &NAME_SERVER.to_string()]);
    }
    if let Some(mac) = wanted.mac {
        add(&["--ns-mac-addr", mac]);
    }
    for (own, names, protocol) in
        [("-t", ["-t", "--tcp-ports"], Protocol::Tcp), ("-u", ["-u", "--udp-ports"], Protocol::Udp)]
    {
        let ports: Vec<Published> =
            wanted.ports.iter().filter(|port| port.protocol == protocol).copied().collect();
        if ports.is_empty() && !given(&names) {
            add(&[own, "none"]);
        }
        for spec in specs(ports).map_err(cannot)? {
            add(&[own, &spec]);
        }
    }
    for (own, names) in [("-T", ["-T", "--tcp-ns"]), ("-U", ["-U", "--udp-ns"])] {
        if !given(&names) {
            add(&[own, "none"]);
        }
    }
    if is_initial_root() && !given(&["--runas"]) {
        // Else it becomes nobody, who may not enter root's namespaces.
        add(&["--runas", "0:0"]);
    }
    args.extend(wanted.options.iter().filter(|option| *option != "--map-gw").cloned());
    Ok(args)
}

/// The gateway lies in the container's network, whatever that is.
fn gateway(wanted: &Wanted<'_>) -> String {
    match wanted.address {
        None => GATEWAY.to_string(),
        Some(address) => {
            let [a, b, c, d] = address.octets();
            std::net::Ipv4Addr::new(a, b, c, if d == 1 { 2 } else { 1 }).to_string()
        }
    }
}

/// `--mtu=1500` is `--mtu`.
fn name_of(option: &str) -> &str {
    option.split_once('=').map_or(option, |(name, _)| name)
}

/// `ADDRESS/FIRST-LAST:FIRST-LAST`, neighbours together. Pasta keeps one target for a port of the host, whatever the
/// address.
fn specs(mut ports: Vec<Published>) -> Result<Vec<String>, String> {
    ports.sort_by_key(|port| (port.host_ip, port.host_port));
    let mut targets = std::collections::BTreeMap::new();
    let mut runs: Vec<(IpAddr, u16, u16, u16)> = Vec::new();
    for port in ports {
        let target = targets.entry(port.host_port).or_insert(port.container_port);
        if *target != port.container_port {
            return Err(format!(
                "lead port {} of two addresses to the container's ports {target} and {}",
                port.host_port, port.container_port
            ));
        }
        match runs.last_mut() {
            Some((ip, first, to, count))
                if *ip == port.host_ip
                    && first.checked_add(*count) == Some(port.host_port)
                    && to.checked_add(*count) == Some(port.container_port) =>
            {
                *count += 1;
            }
            _ => runs.push((port.host_ip, port.host_port, port.container_port, 1)),
        }
    }
    let spec = |(ip, from, to, count): (IpAddr, u16, u16, u16)| {
        if count == 1 {
            format!("{ip}/{from}:{to}")
        } else {
            format!("{ip}/{from}-{}:{to}-{}", from + (count - 1), to + (count - 1))
        }
    };
    Ok(runs.into_iter().map(spec).collect())
}

/// Whether we are root of the machine and not of a user namespace.
fn is_initial_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    rustix::process::geteuid().is_root() && map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, host_port: u16, container_port: u16) -> Published {
        Published { host_ip: ip.parse().unwrap(), host_port, container_port, protocol: Protocol::Tcp }
    }

    #[test]
    fn neighbours_are_told_together() {
        let ports = vec![port("0.0.0.0", 8001, 81), port("0.0.0.0", 8000, 80), port("::1", 9000, 80)];
        assert_eq!(specs(ports).unwrap(), ["0.0.0.0/8000-8001:80-81", "::1/9000:80"]);
        assert!(specs(vec![port("127.0.0.1", 80, 80), port("127.0.0.2", 80, 81)]).is_err());
        assert_eq!(specs(vec![port("1.1.1.1", 65535, 65535)]).unwrap(), ["1.1.1.1/65535:65535"]);
    }

    #[test]
    fn the_host_is_out_of_reach_unless_asked_for() {
        let wanted = |options| Wanted {
            helper: Helper::Pasta,
            program: std::path::Path::new("/usr/bin/pasta"),
            options,
            ports: &[],
            address: None,
            address6: None,
            mac: None,
            scratch: std::path::Path::new("/x"),
            uid: 0,
        };
        let args = arguments(&wanted(&[])).unwrap().join(" ");
        assert!(args.contains("--no-map-gw") && args.contains("-t none -u none -T none -U none"), "{args}");
        let own = ["--map-gw".to_owned(), "-T".into(), "5432".into(), "-a".into(), "10.1.0.2".into()];
        let args = arguments(&wanted(&own)).unwrap().join(" ");
        assert!(
            !args.contains("map-gw") && !args.contains("-T none") && !args.contains("10.0.2.100"),
            "{args}"
        );
        assert!(arguments(&wanted(&["--netns=/x".to_owned()])).is_err());
    }
}
