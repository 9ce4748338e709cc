//! One file from node to node, in several ways: dpm by bitswap, dpm by its own protocol, Helia to Helia, Kubo to Kubo.
//!
//! `cargo bench --bench exchange` after `tests/counterparts.sh`. All ways take turns within a round; the same bytes, the
//! same 1 MiB chunks, QUIC on loopback, one server and one client, the file written and hashed by the client. Prints
//! each round; then medians, throughput as the client sees it and CPU seconds of both sides together; then a table of when
//! chunks in bulk beat bitswap. A delay is added by a relay that both of ours go through and the others' nodes do not: for
//! large files it may be the relay that is measured, by both alike.
//!
//! `DPM_MIB=1,4,64,256` sizes, `DPM_DELAY_MS=0,20` what is added to the round trip, `DPM_ROUNDS=3`,
//! `DPM_WAYS=bitswap,near,helia,kubo`.

#[allow(dead_code, unreachable_pub, reason = "the tests use more of it")]
#[path = "../tests/it/bitswap/maker.rs"]
mod maker;
#[path = "support/party.rs"]
mod party;
#[allow(dead_code, unreachable_pub, reason = "the tests use more of it")]
#[path = "../tests/it/support/random.rs"]
mod random;
#[allow(dead_code, unreachable_pub, reason = "the tests use more of it")]
#[path = "../tests/it/support/relay.rs"]
mod relay;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dpm::base::{Cid, Digest, Sha256};
use dpm::exchange::{DagLimits, Want};
use futures_lite::future::block_on;
use maker::{Make, Maker};
use party::Party;
use random::Random;
use relay::{GOOD, Line, Relay, multiaddr_of, socket_of};

/// Where `tests/counterparts.sh` installs.
fn counterparts() -> PathBuf {
    let target = option_env!("CARGO_TARGET_DIR").unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/target"));
    PathBuf::from(target).join("counterparts")
}

fn setting(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.into())
}

fn main() {
    let rounds: usize = setting("DPM_ROUNDS", "3").parse().expect("a number");
    let (sizes, delays) = (numbers("DPM_MIB", "1,4,64,256"), numbers("DPM_DELAY_MS", "0,20"));
    let mut table = vec!["MiB | added round trip | bitswap | in bulk | bulk ÷ bitswap".to_owned()];
    for mib in sizes {
        let bytes = bytes(mib << 20);
        for &added in &delays {
            let case = format!("{mib} MiB, {added} ms added");
            let all = turns(&case, &bytes, Duration::from_millis(added as u64), rounds);
            for (way, figures) in &all {
                println!("{case}, median of {rounds}, {way}: {}", median(figures));
            }
            let of = |name: &str| all.iter().find(|(way, _)| way == name).map(|(_, figures)| figures);
            if let (Some(bitswap), Some(near)) = (of("bitswap"), of("near")) {
                let in_a_round = |(b, n): (&Figures, &Figures)| n.mb_per_second / b.mb_per_second;
                let ratio = middle(bitswap.iter().zip(near).map(in_a_round).collect());
                let cell =
                    |figures| format!("{:.1} ms, {}", median(figures).millis(bytes.len()), median(figures));
                table.push(format!("{mib} | {added} ms | {} | {} | {ratio:.2}", cell(bitswap), cell(near)));
            }
        }
    }
    if table.len() > 1 {
        println!("\n{}", table.join("\n"));
    }
}

fn numbers(name: &str, default: &str) -> Vec<usize> {
    setting(name, default).split(',').map(|text| text.parse().expect("a number")).collect()
}

/// All ways in turns, each as often.
fn turns(case: &str, bytes: &[u8], added: Duration, rounds: usize) -> Vec<(String, Vec<Figures>)> {
    let mut ours = Ours::new(bytes, added);
    let ways = setting("DPM_WAYS", "bitswap,near,helia,kubo");
    let ways = ways.split(',').filter(|way| added.is_zero() || matches!(*way, "bitswap" | "near"));
    let mut all: Vec<(String, Vec<Figures>)> = ways.map(|way| (way.to_owned(), vec![])).collect();
    for round in 1..=rounds {
        for (way, figures) in &mut all {
            let of = match way.as_str() {
                "bitswap" => ours.bitswap(),
                "near" => ours.near(),
                "helia" => theirs(Make::Helia, bytes),
                "kubo" => theirs(Make::Kubo, bytes),
                other => panic!("there is no way {other}"),
            };
            println!("{case}, round {round}, {way}: {of}");
            figures.push(of);
        }
    }
    all
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

impl Figures {
    fn millis(&self, bytes: usize) -> f64 {
        bytes as f64 / 1e3 / self.mb_per_second
    }
}

fn middle(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn median(of: &[Figures]) -> Figures {
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
    _relay: Option<Relay>,
}

impl Ours {
    fn new(bytes: &[u8], added: Duration) -> Self {
        let (server, client) = (Party::start(), Party::start());
        let (cid, sha256) = server.add(bytes);
        let line = Line { delay: added / 2, ..GOOD };
        let relay = (!added.is_zero()).then(|| Relay::start(socket_of(&server.address()), line));
        let at = relay.as_ref().map_or_else(|| server.address(), |relay| multiaddr_of(relay.address()));
        client.meet(&server, at);
        let out = tempfile::tempfile().expect("a file");
        Self { server, client, cid, digest: sha256.digest(), size: bytes.len() as u64, out, _relay: relay }
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
        self.measured(Self::take_near)
    }

    fn take_near(&mut self) {
        let server = self.server.swarm.peer_id();
        let want = Want {
            digest: self.digest,
            size: Some(self.size),
            here: vec![],
            beyond: vec![],
            // As news would have told.
            whole: vec![server],
            patience: Duration::from_secs(30),
            last: false,
            least_per_second: 1,
            most_bytes: u64::MAX,
        };
        let taking = self.client.exchange.take(want, &[server]);
        // As a flight does: written as it comes, hashed as a whole from the front.
        let mut hasher = dpm::base::Hasher::new(dpm::base::Algorithm::Sha256);
        let (mut next, mut beyond) = (0, std::collections::BTreeMap::new());
        while let Some(chunk) = taking.next() {
            self.out.write_all_at(&chunk.bytes, u64::from(chunk.n) << 20).expect("room");
            beyond.insert(chunk.n, chunk);
            while let Some(chunk) = beyond.remove(&next) {
                hasher.update(&chunk.bytes);
                next += 1;
            }
        }
        let outcome = taking.outcome();
        assert!(outcome.all, "{outcome:?}");
        let chunks = self.size.div_ceil(1 << 20);
        assert_eq!(u64::from(next), chunks, "chunks never came, and it says that all did: {outcome:?}");
        assert_eq!(hasher.finish(), self.digest, "other bytes");
    }

    fn measured(&mut self, work: impl FnOnce(&mut Self)) -> Figures {
        let (begun, before) = (Instant::now(), cpu());
        work(self);
        let (seconds, cpu_seconds) = (begun.elapsed().as_secs_f64(), cpu() - before);
        Figures { mb_per_second: self.size as f64 / 1e6 / seconds, cpu_seconds }
    }
}
