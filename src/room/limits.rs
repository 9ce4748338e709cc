//! What a room may make us hold, and how much may wait.

use std::time::Duration;

/// Largest content of an event that is sent, in bytes of JSON: a homeserver takes 65,536 for the whole event, and ids,
/// hashes and signatures of two servers stand around it.
pub const CONTENT_BYTES: usize = 60 << 10;

/// The same for a timeline event of an encrypted room, which grows by a third in base 64.
pub const ENCRYPTED_CONTENT_BYTES: usize = 44 << 10;

/// Largest content of an event that is heard, in bytes: no event is larger (Matrix specification, "Size limits").
pub const HEARD_BYTES: usize = 64 << 10;

/// Longest user id, room id, event type and state key in bytes (Matrix specification, "Size limits").
pub const NAME_BYTES: usize = 255;

/// Longest name of a room that is shown, in characters. Its members choose it.
pub const ROOM_NAME_CHARS: usize = 120;

/// Most rooms of the account that are looked at, by their ids in order; joining more is refused. A node of one project
/// has one; an account of a person who is in hundreds of rooms is not meant for this.
pub const ROOMS: usize = 64;

/// Most members of a room that are considered, by their ids in order, so that every node considers the same.
pub const MEMBERS: usize = 4096;

/// Most state events of one type that a room is read for: one a member, and as many that outlived their members.
pub const STATE_EVENTS: usize = 2 * MEMBERS;

/// Most events that wait to be sent to one room. A full queue refuses timeline events; a state event takes the place of
/// an older one with the same key.
pub const QUEUED_A_ROOM: usize = 256;

/// Heard events that wait to be taken. When they are this many, the homeserver is not asked for more: it keeps them.
pub const HEARD_WAITING: usize = 1024;

/// Commands that wait for the thread; whoever gives more waits too.
pub const COMMANDS_WAITING: usize = 64;

/// Commands being carried out at once.
pub const COMMANDS_AT_ONCE: usize = 16;

/// Encrypted events whose key has not come, kept to be tried again when keys come. The oldest goes first: what it said
/// is in the state events, too.
pub const WAITING_FOR_KEYS: usize = 256;

/// Timeline events of a room that one answer of the homeserver brings. Older ones are left out: state has what counts.
pub const TIMELINE_EVENTS: u32 = 50;

/// Largest answer to a login in bytes.
pub const ANSWER_BYTES: usize = 64 << 10;

/// Time to join a room: with federation the homeserver has to fetch it first.
pub const JOIN_TIME: Duration = Duration::from_secs(120);

/// Time until a room that was joined or made is in what the homeserver tells us.
pub const APPEAR_TIME: Duration = Duration::from_secs(60);

/// Time for the homeserver to hear of a logout; the files go whether it does or not.
pub const LOGOUT_TIME: Duration = Duration::from_secs(10);

/// Time for the thread to end.
pub const STOP_TIME: Duration = Duration::from_secs(5);

/// The longest pause that a homeserver may ask for.
pub const ASKED_PAUSE: Duration = Duration::from_secs(3600);

/// Between two questions for news that were answered at once: a homeserver that never holds one is asked no faster.
pub const BETWEEN_POLLS: Duration = Duration::from_millis(100);

/// The same when there was no news in the answer.
pub const BETWEEN_EMPTY_POLLS: Duration = Duration::from_secs(1);
