//! Builds the rooms from the ground up, owns their tasks, stops them from the top down.

mod admin;
mod control;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_io::Async;

use crate::base::limits;
use crate::config::{self, Config};
use crate::eco::pypi::NamePattern;
use crate::fetch::{self, Fetch};
use crate::front::{self, Door, Listener, Metrics, serve};
use crate::resolve::{self, Index, Resolve};
use crate::rt::{Clock, Executor, Gate, Lines, Tasks, Ticker};
use crate::store::{self, Store};
use crate::upstream::{self, Client, Credentials, Site};

pub use admin::{Admin, Order};

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
}

/// A running node. Dropping it without [`Daemon::stop`] stops it hard.
pub struct Daemon {
    address: SocketAddr,
    stop: async_channel::Sender<()>,
    serving: Tasks,
    background: Tasks,
    flights: Tasks,
    rooms: Rooms,
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
    /// Bytes.
    pub fetch: Fetch,
    /// For blocking work on the disk.
    pub disk: Gate,
    clock: Clock,
}

impl Rooms {
    /// Opens the rooms of a node; flights and questions run in `flights`.
    pub fn open(config: &Config, tuning: &Tuning, flights: &Tasks) -> Result<Self> {
        let options = store::Options {
            budget: config.store.budget,
            free_margin_bytes: config.store.free_margin_bytes,
            clock: tuning.clock.clone(),
        };
        let store = Store::open(&config.data, options)?;
        let client =
            Client::new(upstream::Options { proxy: config.proxy.clone(), ..tuning.upstream.clone() })?;
        let indexes = config.pypi.iter().map(index).collect::<Result<Vec<_>>>()?;
        let disk = Gate::new(limits::DISK_OPERATIONS);
        let fetch = Fetch::new(fetch::Parts {
            store: store.clone(),
            client: client.clone(),
            sites: resolve::sites(&indexes).collect(),
            disk: disk.clone(),
            net: Gate::new(limits::DOWNLOADS),
            tasks: flights.clone(),
            offline: config.offline,
        });
        let parts = resolve::Parts {
            store: store.clone(),
            client: client.clone(),
            clock: tuning.clock.clone(),
            disk: disk.clone(),
            net: Gate::new(QUESTIONS),
            tasks: flights.clone(),
        };
        let resolve = Resolve::new(indexes, config.freshness, config.offline, parts);
        Ok(Self { store, client, resolve, fetch, disk, clock: tuning.clock.clone() })
    }
}

fn index(index: &config::Index) -> Result<Index> {
    let owns = index.owns.iter().map(|p| NamePattern::parse(p));
    let credentials = match (&index.username, &index.password) {
        (Some(username), Some(password)) => {
            Some(Credentials { username: username.clone(), password: password.clone() })
        }
        _ => None,
    };
    let site =
        Site { name: index.name.clone(), url: index.url.clone(), also: index.files.clone(), credentials };
    let owns = owns.collect::<Result<_, _>>().with_context(|| format!("owns of index {}", index.name))?;
    Ok(Index { site, private: index.private, owns })
}

impl Daemon {
    /// Starts a node: when this returns, clients are answered.
    pub fn start(config: &Config, tuning: Tuning) -> Result<Self> {
        // First, so that a second node on the port is told so before it touches anything.
        let listener = Async::<TcpListener>::bind(config.listen)
            .with_context(|| format!("cannot listen on {}: is another dpm running there?", config.listen))?;
        let address = listener.get_ref().local_addr()?;
        let executor = Executor::start(EXECUTOR_THREADS)?;
        let (serving, background, flights) = (executor.tasks(), executor.tasks(), executor.tasks());
        let rooms = Rooms::open(config, &tuning, &flights)?;
        if let Some(at) = config.learned {
            config::save_learned(&config.data, at, &config.pypi).context("keep what was learned")?;
        }

        let metrics = Arc::new(Metrics::new(tuning.lines.clone().filter(|_| config.log.requests)));
        let admin = Admin::new(config, rooms.clone(), Some(metrics.clone()));
        let door = Door::new(front::Parts {
            resolve: rooms.resolve.clone(),
            fetch: rooms.fetch.clone(),
            clock: tuning.clock.clone(),
            disk: rooms.disk.clone(),
            metrics,
            gauges: Box::new({
                let admin = admin.clone();
                move || admin.gauges()
            }),
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
        Ok(Self { address, stop, serving, background, flights, rooms, control, executor })
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
            self.background.cancel().await;
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
