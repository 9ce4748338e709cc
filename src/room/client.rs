//! The handle that the rest of dpm holds: commands go to the thread, answers come back.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use async_channel::{Receiver, Sender};
use futures_lite::future;

use super::limits::{COMMANDS_WAITING, HEARD_WAITING, STOP_TIME};
use super::queue::{Item, Waiter, What};
use super::rooms::{Listed, NewRoom};
use super::thread::{self, Parts};
use super::{Connection, Content, Event, Kind, Options, RoomError, RoomId, StateEvent, UserId};
use crate::base::Secret;

/// An account's rooms; clones are one. Commands of one clone are begun in order and may overlap.
///
/// Every method that waits is bounded by [`super::Patience::request`] or a limit of its own, and may be dropped: what
/// was begun is then carried out without anybody hearing of it.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    commands: Sender<Command>,
    stop: Sender<Infallible>,
    ended: Receiver<Infallible>,
    thread: Mutex<Option<JoinHandle<()>>>,
    status: Arc<Mutex<Status>>,
}

/// Who logs in where.
#[derive(Clone, Debug)]
pub struct Login {
    /// The address of the homeserver's client API.
    pub homeserver: String,
    /// The user's name there, or `@name:server`.
    pub user: String,
    /// What proves it.
    pub proof: Proof,
}

/// What proves who somebody is.
#[derive(Clone, Debug)]
pub enum Proof {
    /// Gives a device of its own.
    Password(Secret),
    /// An access token, with the device it belongs to. That device must be nobody else's, for it has one set of keys.
    Token(Secret),
}

/// How it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Who is logged in.
    pub user: Option<UserId>,
    /// Where.
    pub homeserver: Option<String>,
    /// How it stands with the homeserver; nothing was heard of it yet where this is missing.
    pub connection: Option<Connection>,
    /// Events that wait to be sent.
    pub queued: usize,
    /// Events that were sent.
    pub sent: u64,
    /// Events that were dropped for breaking a limit, or because their key never came.
    pub dropped: u64,
}

pub(super) type Reply<T> = Sender<Result<T, RoomError>>;

/// What the thread is told to do.
pub(super) enum Command {
    Login(Login, Reply<UserId>),
    Logout(Reply<()>),
    Create(NewRoom, Reply<RoomId>),
    Join { room: String, via: Vec<String>, reply: Reply<RoomId> },
    Leave(RoomId, Reply<()>),
    List(Reply<Vec<Listed>>),
    Send { room: RoomId, item: Item, reply: Reply<()> },
    ReadState(RoomId, Kind, Reply<Vec<StateEvent>>),
    Members(RoomId, Reply<Vec<UserId>>),
}

impl Client {
    /// Starts the thread, with the session in `dir` if there is one, and gives what is heard.
    ///
    /// Whoever takes the events must go on taking them: [`HEARD_WAITING`] may wait, then the homeserver is not asked
    /// for more. Dropping the receiver ends nothing; what is heard is then lost.
    pub fn start(dir: &Path, options: Options) -> Result<(Self, Receiver<Event>), RoomError> {
        let (commands, their_commands) = async_channel::bounded(COMMANDS_WAITING);
        let (events, heard) = async_channel::bounded(HEARD_WAITING);
        let (stop, stopped) = async_channel::bounded(1);
        let (ending, ended) = async_channel::bounded(1);
        let status = Arc::new(Mutex::new(Status::default()));
        let parts =
            Parts { dir: dir.to_owned(), options, commands: their_commands, events, status: status.clone() };
        let thread = std::thread::Builder::new()
            .name("dpm-rooms".into())
            // The SDK's futures are deep, most of all unoptimised. Only what is touched is memory.
            .stack_size(16 << 20)
            .spawn(move || {
                let _ending = ending;
                thread::run(parts, &stopped);
            })
            .map_err(RoomError::Thread)?;
        let thread = Mutex::new(Some(thread));
        Ok((Self { inner: Arc::new(Inner { commands, stop, ended, thread, status }) }, heard))
    }

    /// Logs in and goes online. The session is on disk when this returns.
    pub async fn login(&self, login: Login) -> Result<UserId, RoomError> {
        self.ask(|reply| Command::Login(login, reply)).await
    }

    /// Logs out and takes the room folder away, whatever the homeserver says to it.
    pub async fn logout(&self) -> Result<(), RoomError> {
        self.ask(Command::Logout).await
    }

