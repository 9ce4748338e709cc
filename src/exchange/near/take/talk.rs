//! The conversation with one node that something is taken from.

use std::fmt;
use std::io::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_lock::Mutex;
use futures_lite::future;
use futures_lite::io::{AsyncRead, AsyncWrite};

use crate::base::limits::CHUNK_BYTES;
use crate::base::{PeerId, Sha256};
use crate::wire::near::{Ask, FRAME_BYTES, Open, Tell};

use super::super::super::session::{Arrival, Order};
use super::super::NEAR;
use super::super::io::{Reader, within, write_frame};
use super::{Chunk, Claim, Giver, Place, Shared, chunks_of, span};

/// Frames that a node may send beside chunks: so many, and [`FRAMES_A_CHUNK`] more for each chunk that is known of. Each
/// makes the session think.
const FRAMES: u64 = 256;

/// An honest node tells a leaf, then that it has the chunk; the others are for chunks that it sends us elsewhere for.
const FRAMES_A_CHUNK: u64 = 8;

/// Why a conversation ended.
#[derive(Debug)]
pub(super) enum Parting {
    /// The node went, has it no more, or was lost: that happens.
    Left(String),
    /// It lied, broke the protocol, or is too slow to be of use.
    Bad(String),
    /// What it tells is another thing than what is followed. Who is wrong shows when the whole is there.
    Dissents,
    /// Nothing more is wanted of it.
    Over,
}

impl fmt::Display for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Left(why) | Self::Bad(why) => f.write_str(why),
            Self::Dissents => f.write_str("it tells another thing than the others, or the index"),
            Self::Over => f.write_str("no more was wanted of it"),
        }
    }
}

fn left(e: impl fmt::Display) -> Parting {
    Parting::Left(e.to_string())
}

fn bad(e: impl fmt::Display) -> Parting {
    Parting::Bad(e.to_string())
}

impl Shared {
    /// Speaks with one node until it has nothing more to give or the taking is over.
    pub(super) async fn converse(
        self: &Arc<Self>,
        peer: PeerId,
        due: async_channel::Receiver<Order>,
    ) -> Parting {
        let talk = async {
            let opening = async {
                let stream =
                    self.exchange.inner.swarm.open_at_once(peer, NEAR).await.map_err(Error::other)?;
                let (reader, mut writer) = futures_lite::io::split(stream);
                write_frame(&mut writer, &Open::Take { digest: self.want.digest }.frame()).await?;
                Ok((reader, writer))
            };
            let opened = within(self.want.patience, "opening a stream", opening).await;
            let (reader, writer) = opened.map_err(left)?;
            // A chunk that was counted is handed on, whatever becomes of the orders: nobody is asked for it again.
            let handing = Mutex::new(());
            let orders = async {
                let end = order(due, writer).await;
                let _handed = handing.lock().await;
                end
            };
            future::or(self.listen(peer, Reader::new(reader), &handing), orders).await
        };
        // Whatever the peer keeps us waiting for, it keeps no task of ours.
        let over = async {
            let _ = self.over.1.recv().await;
            Err(Parting::Over)
        };
        future::or(talk, over).await.err().unwrap_or_else(|| left("it closed the stream"))
    }

    async fn listen(
        self: &Arc<Self>,
        peer: PeerId,
        mut reader: Reader<impl AsyncRead + Unpin>,
        handing: &Mutex<()>,
    ) -> Result<(), Parting> {
        let mut frames = 0;
        while let Some(frame) = reader.frame(FRAME_BYTES).await.map_err(left)? {
            let tell = Tell::decode(&frame).map_err(bad)?;
            drop(frame);
            if let Tell::Chunk { n, length } = tell {
                self.chunk(peer, n, length, &mut reader, handing).await?;
                continue;
            }
            frames += 1;
            match tell {
                Tell::Head { size, root } => self.head(peer, size, root.is_some())?,
                Tell::Leaves { first, hashes } => self.leaves(peer, first, &hashes)?,
                Tell::Have { first, count } => self.has(peer, first, count)?,
                Tell::Elsewhere { n, peer: other } => self.elsewhere(peer, n, other),
                Tell::Gone { .. } => {
                    if let Some(sha256) = self.want.digest.sha256() {
                        self.exchange.inner.peers.lacks(&peer, &sha256);
                    }
                    return Err(left("it has it no more"));
                }
                Tell::Unknown(_) | Tell::Chunk { .. } => {}
            }
            let known = self.peek(|state| state.leaves.len() as u64);
            if frames > FRAMES + FRAMES_A_CHUNK * known {
                return Err(bad("it talks and talks"));
            }
        }
        Ok(())
    }

