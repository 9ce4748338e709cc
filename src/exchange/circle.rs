//! Peers near, and those that are here because of a room: who may have what, and who is asked for what.
//!
//! A peer near is told what is here and asked for anything. A member of a room from elsewhere would learn from that what
//! else this machine installs, so it hears nothing but what the room says anyway: it is given what this node lists in a
//! room that it is in, and asked for what it lists itself.

use std::time::{Duration, Instant};

use futures_lite::future;

use crate::base::{Access, Digest, PeerId, Sha256};
use crate::peers::Circle;

use super::Exchange;

/// How long members that are dialled because nobody else is left are waited for.
const DIAL_PATIENCE: Duration = Duration::from_secs(3);

/// How long a peer with a stream here may be missing in the book of peers: the word that it has come is on its way.
const PLACED_TIME: Duration = Duration::from_secs(1);

/// Members dialled at once for one artifact: as many as it is taken from.
const DIALLED: usize = 8;

impl Exchange {
    /// Whether a peer may have an artifact with this access, or a part of it. Blocks.
    pub(super) fn may_give(&self, peer: &PeerId, access: Access, artifact: &Sha256) -> bool {
        let inner = &self.inner;
        let listed = || inner.peers.is_near(peer) || inner.members.may_have(peer, artifact);
        inner.sharing.may(peer, access) && listed()
    }

    /// Whether a peer may have blocks of catalogues: whoever knows their hashes, and is near or in a room with us.
    pub(super) fn is_welcome(&self, peer: &PeerId) -> bool {
        self.inner.sharing.may(peer, Access::Public) && self.is_present(peer)
    }

    /// Whether a peer is near, or still in a room with us.
    pub(super) fn is_present(&self, peer: &PeerId) -> bool {
        self.inner.peers.is_near(peer) || self.inner.members.is_member(peer)
    }

    /// Waits until it is known how far away a peer is that opened a stream.
    pub(super) async fn placed(&self, peer: &PeerId) {
        let until = Instant::now() + PLACED_TIME;
        loop {
            let changed = self.inner.peers.changed();
            if self.inner.peers.is_connected(peer) || Instant::now() >= until {
                return;
            }
            future::or(changed, async {
                async_io::Timer::at(until).await;
            })
            .await;
        }
    }

    /// Members of rooms who list an artifact and are not near, the best first. They need not be asked: they said so.
    ///
    /// As the `last` resort those that have let this node down are among them, and where nobody is connected they are
    /// dialled, and waited for up to 3 s. `but` are left out. Cancel-safe.
    pub async fn listers(&self, digest: &Digest, but: &[PeerId], last: bool) -> Vec<PeerId> {
        let inner = &self.inner;
        let Some(sha256) = digest.sha256() else { return Vec::new() };
        let own = inner.swarm.peer_id();
        let mut listers = self.listed_by(sha256).await;
        let may = |peer: &PeerId| !but.contains(peer) && (last || !inner.peers.is_doubted(peer));
        listers.retain(may);
        let mut there = self.connected_of(&listers, last);
        if last && there.is_empty() && !listers.is_empty() {
            there = self.dialled(&listers).await;
        }
        // By lot among those that nothing is known of: the first in the list are not everybody's first.
        let lot = |peer: &PeerId| Sha256::of(&[own.to_bytes(), sha256.0.to_vec(), peer.to_bytes()].concat());
        there.sort_by_cached_key(|peer| (!inner.peers.is_known(peer), lot(peer).0));
        there
    }

    /// Members of rooms, wherever they are, who list what has this hash.
    pub(super) async fn listed_by(&self, sha256: Sha256) -> Vec<PeerId> {
        let (members, own) = (self.inner.members.clone(), self.inner.swarm.peer_id());
        // Most nodes are in no room, and then the disk need not be asked.
        if members.ids().is_empty() {
            return Vec::new();
        }
        let mut peers = self.inner.disk.run(move || members.holders(&sha256)).await;
        peers.retain(|peer| *peer != own);
        peers
    }

    /// Those of these that are connected dpm nodes. Who is near was asked already, unless it has come right now.
    fn connected_of(&self, listers: &[PeerId], near_too: bool) -> Vec<PeerId> {
        let peers = &self.inner.peers;
        let mut there = peers.nodes_of(Circle::Far);
        if near_too {
            there.extend(peers.nodes_of(Circle::Near));
        }
        there.retain(|peer| listers.contains(peer));
        there
    }

    async fn dialled(&self, listers: &[PeerId]) -> Vec<PeerId> {
        let addresses = self.inner.members.addresses().into_iter();
        for (peer, addresses) in addresses.filter(|(peer, _)| listers.contains(peer)).take(DIALLED) {
            self.inner.swarm.dial(peer, addresses);
        }
        let until = Instant::now() + DIAL_PATIENCE;
        loop {
            let changed = self.inner.peers.changed();
            let there = self.connected_of(listers, true);
            if !there.is_empty() || Instant::now() >= until {
                return there;
            }
            future::or(changed, async {
                async_io::Timer::at(until).await;
            })
            .await;
        }
    }
}
