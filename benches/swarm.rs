//! The swarm beside bare QUIC with the same TLS, settings and executor: `cargo bench --bench swarm`.
//!
//! Both ends are in this process, on loopback, and take turns within a round, so that what else the machine does hits
//! both. Prints each side's median throughput, CPU seconds a GiB (both ends together) and the median of the
//! rounds' ratios; then the median time of a small question on a fresh stream.
//!
//! `DPM_MIB=N` bytes of a transfer (512), `DPM_ROUNDS=N` (5), `DPM_THREADS=N` of the executor (2), `DPM_ASKS=N` questions
//! (1,000), `DPM_DELAY_MS=N` added round trip by a relay (0: no relay).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dpm::base::{Multiaddr, Protocol};
use dpm::rt::{Executor, Tasks};
use dpm::swarm::raw::{Raw, RawConnection};
use dpm::swarm::{Identity, Limits, Options, Swarm, socket_of};
use futures_lite::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, future};

const BULK: &str = "/bench/bulk/1";
const ASK: &str = "/bench/ask/1";
const CHUNK: usize = 256 << 10;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |n| n.parse().expect("a number"))
}

fn main() {
    let bytes = number("DPM_MIB", 512) << 20;
    let (rounds, asks) = (number("DPM_ROUNDS", 5), number("DPM_ASKS", 1000));
    let delay = Duration::from_millis(number("DPM_DELAY_MS", 0) as u64);
    let executor = Executor::start(number("DPM_THREADS", 2)).expect("threads");
    let tasks = executor.tasks();
    future::block_on(async {
        let (a, b) = (swarm(&tasks), swarm(&tasks));
        serve_swarm(&b, &tasks);
        let address = loop {
            match b.listeners().first() {
                Some(address) => break socket_of(address).expect("an address").0,
                None => async_io::Timer::after(Duration::from_millis(1)).await,
            };
        };
        a.dial(b.peer_id(), vec![multiaddr(relay(address, delay))]);
        while a.peers().is_empty() {
            async_io::Timer::after(Duration::from_millis(1)).await;
        }
        let (key_a, key_b) = (Identity::fresh(), Identity::fresh());
        let local: SocketAddr = ([127, 0, 0, 1], 0).into();
        let raw_a = Raw::bind(&key_a, local, &tasks).expect("a socket");
        let raw_b = Arc::new(Raw::bind(&key_b, local, &tasks).expect("a socket"));
        let at = relay(raw_b.address().expect("an address"), delay);
        let accepting = raw_b.clone();
        let dialling = async { raw_a.dial(at, Some(key_b.peer_id())).await.expect("a connection") };
        let accepted = async { accepting.accept().await.expect("a connection") };
        let (raw, other) = future::zip(dialling, accepted).await;
        serve_raw(other, &tasks);

        let (mut of_swarm, mut of_raw) = (Vec::new(), Vec::new());
        // One of each first: congestion windows and the MTU find their size.
        for round in 0..=rounds {
            let stream = a.open(b.peer_id(), BULK).await.expect("a stream");
            let (reader, writer) = futures_lite::io::split(stream);
            let swarm = transfer(writer, reader, bytes).await;
            let (writer, reader) = raw.open().await.expect("a stream");
            let bare = transfer(kind(writer, b'B').await, reader, bytes).await;
            if round > 0 {
                println!("round {round}: swarm {swarm}, raw QUIC {bare}");
                of_swarm.push(swarm);
                of_raw.push(bare);
            }
        }
        let ratios = of_swarm.iter().zip(&of_raw).map(|(swarm, bare)| Figures {
            mb_per_second: swarm.mb_per_second / bare.mb_per_second,
            cpu_per_gib: swarm.cpu_per_gib / bare.cpu_per_gib,
        });
        let ratio = median(ratios.collect());
        println!("median: swarm {}, raw QUIC {}", median(of_swarm), median(of_raw));
        println!(
            "swarm / raw QUIC, median of the rounds' own ratios: throughput {:.3}, CPU {:.3}",
            ratio.mb_per_second, ratio.cpu_per_gib
        );

        let (mut first, mut along, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..asks {
            let begun = Instant::now();
            ask(a.open(b.peer_id(), ASK).await.expect("a stream")).await;
            first.push(begun.elapsed());
            let begun = Instant::now();
            ask(a.open_at_once(b.peer_id(), ASK).await.expect("a stream")).await;
            along.push(begun.elapsed());
            let begun = Instant::now();
            let (writer, reader) = raw.open().await.expect("a stream");
            ask_raw(kind(writer, b'A').await, reader).await;
            bare.push(begun.elapsed());
        }
        for (what, mut times) in [("open", first), ("open_at_once", along), ("raw QUIC", bare)] {
            times.sort();
            let (middle, late) = (times[times.len() / 2], times[times.len() * 99 / 100]);
            println!("a small question, {what}: median {middle:?}, 99th percentile {late:?}");
        }
        let info = a.peers().into_iter().next().expect("a peer");
        println!("round trip {:?}, {} MiB sent", info.rtt, info.sent_bytes >> 20);
        a.stop().await;
        b.stop().await;
        tasks.cancel().await;
    });
}

fn swarm(tasks: &Tasks) -> Swarm {
    let options = Options {
        key: Identity::fresh(),
        listen: vec![multiaddr(([127, 0, 0, 1], 0).into())],
        protocols: vec![BULK, ASK],
        agent: "dpm/bench".into(),
        limits: Limits::default(),
        admit: Arc::new(|_, _| true),
    };
    Swarm::start(options, tasks).expect("a swarm").0
}

fn multiaddr(socket: SocketAddr) -> Multiaddr {
    Multiaddr::from(socket.ip()).with(Protocol::Udp(socket.port())).with(Protocol::QuicV1)
}

fn serve_swarm(swarm: &Swarm, tasks: &Tasks) {
    let (bulk, asked) = (swarm.clone(), swarm.clone());
    tasks.spawn(async move {
        while let Some((_, stream)) = bulk.accept(BULK).await {
            let (reader, writer) = futures_lite::io::split(stream);
            sink(reader, writer).await;
        }
    });
    tasks.spawn(async move {
        while let Some((_, stream)) = asked.accept(ASK).await {
            let (reader, writer) = futures_lite::io::split(stream);
            answer(reader, writer).await;
        }
    });
}

/// One task takes what comes, as the swarm's server does; a byte in front says which kind it is.
fn serve_raw(connection: RawConnection, tasks: &Tasks) {
    tasks.spawn(async move {
        while let Ok((writer, mut reader)) = connection.accept().await {
            let mut kind = [0];
            match reader.read_exact(&mut kind).await {
                Ok(()) if kind == *b"B" => sink(reader, writer).await,
                Ok(()) => answer(reader, writer).await,
                Err(_) => {}
            }
        }
    });
}

async fn kind<W: AsyncWrite + Unpin>(mut writer: W, kind: u8) -> W {
    writer.write_all(&[kind]).await.expect("room");
    writer
}

/// Reads everything and says so.
async fn sink(mut reader: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(1..) = reader.read(&mut buffer).await {}
    let _ = writer.write_all(b"!").await;
    let _ = writer.close().await;
}

/// Reads a question of 64 bytes and answers with 1 KiB.
async fn answer(mut reader: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin) {
    let mut question = [0; 64];
    if reader.read_exact(&mut question).await.is_ok() {
        let _ = writer.write_all(&[7; 1024]).await;
        let _ = writer.close().await;
        let _ = reader.read(&mut question).await;
    }
}

async fn ask(stream: impl AsyncRead + AsyncWrite + Unpin) {
    let (reader, writer) = futures_lite::io::split(stream);
    ask_raw(writer, reader).await;
}

async fn ask_raw(mut writer: impl AsyncWrite + Unpin, mut reader: impl AsyncRead + Unpin) {
    writer.write_all(&[9; 64]).await.expect("room");
    writer.close().await.expect("a close");
    let mut all = Vec::with_capacity(2048);
    reader.read_to_end(&mut all).await.expect("an answer");
    assert_eq!(all.len(), 1024);
}

async fn transfer(
    mut writer: impl AsyncWrite + Unpin,
    mut reader: impl AsyncRead + Unpin,
    bytes: usize,
) -> Figures {
    let chunk = vec![7; CHUNK];
    let (begun, cpu) = (Instant::now(), cpu());
    for _ in 0..bytes / CHUNK {
        writer.write_all(&chunk).await.expect("room");
    }
    writer.close().await.expect("a close");
    reader.read_exact(&mut [0]).await.expect("the end");
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), self::cpu() - cpu);
    Figures {
        mb_per_second: bytes as f64 / 1e6 / seconds,
        cpu_per_gib: cpu * (1u64 << 30) as f64 / bytes as f64,
    }
}

