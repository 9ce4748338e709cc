//! What runs on a machine of the test's network: this very program again, as one of several parts.
//!
//! It says what happens in lines on its standard output, and ends when its standard input does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dpm::base::{Multiaddr, PeerId};
use dpm::lan::{Discovery, Limits, Options, ServiceOptions, Services, Sighting};
use dpm::rt::Executor;
use futures_lite::future::{block_on, or};

use crate::support::network::Machine;
use crate::support::{LIMIT, Random};

/// Names the part; unset in a test run of a person's.
const PART: &str = "DPM_TEST_PART";

/// A part that plays on a machine. Ended when dropped.
pub struct Role {
    child: Child,
    lines: Receiver<String>,
    /// What it has said, for a failure's message.
    said: Arc<Mutex<Vec<String>>>,
}

impl Role {
    /// Starts a part of ours there, with its settings.
    pub fn play(machine: &Machine, part: &str, settings: &[(&str, String)]) -> Self {
        let mut command = machine.command(std::env::current_exe().expect("this program"));
        command.args(["lan::role::plays", "--exact", "--nocapture", "--test-threads=1"]).env(PART, part);
        for (name, value) in settings {
            command.env(name, value);
        }
        Self::of(command)
    }

    /// Starts any program that says lines.
    pub fn of(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let (sender, lines) = sync_channel(4096);
        let said: Arc<Mutex<Vec<String>>> = Arc::default();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("piped")), Box::new(child.stderr.take().expect("piped"))];
        for stream in streams {
            let (sender, said) = (sender.clone(), said.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    said.lock().unwrap().push(line.clone());
                    // Ends when the test no longer listens.
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        Self { child, lines, said }
    }

    /// Waits until it says a line of which `find` makes something.
    #[track_caller]
    pub fn hear<T>(&self, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> T {
        let until = Instant::now() + LIMIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(found) = find(&line) {
                        return found;
                    }
                }
                Err(why) => {
                    let ended = if why == RecvTimeoutError::Disconnected { ", and it has ended" } else { "" };
                    let said = self.said.lock().unwrap().join("\n");
                    panic!("it never said {what}{ended}; it said:\n{said}");
                }
            }
        }
    }

    /// The next thing that it has said already of which `find` makes something.
    pub fn heard<T>(&self, mut find: impl FnMut(&str) -> Option<T>) -> Option<T> {
        self.lines.try_iter().find_map(|line| find(&line))
    }

    /// Waits until it says that it has met this peer, and gives the addresses of one sighting.
    #[track_caller]
    pub fn meets(&self, peer: PeerId) -> Vec<String> {
        self.hear(&format!("that it met {peer}"), |line| {
            let rest = line.strip_prefix("met ")?.strip_prefix(&peer.to_string())?;
            let (_, addresses) = rest.trim().split_once(' ')?;
            Some(addresses.split(' ').map(str::to_owned).collect())
        })
    }

    /// Waits until it has met this peer at each of these addresses.
    #[track_caller]
    pub fn meets_at(&self, peer: PeerId, addresses: &[&str]) {
        let mut missing: Vec<&str> = addresses.to_vec();
        while !missing.is_empty() {
            let seen = self.meets(peer);
            missing.retain(|address| !seen.iter().any(|s| s == address));
        }
    }

    /// Tells it something.
    pub fn tell(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("piped");
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("it listens");
    }

    /// The most memory that it has had, in bytes.
    pub fn peak_memory_bytes(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
    }

    /// Lets it end, and waits until it has, well.
    pub fn end(mut self) {
        drop(self.child.stdin.take());
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            if let Some(status) = self.child.try_wait().expect("a child") {
                assert!(status.success(), "{status}: {}", self.said.lock().unwrap().join("\n"));
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end; it said:\n{}", self.said.lock().unwrap().join("\n"));
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // Ended already, or ended now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A peer id that is nobody's.
pub fn peer(number: u64) -> PeerId {
    let mut bytes = vec![0x12, 32];
    bytes.extend(crate::support::random_bytes(number, 32));
    PeerId::from_bytes(&bytes).expect("a multihash")
}

/// Not a test: the other side of [`Role::play`].
#[test]
fn plays() {
    let Ok(part) = std::env::var(PART) else { return };
    // The harness has begun a line.
    say(format_args!(""));
    match part.as_str() {
        "discover" => discover(),
        "rust-libp2p" => rust_libp2p(),
        "publish" => publish(),
        "flood" => flood(),
        "ask" => ask(),
        "index" => index(),
        #[cfg(feature = "rooms")]
        "tunnel" => {
            crate::room::tunnel::plays(|| say(format_args!("listens")));
            stay();
        }
        other => panic!("no part {other}"),
    }
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

fn say(line: std::fmt::Arguments<'_>) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("somebody listens");
}

/// What is said on the standard input, line by line; closed at its end.
fn told() -> async_channel::Receiver<String> {
    let (sender, receiver) = async_channel::bounded(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.send_blocking(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// All addresses of this machine, as a swarm would say that it listens there.
fn listening(port: u16) -> Vec<Multiaddr> {
    let all = if_addrs::get_if_addrs().expect("interfaces");
    let text = |ip: std::net::IpAddr| match ip {
        std::net::IpAddr::V4(v4) => format!("/ip4/{v4}/udp/{port}/quic-v1"),
        std::net::IpAddr::V6(v6) => format!("/ip6/{v6}/udp/{port}/quic-v1"),
    };
    all.iter().map(|found| text(found.ip()).parse().expect("a multiaddr")).collect()
}

fn discover() {
    let (number, port) = (setting("PEER").expect("a number"), setting("PORT").unwrap_or(4001));
    let port = Arc::new(std::sync::atomic::AtomicU16::new(port));
    let executor = Executor::start(1).expect("a thread");
    let tasks = executor.tasks();
    let theirs = port.clone();
    let options = Options {
        peer: peer(number),
        addresses: Arc::new(move || match theirs.load(std::sync::atomic::Ordering::Relaxed) {
            0 => Vec::new(),
            port => listening(port),
        }),
        interfaces: Arc::new(|name| name != "no"),
        limits: Limits::default(),
    };
    let (discovery, sightings) = Discovery::start(options, &tasks).expect("it starts");
    // Whoever has found us dials: no answer is needed to know that.
    let socket = async_io::Async::<UdpSocket>::bind(([0, 0, 0, 0], 4001)).ok();
    let told = told();
    block_on(or(
        async {
            while let Ok(Sighting { peer, addresses, ttl }) = sightings.recv().await {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                let what = if ttl.is_zero() { "lost" } else { "met" };
                say(format_args!("{what} {peer} {} {}", ttl.as_secs(), addresses.join(" ")));
            }
        },
        async {
            let dialled = async {
                let (Some(socket), mut buffer) = (&socket, [0; 2048]) else {
                    return std::future::pending().await;
                };
                while let Ok((_, from)) = socket.recv_from(&mut buffer).await {
                    say(format_args!("dialled {from}"));
                }
            };
            let orders = async {
                while let Ok(line) = told.recv().await {
                    match line.split_once(' ') {
                        Some(("port", number)) => {
                            port.store(number.parse().expect("a port"), std::sync::atomic::Ordering::Relaxed);
                            discovery.refresh();
                        }
                        _ => say(format_args!("counts {:?}", discovery.counts())),
                    }
                }
            };
            or(orders, dialled).await;
        },
    ));
    block_on(discovery.stop());
    block_on(tasks.finish());
    assert_eq!(dpm::rt::panics(), 0);
}

/// rust-libp2p's own mDNS, as it is; only the swarm around it is left out.
fn rust_libp2p() {
    use libp2p::core::transport::ListenerId;
    use libp2p::swarm::behaviour::NewListenAddr;
    use libp2p::swarm::{FromSwarm, NetworkBehaviour, ToSwarm};
    use libp2p_mdns::{Config, Event, tokio::Behaviour};

    let enable_ipv6 = setting("IPV6").unwrap_or(false);
    let config = Config { enable_ipv6, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let told = told();
    runtime.block_on(async {
        let mut mdns = Behaviour::new(config, peer(setting("PEER").expect("a number"))).expect("it starts");
        for address in listening(4001) {
            let listener_id = ListenerId::next();
            mdns.on_swarm_event(FromSwarm::NewListenAddr(NewListenAddr { listener_id, addr: &address }));
        }
        let events = async {
            loop {
                let event = std::future::poll_fn(|cx| mdns.poll(cx)).await;
                if let ToSwarm::GenerateEvent(Event::Discovered(all)) = event {
                    for (peer, address) in all {
                        let text = address.to_string();
                        let (address, _) = text.split_once("/p2p/").expect("a peer");
                        say(format_args!("met {peer} 1 {address}"));
                    }
                }
            }
        };
        let end = async { while told.recv().await.is_ok() {} };
        or(events, end).await;
    });
}

/// A package index with the files of a folder, `NAME-VERSION…`. Told `refuse`, it gives its pages and no file; told
/// `asked`, it says how often files were asked for.
fn index() {
    use crate::support::{Fault, File, Upstream};
    use dpm::base::Sha256;
    let upstream = Upstream::start_at(&std::env::var("AT").expect("an address"));
    let folder = std::env::var("FILES").expect("a folder");
    let mut files: Vec<(String, Vec<u8>)> = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
        files.push((name, std::fs::read(path).expect("a file")));
    }
    let project = |file: &str| {
        let (name, _) = file.split_once('-').expect("NAME-VERSION");
        name.to_ascii_lowercase().replace(['_', '.'], "-")
    };
    let path = |file: &str| format!("/f/{file}");
    for (file, bytes) in &files {
        let name = project(file);
        let listed = files.iter().filter(|(other, _)| project(other) == name).map(|(other, bytes)| {
            serde_json::json!({
                "filename": other, "url": upstream.url(&path(other)), "size": bytes.len(),
                "hashes": {"sha256": Sha256::of(bytes).hex()},
            })
        });
        let page = serde_json::json!({
            "meta": {"api-version": "1.1"}, "name": name, "versions": [], "files": listed.collect::<Vec<_>>(),
        });
        upstream.serve(&format!("/simple/{name}/"), File::json(page.to_string()));
        upstream.serve(&path(file), File::new(bytes.clone()));
    }
    say(format_args!("serves {}", upstream.url("/simple/")));
    let told = told();
    block_on(async {
        while let Ok(line) = told.recv().await {
            match line.as_str() {
                "refuse" => {
                    for (file, bytes) in &files {
                        let refused = |_| Some(Fault::Says("403 Forbidden"));
                        upstream.faulty(&path(file), File::new(bytes.clone()), refused);
                    }
                    say(format_args!("refuses"));
                }
                _ => {
                    let asked: usize = files.iter().map(|(file, _)| upstream.hits(&path(file))).sum();
                    say(format_args!("asked {asked}"));
                }
            }
        }
    });
}

fn publish() {
    let executor = Executor::start(1).expect("a thread");
    let tasks = executor.tasks();
    let options = ServiceOptions {
        name: std::env::var("NAME").expect("a name"),
        port: setting("PORT").expect("a port"),
        instance: std::env::var("INSTANCE").expect("an instance"),
        apt: true,
    };
    let services = Services::publish(&options, &tasks).expect("they are published");
    let told = told();
    block_on(or(
        async {
            let mut last = String::new();
            loop {
                let name = services.name();
                if name != last {
                    say(format_args!("named {name}"));
                    last = name;
                }
                async_io::Timer::after(Duration::from_millis(50)).await;
            }
        },
        async { while told.recv().await.is_ok() {} },
    ));
    block_on(services.stop());
    block_on(tasks.finish());
}

/// Everything that a neighbour can send but must not.
fn flood() {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
    socket.set_multicast_ttl_v4(255).expect("a socket");
    let to = SocketAddr::from(([224, 0, 0, 251], 5353));
    let packets: u64 = setting("PACKETS").expect("a number");
    let mut random = Random::new(7);
    for number in 0..packets {
        let packet = match number % 4 {
            // Noise, short and as long as can be.
            0 => crate::support::random_bytes(number, usize::try_from(random.below(9000)).expect("small")),
            // A question that asks everybody to answer.
            1 => question(),
            // Peers that are not there, as many as fit.
            2 => crowd(number),
            // Something real with a byte changed.
            _ => {
                let mut packet = crowd(number);
                let at = usize::try_from(random.below(packet.len() as u64)).expect("small");
                packet[at] ^= 0x55;
                packet
            }
        };
        // A full queue loses some.
        let _ = socket.send_to(&packet, to);
    }
    say(format_args!("flooded"));
    stay();
}

/// Until the standard input ends.
fn stay() {
    let told = told();
    block_on(async { while told.recv().await.is_ok() {} });
}

/// Asks from a port of its own, as plain DNS clients do, and says who answers there.
fn ask() {
    let from: Ipv4Addr = setting("FROM").expect("an address");
    let socket = UdpSocket::bind((from, 0)).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
    socket.send_to(&question(), ("224.0.0.251", 5353)).expect("it is sent");
    let mut buffer = [0; 9000];
    match socket.recv_from(&mut buffer) {
        Ok((length, from)) => say(format_args!("answer {length} {from}")),
        Err(_) => say(format_args!("silence")),
    }
}

/// `_p2p._udp.local PTR`.
fn question() -> Vec<u8> {
    let mut packet = vec![0, 9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    packet.extend(b"\x04_p2p\x04_udp\x05local\0\0\x0c\0\x01");
    packet
}

/// An answer that names ten peers that are nobody.
fn crowd(number: u64) -> Vec<u8> {
    let mut text = Vec::new();
    for n in 0..10 {
        let string =
            format!("dnsaddr=/ip4/10.7.0.{}/udp/{}/quic-v1/p2p/{}", n + 100, n + 1, peer(number * 10 + n));
        text.push(u8::try_from(string.len()).expect("short"));
        text.extend(string.as_bytes());
    }
    let mut packet = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    packet.extend(b"\x01x\x04_p2p\x04_udp\x05local\0\0\x10\0\x01\0\0\x0e\x10");
    packet.extend(u16::try_from(text.len()).expect("short").to_be_bytes());
    packet.extend(text);
    packet
}
