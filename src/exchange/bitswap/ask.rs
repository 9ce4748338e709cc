//! What we want of peers: one task a peer writes it.
//!
//! The first want goes out at once, and whatever has gathered whenever the last write is done: no timer.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use event_listener::Event;
use lru::LruCache;

use crate::base::{Cid, PeerId, Sha256, sha256_of_cid};
use crate::wire::bitswap::{Entry, Message, Presence, WANTS, WantType, Wantlist};

use super::super::Exchange;
use super::LOCK;
use super::fetch::Fetch;
use super::say::{Voice, comes_within};

/// How long our end of a stream stays open without a want. Helia gives up on a silent one after ten seconds.
const LINGER: Duration = Duration::from_secs(5);

/// Peers whose wants are remembered, and how many of each: late answers are no lies.
const REMEMBERED_PEERS: NonZeroUsize = NonZeroUsize::new(64).expect("not zero");
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Who is asked for what, and by whom.
pub(super) struct Asking {
    inner: Mutex<Inner>,
}

struct Inner {
    lines: HashMap<PeerId, Line>,
    /// Hashes of what each was asked for a while ago.
    asked: LruCache<PeerId, LruCache<Sha256, ()>>,
    fetches: Vec<Arc<Fetch>>,
}

/// What one peer is asked for. Bounded by what the fetches want at once.
#[derive(Default)]
struct Line {
    wants: HashMap<Sha256, Open>,
    /// Not written yet.
    due: Vec<Entry>,
    writer: Option<Arc<Event>>,
}

/// A want that the peer has not answered.
#[derive(Clone, Copy)]
struct Open {
    cid: Cid,
    kind: WantType,
    /// How many fetches want it.
    of: u32,
}

/// Something to be wanted of a peer.
pub(super) struct Want {
    pub(super) peer: PeerId,
    pub(super) cid: Cid,
    pub(super) kind: WantType,
    pub(super) priority: i32,
    /// The same fetch has wanted it of the peer before, and not taken it back.
    pub(super) again: bool,
}

impl Default for Asking {
    fn default() -> Self {
        let (lines, fetches) = (HashMap::new(), Vec::new());
        Self { inner: Mutex::new(Inner { lines, asked: LruCache::new(REMEMBERED_PEERS), fetches }) }
    }
}

impl Asking {
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().expect(LOCK))
    }

    pub(super) fn enter(&self, fetch: Arc<Fetch>) {
        self.with(|inner| inner.fetches.push(fetch));
    }

    pub(super) fn leave(&self, fetch: &Arc<Fetch>) {
        self.with(|inner| inner.fetches.retain(|f| !Arc::ptr_eq(f, fetch)));
    }

    fn fetches(&self) -> Vec<Arc<Fetch>> {
        self.with(|inner| inner.fetches.clone())
    }

    /// Whether a peer was asked for anything lately.
    pub(super) fn knows(&self, peer: &PeerId) -> bool {
        self.with(|inner| inner.asked.contains(peer))
    }

    /// A peer told what it has and has not.
    pub(super) fn told(&self, peer: &PeerId, presences: &[Presence]) {
        for fetch in self.fetches() {
            fetch.told(peer, presences);
        }
    }

    /// A peer is gone, or does not listen.
    pub(super) fn gone(&self, peer: &PeerId) {
        self.with(|inner| {
            if let Some(line) = inner.lines.remove(peer)
                && let Some(writer) = line.writer
            {
                writer.notify(1);
            }
        });
        for fetch in self.fetches() {
            fetch.lost(peer);
        }
    }
}

impl Inner {
    fn want(&mut self, want: &Want) {
        let Want { peer, cid, kind, priority, again } = *want;
        let Some(hash) = sha256_of_cid(&cid) else { return };
        let line = self.lines.entry(peer).or_default();
        let open = line.wants.entry(hash).or_insert(Open { cid, kind, of: 0 });
        if open.of == 0 || !again {
            open.of += 1;
        }
        if open.of == 1 || again || open.kind == WantType::Have && kind == WantType::Block {
            open.kind = kind;
            // In one message with its cancel it would count as cancelled (Kubo).
            line.due.retain(|entry| entry.cid != cid);
            line.due.push(Entry::want(cid, kind, priority));
        }
        let asked = self.asked.get_or_insert_mut(peer, || LruCache::new(REMEMBERED));
        asked.put(hash, ());
    }

