//! What a request path asks for, and the links that lead back here.

use std::borrow::Cow;

use super::super::path::{PathError, segment};
use crate::base::{Digest, limits};

use super::{File, ProjectName};

/// What a path below the mount point asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// The list of all projects.
    Root,
    /// A project's page.
    Project(ProjectName),
    /// The same thing under its proper address: a relative `Location`, with the query.
    Redirect(String),
    /// A file, or what goes with it.
    File(FileWant),
    /// Nothing that can exist here: 404.
    Unknown,
}

/// A file as its link names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileWant {
    /// The project whose page has the link.
    pub project: ProjectName,
    /// The strongest digest that the index stated, if any.
    pub digest: Option<Digest>,
    /// The file's own name, without the part's suffix.
    pub filename: String,
    /// Of the file.
    pub part: Part,
}

/// Which resource of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The file itself.
    Whole,
    /// Its core metadata, `.metadata` (PEP 658).
    Metadata,
    /// Its attestations, `.provenance` (PEP 740).
    Provenance,
}

impl Part {
    /// What is put behind the file's name.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Whole => "",
            Self::Metadata => ".metadata",
            Self::Provenance => ".provenance",
        }
    }
}

/// Reads a raw request path below the mount point (`/simple/`, `/files/…`) and its raw query.
///
/// Percent-escapes are decoded exactly once, segment by segment, and whatever could mean something else to a file
/// system, a header or another decoder is an error for 400.
pub fn want(path: &str, query: Option<&str>) -> Result<Want, PathError> {
    if path.len() > limits::PATH_BYTES {
        return Err(PathError::TooLong);
    }
    let Some(path) = path.strip_prefix('/') else { return Ok(Want::Unknown) };
    let mut segments = path.split('/').collect::<Vec<_>>();
    let slash = segments.len() > 1 && segments.last().is_some_and(|s| s.is_empty());
    if slash {
        segments.pop();
    }
    if segments == [""] && !slash {
        return Ok(Want::Unknown);
    }
    let segments = segments.into_iter().map(segment).collect::<Result<Vec<_>, _>>()?;
    let segments = segments.iter().map(Cow::as_ref).collect::<Vec<_>>();
    Ok(match segments.as_slice() {
        ["simple"] if slash => Want::Root,
        ["simple"] => Want::Redirect(with_query("simple/", query)),
        ["simple", raw] => project(raw, slash, query),
        ["files", project, digest, name] if !slash => {
            file(project, digest, name).map_or(Want::Unknown, Want::File)
        }
        _ => Want::Unknown,
    })
}

fn project(raw: &str, slash: bool, query: Option<&str>) -> Want {
    let Ok(name) = ProjectName::normalise(raw) else { return Want::Unknown };
    match (slash, name.as_str() == raw) {
        (true, true) => Want::Project(name),
        (true, false) => Want::Redirect(with_query(&format!("../{name}/"), query)),
        (false, _) => Want::Redirect(with_query(&format!("{name}/"), query)),
    }
}

fn with_query(location: &str, query: Option<&str>) -> String {
    match query {
        // It goes into a header: nothing but visible ASCII may pass.
        Some(query) if query.len() <= limits::PATH_BYTES && query.bytes().all(|b| b.is_ascii_graphic()) => {
            format!("{location}?{query}")
        }
        _ => location.to_owned(),
    }
}

fn file(project: &str, digest: &str, name: &str) -> Option<FileWant> {
    let project = ProjectName::normalise(project).ok().filter(|p| p.as_str() == project)?;
    let digest = match digest {
        NO_DIGEST => None,
        stated => {
            let (algorithm, hex) = stated.split_once('-')?;
            Some(Digest::parse(algorithm.parse().ok()?, hex).ok()?)
        }
    };
    let (filename, part) = [Part::Metadata, Part::Provenance]
        .into_iter()
        .find_map(|part| Some((name.strip_suffix(part.suffix())?, part)))
        .unwrap_or((name, Part::Whole));
    is_filename(filename).then(|| FileWant { project, digest, filename: filename.to_owned(), part })
}

