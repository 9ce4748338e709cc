//! The ladder's rungs below the upstream: the nodes around are asked first, and one of them that misses an artifact
//! too fetches it for all, from members of a room who list it, or from the upstream.
//!
//! What comes from peers is held against their layout chunk by chunk, and against the digest as a whole. No reader sees
//! a byte of it before that, unless all who gave have proved themselves before.

mod hedge;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_lite::future::block_on;

use crate::base::limits::{ARTIFACT_BYTES, CHUNK_BYTES};
use crate::base::{Access, Artifact, Digest, PeerId, Sha256};
use crate::exchange::{Answer, Chunk, Claim, Exchange, Outcome, Over, Partial, Taking, Want, span};
use crate::store::Incoming;

use super::flight::{self, Flight, Stop};
use super::follow;
use super::verify::{Verified, Verifier};
use super::{FetchError, Inner, Via};
use hedge::Hedge;

/// Times that the nodes around are asked for one artifact without anything new coming of it.
const ROUNDS: usize = 8;

/// Layouts that may turn out to be of another file before the upstream is asked instead: each costs a transfer.
const LAYOUTS: usize = 2;

/// Conversations with one node that may end early, for one artifact. An honest node ends them when it begins anew.
const PARTINGS: u32 = 2;

/// How long nodes may give next to nothing before they are asked again how things stand, or left.
const PATIENCE: Duration = Duration::from_secs(2);

/// Less than this in a second is next to nothing: the worst radio link on which a box is still of use to its neighbour.
const LEAST_PER_SECOND: u64 = 128 << 10;

/// How long a node that fetches it for all, and has kept its word before, may give nothing: its upstream may take its
/// time.
const LEAD_PATIENCE: Duration = Duration::from_secs(10);

/// The same for a node that nothing is known of. It may be one that claims everything and fetches nothing, so this is
/// what such a node costs, once; it is not waited for again for a while.
const STRANGER_PATIENCE: Duration = Duration::from_secs(4);

/// How long anybody may, once the upstream has failed: there is nobody else.
const LAST_PATIENCE: Duration = Duration::from_secs(30);

/// What is next to nothing then.
const LAST_LEAST_PER_SECOND: u64 = 4 << 10;

/// Largest artifact that is taken on the word of peers, where no index says its size and the upstream can be asked:
/// whoever lies about it costs a transfer of this much, and this much of the disk.
const UNSIZED_BYTES: u64 = 512 << 20;

/// Leaves of layouts kept, for one artifact, until the true ones are known and show who lied: 2 MiB.
const EVIDENCE: usize = 65_536;

/// Other claims that are kept as long.
const DISSENTS: usize = 64;

/// The nodes around, if this artifact is one to ask them for: anybody may have it, and its digest proves its bytes.
pub(super) fn neighbours<'a>(inner: &'a Inner, artifact: &Artifact) -> Option<&'a Exchange> {
    let near = inner.near.as_ref()?;
    let proves = artifact.digest.is_some_and(|d| d.is_strong());
    let somebody = || near.has_company() || is_one_block(artifact) && near.has_strangers();
    (proves && artifact.access == Access::Public && somebody()).then_some(near)
}

/// Whether any IPFS node can be asked for it: its SHA-256 is the name of the one block that it is.
fn is_one_block(artifact: &Artifact) -> bool {
    artifact.size.is_some_and(|size| size <= CHUNK_BYTES)
        && artifact.digest.is_some_and(|digest| digest.sha256().is_some())
}

/// Fetches from the nodes around, and from the upstream what they do not give.
pub(super) fn download(
    inner: &Arc<Inner>,
    flight: &Flight,
    near: &Exchange,
    incoming: Incoming,
) -> Result<(Incoming, Verified), Stop> {
    let artifact = &flight.artifact;
    let digest = artifact.digest.expect("only artifacts with a digest are asked for");
    let partial = flight.leads(near.lead(digest));
    let hedge = Hedge::new(inner, near, &flight.artifact, &partial);
    let mut progress = Progress::new(inner, flight, near, &incoming, &partial, hedge);
    let mut failure = None;
    for _ in 0..2 * ROUNDS {
        let last = failure.is_some();
        let asked = last || progress.disproved < LAYOUTS;
        let whole = asked && progress.ask_around(digest, last)?;
        if !whole {
            if let Some(e) = failure {
                return Err(Stop::Failed(e));
            }
            if let Some(e) = progress.ask_upstream()? {
                // Nobody but the nodes around is left: those who were only slow are asked once more.
                progress.but.retain(|peer| progress.liars.contains(peer));
                progress.partings.clear();
                failure = Some(e);
                continue;
            }
        }
        match flight::prove(artifact, progress.take_verifier()) {
            Ok(verified) => {
                progress.thank(&verified);
                return Ok((incoming, verified));
            }
            Err(e) if progress.gave.is_empty() => return Err(e.into()),
            Err(e) => {
                progress.blame();
                if !progress.restart() {
                    return Err(e.into());
                }
                log::warn!("{}: what peers gave was wrong: {e}; beginning anew", artifact.filename);
            }
        }
    }
    Err(failure.unwrap_or_else(|| FetchError::GivenUp(artifact.filename.clone())).into())
}

