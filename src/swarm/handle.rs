//! The handle that the rest of dpm holds.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};

use super::address::socket_of;
use super::dial::{Book, Sought};
use super::gate::{Admit, Blocked};
use super::limits::{ADDRESSES, ORDERS};
use super::muxer::Registry;
use super::node::{Node, Order, State};
use super::quic::Settings;
use super::runtime::Runtime;
use super::streams::{self, Settle};
use super::tls::Credentials;
use super::transport::Quic;
use super::{Identity, Limits, SwarmError};
use crate::base::{Multiaddr, PeerId};
use crate::rt::Tasks;

/// A libp2p stream to or from a peer: `AsyncRead`, `AsyncWrite`, `Unpin`, `Send`.
///
/// Closing it ends our half and sends what was written; the other half goes on until its end. A stream that is dropped
/// unclosed is **reset**: the peer's reading fails, and bytes not yet sent are lost. After the last write, close, and
/// read to the end before dropping, or a slow peer loses the tail.
pub type Stream = libp2p::Stream;

/// What happens in the swarm, in order. A reader that is 1,024 late loses the oldest ones:
/// [`Swarm::peers`] and [`Swarm::listeners`] always have the truth. The queue closes when the swarm stops.
pub type Events = Receiver<Event>;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A peer's first connection is there, and its identity is proven.
    Connected {
        /// Who.
        peer: PeerId,
        /// Where, without the peer id.
        address: Multiaddr,
    },
    /// A connected peer has another connection more, or one fewer.
    Moved {
        /// Who.
        peer: PeerId,
        /// Where all its connections are, without the peer id.
        addresses: Vec<Multiaddr>,
    },
    /// A peer's last connection has gone.
    Disconnected {
        /// Who.
        peer: PeerId,
    },
    /// A peer has said what it is. Its words, cut to size.
    Identified {
        /// Who.
        peer: PeerId,
        /// Its software.
        agent: String,
        /// What it speaks.
        protocols: Vec<String>,
        /// Where it says that it listens, as far as we could dial it there. Nothing of this is proven.
        addresses: Vec<Multiaddr>,
    },
    /// The addresses that we listen on have changed: all of them.
    Listening(Vec<Multiaddr>),
}

/// How to start a swarm.
pub struct Options {
    /// Who we are.
    pub key: Identity,
    /// `/ip4|ip6/…/udp/N/quic-v1`: port 0 lets the system choose, a wildcard stands for all interfaces.
    pub listen: Vec<Multiaddr>,
    /// What [`Swarm::accept`] will accept. Told to peers from the first second.
    pub protocols: Vec<&'static str>,
    /// Our software's name and version, for peers.
    pub agent: String,
    /// How much of the node its peers may take.
    pub limits: Limits,
    /// Whether a peer may be connected at an address (without peer id, perhaps beginning with `/ip6zone/…`: see
    /// [`ip_of`](super::ip_of)). Asked for each connection in either direction, from the swarm's task: it must be quick.
    pub admit: Admit,
}

/// A connected peer.
#[derive(Clone, Debug)]
pub struct PeerInfo {
    /// Who.
    pub peer: PeerId,
    /// Where its connections are, without the peer id.
    pub addresses: Vec<Multiaddr>,
    /// Its software as it says; empty until it has.
    pub agent: String,
    /// What it speaks; empty until it has said.
    pub protocols: Vec<String>,
    /// The shorter of the last ping's round trip and what the packets show: either is longer while much is sent.
    pub rtt: Option<Duration>,
    /// How long it has been connected without a gap.
    pub connected_for: Duration,
    /// Bytes in UDP datagrams from it on the open connections.
    pub received_bytes: u64,
    /// Bytes in UDP datagrams to it on the open connections.
    pub sent_bytes: u64,
}

/// A running libp2p node. Clones share it; it stops when the last one is dropped, or by [`Swarm::stop`].
#[derive(Clone)]
pub struct Swarm {
    inner: Arc<Inner>,
}

struct Inner {
    peer: PeerId,
    orders: Sender<Order>,
    state: Arc<Mutex<State>>,
    book: Arc<Mutex<Book>>,
    streams: Arc<streams::Shared>,
    blocked: Arc<Blocked>,
    registry: Registry,
    /// Closed when the node has ended, and all its tasks.
    ended: Receiver<()>,
}

const LOCK: &str = "nothing panics under this lock";

impl Swarm {
    /// Listens and starts. All of the swarm's tasks belong to one task in `tasks`.
    ///
    /// [`SwarmError::PortTaken`] when another program has the port: nothing is left running then.
    pub fn start(options: Options, tasks: &Tasks) -> Result<(Self, Events), SwarmError> {
        let own = tasks.sibling();
        let peer = options.key.peer_id();
        let registry = Registry::default();
        let blocked = Arc::new(Blocked::default());
        let streams = Arc::new(streams::Shared::new(&options.protocols));
        let settings = Settings::new(Credentials::new(&options.key)?)?;
        let quic = Quic::new(settings, Arc::new(Runtime::new(own.spawner())), registry.clone());
        let (orders, taken) = async_channel::bounded(ORDERS);
        let (node, events) =
            Node::new(options, quic, streams.clone(), blocked.clone(), own.spawner(), taken)?;
        let (state, book) = (node.state.clone(), node.book.clone());
        let (end, ended) = async_channel::bounded(1);
        tasks.spawn(async move {
            node.run().await;
            own.cancel().await;
            drop(end);
        });
        Ok((
            Self { inner: Arc::new(Inner { peer, orders, state, book, streams, blocked, registry, ended }) },
            events,
        ))
    }

