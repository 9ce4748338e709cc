//! Taking an artifact from several nodes at once, chunk by chunk.
//!
//! One task a node reads and writes its stream (`talk`); all share a [`Session`], which says whom to ask for what. A
//! chunk is handed on once its bytes match its leaf. The leaves themselves are a claim of whoever told them first: only
//! the whole digest proves them, and whoever takes the chunks judges then, by what the [`Outcome`] says of who told what.

mod aside;
mod talk;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_lock::{Semaphore, SemaphoreGuardArc};
use event_listener::Event;
use futures_lite::future;

use crate::base::limits::CHUNK_BYTES;
use crate::base::{Digest, PeerId, Sha256};

use super::super::partial::{chunks_of, span};
use super::super::session::{Order, Session};
use super::super::{Exchange, Ranges};

pub use aside::{Aside, Handed, Invitation, SoFar};
use talk::Parting;

/// Nodes that one artifact is taken from at once: more would each give too little to matter. Beside the chunks, whose
/// places are counted, each holds 8 KiB read ahead and a frame of at most 128 KiB: 70 MB for 64 downloads from nobody but
/// nodes that send such frames, 9 MB for one such node.
const GIVERS: usize = 8;

/// Nodes spoken with in the course of one taking, those that went included: who is sent elsewhere meets further ones.
const MET: usize = 64;

/// Orders under way to one node's writer. The session has fewer chunks outstanding than this.
const ORDERS: usize = 256;

/// Chunks proved and not yet taken by the flight: it writes them to the disk.
const PROVED: usize = 2;

/// How often the session is looked at when nothing happens.
const LOOK: Duration = Duration::from_millis(250);

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Want {
    /// The artifact.
    pub digest: Digest,
    /// Bytes, if the index says so.
    pub size: Option<u64>,
    /// Who says that it has all of it: asked without waiting to hear so again, where the size is known.
    pub whole: Vec<PeerId>,
    /// The most bytes that it may have, where the index does not say.
    pub most_bytes: u64,
    /// Leaves of the chunks that are here already, from the start.
    pub here: Vec<Sha256>,
    /// Further chunks that are here, and their leaves.
    pub beyond: Vec<(u32, Sha256)>,
    /// How long next to nothing may come before it is given up.
    pub patience: Duration,
    /// Bytes a second below which next to nothing comes, over that time. Half of it is enough for one of several.
    pub least_per_second: u64,
    /// There is nobody else: who turns out to let others down meanwhile is taken from all the same.
    pub last: bool,
}

/// A chunk whose bytes match its leaf.
pub struct Chunk {
    /// Its number: it begins at so many MiB.
    pub n: u32,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Their SHA-256.
    pub leaf: Sha256,
    /// Bytes of the whole artifact, if its giver knew.
    pub size: Option<u64>,
    /// Who gave it; nobody where the caller did itself.
    pub peer: Option<PeerId>,
    /// Holds its place in memory.
    _place: Place,
}

/// A chunk's place in memory.
struct Place {
    _one: SemaphoreGuardArc,
    _of_strangers: Option<SemaphoreGuardArc>,
}

impl Place {
    /// Waits for a place. Whoever holds one gives it back soon: the deadline of a chunk sees to it, or the disk.
    async fn take(exchange: &Exchange, peer: &PeerId) -> Self {
        let acquire = |of: &Arc<Semaphore>| of.acquire_arc();
        let of_strangers = match exchange.inner.peers.is_known(peer) {
            true => None,
            false => Some(acquire(&exchange.inner.strangers).await),
        };
        Self { _of_strangers: of_strangers, _one: acquire(&exchange.inner.places).await }
    }
}

/// What a node told that is another thing than what was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The artifact has so many bytes.
    Size(u64),
    /// The chunk of this number has this leaf.
    Leaf(u32, Sha256),
}

/// How taking ended.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Whether every chunk came.
    pub all: bool,
    /// Why not.
    pub why: String,
    /// The layout that the chunks were held against, as far as it was told.
    pub layout: Vec<Sha256>,
    /// Who said that it has the whole artifact, and told so many leaves of that layout, from the first.
    pub told: Vec<(PeerId, u32)>,
    /// Who said that it has the whole artifact, and told another layout, or another size than the index.
    pub dissent: Vec<(PeerId, Claim)>,
    /// Who told another layout or size at all: not at fault as far as is known.
    pub dissenters: Vec<PeerId>,
    /// Who ended the conversation, or was lost.
    pub left: Vec<PeerId>,
    /// Who lied, broke the protocol, or gave too slowly.
    pub bad: Vec<PeerId>,
    /// When next to nothing came: who owes chunks that it said it can give.
    pub owing: Vec<PeerId>,
    /// When next to nothing came: who gave nothing at all, and was not asked for anything either.
    pub idle: Vec<PeerId>,
    /// Of those, who sent us to another.
    pub referred: Vec<PeerId>,
    /// Bytes and speed of who gave something.
    pub gave: Vec<(PeerId, u64, Option<u64>)>,
}

