//! What changed between two catalogues: reads the blocks that are not in both, and their parents.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::base::{Cid, dag_cbor_cid};

use super::node::{Child, Node, entries_of};
use super::path::{Path, Place};
use super::walk::subtree;
use super::{Budget, CatalogueError, Entry, Root, load};

/// One entry that is not the same in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Only in the new one.
    Added(Entry),
    /// Only in the old one.
    Removed(Entry),
    /// In both, saying different things.
    Changed {
        /// In the old one.
        before: Box<Entry>,
        /// In the new one.
        after: Box<Entry>,
    },
}

/// Shows every difference, in no order. The budget is for both catalogues together.
pub fn diff(
    old: &Root,
    new: &Root,
    source: &impl Fn(&Cid) -> Option<Bytes>,
    budget: &mut Budget,
    visit: &mut impl FnMut(Difference),
) -> Result<(), CatalogueError> {
    let child = |root: &Root| Child { hash: root.hash, entries: root.entries };
    Work { source, budget, visit }.nodes(child(old), child(new), Place::ROOT)
}

struct Work<'a, F, V> {
    source: &'a F,
    budget: &'a mut Budget,
    visit: &'a mut V,
}

/// A node whose block is no longer needed.
enum Read {
    Leaf(BTreeMap<Path, Entry>),
    Inner(Vec<(Child, Place)>),
}

impl<F: Fn(&Cid) -> Option<Bytes>, V: FnMut(Difference)> Work<'_, F, V> {
    fn nodes(&mut self, old: Child, new: Child, place: Place) -> Result<(), CatalogueError> {
        if old.hash == new.hash {
            let (stated, found) = (new.entries, old.entries);
            return match stated == found {
                true => Ok(()),
                false => Err(CatalogueError::Count { cid: dag_cbor_cid(new.hash), stated, found }),
            };
        }
        match (self.read(old, place)?, self.read(new, place)?) {
            (Read::Leaf(old), Read::Leaf(new)) => {
                let (mut old, visit) = (old, &mut self.visit);
                new.into_iter().for_each(|(path, after)| visit_new(&mut old, path, after, *visit));
                old.into_values().map(Difference::Removed).for_each(visit);
                Ok(())
            }
            (Read::Leaf(mut old), Read::Inner(_)) => {
                let visit = &mut self.visit;
                subtree(new, place, self.source, self.budget, &mut |path, after| {
                    visit_new(&mut old, path, after, *visit);
                })?;
                old.into_values().map(Difference::Removed).for_each(&mut self.visit);
                Ok(())
            }
            (Read::Inner(_), Read::Leaf(mut new)) => {
                let visit = &mut self.visit;
                subtree(old, place, self.source, self.budget, &mut |path, before| match new.remove(&path) {
                    Some(after) if after == before => {}
                    Some(after) => {
                        visit(Difference::Changed { before: Box::new(before), after: Box::new(after) })
                    }
                    None => visit(Difference::Removed(before)),
                })?;
                new.into_values().map(Difference::Added).for_each(&mut self.visit);
                Ok(())
            }
            (Read::Inner(old), Read::Inner(new)) => {
                for (before, place) in &old {
                    match new.iter().find(|(_, p)| p == place) {
                        Some((after, _)) => self.nodes(*before, *after, *place)?,
                        None => self.all(*before, *place, Difference::Removed)?,
                    }
                }
                let added = new.iter().filter(|(_, place)| !old.iter().any(|(_, p)| p == place));
                for (after, place) in added {
                    self.all(*after, *place, Difference::Added)?;
                }
                Ok(())
            }
        }
    }

    fn all(
        &mut self,
        child: Child,
        place: Place,
        kind: fn(Entry) -> Difference,
    ) -> Result<(), CatalogueError> {
        subtree(child, place, self.source, self.budget, &mut |_, entry| (self.visit)(kind(entry)))
    }

    fn read(&mut self, child: Child, place: Place) -> Result<Read, CatalogueError> {
        let block = load(child.hash, self.source)?;
        self.budget.take_block(block.len())?;
        Ok(match Node::read(child, place.depth == 0, &block)? {
            Node::Leaf(raw) => {
                self.budget.take_entries(raw.len())?;
                Read::Leaf(entries_of(child.hash, &place, &raw)?.into_iter().collect())
            }
            Node::Inner(children) => Read::Inner(super::walk::below(child, place, &children[..])?),
        })
    }
}

fn visit_new(old: &mut BTreeMap<Path, Entry>, path: Path, after: Entry, visit: &mut impl FnMut(Difference)) {
    match old.remove(&path) {
        Some(before) if before == after => {}
        Some(before) => visit(Difference::Changed { before: Box::new(before), after: Box::new(after) }),
        None => visit(Difference::Added(after)),
    }
}
