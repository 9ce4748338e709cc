//! Streams in and out, for every protocol that is not libp2p's own.
//!
//! libp2p-stream does the like, but keeps one waiting stream a protocol and drops the next, and negotiates one stream
//! a connection at a time. Helia and Kubo open a stream a message, which would lose messages, and round trips.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_channel::{Receiver, Sender, TrySendError};
use event_listener::Event;
use futures_lite::{FutureExt, Stream as _};
use libp2p::Stream;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, InboundUpgrade, OutboundUpgrade, UpgradeInfo};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    StreamProtocol, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm,
};

use super::SwarmError;
use super::limits::{OPEN_TIME, OPENING, WAITING, WAITING_PER_PEER};
use crate::base::{Multiaddr, PeerId};

/// When the protocol of a new stream is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settle {
    /// Before the stream is handed out: a round trip, and a peer that does not speak it is known at once.
    First,
    /// With the first bytes that are written: no round trip, and a peer that does not speak it shows on reading.
    Along,
}

/// Stands behind a protocol that is to be settled first. Never sent: it comes up when the peer has refused the other.
const NEITHER: StreamProtocol = StreamProtocol::new("/dpm/neither");

/// What the handle, the behaviour and the connections' handlers share.
pub(super) struct Shared {
    protocols: Vec<StreamProtocol>,
    inboxes: HashMap<&'static str, Inbox>,
    connections: Mutex<HashMap<PeerId, Vec<Connection>>>,
    dropped: AtomicU64,
}

struct Connection {
    id: ConnectionId,
    orders: Sender<Order>,
    kin: Arc<AtomicBool>,
}

/// A stream to be opened, and where to put it.
struct Order {
    protocol: StreamProtocol,
    settle: Settle,
    answer: Answer,
}

pub(super) type Answer = Sender<Result<Stream, Failure>>;

/// Why a stream was not opened.
pub(super) enum Failure {
    Unsupported,
    TimedOut,
    Io(io::Error),
}

impl Shared {
    /// For a node that accepts `protocols`.
    pub(super) fn new(protocols: &[&'static str]) -> Self {
        Self {
            protocols: protocols.iter().map(|p| StreamProtocol::new(p)).collect(),
            inboxes: protocols.iter().map(|p| (*p, Inbox::default())).collect(),
            connections: Mutex::default(),
            dropped: AtomicU64::new(0),
        }
    }

    /// Opens a stream on the newest connection to `peer`: an older one may be that of a process which crashed a moment
    /// ago. Cancel-safe: a stream that nobody waits for is reset.
    pub(super) async fn open(
        &self,
        peer: PeerId,
        protocol: &'static str,
        settle: Settle,
    ) -> Result<Stream, SwarmError> {
        let orders = {
            let connections = self.connections.lock().expect(LOCK);
            connections.get(&peer).and_then(|of| of.last()).map(|c| c.orders.clone())
        };
        let orders = orders.ok_or(SwarmError::NotConnected { peer })?;
        let (answer, answered) = async_channel::bounded(1);
        let order = Order { protocol: StreamProtocol::new(protocol), settle, answer };
        match orders.try_send(order) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(SwarmError::Busy { peer }),
            Err(TrySendError::Closed(_)) => return Err(SwarmError::NotConnected { peer }),
        }
        let late = async {
            async_io::Timer::after(OPEN_TIME).await;
            Ok(Err(Failure::TimedOut))
        };
        match answered.recv().or(late).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(Failure::Unsupported)) => Err(SwarmError::Unsupported { peer, protocol }),
            Ok(Err(Failure::TimedOut)) => Err(SwarmError::TimedOut { peer, limit: OPEN_TIME }),
            Ok(Err(Failure::Io(source))) => Err(SwarmError::Open { peer, source }),
            // The connection went, and the order with it.
            Err(_) => Err(SwarmError::NotConnected { peer }),
        }
    }

    /// The next stream that a peer opened for `protocol`; `None` once stopped, and for a protocol never named.
    pub(super) async fn accept(&self, protocol: &'static str) -> Option<(PeerId, Stream)> {
        self.inboxes.get(protocol)?.pop().await
    }

    /// Streams that were reset since nobody accepted them in time.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Keeps the connections to `peer` while they are idle.
    pub(super) fn keep(&self, peer: &PeerId) {
        for connection in self.connections.lock().expect(LOCK).get(peer).into_iter().flatten() {
            connection.kin.store(true, Ordering::Relaxed);
        }
    }

    /// No more streams.
    pub(super) fn close(&self) {
        self.connections.lock().expect(LOCK).clear();
        self.inboxes.values().for_each(Inbox::close);
    }

    fn enter(self: &Arc<Self>, peer: PeerId, id: ConnectionId) -> Handler {
        let (orders, receiver) = async_channel::bounded(OPENING);
        let kin = Arc::new(AtomicBool::new(false));
        let connection = Connection { id, orders, kin: kin.clone() };
        self.connections.lock().expect(LOCK).entry(peer).or_default().push(connection);
        Handler { peer, shared: self.clone(), orders: Box::pin(receiver), opening: 0, kin }
    }

    fn leave(&self, peer: &PeerId, id: ConnectionId) {
        let mut connections = self.connections.lock().expect(LOCK);
        if let Some(of) = connections.get_mut(peer) {
            of.retain(|c| c.id != id);
            if of.is_empty() {
                connections.remove(peer);
            }
        }
    }

    fn deliver(&self, peer: PeerId, protocol: &StreamProtocol, stream: Stream) {
        let delivered = self.inboxes.get(protocol.as_ref()).is_some_and(|i| i.push(peer, stream));
        if !delivered {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            log::debug!("{peer} opens {protocol} faster than it is accepted");
        }
    }
}

