//! One upstream registry of container images: where it is, how clients name it, who may have what it gives.

use url::Url;

use super::index::{http_url, without_userinfo};
use super::{BadUrl, Origin};
use crate::base::Secret;
use crate::front::Clients;

/// One upstream registry.
#[derive(Clone, Debug)]
pub struct Registry {
    /// Its name in logs, metrics and the store: `[a-z0-9._-]+`.
    pub name: String,
    /// Ends in `/v2/`, or in a prefix below that and a `/`; has no user, query or fragment.
    pub url: Url,
    /// Hosts by which clients name it, in lower case, with a port where there is one.
    pub hosts: Vec<String>,
    /// Further origins that it may send to although they are not on the internet: its token server, its file host.
    pub files: Vec<Url>,
    /// What clients get who name no registry.
    pub root: bool,
    /// Names of one part are below `library/`.
    pub library: bool,
    /// Its images are kept apart.
    pub private: bool,
    /// Given to peers although it is private.
    pub peers: bool,
    /// Who gets its images from here.
    pub clients: Clients,
    /// User for its token server, or for Basic authentication.
    pub username: Option<String>,
    /// Password or token of that user.
    pub password: Option<Secret>,
    /// Who named it.
    pub origin: Origin,
}

/// Most registries, for each is a bit in a client's token.
pub(super) const MOST: usize = 64;

/// The name under which docker knows its own registry, and where that is.
const DOCKER_HUB: (&str, &str) = ("docker.io", "https://registry-1.docker.io/");

/// Registries that everybody knows, and that are what their name says.
const WELL_KNOWN: [&str; 6] =
    ["ghcr.io", "quay.io", "registry.k8s.io", "mcr.microsoft.com", "public.ecr.aws", "gcr.io"];

impl Registry {
    /// A registry at a URL as people write it: userinfo is taken apart, `/v2/` is added. Private when the URL has
    /// credentials.
    pub fn from_url(name: String, url: &str, origin: Origin) -> Result<Self, BadUrl> {
        let index = super::Index::from_url(name, url, origin)?;
        let mut url = index.url;
        match url.path() {
            "/" => url.set_path("/v2/"),
            path if path.starts_with("/v2/") => {}
            _ => return Err(BadUrl::NotRegistry),
        }
        let private = index.username.is_some() || index.password.is_some();
        Ok(Self {
            name: index.name,
            hosts: host_of(&url).into_iter().collect(),
            files: Vec::new(),
            root: false,
            library: false,
            private,
            peers: false,
            clients: if private { Clients::Loopback } else { Clients::Anyone },
            username: index.username,
            password: index.password,
            origin: index.origin,
            url,
        })
    }

    /// Puts those that were stated before those that everybody knows. Docker Hub is at the root unless another is.
    pub(super) fn with_well_known(mut stated: Vec<Self>) -> Vec<Self> {
        let stands_for_hub = |r: &Self| r.hosts.iter().any(|host| host == DOCKER_HUB.0);
        if !stated.iter().any(|r| r.root)
            && let Some(hub) = stated.iter_mut().find(|r| stands_for_hub(r))
        {
            hub.root = true;
        }
        let has_root = stated.iter().any(|r| r.root);
        let hub = std::iter::once(DOCKER_HUB).map(|(name, url)| (name, url.to_owned()));
        let others = WELL_KNOWN.into_iter().map(|name| (name, format!("https://{name}/")));
        for (name, url) in hub.chain(others) {
            let is_stated = stated.iter().any(|r| r.name == name || r.hosts.iter().any(|host| host == name));
            if is_stated || stated.len() >= MOST {
                continue;
            }
            let registry = Self::from_url(name.to_owned(), &url, Origin::WellKnown).expect("a good URL");
            let is_hub = name == DOCKER_HUB.0;
            stated.push(Self {
                hosts: match is_hub {
                    true => vec![name.to_owned(), "registry-1.docker.io".into(), "index.docker.io".into()],
                    false => vec![name.to_owned()],
                },
                library: is_hub,
                root: is_hub && !has_root,
                ..registry
            });
        }
        stated
    }
}

