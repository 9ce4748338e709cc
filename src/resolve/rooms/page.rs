//! A project's page of what members of rooms say. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Map;
use url::Url;

use crate::base::cbor::CborWriter;
use crate::base::{Access, Artifact, ROOM};
use crate::catalogue::{self, Entry};
use crate::eco::pypi::{CoreMetadata, File, FileWant, Part, Project, ProjectName, Purl, Yanked, is_of};
use crate::members::Known;
use crate::store::PageHead;

use super::super::{Located, ResolveError, guard};

/// A page that rooms made or completed.
#[derive(Clone, Debug)]
pub(in super::super) struct RoomPage {
    pub(in super::super) project: Arc<Project>,
    /// Of the oldest word that counts.
    pub(in super::super) age: Duration,
    /// Files that are not listed, for members say different things of them; and what they say.
    pub(in super::super) disputed: BTreeMap<String, String>,
    /// Files that are listed because a room has them.
    pub(in super::super) added: usize,
    /// The page of its index that was completed.
    pub(in super::super) base: Option<PageHead>,
    /// Of what it is made of.
    pub(in super::super) revision: u64,
}

/// The page of a project as rooms complete it, or as they alone have it. What its index lists in `base` is as that
/// says, whatever others say of it.
pub(in super::super) fn page(
    name: &ProjectName,
    base: Option<(&Project, &PageHead)>,
    known: &Known,
) -> RoomPage {
    let mut disputed: BTreeMap<String, String> =
        known.disputed.iter().map(|dispute| (dispute.file.clone(), dispute.to_string())).collect();
    // A name of a file is one file, however the version in its package URL is written.
    let mut files: BTreeMap<&str, (&Entry, String)> = BTreeMap::new();
    for entry in &known.entries {
        let Some(version) = version_of(name, entry) else { continue };
        if base.is_some_and(|(_, head)| !is_since(entry, head)) {
            continue;
        }
        match files.get(entry.file.as_str()) {
            Some((first, _)) if first.contradicts(&Entry { purl: first.purl.clone(), ..entry.clone() }) => {
                let says = |entry: &Entry| {
                    let digests: Vec<_> = entry.digests.iter().map(ToString::to_string).collect();
                    format!("as {} it has {}", entry.purl, digests.join(", "))
                };
                let what = format!("members disagree on {}: {}, {}", entry.file, says(first), says(entry));
                disputed.insert(entry.file.clone(), what);
            }
            Some(_) => {}
            None => drop(files.insert(&entry.file, (entry, version))),
        }
    }
    files.retain(|file, _| !disputed.contains_key(*file));
    let mut project = base.map(|(project, _)| project.clone()).unwrap_or_else(|| Project::unlisted(name));
    let held_back = project.is_quarantined();
    disputed.retain(|file, _| !project.files.iter().any(|listed| listed.filename == *file));
    if held_back {
        files.clear();
        disputed.clear();
    }
    let added =
        project.add(files.into_values().filter_map(|(entry, version)| Some((file(name, entry)?, version))));
    let head = base.map(|(_, head)| head.clone());
    let revision = revision(known, head.as_ref());
    RoomPage { project: Arc::new(project), age: known.age, disputed, added, base: head, revision }
}

impl RoomPage {
    /// What a file's link means, if it is one that a room told of.
    pub(in super::super) fn locate(&self, want: &FileWant) -> Result<Option<Located>, ResolveError> {
        let listed = self
            .project
            .files
            .iter()
            .find(|f| f.filename == want.filename && want.digest.is_none_or(|d| f.digests.contains(&d)));
        let Some(file) = listed.filter(|file| is_told(file)) else {
            return match self.disputed.get(&want.filename) {
                Some(what) => Err(ResolveError::Disputed(what.clone())),
                None => Ok(None),
            };
        };
        // Members list what they have by its SHA-256.
        let sha256 = file.digests.iter().copied().find(|digest| digest.sha256().is_some());
        let digest = sha256.or(file.best_digest());
        let whole = Artifact { digest, ..guard::listed(ROOM, Access::Public, file) };
        let name = format!("{}{}", file.filename, want.part.suffix());
        match want.part {
            Part::Whole => Ok(Some(Located::Artifact(whole))),
            Part::Metadata if file.filename.ends_with(".whl") => Ok(Some(Located::InWheel(whole))),
            Part::Metadata | Part::Provenance => Err(ResolveError::Unlisted(name)),
        }
    }

    /// Whether nothing is left, because members contradict each other.
    pub(in super::super) fn refused(&self) -> Option<ResolveError> {
        let (_, what) = self.disputed.iter().next().filter(|_| self.project.files.is_empty())?;
        Some(ResolveError::Disputed(what.clone()))
    }
}

/// Stands for all that a page is made of. No page of an index has such a number: theirs are times.
fn revision(known: &Known, base: Option<&PageHead>) -> u64 {
    let (mut hasher, mut entries) = (DefaultHasher::new(), CborWriter::default());
    catalogue::list(&known.entries, &mut entries);
    entries.0.hash(&mut hasher);
    known.disputed.iter().for_each(|dispute| dispute.file.hash(&mut hasher));
    base.map(|head| head.revision).hash(&mut hasher);
    hasher.finish() | 1 << 63
}

/// Whether a page has a file from a room and not from its index.
fn is_told(file: &File) -> bool {
    file.url.as_str().starts_with(ROOM)
}

/// Whether a file has come after an index was asked for its page last. One that was there before and is not on the page
/// was taken off it.
fn is_since(entry: &Entry, head: &PageHead) -> bool {
    entry.first_seen.is_some_and(|seconds| seconds.saturating_mul(1000) >= head.checked_at)
}

/// The version that an entry is of, if it is one of this project and its file's name says the same.
fn version_of(name: &ProjectName, entry: &Entry) -> Option<String> {
    let purl = Purl::parse(entry.purl.as_str()).ok().filter(|purl| purl.name == *name)?;
    purl.version.filter(|version| is_of(&entry.file, name, version))
}

fn file(name: &ProjectName, entry: &Entry) -> Option<File> {
    let facts = &entry.facts;
    let mut url = Url::parse(&format!("{ROOM}/")).ok()?;
    url.set_path(&format!("{name}/{}", entry.file));
    Some(File {
        filename: entry.file.clone(),
        url,
        digests: entry.digests.clone(),
        other_hashes: Map::new(),
        requires_python: facts.requires_python.clone(),
        yanked: facts.yanked.clone().map_or(Yanked::No, Yanked::Yes),
        size: Some(entry.size),
        upload_time: facts.upload_time.clone().filter(|time| is_time(time)),
        // It is in the wheel, whose digest the members agree on: who believed a member's word for it would install what
        // that one wants.
        core_metadata: CoreMetadata::No,
        gpg_sig: None,
        provenance: None,
        extra: Map::new(),
    })
}

/// Whether installers can read a time: one that they cannot costs them the page.
fn is_time(text: &str) -> bool {
    humantime::parse_rfc3339(&text.replace("+00:00", "Z")).is_ok()
}
