//! A question to a registry, and what its answer means. Blocks.

use std::io::Read;

use url::Url;

use crate::base::{Digest, Sha256};
use crate::eco::oci::{self, Accepts, MANIFEST_BYTES};
use crate::resolve::refresh::{LEAST_FRESH, millis};
use crate::store::StoreError;
use crate::upstream::{Answer, Ask, Head, Method, Status, UpstreamError};

use super::{Fact, ImagesError, Inner, Question, Spot};

/// Largest list of tags or referrers in bytes: a repository of 10,000 tags has some 300 KB of them, and registries
/// give them in parts.
const LIST_BYTES: u64 = 8 << 20;

/// Longest query of a client's that is handed on, in bytes.
const QUERY_BYTES: usize = 512;

impl Inner {
    /// Asks. A name that the registry does not know is an answer too.
    pub(super) fn ask(&self, spot: &Spot, question: &Question) -> Result<Fact, ImagesError> {
        let url = self.question_url(spot, question);
        let list = matches!(question, Question::Tags(_) | Question::Referrers(..));
        let accept = match question {
            Question::Tag(_, Accepts::Single) => Some(oci::ACCEPT_SINGLE.to_owned()),
            Question::Tags(_) => Some("application/json".to_owned()),
            Question::Referrers(..) => Some("application/vnd.oci.image.index.v1+json".to_owned()),
            _ => None,
        };
        let method = if list { Method::Get } else { Method::Head };
        let ask = Ask { method, accept, page: list, ..Ask::default() };
        let mut answer = match self.open(spot, &url, &ask) {
            // Some registries answer no HEAD.
            Err(UpstreamError::Status { code: 405 | 501, .. }) if !list => self
                .open(spot, &url, &Ask { method: Method::Get, ..ask.clone() })
                .map_err(ImagesError::Upstream)?,
            answer => answer.map_err(ImagesError::Upstream)?,
        };
        let missing = answer.status == Status::Missing;
        let mut fact = self.describe(spot, question, &answer.head, &url);
        fact.found = !missing;
        if missing {
            return Ok(fact);
        }
        match question {
            Question::Tag(..) => {
                fact.digest = match stated_digest(&answer.head) {
                    Some(digest) => Some(digest),
                    None => Some(self.hash(spot, question, &url, &ask, answer)?),
                };
            }
            Question::Manifest(digest) | Question::Blob(digest) => {
                if stated_digest(&answer.head).is_some_and(|stated| stated != *digest) {
                    return Err(self.wrong(spot, question, "the registry says that it has another digest"));
                }
                fact.digest = Some(*digest);
            }
            Question::Tags(_) | Question::Referrers(..) => {
                fact.body = self.read(spot, question, &mut answer, LIST_BYTES)?;
                let sound = serde_json::from_slice::<serde::de::IgnoredAny>(&fact.body).is_ok();
                if !sound {
                    return Err(self.wrong(spot, question, "the registry sent something that is no JSON"));
                }
            }
        }
        Ok(fact)
    }

    fn open(&self, spot: &Spot, url: &Url, ask: &Ask) -> Result<Answer, UpstreamError> {
        self.parts.client.open(&self.registries[spot.registry].site, url, ask)
    }

    fn describe(&self, spot: &Spot, question: &Question, head: &Head, url: &Url) -> Fact {
        let registry = &self.registries[spot.registry];
        let freshness = &self.freshness;
        let fresh_for = match question.is_immutable() {
            true => FOR_EVER_MILLIS,
            false => {
                let said = head.max_age.unwrap_or(freshness.ttl);
                millis(said.min(freshness.max_ttl).max(LEAST_FRESH))
            }
        };
        Fact {
            found: true,
            digest: None,
            media_type: head.content_type.clone(),
            size: head.length,
            body: Vec::new(),
            link: head.link.clone(),
            filters_applied: head.filters_applied.clone(),
            checked_at: self.parts.clock.now().0,
            fresh_millis: fresh_for,
            upstream: registry.site.name.clone(),
            url: url.to_string(),
        }
    }

    /// The digest of what a registry gives for a tag, if it does not say so itself.
    fn hash(
        &self,
        spot: &Spot,
        question: &Question,
        url: &Url,
        ask: &Ask,
        head: Answer,
    ) -> Result<Digest, ImagesError> {
        drop(head);
        let get = Ask { method: Method::Get, ..ask.clone() };
        let mut answer = self.open(spot, url, &get).map_err(ImagesError::Upstream)?;
        if answer.status == Status::Missing {
            return Err(self.unknown(spot, question));
        }
        let body = self.read(spot, question, &mut answer, MANIFEST_BYTES)?;
        Ok(Sha256::of(&body).digest())
    }

