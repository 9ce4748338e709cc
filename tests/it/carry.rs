//! Caches on a stick, and files by CID on the command line: what is carried arrives whole or not at all, and nobody's
//! word is taken for a name.

use std::path::Path;

use dpm::base::{Access, Sha256, raw_cid};
use dpm::daemon::{Choice, Order};
use dpm::unixfs::car;
use serde_json::{Value, json};

use crate::ipfs::{blocks, others, root};
use crate::support::{Fault, File, Node, Process, Project, Upstream, get, process, until, wheel};
use process::{asked, run, said, text};

/// Three chunks, the last one short.
const LARGE: usize = (2 << 20) + 12_345;

const NAMES: Order = Order::Import { names: true };
const FILES: Order = Order::Import { names: false };

fn export(choice: Choice) -> Order {
    Order::Export { choice, private: false }
}

/// A node that has these, their pages included, and everything of it as a CAR file.
fn exported(upstream: &Upstream, projects: &[&Project]) -> (Node, Vec<u8>) {
    let node = Node::new(&upstream.url("/simple/"));
    for project in projects {
        assert_eq!(node.get(&project.page()).status, 200);
        assert_eq!(node.get(&project.file()).status, 200);
    }
    node.settle();
    until("the pages are stored", || {
        node.carry(&export(Choice::All), &[]).is_ok_and(|(o, _)| o["pages"] == projects.len())
    });
    let (_, car) = node.carry(&export(Choice::All), &[]).unwrap();
    (node, car)
}

/// A node with nothing that may ask nobody; it knows the index at `url`.
fn bare(url: &str) -> Node {
    Node::with(&[url], |config, _| config.offline = true)
}

#[test]
fn an_office_without_a_network_installs() {
    let upstream = Upstream::start();
    let small = Project::of("small", wheel("small-1.0.dist-info", "Metadata-Version: 2.1\nName: small\n"));
    let small = small.publish(&upstream);
    let (large, empty) =
        (Project::new("large", LARGE).publish(&upstream), Project::of("empty", vec![]).publish(&upstream));
    let (node, car) = exported(&upstream, &[&small, &large, &empty]);
    let url = upstream.url("/simple/");
    let there = bare(&url);
    let (outcome, _) = there.carry(&NAMES, &car).unwrap();
    assert_eq!(
        (&outcome["artifacts"], &outcome["pages"], &outcome["refused"], &outcome["broken"]),
        (&json!(3), &json!(3), &json!([]), &Value::Null),
        "{outcome:#}"
    );
    let asked = upstream.total();
    for project in [&small, &large, &empty] {
        let page = there.get(&project.page());
        assert_eq!((page.status, page.cache()), (200, "STALE"), "{}", project.name);
        assert!(page.header("warning").starts_with("110"));
        assert_eq!(page.body, node.get(&project.page()).body);
        let file = there.get(&project.file());
        assert_eq!((file.status, file.cache()), (200, "HIT"), "{}", project.name);
        assert!(file.body == project.bytes);
        let cid = root(&project.bytes);
        assert!(there.get(&format!("/ipfs/{cid}")).body == project.bytes);
    }
    let metadata = there.get(&format!("{}.metadata", small.file()));
    assert_eq!((metadata.status, metadata.text().as_str()), (200, "Metadata-Version: 2.1\nName: small\n"));
    assert_eq!(upstream.total(), asked, "nobody was asked");
    // Again, it is all there; and what it gives is the same files.
    let (again, _) = there.carry(&NAMES, &car).unwrap();
    assert_eq!(
        (&again["artifacts"], &again["known"], &again["pages"], &again["pages_known"]),
        (&json!(0), &json!(3), &json!(0), &json!(3))
    );
    assert_eq!(there.order(&Order::Verify)["damaged"], json!([]));
}

