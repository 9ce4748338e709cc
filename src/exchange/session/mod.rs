//! Which of several peers is asked for which items of one artifact, and when.
//!
//! Items are numbered from the front: chunks of a file, or blocks of a DAG as they get known. Pure: events and the
//! time come in, orders go out; no I/O, no clock, nothing spawned, and no sequence of events makes it panic. Whoever
//! owns a session verifies the bytes, tells it what happened and then calls [`Session::next`].
//!
//! The policy, and where it is:
//! - what a peer has, how fast it gives and how long it may be silent: `peer.rs`;
//! - which peer gets which item, and how many at once: `plan.rs`;
//! - what does not come is asked of others, and what holds everything up twice: `mend.rs`;
//! - events and what is remembered of an item on its way: here.

mod mend;
mod peer;
mod plan;

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::Ranges;
use crate::base::PeerId;
use crate::base::limits::CHUNK_BYTES;

use peer::{Ask, Peer};

/// Most peers of a session that are connected at once. Each further one adds queues, not speed.
pub(super) const MOST_PEERS: usize = 32;

/// Most peers of a session whose gifts are remembered, gone ones included.
const MOST_REMEMBERED: usize = 128;

/// Runs in what one peer says it has: what a hostile one can make us remember. An honest one that takes a file from
/// the front has a few.
const MOST_RUNS: usize = 4096;

/// Most orders that one call of [`Session::next`] gives, so that its owner gets back to reading.
pub(super) const MOST_ORDERS: usize = 256;

/// Items that were sent elsewhere and are waited for there. Beyond it a peer that answers so is asked for no more.
const MOST_REFERRED: usize = 128;

/// Times that an item may be sent elsewhere before it is insisted on at once.
const MOST_REFERRALS: u8 = 4;

/// Items whose sizes are looked at before their mean says what an item weighs: the first block of a DAG is small.
const FEW_SIZES: u64 = 4;

/// Least bytes that an item counts for, so that tiny blocks do not make windows of thousands.
const LEAST_ITEM_BYTES: f64 = 16_384.0;

/// Schedules the items of one artifact over its peers.
#[derive(Debug)]
pub struct Session {
    random: u64,
    items: u32,
    complete: bool,
    here: Ranges,
    flights: BTreeMap<u32, Flight>,
    peers: Vec<Peer>,
    slots: HashMap<PeerId, usize>,
    asks: u64,
    /// What [`Session::next`] has still to say.
    wants: Vec<(usize, u32, bool)>,
    cancels: Vec<(usize, u32)>,
    /// Second copies asked for while the first was on its way.
    doubled: u64,
    sizes: (u64, u64),
    wake: Option<Instant>,
    progress: Instant,
}

/// An item on its way, or one that was and has to be asked for again.
#[derive(Clone, Debug, Default)]
struct Flight {
    /// Slots of the peers asked for it.
    at: Vec<usize>,
    /// It was sent elsewhere, and this is waited for.
    referral: Option<Referral>,
    /// How often it was sent elsewhere.
    referrals: u8,
}

/// "Ask that one": who said so and when.
#[derive(Clone, Copy, Debug)]
struct Referral {
    via: usize,
    since: Instant,
    /// Nodes that wait for the same must not all insist in the same moment: each takes its own multiple of the wait.
    spread: f64,
    /// We are connected to the one that we were sent to.
    known: bool,
}

impl Session {
    /// A session that knows of no items and no peers. Equal seeds give equal decisions.
    pub fn new(seed: u64, now: Instant) -> Self {
        Self {
            random: seed ^ 0x9e37_79b9_7f4a_7c15,
            items: 0,
            complete: false,
            here: Ranges::default(),
            flights: BTreeMap::new(),
            peers: Vec::new(),
            slots: HashMap::new(),
            asks: 0,
            wants: Vec::new(),
            cancels: Vec::new(),
            doubled: 0,
            sizes: (0, 0),
            wake: None,
            progress: now,
        }
    }

    /// How many items are known of by now; a smaller number than before is ignored.
    pub fn grow(&mut self, items: u32) {
        self.items = self.items.max(items);
    }

