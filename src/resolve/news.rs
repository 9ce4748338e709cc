//! Pages that changed, for whoever tells others; and what others told, for the upstream to be asked sooner.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_channel::{Receiver, Sender};
use lru::LruCache;

use crate::eco::pypi::ProjectName;
use crate::rt::UnixMillis;
use crate::store::PageHead;

use super::{Inner, LOCK, PageKey, Resolve, ResolveError, age};

/// Changes that wait to be told. A page that nobody is told of is asked for again in its time anyway.
const WAITING: usize = 1024;

/// Longest mark in bytes: what an event takes.
const MARK_BYTES: usize = 128;

/// A page is asked for because of a hint this often at most: many tell of one change, one after the other.
const HINT_REST: Duration = Duration::from_secs(30);

/// Between two looks whether a page has rested.
const LOOK: Duration = Duration::from_secs(1);

/// Questions that hints cause within [`HINTS_TIME`]. An office's projects that change in a minute are fewer; a member
/// that tells of everything costs the index no more. As many pages at most wait until they have rested.
const HINTS: usize = 64;
const HINTS_TIME: Duration = Duration::from_secs(60);

/// Pages whose last hint is remembered: some 100 bytes each, by estimate.
const HINTED: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");

/// A page has changed at its index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: PageKey,
    /// Its entity tag, or when it was changed. Who has it knows the page.
    pub mark: String,
}

/// What came of a hint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// The index is being asked.
    Asked,
    /// This very page is known.
    Known,
    /// Nothing is known of it, so nothing is missed; or it is none of the teller's business.
    NotOurs,
    /// It was asked for a moment ago, and will be again when it has rested.
    Later,
    /// Too much is asked for.
    TooMany,
}

pub(super) struct News {
    changes: (Sender<Change>, Receiver<Change>),
    hints: Mutex<Hints>,
}

struct Hints {
    of: LruCache<PageKey, UnixMillis>,
    lately: VecDeque<UnixMillis>,
    /// Of pages that rest: the newest mark, and when it was told.
    resting: HashMap<PageKey, (String, UnixMillis)>,
}

impl Default for Hints {
    fn default() -> Self {
        Self { of: LruCache::new(HINTED), lately: VecDeque::new(), resting: HashMap::new() }
    }
}

impl Default for News {
    fn default() -> Self {
        Self { changes: async_channel::bounded(WAITING), hints: Mutex::default() }
    }
}

impl Resolve {
    /// Pages of public indexes that have changed since they were known here. What nobody takes is dropped after
    /// a while; receivers share.
    pub fn changes(&self) -> Receiver<Change> {
        self.inner.news.changes.1.clone()
    }

    /// Somebody says that a page changed, and has this mark now: the index is asked in the background, if the page is
    /// known here by another mark. Nothing else comes of it.
    pub async fn hint(&self, key: &PageKey, mark: &str) -> Result<Hint, ResolveError> {
        let inner = &self.inner;
        let head = match inner.hinted(key, mark).await? {
            Ok(head) => head,
            Err(nothing) => return Ok(nothing),
        };
        let now = inner.clock.now();
        let age = age(&head, now, &inner.freshness);
        let outcome = inner.news.hints.lock().expect(LOCK).judge(key, mark, age, now);
        match outcome {
            Outcome::Ask => drop(inner.start_refresh(key, Some(head))),
            Outcome::Rest(rest) => inner.tasks.spawn(inner.clone().ask_rested(key.clone(), now, rest)),
            Outcome::Rests => {}
            Outcome::TooMany => return Ok(Hint::TooMany),
        }
        Ok(if outcome == Outcome::Ask { Hint::Asked } else { Hint::Later })
    }
}

/// What is to be done about a hint.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Ask,
    /// Somebody has to ask in so much time.
    Rest(Duration),
    /// Somebody will.
    Rests,
    TooMany,
}

impl Hints {
    fn judge(&mut self, key: &PageKey, mark: &str, age: Duration, now: UnixMillis) -> Outcome {
        let asked = self.of.peek(key).map_or(HINT_REST, |at| now.since(*at));
        let rest = HINT_REST.saturating_sub(age.min(asked));
        if rest.is_zero() {
            return if self.take(key, now) { Outcome::Ask } else { Outcome::TooMany };
        }
        match (self.resting.contains_key(key), self.resting.len() < HINTS) {
            (false, false) => Outcome::TooMany,
            (rests, _) => {
                self.resting.insert(key.clone(), (mark.to_owned(), now));
                if rests { Outcome::Rests } else { Outcome::Rest(rest) }
            }
        }
    }

    /// Whether there may be one more, which counts from now on.
    fn take(&mut self, key: &PageKey, now: UnixMillis) -> bool {
        while self.lately.front().is_some_and(|at| now.since(*at) >= HINTS_TIME) {
            self.lately.pop_front();
        }
        let rests = self.of.peek(key).is_some_and(|at| now.since(*at) < HINT_REST);
        if rests || self.lately.len() >= HINTS {
            return false;
        }
        self.lately.push_back(now);
        self.of.put(key.clone(), now);
        true
    }
}

