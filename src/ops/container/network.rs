//! The network of a container: what the user asked for becomes something that this host can do, and then that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::target::Target;
use super::{ContainerSpec, Error, values};
use crate::context::Context;
use crate::oci::{Protocol, Publish, Published};
use crate::ops::create::spec_of;
use crate::runtime::network::{self, Attachment, Helper, Join, Wanted};
use crate::storage::{ContainerDir, Store};

/// `--network`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// Nothing was asked for, and there was no helper for a network of its own: the host's, with a host name of its own.
    #[default]
    Default,
    /// The host's.
    Host,
    /// Only `lo`.
    None,
    /// Its own, by whichever helper there is.
    Private,
    /// Its own, by pasta with these options.
    Pasta(Vec<String>),
    /// Its own, by slirp4netns with these options.
    Slirp4netns(Vec<String>),
    /// That of a running container: its name as typed, and its id once the container is made.
    Container(String),
}

impl FromStr for NetworkMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (kind, options) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        let list = || {
            let words = options.unwrap_or_default().split(',').filter(|word| !word.is_empty());
            words.map(str::to_owned).collect()
        };
        match (kind, options) {
            ("" | "default", None) => Ok(Self::Default),
            ("host", None) => Ok(Self::Host),
            ("none", None) => Ok(Self::None),
            // Docker's and podman's words for a network of its own.
            ("private" | "bridge" | "podman" | "nat", None) => Ok(Self::Private),
            ("pasta", _) => Ok(Self::Pasta(list())),
            ("slirp4netns", _) => Ok(Self::Slirp4netns(list())),
            ("container", Some(name)) if !name.is_empty() => Ok(Self::Container(name.into())),
            ("container", _) => Err(values::bad("--network", text, "expected container:NAME")),
            _ => Err(Error::NoSuchNetwork(text.into())),
        }
    }
}

impl NetworkMode {
    /// Whether a helper makes it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        matches!(self, Self::Private | Self::Pasta(_) | Self::Slirp4netns(_))
    }

    /// As docker names the network: `bridge` is what it calls one of the container's own.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Default | Self::Host => "host".into(),
            Self::None => "none".into(),
            Self::Private | Self::Pasta(_) | Self::Slirp4netns(_) => "bridge".into(),
            Self::Container(id) => format!("container:{id}"),
        }
    }

    /// Whether the filter word `text` means it.
    #[must_use]
    pub fn is_called(&self, text: &str) -> bool {
        let own = match self {
            Self::Pasta(_) => "pasta",
            Self::Slirp4netns(_) => "slirp4netns",
            _ => "private",
        };
        text == self.name() || (self.is_private() && (text == "private" || text == own))
    }
}

/// What is asked of a network of the container's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wishes {
    /// `-p`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Publish>,
    /// `-P`
    pub publish_all: bool,
    /// `--ip`
    pub address: Option<Ipv4Addr>,
    /// `--ip6`
    pub address6: Option<Ipv6Addr>,
    /// `--mac-address`
    pub mac: Option<String>,
}

impl Wishes {
    /// Whether ports are to be reachable from outside.
    #[must_use]
    pub fn publishes(&self) -> bool {
        self.publish_all || !self.ports.is_empty()
    }
}

/// The ports that lead into the container: those that were named, and with `-P` those that its config exposes and
/// nobody named.
#[must_use]
pub fn ports(spec: &ContainerSpec) -> Vec<Publish> {
    let wishes = &spec.host.wishes;
    let mut all: Vec<Publish> = Vec::new();
    for port in &wishes.ports {
        if !all.contains(port) {
            all.push(port.clone());
        }
    }
    if wishes.publish_all {
        for key in spec.config.exposed_ports.keys() {
            let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
            let (Ok(container_port), Ok(protocol)) = (port.parse::<u16>(), protocol.parse::<Protocol>())
            else {
                continue;
            };
            if container_port != 0
                && !all.iter().any(|have| have.container_port == container_port && have.protocol == protocol)
            {
                all.push(Publish { host_ip: None, host_ports: None, container_port, protocol });
            }
        }
    }
    all
}

