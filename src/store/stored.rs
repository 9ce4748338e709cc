//! A stored artifact, open for reading.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::io::ReadWriteFlags;

use crate::base::{Access, Cid, Sha256};
use crate::rt::UnixMillis;

use super::records::ArtifactRecord;

/// An artifact that is whole, verified and committed.
#[derive(Debug)]
pub struct Stored {
    file: File,
    /// Its name in the store.
    pub sha256: Sha256,
    /// Bytes.
    pub size: u64,
    /// Root of its `unixfs-v1-2025` layout.
    pub root: Option<Cid>,
    /// Who may have it.
    pub access: Access,
    /// Name of the upstream that gave it first.
    pub upstream: String,
    /// When it was committed.
    pub stored_at: UnixMillis,
}

impl Stored {
    pub(super) fn open(path: &Path, sha256: Sha256, record: &ArtifactRecord) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        if length != record.size {
            let text = format!("its file has {length} bytes, not {}", record.size);
            return Err(std::io::Error::other(text));
        }
        Ok(Self::new(file, sha256, record))
    }

    pub(super) fn new(file: File, sha256: Sha256, record: &ArtifactRecord) -> Self {
        Self {
            file,
            sha256,
            size: record.size,
            root: Cid::try_from(&record.root[..]).ok(),
            access: if record.private { Access::Private } else { Access::Public },
            upstream: record.upstream.clone(),
            stored_at: UnixMillis(record.stored_at),
        }
    }

    /// Fills `buffer` from `offset` as far as it can without waiting for the disk.
    ///
    /// `None` when the bytes are not in the page cache: read them on a blocking thread instead.
    pub fn read_cached(&self, buffer: &mut [u8], offset: u64) -> Option<usize> {
        read_cached(&self.file, buffer, offset)
    }

    /// Whether `length` bytes from `offset` can be had without waiting for the disk, judged by one byte in each
    /// 128 KiB and the last.
    pub fn is_cached(&self, offset: u64, length: u64) -> bool {
        let last = offset + length.max(1) - 1;
        let mut probes = (offset..last).step_by(PROBE_BYTES).chain([last]);
        probes.all(|at| self.read_cached(&mut [0], at).is_some())
    }

    /// Sends up to `length` bytes from `offset` to a socket, as many as it takes (`sendfile`).
    pub fn send(&self, socket: impl AsFd, offset: u64, length: usize) -> std::io::Result<usize> {
        let mut at = offset;
        Ok(rustix::fs::sendfile(socket, &self.file, Some(&mut at), length)?)
    }

    /// Fills `buffer` from `offset`, waiting for the disk; short only at the end of the file.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let mut got = 0;
        while got < buffer.len() {
            match self.file.read_at(&mut buffer[got..], offset + got as u64) {
                Ok(0) => break,
                Ok(n) => got += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(got)
    }
}

/// What the kernel reads ahead at a time, by default.
const PROBE_BYTES: usize = 128 << 10;

/// Fills `buffer` from `offset` of a file as far as it can without waiting for the disk; `None` when nothing of it is
/// in the page cache, or the file system cannot tell.
pub fn read_cached(file: &File, buffer: &mut [u8], offset: u64) -> Option<usize> {
    let mut slices = [std::io::IoSliceMut::new(buffer)];
    let read = rustix::io::preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT);
    read.ok().filter(|n| *n > 0)
}
