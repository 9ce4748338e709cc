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

/// Heads kept: about 300 bytes each.
const HEADS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// Bytes of rendered pages kept: what an office asks for in a day, and half of an idle node's memory.
const RENDERED_BYTES: usize = 8 << 20;

/// Rendered pages kept, whatever their size.
const RENDERED: NonZeroUsize = NonZeroUsize::new(2048).expect("not zero");

/// Parsed projects kept: asked for file after file while one is installed.
const PROJECTS: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

/// Files of all parsed projects kept: about 700 bytes each.
const PROJECT_FILES: usize = 10_000;

/// Digests of metadata kept: about 250 bytes each.
const METADATA: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// How long an upstream that failed for a page is not waited for again, when there is a stale page to serve.
const FAILURE_REST: Duration = Duration::from_secs(10);

/// Compression of pages for clients. Measured on a 4,400-file page: 6 takes three times as long and saves 9 %.
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

/// Everything kept, behind one lock.
pub(super) struct Memory {
    heads: LruCache<PageKey, Entry>,
    rendered: LruCache<RenderedKey, (u64, Arc<Rendered>)>,
    rendered_bytes: usize,
    projects: LruCache<PageKey, (u64, Arc<Project>)>,
    project_files: usize,
    metadata: LruCache<MetadataKey, Digest>,
}

#[derive(Default)]
struct Entry {
    head: Option<PageHead>,
    failed_at: Option<UnixMillis>,
    /// The body, where the store had no room for it.
    unsaved: Option<Bytes>,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            heads: LruCache::new(HEADS),
            rendered: LruCache::new(RENDERED),
            rendered_bytes: 0,
            projects: LruCache::new(PROJECTS),
            project_files: 0,
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

    /// Keeps a body that the store would not take. One at a time: a full disk must not fill memory.
    pub(super) fn keep_unsaved(&mut self, key: &PageKey, body: Bytes) {
        for (_, entry) in self.heads.iter_mut() {
            entry.unsaved = None;
        }
        self.heads.get_or_insert_mut(key.clone(), Entry::default).unsaved = Some(body);
    }

    pub(super) fn unsaved(&self, key: &PageKey) -> Option<Bytes> {
        self.heads.peek(key)?.unsaved.clone()
    }

    pub(super) fn saved(&mut self, key: &PageKey) {
        if let Some(entry) = self.heads.peek_mut(key) {
            entry.unsaved = None;
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
        if let Some((_, project)) = self.projects.pop(key) {
            self.project_files -= project.files.len();
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

    pub(super) fn project(&mut self, key: &PageKey, revision: u64) -> Option<Arc<Project>> {
        let (of, project) = self.projects.get(key)?;
        (*of == revision).then(|| project.clone())
    }

    pub(super) fn keep_project(&mut self, key: &PageKey, revision: u64, project: Arc<Project>) {
        if project.files.len() > PROJECT_FILES {
            return;
        }
        self.project_files += project.files.len();
        if let Some((_, (_, old))) = self.projects.push(key.clone(), (revision, project)) {
            self.project_files -= old.files.len();
        }
        while self.project_files > PROJECT_FILES {
            let Some((_, (_, old))) = self.projects.pop_lru() else { break };
            self.project_files -= old.files.len();
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
