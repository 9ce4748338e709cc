//! What an upstream can do wrong with a file, and what must come of it: the right bytes, an honest error or a cut
//! connection, nothing stored that is not proved, and a node that is fine afterwards.

use std::time::Duration;

use dpm::base::Sha256;
use serde_json::json;

use crate::support::{Fault, File, Framing, Node, Project, Ranges, Raw, Upstream, bytes, until};

const SIZE: usize = 300_000;

fn start() -> (Upstream, Node, Project) {
    let upstream = Upstream::start();
    let node = Node::hasty(&upstream.url("/simple/"));
    let project = Project::new("demo", SIZE).publish(&upstream);
    (upstream, node, project)
}

/// The upstream heals: the next request gets the bytes, and they are stored.
#[track_caller]
fn assert_healed(upstream: &Upstream, node: &Node, project: &Project) {
    upstream.serve(&project.file_path(), File::new(project.bytes.clone()));
    node.settle();
    let answer = node.get(&project.file());
    assert_eq!((answer.status, answer.cache()), (200, "MISS"), "{}", answer.text());
    assert!(answer.body == project.bytes);
    node.settle();
    assert_eq!(node.get(&project.file()).cache(), "HIT");
}

/// An error of an upstream as clients get it: they may come back, and nothing says "does not exist".
#[track_caller]
fn assert_upstreams_error(node: &Node, path: &str, status: u16) {
    let answer = node.get(path);
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.cache(), "NONE");
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|s| s > 0), "{:?}", answer.headers);
    assert_eq!(answer.header("cache-control"), "no-store");
    node.settle();
    assert_eq!(node.artifacts(), 0);
}

#[test]
fn errors_of_the_upstream_are_told_as_such() {
    let rows = [
        (Fault::Says("500 Broken"), 502),
        (Fault::Says("502 Bad"), 502),
        (Fault::Says("503 Busy"), 503),
        (Fault::Says("504 Late"), 502),
        (Fault::Says("429 Slow down"), 503),
        (Fault::Says("401 Who"), 502),
        (Fault::Says("403 No"), 502),
        (Fault::Says("418 Teapot"), 502),
        (Fault::Says("204 Nothing"), 502),
        (Fault::Says("304 As before"), 502),
        (Fault::Says("206 Part\r\ncontent-range: bytes 0-9/10"), 502),
        (Fault::Silence, 504),
        (Fault::Says("302 There\r\nlocation: http://169.254.169.254/latest/"), 502),
        (Fault::Says("302 There\r\nlocation: http://other.example.org/x"), 502),
        (Fault::Says("302 There\r\nlocation: http://127.0.0.1:1/x"), 502),
        (Fault::Says("302 There\r\nlocation: file:///etc/passwd"), 502),
        (Fault::Says("302 There"), 502),
        (Fault::Says("302 Again\r\nlocation: /f/demo-1.0-py3-none-any.whl"), 502),
        (Fault::Says("200 Packed\r\ncontent-encoding: br"), 502),
    ];
    let (upstream, node, project) = start();
    for (fault, status) in rows {
        eprintln!("{fault:?}");
        upstream.broken(&project.file_path(), fault);
        assert_upstreams_error(&node, &project.file(), status);
        // The same for the page of a project that nothing is known of.
        if !matches!(
            fault,
            Fault::Silence | Fault::Says("302 Again\r\nlocation: /f/demo-1.0-py3-none-any.whl")
        ) {
            upstream.broken("/simple/other/", fault);
            assert_upstreams_error(&node, "/pypi/simple/other/", status);
        }
    }
    assert_healed(&upstream, &node, &project);
    let other = Project::new("other", 10).publish(&upstream);
    assert_eq!(node.get(&other.page()).status, 200);
}

