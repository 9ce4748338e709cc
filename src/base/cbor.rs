//! Deterministic CBOR (RFC 8949 §4.2.1), read strictly: what a hash or a signature covers has one form only.
//!
//! The subset that DAG-CBOR and dpm's signed messages use: integers from 0, byte and text strings, arrays, maps, tag
//! 42 (a CID), booleans and null. Lengths are definite, heads the shortest there are, keys of maps sorted and unique.

use super::{Cid, parse_cid};

/// Deepest nesting of a value that is passed over unread.
const MOST_NESTING: usize = 16;

/// Tag of a CID (DAG-CBOR specification, "Links").
const CID_TAG: u64 = 42;

const UINT: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;

/// Reads values one after the other.
#[derive(Clone, Debug)]
pub struct CborReader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> CborReader<'b> {
    /// At the start of `bytes`.
    pub fn new(bytes: &'b [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Checks that all was read.
    pub fn end(&self) -> Result<(), CborError> {
        match self.bytes.len() - self.at {
            0 => Ok(()),
            more => Err(CborError::Trailing(more)),
        }
    }

    /// An integer from 0.
    pub fn uint(&mut self) -> Result<u64, CborError> {
        self.head_of(UINT, "a number")
    }

    /// A string of bytes.
    pub fn bytes(&mut self) -> Result<&'b [u8], CborError> {
        let length = self.head_of(BYTES, "bytes")?;
        self.take(length)
    }

    /// A text.
    pub fn text(&mut self) -> Result<&'b str, CborError> {
        let length = self.head_of(TEXT, "a text")?;
        let at = self.at;
        std::str::from_utf8(self.take(length)?).map_err(|_| CborError::NotUtf8(at))
    }

    /// The head of an array: how many values follow.
    ///
    /// Never more than there are bytes left, so that a count is no reason to set memory aside.
    pub fn array(&mut self) -> Result<usize, CborError> {
        let count = self.head_of(ARRAY, "an array")?;
        self.fits(count, 1)
    }

    /// The head of a map.
    pub fn map(&mut self) -> Result<CborMap<'b>, CborError> {
        let count = self.head_of(MAP, "a map")?;
        Ok(CborMap { left: self.fits(count, 2)?, last: &[] })
    }

    /// A CID: tag 42 around a byte string that begins with a zero.
    pub fn cid(&mut self) -> Result<Cid, CborError> {
        let at = self.at;
        if self.head_of(TAG, "a CID")? != CID_TAG {
            return Err(CborError::Expected { at, what: "a CID" });
        }
        let cid = match self.bytes()? {
            [0, cid @ ..] => parse_cid(cid).ok(),
            _ => None,
        };
        cid.ok_or(CborError::Expected { at, what: "a CID" })
    }

    /// Passes over a CID. One of the usual kind (version 1, a codec of one byte, SHA-256) is known by its looks: a
    /// lookup in a catalogue passes over dozens.
    fn skip_cid(&mut self) -> Result<(), CborError> {
        const USUAL_BYTES: usize = 41;
        let usual = self.bytes[self.at..].first_chunk::<USUAL_BYTES>();
        if let Some([0xd8, 42, 0x58, 37, 0, 1, 0..0x80, 0x12, 32, ..]) = usual {
            self.at += USUAL_BYTES;
            return Ok(());
        }
        self.cid().map(drop)
    }

    /// The 32 bytes of a hash behind a head that is always the same: a CID of one kind.
    pub fn raw_after(&mut self, head: &[u8]) -> Result<[u8; 32], CborError> {
        let at = self.at;
        let rest = self.bytes[at..].strip_prefix(head).and_then(|rest| rest.first_chunk());
        let hash = rest.ok_or(CborError::Expected { at, what: "a CID of the right kind" })?;
        self.at += head.len() + hash.len();
        Ok(*hash)
    }

    /// Passes over one value of any kind of the subset, which it checks.
    pub fn skip(&mut self) -> Result<(), CborError> {
        self.skip_within(MOST_NESTING)
    }

    fn skip_within(&mut self, nesting: usize) -> Result<(), CborError> {
        let nesting = nesting.checked_sub(1).ok_or(CborError::TooDeep(self.at))?;
        match self.peek()? >> 5 {
            UINT => self.uint().map(drop),
            NEGATIVE => self.head_of(NEGATIVE, "a number").map(drop),
            BYTES => self.bytes().map(drop),
            TEXT => self.text().map(drop),
            TAG => self.skip_cid(),
            ARRAY => (0..self.array()?).try_for_each(|_| self.skip_within(nesting)),
            MAP => {
                let mut map = self.map()?;
                while map.key(self, Self::skip)?.is_some() {
                    self.skip_within(nesting)?;
                }
                Ok(())
            }
            _ => match self.peek()? {
                // false, true, null.
                0xf4..=0xf6 => {
                    self.at += 1;
                    Ok(())
                }
                _ => Err(CborError::Expected { at: self.at, what: "a value of DAG-CBOR" }),
            },
        }
    }

    fn fits(&self, count: u64, least_bytes: usize) -> Result<usize, CborError> {
        let most = (self.bytes.len() - self.at) / least_bytes;
        usize::try_from(count).ok().filter(|count| *count <= most).ok_or(CborError::Truncated)
    }

    fn peek(&self) -> Result<u8, CborError> {
        self.bytes.get(self.at).copied().ok_or(CborError::Truncated)
    }

    fn take(&mut self, length: u64) -> Result<&'b [u8], CborError> {
        let length = usize::try_from(length).map_err(|_| CborError::Truncated)?;
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..length).ok_or(CborError::Truncated)?;
        self.at += length;
        Ok(taken)
    }

    fn head_of(&mut self, major: u8, what: &'static str) -> Result<u64, CborError> {
        let at = self.at;
        let first = self.peek()?;
        if first >> 5 != major {
            return Err(CborError::Expected { at, what });
        }
        self.at += 1;
        let (value, least) = match first & 0x1f {
            small @ 0..24 => return Ok(small.into()),
            24 => (self.number::<1>()?, 24),
            25 => (self.number::<2>()?, 1 << 8),
            26 => (self.number::<4>()?, 1 << 16),
            27 => (self.number::<8>()?, 1 << 32),
            _ => return Err(CborError::Indefinite(at)),
        };
        if value < least { Err(CborError::NotShortest(at)) } else { Ok(value) }
    }

    fn number<const N: usize>(&mut self) -> Result<u64, CborError> {
        let bytes = self.take(N as u64)?;
        Ok(bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }
}

