//! Index pages that changed, told to those whose rooms mirror them. Pure but for the key's own signature.
//!
//! A note costs an event and is only a hint, so notes are gathered for long, and what somebody else has told already is
//! not told again.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::base::PackageUrl;
use crate::room::Pace;
use crate::wire::room::MOST_INDEXES;

use super::rhythm::{INDEXES, Rhythm, share};

/// How long is waited for more before a room is told: an index changes many pages of a release at once.
const GATHER: Duration = Duration::from_secs(10);

/// Notes that are remembered, so as not to be told again.
const HEARD: usize = 1024;

/// What others told lately.
#[derive(Debug, Default)]
pub(super) struct Told(VecDeque<(PackageUrl, String)>);

impl Told {
    /// Somebody told of it, or this node did.
    pub(super) fn heard(&mut self, package: &PackageUrl, mark: &str) {
        if self.is_known(package, mark) {
            return;
        }
        self.0.push_back((package.clone(), mark.to_owned()));
        if self.0.len() > HEARD {
            self.0.pop_front();
        }
    }

    fn is_known(&self, package: &PackageUrl, mark: &str) -> bool {
        self.0.iter().any(|(of, known)| of == package && known == mark)
    }
}

/// What one room is to be told.
pub(super) struct Notes {
    rhythm: Rhythm,
    waiting: BTreeMap<PackageUrl, String>,
}

impl Notes {
    pub(super) fn new(pace: Pace, now: Instant) -> Self {
        Self { rhythm: Rhythm::new(share(pace, INDEXES), now), waiting: BTreeMap::new() }
    }

    /// A page changed. Those that do not fit are left out: every node asks in its own time anyway.
    pub(super) fn changed(&mut self, package: PackageUrl, mark: String, now: Instant) {
        if self.waiting.len() < MOST_INDEXES || self.waiting.contains_key(&package) {
            self.waiting.insert(package, mark);
            self.rhythm.want(now + GATHER);
        }
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.rhythm.due()
    }

    /// What is to be told now, if there is something; it counts as told.
    pub(super) fn take(&mut self, told: &mut Told, now: Instant) -> Vec<(PackageUrl, String)> {
        if !self.rhythm.is_due(now) {
            return Vec::new();
        }
        let waiting = std::mem::take(&mut self.waiting);
        let news: Vec<_> = waiting.into_iter().filter(|(of, mark)| !told.is_known(of, mark)).collect();
        match news.is_empty() {
            true => self.rhythm.rest(),
            false => self.rhythm.said(now),
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn purl(n: usize) -> PackageUrl {
        PackageUrl::parse(&format!("pkg:pypi/p{n}")).unwrap()
    }

    #[test]
    fn notes_are_gathered_and_told_once() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let (mut notes, mut told) = (Notes::new(Pace::default(), start), Told::default());
        (0..3).for_each(|n| notes.changed(purl(n), "a".into(), start));
        notes.changed(purl(1), "b".into(), at(1));
        told.heard(&purl(2), "a");
        assert_eq!((notes.due(), notes.take(&mut told, at(9))), (Some(at(10)), vec![]));
        assert_eq!(notes.take(&mut told, at(10)), [(purl(0), "a".into()), (purl(1), "b".into())]);
        assert_eq!(notes.due(), None);
        notes.changed(purl(5), "c".into(), at(10));
        assert!(
            notes.due().unwrap() >= at(60),
            "not more than one a minute: {:?}",
            notes.due().unwrap() - start
        );
        told.heard(&purl(5), "c");
        assert_eq!(notes.take(&mut told, at(1000)), []);
        assert_eq!(notes.due(), None, "somebody else told it");
    }

    #[test]
    fn floods_are_cut() {
        let start = Instant::now();
        let (mut notes, mut told) = (Notes::new(Pace::default(), start), Told::default());
        (0..10_000).for_each(|n| notes.changed(purl(n), "a".into(), start));
        assert_eq!(notes.take(&mut told, start + GATHER).len(), MOST_INDEXES);
        (0..10_000).for_each(|n| told.heard(&purl(n), "a"));
        assert_eq!(told.0.len(), HEARD);
    }
}
