//! What a path below `/v2` asks for.

use crate::base::{Digest, limits};

use super::name::is_host;
use super::{Reference, Repository, reference_digest};

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// `/v2/`: whether this is a registry, and whether a client has to say who it is.
    Base,
    /// Something of a repository.
    Of(Place, Resource),
    /// A token for a client that has to say who it is.
    Token,
    /// Nothing that can exist here.
    Unknown,
}

/// Whose repository. The registry is what the path or `?ns=` named, in lower case; without one it is the registry at
/// the root.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// A registry's host, with its port.
    pub host: Option<String>,
    /// Below the registry.
    pub repository: Repository,
}

/// What of a repository.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// A manifest or an index of manifests.
    Manifest(Reference),
    /// A layer or a configuration.
    Blob(Digest),
    /// The list of tags.
    Tags,
    /// What refers to a manifest.
    Referrers(Digest),
}

/// What a client can read, as far as a registry's answer depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accepts {
    /// Indexes too.
    Everything,
    /// Manifests of one platform only: clients from before 2017.
    Single,
}

impl Accepts {
    /// From the `Accept` headers of a request, joined by commas.
    pub fn of(accept: Option<&str>) -> Self {
        let Some(accept) = accept else { return Self::Everything };
        let types = || accept.split(',').map(|one| one.split(';').next().unwrap_or_default().trim());
        let index = types().any(|t| t.contains("index") || t.contains("manifest.list") || t.contains('*'));
        let single = types().any(|t| t.ends_with(".manifest.v1+json") || t.ends_with(".manifest.v2+json"));
        if single && !index { Self::Single } else { Self::Everything }
    }
}

/// Reads a raw request path below `/v2` and its raw query. Only what the grammar of names allows passes, so that no
/// escape is left to decode but the colon of a digest.
pub fn want(path: &str, query: Option<&str>) -> Result<Want, WantError> {
    if path.len() > limits::PATH_BYTES {
        return Err(WantError::Name);
    }
    match path {
        "" | "/" => return Ok(Want::Base),
        "/token" => return Ok(Want::Token),
        _ => {}
    }
    let Some(path) = path.strip_prefix('/') else { return Ok(Want::Unknown) };
    let last = |text: &str| text.rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned()));
    let Some((rest, leaf)) = last(path) else { return Ok(Want::Unknown) };
    let Some((name, kind)) = last(&rest) else { return Ok(Want::Unknown) };
    let leaf = leaf.replace("%3A", ":").replace("%3a", ":");
    let digest = || reference_digest(&leaf).map_err(|e| WantError::Digest(e.to_string()));
    let resource = match kind.as_str() {
        "manifests" => Resource::Manifest(Reference::parse(&leaf).map_err(|e| match leaf.contains(':') {
            true => WantError::Digest(e.to_string()),
            false => WantError::Tag,
        })?),
        "blobs" => Resource::Blob(digest()?),
        "tags" if leaf == "list" => Resource::Tags,
        "referrers" => Resource::Referrers(digest()?),
        _ => return Ok(Want::Unknown),
    };
    Ok(Want::Of(place(&name, query)?, resource))
}

fn place(name: &str, query: Option<&str>) -> Result<Place, WantError> {
    let repository = |name: &str| Repository::parse(name).ok_or(WantError::Name);
    let in_path = name.split_once('/').filter(|(host, _)| is_host(host));
    // containerd names the registry beside the path, where the path is as that registry has it.
    if let Some(ns) = query_of(query, "ns") {
        let ns = ns.replace("%3A", ":").replace("%3a", ":").to_ascii_lowercase();
        return match is_host(&ns) {
            true => Ok(Place { host: Some(ns), repository: repository(name)? }),
            false => Err(WantError::Registry),
        };
    }
    match in_path {
        Some((host, rest)) => Ok(Place { host: Some(with_port(host)), repository: repository(rest)? }),
        None => Ok(Place { host: None, repository: repository(name)? }),
    }
}

/// A host as it stands in a path. No part of an image's name may hold a colon, so a port stands behind `_`.
fn with_port(host: &str) -> String {
    let port = |port: &str| !port.is_empty() && port.len() <= 5 && port.bytes().all(|c| c.is_ascii_digit());
    match host.rsplit_once('_') {
        Some((host, number)) if port(number) => format!("{host}:{number}"),
        _ => host.to_owned(),
    }
    .to_ascii_lowercase()
}

/// The value of the first parameter of this name, as it is written.
pub fn query_of<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    let parameters = query?.split('&').filter_map(|one| one.split_once('='));
    parameters.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

/// A `Link` header of a registry, turned to `path` here: `<…?last=x&n=10>; rel="next"`. `None` when it is no link to a
/// next page.
pub fn relinked(link: &str, path: &str, ns: Option<&str>) -> Option<String> {
    let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    let next = rest.to_ascii_lowercase().replace('"', "").contains("rel=next");
    let (_, query) = target.split_once('?')?;
    let query = query.split('#').next()?;
    let sound = query.bytes().all(|c| c.is_ascii_graphic() && !matches!(c, b'<' | b'>' | b'"'));
    let ns = ns.map(|ns| format!("&ns={ns}")).unwrap_or_default();
    let kept: Vec<_> = query.split('&').filter(|p| !p.starts_with("ns=") && !p.is_empty()).collect();
    (next && sound && !kept.is_empty()).then(|| format!("<{path}?{}{ns}>; rel=\"next\"", kept.join("&")))
}

