//! The task behind [`Discovery`](super::Discovery): a socket for each interface and family, and what to do with what
//! arrives there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender, TrySendError};
use async_io::Timer;
use futures_lite::{Stream, future};
use if_watch::smol::IfWatcher;

use super::addresses::{Interface, accept, tell};
use super::discovery::{Counters, Options, Order, Sighting, add};
use super::memory::Memory;
use super::packet::{self, Announcement, LONGEST, Packet, Query, TTL, Told};
use super::rates::{Bucket, Rate, Sources};
use super::socket::{self, Family, Multicast, PORT};
use super::turn::Turn;
use super::{LanError, Random};

/// An interface's socket of one family.
struct Ear {
    index: u32,
    family: Family,
    socket: Multicast,
    turn: Turn,
    /// What was last told here.
    told: Vec<SocketAddr>,
}

/// Everything that discovery knows and holds.
pub(super) struct Node {
    options: Options,
    label: String,
    interfaces: Vec<Interface>,
    watch: Option<IfWatcher>,
    ears: Vec<Ear>,
    memory: Memory,
    expire_at: Instant,
    scan_at: Instant,
    /// Datagrams that may be received; those above stay in the kernel, which drops what it has no room for.
    reading: Bucket,
    sources: Sources,
    /// Sightings that one source may bring about.
    tellers: Sources,
    /// Answers that may go to one asker alone.
    replies: Bucket,
    sightings: Sender<Sighting>,
    counters: Arc<Counters>,
    random: Random,
}

/// Why the task goes on.
enum Event {
    Datagram { ear: usize, length: usize, from: SocketAddr },
    Failed(io::Error),
    Interfaces,
    Told(Order),
    Time,
    Stop,
}

impl Node {
    /// With no socket yet: [`Node::scan`] opens them.
    pub(super) fn new(options: Options, sightings: Sender<Sighting>, counters: Arc<Counters>) -> Self {
        let (now, mut random) = (Instant::now(), Random::default());
        let label = label(&mut random);
        let memory = Memory::new(options.limits.peers.max(1));
        let watch = IfWatcher::new()
            .inspect_err(|error| log::debug!("interfaces are looked at by the clock alone: {error}"))
            .ok();
        Self {
            options,
            label,
            interfaces: Vec::new(),
            watch,
            ears: Vec::new(),
            memory,
            expire_at: now,
            scan_at: now,
            reading: Bucket::new(READING, now),
            sources: Sources::new(READING_OF_ONE, SOURCES),
            tellers: Sources::new(TELLING, SOURCES),
            replies: Bucket::new(REPLIES, now),
            sightings,
            counters,
            random,
        }
    }

