//! A body: bytes as a reader takes them, from the store, from a flight, or passed through.

use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use event_listener::EventListener;
use futures_lite::Stream;

use crate::base::Artifact;
use crate::rt::Gate;
use crate::store::{Stored, read_cached};

use super::blocks::Parts;
use super::flight::{Flight, View};
use super::pool::Buffer;
use super::{CHUNK, FetchError, Inner, pass};

/// Bytes `at..end` of an artifact. Dropping it costs the flight nothing.
pub struct Body {
    source: Source,
    at: u64,
    /// `None` while the size is unknown.
    end: Option<u64>,
}

type Reading = Pin<Box<dyn Future<Output = std::io::Result<Bytes>> + Send>>;

enum Source {
    Stored {
        stored: Arc<Stored>,
        inner: Arc<Inner>,
        reading: Option<Reading>,
    },
    Flight {
        flight: Arc<Flight>,
        inner: Arc<Inner>,
        listener: Option<Pin<Box<EventListener>>>,
        reading: Option<Reading>,
    },
    Pass(Pin<Box<pass::Receiver>>),
    Memory(Bytes),
    /// One after the other; the one that is being sent comes second.
    Parts(Box<Parts>, Option<Box<Body>>),
    Failed,
}

impl Body {
    pub(super) fn stored(stored: Arc<Stored>, inner: Arc<Inner>, first: u64, end: Option<u64>) -> Self {
        let end = Some(end.unwrap_or(stored.size).min(stored.size));
        Self { source: Source::Stored { stored, inner, reading: None }, at: first, end }
    }

    pub(super) fn flight(flight: Arc<Flight>, inner: Arc<Inner>, first: u64, end: Option<u64>) -> Self {
        Self { source: Source::Flight { flight, inner, listener: None, reading: None }, at: first, end }
    }

    pub(super) fn pass(artifact: Artifact, inner: Arc<Inner>, first: u64, end: Option<u64>) -> Self {
        let receiver = pass::start(&inner, artifact, None, first, end);
        Self { source: Source::Pass(Box::pin(receiver)), at: first, end }
    }

    /// What somebody else reads and sends.
    pub(super) fn through(receiver: pass::Receiver, end: Option<u64>) -> Self {
        Self { source: Source::Pass(Box::pin(receiver)), at: 0, end }
    }

    pub(super) fn memory(bytes: Bytes) -> Self {
        let end = Some(bytes.len() as u64);
        Self { source: Source::Memory(bytes), at: 0, end }
    }

    /// What these bodies are together: `length` bytes.
    pub(super) fn parts(parts: Parts, length: u64) -> Self {
        Self { source: Source::Parts(Box::new(parts), None), at: 0, end: Some(length) }
    }

    /// Bytes still to come, if known.
    pub fn remaining(&self) -> Option<u64> {
        self.end.map(|end| end.saturating_sub(self.at))
    }

    /// Skips up to `most` bytes that are stored and in the page cache, and gives the range: for whoever can send them
    /// without reading them.
    pub fn take_cached(&mut self, most: u64) -> Option<(Arc<Stored>, u64, u64)> {
        if let Source::Parts(_, Some(part)) = &mut self.source {
            let taken = part.take_cached(most)?;
            self.at += taken.2;
            return Some(taken);
        }
        let Source::Stored { stored, reading: None, .. } = &self.source else { return None };
        let (at, length) = (self.at, self.end?.checked_sub(self.at)?.min(most));
        if length == 0 || !stored.is_cached(at, length) {
            return None;
        }
        let stored = stored.clone();
        self.at += length;
        Some((stored, at, length))
    }

