//! One download for everybody: who joins, who leaves, what is held back, and large files in several ranges.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use dpm::base::Sha256;
use serde_json::json;

use crate::support::upstream::answer;
use crate::support::{
    Fault, File, Framing, Latch, Node, Project, Ranges, Raw, Upstream, bytes, get, request, until,
};

const SIZE: usize = 1_000_000;

/// What the upstream sends before it waits for a test to let it go on.
const FIRST: usize = 600_000;

/// Bytes that are withheld until all are proved.
const HELD: usize = 64 << 10;

/// A project whose file comes in two goes: up to `first`, and the rest behind the latch.
fn in_two_goes(upstream: &Upstream, first: usize, framing: Framing) -> (Project, Latch) {
    let project = Project::new("demo", SIZE).publish(upstream);
    let (bytes, latch) = (project.bytes.clone(), Latch::default());
    let gate = latch.clone();
    upstream.route(&project.file_path(), move |_, out| {
        match framing {
            Framing::Length => write!(out, "HTTP/1.1 200 X\r\ncontent-length: {SIZE}\r\n\r\n")?,
            Framing::Chunked => {
                write!(out, "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n{SIZE:x}\r\n")?;
            }
        }
        out.write_all(&bytes[..first])?;
        gate.pass();
        out.write_all(&bytes[first..])?;
        if framing == Framing::Chunked { out.write_all(b"\r\n0\r\n\r\n") } else { Ok(()) }
    });
    (project, latch)
}

/// A node that waits for a test's latch without taking the upstream for dead.
fn start() -> (Upstream, Node) {
    let upstream = Upstream::start();
    let node = Node::with(&[&upstream.url("/simple/")], |_, tuning| {
        tuning.upstream.stall_time = crate::support::LIMIT;
    });
    (upstream, node)
}

#[test]
fn many_clients_one_download() {
    const CLIENTS: usize = 32;
    let (upstream, node) = start();
    let (project, latch) = in_two_goes(&upstream, FIRST, Framing::Length);
    let url = node.url(&project.file());
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| get(&url))).collect();
        let counters = node.daemon().rooms().fetch.counters();
        until("all have joined", || counters.joined.load(Ordering::Relaxed) == CLIENTS as u64 - 1);
        latch.open();
        for one in all {
            let answer = one.join().unwrap();
            assert_eq!((answer.status, answer.cache()), (200, "MISS"));
            assert!(answer.body == project.bytes);
        }
    });
    node.settle();
    assert_eq!(upstream.hits(&project.file_path()), 1);
    assert_eq!(upstream.hits(&project.page_path()), 1);
    assert_eq!(node.metric("dpm_flights_total"), 1);
    assert_eq!(node.metric("dpm_upstream_bytes_total"), SIZE as u64);
    assert_eq!(node.get(&project.file()).cache(), "HIT");
}

#[test]
fn whoever_comes_late_gets_all_of_it() {
    let (upstream, node) = start();
    let (project, latch) = in_two_goes(&upstream, FIRST, Framing::Length);
    let address = node.daemon().address();
    let mut first = Raw::connect(address).get(&project.file());
    first.read_body(FIRST - HELD);
    let mut late = Raw::connect(address).get(&project.file());
    late.read_body(FIRST - HELD);
    let ranged = |range: &str| {
        let head = format!("GET {} HTTP/1.1\r\nhost: x\r\nrange: bytes={range}\r\n\r\n", project.file());
        Raw::connect(address).send(head)
    };
    // A range that is there, and one that is not there yet.
    let mut near = ranged("1000-1999");
    near.read_body(1000);
    assert!(near.body() == &project.bytes[1000..2000]);
    assert!(near.got.starts_with(b"HTTP/1.1 206 "));
    let mut far = ranged("-10");
    latch.open();
    far.read_body(10);
    assert!(far.body() == &project.bytes[SIZE - 10..]);
    for mut reader in [first, late] {
        reader.read_body(SIZE);
        assert!(reader.body() == project.bytes);
    }
    node.settle();
    assert_eq!(upstream.hits(&project.file_path()), 1);
}

