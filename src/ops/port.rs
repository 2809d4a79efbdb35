//! `port`: how the ports of a running container are reached.

use super::container::Error;
use crate::oci::{Protocol, Published};
use crate::storage::Store;

/// The published ports of a running container, by its ports; with `wanted` (`80` or `80/udp`) only that one's.
///
/// # Errors
/// [`Error::NotPublished`] when the wanted port leads nowhere, [`Error::BadValue`] when it is none.
pub fn port(store: &Store, text: &str, wanted: Option<&str>) -> Result<Vec<Published>, Error> {
    let dir = store.find_container(text)?;
    let state = dir.state()?;
    let mut ports = if state.is_running() { state.ports } else { Vec::new() };
    ports.sort_by_key(|port| (port.container_port, port.protocol, port.host_ip, port.host_port));
    let Some(wanted) = wanted else { return Ok(ports) };
    let bad = || Error::BadValue {
        flag: "the port".into(),
        value: wanted.into(),
        why: "expected PORT[/tcp|udp]".into(),
    };
    let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
    let number: u16 = number.parse().map_err(|_| bad())?;
    let protocol: Protocol = protocol.parse().map_err(|_| bad())?;
    ports.retain(|port| port.container_port == number && port.protocol == protocol);
    if ports.is_empty() {
        let container = dir.record.name;
        return Err(Error::NotPublished { port: format!("{number}/{protocol}"), container });
    }
    Ok(ports)
}
