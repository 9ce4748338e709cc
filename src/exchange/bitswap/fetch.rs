//! Fetching the blocks of one DAG from several peers at once.
//!
//! [`Session`] says whom to ask for which block, [`Walk`] which blocks there are. Whoever takes the blocks sets the pace:
//! no more is wanted than fits the walk's window.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_lock::{Semaphore, SemaphoreGuardArc};
use bytes::Bytes;
use event_listener::Event;

use crate::base::limits::{ARTIFACT_BYTES, CHUNK_BYTES};
use crate::base::{Cid, PeerId, Sha256, raw_cid, sha256_of_cid};
use crate::swarm::PeerInfo;
use crate::wire::bitswap::{Presence, PresenceKind, WantType};

use super::super::session::{Arrival, Order, Session};
use super::super::{BITSWAP, Exchange, NEAR};
use super::LOCK;
use super::ask::Want;
use super::walk::{Got, Walk, WalkError};

/// DAGs fetched at once: each may hold its window in memory. Others wait.
const FETCHES: usize = 4;

/// Peers asked whether they have it, when nobody is named: as many as a session takes.
const ASKED: usize = 32;

/// Limits of one fetch.
#[derive(Clone, Debug)]
pub struct DagLimits {
    /// Bytes of the whole file.
    pub bytes: u64,
    /// How long nothing new may come before it is given up.
    pub patience: Duration,
    /// What follows when every peer asked says that it does not have a block.
    pub absence: Absence,
}

/// What follows when nobody has a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absence {
    /// It is waited for: peers keep the want, and send the block when they get it.
    Waits,
    /// It is over.
    Ends,
}

impl Default for DagLimits {
    fn default() -> Self {
        Self { bytes: ARTIFACT_BYTES, patience: Duration::from_secs(30), absence: Absence::Waits }
    }
}

/// The blocks of a DAG, as they come. Dropped, it is over and its wants are taken back.
pub struct Fetching {
    fetch: Arc<Fetch>,
    _place: SemaphoreGuardArc,
}

pub(super) struct Fetch {
    exchange: Exchange,
    limits: DagLimits,
    state: Mutex<State>,
    changed: Event,
}

struct State {
    session: Session,
    walk: Walk,
    /// Blocks wanted so far.
    items: u32,
    roles: HashMap<PeerId, Role>,
    /// Who was asked for a block that has not come, or for word of it.
    asked: HashMap<u32, Vec<PeerId>>,
    /// Who said that it does not have it.
    denied: HashMap<u32, Vec<PeerId>>,
    absence: Absence,
    failure: Option<Failure>,
}

#[derive(Clone, Debug)]
enum Failure {
    Dag(WalkError),
    Absent(Cid),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It may have the DAG: it is asked for the root.
    Unknown,
    /// It has at least the root, or was named as having it.
    Holder,
    /// It has not. It may have some of the blocks all the same.
    Empty,
}

/// What has to be said to whom.
#[derive(Default)]
struct Says {
    wants: Vec<Want>,
    cancels: Vec<(PeerId, Cid)>,
}

/// Where fetches wait for their turn.
pub(super) struct Places(Arc<Semaphore>);

impl Default for Places {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(FETCHES)))
    }
}

impl Exchange {
    /// Fetches the DAG of a file from peers: `peers` are thought to have it; when none is named, all connected ones that
    /// speak bitswap and are near are asked, and those elsewhere who list what the CID names.
    ///
    /// Blocks are verified by their hashes before anything else, and come in the order of a walk from the root, parents
    /// before children, the file from its front. Waits while four DAGs are being fetched. Cancel-safe.
    pub async fn fetch_dag(
        &self,
        cid: Cid,
        peers: &[PeerId],
        limits: DagLimits,
    ) -> Result<Fetching, FetchError> {
        if !peers.is_empty() {
            return self.fetch_from(Walk::new(cid, limits.bytes)?, peers, Role::Holder, limits).await;
        }
        let listed = match sha256_of_cid(&cid) {
            Some(sha256) => self.listed_by(sha256).await,
            None => Vec::new(),
        };
        let mut speak = self.inner.swarm.peers();
        let may = |peer: &PeerId| listed.contains(peer) || self.inner.peers.is_near(peer);
        speak.retain(|info| speaks(info, BITSWAP) && may(&info.peer));
        speak.sort_by_key(|info| info.rtt.unwrap_or(Duration::MAX));
        let peers: Vec<PeerId> = speak.iter().map(|info| info.peer).take(ASKED).collect();
        self.fetch_from(Walk::new(cid, limits.bytes)?, &peers, Role::Unknown, limits).await
    }

