//! Neighbours that give slowly while the upstream would be faster: it helps, and only then.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::rough::{stored, taken, village};
use crate::support::relay::{GOOD, Line, Relay};
use crate::support::{Answer, Fault, File, Node, Project, Upstream, attempt, until};

/// About 450 KiB/s: a neighbour at the end of a bad radio link.
const BAD: Line = Line { bits_per_second: 4_000_000, ..GOOD };

/// A file of some chunks, which takes such a neighbour 20 s.
const LARGE: usize = (9 << 20) + 12_345;

/// One that takes it 10 s. All its chunks are whole, so that none of them is small enough to come at once.
const MIDDLE: usize = 5 << 20;

/// From now on the upstream gives the file at so many bytes a second, ranges honoured.
fn gives(upstream: &Upstream, project: &Project, bytes_per_second: usize) {
    const PIECE: usize = 16 << 10;
    let bytes = project.bytes.clone();
    let pause = Duration::from_secs_f64(PIECE as f64 / bytes_per_second as f64);
    upstream.route(&project.file_path(), move |asked, out| {
        let (first, end) = asked.range(bytes.len()).expect("a range");
        let (length, last, size) = (end - first, end - 1, bytes.len());
        write!(
            out,
            "HTTP/1.1 206 X\r\ncontent-length: {length}\r\ncontent-range: bytes {first}-{last}/{size}\r\n\r\n"
        )?;
        for piece in bytes[first..end].chunks(PIECE) {
            out.write_all(piece)?;
            std::thread::sleep(pause);
        }
        Ok(())
    });
}

/// A file that the first of two nodes has, and a bad line between them.
fn near(size: usize, upstream: &Upstream) -> (Project, Vec<Node>, Vec<Relay>) {
    let project = Project::new("demo", size).publish(upstream);
    let (nodes, relays) = village(2, upstream, BAD);
    stored(&nodes, 0, &project);
    (project, nodes, relays)
}

/// The second node gets it, whole and right.
#[track_caller]
fn gets(node: &Node, project: &Project) -> Answer {
    let answer = attempt("GET", &node.url(&project.file()), &[]).unwrap();
    assert_eq!((answer.status, answer.broken.as_deref()), (200, None));
    assert!(answer.body == project.bytes);
    node.settle();
    assert!(node.stored(&project.sha256).is_some());
    answer
}

fn of_upstream(node: &Node) -> usize {
    node.metric("dpm_upstream_bytes_total") as usize
}

#[test]
fn a_faster_upstream_helps_and_both_have_given() {
    let upstream = Upstream::start();
    let (project, nodes, _relays) = near(LARGE, &upstream);
    gives(&upstream, &project, 3 << 20);
    gets(&nodes[1], &project);
    let (near, far) = (taken(&nodes[1]) as usize, of_upstream(&nodes[1]));
    assert!(near >= 1 << 20, "{near} bytes from the neighbour");
    assert!(far >= 4 << 20, "{far} bytes from the upstream");
    // What came twice was on its way twice when it was nearly done.
    assert!(near + far <= LARGE + (4 << 20), "{near} + {far} bytes");
    assert_eq!(nodes[1].metric("dpm_hedged_total"), 1);
    let strikes = nodes[1].order(&dpm::daemon::Order::Peers)["peers"][0]["strikes"].clone();
    assert_eq!(strikes, 0, "to be slow is no lie");
}

#[test]
fn a_slower_upstream_is_left_alone() {
    let upstream = Upstream::start();
    let (project, nodes, _relays) = near(MIDDLE, &upstream);
    gives(&upstream, &project, 200 << 10);
    assert_eq!(gets(&nodes[1], &project).cache(), "PEER");
    assert_eq!(nodes[1].metric("dpm_hedged_total"), 1, "it was tried, once");
    assert!(taken(&nodes[1]) as usize == MIDDLE, "all is the neighbour's");
    let far = of_upstream(&nodes[1]);
    assert!(far <= 1 << 20, "{far} bytes of the upstream, a chunk at most");
}

