//! A peer that speaks dpm's protocol with dpm's own swarm and messages, and says whatever a test wants.

use std::io::{Error, Result};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use dpm::base::{Digest, Multiaddr, PeerId, Sha256, raw_cid};
use dpm::rt::{Executor, Tasks};
use dpm::swarm::{Identity, Limits, Options, Stream, Swarm};
use dpm::wire::near::{Ask, Held, LEAVES, Offer, Offers, Open, PROTOCOL, Tell};
use futures_lite::future::block_on;
use futures_lite::io::{AsyncReadExt, AsyncWriteExt};

use super::{Node, until};

pub const CHUNK: usize = 1 << 20;

type Words = Pin<Box<dyn Future<Output = Result<()>> + Send>>;
type Offering = Arc<dyn Fn(&Digest) -> Option<Offer> + Send + Sync>;
type Holding = Arc<dyn Fn(&Sha256) -> Option<Vec<u8>> + Send + Sync>;
type Giving = Arc<dyn Fn(Mouth) -> Words + Send + Sync>;

/// What a liar does when it is asked something.
#[derive(Clone)]
pub struct Manners {
    offering: Offering,
    giving: Giving,
    holding: Holding,
    lists: bool,
}

impl Manners {
    /// Has all of everything, as far as its word goes.
    pub fn new() -> Self {
        Self {
            offering: Arc::new(|digest| Some(whole(digest, 0))),
            giving: Arc::new(|m| Box::pin(m.silence())),
            holding: Arc::new(|_| None),
            lists: true,
        }
    }

    /// Says what it has only when it is asked.
    pub fn unlisted(mut self) -> Self {
        self.lists = false;
        self
    }

    /// Answers so; `None` is no answer at all.
    pub fn offers(mut self, offer: impl Fn(&Digest) -> Option<Offer> + Send + Sync + 'static) -> Self {
        self.offering = Arc::new(offer);
        self
    }

    /// Gives these for blocks of catalogues.
    pub fn holds(mut self, block: impl Fn(&Sha256) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        self.holding = Arc::new(block);
        self
    }

    /// Does so when something is taken from it.
    pub fn gives<F>(mut self, give: impl Fn(Mouth) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.giving = Arc::new(move |mouth| Box::pin(give(mouth)));
        self
    }
}

/// An offer of all, with the root that a file of one chunk has.
pub fn whole(digest: &Digest, size: usize) -> Offer {
    let sha256 = digest.sha256().unwrap_or(Sha256([0; 32]));
    Offer::Whole { size: size as u64, root: raw_cid(sha256), root_block: None }
}

/// A running liar; gone when dropped.
pub struct Liar {
    swarm: Swarm,
    identity: Identity,
    tasks: Tasks,
    asked: Arc<AtomicUsize>,
    taken: Arc<AtomicUsize>,
    told: Arc<AtomicUsize>,
    lists: bool,
    _executor: Executor,
}

