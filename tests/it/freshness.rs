//! How long a page is believed, what happens when its time is over, and what survives a restart.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dpm::rt::Clock;
use dpm::store::{Page, PageHead};

use crate::support::{Answer, Fault, File, Node, Project, Upstream, request, until};

/// Some day in 2023, in milliseconds.
const START: u64 = 1_700_000_000_000;

/// A node whose time is in our hands, in front of one project.
struct House {
    upstream: Upstream,
    node: Node,
    time: Arc<AtomicU64>,
    project: Project,
}

impl House {
    fn new() -> Self {
        let upstream = Upstream::start();
        let time = Arc::new(AtomicU64::new(START));
        let clock = Clock::Manual(time.clone());
        let node = Node::with(&[&upstream.url("/simple/")], |_, tuning| {
            tuning.clock = clock;
            tuning.upstream.answer_time = Duration::from_secs(1);
            tuning.upstream.avoid_time = Duration::from_millis(1);
        });
        let project = Project::new("demo", 1000).publish(&upstream);
        Self { upstream, node, time, project }
    }

    fn pass(&self, seconds: u64) {
        self.time.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    fn hits(&self) -> usize {
        self.upstream.hits(&self.project.page_path())
    }

    /// The page, with its `X-Cache` and `Age`.
    #[track_caller]
    fn page(&self, cache: &str, age: &str) -> Answer {
        let answer = self.node.get(&self.project.page());
        let got = (answer.status, answer.cache(), answer.header("age"));
        assert_eq!(got, (200, cache, age), "{}", answer.text());
        assert_eq!(answer.header("warning").is_empty(), cache != "STALE");
        answer
    }

    /// The page as another text, with an entity tag that the upstream honours.
    fn publish(&self, version: &str, etag: &'static str) {
        let mut page: serde_json::Value =
            serde_json::from_str(&self.project.page_of(&[self.project.entry(&self.upstream)])).unwrap();
        page["versions"] = serde_json::json!([version]);
        let file = File::json(page.to_string()).header("etag", etag);
        self.upstream.route(&self.project.page_path(), move |asked, out| {
            let same = asked.header("if-none-match") == etag;
            let fault = same.then_some(Fault::Says("304 Same"));
            crate::support::upstream::answer(&file, asked, out, fault)
        });
    }
}

#[test]
fn a_page_is_believed_for_its_time() {
    let house = House::new();
    house.page("MISS", "0");
    house.page("HIT", "0");
    house.pass(299);
    let answer = house.page("HIT", "299");
    assert_eq!(answer.header("cache-control"), "max-age=300");
    assert_eq!(house.hits(), 1);
}

#[test]
fn the_upstream_says_how_long_within_bounds() {
    for (said, fresh) in [("max-age=20", 20), ("s-maxage=30, max-age=5", 30), ("max-age=99999", 600)] {
        let house = House::new();
        let page = house.project.page_of(&[house.project.entry(&house.upstream)]);
        house.upstream.serve(&house.project.page_path(), File::json(page).header("cache-control", said));
        house.page("MISS", "0");
        house.pass(fresh - 1);
        house.page("HIT", &(fresh - 1).to_string());
        house.pass(1);
        house.page("STALE", &fresh.to_string());
    }
}

#[test]
fn an_old_page_is_revalidated() {
    let house = House::new();
    house.publish("1", "\"a\"");
    let first = house.page("MISS", "0");
    // Long past its time: the upstream is waited for. It says 304 and sends no body.
    house.pass(400);
    let second = house.page("MISS", "0");
    assert_eq!(first.body, second.body);
    assert_eq!(first.header("etag"), second.header("etag"));
    let asked = house.upstream.asked(&house.project.page_path());
    assert_eq!((asked.len(), asked[1].header("if-none-match")), (2, "\"a\""));
    house.page("HIT", "0");

    house.pass(400);
    house.publish("2", "\"b\"");
    let accept = [("accept", crate::support::JSON)];
    let third = request("GET", &house.node.url(&house.project.page()), &accept);
    assert_eq!(third.json()["versions"][0], "2");
    // The page and its tag belong together: the next question has the new one.
    house.pass(400);
    house.page("MISS", "0");
    assert_eq!(house.upstream.asked(&house.project.page_path())[3].header("if-none-match"), "\"b\"");
}

#[test]
fn a_page_just_past_its_time_is_served_at_once() {
    let house = House::new();
    house.page("MISS", "0");
    house.pass(310);
    let answer = house.page("STALE", "310");
    assert_eq!(answer.header("cache-control"), "max-age=0");
    until("it was asked for again", || house.hits() == 2);
    until("it is fresh", || house.node.get(&house.project.page()).cache() == "HIT");
    house.page("HIT", "0");
}

#[test]
fn a_failing_upstream_leaves_the_old_page() {
    for fault in
        [Fault::Says("500 Broken"), Fault::Says("503 Busy"), Fault::Silence, Fault::Says("200 Empty")]
    {
        let house = House::new();
        let good = house.page("MISS", "0");
        house.pass(3600);
        house.upstream.broken(&house.project.page_path(), fault);
        let answer = house.page("STALE", "3600");
        assert_eq!(answer.body, good.body, "{fault:?}");
        // It is not waited for again at once.
        let hits = house.hits();
        house.page("STALE", "3600");
        assert_eq!(house.hits(), hits);
        house.pass(11);
        let project = Project::new("demo", 1000).publish(&house.upstream);
        until("it is fresh", || house.node.get(&project.page()).cache() != "STALE");

        // There is an end to it.
        house.pass(31 * 24 * 3600);
        house.upstream.broken(&house.project.page_path(), Fault::Says("500 Broken"));
        assert_eq!(house.node.get(&house.project.page()).status, 502);
    }
}

#[test]
fn a_client_may_ask_for_news() {
    let house = House::new();
    house.page("MISS", "0");
    let ask = |value| {
        request("GET", &house.node.url(&house.project.page()), &[("cache-control", value)]).cache().to_owned()
    };
    // Not more than once a second, whatever clients demand.
    assert_eq!(ask("no-cache"), "HIT");
    house.pass(2);
    assert_eq!(ask("max-age=0"), "HIT");
    assert_eq!(ask("no-cache"), "MISS");
    assert_eq!(house.hits(), 2);
    house.pass(2);
    house.upstream.broken(&house.project.page_path(), Fault::Says("500 Broken"));
    assert_eq!(ask("no-cache"), "STALE");
}

#[test]
fn what_is_not_there_is_asked_for_again_after_a_while() {
    let house = House::new();
    let path = "/pypi/simple/later/";
    assert_eq!(house.node.get(path).status, 404);
    house.pass(59);
    assert_eq!(house.node.get(path).status, 404);
    assert_eq!(house.upstream.hits("/simple/later/"), 1);
    // A failure is not "not there", and neither makes the memory of it longer.
    house.pass(2);
    house.upstream.broken("/simple/later/", Fault::Says("500 Broken"));
    assert_eq!(house.node.get(path).status, 502);
    Project::new("later", 10).publish(&house.upstream);
    assert_eq!(house.node.get(path).status, 200);
    // And the other way: a project that is taken away.
    house.upstream.remove("/simple/later/");
    house.pass(1000);
    assert_eq!(house.node.get(path).status, 404);
    assert_eq!(house.node.get(path).status, 404);
}

#[test]
fn what_was_learned_survives_a_restart() {
    let mut house = House::new();
    house.publish("1", "\"a\"");
    let page = house.page("MISS", "0");
    let file = house.project.file();
    assert_eq!(house.node.get(&file).cache(), "MISS");
    assert_eq!(house.node.get("/pypi/simple/nobody/").status, 404);
    house.node.settle();
    let total = house.upstream.total();
    house.node.restart(|_, _| {});
    house.pass(30);
    assert_eq!(house.page("HIT", "30").body, page.body);
    assert_eq!(house.node.get(&file).cache(), "HIT");
    assert_eq!(house.node.get("/pypi/simple/nobody/").status, 404);
    assert_eq!(house.upstream.total(), total);
    house.pass(1000);
    house.node.restart(|_, _| {});
    house.page("MISS", "0");
    assert_eq!(house.upstream.asked(&house.project.page_path())[1].header("if-none-match"), "\"a\"");
}

#[test]
fn offline_is_offline() {
    let mut house = House::new();
    house.page("MISS", "0");
    let undigested = Project::new("plain", 500);
    let link = house.upstream.url(&undigested.file_path());
    let entry = serde_json::json!({"filename": undigested.filename, "url": link, "hashes": {}});
    undigested.list(&house.upstream, &[entry]);
    house.upstream.serve(&undigested.file_path(), File::new(undigested.bytes.clone()));
    let plain = format!("/pypi/files/plain/-/{}", undigested.filename);
    for path in [&house.project.file(), &plain] {
        assert_eq!(house.node.get(path).cache(), "MISS");
    }
    let unfetched = Project::new("unfetched", 501).publish(&house.upstream);
    house.node.get(&unfetched.page());
    assert_eq!(house.node.get("/pypi/simple/nobody/").status, 404);
    house.node.settle();
    let total = house.upstream.total();
    house.node.restart(|config, _| config.offline = true);

    house.page("HIT", "0");
    house.pass(40 * 24 * 3600);
    house.page("STALE", "3456000");
    for path in [&house.project.file(), &plain] {
        let answer = house.node.get(path);
        assert_eq!((answer.status, answer.cache()), (200, "HIT"), "{}", answer.text());
        let head = request("HEAD", &house.node.url(path), &[]);
        assert_eq!((head.status, head.header("content-length").is_empty()), (200, false), "{path}");
    }
    let unlisted = "/pypi/files/demo/-/demo-2.0.tar.gz";
    for path in ["/pypi/simple/other/", "/pypi/simple/nobody/", "/pypi/simple/", &unfetched.file(), unlisted]
    {
        let answer = house.node.get(path);
        assert_eq!(answer.status, 504, "{path}: {}", answer.text());
        assert!(!answer.header("retry-after").is_empty());
    }
    assert_eq!(house.upstream.total(), total);
}

/// A link from a newer page than ours, while the upstream fails: nobody knows that the file does not exist.
#[test]
fn a_file_that_an_old_page_lacks_is_not_missing() {
    let house = House::new();
    house.page("MISS", "0");
    house.pass(3);
    let path = "/pypi/files/demo/-/demo-2.0.tar.gz";
    assert_eq!(house.node.get(path).status, 404);
    assert_eq!(house.hits(), 2);
    house.pass(3);
    house.upstream.broken(&house.project.page_path(), Fault::Says("500 Broken"));
    let answer = house.node.get(path);
    assert!((502..=504).contains(&answer.status), "{} {}", answer.status, answer.text());
    assert!(!answer.header("retry-after").is_empty());
}

/// A stored page without its body, or with one of another version of dpm, is as good as none.
#[test]
fn a_page_that_cannot_be_read_is_fetched_again() {
    let house = House::new();
    let head = PageHead {
        upstream: "pypi".into(),
        checked_at: START,
        fresh_for: 300_000,
        found: true,
        revision: START,
        url: house.upstream.url("/simple/demo/"),
        etag: Some("\"a\"".into()),
        ..PageHead::default()
    };
    house.publish("1", "\"a\"");
    let store = &house.node.daemon().rooms().store;
    store.set_page_head("pypi\0demo", &head).unwrap();
    until("it is fetched", || house.node.get(&house.project.page()).status == 200);
    assert_eq!(house.hits(), 1);

    let other = Project::new("other", 10).publish(&house.upstream);
    let head = PageHead { url: house.upstream.url("/simple/other/"), ..head };
    store.set_page("pypi\0other", &Page { head, body: b"another form".to_vec() }).unwrap();
    until("it is fetched", || house.node.get(&other.page()).status == 200);
}