#[test]
fn the_end_is_held_back_until_all_is_proved() {
    for framing in [Framing::Length, Framing::Chunked] {
        let (upstream, node) = start();
        let (project, latch) = in_two_goes(&upstream, SIZE - 1, framing);
        let mut reader = Raw::connect(node.daemon().address()).get(&project.file());
        let counters = node.daemon().rooms().fetch.counters();
        until("all but a byte has come", || {
            counters.upstream_bytes.load(Ordering::Relaxed) == SIZE as u64 - 1
        });
        reader.read_body(SIZE - 1 - HELD);
        reader.read_calm();
        assert_eq!(reader.body().len(), SIZE - 1 - HELD);
        assert_eq!(node.artifacts(), 0);
        // Asking for just the end does not help either.
        let head = format!("GET {} HTTP/1.1\r\nhost: x\r\nrange: bytes=-1000\r\n\r\n", project.file());
        let mut end = Raw::connect(node.daemon().address()).send(head);
        end.read_calm();
        assert!(end.body().is_empty());
        latch.open();
        reader.read_body(SIZE);
        assert!(reader.body() == project.bytes);
    }
}

#[test]
fn a_download_outlives_its_clients() {
    let (upstream, node) = start();
    let (project, latch) = in_two_goes(&upstream, FIRST, Framing::Length);
    let mut first = Raw::connect(node.daemon().address()).get(&project.file());
    first.read_body(1000);
    drop(first);
    until("its answer has ended", || node.metric("dpm_open_answers") == 1);
    let mut second = Raw::connect(node.daemon().address()).get(&project.file());
    second.read_body(1000);
    drop(second);
    latch.open();
    until("it is stored", || node.stored(&project.sha256).is_some());
    node.settle();
    let answer = node.get(&project.file());
    assert_eq!((answer.cache(), upstream.hits(&project.file_path())), ("HIT", 1));
    assert!(answer.body == project.bytes);
    assert_eq!(node.metric("dpm_cut_answers_total"), 2);
}

#[test]
fn an_address_is_not_a_promise() {
    let (upstream, node) = start();
    let one = Project::new("one", SIZE).publish(&upstream);
    let mut other = Project::of("other", bytes(SIZE + 1));
    let mut entry = other.entry(&upstream);
    entry["url"] = upstream.url(&one.file_path()).into();
    entry.as_object_mut().unwrap().remove("size");
    other.list(&upstream, &[entry]);
    other.filename = "other-1.0-py3-none-any.whl".into();
    let latch = Latch::default();
    let (gate, bytes) = (latch.clone(), one.bytes.clone());
    upstream.route(&one.file_path(), move |asked, out| {
        gate.pass();
        answer(&File::new(bytes.clone()), asked, out, None)
    });
    std::thread::scope(|scope| {
        let right = scope.spawn(|| node.get(&one.file()));
        let wrong = scope.spawn(|| node.assert_cut(&other.file()));
        until("both are asked for", || upstream.hits(&one.file_path()) == 2);
        latch.open();
        assert!(right.join().unwrap().body == one.bytes);
        wrong.join().unwrap();
    });
    node.settle();
    assert!(node.stored(&one.sha256).is_some() && node.stored(&other.sha256).is_none());
    assert_eq!(node.artifacts(), 1);
}

const LARGE: usize = (64 << 20) + 12_345;

/// Bytes of the first range, and how many there are, as `lanes` cuts them.
const PART: usize = 8 << 20;
const PARTS: usize = 14;

fn large(upstream: &Upstream, ranges: Ranges, fault: fn(usize) -> Option<Fault>) -> Project {
    let project = Project::new("large", LARGE).publish(upstream);
    let file = File { ranges, ..File::new(project.bytes.clone()) };
    upstream.faulty(&project.file_path(), file, fault);
    project
}

#[test]
fn a_large_file_comes_in_ranges() {
    let (upstream, node) = start();
    let project = large(&upstream, Ranges::Honoured, |_| None);
    let answer = node.get(&project.file());
    assert_eq!((answer.status, answer.cache()), (200, "MISS"));
    assert!(answer.body == project.bytes);
    node.settle();
    assert!(node.stored(&project.sha256).is_some());
    let mut asked: Vec<_> =
        upstream.asked(&project.file_path()).iter().map(|a| a.header("range").to_owned()).collect();
    assert_eq!(asked.len(), PARTS);
    asked.sort();
    assert_eq!(asked[0], format!("bytes=0-{}", PART - 1));
    assert_eq!(node.metric("dpm_upstream_bytes_total"), LARGE as u64);
    let range = [("range", "bytes=8388600-8388700")];
    assert!(request("GET", &node.url(&project.file()), &range).body == project.bytes[8388600..=8388700]);
}

#[test]
fn a_large_file_without_ranges_comes_in_one_piece() {
    let (upstream, node) = start();
    let project = large(&upstream, Ranges::Ignored, |_| None);
    assert!(node.get(&project.file()).body == project.bytes);
    assert_eq!(upstream.hits(&project.file_path()), 1);

    let (upstream, node) = start();
    let project = large(&upstream, Ranges::Ignored, |n| (n == 0).then_some(Fault::Says("416 No")));
    assert!(node.get(&project.file()).body == project.bytes);
    assert_eq!(upstream.hits(&project.file_path()), 2);
}