#[test]
fn short_trouble_is_no_trouble() {
    let (upstream, node, project) = start();
    let busy = |n| (n < 2).then_some(Fault::Says("503 Busy"));
    upstream.faulty(&project.file_path(), File::new(project.bytes.clone()), busy);
    upstream.faulty(&project.page_path(), File::json(project.page_of(&[project.entry(&upstream)])), busy);
    assert!(node.get(&project.file()).body == project.bytes);
    assert_eq!(upstream.hits(&project.file_path()), 3);
}

#[test]
fn a_busy_upstream_is_left_alone_as_long_as_it_says() {
    let (upstream, node, project) = start();
    assert_eq!(node.get(&project.page()).status, 200);
    upstream.broken(&project.file_path(), Fault::Says("429 Slow down\r\nretry-after: 3"));
    for _ in 0..3 {
        let answer = node.get(&project.file());
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!((1..=3).contains(&answer.header("retry-after").parse().unwrap()), "{:?}", answer.headers);
    }
    assert_eq!(upstream.hits(&project.file_path()), 1);
    upstream.serve(&project.file_path(), File::new(project.bytes.clone()));
    until("the rest is over", || node.get(&project.file()).status == 200);
}

#[test]
fn nobody_at_home() {
    let (upstream, node, project) = start();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let gone = Node::hasty(&format!("http://{nobody}/simple/"));
    assert_upstreams_error(&gone, &project.page(), 502);
    assert_upstreams_error(&gone, &project.file(), 502);
    drop(gone);
    assert_healed(&upstream, &node, &project);
}

#[test]
fn missing_is_missing_and_remembered_briefly() {
    let (upstream, node, project) = start();
    upstream.remove(&project.file_path());
    let answer = node.get(&project.file());
    assert_eq!((answer.status, answer.cache()), (404, "NONE"), "{}", answer.text());
    for _ in 0..3 {
        assert_eq!(node.get("/pypi/simple/nobody/").status, 404);
    }
    assert_eq!(upstream.hits("/simple/nobody/"), 1);
    assert_healed(&upstream, &node, &project);
}

#[test]
fn private_addresses_are_not_for_pages_to_name() {
    let (upstream, node, project) = start();
    let inside = Upstream::start();
    inside.file("/secret", "text/plain", "secret");
    let mut entry = project.entry(&upstream);
    entry["url"] = inside.url("/secret").into();
    project.list(&upstream, &[entry]);
    assert_upstreams_error(&node, &project.file(), 502);
    assert_eq!(inside.total(), 0);
}

/// Faults that a download outlives.
#[test]
fn broken_downloads_are_taken_up_again() {
    let once = |n| (n == 0).then_some(Fault::Cut(100_000));
    let twice = |n| (n < 2).then_some(Fault::Cut(70_000 * (n + 1)));
    let hang = |n| (n == 0).then_some(Fault::Hang(200_000));
    let at_once = |n| (n == 0).then_some(Fault::Cut(0));
    let faults: [fn(usize) -> Option<Fault>; 4] = [once, twice, hang, at_once];
    for ranges in [Ranges::Honoured, Ranges::Ignored] {
        for framing in [Framing::Length, Framing::Chunked] {
            for (number, fault) in faults.into_iter().enumerate() {
                eprintln!("{ranges:?} {framing:?} {number}");
                let (upstream, node, project) = start();
                let file = File { ranges, framing, ..File::new(project.bytes.clone()) };
                upstream.faulty(&project.file_path(), file, fault);
                let answer = node.get(&project.file());
                assert_eq!((answer.status, answer.body.len()), (200, SIZE));
                assert!(answer.body == project.bytes);
                node.settle();
                assert!(node.stored(&project.sha256).is_some());
                assert!(node.metric("dpm_resumed_total") >= 1);
                let asked = upstream.asked(&project.file_path());
                if number == 0 {
                    assert_eq!(asked[1].header("range"), "bytes=100000-");
                }
                assert_eq!(asked.len(), if number == 1 { 3 } else { 2 });
            }
        }
    }
}

