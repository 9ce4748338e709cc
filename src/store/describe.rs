//! What the store knows of an artifact, for people.

use crate::base::{Cid, Digest, Sha256};
use crate::rt::UnixMillis;

use super::{Store, StoreError};

/// Everything recorded of an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Its name in the store.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// Other strong digests of it.
    pub digests: Vec<Digest>,
    /// Its own file name.
    pub filename: String,
    /// Name of the upstream it came from.
    pub upstream: String,
    /// Where it was fetched.
    pub url: String,
    /// When it was committed.
    pub stored_at: UnixMillis,
    /// When it was last used, as far as that has been written.
    pub used_at: Option<UnixMillis>,
    /// Root of its `unixfs-v1-2025` layout.
    pub root: Option<Cid>,
    /// Whether eviction passes it by.
    pub pinned: bool,
    /// Whether it is kept from peers.
    pub private: bool,
}

impl Store {
    /// Everything recorded of the artifact with this digest.
    pub fn describe(&self, digest: &Digest) -> Result<Option<Description>, StoreError> {
        let Some(sha256) = self.resolve(digest)? else { return Ok(None) };
        let Some(record) = self.record(&sha256)? else { return Ok(None) };
        let used_at = self.inner.access.get(sha256.0)?;
        Ok(Some(Description {
            sha256,
            size: record.size,
            digests: record.digests.iter().filter_map(|d| d.parse().ok()).collect(),
            filename: record.filename,
            upstream: record.upstream,
            url: record.url,
            stored_at: UnixMillis(record.stored_at),
            used_at: used_at.and_then(|v| v[..].try_into().ok()).map(|v| UnixMillis(u64::from_be_bytes(v))),
            root: Cid::try_from(&record.root[..]).ok(),
            pinned: record.pinned,
            private: record.private,
        }))
    }

    /// The SHA-256 of every artifact, `most` of them at most.
    pub fn artifacts(&self, most: usize) -> Result<Vec<Sha256>, StoreError> {
        let mut found = Vec::new();
        for guard in self.inner.artifacts.iter().take(most) {
            found.extend(guard.key()?[..].try_into().ok().map(Sha256));
        }
        Ok(found)
    }

    /// The artifact that the block with this CID belongs to; the artifact's own root counts.
    pub fn artifact_of_block(&self, block: &Sha256) -> Result<Option<Sha256>, StoreError> {
        let Some(guard) = self.inner.blocks.prefix(block.0).next() else { return Ok(None) };
        let key = guard.key()?;
        Ok(key.get(32..).and_then(|v| v.try_into().ok()).map(Sha256))
    }
}
