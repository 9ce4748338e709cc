//! Keeps in touch with the nodes of members.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;

use crate::base::{Multiaddr, PeerId, Sha256};
use crate::swarm::Swarm;

use super::Inner;

/// Members that this node stays connected with: half of a swarm's connections, so that others find places.
const KEPT: usize = 64;

/// How often it is looked who is there, besides when somebody says something.
const TICK: Duration = Duration::from_secs(60);

/// Runs for ever.
pub(super) async fn run(inner: Arc<Inner>, swarm: Swarm) {
    let mut kept: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
    loop {
        let (members, named) = (inner.members.clone(), inner.options.named.clone());
        let all = inner.disk.run(move || members.addresses()).await;
        let connected: BTreeSet<PeerId> = swarm.peers().iter().map(|info| info.peer).collect();
        let chosen = chosen(swarm.peer_id(), all, &connected);
        for peer in kept.keys().filter(|peer| !chosen.contains_key(peer) && !named.contains(peer)) {
            swarm.release(peer);
        }
        for (peer, addresses) in &chosen {
            if kept.get(peer) != Some(addresses) {
                swarm.keep(*peer, addresses.clone());
            }
        }
        kept = chosen;
        future::or(inner.dials.heard(), async {
            async_io::Timer::after(TICK).await;
        })
        .await;
    }
}

/// Whom to stay connected with: those who are, and by lot, which is another one for each node, those who are not.
fn chosen(
    own: PeerId,
    all: Vec<(PeerId, Vec<Multiaddr>)>,
    connected: &BTreeSet<PeerId>,
) -> BTreeMap<PeerId, Vec<Multiaddr>> {
    let mut all: Vec<_> =
        all.into_iter().filter(|(peer, addresses)| *peer != own && !addresses.is_empty()).collect();
    let lot = |peer: &PeerId| Sha256::of(&[own.to_bytes(), peer.to_bytes()].concat()).0;
    all.sort_by_cached_key(|(peer, _)| (!connected.contains(peer), lot(peer)));
    all.truncate(KEPT);
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_members_each_node_has_others() {
        let address: Multiaddr = "/ip4/1.1.1.1/udp/1/quic-v1".parse().unwrap();
        let all: Vec<_> = (0..300).map(|_| (PeerId::random(), vec![address.clone()])).collect();
        let (ada, bob) = (PeerId::random(), PeerId::random());
        let none = BTreeSet::new();
        let [of_ada, of_bob] = [ada, bob].map(|own| chosen(own, all.clone(), &none));
        assert_eq!((of_ada.len(), of_bob.len()), (KEPT, KEPT));
        let both = of_ada.keys().filter(|peer| of_bob.contains_key(peer)).count();
        assert!(both < KEPT / 2, "{both} of {KEPT} are the same");
        let connected: BTreeSet<_> = all.iter().map(|(peer, _)| *peer).take(KEPT).collect();
        assert!(chosen(ada, all.clone(), &connected).keys().eq(&connected), "who is there stays");
        let with_own = vec![(ada, vec![address]), (bob, Vec::new())];
        assert!(chosen(ada, with_own, &none).is_empty(), "neither itself, nor who is nowhere");
    }
}
