//! Several rooms of one node, and several members that follow one room.

use std::mem::replace;
use std::time::{Duration, Instant};

use dpm::config::{Config, RoomPace};
use dpm::daemon::{RoomOrder, Tuning};
use dpm::members::Mode;

use super::club::{Club, acquainted, knows, lists, members, room_order};
use super::synapse::Limits;
use crate::support::{Node, Project, random_bytes, until};

/// As the homeserver of these tests takes it.
fn quick(config: &mut Config, _: &mut Tuning) {
    config.rooms.pace = RoomPace { per_second: 1000.0, burst: 1000 };
}

/// Two projects, a room for each, one node in both. What is of the one is nothing to the other.
#[test]
fn a_node_in_two_rooms() {
    let (mut club, ada) = Club::found(Limits::Raised, &["pkg:pypi/red-*"], quick);
    let carl = club.member(&club.synapse.account("carl"), quick);
    let create = RoomOrder::Create { name: "other".into(), encrypted: false, invite: vec![], mirror: None };
    let other = room_order(&ada, create)["room"].as_str().expect("a room").to_owned();
    let red = replace(&mut club.room, other);
    club.mirrors(&["pkg:pypi/blue-*"]);
    let bob = club.member(&club.synapse.account("bob"), quick);
    acquainted(&ada, &bob);
    acquainted(&ada, &carl);
    let [reds, blues, late] = ["red-one", "blue-one", "blue-two"]
        .map(|name| Project::of(name, name.repeat(1000).into_bytes()).publish(&club.upstream));
    for project in [&reds, &blues] {
        assert_eq!(ada.get(&project.file()).cache(), "MISS");
    }
    until("carl's node knows of the one", || knows(&carl, &ada, &reds.sha256));
    until("bob's of the other", || knows(&bob, &ada, &blues.sha256));
    assert!(!knows(&bob, &ada, &reds.sha256) && !knows(&carl, &ada, &blues.sha256));
    let peer = |node: &Node| node.daemon().peer_id().expect("a swarm");
    let may_have = |node: &Node, project: &Project| members(&ada).may_have(&peer(node), &project.sha256);
    assert!(may_have(&carl, &reds) && may_have(&bob, &blues));
    assert!(!may_have(&carl, &blues) && !may_have(&bob, &reds));
    let listed = |club: &Club| (lists(club, &ada), club.packages().0);
    let of = |project: &Project| vec![project.filename.clone()];
    assert_eq!(listed(&club), (of(&blues), of(&blues)));
    let blue = replace(&mut club.room, red);
    assert_eq!(listed(&club), (of(&reds), of(&reds)));
    let red = replace(&mut club.room, blue);
    for project in [&reds, &blues] {
        club.upstream.remove(&project.file_path());
    }
    let answer = bob.get(&reds.file());
    assert_ne!(answer.status, 200, "ada's node is not asked, and would not give it");

    room_order(&ada, RoomOrder::Leave(red));
    until("ada's node is in one room", || members(&ada).ids() == [club.room.as_str()]);
    until("she is gone from the other", || !knows(&carl, &ada, &reds.sha256));
    assert!(!may_have(&carl, &reds) && !members(&ada).is_member(&peer(&carl)));
    assert!(may_have(&bob, &blues) && knows(&bob, &ada, &blues.sha256));
    let answer = bob.get(&blues.file());
    assert_eq!((answer.status, answer.cache()), (200, "PEER"), "{}", answer.text());
    assert!(answer.body == blues.bytes);
    ada.get(&late.file());
    until("bob's node knows what is new", || knows(&bob, &ada, &late.sha256));
    assert_eq!(lists(&club, &ada), [blues.filename, late.filename]);
}

/// Nodes of a room besides the one that has everything.
const FOLLOWERS: usize = 4;

/// So many that nobody takes all or none of them: each takes each file or not, one way as often as the other.
const FILES: usize = 24;

/// Copies of a file that a room is content with, and how long the others wait for those whose turn it is: as
/// `mirror::share` says.
const COPIES: usize = 3;
const TURN: Duration = Duration::from_secs(60);

#[test]
fn who_follows_a_room_divides_the_work() {
    let (club, ada) = Club::found(Limits::Raised, &["pkg:pypi/*"], quick);
    let mut followers: Vec<Node> = Vec::new();
    for n in 0..FOLLOWERS {
        let node = club.member(&club.synapse.account(&format!("follower-{n}")), quick);
        acquainted(&ada, &node);
        followers.iter().for_each(|other| acquainted(other, &node));
        followers.push(node);
    }
    let projects: Vec<_> = (0..FILES)
        .map(|n| Project::of(&format!("p{n}"), random_bytes(n as u64, 5000)).publish(&club.upstream))
        .collect();
    for project in &projects {
        assert_eq!(ada.get(&project.file()).cache(), "MISS");
    }
    for node in &followers {
        until("all know what there is", || projects.iter().all(|p| knows(node, &ada, &p.sha256)));
        assert_eq!(node.artifacts(), 0, "who only looks fetches nothing");
    }
    let begun = Instant::now();
    for node in &followers {
        room_order(node, RoomOrder::Mirror { room: club.room.clone(), mode: Mode::Follow });
    }
    let has = |node: &Node, project: &Project| node.stored(&project.sha256).is_some();
    let copies = |project: &Project| 1 + followers.iter().filter(|node| has(node, project)).count();
    for project in &projects {
        until("there are enough of each", || copies(project) >= COPIES);
    }
    let counts: Vec<_> = projects.iter().map(copies).collect();
    let loads: Vec<_> =
        followers.iter().map(|node| projects.iter().filter(|p| has(node, p)).count()).collect();
    assert!(loads.iter().all(|files| *files > 0), "{loads:?}");
    // On a machine that is slower than a turn others have stepped in, as they should.
    if begun.elapsed() < TURN {
        assert_eq!(counts, [COPIES; FILES], "enough is enough");
        assert!(loads.iter().all(|files| *files < FILES), "{loads:?}");
    }
    for project in &projects {
        until("the room knows of them", || {
            followers.iter().filter(|node| knows(&ada, node, &project.sha256)).count() + 1 >= COPIES
        });
        assert_eq!(club.upstream.hits(&project.file_path()), 1, "{}", project.name);
    }
}
