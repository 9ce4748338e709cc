//! The facts of a project's page, whatever form it came in.

use std::collections::HashSet;

use serde_json::{Map, Value};
use url::Url;

use crate::base::Digest;

use super::want::is_filename;
use super::{ProjectName, html, json, stored};

/// A project's page: all that upstream states, links made absolute.
#[derive(Clone, Debug, PartialEq)]
pub struct Project {
    /// Whose page it is.
    pub name: ProjectName,
    /// Its files, in upstream's order; names are unique.
    pub files: Vec<File>,
    /// All versions, files or not (PEP 700), when stated.
    pub versions: Option<Vec<String>>,
    /// The `meta` object: `api-version`, `tracks` (PEP 708), `_last-serial` and what else was there.
    pub meta: Map<String, Value>,
    /// Other top-level keys as they were, among them `project-status` (PEP 792) and `alternate-locations` (PEP 708).
    pub extra: Map<String, Value>,
    /// How many entries were left out: hostile names, links that are not http(s), second files of a name.
    pub skipped: usize,
}

/// One file of a project.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// A single path segment of at most 255 bytes: no separators, no control characters, no leading dot.
    pub filename: String,
    /// Where upstream has it: absolute, http or https, no fragment.
    pub url: Url,
    /// Every stated digest of a known algorithm.
    pub digests: Vec<Digest>,
    /// Stated hashes of other algorithms, as they were.
    pub other_hashes: Map<String, Value>,
    /// PEP 345's `Requires-Python`, not escaped.
    pub requires_python: Option<String>,
    /// PEP 592.
    pub yanked: Yanked,
    /// In bytes (PEP 700).
    pub size: Option<u64>,
    /// ISO 8601 as upstream wrote it (PEP 700).
    pub upload_time: Option<String>,
    /// PEP 658 and 714.
    pub core_metadata: CoreMetadata,
    /// Whether there is a detached OpenPGP signature (PEP 503), when stated.
    pub gpg_sig: Option<bool>,
    /// Where upstream has the attestations (PEP 740).
    pub provenance: Option<Url>,
    /// Other keys as they were.
    pub extra: Map<String, Value>,
}

impl File {
    /// The strongest stated digest of a known algorithm, be it strong or not.
    pub fn best_digest(&self) -> Option<Digest> {
        self.digests.iter().copied().max_by_key(Digest::algorithm)
    }
}

/// Whether a file was withdrawn (PEP 592).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Yanked {
    /// It was not.
    No,
    /// It was, for this reason, which may be empty.
    Yes(String),
}

/// Whether upstream serves a file's metadata beside it (PEP 658).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreMetadata {
    /// It does not, or does not say.
    No,
    /// It does, without a digest that we know.
    Yes,
    /// It does; this is the strongest stated digest of the metadata.
    Digest(Digest),
}

/// Reads the page of the project `name` as `page_url` sent it.
///
/// `Content-Type` decides between JSON (PEP 691) and HTML (PEP 503); when it names neither, the body's first
/// character does. A hostile or broken entry is left out and counted in [`Project::skipped`], a broken hash is
/// dropped; the page itself is refused when it is not one, is another project's, or is of another major version.
pub fn parse(
    content_type: Option<&str>,
    body: &[u8],
    page_url: &Url,
    name: &ProjectName,
) -> Result<Project, IndexError> {
    match Syntax::of(content_type, body)? {
        Syntax::Json => json::parse(body, page_url, name),
        Syntax::Html => html::parse(body, page_url, name),
    }
}

impl Project {
    /// The compact form that the store keeps.
    pub fn to_stored(&self) -> Vec<u8> {
        stored::write(self)
    }

    /// Reads what [`Project::to_stored`] wrote; [`IndexError::Stored`] also for the form of another dpm version,
    /// after which the page is to be fetched anew.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, IndexError> {
        stored::read(bytes)
    }
}

/// Which parser a page is for.
pub(super) enum Syntax {
    Json,
    Html,
}

impl Syntax {
    pub(super) fn of(content_type: Option<&str>, body: &[u8]) -> Result<Self, IndexError> {
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let essence = essence.to_ascii_lowercase();
        if let Some(version) = essence.strip_prefix("application/vnd.pypi.simple.v") {
            check_version(version.split('+').next().unwrap_or_default())?;
        }
        if essence == "application/json" || essence.ends_with("+json") {
            return Ok(Self::Json);
        }
        if essence == "text/html" || essence == "application/xhtml+xml" || essence.ends_with("+html") {
            return Ok(Self::Html);
        }
        match without_bom(body).iter().find(|b| !b.is_ascii_whitespace()) {
            Some(b'{') => Ok(Self::Json),
            Some(b'<') => Ok(Self::Html),
            _ => Err(IndexError::Unrecognised),
        }
    }
}

pub(super) fn without_bom(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)
}

