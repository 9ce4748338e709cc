//! A session at work: the SDK's client, the tasks that listen and send, and what they share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use event_listener::{Event as Signal, EventListener};
use futures_lite::future;
use matrix_sdk::authentication::matrix::MatrixSession;
use matrix_sdk::config::RequestConfig;
use matrix_sdk::ruma::{OwnedDeviceId, OwnedRoomId, OwnedUserId, RoomId as SdkRoomId, UserId as SdkUserId};
use matrix_sdk::store::RoomLoadSettings;
use matrix_sdk::{Room, RoomState, SessionMeta, SessionTokens};
use tokio::task::JoinHandle;

use super::queue::Queue;
use super::session::Session;
use super::thread::Parts;
use super::{Connection, Event, RoomError, RoomId, UserId, account, send, sync};

/// A session at work. Dropping it ends its tasks.
pub(super) struct Connected {
    work: Arc<Work>,
    session: Session,
    task: JoinHandle<()>,
}

/// What tasks and commands of a session share.
pub(super) struct Work {
    pub(super) sdk: matrix_sdk::Client,
    pub(super) parts: Arc<Parts>,
    queue: Mutex<Queue>,
    /// Something was queued, or the homeserver is back.
    pub(super) wake: Signal,
    /// The homeserver's news, numbered, and for each room the last that it was in.
    seen: Mutex<Seen>,
    /// News came.
    pub(super) synced: Signal,
}

#[derive(Default)]
struct Seen {
    number: u64,
    rooms: HashMap<OwnedRoomId, u64>,
}

impl Connected {
    /// Opens the store and starts to listen and to send. Asks the homeserver nothing before it returns.
    pub(super) async fn start(parts: Arc<Parts>, session: Session) -> Result<Self, RoomError> {
        let broken = |why: String| RoomError::Store { path: parts.dir.clone(), why };
        let requests = RequestConfig::new().disable_retry().timeout(parts.options.patience.request);
        let sdk = matrix_sdk::Client::builder()
            .homeserver_url(&session.homeserver)
            .respect_login_well_known(false)
            .http_client(account::http(&parts.options)?)
            .request_config(requests)
            .sqlite_store(&parts.dir, None)
            .build()
            .await
            .map_err(|e| broken(e.to_string()))?;
        let meta = SessionMeta {
            user_id: OwnedUserId::try_from(session.user.as_str()).map_err(|e| broken(e.to_string()))?,
            device_id: OwnedDeviceId::from(session.device.as_str()),
        };
        let tokens = SessionTokens { access_token: session.token.reveal().to_owned(), refresh_token: None };
        sdk.matrix_auth()
            .restore_session(MatrixSession { meta, tokens }, RoomLoadSettings::default())
            .await
            .map_err(|e| broken(e.to_string()))?;
        let queue = Mutex::new(Queue::new(parts.options.pace, Instant::now()));
        let work = Arc::new(Work {
            sdk,
            parts,
            queue,
            wake: Signal::new(),
            seen: Mutex::default(),
            synced: Signal::new(),
        });
        let theirs = work.clone();
        // Either ends when the token does not hold: there is nothing more to say or to hear then.
        let task = tokio::spawn(async move {
            future::or(sync::run(&theirs), send::run(&theirs)).await;
            future::pending().await
        });
        Ok(Self { work, session, task })
    }

    pub(super) fn user(&self) -> &UserId {
        &self.session.user
    }

    /// For a command.
    pub(super) fn handle(&self) -> Arc<Work> {
        self.work.clone()
    }

    /// Waits until the tasks have panicked.
    pub(super) async fn ended(&mut self) {
        if let Err(e) = (&mut self.task).await {
            let why = format!("internal error: {e}");
            log::error!("rooms: {why}");
            let retry_in = self.work.parts.options.patience.most_pause;
            self.work.parts.tell(Event::Connection(Connection::Offline { why, retry_in })).await;
        }
    }

    /// Ends the tasks.
    pub(super) async fn close(mut self) -> Session {
        // One that has ended by itself panicked, and that was heard of.
        if !self.task.is_finished() {
            self.task.abort();
            let _ = (&mut self.task).await;
        }
        self.session.clone()
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Work {
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// News came, with these rooms in it.
    pub(super) fn saw<'a>(&self, rooms: impl Iterator<Item = &'a OwnedRoomId>) {
        let mut seen = self.seen();
        seen.number += 1;
        let number = seen.number;
        for room in rooms {
            seen.rooms.insert(room.clone(), number);
        }
        drop(seen);
        self.synced.notify(usize::MAX);
    }

    /// The number of the last news.
    pub(super) fn news(&self) -> u64 {
        self.seen().number
    }

    /// Waits until a room was in news after number `after`.
    pub(super) async fn appearing(&self, room: &SdkRoomId, after: u64) {
        loop {
            let listener: EventListener = self.synced.listen();
            if self.seen().rooms.get(room).is_some_and(|number| *number > after) {
                return;
            }
            listener.await;
        }
    }

    /// Who we are.
    pub(super) fn user(&self) -> Option<&SdkUserId> {
        self.sdk.user_id()
    }

    /// A room that the account is in.
    pub(super) fn joined(&self, room: &RoomId) -> Result<Room, RoomError> {
        let found = <&SdkRoomId>::try_from(room.as_str()).ok().and_then(|id| self.sdk.get_room(id));
        found
            .filter(|room| room.state() == RoomState::Joined)
            .ok_or_else(|| RoomError::NotJoined(room.to_string()))
    }
}
