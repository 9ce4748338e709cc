//! Matrix rooms at a running node: the client, what it hears, and an operator's orders about it.

use std::io::Read;

use serde_json::Value;

pub(super) use client::Matrix;

/// Largest login that is taken, in bytes: an address, a name and a secret.
const LOGIN_BYTES: u64 = 64 << 10;

/// An order about Matrix rooms. Only a running node carries it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoomOrder {
    /// Log in. What is needed comes as bytes, so that no secret is in a request's line: a JSON object with
    /// `homeserver`, `user`, and `password` or `token`.
    Login,
    /// Log out, and forget everything of the account.
    Logout,
    /// Make a room.
    Create {
        /// What it is called.
        name: String,
        /// Whether timeline events are encrypted.
        encrypted: bool,
        /// Who is invited; with nobody, whoever knows the id may join.
        invite: Vec<String>,
    },
    /// Join a room by its id or alias.
    Join {
        /// The room.
        room: String,
        /// Servers that are in it.
        via: Vec<String>,
    },
    /// Leave a room, or turn an invitation down.
    Leave(String),
    /// The account and its rooms.
    List,
}

impl RoomOrder {
    /// Name and words of the order in a request.
    pub(super) fn request(&self) -> (&'static str, Vec<(&'static str, String)>) {
        let many =
            |name, values: &[String]| values.iter().map(move |v| (name, v.clone())).collect::<Vec<_>>();
        match self {
            Self::Login => ("room/login", vec![]),
            Self::Logout => ("room/logout", vec![]),
            Self::Create { name, encrypted, invite } => {
                let mut words = vec![("name", name.clone()), ("encrypted", encrypted.to_string())];
                words.extend(many("invite", invite));
                ("room/create", words)
            }
            Self::Join { room, via } => {
                let mut words = vec![("room", room.clone())];
                words.extend(many("via", via));
                ("room/join", words)
            }
            Self::Leave(room) => ("room/leave", vec![("room", room.clone())]),
            Self::List => ("room/list", vec![]),
        }
    }

    pub(super) fn parse(path: &str, query: &str) -> Option<Self> {
        let words = |name: &str| {
            let pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.filter(|(k, _)| k == name).map(|(_, v)| v.into_owned()).collect::<Vec<_>>()
        };
        let word = |name| words(name).into_iter().next();
        Some(match path {
            "/room/login" => Self::Login,
            "/room/logout" => Self::Logout,
            "/room/create" => Self::Create {
                name: word("name")?,
                encrypted: word("encrypted")?.parse().ok()?,
                invite: words("invite"),
            },
            "/room/join" => Self::Join { room: word("room")?, via: words("via") },
            "/room/leave" => Self::Leave(word("room")?),
            "/room/list" => Self::List,
            _ => return None,
        })
    }
}

/// Carries out an order with the client, if there is one. Blocks.
pub(super) fn carry_out(
    matrix: Option<&Matrix>,
    order: &RoomOrder,
    input: &mut dyn Read,
) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
    let matrix = matrix.ok_or(match cfg!(feature = "rooms") {
        true => "rooms need a running node, which `dpm serve` starts",
        false => "this dpm was built without rooms",
    })?;
    let mut login = String::new();
    if *order == RoomOrder::Login {
        input.take(LOGIN_BYTES).read_to_string(&mut login)?;
    }
    futures_lite::future::block_on(matrix.carry_out(order, &login))
}

#[cfg(feature = "rooms")]
mod client {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::RoomOrder;
    use crate::base::Secret;
    use crate::config::{self, Config};
    use crate::room::{
        Client, Connection, Event, Kind, Login, NewRoom, Options, Pace, Proof, RoomError, RoomId, UserId,
    };
    use crate::rt::Tasks;

    /// Types of our events start so.
    const PREFIX: &str = "org.dpm.";

    /// State events that every member may send: a node's presence.
    const MEMBER_STATE: &[&str] = &["org.dpm.node"];

    /// The rooms' client of a running node; clones are one.
    #[derive(Clone)]
    pub(in crate::daemon) struct Matrix {
        client: Client,
    }

    #[derive(Deserialize)]
    struct Given {
        homeserver: String,
        user: String,
        password: Option<String>,
        token: Option<String>,
    }

    impl Matrix {
        /// Starts the client, which goes online if somebody is logged in.
        pub(in crate::daemon) fn start(config: &Config, tasks: &Tasks) -> Result<Option<Self>, RoomError> {
            let member_state = MEMBER_STATE.iter().map(|kind| Kind::parse(kind)).collect::<Result<_, _>>()?;
            let mut options = Options::new(PREFIX, member_state);
            options.proxy = config.proxy.clone();
            let config::RoomPace { per_second, burst } = config.rooms.pace;
            options.pace = Pace { per_second, burst };
            let (client, heard) = Client::start(&config.data.join("room"), options)?;
            tasks.spawn(async move {
                let mut online = None;
                while let Ok(event) = heard.recv().await {
                    tell(&event, &mut online);
                }
            });
            Ok(Some(Self { client }))
        }

