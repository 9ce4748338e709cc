//! The PyPI door: `/pypi/simple/…` and `/pypi/files/…`.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts as Request;
use http::{HeaderValue, Method, StatusCode, Version, header};

use crate::base::{Access, Artifact, Digest, Sha256, Trail};
use crate::eco::pypi::{self, FileWant, Form, Part, Want};
use crate::fetch::{Content, Fetch, FetchError};
use crate::resolve::{Located, PageAnswer, PageKey, Resolve, State};
use crate::rt::{Clock, Gate};
use crate::store::Stored;

use super::body::Out;
use super::conditions::{accepts_gzip, matches};
use super::content::{content_reply, text};
use super::metrics::Cache;
use super::reply::Reply;

/// Answers what lies below `/pypi`.
#[derive(Clone)]
pub(super) struct Pypi {
    pub(super) resolve: Resolve,
    pub(super) fetch: Fetch,
    pub(super) clock: Clock,
    pub(super) disk: Gate,
    /// Held while a wheel that cannot be stored is in memory.
    pub(super) gathering: Arc<async_lock::Mutex<()>>,
}

/// What a request asks for, read once.
pub(super) enum Ask {
    Page {
        key: PageKey,
        form: Form,
        gzip: bool,
        refresh: bool,
    },
    File(FileWant),
    /// Answered already.
    Done(Box<Reply>),
}

impl Pypi {
    /// The same for a request that came through other nodes.
    pub(super) fn on_behalf(&self, trail: Arc<Trail>) -> Self {
        let (resolve, fetch) = (self.resolve.on_behalf(trail.clone()), self.fetch.on_behalf(trail));
        Self { resolve, fetch, ..self.clone() }
    }

    /// Reads a request; `path` is below the mount point.
    pub(super) fn read(&self, request: &Request, path: &str) -> Ask {
        let query = request.uri.query();
        let key = match pypi::want(path, query) {
            Err(e) => return Ask::Done(Reply::text(StatusCode::BAD_REQUEST, &format!("dpm: {e}")).into()),
            Ok(Want::Unknown) => {
                return Ask::Done(Reply::text(StatusCode::NOT_FOUND, "dpm: nothing is here; see /").into());
            }
            Ok(Want::Redirect(to)) => {
                let mut reply = Reply::text(StatusCode::MOVED_PERMANENTLY, &to);
                reply.put(header::LOCATION, &to);
                return Ask::Done(reply.into());
            }
            Ok(Want::File(want)) => return Ask::File(want),
            Ok(Want::Root) => PageKey::Root,
            Ok(Want::Project(name)) => PageKey::Project(name),
        };
        let Some(form) = pypi::negotiate(text(request, header::ACCEPT), query) else {
            let mut reply = Reply::text(
                StatusCode::NOT_ACCEPTABLE,
                "dpm: a page is application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html or text/html",
            );
            reply.set(header::VARY, "Accept");
            return Ask::Done(reply.into());
        };
        let gzip = text(request, header::ACCEPT_ENCODING).is_some_and(accepts_gzip);
        // pip sends `max-age=0` with every request; only `no-cache` says that somebody asked for news.
        let refresh = text(request, header::CACHE_CONTROL).is_some_and(|v| v.contains("no-cache"));
        Ask::Page { key, form, gzip, refresh }
    }

    /// The answer, if it is in memory.
    pub(super) fn peek(&self, request: &Request, ask: &Ask) -> Option<Reply> {
        match ask {
            Ask::Page { key, form, gzip, refresh: false } => {
                let page = self.resolve.peek(key, *form, *gzip)?;
                Some(page_reply(request, &page, *form))
            }
            Ask::File(want) => {
                let digest = match want.part {
                    Part::Whole => want.digest?,
                    Part::Metadata => self.resolve.peek_metadata(want)?,
                    Part::Provenance => return None,
                };
                let content = self.fetch.peek(&digest).filter(|content| self.is_ours(content))?;
                Some(self.content_reply(request, content, want))
            }
            _ => None,
        }
    }

