//! `dpm room sync`: everything in a room's scope that is not here, from members and from upstreams.
//!
//! What members have comes first: each file is looked up by its name in the index, which has to agree with them, then
//! fetched by its digest from whoever gives it. Then what the scope names exactly and nobody has yet. A file that is here
//! is not fetched again, so a sync that broke off goes on where it was.

mod pins;
mod queue;

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Failure;
use super::show::{Walk, view};
use crate::base::{Digest, PeerId};
use crate::catalogue::Entry;
use crate::daemon::Rooms;
use crate::eco::oci::{Platforms, repository_of};
use crate::eco::pypi::{FileWant, Part, ProjectName};
use crate::members::RoomView;
use queue::{Done, Item, What};

/// Files of members that are looked for at a time, some megabytes of names. Catalogues are walked once for so many.
const ROUND: usize = 1 << 14;

/// Most files that are named when they could not be had.
const LISTED: usize = 10_000;

/// How long is waited for catalogues that are on their way.
const CATALOGUES_TIME: Duration = Duration::from_secs(30);

/// Between two looks for them.
const LOOK: Duration = Duration::from_millis(200);

/// Fetches it all. What cannot be had is named, and does not keep the others. Blocks.
pub(super) fn sync(
    rooms: &Rooms,
    room: &str,
    platforms: &Platforms,
    progress: &mut dyn FnMut(Value),
) -> Result<Value, Failure> {
    let before = given(rooms);
    let view = with_catalogues(rooms, room)?;
    let mut sync = Sync { rooms, progress, sums: Sums::default(), missing: Missing::default() };
    let mut left_out = sync.of_members(&view)?;
    sync.of_upstreams(&view, platforms, &mut left_out)?;
    let Sync { sums, missing, .. } = sync;
    let unknown: Vec<_> = view
        .nodes
        .iter()
        .filter(|node| node.present && node.here != node.newest)
        .map(|node| json!({"peer": node.peer.to_string(), "user": node.user, "name": node.name, "why": node.trouble}))
        .collect();
    let name =
        |peer: &PeerId| view.nodes.iter().find(|node| node.peer == *peer).map(|node| node.name.clone());
    let givers: Vec<_> = given(rooms)
        .into_iter()
        .map(|(peer, bytes)| (peer, bytes - before.get(&peer).copied().unwrap_or_default().min(bytes)))
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(peer, bytes)| json!({"peer": peer.to_string(), "name": name(&peer), "bytes": bytes}))
        .collect();
    Ok(json!({
        "room": view.room, "fetched": sums.upstream.json(), "from_peers": sums.peers.json(),
        "already_here": sums.here.json(), "givers": givers,
        "missing": missing.listed, "missing_not_listed": missing.count - missing.listed.len() as u64,
        "unknown": unknown,
        "left_out": left_out.iter().map(|(kind, count)| json!({"type": kind, "packages": count})).collect::<Vec<_>>(),
    }))
}

/// The room, with the catalogues of members that can be reached now.
fn with_catalogues(rooms: &Rooms, room: &str) -> Result<RoomView, Failure> {
    let begun = Instant::now();
    loop {
        let view = view(&rooms.members, room)?;
        let connected = rooms.near.as_ref().map(|(swarm, _)| swarm.peers()).unwrap_or_default();
        let coming = view.nodes.iter().any(|node| {
            let near = connected.iter().any(|c| c.peer == node.peer);
            near && node.present && node.here != node.newest && node.trouble.is_none()
        });
        if !coming || begun.elapsed() > CATALOGUES_TIME {
            return Ok(view);
        }
        futures_lite::future::block_on(async_io::Timer::after(LOOK));
    }
}

/// What each peer has given so far.
fn given(rooms: &Rooms) -> BTreeMap<PeerId, u64> {
    let peers = rooms.near.iter().flat_map(|(_, exchange)| exchange.peers().list());
    peers.map(|row| (row.peer, row.gave_bytes)).collect()
}

/// Packages of ecosystems that dpm does not serve, by their type.
type LeftOut = BTreeMap<String, u64>;

#[derive(Clone, Copy, Default)]
struct Sum {
    files: u64,
    bytes: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }

    fn json(self) -> Value {
        json!({"files": self.files, "bytes": self.bytes})
    }
}

/// Where files came from.
#[derive(Default)]
struct Sums {
    upstream: Sum,
    peers: Sum,
    here: Sum,
    /// What is to be fetched, as far as it is known.
    planned: Sum,
}

/// What could not be had.
#[derive(Default)]
struct Missing {
    count: u64,
    listed: Vec<Value>,
    /// The files among them, so that none is tried twice.
    files: HashSet<u64>,
}

impl Missing {
    fn add(&mut self, what: &str, file: Option<&str>, why: &str) {
        self.count += 1;
        self.files.extend(file.map(hash));
        if self.listed.len() < LISTED {
            self.listed.push(json!({"package": what, "file": file, "why": why}));
        }
    }
}

