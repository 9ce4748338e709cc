//! Scrubbing: every stored byte is read and hashed again, and what is damaged is named and taken out.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;

use crate::base::{Digest, Sha256};
use crate::unixfs::LayoutBuilder;

use super::commit::{block_key, layout_of};
use super::records::{ArtifactRecord, BlockRecord, decode, encode};
use super::stored::Stored;
use super::{LOCK, OBJECTS, Store, StoreError};

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Artifacts looked at.
    pub artifacts: u64,
    /// Their bytes, read and hashed.
    pub bytes: u64,
    /// Damaged ones, taken out: the next request fetches them again.
    pub damaged: Vec<Damage>,
    /// Files that no record named, removed.
    pub orphans: u64,
    /// Entries of the index that led nowhere or were missing, mended.
    pub mended: u64,
}

/// A damaged artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Its name in the store.
    pub sha256: Sha256,
    /// Its own file name.
    pub filename: String,
    /// What is wrong.
    pub what: String,
}

/// Bytes read at a time: large enough for a disk, small enough for a small box.
const STEP: usize = 256 << 10;

impl Store {
    /// Reads and hashes every artifact, takes out what is damaged, mends the index.
    ///
    /// `progress` is told artifacts and bytes done, out of the totals; it returns `false` to stop.
    pub fn scrub(&self, mut progress: impl FnMut(&Report) -> bool) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let mut buffer = vec![0; STEP];
        for guard in self.inner.artifacts.iter() {
            let (key, value) = guard.into_inner()?;
            let Ok(key) = key[..].try_into() else { continue };
            let sha256 = Sha256(key);
            report.artifacts += 1;
            match decode::<ArtifactRecord>(&value) {
                Err(e) => self.condemn(&mut report, sha256, String::new(), e.to_string())?,
                Ok(record) => match self.rehash(&sha256, &record, &mut buffer) {
                    Err(what) => self.condemn(&mut report, sha256, record.filename, what)?,
                    Ok(()) => {
                        report.bytes += record.size;
                        report.mended += self.mend(&sha256, &record)?;
                    }
                },
            }
            if !progress(&report) {
                return Ok(report);
            }
        }
        report.orphans = self.sweep()?;
        report.mended += self.prune()?;
        Ok(report)
    }

    fn condemn(
        &self,
        report: &mut Report,
        sha256: Sha256,
        filename: String,
        what: String,
    ) -> Result<(), StoreError> {
        // One that was removed or replaced since the scrub began is not damaged.
        if self.remove(&sha256)?.is_some() {
            log::error!("artifact {sha256} ({filename}) is damaged and was taken out: {what}");
            report.damaged.push(Damage { sha256, filename, what });
        }
        Ok(())
    }

    fn rehash(&self, sha256: &Sha256, record: &ArtifactRecord, buffer: &mut [u8]) -> Result<(), String> {
        let stored =
            Stored::open(&self.inner.object_path(sha256), *sha256, record).map_err(|e| e.to_string())?;
        let mut whole = crate::base::Hasher::new(crate::base::Algorithm::Sha256);
        let mut layout = LayoutBuilder::default();
        let mut at = 0;
        while at < record.size {
            let n = stored.read(buffer, at).map_err(|e| e.to_string())?;
            if n == 0 {
                return Err(format!("its file ends at byte {at} of {}", record.size));
            }
            whole.update(&buffer[..n]);
            layout.update(&buffer[..n]);
            at += n as u64;
        }
        let got = whole.finish();
        if got != sha256.digest() {
            return Err(format!("its bytes hash to {got}"));
        }
        if layout.finish() != layout_of(record, sha256) {
            return Err("its recorded layout is another file's".into());
        }
        Ok(())
    }

    /// Restores what leads to a healthy artifact. Gives how many entries were missing.
    fn mend(&self, sha256: &Sha256, record: &ArtifactRecord) -> Result<u64, StoreError> {
        let inner = &self.inner;
        let mut batch = inner.db.batch();
        let layout = layout_of(record, sha256);
        for (n, leaf) in layout.leaves.iter().enumerate() {
            let key = block_key(leaf, sha256);
            if !inner.blocks.contains_key(key)? {
                let (offset, length) = layout.span(n);
                batch.insert(&inner.blocks, key, encode(&BlockRecord::Range { offset, length }));
            }
        }
        for node in layout.tree().1 {
            let key = block_key(&Sha256::of(&node.bytes), sha256);
            if !inner.blocks.contains_key(key)? {
                batch.insert(&inner.blocks, key, encode(&BlockRecord::Node { bytes: node.bytes }));
            }
        }
        for digest in record.digests.iter().filter_map(|d| d.parse::<Digest>().ok()) {
            let key = super::alias_key(&digest);
            if !inner.aliases.contains_key(&key)? {
                batch.insert(&inner.aliases, key, sha256.0);
            }
        }
        if !inner.access.contains_key(sha256.0)? {
            batch.insert(&inner.access, sha256.0, record.stored_at.to_be_bytes());
        }
        let count = batch.len() as u64;
        batch.commit()?;
        Ok(count)
    }

    /// Removes files that no record names: what a crash between renaming and recording leaves.
    pub fn sweep(&self) -> Result<u64, StoreError> {
        let objects = self.inner.dir.join(OBJECTS);
        let io = |e| StoreError::Io("list", objects.clone(), e);
        let mut orphans = 0;
        for folder in std::fs::read_dir(&objects).map_err(io)? {
            let folder = folder.map_err(io)?.path();
            let Ok(files) = std::fs::read_dir(&folder) else { continue };
            for file in files.flatten() {
                let name = file.file_name();
                let digest = std::str::from_utf8(name.as_bytes())
                    .ok()
                    .and_then(|hex| Digest::parse(crate::base::Algorithm::Sha256, hex).ok())
                    .and_then(|d| d.sha256());
                let committing = self.inner.committing.lock().expect(LOCK);
                let known = match digest {
                    Some(d) => committing.contains(&d) || self.inner.artifacts.contains_key(d.0)?,
                    None => false,
                };
                if !known && std::fs::remove_file(file.path()).is_ok() {
                    orphans += 1;
                }
            }
        }
        Ok(orphans)
    }

    /// Takes out entries that lead to artifacts that are not there, and sets the totals right.
    fn prune(&self) -> Result<u64, StoreError> {
        let inner = &self.inner;
        // Held, so that nothing is committed between the two looks.
        let mut space = inner.space.lock().expect(LOCK);
        let mut batch = inner.db.batch();
        let mut present = HashSet::new();
        let mut counted = super::budget::Counted { bytes: 0, artifacts: 0, ..space.clone() };
        for guard in inner.artifacts.iter() {
            let (key, value) = guard.into_inner()?;
            counted = counted.plus(decode::<ArtifactRecord>(&value).map_or(0, |r| r.size));
            present.insert(key);
        }
        if (counted.bytes, counted.artifacts) != (space.bytes, space.artifacts) {
            counted.write(&mut batch);
        }
        for guard in inner.access.iter() {
            let key = guard.key()?;
            if !present.contains(&key) {
                batch.remove(&inner.access, key);
            }
        }
        for guard in inner.blocks.iter() {
            let key = guard.key()?;
            if key.len() != 64 || !present.contains(&key[32..]) {
                batch.remove(&inner.blocks, key);
            }
        }
        for guard in inner.aliases.iter() {
            let (key, value) = guard.into_inner()?;
            if !present.contains(&value[..]) {
                batch.remove(&inner.aliases, key);
            }
        }
        let count = batch.len() as u64;
        batch.commit()?;
        *space = counted;
        Ok(count)
    }
}
