//! What one room is told of this node, and when. Pure: time comes in.
//!
//! A change that fits one event goes out at once, as packages; the node's state, which says the same to whoever was not
//! there, follows a little later and stands for all changes until then. A change that does not fit is told by the state
//! alone, and the others fetch the catalogue's blocks. So a flood of packages costs as many events as its minutes allow.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::base::PackageUrl;
use crate::catalogue::{Change, Entry, Root};
use crate::room::Pace;
use crate::rt::UnixMillis;
use crate::wire::room::{MOST_ANNOUNCED, NodeAdvert};

use super::rhythm::{PACKAGES, Rhythm, STATE, share};

/// A node says again that it is there when its last word is as old as this.
pub const HEARTBEAT: Duration = Duration::from_secs(12 * 3600);

/// The state follows the packages after this long: time for an installation to end, so that both come once.
const STATE_AFTER: Duration = Duration::from_secs(10);

/// After the homeserver's client did not take an event it is offered again.
const AGAIN: Duration = Duration::from_secs(60);

/// After the homeserver refused an event: what somebody may change, who may speak in the room, takes people minutes.
const AFTER_REFUSAL: Duration = Duration::from_secs(600);

/// What a node is, besides its catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) addresses: Vec<String>,
    pub(super) name: String,
    pub(super) agent: String,
}

/// What is to be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Say {
    /// Nothing now.
    Nothing,
    /// The node's state.
    State,
    /// These changes, if one event holds them.
    Packages(Vec<Entry>, Vec<(PackageUrl, String)>),
}

/// See the module.
pub(super) struct Telling {
    state: Rhythm,
    packages: Rhythm,
    /// The node's state as the room has it, or will once the queue is empty.
    advert: Option<NodeAdvert>,
    /// The newest catalogue, and the one that was told of last by either event, with its number.
    root: Option<Root>,
    told: Option<(Root, u64)>,
    /// What has changed since then, while it may fit one event.
    unsaid: Option<BTreeMap<(PackageUrl, String), Option<Entry>>>,
    /// Until then nothing is said.
    held: Option<Instant>,
}

impl Telling {
    /// `advert` is what the room has of this node, and `root` its catalogue.
    pub(super) fn new(pace: Pace, advert: Option<NodeAdvert>, root: Option<Root>, now: Instant) -> Self {
        let told = advert.as_ref().and_then(|advert| Some((advert.catalogue?, advert.sequence)));
        // What has changed while nobody looked is not known one by one.
        let same = told.map(|(told, _)| told) == root;
        Self {
            state: Rhythm::new(share(pace, STATE), now),
            packages: Rhythm::new(share(pace, PACKAGES), now),
            advert,
            root,
            told,
            unsaid: same.then(BTreeMap::new),
            held: None,
        }
    }

    /// What the room has of this node, where it may have lost what was queued.
    pub(super) fn correct(&mut self, advert: Option<NodeAdvert>) {
        // What failed before is offered at once: somebody has logged in, or the homeserver is back.
        self.state.rest();
        self.held = None;
        if self.advert != advert {
            self.told = advert.as_ref().and_then(|advert| Some((advert.catalogue?, advert.sequence)));
            self.unsaid = None;
            self.advert = advert;
        }
    }

    /// The catalogue has changed.
    pub(super) fn changed(&mut self, root: Root, changes: &[Change], now: Instant) {
        self.root = Some(root);
        if let Some(unsaid) = &mut self.unsaid {
            for change in changes {
                match change {
                    Change::Put(entry) => {
                        unsaid.insert((entry.purl.clone(), entry.file.clone()), Some((**entry).clone()));
                    }
                    Change::Remove { purl, file } => drop(unsaid.insert((purl.clone(), file.clone()), None)),
                }
            }
            if unsaid.len() > MOST_ANNOUNCED {
                self.unsaid = None;
            }
        }
        if self.told.map(|(told, _)| told) == self.root {
            // There and back.
            self.told_all();
            return;
        }
        match &self.unsaid {
            // Of a node that is not known nobody takes packages.
            Some(_) if self.advert.is_some() => {
                self.packages.want(now);
                self.state.want(now + STATE_AFTER);
            }
            _ => self.state.want(now),
        }
    }

