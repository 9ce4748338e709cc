//! Answers, and the one table from errors to HTTP.

use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use crate::fetch::FetchError;
use crate::resolve::ResolveError;
use crate::upstream::UpstreamError;

use super::body::Out;
use super::metrics::Cache;

/// `X-Cache`.
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// An answer before it is noted and sent.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Out,
    pub(super) cache: Cache,
    /// What stands behind the status, where somebody reads it.
    pub(super) reason: Option<&'static str>,
}

impl Reply {
    pub(super) fn new(status: StatusCode, cache: Cache, body: Out) -> Self {
        let mut headers = HeaderMap::with_capacity(12);
        headers.insert(X_CACHE, HeaderValue::from_static(cache.header()));
        Self { status, headers, body, cache, reason: None }
    }

    /// A short text for people, about something of ours or an error.
    pub(super) fn text(status: StatusCode, text: &str) -> Self {
        let mut reply = Self::new(status, Cache::None, Out::full(format!("{text}\n")));
        reply.set(header::CONTENT_TYPE, "text/plain; charset=utf-8");
        reply.age(Duration::ZERO);
        reply
    }

    pub(super) fn set(&mut self, name: HeaderName, value: &'static str) {
        self.headers.insert(name, HeaderValue::from_static(value));
    }

    /// Sets a header from text that is ours or was checked; text that no header may hold is left out.
    pub(super) fn put(&mut self, name: HeaderName, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
    }

    /// Says where it comes from, where that is not what it was made with.
    pub(super) fn mark(&mut self, cache: Cache) {
        self.cache = cache;
        self.headers.insert(X_CACHE, HeaderValue::from_static(cache.header()));
    }

    pub(super) fn age(&mut self, age: Duration) {
        self.headers.insert(header::AGE, HeaderValue::from(age.as_secs()));
    }

    pub(super) fn send(self) -> Response<Out> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if let Some(reason) = self.reason {
            response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(reason.as_bytes()));
        }
        response
    }

    /// What a client gets of an error: never a 404 for an upstream's failure, which clients take for
    /// "does not exist" and remember.
    fn error(status: StatusCode, text: &str, retry_after: Option<Duration>) -> Self {
        let mut reply = Self::text(status, &format!("dpm: {text}"));
        reply.set(header::CACHE_CONTROL, "no-store");
        if matches!(status.as_u16(), 502..=504) {
            let seconds = retry_after.unwrap_or(RETRY_AFTER).as_secs().max(1);
            reply.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        reply
    }
}

/// `Retry-After` where the upstream does not say.
const RETRY_AFTER: Duration = Duration::from_secs(5);

impl From<&ResolveError> for Reply {
    fn from(e: &ResolveError) -> Self {
        use ResolveError as E;
        let (status, retry_after) = match e {
            E::Unknown(_) | E::Unlisted(_) => (StatusCode::NOT_FOUND, None),
            E::Upstream(e) => (upstream(e), e.retry_after()),
            E::Index { .. } | E::TooLarge { .. } | E::NoIndex(_) => (StatusCode::BAD_GATEWAY, None),
            // Nothing a client can do, and nothing to try again: people have to say who is right.
            E::Disputed(_) => (StatusCode::CONFLICT, None),
            E::Offline(_) | E::Unconfirmed(_) => (StatusCode::GATEWAY_TIMEOUT, None),
            E::Lost(_) | E::Busy(_) | E::GivenUp(_) => (StatusCode::SERVICE_UNAVAILABLE, None),
            E::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        let reason = matches!(e, E::Disputed(_)).then_some("Members of a room contradict each other");
        Self { reason, ..Self::error(status, &e.to_string(), retry_after) }
    }
}

impl From<&FetchError> for Reply {
    fn from(e: &FetchError) -> Self {
        use FetchError as E;
        let (status, retry_after) = match e {
            E::Missing(_) => (StatusCode::NOT_FOUND, None),
            E::Upstream(e) => (upstream(e), e.retry_after()),
            E::Mismatch { .. } | E::Length { .. } | E::Changed(_) | E::TooLarge(_) | E::NoSite(_) => {
                (StatusCode::BAD_GATEWAY, None)
            }
            E::Offline(_) | E::NoMember(_) => (StatusCode::GATEWAY_TIMEOUT, None),
            E::NoRoom(_) | E::Busy(_) | E::GivenUp(_) => (StatusCode::SERVICE_UNAVAILABLE, None),
            E::Store(_) | E::Disk(..) => (StatusCode::INTERNAL_SERVER_ERROR, None),
        };
        let reason =
            matches!(e, E::NoMember(_)).then_some("No member of the room that has it can be reached");
        Self { reason, ..Self::error(status, &e.to_string(), retry_after) }
    }
}

pub(super) fn upstream(e: &UpstreamError) -> StatusCode {
    match e {
        UpstreamError::Busy { .. } | UpstreamError::Avoided { .. } | UpstreamError::Closed => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        // Somebody behind us has seen it: whoever set this up should.
        UpstreamError::Status { code: 508, .. } => StatusCode::LOOP_DETECTED,
        UpstreamError::TimedOut { .. } | UpstreamError::TooSlow { .. } => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    }
}
