//! Rooms with several members: who hears what of whom.

use std::time::Duration;

use dpm::room::{Event, NewRoom, RoomError, RoomId, UserId};
use futures_lite::future::block_on;
use serde_json::json;

use super::node::{Chat, content, kind};
use super::synapse::{Account, Limits, Synapse};

fn room(encrypted: bool) -> NewRoom {
    NewRoom { name: "project".into(), encrypted, ..NewRoom::default() }
}

/// Two users' nodes in one room that the first has made.
fn two(synapse: &Synapse, encrypted: bool) -> (Account, Chat, Account, Chat, RoomId) {
    let (ada, bob) = (synapse.account("ada"), synapse.account("bob"));
    let (chat, other) = (Chat::of(synapse, &ada), Chat::of(synapse, &bob));
    let made = block_on(chat.client.create(room(encrypted))).unwrap();
    assert_eq!(block_on(other.client.join(made.as_str(), &[])).unwrap(), made);
    (ada, chat, bob, other, made)
}

fn hears_member(chat: &mut Chat, room: &RoomId, user: &str, is: bool) {
    chat.hears(&format!("{user} {is}"), |e| {
        matches!(e, Event::Membership { room: r, user: u, joined } if r == room && u.as_str() == user && *joined == is)
    });
}

#[test]
fn a_member_states_and_says_something_and_the_other_hears_it() {
    let synapse = Synapse::start(Limits::Raised);
    let (ada, mut chat, bob, mut other, room) = two(&synapse, false);
    hears_member(&mut chat, &room, &bob.user, true);
    // A member of power level 0 may send our state, and no other.
    other.state(&room, &bob.user, r#"{"n": 1, "text": "ü"}"#).unwrap();
    chat.hears(
        "bob's state",
        |e| matches!(e, Event::State { event, .. } if event.sender.as_str() == bob.user),
    );
    block_on(other.client.send_state(&room, &kind("t.other"), "", &content("{}"))).unwrap();
    let refused = other.hears("refused", |e| matches!(e, Event::Refused { .. }));
    assert!(
        matches!(&refused, Event::Refused { kind, why, .. } if kind.as_str() == "t.other" && why.contains("403"))
    );
    // Nor one under somebody else's name.
    other.state(&room, &ada.user, r#"{"n":2}"#).unwrap();
    other.hears("refused", |e| matches!(e, Event::Refused { .. }));
    for n in 0..5 {
        chat.say(&room, &format!("{{\"n\":{n}}}")).unwrap();
    }
    for n in 0..5 {
        other.hears_said(&room, &ada.user, &format!("{{\"n\":{n}}}"));
    }

    // Somebody who comes later reads what was stated.
    let eve = synapse.account("eve");
    let late = Chat::of(&synapse, &eve);
    block_on(late.client.join(room.as_str(), &[])).unwrap();
    let state = block_on(late.client.read_state(&room, &kind("t.node"))).unwrap();
    assert_eq!(state.iter().map(|e| e.state_key.as_str()).collect::<Vec<_>>(), [bob.user.as_str()]);
    assert_eq!(state[0].content, content(r#"{"n":1,"text":"ü"}"#));
    let members = block_on(late.client.members(&room)).unwrap();
    assert_eq!(members.iter().map(UserId::as_str).collect::<Vec<_>>(), [&ada.user, &bob.user, &eve.user]);
    // Joining again is nothing new.
    assert_eq!(block_on(late.client.join(room.as_str(), &[])).unwrap(), room);

    // Removed, or gone: the others and they themselves hear of it.
    let kick = json!({"user_id": bob.user});
    synapse.ask("POST", &format!("client/v3/rooms/{}/kick", escaped(&room)), Some(&ada.token), Some(kick));
    hears_member(&mut chat, &room, &bob.user, false);
    hears_member(&mut other, &room, &bob.user, false);
    assert!(matches!(other.say(&room, "{}"), Err(RoomError::NotJoined(_))));
    assert!(matches!(
        block_on(other.client.read_state(&room, &kind("t.node"))),
        Err(RoomError::NotJoined(_))
    ));
    block_on(late.client.leave(&room)).unwrap();
    hears_member(&mut chat, &room, &eve.user, false);
    let members = block_on(chat.client.members(&room)).unwrap();
    assert_eq!(members.iter().map(UserId::as_str).collect::<Vec<_>>(), [ada.user.as_str()]);
}

fn escaped(room: &RoomId) -> String {
    room.as_str().replace('!', "%21")
}

#[test]
fn an_encrypted_room_is_read_by_its_members_and_by_nobody_between() {
    let synapse = Synapse::start(Limits::Raised);
    let (ada, mut chat, bob, mut other, room) = two(&synapse, true);
    for chat in [&chat, &other] {
        let listed = block_on(chat.client.list()).unwrap();
        assert!(listed[0].encrypted && listed[0].members == 2, "{listed:?}");
    }
    chat.say(&room, r#"{"secret":"one"}"#).unwrap();
    other.hears_said(&room, &ada.user, r#"{"secret":"one"}"#);
    other.say(&room, r#"{"secret":"two"}"#).unwrap();
    chat.hears_said(&room, &bob.user, r#"{"secret":"two"}"#);
    // Own events come back, too.
    chat.hears_said(&room, &ada.user, r#"{"secret":"one"}"#);
    // State is not encrypted, by the nature of rooms.
    other.state(&room, &bob.user, r#"{"n":1}"#).unwrap();
    chat.hears_state(&room, &bob.user, r#"{"n":1}"#);
    let path = format!("client/v3/rooms/{}/messages?dir=b&limit=50", escaped(&room));
    let log = synapse.ask("GET", &path, Some(&ada.token), None).to_string();
    assert!(log.contains("m.room.encrypted") && !log.contains("secret"), "{log}");

    // Over a restart the keys are kept.
    let mut other = other.restart();
    other.online();
    chat.say(&room, r#"{"secret":"three"}"#).unwrap();
    other.hears_said(&room, &ada.user, r#"{"secret":"three"}"#);

    // Another node of bob's comes too late for that, which it bears. It hears what is said once ada's node has
    // learned of it, which nobody is told of: ada goes on saying it.
    let mut late = Chat::of(&synapse, &bob);
    crate::support::until("the new node is given keys", || {
        chat.say(&room, r#"{"secret":"four"}"#).unwrap();
        late.hears_within(
            Duration::from_secs(1),
            |e| matches!(e, Event::Timeline { content, .. } if content.as_str() == r#"{"secret":"four"}"#),
        )
    });
    assert!(
        !late.has_heard(
            |e| matches!(e, Event::Timeline { content, .. } if !content.as_str().contains("four"))
        ),
        "it has no keys of what was before"
    );
}

#[test]
fn two_nodes_on_one_account() {
    let synapse = Synapse::start(Limits::Raised);
    let ada = synapse.account("ada");
    let (mut one, mut two) = (Chat::of(&synapse, &ada), Chat::of(&synapse, &ada));
    let made = block_on(one.client.create(room(true))).unwrap();
    hears_member(&mut two, &made, &ada.user, true);
    one.state(&made, "one", r#"{"node":"one"}"#).unwrap();
    two.state(&made, "two", r#"{"node":"two"}"#).unwrap();
    one.hears_state(&made, &ada.user, r#"{"node":"two"}"#);
    two.hears_state(&made, &ada.user, r#"{"node":"one"}"#);
    one.say(&made, r#"{"from":"one"}"#).unwrap();
    two.hears_said(&made, &ada.user, r#"{"from":"one"}"#);
    // One logs out, the other stays.
    block_on(one.client.logout()).unwrap();
    two.say(&made, r#"{"from":"two"}"#).unwrap();
    two.hears_said(&made, &ada.user, r#"{"from":"two"}"#);
}

#[test]
fn an_invitation_is_shown_and_not_taken_by_itself() {
    let synapse = Synapse::start(Limits::Raised);
    let (ada, bob, eve) = (synapse.account("ada"), synapse.account("bob"), synapse.account("eve"));
    let (chat, other, third) = (Chat::of(&synapse, &ada), Chat::of(&synapse, &bob), Chat::of(&synapse, &eve));
    let invite = vec![UserId::parse(&bob.user).unwrap()];
    let made = block_on(chat.client.create(NewRoom { name: "closed".into(), invite, ..NewRoom::default() }))
        .unwrap();
    crate::support::until("the invitation is listed", || !block_on(other.client.list()).unwrap().is_empty());
    let listed = block_on(other.client.list()).unwrap();
    assert!(listed[0].invited && listed[0].room == made, "{listed:?}");
    assert!(matches!(other.say(&made, "{}"), Err(RoomError::NotJoined(_))));
    let refused = block_on(third.client.join(made.as_str(), &[])).unwrap_err();
    assert!(matches!(refused, RoomError::Refused(_)), "{refused}");
    block_on(other.client.join(made.as_str(), &[])).unwrap();
    let listed = block_on(other.client.list()).unwrap();
    assert!(!listed[0].invited && listed[0].name.as_deref() == Some("closed"), "{listed:?}");
}

#[test]
fn what_no_homeserver_would_take_is_refused_here() {
    let synapse = Synapse::start(Limits::Raised);
    let (ada, mut chat, _, _, room) = two(&synapse, true);
    let large = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    let huge = dpm::room::Content::parse(&large(65_537)).unwrap_err();
    assert!(huge.to_string().contains("65537 bytes is too large"), "{huge}");
    for (bytes, sealed) in [(62 << 10, false), (46 << 10, true)] {
        let refused =
            if sealed { chat.say(&room, &large(bytes)) } else { chat.state(&room, "k", &large(bytes)) };
        assert!(matches!(refused, Err(RoomError::TooLarge { .. })), "{refused:?}");
    }
    // The largest that are let through are taken.
    let (state, said) = (large(dpm::room::CONTENT_BYTES), large(dpm::room::ENCRYPTED_CONTENT_BYTES));
    chat.state(&room, &ada.user, &state).unwrap();
    chat.hears_state(&room, &ada.user, &state);
    chat.say(&room, &said).unwrap();
    chat.hears_said(&room, &ada.user, &said);
    let long = block_on(chat.client.send_state(&room, &kind("t.node"), &"k".repeat(256), &content("{}")));
    assert!(matches!(long, Err(RoomError::Malformed { .. })), "{long:?}");
    let elsewhere = RoomId::parse("!elsewhere").unwrap();
    assert!(matches!(chat.say(&elsewhere, "{}"), Err(RoomError::NotJoined(_))));
    for bad in ["room", "!", "#alias", "", "!a b"] {
        let refused = block_on(chat.client.join(bad, &[])).unwrap_err();
        assert!(matches!(refused, RoomError::Malformed { .. }), "{bad}: {refused}");
    }
}
