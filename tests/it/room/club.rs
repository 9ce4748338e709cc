//! Whole nodes in this process, in one room: far from each other, as members of a room are.

use dpm::base::{Access, Sha256};
use dpm::config::Config;
use dpm::daemon::{Order, RoomOrder, Tuning, Vicinity};
use dpm::members::Members;
use dpm::store::{Facts, Store};
use dpm::unixfs::LayoutBuilder;
use dpm::wire::room::{Allow, Context, NodeAdvert, Packages};
use serde_json::{Value, json};

use super::synapse::{Account, Limits, PASSWORD, Synapse};
use crate::support::{Node, Upstream, until};

/// A room, where it is, and whose packages it mirrors.
pub struct Club {
    pub synapse: Synapse,
    pub upstream: Upstream,
    /// Who made it, and says what it mirrors.
    pub ada: Account,
    pub room: String,
}

impl Club {
    /// Ada's room, with her node in it.
    pub fn found(limits: Limits, scope: &[&str], change: impl Fn(&mut Config, &mut Tuning)) -> (Self, Node) {
        let (synapse, upstream) = (Synapse::start(limits), Upstream::start());
        let ada = synapse.account("ada");
        let mut club = Self { synapse, upstream, ada, room: String::new() };
        let node = club.node(change);
        club.login(&node, &club.ada);
        let create =
            RoomOrder::Create { name: "project".into(), encrypted: false, invite: vec![], mirror: None };
        let made = room_order(&node, create);
        club.room = made["room"].as_str().expect("a room").to_owned();
        club.mirrors(scope);
        (club, node)
    }

    /// A node of nobody.
    pub fn node(&self, change: impl Fn(&mut Config, &mut Tuning)) -> Node {
        Node::with(&[&self.upstream.url("/simple/")], |config, tuning| {
            config.near.swarm = true;
            config.near.listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().expect("a multiaddr")];
            config.rooms.addresses = Allow::Near;
            tuning.hidden = true;
            tuning.vicinity = Vicinity::Nowhere;
            change(config, tuning);
        })
    }

    /// A node of somebody who is in the room.
    pub fn member(&self, account: &Account, change: impl Fn(&mut Config, &mut Tuning)) -> Node {
        let node = self.node(change);
        self.login(&node, account);
        room_order(&node, RoomOrder::Join { room: self.room.clone(), via: vec![], mirror: None });
        node
    }

    pub fn login(&self, node: &Node, account: &Account) {
        let login =
            json!({"homeserver": self.synapse.url(), "user": account.name, "password": PASSWORD}).to_string();
        node.carry(&Order::Room(RoomOrder::Login), login.as_bytes()).expect("logged in");
    }

    /// From now on the room mirrors these.
    pub fn mirrors(&self, scope: &[&str]) {
        let path = format!("client/v3/rooms/{}/state/org.dpm.scope/main", self.room);
        let content = json!({"version": 1, "packages": scope});
        self.synapse.ask("PUT", &path, Some(&self.ada.token), Some(content));
    }

    /// All of our events in the room, the oldest first.
    pub fn events(&self) -> Vec<Value> {
        let path = format!("client/v3/rooms/{}/messages?dir=f&limit=1000", self.room);
        let answer = self.synapse.ask("GET", &path, Some(&self.ada.token), None);
        let all = answer["chunk"].as_array().expect("events").clone();
        let ours = |event: &Value| {
            matches!(event["type"].as_str(), Some("org.dpm.node" | "org.dpm.packages" | "org.dpm.index"))
        };
        all.into_iter().filter(ours).collect()
    }

    /// What was said in packages: files that came and went.
    pub fn packages(&self) -> (Vec<String>, Vec<String>) {
        let (mut added, mut removed) = (Vec::new(), Vec::new());
        for event in self.events().iter().filter(|event| event["type"] == "org.dpm.packages") {
            let sender = event["sender"].as_str().expect("a sender");
            let context = Context { room: &self.room, sender };
            let packages =
                Packages::read(event["content"].to_string().as_bytes(), &context).expect("packages");
            added.extend(packages.added.into_iter().map(|entry| entry.file));
            removed.extend(packages.removed.into_iter().map(|(_, file)| file));
        }
        (added, removed)
    }

    /// What nodes said of themselves, the oldest first.
    pub fn adverts(&self, node: &Node) -> Vec<NodeAdvert> {
        let peer = node.daemon().peer_id().expect("a swarm").to_string();
        let events = self.events();
        let ours = events.iter().filter(|e| e["type"] == "org.dpm.node" && e["state_key"] == peer.as_str());
        ours.map(|event| {
            let context = Context { room: &self.room, sender: event["sender"].as_str().expect("a sender") };
            NodeAdvert::read(event["content"].to_string().as_bytes(), &context, &peer).expect("a node")
        })
        .collect()
    }
}

pub fn room_order(node: &Node, order: RoomOrder) -> Value {
    node.carry(&Order::Room(order), &[]).expect("the order is carried out").0
}

pub fn members(node: &Node) -> Members {
    node.daemon().rooms().members.clone()
}

/// Whether a node knows by its catalogue that another has a file.
pub fn knows(node: &Node, other: &Node, sha256: &Sha256) -> bool {
    let peer = other.daemon().peer_id().expect("a swarm");
    members(node).holders(sha256).contains(&peer)
}

/// The files that a node's catalogue in the room lists.
pub fn lists(club: &Club, node: &Node) -> Vec<String> {
    let mut files = Vec::new();
    members(node).own_entries(&club.room, &mut |entry| files.push(entry.file)).expect("a catalogue");
    files.sort();
    files
}

/// Waits until both nodes know of each other.
pub fn acquainted(a: &Node, b: &Node) {
    for (node, other) in [(a, b), (b, a)] {
        let peer = other.daemon().peer_id().expect("a swarm");
        until("a node knows the other for a member", || members(node).is_member(&peer));
        until("they are connected", || {
            let (swarm, _) = node.daemon().rooms().near.as_ref().expect("a swarm");
            swarm.peers().iter().any(|info| info.peer == peer)
        });
    }
}

/// Puts a wheel into a store, as a download would.
pub fn put(store: &Store, n: usize) -> Sha256 {
    let bytes = format!("wheel {n}").into_bytes();
    let mut layout = LayoutBuilder::default();
    layout.update(&bytes);
    let sha256 = Sha256::of(&bytes);
    let facts = Facts {
        sha256,
        digests: Vec::new(),
        layout: layout.finish(),
        access: Access::Public,
        upstream: "pypi".into(),
        url: format!("https://files.example.org/{n}"),
        filename: format!("package_{}-1.{}-py3-none-any.whl", n / 10, n % 10),
        pin_name: None,
    };
    let incoming = store.begin(Some(bytes.len() as u64)).expect("room");
    incoming.write(&bytes, 0).expect("written");
    store.commit(incoming, facts).expect("stored");
    sha256
}
