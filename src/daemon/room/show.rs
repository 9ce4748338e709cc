//! `dpm room show`: who is in a room, what they have, and what of it is here.
//!
//! Catalogues are walked and counted, an entry at a time: a room of a million files takes no more memory than one of ten.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::Failure;
use crate::base::{Digest, PeerId};
use crate::catalogue::Entry;
use crate::daemon::Rooms;
use crate::members::{Dispute, Members, MembersError, NodeView, RoomView};
use crate::store::{Store, StoreError};
use crate::swarm::PeerInfo;

/// Files that are here or not.
#[derive(Clone, Copy, Default)]
struct Count {
    files: u64,
    bytes: u64,
}

impl Count {
    fn add(&mut self, entry: &Entry) {
        self.files += 1;
        self.bytes += entry.size;
    }

    fn json(self) -> Value {
        json!({"files": self.files, "bytes": self.bytes})
    }
}

/// A node's files in the scope.
#[derive(Default)]
struct Tally {
    all: Count,
    missing: Count,
    packages: u64,
    /// The package of the entry before: a catalogue has those of one together.
    last: Option<String>,
}

/// All nodes' files in the scope, each once; and as many that are missing here as were asked for.
#[derive(Default)]
struct Together {
    all: Count,
    missing: Count,
    listed: Vec<Value>,
}

/// Shows a room; `listed` is the most that is listed of what is missing here. Blocks.
pub(super) fn show(rooms: &Rooms, room: &str, listed: Option<usize>) -> Result<Value, Failure> {
    let view = view(&rooms.members, room)?;
    let connected = rooms.near.as_ref().map(|(swarm, _)| swarm.peers()).unwrap_or_default();
    let walk = Walk::of(rooms, &view);
    let (mut nodes, mut together) = (Vec::new(), Together::default());
    for node in &view.nodes {
        let mut tally = Tally::default();
        let trouble = match walk.counts(node) {
            true => count(&walk, node, listed.unwrap_or(0), &mut tally, &mut together).err(),
            false => None,
        };
        let trouble = trouble.map(|e| e.to_string()).or_else(|| node.trouble.clone());
        nodes.push(row(node, connected.iter().find(|c| c.peer == node.peer), &tally, trouble));
    }
    let now = rooms.clock.now();
    let refused: Vec<_> = view
        .refused
        .iter()
        .rev()
        .map(|r| {
            let ago = now.since(r.at).as_secs();
            json!({"sender": r.sender, "kind": r.kind, "why": r.why, "seconds_ago": ago})
        })
        .collect();
    let starred = view.scope.iter().filter(|pattern| pattern.contains('*')).count();
    let more = together.missing.files - together.listed.len() as u64;
    Ok(json!({
        "room": view.room, "name": view.name, "mirror": view.mode.as_str(),
        "scope": {"packages": view.scope.len() - starred, "patterns": starred},
        "own": view.own.map(|root| json!({"files": root.entries, "root": root.cid().to_string()})),
        "members": nodes, "in_scope": together.all.json(), "missing_here": together.missing.json(),
        "missing": listed.map(|_| together.listed), "missing_not_listed": listed.map(|_| more),
        "refused": refused,
        "disputes": disputes(rooms, &view),
    }))
}

/// A room that this node is in.
pub(super) fn view(members: &Members, room: &str) -> Result<RoomView, MembersError> {
    let found = members.rooms().into_iter().find(|view| view.room == room);
    found.ok_or_else(|| MembersError::NoRoom(room.to_owned()))
}

/// Walking the catalogues of a room, so that each file counts once.
pub(super) struct Walk<'a> {
    store: &'a Store,
    members: &'a Members,
    room: &'a str,
    /// Whose catalogues count.
    peers: BTreeSet<PeerId>,
}

impl<'a> Walk<'a> {
    pub(super) fn of(rooms: &'a Rooms, view: &'a RoomView) -> Self {
        let counts = |node: &&NodeView| node.present && !node.too_old && node.here.is_some();
        let peers = view.nodes.iter().filter(counts).map(|node| node.peer).collect();
        Self { store: &rooms.store, members: &rooms.members, room: &view.room, peers }
    }

    /// Whether a node's catalogue counts.
    pub(super) fn counts(&self, node: &NodeView) -> bool {
        self.peers.contains(&node.peer)
    }

