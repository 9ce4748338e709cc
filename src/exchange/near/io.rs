//! Frames over a stream: a varint with the length, then CBOR; raw bytes between them where the protocol says so.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use futures_lite::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

/// Bytes read ahead of the frames. Chunks are read past it.
const READ_AHEAD: usize = 8 << 10;

/// Reads frames and raw bytes.
pub(super) struct Reader<R>(BufReader<R>);

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(stream: R) -> Self {
        Self(BufReader::with_capacity(READ_AHEAD, stream))
    }

    /// The next frame of at most `limit` bytes; `None` at a clean end.
    ///
    /// Memory is taken as bytes come: a promise of a large frame costs the peer as much as us.
    pub(super) async fn frame(&mut self, limit: usize) -> Result<Option<Vec<u8>>> {
        let mut length = 0usize;
        for shift in (0..).step_by(7) {
            let mut byte = [0];
            if self.0.read(&mut byte).await? == 0 {
                return match shift {
                    0 => Ok(None),
                    _ => Err(ErrorKind::UnexpectedEof.into()),
                };
            }
            length |= usize::from(byte[0] & 0x7f) << shift;
            if length > limit || shift > 21 {
                return Err(Error::new(ErrorKind::InvalidData, "a frame is longer than any may be"));
            }
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut frame = Vec::new();
        while frame.len() < length {
            let begun = frame.len();
            frame.resize(length.min(begun + READ_AHEAD), 0);
            self.0.read_exact(&mut frame[begun..]).await?;
        }
        Ok(Some(frame))
    }

    /// Raw bytes: fills `buffer` as far as there is something now, at least one byte.
    pub(super) async fn some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self.0.read(buffer).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            n => Ok(n),
        }
    }
}

/// Writes a frame, and sees that it goes out.
pub(super) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> Result<()> {
    stream.write_all(frame).await?;
    stream.flush().await
}

/// An operation, or an error once its time is over.
pub(super) async fn within<T>(
    time: Duration,
    what: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    futures_lite::future::or(work, async {
        async_io::Timer::after(time).await;
        Err(Error::new(ErrorKind::TimedOut, format!("{what} took longer than {} s", time.as_secs_f32())))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::near::FRAME_BYTES;
    use futures_lite::future::block_on;

    #[test]
    fn frames_and_raw_bytes() {
        block_on(async {
            let mut wire = Vec::new();
            write_frame(&mut wire, &crate::wire::frame(&[7; 300])).await.unwrap();
            wire.extend([1, 2, 3]);
            write_frame(&mut wire, &crate::wire::frame(b"")).await.unwrap();
            let mut reader = Reader::new(&wire[..]);
            assert_eq!(reader.frame(FRAME_BYTES).await.unwrap().unwrap(), [7; 300]);
            let mut raw = [0; 3];
            assert_eq!(reader.some(&mut raw).await.unwrap(), 3);
            assert_eq!(reader.frame(FRAME_BYTES).await.unwrap().unwrap(), b"");
            assert!(reader.frame(FRAME_BYTES).await.unwrap().is_none());
        });
    }

    #[test]
    fn what_a_stranger_may_send() {
        let cases: [&[u8]; 5] =
            [&[0x80], &[5, 1], &[0xff; 12], &[0x80, 0x80, 0x80, 0x80, 0x80, 1], &[0x81, 0x80, 0x08]];
        for bytes in cases {
            block_on(async { assert!(Reader::new(bytes).frame(FRAME_BYTES).await.is_err(), "{bytes:?}") });
        }
    }
}
