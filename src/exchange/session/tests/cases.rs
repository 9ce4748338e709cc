//! One client and sources of every kind.

use std::time::Duration;

use super::net::{Event, ITEM, Link, Manner, Net};

/// A download by one client.
struct Case {
    net: Net,
    client: usize,
    items: u32,
}

impl Case {
    fn new(items: u32, seed: u64, down: f64) -> Self {
        let mut net = Net::new(items, seed);
        let client = net.client(Link::of(down, 0));
        Self { net, client, items }
    }

    fn source(&mut self, megabytes: f64, delay_ms: u64, manner: Manner) -> usize {
        self.net.source(Link::of(megabytes, delay_ms), manner, 0..self.items)
    }

    /// Runs it. `megabytes` a second is what its honest sources give together: the time may be that much more than
    /// the ideal, and at most this share of the bytes may come twice.
    fn check(mut self, name: &str, megabytes: f64, factor: f64, extra: f64, again: f64) {
        let size = f64::from(self.items) * ITEM as f64;
        let ideal = size / (megabytes * 1e6);
        self.net.run(Duration::from_secs_f64(ideal * 10.0 + 600.0));
        let client = &self.net.nodes[self.client];
        let time = client.done.map_or(f64::INFINITY, |d| d.as_secs_f64());
        let twice = client.again as f64 / size;
        println!("{name}: {time:.2} s, ideal {ideal:.2} s ({:.3}), again {twice:.3}", time / ideal);
        assert!(time <= ideal * factor + extra, "{name}: {time} s, ideal {ideal}");
        assert!(twice <= again, "{name}: {twice} came twice");
    }
}

#[test]
fn one_source() {
    for (megabytes, delay) in [(1.0, 0), (12.5, 1), (120.0, 0), (120.0, 10), (1000.0, 0), (120.0, 100)] {
        let mut case = Case::new(512, 1, 2000.0);
        case.source(megabytes, delay, Manner::Honest);
        case.check(
            &format!("one of {megabytes} MB/s, {delay} ms"),
            megabytes,
            1.1,
            0.02 + 0.012 * delay as f64,
            0.0,
        );
    }
}

#[test]
fn equal_sources() {
    for (sources, delay) in [(2, 0), (4, 1), (8, 1), (16, 5)] {
        let mut case = Case::new(512, 2, 2000.0);
        for _ in 0..sources {
            case.source(12.5, delay, Manner::Honest);
        }
        case.check(
            &format!("{sources} of 12.5 MB/s, {delay} ms"),
            12.5 * f64::from(sources),
            1.15,
            0.3,
            0.02,
        );
    }
}

#[test]
fn sources_of_different_speeds() {
    for seed in 1..4 {
        let mut case = Case::new(512, seed, 2000.0);
        let speeds = [100.0, 50.0, 20.0, 10.0, 1.0, 0.2];
        for s in speeds {
            case.source(s, 1, Manner::Honest);
        }
        case.check("mixed speeds", speeds.iter().sum(), 1.2, 0.5, 0.03);
    }
    let mut case = Case::new(256, 1, 2000.0);
    case.source(100.0, 0, Manner::Honest);
    for _ in 0..15 {
        case.source(1.0, 0, Manner::Honest);
    }
    case.check("one fast, 15 slow", 115.0, 1.3, 0.5, 0.05);
}

#[test]
fn trickling_and_silent_sources_cost_little() {
    for (manner, speed, name) in [(Manner::Honest, 0.001, "trickle"), (Manner::Silent, 1.0, "silent")] {
        for bad in [1, 4, 15] {
            for items in [1, 4, 64, 512] {
                let mut case = Case::new(items, 3, 2000.0);
                for _ in 0..bad {
                    case.source(speed, 1, manner);
                }
                case.source(50.0, 1, Manner::Honest);
                case.check(
                    &format!("{bad} that {name}, {items} items"),
                    50.0,
                    1.2,
                    0.5 + f64::from(bad),
                    0.01,
                );
            }
        }
    }
}

#[test]
fn liars_are_asked_no_more() {
    for share in [1.0, 0.1] {
        let mut case = Case::new(256, 4, 2000.0);
        for _ in 0..4 {
            case.source(50.0, 1, Manner::Lies(share));
        }
        case.source(10.0, 1, Manner::Honest);
        case.check(&format!("4 that lie {share}"), 10.0, 1.1, 1.0, 0.05);
    }
}