/// What has come so far, and from whom.
struct Progress<'a> {
    inner: &'a Inner,
    flight: &'a Flight,
    near: &'a Exchange,
    incoming: &'a Incoming,
    partial: &'a Partial,
    /// Has seen the bytes from the start without a gap.
    verifier: Verifier,
    /// Chunks written beyond them, and their leaves.
    beyond: BTreeMap<u32, Sha256>,
    running: bool,
    /// Bytes of the artifact, if the index or a giver said so.
    size: Option<u64>,
    /// Bytes came from the upstream too.
    mixed: bool,
    gave: Vec<(PeerId, u64, Option<u64>)>,
    /// Not asked any more.
    but: Vec<PeerId>,
    /// Conversations with each that ended early.
    partings: HashMap<PeerId, u32>,
    liars: Vec<PeerId>,
    /// Layouts that were of another file.
    disproved: usize,
    told: Vec<Told>,
    dissent: Vec<(PeerId, Claim)>,
    /// Who has all of it, and has proved itself: their bytes are not held back.
    trusted: Vec<PeerId>,
    /// Leaves of what is being taken that other nodes were shown.
    told_leaves: usize,
    /// Nodes that said they fetch it themselves.
    leads: Vec<PeerId>,
    /// The upstream's help.
    hedge: Hedge,
}

/// A layout that was followed, and how many of its leaves each of those who say they have all of it told.
struct Told {
    layout: Vec<Sha256>,
    by: Vec<(PeerId, u32)>,
}

impl<'a> Progress<'a> {
    fn new(
        inner: &'a Inner,
        flight: &'a Flight,
        near: &'a Exchange,
        incoming: &'a Incoming,
        partial: &'a Partial,
        hedge: Hedge,
    ) -> Self {
        Self {
            inner,
            flight,
            near,
            incoming,
            partial,
            verifier: Verifier::new(flight.artifact.digest),
            beyond: BTreeMap::new(),
            running: false,
            size: flight.artifact.size,
            mixed: false,
            gave: Vec::new(),
            but: Vec::new(),
            partings: HashMap::new(),
            liars: Vec::new(),
            disproved: 0,
            told: Vec::new(),
            dissent: Vec::new(),
            trusted: Vec::new(),
            told_leaves: 0,
            leads: Vec::new(),
            hedge,
        }
    }

    fn take_verifier(&mut self) -> Verifier {
        std::mem::replace(&mut self.verifier, Verifier::new(self.flight.artifact.digest))
    }

    /// Begins anew. `false` when a reader has had something of it: then it is too late.
    fn restart(&mut self) -> bool {
        let can = self.gave.is_empty() && !self.running || self.flight.start_over();
        if can {
            self.take_verifier();
            self.beyond.clear();
            (self.running, self.mixed) = (false, false);
            self.size = self.flight.artifact.size;
            self.gave.clear();
        }
        can
    }

    /// Takes the rest from the upstream; gives its failure, if it could be undone.
    fn ask_upstream(&mut self) -> Result<Option<FetchError>, Stop> {
        if !self.beyond.is_empty() || self.partial.tells_beyond(self.verifier.leaves().len()) {
            // The upstream's bytes go over them, and may be others: nobody is shown the one with the leaf of the other.
            self.beyond.clear();
            self.flight.shows_anew();
        }
        let before = self.verifier.clone();
        match follow::from_upstream(self.inner, self.flight, self.incoming, self.take_verifier()) {
            Ok(verifier) => {
                (self.verifier, self.mixed) = (verifier, true);
                Ok(None)
            }
            Err(Stop::NoRoom) => Err(Stop::NoRoom),
            Err(Stop::Failed(e)) if self.flight.back_to(before.at) => {
                self.verifier = before;
                Ok(Some(e))
            }
            Err(Stop::Failed(e)) => Err(Stop::Failed(e)),
        }
    }

