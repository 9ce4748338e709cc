//! dpm's own protocol between dpm nodes: what a peer has, its chunks in bulk, and news of its catalogue.
//!
//! Every message is CBOR in a frame (a varint with the length, then the CBOR). Maps have integer keys, and kinds of
//! messages numbers, which are never reused. Keys that are unknown are skipped, and kinds that are unknown arrive as
//! `Unknown`, so that a later version may say more. `tests/fixtures/near-v1.cbor` has one of each.
//!
//! Whoever opens a stream writes one [`Open`]. What follows depends on it:
//! - [`Open::Ask`]: the other side answers with one [`Offers`] and both close.
//! - [`Open::Take`]: both write from then on, the opener [`Ask`]s, the other side [`Tell`]s.
//! - [`Open::News`]: the opener may write more [`News`] frames, the other side nothing.
//! - [`Open::Blocks`]: the other side answers with one [`Held`] a hash, each with its block's bytes behind it, and both
//!   close.

mod codec;
mod take;

pub use take::{Ask, Tell};

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::base::limits::{ARTIFACT_BYTES, CHUNK_BYTES};
use crate::base::{Cid, Digest, PeerId, Sha256};
use crate::catalogue::MOST_BLOCK_BYTES;

use super::WireError;
use codec::{UnknownKind, from_frame, kind_from_frame, to_frame};

/// Protocol that these messages belong to.
pub const PROTOCOL: &str = "/dpm/near/1";

/// Largest frame in bytes, its length not counted: a root block of 1,024 links is 56 KiB, 2,048 hashes are 64 KiB.
pub const FRAME_BYTES: usize = 128 << 10;

/// Most digests that one [`Open::Ask`] names: many for one installation, and few enough to be looked up at once.
pub const DIGESTS: usize = 64;

/// Most hashes in one [`Tell::Leaves`]: half a frame, 2 GiB of an artifact.
pub const LEAVES: usize = 2048;

/// Most entries in one [`News`], added and removed together: half a frame.
pub const NEWS: usize = 2048;

/// Most hashes in one [`Open::Blocks`]: a catalogue of 60,000 blocks is 240 questions, several of which are under way at
/// once, and the answer to the largest is 40 MiB, sent as it is read.
pub const BLOCKS: usize = 256;

/// Chunks of the largest artifact there may be: no chunk has a number from here on.
pub const CHUNKS: u32 = (ARTIFACT_BYTES / CHUNK_BYTES) as u32;

/// Room in a frame of [`Offers`] for all that is not a root block, in bytes: an offer takes less than 128, with a CID
/// of our own making less than 64.
const OFFERS_OWN_BYTES: usize = DIGESTS * 128;

/// What a stream is for: its first frame.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum Open {
    /// Which of these do you have?
    #[n(0)]
    Ask {
        /// At most [`DIGESTS`].
        #[cbor(n(0), with = "codec::digests")]
        digests: Vec<Digest>,
        /// The asker is about to fetch them from upstream, unless a peer is before it.
        #[n(1)]
        claim: bool,
    },
    /// The chunks of this artifact, please.
    #[n(1)]
    Take {
        /// Which.
        #[cbor(n(0), with = "codec::digest")]
        digest: Digest,
    },
    /// What may be had from the sender.
    #[n(2)]
    News(#[n(0)] News),
    /// These blocks of catalogues, please.
    #[n(3)]
    Blocks {
        /// SHA-256 of each, at most [`BLOCKS`].
        #[cbor(n(0), with = "codec::hashes")]
        hashes: Vec<Sha256>,
    },
    /// A kind that only a later version knows: close the stream.
    #[n(0xffff_ffff)]
    Unknown(#[n(0)] u32),
}

/// The answer to [`Open::Ask`]: an offer a digest, in the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Offers {
    /// At most [`DIGESTS`].
    #[cbor(n(0), with = "codec::kinds")]
    pub offers: Vec<Offer>,
}

/// What a peer can do for a digest.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum Offer {
    /// It has nothing, or does not say.
    #[n(0)]
    Nothing,
    /// It has all of it.
    #[n(1)]
    Whole {
        /// Bytes of the artifact.
        #[n(0)]
        size: u64,
        /// Root of its UnixFS layout: a claim, like all that a peer says.
        #[cbor(n(1), with = "codec::cid")]
        root: Cid,
        /// The block with that CID, which spares a round trip. Not verified.
        #[cbor(n(2), with = "codec::maybe_bytes", has_nil)]
        root_block: Option<Bytes>,
    },
    /// It is downloading it now.
    #[n(2)]
    Flying {
        /// Bytes of the artifact, if known.
        #[n(0)]
        size: Option<u64>,
        /// Bytes that are there.
        #[n(1)]
        ready: u64,
        /// Where it gets them: itself, when it asks the upstream.
        #[cbor(n(2), with = "codec::maybe_peer", has_nil)]
        of: Option<PeerId>,
    },
    /// It wants it too and has not begun.
    #[n(3)]
    Claimed {
        /// Whether the one who answers goes first.
        #[n(0)]
        first: bool,
    },
    /// A kind that only a later version knows: as good as nothing.
    #[n(0xffff_ffff)]
    Unknown(#[n(0)] u32),
}

