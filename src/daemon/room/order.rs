//! Orders about Matrix rooms, and how they stand in a request.

use crate::eco::oci::Platforms;
use crate::members::Mode;

use super::super::control::{platform_words, platforms};

/// An order about Matrix rooms. Only a running node carries it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomOrder {
    /// Log in. What is needed comes as bytes, so that no secret is in a request's line: a JSON object with
    /// `homeserver`, `user`, and `password` or `token`.
    Login,
    /// Log out, and forget everything of the account.
    Logout,
    /// Make a room. What it mirrors comes as bytes: one pattern a line.
    Create {
        /// What it is called.
        name: String,
        /// Whether timeline events are encrypted.
        encrypted: bool,
        /// Who is invited; with nobody, whoever knows the id may join.
        invite: Vec<String>,
        /// How it is used here, if that is said.
        mirror: Option<Mode>,
    },
    /// Join a room by its id or alias.
    Join {
        /// The room.
        room: String,
        /// Servers that are in it.
        via: Vec<String>,
        /// How it is used here, if that is said.
        mirror: Option<Mode>,
    },
    /// Leave a room, or turn an invitation down.
    Leave(String),
    /// The account and its rooms.
    List,
    /// What a room mirrors, after this change.
    Scope {
        /// Its id or name.
        room: String,
        /// What becomes of it. The patterns come as bytes: one a line.
        change: Change,
    },
    /// Use a room so from now on.
    Mirror {
        /// Its id or name.
        room: String,
        /// How.
        mode: Mode,
    },
    /// A room's members and what they have.
    Show {
        /// Its id or name.
        room: String,
        /// The most that is listed of what is missing here.
        missing: Option<usize>,
    },
    /// Fetch everything in a room's scope that is not here.
    Sync {
        /// Its id or name.
        room: String,
        /// Of an image that is fetched from its registry.
        platforms: Platforms,
    },
}

/// What becomes of a room's scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It stays as it is.
    Nothing,
    /// What is given is added.
    Add,
    /// What is given takes its place.
    Replace,
}

const CHANGES: [(Change, &str); 3] =
    [(Change::Nothing, "nothing"), (Change::Add, "add"), (Change::Replace, "replace")];

impl RoomOrder {
    /// Whether it comes with bytes.
    pub fn takes_bytes(&self) -> bool {
        match self {
            Self::Login | Self::Create { .. } => true,
            Self::Scope { change, .. } => *change != Change::Nothing,
            _ => false,
        }
    }

    /// Name and words of the order in a request.
    pub(in crate::daemon) fn request(&self) -> (&'static str, Vec<(&'static str, String)>) {
        let many =
            |name, values: &[String]| values.iter().map(move |v| (name, v.clone())).collect::<Vec<_>>();
        let room = |room: &String| ("room", room.clone());
        let mirror = |mode: &Mode| ("mirror", mode.as_str().to_owned());
        match self {
            Self::Login => ("room/login", vec![]),
            Self::Logout => ("room/logout", vec![]),
            Self::Create { name, encrypted, invite, mirror: mode } => {
                let mut words = vec![("name", name.clone()), ("encrypted", encrypted.to_string())];
                words.extend(many("invite", invite));
                words.extend(mode.as_ref().map(mirror));
                ("room/create", words)
            }
            Self::Join { room: id, via, mirror: mode } => {
                let mut words = vec![room(id)];
                words.extend(many("via", via));
                words.extend(mode.as_ref().map(mirror));
                ("room/join", words)
            }
            Self::Leave(id) => ("room/leave", vec![room(id)]),
            Self::List => ("room/list", vec![]),
            Self::Scope { room: id, change } => {
                let word = CHANGES.iter().find(|(known, _)| known == change).map_or("", |(_, word)| word);
                ("room/scope", vec![room(id), ("change", word.to_owned())])
            }
            Self::Mirror { room: id, mode } => ("room/mirror", vec![room(id), mirror(mode)]),
            Self::Show { room: id, missing } => {
                let missing = missing.map(|most| ("missing", most.to_string()));
                ("room/show", [room(id)].into_iter().chain(missing).collect())
            }
            Self::Sync { room: id, platforms } => {
                ("room/sync", [room(id)].into_iter().chain(platform_words(platforms)).collect())
            }
        }
    }

    pub(in crate::daemon) fn parse(path: &str, query: &str) -> Option<Self> {
        let words = |name: &str| {
            let pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.filter(|(k, _)| k == name).map(|(_, v)| v.into_owned()).collect::<Vec<_>>()
        };
        let word = |name| words(name).into_iter().next();
        let room = || word("room");
        // What is there and makes no sense makes no order.
        let mode = || match word("mirror") {
            Some(text) => text.parse().ok().map(Some),
            None => Some(None),
        };
        Some(match path {
            "/room/login" => Self::Login,
            "/room/logout" => Self::Logout,
            "/room/create" => Self::Create {
                name: word("name")?,
                encrypted: word("encrypted")?.parse().ok()?,
                invite: words("invite"),
                mirror: mode()?,
            },
            "/room/join" => Self::Join { room: room()?, via: words("via"), mirror: mode()? },
            "/room/leave" => Self::Leave(room()?),
            "/room/list" => Self::List,
            "/room/scope" => {
                let change = word("change")?;
                let (change, _) = CHANGES.into_iter().find(|(_, known)| *known == change)?;
                Self::Scope { room: room()?, change }
            }
            "/room/mirror" => Self::Mirror { room: room()?, mode: mode()?? },
            "/room/show" => {
                let missing = match word("missing") {
                    Some(most) => Some(most.parse().ok()?),
                    None => None,
                };
                Self::Show { room: room()?, missing }
            }
            "/room/sync" => Self::Sync { room: room()?, platforms: platforms(query) },
            _ => return None,
        })
    }
}
