//! What is easily got wrong, and was once: each case is a defect that a reader found.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dpm::config::{Budget, Config};
use dpm::daemon::{Order, Tuning};
use dpm::rt::Clock;
use serde_json::json;

use crate::support::upstream::answer;
use crate::support::{
    Fault, File, Framing, JSON, Latch, Node, Project, Ranges, Raw, Upstream, bytes, get, request, until,
};

/// 2026-01-01, in milliseconds.
const NEW_YEAR: u64 = 1_767_225_600_000;

const HOUR: u64 = 3_600_000;

/// A clock that the test moves.
fn clock(tuning: &mut Tuning) -> Arc<AtomicU64> {
    let millis = Arc::new(AtomicU64::new(NEW_YEAR));
    tuning.clock = Clock::Manual(millis.clone());
    millis
}

fn timed(urls: &[&str]) -> (Node, Arc<AtomicU64>) {
    let mut millis = None;
    let node = Node::with(urls, |_, tuning| millis = Some(clock(tuning)));
    (node, millis.expect("it was set"))
}

#[test]
fn on_a_full_disk_an_old_page_is_not_taken_for_a_new_one() {
    let upstream = Upstream::start();
    let (mut node, clock) = timed(&[&upstream.url("/simple/")]);
    let old = Project::new("a", 1000).publish(&upstream);
    assert_eq!(node.get(&old.page()).status, 200);
    node.settle();
    node.restart(|config, _| config.store.free_margin_bytes = u64::MAX / 2);

    let mut new = Project::new("a", 2000);
    new.filename = "a-2.0-py3-none-any.whl".into();
    let new = new.publish(&upstream);
    clock.fetch_add(HOUR, Ordering::SeqCst);
    assert!(node.get(&new.page()).text().contains(&new.sha256.hex()), "the new page, which cannot be stored");
    // Others push it out of memory.
    for n in 0..12 {
        let other = Project::new(&format!("other-{n}"), 10).publish(&upstream);
        assert_eq!(node.get(&other.page()).status, 200);
    }
    let file = node.get(&new.file());
    assert_eq!((file.status, file.cache(), file.body == new.bytes), (200, "BYPASS", true), "{}", file.text());
    let page = request("GET", &node.url(&new.page()), &[("accept", JSON)]);
    assert!(page.text().contains(&new.sha256.hex()), "{}", page.text());
}

#[test]
fn a_first_use_is_of_one_file() {
    let upstream = Upstream::start();
    let (node, clock) = timed(&[&upstream.url("/simple/")]);
    // The same address gets another file, and the index another weak digest.
    for content in [bytes(3000), bytes(4000)] {
        let mut md5 = dpm::base::Hasher::new(dpm::base::Algorithm::Md5);
        md5.update(&content);
        let md5 = md5.finish().hex();
        let project = Project::of("demo", content.clone());
        let link = upstream.url(&project.file_path());
        let entry = json!({"filename": project.filename, "url": link, "hashes": {"md5": md5}});
        project.list(&upstream, &[entry]);
        upstream.serve(&project.file_path(), File::new(content.clone()));
        clock.fetch_add(HOUR, Ordering::SeqCst);
        for _ in 0..2 {
            let file = node.get(&format!("/pypi/files/demo/md5-{md5}/{}", project.filename));
            assert!(file.status == 200 && file.body == content, "{}", file.status);
            node.settle();
        }
    }
    // Two files whose addresses differ in their query only.
    let project = Project::new("query", 10);
    let entries = [1, 2].map(|id| {
        let link = upstream.url(&format!("/dl?id={id}"));
        json!({"filename": format!("query-{id}.0.tar.gz"), "url": link, "hashes": {}})
    });
    project.list(&upstream, &entries);
    for id in [1, 2] {
        let content = bytes(1000 + id);
        upstream.serve(&format!("/dl?id={id}"), File::new(content.clone()));
        let file = node.get(&format!("/pypi/files/query/-/query-{id}.0.tar.gz"));
        assert!(file.status == 200 && file.body == content, "{id}: {}", file.status);
        node.settle();
    }
}

#[test]
fn without_digest_and_validator_a_rest_is_not_put_behind_another_beginning() {
    let upstream = Upstream::start();
    let node = Node::new(&upstream.url("/simple/"));
    let project = Project::new("demo", 1_000_000);
    let link = upstream.url(&project.file_path());
    project.list(&upstream, &[json!({"filename": project.filename, "url": link, "hashes": {}})]);
    let old = File::new(project.bytes.clone());
    assert_eq!(old.ranges, Ranges::Honoured);
    let new = File::new(bytes(1_000_001)[..1_000_000].to_vec());
    let count = AtomicUsize::new(0);
    upstream.route(&project.file_path(), move |asked, out| match count.fetch_add(1, Ordering::SeqCst) {
        0 => answer(&old, asked, out, Some(Fault::Cut(500_000))),
        _ => answer(&new, asked, out, None),
    });
    let path = format!("/pypi/files/demo/-/{}", project.filename);
    node.assert_cut(&path);
    node.settle();
    assert_eq!(node.artifacts(), 0, "nothing that is half one and half the other");
    assert!(upstream.asked(&project.file_path()).iter().all(|a| a.header("range").is_empty()));
    assert_eq!(node.get(&path).body, bytes(1_000_001)[..1_000_000], "the next one gets the new file");
}

