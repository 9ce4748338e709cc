//! The registry door: `/v2/…`, the pull side of the OCI distribution specification.
//!
//! What a digest names is stored for ever. What came through a registry that is kept apart is given only to those who
//! ask for it in a repository that has it, and who show what the operator demands.

mod login;
mod refusal;
mod told;

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts as Request;
use http::{HeaderValue, Method, StatusCode, Version, header};

use crate::base::{Access, Artifact, Digest, Trail};
use crate::eco::oci::{self, Accepts, MANIFEST_BYTES, Manifest, ManifestError, Reference, Resource, Want};
use crate::fetch::{Content, Fetch, FetchError, Via};
use crate::resolve::State;
use crate::resolve::images::{Described, First, Images, ImagesError, Question, Said, Spot, list_query};
use crate::rt::{Clock, Gate};
use crate::store::Stored;
use crate::upstream::UpstreamError;

use super::body::Out;
use super::content::text;
use super::metrics::Cache;
use super::reply::Reply;
pub use login::Clients;
use login::Login;
use refusal::Refusal;
use told::{API_VERSION, Keep, Told, blob_headers, by_state, manifest_headers};

/// Answers what lies below `/v2`.
#[derive(Clone)]
pub(super) struct Oci {
    images: Images,
    fetch: Fetch,
    clock: Clock,
    disk: Gate,
    login: Arc<Login>,
}

/// What a request asks for, read once.
pub(super) enum Ask {
    Of {
        spot: Spot,
        resource: Resource,
        accepts: Accepts,
        refresh: bool,
        ns: Option<String>,
    },
    /// Answered already.
    Done(Box<Reply>),
}

impl Oci {
    /// The same for a request that came through other nodes.
    pub(super) fn on_behalf(&self, trail: Arc<Trail>) -> Self {
        let (images, fetch) = (self.images.on_behalf(trail.clone()), self.fetch.on_behalf(trail));
        Self { images, fetch, ..self.clone() }
    }

    /// `clients` in the order of the registries.
    pub(super) fn new(images: Images, fetch: Fetch, clock: Clock, disk: Gate, clients: Vec<Clients>) -> Self {
        let login = Arc::new(Login::new(clients, clock.clone()));
        Self { images, fetch, clock, disk, login }
    }

    /// Reads a request; `path` is below `/v2`.
    pub(super) fn read(&self, client: IpAddr, request: &Request, path: &str) -> Ask {
        match self.look(client, request, path) {
            Ok(ask) => ask,
            Err(refusal) => Ask::Done(refusal.reply().into()),
        }
    }

