//! The bytes of an answer, as they come.

use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::GzDecoder;
use ureq::BodyReader;

use super::UpstreamError;
use super::client::Stop;
use super::origins::Origins;

/// The bytes of an answer, decoded if they came compressed.
///
/// Reading blocks, each time for at most the stall time. It is streaming: memory does not depend on what the
/// upstream sends, and whoever reads a page must bound how much. A read fails with an [`io::Error`] that carries
/// an [`UpstreamError`] (see [`UpstreamError::of`]), and so does every later one; `Ok(0)` means that all of the
/// body came. Dropping it early closes the connection.
pub struct Body {
    from: Source,
    origin: String,
    origins: Option<Arc<Origins>>,
    failed: Option<UpstreamError>,
}

enum Source {
    Nothing,
    Plain(Wire),
    Gzip(Box<GzDecoder<Wire>>),
}

impl Body {
    /// No bytes.
    pub(super) fn empty() -> Self {
        Self { from: Source::Nothing, origin: String::new(), origins: None, failed: None }
    }

    /// Bytes as they come.
    pub(super) fn plain(wire: Wire, origins: Arc<Origins>) -> Self {
        let origin = wire.origin.clone();
        Self { from: Source::Plain(wire), origin, origins: Some(origins), failed: None }
    }

    /// Bytes that are to be decoded.
    pub(super) fn gzip(wire: Wire, origins: Arc<Origins>) -> Self {
        let origin = wire.origin.clone();
        // Some servers say gzip of nothing at all.
        let from = match wire.want {
            Some(0) => Source::Plain(wire),
            _ => Source::Gzip(Box::new(GzDecoder::new(wire))),
        };
        Self { from, origin, origins: Some(origins), failed: None }
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(failed) = &self.failed {
            return Err(failed.clone().into());
        }
        let result = match &mut self.from {
            Source::Nothing => Ok(0),
            Source::Plain(wire) => wire.read(buf),
            Source::Gzip(decoder) => decoder.read(buf),
        };
        result.map_err(|error| {
            let failure = UpstreamError::of(&error).cloned().unwrap_or_else(|| UpstreamError::Encoding {
                origin: self.origin.clone(),
                name: "broken gzip".into(),
            });
            if let Some(origins) = &self.origins {
                origins.note(&self.origin, &failure);
            }
            self.from = Source::Nothing;
            self.failed = Some(failure.clone());
            failure.into()
        })
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("failed", &self.failed).finish_non_exhaustive()
    }
}

/// A body as sent, held to the length that was announced.
pub(super) struct Wire {
    reader: Option<BodyReader<'static>>,
    origin: String,
    got: u64,
    want: Option<u64>,
    counter: Arc<AtomicU64>,
    stop: Arc<Stop>,
}

impl Wire {
    /// `want`: the announced bytes, if any; `counter` takes what comes.
    pub(super) fn new(
        body: ureq::Body,
        origin: &str,
        want: Option<u64>,
        counter: Arc<AtomicU64>,
        stop: Arc<Stop>,
    ) -> Self {
        Self { reader: Some(body.into_reader()), origin: origin.to_owned(), got: 0, want, counter, stop }
    }
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(reader) = self.reader.as_mut() else { return Ok(0) };
        if buf.is_empty() {
            return Ok(0);
        }
        let result = reader.read(buf);
        // Closing shuts the socket down, which looks like the end of a body without a length.
        if !matches!(result, Ok(1..)) && self.stop.is_closed() {
            return Err(UpstreamError::Closed.into());
        }
        let n = result.map_err(|e| UpstreamError::in_body(e.into(), &self.origin, self.got, self.want))?;
        self.got += n as u64;
        self.counter.fetch_add(n as u64, Ordering::Relaxed);
        let Some(want) = self.want else {
            if n == 0 {
                self.reader = None;
            }
            return Ok(n);
        };
        if n == 0 && self.got < want {
            return Err(UpstreamError::Truncated { got: self.got, want: self.want }.into());
        }
        // ureq gives the connection back only when it is read to the end, which costs nothing here.
        let more = self.got > want || self.got == want && reader.read(&mut [0]).is_ok_and(|n| n > 0);
        if more {
            let origin = self.origin.clone();
            return Err(UpstreamError::BadRange { origin, why: "more bytes than announced" }.into());
        }
        if self.got == want {
            self.reader = None;
        }
        Ok(n)
    }
}
