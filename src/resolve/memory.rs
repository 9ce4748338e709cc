//! What is kept in memory of pages, within bounds.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use lru::LruCache;

use crate::base::{Digest, Sha256};
use crate::eco::pypi::{FileWant, Form, Project, ProjectName};
use crate::rt::UnixMillis;
use crate::store::PageHead;

use super::PageKey;

/// Heads kept: some 300 bytes each, by estimate.
const HEADS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Bytes of rendered pages kept: what an office asks for in a day.
const RENDERED_BYTES: usize = 5 << 20;

/// Rendered pages kept, whatever their size.
const RENDERED: NonZeroUsize = NonZeroUsize::new(2048).expect("not zero");

/// Parsed projects kept: asked for file after file while one is installed.
const CONTENTS: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

/// Files of all parsed projects kept: some 1.5 kB each, by estimate. The largest real pages have 4,400.
const CONTENT_FILES: usize = 5_000;

/// Digests of metadata kept: some 250 bytes each, by estimate.
const METADATA: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// How long an upstream that failed for a page is not waited for again, when there is a stale page to serve.
pub(super) const FAILURE_REST: Duration = Duration::from_secs(10);

/// Compression of pages for clients. Measured on the pages of 68 real projects: 1 makes them half as large again (9.2
/// instead of 6.2 MB) and saves a fifth of the CPU of serving them the first time.
const GZIP_LEVEL: Compression = Compression::new(3);

/// Pages below this go out as they are: a header's worth is all that gzip could save.
const GZIP_FROM_BYTES: usize = 512;

/// The bytes of a page in one form.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendered {
    /// As sent.
    pub body: Bytes,
    /// Whether `body` is gzip.
    pub gzip: bool,
    /// Entity tag, quoted: of these very bytes.
    pub etag: String,
}

impl Rendered {
    pub(super) fn new(body: Vec<u8>, gzip: bool) -> Self {
        let gzip = gzip && body.len() >= GZIP_FROM_BYTES;
        let body = if gzip { compress(&body) } else { body };
        let etag = format!("\"{}\"", &Sha256::of(&body).hex()[..32]);
        Self { body: body.into(), gzip, etag }
    }
}

fn compress(body: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut gzip = GzEncoder::new(Vec::with_capacity(body.len() / 4), GZIP_LEVEL);
    gzip.write_all(body).expect("memory takes every byte");
    gzip.finish().expect("memory takes every byte")
}

type RenderedKey = (PageKey, Form, bool);
type MetadataKey = (ProjectName, String, Option<Digest>);

/// What a page says.
#[derive(Clone)]
pub(super) enum Content {
    Project(Arc<Project>),
    /// The names of all projects, one a line.
    Names(Arc<str>),
}

impl Content {
    fn files(&self) -> usize {
        match self {
            Self::Project(project) => project.files.len(),
            Self::Names(_) => 0,
        }
    }

    /// The form that the store keeps.
    pub(super) fn to_stored(&self) -> Vec<u8> {
        match self {
            Self::Project(project) => project.to_stored(),
            Self::Names(names) => names.as_bytes().to_vec(),
        }
    }
}

/// Everything kept, behind one lock.
pub(super) struct Memory {
    heads: LruCache<PageKey, Entry>,
    rendered: LruCache<RenderedKey, (u64, Arc<Rendered>)>,
    rendered_bytes: usize,
    contents: LruCache<PageKey, (u64, Content)>,
    content_files: usize,
    metadata: LruCache<MetadataKey, Digest>,
}

#[derive(Default)]
struct Entry {
    head: Option<PageHead>,
    failed_at: Option<UnixMillis>,
    /// What the store does not have yet, or had no room for.
    unsaved: Option<(u64, Content)>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            heads: LruCache::new(HEADS),
            rendered: LruCache::new(RENDERED),
            rendered_bytes: 0,
            contents: LruCache::new(CONTENTS),
            content_files: 0,
            metadata: LruCache::new(METADATA),
        }
    }
}

impl Memory {
    pub(super) fn head(&mut self, key: &PageKey) -> Option<&PageHead> {
        self.heads.get(key)?.head.as_ref()
    }

