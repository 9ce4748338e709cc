//! The thread: a tokio runtime, the session if there is one, and the commands.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_channel::{Receiver, Sender};
use futures_lite::future;
use tokio::task::JoinSet;

use super::client::{Command, Login, Reply, Status};
use super::connect::Connected;
use super::limits::{COMMANDS_AT_ONCE, STOP_TIME};
use super::session::{self, Session};
use super::{Connection, Event, Options, RoomError, UserId, account};

/// What the thread is given.
pub(super) struct Parts {
    pub(super) dir: PathBuf,
    pub(super) options: Options,
    pub(super) commands: Receiver<Command>,
    pub(super) events: Sender<Event>,
    pub(super) status: Arc<Mutex<Status>>,
}

impl Parts {
    pub(super) fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells what was heard, and waits while too much was not taken yet.
    pub(super) async fn tell(&self, event: Event) {
        if let Event::Connection(connection) = &event {
            self.status().connection = Some(connection.clone());
        }
        // Nobody listens: see `Client::start`.
        let _ = self.events.send(event).await;
    }
}

/// Runs until `stopped` is closed.
pub(super) fn run(parts: Parts, stopped: &Receiver<std::convert::Infallible>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return log::error!("rooms: no runtime: {e}"),
    };
    let stop = async {
        let _ = stopped.recv().await;
    };
    runtime.block_on(future::or(stop, serve(Arc::new(parts))));
    // What it still has to do is SQLite's, on threads of its own.
    runtime.shutdown_timeout(STOP_TIME);
}

/// A name for an event that no other event of this account has.
pub(super) fn transaction() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("dpm-{}-{}-{}", std::process::id(), now.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed))
}

async fn serve(parts: Arc<Parts>) {
    let mut connected = None;
    match Session::load(&parts.dir) {
        Ok(None) => {}
        Ok(Some(session)) => match connect(&parts, session).await {
            Ok(new) => connected = Some(new),
            Err(e) => lost(&parts, &e).await,
        },
        Err(e) => lost(&parts, &e).await,
    }
    let mut jobs = JoinSet::new();
    loop {
        let command = async { Some(parts.commands.recv().await) };
        let ended = async {
            match &mut connected {
                Some(connected) => connected.ended().await,
                None => future::pending().await,
            }
            None
        };
        let Some(command) = future::or(command, ended).await else {
            // A bug of ours or of the SDK: a new start from what is on disk, after a pause as after any failure.
            tokio::time::sleep(parts.options.patience.most_pause).await;
            if let Some(old) = connected.take() {
                let session = old.close().await;
                match connect(&parts, session).await {
                    Ok(new) => connected = Some(new),
                    Err(e) => lost(&parts, &e).await,
                }
            }
            continue;
        };
        let Ok(command) = command else { return };
        match command {
            Command::Login(login, reply) => {
                answer(reply, log_in(&parts, &mut connected, login).await).await;
            }
            Command::Logout(reply) => {
                jobs.abort_all();
                answer(reply, log_out(&parts, &mut connected).await).await;
            }
            command => {
                while jobs.try_join_next().is_some() {}
                if jobs.len() >= COMMANDS_AT_ONCE {
                    jobs.join_next().await;
                }
                let work = connected.as_ref().map(Connected::handle);
                let none = none(&parts);
                jobs.spawn(async move {
                    match work {
                        Some(work) => work.carry_out(command).await,
                        None => command.refuse(none).await,
                    }
                });
            }
        }
    }
}

async fn connect(parts: &Arc<Parts>, session: Session) -> Result<Connected, RoomError> {
    let (user, homeserver) = (session.user.clone(), session.homeserver.to_string());
    {
        let mut status = parts.status();
        *status = Status { user: Some(user), homeserver: Some(homeserver), ..Status::default() };
    }
    Connected::start(parts.clone(), session).await
}

/// There is a session and it cannot be used.
async fn lost(parts: &Parts, error: &RoomError) {
    parts.tell(Event::Connection(Connection::LoggedOut { why: error.to_string() })).await;
}

/// Why there is nothing to work with.
fn none(parts: &Parts) -> RoomError {
    match &parts.status().connection {
        Some(Connection::LoggedOut { why }) => RoomError::LoggedOut(why.clone()),
        _ => RoomError::NoSession,
    }
}

async fn log_in(
    parts: &Arc<Parts>,
    connected: &mut Option<Connected>,
    login: Login,
) -> Result<UserId, RoomError> {
    let lost = matches!(parts.status().connection, Some(Connection::LoggedOut { .. }));
    if let Some(old) = connected.as_ref().filter(|_| !lost) {
        return Err(RoomError::LoggedIn(old.user().clone()));
    }
    let session = account::log_in(&account::http(&parts.options)?, &login).await?;
    if let Some(old) = connected.take() {
        old.close().await;
    }
    session.save(&parts.dir)?;
    let user = session.user.clone();
    *connected = Some(connect(parts, session).await?);
    Ok(user)
}

async fn log_out(parts: &Parts, connected: &mut Option<Connected>) -> Result<(), RoomError> {
    let session = match connected.take() {
        Some(connected) => Some(connected.close().await),
        // One that could not be used can still be taken away.
        None => Session::load(&parts.dir).unwrap_or_default(),
    };
    if session.is_none() && !parts.dir.exists() {
        return Err(RoomError::NoSession);
    }
    if let Some(session) = session {
        let told = async { account::log_out(&account::http(&parts.options)?, &session).await };
        if let Err(e) = told.await {
            log::warn!("rooms: {} still knows this device: {e}", session.homeserver);
        }
    }
    let removed = session::remove(&parts.dir);
    *parts.status() = Status::default();
    removed.map_err(|e| RoomError::Store { path: parts.dir.clone(), why: e.to_string() })
}

/// Answers, if anybody still waits.
pub(super) async fn answer<T>(reply: Reply<T>, outcome: Result<T, RoomError>) {
    let _ = reply.send(outcome).await;
}

impl Command {
    /// Answers that there is nothing to do it with.
    async fn refuse(self, error: RoomError) {
        match self {
            Self::Login(_, reply) => answer(reply, Err(error)).await,
            Self::Logout(reply) | Self::Leave(_, reply) | Self::Send { reply, .. } => {
                answer(reply, Err(error)).await;
            }
            Self::Create(_, reply) | Self::Join { reply, .. } => answer(reply, Err(error)).await,
            Self::List(reply) => answer(reply, Err(error)).await,
            Self::ReadState(_, _, reply) => answer(reply, Err(error)).await,
            Self::Members(_, reply) => answer(reply, Err(error)).await,
        }
    }
}