/// The keys of a map, which must come sorted (bytewise as encoded) and once each.
#[derive(Debug)]
pub struct CborMap<'b> {
    left: usize,
    last: &'b [u8],
}

impl<'b> CborMap<'b> {
    /// The next key as `read` reads it; `None` after the last. Its value is to be read before the next call.
    pub fn key<T>(
        &mut self,
        reader: &mut CborReader<'b>,
        read: impl FnOnce(&mut CborReader<'b>) -> Result<T, CborError>,
    ) -> Result<Option<T>, CborError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let at = reader.at;
        let key = read(reader)?;
        let encoded = &reader.bytes[at..reader.at];
        if encoded <= self.last {
            return Err(CborError::Unsorted(at));
        }
        self.last = encoded;
        Ok(Some(key))
    }
}

/// Writes values one after the other. Keys of maps are to be written in order.
#[derive(Clone, Debug, Default)]
pub struct CborWriter(pub Vec<u8>);

impl CborWriter {
    /// An integer from 0.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.head(UINT, value)
    }

    /// A string of bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.head(BYTES, bytes.len() as u64).raw(bytes)
    }

    /// A text.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.head(TEXT, text.len() as u64).raw(text.as_bytes())
    }

    /// The head of an array of so many values.
    pub fn array(&mut self, count: usize) -> &mut Self {
        self.head(ARRAY, count as u64)
    }

    /// The head of a map of so many pairs.
    pub fn map(&mut self, count: usize) -> &mut Self {
        self.head(MAP, count as u64)
    }

    /// A CID, as DAG-CBOR has it.
    pub fn cid(&mut self, cid: &Cid) -> &mut Self {
        let cid = cid.to_bytes();
        self.head(TAG, CID_TAG).head(BYTES, cid.len() as u64 + 1).raw(&[0]).raw(&cid)
    }

    /// `null`.
    pub fn null(&mut self) -> &mut Self {
        self.raw(&[0xf6])
    }

    /// What is encoded already.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        let first = major << 5;
        match value {
            0..24 => self.raw(&[first | value as u8]),
            24..0x100 => self.raw(&[first | 24, value as u8]),
            0x100..0x1_0000 => self.raw(&[first | 25]).raw(&(value as u16).to_be_bytes()),
            0x1_0000..0x1_0000_0000 => self.raw(&[first | 26]).raw(&(value as u32).to_be_bytes()),
            _ => self.raw(&[first | 27]).raw(&value.to_be_bytes()),
        }
    }
}

