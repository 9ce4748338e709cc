//! Multiaddrs ↔ socket addresses: `/ip4/…/udp/…/quic-v1`, the same with `/ip6`, and `/ip6zone/NAME` before it for
//! link-local addresses, which mean nothing without their interface.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netdevice, socket_with};

use crate::base::{Multiaddr, PeerId, Protocol};

/// The UDP address and the peer that a QUIC multiaddr names; else what is wrong with it.
///
/// Names are never resolved: a swarm's addresses come from strangers, and a name server is none of their business.
pub fn socket_of(address: &Multiaddr) -> Result<(SocketAddr, Option<PeerId>), &'static str> {
    let mut parts = address.iter().peekable();
    let mut scope = 0;
    if let Some(Protocol::Ip6zone(name)) = parts.peek() {
        scope = interface_index(name).ok_or("there is no such interface")?;
        parts.next();
    }
    let ip = match parts.next() {
        Some(Protocol::Ip4(_)) if scope != 0 => return Err("an interface belongs to an IPv6 address only"),
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) if scope == 0 && ip.is_unicast_link_local() => {
            return Err("a link-local address needs its interface before it (/ip6zone/NAME)");
        }
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)) => {
            return Err("names are not resolved here, only IP addresses are taken");
        }
        _ => return Err("it does not begin with an IP address"),
    };
    let Some(Protocol::Udp(port)) = parts.next() else {
        return Err("the swarm speaks QUIC over UDP only");
    };
    match parts.next() {
        Some(Protocol::QuicV1) => {}
        _ => return Err("the swarm speaks /quic-v1 only"),
    }
    let peer = match parts.next() {
        None => None,
        Some(Protocol::P2p(peer)) => Some(peer),
        Some(Protocol::P2pCircuit) => return Err("relays are not supported"),
        Some(_) => return Err("there is something unknown behind /quic-v1"),
    };
    if parts.next().is_some() {
        return Err("there is something unknown behind the peer id");
    }
    let socket = match ip {
        IpAddr::V4(_) => SocketAddr::new(ip, port),
        IpAddr::V6(ip) => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, scope)),
    };
    Ok((socket, peer))
}

/// The multiaddr of a UDP address, without a peer id.
pub(super) fn multiaddr_of(socket: SocketAddr) -> Multiaddr {
    let mut address = Multiaddr::empty();
    if let SocketAddr::V6(six) = socket
        && six.scope_id() != 0
        && let Some(name) = interface_name(six.scope_id())
    {
        address.push(Protocol::Ip6zone(name.into()));
    }
    address.with(socket.ip().into()).with(Protocol::Udp(socket.port())).with(Protocol::QuicV1)
}

/// The IP address in a multiaddr, wherever an interface's name stands before it.
pub fn ip_of(address: &Multiaddr) -> Option<IpAddr> {
    address.iter().find_map(|part| match part {
        Protocol::Ip4(ip) => Some(IpAddr::V4(ip)),
        Protocol::Ip6(ip) => Some(IpAddr::V6(ip)),
        _ => None,
    })
}

/// The address without a peer id at its end.
pub fn without_peer(address: &Multiaddr) -> Multiaddr {
    let mut bare = address.clone();
    if matches!(bare.iter().last(), Some(Protocol::P2p(_))) {
        bare.pop();
    }
    bare
}

fn interface_index(name: &str) -> Option<u32> {
    netdevice::name_to_index(any_socket()?, name).ok()
}

fn interface_name(index: u32) -> Option<String> {
    netdevice::index_to_name(any_socket()?, index).ok()
}

/// The kernel answers questions about interfaces through any socket.
fn any_socket() -> Option<rustix::fd::OwnedFd> {
    socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let peer = crate::swarm::Identity::fresh().peer_id();
        let rows: &[(String, Result<&str, &str>)] = &[
            ("/ip4/10.0.0.1/udp/4001/quic-v1".into(), Ok("10.0.0.1:4001")),
            (format!("/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{peer}"), Ok("10.0.0.1:4001")),
            ("/ip6/fd00::1/udp/1/quic-v1".into(), Ok("[fd00::1]:1")),
            ("/ip6zone/lo/ip6/fe80::1/udp/1/quic-v1".into(), Ok("[fe80::1%1]:1")),
            ("/ip6zone/none-such/ip6/fe80::1/udp/1/quic-v1".into(), Err("no such interface")),
            ("/ip6/fe80::1/udp/1/quic-v1".into(), Err("needs its interface")),
            ("/ip6zone/lo/ip4/10.0.0.1/udp/1/quic-v1".into(), Err("IPv6 address only")),
            ("/dns4/peer.example.org/udp/1/quic-v1".into(), Err("names are not resolved")),
            ("/dnsaddr/example.org".into(), Err("names are not resolved")),
            ("/ip4/10.0.0.1/tcp/4001".into(), Err("UDP only")),
            ("/ip4/10.0.0.1/udp/4001".into(), Err("/quic-v1 only")),
            ("/ip4/10.0.0.1/udp/4001/quic".into(), Err("/quic-v1 only")),
            ("/ip4/10.0.0.1/udp/4001/quic-v1/webtransport".into(), Err("unknown behind /quic-v1")),
            ("/ip4/10.0.0.1/udp/4001/quic-v1/p2p-circuit".into(), Err("relays")),
            (
                format!("/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{peer}/p2p-circuit"),
                Err("unknown behind the peer"),
            ),
            ("/memory/1".into(), Err("does not begin")),
            (String::new(), Err("does not begin")),
        ];
        for (text, want) in rows {
            let address: Multiaddr = text.parse().unwrap();
            match (socket_of(&address), want) {
                (Ok((socket, found)), Ok(want)) => {
                    assert_eq!(socket.to_string(), *want);
                    assert_eq!(found.is_some(), text.contains("p2p"));
                    assert_eq!(multiaddr_of(socket), without_peer(&address), "and back");
                    assert_eq!(ip_of(&address), Some(socket.ip()));
                }
                (Err(said), Err(want)) => assert!(said.contains(want), "{text}: {said}"),
                (said, _) => panic!("{text}: {said:?}"),
            }
        }
    }
}
