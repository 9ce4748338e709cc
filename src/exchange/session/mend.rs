//! What does not come: silent peers are doubted, what they owe is asked of others, and what holds everything up is
//! asked for twice.

use std::time::{Duration, Instant};

use super::peer::seconds;
use super::plan::Plan;
use super::{Flight, MOST_ORDERS, Session};

/// Second copies may be asked for of one item in this many …
const DOUBLE_ONE_IN: u64 = 20;

/// … and at the end of this many beside: a file of few items has a last one too.
const DOUBLE_FREELY: u64 = 8;

/// Peers asked for the same item at once, at most.
pub(super) const MOST_COPIES: usize = 4;

/// Items missing at most for the end to have come.
pub(super) const END_ITEMS: u32 = 16;

/// Items behind the front that are here already, for the front to count as blocked.
const BLOCKED_BEHIND: u32 = 4;

/// A second copy is worth it when it would come in less than this part of the time that the first still takes …
const WORTH: f64 = 0.5;

/// … and saves at least this many seconds.
const WORTH_SECONDS: f64 = 0.03;

/// Least time that a peer gets to come by what others were sent to it for. Whoever owns the session gives up after a
/// few seconds without anything, so that the wait has to be over before.
const REFERRAL: Duration = Duration::from_millis(500);

/// The same where we know nothing of the peer that we were sent to: only that it is not asked by everybody at once.
const STRANGER_REFERRAL: Duration = Duration::from_millis(250);

/// What an item is thought to take, in seconds, while nothing is known.
const UNKNOWN_ITEM: f64 = 0.1;

/// That time in items as the peer that referred us gives them.
const REFERRAL_ITEMS: f64 = 6.0;

impl Session {
    /// Doubts peers that have been silent for too long, forgets what was forgotten, insists where it is time.
    pub(super) fn judge(&mut self, plan: &Plan) {
        let now = plan.now;
        for slot in 0..self.peers.len() {
            let peer = &mut self.peers[slot];
            if peer.doubtful_until.is_some_and(|until| until <= now) {
                peer.forgive(now);
            }
            if peer.patience_ends(plan.item_bytes, plan.typical).is_some_and(|end| end <= now)
                && peer.doubtful_until.is_none()
            {
                peer.doubt(plan.item_bytes, plan.typical, now);
            }
            let (forgotten, _) = peer.forgotten(plan.item_bytes, now);
            for item in forgotten {
                self.take_back(item, slot);
            }
        }
        let late: Vec<(u32, usize)> = self
            .flights
            .iter()
            .filter(|(_, flight)| self.insists(flight, plan).is_some_and(|at| at <= now))
            .filter_map(|(item, flight)| flight.referral.map(|referral| (*item, referral.via)))
            .collect();
        for (item, via) in late {
            self.take_back_all(item);
            if self.peers[via].may_be_asked() {
                self.ask(via, item, false, true, now);
            }
        }
    }

    /// When it is time to insist on an item that was sent elsewhere.
    pub(super) fn insists(&self, flight: &Flight, plan: &Plan) -> Option<Instant> {
        let referral = flight.referral?;
        if !referral.known {
            return Some(referral.since + STRANGER_REFERRAL.mul_f64(referral.spread));
        }
        let via = &self.peers[referral.via];
        // It gives to us and to the other at about the same speed, so it takes about an item's time until the other
        // has it. While it has given us nothing yet, its own silence is the measure.
        let item = match via.rate_now(plan.item_bytes, plan.now).or(plan.typical) {
            Some(rate) => plan.item_bytes / rate,
            None => UNKNOWN_ITEM,
        };
        let wait = (REFERRAL + via.round() + seconds(REFERRAL_ITEMS * item)).mul_f64(referral.spread);
        Some(referral.since + wait)
    }

    /// Asks a second peer for what holds everything up: the front that is blocked, the last few at the end.
    pub(super) fn double(&mut self, plan: &Plan) {
        for _ in 0..MOST_ORDERS {
            let front = self.here.next_out(0);
            let blocked = self.here.count() - front >= BLOCKED_BEHIND;
            let end = self.complete && self.missing() <= END_ITEMS;
            if !(blocked || end) || !self.may_double(end) {
                return;
            }
            let slowest = self
                .flights
                .iter()
                .filter(|(item, _)| end || **item == front)
                .filter_map(|(item, flight)| Some((*item, self.left(*item, flight, plan)?)))
                .max_by(|a, b| a.1.total_cmp(&b.1));
            let Some((item, left)) = slowest else { return };
            let best = (0..self.peers.len())
                .filter(|slot| !self.peers[*slot].asked.contains_key(&item))
                .filter(|slot| self.peers[*slot].has.contains(item) && self.room(*slot, plan) > 0)
                .filter(|slot| plan.rates[*slot].is_some() || plan.typical.is_none())
                .map(|slot| (slot, self.finish(slot, plan)))
                .min_by(|a, b| a.1.total_cmp(&b.1));
            match best {
                Some((slot, time)) if time < left * WORTH && left - time > WORTH_SECONDS => {
                    self.doubled += 1;
                    self.ask(slot, item, false, false, plan.now);
                }
                _ => return,
            }
        }
    }

    /// Whether one more copy may be asked for while another is on its way.
    fn may_double(&self, end: bool) -> bool {
        let share = u64::from(self.items) / DOUBLE_ONE_IN;
        self.doubled < if end { share + DOUBLE_FREELY } else { share }
    }

    /// Seconds that an item should still take, from the quickest of those asked for it.
    fn left(&self, item: u32, flight: &Flight, plan: &Plan) -> Option<f64> {
        let times = flight.at.iter().map(|at| self.peers[*at].left(item, plan.item_bytes, plan.now));
        // One of whom nothing can be said yet was asked this moment.
        times.reduce(|a, b| Some(a?.min(b?))).flatten().filter(|_| flight.at.len() < MOST_COPIES)
    }

    /// Takes an item back from one that was asked for it.
    fn take_back(&mut self, item: u32, slot: usize) {
        self.withdraw(slot, item);
        if let Some(flight) = self.flights.get_mut(&item) {
            flight.at.retain(|at| *at != slot);
        }
    }

    /// Takes an item back from all that were asked for it.
    fn take_back_all(&mut self, item: u32) {
        let Some(flight) = self.flights.get_mut(&item) else { return };
        flight.referral = None;
        for slot in std::mem::take(&mut flight.at) {
            self.withdraw(slot, item);
        }
    }

    /// Makes way for another peer to be asked for an item. One that has been silent may still be giving it: as long as
    /// second copies are allowed it is left to it.
    pub(super) fn replace(&mut self, item: u32) {
        let given_up = |at: usize| self.peers[at].doubtful_until.is_some();
        let Some(flight) = self.flights.get(&item) else { return };
        let racing = !flight.at.is_empty() && flight.at.iter().all(|at| given_up(*at));
        if racing && flight.at.len() < MOST_COPIES && self.may_double(true) {
            self.doubled += 1;
        } else {
            self.take_back_all(item);
        }
    }
}
