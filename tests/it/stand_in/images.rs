//! Tags and digests of images, while their registry fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dpm::base::{PackageUrl, Sha256, raw_cid};
use dpm::catalogue::{Entry, Facts};
use dpm::config::Registry;
use dpm::rt::Clock;

use super::{REST, START};
use crate::clients::process::Home;
use crate::oci::fake::{FakeRegistry, blob_path, manifest_path};
use crate::oci::image::Image;
use crate::oci::through::registry;
use crate::oci::tools::Tools;
use crate::support::member::{self, Member, entry};
use crate::support::upstream::ANY;
use crate::support::{Answer, Fault, Node, request};

/// A registry, and two nodes in front of it that know each other; the second is in a room.
struct Yard {
    registry: FakeRegistry,
    nodes: Vec<Node>,
    time: Arc<AtomicU64>,
    purl: String,
}

const NAME: &str = "team/app";

impl Yard {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl Fn(&mut Registry)) -> Self {
        let origin = FakeRegistry::start();
        let time = Arc::new(AtomicU64::new(START));
        let purl = format!("pkg:oci/app?repository_url={}/{NAME}", origin.host());
        let nodes = Node::village_with(2, "http://127.0.0.1:1/simple/", |_, config, tuning| {
            config.oci = vec![registry(&origin.host())];
            change(&mut config.oci[0]);
            tuning.clock = Clock::Manual(time.clone());
            tuning.upstream.avoid_time = std::time::Duration::from_millis(1);
        });
        member::join(&nodes[1], &[&purl]);
        Self { registry: origin, nodes, time, purl }
    }

    fn fails(&self) {
        self.registry.server.broken(ANY, Fault::Says("502 Broken"));
    }

    fn pass(&self, seconds: u64) {
        self.time.fetch_add(seconds * 1000, Ordering::SeqCst);
    }

    /// All of an image, and a tag for it.
    fn entries(&self, image: &Image, tag: &str) -> Vec<Entry> {
        let of = |file: &str, bytes: &[u8], kind: Option<&str>| Entry {
            facts: Facts { media_type: kind.map(str::to_owned), ..Facts::default() },
            ..entry(&self.purl, file, bytes)
        };
        let manifests = image.manifests.iter().map(|(d, bytes)| of(&d.digest, bytes, Some(d.media_type)));
        let blobs = image.blobs.iter().map(|(digest, bytes)| of(digest, bytes, None));
        let tag = of(tag, image.root_bytes(), Some(image.root.media_type));
        manifests.chain(blobs).chain([tag]).collect()
    }

    fn ask(&self, method: &str, path: &str) -> Answer {
        request(method, &self.nodes[1].url(path), &[])
    }
}

#[test]
fn pulled_with_skopeo() {
    let yard = Yard::new();
    let home = Home::bare();
    let (tools, image) = (Tools::new(&home), Image::index(1, &[3000, 1_200_000]));
    yard.registry.put(NAME, "1", &image);
    let reference = |node: &Node| format!("{}/{NAME}:1", node.daemon().address());
    home.run(&mut tools.copy(&reference(&yard.nodes[0]), "first", None));
    yard.nodes[0].settle();
    yard.fails();
    let (refused, _) = home.try_run(&mut tools.copy(&reference(&yard.nodes[1]), "refused", None));
    assert!(!refused.success(), "nobody said what the tag is");
    Member::new("alice", 1).has(yard.entries(&image, "1")).tells(&yard.nodes[1]);
    yard.pass(50);
    home.run(&mut tools.copy(&reference(&yard.nodes[1]), "second", None));
    image.assert_is(&home.path("second"));
    let said = home.run(&mut tools.inspect(&reference(&yard.nodes[1]), None));
    assert!(said.contains(&image.root.digest), "{said}");
}

#[test]
fn what_a_room_says_of_a_tag() {
    let yard = Yard::new();
    let image = Image::new(1, &[3000]);
    let tag = manifest_path(NAME, "1");
    yard.fails();
    assert_eq!(yard.ask("GET", &tag).status, 502);
    Member::new("alice", 1).has(yard.entries(&image, "1")).tells(&yard.nodes[1]);
    yard.pass(50);
    let told = yard.ask("HEAD", &tag);
    assert_eq!((told.status, told.cache(), told.header("age")), (200, "ROOM", "50"));
    assert_eq!(told.header("docker-content-digest"), image.root.digest);
    assert_eq!(told.header("content-type"), image.root.media_type);
    assert_eq!(told.header("content-length"), image.root.size.to_string());
    assert_eq!(told.header("cache-control"), "max-age=0");
    assert!(told.header("warning").contains("members of a room"));
    let (layer, bytes) = image.largest();
    let told = yard.ask("HEAD", &blob_path(NAME, layer));
    assert_eq!((told.status, told.cache()), (200, "ROOM"));
    assert_eq!(told.header("content-length"), bytes.len().to_string());
    let list = yard.ask("GET", &format!("/v2/{NAME}/tags/list"));
    assert_eq!((list.status, list.cache()), (200, "ROOM"));
    assert_eq!(list.json(), serde_json::json!({"name": NAME, "tags": ["1"]}));
    // It says nothing of what refers to it, nor of another tag.
    for path in [format!("/v2/{NAME}/referrers/{}", image.root.digest), manifest_path(NAME, "2")] {
        assert_eq!(yard.ask("GET", &path).status, 502, "{path}");
    }
    // Nobody has the bytes.
    let answer = yard.ask("GET", &tag);
    assert_eq!(answer.status, 502, "{}", answer.text());
}