    /// The whole is proved: who gave of it is thanked, and who told something else although it has all of it, lied.
    fn thank(&mut self, truth: &Verified) {
        for (peer, bytes, speed) in self.gave.drain(..) {
            self.near.peers().gave(peer, bytes, speed);
        }
        let (size, leaves) = (truth.layout.size, &truth.layout.leaves);
        let mut liars = Vec::new();
        for (peer, claim) in std::mem::take(&mut self.dissent) {
            let lied = match claim {
                Claim::Size(told) => told != size,
                Claim::Leaf(n, leaf) => leaves.get(n as usize) != Some(&leaf),
            };
            liars.extend(lied.then_some(peer));
        }
        for Told { layout, by } in std::mem::take(&mut self.told) {
            let same = layout.iter().zip(leaves).take_while(|(a, b)| a == b).count();
            liars.extend(by.into_iter().filter(|(_, told)| *told as usize > same).map(|(peer, _)| peer));
        }
        liars.into_iter().for_each(|peer| self.lied(peer));
    }

    /// Every chunk was what the layout says, and the whole is not. Who told all of it, and says that it has all of the
    /// file, lied. Who told a part of it may have told the truth, and who is fetching it itself was lied to, perhaps.
    fn blame(&mut self) {
        self.disproved += 1;
        if let Some(Told { layout, by }) = self.told.last().filter(|_| !self.mixed) {
            let all = layout.len() as u32;
            let liars: Vec<_> = by.iter().filter(|(_, told)| *told == all).map(|(peer, _)| *peer).collect();
            liars.into_iter().for_each(|peer| self.lied(peer));
        }
        for (peer, ..) in &self.gave {
            if self.leads.contains(peer) {
                self.near.peers().let_down(peer);
            }
            self.but.push(*peer);
        }
        // Who told another layout may have been right.
        self.partings.clear();
    }

    fn lied(&mut self, peer: PeerId) {
        if !self.liars.contains(&peer) {
            let what = format!("its layout of {} is of another file", self.flight.artifact.filename);
            self.near.strike(peer, &what);
            self.liars.push(peer);
        }
        self.but.push(peer);
    }

