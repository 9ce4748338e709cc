//! Nodes near each other: what one has the others take from it, and what all miss is fetched once.

use std::io::Write;

use dpm::base::Access;

use crate::support::{Fault, File, Latch, Node, Project, Upstream, get, until};

/// A file of many chunks, the last one short.
const LARGE: usize = (9 << 20) + 12_345;

/// Until every node knows what node `k` has.
fn told(nodes: &[Node], k: usize, project: &Project) {
    for (n, node) in nodes.iter().enumerate().filter(|(n, _)| *n != k) {
        until(&format!("node {n} knows what node {k} has"), || {
            !node.exchange().peers().holders(&project.sha256).is_empty()
        });
    }
}

/// From now on the upstream gives its pages, and no file.
pub fn refuse(upstream: &Upstream, project: &Project) {
    let file = File::new(project.bytes.clone());
    upstream.faulty(&project.file_path(), file, |_| Some(Fault::Says("403 Forbidden")));
}

#[test]
fn what_a_neighbour_has_is_not_fetched_again() {
    let upstream = Upstream::start();
    let small = Project::new("small", 30_000).publish(&upstream);
    let large = Project::new("large", LARGE).publish(&upstream);
    let even = Project::new("even", 4 << 20).publish(&upstream);
    let nodes = Node::village(3, &upstream.url("/simple/"));
    for project in [&small, &large, &even] {
        assert_eq!(nodes[0].get(&project.file()).cache(), "MISS", "{}", project.name);
        nodes[0].settle();
        for node in &nodes[1..] {
            let answer = node.get(&project.file());
            assert_eq!((answer.status, answer.cache()), (200, "PEER"), "{}", project.name);
            assert!(answer.body == project.bytes);
            node.settle();
            assert_eq!(node.get(&project.file()).cache(), "HIT");
        }
        assert_eq!(upstream.hits(&project.file_path()), 1, "{}", project.name);
    }
    let report = nodes[1].order(&dpm::daemon::Order::Peers);
    let gave: u64 = report["peers"].as_array().unwrap().iter().filter_map(|p| p["gave_bytes"].as_u64()).sum();
    assert_eq!(gave as usize, small.bytes.len() + large.bytes.len() + even.bytes.len(), "{report:#}");
}

#[test]
fn a_cid_is_had_from_whoever_has_it() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let nodes = Node::village(2, &upstream.url("/simple/"));
    nodes[0].get(&project.file());
    nodes[0].settle();
    let cid = nodes[0].stored(&project.sha256).unwrap().root.unwrap();
    let (outcome, bytes) = nodes[1].carry(&dpm::daemon::Order::Get(cid.to_string()), &[]).unwrap();
    assert_eq!(outcome["from"], "peer", "{outcome:#}");
    assert!(bytes == project.bytes);
    let absent = dpm::base::raw_cid(dpm::base::Sha256::of(b"nobody has this"));
    let refused = nodes[1].carry(&dpm::daemon::Order::Get(absent.to_string()), &[]).unwrap_err();
    assert!(refused.contains("the peers did not give it"), "{refused}");
}

#[test]
fn news_spare_the_question() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let nodes = Node::village(2, &upstream.url("/simple/"));
    nodes[0].get(&project.file());
    nodes[0].settle();
    told(&nodes, 0, &project);
    assert_eq!(nodes[1].get(&project.file()).cache(), "PEER");
    // Purged at its holder, it is unlearned, and a miss again everywhere.
    nodes[0].order(&dpm::daemon::Order::Purge(format!("sha256:{}", project.sha256)));
    until("it is unlearned", || nodes[1].exchange().peers().holders(&project.sha256).is_empty());
}

#[test]
fn an_upstream_that_refuses_its_files_is_not_needed() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let nodes = Node::village(2, &upstream.url("/simple/"));
    nodes[0].get(&project.file());
    nodes[0].settle();
    refuse(&upstream, &project);
    let answer = nodes[1].get(&project.file());
    assert_eq!((answer.status, answer.cache()), (200, "PEER"));
    assert!(answer.body == project.bytes);
}