/// An artifact being taken. Dropped, it is over.
pub struct Taking {
    shared: Arc<Shared>,
    chunks: async_channel::Receiver<Chunk>,
}

struct Shared {
    exchange: Exchange,
    want: Want,
    state: Mutex<State>,
    changed: Event,
    /// Bytes that came of chunks that were wanted, whole or not.
    bytes: AtomicU64,
    /// Of these, bytes that the caller got itself.
    aside: AtomicU64,
    /// Readers that wait for us: for a place, for the disk.
    waiting: AtomicU64,
    chunks: async_channel::Sender<Chunk>,
    /// Closed when it is over, which ends the conversations wherever they are.
    over: (async_channel::Sender<()>, async_channel::Receiver<()>),
}

struct State {
    session: Session,
    size: Option<u64>,
    leaves: Vec<Sha256>,
    /// Chunks that are here beyond the known leaves.
    beyond: HashMap<u32, Sha256>,
    givers: HashMap<PeerId, Giver>,
    /// The caller's own hand: this node's id, and to whoever lends it.
    aside: Option<(PeerId, async_channel::Sender<Order>)>,
    ended: Option<Outcome>,
}

/// A node that is spoken with, or was.
#[derive(Default)]
struct Giver {
    /// To its writer; `None` once it is gone.
    orders: Option<async_channel::Sender<Order>>,
    /// How often it may still send a chunk: as often as it was asked for it, whether or not that was taken back.
    asked: HashMap<u32, u32>,
    /// Chunks that it is asked for …
    owes: Ranges,
    /// … and those that it says it can give.
    has: Ranges,
    /// It says that it has the whole artifact.
    whole: bool,
    /// Leaves that it told, from the first: all of them like those that are followed.
    told: u32,
    referred: bool,
    dissent: Option<Claim>,
    parted: Option<Parting>,
}

impl Exchange {
    /// Takes an artifact from these nodes. Chunks come in any order, each once.
    pub fn take(&self, want: Want, from: &[PeerId]) -> Taking {
        let now = Instant::now();
        let session = Session::new(u64::from_le_bytes(seed(&self.inner.swarm.peer_id())), now);
        let (sender, receiver) = async_channel::bounded(PROVED);
        let over = async_channel::bounded(1);
        let mut state = State {
            session,
            size: None,
            leaves: Vec::new(),
            beyond: want.beyond.iter().copied().collect(),
            givers: HashMap::new(),
            aside: None,
            ended: None,
        };
        if let Some(size) = want.size {
            state.sized(size);
        }
        state.learn(&want.here);
        let here = u32::try_from(want.here.len()).unwrap_or(u32::MAX);
        state.session.already(0..here);
        // A file of one chunk is its own leaf.
        if let (Some(..=CHUNK_BYTES), Some(sha256), true) =
            (want.size, want.digest.sha256(), state.leaves.is_empty())
        {
            state.learn(&[sha256]);
        }
        let shared = Arc::new(Shared {
            exchange: self.clone(),
            want,
            state: Mutex::new(state),
            changed: Event::new(),
            bytes: AtomicU64::new(0),
            aside: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            chunks: sender,
            over,
        });
        for peer in from {
            shared.meet(*peer);
        }
        // Only now, or the first of them would be asked for everything.
        shared.with(|_, _| ());
        let watching = Watching(shared.clone());
        self.inner.tasks.spawn(async move { watching.0.watch().await });
        if self.inner.stopped.load(Ordering::SeqCst) {
            shared.end(End::GivenUp);
        }
        Taking { shared, chunks: receiver }
    }
}

/// The watch's hold on a taking: when its task is cancelled, the taking is over, for nobody else would end it.
struct Watching(Arc<Shared>);

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.end(End::GivenUp);
    }
}

impl Taking {
    /// The leaf of chunk `n` in the layout that is followed, as far as it is known.
    pub fn leaf(&self, n: u32) -> Option<Sha256> {
        self.shared.state.lock().expect(LOCK).leaves.get(n as usize).copied()
    }

    /// The leaves of the layout that is followed, as far as they were told, but for the first `known`.
    pub fn leaves(&self, known: usize) -> Vec<Sha256> {
        self.shared.peek(|state| state.leaves.get(known..).unwrap_or_default().to_vec())
    }

    /// The next chunk; `None` once it is over. Blocks.
    pub fn next(&self) -> Option<Chunk> {
        self.chunks.recv_blocking().ok()
    }

