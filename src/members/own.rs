//! This node's own catalogue in a room, and catalogues that are made of what their nodes told of changes.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::base::{Cid, PeerId, Sha256, sha256_of_cid};
use crate::catalogue::{self, Budget, CatalogueError, Change, Difference, Entry, Root};
use crate::rt::UnixMillis;
use crate::store::{Listing, RoomKey, Store, StoreError};

use super::room::{Have, Node, Room};
use super::{MOST_PULLED, Members, MembersError, empty, keep};

/// Listings that are written in one batch of the index: 10 MB of them. More is listed anew, piece by piece.
const LISTED_AT_ONCE: usize = if cfg!(test) { 1000 } else { 100_000 };

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
    /// the scope. Where the catalogue turns out to be damaged it is forgotten, and has to be made anew. Blocks.
    pub fn publish(&self, room: &str, changes: Vec<Change>) -> Result<Root, MembersError> {
        let own = self.inner.options.own.ok_or(MembersError::NoSwarm)?;
        let _writing = self.inner.writers.begin();
        let before = {
            let rooms = self.lock();
            rooms.get(room).ok_or_else(|| MembersError::NoRoom(room.to_owned()))?.own
        };
        let blocks = Blocks::of(&self.inner.store);
        let root = match self.changed(&blocks, before, changes) {
            Ok(root) => root,
            Err(e) => {
                if matches!(e, MembersError::Catalogue(_)) && before.is_some() {
                    let _order = self.order();
                    self.unset(room, &own, Whose::Own);
                    super::complain(keep::forget_own(&self.inner.store, room));
                }
                return Err(e);
            }
        };
        blocks.flush()?;
        self.list(room, own, before, &root, Whose::Own)?;
        Ok(root)
    }

    /// A number for this node's next event in a room: larger than all before, and than those of a node that lost its
    /// count. Blocks.
    pub fn next_sequence(&self, room: &str) -> u64 {
        let now = self.inner.options.clock.now().0;
        let _order = self.order();
        let (number, fact) = {
            let mut rooms = self.lock();
            let Some(room) = rooms.get_mut(room) else { return now };
            room.own_sequence = now.max(room.own_sequence + 1);
            (room.own_sequence, keep::sequence(room))
        };
        self.keep([fact]);
        number
    }

    /// Makes a node's newest catalogue of the one that is here and of what it told of changes, if that is all. Blocks.
    pub(super) fn catch_up(&self, room: &str, peer: &PeerId) -> Result<(), MembersError> {
        let _writing = self.inner.writers.begin();
        let (have, root, at, changes) = {
            let rooms = self.lock();
            let node = rooms.get(room).and_then(|room| room.nodes.get(peer));
            let found = node.and_then(|n| Some((n, n.goal?, n.pending.as_ref()?)));
            let Some((node, goal, (root, changes))) = found.filter(|(_, goal, (root, _))| goal.root == *root)
            else {
                return Err(MembersError::Overtaken);
            };
            (node.have_root(), *root, goal.at, changes.clone())
        };
        // Of an announcement in several events all but the last lead to fewer.
        let before = have.map_or(0, |root| root.entries);
        if root.entries > MOST_PULLED {
            return Err(MembersError::TooLarge(root.entries));
        }
        let put = changes.iter().filter(|change| matches!(change, Change::Put(_))).count() as u64;
        let removed = changes.len() as u64 - put;
        if root.entries > before + put || root.entries + removed < before {
            return Err(MembersError::Overtaken);
        }
        // Only what is what was signed is written: of anything else there may be as much as somebody likes.
        let blocks = Blocks::of(&self.inner.store);
        if self.changed(&blocks, have, changes)? != root {
            let mut rooms = self.lock();
            if let Some(node) = rooms.get_mut(room).and_then(|room| room.nodes.get_mut(peer)) {
                node.misses += 1;
            }
            return Err(MembersError::Overtaken);
        }
        blocks.flush()?;
        self.has(room, peer, have, &root, at)
    }

    /// A node's catalogue is here, all of it, as its node said at that time.
    pub(super) fn has(
        &self,
        room: &str,
        peer: &PeerId,
        before: Option<Root>,
        root: &Root,
        at: UnixMillis,
    ) -> Result<(), MembersError> {
        self.list(room, *peer, before, root, Whose::Member(at))
    }

    /// A node has no catalogue any more.
    pub(super) fn lists_nothing(&self, room: &str, peer: &PeerId, have: Have) -> Result<(), MembersError> {
        self.has(room, peer, Some(have.root), &empty(), have.at)?;
        let _order = self.order();
        self.unset(room, peer, Whose::Member(have.at));
        Ok(keep::forget_have(&self.inner.store, room, peer)?)
    }

    /// A catalogue after its changes; its blocks are not written yet.
    fn changed(
        &self,
        blocks: &Blocks<'_>,
        before: Option<Root>,
        changes: Vec<Change>,
    ) -> Result<Root, MembersError> {
        let mut sink = |cid: Cid, block| blocks.put(&cid, block);
        Ok(match before {
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
        })
    }

    /// Lists what a catalogue has and the one before had not; with that it is the one that is here, on disk and then in
    /// memory. Errors with [`MembersError::Overtaken`] when another one is here than `before`.
    fn list(
        &self,
        room: &str,
        peer: PeerId,
        before: Option<Root>,
        root: &Root,
        whose: Whose,
    ) -> Result<(), MembersError> {
        let store = &self.inner.store;
        let _order = self.order();
        if self.lock().get(room).map(|room| whose.of(room, &peer)) != Some(Some(before)) {
            return Err(MembersError::Overtaken);
        }
        let key = RoomKey::of(room);
        let listing = |sha256| Listing { sha256, room: key, peer };
        let fact = match whose {
            Whose::Own => keep::own(room, root, &peer),
            Whose::Member(at) => keep::have(room, &peer, &Have { root: *root, at }),
        };
        let fact = (fact.0.as_str(), fact.1.as_slice());
        let changes = match before {
            Some(before) => self.difference(&before, root, listing)?,
            None => None,
        };
        match changes {
            Some(changes) => store.list_files(changes, Some(fact))?,
            None => {
                // Piece by piece, from nothing: what was listed of it before is no longer known, or too much. Until
                // all is, no catalogue is here.
                self.unset(room, &peer, whose);
                match whose {
                    Whose::Own => keep::forget_own(store, room)?,
                    Whose::Member(_) => keep::forget_have(store, room, &peer)?,
                }
                store.retain_listings(|l| l.room != key || l.peer != peer)?;
                let (mut some, mut failure) = (HashMap::<Listing, i64>::new(), None);
                self.walk(root, &mut |entry| {
                    files_of(&entry).for_each(|sha256| *some.entry(listing(sha256)).or_default() += 1);
                    if some.len() >= LISTED_AT_ONCE && failure.is_none() {
                        failure = store.list_files(std::mem::take(&mut some), None).err();
                    }
                })?;
                if let Some(e) = failure {
                    return Err(e.into());
                }
                store.list_files(some, Some(fact))?;
            }
        }
        let mut rooms = self.lock();
        match (rooms.get_mut(room), whose) {
            (Some(room), Whose::Own) => room.own = Some(*root),
            (Some(room), Whose::Member(at)) => {
                if let Some(node) = room.nodes.get_mut(&peer) {
                    node.have = Some(Have { root: *root, at });
                    node.pending = node.pending.take().filter(|(pending, _)| pending != root);
                    (node.misses, node.trouble) = (0, None);
                }
            }
            (None, _) => {}
        }
        Ok(())
    }

    /// What is listed otherwise in two catalogues; `None` when that is too much for one batch, or the old one is not
    /// whole.
    fn difference(
        &self,
        old: &Root,
        new: &Root,
        listing: impl Fn(crate::base::Sha256) -> Listing,
    ) -> Result<Option<HashMap<Listing, i64>>, MembersError> {
        let blocks = Blocks::of(&self.inner.store);
        // An empty one stands nowhere.
        let mut sink = |cid: Cid, block| blocks.put(&cid, block);
        catalogue::build(std::iter::empty::<Entry>(), &mut sink)?;
        let mut changes: HashMap<Listing, i64> = HashMap::new();
        let mut too_much = false;
        let mut count = |entry: &Entry, by: i64| {
            too_much |= changes.len() >= LISTED_AT_ONCE;
            if !too_much {
                files_of(entry).for_each(|sha256| *changes.entry(listing(sha256)).or_default() += by);
            }
        };
        let mut visit = |difference| match difference {
            Difference::Added(entry) => count(&entry, 1),
            Difference::Removed(entry) => count(&entry, -1),
            Difference::Changed { before, after } => {
                count(&before, -1);
                count(&after, 1);
            }
        };
        let mut budget = Budget::for_entries(old.entries + new.entries);
        let outcome = catalogue::diff(old, new, &|cid| blocks.get(cid), &mut budget, &mut visit);
        match blocks.judge(outcome) {
            Ok(()) => Ok((!too_much).then_some(changes)),
            Err(MembersError::Catalogue(CatalogueError::Absent(_))) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// No catalogue is here, as far as memory knows.
    fn unset(&self, room: &str, peer: &PeerId, whose: Whose) {
        let mut rooms = self.lock();
        let Some(room) = rooms.get_mut(room) else { return };
        match whose {
            Whose::Own => room.own = None,
            Whose::Member(_) => {
                if let Some(node) = room.nodes.get_mut(peer) {
                    node.have = None;
                }
            }
        }
    }

    /// Forgets blocks that no catalogue names, catalogues of nodes that do not count any more, and listings of those that
    /// are not known. `false` while somebody is writing some. Blocks, seconds for a million entries.
    pub fn sweep(&self) -> bool {
        let Some(_sweeping) = self.inner.writers.sweep() else { return false };
        let _order = self.order();
        let (mut roots, mut whose, mut gone) = (Vec::new(), HashSet::new(), Vec::new());
        for room in self.lock().values_mut() {
            gone.extend(room.forget_absent().into_iter().map(|peer| (room.id.clone(), room.key, peer)));
            roots.extend(room.nodes.values().filter_map(Node::have_root).chain(room.own));
            whose.extend(room.nodes.keys().map(|peer| (room.key, *peer)));
            whose.extend(self.inner.options.own.map(|own| (room.key, own)));
        }
        for (room, key, peer) in gone {
            whose.remove(&(key, peer));
            super::complain(keep::forget_have(&self.inner.store, &room, &peer));
        }
        let kept = RefCell::new(HashSet::new());
        let blocks = Blocks::of(&self.inner.store);
        for root in roots {
            let source = |cid: &Cid| {
                kept.borrow_mut().extend(sha256_of_cid(cid));
                blocks.get(cid)
            };
            let mut budget = Budget::for_entries(root.entries);
            if let Err(e) = catalogue::walk(&root, &source, &mut budget, &mut |_| {}) {
                // It is made or fetched anew when it changes next; what is here of it does no harm until then.
                log::error!("a catalogue that should be here is not whole: {e}");
            }
        }
        if let Some(e) = blocks.failure.take() {
            // What could not be looked at is not what nobody names.
            log::error!("nothing is swept out of the catalogues: {e}");
            return true;
        }
        let kept = kept.into_inner();
        super::complain(self.inner.store.retain_catalogue_blocks(|hash| kept.contains(hash)));
        super::complain(self.inner.store.retain_listings(|l| whose.contains(&(l.room, l.peer))));
        self.inner.orphaned.store(0, Ordering::Relaxed);
        true
    }
}

/// Whose catalogue.
#[derive(Clone, Copy)]
enum Whose {
    Own,
    /// A member's, which said at that time that it is its.
    Member(UnixMillis),
}

impl Whose {
    /// The one that is here; `None` when there is no such node.
    fn of(self, room: &Room, peer: &PeerId) -> Option<Option<Root>> {
        match self {
            Self::Own => Some(room.own),
            Self::Member(_) => room.nodes.get(peer).map(Node::have_root),
        }
    }
}

/// The files that an entry speaks of: its own, and the metadata beside it.
fn files_of(entry: &Entry) -> impl Iterator<Item = Sha256> {
    entry.sha256().into_iter().chain(entry.facts.core_metadata.and_then(|digest| digest.sha256()))
}
