use super::*;
use crate::base::{dag_pb_cid, raw_cid};

fn peer(n: u8) -> PeerId {
    // An identity multihash with a key that is none: enough for a name.
    PeerId::from_bytes(&[0, 4, 8, 1, 18, n]).expect("a peer id")
}

fn cid(n: u32) -> Cid {
    raw_cid(Sha256::of(&n.to_be_bytes()))
}

fn hash(n: u32) -> Sha256 {
    Sha256::of(&n.to_be_bytes())
}

fn wants(all: impl IntoIterator<Item = Entry>) -> Wantlist {
    Wantlist { entries: all.into_iter().collect(), full: false }
}

fn block(n: u32) -> Entry {
    Entry::want(cid(n), WantType::Block, 1)
}

fn cids(due: &[Due]) -> Vec<Cid> {
    due.iter().map(|d| d.cid).collect()
}

/// Looks up all that is due with the same outcome; gives what it was.
fn look_up(ledger: &mut Ledger, peer: &PeerId, outcome: Outcome) -> Vec<Due> {
    let due = ledger.due(peer, usize::MAX);
    due.iter().for_each(|d| ledger.looked_up(peer, d, outcome));
    due
}

#[test]
fn the_most_urgent_first_and_then_as_they_came() {
    let (mut ledger, p) = (Ledger::default(), peer(1));
    let urgent = |n, priority| Entry { priority, ..block(n) };
    assert!(ledger.told(p, &wants([urgent(1, 0), urgent(2, 9), urgent(3, 9), urgent(4, -1)])));
    assert_eq!(cids(&ledger.due(&p, 3)), [cid(2), cid(3), cid(1)]);
    assert_eq!(cids(&ledger.due(&p, 3)), [cid(4)]);
    assert!(ledger.is_idle(&p) && !ledger.is_empty());
}

#[test]
fn answered_is_over_and_absent_is_kept_until_it_comes() {
    let (mut ledger, p) = (Ledger::default(), peer(1));
    ledger.told(p, &wants([block(1), block(2)]));
    let due = ledger.due(&p, 2);
    ledger.looked_up(&p, &due[0], Outcome::Answered);
    ledger.looked_up(&p, &due[1], Outcome::Absent);
    assert_eq!(ledger.arrived([hash(1)]), [], "it got that");
    assert!(ledger.is_idle(&p));
    assert_eq!(ledger.arrived([hash(2)]), [p]);
    let due = look_up(&mut ledger, &p, Outcome::Absent);
    assert_eq!(due, [Due { cid: cid(2), kind: WantType::Block, tell_absence: false }], "it was told once");
    // Said again it is answered again.
    assert!(ledger.told(p, &wants([block(2)])));
    assert!(look_up(&mut ledger, &p, Outcome::Answered)[0].tell_absence);
    assert!(ledger.is_empty());
}

#[test]
fn what_comes_while_it_is_looked_up_is_looked_up_again() {
    let (mut ledger, p) = (Ledger::default(), peer(1));
    ledger.told(p, &wants([block(1)]));
    let due = ledger.due(&p, 1);
    assert_eq!(ledger.arrived([hash(1)]), [p]);
    ledger.looked_up(&p, &due[0], Outcome::Absent);
    assert_eq!(cids(&look_up(&mut ledger, &p, Outcome::Answered)), [cid(1)]);
    assert!(ledger.is_empty());
    // Nothing is lost to those who were not looked at for want of room.
    ledger.told(p, &wants([block(1), block(2)]));
    look_up(&mut ledger, &p, Outcome::Postponed);
    assert_eq!(cids(&ledger.due(&p, 9)), [cid(1), cid(2)]);
}

#[test]
fn cancels_full_lists_and_departures() {
    let (mut ledger, p, q) = (Ledger::default(), peer(1), peer(2));
    ledger.told(p, &wants([block(1), block(2), Entry::cancel(cid(1)), Entry::cancel(cid(7))]));
    assert_eq!(cids(&ledger.due(&p, 9)), [cid(2)]);
    // Handed out and cancelled: what comes of it does not bring it back.
    ledger.told(p, &wants([Entry::cancel(cid(2))]));
    let due = Due { cid: cid(2), kind: WantType::Block, tell_absence: true };
    ledger.looked_up(&p, &due, Outcome::Absent);
    assert!(ledger.is_empty());
    ledger.told(p, &wants([block(1), block(2)]));
    ledger.told(p, &Wantlist { entries: vec![block(3)], full: true });
    ledger.told(q, &wants([block(3)]));
    assert_eq!(cids(&look_up(&mut ledger, &p, Outcome::Absent)), [cid(3)]);
    look_up(&mut ledger, &q, Outcome::Absent);
    assert_eq!(ledger.arrived([hash(3)]), [p, q]);
    ledger.gone(&p);
    assert_eq!(ledger.look_again(), [q]);
    ledger.told(q, &Wantlist { entries: vec![], full: true });
    assert!(ledger.is_empty() && ledger.by_hash.is_empty() && ledger.peers.is_empty());
}

