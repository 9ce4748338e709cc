//! What peers want of this node, and what of it is to be looked up now. Pure.
//!
//! A want is *due* until it was looked up, and *kept* when the block was not here: it is due again when the block has
//! come. It ends when it was answered, cancelled or replaced, or when its peer has gone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::base::{Cid, PeerId, Sha256, sha256_of_cid};
use crate::wire::bitswap::{Entry, WANTS, WantType, Wantlist};

/// Wants of all peers together: some hundred bytes each. Who has most kept ones then loses its oldest.
const ALL_WANTS: usize = 32_768;

/// Every peer's wants.
#[derive(Debug)]
pub(super) struct Ledger {
    peers: HashMap<PeerId, Wants>,
    /// Who wants a block, under which CIDs.
    by_hash: HashMap<Sha256, Vec<(PeerId, Cid)>>,
    total: usize,
    most: usize,
    ignored: u64,
}

/// One peer's.
#[derive(Debug, Default)]
struct Wants {
    all: HashMap<Cid, Want>,
    /// To be looked up, the most urgent first, then as they came.
    due: BTreeMap<(Reverse<i32>, u64), Cid>,
    /// Looked up in vain, the oldest first; some are not kept any more.
    kept: VecDeque<(u64, Cid)>,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Want {
    kind: WantType,
    send_dont_have: bool,
    priority: i32,
    /// Its place among those due or kept.
    number: u64,
    state: State,
    /// The peer knows that the block is not here.
    denied: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Due,
    /// Handed out to be looked up.
    LookedUp,
    /// Handed out, and due again meanwhile.
    Again,
    Kept,
}

/// A want to be looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Which block.
    pub(super) cid: Cid,
    /// The block, or word of it.
    pub(super) kind: WantType,
    /// Whether its absence is to be told.
    pub(super) tell_absence: bool,
}

/// What came of a want that was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The peer is told what it wanted.
    Answered,
    /// The block is not here, or not for this peer.
    Absent,
    /// Not looked at yet.
    Postponed,
}

impl Default for Ledger {
    fn default() -> Self {
        Self::with_room_for(ALL_WANTS)
    }
}

impl Ledger {
    fn with_room_for(most: usize) -> Self {
        Self { peers: HashMap::new(), by_hash: HashMap::new(), total: 0, most, ignored: 0 }
    }

    /// Whether nobody wants anything.
    pub(super) fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Wants that found no room since the start.
    pub(super) fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Takes what a peer says it wants. Whether something is due now.
    pub(super) fn told(&mut self, peer: PeerId, wantlist: &Wantlist) -> bool {
        if wantlist.full {
            self.gone(&peer);
        }
        for entry in &wantlist.entries {
            match entry.cancel {
                true => self.remove(&peer, &entry.cid),
                false => self.want(peer, entry),
            }
        }
        self.peers.get(&peer).is_some_and(|wants| !wants.due.is_empty())
    }

    fn want(&mut self, peer: PeerId, entry: &Entry) {
        if let Some(wants) = self.peers.get_mut(&peer)
            && wants.all.contains_key(&entry.cid)
        {
            return wants.again(entry);
        }
        if !self.has_room(&peer) {
            self.ignored += 1;
            return;
        }
        self.peers.entry(peer).or_default().add(entry);
        self.total += 1;
        if let Some(hash) = sha256_of_cid(&entry.cid) {
            self.by_hash.entry(hash).or_default().push((peer, entry.cid));
        }
    }

    /// Makes room for one more of this peer's wants. What is due is never given up for it, what was kept in vain is.
    fn has_room(&mut self, peer: &PeerId) -> bool {
        if self.peers.get(peer).is_some_and(|wants| wants.all.len() >= WANTS) {
            return self.forget_oldest_kept(*peer);
        }
        if self.total < self.most {
            return true;
        }
        let most = self.peers.iter_mut().max_by_key(|(_, wants)| wants.kept_count()).map(|(p, _)| *p);
        most.is_some_and(|peer| self.forget_oldest_kept(peer))
    }

    fn forget_oldest_kept(&mut self, peer: PeerId) -> bool {
        let oldest = self.peers.get_mut(&peer).and_then(Wants::oldest_kept);
        oldest.inspect(|cid| self.remove(&peer, cid)).is_some()
    }

    /// The peer wants this no more, or has got it.
    fn remove(&mut self, peer: &PeerId, cid: &Cid) {
        let Some(wants) = self.peers.get_mut(peer) else { return };
        let Some(want) = wants.all.remove(cid) else { return };
        if want.state == State::Due {
            wants.due.remove(&want.place());
        }
        if wants.all.is_empty() {
            self.peers.remove(peer);
        }
        self.total -= 1;
        self.unlist(peer, cid);
    }

    fn unlist(&mut self, peer: &PeerId, cid: &Cid) {
        let Some(hash) = sha256_of_cid(cid) else { return };
        if let Some(who) = self.by_hash.get_mut(&hash) {
            who.retain(|(p, c)| (p, c) != (peer, cid));
            if who.is_empty() {
                self.by_hash.remove(&hash);
            }
        }
    }

    /// A peer has gone, or wants nothing of all that.
    pub(super) fn gone(&mut self, peer: &PeerId) {
        let Some(wants) = self.peers.remove(peer) else { return };
        self.total -= wants.all.len();
        for cid in wants.all.keys() {
            self.unlist(peer, cid);
        }
    }

