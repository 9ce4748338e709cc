//! Names of repositories, tags and images (OCI distribution specification v1.1, "Pulling manifests").

use std::fmt;

use crate::base::{Algorithm, Digest, DigestError};

/// Longest repository name, with its registry's host, in bytes: what the specification says many clients allow.
const NAME_BYTES: usize = 255;

/// Longest tag in bytes.
const TAG_BYTES: usize = 128;

/// A repository's name: `library/alpine`, of any depth.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository(String);

impl Repository {
    /// Checks a name against the specification's grammar. `None` when it is none: too long, an empty or climbing part,
    /// upper case, an escape.
    pub fn parse(name: &str) -> Option<Self> {
        let sound = name.len() <= NAME_BYTES && name.split('/').all(is_component);
        sound.then(|| Self(name.to_owned()))
    }

    /// As written in paths.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same with `library/` in front of a name of one part, as Docker Hub has it.
    pub fn in_library(self) -> Self {
        if self.0.contains('/') { self } else { Self(format!("library/{}", self.0)) }
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(part: &str) -> bool {
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = part.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    plain(*first)
        && plain(*last)
        && bytes
            .split(|c| plain(*c))
            .all(|between| matches!(between, b"" | b"." | b"_" | b"__") || between.iter().all(|c| *c == b'-'))
}

/// What names a manifest in its repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// Mutable: `latest`.
    Tag(String),
    /// Immutable.
    Digest(Digest),
}

impl Reference {
    /// A tag, or a digest.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        match text.contains(':') {
            true => reference_digest(text).map(Self::Digest),
            false if is_tag(text) => Ok(Self::Tag(text.to_owned())),
            false => Err(DigestError::NoAlgorithm),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => f.write_str(tag),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`
fn is_tag(text: &str) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
    text.len() <= TAG_BYTES
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|c| word(c) || matches!(c, b'.' | b'-'))
}

/// A digest as registries write it: `sha256:` or `sha512:` and lower-case hex (OCI image specification, "Digests").
pub fn reference_digest(text: &str) -> Result<Digest, DigestError> {
    let (algorithm, hex) = text.split_once(':').ok_or(DigestError::NoAlgorithm)?;
    let known = match algorithm {
        "sha256" => Algorithm::Sha256,
        "sha512" => Algorithm::Sha512,
        other => return Err(DigestError::UnknownAlgorithm(other.chars().take(32).collect())),
    };
    if hex.bytes().any(|c| c.is_ascii_uppercase()) {
        return Err(DigestError::NotHex(known));
    }
    Digest::parse(known, hex)
}

/// An image as people write it: `alpine`, `ghcr.io/org/img:1.2`, `localhost:5000/a@sha256:…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The registry, if it was named.
    pub host: Option<String>,
    /// Below the registry.
    pub repository: Repository,
    /// `latest` where nothing was said; the digest where both a tag and a digest were.
    pub reference: Reference,
}

impl Image {
    /// Reads an image reference (Docker's `reference` grammar). A leading `docker://` is left out.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let wrong = || ImageError(text.chars().take(NAME_BYTES).filter(|c| !c.is_control()).collect());
        let rest = text.strip_prefix("docker://").unwrap_or(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(reference_digest(digest).map_err(|_| wrong())?)),
            None => (rest, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong());
        }
        let (host, name) = match rest.split_once('/') {
            Some((host, name)) if is_host(host) => (Some(host.to_ascii_lowercase()), name),
            _ => (None, rest),
        };
        let repository = Repository::parse(name).ok_or_else(wrong)?;
        let tag = || Reference::Tag(tag.unwrap_or("latest").to_owned());
        Ok(Self { host, repository, reference: digest.map_or_else(tag, Reference::Digest) })
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "{host}/")?;
        }
        let between = if matches!(self.reference, Reference::Tag(_)) { ':' } else { '@' };
        write!(f, "{}{between}{}", self.repository, self.reference)
    }
}

/// Whether the first part of a path is a registry's host and no part of a name, by docker's rule.
pub(super) fn is_host(part: &str) -> bool {
    let marked = part == "localhost" || part.contains(['.', ':']) || part.starts_with("localhost_");
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'[' | b']' | b'_');
    marked && part.len() <= NAME_BYTES && part.bytes().all(plain)
}

/// A text that names no image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} names no image, as alpine:3.20, ghcr.io/org/image or image@sha256:… do")]
pub struct ImageError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        let long = "a".repeat(256);
        let cases = [
            ("alpine", true),
            ("library/alpine", true),
            ("a/b/c/d/e/f/g", true),
            ("a.b/c_d/e__f/g---h", true),
            ("0", true),
            ("", false),
            ("/a", false),
            ("a/", false),
            ("a//b", false),
            ("a/../b", false),
            ("..", false),
            (".a", false),
            ("a.", false),
            ("a..b", false),
            ("a___b", false),
            ("a._b", false),
            ("A", false),
            ("a%2fb", false),
            ("a\\b", false),
            ("a b", false),
            ("é", false),
            (long.as_str(), false),
        ];
        for (name, want) in cases {
            assert_eq!(Repository::parse(name).is_some(), want, "{name}");
        }
        assert_eq!(Repository::parse("alpine").unwrap().in_library().as_str(), "library/alpine");
        assert_eq!(Repository::parse("org/alpine").unwrap().in_library().as_str(), "org/alpine");
    }

    #[test]
    fn references() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let long = "t".repeat(129);
        assert_eq!(Reference::parse("latest"), Ok(Reference::Tag("latest".into())));
        assert_eq!(Reference::parse("_1.2-x"), Ok(Reference::Tag("_1.2-x".into())));
        let digest = Reference::parse(&format!("sha256:{hex}")).unwrap();
        assert_eq!(digest.to_string(), format!("sha256:{hex}"));
        let upper = format!("sha256:{}", hex.to_uppercase());
        for bad in ["", ".a", "-a", "a b", "a/b", "..", "sha256:00", "md5:00", "sha1:00", &upper, &long] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn images() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let by_digest = format!("ghcr.io/org/img:1.2@sha256:{hex}");
        let without_tag = format!("ghcr.io/org/img@sha256:{hex}");
        let cases = [
            ("alpine", "alpine:latest"),
            ("alpine:3.20", "alpine:3.20"),
            ("docker://org/app", "org/app:latest"),
            ("GHCR.io/org/img:1.2", "ghcr.io/org/img:1.2"),
            ("localhost:5000/a:b", "localhost:5000/a:b"),
            ("localhost/a", "localhost/a:latest"),
            (by_digest.as_str(), without_tag.as_str()),
        ];
        for (text, want) in cases {
            assert_eq!(Image::parse(text).unwrap().to_string(), want, "{text}");
        }
        for bad in ["", ":", "a:", "A", "a@sha256:00", "ghcr.io/", "a b", "http://example.org/a"] {
            assert!(Image::parse(bad).is_err(), "{bad}");
        }
    }
}
