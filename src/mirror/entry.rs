//! From a stored artifact, and what its index or registry says of it, to an entry of a catalogue. Pure.

use url::Url;

use crate::base::{Algorithm, Digest, PackageUrl};
use crate::catalogue::{Entry, Facts};
use crate::eco::oci::{Reference, Repository, reference_digest};
use crate::eco::pypi::{self, CoreMetadata, File, ProjectName, Yanked};
use crate::store::Description;

/// What lies beside a file and is found by it: no entry of its own.
const BESIDE: [&str; 2] = [".metadata", ".provenance"];

/// Longest text of a fact in bytes, as a catalogue takes it.
const TEXT_BYTES: usize = 512;

/// What an index page says of a stored file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Listed<'p> {
    /// It lists it, with this digest.
    So(&'p File),
    /// It lists other bytes under this name.
    Otherwise,
    /// It does not list it, or no page is known.
    Not,
}

impl<'p> Listed<'p> {
    /// What a page's files say.
    pub(super) fn of(files: &'p [File], found: &Description) -> Self {
        let Some(file) = files.iter().find(|file| file.filename == found.filename) else {
            return Self::Not;
        };
        let own: Vec<Digest> = digests(found);
        let stated = || file.digests.iter().filter(|stated| stated.is_strong());
        let same_kind = |stated: &Digest| own.iter().find(|own| own.algorithm() == stated.algorithm());
        let differs = stated().any(|stated| same_kind(stated).is_some_and(|own| own != stated));
        match differs || file.size.is_some_and(|size| size != found.size) {
            true => Self::Otherwise,
            false => Self::So(file),
        }
    }
}

/// The projects that a file may be of, by its name, the likeliest first: of a source archive only its index knows where
/// the name ends and the version begins.
pub(super) fn projects(filename: &str) -> Vec<ProjectName> {
    if BESIDE.iter().any(|end| filename.ends_with(end)) {
        return Vec::new();
    }
    let mut found: Vec<ProjectName> = pypi::project_of(filename).into_iter().collect();
    if !filename.ends_with(".whl") {
        let longer =
            filename.match_indices('-').filter_map(|(at, _)| ProjectName::normalise(&filename[..at]).ok());
        for project in longer {
            if pypi::version_of(filename, &project).is_some() && !found.contains(&project) {
                found.push(project);
            }
        }
    }
    found
}

/// The entry of a project's file; `None` when its name says no version, when its index says that these are not its
/// bytes, or when it breaks a rule of catalogues.
pub(super) fn of_file(found: &Description, project: &ProjectName, listed: Listed<'_>) -> Option<Entry> {
    let version = pypi::version_of(&found.filename, project)?;
    let facts = match listed {
        Listed::Otherwise => return None,
        Listed::Not => Facts::default(),
        Listed::So(file) => Facts {
            core_metadata: match file.core_metadata {
                CoreMetadata::Digest(digest) if digest.is_strong() => Some(digest),
                _ => None,
            },
            // One that is too long is no reason to say that there is none: then the entry is refused below.
            requires_python: file.requires_python.clone(),
            upload_time: file.upload_time.clone().filter(|time| is_word(time)),
            yanked: match &file.yanked {
                Yanked::No => None,
                Yanked::Yes(reason) => Some(shortened(reason)),
            },
            media_type: None,
        },
    };
    finish(found, pypi::purl_of(project, version).ok()?, found.filename.clone(), facts)
}

/// A stored piece of an image, by where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Below its registry.
    pub(super) repository: Repository,
    /// As it is referred to.
    pub(super) digest: Digest,
    /// Whether it is a manifest, and no layer or configuration.
    pub(super) manifest: bool,
}

impl Piece {
    /// Of an artifact that came from a registry; `None` when its name is none that a registry's artifacts have.
    pub(super) fn of(found: &Description) -> Option<Self> {
        let (repository, digest) = found.filename.split_once('@')?;
        let url = Url::parse(&found.url).ok()?;
        let kind = url.path_segments()?.rev().nth(1)?.to_owned();
        Some(Self {
            repository: Repository::parse(repository)?,
            digest: reference_digest(digest).ok()?,
            manifest: match kind.as_str() {
                "manifests" => true,
                "blobs" => false,
                _ => return None,
            },
        })
    }
}

/// The entry of a manifest or, without a media type, of a blob.
pub(super) fn of_piece(
    found: &Description,
    purl: &PackageUrl,
    digest: &Digest,
    media_type: Option<String>,
) -> Option<Entry> {
    finish(found, purl.clone(), digest.to_string(), Facts { media_type, ..Facts::default() })
}

