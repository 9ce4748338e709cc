//! An office: nodes on a switch whose ports are limited, one artifact that all of them want, an upstream behind a port
//! of its own. `cargo bench --bench office`, as root or under `unshare -Urm`; needs `ip`, `tc` and `nsenter`.
//!
//! `DPM_RATES=100,200` Mbit/s of every port, `DPM_NODES=8`, `DPM_MIB=256`, `DPM_ROUNDS=1`, `DPM_PARTS=one,with,without`, `DPM_DIR` (`/dev/shm`),
//! `DPM_BIN` (another `dpm`), `DPM_LOGS` (a folder for what the nodes log), `DPM_AS=layer` (of an image, whose manifest is
//! asked for first; else `wheel`).

#[path = "../tests/it/support/network.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is shared with tests, which use more of it")]
mod network;
#[path = "../tests/it/support/wait.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is shared with tests, which use more of it")]
mod wait;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dpm::base::{Algorithm, Hasher, Sha256};
use network::{Machine, Network};
use wait::until;

/// Where each node answers its clients, which are on its own machine.
const DOOR: &str = "127.0.0.1:3141";
const UPSTREAM: &str = "10.7.0.100:8000";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Until this much of a machine's CPU time is used, the ports are what is measured.
const BUSY: f64 = 0.8;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["upstream", bytes] => upstream(bytes.parse().expect("a number")),
        ["take", url] => take(url),
        ["take", url, before] => {
            let mut head = get(before);
            std::io::copy(&mut head.1, &mut std::io::sink()).expect("a manifest");
            take(url);
        }
        _ => office(),
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn office() {
    let rates = std::env::var("DPM_RATES").unwrap_or_else(|_| "100,200".into());
    let (nodes, bytes) = (number("DPM_NODES", 8), number("DPM_MIB", 256) << 20);
    let sha256 = hash(bytes);
    for rate in rates.split(',').map(|rate| rate.parse::<u64>().expect("Mbit/s")) {
        for _ in 0..number("DPM_ROUNDS", 1) {
            round(rate, nodes, bytes, &sha256);
        }
    }
}

/// One transfer from peer to peer, then all at once: with one that has it, and with none.
fn round(rate: u64, nodes: u64, bytes: u64, sha256: &str) {
    println!("{nodes} nodes, {} MiB, ports of {rate} Mbit/s", bytes >> 20);
    let parts = std::env::var("DPM_PARTS").unwrap_or_else(|_| "one,with,without".into());
    let part = |name: &str| parts.split(',').any(|part| part == name);
    let one = if part("one") {
        let office = Office::open(rate, 2, bytes, sha256);
        office.fetch("from upstream, alone", 0..1, 0);
        office.settle(0);
        office.fetch("from peer to peer, alone", 1..2, 1)
    } else {
        f64::NAN
    };
    let all = usize::try_from(nodes).expect("a number of nodes");
    if part("with") {
        let office = Office::open(rate, all, bytes, sha256);
        office.fetch("first", 0..1, 0);
        office.settle(0);
        let took = office.fetch(&format!("{} ask at once, one has it", all - 1), 1..all, all - 1);
        println!("  = {:.2} x one transfer from peer to peer", took / one);
    }
    if part("without") {
        let office = Office::open(rate, all, bytes, sha256);
        let took = office.fetch(&format!("{all} ask at once, none has it"), 0..all, all - 1);
        println!("  = {:.2} x one transfer from peer to peer", took / one);
    }
}

/// The machines of one measurement.
struct Office {
    /// Killed first.
    stations: Vec<Station>,
    source: Child,
    source_machine: Machine,
    _network: Network,
    _dir: tempfile::TempDir,
    bytes: u64,
    path: String,
    /// Asked for before.
    before: Option<String>,
}

/// A node.
struct Station {
    node: Child,
    machine: Machine,
    data: PathBuf,
}

