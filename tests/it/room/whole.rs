//! A room as a node knows it: who has what, and bringing all of it here. What members say is told by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dpm::daemon::{Order, RoomOrder};
use dpm::eco::oci::Platforms;
use dpm::rt::Clock;
use dpm::wire::room::{NODE_EVENT, SCOPE_EVENT};
use serde_json::{Value, json};

use super::synapse::{Limits, Synapse};
use super::world::World;
use crate::support::member::{self, Member, ROOM, entry, listed};
use crate::support::{Fault, Node, Project, Upstream, process, until};

fn show(node: &Node, missing: Option<usize>) -> Value {
    node.order(&Order::Room(RoomOrder::Show { room: ROOM.into(), missing }))
}

fn sync(node: &Node) -> Value {
    sync_told(node).0
}

/// The same, and how far it was meanwhile.
fn sync_told(node: &Node) -> (Value, Vec<Value>) {
    let platforms = Platforms::These(vec!["linux/amd64".into()]);
    node.order_told(&Order::Room(RoomOrder::Sync { room: "project".into(), platforms }))
}

fn files(v: &Value) -> (u64, u64) {
    (v["files"].as_u64().expect("files"), v["bytes"].as_u64().expect("bytes"))
}

#[test]
fn who_has_what() {
    let upstream = Upstream::start();
    let time = Arc::new(AtomicU64::new(1_790_000_000_000));
    let node = Node::with(&[&upstream.url("/simple/")], |config, tuning| {
        config.rooms.max_age = Duration::from_secs(3600);
        tuning.clock = Clock::Manual(time.clone());
    });
    let projects =
        [("one", 1000), ("two", 2000), ("three", 3000)].map(|(n, s)| Project::new(n, s).publish(&upstream));
    let [one, two, three] = &projects;
    member::join(&node, &["pkg:pypi/one@1.0", "pkg:pypi/t*"]);
    let mut ada = Member::new("ada", 1).has([listed(one), listed(two)]);
    let other = entry("pkg:pypi/other@1.0", "other-1.0.zip", b"not of the scope");
    let mut bob = Member::new("bob", 2).has([listed(two), listed(three), other]);
    ada.tells(&node);
    bob.tells(&node);
    assert_eq!(node.get(&two.file()).status, 200);
    until("it is stored", || node.stored(&two.sha256).is_some());
    let members = &node.daemon().rooms().members;
    members.hear_state(ROOM, "@eve:example.org", NODE_EVENT, &ada.peer().to_string(), b"{\"version\":1}");
    members.hear_state(ROOM, "@eve:example.org", SCOPE_EVENT, "x", b"{\"version\":9}");

    let shown = show(&node, Some(1));
    assert_eq!((&shown["name"], &shown["mirror"]), (&json!("project"), &json!("lazy")));
    assert_eq!(shown["scope"], json!({"packages": 1, "patterns": 1}));
    assert_eq!(files(&shown["in_scope"]), (3, 6000), "each file counts once: {shown:#}");
    assert_eq!(files(&shown["missing_here"]), (2, 4000));
    assert_eq!((shown["missing"].as_array().unwrap().len(), &shown["missing_not_listed"]), (1, &json!(1)));
    let row = |user: &str| {
        let rows = shown["members"].as_array().unwrap();
        rows.iter().find(|row| row["user"] == user).unwrap().clone()
    };
    let theirs = row(&bob.user);
    assert_eq!((files(&theirs), files(&theirs["missing_here"])), ((2, 5000), (1, 3000)));
    assert_eq!((&theirs["packages"], &theirs["says_files"]), (&json!(2), &json!(3)));
    assert_eq!((&theirs["peer"], &theirs["name"]), (&json!(bob.peer().to_string()), &json!("box")));
    assert_eq!(
        (&theirs["present"], &theirs["connected"], &theirs["known"]),
        (&json!(true), &json!(false), &json!(true))
    );
    let refused = shown["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 2, "{refused:#?}");
    assert!(refused.iter().all(|r| r["sender"] == "@eve:example.org" && r["why"] != ""));

    // All that is missing, and who has it.
    let shown = show(&node, Some(100));
    let mut missing: Vec<_> = shown["missing"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["package"].as_str().unwrap(), m["members"].as_array().unwrap().len()))
        .collect();
    missing.sort_unstable();
    assert_eq!(missing, [("pkg:pypi/one@1.0", 1), ("pkg:pypi/three@1.0", 1)]);
    assert_eq!(show(&node, None)["missing"], Value::Null);

    // Half an hour later one says something again, and then the word of the other is too old.
    let fresh = |user: &str| {
        let shown = show(&node, None);
        let rows = shown["members"].as_array().unwrap();
        let row = rows.iter().find(|row| row["user"] == user).unwrap();
        (row["age_seconds"].clone(), row["too_old"].clone(), files(row), files(&shown["in_scope"]))
    };
    let said = || process::said(&["room", "show", ROOM, "--data", node.data().to_str().unwrap()]);
    time.fetch_add(1_800_000, Ordering::Relaxed);
    ada.tells(&node);
    assert_eq!(fresh(&ada.user), (json!(0), json!(false), (2, 3000), (3, 6000)));
    assert_eq!(fresh(&bob.user), (json!(1800), json!(false), (2, 5000), (3, 6000)));
    let text = said();
    assert!(text.contains("  said 0s ago\n") && text.contains("  said 30m ago\n"), "{text}");
    time.fetch_add(1_801_000, Ordering::Relaxed);
    assert_eq!(fresh(&ada.user), (json!(1801), json!(false), (2, 3000), (2, 3000)));
    assert_eq!(fresh(&bob.user), (json!(3601), json!(true), (0, 0), (2, 3000)));
    let text = said();
    let too_old = "  said 1h 1s ago\n  said nothing for too long: what it said counts for nothing\n";
    assert!(text.contains("  said 30m 1s ago\n  2 packages") && text.contains(too_old), "{text}");
    bob.tells(&node);
    assert_eq!(fresh(&bob.user), (json!(0), json!(false), (2, 5000), (3, 6000)));

    // Who left counts for nothing.
    members.member(ROOM, &bob.user, false);
    let shown = show(&node, Some(100));
    assert_eq!((files(&shown["in_scope"]), files(&shown["missing_here"])), ((2, 3000), (1, 1000)));
    let gone =
        shown["members"].as_array().unwrap().iter().find(|row| row["user"] == bob.user.as_str()).unwrap();
    assert_eq!((&gone["present"], files(gone)), (&json!(false), (0, 0)));
}

/// Two members disagree: what was met of that is shown with both their names.
#[test]
fn a_dispute_is_shown() {
    let upstream = Upstream::start();
    let node = Node::hasty(&upstream.url("/simple/"));
    let project = Project::new("demo", 1000);
    upstream.broken(&project.page_path(), Fault::Says("503 Busy"));
    member::join(&node, &["pkg:pypi/*"]);
    let (mut ada, mut bob) = (Member::new("ada", 1), Member::new("bob", 2));
    ada = ada.has([listed(&project)]);
    bob = bob.has([entry("pkg:pypi/demo@1.0", &project.filename, b"other bytes")]);
    ada.tells(&node);
    bob.tells(&node);
    let synced = sync(&node);
    assert_eq!(synced["missing"].as_array().unwrap().len(), 2, "{synced:#}");
    assert_eq!(files(&synced["fetched"]), (0, 0));
    let disputes = show(&node, None)["disputes"].clone();
    assert_eq!(
        (&disputes[0]["package"], disputes[0]["members"].as_array().unwrap().len()),
        (&json!("pkg:pypi/demo@1.0"), 2)
    );
}

/// What members have comes from whoever is there, what the scope pins from the index, and both but once.
#[test]
fn everything_comes_here() {
    let upstream = Upstream::start();
    let nodes = Node::village(2, &upstream.url("/simple/"));
    let [giver, node] = &nodes[..] else { panic!("two nodes") };
    let big = Project::new("big", 3 << 20).publish(&upstream);
    let small = Project::new("small", 1000).publish(&upstream);
    let pinned = Project::new("pinned", 2000).publish(&upstream);
    for project in [&big, &small] {
        assert_eq!(giver.get(&project.file()).status, 200);
        until("it is stored", || giver.stored(&project.sha256).is_some());
    }
    let scope = ["pkg:pypi/big", "pkg:pypi/small", "pkg:pypi/pinned@1.0"];
    member::join(node, &scope);
    Member::new("ada", 1).has([listed(&big), listed(&small)]).tells(node);
    let hits = upstream.hits(&big.file_path());
    let (synced, told) = sync_told(node);
    assert_eq!(synced["missing"], json!([]), "{synced:#}");
    assert_eq!(files(&synced["from_peers"]), (2, (3 << 20) + 1000));
    let number = |state: &Value, key: &str| state[key].as_u64().expect("a number");
    let far = |artifacts: &str, bytes: &str| -> Vec<(u64, u64)> {
        told.iter().map(|state| (number(state, artifacts), number(state, bytes))).collect()
    };
    let (done, of) = (far("artifacts", "bytes"), far("of", "of_bytes"));
    // First what members have, then what else the scope names.
    for states in [&done, &of] {
        assert!(states.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1), "{told:#?}");
    }
    assert!(done.contains(&(2, (3 << 20) + 1000)) && of.contains(&(2, (3 << 20) + 1000)), "{told:#?}");
    assert!(done.iter().zip(&of).all(|(done, of)| done.0 <= of.0 && done.1 <= of.1), "{told:#?}");
    let all = (3, (3 << 20) + 3000);
    assert_eq!((done.last(), of.last()), (Some(&all), Some(&all)));
    assert_eq!(far("peers_bytes", "upstream_bytes").last(), Some(&((3 << 20) + 1000, 2000)));
    assert_eq!(files(&synced["fetched"]), (1, 2000));
    assert_eq!(upstream.hits(&big.file_path()), hits);
    let gave = synced["givers"].as_array().unwrap();
    assert_eq!((gave.len(), &gave[0]["peer"]), (1, &json!(giver.as_peer().0.to_string())));
    for project in [&big, &small, &pinned] {
        assert!(node.stored(&project.sha256).is_some(), "{}", project.name);
    }
    let again = sync(node);
    assert_eq!((files(&again["fetched"]), files(&again["from_peers"])), ((0, 0), (0, 0)));
    assert_eq!(files(&again["already_here"]), (3, (3 << 20) + 3000));
    assert_eq!(files(&show(node, None)["missing_here"]), (0, 0));
}