#[test]
fn a_registry_that_is_back() {
    let yard = Yard::new();
    let (old, new) = (Image::new(1, &[3000]), Image::new(2, &[3000]));
    let tag = manifest_path(NAME, "1");
    yard.registry.put(NAME, "1", &new);
    yard.registry.faulty(&tag, |_| Some(Fault::Says("500 Broken")));
    // The room's tag has another size than its manifest.
    let mut entries = yard.entries(&old, "1");
    entries.iter_mut().for_each(|entry| entry.size = 77);
    Member::new("alice", 1).has(entries).tells(&yard.nodes[1]);
    assert_eq!(yard.ask("HEAD", &tag).cache(), "ROOM");
    yard.registry.faulty(&tag, |_| None);
    let told = yard.ask("HEAD", &tag);
    assert_eq!(
        (told.cache(), told.header("docker-content-digest")),
        ("ROOM", &*old.root.digest),
        "for a moment"
    );
    yard.pass(REST);
    let told = yard.ask("HEAD", &tag);
    assert_eq!((told.cache(), told.header("docker-content-digest")), ("MISS", &*new.root.digest));
    assert_eq!(yard.ask("HEAD", &tag).cache(), "HIT");
    // What was known of the registry goes before the room.
    yard.registry.faulty(&tag, |_| Some(Fault::Says("500 Broken")));
    yard.pass(600);
    let told = yard.ask("HEAD", &tag);
    assert_eq!((told.cache(), told.header("docker-content-digest")), ("STALE", &*new.root.digest));
    // The old one is there, too: that the room was wrong about its size is no matter.
    yard.registry.put(NAME, "old", &old);
    let answer = yard.ask("GET", &manifest_path(NAME, &old.root.digest));
    assert!(answer.status == 200 && answer.body == old.root_bytes(), "{}", answer.text());
}

#[test]
fn an_answer_is_an_answer() {
    let yard = Yard::new();
    let image = Image::new(1, &[3000]);
    Member::new("alice", 1).has(yard.entries(&image, "1")).tells(&yard.nodes[1]);
    let tag = manifest_path(NAME, "1");
    assert_eq!(yard.ask("HEAD", &tag).status, 404);
    yard.fails();
    assert_eq!(yard.ask("HEAD", &tag).status, 404);
    yard.pass(61);
    assert_eq!(yard.ask("HEAD", &tag).cache(), "ROOM");
    yard.registry.server.broken(ANY, Fault::Says("403 No"));
    yard.pass(REST);
    assert_eq!(yard.ask("HEAD", &tag).status, 403);
}

#[test]
fn members_who_contradict_each_other() {
    let yard = Yard::new();
    let (one, other) = (Image::new(1, &[3000]), Image::new(2, &[3000]));
    yard.fails();
    let mut alice = Member::new("alice", 1).has(yard.entries(&one, "latest")).has(yard.entries(&one, "1"));
    let mut bob = Member::new("bob", 2).has(yard.entries(&other, "latest"));
    alice.tells(&yard.nodes[1]);
    bob.tells(&yard.nodes[1]);
    let answer = yard.ask("GET", &manifest_path(NAME, "latest"));
    assert_eq!(answer.status, 409, "{}", answer.text());
    let message = answer.json()["errors"][0]["message"].as_str().unwrap().to_owned();
    for part in [&alice.user, &bob.user, one.root.hex(), other.root.hex()] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(yard.ask("HEAD", &manifest_path(NAME, "1")).cache(), "ROOM");
    assert_eq!(yard.ask("GET", &format!("/v2/{NAME}/tags/list")).json()["tags"], serde_json::json!(["1"]));
}

#[test]
fn registries_that_are_kept_apart() {
    for private in [true, false] {
        let yard = Yard::with(|registry| registry.private = private);
        let image = Image::new(1, &[3000]);
        yard.fails();
        Member::new("alice", 1).has(yard.entries(&image, "1")).tells(&yard.nodes[1]);
        let answer = yard.ask("HEAD", &manifest_path(NAME, "1"));
        assert_eq!(answer.status, if private { 502 } else { 200 });
    }
}

#[test]
fn offline() {
    let mut yard = Yard::new();
    let image = Image::new(1, &[3000]);
    yard.nodes[1].restart(|config, _| config.offline = true);
    let tag = manifest_path(NAME, "1");
    assert_eq!(yard.ask("HEAD", &tag).status, 504);
    Member::new("alice", 1).has(yard.entries(&image, "1")).tells(&yard.nodes[1]);
    assert_eq!(yard.ask("HEAD", &tag).cache(), "ROOM");
    assert_eq!(yard.registry.server.total(), 0);
}

/// An entry that says another digest than its name.
#[test]
fn hostile_entries() {
    let yard = Yard::new();
    let image = Image::new(1, &[3000]);
    yard.fails();
    let named = Entry {
        root: raw_cid(Sha256::of(b"evil")),
        digests: vec![Sha256::of(b"evil").digest()],
        ..entry(&yard.purl, &image.root.digest, b"")
    };
    let elsewhere = Entry {
        purl: PackageUrl::parse(&yard.purl.replace("team/app", "other/app")).unwrap(),
        ..entry(&yard.purl, "2", b"x")
    };
    let mut odd = entry(&yard.purl, "odd", image.root_bytes());
    odd.facts.media_type = Some("text/html".into());
    Member::new("mallory", 1).has([named, elsewhere, odd]).tells(&yard.nodes[1]);
    assert_eq!(yard.ask("HEAD", &manifest_path(NAME, &image.root.digest)).status, 502);
    assert_eq!(yard.ask("HEAD", &manifest_path(NAME, "2")).status, 502);
    let odd = yard.ask("HEAD", &manifest_path(NAME, "odd"));
    assert!(!odd.header("content-type").contains("html"), "{odd:?}");
}
