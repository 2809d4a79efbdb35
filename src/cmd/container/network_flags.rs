//! The flags of `run` and `create` that concern the network, and what they ask for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::{ArgAction, Args};

use crate::context::Context;
use crate::ops::container::{Error, HostOptions, NetworkMode, network, values};

/// What docker lets one say about the network of a new container.
#[derive(Debug, Args)]
pub(super) struct NetworkFlags {
    /// The network: private (its own), host, none, container:NAME, pasta[:OPTIONS] or slirp4netns[:OPTIONS]
    #[arg(long = "network", visible_alias = "net", value_name = "MODE")]
    pub(super) mode: Option<String>,
    /// Make a port of the container reachable under a port of the host
    #[arg(short, long, value_name = "[[ADDRESS:]PORT:]PORT[/PROTOCOL]")]
    publish: Vec<String>,
    /// Make every exposed port reachable under a free port of the host
    #[arg(short = 'P', long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    publish_all: bool,
    /// The container's host name
    #[arg(short = 'h', long)]
    pub(super) hostname: Option<String>,
    /// The rest of the container's full name
    #[arg(long, value_name = "DOMAIN")]
    domainname: Option<String>,
    /// Add a line to /etc/hosts; the address host-gateway is the host's
    #[arg(long, value_name = "HOST:ADDRESS")]
    add_host: Vec<String>,
    /// Keep the image's /etc/hosts
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    no_hosts: bool,
    /// Keep the image's /etc/hostname
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = false, action = ArgAction::Set, hide_possible_values = true, hide_default_value = true)]
    no_hostname: bool,
    /// Name servers; none keeps the image's /etc/resolv.conf
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Domains to search; a dot means none
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Resolver options
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// The container's address in a network of its own
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// The container's IPv6 address in a network of its own
    #[arg(long, value_name = "ADDRESS")]
    ip6: Option<String>,
    /// The container's hardware address in a network of its own
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
}

impl NetworkFlags {
    /// Put it into the container's options, with the network decided: the remark about that is said.
    ///
    /// # Errors
    /// For values that make no sense, flags that contradict one another, and networks that this host cannot give.
    pub(super) fn apply(
        &self,
        cx: &Context,
        host: &mut HostOptions,
        exposes: bool,
        remark: impl FnOnce(String),
    ) -> Result<(), Error> {
        let mode: NetworkMode = self.mode.as_deref().unwrap_or_default().parse()?;
        self.values(host)?;
        if matches!(mode, NetworkMode::Container(_)) {
            self.refuse_what_is_anothers(host, exposes)?;
        }
        if matches!(mode, NetworkMode::Host | NetworkMode::None) {
            for (given, name) in [
                (host.wishes.address.is_some(), "--ip"),
                (host.wishes.address6.is_some(), "--ip6"),
                (host.wishes.mac.is_some(), "--mac-address"),
            ] {
                if given {
                    return Err(Error::NetworkConflict(name));
                }
            }
        }
        let (mode, said) = network::decide(cx, mode, &host.wishes)?;
        host.network = mode;
        said.map(remark);
        Ok(())
    }

    fn values(&self, host: &mut HostOptions) -> Result<(), Error> {
        for text in &self.publish {
            let ports = crate::oci::parse_publish(text)
                .map_err(|error| values::bad("--publish", text, error.to_string()))?;
            host.wishes.ports.extend(ports);
        }
        host.wishes.publish_all = self.publish_all;
        let address = |flag: &str, text: &str| values::bad(flag, text, "it is not such an address");
        host.wishes.address = (self.ip.as_ref())
            .map(|text| text.parse::<Ipv4Addr>().map_err(|_| address("--ip", text)))
            .transpose()?;
        host.wishes.address6 = (self.ip6.as_ref())
            .map(|text| text.parse::<Ipv6Addr>().map_err(|_| address("--ip6", text)))
            .transpose()?;
        host.wishes.mac = (self.mac_address.as_ref())
            .map(|text| crate::ops::mac_address(text).ok_or_else(|| address("--mac-address", text)))
            .transpose()?;
        for text in &self.add_host {
            host.extra_hosts.push(values::extra_host(text)?);
        }
        for (flag, list) in [("--dns-search", &self.dns_search), ("--dns-option", &self.dns_option)] {
            if let Some(word) = list.iter().find(|word| !is_word(word)) {
                return Err(values::bad(flag, word, "it is not one word"));
            }
        }
        host.no_dns = self.dns.iter().any(|server| server == "none");
        if host.no_dns && (self.dns.len() > 1 || !self.dns_search.is_empty() || !self.dns_option.is_empty()) {
            return Err(Error::Conflict("--dns none", "--dns, --dns-search or --dns-option"));
        }
        host.dns = self.dns.iter().filter(|server| *server != "none").cloned().collect();
        if let Some(server) = host.dns.iter().find(|server| server.parse::<IpAddr>().is_err()) {
            return Err(values::bad("--dns", server, "it is not an IP address"));
        }
        if self.no_hosts && !self.add_host.is_empty() {
            return Err(Error::Conflict("--no-hosts", "--add-host"));
        }
        host.dns_search.clone_from(&self.dns_search);
        host.dns_options.clone_from(&self.dns_option);
        host.no_hosts = self.no_hosts;
        host.no_hostname = self.no_hostname;
        for (flag, name) in [("--hostname", &self.hostname), ("--domainname", &self.domainname)] {
            if let Some(name) =
                name.as_ref().filter(|name| !name.is_empty() && !is_word(name) || name.len() > 64)
            {
                return Err(values::bad(flag, name, "a name is one word of at most 64 letters"));
            }
        }
        host.domainname = self.domainname.clone().unwrap_or_default();
        Ok(())
    }

    /// Docker's refusals: what belongs to the container whose network is joined cannot be set here.
    fn refuse_what_is_anothers(&self, host: &HostOptions, exposes: bool) -> Result<(), Error> {
        for (given, name) in [
            (self.hostname.is_some(), "hostname"),
            (self.domainname.is_some(), "domainname"),
            (host.wishes.publishes(), "port publishing"),
            (exposes, "port exposing"),
            (!self.dns.is_empty() || !self.dns_search.is_empty() || !self.dns_option.is_empty(), "dns"),
            (!self.add_host.is_empty(), "custom host-to-IP mapping"),
            (host.wishes.mac.is_some(), "mac-address"),
            (host.wishes.address.is_some() || host.wishes.address6.is_some(), "--ip"),
        ] {
            if given {
                return Err(Error::NetworkConflict(name));
            }
        }
        Ok(())
    }
}

/// Nothing that could begin another line, or another word, of a file.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control())
}