/// A server that takes a resumed range for another one is asked for everything.
#[test]
fn a_resumed_range_that_is_refused_starts_over() {
    for refusal in ["416 No", "206 Other\r\ncontent-range: bytes 0-299999/300000"] {
        let (upstream, node, project) = start();
        let file = File::new(project.bytes.clone());
        upstream.faulty(&project.file_path(), file, move |n| match n {
            0 => Some(Fault::Cut(100_000)),
            1 => Some(Fault::Says(refusal)),
            _ => None,
        });
        assert!(node.get(&project.file()).body == project.bytes);
        assert_eq!(upstream.hits(&project.file_path()), 3);
    }
}

/// Faults that a download does not outlive: the answer is cut, nothing is stored, and the upstream is not asked
/// for ever.
#[test]
fn hopeless_downloads_end() {
    let rows = [
        (Fault::Cut(100_000), Framing::Length, Ranges::Ignored),
        (Fault::Cut(100_000), Framing::Chunked, Ranges::Ignored),
        (Fault::Cut(0), Framing::Length, Ranges::Honoured),
        (Fault::Hang(100_000), Framing::Length, Ranges::Ignored),
    ];
    for (fault, framing, ranges) in rows {
        eprintln!("{fault:?} {framing:?} {ranges:?}");
        let (upstream, node, project) = start();
        let file = File { framing, ranges, ..File::new(project.bytes.clone()) };
        upstream.faulty(&project.file_path(), file, move |_| Some(fault));
        node.assert_cut(&project.file());
        node.settle();
        assert_eq!((node.artifacts(), node.metric("dpm_cut_answers_total")), (0, 1));
        assert!(upstream.hits(&project.file_path()) < 10);
        assert_healed(&upstream, &node, &project);
    }
}

#[test]
fn a_trickle_is_not_waited_for() {
    let upstream = Upstream::start();
    let node = Node::with(&[&upstream.url("/simple/")], |_, tuning| {
        tuning.upstream.slow_bytes_per_second = 10_000;
        tuning.upstream.slow_time = Duration::from_millis(300);
    });
    let project = Project::new("demo", SIZE).publish(&upstream);
    let file = File::new(project.bytes.clone());
    upstream.faulty(&project.file_path(), file, |_| Some(Fault::Trickle(Duration::from_millis(5))));
    node.assert_cut(&project.file());
    node.settle();
    assert_eq!(node.artifacts(), 0);
    assert!(upstream.hits(&project.file_path()) < 10);
    assert_healed(&upstream, &node, &project);
}

#[test]
fn lies_about_the_length() {
    for (name, size) in [("longer", SIZE + 1), ("shorter", SIZE - 1), ("empty", 0)] {
        for framing in [Framing::Length, Framing::Chunked] {
            eprintln!("{name} {framing:?}");
            let (upstream, node, project) = start();
            let mut lie = project.bytes.clone();
            lie.resize(size, 0);
            upstream.serve(&project.file_path(), File { framing, ..File::new(lie) });
            match framing {
                Framing::Length => assert_upstreams_error(&node, &project.file(), 502),
                Framing::Chunked => node.assert_cut(&project.file()),
            }
            node.settle();
            assert_eq!(node.artifacts(), 0);
            assert_healed(&upstream, &node, &project);
        }
    }
}

#[test]
fn other_bytes_than_promised_never_become_whole() {
    for framing in [Framing::Length, Framing::Chunked] {
        for stated in [true, false] {
            let (upstream, node, project) = start();
            let mut entry = project.entry(&upstream);
            if !stated {
                entry.as_object_mut().unwrap().remove("size");
            }
            project.list(&upstream, &[entry]);
            let mut wrong = project.bytes.clone();
            wrong[SIZE - 1] ^= 1;
            upstream.serve(&project.file_path(), File { framing, ..File::new(wrong.clone()) });
            node.assert_cut(&project.file());
            node.settle();
            assert_eq!(node.metric("dpm_verify_failures_total"), 1);
            assert!(node.stored(&project.sha256).is_none() && node.stored(&Sha256::of(&wrong)).is_none());
            assert_eq!(node.artifacts(), 0);
            let incoming = std::fs::read_dir(node.data().join("incoming")).unwrap();
            assert_eq!(incoming.count(), 0, "no half file is left");
            assert_healed(&upstream, &node, &project);
        }
    }
}

