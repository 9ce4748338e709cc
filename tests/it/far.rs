//! Members of a room that are not near: what they are given, asked and told, and what they give.

use std::net::UdpSocket;
use std::sync::atomic::Ordering;

use dpm::base::{PeerId, dag_cbor_cid, raw_cid, sha256_of_cid};
use dpm::catalogue::{Change, Entry};
use dpm::daemon::{Order, RoomOrder};
use dpm::exchange::{BlocksError, chunks_of};
use dpm::members::Mode;
use dpm::peers::Circle;
use dpm::swarm::Identity;
use dpm::wire::bitswap::{Message, PayloadBlock, PresenceKind, WantType};
use dpm::wire::near::{Held, Offer, Offers, Open, Tell};
use dpm::wire::room::Allow;
use futures_lite::future::block_on;

use crate::bitswap::stranger::{Manner, Stranger};
use crate::near::refuse;
use crate::support::liar::{CHUNK, Files, Liar, Manners};
use crate::support::member::{
    Member, ROOM, built, distant, distant_with, listed as entry, members, publishes,
};
use crate::support::{Fault, LIMIT, Latch, Node, Project, Upstream, get, random_bytes, until};

/// Three chunks, the last one short.
const LARGE: usize = 2 * CHUNK + 12_345;

/// Two nodes that hear of each other in a room.
fn acquainted(a: &Node, b: &Node) -> (Member, Member) {
    let (mut alice, mut bob) = (Member::with("alice", a), Member::with("bob", b));
    alice.announces(b, None);
    bob.announces(a, None);
    (alice, bob)
}

/// One with a node of the test's.
fn member(name: &str, liar: &Liar) -> Member {
    Member::at(name, liar.identity(), &liar.address())
}

#[track_caller]
fn connect(a: &Node, b: &Node) {
    let (peer, address) = b.as_peer();
    a.daemon().rooms().near.as_ref().expect("a swarm").0.dial(peer, vec![address]);
    for (node, other) in [(a, b), (b, a)] {
        let other = other.as_peer().0;
        until("they are connected", || node.exchange().peers().nodes_of(Circle::Far).contains(&other));
    }
}

/// Asks a node, as a member that is connected with it, whether it has these.
fn ask(liar: &Liar, node: &Node, projects: &[&Project]) -> Vec<Offer> {
    let digests = projects.iter().map(|project| project.sha256.digest()).collect();
    let open = Open::Ask { digests, claim: true };
    let mut mouth = liar.open(node.as_peer().0, &open.frame()).expect("a stream");
    let frame = block_on(mouth.hear()).expect("an answer").expect("a frame");
    Offers::decode(&frame).expect("offers").offers
}

/// The first word of a node of whom this is to be taken.
fn take(liar: &Liar, node: &Node, project: &Project) -> Tell {
    let open = Open::Take { digest: project.sha256.digest() };
    let mut mouth = liar.open(node.as_peer().0, &open.frame()).expect("a stream");
    let frame = block_on(mouth.hear()).expect("an answer").expect("a frame");
    Tell::decode(&frame).expect("a word")
}

/// How many of a node's catalogue's blocks it gives.
fn blocks_given(liar: &Liar, node: &Node) -> usize {
    let root = members(node).own(ROOM).expect("a catalogue");
    let open = Open::Blocks { hashes: vec![root.hash; 3] };
    let mut mouth = liar.open(node.as_peer().0, &open.frame()).expect("a stream");
    let mut given = 0;
    while let Some(frame) = block_on(mouth.hear()).expect("an answer") {
        if let Held::Block { length } = Held::decode(&frame).expect("a word") {
            let mut bytes = vec![0; length as usize];
            block_on(futures_lite::AsyncReadExt::read_exact(&mut mouth.stream, &mut bytes)).expect("a block");
            assert_eq!(dpm::base::Sha256::of(&bytes), root.hash);
            given += 1;
        }
    }
    given
}

