//! Who may be connected: limits, the block list, and the caller's own rule.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent,
    ToSwarm, dummy,
};

use super::Limits;
use super::address::{ip_of, without_peer};
use super::limits::BLOCKED;
use crate::base::{Multiaddr, PeerId};

/// The caller's rule: may this peer be connected at this address?
pub type Admit = Arc<dyn Fn(&Multiaddr, &PeerId) -> bool + Send + Sync>;

/// Peers that may not be connected for a while.
#[derive(Default)]
pub(super) struct Blocked {
    until: Mutex<HashMap<PeerId, Instant>>,
}

impl Blocked {
    /// Blocks `peer` until `now + time`, or for longer if it was already.
    pub(super) fn add(&self, peer: PeerId, time: Duration, now: Instant) {
        let mut until = self.until.lock().expect(LOCK);
        until.retain(|_, end| *end > now);
        if until.len() >= BLOCKED
            && let Some(first) = until.iter().min_by_key(|(_, end)| **end).map(|(peer, _)| *peer)
        {
            until.remove(&first);
        }
        // A time beyond what the clock can count means for ever, which a year is.
        let end = now.checked_add(time).unwrap_or(now + Duration::from_secs(365 * 86_400));
        let old = until.entry(peer).or_insert(end);
        *old = end.max(*old);
    }

    /// Whether `peer` is blocked at `now`.
    pub(super) fn has(&self, peer: &PeerId, now: Instant) -> bool {
        self.until.lock().expect(LOCK).get(peer).is_some_and(|end| *end > now)
    }
}

const LOCK: &str = "nothing panics under this lock";

/// The behaviour that refuses.
pub(super) struct Gate {
    limits: Limits,
    admit: Admit,
    blocked: Arc<Blocked>,
    open: HashMap<ConnectionId, Open>,
}

struct Open {
    peer: PeerId,
    /// Who dialled us, and from where.
    from: Option<IpAddr>,
}

impl Gate {
    pub(super) fn new(limits: Limits, admit: Admit, blocked: Arc<Blocked>) -> Self {
        Self { limits, admit, blocked, open: HashMap::new() }
    }

    /// Whether `peer` may be connected at `remote`, as far as is known before dialling.
    pub(super) fn may(&self, peer: &PeerId, remote: &Multiaddr) -> bool {
        !self.blocked.has(peer, Instant::now()) && (self.admit)(&without_peer(remote), peer)
    }

    /// Enters a connection whose handshake is done, or refuses it.
    fn enter(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        inbound: bool,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        let count = |test: &dyn Fn(&Open) -> bool| self.open.values().filter(|o| test(o)).count();
        let from = if inbound { ip_of(remote) } else { None };
        let refusal = if self.blocked.has(&peer, Instant::now()) {
            Refusal::Blocked
        } else if !(self.admit)(&without_peer(remote), &peer) {
            Refusal::NotAdmitted
        } else if count(&|o| o.peer == peer) >= self.limits.per_peer {
            Refusal::PerPeer
        } else if from.is_some() && count(&|o| o.from == from) >= self.limits.per_address {
            Refusal::PerAddress
        } else if inbound && count(&|o| o.from.is_some()) >= self.limits.inbound
            || self.open.len() >= self.limits.connections
        {
            Refusal::Full
        } else {
            self.open.insert(id, Open { peer, from });
            return Ok(dummy::ConnectionHandler);
        };
        log::debug!("{peer} at {remote}: {refusal}");
        Err(ConnectionDenied::new(refusal))
    }
}

impl NetworkBehaviour for Gate {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.enter(id, peer, remote, true)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        remote: &Multiaddr,
        _role: Endpoint,
        _port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.enter(id, peer, remote, false)
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionClosed(closed) => self.open.remove(&closed.connection_id),
            // Another behaviour refused what we had entered.
            FromSwarm::ListenFailure(failed) => self.open.remove(&failed.connection_id),
            FromSwarm::DialFailure(failed) => self.open.remove(&failed.connection_id),
            _ => None,
        };
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

/// Why a connection was closed as soon as it was there.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the peer is blocked")]
    Blocked,
    #[error("the peer is not admitted at this address")]
    NotAdmitted,
    #[error("the peer has enough connections")]
    PerPeer,
    #[error("its address has enough connections")]
    PerAddress,
    #[error("there are too many connections")]
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocking_ends_and_is_bounded() {
        let blocked = Blocked::default();
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        let peer = PeerId::random();
        blocked.add(peer, Duration::from_secs(10), now);
        blocked.add(peer, Duration::from_secs(5), now);
        assert!(blocked.has(&peer, at(9)) && !blocked.has(&peer, at(10)));
        blocked.add(peer, Duration::MAX, now);
        assert!(blocked.has(&peer, at(86_400)));
        for n in 0..2 * BLOCKED as u64 {
            blocked.add(PeerId::random(), Duration::from_secs(100 + n), now);
        }
        assert_eq!(blocked.until.lock().unwrap().len(), BLOCKED);
        assert!(blocked.has(&peer, now), "whose time ends first was let go");
    }
}
