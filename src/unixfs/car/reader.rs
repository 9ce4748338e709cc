//! Reads a CAR file block by block.

use std::io::{self, BufReader, Read};

use bytes::Bytes;
use minicbor::Decoder;
use minicbor::data::{Tag, Type};

use crate::base::limits::BLOCK_BYTES;
use crate::base::varint::{MOST_VARINT_BYTES, read_varint};
use crate::base::{Cid, IDENTITY, MOST_CID_BYTES, Sha256, parse_cid, read_cid, sha256_of_cid};

use super::{CID_PREFIX, CID_TAG, CarError, HEADER_BYTES};

/// The header that announces version 2, and the only one that does.
const PRAGMA: &[u8] = b"\x0a\xa1\x67version\x02";

/// What follows it: characteristics, then offset and size of the data and offset of the index, little endian.
const V2_HEADER_BYTES: usize = 40;

/// Blocks of a CAR file, one at a time, however large it is. Of version 2 only the data is read, not the index.
pub struct Reader<R: Read> {
    input: BufReader<R>,
    /// Bytes read so far.
    at: u64,
    /// Where the sections end; known in version 2.
    end: Option<u64>,
    roots: Vec<Cid>,
}

/// A block of a CAR file, not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What it says it is.
    pub cid: Cid,
    /// Its bytes, at most [`BLOCK_BYTES`].
    pub data: Bytes,
    /// Where its section begins, in bytes from the start of the file.
    pub at: u64,
}

impl Block {
    /// Whether its bytes have the hash in its CID: SHA-256, or an identity "hash".
    pub fn verify(&self) -> Result<(), CarError> {
        let Self { cid, at, .. } = *self;
        let right = match sha256_of_cid(&cid) {
            Some(sha256) => Sha256::of(&self.data) == sha256,
            None if cid.hash().code() == IDENTITY => *cid.hash().digest() == *self.data,
            None => return Err(CarError::UnknownHash { at, cid, hash: cid.hash().code() }),
        };
        match right {
            true => Ok(()),
            false => Err(CarError::WrongBlock { at, cid }),
        }
    }
}

impl<R: Read> Reader<R> {
    /// Reads the header. The input is buffered here.
    pub fn open(input: R) -> Result<Self, CarError> {
        let mut reader = Self { input: BufReader::new(input), at: 0, end: None, roots: Vec::new() };
        let header = reader.header()?;
        match header.version {
            1 => reader.roots = header.roots,
            2 => reader.enter_v2()?,
            other => return Err(CarError::Version(other)),
        }
        Ok(reader)
    }

    /// The CIDs that the file is about. Nothing says that their blocks are in it.
    pub fn roots(&self) -> &[Cid] {
        &self.roots
    }

    /// The next block; `None` at the end. After an error nothing more can be read.
    pub fn next_block(&mut self) -> Result<Option<Block>, CarError> {
        if self.end.is_some_and(|end| self.at >= end) {
            return Ok(None);
        }
        let at = self.at;
        let Some(length) = self.length("the length of a section")? else {
            return match self.end {
                Some(_) => Err(CarError::Truncated { at: self.at, what: "its data" }),
                None => Ok(None),
            };
        };
        if length == 0 {
            return Err(CarError::Malformed { at, why: "a section of no bytes" });
        }
        let limit = BLOCK_BYTES + MOST_CID_BYTES as u64;
        if length > limit {
            return Err(CarError::TooLong { at, what: "a section", bytes: length, limit });
        }
        if self.end.is_some_and(|end| end - self.at.min(end) < length) {
            return Err(CarError::Malformed {
                at,
                why: "a section that reaches beyond the data of the file",
            });
        }
        let section = Bytes::from(self.take(length, "a section")?);
        let (cid, cid_bytes) = read_cid(&section).map_err(|source| CarError::Cid { at, source })?;
        let data = section.slice(cid_bytes..);
        if data.len() as u64 > BLOCK_BYTES {
            let bytes = data.len() as u64;
            return Err(CarError::TooLong { at, what: "a block", bytes, limit: BLOCK_BYTES });
        }
        Ok(Some(Block { cid, data, at }))
    }

    /// The pragma has been read: goes to the data and reads its header.
    fn enter_v2(&mut self) -> Result<(), CarError> {
        let at = self.at;
        if at != PRAGMA.len() as u64 {
            return Err(CarError::Malformed { at: 0, why: "not the one header that version 2 has" });
        }
        let fixed = self.take(V2_HEADER_BYTES as u64, "the header of version 2")?;
        let number = |n: usize| u64::from_le_bytes(fixed[n..n + 8].try_into().expect("8 bytes"));
        let (offset, size) = (number(16), number(24));
        let end = offset.checked_add(size).filter(|_| offset >= self.at);
        let end = end.ok_or(CarError::Malformed { at, why: "data where there can be none" })?;
        self.skip(offset - self.at)?;
        self.end = Some(end);
        let header = self.header()?;
        if header.version != 1 {
            return Err(CarError::Malformed { at: offset, why: "data that is not of version 1" });
        }
        if self.at > end {
            return Err(CarError::Malformed { at: offset, why: "a header longer than the data" });
        }
        self.roots = header.roots;
        Ok(())
    }