/// The entry of a tag that means a manifest.
pub(super) fn of_tag(manifest: &Entry, tag: &str) -> Option<Entry> {
    let is_tag = Reference::parse(tag).is_ok_and(|reference| matches!(reference, Reference::Tag(_)));
    let entry = Entry { file: tag.to_owned(), ..manifest.clone() };
    (is_tag && entry.check().is_ok()).then_some(entry)
}

/// The entry of what came from members of a room. Its name and facts are theirs; what it is is what is stored, and the
/// metadata beside it they may say what they like of.
pub(super) fn of_said(found: &Description, said: Entry) -> Option<Entry> {
    finish(found, said.purl, said.file, Facts { core_metadata: None, ..said.facts })
}

fn finish(found: &Description, purl: PackageUrl, file: String, facts: Facts) -> Option<Entry> {
    let entry = Entry {
        purl,
        file,
        size: found.size,
        root: found.root?,
        digests: digests(found),
        facts,
        first_seen: Some(found.stored_at.0 / 1000),
    };
    match found.private {
        true => None,
        false => entry.check().is_ok().then_some(entry),
    }
}

/// Its strong digests, the weakest first, one of a kind.
fn digests(found: &Description) -> Vec<Digest> {
    let mut all = vec![found.sha256.digest()];
    all.extend(found.digests.iter().filter(|d| d.is_strong() && d.algorithm() != Algorithm::Sha256));
    all.sort_by_key(Digest::algorithm);
    all.dedup_by_key(|digest| digest.algorithm());
    all
}

fn is_word(text: &str) -> bool {
    text.len() <= 128 && !text.contains(char::is_control)
}

