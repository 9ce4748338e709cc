//! Commands: make, join, leave and list rooms, read what is known of them, queue what is to be sent there.

use matrix_sdk::config::RequestConfig;
use matrix_sdk::deserialized_responses::RawAnySyncOrStrippedState;
use matrix_sdk::ruma::api::client::membership::join_room_by_id_or_alias;
use matrix_sdk::ruma::api::client::room::create_room::v3::{Request, RoomPreset};
use matrix_sdk::ruma::events::StateEventType;
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::{OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName, OwnedUserId, RoomId as SdkRoomId};
use matrix_sdk::{Room, RoomState};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::Command;
use super::connect::Work;
use super::failure::Failure;
use super::hear;
use super::limits::{
    APPEAR_TIME, CONTENT_BYTES, ENCRYPTED_CONTENT_BYTES, JOIN_TIME, MEMBERS, ROOM_NAME_CHARS, ROOMS,
    STATE_EVENTS,
};
use super::queue::{Item, What};
use super::thread::answer;
use super::{Content, Kind, RoomError, RoomId, StateEvent, UserId};

/// A room to be made.
#[derive(Clone, Debug, Default)]
pub struct NewRoom {
    /// What it is called.
    pub name: String,
    /// Timeline events are encrypted; state events never are.
    pub encrypted: bool,
    /// Who is invited. With nobody, whoever knows the room's id may join; it is in no public list.
    pub invite: Vec<UserId>,
    /// State events that it has from the start: type, key and content.
    pub state: Vec<(Kind, String, Content)>,
}

/// A room of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its id.
    pub room: RoomId,
    /// What its members call it.
    pub name: Option<String>,
    /// How many are in it, as far as is known.
    pub members: usize,
    /// Whether timeline events are encrypted there.
    pub encrypted: bool,
    /// The account is invited and not in it.
    pub invited: bool,
}

impl Work {
    /// Carries out a command, unless nobody waits for it any more.
    pub(super) async fn carry_out(&self, command: Command) {
        match command {
            // The thread's own.
            Command::Login(..) | Command::Logout(..) => {}
            Command::Create(room, reply) => answer(reply, Box::pin(self.create(room)).await).await,
            Command::Join { room, via, reply } => answer(reply, Box::pin(self.join(&room, &via)).await).await,
            Command::Leave(room, reply) => answer(reply, Box::pin(self.leave(&room)).await).await,
            Command::List(reply) => answer(reply, self.list().await).await,
            Command::Send { room, item, reply } => {
                answer(reply, self.queue_up(&room, item)).await;
            }
            Command::ReadState(room, kind, reply) => answer(reply, self.read_state(&room, &kind).await).await,
            Command::Members(room, reply) => answer(reply, self.members(&room).await).await,
        }
    }

