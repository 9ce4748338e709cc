//! What was learned, kept in the data directory: asking `pip` takes 0.3 to 0.5 s that a start need not wait.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Index, Origin};

/// How long what was learned is used without asking again.
pub const LEARNED_TIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// What was learned at most [`LEARNED_TIME`] before `now`, and when: whole seconds.
///
/// `None` when there is nothing, or nothing that can be read: then one asks the clients again.
pub fn load_learned(data: &Path, now: SystemTime) -> Option<(SystemTime, Vec<Index>)> {
    let record: Record = serde_json::from_slice(&std::fs::read(data.join(FILE)).ok()?).ok()?;
    let at = UNIX_EPOCH.checked_add(Duration::from_secs(record.at))?;
    if now.duration_since(at).ok()? > LEARNED_TIME {
        return None;
    }
    let indexes: Option<Vec<Index>> = record.pypi.into_iter().map(Kept::index).collect();
    Some((at, indexes.filter(|indexes| !indexes.is_empty())?))
}

/// Keeps what was learned at this time. Saving the same again changes nothing.
///
/// An index with a password is not kept, nor are the others then: the password stays in the client's own file.
pub fn save_learned(data: &Path, at: SystemTime, indexes: &[Index]) -> io::Result<()> {
    if indexes.iter().any(|index| index.password.is_some()) {
        return match std::fs::remove_file(data.join(FILE)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
    }
    let at = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let record = Record { at, pypi: indexes.iter().map(Kept::from).collect() };
    super::replace(&data.join(FILE), &serde_json::to_string_pretty(&record)?, 0o600)
}

const FILE: &str = "learned.json";

#[derive(Serialize, Deserialize)]
struct Record {
    /// Seconds since 1970.
    at: u64,
    pypi: Vec<Kept>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    name: String,
    url: String,
    username: Option<String>,
    private: bool,
    from: Origin,
}

impl From<&Index> for Kept {
    fn from(index: &Index) -> Self {
        Self {
            name: index.name.clone(),
            url: index.url.to_string(),
            username: index.username.clone(),
            private: index.private,
            from: index.origin.clone(),
        }
    }
}

impl Kept {
    fn index(self) -> Option<Index> {
        let index = Index::from_url(self.name, &self.url, self.from).ok()?;
        Some(Index { username: self.username, private: self.private, ..index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let at = UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(load_learned(dir.path(), at), None);
        let from = Origin::Learned("pip config global.index-url".into());
        let mut indexes = vec![Index::from_url("pypi".into(), "http://10.0.0.1/simple", from).unwrap()];
        save_learned(dir.path(), at, &indexes).unwrap();
        assert_eq!(load_learned(dir.path(), at + LEARNED_TIME), Some((at, indexes.clone())));
        let late = at + LEARNED_TIME + Duration::from_secs(1);
        assert_eq!(load_learned(dir.path(), late), None);
        assert_eq!(load_learned(dir.path(), UNIX_EPOCH), None, "learned in the future: the clock is wrong");

        indexes[0].password = Some(crate::base::Secret::new("hunter2"));
        save_learned(dir.path(), late, &indexes).unwrap();
        assert!(!dir.path().join(FILE).exists(), "not kept with a password");
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(load_learned(dir.path(), at), None);
    }
}
