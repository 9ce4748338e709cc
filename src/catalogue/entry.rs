//! An entry: one file of a package, or one tag of an image, and all that a mirror needs to serve it by name.

use crate::base::cbor::{CborError, CborReader, CborWriter};
use crate::base::limits::{ARTIFACT_BYTES, CHUNK_BYTES};
use crate::base::{
    Algorithm, Cid, Digest, PackageUrl, PackageUrlError, Sha256, dag_pb_cid, raw_cid, sha256_of_cid,
};

/// Longest entry in bytes, encoded, with what later versions may add.
pub const MOST_ENTRY_BYTES: usize = 4096;

/// Longest file name in bytes: what file systems take.
pub const MOST_FILE_BYTES: usize = 255;

/// Longest `Requires-Python` or reason for a withdrawal in bytes: real ones stay under 200.
const MOST_TEXT_BYTES: usize = 512;

/// Longest upload time, or media type, in bytes.
const MOST_WORD_BYTES: usize = 128;

/// Largest time of first sight: integers that a JSON reader can hold, too.
const MOST_TIME: u64 = (1 << 53) - 1;

/// Digests of an entry: one for each strong algorithm.
const MOST_DIGESTS: usize = 3;

/// One file of a package, or one tag of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The package with its version; for images, whose files belong to no one version, without.
    pub purl: PackageUrl,
    /// The file's name. Of an image: a digest as registries write it, or a tag, whose digests are its manifest's.
    pub file: String,
    /// In bytes.
    pub size: u64,
    /// Root of the file as IPFS has it: the `unixfs-v1-2025` layout, one raw block up to 1 MiB.
    pub root: Cid,
    /// Strong digests, the weakest first, one of each kind, at least one. A raw root says a SHA-256: it is here too.
    pub digests: Vec<Digest>,
    /// What the upstream's index says of it.
    pub facts: Facts,
    /// When the node first had it, in seconds since 1970.
    pub first_seen: Option<u64>,
}

/// What an upstream's index says of a file, and a client wants to know when the upstream is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// PyPI: strongest digest of the metadata file beside it (PEP 658).
    pub core_metadata: Option<Digest>,
    /// Images: media type of a manifest; what has none is a blob.
    pub media_type: Option<String>,
    /// PyPI: `Requires-Python`.
    pub requires_python: Option<String>,
    /// PyPI: when it was uploaded, as the index wrote it (PEP 700).
    pub upload_time: Option<String>,
    /// PyPI: withdrawn, for this reason, which may be empty (PEP 592).
    pub yanked: Option<String>,
}

impl Entry {
    /// What orders entries and names them.
    pub fn key(&self) -> (&str, &str) {
        (self.purl.as_str(), &self.file)
    }

    /// The SHA-256 of the file, when it is known.
    pub fn sha256(&self) -> Option<Sha256> {
        self.digests.iter().find_map(Digest::sha256)
    }

    /// Whether both speak of one file and not certainly of the same bytes: then one of the two is wrong, and neither is
    /// to be served. The layout is prescribed, so another root is another file; and one who states a digest of a kind
    /// that nobody else states has shown nothing: they must have one in common.
    pub fn contradicts(&self, other: &Self) -> bool {
        let differ = |a: &Digest, b: &Digest| a.algorithm() == b.algorithm() && a != b;
        self.key() == other.key()
            && (self.size != other.size
                || self.root != other.root
                || !self.digests.iter().any(|digest| other.digests.contains(digest))
                || self.digests.iter().any(|a| other.digests.iter().any(|b| differ(a, b))))
    }

    /// Appends it, as DAG-CBOR: a map whose keys are letters.
    pub(super) fn write(&self, out: &mut CborWriter) {
        let implied = sha256_of_root(&self.root).map(|sha256| sha256.digest());
        let digests = self.digests.iter().filter(|digest| Some(**digest) != implied);
        let digests: Vec<Vec<u8>> = digests.map(Digest::to_multihash).collect();
        let facts = &self.facts;
        let metadata = facts.core_metadata.as_ref().map(Digest::to_multihash);
        let texts = [&facts.media_type, &facts.requires_python, &facts.upload_time, &facts.yanked];
        let optional = [self.first_seen.is_some(), metadata.is_some(), !digests.is_empty()];
        let count = optional.into_iter().chain(texts.map(Option::is_some)).filter(|there| *there).count();
        let text = |out: &mut CborWriter, key: &str, text: &Option<String>| {
            if let Some(text) = text {
                out.text(key).text(text);
            }
        };
        out.map(count + 4);
        if let Some(seconds) = self.first_seen {
            out.text("a").uint(seconds);
        }
        if let Some(metadata) = metadata {
            out.text("c").bytes(&metadata);
        }
        if !digests.is_empty() {
            out.text("d").array(digests.len());
            for digest in digests {
                out.bytes(&digest);
            }
        }
        out.text("f").text(&self.file);
        text(out, "m", &facts.media_type);
        out.text("p").text(self.purl.as_str());
        text(out, "q", &facts.requires_python);
        out.text("r").cid(&self.root);
        out.text("s").uint(self.size);
        text(out, "t", &facts.upload_time);
        text(out, "y", &facts.yanked);
    }

