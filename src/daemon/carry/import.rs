//! Takes in what an export carries: file by file, each whole and verified or not at all.
//!
//! A damaged block costs the file that it belongs to; what follows is found again by the next file's root. What is
//! stored already is read past, so an import that was broken off is taken up by running it again.

use std::io::{self, Read};

use serde_json::{Value, json};

use crate::base::{Access, Cid, Digest, Hasher, Sha256};
use crate::daemon::Rooms;
use crate::eco::pypi::ProjectName;
use crate::resolve::{Adopted, Carried};
use crate::store::{Facts, Incoming, StoreError};
use crate::unixfs::car::{Block, CarError, Reader};
use crate::unixfs::{Content, LayoutBuilder, MOST_DEPTH, content};

use super::{
    ArtifactEntry, CarryError, DAG_CBOR, KIND, MOST_NAMED, Manifest, PAGE_BYTES, PageEntry, Part, VERSION,
};

/// Digests of an artifact beside its SHA-256 that are looked at: there are two strong algorithms more.
const MOST_DIGESTS: usize = 4;

/// Longest text about an artifact that is kept.
const TEXT_BYTES: usize = 2048;

/// Reads an export from `input`. Blocks. With `names` its index pages are taken over, too.
///
/// An error where nothing could be taken in at all; otherwise the outcome, whose `broken` says why it ended early and
/// whose `refused` what was not as it should be.
pub(in crate::daemon) fn import(
    rooms: &Rooms,
    names: bool,
    input: &mut dyn Read,
    progress: &mut dyn FnMut(Value),
) -> Result<Value, CarryError> {
    let mut blocks = Blocks { reader: Reader::open(input)?, waiting: None };
    let manifest = manifest(&mut blocks)?;
    let budget = rooms.store.space()?.budget_bytes;
    if manifest.artifact_bytes > budget {
        return Err(CarryError::Budget { bytes: manifest.artifact_bytes, budget });
    }
    let mut import =
        Import { rooms, names, blocks, tally: Tally::default(), progress, of: manifest.artifacts };
    let broken = import.parts(&manifest).err();
    let Tally {
        artifacts,
        artifact_bytes,
        known,
        pages,
        pages_known,
        pages_passed,
        unusable,
        unusable_count,
        refused,
        named,
    } = import.tally;
    let missing = manifest.artifacts.saturating_sub(artifacts + known + refused.artifacts);
    let broken = broken.map(|why| why.to_string()).or_else(|| {
        (missing > 0).then(|| format!("{missing} artifacts of its list are not in the file: it is not whole"))
    });
    Ok(json!({
        "made_at": manifest.made_at, "artifacts": artifacts, "artifact_bytes": artifact_bytes, "known": known,
        "pages": pages, "pages_known": pages_known, "pages_passed": pages_passed,
        "pages_unusable": unusable, "pages_unusable_count": unusable_count,
        "refused": named, "refused_count": refused.artifacts + refused.others, "broken": broken,
    }))
}

/// Reads the first root.
fn manifest(blocks: &mut Blocks<impl Read>) -> Result<Manifest, CarryError> {
    let root = blocks.reader.roots().first().copied().filter(|cid| cid.codec() == DAG_CBOR);
    let root = root.ok_or(CarryError::NotOurs("its first root is no manifest"))?;
    let block = blocks.next()?.filter(|b| b.cid == root);
    let block = block.ok_or(CarryError::NotOurs("it does not begin with its first root"))?;
    block.verify()?;
    // Kind and version come first, and stay: a later version's other fields may be anything.
    let head = (|| {
        let mut cbor = minicbor::Decoder::new(&block.data);
        cbor.array()?;
        Ok::<_, minicbor::decode::Error>((cbor.str()?, cbor.u32()?))
    })();
    match head {
        Ok((KIND, VERSION)) => {}
        Ok((KIND, newer)) if newer > VERSION => return Err(CarryError::Newer(newer)),
        _ => return Err(CarryError::NotOurs("its first root is no manifest")),
    }
    minicbor::decode(&block.data).map_err(|_| CarryError::NotOurs("its manifest cannot be read"))
}