    /// Fetches these blocks from one peer, whatever they are part of, in this order. It is over once the peer says that
    /// it does not have one.
    pub(in crate::exchange) async fn fetch_blocks(
        &self,
        cids: Vec<Cid>,
        peer: PeerId,
        patience: Duration,
    ) -> Result<Fetching, FetchError> {
        let connected = self.inner.swarm.peers();
        if !connected.iter().any(|info| info.peer == peer && speaks(info, BITSWAP)) {
            return Err(FetchError::NoPeers);
        }
        let limits = DagLimits { patience, absence: Absence::Ends, ..DagLimits::default() };
        self.fetch_from(Walk::blocks(cids), &[peer], Role::Holder, limits).await
    }

    /// Whether there is an IPFS node to ask that is not dpm's.
    pub fn has_strangers(&self) -> bool {
        !self.strangers(&[]).is_empty()
    }

    /// Asks IPFS nodes that are not dpm's, near or elsewhere and listing it in a room, for an artifact of one block, which
    /// its SHA-256 names, and gives who had it.
    ///
    /// Waits until all have said that they do not, [`Patience::strangers`](super::super::Patience) at most. Cancel-safe.
    pub async fn ask_strangers(&self, sha256: Sha256) -> Option<(PeerId, Bytes)> {
        let strangers = self.strangers(&self.listed_by(sha256).await);
        if strangers.is_empty() {
            return None;
        }
        let patience = self.inner.patience.strangers;
        let limits = DagLimits { bytes: CHUNK_BYTES, patience, absence: Absence::Ends };
        let asking = async {
            let walk = Walk::new(raw_cid(sha256), limits.bytes).ok()?;
            let fetching = self.fetch_from(walk, &strangers, Role::Unknown, limits);
            let mut fetching = fetching.await.ok()?;
            let got = fetching.next().await.ok()??;
            Some((fetching.gave().first()?.0, got.data))
        };
        futures_lite::future::or(asking, async {
            async_io::Timer::after(patience).await;
            None
        })
        .await
    }

    /// Connected peers that speak bitswap and not dpm's own protocol, and are near or among these.
    fn strangers(&self, listed: &[PeerId]) -> Vec<PeerId> {
        let all = self.inner.swarm.peers().into_iter();
        let may = |peer: &PeerId| listed.contains(peer) || self.inner.peers.is_near(peer);
        let strangers = all.filter(|info| speaks(info, BITSWAP) && !speaks(info, NEAR) && may(&info.peer));
        strangers.map(|info| info.peer).take(ASKED).collect()
    }

    async fn fetch_from(
        &self,
        walk: Walk,
        peers: &[PeerId],
        role: Role,
        limits: DagLimits,
    ) -> Result<Fetching, FetchError> {
        let place = self.inner.bitswap.places.0.acquire_arc().await;
        let now = Instant::now();
        let connected = self.inner.swarm.peers();
        let round_trip = |peer: &PeerId| connected.iter().find(|info| info.peer == *peer)?.rtt;
        let mut session = Session::new(walk.seed(), now);
        for peer in peers {
            session.peer(*peer, round_trip(peer), self.inner.peers.speed(peer), now);
        }
        let state = State {
            session,
            walk,
            items: 0,
            roles: peers.iter().map(|peer| (*peer, role)).collect(),
            asked: HashMap::new(),
            denied: HashMap::new(),
            absence: limits.absence,
            failure: None,
        };
        let (state, changed) = (Mutex::new(state), Event::new());
        let fetch = Arc::new(Fetch { exchange: self.clone(), limits, state, changed });
        self.inner.bitswap.asking.enter(fetch.clone());
        let fetching = Fetching { fetch, _place: place };
        fetching.fetch.with(|state, now, says| {
            state.plan(now, says);
            // One of them was just asked for the root itself.
            let asked = state.asked.get(&0).cloned().unwrap_or_default();
            let others = peers.iter().filter(|peer| role == Role::Unknown && !asked.contains(peer));
            others.for_each(|peer| state.ask_word(*peer, 0, says));
        });
        Ok(fetching)
    }
}

fn speaks(info: &PeerInfo, protocol: &str) -> bool {
    info.protocols.iter().any(|p| p == protocol)
}

