//! Names from rooms: what members say stands in for an upstream that fails, and for no other.

mod files;
mod hints;
mod images;
mod pages;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dpm::config::Config;
use dpm::daemon::Tuning;
use dpm::rt::Clock;

use crate::support::{Answer, Node, Project, Upstream, member};

/// Some day in 2023, in milliseconds.
const START: u64 = 1_700_000_000_000;

/// Longer than a name whose upstream failed is left alone.
const REST: u64 = 11;

/// A node in a room that mirrors everything of PyPI's, in front of an index; its time is in our hands.
struct House {
    upstream: Upstream,
    node: Node,
    time: Arc<AtomicU64>,
}

impl House {
    fn new() -> Self {
        Self::with(|_, _| {})
    }

    fn with(change: impl FnOnce(&mut Config, &mut Tuning)) -> Self {
        let upstream = Upstream::start();
        let time = Arc::new(AtomicU64::new(START));
        let clock = Clock::Manual(time.clone());
        let node = Node::with(&[&upstream.url("/simple/")], |config, tuning| {
            tuning.clock = clock;
            tuning.upstream.answer_time = Duration::from_secs(1);
            tuning.upstream.stall_time = Duration::from_millis(500);
            tuning.upstream.avoid_time = Duration::from_millis(1);
            change(config, tuning);
        });
        member::join(&node, &["pkg:pypi/*"]);
        Self { upstream, node, time }
    }

    fn pass(&self, seconds: u64) {
        self.time.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    /// A project's page, which comes so.
    #[track_caller]
    fn page(&self, project: &Project, status: u16, cache: &str) -> Answer {
        let accept = [("accept", crate::support::JSON)];
        let answer = crate::support::request("GET", &self.node.url(&project.page()), &accept);
        assert_eq!((answer.status, answer.cache()), (status, cache), "{}", answer.text());
        answer
    }
}

/// Names of the files that a page lists.
fn files(page: &Answer) -> Vec<String> {
    let page = page.json();
    let files = page["files"].as_array().expect("files").iter();
    files.map(|file| file["filename"].as_str().expect("a name").to_owned()).collect()
}
