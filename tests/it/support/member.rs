//! A member of a Matrix room, as far as a node hears of it: events that its key signed, and the blocks of its catalogue.

use std::collections::HashMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bytes::Bytes;
use dpm::base::{Cid, Multiaddr, PackageUrl, PeerId, PeerKey, Sha256, raw_cid};
use dpm::catalogue::{self, Change, Entry, Facts, Root};
use dpm::config::Config;
use dpm::daemon::Vicinity;
use dpm::members::{Heard, Members};
use dpm::rt::UnixMillis;
use dpm::swarm::Identity;
use dpm::unixfs::LayoutBuilder;
use dpm::wire::room::{Allow, Context, NODE_EVENT, NodeAdvert, Pattern, SCOPE_EVENT, scope_parts};

use super::{Node, Project};

/// The room that all are in.
pub const ROOM: &str = "!room:example.org";

/// Has a node's account join the room, which mirrors these.
pub fn join(node: &Node, patterns: &[&str]) {
    let members = members(node);
    members.joined(ROOM, Some("project"));
    let patterns: Vec<_> = patterns.iter().map(|p| Pattern::parse(p).expect("a pattern")).collect();
    for (n, part) in scope_parts(&patterns).expect("a scope").iter().enumerate() {
        let heard =
            members.hear_state(ROOM, "@admin:example.org", SCOPE_EVENT, &n.to_string(), part.as_bytes());
        assert_eq!(heard, Heard::Scope);
    }
}

/// What a node knows of members.
pub fn members(node: &Node) -> &Members {
    &node.daemon().rooms().members
}

/// Somebody in the room, with one node.
pub struct Member {
    pub user: String,
    key: PeerKey,
    sign: Sign,
    addresses: Vec<String>,
    entries: Vec<Entry>,
    sequence: u64,
}

type Sign = Box<dyn Fn(&[u8]) -> Vec<u8> + Send + Sync>;

impl Member {
    /// `name` with the key that the seed makes, and with nothing.
    pub fn new(name: &str, seed: u8) -> Self {
        let keys = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key");
        let key = PeerKey::parse(&[&[8, 1, 18, 32], keys.public_key().as_ref()].concat()).expect("a key");
        Self::of(name, key, Box::new(move |message| keys.sign(message).as_ref().to_vec()), Vec::new())
    }

    /// One with this identity among peers, which says that it is here.
    pub fn at(name: &str, identity: &Identity, address: &Multiaddr) -> Self {
        let (key, identity) = (identity.public_key(), identity.clone());
        let sign = move |message: &[u8]| identity.sign(message).expect("Ed25519 signs anything");
        Self::of(name, key, Box::new(sign), vec![address.to_string()])
    }

    /// One with a node of ours.
    pub fn with(name: &str, node: &Node) -> Self {
        let identity = Identity::load_or_create(&node.data().join("identity.key")).expect("its key");
        Self::at(name, &identity, &node.as_peer().1)
    }

    fn of(name: &str, key: PeerKey, sign: Sign, addresses: Vec<String>) -> Self {
        let user = format!("@{name}:example.org");
        Self { user, key, sign, addresses, entries: Vec::new(), sequence: 0 }
    }

    pub fn peer(&self) -> PeerId {
        self.key.peer_id()
    }

    /// It says that it is reached there.
    pub fn reached_at(mut self, addresses: &[String]) -> Self {
        self.addresses = addresses.to_vec();
        self
    }

    /// It has these too, and one of them in the place of another of that name.
    pub fn has(mut self, entries: impl IntoIterator<Item = Entry>) -> Self {
        for entry in entries {
            self.entries.retain(|known| known.key() != entry.key());
            self.entries.push(entry);
        }
        self
    }

    /// Has a node hear that now, and take its catalogue.
    pub fn tells(&mut self, node: &Node) {
        self.tells_as_of(node, node.now());
    }

    /// The same by one who said so much before.
    pub fn tells_again(&mut self, node: &Node, sequence: u64) {
        self.sequence = sequence;
        self.tells(node);
    }

