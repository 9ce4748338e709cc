//! Images, one reference a line; `#` begins a comment.

use super::{LockError, Locked};
use crate::base::{PackageUrl, PackageUrlError};
use crate::eco::oci::{Image, Reference};

/// Where an image is whose registry was not named.
const USUAL: &str = "docker.io";

pub(super) fn parse(text: &str) -> Result<Locked, LockError> {
    let mut locked = Locked::default();
    for (line, text) in (1..).zip(text.lines()) {
        let text = text.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let image = Image::parse(text).map_err(|e| LockError::Syntax { line, why: e.to_string() })?;
        let digest = match &image.reference {
            Reference::Digest(digest) => Some(*digest),
            Reference::Tag(_) => None,
        };
        locked.put(purl(image), digest, text)?;
    }
    Ok(locked)
}

/// The package URL of an image (type `oci`): its digest is the version, its tag a qualifier.
fn purl(image: Image) -> Result<PackageUrl, PackageUrlError> {
    let (host, repository) = match image.host {
        Some(host) => (host, image.repository),
        None => (USUAL.to_owned(), image.repository.in_library()),
    };
    let name = repository.as_str().rsplit('/').next().unwrap_or_default();
    let place = format!("{host}/{repository}");
    let place = ("repository_url", place.as_str());
    match image.reference {
        Reference::Digest(digest) => PackageUrl::of("oci", name, Some(&digest.to_string()), &[place]),
        Reference::Tag(tag) => PackageUrl::of("oci", name, None, &[place, ("tag", &tag)]),
    }
}