    async fn create(&self, room: NewRoom) -> Result<RoomId, RoomError> {
        self.has_space()?;
        let malformed = |text: &str| RoomError::Malformed { what: "name of a room", text: text.into() };
        if room.name.trim().is_empty() || room.name.chars().count() > ROOM_NAME_CHARS {
            return Err(malformed(room.name.get(..80).unwrap_or(&room.name)));
        }
        let mut request = Request::new();
        request.name = Some(room.name);
        request.preset = Some(match room.invite.is_empty() {
            true => RoomPreset::PublicChat,
            false => RoomPreset::PrivateChat,
        });
        for user in &room.invite {
            let user = OwnedUserId::try_from(user.as_str());
            request.invite.push(user.map_err(|e| RoomError::Refused(e.to_string()))?);
        }
        if room.encrypted {
            let encryption = json!({
                "type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"},
            });
            request.initial_state.push(raw(&encryption)?);
        }
        for (kind, key, content) in &room.state {
            let content: Value =
                serde_json::from_str(content.as_str()).map_err(|e| RoomError::Refused(e.to_string()))?;
            let event = json!({"type": kind.as_str(), "state_key": key, "content": content});
            request.initial_state.push(raw(&event)?);
        }
        request.power_level_content_override = Some(raw(&power_levels(&self.parts.options.member_state))?);
        let after = self.news();
        let made = self.sdk.create_room(request).await.map_err(|e| Failure::of(&e))?;
        self.appears(made.room_id(), after).await
    }

    async fn join(&self, room: &str, via: &[String]) -> Result<RoomId, RoomError> {
        let malformed =
            |what, text: &str| RoomError::Malformed { what, text: text.chars().take(80).collect() };
        let known = RoomId::parse(room);
        let id = OwnedRoomOrAliasId::try_from(room).ok().filter(|_| known.is_ok() || room.starts_with('#'));
        let id = id.ok_or_else(|| malformed("room id (!…) or alias (#…:server)", room))?;
        let via = via.iter().map(|name| {
            OwnedServerName::try_from(name.as_str()).map_err(|_| malformed("name of a server", name))
        });
        let mut request = join_room_by_id_or_alias::v3::Request::new(id);
        request.via = via.collect::<Result<_, _>>()?;
        if let Ok(joined) = known.and_then(|id| self.joined(&id).map(|_| id)) {
            return Ok(joined);
        }
        self.has_space()?;
        let after = self.news();
        let patient = RequestConfig::new().disable_retry().timeout(JOIN_TIME);
        let joined = self.sdk.send(request).with_request_config(patient).await;
        let joined: OwnedRoomId = joined.map_err(|e| Failure::of_http(&e))?.room_id;
        if self.sdk.get_room(&joined).is_some_and(|room| room.state() == RoomState::Joined) {
            // An alias of a room that we are in.
            return RoomId::parse(joined.as_str());
        }
        self.appears(&joined, after).await
    }

    /// Waits until a room is in what the homeserver tells: only then its state and its keys are known.
    async fn appears(&self, room: &SdkRoomId, after: u64) -> Result<RoomId, RoomError> {
        match timeout(APPEAR_TIME, self.appearing(room, after)).await {
            Ok(()) => RoomId::parse(room.as_str()),
            Err(_) => {
                let why = format!("it took us into {room}, and says nothing of it yet");
                Err(RoomError::Later { why, after: None })
            }
        }
    }

    async fn leave(&self, room: &RoomId) -> Result<(), RoomError> {
        let found = <&SdkRoomId>::try_from(room.as_str()).ok().and_then(|id| self.sdk.get_room(id));
        let found = found.filter(|room| matches!(room.state(), RoomState::Joined | RoomState::Invited));
        let found = found.ok_or_else(|| RoomError::NotJoined(room.to_string()))?;
        found.leave().await.map_err(|e| Failure::of(&e))?;
        self.queue().forget(room);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Listed>, RoomError> {
        let mut rooms = self.sdk.joined_rooms();
        rooms.extend(self.sdk.invited_rooms());
        rooms.sort_by_key(|room| (room.state() == RoomState::Invited, room.room_id().to_owned()));
        let mut listed = Vec::new();
        for room in rooms.iter().take(2 * ROOMS) {
            let Ok(id) = RoomId::parse(room.room_id().as_str()) else { continue };
            listed.push(Listed {
                room: id,
                name: name(room),
                members: room.joined_user_ids().await.map_err(|e| self.unread(&e))?.len(),
                encrypted: room.encryption_state().is_encrypted(),
                invited: room.state() == RoomState::Invited,
            });
        }
        Ok(listed)
    }

    fn queue_up(&self, room: &RoomId, item: Item) -> Result<(), RoomError> {
        let known = self.joined(room)?;
        let sealed = matches!(item.what, What::Timeline { .. }) && known.encryption_state().is_encrypted();
        let most = if sealed { ENCRYPTED_CONTENT_BYTES } else { CONTENT_BYTES };
        let bytes = item.content.as_str().len();
        if bytes > most {
            return Err(RoomError::TooLarge { bytes, most });
        }
        self.queue().push(room, item)?;
        self.wake.notify(usize::MAX);
        Ok(())
    }

    async fn read_state(&self, room: &RoomId, kind: &Kind) -> Result<Vec<StateEvent>, RoomError> {
        let room = self.joined(room)?;
        let events = room.get_state_events(StateEventType::from(kind.as_str())).await;
        let events = events.map_err(|e| Failure::of(&e))?;
        let jsons = events.iter().filter_map(|event| match event {
            RawAnySyncOrStrippedState::Sync(raw) => Some(raw.json().get()),
            RawAnySyncOrStrippedState::Stripped(_) => None,
        });
        Ok(jsons.filter_map(hear::stored).take(STATE_EVENTS).collect())
    }

    async fn members(&self, room: &RoomId) -> Result<Vec<UserId>, RoomError> {
        let ids = self.joined(room)?.joined_user_ids().await.map_err(|e| self.unread(&e))?;
        let mut users: Vec<_> = ids.iter().filter_map(|id| UserId::parse(id.as_str()).ok()).collect();
        users.sort();
        users.truncate(MEMBERS);
        Ok(users)
    }

    fn unread(&self, error: &dyn std::fmt::Display) -> RoomError {
        RoomError::Store { path: self.parts.dir.clone(), why: error.to_string() }
    }

    fn has_space(&self) -> Result<(), RoomError> {
        match self.sdk.joined_rooms().len() {
            rooms if rooms >= ROOMS => Err(RoomError::TooManyRooms(rooms)),
            _ => Ok(()),
        }
    }
}

fn name(room: &Room) -> Option<String> {
    let name = room.name().or_else(|| room.canonical_alias().map(|alias| alias.to_string()))?;
    Some(name.chars().filter(|c| !c.is_control()).take(ROOM_NAME_CHARS).collect())
}

/// Who may do what: as a homeserver has it by default, and every member may send these state events. The creator is
/// not named: since room version 12 a creator may do everything and must not stand here.
fn power_levels(member_state: &[Kind]) -> Value {
    let mut events = json!({
        "m.room.name": 50, "m.room.canonical_alias": 50, "m.room.power_levels": 100,
        "m.room.history_visibility": 100, "m.room.encryption": 100, "m.room.server_acl": 100,
        "m.room.tombstone": 150,
    });
    for kind in member_state {
        events[kind.as_str()] = 0.into();
    }
    json!({"events": events})
}

fn raw<T>(value: &Value) -> Result<Raw<T>, RoomError> {
    Raw::from_json_string(value.to_string()).map_err(|e| RoomError::Refused(e.to_string()))
}
