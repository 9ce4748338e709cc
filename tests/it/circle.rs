//! Nodes in front of each other: a row of them works, a circle is named as one.

use std::time::Instant;

use crate::clients::process::free_port;
use crate::support::{LIMIT, Node, Project, Upstream, request, until};

/// A node at this port, in front of the index at another.
fn node(port: u16, index: u16) -> Node {
    Node::with(&[&format!("http://127.0.0.1:{index}/pypi/simple/")], |config, _| {
        config.listen = ([127, 0, 0, 1], port).into();
    })
}

#[test]
fn a_row_of_nodes() {
    let upstream = Upstream::start();
    let project = Project::new("demo", 30_000).publish(&upstream);
    let mut nodes = vec![Node::new(&upstream.url("/simple/"))];
    for _ in 0..3 {
        let url = nodes.last().expect("one").url("/pypi/simple/");
        nodes.push(Node::new(&url));
    }
    let last = nodes.last().expect("one");
    assert_eq!(last.get(&project.page()).status, 200);
    let file = last.get(&project.file());
    assert!(file.status == 200 && file.body == project.bytes, "{}", file.text());
    for path in [project.page_path(), project.file_path()] {
        let asked = upstream.asked(&path);
        let trail = asked[0].header("cdn-loop");
        let ids: std::collections::BTreeSet<_> = trail.split(", ").collect();
        assert!(asked.len() == 1 && ids.len() == 4, "{path}: {trail}");
        assert!(ids.iter().all(|id| id.starts_with("dpm; id=")), "{path}: {trail}");
    }
    // Its own start gives a node its name there: no upstream can tell who it is from one to the next.
    let before = upstream.asked(&project.page_path())[0].header("cdn-loop").to_owned();
    let mut first = nodes.remove(0);
    first.restart(|_, _| {});
    request("GET", &first.url("/pypi/simple/other/"), &[]);
    let after = upstream.asked("/simple/other/")[0].header("cdn-loop").to_owned();
    assert!(!before.contains(&after), "{before}: {after}");
}

#[test]
fn a_circle_of_nodes() {
    for length in [1, 2, 3] {
        let ports: Vec<u16> = (0..length).map(|_| free_port()).collect();
        let nodes: Vec<Node> = (0..length).map(|n| node(ports[n], ports[(n + 1) % length])).collect();
        let begun = Instant::now();
        let answer = nodes[0].get("/pypi/simple/demo/");
        assert_eq!(answer.status, 508, "{length}: {}", answer.text());
        assert!(begun.elapsed() < LIMIT, "{length}: nobody waited for himself");
        // Nobody was asked twice for it.
        for node in &nodes {
            until("it is counted", || node.metric("dpm_open_answers") <= 1);
            let status = node.order(&dpm::daemon::Order::Status);
            assert_eq!(status["origins"][0]["requests"], 1, "{length}: {status:#}");
        }
        assert_eq!(nodes[0].get("/healthz").status, 200);
    }
}

#[test]
fn what_comes_from_too_far() {
    let upstream = Upstream::start();
    let project = Project::new("demo", 30_000).publish(&upstream);
    let node = Node::new(&upstream.url("/simple/"));
    let ask = |trail: &str| request("GET", &node.url(&project.page()), &[("cdn-loop", trail)]);
    let far = ask("dpm; id=1, dpm; id=2, dpm; id=3, dpm; id=4, dpm; id=5");
    assert!(far.status == 508 && far.text().contains("too many dpm nodes"), "{}", far.text());
    assert_eq!(upstream.total(), 0);
    assert_eq!(ask("other.example.org; loops=3, dpm; id=1, dpm; id=2, dpm; id=3, dpm; id=4").status, 200);
    let trail = upstream.asked(&project.page_path())[0].header("cdn-loop").to_owned();
    assert!(trail.starts_with("other.example.org; loops=3, dpm; id=1, "), "{trail}");
}
