//! Which peer gets which item: windows, striping, and the orders that say so.

use std::time::{Duration, Instant};

use super::mend::{END_ITEMS, MOST_COPIES};
use super::peer::GUESS_SECONDS;
use super::{Flight, MOST_ORDERS, MOST_REFERRED, Order, Session};

/// Least bytes on their way from all peers together: 8 chunks keep a link busy while each is turned round.
const LEAST_WINDOW_BYTES: f64 = 8_388_608.0;

/// Most bytes on their way from one peer: 2 × the bandwidth-delay product of 10 Gbit/s at 25 ms.
const MOST_WINDOW_BYTES: f64 = 67_108_864.0;

/// Most items on their way from one peer: what a server has to remember for us.
const MOST_WINDOW_ITEMS: f64 = 128.0;

/// A peer below this share of the best one's speed counts as slow: it gets one item at a time, from further back, so
/// that a reader at the front need not wait for it.
const SLOW: f64 = 0.5;

/// Items ahead in which those that only one peer has are asked of it first: its time is best spent on them.
const LOOK_AHEAD: u32 = 256;

/// Where others ask for the same, an item is taken by chance out of this many a peer, so that not all ask for the same
/// one and are all but one sent elsewhere.
const SPREAD: f64 = 2.0;

/// How often a possible second copy is thought about again.
const THINK_AGAIN: Duration = Duration::from_millis(50);

impl Session {
    /// What to say to whom now, 256 at most. To be called after every event, and at [`Session::wake`].
    pub fn next(&mut self, now: Instant) -> Vec<Order> {
        self.wake = None;
        let plan = Plan::of(self, now);
        if !self.is_done() {
            self.judge(&plan);
            self.double(&plan);
            self.assign(&plan);
        }
        let orders = self.orders(now);
        self.wake_by(self.deadline(&plan));
        orders
    }

    /// Gives every peer with room something to do, as long as there is something that it has.
    fn assign(&mut self, plan: &Plan) {
        let mut idle: Vec<usize> = (0..self.peers.len()).filter(|slot| self.room(*slot, plan) > 0).collect();
        for _ in 0..MOST_ORDERS {
            if self.wants.len() >= MOST_ORDERS {
                return;
            }
            // Whoever would give it first is asked first; among equals, chance spreads the load over a crowd's members.
            let next = idle.iter().enumerate();
            let next = next.map(|(n, slot)| (n, *slot, self.finish(*slot, plan) * plan.chance[*slot]));
            let Some((n, slot, _)) = next.min_by(|a, b| a.2.total_cmp(&b.2)) else { return };
            match self.choose(slot, plan) {
                Some(item) => {
                    self.replace(item);
                    self.ask(slot, item, false, false, plan.now);
                    if self.room(slot, plan) == 0 {
                        idle.remove(n);
                    }
                }
                None => drop(idle.remove(n)),
            }
        }
    }

    /// The item to ask a peer for next.
    fn choose(&mut self, slot: usize, plan: &Plan) -> Option<u32> {
        let mut first = self.open_item(slot, 0, plan)?;
        if self.peers[slot].crowded {
            let skip = (self.fraction() * SPREAD * plan.usable as f64) as usize;
            for _ in 0..skip {
                first = self.open_item(slot, first.saturating_add(1), plan).unwrap_or(first);
            }
        }
        if let Some(only) = self.only_there(slot, first, plan) {
            return Some(only);
        }
        let others: f64 = self.usable().filter(|s| *s != slot).filter_map(|s| plan.rates[s]).sum();
        let slow = plan.rates[slot].is_none_or(|rate| rate < SLOW * plan.best) && plan.best > 0.0;
        if !slow || others == 0.0 {
            return Some(first);
        }
        // The others come this far until it is done with one: it takes what lies beyond.
        let ahead = self.finish(slot, plan) * others / plan.item_bytes;
        let from = first.saturating_add(ahead as u32);
        match self.open_item(slot, from, plan) {
            Some(item) => Some(item),
            // They will be done before it is, if they have it; but a peer unmeasured must be tried.
            None if self.is_known(slot, plan) && self.fast_elsewhere(slot, first, plan) => None,
            None => Some(first),
        }
    }

    /// Whether it has shown what may be expected of it, be it nothing.
    fn is_known(&self, slot: usize, plan: &Plan) -> bool {
        plan.rates[slot].is_some() || self.peers[slot].on_probation()
    }

    /// Whether another peer with a better speed has `item`.
    fn fast_elsewhere(&self, slot: usize, item: u32, plan: &Plan) -> bool {
        self.usable()
            .any(|s| s != slot && self.peers[s].has.contains(item) && plan.rates[s] > plan.rates[slot])
    }

