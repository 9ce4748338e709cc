//! One listening socket, and the interface addresses that it stands for.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use if_watch::IfEvent;
use if_watch::smol::IfWatcher;
use libp2p::core::transport::ListenerId;
use quinn::{Endpoint, Incoming};

use super::address::multiaddr_of;
use crate::base::Multiaddr;

/// Most addresses that one wildcard listener stands for: a box with containers has dozens, and all are told to peers.
const ADDRESSES: usize = 64;

/// What happened at a listener.
pub(super) enum Change {
    /// It can be reached at this address now.
    Up(Multiaddr),
    /// No longer at this one.
    Down(Multiaddr),
    /// Somebody dials.
    Incoming(Box<Incoming>),
    /// The socket broke.
    Closed,
}

/// The listener.
pub(super) struct Listener {
    id: ListenerId,
    endpoint: Endpoint,
    local: SocketAddr,
    next: Pin<Box<dyn Future<Output = Option<Incoming>> + Send>>,
    interfaces: Option<IfWatcher>,
    known: Vec<IpAddr>,
    changes: VecDeque<Change>,
}

impl Listener {
    /// Starts to listen. A wildcard address is told as those of the interfaces.
    pub(super) fn new(id: ListenerId, endpoint: Endpoint, local: SocketAddr) -> Self {
        let mut listener = Self {
            id,
            next: next(&endpoint),
            endpoint,
            local,
            interfaces: None,
            known: Vec::new(),
            changes: VecDeque::new(),
        };
        if local.ip().is_unspecified() {
            match IfWatcher::new() {
                Ok(watcher) => listener.interfaces = Some(watcher),
                Err(e) => log::warn!(
                    "{local}: the interfaces cannot be watched, peers are not told our addresses: {e}"
                ),
            }
        } else {
            listener.changes.push_back(Change::Up(multiaddr_of(local)));
        }
        listener
    }

    pub(super) fn id(&self) -> ListenerId {
        self.id
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The address of the socket, with the port that the system chose.
    pub(super) fn local(&self) -> SocketAddr {
        self.local
    }

    /// The next change.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Change> {
        loop {
            if let Some(change) = self.changes.pop_front() {
                return Poll::Ready(change);
            }
            let Some(watcher) = &mut self.interfaces else { break };
            match watcher.poll_if_event(cx) {
                Poll::Ready(event) => self.note(event),
                Poll::Pending => break,
            }
        }
        match self.next.as_mut().poll(cx) {
            Poll::Ready(Some(incoming)) => {
                self.next = next(&self.endpoint);
                Poll::Ready(Change::Incoming(Box::new(incoming)))
            }
            Poll::Ready(None) => Poll::Ready(Change::Closed),
            Poll::Pending => Poll::Pending,
        }
    }

    fn note(&mut self, event: io::Result<IfEvent>) {
        match event {
            Ok(IfEvent::Up(net)) => {
                let ip = net.addr();
                if ip.is_ipv4() == self.local.is_ipv4()
                    && !self.known.contains(&ip)
                    && self.known.len() < ADDRESSES
                {
                    self.known.push(ip);
                    self.changes.push_back(Change::Up(self.at(ip)));
                }
            }
            Ok(IfEvent::Down(net)) => {
                if let Some(at) = self.known.iter().position(|ip| *ip == net.addr()) {
                    let ip = self.known.swap_remove(at);
                    self.changes.push_back(Change::Down(self.at(ip)));
                }
            }
            Err(e) => {
                log::warn!("{}: interfaces are no longer watched: {e}", self.local);
                self.interfaces = None;
            }
        }
    }

    fn at(&self, ip: IpAddr) -> Multiaddr {
        multiaddr_of(SocketAddr::new(ip, self.local.port()))
    }
}

fn next(endpoint: &Endpoint) -> Pin<Box<dyn Future<Output = Option<Incoming>> + Send>> {
    let endpoint = endpoint.clone();
    Box::pin(async move { endpoint.accept().await })
}