/// What a peer has of one block that it was asked for: one for each hash of [`Open::Blocks`], in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum Held {
    /// It does not have it.
    #[n(0)]
    Nothing,
    /// It has it: its bytes follow this frame as they are.
    #[n(1)]
    Block {
        /// Bytes that follow, at most [`MOST_BLOCK_BYTES`].
        #[n(0)]
        length: u32,
    },
    /// A kind that only a later version knows: as good as nothing.
    #[n(0xffff_ffff)]
    Unknown(#[n(0)] u32),
}

/// How the catalogue of what may be shared changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct News {
    /// Grows by one a frame; a gap means that something was missed.
    #[n(0)]
    pub sequence: u64,
    /// Forget what was said before.
    #[n(1)]
    pub reset: bool,
    /// SHA-256 of artifacts that can be had now. With `removed` at most [`NEWS`].
    #[cbor(n(2), with = "codec::hashes")]
    pub added: Vec<Sha256>,
    /// SHA-256 of artifacts that cannot be had any more.
    #[cbor(n(3), with = "codec::hashes")]
    pub removed: Vec<Sha256>,
}

impl Open {
    /// Reads a frame's content.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let open = kind_from_frame("an opening", bytes)?;
        match &open {
            Self::Ask { digests, .. } => few("digests in a question", digests.len(), DIGESTS)?,
            Self::News(news) => news.check()?,
            Self::Blocks { hashes } => few("blocks in a question", hashes.len(), BLOCKS)?,
            Self::Take { .. } | Self::Unknown(_) => {}
        }
        Ok(open)
    }

    /// As a frame.
    pub fn frame(&self) -> Vec<u8> {
        to_frame(self)
    }
}

impl Offers {
    /// Reads a frame's content.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let answer: Self = from_frame("an answer", bytes)?;
        few("offers in an answer", answer.offers.len(), DIGESTS)?;
        Ok(answer)
    }

    /// As a frame. Root blocks that find no room in it any more are left out: they can be asked for.
    pub fn frame(&self) -> Vec<u8> {
        let mut room = FRAME_BYTES - OFFERS_OWN_BYTES;
        let mut answer = self.clone();
        for offer in &mut answer.offers {
            if let Offer::Whole { root_block, .. } = offer {
                match room.checked_sub(root_block.as_ref().map_or(0, Bytes::len)) {
                    Some(rest) => room = rest,
                    None => *root_block = None,
                }
            }
        }
        to_frame(&answer)
    }
}

impl Held {
    /// Reads a frame's content.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let held = kind_from_frame("what is held", bytes)?;
        match held {
            Self::Block { length } if length as usize > MOST_BLOCK_BYTES => {
                let limit = MOST_BLOCK_BYTES as u64;
                Err(WireError::TooLong { what: "a catalogue's block", bytes: length.into(), limit })
            }
            _ => Ok(held),
        }
    }

    /// As a frame.
    pub fn frame(&self) -> Vec<u8> {
        to_frame(self)
    }
}

impl News {
    /// Reads the content of a stream's second frame, or a later one. The first is an [`Open`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let news: Self = from_frame("news", bytes)?;
        news.check()?;
        Ok(news)
    }

    /// As a stream's second frame, or a later one.
    pub fn frame(&self) -> Vec<u8> {
        to_frame(self)
    }

    fn check(&self) -> Result<(), WireError> {
        few("entries in news", self.added.len() + self.removed.len(), NEWS)
    }
}

impl From<UnknownKind> for Open {
    fn from(kind: UnknownKind) -> Self {
        Self::Unknown(kind.0)
    }
}

impl From<UnknownKind> for Offer {
    fn from(kind: UnknownKind) -> Self {
        Self::Unknown(kind.0)
    }
}

impl From<UnknownKind> for Held {
    fn from(kind: UnknownKind) -> Self {
        Self::Unknown(kind.0)
    }
}

fn few(what: &'static str, count: usize, limit: usize) -> Result<(), WireError> {
    match count > limit {
        true => Err(WireError::TooMany { what, limit }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests;
