//! `package-lock.json`: versions 2 and 3 list folders (`packages`), version 1 a tree (`dependencies`).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use super::{LockError, Locked, shown, versioned};
use crate::base::{Algorithm, Digest};

/// What decides how the rest is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    lockfile_version: Option<u64>,
    packages: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Folders {
    packages: BTreeMap<String, Package>,
}

#[derive(Deserialize)]
struct Tree {
    #[serde(default)]
    dependencies: BTreeMap<String, Branch>,
}

/// Nested as deeply as JSON may be: `serde_json` stops at 128.
#[derive(Deserialize)]
struct Branch {
    version: Option<String>,
    resolved: Option<String>,
    integrity: Option<String>,
    #[serde(default)]
    dependencies: BTreeMap<String, Branch>,
}

#[derive(Deserialize)]
struct Package {
    name: Option<String>,
    version: Option<String>,
    resolved: Option<String>,
    integrity: Option<String>,
    #[serde(default)]
    link: bool,
}

/// Between a folder and the package in it.
const MODULES: &str = "node_modules/";

pub(super) fn parse(text: &str) -> Result<Locked, LockError> {
    let head: Head = json(text)?;
    let version = head.lockfile_version.unwrap_or(1);
    if !(1..=3).contains(&version) {
        return Err(LockError::Version(version.to_string()));
    }
    let mut locked = Locked::default();
    if head.packages.is_none() {
        let Tree { dependencies } = json(text)?;
        tree(&mut locked, dependencies)?;
        return Ok(locked);
    }
    let Folders { packages } = json(text)?;
    for (folder, package) in &packages {
        // The project itself, and its workspaces.
        let Some(at) = folder.rfind(MODULES) else { continue };
        take(&mut locked, &folder[at + MODULES.len()..], package)?;
    }
    Ok(locked)
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, LockError> {
    serde_json::from_str(text).map_err(|e| LockError::Syntax { line: e.line(), why: shown(&e.to_string()) })
}

fn tree(locked: &mut Locked, branches: BTreeMap<String, Branch>) -> Result<(), LockError> {
    for (name, Branch { version, resolved, integrity, dependencies }) in branches {
        take(locked, &name, &Package { name: None, version, resolved, integrity, link: false })?;
        tree(locked, dependencies)?;
    }
    Ok(())
}

fn take(locked: &mut Locked, place: &str, package: &Package) -> Result<(), LockError> {
    let name = package.name.as_deref().unwrap_or(place);
    if package.link {
        return locked.pass_over(name, "from a folder");
    }
    let Some(version) = &package.version else { return locked.pass_over(name, "no version") };
    let from_registry = |url: &String| url.starts_with("https://") || url.starts_with("http://");
    // Version 1 has the source in place of the version.
    if !package.resolved.as_ref().is_none_or(from_registry) || version.contains([':', '/']) {
        return locked.pass_over(name, "from no registry");
    }
    let digests = package.integrity.iter().flat_map(|text| text.split_ascii_whitespace());
    let digests = digests.filter_map(|text| integrity(name, text).transpose());
    locked.put(versioned("npm", name, version), digests.collect::<Result<Vec<_>, _>>()?, name)
}

/// Subresource integrity (W3C): `sha512-` and base64, perhaps with options behind a question mark. `None` for functions
/// that are unknown, which are to be passed over.
fn integrity(name: &str, text: &str) -> Result<Option<Digest>, LockError> {
    let wrong = || LockError::Digest { name: shown(name), digest: shown(text) };
    let (algorithm, rest) = text.split_once('-').ok_or_else(wrong)?;
    let Ok(algorithm) = algorithm.parse::<Algorithm>() else { return Ok(None) };
    let bytes = STANDARD.decode(rest.split('?').next().unwrap_or_default()).map_err(|_| wrong())?;
    Digest::new(algorithm, &bytes).map(Some).ok_or_else(wrong)
}
