//! One download that many may read: it survives its readers, resumes when it breaks, ends verified or not at all.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use event_listener::Event;

use crate::base::{Artifact, limits};
use crate::store::{Facts, Incoming, StoreError, Stored};
use crate::upstream::{Answer, Ask, Range, Site, Status, UpstreamError};

use super::verify::{Verified, Verifier};
use super::{FetchError, Inner, LOCK, lanes, plain};

/// Times a broken download is taken up again without [`PROGRESS_BYTES`] in between.
const RESUMES: u32 = 4;

/// Fewer new bytes between two breaks are no progress: who gives a byte, breaks, and gives the next one would hold a
/// thread for ever. Above what the slowest upstream that is borne sends before it is given up.
pub(super) const PROGRESS_BYTES: u64 = 64 << 10;

/// Bytes read from an upstream at a time: its answer comes in pieces of this much.
const READ_BYTES: usize = 32 << 10;

/// Pause before the first of them; the later ones wait longer in proportion.
pub(super) const RESUME_PAUSE: Duration = Duration::from_millis(100);

/// A download under way.
pub(super) struct Flight {
    pub(super) artifact: Artifact,
    state: Mutex<State>,
    changed: Event,
}

struct State {
    phase: Phase,
    size: Option<u64>,
    /// Bytes from the start that are written and hashed.
    ready: u64,
    file: Option<Arc<std::fs::File>>,
    /// What readers were last woken for, and when.
    told: u64,
    told_at: Instant,
}

/// Readers of a fast download are woken for this much.
const WAKE_BYTES: u64 = 128 << 10;

/// Readers of a slow one are woken for whatever came in this time.
const WAKE_TIME: Duration = Duration::from_millis(4);

enum Phase {
    /// The upstream has not answered.
    Starting,
    Running,
    /// Whole and proved, not yet committed.
    Verified,
    /// Committed; or proved but impossible to store.
    Done(Option<Arc<Stored>>),
    /// Nothing can be stored: each reader reads the upstream itself.
    NoRoom,
    Failed(FetchError),
}

/// How a flight began.
pub(super) enum Start {
    /// Bytes are coming; the size is known or not.
    Running {
        size: Option<u64>,
    },
    NoRoom,
}

/// What a reader at some offset finds.
pub(super) enum View {
    /// Bytes may be read up to here.
    Ready {
        file: Arc<std::fs::File>,
        until: u64,
    },
    /// Nothing new yet.
    Wait,
    /// All has been read.
    End,
    /// The disk filled up on the way; the bytes given so far are in here.
    NoRoom(Option<Arc<std::fs::File>>),
    Failed(FetchError),
}

impl Flight {
    pub(super) fn new(artifact: Artifact) -> Self {
        let state = State {
            phase: Phase::Starting,
            size: None,
            ready: 0,
            file: None,
            told: 0,
            told_at: Instant::now(),
        };
        Self { artifact, state: Mutex::new(state), changed: Event::new() }
    }

    /// Waits for the upstream's answer.
    pub(super) async fn start(&self) -> Result<Start, FetchError> {
        loop {
            let listener = self.changed.listen();
            {
                let state = self.state.lock().expect(LOCK);
                match &state.phase {
                    Phase::Starting => {}
                    Phase::NoRoom => return Ok(Start::NoRoom),
                    Phase::Failed(e) => return Err(e.clone()),
                    _ => return Ok(Start::Running { size: state.size }),
                }
            }
            listener.await;
        }
    }

    /// Waits until it is in the store.
    pub(super) async fn committed(&self) -> Result<Arc<Stored>, FetchError> {
        loop {
            let listener = self.changed.listen();
            match &self.state.lock().expect(LOCK).phase {
                Phase::Done(Some(stored)) => return Ok(stored.clone()),
                Phase::Done(None) | Phase::NoRoom => {
                    return Err(FetchError::NoRoom(self.artifact.filename.clone()));
                }
                Phase::Failed(e) => return Err(e.clone()),
                _ => {}
            }
            listener.await;
        }
    }

