//! What an upstream gives of one artifact, followed to its end however often it breaks off.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::base::Artifact;
use crate::store::Incoming;
use crate::upstream::{Answer, Ask, Range, Site, Status, UpstreamError};

use super::flight::{Flight, Stop, write};
use super::verify::Verifier;
use super::{FetchError, Inner, Via, lanes};

/// Times a broken download is taken up again without [`PROGRESS_BYTES`] in between.
const RESUMES: u32 = 4;

/// Fewer new bytes between two breaks are no progress: who gives a byte, breaks, and gives the next one would hold a
/// thread for ever. Above what the slowest upstream that is borne sends before it is given up.
pub(super) const PROGRESS_BYTES: u64 = 64 << 10;

/// Bytes read from an upstream at a time: its answer comes in pieces of this much.
const READ_BYTES: usize = 32 << 10;

/// Pause before the first of them; the later ones wait longer in proportion.
pub(super) const RESUME_PAUSE: Duration = Duration::from_millis(100);

/// Reads what the verifier has not seen yet from the upstream.
pub(super) fn from_upstream(
    inner: &Inner,
    flight: &Flight,
    incoming: &Incoming,
    verifier: Verifier,
) -> Result<Verifier, Stop> {
    let artifact = &flight.artifact;
    let site = inner.asked(artifact)?;
    flight.comes_from(Via::Upstream);
    if verifier.at > 0 {
        // What is here came from peers, so there is a digest, and it proves that the rest fits.
        let (at, size) = (verifier.at, artifact.size);
        return follow(inner, flight, site, incoming, verifier, Course { size, ..Course::resumed(at) });
    }
    match lanes::wanted(inner, artifact) {
        Some(permit) => lanes::run(inner, flight, site, incoming, verifier, permit),
        None => {
            let answer = ask(inner, site, artifact, 0, None)?;
            stream(inner, flight, site, incoming, verifier, answer)
        }
    }
}

/// Reads one answer to its end, taking it up again where it breaks off.
pub(super) fn stream(
    inner: &Inner,
    flight: &Flight,
    site: &Site,
    incoming: &Incoming,
    verifier: Verifier,
    answer: Answer,
) -> Result<Verifier, Stop> {
    let artifact = &flight.artifact;
    let etag = answer.head.etag.clone();
    let size = announced(artifact, &answer)?;
    if let (None, Some(size)) = (artifact.size, size)
        && incoming.announce(size).is_err()
    {
        return Err(Stop::NoRoom);
    }
    // A whole answer of no bytes could be given before it is proved: nothing of it can be held back.
    if size != Some(0) {
        flight.running(size, incoming)?;
    }
    follow(inner, flight, site, incoming, verifier, Course { size, etag, answer: Some(answer), broke_at: 0 })
}

/// Where a download stands with its upstream.
struct Course {
    size: Option<u64>,
    etag: Option<String>,
    /// The answer being read; without one the upstream is asked for the rest.
    answer: Option<Answer>,
    broke_at: u64,
}

impl Course {
    fn resumed(at: u64) -> Self {
        Self { size: None, etag: None, answer: None, broke_at: at }
    }
}

fn follow(
    inner: &Inner,
    flight: &Flight,
    site: &Site,
    incoming: &Incoming,
    mut verifier: Verifier,
    course: Course,
) -> Result<Verifier, Stop> {
    let artifact = &flight.artifact;
    let Course { mut size, etag, answer: mut current, mut broke_at } = course;
    let mut buffer = vec![0; READ_BYTES];
    let mut fruitless = 0;
    // Bytes of the current answer that are known already: it started over although asked to go on.
    let mut skip = 0;
    loop {
        let failure = match &mut current {
            Some(answer) => match read_some(&mut answer.body, &mut buffer) {
                // A range may end early, and cleanly.
                Ok(0) => match size.filter(|size| *size > verifier.at) {
                    None => return Ok(verifier),
                    want => UpstreamError::Truncated { got: verifier.at, want },
                },
                Ok(n) => {
                    inner.counters.upstream_bytes.fetch_add(n as u64, Ordering::Relaxed);
                    let known = skip.min(n as u64);
                    skip -= known;
                    let new = &buffer[usize::try_from(known).expect("at most a buffer")..n];
                    let end = verifier.at + new.len() as u64;
                    if end > size.unwrap_or(artifact.limit_bytes) {
                        return Err(too_long(artifact, size, end));
                    }
                    write(flight, incoming, new, verifier.at)?;
                    verifier.update(new);
                    // Less than a piece: there was no more to read.
                    flight.advance(&verifier, n < READ_BYTES);
                    continue;
                }
                Err(e) => broken(&e),
            },
            None => match ask(inner, site, artifact, verifier.at, etag.clone()) {
                Ok(again) => {
                    skip = match again.status {
                        Status::Partial { total, .. } => {
                            size = size.or(total);
                            0
                        }
                        // Started over. Only a digest or a validator proves that these are the same bytes.
                        _ if artifact.digest.is_some() => verifier.at,
                        _ if verifier.at == 0 => 0,
                        _ if etag.as_deref().is_some_and(is_strong) && again.head.etag == etag => verifier.at,
                        _ => return Err(FetchError::Changed(artifact.filename.clone()).into()),
                    };
                    current = Some(again);
                    continue;
                }
                Err(FetchError::Upstream(e)) if e.retry() => e,
                Err(e) => return Err(e.into()),
            },
        };
        // Dropped before the next question: it holds a connection.
        current = None;
        fruitless = if verifier.at >= broke_at + PROGRESS_BYTES { 1 } else { fruitless + 1 };
        broke_at = verifier.at;
        if !failure.retry() || fruitless > RESUMES {
            return Err(FetchError::Upstream(failure).into());
        }
        log::info!("{} broke off at byte {}: {failure}; going on", artifact.filename, verifier.at);
        inner.counters.resumed.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(RESUME_PAUSE * fruitless);
    }
}