    /// Makes a room whose members may send [`Options::member_state`], and gives its id once it is known here.
    pub async fn create(&self, room: NewRoom) -> Result<RoomId, RoomError> {
        self.ask(|reply| Command::Create(room, reply)).await
    }

    /// Joins a room by its id or alias, through the servers `via` where ours is not in it. Its state is known here
    /// when this returns.
    pub async fn join(&self, room: &str, via: &[String]) -> Result<RoomId, RoomError> {
        let (room, via) = (room.to_owned(), via.to_owned());
        self.ask(|reply| Command::Join { room, via, reply }).await
    }

    /// Leaves a room, or turns an invitation down.
    pub async fn leave(&self, room: &RoomId) -> Result<(), RoomError> {
        self.ask(|reply| Command::Leave(room.clone(), reply)).await
    }

    /// The rooms of the account, and its invitations.
    pub async fn list(&self) -> Result<Vec<Listed>, RoomError> {
        self.ask(Command::List).await
    }

    /// Queues a state event. One that waits with this type and key is replaced.
    pub async fn send_state(
        &self,
        room: &RoomId,
        kind: &Kind,
        key: &str,
        content: &Content,
    ) -> Result<(), RoomError> {
        self.queue_state(room, kind, key, content, Waiter::default()).await
    }

    /// The same, and waits until the homeserver has taken it, or has refused it.
    pub async fn set_state(
        &self,
        room: &RoomId,
        kind: &Kind,
        key: &str,
        content: &Content,
    ) -> Result<(), RoomError> {
        let (waiter, sent) = async_channel::bounded(1);
        self.queue_state(room, kind, key, content, Waiter(Some(waiter))).await?;
        sent.recv().await.map_err(|_| RoomError::Stopped)?
    }

    async fn queue_state(
        &self,
        room: &RoomId,
        kind: &Kind,
        key: &str,
        content: &Content,
        waiter: Waiter,
    ) -> Result<(), RoomError> {
        if key.len() > super::NAME_BYTES {
            return Err(RoomError::Malformed { what: "state key", text: key.chars().take(80).collect() });
        }
        let what = What::State { key: key.to_owned() };
        let item = Item { kind: kind.clone(), what, content: content.clone(), waiter };
        self.ask(|reply| Command::Send { room: room.clone(), item, reply }).await
    }

    /// Queues a timeline event; it is encrypted where the room is.
    pub async fn send(&self, room: &RoomId, kind: &Kind, content: &Content) -> Result<(), RoomError> {
        let what = What::Timeline { transaction: thread::transaction() };
        let item = Item { kind: kind.clone(), what, content: content.clone(), waiter: Waiter::default() };
        self.ask(|reply| Command::Send { room: room.clone(), item, reply }).await
    }

    /// The room's state events of a type, as far as they are known here; their senders may no longer be members.
    pub async fn read_state(&self, room: &RoomId, kind: &Kind) -> Result<Vec<StateEvent>, RoomError> {
        self.ask(|reply| Command::ReadState(room.clone(), kind.clone(), reply)).await
    }

    /// Who is in a room, by their ids in order: [`super::MEMBERS`] at most.
    pub async fn members(&self, room: &RoomId) -> Result<Vec<UserId>, RoomError> {
        self.ask(|reply| Command::Members(room.clone(), reply)).await
    }

    /// How it stands, from memory.
    pub fn status(&self) -> Status {
        self.inner.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the thread, within [`STOP_TIME`] twice over.
    pub async fn stop(&self) {
        self.inner.stop.close();
        let ended = async {
            let _ = self.inner.ended.recv().await;
            true
        };
        let late = async {
            async_io::Timer::after(2 * STOP_TIME).await;
            false
        };
        let thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        match (future::or(ended, late).await, thread) {
            (true, Some(thread)) => {
                if thread.join().is_err() {
                    log::error!("the rooms' thread panicked");
                }
            }
            (true, None) => {}
            (false, _) => log::warn!("the rooms' thread does not end"),
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, RoomError> {
        let (reply, answer) = async_channel::bounded(1);
        self.inner.commands.send(command(reply)).await.map_err(|_| RoomError::Stopped)?;
        answer.recv().await.map_err(|_| RoomError::Stopped)?
    }
}
