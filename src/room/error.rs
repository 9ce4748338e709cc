//! What can go wrong, and what the caller may do about it.

use std::path::PathBuf;
use std::time::Duration;

use super::{RoomId, UserId};

/// Why something in a room could not be done.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// There is no account.
    #[error("no Matrix account is logged in; `dpm room login` does it")]
    NoSession,
    /// There is one already.
    #[error("{0} is logged in already; `dpm room logout` comes first")]
    LoggedIn(UserId),
    /// There was one, and it no longer holds.
    #[error("the Matrix account is logged out ({0}); `dpm room login` logs it in again")]
    LoggedOut(String),
    /// The homeserver says no; asking again does not help.
    #[error("the homeserver refuses: {0}")]
    Refused(String),
    /// The homeserver does not answer, or not sensibly; later it may.
    #[error("the homeserver cannot be asked now: {why}{}", later(.after))]
    Later {
        /// What happened.
        why: String,
        /// When it wants to be asked again.
        after: Option<Duration>,
    },
    /// What was given is not what it should be.
    #[error("no {what}: {text:?}")]
    Malformed {
        /// What it should be.
        what: &'static str,
        /// What it is.
        text: String,
    },
    /// An event that no homeserver would take.
    #[error("an event of {bytes} bytes is too large: at most {most} here")]
    TooLarge {
        /// Its content's size.
        bytes: usize,
        /// The most.
        most: usize,
    },
    /// Too much waits to be sent to this room.
    #[error("{waiting} events wait to be sent to {room} already")]
    QueueFull {
        /// The room.
        room: RoomId,
        /// How many wait.
        waiting: usize,
    },
    /// The account is not in this room.
    #[error("not in the room {0}")]
    NotJoined(String),
    /// The account is in as many rooms as are looked at.
    #[error("in {0} rooms already, the most that are looked at; leave one first")]
    TooManyRooms(usize),
    /// The session file cannot be used.
    #[error("the session in {path} cannot be used: {why}; `dpm room logout` takes it away")]
    Session {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The room folder cannot be used.
    #[error("the rooms' store in {path} cannot be used: {why}; `dpm room logout` takes it away")]
    Store {
        /// The folder.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The client's thread could not be started.
    #[error("start the rooms' thread")]
    Thread(#[source] std::io::Error),
    /// The client was stopped.
    #[error("the rooms are being closed")]
    Stopped,
}

fn later(after: &Option<Duration>) -> String {
    after.map_or_else(String::new, |after| format!("; it wants to be asked again in {} s", after.as_secs()))
}
