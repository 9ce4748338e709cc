//! One upstream index: where it is, whose names it owns, who may read it.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::base::Secret;

/// One upstream Python index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// Its name in logs, metrics and the store: `[a-z0-9._-]+`.
    pub name: String,
    /// The URL of the simple API; ends with `/`, has no user, query or fragment.
    pub url: Url,
    /// Further places that its files may be fetched from.
    pub files: Vec<Url>,
    /// Globs (`corp-*`) of names that belong to this index and are never asked of another; normalised by PEP 503.
    pub owns: Vec<String>,
    /// Its artifacts are not for everybody: never shown to peers.
    pub private: bool,
    /// Its artifacts are given to peers although it is private: the operator says so by name.
    pub peers: bool,
    /// User for Basic authentication.
    pub username: Option<String>,
    /// Password or token for Basic authentication.
    pub password: Option<Secret>,
    /// Who named it.
    pub origin: Origin,
}

/// Who named an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// This configuration file.
    File(PathBuf),
    /// `--upstream`.
    Flag,
    /// `$DPM_UPSTREAM`.
    Environment,
    /// A package client on this machine, by this setting of it.
    Learned(String),
    /// Nobody: everybody knows it.
    WellKnown,
}

impl Index {
    /// An index at a URL as people write it: userinfo is taken apart, a missing `/` is added.
    ///
    /// Private when the URL has credentials, or when it was learned and its host is one of a private network.
    pub fn from_url(name: String, url: &str, origin: Origin) -> Result<Self, BadUrl> {
        let mut url = http_url(url)?;
        if url.query().is_some() {
            return Err(BadUrl::Query);
        }
        let username = Some(percent_decode(url.username())).filter(|name| !name.is_empty());
        let password = url.password().map(|password| Secret::new(percent_decode(password)));
        url = without_userinfo(&url);
        url.set_fragment(None);
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let learned = matches!(origin, Origin::Learned(_));
        let private = username.is_some() || password.is_some() || (learned && looks_internal(&url));
        Ok(Self {
            name,
            url,
            files: Vec::new(),
            owns: Vec::new(),
            private,
            peers: false,
            username,
            password,
            origin,
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Flag => f.write_str("--upstream"),
            Self::Environment => f.write_str("$DPM_UPSTREAM"),
            Self::Learned(from) => f.write_str(from),
            Self::WellKnown => f.write_str("well known"),
        }
    }
}

/// The name of the index at this place of the list when nobody gave one.
pub(crate) fn default_name(place: usize) -> String {
    if place == 0 { "pypi".into() } else { format!("pypi-{}", place + 1) }
}

/// An absolute http(s) URL with a host.
pub(crate) fn http_url(text: &str) -> Result<Url, BadUrl> {
    let url = Url::parse(text.trim()).map_err(|_| BadUrl::NotUrl)?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(BadUrl::Scheme),
    }
}

/// The same URL as may be shown.
pub(crate) fn without_userinfo(url: &Url) -> Url {
    let mut url = url.clone();
    // These fail only for URLs that cannot have userinfo, which then have none.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// Whether a URL's host is this machine by its very name.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Whether a host is, by its name or address, one that only a private network knows.
pub(crate) fn looks_internal(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let last = name.rsplit('.').next().unwrap_or(name);
            !name.contains('.')
                || matches!(last, "internal" | "local" | "localhost" | "lan" | "corp" | "intranet" | "home")
                || name.ends_with(".home.arpa")
        }
        Some(Host::Ipv4(ip)) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        Some(Host::Ipv6(ip)) => match ip.to_canonical() {
            IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unique_local() || ip.is_loopback() || ip.is_unicast_link_local(),
        },
        None => false,
    }
}

/// Userinfo as it is sent: RFC 3986, 2.1. What decodes to no UTF-8 is left as it was.
fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|&c| (c as char).to_digit(16));
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high << 4 | low) as u8);
                at += 3;
            }
            (byte, _, _) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

/// Why a text is no URL of an index. Never repeats the text: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// No absolute URL.
    #[error("not an absolute URL, as https://index.example.org/simple/ is")]
    NotUrl,
    /// Not http or https.
    #[error("an upstream is reached by http or https only")]
    Scheme,
    /// Has a query, to which no path can be added.
    #[error("the URL of an index has no query (?…)")]
    Query,
    /// A path that is none of a registry's.
    #[error("the URL of a registry has no path, or one that begins with /v2/")]
    NotRegistry,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let index = |url| Index::from_url("pypi".into(), url, Origin::Flag);
        let i = index("https://me%40x:p%3Aw@index.example.org:8443/simple#top").unwrap();
        assert_eq!(i.url.as_str(), "https://index.example.org:8443/simple/");
        assert_eq!(i.username.as_deref(), Some("me@x"));
        assert_eq!(i.password.as_ref().map(Secret::reveal), Some("p:w"));
        assert!(i.private);
        assert!(!format!("{i:?}").contains("p:w"));
        assert!(!index("https://index.example.org").unwrap().private);
        assert_eq!(index("/simple").unwrap_err(), BadUrl::NotUrl);
        assert_eq!(index("ftp://example.org/").unwrap_err(), BadUrl::Scheme);
        assert_eq!(index("https://example.org/?a").unwrap_err(), BadUrl::Query);
    }

    #[test]
    fn learned_on_a_private_network_is_private() {
        let cases = [
            ("http://10.1.2.3/simple", true),
            ("http://[fd00::1]/simple", true),
            ("http://nexus/simple", true),
            ("https://pypi.corp/simple", true),
            ("https://index.example.org/simple", false),
            ("http://[2001:db8::1]/simple", false),
        ];
        for (url, private) in cases {
            let index = Index::from_url("a".into(), url, Origin::Learned("x".into())).unwrap();
            assert_eq!(index.private, private, "{url}");
        }
    }
}