impl Liar {
    pub fn start(manners: Manners) -> Self {
        let executor = Executor::start(1).expect("a thread");
        let tasks = executor.tasks();
        let identity = Identity::fresh();
        let options = Options {
            key: identity.clone(),
            listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("a multiaddr")],
            protocols: vec![PROTOCOL],
            agent: "dpm/liar".into(),
            limits: Limits::default(),
            admit: Arc::new(|_, _| true),
        };
        let (swarm, _events) = Swarm::start(options, &tasks).expect("a swarm");
        let [asked, taken, told] = [0; 3].map(|n| Arc::new(AtomicUsize::new(n)));
        let lists = manners.lists;
        let liar = Self { swarm, identity, tasks, asked, taken, told, lists, _executor: executor };
        liar.attend(manners);
        liar
    }

    /// The same, once this node knows it for a neighbour.
    pub fn near(node: &Node, manners: Manners) -> Self {
        let liar = Self::start(manners);
        liar.meet(node);
        liar
    }

    pub fn meet(&self, node: &Node) {
        let (peer, address) = node.as_peer();
        self.meet_at(peer, address);
        until("the liar is known", || node.exchange().peers().speaks_dpm(&self.peer()));
    }

    /// Meets a node of another process.
    pub fn meet_at(&self, peer: PeerId, address: Multiaddr) {
        self.swarm.dial(peer, vec![address]);
        until("it knows the node", || {
            self.swarm.peers().iter().any(|p| p.peer == peer && !p.protocols.is_empty())
        });
    }

    fn attend(&self, manners: Manners) {
        let (swarm, tasks) = (self.swarm.clone(), self.tasks.clone());
        let (asked, taken, told) = (self.asked.clone(), self.taken.clone(), self.told.clone());
        self.tasks.spawn(async move {
            while let Some((_, stream)) = swarm.accept(PROTOCOL).await {
                let (manners, asked, taken, told) =
                    (manners.clone(), asked.clone(), taken.clone(), told.clone());
                tasks.spawn(async move {
                    let mut mouth = Mouth { stream, digest: None };
                    let Ok(Some(frame)) = mouth.hear().await else { return };
                    let _ = match Open::decode(&frame) {
                        Ok(Open::Ask { digests, .. }) => {
                            asked.fetch_add(1, Ordering::SeqCst);
                            let offers: Vec<_> =
                                digests.iter().filter_map(|d| (manners.offering)(d)).collect();
                            match offers.len() == digests.len() {
                                true => mouth.last(&Offers { offers }.frame()).await,
                                false => mouth.silence().await,
                            }
                        }
                        Ok(Open::Take { digest }) => {
                            taken.fetch_add(1, Ordering::SeqCst);
                            mouth.digest = Some(digest);
                            (manners.giving)(mouth).await
                        }
                        Ok(Open::Blocks { hashes }) => {
                            let blocks: Vec<_> = hashes.iter().map(|h| (manners.holding)(h)).collect();
                            mouth.blocks(&blocks).await
                        }
                        Ok(Open::News(_)) => {
                            told.fetch_add(1, Ordering::SeqCst);
                            mouth.silence().await
                        }
                        _ => mouth.silence().await,
                    };
                });
            }
        });
    }

    pub fn peer(&self) -> PeerId {
        self.swarm.peer_id()
    }

    pub fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    pub fn address(&self) -> Multiaddr {
        until("it listens", || !self.swarm.listeners().is_empty());
        self.swarm.listeners().remove(0)
    }

    /// Whether it lists what it has.
    pub fn lists(&self) -> bool {
        self.lists
    }

    /// How often it was asked what it has.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// How often something was to be taken from it.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// How often a node began to tell it the news.
    pub fn told(&self) -> usize {
        self.told.load(Ordering::SeqCst)
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A stream to a node, on which this is written.
    pub fn open(&self, node: PeerId, bytes: &[u8]) -> Result<Mouth> {
        block_on(async {
            let stream = self.swarm.open_at_once(node, PROTOCOL).await.map_err(Error::other)?;
            let mut mouth = Mouth { stream, digest: None };
            mouth.say(bytes).await?;
            Ok(mouth)
        })
    }

    /// What `dpm peers` of a node says of it.
    pub fn row(&self, node: &Node) -> serde_json::Value {
        row(node, &self.peer())
    }

    pub fn strikes(&self, node: &Node) -> u64 {
        self.row(node)["strikes"].as_u64().unwrap_or(0)
    }

    pub fn let_downs(&self, node: &Node) -> u64 {
        self.row(node)["let_downs"].as_u64().unwrap_or(0)
    }
}

/// What `dpm peers` of a node says of a peer.
pub fn row(node: &Node, peer: &PeerId) -> serde_json::Value {
    let report = node.order(&dpm::daemon::Order::Peers);
    let name = peer.to_string();
    let rows = report["peers"].as_array().cloned().unwrap_or_default();
    rows.into_iter().find(|row| row["peer"] == name.as_str()).unwrap_or_default()
}

impl Drop for Liar {
    fn drop(&mut self) {
        block_on(async {
            self.swarm.stop().await;
            self.tasks.cancel().await;
        });
    }
}

/// One side of a stream.
pub struct Mouth {
    pub stream: Stream,
    pub digest: Option<Digest>,
}