fn shortened(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if short.len() + c.len_utf8() > TEXT_BYTES {
            break;
        }
        short.push(c);
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Sha256, raw_cid};
    use crate::rt::UnixMillis;

    fn found(filename: &str, url: &str) -> Description {
        let sha256 = Sha256::of(filename.as_bytes());
        Description {
            sha256,
            size: 7,
            digests: Vec::new(),
            filename: filename.into(),
            upstream: "pypi".into(),
            url: url.into(),
            stored_at: UnixMillis(1_790_000_000_123),
            used_at: None,
            root: Some(raw_cid(sha256)),
            pinned: false,
            private: false,
        }
    }

    fn page(entry: &str) -> Vec<File> {
        let name = ProjectName::normalise("six").unwrap();
        let text = format!(r#"{{"meta":{{"api-version":"1.1"}},"name":"six","files":[{entry}]}}"#);
        let url = Url::parse("https://index.example.org/simple/six/").unwrap();
        pypi::parse(Some("application/json"), text.as_bytes(), &url, &name).unwrap().files
    }

    const WHEEL: &str = "six-1.17.0-py2.py3-none-any.whl";

    #[test]
    fn files_with_what_their_page_says() {
        let stored = found(WHEEL, "https://files.example.org/six.whl");
        let (sha256, metadata) = (stored.sha256.hex(), Sha256::of(b"m"));
        let entry = |more: &str| {
            page(&format!(
                r#"{{"filename":"{WHEEL}","url":"x.whl","hashes":{{"sha256":"{sha256}"}},"size":7{more}}}"#
            ))
        };
        let six = ProjectName::normalise("six").unwrap();
        let files = entry(&format!(
            r#","requires-python":">=3.6","upload-time":"2026-01-02T03:04:05Z","yanked":"{}\nbad",
               "core-metadata":{{"sha256":"{}"}}"#,
            "ä".repeat(300),
            metadata.hex()
        ));
        let made = of_file(&stored, &six, Listed::of(&files, &stored)).unwrap();
        assert_eq!((made.purl.as_str(), made.file.as_str()), ("pkg:pypi/six@1.17.0", WHEEL));
        assert_eq!((made.size, made.root, made.first_seen), (7, stored.root.unwrap(), Some(1_790_000_000)));
        assert_eq!(made.digests, [stored.sha256.digest()]);
        let facts = &made.facts;
        assert_eq!(facts.requires_python.as_deref(), Some(">=3.6"));
        assert_eq!(facts.upload_time.as_deref(), Some("2026-01-02T03:04:05Z"));
        assert_eq!(facts.core_metadata, Some(metadata.digest()));
        assert_eq!(facts.yanked.as_ref().map(String::len), Some(512), "cut, and still withdrawn");

        let none: Vec<File> = Vec::new();
        let bare = of_file(&stored, &six, Listed::of(&none, &stored)).unwrap();
        assert_eq!(bare.facts, Facts::default());
        // Clients would install it where it does not run.
        let endless = entry(&format!(r#","requires-python":">=3, {}""#, "!=3.0.*, ".repeat(80)));
        assert_eq!(of_file(&stored, &six, Listed::of(&endless, &stored)), None);
        let other = Description {
            sha256: Sha256::of(b"other"),
            root: Some(raw_cid(Sha256::of(b"other"))),
            ..stored.clone()
        };
        let files = entry("");
        assert_eq!(
            of_file(&other, &six, Listed::of(&files, &other)),
            None,
            "other bytes than the index says"
        );
        let longer = Description { size: 8, ..stored.clone() };
        assert_eq!(
            of_file(&longer, &six, Listed::of(&files, &longer)),
            None,
            "another size than the index says"
        );
        let private = Description { private: true, ..stored.clone() };
        assert_eq!(of_file(&private, &six, Listed::of(&files, &private)), None, "kept apart");
        let idna = ProjectName::normalise("idna").unwrap();
        assert_eq!(of_file(&stored, &idna, Listed::Not), None, "another project's");
    }

    #[test]
    fn digests_are_strong_and_in_order() {
        let sha512 = Digest::parse(Algorithm::Sha512, &"ab".repeat(64)).unwrap();
        let sha384 = Digest::parse(Algorithm::Sha384, &"cd".repeat(48)).unwrap();
        let md5 = Digest::parse(Algorithm::Md5, &"ef".repeat(16)).unwrap();
        let stored = Description {
            digests: vec![sha512, md5, sha384],
            ..found("six-1.tar.gz", "https://e.example.org/x")
        };
        let six = ProjectName::normalise("six").unwrap();
        let made = of_file(&stored, &six, Listed::Not).unwrap();
        assert_eq!(made.digests, [stored.sha256.digest(), sha384, sha512]);
    }

    #[test]
    fn whose_a_file_may_be() {
        let rows: [(&str, &[&str]); 7] = [
            (WHEEL, &["six"]),
            ("zope.interface-5.0.tar.gz", &["zope-interface"]),
            ("pkg-2-1.0.tar.gz", &["pkg", "pkg-2"]),
            ("a-1.0-2.zip", &["a", "a-1-0"]),
            ("six-1.17.0-py2.py3-none-any.whl.metadata", &[]),
            ("six-1.17.0-py2.py3-none-any.whl.provenance", &[]),
            ("nothing", &[]),
        ];
        for (file, want) in rows {
            let got = projects(file);
            assert_eq!(got.iter().map(ProjectName::as_str).collect::<Vec<_>>(), want, "{file}");
        }
    }

    #[test]
    fn pieces_of_images() {
        let digest = Sha256::of(b"piece").digest();
        let name = format!("corp/app@{digest}");
        let at = |kind: &str| format!("https://registry.example.org/v2/corp/app/{kind}/{digest}");
        let manifest = found(&name, &at("manifests"));
        let piece = Piece::of(&manifest).unwrap();
        let repository = Repository::parse("corp/app").unwrap();
        assert_eq!(piece, Piece { repository, digest, manifest: true });
        assert!(!Piece::of(&found(&name, &at("blobs"))).unwrap().manifest);
        for other in [
            found(WHEEL, &at("blobs")),
            found(&name, "https://files.example.org/app.deb"),
            found("Corp/App@sha256:00", &at("blobs")),
            found(&name, "nonsense"),
        ] {
            assert_eq!(Piece::of(&other), None, "{other:?}");
        }
        let purl = crate::eco::oci::repository_purl("ghcr.io", &piece.repository).unwrap();
        let made = of_piece(&manifest, &purl, &digest, Some("application/x".into())).unwrap();
        assert_eq!(
            (made.file.clone(), made.facts.media_type.as_deref()),
            (digest.to_string(), Some("application/x"))
        );
        let tag = of_tag(&made, "1.2").unwrap();
        assert_eq!(
            (tag.file.as_str(), &tag.digests, tag.purl.as_str()),
            ("1.2", &made.digests, purl.as_str())
        );
        assert_eq!(of_tag(&made, "../x"), None);
        assert_eq!(of_tag(&made, &digest.to_string()), None, "a digest is no tag");
        assert_eq!(of_piece(&Description { private: true, ..manifest }, &purl, &digest, None), None);
    }
}
