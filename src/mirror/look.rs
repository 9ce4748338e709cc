//! What stored artifacts are, as entries of catalogues: what the store has recorded, and what is known of their names.
//! Asks nobody. Blocks.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use crate::base::{Access, Cid, Digest, PackageUrl, ROOM, Sha256, sha256_of_cid};
use crate::catalogue::{self, Entry};
use crate::eco::oci::{
    Kind, MANIFEST_BYTES, Manifest, Place, Repository, reference_digest, repository_of, repository_purl,
};
use crate::eco::pypi::{Project, ProjectName};
use crate::members::Members;
use crate::resolve::Resolve;
use crate::resolve::images::{Images, Spot};
use crate::store::{Description, Store, StoreError};

use super::entry::{self, Listed, Piece};

/// Pieces of one image that are looked at: an index of twenty platforms with a hundred layers each.
const PIECES: usize = 4096;

/// Parsed pages that are held at a time, beside each other: the files of a batch are in the order of their names.
const PAGES: usize = 4;

/// See the module.
#[derive(Clone)]
pub(super) struct Look {
    pub(super) store: Store,
    pub(super) members: Members,
    pub(super) resolve: Resolve,
    pub(super) images: Images,
}

/// What is asked for each artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// As it is now.
    Anew,
    /// What a catalogue has of it already is left as it is: after a start, of thousands, nothing has changed.
    Unless,
}

/// Pages that were read a moment ago.
#[derive(Default)]
pub(super) struct Pages(Vec<(ProjectName, Option<Page>)>);

type Page = (Project, Access);

impl Look {
    /// A block of a catalogue.
    pub(super) fn block(&self, cid: &Cid) -> Option<Bytes> {
        let found = self.store.catalogue_block(&sha256_of_cid(cid)?);
        found.inspect_err(|e| log::error!("a catalogue's block: {e}")).ok().flatten()
    }

    /// The entries of these artifacts, as far as some room mirrors them. Those that are gone, are nobody's business, or
    /// of no ecosystem that is catalogued have none.
    pub(super) fn entries(&self, artifacts: &[Sha256], how: How) -> Result<Vec<Entry>, StoreError> {
        let mut found = Vec::new();
        for sha256 in artifacts {
            found.extend(self.store.describe(&sha256.digest())?.filter(|found| !found.private));
        }
        // So the files of a project come together, and its page is read once.
        found.sort_by(|a, b| a.filename.cmp(&b.filename));
        let mut pages = Pages::default();
        let mut entries = Vec::new();
        for found in &found {
            if found.upstream == ROOM {
                entries.extend(self.of_room(found)?);
            } else if self.resolve.access_of(&found.upstream) == Some(Access::Public) {
                entries.extend(self.file(found, how, &mut pages)?);
            } else if let Some(registry) = self.registry(&found.upstream)
                && let Some(Piece { repository, digest, manifest }) = Piece::of(found)
            {
                let spot = Spot { registry, repository };
                match manifest {
                    true => entries.extend(self.image(&spot, &digest)?),
                    false => entries.extend(
                        self.purl_of(&spot).and_then(|purl| entry::of_piece(found, &purl, &digest, None)),
                    ),
                }
            }
        }
        Ok(entries)
    }

    /// The entries of all that the tags of a repository mean, as far as it is here.
    pub(super) fn tagged(&self, spot: &Spot) -> Result<Vec<Entry>, StoreError> {
        if self.purl_of(spot).is_none() {
            return Ok(Vec::new());
        }
        let digests: HashSet<Digest> =
            self.images.stored_tags(spot)?.into_iter().map(|(_, digest)| digest).collect();
        let mut entries = Vec::new();
        for digest in digests {
            entries.extend(self.image(spot, &digest)?);
        }
        Ok(entries)
    }

    fn is_mirrored(&self, purl: &PackageUrl) -> bool {
        self.members.ids().iter().any(|room| self.members.in_scope(room, purl))
    }

    /// A file from an index: of the project whose page lists it, else of the likeliest by its name.
    fn file(&self, found: &Description, how: How, pages: &mut Pages) -> Result<Option<Entry>, StoreError> {
        let mut projects = entry::projects(&found.filename);
        projects.retain(|project| {
            entry::of_file(found, project, Listed::Not).is_some_and(|bare| self.is_mirrored(&bare.purl))
        });
        if how == How::Unless {
            for project in &projects {
                let bare = entry::of_file(found, project, Listed::Not);
                if let Some(known) = bare.and_then(|bare| self.listed_already(&bare)) {
                    return Ok(Some(known));
                }
            }
        }
        let mut likeliest = None;
        for project in &projects {
            match pages.of(&self.resolve, project)? {
                // The name is somebody's own.
                Some((_, Access::Private)) => return Ok(None),
                Some((page, Access::Public)) => match Listed::of(&page.files, found) {
                    Listed::Not => {}
                    listed => return Ok(entry::of_file(found, project, listed)),
                },
                None => {}
            }
            likeliest = likeliest.or_else(|| entry::of_file(found, project, Listed::Not));
        }
        Ok(likeliest)
    }