#[test]
fn a_member_is_given_what_is_listed_and_told_nothing() {
    let upstream = Upstream::start();
    let listed = Project::new("listed", LARGE).publish(&upstream);
    let other = Project::new("other", LARGE + 1).publish(&upstream);
    let friend = Liar::start(Manners::new());
    let node = distant_with(&upstream.url("/simple/"), |config| {
        config.near.peers = vec![(friend.peer(), friend.address())];
    });
    let liar = Liar::start(Manners::new());
    let mut member = member("bob", &liar);
    member.announces(&node, None);
    friend.meet(&node);
    liar.meet(&node);
    until("who is near is told the news", || friend.told() > 0);
    for project in [&listed, &other] {
        node.get(&project.file());
        node.settle();
    }
    publishes(&node, &[entry(&listed)]);
    let offers = ask(&liar, &node, &[&listed, &other]);
    assert!(matches!(offers[..], [Offer::Whole { .. }, Offer::Nothing]), "{offers:?}");
    assert!(matches!(take(&liar, &node, &listed), Tell::Head { .. }));
    assert!(matches!(take(&liar, &node, &other), Tell::Gone { .. }));
    assert_eq!(blocks_given(&liar, &node), 3);
    // Who is near is given both, and a claim of who is not holds nobody up.
    let offers = ask(&friend, &node, &[&listed, &other]);
    assert!(matches!(offers[..], [Offer::Whole { .. }, Offer::Whole { .. }]), "{offers:?}");
    assert_eq!((liar.told(), liar.asked(), liar.taken()), (0, 0, 0));
    // What it says it has is not believed: it would be asked for it.
    let news = dpm::wire::near::News { added: vec![other.sha256], reset: true, ..Default::default() };
    let mut mouth = liar.open(node.as_peer().0, &Open::News(news).frame()).expect("a stream");
    assert!(!matches!(block_on(mouth.hear()), Ok(Some(_))), "the stream is closed");
    assert_eq!(node.exchange().peers().holders(&other.sha256), [] as [PeerId; 0]);
    // Gone from the room, it is a stranger.
    member.leaves(&node);
    assert!(matches!(ask(&liar, &node, &[&listed])[..], [Offer::Nothing]));
    assert!(matches!(take(&liar, &node, &listed), Tell::Gone { .. }));
    assert_eq!(blocks_given(&liar, &node), 0);
    until("it is parted with", || !node.exchange().peers().is_connected(&liar.peer()));
    assert!(node.exchange().peers().is_connected(&friend.peer()));
}

#[test]
fn bitswap_gives_a_member_what_is_listed() {
    let upstream = Upstream::start();
    let listed = Project::new("listed", LARGE).publish(&upstream);
    // Its first chunk is the same.
    let longer = [&listed.bytes[..CHUNK], &random_bytes(1, 3 * CHUNK)].concat();
    let other = Project::of("other", longer).publish(&upstream);
    let node = distant(&upstream.url("/simple/"));
    for project in [&other, &listed] {
        node.get(&project.file());
        node.settle();
    }
    let root = publishes(&node, &[entry(&listed)]);
    let identity = Identity::fresh();
    let mut member = Member::at("bob", &identity, &node.as_peer().1);
    member.announces(&node, None);
    let stranger = Stranger::known(&node, Manner::Listens, identity);
    let leaf = |project: &Project, n| raw_cid(crate::support::liar::leaves(&project.bytes)[n]);
    let has = |cids: &[dpm::base::Cid]| {
        stranger.want(cids, WantType::Block, true);
        let (mut given, mut denied) = (Vec::new(), Vec::new());
        while given.len() + denied.len() < cids.len() {
            let message = stranger.hear();
            given.extend(message.payload.iter().map(|block| block.cid().expect("a CID")));
            let absent = message.presences.iter().filter(|p| p.kind == PresenceKind::DontHave);
            denied.extend(absent.map(|p| p.cid));
        }
        given.len()
    };
    let own = node.stored(&listed.sha256).unwrap().root.unwrap();
    assert_eq!(has(&[own, leaf(&listed, 0), leaf(&listed, 2), root.cid()]), 4);
    let theirs = node.stored(&other.sha256).unwrap().root.unwrap();
    assert_eq!(leaf(&listed, 0), leaf(&other, 0), "one block of two artifacts");
    assert_eq!(has(&[theirs, leaf(&other, 2), leaf(&other, 3)]), 0);
    member.leaves(&node);
    assert_eq!(has(&[own, leaf(&listed, 2), root.cid()]), 0);
}

