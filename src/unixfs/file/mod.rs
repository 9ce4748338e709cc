//! What a block says about a file (UnixFS specification, "Data Format").
//!
//! Sizes that contradict each other are refused at once: they are how a layout lies.

use crate::base::protobuf::{Fields, Value, put_bytes, put_number};
use crate::base::varint::read_varint;
use crate::base::{Cid, DAG_PB, RAW};

use super::UnixfsError;
use super::dag_pb::{LINKS, Link, Node};

/// Most levels of a file's DAG, the leaves included, that a reader should go down. Kubo's narrowest layout (256 KiB,
/// width 174) reaches 200 TiB in 5; a chain of nodes with one child each has no end.
pub const MOST_DEPTH: usize = 16;

/// The part of a file that a block is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// These bytes.
    Leaf(&'a [u8]),
    /// The bytes of other blocks.
    Node {
        /// Bytes that come before those of the first child: only trickle DAGs have any.
        inline: &'a [u8],
        /// In their order; never empty.
        children: Vec<Child>,
    },
}

/// A child of a file's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child {
    /// Its block.
    pub cid: Cid,
    /// Bytes of the file below it, never zero: a claim that [`Content::content_bytes`] of its block has to bear out.
    pub content_bytes: u64,
}

impl Content<'_> {
    /// Bytes of the file in and below this block, as it claims. Never overflows: that was checked.
    pub fn content_bytes(&self) -> u64 {
        match self {
            Self::Leaf(bytes) => bytes.len() as u64,
            Self::Node { inline, children } => {
                inline.len() as u64 + children.iter().map(|c| c.content_bytes).sum::<u64>()
            }
        }
    }
}

/// What a block with this multicodec ([`RAW`] or [`DAG_PB`]) says about a file.
///
/// Any chunk size, any width, leaves raw or in dag-pb. Anything but a file is refused: folders, links, metadata.
pub fn content(block: &[u8], codec: u64) -> Result<Content<'_>, UnixfsError> {
    match codec {
        RAW => return Ok(Content::Leaf(block)),
        DAG_PB => {}
        other => return Err(UnixfsError::Codec(other)),
    }
    let node = Node::decode(block)?;
    let data = Data::decode(node.data.ok_or(UnixfsError::NotAFile("a node without UnixFS"))?)?;
    if node.links.len() != data.block_sizes.len() {
        return Err(UnixfsError::Sizes("as many sizes as links"));
    }
    let children: Vec<Child> = node
        .links
        .iter()
        .zip(data.block_sizes)
        .map(|(link, content_bytes)| Child { cid: link.cid, content_bytes })
        .collect();
    // With an empty child a small block could stand for more blocks than anybody can fetch.
    if children.iter().any(|child| child.content_bytes == 0) {
        return Err(UnixfsError::Sizes("children that are not empty"));
    }
    let sum = children.iter().try_fold(data.inline.len() as u64, |sum, c| sum.checked_add(c.content_bytes));
    let sum = sum.ok_or(UnixfsError::Sizes("sizes with a sum"))?;
    if data.file_size.is_some_and(|size| size != sum) {
        return Err(UnixfsError::Sizes("a size that is the sum of its parts"));
    }
    match children.is_empty() {
        true => Ok(Content::Leaf(data.inline)),
        false => Ok(Content::Node { inline: data.inline, children }),
    }
}

/// The children of a dag-pb block of a file, and the bytes of the file below each. None for a leaf.
pub fn children(block: &[u8]) -> Result<Vec<(Cid, u64)>, UnixfsError> {
    match content(block, DAG_PB)? {
        Content::Leaf(_) => Ok(Vec::new()),
        Content::Node { inline: [_, ..], .. } => Err(UnixfsError::NotAFile("a trickle DAG")),
        Content::Node { children, .. } => Ok(children.iter().map(|c| (c.cid, c.content_bytes)).collect()),
    }
}

/// Encodes a file's node, with the bytes of all blocks below each child (`Tsize`).
pub(super) fn file_node(children: impl Iterator<Item = (Child, u64)>) -> Vec<u8> {
    let (children, dag_bytes): (Vec<Child>, Vec<u64>) = children.unzip();
    let data = Data {
        kind: FILE,
        inline: b"",
        file_size: Some(children.iter().map(|c| c.content_bytes).sum()),
        block_sizes: children.iter().map(|c| c.content_bytes).collect(),
    };
    let links = children.iter().zip(dag_bytes).map(|(child, tsize)| Link { cid: child.cid, name: "", tsize });
    Node { links: links.collect(), data: Some(&data.encode()) }.encode()
}

/// The UnixFS message within a node.
struct Data<'a> {
    kind: u64,
    inline: &'a [u8],
    file_size: Option<u64>,
    block_sizes: Vec<u64>,
}

/// Values of the field `Type`.
const RAW_LEAF: u64 = 0;
const FILE: u64 = 2;

impl<'a> Data<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, UnixfsError> {
        let mut data = Self { kind: u64::MAX, inline: b"", file_size: None, block_sizes: Vec::new() };
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => data.kind = value.number("Type")?,
                (2, value) => data.inline = value.bytes("Data")?,
                (3, value) => data.file_size = Some(value.number("filesize")?),
                (4, Value::Bytes(packed)) => unpack(packed, &mut data.block_sizes)?,
                (4, value) => push(&mut data.block_sizes, value.number("blocksizes")?)?,
                // Mode and modification time, and what is to come.
                _ => {}
            }
        }
        match data.kind {
            FILE | RAW_LEAF => Ok(data),
            1 | 5 => Err(UnixfsError::NotAFile("a folder")),
            3 => Err(UnixfsError::NotAFile("metadata")),
            4 => Err(UnixfsError::NotAFile("a symbolic link")),
            _ => Err(UnixfsError::NotAFile("of an unknown type")),
        }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.inline.len() + 24 + 5 * self.block_sizes.len());
        put_number(&mut out, 1, self.kind);
        if !self.inline.is_empty() {
            put_bytes(&mut out, 2, self.inline);
        }
        if let Some(size) = self.file_size {
            put_number(&mut out, 3, size);
        }
        for size in &self.block_sizes {
            put_number(&mut out, 4, *size);
        }
        out
    }
}

/// Numbers back to back, as newer protobuf writes repeated ones.
fn unpack(mut packed: &[u8], sizes: &mut Vec<u64>) -> Result<(), UnixfsError> {
    while !packed.is_empty() {
        let number = read_varint(packed).ok().flatten();
        let (size, length) = number.ok_or(UnixfsError::Sizes("sizes that are numbers"))?;
        push(sizes, size)?;
        packed = &packed[length..];
    }
    Ok(())
}

fn push(sizes: &mut Vec<u64>, size: u64) -> Result<(), UnixfsError> {
    if sizes.len() >= LINKS {
        return Err(UnixfsError::Sizes("as many sizes as links"));
    }
    sizes.push(size);
    Ok(())
}

#[cfg(test)]
mod tests;
