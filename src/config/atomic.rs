//! Replaces a small file in one step.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// Writes `text` so that a reader, or a crash, sees the old file or the new one whole.
///
/// An existing file keeps its owner where we may give it. `path` must not be a symlink: that would be replaced.
pub(crate) fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let temp = dir.join(format!(".{}.dpm-{}", name.to_string_lossy(), std::process::id()));
    // One that is there was left by a process that died and had our number.
    match fs::remove_file(&temp) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let written = write_new(&temp, path, text, mode).and_then(|()| fs::rename(&temp, path));
    if written.is_err() {
        // The first error is the one that matters.
        let _ = fs::remove_file(&temp);
        return written;
    }
    File::open(dir)?.sync_all()
}

fn write_new(temp: &Path, old: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode & 0o600).open(temp)?;
    if let Ok(old) = old.metadata() {
        // Only the superuser may give files away; for others the owner is the same already.
        let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
    }
    file.set_permissions(Permissions::from_mode(mode & 0o777))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
