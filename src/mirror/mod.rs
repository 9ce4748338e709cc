//! A room as a mirror: what this node has is told there, what the others have is known here.
//!
//! Takes what the rooms' client hears to [`Members`], keeps in touch with the nodes of their members and brings their
//! catalogues here; makes catalogues of what is stored, within each room's scope, and tells of them in few events; and
//! of a room that is followed fetches what its members have.
//!
//! Of what is stored only what anybody may have is looked at. No client waits for anything here.

mod backoff;
mod bell;
mod dial;
mod entry;
mod follow;
mod hear;
mod ledger;
mod look;
mod notes;
mod own;
mod pull;
mod rhythm;
mod share;
mod standing;
mod tell;
mod telling;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_channel::{Receiver, Sender};

use crate::base::{Multiaddr, PeerId};
use crate::exchange::Exchange;
use crate::fetch::Fetch;
use crate::members::Members;
use crate::resolve::Resolve;
use crate::resolve::images::Images;
use crate::room::{Client, Event, Pace, RoomId};
use crate::rt::{Clock, Gate, Tasks};
use crate::store::Store;
use crate::swarm::{Identity, Swarm};
use crate::wire::room::{Allow, NodeAdvert};

pub use telling::HEARTBEAT;

use bell::Bell;
use look::Look;

/// How a node takes part in rooms.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most bytes that are fetched for rooms that are followed, all together.
    pub budget_bytes: u64,
    /// Which addresses are told: those of the internet, or near ones too.
    pub allow: Allow,
    /// Addresses that this node cannot know of.
    pub advertise: Vec<Multiaddr>,
    /// What members read of this node.
    pub name: String,
    /// How fast the client sends.
    pub pace: Pace,
    /// Whether peers are given anything: who gives nothing has nothing to tell of.
    pub gives: bool,
    /// Peers that the operator named, who stay whatever rooms say.
    pub named: Vec<PeerId>,
}

/// The handles that [`Mirror`] works with.
pub struct Parts {
    /// The rooms' client.
    pub client: Client,
    /// What members say.
    pub members: Members,
    /// What is here.
    pub store: Store,
    /// For blocking work.
    pub disk: Gate,
    /// Names.
    pub resolve: Resolve,
    /// Names of images.
    pub images: Images,
    /// Bytes.
    pub fetch: Fetch,
    /// The neighbours; without them there is nothing to tell, and nobody to ask.
    pub near: Option<Near>,
    /// Tells ages.
    pub clock: Clock,
    /// Owns the loops.
    pub tasks: Tasks,
}

/// This node among its peers.
#[derive(Clone)]
pub struct Near {
    /// Connections.
    pub swarm: Swarm,
    /// Blocks.
    pub exchange: Exchange,
    /// Signs.
    pub identity: Identity,
}

/// A running mirror; clones are one.
#[derive(Clone)]
pub struct Mirror {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    members: Members,
    store: Store,
    disk: Gate,
    fetch: Fetch,
    look: Look,
    clock: Clock,
    tasks: Tasks,
    options: Options,
    /// The account has other rooms, perhaps.
    rooms: Bell,
    /// Rooms that somebody wants looked at now, and waits for it.
    looks: (Sender<hear::Looking>, Receiver<hear::Looking>),
    /// This node's catalogues have to be looked at, or what is told of them.
    own: Bell,
    /// Members have said something, or others are there.
    pulls: Bell,
    dials: Bell,
    follows: Bell,
    /// What is mirrored has changed somewhere.
    rescope: AtomicBool,
    /// Failures are to be forgotten.
    hurry: AtomicBool,
    /// What others told of index pages.
    notes: Mutex<notes::Told>,
    /// Who this node is, if it has anything to tell.
    own_peer: Option<PeerId>,
    /// What rooms have of this node, where that was looked up anew.
    told: Mutex<HashMap<String, Option<NodeAdvert>>>,
    /// Rooms that did not take what this node said of itself.
    refused: Mutex<BTreeSet<String>>,
}

impl Mirror {
    /// Starts with what the client has heard and will hear.
    pub fn start(parts: Parts, heard: Receiver<Event>, options: Options) -> Self {
        let Parts { client, members, store, disk, resolve, images, fetch, near, clock, tasks } = parts;
        let look = Look { store: store.clone(), members: members.clone(), resolve, images };
        let inner = Arc::new(Inner {
            client,
            members,
            store,
            disk,
            fetch,
            look,
            clock,
            tasks: tasks.clone(),
            options,
            rooms: Bell::default(),
            looks: async_channel::bounded(LOOKS),
            own: Bell::default(),
            pulls: Bell::default(),
            dials: Bell::default(),
            follows: Bell::default(),
            rescope: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            notes: Mutex::default(),
            own_peer: near.as_ref().map(|near| near.swarm.peer_id()),
            told: Mutex::default(),
            refused: Mutex::default(),
        });
        tasks.spawn(hear::run(inner.clone(), heard));
        if let Some(near) = near {
            tasks.spawn(own::run(inner.clone(), near.clone()));
            tasks.spawn(dial::run(inner.clone(), near.swarm.clone()));
            tasks.spawn(pull::run(inner.clone(), near.clone()));
            tasks.spawn(follow::run(inner.clone(), near.swarm.peer_id()));
        }
        Self { inner }
    }

    /// The account has logged in or out: what rooms it has is asked anew.
    pub fn account_changed(&self) {
        self.inner.rooms.ring();
    }

    /// Looks at a room now that the account is in, or that mirrors something else: an order that follows need not wait
    /// until it is heard of. Where that fails it is heard later.
    pub async fn look_at(&self, room: &RoomId) {
        hear::look_at(&self.inner, room).await;
    }

    /// Tries everything again that failed, now: an operator asks for it, or changed how a room is used.
    pub fn hurry(&self) {
        self.inner.hurry.store(true, Ordering::Relaxed);
        self.inner.ring_all();
        self.inner.own.ring();
    }
}

impl Inner {
    /// Members have said something.
    fn ring_all(&self) {
        self.pulls.ring();
        self.dials.ring();
        self.follows.ring();
    }
}

/// Orders that wait for a room to be looked at; further ones wait for their turn.
const LOOKS: usize = 16;

/// Nothing done under one of this room's locks can panic.
const LOCK: &str = "no panic happens under this lock";
