//! Container images: which digest a tag means now, which tags there are, and where what a digest names can be had.
//!
//! What is named by a digest is asked of a registry once at most. A tag is asked again when its time is over, with a
//! `HEAD`, which registries do not count. The first time it may be a `GET`, whose manifest is stored. Where nothing is known
//! and the registry fails, rooms are asked.

mod ask;
mod fact;
mod memory;
mod told;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_channel::{Receiver, Sender};

use crate::base::{Access, Artifact, Digest, Trail};
use crate::eco::oci::{Accepts, MANIFEST_BYTES, Manifest, Place, Repository};
use crate::rt::{Gate, UnixMillis};
use crate::store::StoreError;
use crate::upstream::{Site, UpstreamError};

use super::memory::FAILURE_REST;
use super::rooms::Rooms;
use super::{Freshness, LEAST_AGE, LOCK, PATIENCE, Parts, State};
pub use ask::list_query;
pub use fact::Fact;
use memory::Memory;

/// A registry that the configuration names.
#[derive(Clone, Debug)]
pub struct Registry {
    /// Where it is; its address ends in `/v2/`, or in a prefix below that.
    pub site: Site,
    /// Hosts under which clients name it, in lower case with their ports: `docker.io`.
    pub hosts: Vec<String>,
    /// Whether it is what clients get who name no registry.
    pub root: bool,
    /// Whether names of one part are below `library/`, as Docker Hub's are.
    pub library: bool,
    /// What it has is kept apart: whoever asks for a digest has to have it from this registry's repository.
    pub private: bool,
    /// Given to peers although it is private: the operator said so.
    pub peers: bool,
}

impl Registry {
    /// Who may have what it gives.
    pub fn access(&self) -> Access {
        if self.private && !self.peers { Access::Private } else { Access::Public }
    }
}

/// A repository of a configured registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    /// Which one, in the order of the configuration.
    pub registry: usize,
    /// As the registry has it.
    pub repository: Repository,
}

/// What is asked of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// Which manifest a tag means.
    Tag(String, Accepts),
    /// Whether there is such a manifest, and what it is.
    Manifest(Digest),
    /// Whether there is such a blob.
    Blob(Digest),
    /// Which tags there are; with a query of the client's.
    Tags(String),
    /// What refers to a manifest; with a query of the client's.
    Referrers(Digest, String),
}

/// How a tag is asked for of which nothing is known. What is known is confirmed with `HEAD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    /// With `HEAD`.
    Head,
    /// With `GET`, for whoever wants the manifest and can have it from nobody else: it comes along and is stored, and
    /// a round trip is saved.
    Get,
}

/// What a registry said.
#[derive(Clone, Debug)]
pub struct Said {
    /// Its words.
    pub fact: Arc<Fact>,
    /// Relation to the registry.
    pub state: State,
    /// Time since the registry said so.
    pub age: Duration,
}

/// Resolves names of images; clones share what is known.
#[derive(Clone)]
pub struct Images {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    registries: Arc<[Registry]>,
    freshness: Freshness,
    offline: bool,
    parts: Parts,
    memory: Arc<Mutex<Memory>>,
    rooms: Rooms,
    /// Repositories with tags that mean something else now.
    changes: (Sender<Spot>, Receiver<Spot>),
    /// One question at a time each: what one has asked, the next ones find in memory.
    asking: Arc<[async_lock::Mutex<()>; ASKING]>,
}

/// Tags of one repository that are told of: people pull a few of the hundreds that there may be.
const TAGS: usize = 4096;

/// Facts that are looked through for repositories with tags.
const FACTS: usize = 1 << 20;

/// Changes of tags that wait to be told. What is lost is found when everything is looked at.
const CHANGES: usize = 1024;

/// Facts of one repository forgotten at once.
const FORGOTTEN: usize = 100_000;

/// Questions that go on at once at most, where each is for another name: as many as `Parts::net` lets through.
const ASKING: usize = 32;

impl Images {
    /// Of these registries.
    pub fn new(registries: Vec<Registry>, freshness: Freshness, offline: bool, parts: Parts) -> Self {
        let (memory, registries) = (Arc::default(), registries.into());
        let asking = Arc::new(std::array::from_fn(|_| async_lock::Mutex::new(())));
        let rooms = Rooms::new(parts.members.clone(), parts.disk.clone());
        let changes = async_channel::bounded(CHANGES);
        Self {
            inner: Arc::new(Inner { registries, freshness, offline, parts, memory, rooms, changes, asking }),
        }
    }