    /// Looks whether what the room has of this node still holds.
    pub(super) fn check(&mut self, standing: &Standing, clock: UnixMillis, now: Instant) {
        let holds = self.advert.as_ref().is_some_and(|advert| {
            let aged = clock.0.abs_diff(advert.time_ms);
            (&advert.addresses, &advert.name, &advert.agent)
                == (&standing.addresses, &standing.name, &standing.agent)
                // Also when a clock was wrong, then or now.
                && u128::from(aged) < HEARTBEAT.as_millis()
        });
        let known = self.advert.as_ref().is_some_and(|advert| advert.catalogue == self.root);
        match (holds, known) {
            (false, _) => self.state.want(now),
            // A state that is on its way is not hurried.
            (true, false) if self.state.due().is_none() => self.state.want(now),
            _ => {}
        }
    }

    /// When [`Telling::say`] will have something.
    pub(super) fn due(&self) -> Option<Instant> {
        let due = self.state.due().into_iter().chain(self.packages.due()).min();
        due.map(|due| self.held.map_or(due, |held| held.max(due)))
    }

    /// What is to be said now. Whoever says it tells with [`Telling::said_packages`], [`Telling::said_state`],
    /// [`Telling::does_not_fit`] or [`Telling::failed`].
    pub(super) fn say(&mut self, now: Instant) -> Say {
        if self.held.is_some_and(|held| now < held) {
            return Say::Nothing;
        }
        if self.packages.is_due(now) {
            match &self.unsaid {
                Some(unsaid) if !unsaid.is_empty() => {
                    let added = unsaid.values().flatten().cloned().collect();
                    let gone = unsaid.iter().filter(|(_, entry)| entry.is_none());
                    return Say::Packages(added, gone.map(|(key, _)| key.clone()).collect());
                }
                _ => self.packages.rest(),
            }
        }
        match self.state.is_due(now) {
            true => Say::State,
            false => Say::Nothing,
        }
    }

    /// The newest catalogue.
    pub(super) fn root(&self) -> Option<Root> {
        self.root
    }

    /// The number that this catalogue was told of under, if it was: then an event that says the same has it too.
    pub(super) fn number(&self) -> Option<u64> {
        self.told.filter(|(told, _)| Some(*told) == self.root).map(|(_, number)| number)
    }

    /// The number of the state that the room has.
    pub(super) fn state_number(&self) -> Option<u64> {
        self.advert.as_ref().map(|advert| advert.sequence)
    }

    pub(super) fn said_packages(&mut self, root: Root, number: u64, now: Instant) {
        self.told = Some((root, number));
        self.packages.said(now);
        self.told_all();
    }

    pub(super) fn said_state(&mut self, advert: NodeAdvert, now: Instant) {
        self.state.said(now);
        if let Some(root) = advert.catalogue {
            self.told = Some((root, advert.sequence));
        }
        self.advert = Some(advert);
        self.told_all();
    }

    /// What has changed is not told as changes, but with the whole catalogue.
    pub(super) fn forget_changes(&mut self) {
        if self.unsaid.as_ref().is_some_and(|unsaid| !unsaid.is_empty()) {
            self.unsaid = None;
            self.packages.rest();
        }
    }

    /// The changes are too many for one event.
    pub(super) fn does_not_fit(&mut self, now: Instant) {
        self.unsaid = None;
        self.packages.rest();
        self.state.want(now);
    }

    /// It could not be queued.
    pub(super) fn failed(&mut self, now: Instant) {
        self.packages.rest();
        self.state.rest();
        self.state.want(now + AGAIN);
    }

    /// The homeserver refused what was queued, so the room does not have it.
    pub(super) fn refused(&mut self, now: Instant) {
        (self.advert, self.told, self.unsaid) = (None, None, None);
        self.packages.rest();
        self.state.want(now);
        self.held = Some(now + AFTER_REFUSAL);
    }