/// Decide what a new container gets, so that what it got is not another the next time; the second is a remark.
///
/// # Errors
/// When a network of its own is asked for and cannot be had.
pub fn decide(
    cx: &Context,
    mode: NetworkMode,
    wishes: &Wishes,
) -> Result<(NetworkMode, Option<String>), Error> {
    let wants_own =
        wishes.publishes() || wishes.address.is_some() || wishes.address6.is_some() || wishes.mac.is_some();
    match mode {
        NetworkMode::Default if wants_own => {
            usable(cx, &NetworkMode::Private)?;
            Ok((NetworkMode::Private, None))
        }
        NetworkMode::Default => match usable(cx, &NetworkMode::Private) {
            Ok(_) => Ok((NetworkMode::Private, None)),
            Err(error) => Ok((
                NetworkMode::Default,
                Some(format!(
                    "using the host's network, as {}; --network host or none says so without this line",
                    why(&error)
                )),
            )),
        },
        own if own.is_private() => {
            usable(cx, &own)?;
            Ok((own, None))
        }
        // As in docker: said for the host's network; with none, nobody can expect a port.
        NetworkMode::Host if wishes.publishes() => {
            Ok((NetworkMode::Host, Some("published ports are discarded when using host network mode".into())))
        }
        NetworkMode::None if wishes.publishes() => {
            Ok((NetworkMode::None, Some("published ports are discarded without a network".into())))
        }
        other => Ok((other, None)),
    }
}

/// The helper that a container would get here, for `doctor`.
///
/// # Errors
/// [`Error::NoNetworkHelper`] and [`Error::NoTun`].
pub fn available(cx: &Context) -> Result<&'static str, Error> {
    Ok(usable(cx, &NetworkMode::Private)?.0.name())
}

fn why(error: &Error) -> String {
    match error {
        Error::NoNetworkHelper(names) => format!("{names} is not installed"),
        Error::NoTun(source) => format!("{} cannot be opened ({source})", network::TUN),
        other => other.to_string(),
    }
}

/// The helper for a mode, and where it is.
///
/// # Errors
/// [`Error::NoNetworkHelper`] and [`Error::NoTun`].
fn usable(cx: &Context, mode: &NetworkMode) -> Result<(Helper, PathBuf), Error> {
    let path = cx.path();
    let find = |helper: Helper| helper.find(&path).map(|program| (helper, program));
    let missing = |names: &'static str| Error::NoNetworkHelper(names);
    let found = match mode {
        NetworkMode::Pasta(_) => find(Helper::Pasta).ok_or_else(|| missing("pasta"))?,
        NetworkMode::Slirp4netns(_) => find(Helper::Slirp).ok_or_else(|| missing("slirp4netns"))?,
        // Pasta takes after the interface that leads out; a host without one is not for it.
        _ if !network::has_default_route() => find(Helper::Slirp)
            .or_else(|| find(Helper::Pasta))
            .ok_or_else(|| missing("neither pasta nor slirp4netns"))?,
        _ => find(Helper::Pasta)
            .or_else(|| find(Helper::Slirp))
            .ok_or_else(|| missing("neither pasta nor slirp4netns"))?,
    };
    network::tun().map_err(Error::NoTun)?;
    Ok(found)
}

/// How a container that is about to start comes to its network.
#[derive(Debug)]
pub enum Wiring {
    /// By its namespaces alone.
    Nothing,
    /// Into another's.
    Joined(Arc<Join>, OwnedFd),
    /// By a helper.
    Helper {
        /// Which.
        helper: Helper,
        /// Its program.
        program: PathBuf,
        /// The user.
        uid: u32,
        /// The ports that lead into the container.
        ports: Vec<Published>,
        /// Sockets that keep others from these ports.
        held: Vec<OwnedFd>,
    },
}

impl Wiring {
    /// Find out, before anything is started, and keep others from the ports.
    ///
    /// # Errors
    /// As [`decide`], when the container to join does not run, or when a port is taken.
    pub fn find(
        cx: &Context,
        store: &Store,
        dir: &ContainerDir,
        spec: &ContainerSpec,
    ) -> Result<Self, Error> {
        match &spec.host.network {
            NetworkMode::Container(id) => Self::join(store, id),
            mode if mode.is_private() => {
                let (helper, program) = usable(cx, mode)?;
                let before = dir.state().unwrap_or_default().ports;
                let (ports, mut held) =
                    network::reserve(&ports(spec), &before).map_err(crate::runtime::Error::from)?;
                if helper == Helper::Slirp {
                    // It does not share ports of datagrams.
                    let mut kept = ports.iter().map(|port| port.protocol == Protocol::Tcp);
                    held.retain(|_| kept.next().unwrap_or(false));
                }
                Ok(Self::Helper { helper, program, uid: cx.uid, ports, held })
            }
            _ => Ok(Self::Nothing),
        }
    }

