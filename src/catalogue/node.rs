//! A node as a block: `{"e": [entry, …], "v": 1}` or `{"l": [[step, entries, link], …], "v": 1}`.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::base::cbor::{CborError, CborReader, CborWriter};
use crate::base::{Cid, DAG_CBOR, SHA2_256, Sha256, dag_cbor_cid};

use super::entry::RawEntry;
use super::path::{Path, Place};
use super::{CatalogueError, Entry, FAN_OUT, LEAF_ENTRIES, MOST_ENTRIES};

/// Version of the format: a node of another one is refused.
const FORMAT: u64 = 1;

/// A link as it stands in a block, up to its hash: tag 42, 37 bytes, a zero, CIDv1, dag-cbor, sha2-256, 32 bytes.
const LINK_HEAD: [u8; 9] = [0xd8, 42, 0x58, 37, 0, 1, DAG_CBOR as u8, SHA2_256 as u8, 32];

/// A subtree, as its parent tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Child {
    pub(super) hash: Sha256,
    pub(super) entries: u64,
}

/// A node, read and checked as far as one block can be.
#[derive(Debug)]
pub(super) enum Node<'b> {
    Leaf(Vec<RawEntry<'b>>),
    Inner(Box<[Option<Child>; FAN_OUT]>),
}

impl<'b> Node<'b> {
    /// Reads the block of a subtree of so many entries; `at_root` allows none.
    pub(super) fn read(child: Child, at_root: bool, block: &'b [u8]) -> Result<Self, CatalogueError> {
        let cid = dag_cbor_cid(child.hash);
        let cbor = |source: CborError| CatalogueError::Cbor { cid, source };
        let wrong = |why: &'static str| CatalogueError::Node { cid, why };
        let mut reader = CborReader::new(block);
        let (mut node, mut format) = (None, None);
        let mut map = reader.map().map_err(cbor)?;
        while let Some(key) = map.key(&mut reader, CborReader::text).map_err(cbor)? {
            match key {
                "e" | "l" if node.is_some() => return Err(wrong("it is a leaf and has children")),
                "e" => node = Some(Self::Leaf(leaf(cid, &mut reader, block)?)),
                "l" => node = Some(Self::Inner(Box::new(children(cid, &mut reader)?))),
                "v" => format = Some(reader.uint().map_err(cbor)?),
                _ => reader.skip().map_err(cbor)?,
            }
        }
        reader.end().map_err(cbor)?;
        if format != Some(FORMAT) {
            return Err(wrong("another version, or none (v)"));
        }
        let node = node.ok_or(wrong("neither entries (e) nor links (l)"))?;
        let found = match &node {
            Self::Leaf(entries) => entries.len() as u64,
            // Sixteen numbers of at most `MOST_ENTRIES`.
            Self::Inner(children) => children.iter().flatten().map(|child| child.entries).sum(),
        };
        if found != child.entries {
            return Err(CatalogueError::Count { cid, stated: child.entries, found });
        }
        match &node {
            Self::Leaf(entries) if entries.is_empty() && !at_root => Err(wrong("an empty leaf")),
            Self::Inner(_) if found <= LEAF_ENTRIES as u64 => Err(wrong("so few entries belong in one leaf")),
            _ => Ok(node),
        }
    }
}

/// Where a lookup goes on from a node.
pub(super) enum Step<'b> {
    Down(Child),
    /// The entry, and which of its leaf it is.
    Found(RawEntry<'b>, usize),
    Nothing,
}

/// Reads a node only as far as a lookup of this key needs: sixteen links or a whole leaf are most of its time. What
/// came by a pull was checked then; here only what is passed on the way is.
pub(super) fn seek<'b>(
    hash: Sha256,
    step: u8,
    key: (&str, &str),
    block: &'b [u8],
) -> Result<Step<'b>, CatalogueError> {
    let cbor = |source: CborError| CatalogueError::Cbor { cid: dag_cbor_cid(hash), source };
    let mut reader = CborReader::new(block);
    let mut map = reader.map().map_err(cbor)?;
    while let Some(field) = map.key(&mut reader, CborReader::text).map_err(cbor)? {
        match field {
            "e" => {
                for number in 0..reader.array().map_err(cbor)? {
                    let entry = RawEntry::read(&mut reader, block);
                    let cid = || dag_cbor_cid(hash);
                    let entry =
                        entry.map_err(|source| CatalogueError::Entry { cid: cid(), number, source })?;
                    match entry.key().cmp(&key) {
                        Ordering::Less => {}
                        Ordering::Equal => return Ok(Step::Found(entry, number)),
                        Ordering::Greater => break,
                    }
                }
                return Ok(Step::Nothing);
            }
            "l" => {
                for _ in 0..reader.array().map_err(cbor)? {
                    let three = reader.array().map_err(cbor)? == 3;
                    let (at, entries) = (reader.uint().map_err(cbor)?, reader.uint().map_err(cbor)?);
                    let child = reader.raw_after(&LINK_HEAD).map_err(cbor)?;
                    if !three || at > u64::from(step) {
                        break;
                    }
                    if at == u64::from(step) {
                        return Ok(Step::Down(Child { hash: Sha256(child), entries }));
                    }
                }
                return Ok(Step::Nothing);
            }
            _ => reader.skip().map_err(cbor)?,
        }
    }
    Err(CatalogueError::Node { cid: dag_cbor_cid(hash), why: "neither entries (e) nor links (l)" })
}