    /// No more items will come: the session is done once all are here.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// These are here without asking, or have been got from elsewhere: what was asked of them is cancelled.
    pub fn already(&mut self, items: Range<u32>) {
        let flying: Vec<u32> = match items.is_empty() {
            true => return,
            false => self.flights.range(items.clone()).map(|(item, _)| *item).collect(),
        };
        for item in flying {
            self.land(item, None);
        }
        self.here.insert(items);
    }

    /// A peer that may be asked from now on, or newly measured. Times and speeds are what is known from elsewhere; a
    /// peer beyond 32 connected ones is ignored.
    pub fn peer(
        &mut self,
        peer: PeerId,
        round_trip: Option<Duration>,
        bytes_per_second: Option<u64>,
        now: Instant,
    ) {
        let slot = match self.slots.get(&peer) {
            Some(slot) => *slot,
            None => match self.free_slot() {
                Some(slot) => {
                    self.slots.insert(peer, slot);
                    match self.peers.get_mut(slot) {
                        Some(old) => *old = Peer::new(peer),
                        None => self.peers.push(Peer::new(peer)),
                    }
                    slot
                }
                None => return,
            },
        };
        let full = self.peers.iter().filter(|p| p.alive).count() >= MOST_PEERS;
        let known = &mut self.peers[slot];
        if !known.alive && !full {
            known.alive = true;
        }
        known.hint(round_trip, bytes_per_second);
        self.wake_now(now);
    }

    /// A place for a new peer: a new one, or that of a peer that is gone and gave least.
    fn free_slot(&mut self) -> Option<usize> {
        if self.peers.iter().filter(|p| p.alive).count() >= MOST_PEERS {
            return None;
        }
        if self.peers.len() < MOST_REMEMBERED {
            return Some(self.peers.len());
        }
        let gone = self.peers.iter().enumerate().filter(|(_, p)| !p.alive && p.gave.wrong == 0);
        let (slot, least) = gone.min_by_key(|(_, p)| p.gave.bytes)?;
        self.slots.remove(&least.id);
        for flight in self.flights.values_mut() {
            flight.referral = flight.referral.filter(|referral| referral.via != slot);
        }
        Some(slot)
    }

    /// The peer says that it can give these now.
    pub fn has(&mut self, peer: &PeerId, items: Range<u32>, now: Instant) {
        let Some(slot) = self.slot(peer) else { return };
        let known = &mut self.peers[slot];
        if known.has.runs().len() >= MOST_RUNS || items.is_empty() {
            return;
        }
        known.has.insert(items.clone());
        let waited: Vec<u32> = known.asked.range(items).map(|(item, _)| *item).collect();
        for item in waited {
            if self.peers[slot].came_by(item, now)
                && let Some(flight) = self.flights.get_mut(&item)
            {
                flight.referral = None;
            }
        }
        self.wake_now(now);
    }

    /// The peer says that it cannot give these.
    pub fn lacks(&mut self, peer: &PeerId, items: Range<u32>, now: Instant) {
        let Some(slot) = self.slot(peer).filter(|_| !items.is_empty()) else { return };
        self.peers[slot].has.remove(items.clone());
        let asked: Vec<u32> = self.peers[slot].asked.range(items).map(|(item, _)| *item).collect();
        for item in asked {
            self.drop_ask(slot, item);
        }
        self.wake_now(now);
    }

    /// Verified bytes of an item came from a peer.
    ///
    /// `New`: keep them. `Again`: they are here already. `Unasked`: this peer was never asked for them, or nothing is
    /// taken from it any more.
    pub fn arrived(&mut self, peer: &PeerId, item: u32, bytes: u64, now: Instant) -> Arrival {
        let Some(slot) = self.slot(peer).filter(|_| item < self.items) else { return Arrival::Unasked };
        if self.peers[slot].gave.wrong > 0 || !self.peers[slot].gives(item, bytes, now) {
            return Arrival::Unasked;
        }
        self.wake_now(now);
        let gave = &mut self.peers[slot].gave;
        if self.here.contains(item) {
            gave.again = gave.again.saturating_add(bytes);
            return Arrival::Again;
        }
        gave.items += 1;
        gave.bytes = gave.bytes.saturating_add(bytes);
        self.sizes.0 += 1;
        self.sizes.1 = self.sizes.1.saturating_add(bytes);
        self.progress = self.progress.max(now);
        self.land(item, Some(slot));
        self.here.insert(item..item + 1);
        Arrival::New
    }