    fn cancel(&mut self, peer: &PeerId, cid: &Cid) {
        let Some(line) = self.lines.get_mut(peer) else { return };
        let Some(hash) = sha256_of_cid(cid) else { return };
        let Some(open) = line.wants.get_mut(&hash) else { return };
        open.of = open.of.saturating_sub(1);
        if open.of == 0 {
            let cid = open.cid;
            line.wants.remove(&hash);
            let before = line.due.len();
            line.due.retain(|entry| entry.cid != cid);
            // One that was not said needs no taking back.
            if line.due.len() == before {
                line.due.push(Entry::cancel(cid));
            }
        }
    }
}

impl Exchange {
    /// Has peers told what is wanted of them, and what is not any more.
    pub(super) fn say_wants(&self, wants: &[Want], cancels: &[(PeerId, Cid)]) {
        if wants.is_empty() && cancels.is_empty() {
            return;
        }
        let mut new = Vec::new();
        self.inner.bitswap.asking.with(|inner| {
            cancels.iter().for_each(|(peer, cid)| inner.cancel(peer, cid));
            wants.iter().for_each(|want| inner.want(want));
            for (peer, line) in inner.lines.iter_mut().filter(|(_, line)| !line.due.is_empty()) {
                match &line.writer {
                    Some(event) => drop(event.notify(1)),
                    None => {
                        let event = Arc::new(Event::new());
                        line.writer = Some(event.clone());
                        new.push((*peer, event));
                    }
                }
            }
        });
        for (peer, event) in new {
            let exchange = self.clone();
            self.inner.tasks.spawn(async move { write(exchange, peer, event).await });
        }
    }

    /// Blocks came from a peer, named by what they are.
    pub(super) fn came(&self, peer: PeerId, blocks: Vec<(Sha256, Bytes)>) {
        let asking = &self.inner.bitswap.asking;
        let unasked = asking.with(|inner| {
            if let Some(line) = inner.lines.get_mut(&peer) {
                for (hash, _) in &blocks {
                    line.wants.remove(hash);
                }
            }
            let asked = inner.asked.peek(&peer);
            blocks.iter().any(|(hash, _)| asked.is_none_or(|asked| !asked.contains(hash)))
        });
        let fetches = asking.fetches();
        if unasked {
            // A block with other bytes is just another block: one that nobody asked for.
            fetches.iter().for_each(|fetch| fetch.lied(&peer));
            self.strike(peer, "it sent a block that it was not asked for, or with other bytes");
            return;
        }
        for fetch in fetches {
            fetch.came(&peer, &blocks);
        }
    }
}

/// Writes what is due to a peer until nothing has been for a while, or it is gone.
async fn write(exchange: Exchange, peer: PeerId, event: Arc<Event>) {
    let asking = &exchange.inner.bitswap.asking;
    let mut voice = Voice::new(exchange.clone(), peer);
    loop {
        let more = event.listen();
        // `None`: this writer is not the peer's any more.
        let due = asking.with(|inner| {
            let line = inner.lines.get_mut(&peer)?;
            let ours = line.writer.as_ref().is_some_and(|writer| Arc::ptr_eq(writer, &event));
            ours.then(|| line.due.drain(..line.due.len().min(WANTS)).collect::<Vec<_>>())
        });
        let Some(entries) = due else { break };
        if entries.is_empty() {
            if !comes_within(more, LINGER).await && asking.with(|inner| inner.retires(&peer)) {
                break;
            }
            continue;
        }
        let wantlist = Some(Wantlist { entries, full: false });
        let said = voice.say(&Message { wantlist, ..Message::default() }.frame()).await;
        if let Err(e) = said {
            log::debug!("asking {peer}: {e}");
            asking.gone(&peer);
            return;
        }
    }
    voice.close().await;
}

impl Inner {
    /// Ends a writer that has nothing to do.
    fn retires(&mut self, peer: &PeerId) -> bool {
        let Some(line) = self.lines.get_mut(peer) else { return true };
        // While something is wanted the stream stays: py-libp2p answers on it.
        let idle = line.due.is_empty() && line.wants.is_empty();
        if idle {
            self.lines.remove(peer);
        }
        idle
    }
}