    /// The first open item within [`LOOK_AHEAD`] that no other usable peer has.
    fn only_there(&self, slot: usize, first: u32, plan: &Plan) -> Option<u32> {
        let others: Vec<usize> = self.usable().filter(|s| *s != slot).collect();
        let mut from = first;
        let end = first.saturating_add(LOOK_AHEAD);
        loop {
            let item = self.open_item(slot, from, plan).filter(|item| *item < end)?;
            let covered = others.iter().filter(|s| self.peers[**s].has.contains(item));
            match covered.map(|s| self.peers[*s].has.next_out(item)).max() {
                None => return Some(item),
                Some(next) => from = next,
            }
        }
    }

    /// The first item from `from` on that this peer has and that is not on its way already.
    fn open_item(&self, slot: usize, from: u32, plan: &Plan) -> Option<u32> {
        let has = &self.peers[slot].has;
        let mut at = from;
        loop {
            at = has.next_in(at).filter(|item| *item < self.items)?;
            let missing = self.here.next_out(at);
            if missing > at {
                at = missing;
                continue;
            }
            match self.flights.get(&at) {
                Some(flight) if !self.is_open(slot, flight, at, plan) => at = at.checked_add(1)?,
                _ => return Some(at),
            }
        }
    }

    /// Whether an item on its way may be asked of this peer instead: all who were asked are doubtful, or do not have
    /// it yet, or have others to serve first.
    fn is_open(&self, slot: usize, flight: &Flight, item: u32, plan: &Plan) -> bool {
        // Who has less relieves who has more: in a crowd that is whoever just got it.
        let has = |slot: usize| self.peers[slot].has.count();
        let relieves = |fuller: usize| has(slot) < has(fuller);
        if flight.at.is_empty() {
            return flight.referral.is_none_or(|referral| relieves(referral.via));
        }
        let given_up = |at: usize| self.peers[at].doubtful_until.is_some();
        let full = |at: usize| has(at) == plan.fullest && self.peers[at].crowded && relieves(at);
        let in_line = |at: usize| full(at) && self.peers[at].stands_in_line(item);
        !flight.at.contains(&slot)
            && (flight.referral.is_some_and(|referral| relieves(referral.via))
                || flight.at.iter().all(|at| given_up(*at) || in_line(*at)))
    }

    /// How many more items this peer may be asked for.
    pub(super) fn room(&self, slot: usize, plan: &Plan) -> usize {
        let peer = &self.peers[slot];
        if !peer.is_usable() || peer.crowded && plan.referred >= MOST_REFERRED {
            return 0;
        }
        let window = match (plan.rates[slot], plan.best > 0.0) {
            _ if peer.on_probation() => 1.0,
            (None, true) => 1.0,
            (None, false) => LEAST_WINDOW_BYTES / plan.usable as f64 / plan.item_bytes,
            (Some(rate), _) => {
                let delay = 2.0 * rate * peer.round().as_secs_f64();
                let share = LEAST_WINDOW_BYTES * rate / plan.total.max(rate);
                let least = match peer.crowded {
                    // Most answers are "elsewhere", and none of its time may pass until we have found what is not.
                    true => LEAST_WINDOW_BYTES / plan.item_bytes,
                    false if rate < SLOW * plan.best => 1.0,
                    false => 2.0,
                };
                (delay.max(share).min(MOST_WINDOW_BYTES) / plan.item_bytes).max(least)
            }
        };
        (window.clamp(1.0, MOST_WINDOW_ITEMS).round() as usize).saturating_sub(peer.due as usize)
    }

    /// Seconds until one more item would be here from this peer.
    pub(super) fn finish(&self, slot: usize, plan: &Plan) -> f64 {
        let peer = &self.peers[slot];
        if plan.rates[slot].is_none() && peer.on_probation() {
            return peer.patience(plan.item_bytes, plan.typical).as_secs_f64();
        }
        let rate = plan.rates[slot].or(plan.typical).unwrap_or(plan.item_bytes / GUESS_SECONDS);
        (f64::from(peer.due + 1) * plan.item_bytes / rate + peer.round().as_secs_f64()) * peer.distrust()
    }

