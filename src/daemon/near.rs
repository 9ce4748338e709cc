//! The rooms that know the neighbours, built and stopped together: swarm, exchange, discovery, published services.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::base::{Multiaddr, PeerId, Protocol, Subnet, is_near};
use crate::config::{self, Share};
use crate::exchange::{BITSWAP, Exchange, NEAR, Parts, Sharing};
use crate::front::Names;
use crate::lan::{self, Discovery, ServiceOptions, Services};
use crate::peers::Peers;
use crate::rt::{Executor, Gate, Tasks};
use crate::store::Store;
use crate::swarm::{self, Event, Events, Identity, Swarm, SwarmError, ip_of};

/// The port that IPFS nodes listen on.
const PORT: u16 = 4001;

/// Threads that drive QUIC. Apart from the door's, so that its encryption delays no client.
const THREADS: usize = 1;

/// Name of the file with this node's key in the data folder.
const KEY: &str = "identity.key";

/// Everything that has to do with neighbours.
pub(super) struct Neighbours {
    swarm: Swarm,
    exchange: Exchange,
    tasks: Tasks,
    discovery: Option<Arc<Discovery>>,
    _executor: Executor,
}

impl Neighbours {
    /// Starts the swarm, finds and is found. A LAN that cannot be looked at is a warning: peers named by hand remain.
    pub(super) fn start(
        config: &config::Near,
        identity: Identity,
        discover: bool,
        store: &Store,
        disk: &Gate,
    ) -> Result<Self> {
        let executor = Executor::start(THREADS)?;
        let tasks = executor.tasks();
        let peers = Peers::default();
        let (swarm, events) = start_swarm(config, identity, &peers, &tasks)?;
        for (peer, address) in &config.peers {
            swarm.keep(*peer, vec![address.clone()]);
        }
        let exchange = Exchange::start(Parts {
            swarm: swarm.clone(),
            store: store.clone(),
            peers: peers.clone(),
            disk: disk.clone(),
            tasks: tasks.clone(),
            sharing: Sharing { off: config.share == Share::Off, allow: config.allow.clone() },
        });
        let addresses = {
            let swarm = swarm.clone();
            Arc::new(move || swarm.listeners())
        };
        let options = lan::Options {
            peer: swarm.peer_id(),
            addresses,
            interfaces: Arc::new(move |_| discover),
            limits: lan::Limits::default(),
        };
        let discovery = match Discovery::start(options, &tasks) {
            Ok((discovery, sightings)) => {
                let swarm = swarm.clone();
                tasks.spawn(async move {
                    while let Ok(seen) = sightings.recv().await {
                        if !seen.ttl.is_zero() {
                            swarm.dial(seen.peer, seen.addresses);
                        }
                    }
                });
                Some(discovery)
            }
            Err(e) => {
                log::warn!("neighbours are not looked for: {e}; name them with --peer");
                None
            }
        };
        let discovery = discovery.map(Arc::new);
        tasks.spawn(keep_book(events, swarm.clone(), peers, exchange.clone(), discovery.clone()));
        Ok(Self { swarm, exchange, tasks, discovery, _executor: executor })
    }

    pub(super) fn exchange(&self) -> &Exchange {
        &self.exchange
    }

    pub(super) fn swarm(&self) -> &Swarm {
        &self.swarm
    }

    /// Says goodbye and stops everything.
    pub(super) async fn stop(self) {
        if let Some(discovery) = self.discovery {
            discovery.stop().await;
        }
        self.exchange.stop();
        self.swarm.stop().await;
        self.tasks.cancel().await;
    }
}

/// What this box is called.
pub(super) fn names(config: &config::Config, address: SocketAddr) -> Names {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let label = host.split('.').next().unwrap_or_default();
    let own =
        [format!("{}.local", config.near.name), format!("{label}.local"), label.to_owned(), host.clone()];
    Names::new(own.into_iter().chain(config.names.iter().cloned()), address.port())
}

/// Tells people's machines on the LAN where this box's HTTP is.
pub(super) fn publish(config: &config::Config, address: SocketAddr, tasks: &Tasks) -> Option<Services> {
    let name = &config.near.name;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let options = ServiceOptions {
        name: name.clone(),
        port: address.port(),
        instance: format!("dpm on {host}"),
        // Without a source, who found us would get nothing here and ask nobody else.
        apt: config.apt.iter().flatten().next().is_some(),
    };
    match Services::publish(&options, tasks) {
        Ok(services) => Some(services),
        Err(e) => {
            log::warn!("{name}.local is not published: {e}");
            None
        }
    }
}

/// Who this node is among peers.
pub(super) fn identity(data: &Path) -> Result<Identity> {
    Identity::load_or_create(&data.join(KEY)).context("this node's identity")
}

