//! A member's catalogue of a million packages, kept on disk: `cargo bench --bench members`. Figures:
//! `benches/BASELINE.md`.
//!
//! One node says a million entries, in a room with another; the second brings the catalogue here block by block from
//! the first one's store (no network between), then a hundred changes. `DPM_ENTRIES` makes it fewer.

use std::path::Path;
use std::time::{Duration, Instant};

use dpm::base::{PackageUrl, Sha256, dag_pb_cid, sha256_of_cid};
use dpm::catalogue::{Change, Entry, Facts};
use dpm::members::{Members, Options};
use dpm::rt::Clock;
use dpm::store::{self, Budget, Store};
use dpm::swarm::Identity;
use dpm::wire::room::{Context, NODE_EVENT, NodeAdvert, Pattern, SCOPE_EVENT, scope_parts};

const ROOM: &str = "!room:example.org";
const ALICE: &str = "@alice:example.org";

/// Entries said at once: what a node finds in its store when it starts.
const AT_ONCE: u64 = 100_000;

fn main() {
    let entries = std::env::var("DPM_ENTRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let dir = tempfile::tempdir().expect("a folder");
    let (identity, other) = (Identity::fresh(), Identity::fresh());
    let (here_store, here) = open(&dir.path().join("here"), &other);
    let (there_store, there) = open(&dir.path().join("there"), &identity);

    let begun = Instant::now();
    for first in (0..entries).step_by(AT_ONCE as usize) {
        let some = first..(first + AT_ONCE).min(entries);
        there.publish(ROOM, some.map(|n| Change::put(entry(n))).collect()).expect("published");
    }
    told("said by its node, 100,000 at a time", begun.elapsed(), None);

    hear(&here, &there, &identity, 1);
    let (time, blocks, bytes) = pull(&here, &there_store);
    told("brought here and listed", time, Some((blocks, bytes)));

    let begun = Instant::now();
    let changes = (0..100).map(|n| Change::put(entry(entries + n * 9_973))).collect();
    there.publish(ROOM, changes).expect("published");
    told("a hundred more, said", begun.elapsed(), None);
    hear(&here, &there, &identity, 2);
    let (time, blocks, bytes) = pull(&here, &there_store);
    told("a hundred more, brought here and listed", time, Some((blocks, bytes)));

    let look_ups = 2_000;
    let packages: Vec<PackageUrl> =
        (0..look_ups).map(|n| entry(n * 611_953 % entries).purl.package()).collect();
    let begun = Instant::now();
    for package in &packages {
        assert!(!here.package(package).expect("sound").entries.is_empty());
    }
    each("files of a package of ten", begun.elapsed(), look_ups);
    let files: Vec<Sha256> = (0..look_ups).map(|n| sha256(n * 611_953 % entries)).collect();
    let begun = Instant::now();
    for file in &files {
        assert_eq!(here.holders(file), [identity.peer_id()]);
    }
    each("who has a file", begun.elapsed(), look_ups);
    let begun = Instant::now();
    here.sweep();
    told("swept", begun.elapsed(), None);
    println!("{} MB on disk here, {} MB resident", disk(&dir.path().join("here")) >> 20, resident() >> 20);
    drop((here_store, here));
}

fn open(dir: &Path, own: &Identity) -> (Store, Members) {
    let options = store::Options {
        budget: Budget::Bytes(1 << 30),
        free_margin_bytes: 64 << 20,
        clock: Clock::default(),
    };
    let store = Store::open(dir, options).expect("a store");
    let options = Options { own: Some(own.peer_id()), ..Options::default() };
    let members = Members::open(store.clone(), options).expect("members");
    members.joined(ROOM, None);
    members.set_members(ROOM, vec![ALICE.to_owned()]);
    for part in scope_parts(&[Pattern::parse("pkg:pypi/*").expect("a pattern")]).expect("a scope") {
        members.hear_state(ROOM, ALICE, SCOPE_EVENT, "", part.as_bytes());
    }
    (store, members)
}

/// Ten files a package.
fn entry(n: u64) -> Entry {
    let (name, version) = (format!("package-{}", n / 10), format!("1.{}", n % 10));
    let sha256 = sha256(n);
    Entry {
        purl: PackageUrl::of("pypi", &name, Some(&version), &[]).expect("a package URL"),
        file: format!("package_{}-{version}-py3-none-any.whl", n / 10),
        size: 1_200_000 + n,
        root: dag_pb_cid(Sha256::of(&sha256.0)),
        digests: vec![sha256.digest()],
        facts: Facts { requires_python: Some(">=3.9".into()), ..Facts::default() },
        first_seen: Some(1_790_000_000 + n),
    }
}

fn sha256(n: u64) -> Sha256 {
    Sha256::of(&n.to_le_bytes())
}

fn hear(here: &Members, there: &Members, identity: &Identity, sequence: u64) {
    let context = Context { room: ROOM, sender: ALICE };
    let peer = identity.peer_id();
    let advert = NodeAdvert {
        peer,
        addresses: Vec::new(),
        name: String::new(),
        agent: "dpm/0".into(),
        catalogue: there.own(ROOM),
        sequence,
        time_ms: Clock::default().now().0,
    };
    let text = advert.write(&context, &identity.public_key(), |m| identity.sign(m)).expect("signed");
    here.hear_state(ROOM, ALICE, NODE_EVENT, &peer.to_string(), text.as_bytes());
}

fn pull(here: &Members, there: &Store) -> (Duration, usize, usize) {
    let begun = Instant::now();
    let wanted = here.wanted();
    let mut pulling = here.pull(&wanted[0]);
    let (mut blocks, mut bytes) = (0, 0);
    while let Some(cid) = pulling.next_block().expect("sound") {
        let block = there.catalogue_block(&sha256_of_cid(&cid).expect("a hash")).expect("the store");
        let block = block.expect("it is there");
        (blocks, bytes) = (blocks + 1, bytes + block.len());
        pulling.got(&cid, block).expect("sound");
    }
    pulling.finish().expect("all of it");
    (begun.elapsed(), blocks, bytes)
}

fn told(what: &str, time: Duration, moved: Option<(usize, usize)>) {
    let moved =
        moved.map_or(String::new(), |(blocks, bytes)| format!(", {blocks} blocks, {} KB", bytes / 1000));
    println!("{what}: {:.3} s{moved}; {} MB resident", time.as_secs_f64(), resident() >> 20);
}

fn each(what: &str, time: Duration, count: u64) {
    println!("{what}: {:.1} µs", time.as_secs_f64() * 1e6 / count as f64);
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).expect("a number") << 10
}

fn disk(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a folder").flatten();
    entries
        .map(|entry| match entry.metadata().expect("metadata") {
            meta if meta.is_dir() => disk(&entry.path()),
            meta => meta.len(),
        })
        .sum()
}
