//! What stands in the index, as CBOR with integer keys that are never reused.

use minicbor::{Decode, Encode};

use super::StoreError;

/// A stored artifact.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) struct ArtifactRecord {
    #[n(0)]
    pub(super) size: u64,
    /// Milliseconds since the epoch.
    #[n(1)]
    pub(super) stored_at: u64,
    /// Digests other than our SHA-256, as `algorithm:hex`: the aliases to take out with it.
    #[n(2)]
    pub(super) digests: Vec<String>,
    #[n(3)]
    pub(super) private: bool,
    #[n(4)]
    pub(super) pinned: bool,
    /// Name of the upstream it came from.
    #[n(5)]
    pub(super) upstream: String,
    /// Its own file name.
    #[n(6)]
    pub(super) filename: String,
    /// SHA-256 of every 1 MiB chunk, one after the other; absent where the one leaf is the artifact itself.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub(super) leaves: Vec<u8>,
    /// Root CID of the `unixfs-v1-2025` layout, binary.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub(super) root: Vec<u8>,
    /// Where it was fetched from, without query and userinfo.
    #[n(9)]
    pub(super) url: String,
}

/// Where the bytes of a block are.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(super) enum BlockRecord {
    /// A range of the artifact's file.
    #[n(0)]
    Range {
        #[n(0)]
        offset: u64,
        #[n(1)]
        length: u64,
    },
    /// A dag-pb node, here.
    #[n(1)]
    Node {
        #[cbor(n(0), with = "minicbor::bytes")]
        bytes: Vec<u8>,
    },
}

pub(super) fn encode<T: Encode<()>>(record: &T) -> Vec<u8> {
    minicbor::to_vec(record).expect("encoding into memory cannot fail")
}

pub(super) fn decode<'a, T: Decode<'a, ()>>(bytes: &'a [u8]) -> Result<T, StoreError> {
    minicbor::decode(bytes).map_err(|e| StoreError::Record(e.to_string()))
}
