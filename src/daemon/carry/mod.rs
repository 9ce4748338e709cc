//! A cache on a stick: what is stored as one CAR file, and back.
//!
//! A CARv1 file whose first root is a manifest in DAG-CBOR. The manifest links to its parts, each part to the files
//! that it describes, so that any IPFS node takes the whole with one pin. Blocks stand in the order in which they are
//! needed: the manifest; then each part and, file by file and depth first, what it describes. Whoever reads takes them
//! one at a time, and each file by itself.
//!
//! What is carried are bytes, which their hashes prove, and pages of indexes, which nothing proves (see
//! [`crate::resolve::Adopted`]).

mod export;
mod import;

pub use export::Choice;
pub(super) use export::{Chosen, export};
pub(super) use import::import;

use minicbor::data::Tag;
use minicbor::decode::Error as DecodeError;
use minicbor::encode::{Error as EncodeError, Write as CborWrite};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::base::{Cid, Sha256, parse_cid, raw_cid};

/// Multicodec `dag-cbor`.
const DAG_CBOR: u64 = 0x71;

/// What a manifest says it is.
const KIND: &str = "dpm-export";

/// Bumped when an older dpm would misread what this one writes.
const VERSION: u32 = 1;

/// Most artifacts, and most pages, of one export: they are listed in memory, some 300 bytes each by estimate.
pub(super) const MOST_FILES: usize = 200_000;

/// Files that are left out and named one by one; the others are counted.
const MOST_NAMED: usize = 100;

/// Bytes of a part after which the next one begins: one more entry stays far below what a block may have.
const PART_BYTES: usize = 512 << 10;

/// Largest page in bytes that is taken, in its stored form: twice what an upstream may send.
const PAGE_BYTES: u64 = 2 * crate::base::limits::INDEX_BYTES;

/// The first root. Arrays, in which later versions may only append.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Manifest {
    /// [`KIND`].
    #[n(0)]
    kind: String,
    /// [`VERSION`].
    #[n(1)]
    version: u32,
    /// Milliseconds since the epoch.
    #[n(2)]
    made_at: u64,
    /// How many there are in all parts.
    #[n(3)]
    artifacts: u64,
    /// Of all of them.
    #[n(4)]
    artifact_bytes: u64,
    /// How many there are in all parts.
    #[n(5)]
    pages: u64,
    #[n(6)]
    parts: Vec<Link>,
}

/// Some of what is carried; its files follow it, the pages first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct Part {
    #[n(0)]
    pages: Vec<PageEntry>,
    #[n(1)]
    artifacts: Vec<ArtifactEntry>,
}

/// A page of an index.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct PageEntry {
    /// Its stored form, as a file.
    #[n(0)]
    root: Link,
    #[n(1)]
    size: u64,
    /// Of the project.
    #[n(2)]
    name: String,
    #[n(3)]
    upstream: String,
    #[n(4)]
    url: String,
    /// Milliseconds since the epoch.
    #[n(5)]
    checked_at: u64,
    #[n(6)]
    private: bool,
}

/// An artifact.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
struct ArtifactEntry {
    #[n(0)]
    root: Link,
    #[n(1)]
    size: u64,
    #[cbor(n(2), with = "minicbor::bytes")]
    sha256: [u8; 32],
    /// Other strong digests, as `algorithm:hex`.
    #[n(3)]
    digests: Vec<String>,
    #[n(4)]
    filename: String,
    #[n(5)]
    upstream: String,
    #[n(6)]
    url: String,
    #[n(7)]
    private: bool,
}

/// A CID as DAG-CBOR has it (DAG-CBOR specification, "Links").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Link(Cid);

/// Tag of a CID.
const CID_TAG: Tag = Tag::new(42);

impl<C> Encode<C> for Link {
    fn encode<W: CborWrite>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), EncodeError<W::Error>> {
        // Multibase's identity prefix, a relict.
        let mut bytes = vec![0];
        bytes.extend_from_slice(&self.0.to_bytes());
        e.tag(CID_TAG)?.bytes(&bytes)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Link {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, DecodeError> {
        if d.tag()? != CID_TAG {
            return Err(DecodeError::message("not a link"));
        }
        match d.bytes()? {
            [0, cid @ ..] => parse_cid(cid).map(Self).map_err(|_| DecodeError::message("a link to nothing")),
            _ => Err(DecodeError::message("a link without its prefix")),
        }
    }
}

/// A block in DAG-CBOR.
fn block(value: &impl Encode<()>) -> (Cid, Vec<u8>) {
    let bytes = minicbor::to_vec(value).expect("encoding into memory cannot fail");
    (Cid::new_v1(DAG_CBOR, *raw_cid(Sha256::of(&bytes)).hash()), bytes)
}

/// Why nothing, or no more, can be carried.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// No export of dpm, but perhaps some other CAR file.
    #[error("this is no export of dpm: {0}")]
    NotOurs(&'static str),
    /// Made by a later version.
    #[error("this export has version {0}, this dpm reads version {VERSION}: use the newer dpm")]
    Newer(u32),
    /// More than the store may have.
    #[error(
        "the export has {bytes} bytes of artifacts, the budget of this store is {budget}: raise `budget` in [store]"
    )]
    Budget {
        /// What is in it.
        bytes: u64,
        /// What may be stored.
        budget: u64,
    },
    /// More than can be listed.
    #[error("there are more than {MOST_FILES} artifacts or pages: export fewer at a time")]
    TooMany,
    /// Nothing to carry.
    #[error("nothing is stored of {0}")]
    Nothing(String),
    /// The CAR file cannot be read, from its start on.
    #[error(transparent)]
    Car(#[from] crate::unixfs::car::CarError),
    /// It cannot be written.
    #[error("writing the CAR file failed: {0}")]
    Write(#[source] std::io::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_dag_cbor_and_is_read() {
        let link = Link(raw_cid(Sha256::of(b"x")));
        let manifest = Manifest {
            kind: KIND.into(),
            version: VERSION,
            made_at: 1,
            artifacts: 2,
            artifact_bytes: 3,
            pages: 4,
            parts: vec![link],
        };
        let (cid, bytes) = block(&manifest);
        assert_eq!(minicbor::decode::<Manifest>(&bytes).unwrap(), manifest);
        assert_eq!(cid.codec(), DAG_CBOR);
        // An array of 7; the text; five numbers; an array of one link: tag 42, 37 bytes, the first of them 0.
        let head =
            [&[0x87, 0x6a][..], KIND.as_bytes(), &[1, 1, 2, 3, 4, 0x81, 0xd8, 42, 0x58, 37, 0, 1, 0x55]];
        assert_eq!(bytes[..head.concat().len()], head.concat());
        let part = Part {
            pages: vec![PageEntry {
                root: link,
                size: 1,
                name: "a".into(),
                upstream: "pypi".into(),
                url: "u".into(),
                checked_at: 7,
                private: false,
            }],
            artifacts: vec![ArtifactEntry {
                root: link,
                size: 1,
                sha256: [7; 32],
                digests: vec![],
                filename: "f".into(),
                upstream: "pypi".into(),
                url: "u".into(),
                private: true,
            }],
        };
        assert_eq!(minicbor::decode::<Part>(&block(&part).1).unwrap(), part);
        // Whatever the bytes, no panic.
        for end in 0..bytes.len() {
            assert!(minicbor::decode::<Manifest>(&bytes[..end]).is_err());
        }
    }
}
