//! An office: machines on one switch, `dpm serve` on each with no configuration of dpm's own, real pip, real packages.

mod flags;

use std::path::Path;

use serde_json::Value;

use crate::clients::process::{Dpm, Home, counterpart, until};
use crate::clients::tool::{Tool, Way, lock};
use crate::lan::role::Role;
use crate::support::network::{Machine, Network};

/// A dozen packages, pure and compiled, of 20 MB.
const PACKAGES: &[&str] = &["flask", "requests", "cryptography", "numpy", "psutil"];

/// A file of its own kind: many chunks, and long enough on the way to be interrupted.
const BIG: usize = 48 << 20;

/// The index's machine, and the packages that it has: what this machine's index has of them.
fn index(network: &Network, home: &Home) -> (Machine, Role, usize) {
    let dpm = Dpm::serve(home, &[]);
    lock(home, &dpm, PACKAGES, "lock.txt");
    let mut pip = home.client(counterpart("pip", "pip"));
    pip.args([
        "download",
        "--no-deps",
        "--no-cache-dir",
        "--quiet",
        "--require-hashes",
        "--only-binary",
        ":all:",
    ]);
    home.run(pip.args(["-d", "files", "-r", "lock.txt", "--index-url", &dpm.index()]));
    dpm.stop();
    let files = home.path("files");
    let count = std::fs::read_dir(&files).expect("files").count();
    std::fs::write(files.join("big-1.0.tar.gz"), crate::support::random_bytes(1, BIG)).expect("a file");
    // An address of the world outside: an index in the office would be a private one, whose files are not shared.
    let machine = network.machine(&["198.51.100.1/24"]);
    machine.script("ip route add 10.7.0.0/24 dev eth0");
    let settings = [("AT", "198.51.100.1:8080".to_owned()), ("FILES", files.display().to_string())];
    let role = Role::play(&machine, "index", &settings);
    role.hear("where it is", |line| line.starts_with("serves ").then_some(()));
    (machine, role, count)
}

/// Machines of the office, which can reach the index.
fn machines(network: &Network) -> [Machine; 3] {
    [1, 2, 3].map(|n| {
        let machine = network.machine(&[&format!("10.7.0.{n}/24")]);
        machine.script("ip route add 198.51.100.0/24 dev eth0");
        machine
    })
}

/// A user of a machine whose pip has been told of the index.
fn user() -> Home {
    let home = Home::bare();
    let told = "[global]\nindex-url = http://198.51.100.1:8080/simple/\ntrusted-host = 198.51.100.1\n";
    home.write(".config/pip/pip.conf", told);
    home
}

fn peers(dpm: &Dpm<'_>) -> Vec<Value> {
    let report: Value = serde_json::from_str(&dpm.order(&["peers", "--json"])).expect("JSON");
    report["peers"].as_array().expect("peers").clone()
}

