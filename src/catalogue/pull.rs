//! Brings another's catalogue here, block by block: says which block to ask for, and judges what comes.

use std::collections::HashMap;

use bytes::Bytes;

use crate::base::{Cid, Sha256, dag_cbor_cid, sha256_of_cid};

use super::node::{Child, Node, entries_of};
use super::path::Place;
use super::walk::below;
use super::{Budget, CatalogueError, MOST_BLOCK_BYTES, Root};

/// A catalogue on its way. Depth first, so that what is still to be asked for stays few: at most fifteen nodes a level
/// for each block that was asked for at once.
///
/// The first error is the last word: whoever signed the root is to blame, except for [`CatalogueError::OtherBytes`],
/// for which whoever sent them is, and after which the block may be asked of another.
#[derive(Debug)]
pub struct Pull {
    open: Vec<Subtree>,
    asked: HashMap<Sha256, Subtree>,
    budget: Budget,
}

#[derive(Clone, Copy, Debug)]
struct Subtree {
    new: Child,
    /// What the catalogue that is here already has at this place.
    old: Option<Child>,
    place: Place,
}

impl Pull {
    /// Of a catalogue, beside an older one of which all is here and was checked, within a budget for what is read.
    pub fn new(have: Option<&Root>, want: &Root, budget: Budget) -> Self {
        let child = |root: &Root| Child { hash: root.hash, entries: root.entries };
        let top = Subtree { new: child(want), old: have.map(child), place: Place::ROOT };
        Self { open: vec![top], asked: HashMap::new(), budget }
    }

    /// The next block to ask for. `None` when those asked for must come first, or all is here.
    ///
    /// What the older catalogue has at the same place is passed over. Blocks that `source` has for another reason are
    /// not asked for, but read.
    pub fn next(&mut self, source: &impl Fn(&Cid) -> Option<Bytes>) -> Result<Option<Cid>, CatalogueError> {
        while let Some(subtree) = self.open.pop() {
            let Subtree { new, old, .. } = subtree;
            let cid = dag_cbor_cid(new.hash);
            if let Some(old) = old.filter(|old| old.hash == new.hash) {
                let (stated, found) = (new.entries, old.entries);
                if stated != found {
                    return Err(CatalogueError::Count { cid, stated, found });
                }
                continue;
            }
            if let Some(block) = source(&cid) {
                self.take(subtree, &block, source)?;
                continue;
            }
            return match self.asked.insert(new.hash, subtree) {
                None => Ok(Some(cid)),
                Some(_) => Err(CatalogueError::Node { cid, why: "it stands at two places" }),
            };
        }
        Ok(None)
    }

    /// A block that was asked for. Afterwards it may be stored.
    pub fn got(
        &mut self,
        cid: &Cid,
        block: &[u8],
        source: &impl Fn(&Cid) -> Option<Bytes>,
    ) -> Result<(), CatalogueError> {
        let wrong = || CatalogueError::OtherBytes(*cid);
        let hash = sha256_of_cid(cid).filter(|hash| Sha256::of(block) == *hash).ok_or_else(wrong)?;
        let subtree = self.asked.remove(&hash).ok_or_else(wrong)?;
        match block.len() > MOST_BLOCK_BYTES {
            true => Err(CatalogueError::TooLong { cid: *cid, bytes: block.len() }),
            false => self.take(subtree, block, source),
        }
    }

    /// Puts a block back that nobody sent: it will be asked for again.
    pub fn failed(&mut self, cid: &Cid) {
        self.open.extend(sha256_of_cid(cid).and_then(|hash| self.asked.remove(&hash)));
    }

    /// Whether all of it is here.
    pub fn is_done(&self) -> bool {
        self.open.is_empty() && self.asked.is_empty()
    }

    fn take(
        &mut self,
        subtree: Subtree,
        block: &[u8],
        source: &impl Fn(&Cid) -> Option<Bytes>,
    ) -> Result<(), CatalogueError> {
        let Subtree { new, old, place } = subtree;
        self.budget.take_block(block.len())?;
        match Node::read(new, place.depth == 0, block)? {
            Node::Leaf(raw) => {
                self.budget.take_entries(raw.len())?;
                entries_of(new.hash, &place, &raw).map(drop)
            }
            Node::Inner(children) => {
                let before = old.and_then(|old| {
                    let block = source(&dag_cbor_cid(old.hash))?;
                    match Node::read(old, place.depth == 0, &block) {
                        Ok(Node::Inner(children)) => Some(children),
                        _ => None,
                    }
                });
                let placed = below(new, place, &children[..])?;
                let steps = (0..).zip(children.iter()).filter_map(|(step, child)| child.map(|_| step));
                self.open.extend(placed.into_iter().zip(steps).map(|((new, place), step): (_, usize)| {
                    Subtree { new, old: before.as_ref().and_then(|before| before[step]), place }
                }));
                Ok(())
            }
        }
    }
}
