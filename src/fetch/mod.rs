//! Bytes: one flight a digest, every reader from its first byte, nothing whole before it is verified.
//!
//! Knows no names and no ecosystem: an [`Artifact`] says where bytes are and what must be true of them.

mod blocks;
mod body;
mod flight;
mod follow;
mod lanes;
mod near;
mod pass;
mod pool;
mod through;
mod verify;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::base::{Access, Artifact, Digest, Trail, limits};
use crate::exchange::Exchange;
use crate::rt::{Gate, Tasks, UnixMillis};
use crate::store::{Facts, Store, StoreError, Stored};
use crate::upstream::{Ask, Client, Method, Site, UpstreamError};

pub use blocks::{Car, CarRefusal, Piece, Reach, Repeats, Scope};
pub use body::Body;
use flight::{Flight, Start};
pub use pool::BYTES as BUFFER_BYTES;
pub use through::Through;

/// Bytes handed on at a time, and read at a time: 64 transfers at once, each with one on either side, hold 8 MiB of
/// them. Larger ones gain nothing: an upstream's answer comes in pieces of 32 KiB, and large stored files are not
/// copied at all.
const CHUNK: usize = 64 << 10;

/// Fetches artifacts; clones share the flights.
#[derive(Clone)]
pub struct Fetch {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    store: Store,
    client: Client,
    sites: Arc<HashMap<String, Site>>,
    disk: Gate,
    net: Gate,
    /// Apart from `net`: a pass-through goes no faster than its reader.
    passes: Gate,
    /// Apart from `net`: a flight never waits for it.
    hedges: Gate,
    tasks: Tasks,
    offline: bool,
    near: Option<Exchange>,
    flights: Arc<Mutex<HashMap<Key, Arc<Flight>>>>,
    counters: Arc<Counters>,
}

/// The handles that [`Fetch`] works with.
pub struct Parts {
    /// Where artifacts are kept.
    pub store: Store,
    /// Asks upstreams.
    pub client: Client,
    /// The configured upstreams.
    pub sites: Vec<Site>,
    /// For blocking reads.
    pub disk: Gate,
    /// For downloads.
    pub net: Gate,
    /// Owns flights, which outlive the requests that started them.
    pub tasks: Tasks,
    /// Never ask an upstream.
    pub offline: bool,
    /// The nodes around, if there may be any.
    pub near: Option<Exchange>,
}

/// What makes two requests one flight: the digest, or the address where no digest is known. Never the address
/// alone where a digest is: two indexes may promise different bytes under one address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Apart by who may have it: whoever waits for what is not for everybody would get it unasked.
    Digest(Digest, Access),
    Address(String, String),
}

/// What fetching has done since the start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Flights started.
    pub flights: AtomicU64,
    /// Requests that joined a flight of another.
    pub joined: AtomicU64,
    /// Requests answered without storing, for want of room.
    pub passed: AtomicU64,
    /// Bytes taken from upstreams.
    pub upstream_bytes: AtomicU64,
    /// Bytes taken from peers.
    pub peer_bytes: AtomicU64,
    /// Downloads from peers so slow that the upstream was asked too.
    pub hedged: AtomicU64,
    /// Flights whose bytes were not what their digest says.
    pub mismatches: AtomicU64,
    /// Downloads taken up again where they broke off.
    pub resumed: AtomicU64,
    /// Artifacts that could not be committed.
    pub store_failures: AtomicU64,
}

/// An artifact that can be read now.
pub struct Content {
    source: Source,
    /// Bytes, if known yet.
    pub size: Option<u64>,
    /// Where it comes from.
    pub via: Via,
    /// When it was stored, if it is.
    pub stored_at: Option<UnixMillis>,
    /// The digest that it has or will have, if known yet.
    pub digest: Option<Digest>,
}

/// Where content comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// The store.
    Store,
    /// The upstream, through a flight that stores it.
    Upstream,
    /// A node near by, through a flight that stores it.
    Peer,
    /// The upstream, without being stored.
    Passed,
}

enum Source {
    Stored(Arc<Stored>, Arc<Inner>),
    Flight(Arc<Flight>, Arc<Inner>),
    Pass(Box<Artifact>, Arc<Inner>),
}

