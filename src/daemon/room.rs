//! Matrix rooms at a running node: the client, what it hears, and an operator's orders about it.

mod order;
#[cfg(feature = "rooms")]
mod scope;
mod show;
mod sync;

use std::io::Read;

use serde_json::{Value, json};

use super::Rooms;

pub(super) use client::Matrix;
pub use order::{Change, RoomOrder};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Largest login that is taken, in bytes: an address, a name and a secret.
const LOGIN_BYTES: u64 = 64 << 10;

/// Largest scope that is taken, in bytes: its most packages, with names and versions of 160 bytes.
const SCOPE_BYTES: u64 = 16 << 20;

/// Carries out an order. Blocks.
pub(super) fn carry_out(
    rooms: &Rooms,
    order: &RoomOrder,
    input: &mut dyn Read,
    progress: &mut dyn FnMut(Value),
) -> Result<Value, Failure> {
    let matrix = rooms.matrix.as_ref().ok_or(match cfg!(feature = "rooms") {
        true => "rooms need a running node, which `dpm serve` starts",
        false => "this dpm was built without rooms",
    })?;
    match order {
        RoomOrder::Mirror { room, mode } => {
            let room = named(rooms, room)?;
            rooms.members.set_mode(&room, *mode);
            matrix.hurry();
            return Ok(json!({"room": room, "mirror": mode.as_str()}));
        }
        RoomOrder::Show { room, missing } => return show::show(rooms, &named(rooms, room)?, *missing),
        RoomOrder::Sync { room, platforms } => {
            matrix.hurry();
            return sync::sync(rooms, &named(rooms, room)?, platforms, progress);
        }
        _ => {}
    }
    let mut text = String::new();
    if order.takes_bytes() {
        let most = if *order == RoomOrder::Login { LOGIN_BYTES } else { SCOPE_BYTES };
        if input.take(most + 1).read_to_string(&mut text)? as u64 > most {
            return Err(format!("more than {most} bytes").into());
        }
    }
    futures_lite::future::block_on(matrix.carry_out(rooms, order, &text, progress))
}

/// The id of a room that this node is in: as it stands, or of the only one with that name.
fn named(rooms: &Rooms, word: &str) -> Result<String, Failure> {
    let known = rooms.members.rooms();
    if known.iter().any(|room| room.room == word) {
        return Ok(word.to_owned());
    }
    let mut found = known.iter().filter(|room| room.name.as_deref() == Some(word));
    match (found.next(), found.next()) {
        (Some(room), None) => Ok(room.room.clone()),
        (Some(_), Some(_)) => {
            Err(format!("several rooms are called {word:?}: `dpm room list` shows their ids").into())
        }
        (None, _) => Err(format!("not in the room {word}; `dpm room list` shows which ones").into()),
    }
}

#[cfg(feature = "rooms")]
mod client {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::scope::{self, Scoping};
    use super::{Failure, RoomOrder};
    use crate::base::Secret;
    use crate::config::{self, Config};
    use crate::daemon::Rooms;
    use crate::members::Mode;
    use crate::mirror::{self, Mirror, Near};
    use crate::room::{
        Client, Connection, Kind, Login, NewRoom, Options, Pace, Proof, RoomError, RoomId, UserId,
    };
    use crate::rt::Tasks;
    use crate::swarm::Identity;
    use crate::wire::room::SCOPE_EVENT;

    /// Types of our events start so.
    const PREFIX: &str = "org.dpm.";

    /// State events that every member may send: a node's presence.
    const MEMBER_STATE: &[&str] = &["org.dpm.node"];

    /// The rooms' client of a running node; clones are one.
    #[derive(Clone)]
    pub(in crate::daemon) struct Matrix {
        client: Client,
        mirror: Mirror,
        /// The mirror's.
        tasks: Tasks,
        /// How a room is used that is joined without saying how.
        mode: Mode,
    }

