//! The proxy door: apt asks for `http://HOST/PATH` of its sources.
//!
//! What a path names by its digest is an artifact like any other; everything else is handed through.

use std::sync::Arc;
use std::time::Duration;

use http::request::Parts as Request;
use http::{HeaderValue, Method, StatusCode, Version, header};

use crate::base::{Access, Artifact, Trail, limits};
use crate::eco::apt::{self, Refusal, Source, Target, Want};
use crate::fetch::{Content, Fetch, FetchError, Through};
use crate::rt::Clock;
use crate::upstream::{Ask, Head, Method as Asking, Range, Status};

use super::body::Out;
use super::content::{content_reply, text};
use super::metrics::Cache;
use super::reply::Reply;

/// Answers requests to a proxy.
#[derive(Clone)]
pub(super) struct Apt {
    pub(super) fetch: Fetch,
    pub(super) clock: Clock,
    pub(super) sources: Vec<Source>,
}

impl Apt {
    /// The same for a request that came through other nodes.
    pub(super) fn on_behalf(&self, trail: Arc<Trail>) -> Self {
        Self { fetch: self.fetch.on_behalf(trail), ..self.clone() }
    }

    /// Whether a source is at this host and port.
    pub(super) fn knows(&self, authority: &str) -> bool {
        let origin = url::Url::parse(&format!("http://{authority}/")).map(|url| url.origin());
        origin.is_ok_and(|origin| self.sources.iter().any(|source| source.url.origin() == origin))
    }

    /// The answer to a request in absolute form.
    pub(super) async fn answer(&self, request: &Request) -> Reply {
        let target = Target {
            scheme: request.uri.scheme_str().unwrap_or_default(),
            authority: request.uri.authority().map_or("", |a| a.as_str()),
            path: request.uri.path(),
            query: request.uri.query(),
        };
        match apt::want(&self.sources, target) {
            Ok(want) => self.give(request, want).await.unwrap_or_else(|e| Reply::from(&e)),
            Err(e) => refusal(&e),
        }
    }

    async fn give(&self, request: &Request, want: Want<'_>) -> Result<Reply, FetchError> {
        if let Some(digest) = want.digest {
            let whole = |content| content_reply(request, content, &self.clock, by_hash);
            let found = self.fetch.load(&digest).await?;
            let ours = |c: &Content| c.access() == Access::Public || c.upstream() == want.source.name;
            // What another upstream gave to those only whom it knows is handed through, if the source has it too.
            let apart = found.as_ref().is_some_and(|content| !ours(content));
            if let Some(content) = found.filter(ours) {
                return Ok(whole(content));
            }
            if request.method == Method::GET && !apart {
                let artifact = Artifact {
                    upstream: want.source.name.clone(),
                    url: want.url,
                    digest: Some(digest),
                    size: None,
                    filename: want.filename,
                    access: want.source.access,
                    limit_bytes: limits::ARTIFACT_BYTES,
                };
                let content = self.fetch.open(artifact).await?;
                return Ok(whole(ended(request, content).await?));
            }
        }
        let ask = ask(request);
        let through = self.fetch.through(&want.source.name, want.url, want.filename, ask).await;
        match through {
            Ok(through) => Ok(through_reply(request, through)),
            Err(e @ FetchError::Missing(_)) => {
                let text = Out::full(format!("dpm: {e}\n"));
                Ok(Reply::new(StatusCode::NOT_FOUND, Cache::Bypass, text))
            }
            Err(e) => Err(e),
        }
    }

    /// The answer to a machine that looks for an apt proxy, as apt-cacher-ng gives it; `None` for everybody else.
    pub(super) fn probed(&self, request: &Request) -> Option<Reply> {
        let asks = text(request, header::USER_AGENT).is_some_and(apt::asks_what_we_are);
        (asks && !self.sources.is_empty()).then(|| {
            let text = "dpm: usage information: Acquire::http::Proxy \"http://HOST:PORT/\";";
            let mut reply = Reply::text(StatusCode::NOT_ACCEPTABLE, text);
            reply.reason = Some("Usage Information");
            reply
        })
    }
}

/// HTTP/1.0 ends a body of unknown size with the connection: a cut would look like the end.
async fn ended(request: &Request, content: Content) -> Result<Content, FetchError> {
    match content.size {
        None if request.version == Version::HTTP_10 => content.whole().await,
        _ => Ok(content),
    }
}

fn by_hash(reply: &mut Reply, etag: Option<&str>) {
    reply.set(header::CONTENT_TYPE, "application/octet-stream");
    reply.set(header::CACHE_CONTROL, "public, max-age=31536000, immutable");
    if let Some(etag) = etag {
        reply.put(header::ETAG, &format!("\"{etag}\""));
    }
}

/// What apt's request asks of the upstream.
fn ask(request: &Request) -> Ask {
    let owned = |name| text(request, name).map(str::to_owned);
    let range = text(request, header::RANGE).and_then(range).filter(|_| request.method == Method::GET);
    Ask {
        method: if request.method == Method::HEAD { Asking::Head } else { Asking::Get },
        accept: None,
        page: false,
        range,
        if_range: range.and_then(|_| owned(header::IF_RANGE)),
        etag: owned(header::IF_NONE_MATCH),
        last_modified: owned(header::IF_MODIFIED_SINCE),
        anew: text(request, header::CACHE_CONTROL)
            .is_some_and(|v| v.contains("max-age=0") || v.contains("no-cache")),
        verbatim: true,
    }
}

