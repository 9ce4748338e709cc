//! How much may be stored, and what goes when it is too much.

use std::sync::atomic::Ordering;

use fjall::{Keyspace, OwnedWriteBatch, PersistMode};

use crate::base::Sha256;

use super::{Inner, LOCK, Store, StoreError};

/// Most bytes of artifacts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// A share of the disk that the store is on, in percent.
    Share(u8),
    /// As many bytes.
    Bytes(u64),
}

/// What is used and what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes of all stored artifacts.
    pub artifact_bytes: u64,
    /// How many there are.
    pub artifacts: u64,
    /// Bytes of the index on disk.
    pub index_bytes: u64,
    /// Most bytes of artifacts.
    pub budget_bytes: u64,
    /// Bytes free on the disk.
    pub free_bytes: u64,
    /// Bytes that stay free.
    pub margin_bytes: u64,
}

/// What an eviction took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Artifacts.
    pub artifacts: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Evict down to this many percent of the budget, so that not every commit has to evict.
const LOW_WATER_PERCENT: u64 = 95;

/// Least margin of free disk, whatever is configured. Below it fjall can meet a full disk while it flushes and
/// compacts in the background, and then refuses every write until it is opened again.
///
/// Measured on a tmpfs of 160 MiB filled with pages and artifacts, thousands of writes after the first refusal: with
/// 0, 1 and 4 MB the index failed each time, with 16 MB it never did and took up to 4 MB of the margin. Four times
/// that, for larger indexes have larger compactions.
pub(super) const LEAST_MARGIN_BYTES: u64 = 64 << 20;

/// Free bytes for a small change of the index: a few journal pages, or the flush of the memtable that it fills.
const CHANGE_BYTES: u64 = super::MEMTABLE_BYTES;

/// The running totals, kept in the index with every change, so that a start need not scan.
#[derive(Clone)]
pub(super) struct Counted {
    pub(super) meta: Keyspace,
    pub(super) bytes: u64,
    pub(super) artifacts: u64,
}

const TOTALS: &str = "totals";

impl Counted {
    pub(super) fn load(meta: Keyspace) -> Result<Self, StoreError> {
        let stored = meta.get(TOTALS)?;
        let (bytes, artifacts) = match stored {
            Some(v) => super::records::decode(&v)?,
            None => (0, 0),
        };
        Ok(Self { meta, bytes, artifacts })
    }

    pub(super) fn plus(&self, size: u64) -> Self {
        Self { bytes: self.bytes + size, artifacts: self.artifacts + 1, ..self.clone() }
    }

    pub(super) fn minus(&self, size: u64) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(size),
            artifacts: self.artifacts.saturating_sub(1),
            ..self.clone()
        }
    }

    pub(super) fn write(&self, batch: &mut OwnedWriteBatch) {
        batch.insert(&self.meta, TOTALS, super::records::encode(&(self.bytes, self.artifacts)));
    }
}

/// A disk's size.
struct Disk {
    all_bytes: u64,
    free_bytes: u64,
}

impl Inner {
    /// One system call, a microsecond.
    fn disk(&self) -> Result<Disk, StoreError> {
        let disk = rustix::fs::statvfs(&self.dir)
            .map_err(|e| StoreError::Io("look at the disk of", self.dir.clone(), e.into()))?;
        Ok(Disk { all_bytes: disk.f_blocks * disk.f_frsize, free_bytes: disk.f_bavail * disk.f_frsize })
    }

    /// The configured margin, and never less than the index needs.
    fn margin_bytes(&self) -> u64 {
        self.options.free_margin_bytes.max(LEAST_MARGIN_BYTES)
    }

    /// Whether a change of some hundred bytes is safe, such as one that frees space.
    pub(super) fn room_for_change(&self) -> Result<(), StoreError> {
        match self.disk()?.free_bytes >= CHANGE_BYTES {
            true => Ok(()),
            false => Err(StoreError::NoRoom { dir: self.dir.clone(), margin: CHANGE_BYTES }),
        }
    }

