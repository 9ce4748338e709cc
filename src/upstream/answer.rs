//! What came back: the head of an answer, read once and into our own words. Pure but for [`Answer`] itself.

use std::time::{Duration, SystemTime};

use http::header::{self, HeaderMap, HeaderName};
use url::Url;

use super::{Body, Range};

/// An answer that means something: bytes, "unchanged", or "not there".
#[derive(Debug)]
pub struct Answer {
    /// What it means.
    pub status: Status,
    /// What it says of itself.
    pub head: Head,
    /// Where it came from, after redirects.
    pub url: Url,
    /// Its bytes; none for `HEAD`, [`Status::NotModified`] and [`Status::Missing`].
    pub body: Body,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// 200: all of it, also when a range was asked.
    Ok,
    /// 206: the range that was asked, or as much of it as exists.
    Partial {
        /// First byte.
        first: u64,
        /// Last byte, included.
        last: u64,
        /// Size of the whole, if the upstream knows it.
        total: Option<u64>,
    },
    /// 304: what the ETag or date stands for is still good.
    NotModified,
    /// 404 or 410.
    Missing,
}

/// What an answer says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// `ETag`, as it came.
    pub etag: Option<String>,
    /// `Last-Modified`, as it came.
    pub last_modified: Option<String>,
    /// `Content-Type`, as it came.
    pub content_type: Option<String>,
    /// Bytes that the body will give; for `HEAD`, that `GET` would. `None` when unknown or decoded here.
    pub length: Option<u64>,
    /// Whether the upstream says that it serves ranges.
    pub accept_ranges: bool,
    /// How long the answer stays fresh in a shared cache (RFC 9111 §4.2), its age deducted; `None` when it does
    /// not say.
    pub max_age: Option<Duration>,
    /// Whether it came compressed; the body is decoded.
    pub compressed: bool,
    /// `Docker-Content-Digest`, as it came: what a registry says is the digest of a manifest.
    pub content_digest: Option<String>,
    /// `Link`, as it came: where the next page of a list is (RFC 8288).
    pub link: Option<String>,
    /// `OCI-Filters-Applied`, as it came.
    pub filters_applied: Option<String>,
}

/// How many requests a registry still answers, as its headers say (`ratelimit-limit: 100;w=21600`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests in all, in a window.
    pub limit: u64,
    /// Requests that are left.
    pub remaining: u64,
    /// The window, if it was said.
    pub window: Option<Duration>,
}

impl RateLimit {
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let read = |name| {
            let value = text(headers, HeaderName::from_static(name))?;
            let mut parts = value.split(';');
            let count: u64 = parts.next()?.trim().parse().ok()?;
            let window = parts.find_map(|p| p.trim().strip_prefix("w=")?.parse::<u64>().ok());
            Some((count, window.map(|seconds| Duration::from_secs(seconds.min(LONGEST_AGE)))))
        };
        let ((limit, window), (remaining, other)) = (read("ratelimit-limit")?, read("ratelimit-remaining")?);
        Some(Self { limit, remaining, window: window.or(other) })
    }
}

impl Head {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self {
            etag: text(headers, header::ETAG),
            last_modified: text(headers, header::LAST_MODIFIED),
            content_type: text(headers, header::CONTENT_TYPE),
            length: length(headers),
            accept_ranges: text(headers, header::ACCEPT_RANGES)
                .is_some_and(|v| v.eq_ignore_ascii_case("bytes")),
            max_age: max_age(headers),
            compressed: false,
            content_digest: text(headers, HeaderName::from_static("docker-content-digest")),
            link: text(headers, header::LINK),
            filters_applied: text(headers, HeaderName::from_static("oci-filters-applied")),
        }
    }
}

/// How a body is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Identity,
    Gzip,
    Other(String),
}

/// `Content-Encoding`; several at once count as unknown.
pub(super) fn coding(headers: &HeaderMap) -> Coding {
    let mut names = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .flat_map(|v| v.to_str().unwrap_or("?").split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty() && name != "identity");
    match (names.next(), names.next()) {
        (None, _) => Coding::Identity,
        (Some(name), None) if name == "gzip" || name == "x-gzip" => Coding::Gzip,
        (Some(name), None) => Coding::Other(printable(&name)),
        (Some(_), Some(_)) => Coding::Other("several encodings".into()),
    }
}

