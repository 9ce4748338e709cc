//! The answer with an artifact's bytes: conditions, ranges, and what it says of itself, whatever the ecosystem.

use std::time::Duration;

use http::request::Parts as Request;
use http::{HeaderValue, Method, StatusCode, header};

use crate::fetch::{Content, Via};
use crate::rt::Clock;

use super::body::Out;
use super::conditions::{Ranged, if_range_holds, matches, ranged};
use super::metrics::Cache;
use super::reply::Reply;

/// What an answer's `X-Cache` says of where content comes from.
pub(super) fn cache(via: Via) -> Cache {
    match via {
        Via::Store => Cache::Hit,
        Via::Upstream => Cache::Miss,
        Via::Peer => Cache::Peer,
        Via::Passed => Cache::Bypass,
    }
}

/// Answers with content: all of it or the range that is asked for, or that nothing has changed (RFC 9110 §13, §14).
///
/// `headers` sets what the ecosystem says of it; it gets the digest in hex, which is the entity tag.
pub(super) fn content_reply(
    request: &Request,
    content: Content,
    clock: &Clock,
    headers: impl Fn(&mut Reply, Option<&str>),
) -> Reply {
    let cache = cache(content.via);
    let etag = content.digest.map(|d| d.hex());
    let age = content.stored_at.map_or(Duration::ZERO, |at| clock.now().since(at));
    let quoted = etag.as_ref().map(|e| format!("\"{e}\""));
    if let (Some(etag), Some(wanted)) = (&quoted, text(request, header::IF_NONE_MATCH))
        && matches(wanted, etag)
    {
        let mut reply = Reply::new(StatusCode::NOT_MODIFIED, cache, Out::empty());
        headers(&mut reply, content.digest.map(|d| d.hex()).as_deref());
        reply.age(age);
        return reply;
    }
    let holds = if_range_holds(text(request, header::IF_RANGE), quoted.as_deref());
    let range = text(request, header::RANGE).filter(|_| holds && request.method == Method::GET);
    let range = match (range, content.size) {
        (Some(range), Some(size)) => ranged(range, size),
        _ => Ranged::Whole,
    };
    let size = content.size;
    let mut reply = match (range, size) {
        (Ranged::Unsatisfiable, Some(size)) => {
            let mut reply = Reply::text(StatusCode::RANGE_NOT_SATISFIABLE, "dpm: the file ends before that");
            reply.put(header::CONTENT_RANGE, &format!("bytes */{size}"));
            return reply;
        }
        (Ranged::Part { first, length }, Some(size)) => {
            let body = Out::stream(content.body(first, Some(length)));
            let mut reply = Reply::new(StatusCode::PARTIAL_CONTENT, cache, body);
            let range = format!("bytes {first}-{}/{size}", first + length - 1);
            reply.put(header::CONTENT_RANGE, &range);
            reply
        }
        (_, Some(size)) if request.method == Method::HEAD => {
            let mut reply = Reply::new(StatusCode::OK, cache, Out::told(size));
            reply.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
            reply
        }
        _ => Reply::new(StatusCode::OK, cache, Out::stream(content.body(0, None))),
    };
    if size.is_some() {
        reply.set(header::ACCEPT_RANGES, "bytes");
    }
    headers(&mut reply, etag.as_deref());
    reply.age(age);
    reply
}

/// A header of a request, if it is text.
pub(super) fn text(request: &Request, name: header::HeaderName) -> Option<&str> {
    request.headers.get(name)?.to_str().ok()
}
