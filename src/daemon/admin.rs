//! What an operator asks and orders, answered the same by a running node and by an idle store.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use crate::base::{Algorithm, Artifact, Cid, Digest, Sha256, raw_cid, sha256_of_cid};
use crate::config::Config;
use crate::eco::oci::Reference;
use crate::eco::pypi::{self, ProjectName, Purl, Want};
use crate::front::Metrics;
use crate::peers::Circle;
use crate::resolve::PageKey;
use crate::resolve::images::Spot;
use crate::rt::UnixMillis;
use crate::store::{Description, Store, StoreError};

use super::carry::{self, CarryError, Choice, Chosen};
use super::images::Meant;
use super::prefetch::{self, Prefetch};
use super::{RoomOrder, Rooms, get, images, room};

/// An order of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// What is stored, asked and served.
    Status,
    /// Where an answer comes from: a dpm URL or path, a digest, a CID, an image, or a project's name.
    Why(String),
    /// Read and hash everything.
    Verify,
    /// Forget: the same words as for [`Order::Why`].
    Purge(String),
    /// Keep from eviction: the same words as for [`Order::Why`].
    Pin(String),
    /// Let go again.
    Unpin(String),
    /// Evict what is over the budget, sweep what is orphaned, forget pages not confirmed for 90 days.
    Gc,
    /// Who is near, what they gave and took, and who lied.
    Peers,
    /// Give the bytes of what these words name, fetched where they are not stored: a package URL with a version, a URL
    /// of dpm, a digest or a CID.
    Get(String),
    /// Fetch and store what somebody will want soon.
    Prefetch(Prefetch),
    /// Give what is stored as a CAR file.
    Export {
        /// Of all that is stored.
        choice: Choice,
        /// Whether what came from private indexes goes with it.
        private: bool,
    },
    /// Take in a CAR file that an export gave.
    Import {
        /// Whether its index pages are taken over, too.
        names: bool,
    },
    /// About Matrix rooms.
    Room(RoomOrder),
}

/// Pages that no upstream has confirmed for so long are forgotten by `gc`.
const OLD_PAGES: Duration = Duration::from_secs(90 * 24 * 3600);

/// Carries out orders; clones are one.
#[derive(Clone)]
pub struct Admin {
    inner: Arc<Inner>,
}

struct Inner {
    rooms: Rooms,
    /// Of a running node.
    metrics: Option<Arc<Metrics>>,
    data: String,
    listen: String,
    offline: bool,
    /// As in the status.
    apt: Value,
    started: UnixMillis,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

impl Admin {
    /// For a node with these rooms; `metrics` when it is running.
    pub fn new(config: &Config, rooms: Rooms, metrics: Option<Arc<Metrics>>) -> Self {
        let inner = Inner {
            started: rooms.clock.now(),
            metrics,
            data: config.data.display().to_string(),
            listen: config.listen.to_string(),
            offline: config.offline,
            apt: config
                .apt
                .iter()
                .flatten()
                .map(|source| json!({"url": source.url.as_str(), "private": source.private}))
                .collect(),
            rooms,
        };
        Self { inner: Arc::new(inner) }
    }

    pub(super) fn rooms(&self) -> &Rooms {
        &self.inner.rooms
    }

    /// Carries out an order and gives the outcome as JSON. Blocks; `progress` is told of long work.
    pub fn carry_out(&self, order: &Order, progress: &mut dyn FnMut(Value)) -> Result<Value, Failure> {
        self.carry_through(order, &mut std::io::empty(), &mut std::io::sink(), progress)
    }

