//! A whole node in this process, with a store of its own.

use std::path::Path;
use std::time::Duration;

use dpm::config::{Budget, Config, Freshness, Index, Log, Origin, Store};
use dpm::daemon::{Daemon, Tuning};
use dpm::upstream;

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

    /// A node in front of these indexes; `change` may change everything before it starts.
    pub fn with(urls: &[&str], change: impl FnOnce(&mut Config, &mut Tuning)) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let indexes = urls.iter().enumerate().map(|(n, url)| {
            let name = if n == 0 { "pypi".to_owned() } else { format!("pypi-{}", n + 1) };
            Index::from_url(name, url, Origin::Flag).expect("an index URL")
        });
        let mut config = Config {
            listen: "127.0.0.1:0".parse().expect("an address"),
            data: dir.path().to_owned(),
            offline: false,
            store: Store { budget: Budget::Bytes(4 << 30), free_margin_bytes: 1 << 20 },
            freshness: Freshness::default(),
            log: Log { requests: false },
            proxy: None,
            pypi: indexes.collect(),
            learned: None,
        };
        let mut tuning = Tuning {
            upstream: upstream::Options {
                pauses: [Duration::from_millis(10), Duration::from_millis(20)],
                answer_time: Duration::from_secs(5),
                stall_time: Duration::from_secs(2),
                ..upstream::Options::default()
            },
            ..Tuning::default()
        };
        change(&mut config, &mut tuning);
        let mut node = Self { daemon: None, dir: Some(dir), config, tuning };
        node.start();
        node
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

    /// A value of `/metrics`.
    pub fn metric(&self, name: &str) -> u64 {
        let text = super::get(&self.url("/metrics")).text();
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
