//! The question: have you this artifact, or are you about to?

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_lite::future;
use futures_lite::io::AsyncWriteExt;

use crate::base::limits::CHUNK_BYTES;
use crate::base::{Cid, Digest, PeerId, Sha256, raw_cid, sha256_of_cid};
use crate::peers::goes_first;
use crate::wire::near::{FRAME_BYTES, Offer, Offers, Open};

use super::super::{Exchange, Partial};
use super::NEAR;
use super::io::{Reader, within, write_frame};

/// Nodes asked at once. On a larger LAN those that say they have it come first, and news tells who that is.
const ASKED: usize = 32;

/// How long answers are waited for when there is nobody else to ask, until one has something.
const LAST_PATIENCE: Duration = Duration::from_secs(3);

/// Round trips that an answer may take: the question is one, a stream and a lookup on a busy box the others.
const ROUND_TRIPS: u32 = 4;

/// Largest root block that stands in an answer: all who have it send one.
const INLINE_BYTES: u64 = 16 << 10;

/// Time for an answer that is not waited for any more, until its stream is closed.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// What the nodes around said of one artifact.
#[derive(Debug, Default)]
pub struct Answer {
    /// Who has all of it.
    pub whole: Vec<PeerId>,
    /// Who is fetching it, and where what it has comes from: itself, when it asks the upstream.
    pub flying: Vec<(PeerId, Option<PeerId>)>,
    /// Who is about to, and goes before this node.
    pub first: Vec<PeerId>,
    /// The artifact itself, when it is small: already proved by its SHA-256.
    pub bytes: Option<(PeerId, Bytes)>,
    /// Members of rooms, elsewhere, who list it: see [`Exchange::listers`].
    pub listed: Vec<PeerId>,
}

impl Answer {
    /// Whether there is somebody to take it from.
    pub fn is_empty(&self) -> bool {
        let nobody = self.whole.is_empty() && self.flying.is_empty() && self.first.is_empty();
        nobody && self.bytes.is_none() && self.listed.is_empty()
    }

    /// Everybody who has it or will, the best first.
    pub fn holders(&self) -> Vec<PeerId> {
        let flying = self.flying.iter().map(|(peer, _)| peer);
        self.whole.iter().chain(flying).chain(&self.first).chain(&self.listed).copied().collect()
    }

    /// Who says that it has all of it, now or in a room.
    pub fn wholes(&self) -> Vec<PeerId> {
        self.whole.iter().chain(&self.listed).copied().collect()
    }
}

impl Exchange {
    /// Where an artifact comes from in the end, if it comes at all by now. What members elsewhere give is as good as from
    /// upstream: this node fetches it for those around. Who only goes first is not that: a node that waits for it goes on
    /// saying that it claims, so that of nodes that wait for each other's claims none waits in a circle.
    pub fn root(&self, answer: &Answer) -> Option<PeerId> {
        let listed = || (!answer.listed.is_empty()).then(|| self.inner.swarm.peer_id());
        answer.whole.first().copied().or(answer.flying.iter().find_map(|(_, of)| *of)).or_else(listed)
    }

