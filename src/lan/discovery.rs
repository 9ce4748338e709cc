//! Finding libp2p peers on the local network, and being found: what callers see of it. The work is [`Node`]'s.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};

use crate::base::{Multiaddr, PeerId};
use crate::rt::Tasks;

use super::LanError;
use super::node::Node;

/// A peer that was told of on the local network. Nobody has proved anything: whoever is on the network can say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Who it is said to be.
    pub peer: PeerId,
    /// Where it is said to take QUIC, 16 at most: `/ip4|ip6/…/udp/N/quic-v1`. A link-local IPv6 address stands behind
    /// the interface that it was heard on, by its name: `/ip6zone/eth0/ip6/fe80::1/udp/4001/quic-v1`.
    pub addresses: Vec<Multiaddr>,
    /// How long this holds. Zero: it said goodbye, or was not heard of for too long; these were its addresses.
    pub ttl: Duration,
}

/// How to take part.
#[derive(Clone)]
pub struct Options {
    /// Our own id: what is told, and never reported.
    pub peer: PeerId,
    /// The addresses that we listen at, wildcards expanded, without `/p2p`. Those that the local network may reach
    /// by QUIC are told; with none we only listen and ask. Called often, must not block.
    pub addresses: Arc<dyn Fn() -> Vec<Multiaddr> + Send + Sync>,
    /// Whether to take part on the interface of this name.
    pub interfaces: Arc<dyn Fn(&str) -> bool + Send + Sync>,
    /// How much is remembered.
    pub limits: Limits,
}

/// What bounds the memory of a node on a large or hostile network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most peers remembered; a newcomer takes the place of who would be forgotten first. About 1 KiB each.
    pub peers: usize,
    /// Most sightings waiting to be received; further ones are dropped and counted, and said again within minutes.
    pub sightings: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { peers: 1024, sightings: 256 }
    }
}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Datagrams received.
    pub received: u64,
    /// Of those, what was no mDNS message.
    pub malformed: u64,
    /// Of those, what was not looked at: more than a source may send, or from another network.
    pub refused: u64,
    /// Sightings that nobody had room for, or that one source brought about too many of.
    pub dropped: u64,
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that could not be sent.
    pub unsent: u64,
    /// Peers remembered now.
    pub peers: u64,
    /// Sockets open now.
    pub sockets: u64,
}

/// [`Counts`], as they are counted.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) received: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) unsent: AtomicU64,
    pub(super) peers: AtomicU64,
    pub(super) sockets: AtomicU64,
}

/// Counts one more.
pub(super) fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What a running discovery is told to do.
pub(super) enum Order {
    /// Look again at addresses and interfaces.
    Look,
    /// Take a peer for a new one when it is heard of again.
    Forget(PeerId),
}

/// Orders that wait: neighbours that are lost at once. Of what finds no room each is done by itself within a minute.
const ORDERS: usize = 64;

/// The running discovery. Dropped, it ends by itself, with a goodbye.
pub struct Discovery {
    /// Closed: stop.
    control: Sender<Order>,
    ended: Receiver<()>,
    counters: Arc<Counters>,
}

impl Discovery {
    /// Starts it as one of `tasks`, and gives where sightings arrive.
    ///
    /// Interfaces come and go; having none is no error.
    ///
    /// # Errors
    /// [`LanError::Interfaces`] when the system does not tell which interfaces there are.
    pub fn start(options: Options, tasks: &Tasks) -> Result<(Self, Receiver<Sighting>), LanError> {
        let (sightings, receiver) = async_channel::bounded(options.limits.sightings.max(1));
        let (control, orders) = async_channel::bounded(ORDERS);
        let (ending, ended) = async_channel::bounded(1);
        let counters = Arc::new(Counters::default());
        let mut node = Node::new(options, sightings, counters.clone());
        node.scan(Instant::now())?;
        tasks.spawn(async move {
            node.run(Box::pin(orders)).await;
            drop(ending);
        });
        Ok((Self { control, ended, counters }, receiver))
    }

    /// Looks at once whether addresses or interfaces have changed, and tells the network; it does so by itself every
    /// quarter of a minute.
    pub fn refresh(&self) {
        let _ = self.control.try_send(Order::Look);
    }

    /// The connection to a peer was lost: as soon as it is heard of again, that is a sighting, although nothing about it
    /// has changed.
    pub fn forget(&self, peer: PeerId) {
        let _ = self.control.try_send(Order::Forget(peer));
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let all = &self.counters;
        Counts {
            received: load(&all.received),
            malformed: load(&all.malformed),
            refused: load(&all.refused),
            dropped: load(&all.dropped),
            sent: load(&all.sent),
            unsent: load(&all.unsent),
            peers: load(&all.peers),
            sockets: load(&all.sockets),
        }
    }

    /// Says goodbye to the network and ends the task. Cancel-safe: it ends either way.
    pub async fn stop(&self) {
        self.control.close();
        // An error: it has ended.
        let _ = self.ended.recv().await;
    }
}
