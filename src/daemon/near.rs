//! The rooms that know the neighbours, built and stopped together: swarm, exchange, discovery, published services.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::base::{Multiaddr, Protocol};
use crate::config::{self, Share};
use crate::exchange::{BITSWAP, Exchange, NEAR, Parts, Sharing};
use crate::front::Names;
use crate::lan::{self, Discovery, ServiceOptions, Services};
use crate::members::Members;
use crate::peers::Peers;
use crate::rt::{Executor, Tasks};
use crate::swarm::{self, Event, Events, Identity, Swarm, SwarmError};

use super::circle::Rule;
use super::{Ground, Tuning};

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
        tuning: &Tuning,
        ground: &Ground,
        members: &Members,
    ) -> Result<Self> {
        let executor = Executor::start(THREADS)?;
        let tasks = executor.tasks();
        let peers = Peers::default();
        let rule = Arc::new(Rule::new(config, tuning.vicinity, &peers, members));
        let (swarm, events) = start_swarm(config, identity, &rule, &tasks)?;
        for (peer, address) in &config.peers {
            swarm.keep(*peer, vec![address.clone()]);
        }
        let exchange = Exchange::start(Parts {
            swarm: swarm.clone(),
            store: ground.store.clone(),
            peers: peers.clone(),
            members: members.clone(),
            disk: ground.disk.clone(),
            tasks: tasks.clone(),
            sharing: Sharing { off: config.share == Share::Off, allow: config.allow.clone() },
            patience: tuning.patience,
        });
        let discover = !tuning.hidden;
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
        tasks.spawn(part(swarm.clone(), peers.clone(), members.clone()));
        let book = Book { swarm: swarm.clone(), peers, rule, exchange: exchange.clone() };
        tasks.spawn(book.keep(events, discovery.clone()));
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
    rule: &Arc<Rule>,
    tasks: &Tasks,
) -> Result<(Swarm, Events)> {
    let rule = rule.clone();
    let admit: swarm::Admit = Arc::new(move |address, peer| rule.admits(address, peer));
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

/// How often it is looked at who is in no room with us any more.
const PARTING: Duration = Duration::from_secs(5);

/// Parts with those who were let in as members of a room, and are members of none any more.
async fn part(swarm: Swarm, peers: Peers, members: Members) {
    loop {
        async_io::Timer::after(PARTING).await;
        for peer in peers.connected().iter().filter(|peer| !peers.is_near(peer) && !members.is_member(peer)) {
            log::info!("{peer} is in no room with us any more: disconnecting");
            swarm.disconnect(peer);
        }
    }
}

/// Keeps the book of peers by what happens in the swarm.
struct Book {
    swarm: Swarm,
    peers: Peers,
    rule: Arc<Rule>,
    exchange: Exchange,
}

impl Book {
    async fn keep(self, events: Events, discovery: Option<Arc<Discovery>>) {
        let mut missed = 0;
        while let Ok(event) = events.recv().await {
            let now_missed = self.swarm.missed_events();
            if std::mem::replace(&mut missed, now_missed) != now_missed {
                // What is still in the queue ends with how things are now.
                self.catch_up();
            }
            if let Event::Listening(addresses) = &event {
                for address in addresses {
                    log::debug!("the swarm listens on {address}");
                }
                discovery.iter().for_each(|discovery| discovery.refresh());
            }
            if let Event::Disconnected { peer } = &event {
                // Its cable was out, or ours: when it is heard again it is dialled again.
                discovery.iter().for_each(|discovery| discovery.forget(*peer));
            }
            self.note(event);
        }
    }

    fn note(&self, event: Event) {
        let Self { peers, exchange, rule, .. } = self;
        match event {
            Event::Connected { peer, address } => {
                let circle = rule.circle(&peer, std::slice::from_ref(&address));
                peers.came(peer, address, circle);
            }
            Event::Moved { peer, addresses } => {
                let was_near = peers.is_near(&peer);
                peers.moved(&peer, rule.circle(&peer, &addresses));
                if !was_near && peers.speaks_dpm(&peer) {
                    exchange.greet(peer);
                }
            }
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
            Event::Listening(_) => {}
        }
    }

    /// Sets the book right after events were lost.
    fn catch_up(&self) {
        let Self { peers, exchange, rule, .. } = self;
        let there = self.swarm.peers();
        let all: Vec<_> = there
            .iter()
            .map(|info| {
                (info.peer, info.addresses.first().cloned(), rule.circle(&info.peer, &info.addresses))
            })
            .collect();
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
