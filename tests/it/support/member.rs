//! A member of a Matrix room, as far as a node hears of it: events that its key signed, and the blocks of its catalogue.

use std::collections::HashMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use bytes::Bytes;
use dpm::base::{Cid, PackageUrl, PeerId, PeerKey, Sha256, raw_cid};
use dpm::catalogue::{self, Entry, Facts};
use dpm::members::{Heard, Members};
use dpm::rt::UnixMillis;
use dpm::unixfs::LayoutBuilder;
use dpm::wire::room::{Context, NODE_EVENT, NodeAdvert, Pattern, SCOPE_EVENT, scope_parts};

use super::{Node, Project};

/// The room that all are in.
pub const ROOM: &str = "!room:example.org";

/// Has a node's account join the room, which mirrors these.
pub fn join(node: &Node, patterns: &[&str]) {
    let members = &node.daemon().rooms().members;
    members.joined(ROOM, Some("project"));
    let patterns: Vec<_> = patterns.iter().map(|p| Pattern::parse(p).expect("a pattern")).collect();
    for (n, part) in scope_parts(&patterns).expect("a scope").iter().enumerate() {
        let heard =
            members.hear_state(ROOM, "@admin:example.org", SCOPE_EVENT, &n.to_string(), part.as_bytes());
        assert_eq!(heard, Heard::Scope);
    }
}

/// Somebody in the room, with one node.
pub struct Member {
    pub user: String,
    keys: Ed25519KeyPair,
    entries: Vec<Entry>,
    sequence: u64,
}

impl Member {
    /// `name` with the key that the seed makes, and with nothing.
    pub fn new(name: &str, seed: u8) -> Self {
        let keys = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a key");
        Self { user: format!("@{name}:example.org"), keys, entries: Vec::new(), sequence: 0 }
    }

    pub fn peer(&self) -> PeerId {
        self.key().peer_id()
    }

    fn key(&self) -> PeerKey {
        PeerKey::parse(&[&[8, 1, 18, 32], self.keys.public_key().as_ref()].concat()).expect("a key")
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
        let members: &Members = &node.daemon().rooms().members;
        members.member(ROOM, &self.user, true);
        let mut blocks: HashMap<Cid, Bytes> = HashMap::new();
        let root = catalogue::build(self.entries.clone(), &mut |cid, block| drop(blocks.insert(cid, block)));
        self.sequence += 1;
        let advert = NodeAdvert {
            peer: self.peer(),
            addresses: Vec::new(),
            name: "box".into(),
            agent: "dpm/0".into(),
            catalogue: Some(root.expect("a catalogue")),
            sequence: self.sequence,
            time_ms: time.0,
        };
        let sign = |message: &[u8]| Some(self.keys.sign(message).as_ref().to_vec());
        let context = Context { room: ROOM, sender: &self.user };
        let json = advert.write(&context, &self.key(), sign).expect("an event");
        let heard =
            members.hear_state(ROOM, &self.user, NODE_EVENT, &self.peer().to_string(), json.as_bytes());
        assert_eq!(heard, Heard::Node(self.peer()), "{:?}", members.rooms());
        for wanted in members.wanted().iter().filter(|wanted| wanted.peer == self.peer()) {
            let mut pulling = members.pull(wanted);
            while let Some(cid) = pulling.next_block().expect("the store") {
                pulling.got(&cid, blocks[&cid].clone()).expect("its block");
            }
            pulling.finish().expect("all of it");
        }
    }
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
        first_seen: None,
    }
}

/// The entry of a project's file.
pub fn listed(project: &Project) -> Entry {
    entry(&format!("pkg:pypi/{}@1.0", project.name), &project.filename, &project.bytes)
}
