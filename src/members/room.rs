//! One room: its scope, its users, and the last word of each node. Pure: time comes in, what is to be kept goes out.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use crate::base::PeerId;
use crate::catalogue::{Change, Root};
use crate::rt::UnixMillis;
use crate::store::RoomKey;
use crate::wire::room::{
    Context, INDEX_EVENT, IndexNote, NODE_EVENT, NodeAdvert, PACKAGES_EVENT, Packages, RoomError,
    SCOPE_EVENT, Scope, Seen, Verdict,
};

use super::view::Refused;
use super::{Heard, Mode};

/// Refusals that are remembered for people, a room.
const REFUSALS: usize = 64;

/// Scope events of a room that are looked at: what a scope may hold, and some more.
const SCOPE_PARTS: usize = 256;

/// Longest state key of a scope event that is looked at, in bytes.
const KEY_BYTES: usize = 255;

/// Changes of one node that wait until a catalogue can be made of them: some events. Beyond it the catalogue is
/// fetched.
const PENDING: usize = 8192;

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
    /// Pages that were told of, and what was told of them last.
    marks: HashMap<PeerId, u64>,
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
    /// The newest catalogue that it signed, with the number of the event.
    pub(super) goal: Option<(u64, Root)>,
    /// The catalogue that is here, all of it.
    pub(super) have: Option<Root>,
    /// Changes that lead to a catalogue, in the order told.
    pub(super) pending: Option<(Root, Vec<Change>)>,
    /// Why its catalogue is not here.
    pub(super) trouble: Option<String>,
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
        }
    }

    /// Nodes of users who are in the room: state outlives membership.
    pub(super) fn present(&self) -> impl Iterator<Item = (&PeerId, &Node)> {
        self.nodes.iter().filter(|(_, node)| self.users.contains(&node.sender))
    }

    pub(super) fn is_present(&self, peer: &PeerId) -> bool {
        self.nodes.get(peer).is_some_and(|node| self.users.contains(&node.sender))
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
        own: Option<PeerId>,
        now: UnixMillis,
    ) -> Heard {
        let outcome = match kind {
            SCOPE_EVENT => self.scope_part(key, json),
            NODE_EVENT => self.node(sender, key, json, own, now),
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
        own: Option<PeerId>,
        now: UnixMillis,
    ) -> Result<Heard, String> {
        let context = Context { room: &self.id, sender };
        let advert = match NodeAdvert::read(json, &context, key) {
            Ok(advert) => advert,
            Err(RoomError::Withdrawn) => return Ok(self.withdrawn(sender, key)),
            Err(e) => return Err(e.to_string()),
        };
        if Some(advert.peer) == own {
            // Said by this node before it lost its count, or by another one with its key.
            self.own_sequence = self.own_sequence.max(advert.sequence);
            return Ok(Heard::Nothing);
        }
        match self.seen.judge(&advert, &context).map_err(|e| e.to_string())? {
            Verdict::Same => return Ok(Heard::Nothing),
            Verdict::News => {}
        }
        let before = self.nodes.remove(&advert.peer);
        let (sequence, peer) = (advert.sequence, advert.peer);
        let told = before.as_ref().and_then(|b| b.goal).filter(|(number, _)| *number >= sequence);
        let goal = told.or(advert.catalogue.map(|root| (sequence, root)));
        let node = Node {
            sender: sender.to_owned(),
            json: json.to_vec(),
            heard: now,
            goal,
            have: before.as_ref().and_then(|b| b.have),
            pending: before.and_then(|b| b.pending),
            trouble: None,
            advert,
        };
        self.nodes.insert(peer, node);
        Ok(Heard::Node(peer))
    }

    /// Takes up a node that was kept: it is verified like any other, and what is here of it is taken on trust in our
    /// own disk.
    pub(super) fn restore_node(
        &mut self,
        sender: &str,
        present: bool,
        json: &[u8],
        heard: UnixMillis,
        have: Option<Root>,
    ) {
        let Ok(key) = peer_of(json) else { return };
        let Ok(Heard::Node(peer)) = self.node(sender, &key, json, None, heard) else { return };
        if let Some(node) = self.nodes.get_mut(&peer) {
            node.have = have;
        }
        if present {
            self.users.insert(sender.to_owned());
        }
    }

    /// Only who said it takes it back: anybody with the power to set state can overwrite anybody's event.
    fn withdrawn(&mut self, sender: &str, key: &str) -> Heard {
        let Ok(peer) = key.parse::<PeerId>() else { return Heard::Nothing };
        match self.nodes.get(&peer) {
            Some(node) if node.sender == sender => {
                self.nodes.remove(&peer);
                Heard::Node(peer)
            }
            _ => Heard::Nothing,
        }
    }

    /// Somebody said something.
    pub(super) fn timeline(
        &mut self,
        sender: &str,
        kind: &str,
        json: &[u8],
        own: Option<PeerId>,
        now: UnixMillis,
    ) -> Heard {
        if !matches!(kind, PACKAGES_EVENT | INDEX_EVENT) {
            return Heard::Nothing;
        }
        let outcome = match self.is_user(sender) {
            false => Err("its sender is not in the room".into()),
            true if kind == PACKAGES_EVENT => self.packages(sender, json, own),
            true => self.index(sender, json, own),
        };
        outcome.unwrap_or_else(|why| self.refuse(sender, kind, why, now))
    }

    fn packages(&mut self, sender: &str, json: &[u8], own: Option<PeerId>) -> Result<Heard, String> {
        let context = Context { room: &self.id, sender };
        let packages = Packages::read(json, &context).map_err(|e| e.to_string())?;
        let peer = packages.peer;
        if Some(peer) == own {
            return Ok(Heard::Nothing);
        }
        // Of one that is not known its state event says all of this, and will come.
        let Some(node) = self.nodes.get_mut(&peer).filter(|node| node.sender == sender) else {
            return Ok(Heard::Nothing);
        };
        match node.goal {
            Some((number, _)) if number > packages.sequence => return Ok(Heard::Nothing),
            Some((number, root)) if number == packages.sequence && root != packages.root => {
                return Err(format!("the peer {peer} said two different things as number {number}"));
            }
            _ => {}
        }
        if node.have == Some(packages.root) {
            return Ok(Heard::Nothing);
        }
        let (root, mut changes) = match node.pending.take() {
            Some((root, changes)) if root == packages.root => (root, changes),
            _ => (packages.root, Vec::new()),
        };
        changes.extend(packages.added.into_iter().map(Change::put));
        changes.extend(packages.removed.into_iter().map(|(purl, file)| Change::Remove { purl, file }));
        node.goal = Some((packages.sequence, root));
        node.trouble = None;
        node.pending = (changes.len() <= PENDING).then_some((root, changes));
        Ok(Heard::Packages(peer))
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
