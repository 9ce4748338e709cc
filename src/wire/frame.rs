//! Frames: a length as a varint, then as many bytes.

use bytes::{Bytes, BytesMut};

use super::WireError;
use super::varint::{MOST_VARINT_BYTES, put_varint, read_varint, varint_bytes};

/// Least room in bytes that is offered to a reader of a socket: a few packets, so that a stream that only ever
/// carries small messages costs little.
const LEAST_ROOM: usize = 4 << 10;

/// Most room in bytes that is made on the word of a frame's length alone. Beyond it the buffer grows as bytes arrive,
/// so that announcing large frames costs a peer as much as sending them.
const PROMISED_ROOM: usize = 64 << 10;

/// A message as a frame.
pub fn frame(message: &[u8]) -> Vec<u8> {
    let length = message.len() as u64;
    let mut out = Vec::with_capacity(varint_bytes(length) + message.len());
    put_varint(&mut out, length);
    out.extend_from_slice(message);
    out
}

/// Takes bytes as they come and gives frames.
///
/// Bytes enter through [`FrameReader::room`] and [`FrameReader::took`] without a copy, or through
/// [`FrameReader::push`] with one. Frames leave as slices of the buffer: a frame that is kept keeps, at most, itself
/// and what arrived with it. Take all frames before giving more bytes; then no more than one frame and one read are
/// ever buffered.
pub struct FrameReader {
    limit: usize,
    /// Zeroed beyond `filled`.
    buffer: BytesMut,
    filled: usize,
}

impl FrameReader {
    /// A reader that refuses frames of more than `limit` bytes, not counting their length.
    pub fn new(limit: usize) -> Self {
        Self { limit, buffer: BytesMut::new(), filled: 0 }
    }

    /// Where the next bytes of the stream may be written; never empty.
    pub fn room(&mut self) -> &mut [u8] {
        if self.buffer.len() - self.filled < LEAST_ROOM {
            let missing = match self.peek() {
                Ok(Some((head, length))) => (head + length).saturating_sub(self.filled),
                _ => 0,
            };
            // Doubling: what is copied when the buffer moves adds up to one more frame at most.
            let more = missing.min(self.filled.max(PROMISED_ROOM)).max(LEAST_ROOM);
            self.buffer.resize(self.filled + more, 0);
        }
        &mut self.buffer[self.filled..]
    }

    /// That many bytes were written to the room. More than there was room for count as all of it.
    pub fn took(&mut self, bytes: usize) {
        self.filled = self.filled.saturating_add(bytes).min(self.buffer.len());
    }