    /// What a reader at `at` may have now. [`Event`] listeners made before the call see every later change.
    pub(super) fn view(&self, at: u64) -> View {
        let state = self.state.lock().expect(LOCK);
        let until = match &state.phase {
            Phase::Starting => return View::Wait,
            Phase::NoRoom => return View::NoRoom(state.file.clone()),
            Phase::Failed(e) => return View::Failed(e.clone()),
            Phase::Verified | Phase::Done(_) => state.ready,
            Phase::Running => state.ready.saturating_sub(limits::HOLD_BACK_BYTES),
        };
        match &state.file {
            Some(file) if at < until => View::Ready { file: file.clone(), until },
            _ if matches!(state.phase, Phase::Verified | Phase::Done(_)) => View::End,
            _ => View::Wait,
        }
    }

    pub(super) fn listen(&self) -> event_listener::EventListener {
        self.changed.listen()
    }

    /// Says that nobody works on it any more: whoever still waits gets an error.
    pub(super) fn abandon(&self) {
        let given_up = FetchError::GivenUp(self.artifact.filename.clone());
        self.update(|state| {
            if !matches!(state.phase, Phase::Done(_) | Phase::NoRoom | Phase::Failed(_)) {
                state.phase = Phase::Failed(given_up);
            }
        });
    }

    /// Says how far the bytes are written and hashed, and wakes the readers when it is worth it: a fast upstream would
    /// wake each of them for every 32 KiB.
    pub(super) fn advance(&self, ready: u64) {
        let worth = {
            let mut state = self.state.lock().expect(LOCK);
            state.ready = ready;
            let worth = ready < WAKE_BYTES
                || ready - state.told >= WAKE_BYTES
                || state.told_at.elapsed() >= WAKE_TIME;
            if worth {
                (state.told, state.told_at) = (ready, Instant::now());
            }
            worth
        };
        if worth {
            self.changed.notify(usize::MAX);
        }
    }

    /// Says that bytes are coming, of this size if it is known, into this file.
    pub(super) fn running(&self, size: Option<u64>, incoming: &Incoming) -> Result<(), FetchError> {
        let file = incoming.reader().map_err(|e| self.disk(&e))?;
        self.update(|state| {
            state.phase = Phase::Running;
            state.size = size;
            state.file = Some(Arc::new(file));
        });
        Ok(())
    }

    pub(super) fn disk(&self, e: &std::io::Error) -> FetchError {
        FetchError::Disk(self.artifact.filename.clone(), e.to_string())
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect(LOCK));
        self.changed.notify(usize::MAX);
    }
}

/// Why a download ends early.
pub(super) enum Stop {
    NoRoom,
    Failed(FetchError),
}

impl From<FetchError> for Stop {
    fn from(e: FetchError) -> Self {
        Self::Failed(e)
    }
}

/// Flies: from the first question to the commit. Blocks.
pub(super) fn run(inner: &Inner, flight: &Flight) {
    let artifact = &flight.artifact;
    let outcome = download(inner, flight).and_then(|(incoming, verified)| {
        let size = verified.layout.size;
        flight.update(|state| {
            state.ready = size;
            state.size = Some(size);
            state.phase = Phase::Verified;
        });
        commit(inner, artifact, incoming, verified).map_err(Stop::Failed)
    });
    match outcome {
        Ok(stored) => flight.update(|state| state.phase = Phase::Done(stored)),
        Err(Stop::NoRoom) => flight.update(|state| state.phase = Phase::NoRoom),
        Err(Stop::Failed(e)) => {
            if matches!(e, FetchError::Mismatch { .. }) {
                inner.counters.mismatches.fetch_add(1, Ordering::Relaxed);
            }
            log::warn!("fetching {} from {}: {e}", artifact.filename, artifact.upstream);
            flight.update(|state| state.phase = Phase::Failed(e));
        }
    }
}

fn download(inner: &Inner, flight: &Flight) -> Result<(Incoming, Verified), Stop> {
    let artifact = &flight.artifact;
    let site = inner.site(artifact)?;
    if artifact.size.is_some_and(|s| s > limits::ARTIFACT_BYTES) {
        return Err(FetchError::TooLarge(artifact.filename.clone()).into());
    }
    let incoming = begin(inner, artifact.size)?;
    let verifier = Verifier::new(artifact.digest);
    let verifier = match lanes::wanted(inner, artifact) {
        Some(permit) => lanes::run(inner, flight, site, &incoming, verifier, permit)?,
        None => {
            let answer = ask(inner, site, artifact, 0, None)?;
            stream(inner, flight, site, &incoming, verifier, answer)?
        }
    };
    let got = verifier.at;
    if let Some(want) = artifact.size.filter(|want| *want != got) {
        return Err(FetchError::Length { filename: artifact.filename.clone(), want, got }.into());
    }
    let verified = verifier.finish().map_err(|(want, got)| FetchError::Mismatch {
        filename: artifact.filename.clone(),
        want,
        got,
    })?;
    Ok((incoming, verified))
}

