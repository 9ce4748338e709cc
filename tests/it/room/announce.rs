//! What nodes tell in a room of what they have, and what the others come to know of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dpm::config::Registry;
use dpm::daemon::{Order, RoomOrder};
use dpm::members::Mode;
use dpm::rt::Clock;
use dpm::store::Store;

use super::club::{Club, acquainted, knows, lists, members, put, room_order};
use super::synapse::Limits;
use crate::oci::fake::{FakeRegistry, blob_path, manifest_path};
use crate::oci::image::Image;
use crate::oci::through::{beside, registry};
use crate::support::{File, Node, Project, until};

/// A project whose one file is like no other's.
fn wheel(name: &str) -> Project {
    Project::of(name, name.repeat(1000).into_bytes())
}

/// Limits and nodes as everybody has them.
#[test]
fn what_one_stores_the_others_know_and_nothing_else() {
    let (club, ada) = Club::found(Limits::Default, &["pkg:pypi/inside", "pkg:pypi/later@2.*"], |_, _| {});
    let bob = club.member(&club.synapse.account("bob"), |_, _| {});
    acquainted(&ada, &bob);
    let [inside, outside, later] = ["inside", "outside", "later"].map(|name| {
        let project = wheel(name);
        let mut entry = project.entry(&club.upstream);
        entry["requires-python"] = ">=3.6".into();
        entry["yanked"] = "bad".into();
        let project = project.publish(&club.upstream);
        project.list(&club.upstream, &[entry]);
        project
    });
    for project in [&outside, &inside, &later] {
        assert_eq!(ada.get(&project.page()).status, 200);
        assert_eq!(ada.get(&project.file()).cache(), "MISS");
    }
    until("bob's node knows", || knows(&bob, &ada, &inside.sha256));
    assert_eq!(lists(&club, &ada), [inside.filename.as_str()]);
    assert!(!knows(&bob, &ada, &outside.sha256) && !knows(&bob, &ada, &later.sha256));
    let known = members(&bob).package(&"pkg:pypi/inside".parse_purl()).unwrap();
    let entry = &known.entries[0];
    assert_eq!(entry.purl.as_str(), "pkg:pypi/inside@1.0");
    assert_eq!(entry.facts.requires_python.as_deref(), Some(">=3.6"));
    assert_eq!(entry.facts.yanked.as_deref(), Some("bad"));
    assert!(entry.first_seen.is_some());
    assert_eq!(
        members(&ada).package(&"pkg:pypi/inside".parse_purl()).unwrap().entries.len(),
        0,
        "not its own word"
    );

    // The room mirrors something else now.
    club.mirrors(&["pkg:pypi/later"]);
    until("bob's node knows the other one", || knows(&bob, &ada, &later.sha256));
    until("and the first one no longer", || !knows(&bob, &ada, &inside.sha256));
    assert_eq!(lists(&club, &ada), [later.filename.as_str()]);

    // What is evicted is no longer told of.
    ada.order(&Order::Purge(format!("sha256:{}", later.sha256)));
    until("bob's node knows that it is gone", || !knows(&bob, &ada, &later.sha256));
    let (added, removed) = club.packages();
    // When the scope changed, the whole catalogue was told of and no changes: among those may be what is not to be said.
    assert_eq!(added, std::slice::from_ref(&inside.filename));
    // Events may have been too many by then, and the catalogue has it all.
    assert!(removed.iter().all(|file| *file == later.filename), "{removed:?}");
    for event in club.events() {
        let text = event.to_string();
        assert!(!text.contains("outside"), "{text}");
    }
}

#[test]
fn what_is_private_is_told_nobody() {
    let (club, ada) = Club::found(Limits::Raised, &["pkg:pypi/*"], |config, _| {
        config.pypi[0].private = true;
    });
    let bob = club.member(&club.synapse.account("bob"), |_, _| {});
    acquainted(&ada, &bob);
    let project = wheel("secret").publish(&club.upstream);
    assert_eq!(ada.get(&project.file()).cache(), "MISS");
    ada.settle();
    // Bob's own index is public: what he has comes after.
    let shared = wheel("shared").publish(&club.upstream);
    assert_eq!(bob.get(&shared.file()).cache(), "MISS");
    until("ada's node knows of bob's", || knows(&ada, &bob, &shared.sha256));
    assert_eq!(lists(&club, &ada), Vec::<String>::new());
    assert_eq!(club.packages().0, [shared.filename.as_str()]);
}

