//! What a request to a proxy wants (RFC 9112 §3.2.2, absolute form).

use url::Url;

use super::super::path::{PathError, segment};
use crate::base::{Access, Algorithm, Digest, limits};

/// A source that is answered for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The name of its upstream.
    pub name: String,
    /// Where it is: plain http, ends with `/`, no user, query or fragment.
    pub url: Url,
    /// Who may have what it gives.
    pub access: Access,
}

/// A request's target, as it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// Before `://`.
    pub scheme: &'a str,
    /// Host and port, perhaps with a user.
    pub authority: &'a str,
    /// From the first slash.
    pub path: &'a str,
    /// Behind `?`.
    pub query: Option<&'a str>,
}

/// What a target wants of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want<'a> {
    /// Whose it is.
    pub source: &'a Source,
    /// Where the source has it.
    pub url: Url,
    /// What the path says of the bytes (`by-hash/SHA256/…`): such a file never changes.
    pub digest: Option<Digest>,
    /// The path below the source, for messages.
    pub filename: String,
}

/// Reads a target. Only what lies below one of the sources is wanted: this is no open proxy.
pub fn want<'a>(sources: &'a [Source], target: Target<'_>) -> Result<Want<'a>, Refusal> {
    if target.scheme != "http" {
        return Err(Refusal::Scheme);
    }
    // A name that needs escapes, or a user before it, is another name to somebody.
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if !target.authority.bytes().all(plain) {
        return Err(Refusal::Authority);
    }
    if target.query.is_some() {
        return Err(Refusal::Query);
    }
    if target.path.len() > limits::PATH_BYTES {
        return Err(PathError::TooLong.into());
    }
    let raw = target.path.strip_prefix('/').unwrap_or(target.path);
    // Flat repositories are asked for `./InRelease`, and some name their files with two slashes: neither leads away.
    let raw: Vec<&str> = raw.split('/').filter(|s| *s != ".").collect();
    let decoded = raw.iter().map(|raw| if raw.is_empty() { Ok("".into()) } else { segment(raw) });
    let decoded = decoded.collect::<Result<Vec<_>, _>>()?;
    let origin = Url::parse(&format!("http://{}/", target.authority)).map_err(|_| Refusal::Authority)?;
    let below = |source: &'a Source| {
        let own: Vec<&str> =
            source.url.path().trim_matches('/').split('/').filter(|s| !s.is_empty()).collect();
        let same = own.len() < decoded.len() && own.iter().zip(&decoded).all(|(a, b)| *a == b.as_ref());
        (source.url.origin() == origin.origin() && same).then_some((own.len(), source))
    };
    let Some((depth, source)) = sources.iter().filter_map(below).max_by_key(|(depth, _)| *depth) else {
        return Err(Refusal::Stranger { seems: guess(&origin, &decoded) });
    };
    // Set and not joined: two slashes would begin another host.
    let mut url = origin;
    url.set_path(&format!("/{}", raw.join("/")));
    let names: Vec<&str> = decoded.iter().map(AsRef::as_ref).collect();
    let digest = match names.as_slice() {
        [.., "by-hash", "SHA256", hex] => Digest::parse(Algorithm::Sha256, hex).ok(),
        _ => None,
    };
    Ok(Want { source, url, digest, filename: names[depth..].join("/") })
}

