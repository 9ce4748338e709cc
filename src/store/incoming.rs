//! An artifact on its way in: a file that nobody sees until it is committed.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::early::EARLY_BYTES;
use super::{INCOMING, Inner, LOCK, Store, StoreError};

/// A file being written. Dropped without a commit, it is gone.
pub struct Incoming {
    inner: Arc<Inner>,
    file: File,
    path: PathBuf,
    committed: bool,
    /// Bytes announced and not written yet.
    owed: AtomicU64,
    /// Bytes written since the disk was looked at.
    unseen: AtomicU64,
    /// Bytes written since they were last to be written back.
    unsynced: AtomicU64,
    /// Bytes written.
    written: AtomicU64,
}

/// Bytes written between two looks at the disk: many downloads of unknown size, and other programs, fill it too.
const LOOK_BYTES: u64 = 1 << 20;

impl Store {
    /// Room for an artifact of `size` bytes, if known.
    ///
    /// Errors: [`StoreError::NoRoom`] when the disk would get too full: pass the bytes through instead.
    pub fn begin(&self, size: Option<u64>) -> Result<Incoming, StoreError> {
        let inner = &self.inner;
        let owed = size.unwrap_or(0);
        self.room_for(owed)?;
        let n = inner.tmp_counter.fetch_add(1, Ordering::Relaxed);
        let path = inner.dir.join(INCOMING).join(format!("{}-{n}", std::process::id()));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|e| StoreError::Io("create", path.clone(), e))?;
        inner.promised.fetch_add(owed, Ordering::Relaxed);
        Ok(Incoming {
            inner: inner.clone(),
            file,
            path,
            committed: false,
            owed: AtomicU64::new(owed),
            unseen: AtomicU64::new(0),
            unsynced: AtomicU64::new(0),
            written: AtomicU64::new(0),
        })
    }
}

impl Incoming {
    /// Says the size of an artifact that was begun without one.
    ///
    /// Errors: [`StoreError::NoRoom`] when there is no room for it.
    pub fn announce(&self, size: u64) -> Result<(), StoreError> {
        Store { inner: self.inner.clone() }.room_for(size)?;
        self.owed.fetch_add(size, Ordering::Relaxed);
        self.inner.promised.fetch_add(size, Ordering::Relaxed);
        Ok(())
    }

    /// Writes all of `bytes` at `offset`.
    ///
    /// Errors: `StorageFull` when the disk is, or has come under its margin.
    pub fn write(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
        let length = bytes.len() as u64;
        self.pay(length);
        let written = self.written.fetch_add(length, Ordering::Relaxed) + length;
        if self.unseen.fetch_add(length, Ordering::Relaxed) + length >= LOOK_BYTES {
            self.unseen.store(0, Ordering::Relaxed);
            self.inner
                .room_on_disk(0)
                .and_then(|()| self.inner.within_budget(written))
                .map_err(|e| std::io::Error::new(std::io::ErrorKind::StorageFull, e))?;
        }
        self.file.write_all_at(bytes, offset)?;
        if self.unsynced.fetch_add(length, Ordering::Relaxed) + length >= EARLY_BYTES {
            self.unsynced.store(0, Ordering::Relaxed);
            self.inner.early.write_back(&self.path);
        }
        Ok(())
    }

    /// Takes up to `length` bytes off what the disk still owes.
    fn pay(&self, length: u64) {
        let pay = |owed: u64| Some(owed.saturating_sub(length));
        let owed = self.owed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, pay).unwrap_or_default();
        self.inner.promised.fetch_sub(owed.min(length), Ordering::Relaxed);
    }

    /// Reads what was written, filling `buffer` as far as there is something.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    /// A second handle to the same file, valid after the commit and after a removal too.
    pub fn reader(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }

    /// Makes the first `size` bytes durable and moves the file to where it is looked for.
    pub(super) fn publish(mut self, to: &Path, size: u64) -> std::io::Result<File> {
        // Whoever wrote beyond the end was not right.
        self.file.set_len(size)?;
        self.file.sync_data()?;
        let folder = to.parent().expect("an object has a folder");
        if !folder.is_dir() {
            std::fs::create_dir_all(folder)?;
            if let Some(above) = folder.parent() {
                File::open(above)?.sync_all()?;
            }
        }
        std::fs::rename(&self.path, to)?;
        self.committed = true;
        File::open(folder)?.sync_all()?;
        self.file.try_clone()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.pay(u64::MAX);
        if !self.committed {
            // Gone already is as good.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Inner {
    /// Takes away what an earlier run left half-written. The database's lock keeps other processes out.
    pub(super) fn clear_incoming(&self) {
        let _held = self.open.lock().expect(LOCK);
        let Ok(entries) = std::fs::read_dir(self.dir.join(INCOMING)) else { return };
        for entry in entries.flatten() {
            if let Err(e) = std::fs::remove_file(entry.path()) {
                log::warn!("a half-written file could not be removed: {}: {e}", entry.path().display());
            }
        }
    }
}