#[test]
fn ten_thousand_packages_cost_a_handful_of_events() {
    let (club, ada) = Club::found(Limits::Default, &["pkg:pypi/package-*"], |_, _| {});
    let bob = club.member(&club.synapse.account("bob"), |_, _| {});
    acquainted(&ada, &bob);
    let store = ada.daemon().rooms().store.clone();
    let all: Vec<_> = (0..10_000).map(|n| put(&store, n)).collect();
    let peer = ada.daemon().peer_id().unwrap();
    until("bob's node has the whole catalogue", || {
        let theirs = members(&bob).catalogues(&club.room);
        theirs.iter().any(|(of, root)| *of == peer && root.is_some_and(|root| root.entries == 10_000))
    });
    assert!(all.iter().step_by(97).all(|sha256| knows(&bob, &ada, sha256)));
    let events = club.events().len();
    assert!(events <= 12, "{events} events");
}

#[test]
fn a_restart_keeps_count_and_catalogue() {
    let (club, mut ada) = Club::found(Limits::Raised, &["pkg:pypi/*"], |_, _| {});
    let mut bob = club.member(&club.synapse.account("bob"), |_, _| {});
    acquainted(&ada, &bob);
    let [one, two, three] = ["one", "two", "three"].map(|name| wheel(name).publish(&club.upstream));
    ada.get(&one.file());
    until("bob's node knows", || knows(&bob, &ada, &one.sha256));
    until("the state says so too", || club.adverts(&ada).last().is_some_and(|a| a.catalogue.is_some()));
    let before = (club.adverts(&ada), club.events().len());
    ada.restart(|_, _| {});
    bob.restart(|_, _| {});
    assert!(knows(&bob, &ada, &one.sha256), "bob's node kept it");
    acquainted(&ada, &bob);
    assert_eq!(lists(&club, &ada), [one.filename.as_str()]);
    ada.get(&two.file());
    until("bob's node knows the next one", || knows(&bob, &ada, &two.sha256));
    until("the state says so", || club.adverts(&ada).len() > before.0.len());
    let adverts = club.adverts(&ada);
    // Their addresses have changed, for their ports have; nothing else cost an event.
    assert!(adverts.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "{adverts:#?}");
    let events = club.events().len();
    assert!(events <= before.1 + 5, "{events} events after {}", before.1);

    // What went while the node did not run is told when it does.
    ada.stop();
    let store = Store::open(ada.data(), store_options()).unwrap();
    store.remove(&one.sha256).unwrap();
    store.close().unwrap();
    drop(store);
    ada.restart(|_, _| {});
    until("bob's node knows that it is gone", || !knows(&bob, &ada, &one.sha256));
    ada.get(&three.file());
    until("and what is new", || knows(&bob, &ada, &three.sha256));
    assert!(knows(&bob, &ada, &two.sha256));
}

fn store_options() -> dpm::store::Options {
    dpm::store::Options {
        budget: dpm::store::Budget::Bytes(4 << 30),
        free_margin_bytes: 1 << 20,
        clock: Clock::default(),
    }
}

#[test]
fn a_dead_homeserver_is_caught_up_with() {
    let (mut club, mut ada) = Club::found(Limits::Raised, &["pkg:pypi/*"], |_, _| {});
    let mut bob = club.member(&club.synapse.account("bob"), |_, _| {});
    acquainted(&ada, &bob);
    let [before, during] = ["before", "during"].map(|name| wheel(name).publish(&club.upstream));
    ada.get(&before.file());
    until("bob's node knows", || knows(&bob, &ada, &before.sha256));
    club.synapse.kill();
    ada.get(&during.file());
    until("ada's node lists it", || lists(&club, &ada).len() == 2);
    // What was known is known without it, after a start too.
    bob.restart(|_, _| {});
    assert!(knows(&bob, &ada, &before.sha256) && !knows(&bob, &ada, &during.sha256));
    let (swarm, _) = ada.daemon().rooms().near.as_ref().unwrap();
    let bobs = bob.daemon().peer_id().unwrap();
    until("the nodes find each other again", || swarm.peers().iter().any(|info| info.peer == bobs));
    club.synapse.revive();
    until("bob's node knows the rest", || knows(&bob, &ada, &during.sha256));
    ada.restart(|_, _| {});
    until("ada's node is back", || club.adverts(&ada).len() > 1);
}