#[test]
fn a_member_is_asked_for_what_it_lists_and_nothing_else() {
    let upstream = Upstream::start();
    let node = distant(&upstream.url("/simple/"));
    let publish = |name, size| Project::new(name, size).publish(&upstream);
    let (listed, other, later) =
        (publish("listed", LARGE), publish("other", LARGE + 1), publish("later", LARGE + 2));
    let tiny = publish("tiny", 30_000);
    let files = Files::default();
    [&listed, &other, &later, &tiny].iter().for_each(|project| files.add(&project.bytes));
    let liar = Liar::start(gives(&files, |_, _| {}));
    let mut member = member("bob", &liar).has([&listed, &later, &tiny].map(entry));
    member.tells(&node);
    liar.meet(&node);
    assert_eq!(node.get(&other.file()).cache(), "MISS");
    assert_eq!((liar.asked(), liar.taken()), (0, 0));
    refuse(&upstream, &listed);
    let answer = node.get(&listed.file());
    assert_eq!((answer.status, answer.cache()), (200, "PEER"));
    assert!(answer.body == listed.bytes);
    assert!(liar.asked() == 0 && liar.taken() > 0, "taking is the question");
    assert_eq!(node.get(&tiny.file()).cache(), "PEER");
    let taken = liar.taken();
    member.leaves(&node);
    assert_eq!(node.get(&later.file()).cache(), "MISS");
    assert_eq!((liar.asked(), liar.taken()), (0, taken));
}

/// Has all of a file, and gives it so.
fn gives(files: &Files, twist: impl Fn(u32, &mut Vec<u8>) + Clone + Send + Sync + 'static) -> Manners {
    let files = files.clone();
    Manners::new().gives(move |mut mouth| {
        let (file, twist) = (files.of(mouth.digest), twist.clone());
        async move {
            mouth.claim(&file).await?;
            mouth.serve(&file, twist).await
        }
    })
}

#[test]
fn a_liar_among_members() {
    let upstream = Upstream::start();
    let node = distant(&upstream.url("/simple/"));
    let project = Project::new("demo", LARGE).publish(&upstream);
    let files = Files::default();
    files.add(&project.bytes);
    let liar = Liar::start(gives(&files, |n, bytes| bytes[0] ^= u8::from(n == 1)));
    member("bob", &liar).has([entry(&project)]).tells(&node);
    liar.meet(&node);
    let answer = node.get(&project.file());
    assert_eq!((answer.status, answer.cache()), (200, "MISS"));
    assert!(answer.body == project.bytes);
    assert_eq!((liar.taken(), liar.strikes(&node)), (1, 1));
}

#[test]
fn what_a_member_gives_those_near_have_too_while_it_comes() {
    let upstream = Upstream::start();
    let project = Project::new("demo", 5 * LARGE).publish(&upstream);
    let url = upstream.url("/simple/");
    let mut here = distant(&url);
    // Who is in no room, and on the LAN of one that is.
    let beside = distant_with(&url, |config| config.near.peers = vec![here.as_peer()]);
    here.restart(|config, _| config.near.peers = vec![beside.as_peer()]);
    until("they are near each other", || here.neighbours() + beside.neighbours() == 2);
    let (files, latch) = (Files::default(), Latch::default());
    files.add(&project.bytes);
    let (gate, wanted) = (latch.clone(), chunks_of(project.bytes.len() as u64) - 1);
    // All but one chunk, as long as nobody says so.
    let liar = Liar::start(gives(&files, move |n, _| {
        if n == wanted {
            gate.pass();
        }
    }));
    member("bob", &liar).has([entry(&project)]).tells(&here);
    liar.meet(&here);
    refuse(&upstream, &project);
    beside.get(&project.page());
    let first = here.url(&project.file());
    let first = std::thread::spawn(move || get(&first));
    let taken = |node: &Node| node.exchange().counters().taken_bytes.load(Ordering::Relaxed);
    until("the member gives", || taken(&here) > 0);
    let second = beside.url(&project.file());
    let second = std::thread::spawn(move || get(&second));
    until("it is handed on", || taken(&beside) > 0);
    latch.open();
    for client in [first, second] {
        let answer = client.join().unwrap();
        assert_eq!((answer.status, answer.cache()), (200, "PEER"));
        assert!(answer.body == project.bytes);
    }
    assert_eq!(beside.exchange().peers().connected(), [here.as_peer().0]);
}

