//! What a node says to peers that behave, and does with those that do not.

use std::time::Duration;

use dpm::base::{Cid, Sha256, raw_cid};
use dpm::swarm::Swarm;
use dpm::unixfs::LayoutBuilder;
use dpm::wire::bitswap::{Message, PayloadBlock, PresenceKind, WantType};
use futures_lite::AsyncWriteExt;
use futures_lite::future::block_on;

use super::stranger::{Manner, Stranger};
use super::{WHEEL, alone, fetch, holder};
use crate::support::{Latch, Node, Project, Upstream, bytes, until};

/// CIDs of a file: its leaves, then its nodes, the root last.
pub fn cids(file: &[u8]) -> Vec<Cid> {
    let mut builder = LayoutBuilder::default();
    builder.update(file);
    let layout = builder.finish();
    let leaves = layout.leaves.iter().map(|leaf| raw_cid(*leaf));
    leaves.chain(layout.tree().1.iter().map(|node| node.cid)).collect()
}

/// A CID that nobody has.
pub fn absent(n: u32) -> Cid {
    raw_cid(Sha256::of(&n.to_le_bytes()))
}

/// What a stranger is told until it has been told of so many blocks: (presences, blocks).
fn told(stranger: &Stranger, count: usize) -> (Vec<(Cid, PresenceKind)>, Vec<Cid>) {
    let (mut presences, mut blocks) = (Vec::new(), Vec::new());
    while presences.len() + blocks.len() < count {
        let message = stranger.hear();
        presences.extend(message.presences.iter().map(|p| (p.cid, p.kind)));
        blocks.extend(message.payload.iter().map(|b| b.cid().expect("a SHA-256")));
    }
    (presences, blocks)
}

#[test]
fn words_and_blocks() {
    let holder = holder(WHEEL);
    let stranger = Stranger::of(&holder.node, Manner::Listens);
    let all = cids(&holder.project.bytes);
    let (leaf, root) = (all[0], *all.last().unwrap());
    stranger.want(&[leaf, absent(1)], WantType::Have, true);
    let (mut presences, blocks) = told(&stranger, 2);
    presences.sort_by_key(|(cid, _)| *cid != leaf);
    assert_eq!(presences, [(leaf, PresenceKind::Have), (absent(1), PresenceKind::DontHave)]);
    assert_eq!(blocks, []);
    // The root is smaller than its word is worth.
    stranger.want(&[root], WantType::Have, true);
    assert_eq!(told(&stranger, 1), (vec![], vec![root]));
    // Silence about what is absent, when that was asked for; blocks, never word of them.
    stranger.want(&[absent(2), leaf], WantType::Block, false);
    assert_eq!(told(&stranger, 1), (vec![], vec![leaf]));
    // By another name it is given under that name.
    let other = Cid::new_v0(*root.hash()).unwrap();
    stranger.want(&[other], WantType::Block, true);
    assert_eq!(told(&stranger, 1), (vec![], vec![other]));
}

#[test]
fn what_was_absent_is_given_when_it_comes() {
    let upstream = Upstream::start();
    let project = Project::new("demo", WHEEL).publish(&upstream);
    let node = Node::village(1, &upstream.url("/simple/")).remove(0);
    let stranger = Stranger::of(&node, Manner::Listens);
    let all = cids(&project.bytes);
    stranger.want(&all, WantType::Block, true);
    let (presences, blocks) = told(&stranger, all.len());
    assert!(presences.iter().all(|(_, kind)| *kind == PresenceKind::DontHave) && blocks.is_empty());
    assert_eq!(node.get(&project.file()).status, 200);
    let (presences, mut blocks) = told(&stranger, all.len());
    blocks.sort_by_key(|cid| all.iter().position(|c| c == cid));
    assert!(presences.is_empty() && blocks == all);
    // Once.
    assert_eq!(stranger.hear_within(Duration::from_millis(300)), None);
}

#[test]
fn ten_thousand_wants() {
    let holder = holder(WHEEL);
    let stranger = Stranger::of(&holder.node, Manner::Listens);
    let many: Vec<Cid> = (0..10_000).map(absent).collect();
    stranger.want(&many, WantType::Block, true);
    let (presences, _) = told(&stranger, 1024);
    assert_eq!(presences.len(), 1024, "as many as a peer may have");
    for part in many[2000..].chunks(1000) {
        stranger.want(part, WantType::Block, true);
        assert_eq!(told(&stranger, part.len()).0.len(), part.len(), "the old ones give way");
    }
    let leaf = cids(&holder.project.bytes)[0];
    stranger.want(&[leaf], WantType::Block, true);
    assert_eq!(told(&stranger, 1), (vec![], vec![leaf]));
}

