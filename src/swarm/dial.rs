//! Whom to dial, and when again. Pure: events and `now` go in, dials come out.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::limits::{ADDRESSES, PEERS};
use crate::base::{Multiaddr, PeerId};

/// Wait after the first failed dial; it doubles with each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// Longest wait between two dials of a kept peer: a box that comes back is found within a minute.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Dials of a peer that nobody told us to keep, before its discoverer has to name it again.
const ATTEMPTS: u32 = 4;

/// Peers to be dialled, and those that are connected or failed lately.
pub(super) struct Book {
    entries: HashMap<PeerId, Entry>,
    /// Dials at once.
    most: usize,
}

struct Entry {
    addresses: Vec<Multiaddr>,
    keep: bool,
    state: State,
    failures: u32,
    error: Option<String>,
    /// When something last happened to it: who is forgotten first.
    touched: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be dialled then.
    Due(Instant),
    Dialling,
    Connected,
    /// Given up; dialled again if somebody asks for it after this time.
    Resting(Instant),
}

/// What is known of a peer that is sought.
#[derive(Clone, Debug)]
pub struct Sought {
    /// The peer.
    pub peer: PeerId,
    /// Where it is looked for.
    pub addresses: Vec<Multiaddr>,
    /// Whether it is dialled for ever (`--peer`).
    pub kept: bool,
    /// Failed dials since it was last connected.
    pub failures: u32,
    /// What the last one failed of.
    pub error: Option<String>,
}

