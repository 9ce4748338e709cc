//! Names: what an index says of a project, how fresh that is, and which artifact a file's link means.
//!
//! Knows upstreams and the store, nothing of HTTP towards clients and nothing of fetching artifacts. Names are
//! trusted from the upstream that owns them and from nobody else; while it fails, from the rooms that the operator
//! joined.

mod carry;
mod guard;
pub mod images;
mod listed;
mod memory;
mod news;
mod refresh;
mod rooms;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::base::{Access, Artifact, Digest, Trail};
use crate::eco::pypi::{self, CoreMetadata, FileWant, Form, IndexError, Part, Project, ProjectName};
use crate::members::Members;
use crate::rt::{Clock, Gate, Tasks};
use crate::store::{PageHead, Store, StoreError};
use crate::upstream::{Client, Site, UpstreamError};

pub use carry::{Adopted, Carried};
pub use guard::Index;
pub use memory::Rendered;
use memory::{Content, Memory};
use news::News;
pub use news::{Change, Hint};
use refresh::Refreshes;
use rooms::{RoomPage, Rooms};

/// How long answers of an upstream are good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Where the upstream does not say.
    pub ttl: Duration,
    /// However long the upstream says.
    pub max_ttl: Duration,
    /// After its time a page is still served at once for this long, while it is asked for again.
    pub stale_while_revalidate: Duration,
    /// How old a page may be that is served because the upstream fails.
    pub stale_if_error: Duration,
    /// For "no such project".
    pub negative: Duration,
}

impl Default for Freshness {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(300),
            max_ttl: Duration::from_secs(600),
            stale_while_revalidate: Duration::from_secs(60),
            stale_if_error: Duration::from_secs(30 * 24 * 3600),
            negative: Duration::from_secs(60),
        }
    }
}

/// Whose page: a project's, or the list of all projects.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PageKey {
    /// `/simple/`
    Root,
    /// `/simple/<name>/`
    Project(ProjectName),
}

impl PageKey {
    /// Its key in the store.
    fn stored(&self) -> String {
        match self {
            Self::Root => "pypi\0".into(),
            Self::Project(name) => format!("pypi\0{name}"),
        }
    }
}

impl std::fmt::Display for PageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Root => f.write_str("the list of projects"),
            Self::Project(name) => write!(f, "project {name}"),
        }
    }
}

/// How a page relates to what its upstream says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Known and fresh: nobody was asked.
    Hit,
    /// The upstream was asked.
    Miss,
    /// Past its time: the upstream fails, or is being asked meanwhile.
    Stale,
    /// The upstream fails, and members of a room said so, or a part of it.
    Room,
}

/// A page as a client gets it.
#[derive(Clone, Debug)]
pub struct PageAnswer {
    /// The bytes, with their entity tag.
    pub rendered: Arc<Rendered>,
    /// Relation to the upstream.
    pub state: State,
    /// Time since the upstream confirmed it; of a room's page, the age of the oldest word in it.
    pub age: Duration,
    /// How long it is fresh from that confirmation on.
    pub fresh_for: Duration,
}

/// What a file's link means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Located {
    /// Bytes that the upstream has.
    Artifact(Artifact),
    /// Metadata that the upstream does not have: it is inside this wheel.
    InWheel(Artifact),
}

/// Resolves names; clones share what is known.
#[derive(Clone)]
pub struct Resolve {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    indexes: Arc<[Index]>,
    freshness: Freshness,
    offline: bool,
    store: Store,
    client: Client,
    clock: Clock,
    disk: Gate,
    net: Gate,
    tasks: Tasks,
    memory: Arc<Mutex<Memory>>,
    refreshes: Arc<Refreshes>,
    rooms: Rooms,
    news: Arc<News>,
    /// One worker a page: what one has parsed or rendered the next ones find in memory.
    working: Arc<[async_lock::Mutex<()>; WORKERS]>,
}

/// The handles that [`Resolve`] and [`images::Images`] work with.
#[derive(Clone)]
pub struct Parts {
    /// Where pages are kept.
    pub store: Store,
    /// Asks upstreams.
    pub client: Client,
    /// Tells ages.
    pub clock: Clock,
    /// For blocking reads and for rendering.
    pub disk: Gate,
    /// For questions to upstreams.
    pub net: Gate,
    /// Owns refreshes, which outlive the requests that caused them.
    pub tasks: Tasks,
    /// Who stands in for upstreams that fail.
    pub members: Option<Members>,
}