/// The link from a project's page to one of its files: the inverse of [`want`].
pub fn file_link(project: &ProjectName, file: &File, part: Part) -> String {
    let mut link = format!("../../files/{project}/");
    match file.best_digest() {
        Some(digest) => link.extend([digest.algorithm().name(), "-", &digest.hex()]),
        None => link.push_str(NO_DIGEST),
    }
    link.push('/');
    for byte in file.filename.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => link.push(byte as char),
            _ if byte.is_ascii_alphanumeric() => link.push(byte as char),
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                link.extend([
                    '%',
                    DIGITS[usize::from(byte >> 4)] as char,
                    DIGITS[usize::from(byte & 15)] as char,
                ]);
            }
        }
    }
    link.push_str(part.suffix());
    link
}

/// The media type of a file, by its name; a name with a part's suffix is that part.
///
/// Archives are never sent with `Content-Encoding`: a client would unpack them and hash something else.
pub fn content_type(filename: &str) -> &'static str {
    const TYPES: [(&str, &str); 7] = [
        (".metadata", "text/plain; charset=utf-8"),
        (".provenance", "application/vnd.pypi.integrity.v1+json"),
        (".tar.gz", "application/gzip"),
        (".tgz", "application/gzip"),
        (".tar.bz2", "application/x-bzip2"),
        (".tar.xz", "application/x-xz"),
        (".zip", "application/zip"),
    ];
    let typed = TYPES.iter().find(|(suffix, _)| filename.ends_with(suffix));
    typed.map_or("application/octet-stream", |(_, media_type)| media_type)
}

/// Whether an index may call a file so: one harmless path segment that is not taken for a part of another file.
pub(super) fn is_filename(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= FILENAME_BYTES
        && !name.starts_with('.')
        && !name.contains(|c: char| c == '/' || c == '\\' || c.is_control())
        && !name.ends_with(Part::Metadata.suffix())
        && !name.ends_with(Part::Provenance.suffix())
}

/// In the place of a digest when the index states none.
const NO_DIGEST: &str = "-";

