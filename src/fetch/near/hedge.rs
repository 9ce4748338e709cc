//! The upstream beside neighbours that give slowly: it is asked for chunks too, and whoever is faster gives the rest.
//!
//! It is one more giver of the same taking, so nothing that came is fetched again, its chunks are held against the same
//! leaves, and when it fails or is no faster the neighbours just go on.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_lite::future::block_on;

use crate::base::{Artifact, PeerId};
use crate::exchange::{Aside, Exchange, Handed, Invitation, Partial, SoFar, Taking, span};
use crate::upstream::{self, Ask, Status};

use super::super::{CHUNK, FetchError, Inner, follow};

/// How often it is looked at how things go while nothing comes, at most; by chance down to half as often, so that of
/// nodes that began in the same moment no two find in the same moment that it goes slowly.
const LOOK: Duration = Duration::from_millis(250);

/// Fewer bytes a second from all neighbours together are slow: two thirds of what 10 Mbit/s carry, the slowest wire
/// that there is. Every upstream that is worth its name is faster; wired neighbours never are so slow.
const SLOW_BYTES_PER_SECOND: u64 = 768 << 10;

/// How long they may be slow. Longer than nodes may give next to nothing: those are left for the upstream altogether.
const SLOW_TIME: Duration = Duration::from_secs(3);

/// Each node bears with it for up to this much longer. Those who take from the same slow neighbour would ask all at once;
/// now the first of them soon gives the others what it gets.
const SPREAD: Duration = Duration::from_secs(2);

/// They are done by themselves in this time: an upstream far away takes a good part of it to begin.
const SOON: Duration = Duration::from_secs(2);

/// The upstream has to be faster than all of them together by this factor: its bytes cost more than theirs.
const FASTER: u64 = 2;

/// Time that each of its chunks gets beside that, for a connection that has to get into its stride.
const STRIDE: Duration = Duration::from_millis(250);

/// Pause before it is tried again, doubled each time: a try that is not worth it costs a chunk at most.
const PAUSE: Duration = Duration::from_secs(30);

/// Most chunks in one question: as much as the parts of a large download have. What is not wanted any more in the
/// middle of an answer costs the connection.
const RUN: u32 = 8;

/// The upstream's help for one artifact.
pub(super) struct Hedge {
    /// `None` where it cannot be asked.
    helper: Option<Arc<Helper>>,
    /// Where the artifact comes from without it.
    root: Option<PeerId>,
    pace: Pace,
    /// It was left to another node, and things may go better now.
    left: bool,
    /// How often it is to be looked at.
    pub(super) look_time: Duration,
}

/// What the helping thread needs.
struct Helper {
    inner: Arc<Inner>,
    near: Exchange,
    artifact: Artifact,
    partial: Arc<Partial>,
    /// It was left to another node, once: one that says so and gives nothing is not waited for again.
    left: AtomicBool,
}

impl Hedge {
    pub(super) fn new(
        inner: &Arc<Inner>,
        near: &Exchange,
        artifact: &Artifact,
        partial: &Arc<Partial>,
    ) -> Self {
        let asked = inner.asked(artifact).is_ok();
        let (inner, near) = (inner.clone(), near.clone());
        let (artifact, partial) = (artifact.clone(), partial.clone());
        let helper = || Arc::new(Helper { inner, near, artifact, partial, left: AtomicBool::new(false) });
        let chance = RandomState::new().build_hasher().finish() as f64 / u64::MAX as f64;
        let pace = Pace::new(SLOW_TIME + SPREAD.mul_f64(chance), Instant::now());
        Self {
            helper: asked.then(helper),
            root: None,
            pace,
            left: false,
            look_time: LOOK.mul_f64(1.0 + chance),
        }
    }

    /// Another taking begins, of what comes from `root`.
    pub(super) fn begin(&mut self, root: Option<PeerId>, now: Instant) {
        self.root = root;
        self.pace.begin(now, 0);
    }

    /// Asks the upstream to help where it is time to.
    pub(super) fn look(&mut self, taking: &Taking, now: Instant) {
        let Some(helper) = &self.helper else { return };
        // It helps already.
        if Arc::strong_count(helper) > 1 {
            return;
        }
        let so_far = taking.so_far();
        if helper.left.load(Ordering::Relaxed) && !std::mem::replace(&mut self.left, true) {
            self.pace = Pace::new(self.pace.patience, now);
            self.pace.begin(now, so_far.came);
        }
        let Some(theirs) = self.pace.slow(&so_far, now) else { return };
        let (helper, invitation, root) = (helper.clone(), taking.invite(), self.root);
        let (tasks, gate) = (helper.inner.tasks.clone(), helper.inner.hedges.clone());
        tasks.spawn(async move { gate.run(move || helper.help(invitation, root, theirs)).await });
    }
}

