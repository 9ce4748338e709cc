//! Neighbours behind bad lines, and neighbours that die while they give: everything still completes.

use std::cell::RefCell;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use dpm::base::{Multiaddr, PeerId, Sha256};
use dpm::exchange::Want;

use crate::support::liar::{CHUNK, Liar, Manners, chunk_of};
use crate::support::relay::{GOOD, Line, Relay, multiaddr_of, socket_of};
use crate::support::{LIMIT, Latch, Node, Process, Project, Upstream, attempt, process, random_bytes, until};

/// A file of some chunks.
const LARGE: usize = (6 << 20) + 12_345;

/// Slow enough that something can happen while a file comes.
const SLOW: Line = Line { bits_per_second: 40_000_000, ..GOOD };

/// A village whose last node has a line like this to each of the others.
pub fn village(n: usize, upstream: &Upstream, line: Line) -> (Vec<Node>, Vec<Relay>) {
    let relays = RefCell::new(Vec::new());
    let nodes = Node::village_with(n, &upstream.url("/simple/"), |k, config, _| {
        if k == n - 1 {
            for (_, address) in &mut config.near.peers {
                let relay = Relay::start(socket_of(address), line);
                *address = multiaddr_of(relay.address());
                relays.borrow_mut().push(relay);
            }
        }
    });
    (nodes, relays.into_inner())
}

pub fn taken(node: &Node) -> u64 {
    node.exchange().counters().taken_bytes.load(Ordering::Relaxed)
}

/// A node fetches it, and all others know.
pub fn stored(nodes: &[Node], k: usize, project: &Project) {
    let status = nodes[k].get(&project.file()).status;
    assert_eq!(status, 200);
    nodes[k].settle();
    for (n, node) in nodes.iter().enumerate().filter(|(n, _)| *n != k) {
        until(&format!("node {n} knows what node {k} has"), || {
            let holders = node.exchange().peers().holders(&project.sha256);
            holders.contains(&nodes[k].as_peer().0)
        });
    }
}

/// The last node takes a file over such a line.
fn takes_over(line: Line) {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let (nodes, relays) = village(2, &upstream, line);
    stored(&nodes, 0, &project);
    let answer = nodes[1].get(&project.file());
    assert_eq!((answer.status, answer.cache()), (200, "PEER"));
    assert!(answer.body == project.bytes);
    assert_eq!(upstream.hits(&project.file_path()), 1);
    assert!(relays[0].carried() as usize > LARGE, "it came over this line");
}

#[test]
fn one_packet_of_a_hundred_is_lost() {
    takes_over(Line { lost_per_mille: 10, ..GOOD });
}

#[test]
fn one_packet_of_twenty_is_lost() {
    takes_over(Line { lost_per_mille: 50, ..GOOD });
}

#[test]
fn ten_megabits_a_second() {
    takes_over(Line { bits_per_second: 10_000_000, ..GOOD });
}

#[test]
fn far_away_and_lossy() {
    takes_over(Line { delay: Duration::from_millis(20), lost_per_mille: 2, ..GOOD });
}

#[test]
fn a_giver_loses_its_power_and_another_goes_on() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let (nodes, relays) = village(3, &upstream, SLOW);
    for k in [0, 1] {
        stored(&nodes, k, &project);
    }
    let url = nodes[2].url(&project.file());
    let client = std::thread::spawn(move || attempt("GET", &url, &[]));
    until("half a chunk came from the first", || relays[0].carried() > 512 << 10);
    relays[0].cut();
    let answer = client.join().unwrap().unwrap();
    assert_eq!((answer.status, answer.broken.as_deref()), (200, None));
    assert!(answer.body == project.bytes);
    assert_eq!(upstream.hits(&project.file_path()), 1, "the other neighbour was enough");
}

