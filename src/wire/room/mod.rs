//! A room's events: who takes part, what they just got, what the room mirrors, which index has changed.
//!
//! The contents of Matrix events, hence JSON without floats and with integers below 2^53. What a node says is signed by
//! its libp2p key over deterministic CBOR that names the room and the Matrix user as well: a signature that was copied
//! into another room, or sent by another user, proves nothing. `ROOMS.md` is the specification.
//!
//! Keys that are unknown are passed over; they are not signed.

mod address;
mod index;
mod node;
mod packages;
mod scope;
mod seen;
mod sign;
#[cfg(test)]
mod tests;

pub use address::{Allow, MOST_ADDRESS_BYTES, MOST_ADDRESSES, Refusal, dialable};
pub use index::{IndexNote, MOST_INDEXES};
pub use node::{MOST_NAME_BYTES, NodeAdvert};
pub use packages::{MOST_ANNOUNCED, Packages};
pub use scope::{MOST_PATTERNS, Pattern, PatternError, Scope, read_patterns, rearranged, scope_parts};
pub use seen::{MOST_NODES, Mark, Seen, SeenError, Verdict};
pub use sign::Context;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::base::CidError;
use crate::base::cbor::CborError;
use crate::catalogue::{CatalogueError, EntryError};

/// Type of a node's state event. Its state key is the peer id.
pub const NODE_EVENT: &str = "org.dpm.node";
/// Type of the timeline event about new packages.
pub const PACKAGES_EVENT: &str = "org.dpm.packages";
/// Type of the state events that say what a room mirrors. Its state key is any word; all of them count.
pub const SCOPE_EVENT: &str = "org.dpm.scope";
/// Type of the timeline event about indexes with news.
pub const INDEX_EVENT: &str = "org.dpm.index";

/// Longest content that is read, in bytes: an event of Matrix has 65,536 at most (client-server API, "Size limits").
pub const MOST_READ_BYTES: usize = 65_536;

/// Longest content that is written, in bytes.
///
/// In an encrypted room a content is encrypted and then base64: 45,000 become 60,000, and 5 KB are left for what the
/// servers add.
pub const MOST_WRITTEN_BYTES: usize = 45_000;

/// Largest integer of an event: 2^53 − 1 (Matrix, "Canonical JSON").
pub const MOST_INTEGER: u64 = (1 << 53) - 1;

/// Version of these events.
const VERSION: u64 = 1;

#[derive(Deserialize)]
struct Versioned {
    version: Option<u64>,
}

/// Reads a content of this version.
fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, RoomError> {
    if json.len() > MOST_READ_BYTES {
        return Err(RoomError::TooLong { what: "the event", bytes: json.len(), limit: MOST_READ_BYTES });
    }
    let wrong = |e: serde_json::Error| RoomError::Json(e.to_string());
    if json.trim_ascii() == b"{}" {
        return Err(RoomError::Withdrawn);
    }
    match serde_json::from_slice::<Versioned>(json).map_err(wrong)?.version {
        Some(VERSION) => serde_json::from_slice(json).map_err(wrong),
        other => Err(RoomError::Version(other)),
    }
}

/// A number that JSON readers agree about.
fn integer(what: &'static str, number: u64) -> Result<u64, RoomError> {
    match number <= MOST_INTEGER {
        true => Ok(number),
        false => Err(RoomError::Field { what, why: "an integer above 2^53 − 1" }),
    }
}

/// A text for people: short, on one line, in its own direction.
fn line(what: &'static str, text: String, limit: usize) -> Result<String, RoomError> {
    let directs =
        |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if text.len() > limit {
        return Err(RoomError::TooLong { what, bytes: text.len(), limit });
    }
    match text.contains(|c: char| c.is_control() || directs(c) || matches!(c, '\u{2028}' | '\u{2029}')) {
        true => Err(RoomError::Field { what, why: "control characters" }),
        false => Ok(text),
    }
}

/// Whether a text can be what people call a node.
pub fn is_name(text: &str) -> bool {
    line("name", text.to_owned(), MOST_NAME_BYTES).is_ok()
}

/// Why an event counts for nothing. It says what was wrong; who sent it is known to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// An empty content: how Matrix takes a state event back.
    #[error("the event was withdrawn")]
    Withdrawn,
    /// Longer than it may be.
    #[error("{what} has {bytes} bytes, {limit} are allowed")]
    TooLong {
        /// What.
        what: &'static str,
        /// Found.
        bytes: usize,
        /// Allowed.
        limit: usize,
    },
    /// More of them than there may be.
    #[error("more than {limit} {what}")]
    TooMany {
        /// What.
        what: &'static str,
        /// Allowed.
        limit: usize,
    },
    /// Not JSON, a float, a key twice, a value missing or of the wrong kind.
    #[error("the event is not as it should be: {0}")]
    Json(String),
    /// Another version of these events, or none.
    #[error("the event has version {0:?}, this dpm reads {VERSION}")]
    Version(Option<u64>),
    /// A value that makes no sense.
    #[error("{what}: {why}")]
    Field {
        /// Which.
        what: &'static str,
        /// Why.
        why: &'static str,
    },
    /// The peer id in the event is not that of its key.
    #[error("the event names the peer {named} and has the key of {owner}")]
    OtherPeer {
        /// As it says.
        named: String,
        /// Whose key it has.
        owner: String,
    },
    /// The state key names another peer than the event.
    #[error("the event of the peer {peer} has another state key")]
    StateKey {
        /// Whose event.
        peer: String,
    },
    /// Not signed by its key for this room and this sender.
    #[error("the signature of the peer {0} does not fit this event, room and sender")]
    Signature(String),
    /// The catalogue's root is no CID.
    #[error("the catalogue's root: {0}")]
    Root(#[from] CidError),
    /// Or not one of a catalogue.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// Packed entries that are none.
    #[error("the packages: {0}")]
    Entry(#[from] EntryError),
    /// Packed CBOR that is none.
    #[error("the packages: {0}")]
    Cbor(#[from] CborError),
    /// A pattern or package URL.
    #[error("{0}")]
    Pattern(#[from] PatternError),
    /// Nobody signs for this node.
    #[error("the event could not be signed")]
    Unsigned,
}
