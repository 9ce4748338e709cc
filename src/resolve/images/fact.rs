//! What a registry said, as it is kept.

use std::time::Duration;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::base::Digest;
use crate::store::{Page, PageHead};

/// What a registry said of a name or a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Whether there is such a thing.
    pub found: bool,
    /// Of a manifest.
    pub digest: Option<Digest>,
    /// As the registry says.
    pub media_type: Option<String>,
    /// Of a manifest or blob, in bytes.
    pub size: Option<u64>,
    /// A list: its bytes.
    pub body: Bytes,
    /// A list: where the next part is, as the registry says.
    pub link: Option<String>,
    /// Referrers: `OCI-Filters-Applied`.
    pub filters_applied: Option<String>,
    /// When it was said: milliseconds since the epoch.
    pub checked_at: u64,
    /// How long it is good from then on, in milliseconds.
    pub fresh_millis: u64,
    /// Name of the registry.
    pub upstream: String,
    /// Where it was asked.
    pub url: String,
}

/// The part of a fact that no page head has.
#[derive(Default, Encode, Decode)]
#[cbor(map)]
struct Body {
    #[n(0)]
    digest: Option<String>,
    #[n(1)]
    media_type: Option<String>,
    #[n(2)]
    size: Option<u64>,
    #[n(3)]
    #[cbor(with = "minicbor::bytes")]
    body: Vec<u8>,
    #[n(4)]
    link: Option<String>,
    #[n(5)]
    filters_applied: Option<String>,
}

impl Fact {
    /// How long it is good from when it was said.
    pub fn fresh_for(&self) -> Duration {
        Duration::from_millis(self.fresh_millis)
    }

    pub(super) fn to_page(&self) -> Page {
        let head = PageHead {
            upstream: self.upstream.clone(),
            checked_at: self.checked_at,
            fresh_for: self.fresh_millis,
            found: self.found,
            revision: self.checked_at,
            url: self.url.clone(),
            ..PageHead::default()
        };
        let body = Body {
            digest: self.digest.map(|digest| digest.to_string()),
            media_type: self.media_type.clone(),
            size: self.size,
            body: self.body.to_vec(),
            link: self.link.clone(),
            filters_applied: self.filters_applied.clone(),
        };
        Page { head, body: minicbor::to_vec(body).expect("memory takes every byte") }
    }

    /// `None` when the body cannot be read: then the registry is asked again.
    pub(super) fn of_page(page: Page) -> Option<Self> {
        let Page { head, body } = page;
        let body: Body = minicbor::decode(&body).ok()?;
        Some(Self {
            found: head.found,
            digest: body.digest.and_then(|text| text.parse().ok()),
            media_type: body.media_type,
            size: body.size,
            body: body.body.into(),
            link: body.link,
            filters_applied: body.filters_applied,
            checked_at: head.checked_at,
            fresh_millis: head.fresh_for,
            upstream: head.upstream,
            url: head.url,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Sha256;

    #[test]
    fn facts_come_back_from_the_store() {
        let fact = Fact {
            found: true,
            digest: Some(Sha256::of(b"a").digest()),
            media_type: Some("a/b".into()),
            size: Some(7),
            body: Bytes::from_static(b"{}"),
            link: Some("<x>".into()),
            filters_applied: Some("artifactType".into()),
            checked_at: 5,
            fresh_millis: 6,
            upstream: "hub".into(),
            url: "https://example.org/v2/a/manifests/b".into(),
        };
        assert_eq!(Fact::of_page(fact.to_page()), Some(fact.clone()));
        let broken = Page { body: b"no cbor".to_vec(), ..fact.to_page() };
        assert_eq!(Fact::of_page(broken), None);
    }
}