    fn head(&self, peer: PeerId, size: Option<u64>, whole: bool) -> Result<(), Parting> {
        self.with(|state, _| {
            let Some(giver) = state.givers.get_mut(&peer) else { return Ok(()) };
            giver.whole |= whole;
            let Some(size) = size else { return Ok(()) };
            if self.want.size.is_none() && size > self.want.most_bytes {
                // It may well be: but on a stranger's word alone not so much is taken while there is an upstream.
                return Err(Parting::Left("it says that it is larger than is believed of it".into()));
            }
            match state.size {
                Some(known) if known == size => Ok(()),
                None if state.leaves.len() > chunks_of(size) as usize => {
                    Err(bad("it told leaves beyond the end"))
                }
                None => {
                    state.sized(size);
                    Ok(())
                }
                Some(_) => {
                    giver.dissent = Some(Claim::Size(size));
                    Err(Parting::Dissents)
                }
            }
        })
    }

    fn leaves(&self, peer: PeerId, first: u32, hashes: &[Sha256]) -> Result<(), Parting> {
        self.with(|state, _| {
            let chunks = chunks_of(state.size.unwrap_or(self.want.most_bytes)) as usize;
            let Some(giver) = state.givers.get_mut(&peer) else { return Ok(()) };
            let (at, known) = (first as usize, state.leaves.len());
            // In order, each once or again: so that it is known who told what.
            if first > giver.told || at + hashes.len() > chunks {
                return Err(bad("it tells leaves that cannot be"));
            }
            let differs = hashes.iter().zip(&state.leaves[at.min(known)..]).position(|(a, b)| a != b);
            // Who of the two is wrong shows when the whole is there: until then only one layout is followed.
            if let Some(n) = differs {
                giver.dissent = Some(Claim::Leaf(first + n as u32, hashes[n]));
                return Err(Parting::Dissents);
            }
            giver.told = giver.told.max(first + hashes.len() as u32);
            if let Some(new) = hashes.get(known - at..) {
                state.learn(new);
            }
            Ok(())
        })
    }

    fn has(&self, peer: PeerId, first: u32, count: u32) -> Result<(), Parting> {
        self.with(|state, now| {
            let told = state.givers.get(&peer).map_or(0, |giver| giver.told);
            match first.checked_add(count) {
                Some(end) if end <= told => {
                    if let Some(giver) = state.givers.get_mut(&peer) {
                        giver.has.insert(first..end);
                    }
                    state.session.has(&peer, first..end, now);
                    Ok(())
                }
                _ => Err(bad("it has chunks whose leaves it did not tell")),
            }
        })
    }

    fn elsewhere(self: &Arc<Self>, peer: PeerId, n: u32, other: PeerId) {
        // Nobody may have told of it yet: those who begin at once hear of each other this way.
        if self.exchange.inner.peers.nodes().contains(&other) {
            self.meet(other);
        }
        self.with(|state, now| {
            if let Some(giver) = state.givers.get_mut(&peer) {
                giver.came(n);
                giver.referred = true;
            }
            state.session.elsewhere(&peer, n, other, now);
        });
    }

