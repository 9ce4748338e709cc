//! One file from node to node, in several ways: dpm by bitswap, dpm by its own protocol, Helia to Helia, Kubo to Kubo.
//!
//! `cargo bench --bench exchange` after `tests/counterparts.sh`. All ways take turns within a round; the same bytes, the
//! same 1 MiB chunks, QUIC on loopback, one server and one client, the file written and hashed by the client. Prints
//! each round, then medians: throughput as the client sees it, and CPU seconds of both sides together.
//!
//! `DPM_MIB=64,256` sizes, `DPM_ROUNDS=3`, `DPM_WAYS=bitswap,near,helia,kubo`.

#[allow(dead_code, unreachable_pub, reason = "the tests use more of it")]
#[path = "../tests/it/bitswap/maker.rs"]
mod maker;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dpm::base::{Access, Cid, Digest, Sha256};
use dpm::exchange::{BITSWAP, DagLimits, Exchange, NEAR, Parts, Patience, Sharing, Want};
use dpm::members::{self, Members};
use dpm::peers::{Circle, Peers};
use dpm::rt::{Clock, Executor, Gate, Tasks};
use dpm::store::{Budget, Facts, Options as StoreOptions, Store};
use dpm::swarm::{Event, Identity, Limits, Options, Swarm};
use dpm::unixfs::LayoutBuilder;
use futures_lite::future::block_on;
use maker::{Make, Maker};

/// Where `tests/counterparts.sh` installs.
fn counterparts() -> PathBuf {
    let target = option_env!("CARGO_TARGET_DIR").unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/target"));
    PathBuf::from(target).join("counterparts")
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.into())
}

fn main() {
    let sizes = setting("DPM_MIB", "64,256");
    let rounds: usize = setting("DPM_ROUNDS", "3").parse().expect("a number");
    let ways = setting("DPM_WAYS", "bitswap,near,helia,kubo");
    for mib in sizes.split(',') {
        let bytes = bytes(mib.parse::<usize>().expect("a number") << 20);
        let mut ours = Ours::new(&bytes);
        let mut all: Vec<(&str, Vec<Figures>)> = ways.split(',').map(|way| (way, vec![])).collect();
        for round in 1..=rounds {
            for (way, figures) in &mut all {
                let of = match *way {
                    "bitswap" => ours.bitswap(),
                    "near" => ours.near(),
                    "helia" => theirs(Make::Helia, &bytes),
                    "kubo" => theirs(Make::Kubo, &bytes),
                    other => panic!("there is no way {other}"),
                };
                println!("{mib} MiB, round {round}, {way}: {of}");
                figures.push(of);
            }
        }
        for (way, figures) in all {
            println!("{mib} MiB, median of {rounds}, {way}: {}", median(figures));
        }
    }
}

/// Bytes that do not repeat in any block.
fn bytes(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut out = Vec::with_capacity(size + 8);
    while out.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(size);
    out
}

#[derive(Clone, Copy)]
struct Figures {
    mb_per_second: f64,
    cpu_seconds: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} MB/s, {:.2} CPU s", self.mb_per_second, self.cpu_seconds)
    }
}

fn median(of: Vec<Figures>) -> Figures {
    let middle = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    Figures {
        mb_per_second: middle(of.iter().map(|f| f.mb_per_second).collect()),
        cpu_seconds: middle(of.iter().map(|f| f.cpu_seconds).collect()),
    }
}

/// CPU seconds of this process.
fn cpu() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

/// Another maker's two nodes, fresh.
fn theirs(make: Make, bytes: &[u8]) -> Figures {
    let (mut server, mut client) = (Maker::start(make), Maker::start(make));
    let cid = server.add(bytes, None);
    client.connect(&server.addresses[0]);
    let used = |maker: &mut Maker| {
        maker.ask(&serde_json::json!({"do": "usage"}))["cpu_seconds"].as_f64().expect("a number")
    };
    let before = used(&mut server);
    let fetched = client.fetch(&cid);
    let served = used(&mut server) - before;
    assert_eq!(fetched["sha256"], Sha256::of(bytes).hex(), "the same bytes");
    let number = |name: &str| fetched[name].as_f64().expect("a number");
    Figures {
        mb_per_second: bytes.len() as f64 / 1e6 / number("seconds"),
        cpu_seconds: served + number("cpu_seconds"),
    }
}

/// Two nodes of ours, each with its own thread for the swarm, as `dpm serve` has.
struct Ours {
    server: Party,
    client: Party,
    cid: Cid,
    digest: Digest,
    size: u64,
    out: File,
}

struct Party {
    exchange: Exchange,
    store: Store,
    swarm: Swarm,
    tasks: Tasks,
    _executor: Executor,
    dir: tempfile::TempDir,
}

impl Ours {
    fn new(bytes: &[u8]) -> Self {
        let (server, client) = (Party::start(), Party::start());
        let (cid, sha256) = server.add(bytes);
        let address = wait(|| server.swarm.listeners().first().cloned());
        client.swarm.dial(server.swarm.peer_id(), vec![address]);
        wait(|| client.exchange.has_company().then_some(()));
        wait(|| server.exchange.has_company().then_some(()));
        let out = File::create(client.dir.path().join("out")).expect("a file");
        Self { server, client, cid, digest: sha256.digest(), size: bytes.len() as u64, out }
    }