/// Reads one answer to its end, taking it up again where it breaks off.
pub(super) fn stream(
    inner: &Inner,
    flight: &Flight,
    site: &Site,
    incoming: &Incoming,
    mut verifier: Verifier,
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
    flight.running(size, incoming)?;
    let mut buffer = vec![0; READ_BYTES];
    let mut current = Some(answer);
    let mut fruitless = 0;
    let mut broke_at = 0;
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
                    if end > size.unwrap_or(limits::ARTIFACT_BYTES) {
                        return Err(too_long(artifact, size, end));
                    }
                    write(flight, incoming, new, verifier.at)?;
                    verifier.update(new);
                    flight.advance(verifier.at);
                    continue;
                }
                Err(e) => broken(&e),
            },
            None => match ask(inner, site, artifact, verifier.at, etag.clone()) {
                Ok(again) => {
                    skip = match again.status {
                        Status::Partial { .. } => 0,
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
        (_, Some(got)) if got > limits::ARTIFACT_BYTES => Err(FetchError::TooLarge(filename())),
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

/// Writes; a full disk is no failure but a reason to pass through.
pub(super) fn write(flight: &Flight, incoming: &Incoming, bytes: &[u8], at: u64) -> Result<(), Stop> {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    incoming.write(bytes, at).map_err(|e| match e.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => Stop::NoRoom,
        _ => Stop::Failed(flight.disk(&e)),
    })
}

fn begin(inner: &Inner, size: Option<u64>) -> Result<Incoming, Stop> {
    match inner.store.begin(size) {
        Ok(incoming) => Ok(incoming),
        Err(StoreError::NoRoom { .. }) => Err(Stop::NoRoom),
        // A store that cannot be written is a full disk's cousin: bytes still reach the clients.
        Err(e) => {
            log::error!("{e}");
            inner.counters.store_failures.fetch_add(1, Ordering::Relaxed);
            Err(Stop::NoRoom)
        }
    }
}

/// Commits. A store that fails here costs only the copy: the readers have verified bytes in the open file.
fn commit(
    inner: &Inner,
    artifact: &Artifact,
    incoming: Incoming,
    verified: Verified,
) -> Result<Option<Arc<Stored>>, FetchError> {
    let pin_name = super::strong(artifact).is_none().then(|| artifact_pin(artifact));
    let facts = Facts {
        sha256: verified.sha256,
        digests: verified.theirs.into_iter().filter(|d| d.is_strong()).collect(),
        layout: verified.layout,
        access: artifact.access,
        upstream: artifact.upstream.clone(),
        url: plain(&artifact.url),
        filename: artifact.filename.clone(),
        pin_name,
    };
    match inner.store.commit(incoming, facts) {
        Ok(stored) => Ok(Some(stored)),
        Err(e) => {
            log::error!("{} was served but could not be stored: {e}", artifact.filename);
            inner.counters.store_failures.fetch_add(1, Ordering::Relaxed);
            Ok(None)
        }
    }
}

/// The name under which the first SHA-256 of an artifact without a strong digest is pinned.
///
/// It ends in what the index says of the file: another weak digest is another file, and so is another name at an
/// address that differs in its query only.
pub(super) fn artifact_pin(artifact: &Artifact) -> String {
    let digest = artifact.digest.map_or_else(|| "-".to_owned(), |d| d.to_string());
    format!("{}{}\0{digest}", artifact_pins(artifact), artifact.filename)
}

/// What every such name of this address begins with.
pub(super) fn artifact_pins(artifact: &Artifact) -> String {
    format!("first-use\0{}\0{}\0", artifact.upstream, plain(&artifact.url))
}

impl Inner {
    pub(super) fn site(&self, artifact: &Artifact) -> Result<&Site, FetchError> {
        self.sites.get(&artifact.upstream).ok_or_else(|| FetchError::NoSite(artifact.upstream.clone()))
    }
}
