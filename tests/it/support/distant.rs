//! Nodes that are far from each other, in a room whose members hear of each other from the test instead of from a homeserver.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dpm::base::{Cid, Multiaddr};
use dpm::catalogue::{self, Change, Entry, Root};
use dpm::members::{Heard, Members};
use dpm::swarm::Identity;
use dpm::wire::room::{Allow, Context, NODE_EVENT, NodeAdvert};

use super::Node;
pub use super::member::{ROOM, listed as entry};

/// Numbers of events: each larger than all before.
static SEQUENCE: AtomicU64 = AtomicU64::new(1);

/// A node in a room, as its members see it.
pub struct Member {
    pub identity: Identity,
    pub user: String,
    pub address: Multiaddr,
}

impl Member {
    pub fn new(identity: &Identity, name: &str, address: Multiaddr) -> Self {
        Self { identity: identity.clone(), user: format!("@{name}:example.org"), address }
    }

    /// A node of ours.
    pub fn of(node: &Node, name: &str) -> Self {
        let key = node.data().join("identity.key");
        let identity = Identity::load_or_create(&key).expect("its key");
        Self::new(&identity, name, node.as_peer().1)
    }

    /// A node hears that this one is in the room, and that this is its catalogue.
    #[track_caller]
    pub fn tells(&self, node: &Node, catalogue: Option<Root>) {
        let members = members(node);
        members.joined(ROOM, None);
        members.member(ROOM, &self.user, true);
        let peer = self.identity.peer_id();
        let advert = NodeAdvert {
            peer,
            addresses: vec![self.address.to_string()],
            name: String::new(),
            agent: "dpm/test".into(),
            catalogue,
            sequence: SEQUENCE.fetch_add(1, Ordering::Relaxed),
            time_ms: SystemTime::now().duration_since(UNIX_EPOCH).expect("1970 is over").as_millis() as u64,
        };
        let context = Context { room: ROOM, sender: &self.user };
        let sign = |message: &[u8]| self.identity.sign(message);
        let json = advert.write(&context, &self.identity.public_key(), sign).expect("an advert");
        let heard = members.hear_state(ROOM, &self.user, NODE_EVENT, &peer.to_string(), json.as_bytes());
        assert_eq!(heard, Heard::Node(peer));
    }

    /// A node hears that this one lists these, and has its catalogue, wherever it got that.
    #[track_caller]
    pub fn lists(&self, node: &Node, entries: &[Entry]) {
        let (root, blocks) = built(entries);
        self.tells(node, Some(root));
        let members = members(node);
        let peer = self.identity.peer_id();
        let wanted = members.wanted().into_iter().find(|wanted| wanted.peer == peer).expect("it is new");
        let mut pulling = members.pull(&wanted);
        while let Some(cid) = pulling.next_block().expect("a good catalogue") {
            pulling.got(&cid, blocks[&cid].clone()).expect("a good block");
        }
        pulling.finish().expect("all of it");
    }

    /// The user leaves the room, as far as this node hears.
    pub fn leaves(&self, node: &Node) {
        members(node).member(ROOM, &self.user, false);
    }
}

/// The blocks of a catalogue.
pub fn built(entries: &[Entry]) -> (Root, HashMap<Cid, Bytes>) {
    let mut blocks = HashMap::new();
    let mut sink = |cid, block| drop(blocks.insert(cid, block));
    let root = catalogue::build(entries.iter().cloned(), &mut sink).expect("good entries");
    (root, blocks)
}

pub fn members(node: &Node) -> &Members {
    &node.daemon().rooms().members
}

/// A node lists these itself.
pub fn publishes(node: &Node, entries: &[Entry]) -> Root {
    members(node).joined(ROOM, None);
    let changes = entries.iter().cloned().map(Change::put).collect();
    members(node).publish(ROOM, changes).expect("it is in the room")
}

/// A node that takes nobody for near but who is named, in front of the index at `url`.
pub fn distant(url: &str) -> Node {
    distant_with(url, |_| {})
}

/// The same, changed.
pub fn distant_with(url: &str, change: impl FnOnce(&mut dpm::config::Config)) -> Node {
    Node::with(&[url], |config, tuning| {
        config.near.swarm = true;
        config.near.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("a multiaddr")];
        config.rooms.addresses = Allow::Near;
        (tuning.hidden, tuning.vicinity) = (true, dpm::daemon::Vicinity::Nowhere);
        change(config);
    })
}
