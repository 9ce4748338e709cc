//! Many that want the same from one: it goes out once, and they have it from each other.

use std::time::Duration;

use super::net::{Event, ITEM, Link, Manner, Net};

struct Crowd {
    nodes: usize,
    items: u32,
    megabytes: f64,
    delay_ms: u64,
    /// For how long a node sends others elsewhere for what it gave.
    refers: f64,
    /// Not the source alone does so.
    all_refer: bool,
    /// The source gets it itself at this speed, in MB/s.
    in_progress: Option<f64>,
    /// A member that dies after so many seconds.
    dies: Option<f64>,
    /// One member has no delay.
    near: bool,
}

const CROWD: Crowd = Crowd {
    nodes: 8,
    items: 256,
    megabytes: 12.5,
    delay_ms: 1,
    refers: 5.0,
    all_refer: false,
    in_progress: None,
    dies: None,
    near: false,
};

impl Crowd {
    /// `time`: until all have everything, over the time of one transfer at the same speed, at most. `egress`: what the
    /// source sent, over the size, at most.
    fn check(&self, time: f64, egress: f64) {
        let mut net = Net::new(self.items, 1);
        let link = Link::of(self.megabytes, self.delay_ms);
        let has = if self.in_progress.is_some() { 0..0 } else { 0..self.items };
        let source = net.source(link.clone(), Manner::Honest, has);
        let clients: Vec<usize> = (0..self.nodes).map(|_| net.client(link.clone())).collect();
        let refers = Some(Duration::from_secs_f64(self.refers));
        net.nodes[source].refers = refers;
        clients.iter().filter(|_| self.all_refer).for_each(|c| net.nodes[*c].refers = refers);
        if let Some(speed) = self.in_progress {
            for n in 0..self.items {
                let when = Duration::from_secs_f64(f64::from(n + 1) * ITEM as f64 / (speed * 1e6));
                net.at(when, Event::Gets(source, n..n + 1));
            }
        }
        if self.near {
            net.nodes[clients[0]].link.delay = Duration::ZERO;
        }
        if let Some(when) = self.dies {
            net.at(Duration::from_secs_f64(when), Event::Die(clients[0]));
        }
        let size = f64::from(self.items) * ITEM as f64;
        let one = size / (self.in_progress.unwrap_or(self.megabytes).min(self.megabytes) * 1e6);
        net.run(Duration::from_secs_f64(20.0 * one + 60.0));

        let living = || clients.iter().map(|c| &net.nodes[*c]).filter(|node| node.alive);
        let last = living().map(|node| node.done.unwrap_or(Duration::MAX)).max().expect("members");
        let again = living().map(|node| node.again as f64 / size).fold(0.0, f64::max);
        let from = &net.nodes[source];
        let (took, sent) = (last.as_secs_f64() / one, from.sent as f64 / size);
        println!(
            "{} nodes, {} items, {} MB/s, {} ms, refers {} s, all {}, in progress {:?}, dies {:?}: time {took:.3}, \
             egress {sent:.3}, again {again:.3}; {} wants, {} elsewhere, {} insisted",
            self.nodes,
            self.items,
            self.megabytes,
            self.delay_ms,
            self.refers,
            self.all_refer,
            self.in_progress,
            self.dies,
            from.wants,
            from.elsewhere,
            from.insisted
        );
        assert!(took <= time && sent <= egress, "time {took} of {time}, egress {sent} of {egress}");
        assert!(again <= 0.06, "{again} came twice");
    }
}

#[test]
fn eight_nodes_and_one_source() {
    CROWD.check(1.1, 1.01);
    Crowd { delay_ms: 20, ..CROWD }.check(1.25, 1.02);
    Crowd { megabytes: 120.0, ..CROWD }.check(1.1, 1.01);
    Crowd { megabytes: 120.0, delay_ms: 20, ..CROWD }.check(1.3, 1.02);
    Crowd { megabytes: 1.0, ..CROWD }.check(1.25, 1.05);
}

#[test]
fn all_of_them_refer() {
    Crowd { all_refer: true, ..CROWD }.check(1.2, 1.02);
    Crowd { all_refer: true, megabytes: 120.0, ..CROWD }.check(1.2, 1.02);
    Crowd { all_refer: true, megabytes: 1.0, ..CROWD }.check(1.35, 1.05);
}

#[test]
fn other_crowds() {
    Crowd { nodes: 2, ..CROWD }.check(1.1, 1.01);
    Crowd { nodes: 16, items: 128, ..CROWD }.check(1.3, 1.02);
    Crowd { refers: 1.0, ..CROWD }.check(1.2, 1.05);
    // The last item goes from one to the other seven, whatever is done: that is 7 of 32 item times more.
    Crowd { items: 32, ..CROWD }.check(1.5, 1.05);
}

#[test]
fn the_source_is_in_progress() {
    Crowd { in_progress: Some(12.5), ..CROWD }.check(1.15, 1.02);
    Crowd { in_progress: Some(12.5), all_refer: true, ..CROWD }.check(1.2, 1.02);
    Crowd { in_progress: Some(5.0), ..CROWD }.check(1.1, 1.15);
}

#[test]
fn one_member_is_nearer_to_the_source() {
    // It is always heard first, and given everything. Were the source alone to send others elsewhere, it would have to
    // pass all of it on: 6 times the time. As it sends them on in its turn, it need not.
    let near = Crowd { near: true, delay_ms: 3, all_refer: true, ..CROWD };
    Crowd { in_progress: Some(12.5), ..near }.check(1.25, 1.05);
    Crowd { in_progress: Some(5.0), ..near }.check(1.25, 1.05);
    near.check(1.25, 1.05);
}

#[test]
fn a_member_dies() {
    Crowd { dies: Some(5.0), ..CROWD }.check(1.25, 1.1);
}