    /// The peer's bytes for an item did not match: nothing more is asked of it in this session, whatever the item.
    pub fn wrong(&mut self, peer: &PeerId, _item: u32, now: Instant) {
        let Some(slot) = self.slots.get(peer).copied() else { return };
        self.peers[slot].gave.wrong += 1;
        self.empty(slot, now);
    }

    /// The peer answers that `other` was given the item a moment ago: it is asked of that one, and of the first again
    /// when it does not come from there in time.
    pub fn elsewhere(&mut self, peer: &PeerId, item: u32, other: PeerId, now: Instant) {
        let Some(via) = self.slot(peer) else { return };
        let Some(ask) = self.peers[via].withdraw(item) else { return };
        self.wants.retain(|(slot, wanted, _)| (*slot, *wanted) != (via, item));
        self.wake_now(now);
        self.peers[via].crowded = true;
        let to = self.slots.get(&other).copied();
        let spread = 1.0 + self.fraction();
        let Some(flight) = self.flights.get_mut(&item) else { return };
        flight.at.retain(|slot| *slot != via);
        flight.referrals = flight.referrals.saturating_add(1);
        if ask.insist || to == Some(via) {
            // Not an answer that an honest peer gives: it will not give the item to us.
            self.peers[via].has.remove(item..item + 1);
        } else if flight.at.is_empty() {
            let to = to.filter(|to| self.peers[*to].may_be_asked());
            let soon = to.is_some_and(|to| !self.peers[to].has.contains(item));
            match to {
                _ if flight.referrals > MOST_REFERRALS => self.ask(via, item, false, true, now),
                Some(to) if !soon => self.ask(to, item, false, false, now),
                _ => {
                    flight.referral = Some(Referral { via, since: now, spread, known: to.is_some() });
                    if let Some(to) = to {
                        self.ask(to, item, true, false, now);
                    }
                }
            }
        }
    }

    /// The peer is gone. Only what it was asked for is asked again.
    pub fn lost(&mut self, peer: &PeerId, now: Instant) {
        let Some(slot) = self.slots.get(peer).copied() else { return };
        self.peers[slot].alive = false;
        self.empty(slot, now);
    }

    /// When [`Session::next`] should be called again, if nothing happens before. `None`: only an event helps.
    pub fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// Whether every item is here and no more will come.
    pub fn is_done(&self) -> bool {
        self.complete && self.missing() == 0
    }

    /// How many of the items known of are not here.
    pub fn missing(&self) -> u32 {
        self.items - self.here.count_in(0..self.items)
    }

    /// When something new last came; the beginning before that. For the owner's limit on stalls.
    pub fn last_progress(&self) -> Instant {
        self.progress
    }