impl Mouth {
    pub async fn say(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    pub async fn tell(&mut self, tell: Tell) -> Result<()> {
        self.say(&tell.frame()).await
    }

    /// The last words.
    pub async fn last(&mut self, bytes: &[u8]) -> Result<()> {
        self.say(bytes).await?;
        self.stream.close().await
    }

    /// The next frame; `None` at the end.
    pub async fn hear(&mut self) -> Result<Option<Vec<u8>>> {
        let mut length = 0usize;
        for shift in (0..28).step_by(7) {
            let mut byte = [0];
            if self.stream.read(&mut byte).await? == 0 {
                return Ok(None);
            }
            length |= usize::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut frame = vec![0; length];
        self.stream.read_exact(&mut frame).await?;
        Ok(Some(frame))
    }

    /// The next chunks wanted.
    pub async fn want(&mut self) -> Result<(u32, u32)> {
        loop {
            let frame = self.hear().await?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
            if let Ok(Ask::Want { first, count, .. }) = Ask::decode(&frame) {
                return Ok((first, count));
            }
        }
    }

    /// Listens, and says nothing more.
    pub async fn silence(mut self) -> Result<()> {
        while self.hear().await?.is_some() {}
        std::future::pending().await
    }

    /// Tells that it has all of this file.
    pub async fn claim(&mut self, file: &[u8]) -> Result<()> {
        self.claim_of(file, true).await
    }

    /// The same, as one that has all of it or as one that is getting it.
    pub async fn claim_of(&mut self, file: &[u8], whole: bool) -> Result<()> {
        let root = whole.then(|| raw_cid(Sha256::of(file)));
        self.tell(Tell::Head { size: Some(file.len() as u64), root }).await?;
        for (n, hashes) in leaves(file).chunks(LEAVES).enumerate() {
            self.tell(Tell::Leaves { first: (n * LEAVES) as u32, hashes: hashes.to_vec() }).await?;
        }
        self.tell(Tell::Have { first: 0, count: leaves(file).len() as u32 }).await
    }

    pub async fn chunk(&mut self, n: u32, bytes: &[u8]) -> Result<()> {
        self.tell(Tell::Chunk { n, length: bytes.len() as u32 }).await?;
        self.say(bytes).await
    }

    /// Answers a question for blocks.
    async fn blocks(mut self, blocks: &[Option<Vec<u8>>]) -> Result<()> {
        for block in blocks {
            let held = match block {
                Some(bytes) => Held::Block { length: bytes.len() as u32 },
                None => Held::Nothing,
            };
            self.say(&held.frame()).await?;
            self.say(block.as_deref().unwrap_or_default()).await?;
        }
        self.stream.close().await
    }

    /// Gives whatever is wanted of this file; `twist` may change a chunk.
    pub async fn serve(mut self, file: &[u8], twist: impl Fn(u32, &mut Vec<u8>)) -> Result<()> {
        loop {
            let (first, count) = self.want().await?;
            for n in first..first + count {
                let mut bytes = chunk_of(file, n).to_vec();
                twist(n, &mut bytes);
                self.chunk(n, &bytes).await?;
            }
        }
    }
}

pub fn chunk_of(file: &[u8], n: u32) -> &[u8] {
    let at = (n as usize * CHUNK).min(file.len());
    &file[at..(at + CHUNK).min(file.len())]
}

pub fn leaves(file: &[u8]) -> Vec<Sha256> {
    file.chunks(CHUNK).map(Sha256::of).collect()
}

/// The files that all liars of a test may lie about, by digest.
#[derive(Clone, Default)]
pub struct Files(Arc<Mutex<Vec<Arc<Vec<u8>>>>>);

impl Files {
    pub fn add(&self, bytes: &[u8]) {
        self.0.lock().unwrap().push(Arc::new(bytes.to_vec()));
    }

    pub fn of(&self, digest: Option<Digest>) -> Arc<Vec<u8>> {
        let files = self.0.lock().unwrap();
        files.iter().find(|f| Some(Sha256::of(f).digest()) == digest).cloned().unwrap_or_default()
    }
}
