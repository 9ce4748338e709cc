//! One room: its scope, its users, and the last word of each node. Pure: time comes in, what is to be kept goes out.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::base::{Multiaddr, PeerId};
use crate::catalogue::{Change, Root};
use crate::rt::UnixMillis;
use crate::store::RoomKey;
use crate::wire::room::{
    Context, INDEX_EVENT, IndexNote, NODE_EVENT, NodeAdvert, PACKAGES_EVENT, Packages, RoomError,
    SCOPE_EVENT, Scope, Seen, Verdict,
};

use super::keep::Kept;
use super::view::Refused;
use super::{Heard, Mode, Options};

/// Refusals that are remembered for people, a room.
const REFUSALS: usize = 64;

/// Scope events of a room that are looked at: what a scope may hold, and some more.
const SCOPE_PARTS: usize = 256;

/// Longest state key of a scope event that is looked at, in bytes.
const KEY_BYTES: usize = 255;

/// Changes of all nodes together that wait until a catalogue can be made of them: some events, 20 MB as entries usually
/// are and 64 MB at worst. Beyond it catalogues are fetched.
pub(super) const PENDING: usize = 16_384;

/// Nodes of one user that are looked at: a team that shares an account, or the machines of a build farm. Nobody takes the
/// places of all others.
const NODES_A_USER: usize = 64;

/// Times that what a node told of changes leads elsewhere than it says, before its catalogues are always fetched.
/// Announcements in several events do so until the last one is here.
const MISSES: u32 = 8;

/// A room that this node's account is in.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) id: String,
    pub(super) key: RoomKey,
    pub(super) name: Option<String>,
    pub(super) mode: Mode,
    users: HashSet<String>,
    pub(super) scope_parts: BTreeMap<String, Vec<u8>>,
    pub(super) scope: Arc<Scope>,
    seen: Seen,
    pub(super) nodes: BTreeMap<PeerId, Node>,
    pub(super) refused: VecDeque<Refused>,
    /// This node's own catalogue, and the number of its last event.
    pub(super) own: Option<Root>,
    pub(super) own_sequence: u64,
    /// When each node told of pages last, by its own clock.
    marks: HashMap<PeerId, u64>,
    /// Nodes that had to make room for others, and are still on disk.
    pub(super) dropped: Vec<PeerId>,
}

/// A node of a member, by its last word.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// The user who sent it.
    pub(super) sender: String,
    pub(super) advert: NodeAdvert,
    /// As it was sent, to be verified again when it is read back.
    pub(super) json: Vec<u8>,
    /// When it came here first.
    pub(super) heard: UnixMillis,
    /// Its sender took it back. It is remembered, so that nobody shows it again.
    pub(super) withdrawn: bool,
    /// Its addresses that are dialled, and those that are not, with the reason.
    pub(super) addresses: Vec<Multiaddr>,
    pub(super) refused_addresses: Vec<(String, String)>,
    /// The newest catalogue that it signed.
    pub(super) goal: Option<Goal>,
    /// The catalogue that is here, all of it.
    pub(super) have: Option<Have>,
    /// Changes that lead to a catalogue, in the order told.
    pub(super) pending: Option<(Root, Vec<Change>)>,
    /// Times that they did not.
    pub(super) misses: u32,
    /// Why its catalogue is not here.
    pub(super) trouble: Option<String>,
}

/// A catalogue that a node signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Goal {
    /// The number of the event.
    pub(super) sequence: u64,
    pub(super) root: Root,
    /// When it said so: by its own clock, unless that is ahead of ours.
    pub(super) at: UnixMillis,
}

/// A catalogue that is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Have {
    pub(super) root: Root,
    /// When its node said last that this is it.
    pub(super) at: UnixMillis,
}

impl Node {
    pub(super) fn have_root(&self) -> Option<Root> {
        self.have.map(|have| have.root)
    }

    pub(super) fn goal_root(&self) -> Option<Root> {
        self.goal.map(|goal| goal.root)
    }
}

