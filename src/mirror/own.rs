//! This node's own catalogues: made of what is stored, changed as that changes, and told of.
//!
//! At the start, and whenever what is known may be wrong, everything stored is held against every room's catalogue and
//! the catalogue against the store, piece by piece. In between the store tells what comes and goes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_lite::future;

use crate::base::{PackageUrl, Sha256};
use crate::members::MembersError;
use crate::resolve::PageKey;
use crate::resolve::images::Spot;
use crate::store;

use super::ledger::Published;
use super::look::How;
use super::notes::Notes;
use super::rhythm::GATHER;
use super::tell;
use super::telling::Telling;
use super::{Inner, LOCK, Near};

/// Artifacts that are looked at in one go: some tenths of a second of the disk's time.
const AT_ONCE: usize = 512;

/// Artifacts that wait to be looked at. With more all are looked at.
const WAITING: usize = 65_536;

/// How often it is looked whether this node is where it was, and what it was.
const TICK: Duration = Duration::from_secs(30);

/// How often everything is looked at, whatever was told: tags that changed their meaning, what a failure left.
const SWEEP: Duration = Duration::from_secs(6 * 3600);

/// After the store refused a change, everything is looked at again.
const AFTER_FAILURE: Duration = Duration::from_secs(600);

/// While everything is looked at for the first time nothing is said, so that it is said once; but no longer than this.
const SILENCE: Duration = Duration::from_secs(60);

/// After so many changes the blocks that they left are swept out: each leaves some ten, of a few kilobytes together.
const SWEPT_AFTER: usize = 1024;

/// A walk for what is gone takes no more than one in so many of the time: where the store is full, something goes with
/// everything that comes.
const WALK_SHARE: u32 = 10;

/// Runs for ever.
pub(super) async fn run(inner: Arc<Inner>, near: Near) {
    let pages = inner.look.resolve.changes();
    let tags = inner.look.images.changes();
    let mut watch = inner.store.watch();
    let mut own = Own::new(inner, near);
    loop {
        let next = own.due();
        let watched = async { Woken::Store(watch.recv().await.ok()) };
        let rung = async {
            own.inner.own.heard().await;
            Woken::Rooms
        };
        let changed = async {
            match pages.recv().await {
                Ok(change) => Woken::Page(change.key, change.mark),
                Err(_) => future::pending().await,
            }
        };
        let tagged = async {
            match tags.recv().await {
                Ok(spot) => Woken::Tags(spot),
                Err(_) => future::pending().await,
            }
        };
        let time = async {
            async_io::Timer::at(next).await;
            Woken::Time
        };
        match future::or(future::or(watched, rung), future::or(future::or(changed, tagged), time)).await {
            Woken::Store(Some(change)) => {
                own.note(change);
                while let Ok(change) = watch.try_recv() {
                    own.note(change);
                }
            }
            // It fell behind, or too many watch: what was missed is found by looking at everything.
            Woken::Store(None) => {
                async_io::Timer::after(Duration::from_secs(1)).await;
                watch = own.inner.store.watch();
                own.sweep = Some(Sweep::new());
            }
            Woken::Rooms => own.rooms_changed(),
            Woken::Page(key, mark) => own.page_changed(key, mark).await,
            Woken::Tags(spot) => {
                own.spots.insert(spot);
                own.gathered.get_or_insert(Instant::now() + GATHER);
            }
            Woken::Time => own.rooms_changed(),
        }
        own.work().await;
        own.tell().await;
    }
}

enum Woken {
    Store(Option<store::Change>),
    Rooms,
    Page(PageKey, String),
    Tags(Spot),
    Time,
}

struct Own {
    inner: Arc<Inner>,
    near: Near,
    started: Instant,
    tellings: BTreeMap<String, Telling>,
    notes: BTreeMap<String, Notes>,
    fresh: HashSet<Sha256>,
    gone: HashSet<Sha256>,
    /// Repositories whose tags are to be looked at.
    spots: BTreeSet<Spot>,
    /// What is fresh or gone is looked at then.
    gathered: Option<Instant>,
    walk_from: Instant,
    sweep: Option<Sweep>,
    next_sweep: Instant,
    /// Changes since blocks were swept out.
    changes: usize,
}

/// Everything is looked at.
struct Sweep {
    begun: Instant,
    how: How,
    /// Artifacts that are still to be looked at; not listed yet at first.
    artifacts: Option<Vec<Sha256>>,
    /// Rooms whose catalogues are still to be walked.
    rooms: Option<Vec<String>>,
    /// The same before anything else: what they mirror has changed, and nothing is said before what is too much is out.
    first: Vec<String>,
}

impl Sweep {
    /// For what is missing or too much.
    fn new() -> Self {
        Self { begun: Instant::now(), how: How::Unless, artifacts: None, rooms: None, first: Vec::new() }
    }

    /// For what rooms mirror that was not what they mirrored before.
    fn rescoped(rooms: Vec<String>) -> Self {
        Self { first: rooms, ..Self::new() }
    }

