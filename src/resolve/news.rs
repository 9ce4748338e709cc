//! Pages that changed, for whoever tells others; and what others told, for the upstream to be asked sooner.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::time::Duration;

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

/// Questions that hints cause within [`HINTS_TIME`]. An office's projects that change in a minute are fewer; a member
/// that tells of everything costs the index no more.
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
    /// It was asked for a moment ago, or too much is.
    TooMany,
}

pub(super) struct News {
    changes: (Sender<Change>, Receiver<Change>),
    hints: Mutex<Hints>,
}

struct Hints {
    of: LruCache<PageKey, UnixMillis>,
    lately: VecDeque<UnixMillis>,
}

impl Default for News {
    fn default() -> Self {
        let hints = Hints { of: LruCache::new(HINTED), lately: VecDeque::new() };
        Self { changes: async_channel::bounded(WAITING), hints: Mutex::new(hints) }
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
        let PageKey::Project(name) = key else { return Ok(Hint::NotOurs) };
        if inner.offline {
            return Ok(Hint::NotOurs);
        }
        let known = inner.known(key).await?;
        let Some(head) = known.filter(|head| head.found && inner.is_public(name, head)) else {
            return Ok(Hint::NotOurs);
        };
        if mark_of(&head) == Some(mark) {
            return Ok(Hint::Known);
        }
        let now = inner.clock.now();
        if age(&head, now, &inner.freshness) < HINT_REST
            || !inner.news.hints.lock().expect(LOCK).take(key, now)
        {
            return Ok(Hint::TooMany);
        }
        inner.start_refresh(key, Some(head));
        Ok(Hint::Asked)
    }
}

impl Hints {
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
        let mut hints = Hints { of: LruCache::new(HINTED), lately: VecDeque::new() };
        let key = |n: usize| PageKey::Project(ProjectName::normalise(&format!("p{n}")).unwrap());
        let at = |seconds: u64| UnixMillis(1_700_000_000_000 + seconds * 1000);
        assert!(hints.take(&key(0), at(0)) && !hints.take(&key(0), at(29)) && hints.take(&key(0), at(30)));
        let taken = (1..100).filter(|n| hints.take(&key(*n), at(31))).count();
        assert_eq!(taken, HINTS - 2);
        assert!(hints.take(&key(200), at(60)) && !hints.take(&key(201), at(60)), "one place is free again");
        assert!(hints.take(&key(200), at(91)));
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
