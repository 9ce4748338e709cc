//! Lock files: which packages a project needs, as package URLs with the digests that the file states.
//!
//! Pure, one format a file. What a lock file names but no registry has (a folder, a git repository) is told as passed
//! over, with the reason.

mod cargo;
mod image;
mod npm;
mod poetry;
mod requirements;
mod uv;

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{Digest, PackageUrl, PackageUrlError};

/// Largest lock file in bytes: the largest seen are a few MB.
pub const LOCK_BYTES: usize = 32 << 20;

/// Most packages of a lock file.
pub const LOCK_PACKAGES: usize = 100_000;

/// Longest name or version that is looked at, in bytes.
const NAME_BYTES: usize = 255;

/// A kind of lock file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockKind {
    /// `uv.lock`.
    Uv,
    /// `requirements.txt`, best with hashes.
    Requirements,
    /// `poetry.lock`.
    Poetry,
    /// `package-lock.json`, `npm-shrinkwrap.json`.
    Npm,
    /// `Cargo.lock`.
    Cargo,
    /// Images, one reference a line.
    Images,
}

impl LockKind {
    /// By a file's name; `None` when it is no lock file that is known.
    pub fn of(file_name: &str) -> Option<Self> {
        match file_name {
            "uv.lock" => Some(Self::Uv),
            "poetry.lock" => Some(Self::Poetry),
            "package-lock.json" | "npm-shrinkwrap.json" => Some(Self::Npm),
            "Cargo.lock" => Some(Self::Cargo),
            "images.txt" => Some(Self::Images),
            other => {
                (other.starts_with("requirements") && other.ends_with(".txt")).then_some(Self::Requirements)
            }
        }
    }
}

/// What a lock file names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locked {
    /// Packages with their versions (images with their digest or tag), and every digest that is stated of any of their
    /// files.
    pub packages: BTreeMap<PackageUrl, BTreeSet<Digest>>,
    /// What was passed over, and why.
    pub passed_over: Vec<(String, &'static str)>,
}

impl Locked {
    fn put(
        &mut self,
        purl: Result<PackageUrl, PackageUrlError>,
        digests: impl IntoIterator<Item = Digest>,
        name: &str,
    ) -> Result<(), LockError> {
        let purl = purl.map_err(|source| LockError::Name { name: shown(name), source })?;
        self.packages.entry(purl).or_default().extend(digests);
        self.bounded()
    }

    fn pass_over(&mut self, name: &str, why: &'static str) -> Result<(), LockError> {
        self.passed_over.push((shown(name), why));
        self.bounded()
    }

    fn bounded(&self) -> Result<(), LockError> {
        match self.packages.len() + self.passed_over.len() > LOCK_PACKAGES {
            true => Err(LockError::TooMany),
            false => Ok(()),
        }
    }
}

