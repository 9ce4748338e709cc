//! The timeline event about packages that a node just got, many in one: what a catalogue says anyway, sooner.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use serde::{Deserialize, Serialize};

use super::node::root;
use super::sign::{Context, check, message, owner, pack, signed, unpack};
use super::{MOST_READ_BYTES, MOST_WRITTEN_BYTES, RoomError, VERSION, integer, read};
use crate::base::cbor::{CborReader, CborWriter};
use crate::base::{PackageUrl, PeerId, PeerKey, Sha256};
use crate::catalogue::{Entry, EntryError, MOST_FILE_BYTES, Root, list, read_list};

const DOMAIN: &str = "dpm-room-packages-v1";

/// Most packages in one event, added and removed together: three times what was seen to fit.
pub const MOST_ANNOUNCED: usize = 2048;

/// Most bytes that an event's packages have when unpacked: [`MOST_ANNOUNCED`] of 512, more than double the usual.
const MOST_UNPACKED_BYTES: usize = 1 << 20;

/// Bytes of a content that are not packed packages: a peer id, a key, a CID, a signature by RSA of 4,096 bits.
const OTHER_BYTES: usize = 2500;

/// Most bytes of packed packages that are written: base64 makes four of three.
const MOST_PACKED_BYTES: usize = (MOST_WRITTEN_BYTES - OTHER_BYTES) / 4 * 3;

/// Packages that a node just got, or no longer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packages {
    /// Whose.
    pub peer: PeerId,
    /// The catalogue that has these changes.
    pub root: Root,
    /// Of the node's state event that names this root, or will.
    pub sequence: u64,
    /// New, or changed.
    pub added: Vec<Entry>,
    /// No longer there: package and file.
    pub removed: Vec<(PackageUrl, String)>,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    version: u64,
    peer: String,
    key: String,
    root: String,
    entries: u64,
    sequence: u64,
    packages: String,
    signature: String,
}

impl Packages {
    /// Reads and verifies a content.
    pub fn read(json: &[u8], context: &Context<'_>) -> Result<Self, RoomError> {
        let raw: Raw = read(json)?;
        let (peer, key) = owner(&raw.peer, &raw.key)?;
        let root = root(&raw.root, integer("entries", raw.entries)?)?;
        let sequence = integer("sequence", raw.sequence)?;
        let packed = unpack("the packages", &raw.packages, MOST_READ_BYTES)?;
        // The signature first: unpacking is work.
        check(context, &key, &signed_message(context, &peer, &root, sequence, &packed), &raw.signature)?;
        let (added, removed) = inflate(&packed)?;
        Ok(Self { peer, root, sequence, added, removed })
    }

