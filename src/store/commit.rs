//! Committing and removing an artifact: one batch of the index each.

use std::sync::Arc;

use fjall::PersistMode;

use crate::base::{Access, Artifact, Digest, Sha256};
use crate::unixfs::{Layout, LayoutBuilder};

use super::records::{ArtifactRecord, BlockRecord, decode, encode};
use super::{Change, Incoming, LOCK, Store, StoreError, Stored, alias_key};

/// What is known of an artifact when it is committed. The caller has verified all of it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Of the whole.
    pub sha256: Sha256,
    /// Other digests of the whole.
    pub digests: Vec<Digest>,
    /// How it is cut into blocks.
    pub layout: Layout,
    /// Who may have it.
    pub access: Access,
    /// Name of the upstream.
    pub upstream: String,
    /// Where it was fetched, without query and userinfo.
    pub url: String,
    /// Its own name.
    pub filename: String,
    /// A name to pin to this artifact in the same batch: a first use without a digest.
    pub pin_name: Option<String>,
}

impl Facts {
    /// Of bytes at hand, as those of this artifact. Whoever promised it a digest has them held against it before.
    pub fn of(bytes: &[u8], artifact: &Artifact) -> Self {
        let mut layout = LayoutBuilder::default();
        layout.update(bytes);
        Self {
            sha256: Sha256::of(bytes),
            digests: artifact.digest.into_iter().filter(Digest::is_strong).collect(),
            layout: layout.finish(),
            access: artifact.access,
            upstream: artifact.upstream.clone(),
            url: artifact.plain_url(),
            filename: artifact.filename.clone(),
            pin_name: None,
        }
    }
}

impl Store {
    /// Commits bytes at hand.
    pub fn put(&self, bytes: &[u8], facts: Facts) -> Result<Arc<Stored>, StoreError> {
        let incoming = self.begin(Some(bytes.len() as u64))?;
        incoming.write(bytes, 0).map_err(|e| StoreError::Io("write to", self.dir().to_owned(), e))?;
        self.commit(incoming, facts)
    }

    /// Makes an artifact visible, atomically and durably: its bytes first, then its record with its aliases and
    /// block positions in one batch.
    ///
    /// Committing what is stored already is allowed and keeps its pin.
    pub fn commit(&self, incoming: Incoming, facts: Facts) -> Result<Arc<Stored>, StoreError> {
        let inner = &self.inner;
        let (root, nodes) = facts.layout.tree();
        let others = facts.digests.iter().filter(|d| d.sha256().is_none());
        let mut record = ArtifactRecord {
            size: facts.layout.size,
            stored_at: inner.options.clock.now().0,
            digests: others.clone().map(Digest::to_string).collect(),
            private: facts.access == Access::Private,
            pinned: false,
            upstream: facts.upstream,
            filename: facts.filename,
            leaves: Vec::new(),
            root: root.to_bytes(),
            url: facts.url,
        };
        if facts.layout.leaves.len() > 1 {
            record.leaves = facts.layout.leaves.iter().flat_map(|l| l.0).collect();
        }

        let _committing = Committing::begin(self, facts.sha256);
        let path = inner.object_path(&facts.sha256);
        let file = incoming
            .publish(&path, facts.layout.size)
            .map_err(|e| StoreError::Io("store", path.clone(), e))?;

        let mut space = inner.space.lock().expect(LOCK);
        let before = inner.artifacts.get(facts.sha256.0)?;
        // One that cannot be read is replaced like any other.
        if let Some(before) = before.as_deref().and_then(|b| decode::<ArtifactRecord>(b).ok()) {
            record.pinned = before.pinned;
            // Public once is public: the bytes can be had by anybody.
            record.private &= before.private;
            let (known, all) = (before.digests, &mut record.digests);
            all.extend(known.into_iter().filter(|d| !facts.digests.iter().any(|f| f.to_string() == *d)));
        }
        let mut batch = inner.db.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&inner.artifacts, facts.sha256.0, encode(&record));
        batch.insert(&inner.access, facts.sha256.0, record.stored_at.to_be_bytes());
        for digest in others {
            batch.insert(&inner.aliases, alias_key(digest), facts.sha256.0);
        }
        for (n, leaf) in facts.layout.leaves.iter().enumerate() {
            let (offset, length) = facts.layout.span(n);
            let at = BlockRecord::Range { offset, length };
            batch.insert(&inner.blocks, block_key(leaf, &facts.sha256), encode(&at));
        }
        for node in nodes {
            let hash = Sha256::of(&node.bytes);
            let here = BlockRecord::Node { bytes: node.bytes };
            batch.insert(&inner.blocks, block_key(&hash, &facts.sha256), encode(&here));
        }
        if let Some(name) = &facts.pin_name {
            batch.insert(&inner.names, name, facts.sha256.digest().to_string());
        }
        let counted = match before {
            Some(_) => space.clone(),
            None => space.plus(record.size),
        };
        counted.write(&mut batch);
        if let Err(e) = batch.commit() {
            if before.is_none() {
                // Nothing names it, and the disk may be full. What stays is an orphan.
                let _ = std::fs::remove_file(&path);
            }
            return Err(e.into());
        }
        *space = counted;
        drop(space);

