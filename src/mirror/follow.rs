//! Fetches what members of rooms that are followed have, within a budget.
//!
//! Which of the nodes fetches what, and when, is in `share`. What is fetched is stored like anything else: evicted when
//! it is not used, and told of in the room by whoever looks at the store.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_lite::future;
use url::Url;

use crate::base::{Access, Artifact, PackageUrl, PeerId, ROOM, Sha256};
use crate::catalogue::{self, Budget, Difference, Entry, Root};
use crate::fetch::FetchError;
use crate::members::Mode;
use crate::rt::UnixMillis;
use crate::store::{self, Description, StoreError};

use super::Inner;
use super::backoff::Backoff;
use super::look::mirrored_name;
use super::share::{TURN, turn};

/// Files fetched at once: they share the lines with what clients want.
const AT_ONCE: usize = 2;

/// Files that wait for their turn: some 500 bytes each. What does not fit is found again when it is looked anew.
const WAITING: usize = 65_536;

/// Between two looks at what members have, where one of them said something.
const LOOK: Duration = Duration::from_secs(1);

/// How often it is looked which rooms are followed. Looking costs a lock.
const TICK: Duration = Duration::from_secs(5);

/// How often everything is looked at anew: somebody who had a file may be gone.
const ANEW: Duration = Duration::from_secs(3600);

/// The part of the store's budget that is left to what clients want, whatever the room has: one in so many.
const LEFT: u64 = 10;

/// A file that waits for its turn.
#[derive(Clone, Debug)]
struct Waiting {
    room: String,
    entry: Entry,
}

struct Follow {
    inner: Arc<Inner>,
    own: PeerId,
    /// Catalogues that were looked at.
    seen: HashMap<(String, PeerId), Root>,
    waiting: BTreeMap<(Instant, Sha256), Waiting>,
    known: HashSet<Sha256>,
    backoff: Backoff<Sha256>,
    /// What was fetched because of rooms and is here, in bytes.
    kept: HashMap<Sha256, u64>,
    running: HashMap<Sha256, u64>,
    /// When everything is looked at anew; with `overfull` as soon as there is room for what did not fit.
    anew: Instant,
    overfull: bool,
    /// Something did not fit.
    full: bool,
    ended: async_channel::Receiver<Ended>,
    end: async_channel::Sender<Ended>,
}

struct Ended(Sha256, Waiting, Result<(), FetchError>);

/// Runs for ever.
pub(super) async fn run(inner: Arc<Inner>, own: PeerId) {
    let mut watch = inner.store.watch();
    let (end, ended) = async_channel::bounded(AT_ONCE);
    let mut follow = Follow {
        inner,
        own,
        seen: HashMap::new(),
        waiting: BTreeMap::new(),
        known: HashSet::new(),
        backoff: Backoff::default(),
        kept: HashMap::new(),
        running: HashMap::new(),
        anew: Instant::now() + ANEW,
        overfull: false,
        full: false,
        ended,
        end,
    };
    follow.count().await;
    loop {
        follow.look().await;
        follow.begin().await;
        let next = follow.next();
        let rung = async {
            follow.inner.follows.heard().await;
            // What comes with it, in one go.
            async_io::Timer::after(LOOK).await;
            Woken::Members
        };
        let stored = async { Woken::Store(watch.recv().await.ok()) };
        let ended = async {
            match follow.ended.recv().await {
                Ok(ended) => Woken::Ended(Box::new(ended)),
                Err(_) => future::pending().await,
            }
        };
        let time = async {
            async_io::Timer::at(next).await;
            Woken::Members
        };
        match future::or(future::or(stored, ended), future::or(rung, time)).await {
            Woken::Members => {}
            Woken::Store(Some(store::Change::Removed(sha256))) => drop(follow.kept.remove(&sha256)),
            Woken::Store(Some(store::Change::Added(sha256))) => follow.stored(sha256).await,
            Woken::Store(None) => {
                async_io::Timer::after(LOOK).await;
                watch = follow.inner.store.watch();
                follow.count().await;
            }
            Woken::Ended(ended) => follow.ended(*ended),
        }
    }
}

enum Woken {
    Members,
    Store(Option<store::Change>),
    Ended(Box<Ended>),
}

impl Follow {
    fn rooms(&self) -> Vec<String> {
        let members = &self.inner.members;
        members.ids().into_iter().filter(|room| members.mode(room) == Mode::Follow).collect()
    }

    /// Counts what was fetched because of rooms.
    async fn count(&mut self) {
        let store = self.inner.store.clone();
        let count = move || -> Result<HashMap<Sha256, u64>, StoreError> {
            let mut kept = HashMap::new();
            for sha256 in store.artifacts(usize::MAX)? {
                if let Some(found) = store.describe(&sha256.digest())?.filter(|found| found.upstream == ROOM)
                {
                    kept.insert(sha256, found.size);
                }
            }
            Ok(kept)
        };
        match self.inner.disk.run(count).await {
            Ok(kept) => self.kept = kept,
            Err(e) => log::error!("rooms: what was mirrored is not known: {e}"),
        }
    }