#[test]
fn two_nodes_of_one_account() {
    let (club, ada) = Club::found(Limits::Raised, &["pkg:pypi/*"], |_, _| {});
    let second = club.member(&club.ada, |_, _| {});
    let bob = club.member(&club.synapse.account("bob"), |_, _| {});
    acquainted(&ada, &second);
    let [one, two] = ["one", "two"].map(|name| wheel(name).publish(&club.upstream));
    ada.get(&one.file());
    second.get(&two.file());
    until("bob's node knows what the first has", || knows(&bob, &ada, &one.sha256));
    until("and the second", || knows(&bob, &second, &two.sha256));
    until("and they each other's", || knows(&ada, &second, &two.sha256) && knows(&second, &ada, &one.sha256));
}

#[test]
fn a_revoked_token() {
    let (club, ada) = Club::found(Limits::Raised, &["pkg:pypi/*"], |_, _| {});
    let bob_account = club.synapse.account("bob");
    let bob = club.member(&bob_account, |_, _| {});
    acquainted(&ada, &bob);
    let [before, after] = ["before", "after"].map(|name| wheel(name).publish(&club.upstream));
    bob.get(&before.file());
    until("ada's node knows", || knows(&ada, &bob, &before.sha256));
    club.synapse.ask("POST", "client/v3/logout/all", Some(&bob_account.token), Some(serde_json::json!({})));
    until("bob's node has heard of it", || room_order(&bob, RoomOrder::List)["connection"] == "logged out");
    assert!(members(&bob).is_member(&ada.daemon().peer_id().unwrap()), "what it knew stays");
    bob.get(&after.file());
    club.login(&bob, &bob_account);
    until("ada's node knows the rest", || knows(&ada, &bob, &after.sha256));
    assert!(knows(&ada, &bob, &before.sha256));
    // Whoever logs out is in no room.
    room_order(&bob, RoomOrder::Logout);
    until("bob's node knows nobody", || members(&bob).ids().is_empty());
}

#[test]
fn clocks_that_are_wrong() {
    let clock = Arc::new(AtomicU64::new(631_152_000_000));
    let time = clock.clone();
    let (club, ada) = Club::found(Limits::Raised, &["pkg:pypi/*"], move |_, tuning| {
        tuning.clock = Clock::Manual(time.clone());
    });
    let bob = club.member(&club.synapse.account("bob"), |_, _| {});
    acquainted(&ada, &bob);
    let times = [
        ("in-1990", 631_152_000_000_u64),
        ("in-2100", 4_102_444_800_000),
        ("in-1970", 0),
        ("now", 1_790_000_000_000),
    ];
    for (name, millis) in times {
        clock.store(millis, Ordering::Relaxed);
        let project = wheel(name).publish(&club.upstream);
        ada.get(&project.file());
        until(name, || knows(&bob, &ada, &project.sha256));
    }
    let adverts = club.adverts(&ada);
    assert!(adverts.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "{adverts:#?}");
}

/// Who gives nothing tells of nothing.
#[test]
fn a_node_that_shares_nothing() {
    let (club, ada) = Club::found(Limits::Raised, &["pkg:pypi/*"], |config, _| {
        config.near.share = dpm::config::Share::Off;
    });
    let bob = club.member(&club.synapse.account("bob"), |_, _| {});
    acquainted(&ada, &bob);
    let [hers, his] = ["hers", "his"].map(|name| wheel(name).publish(&club.upstream));
    ada.get(&hers.file());
    ada.settle();
    bob.get(&his.file());
    until("ada's node knows of bob's", || knows(&ada, &bob, &his.sha256));
    assert_eq!(club.packages().0, [his.filename.as_str()]);
    assert!(club.adverts(&ada).iter().all(|advert| advert.catalogue.is_none()));
}

