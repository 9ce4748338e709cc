//! Unsigned varints, as multiformats and protobuf write numbers: seven bits a byte, the lowest first.

use unsigned_varint::{decode, encode};

/// Longest varint in bytes: 64 bits (protobuf). Multiformats stop at 9, for numbers that nobody uses.
pub const MOST_VARINT_BYTES: usize = 10;

/// Reads the varint at the start of `bytes`: its value and its length in bytes.
///
/// `None` when more bytes are needed; at most [`MOST_VARINT_BYTES`] ever are.
pub fn read_varint(bytes: &[u8]) -> Result<Option<(u64, usize)>, VarintError> {
    match decode::u64(bytes) {
        // The tenth byte has room for one bit; the crate drops the others.
        Ok((_, rest))
            if bytes.len() - rest.len() == MOST_VARINT_BYTES && bytes[MOST_VARINT_BYTES - 1] > 1 =>
        {
            Err(VarintError::TooLong)
        }
        Ok((value, rest)) => Ok(Some((value, bytes.len() - rest.len()))),
        Err(decode::Error::Insufficient) => Ok(None),
        Err(decode::Error::NotMinimal) => Err(VarintError::NotMinimal),
        Err(_) => Err(VarintError::TooLong),
    }
}

/// Appends a varint.
pub fn put_varint(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(encode::u64(value, &mut encode::u64_buffer()));
}

/// Bytes that a varint of this value takes.
pub const fn varint_bytes(value: u64) -> usize {
    match value {
        0 => 1,
        _ => (70 - value.leading_zeros() as usize) / 7,
    }
}

/// Why bytes are no varint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VarintError {
    /// More than 64 bits.
    #[error("a varint is longer than 64 bits")]
    TooLong,
    /// Fewer bytes would have done: multiformats' unsigned-varint forbids it.
    #[error("a varint is written longer than it needs to be")]
    NotMinimal,
}

#[cfg(test)]
mod tests {
    use super::*;

    type Read = Result<Option<(u64, usize)>, VarintError>;

    #[test]
    fn table() {
        let long = [0xff; 9];
        let most = [&long[..], &[0x01]].concat();
        let beyond = [&long[..], &[0x02]].concat();
        let endless = [0xff; 11];
        let cases: [(&[u8], Read); 12] = [
            (&[], Ok(None)),
            (&[0x80], Ok(None)),
            (&long, Ok(None)),
            (&[0x00], Ok(Some((0, 1)))),
            (&[0x7f, 0xff], Ok(Some((127, 1)))),
            (&[0x80, 0x01], Ok(Some((128, 2)))),
            (&[0xac, 0x02, 0x07], Ok(Some((300, 2)))),
            (&most, Ok(Some((u64::MAX, 10)))),
            (&beyond, Err(VarintError::TooLong)),
            (&endless, Err(VarintError::TooLong)),
            (&[0x80, 0x00], Err(VarintError::NotMinimal)),
            (&[0xff, 0x80, 0x00], Err(VarintError::NotMinimal)),
        ];
        for (bytes, want) in cases {
            assert_eq!(read_varint(bytes), want, "{bytes:02x?}");
        }
    }

    #[test]
    fn what_is_written_is_read_and_is_as_long_as_said() {
        let edges = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for value in edges.chain([u64::MAX]) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(read_varint(&bytes), Ok(Some((value, bytes.len()))));
            assert_eq!(varint_bytes(value), bytes.len(), "{value}");
            assert_eq!(read_varint(&bytes[..bytes.len() - 1]), Ok(None), "{value} cut short");
        }
    }
}
