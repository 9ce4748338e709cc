//! A homeserver that is away, slow, out of its mind, or says that it has had enough.

use std::time::{Duration, Instant};

use dpm::room::{ASKED_PAUSE, Connection, Event, NewRoom, RoomError};
use futures_lite::future::block_on;

use super::door::{BAD_GATEWAY, Fault, GARBAGE};
use super::node::{Chat, LIMIT};
use super::synapse::{Limits, PASSWORD, Synapse};

/// Too many requests, and no word of how long to wait.
const ENOUGH: Fault = Fault::Says(
    "429 Too Many Requests",
    "application/json",
    r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests"}"#,
);

/// The same for some thousand years.
const ENOUGH_FOR_EVER: Fault = Fault::Says(
    "429 Too Many Requests",
    "application/json",
    r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests","retry_after_ms":99999999999999}"#,
);

fn room() -> NewRoom {
    NewRoom { name: "project".into(), ..NewRoom::default() }
}

#[test]
fn killed_and_started_again_it_gets_what_was_queued() {
    let mut synapse = Synapse::start(Limits::Raised);
    let (ada, bob) = (synapse.account("ada"), synapse.account("bob"));
    let (mut chat, mut other) = (Chat::of(&synapse, &ada), Chat::of(&synapse, &bob));
    let made = block_on(chat.client.create(room())).unwrap();
    block_on(other.client.join(made.as_str(), &[])).unwrap();
    synapse.kill();
    chat.offline();
    other.offline();
    for n in 0..20 {
        chat.state(&made, &ada.user, &format!("{{\"n\":{n}}}")).unwrap();
    }
    chat.say(&made, r#"{"said":"in the dark"}"#).unwrap();
    assert!(chat.client.status().queued >= 1);
    synapse.revive();
    chat.online();
    other.online();
    other.hears_state(&made, &ada.user, r#"{"n":19}"#);
    other.hears_said(&made, &ada.user, r#"{"said":"in the dark"}"#);
    // One of the twenty may have been on its way when it was replaced.
    let sent = chat.client.status().sent;
    assert!((2..=3).contains(&sent), "states with one key take each other's place: {sent}");
}

/// With each of these nothing crashes, the homeserver is asked ever more rarely, and afterwards all is well.
#[test]
fn wrong_answers_are_borne_and_not_asked_for_in_a_storm() {
    let synapse = Synapse::start(Limits::Raised);
    let ada = synapse.account("ada");
    let mut chat = Chat::of(&synapse, &ada);
    let made = block_on(chat.client.create(room())).unwrap();
    let faults = [
        BAD_GATEWAY,
        GARBAGE,
        Fault::Says("200 OK", "application/json", "{}"),
        Fault::Says("200 OK", "application/json", r#"{"next_batch": 7, "rooms": []}"#),
        Fault::Says("404 Not Found", "text/plain", "nothing here"),
        Fault::Says("401 Unauthorized", "text/html", "<html>log in to our network</html>"),
        Fault::Says("302 Found", "text/html", ""),
        Fault::Says("500 Oh", "application/json", r#"{"errcode":"M_UNKNOWN","error":"oh"}"#),
        // It has had enough, and does not say for how long.
        ENOUGH,
        Fault::Says("429 Too Many Requests", "text/html", "<html>slow down</html>"),
        Fault::Cut,
    ];
    for (n, fault) in faults.into_iter().enumerate() {
        synapse.door.all(fault);
        let why = chat.offline();
        chat.say(&made, &format!("{{\"n\":{n}}}")).unwrap();
        synapse.door.forget();
        let begun = Instant::now();
        crate::support::until("it was asked four times", || synapse.door.asked("/sync").len() >= 4);
        let (syncs, sends) = (synapse.door.asked("/sync").len(), synapse.door.asked("/send/").len());
        // Pauses of 0.1, 0.2, 0.4 s at the least; for both kinds of question.
        let most = 5 + begun.elapsed().as_millis() as usize / 100;
        assert!(syncs <= most && sends <= most, "{fault:?} {why}: {syncs} and {sends} questions");
        synapse.door.open();
        chat.online();
        chat.hears_said(&made, &ada.user, &format!("{{\"n\":{n}}}"));
    }
}

#[test]
fn one_that_never_answers_is_given_up_and_asked_again() {
    let synapse = Synapse::start(Limits::Raised);
    let ada = synapse.account("ada");
    let mut chat = Chat::of(&synapse, &ada);
    let made = block_on(chat.client.create(room())).unwrap();
    synapse.door.all(Fault::Silence);
    synapse.door.forget();
    chat.say(&made, r#"{"n":1}"#).unwrap();
    assert_eq!(chat.offline(), "no answer in time");
    let begun = Instant::now();
    // Commands end, too.
    let error = block_on(chat.client.create(room())).unwrap_err();
    assert!(error.to_string().contains("no answer in time"), "{error}");
    assert!(begun.elapsed() < LIMIT / 2);
    assert!(synapse.door.asked("").len() < 20, "{}", synapse.door.asked("").len());
    // And so does the thread, in the middle of it.
    let begun = Instant::now();
    block_on(chat.client.stop());
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    synapse.door.open();
    let mut chat = chat.restart();
    chat.online();
}

#[test]
fn told_to_wait_it_waits() {
    let synapse = Synapse::start(Limits::Raised);
    let ada = synapse.account("ada");
    let mut chat = Chat::of(&synapse, &ada);
    let made = block_on(chat.client.create(room())).unwrap();
    const WAIT: Fault = Fault::Says(
        "429 Too Many Requests",
        "application/json",
        r#"{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests","retry_after_ms":3000}"#,
    );
    synapse.door.forget();
    synapse.door.rule(|_, path| path.contains("/send/").then_some(WAIT));
    for n in 0..5 {
        chat.say(&made, &format!("{{\"n\":{n}}}")).unwrap();
    }
    crate::support::until("it was told twice", || synapse.door.asked("/send/").len() >= 2);
    synapse.door.open();
    let asked = synapse.door.asked("/send/");
    assert!(asked[1] - asked[0] >= Duration::from_millis(2900), "{:?}", asked[1] - asked[0]);
    for n in 0..5 {
        chat.hears_said(&made, &ada.user, &format!("{{\"n\":{n}}}"));
    }
    let asked = synapse.door.asked("/send/").len();
    assert!(asked <= 7, "two were refused and five were taken: {asked}");
}

/// A pause that nobody would live to see the end of is an hour, and none is left to a person who logs in.
#[test]
fn told_to_wait_for_ever_it_does_not() {
    let synapse = Synapse::start(Limits::Raised);
    let ada = synapse.account("ada");
    let mut chat = Chat::nobody();
    const OTHER: Fault = Fault::Says(
        "429 Too Many Requests",
        "application/json",
        r#"{"errcode":"M_UNKNOWN","error":"enough"}"#,
    );
    for (fault, want) in [(ENOUGH, None), (ENOUGH_FOR_EVER, Some(ASKED_PAUSE)), (OTHER, None)] {
        synapse.door.all(fault);
        let error = chat.login(&synapse, &ada, PASSWORD).unwrap_err();
        assert!(matches!(&error, RoomError::Later { after, .. } if *after == want), "{fault:?}: {error}");
        assert!(!chat.dir.path().join("room").exists(), "nothing is left of what failed");
    }
    synapse.door.open();
    chat.login(&synapse, &ada, PASSWORD).unwrap();
    chat.online();
    let made = block_on(chat.client.create(room())).unwrap();

    synapse.door.rule(|_, path| path.contains("/sync").then_some(ENOUGH_FOR_EVER));
    let heard = chat.hears("offline", |e| matches!(e, Event::Connection(Connection::Offline { .. })));
    let Event::Connection(Connection::Offline { retry_in, .. }) = heard else { unreachable!() };
    assert_eq!(retry_in, ASKED_PAUSE);
    // What is said goes its own way meanwhile, and a start asks anew.
    chat.say(&made, r#"{"n":1}"#).unwrap();
    crate::support::until("it is sent", || chat.client.status().sent == 1);
    synapse.door.open();
    let mut chat = chat.restart();
    chat.online();
    chat.hears_said(&made, &ada.user, r#"{"n":1}"#);
}
