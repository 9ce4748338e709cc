//! Who is logged in: `DATA/room/session`, which only its owner can read, beside the SDK's SQLite files.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use url::Url;

use super::{RoomError, UserId};
use crate::base::Secret;

/// Largest session file in bytes: four short texts, and a token that is never long.
const SESSION_BYTES: u64 = 16 << 10;

/// The form of the file. A newer one is refused.
const VERSION: u32 = 1;

/// An account on a homeserver, and the token that proves it.
#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) homeserver: Url,
    pub(super) user: UserId,
    pub(super) device: String,
    pub(super) token: Secret,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    homeserver: String,
    user: String,
    device: String,
    token: String,
}

/// Where the session of a room folder is.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("session")
}

impl Session {
    /// Reads the session of a room folder. Refuses one that others may read.
    pub(super) fn load(dir: &Path) -> Result<Option<Self>, RoomError> {
        let path = path(dir);
        let unusable = |why: String| RoomError::Session { path: path.clone(), why };
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(unusable(e.to_string())),
        };
        let about = file.metadata().map_err(|e| unusable(e.to_string()))?;
        let mode = about.permissions().mode() & 0o7777;
        if !about.is_file() || about.len() > SESSION_BYTES {
            return Err(unusable("it is no small plain file".into()));
        }
        if mode & 0o077 != 0 {
            return Err(unusable(format!("it may be read by others (mode {mode:04o})")));
        }
        if about.uid() != rustix::process::geteuid().as_raw() && about.uid() != 0 {
            return Err(unusable("it belongs to another user".into()));
        }
        let mut text = String::new();
        file.take(SESSION_BYTES).read_to_string(&mut text).map_err(|e| unusable(e.to_string()))?;
        // serde_json's own message would show a part of the text.
        let stored: Stored = serde_json::from_str(&text).map_err(|_| unusable("it is damaged".into()))?;
        if stored.version != VERSION {
            return Err(unusable(format!("a newer dpm wrote it (form {})", stored.version)));
        }
        Ok(Some(Self {
            homeserver: stored.homeserver.parse().map_err(|_| unusable("it is damaged".into()))?,
            user: UserId::parse(&stored.user).map_err(|e| unusable(e.to_string()))?,
            device: stored.device,
            token: Secret::new(stored.token),
        }))
    }

    /// Makes a room folder with this session and nothing else in it: keys of an earlier session are of no use.
    pub(super) fn save(&self, dir: &Path) -> Result<(), RoomError> {
        let stored = Stored {
            version: VERSION,
            homeserver: self.homeserver.to_string(),
            user: self.user.to_string(),
            device: self.device.clone(),
            token: self.token.reveal().to_owned(),
        };
        let written = serde_json::to_vec(&stored).map_err(io::Error::other).and_then(|text| {
            remove(dir)?;
            DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
            let half = dir.join("session.new");
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&half)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&half, path(dir))?;
            File::open(dir)?.sync_all()
        });
        written.map_err(|e| RoomError::Session { path: path(dir), why: e.to_string() })
    }
}

/// Takes a room folder away, the session first: without it the rest means nothing.
pub(super) fn remove(dir: &Path) -> io::Result<()> {
    let gone = |done: io::Result<()>| match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    gone(std::fs::remove_file(path(dir)))?;
    gone(std::fs::remove_dir_all(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session {
            homeserver: "https://matrix.example.org".parse().unwrap(),
            user: UserId::parse("@a:example.org").unwrap(),
            device: "DEVICE".into(),
            token: Secret::new("syt_secret"),
        }
    }

    #[test]
    fn it_survives_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("room");
        assert!(Session::load(&dir).unwrap().is_none());
        session().save(&dir).unwrap();
        std::fs::write(dir.join("store"), "of an earlier session").unwrap();
        session().save(&dir).unwrap();
        let loaded = Session::load(&dir).unwrap().unwrap();
        assert_eq!((loaded.user, loaded.token.reveal()), (session().user, "syt_secret"));
        let names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["session"]);
        assert_eq!(std::fs::metadata(path(&dir)).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o700);
        remove(&dir).unwrap();
        remove(&dir).unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn what_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("room");
        session().save(&dir).unwrap();
        let good = std::fs::read_to_string(path(&dir)).unwrap();
        let newer = good.replace("\"version\":1", "\"version\":2");
        let rows: &[(&str, u32, &str)] = &[
            (&good, 0o640, "may be read by others"),
            ("", 0o600, "damaged"),
            (&good[..good.len() / 2], 0o600, "damaged"),
            (&newer, 0o600, "a newer dpm"),
            (&good.replace("@a:", "a:"), 0o600, "no user id"),
            (&"x".repeat(20 << 10), 0o600, "no small plain file"),
        ];
        for (text, mode, error) in rows {
            std::fs::write(path(&dir), text).unwrap();
            std::fs::set_permissions(path(&dir), PermissionsExt::from_mode(*mode)).unwrap();
            let said = Session::load(&dir).unwrap_err().to_string();
            assert!(said.contains(error), "{said:?} does not say {error:?}");
            assert!(!said.contains("syt_"), "{said}");
            assert!(said.contains("dpm room logout"), "{said:?} does not say what to do");
        }
    }
}