    /// Asks the nodes around for an artifact, and tells them that this node is about to fetch it.
    ///
    /// Waits for each node as its round trip deserves (see [`Patience`](super::super::Patience)), and not at all for
    /// those that never answer in time. `but` are not asked, and those that have let this node down only as the `last`
    /// resort: then 3 s are waited for anybody who has something. Cancel-safe.
    pub async fn ask(&self, digest: &Digest, but: &[PeerId], last: bool) -> Answer {
        let mut answer = Answer::default();
        let inner = &self.inner;
        let may = |peer: &PeerId| !but.contains(peer) && (last || !inner.peers.is_doubted(peer));
        if let Some(sha256) = digest.sha256() {
            // Who said so needs not be asked. Who has proved itself comes first: not all can be taken from.
            answer.whole = inner.peers.holders(&sha256);
            answer.whole.retain(may);
            answer.whole.sort_by_cached_key(|peer| !inner.peers.is_known(peer));
            if !answer.whole.is_empty() {
                return answer;
            }
        }
        let mut nodes = inner.peers.nodes();
        nodes.retain(may);
        nodes.sort_by_cached_key(|peer| !inner.peers.is_known(peer));
        nodes.truncate(ASKED);
        if nodes.is_empty() {
            return answer;
        }
        let round_trips: Vec<_> = inner.swarm.peers().into_iter().map(|p| (p.peer, p.rtt)).collect();
        let times = inner.patience;
        let patience = |peer: &PeerId| {
            let known = round_trips.iter().find(|(p, _)| p == peer).and_then(|(_, rtt)| *rtt);
            known.map_or(times.first, |rtt| (rtt * ROUND_TRIPS).clamp(times.least, times.most))
        };
        let now = Instant::now();
        let mut awaited: HashMap<PeerId, Instant> = HashMap::new();
        let (sender, receiver) = async_channel::bounded(nodes.len());
        for peer in nodes {
            let until = now + patience(&peer);
            if last || inner.peers.answers(&peer) {
                awaited.insert(peer, until);
            }
            let (exchange, digest, sender) = (self.clone(), *digest, sender.clone());
            inner.tasks.spawn(async move {
                let offer = exchange.ask_one(peer, digest).await;
                if offer.is_ok() && Instant::now() <= until {
                    exchange.inner.peers.answered(&peer, true);
                }
                // Nobody waits for a late one.
                let _ = sender.try_send((peer, offer));
            });
        }
        drop(sender);
        while let Some(mut until) = awaited.values().max().copied() {
            if last && answer.is_empty() {
                until = now + LAST_PATIENCE;
            }
            let late = async {
                async_io::Timer::at(until).await;
                None
            };
            let Some((peer, offer)) = future::or(async { receiver.recv().await.ok() }, late).await else {
                break;
            };
            awaited.remove(&peer);
            match offer {
                Ok(offer) => self.note(&mut answer, digest, peer, offer, but),
                Err(e) => log::debug!("asking {peer}: {e}"),
            }
            if answer.bytes.is_some() {
                break;
            }
        }
        let now = Instant::now();
        awaited.iter().filter(|(_, until)| **until <= now).for_each(|(p, _)| inner.peers.answered(p, false));
        answer.whole.sort_by_cached_key(|peer| !inner.peers.is_known(peer));
        answer
    }

    /// Nodes that fetch an artifact from upstream themselves, or have begun to. Tells them that this one is about to.
    pub async fn fetchers(&self, digest: &Digest) -> Vec<PeerId> {
        // Who has all of it would be all the answer.
        let holders = digest.sha256().map_or_else(Vec::new, |sha256| self.inner.peers.holders(&sha256));
        let answer = self.ask(digest, &holders, false).await;
        answer.flying.into_iter().filter(|(peer, of)| *of == Some(*peer)).map(|(peer, _)| peer).collect()
    }

    fn note(&self, answer: &mut Answer, digest: &Digest, peer: PeerId, offer: Offer, but: &[PeerId]) {
        match offer {
            Offer::Whole { root, root_block, .. } => {
                if let Some(bytes) = root_block {
                    let is = Sha256::of(&bytes);
                    if digest.sha256() == Some(is) {
                        answer.bytes = Some((peer, bytes));
                    } else if sha256_of_cid(&root).is_some_and(|says| says != is) {
                        return self.strike(
                            peer,
                            &format!("the root block of {digest} has another CID than it says"),
                        );
                    }
                }
                answer.whole.push(peer);
            }
            Offer::Flying { of, .. } if self.will_come(digest, peer, of, but) => {
                answer.flying.push((peer, of))
            }
            // Both sides know who goes first.
            Offer::Claimed { first: true } if goes_first(digest, &peer, &self.inner.swarm.peer_id()) => {
                answer.first.push(peer);
            }
            Offer::Nothing | Offer::Flying { .. } | Offer::Claimed { .. } | Offer::Unknown(_) => {}
        }
    }

