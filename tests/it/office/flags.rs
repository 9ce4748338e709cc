//! What `dpm serve` does by itself in an office, and what each of its flags changes.

use super::*;
use crate::lan::{machine_python, resolves};

/// Where its swarm listens, once it does.
fn listeners(dpm: &Dpm<'_>) -> Vec<String> {
    until("its swarm listens", || {
        let report: Value = serde_json::from_str(&dpm.order(&["peers", "--json"])).expect("JSON");
        let all = report["listeners"].as_array()?.iter();
        let all: Vec<_> = all.filter_map(|address| address.as_str().map(str::to_owned)).collect();
        // Each interface is heard of on its own.
        all.iter().any(|address| address.starts_with("/ip4/") && !address.contains("/127.")).then_some(all)
    })
}

/// Its id among peers; nothing where it has no swarm.
fn id(dpm: &Dpm<'_>) -> Option<String> {
    let report: Value = serde_json::from_str(&dpm.order(&["peers", "--json"])).expect("JSON");
    report["peer"].as_str().map(str::to_owned)
}

/// What a program on a machine gets from a box that it calls by this name.
fn asks(from: &Machine, box_at: &str, name: &str) -> String {
    let code = "import sys, urllib.request as u\n\
                request = u.Request(f'http://{sys.argv[1]}:3142/healthz', headers={'Host': sys.argv[2]})\n\
                try: print(u.urlopen(request, timeout=20).status)\n\
                except Exception as error: print(error)";
    let mut python = from.command(counterpart("pip", "python"));
    let output = python.args(["-c", code, box_at, name]).output().expect("it runs");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

/// Whether anything on a machine has one of these UDP ports.
fn has_udp(machine: &Machine, ports: &[u16]) -> bool {
    let output = machine.command("cat").args(["/proc/net/udp", "/proc/net/udp6"]).output().expect("it runs");
    let table = String::from_utf8(output.stdout).expect("text");
    assert!(table.contains("local_address"), "{table}");
    ports.iter().any(|port| table.contains(&format!(":{port:04X} ")))
}

#[test]
fn what_serve_does_by_itself_and_what_flags_change() {
    let Some(network) = Network::start() else { return };
    let [first, second, third] =
        [1, 2, 3].map(|n| network.machine(&[&format!("10.7.0.{n}/24"), &format!("fd00:7::{n}/64")]));
    let homes: Vec<Home> = (0..4).map(|_| user()).collect();
    let mut browser = machine_python(&second, &counterpart("zeroconf", "python"));

    // By itself: UDP 4001, HTTP on loopback. Beside it on the same machine: another port.
    let plain = Dpm::serve_at(&first, &homes[0], &[]);
    let at = listeners(&plain);
    assert!(at.contains(&"/ip4/10.7.0.1/udp/4001/quic-v1".into()), "{at:?}");
    assert!(at.iter().all(|address| address.ends_with("/udp/4001/quic-v1")), "{at:?}");
    let beside = Dpm::serve_at(&first, &homes[1], &["--listen", "127.0.0.1:0"]);
    let at = listeners(&beside);
    assert!(!at.is_empty() && !at.iter().any(|address| address.contains("/4001/")), "{at:?}");
    assert_eq!(asks(&first, "127.0.0.1", "127.0.0.1:3142"), "200");
    for name in ["10.7.0.1:3142", "dpm.local:3142"] {
        assert!(asks(&second, "10.7.0.1", name).contains("refused"), "HTTP is not for the LAN");
    }

    // `--lan`: HTTP for all of the LAN, and published. `--swarm-listen`: there and nowhere else.
    let chosen = "/ip4/10.7.0.3/udp/4444/quic-v1";
    let open = Dpm::serve_at(&third, &homes[2], &["--lan", "--swarm-listen", chosen]);
    assert_eq!(listeners(&open), [chosen]);
    assert!(!has_udp(&third, &[4001]));
    for name in ["10.7.0.3:3142", "dpm.local:3142"] {
        assert_eq!(asks(&second, "10.7.0.3", name), "200", "{name}");
    }
    let http = |line: &str| line.strip_prefix("found _http._tcp.local. dpm_on_").map(str::to_owned);
    let service = browser.hear("the box", http);
    assert!(service.contains("._http._tcp.local. dpm.local. 3142 / "), "{service}");
    resolves(&mut browser, "dpm.local", "10.7.0.3");

    // `--no-swarm`: nobody, and nothing on the network.
    let alone = Dpm::serve_at(&second, &homes[3], &["--no-swarm"]);
    assert_eq!((id(&alone), peers(&alone).len()), (None, 0));
    assert!(!has_udp(&second, &[4001]));
    acquainted(&[&plain, &beside, &open]);
    assert!(plain.order(&["peers"]).contains(&format!("near  dpm/{}  {chosen}", env!("CARGO_PKG_VERSION"))));
    drop((plain, beside, open, alone));
}

#[test]
fn a_peer_that_is_named() {
    let Some(network) = Network::start() else { return };
    // A router between them carries no mDNS.
    let [here, there] = [(); 2].map(|()| network.elsewhere());
    let homes = [user(), user()];
    homes[0].write(".config/dpm/dpm.toml", "[near]\nshare = \"anyone\"\n");
    let named = Dpm::serve_at(&here, &homes[0], &[]);
    let peer = id(&named).expect("it has a swarm");
    let address = format!("/ip4/{}/udp/4001/quic-v1", here.address());
    assert!(listeners(&named).contains(&address));
    let names = Dpm::serve_at(&there, &homes[1], &["--peer", &format!("{address}/p2p/{peer}")]);
    acquainted(&[&named, &names]);
    let row = peers(&names).remove(0);
    assert_eq!((&row["peer"], &row["address"], &row["near"]), (&peer.into(), &address.into(), &true.into()));
}