    /// The next chunk, if one comes in this time; `Err` once it is over. Blocks.
    pub fn next_within(&self, time: Duration) -> Result<Option<Chunk>, Over> {
        let chunk = async { self.chunks.recv().await.map(Some).map_err(|_| Over) };
        let late = async {
            async_io::Timer::after(time).await;
            Ok(None)
        };
        future::block_on(future::or(chunk, late))
    }

    /// How it ended, or stands.
    pub fn outcome(&self) -> Outcome {
        let state = self.shared.state.lock().expect(LOCK);
        state.ended.clone().unwrap_or_else(|| state.outcome(End::GivenUp))
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.shared.end(End::GivenUp);
    }
}

/// It is over: no chunk comes any more.
pub struct Over;

enum Stands {
    Going(Option<Instant>),
    Over(End),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    All,
    Alone,
    Stalled,
    GivenUp,
}

impl Giver {
    fn owes_what_it_has(&self) -> bool {
        self.has.runs().iter().any(|run| self.owes.count_in(run.clone()) > 0)
    }

    /// Chunk `n` came, if it may.
    fn came(&mut self, n: u32) -> bool {
        self.owes.remove(n..n.saturating_add(1));
        let Some(times) = self.asked.get_mut(&n) else { return false };
        *times -= 1;
        if *times == 0 {
            self.asked.remove(&n);
        }
        true
    }
}

impl State {
    fn sized(&mut self, size: u64) {
        self.size = Some(size);
        self.session.grow(chunks_of(size));
        self.session.complete();
    }

    /// Takes further leaves. Chunks that are here already are not asked for, unless they turn out to be of another file.
    fn learn(&mut self, leaves: &[Sha256]) {
        for leaf in leaves {
            let n = u32::try_from(self.leaves.len()).unwrap_or(u32::MAX);
            self.leaves.push(*leaf);
            self.session.grow(n.saturating_add(1));
            if self.beyond.remove(&n) == Some(*leaf) {
                self.session.already(n..n + 1);
            }
        }
    }

    /// Nobody is left who gives. The caller's own hand joins in only where it can give all that is missing.
    fn is_alone(&self) -> bool {
        self.aside.is_none() && self.givers.values().all(|giver| giver.orders.is_none())
    }

    fn outcome(&self, end: End) -> Outcome {
        let why = match end {
            End::All => "",
            End::Alone => "nobody is left to give it",
            End::Stalled => "next to nothing came",
            End::GivenUp => "it was given up",
        };
        let mut outcome = Outcome { all: end == End::All, why: why.into(), ..Outcome::default() };
        outcome.layout.clone_from(&self.leaves);
        let gave: HashMap<_, _> = self.session.gave().collect();
        for (peer, giver) in &self.givers {
            let gift = gave.get(peer).filter(|gift| gift.bytes > 0);
            if let Some(gift) = gift {
                outcome.gave.push((*peer, gift.bytes, gift.bytes_per_second));
            }
            if giver.whole && giver.told > 0 {
                outcome.told.push((*peer, giver.told));
            }
            if let Some(claim) = giver.dissent {
                outcome.dissenters.push(*peer);
                outcome.dissent.extend(giver.whole.then_some((*peer, claim)));
            }
            match &giver.parted {
                Some(Parting::Left(_)) => outcome.left.push(*peer),
                Some(Parting::Bad(_)) => outcome.bad.push(*peer),
                Some(Parting::Dissents | Parting::Over) => {}
                None if end != End::Stalled => {}
                None if giver.owes_what_it_has() => outcome.owing.push(*peer),
                None if gift.is_none() => {
                    outcome.idle.push(*peer);
                    outcome.referred.extend(giver.referred.then_some(*peer));
                }
                None => {}
            }
            if let Some(parting) = giver.parted.as_ref().filter(|_| end != End::All) {
                outcome.why.push_str(&format!("; {peer}: {parting}"));
            }
        }
        outcome
    }

    /// Hands the session's orders to the writers. A writer that is full or gone has lost its peer.
    fn pump(&mut self, now: Instant) {
        for order in self.session.next(now) {
            let (Order::Want { peer, .. } | Order::Cancel { peer, .. }) = order;
            if self.order_aside(&peer, &order, now) {
                continue;
            }
            let Some(giver) = self.givers.get_mut(&peer) else { continue };
            let (Order::Want { first, count, .. } | Order::Cancel { first, count, .. }) = &order;
            let (range, wanted) = (*first..first.saturating_add(*count), matches!(order, Order::Want { .. }));
            if giver.orders.as_ref().is_some_and(|orders| orders.try_send(order).is_ok()) {
                if wanted {
                    range.clone().for_each(|n| *giver.asked.entry(n).or_default() += 1);
                    giver.owes.insert(range);
                } else {
                    giver.owes.remove(range);
                }
            } else {
                giver.orders = None;
                self.session.lost(&peer, now);
            }
        }
    }
}

