//! Passing through without storing: the disk is too full, the client still gets its bytes, verified.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::base::{Artifact, limits};
use crate::upstream::Ask;

use super::follow::{self, read_some};
use super::verify::Verifier;
use super::{CHUNK, FetchError, Inner};

/// Chunks under way to a reader.
pub(super) const QUEUE: usize = 4;

pub(super) type Receiver = async_channel::Receiver<Result<Bytes, FetchError>>;

/// Reads the artifact from the upstream for one reader that wants bytes `first..end`.
///
/// All of it is read, for the digest is over all; the tail is held back until it matched.
///
/// `given` is the file whose bytes below `first` the reader has already, from a flight that the disk ended: what comes
/// now must begin with the same.
pub(super) fn start(
    inner: &Arc<Inner>,
    artifact: Artifact,
    given: Option<Arc<File>>,
    first: u64,
    end: Option<u64>,
) -> Receiver {
    let (sender, receiver) = async_channel::bounded(QUEUE);
    let owner = inner.clone();
    inner.tasks.spawn(async move {
        let gate = owner.passes.clone();
        gate.run(move || {
            let end = end.unwrap_or(u64::MAX);
            if let Err(e) = copy(&owner, &artifact, given.as_deref(), first..end, &sender) {
                // A reader that has gone needs no error.
                let _ = sender.send_blocking(Err(e));
            }
        })
        .await;
    });
    receiver
}

fn copy(
    inner: &Inner,
    artifact: &Artifact,
    given: Option<&File>,
    wanted: std::ops::Range<u64>,
    sender: &async_channel::Sender<Result<Bytes, FetchError>>,
) -> Result<(), FetchError> {
    let site = inner.asked(artifact)?;
    let mut answer = follow::open(inner, site, artifact, &Ask::default())?;
    let mut verifier = Verifier::new(artifact.digest);
    let hold = usize::try_from(limits::HOLD_BACK_BYTES).expect("fits");
    let mut held: Vec<u8> = Vec::with_capacity(hold + CHUNK);
    let mut held_at = 0;
    let mut buffer = vec![0; CHUNK];
    loop {
        let n =
            read_some(&mut answer.body, &mut buffer).map_err(|e| FetchError::Upstream(follow::broken(&e)))?;
        if n == 0 {
            break;
        }
        inner.counters.upstream_bytes.fetch_add(n as u64, Ordering::Relaxed);
        let at = verifier.at;
        if let Some(file) = given.filter(|_| at < wanted.start)
            && !begins_with(file, at, &buffer[..n], wanted.start)
        {
            return Err(FetchError::Changed(artifact.filename.clone()));
        }
        verifier.update(&buffer[..n]);
        if verifier.at > artifact.size.unwrap_or(artifact.limit_bytes) {
            return Err(FetchError::TooLarge(artifact.filename.clone()));
        }
        held.extend_from_slice(&buffer[..n]);
        if held.len() > hold {
            let out: Vec<u8> = held.drain(..held.len() - hold).collect();
            let at = held_at;
            held_at += out.len() as u64;
            if !send(sender, out, at, &wanted) {
                return Ok(());
            }
        }
    }
    let got = verifier.at;
    if let Some(want) = artifact.size.filter(|want| *want != got) {
        return Err(FetchError::Length { filename: artifact.filename.clone(), want, got });
    }
    verifier.finish().map_err(|(want, got)| FetchError::Mismatch {
        filename: artifact.filename.clone(),
        want,
        got,
    })?;
    send(sender, held, held_at, &wanted);
    Ok(())
}

/// Whether `bytes`, which stand at `at`, are what `file` has there, as far as the reader was given it.
fn begins_with(file: &File, at: u64, bytes: &[u8], until: u64) -> bool {
    let length = usize::try_from(until - at).unwrap_or(usize::MAX).min(bytes.len());
    let mut had = vec![0; length];
    file.read_exact_at(&mut had, at).is_ok() && had == bytes[..length]
}

/// Sends what lies in the reader's range. `false` when the reader has gone.
fn send(
    sender: &async_channel::Sender<Result<Bytes, FetchError>>,
    bytes: Vec<u8>,
    at: u64,
    wanted: &std::ops::Range<u64>,
) -> bool {
    let all = at + bytes.len() as u64;
    let (from, to) = (wanted.start.max(at), wanted.end.min(all));
    if from >= to {
        return !sender.is_closed();
    }
    let bytes = Bytes::from(bytes).slice((from - at) as usize..(to - at) as usize);
    sender.send_blocking(Ok(bytes)).is_ok()
}
