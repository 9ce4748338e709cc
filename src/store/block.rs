//! Blocks: an artifact seen as the pieces of its layout.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::{Access, Cid, Digest, Sha256, sha256_of_cid};

use super::records::{BlockRecord, decode};
use super::{Store, StoreError, Stored};

/// Largest block that bitswap moves: 2 MiB (Bitswap 1.2 specification, "Block sizes").
pub const MOST_BLOCK_BYTES: u64 = 2 << 20;

/// Artifacts with the same block that are looked at before it counts as private: each may be.
const SAME_BLOCK: usize = 16;

/// A block that is stored here.
#[derive(Clone, Debug)]
pub enum Block {
    /// A range of an artifact's file.
    Range {
        /// The artifact.
        stored: Arc<Stored>,
        /// Bytes from its start.
        offset: u64,
        /// Bytes.
        length: u64,
    },
    /// A dag-pb node of this artifact's layout.
    Node {
        /// dag-pb.
        bytes: Vec<u8>,
        /// The artifact.
        artifact: Sha256,
        /// Who may have it.
        access: Access,
    },
    /// A node of the catalogue of a room's member, this one's or another's.
    Catalogue {
        /// dag-cbor.
        bytes: Bytes,
    },
}

impl Block {
    /// Bytes.
    pub fn length(&self) -> u64 {
        match self {
            Self::Range { length, .. } => *length,
            Self::Node { bytes, .. } => bytes.len() as u64,
            Self::Catalogue { bytes } => bytes.len() as u64,
        }
    }

    /// Who may have it.
    pub fn access(&self) -> Access {
        match self {
            Self::Range { stored, .. } => stored.access,
            Self::Node { access, .. } => *access,
            Self::Catalogue { .. } => Access::Public,
        }
    }

    /// The artifact that it is part of; none where it is a catalogue's.
    pub fn artifact(&self) -> Option<Sha256> {
        match self {
            Self::Range { stored, .. } => Some(stored.sha256),
            Self::Node { artifact, .. } => Some(*artifact),
            Self::Catalogue { .. } => None,
        }
    }

    /// Its bytes, waiting for the disk. They are not verified again: `dpm verify` does that, and whoever asked will.
    pub fn read(&self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Range { stored, offset, length } => {
                let mut bytes = vec![0; usize::try_from(*length).expect("a block fits in memory")];
                let got = stored.read(&mut bytes, *offset)?;
                match got == bytes.len() {
                    true => Ok(bytes),
                    false => Err(std::io::ErrorKind::UnexpectedEof.into()),
                }
            }
            Self::Node { bytes, .. } => Ok(bytes.clone()),
            Self::Catalogue { bytes } => Ok(bytes.to_vec()),
        }
    }
}

impl Store {
    /// The block with this CID, if it is stored: a leaf or a node of a layout, a whole artifact of at most
    /// [`MOST_BLOCK_BYTES`] by its own SHA-256, or a node of a catalogue. The codec is not looked at: a block is named by
    /// its hash.
    ///
    /// To look is no use: whoever gives it to somebody says so ([`Store::touch`]).
    ///
    /// One that belongs to a public artifact is given before one of a private artifact. `None` also for hashes other
    /// than SHA-256.
    pub fn block(&self, cid: &Cid) -> Result<Option<Block>, StoreError> {
        self.block_that(cid, |_| true)
    }

    /// The same, of those that `may` be had: several artifacts may have the same block.
    pub fn block_that(&self, cid: &Cid, may: impl Fn(&Block) -> bool) -> Result<Option<Block>, StoreError> {
        let Some(hash) = sha256_of_cid(cid) else { return Ok(None) };
        let mut private = None;
        for guard in self.inner.blocks.prefix(hash.0).take(SAME_BLOCK) {
            let (key, value) = guard.into_inner()?;
            let Some(artifact) = key.get(32..).and_then(|v| v.try_into().ok()).map(Sha256) else { continue };
            let block = match decode::<BlockRecord>(&value)? {
                BlockRecord::Range { offset, length } => {
                    let Some(stored) = self.look(&artifact)? else { continue };
                    Block::Range { stored, offset, length }
                }
                BlockRecord::Node { bytes } => {
                    let Some(record) = self.record(&artifact)? else { continue };
                    let access = if record.private { Access::Private } else { Access::Public };
                    Block::Node { bytes, artifact, access }
                }
            };
            if !may(&block) {
                continue;
            }
            match block.access() {
                Access::Public => return Ok(Some(block)),
                Access::Private => private = private.or(Some(block)),
            }
        }
        if private.is_some() {
            return Ok(private);
        }
        if let Some(stored) = self.look(&hash)?.filter(|s| s.size <= MOST_BLOCK_BYTES) {
            let length = stored.size;
            return Ok(Some(Block::Range { stored, offset: 0, length }).filter(may));
        }
        let bytes = self.catalogue_block(&hash)?;
        Ok(bytes.map(|bytes| Block::Catalogue { bytes }).filter(may))
    }

    /// The artifact with this digest, if it is stored. Strangers ask for it: that alone is no use of it, which would keep
    /// it from eviction for ever.
    pub fn find(&self, digest: &Digest) -> Result<Option<Arc<Stored>>, StoreError> {
        match self.resolve(digest)? {
            Some(sha256) => self.look(&sha256),
            None => Ok(None),
        }
    }

    /// The SHA-256 of every artifact that anybody may have, `most` of them at most.
    pub fn public_artifacts(&self, most: usize) -> Result<Vec<Sha256>, StoreError> {
        let mut found = Vec::new();
        for guard in self.inner.artifacts.iter() {
            if found.len() >= most {
                break;
            }
            let (key, value) = guard.into_inner()?;
            let Some(sha256) = key[..].try_into().ok().map(Sha256) else { continue };
            // One that cannot be read is for `scrub`.
            if decode::<super::records::ArtifactRecord>(&value).is_ok_and(|record| !record.private) {
                found.push(sha256);
            }
        }
        Ok(found)
    }

    /// The SHA-256 of each leaf of a stored artifact, in order.
    pub fn leaves(&self, sha256: &Sha256) -> Result<Option<Vec<Sha256>>, StoreError> {
        let Some(record) = self.record(sha256)? else { return Ok(None) };
        Ok(Some(super::commit::layout_of(&record, sha256).leaves))
    }
}
