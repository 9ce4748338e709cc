use std::io::{self, Read};

use super::*;
use crate::base::limits::BLOCK_BYTES;
use crate::base::mutate::mutations;
use crate::base::varint::VarintError;
use crate::base::{IDENTITY, Sha256, raw_cid};

fn fixture(name: &str) -> Vec<u8> {
    let line = include_str!("../../../tests/fixtures/car-basic.hex")
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .expect("the fixture");
    let hex = line.trim();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect()
}

/// Roots and verified blocks.
fn read(bytes: &[u8]) -> Result<(Vec<Cid>, Vec<Block>), CarError> {
    let mut reader = Reader::open(bytes)?;
    let mut blocks = Vec::new();
    while let Some(block) = reader.next_block()? {
        block.verify()?;
        blocks.push(block);
    }
    Ok((reader.roots().to_vec(), blocks))
}

fn write(roots: &[Cid], blocks: &[(Cid, &[u8])]) -> Vec<u8> {
    let mut out = header(roots);
    for (cid, data) in blocks {
        out.extend(section(cid, data.len() as u64));
        out.extend_from_slice(data);
    }
    out
}

#[test]
fn published_fixtures() {
    let bytes = fixture("carv1-basic");
    let (roots, blocks) = read(&bytes).unwrap();
    assert_eq!(
        roots.iter().map(Cid::to_string).collect::<Vec<_>>(),
        [
            "bafyreihyrpefhacm6kkp4ql6j6udakdit7g3dmkzfriqfykhjw6cad5lrm",
            "bafyreidj5idub6mapiupjwjsyyxhyhedxycv4vihfsicm2vt46o7morwlm",
        ]
    );
    // The offsets and lengths that the specification publishes beside it.
    let places: Vec<_> = blocks.iter().map(|b| (b.at, b.data.len())).collect();
    assert_eq!(places, [(100, 55), (192, 97), (325, 4), (366, 94), (496, 4), (537, 47), (619, 4), (660, 18)]);
    assert_eq!(blocks[1].cid.to_string(), "QmNX6Tffavsya4xgBi2VJQnSuqy9GsxongxZZ9uZBqp16d");
    let again: Vec<_> = blocks.iter().map(|b| (b.cid, &b.data[..])).collect();
    assert!(write(&roots, &again) == bytes, "what we write is what the specification has");

    let (roots, blocks) = read(&fixture("carv2-basic")).unwrap();
    assert_eq!(roots[0].to_string(), "QmfEoLyB5NndqeKieExd1rtJzTduQUPEV8TwAYcUiy3H5Z");
    let places: Vec<_> = blocks.iter().map(|b| (b.at, b.data.len())).collect();
    assert_eq!(places, [(108, 47), (190, 99), (325, 54), (414, 4), (455, 7)]);
    assert_eq!(blocks[4].data, &b"lobster"[..]);
}

#[test]
fn a_file_that_is_cut_off_anywhere() {
    for name in ["carv1-basic", "carv2-basic"] {
        let bytes = fixture(name);
        let (_, whole) = read(&bytes).unwrap();
        // Version 1 does not know how long it is: between two sections a cut cannot be seen. Version 2 does, and has
        // an index behind its data that may be cut off.
        let (ends, end): (Vec<u64>, usize) = match name {
            "carv1-basic" => (whole.iter().map(|b| b.at).collect(), bytes.len()),
            _ => (Vec::new(), 0x33 + 0x1c0),
        };
        for cut in 0..end {
            match read(&bytes[..cut]) {
                Ok((_, blocks)) => {
                    assert!(ends.contains(&(cut as u64)), "{name} cut at {cut}");
                    assert_eq!(blocks[..], whole[..blocks.len()]);
                }
                Err(CarError::Truncated { at, .. }) => assert_eq!(at, cut as u64, "{name}"),
                Err(other) => panic!("{name} cut at {cut}: {other}"),
            }
        }
    }
}

#[test]
fn wrong_blocks_are_named_with_their_place() {
    let (good, bad) = (raw_cid(Sha256::of(b"good")), raw_cid(Sha256::of(b"bad")));
    let bytes = write(&[good], &[(good, b"good"), (bad, b"evil"), (good, b"good")]);
    let mut reader = Reader::open(&bytes[..]).unwrap();
    assert!(reader.next_block().unwrap().unwrap().verify().is_ok());
    let wrong = reader.next_block().unwrap().unwrap().verify().unwrap_err();
    let at = (header(&[good]).len() + section(&good, 4).len() + 4) as u64;
    assert!(matches!(wrong, CarError::WrongBlock { at: here, cid } if here == at && cid == bad), "{wrong}");
    assert!(reader.next_block().unwrap().unwrap().verify().is_ok(), "what follows is read all the same");
    assert!(reader.next_block().unwrap().is_none());

    let hash = |code, digest: &[u8]| {
        let bytes = [&[1, 0x55, code, digest.len() as u8], digest].concat();
        crate::base::parse_cid(&bytes).unwrap()
    };
    let file = |cid| write(&[], &[(cid, b"data")]);
    assert!(read(&file(hash(IDENTITY as u8, b"data"))).is_ok());
    assert!(matches!(read(&file(hash(0, b"date"))), Err(CarError::WrongBlock { .. })));
    assert!(matches!(read(&file(hash(0x1e, b"data"))), Err(CarError::UnknownHash { hash: 0x1e, .. })));
}