    /// Whether the disk has `size` bytes beyond the margin and beyond what was promised to others.
    pub(super) fn room_on_disk(&self, size: u64) -> Result<(), StoreError> {
        let taken = self.promised.load(Ordering::Relaxed).saturating_add(self.margin_bytes());
        match self.disk()?.free_bytes >= taken.saturating_add(size) {
            true => Ok(()),
            false => Err(self.no_room()),
        }
    }

    /// Refuses an artifact that alone is more than the budget.
    pub(super) fn within_budget(&self, size: u64) -> Result<(), StoreError> {
        match size <= self.budget_bytes(&self.disk()?) {
            true => Ok(()),
            false => Err(self.no_room()),
        }
    }

    fn budget_bytes(&self, disk: &Disk) -> u64 {
        match self.options.budget {
            Budget::Bytes(bytes) => bytes,
            Budget::Share(percent) => disk.all_bytes / 100 * u64::from(percent),
        }
    }

    fn no_room(&self) -> StoreError {
        StoreError::NoRoom { dir: self.dir.clone(), margin: self.margin_bytes() }
    }
}

impl Store {
    /// What is used and what is left.
    pub fn space(&self) -> Result<Space, StoreError> {
        let disk = self.inner.disk()?;
        let index_bytes = self.inner.db.disk_space()?;
        let counted = self.inner.space.lock().expect(LOCK);
        Ok(Space {
            artifact_bytes: counted.bytes,
            artifacts: counted.artifacts,
            index_bytes,
            budget_bytes: self.inner.budget_bytes(&disk),
            free_bytes: disk.free_bytes,
            margin_bytes: self.inner.margin_bytes(),
        })
    }

    /// Whether anything may be written at all: fjall must never see a full disk, which would poison it.
    pub(super) fn writable(&self) -> Result<(), StoreError> {
        self.inner.room_on_disk(0)
    }

    /// Makes room for `size` bytes within the budget, and sees that the disk has them beyond the margin.
    pub(super) fn room_for(&self, size: u64) -> Result<(), StoreError> {
        let budget_bytes = self.inner.budget_bytes(&self.inner.disk()?);
        let over = |size| self.inner.space.lock().expect(LOCK).bytes.saturating_add(size) > budget_bytes;
        if size > budget_bytes {
            return Err(self.inner.no_room());
        }
        if over(size) {
            self.evict_to((budget_bytes / 100 * LOW_WATER_PERCENT).saturating_sub(size))?;
            // What is pinned stays, whatever comes.
            if over(size) {
                return Err(self.inner.no_room());
            }
        }
        self.inner.room_on_disk(size)
    }

    /// Evicts what goes beyond the budget.
    pub fn evict(&self) -> Result<Freed, StoreError> {
        let space = self.space()?;
        match space.artifact_bytes > space.budget_bytes {
            true => self.evict_to(space.budget_bytes / 100 * LOW_WATER_PERCENT),
            false => Ok(Freed::default()),
        }
    }

    /// Evicts the least recently used artifacts that are not pinned, until at most `target` bytes are left.
    pub fn evict_to(&self, target: u64) -> Result<Freed, StoreError> {
        self.flush_touches()?;
        let mut oldest = Vec::new();
        for guard in self.inner.access.iter() {
            let (key, at) = guard.into_inner()?;
            if let (Ok(key), Ok(at)) = (key[..].try_into(), at[..].try_into()) {
                oldest.push((u64::from_be_bytes(at), Sha256(key)));
            }
        }
        oldest.sort_unstable_by_key(|(at, _)| *at);
        let mut freed = Freed::default();
        for (_, sha256) in oldest {
            if self.inner.space.lock().expect(LOCK).bytes <= target {
                break;
            }
            // One whose record cannot be read goes like any other.
            if self.record(&sha256).is_ok_and(|r| r.is_some_and(|r| r.pinned)) {
                continue;
            }
            match self.take_out(&sha256, PersistMode::Buffer) {
                Ok(Some(size)) => {
                    freed.artifacts += 1;
                    freed.bytes += size;
                }
                // Its file has gone, which makes room for the next ones.
                Ok(None) | Err(StoreError::NoRoom { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        log::info!("evicted {} artifacts, {} bytes", freed.artifacts, freed.bytes);
        Ok(freed)
    }
}
