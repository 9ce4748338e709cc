//! Two wrappers around ureq's connections, for what it has no setting for.
//!
//! [`Paced`] lies on the socket, below TLS, and counts bytes against time spent waiting. [`Strict`] lies on top,
//! and keeps a broken connection from looking like the end of a body.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Makes [`Paced`] transports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Least bytes a second, averaged over `over`.
    pub(super) bytes_per_second: u64,
    /// How much waiting is averaged.
    pub(super) over: Duration,
}

impl<In: Transport> Connector<In> for Pace {
    type Out = Paced<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| Paced { inner, pace: *self, waited: Duration::ZERO, received_bytes: 0 }))
    }
}

/// A connection that fails when it trickles.
///
/// Only time spent waiting for the peer counts: a reader that is itself slow is not the upstream's fault.
/// It must lie below TLS, because a read above it returns only when a whole record arrived.
#[derive(Debug)]
pub(super) struct Paced<T> {
    inner: T,
    pace: Pace,
    waited: Duration,
    received_bytes: u64,
}

impl<T: Transport> Transport for Paced<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        // A new request: the pace of the last answer says nothing about the next.
        (self.waited, self.received_bytes) = (Duration::ZERO, 0);
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let before = self.inner.buffers().input().len();
        let start = Instant::now();
        let progress = self.inner.await_input(timeout)?;
        self.waited += start.elapsed();
        self.received_bytes += self.inner.buffers().input().len().saturating_sub(before) as u64;
        if self.waited >= self.pace.over {
            let floor = self.pace.bytes_per_second as f64 * self.waited.as_secs_f64();
            if (self.received_bytes as f64) < floor {
                return Err(Error::Other(Box::new(Trickle)));
            }
            (self.waited, self.received_bytes) = (Duration::ZERO, 0);
        }
        Ok(progress)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// Makes [`Strict`] transports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strictness;

impl<In: Transport> Connector<In> for Strictness {
    type Out = Strict<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(Strict))
    }
}

/// A connection whose breaking is an error.
///
/// ureq takes a reset, or TLS that ends without `close_notify`, for the end of a body without a length.
#[derive(Debug)]
pub(super) struct Strict<T>(T);

impl<T: Transport> Transport for Strict<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.0.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.0.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.0.await_input(timeout).map_err(|error| match error {
            Error::Io(e) if is_cut(e.kind()) => Error::Other(Box::new(Cut)),
            other => other,
        })
    }

    fn is_open(&mut self) -> bool {
        self.0.is_open()
    }

    fn is_tls(&self) -> bool {
        self.0.is_tls()
    }
}

/// Whether an I/O error says that the peer is gone.
pub(super) fn is_cut(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, UnexpectedEof | ConnectionAborted | ConnectionReset | BrokenPipe)
}

/// Travels through ureq as `Error::Other`: the peer sends less than the floor.
#[derive(Debug, thiserror::Error)]
#[error("too slow")]
pub(super) struct Trickle;

/// Travels through ureq as `Error::Other`: the connection broke.
#[derive(Debug, thiserror::Error)]
#[error("connection cut")]
pub(super) struct Cut;