#[test]
fn who_lists_what_it_has_no_more() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let url = upstream.url("/simple/");
    let (far, here) = (distant(&url), distant(&url));
    far.get(&project.file());
    far.settle();
    let (alice, _) = acquainted(&far, &here);
    publishes(&far, &[entry(&project)]);
    alice.has([entry(&project)]).tells(&here);
    connect(&here, &far);
    far.order(&Order::Purge(format!("sha256:{}", project.sha256)));
    let answer = here.get(&project.file());
    assert_eq!((answer.status, answer.cache()), (200, "MISS"));
    let row = crate::support::liar::row(&here, &far.as_peer().0);
    assert_eq!((row["strikes"].as_u64(), row["let_downs"].as_u64()), (Some(0), Some(0)), "{row:#}");
}

#[test]
fn members_are_dialled_when_nobody_else_is_left() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let url = upstream.url("/simple/");
    let (far, here) = (distant(&url), distant(&url));
    far.get(&project.file());
    far.settle();
    let (alice, _) = acquainted(&far, &here);
    publishes(&far, &[entry(&project)]);
    let mut alice = alice.has([entry(&project)]);
    alice.tells(&here);
    here.get(&project.page());
    assert!(here.exchange().peers().connected().is_empty());
    refuse(&upstream, &project);
    let answer = here.get(&project.file());
    assert_eq!((answer.status, answer.cache()), (200, "PEER"));
    assert!(answer.body == project.bytes);
    // Where nobody answers, the upstream's failure is what is said.
    let mut far = far;
    far.stop();
    let other = Project::new("other", LARGE + 1).publish(&upstream);
    alice.has([entry(&other)]).tells(&here);
    refuse(&upstream, &other);
    let begun = std::time::Instant::now();
    assert_eq!(here.get(&other.file()).status, 502);
    assert!(begun.elapsed() < LIMIT);
}

/// What a member says of where it is has nothing sent to this machine or the network around it, unless that is allowed.
#[test]
fn addresses_near_are_dialled_only_where_that_is_allowed() {
    let upstream = Upstream::start();
    let project = Project::new("demo", 1000).publish(&upstream);
    refuse(&upstream, &project);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_nonblocking(true).expect("a socket");
    let port = socket.local_addr().expect("its address").port();
    let addresses = ["ip4/127.0.0.1", "ip6/::ffff:127.0.0.1", "dns4/localhost"]
        .map(|host| format!("/{host}/udp/{port}/quic-v1"));
    let has_come = || socket.recv(&mut [0; 2048]).is_ok();
    for (allow, refused) in [(Allow::Global, 3), (Allow::Near, 1)] {
        let node = distant_with(&upstream.url("/simple/"), |config| config.rooms.addresses = allow);
        Member::new("eve", 9).reached_at(&addresses).has([entry(&project)]).tells(&node);
        assert_eq!(members(&node).rooms()[0].nodes[0].refused_addresses.len(), refused);
        // It is looked now whom to stay connected with, and for the file nobody else is left: three seconds are waited.
        let mirror = RoomOrder::Mirror { room: ROOM.into(), mode: Mode::Lazy };
        node.order(&Order::Room(mirror));
        assert_eq!(node.get(&project.file()).status, 502);
        match allow {
            Allow::Global => assert!(!has_come()),
            Allow::Near => until("it is dialled", has_come),
        }
    }
}

