//! The task that drives libp2p's `Swarm`: orders in, events out, the state that the handle reads.

use std::collections::BTreeMap;
use std::num::NonZeroU8;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use futures_lite::{FutureExt, StreamExt};
use libp2p::core::ConnectedPoint;
use libp2p::core::upgrade::Version;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{Config, ConnectionId, DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Transport, identify, ping};

use super::address::{socket_of, without_peer};
use super::dial::Book;
use super::gate::{Blocked, Gate};
use super::limits::{ADDRESSES, EVENTS, NAME_BYTES, PROTOCOLS, STOP_TIME};
use super::quic::STREAMS;
use super::streams::{self, Streams};
use super::transport::{Endpoints, Quic};
use super::{Event, Options, SwarmError};
use crate::base::{Multiaddr, PeerId};
use crate::rt::Spawner;

/// The version of libp2p's protocol family that `identify` tells: what Kubo and Helia tell.
const FAMILY: &str = "ipfs/0.1.0";

/// How often peers are asked who they are, and whether they live.
const IDENTIFY_TIME: Duration = Duration::from_secs(300);
const PING_TIME: Duration = Duration::from_secs(15);

/// Addresses of one peer that are dialled at once.
const RACE: NonZeroU8 = NonZeroU8::new(4).expect("four is not zero");

/// What the handle tells the task.
pub(super) enum Order {
    Dial(PeerId, Vec<Multiaddr>),
    Keep(PeerId, Vec<Multiaddr>),
    Release(PeerId),
    Disconnect(PeerId),
    Stop,
}

/// What the handle reads.
#[derive(Default)]
pub(super) struct State {
    pub(super) peers: BTreeMap<PeerId, Known>,
    pub(super) listeners: Vec<Multiaddr>,
    /// Events that made room for later ones.
    pub(super) missed_events: u64,
}

/// A connected peer.
pub(super) struct Known {
    pub(super) connections: Vec<(ConnectionId, Multiaddr)>,
    pub(super) since: Instant,
    pub(super) agent: String,
    pub(super) protocols: Vec<String>,
    /// Where it says that it listens.
    claimed: Vec<Multiaddr>,
    pub(super) ping: Option<Duration>,
}

