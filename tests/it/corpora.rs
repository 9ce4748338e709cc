//! The fuzz corpora, replayed without cargo-fuzz: what once broke a decoder must not do so again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dpm::base::cbor::CborWriter;
use dpm::base::{Cid, PackageUrl, RAW, Sha256, dag_pb_cid, parse_cid, raw_cid};
use dpm::catalogue;
use dpm::unixfs::{DagPbNode, Layout, Link, car};
use dpm::wire::bitswap::{
    Entry, Message, PayloadBlock, Presence, PresenceKind, WantType, Wantlist, legacy_cid,
};
use dpm::wire::{FrameReader, frame, near};

#[path = "../../fuzz/bodies.rs"]
mod bodies;

/// Files in one corpus, and bytes in one file: the corpora are examples, not archives.
const FILES: usize = 40;
const BYTES: usize = 4 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_corpus_is_replayed() {
    let targets: BTreeSet<String> = bodies::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz().join("corpus")), targets, "a corpus a target");
    let files = names(&fuzz().join("fuzz_targets"));
    assert_eq!(files, targets.iter().map(|name| format!("{name}.rs")).collect(), "a file a target");
    for (name, body) in bodies::TARGETS {
        let corpus = fuzz().join("corpus").join(name);
        let files = names(&corpus);
        assert!((1..=FILES).contains(&files.len()), "{name} has {} files", files.len());
        for file in files {
            let bytes = std::fs::read(corpus.join(&file)).unwrap();
            assert!(bytes.len() <= BYTES, "{name}/{file} has {} bytes", bytes.len());
            println!("{name}/{file}");
            body(&bytes);
        }
    }
}

/// The files named `seed-…` are valid messages, and are made here: `DPM_WRITE_SEEDS=1` writes them anew.
#[test]
fn the_seeds_are_what_is_written_today() {
    for ((target, name), bytes) in seeds() {
        let path = fuzz().join("corpus").join(target).join(format!("seed-{name}"));
        if std::env::var_os("DPM_WRITE_SEEDS").is_some() {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).is_ok_and(|there| there == bytes), "{target}/seed-{name} is another");
    }
}

fn hello() -> Cid {
    raw_cid(Sha256::of(b"hello world"))
}