/// `bytes=FIRST-` and `bytes=FIRST-LAST`. Any other is ignored, as RFC 9110 §14.2 allows: apt asks for no other.
fn range(header: &str) -> Option<Range> {
    let (first, last) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let first = first.parse().ok().filter(|_| digits(first))?;
    let last = match last {
        "" => None,
        last => Some(last.parse().ok().filter(|n| digits(last) && *n >= first)?),
    };
    Some(Range { first, last })
}

fn through_reply(request: &Request, through: Through) -> Reply {
    let Through { status, head, body } = through;
    let code = match status {
        Status::Ok => StatusCode::OK,
        Status::Partial { .. } => StatusCode::PARTIAL_CONTENT,
        Status::NotModified => StatusCode::NOT_MODIFIED,
        Status::Missing => StatusCode::NOT_FOUND,
    };
    let sends = matches!(status, Status::Ok | Status::Partial { .. });
    let out = match (sends, request.method == Method::HEAD) {
        (false, _) => Out::empty(),
        (true, true) => head.length.map_or_else(Out::empty, Out::told),
        // As in `ended`, but nothing is kept that could be told first.
        (true, false) if head.length.is_none() && request.version == Version::HTTP_10 => {
            let text = "dpm: the upstream does not say how long this is, and HTTP/1.0 could not tell its end";
            return Reply::text(StatusCode::BAD_GATEWAY, text);
        }
        (true, false) => Out::stream(body),
    };
    let mut reply = Reply::new(code, Cache::Bypass, out);
    if let (true, Some(length)) = (sends, head.length) {
        reply.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if let Status::Partial { first, last, total } = status {
        let total = total.map_or("*".into(), |total| total.to_string());
        reply.put(header::CONTENT_RANGE, &format!("bytes {first}-{last}/{total}"));
    }
    let Head { etag, last_modified, content_type, accept_ranges, .. } = head;
    let kept =
        [(header::ETAG, etag), (header::LAST_MODIFIED, last_modified), (header::CONTENT_TYPE, content_type)];
    for (name, value) in kept {
        if let Some(value) = value {
            reply.put(name, &value);
        }
    }
    if accept_ranges {
        reply.set(header::ACCEPT_RANGES, "bytes");
    }
    reply.age(Duration::ZERO);
    reply
}

fn refusal(e: &Refusal) -> Reply {
    match e {
        Refusal::Stranger { seems } => {
            let text = format!(
                "dpm: {e}. To have it answered, name it in dpm.toml, beside all others (there are no learned ones then):\n\n\
                 [apt]\nupstreams = [\"{seems}\"]"
            );
            Reply::text(StatusCode::FORBIDDEN, &text)
        }
        Refusal::Scheme => Reply::text(StatusCode::FORBIDDEN, &format!("dpm: {e}; {DIRECT}")),
        Refusal::Authority | Refusal::Query | Refusal::Path(_) => {
            Reply::text(StatusCode::BAD_REQUEST, &format!("dpm: {e}"))
        }
    }
}

/// What to tell a client that would go to https through here.
pub(super) const DIRECT: &str =
    "let https go past dpm: Acquire::https::Proxy \"DIRECT\"; in a file below /etc/apt/apt.conf.d";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let is = |first, last| Some(Range { first, last });
        let cases = [
            ("bytes=5-", is(5, None)),
            ("bytes=0-0", is(0, Some(0))),
            ("bytes=-5", None),
            ("bytes=5-4", None),
            ("bytes=0-1,3-4", None),
            ("bytes=+1-", None),
            ("bytes=1-+2", None),
            ("lines=1-", None),
            ("", None),
        ];
        for (header, want) in cases {
            assert_eq!(range(header), want, "{header}");
        }
    }

    #[test]
    fn what_is_asked() {
        let request = http::Request::get("http://deb.example.org/x")
            .header(header::RANGE, "bytes=7-")
            .header(header::IF_RANGE, "Sun, 06 Nov 1994 08:49:37 GMT")
            .header(header::CACHE_CONTROL, "max-age=0")
            .body(())
            .unwrap();
        let got = ask(&request.into_parts().0);
        let if_range = Some("Sun, 06 Nov 1994 08:49:37 GMT".to_owned());
        let range = Some(Range { first: 7, last: None });
        assert_eq!(got, Ask { range, if_range, anew: true, verbatim: true, ..Ask::default() });
        let request = http::Request::head("http://deb.example.org/x")
            .header(header::RANGE, "bytes=7-")
            .header(header::IF_RANGE, "\"a\"")
            .header(header::IF_MODIFIED_SINCE, "Sun, 06 Nov 1994 08:49:37 GMT")
            .body(())
            .unwrap();
        let got = ask(&request.into_parts().0);
        assert_eq!((got.method, got.range, got.if_range.as_deref()), (Asking::Head, None, None));
        assert_eq!(got.last_modified.as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    }
}