    fn bitswap(&mut self) -> Figures {
        self.measured(|ours| {
            let from = [ours.server.swarm.peer_id()];
            let fetched = block_on(ours.client.exchange.fetch_file(
                ours.cid,
                &from,
                DagLimits::default(),
                |at, part| ours.out.write_all_at(&part, at),
            ))
            .expect("a file");
            assert_eq!(fetched.sha256.digest(), ours.digest);
        })
    }

    fn near(&mut self) -> Figures {
        // A round in which not every chunk was handed out counts as no round.
        loop {
            let mut came = 0;
            let figures = self.measured(|ours| came = ours.take_near());
            match self.size.div_ceil(1 << 20) - came {
                0 => return figures,
                missing => println!("near: {missing} chunks never came, and it says that all did: again"),
            }
        }
    }

    /// Gives how many chunks came.
    fn take_near(&mut self) -> u64 {
        let want = Want {
            digest: self.digest,
            size: Some(self.size),
            here: vec![],
            beyond: vec![],
            whole: Vec::new(),
            patience: Duration::from_secs(30),
            last: false,
            least_per_second: 1,
            most_bytes: u64::MAX,
        };
        let taking = self.client.exchange.take(want, &[self.server.swarm.peer_id()]);
        // As a flight does: written as it comes, hashed as a whole from the front.
        let mut hasher = dpm::base::Hasher::new(dpm::base::Algorithm::Sha256);
        let (mut next, mut came, mut beyond) = (0, 0, std::collections::BTreeMap::new());
        while let Some(chunk) = taking.next() {
            came += 1;
            self.out.write_all_at(&chunk.bytes, u64::from(chunk.n) << 20).expect("room");
            beyond.insert(chunk.n, chunk);
            while let Some(chunk) = beyond.remove(&next) {
                hasher.update(&chunk.bytes);
                next += 1;
            }
        }
        let outcome = taking.outcome();
        assert!(outcome.all, "{outcome:?}");
        assert!(u64::from(next) < self.size.div_ceil(1 << 20) || hasher.finish() == self.digest);
        came
    }

    fn measured(&mut self, work: impl FnOnce(&mut Self)) -> Figures {
        let (begun, before) = (Instant::now(), cpu());
        work(self);
        let (seconds, cpu_seconds) = (begun.elapsed().as_secs_f64(), cpu() - before);
        Figures { mb_per_second: self.size as f64 / 1e6 / seconds, cpu_seconds }
    }
}

fn wait<T>(mut so: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(found) = so() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Party {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let executor = Executor::start(1).expect("a thread");
        let tasks = executor.tasks();
        let budget =
            StoreOptions { budget: Budget::Bytes(8 << 30), free_margin_bytes: 1 << 20, clock: Clock::System };
        let store = Store::open(&dir.path().join("data"), budget).expect("a store");
        let options = Options {
            key: Identity::fresh(),
            listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("a multiaddr")],
            protocols: vec![NEAR, BITSWAP],
            agent: "dpm/bench".into(),
            limits: Limits::default(),
            admit: Arc::new(|_, _| true),
        };
        let (swarm, events) = Swarm::start(options, &tasks).expect("a swarm");
        let peers = Peers::default();
        let exchange = Exchange::start(Parts {
            swarm: swarm.clone(),
            store: store.clone(),
            peers: peers.clone(),
            members: Members::open(store.clone(), members::Options::default()).expect("nothing was kept"),
            disk: Gate::new(16),
            tasks: tasks.clone(),
            sharing: Sharing::default(),
            patience: Patience::default(),
        });
        tasks.spawn(async move {
            while let Ok(event) = events.recv().await {
                match event {
                    Event::Connected { peer, address } => peers.came(peer, address, Circle::Near),
                    Event::Identified { peer, agent, .. } => peers.introduced(peer, &agent, true),
                    Event::Moved { .. } | Event::Disconnected { .. } | Event::Listening(_) => {}
                }
            }
        });
        Self { exchange, store, swarm, tasks, _executor: executor, dir }
    }

    fn add(&self, bytes: &[u8]) -> (Cid, Sha256) {
        let mut builder = LayoutBuilder::default();
        builder.update(bytes);
        let layout = builder.finish();
        let (root, sha256) = (layout.tree().0, Sha256::of(bytes));
        let store = &self.store;
        let incoming = store.begin(Some(bytes.len() as u64)).expect("room");
        incoming.write(bytes, 0).expect("room");
        let facts = Facts {
            sha256,
            digests: vec![],
            layout,
            access: Access::Public,
            upstream: "bench".into(),
            url: String::new(),
            filename: "bench".into(),
            pin_name: None,
        };
        store.commit(incoming, facts).expect("a commit");
        (root, sha256)
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        block_on(async {
            self.swarm.stop().await;
            self.tasks.cancel().await;
        });
    }
}
