//! This node's own catalogue in a room, and catalogues that are made of what their nodes told of changes.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::base::{Cid, PeerId, Sha256, sha256_of_cid};
use crate::catalogue::{self, Budget, CatalogueError, Change, Difference, Entry, Root};
use crate::store::{Listing, RoomKey, Store, StoreError};

use super::room::Room;
use super::{Members, MembersError, empty, keep};

/// Entries that may change at once in one batch of the index. More is listed anew, piece by piece.
const LISTED_AT_ONCE: u64 = if cfg!(test) { 1000 } else { 100_000 };

/// Blocks of a store, and what is being made on top of them.
pub(super) struct Blocks<'a> {
    store: &'a Store,
    pub(super) new: RefCell<HashMap<Sha256, Bytes>>,
    /// Why the store did not answer: a catalogue whose blocks cannot be read has no absent ones.
    failure: RefCell<Option<StoreError>>,
}

impl<'a> Blocks<'a> {
    pub(super) fn of(store: &'a Store) -> Self {
        Self { store, new: RefCell::default(), failure: RefCell::default() }
    }

    pub(super) fn get(&self, cid: &Cid) -> Option<Bytes> {
        let hash = sha256_of_cid(cid)?;
        if let Some(block) = self.new.borrow().get(&hash) {
            return Some(block.clone());
        }
        self.store.catalogue_block(&hash).unwrap_or_else(|e| {
            self.failure.replace(Some(e));
            None
        })
    }

    pub(super) fn put(&self, cid: &Cid, block: Bytes) {
        if let Some(hash) = sha256_of_cid(cid) {
            self.new.borrow_mut().insert(hash, block);
        }
    }

    /// Writes what is new.
    pub(super) fn flush(&self) -> Result<(), StoreError> {
        let new: Vec<_> = self.new.take().into_iter().collect();
        self.store.put_catalogue_blocks(&new)
    }

    /// An outcome, or the store's failure that caused it.
    pub(super) fn judge<T>(&self, outcome: Result<T, CatalogueError>) -> Result<T, MembersError> {
        match (outcome, self.failure.take()) {
            (Err(_), Some(e)) => Err(e.into()),
            (outcome, _) => Ok(outcome?),
        }
    }
}

impl Members {
    /// This node's catalogue in a room.
    pub fn own(&self, room: &str) -> Option<Root> {
        self.lock().get(room)?.own
    }

    /// Shows every entry of it. Blocks.
    pub fn own_entries(&self, room: &str, visit: &mut impl FnMut(Entry)) -> Result<(), MembersError> {
        match self.own(room) {
            Some(root) => self.walk(&root, visit),
            None => Ok(()),
        }
    }

    /// Shows every entry of a catalogue that is here. Blocks.
    pub(super) fn walk(&self, root: &Root, visit: &mut impl FnMut(Entry)) -> Result<(), MembersError> {
        let blocks = Blocks::of(&self.inner.store);
        let mut budget = Budget::for_entries(root.entries);
        blocks.judge(catalogue::walk(root, &|cid| blocks.get(cid), &mut budget, visit))
    }

    /// Changes this node's catalogue in a room, and lists what is in it. Whoever calls it has held the changes against
    /// the scope. Blocks.
    pub fn publish(&self, room: &str, changes: Vec<Change>) -> Result<Root, MembersError> {
        let own = self.inner.options.own.ok_or(MembersError::NoSwarm)?;
        let _writing = self.inner.writers.begin();
        let before = {
            let rooms = self.lock();
            rooms.get(room).ok_or_else(|| MembersError::NoRoom(room.to_owned()))?.own
        };
        let root = self.changed(before, changes)?;
        let set = |room: &mut Room| {
            room.own = Some(root);
            Some(keep::room(room))
        };
        self.list(room, own, before, &root, set)?;
        Ok(root)
    }

    /// A number for this node's next event in a room: larger than all before, and than those of a node that lost its
    /// count. Blocks.
    pub fn next_sequence(&self, room: &str) -> u64 {
        let now = self.inner.options.clock.now().0;
        let mut rooms = self.lock();
        let Some(room) = rooms.get_mut(room) else { return now };
        room.own_sequence = now.max(room.own_sequence + 1);
        self.keep_room(room);
        room.own_sequence
    }

    /// Makes a node's newest catalogue of the one that is here and of what it told of changes, if that is all. Blocks.
    pub(super) fn catch_up(&self, room: &str, peer: &PeerId) -> Result<(), MembersError> {
        let _writing = self.inner.writers.begin();
        let (have, root, changes) = {
            let rooms = self.lock();
            let node = rooms.get(room).and_then(|room| room.nodes.get(peer));
            let Some((node, (root, changes))) = node.and_then(|n| Some((n, n.pending.as_ref()?))) else {
                return Err(MembersError::Overtaken);
            };
            (node.have, *root, changes.clone())
        };
        // Of another base it makes another root: then the rest is fetched.
        let made = self.changed(have, changes)?;
        if made != root {
            return Err(MembersError::Overtaken);
        }
        self.has(room, peer, have, &root)
    }