    /// For what is said of everything, too.
    fn thorough() -> Self {
        Self { how: How::Anew, ..Self::new() }
    }
}

impl Own {
    fn new(inner: Arc<Inner>, near: Near) -> Self {
        let now = Instant::now();
        Self {
            inner,
            near,
            started: now,
            tellings: BTreeMap::new(),
            notes: BTreeMap::new(),
            fresh: HashSet::new(),
            gone: HashSet::new(),
            spots: BTreeSet::new(),
            gathered: None,
            walk_from: now,
            sweep: None,
            next_sweep: now + SWEEP,
            changes: 0,
        }
    }

    /// When there is something to do.
    fn due(&self) -> Instant {
        let now = Instant::now();
        if self.sweep.is_some() {
            return now;
        }
        let gone = (!self.gone.is_empty()).then_some(self.walk_from);
        let gathered = self.gathered.map(|at| match self.fresh.is_empty() && self.spots.is_empty() {
            true => gone.map_or(at, |gone| gone.max(at)),
            false => at,
        });
        let said =
            self.tellings.values().filter_map(Telling::due).chain(self.notes.values().filter_map(Notes::due));
        // What cannot be said yet is tried at the next tick.
        let said = said.min().map(|at| at.max(now + Duration::from_millis(50)));
        [gathered, said, Some(self.next_sweep), Some(now + TICK)].into_iter().flatten().min().unwrap_or(now)
    }

    fn note(&mut self, change: store::Change) {
        match change {
            store::Change::Added(sha256) => {
                self.gone.remove(&sha256);
                self.fresh.insert(sha256);
            }
            store::Change::Removed(sha256) => {
                self.fresh.remove(&sha256);
                self.gone.insert(sha256);
            }
        }
        self.gathered.get_or_insert(Instant::now() + GATHER);
        if self.fresh.len() + self.gone.len() > WAITING {
            self.fresh.clear();
            self.gone.clear();
            self.sweep = Some(Sweep::new());
        }
    }

    /// Rooms came or went, mirror something else, or have something else of this node than was thought.
    fn rooms_changed(&mut self) {
        let ids = self.inner.members.ids();
        self.tellings.retain(|room, _| ids.contains(room));
        self.notes.retain(|room, _| ids.contains(room));
        let (now, pace) = (Instant::now(), self.inner.options.pace);
        let mut told = self.inner.told.lock().expect(LOCK);
        let has_queued = self.inner.client.status().queued > 0;
        for room in &ids {
            // What waits to be sent will be there: only then it is known what the room does not have.
            if has_queued && self.tellings.contains_key(room) {
                continue;
            }
            // Before the client has told what the room has of this node nothing is said there.
            let Some(advert) = told.remove(room) else { continue };
            match self.tellings.get_mut(room) {
                Some(telling) => telling.correct(advert),
                None => {
                    let telling = Telling::new(pace, advert, self.inner.members.own(room), now);
                    self.tellings.insert(room.clone(), telling);
                    self.notes.insert(room.clone(), Notes::new(pace, now));
                    self.sweep = Some(Sweep::new());
                }
            }
        }
        told.retain(|room, _| ids.contains(room));
        drop(told);
        for room in std::mem::take(&mut *self.inner.refused.lock().expect(LOCK)) {
            if let Some(telling) = self.tellings.get_mut(&room) {
                telling.refused(now);
            }
        }
        if self.inner.rescope.swap(false, Ordering::Relaxed) {
            // What was not said yet may be what is not to be said now: it is told with the whole catalogue.
            self.tellings.values_mut().for_each(|telling| telling.forget_changes());
            self.sweep = Some(Sweep::rescoped(self.rooms()));
        }
    }

    /// An index page changed: what it says of files that are listed may have changed, and others may want to know.
    async fn page_changed(&mut self, key: PageKey, mark: String) {
        let PageKey::Project(project) = key else { return };
        let Ok(package) = PackageUrl::of("pypi", project.as_str(), None, &[]) else { return };
        let now = Instant::now();
        for (room, notes) in &mut self.notes {
            if self.inner.members.touches(room, &package) {
                notes.changed(package.clone(), mark.clone(), now);
            }
        }
        let look = self.inner.look.clone();
        let listed = self.inner.disk.run(move || look.own_files(&project)).await;
        if !listed.is_empty() {
            self.fresh.extend(listed);
            self.gathered.get_or_insert(now + GATHER);
        }
    }

