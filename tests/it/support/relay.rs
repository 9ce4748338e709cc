//! A bad line: UDP through a relay that delays, loses, and is as slow as it is told to be.
//!
//! A node that dials the relay's address speaks with the node behind it, and with no other address of it.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dpm::base::{Multiaddr, Protocol};

use super::Random;

/// Where a multiaddr with an IPv4 address leads.
pub fn socket_of(address: &Multiaddr) -> SocketAddr {
    let mut ip = None;
    for part in address {
        match part {
            Protocol::Ip4(v4) => ip = Some(v4.into()),
            Protocol::Udp(port) => return SocketAddr::new(ip.expect("an IPv4 address"), port),
            _ => {}
        }
    }
    panic!("{address} is no UDP address")
}

/// How others reach the node behind a relay.
pub fn multiaddr_of(address: SocketAddr) -> Multiaddr {
    Multiaddr::empty().with(address.ip().into()).with(Protocol::Udp(address.port())).with(Protocol::QuicV1)
}

/// What a line does to packets, each way.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// From one end to the other.
    pub delay: Duration,
    /// Packets lost of a thousand.
    pub lost_per_mille: u64,
    /// Bits a second; zero for as many as come.
    pub bits_per_second: u64,
}

/// A line that does nothing to packets.
pub const GOOD: Line = Line { delay: Duration::ZERO, lost_per_mille: 0, bits_per_second: 0 };

/// What a slow line keeps waiting before it drops: as much as a cheap switch does.
const QUEUE: Duration = Duration::from_millis(50);

/// How often its threads look whether it has ended.
const LOOK: Duration = Duration::from_millis(100);

/// Packets on their way, each way: beyond it they are lost.
const UNDER_WAY: usize = 16_384;

/// A relay. Its threads end soon after it was dropped.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    line: Line,
    cut: AtomicBool,
    ended: AtomicBool,
    /// Bytes that it carried, both ways.
    carried: AtomicU64,
    random: Mutex<Random>,
}

/// A packet, when it is due, and where it goes.
type Packet = (Instant, SocketAddr, Vec<u8>);

impl Relay {
    /// A line to whoever listens at `to`, on loopback.
    pub fn start(to: SocketAddr, line: Line) -> Self {
        let front = socket();
        let address = front.local_addr().expect("a port");
        let shared = Arc::new(Shared {
            line,
            cut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            carried: AtomicU64::new(0),
            random: Mutex::new(Random::new(7)),
        });
        let theirs = shared.clone();
        std::thread::spawn(move || theirs.carry(&front, to));
        Self { address, shared }
    }

    /// Where the node behind it is reached.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on nothing comes through, and nobody is told: a power cut at the other end.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::Relaxed);
    }

    /// Bytes that it carried so far, both ways.
    pub fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::Relaxed)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// From whoever dials, by a socket each, to the node behind; the way back begins with the first packet.
    fn carry(self: Arc<Self>, front: &UdpSocket, to: SocketAddr) {
        let mut ways: HashMap<SocketAddr, (Arc<UdpSocket>, SyncSender<Packet>)> = HashMap::new();
        self.clone().each(front, |from, packet, due| {
            let (_, queue) = ways.entry(from).or_insert_with(|| {
                let out = Arc::new(socket());
                let back = Arc::new(front.try_clone().expect("it is open"));
                let (there, back) = (queue(out.clone()), queue(back));
                let (shared, socket) = (self.clone(), out.clone());
                std::thread::spawn(move || {
                    shared.each(&socket, |_, packet, due| drop(back.try_send((due, from, packet))));
                });
                (out, there)
            });
            // Full: lost.
            drop(queue.try_send((due, to, packet)));
        });
    }

    /// Reads a socket's packets and says when each is due, if it is not lost.
    fn each(&self, socket: &UdpSocket, mut packet: impl FnMut(SocketAddr, Vec<u8>, Instant)) {
        socket.set_read_timeout(Some(LOOK)).expect("a limit");
        let (mut buffer, mut free) = (vec![0; 65_536], Instant::now());
        while !self.ended.load(Ordering::Relaxed) {
            // Nothing for a while, or news of a packet that nobody took.
            let Ok((n, from)) = socket.recv_from(&mut buffer) else { continue };
            let lost = self.random.lock().unwrap().below(1000) < self.line.lost_per_mille;
            if lost || self.cut.load(Ordering::Relaxed) {
                continue;
            }
            let now = Instant::now();
            if let Some(nanos) = (n as u64 * 8_000_000_000).checked_div(self.line.bits_per_second) {
                free = free.max(now) + Duration::from_nanos(nanos);
                if free > now + QUEUE {
                    free -= Duration::from_nanos(nanos);
                    continue;
                }
            } else {
                free = now;
            }
            self.carried.fetch_add(n as u64, Ordering::Relaxed);
            packet(from, buffer[..n].to_vec(), free + self.line.delay);
        }
    }
}

/// A queue whose packets go out by `socket` when they are due. Ends with its sender.
fn queue(socket: Arc<UdpSocket>) -> SyncSender<Packet> {
    let (sender, receiver): (_, Receiver<Packet>) = sync_channel(UNDER_WAY);
    std::thread::spawn(move || {
        for (due, to, packet) in receiver {
            if let Some(time) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(time);
            }
            // Who is gone does not get it.
            drop(socket.send_to(&packet, to));
        }
    });
    sender
}

/// With room for what comes in one burst: what is lost is to be lost on purpose.
fn socket() -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    socket2::SockRef::from(&socket).set_recv_buffer_size(2 << 20).expect("a size");
    socket
}