/// HTTP/1.0 knows no other end of a body of unknown length than the end of the connection.
#[test]
fn a_cut_is_a_cut_for_old_clients_too() {
    let (upstream, node, project) = start();
    let mut entry = project.entry(&upstream);
    entry.as_object_mut().unwrap().remove("size");
    project.list(&upstream, &[entry]);
    let mut wrong = project.bytes.clone();
    wrong[SIZE - 1] ^= 1;
    upstream.serve(&project.file_path(), File { framing: Framing::Chunked, ..File::new(wrong) });
    let raw = Raw::connect(node.daemon().address());
    let text = raw.send(format!("GET {} HTTP/1.0\r\n\r\n", project.file())).read_all();
    assert!(!text.starts_with("HTTP/1.0 200") && !text.starts_with("HTTP/1.1 200"), "{}", &text[..200]);

    upstream
        .serve(&project.file_path(), File { framing: Framing::Chunked, ..File::new(project.bytes.clone()) });
    node.settle();
    let mut raw =
        Raw::connect(node.daemon().address()).send(format!("GET {} HTTP/1.0\r\n\r\n", project.file()));
    raw.read_body(SIZE);
    assert!(raw.body() == project.bytes);
}

#[test]
fn gzip_that_nobody_asked_for_is_undone() {
    let (upstream, node, project) = start();
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, &project.bytes).unwrap();
    let packed = packer.finish().unwrap();
    let file = File { ranges: Ranges::Ignored, ..File::new(packed) }.header("content-encoding", "gzip");
    upstream.serve(&project.file_path(), file);
    let answer = node.get(&project.file());
    assert_eq!((answer.status, answer.header("content-encoding")), (200, ""));
    assert!(answer.body == project.bytes);
    assert_eq!(upstream.asked(&project.file_path())[0].header("accept-encoding"), "identity");
}

#[test]
fn redirects_within_the_upstream_are_followed() {
    let (upstream, node, project) = start();
    upstream.serve("/elsewhere", File::new(project.bytes.clone()));
    upstream.broken(&project.file_path(), Fault::Says("307 There\r\nlocation: /elsewhere"));
    assert!(node.get(&project.file()).body == project.bytes);
    // An index may have moved, too: links are relative to where it is.
    let page = json!({"name": "moved", "files": [{
        "filename": project.filename, "url": "../../f/x", "hashes": {"sha256": project.sha256.hex()},
    }]});
    upstream.serve("/new/simple/moved/", File::json(page.to_string()));
    upstream.broken("/simple/moved/", Fault::Says("301 Moved\r\nlocation: /new/simple/moved/"));
    upstream.serve("/new/f/x", File::new(bytes(SIZE)));
    let page = node.get("/pypi/simple/moved/");
    assert_eq!(page.status, 200, "{}", page.text());
}

/// The file is large enough to be held partly in buffers when the error comes: an open connection is not used for
/// a second answer.
#[test]
fn after_a_cut_the_connection_is_closed() {
    let (upstream, node, project) = start();
    let file = File { ranges: Ranges::Ignored, ..File::new(project.bytes.clone()) };
    upstream.faulty(&project.file_path(), file, |_| Some(Fault::Cut(200_000)));
    let raw = Raw::connect(node.daemon().address());
    let request = format!("GET {} HTTP/1.1\r\nhost: x\r\n\r\n", project.file());
    let text = raw.send(request.repeat(2)).read_all();
    assert!(text.matches("HTTP/1.1 ").count() <= 1);
    assert_eq!(node.get("/healthz").text(), "ok\n");
}