    /// The answer, whatever it takes.
    pub(super) async fn answer(&self, request: &Request, ask: Ask) -> Reply {
        match ask {
            Ask::Done(reply) => *reply,
            Ask::Page { key, form, gzip, refresh } => {
                match self.resolve.page(key, form, gzip, refresh).await {
                    Ok(page) => page_reply(request, &page, form),
                    Err(e) => Reply::from(&e),
                }
            }
            Ask::File(want) => self.file(request, &want).await.unwrap_or_else(|reply| *reply),
        }
    }

    async fn file(&self, request: &Request, want: &FileWant) -> Result<Reply, Box<Reply>> {
        let failed = |e: FetchError| Box::new(Reply::from(&e));
        // A digest that vouches for itself needs no index: it may even have forgotten the file by now.
        let known = want.digest.filter(|d| want.part == Part::Whole && d.is_strong());
        if let Some(digest) = known
            && let Some(content) = self.fetch.load(&digest).await.map_err(failed)?
            && self.is_ours(&content)
        {
            return Ok(self.content_reply(request, content, want));
        }
        let located = self.locate(want).await?;
        let (promised, answer) = match located {
            Located::InWheel(wheel) => return self.metadata_of(request, wheel, want, None).await,
            // What a room tells of, members are looked for: not for what is in a wheel that is here.
            Located::Artifact(mut artifact) if artifact.is_rooms() && want.part == Part::Metadata => {
                let promised = artifact.digest;
                let here = self.fetch.find(&mut artifact).await.map_err(failed)?;
                match here {
                    Some(content) => return Ok(self.content_reply(request, content, want)),
                    None if self.has_wheel(want).await => {
                        (promised, Err(FetchError::Missing(artifact.filename)))
                    }
                    None => (promised, self.sent(request, artifact, want).await),
                }
            }
            Located::Artifact(artifact) if request.method == Method::HEAD => {
                (artifact.digest, self.told(request, artifact, want).await)
            }
            Located::Artifact(artifact) => (artifact.digest, self.sent(request, artifact, want).await),
        };
        match answer {
            // Promised and not there: installers take a 404 for a broken index, and the wheel has it.
            Err(FetchError::Missing(_) | FetchError::NoMember(_))
                if want.part == Part::Metadata && want.filename.ends_with(".whl") =>
            {
                let whole = FileWant { part: Part::Whole, ..want.clone() };
                let (Located::Artifact(wheel) | Located::InWheel(wheel)) = self.locate(&whole).await?;
                self.metadata_of(request, wheel, want, promised).await
            }
            answer => answer.map_err(failed),
        }
    }

    /// Whether content is one of an index's here, or for everybody: what came through a registry that is kept apart
    /// is not to be had by its digest alone.
    fn is_ours(&self, content: &Content) -> bool {
        let from_index = || self.resolve.indexes().iter().any(|index| index.site.name == content.upstream());
        content.access() == Access::Public || from_index()
    }

    /// Whether the wheel is stored whose metadata is wanted.
    async fn has_wheel(&self, want: &FileWant) -> bool {
        let Some(digest) = want.digest.filter(|d| d.is_strong()) else { return false };
        self.fetch.load(&digest).await.is_ok_and(|found| found.is_some())
    }

    async fn locate(&self, want: &FileWant) -> Result<Located, Box<Reply>> {
        self.resolve.locate(want).await.map_err(|e| Box::new(Reply::from(&e)))
    }

    /// Answers with the bytes, fetched where they are not stored.
    async fn sent(
        &self,
        request: &Request,
        artifact: Artifact,
        want: &FileWant,
    ) -> Result<Reply, FetchError> {
        let mut content = self.fetch.open(artifact).await?;
        // HTTP/1.0 ends a body of unknown size with the connection: a cut would look like the end.
        if content.size.is_none() && request.version == Version::HTTP_10 {
            content = content.whole().await?;
        }
        Ok(self.content_reply(request, content, want))
    }

