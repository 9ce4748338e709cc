//! Answers to what peers want: one task a peer, on a stream that we open.
//!
//! A peer has one message under way at a time, and the places for messages go round: so peers share by bytes.

use std::collections::HashMap;
use std::io::Result;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_lock::Semaphore;
use event_listener::Event;

use crate::base::{PeerId, Sha256, sha256_of_cid};
use crate::store::{Block, Change, Store};
use crate::unixfs::Layout;
use crate::wire::bitswap::{BLOCK_BYTES, Message, PayloadBlock, Presence, PresenceKind, WantType, Wantlist};

use super::super::Exchange;
use super::LOCK;
use super::ledger::{Due, Ledger, Outcome};
use super::say::{Voice, comes_within};

/// Bytes of blocks that a message is filled up to. A block that is larger goes alone.
const MESSAGE_FILL_BYTES: usize = 1 << 20;

/// Wants looked up at a time: more than fill a message at the chunk sizes in use.
const LOOKED_UP: usize = 64;

/// A block of this size is sent in place of word that it is here: the peer is spared a round trip.
const INSTEAD_OF_WORD_BYTES: u64 = 1024;

/// Messages with blocks that are in memory at once: 64 MiB of them, or twice that with the largest blocks.
const MESSAGES: usize = 64;

/// How long a stream stays open for the next answer. Helia gives up on a silent one after ten seconds.
const LINGER: Duration = Duration::from_secs(2);

/// Rest after the watch of the store was lost: it is when thousands of artifacts come and go at once.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// What peers want, and who is answered now.
pub(super) struct Giving {
    desk: Mutex<Desk>,
    messages: Arc<Semaphore>,
}

#[derive(Default)]
struct Desk {
    ledger: Ledger,
    givers: HashMap<PeerId, Arc<Event>>,
}

impl Default for Giving {
    fn default() -> Self {
        Self { desk: Mutex::default(), messages: Arc::new(Semaphore::new(MESSAGES)) }
    }
}

impl Desk {
    /// Ends a giver that has nothing to do.
    fn retires(&mut self, peer: &PeerId) -> bool {
        self.ledger.is_idle(peer) && self.givers.remove(peer).is_some()
    }
}

impl Giving {
    fn with<T>(&self, work: impl FnOnce(&mut Desk) -> T) -> T {
        work(&mut self.desk.lock().expect(LOCK))
    }

    /// The peer wants nothing any more.
    pub(super) fn gone(&self, peer: &PeerId) {
        self.with(|desk| desk.ledger.gone(peer));
    }
}

impl Exchange {
    /// Takes a peer's wantlist, and has it answered.
    pub(super) fn wanted_by(&self, peer: PeerId, wantlist: &Wantlist) {
        let (due, ignored) = self.inner.bitswap.giving.with(|desk| {
            let before = desk.ledger.ignored();
            (desk.ledger.told(peer, wantlist), desk.ledger.ignored() - before)
        });
        if ignored > 0 {
            log::debug!("{peer} wants too much: {ignored} wants are ignored");
        }
        if due {
            self.attend(peer);
        }
    }

    /// Sees to it that what is due to a peer is looked up: by the task that does it already, or by a new one.
    fn attend(&self, peer: PeerId) {
        let new = self.inner.bitswap.giving.with(|desk| match desk.givers.get(&peer) {
            Some(event) => {
                event.notify(1);
                None
            }
            None => {
                let event = Arc::new(Event::new());
                desk.givers.insert(peer, event.clone());
                Some(event)
            }
        });
        if let Some(event) = new {
            let exchange = self.clone();
            let voice = Voice::new(self.clone(), peer);
            self.inner.tasks.spawn(Giver { exchange, peer, event, voice }.run());
        }
    }
}

/// Looks at what is stored from now on, for those who wait for it.
pub(in crate::exchange) async fn watch(exchange: Exchange) {
    let giving = &exchange.inner.bitswap.giving;
    loop {
        let changes = exchange.inner.store.watch();
        // What came while nobody watched.
        for peer in giving.with(|desk| desk.ledger.look_again()) {
            exchange.attend(peer);
        }
        while let Ok(change) = changes.recv().await {
            let Change::Added(sha256) = change else { continue };
            if giving.with(|desk| desk.ledger.is_empty()) {
                continue;
            }
            let store = exchange.inner.store.clone();
            let hashes = exchange.inner.disk.run(move || blocks_of(&store, sha256)).await;
            for peer in giving.with(|desk| desk.ledger.arrived(hashes)) {
                exchange.attend(peer);
            }
        }
        async_io::Timer::after(WATCH_AGAIN).await;
    }
}

