//! What members of rooms say of an image. Pure.

use bytes::Bytes;
use serde_json::json;

use crate::base::Digest;
use crate::catalogue::Entry;
use crate::eco::oci::{Accepts, Kind, Reference, Repository};
use crate::members::Known;

use super::super::images::Question;

/// What a room answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Told {
    pub(in super::super) digest: Option<Digest>,
    pub(in super::super) media_type: Option<String>,
    pub(in super::super) size: Option<u64>,
    /// A list.
    pub(in super::super) body: Bytes,
}

/// The answer to a question; `None` where members say nothing of it. An error is their disagreement.
pub(in super::super) fn image(
    known: &Known,
    repository: &Repository,
    question: &Question,
) -> Option<Result<Told, String>> {
    let of = |file: &str| known.entries.iter().find(|entry| entry.file == file);
    match question {
        Question::Tag(tag, accepts) => {
            if let Some(dispute) = known.disputed.iter().find(|dispute| dispute.file == *tag) {
                return Some(Err(dispute.to_string()));
            }
            let entry = of(tag)?;
            let digest = digest_of(entry)?;
            let manifest = of(&digest.to_string());
            let media_type = media_type_of(entry).or(manifest.and_then(media_type_of));
            // Which of an index's manifests an old client would get only the registry knows.
            let single = media_type.as_deref().is_some_and(|kind| Kind::Image.goes_by(kind));
            let told = Told { digest: Some(digest), media_type, size: Some(entry.size), body: Bytes::new() };
            (*accepts == Accepts::Everything || single).then_some(Ok(told))
        }
        Question::Manifest(digest) | Question::Blob(digest) => {
            let entry = of(&digest.to_string()).filter(|entry| entry.digests.contains(digest))?;
            let media_type = media_type_of(entry);
            let told = Told { digest: Some(*digest), size: Some(entry.size), media_type, ..Told::default() };
            let fits = told.media_type.is_some() || matches!(question, Question::Blob(_));
            fits.then_some(Ok(told))
        }
        Question::Tags(query) if query.is_empty() => {
            let is_tag = |file: &str| matches!(Reference::parse(file), Ok(Reference::Tag(_)));
            let mut tags: Vec<_> = known.entries.iter().map(|entry| entry.file.as_str()).collect();
            tags.retain(|file| is_tag(file));
            tags.sort_unstable();
            let body = json!({"name": repository.as_str(), "tags": tags}).to_string().into();
            (!tags.is_empty()).then_some(Ok(Told { body, ..Told::default() }))
        }
        // A part of a list, and what only the registry can know to be all.
        Question::Tags(_) | Question::Referrers(..) => None,
    }
}

/// What a tag points to, as registries name it.
fn digest_of(entry: &Entry) -> Option<Digest> {
    let sha256 = entry.digests.iter().copied().find(|digest| digest.sha256().is_some());
    sha256
        .or(entry.digests.last().copied())
        .filter(|digest| matches!(Reference::parse(&digest.to_string()), Ok(Reference::Digest(_))))
}

/// Manifests' types, and none that a browser would show.
fn media_type_of(entry: &Entry) -> Option<String> {
    let kind = entry.facts.media_type.as_ref()?;
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'/' | b'.' | b'+' | b'-' | b'_');
    (kind.starts_with("application/vnd.") && kind.bytes().all(plain)).then(|| kind.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{PackageUrl, Sha256, raw_cid};
    use crate::catalogue::Facts;
    use crate::members::Dispute;

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    fn sha256(text: &str) -> Digest {
        Sha256::of(text.as_bytes()).digest()
    }

    fn entry(file: &str, of: &str, media_type: Option<&str>) -> Entry {
        Entry {
            purl: PackageUrl::parse("pkg:oci/app?repository_url=r.example.org/app").unwrap(),
            file: file.to_owned(),
            size: 9,
            root: raw_cid(Sha256::of(of.as_bytes())),
            digests: vec![sha256(of)],
            facts: Facts { media_type: media_type.map(str::to_owned), ..Facts::default() },
            first_seen: None,
        }
    }

    #[test]
    fn answers() {
        let digest = |of: &str| sha256(of).to_string();
        let known = Known {
            entries: vec![
                entry("1", "index", None),
                entry("2", "single", Some(MANIFEST)),
                entry("odd", "odd", Some("text/html")),
                entry(&digest("index"), "index", Some(INDEX)),
                entry(&digest("layer"), "layer", None),
                entry(&digest("lie"), "other", None),
            ],
            disputed: vec![Dispute {
                purl: PackageUrl::parse("pkg:oci/app?repository_url=r.example.org/app").unwrap(),
                file: "latest".into(),
                tellers: Vec::new(),
            }],
            ..Known::default()
        };
        let tag = |tag: &str, accepts| Question::Tag(tag.to_owned(), accepts);
        let rows = [
            (tag("1", Accepts::Everything), Some((sha256("index"), Some(INDEX)))),
            (tag("1", Accepts::Single), None),
            (tag("2", Accepts::Single), Some((sha256("single"), Some(MANIFEST)))),
            (tag("odd", Accepts::Everything), Some((sha256("odd"), None))),
            (tag("3", Accepts::Everything), None),
            (Question::Manifest(sha256("index")), Some((sha256("index"), Some(INDEX)))),
            (Question::Manifest(sha256("layer")), None),
            (Question::Blob(sha256("layer")), Some((sha256("layer"), None))),
            (Question::Blob(sha256("lie")), None),
            (Question::Tags("n=1".into()), None),
            (Question::Referrers(sha256("index"), String::new()), None),
        ];
        let repository = Repository::parse("app").unwrap();
        for (question, want) in rows {
            let got = image(&known, &repository, &question).map(|told| told.expect("no dispute"));
            let got = got.as_ref().map(|told| (told.digest.unwrap(), told.media_type.as_deref()));
            assert_eq!(got, want, "{question:?}");
        }
        let disputed = image(&known, &repository, &tag("latest", Accepts::Everything));
        assert!(disputed.unwrap().unwrap_err().contains("disagree on latest"));
        let tags = image(&known, &repository, &Question::Tags(String::new())).unwrap().unwrap();
        assert_eq!(tags.body, r#"{"name":"app","tags":["1","2","odd"]}"#);
    }
}
