//! Asking an upstream for a page: one question at a time for each, outliving whoever caused it.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use event_listener::Event;

use crate::base::limits;
use crate::eco::pypi;
use crate::store::{Page, PageHead, StoreError};
use crate::upstream::{Answer, Ask, Status, UpstreamError};

use super::guard::Index;
use super::memory::Content;
use super::{Inner, LOCK, PageKey, ResolveError};

/// What dpm asks an index for: the richer form first (PEP 691).
const ACCEPT: &str =
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01";

/// However short an upstream says that its answer is good for, it is not asked for every request.
pub(super) const LEAST_FRESH: Duration = Duration::from_secs(1);

/// Bytes of a page that are read without more ado. Larger pages are read on one at a time, so that a flood of them
/// cannot fill memory.
const LARGE_BYTES: u64 = 4 << 20;

static READING_LARGE: Mutex<()> = Mutex::new(());

/// Pages from here on are parsed one at a time: parsed, a page takes several times its bytes for a moment.
const PARSED_ALONE_BYTES: usize = 512 << 10;

static PARSING: Mutex<()> = Mutex::new(());

/// Time to read a page: the largest take seconds, and one that trickles must not keep the next ones waiting.
const PAGE_TIME: Duration = Duration::from_secs(120);

/// Questions under way and waiting: some hundred bytes each. A client that asks for more is told to come back.
const WAITING: usize = 1024;

/// The questions under way.
#[derive(Default)]
pub(super) struct Refreshes {
    running: Mutex<HashMap<PageKey, Arc<Refresh>>>,
}

pub(super) struct Refresh {
    done: Event,
    answer: Mutex<Option<Result<PageHead, ResolveError>>>,
}

impl Inner {
    /// Asks, or joins who is asking, and waits.
    pub(super) async fn refresh(
        self: &Arc<Self>,
        key: &PageKey,
        known: Option<PageHead>,
    ) -> Result<PageHead, ResolveError> {
        let refresh = self.start_refresh(key, known);
        loop {
            let listener = refresh.done.listen();
            if let Some(answer) = refresh.answer.lock().expect(LOCK).clone() {
                return answer;
            }
            listener.await;
        }
    }

    /// Starts asking, unless somebody does.
    pub(super) fn start_refresh(self: &Arc<Self>, key: &PageKey, known: Option<PageHead>) -> Arc<Refresh> {
        let mut running = self.refreshes.running.lock().expect(LOCK);
        if let Some(refresh) = running.get(key) {
            return refresh.clone();
        }
        // What the caller knew may be of before somebody else's question was answered: one is enough for both.
        let newer = |head: &PageHead| known.as_ref().is_none_or(|known| head.checked_at > known.checked_at);
        let answered = self.memory.lock().expect(LOCK).head(key).filter(|head| newer(head)).cloned();
        if let Some(head) = answered {
            return Arc::new(Refresh { done: Event::new(), answer: Mutex::new(Some(Ok(head))) });
        }
        if running.len() >= WAITING {
            let busy = Some(Err(ResolveError::Busy(key.clone())));
            return Arc::new(Refresh { done: Event::new(), answer: Mutex::new(busy) });
        }
        let refresh = Arc::new(Refresh { done: Event::new(), answer: Mutex::new(None) });
        running.insert(key.clone(), refresh.clone());
        let ending = Ending { inner: self.clone(), key: key.clone(), refresh: refresh.clone() };
        self.tasks.spawn(async move {
            let inner = ending.inner.clone();
            let net = inner.net.clone();
            let key = ending.key.clone();
            let question = inner.clone();
            let answer = net.run(move || question.ask(&key, known.as_ref())).await;
            let (refreshed, key) = (answer.as_ref().ok().cloned(), ending.key.clone());
            // Whoever waits goes on now: writing it down is nobody's wait.
            ending.with(answer.map(|r| r.head));
            if let Some(refreshed) = refreshed {
                let disk = inner.disk.clone();
                disk.run(move || inner.save(&key, refreshed)).await;
            }
        });
        refresh
    }

