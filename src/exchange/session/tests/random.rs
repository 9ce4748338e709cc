//! Events in any order, from anybody, with any numbers: no panic, and what is always true stays true.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use super::net::{Event, Link, Manner, Net, peer_id};
use crate::base::PeerId;
use crate::exchange::session::{Arrival, MOST_ORDERS, Order, Session};

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }

    /// Mostly small and sensible, sometimes not at all.
    fn item(&mut self) -> u32 {
        match self.below(40) {
            0 => u32::MAX - self.below(2) as u32,
            1 => self.below(1 << 32) as u32,
            _ => self.below(48) as u32,
        }
    }

    fn items(&mut self) -> Range<u32> {
        let first = self.item();
        match self.below(10) {
            0 => first..self.item(),
            _ => first..first.saturating_add(self.below(6) as u32),
        }
    }
}

/// What must be true, told from outside: who was asked for what, what came.
#[derive(Default)]
struct Model {
    asked: BTreeMap<PeerId, BTreeSet<u32>>,
    told: BTreeSet<(PeerId, u32)>,
    came: BTreeSet<u32>,
    barred: BTreeSet<PeerId>,
    gone: BTreeSet<PeerId>,
    items: u32,
}

impl Model {
    fn orders(&mut self, session: &Session, orders: Vec<Order>) {
        assert!(orders.len() <= MOST_ORDERS);
        for order in orders {
            match order {
                Order::Want { peer, first, count, .. } => {
                    assert!(!self.barred.contains(&peer) && !self.gone.contains(&peer), "asked in vain");
                    assert!(count > 0 && first.checked_add(count).is_some_and(|end| end <= self.items));
                    assert!(!session.is_done(), "nothing is wanted any more");
                    for item in first..first + count {
                        assert!(!self.came.contains(&item), "{item} is here");
                        assert!(self.asked.entry(peer).or_default().insert(item), "{item} asked twice");
                        self.told.insert((peer, item));
                    }
                }
                Order::Cancel { peer, first, count } => {
                    for item in first..first + count {
                        // An answer may have crossed it.
                        self.asked.entry(peer).or_default().remove(&item);
                        assert!(self.told.contains(&(peer, item)), "{item} never asked");
                    }
                }
            }
        }
    }
}

fn play(seed: u64, steps: usize) {
    let start = Instant::now();
    let mut random = Random(seed | 1);
    let mut session = Session::new(seed, start);
    let (mut model, mut now) = (Model::default(), start + Duration::from_secs(60));
    for _ in 0..steps {
        now = match random.below(30) {
            0 => now - Duration::from_millis(random.below(500)),
            1 => now + Duration::from_secs(random.below(100)),
            _ => now + Duration::from_millis(random.below(100)),
        };
        let peer = peer_id(random.below(6) as usize);
        let (item, items) = (random.item(), random.items());
        match random.below(24) {
            0 => {
                let rtt = (random.below(2) == 0).then(|| Duration::from_millis(random.below(100_000)));
                session.peer(peer, rtt, (random.below(2) == 0).then_some(u64::MAX >> random.below(64)), now);
                model.gone.remove(&peer);
            }
            1 if item < u32::MAX => {
                session.grow(item);
                model.items = model.items.max(item);
            }
            2..6 => {
                session.peer(peer, None, None, now);
                model.gone.remove(&peer);
                session.has(&peer, items, now);
            }
            6 => {
                session.lacks(&peer, items.clone(), now);
                model.asked.entry(peer).or_default().retain(|item| !items.contains(item));
            }
            7..14 => {
                let asked = model.asked.get(&peer).and_then(|all| all.iter().next().copied()).unwrap_or(item);
                let fresh = !model.came.contains(&asked);
                let arrival = session.arrived(&peer, asked, random.below(1 << 21), now);
                assert!(arrival != Arrival::New || fresh, "new only once");
                model.asked.entry(peer).or_default().remove(&asked);
                if arrival == Arrival::New {
                    model.came.insert(asked);
                }
            }
            14 => {
                if session.arrived(&peer, item, u64::MAX, now) == Arrival::New {
                    model.came.insert(item);
                }
                model.asked.entry(peer).or_default().remove(&item);
            }
            15 if random.below(10) == 0 => {
                session.wrong(&peer, item, now);
                if session.gave().any(|(id, gave)| id == peer && gave.wrong > 0) {
                    model.barred.insert(peer);
                }
                model.asked.remove(&peer);
            }
            16 | 17 => {
                let asked = model.asked.get(&peer).and_then(|all| all.iter().next().copied()).unwrap_or(item);
                session.elsewhere(&peer, asked, peer_id(random.below(8) as usize), now);
                model.asked.entry(peer).or_default().remove(&asked);
            }
            18 if random.below(4) == 0 => {
                session.lost(&peer, now);
                model.gone.insert(peer);
                model.asked.remove(&peer);
            }
            19 if random.below(8) == 0 && items.end <= 48 => {
                session.already(items.clone());
                model.came.extend(items);
            }
            20 if random.below(50) == 0 => session.complete(),
            _ => {
                let orders = session.next(now);
                model.orders(&session, orders);
                assert!(session.wake().is_none_or(|at| at >= now), "no spinning");
            }
        }
        session.check();
        let here = model.came.iter().filter(|item| **item < model.items).count();
        assert_eq!(session.missing() as usize, model.items as usize - here);
    }
}

#[test]
fn any_sequence_of_events() {
    for seed in 0..800 {
        play(seed * 0x9e37_79b9 + 1, 300);
    }
}

/// Any network in which the honest have everything between them.
#[test]
fn any_network_completes() {
    for seed in 1..150_u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let items = 1 + random.below(80) as u32;
        let mut net = Net::new(items, seed);
        let clients = 1 + random.below(3) as usize;
        for _ in 0..clients {
            net.client(Link::of(100.0, random.below(20)));
        }
        let mut at = 0;
        while at < items {
            // Honest parts that cover everything, overlapping here and there.
            let end = (at + 1 + random.below(u64::from(items)) as u32).min(items);
            let from = at.saturating_sub(random.below(10) as u32);
            let speed = 0.5 + random.below(200) as f64 / 4.0;
            let link = Link { loss: random.below(10) as f64 / 50.0, ..Link::of(speed, random.below(50)) };
            let honest = net.source(link, Manner::Honest, from..end);
            net.nodes[honest].refers = (random.below(2) == 0).then(|| Duration::from_secs(random.below(8)));
            at = end;
        }
        for _ in 0..random.below(8) {
            let manner = match random.below(5) {
                0 => Manner::Silent,
                1 => Manner::Lies(0.5),
                2 => Manner::Fickle,
                _ => Manner::Honest,
            };
            let speed = [0.001, 0.1, 5.0, 50.0][random.below(4) as usize];
            let from = random.below(u64::from(items)) as u32;
            let other = net.source(Link::of(speed, random.below(30)), manner, from..items);
            if random.below(3) == 0 {
                net.at(Duration::from_millis(random.below(3000)), Event::Die(other));
            }
        }
        net.run(Duration::from_secs(2000));
        let size = u64::from(items) << 20;
        for client in &net.nodes[..clients] {
            let session = client.session.as_ref().expect("a client");
            assert!(client.done.is_some(), "seed {seed}: {} of {items} are missing", session.missing());
            assert!(client.again <= size / 8 + (12 << 20), "seed {seed}: {} bytes twice", client.again);
        }
    }
}
