//! Images, one reference a line; `#` begins a comment.

use super::{LockError, Locked};
use crate::base::{PackageUrl, PackageUrlError};
use crate::eco::oci::{Image, Reference, repository_purl};

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

/// The package URL of an image's repository: without version, as a catalogue has it.
fn purl(image: Image) -> Result<PackageUrl, PackageUrlError> {
    match image.host {
        Some(host) => repository_purl(&host, &image.repository),
        None => repository_purl(USUAL, &image.repository.in_library()),
    }
}