    /// Asks the indexes in order. Blocks.
    ///
    /// An index that fails ends the search: asking the next one would hand its names to it.
    fn ask(&self, key: &PageKey, known: Option<&PageHead>) -> Result<Refreshed, ResolveError> {
        let candidates = self.candidates(key, known);
        let mut root = None;
        for index in &candidates {
            let before = known;
            let known = known.filter(|h| h.found && h.upstream == index.site.name);
            let url = index.page_url(key);
            // The list of projects is one of all indexes: it has no validator of its own.
            let known = known.filter(|h| h.url == url.as_str() && *key != PageKey::Root);
            let question = Ask {
                accept: Some(ACCEPT.into()),
                page: true,
                etag: known.and_then(|h| h.etag.clone()),
                last_modified: known.and_then(|h| h.last_modified.clone()),
                ..Ask::default()
            };
            let mut answer =
                self.client.open(&index.site, &url, &question).map_err(ResolveError::Upstream)?;
            let mut head = self.describe(index, &answer, url.to_string());
            match (answer.status, known) {
                (Status::Missing, _) => continue,
                (Status::NotModified, Some(known)) => {
                    // A 304 may leave out what has not changed.
                    head.etag = head.etag.or_else(|| known.etag.clone());
                    head.last_modified = head.last_modified.or_else(|| known.last_modified.clone());
                    head.revision = known.revision;
                    return Ok(self.learn(key, head, News::Confirmed));
                }
                _ => {}
            }
            let body = self.read(index, key, &mut answer)?;
            let failed = |e| ResolveError::Index {
                upstream: index.site.name.clone(),
                key: key.clone(),
                source: Arc::new(e),
            };
            let content_type = answer.head.content_type.as_deref();
            let _alone = (body.len() >= PARSED_ALONE_BYTES).then(|| alone(&PARSING));
            match key {
                PageKey::Project(name) => {
                    let project = pypi::parse(content_type, &body, &answer.url, name).map_err(failed)?;
                    drop(body);
                    if project.skipped > 0 {
                        log::warn!("{key}: {} entries of {} were left out", project.skipped, index.site.name);
                    }
                    let content = Content::Project(Arc::new(project));
                    self.tell(key, before, &head);
                    return Ok(self.learn(key, head, News::Content(content)));
                }
                PageKey::Root => {
                    let names = pypi::parse_root(content_type, &body).map_err(failed)?;
                    drop(body);
                    root.get_or_insert_with(|| (Vec::new(), head)).0.push(names);
                }
            }
        }
        if let Some((names, mut head)) = root {
            (head.etag, head.last_modified) = (None, None);
            let content = Content::Names(merged(names).into());
            return Ok(self.learn(key, head, News::Content(content)));
        }
        // A private index that once had it keeps the name: nobody else is asked for it.
        let owner = known.filter(|h| h.private && candidates.len() == 1);
        let head = PageHead {
            upstream: owner.map(|h| h.upstream.clone()).unwrap_or_default(),
            url: owner.map_or_else(|| self.all_urls(key), |_| candidates[0].page_url(key).to_string()),
            checked_at: self.clock.now().0,
            fresh_for: millis(self.freshness.negative),
            revision: known.map_or(0, |h| h.revision + 1),
            private: owner.is_some(),
            ..PageHead::default()
        };
        Ok(self.learn(key, head, News::Missing))
    }

    fn describe(&self, index: &Index, answer: &Answer, url: String) -> PageHead {
        let said = answer.head.max_age.unwrap_or(self.freshness.ttl);
        let now = self.clock.now();
        PageHead {
            upstream: index.site.name.clone(),
            etag: answer.head.etag.clone(),
            last_modified: answer.head.last_modified.clone(),
            checked_at: now.0,
            fresh_for: millis(said.min(self.freshness.max_ttl).max(LEAST_FRESH)),
            found: true,
            // Time orders the bodies of a page, over restarts and purges too.
            revision: now.0,
            private: index.private,
            url,
        }
    }

    fn read(&self, index: &Index, key: &PageKey, answer: &mut Answer) -> Result<Vec<u8>, ResolveError> {
        let limit = match key {
            PageKey::Root => limits::ROOT_INDEX_BYTES,
            PageKey::Project(_) => limits::INDEX_BYTES,
        };
        let deadline = Instant::now() + PAGE_TIME;
        let mut body = Vec::new();
        read_some(answer, LARGE_BYTES, deadline, &mut body)?;
        if body.len() as u64 == LARGE_BYTES {
            let _alone = turn(&READING_LARGE, answer)?;
            read_some(answer, limit + 1 - LARGE_BYTES, Instant::now() + PAGE_TIME, &mut body)?;
        }
        match body.len() as u64 > limit {
            true => {
                Err(ResolveError::TooLarge { upstream: index.site.name.clone(), key: key.clone(), limit })
            }
            false => Ok(body),
        }
    }

