//! The store by itself: what is committed is there, what is damaged is named, old formats are read.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dpm::base::{Access, Algorithm, Digest, Hasher, Sha256};
use dpm::rt::Clock;
use dpm::store::{Budget, Facts, Options, Page, PageHead, Report, Store, StoreError, Stored};
use dpm::unixfs::LayoutBuilder;

use crate::support::random_bytes;

/// A store in a folder of its own, on a clock that the test moves.
struct Shelf {
    dir: tempfile::TempDir,
    now: Arc<AtomicU64>,
    budget: u64,
}

impl Shelf {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), now: Arc::new(AtomicU64::new(1_000)), budget: 1 << 30 }
    }

    fn try_open(&self) -> Result<Store, StoreError> {
        let options = Options {
            budget: Budget::Bytes(self.budget),
            free_margin_bytes: 0,
            clock: Clock::Manual(self.now.clone()),
        };
        Store::open(self.dir.path(), options)
    }

    fn open(&self) -> Store {
        self.try_open().expect("the store opens")
    }

    fn object(&self, sha256: &Sha256) -> PathBuf {
        let hex = sha256.hex();
        self.dir.path().join("objects").join(&hex[..2]).join(hex)
    }

    /// The index as fjall sees it, while no store is open on it.
    fn index<T>(&self, keyspace: &str, look: impl FnOnce(&fjall::Keyspace) -> T) -> T {
        let db = fjall::Database::builder(self.dir.path().join("index")).open().expect("the index opens");
        let found = look(&db.keyspace(keyspace, fjall::KeyspaceCreateOptions::default).unwrap());
        db.persist(fjall::PersistMode::SyncAll).unwrap();
        found
    }
}

fn facts(content: &[u8]) -> Facts {
    let mut layout = LayoutBuilder::default();
    layout.update(content);
    Facts {
        sha256: Sha256::of(content),
        digests: vec![sha512(content)],
        layout: layout.finish(),
        access: Access::Public,
        upstream: "pypi".into(),
        url: "http://127.0.0.1/f/demo.whl".into(),
        filename: "demo.whl".into(),
        pin_name: None,
    }
}

fn sha512(content: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(content);
    hasher.finish()
}

fn put(store: &Store, content: &[u8]) -> Sha256 {
    put_as(store, content, facts(content))
}

fn put_as(store: &Store, content: &[u8], facts: Facts) -> Sha256 {
    let incoming = store.begin(Some(content.len() as u64)).expect("there is room");
    incoming.write(content, 0).unwrap();
    store.commit(incoming, facts).expect("it is stored").sha256
}

fn all(stored: &Stored) -> Vec<u8> {
    let mut content = vec![0; stored.size as usize];
    assert_eq!(stored.read(&mut content, 0).unwrap(), content.len());
    content
}

fn scrub(store: &Store) -> Report {
    store.scrub(|_| true).expect("a scrub")
}

