//! The book of peers.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use event_listener::{Event, EventListener};

use crate::base::{Multiaddr, PeerId, Sha256};

use super::credit::Credit;

/// Lies after which a peer is blocked. One wrong block may be a broken disk; its second is a reason.
pub const STRIKES: u32 = 2;

/// How long a liar is blocked; doubled with each further lie, up to [`MOST_BLOCK_TIME`].
const BLOCK_TIME: Duration = Duration::from_secs(10 * 60);

/// The longest time that a liar is blocked: a mended machine comes back within a day.
const MOST_BLOCK_TIME: Duration = Duration::from_secs(24 * 3600);

/// Bytes of proved artifacts that a peer must have given, without a lie, before its bytes are handed on to clients as
/// they come. Until then a client gets nothing of an artifact before all of it is proved.
const PROVEN_BYTES: u64 = 16 << 20;

/// Peers remembered: about 300 bytes each. The one seen longest ago goes first, liars last.
const REMEMBERED: usize = 4096;

/// Artifacts that one peer may say it has: 33 bytes each in a table that is half empty at worst, so 4.3 MB a peer.
/// Beyond it peers are asked.
const CATALOGUE: usize = 65_536;

/// Artifacts that all peers together may say they have: 35 MB at worst.
const ALL_CATALOGUES: usize = 8 * CATALOGUE;

/// Lies whose text is kept, a peer.
const NOTES: usize = 4;

/// The part of a new measurement in the mean of a peer's speed.
const WEIGHT: f64 = 0.3;

/// The book; clones are one.
#[derive(Clone, Default)]
pub struct Peers {
    inner: Arc<Mutex<Inner>>,
    /// Notified when a peer has come, said what it is, or gone.
    changed: Arc<Event>,
}

/// How far away a connected peer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Circle {
    /// On this LAN, or named by hand: it is told what is here, and asked for anything.
    Near,
    /// Connected because it is a member of a room: it is given, and asked for, what the room lists, and told nothing.
    #[default]
    Far,
}

#[derive(Default)]
struct Inner {
    peers: HashMap<PeerId, Entry>,
    listed: usize,
}

struct Entry {
    address: Option<Multiaddr>,
    agent: String,
    connected: bool,
    circle: Circle,
    /// Speaks dpm's own protocol.
    dpm: bool,
    seen: Instant,
    gave_bytes: u64,
    gave_artifacts: u64,
    took_bytes: u64,
    /// Bytes a second while it gave.
    speed: Option<f64>,
    strikes: u32,
    notes: Vec<String>,
    blocked_until: Option<Instant>,
    catalogue: HashSet<Sha256>,
    credit: Credit,
}

/// A peer, for people.
#[derive(Clone, Debug)]
pub struct Row {
    /// Who.
    pub peer: PeerId,
    /// Where it is, or was.
    pub address: Option<Multiaddr>,
    /// What it says it is.
    pub agent: String,
    /// Whether it is there.
    pub connected: bool,
    /// How far away it is, or was.
    pub circle: Circle,
    /// Whether it is a dpm node.
    pub dpm: bool,
    /// Bytes that it gave and that were proved.
    pub gave_bytes: u64,
    /// Artifacts that it gave all or a part of.
    pub gave_artifacts: u64,
    /// Bytes that it took.
    pub took_bytes: u64,
    /// Bytes a second while it gave.
    pub bytes_per_second: Option<u64>,
    /// Artifacts that it says it has.
    pub listed: usize,
    /// Lies.
    pub strikes: u32,
    /// What the last lies were.
    pub notes: Vec<String>,
    /// For how long it is not spoken with.
    pub blocked_for: Option<Duration>,
    /// How often it did not give what it promised, as far as it has not made that good.
    pub let_downs: u32,
}

/// What follows from a lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is warned.
    Struck(u32),
    /// It is to be disconnected and not spoken with for so long.
    Blocked(Duration),
}