    #[derive(Deserialize)]
    struct Given {
        homeserver: String,
        user: String,
        password: Option<String>,
        token: Option<String>,
    }

    impl Matrix {
        /// Starts the client, which goes online if somebody is logged in, and what takes part in its rooms.
        pub(in crate::daemon) fn start(
            config: &Config,
            rooms: &Rooms,
            identity: Option<Identity>,
            tasks: &Tasks,
        ) -> Result<Option<Self>, RoomError> {
            let member_state = MEMBER_STATE.iter().map(|kind| Kind::parse(kind)).collect::<Result<_, _>>()?;
            let mut options = Options::new(PREFIX, member_state);
            options.proxy = config.proxy.clone();
            let config::RoomPace { per_second, burst } = config.rooms.pace;
            options.pace = Pace { per_second, burst };
            let mirrored = mirror::Options {
                budget_bytes: config.rooms.budget_bytes,
                allow: config.rooms.addresses,
                advertise: config.rooms.advertise.clone(),
                name: config.rooms.display_name(),
                pace: options.pace,
                gives: config.near.share != config::Share::Off,
                named: config.near.peers.iter().map(|(peer, _)| *peer).collect(),
            };
            let (client, heard) = Client::start(&config.data.join("room"), options)?;
            let near = rooms.near.clone().zip(identity);
            let tasks = tasks.sibling();
            let parts = mirror::Parts {
                client: client.clone(),
                members: rooms.members.clone(),
                store: rooms.store.clone(),
                disk: rooms.disk.clone(),
                resolve: rooms.resolve.clone(),
                images: rooms.images.clone(),
                fetch: rooms.fetch.clone(),
                near: near.map(|((swarm, exchange), identity)| Near { swarm, exchange, identity }),
                clock: rooms.clock.clone(),
                tasks: tasks.clone(),
            };
            let mirror = Mirror::start(parts, heard, mirrored);
            Ok(Some(Self { client, mirror, tasks, mode: config.rooms.mirror }))
        }

        pub(in crate::daemon) async fn carry_out(
            &self,
            rooms: &Rooms,
            order: &RoomOrder,
            text: &str,
            progress: &mut dyn FnMut(Value),
        ) -> Result<Value, Failure> {
            let client = &self.client;
            Ok(match order {
                RoomOrder::Login => {
                    // The parser's own words would repeat a part of the secret.
                    let given: Given = serde_json::from_str(text).map_err(|_| "no login was given")?;
                    let proof = match (given.password, given.token) {
                        (Some(password), None) => Proof::Password(Secret::new(password)),
                        (None, Some(token)) => Proof::Token(Secret::new(token)),
                        _ => return Err("either a password or a token is needed".into()),
                    };
                    let login = Login { homeserver: given.homeserver, user: given.user, proof };
                    let user = client.login(login).await?;
                    self.mirror.account_changed();
                    json!({"user": user.as_str()})
                }
                RoomOrder::Logout => {
                    client.logout().await?;
                    self.mirror.account_changed();
                    json!({"logged_out": true})
                }
                RoomOrder::Create { name, encrypted, invite, mirror } => {
                    let invite = invite.iter().map(|user| UserId::parse(user)).collect::<Result<_, _>>()?;
                    let (start, later) = scope::from_the_start(text)?;
                    let kind = Kind::parse(SCOPE_EVENT)?;
                    let state =
                        start.iter().map(|(key, content)| (kind.clone(), key.clone(), content.clone()));
                    let state = state.collect();
                    let room = NewRoom { name: name.clone(), encrypted: *encrypted, invite, state };
                    let room = client.create(room).await?;
                    let scoping = Scoping { client, room: &room };
                    scoping.echo(&start).await?;
                    scoping.send(later, progress).await?;
                    let mode = self.uses(rooms, &room, Some(name), *mirror).await;
                    json!({"room": room.as_str(), "mirror": mode.as_str()})
                }
                RoomOrder::Join { room, via, mirror } => {
                    let room = client.join(room, via).await?;
                    let mode = self.uses(rooms, &room, None, *mirror).await;
                    json!({"room": room.as_str(), "mirror": mode.as_str()})
                }
                RoomOrder::Leave(room) => {
                    client.leave(&RoomId::parse(room)?).await?;
                    json!({"left": room})
                }
                RoomOrder::List => self.list(rooms).await?,
                RoomOrder::Scope { room, change } => {
                    let room = RoomId::parse(&super::named(rooms, room)?)?;
                    let outcome = Scoping { client, room: &room }.change(*change, text, progress).await?;
                    self.mirror.look_at(&room).await;
                    outcome
                }
                RoomOrder::Mirror { .. } | RoomOrder::Show { .. } | RoomOrder::Sync { .. } => {
                    return Err("no homeserver is asked for this".into());
                }
            })
        }