    pub(super) fn learn(&mut self, key: &PageKey, head: PageHead) {
        let entry = self.heads.get_or_insert_mut(key.clone(), Entry::default);
        entry.head = Some(head);
        entry.failed_at = None;
    }

    /// Holds on to a page that the store does not have yet.
    pub(super) fn keep_unsaved(&mut self, key: &PageKey, revision: u64, content: Content) {
        self.heads.get_or_insert_mut(key.clone(), Entry::default).unsaved = Some((revision, content));
    }

    /// Says what became of it: where the store would not take it, it is the only one that stays. A full disk must
    /// not fill memory.
    pub(super) fn saved(&mut self, key: &PageKey, taken: bool) {
        for (of, entry) in self.heads.iter_mut() {
            if (of == key) == taken {
                entry.unsaved = None;
            }
        }
    }

    pub(super) fn fail(&mut self, key: &PageKey, at: UnixMillis) {
        self.heads.get_or_insert_mut(key.clone(), Entry::default).failed_at = Some(at);
    }

    pub(super) fn failed_lately(&self, key: &PageKey, now: UnixMillis) -> bool {
        let failed_at = self.heads.peek(key).and_then(|e| e.failed_at);
        failed_at.is_some_and(|at| now.since(at) < FAILURE_REST)
    }

    pub(super) fn forget(&mut self, key: &PageKey) {
        self.heads.pop(key);
        if let Some((_, content)) = self.contents.pop(key) {
            self.content_files -= content.files();
        }
        let same: Vec<_> = self.rendered.iter().map(|(k, _)| k).filter(|k| k.0 == *key).cloned().collect();
        for rendered_key in same {
            if let Some((_, old)) = self.rendered.pop(&rendered_key) {
                self.rendered_bytes -= old.body.len();
            }
        }
    }

    pub(super) fn rendered(
        &mut self,
        key: &PageKey,
        form: Form,
        gzip: bool,
        revision: u64,
    ) -> Option<Arc<Rendered>> {
        // The key is cloned for the look-up: a name of some ten bytes.
        let (of, rendered) = self.rendered.get(&(key.clone(), form, gzip))?;
        (*of == revision).then(|| rendered.clone())
    }

    pub(super) fn keep(&mut self, key: &PageKey, form: Form, gzip: bool, revision: u64, page: Arc<Rendered>) {
        if page.body.len() > RENDERED_BYTES / 2 {
            return;
        }
        self.rendered_bytes += page.body.len();
        if let Some((_, (_, old))) = self.rendered.push((key.clone(), form, gzip), (revision, page)) {
            self.rendered_bytes -= old.body.len();
        }
        while self.rendered_bytes > RENDERED_BYTES {
            let Some((_, (_, old))) = self.rendered.pop_lru() else { break };
            self.rendered_bytes -= old.body.len();
        }
    }

    pub(super) fn content(&mut self, key: &PageKey, revision: u64) -> Option<Content> {
        let unsaved = self.heads.peek(key).and_then(|e| e.unsaved.as_ref());
        let (of, content) = unsaved.or_else(|| self.contents.get(key))?;
        (*of == revision).then(|| content.clone())
    }

    pub(super) fn keep_content(&mut self, key: &PageKey, revision: u64, content: Content) {
        if matches!(content, Content::Names(_)) || content.files() > CONTENT_FILES {
            return;
        }
        self.content_files += content.files();
        if let Some((_, (_, old))) = self.contents.push(key.clone(), (revision, content)) {
            self.content_files -= old.files();
        }
        while self.content_files > CONTENT_FILES {
            let Some((_, (_, old))) = self.contents.pop_lru() else { break };
            self.content_files -= old.files();
        }
    }

    pub(super) fn metadata(&mut self, want: &FileWant) -> Option<Digest> {
        self.metadata.get(&metadata_key(want)).copied()
    }

    pub(super) fn keep_metadata(&mut self, want: &FileWant, digest: Digest) {
        self.metadata.put(metadata_key(want), digest);
    }
}

fn metadata_key(want: &FileWant) -> MetadataKey {
    (want.project.clone(), want.filename.clone(), want.digest)
}