/// What `space` says, held against what is recorded and what lies on the disk.
fn check_totals(shelf: &Shelf, store: &Store, artifacts: u64, bytes: u64) {
    let space = store.space().unwrap();
    assert_eq!((space.artifacts, space.artifact_bytes), (artifacts, bytes));
    let sizes: Vec<u64> =
        files(&shelf.dir.path().join("objects")).iter().map(|f| f.metadata().unwrap().len()).collect();
    assert_eq!((sizes.len() as u64, sizes.iter().sum()), (artifacts, bytes), "on the disk");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

#[test]
fn what_is_committed_is_there_after_a_restart() {
    let shelf = Shelf::new();
    let contents = [
        random_bytes(1, 0),
        random_bytes(2, 1),
        random_bytes(3, 1 << 20),
        random_bytes(4, (1 << 20) + 1),
        random_bytes(5, 5 << 20),
    ];
    let total = contents.iter().map(|c| c.len() as u64).sum();
    let store = shelf.open();
    for content in &contents {
        assert!(store.load(&sha512(content)).unwrap().is_none(), "not before the commit");
        let sha256 = put(&store, content);
        assert!(store.peek(&sha256).is_some());
    }
    check_totals(&shelf, &store, 5, total);
    store.close().unwrap();
    drop(store);

    let store = shelf.open();
    check_totals(&shelf, &store, 5, total);
    for content in &contents {
        let sha256 = Sha256::of(content);
        assert!(store.peek(&sha256).is_none(), "no file is open yet");
        for digest in [sha256.digest(), sha512(content)] {
            let stored = store.load(&digest).unwrap().expect("it is stored");
            assert_eq!((stored.sha256, stored.stored_at.0), (sha256, 1_000));
            assert!(all(&stored) == *content);
        }
        let layout = facts(content).layout;
        let (root, _) = layout.tree();
        let description = store.describe(&sha256.digest()).unwrap().unwrap();
        assert_eq!(description.root, Some(root));
        let root = Digest::new(Algorithm::Sha256, root.hash().digest()).unwrap().sha256().unwrap();
        for block in layout.leaves.iter().chain([&root]) {
            assert_eq!(store.artifact_of_block(block).unwrap(), Some(sha256), "{} bytes", content.len());
        }
    }
    let report = scrub(&store);
    assert_eq!((report.artifacts, report.bytes, report.mended, report.orphans), (5, total, 0, 0));
    assert_eq!(report.damaged, []);
}

#[test]
fn an_artifact_may_be_committed_again() {
    let shelf = Shelf::new();
    let store = shelf.open();
    let content = random_bytes(1, 3 << 20);
    let sha256 = put(&store, &content);
    assert!(store.pin(&sha256, true).unwrap());
    let reader = store.load(&sha256.digest()).unwrap().unwrap();
    shelf.now.store(2_000, Ordering::Relaxed);
    // From a private upstream, and without the other digest.
    let again = Facts { access: Access::Private, digests: Vec::new(), ..facts(&content) };
    put_as(&store, &content, again);
    check_totals(&shelf, &store, 1, content.len() as u64);
    let description = store.describe(&sha512(&content)).unwrap().expect("the alias still leads there");
    assert!(description.pinned, "a pin is kept");
    assert!(!description.private, "public once is public");
    assert_eq!(description.stored_at.0, 2_000);
    assert!(all(&reader) == content, "an open reader goes on");
    assert_eq!(store.remove(&sha256).unwrap(), Some(content.len() as u64));
    assert_eq!(scrub(&store).mended, 0, "nothing is left that leads to it");
}

#[test]
fn what_is_removed_leaves_nothing() {
    let shelf = Shelf::new();
    let store = shelf.open();
    let (content, other) = (random_bytes(1, 3 << 20), random_bytes(2, 1000));
    let sha256 = put(&store, &content);
    put(&store, &other);
    let reader = store.load(&sha256.digest()).unwrap().unwrap();
    assert_eq!(store.remove(&sha256).unwrap(), Some(content.len() as u64));
    assert_eq!(store.remove(&sha256).unwrap(), None);
    assert!(all(&reader) == content, "an open reader goes on");
    for digest in [sha256.digest(), sha512(&content)] {
        assert!(store.load(&digest).unwrap().is_none());
        assert_eq!(store.describe(&digest).unwrap(), None);
    }
    for leaf in facts(&content).layout.leaves {
        assert_eq!(store.artifact_of_block(&leaf).unwrap(), None);
    }
    check_totals(&shelf, &store, 1, 1000);
    assert_eq!(scrub(&store).mended, 0);
}

#[test]
fn a_question_is_no_use() {
    let shelf = Shelf::new();
    let mut store = shelf.open();
    let sha256 = put(&store, &random_bytes(3, 3 << 20));
    let used = |store: &Store| {
        store.flush_touches().unwrap();
        store.describe(&sha256.digest()).unwrap().unwrap().used_at.unwrap().0
    };
    let leaf = dpm::base::raw_cid(store.leaves(&sha256).unwrap().unwrap()[0]);
    let root = store.describe(&sha256.digest()).unwrap().unwrap().root.unwrap();
    assert_eq!(used(&store), 1_000);
    // Open already, and not.
    for _ in 0..2 {
        shelf.now.store(2_000, Ordering::SeqCst);
        assert!(store.find(&sha256.digest()).unwrap().is_some());
        assert!(store.block(&leaf).unwrap().is_some() && store.block(&root).unwrap().is_some());
        assert_eq!(used(&store), 1_000);
        drop(store);
        store = shelf.open();
    }
    assert!(store.load(&sha256.digest()).unwrap().is_some());
    assert_eq!(used(&store), 2_000);
    shelf.now.store(3_000, Ordering::SeqCst);
    store.touch(sha256);
    assert_eq!(used(&store), 3_000);
}

#[test]
fn the_least_recently_used_goes_first() {
    let mut shelf = Shelf::new();
    shelf.budget = 10_000;
    let store = shelf.open();
    let contents: Vec<_> = (0..10).map(|n| random_bytes(n, 1_000)).collect();
    for (n, content) in contents.iter().enumerate() {
        shelf.now.store(n as u64, Ordering::Relaxed);
        put(&store, content);
    }
    let is_there = |n: usize| store.describe(&Sha256::of(&contents[n]).digest()).unwrap().is_some();
    // 0 and 1 are used, 2 is pinned.
    shelf.now.store(100, Ordering::Relaxed);
    store.load(&Sha256::of(&contents[0]).digest()).unwrap().unwrap();
    store.peek(&Sha256::of(&contents[1])).unwrap();
    store.pin(&Sha256::of(&contents[2]), true).unwrap();
    assert_eq!(store.evict().unwrap(), Default::default(), "within the budget");

    shelf.now.store(200, Ordering::Relaxed);
    put(&store, &random_bytes(99, 1_000));
    // To 95 %, with the new one: 9,500, so two had to go.
    let left: Vec<_> = (0..10).filter(|n| is_there(*n)).collect();
    assert_eq!(left, [0, 1, 2, 5, 6, 7, 8, 9]);
    check_totals(&shelf, &store, 9, 9_000);

    let freed = store.evict_to(3_500).unwrap();
    assert_eq!((freed.artifacts, freed.bytes), (6, 6_000));
    assert_eq!(
        (0..10).filter(|n| is_there(*n)).collect::<Vec<_>>(),
        [1, 2],
        "0 was used before 1, 2 is pinned"
    );
    assert_eq!(store.evict_to(0).unwrap().artifacts, 2);
    check_totals(&shelf, &store, 1, 1_000);

    let too_large = store.begin(Some(10_001)).err().expect("it is larger than the budget");
    assert!(matches!(too_large, StoreError::NoRoom { .. }), "{too_large}");
    check_totals(&shelf, &store, 1, 1_000);
    drop(store);
    let store = shelf.open();
    assert_eq!(store.describe(&Sha256::of(&contents[2]).digest()).unwrap().map(|d| d.pinned), Some(true));
}

#[test]
fn names_and_pages_survive() {
    let shelf = Shelf::new();
    let head = PageHead {
        upstream: "pypi".into(),
        etag: Some("\"1\"".into()),
        checked_at: 5,
        fresh_for: 7,
        found: true,
        revision: 3,
        url: "http://127.0.0.1/simple/demo/".into(),
        ..PageHead::default()
    };
    let page = Page { head: head.clone(), body: random_bytes(1, 100_000) };
    let absent = Page { head: PageHead { found: false, ..head.clone() }, body: Vec::new() };
    let store = shelf.open();
    let content = random_bytes(2, 10);
    put_as(&store, &content, Facts { pin_name: Some("first-use\0a".into()), ..facts(&content) });
    store.set_name("first-use\0b", b"B").unwrap();
    store.set_name("other", b"O").unwrap();
    store.set_page("demo", &page).unwrap();
    store.set_page("gone", &absent).unwrap();
    store.set_page("was", &page).unwrap();
    store.set_page("was", &absent).unwrap();
    store.set_page_head("demo", &PageHead { checked_at: 6, ..head.clone() }).unwrap();
    // No close: what was written is there after an end without farewell.
    drop(store);

    let store = shelf.open();
    let pinned = Sha256::of(&content).digest().to_string().into_bytes();
    assert_eq!(store.name("first-use\0a").unwrap(), Some(pinned));
    assert_eq!(store.name("first-use\0b").unwrap().as_deref(), Some(&b"B"[..]));
    let found = store.page("demo").unwrap().unwrap();
    assert_eq!((found.head.checked_at, found.body == page.body), (6, true));
    for key in ["gone", "was"] {
        assert_eq!(store.page(key).unwrap().as_ref(), Some(&absent), "{key}");
    }
    assert_eq!(store.page("never").unwrap(), None);

    assert_eq!(store.forget_names("first-use\0").unwrap(), 2);
    assert_eq!(store.name("first-use\0a").unwrap(), None);
    assert_eq!(store.name("other").unwrap().as_deref(), Some(&b"O"[..]));
    assert_eq!(store.forget_old_pages(6).unwrap(), 2);
    assert!(store.forget_page("demo").unwrap());
    assert!(!store.forget_page("demo").unwrap());
    assert_eq!(store.page("demo").unwrap(), None);
}

#[test]
fn a_damaged_file_is_named_and_taken_out() {
    type Harm = fn(&Path);
    // What happens to the file, whether a look at its length is enough to see it, and what the report says.
    let cases: [(&str, Harm, bool, &str); 4] = [
        ("a flipped bit", flip, false, "hash"),
        (
            "cut short",
            |p| std::fs::File::options().write(true).open(p).unwrap().set_len(1 << 20).unwrap(),
            true,
            "bytes",
        ),
        (
            "longer",
            |p| std::fs::File::options().append(true).open(p).unwrap().write_all(b"x").unwrap(),
            true,
            "bytes",
        ),
        ("gone", |p| std::fs::remove_file(p).unwrap(), true, "No such file"),
    ];
    for (name, harm, at_once, what) in cases {
        let shelf = Shelf::new();
        let (content, other) = (random_bytes(1, 3 << 20), random_bytes(2, 1000));
        let store = shelf.open();
        let sha256 = put(&store, &content);
        put(&store, &other);
        drop(store);
        harm(&shelf.object(&sha256));

        let store = shelf.open();
        let loaded = store.load(&sha512(&content)).unwrap();
        assert_eq!(loaded.is_none(), at_once, "{name}");
        if at_once {
            check_totals(&shelf, &store, 1, 1000);
            put(&store, &content);
            drop(store);
            harm(&shelf.object(&sha256));
        } else {
            drop(store);
        }

        let store = shelf.open();
        let report = scrub(&store);
        let [damage] = &report.damaged[..] else { panic!("{name}: {report:?}") };
        assert_eq!((damage.sha256, damage.filename.as_str()), (sha256, "demo.whl"), "{name}");
        assert!(damage.what.contains(what), "{name}: {}", damage.what);
        assert!(store.load(&sha256.digest()).unwrap().is_none(), "{name}");
        assert!(store.load(&Sha256::of(&other).digest()).unwrap().is_some(), "{name}: the other one is well");
        check_totals(&shelf, &store, 1, 1000);
        put(&store, &content);
        let report = scrub(&store);
        assert_eq!(
            (report.artifacts, report.damaged.len(), report.mended, report.orphans),
            (2, 0, 0, 0),
            "{name}"
        );
    }
}

fn flip(path: &Path) {
    let mut content = std::fs::read(path).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(path, content).unwrap();
}

#[test]
fn a_record_of_garbage_costs_a_fetch() {
    for garbage in [&b""[..], b"\xff", b"\xa0", b"not CBOR at all"] {
        let shelf = Shelf::new();
        let (content, other) = (random_bytes(1, 3 << 20), random_bytes(2, 1000));
        let harm = || {
            let store = shelf.open();
            let sha256 = put(&store, &content);
            put(&store, &other);
            drop(store);
            shelf.index("artifacts", |k| k.insert(sha256.0, garbage).unwrap());
            sha256
        };
        let sha256 = harm();
        let store = shelf.open();
        assert!(store.load(&sha256.digest()).unwrap().is_none(), "{garbage:?}: it will be fetched again");
        check_totals(&shelf, &store, 1, 1000);
        drop(store);

        harm();
        let store = shelf.open();
        put(&store, &content);
        assert!(
            all(&store.load(&sha256.digest()).unwrap().unwrap()) == content,
            "{garbage:?}: stored over it"
        );
        check_totals(&shelf, &store, 2, 1000 + content.len() as u64);
        drop(store);

        harm();
        let store = shelf.open();
        let report = scrub(&store);
        assert_eq!((report.damaged.len(), report.damaged[0].sha256), (1, sha256), "{garbage:?}");
        check_totals(&shelf, &store, 1, 1000);
        let report = scrub(&store);
        assert_eq!((report.artifacts, report.damaged.len(), report.mended, report.orphans), (1, 0, 0, 0));
        drop(store);

        harm();
        let store = shelf.open();
        assert_eq!(store.evict_to(0).unwrap().artifacts, 2, "{garbage:?}: it does not stop an eviction");
        check_totals(&shelf, &store, 0, 0);
    }
}

#[test]
fn what_leads_to_an_artifact_is_mended() {
    let shelf = Shelf::new();
    let content = random_bytes(1, 3 << 20);
    let store = shelf.open();
    let sha256 = put(&store, &content);
    drop(store);
    let clear = |k: &fjall::Keyspace| {
        let keys: Vec<_> = k.iter().map(|g| g.key().unwrap()).collect();
        keys.iter().for_each(|key| k.remove(key.clone()).unwrap());
        keys.len() as u64
    };
    let mut missing = 0;
    for keyspace in ["blocks", "aliases", "access"] {
        missing += shelf.index(keyspace, clear);
    }
    assert_eq!(missing, 3 + 1 + 1 + 1, "leaves, root, alias, access time");
    shelf.index("meta", |k| k.remove("totals").unwrap());
    // And entries that lead nowhere.
    shelf.index("blocks", |k| k.insert([7; 64], b"?").unwrap());
    shelf.index("blocks", |k| k.insert([7; 3], b"?").unwrap());
    shelf.index("aliases", |k| k.insert("md5\0?", [7; 32]).unwrap());
    shelf.index("access", |k| k.insert([7; 32], [0; 8]).unwrap());

    let store = shelf.open();
    assert!(store.load(&sha512(&content)).unwrap().is_none());
    let report = scrub(&store);
    assert_eq!((report.damaged.len(), report.mended), (0, missing + 4 + 1), "{report:?}");
    assert!(store.load(&sha512(&content)).unwrap().is_some());
    assert_eq!(store.artifact_of_block(&facts(&content).layout.leaves[2]).unwrap(), Some(sha256));
    check_totals(&shelf, &store, 1, content.len() as u64);
    assert_eq!(scrub(&store).mended, 0);
}

#[test]
fn files_that_nothing_names_are_swept() {
    let shelf = Shelf::new();
    let store = shelf.open();
    let sha256 = put(&store, &random_bytes(1, 1000));
    let orphan = shelf.object(&Sha256::of(b"orphan"));
    for path in [orphan.clone(), orphan.with_file_name("junk")] {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "?").unwrap();
    }
    assert_eq!(store.sweep().unwrap(), 2);
    assert_eq!(store.sweep().unwrap(), 0);
    assert_eq!(files(&shelf.dir.path().join("objects")), [shelf.object(&sha256)]);

    let half = store.begin(None).unwrap();
    half.write(b"half", 0).unwrap();
    let incoming = shelf.dir.path().join("incoming");
    assert_eq!(files(&incoming).len(), 1);
    drop(half);
    assert_eq!(files(&incoming).len(), 0, "dropped without a commit");
    std::fs::write(incoming.join("1-1"), "half").unwrap();
    drop(store);
    shelf.open();
    assert_eq!(files(&incoming).len(), 0, "left by an earlier run");
}

