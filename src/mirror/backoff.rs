//! What failed, and when it is tried again: the wait doubles. Pure: time comes in.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Wait after the first failure.
const FIRST: Duration = Duration::from_secs(2);

/// Longest wait.
const LONGEST: Duration = Duration::from_secs(600);

/// Things that failed and are remembered: beyond it the one whose wait ends first is forgotten.
const REMEMBERED: usize = 8192;

/// See the module.
#[derive(Debug)]
pub(super) struct Backoff<K>(HashMap<K, (u32, Instant)>);

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Backoff<K> {
    /// Until when it is left alone, if it is.
    pub(super) fn until(&self, what: &K, now: Instant) -> Option<Instant> {
        self.0.get(what).map(|(_, until)| *until).filter(|until| *until > now)
    }

    pub(super) fn failed(&mut self, what: K, now: Instant) {
        if self.0.len() >= REMEMBERED && !self.0.contains_key(&what) {
            let first = self.0.iter().min_by_key(|(_, (_, until))| *until).map(|(what, _)| what.clone());
            first.map(|what| self.0.remove(&what));
        }
        let (failures, until) = self.0.entry(what).or_insert((0, now));
        *until = now + FIRST.saturating_mul(1 << (*failures).min(20)).min(LONGEST);
        *failures = failures.saturating_add(1);
    }

    pub(super) fn went_well(&mut self, what: &K) {
        self.0.remove(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_are_forgotten() {
        let start = Instant::now();
        let (mut backoff, mut now) = (Backoff::default(), start);
        let mut waits = Vec::new();
        for _ in 0..40 {
            backoff.failed("a", now);
            let until = backoff.until(&"a", now).unwrap();
            waits.push(until - now);
            now = until;
        }
        assert_eq!(&waits[..3], &[FIRST, 2 * FIRST, 4 * FIRST]);
        assert_eq!(waits.last(), Some(&LONGEST));
        assert_eq!((backoff.until(&"a", now), backoff.until(&"b", now)), (None, None));
        backoff.went_well(&"a");
        backoff.failed("a", now);
        assert_eq!(backoff.until(&"a", now), Some(now + FIRST));
        let mut many = Backoff::default();
        (0..2 * REMEMBERED).for_each(|n| many.failed(n, start));
        assert_eq!(many.0.len(), REMEMBERED);
    }
}
