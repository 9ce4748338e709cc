//! quinn's settings, each with its reason.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};

use super::SwarmError;
use super::tls::Credentials;
use crate::base::PeerId;

/// Silence after which a peer is gone. Wi-Fi sleeps for a second or two; a box without power should be noticed while a
/// client still waits for its bytes.
pub(super) const IDLE_TIME: Duration = Duration::from_secs(10);

/// How often an idle connection says that it lives: twice within [`IDLE_TIME`], so that one lost packet costs nothing.
const KEEP_ALIVE_TIME: Duration = Duration::from_secs(5);

/// Streams that a peer may have open towards us on one connection. Helia opens one for each message, and each may hold
/// a stream's window of bytes until somebody reads it; the connection's window bounds them together.
pub(super) const STREAMS: u32 = 256;

/// Bytes that a peer may send on one stream before we have read them.
///
/// At a round trip of 20 ms one stream made 40 MB/s with 1 MiB, 84 with 2, 117 with 4 and 136 with 8, where the relay was
/// at its own limit: 4 MiB fill 1 Gbit/s. On loopback 1 MiB cost a fifth more CPU than 4 (`benches/swarm.rs` with
/// `DPM_DELAY_MS=20`, and without; 2 busy x86 cores).
const STREAM_WINDOW_BYTES: u32 = 4 << 20;

/// The same over all streams of one connection, until more connections share [`WINDOWS_BYTES`].
const CONNECTION_WINDOW_BYTES: u64 = 8 << 20;

/// The same that a new connection begins with: a stranger gets no more before we know how many there are.
const FIRST_WINDOW_BYTES: u32 = 1 << 20;

/// What a new connection gets its share of. The first five have all of theirs, later ones less, but never less than
/// [`FIRST_WINDOW_BYTES`]: with 128 connections that all send and are not read it adds up to some 210 MiB.
const WINDOWS_BYTES: u64 = 40 << 20;

/// Bytes that we keep for one peer until it has said that they came: 100 MB/s at a round trip of 20 ms. With 128 peers
/// that take nothing in, and a stream open to each, it adds up to 256 MiB.
///
/// It is a queue too: on a slower line all that is said on a stream waits behind it.
const SEND_WINDOW_BYTES: u64 = 2 << 20;

/// Handshakes that quinn keeps for us to look at. The transport looks at once and refuses beyond its own limit.
const WAITING_HANDSHAKES: usize = 128;

/// Early data kept for all waiting handshakes together: none is sent in libp2p, a few packets come out of order.
const WAITING_BYTES: u64 = 1 << 20;

/// The window of a connection when there are `connections` of them.
pub(super) fn window(connections: usize) -> VarInt {
    let share = WINDOWS_BYTES / connections.max(1) as u64;
    let bytes = share.clamp(u64::from(FIRST_WINDOW_BYTES), CONNECTION_WINDOW_BYTES);
    VarInt::from_u32(u32::try_from(bytes).unwrap_or(FIRST_WINDOW_BYTES))
}

/// What every endpoint of a node shares.
pub(super) struct Settings {
    credentials: Credentials,
    transport: Arc<TransportConfig>,
    /// For listening.
    pub(super) server: ServerConfig,
    /// For every socket.
    pub(super) endpoint: EndpointConfig,
}

impl Settings {
    /// Settings for a node that shows `credentials`.
    pub(super) fn new(credentials: Credentials) -> Result<Self, SwarmError> {
        let failed = |e: &dyn std::fmt::Display| SwarmError::Certificate(e.to_string());
        let mut transport = TransportConfig::default();
        transport
            .max_concurrent_bidi_streams(STREAMS.into())
            // libp2p's streams go both ways, and nothing of it uses datagrams.
            .max_concurrent_uni_streams(0u32.into())
            .datagram_receive_buffer_size(None)
            .keep_alive_interval(Some(KEEP_ALIVE_TIME))
            .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIME).map_err(|e| failed(&e))?))
            .stream_receive_window(STREAM_WINDOW_BYTES.into())
            .receive_window(FIRST_WINDOW_BYTES.into())
            .send_window(SEND_WINDOW_BYTES);
        let transport = Arc::new(transport);
        let tls = credentials.server().map_err(|e| failed(&e))?;
        let tls = QuicServerConfig::try_from(tls).map_err(|e| failed(&e))?;
        let mut server = ServerConfig::with_crypto(Arc::new(tls));
        server
            .transport_config(transport.clone())
            // A peer on a LAN that moves connects again: no packet of somebody else's address is listened to.
            .migration(false)
            .max_incoming(WAITING_HANDSHAKES)
            .incoming_buffer_size_total(WAITING_BYTES);
        let mut endpoint = EndpointConfig::default();
        endpoint.supported_versions(vec![QUIC_V1]);
        Ok(Self { credentials, transport, server, endpoint })
    }

    /// For dialling `peer`.
    pub(super) fn client(&self, peer: Option<PeerId>) -> Result<ClientConfig, SwarmError> {
        let failed = |e: &dyn std::fmt::Display| SwarmError::Certificate(e.to_string());
        let tls = self.credentials.client(peer).map_err(|e| failed(&e))?;
        let tls = QuicClientConfig::try_from(tls).map_err(|e| failed(&e))?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(self.transport.clone()).version(QUIC_V1);
        Ok(config)
    }
}

/// QUIC version 1 (RFC 9000): what `/quic-v1` means.
const QUIC_V1: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_shrink_as_connections_come() {
        let rows = [(0, 8 << 20), (1, 8 << 20), (5, 8 << 20), (10, 4 << 20), (40, 1 << 20), (4096, 1 << 20)];
        for (connections, bytes) in rows {
            assert_eq!(window(connections).into_inner(), bytes, "{connections}");
        }
    }
}
