//! Whole catalogues: the same set is the same root, changes are small, and what strangers may get wrong is found.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bytes::Bytes;

use super::*;
use crate::base::cbor::CborWriter;
use crate::base::mutate::{Xorshift, mutations};
use crate::base::{Algorithm, Digest, PackageUrl, dag_pb_cid, raw_cid};

type Blocks = HashMap<Cid, Bytes>;

fn entry(package: &str, version: u64, n: u64) -> Entry {
    let file = format!("{package}-{version}-py3-none-{n}.whl");
    let sha256 = Sha256::of(file.as_bytes());
    Entry {
        purl: PackageUrl::parse(&format!("pkg:pypi/{package}@{version}")).unwrap(),
        file,
        size: 1000 + n,
        root: raw_cid(sha256),
        digests: vec![sha256.digest()],
        facts: Facts { requires_python: Some(">=3.9".into()), ..Facts::default() },
        first_seen: None,
    }
}

/// Entry `n` of a set in which every tenth package has many files.
fn some(n: u64) -> Entry {
    match n % 3 {
        0 => entry("large", n / 60, n),
        _ => entry(&format!("package-{}", n / 8), n % 8, n),
    }
}

fn built(entries: impl IntoIterator<Item = Entry>) -> (Root, Blocks) {
    let mut blocks = Blocks::new();
    let root = build(entries, &mut |cid, block| drop(blocks.insert(cid, block))).unwrap();
    (root, blocks)
}

fn changed(root: &Root, blocks: &mut Blocks, changes: Vec<Change>) -> Result<(Root, usize), CatalogueError> {
    let mut new = Vec::new();
    let source = |cid: &Cid| blocks.get(cid).cloned();
    let updated = update(root, changes, &source, &mut |cid, block| new.push((cid, block)))?;
    let count = new.len();
    for cid in &updated.gone {
        assert!(blocks.remove(cid).is_some(), "what goes was there");
    }
    for (cid, block) in new {
        assert!(blocks.insert(cid, block).is_none(), "a block that is written is new");
    }
    Ok((updated.root, count))
}

fn remove(entry: &Entry) -> Change {
    Change::Remove { purl: entry.purl.clone(), file: entry.file.clone() }
}

fn all(root: &Root, blocks: &Blocks) -> Result<BTreeMap<(String, String), Entry>, CatalogueError> {
    let mut found = BTreeMap::new();
    let mut budget = Budget::for_entries(root.entries);
    walk(root, &|cid| blocks.get(cid).cloned(), &mut budget, &mut |entry| {
        found.insert((entry.purl.to_string(), entry.file.clone()), entry);
    })?;
    Ok(found)
}

#[test]
fn the_same_set_is_the_same_root_whatever_came_before() {
    let mut random = Xorshift(7);
    let (mut root, mut blocks) = built([]);
    let empty = root;
    let mut set: BTreeMap<u64, Entry> = BTreeMap::new();
    for round in 0..60 {
        let grow = round < 30;
        let changes = (0..random.below(120)).map(|_| {
            let n = random.below(3000) as u64;
            if grow != random.below(4).eq(&0) {
                let mut entry = some(n);
                entry.first_seen = Some(random.below(3) as u64);
                set.insert(n, entry.clone());
                Change::put(entry)
            } else {
                let victim = set.keys().nth(random.below(set.len())).copied().unwrap_or(n);
                set.remove(&victim);
                remove(&some(victim))
            }
        });
        (root, _) = changed(&root, &mut blocks, changes.collect()).unwrap();
        let (fresh, fresh_blocks) = built(set.values().rev().cloned());
        assert_eq!(root, fresh, "round {round}");
        assert_eq!(blocks, fresh_blocks, "nothing is missing and nothing is left over");
        assert_eq!(root.entries, set.len() as u64);
    }
    assert_eq!(all(&root, &blocks).unwrap().len(), set.len());
    (root, _) = changed(&root, &mut blocks, set.values().map(remove).collect()).unwrap();
    assert_eq!((root, blocks.len()), (empty, 1));
}