    /// The same for a request that came through other nodes: the questions that it causes say so.
    pub fn on_behalf(&self, trail: Arc<Trail>) -> Self {
        let Inner { parts, .. } = &*self.inner;
        let parts = Parts { client: parts.client.on_behalf(trail), ..parts.clone() };
        Self { inner: Arc::new(Inner { parts, ..(*self.inner).clone() }) }
    }

    /// The configured registries.
    pub fn registries(&self) -> &[Registry] {
        &self.inner.registries
    }

    /// The configured registry's repository that a client means. A table and no more: no host that a client names is
    /// ever asked because it was named.
    pub fn spot(&self, place: &Place) -> Result<Spot, ImagesError> {
        let registries = &self.inner.registries;
        let found = match &place.host {
            Some(host) => registries.iter().position(|r| r.hosts.iter().any(|h| h == host)),
            None => registries.iter().position(|r| r.root),
        };
        let unknown = || ImagesError::NoRegistry(place.host.clone());
        let registry = found.ok_or_else(unknown)?;
        let repository = place.repository.clone();
        let repository = match registries[registry].library {
            true => repository.in_library(),
            false => repository,
        };
        Ok(Spot { registry, repository })
    }

    /// The registry of a repository.
    pub fn registry(&self, spot: &Spot) -> &Registry {
        &self.inner.registries[spot.registry]
    }

    /// What was said and is still good. Touches no disk.
    pub fn peek(&self, spot: &Spot, question: &Question) -> Option<Said> {
        let inner = &self.inner;
        let fact = inner.memory.lock().expect(LOCK).fact(&inner.key(spot, question))?;
        let age = inner.age(&fact);
        (fact.found && age < fact.fresh_for()).then_some(Said { fact, state: State::Hit, age })
    }

    /// What the registry says: from what is known, or by asking it.
    ///
    /// `refresh` demands that it is asked however fresh the answer is. Cancel-safe: a question under way goes on, and
    /// its answer is kept.
    pub async fn ask(&self, spot: &Spot, question: &Question, refresh: bool) -> Result<Said, ImagesError> {
        self.ask_first(spot, question, refresh, First::Head).await
    }

    /// The same, where it matters how the first question is put.
    pub async fn ask_first(
        &self,
        spot: &Spot,
        question: &Question,
        refresh: bool,
        first: First,
    ) -> Result<Said, ImagesError> {
        let said = self.inner.say(spot, question, refresh, first).await?;
        match said.fact.found {
            true => Ok(said),
            false => Err(self.inner.unknown(spot, question)),
        }
    }

    /// What the registry said, however long ago. Asks nobody.
    pub async fn known(&self, spot: &Spot, question: &Question) -> Result<Option<Said>, ImagesError> {
        let inner = &self.inner;
        let fact = inner.known(spot, question, &inner.key(spot, question)).await?;
        Ok(fact.map(|fact| {
            let fresh = inner.age(&fact) < fact.fresh_for();
            inner.said(fact, if fresh { State::Hit } else { State::Stale })
        }))
    }

    /// What is known of a digest in a repository: from a manifest that lists it, or from the registry's own answer.
    /// Touches no disk.
    pub fn described(&self, spot: &Spot, digest: &Digest) -> Option<Described> {
        let key = self.inner.member(spot, digest);
        self.inner.memory.lock().expect(LOCK).member(&key)
    }

    /// Notes what a repository has.
    pub fn note(&self, spot: &Spot, digest: &Digest, described: Described) {
        let key = self.inner.member(spot, digest);
        self.inner.memory.lock().expect(LOCK).note(key, described);
    }

    /// Notes what a manifest of a repository lists.
    pub fn note_children(&self, spot: &Spot, manifest: &Manifest) {
        for child in &manifest.children {
            let described = Described { size: Some(child.size), media_type: None };
            let key = self.inner.member(spot, &child.digest);
            self.inner.memory.lock().expect(LOCK).note_new(key, described);
        }
    }

    /// Who may have what is in a repository.
    pub fn access(&self, spot: &Spot) -> Access {
        self.inner.access(spot)
    }