    /// Who we are.
    pub fn peer_id(&self) -> PeerId {
        self.inner.peer
    }

    /// Where we can be reached, interface by interface, without our peer id. Empty for a moment after the start:
    /// [`Event::Listening`] tells when that changes.
    pub fn listeners(&self) -> Vec<Multiaddr> {
        self.inner.state.lock().expect(LOCK).listeners.clone()
    }

    /// Connects to `peer` at one of `addresses`, a few times with growing waits. Returns at once. Nothing happens for a
    /// peer that is connected, or was tried a moment ago: a discovery may name it as often as it likes.
    ///
    /// Addresses that are not QUIC, or that name another peer, are left out; of the others 16 are kept.
    pub fn dial(&self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let addresses = self.usable(&peer, addresses);
        if !addresses.is_empty() && peer != self.inner.peer {
            self.order(Order::Dial(peer, addresses));
        }
    }

    /// As [`Swarm::dial`], for ever: the peer is dialled again whenever it is lost.
    pub fn keep(&self, peer: PeerId, addresses: Vec<Multiaddr>) {
        let addresses = self.usable(&peer, addresses);
        if !addresses.is_empty() && peer != self.inner.peer {
            self.order(Order::Keep(peer, addresses));
        }
    }

    /// Takes [`Swarm::keep`] back: once it is lost, the peer is not dialled again.
    pub fn release(&self, peer: &PeerId) {
        self.order(Order::Release(*peer));
    }

    /// Opens a stream to a connected peer, which has agreed to speak `protocol`: one round trip, 10 s at most.
    ///
    /// Never dials. Cancel-safe: a stream that comes too late is reset.
    pub async fn open(&self, peer: PeerId, protocol: &'static str) -> Result<Stream, SwarmError> {
        self.inner.streams.open(peer, protocol, Settle::First).await
    }

    /// As [`Swarm::open`] without its round trip: the protocol's name travels with the first bytes written.
    ///
    /// That a peer does not speak the protocol shows only on reading, so this is for peers that said they do
    /// ([`PeerInfo::protocols`]), and for exchanges that read an answer.
    pub async fn open_at_once(&self, peer: PeerId, protocol: &'static str) -> Result<Stream, SwarmError> {
        self.inner.streams.open(peer, protocol, Settle::Along).await
    }

    /// The next stream that a peer opened for `protocol`. `None` once the swarm has stopped, and at once for a protocol
    /// that [`Options::protocols`] did not name. Cancel-safe.
    ///
    /// 256 streams wait at most, 64 of them from one peer; further ones are reset and counted in
    /// [`Swarm::dropped_streams`].
    pub async fn accept(&self, protocol: &'static str) -> Option<(PeerId, Stream)> {
        self.inner.streams.accept(protocol).await
    }

    /// The connected peers.
    pub fn peers(&self) -> Vec<PeerInfo> {
        let figures = self.inner.registry.figures();
        let now = Instant::now();
        let state = self.inner.state.lock().expect(LOCK);
        let info = |(peer, known): (&PeerId, &super::node::Known)| {
            let figures = figures.get(peer).copied().unwrap_or_default();
            PeerInfo {
                peer: *peer,
                addresses: known.addresses(),
                agent: known.agent.clone(),
                protocols: known.protocols.clone(),
                rtt: known.ping.into_iter().chain(figures.round_trip).min(),
                connected_for: now.saturating_duration_since(known.since),
                received_bytes: figures.received_bytes,
                sent_bytes: figures.sent_bytes,
            }
        };
        state.peers.iter().map(info).collect()
    }

    /// The peers that we dial, or gave up dialling, with the last error.
    pub fn sought(&self) -> Vec<Sought> {
        self.inner.book.lock().expect(LOCK).sought()
    }

    /// Streams that were reset because nobody accepted them in time, since the start.
    pub fn dropped_streams(&self) -> u64 {
        self.inner.streams.dropped()
    }

    /// Events that nobody took in time and that are lost, since the start: whoever follows them looks at
    /// [`Swarm::peers`] when there are more.
    pub fn missed_events(&self) -> u64 {
        self.inner.state.lock().expect(LOCK).missed_events
    }

    /// Closes the connections to `peer`. Who is kept is dialled again.
    pub fn disconnect(&self, peer: &PeerId) {
        self.order(Order::Disconnect(*peer));
    }

    /// Refuses `peer` for the time `until` from now, in both directions, and disconnects it.
    pub fn block(&self, peer: PeerId, until: Duration) {
        self.inner.blocked.add(peer, until, Instant::now());
        self.order(Order::Disconnect(peer));
    }

    /// Closes every connection, so that peers see it at once, and ends all of the swarm's tasks. Takes a few round trips,
    /// 4 s at most. A second call waits for the first.
    pub async fn stop(&self) {
        // A closed queue means that the node has ended.
        let _ = self.inner.orders.send(Order::Stop).await;
        let _ = self.inner.ended.recv().await;
    }

    /// A full queue drops the order: the node hangs then, and what is dropped is asked for again (discovery, strikes).
    fn order(&self, order: Order) {
        if let Err(async_channel::TrySendError::Full(_)) = self.inner.orders.try_send(order) {
            log::warn!("the swarm does not take orders: one is dropped");
        }
    }

    fn usable(&self, peer: &PeerId, addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
        let usable = |address: &Multiaddr| match socket_of(address) {
            Ok((_, named)) => named.is_none_or(|named| named == *peer),
            Err(reason) => {
                log::debug!("{peer} at {address}: {reason}");
                false
            }
        };
        let usable = addresses.iter().filter(|a| usable(a)).map(super::address::without_peer);
        usable.take(ADDRESSES).collect()
    }
}
