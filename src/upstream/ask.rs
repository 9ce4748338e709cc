//! What is asked, and of whom.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::UpstreamError;
use super::error::origin_text;
use super::resolver::Reach;
use super::settings::URL_BYTES;
use crate::base::Secret;

/// One configured upstream: where it is, where else its files may be, and who we are to it.
#[derive(Clone)]
pub struct Site {
    /// Its name in the configuration.
    pub name: String,
    /// Where it is. Its origin is the only one that gets the credentials.
    pub url: Url,
    /// Further origins that the configuration allows, at any address: file hosts, CDNs.
    pub also: Vec<Url>,
    /// Sent to the origin of `url` only, and for a registry to whom it names for its tokens.
    pub credentials: Option<Credentials>,
    /// How it wants to be asked.
    pub protocol: Protocol,
}

/// How an upstream wants to be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Plain HTTP; credentials go with every request.
    #[default]
    Plain,
    /// An OCI registry: it says with a challenge what it wants to see, most often a token, and it may send a client
    /// for a blob to any host of the internet, whose bytes the digest proves.
    Registry {
        /// `Accept` where a question does not say: registries hand some manifests only to those who can read them.
        accept: &'static str,
    },
}

/// A name and a password or token, sent as HTTP Basic (RFC 7617).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// Without a colon.
    pub username: String,
    /// A password or token.
    pub password: Secret,
}

/// What is asked of an upstream. The default is a plain `GET` of the bytes as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// With or without a body.
    pub method: Method,
    /// `Accept`; anything when absent.
    pub accept: Option<String>,
    /// An index page: may come compressed, and is decoded here. Otherwise the bytes are asked for as they are.
    pub page: bool,
    /// Only these bytes. A range is never compressed, whatever `page` says.
    pub range: Option<Range>,
    /// `If-Range`: a strong ETag or a date, to get everything when the file changed. Needs `range`.
    pub if_range: Option<String>,
    /// `If-None-Match`: an ETag as it came.
    pub etag: Option<String>,
    /// `If-Modified-Since`: a `Last-Modified` as it came.
    pub last_modified: Option<String>,
    /// Caches on the way are to ask again (`Cache-Control: max-age=0`).
    pub anew: bool,
    /// The bytes as they are sent, whatever the answer calls their encoding. Some servers say `x-gzip` of a `.gz` that
    /// is meant to stay one.
    pub verbatim: bool,
}

/// The request method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Head and body.
    #[default]
    Get,
    /// Head only.
    Head,
}

/// Bytes `first` to `last`, both included, counted from 0; to the end without `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub first: u64,
    /// Last byte, included.
    pub last: Option<u64>,
}

impl Site {
    /// Whether the configuration names this address's origin.
    pub(super) fn names(&self, url: &Url) -> bool {
        let origin = url.origin();
        self.url.origin() == origin || self.also.iter().any(|u| u.origin() == origin)
    }

    /// What the address may lead to.
    pub(super) fn reach(&self, url: &Url) -> Reach {
        if self.names(url) { Reach::Anywhere } else { Reach::Internet }
    }

    /// The `Authorization` for a request to `url`: none outside the site's own origin (CVE-2026-33540).
    pub(super) fn authorization(&self, url: &Url) -> Result<Option<HeaderValue>, UpstreamError> {
        match &self.credentials {
            Some(credentials) if self.url.origin() == url.origin() => credentials.basic().map(Some),
            _ => Ok(None),
        }
    }

    /// What is sent as `Accept` where the question does not say.
    fn accept(&self) -> &'static str {
        match self.protocol {
            Protocol::Plain => "*/*",
            Protocol::Registry { accept } => accept,
        }
    }

    /// See [`Protocol`].
    pub(super) fn is_registry(&self) -> bool {
        matches!(self.protocol, Protocol::Registry { .. })
    }
}

impl Credentials {
    /// As HTTP Basic has them (RFC 7617).
    pub(super) fn basic(&self) -> Result<HeaderValue, UpstreamError> {
        let Self { username, password } = self;
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{}", password.reveal())));
        let mut value =
            HeaderValue::try_from(basic).map_err(|_| UpstreamError::BadAsk { why: "credentials" })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Site")
            .field("name", &self.name)
            .field("origin", &origin_text(&self.url))
            .finish_non_exhaustive()
    }
}

