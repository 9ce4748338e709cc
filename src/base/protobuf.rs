//! Protobuf messages taken apart field by field, and written: what bitswap, dag-pb and UnixFS have in common.
//!
//! Follows "Encoding" of the protocol buffers documentation. Groups, deprecated for long and used by none of the
//! three, are refused.

use super::varint::{VarintError, put_varint, read_varint, varint_bytes};

/// Largest field number (protocol buffers, "Assigning Field Numbers").
const MOST_FIELD_NUMBER: u64 = (1 << 29) - 1;

/// The fields of one message, in the order in which they stand. After an error there are no more.
pub struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0: integers, booleans, enumerations.
    Number(u64),
    /// Wire type 2: bytes, text, messages, packed numbers.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5: used by none of our messages, so only skipped.
    Fixed,
}

impl<'a> Fields<'a> {
    /// The fields of this message.
    pub fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn field(&mut self) -> Result<(u32, Value<'a>), ProtobufError> {
        let at = self.at;
        let key = self.number()?;
        let number = key >> 3;
        if number == 0 || number > MOST_FIELD_NUMBER {
            return Err(ProtobufError::FieldNumber { at });
        }
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.number()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            kind => return Err(ProtobufError::WireType { at, kind: kind as u8 }),
        };
        Ok((number as u32, value))
    }

    fn number(&mut self) -> Result<u64, ProtobufError> {
        let at = self.at;
        match read_varint(&self.bytes[at..]) {
            Ok(Some((value, length))) => {
                self.at += length;
                Ok(value)
            }
            Ok(None) => Err(ProtobufError::Truncated { at }),
            Err(source) => Err(ProtobufError::Varint { at, source }),
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], ProtobufError> {
        let rest = &self.bytes[self.at..];
        let length = usize::try_from(length).ok().filter(|l| *l <= rest.len());
        let length = length.ok_or(ProtobufError::Truncated { at: self.at })?;
        self.at += length;
        Ok(&rest[..length])
    }
}

impl<'a> Iterator for Fields<'a> {
    /// Field number and value.
    type Item = Result<(u32, Value<'a>), ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

impl<'a> Value<'a> {
    /// The number in a field that must hold one; `field` is named by the error.
    pub fn number(self, field: &'static str) -> Result<u64, ProtobufError> {
        match self {
            Self::Number(number) => Ok(number),
            _ => Err(ProtobufError::Kind(field)),
        }
    }

    /// The bytes in a field that must hold some; `field` is named by the error.
    pub fn bytes(self, field: &'static str) -> Result<&'a [u8], ProtobufError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtobufError::Kind(field)),
        }
    }
}

/// Appends a field with a number.
pub fn put_number(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, value);
}

/// Appends a field with bytes, text or a message.
pub fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_bytes_head(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// Appends what stands before the bytes of such a field, for bytes that are written from elsewhere.
pub fn put_bytes_head(out: &mut Vec<u8>, field: u32, length: usize) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, length as u64);
}

/// Bytes that [`put_bytes_head`] appends.
pub const fn bytes_head_bytes(field: u32, length: usize) -> usize {
    varint_bytes((field as u64) << 3) + varint_bytes(length as u64)
}

/// Why bytes are no protobuf message. Positions are bytes from the start of the (inner) message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// It ends within a field.
    #[error("a protobuf message is cut off within the field at byte {at}")]
    Truncated {
        /// Where.
        at: usize,
    },
    /// A number in it is none.
    #[error("byte {at} of a protobuf message: {source}")]
    Varint {
        /// Where.
        at: usize,
        /// Why.
        source: VarintError,
    },
    /// A wire type that does not exist or is a group.
    #[error("wire type {kind} at byte {at} of a protobuf message")]
    WireType {
        /// Where.
        at: usize,
        /// Which.
        kind: u8,
    },
    /// Field numbers go from 1 to 2^29 - 1.
    #[error("an impossible field number at byte {at} of a protobuf message")]
    FieldNumber {
        /// Where.
        at: usize,
    },
    /// A field that we know has another wire type than its own.
    #[error("the field {0:?} of a protobuf message has the wrong wire type")]
    Kind(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    type All<'a> = Result<Vec<(u32, Value<'a>)>, ProtobufError>;

    fn all(bytes: &[u8]) -> All<'_> {
        Fields::of(bytes).collect()
    }

    #[test]
    fn table() {
        let cases: [(&[u8], All<'_>); 13] = [
            (b"", Ok(vec![])),
            (b"\x08\x96\x01", Ok(vec![(1, Value::Number(150))])),
            (b"\x12\x02hi\x18\x00", Ok(vec![(2, Value::Bytes(b"hi")), (3, Value::Number(0))])),
            (b"\x09\x01\x02\x03\x04\x05\x06\x07\x08\x0d\x01\x02\x03\x04", Ok(vec![(1, Value::Fixed); 2])),
            (b"\x12\x00", Ok(vec![(2, Value::Bytes(b""))])),
            (b"\x12\x03hi", Err(ProtobufError::Truncated { at: 2 })),
            (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Err(ProtobufError::Truncated { at: 11 })),
            (b"\x12", Err(ProtobufError::Truncated { at: 1 })),
            (b"\x09\x01", Err(ProtobufError::Truncated { at: 1 })),
            (b"\x08\x80\x00", Err(ProtobufError::Varint { at: 1, source: VarintError::NotMinimal })),
            (b"\x08\x01\x0b", Err(ProtobufError::WireType { at: 2, kind: 3 })),
            (b"\x00\x01", Err(ProtobufError::FieldNumber { at: 0 })),
            (b"\x80\x80\x80\x80\x10\x01", Err(ProtobufError::FieldNumber { at: 0 })),
        ];
        for (bytes, want) in cases {
            assert_eq!(all(bytes), want, "{bytes:02x?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut bytes = Vec::new();
        put_number(&mut bytes, 1, u64::MAX);
        put_bytes(&mut bytes, 200, &[7; 300]);
        assert_eq!(all(&bytes), Ok(vec![(1, Value::Number(u64::MAX)), (200, Value::Bytes(&[7; 300]))]));
        let mut head = Vec::new();
        put_bytes_head(&mut head, 200, 300);
        assert_eq!(bytes_head_bytes(200, 300), head.len());
    }
}
