//! A rooms' client in this process, and what it heard.

use std::time::{Duration, Instant};

use async_channel::Receiver;
use dpm::base::Secret;
use dpm::room::{
    Client, Connection, Content, Event, Kind, Login, Options, Pace, Patience, Proof, RoomError, RoomId,
    UserId,
};
use futures_lite::future::{self, block_on};

use super::synapse::{Account, PASSWORD, Synapse};

/// Longer than anything here takes on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A client on a folder, with short pauses. Stopped when dropped.
pub struct Chat {
    pub dir: tempfile::TempDir,
    pub client: Client,
    heard: Receiver<Event>,
    /// What was heard and not asked for yet.
    waiting: Vec<Event>,
}

pub fn kind(text: &str) -> Kind {
    Kind::parse(text).unwrap()
}

pub fn content(text: &str) -> Content {
    Content::parse(text).unwrap()
}

pub fn options() -> Options {
    let mut options = Options::new("t.", vec![kind("t.node")]);
    options.pace = Pace { per_second: 1000.0, burst: 1000 };
    options.patience = Patience {
        request: Duration::from_secs(4),
        poll: Duration::from_secs(4),
        first_pause: Duration::from_millis(200),
        most_pause: Duration::from_secs(2),
    };
    options
}

impl Chat {
    /// Nobody is logged in.
    pub fn nobody() -> Self {
        Self::on(tempfile::tempdir().unwrap(), options())
    }

    /// Somebody, logged in by password.
    pub fn of(synapse: &Synapse, account: &Account) -> Self {
        Self::with(synapse, account, options())
    }

    pub fn with(synapse: &Synapse, account: &Account, options: Options) -> Self {
        let mut chat = Self::on(tempfile::tempdir().unwrap(), options);
        assert_eq!(chat.login(synapse, account, PASSWORD).unwrap().as_str(), account.user);
        chat.online();
        chat
    }

    /// A client on a folder that may hold a session.
    pub fn on(dir: tempfile::TempDir, options: Options) -> Self {
        let (client, heard) = Client::start(&dir.path().join("room"), options).unwrap();
        Self { dir, client, heard, waiting: Vec::new() }
    }

    pub fn login(&self, synapse: &Synapse, account: &Account, password: &str) -> Result<UserId, RoomError> {
        let proof = Proof::Password(Secret::new(password));
        block_on(self.client.login(Login { homeserver: synapse.url(), user: account.name.clone(), proof }))
    }

    /// Stops it and starts it again on its folder.
    pub fn restart(mut self) -> Self {
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        drop(self);
        Self::on(dir, options())
    }

    /// Waits until something is heard that is so. What was heard before that stays to be asked for.
    #[track_caller]
    pub fn hears(&mut self, what: &str, so: impl Fn(&Event) -> bool) -> Event {
        if let Some(at) = self.waiting.iter().position(&so) {
            return self.waiting.remove(at);
        }
        match self.next(LIMIT, so) {
            Some(event) => event,
            None => panic!("waited in vain for {what}; heard {:#?}", self.waiting),
        }
    }

    /// Whether something is heard within that time that is so.
    pub fn hears_within(&mut self, patience: Duration, so: impl Fn(&Event) -> bool) -> bool {
        self.next(patience, so).is_some()
    }

    fn next(&mut self, patience: Duration, so: impl Fn(&Event) -> bool) -> Option<Event> {
        let end = Instant::now() + patience;
        loop {
            let next = async { self.heard.recv().await.ok() };
            let late = async {
                async_io::Timer::at(end).await;
                None
            };
            match block_on(future::or(next, late))? {
                event if so(&event) => return Some(event),
                event => self.waiting.push(event),
            }
        }
    }

    /// Whether something was heard meanwhile, and not asked for, that is so.
    pub fn has_heard(&self, so: impl Fn(&Event) -> bool) -> bool {
        self.waiting.iter().any(so)
    }

    #[track_caller]
    pub fn online(&mut self) {
        self.hears("online", |e| matches!(e, Event::Connection(Connection::Online)));
    }

    /// Why it is offline.
    #[track_caller]
    pub fn offline(&mut self) -> String {
        let heard = self.hears("offline", |e| matches!(e, Event::Connection(Connection::Offline { .. })));
        let Event::Connection(Connection::Offline { why, .. }) = heard else { unreachable!() };
        why
    }

    /// Waits for a timeline event of `sender` with this content.
    #[track_caller]
    pub fn hears_said(&mut self, room: &RoomId, sender: &str, text: &str) {
        self.hears(text, |e| {
            matches!(e, Event::Timeline { room: r, sender: s, kind, content }
                if r == room && s.as_str() == sender && kind.as_str() == "t.said" && content.as_str() == text)
        });
    }

    /// Waits for a state event of `sender` with this content under their own key.
    #[track_caller]
    pub fn hears_state(&mut self, room: &RoomId, sender: &str, text: &str) {
        self.hears(text, |e| {
            matches!(e, Event::State { room: r, event }
                if r == room && event.sender.as_str() == sender && event.content.as_str() == text)
        });
    }

    pub fn say(&self, room: &RoomId, text: &str) -> Result<(), RoomError> {
        block_on(self.client.send(room, &kind("t.said"), &content(text)))
    }

    pub fn state(&self, room: &RoomId, key: &str, text: &str) -> Result<(), RoomError> {
        block_on(self.client.send_state(room, &kind("t.node"), key, &content(text)))
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        block_on(self.client.stop());
    }
}
