//! Changes a catalogue: reads and writes the nodes on the way to what changes, nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::base::{Cid, PackageUrl, dag_cbor_cid};

use super::build::{Builder, Built, finish, settle, settle_inner};
use super::node::{Child, Node, entries_of};
use super::path::{Path, Place};
use super::{CatalogueError, Entry, FAN_OUT, LEAF_ENTRIES, Root, load};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds an entry, or replaces the one with its key.
    Put(Box<Entry>),
    /// Takes one out, if it is there.
    Remove {
        /// With its version.
        purl: PackageUrl,
        /// The file's name.
        file: String,
    },
}

impl Change {
    /// Adds an entry, or replaces the one with its key.
    pub fn put(entry: Entry) -> Self {
        Self::Put(Box::new(entry))
    }
}

/// A catalogue after its changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Updated {
    /// The new one.
    pub root: Root,
    /// Blocks of the old one that are none of the new one's.
    pub gone: Vec<Cid>,
}

/// Applies changes; of several of one key the last counts. Blocks that are new go to `sink`, each once.
pub fn update(
    root: &Root,
    changes: impl IntoIterator<Item = Change>,
    source: &impl Fn(&Cid) -> Option<Bytes>,
    sink: &mut impl FnMut(Cid, Bytes),
) -> Result<Updated, CatalogueError> {
    let changes: BTreeMap<Path, Option<Entry>> = changes.into_iter().map(keyed).collect();
    let changes: Vec<_> = changes.into_iter().collect();
    let mut work = Work { source, sink, gone: Vec::new() };
    let child = Child { hash: root.hash, entries: root.entries };
    let built = work.node(child, Place::ROOT, &changes)?;
    let root = finish(built, work.sink)?;
    Ok(Updated { root, gone: work.gone })
}

fn keyed(change: Change) -> (Path, Option<Entry>) {
    match change {
        Change::Put(entry) => (Path::of(&entry.purl, &entry.file), Some(*entry)),
        Change::Remove { purl, file } => (Path::of(&purl, &file), None),
    }
}

struct Work<'a, F, S> {
    source: &'a F,
    sink: &'a mut S,
    gone: Vec<Cid>,
}

/// Sorted by path, each once; `None` removes.
type Changes = [(Path, Option<Entry>)];

impl<F: Fn(&Cid) -> Option<Bytes>, S: FnMut(Cid, Bytes)> Work<'_, F, S> {
    /// The subtree after the changes, all of which lie in it.
    fn node(&mut self, old: Child, place: Place, changes: &Changes) -> Result<Built, CatalogueError> {
        if changes.is_empty() {
            return Ok(Built::Stored(old));
        }
        let block = load(old.hash, self.source)?;
        match Node::read(old, place.depth == 0, &block)? {
            Node::Leaf(raw) => self.leaf(old, place, entries_of(old.hash, &place, &raw)?, changes),
            Node::Inner(children) => self.inner(old, place, *children, changes),
        }
    }

    fn leaf(
        &mut self,
        old: Child,
        place: Place,
        entries: Vec<(Path, Entry)>,
        changes: &Changes,
    ) -> Result<Built, CatalogueError> {
        let mut entries: BTreeMap<Path, Entry> = entries.into_iter().collect();
        let mut same = true;
        for (path, change) in changes {
            same &= entries.get(path) == change.as_ref();
            match change {
                Some(entry) => drop(entries.insert(*path, entry.clone())),
                None => drop(entries.remove(path)),
            }
        }
        if same {
            return Ok(Built::Stored(old));
        }
        self.gone.push(dag_cbor_cid(old.hash));
        Builder::new(entries.into_iter(), self.sink).node(place.depth)
    }

    fn inner(
        &mut self,
        old: Child,
        place: Place,
        before: [Option<Child>; FAN_OUT],
        changes: &Changes,
    ) -> Result<Built, CatalogueError> {
        let mut after: [Option<Built>; FAN_OUT] = before.map(|child| child.map(Built::Stored));
        for group in changes.chunk_by(|(a, _), (b, _)| a.step(place.depth) == b.step(place.depth)) {
            let step = group[0].0.step(place.depth);
            let below = place.below(step).ok_or(CatalogueError::TooDeep(dag_cbor_cid(old.hash)))?;
            let at = usize::from(step);
            let built = match before[at] {
                Some(child) => self.node(child, below, group)?,
                None => {
                    let added = group.iter().filter_map(|(path, entry)| Some((*path, entry.clone()?)));
                    Builder::new(added, self.sink).node(below.depth)?
                }
            };
            after[at] = Some(built).filter(|built| count(built) > 0);
        }
        if after.iter().flatten().map(count).sum::<u64>() <= LEAF_ENTRIES as u64 {
            self.gone.push(dag_cbor_cid(old.hash));
            return self.merged(place, after);
        }
        let after = after.map(|built| built.map(|built| settle(built, self.sink)));
        if after == before {
            return Ok(Built::Stored(old));
        }
        self.gone.push(dag_cbor_cid(old.hash));
        Ok(Built::Stored(settle_inner(&after, self.sink)))
    }

    /// One leaf of children that have become few: each of them is a leaf, too.
    fn merged(&mut self, place: Place, children: [Option<Built>; FAN_OUT]) -> Result<Built, CatalogueError> {
        let mut entries = Vec::new();
        for (step, built) in (0..).zip(children) {
            let child = match built {
                None => continue,
                Some(Built::Leaf(mut few)) => {
                    entries.append(&mut few);
                    continue;
                }
                Some(Built::Stored(child)) => child,
            };
            let cid = dag_cbor_cid(child.hash);
            let below = place.below(step).ok_or(CatalogueError::TooDeep(cid))?;
            let block = load(child.hash, self.source)?;
            let Node::Leaf(raw) = Node::read(child, false, &block)? else {
                return Err(CatalogueError::Node { cid, why: "so few entries belong in one leaf" });
            };
            entries.append(&mut entries_of(child.hash, &below, &raw)?);
            self.gone.push(cid);
        }
        Ok(Built::Leaf(entries))
    }
}

fn count(built: &Built) -> u64 {
    match built {
        Built::Leaf(entries) => entries.len() as u64,
        Built::Stored(child) => child.entries,
    }
}
