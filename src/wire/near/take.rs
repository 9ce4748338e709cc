//! The stream that moves one artifact: chunks of 1 MiB, by number.

use minicbor::{Decode, Encode};

use crate::base::limits::CHUNK_BYTES;
use crate::base::{Cid, PeerId, Sha256};

use super::super::WireError;
use super::codec::{self, UnknownKind, kind_from_frame, to_frame};
use super::{CHUNKS, LEAVES, few};

/// From the one who wants the artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum Ask {
    /// These chunks, as they become available.
    #[n(0)]
    Want {
        /// Number of the first.
        #[n(0)]
        first: u32,
        /// How many.
        #[n(1)]
        count: u32,
        /// Do not answer [`Tell::Elsewhere`].
        #[n(2)]
        insist: bool,
    },
    /// These no more.
    #[n(1)]
    Cancel {
        /// Number of the first.
        #[n(0)]
        first: u32,
        /// How many.
        #[n(1)]
        count: u32,
    },
    /// A kind that only a later version knows: pass over it.
    #[n(0xffff_ffff)]
    Unknown(#[n(0)] u32),
}

/// From the one who has the artifact, or is getting it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum Tell {
    /// What it is; again when more is known.
    #[n(0)]
    Head {
        /// Bytes.
        #[n(0)]
        size: Option<u64>,
        /// Root of its UnixFS layout.
        #[cbor(n(1), with = "codec::maybe_cid", has_nil)]
        root: Option<Cid>,
    },
    /// What chunks must hash to, as far as known; more follow. A claim, like all that a peer says.
    #[n(1)]
    Leaves {
        /// Number of the first.
        #[n(0)]
        first: u32,
        /// SHA-256 of each, at most [`LEAVES`].
        #[cbor(n(1), with = "codec::hashes")]
        hashes: Vec<Sha256>,
    },
    /// Chunks that can be had now; more follow.
    #[n(2)]
    Have {
        /// Number of the first.
        #[n(0)]
        first: u32,
        /// How many.
        #[n(1)]
        count: u32,
    },
    /// A chunk: its bytes follow this frame as they are.
    #[n(3)]
    Chunk {
        /// Its number.
        #[n(0)]
        n: u32,
        /// Bytes that follow, at most [`CHUNK_BYTES`].
        #[n(1)]
        length: u32,
    },
    /// Ask that peer: it got this chunk from here a moment ago.
    #[n(4)]
    Elsewhere {
        /// Number of the chunk.
        #[n(0)]
        n: u32,
        /// Who.
        #[cbor(n(1), with = "codec::peer")]
        peer: PeerId,
    },
    /// Nothing more can be had here; the stream ends.
    #[n(5)]
    Gone {
        /// Why: [`Tell::ABSENT`], [`Tell::EVICTED`], [`Tell::FAILED`], [`Tell::BUSY`]. Others may come.
        #[n(0)]
        reason: u8,
    },
    /// A kind that only a later version knows: pass over it.
    #[n(0xffff_ffff)]
    Unknown(#[n(0)] u32),
}

impl Ask {
    /// Reads a frame's content.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let ask = kind_from_frame("a request", bytes)?;
        match &ask {
            Self::Want { first, count, .. } | Self::Cancel { first, count } => span(*first, *count)?,
            Self::Unknown(_) => {}
        }
        Ok(ask)
    }

    /// As a frame.
    pub fn frame(&self) -> Vec<u8> {
        to_frame(self)
    }
}

impl Tell {
    /// [`Tell::Gone`]: nothing is known of the artifact, or nothing that this peer may have.
    pub const ABSENT: u8 = 0;
    /// [`Tell::Gone`]: it was taken out of the store.
    pub const EVICTED: u8 = 1;
    /// [`Tell::Gone`]: its download failed.
    pub const FAILED: u8 = 2;
    /// [`Tell::Gone`]: too much is asked of this node right now.
    pub const BUSY: u8 = 3;

    /// Reads a frame's content.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let tell = kind_from_frame("a reply", bytes)?;
        match &tell {
            Self::Leaves { first, hashes } => {
                few("hashes of leaves", hashes.len(), LEAVES)?;
                span(*first, hashes.len() as u32)?;
            }
            Self::Have { first, count } => span(*first, *count)?,
            Self::Elsewhere { n, .. } => span(*n, 1)?,
            Self::Chunk { n, length } => {
                span(*n, 1)?;
                if u64::from(*length) > CHUNK_BYTES {
                    let bytes = u64::from(*length);
                    return Err(WireError::TooLong { what: "a chunk", bytes, limit: CHUNK_BYTES });
                }
            }
            Self::Head { .. } | Self::Gone { .. } | Self::Unknown(_) => {}
        }
        Ok(tell)
    }

    /// As a frame.
    pub fn frame(&self) -> Vec<u8> {
        to_frame(self)
    }
}

impl From<UnknownKind> for Ask {
    fn from(kind: UnknownKind) -> Self {
        Self::Unknown(kind.0)
    }
}

impl From<UnknownKind> for Tell {
    fn from(kind: UnknownKind) -> Self {
        Self::Unknown(kind.0)
    }
}

/// Chunks `first..first + count` are numbers that an artifact can have.
fn span(first: u32, count: u32) -> Result<(), WireError> {
    match first.checked_add(count).is_some_and(|end| end <= CHUNKS) {
        true => Ok(()),
        false => Err(WireError::Field { what: "a range of chunks", why: "beyond the largest artifact" }),
    }
}