    /// What this node says of the same bytes in some room.
    fn listed_already(&self, bare: &Entry) -> Option<Entry> {
        let rooms = self.members.ids();
        let mut roots = rooms.iter().filter(|room| self.members.in_scope(room, &bare.purl));
        let first = self.members.own(roots.next()?)?;
        let known = catalogue::find(&first, &bare.purl, &bare.file, &|cid| self.block(cid)).ok().flatten()?;
        let same = (known.size, known.root, &known.digests) == (bare.size, bare.root, &bare.digests);
        same.then_some(known)
    }

    fn registry(&self, upstream: &str) -> Option<usize> {
        let registries = self.images.registries();
        registries.iter().position(|r| r.site.name == upstream && r.access() == Access::Public)
    }

    /// The package URL of a repository, if some room mirrors it.
    fn purl_of(&self, spot: &Spot) -> Option<PackageUrl> {
        let host = self.images.registry(spot).hosts.first()?;
        let purl = repository_purl(host, &spot.repository).ok()?;
        self.is_mirrored(&purl).then_some(purl)
    }

    /// A manifest with the tags that mean it, and what of its contents is here: another repository may have brought it,
    /// for a layer that many images have is stored once.
    fn image(&self, spot: &Spot, root: &Digest) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        let Some(purl) = self.purl_of(spot) else { return Ok(entries) };
        let tags = self.images.stored_tags(spot)?;
        let (mut manifests, mut seen) = (vec![*root], HashSet::new());
        while let Some(digest) = manifests.pop() {
            if seen.len() >= PIECES || !seen.insert(digest) {
                continue;
            }
            let Some(found) = self.public(&digest)? else { continue };
            let Some(manifest) = self.manifest(&found.sha256)? else { continue };
            let media_type = Some(manifest.media_type.clone());
            let Some(entry) = entry::of_piece(&found, &purl, &digest, media_type) else { continue };
            let mean = tags.iter().filter(|(_, digest)| entry.digests.contains(digest));
            entries.extend(mean.filter_map(|(tag, _)| entry::of_tag(&entry, tag)));
            entries.push(entry);
            if manifest.kind == Kind::Index {
                manifests.extend(manifest.children.iter().map(|child| child.digest));
                continue;
            }
            for child in &manifest.children {
                if seen.len() < PIECES
                    && seen.insert(child.digest)
                    && let Some(found) = self.public(&child.digest)?
                {
                    entries.extend(entry::of_piece(&found, &purl, &child.digest, None));
                }
            }
        }
        Ok(entries)
    }

    /// A stored piece of an image that anybody may have.
    fn public(&self, digest: &Digest) -> Result<Option<Description>, StoreError> {
        let found = self.store.describe(digest)?.filter(|found| !found.private);
        Ok(found.filter(|found| found.upstream == ROOM || self.registry(&found.upstream).is_some()))
    }

    fn manifest(&self, sha256: &Sha256) -> Result<Option<Manifest>, StoreError> {
        let Some(stored) = self.store.find(&sha256.digest())?.filter(|s| s.size <= MANIFEST_BYTES) else {
            return Ok(None);
        };
        let mut bytes = vec![0; stored.size as usize];
        let mut at = 0;
        while at < bytes.len() {
            match stored.read(&mut bytes[at..], at as u64) {
                Ok(0) | Err(_) => return Ok(None),
                Ok(n) => at += n,
            }
        }
        Ok(Manifest::read(&bytes).ok())
    }

    /// What came from members of a room is what they say it is, unless an index that is known says otherwise; tags are
    /// told by those who asked the registry, and nobody else.
    fn of_room(&self, found: &Description) -> Result<Option<Entry>, StoreError> {
        let packages: Vec<PackageUrl> = match mirrored_piece(&found.filename) {
            Some((purl, _)) => vec![purl],
            None => {
                let projects = entry::projects(&found.filename);
                projects.iter().filter_map(|p| PackageUrl::of("pypi", p.as_str(), None, &[]).ok()).collect()
            }
        };
        for package in packages {
            let known = match self.members.package(&package) {
                Ok(known) => known,
                Err(e) => {
                    log::debug!("{package}: {e}");
                    continue;
                }
            };
            let mut same = known
                .entries
                .into_iter()
                .filter(|e| e.sha256() == Some(found.sha256) && e.size == found.size);
            let Some(said) = same.find(|entry| entry.file == mirrored_file(&found.filename)) else {
                continue;
            };
            if self.is_denied(&said, found)? {
                continue;
            }
            if let Some(entry) = entry::of_said(found, said) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    /// Whether this node's own index says that a file has other bytes, or that its name is nobody else's.
    pub(super) fn is_denied(&self, said: &Entry, found: &Description) -> Result<bool, StoreError> {
        let Some(project) = project_of(&said.purl) else { return Ok(false) };
        Ok(match self.resolve.listing(&project)? {
            Some((_, Access::Private)) => true,
            Some((page, Access::Public)) => matches!(Listed::of(&page.files, found), Listed::Otherwise),
            None => false,
        })
    }

    /// Whether an entry of this node's own catalogue still holds: its bytes are here and anybody's, and a tag means what
    /// it meant.
    pub(super) fn holds(
        &self,
        entry: &Entry,
        tags: &mut Tags,
        pages: &mut Pages,
    ) -> Result<bool, StoreError> {
        let Some(sha256) = entry.sha256() else { return Ok(false) };
        let Some(found) = self.store.describe(&sha256.digest())?.filter(|found| !found.private) else {
            return Ok(false);
        };
        if let Some(project) = project_of(&entry.purl)
            && let Some((page, access)) = pages.of(&self.resolve, &project)?
        {
            // The name is somebody's own by now, or its index lists other bytes.
            let file = Description { filename: entry.file.clone(), ..found.clone() };
            if *access == Access::Private || matches!(Listed::of(&page.files, &file), Listed::Otherwise) {
                return Ok(false);
            }
        }
        let index = self.resolve.access_of(&found.upstream);
        let known = found.upstream == ROOM
            || index == Some(Access::Public)
            || self.registry(&found.upstream).is_some();
        let is_tag = entry.purl.kind() == "oci" && reference_digest(&entry.file).is_err();
        match repository_of(&entry.purl).filter(|_| is_tag && known) {
            Some(place) => Ok(tags.mean(self, &place, entry)?),
            None => Ok(known),
        }
    }

    /// The files of a project that this node lists in some room.
    pub(super) fn own_files(&self, project: &ProjectName) -> HashSet<Sha256> {
        let Ok(package) = PackageUrl::of("pypi", project.as_str(), None, &[]) else { return HashSet::new() };
        let mut found = HashSet::new();
        for root in self.members.ids().iter().filter_map(|room| self.members.own(room)) {
            let mut budget = catalogue::Budget::for_entries(root.entries);
            match catalogue::of_package(&root, &package, &|cid| self.block(cid), &mut budget) {
                Ok(entries) => found.extend(entries.iter().filter_map(Entry::sha256)),
                Err(e) => log::warn!("this node's own catalogue: {e}"),
            }
        }
        found
    }
}

/// What tags mean now, repository by repository.
#[derive(Default)]
pub(super) struct Tags(HashMap<Place, Vec<(String, Digest)>>);

impl Tags {
    fn mean(&mut self, look: &Look, place: &Place, entry: &Entry) -> Result<bool, StoreError> {
        if !self.0.contains_key(place) {
            let tags = match look.images.spot(place) {
                Ok(spot) => look.images.stored_tags(&spot)?,
                Err(_) => Vec::new(),
            };
            self.0.insert(place.clone(), tags);
        }
        Ok(self.0[place].iter().any(|(tag, digest)| *tag == entry.file && entry.digests.contains(digest)))
    }
}

impl Pages {
    fn of(&mut self, resolve: &Resolve, project: &ProjectName) -> Result<Option<&Page>, StoreError> {
        let at = match self.0.iter().position(|(name, _)| name == project) {
            Some(at) => at,
            None => {
                if self.0.len() >= PAGES {
                    self.0.remove(0);
                }
                self.0.push((project.clone(), resolve.listing(project)?));
                self.0.len() - 1
            }
        };
        Ok(self.0[at].1.as_ref())
    }
}

/// The project of a package URL of PyPI.
pub(super) fn project_of(purl: &PackageUrl) -> Option<ProjectName> {
    crate::eco::pypi::Purl::parse(purl.as_str()).ok().map(|purl| purl.name)
}

/// What a mirrored file is stored as: a piece of an image with the whole name of its repository.
pub(super) fn mirrored_name(entry: &Entry) -> String {
    match repository_of(&entry.purl) {
        Some(Place { host: Some(host), repository }) => format!("{host}/{repository}@{}", entry.file),
        _ => entry.file.clone(),
    }
}

/// The reverse, of pieces.
fn mirrored_piece(filename: &str) -> Option<(PackageUrl, &str)> {
    let (image, digest) = filename.split_once('@')?;
    let (host, repository) = image.split_once('/')?;
    reference_digest(digest).ok()?;
    Some((repository_purl(host, &Repository::parse(repository)?).ok()?, digest))
}

/// The name of its entry.
fn mirrored_file(filename: &str) -> &str {
    mirrored_piece(filename).map_or(filename, |(_, digest)| digest)
}
