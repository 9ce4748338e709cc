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
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::base::{Multiaddr, PackageUrl, PeerId, Sha256};
use crate::catalogue::{CatalogueError, Root};
use crate::rt::Clock;
use crate::store::{RoomKey, Store, StoreError};
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
    writers: Arc<Writers>,
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
            writers: Arc::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// This node's account is in a room.
    pub fn joined(&self, room: &str, name: Option<&str>) {
        let mut rooms = self.lock();
        if rooms.len() >= ROOMS && !rooms.contains_key(room) {
            return log::warn!("{room}: more than {ROOMS} rooms are not looked after");
        }
        let known = rooms.entry(room.to_owned()).or_insert_with(|| Room::new(room));
        if name.is_some() {
            known.name = name.map(str::to_owned);
        }
        self.keep_room(known);
    }

    /// It is no longer: everything of the room is forgotten.
    pub fn left(&self, room: &str) {
        if self.lock().remove(room).is_none() {
            return;
        }
        let key = RoomKey::of(room);
        let forgotten = keep::forget(&self.inner.store, room)
            .and_then(|()| self.inner.store.retain_listings(|listing| listing.room != key));
        complain(forgotten);
        self.sweep();
    }

    /// The rooms that this node's account is in.
    pub fn ids(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// A user has come to a room, or is there no more.
    pub fn member(&self, room: &str, user: &str, joined: bool) {
        let mut rooms = self.lock();
        let Some(room) = rooms.get_mut(room) else { return };
        for peer in room.member(user, joined) {
            self.keep_node(room, &peer);
        }
    }

    /// Who is in a room, all of them.
    pub fn set_members(&self, room: &str, users: Vec<String>) {
        let mut rooms = self.lock();
        let Some(room) = rooms.get_mut(room) else { return };
        for peer in room.set_members(users) {
            self.keep_node(room, &peer);
        }
    }

    /// A state event of a room is now so.
    pub fn hear_state(&self, room: &str, sender: &str, kind: &str, key: &str, json: &[u8]) -> Heard {
        let mut rooms = self.lock();
        let Some(room) = rooms.get_mut(room) else { return Heard::Nothing };
        let now = self.inner.options.clock.now();
        let heard = room.state(sender, kind, key, json, self.inner.options.own, now);
        match &heard {
            Heard::Scope => self.keep_room(room),
            Heard::Node(peer) => self.keep_node(room, peer),
            _ => {}
        }
        heard
    }

    /// Somebody said something in a room.
    pub fn hear_timeline(&self, room: &str, sender: &str, kind: &str, json: &[u8]) -> Heard {
        let heard = {
            let mut rooms = self.lock();
            let Some(room) = rooms.get_mut(room) else { return Heard::Nothing };
            room.timeline(sender, kind, json, self.inner.options.own, self.inner.options.clock.now())
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
        let mut rooms = self.lock();
        let Some(room) = rooms.get_mut(room) else { return false };
        room.mode = mode;
        self.keep_room(room);
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
        let nodes =
            rooms.get(room).map(|room| room.present().map(|(peer, node)| (*peer, node.have)).collect());
        nodes.unwrap_or_default()
    }

    /// Nodes of present members, with the addresses that may be dialled.
    pub fn addresses(&self) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let rooms = self.lock();
        let mut found: BTreeMap<PeerId, Vec<Multiaddr>> = BTreeMap::new();
        for (peer, node) in rooms.values().flat_map(Room::present) {
            let addresses = found.entry(*peer).or_default();
            for address in node.advert.dialable(self.inner.options.allow).0 {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        found.into_iter().collect()
    }

    /// Whether a peer is a node of somebody who is in a room with us. Touches no disk.
    pub fn is_member(&self, peer: &PeerId) -> bool {
        self.lock().values().any(|room| room.is_present(peer))
    }

    /// Nodes of present members that list a file.
    pub fn holders(&self, sha256: &Sha256) -> Vec<PeerId> {
        let listings = self.listings(sha256);
        if listings.is_empty() {
            return Vec::new();
        }
        let rooms = self.lock();
        let mut peers: Vec<_> = listings
            .into_iter()
            .filter(|listing| rooms.values().any(|r| r.key == listing.room && r.is_present(&listing.peer)))
            .map(|listing| listing.peer)
            .collect();
        peers.sort_unstable();
        peers.dedup();
        peers
    }

    /// Whether this node lists a file in a room that a peer is in.
    pub fn may_have(&self, peer: &PeerId, sha256: &Sha256) -> bool {
        if !self.is_member(peer) {
            return false;
        }
        let own = self.inner.options.own;
        let listings = self.listings(sha256);
        let mut ours = listings.iter().filter(|listing| Some(listing.peer) == own);
        let rooms = self.lock();
        ours.any(|listing| rooms.values().any(|room| room.key == listing.room && room.is_present(peer)))
    }

    fn listings(&self, sha256: &Sha256) -> Vec<crate::store::Listing> {
        self.inner.store.listings(sha256).unwrap_or_else(|e| {
            log::error!("looking for who lists {sha256}: {e}");
            Vec::new()
        })
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
