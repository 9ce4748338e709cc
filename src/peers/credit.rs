//! How far a peer's promises are waited for. Pure.
//!
//! Not keeping a promise is no lie: a box may be busy, its upstream slow, a link bad. So nobody is struck for it, but
//! waiting has its price each time, and who has let us down is not waited for again for a while.

use std::time::{Duration, Instant};

/// How long a peer that let us down is not asked; doubled with each further time, up to [`MOST_DOUBT_TIME`].
const DOUBT_TIME: Duration = Duration::from_secs(10);

/// The longest time that it is not asked: a box that was busy for an evening is of use the next one.
const MOST_DOUBT_TIME: Duration = Duration::from_secs(3600);

/// Answers in a row that came too late, or never, after which a peer's are not waited for.
const LATE: u32 = 3;

/// What one peer's promises are worth.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credit {
    let_downs: u32,
    doubted_until: Option<Instant>,
    late: u32,
}

impl Credit {
    /// It promised something and did not give it. Downloads that found out together count once.
    pub(super) fn let_down(&mut self, now: Instant) {
        if self.is_doubted(now) {
            return;
        }
        let time = DOUBT_TIME.saturating_mul(1 << self.let_downs.min(16)).min(MOST_DOUBT_TIME);
        self.let_downs = self.let_downs.saturating_add(1);
        self.doubted_until = Some(now + time);
    }

    /// It gave what it promised: half of what was held against it is forgotten, so that who now gives and now does not
    /// stays in doubt.
    pub(super) fn kept_word(&mut self) {
        self.let_downs /= 2;
    }

    /// Whether it is better not asked now.
    pub(super) fn is_doubted(&self, now: Instant) -> bool {
        self.doubted_until.is_some_and(|until| until > now)
    }

    /// How often it let us down, as far as that is not made good.
    pub(super) fn let_downs(&self) -> u32 {
        self.let_downs
    }

    /// It answered a question in time, or it did not.
    pub(super) fn answered(&mut self, in_time: bool) {
        self.late = if in_time { 0 } else { self.late.saturating_add(1) };
    }

    /// Whether its answers are worth waiting for.
    pub(super) fn answers(&self) -> bool {
        self.late < LATE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_costs_more_and_giving_makes_good_by_halves() {
        let (mut credit, mut now) = (Credit::default(), Instant::now());
        for times in [1, 2, 4, 8] {
            assert!(!credit.is_doubted(now));
            credit.let_down(now);
            credit.let_down(now);
            assert!(credit.is_doubted(now + times * DOUBT_TIME - Duration::from_millis(1)));
            now += times * DOUBT_TIME;
        }
        assert_eq!(credit.let_downs(), 4);
        credit.kept_word();
        assert_eq!(credit.let_downs(), 2);
        for _ in 0..100 {
            credit.let_down(now);
            now += MOST_DOUBT_TIME;
            assert!(!credit.is_doubted(now));
        }
    }

    #[test]
    fn who_answers_late_is_not_waited_for_until_it_answers_in_time() {
        let mut credit = Credit::default();
        for n in 0..5 {
            assert_eq!(credit.answers(), n < LATE);
            credit.answered(false);
        }
        credit.answered(true);
        assert!(credit.answers());
    }
}