const LOCK: &str = "nothing panics under this lock";

/// Streams of one protocol that wait to be accepted. A full one drops the new stream, which resets it.
#[derive(Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    news: Event,
}

#[derive(Default)]
struct Waiting {
    streams: VecDeque<(PeerId, Stream)>,
    closed: bool,
}

impl Inbox {
    fn push(&self, peer: PeerId, stream: Stream) -> bool {
        let mut waiting = self.waiting.lock().expect(LOCK);
        let of_peer = waiting.streams.iter().filter(|(p, _)| *p == peer).count();
        if waiting.closed || waiting.streams.len() >= WAITING || of_peer >= WAITING_PER_PEER {
            return false;
        }
        waiting.streams.push_back((peer, stream));
        self.news.notify_additional(1);
        true
    }

    async fn pop(&self) -> Option<(PeerId, Stream)> {
        loop {
            let news = self.news.listen();
            {
                let mut waiting = self.waiting.lock().expect(LOCK);
                if let Some(first) = waiting.streams.pop_front() {
                    return Some(first);
                }
                if waiting.closed {
                    return None;
                }
            }
            news.await;
        }
    }

    fn close(&self) {
        let mut waiting = self.waiting.lock().expect(LOCK);
        waiting.closed = true;
        waiting.streams.clear();
        self.news.notify(usize::MAX);
    }
}

/// The behaviour: one [`Handler`] a connection.
pub(super) struct Streams {
    shared: Arc<Shared>,
}

impl Streams {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        _remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.shared.enter(peer, id))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _remote: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.shared.enter(peer, id))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let FromSwarm::ConnectionClosed(closed) = event {
            self.shared.leave(&closed.peer_id, closed.connection_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// One connection's part.
pub(super) struct Handler {
    peer: PeerId,
    shared: Arc<Shared>,
    orders: Pin<Box<Receiver<Order>>>,
    /// Streams asked for and not settled yet.
    opening: usize,
    kin: Arc<AtomicBool>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Negotiate;
    type OutboundProtocol = Negotiate;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Answer;

    fn listen_protocol(&self) -> SubstreamProtocol<Negotiate, ()> {
        SubstreamProtocol::new(Negotiate(self.shared.protocols.clone()), ()).with_timeout(OPEN_TIME)
    }

    fn connection_keep_alive(&self) -> bool {
        self.kin.load(Ordering::Relaxed)
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Negotiate, Answer, Infallible>> {
        if self.opening >= OPENING {
            return Poll::Pending;
        }
        match self.orders.as_mut().poll_next(cx) {
            Poll::Ready(Some(Order { protocol, settle, answer })) => {
                self.opening += 1;
                // The last name of a list is settled along the way, those before it by the peer's word.
                let names = match settle {
                    Settle::First => vec![protocol, NEITHER],
                    Settle::Along => vec![protocol],
                };
                let protocol = SubstreamProtocol::new(Negotiate(names), answer).with_timeout(OPEN_TIME);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            _ => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<'_, Negotiate, Negotiate, (), Answer>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: (stream, protocol),
                ..
            }) => self.shared.deliver(self.peer, &protocol, stream),
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: (stream, agreed),
                info: answer,
            }) => {
                self.opening -= 1;
                let opened = if agreed == NEITHER { Err(Failure::Unsupported) } else { Ok(stream) };
                // Where nobody waits any longer the stream is dropped, which resets it.
                let _ = answer.try_send(opened);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: answer }) => {
                self.opening -= 1;
                let _ = answer.try_send(Err(match error {
                    StreamUpgradeError::Timeout => Failure::TimedOut,
                    StreamUpgradeError::NegotiationFailed => Failure::Unsupported,
                    StreamUpgradeError::Io(e) => Failure::Io(e),
                    StreamUpgradeError::Apply(never) => match never {},
                }));
            }
            _ => {}
        }
    }
}

/// An upgrade that upgrades nothing: the bare stream, and the protocol agreed on.
pub(super) struct Negotiate(Vec<StreamProtocol>);

impl UpgradeInfo for Negotiate {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Negotiate {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}

impl OutboundUpgrade<Stream> for Negotiate {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, protocol: StreamProtocol) -> Self::Future {
        ready(Ok((stream, protocol)))
    }
}