/// `Content-Length`, unless the body is chunked.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    text(headers, header::CONTENT_LENGTH)?.parse().ok()
}

/// The status of a 206, if its `Content-Range` is what was asked (RFC 9110 §14.4).
pub(super) fn partial(headers: &HeaderMap, asked: Option<Range>) -> Result<Status, &'static str> {
    let asked = asked.ok_or("206 where no range was asked")?;
    let text = text(headers, header::CONTENT_RANGE).ok_or("no Content-Range")?;
    let (first, last, total) = parse_content_range(&text).ok_or("no proper Content-Range")?;
    if first != asked.first {
        return Err("another first byte than asked");
    }
    let want = match (asked.last, total) {
        (Some(last), Some(total)) => Some(last.min(total - 1)),
        (Some(last), None) => Some(last),
        (None, Some(total)) => Some(total - 1),
        (None, None) => None,
    };
    if want.is_some_and(|want| want != last) {
        return Err("another last byte than asked");
    }
    if length(headers).is_some_and(|length| length != last - first + 1) {
        return Err("Content-Length and Content-Range differ");
    }
    Ok(Status::Partial { first, last, total })
}

/// `bytes first-last/total`, where `first <= last < total < u64::MAX`.
fn parse_content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (unit, rest) = text.trim().split_once(' ')?;
    let (range, total) = rest.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    let total = if total == "*" { None } else { Some(total.parse::<u64>().ok()?) };
    let sound = unit.eq_ignore_ascii_case("bytes")
        && first <= last
        && last < u64::MAX
        && total.is_none_or(|total| last < total);
    sound.then_some((first, last, total))
}

/// `s-maxage`, else `max-age`, less `Age`; zero for `no-cache` and `no-store`.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let (mut shared, mut any) = (None, None);
    for value in headers.get_all(header::CACHE_CONTROL) {
        for directive in value.to_str().unwrap_or_default().split(',') {
            let (name, argument) = directive.split_once('=').unwrap_or((directive, ""));
            let seconds = || argument.trim().trim_matches('"').parse().ok().map(|s: u64| s.min(LONGEST_AGE));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-cache" | "no-store" => return Some(Duration::ZERO),
                // An argument that is no number means stale (RFC 9111 §4.2.1).
                "s-maxage" => shared = Some(seconds().unwrap_or(0)),
                "max-age" => any = Some(seconds().unwrap_or(0)),
                _ => {}
            }
        }
    }
    let age = text(headers, header::AGE).and_then(|age| age.parse().ok()).unwrap_or(0);
    shared.or(any).map(|seconds| Duration::from_secs(seconds.saturating_sub(age)))
}