impl Fetch {
    /// A fetcher with these handles.
    pub fn new(parts: Parts) -> Self {
        let Parts { store, client, sites, disk, net, tasks, offline, near } = parts;
        let sites = Arc::new(sites.into_iter().map(|s| (s.name.clone(), s)).collect());
        let (passes, hedges) = (Gate::new(limits::PASSES), Gate::new(limits::HEDGES));
        let (flights, counters) = (Arc::default(), Arc::default());
        let inner = Inner {
            store,
            client,
            sites,
            disk,
            net,
            passes,
            hedges,
            tasks,
            offline,
            near,
            flights,
            counters,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The same fetcher for a request that came through other nodes: the questions of the flights that it starts say so.
    pub fn on_behalf(&self, trail: Arc<Trail>) -> Self {
        let client = self.inner.client.on_behalf(trail);
        Self { inner: Arc::new(Inner { client, ..(*self.inner).clone() }) }
    }

    /// A stored artifact whose file is open already. Touches no disk.
    pub fn peek(&self, digest: &Digest) -> Option<Content> {
        self.inner.store.peek(&digest.sha256()?).map(|s| stored(s, &self.inner))
    }

    /// A stored artifact, or the flight that is bringing it. Asks nobody.
    pub async fn load(&self, digest: &Digest) -> Result<Option<Content>, FetchError> {
        if let Some(content) = self.peek(digest) {
            return Ok(Some(content));
        }
        let (store, digest) = (self.inner.store.clone(), *digest);
        let found = self.inner.disk.run(move || store.load(&digest)).await.map_err(Arc::new)?;
        Ok(found.map(|s| stored(s, &self.inner)))
    }

    /// An artifact that is stored. Asks nobody; gives the artifact the digest that its first use pinned, if that is
    /// the only strong one.
    pub async fn find(&self, artifact: &mut Artifact) -> Result<Option<Content>, FetchError> {
        if strong(artifact).is_none()
            && let Some(pinned) = self.first_use(artifact).await?
        {
            artifact.digest = Some(pinned);
        }
        let Some(digest) = strong(artifact) else { return Ok(None) };
        // What a private upstream gave is no answer for a public one: that has to give it itself.
        let may =
            |content: &Content| artifact.access == Access::Private || content.access() == Access::Public;
        Ok(self.load(&digest).await?.filter(may))
    }

    /// Whether anybody but its upstream may be asked for what is not here yet.
    pub fn has_neighbours(&self, access: Access) -> bool {
        let asked = |near: &Exchange| near.has_company() || near.has_strangers();
        access == Access::Public && self.inner.near.as_ref().is_some_and(asked)
    }

    /// An artifact: from the store, from a flight under way, or by starting one.
    ///
    /// Returns once the first bytes are certain to come (the upstream has answered), so that its refusal is an
    /// error here and not a broken body. Cancel-safe: the flight goes on without the caller.
    pub async fn open(&self, mut artifact: Artifact) -> Result<Content, FetchError> {
        if let Some(content) = self.find(&mut artifact).await? {
            return Ok(content);
        }
        if (self.inner.offline || artifact.is_rooms()) && near::neighbours(&self.inner, &artifact).is_none() {
            self.inner.asked(&artifact)?;
        }
        let flight = self.join(&artifact)?;
        match flight.start().await? {
            Start::Running { size, via } => Ok(Content {
                size,
                via,
                stored_at: None,
                digest: artifact.digest,
                source: Source::Flight(flight, self.inner.clone()),
            }),
            // Who has it gives it to be kept: there is no upstream to read it from in passing.
            Start::NoRoom if artifact.is_rooms() => Err(FetchError::NoRoom(artifact.filename)),
            Start::NoRoom => {
                self.inner.counters.passed.fetch_add(1, Ordering::Relaxed);
                Ok(Content {
                    size: artifact.size,
                    via: Via::Passed,
                    stored_at: None,
                    digest: artifact.digest,
                    source: Source::Pass(artifact.into(), self.inner.clone()),
                })
            }
        }
    }

    /// The digest that was pinned when an artifact without a strong one was first used.
    pub async fn first_use(&self, artifact: &Artifact) -> Result<Option<Digest>, FetchError> {
        self.pinned(flight::artifact_pin(artifact)).await
    }

    /// Forgets what an artifact, and what lies beside it, was at its first use. Blocks.
    pub fn forget_first_use(&self, artifact: &Artifact) -> Result<usize, StoreError> {
        self.inner.store.forget_names(&flight::artifact_pins(artifact))
    }

    /// The digest that was pinned to a name.
    pub async fn pinned(&self, name: String) -> Result<Option<Digest>, FetchError> {
        let store = self.inner.store.clone();
        let found = self.inner.disk.run(move || store.name(&name)).await.map_err(Arc::new)?;
        Ok(found.and_then(|v| std::str::from_utf8(&v).ok()?.parse().ok()))
    }

    /// Fetches and stores an artifact without a reader. Gives it once it is committed, and where it was.
    pub async fn complete(&self, artifact: Artifact) -> Result<(Arc<Stored>, Via), FetchError> {
        let content = self.open(artifact).await?;
        match content.source {
            Source::Stored(stored, _) => Ok((stored, content.via)),
            Source::Flight(flight, _) => Ok((flight.committed().await?, content.via)),
            Source::Pass(artifact, _) => Err(FetchError::NoRoom(artifact.filename)),
        }
    }

    /// All bytes of an artifact, verified, in memory: for what must be read and cannot be stored.
    ///
    /// Errors with [`FetchError::NoRoom`] when there are more than `limit`.
    pub async fn collect(&self, artifact: Artifact, limit: u64) -> Result<Vec<u8>, FetchError> {
        let filename = artifact.filename.clone();
        let content = self.open(artifact).await?;
        let too_large = |bytes: u64| bytes > limit;
        if content.size.is_some_and(too_large) {
            return Err(FetchError::NoRoom(filename));
        }
        let mut body = content.body(0, None);
        let mut all = Vec::new();
        while let Some(bytes) = futures_lite::future::poll_fn(|cx| body.poll_next(cx)).await {
            all.extend_from_slice(&bytes?);
            if too_large(all.len() as u64) {
                return Err(FetchError::NoRoom(filename));
            }
        }
        Ok(all)
    }

    /// The size of an artifact that need not be stored, in bytes: from its index, else from the upstream (`HEAD`).
    pub async fn measure(&self, artifact: Artifact) -> Result<Option<u64>, FetchError> {
        if artifact.size.is_some() {
            return Ok(artifact.size);
        }
        self.inner.asked(&artifact)?;
        let inner = self.inner.clone();
        let ask = move || {
            let head = Ask { method: Method::Head, ..Ask::default() };
            follow::open(&inner, inner.asked(&artifact)?, &artifact, &head).map(|answer| answer.head.length)
        };
        self.inner.net.run(ask).await
    }

    /// Stores bytes that dpm made itself from a verified artifact (a wheel's metadata), pinned to `name`.
    pub async fn keep(
        &self,
        bytes: Vec<u8>,
        artifact: &Artifact,
        name: String,
    ) -> Result<Digest, FetchError> {
        let facts = Facts { digests: Vec::new(), pin_name: Some(name), ..Facts::of(&bytes, artifact) };
        let (store, sha256) = (self.inner.store.clone(), facts.sha256);
        let put = move || store.put(&bytes, facts).map(drop);
        self.inner.disk.run(put).await.map_err(Arc::new)?;
        Ok(sha256.digest())
    }

    /// What has been done since the start.
    pub fn counters(&self) -> &Counters {
        &self.inner.counters
    }

    /// Flights under way.
    pub fn in_flight(&self) -> usize {
        self.inner.flights.lock().expect(LOCK).len()
    }

    fn join(&self, artifact: &Artifact) -> Result<Arc<Flight>, FetchError> {
        let key = match strong(artifact) {
            Some(digest) => Key::Digest(digest, artifact.access),
            None => Key::Address(artifact.upstream.clone(), artifact.url.to_string()),
        };
        let mut flights = self.inner.flights.lock().expect(LOCK);
        // One that has failed is on the board for a moment longer: whoever comes now has it tried again.
        if let Some(flight) = flights.get(&key).filter(|flight| !flight.has_failed()) {
            self.inner.counters.joined.fetch_add(1, Ordering::Relaxed);
            return Ok(flight.clone());
        }
        if flights.len() >= WAITING {
            return Err(FetchError::Busy(artifact.filename.clone()));
        }
        self.inner.counters.flights.fetch_add(1, Ordering::Relaxed);
        let flight = Arc::new(Flight::new(artifact.clone()));
        flights.insert(key.clone(), flight.clone());
        let (inner, running) = (self.inner.clone(), flight.clone());
        self.inner.tasks.spawn(async move {
            let board_key = key.clone();
            let landing = Landing { inner: inner.clone(), key, flight: running.clone() };
            let net = inner.net.clone();
            net.run(move || {
                if !inner.gave_up(&board_key, &running) {
                    flight::run(&inner, &running);
                }
            })
            .await;
            drop(landing);
        });
        Ok(flight)
    }
}

impl Inner {
    /// Whether everybody who wanted a flight has gone before it could start; it is off the board then.
    fn gave_up(&self, key: &Key, flight: &Arc<Flight>) -> bool {
        let mut flights = self.flights.lock().expect(LOCK);
        let wanted = Arc::strong_count(flight) > OWN_HANDLES;
        if !wanted {
            flights.remove(key);
        }
        !wanted
    }
}

/// Handles of a flight that no reader has: the board's, the landing's, and its own thread's.
const OWN_HANDLES: usize = 3;

/// Flights under way and waiting for their turn: about a kilobyte each. Beyond it clients are told to come back.
const WAITING: usize = 1024;

/// Takes a flight off the board when it ends, however it ends.
struct Landing {
    inner: Arc<Inner>,
    key: Key,
    flight: Arc<Flight>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self.inner.flights.lock().expect(LOCK);
        if flights.get(&self.key).is_some_and(|f| Arc::ptr_eq(f, &self.flight)) {
            flights.remove(&self.key);
        }
        drop(flights);
        self.flight.abandon();
    }
}

impl Content {
    /// Who may have it.
    pub fn access(&self) -> Access {
        match &self.source {
            Source::Stored(stored, _) => stored.access,
            Source::Flight(flight, _) => flight.artifact.access,
            Source::Pass(artifact, _) => artifact.access,
        }
    }