/// An index that has another file under a name is right, and the member wrong.
#[test]
fn the_index_has_to_agree() {
    let upstream = Upstream::start();
    let node = Node::new(&upstream.url("/simple/"));
    let project = Project::new("demo", 1000).publish(&upstream);
    member::join(&node, &["pkg:pypi/*"]);
    let forged = entry("pkg:pypi/demo@1.0", &project.filename, b"forged");
    let other = entry("pkg:npm/x@1.0", "x-1.0.tgz", b"of npm");
    Member::new("eve", 1).has([forged, other]).tells(&node);
    let synced = sync(&node);
    assert_eq!(node.artifacts(), 0);
    let missing = synced["missing"].as_array().unwrap();
    assert_eq!((missing.len(), &missing[0]["file"]), (1, &json!(project.filename)), "{synced:#}");
}

/// A sync that would push itself out of the store does not begin.
#[test]
fn more_than_the_store_takes() {
    let upstream = Upstream::start();
    let node = Node::with(&[&upstream.url("/simple/")], |config, _| {
        config.store.budget = dpm::config::Budget::Bytes(1 << 20);
    });
    let project = Project::new("demo", 2 << 20).publish(&upstream);
    member::join(&node, &["pkg:pypi/*"]);
    Member::new("ada", 1).has([listed(&project)]).tells(&node);
    let platforms = Platforms::All;
    let order = Order::Room(RoomOrder::Sync { room: ROOM.into(), platforms });
    let error = node.carry(&order, b"").unwrap_err();
    assert!(
        error.contains("2097152 bytes are not here, 0 bytes of the room are, and the store takes 1048576"),
        "{error}"
    );
    assert_eq!(upstream.hits(&project.file_path()), 0);
}

