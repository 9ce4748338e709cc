//! The caller's own hand in a taking: chunks that it gets from elsewhere, held against the same leaves.
//!
//! To the session it is one more giver, under this node's own id: it is asked for what it would bring first, and what
//! it does not bring is asked of the nodes again.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::base::limits::CHUNK_BYTES;
use crate::base::{PeerId, Sha256};

use super::super::super::session::{Arrival, Order};
use super::super::super::{Exchange, Ranges};
use super::talk::Waits;
use super::{Chunk, ORDERS, Place, Shared, State, Taking, chunks_of};

/// How a taking stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SoFar {
    /// Bytes that came from nodes, of chunks whole or not.
    pub came: u64,
    /// Bytes that have not, where every leaf is known and a node that has all of it is spoken with. One that is only
    /// fetching it gives no faster than it gets it.
    pub missing: Option<u64>,
    /// Bytes that came wait for us, for the disk or for memory: how slowly they come says nothing then.
    pub waits: bool,
}

/// The right to lend a taking a hand.
pub struct Invitation(Arc<Shared>);

/// A hand in a taking. Dropped, it gives nothing more, and the nodes go on.
pub struct Aside {
    shared: Arc<Shared>,
    size: u64,
    due: async_channel::Receiver<Order>,
    wanted: Ranges,
}

/// A place in memory for one chunk.
pub struct Room(Place);

/// What became of a chunk that was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    /// It is used, or had come from another meanwhile.
    Taken,
    /// Its bytes are not what its leaf says.
    Differs,
    /// The taking is over.
    Over,
}

impl Taking {
    /// How it stands.
    pub fn so_far(&self) -> SoFar {
        let shared = &self.shared;
        // Who was fetching it when we began says so no more: news tell.
        let sha256 = shared.want.digest.sha256();
        let holders = sha256.map_or_else(Vec::new, |sha256| shared.exchange.inner.peers.holders(&sha256));
        let missing = shared.peek(|state| {
            let mut spoken_with = state.givers.iter().filter(|(_, giver)| giver.orders.is_some());
            let whole = spoken_with.any(|(peer, giver)| giver.whole || holders.contains(peer));
            state.told_all().filter(|_| whole)?;
            Some(u64::from(state.session.missing()) * CHUNK_BYTES)
        });
        let (all, aside) = (shared.bytes.load(Ordering::Relaxed), shared.aside.load(Ordering::Relaxed));
        SoFar { came: all.saturating_sub(aside), missing, waits: shared.waiting.load(Ordering::SeqCst) > 0 }
    }

    /// The right to lend it a hand, from wherever.
    pub fn invite(&self) -> Invitation {
        Invitation(self.shared.clone())
    }
}

impl State {
    /// The size, once every leaf is known.
    fn told_all(&self) -> Option<u64> {
        self.size.filter(|size| self.leaves.len() == chunks_of(*size) as usize)
    }
}

impl Invitation {
    /// Takes from these nodes too.
    pub fn meet(&self, nodes: &[PeerId]) {
        nodes.iter().for_each(|peer| self.0.meet(*peer));
        self.0.with(|_, _| ());
    }

    /// Joins in. It is taken to give so many bytes a second, until it has shown what it does. `None` where it is not
    /// known yet what is wanted, where somebody has joined in already, and when it is over.
    pub fn join(self, bytes_per_second: u64) -> Option<Aside> {
        let shared = self.0;
        let own = shared.exchange.inner.swarm.peer_id();
        let (orders, due) = async_channel::bounded(ORDERS);
        let size = shared.with(|state, now| {
            let size = state.told_all().filter(|_| state.ended.is_none() && state.aside.is_none())?;
            state.aside = Some((own, orders));
            state.session.peer(own, None, Some(bytes_per_second), now);
            state.session.has(&own, 0..chunks_of(size), now);
            Some(size)
        })?;
        Some(Aside { shared, size, due, wanted: Ranges::default() })
    }
}

impl Aside {
    /// Bytes of the whole artifact.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Chunks wanted of it next, one after the other; `None` once it is over. Blocks.
    pub fn due(&mut self) -> Option<Range<u32>> {
        loop {
            self.hear();
            if let Some(run) = self.wanted.runs().first() {
                return Some(run.clone());
            }
            let order = self.due.recv_blocking().ok()?;
            self.note(&order);
        }
    }

    /// Whether a chunk is wanted of it still.
    pub fn wants(&mut self, n: u32) -> bool {
        self.hear();
        self.wanted.contains(n) && !self.due.is_closed()
    }

    /// Whether the taking is over.
    pub fn is_over(&self) -> bool {
        self.shared.peek(|state| state.ended.is_some())
    }

    /// A place for a chunk. Blocks.
    pub fn room(&self) -> Room {
        Room(Place::of_ours(&self.shared.exchange))
    }

    /// So many bytes of a chunk came: as long as they do, the taking does not stand still.
    pub fn came(&self, bytes: u64) {
        self.shared.aside.fetch_add(bytes, Ordering::Relaxed);
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Gives a chunk. Blocks while the disk is slower.
    pub fn give(&mut self, n: u32, bytes: Vec<u8>, room: Room) -> Handed {
        self.wanted.remove(n..n.saturating_add(1));
        let shared = &self.shared;
        let own = shared.exchange.inner.swarm.peer_id();
        let leaf = Sha256::of(&bytes);
        if shared.peek(|state| state.leaves.get(n as usize).copied()) != Some(leaf) {
            return Handed::Differs;
        }
        let _waits = Waits::begin(shared);
        let length = bytes.len() as u64;
        match shared.with(|state, now| state.session.arrived(&own, n, length, now)) {
            Arrival::New => {}
            Arrival::Again => return Handed::Taken,
            Arrival::Unasked => return Handed::Over,
        }
        let chunk = Chunk { n, bytes, leaf, size: Some(self.size), peer: None, _place: room.0 };
        match shared.chunks.send_blocking(chunk) {
            Ok(()) => Handed::Taken,
            Err(_) => Handed::Over,
        }
    }

    fn hear(&mut self) {
        while let Ok(order) = self.due.try_recv() {
            self.note(&order);
        }
    }

    fn note(&mut self, order: &Order) {
        match order {
            Order::Want { first, count, .. } => self.wanted.insert(*first..first.saturating_add(*count)),
            Order::Cancel { first, count, .. } => self.wanted.remove(*first..first.saturating_add(*count)),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.shared.with(|state, now| {
            if let Some((own, _)) = state.aside.take() {
                state.session.lost(&own, now);
            }
        });
        self.shared.changed.notify(usize::MAX);
    }
}

impl State {
    /// Hands an order to the caller's own hand; `false` when it is for another.
    pub(super) fn order_aside(&mut self, peer: &PeerId, order: &Order, now: Instant) -> bool {
        let Some((own, orders)) = self.aside.as_ref().filter(|(own, _)| own == peer) else { return false };
        if orders.try_send(order.clone()).is_err() {
            // It has not listened for long. It hears so, and goes.
            orders.close();
            self.session.lost(own, now);
        }
        true
    }
}

impl Place {
    /// Waits for a place for what this node fetches itself. Blocks.
    fn of_ours(exchange: &Exchange) -> Self {
        Self { _of_strangers: None, _one: exchange.inner.places.acquire_arc_blocking() }
    }
}
