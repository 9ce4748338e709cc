//! Package URLs of PyPI, and which file of a project they mean (package-url specification, type `pypi`). Pure.

use super::super::path::percent_decode;
use super::{File, Project, ProjectName, Yanked};
use crate::base::{PackageUrl, PackageUrlError};

/// What stands before every one of them.
const PREFIX: &str = "pkg:pypi/";

/// `pkg:pypi/NAME@VERSION?file_name=FILE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purl {
    /// Whose.
    pub name: ProjectName,
    /// Which version of it, if stated.
    pub version: Option<String>,
    /// Which file of that, if stated (`file_name`, a qualifier of type `pypi`).
    pub file_name: Option<String>,
}

impl Purl {
    /// Whether a text is to be read as one.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with("pkg:")
    }

    /// Reads one. Qualifiers other than `file_name` say nothing about a file of an index and are passed over.
    pub fn parse(text: &str) -> Result<Self, PurlError> {
        let rest = text.strip_prefix(PREFIX).ok_or(PurlError::Type)?;
        // What follows a `#` is a path within the package.
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (path, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
        let (name, version) = match path.rsplit_once('@') {
            Some((name, version)) => (name, Some(decoded(version)?)),
            None => (path, None),
        };
        let name = ProjectName::normalise(&decoded(name)?).map_err(|_| PurlError::Name)?;
        let file_name =
            qualifiers.split('&').filter_map(|q| q.split_once('=')).find(|(k, _)| *k == "file_name");
        let file_name = file_name.map(|(_, value)| decoded(value)).transpose()?;
        Ok(Self { name, version: version.filter(|v| !v.is_empty()), file_name })
    }

    /// The one file that is meant: named by `file_name`, or the only one of the version, or its first wheel for any
    /// machine, or its first source archive. What was withdrawn is taken only where there is nothing else.
    pub fn choose<'a>(&self, project: &'a Project) -> Result<&'a File, PurlError> {
        if let Some(name) = &self.file_name {
            return project.files.iter().find(|f| f.filename == *name).ok_or(PurlError::NoFile);
        }
        let Some(version) = &self.version else { return Err(PurlError::NoVersion) };
        let of_version: Vec<_> =
            project.files.iter().filter(|f| is_of(&f.filename, &self.name, version)).collect();
        let kept: Vec<_> = of_version.iter().copied().filter(|f| f.yanked == Yanked::No).collect();
        let files = if kept.is_empty() { of_version } else { kept };
        match files.as_slice() {
            [] => Err(PurlError::NoSuchVersion),
            [only] => Ok(only),
            several => {
                let of_any = |f: &&&File| f.filename.ends_with("-none-any.whl");
                let source = |f: &&&File| SOURCES.iter().any(|end| f.filename.ends_with(end));
                let chosen = several.iter().find(of_any).or_else(|| several.iter().find(source));
                chosen.copied().ok_or(PurlError::Several)
            }
        }
    }
}

/// Ends of source archives' names.
const SOURCES: [&str; 4] = [".tar.gz", ".zip", ".tar.bz2", ".tar.xz"];

/// Whether a file is of this project and version, by its name: `name-version.tar.gz`, `name-version-….whl`. Versions
/// that are written differently (`1.0` and `1.0.0`) are different ones here.
pub fn is_of(filename: &str, project: &ProjectName, version: &str) -> bool {
    versions_in(filename, project).any(|stated| same(stated, version))
}

/// The version that a file of this project is of, as its name has it; `None` when it is of another project, or of a kind
/// that says no version there.
pub fn version_of<'f>(filename: &'f str, project: &ProjectName) -> Option<&'f str> {
    // Every version of PEP 440 begins so; what does not is the rest of a longer name.
    let begins =
        |version: &str| version.trim_start_matches(['v', 'V']).starts_with(|c: char| c.is_ascii_digit());
    versions_in(filename, project).find(|stated| begins(stated))
}