    /// Reads one. Keys that are unknown are passed over.
    pub(super) fn read(reader: &mut CborReader<'_>) -> Result<Self, EntryError> {
        Self::read_of(None, reader)
    }

    /// The same; where it is of this package, its URL is not parsed again.
    fn read_of(known: Option<&PackageUrl>, reader: &mut CborReader<'_>) -> Result<Self, EntryError> {
        let start = reader.position();
        let (mut purl, mut file, mut size, mut root, mut first_seen) = (None, None, None, None, None);
        let (mut digests, mut facts) = (Vec::new(), Facts::default());
        let mut map = reader.map()?;
        while let Some(key) = map.key(reader, CborReader::text)? {
            match key {
                "a" => first_seen = Some(reader.uint()?),
                "c" => facts.core_metadata = Some(digest(reader)?),
                "d" => {
                    let count = reader.array()?;
                    if !(1..=MOST_DIGESTS).contains(&count) {
                        return Err(EntryError::Digests("none, or more than there are kinds"));
                    }
                    digests = (0..count).map(|_| digest(reader)).collect::<Result<Vec<_>, _>>()?;
                }
                "f" => file = Some(reader.text()?.to_owned()),
                "m" => facts.media_type = Some(reader.text()?.to_owned()),
                "p" => {
                    let text = reader.text()?;
                    let known = known.filter(|known| known.as_str() == text);
                    purl = Some(known.map_or_else(|| PackageUrl::parse(text), |known| Ok(known.clone()))?);
                }
                "q" => facts.requires_python = Some(reader.text()?.to_owned()),
                "r" => root = Some(reader.cid()?),
                "s" => size = Some(reader.uint()?),
                "t" => facts.upload_time = Some(reader.text()?.to_owned()),
                "y" => facts.yanked = Some(reader.text()?.to_owned()),
                _ => reader.skip()?,
            }
        }
        if reader.position() - start > MOST_ENTRY_BYTES {
            return Err(EntryError::TooLong(reader.position() - start));
        }
        let root = root.ok_or(EntryError::Missing("root (r)"))?;
        if let Some(implied) = sha256_of_root(&root) {
            if digests.iter().any(|digest| digest.sha256().is_some()) {
                return Err(EntryError::Digests("a SHA-256 that its raw root says already"));
            }
            digests.insert(0, implied.digest());
        }
        let entry = Self {
            purl: purl.ok_or(EntryError::Missing("package URL (p)"))?,
            file: file.ok_or(EntryError::Missing("file (f)"))?,
            size: size.ok_or(EntryError::Missing("size (s)"))?,
            root,
            digests,
            facts,
            first_seen,
        };
        entry.check()?;
        Ok(entry)
    }

    /// Whether it keeps the rules: what is read does, what is built must.
    pub fn check(&self) -> Result<(), EntryError> {
        if !is_file(&self.file) {
            return Err(EntryError::File);
        }
        if self.size > ARTIFACT_BYTES {
            return Err(EntryError::Size(self.size));
        }
        let sha256 = sha256_of_cid(&self.root).ok_or(EntryError::Root("not by SHA-256"))?;
        if raw_cid(sha256) == self.root {
            if self.size > CHUNK_BYTES {
                return Err(EntryError::Root("one raw block above 1 MiB"));
            }
            if self.sha256() != Some(sha256) {
                return Err(EntryError::Root("a raw block of another SHA-256"));
            }
        } else if dag_pb_cid(sha256) != self.root {
            return Err(EntryError::Root("no CIDv1 of a raw or dag-pb block"));
        }
        if self.digests.is_empty() {
            return Err(EntryError::Digests("none"));
        }
        if !self.digests.iter().all(Digest::is_strong) {
            return Err(EntryError::Digests("a weak one"));
        }
        let kinds: Vec<Algorithm> = self.digests.iter().map(Digest::algorithm).collect();
        if !kinds.is_sorted_by(|a, b| a < b) {
            return Err(EntryError::Digests("out of order, or two of a kind"));
        }
        let facts = &self.facts;
        let texts = [
            ("media type (m)", &facts.media_type, MOST_WORD_BYTES),
            ("requires-python (q)", &facts.requires_python, MOST_TEXT_BYTES),
            ("upload time (t)", &facts.upload_time, MOST_WORD_BYTES),
            ("reason of withdrawal (y)", &facts.yanked, MOST_TEXT_BYTES),
        ];
        for (what, text, most) in texts {
            if text.as_ref().is_some_and(|t| t.len() > most || t.contains(char::is_control)) {
                return Err(EntryError::Text(what));
            }
        }
        if facts.core_metadata.is_some_and(|digest| !digest.is_strong()) {
            return Err(EntryError::Digests("a weak one of the metadata"));
        }
        if self.first_seen.is_some_and(|seconds| seconds > MOST_TIME) {
            return Err(EntryError::Time);
        }
        Ok(())
    }
}

