//! What the members of rooms say: who they are on libp2p, what they have, what a room mirrors.
//!
//! Takes events as the homeserver gives them, verifies them, and keeps the last word of each node with its catalogue, over
//! restarts too. Knows nothing of Matrix and opens no connection: whoever brings events and blocks is above. Most of
//! it blocks on the index: call it through a gate, but for [`Members::is_member`] and [`Members::addresses`].
//!
//! A member's word is good for which bytes a name means only in a room that the operator joined as a mirror, and only
//! while the member is in the room. `ROOMS.md` is the specification.

mod keep;
mod names;
mod own;
mod pull;
mod room;
#[cfg(test)]
mod tests;
mod view;
mod writers;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::base::{Multiaddr, PackageUrl, PeerId, Sha256};
use crate::catalogue::{CatalogueError, Root};
use crate::rt::Clock;
use crate::store::{Listing, RoomKey, Store, StoreError};
use crate::wire::room::{Allow, IndexNote};

pub use names::{Dispute, Known, Teller};
pub use pull::{Pulling, Wanted};
pub use view::{NodeView, Refused, RoomView};

use room::Room;
use writers::Writers;

/// Most entries of one member's catalogue that are brought here: twice the million that catalogues are made for, some
/// 500 MB of disk.
pub const MOST_PULLED: u64 = 2 << 20;

/// Most entries of all members' catalogues together: some 2 GB of disk.
pub const MOST_PULLED_TOGETHER: u64 = 8 << 20;

/// Rooms that are kept: as many as the rooms' client looks at.
pub const ROOMS: usize = 64;

/// Nodes that are told of as having one file: more than it is taken from.
pub const HOLDERS: usize = 64;

/// Bytes of blocks of catalogues that never became whole, after which no other is fetched before they are swept out: a
/// member whose catalogues have a block too few leaves no more.
const ORPHANED: u64 = 256 << 20;

/// How a room is used by this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// What its members say stands for nothing: no name is answered from it. Bytes are taken, by their digests.
    Off,
    /// What its members have is known, and stands in when the upstream is gone.
    #[default]
    Lazy,
    /// The same, and what they announce is fetched.
    Follow,
}

impl Mode {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Lazy => "lazy",
            Self::Follow => "follow",
        }
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Off, Self::Lazy, Self::Follow];
        let found = all.into_iter().find(|mode| mode.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no way to mirror a room: off, lazy or follow"))
    }
}

/// How [`Members`] judges.
#[derive(Clone, Debug)]
pub struct Options {
    /// This node, if it has a swarm.
    pub own: Option<PeerId>,
    /// Which addresses of members are dialled.
    pub allow: Allow,
    /// How old a member's word may be that a name is answered by.
    pub max_age: Duration,
    /// Tells ages.
    pub clock: Clock,
}

impl Default for Options {
    fn default() -> Self {
        Self { own: None, allow: Allow::Global, max_age: MAX_AGE, clock: Clock::default() }
    }
}

/// As long as an index page is served that its upstream does not confirm.
pub const MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The members of all rooms; clones are one.
#[derive(Clone)]
pub struct Members {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    options: Options,
    rooms: Mutex<BTreeMap<String, Room>>,
    disputes: Mutex<Vec<(String, Dispute)>>,
    /// Held by whoever writes something down, from before it changes what is in memory: so both change in one order. The
    /// lock on the rooms is never held over work on the disk, for tasks that must not wait take it.
    order: Mutex<()>,
    writers: Arc<Writers>,
    /// Bytes of blocks that were fetched for catalogues that never became whole.
    orphaned: AtomicU64,
}

/// What an event was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Nothing new, or nothing for us.
    Nothing,
    /// The room mirrors something else now.
    Scope,
    /// A node is there, somewhere else, or has another catalogue.
    Node(PeerId),
    /// A node has got packages, or lost some.
    Packages(PeerId),
    /// Index pages changed.
    Index(IndexNote),
    /// It counts for nothing; [`Members::rooms`] says why.
    Refused,
}

