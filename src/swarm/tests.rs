//! Real nodes on loopback.

use std::sync::Arc;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt, FutureExt, future::block_on};

use super::*;
use crate::base::{Multiaddr, PeerId};
use crate::rt::{Executor, Tasks};

/// Longest wait for anything here: generous, the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

const ECHO: &str = "/test/echo/1";

struct TestNode {
    swarm: Swarm,
    events: Events,
    tasks: Tasks,
    _executor: Arc<Executor>,
}

fn options() -> Options {
    Options {
        key: Identity::fresh(),
        listen: vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap()],
        protocols: vec![ECHO],
        agent: "dpm/test".into(),
        limits: Limits::default(),
        admit: Arc::new(|_, _| true),
    }
}

fn start(options: Options) -> TestNode {
    let executor = Arc::new(Executor::start(2).unwrap());
    let tasks = executor.tasks();
    let (swarm, events) = Swarm::start(options, &tasks).unwrap();
    TestNode { swarm, events, tasks, _executor: executor }
}

/// Waits with a limit.
async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let late = async {
        async_io::Timer::after(PATIENCE).await;
        panic!("{what} did not happen");
    };
    wait.or(late).await
}

/// Waits until `test` says yes.
async fn until(what: &str, mut test: impl FnMut() -> bool) {
    soon(what, async {
        while !test() {
            async_io::Timer::after(Duration::from_millis(10)).await;
        }
    })
    .await;
}

impl TestNode {
    fn peer(&self) -> PeerId {
        self.swarm.peer_id()
    }

    async fn address(&self) -> Multiaddr {
        until("listening", || !self.swarm.listeners().is_empty()).await;
        self.swarm.listeners()[0].clone()
    }

    fn knows(&self, peer: PeerId) -> Option<PeerInfo> {
        self.swarm.peers().into_iter().find(|p| p.peer == peer)
    }

    /// Connects to `other` and waits until both know.
    async fn connect(&self, other: &TestNode) {
        self.swarm.dial(other.peer(), vec![other.address().await]);
        until("a connection", || self.knows(other.peer()).is_some()).await;
        until("a connection back", || other.knows(self.peer()).is_some()).await;
    }

    async fn stop(self) {
        soon("stop", self.swarm.stop()).await;
        soon("the end of all tasks", self.tasks.finish()).await;
        assert_eq!(self.tasks.running(), 0);
    }
}

/// Answers every stream with what it says, until the swarm stops.
fn echo(node: &TestNode) {
    let swarm = node.swarm.clone();
    let tasks = node.tasks.clone();
    node.tasks.spawn(async move {
        while let Some((_, mut stream)) = swarm.accept(ECHO).await {
            tasks.spawn(async move {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
                let _ = stream.close().await;
            });
        }
    });
}

#[test]
fn two_nodes_meet_and_part() {
    block_on(async {
        let (a, b) = (start(options()), start(options()));
        echo(&b);
        a.connect(&b).await;
        let seen = || a.knows(b.peer()).unwrap();
        until("identify", || !seen().protocols.is_empty()).await;
        let info = seen();
        assert_eq!(info.agent, "dpm/test");
        for protocol in [ECHO, "/ipfs/id/1.0.0", "/ipfs/ping/1.0.0"] {
            assert!(info.protocols.iter().any(|p| p == protocol), "{protocol} in {:?}", info.protocols);
        }
        assert_eq!(info.addresses, [b.address().await]);
        assert!(info.rtt.is_some() && info.received_bytes > 0 && info.sent_bytes > 0);
        let mut stream = a.swarm.open(b.peer(), ECHO).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.close().await.unwrap();
        stream.close().await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        assert_eq!(said, "hello");
        drop(stream);
        let b_peer = b.peer();
        b.stop().await;
        until("b is missed", || a.knows(b_peer).is_none()).await;
        a.stop().await;
    });
}