    /// The same, said at another time.
    pub fn tells_as_of(&mut self, node: &Node, time: UnixMillis) {
        let (root, blocks) = built(&self.entries);
        self.announces_as_of(node, Some(root), time);
        let members = members(node);
        for wanted in members.wanted().iter().filter(|wanted| wanted.peer == self.peer()) {
            let mut pulling = members.pull(wanted);
            while let Some(cid) = pulling.next_block().expect("the store") {
                pulling.got(&cid, blocks[&cid].clone()).expect("its block");
            }
            pulling.finish().expect("all of it");
        }
    }
}

impl Member {
    /// Has a node hear that it is there and has this catalogue, which the node has not.
    pub fn announces(&mut self, node: &Node, catalogue: Option<Root>) {
        self.announces_as_of(node, catalogue, node.now());
    }

    fn announces_as_of(&mut self, node: &Node, catalogue: Option<Root>, time: UnixMillis) {
        let members = members(node);
        members.member(ROOM, &self.user, true);
        self.sequence += 1;
        let advert = NodeAdvert {
            peer: self.peer(),
            addresses: self.addresses.clone(),
            name: "box".into(),
            agent: "dpm/0".into(),
            catalogue,
            sequence: self.sequence,
            time_ms: time.0,
        };
        let context = Context { room: ROOM, sender: &self.user };
        let json = advert.write(&context, &self.key, |m| Some((self.sign)(m))).expect("an event");
        let heard =
            members.hear_state(ROOM, &self.user, NODE_EVENT, &self.peer().to_string(), json.as_bytes());
        assert_eq!(heard, Heard::Node(self.peer()), "{:?}", members.rooms());
    }

    /// Has a node hear that the user is in the room no more.
    pub fn leaves(&self, node: &Node) {
        members(node).member(ROOM, &self.user, false);
    }
}

/// A catalogue, and its blocks.
pub fn built(entries: &[Entry]) -> (Root, HashMap<Cid, Bytes>) {
    let mut blocks = HashMap::new();
    let mut sink = |cid, block| drop(blocks.insert(cid, block));
    let root = catalogue::build(entries.iter().cloned(), &mut sink).expect("a catalogue");
    (root, blocks)
}

/// Has a node list these itself.
pub fn publishes(node: &Node, entries: &[Entry]) -> Root {
    let changes = entries.iter().cloned().map(Change::put).collect();
    members(node).publish(ROOM, changes).expect("it is in the room")
}

/// A node in the room, in front of the index at `url`, that takes nobody for near but who is named.
pub fn distant(url: &str) -> Node {
    distant_with(url, |_| {})
}

/// The same, changed.
pub fn distant_with(url: &str, change: impl FnOnce(&mut Config)) -> Node {
    let node = Node::with(&[url], |config, tuning| {
        config.near.swarm = true;
        config.near.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("a multiaddr")];
        config.rooms.addresses = Allow::Near;
        (tuning.hidden, tuning.vicinity) = (true, Vicinity::Nowhere);
        change(config);
    });
    join(&node, &["pkg:pypi/*"]);
    node
}

/// An entry of these bytes under a name.
pub fn entry(purl: &str, file: &str, bytes: &[u8]) -> Entry {
    let (sha256, mut layout) = (Sha256::of(bytes), LayoutBuilder::default());
    layout.update(bytes);
    let root = if bytes.len() > 1 << 20 { layout.finish().tree().0 } else { raw_cid(sha256) };
    Entry {
        purl: PackageUrl::parse(purl).expect("a package URL"),
        file: file.to_owned(),
        size: bytes.len() as u64,
        root,
        digests: vec![sha256.digest()],
        facts: Facts::default(),
        // Later than any page of an index that a test has: it is news.
        first_seen: Some(4_000_000_000),
    }
}

/// The entry of a project's file.
pub fn listed(project: &Project) -> Entry {
    entry(&format!("pkg:pypi/{}@1.0", project.name), &project.filename, &project.bytes)
}
