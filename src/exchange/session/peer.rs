//! What a session knows of one peer: what it has, what it was asked for, and how fast it gives.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::base::PeerId;
use crate::exchange::Ranges;

use super::Gave;

/// Half-life of what is remembered of a peer's speed: long enough for several items, short enough to notice a change.
const PACE_HALF_LIFE: f64 = 1.0;

/// Weight, in seconds, of a speed known from earlier sessions.
const HINT_SECONDS: f64 = 0.25;

/// Speeds in bytes a second that a hint may claim; beyond it is somebody's mistake.
const HINT_RANGE: (f64, f64) = (1e3, 1e10);

/// Round trip of a peer that has none measured yet.
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// Longest round trip that is believed: a longer one would only make windows absurd.
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(2);

/// What a peer needs to turn round (its disk, its scheduler), beside the round trip.
const TURN: Duration = Duration::from_millis(10);

/// Shortest patience with a peer that gives nothing: a disk that must spin up, a busy small box.
const PATIENCE: Duration = Duration::from_secs(1);

/// Patience as a multiple of the time an item should take.
const PATIENCE_ITEMS: f64 = 3.0;

/// What an item takes, in seconds, from a peer of which nothing is known in a session that has measured nobody.
pub(super) const GUESS_SECONDS: f64 = 0.25;

/// Each time that patience ran out doubles it, this often at most.
const MOST_DOUBLINGS: u32 = 5;

/// Items that were asked, are not wanted any more, and may still come.
const MOST_LATE: usize = 256;

/// An item that a peer was asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// When; for one that the peer was to get first, when it said that it has it.
    pub(super) at: Instant,
    /// Order of asking.
    pub(super) number: u64,
    /// The peer does not have it yet and will get it soon.
    pub(super) soon: bool,
    /// It was told to give it all the same.
    pub(super) insist: bool,
}

/// One peer of a session.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    /// Connected, as far as we know.
    pub(super) alive: bool,
    /// What it can give.
    pub(super) has: Ranges,
    /// What it is asked for now.
    pub(super) asked: BTreeMap<u32, Ask>,
    /// How many of `asked` it has.
    pub(super) due: u32,
    /// It has sent us elsewhere: others ask it for the same.
    pub(super) crowded: bool,
    /// Until when nothing new is asked of it, as it has let us wait too long.
    pub(super) doubtful_until: Option<Instant>,
    pub(super) gave: Gave,
    round_trip: Option<Duration>,
    pace: Pace,
    /// Since when it owes us something without giving anything.
    quiet_since: Option<Instant>,
    last_arrival: Option<Instant>,
    doubts: u32,
    late: BTreeMap<u32, Instant>,
}

/// Bytes over the time that they were waited for; the past fades.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    bytes: f64,
    seconds: f64,
}

impl Peer {
    pub(super) fn new(id: PeerId) -> Self {
        Self {
            id,
            alive: true,
            has: Ranges::default(),
            asked: BTreeMap::new(),
            due: 0,
            crowded: false,
            doubtful_until: None,
            gave: Gave::default(),
            round_trip: None,
            pace: Pace::default(),
            quiet_since: None,
            last_arrival: None,
            doubts: 0,
            late: BTreeMap::new(),
        }
    }

    /// Takes what the owner knows; what was measured here counts more than a hint.
    pub(super) fn hint(&mut self, round_trip: Option<Duration>, bytes_per_second: Option<u64>) {
        self.round_trip = round_trip.map(|rtt| rtt.min(LONGEST_ROUND_TRIP)).or(self.round_trip);
        if let Some(hint) = bytes_per_second.filter(|_| self.pace.seconds == 0.0) {
            let rate = (hint as f64).clamp(HINT_RANGE.0, HINT_RANGE.1);
            self.pace = Pace { bytes: rate * HINT_SECONDS, seconds: HINT_SECONDS };
        }
    }

    /// Whether it may be asked for anything at all.
    pub(super) fn may_be_asked(&self) -> bool {
        self.alive && self.gave.wrong == 0
    }