impl Inner {
    fn entry(&mut self, peer: PeerId) -> &mut Entry {
        let now = Instant::now();
        if self.peers.len() >= REMEMBERED && !self.peers.contains_key(&peer) {
            let candidates = self.peers.iter().filter(|(_, e)| !e.connected);
            let oldest = candidates.min_by_key(|(_, e)| (e.strikes > 0, e.seen)).map(|(p, _)| *p);
            if let Some(gone) = oldest.and_then(|p| self.peers.remove(&p)) {
                self.listed -= gone.catalogue.len();
            }
        }
        let entry = self.peers.entry(peer).or_insert_with(|| Entry {
            address: None,
            agent: String::new(),
            connected: false,
            circle: Circle::Far,
            dpm: false,
            seen: now,
            gave_bytes: 0,
            gave_artifacts: 0,
            took_bytes: 0,
            speed: None,
            strikes: 0,
            notes: Vec::new(),
            blocked_until: None,
            catalogue: HashSet::new(),
            credit: Credit::default(),
        });
        entry.seen = now;
        entry
    }
}

impl Peers {
    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        work(&mut self.inner.lock().expect("nothing panics under this lock"))
    }

    /// Wakes when a peer has come, said what it is, or gone after this call.
    pub fn changed(&self) -> EventListener {
        self.changed.listen()
    }

    /// A peer is connected.
    pub fn came(&self, peer: PeerId, address: Multiaddr, circle: Circle) {
        self.with(|inner| {
            let entry = inner.entry(peer);
            (entry.connected, entry.address, entry.circle) = (true, Some(address), circle);
        });
        self.changed.notify(usize::MAX);
    }

    /// A peer that is connected is now so far away. What one that is not near any more said it has is forgotten.
    pub fn moved(&self, peer: &PeerId, circle: Circle) {
        self.with(|inner| {
            let Some(entry) = inner.peers.get_mut(peer).filter(|entry| entry.connected) else { return };
            entry.circle = circle;
            if circle == Circle::Far {
                inner.listed -= std::mem::take(&mut entry.catalogue).len();
            }
        });
        self.changed.notify(usize::MAX);
    }

    /// Who is connected, all of them: for when a word of who came and went was lost. Gives whom the book took for present
    /// and who is not.
    pub fn present(&self, all: &[(PeerId, Option<Multiaddr>, Circle)]) -> Vec<PeerId> {
        let there: HashSet<_> = all.iter().map(|(peer, ..)| *peer).collect();
        let gone: Vec<_> = self.connected().into_iter().filter(|peer| !there.contains(peer)).collect();
        for peer in &gone {
            self.left(peer);
        }
        self.with(|inner| {
            for (peer, address, circle) in all {
                let entry = inner.entry(*peer);
                (entry.connected, entry.circle) = (true, *circle);
                entry.address = address.clone().or(entry.address.take());
            }
        });
        self.changed.notify(usize::MAX);
        gone
    }

    /// A peer said what it is, and whether it speaks dpm's own protocol.
    pub fn introduced(&self, peer: PeerId, agent: &str, dpm: bool) {
        self.with(|inner| {
            let entry = inner.entry(peer);
            entry.agent = agent.chars().filter(|c| !c.is_control()).take(64).collect();
            entry.dpm = dpm;
        });
        self.changed.notify(usize::MAX);
    }

    /// A peer is gone. What it said it has is forgotten: it will say so again.
    pub fn left(&self, peer: &PeerId) {
        self.with(|inner| {
            let Some(entry) = inner.peers.get_mut(peer) else { return };
            entry.connected = false;
            let listed = std::mem::take(&mut entry.catalogue).len();
            inner.listed -= listed;
        });
        self.changed.notify(usize::MAX);
    }

    /// Connected dpm nodes that are near.
    pub fn nodes(&self) -> Vec<PeerId> {
        self.nodes_of(Circle::Near)
    }

    /// Connected dpm nodes so far away.
    pub fn nodes_of(&self, circle: Circle) -> Vec<PeerId> {
        self.with(|inner| {
            let now = Instant::now();
            let node = |e: &Entry| {
                e.connected && e.dpm && e.circle == circle && e.blocked_until.is_none_or(|t| t <= now)
            };
            inner.peers.iter().filter(|(_, e)| node(e)).map(|(p, _)| *p).collect()
        })
    }

    /// Whether a peer is connected.
    pub fn is_connected(&self, peer: &PeerId) -> bool {
        self.with(|inner| inner.peers.get(peer).is_some_and(|e| e.connected))
    }

    /// Whether a peer is connected and speaks dpm's own protocol.
    pub fn speaks_dpm(&self, peer: &PeerId) -> bool {
        self.with(|inner| inner.peers.get(peer).is_some_and(|e| e.connected && e.dpm))
    }

    /// Whether a peer is connected and near.
    pub fn is_near(&self, peer: &PeerId) -> bool {
        self.with(|inner| inner.peers.get(peer).is_some_and(|e| e.connected && e.circle == Circle::Near))
    }

    /// Every connected peer.
    pub fn connected(&self) -> Vec<PeerId> {
        self.with(|inner| inner.peers.iter().filter(|(_, e)| e.connected).map(|(p, _)| *p).collect())
    }

    /// Connected dpm nodes near that say they have this artifact.
    pub fn holders(&self, sha256: &Sha256) -> Vec<PeerId> {
        self.with(|inner| {
            let now = Instant::now();
            let holds = |e: &Entry| {
                let near = e.connected && e.circle == Circle::Near;
                near && e.blocked_until.is_none_or(|t| t <= now) && e.catalogue.contains(sha256)
            };
            inner.peers.iter().filter(|(_, e)| holds(e)).map(|(p, _)| *p).collect()
        })
    }

    /// A peer near says what it has: all of it after `reset`, else what has changed. What is too much is not remembered.
    /// Of others it is not believed: they would be asked then for what is nobody's business there.
    pub fn news(&self, peer: PeerId, reset: bool, added: &[Sha256], removed: &[Sha256]) {
        self.with(|inner| {
            if inner.entry(peer).circle != Circle::Near {
                return;
            }
            let others = inner.listed - inner.entry(peer).catalogue.len();
            let entry = inner.entry(peer);
            if reset {
                entry.catalogue.clear();
            }
            for sha256 in removed {
                entry.catalogue.remove(sha256);
            }
            for sha256 in added {
                if entry.catalogue.len() >= CATALOGUE || others + entry.catalogue.len() >= ALL_CATALOGUES {
                    break;
                }
                entry.catalogue.insert(*sha256);
            }
            inner.listed = others + entry.catalogue.len();
            // A table that was large once does not stay so.
            let entry = inner.entry(peer);
            if entry.catalogue.capacity() > 4 * entry.catalogue.len().max(1024) {
                entry.catalogue.shrink_to_fit();
            }
        });
    }

    /// A peer did not have what it was thought to have.
    pub fn lacks(&self, peer: &PeerId, sha256: &Sha256) {
        self.with(|inner| {
            let Some(entry) = inner.peers.get_mut(peer) else { return };
            let had = entry.catalogue.remove(sha256);
            inner.listed -= usize::from(had);
        });
    }

    /// A peer gave bytes of an artifact that was proved.
    pub fn gave(&self, peer: PeerId, bytes: u64, bytes_per_second: Option<u64>) {
        self.with(|inner| {
            let entry = inner.entry(peer);
            entry.gave_bytes += bytes;
            entry.gave_artifacts += 1;
            entry.credit.kept_word();
            if let Some(new) = bytes_per_second.map(|n| n as f64) {
                entry.speed = Some(entry.speed.map_or(new, |old| old + WEIGHT * (new - old)));
            }
        });
    }

    /// A peer took bytes.
    pub fn took(&self, peer: PeerId, bytes: u64) {
        self.with(|inner| inner.entry(peer).took_bytes += bytes);
    }

    /// How fast a peer gave so far, in bytes a second.
    pub fn speed(&self, peer: &PeerId) -> Option<u64> {
        self.with(|inner| inner.peers.get(peer)?.speed.map(|s| s as u64))
    }

    /// Whether a peer has given enough, and never lied, so that its bytes are handed on before all of them are proved.
    pub fn is_proven(&self, peer: &PeerId) -> bool {
        self.with(|inner| {
            inner.peers.get(peer).is_some_and(|e| e.strikes == 0 && e.gave_bytes >= PROVEN_BYTES)
        })
    }

    /// A peer promised something and did not give it in time: it is not asked for a while.
    pub fn let_down(&self, peer: &PeerId) {
        self.with(|inner| inner.entry(*peer).credit.let_down(Instant::now()));
    }

    /// Whether a peer has let us down, so that it should be asked only when nobody else is left.
    pub fn is_doubted(&self, peer: &PeerId) -> bool {
        self.with(|inner| inner.peers.get(peer).is_some_and(|e| e.credit.is_doubted(Instant::now())))
    }

    /// A peer answered a question in time, or it did not.
    pub fn answered(&self, peer: &PeerId, in_time: bool) {
        self.with(|inner| {
            if let Some(entry) = inner.peers.get_mut(peer) {
                entry.credit.answered(in_time);
            }
        });
    }

    /// Whether a peer's answers are worth waiting for.
    pub fn answers(&self, peer: &PeerId) -> bool {
        self.with(|inner| inner.peers.get(peer).is_some_and(|e| e.credit.answers()))
    }

    /// Whether a peer has given something that was proved, and neither lied nor let us down since.
    pub fn is_known(&self, peer: &PeerId) -> bool {
        self.with(|inner| {
            let known = |e: &Entry| e.gave_bytes > 0 && e.strikes == 0 && e.credit.let_downs() == 0;
            inner.peers.get(peer).is_some_and(known)
        })
    }

    /// A peer lied: it gave bytes that are not what it said.
    pub fn strike(&self, peer: PeerId, what: &str) -> Standing {
        self.with(|inner| {
            let entry = inner.entry(peer);
            entry.strikes += 1;
            entry.notes.push(what.chars().take(200).collect());
            if entry.notes.len() > NOTES {
                entry.notes.remove(0);
            }
            let Some(beyond) = entry.strikes.checked_sub(STRIKES) else {
                return Standing::Struck(entry.strikes);
            };
            let time = BLOCK_TIME.saturating_mul(1 << beyond.min(16)).min(MOST_BLOCK_TIME);
            entry.blocked_until = Some(entry.seen + time);
            Standing::Blocked(time)
        })
    }

    /// Whether a peer is not to be spoken with now.
    pub fn is_blocked(&self, peer: &PeerId) -> bool {
        let now = Instant::now();
        self.with(|inner| inner.peers.get(peer).is_some_and(|e| e.blocked_until.is_some_and(|t| t > now)))
    }

    /// Everybody known, those who are there first.
    pub fn list(&self) -> Vec<Row> {
        let now = Instant::now();
        let mut rows: Vec<_> = self.with(|inner| {
            let row = |(peer, e): (&PeerId, &Entry)| Row {
                peer: *peer,
                address: e.address.clone(),
                agent: e.agent.clone(),
                connected: e.connected,
                circle: e.circle,
                dpm: e.dpm,
                gave_bytes: e.gave_bytes,
                gave_artifacts: e.gave_artifacts,
                took_bytes: e.took_bytes,
                bytes_per_second: e.speed.map(|s| s as u64),
                listed: e.catalogue.len(),
                strikes: e.strikes,
                notes: e.notes.clone(),
                blocked_for: e.blocked_until.and_then(|t| t.checked_duration_since(now)),
                let_downs: e.credit.let_downs(),
            };
            inner.peers.iter().map(row).collect()
        });
        rows.sort_by_key(|r| (!r.connected, r.peer.to_bytes()));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        let mut bytes = vec![0x12, 0x20];
        bytes.extend([n; 32]);
        PeerId::from_bytes(&bytes).unwrap()
    }

    #[test]
    fn a_liar_is_warned_then_blocked_ever_longer() {
        let peers = Peers::default();
        peers.came(peer(1), Multiaddr::empty(), Circle::Near);
        peers.introduced(peer(1), "dpm\u{7}/0", true);
        assert_eq!(peers.nodes(), [peer(1)]);
        assert_eq!(peers.strike(peer(1), "wrong block"), Standing::Struck(1));
        assert!(!peers.is_blocked(&peer(1)));
        assert_eq!(peers.strike(peer(1), "wrong block"), Standing::Blocked(BLOCK_TIME));
        assert!(peers.is_blocked(&peer(1)) && peers.nodes().is_empty());
        assert_eq!(peers.strike(peer(1), "again"), Standing::Blocked(2 * BLOCK_TIME));
        let row = &peers.list()[0];
        assert_eq!((row.strikes, row.notes.len(), row.agent.as_str()), (3, 3, "dpm/0"));
        for _ in 0..40 {
            peers.strike(peer(1), "and again");
        }
        assert_eq!(peers.strike(peer(1), "x"), Standing::Blocked(MOST_BLOCK_TIME));
        assert_eq!(peers.list()[0].notes.len(), NOTES);
    }

    #[test]
    fn what_was_missed_is_made_good() {
        let peers = Peers::default();
        let sha = Sha256([7; 32]);
        for n in 1..4 {
            peers.came(peer(n), Multiaddr::empty(), Circle::Near);
            peers.introduced(peer(n), "dpm/0", true);
            peers.news(peer(n), true, &[sha], &[]);
        }
        // The second has gone, a fourth has come, and nobody said so.
        let all = [1, 3, 4].map(|n| (peer(n), Some(Multiaddr::empty()), Circle::Near));
        assert_eq!(peers.present(&all), [peer(2)]);
        let mut connected = peers.connected();
        connected.sort();
        assert_eq!(connected, [peer(1), peer(3), peer(4)]);
        assert!(!peers.holders(&sha).contains(&peer(2)), "what it has is forgotten");
        assert!(peers.holders(&sha).contains(&peer(3)), "and nobody else's");
        assert!(peers.present(&all).is_empty());
    }

    #[test]
    fn who_is_far_is_apart() {
        let peers = Peers::default();
        let sha = Sha256([7; 32]);
        for (n, circle) in [(1, Circle::Near), (2, Circle::Far)] {
            peers.came(peer(n), Multiaddr::empty(), circle);
            peers.introduced(peer(n), "dpm/0", true);
            peers.news(peer(n), true, &[sha], &[]);
        }
        assert_eq!((peers.nodes(), peers.nodes_of(Circle::Far)), (vec![peer(1)], vec![peer(2)]));
        assert_eq!(peers.holders(&sha), [peer(1)], "its news are not believed");
        // The first goes away with its machine, the second comes home.
        peers.moved(&peer(1), Circle::Far);
        peers.moved(&peer(2), Circle::Near);
        assert_eq!((peers.nodes(), peers.holders(&sha)), (vec![peer(2)], Vec::new()));
        peers.moved(&peer(1), Circle::Near);
        assert!(peers.holders(&sha).is_empty(), "it says so again, or it does not");
        peers.left(&peer(2));
        peers.moved(&peer(2), Circle::Near);
        assert!(!peers.is_near(&peer(2)), "who is gone is nowhere");
        assert_eq!(peers.with(|inner| inner.listed), 0);
    }

    #[test]
    fn catalogues_are_bounded_and_forgotten() {
        let peers = Peers::default();
        let sha = |n: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&n.to_be_bytes());
            Sha256(bytes)
        };
        let many: Vec<_> = (0..70_000).map(sha).collect();
        peers.came(peer(1), Multiaddr::empty(), Circle::Near);
        peers.news(peer(1), true, &many, &[]);
        assert_eq!(peers.list()[0].listed, CATALOGUE);
        assert_eq!(peers.holders(&sha(5)), [peer(1)]);
        peers.lacks(&peer(1), &sha(5));
        assert!(peers.holders(&sha(5)).is_empty());
        for n in 2..40 {
            peers.came(peer(n), Multiaddr::empty(), Circle::Near);
            peers.news(peer(n), true, &many, &[]);
        }
        assert!(peers.list().iter().map(|r| r.listed).sum::<usize>() <= ALL_CATALOGUES);
        peers.news(peer(1), true, &[sha(1)], &[]);
        peers.news(peer(1), false, &[sha(2)], &[sha(1)]);
        assert_eq!(peers.list().iter().find(|r| r.peer == peer(1)).unwrap().listed, 1);
        for n in 1..40 {
            peers.left(&peer(n));
        }
        assert_eq!(peers.with(|inner| inner.listed), 0);
    }

    #[test]
    fn only_who_gave_much_and_never_lied_is_proven() {
        let peers = Peers::default();
        peers.gave(peer(1), PROVEN_BYTES - 1, Some(100));
        assert!(!peers.is_proven(&peer(1)));
        peers.gave(peer(1), 1, Some(200));
        assert!(peers.is_proven(&peer(1)));
        assert_eq!(peers.speed(&peer(1)), Some(130));
        peers.strike(peer(1), "wrong");
        assert!(!peers.is_proven(&peer(1)));
    }

    #[test]
    fn strangers_do_not_fill_the_book() {
        let peers = Peers::default();
        peers.strike(peer(1), "liar");
        for n in 0..(REMEMBERED as u32 + 500) {
            let mut bytes = vec![0x12, 0x20];
            bytes.extend([0xee; 28]);
            bytes.extend(n.to_be_bytes());
            peers.introduced(PeerId::from_bytes(&bytes).unwrap(), "x", false);
        }
        assert_eq!(peers.list().len(), REMEMBERED);
        assert!(peers.list().iter().any(|r| r.peer == peer(1)), "a liar is remembered before a stranger");
    }
}