/// Reads a lock file.
pub fn parse(kind: LockKind, bytes: &[u8]) -> Result<Locked, LockError> {
    if bytes.len() > LOCK_BYTES {
        return Err(LockError::TooLong(bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()].iter().filter(|b| **b == b'\n').count();
        LockError::Syntax { line, why: "not UTF-8".into() }
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match kind {
        LockKind::Uv => uv::parse(text),
        LockKind::Requirements => requirements::parse(text),
        LockKind::Poetry => poetry::parse(text),
        LockKind::Npm => npm::parse(text),
        LockKind::Cargo => cargo::parse(text),
        LockKind::Images => image::parse(text),
    }
}

/// Reads TOML, and names the line where that fails.
fn toml<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, LockError> {
    toml::from_str(text).map_err(|e| {
        let at = e.span().map_or(0, |span| span.start.min(text.len()));
        let line = 1 + text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
        LockError::Syntax { line, why: shown(e.message()) }
    })
}

/// A Python package: its name is normalised (PEP 503).
fn pypi(name: &str, version: &str) -> Result<PackageUrl, PackageUrlError> {
    let name = crate::eco::pypi::ProjectName::normalise(name).map_err(|_| PackageUrlError::Name)?;
    versioned("pypi", name.as_str(), version)
}

fn versioned(kind: &str, name: &str, version: &str) -> Result<PackageUrl, PackageUrlError> {
    if name.len() > NAME_BYTES || version.len() > NAME_BYTES {
        return Err(PackageUrlError::TooLong(name.len().max(version.len())));
    }
    PackageUrl::of(kind, name, Some(version), &[])
}

/// A part of a file for a message.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

/// Why a lock file cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// Larger than [`LOCK_BYTES`].
    #[error("a lock file of {0} bytes, {LOCK_BYTES} are allowed")]
    TooLong(usize),
    /// More than [`LOCK_PACKAGES`].
    #[error("a lock file of more than {LOCK_PACKAGES} packages")]
    TooMany,
    /// Not of its format.
    #[error("line {line}: {why}")]
    Syntax {
        /// From 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A name or version that makes no package URL.
    #[error("{name}: {source}")]
    Name {
        /// As it stands there.
        name: String,
        /// Why.
        source: PackageUrlError,
    },
    /// A digest that is none.
    #[error("{name} has a digest that is none: {digest}")]
    Digest {
        /// Whose.
        name: String,
        /// As it stands there.
        digest: String,
    },
    /// A version of the format that is not known.
    #[error("this version of the lock file's format is not known: {0}")]
    Version(String),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::mutate::mutations;

    const SHA256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn read(kind: LockKind, text: &str) -> Locked {
        parse(kind, text.replace("SHA256", SHA256).as_bytes()).unwrap()
    }

    #[track_caller]
    fn check(kind: LockKind, text: &str, packages: &[(&str, usize)], passed_over: &[(&str, &str)]) {
        let locked = read(kind, text);
        let found: Vec<_> = locked.packages.iter().map(|(p, d)| (p.as_str(), d.len())).collect();
        assert_eq!(found, packages);
        let over: Vec<_> = locked.passed_over.iter().map(|(n, w)| (n.as_str(), *w)).collect();
        assert_eq!(over, passed_over);
    }

    const UV: &str = r#"
version = 1
revision = 3
requires-python = ">=3.12"

[[package]]
name = "app"
version = "0.1.0"
source = { virtual = "." }
dependencies = [{ name = "idna" }]

[[package]]
name = "idna"
version = "3.10"
source = { registry = "https://index.example.org/simple" }
sdist = { url = "https://files.example.org/idna-3.10.tar.gz", hash = "sha256:SHA256", size = 190490 }
wheels = [
    { url = "https://files.example.org/idna-3.10-py3-none-any.whl", hash = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", size = 70442 },
]

[[package]]
name = "torch"
version = "2.5.0+cu121"
source = { registry = "https://wheels.example.org/cu121" }
wheels = [{ url = "https://files.example.org/torch.whl" }]

[[package]]
name = "forked"
version = "1.0"
source = { git = "https://git.example.org/forked?rev=main#0123" }
"#;

    const REQUIREMENTS: &str = "# made by a tool\n--index-url https://index.example.org/simple\n\
        idna==3.10 ; python_version >= '3.8' \\\n    --hash=sha256:SHA256 \\\n    --hash=sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f\n\
        Zope.Interface[test]==5.0  # why\n\n-e .\nsix>=1.0\nlocal @ file:///x\nname===1+a\n";

    const POETRY: &str = r#"
[[package]]
name = "idna"
version = "3.10"
files = [{file = "idna-3.10.tar.gz", hash = "sha256:SHA256"}]

[[package]]
name = "here"
version = "1.0"
[package.source]
type = "directory"
url = "../here"

[[package]]
name = "Private_One"
version = "2.0"
files = []
[package.source]
type = "legacy"
url = "https://index.example.org/simple"

[[package]]
name = "old"
version = "1.0"

[metadata]
lock-version = "2.1"
[metadata.files]
old = [{file = "old-1.0.zip", hash = "sha256:SHA256"}]
"#;

    const NPM: &str = r#"{
 "name": "app", "version": "1.0.0", "lockfileVersion": 3,
 "packages": {
  "": {"name": "app", "version": "1.0.0"},
  "node_modules/@corp/lib": {"version": "1.2.3", "resolved": "https://npm.example.org/@corp/lib/-/lib-1.2.3.tgz",
    "integrity": "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="},
  "node_modules/a/node_modules/b": {"version": "2.0.0", "resolved": "https://npm.example.org/b/-/b-2.0.0.tgz",
    "integrity": "sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0= sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="},
  "node_modules/alias": {"name": "real", "version": "3.0.0"},
  "node_modules/linked": {"resolved": "packages/linked", "link": true},
  "packages/linked": {"version": "1.0.0"},
  "node_modules/forked": {"version": "1.0.0", "resolved": "git+ssh://git@git.example.org/forked.git#0123"}
 }}"#;

    const NPM_OLD: &str = r#"{"lockfileVersion": 1, "dependencies": {
  "a": {"version": "1.0.0", "integrity": "sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0=", "dependencies": {"b": {"version": "2.0.0"}}},
  "c": {"version": "file:../c"}}}"#;

    const CARGO: &str = r#"
version = 4

[[package]]
name = "app"
version = "0.1.0"
dependencies = ["itoa"]

[[package]]
name = "itoa"
version = "1.0.11"
source = "registry+https://index.example.org/"
checksum = "SHA256"

[[package]]
name = "forked"
version = "1.0.0"
source = "git+https://git.example.org/forked#0123"
"#;

    const IMAGES: &str = "# what we run\nalpine:3.20\nghcr.io/corp/app@sha256:SHA256\n\n";

    #[test]
    fn what_they_name() {
        check(
            LockKind::Uv,
            UV,
            &[("pkg:pypi/idna@3.10", 2), ("pkg:pypi/torch@2.5.0%2Bcu121", 0)],
            &[("app", "from a folder"), ("forked", "from a git repository")],
        );
        check(
            LockKind::Requirements,
            REQUIREMENTS,
            &[("pkg:pypi/idna@3.10", 2), ("pkg:pypi/name@1%2Ba", 0), ("pkg:pypi/zope-interface@5.0", 0)],
            &[
                ("-e .", "another file, a folder or a URL"),
                ("six>=1.0", "no one version (==)"),
                ("local @ file:///x", "another file, a folder or a URL"),
            ],
        );
        check(
            LockKind::Poetry,
            POETRY,
            &[("pkg:pypi/idna@3.10", 1), ("pkg:pypi/old@1.0", 1), ("pkg:pypi/private-one@2.0", 0)],
            &[("here", "from no index")],
        );
        check(
            LockKind::Npm,
            NPM,
            &[("pkg:npm/%40corp/lib@1.2.3", 1), ("pkg:npm/b@2.0.0", 2), ("pkg:npm/real@3.0.0", 0)],
            &[("forked", "from no registry"), ("linked", "from a folder")],
        );
        check(
            LockKind::Npm,
            NPM_OLD,
            &[("pkg:npm/a@1.0.0", 1), ("pkg:npm/b@2.0.0", 0)],
            &[("c", "from no registry")],
        );
        check(
            LockKind::Cargo,
            CARGO,
            &[("pkg:cargo/itoa@1.0.11", 1)],
            &[("app", "from a folder"), ("forked", "from no registry")],
        );
        check(
            LockKind::Images,
            IMAGES,
            &[
                ("pkg:oci/alpine?repository_url=docker.io/library/alpine&tag=3.20", 0),
                (&format!("pkg:oci/app@sha256:{SHA256}?repository_url=ghcr.io/corp/app"), 1),
            ],
            &[],
        );
    }

    #[test]
    fn kinds() {
        let rows = [
            ("uv.lock", Some(LockKind::Uv)),
            ("requirements.txt", Some(LockKind::Requirements)),
            ("requirements-dev.txt", Some(LockKind::Requirements)),
            ("poetry.lock", Some(LockKind::Poetry)),
            ("package-lock.json", Some(LockKind::Npm)),
            ("Cargo.lock", Some(LockKind::Cargo)),
            ("yarn.lock", None),
            ("setup.py", None),
        ];
        for (name, want) in rows {
            assert_eq!(LockKind::of(name), want, "{name}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let nested = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let branch = "\"dependencies\":{\"a\":{\"version\":\"1\",";
        let deep = ["{", &branch.repeat(70), "\"x\":1", &"}}".repeat(70), "}"].concat();
        let rows = [
            (LockKind::Uv, "version = 1\nx = =", "line 2:"),
            (LockKind::Uv, "version = 2", "format is not known: 2"),
            (LockKind::Uv, "version = 1\n[[package]]\nversion = \"1\"", "missing field `name`"),
            (
                LockKind::Uv,
                "version = 1\n[[package]]\nname = \"\"\nversion = \"1\"\nsource = {registry = \"x\"}",
                "name",
            ),
            (
                LockKind::Uv,
                "version=1\n[[package]]\nname=\"a\"\nversion=\"1\"\nsource={registry=\"x\"}\nsdist={hash=\"sha256:00\"}",
                "a has a digest that is none: sha256:00",
            ),
            (LockKind::Requirements, "a==1 --hash=sha256:00", "line 1: "),
            (LockKind::Requirements, "\n\na b==1", "line 3: "),
            (LockKind::Poetry, "[[package]]\nname = 1", "line 2:"),
            (LockKind::Npm, "{\n\"packages\": 7}", "line 2:"),
            (LockKind::Npm, "{\"lockfileVersion\": 9}", "format is not known: 9"),
            (LockKind::Npm, &nested, "line 1:"),
            (LockKind::Npm, &deep, "recursion limit"),
            (
                LockKind::Npm,
                "{\"lockfileVersion\":3,\"packages\":{\"node_modules/a\":{\"version\":\"1\",\"integrity\":\"sha512-AAAA\"}}}",
                "a has a digest that is none",
            ),
            (
                LockKind::Cargo,
                "[[package]]\nname=\"a\"\nversion=\"1\"\nsource=\"registry+x\"\nchecksum=\"00\"",
                "a has a digest",
            ),
            (
                LockKind::Cargo,
                "[[package]]\nname=\"a/../b\"\nversion=\"1\"\nsource=\"registry+x\"",
                "proper name",
            ),
            (LockKind::Images, "alpine\n\nno image!", "line 3: "),
        ];
        for (kind, text, want) in rows {
            let said = parse(kind, text.as_bytes()).expect_err(want).to_string();
            assert!(said.contains(want), "{said:?} does not say {want:?}");
        }
        let said = parse(LockKind::Images, b"a\n\xff").unwrap_err();
        assert_eq!(said, LockError::Syntax { line: 2, why: "not UTF-8".into() });
        assert_eq!(
            parse(LockKind::Uv, &vec![b'\n'; LOCK_BYTES + 1]),
            Err(LockError::TooLong(LOCK_BYTES + 1))
        );
        let many: String = (0..=LOCK_PACKAGES).map(|n| format!("a{n}==1\n")).collect();
        assert_eq!(parse(LockKind::Requirements, many.as_bytes()), Err(LockError::TooMany));
    }

    #[test]
    fn nothing_panics() {
        let rows = [
            (LockKind::Uv, UV),
            (LockKind::Requirements, REQUIREMENTS),
            (LockKind::Poetry, POETRY),
            (LockKind::Npm, NPM),
            (LockKind::Npm, NPM_OLD),
            (LockKind::Cargo, CARGO),
            (LockKind::Images, IMAGES),
        ];
        for (kind, text) in rows {
            mutations(&[text.as_bytes()], 500, |bytes| {
                let _ = parse(kind, bytes);
            });
        }
    }
}
