use std::collections::HashMap;

use super::*;
use crate::base::limits::CHUNK_BYTES;
use crate::base::mutate::mutations;
use crate::base::{Sha256, dag_pb_cid, raw_cid};
use crate::unixfs::LayoutBuilder;
use crate::unixfs::layout::tests::keystream;

type Blocks = HashMap<Cid, Vec<u8>>;

/// The file below a block, read as a stranger's: sizes held against what comes, depth bounded.
fn read(blocks: &Blocks, root: Cid) -> Result<Vec<u8>, UnixfsError> {
    let mut file = Vec::new();
    let mut open = vec![(root, None, 1)];
    while let Some((cid, claimed, depth)) = open.pop() {
        let part = content(&blocks[&cid], cid.codec())?;
        assert!(depth <= MOST_DEPTH);
        assert!(claimed.is_none_or(|bytes| bytes == part.content_bytes()), "{cid}");
        match part {
            Content::Leaf(bytes) => file.extend_from_slice(bytes),
            Content::Node { inline, children } => {
                file.extend_from_slice(inline);
                let below = children.iter().rev().map(|c| (c.cid, Some(c.content_bytes), depth + 1));
                open.extend(below);
            }
        }
    }
    Ok(file)
}

/// Kubo's own default: CIDv0, 256 KiB, leaves in dag-pb, balanced, width 174.
fn kubo(bytes: &[u8]) -> (Cid, Blocks) {
    let mut blocks = Blocks::new();
    let mut put = |bytes: Vec<u8>| {
        let cid = Cid::new_v0(*dag_pb_cid(Sha256::of(&bytes)).hash()).unwrap();
        blocks.insert(cid, bytes.clone());
        (cid, bytes.len() as u64)
    };
    let chunks: Vec<&[u8]> = if bytes.is_empty() { vec![b""] } else { bytes.chunks(256 << 10).collect() };
    let mut level: Vec<(Child, u64)> = chunks
        .into_iter()
        .map(|inline| {
            let size = inline.len() as u64;
            let data = Data { kind: FILE, inline, file_size: Some(size), block_sizes: vec![] };
            let (cid, length) = put(Node { links: vec![], data: Some(&data.encode()) }.encode());
            (Child { cid, content_bytes: size }, length)
        })
        .collect();
    while level.len() > 1 {
        level = level
            .chunks(174)
            .map(|children| {
                let (cid, length) = put(file_node(children.iter().copied()));
                let content_bytes = children.iter().map(|(c, _)| c.content_bytes).sum();
                (Child { cid, content_bytes }, length + children.iter().map(|(_, dag)| dag).sum::<u64>())
            })
            .collect();
    }
    (level[0].0.cid, blocks)
}

#[test]
fn files_that_kubo_added() {
    // What Kubo 0.22 answered to `ipfs add` of the first bytes of the published key stream, and of the numbers from 0
    // to 250 over and over.
    let (stream, numbers) = (keystream(600_000), (0..=250).collect::<Vec<u8>>().repeat(183_267));
    let cases = [
        (&stream[..0], "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"),
        (&stream[..11], "QmSXZtyAPe156SQ31DTtpiY5wYTcfoewCCkzViiKjMghz2"),
        (&stream[..262_144], "Qma8wRntiNVTXb6Q8LcJFRYQ5Duhm5KRXAVfx3UshnptZA"),
        (&stream[..262_145], "Qmb5NErzVxBQNkSHNSfWeJDQuKfPaNeRrGvcEvQcctPs6x"),
        (&stream[..], "QmRWeMaexRgp3Aj3nftNDGNc6YZCwusqzZdkSiVxE1DNZ6"),
        (&numbers[..174 * 262_144], "QmXCym15aFeWjAWyPFaAgwVmkuKB7EBsV77Skt54KmxChF"),
        (&numbers[..174 * 262_144 + 1], "QmTedsTekQQkgACJXb1sPZSW8bLdS9LPMrT7L4YdjNRd4n"),
        (&numbers[..46_000_000], "QmbS1ac9F4ahWZb1adAKcGZQj3PeVqYsp89eWbG5WUXyhu"),
    ];
    for (bytes, cid) in cases {
        let (root, blocks) = kubo(bytes);
        // The CIDs are equal, so the blocks are those that Kubo made.
        assert_eq!(root.to_string(), cid, "{} bytes", bytes.len());
        assert!(read(&blocks, root).unwrap() == bytes, "{} bytes", bytes.len());
    }
}

#[test]
fn our_own_layout_is_read_back() {
    let stream = keystream(3 * CHUNK_BYTES as usize + 5);
    for length in [0, 11, CHUNK_BYTES as usize, CHUNK_BYTES as usize + 1, stream.len()] {
        let bytes = &stream[..length];
        let mut builder = LayoutBuilder::default();
        builder.update(bytes);
        let (root, nodes) = builder.finish().tree();
        let chunks = bytes.chunks(CHUNK_BYTES as usize).chain([&b""[..]]);
        let mut blocks: Blocks = chunks.map(|c| (raw_cid(Sha256::of(c)), c.to_vec())).collect();
        blocks.extend(nodes.into_iter().map(|node| (node.cid, node.bytes)));
        assert!(read(&blocks, root).unwrap() == bytes, "{length} bytes");
    }
}