    /// Answers a `HEAD` without downloading.
    async fn told(
        &self,
        request: &Request,
        mut artifact: Artifact,
        want: &FileWant,
    ) -> Result<Reply, FetchError> {
        if let Some(content) = self.fetch.find(&mut artifact).await? {
            return Ok(self.content_reply(request, content, want));
        }
        let digest = artifact.digest;
        let size = self.fetch.measure(artifact).await?;
        let mut reply = Reply::new(StatusCode::OK, Cache::Miss, size.map_or_else(Out::empty, Out::told));
        file_headers(&mut reply, want, digest.map(|d| d.hex()).as_deref());
        reply.age(Duration::ZERO);
        if let Some(size) = size {
            reply.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
            reply.set(header::ACCEPT_RANGES, "bytes");
        }
        Ok(reply)
    }

    /// Answers with the metadata of a wheel whose index has none: taken from the verified wheel, kept under its
    /// digest, which must be the one that was `promised`.
    async fn metadata_of(
        &self,
        request: &Request,
        wheel: Artifact,
        want: &FileWant,
        promised: Option<Digest>,
    ) -> Result<Reply, Box<Reply>> {
        let failed = |e: FetchError| Box::new(Reply::from(&e));
        // Of the algorithm that what is kept is named by; of another one, the verified wheel's word does.
        let promised = promised.filter(|d| d.sha256().is_some());
        let (stored, via) = match self.fetch.complete(wheel.clone()).await {
            Ok(found) => found,
            Err(FetchError::NoRoom(_)) => {
                // One at a time: each is in memory as a whole.
                let _alone = self.gathering.lock().await;
                let whole = self.fetch.collect(wheel.clone(), PASSING_WHEEL_BYTES).await.map_err(failed)?;
                let bytes = self.read_metadata(io::Cursor::new(whole), &wheel).await?;
                return in_passing(bytes, want, promised).map_err(failed);
            }
            Err(e) => return Err(failed(e)),
        };
        let name = format!("metadata\0{}", stored.sha256);
        let known = match self.fetch.pinned(name.clone()).await.map_err(failed)? {
            Some(digest) => self.fetch.load(&digest).await.map_err(failed)?,
            None => None,
        };
        let mut content = match known {
            Some(content) => content,
            None => {
                let bytes = self.read_metadata(Cursor { stored, at: 0 }, &wheel).await?;
                let metadata = Artifact { filename: format!("{}.metadata", wheel.filename), ..wheel };
                let kept = match self.fetch.keep(bytes.clone(), &metadata, name).await {
                    Ok(digest) => self.fetch.load(&digest).await.map_err(failed)?,
                    // The disk is too full for it.
                    Err(_) => None,
                };
                match kept {
                    Some(content) => content,
                    None => return in_passing(bytes, want, promised).map_err(failed),
                }
            }
        };
        content.via = via;
        if let (Some(want_digest), Some(got)) = (promised, content.digest)
            && want_digest != got
        {
            let filename = format!("{}{}", want.filename, want.part.suffix());
            return Err(failed(FetchError::Mismatch { filename, want: want_digest, got }));
        }
        if let Some(digest) = content.digest {
            self.resolve.note_metadata(want, digest);
        }
        Ok(self.content_reply(request, content, want))
    }

    async fn read_metadata(
        &self,
        reader: impl io::Read + io::Seek + Send + 'static,
        wheel: &Artifact,
    ) -> Result<Vec<u8>, Box<Reply>> {
        let filename = wheel.filename.clone();
        let read = move || pypi::wheel_metadata(reader, &filename);
        self.disk.run(read).await.map_err(|e| {
            let text = format!("dpm: {}: {e}", wheel.filename);
            Box::new(Reply::text(StatusCode::BAD_GATEWAY, &text))
        })
    }

