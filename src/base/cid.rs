//! CIDs of blocks: ours are version 1 with SHA-256, as `unixfs-v1-2025` (IPIP-499) demands; others are read.
//!
//! Follows the CID and multihash specifications of multiformats.

pub use cid::Cid;
use cid::multibase;
use cid::multihash::Multihash;

use super::Sha256;
use super::varint::{VarintError, read_varint};

/// Multicodec `raw`: a leaf.
pub const RAW: u64 = 0x55;
/// Multicodec `dag-pb`: a node with links.
pub const DAG_PB: u64 = 0x70;
/// Multicodec `dag-cbor`: a node of a catalogue.
pub const DAG_CBOR: u64 = 0x71;
/// Multihash `sha2-256`.
pub const SHA2_256: u64 = 0x12;
/// Multihash `identity`: the digest is the block.
pub const IDENTITY: u64 = 0x00;

/// Longest CID in bytes: what Kubo's bitswap takes.
pub const MOST_CID_BYTES: usize = 168;

/// Longest CID as text: base 2, the longest multibase, writes a byte as eight digits.
const MOST_CID_TEXT: usize = 8 * MOST_CID_BYTES + 1;

/// Longest digest in bytes that a [`Cid`] holds: SHA-512. Only identity "digests" are longer.
const MOST_DIGEST_BYTES: u64 = 64;

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

/// The CID of a dag-cbor block with this SHA-256.
pub fn dag_cbor_cid(sha256: Sha256) -> Cid {
    cid_v1(DAG_CBOR, sha256)
}

/// The SHA-256 that a CID of either version names its block by; `None` for other hashes.
pub fn sha256_of_cid(cid: &Cid) -> Option<Sha256> {
    let hash = cid.hash();
    let bytes = hash.digest().try_into().ok().filter(|_| hash.code() == SHA2_256)?;
    Some(Sha256(bytes))
}

/// Reads the CID at the start of `bytes`, of either version, and says how many bytes it takes.
pub fn read_cid(bytes: &[u8]) -> Result<(Cid, usize), CidError> {
    if let [0x12, 0x20, rest @ ..] = bytes {
        let digest = rest.get(..32).ok_or(CidError::Truncated)?;
        let hash = Multihash::wrap(SHA2_256, digest).expect("32 bytes fit a multihash");
        return Ok((Cid::new_v0(hash).expect("SHA-256 of 32 bytes is what version 0 has"), 34));
    }
    if bytes == [0x12] {
        return Err(CidError::Truncated);
    }
    let mut at = 0;
    let mut number = || match read_varint(&bytes[at..])? {
        Some((value, length)) => {
            at += length;
            Ok(value)
        }
        None => Err(CidError::Truncated),
    };
    let version = number()?;
    if version != 1 {
        return Err(CidError::Version(version));
    }
    let (codec, code, digest_bytes) = (number()?, number()?, number()?);
    if digest_bytes > MOST_DIGEST_BYTES {
        return Err(CidError::LongDigest { code, digest_bytes });
    }
    let end = at + digest_bytes as usize;
    let digest = bytes.get(at..end).ok_or(CidError::Truncated)?;
    let hash = Multihash::wrap(code, digest).expect("at most 64 bytes fit a multihash");
    Ok((Cid::new_v1(codec, hash), end))
}

/// The CID that these bytes are, of either version, all of them.
pub fn parse_cid(bytes: &[u8]) -> Result<Cid, CidError> {
    if bytes.len() > MOST_CID_BYTES {
        return Err(CidError::TooLong(bytes.len()));
    }
    match read_cid(bytes)? {
        (cid, length) if length == bytes.len() => Ok(cid),
        (_, length) => Err(CidError::Trailing(bytes.len() - length)),
    }
}

