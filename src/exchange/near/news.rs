//! News: what a node has, told to every node it is connected to, so that nobody needs to ask who has it.

use std::collections::hash_map::Entry;
use std::io::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;

use crate::base::{PeerId, Sha256};
use crate::store::Change;
use crate::wire::near::{FRAME_BYTES, NEWS, News, Open};

use super::super::Exchange;
use super::NEAR;
use super::io::{Reader, within, write_frame};

/// Artifacts told of at the beginning. Those beyond are found by asking.
const CATALOGUE: usize = 65_536;

/// Changes are gathered for so long before they are told.
const GATHER: Duration = Duration::from_millis(500);

/// Time for a peer to take a frame.
const FRAME_TIME: Duration = Duration::from_secs(30);

/// Pause between two frames of news that are taken: a whole catalogue still takes less than a second, and one that never
/// ends takes a small part of a processor.
const PAUSE: Duration = Duration::from_millis(10);

/// Pause before a peer is told anew, when the stream ended and the peer is still there: the list is long …
const AGAIN: Duration = Duration::from_secs(30);

/// … and when the peer came back in between.
const SOON: Duration = Duration::from_secs(1);

/// Takes news from a peer until it closes, or opens another stream for them (`latest` says no). What it told is forgotten then: nobody would say when it changes.
pub(super) async fn listen<R>(
    exchange: &Exchange,
    peer: PeerId,
    first: News,
    mut reader: Reader<R>,
    latest: impl Fn() -> bool,
) -> Result<()>
where
    R: futures_lite::io::AsyncRead + Unpin,
{
    let taken = take(exchange, peer, first, &mut reader, &latest).await;
    if latest() {
        exchange.inner.peers.news(peer, true, &[], &[]);
    }
    taken
}

async fn take<R>(
    exchange: &Exchange,
    peer: PeerId,
    first: News,
    reader: &mut Reader<R>,
    latest: &impl Fn() -> bool,
) -> Result<()>
where
    R: futures_lite::io::AsyncRead + Unpin,
{
    let mut news = first;
    loop {
        if !latest() {
            return Ok(());
        }
        exchange.inner.peers.news(peer, news.reset, &news.added, &news.removed);
        let next = news.sequence.checked_add(1);
        async_io::Timer::after(PAUSE).await;
        let Some(frame) = reader.frame(FRAME_BYTES).await? else { return Ok(()) };
        news = News::decode(&frame).map_err(Error::other)?;
        if Some(news.sequence) != next {
            return Err(Error::other("its news have a gap"));
        }
    }
}

/// Tells a peer what this node has, then what changes, as long as it is there. A peer is told once at a time, however
/// often it introduces itself.
pub(in crate::exchange) async fn tell(exchange: Exchange, peer: PeerId) {
    let inner = &exchange.inner;
    if !inner.sharing.may(&peer, crate::base::Access::Public) {
        return;
    }
    let back = match inner.told.lock().expect(LOCK).entry(peer) {
        Entry::Vacant(place) => place.insert(Arc::default()).clone(),
        Entry::Occupied(told) => {
            told.get().notify(1);
            return;
        }
    };
    loop {
        let came = back.listen();
        if let Err(e) = tell_all(&exchange, peer).await {
            log::debug!("telling {peer} the news: {e}");
        }
        // Under the lock, or one who comes back right now would be told by nobody.
        {
            let mut told = inner.told.lock().expect(LOCK);
            if !inner.peers.is_near(&peer) {
                told.remove(&peer);
                return;
            }
        }
        async_io::Timer::after(SOON).await;
        future::or(came, async {
            async_io::Timer::after(AGAIN).await;
        })
        .await;
    }
}

const LOCK: &str = "nothing panics under this lock";

async fn tell_all(exchange: &Exchange, peer: PeerId) -> Result<()> {
    let stream = exchange.inner.swarm.open(peer, NEAR).await.map_err(Error::other)?;
    let (mut reader, writer) = futures_lite::io::split(stream);
    let mut teller = Teller { writer, sequence: 0 };
    let telling = async {
        loop {
            // First the watch, then the list: what changes in between is told twice, not never.
            let changes = exchange.inner.store.watch();
            let store = exchange.inner.store.clone();
            let all = exchange.inner.disk.run(move || store.public_artifacts(CATALOGUE)).await;
            let all = all.map_err(Error::other)?;
            let mut parts = all.chunks(NEWS);
            teller.say(true, parts.next().unwrap_or_default(), &[]).await?;
            for part in parts {
                teller.say(false, part, &[]).await?;
            }
            while let Ok(change) = changes.recv().await {
                async_io::Timer::after(GATHER).await;
                let (mut added, mut removed) = (Vec::new(), Vec::new());
                let rest = std::iter::from_fn(|| changes.try_recv().ok()).take(NEWS / 2);
                for change in std::iter::once(change).chain(rest) {
                    let (to, from, sha256) = match change {
                        Change::Added(sha256) => (&mut added, &mut removed, sha256),
                        Change::Removed(sha256) => (&mut removed, &mut added, sha256),
                    };
                    from.retain(|s: &Sha256| *s != sha256);
                    to.push(sha256);
                }
                teller.say(false, &added, &removed).await?;
            }
            // Fallen behind: the whole list again, but not at once.
            async_io::Timer::after(FRAME_TIME).await;
        }
    };
    // The peer says nothing on this stream: when it closes, it is gone.
    let gone = async {
        let mut byte = [0];
        futures_lite::io::AsyncReadExt::read(&mut reader, &mut byte).await.map(drop)
    };
    let moved = async {
        loop {
            let changed = exchange.inner.peers.changed();
            if !exchange.inner.peers.is_near(&peer) {
                return Ok(());
            }
            changed.await;
        }
    };
    future::or(moved, future::or(telling, gone)).await
}

struct Teller<W> {
    writer: W,
    sequence: u64,
}

impl<W: futures_lite::io::AsyncWrite + Unpin> Teller<W> {
    async fn say(&mut self, reset: bool, added: &[Sha256], removed: &[Sha256]) -> Result<()> {
        let news = News { sequence: self.sequence, reset, added: added.to_vec(), removed: removed.to_vec() };
        let frame = if self.sequence == 0 { Open::News(news).frame() } else { news.frame() };
        self.sequence += 1;
        within(FRAME_TIME, "telling", write_frame(&mut self.writer, &frame)).await
    }
}
