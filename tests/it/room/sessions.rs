//! Logging in and out, and what is left of a session.

use std::os::unix::fs::PermissionsExt;

use dpm::base::Secret;
use dpm::room::{Connection, Event, Login, NewRoom, Proof, RoomError};
use futures_lite::future::block_on;

use super::node::{Chat, content, kind};
use super::synapse::{Limits, PASSWORD, Synapse};

fn by_token(synapse: &Synapse, user: &str, token: &str) -> Login {
    Login { homeserver: synapse.url(), user: user.into(), proof: Proof::Token(Secret::new(token)) }
}

#[test]
fn logging_in_and_what_is_refused() {
    let synapse = Synapse::start(Limits::Default);
    let ada = synapse.account("ada");
    let chat = Chat::nobody();
    assert!(matches!(block_on(chat.client.list()), Err(RoomError::NoSession)));
    assert!(matches!(block_on(chat.client.logout()), Err(RoomError::NoSession)));

    let wrong = chat.login(&synapse, &ada, "wrong").unwrap_err();
    assert!(matches!(&wrong, RoomError::Refused(why) if why.contains("403")), "{wrong}");
    let wrong = block_on(chat.client.login(by_token(&synapse, "ada", "syt_wrong"))).unwrap_err();
    assert!(matches!(wrong, RoomError::LoggedOut(_)), "{wrong}");
    let wrong = block_on(chat.client.login(by_token(&synapse, "bob", &ada.token))).unwrap_err();
    assert!(wrong.to_string().contains("this token is @ada:room.test's"), "{wrong}");
    let nowhere = Login { homeserver: "http://127.0.0.1:1".into(), ..by_token(&synapse, "ada", "x") };
    let wrong = block_on(chat.client.login(nowhere)).unwrap_err();
    assert!(matches!(&wrong, RoomError::Later { why, .. } if why.contains("cannot connect")), "{wrong}");
    assert!(!chat.dir.path().join("room").exists(), "nothing is left of what failed");

    let mut chat = chat;
    let user = block_on(chat.client.login(by_token(&synapse, "@ada:room.test", &ada.token))).unwrap();
    assert_eq!(user.as_str(), "@ada:room.test");
    chat.online();
    let again = chat.login(&synapse, &ada, PASSWORD).unwrap_err();
    assert!(matches!(again, RoomError::LoggedIn(_)), "{again}");
    let session = chat.dir.path().join("room/session");
    assert_eq!(session.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(chat.dir.path().join("room").metadata().unwrap().permissions().mode() & 0o777, 0o700);

    block_on(chat.client.logout()).unwrap();
    assert!(!chat.dir.path().join("room").exists(), "the session and the store are gone");
    assert!(matches!(block_on(chat.client.list()), Err(RoomError::NoSession)));
    let told = block_on(chat.client.login(by_token(&synapse, "ada", &ada.token))).unwrap_err();
    assert!(matches!(told, RoomError::LoggedOut(_)), "the homeserver was told: {told}");
}

#[test]
fn a_session_survives_a_restart_and_a_dead_homeserver() {
    let mut synapse = Synapse::start(Limits::Raised);
    let ada = synapse.account("ada");
    let mut chat = Chat::of(&synapse, &ada);
    let room = block_on(chat.client.create(NewRoom { name: "one".into(), ..NewRoom::default() })).unwrap();
    chat.state(&room, &ada.user, r#"{"n":1}"#).unwrap();
    chat.hears_state(&room, &ada.user, r#"{"n":1}"#);

    let mut chat = chat.restart();
    chat.online();
    let listed = block_on(chat.client.list()).unwrap();
    assert_eq!((listed.len(), listed[0].name.as_deref(), listed[0].members), (1, Some("one"), 1));
    let state = block_on(chat.client.read_state(&room, &kind("t.node"))).unwrap();
    assert_eq!((state.len(), &state[0].content), (1, &content(r#"{"n":1}"#)));
    assert_eq!(state[0].sender.as_str(), ada.user);

    // What is known is known without it.
    synapse.kill();
    let mut chat = chat.restart();
    assert!(!chat.offline().is_empty());
    assert_eq!(block_on(chat.client.list()).unwrap(), listed);
    assert_eq!(block_on(chat.client.read_state(&room, &kind("t.node"))).unwrap(), state);
    assert_eq!(block_on(chat.client.members(&room)).unwrap().len(), 1);
    // A logout without it takes the files all the same.
    block_on(chat.client.logout()).unwrap();
    assert!(!chat.dir.path().join("room").exists());
}

#[test]
fn a_revoked_token_is_said_once_and_the_homeserver_left_alone() {
    let synapse = Synapse::start(Limits::Raised);
    let ada = synapse.account("ada");
    let mut chat = Chat::nobody();
    block_on(chat.client.login(by_token(&synapse, "ada", &ada.token))).unwrap();
    chat.online();
    synapse.ask("POST", "client/v3/logout", Some(&ada.token), Some(serde_json::json!({})));
    chat.hears("logged out", |e| matches!(e, Event::Connection(Connection::LoggedOut { .. })));
    synapse.door.forget();
    let error = block_on(chat.client.create(NewRoom { name: "x".into(), ..NewRoom::default() })).unwrap_err();
    assert!(error.to_string().contains("`dpm room login`"), "{error}");
    // A start tries once.
    let mut chat = chat.restart();
    chat.hears("logged out", |e| matches!(e, Event::Connection(Connection::LoggedOut { .. })));
    let syncs = synapse.door.asked("/sync").len();
    assert!(syncs <= 1, "{syncs}");
    // And logging in again needs no logout.
    chat.login(&synapse, &ada, PASSWORD).unwrap();
    chat.online();
}

#[test]
fn damaged_folders_are_said_to_be_damaged() {
    let synapse = Synapse::start(Limits::Raised);
    let ada = synapse.account("ada");
    for (file, wanted) in [("session", "session"), ("matrix-sdk-state.sqlite3", "store")] {
        let chat = Chat::of(&synapse, &ada);
        block_on(chat.client.stop());
        for entry in std::fs::read_dir(chat.dir.path().join("room")).unwrap() {
            let path = entry.unwrap().path();
            // With its journal.
            if path.file_name().unwrap().to_str().unwrap().starts_with(file) {
                std::fs::write(path, "damaged ".repeat(1000)).unwrap();
            }
        }
        let mut chat = chat.restart();
        let lost = chat.hears("it is lost", |e| matches!(e, Event::Connection(Connection::LoggedOut { .. })));
        let Event::Connection(Connection::LoggedOut { why }) = lost else { unreachable!() };
        assert!(why.contains(wanted) && why.contains("`dpm room logout`"), "{why}");
        block_on(chat.client.logout()).unwrap();
        chat.login(&synapse, &ada, PASSWORD).unwrap();
        chat.online();
    }
}
