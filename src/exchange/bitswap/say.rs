//! A stream of ours to one peer: messages go out on it, and what the peer answers there is heard.

use std::io::{Error, ErrorKind, Result};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::io::{AsyncWriteExt, WriteHalf};
use futures_lite::{FutureExt, future};

use crate::base::PeerId;
use crate::swarm::Stream;

use super::super::{BITSWAP, Exchange};
use super::{hear, within};

/// Bytes written at a time, and the time in which a peer must take them.
const PIECE_BYTES: usize = 256 << 10;
const PIECE_TIME: Duration = Duration::from_secs(20);

/// Time for a peer to take the rest, and to end its half, once we have ended ours.
const CLOSE_TIME: Duration = Duration::from_secs(30);

/// Opens a stream when there is something to say, and again when the peer has closed it.
pub(super) struct Voice {
    exchange: Exchange,
    peer: PeerId,
    stream: Option<Open>,
}

struct Open {
    writer: WriteHalf<Stream>,
    /// Dropped, the other half is heard for [`CLOSE_TIME`] at most.
    _open: async_channel::Sender<()>,
}

impl Voice {
    pub(super) fn new(exchange: Exchange, peer: PeerId) -> Self {
        Self { exchange, peer, stream: None }
    }

    /// Writes a message; once more, on a new stream, if the peer has closed the old one.
    pub(super) async fn say(&mut self, pieces: &[Bytes]) -> Result<()> {
        if let Some(open) = &mut self.stream {
            match write(&mut open.writer, pieces).await {
                Err(e) if e.kind() != ErrorKind::TimedOut => {}
                written => return written,
            }
        }
        self.stream = None;
        // Whoever is spoken with here has spoken bitswap, or said that it does: nothing is to be negotiated first.
        let opened = self.exchange.inner.swarm.open_at_once(self.peer, BITSWAP).await;
        let (reader, writer) = futures_lite::io::split(opened.map_err(Error::other)?);
        let (sender, closed) = async_channel::bounded::<()>(1);
        let (exchange, peer) = (self.exchange.clone(), self.peer);
        self.exchange.inner.tasks.spawn(async move {
            let over = async {
                let _ = closed.recv().await;
                async_io::Timer::after(CLOSE_TIME).await;
            };
            hear::hear_answers(&exchange, peer, reader).or(over).await;
        });
        let open = self.stream.insert(Open { writer, _open: sender });
        write(&mut open.writer, pieces).await
    }

    /// Ends our half. The stream itself goes once the peer has ended its own: dropped before, it would lose the rest.
    pub(super) async fn close(self) {
        let Some(mut open) = self.stream else { return };
        let closing = within(CLOSE_TIME, "closing", open.writer.close());
        if let Err(e) = closing.await {
            log::debug!("closing a stream to {}: {e}", self.peer);
        }
    }
}

async fn write(writer: &mut WriteHalf<Stream>, pieces: &[Bytes]) -> Result<()> {
    for piece in pieces.iter().flat_map(|piece| piece.chunks(PIECE_BYTES)) {
        within(PIECE_TIME, "taking a piece", writer.write_all(piece)).await?;
    }
    within(PIECE_TIME, "taking a message", writer.flush()).await
}

/// Whether `event` comes within `time`.
pub(super) async fn comes_within(event: event_listener::EventListener, time: Duration) -> bool {
    let comes = async {
        event.await;
        true
    };
    let not = async {
        async_io::Timer::after(time).await;
        false
    };
    future::or(comes, not).await
}
