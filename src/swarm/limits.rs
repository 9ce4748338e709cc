//! How much of the node the swarm's peers may take.

use std::time::Duration;

/// Limits on connections. [`Limits::default`] is what `dpm serve` runs with.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once, in and out. A LAN has dozens of boxes; each connection may hold its windows of unread bytes.
    pub connections: usize,
    /// Of these, how many may have been dialled by others: the rest is kept for peers that we dial ourselves.
    pub inbound: usize,
    /// Connections with one peer: two, since both may dial at once, and no more.
    pub per_peer: usize,
    /// Connections with one IP address that others dialled: one machine does not take the places of all, however many
    /// peer ids it makes. Several nodes of one machine, or containers behind one address, fit.
    pub per_address: usize,
    /// Peers that we dial at once. Each is asked at several addresses, most of them dead.
    pub dialling: usize,
    /// Time after which a connection that carries no stream is closed, if the peer is not one of [`Limits::kin`].
    pub idle: Duration,
    /// A peer that lists a protocol with this prefix is one of our own kind. Connections to it are kept while idle: the
    /// next miss is asked of it without a handshake first, for a keep-alive packet each five seconds.
    pub kin: &'static str,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 128,
            inbound: 96,
            per_peer: 2,
            per_address: 32,
            dialling: 16,
            idle: Duration::from_secs(120),
            kin: "/dpm/",
        }
    }
}

/// Addresses kept of one peer: interfaces times two families; more is somebody's list, not a box.
pub(super) const ADDRESSES: usize = 16;

/// Peers remembered for dialling.
pub(super) const PEERS: usize = 1024;

/// Peers on the block list; beyond it the one whose time ends first is let go.
pub(super) const BLOCKED: usize = 1024;

/// Orders to the swarm that wait for it: it takes them in microseconds, so a full queue means it hangs.
pub(super) const ORDERS: usize = 1024;

/// Events that wait for their reader. Beyond it the oldest is dropped: `peers()` always has the truth.
pub(super) const EVENTS: usize = 1024;

/// Streams of one protocol that wait to be accepted.
pub(super) const WAITING: usize = 256;

/// Of these, streams of one peer: a flood of one leaves room for the others.
pub(super) const WAITING_PER_PEER: usize = 64;

/// Streams on one connection that are being opened at once; as many more wait for that.
pub(super) const OPENING: usize = 128;

/// Time to open a stream: a round trip, and however long a busy peer takes to look at it.
pub(super) const OPEN_TIME: Duration = Duration::from_secs(10);

/// Protocols and bytes of each that are kept of what a peer says of itself.
pub(super) const PROTOCOLS: usize = 64;

/// See [`PROTOCOLS`]; also the longest name of a peer's software.
pub(super) const NAME_BYTES: usize = 128;

/// Time for peers to hear that we stop. Who does not by then will notice by silence.
pub(super) const STOP_TIME: Duration = Duration::from_secs(2);
