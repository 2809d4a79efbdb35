use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

use super::address::tidy;
use super::*;
use crate::oci::{Protocol, Publish};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn publish(host_ports: Option<(u16, u16)>, protocol: Protocol) -> Publish {
    Publish { host_ip: Some(LOCAL), host_ports, container_port: 80, protocol }
}

#[test]
fn a_port_that_somebody_has_is_refused_and_one_of_a_range_is_found() {
    let taken = TcpListener::bind((LOCAL, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let error = reserve(&[publish(Some((port, port)), Protocol::Tcp)], &[]).unwrap_err();
    assert!(
        matches!(&error, Error::Port { port: p, source, .. }
        if *p == port && source.kind() == std::io::ErrorKind::AddrInUse),
        "{error}"
    );
    let (got, _held) =
        reserve(&[publish(Some((port, port.saturating_add(20))), Protocol::Tcp)], &[]).unwrap();
    assert_ne!(got[0].host_port, port);
    let taken = UdpSocket::bind((LOCAL, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    assert!(reserve(&[publish(Some((port, port)), Protocol::Udp)], &[]).is_err());
}

#[test]
fn who_shares_may_listen_on_a_reserved_port() {
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let (got, held) = reserve(&[publish(None, protocol)], &[]).unwrap();
        assert_ne!(got[0].host_port, 0);
        // The same again, from the record of the last run.
        drop(held);
        let (again, _held) = reserve(&[publish(None, protocol)], &got).unwrap();
        assert_eq!(again, got);
        if protocol == Protocol::Tcp {
            // The standard library's listeners share their address.
            TcpListener::bind((LOCAL, got[0].host_port)).unwrap();
        }
    }
}

#[test]
fn hardware_addresses() {
    assert_eq!(mac_address("02:42:AC:11:00:02").as_deref(), Some("02:42:ac:11:00:02"));
    assert_eq!(mac_address("02-42-ac-11-00-02").as_deref(), Some("02:42:ac:11:00:02"));
    for bad in
        ["", "02:42", "01:00:5e:00:00:01", "02:42:ac:11:00:0g", "02:42:ac:11:00:02:03", "+2:42:ac:11:00:02"]
    {
        assert!(mac_address(bad).is_none(), "{bad}");
    }
}

#[test]
fn what_a_helper_says_is_tidied() {
    assert_eq!(tidy("Failed to send 51 bytes to syslog\nNo such device\n\n"), "No such device");
    assert_eq!(tidy(""), "it ended without a word");
}
