//! Reads all of a catalogue, and checks what one block alone cannot show.

use bytes::Bytes;

use crate::base::{Cid, dag_cbor_cid};

use super::node::{Child, Node, entries_of};
use super::path::{Path, Place};
use super::{CatalogueError, Entry, MOST_ENTRIES, Root, load};

/// What a walk may use up, counted down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Blocks.
    pub blocks: u64,
    /// Bytes of blocks.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
}

impl Budget {
    /// For a catalogue of so many entries: as many blocks and bytes as honest ones take and more, not without end.
    ///
    /// 1,000,000 entries took 0.2 blocks and 240 bytes each.
    pub fn for_entries(entries: u64) -> Self {
        let entries = entries.min(MOST_ENTRIES);
        Self { blocks: entries + 64, bytes: entries * 1024 + (1 << 20), entries }
    }

    pub(super) fn take_block(&mut self, bytes: usize) -> Result<(), CatalogueError> {
        self.blocks = self.blocks.checked_sub(1).ok_or(CatalogueError::Budget("blocks"))?;
        self.bytes = self.bytes.checked_sub(bytes as u64).ok_or(CatalogueError::Budget("bytes"))?;
        Ok(())
    }

    pub(super) fn take_entries(&mut self, entries: usize) -> Result<(), CatalogueError> {
        self.entries = self.entries.checked_sub(entries as u64).ok_or(CatalogueError::Budget("entries"))?;
        Ok(())
    }
}

/// Shows every entry, in no order. Holds one node a level.
pub fn walk(
    root: &Root,
    source: &impl Fn(&Cid) -> Option<Bytes>,
    budget: &mut Budget,
    visit: &mut impl FnMut(Entry),
) -> Result<(), CatalogueError> {
    let child = Child { hash: root.hash, entries: root.entries };
    subtree(child, Place::ROOT, source, budget, &mut |_, entry| visit(entry))
}

/// Shows every entry of a subtree with its path.
pub(super) fn subtree(
    child: Child,
    place: Place,
    source: &impl Fn(&Cid) -> Option<Bytes>,
    budget: &mut Budget,
    visit: &mut impl FnMut(Path, Entry),
) -> Result<(), CatalogueError> {
    let block = load(child.hash, source)?;
    budget.take_block(block.len())?;
    match Node::read(child, place.depth == 0, &block)? {
        Node::Leaf(raw) => {
            budget.take_entries(raw.len())?;
            let entries = entries_of(child.hash, &place, &raw)?;
            entries.into_iter().for_each(|(path, entry)| visit(path, entry));
            Ok(())
        }
        Node::Inner(children) => {
            drop(block);
            for (step, below) in below(child, place, &children[..])? {
                subtree(step, below, source, budget, visit)?;
            }
            Ok(())
        }
    }
}

/// The children of a node with their places.
pub(super) fn below(
    child: Child,
    place: Place,
    children: &[Option<Child>],
) -> Result<Vec<(Child, Place)>, CatalogueError> {
    let placed = |(step, child): (u8, &Option<Child>)| Some((step, (*child)?));
    let children = (0..).zip(children).filter_map(placed);
    let too_deep = CatalogueError::TooDeep(dag_cbor_cid(child.hash));
    children.map(|(step, child)| Ok((child, place.below(step).ok_or(too_deep.clone())?))).collect()
}
