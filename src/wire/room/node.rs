//! A node's state event: where it is, and the root of its catalogue.

use serde::{Deserialize, Serialize};

use super::address::{Allow, MOST_ADDRESS_BYTES, MOST_ADDRESSES, Refusal, dialable};
use super::sign::{Context, check, message, owner, pack, signed};
use super::{RoomError, VERSION, integer, line, read};
use crate::base::{Multiaddr, PeerId, PeerKey, parse_cid_text};
use crate::catalogue::Root;

const DOMAIN: &str = "dpm-room-node-v1";

/// Longest display name, and longest name of a program with its version, in bytes.
pub const MOST_NAME_BYTES: usize = 64;

/// Longest content in bytes: sixteen addresses and an RSA key take under ten thousand, and readers keep one of each node.
const MOST_NODE_BYTES: usize = 16_384;

/// Longest CID of a catalogue's root as text: base 32 has 59.
const CID_TEXT_BYTES: usize = 128;

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAdvert {
    /// Who.
    pub peer: PeerId,
    /// Where, as multiaddrs: at most [`MOST_ADDRESSES`]. Texts, since one that is unknown today spoils no other.
    pub addresses: Vec<String>,
    /// What people call it; may be empty.
    pub name: String,
    /// Program and version: `dpm/0.1.0`.
    pub agent: String,
    /// Its catalogue, if it has one.
    pub catalogue: Option<Root>,
    /// Grows with every event of this node, by one or more.
    pub sequence: u64,
    /// When it was written, in milliseconds since 1970, by the node's own clock.
    pub time_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Raw {
    version: u64,
    peer: String,
    key: String,
    addresses: Vec<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    agent: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    entries: u64,
    sequence: u64,
    time: u64,
    signature: String,
}

impl NodeAdvert {
    /// Reads and verifies a content. The sender must not be anybody but a member: state outlives membership.
    pub fn read(json: &[u8], context: &Context<'_>, state_key: &str) -> Result<Self, RoomError> {
        if json.len() > MOST_NODE_BYTES {
            return Err(RoomError::TooLong { what: "the event", bytes: json.len(), limit: MOST_NODE_BYTES });
        }
        let raw: Raw = read(json)?;
        let (peer, key) = owner(&raw.peer, &raw.key)?;
        if raw.peer != state_key {
            return Err(RoomError::StateKey { peer: raw.peer });
        }
        let advert = Self {
            peer,
            addresses: raw.addresses,
            name: line("the name", raw.name, MOST_NAME_BYTES)?,
            agent: line("the program", raw.agent, MOST_NAME_BYTES)?,
            catalogue: catalogue(raw.root, integer("entries", raw.entries)?)?,
            sequence: integer("sequence", raw.sequence)?,
            time_ms: integer("time", raw.time)?,
        };
        advert.check()?;
        check(context, &key, &advert.message(context), &raw.signature)?;
        Ok(advert)
    }

    /// Writes and signs a content: `sign` is the node's own key, whose public half is `key`.
    pub fn write(
        &self,
        context: &Context<'_>,
        key: &PeerKey,
        sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<String, RoomError> {
        self.check()?;
        line("the name", self.name.clone(), MOST_NAME_BYTES)?;
        line("the program", self.agent.clone(), MOST_NAME_BYTES)?;
        for (what, number) in [("sequence", self.sequence), ("time", self.time_ms)] {
            integer(what, number)?;
        }
        let raw = Raw {
            version: VERSION,
            peer: self.peer.to_string(),
            key: pack(&key.to_bytes()),
            addresses: self.addresses.clone(),
            name: self.name.clone(),
            agent: self.agent.clone(),
            root: self.catalogue.map(|root| root.cid().to_string()),
            entries: self.catalogue.map_or(0, |root| root.entries),
            sequence: self.sequence,
            time: self.time_ms,
            signature: signed(&self.message(context), sign)?,
        };
        serde_json::to_string(&raw).map_err(|e| RoomError::Json(e.to_string()))
    }

    /// The addresses that may be dialled, and those that may not, with the reason.
    pub fn dialable(&self, allow: Allow) -> (Vec<Multiaddr>, Vec<(&str, Refusal)>) {
        let (mut dial, mut refused) = (Vec::new(), Vec::new());
        for address in &self.addresses {
            match dialable(address, &self.peer, allow) {
                Ok(address) => dial.push(address),
                Err(why) => refused.push((address.as_str(), why)),
            }
        }
        (dial, refused)
    }

    fn check(&self) -> Result<(), RoomError> {
        if self.addresses.len() > MOST_ADDRESSES {
            return Err(RoomError::TooMany { what: "addresses", limit: MOST_ADDRESSES });
        }
        for address in &self.addresses {
            line("an address", address.clone(), MOST_ADDRESS_BYTES)?;
        }
        Ok(())
    }

    /// What is signed: 4 addresses, 5 name, 6 program, 7 root (its CID's bytes, empty for none), 8 entries, 9
    /// sequence, 10 time.
    pub(super) fn message(&self, context: &Context<'_>) -> crate::base::cbor::CborWriter {
        let mut out = message(DOMAIN, context, &self.peer, 7);
        out.uint(4).array(self.addresses.len());
        for address in &self.addresses {
            out.text(address);
        }
        let root = self.catalogue.map_or(Vec::new(), |root| root.cid().to_bytes());
        let entries = self.catalogue.map_or(0, |root| root.entries);
        out.uint(5).text(&self.name).uint(6).text(&self.agent).uint(7).bytes(&root).uint(8).uint(entries);
        out.uint(9).uint(self.sequence).uint(10).uint(self.time_ms);
        out
    }
}

/// A catalogue's root as events have it.
pub(super) fn root(text: &str, entries: u64) -> Result<Root, RoomError> {
    if text.len() > CID_TEXT_BYTES {
        return Err(RoomError::TooLong { what: "the root", bytes: text.len(), limit: CID_TEXT_BYTES });
    }
    Ok(Root::of(&parse_cid_text(text)?, entries)?)
}

fn catalogue(text: Option<String>, entries: u64) -> Result<Option<Root>, RoomError> {
    match text {
        Some(text) => root(&text, entries).map(Some),
        None if entries == 0 => Ok(None),
        None => Err(RoomError::Field { what: "entries", why: "some, of no catalogue" }),
    }
}