#[derive(Default)]
struct Refused {
    artifacts: u64,
    others: u64,
}

/// What has become of it all.
#[derive(Default)]
struct Tally {
    artifacts: u64,
    artifact_bytes: u64,
    /// Stored before.
    known: u64,
    pages: u64,
    pages_known: u64,
    /// Not asked for.
    pages_passed: u64,
    unusable: Vec<Value>,
    unusable_count: u64,
    refused: Refused,
    named: Vec<Value>,
}

struct Import<'a, R: Read> {
    rooms: &'a Rooms,
    names: bool,
    blocks: Blocks<R>,
    tally: Tally,
    progress: &'a mut dyn FnMut(Value),
    of: u64,
}

/// Why a file, or all the rest, is not taken.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// This file is not as it should be; the next one may be.
    #[error("{0}")]
    File(String),
    /// Nothing more can be read.
    #[error("{0}")]
    Car(CarError),
    /// The file ends before this.
    #[error("the CAR file ends before {0}")]
    Ended(String),
    /// Nothing more can be stored.
    #[error("{0}; what was taken in stays: make room and import it again")]
    Full(String),
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
}

impl From<CarError> for Trouble {
    fn from(e: CarError) -> Self {
        match e {
            // The next section can still be found.
            CarError::WrongBlock { .. } | CarError::UnknownHash { .. } => Self::File(e.to_string()),
            e => Self::Car(e),
        }
    }
}