/// The CID that this text is: version 0 as base58 (`Qm…`), version 1 in any multibase.
pub fn parse_cid_text(text: &str) -> Result<Cid, CidError> {
    if text.len() > MOST_CID_TEXT {
        return Err(CidError::TooLong(text.len()));
    }
    if text.len() == 46 && text.starts_with("Qm") {
        let bytes = multibase::Base::Base58Btc.decode(text).map_err(|_| CidError::Text)?;
        return parse_cid(&bytes);
    }
    let (_, bytes) = multibase::decode(text).map_err(|_| CidError::Text)?;
    match parse_cid(&bytes)? {
        // The CID specification, "Decoding algorithm": version 0 has no multibase prefix.
        cid if cid.version() == cid::Version::V0 => Err(CidError::Version(0)),
        cid => Ok(cid),
    }
}

fn cid_v1(codec: u64, sha256: Sha256) -> Cid {
    Cid::new_v1(codec, Multihash::wrap(SHA2_256, &sha256.0).expect("32 bytes fit a multihash"))
}

/// Why bytes or a text are no CID, or none that we can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidError {
    /// More bytes or characters than a CID may have.
    #[error("a CID of {0} bytes is too long")]
    TooLong(usize),
    /// It ends too early.
    #[error("a CID is cut off")]
    Truncated,
    /// Bytes follow it.
    #[error("{0} bytes follow a CID")]
    Trailing(usize),
    /// Neither of the versions 0 and 1, or 0 where it is not allowed.
    #[error("a CID of version {0}")]
    Version(u64),
    /// A digest longer than any hash makes; an identity CID may have one, and holds the block itself.
    #[error("a CID with a digest of {digest_bytes} bytes (hash {code:#x})")]
    LongDigest {
        /// Multihash code.
        code: u64,
        /// As stated.
        digest_bytes: u64,
    },
    /// A number in it is none.
    #[error("a CID with a wrong number in it")]
    Varint(#[from] VarintError),
    /// Not multibase.
    #[error("a CID that is no multibase text")]
    Text,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HELLO: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";

    #[test]
    fn both_versions_are_read() {
        let hash = Sha256::of(b"hello world");
        let v1 = parse_cid_text(HELLO).unwrap();
        assert_eq!(v1, raw_cid(hash));
        let v0 = Cid::new_v0(*dag_pb_cid(hash).hash()).unwrap();
        assert_eq!(parse_cid_text(&v0.to_string()).unwrap(), v0);
        for cid in [v0, v1] {
            let bytes = cid.to_bytes();
            assert_eq!(parse_cid(&bytes), Ok(cid));
            let longer = [&bytes[..], b"block"].concat();
            assert_eq!(read_cid(&longer), Ok((cid, bytes.len())));
            assert_eq!(parse_cid(&longer), Err(CidError::Trailing(5)));
            for end in 0..bytes.len() {
                assert_eq!(read_cid(&bytes[..end]), Err(CidError::Truncated), "{end}");
            }
        }
    }

    #[test]
    fn what_is_no_cid() {
        let cases: [(&[u8], CidError); 6] = [
            (&[0], CidError::Version(0)),
            (&[2, 0x55, 0x12, 0x20], CidError::Version(2)),
            (&[1, 0x55, 0, 65], CidError::LongDigest { code: 0, digest_bytes: 65 }),
            (&[1, 0xd5, 0x80, 0x00], CidError::Varint(VarintError::NotMinimal)),
            (&[1; 169], CidError::TooLong(169)),
            (
                &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f],
                CidError::Varint(VarintError::TooLong),
            ),
        ];
        for (bytes, want) in cases {
            assert_eq!(parse_cid(bytes), Err(want), "{bytes:02x?}");
        }
        for (text, want) in [
            ("", CidError::Text),
            ("/ipfs/bafkqaaa", CidError::Text),
            ("bafkre!", CidError::Text),
            ("bafkre", CidError::Truncated),
        ] {
            assert_eq!(parse_cid_text(text), Err(want), "{text}");
        }
        assert!(parse_cid_text(&format!("Qm{}", "1".repeat(44))).is_err(), "no SHA-256");
        assert_eq!(parse_cid_text(&"z".repeat(2000)), Err(CidError::TooLong(2000)));
        assert!(parse_cid_text("bafkqaaa").is_ok(), "an identity CID of nothing");
    }
}
