//! What is kept over restarts: names of the store, for each room and for each of its nodes.

use std::collections::BTreeMap;

use minicbor::{Decode, Encode};

use crate::base::{PeerId, Sha256};
use crate::catalogue::Root;
use crate::rt::UnixMillis;
use crate::store::{RoomKey, Store, StoreError};
use crate::wire::room::MOST_NODES;

use super::room::{Have, Node, Room};
use super::{Mode, Options, ROOMS};

const ROOM: &str = "room\0";
/// This node's own catalogue in a room, and the number of its last event there.
const OWN: &str = "room own\0";
const SEQUENCE: &str = "room sequence\0";
/// A node, and the catalogue of it that is here.
const MEMBER: &str = "room member\0";
const HAVE: &str = "room have\0";

#[derive(Default, Encode, Decode)]
#[cbor(map)]
struct RoomRecord {
    #[n(0)]
    name: Option<String>,
    #[n(1)]
    mode: u8,
    #[n(2)]
    scope: Vec<ScopePart>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct ScopePart {
    #[n(0)]
    key: String,
    #[cbor(n(1), with = "minicbor::bytes")]
    json: Vec<u8>,
}

/// A catalogue: this node's own, of the peer that it was then, or another's.
#[derive(Encode, Decode)]
#[cbor(map)]
struct RootRecord {
    #[cbor(n(0), with = "minicbor::bytes")]
    hash: Vec<u8>,
    #[n(1)]
    entries: u64,
    /// Milliseconds since the epoch.
    #[n(2)]
    at: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    peer: Vec<u8>,
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
    withdrawn: bool,
}

/// A node as it was kept.
pub(super) struct Kept {
    pub(super) sender: String,
    pub(super) present: bool,
    pub(super) json: Vec<u8>,
    pub(super) heard: UnixMillis,
    pub(super) withdrawn: bool,
}

/// Something to be kept: a name and its value.
pub(super) type Fact = (String, Vec<u8>);

impl RootRecord {
    fn root(&self) -> Option<Root> {
        Some(Root { hash: Sha256(self.hash[..].try_into().ok()?), entries: self.entries })
    }

    fn write(root: &Root, at: UnixMillis, peer: &PeerId) -> Vec<u8> {
        let (hash, entries) = (root.hash.0.to_vec(), root.entries);
        written(&Self { hash, entries, at: at.0, peer: peer.to_bytes() })
    }
}

fn written<T: Encode<()>>(record: &T) -> Vec<u8> {
    minicbor::to_vec(record).expect("memory takes every byte")
}

fn of_room(kind: &str, room: &str) -> String {
    format!("{kind}{room}\0")
}

fn of_node(kind: &str, room: &str, peer: &PeerId) -> String {
    format!("{kind}{room}\0{peer}")
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
        room.own = load_own(store, id, options)?;
        let sequence = store.name(&of_room(SEQUENCE, id))?;
        room.own_sequence = sequence.and_then(|v| v[..].try_into().ok()).map_or(0, u64::from_be_bytes);
        for (key, value) in store.names(&of_room(MEMBER, id), MOST_NODES)? {
            let Ok(node) = minicbor::decode::<NodeRecord>(&value) else { continue };
            let have = store.name(&key.replacen(MEMBER, HAVE, 1))?;
            let have = have.and_then(|value| {
                let record: RootRecord = minicbor::decode(&value).ok()?;
                Some(Have { root: record.root()?, at: UnixMillis(record.at) })
            });
            let NodeRecord { sender, present, json, heard, withdrawn } = node;
            let kept = Kept { sender, present, json, heard: UnixMillis(heard), withdrawn };
            room.restore_node(kept, have, options);
        }
        rooms.insert(id.to_owned(), room);
    }
    Ok(rooms)
}

/// This node's own catalogue. That of the peer it was before its key changed is taken back.
fn load_own(store: &Store, room: &str, options: &Options) -> Result<Option<Root>, StoreError> {
    let Some(own) = options.own else { return Ok(None) };
    let Some(value) = store.name(&of_room(OWN, room))? else { return Ok(None) };
    let record = minicbor::decode::<RootRecord>(&value).ok();
    let whose = record.as_ref().and_then(|record| PeerId::from_bytes(&record.peer).ok());
    match (record, whose) {
        (Some(record), Some(peer)) if peer == own => Ok(record.root()),
        (_, whose) => {
            let key = RoomKey::of(room);
            store.retain_listings(|l| l.room != key || Some(l.peer) != whose)?;
            store.forget_names(&of_room(OWN, room))?;
            Ok(None)
        }
    }
}

/// Forgets all of a room.
pub(super) fn forget(store: &Store, room: &str) -> Result<(), StoreError> {
    for kind in [MEMBER, HAVE, OWN, SEQUENCE, ROOM] {
        store.forget_names(&of_room(kind, room))?;
    }
    Ok(())
}

/// Forgets a node.
pub(super) fn forget_node(store: &Store, room: &str, peer: &PeerId) -> Result<(), StoreError> {
    store.forget_names(&of_node(MEMBER, room, peer))?;
    forget_have(store, room, peer)
}

/// Forgets which catalogue of a node is here.
pub(super) fn forget_have(store: &Store, room: &str, peer: &PeerId) -> Result<(), StoreError> {
    store.forget_names(&of_node(HAVE, room, peer)).map(drop)
}

/// Forgets this node's own catalogue.
pub(super) fn forget_own(store: &Store, room: &str) -> Result<(), StoreError> {
    store.forget_names(&of_room(OWN, room)).map(drop)
}

pub(super) fn room(room: &Room) -> Fact {
    let parts = room.scope_parts.iter();
    let record = RoomRecord {
        name: room.name.clone(),
        mode: match room.mode {
            Mode::Off => 0,
            Mode::Lazy => 1,
            Mode::Follow => 2,
        },
        scope: parts.map(|(key, json)| ScopePart { key: key.clone(), json: json.clone() }).collect(),
    };
    (of_room(ROOM, &room.id), written(&record))
}

pub(super) fn sequence(room: &Room) -> Fact {
    (of_room(SEQUENCE, &room.id), room.own_sequence.to_be_bytes().to_vec())
}

pub(super) fn own(room: &str, root: &Root, peer: &PeerId) -> Fact {
    (of_room(OWN, room), RootRecord::write(root, UnixMillis(0), peer))
}

pub(super) fn have(room: &str, peer: &PeerId, have: &Have) -> Fact {
    (of_node(HAVE, room, peer), RootRecord::write(&have.root, have.at, peer))
}

pub(super) fn node(room: &Room, peer: &PeerId, node: &Node) -> Fact {
    let record = NodeRecord {
        sender: node.sender.clone(),
        present: room.is_user(&node.sender),
        json: node.json.clone(),
        heard: node.heard.0,
        withdrawn: node.withdrawn,
    };
    (of_node(MEMBER, &room.id, peer), written(&record))
}
