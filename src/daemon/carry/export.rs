//! Writes what is stored as one CAR file.

use std::collections::{HashMap, HashSet};
use std::io::Write;

use serde_json::{Value, json};

use crate::base::limits::CHUNK_BYTES;
use crate::base::{Access, Cid, Sha256};
use crate::daemon::Rooms;
use crate::eco::pypi::ProjectName;
use crate::resolve::Carried;
use crate::store::Description;
use crate::unixfs::{Layout, LayoutBuilder, car, children};

use super::{
    ArtifactEntry, CarryError, KIND, Link, MOST_FILES, MOST_NAMED, Manifest, PART_BYTES, PageEntry, Part,
    VERSION, block,
};

/// Artifacts up to which each is a root of the file beside the manifest: readers take 1,500 roots.
const MOST_ROOTS: usize = 1000;

/// What is to be carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Everything.
    All,
    /// Artifacts that are pinned, with their projects' pages.
    Pinned,
    /// What these words name: as for `dpm why`, or a package URL with a version.
    What(String),
}

/// What was chosen.
pub(in crate::daemon) struct Chosen {
    pub(in crate::daemon) artifacts: Vec<Sha256>,
    pub(in crate::daemon) projects: Vec<ProjectName>,
}

/// Writes a CAR file to `output`. Blocks. `private` takes along what came from private indexes.
///
/// What goes while it is being written is named in the outcome as `missing`, and so is what is damaged.
pub(in crate::daemon) fn export(
    rooms: &Rooms,
    chosen: Chosen,
    private: bool,
    output: &mut dyn Write,
    progress: &mut dyn FnMut(Value),
) -> Result<Value, CarryError> {
    if chosen.projects.len() > MOST_FILES || chosen.artifacts.len() > MOST_FILES {
        return Err(CarryError::TooMany);
    }
    let mut kept_back = 0_u64;
    let mut listing = Listing::default();
    for name in chosen.projects {
        let Some(page) = rooms.resolve.stored_page(&name)? else { continue };
        if page.access == Access::Private && !private {
            kept_back += 1;
            continue;
        }
        listing.page(&page);
    }
    let mut seen = HashSet::new();
    for sha256 in chosen.artifacts {
        let Some(found) = rooms.store.describe(&sha256.digest())?.filter(|_| seen.insert(sha256)) else {
            continue;
        };
        if found.private && !private {
            kept_back += 1;
            continue;
        }
        listing.artifact(found);
    }
    let listing = listing.finish();
    let (manifest, manifest_bytes) = block(&listing.manifest(rooms.clock.now().0));
    let mut roots = vec![manifest];
    if listing.artifacts <= MOST_ROOTS as u64 {
        roots.extend(listing.parts.iter().flat_map(|(part, _)| part.artifacts.iter().map(|a| a.root.0)));
    }
    let mut writer = Writer { output, bytes: 0 };
    writer.write(&car::header(&roots))?;
    writer.block(&manifest, &manifest_bytes)?;
    let (mut done, mut done_bytes, mut missing, mut missing_count) = (0, 0, Vec::new(), 0_u64);
    let mut miss = |about: Value| {
        missing_count += 1;
        if missing.len() < MOST_NAMED {
            missing.push(about);
        }
    };
    for (part, cid) in &listing.parts {
        writer.block(cid, &block(part).1)?;
        for page in &part.pages {
            if !carry_page(rooms, page, &mut writer)? {
                miss(json!({"page": page.name, "what": "it changed meanwhile"}));
            }
        }
        for artifact in &part.artifacts {
            if let Err(what) = carry_artifact(rooms, artifact, &mut writer)? {
                let digest = format!("sha256:{}", Sha256(artifact.sha256));
                miss(json!({"digest": digest, "filename": artifact.filename, "what": what}));
                continue;
            }
            done += 1;
            done_bytes += artifact.size;
            progress(json!({
                "artifacts": done, "of": listing.artifacts, "bytes": done_bytes, "of_bytes": listing.artifact_bytes,
            }));
        }
    }
    writer.output.flush().map_err(CarryError::Write)?;
    Ok(json!({
        "cid": manifest.to_string(), "artifacts": done, "artifact_bytes": done_bytes, "pages": listing.pages,
        "bytes": writer.bytes, "kept_back": kept_back, "missing": missing, "missing_count": missing_count,
    }))
}

/// Writes a page; `false` when it is no longer what was listed.
fn carry_page(rooms: &Rooms, entry: &PageEntry, writer: &mut Writer<'_>) -> Result<bool, CarryError> {
    let Ok(name) = ProjectName::normalise(&entry.name) else { return Ok(false) };
    let Some(page) = rooms.resolve.stored_page(&name)? else { return Ok(false) };
    let layout = layout(&page.body);
    if layout.tree().0 != entry.root.0 {
        return Ok(false);
    }
    let written = writer.file(&layout, |offset, length| {
        let offset = usize::try_from(offset).ok()?;
        page.body.get(offset..offset + usize::try_from(length).ok()?).map(<[u8]>::to_vec)
    })?;
    Ok(written)
}