    fn usable(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.peers.len()).filter(|slot| self.peers[*slot].is_usable())
    }

    /// What was decided, neighbours in one order each.
    fn orders(&mut self, now: Instant) -> Vec<Order> {
        let mut orders = Vec::new();
        let mut cancels = std::mem::take(&mut self.cancels);
        let mut wants = std::mem::take(&mut self.wants);
        if cancels.len() + wants.len() > MOST_ORDERS {
            self.cancels = cancels.split_off(cancels.len().min(MOST_ORDERS));
            self.wants = wants.split_off(wants.len().min(MOST_ORDERS - cancels.len()));
            self.wake_by(Some(now));
        }
        cancels.sort_unstable();
        for (slot, first, count) in runs(cancels.into_iter().map(|(slot, item)| (slot, item, false))) {
            orders.push(Order::Cancel { peer: self.peers[slot.0].id, first, count });
        }
        wants.sort_unstable_by_key(|(slot, item, insist)| (*slot, *insist, *item));
        for ((slot, insist), first, count) in runs(wants.into_iter()) {
            orders.push(Order::Want { peer: self.peers[slot].id, first, count, insist });
        }
        orders
    }

    fn wake_by(&mut self, at: Option<Instant>) {
        self.wake = match (self.wake, at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }

    /// When there will be something to decide though nothing happens.
    fn deadline(&self, plan: &Plan) -> Option<Instant> {
        if self.is_done() {
            return None;
        }
        let patience = self.peers.iter().filter(|p| p.may_be_asked()).filter_map(|peer| {
            let (_, forgets) = peer.forgotten(plan.item_bytes, plan.now);
            let silent = match peer.doubtful_until {
                Some(until) => Some(until),
                None => peer.patience_ends(plan.item_bytes, plan.typical),
            };
            forgets.into_iter().chain(silent).min()
        });
        let insists = self.flights.values().filter_map(|flight| self.insists(flight, plan));
        let near = self.complete && self.missing() <= END_ITEMS || self.here.count() > self.here.next_out(0);
        let again = (near && self.flights.values().any(|f| f.at.len() < MOST_COPIES))
            .then_some(plan.now + THINK_AGAIN);
        // A deadline in the past would make its owner spin.
        patience.chain(insists).chain(again).min().map(|at| at.max(plan.now + SHORTEST_SLEEP))
    }
}

/// Shortest time between two looks at the clock.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// How far chance may move an estimate: estimates are not better than that.
const CHANCE: f64 = 0.2;

/// What one round of planning starts from.
pub(super) struct Plan {
    pub(super) now: Instant,
    pub(super) item_bytes: f64,
    /// Bytes a second of each slot that may be asked now, as far as known.
    pub(super) rates: Vec<Option<f64>>,
    /// The best of them, and all together.
    pub(super) best: f64,
    pub(super) total: f64,
    /// What a peer unmeasured is taken for.
    pub(super) typical: Option<f64>,
    /// How many have something.
    pub(super) usable: usize,
    /// How much the fullest of them has.
    pub(super) fullest: u32,
    /// Items that are waited for elsewhere.
    pub(super) referred: usize,
    /// A factor for each slot, so that the members of a crowd do not all prefer the same one.
    pub(super) chance: Vec<f64>,
}

impl Plan {
    fn of(session: &mut Session, now: Instant) -> Self {
        let item_bytes = session.item_bytes();
        let chance = (0..session.peers.len()).map(|_| 1.0 + CHANCE * session.fraction()).collect();
        let rate = |slot: usize| {
            let peer = &session.peers[slot];
            peer.rate().filter(|_| peer.is_usable()).and_then(|_| peer.rate_now(item_bytes, now))
        };
        let rates: Vec<Option<f64>> = (0..session.peers.len()).map(rate).collect();
        let known = || rates.iter().flatten();
        let total = known().sum::<f64>();
        Self {
            now,
            item_bytes,
            best: known().copied().fold(0.0, f64::max),
            total,
            typical: (total > 0.0).then(|| total / known().count() as f64),
            usable: session.usable().filter(|slot| session.peers[*slot].has.count() > 0).count().max(1),
            fullest: session.usable().map(|slot| session.peers[slot].has.count()).max().unwrap_or(0),
            referred: session.flights.values().filter(|flight| flight.referral.is_some()).count(),
            rates,
            chance,
        }
    }
}

/// Joins neighbours: (slot, item, flag) sorted by slot, flag and item gives ((slot, flag), first, count).
fn runs(sorted: impl Iterator<Item = (usize, u32, bool)>) -> Vec<((usize, bool), u32, u32)> {
    let mut joined: Vec<((usize, bool), u32, u32)> = Vec::new();
    for (slot, item, flag) in sorted {
        match joined.last_mut() {
            Some((key, first, count)) if *key == (slot, flag) && item.checked_sub(*first) == Some(*count) => {
                *count += 1;
            }
            Some((key, first, count)) if *key == (slot, flag) && item.wrapping_sub(*first) < *count => {}
            _ => joined.push(((slot, flag), item, 1)),
        }
    }
    joined
}