/// A node with a small budget in front of a file that is larger, which nobody says beforehand.
fn over_budget(first: Vec<u8>, second: Vec<u8>, project: &Project) -> (Upstream, Node) {
    let upstream = Upstream::start();
    let (name, file) = (&project.filename, project.file_path());
    let page = format!("<a href=\"{}#sha256={}\">{name}</a>", upstream.url(&file), project.sha256);
    upstream.serve(&project.page_path(), File::html(page));
    let of = |bytes| File { framing: Framing::Chunked, ..File::new(bytes) };
    let (first, second, count) = (of(first), of(second), AtomicUsize::new(0));
    upstream.route(&file, move |asked, out| match count.fetch_add(1, Ordering::SeqCst) {
        0 => answer(&first, asked, out, None),
        _ => answer(&second, asked, out, None),
    });
    let small = |config: &mut Config, _: &mut Tuning| config.store.budget = Budget::Bytes(2 << 20);
    let node = Node::with(&[&upstream.url("/simple/")], small);
    (upstream, node)
}

#[test]
fn a_file_larger_than_the_budget_is_served_and_evicts_nothing() {
    let project = Project::new("demo", 6 << 20);
    let (upstream, node) = over_budget(project.bytes.clone(), project.bytes.clone(), &project);
    let small = Project::new("small", 100_000).publish(&upstream);
    assert_eq!(node.get(&small.file()).cache(), "MISS");
    node.settle();
    let file = node.get(&project.file());
    assert!(file.status == 200 && file.body == project.bytes, "{}", file.status);
    node.settle();
    assert_eq!(node.artifacts(), 1);
    assert_eq!(node.get(&small.file()).cache(), "HIT");
}

#[test]
fn what_passes_through_must_go_on_as_the_flight_began() {
    let project = Project::new("demo", 6 << 20);
    let mut wrong = project.bytes.clone();
    wrong[1000] ^= 1;
    let (upstream, node) = over_budget(Vec::new(), Vec::new(), &project);
    // The client has had something of the first answer before the flight gives up.
    let (gate, count) = (Latch::default(), AtomicUsize::new(0));
    let (opened, right) = (gate.clone(), File::new(project.bytes.clone()));
    upstream.route(&project.file_path(), move |asked, out| {
        if count.fetch_add(1, Ordering::SeqCst) > 0 {
            return answer(&right, asked, out, None);
        }
        use std::io::Write;
        write!(out, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n", wrong.len())?;
        out.write_all(&wrong[..1 << 20])?;
        opened.pass();
        out.write_all(&wrong[1 << 20..])?;
        out.write_all(b"\r\n0\r\n\r\n")
    });
    let mut client = Raw::connect(node.daemon().address()).get(&project.file());
    client.read_body(10_000);
    gate.open();
    assert!(!client.read_all().ends_with("\r\n0\r\n\r\n"), "it is cut");
    assert_eq!(upstream.hits(&project.file_path()), 2, "the second answer is right as a whole");
    assert!(node.get(&project.file()).body == project.bytes, "and so is the next client's");
}

#[test]
fn a_private_index_that_moved_keeps_its_names() {
    let (private, public) = (Upstream::start(), Upstream::start());
    let (mut node, clock) = timed(&[&private.url("/simple/"), &public.url("/simple/")]);
    node.restart(|config, _| config.pypi[0].private = true);
    let ours = Project::new("demo", 10).publish(&private);
    Project::new("demo", 20).publish(&public);
    assert!(node.get(&ours.page()).text().contains(&ours.sha256.hex()));
    node.settle();

    // It is gone there, nobody asks for long, and everything old is cleaned away.
    private.remove(&ours.page_path());
    clock.fetch_add(200 * 24 * HOUR, Ordering::SeqCst);
    node.order(&Order::Gc);
    node.restart(|_, _| {});
    assert_eq!(node.get(&ours.page()).status, 404);
    // Another address, where it is not.
    node.restart(|config, _| config.pypi[0].url = private.url("/elsewhere/").parse().unwrap());
    clock.fetch_add(HOUR, Ordering::SeqCst);
    assert_eq!(node.get(&ours.page()).status, 404);
    node.restart(|_, _| {});
    clock.fetch_add(HOUR, Ordering::SeqCst);
    assert_eq!(node.get(&ours.page()).status, 404);
    assert_eq!(private.hits("/elsewhere/demo/"), 2);
    assert_eq!(public.hits(&ours.page_path()), 0, "nobody else was asked");
}

#[test]
fn an_endless_row_of_empty_gzip_members_ends() {
    let upstream = Upstream::start();
    let node = Node::new(&upstream.url("/simple/"));
    upstream.route("/simple/demo/", |_, out| {
        use std::io::Write;
        // RFC 1952: a member without content.
        const EMPTY: &[u8] = &[31, 139, 8, 0, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        out.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-encoding: gzip\r\n\r\n")?;
        let many = EMPTY.repeat(1000);
        for _ in 0..50_000 {
            out.write_all(&many)?;
        }
        Ok(())
    });
    let page = get(&node.url("/pypi/simple/demo/"));
    assert!(!page.text().contains("href"), "the first member counts: {}", page.text());
    let other = Project::new("other", 10).publish(&upstream);
    assert_eq!(node.get(&other.page()).status, 200);
}

#[test]
fn a_clock_that_was_ahead_does_not_keep_pages_fresh() {
    let upstream = Upstream::start();
    let project = Project::new("demo", 10).publish(&upstream);
    let (node, clock) = timed(&[&upstream.url("/simple/")]);
    assert_eq!(node.get(&project.page()).cache(), "MISS");
    clock.fetch_sub(30 * 24 * HOUR, Ordering::SeqCst);
    assert_eq!(node.get(&project.page()).cache(), "STALE", "served, and asked for again");
    until("it is asked for again", || upstream.hits(&project.page_path()) == 2);
    until("it is fresh", || node.get(&project.page()).cache() == "HIT");
}