impl Members {
    /// With what was kept.
    pub fn open(store: Store, options: Options) -> Result<Self, StoreError> {
        let rooms = keep::load(&store, &options)?;
        let inner = Inner {
            store,
            options,
            rooms: Mutex::new(rooms),
            disputes: Mutex::default(),
            order: Mutex::default(),
            writers: Arc::default(),
            orphaned: AtomicU64::new(0),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// This node's account is in a room, and an operator wants it to be looked after.
    pub fn joined(&self, room: &str, name: Option<&str>) {
        let _order = self.order();
        let fact = {
            let mut rooms = self.lock();
            if rooms.len() >= ROOMS && !rooms.contains_key(room) {
                return log::warn!("{room}: more than {ROOMS} rooms are not looked after");
            }
            let new = !rooms.contains_key(room);
            let known = rooms.entry(room.to_owned()).or_insert_with(|| Room::new(room));
            let same = !new && (name.is_none() || known.name.as_deref() == name);
            if name.is_some() {
                known.name = name.map(str::to_owned);
            }
            (!same).then(|| keep::room(known))
        };
        self.keep(fact);
    }

    /// It is no longer: everything of the room is forgotten.
    pub fn left(&self, room: &str) {
        {
            let _order = self.order();
            if self.lock().remove(room).is_none() {
                return;
            }
            complain(keep::forget(&self.inner.store, room));
        }
        self.sweep();
    }

    /// The rooms that this node's account is in.
    pub fn ids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// A user has come to a room, or is there no more.
    pub fn member(&self, room: &str, user: &str, joined: bool) {
        self.users_changed(room, |room| room.member(user, joined));
    }

    /// Who is in a room, all of them.
    pub fn set_members(&self, room: &str, users: Vec<String>) {
        self.users_changed(room, |room| room.set_members(users));
    }

    fn users_changed(&self, room: &str, change: impl FnOnce(&mut Room) -> Vec<PeerId>) {
        let _order = self.order();
        let facts: Vec<_> = {
            let mut rooms = self.lock();
            let Some(room) = rooms.get_mut(room) else { return };
            let changed = change(room);
            let nodes = changed.iter().filter_map(|peer| Some(keep::node(room, peer, room.nodes.get(peer)?)));
            nodes.collect()
        };
        self.keep(facts);
    }

    /// A state event of a room is now so.
    pub fn hear_state(&self, room: &str, sender: &str, kind: &str, key: &str, json: &[u8]) -> Heard {
        let (heard, taken_back) = {
            let _order = self.order();
            let (heard, facts, dropped, taken_back) = {
                let mut rooms = self.lock();
                let Some(room) = rooms.get_mut(room) else { return Heard::Nothing };
                let options = &self.inner.options;
                let heard = room.state(sender, kind, key, json, options, options.clock.now());
                let dropped = std::mem::take(&mut room.dropped);
                let (mut facts, mut taken_back) = (Vec::new(), None);
                match &heard {
                    Heard::Scope => facts.push(keep::room(room)),
                    Heard::Node(peer) => {
                        if let Some(node) = room.nodes.get(peer) {
                            facts.push(keep::node(room, peer, node));
                            facts.extend(node.have.map(|have| keep::have(&room.id, peer, &have)));
                            taken_back = node.have.filter(|_| node.goal.is_none()).map(|have| (*peer, have));
                        }
                    }
                    _ => {}
                }
                (heard, facts, dropped, taken_back)
            };
            self.keep(facts);
            let store = &self.inner.store;
            dropped.iter().for_each(|peer| complain(keep::forget_node(store, room, peer)));
            (heard, taken_back)
        };
        if let Some((peer, have)) = taken_back
            && let Err(e) = self.lists_nothing(room, &peer, have)
        {
            log::error!("{room}: what {peer} took back is still listed: {e}");
        }
        heard
    }

    /// Somebody said something in a room.
    pub fn hear_timeline(&self, room: &str, sender: &str, kind: &str, json: &[u8]) -> Heard {
        let heard = {
            let mut rooms = self.lock();
            let waiting: usize = rooms.values().map(Room::waiting).sum();
            let Some(room) = rooms.get_mut(room) else { return Heard::Nothing };
            let (own, now) = (self.inner.options.own, self.inner.options.clock.now());
            room.timeline(sender, kind, json, own, now, room::PENDING.saturating_sub(waiting))
        };
        if let Heard::Packages(peer) = &heard {
            // With what is known already the new catalogue may be made right here: then nothing need be fetched.
            if let Err(e) = self.catch_up(room, peer) {
                log::debug!("{room}: {peer}'s catalogue will be fetched: {e}");
            }
        }
        heard
    }

    /// How a room is used here.
    pub fn mode(&self, room: &str) -> Mode {
        self.lock().get(room).map(|room| room.mode).unwrap_or_default()
    }

    /// Uses a room so from now on; `false` when this node is not in it.
    pub fn set_mode(&self, room: &str, mode: Mode) -> bool {
        let _order = self.order();
        let fact = {
            let mut rooms = self.lock();
            let Some(room) = rooms.get_mut(room) else { return false };
            room.mode = mode;
            keep::room(room)
        };
        self.keep([fact]);
        true
    }

    /// Whether a room mirrors a package.
    pub fn in_scope(&self, room: &str, purl: &PackageUrl) -> bool {
        self.lock().get(room).is_some_and(|room| room.scope.has(purl))
    }

    /// Whether a room mirrors any version of a package (a URL without version).
    pub fn touches(&self, room: &str, package: &PackageUrl) -> bool {
        self.lock().get(room).is_some_and(|room| room.scope.touches(package))
    }

    /// Nodes of the present members of a room, with the catalogue of each that is here.
    pub fn catalogues(&self, room: &str) -> Vec<(PeerId, Option<Root>)> {
        let rooms = self.lock();
        let nodes = rooms
            .get(room)
            .map(|room| room.present().map(|(peer, node)| (*peer, node.have_root())).collect());
        nodes.unwrap_or_default()
    }

    /// Nodes of present members, with the addresses that may be dialled. Touches no disk.
    pub fn addresses(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let rooms = self.lock();
        let mut found: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
        for (peer, node) in rooms.values().flat_map(Room::present) {
            let addresses = found.entry(*peer).or_default();
            for address in &node.addresses {
                if !addresses.contains(address) {
                    addresses.push(address.clone());
                }
            }
        }
        found.into_iter().collect()
    }

    /// Whether a peer is a node of somebody who is in a room with us. Touches no disk.
    pub fn is_member(&self, peer: &PeerId) -> bool {
        self.lock().values().any(|room| room.is_present(peer))
    }

    /// Nodes of present members that list a file, [`HOLDERS`] at most. Blocks.
    pub fn holders(&self, sha256: &Sha256) -> Vec<PeerId> {
        let listings = self.inner.store.listings(sha256).unwrap_or_else(|e| {
            log::error!("looking for who lists {sha256}: {e}");
            Vec::new()
        });
        if listings.is_empty() {
            return Vec::new();
        }
        let rooms = self.lock();
        let there = |l: &Listing| rooms.values().any(|r| r.key == l.room && r.is_present(&l.peer));
        let mut peers: Vec<_> = listings.into_iter().filter(there).map(|listing| listing.peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers.truncate(HOLDERS);
        peers
    }

    /// Whether this node lists a file in a room that a peer is in. Blocks.
    pub fn may_have(&self, peer: &PeerId, sha256: &Sha256) -> bool {
        let Some(own) = self.inner.options.own else { return false };
        let rooms: Vec<RoomKey> = {
            let rooms = self.lock();
            rooms.values().filter(|room| room.is_present(peer)).map(|room| room.key).collect()
        };
        let store = &self.inner.store;
        rooms.into_iter().any(|room| {
            store.is_listed(&Listing { sha256: *sha256, room, peer: own }).unwrap_or_else(|e| {
                log::error!("looking whether {sha256} is listed: {e}");
                false
            })
        })
    }

    /// Whether so much lies about that nothing is fetched before [`Members::sweep`].
    pub fn needs_sweep(&self) -> bool {
        self.inner.orphaned.load(Ordering::Relaxed) > ORPHANED
    }

    fn order(&self) -> MutexGuard<'_, ()> {
        self.inner.order.lock().expect("nothing panics under this lock")
    }

    fn keep(&self, facts: impl IntoIterator<Item = keep::Fact>) {
        for (name, value) in facts {
            complain(self.inner.store.note(&name, &value));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Room>> {
        self.inner.rooms.lock().expect("nothing panics under this lock")
    }
}

fn complain<T>(outcome: Result<T, StoreError>) {
    if let Err(e) = outcome {
        log::error!("what a room's members said could not be kept: {e}");
    }
}

/// Why a catalogue could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum MembersError {
    /// It is wrong, or a block of it is absent.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This node's account is not in the room.
    #[error("{0} is no room that this node is in")]
    NoRoom(String),
    /// Nothing can be advertised without an identity among peers.
    #[error("this node has no swarm, so it has nothing to advertise")]
    NoSwarm,
    /// Somebody else's word came in between.
    #[error("it is no longer what was wanted")]
    Overtaken,
    /// Larger than what is brought here.
    #[error(
        "its catalogue has {0} entries, {MOST_PULLED} are taken, and {MOST_PULLED_TOGETHER} of all members"
    )]
    TooLarge(u64),
}

/// A catalogue without entries.
fn empty() -> Root {
    let nobody: [crate::catalogue::Entry; 0] = [];
    crate::catalogue::build(nobody, &mut |_, _| {}).expect("no entry breaks no rule")
}