#[test]
fn who_wants_the_block_is_not_content_with_word_of_it() {
    let (mut ledger, p) = (Ledger::default(), peer(1));
    let have = Entry::want(cid(1), WantType::Have, 1);
    ledger.told(p, &wants([have, block(2)]));
    let due = ledger.due(&p, 9);
    ledger.told(p, &wants([block(1), Entry { want_type: WantType::Have, ..block(2) }]));
    due.iter().for_each(|d| ledger.looked_up(&p, d, Outcome::Answered));
    let due = look_up(&mut ledger, &p, Outcome::Answered);
    assert_eq!(due, [Due { cid: cid(1), kind: WantType::Block, tell_absence: true }]);
    assert!(ledger.is_empty());
}

#[test]
fn one_block_under_several_names() {
    let (mut ledger, p) = (Ledger::default(), peer(1));
    let other = dag_pb_cid(hash(1));
    let sha512 = Cid::new_v1(0x55, cid::multihash::Multihash::wrap(0x13, &[7; 64]).unwrap());
    ledger.told(p, &wants([block(1), Entry::want(other, WantType::Block, 1)]));
    ledger.told(p, &wants([Entry::want(sha512, WantType::Block, 1)]));
    assert_eq!(look_up(&mut ledger, &p, Outcome::Absent).len(), 3);
    assert_eq!(ledger.total, 2, "what we cannot name never comes");
    ledger.arrived([hash(1)]);
    assert_eq!(cids(&look_up(&mut ledger, &p, Outcome::Answered)), [cid(1), other]);
    assert!(ledger.is_empty());
}

#[test]
fn ten_thousand_wants_are_cut_and_kept_ones_make_room() {
    let (mut ledger, p) = (Ledger::default(), peer(1));
    ledger.told(p, &wants((0..10_000).map(block)));
    assert_eq!((ledger.total, ledger.ignored()), (WANTS, 10_000 - WANTS as u64));
    assert_eq!(look_up(&mut ledger, &p, Outcome::Absent).len(), WANTS);
    // What was looked up in vain gives way, the oldest first.
    ledger.told(p, &wants([block(20_000)]));
    assert_eq!(ledger.arrived([hash(0), hash(20_000)]), [p]);
    assert_eq!(cids(&look_up(&mut ledger, &p, Outcome::Absent)), [cid(20_000)]);
    // For ever: what is remembered of it does not grow.
    for n in 0..5 * WANTS as u32 {
        ledger.told(p, &wants([block(30_000 + n)]));
        look_up(&mut ledger, &p, Outcome::Absent);
    }
    assert_eq!(ledger.total, WANTS);
    assert!(ledger.peers[&p].kept.len() <= 2 * WANTS + 1 && ledger.by_hash.len() == WANTS);
}

#[test]
fn all_together_have_a_limit_and_who_has_most_gives_way() {
    let (mut ledger, p, q) = (Ledger::with_room_for(100), peer(1), peer(2));
    ledger.told(p, &wants((0..200).map(block)));
    ledger.told(q, &wants([block(7)]));
    assert_eq!((ledger.total, ledger.is_idle(&q)), (100, true), "nothing is kept in vain yet");
    look_up(&mut ledger, &p, Outcome::Absent);
    ledger.told(q, &wants([block(7)]));
    assert_eq!((ledger.total, ledger.is_idle(&q)), (100, false));
    assert_eq!(ledger.arrived([hash(0)]), [], "the oldest was given up");
}

#[test]
fn whatever_happens_the_books_agree() {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |n: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % n
    };
    let mut ledger = Ledger::with_room_for(40);
    let mut out: Vec<(PeerId, Due)> = Vec::new();
    for _ in 0..20_000 {
        let (p, n) = (peer(below(4) as u8), below(30) as u32);
        match below(8) {
            0..=2 => {
                let kind = if below(2) == 0 { WantType::Have } else { WantType::Block };
                let entry = Entry::want(cid(n), kind, below(3) as i32);
                ledger.told(p, &Wantlist { entries: vec![entry], full: below(40) == 0 });
            }
            3 => drop(ledger.told(p, &wants([Entry::cancel(cid(n))]))),
            4 => out.extend(ledger.due(&p, below(4) as usize).into_iter().map(|d| (p, d))),
            5 if !out.is_empty() => {
                let (p, due) = out.swap_remove(below(out.len() as u64) as usize);
                let outcome = [Outcome::Answered, Outcome::Absent, Outcome::Postponed][below(3) as usize];
                ledger.looked_up(&p, &due, outcome);
            }
            6 => drop(ledger.arrived([hash(n)])),
            _ if below(50) == 0 => ledger.gone(&p),
            _ => {}
        }
        let total: usize = ledger.peers.values().map(|w| w.all.len()).sum();
        let listed: usize = ledger.by_hash.values().map(Vec::len).sum();
        assert!(total == ledger.total && total <= 40 && listed == total);
        for wants in ledger.peers.values() {
            let due = wants.all.values().filter(|w| w.state == State::Due).count();
            assert_eq!(due, wants.due.len());
            assert!(wants.due.iter().all(|(place, cid)| wants.all[cid].place() == *place));
        }
    }
}