impl Fetching {
    /// The next block; `None` after the last. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Got>, FetchError> {
        let fetch = &self.fetch;
        let waiting_since = Instant::now();
        loop {
            let changed = fetch.changed.listen();
            let (got, over, wake) = fetch.with(|state, _, _| {
                if let Some(failure) = &state.failure {
                    return Err(match failure.clone() {
                        Failure::Dag(e) => e.into(),
                        Failure::Absent(cid) => FetchError::Absent(cid),
                    });
                }
                let got = state.walk.next();
                let over = state.walk.is_over();
                if got.is_none() && !over && state.roles.is_empty() {
                    return Err(FetchError::NoPeers);
                }
                let calm = state.session.last_progress().max(waiting_since) + fetch.limits.patience;
                if got.is_none() && !over && calm <= Instant::now() {
                    return Err(FetchError::Stalled { missing: state.session.missing() });
                }
                Ok((got, over, state.session.wake().map_or(calm, |wake| wake.min(calm))))
            })?;
            if got.is_some() || over {
                return Ok(got);
            }
            futures_lite::future::or(changed, async {
                async_io::Timer::at(wake).await;
            })
            .await;
        }
    }

    /// Who gave how many bytes, and how fast.
    pub fn gave(&self) -> Vec<(PeerId, u64, Option<u64>)> {
        let state = self.fetch.state.lock().expect(LOCK);
        let gave = state.session.gave().filter(|(_, gave)| gave.bytes > 0);
        gave.map(|(peer, gave)| (peer, gave.bytes, gave.bytes_per_second)).collect()
    }
}

impl Fetching {
    /// Counts for those who gave, once all of it is proved to be what its CID names: blocks that fit together say nothing
    /// of who gives them before.
    pub(super) fn thank(&self) {
        for (peer, bytes, speed) in self.gave() {
            self.fetch.exchange.inner.peers.gave(peer, bytes, speed);
        }
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let fetch = &self.fetch;
        let inner = &fetch.exchange.inner;
        inner.bitswap.asking.leave(fetch);
        let mut cancels = Vec::new();
        let mut state = fetch.state.lock().expect(LOCK);
        for (n, peers) in std::mem::take(&mut state.asked) {
            let cid = state.walk.cid(n);
            cancels.extend(cid.into_iter().flat_map(|cid| peers.iter().map(move |peer| (*peer, cid))));
        }
        drop(state);
        fetch.exchange.say_wants(&[], &cancels);
    }
}

impl Fetch {
    /// Does something, then what follows from it.
    fn with<T>(&self, work: impl FnOnce(&mut State, Instant, &mut Says) -> T) -> T {
        let now = Instant::now();
        let mut says = Says::default();
        let mut state = self.state.lock().expect(LOCK);
        let result = work(&mut state, now, &mut says);
        state.plan(now, &mut says);
        // Still locked: what is said to a peer is said in the order in which it was decided.
        self.exchange.say_wants(&says.wants, &says.cancels);
        result
    }

    /// A peer told what it has and has not.
    pub(super) fn told(&self, peer: &PeerId, presences: &[Presence]) {
        self.with(|state, now, says| {
            for presence in presences {
                let hash = sha256_of_cid(&presence.cid);
                let Some(n) = hash.and_then(|hash| state.walk.number(&hash)) else { continue };
                match presence.kind {
                    PresenceKind::Have => state.has(peer, n, now),
                    PresenceKind::DontHave => state.lacks(peer, n, now, says),
                }
            }
        });
        self.changed.notify(usize::MAX);
    }

    /// Blocks came from a peer, named by what they are.
    pub(super) fn came(&self, peer: &PeerId, blocks: &[(Sha256, Bytes)]) {
        let new_bytes = self.with(|state, now, says| {
            blocks.iter().map(|(hash, data)| state.came(peer, hash, data, now, says)).sum()
        });
        self.exchange.inner.counters.taken_bytes.fetch_add(new_bytes, Ordering::Relaxed);
        self.changed.notify(usize::MAX);
    }

    /// A peer is gone, or does not listen.
    pub(super) fn lost(&self, peer: &PeerId) {
        self.with(|state, now, _| {
            state.session.lost(peer, now);
            state.roles.remove(peer);
            state.asked.values_mut().for_each(|peers| peers.retain(|p| p != peer));
        });
        self.changed.notify(usize::MAX);
    }

    /// A peer sent what nobody asked it for: nothing more is taken from it.
    pub(super) fn lied(&self, peer: &PeerId) {
        self.with(|state, now, _| {
            state.session.wrong(peer, 0, now);
            state.roles.remove(peer);
        });
        self.changed.notify(usize::MAX);
    }
}

impl State {
    /// Wants what the window allows, and asks whom the session says.
    fn plan(&mut self, now: Instant, says: &mut Says) {
        let items = self.walk.want();
        if items > self.items {
            self.session.grow(items);
            for (peer, role) in &self.roles {
                match role {
                    Role::Holder => self.session.has(peer, self.items..items, now),
                    Role::Unknown if self.items == 0 => self.session.has(peer, 0..1, now),
                    Role::Unknown | Role::Empty => {}
                }
            }
            self.items = items;
        }
        if self.walk.is_all_wanted() {
            self.session.complete();
        }
        for order in self.session.next(now) {
            match order {
                Order::Want { peer, first, count, .. } => {
                    (first..first + count).for_each(|n| self.ask(peer, n, WantType::Block, says));
                }
                Order::Cancel { peer, first, count } => {
                    (first..first + count).for_each(|n| self.take_back(&peer, n, says));
                }
            }
        }
    }

