//! The parts of a request, each by itself: `cargo bench`. Figures and machine: `benches/BASELINE.md`.

use divan::Bencher;
use divan::counter::BytesCount;

use dpm::base::{Access, Algorithm, Hasher, Sha256, raw_cid};
use dpm::eco::pypi::{self, Form, Project, ProjectName};
use dpm::rt::Clock;
use dpm::store::{Budget, Facts, Options, Store};
use dpm::unixfs::LayoutBuilder;
use dpm::wire::bitswap::Prefix;

const BLOCK_BYTES: usize = 1 << 20;

fn main() {
    divan::main();
}

/// A project page of `files` files as an index sends it (PEP 691).
fn page(files: usize) -> Vec<u8> {
    let files: Vec<_> = (0..files)
        .map(|n| {
            let sha256 = Sha256::of(&n.to_le_bytes());
            serde_json::json!({
                "filename": format!("demo-{n}.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl"),
                "url": format!("https://files.example.org/packages/{}/demo-{n}.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", sha256.hex()),
                "hashes": {"sha256": sha256.hex()}, "requires-python": ">=3.9", "size": 12_345_678,
                "upload-time": "2026-01-02T03:04:05.678901Z", "yanked": false, "core-metadata": {"sha256": sha256.hex()},
            })
        })
        .collect();
    let page = serde_json::json!({"meta": {"api-version": "1.1"}, "name": "demo", "files": files});
    serde_json::to_vec(&page).expect("JSON")
}

fn parsed(files: usize) -> Project {
    let url = "https://index.example.org/simple/demo/".parse().expect("a URL");
    let name = ProjectName::normalise("demo").expect("a name");
    pypi::parse(Some("application/vnd.pypi.simple.v1+json"), &page(files), &url, &name).expect("a page")
}

const SIZES: [usize; 2] = [40, 4400];

#[divan::bench(args = SIZES)]
fn parse_page(bencher: Bencher, files: usize) {
    let body = page(files);
    let url = "https://index.example.org/simple/demo/".parse().expect("a URL");
    let name = ProjectName::normalise("demo").expect("a name");
    bencher
        .counter(BytesCount::of_slice(&body))
        .bench(|| pypi::parse(Some("application/vnd.pypi.simple.v1+json"), &body, &url, &name));
}

#[divan::bench(args = SIZES)]
fn read_stored_page(bencher: Bencher, files: usize) {
    let stored = parsed(files).to_stored();
    bencher.counter(BytesCount::of_slice(&stored)).bench(|| Project::from_stored(&stored));
}

#[divan::bench(args = SIZES)]
fn render_json(bencher: Bencher, files: usize) {
    let project = parsed(files);
    bencher.bench(|| pypi::render(&project, Form::Json));
}

#[divan::bench(args = SIZES)]
fn render_html(bencher: Bencher, files: usize) {
    let project = parsed(files);
    bencher.bench(|| pypi::render(&project, Form::LegacyHtml));
}

const FILE_BYTES: usize = 16 << 20;

/// What a download is hashed with: the whole, and every leaf of its layout.
#[divan::bench]
fn verify_pass(bencher: Bencher) {
    let bytes = vec![7_u8; FILE_BYTES];
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| {
        let (mut whole, mut layout) = (Hasher::new(Algorithm::Sha256), LayoutBuilder::default());
        for part in bytes.chunks(128 << 10) {
            whole.update(part);
            layout.update(part);
        }
        (whole.finish(), layout.finish().tree())
    });
}

/// The baseline of [`verify_pass`].
#[divan::bench]
fn plain_sha256(bencher: Bencher) {
    let bytes = vec![7_u8; FILE_BYTES];
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| Sha256::of(&bytes));
}

/// A block of 1 MiB held against its CID, as bitswap does: beside [`block_plain_sha256`].
#[divan::bench]
fn block_against_its_cid(bencher: Bencher) {
    let bytes = vec![7_u8; BLOCK_BYTES];
    let cid = raw_cid(Sha256::of(&bytes));
    let prefix = Prefix::of(&cid);
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| prefix.cid(&bytes).is_ok_and(|got| got == cid));
}

/// The baseline of [`block_against_its_cid`].
#[divan::bench]
fn block_plain_sha256(bencher: Bencher) {
    let bytes = vec![7_u8; BLOCK_BYTES];
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| Sha256::of(&bytes));
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a folder");
    let options = Options { budget: Budget::Bytes(1 << 40), free_margin_bytes: 0, clock: Clock::System };
    let store = Store::open(dir.path(), options).expect("a store");
    (dir, store)
}

fn put(store: &Store, n: u64) -> Sha256 {
    let bytes = [n.to_le_bytes().as_slice(), &[0; 8192]].concat();
    let mut layout = LayoutBuilder::default();
    layout.update(&bytes);
    let sha256 = Sha256::of(&bytes);
    let incoming = store.begin(Some(bytes.len() as u64)).expect("room");
    incoming.write(&bytes, 0).expect("a write");
    let facts = Facts {
        sha256,
        digests: Vec::new(),
        layout: layout.finish(),
        access: Access::Public,
        upstream: "pypi".into(),
        url: "https://files.example.org/demo.whl".into(),
        filename: "demo.whl".into(),
        pin_name: None,
    };
    store.commit(incoming, facts).expect("a commit");
    sha256
}

/// Durable, the file and its record: the disk's own speed is most of it.
#[divan::bench(sample_count = 50)]
fn store_commit(bencher: Bencher) {
    let (_dir, store) = store();
    let n = std::cell::Cell::new(0);
    bencher.bench_local(|| {
        n.set(n.get() + 1);
        put(&store, n.get())
    });
}

/// From the open files in memory.
#[divan::bench]
fn store_peek(bencher: Bencher) {
    let (_dir, store) = store();
    let sha256 = put(&store, 0);
    bencher.bench(|| store.peek(&sha256).expect("open"));
}

/// From the index and the disk: 300 artifacts in turn, more than are kept open.
#[divan::bench]
fn store_load(bencher: Bencher) {
    let (_dir, store) = store();
    let all: Vec<_> = (0..300).map(|n| put(&store, n).digest()).collect();
    let n = std::cell::Cell::new(0);
    bencher.bench_local(|| {
        n.set((n.get() + 1) % all.len());
        store.load(&all[n.get()]).expect("a look").expect("stored")
    });
}
