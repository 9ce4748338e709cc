//! Whole nodes whose homeserver is no help: what else they do, they do as before.

use std::sync::atomic::Ordering;
use std::time::Duration;

use dpm::daemon::RoomOrder;
use dpm::eco::oci::Platforms;
use dpm::members::Mode;
use dpm::peers::Circle;
use dpm::wire::room::Allow;
use serde_json::json;

use super::club::{Club, acquainted, knows, members, room_order};
use super::door::{BAD_GATEWAY, Fault, GARBAGE};
use super::synapse::Limits;
use crate::support::relay::{GOOD, Line, Relay, multiaddr_of, socket_of};
use crate::support::{File, LIMIT, Latch, Node, Project, Upstream, until};

fn is_online(node: &Node) -> bool {
    room_order(node, RoomOrder::List)["connection"] == "online"
}

/// A node that starts while its homeserver is of no use downloads, gives, and takes from the members that it knew.
#[test]
fn a_start_with_a_homeserver_that_is_of_no_use() {
    let (club, ada) = Club::found(Limits::Raised, &["pkg:pypi/*"], |_, _| {});
    let mut bob = club.member(&club.synapse.account("bob"), |_, _| {});
    acquainted(&ada, &bob);
    let faults = [GARBAGE, BAD_GATEWAY, Fault::Late(Duration::from_secs(1)), Fault::Silence];
    let wheel = |name: String| Project::of(&name, name.repeat(1000).into_bytes()).publish(&club.upstream);
    let theirs = [0, 1, 2, 3].map(|n| wheel(format!("theirs-{n}")));
    for project in &theirs {
        ada.get(&project.file());
        until("bob's node knows", || knows(&bob, &ada, &project.sha256));
        club.upstream.remove(&project.file_path());
    }
    let adas = ada.daemon().peer_id().expect("a swarm");
    for (n, (fault, known)) in faults.into_iter().zip(&theirs).enumerate() {
        club.synapse.door.all(fault);
        club.synapse.door.forget();
        bob.restart(|_, _| {});
        let fresh = wheel(format!("fresh-{n}"));
        assert_eq!(bob.get(&fresh.page()).cache(), "MISS", "{fault:?}");
        let answer = bob.get(&fresh.file());
        assert_eq!((answer.status, answer.cache()), (200, "MISS"), "{fault:?}");
        bob.settle();
        let again = bob.get(&fresh.file());
        assert!(again.cache() == "HIT" && again.body == fresh.bytes, "{fault:?}: {}", again.cache());

        assert!(members(&bob).is_member(&adas), "{fault:?}");
        let found = || bob.exchange().peers().nodes_of(Circle::Far).contains(&adas);
        until("the nodes find each other again", found);
        let answer = bob.get(&known.file());
        assert_eq!((answer.status, answer.cache()), (200, "PEER"), "{fault:?}");
        assert!(answer.body == known.bytes, "{fault:?}");
        until("the homeserver was asked", || !club.synapse.door.asked("/sync").is_empty());
        match fault {
            Fault::Late(_) => until("it is online all the same", || is_online(&bob)),
            _ => assert!(!is_online(&bob), "{fault:?}"),
        }
    }
    club.synapse.door.open();
    bob.restart(|_, _| {});
    until("it is online", || is_online(&bob));
}

/// Slow enough that a file of some megabytes is under way for seconds.
const SLOW: Line = Line { bits_per_second: 16_000_000, ..GOOD };

/// A project whose file comes up to its middle, and the rest behind the latch.
fn in_two_goes(upstream: &Upstream, name: &str, latch: &Latch) -> Project {
    let project = Project::of(name, name.repeat(100_000).into_bytes());
    project.list(upstream, &[project.entry(upstream)]);
    let (bytes, gate) = (project.bytes.clone(), latch.clone());
    upstream.route(&project.file_path(), move |_, out| {
        use std::io::Write as _;
        let (first, rest) = bytes.split_at(bytes.len() / 2);
        write!(out, "HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n", bytes.len())?;
        out.write_all(first)?;
        gate.pass();
        out.write_all(rest)
    });
    project
}

/// A sync, a client's download and what a follower takes from a member are all under way when the homeserver dies.
#[test]
fn a_homeserver_killed_in_the_middle_of_everything() {
    let patient = |tuning: &mut dpm::daemon::Tuning| tuning.upstream.stall_time = LIMIT;
    let scope = ["pkg:pypi/held@1.0", "pkg:pypi/asked", "pkg:pypi/big", "pkg:pypi/later"];
    let (mut club, ada) = Club::found(Limits::Raised, &scope, |config, tuning| {
        // Her address is told nobody: who reaches her does so by the slow line.
        config.rooms.addresses = Allow::Global;
        patient(tuning);
    });
    let (peer, address) = ada.as_peer();
    let relay = Relay::start(socket_of(&address), SLOW);
    let bob = club.member(&club.synapse.account("bob"), |config, _| {
        config.rooms.mirror = Mode::Follow;
        config.near.peers = vec![(peer, multiaddr_of(relay.address()))];
    });
    let cy = club.member(&club.synapse.account("cy"), |_, tuning| patient(tuning));
    acquainted(&ada, &bob);
    let latch = Latch::default();
    let [held, asked] = ["held", "asked"].map(|name| in_two_goes(&club.upstream, name, &latch));
    let big = Project::new("big", 16 << 20).publish(&club.upstream);
    let taken = || bob.exchange().counters().taken_bytes.load(Ordering::Relaxed);
    std::thread::scope(|scope| {
        let sync = RoomOrder::Sync { room: club.room.clone(), platforms: Platforms::All };
        let sync = scope.spawn(|| room_order(&cy, sync));
        let client = scope.spawn(|| ada.get(&asked.file()));
        for project in [&held, &asked] {
            until("it is under way", || club.upstream.hits(&project.file_path()) == 1);
        }
        assert_eq!(ada.get(&big.file()).status, 200);
        until("the follower is given it", || taken() >= 1 << 20);
        club.synapse.kill();
        assert!(bob.stored(&big.sha256).is_none() && !sync.is_finished() && !client.is_finished());
        latch.open();
        let synced = sync.join().expect("a sync");
        let fetched = json!({"files": 1, "bytes": held.bytes.len()});
        assert_eq!((&synced["fetched"], &synced["missing"]), (&fetched, &json!([])), "{synced:#}");
        let answer = client.join().expect("an answer");
        assert_eq!((answer.status, answer.cache(), answer.broken.as_deref()), (200, "MISS", None));
        assert!(answer.body == asked.bytes);
    });
    until("the follower has it", || bob.stored(&big.sha256).is_some());
    assert_eq!(club.upstream.hits(&big.file_path()), 1, "it came from the member");
    // Nobody has to be online for what comes after.
    let later = Project::new("later", 1000);
    later.list(&club.upstream, &[later.entry(&club.upstream)]);
    club.upstream.serve(&later.file_path(), File::new(later.bytes.clone()));
    for node in [&ada, &bob, &cy] {
        until("it knows that nobody is there", || !is_online(node));
        assert_eq!(node.get(&later.file()).status, 200);
    }
}
