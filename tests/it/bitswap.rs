//! Blocks to and from other makers' nodes, and between dpm's own.

pub mod maker;
pub mod manners;
pub mod stranger;

use dpm::base::{PeerId, Sha256, parse_cid_text};
use dpm::exchange::{DagLimits, Fetched};
use dpm::unixfs::LayoutBuilder;
use futures_lite::future::block_on;

use crate::clients::process::counterparts;
use crate::rough;
use crate::support::relay::{GOOD, Line};
use crate::support::{LIMIT, Node, Project, Upstream, bytes, until};
use maker::{Make, Maker};

/// A node that has a file of so many bytes; its CID, and how others dial it.
struct Holder {
    node: Node,
    project: Project,
    cid: String,
    address: String,
    _upstream: Upstream,
}

fn holder(size: usize) -> Holder {
    let upstream = Upstream::start();
    let project = Project::new("demo", size).publish(&upstream);
    let node = Node::village(1, &upstream.url("/simple/")).remove(0);
    assert_eq!(node.get(&project.file()).status, 200);
    node.settle();
    let stored = node.daemon().rooms().store.find(&project.sha256.digest()).unwrap().unwrap();
    let (peer, address) = node.as_peer();
    let (cid, address) = (stored.root.unwrap().to_string(), format!("{address}/p2p/{peer}"));
    Holder { node, project, cid, address, _upstream: upstream }
}

/// Another maker's node fetches from dpm, by the CID that its own importer gives the file.
fn fetches_from_us(make: Make, size: usize) {
    let holder = holder(size);
    let mut maker = Maker::start(make);
    maker.connect(&holder.address);
    assert_eq!(maker.fetch(&holder.cid)["sha256"], holder.project.sha256.hex());
    let given = holder.node.exchange().counters().given_bytes.load(std::sync::atomic::Ordering::Relaxed);
    assert!(given >= size as u64, "{given} bytes were given");
    if make != Make::PyLibp2p {
        let mut importer = Maker::start(make);
        assert_eq!(importer.add(&holder.project.bytes, None), holder.cid);
    }
}

const WHEEL: usize = (3 << 20) + 7;
const LARGE: usize = 20 << 20;

#[test]
fn helia_fetches_from_us() {
    fetches_from_us(Make::Helia, WHEEL);
    fetches_from_us(Make::Helia, LARGE);
}

#[test]
fn kubo_fetches_from_us() {
    fetches_from_us(Make::Kubo, WHEEL);
    fetches_from_us(Make::Kubo, LARGE);
}

#[test]
fn py_libp2p_fetches_from_us() {
    fetches_from_us(Make::PyLibp2p, WHEEL);
}

/// dpm fetches a file from another maker's node, however that cuts it.
fn we_fetch(make: Make, size: usize, profile: Option<&str>) {
    let node = alone();
    let mut maker = Maker::start(make);
    let bytes = bytes(size);
    let cid = maker.add(&bytes, profile);
    maker.connect(&address(&node));
    fetch(&node, &cid, &[], &bytes);
}

/// A node without an upstream that answers.
fn alone() -> Node {
    Node::village(1, "http://127.0.0.1:9/simple/").remove(0)
}

fn address(node: &Node) -> String {
    let (peer, address) = node.as_peer();
    format!("{address}/p2p/{peer}")
}

/// Fetches a file to a node, and looks at every byte.
#[track_caller]
fn fetch(node: &Node, cid: &str, peers: &[PeerId], bytes: &[u8]) -> Fetched {
    let exchange = node.exchange();
    let speaks = |info: &dpm::swarm::PeerInfo| info.protocols.iter().any(|p| p == dpm::exchange::BITSWAP);
    let (swarm, _) = node.daemon().rooms().near.as_ref().expect("a swarm");
    until("a peer speaks bitswap", || swarm.peers().iter().any(speaks));
    let mut file = Vec::new();
    let limits = DagLimits { patience: LIMIT, ..DagLimits::default() };
    let fetched = block_on(exchange.fetch_file(parse_cid_text(cid).unwrap(), peers, limits, |at, part| {
        assert_eq!(at, file.len() as u64);
        file.extend_from_slice(&part);
        Ok(())
    }))
    .unwrap_or_else(|e| panic!("{cid}: {e}"));
    assert!(file == bytes, "the same bytes");
    assert_eq!((fetched.size, fetched.sha256), (bytes.len() as u64, Sha256::of(bytes)));
    fetched
}