    /// A manifest as bytes that can be had.
    pub fn manifest(&self, spot: &Spot, digest: &Digest) -> Artifact {
        Artifact { limit_bytes: MANIFEST_BYTES, ..self.artifact(spot, "manifests", digest) }
    }

    /// A blob as bytes that can be had.
    pub fn blob(&self, spot: &Spot, digest: &Digest) -> Artifact {
        self.artifact(spot, "blobs", digest)
    }

    /// Which manifests the tags of a repository mean, by what the registry said last. Asks nobody. Blocks.
    pub fn stored_tags(&self, spot: &Spot) -> Result<Vec<(String, Digest)>, StoreError> {
        let prefix = format!("{}tag\0", self.inner.prefix(spot));
        let store = &self.inner.parts.store;
        let mut found = Vec::new();
        for key in store.page_keys(&prefix, TAGS)? {
            let Some(tag) = key.strip_prefix(&prefix) else { continue };
            let question = Question::Tag(tag.to_owned(), Accepts::Everything);
            let url = self.inner.question_url(spot, &question);
            let page = store.page(&key)?.filter(|page| page.head.url == url.as_str());
            let fact = page.and_then(Fact::of_page).filter(|fact| fact.found);
            found.extend(fact.and_then(|fact| fact.digest).map(|digest| (tag.to_owned(), digest)));
        }
        Ok(found)
    }

    /// Repositories of public registries of which some tag is known. Asks nobody. Blocks.
    pub fn stored_spots(&self) -> Result<BTreeSet<Spot>, StoreError> {
        let mut found = BTreeSet::new();
        for (registry, known) in self.inner.registries.iter().enumerate() {
            if known.access() == Access::Private {
                continue;
            }
            let prefix = format!("oci\0{}\0", known.site.name);
            for key in self.inner.parts.store.page_keys(&prefix, FACTS)? {
                let Some((repository, question)) = key[prefix.len()..].split_once('\0') else { continue };
                if question.starts_with("tag\0")
                    && let Some(repository) = Repository::parse(repository)
                {
                    found.insert(Spot { registry, repository });
                }
            }
        }
        Ok(found)
    }

    /// Repositories of public registries with a tag that means something else than before. What nobody takes is dropped
    /// after a while; receivers share.
    pub fn changes(&self) -> Receiver<Spot> {
        self.inner.changes.1.clone()
    }

    fn artifact(&self, spot: &Spot, kind: &str, digest: &Digest) -> Artifact {
        let size = self.described(spot, digest).and_then(|known| known.size);
        Artifact { size, ..self.inner.artifact(spot, kind, digest) }
    }

    /// Forgets what was said of a repository's names. Blocks.
    pub fn forget(&self, spot: &Spot) -> Result<usize, StoreError> {
        let prefix = self.inner.prefix(spot);
        self.inner.memory.lock().expect(LOCK).forget(&prefix);
        let store = &self.inner.parts.store;
        let keys = store.page_keys(&prefix, FORGOTTEN)?;
        keys.iter().try_fold(0, |count, key| Ok(count + usize::from(store.forget_page(key)?)))
    }
}

/// What is known of a digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// In bytes.
    pub size: Option<u64>,
    /// As its registry says.
    pub media_type: Option<String>,
}