    fn join(store: &Store, id: &str) -> Result<Self, Error> {
        let dir = store.find_container(id)?;
        let target = Target::of(&dir).map_err(|_| Error::JoinStopped(dir.record.name.clone()))?;
        let identity = |who: &str, name: &str| {
            rustix::fs::stat(format!("/proc/{who}/ns/{name}")).map(|stat| (stat.st_dev, stat.st_ino)).ok()
        };
        let pid = target.pid().to_string();
        if identity(&pid, "net").is_some() && identity(&pid, "net") == identity("self", "net") {
            return Ok(Self::Nothing);
        }
        if identity(&pid, "user").is_none() || identity(&pid, "user") != identity("self", "user") {
            return Err(Error::OtherNamespace(dir.record.name));
        }
        let join = Join::of_process(target.pid())?;
        Ok(Self::Joined(join, target.into_pidfd()))
    }

    /// Descriptors that a process needs that goes on with this.
    #[must_use]
    pub fn descriptors(&self) -> Vec<i32> {
        match self {
            Self::Joined(join, pidfd) => vec![join.descriptor(), pidfd.as_raw_fd()],
            Self::Helper { held, .. } => held.iter().map(AsRawFd::as_raw_fd).collect(),
            Self::Nothing => Vec::new(),
        }
    }

    /// Begin to set it up.
    ///
    /// # Errors
    /// When the helper cannot be started.
    pub fn connect(&mut self, spec: &ContainerSpec, dir: &ContainerDir) -> Result<Connected, Error> {
        let (helper, program, uid, ports, held) = match self {
            Self::Nothing => return Ok(Connected::default()),
            Self::Joined(join, _) => return Ok(Connected { join: Some(join.clone()), ..Default::default() }),
            Self::Helper { helper, program, uid, ports, held } => {
                (*helper, program, *uid, std::mem::take(ports), std::mem::take(held))
            }
        };
        let options: &[String] = match &spec.host.network {
            NetworkMode::Pasta(options) | NetworkMode::Slirp4netns(options) => options,
            _ => &[],
        };
        let wishes = &spec.host.wishes;
        let wanted = Wanted {
            helper,
            program,
            options,
            ports: &ports,
            address: wishes.address,
            address6: wishes.address6,
            mac: wishes.mac.as_deref(),
            scratch: Path::new(&dir.path),
            uid,
        };
        let attachment = Attachment::start(&wanted).map_err(crate::runtime::Error::from)?;
        Ok(Connected { join: Some(attachment.join()), attachment: Some(attachment), ports, held })
    }
}

/// A network that a container is about to have. The helper goes when this is dropped.
#[derive(Debug, Default)]
pub struct Connected {
    /// For the plan.
    pub join: Option<Arc<Join>>,
    /// The ports that lead into it.
    pub ports: Vec<Published>,
    attachment: Option<Attachment>,
    held: Vec<OwnedFd>,
}

impl Connected {
    /// The program runs, so the helper listens: nobody need be kept from the ports any more.
    pub fn settled(&mut self) {
        self.held.clear();
    }

    /// The reason why the program could not be started, if it lies here; else the one that is known.
    pub fn reason(&mut self, other: crate::runtime::Error) -> Error {
        let own = self.attachment.as_mut().and_then(Attachment::failure);
        own.map_or(other, Into::into).into()
    }
}

/// The container whose network, names and resolver another has; itself when those are its own.
///
/// # Errors
/// When it is gone.
pub fn name_giver(store: &Store, spec: &ContainerSpec) -> Result<Option<(ContainerSpec, String)>, Error> {
    let mut giver = None;
    let mut mode = spec.host.network.clone();
    // A container joins one that was there before it, so this ends; a damaged record must not keep it going.
    for _ in 0..64 {
        let NetworkMode::Container(id) = mode else { break };
        let dir = store.find_container(&id)?;
        let spec = spec_of(&dir)?;
        mode = spec.host.network.clone();
        giver = Some((spec, dir.record.id));
    }
    Ok(giver)
}

