//! Blocks and chunks to and from peers: bitswap for everybody, dpm's own protocol between dpm nodes.
//!
//! Serves from the store and from what is on its way in, and never fetches on a stranger's behalf. Knows digests and
//! CIDs; names, upstreams and HTTP are not known here.

mod bitswap;
mod circle;
mod near;
mod partial;
mod ranges;
mod session;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_lock::Semaphore;
use event_listener::Event;

use crate::base::{Access, PeerId};
use crate::members::Members;
use crate::peers::{Claims, Peers, Standing};
use crate::rt::{Gate, Tasks};
use crate::store::Store;
use crate::swarm::Swarm;

pub use bitswap::{Absence, DagLimits, FetchError, Fetched, Fetching, Got, WalkError};
pub use near::{
    Answer, Aside, BlocksError, Chunk, Claim, Handed, Invitation, NEAR, Outcome, Over, SoFar, Taking, Want,
};
pub use partial::{End, Lead, Partial, chunks_of, span};

use partial::Partials;
pub use ranges::Ranges;
pub use session::{Arrival, Gave, Order, Session};

/// Chunks from peers that are in memory at once, over all downloads: 1 MiB each. A reader waits for a place before it
/// takes a chunk off the wire, and the sender with it.
const CHUNKS_IN_MEMORY: usize = 16;

/// Of these, chunks of peers that have not given anything yet, or have let us down: however slowly they give, others
/// find places.
const CHUNKS_OF_STRANGERS: usize = 8;

/// Bitswap 1.2 (specs.ipfs.tech, "Bitswap protocol").
pub const BITSWAP: &str = "/ipfs/bitswap/1.2.0";

/// Gives to peers and takes from them; clones are one.
#[derive(Clone)]
pub struct Exchange {
    inner: Arc<Inner>,
}

struct Inner {
    swarm: Swarm,
    store: Store,
    peers: Peers,
    members: Members,
    claims: Claims,
    partials: Partials,
    /// Held while it is settled who goes first.
    turn: Mutex<()>,
    disk: Gate,
    tasks: Tasks,
    sharing: Sharing,
    patience: Patience,
    places: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    /// Peers that are being told what is here; notified when one comes back.
    told: Mutex<HashMap<PeerId, Arc<Event>>>,
    given: near::Given,
    bitswap: bitswap::Bitswap,
    counters: Counters,
    stopped: AtomicBool,
}

/// What [`Exchange`] works with.
pub struct Parts {
    /// Connections and streams.
    pub swarm: Swarm,
    /// What this node has.
    pub store: Store,
    /// The book of peers.
    pub peers: Peers,
    /// What the members of rooms list.
    pub members: Members,
    /// For blocking reads, and hashing.
    pub disk: Gate,
    /// Owns what runs here.
    pub tasks: Tasks,
    /// Who may have what.
    pub sharing: Sharing,
    /// How long answers are waited for.
    pub patience: Patience,
}

/// How long the answers of nodes around are waited for before somebody else is asked instead: the upstream, in most
/// cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// The least that one of dpm's nodes has. Between this and `most` it is a few of its own round trips.
    pub least: Duration,
    /// The most that it has.
    pub most: Duration,
    /// What it has while its round trip is not known yet.
    pub first: Duration,
    /// What all other IPFS nodes have together. Those that have nothing say so in a round trip.
    pub strangers: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            least: Duration::from_millis(150),
            most: Duration::from_millis(400),
            first: Duration::from_millis(200),
            strangers: Duration::from_millis(250),
        }
    }
}

impl Patience {
    /// As long for everybody: for tests, in which a machine may be too busy for an answer in time.
    pub fn of(time: Duration) -> Self {
        Self { least: time, most: time, first: time, strangers: time }
    }
}

/// Who may have what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Nobody is given anything.
    pub off: bool,
    /// Only these peers are given something; empty for everybody who may connect.
    pub allow: Vec<PeerId>,
}

impl Sharing {
    /// Whether a peer may have what has this access.
    pub fn may(&self, peer: &PeerId, access: Access) -> bool {
        !self.off && access == Access::Public && (self.allow.is_empty() || self.allow.contains(peer))
    }
}

/// What was done since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Bytes taken from peers, proved by their chunk.
    pub taken_bytes: AtomicU64,
    /// Bytes of chunks that came again, from another peer than the first time.
    pub again_bytes: AtomicU64,
    /// Bytes given to peers.
    pub given_bytes: AtomicU64,
    /// Chunks whose bytes were wrong.
    pub wrong_chunks: AtomicU64,
    /// Chunks that a peer was sent elsewhere for.
    pub elsewhere: AtomicU64,
    /// Questions of peers that were answered.
    pub answered: AtomicU64,
}

impl Exchange {
    /// Starts to give, and is ready to take.
    pub fn start(parts: Parts) -> Self {
        let Parts { swarm, store, peers, members, disk, tasks, sharing, patience } = parts;
        let inner = Inner {
            swarm,
            store,
            peers,
            members,
            claims: Claims::default(),
            partials: Partials::default(),
            turn: Mutex::default(),
            disk,
            tasks: tasks.clone(),
            sharing,
            patience,
            places: Arc::new(Semaphore::new(CHUNKS_IN_MEMORY)),
            strangers: Arc::new(Semaphore::new(CHUNKS_OF_STRANGERS)),
            told: Mutex::default(),
            given: near::Given::default(),
            bitswap: bitswap::Bitswap::default(),
            counters: Counters::default(),
            stopped: AtomicBool::new(false),
        };
        let exchange = Self { inner: Arc::new(inner) };
        tasks.spawn(near::serve(exchange.clone()));
        tasks.spawn(bitswap::serve(exchange.clone()));
        tasks.spawn(bitswap::watch(exchange.clone()));
        exchange
    }

    /// Whether there is a dpm node to ask: one that is near, or one in a room with us, which may have to be dialled.
    pub fn has_company(&self) -> bool {
        let somebody = || !self.inner.peers.nodes().is_empty() || !self.inner.members.ids().is_empty();
        !self.inner.stopped.load(Ordering::SeqCst) && somebody()
    }

    /// Takes nothing more from anybody: what is being taken ends with its tasks, which the caller cancels next.
    pub fn stop(&self) {
        self.inner.stopped.store(true, Ordering::SeqCst);
    }

    /// The book of peers.
    pub fn peers(&self) -> &Peers {
        &self.inner.peers
    }

    /// What was done since the start.
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Says that this node is about to fetch an artifact that anybody may have, and shows others what comes of it.
    pub fn lead(&self, digest: crate::base::Digest) -> Lead {
        self.inner.partials.lead(digest)
    }

    /// Tells a dpm node that has just come what this one has, and goes on telling, if it is near. What is here is nobody
    /// else's business.
    pub fn greet(&self, peer: PeerId) {
        if self.inner.peers.is_near(&peer) {
            self.inner.tasks.spawn(near::tell(self.clone(), peer));
        }
    }

    /// A peer is gone: what it was about to fetch it does not.
    pub fn left(&self, peer: &PeerId) {
        self.inner.claims.left(peer);
        self.left_bitswap(peer);
    }

    /// Notes that a peer lied, and cuts it off when it was not the first time.
    pub fn strike(&self, peer: PeerId, what: &str) {
        let standing = self.inner.peers.strike(peer, what);
        log::warn!("peer {peer} lied: {what}");
        if let Standing::Blocked(time) = standing {
            log::warn!("peer {peer} is not spoken with for {} s", time.as_secs());
            self.inner.swarm.block(peer, time);
        }
    }
}
