//! Registries' tokens: who may be asked for one, and those that were given.

use std::io::Read;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderValue;
use lru::LruCache;
use serde::Deserialize;
use url::{Host, Url};

use super::challenge::Bearer;
use super::error::origin_text;
use super::settings::TOKEN_BYTES;
use super::{Answer, Credentials, Site, UpstreamError};

/// What was given for one scope of one upstream. The upstream's name stands for its realm, its service and who we are
/// to it: a configuration has one of each.
type Place = Arc<Mutex<Held>>;

/// What came of the last challenge.
#[derive(Default)]
pub(super) struct Held {
    pub(super) grant: Option<Grant>,
    /// When nothing came of it, and why: whoever waited meanwhile need not try as well.
    pub(super) failed: Option<(Instant, UpstreamError)>,
}

/// The tokens that were given.
pub(super) struct Tokens {
    places: Mutex<LruCache<(String, String), Place>>,
}

/// What a registry takes for an answer to its challenge.
pub(super) struct Grant {
    header: HeaderValue,
    pub(super) since: Instant,
    until: Instant,
}

/// Scopes whose tokens are kept: a repository each, some 3 KiB.
const MOST: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// How long a token is good whose giver does not say ("Token Authentication Specification").
const USUAL_TIME: Duration = Duration::from_secs(60);

/// The longest that a token is kept, and credentials are sent without being asked for.
const LONGEST_TIME: Duration = Duration::from_secs(3600);

/// The part of a token's time in which it is not used any more, as a divisor: requests take time, and clocks differ.
const MARGIN: u32 = 10;

/// Time for an answer with a token to come as a whole: others wait for it.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// Largest answer with a token, in bytes: real ones have up to 12 KiB, as they hold the token twice.
const ANSWER_BYTES: u64 = 64 << 10;

impl Default for Tokens {
    fn default() -> Self {
        Self { places: Mutex::new(LruCache::new(MOST)) }
    }
}

impl Tokens {
    /// Where the token for this request is kept. Whoever gets one holds the lock meanwhile, so that one is got for all.
    pub(super) fn place(&self, site: &Site, url: &Url) -> Place {
        let key = (site.name.clone(), scope(url).unwrap_or_default());
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.get_or_insert(key, Place::default).clone()
    }

    /// What the request may say of us, if that is known and still good.
    pub(super) fn current(&self, site: &Site, url: &Url, now: Instant) -> Option<HeaderValue> {
        let place = self.place(site, url);
        let held = place.lock().unwrap_or_else(PoisonError::into_inner);
        held.grant.as_ref().filter(|grant| now < grant.until).map(|grant| grant.header.clone())
    }
}

impl Grant {
    /// The credentials themselves.
    pub(super) fn basic(credentials: &Credentials) -> Result<Self, UpstreamError> {
        let since = Instant::now();
        Ok(Self { header: credentials.basic()?, since, until: since + LONGEST_TIME })
    }

    /// Reads what a realm answers.
    pub(super) fn read(answer: &mut Answer) -> Result<Self, UpstreamError> {
        let origin = origin_text(&answer.url);
        let wrong = |why: &str| UpstreamError::Protocol { origin: origin.clone(), why: why.into() };
        let (mut text, mut buffer) = (Vec::new(), [0; 4 << 10]);
        let deadline = Instant::now() + ANSWER_TIME;
        let mut body = answer.body.by_ref().take(ANSWER_BYTES + 1);
        loop {
            let read = body.read(&mut buffer).map_err(|e| {
                UpstreamError::of(&e).cloned().unwrap_or_else(|| wrong("a token that breaks off"))
            })?;
            if read == 0 {
                break;
            }
            if Instant::now() > deadline {
                return Err(UpstreamError::TooSlow { origin: origin.clone() });
            }
            text.extend_from_slice(&buffer[..read]);
        }
        if text.len() as u64 > ANSWER_BYTES {
            return Err(wrong("a token of many kilobytes"));
        }
        Self::parse(&text, Instant::now()).ok_or_else(|| wrong("an answer without a token"))
    }

    fn parse(text: &[u8], now: Instant) -> Option<Self> {
        let Given { token, access_token, expires_in } = serde_json::from_slice(text).ok()?;
        let token = token.or(access_token).filter(|t| !t.is_empty() && t.len() <= TOKEN_BYTES)?;
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        header.set_sensitive(true);
        let time = expires_in.map_or(USUAL_TIME, |s| Duration::from_secs_f64(s.clamp(0.0, 1e6)));
        let time = time.min(LONGEST_TIME);
        Some(Self { header, since: now, until: now + (time - time / MARGIN) })
    }
}