/// Two nodes far from each other: what one got, the other knows of, shows and brings here, with the index gone.
#[test]
fn a_room_is_brought_to_another_node() {
    let Some(world) = World::start() else { return };
    let synapse = Synapse::start(Limits::Raised);
    let (mut index, house) = (world.index(), world.homeserver(&synapse));
    let projects = [("small", 10_000), ("app", 3 << 20)].map(|(name, size)| index.publish(name, &[], size));
    let [ada, bob] = ["ada", "bob"].map(|name| {
        let node = world.node(&index, "[rooms]\naddresses = 'all'\n");
        node.login(&house, &synapse.account(name));
        node
    });
    let words = ["create", "project", "--scope", "pkg:pypi/small@1.0", "--scope", "pkg:pypi/app@1.0"];
    let room = ada.node.json(&words)["room"].as_str().expect("a room").to_owned();
    let seeded = ada.node.json(&["sync", "project"]);
    assert_eq!((files(&seeded["fetched"]).0, &seeded["missing"]), (2, &json!([])), "{seeded:#}");
    bob.node.json(&["join", &room]);
    let ours = |v: &Value| v["members"].as_array().and_then(|all| all.first().cloned()).unwrap_or_default();
    until("ada's catalogue is there", || {
        let shown = bob.node.json(&["show", &room]);
        ours(&shown)["known"] == true && files(&shown["missing_here"]).0 == 2
    });
    assert!(bob.node.says(&["show", "project", "--missing"]).contains("pkg:pypi/app@1.0"));
    index.close();
    let synced = bob.node.json(&["sync", "project"]);
    let bytes: u64 = projects.iter().map(|project| project.bytes.len() as u64).sum();
    assert_eq!(files(&synced["from_peers"]), (2, bytes), "{synced:#}");
    assert_eq!((files(&synced["fetched"]), &synced["missing"]), ((0, 0), &json!([])));
    let shown = bob.node.json(&["show", "project"]);
    let theirs = ours(&shown);
    assert_eq!((&theirs["user"], &theirs["connected"]), (&json!("@ada:room.test"), &json!(true)));
    assert_eq!((files(&theirs), files(&shown["missing_here"])), ((2, bytes), (0, 0)));
}
