//! The store: what this node has.
//!
//! fjall holds the index (artifact records, layouts, block positions, names, index pages, access times); an
//! artifact's bytes are one file, and a raw UnixFS leaf is a byte range of it. `facts.md` of the project's notes
//! and `ARCHITECTURE.md` say why. Everything here blocks: call it through a gate, but for `peek`.
//!
//! An artifact is visible once its record is in the index; its file is durable before that. A crash leaves at
//! worst a file that nothing names, which [`Store::sweep`] takes away.

mod block;
mod budget;
mod commit;
mod describe;
mod early;
mod format;
mod incoming;
mod listings;
mod pages;
mod records;
mod scrub;
mod stored;
mod watch;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use lru::LruCache;

use crate::base::{Digest, Sha256};
use crate::rt::{Clock, UnixMillis};

pub use block::{Block, MOST_BLOCK_BYTES};
pub use budget::{Budget, Freed, Space};
pub use commit::Facts;
pub use describe::Description;
pub use incoming::Incoming;
pub use listings::{Listing, RoomKey};
pub use pages::{Page, PageHead};
pub use scrub::{Damage, Report};
pub use stored::{Stored, read_cached};
pub use watch::Change;

use early::Early;
use records::ArtifactRecord;

/// Open files kept for the next request. Each is one descriptor; opening costs two system calls.
const OPEN_FILES: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// Access times kept in memory before they are written in one batch.
const TOUCHES: usize = 4096;

/// fjall's block cache in bytes: the whole node is to idle under 20 MiB.
const CACHE_BYTES: u64 = 4 << 20;

/// fjall's memtable of one keyspace in bytes: nine of them, and the whole node is to idle under 20 MiB.
const MEMTABLE_BYTES: u64 = 1 << 20;

/// fjall's journals in bytes, the least it allows.
const JOURNAL_BYTES: u64 = 64 << 20;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most bytes of artifacts.
    pub budget: Budget,
    /// Bytes of the disk that stay free: below it nothing is stored. At least 64 MiB, which the index needs.
    pub free_margin_bytes: u64,
    /// Time for access times and ages.
    pub clock: Clock,
}

/// A handle to the store; clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    options: Options,
    db: Database,
    /// sha256 → [`ArtifactRecord`].
    artifacts: Keyspace,
    /// another digest → sha256.
    aliases: Keyspace,
    /// sha256 of a block ‖ sha256 of the artifact → where it is.
    blocks: Keyspace,
    /// sha256 of an artifact → last access.
    access: Keyspace,
    /// a name of an ecosystem → what was pinned for it.
    names: Keyspace,
    /// page key → [`PageHead`], and page key → body.
    heads: Keyspace,
    bodies: Keyspace,
    /// sha256 of a block of a catalogue → block.
    catalogues: Keyspace,
    /// sha256 of a file ‖ room ‖ peer whose catalogue has it.
    listings: Keyspace,
    space: Mutex<budget::Counted>,
    touched: Mutex<HashMap<Sha256, UnixMillis>>,
    /// Artifacts between their file's renaming and their record.
    committing: Mutex<Vec<Sha256>>,
    open: Mutex<LruCache<Sha256, Arc<Stored>>>,
    watchers: Mutex<Vec<async_channel::Sender<Change>>>,
    tmp_counter: AtomicU64,
    /// Bytes that artifacts on their way in will still take.
    promised: AtomicU64,
    early: Early,
}