/// Where an entry stands in a block, its key read and the rest only checked for its form.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawEntry<'b> {
    pub(super) purl: &'b str,
    pub(super) file: &'b str,
    /// All of it.
    pub(super) bytes: &'b [u8],
}

impl<'b> RawEntry<'b> {
    /// Reads the next one of `block`, which `reader` reads.
    pub(super) fn read(reader: &mut CborReader<'b>, block: &'b [u8]) -> Result<Self, EntryError> {
        let start = reader.position();
        let (mut purl, mut file) = (None, None);
        let mut map = reader.map()?;
        while let Some(key) = map.key(reader, CborReader::text)? {
            match key {
                "f" => file = Some(reader.text()?),
                "p" => purl = Some(reader.text()?),
                _ => reader.skip()?,
            }
        }
        Ok(Self {
            purl: purl.ok_or(EntryError::Missing("package URL (p)"))?,
            file: file.ok_or(EntryError::Missing("file (f)"))?,
            bytes: &block[start..reader.position()],
        })
    }

    pub(super) fn key(&self) -> (&'b str, &'b str) {
        (self.purl, self.file)
    }

    pub(super) fn entry(&self) -> Result<Entry, EntryError> {
        Entry::read(&mut CborReader::new(self.bytes))
    }

    /// The same, of a package that is known to be valid.
    pub(super) fn entry_of(&self, purl: &PackageUrl) -> Result<Entry, EntryError> {
        Entry::read_of(Some(purl), &mut CborReader::new(self.bytes))
    }
}

/// Entries one after the other, as an announcement carries them.
pub fn list(entries: &[Entry], out: &mut CborWriter) {
    out.array(entries.len());
    for entry in entries {
        entry.write(out);
    }
}

/// Reads what [`list`] wrote; `most` entries at most.
pub fn read_list(reader: &mut CborReader<'_>, most: usize) -> Result<Vec<Entry>, EntryError> {
    let count = reader.array()?;
    if count > most {
        return Err(EntryError::TooMany(most));
    }
    (0..count).map(|_| Entry::read(reader)).collect()
}

/// A raw block is the file, so its hash is the file's.
fn sha256_of_root(root: &Cid) -> Option<Sha256> {
    sha256_of_cid(root).filter(|hash| raw_cid(*hash) == *root)
}

fn digest(reader: &mut CborReader<'_>) -> Result<Digest, EntryError> {
    Digest::from_multihash(reader.bytes()?).ok_or(EntryError::Digests("no multihash that dpm knows"))
}

/// A segment of a path that is harmless anywhere: no separator, no control character, no leading dot.
fn is_file(name: &str) -> bool {
    let harmless = |c: char| !c.is_control() && !matches!(c, '/' | '\\');
    (1..=MOST_FILE_BYTES).contains(&name.len()) && !name.starts_with('.') && name.chars().all(harmless)
}

/// What is wrong with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not deterministic CBOR, or a value of the wrong kind.
    #[error(transparent)]
    Cbor(#[from] CborError),
    /// Longer than [`MOST_ENTRY_BYTES`].
    #[error("{0} bytes, {MOST_ENTRY_BYTES} are allowed")]
    TooLong(usize),
    /// More entries than a list may have.
    #[error("more than {0} entries")]
    TooMany(usize),
    /// A field that must be there.
    #[error("no {0}")]
    Missing(&'static str),
    /// The package URL is none.
    #[error(transparent)]
    Purl(#[from] PackageUrlError),
    /// A name that is a path, hidden, empty or too long.
    #[error("a file name that is none")]
    File,
    /// Larger than any artifact.
    #[error("a size of {0} bytes, {ARTIFACT_BYTES} are allowed")]
    Size(u64),
    /// A root that no file of this kind has.
    #[error("its root: {0}")]
    Root(&'static str),
    /// Digests that vouch for nothing or say things twice.
    #[error("its digests: {0}")]
    Digests(&'static str),
    /// Too long, or with control characters.
    #[error("its {0} is too long or not a text")]
    Text(&'static str),
    /// A time after the end of integers.
    #[error("its time of first sight is none")]
    Time,
}
