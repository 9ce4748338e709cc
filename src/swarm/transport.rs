//! libp2p's `Transport` over quinn: listeners, dialling, handshakes. libp2p's own needs tokio.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_lite::FutureExt;
use libp2p::core::Endpoint as Role;
use libp2p::core::muxing::StreamMuxerBox;
use libp2p::core::transport::{DialOpts, ListenerId, Transport, TransportError, TransportEvent};
use quinn::{Connecting, Endpoint, Incoming};
use rustls::pki_types::CertificateDer;

use super::address::{multiaddr_of, socket_of};
use super::listener::{Change, Listener};
use super::muxer::{Muxer, Registry};
use super::quic::Settings;
use super::{socket, tls};
use crate::base::{Multiaddr, PeerId};

/// Time for a handshake: two round trips and two signatures, on a Pi with a full CPU.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);

/// Handshakes of strangers under way at once. Each costs two signatures' work; the next one is refused at once and its
/// dialler comes again.
const HANDSHAKES: usize = 64;

/// From so many on, a dialler must first show that it can be reached at its address: a round trip more for it, and
/// nothing for a flood with false addresses.
const PROVING_HANDSHAKES: usize = 16;

/// All names are taken for good: the certificate counts.
const NAME: &str = "libp2p";

/// The transport.
pub(super) struct Quic {
    settings: Arc<Settings>,
    runtime: Arc<dyn quinn::Runtime>,
    registry: Registry,
    listeners: Vec<Listener>,
    /// Sockets for dialling where nothing listens: IPv4, IPv6.
    dialers: [Option<Endpoint>; 2],
    endpoints: Endpoints,
    handshakes: Arc<AtomicUsize>,
    ended: VecDeque<ListenerId>,
    waker: Option<Waker>,
}

/// Every endpoint that was opened, for whoever stops the node.
pub(super) type Endpoints = Arc<std::sync::Mutex<Vec<Endpoint>>>;

const LOCK: &str = "nothing panics under this lock";

type Connected = (PeerId, StreamMuxerBox);
type Upgrade = Pin<Box<dyn Future<Output = Result<Connected, Error>> + Send>>;

impl Quic {
    /// A transport without listeners.
    pub(super) fn new(settings: Settings, runtime: Arc<dyn quinn::Runtime>, registry: Registry) -> Self {
        Self {
            settings: Arc::new(settings),
            runtime,
            registry,
            listeners: Vec::new(),
            dialers: [None, None],
            endpoints: Arc::default(),
            handshakes: Arc::default(),
            ended: VecDeque::new(),
            waker: None,
        }
    }

    /// The endpoints that are or will be open.
    pub(super) fn endpoints(&self) -> Endpoints {
        self.endpoints.clone()
    }

    fn open(&self, address: SocketAddr, listens: bool) -> io::Result<Endpoint> {
        let socket = self.runtime.wrap_udp_socket(socket::bind(address)?)?;
        let server = listens.then(|| self.settings.server.clone());
        let config = self.settings.endpoint.clone();
        let endpoint = Endpoint::new_with_abstract_socket(config, server, socket, self.runtime.clone())?;
        let mut endpoints = self.endpoints.lock().expect(LOCK);
        // Those of removed listeners, once their last connection has gone.
        endpoints.retain(|e| e.open_connections() > 0 || self.uses(e));
        endpoints.push(endpoint.clone());
        Ok(endpoint)
    }

    fn uses(&self, endpoint: &Endpoint) -> bool {
        let address = endpoint.local_addr().ok();
        self.listeners.iter().any(|l| Some(l.local()) == address)
            || self.dialers.iter().flatten().any(|d| d.local_addr().ok() == address)
    }

    /// The socket to dial `remote` from: one that listens, so that the peer sees the address it can dial back.
    fn endpoint_for(&mut self, remote: IpAddr) -> io::Result<Endpoint> {
        let fits = |local: IpAddr| {
            local.is_ipv4() == remote.is_ipv4()
                && (local.is_unspecified() || local.is_loopback() == remote.is_loopback())
        };
        if let Some(listener) = self.listeners.iter().find(|l| fits(l.local().ip())) {
            return Ok(listener.endpoint().clone());
        }
        let which = usize::from(remote.is_ipv6());
        if let Some(endpoint) = &self.dialers[which] {
            return Ok(endpoint.clone());
        }
        let any: IpAddr =
            if remote.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let endpoint = self.open(SocketAddr::new(any, 0), false)?;
        Ok(self.dialers[which].insert(endpoint).clone())
    }

    /// Lets a stranger's handshake begin, or not.
    fn admit(&self, incoming: Incoming) -> Option<Upgrade> {
        let place = Place::take(&self.handshakes);
        if place.before >= HANDSHAKES {
            incoming.refuse();
            return None;
        }
        if place.before >= PROVING_HANDSHAKES && incoming.may_retry() && !incoming.remote_address_validated()
        {
            // Only fails for a validated address.
            let _ = incoming.retry();
            return None;
        }
        let registry = self.registry.clone();
        Some(
            async move {
                let _place = place;
                finish(incoming.accept().map_err(Error::Handshake)?, registry).await
            }
            .boxed(),
        )
    }
}

impl Transport for Quic {
    type Output = Connected;
    type Error = Error;
    type ListenerUpgrade = Upgrade;
    type Dial = Upgrade;

