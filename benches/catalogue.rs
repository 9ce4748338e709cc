//! A catalogue of a million packages: `cargo bench --bench catalogue`. Figures: `benches/BASELINE.md`.
//!
//! By itself, since it counts allocations: what building and updating hold in memory is part of the figures.

use std::collections::HashMap;
use std::sync::OnceLock;

use bytes::Bytes;
use divan::{AllocProfiler, Bencher};

use dpm::base::{Cid, PackageUrl, Sha256, dag_pb_cid};
use dpm::catalogue::{
    Budget, Change, Entry, Facts, Path, Root, build_sorted, diff, find, of_package, update,
};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const ENTRIES: u64 = 1_000_000;

fn main() {
    divan::main();
}

/// File `n` of a set in which packages have 1 to 4,000 files, most of them few.
fn entry(n: u64) -> Entry {
    let block = n / 10_000;
    let within = n % 10_000;
    // In every 10,000 files: one package of 2,500, ten of 250, a hundred of 25, and 500 of five.
    let package = match within {
        0..2_500 => 0,
        2_500..5_000 => 1 + (within - 2_500) / 250,
        5_000..7_500 => 11 + (within - 5_000) / 25,
        _ => 111 + (within - 7_500) / 5,
    };
    let (name, version) = (format!("package-{block}-{package}"), format!("{}.{}.0", n % 7, n / 12));
    let file =
        format!("{name}-{version}-cp3{}-cp3{0}-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", n % 12);
    let sha256 = Sha256::of(&n.to_le_bytes());
    Entry {
        purl: PackageUrl::of("pypi", &name, Some(&version), &[]).expect("a package URL"),
        file,
        size: 1_200_000 + n,
        root: dag_pb_cid(Sha256::of(&sha256.0)),
        digests: vec![sha256.digest()],
        facts: Facts {
            core_metadata: Some(Sha256(sha256.0).digest()),
            requires_python: Some(">=3.9".into()),
            upload_time: Some("2026-01-02T03:04:05.678901Z".into()),
            ..Facts::default()
        },
        first_seen: Some(1_790_000_000 + n),
    }
}

/// The numbers of all entries in the order of their paths, as an index on disk would give them.
fn order() -> &'static [u32] {
    static ORDER: OnceLock<Vec<u32>> = OnceLock::new();
    ORDER.get_or_init(|| {
        let path = |n: u32| {
            let entry = entry(n.into());
            Path::of(&entry.purl, &entry.file)
        };
        let mut all: Vec<(Path, u32)> = (0..ENTRIES as u32).map(|n| (path(n), n)).collect();
        all.sort_unstable();
        all.into_iter().map(|(_, n)| n).collect()
    })
}

struct Built {
    root: Root,
    blocks: HashMap<Cid, Bytes>,
}

fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut blocks = HashMap::new();
        let entries = order().iter().map(|n| entry((*n).into()));
        let root =
            build_sorted(entries, &mut |cid, block| drop(blocks.insert(cid, block))).expect("a catalogue");
        let bytes: usize = blocks.values().map(Bytes::len).sum();
        let longest = blocks.values().map(Bytes::len).max().unwrap_or_default();
        eprintln!("{} blocks, {} MB, the longest {longest} B", blocks.len(), bytes / 1_000_000);
        Built { root, blocks }
    })
}

/// A hundred changes: most of them new files, some of known packages, some removals.
fn changes() -> Vec<Change> {
    (0..100)
        .map(|n| match n % 10 {
            0 => {
                let Entry { purl, file, .. } = entry(n * 9_973);
                Change::Remove { purl, file }
            }
            1..5 => Change::put(Entry { first_seen: Some(7), ..entry(n * 9_973) }),
            _ => Change::put(entry(ENTRIES + n * 9_973)),
        })
        .collect()
}

/// Entries in order, blocks thrown away: what building by itself takes. Making an entry is most of the rest.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn build_million(bencher: Bencher) {
    let order = order();
    bencher.bench(|| build_sorted(order.iter().map(|n| entry((*n).into())), &mut |_, _| ()));
}

/// The baseline of [`build_million`]: entries are made and thrown away.
#[divan::bench(sample_count = 1, sample_size = 1)]
fn make_million_entries(bencher: Bencher) {
    let order = order();
    bencher.bench(|| order.iter().map(|n| entry((*n).into()).size).sum::<u64>());
}

#[divan::bench(sample_count = 1000)]
fn lookup(bencher: Bencher) {
    let Built { root, blocks } = built();
    let n = std::cell::Cell::new(0);
    let next = || {
        n.set((n.get() + 611_953) % ENTRIES);
        let Entry { purl, file, .. } = entry(n.get());
        (purl, file)
    };
    bencher.with_inputs(next).bench_local_refs(|(purl, file)| {
        find(root, purl, file, &|cid| blocks.get(cid).cloned()).expect("sound").expect("there")
    });
}

/// All files of a package of 25: what an index page is made of.
#[divan::bench]
fn package_of_25(bencher: Bencher) {
    let Built { root, blocks } = built();
    let package = entry(5_000).purl;
    bencher.bench(|| {
        let mut budget = Budget::for_entries(ENTRIES);
        let found = of_package(root, &package, &|cid| blocks.get(cid).cloned(), &mut budget);
        assert!(found.is_ok_and(|found| found.len() == 25));
    });
}

#[divan::bench(sample_count = 20)]
fn update_100(bencher: Bencher) {
    let Built { root, blocks } = built();
    let mut new = Vec::new();
    update(root, changes(), &|cid| blocks.get(cid).cloned(), &mut |_, block| new.push(block)).expect("sound");
    eprintln!("{} new blocks, {} KB", new.len(), new.iter().map(Bytes::len).sum::<usize>() / 1000);
    bencher.with_inputs(changes).bench_values(|changes| {
        update(root, changes, &|cid| blocks.get(cid).cloned(), &mut |_, _| ()).expect("sound")
    });
}

#[divan::bench(sample_count = 20)]
fn diff_100(bencher: Bencher) {
    let Built { root, blocks } = built();
    let mut more = HashMap::new();
    let updated = update(root, changes(), &|cid| blocks.get(cid).cloned(), &mut |cid, block| {
        more.insert(cid, block);
    })
    .expect("sound");
    bencher.bench(|| {
        let (mut count, mut budget) = (0, Budget::for_entries(2 * ENTRIES));
        let source = |cid: &Cid| more.get(cid).or_else(|| blocks.get(cid)).cloned();
        diff(root, &updated.root, &source, &mut budget, &mut |_| count += 1).expect("sound");
        assert_eq!(count, 100);
    });
}
