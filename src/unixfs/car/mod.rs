//! CAR files: blocks one after the other, to be carried elsewhere (IPLD, "CARv1" and "CARv2").
//!
//! Version 1 is written, both are read. A file is a header, then sections: a length, a CID, the block. Whoever writes
//! puts [`header`] first and then, block by block, [`section`] and the block itself, which so never has to be copied.

mod reader;

pub use reader::{Block, Reader};

use minicbor::Encoder;
use minicbor::data::Tag;

use crate::base::varint::put_varint;
use crate::base::{Cid, CidError};

/// Largest header in bytes: 1,500 roots.
const HEADER_BYTES: u64 = 64 << 10;

/// Tag of a CID in DAG-CBOR (DAG-CBOR specification, "Links").
const CID_TAG: u64 = 42;

/// What stands before a CID under that tag: multibase's identity prefix, a relict.
const CID_PREFIX: u8 = 0;

/// The start of a CARv1 file with these roots.
///
/// A reader of ours takes 1,500 of them, more than anybody writes.
pub fn header(roots: &[Cid]) -> Vec<u8> {
    let mut cbor = Encoder::new(Vec::with_capacity(64 + 48 * roots.len()));
    let write = |cbor: &mut Encoder<Vec<u8>>| {
        // DAG-CBOR: shorter keys stand first.
        cbor.map(2)?.str("roots")?.array(roots.len() as u64)?;
        for root in roots {
            let mut bytes = vec![CID_PREFIX];
            bytes.extend_from_slice(&root.to_bytes());
            cbor.tag(Tag::new(CID_TAG))?.bytes(&bytes)?;
        }
        cbor.str("version")?.u8(1)?.ok()
    };
    write(&mut cbor).expect("encoding into memory cannot fail");
    let cbor = cbor.into_writer();
    let mut out = Vec::with_capacity(cbor.len() + 3);
    put_varint(&mut out, cbor.len() as u64);
    out.extend_from_slice(&cbor);
    out
}

/// What stands before the bytes of a block.
pub fn section(cid: &Cid, block_bytes: u64) -> Vec<u8> {
    let cid = cid.to_bytes();
    let mut out = Vec::with_capacity(cid.len() + 4);
    put_varint(&mut out, cid.len() as u64 + block_bytes);
    out.extend_from_slice(&cid);
    out
}

/// What is wrong with a CAR file. Positions are bytes from its start.
#[derive(Debug, thiserror::Error)]
pub enum CarError {
    /// It cannot be read.
    #[error("reading a CAR file failed at byte {at}")]
    Io {
        /// Where.
        at: u64,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It ends too early. All blocks before were whole.
    #[error("the CAR file is cut off: it ends at byte {at}, within {what}")]
    Truncated {
        /// Where it ends.
        at: u64,
        /// Within what.
        what: &'static str,
    },
    /// No CAR file, or a damaged one.
    #[error("byte {at} of the CAR file: {why}")]
    Malformed {
        /// Where what is wrong begins.
        at: u64,
        /// Why.
        why: &'static str,
    },
    /// A version later than 2.
    #[error("a CAR file of version {0}; 1 and 2 can be read")]
    Version(u64),
    /// Larger than a header or a block may be.
    #[error("byte {at} of the CAR file: {what} of {bytes} bytes, {limit} are allowed")]
    TooLong {
        /// Where it begins.
        at: u64,
        /// What.
        what: &'static str,
        /// As stated.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A CID that is none.
    #[error("byte {at} of the CAR file: {source}")]
    Cid {
        /// Where its section, or the header, begins.
        at: u64,
        /// Why.
        source: CidError,
    },
    /// A block whose bytes do not have the hash in its CID.
    #[error("byte {at} of the CAR file: the block is not {cid}")]
    WrongBlock {
        /// Where its section begins.
        at: u64,
        /// What it should be.
        cid: Cid,
    },
    /// A block named by a hash function that we do not verify by.
    #[error("byte {at} of the CAR file: {cid} has the hash {hash:#x}, which is not SHA-256")]
    UnknownHash {
        /// Where its section begins.
        at: u64,
        /// What it is.
        cid: Cid,
        /// Multihash code.
        hash: u64,
    },
}

#[cfg(test)]
mod tests;