impl Book {
    /// An empty book, for `most` dials at once.
    pub(super) fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), most }
    }

    /// Dial this peer, unless that is going on, done, or was tried a moment ago. The newest addresses count first.
    pub(super) fn dial(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant) {
        self.add(peer, addresses, false, now);
    }

    /// Dial this peer whenever it is not connected, for ever.
    pub(super) fn keep(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, now: Instant) {
        self.add(peer, addresses, true, now);
    }

    /// The peer need not be kept any more. Connected, it stays so until it goes.
    pub(super) fn release(&mut self, peer: &PeerId, now: Instant) {
        let Some(entry) = self.entries.get_mut(peer) else { return };
        entry.keep = false;
        if let State::Due(_) = entry.state {
            entry.state = State::Resting(now);
        }
    }

    fn add(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, keep: bool, now: Instant) {
        if !self.entries.contains_key(&peer) && !self.make_room() {
            return;
        }
        let entry = self.entries.entry(peer).or_insert(Entry {
            addresses: Vec::new(),
            keep,
            state: State::Due(now),
            failures: 0,
            error: None,
            touched: now,
        });
        entry.touched = now;
        entry.keep |= keep;
        let old = std::mem::take(&mut entry.addresses);
        for address in addresses.into_iter().chain(old) {
            if entry.addresses.len() < ADDRESSES && !entry.addresses.contains(&address) {
                entry.addresses.push(address);
            }
        }
        if let State::Resting(until) = entry.state
            && (until <= now || keep)
        {
            entry.state = State::Due(now);
        }
    }

    /// Forgets the entry that matters least. `false`: all of them matter.
    fn make_room(&mut self) -> bool {
        if self.entries.len() < PEERS {
            return true;
        }
        let idle = |e: &Entry| !e.keep && matches!(e.state, State::Due(_) | State::Resting(_));
        let oldest = self.entries.iter().filter(|(_, e)| idle(e)).min_by_key(|(_, e)| e.touched);
        let Some(oldest) = oldest.map(|(peer, _)| *peer) else { return false };
        self.entries.remove(&oldest);
        true
    }

    /// The next dials that are due. The caller begins them all and says how each ended.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(PeerId, Vec<Multiaddr>)> {
        let dialling = self.entries.values().filter(|e| e.state == State::Dialling).count();
        let mut due: Vec<_> = self
            .entries
            .iter_mut()
            .filter_map(|(peer, e)| match e.state {
                State::Due(at) if at <= now => Some((at, peer, e)),
                _ => None,
            })
            .collect();
        due.sort_by_key(|(at, peer, _)| (*at, **peer));
        let free = self.most.saturating_sub(dialling);
        let begin = |(_, peer, entry): (Instant, &PeerId, &mut Entry)| {
            entry.state = State::Dialling;
            (*peer, entry.addresses.clone())
        };
        due.into_iter().take(free).map(begin).collect()
    }

    /// When [`Book::due`] will have something, if nothing happens before. With all dials taken it is a dial's end that
    /// happens.
    pub(super) fn wake(&self) -> Option<Instant> {
        let dialling = self.entries.values().filter(|e| e.state == State::Dialling).count();
        if dialling >= self.most {
            return None;
        }
        let due = |e: &Entry| match e.state {
            State::Due(at) => Some(at),
            _ => None,
        };
        self.entries.values().filter_map(due).min()
    }

    /// A connection to `peer` is there, whoever dialled.
    pub(super) fn connected(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(peer) {
            entry.state = State::Connected;
            entry.failures = 0;
            entry.error = None;
            entry.touched = now;
        }
    }

    /// The last connection to `peer` has gone.
    pub(super) fn lost(&mut self, peer: &PeerId, now: Instant) {
        if let Some(entry) = self.entries.get_mut(peer) {
            entry.touched = now;
            entry.state = match entry.keep {
                true => State::Due(now + FIRST_WAIT),
                false => State::Resting(now),
            };
        }
    }

    /// A dial of `peer` failed.
    pub(super) fn failed(&mut self, peer: &PeerId, error: String, now: Instant) {
        let Some(entry) = self.entries.get_mut(peer) else { return };
        if entry.state != State::Dialling {
            return;
        }
        entry.touched = now;
        entry.failures = entry.failures.saturating_add(1);
        entry.error = Some(error);
        let wait = FIRST_WAIT.saturating_mul(1 << (entry.failures - 1).min(16)).min(LONGEST_WAIT);
        // Each fourth of the peers a little later: boxes that lost each other at once do not come back at once.
        let wait = wait + wait / 16 * u32::from(peer.to_bytes().last().copied().unwrap_or(0) % 4);
        entry.state = match entry.keep || entry.failures < ATTEMPTS {
            true => State::Due(now + wait),
            false => State::Resting(now + wait),
        };
    }

    /// The peers that are sought and not connected.
    pub(super) fn sought(&self) -> Vec<Sought> {
        let missing = self.entries.iter().filter(|(_, e)| e.state != State::Connected);
        let mut all: Vec<Sought> = missing
            .map(|(peer, e)| Sought {
                peer: *peer,
                addresses: e.addresses.clone(),
                kept: e.keep,
                failures: e.failures,
                error: e.error.clone(),
            })
            .collect();
        all.sort_by_key(|s| s.peer);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u16) -> Multiaddr {
        format!("/ip4/10.0.0.1/udp/{n}/quic-v1").parse().unwrap()
    }

    /// Dials that a book makes of one peer in an hour, when nobody ever answers.
    fn dials(keep: bool, named_again: Option<Duration>) -> Vec<u64> {
        let start = Instant::now();
        let (mut book, peer) = (Book::new(4), PeerId::random());
        let mut seen = Vec::new();
        for second in 0..3600 {
            let now = start + Duration::from_secs(second);
            let again = named_again.is_some_and(|t| second % t.as_secs() == 0);
            if second == 0 || again {
                if keep {
                    book.keep(peer, vec![address(1)], now)
                } else {
                    book.dial(peer, vec![address(1)], now)
                }
            }
            for (peer, addresses) in book.due(now) {
                assert_eq!(addresses, [address(1)]);
                seen.push(second);
                book.failed(&peer, "nobody".into(), now);
            }
            assert!(book.due(now).is_empty(), "not twice in a second");
        }
        seen
    }

    #[test]
    fn waits_grow_and_end() {
        let once = dials(false, None);
        assert_eq!(once.len(), ATTEMPTS as usize, "{once:?}");
        assert!(once.windows(3).all(|w| w[2] - w[1] >= w[1] - w[0]), "{once:?}");
        let kept = dials(true, None);
        assert!((45..80).contains(&kept.len()), "about one a minute: {}", kept.len());
        let named = dials(false, Some(Duration::from_secs(10)));
        assert!(named.len() < 80, "discovery does not undo the waits: {}", named.len());
    }

    #[test]
    fn kept_peers_are_dialled_again_and_others_are_not() {
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        let (mut book, kept, other) = (Book::new(4), PeerId::random(), PeerId::random());
        book.keep(kept, vec![address(1)], now);
        book.dial(other, vec![address(2)], now);
        assert_eq!(book.due(now).len(), 2);
        book.connected(&kept, now);
        book.connected(&other, now);
        assert_eq!(book.wake(), None);
        assert!(book.sought().is_empty());
        book.lost(&kept, at(10));
        book.lost(&other, at(10));
        assert_eq!(book.wake(), Some(at(11)));
        assert_eq!(book.due(at(11)), [(kept, vec![address(1)])]);
        book.dial(other, vec![address(3)], at(12));
        assert_eq!(book.due(at(12)), [(other, vec![address(3), address(2)])], "newest first");
    }

    #[test]
    fn who_is_released_is_left_alone() {
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        let (mut book, peer) = (Book::new(4), PeerId::random());
        book.keep(peer, vec![address(1)], now);
        book.release(&peer, now);
        assert!(book.due(at(100)).is_empty(), "it waited to be dialled");
        book.keep(peer, vec![address(1)], at(100));
        assert_eq!(book.due(at(100)).len(), 1);
        book.connected(&peer, at(100));
        book.release(&peer, at(101));
        book.lost(&peer, at(102));
        assert!(book.due(at(1000)).is_empty(), "it was connected");
        book.dial(peer, vec![], at(1001));
        assert_eq!(book.due(at(1001)).len(), 1, "somebody else wants it");
    }

    #[test]
    fn so_many_at_once_and_so_many_remembered() {
        let now = Instant::now();
        let mut book = Book::new(3);
        let kept = PeerId::random();
        book.keep(kept, vec![address(1)], now);
        for n in 0..PEERS + 10 {
            book.dial(
                PeerId::random(),
                (0..40).map(address).collect(),
                now + Duration::from_millis(n as u64),
            );
        }
        assert_eq!(book.entries.len(), PEERS);
        assert!(book.entries.contains_key(&kept));
        assert!(book.entries.values().all(|e| e.addresses.len() <= ADDRESSES));
        let later = now + Duration::from_secs(60);
        let first = book.due(later);
        assert_eq!(first.len(), 3);
        assert_eq!((book.due(later).len(), book.wake()), (0, None));
        book.failed(&first[0].0, "nobody".into(), later);
        assert_eq!(book.due(later).len(), 1);
    }
}