/// Where a layout changes its shape: no chunk, one, two; and one more than a node has links.
#[test]
fn cids_are_those_of_helias_importer() {
    const CHUNK: usize = 1 << 20;
    let mut helia = Maker::start(Make::Helia);
    for size in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1] {
        let bytes = bytes(size);
        assert_eq!(crate::ipfs::root(&bytes).to_string(), helia.add(&bytes, None), "{size} bytes");
    }
    // Zeros, which take no place on a disk.
    let (chunks, file) = (1025, tempfile::NamedTempFile::new().expect("a file"));
    file.as_file().set_len(chunks * CHUNK as u64).expect("a hole");
    let mut layout = LayoutBuilder::default();
    (0..chunks).for_each(|_| layout.update(&[0; CHUNK]));
    let theirs = helia.ask(&serde_json::json!({"do": "add", "file": file.path()}));
    assert_eq!(theirs["cid"], layout.finish().tree().0.to_string(), "{chunks} chunks");
}

#[test]
fn we_fetch_from_helia() {
    we_fetch(Make::Helia, WHEEL, None);
    we_fetch(Make::Helia, LARGE, None);
    we_fetch(Make::Helia, WHEEL, Some("unixfs-v0-2015"));
}

#[test]
fn we_fetch_from_kubo() {
    we_fetch(Make::Kubo, 200_000, None);
    we_fetch(Make::Kubo, WHEEL, None);
    we_fetch(Make::Kubo, LARGE, None);
    // CIDv0, 256 KiB, leaves in dag-pb, 174 links a node: two levels of them.
    we_fetch(Make::Kubo, 50 << 20, Some("kubo"));
}

#[test]
fn we_fetch_from_py_libp2p() {
    we_fetch(Make::PyLibp2p, WHEEL, Some("libp2p"));
}

#[test]
fn nodes_of_our_own_fetch_by_bitswap() {
    let holder = holder(LARGE + 5);
    let nodes: Vec<Node> = (0..2).map(|_| alone()).collect();
    for node in &nodes {
        let (swarm, _) = node.daemon().rooms().near.as_ref().unwrap();
        let (peer, address) = holder.node.as_peer();
        swarm.dial(peer, vec![address]);
        let fetched = fetch(node, &holder.cid, &[], &holder.project.bytes);
        let gave: u64 = fetched.gave.iter().map(|(_, bytes, _)| bytes).sum();
        assert_eq!(gave >> 20, 20, "{fetched:?}");
        // Blocks of a file that is not all there prove nothing.
        let limits = dpm::exchange::DagLimits::default();
        let half = async {
            let mut fetching = node
                .exchange()
                .fetch_dag(dpm::base::parse_cid_text(&holder.cid).unwrap(), &[peer], limits)
                .await
                .unwrap();
            for _ in 0..3 {
                fetching.next().await.unwrap().unwrap();
            }
        };
        futures_lite::future::block_on(half);
        let row = node.exchange().peers().list().into_iter().find(|row| row.peer == peer).unwrap();
        assert_eq!((row.gave_bytes, row.gave_artifacts), (gave, 1));
        fetch(node, &holder.cid, &[peer], &holder.project.bytes);
    }
}

#[test]
fn two_holders_give_at_once() {
    let upstream = Upstream::start();
    let project = Project::new("demo", LARGE / 2).publish(&upstream);
    // Their lines are what is slow, so that neither gives all of it before the other has begun.
    let line = Line { bits_per_second: 40_000_000, ..GOOD };
    let (nodes, _relays) = rough::village(3, &upstream, line);
    for k in [0, 1] {
        rough::stored(&nodes, k, &project);
    }
    let stored = nodes[0].daemon().rooms().store.find(&project.sha256.digest()).unwrap().unwrap();
    let cid = stored.root.unwrap().to_string();
    let holders = [0, 1].map(|k: usize| nodes[k].as_peer().0);
    let fetched = fetch(&nodes[2], &cid, &holders, &project.bytes);
    for holder in holders {
        let gave = fetched.gave.iter().find(|(peer, ..)| *peer == holder);
        assert!(gave.is_some_and(|(_, bytes, _)| *bytes >= 1 << 20), "{holder}: {fetched:?}");
    }
    // What came twice is counted apart; the nodes of the layout are some KiB.
    let gave: u64 = fetched.gave.iter().map(|(_, bytes, _)| bytes).sum();
    assert_eq!(gave >> 20, project.bytes.len() as u64 >> 20, "{fetched:?}");
}

#[test]
fn what_an_ipfs_node_has_is_not_fetched_from_the_upstream() {
    let upstream = Upstream::start();
    let (here, absent) = (Project::new("here", 700_000), Project::new("absent", 700_001));
    let (here, absent) = (here.publish(&upstream), absent.publish(&upstream));
    let node = Node::village(1, &upstream.url("/simple/")).remove(0);
    let mut helia = Maker::start(Make::Helia);
    helia.add(&here.bytes, None);
    helia.connect(&address(&node));
    until("it is known for an IPFS node", || node.exchange().has_strangers());
    for (project, cache, hits) in [(&here, "PEER", 0), (&absent, "MISS", 1)] {
        let answer = node.get(&project.file());
        assert_eq!((answer.status, answer.cache()), (200, cache), "{}", project.name);
        assert!(answer.body == project.bytes);
        assert_eq!(upstream.hits(&project.file_path()), hits);
    }
}
