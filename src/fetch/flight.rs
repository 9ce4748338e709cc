//! One download that many may read: it survives its readers, resumes when it breaks, ends verified or not at all.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use event_listener::Event;

use crate::base::{Artifact, Sha256, limits};
use crate::exchange::{End, Lead, Partial, chunks_of};
use crate::store::{Facts, Incoming, StoreError, Stored};

use super::follow::from_upstream;
use super::verify::{Verified, Verifier};
use super::{FetchError, Inner, LOCK, Via, near};

/// A download under way.
pub(super) struct Flight {
    pub(super) artifact: Artifact,
    state: Mutex<State>,
    changed: Event,
    /// What other nodes see of it.
    lead: OnceLock<Lead>,
    /// Chunks that they have been shown.
    shown: AtomicUsize,
}

struct State {
    phase: Phase,
    size: Option<u64>,
    via: Via,
    /// Nobody gets a byte before all of them are proved: they come from peers that have not proved themselves.
    held: bool,
    held_since: Option<Instant>,
    /// A reader got a byte.
    exposed: bool,
    /// Bytes from the start that are written and hashed.
    ready: u64,
    file: Option<Arc<std::fs::File>>,
    /// What readers were last woken for, and when.
    told: u64,
    told_at: Instant,
}

/// How long bytes of peers that have not proved themselves are held back. pip gives a silent server up after 15 s, so the
/// file of a slow neighbour has to begin before that; a lie then costs the client its download, as a lying upstream would.
const HOLD_TIME: Duration = Duration::from_secs(8);

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
        via: Via,
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
            via: Via::Upstream,
            held: false,
            held_since: None,
            exposed: false,
            ready: 0,
            file: None,
            told: 0,
            told_at: Instant::now(),
        };
        Self {
            artifact,
            state: Mutex::new(state),
            changed: Event::new(),
            lead: OnceLock::new(),
            shown: AtomicUsize::new(0),
        }
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
                    _ => return Ok(Start::Running { size: state.size, via: state.via }),
                }
            }
            listener.await;
        }
    }

    /// Whether it has ended in vain.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.state.lock().expect(LOCK).phase, Phase::Failed(_))
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
        let mut state = self.state.lock().expect(LOCK);
        let until = match &state.phase {
            Phase::Starting => return View::Wait,
            Phase::Running if state.held => return View::Wait,
            Phase::NoRoom => return View::NoRoom(state.file.clone()),
            Phase::Failed(e) => return View::Failed(e.clone()),
            Phase::Verified | Phase::Done(_) => state.ready,
            Phase::Running => state.ready.saturating_sub(limits::HOLD_BACK_BYTES),
        };
        match &state.file {
            Some(file) if at < until => {
                let file = file.clone();
                state.exposed = true;
                View::Ready { file, until }
            }
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
    /// wake each of them for every 32 KiB. After `pause` nothing more may come for a while.
    pub(super) fn advance(&self, verifier: &Verifier, pause: bool) {
        let ready = verifier.at;
        self.show(verifier);
        self.release();
        let worth = {
            let mut state = self.state.lock().expect(LOCK);
            state.ready = ready;
            let worth = pause
                || ready < WAKE_BYTES
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
        let file = Arc::new(incoming.reader().map_err(|e| self.disk(&e))?);
        self.update(|state| {
            // Of a held one the answer is not begun either: it can still become an error.
            if !state.held {
                state.phase = Phase::Running;
            }
            state.size = size;
            state.file = Some(file.clone());
        });
        if let Some(lead) = self.lead.get() {
            lead.partial().flies(size, file);
        }
        Ok(())
    }

    /// Lets other nodes see this flight, once; gives what they see.
    pub(super) fn leads(&self, lead: Lead) -> Arc<Partial> {
        self.lead.get_or_init(|| lead).partial().clone()
    }

    /// Lets other nodes see a chunk that is written. The last one of all stays back until the whole is proved.
    pub(super) fn shows(&self, n: u32, leaf: Sha256, size: u64) {
        if let Some(lead) = self.lead.get()
            && n + 1 < chunks_of(size)
        {
            lead.partial().got(n, leaf);
        }
    }

    /// Lets other nodes see leaves from `first` on of chunks that may not be here yet.
    pub(super) fn shows_leaves(&self, first: usize, leaves: &[Sha256]) {
        let Some(lead) = self.lead.get().filter(|_| !leaves.is_empty()) else { return };
        if !lead.partial().leaves(first, leaves) {
            // They were shown leaves of a layout that nobody follows any more.
            self.shows_anew();
            lead.partial().leaves(first, leaves);
        }
    }

    /// From here on nobody gets a byte before all are proved.
    ///
    /// Not longer than [`HOLD_TIME`]: then readers get what is there, as from an upstream.
    pub(super) fn hold(&self) {
        let mut state = self.state.lock().expect(LOCK);
        let since = *state.held_since.get_or_insert_with(Instant::now);
        state.held = since.elapsed() < HOLD_TIME;
    }

    /// Lets readers have what was held for too long.
    fn release(&self) {
        let mut state = self.state.lock().expect(LOCK);
        let late = state.held_since.is_some_and(|since| since.elapsed() >= HOLD_TIME);
        if !(state.held
            && late
            && state.file.is_some()
            && matches!(state.phase, Phase::Starting | Phase::Running))
        {
            return;
        }
        state.held = false;
        state.phase = Phase::Running;
        drop(state);
        self.changed.notify(usize::MAX);
    }

    /// Says who the bytes come from; the upstream, if any of them do.
    pub(super) fn comes_from(&self, via: Via) {
        self.state.lock().expect(LOCK).via = via;
    }

    /// Takes everything back, to begin anew. `false` when a reader has had something of it already.
    pub(super) fn start_over(&self) -> bool {
        let mut state = self.state.lock().expect(LOCK);
        if state.exposed || !state.held {
            return false;
        }
        (state.ready, state.told, state.file, state.held) = (0, 0, None, false);
        drop(state);
        if let Some(lead) = self.lead.get() {
            lead.partial().begins_anew();
            self.shown.store(0, Ordering::Relaxed);
        }
        true
    }

    /// Takes back what came beyond byte `at`. `false` when a reader may have had something of that already.
    pub(super) fn back_to(&self, at: u64) -> bool {
        let mut state = self.state.lock().expect(LOCK);
        if state.ready > at && state.exposed {
            return false;
        }
        if state.ready > at {
            (state.ready, state.told) = (at, at);
            drop(state);
            self.shows_anew();
        }
        true
    }

    /// Chunks that other nodes were shown are taken back; those that are still here are shown again.
    pub(super) fn shows_anew(&self) {
        if let Some(lead) = self.lead.get() {
            lead.partial().takes_back();
            self.shown.store(0, Ordering::Relaxed);
        }
    }

    /// Shows other nodes the chunks that are whole. The newest stays back until more is known: nobody is to have all of
    /// what has not been proved here.
    fn show(&self, verifier: &Verifier) {
        let Some(lead) = self.lead.get() else { return };
        let leaves = verifier.leaves();
        let shown = self.shown.load(Ordering::Relaxed);
        let whole = leaves.len().saturating_sub(1);
        for (n, leaf) in leaves.iter().enumerate().take(whole).skip(shown) {
            lead.partial().got(u32::try_from(n).unwrap_or(u32::MAX), *leaf);
        }
        self.shown.fetch_max(whole, Ordering::Relaxed);
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
pub(super) fn run(inner: &Arc<Inner>, flight: &Flight) {
    let artifact = &flight.artifact;
    let outcome = download(inner, flight).and_then(|(incoming, verified)| {
        let size = verified.layout.size;
        let file = Arc::new(incoming.reader().map_err(|e| flight.disk(&e))?);
        flight.update(|state| {
            state.ready = size;
            state.size = Some(size);
            state.file.get_or_insert(file);
            state.phase = Phase::Verified;
        });
        let stored = commit(inner, artifact, incoming, verified).map_err(Stop::Failed)?;
        if let (Some(lead), Some(_)) = (flight.lead.get(), &stored) {
            lead.partial().ended(End::Stored);
        }
        Ok(stored)
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

fn download(inner: &Arc<Inner>, flight: &Flight) -> Result<(Incoming, Verified), Stop> {
    let artifact = &flight.artifact;
    if artifact.size.is_some_and(|s| s > artifact.limit_bytes) {
        return Err(FetchError::TooLarge(artifact.filename.clone()).into());
    }
    let incoming = begin(inner, artifact.size)?;
    match near::neighbours(inner, artifact) {
        Some(exchange) => near::download(inner, flight, exchange, incoming),
        None => {
            let verifier = from_upstream(inner, flight, &incoming, Verifier::new(artifact.digest))?;
            Ok((incoming, prove(artifact, verifier)?))
        }
    }
}

/// Holds what came against what was promised.
pub(super) fn prove(artifact: &Artifact, verifier: Verifier) -> Result<Verified, FetchError> {
    let got = verifier.at;
    if let Some(want) = artifact.size.filter(|want| *want != got) {
        return Err(FetchError::Length { filename: artifact.filename.clone(), want, got });
    }
    verifier.finish().map_err(|(want, got)| FetchError::Mismatch {
        filename: artifact.filename.clone(),
        want,
        got,
    })
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
        url: artifact.plain_url(),
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
    format!("first-use\0{}\0{}\0", artifact.upstream, artifact.plain_url())
}
