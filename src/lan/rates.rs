//! Buckets of tokens: how often a stranger may do something. Pure; fed with `now`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How often: so many at once, and one more each `each`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) burst: u32,
    pub(super) each: Duration,
}

/// Tokens that come back with time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    rate: Rate,
    /// When it is, or was, full. In the future by `each` for every token taken.
    full_at: Instant,
}

impl Bucket {
    /// A full one.
    pub(super) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let there = self.free_at(now) <= now;
        if there {
            self.full_at = self.full_at.max(now) + self.rate.each;
        }
        there
    }

    /// When there is a token: `now` at the earliest.
    pub(super) fn free_at(&self, now: Instant) -> Instant {
        let all_but_one = self.rate.each * self.rate.burst.saturating_sub(1);
        self.full_at.checked_sub(all_but_one).unwrap_or(now).max(now)
    }

    fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

/// A bucket for each source address, of which a bounded number is remembered.
#[derive(Debug)]
pub(super) struct Sources {
    rate: Rate,
    most: usize,
    buckets: HashMap<IpAddr, Bucket>,
}

impl Sources {
    /// Remembers `most` sources.
    pub(super) fn new(rate: Rate, most: usize) -> Self {
        Self { rate, most, buckets: HashMap::new() }
    }

    /// Takes a token of this source's.
    ///
    /// With too many sources at once any one is forgotten: whoever can make up that many is held by the limit of all
    /// together, and an honest newcomer is not shut out.
    pub(super) fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        if self.buckets.len() >= self.most && !self.buckets.contains_key(&source) {
            self.buckets.retain(|_, bucket| !bucket.is_full(now));
            if self.buckets.len() >= self.most
                && let Some(any) = self.buckets.keys().next().copied()
            {
                self.buckets.remove(&any);
            }
        }
        let rate = self.rate;
        self.buckets.entry(source).or_insert_with(|| Bucket::new(rate, now)).take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, each: Duration::from_secs(1) };

    #[test]
    fn a_burst_and_then_one_at_a_time() {
        let start = Instant::now();
        let mut bucket = Bucket::new(RATE, start);
        let rows: [(u64, bool); 10] = [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (999, false),
            (1000, true),
            (1000, false),
            (2000, true),
            (60_000, true),
            (60_000, true),
        ];
        for (row, (millis, given)) in rows.into_iter().enumerate() {
            let now = start + Duration::from_millis(millis);
            assert_eq!(bucket.free_at(now) <= now, given, "row {row}");
            assert_eq!(bucket.take(now), given, "row {row}");
        }
        let now = start + Duration::from_secs(60);
        assert!(bucket.take(now) && !bucket.take(now), "no more than the burst is saved up");
        assert_eq!(bucket.free_at(now), now + RATE.each);
    }

    #[test]
    fn sources_are_apart_and_bounded() {
        let now = Instant::now();
        let mut sources = Sources::new(RATE, 10);
        let source = |n: u32| IpAddr::V4(n.into());
        for _ in 0..3 {
            assert!(sources.take(source(1), now));
        }
        assert!(!sources.take(source(1), now));
        assert!(sources.take(source(2), now));
        for n in 0..10_000 {
            sources.take(source(n), now);
            assert!(sources.buckets.len() <= 10);
        }
        assert!(sources.take(source(99_999), now + Duration::from_secs(9)));
        assert_eq!(sources.buckets.len(), 1, "idle ones are forgotten first");
    }
}
