//! The body of an answer, and the note of what became of it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_lite::Stream;
use http_body::{Body, Frame, SizeHint};

use crate::fetch::{self, FetchError};

use super::metrics::Note;
use super::wire::{BLANK_BYTES, FROM_BYTES, Part, Wire};

/// The body of an answer.
pub struct Out {
    kind: Kind,
    /// Written down when the body is dropped: complete or cut off.
    note: Option<Note>,
    /// The connection's way of sending files.
    wire: Option<Wire>,
}

enum Kind {
    Empty,
    /// `HEAD`: nothing is sent, the length is told.
    Told(u64),
    Full(Bytes),
    Stream(fetch::Body),
    Lines(Pin<Box<async_channel::Receiver<Bytes>>>),
}

impl Out {
    /// No bytes.
    pub fn empty() -> Self {
        Self { kind: Kind::Empty, note: None, wire: None }
    }

    /// Bytes in memory.
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Full(bytes.into()), note: None, wire: None }
    }

    /// The answer to a `HEAD` whose `GET` would have `length` bytes.
    pub fn told(length: u64) -> Self {
        Self { kind: Kind::Told(length), note: None, wire: None }
    }

    /// Bytes of an artifact as they come.
    pub fn stream(body: fetch::Body) -> Self {
        Self { kind: Kind::Stream(body), note: None, wire: None }
    }

    /// Lines as somebody sends them; ends when the sender is gone.
    pub fn lines(receiver: async_channel::Receiver<Bytes>) -> Self {
        Self { kind: Kind::Lines(Box::pin(receiver)), note: None, wire: None }
    }

    /// Lets this send files over the connection it is for.
    pub(super) fn over(&mut self, wire: &Wire) {
        self.wire = Some(wire.clone());
    }

    /// Has this written down when the body ends.
    pub(super) fn with_note(mut self, note: Note) -> Self {
        self.note = Some(note);
        self
    }
}

/// A blank that stands for the next bytes of a large body, if they can be sent from the page cache.
fn blank(body: &mut fetch::Body, wire: &Wire) -> Option<Bytes> {
    body.remaining().filter(|left| *left >= FROM_BYTES)?;
    let (stored, at, length) = body.take_cached(BLANK_BYTES as u64)?;
    let length = usize::try_from(length).expect("a blank fits in memory");
    Some(wire.blank(Part { stored, at, length }))
}

impl Body for Out {
    type Data = Bytes;
    type Error = FetchError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, FetchError>>> {
        let this = self.get_mut();
        let next = match &mut this.kind {
            Kind::Empty | Kind::Told(_) => return Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                this.kind = Kind::Empty;
                Poll::Ready(Some(Ok(bytes)))
            }
            Kind::Stream(body) => match this.wire.as_ref().and_then(|wire| blank(body, wire)) {
                Some(blank) => Poll::Ready(Some(Ok(blank))),
                None => body.poll_next(cx),
            },
            Kind::Lines(receiver) => receiver.as_mut().poll_next(cx).map(|line| line.map(Ok)),
        };
        if let (Some(note), Poll::Ready(next)) = (&mut this.note, &next) {
            match next {
                Some(Ok(bytes)) => note.bytes += bytes.len() as u64,
                Some(Err(e)) => note.cut = Some(e.to_string()),
                None => {}
            }
        }
        next.map(|next| next.map(|bytes| bytes.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Told(_) | Kind::Lines(_) => false,
            Kind::Full(bytes) => bytes.is_empty(),
            Kind::Stream(body) => body.remaining() == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Lines(_) => SizeHint::new(),
            Kind::Told(length) => SizeHint::with_exact(*length),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(body) => body.remaining().map_or_else(SizeHint::new, SizeHint::with_exact),
        }
    }
}
