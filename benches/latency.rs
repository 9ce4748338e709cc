//! How long a small artifact takes from a connected neighbour, beside the round trip to it: `cargo bench --bench latency`.
//!
//! Two nodes in this process on loopback, and between them a relay that delays each packet. The client asks the second
//! node by HTTP; the first one has the artifact, and the second one knows that (news), or has to ask (it was stored a
//! moment ago).
//!
//! Then the same without HTTP, disk and commit, which is what the protocols themselves cost: one block of 10 KB in the
//! answer to the question who has it (dpm's own), and by bitswap. The round trip is measured in between, as pings
//! and QUIC see it, so the last columns say how many of them a fetch takes. `DPM_TIMES=30` of each.

#[path = "support/party.rs"]
mod party;
#[path = "../tests/it/support/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "it is shared with tests, which use more of it"
)]
mod support;

use std::cell::RefCell;
use std::time::{Duration, Instant};

use dpm::exchange::DagLimits;
use futures_lite::future::block_on;
use party::Party;
use support::relay::{GOOD, Line, Relay, multiaddr_of, socket_of};
use support::{Node, Project, Upstream, until};

fn main() {
    let times = std::env::var("DPM_TIMES").map_or(30, |text| text.parse().expect("a number"));
    println!("medians of {times}, in ms; from the client's request to the last byte");
    println!(
        "added round trip | round trip | size | known to be there | asked for | from this node's own store"
    );
    for added in ADDED {
        for size in [10_000, 1 << 20] {
            row(added.map(Duration::from_millis), size, times);
        }
    }
    println!(
        "\nadded round trip | round trip | asked for | by bitswap | asked for ÷ round trip | by bitswap ÷ round trip"
    );
    for added in ADDED {
        bare_row(added.map(Duration::from_millis), times);
    }
}

/// What the relay adds to a round trip, in ms; without one the way is the shortest.
const ADDED: [Option<u64>; 4] = [None, Some(0), Some(1), Some(20)];

/// Bytes of a block that stands in an answer.
const SMALL: usize = 10_000;

/// Blocks that the client has not seen, between two nodes that do nothing else.
fn bare_row(added: Option<Duration>, times: usize) {
    let (server, client) = (Party::start(), Party::start());
    let relay =
        added.map(|added| Relay::start(socket_of(&server.address()), Line { delay: added / 2, ..GOOD }));
    let at = relay.as_ref().map_or_else(|| server.address(), |relay| multiaddr_of(relay.address()));
    client.meet(&server, at);
    let from = [server.swarm.peer_id()];
    let (mut asked, mut by_bitswap, mut round_trips) = (Vec::new(), Vec::new(), Vec::new());
    // The first of each says hello.
    for n in 0..=times {
        let [one, other] = [0, 1].map(|k| support::random_bytes(2 * n as u64 + k, SMALL));
        let ((_, one), (other, _)) = (server.add(&one), server.add(&other));
        let begun = Instant::now();
        let answer = block_on(client.exchange.ask(&one.digest(), &[], false));
        let took = begun.elapsed();
        assert!(
            answer.bytes.is_some_and(|(peer, bytes)| peer == from[0] && bytes.len() == SMALL),
            "it has it"
        );
        let begun = Instant::now();
        let got = block_on(async {
            let mut fetching = client.exchange.fetch_dag(other, &from, DagLimits::default()).await?;
            fetching.next().await
        });
        let then = begun.elapsed();
        assert_eq!(got.expect("it comes").expect("a block").data.len(), SMALL);
        if n > 0 {
            asked.push(took);
            by_bitswap.push(then);
            round_trips.extend(client.swarm.peers().first().and_then(|peer| peer.rtt));
        }
    }
    let round_trip = median(round_trips);
    let (asked, by_bitswap) = (median(asked), median(by_bitswap));
    println!(
        "{} | {round_trip:.2} | {asked:.2} | {by_bitswap:.2} | {:.2} | {:.2}",
        named(added),
        asked / round_trip,
        by_bitswap / round_trip
    );
}

fn named(added: Option<Duration>) -> String {
    added.map_or("no relay".into(), |added| format!("{} ms", added.as_millis()))
}

fn row(added: Option<Duration>, size: usize, times: usize) {
    let upstream = Upstream::start();
    let relays = RefCell::new(Vec::new());
    let nodes = Node::village_with(2, &upstream.url("/simple/"), |k, config, _| {
        if let (1, Some(added)) = (k, added) {
            let (_, address) = &mut config.near.peers[0];
            let line = Line { delay: added / 2, ..GOOD };
            let relay = Relay::start(socket_of(address), line);
            *address = multiaddr_of(relay.address());
            relays.borrow_mut().push(relay);
        }
    });
    // A warm connection: what it carries first is not what is measured.
    fetch(&nodes, &upstream, 0, 4 << 20, true);
    let (mut known, mut asked, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for n in 1..=times {
        let (took, again) = fetch(&nodes, &upstream, 2 * n, size, true);
        known.push(took);
        own.push(again);
        asked.push(fetch(&nodes, &upstream, 2 * n + 1, size, false).0);
    }
    let (swarm, _) = nodes[1].daemon().rooms().near.as_ref().expect("a swarm");
    let round_trip = swarm.peers().first().and_then(|peer| peer.rtt).unwrap_or_default();
    println!(
        "{} | {:.2} | {size} B | {:.2} | {:.2} | {:.2}",
        named(added),
        millis(round_trip),
        median(known),
        median(asked),
        median(own)
    );
}

/// The first node gets a new artifact, then the second one takes it. Gives how long that took, and how long it takes from
/// its own store after that.
fn fetch(nodes: &[Node], upstream: &Upstream, n: usize, size: usize, news: bool) -> (Duration, Duration) {
    let name = format!("demo-{n}");
    let project = Project::of(&name, support::random_bytes(n as u64, size)).publish(upstream);
    nodes[1].get(&project.page());
    nodes[0].get(&project.file());
    nodes[0].settle();
    if news {
        until("it is known", || !nodes[1].exchange().peers().holders(&project.sha256).is_empty());
    }
    let begun = Instant::now();
    let answer = nodes[1].get(&project.file());
    let took = begun.elapsed();
    assert!(answer.cache() == "PEER" && answer.body == project.bytes, "{name}: {}", answer.cache());
    nodes[1].settle();
    let begun = Instant::now();
    assert_eq!(nodes[1].get(&project.file()).cache(), "HIT");
    (took, begun.elapsed())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    millis(times[times.len() / 2])
}
