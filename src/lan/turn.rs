//! When a socket sends: questions further and further apart, answers a moment after they are asked for. Pure; fed with
//! `now` and random numbers.

use std::time::{Duration, Instant};

/// One socket's times.
#[derive(Debug)]
pub(super) struct Turn {
    query_at: Instant,
    /// Between the next question and the one after it.
    interval: Duration,
    answer_at: Option<Instant>,
    answered_at: Option<Instant>,
    /// How often the answer is still to be said unasked.
    unasked: u8,
}

/// What is to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) query: bool,
    pub(super) answer: bool,
}

impl Turn {
    /// A socket that has just been opened: it asks and tells at once.
    pub(super) fn new(now: Instant, random: u32) -> Self {
        let mut turn = Self {
            query_at: now,
            interval: FIRST_INTERVAL,
            answer_at: None,
            answered_at: None,
            unasked: UNASKED,
        };
        turn.announce(now, random);
        turn.query_at = now + within(ANSWER_DELAY, random);
        turn
    }

    /// What we tell has changed: it is told unasked.
    pub(super) fn announce(&mut self, now: Instant, random: u32) {
        self.unasked = UNASKED;
        self.asked(now, random);
    }

    /// Somebody asked for us.
    pub(super) fn asked(&mut self, now: Instant, random: u32) {
        let soon = now + ANSWER_DELAY.start + within(ANSWER_DELAY, random);
        let allowed = self.answered_at.map_or(soon, |at| soon.max(at + ANSWERS_APART));
        self.answer_at = Some(self.answer_at.map_or(allowed, |at| at.min(allowed)));
    }

    /// Somebody asked what we would ask: everybody hears the answers (RFC 6762, section 7.3).
    pub(super) fn heard_our_question(&mut self, now: Instant, random: u32) {
        if self.interval >= LAST_INTERVAL {
            self.query_at = self.query_at.max(now + jittered(self.interval, random));
        }
    }

    /// Whether we told everybody lately: RFC 6762, section 5.4, wants a quarter of the time that it holds.
    pub(super) fn told_within(&self, time: Duration, now: Instant) -> bool {
        self.answered_at.is_some_and(|at| at + time > now)
    }

    /// What is due; the caller sends it.
    pub(super) fn due(&mut self, now: Instant, random: u32) -> Due {
        let query = self.query_at <= now;
        if query {
            self.query_at = now + jittered(self.interval, random);
            self.interval = (self.interval * 2).min(LAST_INTERVAL);
        }
        let answer = self.answer_at.is_some_and(|at| at <= now);
        if answer {
            self.answered_at = Some(now);
            self.unasked = self.unasked.saturating_sub(1);
            self.answer_at = (self.unasked > 0).then(|| now + ANSWERS_APART);
        }
        Due { query, answer }
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Instant {
        self.answer_at.map_or(self.query_at, |at| at.min(self.query_at))
    }
}

/// A part of the range's length.
fn within(range: std::ops::Range<Duration>, random: u32) -> Duration {
    (range.end - range.start) * (random % 1000) / 1000
}

/// The time, give or take a tenth: machines that were switched on together drift apart.
fn jittered(time: Duration, random: u32) -> Duration {
    time * (900 + random % 200) / 1000
}

/// Between the first question and the second: RFC 6762, section 5.2.
const FIRST_INTERVAL: Duration = Duration::from_secs(1);

/// Between questions in the end. Half of [`TTL`](super::packet::TTL), so that one lost packet is no farewell.
const LAST_INTERVAL: Duration = Duration::from_secs(60);

/// An answer that others may give too waits this long: RFC 6762, section 6.
const ANSWER_DELAY: std::ops::Range<Duration> = Duration::from_millis(20)..Duration::from_millis(120);

/// Least time between answers to everybody: RFC 6762, section 6.
const ANSWERS_APART: Duration = Duration::from_secs(1);

/// How often something new is told unasked: RFC 6762, section 8.3.
const UNASKED: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(turn: &mut Turn, from: Instant, time: Duration) -> (Vec<u64>, Vec<u64>) {
        let (mut queries, mut answers) = (Vec::new(), Vec::new());
        let mut now = from;
        while now < from + time {
            let due = turn.due(now, 100);
            let millis = u64::try_from((now - from).as_millis()).unwrap();
            if due.query {
                queries.push(millis);
            }
            if due.answer {
                answers.push(millis);
            }
            now = turn.next().max(now + Duration::from_millis(1));
        }
        (queries, answers)
    }

    #[test]
    fn questions_get_rare_and_answers_wait_for_questions() {
        let start = Instant::now();
        let mut turn = Turn::new(start, 100);
        let (queries, answers) = run(&mut turn, start, Duration::from_secs(300));
        let seconds: Vec<u64> = queries.iter().map(|millis| millis / 1000).collect();
        assert_eq!(seconds, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        assert_eq!(answers.len(), 2, "said twice unasked, then not: {answers:?}");
        assert!(answers[1] - answers[0] >= 1000);
    }

    #[test]
    fn a_flood_of_questions_is_answered_once_a_second() {
        let start = Instant::now();
        let mut turn = Turn::new(start, 0);
        let mut answers = 0;
        for millis in 0..10_000 {
            let now = start + Duration::from_millis(millis);
            turn.asked(now, u32::try_from(millis).unwrap());
            answers += u32::from(turn.due(now, 0).answer);
        }
        assert!((9..=10).contains(&answers), "{answers}");
    }

    #[test]
    fn others_questions_do_for_ours() {
        let start = Instant::now();
        let mut turn = Turn::new(start, 100);
        run(&mut turn, start, Duration::from_secs(200));
        let mut asked = 0;
        for seconds in 200..1000 {
            let now = start + Duration::from_secs(seconds);
            if seconds % 10 == 0 {
                turn.heard_our_question(now, 100);
            }
            asked += u32::from(turn.due(now, 100).query);
        }
        assert!(asked <= 1, "{asked}");
        // And in the beginning they do not: somebody else's answers may have been said before we listened.
        let mut turn = Turn::new(start, 100);
        turn.heard_our_question(start, 100);
        assert!(turn.due(start + Duration::from_secs(1), 100).query);
    }
}