impl Store {
    /// Opens the store in `dir`, creating it if there is none.
    ///
    /// Errors: [`StoreError::Locked`] when another process has it, [`StoreError::Newer`] when a later dpm wrote it.
    pub fn open(dir: &Path, options: Options) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(|e| StoreError::Io("create the data folder", dir.into(), e))?;
        format::check(dir)?;
        for sub in [OBJECTS, INCOMING] {
            let path = dir.join(sub);
            std::fs::create_dir_all(&path).map_err(|e| StoreError::Io("create", path, e))?;
        }
        let db = Database::builder(dir.join("index"))
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .max_cached_files(Some(64))
            .worker_threads(1)
            .open()?;
        let keyspace =
            |name| db.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES));
        let artifacts = keyspace("artifacts")?;
        let meta = keyspace("meta")?;
        let counted = budget::Counted::load(meta)?;
        let store = Self {
            inner: Arc::new(Inner {
                aliases: keyspace("aliases")?,
                blocks: keyspace("blocks")?,
                access: keyspace("access")?,
                names: keyspace("names")?,
                heads: keyspace("heads")?,
                bodies: keyspace("bodies")?,
                catalogues: keyspace("catalogues")?,
                listings: keyspace("listings")?,
                artifacts,
                db,
                dir: dir.to_owned(),
                options,
                space: Mutex::new(counted),
                touched: Mutex::default(),
                committing: Mutex::default(),
                open: Mutex::new(LruCache::new(OPEN_FILES)),
                watchers: Mutex::default(),
                tmp_counter: AtomicU64::new(0),
                promised: AtomicU64::new(0),
                early: Early::start()
                    .map_err(|e| StoreError::Io("start the thread that writes back in", dir.into(), e))?,
            }),
        };
        store.inner.clear_incoming();
        Ok(store)
    }

    /// An artifact whose file is open already. Touches no disk.
    pub fn peek(&self, sha256: &Sha256) -> Option<Arc<Stored>> {
        let found = self.inner.open.lock().expect(LOCK).get(sha256).cloned()?;
        self.touch(*sha256);
        Some(found)
    }

    /// The artifact with this digest, whatever its algorithm, if it is stored.
    ///
    /// A record that cannot be read, or whose file is gone or has another length, is taken out: the caller fetches
    /// again.
    pub fn load(&self, digest: &Digest) -> Result<Option<Arc<Stored>>, StoreError> {
        let Some(sha256) = self.resolve(digest)? else { return Ok(None) };
        let found = self.look(&sha256)?;
        if found.is_some() {
            self.touch(sha256);
        }
        Ok(found)
    }

    /// The same, which counts as no use.
    fn look(&self, sha256: &Sha256) -> Result<Option<Arc<Stored>>, StoreError> {
        let sha256 = *sha256;
        if let Some(found) = self.inner.open.lock().expect(LOCK).get(&sha256).cloned() {
            return Ok(Some(found));
        }
        let opened = match self.record(&sha256) {
            Ok(None) => return Ok(None),
            Ok(Some(record)) => {
                Stored::open(&self.inner.object_path(&sha256), sha256, &record).map_err(|e| e.to_string())
            }
            Err(StoreError::Record(e)) => Err(e),
            Err(e) => return Err(e),
        };
        match opened {
            Ok(stored) => {
                let stored = Arc::new(stored);
                self.inner.open.lock().expect(LOCK).put(sha256, stored.clone());
                if !self.inner.artifacts.contains_key(sha256.0)? {
                    // Taken out meanwhile: whoever looks next must not find it.
                    self.inner.open.lock().expect(LOCK).pop(&sha256);
                }
                Ok(Some(stored))
            }
            Err(e) => {
                log::warn!("artifact {sha256} is damaged and was taken out: {e}");
                if let Err(e) = self.remove(&sha256) {
                    // The caller fetches it all the same.
                    log::error!("artifact {sha256} could not be taken out: {e}");
                }
                Ok(None)
            }
        }
    }

    /// Our own name for a digest, if such an artifact is recorded.
    fn resolve(&self, digest: &Digest) -> Result<Option<Sha256>, StoreError> {
        if let Some(sha256) = digest.sha256() {
            return Ok(Some(sha256));
        }
        let found = self.inner.aliases.get(alias_key(digest))?;
        Ok(found.and_then(|v| v[..].try_into().ok()).map(Sha256))
    }

    fn record(&self, sha256: &Sha256) -> Result<Option<ArtifactRecord>, StoreError> {
        let Some(bytes) = self.inner.artifacts.get(sha256.0)? else { return Ok(None) };
        records::decode(&bytes).map(Some)
    }

    /// What was pinned for a name of an ecosystem.
    pub fn name(&self, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.inner.names.get(key)?.map(|v| v.to_vec()))
    }

    /// Pins a fact for a name, durably.
    pub fn set_name(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        self.writable()?;
        let mut batch = self.inner.db.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&self.inner.names, key, value);
        Ok(batch.commit()?)
    }

    /// Forgets every name that starts with `prefix`; gives how many there were.
    pub fn forget_names(&self, prefix: &str) -> Result<usize, StoreError> {
        self.inner.room_for_change()?;
        let mut batch = self.inner.db.batch().durability(Some(PersistMode::SyncData));
        for guard in self.inner.names.prefix(prefix) {
            batch.remove(&self.inner.names, guard.key()?);
        }
        let count = batch.len();
        batch.commit()?;
        Ok(count)
    }

    /// Whether the index takes writes. Once it has refused one it refuses all, until dpm starts again.
    pub fn check(&self) -> Result<(), StoreError> {
        Ok(self.inner.db.persist(PersistMode::Buffer)?)
    }

    /// Where everything is.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// Notes that an artifact was used now: eviction takes it later.
    pub fn touch(&self, sha256: Sha256) {
        let now = self.inner.options.clock.now();
        let mut touched = self.inner.touched.lock().expect(LOCK);
        // A full map means that nobody flushes: forgetting a touch costs an early eviction at worst.
        if touched.len() < TOUCHES || touched.contains_key(&sha256) {
            touched.insert(sha256, now);
        }
    }

    /// Writes the access times gathered since the last call. Whoever owns the store calls it every minute.
    pub fn flush_touches(&self) -> Result<(), StoreError> {
        if self.inner.room_for_change().is_err() {
            return Ok(());
        }
        let touched = std::mem::take(&mut *self.inner.touched.lock().expect(LOCK));
        if touched.is_empty() {
            return Ok(());
        }
        let mut batch = self.inner.db.batch();
        for (sha256, at) in touched {
            // An artifact evicted meanwhile leaves an access time: `scrub` takes it out.
            batch.insert(&self.inner.access, sha256.0, at.0.to_be_bytes());
        }
        Ok(batch.commit()?)
    }

    /// Makes everything durable. To be called before a clean exit.
    pub fn close(&self) -> Result<(), StoreError> {
        self.flush_touches()?;
        Ok(self.inner.db.persist(PersistMode::SyncData)?)
    }
}

