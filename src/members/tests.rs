//! What members say, true and false, over restarts, and their catalogues on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::base::{PeerKey, dag_cbor_cid, dag_pb_cid, raw_cid, sha256_of_cid};
use crate::catalogue::{Change, Entry, Facts};
use crate::wire::room::{
    Context, NODE_EVENT, NodeAdvert, PACKAGES_EVENT, Packages, Pattern, SCOPE_EVENT, scope_parts,
};

const ROOM: &str = "!room:example.org";
const ALICE: &str = "@alice:example.org";
const BOB: &str = "@bob:example.org";
/// 2026, in milliseconds.
const NOW: u64 = 1_790_000_000_000;

/// A node with a store of its own, and its key.
struct Node {
    keys: Ed25519KeyPair,
    user: &'static str,
    sequence: u64,
    clock: Arc<AtomicU64>,
    members: Members,
    dir: tempfile::TempDir,
}

fn open(dir: &std::path::Path, own: PeerId, clock: &Arc<AtomicU64>) -> Members {
    let options = crate::store::Options {
        budget: crate::store::Budget::Bytes(1 << 30),
        free_margin_bytes: 0,
        clock: Clock::Manual(clock.clone()),
    };
    let store = Store::open(dir, options).unwrap();
    let options = Options { own: Some(own), clock: Clock::Manual(clock.clone()), ..Options::default() };
    Members::open(store, options).unwrap()
}

impl Node {
    fn new(seed: u8, user: &'static str) -> Self {
        let keys = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(AtomicU64::new(NOW)));
        let members = open(dir.path(), key(&keys).peer_id(), &clock);
        members.joined(ROOM, Some("project"));
        members.set_members(ROOM, vec![ALICE.into(), BOB.into()]);
        for part in scope_parts(&[Pattern::parse("pkg:pypi/p*").unwrap()]).unwrap() {
            assert_eq!(members.hear_state(ROOM, ALICE, SCOPE_EVENT, "", part.as_bytes()), Heard::Scope);
        }
        Self { keys, user, sequence: 0, clock, members, dir }
    }

    /// The same after a restart.
    fn again(self) -> Self {
        let Self { keys, user, sequence, clock, members, dir } = self;
        drop(members);
        let members = open(dir.path(), key(&keys).peer_id(), &clock);
        Self { keys, user, sequence, clock, members, dir }
    }

    fn peer(&self) -> PeerId {
        key(&self.keys).peer_id()
    }

    fn context(&self) -> Context<'static> {
        Context { room: ROOM, sender: self.user }
    }

    fn said(&self, sequence: u64) -> NodeAdvert {
        NodeAdvert {
            peer: self.peer(),
            addresses: vec!["/ip4/9.9.9.9/udp/4001/quic-v1".into(), "/ip4/127.0.0.1/udp/1/quic-v1".into()],
            name: "box".into(),
            agent: "dpm/0".into(),
            catalogue: self.members.own(ROOM),
            sequence,
            time_ms: self.clock.load(Ordering::Relaxed),
        }
    }

    fn advert(&mut self) -> String {
        self.sequence += 1;
        let advert = self.said(self.sequence);
        advert
            .write(&self.context(), &key(&self.keys), |m| Some(self.keys.sign(m).as_ref().to_vec()))
            .unwrap()
    }

    /// Puts entries into its catalogue, and says so.
    fn adds(&mut self, entries: Vec<Entry>, removed: Vec<&Entry>) -> Vec<String> {
        let gone = removed.iter().map(|e| Change::Remove { purl: e.purl.clone(), file: e.file.clone() });
        let changes = gone.chain(entries.iter().cloned().map(Change::put)).collect();
        let root = self.members.publish(ROOM, changes).unwrap();
        self.sequence += 1;
        let removed = removed.iter().map(|e| (e.purl.clone(), e.file.clone())).collect();
        let packages = Packages { peer: self.peer(), root, sequence: self.sequence, added: entries, removed };
        let sign = |m: &[u8]| Some(self.keys.sign(m).as_ref().to_vec());
        packages.write(&self.context(), &key(&self.keys), sign).unwrap()
    }

    fn hears(&self, of: &mut Node) -> Heard {
        let text = of.advert();
        self.members.hear_state(ROOM, of.user, NODE_EVENT, &of.peer().to_string(), text.as_bytes())
    }

    fn hears_said(&self, of: &Node, text: &str) -> Heard {
        self.members.hear_timeline(ROOM, of.user, PACKAGES_EVENT, text.as_bytes())
    }

    /// Fetches what is wanted of `of`; gives how many blocks that took, and bytes.
    fn pulls(&self, of: &Node) -> (usize, usize) {
        let wanted = self.members.wanted();
        assert_eq!(wanted.len(), 1, "{wanted:?}");
        let (mut pulling, mut count, mut bytes) = (self.members.pull(&wanted[0]), 0, 0);
        while let Some(cid) = pulling.next_block().unwrap() {
            let block = of.members.inner.store.catalogue_block(&sha256_of_cid(&cid).unwrap()).unwrap();
            let block = block.unwrap();
            (count, bytes) = (count + 1, bytes + block.len());
            pulling.got(&cid, block).unwrap();
        }
        pulling.finish().unwrap();
        assert_eq!(self.members.wanted(), []);
        (count, bytes)
    }

    fn listed(&self, entry: &Entry) -> Vec<Listing> {
        self.members.inner.store.listings(&sha(entry)).unwrap()
    }

    fn known(&self, package: &str) -> Known {
        self.members.package(&PackageUrl::parse(package).unwrap()).unwrap()
    }
}

