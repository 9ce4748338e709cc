//! The timeline event about indexes: one of them told a node of something new, so the others may ask, too.

use serde::{Deserialize, Serialize};

use super::sign::{Context, check, message, owner, pack, signed};
use super::{PatternError, RoomError, VERSION, integer, line, read};
use crate::base::cbor::CborWriter;
use crate::base::{PackageUrl, PeerId, PeerKey};

const DOMAIN: &str = "dpm-room-index-v1";

/// Most indexes in one event.
pub const MOST_INDEXES: usize = 256;

/// Longest mark in bytes: ETags are shorter.
const MARK_BYTES: usize = 128;

/// Index pages that changed: a hint to ask one's own upstream, never a fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexNote {
    /// Whose word it is.
    pub peer: PeerId,
    /// Package (a URL without version), and a mark of the page: its ETag, or the like. Who has seen it asks nobody.
    pub indexes: Vec<(PackageUrl, String)>,
    /// In milliseconds since 1970, by the node's own clock.
    pub time_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    version: u64,
    peer: String,
    key: String,
    indexes: Vec<(String, String)>,
    time: u64,
    signature: String,
}

impl IndexNote {
    /// Reads and verifies a content.
    pub fn read(json: &[u8], context: &Context<'_>) -> Result<Self, RoomError> {
        let raw: Raw = read(json)?;
        let (peer, key) = owner(&raw.peer, &raw.key)?;
        if raw.indexes.len() > MOST_INDEXES {
            return Err(RoomError::TooMany { what: "indexes", limit: MOST_INDEXES });
        }
        let mut indexes = Vec::with_capacity(raw.indexes.len());
        for (purl, mark) in raw.indexes {
            let purl = PackageUrl::parse(&purl).map_err(PatternError::from)?;
            indexes.push((purl, line("the mark", mark, MARK_BYTES)?));
        }
        let note = Self { peer, indexes, time_ms: integer("time", raw.time)? };
        note.check()?;
        check(context, &key, &note.message(context), &raw.signature)?;
        Ok(note)
    }

    /// Writes and signs a content of at most [`MOST_INDEXES`].
    pub fn write(
        &self,
        context: &Context<'_>,
        key: &PeerKey,
        sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<String, RoomError> {
        self.check()?;
        let raw = Raw {
            version: VERSION,
            peer: self.peer.to_string(),
            key: pack(&key.to_bytes()),
            indexes: self.indexes.iter().map(|(purl, mark)| (purl.to_string(), mark.clone())).collect(),
            time: integer("time", self.time_ms)?,
            signature: signed(&self.message(context), sign)?,
        };
        serde_json::to_string(&raw).map_err(|e| RoomError::Json(e.to_string()))
    }

    fn check(&self) -> Result<(), RoomError> {
        if self.indexes.len() > MOST_INDEXES {
            return Err(RoomError::TooMany { what: "indexes", limit: MOST_INDEXES });
        }
        match self.indexes.iter().any(|(purl, _)| purl.version().is_some()) {
            true => Err(RoomError::Field { what: "an index", why: "it is of no one version" }),
            false => Ok(()),
        }
    }

    /// What is signed: 4 time, 5 list of package and mark.
    fn message(&self, context: &Context<'_>) -> CborWriter {
        let mut out = message(DOMAIN, context, &self.peer, 2);
        out.uint(4).uint(self.time_ms).uint(5).array(self.indexes.len());
        for (purl, mark) in &self.indexes {
            out.array(2).text(purl.as_str()).text(mark);
        }
        out
    }
}