/// CPU seconds of this process.
fn cpu() -> f64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as f64 + spent.tv_nsec as f64 / 1e9
}

#[derive(Clone, Copy)]
struct Figures {
    mb_per_second: f64,
    cpu_per_gib: f64,
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} MB/s, {:.2} CPU s/GiB", self.mb_per_second, self.cpu_per_gib)
    }
}

fn median(of: Vec<Figures>) -> Figures {
    let middle = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    Figures {
        mb_per_second: middle(of.iter().map(|f| f.mb_per_second).collect()),
        cpu_per_gib: middle(of.iter().map(|f| f.cpu_per_gib).collect()),
    }
}

/// Somewhere to dial in place of `to`: a relay that holds each datagram for half of `delay`. Its own CPU counts too.
fn relay(to: SocketAddr, delay: Duration) -> SocketAddr {
    if delay.is_zero() {
        return to;
    }
    let bind = || {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).expect("a socket");
        socket.set_recv_buffer_size(16 << 20).expect("a buffer");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        Arc::new(std::net::UdpSocket::from(socket))
    };
    let (front, back) = (bind(), bind());
    let at = front.local_addr().expect("an address");
    let dialler = Arc::new(std::sync::Mutex::new(None));
    back.connect(to).expect("an address");
    let heard = dialler.clone();
    hold(front.clone(), delay / 2, {
        let back = back.clone();
        move |datagram, from| {
            *heard.lock().expect("no panic") = Some(from);
            let _ = back.send(datagram);
        }
    });
    hold(back, delay / 2, move |datagram, _| {
        if let Some(to) = *dialler.lock().expect("no panic") {
            let _ = front.send_to(datagram, to);
        }
    });
    at
}

/// Two threads: one takes datagrams with their time, the other lets them go when that has passed.
fn hold(
    socket: Arc<std::net::UdpSocket>,
    delay: Duration,
    mut go: impl FnMut(&[u8], SocketAddr) + Send + 'static,
) {
    let (sender, receiver) = std::sync::mpsc::sync_channel::<(Instant, Vec<u8>, SocketAddr)>(1 << 16);
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer) {
            // A full queue loses the datagram, as a router's would.
            let _ = sender.try_send((Instant::now() + delay, buffer[..count].to_vec(), from));
        }
    });
    std::thread::spawn(move || {
        while let Ok((at, datagram, from)) = receiver.recv() {
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            go(&datagram, from);
        }
    });
}
