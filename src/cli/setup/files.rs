//! Files of clients: read as they are, and what must be made for them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use url::Url;

use crate::base::Sha256;
use crate::config::{Handover, without_userinfo};

use super::SetupError;

/// Where a file that is named really is.
pub(super) fn absolute(named: PathBuf) -> Result<PathBuf, SetupError> {
    let path = std::path::absolute(&named).map_err(|source| SetupError::Read { file: named, source })?;
    Ok(followed(path))
}

/// The file behind a symlink, also when it is not there yet: the link must stay a link.
fn followed(path: PathBuf) -> PathBuf {
    fs::canonicalize(&path).unwrap_or_else(|_| match (fs::read_link(&path), path.parent()) {
        (Ok(target), Some(dir)) => grounded(&dir.join(target)),
        _ => grounded(&path),
    })
}

/// A path that is not there, below the real place of what is: once it is there, that is its name.
fn grounded(path: &Path) -> PathBuf {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => fs::canonicalize(dir).unwrap_or_else(|_| grounded(dir)).join(name),
        _ => path.to_owned(),
    }
}

/// The directories that must be made for a file, outermost first.
pub(super) fn missing_dirs(file: &Path) -> Vec<PathBuf> {
    let dirs = file.ancestors().skip(1).take_while(|dir| !dir.exists());
    let mut missing: Vec<PathBuf> = dirs.map(Path::to_owned).collect();
    missing.reverse();
    missing
}

pub(super) fn load(memory: &Path) -> Result<Option<Handover>, SetupError> {
    Handover::load(memory).map_err(|source| SetupError::Read { file: memory.into(), source })
}

pub(super) fn read(file: &Path) -> Result<Option<String>, SetupError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SetupError::Read { file: file.into(), source }),
    }
}

pub(super) fn sha256(text: &str) -> String {
    Sha256::of(text.as_bytes()).hex()
}

pub(super) fn shown(url: &str) -> String {
    Url::parse(url).map_or_else(|_| "(no URL)".into(), |url| without_userinfo(&url).to_string())
}

pub(super) fn write_error(file: &Path, source: io::Error) -> SetupError {
    SetupError::Write { file: file.into(), source }
}

/// A new configuration file holds no secret.
pub(super) const NEW_FILE_MODE: u32 = 0o644;