#[test]
fn much_arrives_whole_both_ways_at_once() {
    const BYTES: usize = 64 << 20;
    // Not the same byte twice at one place of a chunk: a lost or doubled packet shows.
    let byte = |at: usize| (at.wrapping_mul(2_654_435_761) >> 13) as u8;
    block_on(async {
        let (a, b) = (start(options()), start(options()));
        echo(&b);
        a.connect(&b).await;
        let stream = a.swarm.open(b.peer(), ECHO).await.unwrap();
        let (mut reader, mut writer) = futures_lite::io::split(stream);
        let write = async {
            let mut at = 0;
            while at < BYTES {
                let chunk: Vec<u8> = (at..at + (1 << 20)).map(byte).collect();
                writer.write_all(&chunk).await.unwrap();
                at += chunk.len();
            }
            writer.close().await.unwrap();
        };
        let read = async {
            let (mut at, mut buffer) = (0, vec![0; 1 << 20]);
            while let count @ 1.. = reader.read(&mut buffer).await.unwrap() {
                assert!(buffer[..count].iter().enumerate().all(|(n, b)| *b == byte(at + n)), "at {at}");
                at += count;
            }
            assert_eq!(at, BYTES);
        };
        soon("64 MiB", futures_lite::future::zip(write, read)).await;
        a.stop().await;
        b.stop().await;
    });
}

#[test]
fn another_peer_at_the_address_is_refused() {
    block_on(async {
        let (a, b) = (start(options()), start(options()));
        let other = PeerId::random();
        a.swarm.dial(other, vec![b.address().await]);
        until("a failure", || a.swarm.sought().iter().any(|s| s.failures > 0)).await;
        let sought = &a.swarm.sought()[0];
        assert_eq!(sought.peer, other);
        let error = sought.error.clone().unwrap();
        assert!(error.contains(&format!("{} answered", b.peer())), "{error}");
        assert!(a.swarm.peers().is_empty());
        while let Ok(event) = a.events.try_recv() {
            assert!(matches!(event, Event::Listening(_)), "nobody was connected: {event:?}");
        }
        a.stop().await;
        b.stop().await;
    });
}

#[test]
fn a_peer_with_an_rsa_key_is_a_peer() {
    let mut key = include_bytes!("../../tests/fixtures/rsa-peer.pk8").to_vec();
    let key = libp2p_identity::Keypair::rsa_from_pkcs8(&mut key).unwrap();
    block_on(async {
        let a = start(options());
        let b = start(Options { key: Identity::from_keypair(key), ..options() });
        assert!(b.peer().to_string().starts_with("Qm"));
        echo(&a);
        echo(&b);
        a.connect(&b).await;
        for (from, to) in [(&a, &b), (&b, &a)] {
            let mut stream = from.swarm.open(to.peer(), ECHO).await.unwrap();
            stream.write_all(b"?").await.unwrap();
            stream.close().await.unwrap();
            assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 1);
        }
        a.stop().await;
        b.stop().await;
    });
}

#[test]
fn limits_hold_in_a_storm() {
    const DIALS: usize = 200;
    block_on(async {
        let limits = Limits { connections: 12, inbound: 8, per_address: 8, ..Limits::default() };
        let b = start(Options { limits, ..options() });
        let (address, peer) = (b.address().await, b.peer());
        let (socket, _) = socket_of(&address).unwrap();
        let tasks = b._executor.tasks();
        // Ten peers, each dialling twenty times at once.
        let peers: Vec<_> = (0..10)
            .map(|_| {
                Arc::new(raw::Raw::bind(&Identity::fresh(), ([127, 0, 0, 1], 0).into(), &tasks).unwrap())
            })
            .collect();
        let (done, results) = async_channel::bounded(DIALS);
        for n in 0..DIALS {
            let (raw, done) = (peers[n % peers.len()].clone(), done.clone());
            tasks.spawn(async move {
                let dialled = raw.dial(socket, Some(peer)).await;
                // Refused ones are closed by the other side at once; the others live until the test ends.
                let _ = done.send(dialled.ok()).await;
            });
        }
        let mut kept = Vec::new();
        for _ in 0..DIALS {
            kept.push(soon("a dial's end", results.recv()).await.unwrap());
            let open: usize = b.swarm.peers().iter().map(|p| p.addresses.len()).sum();
            assert!(open <= 8, "{open} connections");
            assert!(b.swarm.peers().iter().all(|p| p.addresses.len() <= 2));
        }
        drop(kept);
        until("the storm is over", || b.swarm.peers().is_empty()).await;
        // Whoever comes now is let in.
        let a = start(options());
        a.connect(&b).await;
        a.stop().await;
        for raw in &peers {
            soon("the end of a dialler", raw.close()).await;
        }
        tasks.cancel().await;
        b.stop().await;
    });
}