    /// Takes a copy of the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.truncate(self.filled);
        self.buffer.extend_from_slice(bytes);
        self.filled = self.buffer.len();
    }

    /// The next frame, without its length; `None` until all of it is there.
    ///
    /// After an error the stream cannot be understood any more: the same error comes again.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, WireError> {
        let Some((head, length)) = self.peek()? else { return Ok(None) };
        if self.filled < head + length {
            return Ok(None);
        }
        let frame = self.take(head + length);
        Ok(Some(frame.slice(head..)))
    }

    /// Up to `most` bytes that arrived and belong to no frame yet: for protocols with bytes between frames. Empty when
    /// none did; then the rest is better read into a buffer of one's own than through the small room here.
    pub fn raw(&mut self, most: usize) -> Bytes {
        self.take(most.min(self.filled))
    }

    /// Whether nothing waits: where it does, a stream that ends now ends in the middle of a frame.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    fn take(&mut self, length: usize) -> Bytes {
        self.filled -= length;
        self.buffer.split_to(length).freeze()
    }

    /// Bytes of the next frame's length, and that length; `None` until it is there.
    fn peek(&self) -> Result<Option<(usize, usize)>, WireError> {
        let start = &self.buffer[..self.filled.min(MOST_VARINT_BYTES)];
        let Some((length, head)) = read_varint(start).map_err(WireError::Frame)? else { return Ok(None) };
        match usize::try_from(length).ok().filter(|l| *l <= self.limit) {
            Some(length) => Ok(Some((head, length))),
            None => Err(WireError::TooLong { what: "a frame", bytes: length, limit: self.limit as u64 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], step: usize, limit: usize) -> (Vec<Vec<u8>>, Result<bool, WireError>) {
        let mut reader = FrameReader::new(limit);
        let mut frames = Vec::new();
        for part in bytes.chunks(step) {
            reader.push(part);
            loop {
                match reader.next_frame() {
                    Ok(Some(frame)) => frames.push(frame.to_vec()),
                    Ok(None) => break,
                    Err(e) => return (frames, Err(e)),
                }
            }
        }
        (frames, Ok(reader.is_empty()))
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let messages = [vec![], vec![1], vec![2; 127], vec![3; 128], vec![4; 70_000]];
        let stream: Vec<u8> = messages.iter().flat_map(|m| frame(m)).collect();
        for step in [1, 2, 3, 127, 4096, 1 << 20] {
            assert_eq!(read(&stream, step, 70_000), (messages.to_vec(), Ok(true)), "in steps of {step}");
        }
        let (frames, end) = read(&stream[..stream.len() - 1], 4096, 70_000);
        assert_eq!((frames.len(), end), (4, Ok(false)), "cut off in the last one");
        let (frames, end) = read(&stream, 4096, 69_999);
        let too_long = WireError::TooLong { what: "a frame", bytes: 70_000, limit: 69_999 };
        assert_eq!((frames.len(), end), (4, Err(too_long)));
    }

    #[test]
    fn lengths_that_are_none() {
        for (bytes, why) in [
            (&[0xff; 10][..], varint::VarintError::TooLong),
            (&[0x81, 0x00][..], varint::VarintError::NotMinimal),
        ] {
            assert_eq!(read(bytes, 1, 100), (vec![], Err(WireError::Frame(why))));
        }
        let (_, end) = read(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], 1, 100);
        assert_eq!(end, Err(WireError::TooLong { what: "a frame", bytes: u64::MAX, limit: 100 }));
    }

    use super::super::varint;

    #[test]
    fn through_the_room_and_with_raw_bytes_between() {
        let mut stream = frame(b"head");
        stream.extend_from_slice(&[9; 300_000]);
        stream.extend(frame(&[7; 200_000]));
        let (mut reader, mut at) = (FrameReader::new(1 << 20), 0);
        let mut feed = |reader: &mut FrameReader| {
            let room = reader.room();
            assert!(!room.is_empty() && room.len() <= 2 * 200_000 + LEAST_ROOM);
            let now = room.len().min(stream.len() - at).min(10_000);
            room[..now].copy_from_slice(&stream[at..at + now]);
            at += now;
            reader.took(now);
            assert!(now > 0, "the stream goes on");
        };
        let head = loop {
            if let Some(frame) = reader.next_frame().unwrap() {
                break frame;
            }
            feed(&mut reader);
        };
        assert_eq!(head, &b"head"[..]);
        let mut raw = 0;
        while raw < 300_000 {
            let part = reader.raw(300_000 - raw);
            assert!(part.iter().all(|b| *b == 9));
            raw += part.len();
            if part.is_empty() {
                feed(&mut reader);
            }
        }
        let last = loop {
            if let Some(frame) = reader.next_frame().unwrap() {
                break frame;
            }
            feed(&mut reader);
        };
        assert!(last.len() == 200_000 && last.iter().all(|b| *b == 7) && reader.is_empty());
    }

    #[test]
    fn a_promise_alone_takes_little_memory() {
        let mut reader = FrameReader::new(4 << 20);
        reader.push(&frame(&[0; 4 << 20])[..100]);
        assert!(reader.room().len() <= PROMISED_ROOM);
        reader.took(usize::MAX);
        assert!(reader.room().len() <= 2 * PROMISED_ROOM);
    }
}