#[test]
fn what_a_private_index_gave_stays_where_it_is() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let nodes = Node::village_with(2, &upstream.url("/simple/"), |_, config, _| {
        config.pypi[0].private = true;
    });
    for node in &nodes {
        assert_eq!(node.get(&project.file()).cache(), "MISS");
        node.settle();
    }
    assert_eq!(upstream.hits(&project.file_path()), 2);
    let stored = nodes[0].daemon().rooms().store.find(&project.sha256.digest()).unwrap().unwrap();
    assert_eq!(stored.access, Access::Private);
    // Nor is it given to one that knows its digest and holds it for public.
    let mut nodes = nodes;
    nodes[1].restart(|config, _| config.pypi[0].private = false);
    until("they are connected again", || nodes[1].neighbours() == 1);
    nodes[1].order(&dpm::daemon::Order::Purge(format!("sha256:{}", project.sha256)));
    assert_eq!(nodes[1].get(&project.file()).cache(), "MISS");
}

#[test]
fn what_a_private_index_gave_is_given_where_its_operator_says_so() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let nodes = Node::village_with(2, &upstream.url("/simple/"), |_, config, _| {
        (config.pypi[0].private, config.pypi[0].peers) = (true, true);
    });
    for (node, cache) in nodes.iter().zip(["MISS", "PEER"]) {
        assert_eq!(node.get(&project.file()).cache(), cache);
        node.settle();
    }
    assert_eq!(upstream.hits(&project.file_path()), 1);
}

#[test]
fn nobody_is_given_what_is_not_shared() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let nodes = Node::village_with(2, &upstream.url("/simple/"), |k, config, _| {
        if k == 0 {
            config.near.share = dpm::config::Share::Off;
        }
    });
    for (node, cache) in nodes.iter().zip(["MISS", "MISS"]) {
        assert_eq!(node.get(&project.file()).cache(), cache);
        node.settle();
    }
    // The other way it works: who gives nothing may take.
    let other = Project::new("other", LARGE + 1).publish(&upstream);
    nodes[1].get(&other.file());
    nodes[1].settle();
    assert_eq!(nodes[0].get(&other.file()).cache(), "PEER");
}

#[test]
fn with_a_list_of_peers_nobody_else_is_let_in() {
    let upstream = Upstream::start();
    let [first, second] = [("first", LARGE), ("second", LARGE + 1)]
        .map(|(name, size)| Project::new(name, size).publish(&upstream));
    let mut nodes = Node::village(3, &upstream.url("/simple/"));
    for project in [&first, &second] {
        nodes[2].get(&project.file());
    }
    nodes[2].settle();
    let [listed, other] = [0, 1].map(|k| nodes[k].as_peer().0);
    nodes[2].restart(|config, _| config.near.allow = vec![listed]);
    let holder = nodes[2].as_peer();
    until("the listed one is let in", || nodes[2].neighbours() == 1);
    nodes[1].restart(|config, _| config.near.peers.push(holder.clone()));
    let (swarm, _) = nodes[2].daemon().rooms().near.clone().unwrap();
    until("the other is not dialled", || swarm.sought().iter().any(|s| s.peer == other && s.failures > 0));
    let tried = || nodes[1].exchange().peers().list().iter().any(|r| r.peer == holder.0 && !r.connected);
    until("the other has dialled, and is shown out", tried);
    assert_eq!(nodes[1].get(&first.file()).cache(), "MISS");
    until("the listed one knows", || !nodes[0].exchange().peers().holders(&second.sha256).is_empty());
    assert_eq!(nodes[0].get(&second.file()).cache(), "PEER");
    assert_eq!([&first, &second].map(|p| upstream.hits(&p.file_path())), [2, 1]);
    let there = |peer| nodes[2].exchange().peers().list().iter().any(|row| row.peer == peer && row.connected);
    assert_eq!((there(listed), there(other)), (true, false));
}

/// Nodes that wait for a latch of the upstream without taking it for dead.
fn patient(n: usize, upstream: &Upstream) -> Vec<Node> {
    Node::village_with(n, &upstream.url("/simple/"), |_, _, tuning| {
        tuning.upstream.stall_time = crate::support::LIMIT;
    })
}