fn key(keys: &Ed25519KeyPair) -> PeerKey {
    PeerKey::parse(&[&[8, 1, 18, 32], keys.public_key().as_ref()].concat()).unwrap()
}

fn entry_of(package: &str, n: u64, bytes: &[u8]) -> Entry {
    let sha256 = Sha256::of(bytes);
    Entry {
        purl: PackageUrl::parse(&format!("pkg:pypi/{package}@{n}")).unwrap(),
        file: format!("{package}-{n}.zip"),
        size: bytes.len() as u64,
        root: raw_cid(sha256),
        digests: vec![sha256.digest()],
        facts: Facts::default(),
        first_seen: None,
    }
}

fn entry(n: u64) -> Entry {
    entry_of(&format!("p{}", n % 50), n, &n.to_le_bytes())
}

fn sha(entry: &Entry) -> Sha256 {
    entry.sha256().unwrap()
}

#[test]
fn a_member_is_known_by_its_last_word_while_it_is_in_the_room() {
    let (here, mut bob) = (Node::new(1, ALICE), Node::new(2, BOB));
    assert!(!here.members.is_member(&bob.peer()));
    assert_eq!(here.hears(&mut bob), Heard::Node(bob.peer()));
    assert!(here.members.is_member(&bob.peer()));
    // Only what may be dialled.
    let addresses: Vec<_> =
        here.members.addresses().into_iter().map(|(p, a)| (p, format!("{a:?}"))).collect();
    assert_eq!(addresses, [(bob.peer(), "[/ip4/9.9.9.9/udp/4001/quic-v1]".to_owned())]);
    let view = &here.members.rooms()[0].nodes[0];
    assert_eq!(view.refused_addresses.len(), 1, "{view:?}");
    // The first is made of what was told, the second too.
    for n in 0..2 {
        let said = bob.adds(vec![entry(n)], vec![]);
        assert_eq!(here.hears_said(&bob, &said[0]), Heard::Packages(bob.peer()));
        assert_eq!(here.members.wanted(), []);
        assert_eq!(here.members.holders(&sha(&entry(n))), [bob.peer()]);
    }
    let said = bob.adds(vec![], vec![&entry(0)]);
    here.hears_said(&bob, &said[0]);
    assert!(here.members.holders(&sha(&entry(0))).is_empty());

    here.members.member(ROOM, BOB, false);
    assert!(!here.members.is_member(&bob.peer()) && here.members.addresses().is_empty());
    assert!(here.members.holders(&sha(&entry(1))).is_empty() && here.known("pkg:pypi/p1").entries.is_empty());
    assert_eq!(here.hears_said(&bob, &said[0]), Heard::Refused);
    assert!(here.members.rooms()[0].refused[0].why.contains("not in the room"));
    let here = here.again();
    assert!(!here.members.is_member(&bob.peer()), "over a restart too");
    here.members.member(ROOM, BOB, true);
    assert_eq!(here.members.holders(&sha(&entry(1))), [bob.peer()]);
    let here = here.again();
    assert_eq!(here.members.holders(&sha(&entry(1))), [bob.peer()]);
    assert_eq!(here.known("pkg:pypi/p1").entries, [entry(1)]);
    here.members.left(ROOM);
    assert!(here.listed(&entry(1)).is_empty() && here.members.rooms().is_empty());
    assert!(here.again().members.rooms().is_empty());
}

