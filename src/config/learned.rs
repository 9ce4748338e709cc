//! What was learned, kept in the data directory: asking `pip` takes 0.3 to 0.5 s that a start need not wait.

use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{AptSource, Index, Origin};

/// How long what was learned is used without asking again.
pub const LEARNED_TIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// What this machine's clients said, and when: whole seconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Python indexes; at least one.
    pub pypi: Option<(SystemTime, Vec<Index>)>,
    /// apt's sources; there may be none.
    pub apt: Option<(SystemTime, Vec<AptSource>)>,
}

/// What was learned at most [`LEARNED_TIME`] before `now`.
///
/// Nothing where there is nothing that can be read: then one asks the clients again.
pub fn load_learned(data: &Path, now: SystemTime) -> Learned {
    let record = std::fs::read(data.join(FILE)).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let Record { at, pypi, apt } = record.unwrap_or_default();
    let fresh = |at: u64| {
        let at = UNIX_EPOCH.checked_add(Duration::from_secs(at))?;
        (now.duration_since(at).ok()? <= LEARNED_TIME).then_some(at)
    };
    let pypi = || {
        let indexes: Option<Vec<Index>> = pypi.into_iter().map(Kept::index).collect();
        Some((fresh(at)?, indexes.filter(|indexes| !indexes.is_empty())?))
    };
    let apt = || {
        let KeptApt { at, sources } = apt?;
        let sources: Option<Vec<AptSource>> = sources.into_iter().map(KeptSource::source).collect();
        Some((fresh(at)?, sources?))
    };
    Learned { pypi: pypi(), apt: apt() }
}

/// Keeps what was learned. Saving the same again changes nothing.
///
/// An index with a password is not kept, nor are the others then: the password stays in the client's own file.
pub fn save_learned(data: &Path, learned: &Learned) -> io::Result<()> {
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let kept = learned.pypi.as_ref().filter(|(_, all)| all.iter().all(|index| index.password.is_none()));
    let (at, pypi) =
        kept.map_or((0, Vec::new()), |(at, all)| (seconds(*at), all.iter().map(Kept::from).collect()));
    let apt = learned.apt.as_ref().map(|(at, sources)| KeptApt {
        at: seconds(*at),
        sources: sources.iter().map(KeptSource::from).collect(),
    });
    if pypi.is_empty() && apt.is_none() {
        return match std::fs::remove_file(data.join(FILE)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        };
    }
    let record = Record { at, pypi, apt };
    super::replace(&data.join(FILE), &serde_json::to_string_pretty(&record)?, 0o600)
}

const FILE: &str = "learned.json";

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct Record {
    /// When `pypi` was learned, in seconds since 1970.
    at: u64,
    pypi: Vec<Kept>,
    apt: Option<KeptApt>,
}

#[derive(Serialize, Deserialize)]
struct KeptApt {
    /// Seconds since 1970.
    at: u64,
    sources: Vec<KeptSource>,
}

#[derive(Serialize, Deserialize)]
struct KeptSource {
    url: String,
    private: bool,
    from: Origin,
}

impl From<&AptSource> for KeptSource {
    fn from(source: &AptSource) -> Self {
        Self { url: source.url.to_string(), private: source.private, from: source.origin.clone() }
    }
}

impl KeptSource {
    fn source(self) -> Option<AptSource> {
        let source = AptSource::from_url(&self.url, self.from).ok()?;
        Some(AptSource { private: self.private, ..source })
    }
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
        let later = at + Duration::from_secs(1);
        let none = Learned::default();
        assert_eq!(load_learned(dir.path(), at), none);
        let from = Origin::Learned("pip config global.index-url".into());
        let index = Index::from_url("pypi".into(), "http://10.0.0.1/simple", from.clone()).unwrap();
        let source = AptSource::from_url("http://10.0.0.1/debian", from).unwrap();
        let mut learned = Learned { pypi: Some((at, vec![index])), apt: Some((later, vec![source])) };
        save_learned(dir.path(), &learned).unwrap();
        assert_eq!(load_learned(dir.path(), at + LEARNED_TIME), learned);
        let of_apt = Learned { pypi: None, ..learned.clone() };
        assert_eq!(load_learned(dir.path(), later + LEARNED_TIME), of_apt, "each by its own age");
        assert_eq!(load_learned(dir.path(), later + LEARNED_TIME + Duration::from_secs(1)), none);
        assert_eq!(load_learned(dir.path(), UNIX_EPOCH), none, "learned in the future: the clock is wrong");

        learned.pypi.as_mut().unwrap().1[0].password = Some(crate::base::Secret::new("hunter2"));
        save_learned(dir.path(), &learned).unwrap();
        assert_eq!(load_learned(dir.path(), later), of_apt, "not kept with a password");
        save_learned(dir.path(), &Learned { apt: None, ..learned }).unwrap();
        assert!(!dir.path().join(FILE).exists());
        let no_source = Learned { pypi: None, apt: Some((at, Vec::new())) };
        save_learned(dir.path(), &no_source).unwrap();
        assert_eq!(load_learned(dir.path(), at), no_source, "that there is none is known too");
        std::fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(load_learned(dir.path(), at), none);
    }
}
