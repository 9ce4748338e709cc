//! Messages of peers, from streams that they open and as answers on our own.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_lock::Semaphore;
use bytes::Bytes;
use futures_lite::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::base::{PeerId, Sha256, sha256_of_cid};
use crate::swarm::Stream;
use crate::wire::FrameReader;
use crate::wire::bitswap::{MESSAGE_BYTES, Message, PayloadBlock};

use super::super::{BITSWAP, Exchange};
use super::{LOCK, within};

/// Streams read at once, of all peers, and of one: Kubo opens one for each message, eight at a time.
const STREAMS: usize = 512;
const STREAMS_OF_ONE: usize = 32;

/// Bytes of a message from which on it counts as large.
const LARGE_BYTES: usize = 64 << 10;

/// Large messages that are in memory at once, each of 4 MiB at most. Those beyond wait in QUIC's windows.
const LARGE_AT_ONCE: usize = 24;

/// Bytes of a message, of a peer that we ask nothing: wantlists get no larger.
const UNASKED_BYTES: usize = 1 << 20;

/// Time for a message to come, from its first byte.
const MESSAGE_TIME: Duration = Duration::from_secs(60);

/// How long a stream may stay without a message. Kubo keeps its streams; one that was closed meanwhile it opens anew.
const IDLE_TIME: Duration = Duration::from_secs(600);

/// Blocks up to this size are hashed where they were read: on another thread they would wait for it, there and back.
const HASHED_HERE_BYTES: usize = 16 << 10;

/// The streams being read.
pub(super) struct Hearing {
    streams: Mutex<HashMap<PeerId, usize>>,
    large: Arc<Semaphore>,
}

impl Default for Hearing {
    fn default() -> Self {
        Self { streams: Mutex::default(), large: Arc::new(Semaphore::new(LARGE_AT_ONCE)) }
    }
}

impl Hearing {
    fn enter(&self, peer: PeerId) -> bool {
        let mut streams = self.streams.lock().expect(LOCK);
        let of_peer = streams.get(&peer).copied().unwrap_or_default();
        let room = streams.values().sum::<usize>() < STREAMS && of_peer < STREAMS_OF_ONE;
        // Only who has a place leaves one: an entry of anybody else would stay for ever.
        if room {
            streams.insert(peer, of_peer + 1);
        }
        room
    }

    fn leave(&self, peer: &PeerId) {
        let mut streams = self.streams.lock().expect(LOCK);
        if let Some(of_peer) = streams.get_mut(peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                streams.remove(peer);
            }
        }
    }
}

/// Accepts streams for ever.
pub(in crate::exchange) async fn serve(exchange: Exchange) {
    let tasks = exchange.inner.tasks.clone();
    while let Some((peer, stream)) = exchange.inner.swarm.accept(BITSWAP).await {
        let Some(place) = Place::take(&exchange, peer) else {
            // Dropped, it is reset: the peer sees that its message was not taken.
            log::debug!("{peer} opens more bitswap streams than are read");
            continue;
        };
        let exchange = exchange.clone();
        tasks.spawn(async move {
            let _place = place;
            let (reader, mut writer) = futures_lite::io::split(stream);
            let heard = hear(&exchange, peer, reader).await;
            match heard {
                // Nothing is said on streams that others open; what comes of saying so does not matter.
                Ok(()) => drop(writer.close().await),
                Err(e) => log::debug!("a bitswap stream of {peer}: {e}"),
            }
        });
    }
}

/// A place among the streams being read.
struct Place(Exchange, PeerId);

impl Place {
    fn take(exchange: &Exchange, peer: PeerId) -> Option<Self> {
        exchange.inner.bitswap.hearing.enter(peer).then(|| Self(exchange.clone(), peer))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.inner.bitswap.hearing.leave(&self.1);
    }
}

/// Reads what a peer answers on a stream of ours, until it closes.
pub(super) async fn hear_answers(
    exchange: &Exchange,
    peer: PeerId,
    reader: futures_lite::io::ReadHalf<Stream>,
) {
    if let Err(e) = hear(exchange, peer, reader).await {
        log::debug!("answers of {peer}: {e}");
    }
}

