//! What an operator says of container images: names read, and what of an image is here.

use std::sync::Arc;

use futures_lite::future::block_on;
use serde_json::{Value, json};
use url::Url;

use crate::base::{Digest, Sha256};
use crate::eco::oci::{
    self, Accepts, Closure, Image, MANIFEST_BYTES, Place, Platforms, Reference, Resource, Want,
};
use crate::resolve::State;
use crate::resolve::images::{Images, Question, Said, Spot};
use crate::store::{Store, StoreError, Stored};

use super::Rooms;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a name or an address means.
pub(super) enum Meant {
    Image(Spot, Reference),
    /// A layer or a configuration.
    Blob(Digest),
}

/// Reads the name of an image, or an address below `/v2/`. `None` when it is neither.
pub(super) fn read(images: &Images, what: &str) -> Option<Result<Meant, Failure>> {
    let url = Url::parse(what).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let (path, query) = match &url {
        Some(url) => (url.path(), url.query()),
        None => (what, None),
    };
    if let Some(below) = path.strip_prefix("/v2").filter(|below| below.is_empty() || below.starts_with('/')) {
        return Some(address(images, what, below, query));
    }
    (url.is_none() && is_image(what)).then(|| {
        let (spot, reference) = named(images, what)?;
        Ok(Meant::Image(spot, reference))
    })
}

fn address(images: &Images, what: &str, below: &str, query: Option<&str>) -> Result<Meant, Failure> {
    let Want::Of(place, resource) = oci::want(below, query)? else {
        return Err(format!("{what} is no address of an image").into());
    };
    let spot = images.spot(&place)?;
    Ok(match resource {
        Resource::Manifest(reference) => Meant::Image(spot, reference),
        Resource::Blob(digest) => Meant::Blob(digest),
        Resource::Referrers(digest) => Meant::Image(spot, Reference::Digest(digest)),
        Resource::Tags => Meant::Image(spot, Reference::Tag("latest".into())),
    })
}

/// Whether a text is written as images are and projects are not: with a path, a tag or a digest.
fn is_image(text: &str) -> bool {
    if text.starts_with("docker://") || text.starts_with("oci://") {
        return true;
    }
    let is_digest = ["sha1:", "sha256:", "sha384:", "sha512:", "md5:"].iter().any(|a| text.starts_with(a));
    let is_url = text.starts_with("pkg:") || text.contains("://");
    !is_url && !is_digest && !text.starts_with(['/', '.']) && text.contains(['/', ':'])
}

/// The configured registry's repository that an image's name means.
pub(super) fn named(images: &Images, what: &str) -> Result<(Spot, Reference), Failure> {
    let image = Image::parse(what.strip_prefix("oci://").unwrap_or(what))?;
    let spot = images.spot(&Place { host: image.host, repository: image.repository })?;
    Ok((spot, image.reference))
}

/// What is stored of an image.
#[derive(Default)]
pub(super) struct Here {
    /// Manifests, configurations and layers.
    pub(super) artifacts: Vec<Sha256>,
    pub(super) bytes: u64,
    /// Manifests and blobs that are not.
    pub(super) missing: u64,
}

/// Reads the stored manifests of an image for what belongs to it. Of one that is broken or beyond all bounds, what was
/// found by then.
pub(super) fn here(store: &Store, root: Digest) -> Result<Here, StoreError> {
    let mut here = Here::default();
    let mut closure = Closure::new(Platforms::All, u64::MAX);
    closure.add(root);
    while let Some(step) = closure.step() {
        match store.find(&step.digest)? {
            None => here.missing += 1,
            Some(stored) => {
                here.add(&stored.sha256, stored.size);
                let bytes = read_manifest(&stored);
                if let Err(e) = bytes.and_then(|bytes| Ok(closure.take(&step, &bytes).map(drop)?)) {
                    log::debug!("{}: {e}", step.digest);
                }
            }
        }
    }
    for blob in closure.blobs() {
        match store.describe(&blob.digest)? {
            None => here.missing += 1,
            Some(found) => here.add(&found.sha256, found.size),
        }
    }
    Ok(here)
}

impl Here {
    fn add(&mut self, sha256: &Sha256, size: u64) {
        self.artifacts.push(*sha256);
        self.bytes += size;
    }
}

/// A stored manifest's bytes.
pub(super) fn read_manifest(stored: &Arc<Stored>) -> Result<Vec<u8>, Failure> {
    if stored.size > MANIFEST_BYTES {
        return Err(oci::ManifestError::TooLarge.into());
    }
    let mut bytes = vec![0; stored.size as usize];
    let mut at = 0;
    while at < bytes.len() {
        match stored.read(&mut bytes[at..], at as u64)? {
            0 => return Err(format!("{} is shorter than recorded: run `dpm verify`", stored.sha256).into()),
            n => at += n,
        }
    }
    Ok(bytes)
}

/// The manifest that a reference means, as far as that is known here; and what its registry said of it.
pub(super) fn manifest(
    images: &Images,
    spot: &Spot,
    reference: &Reference,
) -> Result<(Option<Digest>, Option<Said>), Failure> {
    let (question, digest) = match reference {
        Reference::Tag(tag) => (Question::Tag(tag.clone(), Accepts::Everything), None),
        Reference::Digest(digest) => (Question::Manifest(*digest), Some(*digest)),
    };
    let said = block_on(images.known(spot, &question))?;
    Ok((digest.or_else(|| said.as_ref()?.fact.digest), said))
}

/// Where an answer for an image comes from. `artifact` says what is known of one.
pub(super) fn why(
    rooms: &Rooms,
    spot: &Spot,
    reference: &Reference,
    artifact: impl Fn(&Digest) -> Result<Value, StoreError>,
) -> Result<Value, Failure> {
    let registry = rooms.images.registry(spot);
    let between = if matches!(reference, Reference::Tag(_)) { ':' } else { '@' };
    let (digest, said) = manifest(&rooms.images, spot, reference)?;
    let mut answer = json!({
        "kind": "image",
        "image": format!("{}/{}{between}{reference}", registry.site.name, spot.repository),
        "registry": registry.site.url.as_str(),
        "private": registry.private,
        "stored": false,
    });
    if let Some(said) = said {
        answer["url"] = said.fact.url.as_str().into();
        answer["media_type"] = said.fact.media_type.clone().into();
        answer["age_seconds"] = said.age.as_secs().into();
        if matches!(reference, Reference::Tag(_)) {
            answer["fresh_for_seconds"] = said.fact.fresh_for().as_secs().into();
            answer["fresh"] = (said.state == State::Hit).into();
        }
    }
    let Some(digest) = digest else { return Ok(answer) };
    let here = here(&rooms.store, digest)?;
    answer["digest"] = digest.to_string().into();
    answer["stored"] = (!here.artifacts.is_empty()).into();
    answer["stored_artifacts"] = here.artifacts.len().into();
    answer["stored_bytes"] = here.bytes.into();
    answer["not_stored"] = here.missing.into();
    answer["manifest"] = artifact(&digest)?;
    Ok(answer)
}
