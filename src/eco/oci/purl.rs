//! Package URLs of repositories (package-url specification, type `oci`), as a catalogue has them: without a version, for
//! a manifest or a layer belongs to none.

use crate::base::{PackageUrl, PackageUrlError};

use super::{Place, Repository};

/// Before the registry and the path in a package URL.
const ADDRESS: &str = "?repository_url=";

/// The package URL of a repository of the registry that goes by this host.
pub fn repository_purl(host: &str, repository: &Repository) -> Result<PackageUrl, PackageUrlError> {
    let name = repository.as_str().rsplit('/').next().unwrap_or_default();
    PackageUrl::of("oci", name, None, &[("repository_url", &format!("{host}/{repository}"))])
}

/// The repository that a package URL of that form means; `None` for any other.
pub fn repository_of(purl: &PackageUrl) -> Option<Place> {
    let (_, address) = purl.as_str().split_once(ADDRESS)?;
    let (host, repository) = address.split_once('/')?;
    let place = Place { host: Some(host.to_owned()), repository: Repository::parse(repository)? };
    repository_purl(host, &place.repository).is_ok_and(|same| same == *purl).then_some(place)
}

/// The image that a package URL means with its digest as version or with the qualifier `tag`, as people write it.
pub fn image_of(purl: &PackageUrl) -> Option<String> {
    let (_, qualifiers) = purl.as_str().split_once('?')?;
    let value = |key: &str| qualifiers.split('&').find_map(|q| q.strip_prefix(key)?.strip_prefix('='));
    let place = value("repository_url").filter(|_| purl.kind() == "oci")?;
    match (purl.version(), value("tag")) {
        (Some(digest), _) => Some(format!("{place}@{digest}")),
        (None, Some(tag)) => Some(format!("{place}:{tag}")),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        for (host, path, purl) in [
            ("ghcr.io", "corp/app", "pkg:oci/app?repository_url=ghcr.io/corp/app"),
            ("docker.io", "library/alpine", "pkg:oci/alpine?repository_url=docker.io/library/alpine"),
            ("localhost:5000", "a_b/c", "pkg:oci/c?repository_url=localhost:5000/a_b/c"),
        ] {
            let repository = Repository::parse(path).unwrap();
            let made = repository_purl(host, &repository).unwrap();
            assert_eq!(made.as_str(), purl);
            assert_eq!(repository_of(&made), Some(Place { host: Some(host.into()), repository }));
        }
        for (purl, image) in [
            ("pkg:oci/app?repository_url=ghcr.io/corp/app&tag=1.2", Some("ghcr.io/corp/app:1.2")),
            ("pkg:oci/app@sha256:00?repository_url=localhost:5000/app", Some("localhost:5000/app@sha256:00")),
            (
                "pkg:oci/app@sha256:00?repository_url=localhost:5000/app&tag=1",
                Some("localhost:5000/app@sha256:00"),
            ),
            ("pkg:oci/app?repository_url=ghcr.io/corp/app", None),
            ("pkg:oci/app@sha256:00", None),
            ("pkg:pypi/app@1?repository_url=ghcr.io/corp/app", None),
        ] {
            assert_eq!(image_of(&PackageUrl::parse(purl).unwrap()).as_deref(), image, "{purl}");
        }
        for other in [
            "pkg:oci/app",
            "pkg:oci/app@sha256:00?repository_url=ghcr.io/corp/app",
            "pkg:oci/app?repository_url=ghcr.io/corp/other",
            "pkg:oci/app?repository_url=ghcr.io/corp/app&tag=1",
            "pkg:oci/app?repository_url=app",
            "pkg:pypi/app?repository_url=ghcr.io/corp/app",
        ] {
            assert_eq!(repository_of(&PackageUrl::parse(other).unwrap()), None, "{other}");
        }
    }
}
