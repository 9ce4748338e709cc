//! What is known of each origin: whether it rests, whether it is avoided, and what it gave.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{RateLimit, UpstreamError};

/// One origin as seen from here, for a status page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginState {
    /// Scheme, host and port.
    pub origin: String,
    /// Requests sent, repeats and redirects included.
    pub requests: u64,
    /// Bytes of bodies received, as sent.
    pub bytes: u64,
    /// Requests in a row that brought no answer.
    pub failures: u32,
    /// What went wrong last, and how long ago; kept when later requests succeed.
    pub last_error: Option<(String, Duration)>,
    /// How long it will not be asked, because it said so or did not answer.
    pub resting: Option<Duration>,
    /// How many requests it still answers, if it ever said so, and how long ago it did.
    pub rate: Option<(RateLimit, Duration)>,
}

/// All origins that were asked lately.
#[derive(Debug)]
pub(super) struct Origins {
    table: Mutex<HashMap<String, Entry>>,
    avoid_time: Duration,
}

#[derive(Debug)]
struct Entry {
    requests: u64,
    bytes: Arc<AtomicU64>,
    failures: u32,
    last_error: Option<(String, Instant)>,
    rest_until: Option<Instant>,
    avoid_until: Option<Instant>,
    probing: bool,
    used: Instant,
    rate: Option<(RateLimit, Instant)>,
}

impl Origins {
    pub(super) fn new(avoid_time: Duration) -> Self {
        Self { table: Mutex::default(), avoid_time }
    }

    /// Leave to send one request, or why not.
    pub(super) fn admit(&self, origin: &str, now: Instant) -> Result<Ticket<'_>, UpstreamError> {
        let mut table = self.lock();
        if table.len() >= MOST_ORIGINS && !table.contains_key(origin) {
            forget_oldest(&mut table);
        }
        let entry = table.entry(origin.to_owned()).or_insert_with(|| Entry::new(now));
        entry.used = now;
        if let Some(left) = left(entry.rest_until, now) {
            return Err(UpstreamError::Busy { origin: origin.to_owned(), retry_after: Some(left) });
        }
        let mut probe = false;
        if entry.failures >= FAILURES {
            let wait = left(entry.avoid_until, now);
            if wait.is_some() || entry.probing {
                return Err(UpstreamError::Avoided {
                    origin: origin.to_owned(),
                    last: entry.last_error.as_ref().map(|(text, _)| text.clone()).unwrap_or_default(),
                    retry_after: wait.unwrap_or(self.avoid_time),
                });
            }
            (entry.probing, probe) = (true, true);
        }
        entry.requests += 1;
        Ok(Ticket { origins: self, origin: origin.to_owned(), bytes: entry.bytes.clone(), probe })
    }

    /// Leaves an origin alone for `time`, at most [`LONGEST_REST`].
    pub(super) fn rest(&self, origin: &str, time: Duration, now: Instant) {
        if let Some(entry) = self.lock().get_mut(origin) {
            entry.rest_until = entry.rest_until.max(Some(now + time.min(LONGEST_REST)));
        }
    }

    /// Keeps what an origin says of its limits.
    pub(super) fn limited(&self, origin: &str, rate: RateLimit, now: Instant) {
        if let Some(entry) = self.lock().get_mut(origin) {
            entry.rate = Some((rate, now));
        }
    }

    /// Whether an origin said that it answers no more, a short while ago.
    pub(super) fn is_spent(&self, origin: &str, now: Instant) -> bool {
        let spent = |(rate, at): (RateLimit, Instant)| {
            let window = rate.window.unwrap_or(SPENT_TIME).min(SPENT_TIME);
            rate.remaining == 0 && now.saturating_duration_since(at) < window
        };
        self.lock().get(origin).and_then(|entry| entry.rate).is_some_and(spent)
    }

    /// Keeps an error for the status page.
    pub(super) fn note(&self, origin: &str, error: &UpstreamError) {
        if let Some(entry) = self.lock().get_mut(origin) {
            entry.last_error = Some((error.to_string(), Instant::now()));
        }
    }

    /// All origins, by name.
    pub(super) fn snapshot(&self, now: Instant) -> Vec<OriginState> {
        let state = |(origin, entry): (&String, &Entry)| OriginState {
            origin: origin.clone(),
            requests: entry.requests,
            bytes: entry.bytes.load(Ordering::Relaxed),
            failures: entry.failures,
            last_error: entry
                .last_error
                .as_ref()
                .map(|(text, at)| (text.clone(), now.saturating_duration_since(*at))),
            resting: left(entry.rest_until.max(entry.avoid_until), now),
            rate: entry.rate.map(|(rate, at)| (rate, now.saturating_duration_since(at))),
        };
        let mut all: Vec<_> = self.lock().iter().map(state).collect();
        all.sort_by(|a, b| a.origin.cmp(&b.origin));
        all
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        // Counters only: whatever a panic left behind is good enough.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn new(now: Instant) -> Self {
        Self {
            requests: 0,
            bytes: Arc::default(),
            failures: 0,
            last_error: None,
            rest_until: None,
            avoid_until: None,
            probing: false,
            used: now,
            rate: None,
        }
    }
}