fn leaf<'b>(
    cid: Cid,
    reader: &mut CborReader<'b>,
    block: &'b [u8],
) -> Result<Vec<RawEntry<'b>>, CatalogueError> {
    let count = reader.array().map_err(|source| CatalogueError::Cbor { cid, source })?;
    if count > LEAF_ENTRIES {
        return Err(CatalogueError::Node { cid, why: "more entries than a leaf may have" });
    }
    let mut entries: Vec<RawEntry<'b>> = Vec::with_capacity(count);
    for number in 0..count {
        let entry = RawEntry::read(reader, block);
        let entry = entry.map_err(|source| CatalogueError::Entry { cid, number, source })?;
        if entries.last().is_some_and(|last| last.key() >= entry.key()) {
            let (purl, file) = shown(entry.key());
            return Err(CatalogueError::Unsorted { cid, purl, file });
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn children(cid: Cid, reader: &mut CborReader<'_>) -> Result<[Option<Child>; FAN_OUT], CatalogueError> {
    let cbor = |source: CborError| CatalogueError::Cbor { cid, source };
    let wrong = |why: &'static str| CatalogueError::Node { cid, why };
    let count = reader.array().map_err(cbor)?;
    let mut children = [None; FAN_OUT];
    let mut next = 0;
    for _ in 0..count {
        if reader.array().map_err(cbor)? != 3 {
            return Err(wrong("a link that is not step, entries, CID"));
        }
        let step = reader.uint().map_err(cbor)?;
        let step = usize::try_from(step).ok().filter(|step| (next..FAN_OUT).contains(step));
        let step = step.ok_or(wrong("links out of order, twice, or beyond the sixteenth"))?;
        next = step + 1;
        let entries = reader.uint().map_err(cbor)?;
        if !(1..=MOST_ENTRIES).contains(&entries) {
            return Err(CatalogueError::Count { cid, stated: entries, found: MOST_ENTRIES });
        }
        let hash = reader.raw_after(&LINK_HEAD).map_err(cbor)?;
        children[step] = Some(Child { hash: Sha256(hash), entries });
    }
    Ok(children)
}

/// Reads a leaf's entries, each of which must belong there.
pub(super) fn entries_of(
    hash: Sha256,
    place: &Place,
    raw: &[RawEntry<'_>],
) -> Result<Vec<(Path, Entry)>, CatalogueError> {
    let cid = dag_cbor_cid(hash);
    let mut entries = Vec::with_capacity(raw.len());
    for (number, raw) in raw.iter().enumerate() {
        let entry = raw.entry().map_err(|source| CatalogueError::Entry { cid, number, source })?;
        let path = Path::of(&entry.purl, &entry.file);
        if !place.holds(&path) {
            let (purl, file) = shown(entry.key());
            return Err(CatalogueError::Misplaced { cid, purl, file });
        }
        entries.push((path, entry));
    }
    Ok(entries)
}

/// Makes a leaf's block.
pub(super) fn write_leaf<'a>(entries: impl Iterator<Item = &'a Entry>) -> (Child, Bytes) {
    let mut entries: Vec<&Entry> = entries.collect();
    entries.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
    let mut out = CborWriter::default();
    out.map(2).text("e").array(entries.len());
    for entry in &entries {
        entry.write(&mut out);
    }
    sealed(out, entries.len() as u64)
}

/// Makes an inner node's block.
pub(super) fn write_inner(children: &[Option<Child>; FAN_OUT]) -> (Child, Bytes) {
    let mut out = CborWriter::default();
    out.map(2).text("l").array(children.iter().flatten().count());
    let mut entries = 0;
    for (step, child) in children.iter().enumerate() {
        if let Some(child) = child {
            entries += child.entries;
            out.array(3).uint(step as u64).uint(child.entries).raw(&LINK_HEAD).raw(&child.hash.0);
        }
    }
    sealed(out, entries)
}

fn sealed(mut out: CborWriter, entries: u64) -> (Child, Bytes) {
    out.text("v").uint(FORMAT);
    (Child { hash: Sha256::of(&out.0), entries }, out.0.into())
}

/// A key for a message: short, and without control characters.
pub(super) fn shown((purl, file): (&str, &str)) -> (String, String) {
    let short = |text: &str| text.chars().filter(|c| !c.is_control()).take(80).collect();
    (short(purl), short(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_dag_cbor() {
        let hash = Sha256::of(b"");
        let mut out = CborWriter::default();
        out.cid(&dag_cbor_cid(hash));
        assert_eq!(out.0, [&LINK_HEAD[..], &hash.0].concat());
    }
}