fn seeds() -> BTreeMap<(&'static str, String), Vec<u8>> {
    let mut seeds = BTreeMap::new();
    let mut put = |target, name: &str, bytes: Vec<u8>| {
        assert!(seeds.insert((target, name.to_owned()), bytes).is_none(), "{target}/{name} twice");
    };

    let v0 = legacy_cid(b"hello world");
    let identity = parse_cid(&[1, RAW as u8, 0, 2, b'h', b'i']).unwrap();
    for (name, cid) in [("v1", hello()), ("v0", v0), ("identity", identity)] {
        put("cid", name, cid.to_bytes());
        put("cid", &format!("{name}-text"), cid.to_string().into_bytes());
    }
    put("cid", "then-a-block", [&hello().to_bytes()[..], b"hello world"].concat());
    put("cid", "long-digest", [&[1, 0x55, 0, 100][..], &[7; 100]].concat());

    let stream: Vec<u8> = [&b""[..], b"one", &[2; 200]].into_iter().flat_map(frame).collect();
    for step in [1, 3, 255] {
        put("varint", &format!("frames-{step}"), [&[step], &stream[..]].concat());
    }
    put("varint", "frame-too-long", b"\x07\x81\x08more".to_vec());
    put("varint", "most", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01".to_vec());
    put(
        "varint",
        "fields",
        b"\x08\x96\x01\x12\x02hi\x09\x01\x02\x03\x04\x05\x06\x07\x08\x0d\x01\x02\x03\x04".to_vec(),
    );

    let (_, nodes) = Layout { size: (3 << 20) - 7, leaves: vec![Sha256([1; 32]); 3] }.tree();
    put("dag_pb", "ours", nodes[0].bytes.clone());
    let link = Link { cid: hello(), name: "", tsize: 11 };
    let with =
        |links: &[Link<'_>], data: &[u8]| DagPbNode { links: links.to_vec(), data: Some(data) }.encode();
    put("dag_pb", "leaf", with(&[], b"\x08\x02\x12\x02hi\x18\x02"));
    put("dag_pb", "packed", with(&[link.clone(), link.clone()], b"\x08\x02\x18\x16\x22\x02\x0b\x0b"));
    put("dag_pb", "trickle", with(std::slice::from_ref(&link), b"\x08\x02\x12\x02hi\x18\x0d\x20\x0b"));
    put("dag_pb", "folder", with(&[Link { name: "a file", ..link }], b"\x08\x01"));

    let wantlist = Wantlist {
        entries: vec![
            Entry::want(hello(), WantType::Block, i32::MAX),
            Entry::want(v0, WantType::Have, -1),
            Entry::cancel(hello()),
        ],
        full: true,
    };
    let wants = Message { wantlist: Some(wantlist), ..Message::default() };
    put("bitswap", "wants", wants.encode());
    let block = PayloadBlock::new(&hello(), Bytes::from_static(b"hello world"));
    let blocks = Message { payload: vec![block; 2], pending_bytes: -2, ..Message::default() };
    put("bitswap", "blocks", blocks.encode());
    let presences = [(hello(), PresenceKind::Have), (v0, PresenceKind::DontHave)];
    let presences = presences.map(|(cid, kind)| Presence { cid, kind }).to_vec();
    put("bitswap", "presences", Message { presences, ..Message::default() }.encode());
    put("bitswap", "all", [wants.encode(), blocks.encode(), b"\x12\x02hi\x78\x01".to_vec()].concat());

    // The kind in front is what the target's body reads.
    for line in include_str!("../fixtures/near-v1.cbor").lines().filter(|line| !line.starts_with('#')) {
        let (word, hex) = line.split_once(' ').unwrap();
        let mut reader = FrameReader::new(near::FRAME_BYTES);
        reader.push(&unhex(hex));
        let content = reader.next_frame().unwrap().unwrap();
        let kinds = ["open", "offers", "news", "ask", "tell", "held"];
        let kind = kinds.iter().position(|k| word.starts_with(k)).unwrap();
        put("near", word, [&[kind as u8], &content[..]].concat());
    }
    put("near", "unknown-kind", b"\x04\x82\x18\x63\xa1\x00\x82\x01\x81\x02".to_vec());
    put(
        "near",
        "unknown-offer",
        b"\x01\xa1\x00\x82\x82\x18\x63\xa1\x00\x82\x01\x81\x02\x82\x00\xa0".to_vec(),
    );

    for line in include_str!("../fixtures/car-basic.hex").lines().filter(|line| !line.starts_with('#')) {
        let (word, hex) = line.split_once(' ').unwrap();
        put("car", word, unhex(hex));
    }
    let node = dag_pb_cid(Sha256::of(&nodes[0].bytes));
    let sections = [(hello(), &b"hello world"[..]), (node, &nodes[0].bytes), (identity, b"hi")];
    let sections =
        sections.into_iter().flat_map(|(cid, data)| [car::section(&cid, data.len() as u64), data.to_vec()]);
    put("car", "ours", [car::header(&[node])].into_iter().chain(sections).flatten().collect());
    put("car", "no-roots", car::header(&[]));

    let service = ["_p2p", "_udp", "local"];
    let label = ["label", "_p2p", "_udp", "local"];
    let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    let told = [
        format!("dnsaddr=/ip4/192.168.1.2/udp/4001/quic-v1/p2p/{peer}"),
        format!("dnsaddr=/ip6/fe80::1/udp/4001/quic-v1/p2p/{peer}"),
    ];
    let strings: Vec<u8> =
        told.iter().flat_map(|text| [&[text.len() as u8], text.as_bytes()].concat()).collect();
    let asked = [name(&service), vec![0, 12, 0, 1]].concat();
    let (ptr, txt) = (record(&service, 12, 120, &name(&label)), record(&label, 16, 120, &strings));
    put("mdns", "query", [packet(0, [1, 0, 0]), asked.clone()].concat());
    put("mdns", "query-with-a-known-answer", [packet(0, [1, 1, 0]), asked, ptr.clone()].concat());
    put("mdns", "answer", [packet(0x8400, [0, 1, 1]), ptr, txt].concat());
    let goodbye = [record(&service, 12, 0, &name(&label)), record(&label, 16, 0, &strings)].concat();
    put("mdns", "goodbye", [packet(0x8400, [0, 2, 0]), goodbye].concat());

    let entry = |n: u64| {
        let sha256 = Sha256::of(&n.to_le_bytes());
        catalogue::Entry {
            purl: PackageUrl::parse("pkg:pypi/a@1").unwrap(),
            file: format!("a-1-{n}.whl"),
            size: n,
            root: raw_cid(sha256),
            digests: vec![sha256.digest()],
            facts: catalogue::Facts { requires_python: Some(">=3".into()), ..Default::default() },
            first_seen: Some(n),
        }
    };
    for (name, count) in [("leaf", 3_u64), ("inner", 40), ("nothing", 0)] {
        let mut blocks = BTreeMap::new();
        let sink = &mut |cid: Cid, block: Bytes| drop(blocks.insert(cid.to_bytes(), block));
        let root = catalogue::build((0..count).map(entry), sink).unwrap();
        put("catalogue", name, [&[count as u8], &blocks[&root.cid().to_bytes()][..]].concat());
    }
    let mut list = CborWriter::default();
    catalogue::list(&[entry(1), entry(2)], &mut list);
    put("catalogue", "list", [&[0], &list.0[..]].concat());
    // The examples of the specification: lines of JSON.
    let examples = include_str!("../../ROOMS.md").lines().filter(|line| line.starts_with("{\"version\""));
    for (n, example) in examples.enumerate() {
        put("room", &format!("example-{n}"), example.as_bytes().to_vec());
    }
    put("room", "withdrawn", b"{}".to_vec());
    put("room", "address", b"/ip4/1.1.1.1/udp/4001/quic-v1".to_vec());
    seeds
}

/// Head of a DNS message: flags, and how many questions, answers and additional records follow.
fn packet(flags: u16, [questions, answers, more]: [u16; 3]) -> Vec<u8> {
    [0, flags, questions, answers, 0, more].iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn name(labels: &[&str]) -> Vec<u8> {
    let labels = labels.iter().map(|label| [&[label.len() as u8], label.as_bytes()].concat());
    labels.chain([vec![0]]).flatten().collect()
}

fn record(owner: &[&str], kind: u8, ttl: u8, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u16).to_be_bytes();
    [&name(owner)[..], &[0, kind, 0, 1, 0, 0, 0, ttl], &length, data].concat()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}