    /// What each peer gave. Of very many, those gone that gave least are forgotten.
    pub fn gave(&self) -> impl Iterator<Item = (PeerId, Gave)> + '_ {
        self.peers.iter().filter(|peer| self.slots.contains_key(&peer.id)).map(|peer| {
            let bytes_per_second = peer.rate().map(|rate| rate as u64).filter(|_| peer.gave.items > 0);
            (peer.id, Gave { bytes_per_second, ..peer.gave })
        })
    }

    /// The slot of a peer that is connected.
    fn slot(&self, peer: &PeerId) -> Option<usize> {
        self.slots.get(peer).copied().filter(|slot| self.peers[*slot].alive)
    }

    fn wake_now(&mut self, now: Instant) {
        self.wake = Some(now);
    }

    /// Notes that `item` is asked of a peer and has it said by the next order.
    fn ask(&mut self, slot: usize, item: u32, soon: bool, insist: bool, now: Instant) {
        self.asks += 1;
        self.peers[slot].ask(item, Ask { at: now, number: self.asks, soon, insist });
        let flight = self.flights.entry(item).or_default();
        if !flight.at.contains(&slot) {
            flight.at.push(slot);
        }
        self.wants.push((slot, item, insist));
    }

    /// Takes an ask back and has it cancelled; one not yet said is just not said.
    fn withdraw(&mut self, slot: usize, item: u32) {
        self.peers[slot].withdraw(item);
        let said = self.wants.len();
        self.wants.retain(|(s, i, _)| (*s, *i) != (slot, item));
        if self.wants.len() == said {
            self.cancels.push((slot, item));
        }
    }

    /// The peer will not give what it was asked for: the item is free again, if nobody else was asked.
    fn drop_ask(&mut self, slot: usize, item: u32) {
        self.peers[slot].withdraw(item);
        self.wants.retain(|(s, i, _)| (*s, *i) != (slot, item));
        if let Some(flight) = self.flights.get_mut(&item) {
            flight.at.retain(|at| *at != slot);
            if flight.at.is_empty() {
                flight.referral = None;
            }
        }
    }

    /// An item is here: nobody needs to send it any more.
    fn land(&mut self, item: u32, from: Option<usize>) {
        let Some(flight) = self.flights.remove(&item) else { return };
        for slot in flight.at.into_iter().filter(|slot| Some(*slot) != from) {
            self.withdraw(slot, item);
        }
        // It may have come late, just as it was about to be asked for again.
        self.wants.retain(|(_, wanted, _)| *wanted != item);
    }

    /// Nothing more comes from this peer, and nothing it was asked for.
    fn empty(&mut self, slot: usize, now: Instant) {
        for item in self.peers[slot].empty() {
            self.drop_ask(slot, item);
        }
        self.wants.retain(|(s, ..)| *s != slot);
        self.cancels.retain(|(s, _)| *s != slot);
        for flight in self.flights.values_mut() {
            // Nobody can be insisted with any more.
            flight.referral = flight.referral.filter(|referral| referral.via != slot);
        }
        self.wake_now(now);
    }

    /// What an item weighs, in bytes.
    fn item_bytes(&self) -> f64 {
        match self.sizes {
            (count, bytes) if count >= FEW_SIZES => (bytes as f64 / count as f64).max(LEAST_ITEM_BYTES),
            _ => CHUNK_BYTES as f64,
        }
    }

    /// A number from 0 to 1.
    fn fraction(&mut self) -> f64 {
        // xorshift64*; a seed of zero would stay zero.
        self.random = self.random.max(1);
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f64 / (1u64 << 24) as f64
    }
}

/// What bytes that came are worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Missing until now.
    New,
    /// Here already.
    Again,
    /// From a peer that was not asked for them, or that gave wrong bytes before.
    Unasked,
}

/// Something to say to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ask for items.
    Want {
        /// Whom.
        peer: PeerId,
        /// The first item.
        first: u32,
        /// How many from there, at least 1.
        count: u32,
        /// It was sent elsewhere before and did not come from there: give it all the same.
        insist: bool,
    },
    /// Take back what was asked for.
    Cancel {
        /// Whom.
        peer: PeerId,
        /// The first item.
        first: u32,
        /// How many from there, at least 1.
        count: u32,
    },
}

/// What a peer gave in a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gave {
    /// Items that were new.
    pub items: u64,
    /// Bytes that were new.
    pub bytes: u64,
    /// Bytes that were here already.
    pub again: u64,
    /// How fast, lately; `None` when nothing came.
    pub bytes_per_second: Option<u64>,
    /// Items with wrong bytes.
    pub wrong: u64,
}

#[cfg(test)]
mod tests;

#[cfg(test)]
impl Session {
    /// What must hold between events.
    fn check(&self) {
        for (slot, peer) in self.peers.iter().enumerate() {
            assert_eq!(peer.due as usize, peer.asked.values().filter(|ask| !ask.soon).count());
            for item in peer.asked.keys() {
                let known = self.flights.get(item).is_some_and(|flight| flight.at.contains(&slot));
                assert!(known, "{item} is asked of {slot}, and nobody knows");
            }
        }
        for (item, flight) in &self.flights {
            assert!(!self.here.contains(*item));
            assert!(flight.at.iter().all(|slot| self.peers[*slot].asked.contains_key(item)));
        }
    }
}