/// Asks for the artifact from byte `first` on; for all of it where the range is answered badly.
fn ask(
    inner: &Inner,
    site: &Site,
    artifact: &Artifact,
    first: u64,
    etag: Option<String>,
) -> Result<Answer, FetchError> {
    let strong = etag.filter(|e| is_strong(e));
    // Without a digest only a validator proves that the rest belongs to the beginning.
    let provable = artifact.digest.is_some() || strong.is_some();
    let range = (first > 0 && provable).then_some(Range { first, last: None });
    let if_range = if range.is_some() && artifact.digest.is_none() { strong } else { None };
    match open(inner, site, artifact, &Ask { range, if_range, ..Ask::default() }) {
        Err(e) if range.is_some() && is_bad_range(&e) => open(inner, site, artifact, &Ask::default()),
        answer => answer,
    }
}

/// Whether an entity tag stands for these very bytes (RFC 9110 §8.8.1).
fn is_strong(etag: &str) -> bool {
    !etag.starts_with("W/")
}

/// Whether it is only the range that the upstream cannot answer.
pub(super) fn is_bad_range(e: &FetchError) -> bool {
    matches!(e, FetchError::Upstream(UpstreamError::BadRange { .. }))
}

pub(super) fn open(inner: &Inner, site: &Site, artifact: &Artifact, ask: &Ask) -> Result<Answer, FetchError> {
    let answer = inner.client.open(site, &artifact.url, ask).map_err(FetchError::Upstream)?;
    match answer.status {
        Status::Missing => Err(FetchError::Missing(artifact.filename.clone())),
        _ => Ok(answer),
    }
}

/// The size that an answer announces, held against what the index says.
fn announced(artifact: &Artifact, answer: &Answer) -> Result<Option<u64>, FetchError> {
    let filename = || artifact.filename.clone();
    match (artifact.size, answer.head.length) {
        (Some(want), Some(got)) if want != got => Err(FetchError::Length { filename: filename(), want, got }),
        (_, Some(got)) if got > artifact.limit_bytes => Err(FetchError::TooLarge(filename())),
        (stated, announced) => Ok(stated.or(announced)),
    }
}

fn too_long(artifact: &Artifact, size: Option<u64>, got: u64) -> Stop {
    let filename = artifact.filename.clone();
    Stop::Failed(match size {
        Some(want) => FetchError::Length { filename, want, got },
        None => FetchError::TooLarge(filename),
    })
}

/// What a failed read of a body means.
pub(super) fn broken(e: &std::io::Error) -> UpstreamError {
    UpstreamError::of(e).cloned().unwrap_or(UpstreamError::Truncated { got: 0, want: None })
}

/// A read that is not disturbed by signals.
pub(super) fn read_some(body: &mut impl std::io::Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match body.read(buffer) {
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

impl Inner {
    /// The upstream to ask, if there is one that may be.
    pub(super) fn asked(&self, artifact: &Artifact) -> Result<&Site, FetchError> {
        if artifact.is_rooms() {
            return Err(FetchError::NoMember(artifact.filename.clone()));
        }
        match self.offline {
            true => Err(FetchError::Offline(artifact.filename.clone())),
            false => self.site(artifact),
        }
    }

    fn site(&self, artifact: &Artifact) -> Result<&Site, FetchError> {
        self.sites.get(&artifact.upstream).ok_or_else(|| FetchError::NoSite(artifact.upstream.clone()))
    }
}