#[test]
fn names_and_bytes_of_members_alone() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE).publish(&upstream);
    let url = upstream.url("/simple/");
    let (far, here) = (distant(&url), distant(&url));
    far.get(&project.file());
    far.settle();
    upstream.broken(&project.page_path(), Fault::Says("502 Broken"));
    upstream.broken(&project.file_path(), Fault::Says("502 Broken"));
    let (alice, _) = acquainted(&far, &here);
    publishes(&far, &[entry(&project)]);
    alice.has([entry(&project)]).tells(&here);
    // Not even connected before: the room says where it is.
    let page = here.get(&project.page());
    assert_eq!((page.status, page.cache()), (200, "ROOM"), "{}", page.text());
    let answer = here.get(&project.file());
    assert_eq!((answer.status, answer.cache()), (200, "PEER"), "{}", answer.text());
    assert!(answer.body == project.bytes);
}

/// As many entries as `ROOMS.md` has 2,019 blocks of.
fn five_thousand() -> Vec<Entry> {
    let one = Project::new("demo", 10);
    let entries = 1..=5000_u64;
    entries
        .map(|i| {
            let purl = dpm::base::PackageUrl::parse(&format!("pkg:pypi/package-{}@{i}", i % 100)).unwrap();
            Entry { purl, file: format!("package-{i}.zip"), ..entry(&one) }
        })
        .collect()
}

#[test]
fn a_catalogue_takes_few_questions() {
    let upstream = Upstream::start();
    let url = upstream.url("/simple/");
    let (far, here) = (distant(&url), distant(&url));
    let (mut alice, bob) = acquainted(&far, &here);
    connect(&here, &far);
    let entries = five_thousand();
    let changes = entries.iter().cloned().map(Change::put).collect();
    let root = members(&far).publish(ROOM, changes).unwrap();
    alice.announces(&here, Some(root));
    let wanted = members(&here).wanted().remove(0);
    let mut pulling = members(&here).pull(&wanted);
    let (mut count, mut calls) = (0, 0);
    loop {
        let next = std::iter::from_fn(|| pulling.next_block().unwrap());
        let cids: Vec<_> = next.take(1024).collect();
        if cids.is_empty() {
            break;
        }
        let blocks = block_on(here.exchange().blocks(&[wanted.peer], cids.clone())).expect("blocks");
        assert_eq!(blocks.len(), cids.len());
        (count, calls) = (count + blocks.len(), calls + 1);
        blocks.into_iter().for_each(|(cid, block)| pulling.got(&cid, block).unwrap());
    }
    pulling.finish().expect("all of it");
    assert!(count >= 2000, "{count} blocks");
    let questions = far.exchange().counters().answered.load(Ordering::Relaxed);
    assert!(calls <= 12 && questions <= 20, "{calls} calls, {questions} questions for {count} blocks");
    assert_eq!(members(&here).holders(&entries[0].sha256().unwrap()), [alice.peer()]);
    // What is not there is said to be so, whoever is asked for it, and so is that nobody is there.
    let absent = dag_cbor_cid(dpm::base::Sha256::of(b"nobody's"));
    let ask = |peers: &[PeerId]| block_on(here.exchange().blocks(peers, vec![absent, root.cid()]));
    let blocks = ask(&[wanted.peer]).unwrap();
    assert_eq!(blocks.iter().map(|(cid, _)| *cid).collect::<Vec<_>>(), [root.cid()]);
    assert!(matches!(ask(&[]), Err(BlocksError::Nobody)));
    // A member of no room any more gets none.
    bob.leaves(&far);
    assert!(matches!(ask(&[wanted.peer]), Err(BlocksError::Nothing(_))));
}