/// Reads messages to the stream's end.
async fn hear(exchange: &Exchange, peer: PeerId, mut reader: impl AsyncRead + Unpin) -> Result<()> {
    let mut frames = FrameReader::new(MESSAGE_BYTES);
    loop {
        let first = within(IDLE_TIME, "the next message", read(&mut frames, &mut reader));
        if first.await? == 0 {
            return Ok(());
        }
        let message = finish(exchange, peer, &mut frames, &mut reader);
        within(MESSAGE_TIME, "a message", message).await?;
    }
}

async fn read(frames: &mut FrameReader, reader: &mut (impl AsyncRead + Unpin)) -> Result<usize> {
    let count = reader.read(frames.room()).await?;
    frames.took(count);
    Ok(count)
}

/// Takes every message that has begun.
async fn finish(
    exchange: &Exchange,
    peer: PeerId,
    frames: &mut FrameReader,
    reader: &mut (impl AsyncRead + Unpin),
) -> Result<()> {
    let hearing = &exchange.inner.bitswap.hearing;
    let (mut large, mut length) = (None, 0);
    loop {
        while let Some(frame) = frames.next_frame().map_err(Error::other)? {
            take(exchange, peer, frame).await?;
            (large, length) = (None, 0);
        }
        if frames.is_empty() {
            return Ok(());
        }
        if length >= LARGE_BYTES && large.is_none() {
            large = Some(hearing.large.acquire_arc().await);
        }
        if length >= UNASKED_BYTES && !exchange.inner.bitswap.asking.knows(&peer) {
            return Err(Error::other("it sends more than anybody asked it for"));
        }
        match read(frames, reader).await? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => length += count,
        }
    }
}

async fn take(exchange: &Exchange, peer: PeerId, frame: Bytes) -> Result<()> {
    let message = Message::decode(&frame).map_err(Error::other)?;
    if let Some(wantlist) = &message.wantlist {
        exchange.wanted_by(peer, wantlist);
    }
    let asking = &exchange.inner.bitswap.asking;
    if !message.presences.is_empty() {
        asking.told(&peer, &message.presences);
    }
    if message.payload.is_empty() && message.legacy.is_empty() {
        return Ok(());
    }
    let bytes: usize = message.payload.iter().map(|b| b.data.len()).sum();
    let blocks = match bytes <= HASHED_HERE_BYTES && message.legacy.is_empty() {
        true => named(&message),
        false => exchange.inner.disk.run(move || named(&message)).await,
    };
    exchange.came(peer, blocks);
    Ok(())
}

/// The blocks of a message, named by what they are.
fn named(message: &Message) -> Vec<(Sha256, Bytes)> {
    let name = |block: &PayloadBlock| match block.cid() {
        Ok(cid) => sha256_of_cid(&cid).map(|hash| (hash, block.data.clone())),
        Err(e) => {
            log::debug!("a block is left out: {e}");
            None
        }
    };
    let legacy = message.legacy.iter().map(|data| (Sha256::of(data), data.clone()));
    message.payload.iter().filter_map(name).chain(legacy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        let mut bytes = vec![0x12, 0x20];
        bytes.extend([n; 32]);
        PeerId::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn nobody_stays_who_has_no_place() {
        let hearing = Hearing::default();
        let many = u8::try_from(STREAMS / STREAMS_OF_ONE).unwrap();
        for n in 0..many {
            assert!((0..STREAMS_OF_ONE).all(|_| hearing.enter(peer(n))));
            assert!(!hearing.enter(peer(n)), "its places are taken");
        }
        for n in many..=255 {
            assert!(!hearing.enter(peer(n)), "all places are taken");
        }
        assert_eq!(hearing.streams.lock().unwrap().len(), usize::from(many));
        hearing.leave(&peer(0));
        assert!(hearing.enter(peer(255)));
        for n in 0..many {
            (usize::from(n == 0)..STREAMS_OF_ONE).for_each(|_| hearing.leave(&peer(n)));
        }
        hearing.leave(&peer(255));
        assert!(hearing.streams.lock().unwrap().is_empty());
    }
}
