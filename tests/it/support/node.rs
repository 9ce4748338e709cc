//! A whole node in this process, with a store of its own.

use std::path::Path;
use std::time::Duration;

use dpm::base::{Multiaddr, PeerId, Sha256};
use dpm::config::{Budget, Config, Freshness, Index, Learned, Log, Near, Origin, Rooms, Store};
use dpm::daemon::{Admin, Daemon, Order, Tuning};
use dpm::exchange::{Exchange, Patience};
use dpm::rt::UnixMillis;
use dpm::store::Description;
use dpm::upstream;

use super::{Answer, attempt, request, until};

/// A running node. Stopped, and its panics looked at, when dropped.
pub struct Node {
    daemon: Option<Daemon>,
    dir: Option<tempfile::TempDir>,
    config: Config,
    tuning: Tuning,
}

impl Node {
    /// A node in front of one index at `url` (ends with `/`).
    pub fn new(url: &str) -> Self {
        Self::with(&[url], |_, _| {})
    }

    /// The same with little patience, so that a fault costs a test little.
    pub fn hasty(url: &str) -> Self {
        Self::with(&[url], |_, tuning| {
            tuning.upstream.answer_time = Duration::from_secs(1);
            tuning.upstream.stall_time = Duration::from_millis(500);
            tuning.upstream.avoid_time = Duration::from_millis(1);
        })
    }

    /// A node in front of these indexes; `change` may change everything before it starts.
    pub fn with(urls: &[&str], change: impl FnOnce(&mut Config, &mut Tuning)) -> Self {
        let dir = folder();
        let indexes = urls.iter().enumerate().map(|(n, url)| {
            let name = if n == 0 { "pypi".to_owned() } else { format!("pypi-{}", n + 1) };
            Index::from_url(name, url, Origin::Flag).expect("an index URL")
        });
        let mut config = Config {
            listen: "127.0.0.1:0".parse().expect("an address"),
            names: Vec::new(),
            data: dir.path().to_owned(),
            offline: false,
            store: Store { budget: Budget::Bytes(4 << 30), free_margin_bytes: 1 << 20 },
            freshness: Freshness::default(),
            log: Log { requests: false },
            near: Near { swarm: false, ..Near::default() },
            rooms: Rooms::default(),
            proxy: None,
            pypi: indexes.collect(),
            oci: Vec::new(),
            apt: None,
            learned: Learned::default(),
        };
        let mut tuning = Tuning {
            upstream: upstream::Options {
                pauses: [Duration::from_millis(10), Duration::from_millis(20)],
                answer_time: Duration::from_secs(5),
                stall_time: Duration::from_secs(2),
                ..upstream::Options::default()
            },
            // A neighbour who answers is heard, however busy the machine is.
            patience: Patience::of(Duration::from_secs(4)),
            ..Tuning::default()
        };
        change(&mut config, &mut tuning);
        let mut node = Self { daemon: None, dir: Some(dir), config, tuning };
        node.start();
        node
    }

    /// `n` nodes with swarms on loopback that all know each other, each in front of the index at `url`.
    pub fn village(n: usize, url: &str) -> Vec<Self> {
        Self::village_with(n, url, |_, _, _| {})
    }