        /// Uses a room that this node is now in as it was said; else, unless it was in it before, as the configuration
        /// says. Blocks on the index, too.
        async fn uses(&self, rooms: &Rooms, room: &RoomId, name: Option<&str>, stated: Option<Mode>) -> Mode {
            let members = &rooms.members;
            let new = !members.ids().iter().any(|id| id == room.as_str());
            members.joined(room.as_str(), name);
            if let Some(mode) = stated.or(new.then_some(self.mode)) {
                members.set_mode(room.as_str(), mode);
            }
            self.mirror.look_at(room).await;
            self.mirror.hurry();
            members.mode(room.as_str())
        }

        async fn list(&self, rooms: &Rooms) -> Result<Value, RoomError> {
            let listed = match self.client.list().await {
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
            // Where only a homeserver or another program has put the account, nothing is told and nobody is believed.
            let used = rooms.members.ids();
            let rooms: Vec<_> = listed
                .into_iter()
                .map(|r| {
                    json!({
                        "room": r.room.as_str(), "name": r.name, "members": r.members,
                        "encrypted": r.encrypted, "invited": r.invited,
                        "mirror": used.contains(&r.room.to_string())
                            .then(|| rooms.members.mode(r.room.as_str()).as_str()),
                    })
                })
                .collect();
            Ok(json!({
                "user": status.user.map(|u| u.to_string()), "homeserver": status.homeserver,
                "connection": connection, "why": why, "retry_seconds": retry.map(|t| t.as_secs()),
                "queued": status.queued, "sent": status.sent, "dropped": status.dropped, "rooms": rooms,
            }))
        }

        /// Tries again what failed of its rooms: an operator is waiting, or wants something else of them.
        pub(in crate::daemon) fn hurry(&self) {
            self.mirror.hurry();
        }

        pub(in crate::daemon) async fn stop(&self) {
            self.tasks.cancel().await;
            self.client.stop().await;
        }
    }
}

#[cfg(not(feature = "rooms"))]
mod client {
    use serde_json::Value;

    use super::{Failure, RoomOrder};
    use crate::config::Config;
    use crate::daemon::Rooms;
    use crate::rt::Tasks;
    use crate::swarm::Identity;

    /// Nobody has one: dpm was built without rooms.
    #[derive(Clone)]
    pub(in crate::daemon) enum Matrix {}

    impl Matrix {
        #[expect(clippy::unnecessary_wraps, reason = "with rooms it can fail")]
        pub(in crate::daemon) fn start(
            _: &Config,
            _: &Rooms,
            _: Option<Identity>,
            _: &Tasks,
        ) -> Result<Option<Self>, std::convert::Infallible> {
            Ok(None)
        }

        pub(in crate::daemon) async fn carry_out(
            &self,
            _: &Rooms,
            _: &RoomOrder,
            _: &str,
            _: &mut dyn FnMut(Value),
        ) -> Result<Value, Failure> {
            match *self {}
        }

        pub(in crate::daemon) fn hurry(&self) {
            match *self {}
        }

        pub(in crate::daemon) async fn stop(&self) {
            match *self {}
        }
    }
}