    async fn stored(&mut self, sha256: Sha256) {
        let store = self.inner.store.clone();
        let found = self.inner.disk.run(move || store.describe(&sha256.digest())).await;
        if let Some(found) = found.ok().flatten().filter(|found| found.upstream == ROOM) {
            self.kept.insert(sha256, found.size);
        }
    }

    /// Looks at catalogues that are new.
    async fn look(&mut self) {
        let (now, rooms) = (Instant::now(), self.rooms());
        // Where nothing fits, there is no use in looking for more before something has gone.
        let more = self.overfull && !self.full && self.waiting.len() < WAITING / 2;
        if self.anew <= now || rooms.is_empty() || more {
            self.seen.clear();
            (self.anew, self.overfull, self.full) = (now + ANEW, false, false);
        }
        self.seen.retain(|(room, _), _| rooms.contains(room));
        if rooms.is_empty() {
            self.waiting.clear();
            self.known.clear();
        }
        for room in rooms {
            for (peer, root) in self.inner.members.catalogues(&room) {
                let Some(root) = root else { continue };
                let key = (room.clone(), peer);
                let before = self.seen.get(&key).copied();
                if before == Some(root) {
                    continue;
                }
                let (theirs, of, own) = (self.inner.clone(), room.clone(), self.own);
                let most = WAITING.saturating_sub(self.waiting.len());
                let found = self.inner.disk.run(move || theirs.news(&of, before, root, &own, most)).await;
                match found {
                    Ok(found) => {
                        self.overfull |= found.len() >= most;
                        for (entry, wait) in found {
                            self.wait(room.clone(), entry, now + wait);
                        }
                        self.seen.insert(key, root);
                    }
                    // The older one is gone, for one; all of the newer is looked at next.
                    Err(e) => {
                        log::debug!("rooms: the catalogue of {peer} in {room}: {e}");
                        self.seen.remove(&key);
                    }
                }
            }
        }
    }

    fn wait(&mut self, room: String, entry: Entry, due: Instant) {
        let Some(sha256) = entry.sha256() else { return };
        if self.waiting.len() < WAITING && self.known.insert(sha256) {
            self.waiting.insert((due, sha256), Waiting { room, entry });
        }
    }

    /// When there is something to do.
    fn next(&self) -> Instant {
        let first = self.waiting.keys().next().filter(|_| self.running.len() < AT_ONCE);
        let tick = Instant::now() + TICK;
        first.map_or(tick, |(due, _)| (*due).min(tick))
    }

    /// Begins to fetch whatever is due, as far as there is room.
    async fn begin(&mut self) {
        while self.running.len() < AT_ONCE {
            let now = Instant::now();
            let Some(first) = self.waiting.first_entry().filter(|first| first.key().0 <= now) else { return };
            let ((_, sha256), waiting) = first.remove_entry();
            self.known.remove(&sha256);
            let (theirs, of, own) = (self.inner.clone(), waiting.clone(), self.own);
            let verdict = self.inner.disk.run(move || theirs.judge(&of, &sha256, &own)).await;
            match verdict {
                Ok(Verdict::Fetch) => {}
                Ok(Verdict::Leave) => continue,
                Err(e) => {
                    log::error!("rooms: {}: {e}", waiting.entry.file);
                    continue;
                }
            }
            match self.room_for(waiting.entry.size).await {
                true => self.fetch(sha256, waiting),
                // A smaller one may fit; this one may when everything is looked at anew.
                false => {
                    self.full = true;
                    log::debug!("rooms: no room for {} of {}", waiting.entry.file, waiting.entry.purl);
                }
            }
        }
    }

    async fn room_for(&self, bytes: u64) -> bool {
        let used: u64 = self.kept.values().chain(self.running.values()).sum();
        let store = self.inner.store.clone();
        let Ok(space) = self.inner.disk.run(move || store.space()).await else { return false };
        let on_its_way: u64 = self.running.values().sum();
        let most = space.budget_bytes - space.budget_bytes / LEFT;
        let free = space.free_bytes.saturating_sub(space.margin_bytes);
        used.saturating_add(bytes) <= self.inner.options.budget_bytes
            && space.artifact_bytes.saturating_add(on_its_way).saturating_add(bytes) <= most
            && on_its_way.saturating_add(bytes) <= free
    }

    fn fetch(&mut self, sha256: Sha256, waiting: Waiting) {
        let Some(artifact) = artifact(&waiting.entry) else { return };
        self.running.insert(sha256, waiting.entry.size);
        let (fetch, end) = (self.inner.fetch.clone(), self.end.clone());
        self.inner.tasks.spawn(async move {
            let outcome = fetch.complete(artifact).await.map(drop);
            // Nobody listens when the node stops.
            let _ = end.send(Ended(sha256, waiting, outcome)).await;
        });
    }

