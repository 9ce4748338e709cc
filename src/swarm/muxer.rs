//! A QUIC connection as libp2p's muxer, and its streams.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_io::{AsyncRead, AsyncWrite};
use libp2p::core::muxing::{StreamMuxer, StreamMuxerEvent};
use quinn::{Connection, ConnectionError, RecvStream, SendStream, WriteError};

use crate::base::PeerId;

/// Bytes on a stream opened by the peer whose loss is swallowed when it does not want to read.
///
/// Kubo before 0.33 sends its request and stops reading before our answer to the negotiation came. An error here would
/// throw away a request that has arrived whole. The answer has the length of a protocol's name and 20 bytes.
const SWALLOWED_BYTES: usize = 256;

/// The open connections, for their figures.
#[derive(Clone, Default)]
pub(super) struct Registry {
    open: Arc<Mutex<HashMap<usize, (PeerId, Connection)>>>,
}

/// What the connections to one peer have done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Figures {
    /// The shortest of their round trips, as the packets show it.
    pub(super) round_trip: Option<Duration>,
    /// Bytes in UDP datagrams that came.
    pub(super) received_bytes: u64,
    /// Bytes in UDP datagrams that went.
    pub(super) sent_bytes: u64,
}

impl Registry {
    /// Figures of every connected peer.
    pub(super) fn figures(&self) -> HashMap<PeerId, Figures> {
        let mut all: HashMap<PeerId, Figures> = HashMap::new();
        for (peer, connection) in self.open.lock().expect(LOCK).values() {
            let stats = connection.stats();
            let of = all.entry(*peer).or_default();
            of.received_bytes += stats.udp_rx.bytes;
            of.sent_bytes += stats.udp_tx.bytes;
            of.round_trip = Some(of.round_trip.map_or(stats.path.rtt, |r| r.min(stats.path.rtt)));
        }
        all
    }

    /// How many are open.
    pub(super) fn len(&self) -> usize {
        self.open.lock().expect(LOCK).len()
    }
}

const LOCK: &str = "nothing panics under this lock";

type Streams = (SendStream, RecvStream);
type Opening = Pin<Box<dyn Future<Output = Result<Streams, ConnectionError>> + Send>>;

/// A connection. Dropping it closes it.
pub(super) struct Muxer {
    connection: Connection,
    registry: Registry,
    inbound: Option<Opening>,
    outbound: Option<Opening>,
}

impl Muxer {
    /// Takes a connection over and enters it in `registry`.
    pub(super) fn new(peer: PeerId, connection: Connection, registry: Registry) -> Self {
        registry.open.lock().expect(LOCK).insert(connection.stable_id(), (peer, connection.clone()));
        connection.set_receive_window(super::quic::window(registry.len()));
        Self { connection, registry, inbound: None, outbound: None }
    }
}

impl Drop for Muxer {
    fn drop(&mut self) {
        self.connection.close(0u32.into(), b"");
        self.registry.open.lock().expect(LOCK).remove(&self.connection.stable_id());
    }
}

impl StreamMuxer for Muxer {
    type Substream = Substream;
    type Error = ConnectionError;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Substream, Self::Error>> {
        let Self { connection, inbound, .. } = &mut *self;
        let next = inbound.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.accept_bi().await })
        });
        let opened = ready!(next.as_mut().poll(cx));
        *inbound = None;
        Poll::Ready(opened.map(|streams| Substream::new(streams, SWALLOWED_BYTES)))
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<Substream, Self::Error>> {
        let Self { connection, outbound, .. } = &mut *self;
        let next = outbound.get_or_insert_with(|| {
            let connection = connection.clone();
            Box::pin(async move { connection.open_bi().await })
        });
        let opened = ready!(next.as_mut().poll(cx));
        *outbound = None;
        Poll::Ready(opened.map(|streams| Substream::new(streams, 0)))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        // quinn sends the frame by itself; the swarm's stop waits for that.
        self.connection.close(0u32.into(), b"");
        Poll::Ready(Ok(()))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<StreamMuxerEvent, Self::Error>> {
        // Addresses do not change (no migration), and a lost connection shows in `poll_inbound`.
        Poll::Pending
    }
}

/// A stream. One dropped before it was closed is reset, so that half a message never looks like a whole one.
pub(super) struct Substream {
    send: SendStream,
    receive: RecvStream,
    closed: bool,
    swallow: usize,
}

impl Substream {
    fn new((send, receive): Streams, swallow: usize) -> Self {
        Self { send, receive, closed: false, swallow }
    }
}

impl AsyncRead for Substream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        AsyncRead::poll_read(Pin::new(&mut self.receive), cx, buf)
    }
}

impl AsyncWrite for Substream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match ready!(Pin::new(&mut self.send).poll_write(cx, buf)) {
            Ok(count) => {
                self.swallow = self.swallow.saturating_sub(count);
                Poll::Ready(Ok(count))
            }
            Err(WriteError::Stopped(_)) if !buf.is_empty() && buf.len() <= self.swallow => {
                self.swallow -= buf.len();
                Poll::Ready(Ok(buf.len()))
            }
            Err(e) => Poll::Ready(Err(e.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed {
            self.send.finish()?;
            self.closed = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Substream {
    fn drop(&mut self) {
        if !self.closed {
            let _ = self.send.reset(0u32.into());
        }
    }
}
