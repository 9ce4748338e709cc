//! Artifacts on their way into this node, as far as other nodes may have them already.
//!
//! A [`Partial`] begins as this node's claim ("I am about to fetch it"), gets a file when bytes come, and ends when the
//! artifact is stored or given up.

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex};

use event_listener::{Event, EventListener};

use crate::base::limits::CHUNK_BYTES;
use crate::base::{Digest, PeerId, Sha256};

/// An artifact on its way in.
pub struct Partial {
    digest: Digest,
    state: Mutex<State>,
    changed: Event,
}

#[derive(Default)]
struct State {
    /// Who fetches it from upstream, or has all of it; `None` while that is being found out.
    of: Option<PeerId>,
    size: Option<u64>,
    file: Option<Arc<File>>,
    /// SHA-256 of each chunk as far as known: a claim of whoever gave the bytes, until the whole is proved.
    leaves: Vec<Option<Sha256>>,
    /// Chunks in the order in which they were written.
    order: Vec<u32>,
    have: Vec<bool>,
    end: Option<End>,
    /// Grows when what others were shown is taken back.
    attempt: u32,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is in the store.
    Stored,
    /// It is not.
    Failed,
}

/// What has changed since a reader looked last.
pub(super) struct View {
    pub(super) size: Option<u64>,
    /// Leaves from the one asked for, up to the first unknown.
    pub(super) leaves: Vec<Sha256>,
    /// Chunks written since.
    pub(super) chunks: Vec<u32>,
    pub(super) end: Option<End>,
    /// Which attempt this is of: what was told of an earlier one holds no more.
    pub(super) attempt: u32,
}

/// How many chunks a file of so many bytes has; one without bytes has one.
pub fn chunks_of(size: u64) -> u32 {
    u32::try_from(size.div_ceil(CHUNK_BYTES).max(1)).unwrap_or(u32::MAX)
}

/// Offset and length in bytes of chunk `n` of a file of `size` bytes.
pub fn span(n: u32, size: u64) -> (u64, u64) {
    let offset = u64::from(n) * CHUNK_BYTES;
    (offset, size.saturating_sub(offset).min(CHUNK_BYTES))
}

impl Partial {
    fn new(digest: Digest) -> Self {
        Self { digest, state: Mutex::default(), changed: Event::new() }
    }

    /// What the artifact is to be.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Bytes are coming into this file; what came before into another is forgotten.
    pub fn flies(&self, size: Option<u64>, file: Arc<File>) {
        self.update(|s| *s = State { size, file: Some(file), ..s.anew() });
    }

    /// All that was shown so far may be wrong: nobody is given it any more, until bytes come again.
    pub fn begins_anew(&self) {
        self.update(|s| *s = s.anew());
    }

    /// Chunks that were shown are about to be overwritten: nobody is given any, until they are shown again.
    pub fn takes_back(&self) {
        self.update(|s| *s = State { size: s.size, file: s.file.take(), ..s.anew() });
    }

    /// The size became known, in bytes.
    pub fn sized(&self, size: u64) {
        self.update(|s| s.size = Some(size));
    }

    /// The SHA-256 of chunks from `first` on that may not be here yet: leaves are told in order, so without them nobody
    /// could be told of a chunk that came before its turn. `false`, and nothing done, where another one was shown.
    pub fn leaves(&self, first: usize, leaves: &[Sha256]) -> bool {
        let mut state = self.state.lock().expect(LOCK);
        let known = state.leaves.iter().skip(first).zip(leaves);
        if known.into_iter().any(|(known, leaf)| known.is_some_and(|known| known != *leaf)) {
            return false;
        }
        for (n, leaf) in (first..).zip(leaves) {
            state.set_leaf(u32::try_from(n).unwrap_or(u32::MAX), *leaf);
        }
        drop(state);
        self.changed.notify(usize::MAX);
        true
    }