/// How fast neighbours give, and when that is too slow. Pure.
struct Pace {
    /// How long they may be slow.
    patience: Duration,
    /// Counted from here, less the time in which they waited for us; bytes that had come then.
    since: Instant,
    came: u64,
    looked: Instant,
    /// When the upstream may be asked, and the pause after that.
    not_before: Instant,
    pause: Duration,
}

impl Pace {
    fn new(patience: Duration, now: Instant) -> Self {
        Self { patience, since: now, came: 0, looked: now, not_before: now, pause: PAUSE }
    }

    fn begin(&mut self, now: Instant, came: u64) {
        (self.since, self.came, self.looked) = (now, came, now);
    }

    /// Their bytes a second, when they are so slow that the upstream is to be asked now.
    fn slow(&mut self, so_far: &SoFar, now: Instant) -> Option<u64> {
        let new = so_far.came.saturating_sub(self.came);
        let enough = (SLOW_BYTES_PER_SECOND as f64 * self.patience.as_secs_f64()) as u64;
        let Some(missing) = so_far.missing.filter(|_| new < enough) else {
            self.begin(now, so_far.came);
            return None;
        };
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.looked, now));
        if so_far.waits {
            self.since += passed;
            return None;
        }
        let time = now.saturating_duration_since(self.since);
        if time < self.patience || now < self.not_before {
            return None;
        }
        let theirs = ((new as f64 / time.as_secs_f64()) as u64).max(1);
        if missing / theirs < SOON.as_secs() {
            return None;
        }
        self.not_before = now + self.pause;
        self.pause *= 2;
        Some(theirs)
    }
}

/// Whether a chunk of which `came` bytes came in this time comes too slowly to be worth it.
fn is_slow(came: u64, time: Duration, theirs: u64) -> bool {
    let late = time.saturating_sub(STRIDE).as_secs_f64();
    (came as f64) < late * (FASTER * theirs) as f64
}