#[test]
fn where_a_peer_is_is_told_as_its_connections_come_and_go() {
    block_on(async {
        let b = start(options());
        let (socket, _) = socket_of(&b.address().await).unwrap();
        let (identity, tasks) = (Identity::fresh(), b._executor.tasks());
        let raw = raw::Raw::bind(&identity, ([127, 0, 0, 1], 0).into(), &tasks).unwrap();
        let next = async || loop {
            match soon("an event", b.events.recv()).await.unwrap() {
                Event::Connected { peer, address } => return (peer, vec![address]),
                Event::Moved { peer, addresses } => return (peer, addresses),
                Event::Disconnected { peer } => return (peer, Vec::new()),
                Event::Identified { .. } | Event::Listening(_) => {}
            }
        };
        let mut open = Vec::new();
        for count in [1, 2] {
            open.push(raw.dial(socket, Some(b.peer())).await.unwrap());
            let (peer, addresses) = next().await;
            assert_eq!((peer, addresses.len()), (identity.peer_id(), count));
        }
        for count in [1, 0] {
            drop(open.pop());
            let (peer, addresses) = next().await;
            assert_eq!((peer, addresses.len()), (identity.peer_id(), count));
        }
        soon("the end of the dialler", raw.close()).await;
        tasks.cancel().await;
        b.stop().await;
    });
}

#[test]
fn a_blocked_peer_is_refused_both_ways() {
    block_on(async {
        let (a, b) = (start(options()), start(options()));
        a.connect(&b).await;
        a.swarm.block(b.peer(), Duration::from_secs(3600));
        until("b is out", || a.knows(b.peer()).is_none() && b.knows(a.peer()).is_none()).await;
        a.swarm.dial(b.peer(), vec![b.address().await]);
        until("a does not dial", || a.swarm.sought().iter().any(|s| s.failures > 0)).await;
        assert_eq!(a.swarm.sought()[0].error.as_deref(), Some("no address of it may be dialled"));
        while b.events.try_recv().is_ok() {}
        b.swarm.dial(a.peer(), vec![a.address().await]);
        // From outside the handshake is done, and then the door closes.
        let parted = async { while !matches!(b.events.recv().await.unwrap(), Event::Disconnected { .. }) {} };
        soon("b is shown out", parted).await;
        assert!(a.swarm.peers().is_empty());
        a.stop().await;
        b.stop().await;
    });
}

#[test]
fn who_is_not_admitted_stays_out() {
    block_on(async {
        let a = start(options());
        let friend = a.peer();
        let admit = move |address: &Multiaddr, peer: &PeerId| {
            assert!(ip_of(address).is_some_and(|ip| ip.is_loopback()), "{address}");
            assert!(!address.to_string().contains("p2p"));
            *peer == friend
        };
        let b = start(Options { admit: Arc::new(admit), ..options() });
        let c = start(options());
        c.swarm.dial(b.peer(), vec![b.address().await]);
        let parted = async { while !matches!(c.events.recv().await.unwrap(), Event::Disconnected { .. }) {} };
        soon("c is shown out", parted).await;
        a.connect(&b).await;
        assert_eq!(b.swarm.peers().len(), 1);
        b.swarm.dial(c.peer(), vec![c.address().await]);
        until("b does not dial c", || b.swarm.sought().iter().any(|s| s.failures > 0)).await;
        for node in [a, b, c] {
            node.stop().await;
        }
    });
}

#[test]
fn a_kept_peer_that_restarts_is_found_again() {
    block_on(async {
        let (a, b) = (start(options()), start(options()));
        let (key, at) = (Identity::fresh(), a.address().await);
        a.stop().await;
        b.swarm.keep(key.peer_id(), vec![at.clone()]);
        until("nobody is there", || b.swarm.sought().iter().any(|s| s.failures > 0 && s.kept)).await;
        for _ in 0..2 {
            let a = start(Options { key: key.clone(), listen: vec![at.clone()], ..options() });
            until("it is found", || b.knows(key.peer_id()).is_some()).await;
            a.stop().await;
            until("it is missed", || b.knows(key.peer_id()).is_none()).await;
        }
        b.stop().await;
    });
}

