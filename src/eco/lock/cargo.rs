//! `Cargo.lock`, versions 1 to 4; checksums stand with their packages since version 2.

use serde::Deserialize;

use super::{LockError, Locked, shown, toml, versioned};
use crate::base::{Algorithm, Digest};

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    package: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
}

pub(super) fn parse(text: &str) -> Result<Locked, LockError> {
    let file: File = toml(text)?;
    let mut locked = Locked::default();
    for package in file.package {
        let name = &package.name;
        let why = match &package.source {
            None => Some("from a folder"),
            Some(source) if source.starts_with("registry+") || source.starts_with("sparse+") => None,
            Some(_) => Some("from no registry"),
        };
        if let Some(why) = why {
            locked.pass_over(name, why)?;
            continue;
        }
        if name.contains('/') {
            let source = crate::base::PackageUrlError::Name;
            return Err(LockError::Name { name: shown(name), source });
        }
        let digest = package.checksum.map(|hex| {
            Digest::parse(Algorithm::Sha256, &hex)
                .map_err(|_| LockError::Digest { name: shown(name), digest: shown(&hex) })
        });
        locked.put(versioned("cargo", name, &package.version), digest.transpose()?, name)?;
    }
    Ok(locked)
}
