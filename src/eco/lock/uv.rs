//! `uv.lock`, version 1.

use serde::Deserialize;

use super::{LockError, Locked, pypi, shown, toml};
use crate::base::Digest;

#[derive(Deserialize)]
struct File {
    version: u64,
    #[serde(default)]
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    /// A package of the workspace whose version is dynamic has none.
    version: Option<String>,
    #[serde(default)]
    source: Source,
    sdist: Option<Artifact>,
    #[serde(default)]
    wheels: Vec<Artifact>,
}

#[derive(Default, Deserialize)]
struct Source {
    registry: Option<String>,
    git: Option<String>,
    url: Option<String>,
}

#[derive(Deserialize)]
struct Artifact {
    hash: Option<String>,
}

pub(super) fn parse(text: &str) -> Result<Locked, LockError> {
    let file: File = toml(text)?;
    if file.version != 1 {
        return Err(LockError::Version(file.version.to_string()));
    }
    let mut locked = Locked::default();
    for package in file.package {
        let Source { registry, git, url } = &package.source;
        let why = match (registry, git, url) {
            (Some(_), ..) => None,
            (_, Some(_), _) => Some("from a git repository"),
            (_, _, Some(_)) => Some("from a URL"),
            _ => Some("from a folder"),
        };
        match (why, &package.version) {
            (Some(why), _) => locked.pass_over(&package.name, why)?,
            (None, None) => locked.pass_over(&package.name, "no version")?,
            (None, Some(version)) => {
                let hashes = package.sdist.iter().chain(&package.wheels).filter_map(|a| a.hash.as_deref());
                let digests =
                    hashes.map(|hash| digest(&package.name, hash)).collect::<Result<Vec<_>, _>>()?;
                locked.put(pypi(&package.name, version), digests, &package.name)?;
            }
        }
    }
    Ok(locked)
}

/// A digest as Python's tools write it: `sha256:…`.
pub(super) fn digest(name: &str, hash: &str) -> Result<Digest, LockError> {
    hash.parse().map_err(|_| LockError::Digest { name: shown(name), digest: shown(hash) })
}
