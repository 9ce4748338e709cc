//! Another node's catalogue on its way here.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::base::{Cid, PeerId};
use crate::catalogue::{Budget, CatalogueError, Pull, Root};

use super::own::Blocks;
use super::room::Room;
use super::writers::Writing;
use super::{MOST_PULLED, MOST_PULLED_TOGETHER, Members, MembersError};

/// Blocks that are written at a time.
const FLUSHED: usize = 256;

/// A catalogue that is newer than what is here of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// In which room.
    pub room: String,
    /// Whose node's.
    pub peer: PeerId,
    /// Who speaks for it.
    pub user: String,
    /// Which.
    pub root: Root,
    /// What is here of it.
    pub have: Option<Root>,
}

/// One that is being fetched. While it is held, [`Members::sweep`] does nothing.
pub struct Pulling {
    members: Members,
    wanted: Wanted,
    pull: Pull,
    fresh: Vec<(Cid, Bytes)>,
    /// Bytes that were written, while it is not whole.
    flushed: u64,
    _writing: Writing,
}

impl Members {
    /// Catalogues of present members that are not here, the smallest first, and those that could not be had last. Those
    /// that are too large are noted as such: alone, with the other nodes of the same user, or with all that is here.
    pub fn wanted(&self) -> Vec<Wanted> {
        if self.needs_sweep() {
            return Vec::new();
        }
        let mut rooms = self.lock();
        let mut together = 0;
        let mut of_user: HashMap<String, u64> = HashMap::new();
        for (_, node) in rooms.values().flat_map(Room::present) {
            let entries = node.have_root().map_or(0, |root| root.entries);
            together += entries;
            *of_user.entry(node.sender.clone()).or_default() += entries;
        }
        let mut found = Vec::new();
        for room in rooms.values() {
            for (peer, node) in room.present() {
                let have = node.have_root();
                if let Some(root) = node.goal_root().filter(|root| have != Some(*root)) {
                    let (room, user) = (room.id.clone(), node.sender.clone());
                    found.push((node.trouble.is_some(), Wanted { room, peer: *peer, user, root, have }));
                }
            }
        }
        found.sort_by_key(|(failed, wanted)| (*failed, wanted.root.entries));
        let mut taken = Vec::new();
        for (_, wanted) in found {
            let before = wanted.have.map_or(0, |root| root.entries);
            let (entries, more) = (wanted.root.entries, wanted.root.entries.saturating_sub(before));
            let theirs = of_user.entry(wanted.user.clone()).or_default();
            if *theirs + more > MOST_PULLED || together + more > MOST_PULLED_TOGETHER {
                let node = rooms.get_mut(&wanted.room).and_then(|room| room.nodes.get_mut(&wanted.peer));
                if let Some(node) = node {
                    node.trouble = Some(MembersError::TooLarge(entries).to_string());
                }
                continue;
            }
            (*theirs, together) = (*theirs + more, together + more);
            taken.push(wanted);
        }
        taken
    }

    /// Begins to fetch one. Blocks while blocks are swept.
    pub fn pull(&self, wanted: &Wanted) -> Pulling {
        let budget = Budget::for_entries(wanted.root.entries);
        Pulling {
            members: self.clone(),
            pull: Pull::new(wanted.have.as_ref(), &wanted.root, budget),
            wanted: wanted.clone(),
            fresh: Vec::new(),
            flushed: 0,
            _writing: self.inner.writers.begin(),
        }
    }

    /// One could not be had, or is wrong.
    pub fn failed(&self, wanted: &Wanted, why: &str) {
        let mut rooms = self.lock();
        let node = rooms.get_mut(&wanted.room).and_then(|room| room.nodes.get_mut(&wanted.peer));
        if let Some(node) = node.filter(|node| node.goal_root() == Some(wanted.root)) {
            node.trouble = Some(why.chars().take(300).collect());
        }
    }
}

impl Pulling {
    /// The next block to ask for; `None` when those asked for must come first, or all is here. Blocks on the disk.
    pub fn next_block(&mut self) -> Result<Option<Cid>, MembersError> {
        let store = self.members.inner.store.clone();
        let blocks = Blocks::of(&store);
        let fresh = &self.fresh;
        let source = |cid: &Cid| {
            let found = fresh.iter().rev().find(|(of, _)| of == cid).map(|(_, block)| block.clone());
            found.or_else(|| blocks.get(cid))
        };
        let next = self.pull.next(&source);
        blocks.judge(next)
    }

    /// A block that was asked for. [`CatalogueError::OtherBytes`] is its sender's fault, any other error that of
    /// whoever signed the catalogue. Blocks on the disk.
    pub fn got(&mut self, cid: &Cid, block: Bytes) -> Result<(), MembersError> {
        let store = self.members.inner.store.clone();
        let blocks = Blocks::of(&store);
        let got = self.pull.got(cid, &block, &|cid| blocks.get(cid));
        blocks.judge(got)?;
        self.fresh.push((*cid, block));
        match self.fresh.len() >= FLUSHED {
            true => self.flush(),
            false => Ok(()),
        }
    }

    /// Nobody sent it: it will be asked for again.
    pub fn missed(&mut self, cid: &Cid) {
        self.pull.failed(cid);
    }

    /// Whether all of it is here.
    pub fn is_done(&self) -> bool {
        self.pull.is_done()
    }

    /// Keeps it, and lists what it has. Blocks on the disk.
    pub fn finish(mut self) -> Result<(), MembersError> {
        if !self.is_done() {
            return Err(CatalogueError::Absent(self.wanted.root.cid()).into());
        }
        self.flush()?;
        let Wanted { room, peer, root, have, .. } = self.wanted.clone();
        let at = {
            let rooms = self.members.lock();
            let goal = rooms.get(&room).and_then(|room| room.nodes.get(&peer)).and_then(|node| node.goal);
            // One that it no longer names is a step on the way to the one that it names now.
            goal.map(|goal| goal.at)
        };
        self.members.has(&room, &peer, have, &root, at.ok_or(MembersError::Overtaken)?)?;
        self.flushed = 0;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MembersError> {
        let fresh = std::mem::take(&mut self.fresh);
        self.flushed += fresh.iter().map(|(_, block)| block.len() as u64).sum::<u64>();
        let hashed =
            fresh.into_iter().filter_map(|(cid, block)| Some((crate::base::sha256_of_cid(&cid)?, block)));
        Ok(self.members.inner.store.put_catalogue_blocks(&hashed.collect::<Vec<_>>())?)
    }
}

impl Drop for Pulling {
    /// What it has written is nobody's, unless it is whole.
    fn drop(&mut self) {
        self.members.inner.orphaned.fetch_add(self.flushed, Ordering::Relaxed);
    }
}
