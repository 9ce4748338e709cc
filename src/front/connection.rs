//! A client's socket as hyper wants it: vectored writes, coarse deadlines, no copy of a body.

use std::io::{self, IoSlice, Read, Write};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_io::Async;
use hyper::rt::{ReadBufCursor, Sleep, Timer};

use crate::base::limits;
use crate::rt::{Deadline, Ticker};

use super::wire::Wire;

/// Bytes read from a client at a time: a request's head is some hundred.
const READ_BYTES: usize = 4096;

/// A connected socket.
pub(super) struct Connection<S> {
    socket: Async<S>,
    ticker: Ticker,
    /// Runs while the client takes no bytes.
    stalled: Option<Deadline>,
    wire: Wire,
}

impl<S> Connection<S> {
    pub(super) fn new(socket: Async<S>, ticker: Ticker) -> Self {
        Self { socket, ticker, stalled: None, wire: Wire::default() }
    }

    /// Its way of sending files.
    pub(super) fn wire(&self) -> Wire {
        self.wire.clone()
    }

    /// Tries a write until it succeeds, the client stalls for too long, or the socket is full.
    fn poll_io(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&Async<S>) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(&self.socket) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                done => {
                    self.stalled = None;
                    return Poll::Ready(done);
                }
            }
            let ticker = &self.ticker;
            let stalled = self
                .stalled
                .get_or_insert_with(|| ticker.deadline(Instant::now() + limits::CLIENT_STALL_TIME));
            if Pin::new(stalled).poll(cx).is_ready() {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the client takes no bytes",
                )));
            }
            ready!(self.socket.poll_writable(cx))?;
        }
    }
}

impl<S: Unpin> hyper::rt::Read for Connection<S>
where
    for<'a> &'a S: Read,
{
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut out: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let mut buffer = [0; READ_BYTES];
        let room = out.remaining().min(READ_BYTES);
        loop {
            match (&mut this.socket.get_ref()).read(&mut buffer[..room]) {
                Ok(n) => {
                    out.put_slice(&buffer[..n]);
                    return Poll::Ready(Ok(()));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(this.socket.poll_readable(cx))?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }
}

impl<S: Unpin + Shutdown + AsFd> hyper::rt::Write for Connection<S>
where
    for<'a> &'a S: Write,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let wire = this.wire.clone();
        this.poll_io(cx, |socket| {
            wire.write(socket, slices, |slices| (&mut socket.get_ref()).write_vectored(slices))
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().socket.get_ref().shutdown_write())
    }
}

/// Sockets whose writing side can be closed.
pub(super) trait Shutdown {
    fn shutdown_write(&self) -> io::Result<()>;
}

impl Shutdown for std::net::TcpStream {
    fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(std::net::Shutdown::Write)
    }
}

impl Shutdown for std::os::unix::net::UnixStream {
    fn shutdown_write(&self) -> io::Result<()> {
        self.shutdown(std::net::Shutdown::Write)
    }
}

/// hyper's deadlines on the coarse ticker.
#[derive(Clone)]
pub(super) struct CoarseTimer(pub(super) Ticker);

struct CoarseSleep(Deadline);

impl Future for CoarseSleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl Sleep for CoarseSleep {}

impl Timer for CoarseTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(CoarseSleep(self.0.deadline(deadline)))
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        match sleep.as_mut().downcast_mut_pin::<CoarseSleep>() {
            Some(ours) => ours.get_mut().0.reset(deadline),
            None => *sleep = self.sleep_until(deadline),
        }
    }
}