#[test]
fn a_scrub_may_be_stopped_and_a_store_used_meanwhile() {
    let shelf = Shelf::new();
    let store = shelf.open();
    let digests: Vec<_> = (0..20).map(|n| put(&store, &random_bytes(n, 10_000))).collect();
    let report = store.scrub(|r| r.artifacts < 5).unwrap();
    assert_eq!(report.artifacts, 5);
    // Everything is removed and something is added after the scrub has begun.
    let report = store
        .scrub(|r| {
            if r.artifacts == 1 {
                digests.iter().for_each(|d| assert!(store.remove(d).unwrap().is_some()));
                put(&store, &random_bytes(99, 500));
            }
            true
        })
        .unwrap();
    assert_eq!(report.damaged, [], "what was removed is not damaged");
    check_totals(&shelf, &store, 1, 500);
}

#[test]
fn one_process_at_a_time() {
    let shelf = Shelf::new();
    let store = shelf.open();
    let Err(e) = shelf.try_open() else { panic!("opened twice") };
    assert!(matches!(e, StoreError::Locked), "{e}");
    assert_eq!(
        e.to_string(),
        "another dpm has this data folder open; stop it first, or choose another with --data"
    );
    drop(store);
    shelf.open();
}

#[test]
fn other_formats_are_refused() {
    // The `format` file's text, and what the error says; nothing where the store opens.
    let cases = [
        ("dpm-store 1\n", ""),
        ("dpm-store 2\n", "has disk format 2, this dpm reads up to 1: use the newer dpm"),
        ("dpm-store 4294967295\n", "has disk format 4294967295"),
        ("dpm-store x\n", "is not a dpm data folder"),
        ("", "is not a dpm data folder"),
        ("some other program\n", "is not a dpm data folder"),
    ];
    for (text, error) in cases {
        let shelf = Shelf::new();
        std::fs::write(shelf.dir.path().join("format"), text).unwrap();
        match shelf.try_open() {
            Ok(_) => assert_eq!(error, "", "{text:?}"),
            Err(e) => {
                assert!(!error.is_empty() && e.to_string().contains(error), "{text:?}: {e}");
                assert!(!shelf.dir.path().join("index").exists(), "{text:?}: nothing was touched");
            }
        }
    }
}