#[test]
fn private_artifacts_are_as_good_as_absent() {
    let upstream = Upstream::start();
    let project = Project::new("demo", WHEEL).publish(&upstream);
    let small = Project::new("small", 5000).publish(&upstream);
    let refused = |change: fn(&mut dpm::config::Config)| {
        let mut nodes = Node::village_with(1, &upstream.url("/simple/"), |_, config, _| change(config));
        let node = nodes.remove(0);
        for project in [&project, &small] {
            assert_eq!(node.get(&project.file()).status, 200);
        }
        node.settle();
        let stranger = Stranger::of(&node, Manner::Listens);
        let mut all = cids(&project.bytes);
        all.push(raw_cid(small.sha256));
        for kind in [WantType::Have, WantType::Block] {
            stranger.want(&all, kind, true);
            let (presences, blocks) = told(&stranger, all.len());
            assert!(blocks.is_empty());
            assert!(presences.iter().all(|(_, kind)| *kind == PresenceKind::DontHave));
        }
        assert_eq!(node.exchange().counters().given_bytes.load(std::sync::atomic::Ordering::Relaxed), 0);
    };
    refused(|config| config.pypi[0].private = true);
    refused(|config| config.near.share = dpm::config::Share::Off);
}

#[test]
fn who_never_reads_holds_nobody_up() {
    let holder = holder(40 << 20);
    let deaf: Vec<Stranger> = (0..3).map(|_| Stranger::of(&holder.node, Manner::Deaf)).collect();
    let all = cids(&holder.project.bytes);
    for stranger in &deaf {
        stranger.want(&all, WantType::Block, true);
    }
    let node = beside(&holder.node);
    fetch(&node, &holder.cid, &[], &holder.project.bytes);
}

/// A node that is connected to another.
fn beside(other: &Node) -> Node {
    let node = alone();
    let (peer, address) = other.as_peer();
    swarm(&node).dial(peer, vec![address]);
    until("they are connected", || node.neighbours() == 1);
    node
}

fn swarm(node: &Node) -> &Swarm {
    &node.daemon().rooms().near.as_ref().expect("a swarm").0
}

fn strikes(node: &Node, stranger: &Stranger) -> u32 {
    let row = node.exchange().peers().list().into_iter().find(|row| row.peer == stranger.id());
    row.map_or(0, |row| row.strikes)
}

#[test]
fn blocks_that_nobody_asked_for() {
    let holder = holder(WHEEL);
    let stranger = Stranger::of(&holder.node, Manner::Listens);
    // More than any wantlist: it is not even read.
    let large = bytes(2 << 20);
    let block = PayloadBlock::new(&raw_cid(Sha256::of(&large)), large.into());
    for _ in 0..40 {
        stranger.send(&Message { payload: vec![block.clone()], ..Message::default() });
    }
    assert_eq!(strikes(&holder.node, &stranger), 0, "nothing of it was looked at");
    let small =
        Message { payload: vec![PayloadBlock::new(&absent(1), vec![7; 1000].into())], ..Message::default() };
    stranger.send(&small);
    until("it is struck", || strikes(&holder.node, &stranger) == 1);
    stranger.send(&small);
    until("it is shown the door", || !swarm(&holder.node).peers().iter().any(|p| p.peer == stranger.id()));
    let node = beside(&holder.node);
    fetch(&node, &holder.cid, &[], &holder.project.bytes);
}

#[test]
fn what_is_no_message() {
    let holder = holder(WHEEL);
    let stranger = Stranger::of(&holder.node, Manner::Listens);
    let mut want = Message { pending_bytes: 7, ..Message::default() }.frame().concat();
    want.truncate(want.len() - 1);
    let cases: [&[u8]; 6] = [
        b"",
        &want,
        &[0xff; 12],
        // A frame of 5 MiB is announced.
        &[0x80, 0x80, 0xc0, 0x02, 0],
        &[3, 0xff, 0xff, 0xff],
        &[0; 4096],
    ];
    for bytes in cases {
        stranger.send_bytes(bytes);
    }
    let leaf = cids(&holder.project.bytes)[0];
    stranger.want(&[leaf], WantType::Block, true);
    assert_eq!(told(&stranger, 1), (vec![], vec![leaf]));
}