/// The hashes of everything that an artifact can be asked for by.
fn blocks_of(store: &Store, sha256: Sha256) -> Vec<Sha256> {
    let found = store.find(&sha256.digest()).and_then(|stored| Ok(stored.zip(store.leaves(&sha256)?)));
    match found {
        Ok(Some((stored, leaves))) => {
            let layout = Layout { size: stored.size, leaves };
            let nodes = layout.tree().1;
            let nodes = nodes.iter().filter_map(|node| sha256_of_cid(&node.cid));
            nodes.chain([sha256]).chain(layout.leaves.iter().copied()).collect()
        }
        Ok(None) => vec![sha256],
        Err(e) => {
            log::error!("looking for the blocks of {sha256}: {e}");
            Vec::new()
        }
    }
}

/// Answers one peer.
struct Giver {
    exchange: Exchange,
    peer: PeerId,
    event: Arc<Event>,
    voice: Voice,
}

/// What is said, and what that means for the ledger.
struct Answer {
    message: Message,
    bytes: u64,
    outcomes: Vec<(Due, Outcome)>,
}

impl Giver {
    async fn run(mut self) {
        match self.answer().await {
            Ok(()) => self.voice.close().await,
            Err(e) => {
                log::debug!("answering {}: {e}", self.peer);
                self.exchange.inner.bitswap.giving.with(|desk| {
                    desk.ledger.gone(&self.peer);
                    desk.givers.remove(&self.peer);
                });
            }
        }
    }

    /// Answers until nothing has been due for a while.
    async fn answer(&mut self) -> Result<()> {
        let (exchange, peer) = (self.exchange.clone(), self.peer);
        let giving = &exchange.inner.bitswap.giving;
        exchange.placed(&peer).await;
        loop {
            let more = self.event.listen();
            let due = giving.with(|desk| desk.ledger.due(&peer, LOOKED_UP));
            if due.is_empty() {
                if !comes_within(more, LINGER).await && giving.with(|desk| desk.retires(&peer)) {
                    return Ok(());
                }
                continue;
            }
            let _place = giving.messages.acquire().await;
            let asked = exchange.clone();
            let answer = exchange.inner.disk.run(move || look_up(&asked, &peer, due)).await;
            giving.with(|desk| {
                for (due, outcome) in &answer.outcomes {
                    desk.ledger.looked_up(&peer, due, *outcome);
                }
            });
            if !answer.message.is_empty() {
                self.voice.say(&answer.message.frame()).await?;
                exchange.inner.counters.given_bytes.fetch_add(answer.bytes, Ordering::Relaxed);
                exchange.inner.peers.took(peer, answer.bytes);
            }
        }
    }
}

/// Looks up wants until a message is full. Blocks.
fn look_up(exchange: &Exchange, peer: &PeerId, due: Vec<Due>) -> Answer {
    let mut answer =
        Answer { message: Message::default(), bytes: 0, outcomes: Vec::with_capacity(due.len()) };
    let mut full = false;
    for want in due {
        let outcome = match full {
            true => Outcome::Postponed,
            false => answer.put(exchange, peer, &want),
        };
        full |= outcome == Outcome::Postponed;
        answer.outcomes.push((want, outcome));
    }
    answer
}

impl Answer {
    fn put(&mut self, exchange: &Exchange, peer: &PeerId, want: &Due) -> Outcome {
        let store = &exchange.inner.store;
        let may = |block: &Block| match block.artifact() {
            Some(artifact) => exchange.may_give(peer, block.access(), &artifact),
            None => exchange.is_welcome(peer),
        };
        let found = store.block_that(&want.cid, may).unwrap_or_else(|e| {
            log::error!("looking for the block {}: {e}", want.cid);
            None
        });
        let small = |block: &Block| block.length() <= BLOCK_BYTES as u64;
        let Some(block) = found.filter(small) else { return self.lacks(want) };
        if want.kind == WantType::Have && block.length() > INSTEAD_OF_WORD_BYTES {
            self.message.presences.push(Presence { cid: want.cid, kind: PresenceKind::Have });
            return Outcome::Answered;
        }
        if self.bytes > 0 && self.bytes + block.length() > MESSAGE_FILL_BYTES as u64 {
            return Outcome::Postponed;
        }
        match block.read() {
            Ok(bytes) => {
                self.bytes += bytes.len() as u64;
                block.artifact().into_iter().for_each(|artifact| store.touch(artifact));
                self.message.payload.push(PayloadBlock::new(&want.cid, bytes.into()));
                Outcome::Answered
            }
            Err(e) => {
                log::error!("reading the block {}: {e}", want.cid);
                self.lacks(want)
            }
        }
    }

    fn lacks(&mut self, want: &Due) -> Outcome {
        if want.tell_absence {
            self.message.presences.push(Presence { cid: want.cid, kind: PresenceKind::DontHave });
        }
        Outcome::Absent
    }
}