    fn listen_on(&mut self, id: ListenerId, address: Multiaddr) -> Result<(), TransportError<Error>> {
        let Ok((socket, None)) = socket_of(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        let endpoint = self.open(socket, true).map_err(|e| TransportError::Other(Error::Socket(e)))?;
        let local = endpoint.local_addr().map_err(|e| TransportError::Other(Error::Socket(e)))?;
        self.listeners.push(Listener::new(id, endpoint, local));
        self.waker.iter().for_each(Waker::wake_by_ref);
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        let Some(at) = self.listeners.iter().position(|l| l.id() == id) else {
            return false;
        };
        let listener = self.listeners.swap_remove(at);
        // Connections stay; strangers are no longer let in.
        listener.endpoint().set_server_config(None);
        self.ended.push_back(id);
        self.waker.iter().for_each(Waker::wake_by_ref);
        true
    }

    fn dial(&mut self, address: Multiaddr, options: DialOpts) -> Result<Upgrade, TransportError<Error>> {
        if options.role == Role::Listener {
            return Err(TransportError::Other(Error::HolePunching));
        }
        let Ok((remote, peer)) = socket_of(&address) else {
            return Err(TransportError::MultiaddrNotSupported(address));
        };
        if remote.port() == 0 || remote.ip().is_unspecified() || remote.ip().is_multicast() {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        let endpoint = self.endpoint_for(remote.ip()).map_err(|e| TransportError::Other(Error::Socket(e)))?;
        let config = self
            .settings
            .client(peer)
            .map_err(|e| TransportError::Other(Error::Socket(io::Error::other(e.to_string()))))?;
        let registry = self.registry.clone();
        Ok(async move {
            let connecting = endpoint.connect_with(config, remote, NAME).map_err(Error::Dial)?;
            finish(connecting, registry).await
        }
        .boxed())
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TransportEvent<Upgrade, Error>> {
        if let Some(listener_id) = self.ended.pop_front() {
            return Poll::Ready(TransportEvent::ListenerClosed { listener_id, reason: Ok(()) });
        }
        for at in 0..self.listeners.len() {
            let listener_id = self.listeners[at].id();
            while let Poll::Ready(change) = self.listeners[at].poll(cx) {
                return Poll::Ready(match change {
                    Change::Up(listen_addr) => TransportEvent::NewAddress { listener_id, listen_addr },
                    Change::Down(listen_addr) => TransportEvent::AddressExpired { listener_id, listen_addr },
                    Change::Closed => {
                        self.listeners.swap_remove(at);
                        let reason = Err(Error::Socket(io::ErrorKind::BrokenPipe.into()));
                        TransportEvent::ListenerClosed { listener_id, reason }
                    }
                    Change::Incoming(incoming) => {
                        let local = self.listeners[at].local();
                        let local_ip = incoming.local_ip().unwrap_or(local.ip());
                        let local_addr = multiaddr_of(SocketAddr::new(local_ip, local.port()));
                        let send_back_addr = multiaddr_of(incoming.remote_address());
                        let Some(upgrade) = self.admit(*incoming) else {
                            continue;
                        };
                        TransportEvent::Incoming { listener_id, upgrade, local_addr, send_back_addr }
                    }
                });
            }
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Waits for a handshake and learns who the peer is.
async fn finish(connecting: Connecting, registry: Registry) -> Result<Connected, Error> {
    let late = async {
        async_io::Timer::after(HANDSHAKE_TIME).await;
        Err(Error::Late)
    };
    let connection = async { connecting.await.map_err(Error::Handshake) }.or(late).await?;
    let chain = connection.peer_identity().and_then(|c| c.downcast::<Vec<CertificateDer<'static>>>().ok());
    let peer = tls::peer_of(chain.as_deref().map_or(&[], Vec::as_slice)).map_err(Error::Certificate)?;
    Ok((peer, StreamMuxerBox::new(Muxer::new(peer, connection, registry))))
}

/// A place among the handshakes under way.
struct Place {
    count: Arc<AtomicUsize>,
    before: usize,
}

impl Place {
    fn take(count: &Arc<AtomicUsize>) -> Self {
        Self { before: count.fetch_add(1, Ordering::Relaxed), count: count.clone() }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no connection. It travels through libp2p as text.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The socket could not be opened.
    #[error("the socket: {0}")]
    Socket(#[source] io::Error),
    /// quinn would not dial.
    #[error("cannot dial: {0}")]
    Dial(#[source] quinn::ConnectError),
    /// The handshake failed, or the peer refused it.
    #[error("the handshake failed: {0}")]
    Handshake(#[source] quinn::ConnectionError),
    /// Nobody answered, or too slowly.
    #[error("no handshake within {HANDSHAKE_TIME:?}")]
    Late,
    /// The peer did not prove a key.
    #[error("the peer's certificate: {0}")]
    Certificate(#[source] rustls::Error),
    /// Both sides would have to dial at once.
    #[error("hole punching is not supported")]
    HolePunching,
}

/// The kind of the system's error inside one that travelled through libp2p.
pub(super) fn cause(error: &io::Error) -> Option<io::ErrorKind> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::Socket(e) => Some(e.kind()),
        _ => None,
    }
}
