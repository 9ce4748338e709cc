//! dpm between a registry and its clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dpm::base::Secret;
use dpm::config::{Config, Origin, Registry};
use dpm::daemon::Tuning;
use dpm::rt::Clock;

use super::fake::manifest_path;
use super::image::Image;
use crate::support::{Answer, LIMIT, Node, request};

/// Some day in 2023, in milliseconds.
const START: u64 = 1_700_000_000_000;

/// Past the time of a tag, and past that in which it is served while it is asked for again.
pub const LONG: u64 = 400;

/// A node in front of registries, whose time is in our hands.
pub struct Front {
    pub node: Node,
    time: Arc<AtomicU64>,
}

impl Front {
    /// In front of one registry, which clients get who name none.
    pub fn of(host: &str) -> Self {
        Self::with(vec![registry(host)])
    }

    /// In front of these, with little patience.
    pub fn with(registries: Vec<Registry>) -> Self {
        let time = Arc::new(AtomicU64::new(START));
        let node = Node::with(&[], |config, tuning| hasty(config, tuning, registries, &time));
        Self { node, time }
    }

    /// In front of these, where nothing is about patience: however busy the machine is, nobody is given up.
    pub fn patient(registries: Vec<Registry>) -> Self {
        let time = Arc::new(AtomicU64::new(START));
        let node = Node::with(&[], |config, tuning| {
            hasty(config, tuning, registries, &time);
            (tuning.upstream.answer_time, tuning.upstream.stall_time) = (LIMIT, LIMIT);
        });
        Self { node, time }
    }

    /// Lets time pass.
    pub fn pass(&self, seconds: u64) {
        self.time.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    /// `host:port` for clients.
    pub fn host(&self) -> String {
        self.node.daemon().address().to_string()
    }

    pub fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        request(method, &self.node.url(path), headers)
    }

    /// Fails unless the answer to this is an error with this code.
    #[track_caller]
    pub fn assert_refused(&self, path: &str, status: u16, code: &str) -> Answer {
        let answer = self.node.get(path);
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        assert_eq!(answer.json()["errors"][0]["code"], code, "{path}: {}", answer.text());
        answer
    }

    /// The manifest of a tag, with its `X-Cache`.
    #[track_caller]
    pub fn tag(&self, name: &str, tag: &str, cache: &str, image: &Image) -> Answer {
        let answer = self.node.get(&manifest_path(name, tag));
        assert_eq!((answer.status, answer.cache()), (200, cache), "{}", answer.text());
        assert!(answer.body == image.root_bytes(), "{name}:{tag} is another manifest");
        assert_eq!(answer.header("docker-content-digest"), image.root.digest);
        assert_eq!(answer.header("content-type"), image.root.media_type);
        assert_eq!(answer.header("warning").is_empty(), cache != "STALE");
        answer
    }
}

fn hasty(config: &mut Config, tuning: &mut Tuning, registries: Vec<Registry>, time: &Arc<AtomicU64>) {
    config.oci = registries;
    tuning.clock = Clock::Manual(time.clone());
    // Short, for upstreams that hang, and long enough for a real registry on a busy machine.
    tuning.upstream.answer_time = Duration::from_secs(5);
    tuning.upstream.stall_time = Duration::from_secs(1);
    tuning.upstream.avoid_time = Duration::from_millis(1);
}

/// The registry at `host:port`, as `--upstream oci=URL` names it.
pub fn registry(host: &str) -> Registry {
    let registry = Registry::from_url("origin".into(), &format!("http://{host}"), Origin::Flag);
    Registry { root: true, ..registry.expect("a registry's URL") }
}

/// The same with a login, if there is one: kept apart, for programs of this machine.
pub fn with_login(host: &str, login: Option<(&str, &str)>) -> Registry {
    let Some((user, password)) = login else { return registry(host) };
    let url = url::Url::parse(&format!("http://{host}")).map(|mut url| {
        let _ = url.set_username(user);
        let _ = url.set_password(Some(password));
        url
    });
    let registry = Registry::from_url("origin".into(), url.expect("a URL").as_str(), Origin::Flag);
    let registry = registry.expect("a registry's URL");
    Registry { root: true, username: Some(user.into()), password: Some(Secret::new(password)), ..registry }
}

/// Another registry beside the one at the root, under the name by which clients know it.
pub fn beside(name: &str, host: &str) -> Registry {
    let registry = Registry::from_url(name.into(), &format!("http://{host}"), Origin::Flag);
    Registry { hosts: vec![format!("{name}.example.org")], ..registry.expect("a registry's URL") }
}
