use super::*;
use crate::base::mutate::mutations;
use crate::base::protobuf::ProtobufError;
use crate::base::{Sha256, raw_cid};

fn v1() -> Cid {
    raw_cid(Sha256::of(b"hello world"))
}

fn v0() -> Cid {
    legacy_cid(b"hello world")
}

fn decode(bytes: &[u8]) -> Result<Message, WireError> {
    Message::decode(&Bytes::copy_from_slice(bytes))
}

/// A message with every field, as protoc's own code writes it.
const BY_PROTOC: &str = "0a8f010a2e0a2401551220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde910ffff\
    ffff0728010a310a221220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde910ffffffffffffffffff012001\
    0a280a2401551220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9180110011a130a0401551220120b6865\
    6c6c6f20776f726c6422260a2401551220b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde922260a221220b9\
    4d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9100128feffffffffffffffff01";

fn full() -> Message {
    Message {
        wantlist: Some(Wantlist {
            entries: vec![
                Entry::want(v1(), WantType::Block, i32::MAX),
                Entry { send_dont_have: false, ..Entry::want(v0(), WantType::Have, -1) },
                Entry::cancel(v1()),
            ],
            full: true,
        }),
        payload: vec![PayloadBlock::new(&v1(), Bytes::from_static(b"hello world"))],
        presences: vec![
            Presence { cid: v1(), kind: PresenceKind::Have },
            Presence { cid: v0(), kind: PresenceKind::DontHave },
        ],
        pending_bytes: -2,
        ..Message::default()
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

#[test]
fn the_bytes_are_those_of_another_implementation() {
    let bytes = unhex(BY_PROTOC);
    assert_eq!(decode(&bytes), Ok(full()));
    assert_eq!(full().encode(), bytes);
    assert_eq!(full().frame().concat(), super::super::frame(&bytes));
}

#[test]
fn blocks_are_not_copied_and_are_named_by_their_hash() {
    let bytes = Bytes::from(full().encode());
    let block = &Message::decode(&bytes).unwrap().payload[0];
    assert!(bytes.as_ptr_range().contains(&block.data.as_ptr()));
    assert_eq!(block.cid(), Ok(v1()));
    let message = full();
    let data = message.payload[0].data.as_ptr();
    assert!(message.frame().iter().any(|piece| piece.as_ptr() == data), "nor copied on the way out");

    let prefix = Prefix::of(&v0());
    assert_eq!(prefix.cid(b"hello world"), Ok(v0()));
    assert_ne!(prefix.cid(b"hello World"), Ok(v0()), "other bytes have another name");
    for (wrong, why) in [
        (Prefix { hash: 0, ..prefix }, WireError::UnknownHash(0)),
        (Prefix { hash: 0x13, hash_bytes: 64, ..prefix }, WireError::UnknownHash(0x13)),
        (Prefix { hash_bytes: 20, ..prefix }, WireError::UnknownHash(0x12)),
        (Prefix { version: 2, ..prefix }, cid_error("a block's prefix", CidError::Version(2))),
        (Prefix { codec: 0x55, ..prefix }, cid_error("a block's prefix", CidError::Version(0))),
    ] {
        assert_eq!(wrong.cid(b"hello world"), Err(why));
    }
}

#[test]
fn empty_messages_and_empty_blocks() {
    assert_eq!(decode(b""), Ok(Message::default()));
    assert!(Message::default().is_empty());
    assert_eq!(Message::default().frame().concat(), b"\0");
    let empty = raw_cid(Sha256::of(b""));
    let payload = vec![PayloadBlock::new(&empty, Bytes::new()); 2];
    let message = Message { payload, wantlist: Some(Wantlist::default()), ..Message::default() };
    assert_eq!(decode(&message.encode()), Ok(message.clone()));
    assert!(message.frame().iter().all(|piece| !piece.is_empty()));
}

#[test]
fn what_others_send() {
    let cid = v1().to_bytes();
    let mut entry = Vec::new();
    put_bytes(&mut entry, 1, &cid);
    // Unknown fields of every wire type, at every level.
    entry.extend_from_slice(b"\x78\x05\x7a\x01x\x79\x01\x02\x03\x04\x05\x06\x07\x08\x7d\x01\x02\x03\x04");
    let mut list = b"\x7a\x00".to_vec();
    put_bytes(&mut list, 1, &entry);
    let mut bytes = b"\xf8\x01\x01".to_vec();
    put_bytes(&mut bytes, 1, &list);
    // The wantlist comes twice: protobuf merges.
    put_bytes(&mut bytes, 1, b"\x10\x01");
    put_bytes(&mut bytes, 2, b"hello world");
    let message = decode(&bytes).unwrap();
    let plain = Entry { send_dont_have: false, ..Entry::want(v1(), WantType::Block, 0) };
    assert_eq!(message.wantlist, Some(Wantlist { entries: vec![plain], full: true }));
    assert_eq!(message.legacy, [&b"hello world"[..]]);
    assert_eq!(legacy_cid(&message.legacy[0]), v0());
}

/// A message of one want for this CID, with further fields of the entry.
fn want(cid: &[u8], more: &[u8]) -> Vec<u8> {
    let (mut entry, mut list, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    put_bytes(&mut entry, 1, cid);
    entry.extend_from_slice(more);
    put_bytes(&mut list, 1, &entry);
    put_bytes(&mut bytes, 1, &list);
    bytes
}

#[test]
fn wants_that_are_beyond_us_are_left_out() {
    let long = [&[1, 0x55, 0, 100][..], &[7; 100]].concat();
    let longer = [&[1, 0x55, 0, 0xac, 2][..], &[7; 300]].concat();
    let cases: [(&str, Vec<u8>); 4] = [
        ("identity", want(&[1, 0x55, 0, 2, b'h', b'i'], b"")),
        ("long identity", want(&long, b"")),
        ("more than 168 bytes", want(&longer, b"")),
        ("unknown kind", want(&v1().to_bytes(), b"\x20\x02")),
    ];
    for (name, bytes) in cases {
        let message = decode(&bytes).unwrap();
        assert_eq!(message.wantlist, Some(Wantlist::default()), "{name}");
        assert_eq!(message.ignored, 1, "{name}");
    }
}

#[test]
fn too_many_wants_are_cut() {
    let entries = |n: usize| {
        let cid = |i: usize| raw_cid(Sha256::of(&i.to_le_bytes()));
        let wants = (0..n).map(move |i| Entry::want(cid(i), WantType::Have, 1));
        wants.chain((0..n).map(move |i| Entry::cancel(cid(i)))).collect::<Vec<_>>()
    };
    let message =
        |n| Message { wantlist: Some(Wantlist { entries: entries(n), full: false }), ..Message::default() };
    assert_eq!(decode(&message(WANTS).encode()), Ok(message(WANTS)));
    let cut = decode(&message(10_000).encode()).unwrap();
    assert_eq!(cut.ignored as usize, 2 * (10_000 - WANTS));
    let wantlist = cut.wantlist.unwrap();
    assert_eq!(wantlist.entries.len(), 2 * WANTS);
    assert_eq!(wantlist.entries[..WANTS], entries(WANTS)[..WANTS], "the first ones stay");

    let presence = Presence { cid: v1(), kind: PresenceKind::Have };
    let many = Message { presences: vec![presence; PRESENCES + 5], ..Message::default() };
    let cut = decode(&many.encode()).unwrap();
    assert_eq!((cut.presences.len(), cut.ignored), (PRESENCES, 5));
}

#[test]
fn beyond_a_limit() {
    let too_long = |what, bytes: usize, limit: usize| {
        Err(WireError::TooLong { what, bytes: bytes as u64, limit: limit as u64 })
    };
    let huge = vec![0; MESSAGE_BYTES + 1];
    assert_eq!(decode(&huge), too_long("a bitswap message", MESSAGE_BYTES + 1, MESSAGE_BYTES));

    let block = |n| {
        let data = Bytes::from(vec![0; n]);
        Message { payload: vec![PayloadBlock::new(&v1(), data)], ..Message::default() }.encode()
    };
    assert!(decode(&block(BLOCK_BYTES)).is_ok());
    assert_eq!(decode(&block(BLOCK_BYTES + 1)), too_long("a block", BLOCK_BYTES + 1, BLOCK_BYTES));
    let mut legacy = Vec::new();
    put_bytes(&mut legacy, 2, &vec![0; BLOCK_BYTES + 1]);
    assert_eq!(decode(&legacy), too_long("a block", BLOCK_BYTES + 1, BLOCK_BYTES));

    let many = b"\x12\x00".repeat(BLOCKS + 1);
    assert_eq!(decode(&many), Err(WireError::TooMany { what: "blocks in a bitswap message", limit: BLOCKS }));
}

#[test]
fn what_is_no_message() {
    let prefix = |source| Err(cid_error("a block's prefix", source));
    let cases: [(&[u8], Result<Message, WireError>); 10] = [
        (b"\x0a\x05\x0a", Err(ProtobufError::Truncated { at: 2 }.into())),
        (b"\x08\x01", Err(ProtobufError::Kind("wantlist").into())),
        (b"\x2a\x00", Err(ProtobufError::Kind("pendingBytes").into())),
        (b"\x0a\x02\x0a\x00", Err(WireError::Field { what: "a want", why: "no CID" })),
        (b"\x22\x00", Err(WireError::Field { what: "a presence", why: "no CID" })),
        (b"\x1a\x02\x12\x00", Err(WireError::Field { what: "a block", why: "no prefix" })),
        (b"\x1a\x02\x0a\x00", prefix(CidError::Truncated)),
        (b"\x1a\x07\x0a\x05\x01\x55\x12\x20\x00", prefix(CidError::Trailing(1))),
        (b"\x22\x02\x0a\x00", Err(cid_error("a presence", CidError::Truncated))),
        (b"\x0b", Err(ProtobufError::WireType { at: 0, kind: 3 }.into())),
    ];
    for (bytes, want) in cases {
        assert_eq!(decode(bytes), want, "{bytes:02x?}");
    }
    let mut trailing = v1().to_bytes();
    trailing.push(0);
    assert_eq!(decode(&want(&trailing, b"")), Err(cid_error("a want", CidError::Trailing(1))));
}

#[test]
fn damaged_messages_are_read_or_refused_and_what_is_read_can_be_written() {
    let full = full().encode();
    let legacy = b"\x12\x0bhello world\x0a\x00";
    let mut read = 0;
    mutations(&[&full, legacy], 20_000, |bytes| {
        let Ok(message) = decode(bytes) else { return };
        read += 1;
        // Neither is written.
        let again = Message { legacy: vec![], ignored: 0, ..message };
        assert_eq!(decode(&again.encode()), Ok(again.clone()), "{bytes:02x?}");
        assert_eq!(again.frame().concat(), super::super::frame(&again.encode()));
    });
    assert!(read > 1000, "mutations that only make nonsense test little: {read}");
}