fn start_swarm(
    config: &config::Near,
    key: Identity,
    peers: &Peers,
    tasks: &Tasks,
) -> Result<(Swarm, Events)> {
    let (share, allow, peers) = (config.share, config.allow.clone(), peers.clone());
    let named: Vec<PeerId> = config.peers.iter().map(|(peer, _)| *peer).collect();
    let networks = Networks::default();
    let admit = Arc::new(move |address: &Multiaddr, peer: &PeerId| {
        let near = || ip_of(address).is_some_and(|ip| networks.is_near(ip));
        let near = share == Share::Anyone || named.contains(peer) || near();
        near && (allow.is_empty() || allow.contains(peer)) && !peers.is_blocked(peer)
    });
    let start = |listen: Vec<Multiaddr>| {
        let options = swarm::Options {
            key: key.clone(),
            listen,
            protocols: vec![NEAR, BITSWAP],
            agent: concat!("dpm/", env!("CARGO_PKG_VERSION")).into(),
            limits: swarm::Limits::default(),
            admit: admit.clone(),
        };
        Swarm::start(options, tasks)
    };
    if !config.listen.is_empty() {
        return start(config.listen.clone()).context("start the swarm (--no-swarm goes without)");
    }
    // Without IPv6 the other half is enough.
    let v6 = std::net::UdpSocket::bind("[::1]:0").is_ok();
    let everywhere = |port| {
        let any =
            |ip: IpAddr| Multiaddr::empty().with(ip.into()).with(Protocol::Udp(port)).with(Protocol::QuicV1);
        let v6 = v6.then(|| any(std::net::Ipv6Addr::UNSPECIFIED.into()));
        std::iter::once(any(std::net::Ipv4Addr::UNSPECIFIED.into())).chain(v6).collect()
    };
    match start(everywhere(PORT)) {
        Err(SwarmError::PortTaken { .. }) => {
            log::info!("UDP {PORT} is taken: the swarm listens on another port");
            start(everywhere(0))
        }
        started => started,
    }
    .context("start the swarm (--no-swarm goes without)")
}

/// The networks of this machine's own interfaces, looked at again when that is [`NETWORKS_TIME`] ago.
#[derive(Default)]
pub(super) struct Networks(Mutex<Option<(Instant, Vec<Subnet>)>>);

/// Interfaces come and go, and a flood of connections must not list them each time.
const NETWORKS_TIME: Duration = Duration::from_secs(5);

impl Networks {
    /// Whether an address is private, link-local or loopback, or in a network of this machine's own.
    pub(super) fn is_near(&self, ip: IpAddr) -> bool {
        if is_near(ip) {
            return true;
        }
        let mut known = self.0.lock().expect("nothing panics under this lock");
        let fresh = known.as_ref().is_some_and(|(at, _)| at.elapsed() < NETWORKS_TIME);
        if !fresh {
            *known = Some((Instant::now(), lan::networks()));
        }
        known.as_ref().is_some_and(|(_, networks)| networks.iter().any(|n| n.contains(ip.to_canonical())))
    }
}

/// Keeps the book of peers by what happens in the swarm.
async fn keep_book(
    events: Events,
    swarm: Swarm,
    peers: Peers,
    exchange: Exchange,
    discovery: Option<Arc<Discovery>>,
) {
    let mut missed = 0;
    while let Ok(event) = events.recv().await {
        let now_missed = swarm.missed_events();
        if std::mem::replace(&mut missed, now_missed) != now_missed {
            // What is still in the queue ends with how things are now.
            catch_up(&swarm, &peers, &exchange);
        }
        match event {
            Event::Connected { peer, address } => peers.came(peer, address),
            Event::Disconnected { peer } => {
                peers.left(&peer);
                exchange.left(&peer);
            }
            Event::Identified { peer, agent, protocols, .. } => {
                let dpm = protocols.iter().any(|p| p == NEAR);
                peers.introduced(peer, &agent, dpm);
                if dpm {
                    exchange.greet(peer);
                }
            }
            Event::Listening(addresses) => {
                for address in addresses {
                    log::debug!("the swarm listens on {address}");
                }
                if let Some(discovery) = &discovery {
                    discovery.refresh();
                }
            }
        }
    }
}

/// Sets the book right after events were lost.
fn catch_up(swarm: &Swarm, peers: &Peers, exchange: &Exchange) {
    let there = swarm.peers();
    let all: Vec<_> = there.iter().map(|info| (info.peer, info.addresses.first().cloned())).collect();
    for gone in peers.present(&all) {
        exchange.left(&gone);
    }
    let greeted = peers.nodes();
    for info in there.iter().filter(|info| !info.protocols.is_empty()) {
        let dpm = info.protocols.iter().any(|p| p == NEAR);
        peers.introduced(info.peer, &info.agent, dpm);
        if dpm && !greeted.contains(&info.peer) {
            exchange.greet(info.peer);
        }
    }
}

/// An HTTP listener; an unspecified IPv6 address takes IPv4 clients too, and a machine without IPv6 listens on IPv4.
pub(super) fn bind(address: SocketAddr) -> io::Result<async_io::Async<std::net::TcpListener>> {
    let bound = async_io::Async::<std::net::TcpListener>::bind(address);
    match bound {
        Err(e)
            if address.ip() == IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED)
                && e.kind() != io::ErrorKind::AddrInUse =>
        {
            async_io::Async::<std::net::TcpListener>::bind((std::net::Ipv4Addr::UNSPECIFIED, address.port()))
        }
        bound => bound,
    }
}