#[test]
fn ipv6_and_wildcards() {
    block_on(async {
        let listen = ["/ip6/::1/udp/0/quic-v1", "/ip4/0.0.0.0/udp/0/quic-v1"].map(|a| a.parse().unwrap());
        let (a, b) = (start(Options { listen: listen.to_vec(), ..options() }), start(options()));
        until("both", || a.swarm.listeners().len() >= 2).await;
        let listeners = a.swarm.listeners();
        assert!(listeners.iter().all(|l| !socket_of(l).unwrap().0.ip().is_unspecified()), "{listeners:?}");
        let of =
            |ip: &str| listeners.iter().find(|l| ip_of(l) == Some(ip.parse().unwrap())).cloned().unwrap();
        // From a node that listens on IPv4 alone, by a socket of its own.
        b.swarm.dial(a.peer(), vec![of("::1")]);
        until("IPv6", || b.knows(a.peer()).is_some()).await;
        assert!(b.knows(a.peer()).unwrap().addresses[0].to_string().starts_with("/ip6/::1/udp/"));
        let c = start(options());
        c.swarm.dial(a.peer(), vec![of("127.0.0.1")]);
        until("IPv4", || a.knows(c.peer()).is_some()).await;
        // Dialled from the port that listens: a sees an address that it can dial.
        assert_eq!(a.knows(c.peer()).unwrap().addresses, [c.address().await]);
        c.swarm.disconnect(&a.peer());
        until("parted", || a.knows(c.peer()).is_none()).await;
        for node in [a, b, c] {
            node.stop().await;
        }
    });
}

#[test]
fn addresses_that_cannot_be_listened_on() {
    block_on(async {
        let a = start(options());
        let taken = a.address().await;
        let begin = |address: &str| {
            let listen = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse().unwrap(), address.parse().unwrap()];
            let tasks = a._executor.tasks();
            let error = Swarm::start(Options { listen, ..options() }, &tasks).err().unwrap();
            assert_eq!(tasks.running(), 0);
            error
        };
        assert!(matches!(begin(&taken.to_string()), SwarmError::PortTaken { .. }));
        assert!(matches!(begin("/ip4/127.0.0.1/tcp/4001"), SwarmError::Address { .. }));
        assert!(matches!(begin("/dns4/example.org/udp/1/quic-v1"), SwarmError::Address { .. }));
        assert!(matches!(begin("/ip4/192.0.2.1/udp/0/quic-v1"), SwarmError::Listen { .. }));
        a.stop().await;
    });
}

#[test]
fn streams_that_cannot_be_opened() {
    block_on(async {
        let (a, b) = (start(options()), start(options()));
        let nobody = PeerId::random();
        assert!(matches!(a.swarm.open(nobody, ECHO).await, Err(SwarmError::NotConnected { .. })));
        a.connect(&b).await;
        assert!(matches!(a.swarm.open(b.peer(), "/none/1").await, Err(SwarmError::Unsupported { .. })));
        let mut stream = a.swarm.open_at_once(b.peer(), "/none/1").await.unwrap();
        stream.write_all(b"?").await.unwrap();
        stream.flush().await.unwrap();
        assert!(soon("an error", stream.read(&mut [0; 1])).await.is_err());
        assert!(a.swarm.accept("/none/1").await.is_none());
        let waiting = a.swarm.accept(ECHO);
        let stop = async {
            async_io::Timer::after(Duration::from_millis(20)).await;
            a.swarm.stop().await;
        };
        let (accepted, ()) = soon("the end", futures_lite::future::zip(waiting, stop)).await;
        assert!(accepted.is_none());
        assert!(matches!(a.swarm.open(b.peer(), ECHO).await, Err(SwarmError::NotConnected { .. })));
        b.stop().await;
        a.stop().await;
    });
}

#[test]
fn a_stream_dropped_half_way_never_looks_whole() {
    block_on(async {
        let (a, b) = (start(options()), start(options()));
        a.connect(&b).await;
        for closes in [false, true] {
            let mut stream = a.swarm.open_at_once(b.peer(), ECHO).await.unwrap();
            stream.write_all(&[7; 1000]).await.unwrap();
            stream.flush().await.unwrap();
            let (from, mut other) = soon("a stream", b.swarm.accept(ECHO)).await.unwrap();
            assert_eq!(from, a.peer());
            if closes {
                stream.close().await.unwrap();
            }
            drop(stream);
            let mut all = Vec::new();
            let end = soon("its end", other.read_to_end(&mut all)).await;
            assert_eq!(end.is_ok(), closes, "{end:?}");
        }
        a.stop().await;
        b.stop().await;
    });
}

#[test]
fn a_flood_of_streams_is_cut_and_others_get_through() {
    block_on(async {
        let (a, b, c) = (start(options()), start(options()), start(options()));
        a.connect(&b).await;
        c.connect(&b).await;
        let mut open = Vec::new();
        for _ in 0..limits::WAITING_PER_PEER + 10 {
            // One that is dropped may be reset before it was seen to be open.
            match soon("a stream", a.swarm.open(b.peer(), ECHO)).await {
                Err(SwarmError::Open { .. }) => {}
                other => open.push(other.unwrap()),
            }
        }
        until("ten are dropped", || b.swarm.dropped_streams() == 10).await;
        open.push(c.swarm.open(b.peer(), ECHO).await.unwrap());
        let mut of_c = 0;
        for _ in 0..=limits::WAITING_PER_PEER {
            let (from, _) = soon("a stream", b.swarm.accept(ECHO)).await.unwrap();
            of_c += usize::from(from == c.peer());
        }
        assert_eq!(of_c, 1);
        for node in [a, b, c] {
            node.stop().await;
        }
    });
}