impl<R: Read> Import<'_, R> {
    fn parts(&mut self, manifest: &Manifest) -> Result<(), Trouble> {
        for (n, link) in manifest.parts.iter().enumerate() {
            let next = manifest.parts.get(n + 1).map(|l| l.0);
            let part = match self.part(&link.0) {
                Ok(part) => part,
                Err(Trouble::File(what)) => {
                    self.refuse(json!({"what": format!("a part of the manifest: {what}")}));
                    self.tally.refused.others += 1;
                    self.blocks.skip_to(next)?;
                    continue;
                }
                Err(e) => return Err(e),
            };
            // What follows each file, so that it is found again behind a damaged one.
            let roots = part.pages.iter().map(|p| p.root.0).chain(part.artifacts.iter().map(|a| a.root.0));
            let mut following = roots.skip(1).map(Some).chain([next]).collect::<Vec<_>>().into_iter();
            for page in &part.pages {
                let next = following.next().flatten();
                if let Err(e) = self.page(page) {
                    self.pass(e, json!({"page": page.name}), next)?;
                    self.tally.refused.others += 1;
                }
            }
            for artifact in &part.artifacts {
                let next = following.next().flatten();
                if let Err(e) = self.artifact(artifact) {
                    let digest = format!("sha256:{}", Sha256(artifact.sha256));
                    self.pass(e, json!({"digest": digest, "filename": plain(&artifact.filename)}), next)?;
                    self.tally.refused.artifacts += 1;
                }
                let Tally { artifacts, known, artifact_bytes, .. } = &self.tally;
                (self.progress)(
                    json!({"artifacts": artifacts + known, "of": self.of, "bytes": artifact_bytes}),
                );
            }
        }
        Ok(())
    }

    /// Goes on behind a file that is refused; an error where that is not possible.
    fn pass(&mut self, trouble: Trouble, mut about: Value, next: Option<Cid>) -> Result<(), Trouble> {
        let Trouble::File(what) = trouble else {
            return Err(trouble);
        };
        about["what"] = what.into();
        self.refuse(about);
        self.blocks.skip_to(next)
    }

    fn refuse(&mut self, about: Value) {
        if self.tally.named.len() < MOST_NAMED {
            self.tally.named.push(about);
        }
    }

    fn part(&mut self, cid: &Cid) -> Result<Part, Trouble> {
        let block = self.blocks.expect(cid, "a part of its manifest")?;
        block.verify()?;
        minicbor::decode(&block.data).map_err(|e| Trouble::File(format!("{cid} cannot be read: {e}")))
    }

    fn page(&mut self, entry: &PageEntry) -> Result<(), Trouble> {
        let take = self.names && entry.size <= PAGE_BYTES;
        let mut body = Vec::new();
        self.blocks.file(&entry.root.0, entry.size, &mut |bytes| {
            if take {
                body.extend_from_slice(bytes);
            }
            Ok(())
        })?;
        if !self.names {
            self.tally.pages_passed += 1;
            return Ok(());
        }
        let name = ProjectName::normalise(&entry.name).ok().filter(|name| name.as_str() == entry.name);
        let Some(name) = name.filter(|_| take) else {
            return Err(Trouble::File("it is no page of a project".into()));
        };
        let access = if entry.private { Access::Private } else { Access::Public };
        let adopted = self.rooms.resolve.adopt(Carried {
            name,
            upstream: plain(&entry.upstream),
            url: entry.url.clone(),
            checked_at: entry.checked_at,
            access,
            body,
        });
        let mut unusable = |what: &str| {
            self.tally.unusable_count += 1;
            if self.tally.unusable.len() < MOST_NAMED {
                let url = plain(&entry.url);
                self.tally.unusable.push(json!({"page": entry.name, "url": url, "what": what}));
            }
        };
        match adopted.map_err(full)? {
            Adopted::Taken => self.tally.pages += 1,
            Adopted::Known => self.tally.pages_known += 1,
            Adopted::NoIndex => unusable("no index with this address is configured here"),
            Adopted::Owned => unusable("the name belongs to another index here"),
            Adopted::NotThePage => return Err(Trouble::File("it is no page of this project".into())),
        }
        Ok(())
    }

    fn artifact(&mut self, entry: &ArtifactEntry) -> Result<(), Trouble> {
        let sha256 = Sha256(entry.sha256);
        if self.rooms.store.find(&sha256.digest())?.is_some() {
            self.blocks.file(&entry.root.0, entry.size, &mut |_| Ok(()))?;
            self.tally.known += 1;
            return Ok(());
        }
        let incoming = self.rooms.store.begin(Some(entry.size)).map_err(full)?;
        let mut taking = Taking::new(entry, &incoming);
        self.blocks.file(&entry.root.0, entry.size, &mut |bytes| taking.take(bytes))?;
        let facts = taking.finish(entry)?;
        self.rooms.store.commit(incoming, facts).map_err(full)?;
        self.tally.artifacts += 1;
        self.tally.artifact_bytes += entry.size;
        Ok(())
    }
}

/// An artifact on its way in.
struct Taking<'a> {
    incoming: &'a Incoming,
    ours: Hasher,
    /// What the manifest says of other digests, and what they are.
    others: Vec<(Digest, Hasher)>,
    layout: LayoutBuilder,
    at: u64,
}