    /// Writes and signs as many contents as all of it takes, each within [`MOST_WRITTEN_BYTES`].
    pub fn write(
        &self,
        context: &Context<'_>,
        key: &PeerKey,
        sign: impl Fn(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<Vec<String>, RoomError> {
        let (mut added, mut removed) = (&self.added[..], &self.removed[..]);
        let (mut contents, mut most) = (Vec::new(), MOST_ANNOUNCED);
        while !added.is_empty() || !removed.is_empty() {
            let (now, then) = added.split_at(added.len().min(most));
            let (now_gone, then_gone) = removed.split_at(removed.len().min(most - now.len()));
            let (packed, unpacked_bytes) = deflate(now, now_gone);
            let too_long = packed.len() > MOST_PACKED_BYTES || unpacked_bytes > MOST_UNPACKED_BYTES;
            if too_long && most > 1 {
                // A little below what these sizes suggest, so that the next try fits.
                let count = now.len() + now_gone.len();
                let fit = (count * MOST_PACKED_BYTES / packed.len())
                    .min(count * MOST_UNPACKED_BYTES / unpacked_bytes);
                most = (fit * 19 / 20).clamp(1, most - 1);
                continue;
            }
            let raw = Raw {
                version: VERSION,
                peer: self.peer.to_string(),
                key: pack(&key.to_bytes()),
                root: self.root.cid().to_string(),
                entries: self.root.entries,
                sequence: integer("sequence", self.sequence)?,
                packages: pack(&packed),
                signature: signed(
                    &signed_message(context, &self.peer, &self.root, self.sequence, &packed),
                    &sign,
                )?,
            };
            contents.push(serde_json::to_string(&raw).map_err(|e| RoomError::Json(e.to_string()))?);
            (added, removed) = (then, then_gone);
        }
        Ok(contents)
    }
}

/// What is signed: 4 root (its CID's bytes), 5 entries, 6 sequence, 7 SHA-256 of the packed packages.
fn signed_message(
    context: &Context<'_>,
    peer: &PeerId,
    root: &Root,
    sequence: u64,
    packed: &[u8],
) -> CborWriter {
    let mut out = message(DOMAIN, context, peer, 4);
    out.uint(4).bytes(&root.cid().to_bytes()).uint(5).uint(root.entries).uint(6).uint(sequence);
    out.uint(7).bytes(&Sha256::of(packed).0);
    out
}

/// `{"a": [entry, …], "r": [[purl, file], …]}`, compressed (zlib, RFC 1950): half the size, names repeat.
///
/// Also says how long it was before.
fn deflate(added: &[Entry], removed: &[(PackageUrl, String)]) -> (Vec<u8>, usize) {
    let mut out = CborWriter::default();
    out.map(2).text("a");
    list(added, &mut out);
    out.text("r").array(removed.len());
    for (purl, file) in removed {
        out.array(2).text(purl.as_str()).text(file);
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    let packed = encoder.write_all(&out.0).and_then(|()| encoder.finish());
    (packed.expect("memory takes what is written"), out.0.len())
}

type Changes = (Vec<Entry>, Vec<(PackageUrl, String)>);

fn inflate(packed: &[u8]) -> Result<Changes, RoomError> {
    let mut bytes = Vec::new();
    let inflated = ZlibDecoder::new(packed).take(MOST_UNPACKED_BYTES as u64 + 1).read_to_end(&mut bytes);
    inflated.map_err(|_| RoomError::Field { what: "the packages", why: "not zlib" })?;
    if bytes.len() > MOST_UNPACKED_BYTES {
        let (bytes, limit) = (bytes.len(), MOST_UNPACKED_BYTES);
        return Err(RoomError::TooLong { what: "what is packed", bytes, limit });
    }
    let mut reader = CborReader::new(&bytes);
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    let mut map = reader.map()?;
    while let Some(key) = map.key(&mut reader, CborReader::text)? {
        match key {
            "a" => added = read_list(&mut reader, MOST_ANNOUNCED)?,
            "r" => removed = read_removed(&mut reader)?,
            _ => reader.skip()?,
        }
    }
    reader.end()?;
    match added.len() + removed.len() > MOST_ANNOUNCED {
        true => Err(RoomError::TooMany { what: "packages", limit: MOST_ANNOUNCED }),
        false => Ok((added, removed)),
    }
}

fn read_removed(reader: &mut CborReader<'_>) -> Result<Vec<(PackageUrl, String)>, RoomError> {
    let count = reader.array()?;
    if count > MOST_ANNOUNCED {
        return Err(RoomError::TooMany { what: "packages", limit: MOST_ANNOUNCED });
    }
    let mut removed = Vec::with_capacity(count);
    for _ in 0..count {
        if reader.array()? != 2 {
            return Err(RoomError::Field { what: "a removed package", why: "not a URL and a file" });
        }
        let purl = PackageUrl::parse(reader.text()?).map_err(EntryError::from)?;
        let file = reader.text()?;
        if file.len() > MOST_FILE_BYTES {
            return Err(EntryError::File.into());
        }
        removed.push((purl, file.to_owned()));
    }
    Ok(removed)
}