/// Longest file name: what common file systems take.
const FILENAME_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    use super::super::project::tests::file_named;
    use super::*;
    use crate::base::mutate::mutations;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn name(raw: &str) -> ProjectName {
        ProjectName::normalise(raw).unwrap()
    }

    #[track_caller]
    fn check(path: &str, wanted: Result<Want, PathError>) {
        assert_eq!(want(path, None), wanted, "{path}");
    }

    fn a_file(project: &str, digest: Option<&str>, filename: &str, part: Part) -> Result<Want, PathError> {
        let digest = digest.map(|d| d.parse().unwrap());
        Ok(Want::File(FileWant { project: name(project), digest, filename: filename.into(), part }))
    }

    fn redirect(location: &str) -> Result<Want, PathError> {
        Ok(Want::Redirect(location.into()))
    }

    #[test]
    fn pages() {
        check("/simple/", Ok(Want::Root));
        check("/simple", redirect("simple/"));
        check("/simple/idna/", Ok(Want::Project(name("idna"))));
        check("/simple/idn%61/", Ok(Want::Project(name("idna"))));
        check("/simple/idna", redirect("idna/"));
        check("/simple/Idna", redirect("idna/"));
        check("/simple/Zope.Interface/", redirect("../zope-interface/"));
        check("/simple/a__b/", redirect("../a-b/"));
        assert_eq!(want("/simple/A", Some("format=text/html")), redirect("a/?format=text/html"));
        assert_eq!(want("/simple/A", Some("a=\r\nSet-Cookie: b")), redirect("a/"));
        check("/simple/-a/", Ok(Want::Unknown));
        check("/simple/%C3%A9/", Ok(Want::Unknown));
        check("/simple/idna/json", Ok(Want::Unknown));
        check("/", Ok(Want::Unknown));
        check("", Ok(Want::Unknown));
        check("simple/", Ok(Want::Unknown));
        check("/nothing/here", Ok(Want::Unknown));
    }

    #[test]
    fn files() {
        let sha = format!("sha256:{HEX}");
        let row = |rest: &str| format!("/files/idna/sha256-{HEX}/{rest}");
        check(&row("idna-3.7.tar.gz"), a_file("idna", Some(&sha), "idna-3.7.tar.gz", Part::Whole));
        check(&row("i.whl.metadata"), a_file("idna", Some(&sha), "i.whl", Part::Metadata));
        check(&row("i.whl.provenance"), a_file("idna", Some(&sha), "i.whl", Part::Provenance));
        for plus in ["+", "%2B", "%2b"] {
            check(
                &format!("/files/torch/-/torch-2{plus}cu121.whl"),
                a_file("torch", None, "torch-2+cu121.whl", Part::Whole),
            );
        }
        check("/files/a/-/a-1%211.0.zip", a_file("a", None, "a-1!1.0.zip", Part::Whole));
        check("/files/a/-/a%2562.zip", a_file("a", None, "a%62.zip", Part::Whole)); // decoded once
        for unknown in [
            "/files/Idna/-/x.whl",
            "/files/idna/sha256-00/x.whl",
            "/files/idna/crc32-00/x.whl",
            "/files/idna/sha256/x.whl",
            "/files/idna/-/.x",
            "/files/idna/-/.metadata",
            "/files/idna/-/x.metadata.metadata",
            "/files/idna/-/x.whl/",
            "/files/idna/x.whl",
            "/files/idna/-/a/x.whl",
        ] {
            check(unknown, Ok(Want::Unknown));
        }
        check(&format!("/files/a/-/{}", "x".repeat(256)), Ok(Want::Unknown));
    }

    #[test]
    fn refused() {
        check("//simple/", Err(PathError::EmptySegment));
        check("//", Err(PathError::EmptySegment));
        check("/simple//", Err(PathError::EmptySegment));
        check("/files/a//x.whl", Err(PathError::EmptySegment));
        check("/simple/../x", Err(PathError::DotSegment));
        check("/simple/%2e%2E/x", Err(PathError::DotSegment));
        check("/./simple/", Err(PathError::DotSegment));
        check("/%2F%2F..%2F..", Err(PathError::Separator));
        check("/files/a/-/a%2fb", Err(PathError::Separator));
        check("/files/a/-/a%5Cb", Err(PathError::Separator));
        check("/files/a/-/a\\b", Err(PathError::Separator));
        check("/files/a/-/a%00", Err(PathError::Control));
        check("/files/a/-/a%0d%0aX:y", Err(PathError::Control));
        check("/files/a/-/a%7f", Err(PathError::Control));
        check("/files/a/-/a%c2%85", Err(PathError::Control));
        check("/files/a/-/a%", Err(PathError::Escape));
        check("/files/a/-/a%2", Err(PathError::Escape));
        check("/files/a/-/a%zz", Err(PathError::Escape));
        check("/files/a/-/a%+1", Err(PathError::Escape));
        check("/files/a/-/a%é", Err(PathError::Escape));
        check("/files/a/-/a%ff", Err(PathError::NotUtf8));
        check(&format!("/{}", "x".repeat(limits::PATH_BYTES)), Err(PathError::TooLong));
    }

    #[test]
    fn links_lead_back() {
        let names =
            ["idna-3.7.tar.gz", "a-1+cu121.whl", "a-1!2.zip", "a b%2Fc?d#e.whl", "ä-1.zip", &"%".repeat(255)];
        for filename in names {
            for digest in [None, Some(format!("sha256:{HEX}")), Some("md5:".to_owned() + &HEX[..32])] {
                for part in [Part::Whole, Part::Metadata, Part::Provenance] {
                    let mut file = file_named(filename);
                    file.digests = digest.iter().map(|d| d.parse().unwrap()).collect();
                    let link = file_link(&name("a-b"), &file, part);
                    let path = link.strip_prefix("../..").unwrap();
                    check(path, a_file("a-b", digest.as_deref(), filename, part));
                }
            }
        }
    }

    #[test]
    fn media_types() {
        let rows = [
            ("a-1.whl", "application/octet-stream"),
            ("a-1.whl.metadata", "text/plain; charset=utf-8"),
            ("a-1.tar.gz", "application/gzip"),
            ("a-1.tar.gz.provenance", "application/vnd.pypi.integrity.v1+json"),
            ("a-1.zip", "application/zip"),
            ("a-1.exe", "application/octet-stream"),
            ("", "application/octet-stream"),
        ];
        for (filename, media_type) in rows {
            assert_eq!(content_type(filename), media_type, "{filename}");
        }
    }

    #[test]
    fn mutated_paths_never_panic_nor_escape() {
        let file = format!("/files/idna/sha256-{HEX}/idna-3.7%2Bx.whl.metadata");
        mutations(&[b"/simple/Idna/", b"/simple", file.as_bytes()], 20_000, |bytes| {
            let path = String::from_utf8_lossy(bytes);
            if let Ok(Want::File(file)) = want(&path, Some(&path)) {
                assert!(is_filename(&file.filename), "{path}");
            }
        });
    }
}