    /// Hands out up to `most` wants of a peer to be looked up; each comes back through [`Ledger::looked_up`].
    pub(super) fn due(&mut self, peer: &PeerId, most: usize) -> Vec<Due> {
        let Some(wants) = self.peers.get_mut(peer) else { return Vec::new() };
        let mut out = Vec::new();
        while out.len() < most
            && let Some((_, cid)) = wants.due.pop_first()
        {
            let Some(want) = wants.all.get_mut(&cid) else { continue };
            want.state = State::LookedUp;
            let tell_absence = want.send_dont_have && !want.denied;
            out.push(Due { cid, kind: want.kind, tell_absence });
        }
        out
    }

    /// Whether nothing of a peer's wants is to be looked up.
    pub(super) fn is_idle(&self, peer: &PeerId) -> bool {
        self.peers.get(peer).is_none_or(|wants| wants.due.is_empty())
    }

    /// What came of a want that was handed out.
    pub(super) fn looked_up(&mut self, peer: &PeerId, due: &Due, outcome: Outcome) {
        let Some(wants) = self.peers.get_mut(peer) else { return };
        // Cancelled meanwhile, or cancelled and wanted again.
        let handed_out = |want: &&mut Want| matches!(want.state, State::LookedUp | State::Again);
        let Some(want) = wants.all.get_mut(&due.cid).filter(handed_out) else { return };
        let again = want.state == State::Again;
        match outcome {
            // Only word of the block was told, and meanwhile the block itself is wanted.
            Outcome::Answered if due.kind == WantType::Have && want.kind == WantType::Block => {
                wants.queue(&due.cid);
            }
            // A hash that we do not know never comes.
            Outcome::Absent if sha256_of_cid(&due.cid).is_none() => self.remove(peer, &due.cid),
            Outcome::Answered => self.remove(peer, &due.cid),
            Outcome::Absent => {
                want.denied |= due.tell_absence;
                match again {
                    true => wants.queue(&due.cid),
                    false => wants.keep(&due.cid),
                }
            }
            Outcome::Postponed => {
                want.state = State::Due;
                let place = want.place();
                wants.due.insert(place, due.cid);
            }
        }
    }

    /// These blocks have come: gives the peers that wait for one of them.
    pub(super) fn arrived(&mut self, hashes: impl IntoIterator<Item = Sha256>) -> Vec<PeerId> {
        let mut peers = Vec::new();
        for hash in hashes {
            for (peer, cid) in self.by_hash.get(&hash).into_iter().flatten() {
                if let Some(wants) = self.peers.get_mut(peer) {
                    wants.come(cid);
                    if !peers.contains(peer) {
                        peers.push(*peer);
                    }
                }
            }
        }
        peers
    }

    /// Any block may have come: all is due again. Gives everybody who wants something.
    pub(super) fn look_again(&mut self) -> Vec<PeerId> {
        for wants in self.peers.values_mut() {
            let all: Vec<Cid> = wants.all.keys().copied().collect();
            all.iter().for_each(|cid| wants.come(cid));
        }
        self.peers.keys().copied().collect()
    }
}

impl Want {
    fn place(&self) -> (Reverse<i32>, u64) {
        (Reverse(self.priority), self.number)
    }
}

impl Wants {
    fn add(&mut self, entry: &Entry) {
        let want = Want {
            kind: entry.want_type,
            send_dont_have: entry.send_dont_have,
            priority: entry.priority,
            number: 0,
            state: State::Kept,
            denied: false,
        };
        self.all.insert(entry.cid, want);
        self.queue(&entry.cid);
    }

    /// Wanted before, and said again: to be answered again. Who wants the block is not content with word of it.
    fn again(&mut self, entry: &Entry) {
        let Some(want) = self.all.get_mut(&entry.cid) else { return };
        if entry.want_type == WantType::Block {
            want.kind = WantType::Block;
        }
        (want.send_dont_have, want.denied) = (entry.send_dont_have, false);
        match want.state {
            State::LookedUp | State::Again => want.state = State::Again,
            State::Due if want.priority == entry.priority => {}
            State::Due | State::Kept => {
                self.due.remove(&want.place());
                want.priority = entry.priority;
                self.queue(&entry.cid);
            }
        }
    }

    fn come(&mut self, cid: &Cid) {
        match self.all.get_mut(cid) {
            Some(want) if want.state == State::LookedUp => want.state = State::Again,
            Some(want) if want.state == State::Kept => self.queue(cid),
            _ => {}
        }
    }

    fn queue(&mut self, cid: &Cid) {
        let Some(want) = self.all.get_mut(cid) else { return };
        self.next += 1;
        (want.number, want.state) = (self.next, State::Due);
        self.due.insert(want.place(), *cid);
    }

    fn keep(&mut self, cid: &Cid) {
        // Those that are not kept any more must not pile up.
        if self.kept.len() >= 2 * WANTS {
            let all = &self.all;
            self.kept.retain(|(number, cid)| all.get(cid).is_some_and(|w| w.is_kept_as(*number)));
        }
        let Some(want) = self.all.get_mut(cid) else { return };
        self.next += 1;
        (want.number, want.state) = (self.next, State::Kept);
        self.kept.push_back((self.next, *cid));
    }

    fn oldest_kept(&mut self) -> Option<Cid> {
        while let Some((number, cid)) = self.kept.pop_front() {
            if self.all.get(&cid).is_some_and(|want| want.is_kept_as(number)) {
                return Some(cid);
            }
        }
        None
    }

    /// As many at most.
    fn kept_count(&self) -> usize {
        self.kept.len().min(self.all.len())
    }
}

impl Want {
    fn is_kept_as(&self, number: u64) -> bool {
        self.state == State::Kept && self.number == number
    }
}

#[cfg(test)]
mod tests;