    fn look(&self, client: IpAddr, request: &Request, path: &str) -> Result<Ask, Refusal> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            return Err(Refusal::read_only());
        }
        let query = request.uri.query();
        let (place, resource) = match oci::want(path, query)? {
            Want::Base => return self.login.base(request).map(done),
            Want::Token => return self.login.token(request, &self.images).map(done),
            Want::Unknown => return Err(Refusal::nothing()),
            Want::Of(place, resource) => (place, resource),
        };
        let spot = self.images.spot(&place)?;
        self.login.check(client, request, &spot)?;
        let accept: Vec<_> =
            request.headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
        let accept = (!accept.is_empty()).then(|| accept.join(","));
        let refresh = text(request, header::CACHE_CONTROL).is_some_and(|v| v.contains("no-cache"));
        let ns = oci::query_of(query, "ns").map(str::to_owned);
        Ok(Ask::Of { spot, resource, accepts: Accepts::of(accept.as_deref()), refresh, ns })
    }

    /// The answer, if it is in memory.
    pub(super) fn peek(&self, request: &Request, ask: &Ask) -> Option<Reply> {
        let Ask::Of { spot, resource, accepts, refresh: false, .. } = ask else { return None };
        let (digest, said) = match resource {
            Resource::Manifest(Reference::Tag(tag)) => {
                let said = self.images.peek(spot, &Question::Tag(tag.clone(), *accepts))?;
                (said.fact.digest?, Some(said))
            }
            Resource::Manifest(Reference::Digest(digest)) => (*digest, None),
            Resource::Blob(digest) => {
                let content = self.fetch.peek(digest)?;
                return self
                    .is_proved(spot, digest, &content)
                    .then(|| told::blob(request, content, &self.clock, *digest, self.keep(spot)));
            }
            Resource::Tags | Resource::Referrers(_) => return None,
        };
        let media_type = self.images.described(spot, &digest)?.media_type?;
        let content = self.fetch.peek(&digest)?;
        let told = Told { digest, media_type, said };
        self.is_proved(spot, &digest, &content)
            .then(|| told::manifest(request, content, &self.clock, &told, self.keep(spot)))
    }

    /// The answer, whatever it takes.
    pub(super) async fn answer(&self, request: &Request, ask: Ask) -> Reply {
        let (spot, resource, accepts, refresh, ns) = match ask {
            Ask::Done(reply) => return *reply,
            Ask::Of { spot, resource, accepts, refresh, ns } => (spot, resource, accepts, refresh, ns),
        };
        let answer = match resource {
            Resource::Manifest(reference) => self.manifest(request, &spot, reference, accepts, refresh).await,
            Resource::Blob(digest) => self.blob(request, &spot, digest).await,
            Resource::Tags => {
                let question = Question::Tags(list_query(request.uri.query(), &["n", "last"]));
                self.list(request, &spot, question, refresh, ns.as_deref()).await
            }
            Resource::Referrers(digest) => {
                let query = list_query(request.uri.query(), &["artifactType", "n", "last"]);
                let question = Question::Referrers(digest, query);
                self.list(request, &spot, question, refresh, ns.as_deref()).await
            }
        };
        answer.unwrap_or_else(Refusal::reply)
    }

    async fn manifest(
        &self,
        request: &Request,
        spot: &Spot,
        reference: Reference,
        accepts: Accepts,
        refresh: bool,
    ) -> Result<Reply, Refusal> {
        let unknown = |e: ImagesError| Refusal::of_images(&e, "MANIFEST_UNKNOWN");
        let (digest, said) = match reference {
            Reference::Digest(digest) => (digest, None),
            Reference::Tag(tag) => {
                let question = Question::Tag(tag, accepts);
                // What a neighbour may have is not asked of a registry that counts who does.
                let near = self.fetch.has_neighbours(self.images.access(spot));
                let first = if near || request.method == Method::HEAD { First::Head } else { First::Get };
                let said = self.images.ask_first(spot, &question, refresh, first).await.map_err(unknown)?;
                let digest = said.fact.digest.ok_or_else(Refusal::nothing)?;
                let Described { size, media_type } = self.images.described(spot, &digest).unwrap_or_default();
                let size = confirmed_size(&said).or(size);
                // Its type stays open until it has been read: what it lists is noted then.
                self.images.note(spot, &digest, Described { size, media_type });
                (digest, Some(said))
            }
        };
        if request.method == Method::HEAD
            && let Some(reply) = self.manifest_told(spot, digest, said.as_ref()).await.map_err(unknown)?
        {
            return Ok(reply);
        }
        let stated = said.as_ref().and_then(|said| said.fact.media_type.clone());
        match self.whole_manifest(spot, digest).await? {
            Whole::Stored(content) => {
                let media_type = self.read_manifest(spot, &digest, &content, stated).await?;
                let told = Told { digest, media_type, said };
                Ok(told::manifest(request, content, &self.clock, &told, self.keep(spot)))
            }
            Whole::Passing(bytes) => {
                let media_type = media_type(Manifest::read(&bytes), stated)?.0;
                let mut reply = Reply::new(StatusCode::OK, Cache::Bypass, Out::full(bytes));
                manifest_headers(&mut reply, &Told { digest, media_type, said }, self.keep(spot));
                Ok(reply)
            }
        }
    }

    /// The answer to a `HEAD` for a manifest that need not be here. `None` when it is, or too little is known.
    async fn manifest_told(
        &self,
        spot: &Spot,
        digest: Digest,
        said: Option<&Said>,
    ) -> Result<Option<Reply>, ImagesError> {
        let answer = match said {
            Some(said) => said.clone(),
            None if self.is_here(&digest).await => return Ok(None),
            None => self.images.ask(spot, &Question::Manifest(digest), false).await?,
        };
        let (Some(size), Some(media_type)) = (answer.fact.size, answer.fact.media_type.clone()) else {
            return Ok(None);
        };
        let cache = by_state(answer.state);
        let mut reply = Reply::new(StatusCode::OK, cache, Out::told(size));
        reply.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
        manifest_headers(&mut reply, &Told { digest, media_type, said: said.cloned() }, self.keep(spot));
        Ok(Some(reply))
    }

    async fn is_here(&self, digest: &Digest) -> bool {
        self.fetch.load(digest).await.is_ok_and(|found| found.is_some())
    }

    /// A manifest, proved.
    async fn whole_manifest(&self, spot: &Spot, digest: Digest) -> Result<Whole, Refusal> {
        let failed = |e: FetchError| Refusal::of_fetch(&e, "MANIFEST_UNKNOWN");
        let question = Question::Manifest(digest);
        if let Some(content) = self.fetch.load(&digest).await.map_err(failed)? {
            self.prove(spot, &digest, &question, &content).await?;
            return Ok(Whole::Stored(content));
        }
        let mut refused = false;
        if self.images.described(spot, &digest).is_none() {
            match self.images.ask(spot, &question, false).await {
                Ok(said) => {
                    let described = Described { size: confirmed_size(&said), media_type: None };
                    self.images.note(spot, &digest, described);
                }
                Err(e @ ImagesError::Unknown(_)) => return Err(Refusal::of_images(&e, "MANIFEST_UNKNOWN")),
                // A neighbour may have it all the same.
                Err(e) => {
                    log::debug!("{digest}: {e}");
                    refused = true;
                }
            }
        }
        let artifact = self.images.manifest(spot, &digest);
        let opened = match refused {
            true => self.fetch.open(artifact.clone()).await.map_err(failed),
            false => self.open(spot, &question, artifact.clone()).await,
        };
        let content = match opened? {
            content if content.via == Via::Passed => return self.passing(artifact).await,
            content => content,
        };
        let via = content.via;
        self.prove(spot, &digest, &question, &content).await?;
        match content.whole().await {
            Ok(mut whole) => {
                whole.via = via;
                Ok(Whole::Stored(whole))
            }
            Err(FetchError::NoRoom(_)) => self.passing(artifact).await,
            Err(e) => Err(failed(e)),
        }
    }

    /// Opens what a digest names. Who asked for it first had it asked for in his own repository, and its "no" is no answer
    /// to those who came meanwhile with another.
    async fn open(&self, spot: &Spot, question: &Question, artifact: Artifact) -> Result<Content, Refusal> {
        let code = unknown_of(question);
        let refused = match self.fetch.open(artifact.clone()).await {
            Ok(content) => return Ok(content),
            Err(e) => e,
        };
        if matches!(refused, FetchError::Missing(_) | FetchError::Upstream(UpstreamError::Denied { .. })) {
            self.images.ask(spot, question, false).await.map_err(|e| Refusal::of_images(&e, code))?;
            return self.fetch.open(artifact).await.map_err(|e| Refusal::of_fetch(&e, code));
        }
        Err(Refusal::of_fetch(&refused, code))
    }

    async fn passing(&self, artifact: Artifact) -> Result<Whole, Refusal> {
        let bytes = self.fetch.collect(artifact, MANIFEST_BYTES).await;
        bytes.map(Whole::Passing).map_err(|e| Refusal::of_fetch(&e, "MANIFEST_UNKNOWN"))
    }

    /// Reads a manifest for its type, and notes what it lists.
    async fn read_manifest(
        &self,
        spot: &Spot,
        digest: &Digest,
        content: &Content,
        stated: Option<String>,
    ) -> Result<String, Refusal> {
        if let Some(Described { media_type: Some(known), .. }) = self.images.described(spot, digest) {
            return Ok(known);
        }
        let stored = content.stored().ok_or_else(Refusal::nothing)?;
        let size = stored.size;
        if size > MANIFEST_BYTES {
            return Err(Refusal::of_manifest(&ManifestError::TooLarge));
        }
        let read = move || read_whole(&stored).map(|bytes| Manifest::read(&bytes));
        let manifest = self.disk.run(read).await.map_err(|e| Refusal::disk(&e))?;
        let stated = match stated {
            Some(stated) => Some(stated),
            // What it was said to be when it was asked for by its digest.
            None => {
                let said = self.images.peek(spot, &Question::Manifest(*digest));
                said.and_then(|said| said.fact.media_type.clone())
            }
        };
        let (media_type, manifest) = media_type(manifest, stated)?;
        // Anybody can have a manifest stored that lists whatever he likes. In a repository that is kept apart it counts
        // only where its registry says that it is there.
        let apart = self.images.registry(spot).private && self.images.described(spot, digest).is_none();
        if apart && self.images.ask(spot, &Question::Manifest(*digest), false).await.is_err() {
            return Ok(media_type);
        }
        if let Some(manifest) = manifest {
            self.images.note_children(spot, &manifest);
        }
        let described = Described { size: Some(size), media_type: Some(media_type.clone()) };
        self.images.note(spot, digest, described);
        Ok(media_type)
    }

    async fn blob(&self, request: &Request, spot: &Spot, digest: Digest) -> Result<Reply, Refusal> {
        let failed = |e: FetchError| Refusal::of_fetch(&e, "BLOB_UNKNOWN");
        let unknown = |e: ImagesError| Refusal::of_images(&e, "BLOB_UNKNOWN");
        let question = Question::Blob(digest);
        if let Some(content) = self.fetch.load(&digest).await.map_err(failed)? {
            self.prove(spot, &digest, &question, &content).await?;
            return Ok(told::blob(request, content, &self.clock, digest, self.keep(spot)));
        }
        if request.method == Method::HEAD {
            let said = self.images.ask(spot, &question, false).await.map_err(unknown)?;
            let size = said.fact.size;
            let mut reply =
                Reply::new(StatusCode::OK, by_state(said.state), size.map_or_else(Out::empty, Out::told));
            if let Some(size) = size {
                reply.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
                reply.set(header::ACCEPT_RANGES, "bytes");
            }
            blob_headers(&mut reply, digest, self.keep(spot));
            return Ok(reply);
        }
        let mut content = self.open(spot, &question, self.images.blob(spot, &digest)).await?;
        self.prove(spot, &digest, &question, &content).await?;
        // HTTP/1.0 ends a body of unknown size with the connection: a cut would look like the end.
        if content.size.is_none() && request.version == Version::HTTP_10 {
            content = content.whole().await.map_err(failed)?;
        }
        Ok(told::blob(request, content, &self.clock, digest, self.keep(spot)))
    }

    fn keep(&self, spot: &Spot) -> Keep {
        if self.images.registry(spot).private { Keep::Client } else { Keep::Everybody }
    }

    /// Whether content may be given to somebody who asks for it in this repository, as far as memory knows.
    fn is_proved(&self, spot: &Spot, digest: &Digest, content: &Content) -> bool {
        content.access() == Access::Public
            || self.images.registry(spot).private && self.images.described(spot, digest).is_some()
    }

    /// Has a registry say that a repository of its has content that is not for everybody. Who knows a digest is not
    /// thereby one who may have what it names (distribution's own CVE-2026-35172).
    async fn prove(
        &self,
        spot: &Spot,
        digest: &Digest,
        question: &Question,
        content: &Content,
    ) -> Result<(), Refusal> {
        if self.is_proved(spot, digest, content) {
            return Ok(());
        }
        let code = unknown_of(question);
        let said = self.images.ask(spot, question, false).await.map_err(|e| Refusal::of_images(&e, code))?;
        // An answer to anything whatever is none to this.
        if said.fact.size.is_some_and(|size| content.size.is_some_and(|here| here != size)) {
            return Err(Refusal::new(StatusCode::NOT_FOUND, code, "the registry has another of that name"));
        }
        if self.images.registry(spot).private && self.images.described(spot, digest).is_none() {
            self.images.note(spot, digest, Described { size: said.fact.size, media_type: None });
        }
        Ok(())
    }

    async fn list(
        &self,
        request: &Request,
        spot: &Spot,
        question: Question,
        refresh: bool,
        ns: Option<&str>,
    ) -> Result<Reply, Refusal> {
        let said = self.images.ask(spot, &question, refresh).await;
        let said = said.map_err(|e| Refusal::of_images(&e, "NAME_UNKNOWN"))?;
        Ok(told::list(request, &question, &said, self.keep(spot), ns))
    }
}