    async fn ask_one(&self, peer: PeerId, digest: Digest) -> std::io::Result<Offer> {
        within(ANSWER_TIME, "an answer", async {
            let mut stream =
                self.inner.swarm.open_at_once(peer, NEAR).await.map_err(std::io::Error::other)?;
            let open = Open::Ask { digests: vec![digest], claim: true };
            write_frame(&mut stream, &open.frame()).await?;
            stream.close().await?;
            let frame = Reader::new(stream).frame(FRAME_BYTES).await?.unwrap_or_default();
            let offers = Offers::decode(&frame).map_err(std::io::Error::other)?;
            Ok(offers.offers.into_iter().next().unwrap_or(Offer::Nothing))
        })
        .await
    }

    /// What this node answers a peer. Blocks.
    pub(super) fn offer(&self, peer: &PeerId, digest: &Digest, claim: bool) -> Offer {
        let inner = &self.inner;
        match inner.store.find(digest) {
            Ok(Some(stored)) if self.may_give(peer, stored.access, &stored.sha256) => {
                let root = stored.root.unwrap_or_else(|| raw_cid(stored.sha256));
                return Offer::Whole { size: stored.size, root, root_block: self.root_block(&root) };
            }
            Ok(_) => {}
            Err(e) => log::error!("looking for {digest}: {e}"),
        }
        // What is about to come here, or whoever is about to fetch it elsewhere, is no business of the other.
        if !inner.peers.is_near(peer) {
            return Offer::Nothing;
        }
        // Together, so that of two nodes that ask each other at once exactly one goes first: see `turn`.
        let _turn = inner.turn.lock().expect("nothing panics under this lock");
        if claim {
            inner.claims.claimed(*digest, *peer, Instant::now());
        }
        let Some(partial) = inner.partials.find(digest).filter(|_| !inner.sharing.off) else {
            return Offer::Nothing;
        };
        match partial.of() {
            Some(of) => {
                let (size, chunks) = partial.stands();
                Offer::Flying { size, ready: u64::from(chunks) * CHUNK_BYTES, of: Some(of) }
            }
            None => Offer::Claimed { first: goes_first(digest, &inner.swarm.peer_id(), peer) },
        }
    }

    /// Whether something will come from a node that takes the artifact itself from `of`.
    fn will_come(&self, digest: &Digest, peer: PeerId, of: Option<PeerId>, but: &[PeerId]) -> bool {
        let own = self.inner.swarm.peer_id();
        match of {
            // It waits for this very node.
            Some(of) if of == own => false,
            Some(of) if of == peer => true,
            Some(of) if !but.contains(&of) && self.inner.peers.connected().contains(&of) => true,
            // Both have lost where it came from: one waits for the other.
            _ => goes_first(digest, &peer, &own),
        }
    }

    fn root_block(&self, root: &Cid) -> Option<Bytes> {
        let block = self.inner.store.block(root).ok().flatten()?;
        let small = block.length() <= INLINE_BYTES;
        small.then(|| block.read().ok()).flatten().map(Bytes::from)
    }

    /// Says that this node asks the upstream for what it takes from others so slowly.
    pub fn helps_itself(&self, partial: &Partial) {
        partial.taken_from(Some(self.inner.swarm.peer_id()));
    }

    /// This node's turn to fetch an artifact from upstream: gives whoever claimed it too and goes first, or nobody; then
    /// it is this node's, and others are told so.
    pub fn turn(&self, partial: &Partial, but: &[PeerId]) -> Vec<PeerId> {
        let own = self.inner.swarm.peer_id();
        let digest = partial.digest();
        let _turn = self.inner.turn.lock().expect("nothing panics under this lock");
        let mut before = self.inner.claims.of(&digest, Instant::now());
        let waited_for = |peer: &PeerId| !but.contains(peer) && !self.inner.peers.is_doubted(peer);
        before.retain(|peer| goes_first(&digest, peer, &own) && waited_for(peer));
        if before.is_empty() {
            partial.taken_from(Some(own));
        }
        before
    }
}