    /// A node's catalogue is here, all of it.
    pub(super) fn has(
        &self,
        room: &str,
        peer: &PeerId,
        before: Option<Root>,
        root: &Root,
    ) -> Result<(), MembersError> {
        let set = |room: &mut Room| {
            let node = room.nodes.get_mut(peer)?;
            node.have = Some(*root);
            node.pending = node.pending.take().filter(|(pending, _)| pending != root);
            node.trouble = None;
            let node = room.nodes.get(peer)?;
            Some(keep::node(room, peer, node))
        };
        self.list(room, *peer, before, root, set)
    }

    fn changed(&self, before: Option<Root>, changes: Vec<Change>) -> Result<Root, MembersError> {
        let blocks = Blocks::of(&self.inner.store);
        let mut sink = |cid: Cid, block| blocks.put(&cid, block);
        let root = match before {
            Some(before) => {
                blocks.judge(catalogue::update(&before, changes, &|cid| blocks.get(cid), &mut sink))?.root
            }
            None => {
                let mut entries = HashMap::new();
                for change in changes {
                    match change {
                        Change::Put(entry) => {
                            entries.insert((entry.purl.clone(), entry.file.clone()), *entry);
                        }
                        Change::Remove { purl, file } => drop(entries.remove(&(purl, file))),
                    }
                }
                catalogue::build(entries.into_values(), &mut sink)?
            }
        };
        blocks.flush()?;
        Ok(root)
    }

    /// Lists what a catalogue has and the one before had not; with it the room is changed, in memory and on disk.
    fn list(
        &self,
        room: &str,
        peer: PeerId,
        before: Option<Root>,
        root: &Root,
        set: impl FnOnce(&mut Room) -> Option<(String, Vec<u8>)>,
    ) -> Result<(), MembersError> {
        let store = &self.inner.store;
        let key = RoomKey::of(room);
        let old = before.unwrap_or_else(empty);
        let listing = |sha256| Listing { sha256, room: key, peer };
        let mut changes: HashMap<Listing, i64> = HashMap::new();
        let mut count = |entry: &Entry, by: i64| {
            for sha256 in files_of(entry) {
                *changes.entry(listing(sha256)).or_default() += by;
            }
        };
        let piecemeal = old.entries + root.entries > LISTED_AT_ONCE && before.is_none();
        if piecemeal {
            // What a walk that was cut off left.
            store.retain_listings(|l| l.room != key || l.peer != peer)?;
            let mut failure = None;
            let mut some: HashMap<Listing, i64> = HashMap::new();
            self.walk(root, &mut |entry| {
                files_of(&entry).for_each(|sha256| *some.entry(listing(sha256)).or_default() += 1);
                if some.len() >= LISTED_AT_ONCE as usize / 8 {
                    failure = store.list_files(std::mem::take(&mut some), None).err().or(failure.take());
                }
            })?;
            store.list_files(some, None)?;
            if let Some(e) = failure {
                return Err(e.into());
            }
        } else {
            let blocks = Blocks::of(store);
            if before.is_none() {
                // An empty one stands nowhere.
                let mut sink = |cid: Cid, block| blocks.put(&cid, block);
                catalogue::build(std::iter::empty::<Entry>(), &mut sink)?;
            }
            let mut budget = Budget::for_entries(old.entries + root.entries);
            let mut visit = |difference| match difference {
                Difference::Added(entry) => count(&entry, 1),
                Difference::Removed(entry) => count(&entry, -1),
                Difference::Changed { before, after } => {
                    count(&before, -1);
                    count(&after, 1);
                }
            };
            blocks.judge(catalogue::diff(&old, root, &|cid| blocks.get(cid), &mut budget, &mut visit))?;
        }
        let mut rooms = self.lock();
        let fact = rooms.get_mut(room).and_then(set);
        let Some((name, value)) = fact else { return Err(MembersError::NoRoom(room.to_owned())) };
        Ok(store.list_files(changes, Some((&name, &value)))?)
    }

    /// Forgets blocks that no catalogue names, unless one is being made or is on its way. Blocks, a second for a million entries.
    pub fn sweep(&self) {
        let Some(_sweeping) = self.inner.writers.sweep() else { return };
        let roots: Vec<Root> = {
            let rooms = self.lock();
            let theirs = rooms.values().flat_map(|room| room.nodes.values().filter_map(|node| node.have));
            theirs.chain(rooms.values().filter_map(|room| room.own)).collect()
        };
        let kept = RefCell::new(HashSet::new());
        let blocks = Blocks::of(&self.inner.store);
        for root in roots {
            let source = |cid: &Cid| {
                kept.borrow_mut().extend(sha256_of_cid(cid));
                blocks.get(cid)
            };
            let mut budget = Budget::for_entries(root.entries);
            if let Err(e) = catalogue::walk(&root, &source, &mut budget, &mut |_| {}) {
                log::error!("a catalogue that should be here is not whole, nothing is swept: {e}");
                return;
            }
        }
        let kept = kept.into_inner();
        super::complain(self.inner.store.retain_catalogue_blocks(|hash| kept.contains(hash)));
    }
}

/// The files that an entry speaks of: its own, and the metadata beside it.
fn files_of(entry: &Entry) -> impl Iterator<Item = Sha256> {
    entry.sha256().into_iter().chain(entry.facts.core_metadata.and_then(|digest| digest.sha256()))
}