    /// Asks the nodes around, again and again as long as something comes of it. Whether all of it came.
    fn ask_around(&mut self, digest: Digest, last: bool) -> Result<bool, Stop> {
        let mut came_at = Instant::now();
        let (mut fruitless, mut extended) = (0, false);
        while fruitless < ROUNDS {
            let mut answer = block_on(self.near.ask(&digest, &self.but, last));
            if answer.is_empty() && fruitless == 0 {
                answer.bytes = self.ask_strangers(&digest);
            }
            if answer.is_empty() {
                // Whoever claimed it meanwhile and goes before this node.
                answer.first = self.near.turn(self.partial, &self.but);
            }
            if answer.is_empty() {
                // It is: of all that are not on this LAN, members of a room are asked first.
                answer.listed = block_on(self.near.listers(&digest, &self.but, last));
            }
            if answer.is_empty() {
                return Ok(false);
            }
            if let Some((peer, bytes)) = answer.bytes.take()
                && self.verifier.at == 0
            {
                self.put_small(peer, &bytes)?;
                return Ok(true);
            }
            let own_leads =
                answer.flying.iter().filter(|(peer, of)| *of == Some(*peer)).map(|(peer, _)| *peer);
            self.leads.extend(own_leads);
            let before = self.chunks();
            self.partial.taken_from(self.near.root(&answer));
            let patience = self.patience(&answer, came_at, last);
            let outcome = self.take(digest, &answer, patience, last)?;
            if outcome.all {
                return Ok(true);
            }
            log::info!("{} from the nodes around: {}", self.flight.artifact.filename, outcome.why);
            if self.chunks() > before {
                (came_at, fruitless) = (Instant::now(), 0);
            } else {
                fruitless += 1;
            }
            let given_up = self.part(&answer, &outcome, came_at, patience);
            if given_up && !std::mem::replace(&mut extended, true) {
                // Those who relied on the same node have to find out too, and one of them then fetches it for all. Once:
                // or a row of nodes that name each other would be waited for one after the other.
                (came_at, fruitless) = (Instant::now(), 0);
            }
            if self.disagrees(&outcome) && !self.restart() {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// How long next to nothing may come this time.
    fn patience(&self, answer: &Answer, came_at: Instant, last: bool) -> Duration {
        if last {
            return LAST_PATIENCE;
        }
        if !answer.wholes().is_empty() {
            return PATIENCE;
        }
        let left = |peer| self.lead_patience(&peer).saturating_sub(came_at.elapsed());
        let longest = answer.holders().into_iter().map(left).max().unwrap_or_default();
        // Something short remains, so that who is asked can answer at all.
        longest.clamp(PATIENCE / 8, PATIENCE)
    }

    /// How long a node that is fetching it, or about to, may give nothing.
    fn lead_patience(&self, peer: &PeerId) -> Duration {
        let gave = self.gave.iter().any(|(giver, ..)| giver == peer);
        if gave || self.near.peers().is_known(peer) { LEAD_PATIENCE } else { STRANGER_PATIENCE }
    }

    /// Leaves those who are of no use, and notes who did not keep its word; gives whether nodes that hang on such a one
    /// are left over.
    fn part(&mut self, answer: &Answer, outcome: &Outcome, came_at: Instant, patience: Duration) -> bool {
        let peers = self.near.peers();
        for peer in outcome.left.iter().chain(&outcome.dissenters) {
            let partings = self.partings.entry(*peer).or_default();
            *partings += 1;
            // Who lists it and does not have it says so once.
            if *partings >= PARTINGS || answer.listed.contains(peer) {
                self.but.push(*peer);
            }
        }
        let mut failed = outcome.bad.clone();
        if patience >= PATIENCE {
            failed.extend(&outcome.owing);
        }
        let is_relay = |peer: &PeerId| answer.flying.iter().find_map(|(p, of)| (p == peer).then_some(*of)?);
        let (waited, wholes) = (came_at.elapsed(), answer.wholes());
        let idle = outcome
            .idle
            .iter()
            .filter(|peer| wholes.contains(peer) || waited + PATIENCE / 8 >= self.lead_patience(peer));
        // Who sends us to another, or takes it from another itself, is no better than that one, and no worse.
        let (hangers, silent): (Vec<PeerId>, Vec<PeerId>) = idle.partition(|peer| {
            outcome.referred.contains(peer) || is_relay(peer).is_some_and(|of| of != **peer)
        });
        let given_up = !silent.is_empty() && !hangers.is_empty();
        failed.extend(&silent);
        if failed.is_empty() {
            failed.extend(&hangers);
        }
        for peer in failed {
            peers.let_down(&peer);
            self.but.push(peer);
        }
        given_up
    }

    /// Asks other IPFS nodes, once: dpm's own know more, and have said no.
    fn ask_strangers(&self, digest: &Digest) -> Option<(PeerId, Bytes)> {
        if self.verifier.at > 0 || !is_one_block(&self.flight.artifact) {
            return None;
        }
        let given = block_on(self.near.ask_strangers(digest.sha256()?));
        given.filter(|(peer, _)| !self.but.contains(peer))
    }

    /// Whether what is here is of another layout than everybody's.
    fn disagrees(&self, outcome: &Outcome) -> bool {
        self.verifier.at > 0 && !outcome.dissenters.is_empty() && outcome.gave.is_empty()
    }

    fn chunks(&self) -> usize {
        self.verifier.leaves().len() + self.beyond.len()
    }

    fn take(
        &mut self,
        digest: Digest,
        answer: &Answer,
        patience: Duration,
        last: bool,
    ) -> Result<Outcome, Stop> {
        let want = Want {
            digest,
            size: self.flight.artifact.size,
            most_bytes: if last { ARTIFACT_BYTES } else { UNSIZED_BYTES }
                .min(self.flight.artifact.limit_bytes),
            here: self.verifier.leaves().to_vec(),
            beyond: self.beyond.iter().map(|(n, leaf)| (*n, *leaf)).collect(),
            whole: answer.wholes(),
            patience,
            least_per_second: if last { LAST_LEAST_PER_SECOND } else { LEAST_PER_SECOND },
            last,
        };
        self.trusted = answer.wholes().into_iter().filter(|peer| self.near.peers().is_proven(peer)).collect();
        self.told_leaves = 0;
        let taking = self.near.take(want, &answer.holders());
        self.hedge.begin(self.near.root(answer), Instant::now());
        loop {
            match taking.next_within(self.hedge.look_time) {
                Ok(Some(chunk)) => self.put(chunk, &taking)?,
                Ok(None) => {}
                Err(Over) => break,
            }
            // When it is the last resort, the upstream has failed.
            if !last {
                self.hedge.look(&taking, Instant::now());
            }
        }
        self.catch_up(&taking)?;
        let mut outcome = taking.outcome();
        self.gave.extend(&outcome.gave);
        let room = DISSENTS.saturating_sub(self.dissent.len());
        self.dissent.extend(outcome.dissent.iter().take(room));
        let told =
            Told { layout: std::mem::take(&mut outcome.layout), by: std::mem::take(&mut outcome.told) };
        // The latest is what the chunks were held against; of the earlier ones those are let go first.
        self.told.push(told);
        while self.told.len() > 1 && self.told.iter().map(|told| told.layout.len()).sum::<usize>() > EVIDENCE
        {
            self.told.remove(0);
        }
        self.told.drain(..self.told.len().saturating_sub(ROUNDS));
        Ok(outcome)
    }

    /// Where bytes of a peer go: hidden from the readers until all is proved, unless the peer has proved itself.
    ///
    /// No room is made for a size that only peers say: the cache would be emptied on a stranger's word.
    fn begin(&mut self, peer: Option<&PeerId>, size: Option<u64>) -> Result<(), Stop> {
        // What the upstream helps with is the rest of what peers give, and begun anew with it.
        if !peer.map_or(!self.trusted.is_empty(), |peer| self.trusted.contains(peer)) {
            self.flight.hold();
        }
        if !std::mem::replace(&mut self.running, true) {
            self.flight.comes_from(Via::Peer);
            self.flight.running(size, self.incoming)?;
        }
        if let Some(size) = size {
            self.partial.sized(size);
        }
        Ok(())
    }

    fn put_small(&mut self, peer: PeerId, bytes: &[u8]) -> Result<(), Stop> {
        let size = bytes.len() as u64;
        self.begin(Some(&peer), Some(size))?;
        flight::write(self.flight, self.incoming, bytes, 0)?;
        self.verifier.update(bytes);
        self.inner.counters.peer_bytes.fetch_add(size, Ordering::Relaxed);
        self.gave.push((peer, size, None));
        Ok(())
    }

    fn put(&mut self, chunk: Chunk, taking: &Taking) -> Result<(), Stop> {
        if self.beyond.get(&chunk.n).is_some_and(|leaf| *leaf != chunk.leaf) {
            // Kept from a layout that nobody follows any more; others were shown it.
            self.beyond.clear();
            self.flight.shows_anew();
        }
        self.begin(chunk.peer.as_ref(), chunk.size)?;
        let leaves = taking.leaves(self.told_leaves);
        self.flight.shows_leaves(self.told_leaves, &leaves);
        self.told_leaves += leaves.len();
        let offset = u64::from(chunk.n) * CHUNK_BYTES;
        flight::write(self.flight, self.incoming, &chunk.bytes, offset)?;
        match chunk.peer {
            Some(peer) => {
                self.partial.got_from(peer);
                self.inner.counters.peer_bytes.fetch_add(chunk.bytes.len() as u64, Ordering::Relaxed);
            }
            None => self.flight.comes_from(Via::Upstream),
        }
        if let Some(size) = chunk.size {
            self.flight.shows(chunk.n, chunk.leaf, size);
        }
        if self.verifier.at == offset {
            self.verifier.update_chunk(&chunk.bytes, chunk.leaf);
        } else {
            self.beyond.insert(chunk.n, chunk.leaf);
        }
        self.size = self.size.or(chunk.size);
        drop(chunk.bytes);
        self.catch_up(taking)?;
        self.flight.advance(&self.verifier, true);
        Ok(())
    }

    /// Hashes what came before its turn.
    fn catch_up(&mut self, taking: &Taking) -> Result<(), Stop> {
        let mut buffer = Vec::new();
        loop {
            let n = chunk_at(self.verifier.at);
            // One that was kept from another layout than the one followed now is asked for again.
            let Some(leaf) = self.beyond.get(&n).copied().filter(|leaf| taking.leaf(n) == Some(*leaf)) else {
                break;
            };
            self.beyond.remove(&n);
            let (_, length) = span(n, self.size.unwrap_or(u64::MAX));
            buffer.resize(usize::try_from(length).expect("a chunk fits in memory"), 0);
            let got = self.incoming.read(&mut buffer, self.verifier.at).map_err(|e| self.flight.disk(&e))?;
            if got < buffer.len() {
                return Err(self.flight.disk(&std::io::ErrorKind::UnexpectedEof.into()).into());
            }
            self.verifier.update_chunk(&buffer, leaf);
        }
        Ok(())
    }
}

/// The chunk that begins at byte `at`, which is the end of all chunks before it.
fn chunk_at(at: u64) -> u32 {
    u32::try_from(at / CHUNK_BYTES).unwrap_or(u32::MAX)
}