/// Why the upstream helps no more.
#[derive(Debug, thiserror::Error)]
enum Futile {
    #[error("{0}")]
    Failed(#[from] FetchError),
    #[error("{0}")]
    Broke(#[from] std::io::Error),
    #[error("it gives no ranges")]
    Whole,
    #[error("it is not much faster")]
    Slow,
    #[error("its bytes are not those that the neighbours say")]
    Differs,
}

impl Helper {
    /// Helps until all is there, or it is of no use. Blocks.
    fn help(&self, invitation: Invitation, root: Option<PeerId>, theirs: u64) {
        let digest = self.artifact.digest.expect("only artifacts with a digest are asked for");
        let fetchers = block_on(self.near.fetchers(&digest));
        if !fetchers.is_empty() && !self.left.swap(true, Ordering::Relaxed) {
            // One fetches it for all: what it gets comes from it as fast as the LAN is.
            return invitation.meet(&fetchers);
        }
        let Some(mut aside) = invitation.join(FASTER * theirs) else { return };
        self.near.helps_itself(&self.partial);
        self.inner.counters.hedged.fetch_add(1, Ordering::Relaxed);
        let (filename, upstream) = (&self.artifact.filename, &self.artifact.upstream);
        log::info!("{filename} comes at {} KiB/s from the nodes around: asking {upstream} too", theirs >> 10);
        while let Some(run) = aside.due() {
            let end = run.end.min(run.start.saturating_add(RUN));
            if let Err(why) = self.give(&mut aside, run.start..end, theirs) {
                log::info!("{upstream} does not help with {filename}: {why}");
                if !aside.is_over() {
                    self.partial.taken_from(root);
                }
                return;
            }
        }
    }

    /// Gives the chunks of a run, as long as they are wanted.
    fn give(&self, aside: &mut Aside, run: Range<u32>, theirs: u64) -> Result<(), Futile> {
        let (inner, artifact, size) = (&*self.inner, &self.artifact, aside.size());
        let (first, (last, length)) = (span(run.start, size).0, span(run.end - 1, size));
        let range = Some(upstream::Range { first, last: Some(last + length - 1) });
        let ask = Ask { range, ..Ask::default() };
        let mut answer = follow::open(inner, inner.asked(artifact)?, artifact, &ask)?;
        if !matches!(answer.status, Status::Partial { .. }) {
            return Err(Futile::Whole);
        }
        for n in run {
            if !aside.wants(n) {
                return Ok(());
            }
            let room = aside.room();
            let mut bytes = vec![0; usize::try_from(span(n, size).1).expect("a chunk fits in memory")];
            let (begun, mut at) = (Instant::now(), 0);
            while at < bytes.len() {
                let end = bytes.len().min(at + CHUNK);
                let came = follow::read_some(&mut answer.body, &mut bytes[at..end])?;
                if came == 0 {
                    return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                }
                inner.counters.upstream_bytes.fetch_add(came as u64, Ordering::Relaxed);
                aside.came(came as u64);
                at += came;
                if is_slow(at as u64, begun.elapsed(), theirs) {
                    return Err(Futile::Slow);
                }
            }
            match aside.give(n, bytes, room) {
                Handed::Taken => {}
                Handed::Differs => return Err(Futile::Differs),
                Handed::Over => return Ok(()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// What comes of looking four times a second, for so many seconds, at neighbours that give so many bytes a second.
    fn asked(bytes_per_second: u64, missing: Option<u64>, waits: bool, seconds: u64) -> Vec<(u64, u64)> {
        let begun = Instant::now();
        let mut pace = Pace::new(SLOW_TIME, begun);
        let look = |n| {
            let now = begun + n * LOOK;
            let came = bytes_per_second * u64::from(n) / 4;
            let missing = missing.map(|missing| missing.saturating_sub(came));
            Some((u64::from(n) / 4, pace.slow(&SoFar { came, missing, waits }, now)?))
        };
        (1..=4 * seconds as u32).filter_map(look).collect()
    }

    #[test]
    fn when_the_upstream_is_asked() {
        let (slow, large) = (300 << 10, Some(100 * MIB));
        let cases = [
            ("slow", slow, large, false, vec![3, 34, 96]),
            ("a wire", 1100 << 10, large, false, vec![]),
            ("nothing is known of the rest, or who gives it is fetching it", slow, None, false, vec![]),
            ("it is we who are slow", slow, large, true, vec![]),
            ("they are done soon", slow, Some(MIB), false, vec![]),
            ("they are not done soon", slow, Some(2 * MIB), false, vec![3]),
        ];
        for (what, bytes_per_second, missing, waits, at) in cases {
            let asked = asked(bytes_per_second, missing, waits, 100);
            assert_eq!(asked.iter().map(|(second, _)| *second).collect::<Vec<_>>(), at, "{what}");
            assert!(asked.iter().all(|(_, theirs)| theirs.abs_diff(slow) <= 1), "{what}: {asked:?}");
        }
    }

    #[test]
    fn slow_after_having_been_fast_is_slow() {
        let begun = Instant::now();
        let mut pace = Pace::new(SLOW_TIME, begun);
        let mut at = |millis, came, waits| {
            let so_far = SoFar { came, missing: Some(50 * MIB), waits };
            pace.slow(&so_far, begun + Duration::from_millis(millis))
        };
        assert_eq!(at(1000, 20 * MIB, false), None);
        assert_eq!(at(3900, 20 * MIB + MIB, false), None);
        assert_eq!(at(4000, 20 * MIB + 3 * MIB / 2, false), Some(MIB / 2));
    }

    #[test]
    fn time_that_they_wait_for_us_is_not_theirs() {
        let begun = Instant::now();
        let mut pace = Pace::new(SLOW_TIME, begun);
        let mut at = |millis, waits| {
            let so_far = SoFar { came: MIB, missing: Some(50 * MIB), waits };
            pace.slow(&so_far, begun + Duration::from_millis(millis)).is_some()
        };
        assert!(!at(2000, false) && !at(2500, true) && !at(3400, false) && at(3500, false));
    }

    #[test]
    fn what_is_slow_of_the_upstream() {
        let theirs = 512 << 10;
        let cases = [
            (0, 250, false),
            (0, 260, true),
            (MIB, 1200, false),
            (MIB, 1300, true),
            (MIB / 8, 350, false),
            (MIB / 8, 400, true),
        ];
        for (came, millis, slow) in cases {
            assert_eq!(is_slow(came, Duration::from_millis(millis), theirs), slow, "{came} in {millis} ms");
        }
    }
}