    /// Whether leaves beyond the first `known` were shown.
    pub fn tells_beyond(&self, known: usize) -> bool {
        self.state.lock().expect(LOCK).leaves.iter().skip(known).any(Option::is_some)
    }

    /// Chunk `n` is written, and this is its SHA-256.
    pub fn got(&self, n: u32, leaf: Sha256) {
        self.update(|s| {
            s.set_leaf(n, leaf);
            if !std::mem::replace(&mut s.have[n as usize], true) {
                s.order.push(n);
            }
        });
    }

    /// Nothing more comes.
    pub fn ended(&self, end: End) {
        self.update(|s| s.end = s.end.or(Some(end)));
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().expect(LOCK));
        self.changed.notify(usize::MAX);
    }

    /// This node takes it from others, and this one of them is where it comes from.
    pub fn taken_from(&self, of: Option<PeerId>) {
        self.update(|s| s.of = of);
    }

    /// Bytes came from this node: so that is where it comes from, as long as nothing better is known.
    pub fn got_from(&self, peer: PeerId) {
        let mut state = self.state.lock().expect(LOCK);
        state.of.get_or_insert(peer);
    }

    /// Who fetches it from upstream, or has all of it; `None` while that is being found out.
    pub(super) fn of(&self) -> Option<PeerId> {
        self.state.lock().expect(LOCK).of
    }

    /// Wakes when something changes after this call.
    pub(super) fn listen(&self) -> EventListener {
        self.changed.listen()
    }

    /// The size if known, and how many chunks are here.
    pub(super) fn stands(&self) -> (Option<u64>, u32) {
        let state = self.state.lock().expect(LOCK);
        (state.size, u32::try_from(state.order.len()).unwrap_or(u32::MAX))
    }

    /// What is new for a reader that knows the first `leaves` leaves and was told of `chunks` chunks.
    pub(super) fn view(&self, leaves: usize, chunks: usize) -> View {
        let state = self.state.lock().expect(LOCK);
        let new = state.leaves.iter().skip(leaves).map_while(|leaf| *leaf);
        View {
            size: state.size,
            leaves: new.collect(),
            chunks: state.order.get(chunks..).unwrap_or_default().to_vec(),
            end: state.end,
            attempt: state.attempt,
        }
    }

    /// Which attempt this is.
    pub(super) fn attempt(&self) -> u32 {
        self.state.lock().expect(LOCK).attempt
    }

    /// The file, if chunk `n` is in it.
    pub(super) fn chunk(&self, n: u32) -> Option<(Arc<File>, Option<u64>)> {
        let state = self.state.lock().expect(LOCK);
        let has = state.have.get(n as usize).copied().unwrap_or(false);
        state.file.clone().filter(|_| has).map(|file| (file, state.size))
    }
}

impl State {
    /// The next attempt; the same one as long as nothing was shown of it.
    fn anew(&self) -> Self {
        let shown = self.leaves.iter().any(Option::is_some);
        Self { of: self.of, end: self.end, attempt: self.attempt + u32::from(shown), ..Self::default() }
    }

    fn set_leaf(&mut self, n: u32, leaf: Sha256) {
        let n = n as usize;
        if self.leaves.len() <= n {
            self.leaves.resize(n + 1, None);
            self.have.resize(n + 1, false);
        }
        self.leaves[n] = Some(leaf);
    }
}

/// All of this node's, by digest.
#[derive(Clone, Default)]
pub(super) struct Partials {
    all: Arc<Mutex<HashMap<Digest, Arc<Partial>>>>,
}

/// This node's claim to fetch an artifact; dropped, it is over.
pub struct Lead {
    partial: Arc<Partial>,
    all: Partials,
}

impl Partials {
    pub(super) fn lead(&self, digest: Digest) -> Lead {
        let partial = Arc::new(Partial::new(digest));
        self.all.lock().expect(LOCK).insert(digest, partial.clone());
        Lead { partial, all: self.clone() }
    }

