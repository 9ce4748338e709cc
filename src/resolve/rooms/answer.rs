//! When rooms are asked for a page.

use std::sync::Arc;
use std::time::Duration;

use futures_lite::future;

use crate::base::PackageUrl;
use crate::eco::pypi::{self, FileWant, Form, Purl};
use crate::members::Known;
use crate::rt::UnixMillis;
use crate::store::PageHead;

use super::super::memory::Rendered;
use super::super::{Answer, Inner, LOCK, Located, PageAnswer, PageKey, ResolveError, State};
use super::{PATIENCE, RoomPage, page, tellers};

impl PageKey {
    /// The package whose page it is.
    pub fn package(&self) -> Option<PackageUrl> {
        let Self::Project(name) = self else { return None };
        PackageUrl::of("pypi", name.as_str(), None, &[]).ok()
    }

    /// The page of a package, if it is one of PyPI's.
    pub fn of(package: &PackageUrl) -> Option<Self> {
        Purl::parse(package.as_str()).ok().map(|purl| Self::Project(purl.name))
    }
}

impl Inner {
    /// What is known of a page where nothing is that could be served: the upstream is asked. Where it fails a room
    /// stands in, at once for one that failed a moment ago.
    pub(in super::super) async fn find_out(
        self: &Arc<Self>,
        key: &PageKey,
        known: Option<PageHead>,
        demanded: bool,
    ) -> Result<Answer, ResolveError> {
        if self.offline {
            let page = self.stands_in(key, known.as_ref(), "dpm runs with --offline").await;
            return page.unwrap_or_else(|| Err(ResolveError::Offline(key.clone())));
        }
        let failed = !demanded && self.memory.lock().expect(LOCK).failed_lately(key, self.clock.now());
        if failed && let Some(page) = self.stands_in(key, known.as_ref(), "its index failed just now").await {
            return page;
        }
        let mut asking = std::pin::pin!(self.refresh(key, known.clone()));
        let first = future::or(async { Some((&mut asking).await) }, async {
            async_io::Timer::after(PATIENCE).await;
            None
        });
        let slow = "its index takes too long";
        let answer = match first.await {
            Some(answer) => answer,
            None => match self.stands_in(key, known.as_ref(), slow).await {
                Some(page) => {
                    // The next one need not wait for it as well.
                    self.memory.lock().expect(LOCK).fail(key, self.clock.now());
                    return page;
                }
                None => asking.await,
            },
        };
        match answer {
            Ok(head) => Ok(Answer::Upstream(head, State::Miss)),
            Err(e) if e.leaves_names_to_rooms() => {
                let page = self.stands_in(key, known.as_ref(), &e.to_string()).await;
                page.unwrap_or(Err(e))
            }
            Err(e) => Err(e),
        }
    }

    /// A page of nothing but what rooms say. `None` where they say nothing, or may not say anything.
    async fn stands_in(
        &self,
        key: &PageKey,
        known: Option<&PageHead>,
        why: &str,
    ) -> Option<Result<Answer, ResolveError>> {
        let PageKey::Project(name) = key else { return None };
        let said = self.said(key, known).await?;
        let page = page(name, None, &said);
        if let Some(e) = page.refused() {
            return Some(Err(e));
        }
        tell(key, &page, &said, why);
        (page.added > 0).then_some(Ok(Answer::Room(page)))
    }

    /// A page that is past its time, with what rooms add to it while its index fails.
    pub(in super::super) async fn completed(self: &Arc<Self>, key: &PageKey, head: PageHead) -> Answer {
        let stale = |head| Answer::Upstream(head, State::Stale);
        let PageKey::Project(name) = key else { return stale(head) };
        let Some(said) = self.said(key, Some(&head)).await else { return stale(head) };
        let Ok(base) = self.project(key, &head).await else { return stale(head) };
        let page = page(name, Some((&base, &head)), &said);
        // A disputed file that the index did not list is not to be taken for one that is not there.
        if page.added == 0 && page.disputed.is_empty() {
            return stale(head);
        }
        tell(key, &page, &said, "its index fails");
        let age = self.clock.now().since(UnixMillis(head.checked_at));
        Answer::Room(RoomPage { age: page.age.max(age), ..page })
    }

    /// What rooms say of a page, if they may say anything.
    async fn said(&self, key: &PageKey, known: Option<&PageHead>) -> Option<Known> {
        match self.may_be_told(key, known) {
            true => self.rooms.ask(key.package()?).await,
            false => None,
        }
    }

    pub(in super::super) async fn rendered_room(
        &self,
        key: &PageKey,
        form: Form,
        gzip: bool,
        page: RoomPage,
    ) -> PageAnswer {
        let state = if page.added > 0 { State::Room } else { State::Stale };
        let (age, revision) = (page.age, page.revision);
        let answer = |rendered| PageAnswer { rendered, state, age, fresh_for: Duration::ZERO };
        let peek = || self.memory.lock().expect(LOCK).rendered(key, form, gzip, revision);
        let _worker = self.worker(key).await;
        if let Some(rendered) = peek() {
            return answer(rendered);
        }
        let render = move || Arc::new(Rendered::new(pypi::render(&page.project, form), gzip));
        let rendered = self.disk.run(render).await;
        self.memory.lock().expect(LOCK).keep(key, form, gzip, revision, rendered.clone());
        answer(rendered)
    }

    /// What a file's link means where rooms completed its page.
    pub(in super::super) fn locate_room(
        &self,
        want: &FileWant,
        page: &RoomPage,
    ) -> Result<Option<Located>, ResolveError> {
        match (page.locate(want)?, &page.base) {
            (None, Some(head)) => self.locate(want, &page.project, head),
            (located, _) => Ok(located),
        }
    }
}

/// Says in the log who is believed.
fn tell(key: &PageKey, page: &RoomPage, said: &Known, why: &str) {
    if page.added > 0 {
        log::warn!("{key}: {} files as members of rooms say, for {why}: {}", page.added, tellers(said));
    }
}
