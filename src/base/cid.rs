//! CIDs of blocks: version 1, SHA-256, as `unixfs-v1-2025` (IPIP-499) demands.

pub use cid::Cid;
use cid::multihash::Multihash;

use super::Sha256;

/// Multicodec `raw`: a leaf.
const RAW: u64 = 0x55;
/// Multicodec `dag-pb`: a node with links.
const DAG_PB: u64 = 0x70;
/// Multihash `sha2-256`.
const SHA2_256: u64 = 0x12;

/// The CID of a raw block with this SHA-256.
///
/// A file of at most one chunk has just one raw block, so its upstream SHA-256 *is* its CID.
pub fn raw_cid(sha256: Sha256) -> Cid {
    cid_v1(RAW, sha256)
}

/// The CID of a dag-pb node with this SHA-256.
pub fn dag_pb_cid(sha256: Sha256) -> Cid {
    cid_v1(DAG_PB, sha256)
}

/// The SHA-256 that a CID of either version names its block by; `None` for other hashes.
pub fn sha256_of_cid(cid: &Cid) -> Option<Sha256> {
    let hash = cid.hash();
    let bytes = hash.digest().try_into().ok().filter(|_| hash.code() == SHA2_256)?;
    Some(Sha256(bytes))
}

fn cid_v1(codec: u64, sha256: Sha256) -> Cid {
    Cid::new_v1(codec, Multihash::wrap(SHA2_256, &sha256.0).expect("32 bytes fit a multihash"))
}