/// What the source would be called in apt's own list: what comes before `dists` and `pool`.
fn guess(origin: &Url, path: &[std::borrow::Cow<'_, str>]) -> String {
    let end = path.iter().position(|s| matches!(s.as_ref(), "dists" | "pool"));
    let end = end.unwrap_or(path.len().saturating_sub(1));
    let mut url = origin.clone();
    url.set_path(&path[..end].iter().map(|s| format!("/{s}")).collect::<String>());
    format!("{}/", url.as_str().trim_end_matches('/'))
}

/// Whether a `GET /` by this `User-Agent` is a machine's question whether an apt proxy is here: `auto-apt-proxy` has
/// apt ask, and takes apt-cacher-ng's refusal for a yes.
pub fn asks_what_we_are(user_agent: &str) -> bool {
    user_agent.starts_with("Debian APT-HTTP/")
}

/// Why a target is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No source of this box.
    #[error("{seems} is no apt source of this box, and dpm is no open proxy")]
    Stranger {
        /// What it seems to be.
        seems: String,
    },
    /// Something else than http.
    #[error("only http is asked of a proxy so")]
    Scheme,
    /// No plain host and port.
    #[error("what stands before the path is no plain host and port")]
    Authority,
    /// No file of apt's has one.
    #[error("a file of an apt source has no query (?…)")]
    Query,
    /// A path that may mean several things.
    #[error("{0}")]
    Path(#[from] PathError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::mutate::mutations;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn sources() -> Vec<Source> {
        let source =
            |url: &str| Source { name: url.into(), url: url.parse().unwrap(), access: Access::Public };
        [
            "http://deb.example.org/debian/",
            "http://deb.example.org/debian/extra/",
            "http://127.0.0.1:8080/",
            "http://[2001:db8::1]:80/x/",
        ]
        .map(source)
        .into()
    }

    /// Splits as HTTP libraries do.
    fn read<'a>(sources: &'a [Source], target: &str) -> Result<Want<'a>, Refusal> {
        let (scheme, rest) = target.split_once("://").unwrap_or(("", target));
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let at = rest.find('/').unwrap_or(rest.len());
        want(sources, Target { scheme, authority: &rest[..at], path: &rest[at..], query })
    }

    #[test]
    fn below_a_source() {
        let sources = sources();
        let cases = [
            (
                "http://deb.example.org/debian/dists/x/InRelease",
                0,
                "/debian/dists/x/InRelease",
                "dists/x/InRelease",
            ),
            ("http://DEB.example.org:80/debian/a%2bb.deb", 0, "/debian/a%2bb.deb", "a+b.deb"),
            ("http://deb.example.org/%64ebian/x", 0, "/%64ebian/x", "x"),
            ("http://deb.example.org/debian/./x", 0, "/debian/x", "x"),
            ("http://deb.example.org/debian//x", 0, "/debian//x", "/x"),
            ("http://deb.example.org/debian/extra/x", 1, "/debian/extra/x", "x"),
            ("http://deb.example.org/debian/extras/x", 0, "/debian/extras/x", "extras/x"),
            ("http://127.0.0.1:8080/x", 2, "/x", "x"),
            (
                "http://127.0.0.1:8080//other.example.org/x",
                2,
                "//other.example.org/x",
                "/other.example.org/x",
            ),
            ("http://[2001:db8::1]/x/y", 3, "/x/y", "y"),
        ];
        for (target, number, path, filename) in cases {
            let want = read(&sources, target).unwrap_or_else(|e| panic!("{target}: {e}"));
            assert_eq!((want.source, want.url.path()), (&sources[number], path), "{target}");
            assert_eq!(want.url.origin(), sources[number].url.origin(), "{target}");
            assert_eq!((want.filename.as_str(), want.digest), (filename, None), "{target}");
        }
    }

    #[test]
    fn what_names_its_bytes() {
        let sources = sources();
        let base = "http://deb.example.org/debian/dists/x/main/binary-all/by-hash";
        let digest = |rest: &str| read(&sources, &format!("{base}/{rest}")).unwrap().digest;
        assert_eq!(digest(&format!("SHA256/{HEX}")).unwrap().hex(), HEX);
        for other in [
            format!("MD5Sum/{}", &HEX[..32]),
            format!("SHA256/{HEX}/x"),
            "SHA256/00".into(),
            "SHA256/".into(),
        ] {
            assert_eq!(digest(&other), None, "{other}");
        }
    }

    #[test]
    fn refused() {
        let sources = sources();
        let stranger = |seems: &str| Refusal::Stranger { seems: seems.into() };
        let cases = [
            (
                "http://other.example.org/debian/dists/x/InRelease",
                stranger("http://other.example.org/debian/"),
            ),
            ("http://other.example.org/flat/./InRelease", stranger("http://other.example.org/flat/")),
            ("http://deb.example.org:8080/debian/x", stranger("http://deb.example.org:8080/debian/")),
            ("http://deb.example.org/debian", stranger("http://deb.example.org/")),
            ("http://deb.example.org/secret/x", stranger("http://deb.example.org/secret/")),
            ("http://deb.example.org//debian/x", stranger("http://deb.example.org//debian/")),
            (
                "http://deb.example.org.example.net/debian/x",
                stranger("http://deb.example.org.example.net/debian/"),
            ),
            ("http://127.0.0.1/x", stranger("http://127.0.0.1/")),
            ("https://deb.example.org/debian/x", Refusal::Scheme),
            ("ftp://deb.example.org/debian/x", Refusal::Scheme),
            ("deb.example.org/debian/x", Refusal::Scheme),
            ("http://u@deb.example.org/debian/x", Refusal::Authority),
            ("http://deb.example.org@other.example.org/debian/x", Refusal::Authority),
            ("http:///debian/x", Refusal::Authority),
            ("http://deb.example.org:99999/debian/x", Refusal::Authority),
            ("http://deb%2eexample.org/debian/x", Refusal::Authority),
            ("http://deb.example.org/debian/x?y", Refusal::Query),
            ("http://deb.example.org/debian/../secret/x", PathError::DotSegment.into()),
            ("http://deb.example.org/debian/%2e%2E/secret", PathError::DotSegment.into()),
            ("http://deb.example.org/debian/%2e/secret", PathError::DotSegment.into()),
            ("http://deb.example.org/debian/..%2fsecret", PathError::Separator.into()),
            ("http://deb.example.org/debian/..\\secret", PathError::Separator.into()),
            ("http://deb.example.org/debian/%0d%0aX:y", PathError::Control.into()),
            ("http://deb.example.org/debian/%zz", PathError::Escape.into()),
        ];
        for (target, refusal) in cases {
            assert_eq!(read(&sources, target).unwrap_err(), refusal, "{target}");
        }
        let long = format!("http://deb.example.org/debian/{}", "x".repeat(limits::PATH_BYTES));
        assert_eq!(read(&sources, &long).unwrap_err(), PathError::TooLong.into());
        assert!(read(&[], "http://deb.example.org/debian/x").is_err());
    }

    #[test]
    fn mutated_targets_stay_below_their_source() {
        let sources = sources();
        let seeds = [
            format!("http://deb.example.org/debian/dists/x/by-hash/SHA256/{HEX}"),
            "http://127.0.0.1:8080/./a%2b/../b".to_owned(),
        ];
        mutations(&seeds.each_ref().map(|s| s.as_bytes()), 20_000, |bytes| {
            let target = String::from_utf8_lossy(bytes);
            if let Ok(want) = read(&sources, &target) {
                assert_eq!(want.url.origin(), want.source.url.origin(), "{target}");
                let path = segment_text(want.url.path());
                assert!(path.starts_with(want.source.url.path()), "{target}: {path}");
            }
        });
    }

    /// A path with its escapes decoded.
    fn segment_text(path: &str) -> String {
        let decode = |s| super::super::super::path::percent_decode(s).unwrap().into_owned();
        path.split('/').map(decode).collect::<Vec<_>>().join("/")
    }

    #[test]
    fn who_asks_what_we_are() {
        assert!(asks_what_we_are("Debian APT-HTTP/1.3 (2.6.1)"));
        assert!(!asks_what_we_are("Mozilla/5.0") && !asks_what_we_are(""));
    }
}