#[test]
fn what_is_followed_is_fetched_from_members_within_a_budget() {
    let (club, ada) = Club::found(Limits::Raised, &["pkg:pypi/*"], |_, _| {});
    let follow = |budget| {
        move |config: &mut dpm::config::Config, _: &mut dpm::daemon::Tuning| {
            config.rooms.mirror = Mode::Follow;
            config.rooms.budget_bytes = budget;
        }
    };
    let bob = club.member(&club.synapse.account("bob"), follow(100_000));
    let eve = club.member(&club.synapse.account("eve"), |_, _| {});
    acquainted(&ada, &bob);
    acquainted(&ada, &eve);
    let [first, large, small] = [("first", 60_000), ("large", 90_000), ("small", 20_000)]
        .map(|(name, size)| Project::new(name, size).publish(&club.upstream));
    let here = |node: &Node, project: &Project| node.stored(&project.sha256).is_some();
    ada.get(&first.file());
    until("bob's node has it", || here(&bob, &first));
    until("and says so", || knows(&ada, &bob, &first.sha256) && knows(&eve, &bob, &first.sha256));
    ada.get(&large.file());
    until("bob's node knows of it", || knows(&bob, &ada, &large.sha256));
    ada.get(&small.file());
    until("what fits is fetched", || here(&bob, &small));
    assert!(!here(&bob, &large), "beyond the budget");
    assert!(!here(&eve, &first) && !here(&eve, &small), "who only looks fetches nothing");
    for project in [&first, &large, &small] {
        assert_eq!(club.upstream.hits(&project.file_path()), 1, "{}", project.name);
    }
    let found = bob.stored(&first.sha256).unwrap();
    assert_eq!((found.upstream.as_str(), found.filename.as_str()), ("room:", first.filename.as_str()));
    let known = members(&eve).package(&"pkg:pypi/first".parse_purl()).unwrap();
    assert_eq!((known.entries.len(), known.tellers.len(), known.disputed.len()), (1, 2, 0));
}

/// Manifests and layers by their digests, and the tags that mean them now; what is followed comes from members.
#[test]
fn images_with_their_tags() {
    let origin = FakeRegistry::start();
    let (host, name) = (origin.host(), "team/app");
    let purl = format!("pkg:oci/app?repository_url={host}/{name}");
    // One whose images are kept apart, although the room mirrors them.
    let corp = FakeRegistry::start();
    let apart = Registry { private: true, ..beside("corp", &corp.host()) };
    let secret_purl = "pkg:oci/secret?repository_url=corp.example.org/team/secret";
    let oci = |config: &mut dpm::config::Config| config.oci = vec![registry(&host), apart.clone()];
    let time = Arc::new(AtomicU64::new(1_790_000_000_000));
    let (club, ada) = Club::found(Limits::Raised, &[&purl, secret_purl], |config, tuning| {
        oci(config);
        tuning.clock = Clock::Manual(time.clone());
    });
    let bob = club.member(&club.synapse.account("bob"), |config, tuning| {
        oci(config);
        config.rooms.mirror = Mode::Follow;
        tuning.clock = Clock::Manual(time.clone());
    });
    acquainted(&ada, &bob);
    let [first, second] = [1, 2].map(|seed| Image::index(seed, &[9000, 2 << 20]));
    origin.put(name, "1", &first);
    origin.put("team/other", "1", &second);
    // Nothing of it is in the others too.
    let secret = Image::new(30, &[9000, 2 << 20]);
    corp.put("team/secret", "1", &secret);
    let pull_at = |host: &str, name: &str, image: &Image| {
        let mut paths = vec![manifest_path(name, "1")];
        paths.extend(image.manifests.iter().map(|(descriptor, _)| manifest_path(name, &descriptor.digest)));
        paths.extend(image.blobs.keys().map(|digest| blob_path(name, digest)));
        for path in paths {
            assert_eq!(ada.get(&format!("{path}?ns={host}")).status, 200, "{path}");
        }
        ada.settle();
    };
    let pull = |name: &str, image: &Image| pull_at(&host, name, image);
    pull_at("corp.example.org", "team/secret", &secret);
    pull("team/other", &second);
    pull(name, &first);
    let digests = |image: &Image| {
        let manifests = image.manifests.iter().map(|(descriptor, _)| descriptor.digest.clone());
        manifests.chain(image.blobs.keys().cloned()).collect::<Vec<_>>()
    };
    let mut want = digests(&first);
    want.push("1".into());
    want.sort();
    until("ada's node lists the image", || lists(&club, &ada) == want);
    let package = purl.parse_purl();
    let known = || members(&bob).package(&package).expect("the store").entries;
    until("bob's node knows it", || known().len() == want.len());
    let tag = known().into_iter().find(|entry| entry.file == "1").unwrap();
    assert_eq!(tag.facts.media_type.as_deref(), Some(first.root.media_type));
    assert_eq!(tag.digests[0].to_string(), first.root.digest);
    for entry in known() {
        let manifest = first.manifests.iter().any(|(descriptor, _)| descriptor.digest == entry.file);
        assert_eq!(entry.facts.media_type.is_some(), manifest || entry.file == "1", "{}", entry.file);
    }
    // Bob's node brings them here, and says so of the digests: what a tag means only those say who asked.
    let mut theirs = digests(&first);
    theirs.sort();
    until("bob's node has all of it", || lists(&club, &bob) == theirs);
    for digest in &theirs {
        let path = if first.blobs.contains_key(digest) {
            blob_path(name, digest)
        } else {
            manifest_path(name, digest)
        };
        assert_eq!(origin.server.hits(&path), 1, "{path}");
    }

    // The tag means something else now.
    origin.put(name, "1", &second);
    time.fetch_add(600_000, Ordering::Relaxed);
    pull(name, &second);
    until("bob's node knows that", || {
        let tag = known().into_iter().find(|entry| entry.file == "1");
        tag.is_some_and(|tag| tag.digests[0].to_string() == second.root.digest)
    });
    let told = [lists(&club, &ada), club.packages().0].concat();
    for digest in digests(&secret) {
        let stored = ada.daemon().rooms().store.describe(&digest.parse().unwrap()).unwrap();
        assert!(stored.unwrap().private && !told.contains(&digest), "{digest}");
    }
    assert!(members(&bob).package(&secret_purl.parse_purl()).expect("the store").entries.is_empty());
}