    /// Whether something new should be asked of it now.
    pub(super) fn is_usable(&self) -> bool {
        self.may_be_asked() && self.doubtful_until.is_none()
    }

    /// Notes that it is asked for `item`.
    pub(super) fn ask(&mut self, item: u32, ask: Ask) {
        let before = self.asked.insert(item, ask);
        if before.is_none_or(|b| b.soon) && !ask.soon {
            self.owes_one_more(ask.at);
        } else if before.is_some_and(|b| !b.soon) && ask.soon {
            self.owes_one_less();
        }
    }

    /// It says that it has `item`; `true` when it was asked for it before it had it.
    pub(super) fn came_by(&mut self, item: u32, now: Instant) -> bool {
        let Some(ask) = self.asked.get_mut(&item).filter(|ask| ask.soon) else { return false };
        (ask.soon, ask.at) = (false, now);
        self.owes_one_more(now);
        true
    }

    /// Takes back what it was asked for. It may come all the same.
    pub(super) fn withdraw(&mut self, item: u32) -> Option<Ask> {
        let ask = self.asked.remove(&item)?;
        if !ask.soon {
            self.owes_one_less();
        }
        if self.late.len() >= MOST_LATE {
            self.late.pop_first();
        }
        self.late.entry(item).or_insert(ask.at);
        Some(ask)
    }

    /// Notes bytes of `item`; `false` when it was never asked for that.
    pub(super) fn gives(&mut self, item: u32, bytes: u64, now: Instant) -> bool {
        let asked = self.asked.remove(&item);
        let late = self.late.remove(&item);
        if asked.is_none() && late.is_none() {
            return false;
        }
        // It was busy with this since it was asked for it, or since it gave something before.
        let late = late.map(|at| self.last_arrival.map_or(at, |last| last.max(at)));
        if let Some(since) = self.quiet_since.or(late) {
            self.pace.add(bytes, now.saturating_duration_since(since));
        }
        self.last_arrival = Some(now);
        self.doubts = 0;
        self.doubtful_until = None;
        self.quiet_since = self.quiet_since.map(|_| now);
        if asked.is_some_and(|ask| !ask.soon) {
            self.owes_one_less();
        }
        true
    }

    /// Forgets everything that it was asked for and has; gives what it was asked for.
    pub(super) fn empty(&mut self) -> Vec<u32> {
        self.has.clear();
        self.late.clear();
        (self.due, self.quiet_since, self.doubtful_until) = (0, None, None);
        std::mem::take(&mut self.asked).into_keys().collect()
    }

    fn owes_one_more(&mut self, now: Instant) {
        self.due += 1;
        self.quiet_since.get_or_insert(now);
    }

    fn owes_one_less(&mut self) {
        self.due = self.due.saturating_sub(1);
        if self.due == 0 {
            self.quiet_since = None;
        }
    }

    /// Bytes a second as measured, if anything was.
    pub(super) fn rate(&self) -> Option<f64> {
        self.pace.rate()
    }

    /// Bytes a second, given that nothing of the item due next has come for some time.
    pub(super) fn rate_now(&self, item_bytes: f64, now: Instant) -> Option<f64> {
        let silence =
            self.quiet_since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
        let extended = (self.pace.bytes + item_bytes) / (self.pace.seconds + silence).max(SHORTEST);
        match self.rate() {
            Some(rate) => Some(rate.min(extended)),
            // Nothing measured: it is expected to take as long again.
            None => (silence > 0.0).then(|| item_bytes / (2.0 * silence)),
        }
    }

    /// Round trip and turn-round time.
    pub(super) fn round(&self) -> Duration {
        self.round_trip.unwrap_or(ROUND_TRIP) + TURN
    }

    /// How long it may give nothing at all, when others give `others` bytes a second each (for a peer unmeasured).
    pub(super) fn patience(&self, item_bytes: f64, others: Option<f64>) -> Duration {
        let rate = self.rate().or(others);
        let item = rate.map_or(GUESS_SECONDS, |rate| item_bytes / rate);
        let once = PATIENCE + 4 * self.round() + seconds(PATIENCE_ITEMS * item);
        once.mul_f64(self.distrust())
    }

