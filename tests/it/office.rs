//! An office: machines on one switch, `dpm serve` on each with no configuration of dpm's own, real pip, real packages.

mod flags;

use std::path::Path;

use serde_json::Value;

use crate::clients::process::{Dpm, Home, counterpart, until};
use crate::clients::tool::{Tool, Way, digest, lock};
use crate::lan::role::Role;
use crate::support::network::{Machine, Network};

/// A dozen packages, pure and compiled, of 20 MB.
const PACKAGES: &[&str] = &["flask", "requests", "cryptography", "numpy", "psutil"];

/// A package of its own kind: many chunks, and long enough on the way to be interrupted.
const BIG: usize = 32 << 20;

/// The file of that.
const BIG_FILE: &str = "big-1.0-py3-none-any.whl";

/// The index's machine, and the packages that it has: what this machine's index has of these, and of what they need.
fn index(network: &Network, home: &Home, packages: &[&str]) -> (Machine, Role, usize) {
    let dpm = Dpm::serve(home, &[]);
    lock(home, &dpm, packages, "lock.txt");
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
    std::fs::write(files.join(BIG_FILE), crate::support::installable("big", &[], BIG)).expect("a file");
    // An address of the world outside: an index in the office would be a private one, whose files are not shared.
    let machine = network.machine(&["198.51.100.1/24"]);
    machine.script("ip route add 10.7.0.0/24 dev eth0");
    let role = serve(&machine, "198.51.100.1:8080", &files);
    (machine, role, count)
}

/// An index of these files at this address of a machine.
fn serve(machine: &Machine, at: &str, files: &Path) -> Role {
    let settings = [("AT", at.to_owned()), ("FILES", files.display().to_string())];
    let role = Role::play(machine, "index", &settings);
    role.hear("where it is", |line| line.starts_with("serves ").then_some(()));
    role
}

/// Has an index give its pages and no file from now on.
fn refuse(index: &mut Role) {
    index.tell("refuse");
    index.hear("that it refuses", |line| (line == "refuses").then_some(()));
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
    user_of("198.51.100.1")
}

fn user_of(host: &str) -> Home {
    let home = Home::bare();
    let told = format!("[global]\nindex-url = http://{host}:8080/simple/\ntrusted-host = {host}\n");
    home.write(".config/pip/pip.conf", &told);
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

/// A file has come through a dpm whole.
#[track_caller]
fn fetch(dpm: &Dpm<'_>, home: &Home, file: &Path) {
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
    let project = name.split('-').next().expect("a name").to_ascii_lowercase().replace(['_', '.'], "-");
    get(dpm, home, &format!("/pypi/files/{project}/sha256-{}/{name}", digest(file)), name);
    let (came, is) = (std::fs::read(home.path(name)), std::fs::read(file));
    assert!(came.expect("it came") == is.expect("the file"), "{name}");
}

fn get(dpm: &Dpm<'_>, home: &Home, path: &str, into: &str) {
    let code = "import sys, urllib.request as u; open(sys.argv[2], 'wb').write(u.urlopen(sys.argv[1], timeout=60).read())";
    let mut command = home.client(counterpart("pip", "python"));
    command.args(["-c", code, &format!("{}{path}", dpm.url()), into]);
    home.run(&mut dpm.near(command));
}

/// What a node says of another, once it has met it.
fn row<'a>(rows: &'a [Value], peer: &str) -> &'a Value {
    rows.iter().find(|row| row["peer"] == peer).unwrap_or(&Value::Null)
}

fn id(dpm: &Dpm<'_>) -> String {
    let report: Value = serde_json::from_str(&dpm.order(&["peers", "--json"])).expect("JSON");
    report["peer"].as_str().expect("a peer id").to_owned()
}

