//! Another maker's node, given nothing but what a room says.

use serde_json::{Value, json};

use super::synapse::{Limits, Synapse};
use super::world::World;
use crate::bitswap::maker::{Make, Maker};
use crate::clients::process::prefixed;
use crate::support::until;

/// More files than a leaf of a catalogue holds.
const SMALL: usize = 40;

/// The node lets everybody in, as an IPFS node does: whoever is no member of a room proves nothing to it.
#[test]
fn helia_finds_a_package_by_the_rooms_state_alone() {
    let Some(world) = World::start() else { return };
    let synapse = Synapse::start(Limits::Raised);
    let (index, house) = (world.index(), world.homeserver(&synapse));
    let app = index.publish("app", &[], 3 << 20);
    let ada = world.node(&index, "[near]\nshare = \"anyone\"");
    ada.login(&house, &synapse.account("ada"));
    let room = ada.node.json(&["create", "project", "--scope", "pkg:pypi/*"]);
    let room = room["room"].as_str().expect("a room").to_owned();
    let small: Vec<_> =
        (0..SMALL).map(|n| index.publish(&format!("small-{n}"), &[], 1000 + 100 * n)).collect();
    for project in small.iter().chain([&app]) {
        assert_eq!(ada.get(&project.page()).status, 200);
        assert!(ada.get(&project.file()).body == project.bytes);
    }

    let reader = synapse.account("reader");
    let path = room.replace('!', "%21");
    synapse.ask("POST", &format!("client/v3/join/{path}"), Some(&reader.token), Some(json!({})));
    let mut node = Value::Null;
    until("the room says that it has them all", || {
        let state = synapse.ask("GET", &format!("client/v3/rooms/{path}/state"), Some(&reader.token), None);
        let said = state.as_array().and_then(|events| events.iter().find(|e| e["type"] == "org.dpm.node"));
        node = said.map(|event| event["content"].clone()).unwrap_or_default();
        node["entries"] == SMALL + 1
    });
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let (address, peer, root) = (text(&node["addresses"][0]), text(&node["peer"]), text(&node["root"]));

    let machine = world.machine();
    let mut helia = Maker::start_by(Make::Helia, &machine.address().to_string(), |command| {
        prefixed(&machine.enter(), &command)
    });
    helia.connect(&format!("{address}/p2p/{peer}"));
    let (mut entries, mut links) = (Vec::new(), vec![root]);
    while let Some(link) = links.pop() {
        let block = &helia.ask(&json!({"do": "node", "cid": link}))["node"];
        assert_eq!(block["v"], 1, "{block:#}");
        let children = block["l"].as_array().into_iter().flatten();
        links.extend(children.map(|child| text(&child[2]["/"])));
        entries.extend(block["e"].as_array().into_iter().flatten().cloned());
    }
    assert_eq!(entries.len(), SMALL + 1);
    for project in [&app, &small[7]] {
        let entry = entries.iter().find(|entry| entry["f"] == project.filename.as_str()).expect("its entry");
        assert_eq!(entry["p"], format!("pkg:pypi/{}@1.0", project.name));
        assert_eq!(entry["s"], project.bytes.len());
        assert_eq!(helia.fetch(&text(&entry["r"]["/"]))["sha256"], project.sha256.hex());
    }
}