/// What [`write_fixture`] put into a store, and what each later version must find there.
fn fixture_contents() -> [Vec<u8>; 3] {
    [random_bytes(1, 1_000), random_bytes(2, 1), random_bytes(3, 0)]
}

/// A store of an older version is a file: CBOR of path → (length, bytes without trailing zeros), gzipped.
/// fjall's journals are 64 MiB of nearly nothing.
type Packed = BTreeMap<String, (u64, minicbor::bytes::ByteVec)>;

#[test]
fn stores_of_older_versions_are_read() {
    let packed = include_bytes!("../fixtures/store-v1.cbor.gz");
    let mut cbor = Vec::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut cbor).unwrap();
    let packed: Packed = minicbor::decode(&cbor).unwrap();
    let shelf = Shelf::new();
    for (path, (length, content)) in &packed {
        let path = shelf.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &content[..]).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(*length).unwrap();
    }
    let store = shelf.open();
    let contents = fixture_contents();
    for content in &contents {
        let stored = store.load(&sha512(content)).unwrap().expect("it is stored");
        assert!(all(&stored) == *content);
        assert_eq!(stored.stored_at.0, 1_000);
    }
    let description = store.describe(&Sha256::of(&contents[0]).digest()).unwrap().unwrap();
    assert_eq!(
        (
            description.upstream.as_str(),
            description.filename.as_str(),
            description.pinned,
            description.private
        ),
        ("pypi", "demo.whl", true, false)
    );
    assert_eq!(description.url, "http://127.0.0.1/f/demo.whl");
    assert_eq!(store.name("first-use\0demo").unwrap().as_deref(), Some(&b"sha256:00"[..]));
    let page = store.page("pypi/demo").unwrap().unwrap();
    assert_eq!((page.head.checked_at, page.head.found, page.body), (7, true, b"{}".repeat(100)));
    assert!(!store.page("pypi/absent").unwrap().unwrap().head.found);
    let report = scrub(&store);
    assert_eq!(
        (report.artifacts, report.bytes, report.damaged.len(), report.mended),
        (3, 1_001, 0, 0),
        "{report:?}"
    );
}