#[test]
fn children_of_a_wide_tree() {
    let layout = crate::unixfs::Layout { size: 1025 * CHUNK_BYTES - 7, leaves: vec![Sha256([1; 32]); 1025] };
    let (_, nodes) = layout.tree();
    let below: Vec<_> = nodes.iter().map(|n| children(&n.bytes).unwrap()).collect();
    assert_eq!(below[0], vec![(raw_cid(Sha256([1; 32])), CHUNK_BYTES); 1024]);
    assert_eq!(below[1], [(raw_cid(Sha256([1; 32])), CHUNK_BYTES - 7)]);
    assert_eq!(below[2], [(nodes[0].cid, 1024 * CHUNK_BYTES), (nodes[1].cid, CHUNK_BYTES - 7)]);
}

/// A block with `links` links to the same leaf, and this UnixFS message.
fn block(links: usize, data: &[u8]) -> Vec<u8> {
    let link = Link { cid: raw_cid(Sha256::of(b"leaf")), name: "", tsize: 0 };
    Node { links: vec![link; links], data: Some(data) }.encode()
}

#[test]
fn what_others_write() {
    let leaf = Child { cid: raw_cid(Sha256::of(b"leaf")), content_bytes: 4 };
    let two = Content::Node { inline: &b""[..], children: vec![leaf; 2] };
    let trickle = Content::Node { inline: &b"hi"[..], children: vec![leaf] };
    let cases: [(&str, usize, &[u8], Content<'_>); 7] = [
        ("sizes one by one", 2, b"\x08\x02\x18\x08\x20\x04\x20\x04", two.clone()),
        ("sizes packed", 2, b"\x08\x02\x18\x08\x22\x02\x04\x04", two.clone()),
        ("no size of the file", 2, b"\x08\x02\x20\x04\x20\x04", two),
        ("trickle", 1, b"\x08\x02\x12\x02hi\x18\x06\x20\x04", trickle),
        ("a raw leaf in dag-pb", 0, b"\x08\x00\x12\x02hi\x18\x02", Content::Leaf(b"hi")),
        ("mode and time", 0, b"\x08\x02\x12\x02hi\x18\x02\x38\xa4\x03\x42\x02\x08\x01", Content::Leaf(b"hi")),
        ("empty", 0, b"\x08\x02", Content::Leaf(b"")),
    ];
    for (name, links, data, want) in cases {
        assert_eq!(content(&block(links, data), DAG_PB), Ok(want), "{name}");
    }
    assert!(children(&block(1, b"\x08\x02\x12\x02hi\x18\x06\x20\x04")).is_err(), "bytes would be lost");
    assert_eq!(content(b"\xff", RAW), Ok(Content::Leaf(b"\xff")), "any bytes are a raw leaf");
}

#[test]
fn what_is_no_file() {
    let most = b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    let overflow = [&b"\x08\x02"[..], most, most].concat();
    let cases: [(usize, &[u8], UnixfsError); 13] = [
        (0, b"", UnixfsError::NotAFile("of an unknown type")),
        (0, b"\x08\x01", UnixfsError::NotAFile("a folder")),
        (0, b"\x08\x03", UnixfsError::NotAFile("metadata")),
        (0, b"\x08\x04", UnixfsError::NotAFile("a symbolic link")),
        (0, b"\x08\x05", UnixfsError::NotAFile("a folder")),
        (0, b"\x08\x06", UnixfsError::NotAFile("of an unknown type")),
        (1, b"\x08\x02", UnixfsError::Sizes("as many sizes as links")),
        (1, b"\x08\x02\x20\x04\x20\x04", UnixfsError::Sizes("as many sizes as links")),
        (1, b"\x08\x02\x22\x01\x80", UnixfsError::Sizes("sizes that are numbers")),
        (1, b"\x08\x02\x20\x00", UnixfsError::Sizes("children that are not empty")),
        (1, b"\x08\x02\x18\x05\x20\x04", UnixfsError::Sizes("a size that is the sum of its parts")),
        (0, b"\x08\x02\x12\x02hi\x18\x03", UnixfsError::Sizes("a size that is the sum of its parts")),
        (2, &overflow, UnixfsError::Sizes("sizes with a sum")),
    ];
    for (links, data, want) in cases {
        assert_eq!(content(&block(links, data), DAG_PB), Err(want), "{data:02x?}");
    }
    assert_eq!(content(b"", DAG_PB), Err(UnixfsError::NotAFile("a node without UnixFS")));
    assert_eq!(content(b"", 0x71), Err(UnixfsError::Codec(0x71)));
    let many = [&b"\x08\x02\x22\xff\x7f"[..], &[1; 16383]].concat();
    assert_eq!(content(&block(0, &many), DAG_PB), Err(UnixfsError::Sizes("as many sizes as links")));
}

#[test]
fn damaged_blocks_are_read_or_refused() {
    let inner = block(2, b"\x08\x02\x12\x02hi\x18\x0a\x20\x04\x20\x04");
    let packed = block(2, b"\x08\x02\x18\x08\x22\x02\x04\x04");
    let mut read = 0;
    mutations(&[&inner, &packed], 30_000, |bytes| {
        if let Ok(node) = Node::decode(bytes) {
            assert_eq!(Node::decode(&node.encode()), Ok(node.clone()), "{bytes:02x?}");
        }
        let Ok(part) = content(bytes, DAG_PB) else { return };
        read += 1;
        part.content_bytes();
    });
    assert!(read > 1000, "mutations that only make nonsense test little: {read}");
}
