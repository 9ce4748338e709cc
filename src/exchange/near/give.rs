//! Giving an artifact, chunk by chunk: from the store, or from what is on its way in.

mod given;
mod wanted;

use std::fs::File;
use std::io::{Error, Result};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_lite::future;
use futures_lite::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::base::{Access, Cid, Digest, PeerId, Sha256, raw_cid};
use crate::store::{StoreError, Stored, read_cached};
use crate::wire::near::{LEAVES, Tell};

use super::super::Exchange;
use super::super::partial::{End, Partial, chunks_of, span};
use super::io::{Reader, within, write_frame};
pub(in crate::exchange) use given::Given;
use given::{ELSEWHERE_TIME, HOLD, Taker};
use wanted::{Next, Wanted};

/// Bytes read from the disk and written to a peer at a time.
const PIECE_BYTES: usize = 64 << 10;

/// Time in which a taker must take a piece: slower than 6 KiB/s is a place kept for nothing.
const PIECE_TIME: Duration = Duration::from_secs(10);

/// How long a taker may want nothing, or wait for what does not come.
const IDLE_TIME: Duration = Duration::from_secs(60);

enum Source {
    Stored(Arc<Stored>),
    Coming(Arc<Partial>),
}

/// Serves one taker until it is content, too slow, or cannot be served.
pub(super) async fn give<R, W>(
    exchange: &Exchange,
    peer: PeerId,
    digest: Digest,
    reader: Reader<R>,
    mut writer: W,
) -> Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Some(source) = find(exchange, peer, digest).await else {
        write_frame(&mut writer, &Tell::Gone { reason: 0 }.frame()).await?;
        return writer.close().await;
    };
    let wanted = Wanted::default();
    let near = exchange.inner.peers.is_near(&peer);
    // Nobody is sent to a member elsewhere, nor is it sent to anybody: it is not told who is here.
    let _taker = near.then(|| Taker::begin(&exchange.inner.given, digest, peer));
    let giving = Giving { exchange, peer, near, digest, wanted: &wanted, told: Told::default() };
    future::or(wanted.read(reader), giving.write(source, writer)).await
}

async fn find(exchange: &Exchange, peer: PeerId, digest: Digest) -> Option<Source> {
    let asked = exchange.clone();
    let look = move || {
        let found = asked.inner.store.find(&digest)?;
        Ok::<_, StoreError>(found.filter(|stored| asked.may_give(&peer, stored.access, &stored.sha256)))
    };
    match exchange.inner.disk.run(look).await {
        Ok(Some(stored)) => Some(Source::Stored(stored)),
        Ok(None) => {
            // Only what anybody may have is ever shown as coming, and only to those around.
            let may =
                exchange.inner.sharing.may(&peer, Access::Public) && exchange.inner.peers.is_near(&peer);
            exchange.inner.partials.find(&digest).filter(|_| may).map(Source::Coming)
        }
        Err(e) => {
            log::error!("looking for {digest}: {e}");
            None
        }
    }
}

#[derive(Default)]
struct Told {
    head: bool,
    size: Option<u64>,
    leaves: usize,
    chunks: usize,
    /// That all of it is here.
    all: bool,
    /// Of which attempt, of one on its way in.
    attempt: Option<u32>,
}

struct Giving<'a> {
    exchange: &'a Exchange,
    peer: PeerId,
    near: bool,
    digest: Digest,
    wanted: &'a Wanted,
    told: Told,
}

