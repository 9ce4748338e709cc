//! The disk format's version.

use std::io::Write;
use std::path::Path;

use super::StoreError;

/// Bumped when an older dpm would misread what this one writes. Fixtures of each version are in the tests.
pub(super) const VERSION: u32 = 1;

const MAGIC: &str = "dpm-store ";

/// Refuses a folder that a later dpm wrote, marks a new one.
pub(super) fn check(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join("format");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let found = text.strip_prefix(MAGIC).and_then(|t| t.trim().parse().ok());
            match found {
                Some(found) if found > VERSION => {
                    Err(StoreError::Newer { dir: dir.into(), found, known: VERSION })
                }
                Some(_) => Ok(()),
                None => Err(StoreError::NotOurs(dir.into())),
            }
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let write = || -> std::io::Result<()> {
                let temporary = dir.join("format.new");
                let mut file = std::fs::File::create(&temporary)?;
                writeln!(file, "{MAGIC}{VERSION}")?;
                file.sync_all()?;
                std::fs::rename(&temporary, &path)
            };
            write().map_err(|e| StoreError::Io("write", path.clone(), e))
        }
        Err(e) => Err(StoreError::Io("read", path, e)),
    }
}