    fn ask(&mut self, peer: PeerId, n: u32, kind: WantType, says: &mut Says) {
        let Some(cid) = self.walk.cid(n) else { return };
        let asked = self.asked.entry(n).or_default();
        let again = asked.contains(&peer);
        if !again {
            asked.push(peer);
        }
        // The front of the file is the most urgent.
        let priority = i32::MAX.saturating_sub(i32::try_from(n).unwrap_or(i32::MAX));
        says.wants.push(Want { peer, cid, kind, priority, again });
    }

    /// Asks a peer whether it has a block.
    fn ask_word(&mut self, peer: PeerId, n: u32, says: &mut Says) {
        self.ask(peer, n, WantType::Have, says);
    }

    fn take_back(&mut self, peer: &PeerId, n: u32, says: &mut Says) {
        let Some(cid) = self.walk.cid(n) else { return };
        let Some(asked) = self.asked.get_mut(&n) else { return };
        if let Some(at) = asked.iter().position(|p| p == peer) {
            asked.swap_remove(at);
            says.cancels.push((*peer, cid));
        }
    }

    fn has(&mut self, peer: &PeerId, n: u32, now: Instant) {
        if let Some(denied) = self.denied.get_mut(&n) {
            denied.retain(|p| p != peer);
        }
        match self.roles.get_mut(peer) {
            Some(role @ Role::Unknown) => {
                *role = Role::Holder;
                self.session.has(peer, 0..self.items, now);
            }
            Some(Role::Holder | Role::Empty) => self.session.has(peer, n..n + 1, now),
            None => {}
        }
    }

    fn lacks(&mut self, peer: &PeerId, n: u32, now: Instant, says: &mut Says) {
        self.session.lacks(peer, n..n + 1, now);
        if let Some(role @ Role::Unknown) = self.roles.get_mut(peer) {
            *role = Role::Empty;
        }
        let denied = self.denied.entry(n).or_default();
        if !denied.contains(peer) {
            denied.push(*peer);
        }
        if self.absence == Absence::Ends && self.roles.keys().all(|p| denied.contains(p)) {
            self.failure = self.walk.cid(n).map(Failure::Absent);
        }
        let holders = self.roles.iter().filter(|(_, role)| **role == Role::Holder);
        if holders.clone().any(|(holder, _)| !denied.contains(holder)) {
            return;
        }
        // Nobody who should have it has: perhaps somebody else.
        let asked = self.asked.get(&n).cloned().unwrap_or_default();
        let others = self.roles.keys().filter(|p| !denied.contains(p) && !asked.contains(p));
        let others: Vec<PeerId> = others.copied().collect();
        others.into_iter().for_each(|peer| self.ask_word(peer, n, says));
    }

    /// Gives how many bytes are new.
    fn came(&mut self, peer: &PeerId, hash: &Sha256, data: &Bytes, now: Instant, says: &mut Says) -> u64 {
        let Some(n) = self.walk.number(hash) else { return 0 };
        let Some(cid) = self.walk.cid(n) else { return 0 };
        if self.session.arrived(peer, n, data.len() as u64, now) != Arrival::New {
            // Sent in place of word of it, or after all: its hash is right, and that is all that counts.
            self.session.already(n..n + 1);
        }
        self.has(peer, n, now);
        self.denied.remove(&n);
        let others = self.asked.remove(&n).unwrap_or_default().into_iter().filter(|other| other != peer);
        says.cancels.extend(others.map(|other| (other, cid)));
        if let Err(e) = self.walk.came(n, data) {
            self.failure = Some(Failure::Dag(e));
        }
        data.len() as u64
    }
}

/// Why a DAG was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody is left who could have it: others may come.
    #[error("there is no peer to ask for it")]
    NoPeers,
    /// Every peer says that it does not have this block.
    #[error("no peer has the block {0}")]
    Absent(Cid),
    /// Peers are there, and do not give it.
    #[error("the peers asked do not give it: {missing} of the blocks known are missing")]
    Stalled {
        /// Blocks known and not here.
        missing: u32,
    },
    /// It cannot be followed, whoever gives it.
    #[error("no file that can be fetched: {0}")]
    Dag(#[from] WalkError),
    /// What was fetched could not be put where it belongs.
    #[error("what was fetched could not be written")]
    Sink(#[source] std::io::Error),
}
