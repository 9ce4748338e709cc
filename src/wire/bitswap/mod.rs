//! Bitswap 1.2 messages (Bitswap specification, "Bitswap 1.2.0: Wire Format").
//!
//! What strangers may make us hold is bounded here; what is then done with it is not decided here.

mod prefix;

pub use prefix::{Prefix, legacy_cid};

use bytes::Bytes;

use crate::base::protobuf::{Fields, put_bytes, put_bytes_head, put_number};
use crate::base::varint::put_varint;
use crate::base::{Cid, CidError, IDENTITY, limits, parse_cid};

use super::WireError;

/// Protocol that these messages belong to.
pub const PROTOCOL: &str = "/ipfs/bitswap/1.2.0";

/// Largest message in bytes: what the specification asks everybody to take.
pub const MESSAGE_BYTES: usize = 4 << 20;

/// Largest block in bytes.
pub const BLOCK_BYTES: usize = limits::BLOCK_BYTES as usize;

/// Most wants that are read from one message, and most cancels: Kubo's server keeps as many wants a peer. Further
/// ones are left out and counted, as Kubo does.
pub const WANTS: usize = 1024;

/// Most presences that are read from one message: nobody has more of our wants open than [`WANTS`], and an answer may
/// repeat itself a little. Further ones are left out and counted.
pub const PRESENCES: usize = 4 * WANTS;

/// Most blocks in a message: as many as fill it at 1 KiB, four times what one peer may have asked for.
pub const BLOCKS: usize = 4 * WANTS;

/// One message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// What the sender wants, or wants no more.
    pub wantlist: Option<Wantlist>,
    /// Blocks, with what their CIDs begin with.
    pub payload: Vec<PayloadBlock>,
    /// Blocks as bitswap 1.0 sends them, to be named by [`legacy_cid`]. Read only: never written.
    pub legacy: Vec<Bytes>,
    /// What the sender has and has not.
    pub presences: Vec<Presence>,
    /// Bytes of further blocks that the sender is about to send.
    pub pending_bytes: i32,
    /// Read only: wants, cancels and presences that were left out, because there were too many of them or because of a
    /// kind or a CID that is beyond us (identity CIDs may be long).
    pub ignored: u32,
}

/// What the sender wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wantlist {
    /// Wants and cancels in the sender's order; a CID may come twice.
    pub entries: Vec<Entry>,
    /// Whether it replaces what the sender said before.
    pub full: bool,
}

/// One want, or the end of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The block.
    pub cid: Cid,
    /// Larger is more urgent.
    pub priority: i32,
    /// The block is not wanted any more.
    pub cancel: bool,
    /// The block, or only whether it is there.
    pub want_type: WantType,
    /// Whether the sender likes to hear that the block is not there.
    pub send_dont_have: bool,
}

/// What is wanted of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WantType {
    /// Its bytes.
    #[default]
    Block,
    /// Whether it is there.
    Have,
}

/// A block as it travels: not yet verified, not yet named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadBlock {
    /// What its CID begins with.
    pub prefix: Prefix,
    /// Its bytes, at most [`BLOCK_BYTES`]. When read they are a slice of the message and keep all of it in memory.
    pub data: Bytes,
}

impl PayloadBlock {
    /// The block with this CID.
    pub fn new(cid: &Cid, data: Bytes) -> Self {
        Self { prefix: Prefix::of(cid), data }
    }

    /// See [`Prefix::cid`].
    pub fn cid(&self) -> Result<Cid, WireError> {
        self.prefix.cid(&self.data)
    }
}

/// Whether a block is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// The block.
    pub cid: Cid,
    /// There or not.
    pub kind: PresenceKind,
}

/// There or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PresenceKind {
    /// The sender can give it.
    Have,
    /// It cannot.
    DontHave,
}