#[test]
fn what_is_chosen_is_carried() {
    let upstream = Upstream::start();
    let projects: Vec<_> = ["one", "two"].map(|n| Project::new(n, 1000 + n.len()).publish(&upstream)).into();
    let two = Project::of("two-more", vec![7; 99]).publish(&upstream);
    let (node, _) = exported(&upstream, &[&projects[0], &projects[1], &two]);
    node.order(&Order::Pin(format!("sha256:{}", two.sha256)));
    let one = &projects[0];
    let cid = root(&one.bytes).to_string();
    let cases = [
        (Choice::What("one".into()), one),
        (Choice::What("pkg:pypi/one".into()), one),
        (Choice::What("pkg:pypi/one@1.0".into()), one),
        (Choice::What(format!("sha256:{}", one.sha256)), one),
        (Choice::What(cid), one),
        (Choice::What(one.file()), one),
        (Choice::What(one.page()), one),
        (Choice::Pinned, &two),
    ];
    for (choice, project) in cases {
        let (outcome, car) = node.carry(&export(choice.clone()), &[]).unwrap();
        assert_eq!((&outcome["artifacts"], &outcome["pages"]), (&json!(1), &json!(1)), "{choice:?}");
        let there = bare(&upstream.url("/simple/"));
        there.carry(&NAMES, &car).unwrap();
        assert_eq!(there.get(&project.page()).status, 200, "{choice:?}");
        assert_eq!(there.get(&project.file()).cache(), "HIT", "{choice:?}");
        assert_eq!(there.artifacts(), 1);
    }
    for nothing in ["pkg:pypi/one@2.0", "never-heard-of", &format!("sha256:{}", Sha256::of(b"x"))] {
        let error = node.carry(&export(Choice::What(nothing.into())), &[]).unwrap_err();
        assert_eq!(error, format!("nothing is stored of {nothing}"));
    }
}

