//! The catalogue: what a node has of a room's scope, as content-addressed blocks of which a change moves a few.
//!
//! A trie of DAG-CBOR blocks (CIDv1, dag-cbor, sha2-256) over the SHA-256 of each entry's key. A subtree of at most
//! [`LEAF_ENTRIES`] entries is one leaf, a larger one an inner node with a child for each next four bits. So the same
//! set of entries has the same root, whatever was put in and taken out before. `ROOMS.md` is the specification.
//!
//! Pure: blocks come from a function and go to one. That function is trusted to return the bytes that a CID names:
//! whoever brings blocks from strangers holds them against their CIDs ([`Pull::got`] does). All else that a stranger
//! may get wrong is found here, and within a [`Budget`].

mod build;
mod diff;
mod entry;
mod find;
mod node;
mod path;
mod pull;
#[cfg(test)]
mod tests;
mod update;
mod walk;

pub use build::{build, build_sorted};
pub use diff::{Difference, diff};
pub use entry::{Entry, EntryError, Facts, MOST_ENTRY_BYTES, MOST_FILE_BYTES, list, read_list};
pub use find::{find, of_package};
pub use path::Path;
pub use pull::Pull;
pub use update::{Change, Updated, update};
pub use walk::{Budget, walk};

use bytes::Bytes;

use crate::base::cbor::CborError;
use crate::base::{Cid, Sha256, dag_cbor_cid};

/// Most entries of a leaf.
///
/// A simulation of 1,000,000 entries with file counts as an index has them (a few packages with thousands, most with
/// under ten), 100 updates at random: with fan-out 16, leaves of 16 · 32 · 64 · 128 move 363 · 484 · 674 · 1,194 KB
/// in 320 · 172 · 104 · 57 thousand blocks; with fan-out 4, 361 · 557 · 883 · 1,780 KB at twice the depth; with 32,
/// 432 · 546 · 779 · 1,224 KB; with 256 never under 1.2 MB.
pub const LEAF_ENTRIES: usize = 32;

/// Children of an inner node: one for each value of four bits.
pub const FAN_OUT: usize = 16;

/// Deepest node, the root being at 0: six steps by the package, then 16 by the entry. For more than a leaf's entries
/// to agree in 64 bits of a hash nobody has the power.
pub const MOST_DEPTH: usize = 22;

/// Largest block in bytes: a leaf of the longest entries has under 132 KiB.
pub const MOST_BLOCK_BYTES: usize = 160 << 10;

/// Most entries of a catalogue: sixteen times the million that it is made for.
pub const MOST_ENTRIES: u64 = 16 << 20;

/// A catalogue: its root block, and how many entries it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Root {
    /// SHA-256 of the root block.
    pub hash: Sha256,
    /// Entries, as whoever gave the root says; a walk checks it.
    pub entries: u64,
}

impl Root {
    /// From a CID, which must be that of a dag-cbor block by SHA-256.
    pub fn of(cid: &Cid, entries: u64) -> Result<Self, CatalogueError> {
        let hash = crate::base::sha256_of_cid(cid).filter(|hash| dag_cbor_cid(*hash) == *cid);
        let hash = hash.ok_or(CatalogueError::NotARoot(*cid))?;
        match entries <= MOST_ENTRIES {
            true => Ok(Self { hash, entries }),
            false => Err(CatalogueError::Count { cid: *cid, stated: entries, found: MOST_ENTRIES }),
        }
    }

    /// The root block's CID.
    pub fn cid(&self) -> Cid {
        dag_cbor_cid(self.hash)
    }
}

/// The block that a CID names, from wherever blocks are.
fn load(hash: Sha256, source: &impl Fn(&Cid) -> Option<Bytes>) -> Result<Bytes, CatalogueError> {
    let cid = dag_cbor_cid(hash);
    let bytes = source(&cid).ok_or(CatalogueError::Absent(cid))?;
    match bytes.len() > MOST_BLOCK_BYTES {
        true => Err(CatalogueError::TooLong { cid, bytes: bytes.len() }),
        false => Ok(bytes),
    }
}

/// What is wrong with a catalogue. Except for [`CatalogueError::Absent`] and [`CatalogueError::Budget`], whoever signed
/// its root is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatalogueError {
    /// A CID of another kind.
    #[error("{0} is no catalogue: not the CID of a dag-cbor block by SHA-256")]
    NotARoot(Cid),
    /// A block that is not here.
    #[error("the block {0} is absent")]
    Absent(Cid),
    /// Bytes that another CID names.
    #[error("bytes that came for the block {0} are another's")]
    OtherBytes(Cid),
    /// Larger than any node.
    #[error("the block {cid} has {bytes} bytes, {MOST_BLOCK_BYTES} are allowed")]
    TooLong {
        /// Which.
        cid: Cid,
        /// Its size.
        bytes: usize,
    },
    /// Not deterministic CBOR.
    #[error("the block {cid}: {source}")]
    Cbor {
        /// Which.
        cid: Cid,
        /// Why.
        source: CborError,
    },
    /// CBOR, and yet no node.
    #[error("the block {cid} is no node of a catalogue: {why}")]
    Node {
        /// Which.
        cid: Cid,
        /// Why.
        why: &'static str,
    },
    /// An entry that breaks a rule.
    #[error("entry {number} of the block {cid}: {source}")]
    Entry {
        /// Which block.
        cid: Cid,
        /// Which of its entries, from 0.
        number: usize,
        /// Why.
        source: EntryError,
    },
    /// An entry that stands before one with a smaller key, or twice.
    #[error("{file} of {purl} is out of order or twice in the block {cid}")]
    Unsorted {
        /// Which block.
        cid: Cid,
        /// The entry's package.
        purl: String,
        /// Its file.
        file: String,
    },
    /// An entry where its hash does not lead.
    #[error("{file} of {purl} does not belong in the block {cid}")]
    Misplaced {
        /// Which block.
        cid: Cid,
        /// The entry's package.
        purl: String,
        /// Its file.
        file: String,
    },
    /// Nodes below nodes below nodes.
    #[error("the block {0} is deeper than {MOST_DEPTH} steps below its root")]
    TooDeep(Cid),
    /// More or fewer entries than were stated.
    #[error("{stated} entries are stated for the block {cid}, {found} are there or allowed")]
    Count {
        /// Which block.
        cid: Cid,
        /// By its parent, or with the root.
        stated: u64,
        /// Found, or the limit.
        found: u64,
    },
    /// What was allowed for is used up.
    #[error("the catalogue has more than the {0} that were allowed for")]
    Budget(&'static str),
    /// An entry of our own that breaks a rule, while building.
    #[error("{file} of {purl}: {source}")]
    Own {
        /// The entry's package.
        purl: String,
        /// Its file.
        file: String,
        /// Why.
        source: EntryError,
    },
    /// Entries of our own that do not come in the order of their paths, or twice.
    #[error("{file} of {purl} comes out of order or twice")]
    OwnUnsorted {
        /// The entry's package.
        purl: String,
        /// Its file.
        file: String,
    },
}