/// The container's addresses, as `inspect` shows them: none where the network is not its own.
#[must_use]
pub fn address(spec: &ContainerSpec) -> Option<Ipv4Addr> {
    match &spec.host.network {
        NetworkMode::Pasta(options) => {
            let mut words = options.iter();
            let given = std::iter::from_fn(|| match words.next()?.as_str() {
                "-a" | "--address" => Some(words.next().cloned()),
                word => Some(word.strip_prefix("--address=").map(str::to_owned)),
            });
            let given: Vec<String> = given.flatten().collect();
            if given.is_empty() {
                return Some(spec.host.wishes.address.unwrap_or(network::ADDRESS));
            }
            given.iter().find_map(|text| text.parse().ok())
        }
        mode if mode.is_private() => Some(spec.host.wishes.address.unwrap_or(network::ADDRESS)),
        _ => None,
    }
}

/// What `host-gateway` stands for: an address under which the host can be reached from the container.
///
/// # Errors
/// When the host has no address but loopback.
pub fn host_gateway(mode: &NetworkMode) -> Result<IpAddr, Error> {
    if mode.is_private() {
        return network::host_address().ok_or(Error::NoHostAddress);
    }
    // With the host's network the host is the container itself.
    Ok(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(text: &str) -> NetworkMode {
        text.parse().unwrap()
    }

    #[test]
    fn modes_are_those_of_docker_and_podman() {
        assert_eq!(mode("default"), NetworkMode::Default);
        assert_eq!(mode("bridge"), NetworkMode::Private);
        assert_eq!(mode("pasta"), NetworkMode::Pasta(Vec::new()));
        assert_eq!(mode("pasta:--mtu,1500"), NetworkMode::Pasta(vec!["--mtu".into(), "1500".into()]));
        assert_eq!(mode("container:web"), NetworkMode::Container("web".into()));
        for bad in ["mynet", "container:", "container", "host:x", "none:1", "bridge:ip=1.2.3.4"] {
            assert!(bad.parse::<NetworkMode>().is_err(), "{bad}");
        }
        assert!(mode("pasta").is_called("bridge") && mode("pasta").is_called("private"));
        assert!(!mode("host").is_called("private") && mode("host").is_called("host"));
    }

    #[test]
    fn modes_are_stored_as_they_were() {
        for (text, stored) in [
            ("host", "\"host\""),
            ("none", "\"none\""),
            ("default", "\"default\""),
            ("pasta:-4", r#"{"pasta":["-4"]}"#),
            ("container:a", r#"{"container":"a"}"#),
        ] {
            assert_eq!(serde_json::to_string(&mode(text)).unwrap(), stored);
            assert_eq!(serde_json::from_str::<NetworkMode>(stored).unwrap(), mode(text));
        }
    }

    #[test]
    fn publish_all_adds_what_is_exposed_and_not_named() {
        let mut spec = ContainerSpec::default();
        for key in ["80/tcp", "53/udp", "x;rm", "0/tcp", "9/sctp"] {
            spec.config.exposed_ports.insert(key.into(), Default::default());
        }
        spec.host.wishes.ports = crate::oci::parse_publish("8080:80").unwrap();
        assert_eq!(ports(&spec).len(), 1);
        spec.host.wishes.publish_all = true;
        let keys: Vec<String> = ports(&spec).iter().map(Publish::key).collect();
        assert_eq!(keys, ["80/tcp", "53/udp"]);
    }

    #[test]
    fn addresses_follow_the_options() {
        let mut spec = ContainerSpec::default();
        assert_eq!(address(&spec), None);
        spec.host.network = mode("private");
        assert_eq!(address(&spec), Some(network::ADDRESS));
        spec.host.network = mode("pasta:-a,10.9.0.2,-4");
        assert_eq!(address(&spec), Some(Ipv4Addr::new(10, 9, 0, 2)));
        spec.host.network = mode("pasta:--mtu,1500");
        assert_eq!(address(&spec), Some(network::ADDRESS));
    }
}
