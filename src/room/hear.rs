//! From the homeserver's news to our words. What is malformed or too large is dropped and counted, never an error.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet, VecDeque};

use matrix_sdk::deserialized_responses::{TimelineEvent, TimelineEventKind};
use matrix_sdk::ruma::events::AnySyncTimelineEvent;
use matrix_sdk::ruma::events::room::encrypted::OriginalSyncRoomEncryptedEvent;
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::{OwnedRoomId, RoomId as SdkRoomId};
use matrix_sdk::sync::{State, SyncResponse};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::connect::Work;
use super::limits::{ROOMS, WAITING_FOR_KEYS};
use super::{Content, Event, Kind, RoomError, RoomId, StateEvent, UserId};

/// What hearing remembers.
#[derive(Default)]
pub(super) struct Hearing {
    /// Encrypted events whose key has not come.
    waiting: VecDeque<(OwnedRoomId, Raw<AnySyncTimelineEvent>)>,
    /// It was said that there are too many rooms.
    warned: bool,
}

/// An event as far as it matters here.
#[derive(Deserialize)]
struct Bare<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    sender: Cow<'a, str>,
    #[serde(borrow)]
    state_key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    event_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: &'a RawValue,
}

#[derive(Deserialize)]
struct Member<'a> {
    #[serde(borrow)]
    membership: Cow<'a, str>,
}

impl Hearing {
    /// What there is to tell of an answer of the homeserver.
    pub(super) async fn hear(&mut self, work: &Work, response: &SyncResponse) -> Vec<Event> {
        let mut heard = Vec::new();
        let mut dropped = 0;
        let prefix = &work.parts.options.prefix;
        let considered = self.considered(work);
        let is_considered = |room: &SdkRoomId| considered.as_ref().is_none_or(|rooms| rooms.contains(room));
        for (id, update) in response.rooms.joined.iter().filter(|(id, _)| is_considered(id)) {
            let Ok(room) = RoomId::parse(id.as_str()) else { continue };
            // A state event may stand in the timeline, too.
            let mut told = HashSet::new();
            let mut take = |found| match found {
                Ok(Some(event)) => heard.push(event),
                Ok(None) => {}
                Err(_) => dropped += 1,
            };
            for raw in state(&update.state) {
                take(event(&room, raw.get(), prefix, &mut told));
            }
            for said in &update.timeline.events {
                let json = said.raw().json().get();
                match &said.kind {
                    TimelineEventKind::UnableToDecrypt { .. } => {
                        self.waiting.push_back((id.clone(), said.raw().clone()));
                    }
                    TimelineEventKind::Decrypted(_) => take(decrypted(&room, json, prefix)),
                    TimelineEventKind::PlainText { .. } => take(event(&room, json, prefix, &mut told)),
                }
            }
        }
        for (id, update) in &response.rooms.left {
            let Ok(room) = RoomId::parse(id.as_str()) else { continue };
            let mut told = HashSet::new();
            let open = |e: &&TimelineEvent| matches!(e.kind, TimelineEventKind::PlainText { .. });
            let timeline = update.timeline.events.iter().filter(open).map(|e| e.raw().json());
            for raw in state(&update.state).chain(timeline) {
                if let Ok(Some(event @ Event::Membership { .. })) = event(&room, raw.get(), prefix, &mut told)
                {
                    heard.push(event);
                }
            }
            if let Some(user) = work.user().and_then(|user| UserId::parse(user.as_str()).ok()) {
                heard.push(Event::Membership { room: room.clone(), user, joined: false });
            }
            work.queue().forget(&room);
        }
        if !response.to_device.is_empty() {
            self.try_again(work, &mut heard).await;
        }
        while self.waiting.len() > WAITING_FOR_KEYS {
            self.waiting.pop_front();
            dropped += 1;
        }
        work.parts.status().dropped += dropped;
        heard
    }