/// A project whose file comes up to `first`, and the rest slowly until the latch opens; ranges are honoured.
fn in_two_goes(upstream: &Upstream, size: usize, first: usize) -> (Project, Latch) {
    let project = Project::new("demo", size).publish(upstream);
    let (bytes, latch) = (project.bytes.clone(), Latch::default());
    let gate = latch.clone();
    upstream.route(&project.file_path(), move |asked, out| {
        if let Some((from, to)) = asked.range(bytes.len()) {
            write!(
                out,
                "HTTP/1.1 206 X\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{}\r\n\r\n",
                to - from,
                to - 1,
                bytes.len()
            )?;
            return out.write_all(&bytes[from..to]);
        }
        write!(out, "HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n", bytes.len())?;
        out.write_all(&bytes[..first])?;
        // Slowly, until the test lets it go on: an upstream that stands still is given up.
        for piece in bytes[first..].chunks(128 << 10) {
            if !gate.is_open() {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            out.write_all(piece)?;
        }
        Ok(())
    });
    (project, latch)
}

#[test]
fn nodes_that_miss_the_same_fetch_it_once() {
    let upstream = Upstream::start();
    let (project, latch) = in_two_goes(&upstream, 3 * LARGE, 5 << 20);
    let nodes = patient(4, &upstream);
    std::thread::scope(|scope| {
        let all: Vec<_> = nodes
            .iter()
            .map(|node| {
                let url = node.url(&project.file());
                scope.spawn(move || get(&url))
            })
            .collect();
        // Before the upstream has sent half of it, the others have chunks of it.
        until("bytes came from peers while it was downloading", || {
            let taken =
                |n: &Node| n.exchange().counters().taken_bytes.load(std::sync::atomic::Ordering::Relaxed);
            nodes.iter().filter(|n| taken(n) >= 3 << 20).count() == 3
        });
        latch.open();
        let answers: Vec<_> = all.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(answers.iter().all(|a| a.status == 200 && a.body == project.bytes));
        let misses = answers.iter().filter(|a| a.cache() == "MISS").count();
        assert_eq!(misses, 1, "{:?}", answers.iter().map(|a| a.cache().to_owned()).collect::<Vec<_>>());
    });
    assert_eq!(upstream.hits(&project.file_path()), 1);
}

#[test]
fn another_takes_over_where_the_fetcher_stopped() {
    let upstream = Upstream::start();
    let (project, _latch) = in_two_goes(&upstream, 3 * LARGE, 5 << 20);
    let mut nodes = patient(3, &upstream);
    let urls: Vec<_> = nodes.iter().map(|n| n.url(&project.file())).collect();
    let clients: Vec<_> = urls
        .into_iter()
        .map(|url| std::thread::spawn(move || crate::support::attempt("GET", &url, &[])))
        .collect();
    let taken = |n: &Node| n.exchange().counters().taken_bytes.load(std::sync::atomic::Ordering::Relaxed);
    until("two take it from the third", || nodes.iter().filter(|n| taken(n) >= 3 << 20).count() == 2);
    let fetcher = nodes.iter().position(|n| taken(n) == 0).unwrap();
    nodes[fetcher].stop();
    for (n, client) in clients.into_iter().enumerate().filter(|(n, _)| *n != fetcher) {
        let answer = client.join().unwrap().unwrap();
        assert_eq!((answer.status, answer.broken), (200, None), "node {n}");
        assert!(answer.body == project.bytes);
    }
    let asked = upstream.asked(&project.file_path());
    assert_eq!(asked.len(), 2, "the fetcher, and one more");
    let range = asked[1].header("range").to_owned();
    let from: usize = range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
    assert!(from >= 3 << 20, "it went on, at {range}");
}

#[test]
fn without_an_upstream_neighbours_are_enough() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let mut nodes = Node::village(2, &upstream.url("/simple/"));
    nodes[1].get(&project.page());
    nodes[0].get(&project.file());
    nodes[0].settle();
    nodes[1].restart(|config, _| config.offline = true);
    until("they are connected again", || nodes[1].neighbours() == 1);
    let answer = nodes[1].get(&project.file());
    assert_eq!((answer.status, answer.cache()), (200, "PEER"));
    // What nobody has is still said to be missing for that reason.
    upstream.serve(&project.file_path(), File::new("x"));
    let other = Project::new("other", 1000).publish(&upstream);
    assert_eq!(nodes[1].get(&other.file()).status, 504);
}
