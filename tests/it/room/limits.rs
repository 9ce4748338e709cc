//! With the limits that a homeserver has by default.

use std::time::{Duration, Instant};

use dpm::room::{NewRoom, Pace};
use futures_lite::future::block_on;

use super::node::{Chat, options};
use super::synapse::{Limits, Synapse};

/// Nothing has to be refused by the homeserver for events to come at its pace, and a state that changes all the time
/// comes as often as it may.
#[test]
fn the_default_pace_is_what_a_homeserver_takes() {
    let synapse = Synapse::start(Limits::Default);
    let ada = synapse.account("ada");
    let mut patient = options();
    patient.pace = Pace::default();
    let mut chat = Chat::with(&synapse, &ada, patient);
    let made =
        block_on(chat.client.create(NewRoom { name: "project".into(), ..NewRoom::default() })).unwrap();
    synapse.door.forget();
    let begun = Instant::now();
    for n in 0..12 {
        chat.say(&made, &format!("{{\"n\":{n}}}")).unwrap();
    }
    for n in 0..100 {
        chat.state(&made, &ada.user, &format!("{{\"n\":{n}}}")).unwrap();
    }
    for n in 0..12 {
        chat.hears_said(&made, &ada.user, &format!("{{\"n\":{n}}}"));
    }
    chat.hears_state(&made, &ada.user, r#"{"n":99}"#);
    let (asked, took) = (synapse.door.asked("/rooms/").len(), begun.elapsed());
    // Making the room cost the homeserver's count nothing of ours; rounding may cost one refusal.
    assert!((13..=15).contains(&asked), "{asked} requests");
    assert!(took > Duration::from_secs(14), "three of thirteen came one in five seconds: {took:?}");
}
