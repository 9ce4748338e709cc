//! Messages as they stand on the wire: bitswap (protobuf), dpm's own (CBOR), a room's events (JSON), and the varints
//! that frame them.
//!
//! Pure: bytes in, messages out, and back. Knows no sockets; panics on no input.

pub mod bitswap;
mod frame;
pub mod near;
pub mod room;

pub use crate::base::varint;
pub use frame::{FrameReader, frame};

use crate::base::CidError;
use crate::base::protobuf::ProtobufError;
use varint::VarintError;

/// What is wrong with a message. Whoever sent it does not speak the protocol: its stream is closed.
///
/// Only [`WireError::UnknownHash`] can come from an honest peer: the block is left out, the stream goes on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Larger than the protocol lets it be.
    #[error("{what} of {bytes} bytes, {limit} are allowed")]
    TooLong {
        /// What.
        what: &'static str,
        /// As stated or found.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// More of them than a message may have.
    #[error("more than {limit} {what}")]
    TooMany {
        /// What.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A frame's length is no number.
    #[error("a frame without a length")]
    Frame(#[source] VarintError),
    /// No protobuf message.
    #[error(transparent)]
    Protobuf(#[from] ProtobufError),
    /// No CBOR message of the kind that was expected.
    #[error("{what} is not as it should be: {why}")]
    Cbor {
        /// Which message.
        what: &'static str,
        /// What the decoder says.
        why: String,
    },
    /// No CID.
    #[error("{what}: {source}")]
    Cid {
        /// Where.
        what: &'static str,
        /// Why.
        source: CidError,
    },
    /// A field that must be there is not, or has a value that makes no sense.
    #[error("{what}: {why}")]
    Field {
        /// Which.
        what: &'static str,
        /// Why.
        why: &'static str,
    },
    /// A block named by a hash function that we do not verify by.
    #[error("a block with the hash {0:#x}, which is not SHA-256")]
    UnknownHash(u64),
}