impl Known {
    /// Where its connections are.
    pub(super) fn addresses(&self) -> Vec<Multiaddr> {
        self.connections.iter().map(|(_, address)| address.clone()).collect()
    }
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p::swarm::derive_prelude")]
struct Behaviour {
    /// First: what it refuses, the others never hear of.
    gate: Gate,
    streams: Streams,
    ping: ping::Behaviour,
    identify: identify::Behaviour,
}

/// The task.
pub(super) struct Node {
    swarm: libp2p::Swarm<Behaviour>,
    orders: Receiver<Order>,
    events: Sender<Event>,
    /// Held so that the queue stays open; never read.
    _reader: Receiver<Event>,
    pub(super) state: Arc<Mutex<State>>,
    pub(super) book: Arc<Mutex<Book>>,
    streams: Closing,
    endpoints: Endpoints,
    kin: &'static str,
}

/// Ends the waits of `accept` and `open` with the node, however that ends.
struct Closing(Arc<streams::Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

const LOCK: &str = "nothing panics under this lock";

impl Node {
    /// Builds the node and listens.
    pub(super) fn new(
        options: Options,
        transport: Quic,
        streams: Arc<streams::Shared>,
        blocked: Arc<Blocked>,
        spawner: Spawner,
        orders: Receiver<Order>,
    ) -> Result<(Self, Receiver<Event>), SwarmError> {
        let peer = options.key.peer_id();
        let about = identify::Config::new(FAMILY.into(), options.key.keypair().public())
            .with_agent_version(options.agent)
            .with_interval(IDENTIFY_TIME)
            .with_push_listen_addr_updates(true)
            // Where peers are is for `lan` and the operator to say.
            .with_cache_size(0);
        let behaviour = Behaviour {
            gate: Gate::new(options.limits.clone(), options.admit, blocked),
            streams: Streams::new(streams.clone()),
            ping: ping::Behaviour::new(ping::Config::new().with_interval(PING_TIME)),
            identify: identify::Behaviour::new(about),
        };
        let config = Config::with_executor(move |task| spawner.spawn(task))
            .with_idle_connection_timeout(options.limits.idle)
            .with_dial_concurrency_factor(RACE)
            .with_max_negotiating_inbound_streams(STREAMS as usize)
            .with_substream_upgrade_protocol_override(Version::V1Lazy);
        let endpoints = transport.endpoints();
        let mut swarm = libp2p::Swarm::new(transport.boxed(), behaviour, peer, config);
        for address in options.listen {
            listen(&mut swarm, address)?;
        }
        let (events, reader) = async_channel::bounded(EVENTS);
        let node = Self {
            swarm,
            orders,
            events,
            _reader: reader.clone(),
            state: Arc::default(),
            book: Arc::new(Mutex::new(Book::new(options.limits.dialling))),
            streams: Closing(streams),
            endpoints,
            kin: options.limits.kin,
        };
        Ok((node, reader))
    }

    /// Runs until told to stop, or until the last handle is gone.
    pub(super) async fn run(mut self) {
        loop {
            self.dial_due();
            let wake = self.book.lock().expect(LOCK).wake();
            let timer = async {
                match wake {
                    Some(at) => async_io::Timer::at(at).await,
                    None => std::future::pending().await,
                };
                Woken::Time
            };
            let orders = self.orders.clone();
            let order = async { orders.recv().await.map_or(Woken::Order(Order::Stop), Woken::Order) };
            let event = async {
                self.swarm.next().await.map_or(Woken::Order(Order::Stop), |e| Woken::Event(Box::new(e)))
            };
            match event.race(order).race(timer).await {
                Woken::Event(event) => self.note(*event),
                Woken::Order(Order::Stop) => break,
                Woken::Order(order) => self.obey(order),
                Woken::Time => {}
            }
        }
        self.stop().await;
    }

    fn obey(&mut self, order: Order) {
        let now = Instant::now();
        match order {
            Order::Dial(peer, addresses) => self.book.lock().expect(LOCK).dial(peer, addresses, now),
            Order::Keep(peer, addresses) => self.book.lock().expect(LOCK).keep(peer, addresses, now),
            Order::Release(peer) => self.book.lock().expect(LOCK).release(&peer, now),
            Order::Disconnect(peer) => {
                // It errs when there is no connection.
                let _ = self.swarm.disconnect_peer_id(peer);
            }
            Order::Stop => {}
        }
    }

    fn dial_due(&mut self) {
        let now = Instant::now();
        let due = self.book.lock().expect(LOCK).due(now);
        for (peer, addresses) in due {
            if self.swarm.is_connected(&peer) {
                self.book.lock().expect(LOCK).connected(&peer, now);
                continue;
            }
            let gate = &self.swarm.behaviour().gate;
            let addresses: Vec<_> = addresses.into_iter().filter(|a| gate.may(&peer, a)).collect();
            let dial =
                DialOpts::peer_id(peer).condition(PeerCondition::NotDialing).addresses(addresses).build();
            if let Err(error) = self.swarm.dial(dial) {
                self.book.lock().expect(LOCK).failed(&peer, told(&error), now);
            }
        }
    }

    fn note(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.connected(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { peer_id, connection_id, cause, .. } => {
                log::debug!(
                    "{peer_id}: connection closed: {}",
                    cause.map_or("by us".into(), |c| c.to_string())
                );
                self.closed(peer_id, connection_id);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                log::debug!("{peer}: {}", told(&error));
                self.book.lock().expect(LOCK).failed(&peer, told(&error), Instant::now());
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                log::debug!("{send_back_addr}: {error}");
            }
            SwarmEvent::NewListenAddr { .. }
            | SwarmEvent::ExpiredListenAddr { .. }
            | SwarmEvent::ListenerClosed { .. } => {
                if let SwarmEvent::ListenerClosed { addresses, reason: Err(e), .. } = &event {
                    log::error!("no longer listening on {addresses:?}: {e}");
                }
                let listeners: Vec<_> = self.swarm.listeners().cloned().collect();
                self.state.lock().expect(LOCK).listeners.clone_from(&listeners);
                self.tell(Event::Listening(listeners));
            }
            SwarmEvent::Behaviour(BehaviourEvent::Ping(ping::Event { peer, result: Ok(time), .. })) => {
                if let Some(known) = self.state.lock().expect(LOCK).peers.get_mut(&peer) {
                    known.ping = Some(time);
                }
            }
            SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received {
                peer_id,
                info,
                ..
            })) => self.identified(peer_id, info),
            _ => {}
        }
    }

    fn connected(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        let address = without_peer(match endpoint {
            ConnectedPoint::Dialer { address, .. } => address,
            ConnectedPoint::Listener { send_back_addr, .. } => send_back_addr,
        });
        self.book.lock().expect(LOCK).connected(&peer, now);
        let (first, addresses) = {
            let mut state = self.state.lock().expect(LOCK);
            let known = state.peers.entry(peer).or_insert_with(|| Known {
                connections: Vec::new(),
                since: now,
                agent: String::new(),
                protocols: Vec::new(),
                claimed: Vec::new(),
                ping: None,
            });
            known.connections.push((id, address.clone()));
            let kin = known.protocols.iter().any(|p| p.starts_with(self.kin));
            if kin {
                self.streams.0.keep(&peer);
            }
            (known.connections.len() == 1, known.addresses())
        };
        self.tell(match first {
            true => Event::Connected { peer, address },
            false => Event::Moved { peer, addresses },
        });
    }

