//! Words every room shares: digests, CIDs, artifacts, credentials, the limits with their reasons, and the numbers and
//! fields that block formats and messages are written in.
//!
//! Knows nothing of files, sockets, clocks or ecosystems.

mod artifact;
pub mod cbor;
mod cid;
mod digest;
pub mod limits;
#[cfg(test)]
pub(crate) mod mutate;
pub mod near;
mod peer_key;
pub mod protobuf;
mod purl;
pub mod reach;
mod secret;
mod trail;
pub mod varint;

pub use artifact::{Access, Artifact, ROOM};
pub use cid::{
    Cid, CidError, DAG_CBOR, DAG_PB, IDENTITY, MOST_CID_BYTES, RAW, SHA2_256, dag_cbor_cid, dag_pb_cid,
    parse_cid, parse_cid_text, raw_cid, read_cid, sha256_of_cid,
};
pub use digest::{Algorithm, Digest, DigestError, Hasher, Sha256};
pub use near::{Subnet, is_near};
pub use peer_key::{PeerKey, PeerKeyError};
pub use purl::{MOST_PURL_BYTES, PackageUrl, PackageUrlError};
pub use secret::Secret;
pub use trail::{HOPS, Trail};

pub use libp2p_identity::PeerId;
pub use multiaddr::{Multiaddr, Protocol};
