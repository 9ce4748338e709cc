//! Builds a catalogue from its entries, a subtree after the other.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::base::{Cid, Sha256, dag_cbor_cid};

use super::node::{Child, shown, write_inner, write_leaf};
use super::path::Path;
use super::{CatalogueError, Entry, FAN_OUT, LEAF_ENTRIES, MOST_DEPTH, MOST_ENTRIES, Root};

/// Builds from entries in any order, which it sorts: all of them are in memory. Of two with one key the later stays.
pub fn build(
    entries: impl IntoIterator<Item = Entry>,
    sink: &mut impl FnMut(Cid, Bytes),
) -> Result<Root, CatalogueError> {
    let with_path = |entry: Entry| (Path::of(&entry.purl, &entry.file), entry);
    let mut entries: Vec<_> = entries.into_iter().map(with_path).collect();
    // Stable, so that of equals the last one put in stands last.
    entries.sort_by_key(|(path, _)| *path);
    entries.reverse();
    entries.dedup_by_key(|(path, _)| *path);
    entries.reverse();
    finish(Builder::new(entries.into_iter(), sink).root()?, sink)
}

/// Builds from entries in the order of their paths ([`Path::of`]), each once, as an index that is keyed by them gives
/// them. Holds no more than a leaf's entries and one inner node a level.
pub fn build_sorted(
    entries: impl Iterator<Item = Entry>,
    sink: &mut impl FnMut(Cid, Bytes),
) -> Result<Root, CatalogueError> {
    let entries = entries.map(|entry| (Path::of(&entry.purl, &entry.file), entry));
    finish(Builder::new(entries, sink).root()?, sink)
}

/// A subtree that was built.
pub(super) enum Built {
    /// Few enough entries for one leaf, which is not written yet: the parent may be one.
    Leaf(Vec<(Path, Entry)>),
    /// Written.
    Stored(Child),
}

/// Writes a subtree that is to stand by itself.
pub(super) fn settle(built: Built, sink: &mut impl FnMut(Cid, Bytes)) -> Child {
    match built {
        Built::Leaf(entries) => put(write_leaf(entries.iter().map(|(_, entry)| entry)), sink),
        Built::Stored(child) => child,
    }
}

/// Writes an inner node.
pub(super) fn settle_inner(children: &[Option<Child>; FAN_OUT], sink: &mut impl FnMut(Cid, Bytes)) -> Child {
    put(write_inner(children), sink)
}

fn put((child, block): (Child, Bytes), sink: &mut impl FnMut(Cid, Bytes)) -> Child {
    sink(dag_cbor_cid(child.hash), block);
    child
}

/// Writes the topmost node.
pub(super) fn finish(built: Built, sink: &mut impl FnMut(Cid, Bytes)) -> Result<Root, CatalogueError> {
    let Child { hash, entries } = settle(built, sink);
    Root::of(&dag_cbor_cid(hash), entries)
}

/// Reads sorted entries ahead, one leaf and one more at most.
pub(super) struct Builder<'s, I, S> {
    entries: I,
    ahead: VecDeque<(Path, Entry)>,
    last: Option<Path>,
    taken: u64,
    sink: &'s mut S,
}

impl<'s, I: Iterator<Item = (Path, Entry)>, S: FnMut(Cid, Bytes)> Builder<'s, I, S> {
    pub(super) fn new(entries: I, sink: &'s mut S) -> Self {
        Self { entries, ahead: VecDeque::with_capacity(LEAF_ENTRIES + 1), last: None, taken: 0, sink }
    }

    fn root(mut self) -> Result<Built, CatalogueError> {
        self.node(0)
    }

    /// The subtree at this depth of which the next entry is the first; an empty leaf when there is none.
    pub(super) fn node(&mut self, depth: usize) -> Result<Built, CatalogueError> {
        self.look_ahead()?;
        let Some((first, _)) = self.ahead.front() else { return Ok(Built::Leaf(Vec::new())) };
        let first = *first;
        let together = self.ahead.iter().take_while(|(path, _)| path.agrees(&first, depth)).count();
        if together <= LEAF_ENTRIES {
            return Ok(Built::Leaf(self.ahead.drain(..together).collect()));
        }
        if depth == MOST_DEPTH {
            return Err(CatalogueError::TooDeep(dag_cbor_cid(Sha256(first.0))));
        }
        let mut children = [None; FAN_OUT];
        while let Some((next, _)) = self.ahead.front().filter(|(path, _)| path.agrees(&first, depth)) {
            let step = next.step(depth);
            let built = self.node(depth + 1)?;
            children[usize::from(step)] = Some(settle(built, self.sink));
            self.look_ahead()?;
        }
        Ok(Built::Stored(settle_inner(&children, self.sink)))
    }

    fn look_ahead(&mut self) -> Result<(), CatalogueError> {
        while self.ahead.len() <= LEAF_ENTRIES
            && let Some((path, entry)) = self.entries.next()
        {
            if let Err(source) = entry.check() {
                let (purl, file) = shown(entry.key());
                return Err(CatalogueError::Own { purl, file, source });
            }
            if self.last.is_some_and(|last| last >= path) {
                let (purl, file) = shown(entry.key());
                return Err(CatalogueError::OwnUnsorted { purl, file });
            }
            self.taken += 1;
            if self.taken > MOST_ENTRIES {
                return Err(CatalogueError::Budget("entries"));
            }
            self.last = Some(path);
            self.ahead.push_back((path, entry));
        }
        Ok(())
    }
}