#[test]
fn blocks_of_members_that_lie_or_have_none() {
    let upstream = Upstream::start();
    let node = distant(&upstream.url("/simple/"));
    let (root, blocks) = built(&five_thousand()[..300]);
    let liar = Liar::start(Manners::new().holds(|_| Some(b"something else".to_vec())));
    let (true_blocks, half) = (blocks.clone(), blocks.len() / 2);
    let poor: Vec<_> = blocks.keys().take(half).map(|cid| sha256_of_cid(cid).unwrap()).collect();
    let honest = |has: Box<dyn Fn(&dpm::base::Sha256) -> bool + Send + Sync>| {
        let blocks = true_blocks.clone();
        Liar::start(Manners::new().holds(move |hash| {
            blocks.get(&dag_cbor_cid(*hash)).filter(|_| has(hash)).map(|block| block.to_vec())
        }))
    };
    let (poor, rich) = (honest(Box::new(move |hash| poor.contains(hash))), honest(Box::new(|_| true)));
    for (liar, name) in [(&liar, "bob"), (&poor, "carol"), (&rich, "dave")] {
        member(name, liar).announces(&node, Some(root));
        liar.meet(&node);
    }
    let cids: Vec<_> = blocks.keys().copied().collect();
    let ask = |peers: &[&Liar]| {
        let peers: Vec<_> = peers.iter().map(|peer| peer.peer()).collect();
        block_on(node.exchange().blocks(&peers, cids.clone()))
    };
    assert_eq!(ask(&[&poor]).unwrap().len(), half);
    let got = ask(&[&liar, &poor, &rich]).unwrap();
    assert_eq!(got.len(), blocks.len(), "the next is asked for what one does not give");
    assert!(got.iter().all(|(cid, block)| blocks[cid] == block), "and it is what its name says");
    let strikes = [&liar, &poor, &rich].map(|peer| peer.strikes(&node));
    assert_eq!(strikes, [1, 0, 0]);
    assert!(matches!(ask(&[&liar]), Err(BlocksError::Nothing(why)) if why.contains("other bytes")));
}

#[test]
fn blocks_of_a_member_that_is_any_ipfs_node() {
    let upstream = Upstream::start();
    let node = distant(&upstream.url("/simple/"));
    let (root, blocks) = built(&five_thousand()[..100]);
    let identity = Identity::fresh();
    Member::at("bob", &identity, &node.as_peer().1).announces(&node, Some(root));
    let stranger = Stranger::known(&node, Manner::Listens, identity);
    let cids: Vec<_> = blocks.keys().copied().collect();
    let (exchange, peers, wanted) = (node.exchange().clone(), [stranger.id()], cids.clone());
    let asking = std::thread::spawn(move || block_on(exchange.blocks(&peers, wanted)));
    let mut missing = cids.len();
    while missing > 0 {
        let entries = stranger.hear().wantlist.map(|list| list.entries).unwrap_or_default();
        let wanted: Vec<_> = entries.iter().filter(|entry| !entry.cancel).map(|entry| entry.cid).collect();
        missing -= wanted.len();
        let payload = wanted.iter().map(|cid| PayloadBlock::new(cid, blocks[cid].clone())).collect();
        stranger.send(&Message { payload, ..Message::default() });
    }
    let got = asking.join().unwrap().expect("blocks");
    assert_eq!(got.len(), cids.len());
    assert!(got.iter().all(|(cid, block)| blocks[cid] == block));
}

#[test]
fn a_catalogue_is_read_at_the_door() {
    let upstream = Upstream::start();
    let node = distant(&upstream.url("/simple/"));
    let root = publishes(&node, &[entry(&Project::new("demo", 10))]);
    let store = &node.daemon().rooms().store;
    let block = store.catalogue_block(&root.hash).unwrap().expect("its own");
    let answer = node.get(&format!("/ipfs/{}?format=raw", root.cid()));
    assert!(answer.status == 200 && answer.body == block, "{}", answer.text());
    let (outcome, bytes) = node.carry(&Order::Get(root.cid().to_string()), &[]).unwrap();
    assert_eq!(outcome["from"], "store", "{outcome:#}");
    assert!(bytes == block);
}