    fn header(&mut self) -> Result<Header, CarError> {
        let at = self.at;
        let length = self.length("the length of its header")?;
        let length = length.ok_or(CarError::Truncated { at, what: "the length of its header" })?;
        if length == 0 || length > HEADER_BYTES {
            // What begins with neither is hardly a CAR file at all.
            let (what, limit) = ("a header", HEADER_BYTES);
            return Err(CarError::TooLong { at, what, bytes: length, limit });
        }
        let bytes = self.take(length, "its header")?;
        Header::decode(&bytes, at)
    }

    /// A varint; `None` where the input ends before it.
    fn length(&mut self, what: &'static str) -> Result<Option<u64>, CarError> {
        let start = self.at;
        let (mut bytes, mut filled) = ([0; MOST_VARINT_BYTES], 0);
        loop {
            match read_varint(&bytes[..filled]) {
                Ok(Some((value, _))) => return Ok(Some(value)),
                Ok(None) => {}
                Err(_) => return Err(CarError::Malformed { at: start, why: "a length that is no number" }),
            }
            match self.input.read(&mut bytes[filled..=filled]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(CarError::Truncated { at: self.at, what }),
                Ok(_) => {
                    filled += 1;
                    self.at += 1;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(CarError::Io { at: self.at, source }),
            }
        }
    }

    /// Exactly that many bytes, which the caller has held against a limit.
    fn take(&mut self, length: u64, what: &'static str) -> Result<Vec<u8>, CarError> {
        let mut bytes = Vec::with_capacity(length as usize);
        let read = self.input.by_ref().take(length).read_to_end(&mut bytes);
        self.at += bytes.len() as u64;
        read.map_err(|source| CarError::Io { at: self.at, source })?;
        match bytes.len() as u64 == length {
            true => Ok(bytes),
            false => Err(CarError::Truncated { at: self.at, what }),
        }
    }

    fn skip(&mut self, length: u64) -> Result<(), CarError> {
        let skipped = io::copy(&mut self.input.by_ref().take(length), &mut io::sink());
        let skipped = skipped.map_err(|source| CarError::Io { at: self.at, source })?;
        self.at += skipped;
        match skipped == length {
            true => Ok(()),
            false => Err(CarError::Truncated { at: self.at, what: "the padding before its data" }),
        }
    }
}

/// A header as DAG-CBOR: `{"roots": [CID, …], "version": 1}`.
struct Header {
    version: u64,
    roots: Vec<Cid>,
}

impl Header {
    fn decode(bytes: &[u8], at: u64) -> Result<Self, CarError> {
        let malformed = |_| CarError::Malformed { at, why: "a header that is not DAG-CBOR" };
        let mut cbor = Decoder::new(bytes);
        let (mut version, mut roots) = (None, None);
        let keys = cbor.map().map_err(malformed)?;
        let keys = keys.ok_or(CarError::Malformed { at, why: "a header that is not DAG-CBOR" })?;
        for _ in 0..keys {
            match cbor.str().map_err(malformed)? {
                "version" => version = Some(cbor.u64().map_err(malformed)?),
                "roots" => roots = Some(read_roots(&mut cbor, at)?),
                _ => cbor.skip().map_err(malformed)?,
            }
        }
        if cbor.position() != bytes.len() {
            return Err(CarError::Malformed { at, why: "bytes after the header, within its length" });
        }
        let version = version.ok_or(CarError::Malformed { at, why: "a header without a version" })?;
        match (version, roots) {
            (1, None) => Err(CarError::Malformed { at, why: "a header without roots" }),
            (_, roots) => Ok(Self { version, roots: roots.unwrap_or_default() }),
        }
    }
}

fn read_roots(cbor: &mut Decoder<'_>, at: u64) -> Result<Vec<Cid>, CarError> {
    let malformed = |_| CarError::Malformed { at, why: "roots that are not a list of CIDs" };
    let wrong = CarError::Malformed { at, why: "roots that are not a list of CIDs" };
    let Some(count) = cbor.array().map_err(malformed)? else { return Err(wrong) };
    let mut roots = Vec::new();
    for _ in 0..count {
        let tagged = cbor.datatype().is_ok_and(|t| t == Type::Tag)
            && cbor.tag().map_err(malformed)? == Tag::new(CID_TAG);
        match tagged.then(|| cbor.bytes().map_err(malformed)).transpose()? {
            Some([CID_PREFIX, cid @ ..]) => {
                roots.push(parse_cid(cid).map_err(|source| CarError::Cid { at, source })?);
            }
            _ => return Err(wrong),
        }
    }
    Ok(roots)
}
