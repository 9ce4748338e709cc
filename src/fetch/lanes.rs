//! Several ranges of one large file at once: one connection is often slower than the line.
//!
//! Only with a digest: the parts may come from different servers, and nothing else proves that they fit.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::base::Artifact;
use crate::store::Incoming;
use crate::upstream::{Answer, Ask, Range, Site, Status, UpstreamError};

use super::flight::{self, Flight, Stop};
use super::follow;
use super::verify::Verifier;
use super::{CHUNK, FetchError, Inner, LOCK};

/// Files below this come in one piece: the gain is small there, and an upstream sees one request.
const FROM_BYTES: u64 = 64 << 20;

/// Bytes of a part. Readers follow the first part that is not whole, so parts are small against the file.
const PART_BYTES: u64 = 8 << 20;

/// Bytes of the last parts. They come in together, so that a reader gets most of them at once when the first is whole, and
/// then still has to hash and write them: with 8 MiB to the end `skopeo copy` of a layer of 67 MB took 20 to 60 ms longer.
const LAST_BYTES: u64 = 2 << 20;

/// Connections of one download: four are what browsers and download tools take without being blocked.
const LANES: u64 = 4;

/// Downloads that may have lanes at once; the next ones come in one piece. Bounds threads at 4 × 3 more.
const LANED: usize = 4;

/// Tries of one part without progress in between.
const TRIES: u32 = 4;

static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// The right to open lanes.
pub(super) struct Permit(());

impl Drop for Permit {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether this artifact is to come in parts.
pub(super) fn wanted(inner: &Inner, artifact: &Artifact) -> Option<Permit> {
    let large = artifact.size.is_some_and(|s| s >= FROM_BYTES);
    if !large || super::strong(artifact).is_none() || inner.offline {
        return None;
    }
    RUNNING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| (n < LANED).then_some(n + 1)).ok()?;
    Some(Permit(()))
}

struct Shared<'a> {
    inner: &'a Inner,
    flight: &'a Flight,
    site: &'a Site,
    incoming: &'a Incoming,
    size: u64,
    /// Where the parts begin, and the end of the last one.
    bounds: Vec<u64>,
    next_part: AtomicUsize,
    stop: AtomicBool,
    error: Mutex<Option<Stop>>,
    front: Mutex<Front>,
}

/// The contiguous front: what is hashed, and what lies written beyond it.
struct Front {
    verifier: Verifier,
    /// The part that the verifier is in.
    part: usize,
    /// How far each part is written.
    written: Vec<u64>,
}

/// Downloads in parts. An upstream that answers the first range with the whole file is read in one piece.
pub(super) fn run(
    inner: &Inner,
    flight: &Flight,
    site: &Site,
    incoming: &Incoming,
    verifier: Verifier,
    permit: Permit,
) -> Result<Verifier, Stop> {
    let artifact = &flight.artifact;
    let size = artifact.size.expect("lanes are for files of known size");
    let bounds = cut(size);
    let first = Range { first: 0, last: Some(bounds[1] - 1) };
    let answer = match follow::open(inner, site, artifact, &Ask { range: Some(first), ..Ask::default() }) {
        Err(e) if follow::is_bad_range(&e) => follow::open(inner, site, artifact, &Ask::default())?,
        answer => answer?,
    };
    let Status::Partial { total, .. } = answer.status else {
        drop(permit);
        return follow::stream(inner, flight, site, incoming, verifier, answer);
    };
    if let Some(got) = total.filter(|t| *t != size) {
        return Err(FetchError::Length { filename: artifact.filename.clone(), want: size, got }.into());
    }
    flight.running(Some(size), incoming)?;
    let parts = bounds.len() - 1;
    let shared = Shared {
        inner,
        flight,
        site,
        incoming,
        size,
        next_part: AtomicUsize::new(1),
        stop: AtomicBool::new(false),
        error: Mutex::new(None),
        front: Mutex::new(Front { verifier, part: 0, written: bounds[..parts].to_vec() }),
        bounds,
    };
    std::thread::scope(|scope| {
        for _ in 1..LANES.min(parts as u64) {
            scope.spawn(|| shared.lane(None));
        }
        shared.lane(Some((0, answer)));
    });
    drop(permit);
    match shared.error.into_inner().expect(LOCK) {
        Some(stop) => Err(stop),
        None => Ok(shared.front.into_inner().expect(LOCK).verifier),
    }
}

/// Where each part begins, and where the last one ends: towards the end they get smaller.
fn cut(size: u64) -> Vec<u64> {
    let (mut bounds, mut at) = (vec![0], 0);
    while at < size {
        let left = size - at;
        // In whole ones of the last, so that no chunk of the layout is in two parts.
        let part = (left / LANES / LAST_BYTES * LAST_BYTES).clamp(LAST_BYTES, PART_BYTES);
        // A rest is not worth a question.
        at += if left < part + LAST_BYTES { left } else { part };
        bounds.push(at);
    }
    bounds
}