impl Office {
    fn open(rate: u64, nodes: usize, bytes: u64, sha256: &str) -> Self {
        let base = std::env::var_os("DPM_DIR").map_or_else(|| "/dev/shm".into(), PathBuf::from);
        let dir = tempfile::tempdir_in(base).expect("a folder");
        let network = Network::start().expect("network namespaces");
        let machine = |number: usize| {
            let machine = network.machine(&[&format!("10.7.0.{number}/24")]);
            network.limit(&machine, rate * 1_000_000);
            machine
        };
        let source_machine = machine(100);
        let mut source = again(&source_machine, &["upstream", &bytes.to_string()]);
        let mut ready = String::new();
        let said = source.stdout.take().expect("it is piped");
        BufReader::new(said).read_line(&mut ready).expect("the upstream is ready");
        let stations: Vec<_> =
            (1..=nodes).map(|k| Station::start(machine(k), dir.path().join(format!("{k}")))).collect();
        for node in &stations {
            until("the nodes have found each other", || node.number("dpm_peers") as usize >= nodes - 1);
        }
        // Who is connected has yet to say what it is, and what it has.
        std::thread::sleep(Duration::from_secs(1));
        let layer = std::env::var("DPM_AS").is_ok_and(|kind| kind == "layer");
        let path = match layer {
            true => format!("/v2/bench/app/blobs/sha256:{sha256}"),
            false => format!("/pypi/files/demo/sha256-{sha256}/demo-1.0-py3-none-any.whl"),
        };
        let before = layer.then(|| format!("http://{DOOR}/v2/bench/app/manifests/1"));
        Self { stations, source, source_machine, _network: network, _dir: dir, bytes, path, before }
    }

    /// Waits until a node has stored what it has, and has told everybody.
    fn settle(&self, k: usize) {
        let artifacts = 1 + u64::from(self.before.is_some());
        until("it is stored", || self.stations[k].number("dpm_store_artifacts") == artifacts);
        std::thread::sleep(Duration::from_secs(2));
    }

    /// These ask at once. Gives how many seconds the last one took.
    fn fetch(&self, what: &str, who: std::ops::Range<usize>, from_peers: usize) -> f64 {
        let url = format!("http://{DOOR}{}", self.path);
        let words: Vec<_> = ["take", &url].into_iter().chain(self.before.as_deref()).collect();
        let busy = |s: &Station| (s.cpu(), s.machine.carried());
        let before: Vec<_> = self.stations.iter().map(busy).collect();
        let (_, source_before) = self.source_machine.carried();
        let machine_before = machine_busy();
        let mut clients: Vec<_> = who.clone().map(|k| again(&self.stations[k].machine, &words)).collect();
        // They wait for a word, so that all ask within a millisecond.
        std::thread::sleep(Duration::from_millis(300));
        let begun = Instant::now();
        for client in &mut clients {
            client.stdin.take().expect("it is piped").write_all(b"go\n").expect("it listens");
        }
        let mut took: Vec<(f64, String, String)> = Vec::new();
        for client in clients {
            let output = client.wait_with_output().expect("a client ends");
            let text = String::from_utf8(output.stdout).expect("text");
            let words: Vec<_> = text.split_whitespace().collect();
            let [seconds, cache, sha256] = words[..] else { panic!("a client said {text:?}") };
            took.push((seconds.parse().expect("seconds"), cache.into(), sha256.into()));
        }
        let whole = begun.elapsed();
        assert!(took.iter().all(|(_, _, sha256)| self.path.contains(sha256)), "other bytes: {took:?}");
        let caches = |name: &str| took.iter().filter(|(_, cache, _)| cache == name).count();
        let last = took.iter().map(|(seconds, ..)| *seconds).fold(0.0, f64::max);
        let first = took.iter().map(|(seconds, ..)| *seconds).fold(f64::MAX, f64::min);
        let (_, source_after) = self.source_machine.carried();
        let egress = (source_after - source_before) as f64 / self.bytes as f64;
        let used = (machine_busy() - machine_before) / whole.as_secs_f64() / cores();
        println!(
            "{what}: last after {last:.2} s, first after {first:.2} s; {} MISS, {} PEER; upstream sent {egress:.3} x",
            caches("MISS"),
            caches("PEER"),
        );
        if caches("PEER") != from_peers {
            println!("  ! {from_peers} should have had it from peers");
        }
        for (k, (node, (cpu, (received, sent)))) in self.stations.iter().zip(before).enumerate() {
            let (to, from) = node.machine.carried();
            let part = |n: u64| n as f64 / self.bytes as f64;
            println!(
                "  node {k}: received {:.3} x, sent {:.3} x; CPU {:.2} s, peak RSS {} MiB; chunks sent elsewhere {}, came again {}",
                part(to - received),
                part(from - sent),
                node.cpu() - cpu,
                node.peak_mib(),
                node.number("dpm_near_elsewhere_total"),
                node.number("dpm_near_again_bytes_total") >> 20,
            );
        }
        let verdict = if used > BUSY { ": CPU WAS THE LIMIT" } else { "" };
        println!("  the machine's cores were {:.0} % busy{verdict}", used * 100.0);
        last
    }
}

