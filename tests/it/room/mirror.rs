//! A room as the mirror of a project: nodes far from each other, the index cut off, pip as the client.

use super::synapse::{Limits, Synapse};
use super::world::World;
use crate::support::until;

#[test]
fn a_room_that_is_no_mirror_names_nothing() {
    let Some(world) = World::start() else { return };
    let synapse = Synapse::start(Limits::Raised);
    let (mut index, house) = (world.index(), world.homeserver(&synapse));
    let small = index.publish("small", &[], 10_000);
    index.publish("app", &["small"], 3 << 20);
    let [mut ada, bob] = ["ada", "bob"].map(|name| {
        let node = world.node(&index, "");
        node.login(&house, &synapse.account(name));
        node
    });
    let room = ada.node.json(&["create", "project"])["room"].as_str().expect("a room").to_owned();
    bob.node.json(&["join", &room]);
    until("both are in it", || ada.node.json(&["list"])["rooms"][0]["members"] == 2);

    let files = ada.pip(&["app"], "app");
    assert!(files.contains_key("app/data") && files.contains_key("small/data"), "{files:?}");
    index.close();
    let text = bob.try_pip(&["app"], "app").expect_err("nobody has it");
    assert!(text.contains("No matching distribution found for app"), "{text}");
    assert_eq!(bob.answers("room") + bob.answers("peer"), 0);
    index.unplug();
    let status = bob.get(&small.page()).status;
    assert!(matches!(status, 502 | 503), "{status}");
    ada.kill();
    ada.revive();
    assert_eq!(ada.pip(&["app"], "again"), files);
}
