//! Catalogues of rooms' members: their blocks, and which file stands in whose.
//!
//! Kept apart from artifacts: no budget evicts them. Whoever puts them here bounds them.

use std::collections::HashMap;

use bytes::Bytes;

use crate::base::{PeerId, Sha256};

use super::{Store, StoreError};

/// Writes of one batch of the index.
const BATCH: usize = 4096;

/// Bytes of a room's key.
const ROOM_BYTES: usize = 8;

/// Listings of one file that are looked at: twice as many as a room has nodes. Those of people who are no longer there are
/// among them, so that a small number would be used up by them.
const SAME_FILE: usize = 8192;

/// A room, for short: the first bytes of the SHA-256 of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RoomKey([u8; ROOM_BYTES]);

impl RoomKey {
    /// Of a room with this id.
    pub fn of(room: &str) -> Self {
        let hash = Sha256::of(room.as_bytes()).0;
        Self(hash[..ROOM_BYTES].try_into().expect("a hash is longer"))
    }
}

/// A member lists a file in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listing {
    /// The file.
    pub sha256: Sha256,
    /// Where.
    pub room: RoomKey,
    /// Who.
    pub peer: PeerId,
}

impl Listing {
    fn key(&self) -> Vec<u8> {
        [&self.sha256.0[..], &self.room.0, &self.peer.to_bytes()].concat()
    }

    fn of_key(key: &[u8]) -> Option<Self> {
        let (sha256, rest) = key.split_at_checked(32)?;
        let (room, peer) = rest.split_at_checked(ROOM_BYTES)?;
        Some(Self {
            sha256: Sha256(sha256.try_into().ok()?),
            room: RoomKey(room.try_into().ok()?),
            peer: PeerId::from_bytes(peer).ok()?,
        })
    }
}

impl Store {
    /// A block of a catalogue.
    pub fn catalogue_block(&self, hash: &Sha256) -> Result<Option<Bytes>, StoreError> {
        Ok(self.inner.catalogues.get(hash.0)?.map(|block| Bytes::copy_from_slice(&block)))
    }

    /// Keeps blocks of catalogues, named by their hashes, which the caller has checked.
    pub fn put_catalogue_blocks(&self, blocks: &[(Sha256, Bytes)]) -> Result<(), StoreError> {
        self.writable()?;
        for some in blocks.chunks(BATCH) {
            let mut batch = self.inner.db.batch();
            some.iter().for_each(|(hash, block)| batch.insert(&self.inner.catalogues, hash.0, &block[..]));
            batch.commit()?;
        }
        Ok(())
    }

    /// Forgets the blocks of catalogues that are not to be kept; gives how many were kept, and their bytes.
    pub fn retain_catalogue_blocks(
        &self,
        keep: impl Fn(&Sha256) -> bool,
    ) -> Result<(usize, u64), StoreError> {
        self.inner.room_for_change()?;
        let (mut kept, mut bytes) = (0, 0);
        let mut batch = self.inner.db.batch();
        for guard in self.inner.catalogues.iter() {
            let (key, value) = guard.into_inner()?;
            match key[..].try_into().ok().map(Sha256).filter(&keep) {
                Some(_) => (kept, bytes) = (kept + 1, bytes + value.len() as u64),
                None => batch.remove(&self.inner.catalogues, key),
            }
            if batch.len() >= BATCH {
                std::mem::replace(&mut batch, self.inner.db.batch()).commit()?;
            }
        }
        batch.commit()?;
        Ok((kept, bytes))
    }

    /// Counts in whose catalogues a file stands, once for each entry: `changes` says how many more or fewer. With
    /// them a fact is noted under a name, in one batch.
    pub fn list_files(
        &self,
        changes: HashMap<Listing, i64>,
        fact: Option<(&str, &[u8])>,
    ) -> Result<(), StoreError> {
        self.writable()?;
        let mut batch = self.inner.db.batch();
        for (listing, change) in changes {
            let key = listing.key();
            let before = self.inner.listings.get(&key)?;
            let before = before.and_then(|v| v[..].try_into().ok()).map_or(0, i64::from_be_bytes);
            match before.saturating_add(change) {
                1.. if change == 0 => {}
                count @ 1.. => batch.insert(&self.inner.listings, key, count.to_be_bytes()),
                _ => batch.remove(&self.inner.listings, key),
            }
        }
        if let Some((name, value)) = fact {
            batch.insert(&self.inner.names, name, value);
        }
        Ok(batch.commit()?)
    }

    /// In whose catalogues a file stands.
    pub fn listings(&self, sha256: &Sha256) -> Result<Vec<Listing>, StoreError> {
        let mut found = Vec::new();
        for guard in self.inner.listings.prefix(sha256.0).take(SAME_FILE) {
            found.extend(Listing::of_key(&guard.key()?));
        }
        Ok(found)
    }

    /// Whether a file stands in one catalogue.
    pub fn is_listed(&self, listing: &Listing) -> Result<bool, StoreError> {
        Ok(self.inner.listings.contains_key(listing.key())?)
    }

    /// Forgets listings that are not to be kept.
    pub fn retain_listings(&self, keep: impl Fn(&Listing) -> bool) -> Result<(), StoreError> {
        self.inner.room_for_change()?;
        let mut batch = self.inner.db.batch();
        for guard in self.inner.listings.iter() {
            let key = guard.key()?;
            if !Listing::of_key(&key).is_some_and(|listing| keep(&listing)) {
                batch.remove(&self.inner.listings, key);
            }
            if batch.len() >= BATCH {
                std::mem::replace(&mut batch, self.inner.db.batch()).commit()?;
            }
        }
        Ok(batch.commit()?)
    }

    /// Notes a fact under a name. It survives the end of the process; a power cut may take the last ones.
    pub fn note(&self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.writable()?;
        Ok(self.inner.names.insert(name, value)?)
    }

    /// Every name with its value that starts with `prefix`, `most` of them at most.
    pub fn names(&self, prefix: &str, most: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let mut found = Vec::new();
        for guard in self.inner.names.prefix(prefix).take(most) {
            let (key, value) = guard.into_inner()?;
            found.push((String::from_utf8_lossy(&key).into_owned(), value.to_vec()));
        }
        Ok(found)
    }
}
