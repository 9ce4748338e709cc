//! Who is spoken with, and how far away it is.

use std::net::IpAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::base::{Multiaddr, PeerId, Subnet, is_near};
use crate::config::{self, Share};
use crate::lan;
use crate::members::Members;
use crate::peers::{Circle, Peers};
use crate::swarm::ip_of;

/// Which addresses count as near.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vicinity {
    /// This machine's, private ones, and those of the networks that this machine is in.
    #[default]
    Lan,
    /// None: only who is named is near. For tests, whose nodes are all on this machine.
    Nowhere,
}

/// The rule.
pub(super) struct Rule {
    share: Share,
    allow: Vec<PeerId>,
    named: Vec<PeerId>,
    vicinity: Vicinity,
    networks: Networks,
    peers: Peers,
    members: Members,
}

impl Rule {
    pub(super) fn new(config: &config::Near, vicinity: Vicinity, peers: &Peers, members: &Members) -> Self {
        Self {
            share: config.share,
            allow: config.allow.clone(),
            named: config.peers.iter().map(|(peer, _)| *peer).collect(),
            vicinity,
            networks: Networks::default(),
            peers: peers.clone(),
            members: members.clone(),
        }
    }

    /// How far away a peer is that is connected at these addresses: near if one of them is.
    pub(super) fn circle(&self, peer: &PeerId, addresses: &[Multiaddr]) -> Circle {
        let by_address = || addresses.iter().filter_map(ip_of).any(|ip| self.networks.is_near(ip));
        let near = self.share == Share::Anyone
            || self.named.contains(peer)
            || self.vicinity == Vicinity::Lan && by_address();
        if near { Circle::Near } else { Circle::Far }
    }

    /// Whether a peer may be connected at this address: who is near, and members of rooms wherever they are.
    pub(super) fn admits(&self, address: &Multiaddr, peer: &PeerId) -> bool {
        let near = self.circle(peer, std::slice::from_ref(address)) == Circle::Near;
        let known = near || self.members.is_member(peer);
        known && (self.allow.is_empty() || self.allow.contains(peer)) && !self.peers.is_blocked(peer)
    }
}

/// The networks of this machine's own interfaces, looked at again when that is [`NETWORKS_TIME`] ago.
#[derive(Default)]
pub(super) struct Networks(Mutex<Option<(Instant, Vec<Subnet>)>>);

/// Interfaces come and go, and a flood of connections must not list them each time.
const NETWORKS_TIME: Duration = Duration::from_secs(5);

impl Networks {
    /// Whether an address is private, link-local or loopback, or in a network of this machine's own.
    pub(super) fn is_near(&self, ip: IpAddr) -> bool {
        if is_near(ip) {
            return true;
        }
        let mut known = self.0.lock().expect("nothing panics under this lock");
        let fresh = known.as_ref().is_some_and(|(at, _)| at.elapsed() < NETWORKS_TIME);
        if !fresh {
            *known = Some((Instant::now(), lan::networks()));
        }
        known.as_ref().is_some_and(|(_, networks)| networks.iter().any(|n| n.contains(ip.to_canonical())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::members;
    use crate::store::{self, Store};

    const HERE: &str = "/ip4/192.168.1.7/udp/4001/quic-v1";
    /// Of a network that nobody's interface is in: 198.18.0.0/15 is for benchmarks (RFC 2544).
    const AWAY: &str = "/ip4/198.18.9.9/udp/4001/quic-v1";

    #[test]
    fn who_is_near_and_who_is_let_in() {
        let dir = tempfile::tempdir().unwrap();
        let options = store::Options {
            budget: store::Budget::Bytes(1 << 30),
            free_margin_bytes: 0,
            clock: Default::default(),
        };
        let store = Store::open(dir.path(), options).unwrap();
        let members = Members::open(store, members::Options::default()).unwrap();
        let (named, other) = (PeerId::random(), PeerId::random());
        let address = |text: &str| text.parse::<Multiaddr>().unwrap();
        let config = config::Near { peers: vec![(named, address(AWAY))], ..config::Near::default() };
        let rule = |change: fn(&mut config::Near)| {
            let mut config = config.clone();
            change(&mut config);
            Rule::new(&config, Vicinity::Lan, &Peers::default(), &members)
        };
        let plain = rule(|_| {});
        let near = |rule: &Rule, peer: &PeerId, at: &[&str]| {
            let at: Vec<_> = at.iter().map(|text| address(text)).collect();
            rule.circle(peer, &at) == Circle::Near
        };
        assert!(near(&plain, &other, &[HERE]) && near(&plain, &other, &[AWAY, HERE]));
        assert!(!near(&plain, &other, &[AWAY]) && !near(&plain, &other, &[]));
        assert!(near(&plain, &named, &[AWAY]));
        assert!(near(&rule(|near| near.share = Share::Anyone), &other, &[AWAY]));
        assert!(!near(&rule(|near| near.share = Share::Off), &other, &[AWAY]));
        // Nobody here is in a room: who is far is not let in.
        assert!(plain.admits(&address(HERE), &other) && plain.admits(&address(AWAY), &named));
        assert!(!plain.admits(&address(AWAY), &other));
        let only = rule(|near| near.allow = vec![near.peers[0].0]);
        assert!(!only.admits(&address(HERE), &other) && only.admits(&address(HERE), &named));
    }
}