    pub(super) fn find(&self, digest: &Digest) -> Option<Arc<Partial>> {
        self.all.lock().expect(LOCK).get(digest).cloned()
    }
}

impl Lead {
    /// What others see of it.
    pub fn partial(&self) -> &Arc<Partial> {
        &self.partial
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut all = self.all.all.lock().expect(LOCK);
        if all.get(&self.partial.digest).is_some_and(|p| Arc::ptr_eq(p, &self.partial)) {
            all.remove(&self.partial.digest);
        }
        drop(all);
        self.partial.ended(End::Failed);
    }
}

const LOCK: &str = "no panic happens under this lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_sees_each_change_once() {
        let all = Partials::default();
        let digest = Sha256::of(b"x").digest();
        let lead = all.lead(digest);
        let partial = all.find(&digest).unwrap();
        assert!(partial.of().is_none(), "a claim");
        let file = Arc::new(tempfile::tempfile().unwrap());
        partial.flies(Some(3 * CHUNK_BYTES), file);
        assert_eq!(partial.stands(), (Some(3 * CHUNK_BYTES), 0));
        partial.got(1, Sha256([1; 32]));
        let view = partial.view(0, 0);
        assert_eq!((view.leaves.len(), view.chunks), (0, vec![1]), "leaf 0 is not known");
        partial.got(0, Sha256([0; 32]));
        partial.got(0, Sha256([0; 32]));
        let view = partial.view(0, 1);
        assert_eq!((view.leaves, view.chunks), (vec![Sha256([0; 32]), Sha256([1; 32])], vec![0]));
        assert!(
            partial.chunk(0).is_some() && partial.chunk(2).is_none() && partial.chunk(u32::MAX).is_none()
        );
        let attempt = partial.attempt();
        partial.begins_anew();
        assert!(partial.attempt() > attempt && partial.chunk(0).is_none(), "taken back");
        let attempt = partial.attempt();
        partial.flies(None, Arc::new(tempfile::tempfile().unwrap()));
        assert_eq!(partial.attempt(), attempt, "nothing was shown of it");
        drop(lead);
        assert_eq!(partial.view(2, 2).end, Some(End::Failed));
        assert!(all.find(&digest).is_none());
    }

    #[test]
    fn leaves_are_told_before_their_chunks_and_never_changed() {
        let all = Partials::default();
        let lead = all.lead(Sha256::of(b"y").digest());
        let partial = lead.partial();
        partial.flies(Some(3 * CHUNK_BYTES), Arc::new(tempfile::tempfile().unwrap()));
        let leaf = |n: u8| Sha256([n; 32]);
        assert!(
            partial.leaves(0, &[leaf(0), leaf(1)]) && partial.tells_beyond(1) && !partial.tells_beyond(2)
        );
        partial.got(1, leaf(1));
        let view = partial.view(0, 0);
        assert_eq!((view.leaves, view.chunks), (vec![leaf(0), leaf(1)], vec![1]), "out of its turn");
        assert!(partial.leaves(1, &[leaf(1), leaf(2)]));
        let attempt = partial.attempt();
        assert!(!partial.leaves(0, &[leaf(9)]), "it was told otherwise");
        assert_eq!(partial.view(0, 0).leaves[0], leaf(0));
        partial.takes_back();
        assert!(partial.leaves(0, &[leaf(9)]) && partial.attempt() > attempt);
    }

    #[test]
    fn spans() {
        for (size, chunks) in [(0, 1), (1, 1), (CHUNK_BYTES, 1), (CHUNK_BYTES + 1, 2)] {
            assert_eq!(chunks_of(size), chunks, "{size}");
        }
        assert_eq!(span(1, CHUNK_BYTES + 5), (CHUNK_BYTES, 5));
        assert_eq!(span(9, 5), (9 * CHUNK_BYTES, 0));
    }
}