    fn closed(&mut self, peer: PeerId, id: ConnectionId) {
        let addresses = {
            let mut state = self.state.lock().expect(LOCK);
            let Some(known) = state.peers.get_mut(&peer) else { return };
            known.connections.retain(|(c, _)| *c != id);
            if known.connections.is_empty() {
                state.peers.remove(&peer);
            }
            state.peers.get(&peer).map(Known::addresses)
        };
        match addresses {
            Some(addresses) => self.tell(Event::Moved { peer, addresses }),
            None => {
                self.book.lock().expect(LOCK).lost(&peer, Instant::now());
                self.tell(Event::Disconnected { peer });
            }
        }
    }

    /// What a peer says of itself is a stranger's text: cut to size, and its addresses are a claim.
    fn identified(&mut self, peer: PeerId, info: identify::Info) {
        let agent = cut(info.agent_version);
        let names = info.protocols.iter().map(|p| p.as_ref()).filter(|p: &&str| p.len() <= NAME_BYTES);
        let protocols: Vec<String> = names.take(PROTOCOLS).map(String::from).collect();
        let usable = |a: &Multiaddr| socket_of(a).is_ok_and(|(_, p)| p.is_none_or(|p| p == peer));
        let addresses: Vec<_> =
            info.listen_addrs.iter().filter(|a| usable(a)).map(without_peer).take(ADDRESSES).collect();
        {
            let mut state = self.state.lock().expect(LOCK);
            let Some(known) = state.peers.get_mut(&peer) else { return };
            // Repeated as often as the peer likes; told to others when it is news.
            if known.agent == agent && known.protocols == protocols && known.claimed == addresses {
                return;
            }
            known.agent.clone_from(&agent);
            known.protocols.clone_from(&protocols);
            known.claimed.clone_from(&addresses);
        }
        if protocols.iter().any(|p| p.starts_with(self.kin)) {
            self.streams.0.keep(&peer);
        }
        self.tell(Event::Identified { peer, agent, protocols, addresses });
    }

    fn tell(&self, event: Event) {
        // The oldest makes room; the queue is open, since we hold a reader.
        if let Ok(Some(_)) = self.events.force_send(event) {
            self.state.lock().expect(LOCK).missed_events += 1;
        }
    }

    /// Says goodbye to every peer and waits until the goodbyes are out.
    async fn stop(mut self) {
        self.streams.0.close();
        self.events.close();
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.connected_peers().next().is_some() && self.swarm.next().await.is_some() {}
        };
        let late = async {
            async_io::Timer::after(STOP_TIME).await;
        };
        closed.or(late).await;
        drop(self.swarm);
        let endpoints = std::mem::take(&mut *self.endpoints.lock().expect(LOCK));
        for endpoint in &endpoints {
            endpoint.close(0u32.into(), b"");
        }
        let late = async {
            async_io::Timer::after(STOP_TIME).await;
        };
        let idle = async {
            for endpoint in &endpoints {
                endpoint.wait_idle().await;
            }
        };
        idle.or(late).await;
        *self.state.lock().expect(LOCK) = State::default();
    }
}

enum Woken {
    Event(Box<SwarmEvent<BehaviourEvent>>),
    Order(Order),
    Time,
}

/// Listens on `address`, which names no peer.
fn listen(swarm: &mut libp2p::Swarm<Behaviour>, address: Multiaddr) -> Result<(), SwarmError> {
    match socket_of(&address) {
        Ok((_, None)) => {}
        Ok(_) => return Err(SwarmError::Address { address, reason: "it names a peer, which is us" }),
        Err(reason) => return Err(SwarmError::Address { address, reason }),
    }
    swarm.listen_on(address.clone()).map(|_| ()).map_err(|error| {
        let source = match error {
            libp2p::TransportError::Other(source) => source,
            libp2p::TransportError::MultiaddrNotSupported(_) => std::io::ErrorKind::Unsupported.into(),
        };
        match super::transport::cause(&source) {
            Some(std::io::ErrorKind::AddrInUse) => SwarmError::PortTaken { address },
            _ => SwarmError::Listen { address, source },
        }
    })
}

/// A dial's error in a line. libp2p's own has one for each address, and each repeats the peer.
fn told(error: &DialError) -> String {
    match error {
        DialError::Transport(of_each) => {
            let lines = of_each.iter().map(|(address, error)| {
                let error = match error {
                    libp2p::TransportError::Other(e) => e.to_string(),
                    libp2p::TransportError::MultiaddrNotSupported(_) => {
                        "not an address that we can dial".into()
                    }
                };
                format!("{}: {error}", without_peer(address))
            });
            lines.collect::<Vec<_>>().join("; ")
        }
        DialError::NoAddresses => "no address of it may be dialled".into(),
        other => other.to_string(),
    }
}

fn cut(mut text: String) -> String {
    let end = (0..=NAME_BYTES.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    text.retain(|c| !c.is_control());
    text
}