    async fn chunk(
        &self,
        peer: PeerId,
        n: u32,
        length: u32,
        reader: &mut Reader<impl AsyncRead + Unpin>,
        handing: &Mutex<()>,
    ) -> Result<(), Parting> {
        let (leaf, size, missing) = self.peek(|state| {
            // It told the leaf itself, or the whole digest is the leaf.
            let one = state.size.is_some_and(|size| size <= CHUNK_BYTES);
            let may = |giver: &Giver| giver.asked.contains_key(&n) && (n < giver.told || one);
            let asked = state.givers.get(&peer).is_some_and(may);
            let leaf = state.leaves.get(n as usize).copied().filter(|_| asked);
            (leaf, state.size, state.session.missing() > 0)
        });
        let leaf = leaf.ok_or_else(|| bad("it sent a chunk that was not asked for"))?;
        // Without a size only whole chunks are told.
        let expected = size.map_or(CHUNK_BYTES, |size| span(n, size).1);
        if u64::from(length) != expected {
            return Err(bad("it sent a chunk of another length"));
        }
        let waits = Waits::begin(self);
        let place = Place::take(&self.exchange, &peer).await;
        drop(waits);
        if !self.want.last && self.exchange.inner.peers.is_doubted(&peer) {
            return Err(bad("it has let another download down meanwhile"));
        }
        let bytes = self.bytes(length, missing, reader).await?;
        let _waits = Waits::begin(self);
        let hash = move || (Sha256::of(&bytes), bytes);
        let (got, bytes) = self.exchange.inner.disk.run(hash).await;
        if got != leaf {
            self.exchange.inner.counters.wrong_chunks.fetch_add(1, Ordering::Relaxed);
            self.with(|state, now| state.session.wrong(&peer, n, now));
            // It told the leaf itself, or knows it from the digest.
            self.exchange.strike(peer, &format!("chunk {n} of {} has other bytes", self.want.digest));
            return Err(bad("it sent wrong bytes"));
        }
        let _handing = handing.lock().await;
        let arrival = self.with(|state, now| {
            if let Some(giver) = state.givers.get_mut(&peer) {
                giver.came(n);
            }
            state.session.arrived(&peer, n, u64::from(length), now)
        });
        if arrival == Arrival::New {
            self.exchange.inner.counters.taken_bytes.fetch_add(u64::from(length), Ordering::Relaxed);
            let size = self.peek(|state| state.size);
            let chunk = Chunk { n, bytes, leaf, size, peer: Some(peer), _place: place };
            // A closed channel: the taking is over.
            self.chunks.send(chunk).await.map_err(|_| Parting::Over)?;
        } else {
            self.exchange.inner.counters.again_bytes.fetch_add(u64::from(length), Ordering::Relaxed);
        }
        Ok(())
    }

    /// The bytes of a chunk, which keep up at least the least speed after a while: a chunk holds a place that others wait
    /// for.
    async fn bytes(
        &self,
        length: u32,
        missing: bool,
        reader: &mut Reader<impl AsyncRead + Unpin>,
    ) -> Result<Vec<u8>, Parting> {
        let begun = std::time::Instant::now();
        // Several that give at once share the line.
        let least = (self.want.least_per_second / 2).max(1) as f64;
        let mut bytes = vec![0; length as usize];
        let mut at = 0;
        while at < bytes.len() {
            let until = begun + self.want.patience / 2 + Duration::from_secs_f64(at as f64 / least);
            let some = async { reader.some(&mut bytes[at..]).await.map_err(left) };
            let late = async {
                async_io::Timer::at(until).await;
                Err(bad("it gives too slowly"))
            };
            let got = future::or(some, late).await?;
            // At its trickle every read is in time, so the clock is looked at too.
            if std::time::Instant::now() > until {
                return Err(bad("it gives too slowly"));
            }
            at += got;
            if missing {
                self.bytes.fetch_add(got as u64, Ordering::Relaxed);
            }
        }
        Ok(bytes)
    }
}

/// A reader that waits for us and not for its peer.
pub(super) struct Waits<'a>(&'a Shared);

impl<'a> Waits<'a> {
    pub(super) fn begin(shared: &'a Shared) -> Self {
        shared.waiting.fetch_add(1, Ordering::SeqCst);
        Self(shared)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify(usize::MAX);
    }
}

/// Writes orders as they come, until there will be no more.
async fn order(
    due: async_channel::Receiver<Order>,
    mut writer: impl AsyncWrite + Unpin,
) -> Result<(), Parting> {
    while let Ok(order) = due.recv().await {
        let ask = match order {
            Order::Want { first, count, insist, .. } => Ask::Want { first, count, insist },
            Order::Cancel { first, count, .. } => Ask::Cancel { first, count },
        };
        write_frame(&mut writer, &ask.frame()).await.map_err(left)?;
    }
    Err(Parting::Over)
}