    /// One piece of what is to be done.
    async fn work(&mut self) {
        let now = Instant::now();
        if self.gathered.is_some_and(|at| at <= now) {
            self.gathered = None;
            if !self.fresh.is_empty() {
                let some: Vec<_> = self.fresh.iter().copied().take(AT_ONCE).collect();
                for sha256 in &some {
                    self.fresh.remove(sha256);
                }
                let (theirs, rooms) = (self.inner.clone(), self.rooms());
                self.publish(move || theirs.put(&rooms, &some, How::Anew)).await;
            } else if let Some(spot) = self.spots.pop_first() {
                let (theirs, rooms) = (self.inner.clone(), self.rooms());
                self.publish(move || theirs.put_tagged(&rooms, &spot)).await;
            } else if self.walk_from <= now {
                let gone = std::mem::take(&mut self.gone);
                let (theirs, rooms, own) = (self.inner.clone(), self.rooms(), self.near.swarm.peer_id());
                self.publish(move || theirs.remove(&rooms, &gone, &own)).await;
                self.walk_from = Instant::now() + now.elapsed() * WALK_SHARE;
            }
            if !self.fresh.is_empty() || !self.gone.is_empty() || !self.spots.is_empty() {
                self.gathered = Some(now);
            }
        } else if self.sweep.is_some() {
            self.sweep_on().await;
        } else if self.next_sweep <= now {
            self.sweep = Some(Sweep::thorough());
        } else if self.changes >= SWEPT_AFTER || self.inner.members.needs_sweep() {
            self.sweep_blocks().await;
        }
    }

    /// The rooms that this node takes part in.
    fn rooms(&self) -> Vec<String> {
        self.tellings.keys().cloned().collect()
    }

    async fn sweep_blocks(&mut self) {
        let members = self.inner.members.clone();
        // While catalogues are on their way it is tried again at the next tick.
        if self.inner.disk.run(move || members.sweep()).await {
            self.changes = 0;
        }
    }

    /// The next piece of a sweep.
    async fn sweep_on(&mut self) {
        let Some(mut sweep) = self.sweep.take() else { return };
        if let Some(room) = sweep.first.pop() {
            let theirs = self.inner.clone();
            self.sweep = Some(sweep);
            self.publish(move || theirs.weed(&room)).await;
            return self.tellings.values_mut().for_each(|telling| telling.forget_changes());
        }
        let Some(artifacts) = &mut sweep.artifacts else {
            let theirs = self.inner.clone();
            let all = move || Ok((theirs.store.artifacts(usize::MAX)?, theirs.look.images.stored_spots()?));
            match self.inner.disk.run(all).await {
                Ok((artifacts, spots)) => {
                    sweep.artifacts = Some(artifacts);
                    self.sweep = Some(sweep);
                    self.spots.extend(spots);
                    self.gathered.get_or_insert(Instant::now());
                }
                Err(e) => self.failed(&store::StoreError::into(e)),
            }
            return;
        };
        if !artifacts.is_empty() {
            let some = artifacts.split_off(artifacts.len().saturating_sub(8 * AT_ONCE));
            let (theirs, rooms) = (self.inner.clone(), self.rooms());
            let how = sweep.how;
            self.sweep = Some(sweep);
            return self.publish(move || theirs.put(&rooms, &some, how)).await;
        }
        let rooms = sweep.rooms.get_or_insert_with(|| self.tellings.keys().cloned().collect());
        match rooms.pop() {
            Some(room) => {
                let theirs = self.inner.clone();
                self.sweep = Some(sweep);
                self.publish(move || theirs.weed(&room)).await;
            }
            None => {
                self.next_sweep = Instant::now() + SWEEP;
                self.sweep_blocks().await;
                log::debug!("rooms: all that is stored was looked at in {:?}", sweep.begun.elapsed());
            }
        }
    }

    /// Carries out a change of catalogues.
    async fn publish(&mut self, work: impl FnOnce() -> Result<Published, MembersError> + Send + 'static) {
        match self.inner.disk.run(work).await {
            Ok(published) => {
                let now = Instant::now();
                for (room, root, changes) in published {
                    self.changes += 1;
                    if let Some(telling) = self.tellings.get_mut(&room) {
                        telling.changed(root, &changes, now);
                    }
                }
            }
            Err(e) => self.failed(&e),
        }
    }

    fn failed(&mut self, error: &MembersError) {
        log::error!("rooms: what is stored cannot be catalogued: {error}");
        self.next_sweep = self.next_sweep.min(Instant::now() + AFTER_FAILURE);
    }

    /// What is told is the catalogue that is here, whatever failed between the two.
    fn agree(&mut self) {
        let now = Instant::now();
        for (room, telling) in &mut self.tellings {
            let own = self.inner.members.own(room);
            match own {
                Some(root) if telling.root() != own => {
                    telling.forget_changes();
                    telling.changed(root, &[], now);
                }
                // It was damaged, or the room was left and joined again.
                None if telling.root().is_some() && self.sweep.is_none() => self.sweep = Some(Sweep::new()),
                _ => {}
            }
        }
    }

    /// Says what is due.
    async fn tell(&mut self) {
        let silent = |sweep: &Sweep| sweep.begun.elapsed() < SILENCE || !sweep.first.is_empty();
        if self.sweep.as_ref().is_some_and(silent) {
            return;
        }
        self.agree();
        let Some(standing) = tell::standing(&self.inner, &self.near, self.started) else { return };
        for (room, telling) in &mut self.tellings {
            let notes = self.notes.get_mut(room);
            tell::tell(&self.inner, &self.near, room, telling, notes, &standing).await;
        }
    }
}