/// A sync at work.
struct Sync<'a> {
    rooms: &'a Rooms,
    progress: &'a mut dyn FnMut(Value),
    sums: Sums,
    missing: Missing,
}

impl Sync<'_> {
    /// Fetches what members have.
    fn of_members(&mut self, view: &RoomView) -> Result<LeftOut, Failure> {
        let walk = Walk::of(self.rooms, view);
        let mut left_out = LeftOut::new();
        let mut other = HashSet::new();
        // First how much it is: more than the store may take would push itself out.
        for node in view.nodes.iter().filter(|node| walk.counts(node)) {
            walk.files(&node.peer, &mut |entry| {
                if walk.holders(&entry, &node.peer).iter().min() != Some(&node.peer) {
                    return Ok(());
                }
                match walk.is_here(&entry)? {
                    true => self.sums.here.add(entry.size),
                    false if is_served(&entry) => self.sums.planned.add(entry.size),
                    false if other.insert(entry.purl.to_string()) => {
                        *left_out.entry(entry.purl.kind().to_owned()).or_default() += 1;
                    }
                    false => {}
                }
                Ok(())
            })?;
        }
        self.within_budget()?;
        let mut tried = HashSet::new();
        loop {
            let mut round = Vec::new();
            for node in view.nodes.iter().filter(|node| walk.counts(node)) {
                walk.files(&node.peer, &mut |entry| {
                    let key = hash((entry.key(), &entry.digests));
                    if round.len() < ROUND
                        && is_served(&entry)
                        && !tried.contains(&key)
                        && !walk.is_here(&entry)?
                    {
                        tried.insert(key);
                        round.push(entry);
                    }
                    Ok(())
                })?;
            }
            if round.is_empty() {
                return Ok(left_out);
            }
            let items: Vec<_> = round.iter().filter_map(|entry| self.item(entry)).collect();
            self.fetch(items)?;
        }
    }

    /// What an entry means to this node; what it does not mean is missing.
    fn item(&mut self, entry: &Entry) -> Option<Item> {
        let what = self.what(entry);
        match what {
            Ok(what) => {
                let (package, file) = (entry.purl.to_string(), entry.file.clone());
                Some(Item { package, file, size: Some(entry.size), what })
            }
            Err(why) => {
                self.missing.add(entry.purl.as_str(), Some(&entry.file), &why);
                None
            }
        }
    }

    fn what(&self, entry: &Entry) -> Result<What, String> {
        if let Some(place) = repository_of(&entry.purl) {
            let digest: Digest = entry.file.parse().map_err(|_| "it has no digest".to_owned())?;
            let spot = self.rooms.images.spot(&place).map_err(|e| e.to_string())?;
            return Ok(What::Image { spot, digest, manifest: entry.facts.media_type.is_some() });
        }
        let package = entry.purl.package();
        let name = package.as_str().rsplit('/').next().unwrap_or_default();
        let project = ProjectName::normalise(name).map_err(|e| e.to_string())?;
        let digest = entry.sha256().map(|sha256| sha256.digest()).or(entry.digests.last().copied());
        Ok(What::File(FileWant { project, digest, filename: entry.file.clone(), part: Part::Whole }))
    }

    /// Fetches these, several at once.
    fn fetch(&mut self, items: Vec<Item>) -> Result<(), Failure> {
        let Self { rooms, progress, sums, missing } = self;
        queue::fetch(rooms, items, |event| match event {
            Done::Stored { upstream, bytes } => match upstream {
                Some(true) => sums.upstream.add(bytes),
                Some(false) => sums.peers.add(bytes),
                None => sums.here.add(bytes),
            },
            Done::Failed { item, why } => missing.add(&item.package, Some(&item.file), &why),
            Done::Arriving { bytes, what } => progress(json!({
                "artifacts": sums.upstream.files + sums.peers.files, "of": sums.planned.files,
                "bytes": sums.upstream.bytes + sums.peers.bytes + bytes, "of_bytes": sums.planned.bytes,
                "peers_bytes": sums.peers.bytes, "upstream_bytes": sums.upstream.bytes, "what": what,
            })),
        });
        Ok(())
    }

    fn within_budget(&self) -> Result<(), Failure> {
        let Sums { planned, here, .. } = self.sums;
        let budget = self.rooms.store.space()?.budget_bytes;
        match planned.bytes.saturating_add(here.bytes) > budget {
            true => Err(format!(
                "{} files of {} bytes are not here, {} bytes of the room are, and the store takes {budget}: give it more \
                 ([store] budget), or the room a smaller scope",
                planned.files, planned.bytes, here.bytes
            )
            .into()),
            false => Ok(()),
        }
    }
}

/// Whether dpm can serve it, and so fetches it.
fn is_served(entry: &Entry) -> bool {
    matches!(entry.purl.kind(), "pypi" | "oci")
}

/// Enough to know a thing again, without keeping it.
fn hash(thing: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    thing.hash(&mut hasher);
    hasher.finish()
}
