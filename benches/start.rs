//! From the start of `dpm serve` to its first answer, with many artifacts stored: `cargo bench --bench start`.
//!
//! `DPM_MANY=N` sets how many (100,000), `DPM_DIR=DIR` where (a temporary folder; a tmpfs fills it faster).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dpm::base::{Access, Sha256};
use dpm::rt::Clock;
use dpm::store::{Budget, Facts, Options, Store};
use dpm::unixfs::LayoutBuilder;

const PORT: u16 = 3943;

fn main() {
    let many = std::env::var("DPM_MANY").map_or(100_000, |n| n.parse().expect("a number"));
    let base = std::env::var_os("DPM_DIR").map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(base).expect("a folder");
    start("an empty folder", dir.path());
    let begun = Instant::now();
    fill(dir.path(), many);
    println!("{many} artifacts stored in {:.1} s", begun.elapsed().as_secs_f64());
    for _ in 0..5 {
        start("all of them", dir.path());
    }
}

fn fill(dir: &Path, many: u64) {
    let options = Options { budget: Budget::Bytes(1 << 50), free_margin_bytes: 0, clock: Clock::System };
    let store = Store::open(dir, options).expect("a store");
    for n in 0..many {
        let bytes = n.to_le_bytes();
        let mut layout = LayoutBuilder::default();
        layout.update(&bytes);
        let incoming = store.begin(Some(bytes.len() as u64)).expect("room");
        incoming.write(&bytes, 0).expect("a write");
        let facts = Facts {
            sha256: Sha256::of(&bytes),
            digests: Vec::new(),
            layout: layout.finish(),
            access: Access::Public,
            upstream: "pypi".into(),
            url: format!("https://files.example.org/packages/demo-{n}.0-py3-none-any.whl"),
            filename: format!("demo-{n}.0-py3-none-any.whl"),
            pin_name: None,
        };
        store.commit(incoming, facts).expect("a commit");
    }
    store.close().expect("durable");
}

/// fjall reads its journal, up to 64 MB of it, however the node was stopped.
fn spawn(dir: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_dpm"))
        .args(["serve", "--upstream", "pypi=http://127.0.0.1:1/simple/", "--offline"])
        .args(["--listen", &format!("127.0.0.1:{PORT}"), "--data"])
        .arg(dir)
        .stderr(Stdio::null())
        .spawn()
        .expect("dpm starts")
}

fn first_answer(begun: Instant) -> Duration {
    while begun.elapsed() < Duration::from_secs(60) {
        let answered = TcpStream::connect(("127.0.0.1", PORT)).and_then(|mut socket| {
            socket.write_all(b"GET /healthz HTTP/1.1\r\nhost: dpm\r\nconnection: close\r\n\r\n")?;
            let mut answer = String::new();
            socket.read_to_string(&mut answer)?;
            Ok(answer)
        });
        if answered.is_ok_and(|a| a.starts_with("HTTP/1.1 200")) {
            return begun.elapsed();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no answer in a minute");
}

/// Starts a node, prints how long its first answer took and what it holds, stops it cleanly.
fn start(what: &str, dir: &Path) {
    let begun = Instant::now();
    let mut node = spawn(dir);
    let took = first_answer(begun);
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.id())).unwrap_or_default();
    let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap_or(" ?").trim().to_owned();
    println!("{what}: first answer after {} ms, RSS {rss}", took.as_millis());
    Command::new("kill").arg(node.id().to_string()).status().expect("kill");
    node.wait().expect("it ends");
}