#[test]
fn others_read_an_export() {
    let upstream = Upstream::start();
    let large = Project::new("large", LARGE).publish(&upstream);
    let (_node, car) = exported(&upstream, &[&large]);
    let (roots, all) = blocks(&car);
    assert_eq!(roots[1..], [root(&large.bytes)]);
    assert_eq!(all[0].0, roots[0]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cache.car");
    std::fs::write(&file, &car).unwrap();
    let read = others(&["car", file.to_str().unwrap(), &roots[1].to_string()]);
    assert_eq!(read["sha256"], large.sha256.hex());
    assert_eq!(read["blocks"].as_array().map(Vec::len), Some(all.len()));
}

#[test]
fn names_are_not_taken_on_anybodys_word() {
    let upstream = Upstream::start();
    let project = Project::new("demo", 5000).publish(&upstream);
    let (_node, car) = exported(&upstream, &[&project]);
    let url = upstream.url("/simple/");
    // Not unless it is said.
    let there = bare(&url);
    let (outcome, _) = there.carry(&FILES, &car).unwrap();
    assert_eq!(
        (&outcome["artifacts"], &outcome["pages"], &outcome["pages_passed"]),
        (&json!(1), &json!(0), &json!(1))
    );
    assert_eq!(there.get(&project.page()).status, 504);
    assert_eq!(there.get(&project.file()).status, 200, "its digest is its own word");
    // Not of an index that is none here.
    let elsewhere = bare("http://127.0.0.1:9/simple/");
    let (outcome, _) = elsewhere.carry(&NAMES, &car).unwrap();
    assert_eq!(outcome["pages_unusable"][0]["what"], "no index with this address is configured here");
    assert_eq!(elsewhere.get(&project.page()).status, 504);
    // Not for a name that another index owns.
    let owned = Node::with(&["http://127.0.0.1:9/simple/", &url], |config, _| {
        config.offline = true;
        config.pypi[0].owns = vec!["demo".into()];
    });
    let (outcome, _) = owned.carry(&NAMES, &car).unwrap();
    assert_eq!(outcome["pages_unusable"][0]["what"], "the name belongs to another index here");
    assert_eq!(owned.get(&project.page()).status, 504);
    // Not in the place of a fresher one.
    let newer = Project::of("demo", vec![1; 6000]).publish(&upstream);
    let fresh = Node::new(&url);
    assert!(fresh.get(&project.page()).text().contains(&newer.sha256.hex()));
    let (outcome, _) = fresh.carry(&NAMES, &car).unwrap();
    assert_eq!((&outcome["pages"], &outcome["pages_known"]), (&json!(0), &json!(1)));
    assert!(fresh.get(&project.page()).text().contains(&newer.sha256.hex()));
    // And where the index can be asked it is, whatever was brought, and asked for the whole page.
    let online = Node::new(&url);
    let (outcome, _) = online.carry(&NAMES, &car).unwrap();
    assert_eq!(outcome["pages"], json!(1));
    let page = online.get(&project.page());
    assert_eq!(page.cache(), "MISS");
    assert!(page.text().contains(&newer.sha256.hex()));
    let asked = upstream.asked(&project.page_path());
    assert_eq!(asked.last().unwrap().header("if-none-match"), "");
}

#[test]
fn what_is_private_stays_unless_it_is_said() {
    let upstream = Upstream::start();
    let project = Project::new("secret", LARGE).publish(&upstream);
    let url = upstream.url("/simple/");
    let node = Node::with(&[&url], |config, _| config.pypi[0].private = true);
    node.get(&project.page());
    node.get(&project.file());
    node.settle();
    let private = Order::Export { choice: Choice::All, private: true };
    until("the page is stored", || node.carry(&private, &[]).is_ok_and(|(o, _)| o["pages"] == 1));
    let (outcome, car) = node.carry(&export(Choice::All), &[]).unwrap();
    assert_eq!(
        (&outcome["artifacts"], &outcome["pages"], &outcome["kept_back"]),
        (&json!(0), &json!(0), &json!(2))
    );
    assert_eq!(blocks(&car).1.len(), 1, "an empty manifest");
    let (_, car) = node.carry(&private, &[]).unwrap();
    let there = bare(&url);
    there.carry(&NAMES, &car).unwrap();
    let stored = there.daemon().rooms().store.find(&project.sha256.digest()).unwrap().unwrap();
    assert_eq!(stored.access, Access::Private, "and so it stays private");
    assert_eq!(there.get(&format!("/ipfs/{}", root(&project.bytes))).status, 404);
    assert_eq!(there.order(&Order::Why("secret".into()))["private"], true);
    assert_eq!(there.get(&project.file()).status, 200);
}

#[test]
fn a_damaged_file_costs_what_is_damaged() {
    let upstream = Upstream::start();
    let projects =
        ["a", "b", "c"].map(|n| Project::new(n, LARGE + n.as_bytes()[0] as usize).publish(&upstream));
    let [a, b, c] = &projects;
    let (_node, car) = exported(&upstream, &[a, b, c]);
    let url = upstream.url("/simple/");
    let at = |needle: &[u8]| car.windows(needle.len()).position(|w| w == needle).unwrap();
    let cid_of = |bytes: &[u8]| raw_cid(Sha256::of(bytes));
    // In the middle of b's second chunk.
    let mut flipped = car.clone();
    flipped[at(&b.bytes[(1 << 20) + 500_000..][..64])] ^= 1;
    let there = bare(&url);
    let (outcome, _) = there.carry(&NAMES, &flipped).unwrap();
    assert_eq!(
        (&outcome["artifacts"], &outcome["refused_count"], &outcome["broken"]),
        (&json!(2), &json!(1), &Value::Null)
    );
    let refused = &outcome["refused"][0];
    assert_eq!(refused["filename"], b.filename);
    let section = at(&b.bytes[1 << 20..(1 << 20) + 64])
        - car::section(&cid_of(&b.bytes[1 << 20..2 << 20]), 1 << 20).len();
    let what = refused["what"].as_str().unwrap();
    assert_eq!(
        what,
        format!("byte {section} of the CAR file: the block is not {}", cid_of(&b.bytes[1 << 20..2 << 20]))
    );
    assert_eq!(there.get(&b.file()).status, 504);
    for project in [a, c] {
        assert!(there.get(&project.file()).body == project.bytes);
    }
    // Run again with a sound one, it takes what was missing.
    let (outcome, _) = there.carry(&NAMES, &car).unwrap();
    assert_eq!((&outcome["artifacts"], &outcome["known"]), (&json!(1), &json!(2)));
    assert!(there.get(&b.file()).body == b.bytes);

    // Its root, and so everything below it.
    let mut flipped = car.clone();
    let node = &blocks(&car).1.into_iter().find(|(cid, _)| *cid == root(&b.bytes)).unwrap().1;
    flipped[at(node) + 60] ^= 1;
    let there = bare(&url);
    let (outcome, _) = there.carry(&NAMES, &flipped).unwrap();
    assert_eq!((&outcome["artifacts"], &outcome["refused_count"]), (&json!(2), &json!(1)), "{outcome:#}");
    assert_eq!(outcome["refused"][0]["filename"], b.filename);
}

#[test]
fn a_cut_file_gives_what_was_whole() {
    let upstream = Upstream::start();
    let (a, b) =
        (Project::new("a", LARGE).publish(&upstream), Project::new("b", LARGE + 1).publish(&upstream));
    let (_node, car) = exported(&upstream, &[&a, &b]);
    let url = upstream.url("/simple/");
    let there = bare(&url);
    // At the end of a section, where the CAR file itself seems whole; and anywhere.
    let first = blocks(&car).1.into_iter().next().unwrap();
    let roots = [blocks(&car).0].concat();
    let manifest_end =
        car::header(&roots).len() + car::section(&first.0, first.1.len() as u64).len() + first.1.len();
    let ends: Vec<usize> = (0..12).map(|n| n * car.len() / 12).chain([manifest_end, car.len() - 1]).collect();
    let mut before = 0;
    for end in ends.into_iter().filter(|end| *end < car.len()) {
        match there.carry(&FILES, &car[..end]) {
            Err(error) => assert!(end < manifest_end && error.contains("cut off"), "{end}: {error}"),
            Ok((outcome, _)) => {
                let broken = outcome["broken"].as_str().unwrap_or_else(|| panic!("{end}: {outcome:#}"));
                assert!(broken.contains("cut off") || broken.contains("ends before"), "{end}: {broken}");
                assert!(there.artifacts() >= before);
                before = there.artifacts();
            }
        }
    }
    assert_eq!(before, 1, "one of the two is whole in most of it");
    assert_eq!(there.order(&Order::Verify)["damaged"], json!([]));
    let (outcome, _) = there.carry(&FILES, &car).unwrap();
    assert_eq!(
        (&outcome["artifacts"], &outcome["known"], &outcome["broken"]),
        (&json!(1), &json!(1), &Value::Null)
    );
    for project in [&a, &b] {
        assert!(there.get(&project.file()).body == project.bytes);
    }
}

#[test]
fn what_is_no_export_is_refused_whole() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let (node, car) = exported(&upstream, &[&project]);
    let plain = node.get(&format!("/ipfs/{}?format=car", root(&project.bytes))).body;
    let (roots, all) = blocks(&car);
    // The same with another version, made right in every other way.
    let mut manifest = all[0].1.clone();
    assert_eq!(manifest[12], 1);
    manifest[12] = 2;
    let of = |block: &[u8]| dpm::base::Cid::new_v1(0x71, *raw_cid(Sha256::of(block)).hash());
    let one = |block: &[u8]| {
        [car::header(&[of(block)]), car::section(&of(block), block.len() as u64), block.to_vec()].concat()
    };
    let headless =
        [car::header(&roots), car::section(&all[1].0, all[1].1.len() as u64), all[1].1.clone()].concat();
    let cases: [(&[u8], &str); 8] = [
        (b"", "cut off"),
        (b"hello world, this is no CAR file", "CAR file"),
        (&plain, "no export of dpm"),
        (&car::header(&[]), "no export of dpm"),
        (&headless, "does not begin with its first root"),
        (&one(&manifest), "has version 2"),
        (&one(b"\x82\x61x\x01"), "no export of dpm"),
        (&one(b"\x87\x6adpm-export\x01\xff"), "cannot be read"),
    ];
    let there = bare(&upstream.url("/simple/"));
    for (bytes, want) in cases {
        let error = there.carry(&NAMES, bytes).unwrap_err();
        assert!(error.contains(want), "{error}");
    }
    assert_eq!(there.artifacts(), 0);
    // Bits flipped anywhere: never a panic, never an artifact that is not what it says.
    let mut random = crate::support::Random::new(7);
    for _ in 0..200 {
        let mut bytes = car.clone();
        for _ in 0..=random.below(3) {
            // Mostly where the structure is.
            let span = if random.below(2) == 0 { 2000 } else { bytes.len() as u64 };
            let at = random.below(span) as usize;
            bytes[at] ^= 1 << random.below(8);
        }
        if there.carry(&NAMES, &bytes).is_ok() && there.artifacts() > 0 {
            assert!(there.get(&project.file()).body == project.bytes);
            there.order(&Order::Purge(format!("sha256:{}", project.sha256)));
        }
    }
    assert_eq!(there.order(&Order::Verify)["damaged"], json!([]));
}