/// A change of the major version means that we would misread the page (PEP 629).
pub(super) fn check_version(version: &str) -> Result<(), IndexError> {
    match version.trim().split('.').next() {
        Some("1") => Ok(()),
        _ => Err(IndexError::Version(version.chars().take(32).collect())),
    }
}

/// An upstream link as we keep it: joined to `base`, http(s) only, with a host, without fragment.
pub(super) fn link(base: Option<&Url>, raw: &str) -> Option<Url> {
    let mut url = match base {
        Some(base) => base.join(raw),
        None => Url::parse(raw),
    }
    .ok()?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return None;
    }
    url.set_fragment(None);
    Some(url)
}

/// Leaves out files that must not be listed; returns how many.
pub(super) fn weed(files: &mut Vec<File>) -> usize {
    let before = files.len();
    let keep = {
        let mut seen = HashSet::with_capacity(before);
        files.iter().map(|f| is_filename(&f.filename) && seen.insert(f.filename.as_str())).collect::<Vec<_>>()
    };
    let mut keep = keep.into_iter();
    files.retain(|_| keep.next().unwrap_or(false));
    before - files.len()
}

/// Most files of one page: twenty times the largest known, and some 100 MB in memory.
pub(super) const MAX_FILES: usize = 200_000;

/// Why a page is refused.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Not JSON, or not the JSON of PEP 691.
    #[error("the index page is not the JSON of the simple API")]
    Json(#[source] serde_json::Error),
    /// JSON without the list that makes it a page: an error message with status 200, perhaps.
    #[error("the index page has no list {0:?}")]
    NoList(&'static str),
    /// `api-version` of another major version than 1.
    #[error("the index page has version {0:?} of the simple API; only 1.x is understood")]
    Version(String),
    /// The page names another project.
    #[error("the index page of {asked:?} is that of {named:?}")]
    OtherProject {
        /// What was asked for.
        asked: ProjectName,
        /// What the page says, at most 64 characters.
        named: String,
    },
    /// More entries than anybody has.
    #[error("the index page has more than {0} entries")]
    TooMany(usize),
    /// Neither JSON nor HTML by type or looks.
    #[error("the index page is neither JSON nor HTML")]
    Unrecognised,
    /// Not written by this version of dpm.
    #[error("the stored index page is not of this version")]
    Stored,
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn file_named(filename: &str) -> File {
        File {
            filename: filename.into(),
            url: Url::parse("https://files.example.org/p/x").unwrap(),
            digests: vec![],
            other_hashes: Map::new(),
            requires_python: None,
            yanked: Yanked::No,
            size: None,
            upload_time: None,
            core_metadata: CoreMetadata::No,
            gpg_sig: None,
            provenance: None,
            extra: Map::new(),
        }
    }

    pub(in super::super) fn page_url() -> Url {
        Url::parse("https://index.example.org/simple/idna/").unwrap()
    }

    pub(in super::super) fn idna() -> ProjectName {
        ProjectName::normalise("idna").unwrap()
    }

    #[track_caller]
    fn check(content_type: Option<&str>, body: &str, want: &str) {
        let got = match parse(content_type, body.as_bytes(), &page_url(), &idna()) {
            Ok(project) => format!("{} files", project.files.len()),
            Err(error) => error.to_string().rsplit(' ').next().unwrap().to_owned(),
        };
        assert_eq!(got, want, "{content_type:?} {body}");
    }

    #[test]
    fn type_then_looks() {
        let json = r#"{"name":"idna","files":[{"filename":"a.zip","url":"a.zip"}]}"#;
        let html = r#"<a href="a.zip">a.zip</a>"#;
        check(Some("application/vnd.pypi.simple.v1+json"), json, "1 files");
        check(Some("Application/JSON; charset=utf-8"), json, "1 files");
        check(Some("text/html;charset=utf-8"), html, "1 files");
        check(Some("application/vnd.pypi.simple.v1+html"), html, "1 files");
        check(None, json, "1 files");
        check(None, &format!("\u{feff} \n{json}"), "1 files");
        check(Some("application/octet-stream"), html, "1 files");
        check(Some("text/html"), json, "0 files");
        check(Some("application/json"), html, "API");
        check(Some("application/vnd.pypi.simple.v2+json"), json, "understood");
        check(Some("image/png"), "PNG", "HTML");
        check(None, "", "HTML");
    }

    #[test]
    fn strongest_digest() {
        let mut file = file_named("a.zip");
        assert_eq!(file.best_digest(), None);
        let text = |d: Option<Digest>| d.unwrap().algorithm().name();
        file.digests = vec![format!("md5:{}", "0".repeat(32)).parse().unwrap()];
        assert_eq!(text(file.best_digest()), "md5");
        file.digests.insert(0, format!("sha256:{}", "0".repeat(64)).parse().unwrap());
        assert_eq!(text(file.best_digest()), "sha256");
    }
}
