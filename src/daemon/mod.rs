//! Builds the rooms from the ground up, owns their tasks, stops them from the top down.

mod admin;
mod carry;
mod circle;
mod control;
mod gauges;
mod get;
mod images;
mod near;
mod prefetch;
mod room;

use std::hash::{BuildHasher as _, RandomState};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_io::Async;

use crate::base::{Access, PeerId, Secret, limits};
use crate::config::{self, AptSource, Config};
use crate::eco::apt::Source;
use crate::eco::oci;
use crate::eco::pypi::NamePattern;
use crate::exchange::{Exchange, Patience};
use crate::fetch::{self, Fetch};
use crate::front::{self, Door, Listener, Metrics, serve};
use crate::lan::Services;
use crate::members::{self, Members};
use crate::resolve::images::{Images, Registry};
use crate::resolve::{self, Index, Resolve};
use crate::rt::{Clock, Executor, Gate, Lines, Tasks, Ticker};
use crate::store::{self, Store};
use crate::swarm::{Identity, Swarm};
use crate::upstream::{self, Client, Credentials, Protocol, Site};

pub use admin::{Admin, Order};
pub use carry::{CarryError, Choice};
pub use circle::Vicinity;
use near::Neighbours;
pub use prefetch::Prefetch;
use room::Matrix;
pub use room::{Change, RoomOrder};

/// Name of the control socket in the data folder.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Threads that drive tasks. They never block, and one keeps up with nginx's two workers on two cores
/// (`benches/BASELINE.md`). More were not measured.
const EXECUTOR_THREADS: usize = 1;

/// Questions for index pages at once. Apart from downloads, so that pages do not wait behind them.
const QUESTIONS: usize = 24;

/// How often access times are written and the budget is looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// The part of the budget that index pages may take beside it: one in so many.
const PAGES_SHARE: u64 = 10;

/// How long an expired "no such project" is kept.
const NEGATIVE_MILLIS: u64 = 24 * 3600 * 1000;

/// How long running answers may go on when the daemon stops.
const GRACE: Duration = Duration::from_secs(10);

/// Clients of the control socket at once.
const CONTROLLERS: usize = 8;

/// What tests set and people do not.
#[derive(Clone, Default)]
pub struct Tuning {
    /// The time of ages and freshness.
    pub clock: Clock,
    /// Limits and pauses towards upstreams.
    pub upstream: upstream::Options,
    /// Where request lines go.
    pub lines: Option<Lines>,
    /// Peers are those that are named: nothing is multicast.
    pub hidden: bool,
    /// Which addresses count as near.
    pub vicinity: Vicinity,
    /// How long the answers of nodes around are waited for.
    pub patience: Patience,
}

/// A running node. Dropping it without [`Daemon::stop`] stops it hard.
pub struct Daemon {
    address: SocketAddr,
    stop: async_channel::Sender<()>,
    serving: Tasks,
    background: Tasks,
    flights: Tasks,
    rooms: Rooms,
    neighbours: Option<Neighbours>,
    services: Option<Services>,
    control: PathBuf,
    executor: Executor,
}

/// The rooms of a node, without a door.
#[derive(Clone)]
pub struct Rooms {
    /// What is stored.
    pub store: Store,
    /// Upstreams.
    pub client: Client,
    /// Names.
    pub resolve: Resolve,
    /// Names of container images.
    pub images: Images,
    /// Bytes.
    pub fetch: Fetch,
    /// For blocking work on the disk.
    pub disk: Gate,
    /// The neighbours, of a running node that has a swarm.
    pub near: Option<(Swarm, Exchange)>,
    /// What the members of rooms say, as far as it was kept.
    pub members: Members,
    /// Matrix rooms, of a running node that was built with them.
    matrix: Option<Matrix>,
    clock: Clock,
}

/// The rooms below the neighbours.
struct Ground {
    store: Store,
    disk: Gate,
}

impl Ground {
    fn open(config: &Config, tuning: &Tuning) -> Result<Self> {
        let options = store::Options {
            budget: config.store.budget,
            free_margin_bytes: config.store.free_margin_bytes,
            clock: tuning.clock.clone(),
        };
        let store = Store::open(&config.data, options)?;
        Ok(Self { store, disk: Gate::new(limits::DISK_OPERATIONS) })
    }

    fn members(&self, config: &Config, tuning: &Tuning, own: Option<PeerId>) -> Result<Members> {
        let options = members::Options {
            own,
            allow: config.rooms.addresses,
            max_age: config.rooms.max_age,
            clock: tuning.clock.clone(),
        };
        Ok(Members::open(self.store.clone(), options)?)
    }
}

impl Rooms {
    /// Opens the rooms of a node without neighbours; flights and questions run in `flights`.
    pub fn open(config: &Config, tuning: &Tuning, flights: &Tasks) -> Result<Self> {
        let ground = Ground::open(config, tuning)?;
        let members = ground.members(config, tuning, None)?;
        Self::build(ground, config, tuning, flights, None, members)
    }