impl Giving<'_> {
    async fn write(mut self, mut source: Source, mut writer: impl AsyncWrite + Unpin) -> Result<()> {
        let mut idle_since = Instant::now();
        loop {
            // Before anything is looked at: what changes from here on wakes us.
            let wants = self.wanted.changed.listen();
            let coming = match &source {
                Source::Coming(partial) => Some(partial.listen()),
                Source::Stored(_) => None,
            };
            let ended = match &source {
                Source::Stored(stored) => {
                    let stored = stored.clone();
                    self.tell_stored(&stored, &mut writer).await?;
                    None
                }
                Source::Coming(partial) => {
                    let partial = partial.clone();
                    self.tell_coming(&partial, &mut writer).await?
                }
            };
            match ended {
                None => {}
                Some(End::Stored) => {
                    source = match find(self.exchange, self.peer, self.digest).await {
                        Some(source @ Source::Stored(_)) => source,
                        _ => return gone(writer).await,
                    };
                    continue;
                }
                Some(End::Failed) => return gone(writer).await,
            }
            let until = match self.next(&source)? {
                Next::Refer(n, other) => {
                    self.exchange.inner.counters.elsewhere.fetch_add(1, Ordering::Relaxed);
                    self.tell(Tell::Elsewhere { n, peer: other }, &mut writer).await?;
                    continue;
                }
                Next::Give(n) => {
                    idle_since = Instant::now();
                    self.send(&source, n, &mut writer).await?;
                    continue;
                }
                Next::Wait(until) => until.unwrap_or(idle_since + IDLE_TIME),
            };
            if idle_since.elapsed() >= IDLE_TIME {
                return gone(writer).await;
            }
            let something = future::or(wants, async {
                match coming {
                    Some(coming) => coming.await,
                    None => future::pending().await,
                }
            });
            future::or(something, async {
                async_io::Timer::at(until).await;
            })
            .await;
        }
    }

    fn next(&self, source: &Source) -> Result<Next> {
        let inner = &self.exchange.inner;
        let (given, digest, peer) = (&inner.given, self.digest, self.peer);
        // Nobody shows the last chunk before the whole is proved.
        let last = self.told.size.map(|size| chunks_of(size) - 1);
        let elsewhere = |n| given.elsewhere(&digest, n, peer).filter(|_| self.near && last != Some(n));
        let next = match source {
            Source::Stored(stored) => {
                let chunks = chunks_of(stored.size);
                match self.wanted.next(|_| true, elsewhere, self.hold()) {
                    Next::Give(n) if n >= chunks => {
                        return Err(Error::other("it wants what lies beyond the end"));
                    }
                    next => next,
                }
            }
            Source::Coming(partial) => {
                // Who asks before it was told what there is gets no chunk before its leaf.
                let can = |n: u32| (n as usize) < self.told.leaves && partial.chunk(n).is_some();
                match partial.of() == Some(inner.swarm.peer_id()) {
                    true => self.wanted.next(can, elsewhere, self.hold()),
                    // Whoever has it from others has been sent here, or will be: that is enough of a way.
                    false => self.wanted.next(can, |_| None, Duration::ZERO),
                }
            }
        };
        Ok(next)
    }

    /// How long what is wanted waits for others to want it too.
    fn hold(&self) -> Duration {
        match self.exchange.inner.given.is_ahead(&self.digest, self.peer) {
            true => HOLD,
            false => Duration::ZERO,
        }
    }

    async fn tell(&mut self, tell: Tell, writer: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        within(PIECE_TIME, "telling", write_frame(writer, &tell.frame())).await
    }

    async fn tell_head(
        &mut self,
        size: Option<u64>,
        root: Option<Cid>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<()> {
        if !self.told.head || self.told.size != size {
            (self.told.head, self.told.size) = (true, size);
            self.tell(Tell::Head { size, root }, writer).await?;
        }
        Ok(())
    }

    async fn tell_leaves(&mut self, leaves: &[Sha256], writer: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        for part in leaves.chunks(LEAVES) {
            let first = u32::try_from(self.told.leaves).unwrap_or(u32::MAX);
            self.tell(Tell::Leaves { first, hashes: part.to_vec() }, writer).await?;
            self.told.leaves += part.len();
        }
        Ok(())
    }

    /// Tells all there is to tell of a stored artifact, once.
    async fn tell_stored(
        &mut self,
        stored: &Arc<Stored>,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<()> {
        let root = stored.root.unwrap_or_else(|| raw_cid(stored.sha256));
        self.tell_head(Some(stored.size), Some(root), writer).await?;
        if !std::mem::replace(&mut self.told.all, true) {
            let chunks = chunks_of(stored.size);
            let (store, sha256) = (self.exchange.inner.store.clone(), stored.sha256);
            let leaves = self.exchange.inner.disk.run(move || store.leaves(&sha256)).await;
            let leaves = leaves.map_err(Error::other)?.ok_or_else(|| Error::other("it was taken out"))?;
            let told = self.told.leaves.min(leaves.len());
            self.tell_leaves(&leaves[told..], writer).await?;
            self.tell(Tell::Have { first: 0, count: chunks }, writer).await?;
        }
        Ok(())
    }

    /// Tells what is new of an artifact on its way in; gives its end, if that has come.
    async fn tell_coming(
        &mut self,
        partial: &Partial,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Option<End>> {
        let view = partial.view(self.told.leaves, self.told.chunks);
        // What was told of an earlier attempt cannot be untold: the taker asks anew.
        if *self.told.attempt.get_or_insert(view.attempt) != view.attempt {
            return Ok(Some(End::Failed));
        }
        if view.end.is_some() {
            return Ok(view.end);
        }
        if view.size.is_some() {
            self.tell_head(view.size, None, writer).await?;
        }
        self.tell_leaves(&view.leaves, writer).await?;
        // A chunk is of use only with its leaf, and the leaves are told in order.
        let known = self.told.leaves;
        let tellable = view.chunks.iter().take_while(|n| (**n as usize) < known).count();
        self.told.chunks += tellable;
        let mut chunks = view.chunks[..tellable].to_vec();
        chunks.sort_unstable();
        for run in chunks.chunk_by(|a, b| a + 1 == *b) {
            let (first, count) = (run[0], u32::try_from(run.len()).unwrap_or(u32::MAX));
            self.tell(Tell::Have { first, count }, writer).await?;
        }
        Ok(None)
    }

    async fn send(&mut self, source: &Source, n: u32, writer: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        let inner = &self.exchange.inner;
        if !self.exchange.is_present(&self.peer) {
            return Err(Error::other("it is in no room with us any more"));
        }
        inner.given.begins(&self.digest, n, self.peer);
        let (bytes, (offset, length)) = match source {
            Source::Stored(stored) => {
                inner.store.touch(stored.sha256);
                (Bytes::Stored(stored.clone()), span(n, stored.size))
            }
            Source::Coming(partial) => {
                let (file, size) = partial.chunk(n).ok_or_else(|| Error::other("a chunk is gone"))?;
                (Bytes::File(file), span(n, size.unwrap_or(u64::MAX)))
            }
        };
        let length32 = u32::try_from(length).expect("a chunk is 1 MiB at most");
        self.tell(Tell::Chunk { n, length: length32 }, writer).await?;
        let mut at = offset;
        while at < offset + length {
            let want = usize::try_from(offset + length - at).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
            let piece = bytes.read(self.exchange, at, want).await?;
            // Looked at after the read: the file is not overwritten before it has changed.
            if let Source::Coming(partial) = source
                && self.told.attempt != Some(partial.attempt())
            {
                return Err(Error::other("what it is given was taken back"));
            }
            within(PIECE_TIME, "giving a piece", writer.write_all(&piece)).await?;
            at += piece.len() as u64;
        }
        within(PIECE_TIME, "giving a chunk", writer.flush()).await?;
        inner.given.note(&self.digest, n, self.peer, ELSEWHERE_TIME);
        inner.counters.given_bytes.fetch_add(length, Ordering::Relaxed);
        inner.peers.took(self.peer, length);
        Ok(())
    }
}

async fn gone(mut writer: impl AsyncWrite + Unpin) -> Result<()> {
    within(PIECE_TIME, "saying so", async {
        write_frame(&mut writer, &Tell::Gone { reason: 0 }.frame()).await?;
        writer.close().await
    })
    .await
}

enum Bytes {
    Stored(Arc<Stored>),
    File(Arc<File>),
}

impl Bytes {
    /// Up to `want` bytes, at least one.
    async fn read(&self, exchange: &Exchange, at: u64, want: usize) -> Result<Vec<u8>> {
        let mut buffer = vec![0; want];
        let cached = match self {
            Self::Stored(stored) => stored.read_cached(&mut buffer, at),
            Self::File(file) => read_cached(file, &mut buffer, at),
        };
        if let Some(n) = cached {
            buffer.truncate(n);
            return Ok(buffer);
        }
        let bytes = match self {
            Self::Stored(stored) => Self::Stored(stored.clone()),
            Self::File(file) => Self::File(file.clone()),
        };
        let read = move || {
            let n = match &bytes {
                Self::Stored(stored) => stored.read(&mut buffer, at)?,
                Self::File(file) => file.read_at(&mut buffer, at)?,
            };
            buffer.truncate(n);
            if n == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(buffer) }
        };
        exchange.inner.disk.run(read).await
    }
}
