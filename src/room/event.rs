//! What is heard from rooms and from the homeserver.

use std::time::Duration;

use super::{Content, Kind, RoomId, UserId};

/// Something that was heard. The homeserver vouches for rooms and senders; nobody vouches for contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A state event is now so. After a restart those that were heard before do not come again:
    /// [`super::Client::read_state`] has them.
    State {
        /// Where.
        room: RoomId,
        /// The event.
        event: StateEvent,
    },
    /// Somebody said something, decrypted where the room is encrypted. What was said while nobody listened, or was
    /// not taken before a crash, may never come.
    Timeline {
        /// Where.
        room: RoomId,
        /// Who.
        sender: UserId,
        /// The event's type.
        kind: Kind,
        /// What.
        content: Content,
    },
    /// Somebody is a member now, or no longer: left, was removed, or is only invited.
    Membership {
        /// Where.
        room: RoomId,
        /// Who.
        user: UserId,
        /// Whether they are in it.
        joined: bool,
    },
    /// An event of ours that the homeserver will not take: not allowed there, too large, or the room is gone.
    Refused {
        /// Where.
        room: RoomId,
        /// The event's type.
        kind: Kind,
        /// What the homeserver said.
        why: String,
    },
    /// How it stands with the homeserver.
    Connection(Connection),
}

/// A state event of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEvent {
    /// Who set it.
    pub sender: UserId,
    /// The event's type.
    pub kind: Kind,
    /// Its key, often its sender or something of theirs.
    pub state_key: String,
    /// What it says.
    pub content: Content,
}

/// How it stands with the homeserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It answers.
    Online,
    /// It does not, or not sensibly.
    Offline {
        /// What happened.
        why: String,
        /// When it is asked again.
        retry_in: Duration,
    },
    /// It does not know our token any more, or the store cannot be read. It is not asked again: somebody has to log
    /// in.
    LoggedOut {
        /// What it said.
        why: String,
    },
}