    fn ended(&mut self, ended: Ended) {
        let Ended(sha256, waiting, outcome) = ended;
        let bytes = self.running.remove(&sha256).unwrap_or_default();
        match outcome {
            Ok(()) => {
                self.kept.insert(sha256, bytes);
                self.backoff.went_well(&sha256);
                log::debug!("rooms: {} of {} is here", waiting.entry.file, waiting.entry.purl);
            }
            Err(e) => {
                log::debug!("rooms: {} of {} is not here: {e}", waiting.entry.file, waiting.entry.purl);
                let now = Instant::now();
                self.backoff.failed(sha256, now);
                let until = self.backoff.until(&sha256, now).unwrap_or(now + TURN);
                self.wait(waiting.room, waiting.entry, until);
            }
        }
    }
}

enum Verdict {
    Fetch,
    Leave,
}

impl Inner {
    /// Files of a catalogue that were not in the one before, with the time until this node's turn. Blocks.
    fn news(
        &self,
        room: &str,
        before: Option<Root>,
        root: Root,
        own: &PeerId,
        most: usize,
    ) -> Result<Vec<(Entry, Duration)>, catalogue::CatalogueError> {
        let nodes = self.nodes(room);
        let mut found = Vec::new();
        let mut take = |entry: Entry| {
            let Some(sha256) = entry.sha256().filter(|_| found.len() < most) else { return };
            if self.members.in_scope(room, &entry.purl)
                && is_file(&entry)
                && matches!(self.store.describe(&sha256.digest()), Ok(None))
                && let Some(wait) = turn(own, &nodes, &self.members.holders(&sha256), &sha256)
            {
                found.push((entry, wait));
            }
        };
        let source = |cid: &crate::base::Cid| self.look.block(cid);
        let mut budget = Budget::for_entries(root.entries + before.map_or(0, |before| before.entries));
        match before {
            None => catalogue::walk(&root, &source, &mut budget, &mut take)?,
            Some(before) => {
                catalogue::diff(&before, &root, &source, &mut budget, &mut |difference| match difference {
                    Difference::Added(entry) => take(entry),
                    Difference::Changed { after, .. } => take(*after),
                    Difference::Removed(_) => {}
                })?
            }
        }
        Ok(found)
    }

    fn nodes(&self, room: &str) -> Vec<PeerId> {
        self.members.catalogues(room).into_iter().map(|(peer, _)| peer).collect()
    }

    /// Whether a file is to be fetched, now that its turn has come. Blocks.
    fn judge(&self, waiting: &Waiting, sha256: &Sha256, own: &PeerId) -> Result<Verdict, StoreError> {
        let Waiting { room, entry } = waiting;
        let is_followed = self.members.mode(room) == Mode::Follow && self.members.in_scope(room, &entry.purl);
        if !is_followed || self.store.describe(&sha256.digest())?.is_some() {
            return Ok(Verdict::Leave);
        }
        let holders = self.members.holders(sha256);
        if holders.is_empty()
            || turn(own, &self.nodes(room), &holders, sha256).is_none()
            || self.is_disputed(entry, sha256)
        {
            return Ok(Verdict::Leave);
        }
        // Its own index knows better.
        if self.look.is_denied(entry, &as_stored(entry, sha256))? {
            return Ok(Verdict::Leave);
        }
        Ok(Verdict::Fetch)
    }

    /// Whether members say different things of it.
    fn is_disputed(&self, entry: &Entry, sha256: &Sha256) -> bool {
        let same = |known: &Entry| known.file == entry.file && known.sha256() == Some(*sha256);
        let package: PackageUrl = entry.purl.package();
        !self.members.package(&package).is_ok_and(|known| known.entries.iter().any(same))
    }
}

/// Tags are names: what they mean is fetched under its digest.
fn is_file(entry: &Entry) -> bool {
    entry.purl.kind() != "oci" || crate::eco::oci::reference_digest(&entry.file).is_ok()
}

/// What the store would say of it.
fn as_stored(entry: &Entry, sha256: &Sha256) -> Description {
    Description {
        sha256: *sha256,
        size: entry.size,
        digests: entry.digests.clone(),
        filename: entry.file.clone(),
        upstream: ROOM.into(),
        url: String::new(),
        stored_at: UnixMillis(0),
        used_at: None,
        root: Some(entry.root),
        pinned: false,
        private: false,
    }
}

/// An entry as bytes that members have.
fn artifact(entry: &Entry) -> Option<Artifact> {
    Some(Artifact {
        upstream: ROOM.into(),
        url: Url::parse(&format!("{ROOM}{}", entry.purl)).ok()?,
        digest: Some(entry.sha256()?.digest()),
        size: Some(entry.size),
        filename: mirrored_name(entry),
        access: Access::Public,
        limit_bytes: entry.size,
    })
}