/// `Retry-After` in seconds or as a date, the latter measured on the upstream's own clock if it tells it.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = text(headers, header::RETRY_AFTER)?;
    if value.bytes().all(|b| b.is_ascii_digit()) {
        // Too many digits for a number are a long time all the same.
        return Some(Duration::from_secs(value.parse().unwrap_or(LONGEST_AGE).min(LONGEST_AGE)));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    let then = date(&value)?;
    let now = text(headers, header::DATE).and_then(|d| date(&d)).unwrap_or(now);
    Some(then.duration_since(now).unwrap_or_default())
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

fn printable(name: &str) -> String {
    name.chars().filter(char::is_ascii_graphic).take(32).collect()
}

/// A year, in seconds: RFC 9111 recommends no more, and it cannot overflow a clock.
const LONGEST_AGE: u64 = 365 * 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    type Lines<'a> = &'a [(&'a str, &'a str)];

    fn headers(lines: Lines) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn freshness() {
        let cases: [(Lines, Option<u64>); 9] = [
            (&[], None),
            (&[("cache-control", "max-age=600, public")], Some(600)),
            (&[("cache-control", "max-age=600"), ("cache-control", "S-MaxAge=\"60\"")], Some(60)),
            (&[("cache-control", "max-age=600"), ("age", "590")], Some(10)),
            (&[("cache-control", "max-age=600"), ("age", "700")], Some(0)),
            (&[("cache-control", "max-age=600, no-cache")], Some(0)),
            (&[("cache-control", "no-store")], Some(0)),
            (&[("cache-control", "max-age=soon")], Some(0)),
            (&[("cache-control", "max-age=999999999999")], Some(LONGEST_AGE)),
        ];
        for (lines, want) in cases {
            assert_eq!(max_age(&headers(lines)), want.map(Duration::from_secs), "{lines:?}");
        }
    }

    #[test]
    fn rests() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        let cases: [(Lines, Option<u64>); 6] = [
            (&[], None),
            (&[("retry-after", "120")], Some(120)),
            (&[("retry-after", "99999999999999999999999")], Some(LONGEST_AGE)),
            (&[("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT")], Some(60)),
            (
                &[
                    ("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT"),
                    ("date", "Sun, 06 Nov 1994 08:50:30 GMT"),
                ],
                Some(7),
            ),
            (&[("retry-after", "later")], None),
        ];
        for (lines, want) in cases {
            assert_eq!(retry_after(&headers(lines), now), want.map(Duration::from_secs), "{lines:?}");
        }
    }

    #[test]
    fn rate_limits() {
        let window = Some(Duration::from_secs(21600));
        let cases: [(Lines, Option<RateLimit>); 5] = [
            (&[], None),
            (&[("ratelimit-limit", "100;w=21600")], None),
            (
                &[("ratelimit-limit", "100;w=21600"), ("RateLimit-Remaining", "76;w=21600")],
                Some(RateLimit { limit: 100, remaining: 76, window }),
            ),
            (
                &[("ratelimit-limit", "10"), ("ratelimit-remaining", "0")],
                Some(RateLimit { limit: 10, remaining: 0, window: None }),
            ),
            (&[("ratelimit-limit", "many"), ("ratelimit-remaining", "-1")], None),
        ];
        for (lines, want) in cases {
            assert_eq!(RateLimit::of(&headers(lines)), want, "{lines:?}");
        }
    }

    #[test]
    fn ranges() {
        let check = |first, last, value: &str| {
            partial(&headers(&[("content-range", value)]), Some(Range { first, last }))
        };
        let is = |first, last, total| Ok(Status::Partial { first, last, total });
        assert_eq!(check(0, Some(9), "bytes 0-9/100"), is(0, 9, Some(100)));
        assert_eq!(check(0, Some(9), "bytes 0-9/*"), is(0, 9, None));
        assert_eq!(check(90, None, "bytes 90-99/100"), is(90, 99, Some(100)));
        assert_eq!(check(90, Some(500), "bytes 90-99/100"), is(90, 99, Some(100)));
        for bad in [
            "bytes 1-9/100",
            "bytes 0-8/100",
            "bytes 0-10/100",
            "bytes 0-9/9",
            "bytes 9-0/100",
            "bytes */100",
            "items 0-9/100",
            "bytes 0-9",
            "bytes 0-18446744073709551615/*",
            "",
        ] {
            assert!(check(0, Some(9), bad).is_err(), "{bad}");
        }
        assert!(partial(&headers(&[("content-range", "bytes 0-9/100")]), None).is_err());
        let lying = headers(&[("content-range", "bytes 0-9/100"), ("content-length", "11")]);
        assert!(partial(&lying, Some(Range { first: 0, last: Some(9) })).is_err());
    }

    #[test]
    fn codings() {
        let of = |value: &str| coding(&headers(&[("content-encoding", value)]));
        assert_eq!(coding(&HeaderMap::new()), Coding::Identity);
        assert_eq!(of("identity"), Coding::Identity);
        assert_eq!(of("X-GZIP"), Coding::Gzip);
        assert_eq!(of("br"), Coding::Other("br".into()));
        assert_eq!(of("gzip, gzip"), Coding::Other("several encodings".into()));
    }
}