    /// Name of the upstream that it is from.
    pub fn upstream(&self) -> &str {
        match &self.source {
            Source::Stored(stored, _) => &stored.upstream,
            Source::Flight(flight, _) => &flight.artifact.upstream,
            Source::Pass(artifact, _) => &artifact.upstream,
        }
    }

    /// The artifact itself, if it is stored.
    pub fn stored(&self) -> Option<Arc<Stored>> {
        match &self.source {
            Source::Stored(stored, _) => Some(stored.clone()),
            _ => None,
        }
    }

    /// The same once it is stored: its size is known and nothing can go wrong with it any more.
    pub async fn whole(self) -> Result<Self, FetchError> {
        match self.source {
            Source::Stored(..) => Ok(self),
            Source::Flight(flight, inner) => Ok(stored(flight.committed().await?, &inner)),
            Source::Pass(artifact, _) => Err(FetchError::NoRoom(artifact.filename)),
        }
    }

    /// The bytes from `first`, `length` of them or all that there are.
    pub fn body(self, first: u64, length: Option<u64>) -> Body {
        let end = length.map(|n| first + n).or(self.size);
        match self.source {
            Source::Stored(s, inner) => Body::stored(s, inner, first, end),
            Source::Flight(f, inner) => Body::flight(f, inner, first, end),
            Source::Pass(artifact, inner) => Body::pass(*artifact, inner, first, end),
        }
    }
}

/// The digest that may name an artifact across upstreams. A weak one is checked, and vouches for nothing more.
fn strong(artifact: &Artifact) -> Option<Digest> {
    artifact.digest.filter(Digest::is_strong)
}

fn stored(stored: Arc<Stored>, inner: &Arc<Inner>) -> Content {
    Content {
        size: Some(stored.size),
        via: Via::Store,
        stored_at: Some(stored.stored_at),
        digest: Some(stored.sha256.digest()),
        source: Source::Stored(stored, inner.clone()),
    }
}

const LOCK: &str = "no panic happens under this lock";

/// Why an artifact cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// The upstream failed or refused.
    #[error("{0}")]
    Upstream(#[source] UpstreamError),
    /// The upstream says that there is no such file.
    #[error("the upstream has no {0}")]
    Missing(String),
    /// The bytes are not what the digest says. Nothing was stored.
    #[error("{filename}: the upstream sent bytes with digest {got}, its index promises {want}")]
    Mismatch {
        /// The file.
        filename: String,
        /// What the index states.
        want: Digest,
        /// What came.
        got: Digest,
    },
    /// The length is not what the index says, or changed on the way.
    #[error("{filename}: the upstream sends {got} bytes, {want} were promised")]
    Length {
        /// The file.
        filename: String,
        /// Bytes promised.
        want: u64,
        /// Bytes that came or were announced.
        got: u64,
    },
    /// The file changed at the upstream while it was being downloaded.
    #[error("{0} changed at the upstream while it was being downloaded; ask again")]
    Changed(String),
    /// Larger than any artifact may be.
    #[error("{0} is larger than any artifact that dpm takes")]
    TooLarge(String),
    /// Not stored, and nobody may be asked.
    #[error("{0} is not stored here and dpm runs with --offline")]
    Offline(String),
    /// Only members of a room have it, and none of them gives it.
    #[error(
        "{0} is known from a room only, and no member that has it can be reached: start a node that has it, or ask \
         again when the upstream answers"
    )]
    NoMember(String),
    /// Too many downloads are waiting.
    #[error("too many downloads are waiting; ask for {0} again")]
    Busy(String),
    /// The disk is too full to do what needs the file stored.
    #[error("{0} cannot be stored: the disk is too full")]
    NoRoom(String),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] Arc<StoreError>),
    /// Reading back what was written failed.
    #[error("the disk failed while {0} was read: {1}")]
    Disk(String, String),
    /// No upstream of that name is configured any more.
    #[error("no upstream named {0} is configured")]
    NoSite(String),
    /// dpm is shutting down, or the flight ended without a word.
    #[error("the download of {0} was given up")]
    GivenUp(String),
}
