//! `kill -9` at any moment: what was committed is there, nothing is half there, the totals are right.
//!
//! `DPM_CRASH_ROUNDS=300 cargo test --test it crash` for a long run; `DPM_CRASH_SEED` repeats another one. The
//! kernel keeps what was written, so this shows the order of our writes and not that they are synced.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dpm::base::Sha256;
use dpm::rt::Clock;
use dpm::store::{Budget, Options, Store};

use crate::support::{Listing, Process, Random, Upstream, process};

/// Rounds of an everyday test run.
const ROUNDS: u64 = 25;

/// An everyday run ends after this time, however many rounds that were.
const TIME: Duration = Duration::from_secs(35);

/// Clients at once.
const CLIENTS: u64 = 6;

/// A budget under which everything has room, and one under which evictions happen all the time.
const BUDGETS: [u64; 2] = [1 << 30, 12 << 20];

#[test]
fn killed_at_any_moment() {
    let set = |name| std::env::var(name).ok().map(|v: String| v.parse::<u64>().expect("a number"));
    let (rounds, seed) = (set("DPM_CRASH_ROUNDS"), set("DPM_CRASH_SEED").unwrap_or(1));
    let upstream = Upstream::start();
    let sizes: Vec<usize> =
        [1_000, 20_000, 70_000, 300_000, 1 << 20, (1 << 20) + 1, 2_500_000, 6_000_000].repeat(3);
    let projects: Vec<_> = sizes
        .iter()
        .enumerate()
        .map(|(n, size)| slow(Listing::publish(&upstream, n as u64, *size + n), &upstream))
        .collect();
    let projects = Arc::new(projects);
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let begun = Instant::now();
    let (mut done, mut seen_committed, mut seen_orphans, mut seen_half) = (0, 0, 0, 0);
    for round in 0..rounds.unwrap_or(ROUNDS) {
        if rounds.is_none() && begun.elapsed() > TIME {
            break;
        }
        let mut random = Random::new(seed.wrapping_mul(1_000_003) + round);
        let budget = BUDGETS[usize::from(round % 4 == 3)];
        let settings = format!("[store]\nbudget = \"{budget}B\"\nfree_margin = \"1MB\"\n");
        let committed = match round % 5 {
            4 => {
                killed_while_starting(&data, &upstream, &settings, &mut random);
                BTreeSet::new()
            }
            _ => killed_while_serving(&data, &upstream, &settings, &projects, &mut random),
        };
        seen_half += std::fs::read_dir(data.join("incoming")).map_or(0, Iterator::count);
        seen_committed += committed.len();
        let expected = if budget == BUDGETS[0] { committed } else { BTreeSet::new() };
        let name = format!("round {round} of seed {seed}");
        seen_orphans += examine(&name, &data, &projects, &expected, &mut random);
        done += 1;
    }
    println!(
        "{done} rounds in {:?}: {seen_committed} commits seen by clients, {seen_half} half-written files and \
         {seen_orphans} orphans left behind and cleared",
        begun.elapsed()
    );
    assert!(seen_committed > 0 && seen_half > 0, "the moments were well chosen");
}

