//! Which files a package has, by the members of rooms: for when its upstream is gone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::base::{Digest, PackageUrl, PeerId};
use crate::catalogue::{self, Budget, Entry, Facts, Root};
use crate::rt::UnixMillis;
use crate::wire::room::Scope;

use super::own::Blocks;
use super::room::Node;
use super::{Members, MembersError, Mode};

/// Entries of one package that are read of one member: the largest index pages have 15,000 files.
const MOST_OF_ONE: u64 = 1 << 14;

/// The same of all members together: a request takes a second at most.
const MOST_ENTRIES: u64 = 1 << 16;

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

/// What members say of one file, put together. `None` when one of them is wrong about it: of other bytes, without a
/// digest that all state, or of another kind.
///
/// One may know more of it than another, whose index had no page; a fact that two state differently counts for nothing.
fn together(said: &[(usize, Entry)]) -> Option<Entry> {
    let (_, first) = said.first()?;
    let mut entry = first.clone();
    if said.iter().any(|(_, other)| first.contradicts(other)) {
        return None;
    }
    entry.digests.retain(|digest| said.iter().all(|(_, other)| other.digests.contains(digest)));
    if entry.digests.is_empty() {
        return None;
    }
    let stated = |fact: fn(&Facts) -> &Option<String>| {
        said.iter().filter_map(|(_, entry)| fact(&entry.facts).clone()).collect::<BTreeSet<_>>()
    };
    let agreed = |fact| Some(stated(fact)).filter(|all| all.len() == 1).and_then(|mut all| all.pop_first());
    if stated(|facts| &facts.media_type).len() > 1 {
        return None;
    }
    let metadata: BTreeSet<_> = said.iter().filter_map(|(_, entry)| entry.facts.core_metadata).collect();
    entry.facts = Facts {
        core_metadata: metadata.first().copied().filter(|_| metadata.len() == 1),
        media_type: agreed(|facts| &facts.media_type),
        requires_python: agreed(|facts| &facts.requires_python),
        upload_time: agreed(|facts| &facts.upload_time),
        yanked: agreed(|facts| &facts.yanked),
    };
    entry.first_seen = said.iter().filter_map(|(_, entry)| entry.first_seen).min();
    Some(entry)
}

/// Whether an entry belies itself: a file of an image that is named by another digest than it has.
fn belies_itself(entry: &Entry) -> bool {
    let named = entry.file.parse::<Digest>().ok().filter(|_| entry.purl.kind() == "oci");
    named.is_some_and(|digest| !entry.digests.contains(&digest))
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
        let mut left = MOST_ENTRIES;
        let mut files: BTreeMap<(PackageUrl, String), Vec<(usize, Entry)>> = BTreeMap::new();
        let blocks = Blocks::of(&self.inner.store);
        for (number, source) in sources.iter().enumerate() {
            let entries = left.min(MOST_OF_ONE);
            let mut budget = Budget { blocks: entries + 64, bytes: entries * 1024 + (1 << 20), entries };
            let found = catalogue::of_package(&source.root, &package, &|cid| blocks.get(cid), &mut budget);
            let found = match blocks.judge(found) {
                Ok(found) => found,
                Err(MembersError::Catalogue(e)) => {
                    // It silences nobody but itself.
                    log::warn!("{package}: what {} says is passed over: {e}", source.teller);
                    continue;
                }
                Err(e) => return Err(e),
            };
            left = left.saturating_sub(found.len() as u64);
            let mut in_scope: HashMap<PackageUrl, bool> = HashMap::new();
            for entry in found {
                let has = in_scope.entry(entry.purl.clone()).or_insert_with(|| source.scope.has(&entry.purl));
                if *has && !belies_itself(&entry) {
                    files.entry((entry.purl.clone(), entry.file.clone())).or_default().push((number, entry));
                }
            }
        }
        let (mut known, mut told) = (Known::default(), BTreeSet::new());
        for ((purl, file), said) in files {
            let Some(entry) = together(&said) else {
                let teller = |(number, entry): &(usize, Entry)| {
                    let digests: Vec<_> = entry.digests.iter().map(ToString::to_string).collect();
                    let (size, kind) = (entry.size, entry.facts.media_type.as_deref().unwrap_or_default());
                    let what = format!("{size} bytes, {} {kind}", digests.join(", "));
                    (sources[*number].teller.clone(), what.trim_end().to_owned())
                };
                let tellers = said.iter().map(teller).collect();
                known.disputed.push(Dispute { purl, file, tellers });
                continue;
            };
            for (number, _) in &said {
                known.age = known.age.max(sources[*number].age);
                told.insert(&sources[*number].teller);
            }
            known.entries.push(entry);
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
                let Some(have) = node.have else { continue };
                // Of the catalogue that is here: that its node has said something newer makes this one no younger.
                let (age, root) = (now.since(have.at), have.root);
                if age > max_age {
                    continue;
                }
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