    /// The rooms that are looked at, where there are too many to look at all.
    fn considered(&mut self, work: &Work) -> Option<BTreeSet<OwnedRoomId>> {
        let joined = work.sdk.joined_rooms();
        if joined.len() <= ROOMS {
            return None;
        }
        if !std::mem::replace(&mut self.warned, true) {
            log::warn!("rooms: the account is in {} rooms; {ROOMS} of them are looked at", joined.len());
        }
        let all: BTreeSet<_> = joined.iter().map(|room| room.room_id().to_owned()).collect();
        Some(all.into_iter().take(ROOMS).collect())
    }

    /// Keys may have come for what could not be read.
    async fn try_again(&mut self, work: &Work, heard: &mut Vec<Event>) {
        for (id, raw) in std::mem::take(&mut self.waiting) {
            let Some(room) = work.sdk.get_room(&id) else { continue };
            let encrypted = raw.cast_ref_unchecked::<OriginalSyncRoomEncryptedEvent>();
            match room.decrypt_event(encrypted, None).await {
                Ok(event_) if !event_.kind.is_utd() => {
                    let Ok(room) = RoomId::parse(id.as_str()) else { continue };
                    let json = event_.raw().json().get();
                    heard.extend(decrypted(&room, json, &work.parts.options.prefix).ok().flatten());
                }
                _ => self.waiting.push_back((id, raw)),
            }
        }
    }
}

fn state(state: &State) -> impl Iterator<Item = &RawValue> {
    let (State::Before(events) | State::After(events)) = state;
    events.iter().map(Raw::json)
}

/// An event in our words; none when it is not for us, or was told already.
fn event(
    room: &RoomId,
    json: &str,
    prefix: &str,
    told: &mut HashSet<String>,
) -> Result<Option<Event>, RoomError> {
    let malformed = || RoomError::Malformed { what: "event", text: String::new() };
    let bare: Bare<'_> = serde_json::from_str(json).map_err(|_| malformed())?;
    let is_member = bare.kind == "m.room.member" && bare.state_key.is_some();
    if !is_member && !bare.kind.starts_with(prefix) {
        return Ok(None);
    }
    if bare.state_key.is_some()
        && let Some(id) = bare.event_id
        && !told.insert(id.into_owned())
    {
        return Ok(None);
    }
    let room = room.clone();
    let Some(key) = bare.state_key else {
        let sender = UserId::parse(&bare.sender)?;
        let (kind, content) = (Kind::parse(&bare.kind)?, Content::heard(bare.content.get())?);
        return Ok(Some(Event::Timeline { room, sender, kind, content }));
    };
    if is_member {
        let member: Member<'_> = serde_json::from_str(bare.content.get()).map_err(|_| malformed())?;
        let joined = member.membership == "join";
        return Ok(Some(Event::Membership { room, user: UserId::parse(&key)?, joined }));
    }
    let event = StateEvent {
        sender: UserId::parse(&bare.sender)?,
        kind: Kind::parse(&bare.kind)?,
        state_key: key.into_owned(),
        content: Content::heard(bare.content.get())?,
    };
    Ok(Some(Event::State { room, event }))
}

/// What a member said in secret. State is never encrypted: what calls itself so is the sender's own invention, which no
/// homeserver has held against the room's power levels.
fn decrypted(room: &RoomId, json: &str, prefix: &str) -> Result<Option<Event>, RoomError> {
    match event(room, json, prefix, &mut HashSet::new())? {
        Some(Event::State { .. } | Event::Membership { .. }) => {
            Err(RoomError::Malformed { what: "encrypted event", text: "it says that it is state".into() })
        }
        said => Ok(said),
    }
}