impl Inner {
    async fn say(
        self: &Arc<Self>,
        spot: &Spot,
        question: &Question,
        refresh: bool,
        first: First,
    ) -> Result<Said, ImagesError> {
        let key = self.key(spot, question);
        let Some(known) = self.known(spot, question, &key).await? else {
            return self.find_out(spot, question, None, refresh, first).await;
        };
        let (age, fresh_for) = (self.age(&known), known.fresh_for());
        let demanded = refresh && age >= LEAST_AGE && !question.is_immutable();
        if age < fresh_for && !demanded {
            return Ok(self.said(known, State::Hit));
        }
        if self.offline && known.found {
            return Ok(self.said(known, State::Stale));
        }
        let since = Some(known.checked_at);
        let servable = known.found && age < fresh_for + self.freshness.stale_if_error;
        if !servable || self.offline {
            return self.find_out(spot, question, since, demanded, First::Head).await;
        }
        let site = &self.registries[spot.registry].site;
        if !demanded && (self.failed_lately(&key) || self.parts.client.is_spent(site)) {
            return Ok(self.said(known, State::Stale));
        }
        if !demanded && age < fresh_for + self.freshness.stale_while_revalidate {
            // Who comes while somebody asks leaves it at that.
            if self.turn(&key).try_lock().is_some() {
                let (inner, spot, question) = (self.clone(), spot.clone(), question.clone());
                self.parts.tasks.spawn(async move {
                    // What goes wrong is logged where it happens.
                    let _ = inner.asked(&spot, &question, since, First::Head).await;
                });
            }
            return Ok(self.said(known, State::Stale));
        }
        let answer = futures_lite::future::or(
            async { Some(self.asked(spot, question, since, First::Head).await) },
            async {
                async_io::Timer::after(PATIENCE).await;
                None
            },
        );
        match answer.await {
            Some(Ok(fact)) => Ok(self.said(fact, State::Miss)),
            Some(Err(e @ (ImagesError::Upstream(_) | ImagesError::Answer { .. }))) => {
                log::warn!("{} is served stale: {e}", self.what(spot, question));
                Ok(self.said(known, State::Stale))
            }
            Some(Err(e)) => Err(e),
            None => Ok(self.said(known, State::Stale)),
        }
    }

    fn failed_lately(&self, key: &str) -> bool {
        let failed = self.memory.lock().expect(LOCK).failed_at(key);
        failed.is_some_and(|at| self.parts.clock.now().since(at) < FAILURE_REST)
    }

    /// What memory or the store knows, if the registry is still where it was.
    async fn known(
        &self,
        spot: &Spot,
        question: &Question,
        key: &str,
    ) -> Result<Option<Arc<Fact>>, ImagesError> {
        if let Some(fact) = self.memory.lock().expect(LOCK).fact(key) {
            return Ok(Some(fact));
        }
        let (store, stored_key) = (self.parts.store.clone(), key.to_owned());
        let found = self.disk().run(move || store.page(&stored_key)).await.map_err(Arc::new)?;
        let url = self.question_url(spot, question);
        let fact = found.filter(|page| page.head.url == url.as_str()).and_then(Fact::of_page).map(Arc::new);
        if let Some(fact) = &fact {
            self.memory.lock().expect(LOCK).learn(key, fact.clone());
        }
        Ok(fact)
    }

    /// Asks the registry, unless somebody did since what was known at `since`.
    async fn asked(
        self: &Arc<Self>,
        spot: &Spot,
        question: &Question,
        since: Option<u64>,
        first: First,
    ) -> Result<Arc<Fact>, ImagesError> {
        let key = self.key(spot, question);
        let _turn = self.turn(&key).lock().await;
        let newer = self.memory.lock().expect(LOCK).fact(&key);
        if let Some(newer) = newer.filter(|fact| since.is_none_or(|since| fact.checked_at > since))
            && self.age(&newer) < newer.fresh_for()
        {
            return Ok(newer);
        }
        let (inner, spot, question) = (self.clone(), spot.clone(), question.clone());
        // All of it on the thread that asks: an answer is kept although nobody waits for it any more.
        let ask = move || {
            let answer = inner.ask(&spot, &question, first);
            let now = inner.parts.clock.now();
            match answer {
                Ok(fact) => {
                    let fact = Arc::new(fact);
                    let before = {
                        let mut memory = inner.memory.lock().expect(LOCK);
                        let before = memory.fact(&key);
                        memory.learn(&key, fact.clone());
                        before
                    };
                    inner.save(&key, &fact);
                    inner.tell(&spot, &question, before.as_deref(), &fact);
                    Ok(fact)
                }
                Err(e) => {
                    log::warn!("asking for {}: {e}", inner.what(&spot, &question));
                    inner.memory.lock().expect(LOCK).fail(&key, now);
                    Err(e)
                }
            }
        };
        self.parts.net.run(ask).await
    }

    /// Tells of a tag, if it means something else.
    fn tell(&self, spot: &Spot, question: &Question, before: Option<&Fact>, now: &Fact) {
        let is_public = self.registries[spot.registry].access() == Access::Public;
        let is_tag = matches!(question, Question::Tag(_, Accepts::Everything));
        if is_public && is_tag && before.is_none_or(|before| before.digest != now.digest) {
            // Of a full queue nobody takes anything: the newest is lost.
            let _ = self.changes.0.try_send(spot.clone());
        }
    }

