//! A question to a registry, and what its answer means. Blocks.

use std::io::Read;
use std::time::{Duration, Instant};

use bytes::Bytes;
use url::Url;

use crate::base::{Access, Digest, Hasher, Sha256};
use crate::eco::oci::{self, Accepts, MANIFEST_BYTES};
use crate::resolve::refresh::{LEAST_FRESH, millis};
use crate::store::{Facts, StoreError, Stored};
use crate::upstream::{Answer, Ask, Head, Method, Status, UpstreamError};

use super::{Fact, First, ImagesError, Inner, Question, Spot};

/// Largest list of tags or referrers in bytes: a repository of 10,000 tags has some 300 KB of them, and registries
/// give them in parts.
const LIST_BYTES: u64 = 8 << 20;

/// Time to read a list: one that trickles must not keep the questions waiting that come after it.
const BODY_TIME: Duration = Duration::from_secs(60);

/// Longest query of a client's that is handed on, in bytes.
const QUERY_BYTES: usize = 512;

impl Inner {
    /// Asks. A name that the registry does not know is an answer too.
    pub(super) fn ask(&self, spot: &Spot, question: &Question, first: First) -> Result<Fact, ImagesError> {
        let url = self.question_url(spot, question);
        let list = matches!(question, Question::Tags(_) | Question::Referrers(..));
        let accept = match question {
            Question::Tag(_, Accepts::Single) => Some(oci::ACCEPT_SINGLE.to_owned()),
            Question::Tags(_) => Some("application/json".to_owned()),
            Question::Referrers(..) => Some("application/vnd.oci.image.index.v1+json".to_owned()),
            _ => None,
        };
        let whole = first == First::Get && matches!(question, Question::Tag(..));
        let method = if list || whole { Method::Get } else { Method::Head };
        let ask = Ask { method, accept, page: list, ..Ask::default() };
        let told =
            |answer: &Answer| answer.status == Status::Missing || stated_digest(&answer.head).is_some();
        let head = method == Method::Head;
        let first = match self.open(spot, &url, &ask) {
            // Some registries answer no HEAD.
            Err(UpstreamError::Status { code: 405 | 501, .. }) if head => None,
            // Others tell with it that there is such a tag, and not which manifest it means: the bytes have to say that.
            Ok(answer) if head && matches!(question, Question::Tag(..)) && !told(&answer) => None,
            answer => Some(answer.map_err(ImagesError::Upstream)?),
        };
        let mut answer = match first {
            Some(answer) => answer,
            None => {
                let get = Ask { method: Method::Get, ..ask };
                self.open(spot, &url, &get).map_err(ImagesError::Upstream)?
            }
        };
        let missing = answer.status == Status::Missing;
        let mut fact = self.describe(spot, question, &answer.head, &url);
        if missing {
            fact.found = false;
            // A digest is for ever only where there is something by it: it may be pushed any moment.
            fact.fresh_millis = millis(self.freshness.negative);
            return Ok(fact);
        }
        match question {
            Question::Tag(..) => {
                fact.digest = Some(match stated_digest(&answer.head) {
                    Some(stated) if !whole => stated,
                    stated => self.take_along(spot, question, stated, &mut answer)?,
                });
            }
            Question::Manifest(digest) | Question::Blob(digest) => {
                let other = |stated: &Digest| stated.algorithm() == digest.algorithm() && stated != digest;
                if stated_digest(&answer.head).as_ref().is_some_and(other) {
                    return Err(self.wrong(spot, question, "the registry says that it has another digest"));
                }
                // Somebody between us and the registry that answers everything with a page.
                if fact.media_type.as_deref().is_some_and(|kind| kind.starts_with("text/html")) {
                    return Err(self.wrong(spot, question, "the registry answers with a page"));
                }
                fact.digest = Some(*digest);
            }
            Question::Tags(_) | Question::Referrers(..) => {
                fact.body = self.read(spot, question, &mut answer, LIST_BYTES)?.into();
                if !is_json(&fact.body) {
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
            media_type: head.content_type.clone().filter(|stated| is_data(stated)),
            // Some servers say this of every answer to HEAD. Nothing that is asked for with a tag is empty.
            size: head.length.filter(|size| *size > 0 || matches!(question, Question::Blob(_))),
            body: Bytes::new(),
            link: head.link.clone(),
            filters_applied: head.filters_applied.clone(),
            checked_at: self.parts.clock.now().0,
            fresh_millis: fresh_for,
            upstream: registry.site.name.clone(),
            url: url.to_string(),
        }
    }

    /// The digest of the manifest that a registry gives for a tag, and stores it. Where it says the digest itself and
    /// something else comes, or nothing whole, it is fetched by its digest as if nothing had come: what is wrong is told then.
    ///
    /// What is no JSON is no manifest: a page that a network puts before its users must not become what a tag means.
    fn take_along(
        &self,
        spot: &Spot,
        question: &Question,
        stated: Option<Digest>,
        answer: &mut Answer,
    ) -> Result<Digest, ImagesError> {
        let body = match (self.read(spot, question, answer, MANIFEST_BYTES), stated) {
            (Ok(body), _) => body,
            (Err(_), Some(stated)) => return Ok(stated),
            (Err(e), None) => return Err(e),
        };
        let digest = match stated {
            Some(stated) if !names(&stated, &body) => return Ok(stated),
            Some(stated) => stated,
            None if is_json(&body) => Sha256::of(&body).digest(),
            None => {
                return Err(self.wrong(spot, question, "the registry sent something that is no manifest"));
            }
        };
        let (store, artifact) = (&self.parts.store, self.artifact(spot, "manifests", &digest));
        // What is stored as private becomes public when a public registry has it.
        let will_do = |stored: &Stored| stored.access == Access::Public || artifact.access == Access::Private;
        let is_here = store.load(&digest).is_ok_and(|found| found.is_some_and(|stored| will_do(&stored)));
        if !is_here && let Err(e) = store.put(&body, Facts::of(&body, &artifact)) {
            log::debug!("{} was not stored with its tag: {e}", self.what(spot, question));
        }
        Ok(digest)
    }

    fn read(
        &self,
        spot: &Spot,
        question: &Question,
        answer: &mut Answer,
        limit: u64,
    ) -> Result<Vec<u8>, ImagesError> {
        let (mut body, deadline) = (Vec::new(), Instant::now() + BODY_TIME);
        let cut = |e: &std::io::Error| {
            UpstreamError::of(e).cloned().unwrap_or(UpstreamError::Truncated { got: 0, want: None })
        };
        let (mut from, mut buffer) = (answer.body.by_ref().take(limit + 1), [0; 16 << 10]);
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => body.extend_from_slice(&buffer[..n]),
                Err(e) => return Err(ImagesError::Upstream(cut(&e))),
            }
            if Instant::now() > deadline {
                let origin = answer.url.origin().ascii_serialization();
                return Err(ImagesError::Upstream(UpstreamError::TooSlow { origin }));
            }
        }
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

/// Whether a media type is one that no browser shows as a page of ours: manifests' and lists' all are.
fn is_data(media_type: &str) -> bool {
    media_type.get(..12).is_some_and(|start| start.eq_ignore_ascii_case("application/"))
        && !media_type.to_ascii_lowercase().contains("xml")
}

/// Whether this is one JSON object.
fn is_json(bytes: &[u8]) -> bool {
    let object = bytes.iter().find(|c| !c.is_ascii_whitespace()) == Some(&b'{');
    object && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

/// Whether this is the digest of these bytes.
fn names(digest: &Digest, bytes: &[u8]) -> bool {
    let mut hasher = Hasher::new(digest.algorithm());
    hasher.update(bytes);
    hasher.finish() == *digest
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
