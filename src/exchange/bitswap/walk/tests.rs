use super::*;
use crate::base::dag_pb_cid;
use crate::unixfs::{DagPbNode, Link};

/// All blocks by hash, and the root.
type Blocks = HashMap<Sha256, Bytes>;

fn put(blocks: &mut Blocks, data: Vec<u8>, codec: u64) -> Cid {
    let hash = Sha256::of(&data);
    blocks.insert(hash, data.into());
    Cid::new_v1(codec, *dag_pb_cid(hash).hash())
}

/// UnixFS data of a file: `inline` bytes, and sizes of the children.
fn unixfs(inline: &[u8], sizes: &[u64]) -> Vec<u8> {
    use crate::base::protobuf::{put_bytes, put_number};
    let mut out = Vec::new();
    put_number(&mut out, 1, 2);
    if !inline.is_empty() {
        put_bytes(&mut out, 2, inline);
    }
    put_number(&mut out, 3, inline.len() as u64 + sizes.iter().sum::<u64>());
    sizes.iter().for_each(|size| put_number(&mut out, 4, *size));
    out
}

fn node(blocks: &mut Blocks, inline: &[u8], children: &[(Cid, u64)]) -> Cid {
    let sizes: Vec<u64> = children.iter().map(|(_, size)| *size).collect();
    let links = children.iter().map(|(cid, _)| Link { cid: *cid, name: "", tsize: 0 }).collect();
    let data = unixfs(inline, &sizes);
    let encoded = DagPbNode { links, data: Some(&data) }.encode();
    put(blocks, encoded, crate::base::DAG_PB)
}

/// A balanced file: chunks of `chunk` bytes, `width` links a node, leaves raw or in dag-pb.
fn import(bytes: &[u8], chunk: usize, width: usize, raw: bool) -> (Blocks, Cid) {
    let mut blocks = Blocks::new();
    let mut level: Vec<(Cid, u64)> = bytes
        .chunks(chunk)
        .map(|part| {
            let cid = match raw {
                true => put(&mut blocks, part.to_vec(), RAW),
                false => node(&mut blocks, part, &[]),
            };
            (cid, part.len() as u64)
        })
        .collect();
    while level.len() > 1 {
        let above = level.chunks(width).map(|children| {
            let size = children.iter().map(|(_, size)| size).sum();
            (node(&mut blocks, b"", children), size)
        });
        level = above.collect();
    }
    (blocks, level[0].0)
}