#[test]
fn no_room_is_said() {
    let upstream = Upstream::start();
    let (a, b) = (Project::new("a", LARGE).publish(&upstream), Project::new("b", LARGE).publish(&upstream));
    let b = Project::of("b", [&b.bytes[..], b"!"].concat()).publish(&upstream);
    let (_node, car) = exported(&upstream, &[&a, &b]);
    let mut there = bare(&upstream.url("/simple/"));
    there.restart(|config, _| config.store.budget = dpm::config::Budget::Bytes(LARGE as u64 + 100));
    let error = there.carry(&NAMES, &car).unwrap_err();
    assert!(error.contains("the budget of this store is"), "{error}");
    there.restart(|config, _| {
        config.store.budget = dpm::config::Budget::Bytes(4 << 30);
        config.store.free_margin_bytes = u64::MAX / 2;
    });
    let (outcome, _) = there.carry(&FILES, &car).unwrap();
    let broken = outcome["broken"].as_str().unwrap();
    assert!(
        broken.contains("bytes are free") && broken.contains("make room and import it again"),
        "{broken}"
    );
    there.restart(|config, _| config.store.free_margin_bytes = 1 << 20);
    let (outcome, _) = there.carry(&FILES, &car).unwrap();
    assert_eq!((&outcome["artifacts"], &outcome["broken"]), (&json!(2), &Value::Null));
}