/// Writes an artifact, or says why it cannot be.
fn carry_artifact(
    rooms: &Rooms,
    entry: &ArtifactEntry,
    writer: &mut Writer<'_>,
) -> Result<Result<(), &'static str>, CarryError> {
    let sha256 = Sha256(entry.sha256);
    let (stored, leaves) = (rooms.store.find(&sha256.digest())?, rooms.store.leaves(&sha256)?);
    let (Some(stored), Some(leaves)) = (stored, leaves) else { return Ok(Err("it is stored no more")) };
    let layout = Layout { size: stored.size, leaves };
    let written = writer.file(&layout, |offset, length| {
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        let got = stored.read(&mut bytes, offset).ok()?;
        (got == bytes.len()).then_some(bytes)
    })?;
    Ok(if written { Ok(()) } else { Err("it is damaged: `dpm verify` takes it out") })
}

struct Writer<'a> {
    output: &'a mut dyn Write,
    bytes: u64,
}

impl Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<(), CarryError> {
        self.bytes += bytes.len() as u64;
        self.output.write_all(bytes).map_err(CarryError::Write)
    }

    fn block(&mut self, cid: &Cid, bytes: &[u8]) -> Result<(), CarryError> {
        self.write(&car::section(cid, bytes.len() as u64))?;
        self.write(bytes)
    }

    /// Writes a file's blocks, depth first; `false` when a leaf cannot be read or is not what it should be, after which
    /// the file stays unfinished.
    fn file(
        &mut self,
        layout: &Layout,
        read: impl Fn(u64, u64) -> Option<Vec<u8>>,
    ) -> Result<bool, CarryError> {
        let (root, nodes) = layout.tree();
        let nodes: HashMap<Cid, Vec<u8>> = nodes.into_iter().map(|node| (node.cid, node.bytes)).collect();
        let mut waiting = vec![(root, 0)];
        while let Some((cid, at)) = waiting.pop() {
            if let Some(node) = nodes.get(&cid) {
                self.block(&cid, node)?;
                let mut below = at;
                let children = children(node).unwrap_or_default();
                let placed: Vec<_> = children
                    .into_iter()
                    .map(|(cid, length)| {
                        below += length;
                        (cid, below - length)
                    })
                    .collect();
                waiting.extend(placed.into_iter().rev());
                continue;
            }
            let n = usize::try_from(at / CHUNK_BYTES).expect("a chunk's number");
            let (offset, length) = layout.span(n);
            match read(offset, length).filter(|bytes| Sha256::of(bytes) == layout.leaves[n]) {
                Some(bytes) => self.block(&cid, &bytes)?,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}

fn layout(bytes: &[u8]) -> Layout {
    let mut layout = LayoutBuilder::default();
    layout.update(bytes);
    layout.finish()
}

/// What the parts say.
#[derive(Default)]
struct Listing {
    parts: Vec<(Part, Cid)>,
    open: Part,
    /// Of what is open, by a generous estimate.
    open_bytes: usize,
    artifacts: u64,
    artifact_bytes: u64,
    pages: u64,
}

/// Longest URL that is taken along.
const URL_BYTES: usize = 8 << 10;

/// Bytes of an entry without its texts.
const ENTRY_BYTES: usize = 128;

impl Listing {
    fn page(&mut self, page: &Carried) {
        let root = Link(layout(&page.body).tree().0);
        let entry = PageEntry {
            root,
            size: page.body.len() as u64,
            name: page.name.to_string(),
            upstream: page.upstream.clone(),
            url: page.url.clone(),
            checked_at: page.checked_at,
            private: page.access == Access::Private,
        };
        self.pages += 1;
        let bytes = entry.name.len() + entry.upstream.len() + entry.url.len();
        self.open.pages.push(entry);
        self.grow(bytes);
    }

    fn artifact(&mut self, found: Description) {
        let Some(root) = found.root else { return };
        let digests: Vec<_> =
            found.digests.iter().filter(|d| d.is_strong()).map(ToString::to_string).collect();
        let entry = ArtifactEntry {
            root: Link(root),
            size: found.size,
            sha256: found.sha256.0,
            digests,
            filename: found.filename,
            upstream: found.upstream,
            // For people only: one that is out of all bounds is left out.
            url: Some(found.url).filter(|url| url.len() <= URL_BYTES).unwrap_or_default(),
            private: found.private,
        };
        self.artifacts += 1;
        self.artifact_bytes += found.size;
        let texts = entry.digests.iter().map(String::len).sum::<usize>();
        let bytes = texts + entry.filename.len() + entry.upstream.len() + entry.url.len();
        self.open.artifacts.push(entry);
        self.grow(bytes);
    }

    fn grow(&mut self, bytes: usize) {
        self.open_bytes += bytes + ENTRY_BYTES;
        if self.open_bytes >= PART_BYTES {
            self.close();
        }
    }

    fn close(&mut self) {
        let part = std::mem::take(&mut self.open);
        self.open_bytes = 0;
        let (cid, _) = block(&part);
        self.parts.push((part, cid));
    }

    fn finish(mut self) -> Self {
        if self.open != Part::default() {
            self.close();
        }
        self
    }

    fn manifest(&self, made_at: u64) -> Manifest {
        Manifest {
            kind: KIND.to_owned(),
            version: VERSION,
            made_at,
            artifacts: self.artifacts,
            artifact_bytes: self.artifact_bytes,
            pages: self.pages,
            parts: self.parts.iter().map(|(_, cid)| Link(*cid)).collect(),
        }
    }
}