#[test]
fn at_a_limit_and_beyond() {
    let block = vec![7; BLOCK_BYTES as usize];
    let cid = raw_cid(Sha256::of(&block));
    assert_eq!(read(&write(&[], &[(cid, &block)])).unwrap().1[0].data, block);
    let longer = vec![7; BLOCK_BYTES as usize + 1];
    let error = read(&write(&[], &[(cid, &longer)])).unwrap_err().to_string();
    assert_eq!(error, "byte 18 of the CAR file: a block of 2097153 bytes, 2097152 are allowed");
    let error = read(&[header(&[]), section(&cid, u64::from(u32::MAX))].concat()).unwrap_err();
    assert!(matches!(error, CarError::TooLong { at: 18, what: "a section", bytes: 0x1_0000_0023, .. }));

    let roots = |n| read(&header(&vec![cid; n]));
    assert_eq!(roots(1500).unwrap().0.len(), 1500);
    assert!(matches!(roots(1700), Err(CarError::TooLong { at: 0, what: "a header", .. })));
}

#[test]
fn what_is_no_car_file() {
    let v2 = |offset: u64, size: u64, data: &[u8]| {
        let mut bytes = b"\x0a\xa1\x67version\x02".to_vec();
        bytes.extend_from_slice(&[0; 16]);
        for number in [offset, size, 0] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(data);
        bytes
    };
    let v1 = header(&[]);
    let empty_section = [&v1[..], b"\0"].concat();
    let cases: [(&[u8], &str); 20] = [
        (b"", "the CAR file is cut off: it ends at byte 0, within the length of its header"),
        (b"\0", "byte 0 of the CAR file: a header of 0 bytes, 65536 are allowed"),
        (b"PK\x03\x04", "the CAR file is cut off: it ends at byte 4, within its header"),
        (b"\x03abc", "byte 0 of the CAR file: a header that is not DAG-CBOR"),
        (b"\x80\x00", "byte 0 of the CAR file: a length that is no number"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "byte 0 of the CAR file: a length that is no number"),
        (b"\xff\xff\xff\x0f", "byte 0 of the CAR file: a header of 33554431 bytes, 65536 are allowed"),
        (b"\x01\xa0", "byte 0 of the CAR file: a header without a version"),
        (b"\x0a\xa1\x67version\x01", "byte 0 of the CAR file: a header without roots"),
        (b"\x0a\xa1\x67version\x03", "a CAR file of version 3; 1 and 2 can be read"),
        (b"\x0b\xa1\x67version\x02\x00", "byte 0 of the CAR file: bytes after the header, within its length"),
        (b"\x0b\xa1\x67version\x18\x02", "byte 0 of the CAR file: not the one header that version 2 has"),
        (b"\x08\xa1\x65roots\x01", "byte 0 of the CAR file: roots that are not a list of CIDs"),
        (b"\x09\xa1\x65roots\x81\x01", "byte 0 of the CAR file: roots that are not a list of CIDs"),
        (b"\x0c\xa1\x65roots\x81\xd8\x2a\x41\x00", "byte 0 of the CAR file: a CID is cut off"),
        (&empty_section, "byte 18 of the CAR file: a section of no bytes"),
        (&v2(50, 100, b""), "byte 11 of the CAR file: data where there can be none"),
        (&v2(u64::MAX, 1, b""), "byte 11 of the CAR file: data where there can be none"),
        (&v2(60, 18, b""), "the CAR file is cut off: it ends at byte 51, within the padding before its data"),
        (&v2(51, 17, &v1), "byte 51 of the CAR file: a header longer than the data"),
    ];
    for (bytes, want) in cases {
        assert_eq!(read(bytes).expect_err(want).to_string(), want, "{bytes:02x?}");
    }
    let cid = raw_cid(Sha256::of(b"x"));
    let inner = write(&[cid], &[(cid, b"x")]);
    let padded = [&[0; 9][..], &inner, b"index"].concat();
    assert_eq!(read(&v2(60, inner.len() as u64, &padded)).unwrap().1.len(), 1);
    let error = read(&v2(60, inner.len() as u64 - 1, &padded)).unwrap_err().to_string();
    assert!(error.ends_with("a section that reaches beyond the data of the file"), "{error}");
    let error = read(&v2(51, 11, b"\x0a\xa1\x67version\x02")).unwrap_err().to_string();
    assert_eq!(error, "byte 51 of the CAR file: data that is not of version 1");
    let wrong = [&v1[..], b"\x04\x01\x55\x80\x00"].concat();
    let source = CidError::Varint(VarintError::NotMinimal);
    assert!(matches!(read(&wrong), Err(CarError::Cid { at: 18, source: s }) if s == source));
}

#[test]
fn a_disk_that_fails() {
    struct Failing<'a>(&'a [u8]);
    impl Read for Failing<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            match self.0.len() {
                0 => Err(io::Error::other("the stick was pulled")),
                _ => self.0.read(to),
            }
        }
    }
    let bytes = fixture("carv1-basic");
    for cut in [0, 5, 100, 150, bytes.len()] {
        let mut reader = Reader::open(Failing(&bytes[..cut]));
        let failed = loop {
            match reader.as_mut().map(Reader::next_block) {
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => panic!("the end was never seen"),
                Ok(Err(e)) => break e,
                Err(_) => break reader.err().unwrap(),
            }
        };
        assert!(matches!(failed, CarError::Io { at, .. } if at == cut as u64), "{cut}: {failed}");
    }
}

#[test]
fn damaged_files_are_read_or_refused() {
    let (v1, v2) = (fixture("carv1-basic"), fixture("carv2-basic"));
    let mut whole = 0;
    mutations(&[&v1, &v2], 3_000, |bytes| {
        let Ok((roots, blocks)) = read(bytes) else { return };
        whole += 1;
        let again: Vec<_> = blocks.iter().map(|b| (b.cid, &b.data[..])).collect();
        let (roots2, blocks2) = read(&write(&roots, &again)).unwrap();
        assert!(roots2 == roots && blocks2.len() == blocks.len());
    });
    assert!(whole > 50, "mutations that only make nonsense test little: {whole}");
}