impl Ask {
    /// The request's headers, but for `Authorization`.
    pub(super) fn headers(&self, site: &Site) -> Result<HeaderMap, UpstreamError> {
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, value: &str, why| {
            let value = HeaderValue::from_str(value).map_err(|_| UpstreamError::BadAsk { why })?;
            headers.insert(name, value);
            Ok(())
        };
        put(header::ACCEPT, self.accept.as_deref().unwrap_or(site.accept()), "accept")?;
        let encoding = if self.page && self.range.is_none() { "gzip" } else { "identity" };
        put(header::ACCEPT_ENCODING, encoding, "accept-encoding")?;
        if let Some(etag) = &self.etag {
            put(header::IF_NONE_MATCH, etag, "etag")?;
        }
        if let Some(date) = &self.last_modified {
            put(header::IF_MODIFIED_SINCE, date, "last-modified")?;
        }
        if self.anew {
            put(header::CACHE_CONTROL, "max-age=0", "cache-control")?;
        }
        match (self.range, &self.if_range) {
            (None, None) => {}
            (None, Some(_)) => return Err(UpstreamError::BadAsk { why: "if-range without a range" }),
            (Some(Range { first, last }), if_range) => {
                if last.is_some_and(|last| last < first) {
                    return Err(UpstreamError::BadAsk { why: "an empty range" });
                }
                let last = last.map(|l| l.to_string()).unwrap_or_default();
                put(header::RANGE, &format!("bytes={first}-{last}"), "range")?;
                if let Some(if_range) = if_range {
                    put(header::IF_RANGE, if_range, "if-range")?;
                }
            }
        }
        Ok(headers)
    }

    /// Whether a 304 answers it.
    pub(super) fn is_conditional(&self) -> bool {
        self.etag.is_some() || self.last_modified.is_some()
    }
}

/// Refuses addresses that are never asked, whoever named them.
pub(super) fn check_url(url: &Url) -> Result<(), UpstreamError> {
    let why = if !matches!(url.scheme(), "http" | "https") {
        "only http and https"
    } else if url.host_str().is_none_or(str::is_empty) {
        "no host"
    } else if !url.username().is_empty() || url.password().is_some() {
        "userinfo"
    } else if url.as_str().len() > URL_BYTES {
        "too long"
    } else {
        return Ok(());
    };
    Err(UpstreamError::BadUrl { why })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(protocol: Protocol) -> Site {
        Site {
            name: "x".into(),
            url: "https://example.org/simple/".parse().unwrap(),
            also: vec!["https://files.example.org/".parse().unwrap()],
            credentials: Some(Credentials { username: "u".into(), password: Secret::new("sesame") }),
            protocol,
        }
    }

    #[test]
    fn addresses() {
        let long = format!("https://example.org/{}", "a".repeat(URL_BYTES));
        let cases = [
            ("https://example.org/a?b", None),
            ("ftp://example.org/", Some("only http and https")),
            ("file:///etc/passwd", Some("only http and https")),
            ("https://u@example.org/", Some("userinfo")),
            ("https://:p@example.org/", Some("userinfo")),
            (long.as_str(), Some("too long")),
        ];
        for (url, want) in cases {
            let got = check_url(&url.parse().unwrap()).err();
            assert_eq!(got, want.map(|why| UpstreamError::BadUrl { why }), "{url}");
        }
    }

    #[test]
    fn authorization_stays_at_home() {
        let site = site(Protocol::Plain);
        let cases = [
            ("https://example.org/elsewhere", true),
            ("https://example.org:443/", true),
            ("https://example.org:444/", false),
            ("http://example.org/", false),
            ("https://files.example.org/", false),
            ("https://example.org.example.net/", false),
        ];
        for (url, want) in cases {
            assert_eq!(site.authorization(&url.parse().unwrap()).unwrap().is_some(), want, "{url}");
        }
        assert!(!format!("{site:?}{:?}", site.credentials).contains("sesame"));
    }

    #[test]
    fn contradictions_are_refused() {
        let range = Some(Range { first: 5, last: Some(4) });
        let site = site(Protocol::Plain);
        assert!(Ask { range, ..Ask::default() }.headers(&site).is_err());
        assert!(Ask { if_range: Some("\"a\"".into()), ..Ask::default() }.headers(&site).is_err());
        assert!(Ask { accept: Some("a\r\nb: c".into()), ..Ask::default() }.headers(&site).is_err());
        let range = Some(Range { first: 5, last: None });
        let headers = Ask { range, page: true, anew: true, ..Ask::default() }.headers(&site).unwrap();
        assert_eq!(headers[header::CACHE_CONTROL], "max-age=0");
        assert_eq!(headers[header::RANGE], "bytes=5-");
        assert_eq!(headers[header::ACCEPT_ENCODING], "identity");
        assert_eq!(headers[header::ACCEPT], "*/*");
        let registry = super::Site { protocol: Protocol::Registry { accept: "a/b" }, ..site };
        assert_eq!(Ask::default().headers(&registry).unwrap()[header::ACCEPT], "a/b");
    }
}