/// Writes the fixture of the present format: `cargo test --test it write_fixture -- --ignored`, once a version.
#[test]
#[ignore = "writes into the source tree"]
fn write_fixture() {
    let shelf = Shelf::new();
    let store = shelf.open();
    let contents = fixture_contents();
    for content in &contents {
        put(&store, content);
    }
    store.pin(&Sha256::of(&contents[0]), true).unwrap();
    store.set_name("first-use\0demo", b"sha256:00").unwrap();
    let head = PageHead { upstream: "pypi".into(), checked_at: 7, found: true, ..PageHead::default() };
    store.set_page("pypi/demo", &Page { head, body: b"{}".repeat(100) }).unwrap();
    store.set_page("pypi/absent", &Page { head: PageHead::default(), body: Vec::new() }).unwrap();
    store.close().unwrap();
    drop(store);
    let mut packed = Packed::new();
    for path in files(shelf.dir.path()) {
        let mut content = std::fs::read(&path).unwrap();
        let length = content.len() as u64;
        let end = content.iter().rposition(|b| *b != 0).map_or(0, |n| n + 1);
        content.truncate(end);
        let name = path.strip_prefix(shelf.dir.path()).unwrap().to_str().unwrap().to_owned();
        packed.insert(name, (length, content.into()));
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&minicbor::to_vec(&packed).unwrap()).unwrap();
    let version = std::fs::read_to_string(shelf.dir.path().join("format")).unwrap();
    let version = version.trim().rsplit(' ').next().unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("store-v{version}.cbor.gz")), gzip.finish().unwrap()).unwrap();
}
