//! Blocks of catalogues, many with one question: a catalogue has thousands of them, and a round trip each would be
//! minutes.

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use async_lock::Semaphore;
use bytes::Bytes;
use futures_lite::io::{AsyncWrite, AsyncWriteExt};

use crate::base::{Cid, PeerId, Sha256, sha256_of_cid};
use crate::wire::near::{BLOCKS, FRAME_BYTES, Held, Open};

use super::super::Exchange;
use super::NEAR;
use super::io::{Reader, within, write_frame};

/// Bytes of blocks that are read from the index at a time, where more than one fits: 160 KiB at most are in memory for
/// each stream that is served.
const READ_BYTES: usize = 128 << 10;

/// Time for a block to come, or to be taken.
const BLOCK_TIME: Duration = Duration::from_secs(10);

/// Time for all that one question asks for. What came until then stays.
const QUESTION_TIME: Duration = Duration::from_secs(60);

/// Questions under way to one peer: enough that its line is never idle between them.
const AT_ONCE: usize = 4;

/// Bytes of blocks that one call gives, about: what comes beyond has to be asked for again.
const MOST_BYTES: usize = 16 << 20;

/// Blocks up to this size are hashed where they were read, as those of bitswap.
const HASHED_HERE_BYTES: usize = 16 << 10;

/// Gives a peer what is here of these. Blocks of others' catalogues are here too: any member may give them.
pub(super) async fn give(
    exchange: &Exchange,
    peer: PeerId,
    hashes: &[Sha256],
    lookups: &Semaphore,
    writer: &mut (impl AsyncWrite + Unpin),
) -> Result<()> {
    let mut rest = hashes;
    let welcome = exchange.is_welcome(&peer);
    while !rest.is_empty() {
        let some = match welcome {
            true => {
                let _one = lookups.acquire().await;
                let (exchange, hashes) = (exchange.clone(), rest.to_vec());
                exchange.clone().inner.disk.run(move || read(&exchange, &hashes)).await?
            }
            false => vec![None; rest.len()],
        };
        rest = &rest[some.len()..];
        for block in some {
            let bytes = block.unwrap_or_default();
            let length = u32::try_from(bytes.len()).expect("what is kept has a bounded size");
            let held = if bytes.is_empty() { Held::Nothing } else { Held::Block { length } };
            let giving = async {
                writer.write_all(&held.frame()).await?;
                writer.write_all(&bytes).await
            };
            within(BLOCK_TIME, "giving a block", giving).await?;
            exchange.inner.counters.given_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            exchange.inner.peers.took(peer, bytes.len() as u64);
        }
    }
    exchange.inner.counters.answered.fetch_add(1, Ordering::Relaxed);
    within(BLOCK_TIME, "ending", async { writer.close().await }).await
}

/// Reads the first of these blocks, at least one. Blocks.
fn read(exchange: &Exchange, hashes: &[Sha256]) -> Result<Vec<Option<Bytes>>> {
    let mut bytes = 0;
    let mut found = Vec::new();
    for hash in hashes {
        let block = exchange.inner.store.catalogue_block(hash).map_err(Error::other)?;
        bytes += block.as_ref().map_or(0, Bytes::len);
        if bytes > READ_BYTES && !found.is_empty() {
            break;
        }
        found.push(block);
    }
    Ok(found)
}

impl Exchange {
    /// Blocks of catalogues from these peers, as far as they are connected and have them, in any order, each held against
    /// its CID. The first is asked for all of them, the next for what it did not give, and so on: dpm nodes many at a
    /// time, others by bitswap.
    ///
    /// About 16 MiB come at once: what is left out then may be asked for again, and so may what somebody else has. Not
    /// cancel-safe: what came is lost.
    pub async fn blocks(
        &self,
        peers: &[PeerId],
        cids: Vec<Cid>,
    ) -> std::result::Result<Vec<(Cid, Bytes)>, BlocksError> {
        let mut missing: HashMap<Sha256, Cid> =
            cids.into_iter().filter_map(|cid| Some((sha256_of_cid(&cid)?, cid))).collect();
        let (mut got, mut bytes, mut why) = (Vec::new(), 0, None);
        for peer in peers {
            if missing.is_empty() || bytes >= MOST_BYTES {
                break;
            }
            let room = MOST_BYTES - bytes;
            if !self.inner.peers.is_connected(peer) {
                continue;
            }
            let (came, problem) = match self.inner.peers.speaks_dpm(peer) {
                true => self.blocks_of_node(*peer, missing.keys().copied().collect(), room).await,
                false => self.blocks_by_bitswap(*peer, missing.values().copied().collect(), room).await,
            };
            why = problem.map(|problem| format!("{peer}: {problem}")).or(why);
            for (hash, block) in came {
                if let Some(cid) = missing.remove(&hash) {
                    bytes += block.len();
                    got.push((cid, block));
                }
            }
        }
        match got.is_empty() && !missing.is_empty() {
            true => Err(why.map_or(BlocksError::Nobody, BlocksError::Nothing)),
            false => Ok(got),
        }
    }

