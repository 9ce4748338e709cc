//! dag-pb: blocks with links (IPLD dag-pb specification).

use crate::base::protobuf::{Fields, put_bytes, put_number};
use crate::base::{Cid, limits::BLOCK_BYTES, parse_cid};

use super::UnixfsError;

/// Most links of a node. Kubo makes nodes of 174 or 1024; a link that does its worst takes 8 bytes of the block and
/// over a hundred in memory.
pub(super) const LINKS: usize = 8192;

/// A block with links, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node<'a> {
    /// In their order.
    pub links: Vec<Link<'a>>,
    /// What the node itself says: for us, UnixFS.
    pub data: Option<&'a [u8]>,
}

/// A link to another block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    /// The block.
    pub cid: Cid,
    /// Its name within a folder; empty in a file.
    pub name: &'a str,
    /// Bytes of all blocks below it, its own included: a claim.
    pub tsize: u64,
}

impl<'a> Node<'a> {
    /// Takes a block apart. Links and data may stand in either order; what the specification knows no field for, or
    /// what stands there twice, is refused.
    pub fn decode(block: &'a [u8]) -> Result<Self, UnixfsError> {
        if block.len() as u64 > BLOCK_BYTES {
            return Err(UnixfsError::TooLong(block.len()));
        }
        let mut node = Self::default();
        for field in Fields::of(block) {
            match field? {
                (1, value) if node.data.is_none() => node.data = Some(value.bytes("Data")?),
                (2, value) if node.links.len() < LINKS => {
                    node.links.push(Link::decode(value.bytes("Links")?)?);
                }
                (2, _) => return Err(UnixfsError::DagPb("too many links")),
                (1, _) => return Err(UnixfsError::DagPb("data twice")),
                _ => return Err(UnixfsError::DagPb("a field that there is not")),
            }
        }
        Ok(node)
    }

    /// The block. Canonical dag-pb: links stand before data.
    pub fn encode(&self) -> Vec<u8> {
        let data = self.data.unwrap_or_default();
        let mut block = Vec::with_capacity(data.len() + 56 * self.links.len() + 8);
        let mut entry = Vec::with_capacity(64);
        for link in &self.links {
            entry.clear();
            put_bytes(&mut entry, 1, &link.cid.to_bytes());
            put_bytes(&mut entry, 2, link.name.as_bytes());
            put_number(&mut entry, 3, link.tsize);
            put_bytes(&mut block, 2, &entry);
        }
        if let Some(data) = self.data {
            put_bytes(&mut block, 1, data);
        }
        block
    }
}

impl<'a> Link<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, UnixfsError> {
        let (mut cid, mut name, mut tsize) = (None, None, None);
        for field in Fields::of(bytes) {
            match field? {
                (1, value) if cid.is_none() => cid = Some(parse_cid(value.bytes("Hash")?)?),
                (2, value) if name.is_none() => {
                    let text = std::str::from_utf8(value.bytes("Name")?);
                    name = Some(text.map_err(|_| UnixfsError::DagPb("a link's name is not UTF-8"))?);
                }
                (3, value) if tsize.is_none() => tsize = Some(value.number("Tsize")?),
                (1..=3, _) => return Err(UnixfsError::DagPb("a link says something twice")),
                _ => return Err(UnixfsError::DagPb("a link with a field that there is not")),
            }
        }
        let cid = cid.ok_or(UnixfsError::DagPb("a link to nothing"))?;
        Ok(Self { cid, name: name.unwrap_or_default(), tsize: tsize.unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{CidError, Sha256, protobuf::ProtobufError, raw_cid};

    #[test]
    fn either_order_and_every_field() {
        let cid = raw_cid(Sha256::of(b"x"));
        let links = vec![Link { cid, name: "é", tsize: 7 }, Link { cid, name: "", tsize: 0 }];
        let node = Node { links, data: Some(b"data") };
        let block = node.encode();
        assert_eq!(Node::decode(&block), Ok(node.clone()));
        let (links, data) = block.split_at(block.len() - 6);
        assert_eq!(Node::decode(&[data, links].concat()), Ok(node));
        assert_eq!(Node::decode(b""), Ok(Node::default()));
        assert_eq!(Node::decode(b"\x0a\x00"), Ok(Node { links: vec![], data: Some(b"") }));
    }

    #[test]
    fn what_is_no_node() {
        let dag_pb = UnixfsError::DagPb;
        // 01 55 00 00 is the identity CID of nothing: the shortest there is.
        let cases: [(&[u8], UnixfsError); 11] = [
            (b"\x0a\x00\x0a\x00", dag_pb("data twice")),
            (b"\x1a\x00", dag_pb("a field that there is not")),
            (b"\x12\x00", dag_pb("a link to nothing")),
            (b"\x12\x02\x12\x00", dag_pb("a link to nothing")),
            (b"\x12\x02\x0a\x00", UnixfsError::Cid(CidError::Truncated)),
            (
                b"\x12\x0c\x0a\x04\x01\x55\x00\x00\x0a\x04\x01\x55\x00\x00",
                dag_pb("a link says something twice"),
            ),
            (b"\x12\x08\x0a\x04\x01\x55\x00\x00\x20\x01", dag_pb("a link with a field that there is not")),
            (b"\x12\x09\x0a\x04\x01\x55\x00\x00\x12\x01\xff", dag_pb("a link's name is not UTF-8")),
            (b"\x08\x01", UnixfsError::Protobuf(ProtobufError::Kind("Data"))),
            (b"\x12\x05\x0a", UnixfsError::Protobuf(ProtobufError::Truncated { at: 2 })),
            (&[0; (2 << 20) + 1], UnixfsError::TooLong((2 << 20) + 1)),
        ];
        for (block, want) in cases {
            assert_eq!(Node::decode(block), Err(want), "{:02x?}", &block[..block.len().min(20)]);
        }
        let many = b"\x12\x06\x0a\x04\x01\x55\x00\x00".repeat(LINKS + 1);
        assert_eq!(Node::decode(&many), Err(dag_pb("too many links")));
        assert!(Node::decode(&many[8..]).is_ok());
    }
}