    fn access(&self, spot: &Spot) -> Access {
        self.registries[spot.registry].access()
    }

    fn artifact(&self, spot: &Spot, kind: &str, digest: &Digest) -> Artifact {
        Artifact {
            upstream: self.registries[spot.registry].site.name.clone(),
            url: self.url(spot, &format!("{kind}/{digest}"), ""),
            digest: Some(*digest),
            size: None,
            filename: format!("{}@{digest}", spot.repository),
            access: self.access(spot),
            limit_bytes: crate::base::limits::ARTIFACT_BYTES,
        }
    }

    fn turn(&self, key: &str) -> &async_lock::Mutex<()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        &self.asking[hasher.finish() as usize % ASKING]
    }

    fn disk(&self) -> &Gate {
        &self.parts.disk
    }

    fn said(&self, fact: Arc<Fact>, state: State) -> Said {
        let age = self.age(&fact);
        Said { fact, state, age }
    }

    fn age(&self, fact: &Fact) -> Duration {
        self.parts.clock.now().since(UnixMillis(fact.checked_at))
    }

    /// What facts of a repository are stored under.
    fn prefix(&self, spot: &Spot) -> String {
        format!("oci\0{}\0{}\0", self.registries[spot.registry].site.name, spot.repository)
    }

    fn key(&self, spot: &Spot, question: &Question) -> String {
        let mut key = self.prefix(spot);
        key.push_str(&question.key());
        key
    }

    fn member(&self, spot: &Spot, digest: &Digest) -> String {
        format!("{}{digest}", self.prefix(spot))
    }

    /// For people.
    fn what(&self, spot: &Spot, question: &Question) -> String {
        let image = format!("{}/{}", self.registries[spot.registry].site.name, spot.repository);
        match question {
            Question::Tag(tag, _) => format!("{image}:{tag}"),
            Question::Manifest(digest) | Question::Blob(digest) => format!("{image}@{digest}"),
            Question::Tags(_) => format!("the tags of {image}"),
            Question::Referrers(digest, _) => format!("what refers to {image}@{digest}"),
        }
    }

    fn unknown(&self, spot: &Spot, question: &Question) -> ImagesError {
        ImagesError::Unknown(self.what(spot, question))
    }
}

impl Question {
    /// Whether the answer is good for ever.
    fn is_immutable(&self) -> bool {
        matches!(self, Self::Manifest(_) | Self::Blob(_))
    }

    fn key(&self) -> String {
        match self {
            Self::Tag(tag, Accepts::Everything) => format!("tag\0{tag}"),
            Self::Tag(tag, Accepts::Single) => format!("single\0{tag}"),
            Self::Manifest(digest) => format!("manifest\0{digest}"),
            Self::Blob(digest) => format!("blob\0{digest}"),
            Self::Tags(query) => format!("tags\0{query}"),
            Self::Referrers(digest, query) => format!("referrers\0{digest}\0{query}"),
        }
    }
}

/// Why nothing can be said of an image.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ImagesError {
    /// No configured registry goes by this host; without a host, there is none at the root.
    #[error("{}", no_registry(.0.as_deref()))]
    NoRegistry(Option<String>),
    /// The registry says that there is none.
    #[error("the registry does not know {0}")]
    Unknown(String),
    /// The registry failed or refused, and nothing usable is known.
    #[error("{0}")]
    Upstream(#[source] UpstreamError),
    /// Members of rooms say different things, and the registry does not say which of them is right.
    #[error("{0}; neither is served while the registry does not answer")]
    Disputed(String),
    /// What the registry sent is no answer to the question.
    #[error("{what}: {why}")]
    Answer {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// Nothing is known and nobody may be asked.
    #[error("nothing is stored for {0} and dpm runs with --offline")]
    Offline(String),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] Arc<StoreError>),
}

fn no_registry(host: Option<&str>) -> String {
    match host {
        Some(host) => format!(
            "no registry goes by {host} here; to allow it, add [[oci]] with hosts = [{host:?}] and its url to dpm.toml"
        ),
        None => "no registry is at the root here; name one with [[oci]] root = true in dpm.toml".into(),
    }
}