#[test]
fn a_broken_range_is_taken_up_again() {
    let (upstream, node) = start();
    let project = large(&upstream, Ranges::Honoured, |n| (n == 2 || n == 5).then_some(Fault::Cut(3 << 20)));
    assert!(node.get(&project.file()).body == project.bytes);
    assert_eq!(upstream.hits(&project.file_path()), PARTS + 2);
    assert_eq!(node.metric("dpm_resumed_total"), 2);
}

/// One range that cannot be had ends all of them, and at once.
#[test]
fn a_range_that_is_gone_ends_the_download() {
    let (upstream, node) = start();
    let project = Project::new("large", LARGE).publish(&upstream);
    let (file, count, gone) =
        (File::new(project.bytes.clone()), AtomicUsize::new(0), Arc::new(AtomicUsize::new(0)));
    let latch = Latch::default();
    let (gate, went) = (latch.clone(), gone.clone());
    upstream.route(&project.file_path(), move |asked, out| match count.fetch_add(1, Ordering::SeqCst) {
        // The others are in the middle of their ranges when it happens.
        2 => {
            went.store(1, Ordering::SeqCst);
            answer(&file, asked, out, Some(Fault::Says("404 Gone")))
        }
        n if n < 4 => {
            let (first, last) = asked.header("range")[6..].split_once('-').unwrap();
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            write!(
                out,
                "HTTP/1.1 206 X\r\ncontent-length: {}\r\ncontent-range: bytes {first}-{last}/{LARGE}\r\n\r\n",
                last + 1 - first
            )?;
            out.write_all(&file.bytes[first..first + (1 << 20)])?;
            gate.pass();
            out.write_all(&file.bytes[first + (1 << 20)..=last])
        }
        _ => answer(&file, asked, out, None),
    });
    std::thread::scope(|scope| {
        let client = scope.spawn(|| node.assert_cut(&project.file()));
        until("a range is gone", || gone.load(Ordering::SeqCst) == 1);
        // The lane that met it must have said so before the others go on.
        std::thread::yield_now();
        latch.open();
        client.join().unwrap();
    });
    node.settle();
    assert_eq!(node.artifacts(), 0);
    assert!(upstream.hits(&project.file_path()) < 20, "{}", upstream.hits(&project.file_path()));
    upstream.serve(&project.file_path(), File::new(project.bytes.clone()));
    assert!(node.get(&project.file()).body == project.bytes);
}

/// Bytes that are wrong in one range.
#[test]
fn a_wrong_range_spoils_the_whole() {
    let (upstream, node) = start();
    let project = Project::new("large", LARGE).publish(&upstream);
    let mut wrong = project.bytes.clone();
    wrong[3 * PART] ^= 1;
    upstream.serve(&project.file_path(), File::new(wrong.clone()));
    node.assert_cut(&project.file());
    node.settle();
    assert_eq!((node.artifacts(), node.metric("dpm_verify_failures_total")), (0, 1));
    assert!(node.stored(&Sha256::of(&wrong)).is_none());
    upstream.serve(&project.file_path(), File::new(project.bytes.clone()));
    assert!(node.get(&project.file()).body == project.bytes);
}

/// Without a digest nothing proves that two halves belong together.
#[test]
fn an_undigested_file_that_changes_halfway_is_given_up() {
    let (upstream, node) = start();
    let project = Project::new("demo", SIZE);
    let link = upstream.url(&project.file_path());
    project.list(&upstream, &[json!({"filename": project.filename, "url": link, "hashes": {}})]);
    let path = format!("/pypi/files/demo/-/{}", project.filename);
    for (tag, complete) in [("\"a\"", true), ("\"b\"", false)] {
        let old = File { ranges: Ranges::Ignored, ..File::new(project.bytes.clone()) };
        let new = old.clone().header("etag", tag);
        let (old, count) = (old.header("etag", "\"a\""), AtomicUsize::new(0));
        upstream.route(&project.file_path(), move |asked, out| match count.fetch_add(1, Ordering::SeqCst) {
            0 => answer(&old, asked, out, Some(Fault::Cut(500_000))),
            _ => answer(&new, asked, out, None),
        });
        if complete {
            assert!(node.get(&path).body == project.bytes);
            node.settle();
            node.daemon().rooms().store.remove(&project.sha256).unwrap();
            node.daemon().rooms().store.forget_names("first-use").unwrap();
        } else {
            node.assert_cut(&path);
            node.settle();
            assert_eq!(node.artifacts(), 0);
        }
    }
}