    fn build(
        ground: Ground,
        config: &Config,
        tuning: &Tuning,
        flights: &Tasks,
        near: Option<(Swarm, Exchange)>,
        members: Members,
    ) -> Result<Self> {
        let Ground { store, disk } = ground;
        let client =
            Client::new(upstream::Options { proxy: config.proxy.clone(), ..tuning.upstream.clone() })?;
        let indexes = config.pypi.iter().map(index).collect::<Result<Vec<_>>>()?;
        let registries: Vec<_> = config.oci.iter().map(registry).collect();
        let apt = config.apt.iter().flatten().map(|source| Site {
            name: apt_name(source),
            url: source.url.clone(),
            also: Vec::new(),
            credentials: None,
            protocol: upstream::Protocol::Plain,
        });
        let sites = resolve::sites(&indexes).chain(registries.iter().map(|r| r.site.clone())).chain(apt);
        let fetch = Fetch::new(fetch::Parts {
            store: store.clone(),
            client: client.clone(),
            sites: sites.collect(),
            disk: disk.clone(),
            net: Gate::new(limits::DOWNLOADS),
            tasks: flights.clone(),
            offline: config.offline,
            near: near.as_ref().map(|(_, exchange)| exchange.clone()),
        });
        let parts = resolve::Parts {
            store: store.clone(),
            client: client.clone(),
            clock: tuning.clock.clone(),
            disk: disk.clone(),
            net: Gate::new(QUESTIONS),
            tasks: flights.clone(),
            members: Some(members.clone()),
        };
        // A gate of its own: registries that hang hold up no index.
        let theirs = resolve::Parts { net: Gate::new(QUESTIONS), ..parts.clone() };
        let images = Images::new(registries, config.freshness, config.offline, theirs);
        let resolve = Resolve::new(indexes, config.freshness, config.offline, parts);
        Ok(Self {
            store,
            client,
            resolve,
            images,
            fetch,
            disk,
            near,
            members,
            matrix: None,
            clock: tuning.clock.clone(),
        })
    }
}

fn credentials(username: &Option<String>, password: &Option<Secret>) -> Option<Credentials> {
    let (Some(username), Some(password)) = (username, password) else { return None };
    Some(Credentials { username: username.clone(), password: password.clone() })
}

fn registry(registry: &config::Registry) -> Registry {
    let site = Site {
        name: registry.name.clone(),
        url: registry.url.clone(),
        also: registry.files.clone(),
        credentials: credentials(&registry.username, &registry.password),
        protocol: Protocol::Registry { accept: oci::ACCEPT },
    };
    Registry {
        site,
        hosts: registry.hosts.clone(),
        root: registry.root,
        library: registry.library,
        private: registry.private,
        peers: registry.peers,
    }
}

fn index(index: &config::Index) -> Result<Index> {
    let owns = index.owns.iter().map(|p| NamePattern::parse(p));
    let credentials = credentials(&index.username, &index.password);
    let site = Site {
        name: index.name.clone(),
        url: index.url.clone(),
        also: index.files.clone(),
        credentials,
        protocol: Protocol::Plain,
    };
    let owns = owns.collect::<Result<_, _>>().with_context(|| format!("owns of index {}", index.name))?;
    Ok(Index { site, private: index.private, peers: index.peers, owns })
}

/// The name of a source among the upstreams: no index can have it.
fn apt_name(source: &AptSource) -> String {
    format!("apt:{}", source.url)
}

fn apt_source(source: &AptSource) -> Source {
    let access = if source.private { Access::Private } else { Access::Public };
    Source { name: apt_name(source), url: source.url.clone(), access }
}