        let stored = Arc::new(Stored::new(file, facts.sha256, &record));
        inner.open.lock().expect(LOCK).put(facts.sha256, stored.clone());
        if stored.access == Access::Public {
            self.tell(Change::Added(facts.sha256));
        }
        Ok(stored)
    }

    /// Takes an artifact out. Readers that have it open go on; its space is free when the last one closes.
    ///
    /// Gives its size in bytes, or `None` when it was not there.
    pub fn remove(&self, sha256: &Sha256) -> Result<Option<u64>, StoreError> {
        self.take_out(sha256, PersistMode::SyncData)
    }

    pub(super) fn take_out(&self, sha256: &Sha256, mode: PersistMode) -> Result<Option<u64>, StoreError> {
        let inner = &self.inner;
        let committing = inner.committing.lock().expect(LOCK);
        if committing.contains(sha256) {
            return Ok(None);
        }
        let mut space = inner.space.lock().expect(LOCK);
        let Some(bytes) = inner.artifacts.get(sha256.0)? else { return Ok(None) };
        let mut batch = inner.db.batch().durability(Some(mode));
        batch.remove(&inner.artifacts, sha256.0);
        batch.remove(&inner.access, sha256.0);
        let path = inner.object_path(sha256);
        if inner.room_for_change().is_err() {
            // Others have filled the disk. The file goes first, so that the index gets room; a record without a file
            // is as good as none.
            inner.open.lock().expect(LOCK).pop(sha256);
            let _ = std::fs::remove_file(&path);
            inner.room_for_change()?;
        }
        // What is private is nobody's business, its end included; one that cannot be read may be either.
        let mut public = false;
        let size = match decode::<ArtifactRecord>(&bytes) {
            Ok(record) => {
                public = !record.private;
                for digest in record.digests.iter().filter_map(|d| d.parse::<Digest>().ok()) {
                    batch.remove(&inner.aliases, alias_key(&digest));
                }
                let layout = layout_of(&record, sha256);
                for leaf in &layout.leaves {
                    batch.remove(&inner.blocks, block_key(leaf, sha256));
                }
                for node in layout.tree().1 {
                    batch.remove(&inner.blocks, block_key(&Sha256::of(&node.bytes), sha256));
                }
                record.size
            }
            // The record itself is damaged: what it led to is left to `scrub`, and its file tells its size.
            Err(_) => std::fs::metadata(&path).map_or(0, |m| m.len()),
        };
        let counted = space.minus(size);
        counted.write(&mut batch);
        batch.commit()?;
        *space = counted;
        inner.open.lock().expect(LOCK).pop(sha256);
        inner.touched.lock().expect(LOCK).remove(sha256);
        if public {
            self.tell(Change::Removed(*sha256));
        }
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::Io("remove", path, e)),
            _ => Ok(Some(size)),
        }
    }

    /// Pins an artifact, so that eviction passes it by, or lets it go. `false` when it is not stored.
    pub fn pin(&self, sha256: &Sha256, pinned: bool) -> Result<bool, StoreError> {
        let _space = self.inner.space.lock().expect(LOCK);
        let Some(mut record) = self.record(sha256)? else { return Ok(false) };
        record.pinned = pinned;
        let mut batch = self.inner.db.batch().durability(Some(PersistMode::SyncData));
        batch.insert(&self.inner.artifacts, sha256.0, encode(&record));
        batch.commit()?;
        Ok(true)
    }
}

/// Marks an artifact as being committed, so that nobody takes its new file for an orphan.
struct Committing<'a>(&'a Store, Sha256);

impl<'a> Committing<'a> {
    fn begin(store: &'a Store, sha256: Sha256) -> Self {
        store.inner.committing.lock().expect(LOCK).push(sha256);
        Self(store, sha256)
    }
}

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        let mut all = self.0.inner.committing.lock().expect(LOCK);
        if let Some(at) = all.iter().position(|s| *s == self.1) {
            all.swap_remove(at);
        }
    }
}

pub(super) fn layout_of(record: &ArtifactRecord, sha256: &Sha256) -> Layout {
    let leaves: Vec<_> =
        record.leaves.chunks_exact(32).map(|leaf| Sha256(leaf.try_into().expect("chunks of 32"))).collect();
    Layout { size: record.size, leaves: if leaves.is_empty() { vec![*sha256] } else { leaves } }
}

pub(super) fn block_key(block: &Sha256, artifact: &Sha256) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(&block.0);
    key[32..].copy_from_slice(&artifact.0);
    key
}
