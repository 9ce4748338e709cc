//! The order in which the blocks of a file's DAG are wanted, and given on: parents before children, from the file's
//! front to its end. Pure.
//!
//! A block's place is where its bytes begin in the file and how deep it lies: that orders parents before children, as
//! every child has bytes. No more than a window of the file is wanted ahead of what was given on, so that little has to
//! be kept.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::base::{Cid, RAW, Sha256, sha256_of_cid};
use crate::unixfs::{Content, MOST_DEPTH, UnixfsError, content};

/// Bytes of the file that are wanted ahead of the first that is missing.
const AHEAD_BYTES: u64 = 32 << 20;

/// Blocks wanted at once: more than all peers together are asked for at a time.
const WANTED: usize = 2048;

/// Places known at once. A DAG of 4 KiB chunks needs an eighth; one made to exhaust memory needs more.
const PLACES: usize = 65_536;

/// A block of the DAG, in its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    /// Its name, as its parent has it.
    pub cid: Cid,
    /// Its bytes, which match that name.
    pub data: Bytes,
    /// Where its own part of the file begins.
    pub offset: u64,
    /// Its own part of the file: all of a raw leaf, nothing of most nodes.
    pub content: Bytes,
    /// Bytes of the whole file.
    pub file_bytes: u64,
}

/// The walk over one DAG.
#[derive(Debug)]
pub(super) struct Walk {
    /// Not wanted yet: its name, and how many bytes of the file its parent says it has.
    known: BTreeMap<Place, (Cid, Option<u64>)>,
    /// Wanted, or here and not given on.
    places: BTreeMap<Place, Slot>,
    wanted: HashMap<u32, Wanted>,
    by_hash: HashMap<Sha256, u32>,
    /// How many of those wanted may have children.
    nodes: usize,
    next: u32,
    most_bytes: u64,
    file_bytes: Option<u64>,
    /// Blocks are taken as they are: what they are part of is somebody else's business.
    blind: bool,
}

/// Where its bytes begin, and how deep it lies.
type Place = (u64, usize);

#[derive(Debug)]
enum Slot {
    Wanted(Cid, Option<u64>),
    Here(Got),
}

#[derive(Debug)]
struct Wanted {
    cid: Cid,
    places: Vec<Place>,
}

impl Walk {
    /// The walk over the DAG below `root`, of a file of at most `most_bytes`.
    pub(super) fn new(root: Cid, most_bytes: u64) -> Result<Self, WalkError> {
        sha256_of_cid(&root).ok_or(WalkError::Hash(root))?;
        Ok(Self {
            known: BTreeMap::from([((0, 0), (root, None))]),
            places: BTreeMap::new(),
            wanted: HashMap::new(),
            by_hash: HashMap::new(),
            nodes: 0,
            next: 0,
            most_bytes,
            file_bytes: None,
            blind: false,
        })
    }

    /// These blocks and no others, in this order, whatever is in them. Those of another hash are left out.
    pub(super) fn blocks(cids: impl IntoIterator<Item = Cid>) -> Self {
        let named = cids.into_iter().filter(|cid| sha256_of_cid(cid).is_some());
        Self {
            known: (0..).zip(named).map(|(n, cid)| ((n, 0), (cid, None))).collect(),
            places: BTreeMap::new(),
            wanted: HashMap::new(),
            by_hash: HashMap::new(),
            nodes: 0,
            next: 0,
            most_bytes: 0,
            file_bytes: None,
            blind: true,
        }
    }

    /// Wants what lies in the window. Gives how many blocks have been wanted so far: they are numbered as they were.
    pub(super) fn want(&mut self) -> u32 {
        let first = |place: Option<&Place>| place.map_or(u64::MAX, |(offset, _)| *offset);
        let front = first(self.known.keys().next()).min(first(self.places.keys().next()));
        while let Some(entry) = self.known.first_entry()
            && entry.key().0 < front.saturating_add(AHEAD_BYTES)
            && self.wanted.len() < WANTED
        {
            let (place, (cid, claim)) = entry.remove_entry();
            // Checked when it became known.
            let Some(hash) = sha256_of_cid(&cid) else { continue };
            match self.by_hash.get(&hash).and_then(|n| self.wanted.get_mut(n)) {
                Some(same) => same.places.push(place),
                None => {
                    self.by_hash.insert(hash, self.next);
                    self.wanted.insert(self.next, Wanted { cid, places: vec![place] });
                    self.nodes += usize::from(self.may_have_children(&cid));
                    self.next += 1;
                }
            }
            self.places.insert(place, Slot::Wanted(cid, claim));
        }
        self.next
    }