impl Inner {
    /// Two levels, so that no folder gets more than a few thousand entries at a million artifacts.
    fn object_path(&self, sha256: &Sha256) -> PathBuf {
        let hex = sha256.hex();
        self.dir.join(OBJECTS).join(&hex[..2]).join(hex)
    }
}

fn alias_key(digest: &Digest) -> Vec<u8> {
    let mut key = digest.algorithm().name().as_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(digest.bytes());
    key
}

const OBJECTS: &str = "objects";
const INCOMING: &str = "incoming";
/// Nothing done under one of the store's locks can panic.
const LOCK: &str = "no panic happens under this lock";

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("could not {0} {1}: {2}")]
    Io(&'static str, PathBuf, #[source] std::io::Error),
    /// The index refused. After a failed write fjall accepts no more: restart dpm.
    #[error("the store's index failed, nothing is stored until dpm is started again: {0:?}")]
    Index(fjall::Error),
    /// A record cannot be read: `dpm verify` repairs it.
    #[error("a record of the store cannot be read; `dpm verify` repairs what it can: {0}")]
    Record(String),
    /// Another process has it open.
    #[error("another dpm has this data folder open; stop it first, or choose another with --data")]
    Locked,
    /// A later version wrote it.
    #[error(
        "the data folder {dir} has disk format {found}, this dpm reads up to {known}: use the newer dpm, or choose another folder with --data"
    )]
    Newer {
        /// The folder.
        dir: PathBuf,
        /// What it says of itself.
        found: u32,
        /// The newest this program knows.
        known: u32,
    },
    /// The format file is not ours.
    #[error("{0} is not a dpm data folder: its `format` file holds something else")]
    NotOurs(PathBuf),
    /// The disk is too full to store more; reading goes on.
    #[error("less than {margin} bytes are free on the disk of {dir}: the store stays as it is")]
    NoRoom {
        /// The folder.
        dir: PathBuf,
        /// The configured margin.
        margin: u64,
    },
}

impl From<fjall::Error> for StoreError {
    fn from(e: fjall::Error) -> Self {
        match e {
            fjall::Error::Locked => Self::Locked,
            e => Self::Index(e),
        }
    }
}
