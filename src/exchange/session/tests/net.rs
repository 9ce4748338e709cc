//! A network in memory: nodes with links of a certain speed, delay and loss, on a clock that jumps.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::base::PeerId;
use crate::exchange::session::{Arrival, Order, Session};

pub(super) const ITEM: u64 = 1 << 20;
/// Bytes sent in one go: links are shared in pieces of it.
const SEGMENT: u64 = 128 << 10;
/// What may wait before a receiver's link until senders hold back: a congestion window's worth of time.
const BACKLOG: Duration = Duration::from_millis(30);

/// What a message takes beside the delay, at most.
const JITTER: Duration = Duration::from_micros(500);

pub(super) fn peer_id(n: usize) -> PeerId {
    let mut bytes = [0; 36];
    (bytes[0], bytes[1]) = (0, 34);
    bytes[4..12].copy_from_slice(&(n as u64).to_be_bytes());
    PeerId::from_bytes(&bytes).expect("an identity multihash")
}

/// What a node is like.
#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) up: f64,
    pub(super) down: f64,
    pub(super) delay: Duration,
    /// Of a segment; it comes one round trip later then, and so does what follows it.
    pub(super) loss: f64,
}

impl Link {
    /// Megabytes a second both ways, milliseconds of delay one way.
    pub(super) fn of(megabytes: f64, delay_ms: u64) -> Self {
        let rate = megabytes * 1e6;
        Self { up: rate, down: rate, delay: Duration::from_millis(delay_ms), loss: 0.0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Manner {
    Honest,
    /// Takes wants and gives nothing.
    Silent,
    /// This share of what it gives is wrong.
    Lies(f64),
    /// Says that it lacks what it was asked for, every other time, though it said that it has it.
    Fickle,
}

pub(super) struct Node {
    pub(super) link: Link,
    pub(super) manner: Manner,
    pub(super) alive: bool,
    /// Whether it sends others elsewhere for what it gave a moment ago, and for how long.
    pub(super) refers: Option<Duration>,
    pub(super) store: Vec<bool>,
    pub(super) session: Option<Session>,
    pub(super) done: Option<Duration>,
    pub(super) again: u64,
    pub(super) sent: u64,
    pub(super) wants: u64,
    pub(super) elsewhere: u64,
    pub(super) insisted: u64,
    /// When each item came.
    pub(super) came: Vec<Option<Duration>>,
    queues: BTreeMap<usize, VecDeque<(u32, bool)>>,
    sending: BTreeMap<usize, (u32, u64)>,
    turn: usize,
    busy: bool,
    down_free: Duration,
    given: HashMap<u32, (usize, Duration)>,
    woken_at: Option<Duration>,
    asked: u64,
}

#[derive(Debug)]
pub(super) enum Event {
    Say(usize, usize, Say),
    UplinkFree(usize),
    /// to, from, item, bytes, last
    Arrive(usize, usize, u32, u64, bool),
    /// to, from, item
    Deliver(usize, usize, u32),
    Wake(usize),
    Die(usize),
    /// The node has these from now on.
    Gets(usize, Range<u32>),
}

#[derive(Debug)]
pub(super) enum Say {
    Want(Range<u32>, bool),
    Cancel(Range<u32>),
    Have(Range<u32>),
    Lacks(u32),
    Elsewhere(u32, usize),
    Gone,
}

pub(super) struct Net {
    pub(super) nodes: Vec<Node>,
    pub(super) now: Duration,
    start: Instant,
    items: u32,
    events: BinaryHeap<Reverse<(Duration, u64)>>,
    bodies: HashMap<u64, Event>,
    number: u64,
    random: u64,
    last_arrival: HashMap<(usize, usize), Duration>,
    last_said: HashMap<(usize, usize), Duration>,
}

impl Net {
    pub(super) fn new(items: u32, seed: u64) -> Self {
        Self {
            nodes: Vec::new(),
            now: Duration::ZERO,
            start: Instant::now(),
            items,
            events: BinaryHeap::new(),
            bodies: HashMap::new(),
            number: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            last_arrival: HashMap::new(),
            last_said: HashMap::new(),
        }
    }

    /// A node that has these items and wants none.
    pub(super) fn source(&mut self, link: Link, manner: Manner, has: Range<u32>) -> usize {
        let mut store = vec![false; self.items as usize];
        has.for_each(|n| store[n as usize] = true);
        self.add(link, manner, store, None)
    }

    /// A node that has nothing and wants everything.
    pub(super) fn client(&mut self, link: Link) -> usize {
        let n = self.nodes.len();
        let mut session = Session::new(self.random ^ n as u64, self.start);
        session.grow(self.items);
        session.complete();
        self.add(link, Manner::Honest, vec![false; self.items as usize], Some(session))
    }

    fn add(&mut self, link: Link, manner: Manner, store: Vec<bool>, session: Option<Session>) -> usize {
        self.nodes.push(Node {
            link,
            manner,
            alive: true,
            refers: None,
            store,
            session,
            done: None,
            again: 0,
            sent: 0,
            wants: 0,
            elsewhere: 0,
            insisted: 0,
            came: vec![None; self.items as usize],
            queues: BTreeMap::new(),
            sending: BTreeMap::new(),
            turn: 0,
            busy: false,
            down_free: Duration::ZERO,
            given: HashMap::new(),
            woken_at: None,
            asked: 0,
        });
        self.nodes.len() - 1
    }

    pub(super) fn at(&mut self, when: Duration, event: Event) {
        self.number += 1;
        self.events.push(Reverse((when, self.number)));
        self.bodies.insert(self.number, event);
    }

    pub(super) fn chance(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn instant(&self) -> Instant {
        self.start + self.now
    }

    fn delay(&self, a: usize, b: usize) -> Duration {
        self.nodes[a].link.delay + self.nodes[b].link.delay
    }

    fn say(&mut self, from: usize, to: usize, say: Say) {
        // Messages between two stay in order; which of several nodes is heard first is a matter of chance.
        let when = self.now + self.delay(from, to) + JITTER.mul_f64(self.chance());
        let before = self.last_said.entry((from, to)).or_default();
        *before = when.max(*before);
        let when = *before;
        self.at(when, Event::Say(to, from, say));
    }

    /// Connects everybody and runs until all clients are done, nothing happens any more, or `limit`.
    pub(super) fn run(&mut self, limit: Duration) {
        let all = self.nodes.len();
        for a in 0..all {
            for b in (0..all).filter(|b| *b != a) {
                let round_trip = 2 * self.delay(a, b);
                let now = self.instant();
                if let Some(session) = &mut self.nodes[a].session {
                    session.peer(peer_id(b), Some(round_trip), None, now);
                }
                for run in runs(&self.nodes[b].store) {
                    self.say(b, a, Say::Have(run));
                }
            }
            self.act(a);
        }
        while let Some(Reverse((when, number))) = self.events.pop() {
            if when > limit {
                break;
            }
            self.now = when;
            let event = self.bodies.remove(&number).expect("each event has a body");
            self.handle(event);
            if self.nodes.iter().all(|n| n.session.is_none() || n.done.is_some() || !n.alive) {
                break;
            }
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Say(to, from, say) => self.hear(to, from, say),
            Event::UplinkFree(node) => {
                self.nodes[node].busy = false;
                self.send(node);
            }
            Event::Arrive(to, from, item, bytes, last) => {
                let now = self.now;
                let node = &mut self.nodes[to];
                let time = Duration::from_secs_f64(bytes as f64 / node.link.down);
                node.down_free = node.down_free.max(now) + time;
                let when = node.down_free;
                if last {
                    self.at(when, Event::Deliver(to, from, item));
                }
            }
            Event::Deliver(to, from, item) => self.deliver(to, from, item),
            Event::Wake(node) => {
                if self.nodes[node].woken_at == Some(self.now) {
                    self.nodes[node].woken_at = None;
                    self.act(node);
                }
            }
            Event::Die(node) => {
                self.nodes[node].alive = false;
                for other in (0..self.nodes.len()).filter(|n| *n != node) {
                    self.say(node, other, Say::Gone);
                }
            }
            Event::Gets(node, items) => {
                items.clone().for_each(|n| self.nodes[node].store[n as usize] = true);
                for other in (0..self.nodes.len()).filter(|n| *n != node) {
                    self.say(node, other, Say::Have(items.clone()));
                }
                self.send(node);
            }
        }
    }

    fn hear(&mut self, to: usize, from: usize, say: Say) {
        if !self.nodes[to].alive {
            return;
        }
        let now = self.instant();
        let peer = peer_id(from);
        if let Some(session) = &mut self.nodes[to].session {
            match &say {
                Say::Have(items) => session.has(&peer, items.clone(), now),
                Say::Lacks(item) => session.lacks(&peer, *item..*item + 1, now),
                Say::Elsewhere(item, other) => session.elsewhere(&peer, *item, peer_id(*other), now),
                Say::Gone => session.lost(&peer, now),
                Say::Want(..) | Say::Cancel(_) => {}
            }
        }
        match say {
            Say::Want(items, insist) => {
                for item in items {
                    self.nodes[to].wants += 1;
                    self.nodes[to].insisted += u64::from(insist);
                    self.nodes[to].asked += 1;
                    if self.nodes[to].manner == Manner::Fickle && self.nodes[to].asked % 2 == 1 {
                        self.say(to, from, Say::Lacks(item));
                    } else if !self.refer(to, from, item, insist) {
                        let queue = self.nodes[to].queues.entry(from).or_default();
                        queue.push_back((item, insist));
                    }
                }
                self.send(to);
            }
            Say::Cancel(items) => {
                if let Some(queue) = self.nodes[to].queues.get_mut(&from) {
                    queue.retain(|(item, _)| !items.contains(item));
                }
            }
            Say::Gone => {
                self.nodes[to].queues.remove(&from);
                self.nodes[to].sending.remove(&from);
                self.act(to);
            }
            _ => self.act(to),
        }
    }

    /// The rule of a server: what somebody else was given a moment ago is to be had there.
    fn refer(&mut self, node: usize, asker: usize, item: u32, insist: bool) -> bool {
        let Some(time) = self.nodes[node].refers.filter(|_| !insist) else { return false };
        let Some((to, at)) = self.nodes[node].given.get(&item).copied() else { return false };
        let sending = self.nodes[node].sending.get(&to).is_some_and(|(i, _)| *i == item);
        let refer = to != asker && (sending || self.now < at + time) && self.nodes[to].alive;
        if refer {
            self.nodes[node].elsewhere += 1;
            self.say(node, asker, Say::Elsewhere(item, to));
        }
        refer
    }

    /// Sends the next segment, in turn to each who waits for something that is there.
    fn send(&mut self, node: usize) {
        if self.nodes[node].busy || !self.nodes[node].alive || self.nodes[node].manner == Manner::Silent {
            return;
        }
        let all = self.nodes.len();
        let mut later: Option<Duration> = None;
        for step in 0..all {
            let to = (self.nodes[node].turn + step) % all;
            if !self.nodes[node].sending.contains_key(&to) && !self.begin(node, to) {
                continue;
            }
            let free = self.nodes[to].down_free.saturating_sub(BACKLOG);
            if free > self.now {
                later = Some(later.map_or(free, |l| l.min(free)));
                continue;
            }
            let sender = &mut self.nodes[node];
            sender.turn = to + 1;
            let (item, left) = sender.sending[&to];
            let bytes = left.min(SEGMENT);
            let last = left == bytes;
            match last {
                true => drop(sender.sending.remove(&to)),
                false => drop(sender.sending.insert(to, (item, left - bytes))),
            }
            sender.sent += bytes;
            sender.busy = true;
            let sent = self.now + Duration::from_secs_f64(bytes as f64 / sender.link.up);
            if last && let Some(given) = sender.given.get_mut(&item).filter(|g| g.0 == to) {
                given.1 = sent;
            }
            let mut there = sent + self.delay(node, to);
            if self.chance() < self.nodes[node].link.loss {
                there += 2 * self.delay(node, to) + Duration::from_millis(10);
            }
            let before = self.last_arrival.entry((node, to)).or_default();
            *before = there.max(*before);
            let there = *before;
            self.at(there, Event::Arrive(to, node, item, bytes, last));
            self.at(sent, Event::UplinkFree(node));
            return;
        }
        if let Some(later) = later {
            self.nodes[node].busy = true;
            self.at(later, Event::UplinkFree(node));
        }
    }

    /// Takes the next want of `to` that can be given.
    fn begin(&mut self, node: usize, to: usize) -> bool {
        loop {
            let server = &mut self.nodes[node];
            let Some(queue) = server.queues.get_mut(&to) else { return false };
            let Some(at) = queue.iter().position(|(item, _)| server.store[*item as usize]) else {
                return false;
            };
            let (item, insist) = queue.remove(at).expect("just found");
            if self.refer(node, to, item, insist) {
                continue;
            }
            let now = self.now;
            self.nodes[node].sending.insert(to, (item, ITEM));
            self.nodes[node].given.insert(item, (to, now));
            return true;
        }
    }

    fn deliver(&mut self, to: usize, from: usize, item: u32) {
        if !self.nodes[to].alive {
            return;
        }
        let now = self.instant();
        let wrong = match self.nodes[from].manner {
            Manner::Lies(share) => self.chance() < share,
            _ => false,
        };
        let Some(session) = &mut self.nodes[to].session else { return };
        if wrong {
            session.wrong(&peer_id(from), item, now);
            self.nodes[from].queues.remove(&to);
            self.nodes[from].sending.remove(&to);
        } else {
            match session.arrived(&peer_id(from), item, ITEM, now) {
                Arrival::New => {
                    assert!(!self.nodes[to].store[item as usize], "new only once");
                    self.nodes[to].came[item as usize] = Some(self.now);
                    self.handle(Event::Gets(to, item..item + 1));
                }
                Arrival::Again | Arrival::Unasked => self.nodes[to].again += ITEM,
            }
        }
        self.act(to);
    }

    /// Lets a client's session speak.
    fn act(&mut self, node: usize) {
        let now = self.instant();
        let Some(session) = &mut self.nodes[node].session else { return };
        let orders = session.next(now);
        let wake = session.wake();
        let done = session.is_done();
        if done && self.nodes[node].done.is_none() {
            self.nodes[node].done = Some(self.now);
        }
        for order in orders {
            let (peer, say) = match order {
                Order::Want { peer, first, count, insist } => (peer, Say::Want(first..first + count, insist)),
                Order::Cancel { peer, first, count } => (peer, Say::Cancel(first..first + count)),
            };
            let to = (0..self.nodes.len()).find(|n| peer_id(*n) == peer).expect("a peer that was named");
            self.say(node, to, say);
        }
        let wake = wake.map(|at| at.saturating_duration_since(self.start).max(self.now));
        if let Some(at) = wake.filter(|at| self.nodes[node].woken_at != Some(*at)) {
            self.nodes[node].woken_at = wake;
            self.at(at, Event::Wake(node));
        }
    }
}

fn runs(store: &[bool]) -> Vec<Range<u32>> {
    let mut all = crate::exchange::Ranges::default();
    (0..store.len()).filter(|n| store[*n]).for_each(|n| all.insert(n as u32..n as u32 + 1));
    all.runs().to_vec()
}
