//! dag-pb encoding of a UnixFS file node (IPLD dag-pb spec; UnixFS spec, "File").

use crate::base::Cid;

/// One child of a node.
pub(super) struct Link {
    pub(super) cid: Cid,
    /// Bytes of file content below it.
    pub(super) content_bytes: u64,
    /// Bytes of the blocks below it, its own included (`Tsize`).
    pub(super) dag_bytes: u64,
}

const DATA_TYPE_FILE: u64 = 2;

/// Encodes a file node. Canonical dag-pb: the links stand before the data.
pub(super) fn file_node(links: &[Link]) -> Vec<u8> {
    let mut unixfs = Vec::with_capacity(16 + 5 * links.len());
    varint_field(&mut unixfs, 1, DATA_TYPE_FILE);
    varint_field(&mut unixfs, 3, links.iter().map(|l| l.content_bytes).sum());
    for link in links {
        varint_field(&mut unixfs, 4, link.content_bytes);
    }

    let mut node = Vec::with_capacity(unixfs.len() + 56 * links.len() + 8);
    let mut entry = Vec::with_capacity(64);
    for link in links {
        entry.clear();
        bytes_field(&mut entry, 1, &link.cid.to_bytes());
        bytes_field(&mut entry, 2, b"");
        varint_field(&mut entry, 3, link.dag_bytes);
        bytes_field(&mut node, 2, &entry);
    }
    bytes_field(&mut node, 1, &unixfs);
    node
}

fn varint_field(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
