//! Blocks travel without their CID: with a prefix of it, to be completed by hashing.

use crate::base::varint::{put_varint, read_varint};
use crate::base::{Cid, CidError, DAG_PB, SHA2_256, Sha256, dag_pb_cid};

use super::super::WireError;
use super::cid_error;

/// Longest CID prefix in bytes: four varints.
const PREFIX_BYTES: usize = 40;

/// All of a CID but the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// CID version, 0 or 1.
    pub version: u64,
    /// Multicodec of the block.
    pub codec: u64,
    /// Multihash code.
    pub hash: u64,
    /// Bytes of the digest.
    pub hash_bytes: u64,
}

impl Prefix {
    /// Of a CID.
    pub fn of(cid: &Cid) -> Self {
        let hash = cid.hash();
        Self {
            version: cid.version().into(),
            codec: cid.codec(),
            hash: hash.code(),
            hash_bytes: u64::from(hash.size()),
        }
    }

    /// The CID of `data` under this prefix: what names a block is the hash of its bytes, made here.
    ///
    /// [`WireError::UnknownHash`] for all but whole SHA-256 digests; identity "hashes" are among those.
    pub fn cid(&self, data: &[u8]) -> Result<Cid, WireError> {
        if self.hash != SHA2_256 || self.hash_bytes != 32 {
            return Err(WireError::UnknownHash(self.hash));
        }
        let hashed = dag_pb_cid(Sha256::of(data));
        match self.version {
            0 if self.codec == DAG_PB => Ok(Cid::new_v0(*hashed.hash()).expect("a SHA-256")),
            1 => Ok(Cid::new_v1(self.codec, *hashed.hash())),
            version => Err(cid_error("a block's prefix", CidError::Version(version))),
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let wrong = |source| cid_error("a block's prefix", source);
        if bytes.len() > PREFIX_BYTES {
            return Err(wrong(CidError::TooLong(bytes.len())));
        }
        let mut rest = bytes;
        let mut number = || match read_varint(rest) {
            Ok(Some((value, length))) => {
                rest = &rest[length..];
                Ok(value)
            }
            Ok(None) => Err(wrong(CidError::Truncated)),
            Err(e) => Err(wrong(e.into())),
        };
        let prefix = Self { version: number()?, codec: number()?, hash: number()?, hash_bytes: number()? };
        match rest.len() {
            0 => Ok(prefix),
            more => Err(wrong(CidError::Trailing(more))),
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(8);
        for number in [self.version, self.codec, self.hash, self.hash_bytes] {
            put_varint(&mut out, number);
        }
        out
    }
}

/// The CID of a block from [`Message::legacy`](super::Message::legacy): always version 0.
pub fn legacy_cid(data: &[u8]) -> Cid {
    Cid::new_v0(*dag_pb_cid(Sha256::of(data)).hash()).expect("a SHA-256")
}