impl Inner {
    /// What is known of a page that somebody says has changed; or what comes of that otherwise.
    async fn hinted(&self, key: &PageKey, mark: &str) -> Result<Result<PageHead, Hint>, ResolveError> {
        let PageKey::Project(name) = key else { return Ok(Err(Hint::NotOurs)) };
        if self.offline {
            return Ok(Err(Hint::NotOurs));
        }
        let known = self.known(key).await?;
        Ok(match known.filter(|head| head.found && self.is_public(name, head)) {
            None => Err(Hint::NotOurs),
            Some(head) if mark_of(&head) == Some(mark) => Err(Hint::Known),
            Some(head) => Ok(head),
        })
    }

    /// Asks for a page when it has rested since then, unless it was asked for after the last that was told of it.
    async fn ask_rested(self: Arc<Self>, key: PageKey, since: UnixMillis, rest: Duration) {
        // By either clock: the one of the wall may be set meanwhile.
        let begun = Instant::now();
        while begun.elapsed() < rest && self.clock.now().since(since) < rest {
            async_io::Timer::after(LOOK).await;
        }
        let told = self.news.hints.lock().expect(LOCK).resting.remove(&key);
        let Some((mark, told)) = told else { return };
        let Ok(Ok(head)) = self.hinted(&key, &mark).await else { return };
        let now = self.clock.now();
        if head.checked_at <= told.0 && self.news.hints.lock().expect(LOCK).take(&key, now) {
            self.start_refresh(&key, Some(head));
        }
    }

    /// Tells of a page, if it is another than the one that was known.
    pub(super) fn tell(&self, key: &PageKey, known: Option<&PageHead>, head: &PageHead) {
        let (PageKey::Project(name), Some(known)) = (key, known.filter(|head| head.found)) else { return };
        let Some(mark) = mark_of(head).filter(|mark| mark_of(known) != Some(mark)) else { return };
        if known.upstream == head.upstream && self.is_public(name, head) {
            // Of a full queue nobody takes anything: the newest is lost.
            let _ = self.news.changes.0.try_send(Change { key: key.clone(), mark: mark.to_owned() });
        }
    }

    /// Whether others may know that a name is asked for here.
    fn is_public(&self, name: &ProjectName, head: &PageHead) -> bool {
        let key = PageKey::Project(name.clone());
        self.may_be_told(&key, Some(head))
    }
}

/// What tells a page from its next version, on every node.
fn mark_of(head: &PageHead) -> Option<&str> {
    let mark = head.etag.as_deref().or(head.last_modified.as_deref())?;
    (mark.len() <= MARK_BYTES && !mark.contains(char::is_control)).then_some(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_are_bounded() {
        let mut hints = Hints::default();
        let key = |n: usize| PageKey::Project(ProjectName::normalise(&format!("p{n}")).unwrap());
        let at = |seconds: u64| UnixMillis(1_700_000_000_000 + seconds * 1000);
        assert!(hints.take(&key(0), at(0)) && !hints.take(&key(0), at(29)) && hints.take(&key(0), at(30)));
        let taken = (1..100).filter(|n| hints.take(&key(*n), at(31))).count();
        assert_eq!(taken, HINTS - 2);
        assert!(hints.take(&key(200), at(60)) && !hints.take(&key(201), at(60)), "one place is free again");
        assert!(hints.take(&key(200), at(91)));
    }

    #[test]
    fn what_rests_waits() {
        let mut hints = Hints::default();
        let key = |n: usize| PageKey::Project(ProjectName::normalise(&format!("p{n}")).unwrap());
        let (now, second) = (UnixMillis(1_700_000_000_000), Duration::from_secs(1));
        assert_eq!(hints.judge(&key(0), "a", HINT_REST - second, now), Outcome::Rest(second));
        assert_eq!(hints.judge(&key(0), "b", HINT_REST - second, now), Outcome::Rests);
        assert_eq!(hints.resting[&key(0)], ("b".to_owned(), now), "the last word counts");
        // Asked a moment ago because of a hint, and not answered yet.
        assert_eq!(hints.judge(&key(1), "a", HINT_REST, now), Outcome::Ask);
        assert_eq!(hints.judge(&key(1), "b", HINT_REST, now), Outcome::Rest(HINT_REST));
        let rests =
            (2..100).filter(|n| hints.judge(&key(*n), "a", Duration::ZERO, now) == Outcome::Rest(HINT_REST));
        assert_eq!(rests.count(), HINTS - 2);
        assert_eq!(hints.judge(&key(200), "a", Duration::ZERO, now), Outcome::TooMany);
        assert_eq!(hints.judge(&key(0), "c", Duration::ZERO, now), Outcome::Rests, "who waits already may");
    }

    #[test]
    fn marks() {
        let head = |etag: Option<&str>, modified: Option<&str>| PageHead {
            etag: etag.map(str::to_owned),
            last_modified: modified.map(str::to_owned),
            ..PageHead::default()
        };
        let long = "x".repeat(MARK_BYTES + 1);
        let rows = [
            (head(Some("\"a\""), Some("today")), Some("\"a\"")),
            (head(None, Some("today")), Some("today")),
            (head(None, None), None),
            (head(Some(&long), Some("today")), None),
        ];
        for (head, want) in rows {
            assert_eq!(mark_of(&head), want);
        }
    }
}
