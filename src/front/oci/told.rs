//! Answers with what a registry has, and what is told of it.

use std::time::Duration;

use http::request::Parts as Request;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use crate::base::Digest;
use crate::eco::oci;
use crate::fetch::{Content, Via};
use crate::resolve::State;
use crate::resolve::images::{Question, Said};
use crate::rt::Clock;

use super::super::body::Out;
use super::super::content::{cache, content_reply};
use super::super::metrics::Cache;
use super::super::reply::Reply;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(super) const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// Who may keep an answer: a cache between dpm and its clients must not give to everybody what dpm does not.
#[derive(Clone, Copy)]
pub(super) enum Keep {
    Everybody,
    /// The client itself.
    Client,
}

impl Keep {
    /// Of what a digest names.
    fn lasting(self) -> &'static str {
        match self {
            Self::Everybody => "public, max-age=31536000, immutable",
            Self::Client => "private, max-age=31536000, immutable",
        }
    }

    fn whose(self) -> &'static str {
        match self {
            Self::Everybody => "",
            Self::Client => "private, ",
        }
    }
}

/// What a manifest is told to be.
pub(super) struct Told {
    pub(super) digest: Digest,
    pub(super) media_type: String,
    /// What the registry said of its tag, if it was asked for by one.
    pub(super) said: Option<Said>,
}

/// A manifest that is here.
pub(super) fn manifest(
    request: &Request,
    mut content: Content,
    clock: &Clock,
    told: &Told,
    keep: Keep,
) -> Reply {
    let from = match (&told.said, content.via) {
        (Some(said), Via::Store) => by_state(said.state),
        (_, via) => cache(via),
    };
    // The store has another name for it where this is no SHA-256.
    content.digest = Some(told.digest);
    let mut reply = content_reply(request, content, clock, |reply, _| manifest_headers(reply, told, keep));
    reply.mark(from);
    if let Some(said) = &told.said {
        freshness(&mut reply, said, keep);
    }
    reply
}

/// A blob that is here, or on its way.
pub(super) fn blob(
    request: &Request,
    mut content: Content,
    clock: &Clock,
    digest: Digest,
    keep: Keep,
) -> Reply {
    content.digest = Some(digest);
    content_reply(request, content, clock, |reply, _| blob_headers(reply, digest, keep))
}

/// A list of tags or referrers, as its registry gave it.
pub(super) fn list(
    request: &Request,
    question: &Question,
    said: &Said,
    keep: Keep,
    ns: Option<&str>,
) -> Reply {
    let fact = &said.fact;
    let body = match request.method {
        Method::HEAD => Out::told(fact.body.len() as u64),
        _ => Out::full(fact.body.clone()),
    };
    let mut reply = Reply::new(StatusCode::OK, by_state(said.state), body);
    reply.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(fact.body.len()));
    let plain = if matches!(question, Question::Tags(_)) {
        "application/json"
    } else {
        "application/vnd.oci.image.index.v1+json"
    };
    reply.put(header::CONTENT_TYPE, fact.media_type.as_deref().unwrap_or(plain));
    if let Some(filters) = &fact.filters_applied {
        reply.put(FILTERS_APPLIED, filters);
    }
    if let Some(link) = fact.link.as_deref().and_then(|link| oci::relinked(link, request.uri.path(), ns)) {
        reply.put(header::LINK, &link);
    }
    freshness(&mut reply, said, keep);
    reply.set(API_VERSION, "registry/2.0");
    reply
}

pub(super) fn by_state(state: State) -> Cache {
    match state {
        State::Hit => Cache::Hit,
        State::Miss => Cache::Miss,
        State::Stale => Cache::Stale,
        State::Room => Cache::Room,
    }
}

pub(super) fn manifest_headers(reply: &mut Reply, told: &Told, keep: Keep) {
    reply.put(header::CONTENT_TYPE, &told.media_type);
    reply.put(CONTENT_DIGEST, &told.digest.to_string());
    reply.put(header::ETAG, &format!("\"{}\"", told.digest.hex()));
    reply.set(API_VERSION, "registry/2.0");
    match &told.said {
        Some(said) => freshness(reply, said, keep),
        None => reply.set(header::CACHE_CONTROL, keep.lasting()),
    }
}

pub(super) fn blob_headers(reply: &mut Reply, digest: Digest, keep: Keep) {
    reply.set(header::CONTENT_TYPE, "application/octet-stream");
    reply.put(CONTENT_DIGEST, &digest.to_string());
    reply.put(header::ETAG, &format!("\"{}\"", digest.hex()));
    reply.set(API_VERSION, "registry/2.0");
    reply.set(header::CACHE_CONTROL, keep.lasting());
}

fn freshness(reply: &mut Reply, said: &Said, keep: Keep) {
    let max_age = match said.state {
        State::Stale | State::Room => Duration::ZERO,
        State::Hit | State::Miss => said.fact.fresh_for(),
    };
    reply.put(header::CACHE_CONTROL, &format!("{}max-age={}", keep.whose(), max_age.as_secs()));
    reply.age(said.age);
    match said.state {
        State::Stale => reply.set(header::WARNING, "110 dpm \"the registry has not confirmed this\""),
        State::Room => reply.set(header::WARNING, "110 dpm \"members of a room say this, not the registry\""),
        State::Hit | State::Miss => {}
    }
}