#[test]
fn what_counts_for_nothing() {
    let (here, mut bob, mut eve) = (Node::new(1, ALICE), Node::new(2, BOB), Node::new(3, "@eve:example.org"));
    let why = || here.members.rooms()[0].refused.last().unwrap().why.clone();
    let (old, new) = (bob.advert(), bob.advert());
    let state = |sender: &str, key: &str, json: &str| {
        here.members.hear_state(ROOM, sender, NODE_EVENT, key, json.as_bytes())
    };
    let id = bob.peer().to_string();
    assert_eq!(state(BOB, &id, &new), Heard::Node(bob.peer()));
    assert_eq!(state(BOB, &id, &new), Heard::Nothing, "as every sync brings it");
    assert_eq!(state(BOB, &id, &old), Heard::Refused);
    assert!(why().contains("replay"), "{}", why());
    // Bob's words from eve's mouth, and under another key.
    assert_eq!(state(eve.user, &id, &new), Heard::Refused);
    assert!(why().contains("signature"), "{}", why());
    assert_eq!(state(BOB, "x", &new), Heard::Refused);
    assert!(why().contains("state key"), "{}", why());
    for bad in
        ["", "[]", "{\"version\":2}", &new.replace("\"entries\":0", "\"entries\":1.5"), &"x".repeat(70_000)]
    {
        assert_eq!(state(BOB, &id, bad), Heard::Refused, "{bad:.40}");
    }
    // Somebody with the power to set state overwrites what they cannot sign: it stays.
    assert_eq!(state(eve.user, &id, "{}"), Heard::Nothing);
    assert!(here.members.is_member(&bob.peer()));
    assert_eq!(state(BOB, &id, "{}"), Heard::Node(bob.peer()));
    assert!(!here.members.is_member(&bob.peer()));
    // One who is not in the room may have set state before: it waits.
    assert_eq!(here.hears(&mut eve), Heard::Node(eve.peer()));
    assert!(!here.members.is_member(&eve.peer()));
    // Refusals are few however many there are, and the same one is not told twice.
    for n in 0..200 {
        state(BOB, "x", &format!("{{\"version\":{n}}}"));
        state(BOB, "x", "nonsense");
    }
    let refused = here.members.rooms()[0].refused.clone();
    assert!(refused.len() <= 64, "{}", refused.len());
    assert_eq!(refused.iter().filter(|r| r.why == refused.last().unwrap().why).count(), 1);
}

