//! Many attacks at once on a `dpm serve` of its own process: its memory stays within a bound, and its client is served.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use dpm::base::Multiaddr;
use dpm::exchange::BITSWAP;
use dpm::swarm::{Identity, Swarm};
use dpm::wire::bitswap::{Entry, Message, PayloadBlock, WantType, Wantlist};
use dpm::wire::near::PROTOCOL;
use futures_lite::future::or;
use futures_lite::io::AsyncWriteExt;

use super::*;
use crate::bitswap::manners::{absent, cids};
use crate::bitswap::stranger::{Manner, Stranger};
use crate::rough;

/// What a siege by some twenty peers may cost, above what the node has needed before: 40 MiB of QUIC's windows, unsent
/// bytes of 2 MiB for each peer, large messages and answers of bitswap in memory at once, 16 chunks, what news list. Of
/// some 200 MiB 54 to 58 were seen. They ask for and send more than a hundred times as much.
const MEMORY_BYTES: u64 = 192 << 20;

/// Blocks of 2 MiB that each peer throws.
const BLOCKS: usize = 40;

/// Peers of each manner.
const OF_EACH: usize = 4;

/// How long a node that does not listen is spoken to: a busy machine is slow to.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says something on a stream of its own, for as long as the node listens. `false`: it did not listen to the end.
fn throw(swarm: &Swarm, node: PeerId, protocol: &'static str, bytes: &[u8]) -> bool {
    let said = async {
        let mut stream = swarm.open_at_once(node, protocol).await.ok()?;
        stream.write_all(bytes).await.ok()?;
        stream.close().await.ok()
    };
    let patience = async {
        async_io::Timer::after(PATIENCE).await;
        None
    };
    block_on(or(said, patience)).is_some()
}

/// A bitswap message that wants these blocks.
fn wants(all: &[dpm::base::Cid]) -> Vec<u8> {
    let entry =
        |cid: &dpm::base::Cid| Entry { send_dont_have: true, ..Entry::want(*cid, WantType::Block, 1) };
    let wantlist = Wantlist { entries: all.iter().map(entry).collect(), full: false };
    Message { wantlist: Some(wantlist), ..Message::default() }.frame().concat()
}