impl Room {
    pub(super) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            key: RoomKey::of(id),
            name: None,
            mode: Mode::default(),
            users: HashSet::new(),
            scope_parts: BTreeMap::new(),
            scope: Arc::default(),
            seen: Seen::default(),
            nodes: BTreeMap::new(),
            refused: VecDeque::new(),
            own: None,
            own_sequence: 0,
            marks: HashMap::new(),
            dropped: Vec::new(),
        }
    }

    /// Nodes of users who are in the room: state outlives membership.
    pub(super) fn present(&self) -> impl Iterator<Item = (&PeerId, &Node)> {
        self.nodes.iter().filter(|(_, node)| self.counts(node))
    }

    pub(super) fn is_present(&self, peer: &PeerId) -> bool {
        self.nodes.get(peer).is_some_and(|node| self.counts(node))
    }

    fn counts(&self, node: &Node) -> bool {
        !node.withdrawn && self.users.contains(&node.sender)
    }

    pub(super) fn is_user(&self, user: &str) -> bool {
        self.users.contains(user)
    }

    /// Gives the nodes that are now present, or no longer.
    pub(super) fn member(&mut self, user: &str, joined: bool) -> Vec<PeerId> {
        let changed = match joined {
            true => self.users.insert(user.to_owned()),
            false => self.users.remove(user),
        };
        let theirs = self.nodes.iter().filter(|(_, node)| changed && node.sender == user);
        theirs.map(|(peer, _)| *peer).collect()
    }

    /// The same for all users at once.
    pub(super) fn set_members(&mut self, users: Vec<String>) -> Vec<PeerId> {
        let before = std::mem::replace(&mut self.users, users.into_iter().collect());
        let changed = |user: &String| before.contains(user) != self.users.contains(user);
        self.nodes.iter().filter(|(_, node)| changed(&node.sender)).map(|(peer, _)| *peer).collect()
    }

    /// A state event is now so.
    pub(super) fn state(
        &mut self,
        sender: &str,
        kind: &str,
        key: &str,
        json: &[u8],
        options: &Options,
        now: UnixMillis,
    ) -> Heard {
        let outcome = match kind {
            SCOPE_EVENT => self.scope_part(key, json),
            NODE_EVENT => self.node(sender, key, json, options, now),
            _ => return Heard::Nothing,
        };
        outcome.unwrap_or_else(|why| self.refuse(sender, kind, why, now))
    }

    fn refuse(&mut self, sender: &str, kind: &str, why: String, now: UnixMillis) -> Heard {
        let refused = Refused { sender: sender.to_owned(), kind: kind.to_owned(), why, at: now };
        log::debug!("{}: {kind} of {sender} counts for nothing: {}", self.id, refused.why);
        // A homeserver shows the same state again and again.
        let same =
            |r: &Refused| (&r.sender, &r.kind, &r.why) == (&refused.sender, &refused.kind, &refused.why);
        self.refused.retain(|r| !same(r));
        self.refused.push_back(refused);
        if self.refused.len() > REFUSALS {
            self.refused.pop_front();
        }
        Heard::Refused
    }

    fn scope_part(&mut self, key: &str, json: &[u8]) -> Result<Heard, String> {
        if key.len() > KEY_BYTES
            || self.scope_parts.len() >= SCOPE_PARTS && !self.scope_parts.contains_key(key)
        {
            return Err(format!("more than {SCOPE_PARTS} events say what the room mirrors"));
        }
        let withdrawn = json.trim_ascii() == b"{}";
        if self.scope_parts.get(key).map(Vec::as_slice) == (!withdrawn).then_some(json) {
            return Ok(Heard::Nothing);
        }
        let mut parts = self.scope_parts.clone();
        match withdrawn {
            true => drop(parts.remove(key)),
            false => drop(parts.insert(key.to_owned(), json.to_vec())),
        }
        let mut scope = Scope::default();
        for part in parts.values() {
            scope.add(part).map_err(|e| e.to_string())?;
        }
        (self.scope_parts, self.scope) = (parts, Arc::new(scope));
        Ok(Heard::Scope)
    }

    /// Takes up a scope that was kept.
    pub(super) fn restore_scope(&mut self, parts: BTreeMap<String, Vec<u8>>) {
        let mut scope = Scope::default();
        if parts.values().all(|part| scope.add(part).is_ok()) {
            (self.scope_parts, self.scope) = (parts, Arc::new(scope));
        }
    }

    fn node(
        &mut self,
        sender: &str,
        key: &str,
        json: &[u8],
        options: &Options,
        now: UnixMillis,
    ) -> Result<Heard, String> {
        let context = Context { room: &self.id, sender };
        let advert = match NodeAdvert::read(json, &context, key) {
            Ok(advert) => advert,
            Err(RoomError::Withdrawn) => return Ok(self.withdrawn(sender, key)),
            Err(e) => return Err(e.to_string()),
        };
        let (peer, sequence) = (advert.peer, advert.sequence);
        if Some(peer) == options.own {
            // Said by this node before it lost its count, or by another one with its key.
            self.own_sequence = self.own_sequence.max(sequence);
            return Ok(Heard::Nothing);
        }
        let others = self.nodes.iter().filter(|(other, node)| **other != peer && node.sender == sender);
        if others.count() >= NODES_A_USER {
            return Err(format!("{sender} has more than {NODES_A_USER} nodes in the room"));
        }
        if !self.nodes.contains_key(&peer) {
            self.make_room();
        }
        let context = Context { room: &self.id, sender };
        match self.seen.judge(&advert, &context).map_err(|e| e.to_string())? {
            Verdict::Same => return Ok(Heard::Nothing),
            Verdict::News => {}
        }
        let before = self.nodes.remove(&peer);
        let at = UnixMillis(advert.time_ms.min(now.0));
        let told = before.as_ref().and_then(|b| b.goal).filter(|goal| goal.sequence >= sequence);
        let goal = told.or(advert.catalogue.map(|root| Goal { sequence, root, at }));
        let have =
            before.as_ref().and_then(|b| b.have).map(|have| match advert.catalogue == Some(have.root) {
                true => Have { at: have.at.max(at), ..have },
                false => have,
            });
        let (addresses, refused) = advert.dialable(options.allow);
        let refused = refused.into_iter().map(|(address, why)| (address.to_owned(), why.to_string()));
        let node = Node {
            sender: sender.to_owned(),
            json: json.to_vec(),
            heard: now,
            withdrawn: false,
            addresses,
            refused_addresses: refused.collect(),
            goal,
            have,
            misses: before.as_ref().map_or(0, |b| b.misses),
            pending: before.and_then(|b| b.pending),
            trouble: None,
            advert,
        };
        self.nodes.insert(peer, node);
        Ok(Heard::Node(peer))
    }

    /// Forgets a node that does not count, where no further one would be remembered: the one heard of longest ago.
    fn make_room(&mut self) {
        if !self.seen.is_full() {
            return;
        }
        let idle = self.nodes.iter().filter(|(_, node)| !self.counts(node));
        let Some(peer) = idle.min_by_key(|(_, node)| node.heard).map(|(peer, _)| *peer) else { return };
        self.nodes.remove(&peer);
        self.seen.forget(&peer);
        self.marks.remove(&peer);
        self.dropped.push(peer);
    }

    /// Forgets which catalogues are here of nodes that do not count: they would take the places of those that do. Gives
    /// whose they were.
    pub(super) fn forget_absent(&mut self) -> Vec<PeerId> {
        let absent: Vec<PeerId> = self
            .nodes
            .iter()
            .filter(|(_, node)| node.have.is_some() && !self.counts(node))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in &absent {
            if let Some(node) = self.nodes.get_mut(peer) {
                (node.have, node.pending) = (None, None);
            }
        }
        absent
    }

    /// Takes up a node that was kept: it is verified like any other, and what is here of it is taken on trust in our
    /// own disk.
    pub(super) fn restore_node(&mut self, kept: Kept, have: Option<Have>, options: &Options) {
        let Ok(key) = peer_of(&kept.json) else { return };
        let heard = self.node(&kept.sender, &key, &kept.json, options, kept.heard);
        let Ok(Heard::Node(peer)) = heard else { return };
        if let Some(node) = self.nodes.get_mut(&peer) {
            (node.have, node.withdrawn) = (have, kept.withdrawn);
        }
        if kept.present {
            self.users.insert(kept.sender);
        }
    }

    /// Only who said it takes it back: anybody with the power to set state can overwrite anybody's event.
    fn withdrawn(&mut self, sender: &str, key: &str) -> Heard {
        let node = key.parse::<PeerId>().ok().and_then(|peer| Some((peer, self.nodes.get_mut(&peer)?)));
        match node {
            Some((peer, node)) if node.sender == sender && !node.withdrawn => {
                node.withdrawn = true;
                Heard::Node(peer)
            }
            _ => Heard::Nothing,
        }
    }

    /// Somebody said something. So many changes more may wait.
    pub(super) fn timeline(
        &mut self,
        sender: &str,
        kind: &str,
        json: &[u8],
        own: Option<PeerId>,
        now: UnixMillis,
        may_wait: usize,
    ) -> Heard {
        if !matches!(kind, PACKAGES_EVENT | INDEX_EVENT) {
            return Heard::Nothing;
        }
        let outcome = match self.is_user(sender) {
            false => Err("its sender is not in the room".into()),
            true if kind == PACKAGES_EVENT => self.packages(sender, json, own, now, may_wait),
            true => self.index(sender, json, own),
        };
        outcome.unwrap_or_else(|why| self.refuse(sender, kind, why, now))
    }

    fn packages(
        &mut self,
        sender: &str,
        json: &[u8],
        own: Option<PeerId>,
        now: UnixMillis,
        may_wait: usize,
    ) -> Result<Heard, String> {
        let context = Context { room: &self.id, sender };
        let packages = Packages::read(json, &context).map_err(|e| e.to_string())?;
        let (peer, sequence, root) = (packages.peer, packages.sequence, packages.root);
        if Some(peer) == own {
            return Ok(Heard::Nothing);
        }
        // Of one that is not known its state event says all of this, and will come.
        let Some(node) = self.nodes.get_mut(&peer).filter(|node| node.sender == sender) else {
            return Ok(Heard::Nothing);
        };
        match node.goal {
            Some(goal) if goal.sequence > sequence => return Ok(Heard::Nothing),
            Some(goal) if goal.sequence == sequence && goal.root != root => {
                return Err(format!("the peer {peer} said two different things as number {sequence}"));
            }
            // Nothing older than its last state event, which may have taken a catalogue back.
            None if node.advert.sequence >= sequence => return Ok(Heard::Nothing),
            _ => {}
        }
        if node.have_root() == Some(root) {
            return Ok(Heard::Nothing);
        }
        let before = node.pending.take();
        let freed = before.as_ref().map_or(0, |(_, changes)| changes.len());
        let mut changes = match before {
            Some((of, changes)) if of == root => changes,
            _ => Vec::new(),
        };
        changes.extend(packages.added.into_iter().map(Change::put));
        changes.extend(packages.removed.into_iter().map(|(purl, file)| Change::Remove { purl, file }));
        node.goal = Some(Goal { sequence, root, at: now });
        node.trouble = None;
        let may = node.misses < MISSES && changes.len() <= may_wait + freed;
        node.pending = may.then_some((root, changes));
        Ok(Heard::Packages(peer))
    }

    /// Changes that wait.
    pub(super) fn waiting(&self) -> usize {
        let waiting = self.nodes.values().filter_map(|node| node.pending.as_ref());
        waiting.map(|(_, changes)| changes.len()).sum()
    }

    fn index(&mut self, sender: &str, json: &[u8], own: Option<PeerId>) -> Result<Heard, String> {
        let context = Context { room: &self.id, sender };
        let mut note = IndexNote::read(json, &context).map_err(|e| e.to_string())?;
        let known = self.nodes.get(&note.peer).is_some_and(|node| node.sender == sender);
        if Some(note.peer) == own || !known {
            return Ok(Heard::Nothing);
        }
        let last = self.marks.entry(note.peer).or_default();
        if note.time_ms <= *last {
            return Err(format!("the peer {} said this before", note.peer));
        }
        *last = note.time_ms;
        note.indexes.retain(|(package, _)| self.scope.touches(package));
        Ok(Heard::Index(note))
    }
}

/// The peer that an event that was kept names.
fn peer_of(json: &[u8]) -> Result<String, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Named {
        peer: String,
    }
    serde_json::from_slice::<Named>(json).map(|named| named.peer)
}