#[derive(Deserialize)]
struct Given {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

/// The address to ask for a token that allows reading what `url` names.
///
/// Errors with [`UpstreamError::RedirectRefused`] when the realm is none of the registry's own: it would get the
/// credentials (CVE-2026-33540).
pub(super) fn question(site: &Site, url: &Url, bearer: &Bearer) -> Result<Url, UpstreamError> {
    let realm = Url::parse(&bearer.realm).map_err(|_| UpstreamError::Protocol {
        origin: origin_text(url),
        why: "a realm that is no URL".into(),
    })?;
    if !is_own(site, &realm) {
        return Err(UpstreamError::RedirectRefused { to: origin_text(&realm) });
    }
    super::ask::check_url(&realm)?;
    let mut question = realm;
    question.set_fragment(None);
    {
        let mut query = question.query_pairs_mut();
        if let Some(service) = &bearer.service {
            query.append_pair("service", service);
        }
        if let Some(scope) = scope(url) {
            query.append_pair("scope", &scope);
        }
    }
    Ok(question)
}

/// Whether a realm belongs to whom the registry belongs to: the configuration names it, it is the same host, or it is
/// under the same name that can be registered ("example.co.uk").
fn is_own(site: &Site, realm: &Url) -> bool {
    let downgrade = site.url.scheme() == "https" && realm.scheme() != "https";
    let same = || realm.host() == site.url.host();
    let related = || match (site.url.host(), realm.host()) {
        (Some(Host::Domain(ours)), Some(Host::Domain(theirs))) => {
            let (ours, theirs) = (psl::domain_str(ours), psl::domain_str(theirs));
            ours.is_some() && ours == theirs
        }
        _ => false,
    };
    !downgrade && (site.names(realm) || same() || related())
}

/// `repository:NAME:pull` for an address below a repository.
fn scope(url: &Url) -> Option<String> {
    let below = url.path().strip_prefix("/v2/")?;
    let kinds = ["/manifests/", "/blobs/", "/tags/", "/referrers/"];
    let end = kinds.iter().filter_map(|kind| below.rfind(kind)).max()?;
    Some(format!("repository:{}:pull", &below[..end]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Protocol;

    fn site(url: &str) -> Site {
        Site {
            name: "r".into(),
            url: url.parse().unwrap(),
            also: vec!["https://login.example.net/".parse().unwrap()],
            credentials: None,
            protocol: Protocol::Registry { accept: "*/*" },
        }
    }

    #[test]
    fn whose_realm_it_is() {
        let cases = [
            ("https://registry-1.docker.io/v2/", "https://auth.docker.io/token", true),
            ("https://ghcr.io/v2/", "https://ghcr.io/token", true),
            ("https://registry.example.co.uk/v2/", "https://login.example.co.uk/t", true),
            ("https://registry.example.co.uk/v2/", "https://evil.co.uk/t", false),
            ("https://registry.example.org/v2/", "https://login.example.net/t", true),
            ("https://registry.example.org/v2/", "https://login.example.net:444/t", false),
            ("https://registry.example.org/v2/", "https://example.org.evil.net/t", false),
            ("https://registry.example.org/v2/", "http://registry.example.org/t", false),
            ("https://registry.example.org/v2/", "https://192.0.2.1/t", false),
            ("https://registry.example.org/v2/", "https://localhost/t", false),
            ("https://a.github.io/v2/", "https://b.github.io/t", false),
            ("http://127.0.0.1:5000/v2/", "http://127.0.0.1:5001/t", true),
            ("http://127.0.0.1:5000/v2/", "http://127.0.0.2:5000/t", false),
            ("http://registry:5000/v2/", "http://registry/t", true),
            ("http://registry:5000/v2/", "http://other/t", false),
        ];
        for (registry, realm, want) in cases {
            assert_eq!(is_own(&site(registry), &realm.parse().unwrap()), want, "{registry} {realm}");
        }
    }

    #[test]
    fn questions() {
        let url: Url = "https://r.example.org/v2/library/alpine/manifests/latest".parse().unwrap();
        let ask = |realm: &str, service: Option<&str>| {
            let bearer = Bearer { realm: realm.into(), service: service.map(str::to_owned) };
            question(&site("https://r.example.org/v2/"), &url, &bearer).map(|url| url.to_string())
        };
        assert_eq!(
            ask("https://r.example.org/token?a=b", Some("r & co")).unwrap(),
            "https://r.example.org/token?a=b&service=r+%26+co&scope=repository%3Alibrary%2Falpine%3Apull"
        );
        for realm in ["", "/token", "https://evil.net/", "https://u:p@r.example.org/", "file:///etc/passwd"] {
            assert!(ask(realm, None).is_err(), "{realm}");
        }
    }

    #[test]
    fn scopes() {
        let cases = [
            ("https://r/v2/a/manifests/latest", Some("repository:a:pull")),
            ("https://r/v2/a/b/blobs/sha256:00", Some("repository:a/b:pull")),
            ("https://r/v2/blobs/manifests/tags/list", Some("repository:blobs/manifests:pull")),
            ("https://r/v2/", None),
            ("https://r/token", None),
        ];
        for (url, want) in cases {
            assert_eq!(scope(&url.parse().unwrap()).as_deref(), want, "{url}");
        }
    }

    #[test]
    fn tokens() {
        let now = Instant::now();
        let seconds = |text: &str| {
            let grant = Grant::parse(text.as_bytes(), now)?;
            Some((grant.header.to_str().unwrap().to_owned(), (grant.until - now).as_secs()))
        };
        let of = |token: &str, seconds| Some((format!("Bearer {token}"), seconds));
        let long = format!("{{\"token\":\"{}\"}}", "a".repeat(TOKEN_BYTES + 1));
        let cases = [
            (r#"{"token":"a","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}"#, of("a", 270)),
            (r#"{"access_token":"b"}"#, of("b", 54)),
            (r#"{"token":"a","access_token":"b","expires_in":1e300}"#, of("a", 3240)),
            (r#"{"token":"a","expires_in":-5}"#, of("a", 0)),
            (r#"{"token":"a\r\nx: y"}"#, None),
            (r#"{"token":""}"#, None),
            (r#"{}"#, None),
            ("<html>", None),
            (long.as_str(), None),
        ];
        for (text, want) in cases {
            assert_eq!(seconds(text), want, "{}", &text[..text.len().min(80)]);
        }
    }
}