impl Shared {
    /// Begins to speak with a node, unless that was done before or there are enough.
    fn meet(self: &Arc<Self>, peer: PeerId) {
        let inner = &self.exchange.inner;
        let round_trip = inner.swarm.peers().into_iter().find(|p| p.peer == peer).and_then(|p| p.rtt);
        let due = {
            let mut state = self.state.lock().expect(LOCK);
            let spoken_with = state.givers.values().filter(|giver| giver.orders.is_some()).count();
            let met = state.givers.contains_key(&peer) || state.givers.len() >= MET;
            if met || state.ended.is_some() || spoken_with >= GIVERS {
                return;
            }
            let (orders, due) = async_channel::bounded(ORDERS);
            state.givers.insert(peer, Giver { orders: Some(orders), ..Giver::default() });
            let now = Instant::now();
            state.session.peer(peer, round_trip, inner.peers.speed(&peer), now);
            // What is here beyond the known leaves would come a second time.
            let at_once = self.want.whole.contains(&peer) && self.want.beyond.is_empty();
            if let Some(size) = self.want.size.filter(|_| at_once) {
                state.session.has(&peer, 0..chunks_of(size), now);
                if let Some(giver) = state.givers.get_mut(&peer) {
                    giver.has.insert(0..chunks_of(size));
                }
            }
            due
        };
        let shared = self.clone();
        inner.tasks.spawn(async move {
            let parting = shared.converse(peer, due).await;
            shared.left(peer, parting);
        });
    }

    /// Looks at how things stand, without changing anything.
    fn peek<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().expect(LOCK))
    }

    /// Notes what happened, gives the orders that follow from it, and wakes the watch when it may be over.
    fn with<T>(&self, work: impl FnOnce(&mut State, Instant) -> T) -> T {
        let (result, over) = self.act(work);
        if over {
            self.changed.notify(usize::MAX);
        }
        result
    }

    fn act<T>(&self, work: impl FnOnce(&mut State, Instant) -> T) -> (T, bool) {
        let mut state = self.state.lock().expect(LOCK);
        let now = Instant::now();
        let result = work(&mut state, now);
        state.pump(now);
        (result, state.session.is_done() || state.is_alone())
    }

    fn end(&self, end: End) {
        let mut state = self.state.lock().expect(LOCK);
        if state.ended.is_none() {
            state.ended = Some(state.outcome(end));
        }
        state.aside = None;
        drop(state);
        self.over.1.close();
        self.chunks.close();
        self.changed.notify(usize::MAX);
    }

    fn left(&self, peer: PeerId, parting: Parting) {
        self.with(|state, now| {
            if let Some(giver) = state.givers.get_mut(&peer) {
                giver.orders = None;
                giver.parted = Some(parting);
            }
            state.session.lost(&peer, now);
        });
        self.changed.notify(usize::MAX);
    }

    /// Wakes the session when it wants to be, and ends it all: when everything is here, when nobody is left, or when next
    /// to nothing comes.
    async fn watch(&self) {
        let mut counted = (Instant::now(), 0);
        let least = (self.want.patience.as_secs_f64() * self.want.least_per_second as f64) as u64;
        loop {
            let changed = self.changed.listen();
            let now = Instant::now();
            let bytes = self.bytes.load(Ordering::Relaxed);
            let handed_on = || self.waiting.load(Ordering::SeqCst) == 0;
            // While somebody's bytes wait for us, it is not them who are slow.
            if bytes - counted.1 >= least || self.waiting.load(Ordering::SeqCst) > 0 {
                counted = (now, bytes);
            }
            let stalled = now.duration_since(counted.0) >= self.want.patience;
            // Not `with`: a watch that wakes itself never sleeps.
            let (stands, _) = self.act(|state, _| match () {
                () if state.ended.is_some() => Stands::Over(End::GivenUp),
                // A chunk that was counted and is not handed on yet would be lost.
                () if state.session.is_done() && handed_on() => Stands::Over(End::All),
                () if state.is_alone() => Stands::Over(End::Alone),
                () if stalled => Stands::Over(End::Stalled),
                () => Stands::Going(state.session.wake()),
            });
            let wake = match stands {
                Stands::Going(wake) => wake,
                Stands::Over(end) => return self.end(end),
            };
            let look = now + LOOK;
            let until = wake.map_or(look, |wake| wake.min(look)).max(now + Duration::from_millis(1));
            future::or(changed, async {
                async_io::Timer::at(until).await;
            })
            .await;
        }
    }
}

/// So that no two nodes begin with the same chunks.
fn seed(peer: &PeerId) -> [u8; 8] {
    Sha256::of(&peer.to_bytes()).0[..8].try_into().expect("eight of 32")
}

const LOCK: &str = "no panic happens under this lock";