    /// The next bytes; `None` at the end. After an error nothing more comes.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, FetchError>>> {
        if self.end.is_some_and(|end| self.at >= end) {
            return Poll::Ready(None);
        }
        let next = ready!(self.poll_source(cx));
        match &next {
            Some(Ok(bytes)) => self.at += bytes.len() as u64,
            Some(Err(_)) => self.source = Source::Failed,
            // An end before the promised one is a broken body, never a clean end.
            None if self.end.is_some() => {
                self.source = Source::Failed;
                let e = FetchError::GivenUp(format!("an artifact at byte {}", self.at));
                return Poll::Ready(Some(Err(e)));
            }
            None => {}
        }
        Poll::Ready(next)
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, FetchError>>> {
        let (at, end) = (self.at, self.end);
        loop {
            match &mut self.source {
                Source::Failed => return Poll::Ready(None),
                Source::Pass(receiver) => return receiver.as_mut().poll_next(cx),
                Source::Memory(bytes) => {
                    let bytes = std::mem::take(bytes);
                    return Poll::Ready((!bytes.is_empty()).then_some(Ok(bytes)));
                }
                Source::Parts(parts, part) => {
                    if let Some(current) = part
                        && let Some(next) = ready!(current.poll_next(cx))
                    {
                        return Poll::Ready(Some(next));
                    }
                    *part = parts.next().map(Box::new);
                    if part.is_none() {
                        return Poll::Ready(None);
                    }
                }
                Source::Stored { stored, inner, reading } => {
                    let read = match reading {
                        Some(future) => {
                            let read = ready!(future.as_mut().poll(cx));
                            *reading = None;
                            read
                        }
                        None => {
                            let left = end.map_or(0, |end| end - at);
                            let mut buffer = Buffer::take();
                            match stored.read_cached(buffer.space(left), at) {
                                Some(n) => Ok(buffer.freeze(n)),
                                None => {
                                    let stored = stored.clone();
                                    let read = move |out: &mut [u8]| stored.read(out, at);
                                    *reading = Some(read_later(&inner.disk, buffer, left, read));
                                    continue;
                                }
                            }
                        }
                    };
                    let failed = |e: std::io::Error| {
                        log::error!("artifact {} cannot be read: {e}; run `dpm verify`", stored.sha256);
                        FetchError::Disk(stored.sha256.to_string(), e.to_string())
                    };
                    return Poll::Ready(Some(read.map_err(failed)));
                }
                Source::Flight { flight, inner, listener, reading } => {
                    if let Some(future) = reading {
                        let read = ready!(future.as_mut().poll(cx));
                        *reading = None;
                        return Poll::Ready(Some(read.map_err(|e| flight.disk(&e))));
                    }
                    // The listener comes first: what changes after it was made wakes us.
                    let waiting = listener.get_or_insert_with(|| Box::pin(flight.listen()));
                    match flight.view(at) {
                        View::Ready { file, until } => {
                            *listener = None;
                            let until = end.map_or(until, |end| end.min(until)).min(at + CHUNK as u64);
                            let mut buffer = Buffer::take();
                            // Mostly just written, and in the page cache; a late reader of a large one may find it
                            // gone from there.
                            if let Some(n) = read_cached(&file, buffer.space(until - at), at) {
                                return Poll::Ready(Some(Ok(buffer.freeze(n))));
                            }
                            let read = move |out: &mut [u8]| file.read_at(out, at);
                            *reading = Some(read_later(&inner.disk, buffer, until - at, read));
                        }
                        View::Wait => {
                            ready!(waiting.as_mut().poll(cx));
                            *listener = None;
                        }
                        View::End => return Poll::Ready(None),
                        View::Failed(e) => return Poll::Ready(Some(Err(e))),
                        View::NoRoom(given) => {
                            let artifact = flight.artifact.clone();
                            let receiver = pass::start(inner, artifact, given, at, end);
                            self.source = Source::Pass(Box::pin(receiver));
                        }
                    }
                }
            }
        }
    }
}

/// Reads on a blocking thread, through the gate.
fn read_later(
    disk: &Gate,
    mut buffer: Buffer,
    left: u64,
    read: impl FnOnce(&mut [u8]) -> std::io::Result<usize> + Send + 'static,
) -> Reading {
    let disk = disk.clone();
    let work = move || match read(buffer.space(left))? {
        0 => Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the file is shorter than recorded")),
        n => Ok(buffer.freeze(n)),
    };
    Box::pin(async move { disk.run(work).await })
}
