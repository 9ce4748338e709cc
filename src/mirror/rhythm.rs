//! When something is said: after a moment in which more may come, and no faster than rooms take it. Pure: time comes in.

use std::time::{Duration, Instant};

use crate::room::Pace;

/// How long is waited for more before something is told: what an installation gets comes in tenths of seconds.
pub(super) const GATHER: Duration = Duration::from_millis(300);

/// Tenths of a room's pace for each thing that is said there. Packages have most: what others wait for is what somebody
/// has just fetched, and the state says all that came meanwhile.
pub(super) const PACKAGES: u32 = 6;
pub(super) const STATE: u32 = 3;
pub(super) const INDEXES: u32 = 1;

/// So many tenths of a pace.
pub(super) fn share(pace: Pace, tenths: u32) -> Pace {
    Pace { per_second: pace.per_second * f64::from(tenths) / 10.0, burst: (pace.burst * tenths / 10).max(1) }
}

/// The rhythm of one thing that is said again and again.
#[derive(Clone, Debug)]
pub(super) struct Rhythm {
    pace: Pace,
    /// How often it may be said at once, as of `counted`.
    allowed: f64,
    counted: Instant,
    wanted: Option<Instant>,
}

impl Rhythm {
    pub(super) fn new(pace: Pace, now: Instant) -> Self {
        Self { pace, allowed: f64::from(pace.burst), counted: now, wanted: None }
    }

    /// There is something to say, then or later. Of several such times the first counts.
    pub(super) fn want(&mut self, at: Instant) {
        self.wanted = Some(self.wanted.map_or(at, |wanted| wanted.min(at)));
    }

    /// There is nothing to say any more.
    pub(super) fn rest(&mut self) {
        self.wanted = None;
    }

    /// When it is to be said; `None` for nothing.
    pub(super) fn due(&self) -> Option<Instant> {
        let missing = (1.0 - self.allowed).max(0.0) / self.pace.per_second;
        // A pace of next to nothing is never.
        let wait = Duration::try_from_secs_f64(missing).unwrap_or(NEVER).min(NEVER);
        self.wanted.map(|wanted| wanted.max(self.counted + wait))
    }

    /// Whether it is to be said now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// It was said.
    pub(super) fn said(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.counted).as_secs_f64();
        self.allowed = (self.allowed + passed * self.pace.per_second).min(f64::from(self.pace.burst));
        self.allowed = (self.allowed - 1.0).max(0.0);
        self.counted = self.counted.max(now);
        self.wanted = None;
    }
}

/// Longer than any node runs.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    /// How often something is said within a time, when there is news each `every`.
    fn said(pace: Pace, every: Duration, within: Duration) -> Vec<Duration> {
        let start = Instant::now();
        let mut rhythm = Rhythm::new(pace, start);
        let mut said = Vec::new();
        let mut now = start;
        while now - start < within {
            rhythm.want(now + GATHER);
            if rhythm.is_due(now) {
                rhythm.said(now);
                said.push(now - start);
            }
            now += every;
        }
        said
    }

    #[test]
    fn a_flood_costs_a_handful() {
        let pace = share(Pace::default(), STATE);
        let within = Duration::from_secs(120);
        let said = said(pace, Duration::from_millis(10), within);
        // Three at once, and then one in 17 seconds.
        assert!((9..=11).contains(&said.len()), "{said:?}");
        assert!(said[0] >= GATHER && said[0] < 2 * GATHER, "the first at once: {said:?}");
        assert!(said[1] < Duration::from_secs(1), "and the next: {said:?}");
    }

    #[test]
    fn what_comes_now_and_then_is_said_at_once() {
        let start = Instant::now();
        let mut rhythm = Rhythm::new(share(Pace::default(), STATE), start);
        assert_eq!(rhythm.due(), None);
        for minute in 0..10 {
            let now = start + Duration::from_secs(60 * minute);
            rhythm.want(now);
            rhythm.want(now + Duration::from_secs(30));
            assert_eq!(rhythm.due(), Some(now));
            rhythm.said(now);
            assert_eq!(rhythm.due(), None);
        }
        rhythm.want(start);
        rhythm.rest();
        assert_eq!(rhythm.due(), None);
    }

    #[test]
    fn clocks_that_stand_still_and_paces_of_nothing() {
        let start = Instant::now();
        let mut rhythm = Rhythm::new(Pace { per_second: 1e-300, burst: 1 }, start);
        rhythm.said(start);
        rhythm.want(start);
        assert!(!rhythm.is_due(start + Duration::from_secs(1 << 20)));
        let mut rhythm = Rhythm::new(Pace { per_second: 1.0, burst: 2 }, start + Duration::from_secs(5));
        rhythm.said(start);
        rhythm.said(start);
        rhythm.want(start);
        assert_eq!(rhythm.due(), Some(start + Duration::from_secs(6)));
    }
}