#[test]
fn leaves_split_and_merge() {
    let (mut root, mut blocks) = built((0..32).map(|n| entry("a", 1, n)));
    assert_eq!(blocks.len(), 1);
    let whole = root;
    (root, _) = changed(&root, &mut blocks, vec![Change::put(entry("a", 1, 32))]).unwrap();
    // Six inner nodes that tell packages apart, one that tells files apart, and its leaves.
    assert!((9..9 + FAN_OUT).contains(&blocks.len()), "{}", blocks.len());
    (root, _) = changed(&root, &mut blocks, vec![remove(&entry("a", 1, 32))]).unwrap();
    assert_eq!((root, blocks.len()), (whole, 1));
    let none = changed(&root, &mut blocks, vec![remove(&entry("b", 1, 1)), Change::put(entry("a", 1, 3))]);
    assert_eq!(none.unwrap(), (whole, 0), "no change is no new block");
}

#[test]
fn the_sorted_way_gives_the_same_and_refuses_disorder() {
    let mut entries: Vec<Entry> = (0..500).map(some).collect();
    let (root, _) = built(entries.clone());
    entries.sort_by_key(|e| Path::of(&e.purl, &e.file));
    assert_eq!(build_sorted(entries.iter().cloned(), &mut |_, _| ()).unwrap(), root);
    entries.swap(3, 4);
    let refused = build_sorted(entries.into_iter(), &mut |_, _| ());
    assert!(matches!(refused, Err(CatalogueError::OwnUnsorted { .. })), "{refused:?}");
    let mut later = entry("a", 1, 1);
    later.first_seen = Some(1);
    let twice = built([entry("a", 1, 1), later.clone()]);
    assert_eq!(
        all(&twice.0, &twice.1).unwrap().into_values().collect::<Vec<_>>(),
        [later],
        "the later stays"
    );
    let hidden = Entry { file: ".x".into(), ..entry("a", 1, 1) };
    let refused = build([hidden], &mut |_, _| ());
    assert!(matches!(refused, Err(CatalogueError::Own { source: EntryError::File, .. })), "{refused:?}");
}

#[test]
fn what_is_there_is_found() {
    let (root, blocks) = built((0..2000).map(some));
    let source = |cid: &Cid| blocks.get(cid).cloned();
    for n in 0..2000 {
        let entry = some(n);
        assert_eq!(find(&root, &entry.purl, &entry.file, &source).unwrap(), Some(entry));
    }
    for n in 2000..2200 {
        let entry = some(n);
        assert_eq!(find(&root, &entry.purl, &entry.file, &source).unwrap(), None);
    }
    let of = |package: &str| {
        let mut budget = Budget::for_entries(2000);
        let found = of_package(&root, &PackageUrl::parse(package).unwrap(), &source, &mut budget).unwrap();
        found.into_iter().map(|e| e.file).collect::<BTreeSet<_>>()
    };
    let want = |which: &dyn Fn(u64) -> bool| -> BTreeSet<String> {
        (0..2000).filter(|n| which(*n)).map(|n| some(n).file).collect()
    };
    assert_eq!(of("pkg:pypi/large"), want(&|n| n % 3 == 0));
    assert_eq!(
        of("pkg:pypi/package-9@5"),
        want(&|n| n % 3 != 0 && n / 8 == 9),
        "the version does not matter"
    );
    assert_eq!(of("pkg:pypi/nobody"), BTreeSet::new());
}

#[test]
fn a_difference_reads_only_what_differs() {
    let (old, mut blocks) = built((0..3000).map(some));
    let before = blocks.clone();
    let mut other = some(77);
    other.facts.yanked = Some("broken".into());
    let changes = vec![Change::put(other.clone()), Change::put(some(3001)), remove(&some(1500))];
    let (new, _) = changed(&old, &mut blocks, changes).unwrap();
    blocks.extend(before);
    let reads = Cell::new(0);
    let source = |cid: &Cid| {
        reads.set(reads.get() + 1);
        blocks.get(cid).cloned()
    };
    let told = |old: &Root, new: &Root| {
        let (mut told, mut budget) = (Vec::new(), Budget::for_entries(6000));
        diff(old, new, &source, &mut budget, &mut |difference| told.push(difference)).unwrap();
        told.sort_by_key(|d| format!("{d:?}"));
        told
    };
    let want = [
        Difference::Added(some(3001)),
        Difference::Changed { before: Box::new(some(77)), after: Box::new(other) },
        Difference::Removed(some(1500)),
    ];
    assert_eq!(told(&old, &new), want);
    assert!(reads.get() < 60, "{} of {} blocks", reads.get(), blocks.len());
    assert_eq!(told(&new, &new), []);
    // A leaf against inner nodes, both ways, and from nothing.
    let (small, few) = built((0..20).map(some));
    let (empty, none) = built([]);
    let all: Blocks = blocks.iter().chain(&few).chain(&none).map(|(c, b)| (*c, b.clone())).collect();
    let source = |cid: &Cid| all.get(cid).cloned();
    for (old, new, added, removed) in
        [(small, old, 2980, 0), (old, small, 0, 2980), (empty, old, 3000, 0), (old, empty, 0, 3000)]
    {
        let (mut plus, mut minus) = (0, 0);
        diff(&old, &new, &source, &mut Budget::for_entries(6000), &mut |difference| match difference {
            Difference::Added(_) => plus += 1,
            Difference::Removed(_) => minus += 1,
            Difference::Changed { .. } => panic!("nothing changed"),
        })
        .unwrap();
        assert_eq!((plus, minus), (added, removed));
    }
}

