//! Two homeservers that know each other.

use dpm::room::{NewRoom, RoomId};
use futures_lite::future::block_on;

use super::node::Chat;
use super::synapse::{Limits, Synapse};

/// Somebody says something, and everybody hears it.
fn said(room: &RoomId, text: &str, speaker: (&Chat, &str), listeners: &mut [&mut Chat]) {
    speaker.0.say(room, text).unwrap();
    for chat in listeners {
        chat.hears_said(room, speaker.1, text);
    }
}

#[test]
fn the_members_of_one_go_on_while_the_other_is_dead() {
    let [mut a, b] = Synapse::pair(Limits::Raised);
    let [ada, bob, ben] = [a.account("ada"), b.account("bob"), b.account("ben")];
    let (mut on_a, mut bobs, mut bens) = (Chat::of(&a, &ada), Chat::of(&b, &bob), Chat::of(&b, &ben));
    let room =
        block_on(on_a.client.create(NewRoom { name: "project".into(), ..NewRoom::default() })).unwrap();
    block_on(bobs.client.join(room.as_str(), std::slice::from_ref(&a.name))).unwrap();
    block_on(bens.client.join(room.as_str(), std::slice::from_ref(&a.name))).unwrap();

    // Both ways, state and timeline.
    on_a.state(&room, &ada.user, r#"{"on":"a"}"#).unwrap();
    bobs.hears_state(&room, &ada.user, r#"{"on":"a"}"#);
    bobs.state(&room, &bob.user, r#"{"on":"b"}"#).unwrap();
    on_a.hears_state(&room, &bob.user, r#"{"on":"b"}"#);
    said(&room, r#"{"n":1}"#, (&on_a, &ada.user), &mut [&mut bobs, &mut bens]);
    said(&room, r#"{"n":2}"#, (&bobs, &bob.user), &mut [&mut on_a, &mut bens]);

    // The one where the room was made dies.
    a.kill();
    on_a.offline();
    said(&room, r#"{"n":3}"#, (&bobs, &bob.user), &mut [&mut bens]);
    bens.state(&room, &ben.user, r#"{"while":"a is dead"}"#).unwrap();
    bobs.hears_state(&room, &ben.user, r#"{"while":"a is dead"}"#);
    on_a.say(&room, r#"{"n":4}"#).unwrap();

    // What each side said meanwhile comes to the other.
    a.revive();
    on_a.online();
    on_a.hears_state(&room, &ben.user, r#"{"while":"a is dead"}"#);
    bobs.hears_said(&room, &ada.user, r#"{"n":4}"#);
    on_a.hears_said(&room, &bob.user, r#"{"n":3}"#);
}
