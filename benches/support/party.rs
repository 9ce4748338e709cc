//! A node of ours without the rest of `dpm serve`: swarm and exchange on loopback, with a thread for the swarm as that
//! has. It tells nobody what it has, so what is asked of it is a question each time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dpm::base::{Access, Cid, Multiaddr, Sha256};
use dpm::exchange::{BITSWAP, Exchange, NEAR, Parts, Patience, Sharing};
use dpm::members::{self, Members};
use dpm::peers::{Circle, Peers};
use dpm::rt::{Clock, Executor, Gate, Tasks};
use dpm::store::{Budget, Facts, Options as StoreOptions, Store};
use dpm::swarm::{Event, Identity, Limits, Options, Swarm};
use dpm::unixfs::LayoutBuilder;
use futures_lite::future::block_on;

/// Longer than an answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Stopped when dropped.
pub(crate) struct Party {
    pub(crate) exchange: Exchange,
    store: Store,
    pub(crate) swarm: Swarm,
    tasks: Tasks,
    _executor: Executor,
    _dir: tempfile::TempDir,
}

impl Party {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let executor = Executor::start(1).expect("a thread");
        let tasks = executor.tasks();
        let budget =
            StoreOptions { budget: Budget::Bytes(8 << 30), free_margin_bytes: 1 << 20, clock: Clock::System };
        let store = Store::open(&dir.path().join("data"), budget).expect("a store");
        let options = Options {
            key: Identity::fresh(),
            listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("a multiaddr")],
            protocols: vec![NEAR, BITSWAP],
            agent: "dpm/bench".into(),
            limits: Limits::default(),
            admit: Arc::new(|_, _| true),
        };
        let (swarm, events) = Swarm::start(options, &tasks).expect("a swarm");
        let peers = Peers::default();
        let exchange = Exchange::start(Parts {
            swarm: swarm.clone(),
            store: store.clone(),
            peers: peers.clone(),
            members: Members::open(store.clone(), members::Options::default()).expect("nothing was kept"),
            disk: Gate::new(16),
            tasks: tasks.clone(),
            sharing: Sharing::default(),
            patience: Patience::of(PATIENCE),
        });
        tasks.spawn(async move {
            while let Ok(event) = events.recv().await {
                match event {
                    Event::Connected { peer, address } => peers.came(peer, address, Circle::Near),
                    Event::Identified { peer, agent, .. } => peers.introduced(peer, &agent, true),
                    Event::Moved { .. } | Event::Disconnected { .. } | Event::Listening(_) => {}
                }
            }
        });
        Self { exchange, store, swarm, tasks, _executor: executor, _dir: dir }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> Multiaddr {
        wait(|| self.swarm.listeners().first().cloned())
    }

    /// Connects to another, which is to be reached at this address, and waits until they know each other.
    pub(crate) fn meet(&self, other: &Self, at: Multiaddr) {
        self.swarm.dial(other.swarm.peer_id(), vec![at]);
        for party in [self, other] {
            wait(|| party.exchange.has_company().then_some(()));
        }
    }

    /// Stores a file.
    pub(crate) fn add(&self, bytes: &[u8]) -> (Cid, Sha256) {
        let mut builder = LayoutBuilder::default();
        builder.update(bytes);
        let layout = builder.finish();
        let (root, sha256) = (layout.tree().0, Sha256::of(bytes));
        let store = &self.store;
        let incoming = store.begin(Some(bytes.len() as u64)).expect("room");
        incoming.write(bytes, 0).expect("room");
        let facts = Facts {
            sha256,
            digests: vec![],
            layout,
            access: Access::Public,
            upstream: "bench".into(),
            url: String::new(),
            filename: "bench".into(),
            pin_name: None,
        };
        store.commit(incoming, facts).expect("a commit");
        (root, sha256)
    }
}

impl Drop for Party {
    fn drop(&mut self) {
        block_on(async {
            self.swarm.stop().await;
            self.tasks.cancel().await;
        });
    }
}

/// Waits for something to be there.
fn wait<T>(mut so: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = so() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "two nodes on loopback do not find each other");
        std::thread::sleep(Duration::from_millis(1));
    }
}