#[test]
fn the_second_installs_what_the_first_has() {
    let Some(network) = Network::start() else { return };
    let origin = Home::new();
    let (_machine, mut index, wheels) = index(&network, &origin, PACKAGES);
    let lock = origin.path("lock.txt");
    let machines = machines(&network);
    let homes = [user(), user(), user()];
    let [a, b, c] = [0, 1, 2].map(|n| Dpm::serve_at(&machines[n], &homes[n], &[]));
    acquainted(&[&a, &b, &c]);

    let first = Tool::Pip.install(&homes[0], &lock, Way::Through(&a), "first");
    assert!(first.len() > 500, "{} files", first.len());
    assert_eq!(answers(&a, "peer"), 0);
    refuse(&mut index);
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

/// pip installs from neighbours on lines that are slow, far and lossy, and one of them is cut off in the middle.
#[test]
fn a_giver_that_dies_is_not_missed() {
    let Some(network) = Network::start() else { return };
    let origin = Home::new();
    let (_machine, mut index, wheels) = index(&network, &origin, &["flask"]);
    let big = origin.path("files").join(BIG_FILE);
    let machines = machines(&network);
    let homes = [user(), user(), user()];
    let [a, b, c] = [0, 1, 2].map(|n| Dpm::serve_at(&machines[n], &homes[n], &[]));
    acquainted(&[&a, &b, &c]);
    for (dpm, home) in [(&a, &homes[0]), (&b, &homes[1])] {
        for entry in std::fs::read_dir(origin.path("files")).expect("files") {
            fetch(dpm, home, &entry.expect("a file").path());
        }
    }
    refuse(&mut index);
    // Slow enough that there is a middle to die in.
    let lines = [0, 1].map(|n| {
        machines[n].script("tc qdisc add dev eth0 root tbf rate 24mbit burst 64kb latency 50ms");
        let line = Role::of(network.spoil(&machines[n], counterpart("pip", "python"), 5, 2));
        line.hear("that it carries", |said| (said == "carries").then_some(()));
        line
    });
    acquainted(&[&a, &b, &c]);

    let lock = origin.read("lock.txt").expect("a lock");
    origin.write("all.txt", &format!("{lock}\nbig==1.0 --hash=sha256:{}\n", digest(&big)));
    let ids = [id(&a), id(&b)];
    let tree = std::thread::scope(|scope| {
        let client =
            scope.spawn(|| Tool::Pip.install(&homes[2], &origin.path("all.txt"), Way::Through(&c), "all"));
        // More than all the others together: it gives of the large one, most of which is still to come.
        let own = id(&c);
        until("the first gives", || (row(&peers(&a), &own)["took_bytes"].as_u64()? > 3 << 20).then_some(()));
        assert!(!client.is_finished());
        a.kill();
        client.join().expect("it is installed")
    });
    assert_eq!(tree["big/data"], dpm::base::Sha256::of(&crate::support::bytes(BIG)).to_string());
    assert!(tree.contains_key("flask/__init__.py"));
    let rows = peers(&c);
    for id in &ids {
        assert!(row(&rows, id)["gave_bytes"].as_u64() > Some(0), "{id}: {rows:#?}");
        assert_eq!(row(&rows, id)["strikes"], 0, "{rows:#?}");
    }
    assert!(answers(&c, "peer") > wheels as u64, "{:#}", c.status());
    assert_eq!(c.upstream_bytes(), 0);
    for line in lines {
        line.end();
    }
}

/// Machines that have no address but those that they give themselves find each other, and again after a cable was out.
#[test]
fn link_local_addresses_are_enough_and_may_go_and_come() {
    let Some(network) = Network::start() else { return };
    let origin = Home::bare();
    std::fs::create_dir(origin.path("files")).expect("a folder");
    let files = [("one", 1), ("two", 2)].map(|(name, seed)| {
        let file = origin.path(&format!("files/{name}-1.0.tar.gz"));
        std::fs::write(&file, crate::support::random_bytes(seed, 3 << 20)).expect("a file");
        file
    });
    // An index of the world outside again, which happens to be on the link.
    let machine = network.machine(&["2001:db8:99::1/64"]);
    let mut index = serve(&machine, "[2001:db8:99::1]:8080", &origin.path("files"));
    let link = "ip -6 route replace 2001:db8:99::/64 dev eth0";
    let machines = [0, 1].map(|_| {
        let machine = network.unplugged(&[]);
        machine.script("echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad");
        machine.plug();
        machine.script(link);
        machine
    });
    let homes = [0, 1].map(|_| user_of("[2001:db8:99::1]"));
    let [a, b] = [0, 1].map(|n| Dpm::serve_at(&machines[n], &homes[n], &[]));
    acquainted(&[&a, &b]);
    let ids = [id(&a), id(&b)];
    let at = row(&peers(&a), &ids[1])["address"].to_string();
    assert!(at.contains("/ip6zone/eth0/ip6/fe80::"), "{at}");
    for file in &files {
        fetch(&a, &homes[0], file);
    }
    refuse(&mut index);
    fetch(&b, &homes[1], &files[0]);
    assert_eq!((answers(&b, "peer"), b.upstream_bytes()), (1, 0));

    // Its connection to the index does not outlive what follows, and nobody tells it.
    get(&b, &homes[1], "/pypi/simple/two/", "page");
    // The cable is out until both have noticed.
    machines[1].unplug();
    for (dpm, other) in [(&a, &ids[1]), (&b, &ids[0])] {
        until("they have lost each other", || (row(&peers(dpm), other)["connected"] == false).then_some(()));
    }
    machines[1].plug();
    machines[1].script(link);
    acquainted(&[&a, &b]);
    fetch(&b, &homes[1], &files[1]);
    assert_eq!((answers(&b, "peer"), b.upstream_bytes()), (2, 0));
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
