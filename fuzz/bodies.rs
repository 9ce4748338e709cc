//! What each fuzz target does with its bytes. They panic where a decoder breaks its word.
//!
//! Beside the targets, `tests/it/corpora.rs` includes this file and replays the corpora without cargo-fuzz.

use bytes::Bytes;
use dpm::base::cbor::{CborReader, CborWriter};
use dpm::base::protobuf::Fields;
use dpm::base::varint::{put_varint, read_varint, varint_bytes};
use dpm::base::{DAG_PB, MOST_CID_BYTES, Sha256, parse_cid, parse_cid_text, read_cid};
use dpm::catalogue::{self, Budget, Root};
use dpm::unixfs::{Content, DagPbNode, car, children, content};
use dpm::wire::bitswap::Message;
use dpm::wire::near::{Ask, FRAME_BYTES, Held, News, Offers, Open, Tell};
use dpm::wire::room::{Allow, Context, IndexNote, NodeAdvert, Packages, Scope, dialable};
use dpm::wire::{FrameReader, WireError, frame};

/// A target's name, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target. A new one is a function and a row here, a file in `fuzz_targets/`, a `[[bin]]` in `Cargo.toml`, and a
/// folder in `corpus/`.
pub const TARGETS: &[Target] = &[
    ("cid", cid),
    ("varint", varint),
    ("dag_pb", dag_pb),
    ("bitswap", bitswap),
    ("near", near),
    ("car", car_file),
    ("mdns", mdns),
    ("catalogue", catalogue),
    ("room", room),
];

/// CIDs, binary and as text: what is read is what is written.
pub fn cid(data: &[u8]) {
    if let Ok((cid, length)) = read_cid(data) {
        assert!(length <= data.len() && length <= MOST_CID_BYTES);
        assert_eq!(parse_cid(&data[..length]), Ok(cid));
        assert_eq!(cid.to_bytes(), &data[..length]);
        assert_eq!(parse_cid_text(&cid.to_string()), Ok(cid));
    }
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(cid) = parse_cid_text(text)
    {
        assert_eq!(parse_cid_text(&cid.to_string()), Ok(cid));
    }
}

/// Varints, protobuf fields, and frames: the first byte says in what steps a stream arrives.
pub fn varint(data: &[u8]) {
    if let Ok(Some((value, length))) = read_varint(data) {
        let mut written = Vec::new();
        put_varint(&mut written, value);
        assert_eq!(written, &data[..length]);
        assert_eq!(varint_bytes(value), length);
    }
    assert!(Fields::of(data).count() <= data.len());
    let Some((step, stream)) = data.split_first() else { return };
    let at_once = frames(stream, stream.len().max(1));
    assert_eq!(at_once, frames(stream, usize::from(*step).max(1)));
    if let Ok(frames) = at_once {
        let again: Vec<u8> = frames.iter().flat_map(|f| frame(f)).collect();
        assert_eq!(again, stream[..again.len()]);
    }
}

fn frames(stream: &[u8], step: usize) -> Result<Vec<Bytes>, WireError> {
    let mut reader = FrameReader::new(1024);
    let mut found = Vec::new();
    for mut part in stream.chunks(step) {
        while !part.is_empty() {
            let room = reader.room();
            let now = room.len().min(part.len());
            room[..now].copy_from_slice(&part[..now]);
            reader.took(now);
            part = &part[now..];
            while let Some(frame) = reader.next_frame()? {
                assert!(frame.len() <= 1024);
                found.push(frame);
            }
        }
    }
    Ok(found)
}

/// dag-pb blocks, and what they say about a file.
pub fn dag_pb(data: &[u8]) {
    if let Ok(node) = DagPbNode::decode(data) {
        assert_eq!(DagPbNode::decode(&node.encode()).as_ref(), Ok(&node));
    }
    let Ok(part) = content(data, DAG_PB) else { return };
    let sum = part.content_bytes();
    if let Content::Node { children: below, inline } = part {
        assert!(!below.is_empty() && below.iter().all(|c| (1..=sum).contains(&c.content_bytes)));
        assert_eq!(children(data).is_ok(), inline.is_empty());
    }
}

/// Bitswap messages.
pub fn bitswap(data: &[u8]) {
    let Ok(message) = Message::decode(&Bytes::copy_from_slice(data)) else { return };
    for block in &message.payload {
        if let Ok(cid) = block.cid() {
            assert_eq!(cid.hash().size(), 32);
        }
    }
    // Neither is written.
    let again = Message { legacy: Vec::new(), ignored: 0, ..message };
    let bytes = again.encode();
    assert_eq!(again.frame().concat(), frame(&bytes));
    assert_eq!(Message::decode(&bytes.into()), Ok(again));
}