#[test]
fn a_catalogue_is_pulled_and_then_only_what_is_new() {
    let (old, mut theirs) = built((0..3000).map(some));
    let mut ours = Blocks::new();
    let first = theirs.clone();
    assert_eq!(pulled(None, &old, &theirs, &mut ours).unwrap(), theirs.len());
    assert_eq!(ours, theirs);
    let (new, fresh) = changed(&old, &mut theirs, vec![Change::put(some(3001))]).unwrap();
    let known: HashSet<Cid> = ours.keys().copied().collect();
    assert_eq!(pulled(Some(&old), &new, &theirs, &mut ours).unwrap(), fresh);
    assert_eq!(all(&new, &ours).unwrap().len(), 3001);
    let bytes = |news: bool| -> usize {
        ours.iter().filter(|(cid, _)| !news || !known.contains(cid)).map(|(_, block)| block.len()).sum()
    };
    assert!(bytes(true) < 8 << 10, "one package costs {} of {} bytes", bytes(true), bytes(false));

    // Other bytes are the sender's fault, and the block can be asked of another.
    let none = |_: &Cid| None;
    let mut pull = Pull::new(None, &old, Budget::for_entries(old.entries));
    let cid = pull.next(&none).unwrap().unwrap();
    assert_eq!(pull.got(&cid, b"other", &none), Err(CatalogueError::OtherBytes(cid)));
    assert_eq!(pull.next(&none), Ok(None), "one is on its way");
    pull.failed(&cid);
    assert_eq!(pull.next(&none), Ok(Some(cid)));
    pull.got(&cid, &first[&cid], &none).unwrap();
    assert_eq!(pull.got(&cid, &first[&cid], &none), Err(CatalogueError::OtherBytes(cid)), "unasked");
    // Another's subtree under the same hash, with another count.
    let lie = Root { entries: 1, ..old };
    let mut pull = Pull::new(Some(&old), &lie, Budget::for_entries(1));
    assert!(matches!(pull.next(&none), Err(CatalogueError::Count { stated: 1, found: 3000, .. })));
    let small = Budget { blocks: 10, ..Budget::for_entries(3000) };
    let mut pull = Pull::new(None, &old, small);
    let stopped = loop {
        match pull.next(&none) {
            Ok(Some(cid)) => match pull.got(&cid, &first[&cid], &none) {
                Ok(()) => {}
                Err(e) => break e,
            },
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(stopped, CatalogueError::Budget("blocks"));
}

/// Pulls with several blocks on their way; says how many were asked for.
fn pulled(
    have: Option<&Root>,
    want: &Root,
    theirs: &Blocks,
    ours: &mut Blocks,
) -> Result<usize, CatalogueError> {
    let mut pull = Pull::new(have, want, Budget::for_entries(want.entries));
    let mut asked = 0;
    while !pull.is_done() {
        let mut way = Vec::new();
        while way.len() < 5
            && let Some(cid) = pull.next(&|cid| ours.get(cid).cloned())?
        {
            way.push(cid);
        }
        asked += way.len();
        for cid in way.into_iter().rev() {
            pull.got(&cid, &theirs[&cid], &|cid| ours.get(cid).cloned())?;
            ours.insert(cid, theirs[&cid].clone());
        }
    }
    Ok(asked)
}

fn block(write: impl FnOnce(&mut CborWriter)) -> (Sha256, Blocks) {
    let mut out = CborWriter::default();
    write(&mut out);
    let hash = Sha256::of(&out.0);
    (hash, [(dag_cbor_cid(hash), Bytes::from(out.0))].into())
}

fn link(out: &mut CborWriter, step: u64, entries: u64, hash: Sha256) {
    out.array(3).uint(step).uint(entries).cid(&dag_cbor_cid(hash));
}

#[track_caller]
fn refused((hash, blocks): (Sha256, Blocks), entries: u64, want: &str) {
    let root = Root { hash, entries };
    let said = all(&root, &blocks).expect_err(want).to_string();
    assert!(said.contains(want), "{said:?} does not say {want:?}");
    if !want.contains("absent") {
        let pulled = pulled(None, &root, &blocks, &mut Blocks::new());
        assert_eq!(pulled.expect_err(want).to_string(), said, "a pull says the same");
    }
}

#[test]
fn hostile_nodes() {
    let nothing = Sha256::of(b"");
    let leaf = |entries: &[Entry]| {
        block(|out| {
            out.map(2).text("e");
            list(entries, out);
            out.text("v").uint(1);
        })
    };
    let inner = |links: &[(u64, u64, Sha256)]| {
        block(|out| {
            out.map(2).text("l").array(links.len());
            links.iter().for_each(|(step, entries, hash)| link(out, *step, *entries, *hash));
            out.text("v").uint(1);
        })
    };
    refused((nothing, Blocks::from([(dag_cbor_cid(nothing), Bytes::new())])), 1, "cut off");
    refused(
        block(|out| {
            out.map(1).text("v").uint(1);
        }),
        0,
        "neither entries (e) nor links (l)",
    );
    refused(
        block(|out| {
            out.map(1).text("e").array(0);
        }),
        0,
        "another version",
    );
    refused(
        block(|out| {
            out.map(2).text("e").array(0).text("v").uint(2);
        }),
        0,
        "another version",
    );
    refused(
        block(|out| {
            out.map(3).text("e").array(0).text("l").array(0).text("v").uint(1);
        }),
        0,
        "it is a leaf and has children",
    );
    refused(
        block(|out| {
            out.map(2).text("v").uint(1).text("e").array(0);
        }),
        0,
        "out of order or there twice",
    );
    refused(
        block(|out| {
            out.map(2).text("e").array(0).text("v").uint(1).uint(0);
        }),
        0,
        "bytes follow",
    );
    refused(
        block(|out| {
            out.map(1).text("e").raw(&[0x9b, 255, 255, 255, 255, 255, 255, 255, 255]);
        }),
        0,
        "cut off",
    );
    refused(leaf(&[]), 1, "1 entries are stated");
    refused(leaf(&[some(1)]), 2, "1 are there");
    let mut two = [some(1), some(2)];
    two.sort_by(|a, b| b.key().cmp(&a.key()));
    refused(leaf(&two), 2, "out of order or twice");
    refused(leaf(&[some(1), some(1)]), 2, "out of order or twice");
    let mut many: Vec<Entry> = (0..33).map(some).collect();
    many.sort_by(|a, b| a.key().cmp(&b.key()));
    refused(leaf(&many), 33, "more entries than a leaf may have");
    refused(inner(&[(0, 40, nothing)]), 40, "is absent");
    refused(inner(&[(0, 20, nothing)]), 20, "so few entries belong in one leaf");
    refused(inner(&[(3, 40, nothing), (3, 40, nothing)]), 80, "links out of order");
    refused(inner(&[(3, 40, nothing), (2, 40, nothing)]), 80, "links out of order");
    refused(inner(&[(16, 40, nothing)]), 40, "beyond the sixteenth");
    refused(inner(&[(0, 0, nothing)]), 40, "0 entries are stated");
    refused(inner(&[(0, 1 << 40, nothing)]), 40, "1099511627776 entries are stated");
    refused(inner(&[(0, 40, nothing)]), 41, "41 entries are stated");
    let raw = |out: &mut CborWriter| {
        out.map(2).text("l").array(1).array(3).uint(0).uint(40).cid(&raw_cid(nothing)).text("v").uint(1);
    };
    refused(block(raw), 40, "a CID of the right kind");

    // An entry that leads elsewhere, and an empty leaf below the root.
    let (hash, mut blocks) = leaf(&[some(1)]);
    let step = u64::from(Path::of(&some(1).purl, &some(1).file).step(0));
    let (empty, more) = leaf(&[]);
    let (root, below) = inner(&[((step + 1) % 16, 1, hash), ((step + 1) % 16 + 1, 32, nothing)]);
    blocks.extend(more);
    blocks.extend(below);
    if (step + 1) % 16 < 15 {
        let said = walk_error(root, 33, &blocks);
        assert!(said.contains("does not belong in the block"), "{said}");
    }
    let (root, below) = inner(&[(0, 40, empty)]);
    blocks.extend(below);
    assert!(walk_error(root, 40, &blocks).contains("40 entries are stated"));

    // A chain of nodes with one child each, deeper than any: what a cycle would be if hashes allowed one.
    let (mut hash, mut blocks) = inner(&[(0, 40, nothing)]);
    for _ in 0..MOST_DEPTH {
        let (above, block) = inner(&[(0, 40, hash)]);
        blocks.extend(block);
        hash = above;
    }
    assert!(walk_error(hash, 40, &blocks).contains("deeper than 22 steps"));
    let source = |cid: &Cid| blocks.get(cid).cloned();
    let root = Root { hash, entries: 40 };
    let package = PackageUrl::parse("pkg:pypi/a").unwrap();
    let budget = &mut Budget::for_entries(40);
    assert!(of_package(&root, &package, &source, budget).is_ok_and(|found| found.is_empty()));
    assert!(update(&root, [Change::put(some(1))], &source, &mut |_, _| ()).is_ok(), "beside the chain");
}

fn walk_error(hash: Sha256, entries: u64, blocks: &Blocks) -> String {
    all(&Root { hash, entries }, blocks).expect_err("refused").to_string()
}

#[test]
fn hostile_entries() {
    let good = entry("a", 1, 1);
    let sha256 = good.sha256().unwrap();
    let strong = |algorithm: Algorithm| Digest::new(algorithm, &vec![7; algorithm.digest_len()]).unwrap();
    let with = |change: &dyn Fn(&mut Entry)| {
        let mut entry = good.clone();
        change(&mut entry);
        entry
    };
    let rows: &[(Entry, &str)] = &[
        (with(&|e| e.file = String::new()), "a file name that is none"),
        (with(&|e| e.file = "../x".into()), "a file name that is none"),
        (with(&|e| e.file = "a\nb".into()), "a file name that is none"),
        (with(&|e| e.file = "x".repeat(256)), "a file name that is none"),
        (with(&|e| e.size = 1 << 50), "a size of 1125899906842624 bytes"),
        (with(&|e| e.size = 2 << 20), "one raw block above 1 MiB"),
        (with(&|e| e.root = dag_cbor_cid(sha256)), "no CIDv1 of a raw or dag-pb block"),
        (with(&|e| (e.root, e.digests) = (dag_pb_cid(sha256), vec![])), "its digests: none"),
        (with(&|e| (e.root, e.digests) = (dag_pb_cid(sha256), vec![strong(Algorithm::Sha1)])), "a weak one"),
        (with(&|e| e.digests.push(strong(Algorithm::Sha224))), "a weak one"),
        (with(&|e| e.digests.extend([strong(Algorithm::Sha512); 2])), "two of a kind"),
        (with(&|e| e.facts.yanked = Some("x".repeat(513))), "reason of withdrawal (y) is too long"),
        (
            with(&|e| e.facts.upload_time = Some("\u{1b}[2J".into())),
            "upload time (t) is too long or not a text",
        ),
        (with(&|e| e.facts.core_metadata = Some(strong(Algorithm::Md5))), "a weak one of the metadata"),
        (with(&|e| e.first_seen = Some(1 << 53)), "time of first sight"),
    ];
    for (entry, want) in rows {
        let said = entry.check().expect_err(want).to_string();
        assert!(said.contains(want), "{said:?} does not say {want:?}");
        let leaf = block(|out| {
            out.map(2).text("e");
            list(std::slice::from_ref(entry), out);
            out.text("v").uint(1);
        });
        refused(leaf, 1, want);
    }
    // What no writer of ours writes.
    let raw = |fields: &dyn Fn(&mut CborWriter)| {
        block(|out| {
            out.map(2).text("e").array(1);
            fields(out);
            out.text("v").uint(1);
        })
    };
    refused(
        raw(&|out| {
            out.map(0);
        }),
        1,
        "entry 0 of the block",
    );
    refused(
        raw(&|out| {
            out.map(2).text("f").text("x").text("p").text("pkg:pypi/a@1");
        }),
        1,
        "no root (r)",
    );
    refused(
        raw(&|out| {
            out.uint(1);
        }),
        1,
        "a map is missing",
    );
    let said_twice = |out: &mut CborWriter| {
        out.map(5).text("d").array(1).bytes(&sha256.digest().to_multihash()).text("f").text("x");
        out.text("p").text("pkg:pypi/a@1").text("r").cid(&raw_cid(sha256)).text("s").uint(1);
    };
    refused(raw(&said_twice), 1, "a SHA-256 that its raw root says already");
    let huge = |out: &mut CborWriter| {
        out.map(5).text("f").text("x").text("p").text("pkg:pypi/a@1").text("r").cid(&raw_cid(sha256));
        out.text("s").uint(1).text("z").bytes(&[0; 5000]);
    };
    refused(raw(&huge), 1, "4096 are allowed");
}

#[test]
fn what_later_versions_add_is_passed_over() {
    let sha256 = Sha256::of(b"x");
    let (hash, blocks) = block(|out| {
        out.map(3).text("e").array(1);
        out.map(5).text("f").text("x").text("p").text("pkg:pypi/a@1").text("r").cid(&raw_cid(sha256));
        out.text("s").uint(1).text("z").map(1).text("later").array(1).null();
        out.text("zz").text("later").text("v").uint(1);
    });
    // Keys are ordered as encoded: "v" before "zz".
    let out_of_order = all(&Root { hash, entries: 1 }, &blocks).unwrap_err();
    assert!(matches!(out_of_order, CatalogueError::Cbor { .. }));
    let (hash, blocks) = block(|out| {
        out.map(3).text("e").array(1);
        out.map(5).text("f").text("x").text("p").text("pkg:pypi/a@1").text("r").cid(&raw_cid(sha256));
        out.text("s").uint(1).text("z").map(1).text("later").array(1).null();
        out.text("v").uint(1).text("zz").text("later");
    });
    assert_eq!(all(&Root { hash, entries: 1 }, &blocks).unwrap().len(), 1);
}

#[test]
fn all_facts_survive() {
    let strong = |algorithm: Algorithm| Digest::new(algorithm, &vec![7; algorithm.digest_len()]).unwrap();
    let full = Entry {
        root: dag_pb_cid(Sha256::of(b"node")),
        size: 5 << 20,
        digests: vec![strong(Algorithm::Sha256), strong(Algorithm::Sha512)],
        facts: Facts {
            core_metadata: Some(strong(Algorithm::Sha256)),
            media_type: Some("application/vnd.oci.image.index.v1+json".into()),
            requires_python: Some(">=3.9,<4".into()),
            upload_time: Some("2026-01-02T03:04:05.678901Z".into()),
            yanked: Some(String::new()),
        },
        first_seen: Some(1_700_000_000),
        ..entry("a", 1, 1)
    };
    let (root, blocks) = built([full.clone()]);
    assert_eq!(all(&root, &blocks).unwrap().into_values().collect::<Vec<_>>(), std::slice::from_ref(&full));
    let mut other = full.clone();
    assert!(!full.contradicts(&other));
    other.digests = vec![strong(Algorithm::Sha512)];
    assert!(!full.contradicts(&other), "nothing that both say differs");
    other.digests = vec![Digest::new(Algorithm::Sha512, &[8; 64]).unwrap()];
    assert!(full.contradicts(&other));
    assert!(!full.contradicts(&entry("a", 1, 2)), "another file");
}

#[test]
fn no_block_panics() {
    let (root, blocks) = built((0..200).map(some));
    let seeds: Vec<&[u8]> =
        blocks.values().take(6).map(|b| &b[..]).chain([&blocks[&root.cid()][..]]).collect();
    mutations(&seeds, 400, |bytes| {
        let block = Bytes::copy_from_slice(bytes);
        for entries in [0, 1, 40, 200] {
            let root = Root { hash: Sha256::of(bytes), entries };
            // Also in place of every child: a function that lies about hashes must do no more harm than fail.
            let source = |_: &Cid| Some(block.clone());
            let budget = || Budget { blocks: 100, bytes: 1 << 20, entries: 1000 };
            let mut count = 0;
            let _ = walk(&root, &source, &mut budget(), &mut |_| count += 1);
            assert!(count <= 1000);
            let _ = find(&root, &some(1).purl, &some(1).file, &source);
            let _ = update(&root, [Change::put(some(1)), remove(&some(2))], &source, &mut |_, _| ());
        }
    });
}

#[test]
fn roots() {
    let hash = Sha256::of(b"");
    assert_eq!(Root::of(&dag_cbor_cid(hash), 7), Ok(Root { hash, entries: 7 }));
    for cid in [raw_cid(hash), dag_pb_cid(hash)] {
        assert_eq!(Root::of(&cid, 7), Err(CatalogueError::NotARoot(cid)));
    }
    assert!(matches!(Root::of(&dag_cbor_cid(hash), u64::MAX), Err(CatalogueError::Count { .. })));
}