#[test]
fn the_only_giver_loses_its_power_and_the_upstream_goes_on() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let (nodes, relays) = village(2, &upstream, SLOW);
    stored(&nodes, 0, &project);
    let url = nodes[1].url(&project.file());
    let client = std::thread::spawn(move || attempt("GET", &url, &[]));
    until("chunks came", || taken(&nodes[1]) >= 2 << 20);
    relays[0].cut();
    let answer = client.join().unwrap().unwrap();
    assert_eq!((answer.status, answer.broken.as_deref()), (200, None));
    assert!(answer.body == project.bytes);
    goes_on(&upstream, &project);
}

/// A giver goes while a chunk of its own, proved and counted, waits for a disk that is slow: whoever takes gets it, for
/// nobody will be asked for it again.
#[test]
fn what_came_from_a_giver_that_went_is_not_lost() {
    const CHUNKS: usize = 20;
    let node = Node::village(1, "http://127.0.0.1:9/simple/").remove(0);
    let file = Arc::new(random_bytes(1, CHUNKS * CHUNK));
    let counted = {
        let exchange = node.exchange().clone();
        Arc::new(move || exchange.counters().taken_bytes.load(Ordering::Relaxed) as usize / CHUNK)
    };
    let stays = {
        let file = file.clone();
        Manners::new().gives(move |mut mouth| {
            let file = file.clone();
            async move {
                mouth.claim(&file).await?;
                mouth.serve(&file, |_, _| {}).await
            }
        })
    };
    let gone = Latch::default();
    let goes = {
        let (file, counted, gone) = (file.clone(), counted.clone(), gone.clone());
        Manners::new().gives(move |mut mouth| {
            let (file, counted, gone) = (file.clone(), counted.clone(), gone.clone());
            async move {
                mouth.claim(&file).await?;
                let (n, _) = mouth.want().await?;
                // Two wait to be taken, and one for a place among them.
                let full = counted.clone();
                blocking::unblock(move || until("there is no room", || full() >= 3)).await;
                mouth.chunk(n, chunk_of(&file, n)).await?;
                blocking::unblock(move || until("its own is counted", || counted() >= 4)).await;
                drop(mouth);
                gone.open();
                Ok(())
            }
        })
    };
    let (stays, goes) = (Liar::near(&node, stays), Liar::near(&node, goes));
    let want = Want {
        digest: Sha256::of(&file).digest(),
        size: Some(file.len() as u64),
        whole: vec![],
        most_bytes: u64::MAX,
        here: vec![],
        beyond: vec![],
        patience: LIMIT,
        least_per_second: 1,
        last: false,
    };
    let taking = node.exchange().take(want, &[stays.peer(), goes.peer()]);
    gone.pass();
    // Its silence is doubted after a second, and it is told that nothing more is wanted of it, which fails. That nothing
    // follows from it has no sign, so the time for it is given.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) && taking.outcome().left.is_empty() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut came: Vec<u32> = std::iter::from_fn(|| taking.next()).map(|chunk| chunk.n).collect();
    came.sort_unstable();
    assert!(came.into_iter().eq(0..CHUNKS as u32), "{:?}", taking.outcome());
    assert!(taking.outcome().all);
}

/// The upstream was asked a second time, for what was missing.
#[track_caller]
fn goes_on(upstream: &Upstream, project: &Project) {
    let asked = upstream.asked(&project.file_path());
    assert_eq!(asked.len(), 2);
    let from = asked[1].range(LARGE).map_or(0, |(from, _)| from);
    assert!(from >= 1 << 20, "from byte {from}");
}

/// Set in the namespace in which the processes of a test run.
pub const ALONE: &str = "DPM_TEST_ALONE";

/// A node's process with these peers, and how others reach it.
pub fn start(
    dir: &Path,
    name: &str,
    upstream: &Upstream,
    peers: &[(PeerId, Multiaddr)],
) -> (Process, PeerId, Multiaddr) {
    let peers: Vec<_> = peers.iter().map(|(peer, address)| format!("{address}/p2p/{peer}")).collect();
    let settings = format!(
        "[near]\nlisten = [\"/ip4/127.0.0.1/udp/0/quic-v1\"]\npeers = {peers:?}\n[store]\nfree_margin = \"0B\"\n"
    );
    let data = dir.join(name);
    let node = Process::with_swarm(&data, &upstream.url("/simple/"), &settings);
    let said = process::asked(&["peers", "--data", data.to_str().unwrap()]);
    let peer = said["peer"].as_str().unwrap().parse().unwrap();
    let address = said["listeners"][0].as_str().unwrap().parse().unwrap();
    (node, peer, address)
}