/// What the parts of a file's name say that may be its version.
fn versions_in<'f>(filename: &'f str, project: &ProjectName) -> impl Iterator<Item = &'f str> {
    let split = move |(at, _): (usize, &str)| {
        ProjectName::normalise(&filename[..at])
            .is_ok_and(|name| name == *project)
            .then(|| &filename[at + 1..])
    };
    filename.match_indices('-').filter_map(split).filter_map(move |rest| match filename.ends_with(".whl") {
        true => rest.split('-').next(),
        false => SOURCES.iter().find_map(|end| rest.strip_suffix(end)),
    })
}

/// The package URL of a version of a project (type `pypi`): the version as the file's name has it, for that is what there
/// is to go by.
pub fn purl_of(project: &ProjectName, version: &str) -> Result<PackageUrl, PackageUrlError> {
    PackageUrl::of("pypi", project.as_str(), Some(version), &[])
}

/// The project that a file is of, by its name; a wild guess where a source archive's own name has a dash and a digit.
pub fn project_of(filename: &str) -> Option<ProjectName> {
    let filename =
        filename.strip_suffix(".metadata").or(filename.strip_suffix(".provenance")).unwrap_or(filename);
    let name = match filename.ends_with(".whl") {
        true => filename.split('-').next()?,
        false => {
            let digit = |at: &usize| filename.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit);
            &filename[..filename.match_indices('-').map(|(at, _)| at).find(digit)?]
        }
    };
    ProjectName::normalise(name).ok()
}

fn same(a: &str, b: &str) -> bool {
    let folded = |v: &str| v.trim_start_matches(['v', 'V']).to_ascii_lowercase().replace(['_', '-'], ".");
    folded(a) == folded(b)
}

fn decoded(raw: &str) -> Result<String, PurlError> {
    percent_decode(raw).map(|text| text.into_owned()).map_err(|_| PurlError::Escape)
}

/// Why a package URL means no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PurlError {
    /// Of another ecosystem, or none at all.
    #[error("a package URL that dpm can read begins with {PREFIX}")]
    Type,
    /// No name of a project.
    #[error("there is no project's name in it")]
    Name,
    /// A broken escape.
    #[error("it has a broken percent-escape")]
    Escape,
    /// It names a project and nothing more.
    #[error("it names no version: {PREFIX}NAME@VERSION does")]
    NoVersion,
    /// The index has no file of that version.
    #[error("the index lists no file of this version")]
    NoSuchVersion,
    /// The index has no file of that name.
    #[error("the index lists no file of this name")]
    NoFile,
    /// Several files, for several machines.
    #[error("the version has files for several machines: name one with ?file_name=")]
    Several,
}

#[cfg(test)]
mod tests {
    use super::super::project::tests::file_named;
    use super::*;

    fn name(raw: &str) -> ProjectName {
        ProjectName::normalise(raw).unwrap()
    }

    #[test]
    fn texts() {
        let purl = |n: &str, version: Option<&str>, file: Option<&str>| {
            Ok(Purl { name: name(n), version: version.map(Into::into), file_name: file.map(Into::into) })
        };
        let cases = [
            ("pkg:pypi/six", purl("six", None, None)),
            ("pkg:pypi/Zope.Interface@5.0", purl("zope-interface", Some("5.0"), None)),
            ("pkg:pypi/a@1%2Bcu121", purl("a", Some("1+cu121"), None)),
            ("pkg:pypi/a@1?x=y&file_name=a-1%2Bb.whl#sub/path", purl("a", Some("1"), Some("a-1+b.whl"))),
            ("pkg:pypi/a@", purl("a", None, None)),
            ("pkg:npm/a@1", Err(PurlError::Type)),
            ("six", Err(PurlError::Type)),
            ("pkg:pypi/", Err(PurlError::Name)),
            ("pkg:pypi/a/b@1", Err(PurlError::Name)),
            ("pkg:pypi/a@%zz", Err(PurlError::Escape)),
        ];
        for (text, want) in cases {
            assert_eq!(Purl::parse(text), want, "{text}");
        }
    }