/// One node's news have the others ask their own index, which they would have done minutes later.
#[test]
fn pages_that_changed() {
    let time = Arc::new(AtomicU64::new(1_790_000_000_000));
    let clock = |tuning: &mut dpm::daemon::Tuning| tuning.clock = Clock::Manual(time.clone());
    let (club, ada) = Club::found(Limits::Raised, &["pkg:pypi/demo@1.*"], |_, tuning| clock(tuning));
    let bob = club.member(&club.synapse.account("bob"), |_, tuning| clock(tuning));
    acquainted(&ada, &bob);
    let [demo, other] = ["demo", "other"].map(wheel);
    let publish = |project: &Project, etag: &str, yanked: bool| {
        let mut entry = project.entry(&club.upstream);
        if yanked {
            entry["yanked"] = "bad".into();
        }
        let page = File::json(project.page_of(&[entry])).header("etag", etag);
        club.upstream.serve(&project.page_path(), page);
        club.upstream.serve(&project.file_path(), File::new(project.bytes.clone()));
    };
    publish(&demo, "\"1\"", false);
    publish(&other, "\"1\"", false);
    for node in [&ada, &bob] {
        for project in [&demo, &other] {
            assert_eq!(node.get(&project.page()).cache(), "MISS");
        }
    }
    ada.get(&demo.file());
    until("bob's node knows what ada's has", || knows(&bob, &ada, &demo.sha256));
    time.fetch_add(60_000, Ordering::Relaxed);
    for project in [&demo, &other] {
        publish(project, "\"2\"", true);
        let path = ada.url(&project.page());
        let asked = crate::support::request("GET", &path, &[("cache-control", "no-cache")]);
        assert_eq!(asked.cache(), "MISS");
    }
    until("bob's index is asked", || bob.get(&demo.page()).text().contains("bad"));
    assert!(
        !bob.get(&other.page()).text().contains("bad"),
        "what the room does not mirror is nobody's business"
    );
    let notes: Vec<_> = club.events().into_iter().filter(|e| e["type"] == "org.dpm.index").collect();
    assert_eq!(notes.len(), 1, "{notes:#?}");
    assert!(!notes[0].to_string().contains("other"));
    // And the entry says it, too.
    until("bob's node knows it of the file", || {
        let known = members(&bob).package(&"pkg:pypi/demo".parse_purl()).expect("the store");
        known.entries[0].facts.yanked.as_deref() == Some("bad")
    });
}

/// All at one pace, in a room that has a homeserver's usual limits.
#[test]
fn a_pace_of_ones_own() {
    let (club, ada) = Club::found(Limits::Raised, &["pkg:pypi/*"], |config, _| {
        config.rooms.pace = dpm::config::RoomPace { per_second: 1000.0, burst: 1000 };
    });
    let bob = club.member(&club.synapse.account("bob"), |_, _| {});
    acquainted(&ada, &bob);
    for n in 0..20 {
        let project = wheel(&format!("p{n}")).publish(&club.upstream);
        ada.get(&project.file());
        until("each is known at once", || knows(&bob, &ada, &project.sha256));
    }
    assert_eq!(club.packages().0.len(), 20);
}

trait Purl {
    fn parse_purl(&self) -> dpm::base::PackageUrl;
}

impl Purl for str {
    fn parse_purl(&self) -> dpm::base::PackageUrl {
        dpm::base::PackageUrl::parse(self).expect("a package URL")
    }
}