#[test]
fn what_goes_while_it_is_carried_is_named() {
    let upstream = Upstream::start();
    let (a, b) =
        (Project::new("a", LARGE).publish(&upstream), Project::new("b", LARGE + 1).publish(&upstream));
    let (node, _) = exported(&upstream, &[&a, &b]);
    // Damaged on the disk: it is not passed on.
    let hex = a.sha256.hex();
    let object = node.data().join("objects").join(&hex[..2]).join(&hex);
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[(1 << 20) + 7] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    let (outcome, car) = node.carry(&export(Choice::All), &[]).unwrap();
    assert_eq!((&outcome["artifacts"], &outcome["missing"][0]["filename"]), (&json!(1), &json!(a.filename)));
    let there = bare(&upstream.url("/simple/"));
    let (outcome, _) = there.carry(&FILES, &car).unwrap();
    assert_eq!((&outcome["artifacts"], &outcome["refused"][0]["filename"]), (&json!(1), &json!(a.filename)));
    assert!(there.get(&b.file()).body == b.bytes);
}

/// Words for the node on `data`.
fn on<'a>(data: &'a Path, words: &[&'a str]) -> Vec<&'a str> {
    [words, &["--data", data.to_str().unwrap()]].concat()
}

#[test]
fn the_command_line_carries() {
    let upstream = Upstream::start();
    let (demo, other) =
        (Project::new("demo", LARGE).publish(&upstream), Project::new("other", 3000).publish(&upstream));
    let dir = tempfile::tempdir().unwrap();
    let (data, stick) = (dir.path().join("data"), dir.path().join("stick.car"));
    let stick = stick.to_str().unwrap();
    let url = upstream.url("/simple/");
    let node = Process::start(&data, &url, "");
    for project in [&demo, &other] {
        assert_eq!(get(&node.url(&project.page())).status, 200);
        assert_eq!(get(&node.url(&project.file())).status, 200);
    }
    until("it is stored", || node.metric("dpm_flights") == 0 && node.metric("dpm_store_artifacts") == 2);
    // The running node and the idle store give the same.
    let running = asked(&on(&data, &["export", "--all", "-o", stick]));
    assert_eq!((&running["artifacts"], &running["pages"]), (&json!(2), &json!(2)), "{running:#}");
    let from_running = std::fs::read(stick).unwrap();
    assert_eq!(running["bytes"], from_running.len());
    node.stop();
    let idle = said(&on(&data, &["export", "--all", "-o", stick]));
    assert!(idle.contains("2 artifacts and 2 index pages"), "{idle}");
    let files = |car: &[u8]| {
        let mut names: Vec<_> = blocks(car).1.into_iter().map(|(cid, _)| cid).collect();
        // The time is in the manifest.
        names.remove(0);
        names
    };
    assert_eq!(files(&from_running), files(&std::fs::read(stick).unwrap()));
    let entries = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(entries, 3, "nothing is left beside data, data.toml and the stick");

    // Into a folder that is none yet, and by way of a node that runs.
    let there = dir.path().join("there");
    let text_of = said(&on(&there, &["import", stick, "--names"]));
    assert!(
        text_of.contains("took in 2 artifacts") && text_of.contains("took over 2 index pages"),
        "{text_of}"
    );
    assert!(text_of.contains("the word of whoever made the file"), "{text_of}");
    let without = dir.path().join("without");
    let offline = Process::start(&without, &url, "offline = true\n");
    let text_of = said(&on(&without, &["import", stick]));
    assert!(text_of.contains("2 index pages were left out") && text_of.contains("--names"), "{text_of}");
    assert_eq!(get(&offline.url(&demo.page())).status, 504);
    let again = asked(&on(&without, &["import", stick, "--names"]));
    assert_eq!((&again["known"], &again["pages"]), (&json!(2), &json!(2)));
    let asked_before = upstream.total();
    assert_eq!(get(&offline.url(&demo.page())).header("x-cache"), "STALE");
    assert!(get(&offline.url(&demo.file())).body == demo.bytes);
    assert_eq!(upstream.total(), asked_before);

    // A cut one exits with 1 and says where, with and without a node.
    std::fs::write(stick, &from_running[..from_running.len() / 2]).unwrap();
    for data in [&without, &there] {
        let output = run(&on(data, &["import", stick]));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(
            text(&output.stderr).contains("ended early: the CAR file is cut off"),
            "{}",
            text(&output.stderr)
        );
    }
    let output = run(&on(&without, &["import", dir.path().join("without.toml").to_str().unwrap()]));
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    let output = run(&on(&without, &["export", "-o", stick]));
    assert!(text(&output.stderr).contains("name one"), "{}", text(&output.stderr));
    let output = run(&on(&without, &["export", "nothing-of-this", "-o", stick]));
    assert!(
        text(&output.stderr).contains("nothing is stored of nothing-of-this"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(std::fs::read(stick).unwrap().len(), from_running.len() / 2, "it is as it was");
}

#[test]
fn the_command_line_gets_and_names() {
    let upstream = Upstream::start();
    let (demo, late) =
        (Project::new("demo", LARGE).publish(&upstream), Project::new("late", 70_000).publish(&upstream));
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Process::start(&data, &upstream.url("/simple/"), "");
    let out = dir.path().join("out");
    let into = out.to_str().unwrap();
    let fetched = asked(&on(&data, &["get", "pkg:pypi/demo@1.0", "-o", into]));
    assert_eq!(
        (&fetched["from"], &fetched["filename"], &fetched["size"]),
        (&json!("upstream"), &json!(demo.filename), &json!(LARGE))
    );
    assert!(std::fs::read(&out).unwrap() == demo.bytes);
    let (cid, digest) = (root(&demo.bytes).to_string(), format!("sha256:{}", demo.sha256));
    assert_eq!((&fetched["cid"], &fetched["digest"]), (&json!(cid), &json!(digest)));
    let leaf = raw_cid(Sha256::of(&demo.bytes[..1 << 20])).to_string();
    let link = node.url(&demo.file());
    let gateway = node.url(&format!("/ipfs/{cid}"));
    let named = format!("pkg:pypi/demo?file_name={}", demo.filename);
    let late_link = node.url(&late.file());
    let mut node = Some(node);
    for running in [true, false] {
        if !running {
            node.take().unwrap().stop();
        }
        for (what, bytes) in [
            (cid.as_str(), &demo.bytes[..]),
            (&digest, &demo.bytes),
            (&link, &demo.bytes),
            (&gateway, &demo.bytes),
            (&named, &demo.bytes),
            (&leaf, &demo.bytes[..1 << 20]),
        ] {
            let got = asked(&on(&data, &["get", what, "-o", into]));
            assert_eq!(got["from"], "store", "{what}");
            assert!(std::fs::read(&out).unwrap() == bytes, "{what}");
        }
        let absent = raw_cid(Sha256::of(b"nobody has this")).to_string();
        for (what, part) in [
            ("pkg:pypi/demo", "it names no version"),
            (
                "pkg:pypi/demo@7",
                "the index lists no file of this version; there are demo-1.0-py3-none-any.whl",
            ),
            ("pkg:npm/demo@1", "pkg:pypi/"),
            (&absent, "is not stored here"),
            ("demo", "names no file"),
        ] {
            let output = run(&on(&data, &["get", what, "-o", into]));
            assert_eq!(output.status.code(), Some(2), "{what}");
            assert!(text(&output.stderr).contains(part), "{what}: {}", text(&output.stderr));
        }
        let row = asked(&on(&data, &["cid", into, &digest]));
        let whole = json!({"name": demo.filename, "cid": cid, "size": LARGE, "digest": digest});
        assert_eq!(row[1], whole);
        assert_eq!(row[0]["cid"], leaf);
        let piped = run(&on(&data, &["get", &digest, "-o", "-"]));
        assert!(piped.stdout == demo.bytes);
        if running {
            let got = said(&on(&data, &["get", &late_link, "-o", into]));
            assert!(got.contains("from the upstream"), "{got}");
            assert!(std::fs::read(&out).unwrap() == late.bytes);
        }
    }
    let output = run(&on(&data, &["cid", "no-such-file"]));
    assert!(text(&output.stderr).contains("there is no file no-such-file"));
    // Without -o it goes by its own name, and never over what is there.
    let mut command = process::dpm(&on(&data, &["get", &digest]));
    command.current_dir(dir.path());
    assert!(process::end(command).status.success());
    assert!(std::fs::read(dir.path().join(&demo.filename)).unwrap() == demo.bytes);
    let mut command = process::dpm(&on(&data, &["get", &digest]));
    command.current_dir(dir.path());
    let again = process::end(command);
    assert!(text(&again.stderr).contains("is there already"), "{}", text(&again.stderr));
    // What the disk has spoiled is not handed on.
    let before = std::fs::read(&out).unwrap();
    let hex = demo.sha256.hex();
    let object = data.join("objects").join(&hex[..2]).join(&hex);
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[5] ^= 1;
    std::fs::write(&object, bytes).unwrap();
    for what in [&digest, &cid, &link] {
        let output = run(&on(&data, &["get", what, "-o", into]));
        assert!(text(&output.stderr).contains("dpm verify"), "{what}: {}", text(&output.stderr));
        assert!(std::fs::read(&out).unwrap() == before, "it is as it was");
    }
}

#[test]
fn what_is_interrupted_leaves_nothing() {
    let upstream = Upstream::start();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let node = Process::start(&data, &upstream.url("/simple/"), "");
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let file = out.join("file");
    // Not INT: whatever a shell runs in the background ignores that.
    for (n, signal) in ["TERM", "KILL"].into_iter().enumerate() {
        // Of other bytes each, or it would be one download.
        let project = Project::new(&format!("demo-{n}"), LARGE + n).publish(&upstream);
        let hanging = File::new(project.bytes.clone());
        upstream.faulty(&project.file_path(), hanging, |_| Some(Fault::Hang(LARGE / 2)));
        let link = node.url(&project.file());
        let mut get = process::dpm(&on(&data, &["get", &link, "-o", file.to_str().unwrap()]));
        let mut get = get.spawn().unwrap();
        // The file to write is made before the node is told.
        until("it is being fetched", || upstream.hits(&project.file_path()) > 0);
        process::signal(get.id(), signal);
        get.wait().unwrap();
        let left: Vec<_> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{signal}: {left:?}");
    }
    node.kill();
}
