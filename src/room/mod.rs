//! Matrix rooms: one account, the rooms it is in, and what their members say there. Everything of matrix-sdk and of
//! tokio, which it needs, lives here, on one thread of its own; what comes out are our own words.
//!
//! Knows nothing of packages. It carries events whose type starts with the prefix it was told, and who is a member;
//! who signed what, and whether it is true, is decided by whoever reads them. Rooms are never joined by an invitation
//! alone.
//!
//! The SDK's store keeps the state of rooms over a restart, so [`Client::read_state`] and [`Client::members`] answer
//! with the homeserver gone. What was queued and not sent is forgotten when the process ends.

mod account;
mod client;
mod connect;
mod error;
mod event;
mod failure;
mod hear;
mod limits;
mod queue;
mod rooms;
mod send;
mod session;
mod sync;
mod thread;
mod words;

use std::time::Duration;

use url::Url;

pub use client::{Client, Login, Proof, Status};
pub use error::RoomError;
pub use event::{Connection, Event, StateEvent};
pub use limits::*;
pub use queue::Pace;
pub use rooms::{Listed, NewRoom};
pub use words::{Content, Kind, RoomId, UserId};

/// How the client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Event types that come out start so.
    pub prefix: String,
    /// State events that every member of a room made here may send.
    pub member_state: Vec<Kind>,
    /// On the way to the homeserver; the environment's proxy variables are not used.
    pub proxy: Option<Url>,
    /// How fast events are sent.
    pub pace: Pace,
    /// How long is waited for what.
    pub patience: Patience,
}

/// How long is waited for what.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the answer to a request.
    pub request: Duration,
    /// How long the homeserver may hold a question for news when there is none.
    pub poll: Duration,
    /// Before the first new attempt after a failure; doubled each time, less a random part.
    pub first_pause: Duration,
    /// Before any new attempt that the homeserver does not ask to be later.
    pub most_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            request: Duration::from_secs(30),
            // What proxies in front of homeservers commonly allow is 60 seconds.
            poll: Duration::from_secs(30),
            first_pause: Duration::from_secs(1),
            most_pause: Duration::from_secs(300),
        }
    }
}

impl Options {
    /// With the defaults for everything that has one.
    pub fn new(prefix: &str, member_state: Vec<Kind>) -> Self {
        Self {
            prefix: prefix.to_owned(),
            member_state,
            proxy: None,
            pace: Pace::default(),
            patience: Patience::default(),
        }
    }
}