    /// Shows every file of a node in the scope. An image's tags are no files.
    pub(super) fn files(
        &self,
        peer: &PeerId,
        visit: &mut dyn FnMut(Entry) -> Result<(), StoreError>,
    ) -> Result<(), Failure> {
        let mut failure = None;
        self.members.entries(self.room, peer, &mut |entry: Entry| {
            if failure.is_none() && !is_tag(&entry) {
                failure = visit(entry).err();
            }
        })?;
        failure.map_or(Ok(()), |e| Err(e.into()))
    }

    /// Whether it is stored.
    pub(super) fn is_here(&self, entry: &Entry) -> Result<bool, StoreError> {
        for digest in &entry.digests {
            if self.store.describe(digest)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Nodes of the room that list a file which this one lists.
    pub(super) fn holders(&self, entry: &Entry, peer: &PeerId) -> Vec<PeerId> {
        if self.peers.len() < 2 {
            return vec![*peer];
        }
        let mut holders = entry.sha256().map(|sha256| self.members.holders(&sha256)).unwrap_or_default();
        holders.retain(|holder| self.peers.contains(holder));
        match holders.is_empty() {
            // Without a SHA-256 nobody is looked up by.
            true => vec![*peer],
            false => holders,
        }
    }
}

/// Whether an entry of an image says what a tag means.
pub(super) fn is_tag(entry: &Entry) -> bool {
    entry.purl.kind() == "oci" && entry.file.parse::<Digest>().is_err()
}

fn count(
    walk: &Walk<'_>,
    node: &NodeView,
    most: usize,
    tally: &mut Tally,
    together: &mut Together,
) -> Result<(), Failure> {
    walk.files(&node.peer, &mut |entry| {
        tally.all.add(&entry);
        let package = entry.purl.package().to_string();
        if tally.last.as_ref() != Some(&package) {
            tally.packages += 1;
            tally.last = Some(package);
        }
        let here = walk.is_here(&entry)?;
        let holders = walk.holders(&entry, &node.peer);
        // Each file counts with the first of those who list it.
        let counts = holders.iter().min() == Some(&node.peer);
        if counts {
            together.all.add(&entry);
        }
        if here {
            return Ok(());
        }
        tally.missing.add(&entry);
        if counts {
            together.missing.add(&entry);
            if together.listed.len() < most {
                let holders: Vec<_> = holders.iter().map(ToString::to_string).collect();
                together.listed.push(json!({
                    "package": entry.purl.as_str(), "file": entry.file, "bytes": entry.size,
                    "digest": entry.digests.first().map(ToString::to_string), "members": holders,
                }));
            }
        }
        Ok(())
    })
}

fn row(node: &NodeView, connected: Option<&PeerInfo>, tally: &Tally, trouble: Option<String>) -> Value {
    let refused = node.refused_addresses.iter();
    let refused: Vec<_> = refused.map(|(address, why)| json!({"address": address, "why": why})).collect();
    json!({
        "user": node.user, "name": node.name, "peer": node.peer.to_string(), "agent": node.agent,
        "present": node.present, "connected": connected.is_some(),
        "round_trip_ms": connected.and_then(|c| c.rtt).map(|rtt| rtt.as_secs_f64() * 1e3),
        "age_seconds": node.age.as_secs(), "too_old": node.too_old,
        "addresses": node.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "refused_addresses": refused,
        // As it says; what is counted below is what of it is known here and in the scope.
        "says_files": node.newest.map(|root| root.entries),
        "known": node.here.is_some() && node.here == node.newest,
        "packages": tally.packages, "files": tally.all.files, "bytes": tally.all.bytes,
        "missing_here": tally.missing.json(), "trouble": trouble,
    })
}

/// Those that were met, of this room's nodes.
fn disputes(rooms: &Rooms, view: &RoomView) -> Vec<Value> {
    let is_ours = |dispute: &Dispute| {
        dispute.tellers.iter().any(|(teller, _)| view.nodes.iter().any(|node| node.peer == teller.peer))
    };
    let found = rooms.members.disputes();
    let rows = found.iter().filter(|dispute| is_ours(dispute)).map(|dispute| {
        let tellers: Vec<_> = dispute
            .tellers
            .iter()
            .map(|(teller, says)| {
                json!({
                    "user": teller.user, "peer": teller.peer.to_string(), "name": teller.name, "says": says,
                })
            })
            .collect();
        json!({"package": dispute.purl.as_str(), "file": dispute.file, "members": tellers})
    });
    rows.collect()
}