/// Why a path names nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantError {
    /// A repository's name breaks the grammar.
    #[error(
        "no repository can have this name: lower-case letters, digits, and '.', '_' or '-' between them, in parts with '/'"
    )]
    Name,
    /// A tag breaks the grammar.
    #[error("no tag can have this name: letters, digits, '_', '.' and '-', at most 128")]
    Tag,
    /// A digest that is none.
    #[error("a digest is sha256:… or sha512:… in lower-case hex: {0}")]
    Digest(String),
    /// `?ns=` names no registry.
    #[error("ns names no registry, as docker.io does")]
    Registry,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn shown(path: &str, query: Option<&str>) -> String {
        match want(path, query) {
            Err(e) => format!("error: {}", e.to_string().split(':').next().unwrap()),
            Ok(Want::Of(Place { host, repository }, resource)) => {
                let host = host.unwrap_or_else(|| "-".into());
                let resource = match resource {
                    Resource::Manifest(reference) => format!("manifest {reference}"),
                    Resource::Blob(digest) => format!("blob {digest}"),
                    Resource::Tags => "tags".into(),
                    Resource::Referrers(digest) => format!("referrers {digest}"),
                };
                format!("{host} {repository} {resource}").replace(HEX, "HEX")
            }
            Ok(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn paths() {
        let cases = [
            ("", None, "Base"),
            ("/", None, "Base"),
            ("/token", None, "Token"),
            ("/alpine/manifests/latest", None, "- alpine manifest latest"),
            ("/library/alpine/manifests/3.20", None, "- library/alpine manifest 3.20"),
            ("/a/b/c/d/blobs/sha256:HEX", None, "- a/b/c/d blob sha256:HEX"),
            ("/a/blobs/sha256%3AHEX", None, "- a blob sha256:HEX"),
            ("/ghcr.io/org/img/tags/list", None, "ghcr.io org/img tags"),
            ("/localhost:5000/img/tags/list", None, "localhost:5000 img tags"),
            ("/a/referrers/sha256:HEX", None, "- a referrers sha256:HEX"),
            ("/registry.example.org_5000/img/tags/list", None, "registry.example.org:5000 img tags"),
            ("/localhost_5000/img/tags/list", None, "localhost:5000 img tags"),
            ("/my_5000/img/tags/list", None, "- my_5000/img tags"),
            ("/library/alpine/manifests/1", Some("ns=docker.io"), "docker.io library/alpine manifest 1"),
            ("/img/manifests/1", Some("ns=Example.org%3A5000"), "example.org:5000 img manifest 1"),
            ("/img/manifests/1", Some("ns=http://x/"), "error: ns names no registry, as docker.io does"),
            // A repository may be called as the kinds are.
            ("/tags/list/tags/list", None, "- tags/list tags"),
            ("/manifests/blobs/manifests/manifests", None, "- manifests/blobs manifest manifests"),
            ("/manifests/latest", None, "Unknown"),
            ("/_catalog", None, "Unknown"),
            ("/a/tags/other", None, "Unknown"),
            ("/a/blobs/uploads/", None, "Unknown"),
            ("/../manifests/latest", None, "error: no repository can have this name"),
            ("/a/../b/manifests/latest", None, "error: no repository can have this name"),
            ("/a/%2e%2e/b/manifests/latest", None, "error: no repository can have this name"),
            ("/A/manifests/latest", None, "error: no repository can have this name"),
            ("//manifests/latest", None, "error: no repository can have this name"),
            ("/a/manifests/..", None, "error: no tag can have this name"),
            ("/a/manifests/a%0d%0ab", None, "error: no tag can have this name"),
            ("/a/manifests/sha256:00", None, "error: a digest is sha256"),
            ("/a/manifests/md5:00", None, "error: a digest is sha256"),
            ("/a/blobs/latest", None, "error: a digest is sha256"),
        ];
        for (path, query, expected) in cases {
            let path = path.replace("HEX", HEX);
            assert!(shown(&path, query).starts_with(expected), "{path}: {}", shown(&path, query));
        }
        assert!(want(&format!("/{}/manifests/latest", "a/".repeat(2000)), None).is_err());
    }

    #[test]
    fn who_reads_what() {
        let index = "application/vnd.oci.image.index.v1+json";
        let manifest = "application/vnd.docker.distribution.manifest.v2+json";
        let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        let cases = [
            (None, Accepts::Everything),
            (Some("*/*".to_owned()), Accepts::Everything),
            (Some(format!("{manifest}, {index};q=0.5")), Accepts::Everything),
            (Some(format!("{manifest}, application/*")), Accepts::Everything),
            (Some(manifest.to_owned()), Accepts::Single),
            (Some(format!("{manifest},{schema1}")), Accepts::Single),
            (Some("text/plain".to_owned()), Accepts::Everything),
        ];
        for (accept, want) in cases {
            assert_eq!(Accepts::of(accept.as_deref()), want, "{accept:?}");
        }
    }

    #[test]
    fn links() {
        let cases = [
            (
                "</v2/a/tags/list?last=b&n=2>; rel=\"next\"",
                None,
                Some("</v2/x/tags/list?last=b&n=2>; rel=\"next\""),
            ),
            (
                "<https://r.example.org/v2/a/tags/list?n=2&last=b>;rel=next",
                Some("docker.io"),
                Some("</v2/x/tags/list?n=2&last=b&ns=docker.io>; rel=\"next\""),
            ),
            ("</v2/a/tags/list?last=b>; rel=\"prev\"", None, None),
            ("</v2/a/tags/list>; rel=\"next\"", None, None),
            ("/v2/a", None, None),
            ("<?a\"b>; rel=next", None, None),
        ];
        for (link, ns, expected) in cases {
            assert_eq!(relinked(link, "/v2/x/tags/list", ns).as_deref(), expected, "{link}");
        }
    }
}
