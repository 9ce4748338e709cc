//! `poetry.lock`, of all versions so far: files stand with the package since 1.5, at the end before.

use std::collections::HashMap;

use serde::Deserialize;

use super::uv::digest;
use super::{LockError, Locked, pypi, toml};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    package: Vec<Package>,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    #[serde(default)]
    files: Vec<Artifact>,
    source: Option<Source>,
}

#[derive(Deserialize)]
struct Source {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    files: HashMap<String, Vec<Artifact>>,
}

#[derive(Deserialize)]
struct Artifact {
    hash: String,
}

pub(super) fn parse(text: &str) -> Result<Locked, LockError> {
    let file: File = toml(text)?;
    let mut locked = Locked::default();
    for package in file.package {
        // "legacy" is an index other than the usual one.
        let kind = package.source.as_ref().and_then(|source| source.kind.as_deref());
        if !matches!(kind, None | Some("legacy")) {
            locked.pass_over(&package.name, "from no index")?;
            continue;
        }
        let elsewhere = file.metadata.files.get(&package.name).into_iter().flatten();
        let files = package.files.iter().chain(elsewhere);
        let digests = files.map(|file| digest(&package.name, &file.hash)).collect::<Result<Vec<_>, _>>()?;
        locked.put(pypi(&package.name, &package.version), digests, &package.name)?;
    }
    Ok(locked)
}