/// How many artifacts each of a node's peers has told it of.
fn listed(dir: &Path, name: &str) -> Vec<u64> {
    let said = process::asked(&["peers", "--data", dir.join(name).to_str().unwrap()]);
    said["peers"].as_array().unwrap().iter().map(|peer| peer["listed"].as_u64().unwrap()).collect()
}

#[test]
fn givers_that_are_killed() {
    if std::env::var_os(ALONE).is_none() {
        return alone("rough::givers_that_are_killed");
    }
    let (dir, upstream) = (tempfile::tempdir().unwrap(), Upstream::start());
    let (both, one) =
        (Project::new("both", LARGE).publish(&upstream), Project::new("one", LARGE + 1).publish(&upstream));
    let (a, a_peer, a_at) = start(dir.path(), "a", &upstream, &[]);
    let (c, c_peer, c_at) = start(dir.path(), "c", &upstream, &[(a_peer, a_at.clone())]);
    until("they know each other", || c.metric("dpm_peers") == 1);
    let get = |node: &Process, project: &Project| attempt("GET", &node.url(&project.file()), &[]).unwrap();
    assert_eq!(get(&a, &both).status, 200);
    until("it knows what the first has", || listed(dir.path(), "c") == [1]);
    for project in [&one, &both] {
        assert_eq!(get(&c, project).status, 200);
    }
    let slow: Vec<_> = [&a_at, &c_at].map(|at| Relay::start(socket_of(at), SLOW)).into_iter().collect();
    let peers = [(a_peer, multiaddr_of(slow[0].address())), (c_peer, multiaddr_of(slow[1].address()))];
    let (b, ..) = start(dir.path(), "b", &upstream, &peers);
    until("it knows what both have", || listed(dir.path(), "b").iter().sum::<u64>() == 3);
    for (killed, relay, project) in [(a, &slow[0], &both), (c, &slow[1], &one)] {
        let of_b = || b.metric("dpm_near_taken_bytes_total");
        let (carried, before) = (relay.carried(), of_b());
        std::thread::scope(|scope| {
            let client = scope.spawn(|| get(&b, project));
            until("it gives", || relay.carried() > carried + (512 << 10) && of_b() >= before + (2 << 20));
            killed.kill();
            let answer = client.join().unwrap();
            assert_eq!((answer.status, answer.broken.as_deref()), (200, None), "{}", project.name);
            assert!(answer.body == project.bytes);
        });
    }
    assert_eq!(upstream.hits(&both.file_path()), 1, "the other neighbour was enough");
    goes_on(&upstream, &one);
}

/// Runs one test again in a network of its own, for its processes look for neighbours.
pub fn alone(test: &str) {
    let unshare = if rustix::process::geteuid().is_root() { "-n" } else { "-Urn" };
    if !Command::new("unshare").args([unshare, "true"]).output().is_ok_and(|o| o.status.success()) {
        let skip = std::env::var_os("DPM_NO_NAMESPACES").is_some();
        assert!(skip, "no network namespaces here; DPM_NO_NAMESPACES=1 passes these tests by");
        return;
    }
    let mut command = Command::new("unshare");
    command.args([unshare, "sh", "-ec", "ip link set lo up; exec \"$@\"", "sh"]);
    command.arg(std::env::current_exe().unwrap()).args([test, "--exact", "--nocapture"]).env(ALONE, "1");
    // A test is many of what has a limit each.
    let output = process::end_within(command, Duration::from_secs(300));
    let (out, err) = (process::text(&output.stdout), process::text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
}