    fn read(
        &self,
        spot: &Spot,
        question: &Question,
        answer: &mut Answer,
        limit: u64,
    ) -> Result<Vec<u8>, ImagesError> {
        let mut body = Vec::new();
        let cut = UpstreamError::Truncated { got: 0, want: None };
        let read = answer.body.by_ref().take(limit + 1).read_to_end(&mut body);
        read.map_err(|e| ImagesError::Upstream(UpstreamError::of(&e).cloned().unwrap_or(cut)))?;
        match body.len() as u64 > limit {
            true => Err(self.wrong(spot, question, &format!("the registry sends more than {limit} bytes"))),
            false => Ok(body),
        }
    }

    fn wrong(&self, spot: &Spot, question: &Question, why: &str) -> ImagesError {
        ImagesError::Answer { what: self.what(spot, question), why: why.to_owned() }
    }

    pub(super) fn question_url(&self, spot: &Spot, question: &Question) -> Url {
        match question {
            Question::Tag(tag, _) => self.url(spot, &format!("manifests/{tag}"), ""),
            Question::Manifest(digest) => self.url(spot, &format!("manifests/{digest}"), ""),
            Question::Blob(digest) => self.url(spot, &format!("blobs/{digest}"), ""),
            Question::Tags(query) => self.url(spot, "tags/list", query),
            Question::Referrers(digest, query) => self.url(spot, &format!("referrers/{digest}"), query),
        }
    }

    /// Below a repository. All parts were checked against their grammar: nothing in them needs an escape.
    pub(super) fn url(&self, spot: &Spot, below: &str, query: &str) -> Url {
        let mut url = self.registries[spot.registry].site.url.clone();
        let path = format!("{}{}/{below}", url.path(), spot.repository);
        url.set_path(&path);
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        url
    }

    /// Keeps a fact. A store that will not take it costs only the copy; what is not there is not kept.
    pub(super) fn save(&self, key: &str, fact: &Fact) {
        let saved = match fact.found {
            true => self.parts.store.set_page(key, &fact.to_page()),
            false => self.parts.store.forget_page(key).map(drop),
        };
        match saved {
            Ok(()) => {}
            Err(e @ StoreError::NoRoom { .. }) => log::debug!("what a registry said was not stored: {e}"),
            Err(e) => log::error!("what a registry said could not be stored: {e}"),
        }
    }
}

/// What a registry says is the digest, if it is one that can be checked.
fn stated_digest(head: &Head) -> Option<Digest> {
    oci::reference_digest(head.content_digest.as_deref()?).ok()
}

/// The part of a client's query that is a registry's business, as it is written: how many, from where on, of which
/// type. Other parameters would only split what is cached.
pub fn list_query(query: Option<&str>, names: &[&str]) -> String {
    let parameters = query.unwrap_or_default().split('&');
    let known = |p: &&str| p.split_once('=').is_some_and(|(name, _)| names.contains(&name));
    let sound = |p: &&str| p.bytes().all(|c| c.is_ascii_graphic() && c != b'#');
    let mut kept: Vec<_> = parameters.filter(known).filter(sound).collect();
    kept.sort_unstable();
    kept.dedup();
    let query = kept.join("&");
    if query.len() <= QUERY_BYTES { query } else { String::new() }
}

/// A century: a digest means the same for ever, and no clock overflows by it.
const FOR_EVER_MILLIS: u64 = 100 * 365 * 24 * 3600 * 1000;

#[cfg(test)]
mod tests {
    use super::list_query;

    #[test]
    fn queries() {
        let cases = [
            (None, ""),
            (Some("n=2&last=b&ns=docker.io"), "last=b&n=2"),
            (Some("last=b&n=2&n=2"), "last=b&n=2"),
            (Some("n=2#x&last"), ""),
            (Some("token=hidden"), ""),
        ];
        for (query, want) in cases {
            assert_eq!(list_query(query, &["n", "last"]), want, "{query:?}");
        }
        assert_eq!(list_query(Some(&format!("last={}", "a".repeat(600))), &["last"]), "");
    }
}
