//! Which of a node's events is its last word: replays and steps back are found here. Pure: a small ledger.

use std::collections::HashMap;

use super::node::NodeAdvert;
use super::sign::Context;
use crate::base::{PeerId, Sha256};

/// Most nodes of a room that are remembered: a room of more has them refused, by name.
pub const MOST_NODES: usize = 4096;

/// The last events of a room's nodes. To be kept over restarts ([`Seen::marks`], [`Seen::remember`]): else a homeserver
/// could show an old one then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    nodes: HashMap<PeerId, Mark>,
}

/// What is remembered of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Who sent its last event.
    pub sender: String,
    /// That event's number.
    pub sequence: u64,
    /// SHA-256 of what was signed.
    pub message: Sha256,
}

/// What an event is that may count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The first of its node, or newer than the last.
    News,
    /// The last one again, as every sync brings it.
    Same,
}

impl Seen {
    /// Judges a verified event, and remembers it if it is news. Clocks play no part: they may be wrong.
    pub fn judge(&mut self, advert: &NodeAdvert, context: &Context<'_>) -> Result<Verdict, SeenError> {
        let message = Sha256::of(&advert.message(context).0);
        let (peer, got) = (advert.peer, advert.sequence);
        match self.nodes.get(&peer) {
            None if self.nodes.len() >= MOST_NODES => return Err(SeenError::Full),
            Some(mark) if mark.sequence > got => {
                return Err(SeenError::Back { peer, had: mark.sequence, got });
            }
            Some(mark) if mark.sequence == got => {
                return match mark.message == message {
                    true => Ok(Verdict::Same),
                    false => Err(SeenError::Twice { peer, sequence: got }),
                };
            }
            _ => {}
        }
        self.remember(peer, Mark { sender: context.sender.to_owned(), sequence: got, message });
        Ok(Verdict::News)
    }

    /// Whether a timeline event of this number tells nothing that the node's state event did not.
    pub fn is_old(&self, peer: &PeerId, sequence: u64) -> bool {
        self.nodes.get(peer).is_some_and(|mark| mark.sequence > sequence)
    }

    /// Forgets a node, to make room for others: one of somebody who is in the room no more.
    pub fn forget(&mut self, peer: &PeerId) {
        self.nodes.remove(peer);
    }

    /// Whether no further node is remembered.
    pub fn is_full(&self) -> bool {
        self.nodes.len() >= MOST_NODES
    }

    /// All that is remembered.
    pub fn marks(&self) -> impl Iterator<Item = (&PeerId, &Mark)> {
        self.nodes.iter()
    }

    /// Takes up what was remembered before a restart.
    pub fn remember(&mut self, peer: PeerId, mark: Mark) {
        if self.nodes.len() < MOST_NODES || self.nodes.contains_key(&peer) {
            self.nodes.insert(peer, mark);
        }
    }
}

/// Why a verified event counts for nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SeenError {
    /// An event that was shown before, or made before.
    #[error(
        "the peer {peer} said number {had} already, this is {got}: a replay, or a node that lost its count"
    )]
    Back {
        /// Whose.
        peer: PeerId,
        /// Known.
        had: u64,
        /// Told.
        got: u64,
    },
    /// Two events of one number: a key in two hands, or a liar.
    #[error("the peer {peer} said two different things as number {sequence}")]
    Twice {
        /// Whose.
        peer: PeerId,
        /// The number.
        sequence: u64,
    },
    /// Too many nodes.
    #[error("the room has more than {MOST_NODES} nodes")]
    Full,
}