#[test]
fn memory_is_bounded_under_siege() {
    if std::env::var_os(rough::ALONE).is_none() {
        return rough::alone("liars::siege::memory_is_bounded_under_siege");
    }
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let (here, next) = (Project::new("here", 24 * CHUNK), Project::new("next", LARGE));
    let (here, next) = (here.publish(&upstream), next.publish(&upstream));
    let (node, peer, at) = rough::start(dir.path(), "node", &upstream, &[]);
    let get = |project: &Project| {
        let answer = attempt("GET", &node.url(&project.file()), &[]).unwrap();
        assert!((answer.status, answer.broken) == (200, None) && answer.body == project.bytes);
    };
    get(&here);
    let before = node.peak_memory_bytes();

    let files = Files::default();
    files.add(&next.bytes);
    // Whatever is taken of them, they send far more than was asked for.
    let flooding = Manners::new().gives(move |mut mouth| {
        let file = files.of(mouth.digest);
        async move {
            mouth.claim(&file).await?;
            let (n, _) = mouth.want().await?;
            loop {
                mouth.chunk(n, chunk_of(&file, n)).await?;
            }
        }
    });
    let liars: Vec<_> = (0..OF_EACH).map(|_| Liar::start(flooding.clone())).collect();
    liars.iter().for_each(|liar| liar.meet_at(peer, at.clone()));
    let strangers = |manner| -> Vec<_> {
        (0..OF_EACH).map(|_| Stranger::at(peer, at.clone(), manner, Identity::fresh())).collect()
    };
    let (deaf, greedy, throwing) =
        (strangers(Manner::Deaf), strangers(Manner::Listens), strangers(Manner::Listens));
    let counts: [AtomicUsize; 4] = Default::default();
    let [takers, wanted, thrown, questions] = &counts;
    std::thread::scope(|scope| {
        for stranger in &deaf {
            // Readers that never read: of bitswap…
            let all = wants(&cids(&here.bytes));
            scope.spawn(move || (0..20).for_each(|_| _ = throw(&stranger.swarm, peer, BITSWAP, &all)));
        }
        for liar in &liars {
            scope.spawn(|| {
                // … and of dpm's own protocol.
                let mut take = Open::Take { digest: here.sha256.digest() }.frame();
                (0..20).for_each(|_| take.extend(Ask::Want { first: 0, count: 24, insist: true }.frame()));
                let open: Vec<_> = (0..60).filter_map(|_| liar.open(peer, &take).ok()).collect();
                takers.fetch_add(open.len(), Relaxed);
                news(liar, peer);
                storm(liar, peer, &here, questions);
                drop(open);
            });
        }
        for stranger in &greedy {
            scope.spawn(|| {
                for n in 0..10 {
                    let all: Vec<_> = (n * 10_000..(n + 1) * 10_000).map(absent).collect();
                    wanted.fetch_add(throw(&stranger.swarm, peer, BITSWAP, &wants(&all)).into(), Relaxed);
                }
            });
        }
        for stranger in &throwing {
            scope.spawn(|| {
                let large = random_bytes(1, 2 * CHUNK);
                let block = PayloadBlock::new(&raw_cid(Sha256::of(&large)), large.into());
                let message = Message { payload: vec![block], ..Message::default() }.frame().concat();
                for _ in 0..BLOCKS {
                    throw(&stranger.swarm, peer, BITSWAP, &message);
                    thrown.fetch_add(1, Relaxed);
                }
            });
        }
        scope.spawn(|| come_and_go(peer, &at));
        get(&next);
    });
    let peak = node.peak_memory_bytes();
    let [takers, wanted, thrown, questions] = counts.map(AtomicUsize::into_inner);
    eprintln!(
        "{before} bytes before, {peak} then; {takers} takers, {wanted} lists of wants, {thrown} blocks, {questions} questions"
    );
    let all_came = takers >= OF_EACH && wanted > 0 && thrown == BLOCKS * OF_EACH && questions >= 100;
    assert!(all_came, "a siege it was");
    assert!(peak < before + MEMORY_BYTES, "{before} bytes, then {peak}");
    get(&here);
    node.stop();
}

/// As many entries as it may list, and more.
fn news(liar: &Liar, node: PeerId) {
    for n in 0..40u32 {
        let added = (0..2048).map(|k| Sha256::of(&(n * 2048 + k).to_be_bytes())).collect();
        let news = News { sequence: n.into(), reset: n == 0, added, removed: vec![] };
        throw(liar.swarm(), node, PROTOCOL, &Open::News(news).frame());
    }
}

/// Questions, takers, and frames that are begun and not ended; the first of them are held open.
fn storm(liar: &Liar, node: PeerId, project: &Project, count: &AtomicUsize) {
    let mut open = Vec::new();
    for n in 0..500u32 {
        let words = match n % 3 {
            0 => Open::Ask { digests: vec![project.sha256.digest(); 64], claim: true }.frame(),
            1 => Open::Ask { digests: vec![Sha256::of(&n.to_be_bytes()).digest()], claim: true }.frame(),
            _ => vec![0x80, 0x80, 0x04, 1, 2, 3],
        };
        if let Ok(mouth) = liar.open(node, &words) {
            count.fetch_add(1, Relaxed);
            open.push(mouth);
        }
        open.truncate(100);
    }
}

/// A peer that is there and gone again, often.
fn come_and_go(node: PeerId, at: &Multiaddr) {
    let liar = Liar::start(Manners::new());
    for _ in 0..20 {
        liar.meet_at(node, at.clone());
        liar.swarm().disconnect(&node);
        until("it is gone", || liar.swarm().peers().is_empty());
    }
}