    /// The same for an order that takes bytes from `input` or gives bytes to `output`.
    pub fn carry_through(
        &self,
        order: &Order,
        input: &mut dyn Read,
        output: &mut dyn Write,
        progress: &mut dyn FnMut(Value),
    ) -> Result<Value, Failure> {
        match order {
            Order::Status => Ok(self.status()?),
            Order::Why(what) => self.why(what),
            Order::Verify => Ok(self.verify(progress)?),
            Order::Purge(what) => self.purge(what),
            Order::Pin(what) => self.pin(what, true),
            Order::Unpin(what) => self.pin(what, false),
            Order::Gc => Ok(self.gc()?),
            Order::Peers => Ok(self.peers()),
            Order::Get(what) => get::get(&self.inner.rooms, what, output, progress),
            Order::Prefetch(order) => prefetch::prefetch(&self.inner.rooms, order, progress),
            Order::Export { choice, private } => {
                let chosen = self.chosen(choice)?;
                Ok(carry::export(&self.inner.rooms, chosen, *private, output, progress)?)
            }
            Order::Import { names } => Ok(carry::import(&self.inner.rooms, *names, input, progress)?),
            Order::Room(order) => room::carry_out(&self.inner.rooms, order, input, progress),
        }
    }

    /// The stored artifacts, and the pages, that are to be carried.
    fn chosen(&self, choice: &Choice) -> Result<Chosen, Failure> {
        let rooms = &self.inner.rooms;
        let store = &rooms.store;
        let what = match choice {
            Choice::All => {
                let artifacts = store.artifacts(carry::MOST_FILES + 1)?;
                return Ok(Chosen {
                    artifacts,
                    projects: rooms.resolve.stored_projects(carry::MOST_FILES + 1)?,
                });
            }
            Choice::Pinned => {
                let mut artifacts = Vec::new();
                for sha256 in store.artifacts(usize::MAX)? {
                    if store.describe(&sha256.digest())?.is_some_and(|d| d.pinned) {
                        artifacts.push(sha256);
                    }
                }
                let projects = self.projects_of(&artifacts)?;
                return Ok(Chosen { artifacts, projects });
            }
            Choice::What(what) => what,
        };
        let nothing = || CarryError::Nothing(what.clone());
        let (key, version, file) = match self.subject(what)? {
            Subject::Digest(digest) => {
                let found = store.describe(&digest)?.ok_or_else(nothing)?;
                let artifacts = vec![found.sha256];
                let projects = self.projects_of(&artifacts)?;
                return Ok(Chosen { artifacts, projects });
            }
            Subject::Image(spot, reference) => {
                let artifacts = self.image(&spot, &reference)?;
                return match artifacts.is_empty() {
                    true => Err(nothing().into()),
                    false => Ok(Chosen { artifacts, projects: Vec::new() }),
                };
            }
            Subject::File(want) => (want.project, None, Some(want.filename)),
            Subject::Page(PageKey::Root) => return Err(nothing().into()),
            Subject::Page(PageKey::Project(name)) if Purl::is_meant(what) => {
                let purl = Purl::parse(what)?;
                (name, purl.version, purl.file_name)
            }
            Subject::Page(PageKey::Project(name)) => (name, None, None),
        };
        let mut artifacts = Vec::new();
        for artifact in
            futures_lite::future::block_on(rooms.resolve.artifacts(&PageKey::Project(key.clone())))?
        {
            let filename = &artifact.filename;
            let is_meant = file
                .as_ref()
                .is_none_or(|file| filename.strip_suffix(".metadata").unwrap_or(filename) == file)
                && version.as_ref().is_none_or(|v| pypi::is_of(filename, &key, v));
            if is_meant
                && let Some(digest) = self.digest(&artifact)?
                && let Some(found) = store.describe(&digest)?
            {
                artifacts.push(found.sha256);
            }
        }
        match artifacts.is_empty() {
            true => Err(nothing().into()),
            false => Ok(Chosen { artifacts, projects: vec![key] }),
        }
    }

    /// The projects that these artifacts are of, by their names.
    fn projects_of(&self, artifacts: &[Sha256]) -> Result<Vec<ProjectName>, Failure> {
        let mut projects = std::collections::BTreeSet::new();
        for sha256 in artifacts {
            let found = self.inner.rooms.store.describe(&sha256.digest())?;
            projects.extend(found.and_then(|found| pypi::project_of(&found.filename)));
        }
        Ok(projects.into_iter().collect())
    }