impl Drop for Office {
    fn drop(&mut self) {
        let _ = self.source.kill();
        let _ = self.source.wait();
    }
}

impl Station {
    fn start(machine: Machine, data: PathBuf) -> Self {
        let bin = std::env::var_os("DPM_BIN").map_or_else(|| env!("CARGO_BIN_EXE_dpm").into(), PathBuf::from);
        std::fs::create_dir_all(&data).expect("a folder");
        let config = data.join("dpm.toml");
        let text = format!(
            "listen = \"{DOOR}\"\ndata = \"store\"\n[[pypi]]\nurl = \"http://{UPSTREAM}/simple/\"\nprivate = false\n\
             [[oci]]\nurl = \"http://{UPSTREAM}/\"\nroot = true\n"
        );
        std::fs::write(&config, text).expect("a configuration");
        let log = match std::env::var_os("DPM_LOGS") {
            Some(dir) => Path::new(&dir).join(format!("node-{}.log", machine.number)),
            None => data.join("log"),
        };
        let log = std::fs::File::create(log).expect("a log");
        let mut command = machine.command(bin);
        command.arg("serve").arg("--config").arg(&config).stdin(Stdio::null()).stderr(log);
        let node = command.spawn().expect("dpm starts");
        let node = Self { node, machine, data };
        until("a node answers", || node.data.join("store/control.sock").exists());
        node
    }

    /// A value of its `/metrics`.
    fn number(&self, name: &str) -> u64 {
        let output = self
            .machine
            .command("curl")
            .args(["-sf", &format!("http://{DOOR}/metrics")])
            .output()
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.parse().ok()).unwrap_or(0)
    }

    /// CPU seconds so far.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.node.id())).expect("it runs");
        let after = stat.rsplit(')').next().expect("a name");
        after.split_whitespace().skip(11).take(2).map(|n| n.parse::<f64>().expect("ticks")).sum::<f64>()
            / 100.0
    }

    fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.node.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") >> 10
    }
}

impl Drop for Station {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

/// Seconds that the cores of this machine were busy since its start, with whatever.
fn machine_busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").expect("/proc");
    let line = stat.lines().next().expect("a line");
    let ticks: Vec<f64> = line.split_whitespace().skip(1).map(|n| n.parse().expect("ticks")).collect();
    // user, nice, system, idle, iowait, irq, softirq
    ([0, 1, 2, 5, 6].iter().map(|n| ticks[*n]).sum::<f64>()) / 100.0
}

fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64)
}

/// This program again, on another machine.
fn again(machine: &Machine, words: &[&str]) -> Child {
    let mut command: Command = machine.command(std::env::current_exe().expect("a program"));
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs again")
}

/// A client: waits for a word, takes the file, says how long it took, how it came about, and what it was.
fn take(url: &str) {
    let mut word = String::new();
    std::io::stdin().read_line(&mut word).expect("a word");
    let begun = Instant::now();
    let (cache, mut answer) = get(url);
    let (mut hasher, mut buffer) = (Hasher::new(Algorithm::Sha256), vec![0; 256 << 10]);
    // A body that breaks off shows in its hash.
    while let Ok(n @ 1..) = answer.read(&mut buffer) {
        hasher.update(&buffer[..n]);
    }
    println!("{} {cache} {}", begun.elapsed().as_secs_f64(), hasher.finish().hex());
}