        pub(in crate::daemon) async fn carry_out(
            &self,
            order: &RoomOrder,
            login: &str,
        ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
            let client = &self.client;
            Ok(match order {
                RoomOrder::Login => {
                    // The parser's own words would repeat a part of the secret.
                    let given: Given = serde_json::from_str(login).map_err(|_| "no login was given")?;
                    let proof = match (given.password, given.token) {
                        (Some(password), None) => Proof::Password(Secret::new(password)),
                        (None, Some(token)) => Proof::Token(Secret::new(token)),
                        _ => return Err("either a password or a token is needed".into()),
                    };
                    let login = Login { homeserver: given.homeserver, user: given.user, proof };
                    json!({"user": client.login(login).await?.as_str()})
                }
                RoomOrder::Logout => {
                    client.logout().await?;
                    json!({"logged_out": true})
                }
                RoomOrder::Create { name, encrypted, invite } => {
                    let invite = invite.iter().map(|user| UserId::parse(user)).collect::<Result<_, _>>()?;
                    let room =
                        NewRoom { name: name.clone(), encrypted: *encrypted, invite, state: Vec::new() };
                    json!({"room": client.create(room).await?.as_str()})
                }
                RoomOrder::Join { room, via } => json!({"room": client.join(room, via).await?.as_str()}),
                RoomOrder::Leave(room) => {
                    client.leave(&RoomId::parse(room)?).await?;
                    json!({"left": room})
                }
                RoomOrder::List => self.list().await?,
            })
        }

        async fn list(&self) -> Result<Value, RoomError> {
            let rooms = match self.client.list().await {
                Ok(rooms) => rooms,
                // Their own state says so.
                Err(RoomError::NoSession | RoomError::LoggedOut(_)) => Vec::new(),
                Err(e) => return Err(e),
            };
            let status = self.client.status();
            let (connection, why, retry) = match &status.connection {
                None => (status.user.as_ref().map(|_| "connecting"), None, None),
                Some(Connection::Online) => (Some("online"), None, None),
                Some(Connection::Offline { why, retry_in }) => (Some("offline"), Some(why), Some(retry_in)),
                Some(Connection::LoggedOut { why }) => (Some("logged out"), Some(why), None),
            };
            let rooms: Vec<_> = rooms
                .into_iter()
                .map(|r| {
                    json!({
                        "room": r.room.as_str(), "name": r.name, "members": r.members,
                        "encrypted": r.encrypted, "invited": r.invited,
                    })
                })
                .collect();
            Ok(json!({
                "user": status.user.map(|u| u.to_string()), "homeserver": status.homeserver,
                "connection": connection, "why": why, "retry_seconds": retry.map(|t| t.as_secs()),
                "queued": status.queued, "sent": status.sent, "dropped": status.dropped, "rooms": rooms,
            }))
        }

        pub(in crate::daemon) async fn stop(&self) {
            self.client.stop().await;
        }
    }

    /// A line in the log where it stands otherwise with the homeserver than before.
    fn tell(event: &Event, online: &mut Option<bool>) {
        match event {
            Event::Connection(Connection::Online) => {
                *online = Some(true);
                log::info!("rooms: online");
            }
            Event::Connection(Connection::Offline { why, .. }) => {
                if online.replace(false) != Some(false) {
                    log::warn!("rooms: the homeserver cannot be reached, which is tried again: {why}");
                }
            }
            Event::Connection(Connection::LoggedOut { why }) => {
                *online = None;
                log::warn!("rooms: logged out ({why}); `dpm room login` logs in again");
            }
            Event::Refused { room, kind, why } => log::warn!("rooms: {room} does not take {kind}: {why}"),
            Event::State { .. } | Event::Timeline { .. } | Event::Membership { .. } => {}
        }
    }
}

#[cfg(not(feature = "rooms"))]
mod client {
    use serde_json::Value;

    use super::RoomOrder;
    use crate::config::Config;
    use crate::rt::Tasks;

    /// Nobody has one: dpm was built without rooms.
    #[derive(Clone)]
    pub(in crate::daemon) enum Matrix {}

    impl Matrix {
        #[expect(clippy::unnecessary_wraps, reason = "with rooms it can fail")]
        pub(in crate::daemon) fn start(
            _: &Config,
            _: &Tasks,
        ) -> Result<Option<Self>, std::convert::Infallible> {
            Ok(None)
        }

        pub(in crate::daemon) async fn carry_out(
            &self,
            _: &RoomOrder,
            _: &str,
        ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
            match *self {}
        }

        pub(in crate::daemon) async fn stop(&self) {
            match *self {}
        }
    }
}