impl Daemon {
    /// Starts a node: when this returns, clients are answered.
    pub fn start(config: &Config, mut tuning: Tuning) -> Result<Self> {
        // Another one at each start, and not the peer id: every upstream sees it.
        let node = format!("{:016x}", RandomState::new().hash_one(std::process::id()));
        tuning.upstream.node = Some(node.clone());
        // First, so that a second node on the port is told so before it touches anything.
        let listener = near::bind(config.listen)
            .with_context(|| format!("cannot listen on {}: is another dpm running there?", config.listen))?;
        let address = listener.get_ref().local_addr()?;
        let executor = Executor::start(EXECUTOR_THREADS)?;
        let (serving, background, flights) = (executor.tasks(), executor.tasks(), executor.tasks());
        let ground = Ground::open(config, &tuning)?;
        let identity = config.near.swarm.then(|| near::identity(&config.data)).transpose()?;
        let own = identity.as_ref().map(Identity::peer_id);
        let members = ground.members(config, &tuning, own)?;
        let neighbours = match identity.clone() {
            Some(identity) => Some(Neighbours::start(&config.near, identity, &tuning, &ground, &members)?),
            None => None,
        };
        let near = neighbours.as_ref().map(|n| (n.swarm().clone(), n.exchange().clone()));
        let mut rooms = Rooms::build(ground, config, &tuning, &flights, near, members)?;
        rooms.matrix = Matrix::start(config, &rooms, identity, &background)?;
        if config.learned != config::Learned::default() {
            config::save_learned(&config.data, &config.learned).context("keep what was learned")?;
        }

        let metrics = Arc::new(Metrics::new(tuning.lines.clone().filter(|_| config.log.requests)));
        let admin = Admin::new(config, rooms.clone(), Some(metrics.clone()));
        let door = Door::new(front::Parts {
            resolve: rooms.resolve.clone(),
            images: rooms.images.clone(),
            clients: config.oci.iter().map(|r| r.clients.clone()).collect(),
            fetch: rooms.fetch.clone(),
            apt: config.apt.iter().flatten().map(apt_source).collect(),
            names: near::names(config, address),
            node,
            clock: tuning.clock.clone(),
            disk: rooms.disk.clone(),
            metrics,
            gauges: Box::new({
                let admin = admin.clone();
                move || admin.gauges()
            }),
            peers: Box::new({
                let admin = admin.clone();
                move || format!("{:#}", admin.peers())
            }),
            admits: match config.near.lan && config.listen.ip().is_unspecified() {
                true => {
                    let networks = circle::Networks::default();
                    Box::new(move |client| networks.is_near(client))
                }
                false => Box::new(|_| true),
            },
        });

        let ticker = Ticker::default();
        background.spawn(ticker.clone().run());
        background.spawn(keep_house(rooms.clone()));
        let (stop, stopped) = async_channel::bounded(1);
        let listener = Listener::Tcp(listener);
        let accept =
            serve(listener, door, serving.clone(), ticker.clone(), limits::CONNECTIONS, stopped.clone());
        background.spawn(accept);
        let control = config.data.join(CONTROL_SOCKET);
        let socket = bind_control(&control)?;
        let orders = control::Control::new(admin, Gate::new(CONTROLLERS), background.clone());
        background.spawn(serve(socket, orders, serving.clone(), ticker, CONTROLLERS, stopped));
        let publish = config.near.lan && !tuning.hidden && !address.ip().is_loopback();
        let services = publish.then(|| near::publish(config, address, &background)).flatten();
        Ok(Self {
            address,
            stop,
            serving,
            background,
            flights,
            rooms,
            neighbours,
            services,
            control,
            executor,
        })
    }

    /// Who this node is to its peers, if it has any.
    pub fn peer_id(&self) -> Option<PeerId> {
        self.rooms.near.as_ref().map(|(swarm, _)| swarm.peer_id())
    }

    /// The name under which people's machines find this node (`dpm.local`), if it is published.
    pub fn local_name(&self) -> Option<String> {
        self.services.as_ref().map(Services::name)
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The node's rooms, for tests that look behind the door.
    pub fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// Stops: no new clients, running answers get some seconds, everything is durable at the end.
    pub fn stop(self) -> Result<()> {
        self.stop.close();
        let ended = futures_lite::future::block_on(futures_lite::future::or(
            async {
                self.serving.finish().await;
                true
            },
            async {
                async_io::Timer::after(GRACE).await;
                false
            },
        ));
        if !ended {
            log::warn!("some answers were cut off");
        }
        // Interrupts downloads, so that their threads end.
        self.rooms.client.close();
        futures_lite::future::block_on(async {
            self.serving.cancel().await;
            if let Some(services) = self.services {
                services.stop().await;
            }
            if let Some(matrix) = &self.rooms.matrix {
                matrix.stop().await;
            }
            self.background.cancel().await;
            // Ends what is being taken from peers, so that those flights end.
            if let Some(neighbours) = self.neighbours {
                neighbours.stop().await;
            }
            self.flights.finish().await;
        });
        // Somebody else's socket by now, or gone: both are fine.
        let _ = std::fs::remove_file(&self.control);
        self.rooms.store.close().context("make the store durable")?;
        drop(self.executor);
        Ok(())
    }
}

/// Only its owner may give orders. The store is locked by us, so an old socket is a dead one.
fn bind_control(path: &Path) -> Result<Listener> {
    use rustix::fs::Mode;
    let _ = std::fs::remove_file(path);
    // From its first moment on: a mode set afterwards would come too late.
    let before = rustix::process::umask(Mode::RWXG | Mode::RWXO);
    let bound = UnixListener::bind(path);
    rustix::process::umask(before);
    let listener = bound.with_context(|| format!("cannot make the control socket {}", path.display()))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(Listener::Unix(Async::new(listener)?))
}

async fn keep_house(rooms: Rooms) {
    // What a crash left is taken away once, when the start's rush is over.
    let mut swept = false;
    loop {
        async_io::Timer::after(HOUSEKEEPING).await;
        let (store, clock) = (rooms.store.clone(), rooms.clock.clone());
        let sweep = !std::mem::replace(&mut swept, true);
        let done = rooms.disk.run(move || {
            store.flush_touches()?;
            store.evict()?;
            let now = clock.now().0;
            let pages = store.space()?.budget_bytes / PAGES_SHARE;
            store.trim_pages(pages, now.saturating_sub(NEGATIVE_MILLIS))?;
            if sweep {
                let orphans = store.sweep()?;
                if orphans > 0 {
                    log::info!("removed {orphans} files that an interrupted run had left");
                }
            }
            Ok::<_, store::StoreError>(())
        });
        if let Err(e) = done.await {
            log::error!("housekeeping: {e}");
        }
    }
}
