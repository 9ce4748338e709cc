//! What is kept over restarts: in the names of the store, one for each room and each of its nodes.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::base::{PeerId, Sha256};
use crate::catalogue::Root;
use crate::rt::UnixMillis;
use crate::store::{Store, StoreError};
use crate::wire::room::MOST_NODES;

use super::room::{Node, Room};
use super::{Members, Mode, Options, ROOMS, complain};

const ROOM: &str = "room\0";
const MEMBER: &str = "room member\0";

#[derive(Default, Encode, Decode)]
#[cbor(map)]
struct RoomRecord {
    #[n(0)]
    name: Option<String>,
    #[n(1)]
    mode: u8,
    #[n(2)]
    scope: Vec<ScopePart>,
    #[n(3)]
    own: Option<RootRecord>,
    #[n(4)]
    own_sequence: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct ScopePart {
    #[n(0)]
    key: String,
    #[cbor(n(1), with = "minicbor::bytes")]
    json: Vec<u8>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct RootRecord {
    #[cbor(n(0), with = "minicbor::bytes")]
    hash: Vec<u8>,
    #[n(1)]
    entries: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct NodeRecord {
    #[n(0)]
    sender: String,
    #[n(1)]
    present: bool,
    #[cbor(n(2), with = "minicbor::bytes")]
    json: Vec<u8>,
    #[n(3)]
    heard: u64,
    #[n(4)]
    have: Option<RootRecord>,
}

impl RootRecord {
    fn of(root: &Root) -> Self {
        Self { hash: root.hash.0.to_vec(), entries: root.entries }
    }

    fn root(&self) -> Option<Root> {
        Some(Root { hash: Sha256(self.hash[..].try_into().ok()?), entries: self.entries })
    }
}

fn room_key(room: &str) -> String {
    format!("{ROOM}{room}\0")
}

fn node_key(room: &str, peer: &PeerId) -> String {
    format!("{MEMBER}{room}\0{peer}")
}

/// The rooms that were kept. What cannot be read is left out: the homeserver says it again.
pub(super) fn load(store: &Store, options: &Options) -> Result<BTreeMap<String, Room>, StoreError> {
    let mut rooms = BTreeMap::new();
    for (key, value) in store.names(ROOM, ROOMS)? {
        let Ok(record) = minicbor::decode::<RoomRecord>(&value) else { continue };
        let id = key[ROOM.len()..].trim_end_matches('\0');
        let mut room = Room::new(id);
        room.name = record.name;
        room.mode = match record.mode {
            0 => Mode::Off,
            2 => Mode::Follow,
            _ => Mode::Lazy,
        };
        room.restore_scope(record.scope.into_iter().map(|part| (part.key, part.json)).collect());
        // With another key the catalogue was another node's.
        room.own = record.own.and_then(|root| root.root()).filter(|_| options.own.is_some());
        room.own_sequence = record.own_sequence;
        for (_, value) in store.names(&format!("{MEMBER}{id}\0"), MOST_NODES)? {
            let Ok(node) = minicbor::decode::<NodeRecord>(&value) else { continue };
            let have = node.have.and_then(|root| root.root());
            room.restore_node(&node.sender, node.present, &node.json, UnixMillis(node.heard), have);
        }
        rooms.insert(id.to_owned(), room);
    }
    Ok(rooms)
}

/// Forgets all of a room.
pub(super) fn forget(store: &Store, room: &str) -> Result<(), StoreError> {
    store.forget_names(&format!("{MEMBER}{room}\0"))?;
    store.forget_names(&room_key(room)).map(drop)
}

/// A room as it is written.
pub(super) fn room(room: &Room) -> (String, Vec<u8>) {
    let parts = room.scope_parts.iter();
    let record = RoomRecord {
        name: room.name.clone(),
        mode: match room.mode {
            Mode::Off => 0,
            Mode::Lazy => 1,
            Mode::Follow => 2,
        },
        scope: parts.map(|(key, json)| ScopePart { key: key.clone(), json: json.clone() }).collect(),
        own: room.own.as_ref().map(RootRecord::of),
        own_sequence: room.own_sequence,
    };
    (room_key(&room.id), minicbor::to_vec(record).expect("memory takes every byte"))
}

/// A node as it is written.
pub(super) fn node(room: &Room, peer: &PeerId, node: &Node) -> (String, Vec<u8>) {
    let record = NodeRecord {
        sender: node.sender.clone(),
        present: room.is_user(&node.sender),
        json: node.json.clone(),
        heard: node.heard.0,
        have: node.have.as_ref().map(RootRecord::of),
    };
    (node_key(&room.id, peer), minicbor::to_vec(record).expect("memory takes every byte"))
}

impl Members {
    pub(super) fn keep_room(&self, room_: &Room) {
        let (key, value) = room(room_);
        complain(self.inner.store.note(&key, &value));
    }

    /// Keeps a node, or forgets one that is no longer there.
    pub(super) fn keep_node(&self, room: &Room, peer: &PeerId) {
        match room.nodes.get(peer) {
            Some(known) => {
                let (key, value) = node(room, peer, known);
                complain(self.inner.store.note(&key, &value));
            }
            None => complain(self.inner.store.forget_names(&node_key(&room.id, peer))),
        }
    }
}