    #[test]
    fn versions_in_names() {
        let cases = [
            ("six-1.17.0-py2.py3-none-any.whl", "six", "1.17.0", true),
            ("six-1.17.0.tar.gz", "six", "1.17.0", true),
            ("six-1.17.0.tar.gz", "six", "1.17", false),
            ("six-1.17.0.tar.gz.asc", "six", "1.17.0", false),
            ("Zope.Interface-5.0.zip", "zope-interface", "v5.0", true),
            ("python-dateutil-2.8.tar.gz", "python-dateutil", "2.8", true),
            ("python-dateutil-2.8.tar.gz", "python", "2.8", false),
            ("a_b-1.0_rc1-py3-none-any.whl", "a-b", "1.0-RC1", true),
            ("a", "a", "1", false),
        ];
        for (file, project, version, want) in cases {
            assert_eq!(is_of(file, &name(project), version), want, "{file} {version}");
        }
        let cases = [
            ("six-1.17.0-py2.py3-none-any.whl", Some("six")),
            ("six-1.17.0-py2.py3-none-any.whl.metadata", Some("six")),
            ("python-dateutil-2.8.tar.gz", Some("python-dateutil")),
            ("a_b-1-py3-none-any.whl", Some("a-b")),
            ("nothing", None),
            ("é-1.zip", None),
        ];
        for (file, want) in cases {
            assert_eq!(project_of(file), want.map(name), "{file}");
        }
    }

    #[test]
    fn versions_that_names_say() {
        let cases = [
            ("six-1.17.0-py2.py3-none-any.whl", "six", Some("pkg:pypi/six@1.17.0")),
            ("Zope.Interface-5.0.zip", "zope-interface", Some("pkg:pypi/zope-interface@5.0")),
            ("torch-2.1.0+cu121-cp312-cp312-linux_x86_64.whl", "torch", Some("pkg:pypi/torch@2.1.0%2Bcu121")),
            ("python-dateutil-2.8.tar.gz", "python-dateutil", Some("pkg:pypi/python-dateutil@2.8")),
            ("python-dateutil-2.8.tar.gz", "python", None),
            ("pkg-2-1.0-rc1.tar.gz", "pkg-2", Some("pkg:pypi/pkg-2@1.0-rc1")),
            ("six-1.17.0.exe", "six", None),
            ("six-.zip", "six", None),
            ("six.zip", "six", None),
        ];
        for (file, project, want) in cases {
            let project = name(project);
            let found =
                version_of(file, &project).map(|version| purl_of(&project, version).unwrap().to_string());
            assert_eq!(found.as_deref(), want, "{file} of {project}");
        }
    }

    #[test]
    fn choices() {
        let project = |files: &[&str]| Project {
            name: name("a"),
            files: files.iter().map(|f| file_named(f)).collect(),
            versions: None,
            meta: Default::default(),
            extra: Default::default(),
            skipped: 0,
        };
        let one = Purl::parse("pkg:pypi/a@1").unwrap();
        let cases: [(&[&str], Result<&str, PurlError>); 6] = [
            (&["a-1.tar.gz", "a-2.tar.gz"], Ok("a-1.tar.gz")),
            (&["a-1.tar.gz", "a-1-py3-none-any.whl"], Ok("a-1-py3-none-any.whl")),
            (&["a-1-cp313-cp313-linux_x86_64.whl", "a-1.tar.gz"], Ok("a-1.tar.gz")),
            (&["a-1-cp313-cp313-linux_x86_64.whl"], Ok("a-1-cp313-cp313-linux_x86_64.whl")),
            (&["a-1-cp313-cp313-linux_x86_64.whl", "a-1-cp313-cp313-win32.whl"], Err(PurlError::Several)),
            (&["a-2.tar.gz"], Err(PurlError::NoSuchVersion)),
        ];
        for (files, want) in cases {
            let project = project(files);
            assert_eq!(one.choose(&project).map(|f| f.filename.as_str()), want, "{files:?}");
        }
        let mut withdrawn = project(&["a-1-py3-none-any.whl", "a-1.zip"]);
        withdrawn.files[0].yanked = Yanked::Yes(String::new());
        assert_eq!(one.choose(&withdrawn).unwrap().filename, "a-1.zip");
        let named = Purl::parse("pkg:pypi/a?file_name=a-1-py3-none-any.whl").unwrap();
        assert_eq!(named.choose(&withdrawn).unwrap().filename, "a-1-py3-none-any.whl");
        assert_eq!(Purl::parse("pkg:pypi/a").unwrap().choose(&withdrawn), Err(PurlError::NoVersion));
    }
}