/// A size as the registry says it. What a room says is for this answer, and not to be held against what comes later.
fn confirmed_size(said: &Said) -> Option<u64> {
    said.fact.size.filter(|_| said.state != State::Room)
}

/// A manifest as it can be had.
enum Whole {
    Stored(Content),
    /// The disk is too full for it.
    Passing(Vec<u8>),
}

fn done(reply: Reply) -> Ask {
    Ask::Done(reply.into())
}

/// The code that says that there is no such thing.
fn unknown_of(question: &Question) -> &'static str {
    if matches!(question, Question::Blob(_)) { "BLOB_UNKNOWN" } else { "MANIFEST_UNKNOWN" }
}

/// What a manifest is sent as: what its registry says, else what it says itself. What dpm does not know is handed on as
/// it is, if the registry says what it is.
fn media_type(
    manifest: Result<Manifest, ManifestError>,
    stated: Option<String>,
) -> Result<(String, Option<Manifest>), Refusal> {
    use ManifestError as E;
    match (manifest, stated) {
        (Ok(manifest), Some(stated)) if !manifest.kind.goes_by(&stated) => {
            Err(Refusal::of_manifest(&E::Ambiguous))
        }
        (Ok(manifest), stated) => Ok((stated.unwrap_or_else(|| manifest.media_type.clone()), Some(manifest))),
        (Err(E::Neither | E::Json(_) | E::Digest(_)), Some(stated)) => Ok((stated, None)),
        (Err(e), _) => Err(Refusal::of_manifest(&e)),
    }
}

fn read_whole(stored: &Stored) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(stored.size).unwrap_or(usize::MAX)];
    let mut at = 0;
    while at < bytes.len() {
        match stored.read(&mut bytes[at..], at as u64)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            n => at += n,
        }
    }
    Ok(bytes)
}