    /// A number that is as good as by chance, from what is wanted first.
    pub(super) fn seed(&self) -> u64 {
        let first = self.known.values().next().and_then(|(cid, _)| sha256_of_cid(cid));
        first.map_or(0, |hash| u64::from_le_bytes(hash.0[..8].try_into().expect("eight of 32")))
    }

    fn may_have_children(&self, cid: &Cid) -> bool {
        !self.blind && cid.codec() != RAW
    }

    /// Whether all blocks of the DAG have been wanted.
    pub(super) fn is_all_wanted(&self) -> bool {
        self.known.is_empty() && self.nodes == 0
    }

    /// The name of a block that is wanted.
    pub(super) fn cid(&self, n: u32) -> Option<Cid> {
        self.wanted.get(&n).map(|wanted| wanted.cid)
    }

    /// The number of a block that is wanted.
    pub(super) fn number(&self, hash: &Sha256) -> Option<u32> {
        self.by_hash.get(hash).copied()
    }

    /// Takes the bytes of block `n`, which match its name. An error is one of the DAG, not of whoever gave the block.
    pub(super) fn came(&mut self, n: u32, data: &Bytes) -> Result<(), WalkError> {
        let Some(wanted) = self.wanted.remove(&n) else { return Ok(()) };
        sha256_of_cid(&wanted.cid).map(|hash| self.by_hash.remove(&hash));
        self.nodes -= usize::from(self.may_have_children(&wanted.cid));
        for place in wanted.places {
            self.put(place, data)?;
        }
        Ok(())
    }

    fn put(&mut self, place: Place, data: &Bytes) -> Result<(), WalkError> {
        let (offset, depth) = place;
        let Some(slot) = self.places.get_mut(&place) else { return Ok(()) };
        let Slot::Wanted(cid, claim) = *slot else { return Ok(()) };
        if self.blind {
            let (data, content) = (data.clone(), Bytes::new());
            *slot = Slot::Here(Got { cid, data, offset, content, file_bytes: 0 });
            return Ok(());
        }
        let content = content(data, cid.codec()).map_err(|source| WalkError::Block { cid, source })?;
        let bytes = content.content_bytes();
        if claim.is_some_and(|claim| claim != bytes) {
            return Err(WalkError::Size(cid));
        }
        let file_bytes = *self.file_bytes.get_or_insert(bytes);
        if file_bytes > self.most_bytes {
            return Err(WalkError::TooLarge(file_bytes));
        }
        let (own, children) = match content {
            Content::Leaf(own) => (own, Vec::new()),
            Content::Node { inline, children } => (inline, children),
        };
        let own = data.slice_ref(own);
        let mut at = offset + own.len() as u64;
        *slot = Slot::Here(Got { cid, data: data.clone(), offset, content: own, file_bytes });
        if !children.is_empty() && depth + 1 >= MOST_DEPTH {
            return Err(WalkError::TooDeep);
        }
        if self.known.len() + self.places.len() + children.len() > PLACES {
            return Err(WalkError::TooFine);
        }
        for child in children {
            sha256_of_cid(&child.cid).ok_or(WalkError::Hash(child.cid))?;
            self.known.insert((at, depth + 1), (child.cid, Some(child.content_bytes)));
            // No overflow: the sum of them was checked.
            at += child.content_bytes;
        }
        Ok(())
    }

    /// The next block, if it is here.
    pub(super) fn next(&mut self) -> Option<Got> {
        let first = self.places.first_entry().filter(|first| matches!(first.get(), Slot::Here(_)))?;
        if self.known.keys().next().is_some_and(|known| known < first.key()) {
            return None;
        }
        match first.remove() {
            Slot::Here(got) => Some(got),
            Slot::Wanted(..) => None,
        }
    }

    /// Whether every block has been given on.
    pub(super) fn is_over(&self) -> bool {
        self.known.is_empty() && self.places.is_empty()
    }
}

/// Why a DAG is none that we can follow. Whoever gave its blocks is not to blame: they are what they are named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WalkError {
    /// A block named by a hash that we do not verify by.
    #[error("the block {0} is named by another hash than SHA-256")]
    Hash(Cid),
    /// A block that is no part of a file.
    #[error("the block {cid}: {source}")]
    Block {
        /// Which.
        cid: Cid,
        /// Why not.
        source: UnixfsError,
    },
    /// A block whose parent says that it has another size.
    #[error("the block {0} has another size than its parent says")]
    Size(Cid),
    /// The file is larger than whoever fetches it allows.
    #[error("the file has {0} bytes")]
    TooLarge(u64),
    /// More levels than any honest file has.
    #[error("its blocks are nested too deeply")]
    TooDeep,
    /// More blocks at once than any honest file needs.
    #[error("it is cut into too many too small blocks")]
    TooFine,
}

#[cfg(test)]
mod tests;