#[test]
fn a_scope_is_all_its_events_and_a_wrong_one_changes_nothing() {
    let here = Node::new(1, ALICE);
    let has = |package: &str| here.members.in_scope(ROOM, &PackageUrl::parse(package).unwrap());
    let scope =
        |key: &str, json: &str| here.members.hear_state(ROOM, ALICE, SCOPE_EVENT, key, json.as_bytes());
    assert!(has("pkg:pypi/p1@1") && !has("pkg:pypi/six@1"));
    assert_eq!(scope("b", r#"{"version":1,"packages":["pkg:pypi/six"]}"#), Heard::Scope);
    assert!(has("pkg:pypi/p1@1") && has("pkg:pypi/six@1"));
    assert_eq!(scope("c", r#"{"version":1,"packages":["six"]}"#), Heard::Refused);
    assert_eq!(scope("b", r#"{"version":1,"packages":["pkg:pypi/six"]}"#), Heard::Nothing);
    let here = here.again();
    let has = |package: &str| here.members.in_scope(ROOM, &PackageUrl::parse(package).unwrap());
    assert!(has("pkg:pypi/p1@1") && has("pkg:pypi/six@1"));
    assert_eq!(here.members.hear_state(ROOM, ALICE, SCOPE_EVENT, "b", b"{}"), Heard::Scope);
    assert!(!has("pkg:pypi/six@1"));
}

#[test]
fn a_catalogue_is_fetched_and_then_what_is_new_of_it() {
    let (here, mut bob) = (Node::new(1, ALICE), Node::new(2, BOB));
    // More than is listed in one batch.
    bob.adds((0..3000).map(entry).collect(), vec![]);
    here.hears(&mut bob);
    let (all, all_bytes) = here.pulls(&bob);
    assert!(all > 500 && all_bytes > 200_000, "{all} blocks of {all_bytes} bytes");
    assert_eq!(here.members.rooms()[0].nodes[0].here, bob.members.own(ROOM));
    for n in [0, 1500, 2999] {
        assert_eq!(here.members.holders(&sha(&entry(n))), [bob.peer()], "{n}");
    }
    // Said while nobody listened; then only what changed moves.
    bob.adds(vec![entry(5000)], vec![&entry(7)]);
    here.hears(&mut bob);
    let (few, bytes) = here.pulls(&bob);
    assert!((1..30).contains(&few), "{few}");
    assert!(bytes < 16 << 10, "{bytes} bytes for one package, and one that went");
    assert_eq!(here.members.holders(&sha(&entry(5000))), [bob.peer()]);
    assert!(here.members.holders(&sha(&entry(7))).is_empty());
    // What no catalogue names goes, all else stays.
    here.members.sweep();
    let mut count = 0;
    here.members.entries(ROOM, &bob.peer(), &mut |_| count += 1).unwrap();
    assert_eq!(count, 3000);
    let old_root = dag_cbor_cid(empty().hash);
    assert!(here.members.inner.store.catalogue_block(&sha256_of_cid(&old_root).unwrap()).unwrap().is_none());
    let here = here.again();
    assert_eq!(here.members.wanted(), []);
    assert_eq!(here.known("pkg:pypi/p0").entries.len(), 3000 / 50 + 1);
}

#[test]
fn catalogues_that_cannot_be_had() {
    let (here, mut bob) = (Node::new(1, ALICE), Node::new(2, BOB));
    bob.adds((0..100).map(entry).collect(), vec![]);
    here.hears(&mut bob);
    let wanted = here.members.wanted().remove(0);
    let mut pulling = here.members.pull(&wanted);
    let cid = pulling.next_block().unwrap().unwrap();
    let other = pulling.got(&cid, bytes::Bytes::from_static(b"other"));
    assert!(matches!(other, Err(MembersError::Catalogue(CatalogueError::OtherBytes(_)))), "{other:?}");
    pulling.missed(&cid);
    assert_eq!(pulling.next_block().unwrap(), Some(cid), "it is asked of another");
    let cut_off = pulling.finish();
    assert!(matches!(cut_off, Err(MembersError::Catalogue(CatalogueError::Absent(_)))), "{cut_off:?}");
    here.members.failed(&wanted, "nobody gave it");
    assert_eq!(here.members.rooms()[0].nodes[0].trouble.as_deref(), Some("nobody gave it"));
    // Overtaken by a newer one.
    let mut pulling = here.members.pull(&wanted);
    while let Some(cid) = pulling.next_block().unwrap() {
        let block = bob.members.inner.store.catalogue_block(&sha256_of_cid(&cid).unwrap()).unwrap();
        pulling.got(&cid, block.unwrap()).unwrap();
    }
    here.pulls(&bob);
    assert!(matches!(pulling.finish(), Err(MembersError::Overtaken)));
    // One that says it is enormous.
    let mut advert: NodeAdvert = {
        let text = bob.advert();
        NodeAdvert::read(text.as_bytes(), &bob.context(), &bob.peer().to_string()).unwrap()
    };
    (advert.sequence, bob.sequence) = (bob.sequence + 1, bob.sequence + 1);
    advert.catalogue = Some(Root { entries: MOST_PULLED + 1, hash: Sha256([7; 32]) });
    let text =
        advert.write(&bob.context(), &key(&bob.keys), |m| Some(bob.keys.sign(m).as_ref().to_vec())).unwrap();
    here.members.hear_state(ROOM, BOB, NODE_EVENT, &bob.peer().to_string(), text.as_bytes());
    assert_eq!(here.members.wanted(), []);
    let node = here.members.rooms()[0].nodes[0].clone();
    assert!(node.trouble.unwrap().contains("entries"), "and what is here of it stays");
    assert_eq!(node.here.map(|root| root.entries), Some(100));
}

#[test]
fn changes_in_several_events_and_on_another_base() {
    let (here, mut bob) = (Node::new(1, ALICE), Node::new(2, BOB));
    here.hears(&mut bob);
    let said = bob.adds((0..900).map(entry).collect(), vec![]);
    assert!(said.len() > 1, "{}", said.len());
    for (n, text) in said.iter().enumerate() {
        here.hears_said(&bob, text);
        assert_eq!(here.members.wanted().is_empty(), n + 1 == said.len(), "{n}");
    }
    // One is missed: the next is no step from what is here.
    bob.adds(vec![entry(1000)], vec![]);
    let said = bob.adds(vec![entry(1001)], vec![]);
    here.hears_said(&bob, &said[0]);
    assert_eq!(here.members.wanted().len(), 1);
    let (few, _) = here.pulls(&bob);
    assert!(few < 30, "{few}");
    assert_eq!(here.members.holders(&sha(&entry(1000))), [bob.peer()]);
}

#[test]
fn what_is_listed_may_be_had_by_members_alone() {
    let (mut here, mut bob) = (Node::new(1, ALICE), Node::new(2, BOB));
    here.hears(&mut bob);
    let mut with_metadata = entry(1);
    let metadata = Sha256::of(b"metadata");
    with_metadata.facts.core_metadata = Some(metadata.digest());
    // The same file under two names: as long as one is listed.
    let twin = Entry { file: "twin.zip".into(), ..entry(2) };
    here.adds(vec![with_metadata, entry(2), twin.clone()], vec![]);
    let may = |here: &Node, sha256| here.members.may_have(&bob.peer(), &sha256);
    assert!(may(&here, sha(&entry(1))) && may(&here, metadata) && may(&here, sha(&entry(2))));
    assert!(!may(&here, sha(&entry(3))));
    assert!(
        !here.members.may_have(&here.peer(), &sha(&entry(1)))
            && here.members.holders(&sha(&entry(1))).is_empty()
    );
    here.adds(vec![], vec![&entry(2)]);
    assert!(may(&here, sha(&entry(2))));
    here.adds(vec![], vec![&twin]);
    assert!(!may(&here, sha(&entry(2))));
    here.members.member(ROOM, BOB, false);
    assert!(!may(&here, sha(&entry(1))));
    // Numbers go up, over restarts and when the clock is set back.
    let first = here.members.next_sequence(ROOM);
    here.clock.fetch_sub(3_600_000, Ordering::Relaxed);
    let here = here.again();
    assert_eq!(here.members.next_sequence(ROOM), first + 1);
    assert_eq!(here.members.own(ROOM).map(|root| root.entries), Some(1));
}

#[test]
fn names_by_the_members_words() {
    let (here, mut alice, mut bob) = (Node::new(1, ALICE), Node::new(2, ALICE), Node::new(3, BOB));
    let other = Entry { purl: entry(5).purl, file: entry(5).file, ..entry_of("p5", 5, b"other") };
    let outside = entry_of("secret", 1, b"");
    alice.adds(vec![entry(5), entry(55), outside], vec![]);
    bob.adds(vec![other, entry(105)], vec![]);
    for of in [&mut alice, &mut bob] {
        here.hears(of);
        here.pulls(of);
    }
    let known = here.known("pkg:pypi/p5");
    assert_eq!(known.entries, [entry(105), entry(55)], "by their names");
    let [dispute] = &known.disputed[..] else { panic!("{known:?}") };
    assert_eq!(dispute.file, entry(5).file);
    let text = dispute.to_string();
    for named in [ALICE, BOB, &alice.peer().to_string(), &bob.peer().to_string()] {
        assert!(text.contains(named), "{text}");
    }
    assert_eq!(here.members.disputes(), known.disputed);
    assert_eq!(known.tellers.iter().map(|t| t.user.as_str()).collect::<Vec<_>>(), [ALICE, BOB]);
    assert!(here.known("pkg:pypi/secret").entries.is_empty(), "it is not what the room is for");

    here.clock.fetch_add(3_600_000, Ordering::Relaxed);
    assert_eq!(here.known("pkg:pypi/p5").age, Duration::from_secs(3600));
    assert!(here.members.set_mode(ROOM, Mode::Off));
    assert!(here.known("pkg:pypi/p5").entries.is_empty());
    let here = here.again();
    assert_eq!(here.members.mode(ROOM), Mode::Off);
    here.members.set_mode(ROOM, Mode::Follow);
    here.clock.fetch_add(MAX_AGE.as_millis() as u64, Ordering::Relaxed);
    assert!(here.known("pkg:pypi/p5").entries.is_empty(), "too old");
    // A clock that is ahead makes nobody young for ever.
    alice.clock.fetch_add(10 * MAX_AGE.as_millis() as u64, Ordering::Relaxed);
    here.hears(&mut alice);
    assert_eq!(here.known("pkg:pypi/p5").entries.len(), 2);
    here.clock.fetch_add(MAX_AGE.as_millis() as u64 + 1, Ordering::Relaxed);
    assert!(here.known("pkg:pypi/p5").entries.is_empty());
}

#[test]
fn nobody_outshouts_the_others() {
    let (here, mut alice, mut bob) = (Node::new(1, ALICE), Node::new(2, ALICE), Node::new(3, BOB));
    // The same size and no digest in common: nobody can say that it is the same file.
    let sha512 = crate::base::Digest::new(crate::base::Algorithm::Sha512, &[7; 64]).unwrap();
    let other = Entry { root: dag_pb_cid(Sha256([9; 32])), digests: vec![sha512], ..entry(5) };
    // One more digest, which nobody else states: it is left out.
    let more = Entry { digests: vec![entry(55).digests[0], sha512], ..entry(55) };
    // A fact that is not the other's.
    let python = |n, text: &str| {
        let facts = Facts { requires_python: Some(text.into()), ..Facts::default() };
        Entry { facts, ..entry(n) }
    };
    alice.adds(vec![entry(5), entry(55), python(105, ">=3.9"), python(155, ">=3.9")], vec![]);
    bob.adds(vec![other, more, python(105, ">=99"), entry(155)], vec![]);
    for of in [&mut alice, &mut bob] {
        here.hears(of);
        here.pulls(of);
    }
    let known = here.known("pkg:pypi/p5");
    assert_eq!(known.disputed.iter().map(|d| d.file.as_str()).collect::<Vec<_>>(), [entry(5).file]);
    assert_eq!(known.entries, [entry(105), python(155, ">=3.9"), entry(55)]);
}

#[test]
fn a_user_has_so_many_nodes_and_the_gone_make_room() {
    let here = Node::new(1, ALICE);
    for n in 0..64 {
        let mut node = Node::new(10 + n, BOB);
        assert_eq!(here.hears(&mut node), Heard::Node(node.peer()), "{n}");
    }
    let mut further = Node::new(100, BOB);
    assert_eq!(here.hears(&mut further), Heard::Refused);
    assert!(here.members.rooms()[0].refused.last().unwrap().why.contains("more than 64 nodes"));
    let mut other = Node::new(101, ALICE);
    assert_eq!(here.hears(&mut other), Heard::Node(other.peer()));
}

#[test]
fn what_a_node_takes_back_is_not_listed() {
    let (here, mut bob) = (Node::new(1, ALICE), Node::new(2, BOB));
    here.hears(&mut bob);
    for _ in 0..2 {
        let said = bob.adds((0..3).map(entry).collect(), vec![]);
        here.hears_said(&bob, &said[0]);
        assert_eq!(here.members.holders(&sha(&entry(1))), [bob.peer()]);
        // Its event is withdrawn and comes again: what is listed is counted once.
        let id = bob.peer().to_string();
        assert_eq!(here.members.hear_state(ROOM, BOB, NODE_EVENT, &id, b"{}"), Heard::Node(bob.peer()));
        assert!(here.members.holders(&sha(&entry(1))).is_empty());
        assert_eq!(here.hears(&mut bob), Heard::Node(bob.peer()));
        assert_eq!(here.members.wanted(), []);
        assert_eq!(here.members.holders(&sha(&entry(1))), [bob.peer()]);
        let said = bob.adds(vec![], vec![&entry(0), &entry(1), &entry(2)]);
        here.hears_said(&bob, &said[0]);
        assert!(here.listed(&entry(1)).is_empty());
    }
    // A replay after it was withdrawn, and after a restart: it is remembered.
    let old = bob.advert();
    let id = bob.peer().to_string();
    here.members.hear_state(ROOM, BOB, NODE_EVENT, &id, old.as_bytes());
    here.hears(&mut bob);
    here.members.hear_state(ROOM, BOB, NODE_EVENT, &id, b"{}");
    let here = here.again();
    assert_eq!(here.members.hear_state(ROOM, BOB, NODE_EVENT, &id, old.as_bytes()), Heard::Refused);
    // It says that it has no catalogue.
    let said = bob.adds(vec![entry(4)], vec![]);
    here.hears(&mut bob);
    here.hears_said(&bob, &said[0]);
    let none = NodeAdvert { catalogue: None, ..bob.said(bob.sequence + 1) };
    bob.sequence += 1;
    let text =
        none.write(&bob.context(), &key(&bob.keys), |m| Some(bob.keys.sign(m).as_ref().to_vec())).unwrap();
    here.members.hear_state(ROOM, BOB, NODE_EVENT, &id, text.as_bytes());
    assert!(here.members.holders(&sha(&entry(4))).is_empty() && here.listed(&entry(4)).is_empty());
}

#[test]
fn damage_is_mended() {
    let (mut here, mut bob) = (Node::new(1, ALICE), Node::new(2, BOB));
    here.hears(&mut bob);
    bob.adds((0..100).map(entry).collect(), vec![]);
    here.hears(&mut bob);
    here.pulls(&bob);
    here.adds((200..300).map(entry).collect(), vec![]);
    // Every block is lost.
    here.members.inner.store.retain_catalogue_blocks(|_| false).unwrap();
    let lost = here.members.publish(ROOM, vec![Change::put(entry(500))]);
    assert!(matches!(lost, Err(MembersError::Catalogue(CatalogueError::Absent(_)))), "{lost:?}");
    assert_eq!(here.members.own(ROOM), None, "it is made anew");
    here.adds((200..300).map(entry).collect(), vec![]);
    assert!(here.members.may_have(&bob.peer(), &sha(&entry(250))));
    let said = bob.adds(vec![entry(600)], vec![]);
    here.hears_said(&bob, &said[0]);
    assert!(here.pulls(&bob).0 > 1, "all of it is fetched");
    assert_eq!(here.members.holders(&sha(&entry(600))), [bob.peer()]);
    assert_eq!(here.listed(&entry(50)).len(), 1);
}

#[test]
fn another_key_takes_back_what_was_listed_under_the_first() {
    let (mut here, mut bob) = (Node::new(1, ALICE), Node::new(2, BOB));
    here.hears(&mut bob);
    here.adds(vec![entry(1)], vec![]);
    let Node { clock, members, dir, .. } = here;
    drop(members);
    let other = Node::new(9, ALICE).peer();
    let members = open(dir.path(), other, &clock);
    assert!(members.own(ROOM).is_none() && !members.may_have(&bob.peer(), &sha(&entry(1))));
    assert!(members.inner.store.listings(&sha(&entry(1))).unwrap().is_empty());
}
