//! Buffers that go round: a fresh 64 KiB allocation is a system call and 16 page faults.

use std::sync::Mutex;

use bytes::Bytes;

use super::{CHUNK, LOCK};

/// Buffers kept for the next use: 2 MiB.
const KEPT: usize = 32;

static POOL: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// A buffer of [`CHUNK`] bytes that returns to the pool when dropped.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    filled: usize,
}

impl Buffer {
    pub(super) fn take() -> Self {
        let pooled = POOL.lock().expect(LOCK).pop();
        Self { bytes: pooled.unwrap_or_else(|| vec![0; CHUNK]), filled: 0 }
    }

    /// All of it, at most `length` bytes.
    pub(super) fn space(&mut self, length: u64) -> &mut [u8] {
        let length = usize::try_from(length).unwrap_or(CHUNK).min(CHUNK);
        &mut self.bytes[..length]
    }

    /// The first `filled` bytes, to be handed on without a copy.
    pub(super) fn freeze(mut self, filled: usize) -> Bytes {
        self.filled = filled;
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut pool = POOL.lock().expect(LOCK);
        if pool.len() < KEPT {
            pool.push(std::mem::take(&mut self.bytes));
        }
    }
}