    /// Asks one dpm node; gives what came, and why no more.
    async fn blocks_of_node(&self, peer: PeerId, hashes: Vec<Sha256>, room: usize) -> Came {
        let questions: Vec<Vec<Sha256>> = hashes.chunks(BLOCKS).map(<[_]>::to_vec).collect();
        let hands = questions.len().min(AT_ONCE);
        let (ask, asked) = async_channel::bounded(questions.len());
        questions.into_iter().for_each(|question| drop(ask.try_send(question)));
        ask.close();
        let (give, given) = async_channel::bounded(BLOCKS);
        let room = Arc::new(AtomicUsize::new(room));
        for _ in 0..hands {
            let (exchange, asked, give, room) = (self.clone(), asked.clone(), give.clone(), room.clone());
            self.inner.tasks.spawn(async move { exchange.ask_for_blocks(peer, asked, give, room).await });
        }
        drop(give);
        collect(given).await
    }

    /// Asks question after question, until there is none, one fails, or enough came.
    async fn ask_for_blocks(
        &self,
        peer: PeerId,
        questions: Receiver<Vec<Sha256>>,
        give: Sender<Result<(Sha256, Bytes)>>,
        room: Arc<AtomicUsize>,
    ) {
        while let Ok(question) = questions.try_recv() {
            let asking = self.ask_for_some(peer, question, &give, &room);
            if let Err(e) = within(QUESTION_TIME, "giving blocks", asking).await {
                // The others of this peer need not be asked; whoever waits for the blocks may have gone.
                while questions.try_recv().is_ok() {}
                let _ = give.send(Err(e)).await;
                return;
            }
        }
    }

    async fn ask_for_some(
        &self,
        peer: PeerId,
        hashes: Vec<Sha256>,
        give: &Sender<Result<(Sha256, Bytes)>>,
        room: &AtomicUsize,
    ) -> Result<()> {
        let opening = async {
            let mut stream = self.inner.swarm.open_at_once(peer, NEAR).await.map_err(Error::other)?;
            write_frame(&mut stream, &Open::Blocks { hashes: hashes.clone() }.frame()).await?;
            stream.close().await?;
            Ok(Reader::new(stream))
        };
        let mut reader = within(BLOCK_TIME, "opening a stream", opening).await?;
        for hash in hashes {
            let block = within(BLOCK_TIME, "a block", block(&mut reader)).await?;
            let Some(bytes) = block else { continue };
            let length = bytes.len();
            let name = move || (Sha256::of(&bytes), bytes);
            let (is, bytes) = match length <= HASHED_HERE_BYTES {
                true => name(),
                false => self.inner.disk.run(name).await,
            };
            if is != hash {
                self.strike(peer, "a block of a catalogue has other bytes");
                return Err(Error::new(ErrorKind::InvalidData, "it sent other bytes"));
            }
            if give.send(Ok((hash, Bytes::from(bytes)))).await.is_err() {
                return Err(Error::other("nobody waits for it"));
            }
            let left = room
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| Some(left.saturating_sub(length)));
            if left.is_ok_and(|left| left <= length) {
                return Err(Error::other("enough came"));
            }
        }
        Ok(())
    }

    async fn blocks_by_bitswap(&self, peer: PeerId, cids: Vec<Cid>, room: usize) -> Came {
        let (mut came, mut bytes) = (Vec::new(), 0);
        let outcome = async {
            let mut fetching = self.fetch_blocks(cids, peer, BLOCK_TIME).await?;
            while let Some(got) = fetching.next().await? {
                bytes += got.data.len();
                came.extend(sha256_of_cid(&got.cid).map(|hash| (hash, got.data)));
                if bytes >= room {
                    break;
                }
            }
            Ok::<_, super::super::FetchError>(())
        };
        let why = outcome.await.err().map(|e| e.to_string());
        (came, why)
    }
}

/// What came, and why no more.
type Came = (Vec<(Sha256, Bytes)>, Option<String>);

async fn collect(given: Receiver<Result<(Sha256, Bytes)>>) -> Came {
    let (mut came, mut why) = (Vec::new(), None);
    while let Ok(one) = given.recv().await {
        match one {
            Ok(block) => came.push(block),
            Err(e) => why = Some(e.to_string()),
        }
    }
    if came.is_empty() && why.is_none() {
        why = Some("it has none of them".into());
    }
    (came, why)
}

/// The next answer: a block's bytes, unless it is not there.
async fn block<R: futures_lite::io::AsyncRead + Unpin>(reader: &mut Reader<R>) -> Result<Option<Vec<u8>>> {
    let frame = reader.frame(FRAME_BYTES).await?.ok_or(ErrorKind::UnexpectedEof)?;
    let Held::Block { length } = Held::decode(&frame).map_err(Error::other)? else { return Ok(None) };
    let mut bytes = vec![0; length as usize];
    let mut at = 0;
    while at < bytes.len() {
        at += reader.some(&mut bytes[at..]).await?;
    }
    Ok(Some(bytes))
}

/// Why no block came.
#[derive(Debug, thiserror::Error)]
pub enum BlocksError {
    /// None of those asked is connected, or no peer was named.
    #[error("nobody who may have it is connected")]
    Nobody,
    /// What the last one of them said, or what became of it.
    #[error("no block came: {0}")]
    Nothing(String),
}