/// Why bytes are not the deterministic CBOR that was expected. Numbers are offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// It ends too early, or states more than there is.
    #[error("CBOR that is cut off")]
    Truncated,
    /// Bytes follow it.
    #[error("{0} bytes follow the CBOR")]
    Trailing(usize),
    /// Something else.
    #[error("{what} is missing at byte {at} of the CBOR")]
    Expected {
        /// Where.
        at: usize,
        /// What should be there.
        what: &'static str,
    },
    /// A length that is told by an end mark, or a head that means nothing.
    #[error("an indefinite length at byte {0} of the CBOR")]
    Indefinite(usize),
    /// A number with more bytes than it needs.
    #[error("a number at byte {0} of the CBOR is written longer than it needs to be")]
    NotShortest(usize),
    /// A text that is none.
    #[error("a text at byte {0} of the CBOR is not UTF-8")]
    NotUtf8(usize),
    /// A key that is there already, or belongs before the last one.
    #[error("a key at byte {0} of the CBOR is out of order or there twice")]
    Unsorted(usize),
    /// Values in values in values.
    #[error("values at byte {0} of the CBOR are nested too deeply")]
    TooDeep(usize),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::mutate::mutations;
    use crate::base::{Sha256, raw_cid};

    fn skipped(bytes: &[u8]) -> Result<(), CborError> {
        let mut reader = CborReader::new(bytes);
        reader.skip()?;
        reader.end()
    }

    #[test]
    fn what_is_written_is_read() {
        let edges = [0, 23, 24, 255, 256, 65_535, 65_536, u32::MAX.into(), 1 << 32, u64::MAX];
        let cid = raw_cid(Sha256::of(b"hello world"));
        let mut writer = CborWriter::default();
        writer.array(edges.len() + 5);
        for edge in edges {
            writer.uint(edge);
        }
        writer.bytes(&[7; 300]).text("é").cid(&cid).null();
        writer.map(2).text("a").uint(1).text("bb").uint(2);
        let mut reader = CborReader::new(&writer.0);
        assert_eq!(reader.array(), Ok(edges.len() + 5));
        for edge in edges {
            assert_eq!(reader.uint(), Ok(edge));
        }
        assert_eq!(reader.bytes(), Ok(&[7; 300][..]));
        assert_eq!(reader.text(), Ok("é"));
        assert_eq!(reader.cid(), Ok(cid));
        reader.skip().unwrap();
        let mut map = reader.map().unwrap();
        let mut pairs = Vec::new();
        while let Some(key) = map.key(&mut reader, CborReader::text).unwrap() {
            pairs.push((key, reader.uint().unwrap()));
        }
        assert_eq!(pairs, [("a", 1), ("bb", 2)]);
        assert_eq!(reader.end(), Ok(()));
        assert_eq!(skipped(&writer.0), Ok(()));
    }

    #[test]
    fn one_form_only() {
        let deep = [&[0x81; 20][..], &[0]].concat();
        let rows: &[(&[u8], CborError)] = &[
            (b"", CborError::Truncated),
            (b"\x18\x17", CborError::NotShortest(0)),
            (b"\x19\x00\xff", CborError::NotShortest(0)),
            (b"\x1a\x00\x00\xff\xff", CborError::NotShortest(0)),
            (b"\x1b\x00\x00\x00\x00\xff\xff\xff\xff", CborError::NotShortest(0)),
            (b"\x9f\xff", CborError::Indefinite(0)),
            (b"\x5f\xff", CborError::Indefinite(0)),
            (b"\x1c", CborError::Indefinite(0)),
            (b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", CborError::Truncated),
            (b"\xbb\x7f\xff\xff\xff\xff\xff\xff\xff", CborError::Truncated),
            (b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff", CborError::Truncated),
            (b"\x61\xff", CborError::NotUtf8(1)),
            (b"\xa2\x61b\x01\x61a\x02", CborError::Unsorted(4)),
            (b"\xa2\x61a\x01\x61a\x02", CborError::Unsorted(4)),
            (b"\xa2\x62aa\x01\x61b\x02", CborError::Unsorted(5)),
            (b"\xf9\x00\x00", CborError::Expected { at: 0, what: "a value of DAG-CBOR" }),
            (b"\xf7", CborError::Expected { at: 0, what: "a value of DAG-CBOR" }),
            (b"\xc1\x00", CborError::Expected { at: 0, what: "a CID" }),
            (b"\xd8\x2a\x41\x00", CborError::Expected { at: 0, what: "a CID" }),
            (b"\x00\x00", CborError::Trailing(1)),
            (&deep, CborError::TooDeep(16)),
        ];
        for (bytes, error) in rows {
            assert_eq!(skipped(bytes), Err(*error), "{bytes:02x?}");
        }
    }

    #[test]
    fn nothing_panics() {
        let mut writer = CborWriter::default();
        writer.map(2).text("a").array(2).uint(1).bytes(b"x").text("b");
        writer.cid(&raw_cid(Sha256::of(b"")));
        mutations(&[&writer.0], 5000, |bytes| {
            let _ = skipped(bytes);
        });
    }
}
