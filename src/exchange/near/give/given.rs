//! Who was given which chunk a moment ago: others are sent there for it, so that a crowd does not take everything from
//! one node.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use lru::LruCache;

use crate::base::{Digest, PeerId};

/// How long whoever was given a chunk is named to others who ask for it, counted from the end of giving: it gets it
/// first, then can give it. Who has waited too long for that insists. In the simulated crowd of the session's tests, 3 s
/// from the beginning made a source at 1 MB/s send everything 1.57 times, 5 s from the end 1.05 times.
pub(super) const ELSEWHERE_TIME: Duration = Duration::from_secs(5);

/// The same while it is being given: longer than any chunk takes that is not given up.
const SENDING_TIME: Duration = Duration::from_secs(60);

/// A taker who was given so many chunks more than another one waits [`HOLD`] before it is given the next: whoever is
/// nearest is heard first, and would be given everything, and would have to pass on all of it.
const AHEAD: u32 = 2;
pub(super) const HOLD: Duration = Duration::from_millis(20);

/// Chunks whose last taker is remembered: a hundred bytes each.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(8192).expect("not zero");

/// Whom this node gave which chunk a moment ago, and who takes what from it now.
pub(in crate::exchange) struct Given {
    last: Mutex<LruCache<(Digest, u32), Gift>>,
    /// Who takes an artifact, and how many chunks of it each was given.
    takers: Mutex<HashMap<Digest, HashMap<PeerId, Takes>>>,
}

/// A chunk that somebody was given, or is being given.
#[derive(Clone, Copy)]
struct Gift {
    to: PeerId,
    /// Until when others are sent there for it.
    until: Instant,
}

/// What a taker takes.
#[derive(Clone, Copy, Default)]
struct Takes {
    streams: u32,
    chunks: u32,
}

impl Default for Given {
    fn default() -> Self {
        Self { last: Mutex::new(LruCache::new(REMEMBERED)), takers: Mutex::default() }
    }
}

impl Given {
    /// Who else was given this chunk a moment ago and is still taking.
    pub(super) fn elsewhere(&self, digest: &Digest, n: u32, peer: PeerId) -> Option<PeerId> {
        let gift = *self.last.lock().expect(LOCK).peek(&(*digest, n))?;
        let takes = || {
            let takers = self.takers.lock().expect(LOCK);
            takers.get(digest).is_some_and(|takers| takers.contains_key(&gift.to))
        };
        (gift.to != peer && Instant::now() < gift.until && takes()).then_some(gift.to)
    }

    /// Notes that `to` is being given a chunk.
    pub(super) fn begins(&self, digest: &Digest, n: u32, to: PeerId) {
        if let Some(takes) = self.takers.lock().expect(LOCK).get_mut(digest).and_then(|t| t.get_mut(&to)) {
            takes.chunks += 1;
        }
        self.note(digest, n, to, SENDING_TIME);
    }

    /// For so long others are sent to `to` for a chunk.
    pub(super) fn note(&self, digest: &Digest, n: u32, to: PeerId, time: Duration) {
        self.last.lock().expect(LOCK).put((*digest, n), Gift { to, until: Instant::now() + time });
    }

    /// Whether another one who takes this was given fewer chunks by some.
    pub(super) fn is_ahead(&self, digest: &Digest, peer: PeerId) -> bool {
        let takers = self.takers.lock().expect(LOCK);
        let chunks = |peer: &PeerId| takers.get(digest)?.get(peer).map(|takes| takes.chunks);
        let least = takers.get(digest).and_then(|takers| takers.values().map(|takes| takes.chunks).min());
        chunks(&peer).unwrap_or(0) > least.unwrap_or(0) + AHEAD
    }
}

/// A peer that takes an artifact, for as long as it does.
pub(super) struct Taker<'a>(&'a Given, Digest, PeerId);

impl<'a> Taker<'a> {
    pub(super) fn begin(given: &'a Given, digest: Digest, peer: PeerId) -> Self {
        given.takers.lock().expect(LOCK).entry(digest).or_default().entry(peer).or_default().streams += 1;
        Self(given, digest, peer)
    }
}

impl Drop for Taker<'_> {
    fn drop(&mut self) {
        let mut takers = self.0.takers.lock().expect(LOCK);
        if let Some(of) = takers.get_mut(&self.1) {
            if let Some(takes) = of.get_mut(&self.2) {
                takes.streams -= 1;
            }
            of.retain(|_, takes| takes.streams > 0);
            if of.is_empty() {
                takers.remove(&self.1);
            }
        }
    }
}

const LOCK: &str = "no panic happens under this lock";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Sha256;

    fn peer(n: u8) -> PeerId {
        let mut bytes = vec![0x12, 0x20];
        bytes.extend([n; 32]);
        PeerId::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn others_are_sent_to_whoever_takes_it_too() {
        let (given, digest) = (Given::default(), Sha256::of(b"x").digest());
        let taker = |n| Taker::begin(&given, digest, peer(n));
        let (first, _second) = (taker(1), taker(2));
        assert_eq!(given.elsewhere(&digest, 0, peer(2)), None, "nobody was given it");
        given.begins(&digest, 0, peer(1));
        assert_eq!(given.elsewhere(&digest, 0, peer(2)), Some(peer(1)));
        assert_eq!(given.elsewhere(&digest, 0, peer(1)), None, "not to itself");
        given.note(&digest, 0, peer(1), Duration::ZERO);
        assert_eq!(given.elsewhere(&digest, 0, peer(2)), None, "that was long ago");
        given.note(&digest, 0, peer(1), ELSEWHERE_TIME);
        let again = taker(1);
        drop(first);
        assert_eq!(given.elsewhere(&digest, 0, peer(2)), Some(peer(1)), "it has another stream");
        drop(again);
        assert_eq!(given.elsewhere(&digest, 0, peer(2)), None, "it has gone");
    }

    #[test]
    fn who_is_ahead_waits_for_the_others() {
        let (given, digest) = (Given::default(), Sha256::of(b"x").digest());
        let _takers = [1, 2].map(|n| Taker::begin(&given, digest, peer(n)));
        (0..AHEAD).for_each(|n| given.begins(&digest, n, peer(1)));
        assert!(!given.is_ahead(&digest, peer(1)));
        given.begins(&digest, AHEAD, peer(1));
        assert!(given.is_ahead(&digest, peer(1)) && !given.is_ahead(&digest, peer(2)));
    }
}