#[test]
fn the_fickle_are_asked_again() {
    let mut case = Case::new(64, 4, 2000.0);
    case.source(50.0, 1, Manner::Fickle);
    case.source(10.0, 1, Manner::Honest);
    case.check("fickle", 10.0, 1.1, 1.0, 0.05);
}

#[test]
fn partial_sources_together() {
    // Each third is at one source alone; a fourth has every part of the first.
    let mut case = Case::new(300, 5, 2000.0);
    for part in 0..3 {
        case.net.source(Link::of(20.0, 1), Manner::Honest, part * 100..(part + 1) * 100);
    }
    case.check("thirds", 60.0, 1.15, 0.3, 0.01);
    let mut case = Case::new(300, 5, 2000.0);
    case.source(20.0, 1, Manner::Honest);
    case.net.source(Link::of(20.0, 1), Manner::Honest, 0..150);
    case.check("whole and half", 40.0, 1.25, 0.3, 0.02);
    let mut case = Case::new(300, 5, 2000.0);
    case.source(20.0, 1, Manner::Honest);
    case.net.source(Link::of(20.0, 1), Manner::Honest, 150..300);
    case.check("whole and second half", 40.0, 1.25, 0.3, 0.02);
}

#[test]
fn one_that_vanishes_costs_its_own_items_alone() {
    let mut case = Case::new(256, 6, 2000.0);
    let first = case.source(50.0, 1, Manner::Honest);
    case.source(50.0, 1, Manner::Honest);
    case.net.at(Duration::from_secs(1), Event::Die(first));
    let sent = |net: &Net| net.nodes.iter().map(|n| n.sent).sum::<u64>();
    let size = 256 * ITEM;
    case.net.run(Duration::from_secs(100));
    let done = case.net.nodes[case.client].done.expect("all came").as_secs_f64();
    // A second at twice the speed, the rest at one.
    let ideal = 1.0 + (size as f64 - 100e6) / 50e6;
    println!("vanish: {done:.2}, ideal {ideal:.2}, sent {:.4}", sent(&case.net) as f64 / size as f64);
    assert!(done < ideal * 1.05 + 0.3);
    assert_eq!(case.net.nodes[case.client].again, 0);
}

#[test]
fn a_source_in_progress_is_followed() {
    // It gets 10 MB/s itself; the client is never far behind.
    let mut case = Case::new(128, 7, 2000.0);
    let source = case.net.source(Link::of(100.0, 1), Manner::Honest, 0..0);
    for n in 0..128 {
        let when = Duration::from_secs_f64(f64::from(n + 1) * ITEM as f64 / 10e6);
        case.net.at(when, Event::Gets(source, n..n + 1));
    }
    case.check("in progress", 10.0, 1.0, 0.05, 0.0);
}

#[test]
fn loss_and_delay() {
    for (loss, delay) in [(0.01, 1), (0.05, 10), (0.2, 20)] {
        let mut case = Case::new(256, 8, 2000.0);
        for _ in 0..4 {
            let link = Link { loss, ..Link::of(12.5, delay) };
            case.net.source(link, Manner::Honest, 0..256);
        }
        case.check(&format!("loss {loss}, {delay} ms"), 50.0, 1.4, 0.5, 0.05);
    }
}

#[test]
fn mostly_in_order() {
    let mut case = Case::new(256, 9, 2000.0);
    for s in [50.0, 50.0, 10.0, 2.0] {
        case.source(s, 1, Manner::Honest);
    }
    case.net.run(Duration::from_secs(100));
    let came = &case.net.nodes[case.client].came;
    // How long a reader who takes items in order is behind the number of items that came by then.
    let mut order: Vec<Duration> = came.iter().map(|c| c.expect("all came")).collect();
    let mut front = Duration::ZERO;
    let readable: Vec<Duration> = order
        .iter()
        .map(|c| {
            front = front.max(*c);
            front
        })
        .collect();
    order.sort_unstable();
    let behind = readable.iter().zip(&order).map(|(r, o)| r.saturating_sub(*o)).max().expect("items");
    println!("a reader is {behind:?} behind at most, first after {:?}", readable[0]);
    assert!(behind < Duration::from_millis(500), "{behind:?}");
}