fn content_of(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// Walks with blocks that come in another order than they are wanted; gives the file.
fn walk(blocks: &Blocks, root: Cid, most: u64) -> Result<Vec<u8>, WalkError> {
    let mut walk = Walk::new(root, most)?;
    let (mut file, mut open) = (Vec::new(), Vec::new());
    let mut known = 0;
    for step in 0_usize.. {
        let wanted = walk.want();
        open.extend(known..wanted);
        known = wanted;
        while let Some(got) = walk.next() {
            assert!(got.content.is_empty() || got.offset == file.len() as u64, "without gaps");
            assert_eq!(sha256_of_cid(&got.cid), Some(Sha256::of(&got.data)));
            file.extend_from_slice(&got.content);
        }
        if walk.is_over() {
            assert!(walk.wanted.is_empty() && walk.by_hash.is_empty() && walk.is_all_wanted());
            return Ok(file);
        }
        if open.is_empty() {
            continue;
        }
        let n = open.swap_remove(step * 5 % open.len());
        let hash = sha256_of_cid(&walk.cid(n).unwrap()).unwrap();
        assert_eq!(walk.number(&hash), Some(n));
        walk.came(n, &blocks[&hash])?;
    }
    unreachable!()
}

#[test]
fn files_of_every_shape_come_out_whole() {
    for (size, chunk, width) in
        [(1, 9, 3), (9, 9, 3), (10, 9, 3), (1000, 9, 3), (5000, 7, 2), (4000, 100, 174)]
    {
        for raw in [true, false] {
            let bytes = content_of(size);
            let (blocks, root) = import(&bytes, chunk, width, raw);
            assert_eq!(
                walk(&blocks, root, 1 << 20),
                Ok(bytes),
                "{size} bytes in {chunk}, {width} wide, {raw}"
            );
        }
    }
}

#[test]
fn the_same_block_in_many_places_is_wanted_once() {
    let bytes = vec![7; 1000];
    let (blocks, root) = import(&bytes, 10, 5, true);
    assert!(blocks.len() < 10);
    assert_eq!(walk(&blocks, root, 1 << 20), Ok(bytes));
}

#[test]
fn bytes_in_the_nodes_themselves() {
    let mut blocks = Blocks::new();
    let a = put(&mut blocks, b"world".to_vec(), RAW);
    let b = put(&mut blocks, b"!".to_vec(), RAW);
    let inner = node(&mut blocks, b"big ", &[(a, 5)]);
    let root = node(&mut blocks, b"hello ", &[(inner, 9), (b, 1)]);
    assert_eq!(walk(&blocks, root, 100).unwrap(), b"hello big world!");
}

#[test]
fn no_more_than_the_window_is_wanted() {
    let mut blocks = Blocks::new();
    let leaf = put(&mut blocks, b"x".to_vec(), RAW);
    let claims: Vec<(Cid, u64)> =
        (0..200_u32).map(|n| (put(&mut blocks, n.to_be_bytes().to_vec(), RAW), 1 << 20)).collect();
    let root = node(&mut blocks, b"", &claims);
    let mut walk = Walk::new(root, u64::MAX).unwrap();
    assert_eq!(walk.want(), 1);
    assert!(!walk.is_all_wanted());
    walk.came(0, &blocks[&sha256_of_cid(&root).unwrap()]).unwrap();
    assert!(walk.next().is_some_and(|got| got.cid == root && got.file_bytes == 200 << 20));
    assert_eq!(walk.want(), 1 + (AHEAD_BYTES >> 20) as u32);
    assert!(walk.next().is_none() && !walk.is_over());
    // The claim is not borne out.
    let hash = sha256_of_cid(&walk.cid(1).unwrap()).unwrap();
    assert!(matches!(walk.came(1, &blocks[&hash]), Err(WalkError::Size(_))));
    let _ = leaf;
}

#[test]
fn what_is_no_file() {
    let mut blocks = Blocks::new();
    let leaf = put(&mut blocks, b"x".to_vec(), RAW);
    let torn = put(&mut blocks, b"torn".to_vec(), crate::base::DAG_PB);
    let folder =
        put(&mut blocks, DagPbNode { links: vec![], data: Some(b"\x08\x01") }.encode(), crate::base::DAG_PB);
    for root in [torn, folder] {
        assert!(matches!(walk(&blocks, root, 100), Err(WalkError::Block { .. })));
    }
    let sha512 = Cid::new_v1(RAW, cid::multihash::Multihash::wrap(0x13, &[7; 64]).unwrap());
    assert_eq!(walk(&blocks, sha512, 100), Err(WalkError::Hash(sha512)));
    let other = node(&mut blocks, b"", &[(sha512, 1)]);
    assert_eq!(walk(&blocks, other, 100), Err(WalkError::Hash(sha512)));
    let wide = node(&mut blocks, b"", &[(leaf, 2)]);
    assert_eq!(walk(&blocks, wide, 100), Err(WalkError::Size(leaf)));
    let (many, root) = import(&content_of(101), 10, 3, true);
    assert_eq!(walk(&many, root, 100), Err(WalkError::TooLarge(101)));
    let mut chain = leaf;
    for _ in 0..MOST_DEPTH {
        chain = node(&mut blocks, b"", &[(chain, 1)]);
    }
    assert_eq!(walk(&blocks, chain, 100), Err(WalkError::TooDeep));
    // Each small block stands for thousands.
    let fine = node(&mut blocks, b"", &vec![(leaf, 1); 8000]);
    let finer = node(&mut blocks, b"", &vec![(fine, 8000); 8000]);
    assert_eq!(walk(&blocks, finer, u64::MAX), Err(WalkError::TooFine));
}

#[test]
fn blocks_as_they_are() {
    let mut blocks = Blocks::new();
    // What no file has in it, a block twice, and one that is named by another hash.
    let cids: Vec<Cid> = (0..3).map(|n| put(&mut blocks, vec![n, 0xff], crate::base::DAG_CBOR)).collect();
    let other = Cid::new_v1(RAW, crate::base::Cid::default().hash().to_owned());
    let mut walk = Walk::blocks([cids[0], cids[1], other, cids[0], cids[2]]);
    assert_eq!(walk.want(), 3);
    assert!(walk.is_all_wanted(), "nothing follows from what they are");
    for n in [2, 1, 0] {
        assert!(walk.next().is_none());
        let hash = sha256_of_cid(&walk.cid(n).unwrap()).unwrap();
        walk.came(n, &blocks[&hash]).unwrap();
    }
    let got: Vec<Cid> = std::iter::from_fn(|| walk.next()).map(|got| got.cid).collect();
    assert_eq!(got, [cids[0], cids[1], cids[0], cids[2]]);
    assert!(walk.is_over());
}