impl<'a> Taking<'a> {
    fn new(entry: &ArtifactEntry, incoming: &'a Incoming) -> Self {
        let stated = entry.digests.iter().take(MOST_DIGESTS).filter_map(|d| d.parse::<Digest>().ok());
        let others = stated.filter(|d| d.is_strong() && d.sha256().is_none());
        Self {
            incoming,
            ours: Hasher::new(crate::base::Algorithm::Sha256),
            others: others.map(|d| (d, Hasher::new(d.algorithm()))).collect(),
            layout: LayoutBuilder::default(),
            at: 0,
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.ours.update(bytes);
        self.others.iter_mut().for_each(|(_, hasher)| hasher.update(bytes));
        self.layout.update(bytes);
        self.incoming.write(bytes, self.at).map_err(|e| Trouble::Full(format!("storing it failed: {e}")))?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// What it turned out to be, which is what the manifest says, or it is refused.
    fn finish(self, entry: &ArtifactEntry) -> Result<Facts, Trouble> {
        let want = Sha256(entry.sha256);
        let got = self.ours.finish();
        if got != want.digest() {
            return Err(Trouble::File(format!("its blocks are {got} together, sha256:{want} was promised")));
        }
        let mut digests = Vec::new();
        for (want, hasher) in self.others {
            let got = hasher.finish();
            if got != want {
                return Err(Trouble::File(format!("it has the digest {got}, {want} was promised")));
            }
            digests.push(want);
        }
        Ok(Facts {
            sha256: want,
            digests,
            layout: self.layout.finish(),
            access: if entry.private { Access::Private } else { Access::Public },
            upstream: plain(&entry.upstream),
            url: plain(&entry.url),
            filename: plain(&entry.filename),
            pin_name: None,
        })
    }
}

/// The blocks of the CAR file in their order.
struct Blocks<R: Read> {
    reader: Reader<R>,
    /// Read, and not what was wanted.
    waiting: Option<Block>,
}

impl<R: Read> Blocks<R> {
    fn next(&mut self) -> Result<Option<Block>, CarError> {
        match self.waiting.take() {
            Some(block) => Ok(Some(block)),
            None => self.reader.next_block(),
        }
    }

    /// The next block, which must be this one; another one waits.
    fn expect(&mut self, cid: &Cid, what: &str) -> Result<Block, Trouble> {
        let Some(block) = self.next()? else { return Err(Trouble::Ended(format!("{cid}, {what}"))) };
        if block.cid == *cid {
            return Ok(block);
        }
        let text = format!("byte {} of the CAR file: {} stands where {cid} should", block.at, block.cid);
        self.waiting = Some(block);
        Err(Trouble::File(text))
    }

    /// Reads past blocks up to this one, or to the end.
    fn skip_to(&mut self, cid: Option<Cid>) -> Result<(), Trouble> {
        while let Some(block) = self.next()? {
            if Some(block.cid) == cid {
                self.waiting = Some(block);
                break;
            }
        }
        Ok(())
    }

    /// The bytes of a file of `size` bytes, depth first, each block verified.
    fn file(
        &mut self,
        root: &Cid,
        size: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        // Never longer than the file's own layout: a child has at least one byte of it.
        let mut waiting = vec![(*root, size, 0)];
        while let Some((cid, length, depth)) = waiting.pop() {
            let block = self.expect(&cid, "which is listed")?;
            block.verify()?;
            let wrong = |e: &dyn std::fmt::Display| {
                Trouble::File(format!("byte {} of the CAR file: {cid}: {e}", block.at))
            };
            let content = content(&block.data, cid.codec()).map_err(|e| wrong(&e))?;
            if content.content_bytes() != length {
                return Err(wrong(&format!(
                    "it is {} bytes of a file, not {length}",
                    content.content_bytes()
                )));
            }
            match content {
                Content::Leaf(bytes) => take(bytes)?,
                Content::Node { inline, children } if depth < MOST_DEPTH => {
                    take(inline)?;
                    let below = children.into_iter().rev();
                    waiting.extend(below.map(|child| (child.cid, child.content_bytes, depth + 1)));
                }
                Content::Node { .. } => return Err(wrong(&"too deep a file")),
            }
        }
        Ok(())
    }
}

/// A full disk ends an import with a word on what to do.
fn full(e: StoreError) -> Trouble {
    match e {
        StoreError::NoRoom { .. } => Trouble::Full(e.to_string()),
        StoreError::Io(_, _, ref io) if io.kind() == io::ErrorKind::StorageFull => {
            Trouble::Full(e.to_string())
        }
        e => Trouble::Store(e),
    }
}

/// A stranger's text as it may be kept and shown.
fn plain(text: &str) -> String {
    let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
    let mut end = text.len().min(TEXT_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}