    /// When patience with its silence runs out, if it owes us something.
    pub(super) fn patience_ends(&self, item_bytes: f64, others: Option<f64>) -> Option<Instant> {
        self.quiet_since.map(|since| since + self.patience(item_bytes, others))
    }

    /// It has let us wait too long. What it owes is asked of others, and nothing new of it for a while.
    pub(super) fn doubt(&mut self, item_bytes: f64, others: Option<f64>, now: Instant) {
        self.doubts = self.doubts.saturating_add(1);
        self.doubtful_until = Some(now + self.patience(item_bytes, others));
    }

    /// The doubt's time is over: it gets another chance.
    pub(super) fn forgive(&mut self, now: Instant) {
        self.doubtful_until = None;
        self.quiet_since = self.quiet_since.map(|_| now);
    }

    /// A factor for what is expected of it: each doubt since it last gave something doubles it.
    pub(super) fn distrust(&self) -> f64 {
        f64::from(1u32 << self.doubts.min(MOST_DOUBLINGS))
    }

    /// Whether it has been doubted since it last gave something.
    pub(super) fn on_probation(&self) -> bool {
        self.doubts > 0
    }

    /// What it has forgotten: it gives others, and should have given its whole queue several times by now. With them,
    /// when that can next be said of an item.
    pub(super) fn forgotten(&self, item_bytes: f64, now: Instant) -> (Vec<u32>, Option<Instant>) {
        let (Some(rate), Some(last)) = (self.rate(), self.last_arrival) else { return (Vec::new(), None) };
        let after = 4 * (PATIENCE + self.round() + seconds(f64::from(self.due) * item_bytes / rate));
        let passed = self.asked.iter().filter(|(_, ask)| !ask.soon && ask.at < last);
        let (late, not_yet): (Vec<_>, Vec<_>) = passed.partition(|(_, ask)| ask.at + after <= now);
        let next = not_yet.iter().map(|(_, ask)| ask.at + after).min();
        (late.into_iter().map(|(item, _)| *item).collect(), next)
    }

    /// Whether `item` was asked for after others that have not come, so that it has not been begun, most likely.
    pub(super) fn stands_in_line(&self, item: u32) -> bool {
        let Some(ask) = self.asked.get(&item) else { return false };
        self.asked.values().any(|other| !other.soon && other.number < ask.number)
    }

    /// Seconds until `item`, asked for already, should be here: what was asked before it comes first.
    pub(super) fn left(&self, item: u32, item_bytes: f64, now: Instant) -> Option<f64> {
        let ask = self.asked.get(&item).filter(|ask| !ask.soon)?;
        let before = self.asked.values().filter(|a| !a.soon && a.number <= ask.number).count();
        let rate = self.rate_now(item_bytes, now)?;
        Some(before as f64 * item_bytes / rate)
    }
}

impl Pace {
    fn add(&mut self, bytes: u64, time: Duration) {
        let time = time.as_secs_f64();
        let keep = (-time / PACE_HALF_LIFE).exp2();
        self.bytes = self.bytes * keep + bytes as f64;
        self.seconds = self.seconds * keep + time;
    }

    fn rate(&self) -> Option<f64> {
        (self.bytes > 0.0).then(|| (self.bytes / self.seconds.max(SHORTEST)).max(1.0))
    }
}

/// Shortest time, in seconds, that a speed is taken over: what came in one piece says nothing about speed.
const SHORTEST: f64 = 1e-3;

/// Longest time that any estimate gives, so that sums stay far from overflow.
const LONGEST: f64 = 3600.0;

/// A duration from an estimate, whatever the estimate.
pub(super) fn seconds(estimate: f64) -> Duration {
    match estimate.is_finite() {
        true => Duration::from_secs_f64(estimate.clamp(0.0, LONGEST)),
        false => Duration::from_secs_f64(LONGEST),
    }
}