    /// Has memory know it before anybody is told.
    fn learn(&self, key: &PageKey, head: PageHead, news: News) -> Refreshed {
        let mut memory = self.memory.lock().expect(LOCK);
        memory.learn(key, head.clone());
        if let News::Content(content) = &news {
            memory.keep_unsaved(key, head.revision, content.clone());
            memory.keep_content(key, head.revision, content.clone());
        }
        Refreshed { head, news }
    }

    /// Stores what was learned. A store that will not take it costs only the copy.
    fn save(&self, key: &PageKey, refreshed: Refreshed) {
        let Refreshed { head, news } = refreshed;
        let saved = match &news {
            News::Confirmed => self.store.set_page_head(&key.stored(), &head),
            News::Missing => self.store.set_page(&key.stored(), &Page { head, body: Vec::new() }),
            News::Content(content) => {
                let saved = self.store.set_page(&key.stored(), &Page { head, body: content.to_stored() });
                self.memory.lock().expect(LOCK).saved(key, saved.is_ok());
                saved
            }
        };
        if let Err(e) = saved {
            complain(&e);
        }
    }
}

/// Reads up to `limit` bytes more.
fn read_some(
    answer: &mut Answer,
    limit: u64,
    deadline: Instant,
    body: &mut Vec<u8>,
) -> Result<(), ResolveError> {
    let mut left = limit;
    let mut buffer = vec![0; READ_BYTES];
    while left > 0 {
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = match answer.body.read(&mut buffer[..room]) {
            Ok(0) => break,
            Ok(read) => read,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => {
                let cut = UpstreamError::Truncated { got: 0, want: None };
                return Err(ResolveError::Upstream(UpstreamError::of(&e).cloned().unwrap_or(cut)));
            }
        };
        body.extend_from_slice(&buffer[..read]);
        left -= read as u64;
        if Instant::now() > deadline {
            let origin = answer.url.origin().ascii_serialization();
            return Err(ResolveError::Upstream(UpstreamError::TooSlow { origin }));
        }
    }
    Ok(())
}

/// Bytes of a page read at a time, as many as have come.
const READ_BYTES: usize = 32 << 10;

/// Waits for a turn, as long as one page may take and no longer.
fn turn(lock: &'static Mutex<()>, answer: &Answer) -> Result<MutexGuard<'static, ()>, ResolveError> {
    let begun = Instant::now();
    while begun.elapsed() < TURN_TIME {
        match lock.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(e)) => return Ok(e.into_inner()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    let origin = answer.url.origin().ascii_serialization();
    Err(ResolveError::Upstream(UpstreamError::Busy { origin, retry_after: None }))
}

/// How long a large page waits for another one to be read.
const TURN_TIME: Duration = Duration::from_secs(20);

/// Waits for a turn. What the lock guards is nobody's data: a panic under it spoils nothing.
fn alone(lock: &Mutex<()>) -> MutexGuard<'_, ()> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an upstream said of a page.
#[derive(Clone)]
struct Refreshed {
    head: PageHead,
    news: News,
}

#[derive(Clone)]
enum News {
    /// It is as it was.
    Confirmed,
    Missing,
    Content(Content),
}

/// The names of several indexes as one list; that of a single one is left as it is.
fn merged(mut lists: Vec<pypi::Names>) -> String {
    if lists.len() == 1 {
        return lists.remove(0).into_lines();
    }
    let mut names: Vec<_> = lists.iter().flat_map(pypi::Names::iter).collect();
    names.sort_unstable();
    names.dedup();
    names.join("\n")
}

fn complain(e: &StoreError) {
    match e {
        StoreError::NoRoom { .. } => log::debug!("a page was not stored: {e}"),
        e => log::error!("a page was served but could not be stored: {e}"),
    }
}

/// Takes a question off the list when it ends, however it ends.
struct Ending {
    inner: Arc<Inner>,
    key: PageKey,
    refresh: Arc<Refresh>,
}

impl Ending {
    fn with(self, answer: Result<PageHead, ResolveError>) {
        if let Err(e) = &answer {
            log::warn!("asking for {}: {e}", self.key);
            self.inner.memory.lock().expect(LOCK).fail(&self.key, self.inner.clock.now());
        }
        *self.refresh.answer.lock().expect(LOCK) = Some(answer);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.inner.refreshes.running.lock().expect(LOCK).remove(&self.key);
        let mut answer = self.refresh.answer.lock().expect(LOCK);
        answer.get_or_insert_with(|| Err(ResolveError::GivenUp(self.key.clone())));
        drop(answer);
        self.refresh.done.notify(usize::MAX);
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
