//! Which of the addresses that a stranger advertises are dialled.

use std::net::IpAddr;

use crate::base::reach::{Region, region};
use crate::base::{Multiaddr, PeerId, Protocol};

/// Most addresses of one node: a machine with several networks, both families, has under ten.
pub const MOST_ADDRESSES: usize = 16;

/// Longest address in bytes.
pub const MOST_ADDRESS_BYTES: usize = 256;

/// Where a node's owner lets it dial when a room's member says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allow {
    /// The public internet.
    #[default]
    Global,
    /// Private networks, this link and this machine, too.
    Near,
}

/// The address to dial, if it is one: `/ip4|ip6/…/udp/…/quic-v1`, perhaps with the advertiser's own peer id behind it.
///
/// Names are never resolved, and clouds' metadata services never dialled, whatever is allowed.
pub fn dialable(address: &str, peer: &PeerId, allow: Allow) -> Result<Multiaddr, Refusal> {
    let address: Multiaddr = address.parse().map_err(|_| Refusal::Unreadable)?;
    let mut parts = address.iter();
    let ip = match parts.next() {
        Some(Protocol::Ip4(ip)) => IpAddr::V4(ip),
        Some(Protocol::Ip6(ip)) => IpAddr::V6(ip),
        Some(Protocol::Dns(_) | Protocol::Dns4(_) | Protocol::Dns6(_) | Protocol::Dnsaddr(_)) => {
            return Err(Refusal::Name);
        }
        _ => return Err(Refusal::NotQuic),
    };
    let rest: Vec<_> = parts.collect();
    match rest.as_slice() {
        [Protocol::Udp(0), ..] => return Err(Refusal::NotQuic),
        [Protocol::Udp(_), Protocol::QuicV1] => {}
        [Protocol::Udp(_), Protocol::QuicV1, Protocol::P2p(named)] if named == peer => {}
        [Protocol::Udp(_), Protocol::QuicV1, Protocol::P2p(_)] => return Err(Refusal::OtherPeer),
        _ => return Err(Refusal::NotQuic),
    }
    match region(ip) {
        Region::Global => Ok(address),
        // Without its interface it leads nowhere.
        Region::LinkLocal if ip.is_ipv6() => Err(Refusal::Leads(Region::LinkLocal)),
        Region::Private | Region::LinkLocal | Region::Loopback if allow == Allow::Near => Ok(address),
        elsewhere => Err(Refusal::Leads(elsewhere)),
    }
}

/// Why an address is not dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No multiaddr, or of protocols that are unknown.
    #[error("no multiaddr that dpm knows")]
    Unreadable,
    /// TCP, WebTransport, a relay.
    #[error("not an IP address with /udp/PORT/quic-v1")]
    NotQuic,
    /// A name server is no business of a stranger's.
    #[error("a name, which is not resolved")]
    Name,
    /// It names another peer than the advertiser.
    #[error("the address of another peer")]
    OtherPeer,
    /// It leads to a place that is not allowed.
    #[error("it leads to {}", place(*.0))]
    Leads(Region),
}

fn place(region: Region) -> &'static str {
    match region {
        Region::Global => "the internet",
        Region::Private => "a private network",
        Region::LinkLocal => "a link",
        Region::Loopback => "this machine",
        Region::Metadata => "a cloud's metadata service",
        Region::Nowhere => "no one host",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let (us, other) = (PeerId::random(), PeerId::random());
        let ok = Ok(());
        let leads = |region| Err(Refusal::Leads(region));
        let rows = [
            ("/ip4/1.1.1.1/udp/4001/quic-v1".into(), ok, ok),
            ("/ip6/2606:4700::1/udp/4001/quic-v1".into(), ok, ok),
            (format!("/ip4/1.1.1.1/udp/4001/quic-v1/p2p/{us}"), ok, ok),
            (
                format!("/ip4/1.1.1.1/udp/4001/quic-v1/p2p/{other}"),
                Err(Refusal::OtherPeer),
                Err(Refusal::OtherPeer),
            ),
            ("/ip4/10.0.0.1/udp/4001/quic-v1".into(), leads(Region::Private), ok),
            ("/ip4/127.0.0.1/udp/4001/quic-v1".into(), leads(Region::Loopback), ok),
            ("/ip6/::1/udp/4001/quic-v1".into(), leads(Region::Loopback), ok),
            ("/ip6/fd00::1/udp/4001/quic-v1".into(), leads(Region::Private), ok),
            ("/ip4/169.254.7.7/udp/4001/quic-v1".into(), leads(Region::LinkLocal), ok),
            ("/ip6/fe80::1/udp/1/quic-v1".into(), leads(Region::LinkLocal), leads(Region::LinkLocal)),
            ("/ip4/169.254.169.254/udp/80/quic-v1".into(), leads(Region::Metadata), leads(Region::Metadata)),
            ("/ip6/fd00:ec2::254/udp/80/quic-v1".into(), leads(Region::Metadata), leads(Region::Metadata)),
            ("/ip4/224.0.0.251/udp/1/quic-v1".into(), leads(Region::Nowhere), leads(Region::Nowhere)),
            ("/ip4/0.0.0.0/udp/1/quic-v1".into(), leads(Region::Nowhere), leads(Region::Nowhere)),
            ("/dns4/peer.example.org/udp/1/quic-v1".into(), Err(Refusal::Name), Err(Refusal::Name)),
            ("/ip4/1.1.1.1/tcp/4001".into(), Err(Refusal::NotQuic), Err(Refusal::NotQuic)),
            ("/ip4/1.1.1.1/udp/0/quic-v1".into(), Err(Refusal::NotQuic), Err(Refusal::NotQuic)),
            ("/ip4/1.1.1.1/udp/1/quic-v1/p2p-circuit".into(), Err(Refusal::NotQuic), Err(Refusal::NotQuic)),
            ("/ip6zone/lo/ip6/fe80::1/udp/1/quic-v1".into(), Err(Refusal::NotQuic), Err(Refusal::NotQuic)),
            ("no address".into(), Err(Refusal::Unreadable), Err(Refusal::Unreadable)),
            (String::new(), Err(Refusal::NotQuic), Err(Refusal::NotQuic)),
        ];
        for (text, global, near) in rows {
            assert_eq!(dialable(&text, &us, Allow::Global).map(drop), global, "{text}");
            assert_eq!(dialable(&text, &us, Allow::Near).map(drop), near, "{text}");
        }
    }
}
