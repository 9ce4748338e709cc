//! Which files a package has, by the members of rooms: for when its upstream is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::base::{PackageUrl, PeerId};
use crate::catalogue::{self, Budget, Entry, Facts, Root};
use crate::rt::UnixMillis;
use crate::wire::room::Scope;

use super::own::Blocks;
use super::room::Node;
use super::{Members, MembersError, Mode};

/// Entries of one package that are read, of all members together: the largest index pages have 15,000 files.
const MOST_ENTRIES: u64 = 1 << 18;

/// Disagreements that are remembered for people.
const DISPUTES: usize = 64;

/// What the members say of a package.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Its files, by name: each as some member has it, and no other otherwise.
    pub entries: Vec<Entry>,
    /// The age of the oldest word that counts.
    pub age: Duration,
    /// Files of which members say different things.
    pub disputed: Vec<Dispute>,
    /// Who said so.
    pub tellers: Vec<Teller>,
}

/// Members who say different things of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    /// The package, with its version.
    pub purl: PackageUrl,
    /// The file.
    pub file: String,
    /// Who says which digest.
    pub tellers: Vec<(Teller, String)>,
}

/// A member who says something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Teller {
    /// The Matrix user.
    pub user: String,
    /// The node.
    pub peer: PeerId,
    /// What the node calls itself.
    pub name: String,
}

impl std::fmt::Display for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.user, self.peer)
    }
}

impl std::fmt::Display for Dispute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let says = |(teller, digest): &(Teller, String)| format!("{teller} says {digest}");
        let said: Vec<_> = self.tellers.iter().map(says).collect();
        write!(f, "members disagree on {} of {}: {}", self.file, self.purl, said.join(", "))
    }
}

/// What members say of one file, who agree on its bytes: one may know more of it than another, whose index had no page.
/// Metadata that they do not agree on counts for nothing: it is in the file.
fn together<'e>(said: impl Iterator<Item = &'e Entry> + Clone) -> Entry {
    let mut entry = said.clone().next().expect("somebody says it").clone();
    let first = |fact: fn(&Facts) -> &Option<String>| said.clone().find_map(|e| fact(&e.facts).clone());
    let metadata: BTreeSet<_> = said.clone().filter_map(|e| e.facts.core_metadata).collect();
    entry.facts = Facts {
        core_metadata: metadata.first().copied().filter(|_| metadata.len() == 1),
        media_type: first(|facts| &facts.media_type),
        requires_python: first(|facts| &facts.requires_python),
        upload_time: first(|facts| &facts.upload_time),
        yanked: first(|facts| &facts.yanked),
    };
    entry
}

/// A member's catalogue that may be believed.
pub(super) struct Source {
    pub(super) teller: Teller,
    pub(super) root: Root,
    pub(super) scope: Arc<Scope>,
    age: Duration,
}

impl Node {
    /// How old its word is: by its own clock, unless that is ahead of ours.
    pub(super) fn age(&self, now: UnixMillis) -> Duration {
        now.since(UnixMillis(self.advert.time_ms.min(self.heard.0)))
    }
}

impl Members {
    /// What the members of rooms that are mirrored say of a package (a URL whose version does not matter). Their words
    /// that are too old are left out. Blocks.
    pub fn package(&self, package: &PackageUrl) -> Result<Known, MembersError> {
        let package = package.package();
        let mut sources = self.sources(|mode| mode != Mode::Off);
        sources.retain(|source| source.scope.touches(&package));
        let mut budget = Budget { blocks: MOST_ENTRIES, bytes: MOST_ENTRIES * 1024, entries: MOST_ENTRIES };
        let mut files: BTreeMap<(PackageUrl, String), Vec<(usize, Entry)>> = BTreeMap::new();
        let blocks = Blocks::of(&self.inner.store);
        for (number, source) in sources.iter().enumerate() {
            let entries = catalogue::of_package(&source.root, &package, &|cid| blocks.get(cid), &mut budget);
            for entry in blocks.judge(entries)?.into_iter().filter(|entry| source.scope.has(&entry.purl)) {
                files.entry((entry.purl.clone(), entry.file.clone())).or_default().push((number, entry));
            }
        }
        let (mut known, mut told) = (Known::default(), BTreeSet::new());
        for ((purl, file), said) in files {
            let disputed =
                said.iter().any(|(_, entry)| said.iter().any(|(_, other)| entry.contradicts(other)));
            if disputed {
                let teller = |(number, entry): &(usize, Entry)| {
                    let digests: Vec<_> = entry.digests.iter().map(ToString::to_string).collect();
                    (sources[*number].teller.clone(), format!("{} bytes, {}", entry.size, digests.join(", ")))
                };
                let tellers = said.iter().map(teller).collect();
                known.disputed.push(Dispute { purl, file, tellers });
                continue;
            }
            for (number, _) in &said {
                known.age = known.age.max(sources[*number].age);
                told.insert(&sources[*number].teller);
            }
            known.entries.push(together(said.iter().map(|(_, entry)| entry)));
        }
        known.tellers = told.into_iter().cloned().collect();
        self.remember(&package, &known.disputed);
        Ok(known)
    }

    /// Catalogues of present members that are here and not too old, each node's once a room.
    pub(super) fn sources(&self, counts: impl Fn(Mode) -> bool) -> Vec<Source> {
        let (now, max_age) = (self.inner.options.clock.now(), self.inner.options.max_age);
        let rooms = self.lock();
        let mut found = Vec::new();
        for room in rooms.values().filter(|room| counts(room.mode)) {
            for (peer, node) in room.present() {
                let age = node.age(now);
                let Some(root) = node.have.filter(|_| age <= max_age) else { continue };
                let name = node.advert.name.clone();
                let teller = Teller { user: node.sender.clone(), peer: *peer, name };
                found.push(Source { teller, root, scope: room.scope.clone(), age });
            }
        }
        found
    }

    /// Keeps disagreements for people, the last of each file.
    fn remember(&self, package: &PackageUrl, disputes: &[Dispute]) {
        let mut known = self.inner.disputes.lock().expect("nothing panics under this lock");
        known.retain(|(of, _)| of != package.as_str());
        for dispute in disputes {
            log::warn!("nothing is served for it: {dispute}");
            known.push((package.to_string(), dispute.clone()));
        }
        let surplus = known.len().saturating_sub(DISPUTES);
        known.drain(..surplus);
    }

    /// Disagreements that were met, the last ones.
    pub fn disputes(&self) -> Vec<Dispute> {
        let known = self.inner.disputes.lock().expect("nothing panics under this lock");
        known.iter().map(|(_, dispute)| dispute.clone()).collect()
    }
}