#[test]
fn a_request_is_heard_when_the_asker_reads_no_answer() {
    // As Kubo before 0.33: everything is sent at once, and the reading half is stopped before it brought anything.
    block_on(async {
        let b = start(options());
        let (socket, _) = socket_of(&b.address().await).unwrap();
        let tasks = b._executor.tasks();
        let raw = raw::Raw::bind(&Identity::fresh(), ([127, 0, 0, 1], 0).into(), &tasks).unwrap();
        let connection = raw.dial(socket, Some(b.peer())).await.unwrap();
        for size in [1usize, 969, 100_000] {
            let (mut writer, reader) = connection.open().await.unwrap();
            drop(reader);
            let mut said = b"\x13/multistream/1.0.0\n".to_vec();
            said.push(u8::try_from(ECHO.len() + 1).unwrap());
            said.extend_from_slice(ECHO.as_bytes());
            said.push(b'\n');
            said.resize(said.len() + size, 7);
            writer.write_all(&said).await.unwrap();
            writer.close().await.unwrap();
            let (_, mut stream) = soon("a stream", b.swarm.accept(ECHO)).await.unwrap();
            let mut heard = Vec::new();
            soon("the request", stream.read_to_end(&mut heard)).await.unwrap();
            assert_eq!(heard, vec![7; size]);
            // More than the negotiation's few bytes are not swallowed.
            let answer = async {
                loop {
                    if let Err(e) = stream.write_all(&[0; 300]).await {
                        return e;
                    }
                }
            };
            soon("an error", answer).await;
        }
        raw.close().await;
        tasks.cancel().await;
        b.stop().await;
    });
}

#[test]
fn idle_connections_end_unless_both_are_kin() {
    block_on(async {
        let limits = Limits { idle: Duration::from_secs(2), kin: "/test/kin/", ..Limits::default() };
        let kin = || Options { protocols: vec![ECHO, "/test/kin/1"], limits: limits.clone(), ..options() };
        let (a, b, c, d) = (start(kin()), start(kin()), start(options()), start(options()));
        a.connect(&b).await;
        a.connect(&d).await;
        until("identify", || a.knows(b.peer()).is_some_and(|p| !p.protocols.is_empty())).await;
        until("identify", || b.knows(a.peer()).is_some_and(|p| !p.protocols.is_empty())).await;
        let _stream = d.swarm.open(a.peer(), ECHO).await.unwrap();
        a.connect(&c).await;
        until("c is idle", || a.knows(c.peer()).is_none()).await;
        assert!(a.knows(b.peer()).is_some(), "b is of our kind");
        assert!(a.knows(d.peer()).is_some(), "d has a stream");
        for node in [a, b, c, d] {
            node.stop().await;
        }
    });
}

#[test]
fn the_last_handle_stops_the_node() {
    block_on(async {
        let (a, b) = (start(options()), start(options()));
        a.connect(&b).await;
        let TestNode { swarm, tasks, .. } = a;
        drop(swarm);
        soon("the end of all tasks", tasks.finish()).await;
        until("b sees it", || b.swarm.peers().is_empty()).await;
        let c = start(options());
        c.connect(&b).await;
        // Cancelled from outside: whoever waits is told.
        let waiting = c.swarm.accept(ECHO);
        let (accepted, ()) = soon("the end", futures_lite::future::zip(waiting, c.tasks.cancel())).await;
        assert!(accepted.is_none());
        soon("stop after the end", c.swarm.stop()).await;
        b.stop().await;
    });
}

#[test]
fn a_peer_that_vanishes_without_a_word_is_missed() {
    block_on(async {
        let (a, b) = (start(options()), start(options()));
        a.connect(&b).await;
        let mut stream = a.swarm.open_at_once(b.peer(), ECHO).await.unwrap();
        // Its threads stop: nothing is answered any more, and nothing is closed.
        drop(b._executor);
        let read = soon("an error", stream.read(&mut [0; 1])).await;
        assert!(read.is_err());
        until("it is missed", || a.swarm.peers().is_empty()).await;
        a.stop().await;
        drop(b.swarm);
    });
}