impl Shared<'_> {
    /// Takes part after part until none is left.
    fn lane(&self, mut begun: Option<(usize, Answer)>) {
        let mut buffer = vec![0; CHUNK];
        loop {
            let (part, answer) = match begun.take() {
                Some((part, answer)) => (part, Some(answer)),
                None => (self.next_part.fetch_add(1, Ordering::Relaxed), None),
            };
            if part + 1 >= self.bounds.len() || self.stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(stop) = self.part(part, answer, &mut buffer) {
                self.stop.store(true, Ordering::Relaxed);
                self.error.lock().expect(LOCK).get_or_insert(stop);
                return;
            }
        }
    }

    fn part(&self, part: usize, mut begun: Option<Answer>, buffer: &mut [u8]) -> Result<(), Stop> {
        let artifact = &self.flight.artifact;
        let (mut at, end) = (self.bounds[part], self.bounds[part + 1]);
        let mut fruitless = 0;
        // Another lane's failure is everybody's: what this one would still fetch nobody will read.
        while at < end && !self.stop.load(Ordering::Relaxed) {
            let range = Some(Range { first: at, last: Some(end - 1) });
            let answer = match begun.take() {
                Some(answer) => Ok(answer),
                None => follow::open(self.inner, self.site, artifact, &Ask { range, ..Ask::default() }),
            };
            let before = at;
            let failed = match answer {
                Ok(mut answer) if matches!(answer.status, Status::Partial { .. }) => {
                    self.copy(part, &mut answer, &mut at, end, buffer)?
                }
                Ok(_) => return Err(self.refused(artifact)),
                Err(FetchError::Upstream(e)) if e.retry() => Some(FetchError::Upstream(e)),
                Err(e) => return Err(e.into()),
            };
            fruitless = if at >= before + follow::PROGRESS_BYTES { 0 } else { fruitless + 1 };
            if let Some(e) = failed {
                if fruitless >= TRIES {
                    return Err(e.into());
                }
                self.inner.counters.resumed.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(follow::RESUME_PAUSE * (fruitless + 1));
            }
        }
        Ok(())
    }

    /// Copies an answer to its end. A broken one is told, not returned as an error: the part is asked for again.
    fn copy(
        &self,
        part: usize,
        answer: &mut Answer,
        at: &mut u64,
        end: u64,
        buffer: &mut [u8],
    ) -> Result<Option<FetchError>, Stop> {
        while *at < end && !self.stop.load(Ordering::Relaxed) {
            let room = usize::try_from(end - *at).unwrap_or(usize::MAX).min(buffer.len());
            match follow::read_some(&mut answer.body, &mut buffer[..room]) {
                Ok(0) => {
                    let e = UpstreamError::Truncated { got: *at, want: Some(end) };
                    return Ok(Some(FetchError::Upstream(e)));
                }
                Ok(n) => {
                    self.inner.counters.upstream_bytes.fetch_add(n as u64, Ordering::Relaxed);
                    flight::write(self.flight, self.incoming, &buffer[..n], *at)?;
                    self.wrote(part, *at, &buffer[..n])?;
                    *at += n as u64;
                }
                Err(e) => return Ok(Some(FetchError::Upstream(follow::broken(&e)))),
            }
        }
        Ok(None)
    }

    /// Moves the front over what is now contiguous, hashing each byte once and in order.
    fn wrote(&self, part: usize, at: u64, bytes: &[u8]) -> Result<(), Stop> {
        let mut front = self.front.lock().expect(LOCK);
        let end = at + bytes.len() as u64;
        front.written[part] = end;
        if front.verifier.at == at {
            front.verifier.update(bytes);
        }
        // Catch up over parts that others finished meanwhile.
        let mut buffer = Vec::new();
        loop {
            let at = front.verifier.at;
            if at >= self.size {
                break;
            }
            while at >= self.bounds[front.part + 1] {
                front.part += 1;
            }
            let until = front.written[front.part];
            if until <= at {
                break;
            }
            buffer.resize(CHUNK, 0);
            let want = usize::try_from(until - at).unwrap_or(CHUNK).min(CHUNK);
            let n = self.incoming.read(&mut buffer[..want], at).map_err(|e| self.flight.disk(&e))?;
            if n == 0 {
                break;
            }
            front.verifier.update(&buffer[..n]);
        }
        self.flight.advance(&front.verifier, false);
        Ok(())
    }

    fn refused(&self, artifact: &Artifact) -> Stop {
        let origin = artifact.upstream.clone();
        FetchError::Upstream(UpstreamError::BadRange { origin, why: "it stopped honouring ranges" }).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_get_smaller_towards_the_end() {
        let mib = |size: u64| -> Vec<u64> { cut(size).windows(2).map(|p| (p[1] - p[0]) >> 20).collect() };
        assert_eq!(mib(FROM_BYTES), [8, 8, 8, 8, 8, 6, 4, 2, 2, 2, 2, 2, 2, 2]);
        assert_eq!(mib(1 << 30).iter().filter(|part| **part == 8).count(), 125);
        for size in [1, LAST_BYTES, FROM_BYTES + 1, FROM_BYTES - 1, 67_167_288, 1 << 40] {
            let bounds = cut(size);
            assert_eq!((bounds[0], bounds[bounds.len() - 1]), (0, size));
            for part in bounds.windows(2) {
                let bytes = part[1] - part[0];
                assert!((1..=PART_BYTES).contains(&bytes), "{size}: {bytes}");
                assert!(part[1] == size || bytes % LAST_BYTES == 0, "{size}: {bytes}");
            }
            let last = bounds[bounds.len() - 1] - bounds[bounds.len() - 2];
            assert!(last < 2 * LAST_BYTES && (last >= LAST_BYTES || size < LAST_BYTES), "{size}: {last}");
        }
    }
}