/// Makes room: a page may name any number of hosts.
fn forget_oldest(table: &mut HashMap<String, Entry>) {
    let oldest = table.iter().filter(|(_, e)| !e.probing).min_by_key(|(_, e)| e.used);
    if let Some(origin) = oldest.or_else(|| table.iter().next()).map(|(origin, _)| origin.clone()) {
        table.remove(&origin);
    }
}

fn left(until: Option<Instant>, now: Instant) -> Option<Duration> {
    until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero())
}

/// Leave to send one request. Dropped without a word (also by a panic) it counts for nothing.
#[derive(Debug)]
pub(super) struct Ticket<'a> {
    origins: &'a Origins,
    origin: String,
    bytes: Arc<AtomicU64>,
    probe: bool,
}

impl Ticket<'_> {
    /// The origin answered, whatever it said. Gives the counter of its bytes.
    pub(super) fn answered(self) -> Arc<AtomicU64> {
        if let Some(entry) = self.origins.lock().get_mut(&self.origin) {
            (entry.failures, entry.avoid_until) = (0, None);
        }
        self.bytes.clone()
    }

    /// The origin did not answer.
    pub(super) fn failed(self, error: &UpstreamError, now: Instant) {
        if let Some(entry) = self.origins.lock().get_mut(&self.origin) {
            entry.failures = entry.failures.saturating_add(1);
            entry.last_error = Some((error.to_string(), now));
            if entry.failures >= FAILURES {
                entry.avoid_until = Some(now + self.origins.avoid_time);
            }
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.probe
            && let Some(entry) = self.origins.lock().get_mut(&self.origin)
        {
            entry.probing = false;
        }
    }
}

/// Origins remembered at most.
const MOST_ORIGINS: usize = 256;

/// Requests in a row without an answer after which an origin is avoided: one lost packet is no reason, and two
/// clients that each try three times find out.
const FAILURES: u32 = 5;

/// How long an origin that said "none left" is believed. Windows are hours, but they slide: something is left again
/// long before they end.
const SPENT_TIME: Duration = Duration::from_secs(60);

/// The longest rest that an upstream may ask for: a wrong `Retry-After` must not cut it off for a day.
const LONGEST_REST: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "https://example.org";
    const SECOND: Duration = Duration::from_secs(1);

    fn gone() -> UpstreamError {
        UpstreamError::Unreachable { origin: A.into(), why: "refused".into() }
    }

    #[test]
    fn avoided_then_probed_one_at_a_time() {
        let (origins, t0) = (Origins::new(5 * SECOND), Instant::now());
        for _ in 0..FAILURES {
            origins.admit(A, t0).unwrap().failed(&gone(), t0);
        }
        let error = origins.admit(A, t0 + SECOND).unwrap_err();
        assert_eq!(error.retry_after(), Some(4 * SECOND));
        assert!(error.to_string().contains("refused"));

        let t1 = t0 + 6 * SECOND;
        let probe = origins.admit(A, t1).unwrap();
        assert!(origins.admit(A, t1).is_err(), "one probe at a time");
        drop(probe);
        let probe = origins.admit(A, t1).expect("a probe that died does not wedge");
        probe.failed(&gone(), t1);
        assert!(origins.admit(A, t1 + SECOND).is_err(), "avoided again");

        let t2 = t1 + 6 * SECOND;
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _probe = origins.admit(A, t2).unwrap();
            panic!("a probe's thread dies");
        }));
        assert!(panicked.is_err());
        origins.admit(A, t2).unwrap().answered();
        let both = (origins.admit(A, t2).unwrap(), origins.admit(A, t2).unwrap());
        drop(both);
        assert_eq!(origins.snapshot(t2)[0].failures, 0);
    }

    #[test]
    fn rests_are_bounded_and_never_shortened() {
        let (origins, t0) = (Origins::new(SECOND), Instant::now());
        drop(origins.admit(A, t0).unwrap());
        origins.rest(A, Duration::from_secs(1 << 40), t0);
        origins.rest(A, SECOND, t0);
        assert_eq!(origins.admit(A, t0).unwrap_err().retry_after(), Some(LONGEST_REST));
        assert_eq!(origins.snapshot(t0)[0].resting, Some(LONGEST_REST));
        assert!(origins.admit(A, t0 + LONGEST_REST).is_ok());
    }

    #[test]
    fn remembers_a_bounded_number() {
        let (origins, t0) = (Origins::new(SECOND), Instant::now());
        for i in 0..1000 {
            drop(origins.admit(&format!("https://{i}.example.org"), t0 + i * SECOND).unwrap());
        }
        let all = origins.snapshot(t0);
        assert_eq!(all.len(), MOST_ORIGINS);
        assert!(all.iter().any(|o| o.origin == "https://999.example.org"));
    }
}