/// Has the project's file sent in pieces, so that a moment falls into the middle.
fn slow(project: Listing, upstream: &Upstream) -> Listing {
    let content = project.content.clone();
    upstream.route(&project.origin(), move |asked, out| {
        let range = asked.headers.get("range").and_then(|r| r.strip_prefix("bytes=")?.split_once('-'));
        let first: usize = range.map_or(0, |(first, _)| first.parse().expect("a number"));
        let status = if first == 0 {
            "200 OK".into()
        } else {
            let size = content.len();
            format!("206 Partial\r\ncontent-range: bytes {first}-{}/{size}", size - 1)
        };
        write!(out, "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", content.len() - first)?;
        for piece in content[first..].chunks(64 << 10) {
            out.write_all(piece)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    project
}

fn killed_while_starting(data: &Path, upstream: &Upstream, settings: &str, random: &mut Random) {
    let arguments = process::arguments(data, &upstream.url("/simple/"), settings);
    let mut child = process::dpm(&arguments).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(random.below(60)));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Gives what clients knew to be stored before the end.
fn killed_while_serving(
    data: &Path,
    upstream: &Upstream,
    settings: &str,
    projects: &Arc<Vec<Listing>>,
    random: &mut Random,
) -> BTreeSet<Sha256> {
    let node = Process::start(data, &upstream.url("/simple/"), settings);
    let (committed, stop) = (Arc::new(Mutex::new(BTreeSet::new())), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (projects, committed, stop) = (projects.clone(), committed.clone(), stop.clone());
            let (url, mut random) = (node.url.clone(), Random::new(random.next()));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let project = &projects[random.below(projects.len() as u64) as usize];
                    fetch(&url, project, &committed);
                }
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(random.below(400)));
    // Taken before the end: what comes later may have been told by a dying node, and is just as true, but a client
    // that is told of a hit has it from a commit that is over.
    let known = committed.lock().unwrap().clone();
    node.kill();
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|c| c.join().expect("no client saw wrong bytes"));
    known
}

/// Fetches a file, and again until it comes from the store. A node that is gone ends it.
fn fetch(url: &str, project: &Listing, committed: &Mutex<BTreeSet<Sha256>>) -> Option<()> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into();
    for _ in 0..10 {
        let (head, mut body) = agent.get(format!("{url}{}", project.file())).call().ok()?.into_parts();
        let mut content = Vec::new();
        body.as_reader().read_to_end(&mut content).ok()?;
        assert_eq!(head.status, 200, "{}", String::from_utf8_lossy(&content));
        assert!(content == project.content, "a complete answer is the right one");
        if head.headers.get("x-cache").is_some_and(|v| v == "HIT") {
            committed.lock().unwrap().insert(project.sha256);
            return Some(());
        }
    }
    None
}

/// Looks at what a killed node left; gives the number of orphans that a scrub removed. Takes some artifacts out,
/// so that the next round has something to fetch.
fn examine(
    name: &str,
    data: &Path,
    projects: &[Listing],
    expected: &BTreeSet<Sha256>,
    random: &mut Random,
) -> u64 {
    let options = || Options { budget: Budget::Bytes(1 << 30), free_margin_bytes: 0, clock: Clock::System };
    let store = Store::open(data, options()).expect(name);
    assert_eq!(
        std::fs::read_dir(data.join("incoming")).unwrap().count(),
        0,
        "{name}: nothing half-written stays"
    );
    let space = store.space().unwrap();
    let (mut artifacts, mut bytes) = (0, 0);
    for project in projects {
        let recorded = store.describe(&project.sha256.digest()).expect(name);
        assert!(
            recorded.is_some() || !expected.contains(&project.sha256),
            "{name}: {} was stored",
            project.name
        );
        let Some(recorded) = recorded else { continue };
        (artifacts, bytes) = (artifacts + 1, bytes + recorded.size);
        let stored = store.load(&project.sha256.digest()).expect(name).expect("what is recorded is there");
        let mut content = vec![0; project.content.len() + 1];
        let length = stored.read(&mut content, 0).unwrap();
        assert!(content[..length] == project.content, "{name}: {} is whole", project.name);
    }
    assert_eq!((space.artifacts, space.artifact_bytes), (artifacts, bytes), "{name}: the totals");
    store.close().expect(name);
    drop(store);

    let report = process::asked(&["verify", "--data", data.to_str().unwrap()]);
    assert_eq!(report["damaged"].as_array().map(Vec::len), Some(0), "{name}: {report}");
    assert_eq!(
        (&report["artifacts"], &report["bytes"]),
        (&artifacts.into(), &bytes.into()),
        "{name}: {report}"
    );
    assert_eq!(report["index_entries_mended"], 0, "{name}: a batch is all or nothing: {report}");

    let store = Store::open(data, options()).expect(name);
    for project in projects {
        if random.below(2) == 0 {
            store.remove(&project.sha256).expect(name);
        }
    }
    store.close().expect(name);
    report["orphans_removed"].as_u64().unwrap()
}
