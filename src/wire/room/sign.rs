//! What every signed event has: whose it is, and the proof.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;

use super::RoomError;
use crate::base::cbor::CborWriter;
use crate::base::{PeerId, PeerKey};

/// Longest signature in bytes: RSA of 8,192 bits.
const SIGNATURE_BYTES: usize = 1024;

/// Longest id of a room or user in bytes (Matrix, "Common Identifier Format").
const ID_BYTES: usize = 255;

/// Where an event stands, as the homeserver says: in which room, sent by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context<'a> {
    /// `!…`
    pub room: &'a str,
    /// `@name:server`
    pub sender: &'a str,
}

/// Begins the message that is signed: a map of `fields` more pairs, whose keys begin at 4.
///
/// 0 domain, 1 room, 2 user, 3 peer id.
pub(super) fn message(
    domain: &'static str,
    context: &Context<'_>,
    peer: &PeerId,
    fields: usize,
) -> CborWriter {
    let mut out = CborWriter::default();
    out.map(4 + fields).uint(0).text(domain).uint(1).text(context.room).uint(2).text(context.sender);
    out.uint(3).bytes(&peer.to_bytes());
    out
}

/// Signs a message: the text that stands in the event.
pub(super) fn signed(
    message: &CborWriter,
    sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Result<String, RoomError> {
    sign(&message.0).map(|signature| pack(&signature)).ok_or(RoomError::Unsigned)
}

/// The peer that an event is of: its key must be the one that its id is made of.
pub(super) fn owner(peer: &str, key: &str) -> Result<(PeerId, PeerKey), RoomError> {
    let wrong = |what, why| RoomError::Field { what, why };
    let named: PeerId = peer.parse().map_err(|_| wrong("the peer id", "it is none"))?;
    if named.to_string() != peer {
        return Err(wrong("the peer id", "not in its usual form"));
    }
    let key = unpack("the key", key, 2048)?;
    let key = PeerKey::parse(&key).map_err(|_| wrong("the key", "not one of libp2p's, Ed25519 or RSA"))?;
    match key.peer_id() == named {
        true => Ok((named, key)),
        false => Err(RoomError::OtherPeer { named: named.to_string(), owner: key.peer_id().to_string() }),
    }
}

/// Checks an event's signature.
pub(super) fn check(
    context: &Context<'_>,
    key: &PeerKey,
    message: &CborWriter,
    signature: &str,
) -> Result<(), RoomError> {
    if context.room.len() > ID_BYTES || context.sender.len() > ID_BYTES {
        return Err(RoomError::Field { what: "the room or the sender", why: "an id above 255 bytes" });
    }
    let signature = unpack("the signature", signature, SIGNATURE_BYTES)?;
    match key.verifies(&message.0, &signature) {
        true => Ok(()),
        false => Err(RoomError::Signature(key.peer_id().to_string())),
    }
}

/// Bytes in JSON: base64 without padding, as Matrix has it.
pub(super) fn pack(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// The reverse, of at most so many bytes.
pub(super) fn unpack(what: &'static str, text: &str, limit: usize) -> Result<Vec<u8>, RoomError> {
    let bytes = text.len() / 4 * 3;
    if bytes > limit {
        return Err(RoomError::TooLong { what, bytes, limit });
    }
    STANDARD_NO_PAD.decode(text).map_err(|_| RoomError::Field { what, why: "no base64 without padding" })
}