impl Message {
    /// Reads a message, without the length of its frame. Blocks are not copied, and not verified.
    ///
    /// Unknown fields are skipped. Of wants and presences too many are left out, and counted in
    /// [`Message::ignored`]; everything else beyond its limit is an error.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        within("a bitswap message", bytes.len(), MESSAGE_BYTES)?;
        let mut message = Self::default();
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => message.read_wantlist(value.bytes("wantlist")?)?,
                (2, value) => {
                    let data = value.bytes("blocks")?;
                    within("a block", data.len(), BLOCK_BYTES)?;
                    message.legacy.push(bytes.slice_ref(data));
                }
                (3, value) => {
                    let (prefix, data) = read_block(value.bytes("payload")?)?;
                    message.payload.push(PayloadBlock { prefix, data: bytes.slice_ref(data) });
                }
                (4, value) => message.read_presence(value.bytes("blockPresences")?)?,
                // A negative int32 is written as 64 bits: the lowest 32 are the number.
                (5, value) => message.pending_bytes = value.number("pendingBytes")? as i32,
                _ => {}
            }
            if message.payload.len() + message.legacy.len() > BLOCKS {
                return Err(WireError::TooMany { what: "blocks in a bitswap message", limit: BLOCKS });
            }
        }
        Ok(message)
    }

    fn read_wantlist(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut wantlist = self.wantlist.take().unwrap_or_default();
        let mut cancels = wantlist.entries.iter().filter(|e| e.cancel).count();
        let mut wants = wantlist.entries.len() - cancels;
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => {
                    let Some(entry) = read_entry(value.bytes("entries")?)? else {
                        self.ignored += 1;
                        continue;
                    };
                    let so_far = if entry.cancel { &mut cancels } else { &mut wants };
                    if *so_far >= WANTS {
                        self.ignored += 1;
                        continue;
                    }
                    *so_far += 1;
                    wantlist.entries.push(entry);
                }
                (2, value) => wantlist.full = value.number("full")? != 0,
                _ => {}
            }
        }
        self.wantlist = Some(wantlist);
        Ok(())
    }

    fn read_presence(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let (mut cid, mut kind) = (None, 0);
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => cid = Some(value.bytes("a presence's cid")?),
                (2, value) => kind = value.number("a presence's type")?,
                _ => {}
            }
        }
        let kind = match kind {
            0 => Some(PresenceKind::Have),
            1 => Some(PresenceKind::DontHave),
            _ => None,
        };
        match (read_wanted_cid("a presence", cid)?, kind) {
            (Some(cid), Some(kind)) if self.presences.len() < PRESENCES => {
                self.presences.push(Presence { cid, kind });
            }
            _ => self.ignored += 1,
        }
        Ok(())
    }

    /// The message in one piece, without the length of a frame. Every block is copied.
    pub fn encode(&self) -> Vec<u8> {
        self.pieces().concat()
    }

    /// The message as a frame in pieces to be written one after the other. Blocks are not copied.
    pub fn frame(&self) -> Vec<Bytes> {
        let mut pieces = self.pieces();
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let mut head = Vec::with_capacity(4);
        put_varint(&mut head, length as u64);
        if let Some(first) = pieces.first_mut() {
            head.extend_from_slice(first);
            *first = head.into();
        } else {
            pieces.push(head.into());
        }
        pieces
    }

    /// Whether it says nothing at all: then it need not be sent.
    pub fn is_empty(&self) -> bool {
        self.wantlist.is_none()
            && self.payload.is_empty()
            && self.presences.is_empty()
            && self.pending_bytes == 0
    }

    /// No piece is empty, and the first one is never a block.
    fn pieces(&self) -> Vec<Bytes> {
        let mut pieces = Vec::with_capacity(2 * self.payload.len() + 1);
        let mut out = Vec::new();
        if let Some(wantlist) = &self.wantlist {
            put_bytes(&mut out, 1, &wantlist.encode());
        }
        for block in &self.payload {
            let prefix = block.prefix.encode();
            let mut head = Vec::with_capacity(16);
            put_bytes(&mut head, 1, &prefix);
            put_bytes_head(&mut head, 2, block.data.len());
            put_bytes_head(&mut out, 3, head.len() + block.data.len());
            out.extend_from_slice(&head);
            if !block.data.is_empty() {
                pieces.push(std::mem::take(&mut out).into());
                pieces.push(block.data.clone());
            }
        }
        let mut entry = Vec::with_capacity(48);
        for presence in &self.presences {
            entry.clear();
            put_bytes(&mut entry, 1, &presence.cid.to_bytes());
            if presence.kind == PresenceKind::DontHave {
                put_number(&mut entry, 2, 1);
            }
            put_bytes(&mut out, 4, &entry);
        }
        if self.pending_bytes != 0 {
            put_number(&mut out, 5, i64::from(self.pending_bytes) as u64);
        }
        if !out.is_empty() {
            pieces.push(out.into());
        }
        pieces
    }
}