    fn content_reply(&self, request: &Request, content: Content, want: &FileWant) -> Reply {
        content_reply(request, content, &self.clock, |reply, etag| file_headers(reply, want, etag))
    }
}

/// Metadata that could not be stored.
fn in_passing(bytes: Vec<u8>, want: &FileWant, promised: Option<Digest>) -> Result<Reply, FetchError> {
    let got = Sha256::of(&bytes).digest();
    if let Some(want_digest) = promised.filter(|d| *d != got) {
        let filename = format!("{}{}", want.filename, want.part.suffix());
        return Err(FetchError::Mismatch { filename, want: want_digest, got });
    }
    let mut reply = Reply::new(StatusCode::OK, Cache::Bypass, Out::full(bytes));
    file_headers(&mut reply, want, Some(&got.hex()));
    reply.age(Duration::ZERO);
    Ok(reply)
}

/// Largest wheel that is read into memory for its metadata where the disk has no room for it.
const PASSING_WHEEL_BYTES: u64 = 32 << 20;

fn page_reply(request: &Request, page: &PageAnswer, form: Form) -> Reply {
    let cache = match page.state {
        State::Hit => Cache::Hit,
        State::Miss => Cache::Miss,
        State::Stale => Cache::Stale,
        State::Room => Cache::Room,
    };
    let rendered = &page.rendered;
    let same = text(request, header::IF_NONE_MATCH).is_some_and(|wanted| matches(wanted, &rendered.etag));
    let mut reply = match (same, request.method == Method::HEAD) {
        (true, _) => Reply::new(StatusCode::NOT_MODIFIED, cache, Out::empty()),
        (_, true) => {
            let length = rendered.body.len() as u64;
            let mut reply = Reply::new(StatusCode::OK, cache, Out::told(length));
            reply.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            reply
        }
        _ => Reply::new(StatusCode::OK, cache, Out::full(rendered.body.clone())),
    };
    reply.set(header::CONTENT_TYPE, form.content_type());
    reply.put(header::ETAG, &rendered.etag);
    reply.set(header::VARY, "Accept, Accept-Encoding");
    if rendered.gzip {
        reply.set(header::CONTENT_ENCODING, "gzip");
    }
    let max_age = match page.state {
        State::Stale | State::Room => 0,
        State::Hit | State::Miss => page.fresh_for.as_secs(),
    };
    reply.put(header::CACHE_CONTROL, &format!("max-age={max_age}"));
    reply.age(page.age);
    // RFC 5861 and the Warning header that RFC 9111 retired: kept because people know to look for it.
    match page.state {
        State::Stale => reply.set(header::WARNING, "110 dpm \"the upstream has not confirmed this\""),
        State::Room => reply.set(header::WARNING, "110 dpm \"members of a room say this, not the upstream\""),
        State::Hit | State::Miss => {}
    }
    reply
}

fn file_headers(reply: &mut Reply, want: &FileWant, etag: Option<&str>) {
    match want.part {
        Part::Whole => reply.set(header::CONTENT_TYPE, pypi::content_type(&want.filename)),
        part => reply.set(header::CONTENT_TYPE, pypi::content_type(part.suffix())),
    }
    if let Some(etag) = etag {
        reply.put(header::ETAG, &format!("\"{etag}\""));
    }
    // A link with a strong digest means the same bytes for ever; what belongs to a file may be added later.
    let immutable = want.part == Part::Whole && want.digest.is_some_and(|d| d.is_strong());
    let lasting = if immutable { "public, max-age=31536000, immutable" } else { "public, max-age=600" };
    reply.set(header::CACHE_CONTROL, lasting);
}

/// A stored artifact as `std::io` readers want it.
struct Cursor {
    stored: Arc<Stored>,
    at: u64,
}

impl io::Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.stored.read(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl io::Seek for Cursor {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        let at = match to {
            io::SeekFrom::Start(at) => Some(at),
            io::SeekFrom::End(by) => self.stored.size.checked_add_signed(by),
            io::SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "before the start"))?;
        Ok(self.at)
    }
}