/// How long a request waits for a revalidation when it could be served a stale page.
const PATIENCE: Duration = Duration::from_secs(3);

/// A page is not asked for again, whatever a client demands, when it was confirmed less than this ago.
const LEAST_AGE: Duration = Duration::from_secs(1);

/// Pages parsed or rendered at once; a page is always the same one's work. Bounds memory: a page of 4,400 files
/// takes some 10 MB while it is worked on, by estimate.
const WORKERS: usize = 4;

impl Resolve {
    /// Over `indexes`, asked in this order.
    pub fn new(indexes: Vec<Index>, freshness: Freshness, offline: bool, parts: Parts) -> Self {
        let Parts { store, client, clock, disk, net, tasks, members } = parts;
        let rooms = Rooms::new(members, disk.clone());
        let inner = Inner {
            indexes: indexes.into(),
            freshness,
            offline,
            store,
            client,
            clock,
            disk,
            net,
            tasks,
            memory: Arc::default(),
            refreshes: Arc::default(),
            rooms,
            news: Arc::default(),
            working: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The same for a request that came through other nodes: the questions that it causes say so.
    pub fn on_behalf(&self, trail: Arc<Trail>) -> Self {
        let client = self.inner.client.on_behalf(trail);
        Self { inner: Arc::new(Inner { client, ..(*self.inner).clone() }) }
    }

    /// A page that is fresh and rendered already. Touches no disk.
    pub fn peek(&self, key: &PageKey, form: Form, gzip: bool) -> Option<PageAnswer> {
        let now = self.inner.clock.now();
        let mut memory = self.inner.memory.lock().expect(LOCK);
        let head = memory.head(key)?;
        let age = age(head, now, &self.inner.freshness);
        let fresh_for = Duration::from_millis(head.fresh_for);
        if age >= fresh_for || !head.found {
            return None;
        }
        let revision = head.revision;
        let rendered = memory.rendered(key, form, gzip, revision)?;
        Some(PageAnswer { rendered, state: State::Hit, age, fresh_for })
    }

    /// A page, from what is known or from the upstream.
    ///
    /// `refresh` demands that the upstream is asked however fresh the page is (a client's `no-cache`).
    /// Cancel-safe: a question under way goes on for the others.
    pub async fn page(
        &self,
        key: PageKey,
        form: Form,
        gzip: bool,
        refresh: bool,
    ) -> Result<PageAnswer, ResolveError> {
        let (head, state) = match self.inner.answer(&key, refresh).await? {
            Answer::Upstream(head, state) => (head, state),
            Answer::Room(page) => return Ok(self.inner.rendered_room(&key, form, gzip, page).await),
        };
        if !head.found {
            return Err(ResolveError::Unknown(key));
        }
        let rendered = self.inner.rendered(&key, form, gzip, &head).await?;
        let age = self.inner.clock.now().since(crate::rt::UnixMillis(head.checked_at));
        Ok(PageAnswer { rendered, state, age, fresh_for: Duration::from_millis(head.fresh_for) })
    }

    /// What a file's link means now.
    ///
    /// Errors with [`ResolveError::Unlisted`] when the index does not list the file with that digest.
    pub async fn locate(&self, want: &FileWant) -> Result<Located, ResolveError> {
        let key = PageKey::Project(want.project.clone());
        let mut refresh = false;
        loop {
            let (located, state) = match self.inner.answer(&key, refresh).await? {
                Answer::Upstream(head, _) if !head.found => return Err(ResolveError::Unknown(key)),
                Answer::Upstream(head, state) => {
                    let project = self.inner.project(&key, &head).await?;
                    (self.inner.locate(want, &project, &head)?, state)
                }
                Answer::Room(page) => (self.inner.locate_room(want, &page)?, State::Room),
            };
            if let Some(located) = located {
                return Ok(located);
            }
            // The link may be from a newer page than ours.
            if self.inner.offline || refresh && matches!(state, State::Stale | State::Room) {
                return Err(ResolveError::Unconfirmed(want.filename.clone()));
            }
            if refresh || state == State::Miss {
                return Err(ResolveError::Unlisted(want.filename.clone()));
            }
            refresh = true;
        }
    }

    /// The digest of a file's metadata, if it was located lately. Touches no disk.
    pub fn peek_metadata(&self, want: &FileWant) -> Option<Digest> {
        self.inner.memory.lock().expect(LOCK).metadata(want)
    }

    /// What is known of a page, without asking anybody.
    pub async fn known(&self, key: &PageKey) -> Result<Option<PageHead>, ResolveError> {
        self.inner.known(key).await
    }

    /// Notes the digest of metadata that was taken from the wheel of this digest.
    pub fn note_metadata(&self, want: &FileWant, metadata: Digest) {
        if want.digest.is_some_and(|d| d.is_strong()) {
            self.inner.memory.lock().expect(LOCK).keep_metadata(want, metadata);
        }
    }

    /// Every file that a known page lists. Asks nobody.
    pub async fn artifacts(&self, key: &PageKey) -> Result<Vec<Artifact>, ResolveError> {
        let Some(head) = self.inner.known(key).await?.filter(|h| h.found && *key != PageKey::Root) else {
            return Ok(Vec::new());
        };
        let project = self.inner.project(key, &head).await?;
        // Nobody is asked, so the page's own word does: an idle store need not know the index.
        let access = if head.private { Access::Private } else { Access::Public };
        Ok(project.files.iter().map(|file| guard::listed(&head.upstream, access, file)).collect())
    }

    /// Forgets a page and what was learned with it: who owns the name.
    pub fn forget(&self, key: &PageKey) -> Result<usize, StoreError> {
        let prefix = key.stored();
        self.inner.memory.lock().expect(LOCK).forget(key);
        Ok(usize::from(self.inner.store.forget_page(&prefix)?))
    }

    /// The configured indexes, in the order in which they are asked.
    pub fn indexes(&self) -> &[Index] {
        &self.inner.indexes
    }
}

impl Inner {
    /// What is known of a page now, asking the upstream as far as freshness demands, and rooms where it fails.
    async fn answer(self: &Arc<Self>, key: &PageKey, refresh: bool) -> Result<Answer, ResolveError> {
        let known = self.known(key).await?;
        let Some(head) = known else { return self.find_out(key, None, refresh).await };
        let age = age(&head, self.clock.now(), &self.freshness);
        let fresh_for = Duration::from_millis(head.fresh_for);
        let demanded = refresh && age >= LEAST_AGE;
        if age < fresh_for && !demanded {
            return Ok(Answer::Upstream(head, State::Hit));
        }
        if self.offline {
            // "There is none" is good for its time only.
            return match head.found {
                true => Ok(self.completed(key, head).await),
                false => self.find_out(key, Some(head), demanded).await,
            };
        }
        let servable = head.found && age < fresh_for + self.freshness.stale_if_error;
        if !servable {
            return self.find_out(key, Some(head), demanded).await;
        }
        let failed = self.memory.lock().expect(LOCK).failed_lately(key, self.clock.now());
        if !demanded && age < fresh_for + self.freshness.stale_while_revalidate {
            self.start_refresh(key, Some(head.clone()));
            return Ok(match failed {
                true => self.completed(key, head).await,
                false => Answer::Upstream(head, State::Stale),
            });
        }
        if !demanded && failed {
            return Ok(self.completed(key, head).await);
        }
        let answer =
            futures_lite::future::or(async { Some(self.refresh(key, Some(head.clone())).await) }, async {
                async_io::Timer::after(PATIENCE).await;
                None
            });
        match answer.await {
            Some(Ok(head)) => Ok(Answer::Upstream(head, State::Miss)),
            Some(Err(e)) if e.is_upstreams() => {
                log::warn!("{key} is served stale: {e}");
                Ok(match e.leaves_names_to_rooms() {
                    true => self.completed(key, head).await,
                    false => Answer::Upstream(head, State::Stale),
                })
            }
            Some(Err(e)) => Err(e),
            None => Ok(self.completed(key, head).await),
        }
    }

    /// What memory or the store knows; pages of upstreams that are configured no more are not known.
    async fn known(&self, key: &PageKey) -> Result<Option<PageHead>, ResolveError> {
        if let Some(head) = self.memory.lock().expect(LOCK).head(key) {
            return Ok(Some(head.clone()));
        }
        let (store, stored_key) = (self.store.clone(), key.stored());
        let found = self.disk.run(move || store.page_head(&stored_key)).await.map_err(Arc::new)?;
        let found = found.and_then(|head| self.as_configured(key, head));
        if let Some(head) = &found {
            self.memory.lock().expect(LOCK).learn(key, head.clone());
        }
        Ok(found)
    }

    /// A page, rendered. One that the store has lost is fetched again.
    async fn rendered(
        self: &Arc<Self>,
        key: &PageKey,
        form: Form,
        gzip: bool,
        head: &PageHead,
    ) -> Result<Arc<Rendered>, ResolveError> {
        let peek = || self.memory.lock().expect(LOCK).rendered(key, form, gzip, head.revision);
        if let Some(found) = peek() {
            return Ok(found);
        }
        let _worker = self.worker(key).await;
        if let Some(found) = peek() {
            return Ok(found);
        }
        let (content, revision) = self.content(key, head).await?;
        let render = move || {
            let body = match &content {
                Content::Names(names) => pypi::render_root(names.lines(), form),
                Content::Project(project) => pypi::render(project, form),
            };
            Arc::new(Rendered::new(body, gzip))
        };
        let rendered = self.disk.run(render).await;
        self.memory.lock().expect(LOCK).keep(key, form, gzip, revision, rendered.clone());
        Ok(rendered)
    }

    async fn project(self: &Arc<Self>, key: &PageKey, head: &PageHead) -> Result<Arc<Project>, ResolveError> {
        if let Some(Content::Project(project)) = self.memory.lock().expect(LOCK).content(key, head.revision) {
            return Ok(project);
        }
        let _worker = self.worker(key).await;
        match self.content(key, head).await? {
            (Content::Project(project), _) => Ok(project),
            (Content::Names(_), _) => Err(ResolveError::Lost(key.clone())),
        }
    }

    async fn worker(&self, key: &PageKey) -> async_lock::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.working[hasher.finish() as usize % WORKERS].lock().await
    }

    /// What a page says, and of which revision: from memory, from the store, or fetched again when it was lost.
    async fn content(
        self: &Arc<Self>,
        key: &PageKey,
        head: &PageHead,
    ) -> Result<(Content, u64), ResolveError> {
        if let Some(content) = self.memory.lock().expect(LOCK).content(key, head.revision) {
            return Ok((content, head.revision));
        }
        let (store, stored_key, of) = (self.store.clone(), key.stored(), key.clone());
        let revision = head.revision;
        let read = move || -> Result<Option<Content>, StoreError> {
            let Some(page) = store.page(&stored_key)?.filter(|p| p.head.found && p.head.revision == revision)
            else {
                return Ok(None);
            };
            Ok(match of {
                PageKey::Root => Some(Content::Names(String::from_utf8_lossy(&page.body).into())),
                // Another version's form, or damage: as good as absent.
                PageKey::Project(_) => {
                    Project::from_stored(&page.body).ok().map(|p| Content::Project(Arc::new(p)))
                }
            })
        };
        if let Some(content) = self.disk.run(read).await.map_err(Arc::new)? {
            self.memory.lock().expect(LOCK).keep_content(key, head.revision, content.clone());
            return Ok((content, head.revision));
        }
        self.memory.lock().expect(LOCK).forget(key);
        if self.offline {
            return Err(ResolveError::Lost(key.clone()));
        }
        // Whoever owns the name still does; without validators the whole page comes.
        let unconfirmed = PageHead { etag: None, last_modified: None, ..head.clone() };
        let head = self.refresh(key, Some(unconfirmed)).await?;
        let content = self.memory.lock().expect(LOCK).content(key, head.revision);
        content.map(|c| (c, head.revision)).ok_or_else(|| ResolveError::Lost(key.clone()))
    }

    fn locate(
        &self,
        want: &FileWant,
        project: &Project,
        head: &PageHead,
    ) -> Result<Option<Located>, ResolveError> {
        let listed = project
            .files
            .iter()
            .find(|f| f.filename == want.filename && want.digest.is_none_or(|d| f.digests.contains(&d)));
        let Some(file) = listed else { return Ok(None) };
        let index = self.index(&head.upstream).ok_or_else(|| ResolveError::NoIndex(head.upstream.clone()))?;
        let name = format!("{}{}", file.filename, want.part.suffix());
        let whole = || index.artifact(file);
        let beside = |url, digest| Artifact { url, digest, size: None, filename: name.clone(), ..whole() };
        Ok(Some(match want.part {
            Part::Whole => Located::Artifact(whole()),
            Part::Metadata => {
                let digest = match file.core_metadata {
                    CoreMetadata::No if file.filename.ends_with(".whl") => {
                        return Ok(Some(Located::InWheel(whole())));
                    }
                    CoreMetadata::No => return Err(ResolveError::Unlisted(name)),
                    CoreMetadata::Yes => None,
                    CoreMetadata::Digest(digest) => Some(digest),
                };
                if let Some(digest) = digest {
                    self.memory.lock().expect(LOCK).keep_metadata(want, digest);
                }
                let mut url = file.url.clone();
                url.set_path(&format!("{}.metadata", url.path()));
                Located::Artifact(beside(url, digest))
            }
            Part::Provenance => {
                let url = file.provenance.clone().ok_or_else(|| ResolveError::Unlisted(name.clone()))?;
                Located::Artifact(beside(url, None))
            }
        }))
    }

    fn index(&self, upstream: &str) -> Option<&Index> {
        self.indexes.iter().find(|i| i.site.name == upstream)
    }
}

/// What is known of a page.
enum Answer {
    /// From its index, be it that there is none.
    Upstream(PageHead, State),
    /// Made or completed by rooms.
    Room(RoomPage),
}

/// Time since a page was confirmed. One confirmed in the future, by a clock that was wrong, is past its freshness and
/// may be served while it is asked for again.
fn age(head: &PageHead, now: crate::rt::UnixMillis, freshness: &Freshness) -> Duration {
    match head.checked_at > now.0 + CLOCK_SLACK_MILLIS {
        true => Duration::from_millis(head.fresh_for) + freshness.stale_while_revalidate / 2,
        false => now.since(crate::rt::UnixMillis(head.checked_at)),
    }
}

/// How far a clock may be set back without a page being asked for again.
const CLOCK_SLACK_MILLIS: u64 = 60_000;

/// Nothing done under one of this room's locks can panic.
const LOCK: &str = "no panic happens under this lock";

/// Why a name leads nowhere.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResolveError {
    /// Every index that may be asked says that there is none.
    #[error("no index knows {0}")]
    Unknown(PageKey),
    /// The index does not list this file, or not with this digest.
    #[error("the index does not list {0}, or no longer with this digest")]
    Unlisted(String),
    /// The page that is known does not list this file, and the upstream cannot be asked for a newer one.
    #[error("the stored page does not list {0}, and the index cannot be asked for a newer one")]
    Unconfirmed(String),
    /// The upstream failed or refused, and nothing usable is known.
    #[error("{0}")]
    Upstream(#[source] UpstreamError),
    /// What the upstream sent is no index page.
    #[error("{upstream} sent something that is no index page for {key}: {source}")]
    Index {
        /// Which upstream.
        upstream: String,
        /// Which page.
        key: PageKey,
        /// What is wrong with it.
        source: Arc<IndexError>,
    },
    /// Larger than any page that dpm takes.
    #[error("{upstream} sends more than {limit} bytes for {key}")]
    TooLarge {
        /// Which upstream.
        upstream: String,
        /// Which page.
        key: PageKey,
        /// Bytes.
        limit: u64,
    },
    /// Members of rooms say different things of a file, and its index does not say which of them is right.
    #[error("{0}; neither is served while the index does not answer")]
    Disputed(String),
    /// Nothing is known and nobody may be asked.
    #[error("nothing is stored for {0} and dpm runs with --offline")]
    Offline(PageKey),
    /// The stored page is gone or cannot be read: the next request fetches it.
    #[error("the stored page of {0} was lost; ask again")]
    Lost(PageKey),
    /// The page came from an index that is configured no more.
    #[error("no index named {0} is configured")]
    NoIndex(String),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] Arc<StoreError>),
    /// Too many questions are waiting.
    #[error("too many questions are waiting; ask for {0} again")]
    Busy(PageKey),
    /// dpm is shutting down.
    #[error("the question for {0} was given up")]
    GivenUp(PageKey),
}

impl ResolveError {
    /// Whether the upstream is to blame, so that an older page may stand in.
    fn is_upstreams(&self) -> bool {
        matches!(
            self,
            Self::Upstream(_) | Self::Index { .. } | Self::TooLarge { .. } | Self::Busy(_) | Self::GivenUp(_)
        )
    }

    /// Whether the upstream gave no answer, so that rooms may.
    fn leaves_names_to_rooms(&self) -> bool {
        match self {
            Self::Upstream(e) => !is_answer(e),
            Self::Index { .. } | Self::TooLarge { .. } => true,
            _ => false,
        }
    }
}

/// Whether an upstream's failure is its answer: some hold back by a refusal what they have.
fn is_answer(e: &UpstreamError) -> bool {
    match e {
        UpstreamError::Denied { .. } | UpstreamError::Closed => true,
        UpstreamError::Status { code: 400..=499, .. } => !e.retry(),
        _ => false,
    }
}

/// The upstreams behind indexes, for whoever fetches their artifacts.
pub fn sites(indexes: &[Index]) -> impl Iterator<Item = Site> {
    indexes.iter().map(|i| i.site.clone())
}