    /// The same; `change` may change everything of each before it starts.
    pub fn village_with(n: usize, url: &str, change: impl Fn(usize, &mut Config, &mut Tuning)) -> Vec<Self> {
        let mut nodes: Vec<Self> = Vec::new();
        for k in 0..n {
            let peers = nodes.iter().map(Self::as_peer).collect();
            nodes.push(Self::with(&[url], |config, tuning| {
                config.near.swarm = true;
                config.near.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("a multiaddr")];
                config.near.peers = peers;
                tuning.hidden = true;
                change(k, config, tuning);
            }));
        }
        for node in &nodes {
            until("all are connected", || node.neighbours() == n - 1);
        }
        nodes
    }

    /// How other nodes name it.
    pub fn as_peer(&self) -> (PeerId, Multiaddr) {
        let (swarm, _) = self.daemon().rooms().near.as_ref().expect("a swarm");
        until("it listens", || !swarm.listeners().is_empty());
        (swarm.peer_id(), swarm.listeners().remove(0))
    }

    /// How many dpm nodes it is connected to.
    pub fn neighbours(&self) -> usize {
        self.exchange().peers().nodes().len()
    }

    pub fn exchange(&self) -> &Exchange {
        let (_, exchange) = self.daemon().rooms().near.as_ref().expect("a swarm");
        exchange
    }

    fn start(&mut self) {
        let daemon = Daemon::start(&self.config, self.tuning.clone()).expect("the node starts");
        self.daemon = Some(daemon);
    }

    /// Stops the node and starts it again on the same store, changed.
    pub fn restart(&mut self, change: impl FnOnce(&mut Config, &mut Tuning)) {
        self.stop();
        change(&mut self.config, &mut self.tuning);
        self.start();
    }

    pub fn stop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop().expect("the node stops");
        }
    }

    pub fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("the node runs")
    }

    /// Its URL for a path that starts with `/`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.daemon().address())
    }

    pub fn data(&self) -> &Path {
        &self.config.data
    }

    /// The time by its clock.
    pub fn now(&self) -> UnixMillis {
        self.tuning.clock.now()
    }

    /// `GET` of a path.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        request("GET", &self.url(path), &[])
    }

    /// Carries out an order of an operator.
    pub fn order(&self, order: &Order) -> serde_json::Value {
        self.order_told(order).0
    }

    /// The same, and what was told meanwhile of how far it was.
    pub fn order_told(&self, order: &Order) -> (serde_json::Value, Vec<serde_json::Value>) {
        let admin = Admin::new(&self.config, self.daemon().rooms().clone(), None);
        let mut told = Vec::new();
        let outcome = admin.carry_out(order, &mut |state| told.push(state));
        (outcome.expect("the order is carried out"), told)
    }

    /// Carries out an order that takes these bytes, and gives its outcome and the bytes that it gives.
    pub fn carry(&self, order: &Order, mut input: &[u8]) -> Result<(serde_json::Value, Vec<u8>), String> {
        let admin = Admin::new(&self.config, self.daemon().rooms().clone(), None);
        let mut output = Vec::new();
        let outcome = admin.carry_through(order, &mut input, &mut output, &mut |_| {});
        outcome.map(|outcome| (outcome, output)).map_err(|e| e.to_string())
    }

    /// Waits until no download is under way: a commit comes after the last byte.
    pub fn settle(&self) {
        until("no download is under way", || self.daemon().rooms().fetch.in_flight() == 0);
    }

    /// What the store says of a digest.
    pub fn stored(&self, sha256: &Sha256) -> Option<Description> {
        self.daemon().rooms().store.describe(&sha256.digest()).expect("the store")
    }

    /// How many artifacts are stored.
    pub fn artifacts(&self) -> u64 {
        self.daemon().rooms().store.space().expect("the store").artifacts
    }

    /// Fails unless the answer to this is cut off, or an error where that was known in time.
    #[track_caller]
    pub fn assert_cut(&self, path: &str) {
        match attempt("GET", &self.url(path), &[]) {
            Ok(answer) => {
                let (status, length) = (answer.status, answer.body.len());
                assert!(answer.broken.is_some() || status >= 500, "{path}: {status} with {length} bytes");
            }
            // Cut off before the head was out: by a node that is well.
            Err(_) => assert_eq!(self.get("/healthz").status, 200, "{path}"),
        }
    }

    /// A value of `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name} in\n{text}")).parse().expect("a number")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The folder may tell why.
            if let Some(dir) = self.dir.take() {
                eprintln!("the node's folder was left in {}", dir.keep().display());
            }
            return;
        }
        self.stop();
        assert_eq!(dpm::rt::panics(), 0, "a task panicked");
    }
}

/// In memory where there is enough of it: a start takes 0.6 s on a disk that syncs in 5 ms, and 5 ms there.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let roomy = rustix::fs::statvfs(memory).is_ok_and(|s| s.f_bavail * s.f_frsize > 2 << 30);
    if roomy { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.expect("a temporary folder")
}