/// dpm's own messages: the first byte says which kind.
pub fn near(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    match kind % 6 {
        0 => again(Open::decode(data), Open::frame, Open::decode),
        1 => again(Offers::decode(data), Offers::frame, Offers::decode),
        2 => again(News::decode(data), News::frame, News::decode),
        3 => again(Ask::decode(data), Ask::frame, Ask::decode),
        4 => again(Tell::decode(data), Tell::frame, Tell::decode),
        _ => again(Held::decode(data), Held::frame, Held::decode),
    }
}

fn again<T: PartialEq + std::fmt::Debug>(
    read: Result<T, WireError>,
    write: fn(&T) -> Vec<u8>,
    decode: fn(&[u8]) -> Result<T, WireError>,
) {
    let Ok(message) = read else { return };
    let mut reader = FrameReader::new(FRAME_BYTES);
    reader.push(&write(&message));
    let content = reader.next_frame().expect("a frame within the limit").expect("all of it");
    assert!(reader.is_empty());
    assert_eq!(decode(&content), Ok(message));
}

/// CAR files of both versions.
pub fn car_file(data: &[u8]) {
    let Ok(mut reader) = car::Reader::open(data) else { return };
    let mut last = 0;
    while let Ok(Some(block)) = reader.next_block() {
        assert!(block.at > last && block.at < data.len() as u64);
        last = block.at;
        let _ = block.verify();
        // A section written for it is found again.
        let section = [car::section(&block.cid, block.data.len() as u64), block.data.to_vec()].concat();
        let alone = [car::header(&[]), section].concat();
        let found = car::Reader::open(&alone[..]).and_then(|mut r| r.next_block());
        assert!(found.is_ok_and(|b| b.is_some_and(|b| b.cid == block.cid && b.data == block.data)));
    }
    let header = car::header(reader.roots());
    assert_eq!(car::Reader::open(&header[..]).expect("our own header").roots(), reader.roots());
}

/// Datagrams of mDNS, and the answers to them.
pub fn mdns(data: &[u8]) {
    dpm::lan::fuzz_packet(data);
}

/// Nodes of a catalogue, as root and as every child: the first byte says how many entries are stated. And lists of
/// entries, as announcements have them.
pub fn catalogue(data: &[u8]) {
    let Some((&entries, block)) = data.split_first() else { return };
    let root = Root { hash: Sha256::of(block), entries: entries.into() };
    let block = Bytes::copy_from_slice(block);
    let source = |_: &dpm::base::Cid| Some(block.clone());
    let mut budget = Budget { blocks: 64, bytes: 1 << 20, entries: 512 };
    let mut found = Vec::new();
    if catalogue::walk(&root, &source, &mut budget, &mut |entry| found.push(entry)).is_ok() {
        assert_eq!(found.len() as u64, root.entries);
        for entry in &found {
            let there = catalogue::find(&root, &entry.purl, &entry.file, &source);
            assert_eq!(there.expect("sound").as_ref(), Some(entry));
        }
        // What was understood is the same catalogue once more; later versions' keys are not written.
        let again = catalogue::build(found, &mut |_, _| ()).expect("entries that were read");
        assert!(again.entries == root.entries);
    }
    let mut reader = CborReader::new(&block);
    if let Ok(list) = catalogue::read_list(&mut reader, 64) {
        let mut out = CborWriter::default();
        catalogue::list(&list, &mut out);
        assert_eq!(catalogue::read_list(&mut CborReader::new(&out.0), 64), Ok(list));
    }
    let _ = CborReader::new(&block).skip();
}

/// Events of a room, and addresses in them. What is signed cannot be made here, what comes before that can.
pub fn room(data: &[u8]) {
    let context = Context { room: "!room:example.org", sender: "@alice:example.org" };
    let state_key = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";
    if let Ok(advert) = NodeAdvert::read(data, &context, state_key) {
        assert_eq!(advert.peer.to_string(), state_key);
        let (dial, refused) = advert.dialable(Allow::Near);
        assert_eq!(dial.len() + refused.len(), advert.addresses.len());
    }
    let _ = Packages::read(data, &context);
    let _ = IndexNote::read(data, &context);
    let _ = Scope::default().add(data);
    if let (Ok(text), Ok(peer)) = (std::str::from_utf8(data), state_key.parse()) {
        let global = dialable(text, &peer, Allow::Global);
        assert!(global.is_err() || global == dialable(text, &peer, Allow::Near));
    }
}