/// Waits until each of these has found the others.
fn acquainted(nodes: &[&Dpm<'_>]) {
    for node in nodes {
        until("they have found each other", || {
            let known = |p: &&Value| p["connected"] == true && p["dpm"] == true;
            (peers(node).iter().filter(known).count() == nodes.len() - 1).then_some(())
        });
    }
}

fn answers(dpm: &Dpm<'_>, cache: &str) -> u64 {
    dpm.status()["answers"][cache]["answers"].as_u64().unwrap_or(0)
}

fn fetch(dpm: &Dpm<'_>, home: &Home, path: &str, into: &str) -> std::process::Child {
    let python = counterpart("pip", "python");
    let mut command = home.client(&python);
    let code = "import sys, urllib.request as u; open(sys.argv[2], 'wb').write(u.urlopen(sys.argv[1], timeout=60).read())";
    command.args(["-c", code, &format!("{}{path}", dpm.url()), into]);
    dpm.near(command).spawn().expect("it runs")
}

#[test]
fn the_second_installs_what_the_first_has() {
    let Some(network) = Network::start() else { return };
    let origin = Home::new();
    let (_machine, mut index, wheels) = index(&network, &origin);
    let lock = origin.path("lock.txt");
    let machines = machines(&network);
    let homes = [user(), user(), user()];
    let [a, b, c] = [0, 1, 2].map(|n| Dpm::serve_at(&machines[n], &homes[n], &[]));
    acquainted(&[&a, &b, &c]);

    let first = Tool::Pip.install(&homes[0], &lock, Way::Through(&a), "first");
    assert!(first.len() > 500, "{} files", first.len());
    assert_eq!(answers(&a, "peer"), 0);
    index.tell("refuse");
    index.hear("that it refuses", |line| (line == "refuses").then_some(()));
    index.tell("asked");
    let asked =
        |index: &Role| index.hear("a count", |line| line.strip_prefix("asked ")?.parse::<usize>().ok());
    let before = asked(&index);
    assert_eq!(before, wheels, "once each");
    for (home, dpm, folder) in [(&homes[1], &b, "second"), (&homes[2], &c, "third")] {
        let again = Tool::Pip.install(home, &lock, Way::Through(dpm), folder);
        assert!(again == first, "{folder}");
        assert_eq!(answers(dpm, "peer"), wheels as u64, "{:#}", dpm.status());
        assert_eq!(dpm.upstream_bytes(), 0);
        let strikes: u64 = peers(dpm).iter().filter_map(|p| p["strikes"].as_u64()).sum();
        assert_eq!(strikes, 0);
    }
    index.tell("asked");
    assert_eq!(asked(&index), before, "nobody asked the index for a file again");
    // Read by programs and by people: who gave, and how far away it is.
    until("both are pinged", || {
        peers(&a).iter().all(|p| p["round_trip_ms"].as_f64() > Some(0.0)).then_some(())
    });
    let said = a.order(&["peers"]);
    assert_eq!(said.matches("  near  dpm/").count(), 2, "{said}");
    assert!(
        said.contains(", took ") && said.contains(" ms\n") && !said.contains("round trip unknown"),
        "{said}"
    );
    assert!(!said.contains("lying"), "{said}");
}

#[test]
fn a_giver_that_dies_is_not_missed() {
    let Some(network) = Network::start() else { return };
    let origin = Home::new();
    let (_machine, mut index, _) = index(&network, &origin);
    let machines = machines(&network);
    // Slow enough that there is a middle to die in.
    for machine in &machines[..2] {
        machine.script("tc qdisc add dev eth0 root tbf rate 100mbit burst 64kb latency 50ms");
    }
    let homes = [user(), user(), user()];
    let [a, b, c] = [0, 1, 2].map(|n| Dpm::serve_at(&machines[n], &homes[n], &[]));
    acquainted(&[&a, &b, &c]);
    let sha256 =
        dpm::base::Sha256::of(&std::fs::read(origin.path("files/big-1.0.tar.gz")).expect("the file"));
    let path = format!("/pypi/files/big/sha256-{sha256}/big-1.0.tar.gz");
    for (dpm, home) in [(&a, &homes[0]), (&b, &homes[1])] {
        assert!(fetch(dpm, home, &path, "big").wait().expect("it ends").success());
    }
    index.tell("refuse");
    index.hear("that it refuses", |line| (line == "refuses").then_some(()));
    let mut client = fetch(&c, &homes[2], &path, "big");
    until("some of it has come", || (c.status()["peer_bytes"].as_u64()? > 4 << 20).then_some(()));
    a.kill();
    assert!(client.wait().expect("it ends").success());
    assert!(same(&homes[2].path("big"), &origin.path("files/big-1.0.tar.gz")));
    assert_eq!(c.upstream_bytes(), 0);
}

#[test]
fn the_lan_is_answered_and_nobody_else() {
    let Some(network) = Network::start() else { return };
    let (here, near, far) = (
        network.machine(&["10.7.0.1/24"]),
        network.machine(&["10.7.0.2/24"]),
        network.machine(&["198.51.100.1/24"]),
    );
    here.script("ip route add 198.51.100.0/24 dev eth0");
    far.script("ip route add 10.7.0.0/24 dev eth0");
    let home = user();
    let dpm = Dpm::serve_at(&here, &home, &["--lan"]);
    let ask = |from: &Machine| {
        let mut python = from.command(counterpart("pip", "python"));
        let code = "import urllib.request as u, urllib.error as e\n\
                    try: print(u.urlopen('http://10.7.0.1:3142/healthz', timeout=20).status)\n\
                    except e.HTTPError as error: print(error.code, error.read().decode())";
        String::from_utf8(python.args(["-c", code]).output().expect("it runs").stdout).expect("text")
    };
    assert_eq!(ask(&near).trim(), "200");
    assert!(ask(&far).starts_with("403 dpm: this box answers its own network only"), "{}", ask(&far));
    assert_eq!(ask(&here).trim(), "200");
    dpm.stop();
}

fn same(a: &Path, b: &Path) -> bool {
    std::fs::read(a).expect("a file") == std::fs::read(b).expect("a file")
}