/// A state event of the SDK's store in our words, unless it is malformed.
pub(super) fn stored(json: &str) -> Option<StateEvent> {
    let room = RoomId::parse("!stored").ok()?;
    match event(&room, json, "", &mut HashSet::new()) {
        Ok(Some(Event::State { event, .. })) => Some(event),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<Option<Event>, RoomError> {
        event(&RoomId::parse("!r").unwrap(), json, "dpm.", &mut HashSet::new())
    }

    #[test]
    fn what_is_for_us() {
        let room = RoomId::parse("!r").unwrap();
        let user = UserId::parse("@a:s").unwrap();
        let content = Content::parse(r#"{"x":[1, 2]}"#).unwrap();
        let kind = Kind::parse("dpm.x").unwrap();
        let state = StateEvent {
            sender: user.clone(),
            kind: kind.clone(),
            state_key: "k\"é".into(),
            content: content.clone(),
        };
        let rows = [
            (
                r#"{"type":"dpm.x","sender":"@a:s","content":{"x":[1, 2]},"event_id":"$1"}"#,
                Some(Event::Timeline { room: room.clone(), sender: user.clone(), kind, content }),
            ),
            (
                r#"{"type":"dpm.x","sender":"@a:s","state_key":"k\"é","content":{"x":[1, 2]}}"#,
                Some(Event::State { room: room.clone(), event: state }),
            ),
            (
                r#"{"type":"m.room.member","sender":"@b:s","state_key":"@a:s","content":{"membership":"join"}}"#,
                Some(Event::Membership { room: room.clone(), user: user.clone(), joined: true }),
            ),
            (
                r#"{"type":"m.room.member","sender":"@b:s","state_key":"@a:s","content":{"membership":"ban"}}"#,
                Some(Event::Membership { room, user, joined: false }),
            ),
            (r#"{"type":"m.room.message","sender":"@a:s","content":{"body":"hello"}}"#, None),
            (r#"{"type":"m.room.member","sender":"@a:s","content":{"membership":"join"}}"#, None),
            (r#"{"type":"other.dpm.x","sender":"@a:s","content":{}}"#, None),
        ];
        for (json, wanted) in rows {
            assert_eq!(check(json).unwrap(), wanted, "{json}");
        }
    }

    #[test]
    fn what_is_dropped() {
        let huge =
            format!(r#"{{"type":"dpm.x","sender":"@a:s","content":{{"a":"{}"}}}}"#, "x".repeat(70_000));
        let long = format!(r#"{{"type":"dpm.{}","sender":"@a:s","content":{{}}}}"#, "x".repeat(300));
        for json in [
            "",
            "[]",
            "{}",
            r#"{"type":"dpm.x","sender":"@a:s"}"#,
            r#"{"type":"dpm.x","sender":"@a:s","content":[]}"#,
            r#"{"type":"dpm.x","sender":"a","content":{}}"#,
            r#"{"type":"dpm.x","sender":7,"content":{}}"#,
            r#"{"type":"dpm.x","sender":"@a:s","state_key":7,"content":{}}"#,
            r#"{"type":"m.room.member","sender":"@a:s","state_key":"@a:s","content":{"membership":7}}"#,
            r#"{"type":"m.room.member","sender":"@a:s","state_key":"a","content":{"membership":"join"}}"#,
            &huge,
            &long,
        ] {
            assert!(check(json).is_err(), "{json}");
        }
    }

    #[test]
    fn no_state_comes_out_of_a_secret() {
        let room = RoomId::parse("!r").unwrap();
        for json in [
            r#"{"type":"dpm.x","sender":"@a:s","state_key":"","content":{}}"#,
            r#"{"type":"m.room.member","sender":"@a:s","state_key":"@b:s","content":{"membership":"leave"}}"#,
        ] {
            assert!(check(json).unwrap().is_some(), "in the open it is one: {json}");
            assert!(decrypted(&room, json, "dpm.").is_err(), "{json}");
        }
        let said = r#"{"type":"dpm.x","sender":"@a:s","content":{}}"#;
        assert!(matches!(decrypted(&room, said, "dpm."), Ok(Some(Event::Timeline { .. }))));
    }

    #[test]
    fn a_state_event_is_told_once() {
        let mut told = HashSet::new();
        let room = RoomId::parse("!r").unwrap();
        let json = r#"{"type":"dpm.x","sender":"@a:s","state_key":"","content":{},"event_id":"$1"}"#;
        assert!(event(&room, json, "dpm.", &mut told).unwrap().is_some());
        assert!(event(&room, json, "dpm.", &mut told).unwrap().is_none());
    }
}
