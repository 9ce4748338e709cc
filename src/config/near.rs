//! What dpm is told of its neighbours.

use serde::Deserialize;

use crate::base::{Multiaddr, PeerId, Protocol};

/// The swarm, and what the LAN sees of this box.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// Whether there is a swarm at all.
    pub swarm: bool,
    /// Whether HTTP is for the LAN too, and is published there.
    pub lan: bool,
    /// Where the swarm listens; empty for UDP 4001 on every address, or another port when that is taken.
    pub listen: Vec<Multiaddr>,
    /// Peers named by hand, each with its id (`/p2p/…`).
    pub peers: Vec<(PeerId, Multiaddr)>,
    /// Who may have what is stored here.
    pub share: Share,
    /// Only these peers are spoken with; empty for everybody whom `share` lets in.
    pub allow: Vec<PeerId>,
    /// The name before `.local`, with `lan`.
    pub name: String,
}

/// Who may have what is stored here. What a private upstream gave is nobody's, whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Share {
    /// Nobody. This node still takes from others.
    Off,
    /// Peers at private, link-local and loopback addresses, and in the networks of this box's own interfaces.
    Lan,
    /// Everybody who can reach this node.
    Anyone,
}

impl Default for Near {
    fn default() -> Self {
        Self {
            swarm: true,
            lan: false,
            listen: Vec::new(),
            peers: Vec::new(),
            share: Share::Lan,
            allow: Vec::new(),
            name: "dpm".into(),
        }
    }
}

/// An address that the swarm can listen on.
pub(super) fn listen_address(text: &str) -> Result<Multiaddr, String> {
    let address: Multiaddr =
        text.parse().map_err(|_| format!("{text:?} is no multiaddr, as /ip4/0.0.0.0/udp/4001/quic-v1 is"))?;
    match address.iter().collect::<Vec<_>>()[..] {
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Udp(_), Protocol::QuicV1] => Ok(address),
        _ => {
            Err(format!("the swarm speaks QUIC only, and {text:?} is not like /ip4/0.0.0.0/udp/4001/quic-v1"))
        }
    }
}

/// A peer's address with its id.
pub(super) fn peer_address(text: &str) -> Result<(PeerId, Multiaddr), String> {
    let example = "/ip4/192.168.1.7/udp/4001/quic-v1/p2p/12D3Koo…";
    let mut address: Multiaddr =
        text.parse().map_err(|_| format!("{text:?} is no multiaddr, as {example} is"))?;
    let Some(Protocol::P2p(peer)) = address.pop() else {
        return Err(format!("{text:?} does not say which peer is there: it must end as in {example}"));
    };
    listen_address(&address.to_string())?;
    Ok((peer, address))
}

/// A peer's id.
pub(super) fn peer_id(text: &str) -> Result<PeerId, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no peer id, as 12D3Koo… is (`dpm peers` shows this node's)"))
}

/// A name that may stand before `.local`.
pub(super) fn host_name(text: &str) -> Result<String, String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let good = (1..=63).contains(&text.len()) && text.chars().all(plain) && !text.starts_with('-');
    match good && !text.ends_with('-') {
        true => Ok(text.to_owned()),
        false => Err(format!("{text:?} is no host name: 1 to 63 of a-z, 0-9 and '-'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let id = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
        for good in ["/ip4/0.0.0.0/udp/4001/quic-v1", "/ip6/::/udp/0/quic-v1"] {
            assert_eq!(listen_address(good).unwrap().to_string(), good);
            let (peer, address) = peer_address(&format!("{good}/p2p/{id}")).unwrap();
            assert_eq!((peer.to_string().as_str(), address.to_string().as_str()), (id, good));
            assert!(peer_address(good).is_err());
        }
        for bad in ["", "4001", "/ip4/0.0.0.0/tcp/4001", "/dns4/x.example.org/udp/1/quic-v1", "/ip4/1.2.3.4"]
        {
            assert!(listen_address(bad).is_err(), "{bad}");
            assert!(peer_address(&format!("{bad}/p2p/{id}")).is_err(), "{bad}");
        }
        assert!(peer_id(id).is_ok() && peer_id("x").is_err());
        for (name, good) in
            [("dpm", true), ("box-2", true), ("", false), ("-x", false), ("Dpm", false), ("a.b", false)]
        {
            assert_eq!(host_name(name).is_ok(), good, "{name}");
        }
    }
}
