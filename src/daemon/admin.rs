//! What an operator asks and orders, answered the same by a running node and by an idle store.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use crate::base::{Algorithm, Artifact, Digest, raw_cid};
use crate::config::Config;
use crate::eco::pypi::{self, ProjectName, Want};
use crate::front::{Gauges, Metrics};
use crate::resolve::PageKey;
use crate::rt::UnixMillis;
use crate::store::{Description, StoreError};

use super::Rooms;

/// An order of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// What is stored, asked and served.
    Status,
    /// Where an answer comes from: a dpm URL or path, a digest, a CID, or a project's name.
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
            rooms,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Carries out an order and gives the outcome as JSON. Blocks; `progress` is told of long work.
    pub fn carry_out(&self, order: &Order, progress: &mut dyn FnMut(Value)) -> Result<Value, Failure> {
        match order {
            Order::Status => Ok(self.status()?),
            Order::Why(what) => self.why(what),
            Order::Verify => Ok(self.verify(progress)?),
            Order::Purge(what) => self.purge(what),
            Order::Pin(what) => self.pin(what, true),
            Order::Unpin(what) => self.pin(what, false),
            Order::Gc => Ok(self.gc()?),
        }
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
            "origins": origins,
            "in_flight": inner.rooms.fetch.in_flight(),
            "upstream_bytes": counters.upstream_bytes.load(Relaxed),
            "answers": answers,
        }))
    }

    fn why(&self, what: &str) -> Result<Value, Failure> {
        match self.subject(what)? {
            Subject::Digest(digest) => Ok(self.artifact(&digest)?),
            Subject::Page(key) => self.page(&key),
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

    /// What the door's `/readyz` and `/metrics` show. Blocks for a moment.
    pub fn gauges(&self) -> Gauges {
        let rooms = &self.inner.rooms;
        let mut gauges = Gauges::default();
        match rooms.store.space() {
            Ok(space) => {
                if space.free_bytes < space.margin_bytes {
                    let (free, margin) = (space.free_bytes, space.margin_bytes);
                    let text = format!(
                        "the disk has {free} bytes free, under the margin of {margin}: nothing is stored"
                    );
                    gauges.not_ready.push(text);
                }
                gauges.metrics.extend([
                    ("dpm_store_artifacts", "gauge", "Artifacts stored.", space.artifacts),
                    ("dpm_store_artifact_bytes", "gauge", "Bytes of artifacts stored.", space.artifact_bytes),
                    ("dpm_store_index_bytes", "gauge", "Bytes of the store's index.", space.index_bytes),
                    ("dpm_store_budget_bytes", "gauge", "Most bytes of artifacts.", space.budget_bytes),
                    ("dpm_disk_free_bytes", "gauge", "Bytes free on the store's disk.", space.free_bytes),
                ]);
            }
            Err(e) => gauges.not_ready.push(e.to_string()),
        }
        if let Err(e) = rooms.store.check() {
            gauges.not_ready.push(e.to_string());
        }
        if rooms.resolve.indexes().is_empty() {
            gauges.not_ready.push("no upstream is configured".into());
        }
        let c = rooms.fetch.counters();
        let origins = rooms.client.origins();
        gauges.metrics.extend([
            ("dpm_flights_total", "counter", "Downloads started.", c.flights.load(Relaxed)),
            (
                "dpm_flights_joined_total",
                "counter",
                "Requests that joined a download.",
                c.joined.load(Relaxed),
            ),
            ("dpm_flights", "gauge", "Downloads under way.", rooms.fetch.in_flight() as u64),
            (
                "dpm_passed_total",
                "counter",
                "Requests passed through for want of room.",
                c.passed.load(Relaxed),
            ),
            (
                "dpm_upstream_bytes_total",
                "counter",
                "Bytes of artifacts from upstreams.",
                c.upstream_bytes.load(Relaxed),
            ),
            (
                "dpm_verify_failures_total",
                "counter",
                "Downloads with the wrong digest.",
                c.mismatches.load(Relaxed),
            ),
            ("dpm_resumed_total", "counter", "Downloads taken up again.", c.resumed.load(Relaxed)),
            (
                "dpm_store_failures_total",
                "counter",
                "Artifacts served but not stored.",
                c.store_failures.load(Relaxed),
            ),
            (
                "dpm_upstream_requests_total",
                "counter",
                "Requests to upstreams.",
                origins.iter().map(|o| o.requests).sum(),
            ),
            ("dpm_panics_total", "counter", "Tasks that panicked: bugs.", crate::rt::panics()),
        ]);
        gauges
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
        let path = match Url::parse(what) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => url.path().to_owned(),
            _ => what.to_owned(),
        };
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
                .map_err(|e| format!("{what} is no dpm URL, digest, CID or project name: {e}"))?,
        )))
    }
}

enum Subject {
    Digest(Digest),
    Page(PageKey),
    File(pypi::FileWant),
}