#[test]
fn a_liar_among_those_who_have_it() {
    let holder = holder(WHEEL);
    let node = beside(&holder.node);
    let liar = Stranger::of(&node, Manner::Listens);
    let (honest, _) = holder.node.as_peer();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Whatever it is asked for, it sends something else under that name.
            while let Some(message) = liar.hear_within(Duration::from_secs(3)) {
                let wants = message.wantlist.into_iter().flat_map(|list| list.entries);
                let payload = wants
                    .filter(|entry| !entry.cancel)
                    .map(|entry| PayloadBlock::new(&entry.cid, vec![7; 500].into()));
                let payload: Vec<_> = payload.collect();
                if !payload.is_empty() {
                    liar.send(&Message { payload, ..Message::default() });
                    return;
                }
            }
        });
        let fetched = fetch(&node, &holder.cid, &[liar.id(), honest], &holder.project.bytes);
        assert!(fetched.gave.iter().all(|(peer, ..)| *peer == honest), "{fetched:?}");
        assert_eq!(strikes(&node, &liar), 1);
    });
}

/// What a stranger does about a block that it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gives {
    Nothing,
    OtherBytes,
    /// The right ones, a few at a time, and never the last.
    Slowly,
}

impl Gives {
    /// Waits until the block is wanted, and gives until nobody waits any more.
    fn answer(self, stranger: &Stranger, file: &[u8], over: &Latch) {
        let cid = raw_cid(Sha256::of(file));
        let wants = |message: &Message| {
            message.wantlist.iter().flat_map(|list| &list.entries).any(|e| e.cid == cid && !e.cancel)
        };
        while !wants(&stranger.hear()) {}
        let bytes = if self == Self::OtherBytes { vec![7; 500] } else { file.to_vec() };
        let message = Message { payload: vec![PayloadBlock::new(&cid, bytes.into())], ..Message::default() };
        match self {
            Self::Nothing => {}
            Self::OtherBytes => stranger.send(&message),
            Self::Slowly => {
                let (frame, mut stream) = (message.frame().concat(), stranger.open());
                for part in frame[..frame.len() / 2].chunks(1000) {
                    // A node that has had enough closes it.
                    if over.is_open() || block_on(stream.write_all(part)).is_err() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(20));
                }
                over.pass();
            }
        }
    }
}

/// A client of a node whose only neighbour is an IPFS node of that kind gets the right file, from the upstream.
#[test]
fn strangers_that_give_nothing_of_use_are_not_noticed_by_a_client() {
    let upstream = Upstream::start();
    for (n, gives) in [Gives::Nothing, Gives::OtherBytes, Gives::Slowly].into_iter().enumerate() {
        let project = Project::new(&format!("demo-{n}"), 700_000 + n).publish(&upstream);
        let node = Node::village_with(1, &upstream.url("/simple/"), |_, _, tuning| {
            tuning.patience = dpm::exchange::Patience::default();
        })
        .remove(0);
        let stranger = Stranger::of(&node, Manner::Listens);
        until("it is known for an IPFS node", || node.exchange().has_strangers());
        let over = Latch::default();
        std::thread::scope(|scope| {
            let answering = scope.spawn(|| gives.answer(&stranger, &project.bytes, &over));
            let answer = node.get(&project.file());
            over.open();
            assert_eq!((answer.status, answer.cache()), (200, "MISS"), "{gives:?}");
            assert!(answer.body == project.bytes, "{gives:?}: other bytes");
            answering.join().expect("it was asked");
        });
        assert_eq!(upstream.hits(&project.file_path()), 1, "{gives:?}");
        node.settle();
        let lies = u32::from(gives == Gives::OtherBytes);
        until("it is struck if it lied", || strikes(&node, &stranger) == lies);
        assert_eq!(node.get(&project.file()).cache(), "HIT", "{gives:?}");
    }
}

#[test]
fn nobody_has_it() {
    let holder = holder(WHEEL);
    let node = beside(&holder.node);
    let limits = dpm::exchange::DagLimits { patience: Duration::from_millis(300), ..Default::default() };
    let fetching = |peers: &[dpm::base::PeerId]| {
        let fetched = node.exchange().fetch_file(absent(9), peers, limits.clone(), |_, _| Ok(()));
        futures_lite::future::block_on(fetched).unwrap_err()
    };
    assert!(matches!(fetching(&[]), dpm::exchange::FetchError::Stalled { missing: 1 }));
    let unknown = dpm::swarm::Identity::fresh().peer_id();
    assert!(matches!(fetching(&[unknown]), dpm::exchange::FetchError::NoPeers));
}