/// The name of the registry at this place of the list when nobody gave one.
pub(super) fn default_name(place: usize) -> String {
    if place == 0 { "oci".into() } else { format!("oci-{}", place + 1) }
}

/// A host as clients write it in the name of an image.
pub(super) fn host_of(url: &Url) -> Option<String> {
    let host = url.host_str()?.to_ascii_lowercase();
    Some(url.port().map_or(host.clone(), |port| format!("{host}:{port}")))
}

/// Reads one of `hosts`: a host with or without a port.
pub(super) fn host(text: &str) -> Result<String, String> {
    let wrong =
        || format!("{text:?} is no host as clients write it, as docker.io or registry.example.org:5000 are");
    let url = http_url(&format!("http://{text}/")).map_err(|_| wrong())?;
    let text = text.to_ascii_lowercase();
    let plain = url.path() == "/" && without_userinfo(&url) == url && url.query().is_none();
    let named = text.contains(['.', ':']) || text == "localhost";
    if plain && named { Ok(text) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(url: &str) -> Result<Registry, BadUrl> {
        Registry::from_url("r".into(), url, Origin::Flag)
    }

    #[test]
    fn urls() {
        let r = registry("http://me:pw@Registry.example.org:5000").unwrap();
        assert_eq!(r.url.as_str(), "http://registry.example.org:5000/v2/");
        assert_eq!(r.hosts, ["registry.example.org:5000"]);
        assert!(r.private && matches!(r.clients, Clients::Loopback));
        let r = registry("https://r.example.org/v2/mirror/hub").unwrap();
        assert_eq!(r.url.as_str(), "https://r.example.org/v2/mirror/hub/");
        assert!(!r.private && matches!(r.clients, Clients::Anyone));
        assert_eq!(registry("https://r.example.org/registry/").unwrap_err(), BadUrl::NotRegistry);
        assert_eq!(registry("ftp://r.example.org/").unwrap_err(), BadUrl::Scheme);
    }

    #[test]
    fn hosts() {
        for good in ["docker.io", "localhost", "localhost:5000", "registry:5000", "192.0.2.1", "[::1]:5000"] {
            assert_eq!(host(good).as_deref(), Ok(good));
        }
        assert_eq!(host("GHCR.io").as_deref(), Ok("ghcr.io"));
        for bad in ["", "registry", "a.b/c", "u@a.b", "a.b?c", "http://a.b", "a b.c"] {
            assert!(host(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn well_known_ones() {
        let all = Registry::with_well_known(Vec::new());
        assert_eq!(all.len(), 1 + WELL_KNOWN.len());
        let root: Vec<_> = all.iter().filter(|r| r.root).collect();
        assert_eq!(root.len(), 1);
        assert!(root[0].library && root[0].hosts.contains(&"docker.io".to_owned()));
        let mine = Registry { root: true, ..registry("http://r.example.org/").unwrap() };
        let mirror = Registry { hosts: vec!["ghcr.io".into()], ..registry("http://m.example.org/").unwrap() };
        let all = Registry::with_well_known(vec![mine, mirror]);
        assert_eq!(all.iter().filter(|r| r.root).count(), 1);
        assert_eq!(all.iter().filter(|r| r.hosts.iter().any(|h| h == "ghcr.io")).count(), 1);
        assert!(all[0].root);
        let hub = Registry { hosts: vec!["docker.io".into()], ..registry("http://m.example.org/").unwrap() };
        let all = Registry::with_well_known(vec![registry("http://r.example.org/").unwrap(), hub]);
        assert_eq!(all.iter().map(|r| r.root).collect::<Vec<_>>()[..3], [false, true, false]);
    }
}
