//! Bare QUIC with the swarm's TLS, settings, sockets and runtime, and no libp2p above: what `benches/swarm.rs` measures
//! the swarm against, and what tests misbehave with. Not for use by other rooms.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_io::{AsyncRead, AsyncWrite};
use quinn::{Connection, Endpoint};

use super::quic::{Settings, window};
use super::runtime::Runtime;
use super::tls::Credentials;
use super::{Identity, SwarmError, socket};
use crate::base::PeerId;
use crate::rt::Tasks;

/// A QUIC endpoint. quinn's tasks run in the set that it was bound with.
pub struct Raw {
    endpoint: Endpoint,
    settings: Settings,
}

impl Raw {
    /// Binds and listens.
    pub fn bind(key: &Identity, address: SocketAddr, tasks: &Tasks) -> Result<Self, SwarmError> {
        let settings = Settings::new(Credentials::new(key)?)?;
        let runtime: Arc<dyn quinn::Runtime> = Arc::new(Runtime::new(tasks.spawner()));
        let open = || {
            let socket = runtime.wrap_udp_socket(socket::bind(address)?)?;
            let (config, server) = (settings.endpoint.clone(), Some(settings.server.clone()));
            Endpoint::new_with_abstract_socket(config, server, socket, runtime.clone())
        };
        let endpoint = open().map_err(|source| SwarmError::Listen {
            address: super::address::multiaddr_of(address),
            source,
        })?;
        Ok(Self { endpoint, settings })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// Connects to `peer`.
    pub async fn dial(&self, address: SocketAddr, peer: Option<PeerId>) -> io::Result<RawConnection> {
        let config = self.settings.client(peer).map_err(io::Error::other)?;
        let connecting = self.endpoint.connect_with(config, address, "libp2p").map_err(io::Error::other)?;
        Ok(RawConnection::new(connecting.await?))
    }

    /// The next connection of somebody else.
    pub async fn accept(&self) -> io::Result<RawConnection> {
        let incoming = self.endpoint.accept().await.ok_or(io::ErrorKind::NotConnected)?;
        Ok(RawConnection::new(incoming.await?))
    }

    /// Closes everything.
    pub async fn close(&self) {
        self.endpoint.close(0u32.into(), b"");
        self.endpoint.wait_idle().await;
    }
}

/// A connection. Closed when dropped.
pub struct RawConnection {
    connection: Connection,
}

impl RawConnection {
    fn new(connection: Connection) -> Self {
        connection.set_receive_window(window(1));
        Self { connection }
    }

    /// A new stream: what is written, and what is read.
    pub async fn open(
        &self,
    ) -> io::Result<(impl AsyncWrite + Unpin + use<>, impl AsyncRead + Unpin + use<>)> {
        Ok(self.connection.open_bi().await?)
    }

    /// The next stream of the other side.
    pub async fn accept(
        &self,
    ) -> io::Result<(impl AsyncWrite + Unpin + use<>, impl AsyncRead + Unpin + use<>)> {
        Ok(self.connection.accept_bi().await?)
    }

    /// Waits until the other side has closed, or is gone.
    pub async fn closed(&self) {
        self.connection.closed().await;
    }
}
