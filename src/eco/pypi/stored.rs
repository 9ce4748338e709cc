//! The stored form of a project's page.
//!
//! A first line `dpm-pypi <version> <skipped> <name>`, then PEP 691 JSON with upstream's absolute links. Raise the
//! version when a reader of the old one would misread it: pages are then fetched anew.

use super::render::{Links, json};
use super::{IndexError, Project, ProjectName};

pub(super) fn write(project: &Project) -> Vec<u8> {
    let mut out = format!("{TAG} {} {}\n", project.skipped, project.name).into_bytes();
    json(project, Links::Upstream, &mut out);
    out
}

pub(super) fn read(bytes: &[u8]) -> Result<Project, IndexError> {
    let end = bytes.iter().take(HEAD_BYTES).position(|&b| b == b'\n').ok_or(IndexError::Stored)?;
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| IndexError::Stored)?;
    let head = head.strip_prefix(TAG).and_then(|h| h.strip_prefix(' ')).ok_or(IndexError::Stored)?;
    let (skipped, name) = head.split_once(' ').ok_or(IndexError::Stored)?;
    let name = ProjectName::normalise(name).map_err(|_| IndexError::Stored)?;
    let mut project = super::json::parse_own(&bytes[end + 1..], &name)?;
    project.skipped = skipped.parse().map_err(|_| IndexError::Stored)?;
    Ok(project)
}

const TAG: &str = "dpm-pypi 1";

/// Longest first line: the tag, a number and a name.
const HEAD_BYTES: usize = 512;
