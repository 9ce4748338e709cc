//! Which addresses are told to the network, and which are taken from it. Pure.

use std::net::{IpAddr, SocketAddr};

use crate::base::Multiaddr;
use crate::base::near::{Subnet, is_near};

use super::packet;

/// A network interface that multicasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interface {
    pub(super) index: u32,
    pub(super) name: String,
    /// Its addresses, of both families.
    pub(super) subnets: Vec<Subnet>,
}

impl Interface {
    /// Whether a packet from there was sent by a machine of this link.
    pub(super) fn is_on_link(&self, source: IpAddr) -> bool {
        is_link_local(source) || self.subnets.iter().any(|subnet| subnet.contains(source))
    }

    /// Whether the address is one of its own.
    pub(super) fn has(&self, address: IpAddr) -> bool {
        self.subnets.iter().any(|subnet| subnet.address == address)
    }
}

/// The place to dial when `place` was told on this interface; `None` when it leads elsewhere than to the network around.
///
/// Loopback is believed from this very machine only: from elsewhere it would lead to whatever listens here.
pub(super) fn accept(
    place: SocketAddr,
    source: IpAddr,
    on: &Interface,
    all: &[Interface],
) -> Option<SocketAddr> {
    let ip = place.ip().to_canonical();
    if ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    if ip.is_loopback() && !all.iter().any(|interface| interface.has(source)) {
        return None;
    }
    let known = || all.iter().flat_map(|interface| &interface.subnets).any(|subnet| subnet.contains(ip));
    let mut place = Some(SocketAddr::new(ip, place.port())).filter(|_| is_near(ip) || known())?;
    if let SocketAddr::V6(v6) = &mut place
        && v6.ip().is_unicast_link_local()
    {
        v6.set_scope_id(on.index);
    }
    Some(place)
}

/// What is told on interface `on` of the addresses we listen at: those that may be reached from there, the likeliest
/// first, [`PLACES_TOLD`] at most.
pub(super) fn tell(listening: &[Multiaddr], on: &Interface, all: &[Interface]) -> Vec<SocketAddr> {
    let mut places: Vec<SocketAddr> = listening.iter().filter_map(packet::place).collect();
    places.retain(|place| {
        let ip = place.ip();
        let near = is_near(ip) || all.iter().any(|interface| interface.has(ip));
        let elsewhere = is_link_local(ip) && ip.is_ipv6() && !on.has(ip);
        near && !ip.is_loopback() && !elsewhere
    });
    places.sort_by_key(|place| {
        let ip = place.ip();
        (is_link_local(ip), !on.has(ip), *place)
    });
    places.dedup();
    places.truncate(PLACES_TOLD);
    places
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// Most addresses told: more than a machine with a few networks has, and four packets at most.
const PLACES_TOLD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, subnets: &[(&str, u8)]) -> Interface {
        let subnets =
            subnets.iter().map(|(ip, prefix)| Subnet { address: ip.parse().unwrap(), prefix: *prefix });
        Interface { index, name: format!("eth{index}"), subnets: subnets.collect() }
    }

    fn two() -> Vec<Interface> {
        vec![
            interface(2, &[("192.168.1.5", 24), ("fe80::5", 64), ("2001:db8:7::5", 64)]),
            interface(3, &[("10.0.0.5", 8), ("fe80::6", 64)]),
        ]
    }

    #[test]
    fn what_is_believed() {
        let all = two();
        let rows = [
            ("192.168.1.9:4001", "192.168.1.9", Some("192.168.1.9:4001")),
            ("10.9.9.9:4001", "192.168.1.9", Some("10.9.9.9:4001")),
            ("[fe80::9]:4001", "fe80::9", Some("[fe80::9%2]:4001")),
            ("[fd00::9]:4001", "fe80::9", Some("[fd00::9]:4001")),
            ("[2001:db8:7::9]:4001", "fe80::9", Some("[2001:db8:7::9]:4001")),
            ("[2001:db8:8::9]:4001", "fe80::9", None),
            ("[::ffff:192.168.1.9]:4001", "fe80::9", Some("192.168.1.9:4001")),
            ("[::ffff:127.0.0.1]:4001", "fe80::9", None),
            ("8.8.8.8:4001", "192.168.1.9", None),
            ("127.0.0.1:4001", "192.168.1.9", None),
            ("127.0.0.1:4001", "10.0.0.5", Some("127.0.0.1:4001")),
            ("[::1]:4001", "fe80::9", None),
            ("0.0.0.0:4001", "192.168.1.9", None),
            ("[::]:4001", "fe80::9", None),
            ("224.0.0.251:5353", "192.168.1.9", None),
            ("[ff02::fb]:5353", "fe80::9", None),
        ];
        for (place, source, want) in rows {
            let got = accept(place.parse().unwrap(), source.parse().unwrap(), &all[0], &all);
            assert_eq!(got, want.map(|want| want.parse().unwrap()), "{place} from {source}");
        }
    }

    #[test]
    fn what_is_told() {
        let all = two();
        let listening = [
            "/ip6/fe80::5/udp/4001/quic-v1",
            "/ip6/fe80::6/udp/4001/quic-v1",
            "/ip4/10.0.0.5/udp/4001/quic-v1",
            "/ip4/10.0.0.5/udp/4001/quic-v1",
            "/ip4/127.0.0.1/udp/4001/quic-v1",
            "/ip4/0.0.0.0/udp/4001/quic-v1",
            "/ip4/192.168.1.5/udp/4001/quic-v1",
            "/ip4/192.168.1.5/tcp/4001",
            "/ip4/192.168.1.5/udp/4001/quic-v1/webtransport",
            "/ip4/8.8.8.8/udp/4001/quic-v1",
            "/ip6/2001:db8:7::5/udp/4001/quic-v1",
        ];
        let listening: Vec<Multiaddr> = listening.iter().map(|text| text.parse().unwrap()).collect();
        let told = |on: usize| -> Vec<String> {
            tell(&listening, &all[on], &all).iter().map(ToString::to_string).collect()
        };
        assert_eq!(told(0), ["192.168.1.5:4001", "[2001:db8:7::5]:4001", "10.0.0.5:4001", "[fe80::5]:4001"]);
        assert_eq!(told(1), ["10.0.0.5:4001", "192.168.1.5:4001", "[2001:db8:7::5]:4001", "[fe80::6]:4001"]);
        let many: Vec<Multiaddr> =
            (1..99).map(|n| format!("/ip4/10.0.0.{n}/udp/1/quic-v1").parse().unwrap()).collect();
        assert_eq!(tell(&many, &all[1], &all).len(), PLACES_TOLD);
    }

    #[test]
    fn who_is_on_the_link() {
        let on = &two()[0];
        let rows = [
            ("192.168.1.77", true),
            ("169.254.3.4", true),
            ("fe80::1", true),
            ("2001:db8:7::1", true),
            ("10.0.0.7", false),
            ("8.8.8.8", false),
            ("2001:db8:8::1", false),
        ];
        for (source, is) in rows {
            assert_eq!(on.is_on_link(source.parse().unwrap()), is, "{source}");
        }
    }
}