    fn told_all(&mut self) {
        if self.told.map(|(told, _)| told) == self.root {
            self.unsaid = Some(BTreeMap::new());
            self.packages.rest();
            if self.advert.as_ref().is_some_and(|advert| advert.catalogue == self.root) {
                self.state.rest();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{PeerId, Sha256, raw_cid};
    use crate::catalogue::Facts;

    const START: u64 = 1_790_000_000_000;

    fn root(n: u8) -> Root {
        Root { hash: Sha256([n; 32]), entries: 1 }
    }

    fn put(n: u32) -> Change {
        let sha256 = Sha256::of(&n.to_le_bytes());
        Change::put(Entry {
            purl: PackageUrl::parse(&format!("pkg:pypi/p@{n}")).unwrap(),
            file: format!("p-{n}.zip"),
            size: 4,
            root: raw_cid(sha256),
            digests: vec![sha256.digest()],
            facts: Facts::default(),
            first_seen: None,
        })
    }

    fn remove(n: u32) -> Change {
        let Change::Put(entry) = put(n) else { unreachable!() };
        Change::Remove { purl: entry.purl, file: entry.file }
    }

    fn advert(catalogue: Option<Root>, sequence: u64) -> NodeAdvert {
        NodeAdvert {
            peer: PeerId::random(),
            addresses: Vec::new(),
            name: String::new(),
            agent: String::new(),
            catalogue,
            sequence,
            time_ms: START,
        }
    }

    /// A room that knows this node, and whose clock goes as this test's.
    struct Room {
        telling: Telling,
        start: Instant,
        states: Vec<Duration>,
        packages: Vec<usize>,
        number: u64,
    }

    impl Room {
        fn new(advert: Option<NodeAdvert>, root: Option<Root>) -> Self {
            let start = Instant::now();
            let telling = Telling::new(Pace::default(), advert, root, start);
            Self { telling, start, states: Vec::new(), packages: Vec::new(), number: 100 }
        }

        /// Says all that is due until then.
        fn until(&mut self, end: Duration) {
            while let Some(due) = self.telling.due().filter(|due| *due <= self.start + end) {
                let now = due.max(self.start);
                self.number += 1;
                match self.telling.say(now) {
                    Say::State => {
                        let number = self.telling.number().unwrap_or(self.number);
                        self.telling.said_state(advert(self.telling.root(), number), now);
                        self.states.push(now - self.start);
                    }
                    Say::Packages(added, removed) => {
                        self.packages.push(added.len() + removed.len());
                        self.telling.said_packages(self.telling.root().unwrap(), self.number, now);
                    }
                    Say::Nothing => {}
                }
            }
        }

        fn check(&mut self, at: Duration) {
            self.telling.check(
                &Standing::default(),
                UnixMillis(START + at.as_millis() as u64),
                self.start + at,
            );
        }
    }

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn one_change_is_told_at_once_and_then_by_the_state() {
        let mut room = Room::new(Some(advert(None, 1)), None);
        room.check(seconds(0));
        room.until(seconds(60));
        assert_eq!((room.states.len(), room.packages.len()), (0, 0), "nothing has changed");
        room.telling.changed(root(1), &[put(1)], room.start + seconds(60));
        room.until(seconds(65));
        assert_eq!((room.states.len(), &room.packages[..]), (0, &[1][..]));
        room.until(seconds(100));
        assert_eq!((&room.states[..], room.packages.len()), (&[seconds(70)][..], 1));
        room.check(seconds(100));
        room.until(seconds(1000));
        assert_eq!(room.states.len(), 1, "equal catalogues are told of once");
    }

    #[test]
    fn the_first_word_is_the_state() {
        let mut room = Room::new(None, None);
        room.telling.changed(root(1), &[put(1)], room.start);
        room.check(seconds(0));
        room.until(seconds(1));
        assert_eq!((&room.states[..], room.packages.len()), (&[Duration::ZERO][..], 0));
        // The same again after a start.
        let mut room = Room::new(Some(advert(Some(root(1)), 7)), Some(root(1)));
        room.check(seconds(5));
        room.until(seconds(1000));
        assert!(room.states.is_empty());
        // And another, of which nobody knows how it came about.
        let mut room = Room::new(Some(advert(Some(root(1)), 7)), Some(root(2)));
        room.check(seconds(0));
        room.until(seconds(1000));
        assert_eq!((room.states.len(), room.packages.len()), (1, 0));
    }

    #[test]
    fn ten_thousand_packages_cost_a_handful() {
        let mut room = Room::new(Some(advert(None, 1)), None);
        // A batch each 300 ms, 30 in each: 100 seconds.
        for n in 0..333_u32 {
            let at = Duration::from_millis(300) * n;
            room.until(at);
            let changes: Vec<_> = (0..30).map(|k| put(n * 30 + k)).collect();
            let mut newest = root(1);
            newest.hash.0[..4].copy_from_slice(&n.to_le_bytes());
            room.telling.changed(newest, &changes, room.start + at);
        }
        room.until(seconds(200));
        let events = room.states.len() + room.packages.len();
        // What the homeserver takes in the time: ten at once, and one in five seconds.
        assert!(events <= 32, "{:?} {:?}", room.states, room.packages);
        assert_eq!(room.telling.due(), None);
        assert_eq!(room.telling.advert.unwrap().catalogue, room.telling.root);
    }

    #[test]
    fn all_at_once_is_one_event() {
        let mut room = Room::new(Some(advert(None, 1)), None);
        let changes: Vec<_> = (0..10_000).map(put).collect();
        room.telling.changed(root(1), &changes, room.start);
        room.until(seconds(100));
        assert_eq!((room.states.len(), room.packages.len()), (1, 0));
        // What does not fit although it is few enough is told so.
        room.telling.changed(root(2), &changes[..1000], room.start + seconds(100));
        let now = room.start + seconds(100);
        assert!(matches!(room.telling.say(now), Say::Packages(..)));
        room.telling.does_not_fit(now);
        assert_eq!(room.telling.say(now), Say::State);
    }

    #[test]
    fn there_and_back_is_nothing() {
        let mut room = Room::new(Some(advert(Some(root(1)), 1)), Some(root(1)));
        room.telling.changed(root(2), &[put(2)], room.start);
        room.telling.changed(root(1), &[remove(2)], room.start);
        let mut said = room;
        said.until(seconds(50));
        assert!(said.packages.is_empty() && said.states.is_empty());
        said.telling.changed(root(3), &[remove(1), put(3)], said.start + seconds(60));
        said.until(seconds(61));
        assert_eq!(said.packages, [2]);
    }

    #[test]
    fn clocks_and_heartbeats() {
        let mut room = Room::new(Some(advert(None, 1)), None);
        let day = HEARTBEAT.as_millis() as u64;
        for (clock, says) in
            [(START, false), (START + day - 1, false), (START + day, true), (START - day, true), (0, true)]
        {
            room.telling.state.rest();
            room.telling.check(&Standing::default(), UnixMillis(clock), room.start);
            assert_eq!(room.telling.say(room.start) == Say::State, says, "{clock}");
        }
        room.telling.state.rest();
        let moved = Standing { addresses: vec!["/ip4/1.1.1.1/udp/1/quic-v1".into()], ..Standing::default() };
        room.telling.check(&moved, UnixMillis(START), room.start);
        assert_eq!(room.telling.say(room.start), Say::State, "its address has changed");
        room.telling.failed(room.start);
        assert_eq!(room.telling.say(room.start + seconds(59)), Say::Nothing);
        assert_eq!(room.telling.say(room.start + seconds(60)), Say::State);
    }

    #[test]
    fn what_was_refused_is_told_again_later() {
        let mut room = Room::new(Some(advert(Some(root(1)), 1)), Some(root(1)));
        room.telling.changed(root(2), &[put(2)], room.start);
        room.until(seconds(5));
        assert_eq!((room.states.len(), room.packages.len()), (0, 1));
        room.telling.refused(room.start + seconds(5));
        room.telling.changed(root(3), &[put(3)], room.start + seconds(6));
        room.check(seconds(30));
        room.until(seconds(604));
        assert_eq!((room.states.len(), room.packages.len()), (0, 1));
        room.until(seconds(2000));
        assert_eq!((&room.states[..], room.packages.len()), (&[seconds(605)][..], 1));
        // Or when it is looked at what the room has.
        room.telling.refused(room.start + seconds(2000));
        room.telling.correct(Some(advert(Some(root(1)), 1)));
        room.check(seconds(2001));
        room.until(seconds(2010));
        assert_eq!(room.states.len(), 2);
    }

    #[test]
    fn what_the_room_lost_is_told_again() {
        let mut room = Room::new(Some(advert(Some(root(1)), 1)), Some(root(1)));
        room.telling.changed(root(2), &[put(2)], room.start);
        room.until(seconds(30));
        assert_eq!((room.states.len(), room.packages.len()), (1, 1));
        room.telling.failed(room.start + seconds(30));
        room.telling.correct(Some(advert(Some(root(1)), 1)));
        room.check(seconds(30));
        room.until(seconds(40));
        assert_eq!((room.states.len(), room.packages.len()), (2, 1));
    }
}