#[test]
fn an_upstream_that_fails_changes_nothing() {
    for fault in [Fault::Says("403 Forbidden"), Fault::Says("503 Busy"), Fault::Cut(100_000), Fault::Hang(0)]
    {
        let upstream = Upstream::start();
        let (project, nodes, _relays) = near(MIDDLE, &upstream);
        let file = File::new(project.bytes.clone());
        upstream.faulty(&project.file_path(), file, move |_| Some(fault));
        assert_eq!(gets(&nodes[1], &project).cache(), "PEER", "{fault:?}");
        assert!(upstream.hits(&project.file_path()) >= 2, "{fault:?}: it was asked");
        assert_eq!(taken(&nodes[1]) as usize, MIDDLE, "{fault:?}");
    }
}

#[test]
fn an_upstream_with_other_bytes_spoils_nothing() {
    let upstream = Upstream::start();
    let (project, nodes, _relays) = near(MIDDLE, &upstream);
    upstream.serve(&project.file_path(), File::new(vec![0; MIDDLE]));
    gets(&nodes[1], &project);
    assert_eq!(nodes[1].metric("dpm_hedged_total"), 1);
    assert_eq!(nodes[1].metric("dpm_verify_failures_total"), 0);
    assert_eq!(taken(&nodes[1]) as usize, MIDDLE);
}

#[test]
fn nobody_is_asked_offline() {
    let upstream = Upstream::start();
    let (project, mut nodes, _relays) = near(MIDDLE, &upstream);
    nodes[1].get(&project.page());
    nodes[1].restart(|config, _| config.offline = true);
    until("they are connected again", || nodes[1].neighbours() == 1);
    assert_eq!(gets(&nodes[1], &project).cache(), "PEER");
    assert_eq!(upstream.hits(&project.file_path()), 1);
}

#[test]
fn a_healthy_neighbour_needs_no_help() {
    let upstream = Upstream::start();
    let project = Project::new("demo", 40 << 20).publish(&upstream);
    // A node on 100 Mbit/s.
    let (nodes, _relays) = village(2, &upstream, Line { bits_per_second: 100_000_000, ..GOOD });
    stored(&nodes, 0, &project);
    assert_eq!(gets(&nodes[1], &project).cache(), "PEER");
    assert_eq!((of_upstream(&nodes[1]), nodes[1].metric("dpm_hedged_total")), (0, 0));
    assert_eq!(upstream.hits(&project.file_path()), 1);
}

#[test]
fn who_is_fetching_it_is_as_slow_as_its_upstream() {
    let upstream = Upstream::start();
    let project = Project::new("demo", MIDDLE).publish(&upstream);
    let bytes = project.bytes.clone();
    // 640 KiB/s.
    upstream.route(&project.file_path(), move |_, out| {
        write!(out, "HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n", bytes.len())?;
        for piece in bytes.chunks(32 << 10) {
            out.write_all(piece)?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    });
    let nodes = Node::village(2, &upstream.url("/simple/"));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gets(&nodes[0], &project));
        until("it is being fetched", || {
            nodes[0].daemon().rooms().fetch.counters().upstream_bytes.load(Ordering::Relaxed) > 0
        });
        assert_eq!(gets(&nodes[1], &project).cache(), "PEER");
        first.join().unwrap();
    });
    assert_eq!(upstream.hits(&project.file_path()), 1);
    assert_eq!(nodes[1].metric("dpm_hedged_total"), 0);
}

#[test]
fn of_many_with_the_same_slow_neighbour_one_asks_for_all() {
    let upstream = Upstream::start();
    let project = Project::new("demo", 16 << 20).publish(&upstream);
    // 160 KiB/s to each of four.
    let (nodes, _relays) = village(5, &upstream, Line { bits_per_second: 1_300_000, ..GOOD });
    let (slow, takers) = nodes.split_last().unwrap();
    stored(&nodes, takers.len(), &project);
    gives(&upstream, &project, 3 << 20);
    std::thread::scope(|scope| {
        for node in takers {
            scope.spawn(|| gets(node, &project));
        }
    });
    let given = |node: &Node| node.exchange().counters().given_bytes.load(Ordering::Relaxed);
    assert!(given(slow) < 32 << 20, "it did not give it to each");
    // Two may find in the same moment that it goes slowly.
    let far: usize = takers.iter().map(of_upstream).sum();
    assert!((8 << 20..=32 << 20).contains(&far), "{far} bytes from the upstream, of 16 MiB for each of four");
}
