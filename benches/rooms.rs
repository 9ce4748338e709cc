//! Nodes in one Matrix room, with a real Synapse at its default limits: `cargo bench --bench rooms`, after
//! `tests/counterparts.sh`. Figures: `benches/BASELINE.md`.
//!
//! How long after a commit on one node another knows who has the file, with time between the commits and without; how
//! many events and how long 10,000 packages take that come at once; what a node in a room costs that does nothing.
//! `DPM_ROUNDS=20`, `DPM_PACKAGES=10000`, `DPM_IDLE=30` seconds. The node that idles looks for others on its network: run
//! it where there is none, under `unshare -Urn` with `lo` up.

#[path = "../tests/it/support/mod.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "it is shared with tests, which use more of it"
)]
mod support;

#[path = "../tests/it/room/club.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is shared with tests, which use more of it")]
mod club;
#[path = "../tests/it/room/door.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is shared with tests, which use more of it")]
mod door;
#[path = "../tests/it/room/synapse.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is shared with tests, which use more of it")]
mod synapse;

/// What `synapse` finds its program with.
mod clients {
    pub(crate) mod process {
        use std::path::{Path, PathBuf};

        pub(crate) fn counterpart(tool: &str, program: &str) -> PathBuf {
            let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
            let target = target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target"));
            let path = target.join("counterparts").join(tool).join("bin").join(program);
            assert!(path.exists(), "{} is not there: run tests/counterparts.sh", path.display());
            path
        }
    }
}

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use club::{Club, acquainted, knows, members, put};
use support::process::{Process, said};
use support::{Node, until};
use synapse::{Limits, PASSWORD};

/// Between two rounds: a node says packages every 8.3 s at most when it has used up its burst, six tenths of Synapse's
/// one event in five seconds. Faster, the rate limit would be what is measured: see [`TRICKLE`].
const PAUSE: Duration = Duration::from_secs(9);

/// The same where it is: as fast as an installation that goes on for minutes.
const TRICKLE: Duration = Duration::from_secs(3);

/// Until then everything is known that a fresh node says.
const QUIET: Duration = Duration::from_secs(15);

/// How often it is looked whether a file is known.
const LOOK: Duration = Duration::from_millis(1);

fn main() {
    let (club, ada) = Club::found(Limits::Default, &["pkg:pypi/package-*"], |_, _| {});
    let bob = club.member(&club.synapse.account("bob"), |_, _| {});
    acquainted(&ada, &bob);
    std::thread::sleep(QUIET);
    let rounds = number("DPM_ROUNDS", 20);
    latency(&ada, &bob, rounds, PAUSE);
    std::thread::sleep(6 * PAUSE);
    latency(&ada, &bob, 2 * rounds, TRICKLE);
    std::thread::sleep(6 * PAUSE);
    flood(&club, &ada, &bob, number("DPM_PACKAGES", 10_000));
    idle(&club, &[&ada, &bob], number("DPM_IDLE", 30));
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// From a commit on one node to the moment when another knows who has the file: commits so far apart, known or not.
fn latency(ada: &Node, bob: &Node, rounds: usize, apart: Duration) {
    let store = ada.daemon().rooms().store.clone();
    let (start, first) = (Instant::now(), 1_000_000 * (1 + apart.as_secs() as usize));
    let (mut times, mut waiting) = (Vec::new(), Vec::new());
    for round in 0.. {
        if round < rounds {
            let sha256 = put(&store, first + round);
            waiting.push((sha256, Instant::now()));
        }
        while start.elapsed() < apart * (round as u32 + 1) {
            waiting.retain(|(sha256, begun)| {
                let is_known = knows(bob, ada, sha256);
                if is_known {
                    times.push(begun.elapsed());
                }
                !is_known
            });
            std::thread::sleep(LOOK);
        }
        if times.len() == rounds {
            break;
        }
        assert!(round < rounds + 60, "{} are not known", waiting.len());
    }
    times.sort();
    let of = |part: usize| times[(times.len() - 1) * part / 100].as_millis();
    println!(
        "known {} ms after the commit (median of {rounds}, {} s apart; nine of ten within {}, least {}, most {})",
        of(50),
        apart.as_secs(),
        of(90),
        of(0),
        of(100)
    );
}

/// So many packages as fast as the store takes them.
fn flood(club: &Club, ada: &Node, bob: &Node, count: usize) {
    let (store, peer) = (ada.daemon().rooms().store.clone(), ada.as_peer().0);
    let entries = || {
        let catalogues = members(bob).catalogues(&club.room);
        catalogues.iter().find(|(of, _)| *of == peer).and_then(|(_, root)| *root).map_or(0, |r| r.entries)
    };
    let (before, events, begun) = (entries(), club.events().len(), Instant::now());
    let began = SystemTime::now().duration_since(UNIX_EPOCH).expect("1970 is over").as_millis() as u64;
    for n in 0..count {
        put(&store, n);
    }
    let stored = begun.elapsed();
    while entries() < before + count as u64 {
        assert!(begun.elapsed() < Duration::from_secs(600), "they are not known");
        std::thread::sleep(LOOK);
    }
    println!(
        "{count} packages: stored in {:.1} s, known {:.1} s after the first, {:.1} s after the last, {} events",
        stored.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        (begun.elapsed() - stored).as_secs_f64(),
        club.events().len() - events
    );
    for event in &club.events()[events..] {
        let at = event["origin_server_ts"].as_u64().expect("a time").saturating_sub(began);
        println!("    {} of {} after {:.1} s", event["type"], event["sender"], at as f64 / 1e3);
    }
}

/// A node as a process of its own, in the room and connected with its members, with nothing to do.
fn idle(club: &Club, others: &[&Node], seconds: usize) {
    let dir = tempfile::tempdir().expect("a folder");
    let (data, password) = (dir.path().join("data"), dir.path().join("password"));
    std::fs::write(&password, PASSWORD).expect("a file");
    let account = club.synapse.account("cy");
    for is_joined in [false, true] {
        let process =
            Process::with_swarm(&data, "http://127.0.0.1:1/simple/", "[rooms]\naddresses = \"all\"\n");
        if is_joined {
            let [data, password] = [&data, &password].map(|path| path.to_str().expect("UTF-8"));
            let url = club.synapse.url();
            let login = ["login", "--homeserver", &url, "--user", &account.name, "--password-file", password];
            said(&[&["room"][..], &login, &["--data", data]].concat());
            said(&["room", "join", &club.room, "--data", data]);
            until("it is there", || said(&["room", "show", &club.room, "--data", data]).contains("members"));
            let peers = || said(&["peers", "--json", "--data", data]);
            until("the others are connected", || {
                let peers = peers();
                others.iter().all(|node| peers.contains(&node.as_peer().0.to_string()))
            });
        }
        std::thread::sleep(QUIET);
        let before = cpu(process.id());
        std::thread::sleep(Duration::from_secs(seconds as u64));
        let used = cpu(process.id()) - before;
        println!(
            "idle {}: {:.0} ms of processor in {seconds} s ({:.2} %), {} MB resident",
            if is_joined { "in a room" } else { "outside rooms" },
            used * 1e3,
            100.0 * used / seconds as f64,
            resident(process.id()) >> 20
        );
        process.kill();
    }
}

/// Seconds of a processor that a process has used: ticks of a hundredth.
fn cpu(id: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).expect("it runs");
    let fields = stat.rsplit_once(") ").expect("a name").1.split(' ').skip(11).take(2);
    fields.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

fn resident(id: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_ascii_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") << 10
}
