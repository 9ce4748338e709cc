//! Words every room shares: digests, CIDs, artifacts, credentials, and the limits with their reasons.
//!
//! Knows nothing of files, sockets, clocks or ecosystems.

mod artifact;
mod cid;
mod digest;
pub mod limits;
mod secret;

pub use artifact::{Access, Artifact};
pub use cid::{Cid, dag_pb_cid, raw_cid, sha256_of_cid};
pub use digest::{Algorithm, Digest, DigestError, Hasher, Sha256};
pub use secret::Secret;

pub use libp2p_identity::PeerId;
pub use multiaddr::{Multiaddr, Protocol};