    /// Takes part until `orders` is closed, then says goodbye.
    pub(super) async fn run(mut self, mut orders: Pin<Box<Receiver<Order>>>) {
        let mut timer = Timer::never();
        let mut buffer = vec![0; LONGEST + 1];
        let (mut first, mut in_a_row) = (0, 0);
        loop {
            let now = Instant::now();
            self.send_due(now);
            self.expire(now);
            if self.scan_at <= now
                && let Err(error) = self.scan(now)
            {
                log::debug!("{error}");
            }
            let reading = self.reading.free_at(now);
            timer.set_at(self.next().min(if reading > now { reading } else { self.scan_at }));
            // Who always has something to receive must leave the thread to others now and then.
            in_a_row += 1;
            if in_a_row >= DATAGRAMS_IN_A_ROW {
                in_a_row = 0;
                future::yield_now().await;
            }
            let event = future::poll_fn(|cx| {
                self.poll(cx, orders.as_mut(), &mut timer, reading <= now, &mut first, &mut buffer)
            });
            match event.await {
                Event::Datagram { ear, length, from } => self.receive(ear, &buffer[..length], from),
                // A broken socket would fail again at once: it is opened anew by the next scan.
                Event::Failed(error) => {
                    log::debug!("multicast DNS on one interface: {error}");
                    self.ears.remove(first);
                    first = 0;
                }
                Event::Interfaces => self.scan_at = self.scan_at.min(Instant::now() + SETTLE),
                Event::Told(Order::Look) => self.scan_at = Instant::now(),
                Event::Told(Order::Forget(peer)) => self.memory.forget(&peer),
                Event::Time => {}
                Event::Stop => break,
            }
        }
        for ear in 0..self.ears.len() {
            self.withdraw(ear);
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        orders: Pin<&mut Receiver<Order>>,
        timer: &mut Timer,
        reading: bool,
        first: &mut usize,
        buffer: &mut [u8],
    ) -> Poll<Event> {
        match orders.poll_next(cx) {
            Poll::Ready(Some(order)) => return Poll::Ready(Event::Told(order)),
            Poll::Ready(None) => return Poll::Ready(Event::Stop),
            Poll::Pending => {}
        }
        if let Some(watch) = &mut self.watch
            && let Poll::Ready(event) = watch.poll_if_event(cx)
        {
            if event.is_err() {
                self.watch = None;
            }
            return Poll::Ready(Event::Interfaces);
        }
        if Pin::new(timer).poll(cx).is_ready() {
            return Poll::Ready(Event::Time);
        }
        // Each ear in turn: a flood on one network leaves the others heard.
        for _ in 0..if reading { self.ears.len() } else { 0 } {
            *first = (*first + 1) % self.ears.len();
            match self.ears[*first].socket.poll_receive(cx, buffer) {
                Poll::Ready(Ok((length, from))) => {
                    return Poll::Ready(Event::Datagram { ear: *first, length, from });
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Event::Failed(error)),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    /// When something is to be done, whatever arrives.
    fn next(&self) -> Instant {
        let ears = self.ears.iter().map(|ear| ear.turn.next());
        ears.chain([self.scan_at, self.expire_at]).min().unwrap_or(self.scan_at)
    }

    /// Opens sockets for interfaces that have come, closes those of such that have gone, and looks whether our own
    /// addresses have changed.
    pub(super) fn scan(&mut self, now: Instant) -> Result<(), LanError> {
        self.scan_at = now + SCAN_INTERVAL;
        let mut interfaces = socket::interfaces().map_err(LanError::Interfaces)?;
        interfaces.retain(|interface| (self.options.interfaces)(&interface.name));
        if interfaces != self.interfaces {
            let wanted: Vec<(&Interface, Family)> =
                interfaces.iter().flat_map(|i| Family::of(i).map(move |family| (i, family))).collect();
            self.ears.retain(|ear| wanted.iter().any(|(i, f)| (i.index, *f) == (ear.index, ear.family)));
        }
        for interface in &interfaces {
            // An address more: whoever could not answer it until now is asked again.
            let same = self.interfaces.contains(interface);
            for family in Family::of(interface) {
                let random = self.random.next();
                let ear =
                    self.ears.iter_mut().find(|ear| (ear.index, ear.family) == (interface.index, family));
                match ear {
                    Some(ear) if !same => ear.turn = Turn::new(now, random),
                    Some(_) => {}
                    None => match Multicast::open(interface, family) {
                        Ok(socket) => self.ears.push(Ear {
                            index: interface.index,
                            family,
                            socket,
                            turn: Turn::new(now, random),
                            told: Vec::new(),
                        }),
                        Err(error) => {
                            log::debug!("no multicast DNS on {} ({family:?}): {error}", interface.name);
                        }
                    },
                }
            }
        }
        self.interfaces = interfaces;
        self.counters.sockets.store(self.ears.len() as u64, Ordering::Relaxed);
        let listening = (self.options.addresses)();
        for ear in &mut self.ears {
            let Some(on) = self.interfaces.iter().find(|i| i.index == ear.index) else { continue };
            if tell(&listening, on, &self.interfaces) != ear.told {
                ear.turn.announce(now, self.random.next());
            }
        }
        Ok(())
    }

    fn send_due(&mut self, now: Instant) {
        for at in 0..self.ears.len() {
            let due = self.ears[at].turn.due(now, self.random.next());
            if due.query {
                self.send(at, &packet::query(), None);
            }
            if !due.answer {
                continue;
            }
            match self.announcement(at) {
                Some(announcement) => {
                    for packet in announcement.packets(TTL) {
                        self.send(at, &packet, None);
                    }
                    self.ears[at].told = announcement.places;
                }
                None => self.withdraw(at),
            }
        }
    }

    /// What is told on this ear's network now; `None` when there is nothing to tell.
    fn announcement(&self, ear: usize) -> Option<Announcement> {
        let index = self.ears[ear].index;
        let on = self.interfaces.iter().find(|interface| interface.index == index)?;
        let places = tell(&(self.options.addresses)(), on, &self.interfaces);
        let told = Announcement { label: self.label.clone(), peer: self.options.peer, places };
        (!told.places.is_empty()).then_some(told)
    }

    fn send(&self, ear: usize, packet: &[u8], to: Option<SocketAddr>) {
        let socket = &self.ears[ear].socket;
        let sent = match to {
            None => socket.send(packet),
            Some(to) => socket.send_to(packet, to),
        };
        add(if sent.is_ok() { &self.counters.sent } else { &self.counters.unsent });
    }

    fn receive(&mut self, ear: usize, bytes: &[u8], from: SocketAddr) {
        let now = Instant::now();
        add(&self.counters.received);
        self.reading.take(now);
        let index = self.ears[ear].index;
        let Some(on) = self.interfaces.iter().position(|interface| interface.index == index) else { return };
        let source = from.ip();
        if !self.interfaces[on].is_on_link(source) || !self.sources.take(source, now) {
            add(&self.counters.refused);
            return;
        }
        match packet::read(bytes) {
            Err(packet::Malformed) => add(&self.counters.malformed),
            Ok(Packet::Query(query)) => self.answer(ear, &query, from, now),
            Ok(Packet::Response(all)) => {
                for told in all {
                    self.hear(told, source, on, now);
                }
            }
        }
    }

    fn answer(&mut self, ear: usize, query: &Query, from: SocketAddr, now: Instant) {
        let random = self.random.next();
        let turn = &mut self.ears[ear].turn;
        if query.is_general() {
            turn.heard_our_question(now, random);
        }
        if !query.concerns(&self.label) {
            return;
        }
        // rust-libp2p asks from any port and listens to the group alone, so such askers are answered both ways.
        let outside = from.port() != PORT;
        if !(query.wants_unicast() && turn.told_within(TTL / 4, now)) {
            turn.asked(now, random);
            if query.asks_kinds() && !outside && self.replies.take(now) {
                self.send(ear, &packet::kinds_answer(), None);
            }
            if !outside {
                return;
            }
        }
        if let Some(announcement) = self.announcement(ear)
            && self.replies.take(now)
            && let Some(reply) = announcement.reply(query)
        {
            self.send(ear, &reply, Some(from));
        }
    }

    fn hear(&mut self, told: Told, source: IpAddr, on: usize, now: Instant) {
        if told.peer == self.options.peer {
            return;
        }
        let on = &self.interfaces[on];
        let mut places: Vec<SocketAddr> = Vec::new();
        for place in told.places {
            if let Some(place) = accept(place, source, on, &self.interfaces)
                && !places.contains(&place)
            {
                places.push(place);
            }
        }
        if let Some(sighting) = self.memory.hear(Told { places, ..told }, source, now) {
            // A farewell follows a sighting, so there are no more of them; and it is not said again.
            if sighting.ttl.is_zero() || self.tellers.take(source, now) {
                self.pass_on(sighting);
            } else {
                add(&self.counters.dropped);
            }
        }
        self.counters.peers.store(self.memory.len() as u64, Ordering::Relaxed);
    }

    fn expire(&mut self, now: Instant) {
        if self.expire_at > now {
            return;
        }
        self.expire_at = now + EXPIRE_INTERVAL;
        for gone in self.memory.expire(now) {
            self.pass_on(gone);
        }
        self.counters.peers.store(self.memory.len() as u64, Ordering::Relaxed);
    }

    fn pass_on(&self, told: Told) {
        let address = |place: &SocketAddr| {
            let zone = match place {
                SocketAddr::V6(v6) if v6.scope_id() != 0 => {
                    let of = |interface: &&Interface| interface.index == v6.scope_id();
                    // Gone with its interface.
                    Some(self.interfaces.iter().find(of)?.name.as_str())
                }
                _ => None,
            };
            Some(packet::multiaddr(*place, zone))
        };
        let addresses = told.places.iter().filter_map(address).collect();
        let sighting = Sighting { peer: told.peer, addresses, ttl: told.ttl };
        if let Err(TrySendError::Full(_)) = self.sightings.try_send(sighting) {
            add(&self.counters.dropped);
        }
    }

    /// Takes back what was told here.
    fn withdraw(&mut self, ear: usize) {
        let places = std::mem::take(&mut self.ears[ear].told);
        let told = Announcement { label: self.label.clone(), peer: self.options.peer, places };
        for packet in told.packets(Duration::ZERO) {
            self.send(ear, &packet, None);
        }
    }
}

/// A name for this run: libp2p's rule is 32 to 63 letters and digits that mean nothing, other each time.
fn label(random: &mut Random) -> String {
    const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    (0..LABEL_BYTES).map(|_| char::from(LETTERS[random.next() as usize % LETTERS.len()])).collect()
}

const LABEL_BYTES: usize = 40;

/// Interfaces and addresses are looked at this often, should the system not tell of a change.
const SCAN_INTERVAL: Duration = Duration::from_secs(15);

/// After a change of interfaces: one cable brings several.
const SETTLE: Duration = Duration::from_millis(200);

/// How often the memory is looked through.
const EXPIRE_INTERVAL: Duration = Duration::from_secs(5);

/// Datagrams received on all interfaces: a network of a thousand peers that all answer one question fits the burst.
const READING: Rate = Rate { burst: 2048, each: Duration::from_millis(4) };

/// Datagrams of one source: it answers once a second in four packets at most, and other services are told too.
const READING_OF_ONE: Rate = Rate { burst: 64, each: Duration::from_millis(100) };

/// Sightings by one source: whoever makes up peers has them dialled in vain. A machine that runs dozens of nodes fits the
/// burst.
const TELLING: Rate = Rate { burst: 64, each: Duration::from_secs(1) };

/// Most sources whose rates are remembered: about 64 bytes each.
const SOURCES: usize = 1024;

/// Answers to one asker alone: few ask so, and each is larger than its question.
const REPLIES: Rate = Rate { burst: 10, each: Duration::from_millis(200) };

/// Datagrams, or other events, after which the thread is left to others once.
const DATAGRAMS_IN_A_ROW: usize = 16;