/// Asks; gives `X-Cache`, and the body.
fn get(url: &str) -> (String, BufReader<TcpStream>) {
    let (host, path) = url.strip_prefix("http://").and_then(|u| u.split_once('/')).expect("a URL");
    let mut socket = TcpStream::connect(host).expect("a node");
    write!(socket, "GET /{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").expect("it is sent");
    let mut answer = BufReader::with_capacity(256 << 10, socket);
    let mut cache = String::from("?");
    loop {
        let mut line = String::new();
        answer.read_line(&mut line).expect("a head");
        let line = line.trim_end();
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("x-cache")
        {
            cache = value.trim().into();
        }
        if line.is_empty() {
            return (cache, answer);
        }
    }
}

/// Bytes from `from` on of a file that repeats nowhere: each eight are a function of their place.
fn fill(from: u64, out: &mut [u8]) {
    for (n, bytes) in out.chunks_mut(8).enumerate() {
        let mut z = (from / 8 + n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z ^= z >> 27;
        bytes.copy_from_slice(&z.to_le_bytes()[..bytes.len()]);
    }
}

fn hash(bytes: u64) -> String {
    let (mut hasher, mut part) = (Hasher::new(Algorithm::Sha256), vec![0; 1 << 20]);
    for at in (0..bytes).step_by(part.len()) {
        fill(at, &mut part);
        hasher.update(&part);
    }
    hasher.finish().hex()
}

/// An upstream with one project.
fn upstream(bytes: u64) {
    let mut file = vec![0; usize::try_from(bytes).expect("memory for it")];
    fill(0, &mut file);
    let page = format!(
        r#"{{"meta":{{"api-version":"1.1"}},"name":"demo","files":[{{"filename":"demo-1.0-py3-none-any.whl","url":"http://{UPSTREAM}/f","hashes":{{"sha256":"{}"}},"size":{bytes}}}]}}"#,
        hash(bytes)
    );
    let config = Sha256::of(b"{}");
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/json","digest":"sha256:{config}","size":2}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:{}","size":{bytes}}}]}}"#,
        hash(bytes)
    );
    let listener = TcpListener::bind(UPSTREAM).expect("a port");
    println!("ready");
    let (file, page, manifest) = (&file, &page, &manifest);
    std::thread::scope(|scope| {
        for socket in listener.incoming().map_while(Result::ok) {
            // A client that goes away ends its thread, and nothing else.
            scope.spawn(move || drop(answer(socket, file, page, manifest)));
        }
    });
}

fn answer(socket: TcpStream, file: &[u8], page: &str, manifest: &str) -> std::io::Result<()> {
    let mut out = socket.try_clone()?;
    let mut lines = BufReader::new(socket).lines();
    while let Some(first) = lines.next() {
        let first = first?;
        let (is_head, is_page) = (first.starts_with("HEAD "), first.contains(" /simple/"));
        let is_manifest = first.contains("/manifests/");
        let (mut from, mut to) = (0, file.len());
        for line in lines.by_ref() {
            let line = line?.to_ascii_lowercase();
            if let Some((first, last)) = line.strip_prefix("range: bytes=").and_then(|r| r.split_once('-')) {
                from = first.parse().unwrap_or(0);
                to = last.parse().map_or(file.len(), |last: usize| (last + 1).min(file.len()));
            }
            if line.is_empty() {
                break;
            }
        }
        if is_page {
            let kind = "application/vnd.pypi.simple.v1+json";
            small(&mut out, kind, page, is_head)?;
            continue;
        }
        if is_manifest {
            small(&mut out, MANIFEST, manifest, is_head)?;
            continue;
        }
        let status = if to - from == file.len() { 200 } else { 206 };
        write!(
            out,
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\ncontent-range: bytes {from}-{}/{}\r\n\r\n",
            to - from,
            to - 1,
            file.len()
        )?;
        out.write_all(&file[from..to])?;
    }
    Ok(())
}

fn small(out: &mut TcpStream, kind: &str, text: &str, is_head: bool) -> std::io::Result<()> {
    let digest = Sha256::of(text.as_bytes());
    let head = format!(
        "HTTP/1.1 200 X\r\ncontent-type: {kind}\r\ndocker-content-digest: sha256:{digest}\r\ncontent-length: {}\r\n\r\n",
        text.len()
    );
    out.write_all(head.as_bytes())?;
    if is_head { Ok(()) } else { out.write_all(text.as_bytes()) }
}