    fn status(&self) -> Result<Value, StoreError> {
        let inner = &self.inner;
        let space = inner.rooms.store.space()?;
        let now = inner.rooms.clock.now();
        let origins: Vec<_> = inner
            .rooms
            .client
            .origins()
            .into_iter()
            .map(|o| {
                json!({
                    "origin": o.origin, "requests": o.requests, "bytes": o.bytes,
                    "failures_in_a_row": o.failures,
                    "last_error": o.last_error.map(|(text, ago)| json!({"text": text, "seconds_ago": ago.as_secs()})),
                    "resting_seconds": o.resting.map(|d| d.as_secs()),
                    "rate_limit": o.rate.map(|(rate, ago)| json!({
                        "limit": rate.limit, "remaining": rate.remaining, "seconds_ago": ago.as_secs(),
                        "window_seconds": rate.window.map(|w| w.as_secs()),
                    })),
                })
            })
            .collect();
        let indexes: Vec<_> = inner
            .rooms
            .resolve
            .indexes()
            .iter()
            .map(|i| json!({"name": i.site.name, "url": i.site.url.as_str(), "private": i.private}))
            .collect();
        let registries: Vec<_> = inner
            .rooms
            .images
            .registries()
            .iter()
            .map(|r| {
                json!({
                    "name": r.site.name, "url": r.site.url.as_str(), "hosts": r.hosts, "private": r.private,
                })
            })
            .collect();
        let counters = inner.rooms.fetch.counters();
        let answers: Option<serde_json::Map<_, _>> = inner.metrics.as_ref().map(|m| {
            m.by_cache()
                .map(|(cache, answers, bytes)| (cache.into(), json!({"answers": answers, "bytes": bytes})))
                .collect()
        });
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "running": inner.metrics.is_some(),
            "listen": inner.listen,
            "offline": inner.offline,
            "uptime_seconds": now.since(inner.started).as_secs(),
            "data": inner.data,
            "store": {
                "artifacts": space.artifacts, "artifact_bytes": space.artifact_bytes,
                "index_bytes": space.index_bytes, "budget_bytes": space.budget_bytes,
                "free_bytes": space.free_bytes, "margin_bytes": space.margin_bytes,
            },
            "pypi": indexes,
            "oci": registries,
            "apt": inner.apt,
            "origins": origins,
            "in_flight": inner.rooms.fetch.in_flight(),
            "upstream_bytes": counters.upstream_bytes.load(Relaxed),
            "peer_bytes": counters.peer_bytes.load(Relaxed),
            "swarm": inner.rooms.near.as_ref().map(|(swarm, _)| swarm.peer_id().to_string()),
            "answers": answers,
        }))
    }

    /// What `dpm peers` and `/api/peers` show.
    pub fn peers(&self) -> Value {
        let Some((swarm, exchange)) = &self.inner.rooms.near else {
            return json!({"peer": null, "peers": []});
        };
        let connected = swarm.peers();
        let rows: Vec<_> = exchange
            .peers()
            .list()
            .into_iter()
            .map(|row| {
                let rtt = connected.iter().find(|c| c.peer == row.peer).and_then(|c| c.rtt);
                json!({
                    "peer": row.peer.to_string(), "address": row.address.map(|a| a.to_string()),
                    "agent": row.agent, "connected": row.connected, "dpm": row.dpm,
                    "near": row.circle == Circle::Near,
                    "round_trip_ms": rtt.map(|t| t.as_secs_f64() * 1e3),
                    "gave_bytes": row.gave_bytes, "gave_artifacts": row.gave_artifacts,
                    "took_bytes": row.took_bytes, "bytes_per_second": row.bytes_per_second,
                    "listed": row.listed, "strikes": row.strikes, "notes": row.notes,
                    "blocked_seconds": row.blocked_for.map(|d| d.as_secs()), "let_downs": row.let_downs,
                })
            })
            .collect();
        let listeners: Vec<_> = swarm.listeners().iter().map(ToString::to_string).collect();
        let sought = swarm.sought().into_iter().filter(|s| s.failures > 0);
        let unreachable: Vec<_> = sought
            .map(|s| {
                json!({
                    "peer": s.peer.to_string(), "kept": s.kept, "failures": s.failures, "error": s.error,
                    "addresses": s.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
                })
            })
            .collect();
        json!({
            "peer": swarm.peer_id().to_string(), "listeners": listeners, "peers": rows,
            "unreachable": unreachable,
        })
    }

    fn why(&self, what: &str) -> Result<Value, Failure> {
        match self.subject(what)? {
            Subject::Digest(digest) => Ok(self.artifact(&digest)?),
            Subject::Page(key) => self.page(&key),
            Subject::Image(spot, reference) => {
                images::why(&self.inner.rooms, &spot, &reference, |digest| self.artifact(digest))
            }
            Subject::File(want) => {
                let mut answer = match want.digest.filter(|_| want.part == pypi::Part::Whole) {
                    Some(digest) => self.artifact(&digest)?,
                    None => {
                        let located = futures_lite::future::block_on(self.inner.rooms.resolve.locate(&want));
                        let (artifact, inside) = match located? {
                            crate::resolve::Located::Artifact(a) => (a, false),
                            crate::resolve::Located::InWheel(a) => (a, true),
                        };
                        let mut answer = match self.digest(&artifact)? {
                            Some(digest) => self.artifact(&digest)?,
                            None => json!({"stored": false}),
                        };
                        answer["url"] = artifact.url.as_str().into();
                        answer["taken_from_wheel"] = inside.into();
                        answer
                    }
                };
                answer["project"] = self.page(&PageKey::Project(want.project))?;
                Ok(answer)
            }
        }
    }

    fn artifact(&self, digest: &Digest) -> Result<Value, StoreError> {
        let Some(Description {
            sha256,
            size,
            digests: _,
            filename,
            upstream,
            url,
            stored_at,
            used_at,
            root,
            pinned,
            private,
        }) = self.inner.rooms.store.describe(digest)?
        else {
            return Ok(json!({"kind": "artifact", "digest": digest.to_string(), "stored": false}));
        };
        let now = self.inner.rooms.clock.now();
        Ok(json!({
            "kind": "artifact",
            "stored": true,
            "filename": filename,
            "size": size,
            "digest": format!("sha256:{sha256}"),
            "cid": root.map(|c| c.to_string()),
            "upstream": upstream,
            "url": url,
            "age_seconds": now.since(stored_at).as_secs(),
            "used_seconds_ago": used_at.map(|at| now.since(at).as_secs()),
            "pinned": pinned,
            "private": private,
        }))
    }

    fn page(&self, key: &PageKey) -> Result<Value, Failure> {
        let known = futures_lite::future::block_on(self.inner.rooms.resolve.known(key))?;
        let Some(head) = known else {
            return Ok(json!({"kind": "page", "page": key.to_string(), "stored": false}));
        };
        let age = self.inner.rooms.clock.now().since(UnixMillis(head.checked_at));
        Ok(json!({
            "kind": "page",
            "page": key.to_string(),
            "stored": true,
            "found": head.found,
            "upstream": head.upstream,
            "url": head.url,
            "private": head.private,
            "age_seconds": age.as_secs(),
            "fresh_for_seconds": head.fresh_for / 1000,
            "fresh": age < Duration::from_millis(head.fresh_for),
            "etag": head.etag,
        }))
    }

    fn verify(&self, progress: &mut dyn FnMut(Value)) -> Result<Value, StoreError> {
        let total = self.inner.rooms.store.space()?;
        let report = self.inner.rooms.store.scrub(|report| {
            progress(json!({
                "artifacts": report.artifacts, "of": total.artifacts,
                "bytes": report.bytes, "of_bytes": total.artifact_bytes,
            }));
            true
        })?;
        let damaged: Vec<_> = report
            .damaged
            .iter()
            .map(
                |d| json!({"digest": format!("sha256:{}", d.sha256), "filename": d.filename, "what": d.what}),
            )
            .collect();
        Ok(json!({
            "artifacts": report.artifacts, "bytes": report.bytes, "damaged": damaged,
            "orphans_removed": report.orphans, "index_entries_mended": report.mended,
        }))
    }

    fn purge(&self, what: &str) -> Result<Value, Failure> {
        let rooms = &self.inner.rooms;
        let (mut pages, mut artifacts, mut bytes) = (0, 0, 0);
        let mut remove = |digest: &Digest| -> Result<(), StoreError> {
            if let Some(found) = rooms.store.describe(digest)?
                && let Some(size) = rooms.store.remove(&found.sha256)?
            {
                artifacts += 1;
                bytes += size;
            }
            Ok(())
        };
        match self.subject(what)? {
            Subject::Digest(digest) => remove(&digest)?,
            // Its layers go although another image may have them: they are fetched again when that is asked for.
            Subject::Image(spot, reference) => {
                for sha256 in self.image(&spot, &reference)? {
                    remove(&sha256.digest())?;
                }
                pages += rooms.images.forget(&spot)?;
            }
            Subject::File(want) => {
                if let Some(digest) = want.digest.filter(Digest::is_strong) {
                    remove(&digest)?;
                }
                let key = PageKey::Project(want.project);
                let listed = futures_lite::future::block_on(rooms.resolve.artifacts(&key))?;
                for artifact in listed.iter().filter(|a| a.filename == want.filename) {
                    self.digest(artifact)?.map_or(Ok(()), |digest| remove(&digest))?;
                    rooms.fetch.forget_first_use(artifact)?;
                }
                pages += rooms.resolve.forget(&key)?;
            }
            Subject::Page(key) => {
                // The files that the page lists go with it; without a page they stay until they are evicted.
                for artifact in futures_lite::future::block_on(rooms.resolve.artifacts(&key))? {
                    self.digest(&artifact)?.map_or(Ok(()), |digest| remove(&digest))?;
                    if !artifact.digest.is_some_and(|d| d.is_strong()) {
                        rooms.fetch.forget_first_use(&artifact)?;
                    }
                }
                pages += rooms.resolve.forget(&key)?;
            }
        }
        Ok(json!({"pages": pages, "artifacts": artifacts, "bytes": bytes}))
    }

    fn pin(&self, what: &str, pinned: bool) -> Result<Value, Failure> {
        let rooms = &self.inner.rooms;
        let digests = match self.subject(what)? {
            Subject::Digest(digest) => vec![digest],
            Subject::Image(spot, reference) => {
                self.image(&spot, &reference)?.iter().map(Sha256::digest).collect()
            }
            Subject::File(want) if want.digest.is_some_and(|d| d.is_strong()) => {
                want.digest.into_iter().collect()
            }
            Subject::File(want) => {
                let listed =
                    futures_lite::future::block_on(rooms.resolve.artifacts(&PageKey::Project(want.project)))?;
                let same = listed.iter().filter(|a| a.filename == want.filename);
                same.filter_map(|a| self.digest(a).transpose()).collect::<Result<_, _>>()?
            }
            Subject::Page(key) => {
                let listed = futures_lite::future::block_on(rooms.resolve.artifacts(&key))?;
                listed.iter().filter_map(|a| self.digest(a).transpose()).collect::<Result<_, _>>()?
            }
        };
        let mut artifacts = 0;
        for digest in digests {
            if let Some(found) = rooms.store.describe(&digest)? {
                artifacts += u64::from(rooms.store.pin(&found.sha256, pinned)?);
            }
        }
        Ok(json!({"artifacts": artifacts, "pinned": pinned}))
    }

    /// What is stored of an image.
    fn image(&self, spot: &Spot, reference: &Reference) -> Result<Vec<Sha256>, Failure> {
        let rooms = &self.inner.rooms;
        match images::manifest(&rooms.images, spot, reference)? {
            (Some(digest), _) => Ok(images::here(&rooms.store, digest)?.artifacts),
            (None, _) => Ok(Vec::new()),
        }
    }

    /// The strong digest that an artifact has by its index, or by its first use.
    fn digest(&self, artifact: &Artifact) -> Result<Option<Digest>, Failure> {
        match artifact.digest.filter(Digest::is_strong) {
            Some(digest) => Ok(Some(digest)),
            None => Ok(futures_lite::future::block_on(self.inner.rooms.fetch.first_use(artifact))?),
        }
    }

    fn gc(&self) -> Result<Value, StoreError> {
        let store = &self.inner.rooms.store;
        let freed = store.evict()?;
        let orphans = store.sweep()?;
        let before = self.inner.rooms.clock.now().0.saturating_sub(OLD_PAGES.as_millis() as u64);
        let pages = store.forget_old_pages(before)?;
        Ok(json!({
            "artifacts_evicted": freed.artifacts, "bytes_freed": freed.bytes,
            "orphans_removed": orphans, "old_pages_forgotten": pages,
        }))
    }

    /// Reads what an operator names.
    fn subject(&self, what: &str) -> Result<Subject, Failure> {
        if let Ok(digest) = what.parse::<Digest>() {
            return Ok(Subject::Digest(digest));
        }
        if let Ok(cid) = what.parse::<crate::base::Cid>() {
            let hash = Digest::new(Algorithm::Sha256, cid.hash().digest()).and_then(|d| d.sha256());
            let hash = hash.ok_or("only CIDs with SHA-256 are known here")?;
            let artifact = self.inner.rooms.store.artifact_of_block(&hash)?;
            let whole = artifact.unwrap_or(hash);
            log::debug!("{cid} belongs to {}", raw_cid(whole));
            return Ok(Subject::Digest(whole.digest()));
        }
        if let Some(meant) = images::read(&self.inner.rooms.images, what) {
            return meant.map(|meant| match meant {
                Meant::Image(spot, reference) => Subject::Image(spot, reference),
                Meant::Blob(digest) => Subject::Digest(digest),
            });
        }
        let path = match Url::parse(what) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => url.path().to_owned(),
            _ => what.to_owned(),
        };
        if let Some(cid) = path.strip_prefix("/ipfs/") {
            return self.subject(cid.trim_end_matches('/'));
        }
        if let Some(below) = path.strip_prefix("/pypi") {
            return match pypi::want(below, None)? {
                Want::Root => Ok(Subject::Page(PageKey::Root)),
                Want::Project(name) => Ok(Subject::Page(PageKey::Project(name))),
                Want::File(want) => Ok(Subject::File(want)),
                Want::Redirect(_) => {
                    let last = below.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                    Ok(Subject::Page(PageKey::Project(ProjectName::normalise(last)?)))
                }
                Want::Unknown => Err(format!("{what} is no address of dpm").into()),
            };
        }
        let name = path.strip_prefix("pkg:pypi/").unwrap_or(&path);
        let name = name.split('@').next().unwrap_or_default();
        Ok(Subject::Page(PageKey::Project(
            ProjectName::normalise(name)
                .map_err(|e| format!("{what} is no dpm URL, digest, CID, image or project name: {e}"))?,
        )))
    }
}

/// What is known of the artifact that a CID's block belongs to.
pub(super) fn artifact_of(store: &Store, cid: &Cid) -> Result<Option<Description>, StoreError> {
    let Some(hash) = sha256_of_cid(cid) else { return Ok(None) };
    let whole = store.artifact_of_block(&hash)?.unwrap_or(hash);
    store.describe(&whole.digest())
}

enum Subject {
    Digest(Digest),
    Page(PageKey),
    File(pypi::FileWant),
    Image(Spot, Reference),
}