impl Wantlist {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(48 * self.entries.len() + 2);
        let mut entry = Vec::with_capacity(48);
        for want in &self.entries {
            entry.clear();
            put_bytes(&mut entry, 1, &want.cid.to_bytes());
            if want.priority != 0 {
                put_number(&mut entry, 2, i64::from(want.priority) as u64);
            }
            for (field, set) in
                [(3, want.cancel), (4, want.want_type == WantType::Have), (5, want.send_dont_have)]
            {
                if set {
                    put_number(&mut entry, field, 1);
                }
            }
            put_bytes(&mut out, 1, &entry);
        }
        if self.full {
            put_number(&mut out, 2, 1);
        }
        out
    }
}

impl Entry {
    /// Wants a block, or to know of it, and to hear if it is not there.
    pub fn want(cid: Cid, want_type: WantType, priority: i32) -> Self {
        Self { cid, priority, cancel: false, want_type, send_dont_have: true }
    }

    /// Wants a block no more.
    pub fn cancel(cid: Cid) -> Self {
        Self { cid, priority: 0, cancel: true, want_type: WantType::Block, send_dont_have: false }
    }
}

/// `None` for an entry that is beyond us.
fn read_entry(bytes: &[u8]) -> Result<Option<Entry>, WireError> {
    let mut cid = None;
    let (mut priority, mut cancel, mut want_type, mut send_dont_have) = (0, false, 0, false);
    for field in Fields::of(bytes) {
        match field? {
            (1, value) => cid = Some(value.bytes("a want's cid")?),
            (2, value) => priority = value.number("priority")? as i32,
            (3, value) => cancel = value.number("cancel")? != 0,
            (4, value) => want_type = value.number("wantType")?,
            (5, value) => send_dont_have = value.number("sendDontHave")? != 0,
            _ => {}
        }
    }
    let want_type = match want_type {
        0 => WantType::Block,
        1 => WantType::Have,
        _ => return Ok(None),
    };
    let cid = read_wanted_cid("a want", cid)?;
    Ok(cid.map(|cid| Entry { cid, priority, cancel, want_type, send_dont_have }))
}

/// `None` for a CID that no block of ours can have: identity, or with a digest that is too long.
fn read_wanted_cid(what: &'static str, bytes: Option<&[u8]>) -> Result<Option<Cid>, WireError> {
    let bytes = bytes.ok_or(WireError::Field { what, why: "no CID" })?;
    match parse_cid(bytes) {
        Ok(cid) if cid.hash().code() == IDENTITY => Ok(None),
        Ok(cid) => Ok(Some(cid)),
        Err(CidError::LongDigest { .. } | CidError::TooLong(_)) => Ok(None),
        Err(source) => Err(cid_error(what, source)),
    }
}

fn read_block(bytes: &[u8]) -> Result<(Prefix, &[u8]), WireError> {
    let (mut prefix, mut data) = (None, &bytes[..0]);
    for field in Fields::of(bytes) {
        match field? {
            (1, value) => prefix = Some(Prefix::decode(value.bytes("prefix")?)?),
            (2, value) => data = value.bytes("data")?,
            _ => {}
        }
    }
    within("a block", data.len(), BLOCK_BYTES)?;
    let prefix = prefix.ok_or(WireError::Field { what: "a block", why: "no prefix" })?;
    Ok((prefix, data))
}

fn within(what: &'static str, bytes: usize, limit: usize) -> Result<(), WireError> {
    match bytes > limit {
        true => Err(WireError::TooLong { what, bytes: bytes as u64, limit: limit as u64 }),
        false => Ok(()),
    }
}

fn cid_error(what: &'static str, source: CidError) -> WireError {
    WireError::Cid { what, source }
}

#[cfg(test)]
mod tests;
